//! Kind `egress-ip`: the address that our beacon sees us come from, by its signature.

use tokio::time::Instant;

use super::fetch::Fetch;
use super::{Approach, Ended, Via};
use crate::clock::Wall;
use crate::observation::{Authentication, Evidence, Outcome, Stage};
use crate::target::{Url, fold_mapped};
use crate::token::{Answer, Key, Nonce};

/// Kind `egress-ip`.
#[derive(Debug, PartialEq)]
pub struct EgressIp {
    /// The beacon, over plain HTTP: its signature is its authentication.
    pub url: Url,
    /// The proxy to go through.
    pub via: Option<Via>,
    /// The addresses that it may see.
    pub expected: Vec<ipnet::IpNet>,
    /// The key shared with the beacon.
    pub key: Key,
}

impl EgressIp {
    /// One nonce brought to the beacon, and its signed answer.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        let nonce = match Nonce::mint(&self.key, Wall::now().unix_millis()) {
            Ok(nonce) => nonce,
            Err(why) => {
                evidence.detail = Some(why);
                return (Outcome::LocalError, Stage::Tcp);
            }
        };
        evidence.nonce = Some(nonce.to_string());
        let url = Url { path: format!("{}/{nonce}", self.url.path.trim_end_matches('/')), ..self.url.clone() };
        let fetch = Fetch { url: &url, via: self.via.as_ref(), tls: None, method: "GET", headers: &[], body: true };
        let (head, body) = match fetch.run(approach, deadline, evidence).await {
            Ok(answer) => answer,
            Err(ended) => return ended,
        };
        let answer = String::from_utf8_lossy(&body);
        match answer.lines().find_map(|line| Answer::verify(&self.key, line, &nonce).ok()) {
            Some(answer) => {
                let seen = fold_mapped(answer.peer.ip());
                evidence.beacon_saw = Some(answer.peer);
                evidence.authenticated = Some(Authentication::Beacon);
                let expected = self.expected.iter().any(|net| net.contains(&seen));
                (if expected { Outcome::Egress } else { Outcome::EgressOther }, Stage::Http)
            }
            None => {
                evidence.detail = Some("the answer does not carry the beacon's signature: another server, or another key".into());
                let unsigned = if (200..300).contains(&head.status) { Outcome::Mismatch } else { Outcome::Status(head.status) };
                (unsigned, Stage::Http)
            }
        }
    }
}

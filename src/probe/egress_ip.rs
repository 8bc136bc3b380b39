//! Kind `egress-ip`: the address that our beacon sees us come from, by its signature.

use tokio::time::Instant;

use super::fetch::Fetch;
use super::{Approach, EgressIp, Ended};
use crate::clock::Wall;
use crate::observation::{Authentication, Evidence, Outcome, Stage};
use crate::target::{Url, fold_mapped};
use crate::token::{Answer, Nonce};

/// One nonce brought to the beacon, and its signed answer.
pub async fn attempt(probe: &EgressIp, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
    let nonce = match Nonce::mint(&probe.key, Wall::now().unix_millis()) {
        Ok(nonce) => nonce,
        Err(why) => {
            evidence.detail = Some(why);
            return (Outcome::LocalError, Stage::Tcp);
        }
    };
    evidence.nonce = Some(nonce.to_string());
    let url = Url { path: format!("{}/{nonce}", probe.url.path.trim_end_matches('/')), ..probe.url.clone() };
    let fetch = Fetch { url: &url, via: probe.via.as_ref(), tls: None, method: "GET", headers: &[], body: true };
    let (head, body) = match fetch.run(approach, deadline, evidence).await {
        Ok(answer) => answer,
        Err(ended) => return ended,
    };
    let answer = String::from_utf8_lossy(&body);
    match answer.lines().find_map(|line| Answer::verify(&probe.key, line, &nonce).ok()) {
        Some(answer) => {
            let seen = fold_mapped(answer.peer.ip());
            evidence.beacon_saw = Some(answer.peer);
            evidence.authenticated = Some(Authentication::Beacon);
            let expected = probe.expected.iter().any(|net| net.contains(&seen));
            (if expected { Outcome::Egress } else { Outcome::EgressOther }, Stage::Http)
        }
        None => {
            evidence.detail = Some("the answer does not carry the beacon's signature: another server, or another key".into());
            let unsigned = if (200..300).contains(&head.status) { Outcome::Mismatch } else { Outcome::Status(head.status) };
            (unsigned, Stage::Http)
        }
    }
}

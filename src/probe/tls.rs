//! Kind `tls`: a handshake, and the silence after it.

use tokio::time::Instant;

use super::{Aim, Approach, Ended, dial};
use crate::net::tls::{self, Stranger, Version, hello, watch_for_refusal};
use crate::observation::{Evidence, Outcome, Stage};
use crate::target::{Host, HostPort};

/// Kind `tls`.
#[derive(Debug)]
pub struct Tls {
    /// Where to connect.
    pub target: HostPort,
    /// How to shake hands.
    pub tls: tls::Client,
    /// In whose place to try it.
    pub manner: Manner,
}

/// In whose place a server is tried.
#[derive(Debug)]
pub enum Manner {
    /// In our own.
    Plain,
    /// In that of everybody who has no right certificate; never empty.
    Strangers(Vec<Stranger>),
    /// In that of somebody who speaks no more recent version.
    Old(Version),
}

impl Tls {
    /// One handshake, watched for an alert that follows it.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        let stream = match dial(approach, deadline, evidence).await {
            Ok(stream) => stream,
            Err(ended) => return ended,
        };
        let host = &self.target.host;
        if let Manner::Old(version) = self.manner {
            let name = self.tls.name_in_sni(host);
            return (hello::offer(stream, version, name.as_deref(), deadline, evidence).await, Stage::Tls);
        }
        let stranger = stranger(&approach.aim, &self.manner);
        let client = stranger.map_or(&self.tls, |stranger| &stranger.client);
        let outcome = match client.shake(stream, host, deadline, evidence).await {
            Ok(mut shaken) => match watch_for_refusal(&mut shaken, deadline, evidence).await {
                Ok(_) => Outcome::TlsEstablished,
                Err(Outcome::TlsRefused) => Outcome::TlsRefused,
                // The server had not made up its mind yet, and now it has, or never says.
                Err(outcome) if shaken.still_open => outcome,
                // The handshake was done, and no alert followed it; what the server did then is no refusal of it.
                Err(_) => Outcome::TlsEstablished,
            },
            Err(outcome) => outcome,
        };
        match stranger {
            Some(stranger) => stranger.note_refusal((outcome, Stage::Tls), &[], evidence),
            None if may_be_our_taste(&self.tls, outcome, evidence) => {
                if let Ok(stream) = dial(approach, deadline, &mut Evidence::default()).await {
                    return (ask_again(&self.tls, stream, host, outcome, deadline, evidence).await, Stage::Tls);
                }
            }
            None => {}
        }
        (outcome, Stage::Tls)
    }
}

/// The stranger in whose place an approach is made.
pub fn stranger<'a>(aim: &Aim, manner: &'a Manner) -> Option<&'a Stranger> {
    match (aim, manner) {
        (Aim::Stranger(nth), Manner::Strangers(all)) => all.get(*nth),
        _ => None,
    }
}

/// A handshake that was refused before anybody was asked for a certificate, with a client that offers only what is good: the
/// server may be one that talks to whoever offers less.
pub fn may_be_our_taste(client: &tls::Client, outcome: Outcome, evidence: &Evidence) -> bool {
    let of_parameters = matches!(evidence.tls_alert.as_deref(), Some("handshake_failure" | "insufficient_security"));
    outcome == Outcome::TlsRefused && of_parameters && evidence.client_certificate_requested.is_none() && client.offers_1_2()
}

/// Offers, by a connection of its own, all cipher suites that were ever in use; what comes of it stands instead of `outcome`
/// where the server takes one.
pub async fn ask_again<S>(
    client: &tls::Client,
    stream: S,
    host: &Host,
    outcome: Outcome,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Outcome
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut again = Evidence { local_address: evidence.local_address, via: evidence.via, ..Evidence::default() };
    let name = client.name_in_sni(host);
    match hello::offer(stream, Version::V1_2, name.as_deref(), deadline, &mut again).await {
        Outcome::TlsUntrusted => {
            *evidence = again;
            Outcome::TlsUntrusted
        }
        _ => outcome,
    }
}

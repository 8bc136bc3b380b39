//! Kind `tls`: a handshake, and the silence after it.

use tokio::time::Instant;

use super::{Approach, Ended, dial};
use crate::net::tls::{self, watch_for_refusal};
use crate::observation::{Evidence, Outcome, Stage};
use crate::target::HostPort;

/// Kind `tls`.
#[derive(Debug)]
pub struct Tls {
    /// Where to connect.
    pub target: HostPort,
    /// How to shake hands.
    pub tls: tls::Client,
}

impl Tls {
    /// One handshake, watched for an alert that follows it.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        let stream = match dial(approach, deadline, evidence).await {
            Ok(stream) => stream,
            Err(ended) => return ended,
        };
        let outcome = match self.tls.shake(stream, &self.target.host, deadline, evidence).await {
            Ok(mut shaken) => match watch_for_refusal(&mut shaken, deadline, evidence).await {
                Err(Outcome::TlsRefused) => Outcome::TlsRefused,
                // The handshake was done, and no alert followed it; what the server did then is no refusal of it.
                Ok(_) | Err(_) => Outcome::TlsEstablished,
            },
            Err(outcome) => outcome,
        };
        (outcome, Stage::Tls)
    }
}

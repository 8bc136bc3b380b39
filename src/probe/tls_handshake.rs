//! Kind `tls`: a handshake, and the silence after it.

use tokio::time::Instant;

use super::{Approach, Ended, Tls, dial};
use crate::net::tls::watch_for_refusal;
use crate::observation::{Evidence, Outcome, Stage};

/// One handshake, watched for an alert that follows it.
pub async fn attempt(probe: &Tls, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
    let stream = match dial(approach, deadline, evidence).await {
        Ok(stream) => stream,
        Err(ended) => return ended,
    };
    let outcome = match probe.tls.shake(stream, &probe.target.host, deadline, evidence).await {
        Ok(mut shaken) => match watch_for_refusal(&mut shaken, deadline, evidence).await {
            Err(Outcome::TlsRefused) => Outcome::TlsRefused,
            // The handshake was done, and no alert followed it; what the server did then is no refusal of it.
            Ok(_) | Err(_) => Outcome::TlsEstablished,
        },
        Err(outcome) => outcome,
    };
    (outcome, Stage::Tls)
}

//! Kind `tcp`: a handshake, and nothing else.

use tokio::time::Instant;

use super::{Approach, Ended, dial};
use crate::observation::{Evidence, Outcome, Stage};
use crate::target::HostPort;

/// Kind `tcp`.
#[derive(Debug, PartialEq)]
pub struct Tcp {
    /// Where to connect.
    pub target: HostPort,
}

impl Tcp {
    /// One handshake.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        match dial(approach, deadline, evidence).await {
            Ok(_) => (Outcome::Connected, Stage::Tcp),
            // The handshake was finished before the RST came: that is open, as far as TCP goes (RFC 9293 section 3.5.2).
            Err((Outcome::Reset, stage)) => (Outcome::Connected, stage),
            Err(ended) => ended,
        }
    }
}

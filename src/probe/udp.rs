//! Kind `udp`: a question that a live service answers, and whatever comes back from whom it was sent to.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Instant;

use super::{Approach, Ended};
use crate::net::ask::{self, Question};
use crate::net::pace::Pace;
use crate::observation::{Evidence, Outcome, Stage};
use crate::target::HostPort;

mod payload;

pub use payload::Payload;

/// Kind `udp`.
#[derive(Debug, PartialEq)]
pub struct Udp {
    /// Where to send.
    pub target: HostPort,
    /// What to send.
    pub payload: Payload,
}

/// A payload on its way; any datagram from the connected peer answers it.
struct Asked<'a> {
    payload: &'a Payload,
    to: SocketAddr,
}

impl Question for Asked<'_> {
    fn datagram(&mut self, _nth: u16) -> Vec<u8> {
        self.payload.datagram(self.to)
    }

    fn answer<'a>(&self, heard: &'a [u8]) -> Option<&'a [u8]> {
        Some(heard)
    }

    fn is_quoted(&self, _quoted: &[u8]) -> bool {
        true
    }
}

impl Udp {
    /// The payload from one fresh socket, up to three times, and what came back.
    pub(super) async fn attempt(&self, approach: &Approach, pace: Pace, deadline: Instant, evidence: &mut Evidence) -> Ended {
        (self.ask(approach.to, approach.source, pace, deadline, evidence).await, Stage::Udp)
    }

    /// The same, of anybody.
    pub(super) async fn ask(
        &self,
        to: SocketAddr,
        source: Option<IpAddr>,
        pace: Pace,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Outcome {
        let socket = match Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP)) {
            Ok(socket) => socket,
            Err(error) => return ask::not_even_begun("socket", to, source, &error, evidence),
        };
        let socket = match ask::connected(socket, to, source, evidence) {
            Ok(socket) => socket,
            Err(outcome) => return outcome,
        };
        ask::ask(socket, to, &mut Asked { payload: &self.payload, to }, pace, deadline, evidence).await
    }
}

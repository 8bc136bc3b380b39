//! A connected UDP socket with its error queue: what comes back is the server's, or an ICMP error about what we sent it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::time::Instant;

use crate::net::ask::{connected, not_even_begun};
use crate::net::connect::{drain_error_queue, explain_local, explain_ours};
use crate::net::failure;
use crate::net::sys::watch;
use crate::observation::{Evidence, Outcome};

/// How often the socket is looked at besides the kernel's wake-ups.
const LOOK: Duration = Duration::from_millis(250);
/// The largest datagram there is (RFC 768, less nothing).
const LARGEST: usize = 65_535;

/// A fresh socket to one address; its source port is the kernel's random choice.
pub(super) struct Datagrams {
    socket: AsyncFd<Socket>,
    to: SocketAddr,
    buffer: Vec<u8>,
}

impl Datagrams {
    /// A socket that hears `to` alone.
    pub(super) fn open(to: SocketAddr, source: Option<IpAddr>, evidence: &mut Evidence) -> Result<Datagrams, Outcome> {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP));
        let socket = socket.map_err(|e| not_even_begun("socket", to, source, &e, evidence))?;
        let socket = watch(connected(socket, to, source, evidence)?);
        let socket = socket.map_err(|e| not_even_begun("watching the socket", to, source, &e, evidence))?;
        Ok(Datagrams { socket, to, buffer: vec![0; LARGEST] })
    }

    /// Sends one datagram. An ICMP error about an earlier one is no failure of this one; it is heard when we listen.
    pub(super) fn send(&self, datagram: &[u8], evidence: &mut Evidence) -> Result<(), Outcome> {
        for _ in 0..=Evidence::MAX_ICMP {
            let Err(error) = (&mut self.socket.get_ref()).write(datagram) else { return Ok(()) };
            let known = evidence.icmp.len();
            drain_error_queue(self.socket.get_ref(), self.to, crate::net::is_own, evidence);
            if evidence.icmp.len() == known {
                evidence.errno = Some(failure::name(&error));
                evidence.detail = Some(explain_local("sending", self.to, None, &error));
                return Err(Outcome::LocalError);
            }
        }
        Ok(())
    }

    /// The next datagram; none when `until` has come.
    ///
    /// # Errors
    /// The outcome that an ICMP error from someone else settles: the port is closed there, or the way is prohibited. One
    /// that says that the way is broken may be gone by the next datagram, and is only noted.
    pub(super) async fn receive(&mut self, until: Instant, evidence: &mut Evidence) -> Result<Option<&[u8]>, Outcome> {
        let length = loop {
            match (&mut self.socket.get_ref()).read(&mut self.buffer) {
                Ok(length) => break length,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => self.hear_error(&e, evidence)?,
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            let event = self.socket.ready(Interest::READABLE.add(Interest::ERROR));
            tokio::select! {
                biased;
                ready = event => if let Ok(mut guard) = ready { guard.clear_ready_matching(Ready::ALL) },
                () = tokio::time::sleep_until(until.min(Instant::now() + LOOK)) => {}
            }
        };
        Ok(Some(self.buffer.get(..length).unwrap_or_default()))
    }

    fn hear_error(&self, error: &io::Error, evidence: &mut Evidence) -> Result<(), Outcome> {
        evidence.errno = Some(failure::name(error));
        let known = evidence.icmp.len();
        drain_error_queue(self.socket.get_ref(), self.to, crate::net::is_own, evidence);
        let said = evidence.icmp.last().filter(|_| evidence.icmp.len() > known || known == Evidence::MAX_ICMP);
        match said.map(|icmp| failure::of_icmp(icmp, self.to.is_ipv6())) {
            Some(settled @ (Outcome::Refused | Outcome::Prohibited)) => {
                if let Some(last) = evidence.icmp.last_mut() {
                    last.soft = false;
                }
                Err(settled)
            }
            Some(_) => Ok(()),
            None => match failure::of_connect(error) {
                refused @ Outcome::Refused => Err(refused),
                // What an ICMP error about packet size leaves behind, or one that was read already.
                _ if matches!(error.raw_os_error(), Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EMSGSIZE | libc::EPROTO)) => Ok(()),
                _ => {
                    evidence.detail = Some(explain_local("receiving", self.to, None, error));
                    Err(Outcome::LocalError)
                }
            },
        }
    }

    /// What silence to the end means: nothing came back, or the last thing that was heard of the way.
    pub(super) fn silent(&self, evidence: &mut Evidence) -> Outcome {
        drain_error_queue(self.socket.get_ref(), self.to, crate::net::is_own, evidence);
        let outcome = evidence.icmp.last().map_or(Outcome::Timeout, |icmp| failure::of_icmp(icmp, self.to.is_ipv6()));
        if outcome == Outcome::LocalError {
            explain_ours(self.to, evidence);
        }
        outcome
    }
}

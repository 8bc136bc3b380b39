//! Asking by datagrams: the same question up to three times, a second apart, and whatever comes back until the deadline.
//!
//! The socket is connected, so that only its peer is heard, and its error queue is on, so that an ICMP error is heard
//! with its type, code and sender. An unconnected socket without it would report a refusal as silence.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;
use tokio::io::{Interest, Ready};
use tokio::time::Instant;

use super::connect::{drain_errors_about, explain_local, explain_ours, local, whom};
use super::failure;
use super::pace::{Pace, SPACING};
use super::sys::{unsent, watch};
use crate::observation::{Evidence, Outcome};
use crate::token::hex;

/// How often one attempt asks: what silence needs to count as a block.
pub const QUESTIONS: u32 = 3;
/// The largest datagram that is read (RFC 768: a length of 16 bits).
const MAX_DATAGRAM: usize = 65_535;
/// Datagrams that are looked at before the deadline is, again: a raw socket hears what is not for us, too.
const MAX_HEARD: usize = 64;
/// How often the socket is looked at besides the kernel's wake-ups: the rest of a flood gives no event of its own.
const LOOK: Duration = Duration::from_millis(250);
/// How soon a send that could not be made is tried again.
const BREATH: Duration = Duration::from_millis(10);
/// Bytes of an answer that are kept.
const MAX_KEPT: usize = 64;

/// A question, and how its answer is known.
pub trait Question {
    /// The datagram to send; `nth` counts from 0.
    fn datagram(&mut self, nth: u16) -> Vec<u8>;
    /// What of a datagram that was heard is the answer; none where it is not for us.
    fn answer<'a>(&self, heard: &'a [u8]) -> Option<&'a [u8]>;
    /// Whether this is what we sent, as an ICMP error quotes it from behind its IP header: cut short at any byte.
    fn is_quoted(&self, quoted: &[u8]) -> bool;
}

/// Binds, switches the error queue on and connects. `evidence` gets our own address.
///
/// # Errors
/// The outcome: whatever fails here failed on this host.
pub fn connected(socket: Socket, to: SocketAddr, source: Option<IpAddr>, evidence: &mut Evidence) -> Result<Socket, Outcome> {
    let done = (|| {
        socket.set_nonblocking(true).map_err(|e| ("socket", e))?;
        let errors = match to {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true),
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
        };
        errors.map_err(|e| ("IP_RECVERR", e.into()))?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into()).map_err(|e| ("bind", e))?;
        }
        socket.connect(&to.into()).map_err(|e| ("connect", e))
    })();
    if let Err((call, error)) = done {
        return Err(not_even_begun(call, to, source, &error, evidence));
    }
    evidence.local_address = socket.local_addr().ok().and_then(|a| a.as_socket());
    Ok(socket)
}

/// Asks until something comes back or the deadline has passed. The turn is given up with the last question.
pub async fn ask(
    socket: Socket,
    to: SocketAddr,
    question: &mut impl Question,
    pace: Pace,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Outcome {
    let waiting = match watch(socket) {
        Ok(waiting) => waiting,
        Err(error) => return local(evidence, "registering the socket", &error),
    };
    let mut pace = Some(pace);
    let (mut asked, mut next) = (0, Instant::now());
    evidence.datagrams_sent = Some(0);
    loop {
        if let Some(outcome) = hear(waiting.get_ref(), to, question, evidence) {
            return outcome;
        }
        let now = Instant::now();
        if now >= deadline {
            return silent(waiting.get_ref(), to, asked, evidence);
        }
        if asked < QUESTIONS && now >= next {
            let datagram = question.datagram(u16::try_from(asked).unwrap_or(u16::MAX));
            match waiting.get_ref().send(&datagram) {
                Ok(_) => {
                    asked += 1;
                    next = now + SPACING;
                    evidence.datagrams_sent = Some(asked);
                    pace.iter_mut().for_each(Pace::sent);
                    if asked == QUESTIONS {
                        pace = None;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // An ICMP error that came meanwhile ends a send, too; then the queue has it, and nothing was sent.
                Err(error) => match hear(waiting.get_ref(), to, question, evidence) {
                    Some(outcome) => return outcome,
                    None if is_news_of_the_network(&error) => {}
                    None => return not_even_begun("send", to, None, &error, evidence),
                },
            }
        }
        let until = if asked < QUESTIONS { deadline.min(next.max(now + BREATH)) } else { deadline };
        let event = waiting.ready(Interest::READABLE.add(Interest::ERROR));
        tokio::select! {
            biased;
            ready = event => if let Ok(mut guard) = ready { guard.clear_ready_matching(Ready::ALL) },
            () = tokio::time::sleep_until(until.min(now + LOOK)) => {}
        }
    }
}

/// Reads, in this order, `SO_ERROR` (the queue would consume it), the error queue, what was answered.
fn hear(mut socket: &Socket, to: SocketAddr, question: &impl Question, evidence: &mut Evidence) -> Option<Outcome> {
    let error = socket.take_error().ok().flatten();
    drain_errors_about(socket, to, super::is_own, evidence, |quoted| question.is_quoted(quoted));
    let mut heard = vec![0; MAX_DATAGRAM];
    for _ in 0..MAX_HEARD {
        match socket.read(&mut heard) {
            Ok(length) => {
                let Some(answer) = heard.get(..length).and_then(|heard| question.answer(heard)) else { continue };
                evidence.reply_bytes = Some(answer.len());
                evidence.head = Some(shown(answer));
                return Some(Outcome::Replied);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let icmp = evidence.icmp.last_mut()?;
    icmp.soft = false;
    // Where the target is this host itself, its own error is the target's answer.
    icmp.ours &= icmp.sender != Some(to.ip());
    let outcome = failure::of_icmp(icmp, to.is_ipv6());
    evidence.errno = error.as_ref().map(failure::name).or(evidence.errno.take());
    if outcome == Outcome::LocalError {
        explain_ours(to, evidence);
    }
    Some(outcome)
}

/// The deadline passed. What never left this host was never asked.
fn silent(socket: &Socket, to: SocketAddr, asked: u32, evidence: &mut Evidence) -> Outcome {
    if unsent(socket.as_fd()).is_ok_and(|bytes| bytes > 0) {
        evidence.datagrams_sent = Some(0);
        evidence.detail = Some(format!(
            "what was sent to {} has not left this host: the next hop does not answer ARP or ND, or the link is overloaded; look at `ip neigh`",
            whom(to)
        ));
        return Outcome::LocalError;
    }
    if asked == 0 {
        evidence.detail =
            Some(format!("nothing could be sent to {}: the socket's buffer stayed full; see what else its host runs", whom(to)));
        return Outcome::LocalError;
    }
    Outcome::Timeout
}

/// Errors that a send has from the wire: what they were is in the error queue, unless it was about another packet.
fn is_news_of_the_network(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::EPROTO | libc::ENOPROTOOPT | libc::EHOSTDOWN))
}

/// A call failed on this host: errno, and a hint where to look.
pub fn not_even_begun(call: &str, to: SocketAddr, source: Option<IpAddr>, error: &io::Error, evidence: &mut Evidence) -> Outcome {
    evidence.errno = Some(failure::name(error));
    evidence.detail = Some(match error.raw_os_error() {
        Some(libc::EMSGSIZE) => {
            format!("{call} to {}: {error}; the datagram is larger than this host's link takes: look at its MTU", whom(to))
        }
        _ => explain_local(call, to, source, error),
    });
    Outcome::LocalError
}

/// The first bytes of an answer: as text where it is text, else in hexadecimal.
fn shown(answer: &[u8]) -> String {
    let first = answer.get(..MAX_KEPT).unwrap_or(answer);
    let is_text = |b: &u8| b.is_ascii_graphic() || b" \r\n\t".contains(b);
    match std::str::from_utf8(first) {
        Ok(text) if !first.is_empty() && first.iter().all(is_text) => text.to_string(),
        _ => hex(first),
    }
}

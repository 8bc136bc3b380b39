//! Connecting, with the kernel's evidence: error queue, sender, `TCP_INFO`. Errno alone says too little: RST and ICMP
//! port-unreachable are both ECONNREFUSED, and three ICMP codes are all EHOSTUNREACH.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::failure;
use super::sys::{CLOSE, SYN_RECV, SYN_SENT, TcpInfo, tcp_info, watch};
use crate::observation::{Evidence, Icmp, Outcome};

/// How often the state is looked at besides the kernel's wake-ups: a soft error may be followed by no event at all.
const LOOK: Duration = Duration::from_millis(250);
/// Origins of an error in the queue (linux/errqueue.h): our own stack, ICMP, ICMPv6.
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// Connects to `to` from `source` until `deadline`. `evidence` is filled in either way.
///
/// # Errors
/// The outcome. `reset` means that the handshake was completed first.
pub async fn dial(to: SocketAddr, source: Option<IpAddr>, deadline: Instant, evidence: &mut Evidence) -> Result<TcpStream, Outcome> {
    let socket = match start(to, source) {
        Ok(socket) => socket,
        Err((call, error)) => {
            evidence.errno = Some(failure::name(&error));
            evidence.detail = Some(explain_local(call, to, source, &error));
            return Err(Outcome::LocalError);
        }
    };
    evidence.local_address = socket.local_addr().ok().and_then(|a| a.as_socket());
    let waiting = watch(socket).map_err(|e| local(evidence, "registering the socket", &e))?;
    let outcome = wait(&waiting, to, deadline, evidence).await;
    let socket = waiting.into_inner();
    outcome?;
    evidence.local_address = socket.local_addr().ok().and_then(|a| a.as_socket());
    let stream = TcpStream::from_std(socket.into()).map_err(|e| local(evidence, "registering the connection", &e))?;
    stream.set_nodelay(true).map_err(|e| local(evidence, "TCP_NODELAY", &e))?;
    Ok(stream)
}

pub(super) fn local(evidence: &mut Evidence, call: &str, error: &io::Error) -> Outcome {
    evidence.errno = Some(failure::name(error));
    evidence.detail = Some(format!("{call}: {error}"));
    Outcome::LocalError
}

/// A call that failed on this host, and how.
pub(super) type Failure = (&'static str, io::Error);

/// A socket whose SYN is on its way. Whatever fails here failed on this host.
pub(super) fn start(to: SocketAddr, source: Option<IpAddr>) -> Result<Socket, Failure> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP)).map_err(|e| ("socket", e))?;
    let errors = match to {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true),
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
    };
    errors.map_err(|e| ("IP_RECVERR", e.into()))?;
    if let Some(source) = source {
        // ip(7): the port is chosen at connect, so that one source address is not limited to one ephemeral range.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).map_err(|e| ("IP_BIND_ADDRESS_NO_PORT", e.into()))?;
        socket.bind(&SocketAddr::new(source, 0).into()).map_err(|e| ("bind", e))?;
    }
    match socket.connect(&to.into()) {
        Ok(()) => Ok(socket),
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        // An answer that came before connect(2) returned is no failure of ours; the state and the queue tell what it was.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ECONNREFUSED | libc::ECONNRESET)) => Ok(socket),
        Err(e) => Err(("connect", e)),
    }
}

/// Whom a message is about: what has no port, as an echo, is not shown with one.
pub(super) fn whom(to: SocketAddr) -> String {
    if to.port() == 0 { to.ip().to_string() } else { to.to_string() }
}

pub(super) fn explain_local(call: &str, to: SocketAddr, source: Option<IpAddr>, error: &io::Error) -> String {
    let from = source.map_or(String::new(), |s| format!(" from {s}"));
    let hint = match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => "this host has no route there: look at `ip route get`",
        Some(libc::EADDRNOTAVAIL) => "this host does not have that source address, or no port of it is free: look at `ip addr`",
        Some(libc::EMFILE | libc::ENFILE) => "no file descriptor is left: raise `ulimit -n`",
        Some(libc::EACCES | libc::EPERM) => "this host's own rules forbid it: look at `ip route get` and `nft list ruleset`",
        Some(libc::EINVAL) => "a blackhole route, or a source address that cannot reach it: look at `ip route get`",
        Some(libc::EAFNOSUPPORT) => "this host lacks that address family, or `source` is of the other one",
        _ => "this host could not even try",
    };
    format!("{call} to {}{from}: {error}; {hint}", whom(to))
}

/// Waits until the handshake is over, one way or another, or the deadline has passed.
async fn wait(socket: &AsyncFd<Socket>, to: SocketAddr, deadline: Instant, evidence: &mut Evidence) -> Result<(), Outcome> {
    let mut last_error = None;
    loop {
        let over = Instant::now() >= deadline;
        let info = look(socket.get_ref(), to, &mut last_error, evidence)?;
        match info.state {
            CLOSE if last_error.is_none() => {
                // It fell between the two looks, and only now SO_ERROR tells a RST to our SYN from one after the handshake.
                let info = look(socket.get_ref(), to, &mut last_error, evidence)?;
                return Err(closed(to, last_error.as_ref(), info, evidence));
            }
            CLOSE => return Err(closed(to, last_error.as_ref(), info, evidence)),
            SYN_SENT | SYN_RECV if over => return Err(gave_up(to, info, evidence)),
            SYN_SENT | SYN_RECV => {}
            _ => return Ok(()),
        }
        let event = socket.ready(Interest::READABLE.add(Interest::WRITABLE).add(Interest::ERROR));
        tokio::select! {
            biased;
            ready = event => if let Ok(mut guard) = ready { guard.clear_ready_matching(Ready::ALL) },
            () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK)) => {}
        }
    }
}

/// Reads, in this order, `SO_ERROR` (the queue would consume it), the error queue, `TCP_INFO`.
fn look(socket: &Socket, to: SocketAddr, last_error: &mut Option<io::Error>, evidence: &mut Evidence) -> Result<TcpInfo, Outcome> {
    if let Ok(Some(error)) = socket.take_error() {
        evidence.errno = Some(failure::name(&error));
        *last_error = Some(error);
    }
    drain_error_queue(socket, to, super::is_own, evidence);
    state(socket, evidence)
}

/// What `TCP_INFO` says.
pub(super) fn state(socket: &Socket, evidence: &mut Evidence) -> Result<TcpInfo, Outcome> {
    let info = tcp_info(socket.as_fd()).map_err(|e| local(evidence, "TCP_INFO", &e))?;
    evidence.syn_retransmits = Some(info.retransmits);
    evidence.syns_sent = Some(info.retransmits.saturating_add(1));
    if info.state == CLOSE
        && let Some(last) = evidence.icmp.last_mut()
    {
        last.soft = false;
    }
    Ok(info)
}

/// The connection is over before it began: by ICMP, by RST, or by the kernel's own patience.
pub(super) fn closed(to: SocketAddr, error: Option<&io::Error>, info: TcpInfo, evidence: &mut Evidence) -> Outcome {
    let outcome = match (evidence.icmp.last(), error) {
        (Some(icmp), _) => failure::of_icmp(icmp, to.is_ipv6()),
        (None, Some(error)) => failure::of_connect(error),
        // SO_ERROR was consumed by connect(2) itself: only a RST ends a handshake at once without an ICMP error.
        (None, None) => Outcome::Refused,
    };
    match outcome {
        Outcome::LocalError => explain_ours(to, evidence),
        Outcome::Timeout => return never_left(info, evidence).unwrap_or(Outcome::Timeout),
        _ => {}
    }
    outcome
}

/// The deadline passed with the handshake unanswered. A soft ICMP error then is the answer.
pub(super) fn gave_up(to: SocketAddr, info: TcpInfo, evidence: &mut Evidence) -> Outcome {
    match evidence.icmp.last().map(|icmp| failure::of_icmp(icmp, to.is_ipv6())) {
        Some(Outcome::LocalError) => {
            explain_ours(to, evidence);
            Outcome::LocalError
        }
        Some(outcome) => outcome,
        None => never_left(info, evidence).unwrap_or(Outcome::Timeout),
    }
}

/// Timers went off and nothing was sent again: the SYN is still waiting for a neighbour's hardware address.
fn never_left(info: TcpInfo, evidence: &mut Evidence) -> Option<Outcome> {
    if info.timers == 0 || info.retransmits > 0 {
        return None;
    }
    evidence.syns_sent = Some(0);
    evidence.detail = Some("no SYN left this host: the next hop does not answer ARP or ND; look at `ip neigh`".into());
    Some(Outcome::LocalError)
}

pub(super) fn explain_ours(to: SocketAddr, evidence: &mut Evidence) {
    if evidence.detail.is_none() {
        let what = evidence
            .icmp
            .last()
            .map_or("this host failed".into(), |i| format!("this host itself answered with ICMP {}/{}", i.kind, i.code));
        evidence.detail = Some(format!(
            "{what} for {}: its own firewall, or a next hop that does not answer ARP or ND; look at `nft list ruleset` and `ip neigh`",
            whom(to)
        ));
    }
}

/// Moves what the error queue holds into the evidence (ip(7), ipv6(7)).
pub(super) fn drain_error_queue(socket: &Socket, to: SocketAddr, is_own: impl Fn(IpAddr) -> bool, evidence: &mut Evidence) {
    drain_errors_about(socket, to, is_own, evidence, |_| true);
}

/// The same, save errors about packets that are not ours: `is_ours_quoted` is shown what they quote of the packet behind its IP header.
pub(super) fn drain_errors_about(
    socket: &Socket,
    to: SocketAddr,
    is_own: impl Fn(IpAddr) -> bool,
    evidence: &mut Evidence,
    is_ours_quoted: impl Fn(&[u8]) -> bool,
) {
    let mut data = [0_u8; 256];
    for _ in 0..Evidence::MAX_ICMP * 4 {
        let mut control = nix::cmsg_space!([u8; 256]);
        let mut parts = [IoSliceMut::new(&mut data)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let Ok(message) = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) else { return };
        if !is_ours_quoted(message.iovs().next().unwrap_or_default()) {
            continue;
        }
        let Ok(messages) = message.cmsgs() else { return };
        for message in messages {
            let (error, sender) = match message {
                ControlMessageOwned::Ipv4RecvErr(error, sender) => {
                    (error, sender.map(|s| IpAddr::from(u32::from_be(s.sin_addr.s_addr).to_be_bytes())))
                }
                ControlMessageOwned::Ipv6RecvErr(error, sender) => (error, sender.map(|s| IpAddr::from(s.sin6_addr.s6_addr))),
                _ => continue,
            };
            let from_icmp = matches!(error.ee_origin, ORIGIN_ICMP | ORIGIN_ICMP6);
            let ours =
                !from_icmp || sender.is_some_and(|s| s.is_loopback() || evidence.local_address.is_some_and(|l| l.ip() == s) || is_own(s));
            let icmp = Icmp { kind: error.ee_type, code: error.ee_code, sender, ours, soft: true };
            if is_about_size(&icmp, to.is_ipv6()) {
                continue;
            }
            if evidence.icmp.len() == Evidence::MAX_ICMP {
                evidence.icmp.pop();
            }
            evidence.icmp.push(icmp);
        }
    }
}

/// "Fragmentation needed" and "packet too big" adjust the path MTU and end nothing (RFC 1191, RFC 8201).
fn is_about_size(icmp: &Icmp, ipv6: bool) -> bool {
    if ipv6 { icmp.kind == 2 } else { (icmp.kind, icmp.code) == (3, 4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever resets at once has accepted first: however the RST falls between our looks, it is no refusal.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reset_after_the_handshake_is_no_refusal() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = Socket::from(stream.unwrap()).set_linger(Some(Duration::ZERO));
            }
        });
        for _ in 0..1000 {
            let mut evidence = Evidence::default();
            let dialled = dial(to, None, Instant::now() + Duration::from_secs(5), &mut evidence).await;
            assert!(matches!(dialled, Ok(_) | Err(Outcome::Reset)), "{dialled:?} {evidence:?}");
        }
    }
}

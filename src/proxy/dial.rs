//! Dialling: the one door out. It opens for [`Vetted`] addresses only, from the egress address, and looks at who answered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};

use crate::observation::Family;
use crate::proxy::door::is_lack;
use crate::proxy::policy::Vetted;
use crate::proxy::reason::Reason;
use crate::target::fold_mapped;

/// The most addresses of one answer that are tried; all are vetted.
const MAX_TRIED: usize = 6;
/// How long an address is waited for before the next is tried beside it (RFC 8305 section 8).
const STAGGER: Duration = Duration::from_millis(250);
/// Keepalive: well below the 350 s after which load balancers and NAT gateways forget a connection.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)).with_retries(6);
/// The shortest time that bytes may stay unacknowledged, whatever the idle limit: a route may take that long to come back.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(60);
/// From here on the kernel's own patience (`tcp_retries2`, some 15 minutes) is the shorter one, and tells a dead peer from one that pauses.
const KERNEL_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The source addresses of outgoing connections, at most one a family.
#[derive(Debug, Clone)]
pub struct Egress(Vec<IpAddr>);

/// How long bytes to a peer may stay unacknowledged before the kernel gives it up (`TCP_USER_TIMEOUT`, tcp(7)); `None`: as the kernel thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(Option<Duration>);

impl Patience {
    /// As long as a tunnel may be idle: to the kernel a peer that reads nothing for a while, its window closed, is one that acknowledges
    /// nothing, and must not be cut before the idle clock would.
    pub fn new(idle: Duration) -> Patience {
        Patience(Some(idle.max(SHORTEST_PATIENCE)).filter(|patience| *patience < KERNEL_PATIENCE))
    }
}

/// A connection to a destination.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub stream: TcpStream,
    /// Who answered: the very address that was vetted.
    pub peer: SocketAddr,
}

impl Egress {
    /// Takes the addresses; none means that the kernel chooses, in both families.
    ///
    /// # Errors
    /// Two addresses of one family.
    pub fn new(addresses: &[IpAddr]) -> Result<Egress, String> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|ip| fold_mapped(*ip)).collect();
        for family in Family::BOTH {
            let mut of_family = addresses.iter().filter(|ip| Family::of(**ip) == family);
            if let (Some(first), Some(second)) = (of_family.next(), of_family.next()) {
                return Err(format!("egress has {first} and {second}; write at most one address a family"));
            }
        }
        Ok(Egress(addresses))
    }

    /// Whether this host can send from all of them.
    ///
    /// # Errors
    /// The one that is not this host's.
    pub fn vet(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|ip| {
            let socket = socket_for(*ip).and_then(|socket| socket.bind(SocketAddr::new(*ip, 0)));
            socket.map_err(|e| format!("cannot send from the egress address {ip}: {e}; write an address of this host"))
        })
    }

    /// The families that are dialled.
    pub fn families(&self) -> Vec<Family> {
        let has = |family: &Family| self.0.is_empty() || self.0.iter().any(|ip| Family::of(*ip) == *family);
        Family::BOTH.into_iter().filter(has).collect()
    }

    /// The address to send from.
    fn source(&self, to: IpAddr) -> Result<Option<IpAddr>, Reason> {
        let own = self.0.iter().find(|ip| Family::of(**ip) == Family::of(to)).copied();
        if own.is_none() && !self.0.is_empty() { Err(Reason::Connect) } else { Ok(own) }
    }
}

/// Tries the addresses, all within `limit`: IPv6 and IPv4 by turns, the next as soon as one has failed or [`STAGGER`] is past; the first
/// that answers is taken and the others are given up (Happy Eyeballs, RFC 8305 sections 4 and 5).
///
/// # Errors
/// [`Reason::ConnectTimeout`] where one that was tried last did not answer in time, [`Reason::Limit`] where this process has no file
/// descriptor left, else [`Reason::Connect`].
pub async fn dial(addresses: &[Vetted], egress: &Egress, limit: Duration, patience: Patience) -> Result<Dialled, Reason> {
    let deadline = Instant::now() + limit;
    let mut waiting = by_turns(addresses.iter().filter(|to| egress.source(to.address().ip()).is_ok())).into_iter();
    let mut trying = FuturesUnordered::new();
    let mut failure = Reason::Connect;
    loop {
        trying.extend(waiting.next().map(|to| connect(to, egress, patience)));
        tokio::select! {
            tried = trying.next() => match tried {
                Some(Ok(dialled)) => return Ok(dialled),
                Some(Err((_, error))) if is_lack(&error) => return Err(Reason::Limit),
                Some(Err((to, error))) => {
                    tracing::debug!(address = %to.address(), %error, "could not connect");
                    failure = if error.kind() == io::ErrorKind::TimedOut { Reason::ConnectTimeout } else { Reason::Connect };
                }
                None => return Err(failure),
            },
            () = sleep(STAGGER), if waiting.len() > 0 => {}
            () = sleep_until(deadline) => return Err(Reason::ConnectTimeout),
        }
    }
}

/// The first addresses, the families by turns.
fn by_turns<'a>(addresses: impl Iterator<Item = &'a Vetted>) -> Vec<Vetted> {
    let (v6, v4): (Vec<Vetted>, Vec<Vetted>) = addresses.partition(|to| to.address().is_ipv6());
    let longer = v6.len().max(v4.len());
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    (0..longer).flat_map(|_| [v6.next(), v4.next()]).flatten().take(MAX_TRIED).collect()
}

async fn connect(to: Vetted, egress: &Egress, patience: Patience) -> Result<Dialled, (Vetted, io::Error)> {
    connected(to, egress, patience).await.map_err(|error| (to, error))
}

async fn connected(to: Vetted, egress: &Egress, patience: Patience) -> io::Result<Dialled> {
    let address = to.address();
    let socket = socket_for(address.ip())?;
    if let Ok(Some(source)) = egress.source(address.ip()) {
        // a port is then chosen at connect, per destination, not one for all of them: ip(7). Old kernels do without.
        let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    prepare(SockRef::from(&stream), patience)?;
    let peer = stream.peer_addr()?;
    if (peer.ip(), peer.port()) != (address.ip(), address.port()) {
        tracing::warn!(%address, %peer, "another address answered than was dialled; closed");
        return Err(io::Error::other("another address answered than was dialled"));
    }
    // TCP's simultaneous open: a connect to a closed port from that very port ends at itself (RFC 9293 section 3.5)
    if stream.local_addr()? == peer {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(Dialled { stream, peer })
}

fn socket_for(ip: IpAddr) -> io::Result<TcpSocket> {
    match ip {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// Sets up either leg of a tunnel: no delay for small writes, keepalive, and an end of patience. Connections that a listener accepts inherit all
/// of it on Linux, so the clients' leg is set up once, and at no cost a tunnel.
///
/// # Errors
/// The kernel's.
pub fn prepare(socket: SockRef<'_>, patience: Patience) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    if patience.0.is_some() { socket.set_tcp_user_timeout(patience.0) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(addresses: &[&str]) -> Result<Egress, String> {
        Egress::new(&addresses.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn one_address_a_family_and_it_is_ours() {
        assert_eq!(egress(&[]).unwrap().families(), Family::BOTH);
        assert_eq!(egress(&["127.0.0.10"]).unwrap().families(), [Family::V4]);
        assert_eq!(
            egress(&["127.0.0.1", "127.0.0.2"]).unwrap_err(),
            "egress has 127.0.0.1 and 127.0.0.2; write at most one address a family"
        );
        let foreign = egress(&["192.0.2.1"]).unwrap().vet().unwrap_err();
        assert!(foreign.starts_with("cannot send from the egress address 192.0.2.1: "), "{foreign}");
        assert!(foreign.ends_with("; write an address of this host"), "{foreign}");
    }

    /// Addresses as the policy lets them pass.
    fn vetted(addresses: &[SocketAddr]) -> Vec<Vetted> {
        addresses.iter().map(|at| Vetted::for_tests(*at)).collect()
    }

    /// A listener whose backlog is full, so that further SYNs get no answer; it lasts as long as what is returned.
    async fn silent() -> (SocketAddr, tokio::net::TcpListener, Vec<tokio::task::JoinHandle<io::Result<TcpStream>>>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let at = listener.local_addr().unwrap();
        let filling: Vec<_> = (0..8).map(|_| tokio::spawn(TcpStream::connect(at))).collect();
        while filling.iter().filter(|f| f.is_finished()).count() < 2 {
            tokio::task::yield_now().await;
        }
        (at, listener, filling)
    }

    #[tokio::test]
    async fn an_address_that_is_silent_delays_the_next_and_does_not_hide_it() {
        let (mute, _listener, _filling) = silent().await;
        let live = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
        let live = live.local_addr().map(|at| (at, live)).unwrap();
        let both = vetted(&[mute, live.0]);
        let dialled = dial(&both, &egress(&[]).unwrap(), Duration::from_secs(20), Patience(None)).await.unwrap();
        assert_eq!(dialled.peer, live.0);
        let alone = dial(&vetted(&[mute]), &egress(&[]).unwrap(), Duration::from_millis(300), Patience(None)).await;
        assert_eq!(alone.map(|d| d.peer), Err(Reason::ConnectTimeout));
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_at_once_and_all_that_refuse_are_a_failure() {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refuses = gone.local_addr().unwrap();
        drop(gone);
        let live = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
        let to = live.local_addr().unwrap();
        let dialled = dial(&vetted(&[refuses, to]), &egress(&[]).unwrap(), Duration::from_secs(20), Patience(None)).await.unwrap();
        assert_eq!(dialled.peer, to);
        let none = dial(&vetted(&[refuses, refuses]), &egress(&[]).unwrap(), Duration::from_secs(20), Patience(None)).await;
        assert_eq!(none.map(|d| d.peer), Err(Reason::Connect));
        assert_eq!(dial(&[], &egress(&[]).unwrap(), Duration::from_secs(20), Patience(None)).await.map(|d| d.peer), Err(Reason::Connect));
    }

    #[test]
    fn families_take_turns_and_no_more_than_a_few_are_tried() {
        let many: Vec<SocketAddr> = (1..=9).map(|n| SocketAddr::from(([127, 0, 0, n], 1))).collect();
        let all = vetted(&[&many[..], &["[::1]:1".parse().unwrap()]].concat());
        let tried: Vec<String> = by_turns(all.iter()).iter().map(|to| to.address().ip().to_string()).collect();
        assert_eq!(tried, ["::1", "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]);
    }

    #[test]
    fn a_family_without_egress_is_not_dialled() {
        let v4_only = egress(&["127.0.0.10"]).unwrap();
        assert_eq!(v4_only.source("1.1.1.1".parse().unwrap()), Ok(Some("127.0.0.10".parse().unwrap())));
        assert_eq!(v4_only.source("2606:4700::1".parse().unwrap()), Err(Reason::Connect));
    }

    #[tokio::test]
    async fn both_legs_are_set_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let patience = Patience::new(Duration::from_secs(300));
        prepare(SockRef::from(&listener), patience).unwrap();
        let to = Vetted::for_tests(listener.local_addr().unwrap());
        let dialled = dial(&[to], &Egress::new(&[]).unwrap(), Duration::from_secs(10), patience).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        for leg in [&dialled.stream, &accepted] {
            let leg = SockRef::from(leg);
            assert!(leg.tcp_nodelay().unwrap() && leg.keepalive().unwrap());
            assert_eq!(leg.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
            assert_eq!(leg.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
            assert_eq!(leg.tcp_keepalive_retries().unwrap(), 6);
            assert_eq!(leg.tcp_user_timeout().unwrap(), Some(Duration::from_secs(300)));
        }
    }

    #[test]
    fn patience_is_never_shorter_than_idle_and_never_longer_than_the_kernels() {
        for (idle, patience) in [(0, Some(60)), (60, Some(60)), (61, Some(61)), (899, Some(899)), (900, None), (86_400, None)] {
            assert_eq!(Patience::new(Duration::from_secs(idle)).0, patience.map(Duration::from_secs), "{idle}");
        }
    }
}

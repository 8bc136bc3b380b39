//! Dialling: the one door out. It opens for [`Vetted`] addresses only, from the egress address, and looks at who answered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::observation::Family;
use crate::proxy::door::is_lack;
use crate::proxy::policy::{Reason, Vetted};
use crate::target::fold_mapped;

/// The most addresses of one answer that are tried; all are vetted.
const MAX_TRIED: usize = 6;
/// Keepalive: well below the 350 s after which load balancers and NAT gateways forget a connection.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)).with_retries(6);

/// The source addresses of outgoing connections, at most one a family.
#[derive(Debug, Clone)]
pub struct Egress(Vec<IpAddr>);

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
    /// Two addresses of one family, or one that is not this host's.
    pub fn new(addresses: &[IpAddr]) -> Result<Egress, String> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|ip| fold_mapped(*ip)).collect();
        for family in Family::BOTH {
            let mut of_family = addresses.iter().filter(|ip| Family::of(**ip) == family);
            if let (Some(first), Some(second)) = (of_family.next(), of_family.next()) {
                return Err(format!("egress has {first} and {second}; write at most one address a family"));
            }
        }
        for ip in &addresses {
            let socket = socket_for(*ip).and_then(|socket| socket.bind(SocketAddr::new(*ip, 0)));
            socket.map_err(|e| format!("cannot send from the egress address {ip}: {e}; write an address of this host"))?;
        }
        Ok(Egress(addresses))
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

/// Tries the addresses in turn, all within `limit`; each has an equal part of the time that is left.
///
/// # Errors
/// [`Reason::ConnectTimeout`] where the last one tried did not answer, [`Reason::Limit`] where this process has no file descriptor
/// left, else [`Reason::Connect`].
pub async fn dial(addresses: &[Vetted], egress: &Egress, limit: Duration) -> Result<Dialled, Reason> {
    let deadline = Instant::now() + limit;
    let reachable: Vec<&Vetted> = addresses.iter().filter(|to| egress.source(to.address().ip()).is_ok()).take(MAX_TRIED).collect();
    let mut failure = Reason::Connect;
    for (tried, to) in reachable.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(reachable.len() - tried).unwrap_or(1);
        failure = match timeout(share, connect(**to, egress)).await {
            Ok(Ok(dialled)) => return Ok(dialled),
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Reason::ConnectTimeout,
            Ok(Err(error)) if is_lack(&error) => return Err(Reason::Limit),
            Ok(Err(error)) => {
                tracing::debug!(address = %to.address(), %error, "could not connect");
                Reason::Connect
            }
            Err(_) => Reason::ConnectTimeout,
        };
    }
    Err(failure)
}

async fn connect(to: Vetted, egress: &Egress) -> io::Result<Dialled> {
    let address = to.address();
    let socket = socket_for(address.ip())?;
    if let Ok(Some(source)) = egress.source(address.ip()) {
        // a port is then chosen at connect, per destination, not one for all of them: ip(7). Old kernels do without.
        let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    prepare(&stream)?;
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

/// Sets up either leg of a tunnel: no delay for small writes, and keepalive.
///
/// # Errors
/// The kernel's.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE)
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
        let foreign = egress(&["192.0.2.1"]).unwrap_err();
        assert!(foreign.starts_with("cannot send from the egress address 192.0.2.1: "), "{foreign}");
        assert!(foreign.ends_with("; write an address of this host"), "{foreign}");
    }

    #[test]
    fn a_family_without_egress_is_not_dialled() {
        let v4_only = egress(&["127.0.0.10"]).unwrap();
        assert_eq!(v4_only.source("1.1.1.1".parse().unwrap()), Ok(Some("127.0.0.10".parse().unwrap())));
        assert_eq!(v4_only.source("2606:4700::1".parse().unwrap()), Err(Reason::Connect));
    }
}

//! Kind `icmp`: an echo, over IPv4 or IPv6.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

use super::{Approach, Ended};
use crate::net::ask;
use crate::net::echo::{self, Echo};
use crate::net::pace::Pace;
use crate::observation::{Evidence, Outcome, Stage};
use crate::target::{Host, HostPort, parse_cidr};

/// The most addresses of one network that are asked.
pub const MAX_ADDRESSES: usize = 1024;

/// Kind `icmp`.
#[derive(Debug, PartialEq)]
pub struct Icmp {
    /// Whom to ask.
    pub target: Scope,
}

/// A host, or every address of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The host, or the network's first address; the port is 0, an echo has none.
    pub host: HostPort,
    /// The network, where it is more than one host.
    pub network: Option<IpNet>,
}

impl Scope {
    /// Every address of the network; none where it is a host.
    pub fn addresses(&self) -> Option<Vec<SocketAddr>> {
        let all = |net: IpNet| -> Vec<IpAddr> {
            match net {
                // The first and the last, too: behind a router they are addresses like any other.
                IpNet::V4(net) => {
                    (u32::from(net.network())..=u32::from(net.broadcast())).map(|n| IpAddr::V4(n.into())).take(MAX_ADDRESSES).collect()
                }
                IpNet::V6(net) => {
                    (u128::from(net.network())..=u128::from(net.broadcast())).map(|n| IpAddr::V6(n.into())).take(MAX_ADDRESSES).collect()
                }
            }
        };
        self.network.map(|net| all(net).into_iter().map(|ip| SocketAddr::new(ip, 0)).collect())
    }

    /// Whether the address may be one of those that are asked; a name may stand for any.
    pub fn may_be(&self, host: &Host) -> bool {
        match (self.network, host.ip(), self.host.host.ip()) {
            (Some(net), Some(ip), _) => net.contains(&ip),
            (None, Some(one), Some(other)) => one == other,
            // A name may stand for any address, and two names for one.
            _ => true,
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') && !text.contains("://") {
            let net = parse_cidr(text)?;
            let bits = net.max_prefix_len() - net.prefix_len();
            if bits >= usize::BITS as u8 || 1_usize << bits > MAX_ADDRESSES {
                let longest = net.max_prefix_len() - MAX_ADDRESSES.ilog2() as u8;
                return Err(format!(
                    "\"{text}\" has more than {MAX_ADDRESSES} addresses; write networks of /{longest} or smaller, one a check"
                ));
            }
            let host = HostPort { host: Host::Ip(net.network()), port: 0 };
            return Ok(Scope { host, network: (bits > 0).then_some(net) });
        }
        if let Ok(with_port) = text.parse::<HostPort>() {
            return Err(format!("\"{text}\" names a port, and an echo has none; write \"{}\"", bare(&with_port.host)));
        }
        Ok(Scope { host: HostPort { host: text.parse()?, port: 0 }, network: None })
    }
}

/// A host as it is shown where no port stands behind it: an IPv6 address without brackets.
pub fn bare(host: &Host) -> String {
    host.ip().map_or_else(|| host.to_string(), |ip| ip.to_string())
}

impl Icmp {
    /// Up to three echoes from one fresh socket, and what came back.
    pub(super) async fn attempt(&self, approach: &Approach, pace: Pace, deadline: Instant, evidence: &mut Evidence) -> Ended {
        (ask(approach.to, approach.source, pace, deadline, evidence).await, Stage::Icmp)
    }
}

/// The same, of anybody.
pub(super) async fn ask(to: SocketAddr, source: Option<IpAddr>, pace: Pace, deadline: Instant, evidence: &mut Evidence) -> Outcome {
    let (mut id, mut cookie) = ([0; 2], [0; 16]);
    let random = SystemRandom::new();
    if random.fill(&mut id).is_err() || random.fill(&mut cookie).is_err() {
        evidence.detail = Some("the system gives no randomness; let this process call getrandom(2)".into());
        return Outcome::LocalError;
    }
    let opened = echo::open(to, evidence).and_then(|(socket, raw)| Ok((ask::connected(socket, to, source, evidence)?, raw)));
    let (socket, raw) = match opened {
        Ok(opened) => opened,
        Err(outcome) => return outcome,
    };
    // The port of a ping socket is its identifier, that of a raw socket nothing at all.
    evidence.local_address.iter_mut().for_each(|own| own.set_port(0));
    ask::ask(socket, to, &mut Echo::new(to.is_ipv6(), raw, id, cookie), pace, deadline, evidence).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_has_no_port_and_a_network_every_address() {
        assert_eq!(scope("203.0.113.7").addresses(), None);
        assert_eq!(scope("203.0.113.7/32"), scope("203.0.113.7"));
        let all = scope("203.0.113.4/30").addresses().unwrap();
        assert_eq!(
            all.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>(),
            ["203.0.113.4", "203.0.113.5", "203.0.113.6", "203.0.113.7"]
        );
        assert_eq!(scope("2001:db8::/118").addresses().unwrap().len(), MAX_ADDRESSES);
        assert_eq!(scope("10.0.0.0/22").addresses().unwrap().len(), MAX_ADDRESSES);
        assert_eq!(scope("2001:db8::7").host.host, scope("[2001:db8::7]").host.host);
        for (text, part) in [
            ("10.0.0.0/21", "write networks of /22 or smaller"),
            ("0.0.0.0/0", "more than 1024"),
            ("2001:db8::/117", "write networks of /118 or smaller"),
            ("::/0", "more than 1024"),
            ("10.0.0.1/24", "bits set behind its prefix"),
            ("db.example.com:22", "write \"db.example.com\""),
            ("[2001:db8::7]:22", "write \"2001:db8::7\""),
        ] {
            let said = text.parse::<Scope>().unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn what_may_be_asked() {
        let may = |a: &str, b: &str| scope(a).may_be(&b.parse().unwrap());
        for (a, b) in [
            ("10.0.0.0/24", "10.0.0.9"),
            ("10.0.0.0/24", "a.example"),
            ("a.example", "a.example"),
            ("a.example", "10.0.0.1"),
            ("a.example", "b.example"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "a.example"),
        ] {
            assert!(may(a, b), "{a} {b}");
        }
        for (a, b) in [("10.0.0.0/24", "10.0.1.9"), ("10.0.0.1", "10.0.0.2")] {
            assert!(!may(a, b), "{a} {b}");
        }
    }
}

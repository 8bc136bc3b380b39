//! Own listeners: addresses at which this very process answers, and which it must therefore never dial.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::net::ip_of;
use crate::target::fold_mapped;

/// The listeners of this process.
#[derive(Debug)]
pub struct Own(Vec<SocketAddr>);

impl Own {
    /// Takes the listeners as bound; `0.0.0.0` and `[::]` stand for every address of this host, of both families.
    pub fn new(listeners: impl IntoIterator<Item = SocketAddr>) -> Own {
        Own(listeners.into_iter().map(|at| SocketAddr::new(fold_mapped(at.ip()), at.port())).collect())
    }

    /// Whether dialling `to` may end at one of the listeners. Where this host's addresses cannot be read, every address is taken for its own.
    pub fn answers_at(&self, to: SocketAddr, of_this_host: impl FnOnce() -> Option<Vec<IpNet>>) -> bool {
        let to = SocketAddr::new(fold_mapped(to.ip()), to.port());
        let mut same_port = self.0.iter().filter(|own| own.port() == to.port()).peekable();
        if same_port.peek().is_none() {
            return false;
        }
        // Linux dials the unspecified address as loopback, or as the address that the socket is bound to
        if to.ip().is_unspecified() {
            return true;
        }
        let mut everywhere = false;
        for own in same_port {
            if own.ip() == to.ip() {
                return true;
            }
            everywhere |= own.ip().is_unspecified();
        }
        everywhere && (to.ip().is_loopback() || of_this_host().is_none_or(|nets| nets.iter().any(|net| net.contains(&to.ip()))))
    }
}

/// The addresses of this host (getifaddrs(3)); on loopback interfaces the whole networks, since the kernel answers for all of them.
pub fn of_this_host() -> Option<Vec<IpNet>> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let nets = interfaces.filter_map(|interface| {
        let ip = ip_of(interface.address.as_ref()?)?;
        let whole = interface.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK);
        let mask = interface.netmask.as_ref().and_then(ip_of).filter(|_| whole);
        let net = mask.and_then(|mask| IpNet::with_netmask(ip, mask).ok());
        Some(net.unwrap_or_else(|| IpNet::from(ip)))
    });
    Some(nets.collect())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn answers(own: &str, to: &str) -> bool {
        let host = || Some(vec!["10.1.2.3/32".parse().unwrap(), "2001:db8::3/128".parse().unwrap(), "192.168.7.0/24".parse().unwrap()]);
        Own::new([own.parse().unwrap()]).answers_at(to.parse().unwrap(), host)
    }

    #[test]
    fn a_listener_is_found_at_every_address_that_leads_to_it_and_at_no_other() {
        let own = [
            ("127.0.0.1:3128", "127.0.0.1:3128"),
            ("127.0.0.1:3128", "[::ffff:127.0.0.1]:3128"),
            ("127.0.0.1:3128", "0.0.0.0:3128"),
            ("127.0.0.1:3128", "[::]:3128"),
            ("0.0.0.0:3128", "127.0.0.1:3128"),
            ("0.0.0.0:3128", "127.9.9.9:3128"),
            ("0.0.0.0:3128", "10.1.2.3:3128"),
            ("0.0.0.0:3128", "192.168.7.99:3128"),
            ("[::]:3128", "10.1.2.3:3128"),
            ("[::]:3128", "[2001:db8::3]:3128"),
            ("[::]:3128", "[::1]:3128"),
        ];
        for (listener, to) in own {
            assert!(answers(listener, to), "{listener} at {to}");
        }
        let others = [
            ("127.0.0.1:3128", "127.0.0.2:3128"),
            ("127.0.0.1:3128", "127.0.0.1:3129"),
            ("0.0.0.0:3128", "10.1.2.4:3128"),
            ("0.0.0.0:3128", "127.0.0.1:443"),
            ("[::]:3128", "[2001:db8::4]:3128"),
        ];
        for (listener, to) in others {
            assert!(!answers(listener, to), "{listener} at {to}");
        }
    }

    #[test]
    fn unknown_own_addresses_count_as_own() {
        let own = Own::new(["0.0.0.0:3128".parse().unwrap()]);
        assert!(own.answers_at("198.51.100.1:3128".parse().unwrap(), || None));
        assert!(!own.answers_at("198.51.100.1:443".parse().unwrap(), || None));
    }

    #[test]
    fn this_host_has_loopback() {
        assert!(of_this_host().unwrap().iter().any(|net| net.contains(&IpAddr::from([127, 0, 0, 1]))));
    }
}

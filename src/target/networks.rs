//! Sets of addresses, as lists of networks give them: compared address by address, told in the fewest networks.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// A set of addresses of both families. Two lists that cover the same addresses are the same set, however they are cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Spans,
    v6: Spans,
}

/// Addresses of one family as numbers: from and to, both included, in order, and none touches the next.
type Spans = Vec<(u128, u128)>;

/// The first address of `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
const MAPPED: u128 = 0xffff_0000_0000;

impl Networks {
    /// All addresses of these networks; the IPv4-mapped ones (`::ffff:203.0.113.0/120`) are of IPv4, whatever else lies around them.
    pub fn of(networks: impl IntoIterator<Item = IpNet>) -> Networks {
        let (mut v4, mut v6) = (Spans::new(), Spans::new());
        for network in networks {
            let (first, last) = (number(network.network()), number(network.broadcast()));
            let mapped = |number: u128| number.checked_sub(MAPPED).filter(|low| *low <= u32::MAX.into());
            match (network, mapped(first), mapped(last)) {
                (IpNet::V6(_), Some(first), Some(last)) => v4.push((first, last)),
                (IpNet::V6(_), ..) => v6.push((first, last)),
                (IpNet::V4(_), ..) => v4.push((first, last)),
            }
        }
        Networks { v4: merged(v4), v6: merged(v6) }
    }

    /// Whether there is no address in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// A network that is a whole family, where there is one: everybody.
    pub fn everybody(&self) -> Option<IpNet> {
        self.cidrs().find(|net| net.prefix_len() == 0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn without(&self, other: &Networks) -> Networks {
        Networks { v4: without(&self.v4, &other.v4), v6: without(&self.v6, &other.v6) }
    }

    /// Its addresses of IPv4.
    #[must_use]
    pub fn of_ipv4(self) -> Networks {
        Networks { v4: self.v4, v6: Spans::new() }
    }

    /// Its addresses of IPv6.
    #[must_use]
    pub fn of_ipv6(self) -> Networks {
        Networks { v4: Spans::new(), v6: self.v6 }
    }

    /// The fewest networks that are this set, IPv4 first, in order.
    pub fn cidrs(&self) -> impl Iterator<Item = IpNet> + '_ {
        let v4 = self.v4.iter().flat_map(|(first, last)| Ipv4Subnets::new(v4(*first), v4(*last), 0)).map(IpNet::V4);
        let v6 = self.v6.iter().flat_map(|(first, last)| Ipv6Subnets::new((*first).into(), (*last).into(), 0)).map(IpNet::V6);
        v4.chain(v6)
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The numbers of a span of IPv4 are none above its own.
fn v4(number: u128) -> Ipv4Addr {
    u32::try_from(number).map_or(Ipv4Addr::BROADCAST, Ipv4Addr::from)
}

/// In order, with what overlaps or touches as one.
fn merged(mut spans: Spans) -> Spans {
    spans.sort_unstable();
    let mut all = Spans::new();
    for (first, last) in spans {
        match all.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => all.push((first, last)),
        }
    }
    all
}

/// Both are walked once, side by side.
fn without(spans: &[(u128, u128)], holes: &[(u128, u128)]) -> Spans {
    let mut left = Spans::new();
    let mut holes = holes.iter().copied().peekable();
    for (first, last) in spans {
        let mut from = Some(*first);
        while let (Some(begins), Some((hole, end))) = (from, holes.peek().copied()) {
            if end < begins {
                holes.next();
                continue;
            }
            if hole > *last {
                break;
            }
            if hole > begins {
                left.push((begins, hole - 1));
            }
            // A hole that goes on behind this span may be one of the next as well.
            if end >= *last {
                from = None;
                break;
            }
            from = end.checked_add(1);
            holes.next();
        }
        left.extend(from.filter(|from| from <= last).map(|from| (from, *last)));
    }
    left
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn set(networks: &[&str]) -> Networks {
        Networks::of(networks.iter().map(|n| n.parse().unwrap()))
    }

    fn told(networks: &Networks) -> Vec<String> {
        networks.cidrs().map(|n| n.to_string()).collect()
    }

    #[test]
    fn two_lists_of_the_same_addresses_are_the_same_set() {
        assert_eq!(set(&["203.0.113.0/25", "203.0.113.128/25"]), set(&["203.0.113.0/24"]));
        assert_eq!(set(&["203.0.113.0/24", "203.0.113.0/24", "203.0.113.7/32"]), set(&["203.0.113.0/24"]));
        assert_eq!(set(&["2001:db8::/33", "2001:db8:8000::/33"]), set(&["2001:db8::/32"]));
        assert_ne!(set(&["203.0.113.0/25"]), set(&["203.0.113.0/24"]));
        // A mapped address is the one that it maps; what only lies around them is not.
        assert_eq!(set(&["::ffff:203.0.113.0/120", "::ffff:198.51.100.7/128"]), set(&["203.0.113.0/24", "198.51.100.7/32"]));
        assert_eq!(told(&set(&["::ffff:0:0/96"])), ["0.0.0.0/0"]);
        assert_eq!(told(&set(&["::fffe:0:0/95"])), ["::fffe:0:0/95"]);
        assert_eq!(told(&set(&["::fffe:ffff:0/112", "::1:0:0:0/128"])), ["::fffe:ffff:0/112", "::1:0:0:0/128"]);
        // The same number in both families is two addresses.
        assert_ne!(set(&["::cb00:7100/120"]), set(&["203.0.113.0/24"]));
        assert_eq!(told(&set(&["203.0.113.128/25", "198.51.100.0/24", "203.0.113.0/25"])), ["198.51.100.0/24", "203.0.113.0/24"]);
    }

    #[test]
    fn what_is_left_is_told_in_the_fewest_networks() {
        let left = |one: &[&str], other: &[&str]| told(&set(one).without(&set(other)));
        assert_eq!(left(&["203.0.113.0/24"], &["203.0.113.64/26"]), ["203.0.113.0/26", "203.0.113.128/25"]);
        assert_eq!(left(&["203.0.113.0/24"], &["203.0.0.0/16"]), [""; 0]);
        assert_eq!(left(&["203.0.113.0/26", "203.0.113.128/26"], &["203.0.113.0/24"]), [""; 0]);
        assert_eq!(left(&["0.0.0.0/0"], &["128.0.0.0/1"]), ["0.0.0.0/1"]);
        assert_eq!(left(&["0.0.0.0/0", "::/0"], &[]), ["0.0.0.0/0", "::/0"]);
        assert_eq!(left(&["::/0"], &["8000::/1"]), ["::/1"]);
        assert_eq!(left(&["::/0"], &["::/1"]), ["8000::/1"]);
        assert_eq!(left(&["255.255.255.0/24"], &["255.255.255.255/32"]).len(), 8);
        assert_eq!(told(&set(&["203.0.113.7/32", "2001:db8::7/128"]).of_ipv6()), ["2001:db8::7/128"]);
        assert!(set(&["203.0.113.7/32"]).of_ipv6().is_empty());
        let everybody = |networks: &[&str]| set(networks).everybody().map(|net| net.to_string());
        assert_eq!(everybody(&["128.0.0.0/1", "0.0.0.0/1"]).as_deref(), Some("0.0.0.0/0"));
        assert_eq!(everybody(&["203.0.113.0/24", "::/0"]).as_deref(), Some("::/0"));
        assert_eq!(everybody(&["0.0.0.0/1", "::/1"]), None);
    }

    proptest! {
        /// Small networks in a corner of both families, each address of which can be asked for.
        #[test]
        fn every_address_is_where_it_belongs(
            one in prop::collection::vec((any::<u8>(), 24..=32_u8, any::<bool>()), 0..12),
            other in prop::collection::vec((any::<u8>(), 24..=32_u8, any::<bool>()), 0..12),
        ) {
            let nets = |list: &[(u8, u8, bool)]| -> Vec<IpNet> {
                let of = |(low, prefix, v6): &(u8, u8, bool)| {
                    let (ip, prefix) = if *v6 {
                        (IpAddr::V6(Ipv6Addr::from(u128::MAX - 255 + u128::from(*low))), prefix + 96)
                    } else {
                        (IpAddr::from([255, 255, 255, *low]), *prefix)
                    };
                    IpNet::new(ip, prefix).unwrap().trunc()
                };
                list.iter().map(of).collect()
            };
            let (one, other) = (nets(&one), nets(&other));
            let left = Networks::of(one.iter().copied()).without(&Networks::of(other.iter().copied()));
            let cidrs: Vec<IpNet> = left.cidrs().collect();
            for low in 0..=255 {
                for ip in [IpAddr::from([255, 255, 255, low]), Ipv6Addr::from(u128::MAX - 255 + u128::from(low)).into()] {
                    let has = |nets: &[IpNet]| nets.iter().filter(|net| net.contains(&ip)).count();
                    prop_assert_eq!(has(&cidrs), usize::from(has(&one) > 0 && has(&other) == 0), "{}", ip);
                }
            }
            prop_assert_eq!(IpNet::aggregate(&cidrs), cidrs);
        }
    }
}

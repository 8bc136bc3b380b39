//! Hosts: one name or address, a network, or a range of addresses; bounded, so that a typing error floods nobody.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::{Host, fold_mapped, parse_cidr};

/// The most addresses that one target may stand for.
pub const MAX_HOSTS: usize = 1024;

/// One host, or many addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// A name or an address.
    One(Host),
    /// The hosts of a network: of IPv4 without its network and broadcast address, unless it is as small as /31.
    Net(IpNet),
    /// From the first address to the last, both included, of one family.
    Range(IpAddr, IpAddr),
}

impl Hosts {
    /// The addresses, where they are written; none where a name must be resolved.
    pub fn addresses(&self) -> Option<Vec<IpAddr>> {
        match self {
            Hosts::One(Host::Name(_)) => None,
            Hosts::One(Host::Ip(ip)) => Some(vec![*ip]),
            Hosts::Net(net) => Some(net.hosts().take(MAX_HOSTS).collect()),
            Hosts::Range(first, last) => Some(between(*first, *last).take(MAX_HOSTS).collect()),
        }
    }

    /// The host, or the first of them: what stands for all where one is asked for.
    pub fn first(&self) -> Host {
        match self {
            Hosts::One(host) => host.clone(),
            Hosts::Net(net) => Host::Ip(net.hosts().next().unwrap_or(net.addr())),
            Hosts::Range(first, _) => Host::Ip(*first),
        }
    }

    /// Whether the address is one of them, as far as that is written.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match self {
            Hosts::One(host) => host.ip() == Some(ip),
            Hosts::Net(net) => net.contains(&ip),
            Hosts::Range(first, last) => first.is_ipv4() == ip.is_ipv4() && (*first..=*last).contains(&ip),
        }
    }
}

/// An address as a number of its family.
fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn between(first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
    let address = move |bits: u128| match first {
        IpAddr::V4(_) => u32::try_from(bits).ok().map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        IpAddr::V6(_) => Some(IpAddr::V6(Ipv6Addr::from_bits(bits))),
    };
    (number(first)..=number(last)).map_while(address)
}

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((first, last)) = text.split_once('-')
            && let Ok(first) = first.trim().parse::<IpAddr>()
        {
            let last = last.trim().parse().map_err(|_| format!("\"{last}\" is not an address; write a range as 192.0.2.10-192.0.2.20"))?;
            return range(fold_mapped(first), fold_mapped(last));
        }
        if !text.contains('/') {
            return text.parse().map(Hosts::One);
        }
        let net = parse_cidr(text)?;
        let bits = net.max_prefix_len() - net.prefix_len();
        if bits > MAX_HOSTS.ilog2() as u8 {
            let longest = net.max_prefix_len() - MAX_HOSTS.ilog2() as u8;
            return Err(format!(
                "\"{text}\" is more than {MAX_HOSTS} addresses; write networks of /{longest} or smaller, each in a check of its own"
            ));
        }
        Ok(Hosts::Net(net))
    }
}

fn range(first: IpAddr, last: IpAddr) -> Result<Hosts, String> {
    if first.is_ipv4() != last.is_ipv4() {
        return Err(format!("the range {first}-{last} mixes IPv4 with IPv6; write two checks"));
    }
    if first > last {
        return Err(format!("the range {first}-{last} runs backwards; write {last}-{first}"));
    }
    if number(last) - number(first) >= MAX_HOSTS as u128 {
        return Err(format!("the range {first}-{last} is more than {MAX_HOSTS} addresses; write several, each in a check of its own"));
    }
    Ok(Hosts::Range(first, last))
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hosts::One(host) => host.fmt(f),
            Hosts::Net(net) => net.fmt(f),
            Hosts::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_both_sides_of_each_border() {
        let count = |text: &str| text.parse::<Hosts>().map(|h| h.addresses().map(|a| a.len()));
        assert_eq!(count("db.example.com"), Ok(None));
        assert_eq!(count("a-b.example.com"), Ok(None));
        assert_eq!(count("192.0.2.7"), Ok(Some(1)));
        assert_eq!(count("2001:db8::7"), Ok(Some(1)));
        assert_eq!(count("192.0.2.0/24"), Ok(Some(254)));
        assert_eq!(count("192.0.2.0/31"), Ok(Some(2)));
        assert_eq!(count("192.0.2.7/32"), Ok(Some(1)));
        assert_eq!(count("10.0.0.0/22"), Ok(Some(1022)));
        assert!(count("10.0.0.0/21").unwrap_err().contains("write networks of /22 or smaller"));
        assert_eq!(count("2001:db8::/118"), Ok(Some(1024)));
        assert!(count("2001:db8::/117").unwrap_err().contains("write networks of /118 or smaller"));
        assert!(count("::/0").is_err() && count("0.0.0.0/0").is_err());
        assert_eq!(count("192.0.2.10-192.0.2.20"), Ok(Some(11)));
        assert_eq!(count("192.0.2.10-192.0.2.10"), Ok(Some(1)));
        assert_eq!(count("255.255.255.250-255.255.255.255"), Ok(Some(6)));
        assert_eq!(count("10.0.0.0-10.0.3.255"), Ok(Some(1024)));
        assert!(count("10.0.0.0-10.0.4.0").unwrap_err().contains("more than 1024"));
        assert!(count("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").is_err());
        assert!(count("192.0.2.20-192.0.2.10").unwrap_err().contains("write 192.0.2.10-192.0.2.20"));
        assert!(count("192.0.2.20-2001:db8::1").unwrap_err().contains("two checks"));
        assert!(count("192.0.2.1/24").unwrap_err().contains("write 192.0.2.0/24"));
    }

    #[test]
    fn contains_its_ends_and_no_more() {
        let hosts: Hosts = "192.0.2.10-192.0.2.20".parse().unwrap();
        let has = |text: &str| hosts.contains(text.parse().unwrap());
        assert!(has("192.0.2.10") && has("192.0.2.20") && !has("192.0.2.9") && !has("192.0.2.21") && !has("::1"));
    }
}

//! A destination as a rule names it: a name, all names below one, or a network.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::target::{Host, fold_mapped, parse_cidr};

/// A destination as a rule names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// `example.com`: this name and no other.
    Name(String),
    /// `.example.com`: this name and all below it.
    Suffix(String),
    /// A network, or one address.
    Net(IpNet),
}

impl Destination {
    /// Whether it is about this name.
    pub(super) fn names(&self, name: &str) -> bool {
        match self {
            Destination::Name(own) => own == name,
            Destination::Suffix(own) => name == own || name.strip_suffix(own.as_str()).is_some_and(|below| below.ends_with('.')),
            Destination::Net(_) => false,
        }
    }

    /// Whether it is about this address.
    pub(super) fn holds(&self, ip: IpAddr) -> bool {
        match self {
            Destination::Net(net) => net.contains(&ip),
            Destination::Name(_) | Destination::Suffix(_) => false,
        }
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return plain_net(parse_cidr(text)?).map(Destination::Net);
        }
        if let Some(below) = text.strip_prefix("*.") {
            return Err(format!("\"{text}\" has a wildcard; write .{below}"));
        }
        if let Some(domain) = text.strip_prefix('.') {
            return match domain.parse()? {
                Host::Name(name) => Ok(Destination::Suffix(name)),
                Host::Ip(ip) => Err(format!("\"{text}\" is an address behind a dot; write {ip}")),
            };
        }
        match text.parse()? {
            Host::Name(name) => Ok(Destination::Name(name)),
            Host::Ip(ip) => plain_net(IpNet::from(ip)).map(Destination::Net),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Name(name) => f.write_str(name),
            Destination::Suffix(name) => write!(f, ".{name}"),
            Destination::Net(net) => net.fmt(f),
        }
    }
}

/// A network that can match: mapped IPv4 addresses are folded before they are judged, so no rule may be written in that form.
///
/// # Errors
/// What to write instead.
pub fn plain_net(net: IpNet) -> Result<IpNet, String> {
    let mapped = IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96));
    if mapped.contains(&net) {
        let v4 = fold_mapped(net.addr());
        return Err(format!("\"{net}\" is an IPv4 network in IPv6 form; write {v4}/{}", net.prefix_len().saturating_sub(96)));
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_say_what_to_write_instead() {
        for text in ["example.com", ".example.com", "10.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
        }
        assert_eq!("10.0.0.1".parse::<Destination>().unwrap().to_string(), "10.0.0.1/32");
        let bad = [
            ("*.example.com", "\"*.example.com\" has a wildcard; write .example.com"),
            (".10.0.0.1", "\".10.0.0.1\" is an address behind a dot; write 10.0.0.1"),
            ("10.0.0.1/8", "\"10.0.0.1/8\" has bits set behind its prefix; write 10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "\"::ffff:10.0.0.0/104\" is an IPv4 network in IPv6 form; write 10.0.0.0/8"),
            ("", "the host is empty; write a name or an address"),
            (".", "the host is empty; write a name or an address"),
        ];
        for (text, message) in bad {
            assert_eq!(text.parse::<Destination>(), Err(message.to_string()), "{text}");
        }
    }
}

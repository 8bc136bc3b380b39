//! Targets: hosts, ports, URLs and networks, parsed and normalised once, for probes and proxy rules alike.
//!
//! Errors are lower-case fragments that name the fault and the remedy; the caller puts the place in front.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

mod hosts;
mod networks;

pub use hosts::{Hosts, MAX_HOSTS};
pub use networks::Networks;

/// The longest name DNS can carry in text form (RFC 1035 section 2.3.4, less length octets).
const MAX_NAME: usize = 253;
/// The longest label of a name (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// A host as a target names it: a DNS name (lower case, no trailing dot) or an address literal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name, lower-cased, without the trailing dot.
    Name(String),
    /// An address literal; an IPv4 address written as IPv6 is the IPv4 address, since that is what is dialled.
    Ip(IpAddr),
}

/// `host:port`, with IPv6 literals in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

/// The scheme of a URL that a probe can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// An `http` or `https` URL; the path (with its query) is kept exactly as typed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port; the scheme's default port is filled in.
    pub authority: HostPort,
    /// Path and query as typed, at least `/`.
    pub path: String,
}

impl Host {
    /// The address, where the host is written as one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Host::Ip(ip) => Some(*ip),
            Host::Name(_) => None,
        }
    }
}

impl HostPort {
    /// The socket address, where the host is written as an address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host.ip().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        HostPort { host: Host::Ip(address.ip()), port: address.port() }
    }
}

impl Scheme {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port that the scheme means when none is written (RFC 9110 section 4.2).
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl Url {
    /// Where a `Location` leads from here (RFC 3986 section 5.2), if anywhere that is HTTP; a fragment is never sent.
    pub fn join(&self, location: &str) -> Option<Url> {
        let location = location.split('#').next().unwrap_or(location);
        if let Some(rest) = location.strip_prefix("//") {
            return format!("{}://{rest}", self.scheme).parse().ok();
        }
        let scheme = location.split([':', '/', '?']).next().unwrap_or_default();
        if location[scheme.len()..].starts_with(':') {
            return location.parse().ok();
        }
        if !location.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let own = self.path.split('?').next().unwrap_or("/");
        let path = match location.bytes().next() {
            None => self.path.clone(),
            Some(b'?') => format!("{own}{location}"),
            Some(b'/') => without_dots(location),
            Some(_) => without_dots(&format!("{}{location}", own.rsplit_once('/').map_or("/".into(), |(before, _)| format!("{before}/")))),
        };
        Some(Url { path, ..self.clone() })
    }

    /// Whether this is `from` or below it: the same scheme, host and port, and a path that begins so.
    pub fn is_below(&self, from: &Url) -> bool {
        (self.scheme, &self.authority) == (from.scheme, &from.authority) && self.path.starts_with(&from.path)
    }

    /// The value of the `Host` header: the port is left out where it is the scheme's own (RFC 9110 section 7.2).
    pub fn host_header(&self) -> String {
        if self.authority.port == self.scheme.default_port() { self.authority.host.to_string() } else { self.authority.to_string() }
    }
}

/// A rooted path, its query left alone, without the segments `.` and `..` (RFC 3986 section 5.2.4).
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if segments.peek().is_none() {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or("the bracket is not closed; write [2001:db8::7]")?;
            let ip = inner.parse::<Ipv6Addr>();
            return ip.map(|ip| Host::Ip(fold_mapped(ip.into()))).map_err(|_| format!("\"{inner}\" is not an IPv6 address"));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Host::Ip(fold_mapped(ip)));
        }
        parse_name(text).map(Host::Name)
    }
}

/// A DNS name in the letters, digits, hyphen and underscore form that targets use.
fn parse_name(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err("the host is empty; write a name or an address".into());
    }
    if name.contains('@') {
        return Err("no user name or password may stand in a target".into());
    }
    if !name.is_ascii() {
        return Err(format!("\"{name}\" is not ASCII; write the name's xn-- form"));
    }
    if name.len() > MAX_NAME {
        return Err(format!("the name is {} characters long; DNS allows {MAX_NAME}", name.len()));
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL {
            return Err(format!("\"{name}\" is not a DNS name: each label has 1 to {MAX_LABEL} characters"));
        }
        if let Some(bad) = label.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '_')) {
            return Err(format!("\"{name}\" is not a DNS name: it may not contain {bad:?}"));
        }
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x");
    if numeric {
        return Err(format!("\"{name}\" is neither a name nor an address; write all four parts, like 192.0.2.7"));
    }
    Ok(name.to_ascii_lowercase())
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = split_port(text)?;
        let port = port.ok_or_else(|| format!("\"{text}\" names no port; write host:port"))?;
        Ok(HostPort { host: host.parse()?, port: parse_port(port)? })
    }
}

/// Splits `host:port`, `[v6]:port` or a bare host.
fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if text.starts_with('[') {
        let end = text.find(']').ok_or("the bracket is not closed; write [2001:db8::7]:443")?;
        let (host, rest) = text.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("\"{rest}\" stands behind the bracket; write [2001:db8::7]:443")),
        };
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((_, rest)) if rest.contains(':') => {
            Err(format!("\"{text}\" has more than one colon; write an IPv6 address in brackets, like [2001:db8::7]:443"))
        }
        Some((host, port)) => Ok((host, Some(port))),
    }
}

/// A port from 1 to 65535: digits only, no sign, no leading zero.
pub fn parse_port(text: &str) -> Result<u16, String> {
    let wrong = || format!("\"{text}\" is not a port; write a number from 1 to 65535");
    if text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((s, rest)) if s.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((s, rest)) if s.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((s, _)) => return Err(format!("\"{s}\" is not a scheme that is probed; write http:// or https://")),
            None => return Err(format!("\"{text}\" is not a URL; write http://host/ or https://host/")),
        };
        if let Some(bad) = rest.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("the URL may not contain {bad:?}; percent-encode it"));
        }
        if rest.contains('#') {
            return Err("a fragment (#) is never sent; leave it out".into());
        }
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        if authority.contains('@') {
            return Err("no user name or password may stand in a target".into());
        }
        let (host, port) = split_port(authority)?;
        let port = port.map_or(Ok(scheme.default_port()), parse_port)?;
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        Ok(Url { scheme, authority: HostPort { host: host.parse()?, port }, path })
    }
}

/// A set of ports, as sorted ranges that neither touch nor overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    /// Reads entries such as `443`, `8000-8010` or `22,80`; the empty list is the empty set.
    ///
    /// # Errors
    /// The entry that is not a port or range.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<PortSet, String> {
        let mut ranges = Vec::new();
        for entry in entries.into_iter().flat_map(|e| e.split(',')) {
            let (low, high) = entry.trim().split_once('-').unwrap_or((entry.trim(), entry.trim()));
            let (low, high) = (parse_port(low)?, parse_port(high)?);
            if low > high {
                return Err(format!("the range {low}-{high} runs backwards; write {high}-{low}"));
            }
            ranges.push((low, high));
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(low) <= u32::from(last.1) + 1 => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Ok(PortSet(merged))
    }

    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(low, high)| (*low..=*high).contains(&port))
    }

    /// Whether no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ports are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(low, high)| usize::from(high - low) + 1).sum()
    }

    /// Every port, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(|(low, high)| *low..=*high)
    }

    /// A set of these ports, which are in order.
    pub fn of(ports: impl IntoIterator<Item = u16>) -> PortSet {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for port in ports {
            match ranges.last_mut() {
                Some(last) if last.1.checked_add(1) == Some(port) => last.1 = port,
                _ => ranges.push((port, port)),
            }
        }
        PortSet(ranges)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn without(&self, other: &PortSet) -> PortSet {
        PortSet::of(self.iter().filter(|port| !other.contains(*port)))
    }
}

/// A network in CIDR form, or a single address.
///
/// # Errors
/// What is wrong and what to write instead; host bits that are set are refused, since they hide a typing error.
pub fn parse_cidr(text: &str) -> Result<IpNet, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    let net =
        text.parse::<IpNet>().map_err(|_| format!("\"{text}\" is not a network; write 192.0.2.0/24, 2001:db8::/32 or one address"))?;
    if net.trunc() != net {
        return Err(format!("\"{text}\" has bits set behind its prefix; write {}", net.trunc()));
    }
    Ok(net)
}

/// Folds the forms that carry an IPv4 address inside IPv6 and mean the IPv4 host when dialled (RFC 4291 section 2.5.5.2).
pub fn fold_mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// The unspecified address of the family of `like`.
pub fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (low, high)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            if low == high { write!(f, "{comma}{low}")? } else { write!(f, "{comma}{low}-{high}")? }
        }
        Ok(())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.host_header(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_port_both_sides_of_each_border() {
        let good = [
            ("db.example.com:5432", "db.example.com:5432"),
            ("DB.Example.com.:1", "db.example.com:1"),
            ("192.0.2.7:65535", "192.0.2.7:65535"),
            ("[2001:db8::7]:443", "[2001:db8::7]:443"),
            ("_sip._tcp.example.com:5060", "_sip._tcp.example.com:5060"),
        ];
        for (text, shown) in good {
            assert_eq!(text.parse::<HostPort>().map(|t| t.to_string()), Ok(shown.to_string()), "{text}");
        }
        let bad = [
            ("db", "\"db\" names no port; write host:port"),
            ("db:0", "\"0\" is not a port; write a number from 1 to 65535"),
            ("db:65536", "\"65536\" is not a port; write a number from 1 to 65535"),
            ("db:+80", "\"+80\" is not a port; write a number from 1 to 65535"),
            ("db:080", "\"080\" is not a port; write a number from 1 to 65535"),
            ("2001:db8::7:443", "\"2001:db8::7:443\" has more than one colon; write an IPv6 address in brackets, like [2001:db8::7]:443"),
            ("[2001:db8::7:443", "the bracket is not closed; write [2001:db8::7]:443"),
            ("[127.0.0.1]:443", "\"127.0.0.1\" is not an IPv6 address"),
            ("127.1:80", "\"127.1\" is neither a name nor an address; write all four parts, like 192.0.2.7"),
            ("0x7f000001:80", "\"0x7f000001\" is neither a name nor an address; write all four parts, like 192.0.2.7"),
            ("user@db:80", "no user name or password may stand in a target"),
            (":80", "the host is empty; write a name or an address"),
        ];
        for (text, message) in bad {
            assert_eq!(text.parse::<HostPort>().map(|t| t.to_string()), Err(message.to_string()), "{text}");
        }
    }

    #[test]
    fn urls_keep_the_path_as_typed() {
        let url: Url = "https://Admin.example.com/a/../%61?x=/..;/".parse().unwrap();
        assert_eq!(url.path, "/a/../%61?x=/..;/");
        assert_eq!(url.host_header(), "admin.example.com");
        assert_eq!("http://[::1]:8080".parse::<Url>().unwrap().host_header(), "[::1]:8080");
        assert_eq!("http://h?q".parse::<Url>().unwrap().path, "/?q");
        assert!("ftp://h/".parse::<Url>().unwrap_err().contains("write http:// or https://"));
        assert!("http://u:p@h/".parse::<Url>().unwrap_err().contains("no user name or password"));
    }

    #[test]
    fn port_sets_merge_and_keep_their_borders() {
        let set = PortSet::parse(["443", "8000-8010", "8011", "22,80"]).unwrap();
        assert_eq!(set, PortSet(vec![(22, 22), (80, 80), (443, 443), (8000, 8011)]));
        assert!(set.contains(8011) && !set.contains(8012) && !set.contains(7999));
        assert_eq!(PortSet::parse(["1-65535"]).unwrap(), PortSet(vec![(1, 65535)]));
        assert_eq!(PortSet::parse(["9-8"]).unwrap_err(), "the range 9-8 runs backwards; write 8-9");
        assert!(PortSet::parse(["80,"]).is_err());
    }

    #[test]
    fn port_sets_count_and_take_away() {
        let all = PortSet::parse(["1-65535"]).unwrap();
        assert_eq!((all.len(), all.iter().count()), (65_535, 65_535));
        let rest = all.without(&PortSet::parse(["1", "22", "65535"]).unwrap());
        assert_eq!((rest.len(), rest.to_string()), (65_532, "2-21, 23-65534".to_string()));
        assert!(rest.without(&all).is_empty());
    }

    #[test]
    fn cidr_refuses_host_bits() {
        assert_eq!(parse_cidr("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(parse_cidr("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(parse_cidr("10.0.0.1/8").unwrap_err(), "\"10.0.0.1/8\" has bits set behind its prefix; write 10.0.0.0/8");
    }
}

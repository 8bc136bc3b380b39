//! Spans of numbers: addresses and ports, as an ACL lists them, and the classes that a set of lists parts them into.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// The first IPv4-mapped address; Squid keeps every IPv4 address in this form, so a mapped one is no way round a rule.
const MAPPED: u128 = 0xffff_0000_0000;
/// The last.
const MAPPED_END: u128 = 0xffff_ffff_ffff;

/// From the first to the last, both in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first.
    pub first: u128,
    /// The last.
    pub last: u128,
}

/// Spans that do not touch one another, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

impl Span {
    /// Every address.
    pub const ALL: Span = Span { first: 0, last: u128::MAX };
    /// Every IPv4 address.
    pub const IPV4: Span = Span { first: MAPPED, last: MAPPED_END };
    /// Every port that can be dialled.
    pub const PORTS: Span = Span { first: 1, last: 65_535 };

    /// One number.
    pub fn one(number: u128) -> Span {
        Span { first: number, last: number }
    }

    /// Whether it has that number.
    pub fn has(&self, number: u128) -> bool {
        self.first <= number && number <= self.last
    }

    /// What both have.
    pub fn both(self, other: Span) -> Option<Span> {
        let both = Span { first: self.first.max(other.first), last: self.last.min(other.last) };
        (both.first <= both.last).then_some(both)
    }
}

impl From<IpNet> for Span {
    fn from(net: IpNet) -> Span {
        Span { first: number(net.network()), last: number(net.broadcast()) }
    }
}

/// An address as Squid numbers it.
pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address of a number.
pub fn address(number: u128) -> IpAddr {
    let v6 = Ipv6Addr::from(number);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

impl Spans {
    /// These, in order and joined where they touch.
    pub fn of(spans: impl IntoIterator<Item = Span>) -> Spans {
        let mut all: Vec<Span> = spans.into_iter().collect();
        all.sort();
        let mut joined: Vec<Span> = Vec::new();
        for span in all {
            match joined.last_mut() {
                Some(before) if before.last == u128::MAX || span.first <= before.last + 1 => before.last = before.last.max(span.last),
                _ => joined.push(span),
            }
        }
        Spans(joined)
    }

    /// Whether one of them has that number.
    pub fn has(&self, number: u128) -> bool {
        let before = self.0.partition_point(|span| span.first <= number);
        before.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|span| span.has(number))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The spans, in order.
    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.0.iter().copied()
    }

    /// How many numbers of `within` are here.
    pub fn size_within(&self, within: Span) -> u128 {
        self.0
            .iter()
            .filter_map(|span| span.both(within))
            .fold(0, |size, span| size.saturating_add((span.last - span.first).saturating_add(1)))
    }

    /// These without those.
    pub fn without(&self, those: &Spans) -> Spans {
        let lists = [self, those];
        Spans::of(classes(&lists, Span::ALL).into_iter().filter(|class| class.member == [true, false]).flat_map(|class| class.spans.0))
    }

    /// These as ports, such as `443, 1025-65535`.
    pub fn ports(&self) -> String {
        let shown = self.0.iter().map(|s| if s.first == s.last { s.first.to_string() } else { format!("{}-{}", s.first, s.last) });
        shown.collect::<Vec<_>>().join(", ")
    }
}

/// As networks, the first few of them.
impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 6;
        let mut networks = self.0.iter().flat_map(|span| networks(*span));
        let shown: Vec<String> = networks.by_ref().take(SHOWN).collect();
        let more = networks.next().map_or("", |_| ", …");
        write!(f, "{}{more}", shown.join(", "))
    }
}

/// A span as networks, IPv4 as such; nothing where it has all addresses but as both families.
fn networks(span: Span) -> Box<dyn Iterator<Item = String>> {
    if span == Span::ALL {
        return Box::new(["0.0.0.0/0".to_string(), "::/0".to_string()].into_iter());
    }
    let short = |net: IpNet| if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() };
    let v6 = |first: u128, last: u128| Ipv6Subnets::new(first.into(), last.into(), 0).map(IpNet::V6);
    let below = span.both(Span { first: 0, last: MAPPED - 1 }).into_iter().flat_map(move |s| v6(s.first, s.last));
    let above = span.both(Span { first: MAPPED_END + 1, last: u128::MAX }).into_iter().flat_map(move |s| v6(s.first, s.last));
    let v4 = span.both(Span::IPV4).into_iter().flat_map(|s| {
        let low = |n: u128| Ipv4Addr::from(u32::try_from(n - MAPPED).unwrap_or_default());
        Ipv4Subnets::new(low(s.first), low(s.last), 0).map(IpNet::V4)
    });
    Box::new(v4.chain(below).chain(above).map(short))
}

/// Numbers that no list tells apart.
#[derive(Debug, Clone)]
pub struct Class {
    /// One of them.
    pub example: u128,
    /// All of them.
    pub spans: Spans,
    /// Which of the lists have them.
    member: Vec<bool>,
}

/// Parts `within` into classes: numbers that the very same lists have are one class, so one of them speaks for all.
pub fn classes(lists: &[&Spans], within: Span) -> Vec<Class> {
    let ends = lists.iter().flat_map(|list| list.0.iter()).flat_map(|span| [Some(span.first), span.last.checked_add(1)]).flatten();
    let mut begins: Vec<u128> = ends.filter(|n| within.has(*n)).chain([within.first]).collect();
    begins.sort_unstable();
    begins.dedup();
    let mut found: BTreeMap<Vec<bool>, Vec<Span>> = BTreeMap::new();
    for (at, first) in begins.iter().enumerate() {
        let last = begins.get(at + 1).map_or(within.last, |next| next - 1);
        let member: Vec<bool> = lists.iter().map(|list| list.has(*first)).collect();
        found.entry(member).or_default().push(Span { first: *first, last });
    }
    let class = |(member, spans): (Vec<bool>, Vec<Span>)| {
        let spans = Spans::of(spans);
        // Inside a span rather than at its edge: the first address of a network reads oddly as an example.
        let example = spans.0.first().map_or(0, |span| span.first + u128::from(span.last - span.first > 2));
        Class { example, spans, member }
    };
    found.into_iter().map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(nets: &[&str]) -> Spans {
        Spans::of(nets.iter().map(|net| Span::from(net.parse::<IpNet>().unwrap())))
    }

    #[test]
    fn spans_are_joined_and_shown_as_networks() {
        assert_eq!(nets(&["10.0.0.0/9", "10.128.0.0/9", "10.2.0.0/16"]).to_string(), "10.0.0.0/8");
        assert_eq!(nets(&["0.0.0.0/0"]).to_string(), "0.0.0.0/0");
        assert_eq!(nets(&["::/0"]).to_string(), "0.0.0.0/0, ::/0");
        assert_eq!(nets(&["::1/128", "fe80::/10", "127.0.0.1/32"]).to_string(), "::1, 127.0.0.1, fe80::/10");
        assert!(nets(&["10.0.0.0/8"]).has(number("::ffff:10.1.2.3".parse().unwrap())));
        assert!(!nets(&["10.0.0.0/8"]).has(number("11.0.0.0".parse().unwrap())) && !nets(&[]).has(0));
    }

    #[test]
    fn one_of_a_class_speaks_for_all_of_it() {
        let (a, b) = (nets(&["10.0.0.0/8"]), nets(&["10.1.0.0/16", "192.168.0.0/16"]));
        let parted = classes(&[&a, &b], Span::ALL);
        assert_eq!(parted.len(), 4, "neither, a alone, b alone, both");
        for class in &parted {
            let same = |n: u128| (a.has(n), b.has(n)) == (a.has(class.example), b.has(class.example));
            assert!(class.spans.has(class.example) && class.spans.iter().all(|span| same(span.first) && same(span.last)));
        }
        let size = parted.iter().flat_map(|c| c.spans.iter()).fold(0u128, |sum, s| sum.wrapping_add(s.last - s.first).wrapping_add(1));
        assert_eq!(size, 0, "2^128 of them");
        assert_eq!(a.without(&b).to_string(), "10.0.0.0/16, 10.2.0.0/15, 10.4.0.0/14, 10.8.0.0/13, 10.16.0.0/12, 10.32.0.0/11, …");
        assert_eq!(a.size_within(Span::IPV4), 1 << 24);
    }
}

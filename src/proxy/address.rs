//! Address classes: which addresses are no public destination, and which IPv4 addresses hide inside an IPv6 one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::target::fold_mapped;

/// A block that is no public destination, with the document that sets it apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The addresses.
    pub net: IpNet,
    /// What they are for.
    pub class: &'static str,
    /// Where that is written.
    pub document: &'static str,
}

/// The first special-purpose block that `ip`, or an IPv4 address hidden in it, lies in without `allowed` listing that very form.
///
/// Each form is judged for itself: to reach `10.0.0.1` through local-use NAT64, both `64:ff9b:1::/48` and `10.0.0.0/8` must be allowed.
pub fn refused(ip: IpAddr, allowed: &[IpNet]) -> Option<&'static Block> {
    let listed = |form: &IpAddr| allowed.iter().any(|net| net.contains(form));
    forms(ip).into_iter().filter(|form| !listed(form)).find_map(special)
}

/// The address as it is dialled, mapped IPv4 folded, and behind it each IPv4 address that it may carry a packet to.
pub fn forms(ip: IpAddr) -> Vec<IpAddr> {
    let folded = fold_mapped(ip);
    let mut all = vec![folded];
    if let IpAddr::V6(v6) = folded {
        all.extend(embedded(v6).into_iter().map(IpAddr::V4));
    }
    all
}

/// The IPv4 addresses inside an IPv6 address; a mapped one is folded before this is asked.
fn embedded(ip: Ipv6Addr) -> Vec<Ipv4Addr> {
    let [_, _, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15] = ip.octets();
    let tail = Ipv4Addr::new(b12, b13, b14, b15);
    let mut found = Vec::new();
    if COMPATIBLE.contains(&ip) && !ip.is_unspecified() && !ip.is_loopback() {
        found.push(tail);
    }
    if TRANSLATED.contains(&ip) || NAT64.contains(&ip) {
        found.push(tail);
    }
    if NAT64_LOCAL.contains(&ip) {
        // RFC 6052 section 2.2: where the address stands depends on the prefix length, which only the operator knows.
        let layouts = [[b6, b7, b9, b10], [b7, b9, b10, b11], [b9, b10, b11, b12], [b12, b13, b14, b15]].map(Ipv4Addr::from);
        // a layout that is not in use mostly reads 0.x: no destination, so it says nothing about the ones that are
        let plausible = layouts.iter().filter(|v4| v4.octets().first() != Some(&0));
        found.extend(plausible);
    }
    if SIX_TO_FOUR.contains(&ip) {
        found.push(Ipv4Addr::new(b2, b3, b4, b5));
    }
    if TEREDO.contains(&ip) {
        found.push(Ipv4Addr::new(b4, b5, b6, b7));
        found.push(Ipv4Addr::new(!b12, !b13, !b14, !b15));
    }
    // RFC 5214 section 6.1: the interface identifier is 0000:5efe or 0200:5efe, then the IPv4 address, under any prefix
    if matches!((b8, b9, b10, b11), (0x00 | 0x02, 0x00, 0x5e, 0xfe)) {
        found.push(tail);
    }
    found
}

/// The block that sets `ip` apart, of all that are not the public internet.
fn special(ip: IpAddr) -> Option<&'static Block> {
    if let Some(block) = SPECIAL.iter().find(|block| block.net.contains(&ip)) {
        return Some(block);
    }
    match ip {
        IpAddr::V6(v6) if !GLOBAL_UNICAST.contains(&v6) && !NAT64.contains(&v6) => Some(&UNALLOCATED),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// IPv4-compatible (RFC 4291 section 2.5.5.1).
const COMPATIBLE: Ipv6Net = v6net([0, 0, 0, 0, 0, 0, 0, 0], 96);
/// IPv4-translated (RFC 2765 section 2.1).
const TRANSLATED: Ipv6Net = v6net([0, 0, 0, 0, 0xffff, 0, 0, 0], 96);
/// The well-known NAT64 prefix (RFC 6052 section 2.1): public, as far as what it embeds is.
const NAT64: Ipv6Net = v6net([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
/// Local-use NAT64 (RFC 8215).
const NAT64_LOCAL: Ipv6Net = v6net([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
/// 6to4 (RFC 3056 section 2).
const SIX_TO_FOUR: Ipv6Net = v6net([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
/// Teredo (RFC 4380 section 4).
const TEREDO: Ipv6Net = v6net([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);
/// All that is allocated for global unicast (RFC 3587 section 3).
const GLOBAL_UNICAST: Ipv6Net = v6net([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
/// What is neither in the table nor global unicast.
const UNALLOCATED: Block = Block { net: IpNet::V6(v6net([0; 8], 0)), class: "unallocated", document: "RFC 3587" };

/// The special-purpose registries (RFC 6890 and successors), and the metadata services outside them.
/// The few entries of theirs that are globally reachable inside a block that is not (anycast in 192.0.0.0/24 and 2001::/23) stay refused.
const SPECIAL: &[Block] = &[
    v4([0, 0, 0, 0], 8, "this network", "RFC 791"),
    v4([10, 0, 0, 0], 8, "private", "RFC 1918"),
    v4([100, 64, 0, 0], 10, "shared address space", "RFC 6598"),
    v4([127, 0, 0, 0], 8, "loopback", "RFC 1122"),
    v4([168, 63, 129, 16], 32, "metadata", "Azure: What is IP address 168.63.129.16"),
    v4([169, 254, 0, 0], 16, "link-local and metadata", "RFC 3927"),
    v4([172, 16, 0, 0], 12, "private", "RFC 1918"),
    v4([192, 0, 0, 0], 24, "IETF protocol assignments", "RFC 6890"),
    v4([192, 0, 2, 0], 24, "documentation", "RFC 5737"),
    v4([192, 88, 99, 0], 24, "6to4 relay anycast", "RFC 7526"),
    v4([192, 168, 0, 0], 16, "private", "RFC 1918"),
    v4([198, 18, 0, 0], 15, "benchmarking", "RFC 2544"),
    v4([198, 51, 100, 0], 24, "documentation", "RFC 5737"),
    v4([203, 0, 113, 0], 24, "documentation", "RFC 5737"),
    v4([224, 0, 0, 0], 4, "multicast", "RFC 5771"),
    v4([240, 0, 0, 0], 4, "reserved and limited broadcast", "RFC 1112, RFC 8190"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified", "RFC 4291"),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback", "RFC 4291"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96, "IPv4-compatible", "RFC 4291"),
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "IPv4-mapped", "RFC 4291"),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "IPv4-translated", "RFC 2765"),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "local-use NAT64", "RFC 8215"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discard-only", "RFC 6666"),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "dummy prefix", "RFC 9780"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "Teredo", "RFC 4380"),
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "benchmarking", "RFC 5180"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "IETF protocol assignments", "RFC 2928"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation", "RFC 3849"),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "6to4", "RFC 3056"),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation", "RFC 9637"),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "segment routing SIDs", "RFC 9602"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "unique local and metadata", "RFC 4193"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local", "RFC 4291"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site-local", "RFC 3879"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast", "RFC 4291"),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8, class: &'static str, document: &'static str) -> Block {
    Block { net: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)), class, document }
}

const fn v6(segments: [u16; 8], prefix: u8, class: &'static str, document: &'static str) -> Block {
    Block { net: IpNet::V6(v6net(segments, prefix)), class, document }
}

const fn v6net([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(ip: &str, allowed: &[&str]) -> Option<&'static str> {
        let allowed: Vec<IpNet> = allowed.iter().map(|n| n.parse().unwrap()).collect();
        refused(ip.parse().unwrap(), &allowed).map(|b| b.class)
    }

    #[test]
    fn every_block_is_refused_from_first_to_last_address_and_allowed_when_listed() {
        let mut judged = 0;
        for block in SPECIAL {
            if block.class == "IPv4-mapped" {
                continue; // folded before it is looked up; the table test of embeddings has it
            }
            for ip in [block.net.network(), block.net.broadcast()] {
                assert!(refused(ip, &[]).is_some(), "{ip} of {block:?}");
                let all: [IpNet; 2] = ["0.0.0.0/0".parse().unwrap(), block.net];
                assert_eq!(refused(ip, &all), None, "{ip} of {block:?}");
                judged += 1;
            }
            assert!(!block.document.is_empty() && block.net.trunc() == block.net);
        }
        assert_eq!(judged, 2 * (SPECIAL.len() - 1));
    }

    #[test]
    fn the_neighbours_of_the_blocks_are_public() {
        let public = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2003::1",
            "2606:4700:4700::1111",
            "3ffe::1",
            "3fff:1000::1",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
        ];
        for ip in public {
            assert_eq!(class(ip, &[]), None, "{ip}");
        }
        for ip in ["4000::1", "1fff::1", "64:ff9c::1", "64:ff9b::1:0:0", "fe00::1"] {
            assert_eq!(class(ip, &[]), Some("unallocated"), "{ip}");
        }
    }

    #[test]
    fn every_embedding_of_a_refused_address_is_refused() {
        let mut judged = 0;
        for inner in ["169.254.169.254", "169.254.170.2", "127.0.0.1", "10.0.0.1", "0.0.0.0", "168.63.129.16", "255.255.255.255"] {
            let v4: Ipv4Addr = inner.parse().unwrap();
            let [a, b, c, d] = v4.octets();
            let embeddings = [
                format!("::ffff:{inner}"),
                format!("::{inner}"),
                format!("::ffff:0:{inner}"),
                format!("64:ff9b::{inner}"),
                format!("64:ff9b:1::{inner}"),
                format!("64:ff9b:1:{a:02x}{b:02x}:00{c:02x}:{d:02x}00::"),
                format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"),
                format!("2001:0:{a:02x}{b:02x}:{c:02x}{d:02x}::f7f7:f7f7"),
                format!("2001:0:808:808::{:02x}{:02x}:{:02x}{:02x}", !a, !b, !c, !d),
                format!("2606:4700::5efe:{inner}"),
                format!("2606:4700::200:5efe:{inner}"),
            ];
            for text in embeddings {
                assert!(class(&text, &[]).is_some(), "{text} hides {inner}");
                judged += 1;
            }
        }
        assert_eq!(judged, 77);
    }

    #[test]
    fn allowing_the_envelope_does_not_allow_what_it_carries() {
        let carried = [
            ("64:ff9b:1::10.0.0.1", "64:ff9b:1::/48"),
            ("64:ff9b:1:0a00:0000:0100::", "64:ff9b:1::/48"),
            ("2002:a00:1::1", "2002::/16"),
            ("2001:0:a00:1::f7f7:f7f7", "2001::/32"),
            ("::10.0.0.1", "::/96"),
        ];
        for (ip, envelope) in carried {
            assert_eq!(class(ip, &[envelope]), Some("private"), "{ip}");
            assert_eq!(class(ip, &[envelope, "10.0.0.0/8"]), None, "{ip}");
            assert!(class(ip, &["10.0.0.0/8"]).is_some(), "{ip}");
        }
        assert_eq!(class("::ffff:10.0.0.1", &["10.0.0.0/8"]), None);
        assert_eq!(class("::ffff:10.0.0.1", &["10.0.0.1/32"]), None);
        assert_eq!(class("::ffff:10.0.0.2", &["10.0.0.1/32"]), Some("private"));
    }
}

//! Packets: the SYNs and RSTs that a sweep sends, and what it understands of what comes back. Every length is that of the
//! buffer, never that of a field in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A FIN, SYN, RST, ACK flag (RFC 9293 section 3.1).
pub const SYN: u8 = 0x02;
/// The connection is over.
pub const RST: u8 = 0x04;
/// The acknowledgement counts.
pub const ACK: u8 = 0x10;

const TCP: u8 = 6;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
/// The options of a SYN as Linux sends it: a filter that lets only real systems in must not be taken for a closed port.
/// Segment size, selective acknowledgement, timestamps, window scale (RFC 9293, RFC 2018, RFC 7323).
const OPTIONS: usize = 20;
/// The longest packet that is sent.
pub(super) const LONGEST: usize = IPV6_HEADER + TCP_HEADER + OPTIONS;

/// A packet to be sent, IP header included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Packet {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The first packet of a connection.
pub(super) fn syn(from: SocketAddr, to: SocketAddr, sequence: u32, stamp: u32) -> Packet {
    let mss: u16 = if to.is_ipv4() { 1460 } else { 1440 };
    let [m1, m2] = mss.to_be_bytes();
    let [s1, s2, s3, s4] = stamp.to_be_bytes();
    let options = [2, 4, m1, m2, 4, 2, 8, 10, s1, s2, s3, s4, 0, 0, 0, 0, 1, 3, 3, 7];
    tcp(from, to, sequence, SYN, &options)
}

/// The end of a connection that the other side thinks has begun: it saves it from waiting for us.
pub(super) fn reset(from: SocketAddr, to: SocketAddr, sequence: u32) -> Packet {
    tcp(from, to, sequence, RST, &[])
}

fn tcp(from: SocketAddr, to: SocketAddr, sequence: u32, flags: u8, options: &[u8]) -> Packet {
    let length = TCP_HEADER + options.len();
    let window: u16 = if flags == SYN { 64_240 } else { 0 };
    let mut segment = Vec::with_capacity(TCP_HEADER + OPTIONS);
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend([u8::try_from(length / 4).unwrap_or(0) << 4, flags]);
    segment.extend(window.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);

    let mut header = Vec::with_capacity(IPV6_HEADER);
    let mut sum = Sum(u64::from(TCP) + length as u64);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // Type of service 0, the kernel fills in the checksum (raw(7)); no identity, since it may not be cut to pieces.
            header.extend([0x45, 0]);
            header.extend(u16::try_from(IPV4_HEADER + length).unwrap_or(0).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, TCP, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            sum.add(&from.octets());
            sum.add(&to.octets());
        }
        (from, to) => {
            let (from, to) = (mapped(from).octets(), mapped(to).octets());
            header.extend([0x60, 0, 0, 0]);
            header.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
            header.extend([TCP, 64]);
            header.extend(from);
            header.extend(to);
            sum.add(&from);
            sum.add(&to);
        }
    }
    sum.add(&segment);
    let checksum = sum.fold().to_be_bytes();
    let mut packet = Packet { bytes: [0; LONGEST], length: header.len() + segment.len() };
    for (to, from) in packet.bytes.iter_mut().zip(header.iter().chain(&segment)) {
        *to = *from;
    }
    for (to, from) in packet.bytes.iter_mut().skip(header.len() + 16).zip(checksum) {
        *to = from;
    }
    packet
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The internet checksum (RFC 1071).
struct Sum(u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            let word = match pair {
                [high, low] => u16::from_be_bytes([*high, *low]),
                [high] => u16::from_be_bytes([*high, 0]),
                _ => 0,
            };
            self.0 += u64::from(word);
        }
    }

    fn fold(&self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

/// A TCP segment that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Who sent it.
    pub from: SocketAddr,
    /// Our port.
    pub port: u16,
    /// What it acknowledges.
    pub acknowledged: u32,
    /// Its flags.
    pub flags: u8,
}

/// An ICMP error about a TCP segment that went out (RFC 792, RFC 4443 section 3): at least the first eight bytes of
/// that segment are in it, and with them its ports and sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// Who sent it.
    pub sender: IpAddr,
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Where our segment was to go.
    pub to: SocketAddr,
    /// Our port.
    pub port: u16,
    /// Our segment's sequence number.
    pub sequence: u32,
}

fn two(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn four(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn address4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    four(bytes, at).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
}

fn address6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.get(at..at.checked_add(16)?)?.try_into().ok()?;
    Some(IpAddr::V6(octets.into()))
}

/// The header of an IPv4 packet, whose payload is this protocol, and what is behind it.
fn behind_ipv4(bytes: &[u8], protocol: u8) -> Option<&[u8]> {
    let first = *bytes.first()?;
    let length = usize::from(first & 0xf) * 4;
    let later_piece = two(bytes, 6)? & 0x1fff != 0;
    let sound = first >> 4 == 4 && length >= IPV4_HEADER && *bytes.get(9)? == protocol && !later_piece;
    if sound { bytes.get(length..) } else { None }
}

/// An IPv4 packet with a TCP segment, as a raw socket gives it (raw(7)).
pub fn parse_tcp4(bytes: &[u8]) -> Option<Reply> {
    let segment = behind_ipv4(bytes, TCP)?;
    parse_segment(address4(bytes, 12)?, segment)
}

/// A TCP segment from `sender`, as a raw IPv6 socket gives it.
pub fn parse_tcp6(sender: IpAddr, bytes: &[u8]) -> Option<Reply> {
    parse_segment(sender, bytes)
}

fn parse_segment(sender: IpAddr, segment: &[u8]) -> Option<Reply> {
    let length = usize::from(segment.get(12)? >> 4) * 4;
    if length < TCP_HEADER || segment.len() < TCP_HEADER {
        return None;
    }
    Some(Reply {
        from: SocketAddr::new(sender, two(segment, 0)?),
        port: two(segment, 2)?,
        acknowledged: four(segment, 8)?,
        flags: *segment.get(13)?,
    })
}

/// An IPv4 packet with an ICMP error about one of TCP.
pub fn parse_icmp4(bytes: &[u8]) -> Option<Notice> {
    const UNREACHABLE: u8 = 3;
    const TIME_EXCEEDED: u8 = 11;
    const BAD_HEADER: u8 = 12;
    const TOO_BIG: u8 = 4;
    let message = behind_ipv4(bytes, 1)?;
    let (kind, code) = (*message.first()?, *message.get(1)?);
    let about_size = (kind, code) == (UNREACHABLE, TOO_BIG);
    if !matches!(kind, UNREACHABLE | TIME_EXCEEDED | BAD_HEADER) || about_size {
        return None;
    }
    let quoted = message.get(8..)?;
    let segment = behind_ipv4(quoted, TCP)?;
    notice(address4(bytes, 12)?, (kind, code), address4(quoted, 16)?, segment)
}

/// An ICMPv6 error about a TCP segment from `sender`, as a raw IPv6 socket gives it.
pub fn parse_icmp6(sender: IpAddr, message: &[u8]) -> Option<Notice> {
    const UNREACHABLE: u8 = 1;
    const TIME_EXCEEDED: u8 = 3;
    const BAD_HEADER: u8 = 4;
    let (kind, code) = (*message.first()?, *message.get(1)?);
    if !matches!(kind, UNREACHABLE | TIME_EXCEEDED | BAD_HEADER) {
        return None;
    }
    let quoted = message.get(8..)?;
    if quoted.first()? >> 4 != 6 || *quoted.get(6)? != TCP {
        return None;
    }
    notice(sender, (kind, code), address6(quoted, 24)?, quoted.get(IPV6_HEADER..)?)
}

fn notice(sender: IpAddr, (kind, code): (u8, u8), to: IpAddr, segment: &[u8]) -> Option<Notice> {
    Some(Notice { sender, kind, code, to: SocketAddr::new(to, two(segment, 2)?), port: two(segment, 0)?, sequence: four(segment, 4)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(v6: bool) -> (SocketAddr, SocketAddr) {
        let of = |text: &str| text.parse().unwrap();
        if v6 { (of("[2001:db8::1]:40000"), of("[2001:db8::2]:443")) } else { (of("192.0.2.1:40000"), of("192.0.2.2:443")) }
    }

    /// The sum over the pseudo-header and the segment, checksum included, is all ones (RFC 9293 section 3.1).
    fn is_summed(packet: &[u8], v6: bool) -> bool {
        let (header, addresses) = if v6 { (IPV6_HEADER, 8..40) } else { (IPV4_HEADER, 12..20) };
        let segment = &packet[header..];
        let mut sum = Sum(u64::from(TCP) + segment.len() as u64);
        sum.add(&packet[addresses]);
        sum.add(segment);
        sum.fold() == 0
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        for v6 in [false, true] {
            let (from, to) = pair(v6);
            for (packet, flags) in [(syn(from, to, 0xdead_beef, 7), SYN), (reset(from, to, 0xdead_beef), RST)] {
                let bytes = packet.bytes();
                assert!(is_summed(bytes, v6));
                let reply = if v6 { parse_tcp6(from.ip(), &bytes[IPV6_HEADER..]) } else { parse_tcp4(bytes) };
                assert_eq!(reply, Some(Reply { from, port: 443, acknowledged: 0, flags }));
                let total = if v6 { two(bytes, 4).unwrap() as usize + IPV6_HEADER } else { two(bytes, 2).unwrap() as usize };
                assert_eq!(total, bytes.len());
            }
        }
    }

    /// An error as a router makes it: it quotes the IP header and eight bytes more.
    fn error(kind: u8, code: u8, v6: bool, kept: usize) -> Vec<u8> {
        let (from, to) = pair(v6);
        let quoted = syn(from, to, 0xdead_beef, 7);
        let quoted = &quoted.bytes()[..kept];
        let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
        message.extend(quoted);
        if v6 {
            return message;
        }
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 198, 51, 100, 1, 192, 0, 2, 1];
        packet.extend(message);
        packet
    }

    #[test]
    fn an_error_names_the_segment_that_it_is_about() {
        let router: IpAddr = "198.51.100.1".parse().unwrap();
        let told = |v6: bool, kind: u8, code: u8, kept: usize| {
            let bytes = error(kind, code, v6, kept);
            if v6 { parse_icmp6(router, &bytes) } else { parse_icmp4(&bytes) }
        };
        for (v6, kind, code, kept) in [(false, 3, 13, 28), (false, 11, 0, 28), (true, 1, 4, 48), (true, 3, 0, 48)] {
            let (from, to) = pair(v6);
            let expected = Notice { sender: router, kind, code, to, port: from.port(), sequence: 0xdead_beef };
            assert_eq!(told(v6, kind, code, kept), Some(expected), "{kind}/{code}");
            assert_eq!(told(v6, kind, code, kept - 1), None, "one byte too few");
        }
        for (v6, kind, code) in [(false, 3, 4), (false, 0, 0), (false, 8, 0), (true, 2, 0), (true, 128, 0)] {
            assert_eq!(told(v6, kind, code, 60), None, "{kind}/{code} is no error that ends anything");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_bytes_from_outside_do_any_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let sender = IpAddr::V6(Ipv6Addr::LOCALHOST);
            let _ = (parse_tcp4(&bytes), parse_tcp6(sender, &bytes), parse_icmp4(&bytes), parse_icmp6(sender, &bytes));
        }

        #[test]
        fn a_broken_packet_is_nobodys(at in 0..60_usize, bit in 0..8_u8, cut in 0..61_usize) {
            let (from, to) = pair(false);
            let packet = syn(from, to, 1, 2);
            let mut bytes = packet.bytes().to_vec();
            bytes[at] ^= 1 << bit;
            bytes.truncate(cut);
            if let Some(reply) = parse_tcp4(&bytes) {
                prop_assert!(bytes.len() >= IPV4_HEADER + TCP_HEADER);
                prop_assert!(reply.from.is_ipv4());
            }
        }
    }
}

//! ICMP echo (RFC 792, RFC 4443 section 4): the socket that this process may have, and the packets.
//!
//! A ping socket (icmp(7), `ping_group_range`) needs no privilege: the kernel writes the identifier and hears for us.
//! A raw socket (CAP_NET_RAW) hears every echo and every error on its way, other programs' and on loopback our own
//! questions, so each question carries a cookie that no one else knows.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::ask::Question;
use super::failure;
use crate::observation::{Evidence, Outcome};

/// Echo request and reply (RFC 792; RFC 4443 sections 4.1, 4.2).
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);
/// Bytes of an echo's header: type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;
/// Bytes of the cookie behind it.
const COOKIE: usize = 16;

/// Echo requests that only their own replies fit.
#[derive(Debug, Clone)]
pub struct Echo {
    ipv6: bool,
    raw: bool,
    /// The identifier, in the order of the wire; a ping socket writes its own.
    id: [u8; 2],
    cookie: [u8; COOKIE],
}

impl Echo {
    /// Questions over IPv4 or IPv6, from a raw socket or a ping socket, with this much randomness.
    pub fn new(ipv6: bool, raw: bool, id: [u8; 2], cookie: [u8; COOKIE]) -> Echo {
        Echo { ipv6, raw, id, cookie }
    }

    fn types(&self) -> (u8, u8) {
        if self.ipv6 { V6 } else { V4 }
    }

    /// The ICMP message in what a socket gave: a raw IPv4 socket gives the IP header, too (raw(7)).
    fn message<'a>(&self, heard: &'a [u8]) -> Option<&'a [u8]> {
        if self.ipv6 || !self.raw {
            return Some(heard);
        }
        let first = *heard.first()?;
        let header = usize::from(first & 0x0f) * 4;
        let sound = first >> 4 == 4 && header >= 20 && heard.get(9) == Some(&1);
        heard.get(header..).filter(|_| sound)
    }
}

impl Question for Echo {
    fn datagram(&mut self, nth: u16) -> Vec<u8> {
        let mut packet = vec![self.types().0, 0, 0, 0];
        packet.extend(self.id);
        packet.extend(nth.to_be_bytes());
        packet.extend(self.cookie);
        // The kernel writes ICMPv6's checksum (RFC 3542 section 3.1) and a ping socket's; a raw IPv4 socket's is ours.
        if !self.ipv6 {
            let sum = checksum(&packet).to_be_bytes();
            packet.splice(2..4, sum);
        }
        packet
    }

    fn answer<'a>(&self, heard: &'a [u8]) -> Option<&'a [u8]> {
        let message = self.message(heard)?;
        let (header, data) = message.split_at_checked(HEADER)?;
        let [kind, code, _, _, id @ .., _, _] = header else { return None };
        let ours = !self.raw || id == self.id;
        (*kind == self.types().1 && *code == 0 && ours && data == self.cookie).then_some(message)
    }

    fn is_quoted(&self, quoted: &[u8]) -> bool {
        // A ping socket's errors are its own. RFC 792 and RFC 4443 quote at least the header of an echo.
        let [kind, code, _, _, id @ .., _, _] = quoted.get(..HEADER).unwrap_or_default() else { return !self.raw };
        !self.raw || (*kind == self.types().0 && *code == 0 && id == self.id)
    }
}

/// The Internet checksum (RFC 1071), over a message whose own checksum is zero.
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(u16::from_be_bytes([high, 0])),
        _ => 0,
    });
    let mut sum = words.fold(0_u32, u32::wrapping_add);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// A socket for echoes, and whether it is raw: a ping socket where this process may have one, else a raw one.
///
/// # Errors
/// The outcome, with the evidence of what to grant.
pub fn open(to: SocketAddr, evidence: &mut Evidence) -> Result<(Socket, bool), Outcome> {
    let (domain, protocol) = if to.is_ipv6() { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
    let ping = Socket::new(domain, Type::DGRAM, Some(protocol)).map(|socket| (socket, false));
    let either = ping.or_else(|_| Socket::new(domain, Type::RAW, Some(protocol)).map(|socket| (socket, true)));
    either.map_err(|error| {
        evidence.errno = Some(failure::name(&error));
        evidence.detail = Some(if error.kind() == ErrorKind::PermissionDenied { ungranted() } else { failed(&error) });
        Outcome::LocalError
    })
}

fn failed(error: &io::Error) -> String {
    format!("a socket for ICMP echoes: {error}; see `ulimit -n`, and whether this host has that address family")
}

/// What to grant, as a line to be typed.
fn ungranted() -> String {
    let program = std::env::current_exe().map_or("mustnot".into(), |path| path.display().to_string());
    format!(
        "this process may not send ICMP echoes; run `sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"`, or `setcap cap_net_raw+ep {program}`"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: [u8; 2] = [0xab, 0xcd];
    const OURS: [u8; COOKIE] = *b"0123456789abcdef";

    fn echo(ipv6: bool, raw: bool) -> Echo {
        Echo::new(ipv6, raw, ID, OURS)
    }

    /// The reply to our question, with an IP header of so many words in front where a raw IPv4 socket would give it.
    fn reply(to: &mut Echo, nth: u16, words: u8) -> Vec<u8> {
        let mut packet = to.datagram(nth);
        packet[0] = to.types().1;
        if to.raw && !to.ipv6 {
            let mut whole = vec![0; usize::from(words) * 4];
            (whole[0], whole[9]) = (0x40 | words, 1);
            whole.extend(&packet);
            return whole;
        }
        packet
    }

    #[test]
    fn a_request_is_laid_out_as_rfc_792_and_4443_say() {
        let packet = echo(false, true).datagram(2);
        assert_eq!((packet[0], packet[1], &packet[4..6], &packet[6..8], &packet[8..]), (8, 0, &ID[..], &[0, 2][..], &OURS[..]));
        assert_eq!(checksum(&packet), 0, "with its checksum in it, it sums to nothing (RFC 1071)");
        let packet = echo(true, true).datagram(0);
        assert_eq!((packet[0], packet[1], &packet[2..4], &packet[4..6]), (128, 0, &[0, 0][..], &ID[..]));
    }

    #[test]
    fn the_checksum_of_rfc_1071s_example() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }

    #[test]
    fn only_the_reply_to_our_own_question_is_an_answer() {
        for (ipv6, raw) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut ours = echo(ipv6, raw);
            for words in [5, 15] {
                assert!(ours.answer(&reply(&mut ours.clone(), 1, words)).is_some_and(|m| m.len() == HEADER + COOKIE), "{ipv6} {raw}");
            }
            let mut request = reply(&mut ours.clone(), 1, 5);
            let at = request.len() - HEADER - COOKIE;
            request[at] = ours.types().0;
            assert_eq!(ours.answer(&request), None, "our own question, as loopback shows it");
            let mut error = reply(&mut ours.clone(), 1, 5);
            error[at + 1] = 1;
            assert_eq!(ours.answer(&error), None, "a code that no reply has");
            let others = Echo { cookie: [7; COOKIE], ..ours.clone() };
            assert_eq!(ours.answer(&reply(&mut others.clone(), 1, 5)), None, "another program's cookie");
            let other_id = Echo { id: [1, 2], ..ours.clone() };
            assert_eq!(ours.answer(&reply(&mut other_id.clone(), 1, 5)).is_some(), !raw, "a ping socket's id is the kernel's");
            let whole = reply(&mut ours, 1, 5);
            for cut in 0..whole.len() {
                assert_eq!(ours.answer(&whole[..cut]), None, "cut at {cut}");
            }
            let mut longer = whole.clone();
            longer.push(0);
            assert_eq!(ours.answer(&longer), None);
        }
    }

    #[test]
    fn an_error_is_ours_where_it_quotes_our_question() {
        for ipv6 in [false, true] {
            let mut raw = echo(ipv6, true);
            let question = raw.datagram(0);
            assert!(raw.is_quoted(&question) && raw.is_quoted(&question[..HEADER]));
            assert!(!raw.is_quoted(&question[..HEADER - 1]), "nothing shows whose it is");
            assert!(!raw.is_quoted(&Echo { id: [1, 2], ..raw.clone() }.datagram(0)));
            let mut reply = question;
            reply[0] = raw.types().1;
            assert!(!raw.is_quoted(&reply), "an error about a reply is not about us");
            assert!(echo(ipv6, false).is_quoted(&[]), "a ping socket hears of nobody else");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic_and_none_but_the_cookie_answer(bytes in prop::collection::vec(any::<u8>(), 0..120), ipv6: bool, raw: bool) {
            let ours = echo(ipv6, raw);
            prop_assert_eq!(ours.answer(&bytes), None);
            let _ = ours.is_quoted(&bytes);
        }

        #[test]
        fn no_byte_of_a_reply_but_checksum_and_sequence_may_differ(at in 0usize..24, to: u8, ipv6: bool) {
            let mut ours = echo(ipv6, false);
            let mut heard = reply(&mut ours, 1, 5);
            let same = heard[at] == to || (2..8).contains(&at);
            heard[at] = to;
            prop_assert_eq!(ours.answer(&heard).is_some(), same);
        }
    }
}

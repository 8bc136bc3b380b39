//! Payloads: for each protocol the smallest question that a live service answers, written from its RFC.
//!
//! None of them amplifies on purpose: no list, dump or walk is asked for, only a version, a status or an error. Left out for
//! that are NetBIOS (its one question that all answer gives back four times as much) and RIP (a routing table); and TFTP,
//! since its answer comes from another port, where a connected socket does not hear it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};

use crate::token::hex;

/// The most bytes that `hex:` may name: what fits into one packet on any link of IPv6 (RFC 8200 section 5, less its headers).
const MAX_HEX: usize = 1232;
/// The least that a QUIC server answers (RFC 9000 section 14.1).
const QUIC_SIZE: usize = 1200;
/// The port on which IKE shares with ESP, and wants a marker in front (RFC 3948 section 2.2).
const IKE_NAT: u16 = 4500;

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// DNS: the address of `localhost`, which servers answer themselves (RFC 6761 section 6.3).
    Dns,
    /// NTP: a client's question for the time (RFC 5905 section 7.3).
    Ntp,
    /// SNMPv3: discovery of the engine, which takes no community and no user (RFC 3414 section 4).
    Snmp,
    /// STUN: a binding request (RFC 8489 section 5).
    Stun,
    /// QUIC: a version that does not exist, answered by the list of those that do (RFC 9000 sections 6, 15).
    Quic,
    /// memcached: its version (protocol.txt, "UDP protocol").
    Memcached,
    /// SSDP: a unicast search for root devices (UPnP Device Architecture 1.1, section 1.3.2).
    Ssdp,
    /// IKEv2: the first message of an exchange (RFC 7296 section 1.2).
    Ike,
    /// CoAP: a ping (RFC 7252 section 4.3).
    Coap,
    /// SIP: OPTIONS (RFC 3261 section 11).
    Sip,
    /// ONC RPC: the null procedure of the port mapper (RFC 1833 section 3, RFC 5531).
    Rpcbind,
    /// DTLS 1.2: a first flight, answered by a cookie (RFC 6347 section 4.2.1).
    Dtls,
    /// ICP: whether an object is cached (RFC 2186).
    Icp,
    /// HTCP: the same (RFC 2756).
    Htcp,
    /// These bytes.
    Hex(Vec<u8>),
}

/// Every payload that has a name, with it and the ports on which it is the default.
const NAMED: &[(Payload, &str, &[u16])] = &[
    (Payload::Dns, "dns", &[53]),
    (Payload::Ntp, "ntp", &[123]),
    (Payload::Snmp, "snmp", &[161, 3401]),
    (Payload::Stun, "stun", &[3478]),
    (Payload::Quic, "quic", &[443]),
    (Payload::Memcached, "memcached", &[11211]),
    (Payload::Ssdp, "ssdp", &[1900]),
    (Payload::Ike, "ike", &[500, IKE_NAT]),
    (Payload::Coap, "coap", &[5683]),
    (Payload::Sip, "sip", &[5060]),
    (Payload::Rpcbind, "rpcbind", &[111]),
    (Payload::Dtls, "dtls", &[853, 5349, 5684]),
    (Payload::Icp, "icp", &[3130]),
    (Payload::Htcp, "htcp", &[4827]),
];

impl Payload {
    /// The one that is meant on a well-known port.
    pub fn of_port(port: u16) -> Option<Payload> {
        NAMED.iter().find(|(_, _, ports)| ports.contains(&port)).map(|(payload, _, _)| payload.clone())
    }

    /// Every name.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone {
        NAMED.iter().map(|(_, name, _)| *name)
    }

    /// One datagram, with fresh numbers where the protocol has them.
    pub fn datagram(&self, to: SocketAddr) -> Vec<u8> {
        match self {
            Payload::Dns => dns(),
            Payload::Ntp => ntp(),
            Payload::Snmp => snmp(),
            Payload::Stun => [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &random::<12>()].concat(),
            Payload::Quic => quic(),
            Payload::Memcached => [&random::<2>()[..], &[0, 0, 0, 1, 0, 0], b"version\r\n"].concat(),
            Payload::Ssdp => format!(
                "M-SEARCH * HTTP/1.1\r\nHOST: {to}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: upnp:rootdevice\r\nUSER-AGENT: {}\r\n\r\n",
                crate::probe::USER_AGENT
            )
            .into_bytes(),
            Payload::Ike => ike(to.port()),
            Payload::Coap => [&[0x40, 0][..], &random::<2>()].concat(),
            Payload::Sip => sip(to),
            Payload::Rpcbind => rpcbind(),
            Payload::Dtls => dtls(),
            Payload::Icp => icp(),
            Payload::Htcp => htcp(),
            Payload::Hex(bytes) => bytes.clone(),
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Hex(bytes) => write!(f, "hex:{}", hex(bytes)),
            named => f.write_str(NAMED.iter().find(|(payload, _, _)| payload == named).map_or("payload", |(_, name, _)| name)),
        }
    }
}

impl FromStr for Payload {
    /// What is wrong, and what to write.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(digits) = text.strip_prefix("hex:") else {
            let named = NAMED.iter().find(|(_, name, _)| *name == text);
            let names: Vec<&str> = Payload::names().collect();
            return named.map(|(payload, _, _)| payload.clone()).ok_or_else(|| {
                let why = match text {
                    "tftp" => "tftp answers from another port, which a connected socket does not hear".into(),
                    "netbios" => "netbios gives back four times what it is asked".into(),
                    _ => format!("\"{text}\" is no payload"),
                };
                format!("{why}; write one of {}, or \"hex:00ff\"", names.join(", "))
            });
        };
        let wrong = |what: &str| Err(format!("{what}; write pairs of hexadecimal digits, such as \"hex:00ff\", at most {MAX_HEX} of them"));
        let mut bytes = Vec::new();
        for pair in digits.as_bytes().chunks(2) {
            match pair {
                &[high, low] => match (char::from(high).to_digit(16), char::from(low).to_digit(16)) {
                    (Some(high), Some(low)) => bytes.extend(u8::try_from(high * 16 + low)),
                    _ => return wrong(&format!("{:?} is not hexadecimal", String::from_utf8_lossy(pair))),
                },
                _ => return wrong("the last digit stands alone"),
            }
        }
        match bytes.len() {
            0 => wrong("there is nothing to send"),
            1..=MAX_HEX => Ok(Payload::Hex(bytes)),
            more => wrong(&format!("{more} bytes do not fit into one packet on every link")),
        }
    }
}

/// Random bytes; where the system has none, zeros will do: they make a datagram no less of a question.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}

/// A number of 31 bits whose BER form always has four bytes.
fn number() -> [u8; 4] {
    let [a, b, c, d] = random::<4>();
    [(a & 0x3f) | 0x40, b, c, d]
}

fn dns() -> Vec<u8> {
    // RFC 1035 section 4.1: one question, recursion desired; localhost, type A, class IN.
    [&random::<2>()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], b"\x09localhost\x00", &[0, 1, 0, 1]].concat()
}

fn ntp() -> Vec<u8> {
    // Version 4, mode 3 (client). A server needs nothing else but the transmit timestamp, which it gives back (RFC 5905
    // section 8), so that is random.
    let mut packet = vec![0; 40];
    packet.splice(..1, [0x23]);
    packet.extend(random::<8>());
    packet
}

/// One BER element with a short length (ITU-T X.690 section 8.1.3.4).
fn ber(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut element = vec![tag, u8::try_from(content.len()).unwrap_or(0x7f)];
    element.extend(content);
    element
}

fn snmp() -> Vec<u8> {
    const INTEGER: u8 = 2;
    const OCTETS: u8 = 4;
    const SEQUENCE: u8 = 0x30;
    const GET: u8 = 0xa0;
    let zero = ber(INTEGER, &[0]);
    let empty = ber(OCTETS, &[]);
    // RFC 3412 section 6: message id, the largest answer, flags (reportable, no authentication, no privacy), model (USM).
    let header = [ber(INTEGER, &number()), ber(INTEGER, &[0, 0xff, 0xe3]), ber(OCTETS, &[4]), ber(INTEGER, &[3])].concat();
    // RFC 3414 section 2.4: engine, its boots and time, user, authentication, privacy: all unknown.
    let security = [empty.clone(), zero.clone(), zero.clone(), empty.clone(), empty.clone(), empty.clone()].concat();
    let get = [ber(INTEGER, &number()), zero.clone(), zero, ber(SEQUENCE, &[])].concat();
    let scoped = [empty.clone(), empty, ber(GET, &get)].concat();
    let message = [ber(INTEGER, &[3]), ber(SEQUENCE, &header), ber(OCTETS, &ber(SEQUENCE, &security)), ber(SEQUENCE, &scoped)].concat();
    ber(SEQUENCE, &message)
}

fn quic() -> Vec<u8> {
    // RFC 9000 section 17.2: a long header with the fixed bit; section 15: versions of the form 0x?a?a?a?a are reserved.
    let version = random::<4>().map(|b| (b & 0xf0) | 0x0a);
    let mut packet = [&[0xc0][..], &version, &[8], &random::<8>(), &[8], &random::<8>()].concat();
    packet.resize(QUIC_SIZE, 0);
    packet
}

fn ike(port: u16) -> Vec<u8> {
    // RFC 7296 section 3.3: each transform is type and id; the key length is an attribute.
    let transform = |last: bool, kind: u8, id: u8, attribute: &[u8]| {
        let length = u8::try_from(8 + attribute.len()).unwrap_or(8);
        [&[if last { 0 } else { 3 }, 0, 0, length, kind, 0, 0, id][..], attribute].concat()
    };
    // AES-CBC with 256 bits, PRF-HMAC-SHA2-256, HMAC-SHA2-256-128, 2048-bit MODP.
    let transforms = [
        transform(false, 1, 12, &[0x80, 14, 1, 0]),
        transform(false, 2, 5, &[]),
        transform(false, 3, 12, &[]),
        transform(true, 4, 14, &[]),
    ]
    .concat();
    let proposal = [&[0, 0][..], &length_of(8, &transforms), &[1, 1, 0, 4], &transforms].concat();
    let payload = |next: u8, body: &[u8]| [&[next, 0][..], &length_of(4, body), body].concat();
    // A public value of group 14: 256 bytes, below the modulus, whose first bits are all ones.
    let mut key = random::<256>();
    key[0] &= 0x7f;
    let body = [payload(34, &proposal), payload(40, &[&[0, 14, 0, 0][..], &key].concat()), payload(0, &random::<32>())].concat();
    // RFC 7296 section 3.1: our SPI, none of theirs, first payload SA, version 2.0, IKE_SA_INIT, from the initiator.
    let length = u32::try_from(28 + body.len()).unwrap_or(0).to_be_bytes();
    let message = [&random::<8>()[..], &[0; 8], &[33, 0x20, 34, 0x08, 0, 0, 0, 0], &length, &body].concat();
    let marker: &[u8] = if port == IKE_NAT { &[0; 4] } else { &[] };
    [marker, &message].concat()
}

/// The length of something with a header of `header` bytes in front, as two bytes.
fn length_of(header: usize, body: &[u8]) -> [u8; 2] {
    u16::try_from(header + body.len()).unwrap_or(u16::MAX).to_be_bytes()
}

fn sip(to: SocketAddr) -> Vec<u8> {
    // `rport` (RFC 3581): the answer comes back to where the question came from, whatever Via says.
    let (branch, tag, call) = (hex(&random::<8>()), hex(&random::<4>()), hex(&random::<8>()));
    format!(
        "OPTIONS sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP mustnot.invalid:5060;branch=z9hG4bK{branch};rport\r\nMax-Forwards: 0\r\n\
         From: <sip:monitor@mustnot.invalid>;tag={tag}\r\nTo: <sip:{to}>\r\nCall-ID: {call}@mustnot.invalid\r\nCSeq: 1 OPTIONS\r\n\
         Contact: <sip:monitor@mustnot.invalid>\r\nAccept: application/sdp\r\nUser-Agent: {}\r\nContent-Length: 0\r\n\r\n",
        crate::probe::USER_AGENT
    )
    .into_bytes()
}

fn rpcbind() -> Vec<u8> {
    // RFC 5531 section 9: a call, RPC version 2, program 100000 version 2, procedure 0, no credentials, no verifier.
    let words: [u32; 9] = [0, 2, 100_000, 2, 0, 0, 0, 0, 0];
    [&random::<4>()[..], &words.map(u32::to_be_bytes).concat()].concat()
}

fn dtls() -> Vec<u8> {
    const ONE_ZERO: [u8; 2] = [0xfe, 0xff];
    const ONE_TWO: [u8; 2] = [0xfe, 0xfd];
    // ECDHE with AES-GCM for ECDSA and RSA, and an AES-CCM-8 of CoAP devices (RFC 7252 section 9.1.3).
    let suites = [0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0xae, 0xc0, 0xa8];
    // supported_groups: secp256r1, x25519; ec_point_formats: uncompressed; signature_algorithms: ECDSA and RSA with SHA-256.
    let extensions = [&[0, 10, 0, 6, 0, 4, 0, 23, 0, 29][..], &[0, 11, 0, 2, 1, 0], &[0, 13, 0, 6, 0, 4, 4, 3, 4, 1]].concat();
    let hello = [&ONE_TWO[..], &random::<32>(), &[0, 0], &length_of(0, &suites), &suites, &[1, 0], &length_of(0, &extensions), &extensions]
        .concat();
    // RFC 6347 section 4.2.2: ClientHello, its length, message 0, fragment from 0, of the same length.
    let length = [&[0][..], &length_of(0, &hello)].concat();
    let message = [&[1][..], &length, &[0, 0, 0, 0, 0], &length, &hello].concat();
    // Section 4.1: a handshake record of epoch 0, sequence 0.
    [&[22][..], &ONE_ZERO, &[0; 8], &length_of(0, &message), &message].concat()
}

/// A URL that nobody has.
const NO_URL: &str = "http://mustnot.invalid/";

fn icp() -> Vec<u8> {
    // RFC 2186: ICP_OP_QUERY, version 2, length, number, options, option data, sender; then requester and URL.
    let body = [&[0; 4][..], NO_URL.as_bytes(), &[0]].concat();
    [&[1, 2][..], &length_of(20, &body), &random::<4>(), &[0; 12], &body].concat()
}

fn htcp() -> Vec<u8> {
    let text = |text: &str| [&length_of(0, text.as_bytes())[..], text.as_bytes()].concat();
    // RFC 2756 section 2.6: TST's SPECIFIER is method, URI, version and headers.
    let specifier = [text("GET"), text(NO_URL), text("HTTP/1.1"), text("")].concat();
    // Section 2.4: DATA is its length, opcode (TST, 1) and response, flags (an answer is desired), transaction.
    let data = [&length_of(8, &specifier)[..], &[0x10, 0x02], &random::<4>(), &specifier].concat();
    // Sections 2.3, 2.5: HEADER is the whole length and version 0.1; AUTH is its own length alone.
    [&length_of(6, &data)[..], &[0, 1], &data, &[0, 2]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 7], port))
    }

    fn of(name: &str) -> Vec<u8> {
        let (payload, _, ports) = NAMED.iter().find(|(_, n, _)| *n == name).unwrap();
        payload.datagram(to(ports[0]))
    }

    fn word(bytes: &[u8], at: usize) -> usize {
        usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
    }

    #[test]
    fn every_name_reads_back_and_every_port_means_one() {
        let mut ports: Vec<u16> = Vec::new();
        for (payload, name, its) in NAMED {
            assert_eq!(name.parse(), Ok(payload.clone()));
            assert_eq!(payload.to_string(), *name);
            for port in *its {
                assert_eq!(Payload::of_port(*port), Some(payload.clone()));
                ports.push(*port);
            }
        }
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), count);
        assert_eq!(Payload::of_port(12345), None);
    }

    #[test]
    fn hex_is_bounded_and_shown_as_it_is_compared() {
        assert_eq!("hex:0AfF".parse::<Payload>().unwrap().to_string(), "hex:0aff");
        assert_eq!("hex:0AfF".parse::<Payload>().unwrap().datagram(to(9)), [0x0a, 0xff]);
        assert!(format!("hex:{}", "00".repeat(MAX_HEX)).parse::<Payload>().is_ok());
        for (text, part) in [
            ("hex:", "nothing to send"),
            ("hex:0", "stands alone"),
            ("hex:0g", "is not hexadecimal"),
            ("hex:é", "is not hexadecimal"),
            ("dnss", "is no payload"),
            ("tftp", "from another port"),
            ("netbios", "four times"),
        ] {
            let said = text.parse::<Payload>().unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
        assert!(format!("hex:{}", "00".repeat(MAX_HEX + 1)).parse::<Payload>().is_err());
    }

    #[test]
    fn numbers_are_fresh_and_no_payload_is_larger_than_a_packet() {
        for (payload, name, ports) in NAMED {
            let (one, other) = (payload.datagram(to(ports[0])), payload.datagram(to(ports[0])));
            assert_eq!(one == other, *name == "ssdp", "{name}");
            assert!(one.len() <= MAX_HEX && one.len() == other.len(), "{name}");
        }
    }

    #[test]
    fn dns_is_one_question_for_localhost() {
        let query = of("dns");
        assert_eq!(&query[2..12], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&query[12..], b"\x09localhost\x00\x00\x01\x00\x01");
        use hickory_resolver::proto::op::Message;
        let read = Message::from_vec(&query).unwrap();
        assert_eq!(read.queries.len(), 1);
        assert_eq!(read.queries[0].name().to_string(), "localhost.");
    }

    #[test]
    fn ntp_is_a_client_of_version_4() {
        let packet = of("ntp");
        assert_eq!((packet.len(), packet[0] >> 6, packet[0] >> 3 & 7, packet[0] & 7), (48, 0, 4, 3));
        assert!(packet[1..40].iter().all(|b| *b == 0) && packet[40..] != [0; 8]);
    }

    /// Tag, content and rest of the first BER element.
    fn element(bytes: &[u8]) -> (u8, &[u8], &[u8]) {
        assert!(bytes[1] < 0x80, "a short length");
        let end = 2 + usize::from(bytes[1]);
        (bytes[0], &bytes[2..end], &bytes[end..])
    }

    fn elements(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (tag, content, rest) = element(bytes);
            found.push((tag, content));
            bytes = rest;
        }
        found
    }

    #[test]
    fn snmp_discovers_the_engine_without_a_name() {
        let message = of("snmp");
        let (tag, content, rest) = element(&message);
        assert_eq!((tag, rest.len()), (0x30, 0));
        let parts = elements(content);
        assert_eq!(parts[0], (2, &[3][..]), "version 3");
        let header = elements(parts[1].1);
        assert_eq!(header.iter().map(|h| h.0).collect::<Vec<_>>(), [2, 2, 4, 2]);
        assert_eq!((header[1].1, header[2].1, header[3].1), (&[0, 0xff, 0xe3][..], &[4][..], &[3][..]));
        let (tag, security, rest) = element(parts[2].1);
        assert_eq!((parts[2].0, tag, rest.len()), (4, 0x30, 0));
        assert_eq!(elements(security), [(4, &[][..]), (2, &[0]), (2, &[0]), (4, &[]), (4, &[]), (4, &[])]);
        let scoped = elements(parts[3].1);
        assert_eq!((scoped[0], scoped[1], scoped[2].0), ((4, &[][..]), (4, &[][..]), 0xa0));
        let get = elements(scoped[2].1);
        assert_eq!((get.len(), get[1], get[2], get[3]), (4, (2, &[0][..]), (2, &[0][..]), (0x30, &[][..])));
    }

    #[test]
    fn stun_is_a_binding_request_without_attributes() {
        let request = of("stun");
        assert_eq!((request.len(), word(&request, 0), word(&request, 2)), (20, 1, 0));
        assert_eq!(&request[4..8], &[0x21, 0x12, 0xa4, 0x42]);
    }

    #[test]
    fn quic_has_a_reserved_version_and_the_least_size() {
        let packet = of("quic");
        assert_eq!((packet.len(), packet[0] & 0xc0), (1200, 0xc0));
        assert!(packet[1..5].iter().all(|b| b & 0x0f == 0x0a));
        assert_eq!((packet[5], packet[14]), (8, 8), "the lengths of both connection ids");
    }

    #[test]
    fn memcached_is_framed_as_one_datagram() {
        let packet = of("memcached");
        assert_eq!(&packet[2..], b"\x00\x00\x00\x01\x00\x00version\r\n");
    }

    #[test]
    fn ike_adds_up_at_every_level_and_has_its_marker_on_4500() {
        let message = of("ike");
        assert_eq!((&message[8..16], &message[16..20]), (&[0; 8][..], &[33, 0x20, 34, 0x08][..]));
        assert_eq!(u32::from_be_bytes(message[24..28].try_into().unwrap()) as usize, message.len());
        let (mut at, mut next, mut seen) = (28, message[16], Vec::new());
        while next != 0 {
            let length = word(&message, at + 2);
            seen.push((next, length));
            next = message[at];
            at += length;
        }
        assert_eq!(at, message.len());
        assert_eq!(seen, [(33, 48), (34, 4 + 4 + 256), (40, 4 + 32)]);
        // The proposal: number 1, for IKE, no SPI, four transforms that fill it.
        let proposal = &message[32..28 + 48];
        assert_eq!((word(proposal, 2), &proposal[4..8]), (44, &[1, 1, 0, 4][..]));
        let (mut at, mut kinds) = (8, Vec::new());
        while at < proposal.len() {
            kinds.push((proposal[at], proposal[at + 4], word(proposal, at + 6)));
            at += word(proposal, at + 2);
        }
        assert_eq!((at, kinds.as_slice()), (44, &[(3, 1, 12), (3, 2, 5), (3, 3, 12), (0, 4, 14)][..]));
        let marked = Payload::Ike.datagram(to(4500));
        assert_eq!((&marked[..4], marked.len()), (&[0; 4][..], message.len() + 4));
    }

    #[test]
    fn coap_is_an_empty_confirmable_message() {
        let ping = of("coap");
        assert_eq!((ping.len(), ping[0] >> 6, ping[0] >> 4 & 3, ping[0] & 15, ping[1]), (4, 1, 0, 0, 0));
    }

    #[test]
    fn text_protocols_end_their_heads() {
        for (name, first) in [("sip", "OPTIONS sip:203.0.113.7:5060 SIP/2.0"), ("ssdp", "M-SEARCH * HTTP/1.1")] {
            let text = String::from_utf8(of(name)).unwrap();
            assert_eq!(text.lines().next(), Some(first));
            assert!(text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1);
            assert!(text.trim_end().lines().skip(1).all(|line| line.contains(": ")), "{text}");
        }
        let ssdp = String::from_utf8(of("ssdp")).unwrap();
        assert!(ssdp.contains("MAN: \"ssdp:discover\"\r\n") && !ssdp.contains("ssdp:all"), "ssdp:all amplifies");
    }

    #[test]
    fn rpcbind_calls_the_null_procedure() {
        let call = of("rpcbind");
        let words: Vec<u32> = call.chunks(4).map(|w| u32::from_be_bytes(w.try_into().unwrap())).collect();
        assert_eq!(words[1..], [0, 2, 100_000, 2, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn dtls_adds_up_at_every_level() {
        let record = of("dtls");
        assert_eq!((&record[..3], &record[3..11], word(&record, 11)), (&[22, 0xfe, 0xff][..], &[0; 8][..], record.len() - 13));
        let message = &record[13..];
        assert_eq!((message[0], word(message, 2), word(message, 10)), (1, message.len() - 12, message.len() - 12));
        assert_eq!(&message[4..9], &[0; 5], "message 0, from its first byte");
        let hello = &message[12..];
        assert_eq!((&hello[..2], &hello[34..36]), (&[0xfe, 0xfd][..], &[0, 0][..]), "no session, no cookie");
        let suites = word(hello, 36);
        assert_eq!((suites % 2, &hello[38 + suites..40 + suites]), (0, &[1, 0][..]));
        let (mut at, mut kinds) = (42 + suites, Vec::new());
        assert_eq!(word(hello, 40 + suites), hello.len() - at);
        while at < hello.len() {
            kinds.push(word(hello, at));
            at += 4 + word(hello, at + 2);
        }
        assert_eq!((at, kinds.as_slice()), (hello.len(), &[10, 11, 13][..]));
    }

    #[test]
    fn icp_and_htcp_ask_for_what_nobody_has() {
        let query = of("icp");
        assert_eq!((query[0], query[1], word(&query, 2)), (1, 2, query.len()));
        assert_eq!((&query[8..24], query.last()), (&[0; 16][..], Some(&0)));
        let test = of("htcp");
        assert_eq!((word(&test, 0), &test[2..4]), (test.len(), &[0, 1][..]));
        let data = word(&test, 4);
        assert_eq!((&test[6..8], &test[4 + data..]), (&[0x10, 0x02][..], &[0, 2][..]), "TST with an answer, no authentication");
        let (mut at, mut texts) = (12, Vec::new());
        while at < 4 + data {
            let end = at + 2 + word(&test, at);
            texts.push(std::str::from_utf8(&test[at + 2..end]).unwrap());
            at = end;
        }
        assert_eq!(texts, ["GET", NO_URL, "HTTP/1.1", ""]);
    }
}

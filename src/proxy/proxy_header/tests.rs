use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::*;

fn proxied(source: &str, destination: &str) -> Header {
    Header::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// Version 2 as a sender writes it.
fn v2_bytes(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [V2, &[version_and_command, family], &length, rest].concat()
}

fn block(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let ip = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    [ip(source.ip()), ip(destination.ip()), source.port().to_be_bytes().to_vec(), destination.port().to_be_bytes().to_vec()].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], u16::try_from(value.len()).unwrap().to_be_bytes().as_slice(), value].concat()
}

/// A header of TCP over IPv4 with these TLVs and the right checksum behind them, then further TLVs.
fn with_checksum(before: &[u8], after: &[u8]) -> Vec<u8> {
    let addresses = block("192.0.2.1:40000".parse().unwrap(), "192.0.2.2:3128".parse().unwrap());
    let mut bytes = v2_bytes(0x21, 0x11, &[&addresses, before, &tlv(CRC32C, &[0; 4]), after].concat());
    let at = V2_FIXED + addresses.len() + before.len() + 3;
    let sum = crc32c(bytes.iter().copied()).to_be_bytes();
    bytes[at..at + 4].copy_from_slice(&sum);
    bytes
}

/// What a Network Load Balancer was seen to send for its health checks: LOCAL, the family of TCP over IPv4, 84 bytes of TLVs (a
/// checksum, then padding), and no addresses.
fn captured() -> Vec<u8> {
    let rest = [tlv(CRC32C, &[0x71, 0x9b, 0x5d, 0x1a]), tlv(0x04, &[0; 0x4a])].concat();
    assert_eq!(rest.len(), 0x54);
    v2_bytes(0x20, 0x11, &rest)
}

#[test]
fn headers_both_sides_of_the_border() {
    let four = proxied("192.0.2.1:40000", "192.0.2.2:3128");
    let addresses = block("192.0.2.1:40000".parse().unwrap(), "192.0.2.2:3128".parse().unwrap());
    let six = block("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:65535".parse().unwrap());
    let with = |tlvs: &[u8]| [&addresses, tlvs].concat();
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_LONGEST - 16));
    assert_eq!(longest.len(), V1_LONGEST);
    let good: Vec<(Vec<u8>, Header)> = vec![
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 3128\r\n".to_vec(), four),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n".to_vec(), proxied("255.255.255.255:65535", "255.255.255.255:0")),
        (b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 1 65535\r\n".to_vec(), proxied("[2001:db8::1]:1", "[::ffff:192.0.2.2]:65535")),
        (b"PROXY UNKNOWN\r\n".to_vec(), Header::Local),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), Header::Local),
        (longest.into_bytes(), Header::Local),
        (v2_bytes(0x21, 0x11, &addresses), four),
        (v2_bytes(0x21, 0x21, &six), proxied("[2001:db8::1]:1", "[2001:db8::2]:65535")),
        // what AWS sends of an endpoint's name, a TLV of no bytes, and one of a kind that nobody knows
        (v2_bytes(0x21, 0x11, &with(&tlv(0xea, b"\x01vpce-08d2bf15fac5001c9"))), four),
        (v2_bytes(0x21, 0x11, &with(&tlv(0x04, b""))), four),
        (v2_bytes(0x21, 0x11, &with(&tlv(0x99, &[0; 300]))), four),
        (v2_bytes(0x21, 0x11, &with(&tlv(0x04, &[0; 65535 - 12 - 3]))), four),
        (with_checksum(&tlv(0x02, b"host"), &tlv(0x04, b"abc")), four),
        (captured(), Header::Local),
        (v2_bytes(0x20, 0x00, b""), Header::Local),
        (v2_bytes(0x20, 0x11, &addresses), Header::Local),
        (v2_bytes(0x20, 0x31, &[0; 216]), Header::Local),
        (v2_bytes(0x20, 0xff, &[0xff; 65535]), Header::Local),
    ];
    for (bytes, header) in &good {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        assert_eq!(parse(bytes), Ok(Some((*header, bytes.len()))), "{shown:?}");
        let more = [bytes.as_slice(), b"CONNECT a.example:443 HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&more), Ok(Some((*header, bytes.len()))), "what follows is not the header's: {shown:?}");
        for cut in (0..bytes.len()).filter(|cut| *cut < 200 || bytes.len() - cut < 20) {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} bytes of {shown:?}");
        }
    }

    let mut wrong_sum = with_checksum(b"", b"");
    *wrong_sum.last_mut().unwrap() ^= 1;
    let mut changed = with_checksum(b"", b"");
    changed[V2_FIXED] ^= 1;
    let line = |rest: &str| format!("PROXY {rest}\r\n").into_bytes();
    let bad: Vec<Vec<u8>> = vec![
        b"CONNECT a.example:443 HTTP/1.1\r\n\r\n".to_vec(),
        b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
        b"\r\n\r\n\0\r\nQUIX".to_vec(),
        b"\x16\x03\x01".to_vec(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n".to_vec(),
        line(""),
        line("TCP"),
        line("TCP5 192.0.2.1 192.0.2.2 1 2"),
        line("tcp4 192.0.2.1 192.0.2.2 1 2"),
        line("TCP4"),
        line("TCP4 192.0.2.1 192.0.2.2 1"),
        line("TCP4 192.0.2.1 192.0.2.2 1 2 "),
        line("TCP4 192.0.2.1 192.0.2.2 1 2 3"),
        line("TCP4  192.0.2.1 192.0.2.2 1 2"),
        line(" TCP4 192.0.2.1 192.0.2.2 1 2"),
        line("TCP4\t192.0.2.1 192.0.2.2 1 2"),
        line("TCP4 2001:db8::1 2001:db8::2 1 2"),
        line("TCP6 192.0.2.1 192.0.2.2 1 2"),
        line("TCP4 192.0.2.1 2001:db8::2 1 2"),
        line("TCP4 192.0.2.01 192.0.2.2 1 2"),
        line("TCP4 192.0.2 192.0.2.2 1 2"),
        line("TCP4 0x7f.0.0.1 192.0.2.2 1 2"),
        line("TCP6 fe80::1%eth0 ::1 1 2"),
        line("TCP4 192.0.2.1 192.0.2.2 65536 2"),
        line("TCP4 192.0.2.1 192.0.2.2 007 2"),
        line("TCP4 192.0.2.1 192.0.2.2 +7 2"),
        line("TCP4 192.0.2.1 192.0.2.2 -7 2"),
        line("TCP4 192.0.2.1 192.0.2.2 00 2"),
        line("TCP4 192.0.2.1 192.0.2.2 1 http"),
        line("TCP4 192.0.2.1 192.0.2.2  2"),
        line("TCP4 192.0.2.1\0 192.0.2.2 1 2"),
        b"PROXY TCP4 192.0.2.\xff 192.0.2.2 1 2\r\n".to_vec(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_LONGEST - 15)).into_bytes(),
        [V1, &[b'x'; V1_LONGEST - 6]].concat(),
        v2_bytes(0x11, 0x11, &addresses),
        v2_bytes(0x31, 0x11, &addresses),
        v2_bytes(0x22, 0x11, &addresses),
        v2_bytes(0x21, 0x00, &addresses),
        v2_bytes(0x21, 0x10, &addresses),
        v2_bytes(0x21, 0x12, &addresses),
        v2_bytes(0x21, 0x22, &six),
        v2_bytes(0x21, 0x31, &[0; 216]),
        v2_bytes(0x21, 0x11, b""),
        v2_bytes(0x21, 0x11, &addresses[..11]),
        v2_bytes(0x21, 0x21, &addresses),
        v2_bytes(0x21, 0x11, &with(&[0x04])),
        v2_bytes(0x21, 0x11, &with(&[0x04, 0x00])),
        v2_bytes(0x21, 0x11, &with(&[0x04, 0x00, 0x02, 0x00])),
        v2_bytes(0x21, 0x11, &with(&tlv(CRC32C, b"abc"))),
        wrong_sum,
        changed,
    ];
    for bytes in &bad {
        assert!(parse(bytes).is_err(), "{:?} was read as {:?}", String::from_utf8_lossy(bytes), parse(bytes));
    }
}

#[test]
fn a_header_is_summed_once() {
    let twice = with_checksum(&[], &tlv(CRC32C, &[0; 4]));
    assert_eq!(parse(&twice), Err("the PROXY header has more than one checksum".into()));
}

/// RFC 3720 section B.4, and the check value that every catalogue of CRCs gives.
#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ours, theirs) = tokio::join!(listener.accept(), TcpStream::connect(listener.local_addr().unwrap()));
    (ours.unwrap().0, theirs.unwrap())
}

/// In every way to cut header and request in two, the request is left, whole.
#[tokio::test]
async fn exactly_the_header_is_taken_wherever_the_stream_is_cut() {
    let long =
        v2_bytes(0x21, 0x11, &[block("192.0.2.1:4".parse().unwrap(), "192.0.2.2:5".parse().unwrap()), tlv(0x04, &[7; 700])].concat());
    for (header, cuts) in
        [(b"PROXY TCP4 192.0.2.1 192.0.2.2 4 5\r\n".to_vec(), 1), (with_checksum(&tlv(0xea, b"\x01vpce-1"), b""), 1), (long, 97)]
    {
        let all = [header.as_slice(), b"after"].concat();
        for cut in (0..=all.len()).step_by(cuts) {
            let (mut ours, mut theirs) = pair().await;
            theirs.set_nodelay(true).unwrap();
            let (first, second) = all.split_at(cut);
            let sending = async {
                theirs.write_all(first).await.unwrap();
                tokio::task::yield_now().await;
                theirs.write_all(second).await.unwrap();
                theirs.shutdown().await.unwrap();
            };
            let (header, ()) = tokio::join!(read(&mut ours, Duration::from_secs(20)), sending);
            assert!(matches!(header, Ok(Header::Proxied { source, .. }) if source.ip().to_string() == "192.0.2.1"), "{cut}: {header:?}");
            let mut rest = String::new();
            ours.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "after", "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn silence_is_told_from_half_a_header_and_both_from_a_slow_one() {
    let short = Duration::from_millis(100);
    let (mut ours, theirs) = pair().await;
    drop(theirs);
    assert!(read(&mut ours, Duration::from_secs(20)).await.unwrap_err().silent);

    let (mut ours, mut theirs) = pair().await;
    theirs.write_all(b"PROXY TC").await.unwrap();
    drop(theirs);
    let half = read(&mut ours, Duration::from_secs(20)).await.unwrap_err();
    assert!(!half.silent && half.begin == b"PROXY TC", "{half:?}");
    assert_eq!(half.why, "the connection ended within the PROXY header");

    let (mut ours, mut theirs) = pair().await;
    let slow = read(&mut ours, short).await.unwrap_err();
    assert!(!slow.silent && slow.why == "the PROXY header was not whole within 100ms", "{slow:?}");
    theirs.write_all(b"\r\n").await.unwrap();
    assert!(!read(&mut ours, short).await.unwrap_err().silent);
}

proptest! {
    /// PROPTEST_CASES raises the number of cases, as for every property here.
    #[test]
    fn arbitrary_bytes_never_panic_and_never_claim_more_than_there_is(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        begin in prop::sample::select(vec![&b""[..], V1, V2, b"PROXY TCP4 ", b"PROXY TCP6 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00", b"\r\n\r\n\0\r\nQUIT\n\x20\x11\x00"]),
        end in prop::sample::select(vec![&b""[..], b"\r\n", b" 1 2\r\n"]),
    ) {
        let bytes = [begin, &bytes, end].concat();
        match parse(&bytes) {
            Ok(Some((_, length))) => {
                prop_assert!(length <= bytes.len());
                // it is decided by its own bytes alone, and by all of them
                prop_assert_eq!(parse(&bytes[..length]), parse(&bytes));
                prop_assert_eq!(parse(&bytes[..length - 1]), Ok(None));
            }
            Ok(None) => prop_assert!(may_begin(&bytes)),
            // once wrong, always wrong: no further byte makes it right
            Err(why) => prop_assert_eq!(parse(&[bytes.as_slice(), b"\r\n"].concat()), Err(why)),
        }
    }

    #[test]
    fn what_a_sender_writes_is_what_is_read(source: SocketAddr, port: u16, tlvs in prop::collection::vec((4_u8.., prop::collection::vec(any::<u8>(), 0..40)), 0..5)) {
        let source = SocketAddr::new(source.ip(), source.port());
        let destination = SocketAddr::new(source.ip(), port);
        let header = Header::Proxied { source, destination };
        let word = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let line = format!("PROXY {word} {} {} {} {port}\r\n", source.ip(), source.ip(), source.port());
        prop_assert_eq!(parse(line.as_bytes()), Ok(Some((header, line.len()))));
        let tlvs: Vec<u8> = tlvs.iter().flat_map(|(kind, value)| tlv(*kind, value)).collect();
        let family = if source.is_ipv4() { 0x11 } else { 0x21 };
        let bytes = v2_bytes(0x21, family, &[block(source, destination), tlvs].concat());
        prop_assert_eq!(parse(&bytes), Ok(Some((header, bytes.len()))));
    }
}

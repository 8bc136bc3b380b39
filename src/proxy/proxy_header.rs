//! The PROXY protocol: the first bytes by which a load balancer says for whom it calls (HAProxy's `doc/proxy-protocol.txt`,
//! versions 1 and 2). [`parse`] is pure; [`read`] takes exactly the header's bytes off a connection, so that what follows is the
//! client's own first byte.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proxy::request::{Malformed, loggable};

/// How long a header may take: its sender writes it before anything else, in one piece.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// How version 1 begins.
const V1: &[u8] = b"PROXY ";
/// The longest line of version 1, with its end (section 2.1).
const V1_LONGEST: usize = 107;
/// How version 2 begins; no HTTP, TLS or SOCKS does.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before addresses: signature, version and command, family and transport, length.
const V2_FIXED: usize = 16;
/// The checksum's TLV (section 2.2.1, `PP2_TYPE_CRC32C`).
const CRC32C: u8 = 0x03;
/// How much is looked at in one step; a header of a real balancer is smaller.
const STEP: usize = 512;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The connection is relayed for somebody.
    Proxied {
        /// Who called the balancer.
        source: SocketAddr,
        /// Where they called it.
        destination: SocketAddr,
    },
    /// The balancer calls for itself (a health check), or cannot say for whom: `LOCAL` of version 2, `UNKNOWN` of version 1.
    Local,
}

/// Reads the header that `bytes` begin with, and how long it is; nothing, where it is not yet whole.
///
/// # Errors
/// What makes it no header that can be believed.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, String> {
    if begins(bytes, V2) {
        v2(bytes)
    } else if begins(bytes, V1) {
        v1(bytes)
    } else {
        Err("there is no PROXY header".into())
    }
}

/// Whether the bytes may be, or become, such a header.
pub fn may_begin(bytes: &[u8]) -> bool {
    begins(bytes, V2) || begins(bytes, V1)
}

/// Whether `bytes` are the beginning of `signature`, or it is theirs.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(one, other)| one == other)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 40000 3128\r\n`: one line, single spaces, nothing more and nothing less.
fn v1(bytes: &[u8]) -> Result<Option<(Header, usize)>, String> {
    let Some(end) = bytes.iter().take(V1_LONGEST).position(|b| *b == b'\n') else {
        return if bytes.len() < V1_LONGEST { Ok(None) } else { Err(format!("the PROXY line is longer than {V1_LONGEST} bytes")) };
    };
    let line = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or("the PROXY line does not end in CR LF")?;
    let line = std::str::from_utf8(line).map_err(|_| "the PROXY line is not ASCII")?;
    let mut words = line.split(' ').skip(1);
    let header = match words.next().unwrap_or_default() {
        // whatever else stands there is to be ignored (section 2.1)
        "UNKNOWN" => Header::Local,
        "TCP4" => proxied::<Ipv4Addr>(words)?,
        "TCP6" => proxied::<Ipv6Addr>(words)?,
        _ => return Err("the PROXY line is neither of TCP4 nor TCP6 nor UNKNOWN".into()),
    };
    Ok(Some((header, end + 1)))
}

fn proxied<'a, Ip: FromStr + Into<IpAddr>>(words: impl Iterator<Item = &'a str>) -> Result<Header, String> {
    let words: Vec<&str> = words.collect();
    let [from, to, from_port, to_port] = words.as_slice() else {
        return Err("the PROXY line has not two addresses and two ports".into());
    };
    let ip = |text: &str| text.parse::<Ip>().map(Into::into).map_err(|_| "the PROXY line has an address that is none of its family");
    Ok(Header::Proxied { source: SocketAddr::new(ip(from)?, port(from_port)?), destination: SocketAddr::new(ip(to)?, port(to_port)?) })
}

/// A port in the one way to write it: no sign, no zero in front.
fn port(text: &str) -> Result<u16, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or_else(|| "the PROXY line has a port that is none".into())
}

/// Signature, version and command, family and transport, length of the rest; then addresses, then TLVs.
fn v2(bytes: &[u8]) -> Result<Option<(Header, usize)>, String> {
    let Some([version_and_command, family, high, low]) = bytes.get(V2.len()..V2_FIXED) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err("the PROXY header is of no known version and command".into()),
    };
    let Some(rest) = bytes.get(V2_FIXED..V2_FIXED + length) else { return Ok(None) };
    let whole = V2_FIXED + length;
    if local {
        // Network Load Balancers send LOCAL with the family of TCP over IPv4, TLVs and no addresses: neither is to be looked at.
        return Ok(Some((Header::Local, whole)));
    }
    let (header, tlvs) = match family {
        0x11 => addresses::<4>(rest),
        0x21 => addresses::<16>(rest),
        // to take the balancer's own address instead would be to judge somebody whom nobody named
        _ => return Err("the PROXY header is neither of TCP over IPv4 nor of TCP over IPv6".into()),
    }
    .ok_or("the PROXY header has no room for its addresses")?;
    verify(bytes.get(..whole).unwrap_or_default(), tlvs)?;
    Ok(Some((header, whole)))
}

/// Two addresses of `N` bytes, two ports, and what follows.
fn addresses<const N: usize>(bytes: &[u8]) -> Option<(Header, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (source, bytes) = bytes.split_first_chunk::<N>()?;
    let (destination, bytes) = bytes.split_first_chunk::<N>()?;
    let (source_port, bytes) = bytes.split_first_chunk()?;
    let (destination_port, bytes) = bytes.split_first_chunk()?;
    let header = Header::Proxied {
        source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes(*destination_port)),
    };
    Some((header, bytes))
}

/// Walks the TLVs: each must be whole, and a checksum right, as RFC 3720 section B.4 makes it, over the whole header with the
/// checksum's own bytes as 0. There is one at most: each would be the work of the whole header, and 65 kB hold thousands.
fn verify(header: &[u8], mut tlvs: &[u8]) -> Result<(), String> {
    let mut verified = false;
    while !tlvs.is_empty() {
        let broken = "the PROXY header has a TLV that is not whole";
        let ([kind, high, low], rest) = tlvs.split_first_chunk::<3>().ok_or(broken)?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))).ok_or(broken)?;
        if *kind == CRC32C {
            if std::mem::replace(&mut verified, true) {
                return Err("the PROXY header has more than one checksum".into());
            }
            let told: [u8; 4] = value.try_into().map_err(|_| "the PROXY header has a checksum that is not four bytes")?;
            let at = header.len() - rest.len() - told.len();
            let sum = crc32c(header.iter().enumerate().map(|(i, byte)| if (at..at + told.len()).contains(&i) { 0 } else { *byte }));
            if sum != u32::from_be_bytes(told) {
                return Err("the PROXY header's checksum is wrong".into());
            }
        }
        tlvs = rest;
    }
    Ok(())
}

/// CRC-32C, bit by bit: a header is short, and comes once a connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// Takes the header off the connection, and not a byte more, within `limit`.
///
/// # Errors
/// What is wrong with it; one that is not whole in time is malformed too.
pub async fn read(stream: &mut TcpStream, limit: Duration) -> Result<Header, Malformed> {
    let mut seen = Vec::new();
    let read = timeout(limit, take(stream, &mut seen)).await;
    let (why, in_time) = match read {
        Ok(Ok(header)) => return Ok(header),
        Ok(Err(why)) => (why, true),
        Err(_) => (format!("the PROXY header was not whole within {limit:?}"), false),
    };
    let silent = seen.is_empty() && in_time;
    Err(Malformed { why, begin: loggable(&seen), silent, stray_header: false })
}

async fn take(stream: &mut TcpStream, seen: &mut Vec<u8>) -> Result<Header, String> {
    let failed = |e: io::Error| format!("the connection failed: {e}");
    let mut chunk = [0; STEP];
    loop {
        // looked at first, and taken when it is known to be the header's
        let count = stream.peek(&mut chunk).await.map_err(failed)?;
        if count == 0 {
            return Err("the connection ended within the PROXY header".into());
        }
        let before = seen.len();
        seen.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let parsed = parse(seen)?;
        let ours = parsed.map_or(count, |(_, length)| length.saturating_sub(before));
        stream.read_exact(chunk.get_mut(..ours).unwrap_or_default()).await.map_err(failed)?;
        if let Some((header, _)) = parsed {
            return Ok(header);
        }
    }
}

#[cfg(test)]
mod tests;

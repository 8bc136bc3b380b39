//! SOCKS: 5 (RFC 1928, RFC 1929), 4 and 4a. What is sent, and what each byte of the answer means.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::net::http;
use crate::observation::{Evidence, Outcome};
use crate::probe::tunnel;
use crate::target::{Host, HostPort};

/// RFC 1928 section 4, CMD.
pub(super) const CONNECT: u8 = 1;
/// The same.
pub(super) const BIND: u8 = 2;
/// The same.
pub(super) const UDP_ASSOCIATE: u8 = 3;
/// What the evidence says of a grant.
pub(super) const GRANTED: &str = "SOCKS5 reply 00";
/// What it says of any reply.
pub(super) const REPLIED: &str = "SOCKS5 reply";
/// The longest reply: its head, a name with its length, a port.
const MAX_REPLY: usize = 4 + 256 + 2;

/// A destination as SOCKS writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    /// An address.
    Ip(SocketAddr),
    /// A name, which the proxy resolves; an address may be written as one.
    Name(String, u16),
}

impl To {
    /// The destination as an address, where it is one, and as a name.
    pub(super) fn both(to: &HostPort) -> Vec<To> {
        let name = To::Name(to.host.to_string(), to.port);
        match &to.host {
            Host::Ip(ip @ IpAddr::V4(_)) => vec![To::Ip(SocketAddr::new(*ip, to.port)), name],
            Host::Ip(ip @ IpAddr::V6(_)) => vec![To::Ip(SocketAddr::new(*ip, to.port))],
            Host::Name(_) => vec![name],
        }
    }

    /// What tells it from the other.
    pub(super) fn label(&self) -> &'static str {
        match self {
            To::Ip(SocketAddr::V4(_)) => "ipv4",
            To::Ip(SocketAddr::V6(_)) => "ipv6",
            To::Name(..) => "name",
        }
    }

    /// SOCKS4 has no IPv6.
    pub(super) fn fits_socks4(&self) -> bool {
        !matches!(self, To::Ip(SocketAddr::V6(_)))
    }

    /// ATYP, DST.ADDR and DST.PORT of a request.
    fn written(&self) -> Vec<u8> {
        let (mut bytes, port) = match self {
            To::Ip(SocketAddr::V4(a)) => ([&[1][..], &a.ip().octets()].concat(), a.port()),
            To::Ip(SocketAddr::V6(a)) => ([&[4][..], &a.ip().octets()].concat(), a.port()),
            // A name has at most 253 bytes.
            To::Name(name, port) => ([&[3, u8::try_from(name.len()).unwrap_or(u8::MAX)][..], name.as_bytes()].concat(), *port),
        };
        bytes.extend(port.to_be_bytes());
        bytes
    }
}

/// The greeting: without a password; where one is to be tried, with one alone.
pub(super) fn greeting(login: Option<Login>) -> &'static [u8] {
    if login.is_some() { &[5, 1, 2] } else { &[5, 2, 0, 2] }
}

/// A user and a password that are nobody's: no password is ever guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    /// Empty ones.
    Empty,
    /// Fresh random ones.
    Anybody,
}

impl Login {
    /// The request to be let in (RFC 1929 section 2).
    pub(super) fn written(self) -> Vec<u8> {
        let (user, password) = match self {
            Login::Empty => Default::default(),
            Login::Anybody => super::nobody(),
        };
        let with_length = |text: &str| [&[u8::try_from(text.len()).unwrap_or(u8::MAX)][..], text.as_bytes()].concat();
        [vec![1], with_length(&user), with_length(&password)].concat()
    }
}

/// A SOCKS5 request.
pub(super) fn request5(command: u8, to: &To) -> Vec<u8> {
    [vec![5, command, 0], to.written()].concat()
}

/// A SOCKS4 request for a connection, as 4a where it carries a name.
pub(super) fn request4(to: &To) -> Vec<u8> {
    const USER: &[u8] = b"mustnot\0";
    match to {
        To::Ip(SocketAddr::V4(a)) => [&[4, 1][..], &a.port().to_be_bytes(), &a.ip().octets(), USER].concat(),
        To::Ip(SocketAddr::V6(_)) => Vec::new(),
        To::Name(name, port) => [&[4, 1][..], &port.to_be_bytes(), &[0, 0, 0, 1], USER, name.as_bytes(), &[0]].concat(),
    }
}

/// Asks for something by SOCKS5, and gives what came behind the grant.
///
/// # Errors
/// What the refusal means.
pub(super) async fn ask5<S>(
    stream: &mut S,
    (command, login, to): (u8, Option<Login>, &To),
    deadline: Instant,
    evidence: &mut Evidence,
) -> Result<Vec<u8>, Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = Vec::new();
    let _ = http::send(stream, greeting(login), deadline).await;
    match (take(stream, &mut read, chosen, deadline, evidence).await?, login) {
        (Chosen::Nothing, _) => {}
        (Chosen::Password, Some(login)) => {
            let _ = http::send(stream, &login.written(), deadline).await;
            if !take(stream, &mut read, let_in, deadline, evidence).await? {
                return Err(Outcome::Denied);
            }
        }
        (Chosen::Password | Chosen::None, _) => return Err(Outcome::Denied),
        (Chosen::Other, _) => return Err(Outcome::NotUnderstood),
    }
    let _ = http::send(stream, &request5(command, to), deadline).await;
    // Who lets us in and then says nothing may be trying: that is no waiting for the end of a greeting.
    let waits = |outcome| if outcome == Outcome::Mute { Outcome::GatewayError } else { outcome };
    let Reply { code, port } = take(stream, &mut read, reply5, deadline, evidence).await.map_err(waits)?;
    evidence.detail = Some(format!("{REPLIED} {code:02x}"));
    match code {
        // A grant for datagrams or for a visitor names where they go, and says nothing more before they come.
        0 if command != CONNECT && (port == 0 || !read.is_empty()) => Err(Outcome::NotRelayed),
        0 => Ok(read),
        1 => Err(Outcome::GatewayError),
        2 => Err(Outcome::Denied),
        3..=6 => Err(Outcome::AclPassed),
        7 | 8 => Err(Outcome::NotUnderstood),
        _ => Err(Outcome::NotRelayed),
    }
}

/// Asks for a connection by SOCKS4, and gives what came behind the grant.
///
/// # Errors
/// What the refusal means.
pub(super) async fn ask4<S>(stream: &mut S, to: &To, deadline: Instant, evidence: &mut Evidence) -> Result<Vec<u8>, Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = Vec::new();
    let _ = http::send(stream, &request4(to), deadline).await;
    let code = take(stream, &mut read, reply4, deadline, evidence).await?;
    evidence.detail = Some(format!("SOCKS4 reply {code:02x}"));
    match code {
        0x5a => Ok(read),
        0x5b..=0x5d => Err(Outcome::Denied),
        _ => Err(Outcome::NotRelayed),
    }
}

/// What a parser makes of the bytes so far: what they say and how many they are, nothing yet, or that it is something else.
type Parsed<T> = Result<Option<(T, usize)>, ()>;

/// Reads until the parser is content; what is behind stays in `read`.
async fn take<S, T>(
    stream: &mut S,
    read: &mut Vec<u8>,
    parse: fn(&[u8]) -> Parsed<T>,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Result<T, Outcome>
where
    S: AsyncRead + Unpin,
{
    loop {
        match parse(read) {
            Ok(Some((said, length))) => {
                read.drain(..length.min(read.len()));
                return Ok(said);
            }
            Ok(None) if read.len() < MAX_REPLY => {
                if let Err(end) = http::more(stream, read, deadline, evidence).await {
                    return Err(if read.is_empty() { tunnel::of_silence(end) } else { Outcome::NotRelayed });
                }
            }
            Ok(None) | Err(()) => {
                http::note_head(read, evidence);
                return Err(other_protocol(read));
            }
        }
    }
}

/// Somebody answers who does not speak SOCKS: an HTTP server says that it understood nothing.
fn other_protocol(read: &[u8]) -> Outcome {
    let status = read.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    match status {
        Some(b"400" | b"405" | b"501" | b"505") => Outcome::NotUnderstood,
        Some(b"403" | b"407") => Outcome::Denied,
        _ => Outcome::NotRelayed,
    }
}

/// What the server wants before a request (RFC 1928 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    /// Nothing.
    Nothing,
    /// User and password.
    Password,
    /// None of what was offered.
    None,
    /// Something that was not offered.
    Other,
}

fn chosen(read: &[u8]) -> Parsed<Chosen> {
    match read {
        [] | [5] => Ok(None),
        [5, 0, ..] => Ok(Some((Chosen::Nothing, 2))),
        [5, 2, ..] => Ok(Some((Chosen::Password, 2))),
        [5, 0xff, ..] => Ok(Some((Chosen::None, 2))),
        [5, _, ..] => Ok(Some((Chosen::Other, 2))),
        _ => Err(()),
    }
}

/// Whether user and password were right (RFC 1929 section 2).
fn let_in(read: &[u8]) -> Parsed<bool> {
    match read {
        [] | [_] => Ok(None),
        [_, status, ..] => Ok(Some((*status == 0, 2))),
    }
}

/// REP and BND.PORT of a reply (RFC 1928 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reply {
    code: u8,
    port: u16,
}

fn reply5(read: &[u8]) -> Parsed<Reply> {
    let (code, address) = match read {
        [] | [5] | [5, _] | [5, _, _] => return Ok(None),
        [5, code, _, 1, ..] => (*code, 4),
        [5, code, _, 4, ..] => (*code, 16),
        [5, _, _, 3] => return Ok(None),
        [5, code, _, 3, length, ..] => (*code, 1 + usize::from(*length)),
        // Some give no address where they give nothing else (RFC 1928 has no such form).
        [5, code, ..] if *code != 0 => return Ok(Some((Reply { code: *code, port: 0 }, read.len()))),
        _ => return Err(()),
    };
    let end = 4 + address;
    match read.get(end..end + 2) {
        Some([high, low]) => Ok(Some((Reply { code, port: u16::from_be_bytes([*high, *low]) }, end + 2))),
        _ => Ok(None),
    }
}

fn reply4(read: &[u8]) -> Parsed<u8> {
    match read {
        [] => Ok(None),
        [0, code, _, _, _, _, _, _, ..] => Ok(Some((*code, 8))),
        [0, ..] => Ok(None),
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What the server says, message by message; what is asked for, with a password or not; what comes of it.
    type Cell<'a> = (&'a [&'a [u8]], u8, Option<Login>, Result<Vec<u8>, Outcome>);

    fn to() -> To {
        To::Ip("192.0.2.7:443".parse().unwrap())
    }

    /// A server that answers each message with the next of these.
    async fn answered(answers: &[&[u8]], command: u8, login: Option<Login>) -> (Result<Vec<u8>, Outcome>, Vec<u8>) {
        let (mut ours, mut theirs) = duplex(4096);
        let answers: Vec<Vec<u8>> = answers.iter().map(|a| a.to_vec()).collect();
        let server = tokio::spawn(async move {
            let mut heard = Vec::new();
            for answer in answers {
                let mut read = [0; 512];
                let n = theirs.read(&mut read).await.unwrap();
                heard.extend_from_slice(&read[..n]);
                theirs.write_all(&answer).await.unwrap();
            }
            heard
        });
        let deadline = Instant::now() + Duration::from_secs(5);
        let said = ask5(&mut ours, (command, login, &to()), deadline, &mut Evidence::default()).await;
        (said, server.await.unwrap())
    }

    #[tokio::test]
    async fn every_answer_of_socks5() {
        let ok: &[u8] = &[5, 0];
        let reply = |code: u8| [5, code, 0, 1, 0, 0, 0, 0, 0, 9];
        let cells: &[Cell<'_>] = &[
            (&[ok, &reply(0)], CONNECT, None, Ok(vec![])),
            (&[ok, &reply(1)], CONNECT, None, Err(Outcome::GatewayError)),
            (&[ok, &reply(2)], CONNECT, None, Err(Outcome::Denied)),
            (&[ok, &reply(3)], CONNECT, None, Err(Outcome::AclPassed)),
            (&[ok, &reply(6)], CONNECT, None, Err(Outcome::AclPassed)),
            (&[ok, &reply(7)], CONNECT, None, Err(Outcome::NotUnderstood)),
            (&[ok, &reply(9)], CONNECT, None, Err(Outcome::NotRelayed)),
            (&[ok, &[5, 2]], CONNECT, None, Err(Outcome::NotRelayed)),
            (&[&[5, 0xff]], CONNECT, None, Err(Outcome::Denied)),
            (&[&[5, 2]], CONNECT, None, Err(Outcome::Denied)),
            (&[&[5, 1]], CONNECT, None, Err(Outcome::NotUnderstood)),
            (&[&[5, 2], &[1, 0], &reply(0)], CONNECT, Some(Login::Empty), Ok(vec![])),
            (&[&[5, 2], &[1, 0], &reply(0)], CONNECT, Some(Login::Anybody), Ok(vec![])),
            (&[&[5, 2], &[1, 1]], CONNECT, Some(Login::Anybody), Err(Outcome::Denied)),
            (&[&[5, 2], &[1, 1]], CONNECT, Some(Login::Empty), Err(Outcome::Denied)),
            (&[b"HTTP/1.1 400 Bad Request\r\n\r\n"], CONNECT, None, Err(Outcome::NotUnderstood)),
            (&[b"SSH-2.0-x\r\n"], CONNECT, None, Err(Outcome::NotRelayed)),
            (&[ok, &reply(0)], UDP_ASSOCIATE, None, Ok(vec![])),
            (&[ok, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]], UDP_ASSOCIATE, None, Err(Outcome::NotRelayed)),
            (&[ok, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 9, 9]], UDP_ASSOCIATE, None, Err(Outcome::NotRelayed)),
        ];
        for (answers, command, login, expected) in cells {
            let (said, heard) = answered(answers, *command, *login).await;
            assert_eq!(said, *expected, "{answers:?}");
            assert!(heard.starts_with(greeting(*login)), "{heard:?}");
        }
    }

    #[test]
    fn requests_are_as_the_documents_write_them() {
        assert_eq!(request5(CONNECT, &to()), [5, 1, 0, 1, 192, 0, 2, 7, 1, 187]);
        assert_eq!(request5(BIND, &To::Name("b.example".into(), 80)), b"\x05\x02\x00\x03\x09b.example\x00\x50");
        assert_eq!(Login::Empty.written(), [1, 0, 0]);
        let (one, other) = (Login::Anybody.written(), Login::Anybody.written());
        assert!(one != other && one.len() == 1 + 1 + 16 + 1 + 16, "{one:?}");
        assert_eq!((one[0], one[1], one[18]), (1, 16, 16));
        assert_eq!(request4(&to()), b"\x04\x01\x01\xbb\xc0\x00\x02\x07mustnot\0");
        assert_eq!(request4(&To::Name("b.example".into(), 80)), b"\x04\x01\x00\x50\x00\x00\x00\x01mustnot\0b.example\0");
    }

    proptest! {
        #[test]
        fn no_answer_panics_and_every_length_is_within(read in proptest::collection::vec(any::<u8>(), 0..400)) {
            for length in [
                chosen(&read).ok().flatten().map(|p| p.1),
                let_in(&read).ok().flatten().map(|p| p.1),
                reply5(&read).ok().flatten().map(|p| p.1),
                reply4(&read).ok().flatten().map(|p| p.1),
            ].into_iter().flatten() {
                prop_assert!(length <= read.len());
            }
            other_protocol(&read);
        }

        /// A whole exchange with anybody ends before the deadline, and only a well-formed grant is one.
        #[test]
        fn no_stream_hangs(mut read in proptest::collection::vec(any::<u8>(), 0..400), well in any::<bool>()) {
            if well && read.len() > 3 {
                read.splice(..4, [5, 0, 5, 0]);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let said = runtime.block_on(async {
                let (mut ours, mut theirs) = duplex(4096);
                theirs.write_all(&read).await.unwrap();
                theirs.shutdown().await.unwrap();
                let deadline = Instant::now() + Duration::from_secs(5);
                ask5(&mut ours, (CONNECT, None, &to()), deadline, &mut Evidence::default()).await
            });
            prop_assert!(said.is_err() || read.starts_with(&[5, 0, 5, 0]));
        }
    }
}

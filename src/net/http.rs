//! HTTP/1.1 as a client that trusts nothing: bounded heads and bodies, interim responses skipped, every byte kept apart.

use std::io;
use std::ops::Deref;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::tls;
use crate::observation::{Evidence, Outcome};

/// The longest head that is read (RFC 9112 leaves the bound to the recipient).
const MAX_HEAD: usize = 32 * 1024;
/// The most header lines that are read.
const MAX_HEADERS: usize = 100;
/// The most interim responses (RFC 9110 section 15.2) before a final one.
pub const MAX_INTERIM: usize = 8;
/// The longest body that is read: a peer's report of a check with many addresses and many recent runs has some megabytes.
pub const MAX_BODY: usize = 8 * 1024 * 1024;

/// A final response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status, 200 to 599.
    pub status: u16,
    /// Names in lower case, values as sent.
    pub headers: Vec<(String, String)>,
    /// Bytes that were read behind the head.
    pub rest: Vec<u8>,
}

impl Head {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// How long it says that its body is; nothing where it says different things (RFC 9112 section 6.3).
    fn length(&self) -> Option<usize> {
        let mut said = self.headers.iter().filter(|(n, _)| n == "content-length").map(|(_, v)| v.trim().parse::<usize>().ok());
        let first = said.next()??;
        said.all(|other| other == Some(first)).then_some(first)
    }
}

/// A body, as far as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    /// Its bytes, without the framing of chunks.
    pub bytes: Vec<u8>,
    /// Its end was seen: nothing was cut off by a bound, a deadline or a broken connection.
    pub whole: bool,
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Sends a request and reads the final response head, until `deadline`. A request that could not be sent whole may still have been answered.
///
/// # Errors
/// `reset`, `closed` or `mute` before a byte came, `bad-http` for anything that is not a final head, `tls-refused` on a late alert.
pub async fn exchange<S>(stream: &mut S, request: &[u8], deadline: Instant, evidence: &mut Evidence) -> Result<Head, Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let sent = send(stream, request, deadline).await;
    match (read_head(stream, Vec::new(), deadline, evidence).await, sent) {
        (Err(Outcome::Closed | Outcome::Mute), Err(Some(error))) => Err(tls::refusal(&error, evidence)),
        (read, _) => read,
    }
}

/// The answer to a request that asked for another protocol.
#[derive(Debug)]
pub enum Upgraded {
    /// 101: what follows is the other protocol, whose first bytes these are.
    Yes(Vec<u8>),
    /// Any other final head.
    No(Head),
}

/// Sends a request for another protocol and reads the answer (RFC 9110 section 7.8), until `deadline`.
///
/// # Errors
/// As [`exchange`].
pub async fn upgrade<S>(stream: &mut S, request: &[u8], deadline: Instant, evidence: &mut Evidence) -> Result<Upgraded, Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let sent = send(stream, request, deadline).await;
    match (read_answer(stream, Vec::new(), deadline, evidence).await, sent) {
        (Err(Outcome::Closed | Outcome::Mute), Err(Some(error))) => Err(tls::refusal(&error, evidence)),
        (read, _) => read,
    }
}

/// Sends all of it, until `deadline`.
///
/// # Errors
/// The error, or none where the deadline passed.
pub async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8], deadline: Instant) -> Result<(), Option<io::Error>> {
    let write = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout_at(deadline, write).await.map_err(|_| None)?.map_err(Some)
}

/// Reads the final response head; `read` is what was read already.
///
/// # Errors
/// As [`exchange`].
pub async fn read_head<S>(stream: &mut S, read: Vec<u8>, deadline: Instant, evidence: &mut Evidence) -> Result<Head, Outcome>
where
    S: AsyncRead + Unpin,
{
    match read_answer(stream, read, deadline, evidence).await? {
        Upgraded::No(head) => Ok(head),
        // Nobody asked for another protocol, and what follows is none that is known here (RFC 9110 section 15.2.2).
        Upgraded::Yes(_) => Err(Outcome::BadHttp),
    }
}

async fn read_answer<S>(stream: &mut S, mut read: Vec<u8>, deadline: Instant, evidence: &mut Evidence) -> Result<Upgraded, Outcome>
where
    S: AsyncRead + Unpin,
{
    let mut interim = 0;
    loop {
        match parse(&read) {
            Parsed::Final(head) => {
                evidence.status = Some(head.status);
                note_head(&read, evidence);
                return Ok(Upgraded::No(head));
            }
            Parsed::Switched(length) => {
                note_head(&read, evidence);
                return Ok(Upgraded::Yes(read.split_off(length.min(read.len()))));
            }
            Parsed::Interim(length) if interim < MAX_INTERIM => {
                interim += 1;
                read.drain(..length);
            }
            Parsed::Partial if read.len() < MAX_HEAD => {
                if let Err(outcome) = more(stream, &mut read, deadline, evidence).await {
                    note_head(&read, evidence);
                    return Err(if read.is_empty() { outcome } else { Outcome::BadHttp });
                }
            }
            Parsed::Partial | Parsed::Interim(_) | Parsed::Bad => {
                note_head(&read, evidence);
                return Err(Outcome::BadHttp);
            }
        }
    }
}

/// Reads on into `read`, at least one byte.
///
/// # Errors
/// `closed` at the end, `mute` at the deadline, else what the failure means.
pub async fn more<S>(stream: &mut S, read: &mut Vec<u8>, deadline: Instant, evidence: &mut Evidence) -> Result<(), Outcome>
where
    S: AsyncRead + Unpin,
{
    match timeout_at(deadline, stream.read_buf(read)).await {
        Err(_) => Err(Outcome::Mute),
        Ok(Ok(0)) => Err(Outcome::Closed),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(tls::refusal(&error, evidence)),
    }
}

/// Reads the body of an answer to a request that was not HEAD, at most `limit` bytes of it with its framing; what came before
/// a failure is kept (RFC 9112 section 6).
pub async fn read_body<S>(stream: &mut S, head: &Head, limit: usize, deadline: Instant) -> Body
where
    S: AsyncRead + Unpin,
{
    if matches!(head.status, 204 | 304) {
        return Body { bytes: Vec::new(), whole: true };
    }
    let chunked = head.header("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked"));
    let length = head.length().filter(|_| !chunked);
    let wanted = length.unwrap_or(limit).min(limit);
    let mut raw = head.rest.clone();
    let mut chunks = Chunks::default();
    let mut unused = Evidence::default();
    let mut ended = None;
    while ended.is_none() && raw.len() < limit {
        let done = if chunked { chunks.join(&raw) } else { length.is_some() && raw.len() >= wanted };
        if done {
            break;
        }
        ended = more(stream, &mut raw, deadline, &mut unused).await.err();
    }
    if chunked {
        chunks.join(&raw);
        let last_seen = chunks.last_seen;
        let mut bytes = chunks.with_the_rest(&raw);
        let whole = last_seen && bytes.len() <= limit;
        bytes.truncate(limit);
        return Body { bytes, whole };
    }
    let whole = match length {
        Some(length) => length <= wanted && raw.len() >= length,
        None => ended == Some(Outcome::Closed) && raw.len() <= limit,
    };
    raw.truncate(wanted);
    Body { bytes: raw, whole }
}

/// The chunks of a body (RFC 9112 section 7.1), joined as they come in: each byte is looked at once.
#[derive(Debug, Default)]
struct Chunks {
    body: Vec<u8>,
    /// Where the next chunk begins.
    at: usize,
    /// The chunk of no length, which is the last.
    last_seen: bool,
}

impl Chunks {
    /// Joins the chunks of `raw` that are whole by now. True once the last one was seen, or none can follow.
    fn join(&mut self, raw: &[u8]) -> bool {
        loop {
            let (begins, size) = match self.next(raw) {
                Ok(httparse::Status::Complete(chunk)) => chunk,
                Ok(httparse::Status::Partial) => return false,
                Err(_) => return true,
            };
            let ends = begins.saturating_add(size);
            match raw.get(begins..ends) {
                _ if size == 0 => {
                    self.last_seen = true;
                    return true;
                }
                Some(chunk) if raw.get(ends..ends + 2).is_some_and(|end| end == b"\r\n") => {
                    self.body.extend_from_slice(chunk);
                    self.at = ends + 2;
                }
                _ => return false,
            }
        }
    }

    /// How many bytes a whole chunked body takes, its trailer's empty line with it.
    fn length(raw: &[u8]) -> Option<usize> {
        let mut chunks = Chunks::default();
        if !chunks.join(raw) {
            return None;
        }
        let (begins, _) = match chunks.next(raw) {
            Ok(httparse::Status::Complete(last)) => last,
            Ok(httparse::Status::Partial) | Err(_) => return None,
        };
        let trailer = raw.get(begins..)?;
        if trailer.starts_with(b"\r\n") {
            return Some(begins + 2);
        }
        trailer.windows(4).position(|w| w == b"\r\n\r\n").map(|end| begins + end + 4)
    }

    /// The body, with what came of a chunk that was cut.
    fn with_the_rest(mut self, raw: &[u8]) -> Vec<u8> {
        if let Ok(httparse::Status::Complete((begins, size))) = self.next(raw) {
            let rest = raw.get(begins..).unwrap_or_default();
            self.body.extend_from_slice(rest.get(..size.min(rest.len())).unwrap_or_default());
        }
        self.body
    }

    /// Where the next chunk's data begins, and how long it is.
    fn next(&self, raw: &[u8]) -> Result<httparse::Status<(usize, usize)>, httparse::InvalidChunkSize> {
        let parsed = httparse::parse_chunk_size(raw.get(self.at..).unwrap_or_default())?;
        Ok(match parsed {
            httparse::Status::Complete((head, size)) => {
                httparse::Status::Complete((self.at + head, usize::try_from(size).unwrap_or(usize::MAX)))
            }
            httparse::Status::Partial => httparse::Status::Partial,
        })
    }
}

/// The heads of all final answers of one connection, bodies skipped, at most `most`: one that does not say where it ends is
/// taken to end the connection (RFC 9112 section 6.3).
pub fn heads(read: &[u8], most: usize) -> Vec<Head> {
    let mut found = Vec::new();
    let mut rest = read.to_vec();
    while found.len() < most {
        match parse(&rest) {
            Parsed::Interim(length) => {
                rest.drain(..length);
            }
            Parsed::Final(head) => {
                let length = head.length();
                let chunked = head.header("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked"));
                let body = match (matches!(head.status, 204 | 304), chunked, length) {
                    (true, _, _) => Some(0),
                    (false, true, _) => Chunks::length(&head.rest),
                    (false, false, length) => length,
                };
                let next = body.and_then(|body| head.rest.get(body..)).map(<[u8]>::to_vec);
                found.push(Head { rest: Vec::new(), ..head });
                match next {
                    Some(next) if !next.is_empty() => rest = next,
                    Some(_) | None => break,
                }
            }
            // What follows a switch is another protocol's.
            Parsed::Partial | Parsed::Switched(_) | Parsed::Bad => break,
        }
    }
    found
}

enum Parsed {
    Partial,
    Interim(usize),
    Switched(usize),
    Final(Head),
    Bad,
}

fn parse(read: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    // A header that is written badly changes nothing in what the status says.
    let mut config = httparse::ParserConfig::default();
    config.allow_obsolete_multiline_headers_in_responses(true);
    config.allow_spaces_after_header_name_in_responses(true);
    config.ignore_invalid_headers_in_responses(true);
    let length = match config.parse_response(&mut response, read) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Bad,
    };
    match response.code {
        Some(101) => Parsed::Switched(length),
        Some(100..=199) => Parsed::Interim(length),
        Some(status @ 200..=599) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers = response.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value))).collect();
            Parsed::Final(Head { status, headers, rest: read.get(length..).unwrap_or_default().to_vec() })
        }
        _ => Parsed::Bad,
    }
}

/// Keeps the start of what was answered, with control characters made visible.
pub fn note_head(read: &[u8], evidence: &mut Evidence) {
    if read.is_empty() {
        return;
    }
    let head = read.windows(4).position(|w| w == b"\r\n\r\n").and_then(|end| read.get(..end)).unwrap_or(read);
    let kept = head.get(..head.len().min(Evidence::MAX_HEAD)).unwrap_or_default();
    let text = String::from_utf8_lossy(kept).replace("\r\n", "\n");
    evidence.head = Some(text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn read(sent: &[u8]) -> (Result<Head, Outcome>, Body) {
        let mut stream = sent;
        let deadline = Instant::now() + Duration::from_secs(5);
        let head = read_head(&mut stream, Vec::new(), deadline, &mut Evidence::default()).await;
        let body = match &head {
            Ok(head) => read_body(&mut stream, head, MAX_BODY, deadline).await,
            Err(_) => Body::default(),
        };
        (head, body)
    }

    #[tokio::test]
    async fn interim_heads_are_skipped() {
        let (head, body) = read(
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nnoXX",
        )
        .await;
        assert_eq!(head.map(|h| h.status), Ok(403));
        assert_eq!(&*body, b"no");
    }

    #[tokio::test]
    async fn chunks_are_joined() {
        let (_, body) = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n").await;
        assert_eq!((&*body, body.whole), (&b"hello!"[..], true));
        let (_, cut) = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel").await;
        assert_eq!((&*cut, cut.whole), (&b"hel"[..], false));
    }

    #[test]
    fn every_answer_of_a_connection_is_found() {
        let read =
            b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 100 Go\r\n\r\nHTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n\
            2\r\nno\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nHTTP/1.1 201 no answer but a body\r\n\r\n";
        let statuses = |most| heads(read, most).iter().map(|h| h.status).collect::<Vec<_>>();
        assert_eq!(statuses(8), [503, 403, 200]);
        assert_eq!(statuses(1), [503]);
        assert!(heads(b"HTTP/1.1 200", 8).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_and_the_bound_holds(read in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), most in 0_usize..4) {
            proptest::prop_assert!(heads(&read, most).len() <= most);
        }

        #[test]
        fn pieces_of_answers_do_not_panic_either(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "HTTP/1.1 200 OK\r\n", "HTTP/1.0 403 x\r\n", "Content-Length: 3\r\n", "Content-Length: 18446744073709551615\r\n",
                "Transfer-Encoding: chunked\r\n", "\r\n", "0\r\n", "ffffffffffffffff\r\n", "3\r\nabc\r\n", "abc", "HTTP/1.1 100 x\r\n\r\n",
            ]), 0..20)
        ) {
            proptest::prop_assert!(heads(pieces.concat().as_bytes(), 8).len() <= 8);
        }
    }

    #[tokio::test]
    async fn what_is_not_a_final_head_is_bad_http() {
        for bad in [
            &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 600 X\r\n\r\n",
            b"HTTP/1.1 099 X\r\n\r\n",
            b"\x15\x03\x01\x00\x02\x02\x46",
        ] {
            assert_eq!(read(bad).await.0, Err(Outcome::BadHttp), "{bad:?}");
        }
        assert_eq!(read(b"").await.0, Err(Outcome::Closed));
        let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_INTERIM + 1);
        assert_eq!(read(&endless).await.0, Err(Outcome::BadHttp));
    }

    #[tokio::test]
    async fn a_badly_written_header_changes_no_status() {
        for odd in [
            &b"HTTP/1.1 403 No\nServer: x\n\n"[..],
            b"HTTP/1.1 403 No\r\nA : b\r\n\r\n",
            b"HTTP/1.1 403 No\r\nA: b\r\n folded\r\n\r\n",
            b"HTTP/1.1 403 No\r\nno colon\r\n\r\n",
            b"HTTP/1.1 403\r\n\r\n",
            b"HTTP/1.1 403 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert_eq!(read(odd).await.0.map(|h| h.status), Ok(403), "{:?}", String::from_utf8_lossy(odd));
        }
    }

    #[tokio::test]
    async fn another_protocol_is_no_answer_unless_it_was_asked_for() {
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\nrest";
        assert_eq!(read(switch).await.0, Err(Outcome::BadHttp));
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut both = tokio::io::join(&switch[..], tokio::io::sink());
        match upgrade(&mut both, b"GET / HTTP/1.1\r\n\r\n", deadline, &mut Evidence::default()).await {
            Ok(Upgraded::Yes(rest)) => assert_eq!(rest, b"rest"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_head_past_the_bound_is_bad_http() {
        let head = |padding: usize| [b"HTTP/1.1 403 No\r\nX: ".to_vec(), vec![b'x'; padding], b"\r\n\r\n".to_vec()].concat();
        assert_eq!(read(&head(MAX_HEAD / 2)).await.0.map(|h| h.status), Ok(403));
        assert_eq!(read(&head(3 * MAX_HEAD)).await.0, Err(Outcome::BadHttp));
    }

    #[tokio::test]
    async fn a_body_says_whether_it_is_whole() {
        let of = async |sent: &[u8], limit: usize| {
            let mut stream = sent;
            let deadline = Instant::now() + Duration::from_secs(5);
            let head = read_head(&mut stream, Vec::new(), deadline, &mut Evidence::default()).await.unwrap();
            let body = read_body(&mut stream, &head, limit, deadline).await;
            (body.len(), body.whole)
        };
        for (sent, limit, expected) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"[..], 9, (4, true)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd", 9, (4, false)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", 3, (3, false)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\nabcd", 9, (4, true)),
            (b"HTTP/1.1 200 OK\r\n\r\nabcd", 9, (4, true)),
            (b"HTTP/1.1 200 OK\r\n\r\nabcd", 4, (4, false)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", 99, (2, true)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", 99, (2, false)),
            (b"HTTP/1.1 204 No\r\n\r\n", 9, (0, true)),
        ] {
            assert_eq!(of(sent, limit).await, expected, "{:?} {limit}", String::from_utf8_lossy(sent));
        }
    }

    /// Bytes that look like an answer, and break off or go wrong anywhere.
    fn answers() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
        use proptest::prelude::*;
        let piece = prop_oneof![
            Just(b"HTTP/1.1 ".to_vec()),
            Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
            Just(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
            Just(b"HTTP/1.1 101 Other\r\n\r\n".to_vec()),
            Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
            Just(b"Content-Length: 18446744073709551615\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"ffffffffffffffff\r\n".to_vec()),
            Just(b"5\r\nhello\r\n".to_vec()),
            Just(b"0\r\n\r\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..64),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 2048, failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_bytes_of_an_answer_panic_or_grow_past_the_bound(sent in answers(), limit in 0_usize..4096) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let mut stream = sent.as_slice();
                let deadline = Instant::now() + Duration::from_secs(5);
                let mut evidence = Evidence::default();
                if let Ok(head) = read_head(&mut stream, Vec::new(), deadline, &mut evidence).await {
                    assert!((200..=599).contains(&head.status));
                    let body = read_body(&mut stream, &head, limit, deadline).await;
                    assert!(body.len() <= sent.len());
                    assert!(body.len() <= limit);
                }
                assert!(evidence.head.is_none_or(|h| h.chars().count() <= Evidence::MAX_HEAD));
            });
        }
    }

    /// Whoever sends without end, or one byte in a while, is heard until the bound or the deadline and no longer.
    #[tokio::test(start_paused = true)]
    async fn a_drip_ends_at_the_deadline() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        tokio::spawn(async move {
            let _ = theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if theirs.write_all(b"x").await.is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + Duration::from_secs(5);
        let head = read_head(&mut ours, Vec::new(), deadline, &mut Evidence::default()).await.unwrap();
        let body = read_body(&mut ours, &head, MAX_BODY, deadline).await;
        assert_eq!(Instant::now(), deadline);
        assert!(!body.whole && body.len() >= 48, "{}", body.len());
    }
}

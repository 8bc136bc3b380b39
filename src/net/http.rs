//! HTTP/1.1 as a client that trusts nothing: bounded heads and bodies, interim responses skipped, every byte kept apart.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::tls;
use crate::observation::{Evidence, Outcome};

/// The longest head that is read (RFC 9112 leaves the bound to the recipient).
const MAX_HEAD: usize = 32 * 1024;
/// The most header lines that are read.
const MAX_HEADERS: usize = 100;
/// The most interim responses (RFC 9110 section 15.2) before a final one.
const MAX_INTERIM: usize = 8;
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
pub async fn read_head<S>(stream: &mut S, mut read: Vec<u8>, deadline: Instant, evidence: &mut Evidence) -> Result<Head, Outcome>
where
    S: AsyncRead + Unpin,
{
    let mut interim = 0;
    loop {
        match parse(&read) {
            Parsed::Final(head) => {
                evidence.status = Some(head.status);
                note_head(&read, evidence);
                return Ok(head);
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

/// Reads the body of an answer to a request that was not HEAD, at most [`MAX_BODY`]; what came before a failure is kept (RFC 9112 section 6).
pub async fn read_body<S>(stream: &mut S, head: &Head, deadline: Instant) -> Vec<u8>
where
    S: AsyncRead + Unpin,
{
    if matches!(head.status, 204 | 304) {
        return Vec::new();
    }
    let chunked = head.header("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked"));
    let length = head.header("content-length").and_then(|v| v.trim().parse::<usize>().ok());
    let wanted = length.unwrap_or(MAX_BODY).min(MAX_BODY);
    let mut raw = head.rest.clone();
    let mut chunks = Chunks::default();
    let mut unused = Evidence::default();
    loop {
        let done = if chunked { chunks.join(&raw) } else { raw.len() >= wanted };
        if done || raw.len() >= MAX_BODY || more(stream, &mut raw, deadline, &mut unused).await.is_err() {
            break;
        }
    }
    if chunked {
        return chunks.with_the_rest(&raw);
    }
    raw.truncate(wanted);
    raw
}

/// The chunks of a body (RFC 9112 section 7.1), joined as they come in: each byte is looked at once.
#[derive(Debug, Default)]
struct Chunks {
    body: Vec<u8>,
    /// Where the next chunk begins.
    at: usize,
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
                _ if size == 0 => return true,
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
                let length = head.header("content-length").and_then(|v| v.trim().parse::<usize>().ok());
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
            Parsed::Partial | Parsed::Bad => break,
        }
    }
    found
}

enum Parsed {
    Partial,
    Interim(usize),
    Final(Head),
    Bad,
}

fn parse(read: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(read) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Bad,
    };
    match response.code {
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

    async fn read(sent: &[u8]) -> (Result<Head, Outcome>, Vec<u8>) {
        let mut stream = sent;
        let deadline = Instant::now() + Duration::from_secs(5);
        let head = read_head(&mut stream, Vec::new(), deadline, &mut Evidence::default()).await;
        let body = match &head {
            Ok(head) => read_body(&mut stream, head, deadline).await,
            Err(_) => Vec::new(),
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
        assert_eq!(body, b"no");
    }

    #[tokio::test]
    async fn chunks_are_joined() {
        let (_, body) = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n").await;
        assert_eq!(body, b"hello!");
        let (_, cut) = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel").await;
        assert_eq!(cut, b"hel");
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
}

//! One request head: read within bounds, parsed once, and refused where it is anything but plain.

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::proxy::proxy_header;
use crate::target::{HostPort, Url};

/// The most header lines a head may have.
pub const MAX_HEADERS: usize = 64;
/// How much of what a client sent is kept for the log; longer is cut.
const KEPT: usize = 256;
/// Bytes that are enough to know a PROXY header from a request.
const SIGNATURE: usize = 6;
/// How much is read at once.
const CHUNK: usize = 4096;

/// A request whose head is whole and well-formed.
#[derive(Debug)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// The request target as typed, for the log; bounded, without user, password and query.
    pub target: Vec<u8>,
    /// The `User-Agent`, for the log; bounded.
    pub user_agent: Vec<u8>,
    /// The minor version: HTTP/1.0 or HTTP/1.1.
    pub minor: u8,
    /// What came behind the head, to be forwarded once a tunnel stands.
    pub early: Vec<u8>,
}

/// The method, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// CONNECT and its authority (RFC 9110 section 9.3.6).
    Connect(HostPort),
    /// A method that can be forwarded, with a target in absolute form (RFC 9112 section 3.2.2).
    Forward(Box<Forward>),
    /// Any other; methods are case-sensitive (RFC 9110 section 9.1), so `connect` is one of these.
    Other(String),
}

/// A request to be forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// One of [`FORWARDED`].
    pub method: &'static str,
    /// Where to: the authority of the target, port 80 where it names none. What `Host` says counts for nothing.
    pub to: HostPort,
    /// The rest of the target.
    pub path: PathAndQuery,
    /// The whole head as it came, for who reads the body behind it.
    pub head: Vec<u8>,
}

/// The methods that are forwarded. TRACE would show a client's headers to a page; others are seldom asked for by anybody who means well.
pub const FORWARDED: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Why there is no request.
#[derive(Debug)]
pub struct Malformed {
    /// What is wrong, in words.
    pub why: String,
    /// The first line of what was sent, for the log; bounded, without user, password and query.
    pub begin: Vec<u8>,
    /// Whether the client closed without a word, as a load balancer's health check does.
    pub silent: bool,
    /// Whether it begins as a PROXY header does, where none may be.
    pub stray_header: bool,
}

/// Reads one head of at most `max_head` bytes within `limit`.
///
/// # Errors
/// What is wrong with it; a head that is not whole in time is malformed too.
pub async fn read(from: &mut (impl AsyncRead + Unpin), max_head: usize, limit: Duration) -> Result<Request, Malformed> {
    let mut seen = Vec::new();
    let read = tokio::time::timeout(limit, read_whole(from, max_head, &mut seen)).await;
    let (why, in_time) = match read {
        Ok(Ok(request)) => return Ok(request),
        Ok(Err(why)) => (why, true),
        Err(_) => (format!("the request head was not whole within {limit:?}"), false),
    };
    let silent = seen.is_empty() && in_time;
    let stray_header = seen.len() >= SIGNATURE && proxy_header::may_begin(&seen);
    Err(Malformed { why, begin: loggable(&seen), silent, stray_header })
}

async fn read_whole(from: &mut (impl AsyncRead + Unpin), max_head: usize, seen: &mut Vec<u8>) -> Result<Request, String> {
    let mut chunk = [0; CHUNK];
    loop {
        let room = max_head.saturating_sub(seen.len()).min(CHUNK);
        if room == 0 {
            return Err(format!("the request head is longer than {max_head} bytes"));
        }
        let part = chunk.get_mut(..room).unwrap_or_default();
        let count = from.read(part).await.map_err(|e| format!("the connection failed: {e}"))?;
        if count == 0 {
            return Err("the connection ended within the request head".into());
        }
        seen.extend_from_slice(part.get(..count).unwrap_or_default());
        if let Some(request) = parse(seen)? {
            return Ok(request);
        }
    }
}

/// Parses what has come so far; nothing, where the head is not yet whole.
///
/// # Errors
/// What makes it no request that this proxy would answer with anything but 400.
pub fn parse(bytes: &[u8]) -> Result<Option<Request>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(format!("the head has more than {MAX_HEADERS} header lines")),
        Err(error) => return Err(format!("the head is not HTTP/1: {error}")),
    };
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Err("the request line is not whole".into());
    };
    let named = |name: &'static str| head.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    // what a Host says decides nothing, so it may differ or be missing; two are a sign of somebody who wants two readers to differ
    if named("host").nth(1).is_some() {
        return Err("the head has more than one Host (RFC 9112 section 3.2)".into());
    }
    let lengths: Vec<&[u8]> = named("content-length").collect();
    let codings: Vec<&[u8]> = named("transfer-encoding").collect();
    let kind = if method == "CONNECT" {
        if !codings.is_empty() {
            return Err("a CONNECT has no body, so no Transfer-Encoding".into());
        }
        // some clients say that there is no body (WinHTTP); once is enough
        if !matches!(lengths.as_slice(), [] | [b"0"]) {
            return Err("a CONNECT has no body, so no Content-Length".into());
        }
        Method::Connect(target.parse()?)
    } else {
        framing(&lengths, &codings, minor)?;
        match (FORWARDED.into_iter().find(|known| *known == method), absolute(target)?) {
            (Some(method), Some((to, path))) => {
                if method == "OPTIONS" && named("max-forwards").any(|value| value == b"0") {
                    return Err("Max-Forwards is 0, and this proxy answers no OPTIONS itself (RFC 9110 section 7.6.2)".into());
                }
                if minor > 0 && named("host").next().is_none() {
                    return Err("the head has no Host (RFC 9112 section 3.2)".into());
                }
                if named("expect").any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
                    return Err("the head expects something else than 100-continue (RFC 9110 section 10.1.1)".into());
                }
                let head = bytes.get(..length).unwrap_or_default().to_vec();
                Method::Forward(Box::new(Forward { method, to, path, head }))
            }
            (_, _) => Method::Other(method.chars().take(KEPT).collect()),
        }
    };
    let mut user_agent = named("user-agent").next().unwrap_or_default().to_vec();
    user_agent.truncate(KEPT);
    let early = bytes.get(length..).unwrap_or_default().to_vec();
    Ok(Some(Request { method: kind, target: loggable(target.as_bytes()), user_agent, minor, early }))
}

/// Refuses every framing that two readers may read differently (RFC 9112 section 6.3): whoever sends one means to be misread.
pub(super) fn framing(lengths: &[&[u8]], codings: &[&[u8]], minor: u8) -> Result<(), String> {
    match (lengths, codings) {
        ([], []) => Ok(()),
        ([length], []) => {
            let plain = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(length).ok().filter(|_| plain).and_then(|text| text.parse::<u64>().ok());
            number.map(|_| ()).ok_or_else(|| "Content-Length is not a plain number".into())
        }
        ([], [coding]) if minor == 0 => {
            Err(format!("Transfer-Encoding {:?} in HTTP/1.0 (RFC 9112 section 6.1)", String::from_utf8_lossy(coding)))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(()),
        ([], _) => Err("Transfer-Encoding is something else than one \"chunked\"".into()),
        (_, []) => Err("the head has more than one Content-Length".into()),
        (_, _) => Err("the head has both Content-Length and Transfer-Encoding".into()),
    }
}

/// The parts of a target in absolute form with the scheme `http`, read as the monitor reads its own; nothing, where it is of another form
/// or scheme.
fn absolute(target: &str) -> Result<Option<(HostPort, PathAndQuery)>, String> {
    if !target.get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case("http://")) {
        return Ok(None);
    }
    let Url { authority, path, .. } = target.parse()?;
    let path = PathAndQuery::try_from(path).map_err(|e| format!("the target's path is not one: {e}"))?;
    Ok(Some((authority, path)))
}

/// The first line of `bytes`, as far as it may stand in a log: no header (which may carry credentials), no query, no user and password.
pub(super) fn loggable(bytes: &[u8]) -> Vec<u8> {
    let line = bytes.split(|b| matches!(b, b'\r' | b'\n')).find(|line| !line.is_empty()).unwrap_or_default();
    let line = line.split(|b| *b == b'?').next().unwrap_or_default();
    let Some(at) = line.iter().rposition(|b| *b == b'@') else {
        return line.iter().take(KEPT).copied().collect();
    };
    let (before, after) = line.split_at(at);
    let slashes = before.windows(2).position(|pair| pair == b"//").map(|i| i + 2);
    let begin = slashes.or_else(|| before.iter().position(|b| *b == b' ').map(|i| i + 1)).unwrap_or(0);
    before.iter().take(begin).chain(b"***").chain(after).take(KEPT).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(authority: &str) -> Result<String, String> {
        let head = format!("CONNECT {authority} HTTP/1.1\r\n\r\n");
        match parse(head.as_bytes())?.ok_or("partial")?.method {
            Method::Connect(to) => Ok(to.to_string()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn authorities_both_sides_of_the_border() {
        let good = [
            ("example.com:443", "example.com:443"),
            ("EXAMPLE.com.:443", "example.com:443"),
            ("192.0.2.1:1", "192.0.2.1:1"),
            ("[::1]:65535", "[::1]:65535"),
            // What is dialled is the IPv4 address.
            ("[::ffff:127.0.0.1]:443", "127.0.0.1:443"),
            ("1.example:443", "1.example:443"),
        ];
        for (typed, read) in good {
            assert_eq!(connect(typed), Ok(read.to_string()), "{typed}");
        }
        let bad = [
            "",
            "example.com",
            "example.com:",
            ":443",
            "example.com:0",
            "example.com:007",
            "example.com:65536",
            "example.com:99999",
            "example.com:4294967739",
            "example.com:-1",
            "example.com:+443",
            "example.com:https",
            "example.com:443x",
            "example.com:443:443",
            "example.com:443/",
            "example.com:443@evil",
            "user@example.com:443",
            "user:pass@example.com:443",
            "http://example.com:443",
            "http://example.com:443/",
            "/",
            "*",
            "[example.com]:443",
            "[[example.com]]:443",
            "[127.0.0.1]:443",
            "[::1]",
            "[::1]443",
            "::1:443",
            "[fe80::1%25eth0]:443",
            "[fe80::1%eth0]:443",
            "127.1:443",
            "127.0.0.1.:443",
            "127.0.0.01:443",
            "0x7f.1:443",
            "0x7f000001:443",
            "017700000001:443",
            "2130706433:443",
            "0:443",
            "a..b:443",
            "..:443",
            "%31.2.3.4:443",
            "example.com%00:443",
            "example.com\t:443",
            "example.com :443",
            "ex\u{b9}mple.com:443",
            "example\u{3002}com:443",
            "\u{ff11}27.0.0.1:443",
            "a b:443",
            "example.com:443 HTTP/1.1 x",
        ];
        for typed in bad {
            assert!(connect(typed).is_err(), "{typed:?} was read as {:?}", connect(typed));
        }
    }

    #[test]
    fn heads_both_sides_of_the_border() {
        let line = "CONNECT a.example:443 HTTP/1.1\r\n";
        let many = |n: usize| (0..n).map(|i| format!("x{i}: y\r\n")).collect::<String>();
        let good = [
            "CONNECT a.example:443 HTTP/1.0\r\n\r\n".to_string(),
            format!("{line}\r\n"),
            format!("{line}Host: other.example\r\n\r\n"),
            format!("{line}Content-Length: 0\r\n\r\n"),
            format!("{line}{}\r\n", many(MAX_HEADERS)),
            "CONNECT a.example:443 HTTP/1.1\nHost: a\n\n".to_string(),
        ];
        for head in good {
            assert!(matches!(parse(head.as_bytes()), Ok(Some(_))), "{head:?}");
        }
        let bad = [
            format!("{line}Host: a\r\nHost: a\r\n\r\n"),
            format!("{line}Content-Length: 1\r\n\r\n"),
            format!("{line}Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
            format!("{line}Transfer-Encoding: chunked\r\n\r\n"),
            format!("{line}{}\r\n", many(MAX_HEADERS + 1)),
            format!("{line}X: a\r\n folded: b\r\n\r\n"),
            format!("{line}X : a\r\n\r\n"),
            format!("{line}X: a\0b\r\n\r\n"),
            format!("{line}X: a\rb\r\n\r\n"),
            "CONNECT a.example:443\r\n\r\n".to_string(),
            "CONNECT a.example:443 HTTP/2.0\r\n\r\n".to_string(),
            "CONNECT  a.example:443 HTTP/1.1\r\n\r\n".to_string(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_string(),
            "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".to_string(),
            "\x05\x01\x00".to_string(),
            "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nCONNECT a.example:443 HTTP/1.1\r\n\r\n".to_string(),
        ];
        for head in bad {
            assert!(parse(head.as_bytes()).is_err(), "{head:?}");
        }
    }

    /// What a head in absolute form is read as: method, destination and path.
    fn forwarded(head: &str) -> Result<String, String> {
        match parse(head.as_bytes())?.ok_or("partial")?.method {
            Method::Forward(forward) => Ok(format!("{} {} {}", forward.method, forward.to, forward.path)),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn absolute_form_both_sides_of_the_border() {
        let good = [
            ("GET http://a.example/ HTTP/1.1\r\nHost: b\r\n\r\n", "GET a.example:80 /"),
            ("GET HTTP://A.example.:8080/p%2fq?x=/../ HTTP/1.1\r\nHost:\r\n\r\n", "GET a.example:8080 /p%2fq?x=/../"),
            ("HEAD http://[::1]:81?x HTTP/1.1\r\nHost: b\r\n\r\n", "HEAD [::1]:81 /?x"),
            ("POST http://a.example HTTP/1.0\r\nContent-Length: 5\r\n\r\n", "POST a.example:80 /"),
            ("PUT http://a.example/ HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: Chunked\r\n\r\n", "PUT a.example:80 /"),
            ("POST http://a.example/ HTTP/1.1\r\nHost: b\r\nExpect: 100-Continue\r\n\r\n", "POST a.example:80 /"),
        ];
        for (head, read) in good {
            assert_eq!(forwarded(head).as_deref(), Ok(read), "{head:?}");
        }
        for target in [
            "/",
            "*",
            "a.example:80",
            "https://a.example/",
            "ftp://a.example/",
            "//a.example/",
            "http:/a.example/",
            "http://",
            "http:///",
            "http://:80/",
            "http://a.example:/",
            "http://a.example:0/",
            "http://a.example:080/",
            "http://a.example:65616/",
            "http://a.example:80:80/",
            "http://u@a.example/",
            "http://u:p@a.example/",
            "http://127.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://127.0.0.1./",
            "http://[127.0.0.1]/",
            "http://[fe80::1%25eth0]/",
            "http://a.example\\@b/",
            "http://a.example/#x",
            "http://a..example/",
            "http://\u{ff11}27.0.0.1/",
            "http://a.example/\u{e9}",
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: b\r\n\r\n");
            assert!(forwarded(&head).is_err(), "{target} was read as {:?}", forwarded(&head));
        }
        for method in ["TRACE", "TRACK", "PROPFIND", "get", "PURGE"] {
            assert!(forwarded(&format!("{method} http://a.example/ HTTP/1.1\r\nHost: b\r\n\r\n")).is_err(), "{method}");
        }
    }

    #[test]
    fn framing_that_two_readers_may_read_differently_is_refused() {
        let with = |fields: &str| format!("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
        for good in ["", "Content-Length: 0\r\n", "Content-Length: 007\r\n", "content-length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            assert!(forwarded(&with(good)).is_ok(), "{good:?}: {:?}", forwarded(&with(good)));
        }
        for bad in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            " Transfer-Encoding: chunked\r\n",
            "X: y\r\n Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding\t: chunked\r\n",
            "Host: b.example\r\n",
            "Expect: 200-ok\r\n",
        ] {
            assert!(forwarded(&with(bad)).is_err(), "{bad:?}");
        }
        assert!(forwarded("POST http://a.example/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(forwarded("GET http://a.example/ HTTP/1.1\r\n\r\n").is_err(), "no Host");
        for (method, hops, read) in [("OPTIONS", "0", false), ("OPTIONS", "1", true), ("GET", "0", true)] {
            let head = format!("{method} http://a.example/ HTTP/1.1\r\nHost: b\r\nMax-Forwards: {hops}\r\n\r\n");
            assert_eq!(forwarded(&head).is_ok(), read, "{method} {hops}");
        }
        assert!(forwarded("GET http://a.example/ HTTP/1.0\r\n\r\n").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_a_head_is_read_once(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_is_read_as_an_authority_is_written_as_it_is_dialled(
            host in "[a-zA-Z0-9.%@:\\[\\]\\-_/\\\\]{0,20}", port in "[0-9+x-]{0,6}",
        ) {
            if let Ok(read) = connect(&format!("{host}:{port}")) {
                // another reader of the same line sees the same destination
                let theirs: http::uri::Authority = format!("{host}:{port}").parse().unwrap();
                proptest::prop_assert_eq!(theirs.port_u16().map(|p| read.ends_with(&format!(":{p}"))), Some(true), "{}", read);
                let ours = read.rsplit_once(':').unwrap().0;
                if !ours.starts_with('[') && theirs.host() != ours {
                    proptest::prop_assert_eq!(theirs.host().trim_end_matches('.').to_ascii_lowercase(), ours);
                }
                proptest::prop_assert_eq!(connect(&read), Ok(read.clone()), "{}", read);
            }
        }
    }

    #[test]
    fn every_cut_of_a_head_waits_for_more_and_the_rest_is_early() {
        let whole = b"CONNECT a.example:443 HTTP/1.1\r\nUser-Agent: t/1\r\n\r\nearly\r\n\r\n";
        let end = whole.len() - b"early\r\n\r\n".len();
        for cut in 0..end {
            assert!(matches!(parse(&whole[..cut]), Ok(None)), "{cut}");
        }
        let request = parse(whole).unwrap().unwrap();
        assert_eq!(request.early, b"early\r\n\r\n");
        assert_eq!(request.user_agent, b"t/1");
        assert_eq!(request.minor, 1);
    }

    #[test]
    fn the_log_gets_one_line_without_secrets() {
        for (sent, kept) in [
            ("CONNECT bad HTTP/1.1\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n", "CONNECT bad HTTP/1.1"),
            ("\r\n\nCONNECT bad\nX: secret", "CONNECT bad"),
            ("CONNECT user:secret@h:443 HTTP/1.1", "CONNECT ***@h:443 HTTP/1.1"),
            ("user:secret@h:443", "***@h:443"),
            ("http://user:secret@h/path?token=secret", "http://***@h/path"),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8_lossy(&loggable(sent.as_bytes())), kept);
        }
        assert_eq!(loggable(&[b'x'; 1000]).len(), KEPT);
    }

    #[test]
    fn methods_are_case_sensitive() {
        for method in ["connect", "Connect", "GET", "TRACE"] {
            let request = parse(format!("{method} a.example:443 HTTP/1.1\r\n\r\n").as_bytes()).unwrap().unwrap();
            assert_eq!(request.method, Method::Other(method.into()));
        }
    }

    #[tokio::test]
    async fn a_head_may_be_as_long_as_allowed_and_no_longer() {
        let pad = |total: usize| {
            let frame = "CONNECT a.example:443 HTTP/1.1\r\nx: \r\n\r\n".len();
            format!("CONNECT a.example:443 HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(total - frame))
        };
        let limit = Duration::from_secs(5);
        assert!(read(&mut pad(16384).as_bytes(), 16384, limit).await.is_ok());
        let refused = read(&mut pad(16385).as_bytes(), 16384, limit).await.unwrap_err();
        assert_eq!(refused.why, "the request head is longer than 16384 bytes");
        assert!(!refused.silent);
        assert!(read(&mut b"".as_slice(), 16384, limit).await.unwrap_err().silent);
        assert!(!read(&mut b"C".as_slice(), 16384, limit).await.unwrap_err().silent);
    }
}

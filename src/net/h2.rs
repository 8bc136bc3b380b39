//! HTTP/2 (RFC 9113) as a client of one request a connection: what it ended in is told apart as for HTTP/1.1, and the frame
//! that ended it stands in the evidence.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use h2::Reason;
use h2::client::{Builder, Connection, ResponseFuture};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::http::{self, Body, Head};
use super::tls;
use crate::observation::{Evidence, Outcome};

/// The protocol's name in ALPN (RFC 9113 section 3.1).
pub const ALPN: &str = "h2";
/// The longest list of response headers that is taken, as for HTTP/1.1.
const MAX_HEADERS: u32 = 32 * 1024;
/// Bytes that are kept of what came first, to tell what is spoken by somebody who does not speak HTTP/2: more than the library
/// reads at once, so that nothing of an answer in HTTP/1 is lost to it.
const FIRST: usize = 16 * 1024;

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `:method`
    pub method: &'a str,
    /// `:scheme`
    pub scheme: &'a str,
    /// `:authority`
    pub authority: &'a str,
    /// `:path`, as typed.
    pub path: &'a str,
    /// The others; what belongs to one connection of HTTP/1.1 (RFC 9113 section 8.2.2) is left out.
    pub headers: &'a [(String, String)],
    /// The stream to ask on: 1, or 3 after an upgrade, where 1 is the request that asked for it (RFC 7540 section 3.2).
    pub stream: u32,
    /// How much of the body is read; none where it is not wanted.
    pub body: usize,
}

/// How a request ended that has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAnswer {
    /// What happened.
    pub outcome: Outcome,
    /// Whether the server has looked at the request.
    pub heard: Heard,
}

/// What an end without an answer says of the request (RFC 9113 section 8.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The server ended this very request: RST_STREAM.
    Yes,
    /// By its own word it has not looked at it: REFUSED_STREAM, or a GOAWAY that names an earlier stream as the last.
    No,
    /// It does not say: the connection ended, or time was up.
    Unknown,
}

impl NoAnswer {
    fn of(outcome: Outcome) -> NoAnswer {
        NoAnswer { outcome, heard: Heard::Unknown }
    }
}

/// Sends the request and reads the answer, until `deadline`; `early` is what was read of the stream already. Who knows no HTTP/2
/// may answer in HTTP/1: that is an answer, too.
///
/// # Errors
/// `reset`, `closed` or `mute` where no final head came, by TCP or by a frame; `bad-http` for what is not HTTP;
/// `local-error` for a request that HTTP/2 cannot carry, or that the server wants by HTTP/1.1 only.
pub async fn exchange<S>(
    mut stream: S,
    early: Vec<u8>,
    request: Request<'_>,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Result<(Head, Body), NoAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = written(&request).map_err(|why| {
        evidence.detail = Some(format!("HTTP/2 cannot carry this request: {why}; write alpn = [\"http/1.1\"]"));
        NoAnswer::of(Outcome::LocalError)
    })?;
    let tap = Tap { stream: &mut stream, early: io::Cursor::new(early), seen: Arc::default() };
    let seen = Arc::clone(&tap.seen);
    let mut head = None;
    let asking = async {
        let mut builder = Builder::new();
        builder.enable_push(false).max_header_list_size(MAX_HEADERS).initial_stream_id(request.stream);
        let (mut sender, connection) = builder.handshake::<_, &[u8]>(tap).await?;
        let mut connection = Driven { connection, over: None };
        // The streams of this connection are numbered by us, so one is free at once.
        let (response, _) = sender.send_request(asked, true)?;
        let (answer, body) = connection.head(response).await?;
        head = Some(answer);
        Ok(connection.body(body, request.body).await)
    };
    let ended: Result<Result<Body, h2::Error>, _> = timeout_at(deadline, asking).await;
    let Some(head) = head else {
        let Some(error) = ended.ok().and_then(Result::err) else { return Err(NoAnswer::of(Outcome::Mute)) };
        let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        if !seen.first.starts_with(b"HTTP/1.") {
            return Err(without_head(&error, &seen, request.stream, evidence));
        }
        let cut = seen.first.len() == FIRST;
        let head = http::read_head(&mut stream, seen.first, deadline, evidence).await;
        let head = head.map_err(|_| NoAnswer::of(Outcome::BadHttp))?;
        let body = if request.body > 0 { http::read_body(&mut stream, &head, request.body, deadline).await } else { Body::default() };
        return Ok((head, Body { whole: body.whole && !cut, ..body }));
    };
    note_head(&head, evidence);
    if !(200..=599).contains(&head.status) {
        return Err(NoAnswer::of(Outcome::BadHttp));
    }
    evidence.status = Some(head.status);
    // A body whose end did not come in time was not read whole.
    Ok((head, ended.ok().and_then(Result::ok).unwrap_or_default()))
}

/// The request as the library wants it.
fn written(request: &Request<'_>) -> Result<::http::Request<()>, ::http::Error> {
    let uri = ::http::Uri::builder().scheme(request.scheme).authority(request.authority).path_and_query(request.path).build()?;
    let mut asked = ::http::Request::builder().method(request.method).version(::http::Version::HTTP_2).uri(uri);
    for (name, value) in request.headers.iter().filter(|(name, _)| !is_of_connection(name)) {
        asked = asked.header(name, value);
    }
    asked.body(())
}

fn is_of_connection(name: &str) -> bool {
    ["connection", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"]
        .iter()
        .any(|own| name.eq_ignore_ascii_case(own))
}

/// What it means that no final head came, and that what came is not HTTP/1.
fn without_head(error: &h2::Error, seen: &Seen, stream: u32, evidence: &mut Evidence) -> NoAnswer {
    // What the library says of a connection that broke is that it broke, though a GOAWAY came first.
    let ended_by = match goaway(&seen.first) {
        _ if error.is_remote() && error.is_reset() => match error.reason().unwrap_or(Reason::NO_ERROR) {
            Reason::REFUSED_STREAM => Some((Outcome::Reset, Reason::REFUSED_STREAM, Heard::No)),
            reason => Some((Outcome::Reset, reason, Heard::Yes)),
        },
        Some((last, reason)) => Some((Outcome::Closed, reason, if last < stream { Heard::No } else { Heard::Unknown })),
        None => error.reason().filter(|_| error.is_remote()).map(|reason| (Outcome::Closed, reason, Heard::Unknown)),
    };
    if let Some((outcome, reason, heard)) = ended_by {
        let frame = if outcome == Outcome::Reset { "RST_STREAM" } else { "GOAWAY" };
        if reason == Reason::HTTP_1_1_REQUIRED {
            evidence.detail = Some(format!("{frame}: it answers this request by HTTP/1.1 only; write alpn = [\"http/1.1\"]"));
            return NoAnswer::of(Outcome::LocalError);
        }
        evidence.detail = Some(format!("{frame} with {}", name(reason)));
        return NoAnswer { outcome, heard };
    }
    if error.is_library() {
        http::note_head(&seen.first, evidence);
        evidence.detail = Some(format!("what came is not HTTP/2: {}", error.reason().map_or("unknown", name)));
        return NoAnswer::of(Outcome::BadHttp);
    }
    if let Some(failed) = &seen.failed {
        return NoAnswer::of(tls::refusal(failed, evidence));
    }
    NoAnswer::of(if seen.ended { Outcome::Closed } else { Outcome::BadHttp })
}

/// The last stream and the reason of the newest GOAWAY among these frames (RFC 9113 sections 4.1 and 6.8), as far as they are whole:
/// who means to end soon may say so twice, and only the second one names the last stream.
fn goaway(mut frames: &[u8]) -> Option<(u32, Reason)> {
    const GOAWAY: u8 = 7;
    const STREAM: u32 = u32::MAX >> 1;
    let mut newest = None;
    while let Some((head, rest)) = frames.split_first_chunk::<9>() {
        let [a, b, c, kind, ..] = *head;
        let Some((payload, more)) = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok().and_then(|length| rest.split_at_checked(length))
        else {
            break;
        };
        if kind == GOAWAY
            && let Some((last, rest)) = payload.split_first_chunk::<4>()
            && let Some(reason) = rest.first_chunk::<4>()
        {
            newest = Some((u32::from_be_bytes(*last) & STREAM, u32::from_be_bytes(*reason).into()));
        }
        frames = more;
    }
    newest
}

/// A reason's name (RFC 9113 section 7).
fn name(reason: Reason) -> &'static str {
    match u32::from(reason) {
        0x0 => "NO_ERROR",
        0x1 => "PROTOCOL_ERROR",
        0x2 => "INTERNAL_ERROR",
        0x3 => "FLOW_CONTROL_ERROR",
        0x4 => "SETTINGS_TIMEOUT",
        0x5 => "STREAM_CLOSED",
        0x6 => "FRAME_SIZE_ERROR",
        0x7 => "REFUSED_STREAM",
        0x8 => "CANCEL",
        0x9 => "COMPRESSION_ERROR",
        0xa => "CONNECT_ERROR",
        0xb => "ENHANCE_YOUR_CALM",
        0xc => "INADEQUATE_SECURITY",
        0xd => "HTTP_1_1_REQUIRED",
        _ => "a reason of its own",
    }
}

fn note_head(head: &Head, evidence: &mut Evidence) {
    let lines = head.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    http::note_head(format!("HTTP/2 {}\r\n{}\r\n", head.status, lines.collect::<String>()).as_bytes(), evidence);
}

/// A connection that moves only while something is waited for on it.
struct Driven<S: AsyncRead + AsyncWrite + Unpin> {
    connection: Connection<S, &'static [u8]>,
    /// How it ended.
    over: Option<Result<(), h2::Error>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driven<S> {
    /// Lets it move as far as it can.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.over.is_none()
            && let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx)
        {
            self.over = Some(ended);
        }
    }

    /// The final response head, past a bounded number of interim ones.
    async fn head(&mut self, mut response: ResponseFuture) -> Result<(Head, h2::RecvStream), h2::Error> {
        let mut interim = 0;
        let mut failed = None;
        let answer = poll_fn(|cx| {
            self.drive(cx);
            while let Poll::Ready(Some(head)) = response.poll_informational(cx) {
                head?;
                interim += 1;
                if interim > http::MAX_INTERIM {
                    return Poll::Ready(Err(Reason::ENHANCE_YOUR_CALM.into()));
                }
            }
            if failed.is_none() {
                match Pin::new(&mut response).poll(cx) {
                    Poll::Ready(Err(error)) if !error.is_remote() => failed = Some(error),
                    Poll::Ready(answer) => return Poll::Ready(answer),
                    Poll::Pending => {}
                }
            }
            // That the connection broke is what the response knows; why, the connection.
            match (self.over.take(), failed.take()) {
                (Some(Err(why)), Some(failed)) => Poll::Ready(Err(if why.is_remote() { why } else { failed })),
                (Some(Err(why)), None) => Poll::Ready(Err(why)),
                (Some(Ok(())), Some(failed)) => Poll::Ready(Err(failed)),
                (over, still) => {
                    (self.over, failed) = (over, still);
                    Poll::Pending
                }
            }
        });
        let (parts, body) = answer.await?.into_parts();
        let text = |value: &::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_string(), text(value))).collect();
        Ok((Head { status: parts.status.as_u16(), headers, rest: Vec::new() }, body))
    }

    /// The body, at most `limit` bytes of it.
    async fn body(&mut self, mut stream: h2::RecvStream, limit: usize) -> Body {
        let mut body = Body::default();
        if limit == 0 {
            return body;
        }
        poll_fn(|cx| {
            self.drive(cx);
            while body.bytes.len() < limit {
                match ready!(stream.poll_data(cx)) {
                    Some(Ok(data)) => {
                        let room = limit - body.bytes.len();
                        body.bytes.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                        // Whoever sent more than the window has broken the protocol, which the connection notes itself.
                        let _ = stream.flow_control().release_capacity(data.len());
                    }
                    Some(Err(_)) => return Poll::Ready(()),
                    None => {
                        body.whole = true;
                        return Poll::Ready(());
                    }
                }
            }
            Poll::Ready(())
        })
        .await;
        body
    }
}

/// What a tap has seen of the other side.
#[derive(Debug, Default)]
struct Seen {
    /// The first bytes, at most [`FIRST`].
    first: Vec<u8>,
    /// It sent a FIN.
    ended: bool,
    /// How reading or writing failed.
    failed: Option<io::Error>,
}

/// A stream that keeps how it began and ended, which the library does not tell.
struct Tap<S> {
    stream: S,
    early: io::Cursor<Vec<u8>>,
    seen: Arc<Mutex<Seen>>,
}

impl<S> Tap<S> {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn failed<T>(&self, error: io::Error) -> Poll<io::Result<T>> {
        let told = io::Error::new(error.kind(), error.to_string());
        self.note(|seen| {
            seen.failed.get_or_insert(error);
        });
        Poll::Ready(Err(told))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tap = self.get_mut();
        let before = buffer.filled().len();
        let mut both = (&mut tap.early).chain(&mut tap.stream);
        if let Err(error) = ready!(Pin::new(&mut both).poll_read(cx, buffer)) {
            return tap.failed(error);
        }
        let read = buffer.filled().get(before..).unwrap_or_default();
        tap.note(|seen| {
            seen.ended |= read.is_empty();
            let room = FIRST.saturating_sub(seen.first.len());
            seen.first.extend_from_slice(read.get(..room.min(read.len())).unwrap_or_default());
        });
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let tap = self.get_mut();
        match ready!(Pin::new(&mut tap.stream).poll_write(cx, bytes)) {
            Ok(written) => Poll::Ready(Ok(written)),
            Err(error) => {
                // A request that could not be sent whole may still have been answered: that is heard by reading on.
                let _: Poll<io::Result<()>> = tap.failed(error);
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tap = self.get_mut();
        match ready!(Pin::new(&mut tap.stream).poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => {
                let _: Poll<io::Result<()>> = tap.failed(error);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// What the exchange comes to with whoever `serve` is.
    async fn with<F>(serve: impl FnOnce(DuplexStream) -> F, limit: usize) -> (Result<(Head, Body), NoAnswer>, Evidence)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (ours, theirs) = duplex(1 << 16);
        let server = tokio::spawn(serve(theirs));
        let mut evidence = Evidence::default();
        let request =
            Request { method: "GET", scheme: "http", authority: "a.example", path: "//admin", headers: &[], stream: 1, body: limit };
        let deadline = Instant::now() + Duration::from_millis(300);
        let ended = exchange(ours, Vec::new(), request, deadline, &mut evidence).await;
        assert!(Instant::now() < deadline + Duration::from_millis(200), "past its deadline");
        server.abort();
        (ended, evidence)
    }

    type Requests = h2::server::Connection<DuplexStream, &'static [u8]>;

    async fn accept(stream: DuplexStream) -> (Requests, h2::server::SendResponse<&'static [u8]>, ::http::Request<h2::RecvStream>) {
        let mut connection: Requests = h2::server::Builder::new().handshake(stream).await.unwrap();
        let (request, respond) = connection.accept().await.unwrap().unwrap();
        (connection, respond, request)
    }

    fn head(status: u16) -> ::http::Response<()> {
        ::http::Response::builder().status(status).header("x-own", "1").body(()).unwrap()
    }

    async fn go_on(mut connection: Requests) {
        while connection.accept().await.is_some() {}
        // The other direction stays open, as that of a socket does after a FIN.
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn an_answer_past_interim_ones_with_the_path_as_typed() {
        let (ended, evidence) = with(
            |stream| async {
                let (connection, mut respond, request) = accept(stream).await;
                assert_eq!(request.uri().path(), "//admin");
                respond.send_informational(::http::Response::builder().status(103).body(()).unwrap()).unwrap();
                let mut body = respond.send_response(head(403), false).unwrap();
                body.send_data(b"marker", true).unwrap();
                go_on(connection).await;
            },
            1000,
        )
        .await;
        let (head, body) = ended.unwrap();
        assert_eq!((head.status, head.header("x-own"), &*body, body.whole), (403, Some("1"), &b"marker"[..], true));
        assert_eq!(evidence.status, Some(403));
        assert!(evidence.head.unwrap().starts_with("HTTP/2 403\nx-own: 1"));
    }

    #[tokio::test]
    async fn bodies_end_at_their_bound_and_say_so() {
        for (limit, length, whole) in [(3, 3, false), (6, 6, false), (7, 6, true), (0, 0, false)] {
            let (ended, _) = with(
                |stream| async {
                    let (connection, mut respond, _) = accept(stream).await;
                    respond.send_response(head(200), false).unwrap().send_data(b"marker", true).unwrap();
                    go_on(connection).await;
                },
                limit,
            )
            .await;
            let (_, body) = ended.unwrap();
            assert_eq!((body.len(), body.whole), (length, whole), "{limit}");
        }
    }

    #[tokio::test]
    async fn how_it_ended_is_told_apart() {
        let (ended, evidence) = with(
            |stream| async {
                let (connection, mut respond, _) = accept(stream).await;
                respond.send_reset(Reason::REFUSED_STREAM);
                go_on(connection).await;
            },
            9,
        )
        .await;
        let no = |outcome, heard| Some(NoAnswer { outcome, heard });
        let refused = no(Outcome::Reset, Heard::No);
        assert_eq!((ended.err(), evidence.detail.as_deref()), (refused, Some("RST_STREAM with REFUSED_STREAM")));
        let (ended, evidence) = with(
            |stream| async {
                let (connection, mut respond, _) = accept(stream).await;
                respond.send_reset(Reason::CANCEL);
                go_on(connection).await;
            },
            9,
        )
        .await;
        let cancelled = no(Outcome::Reset, Heard::Yes);
        assert_eq!((ended.err(), evidence.detail.as_deref()), (cancelled, Some("RST_STREAM with CANCEL")));
        let (ended, evidence) = with(
            |stream| async {
                let (mut connection, _respond, _) = accept(stream).await;
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                go_on(connection).await;
            },
            9,
        )
        .await;
        let gone = no(Outcome::Closed, Heard::Unknown);
        assert_eq!((ended.err(), evidence.detail.as_deref()), (gone, Some("GOAWAY with ENHANCE_YOUR_CALM")));
        let (ended, evidence) = with(
            |stream| async {
                let (connection, mut respond, _) = accept(stream).await;
                respond.send_reset(Reason::HTTP_1_1_REQUIRED);
                go_on(connection).await;
            },
            9,
        )
        .await;
        assert_eq!(ended.err(), Some(NoAnswer::of(Outcome::LocalError)));
        assert!(evidence.detail.unwrap().contains("alpn = [\"http/1.1\"]"));
        let says = |text: &'static [u8]| {
            with(
                move |mut stream: DuplexStream| async move {
                    let mut request = [0; 24];
                    stream.read_exact(&mut request).await.unwrap();
                    stream.write_all(text).await.unwrap();
                },
                9,
            )
        };
        assert_eq!(says(b"").await.0.err(), Some(NoAnswer::of(Outcome::Closed)));
        // SETTINGS, and a GOAWAY that names no stream: the request was not looked at.
        let unprocessed = says(b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0").await;
        assert_eq!((unprocessed.0.err(), unprocessed.1.detail.as_deref()), (no(Outcome::Closed, Heard::No), Some("GOAWAY with NO_ERROR")));
        let in_http_1 = says(b"HTTP/1.1 403 Forbidden\r\n\r\nno").await.0.unwrap();
        assert_eq!((in_http_1.0.status, &*in_http_1.1, in_http_1.1.whole), (403, &b"no"[..], true));
        let cut = says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno").await.0.unwrap();
        assert_eq!((cut.0.status, cut.1.whole), (200, false));
        assert_eq!(says(b"SSH-2.0-OpenSSH_9.2\r\n").await.0.err(), Some(NoAnswer::of(Outcome::BadHttp)));
        let mute = |stream: DuplexStream| async move {
            let _held = stream;
            tokio::time::sleep(Duration::from_secs(9)).await;
        };
        assert_eq!(with(mute, 9).await.0.err(), Some(NoAnswer::of(Outcome::Mute)));
        // Settings came, and no answer.
        let busy = |stream: DuplexStream| async move {
            let (connection, _respond, _) = accept(stream).await;
            go_on(connection).await;
        };
        assert_eq!(with(busy, 9).await.0.err(), Some(NoAnswer::of(Outcome::Mute)));
    }

    #[tokio::test]
    async fn interim_answers_without_end_are_no_http() {
        let (ended, _) = with(
            |stream| async {
                let (connection, mut respond, _) = accept(stream).await;
                for _ in 0..=http::MAX_INTERIM {
                    respond.send_informational(::http::Response::builder().status(103).body(()).unwrap()).unwrap();
                }
                respond.send_response(head(403), true).unwrap();
                go_on(connection).await;
            },
            9,
        )
        .await;
        assert_eq!(ended.err(), Some(NoAnswer::of(Outcome::BadHttp)));
    }
}

//! A request in absolute form: one a connection, read and written anew, so that no byte of it is passed on unread.
//!
//! hyper reads the body by the framing that [`super::request`] let pass, and frames it again; so is the answer. Both connections close
//! behind it: there is no second request that one side could see and the other not (request smuggling).

use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::answer;
use crate::proxy::reason::Reason;
use crate::proxy::request::{self, Forward, MAX_HEADERS};
use crate::proxy::tunnel::{self, End, Meter, Tunnels};
use crate::proxy::wheel::{Limits, Place};

/// What this proxy calls itself to others (RFC 9110 section 7.6.3).
const VIA: HeaderValue = HeaderValue::from_static("1.1 mustnot");
/// Fields that are between two neighbours and no others (RFC 9110 section 7.6.1), whether `Connection` names them or not. `Expect` is
/// fulfilled here: the body is read as soon as the destination can take it.
const HOP_BY_HOP: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// How much a destination may send until the head of its answer is whole, with all interim answers (1xx) before it: the client is shown
/// none of those, and an endless row of them is work without an end.
const LONGEST_HEAD: u64 = 256 * 1024;

/// How a forwarded request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// How it ended.
    pub end: End,
    /// The status that the client got; 0 where it got none.
    pub status: u16,
}

/// Sends the request to `server`, its head as `forward` has it and its body as it comes behind `early`, and the answer to `client`.
/// `sent` and `received` count the bytes on `server`'s side, heads and framing too.
///
/// What ends in failure or by force is reset on both legs, so that neither side takes it for the end of the data.
pub async fn forward(
    tunnels: &Tunnels,
    limits: Limits,
    client: &mut TcpStream,
    mut server: TcpStream,
    (forward, early): (&Forward, &[u8]),
    (sent, received): (&Meter, &Meter),
) -> Forwarded {
    let place = tunnels.place(limits);
    let status = AtomicU16::new(0);
    let end = tokio::select! {
        end = exchange(client, Metered { stream: &mut server, sent, received, place: &place, status: &status }, forward, early) => end,
        end = place.over() => end,
    };
    match end {
        // what the client sent behind its request must not destroy the answer on its way
        End::Closed => {
            drop(server);
            answer::linger(client).await;
        }
        End::Idle | End::HalfOpen | End::Reset | End::Lifetime | End::Shutdown => {
            tunnel::reset(client);
            tunnel::reset(&server);
        }
    }
    Forwarded { end, status: status.into_inner() }
}

async fn exchange(client: &mut TcpStream, server: Metered<'_>, forward: &Forward, early: &[u8]) -> End {
    let status = server.status;
    let shaken = client::Builder::new().preserve_header_case(true).handshake::<_, Incoming>(TokioIo::new(server)).await;
    let Ok((sender, upstream)) = shaken else { return End::Reset };
    let sender = Mutex::new(Some(sender));
    let service = service_fn(|request: Request<Incoming>| {
        // one request a connection
        let sender = sender.lock().ok().and_then(|mut sender| sender.take());
        async {
            let answered = match sender {
                Some(mut sender) => sender.send_request(outgoing(request, forward)).await.ok(),
                None => None,
            };
            let response = answered.and_then(incoming).unwrap_or_else(bad_gateway);
            status.store(response.status().as_u16(), Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let (from_client, to_client) = client.split();
    let seen = forward.head.chain(early).chain(from_client);
    let mut serving = server::Builder::new();
    serving.keep_alive(false).half_close(true).preserve_header_case(true).max_headers(MAX_HEADERS);
    let serving = serving.serve_connection(TokioIo::new(tokio::io::join(seen, to_client)), service);
    let mut upstream = std::pin::pin!(upstream);
    let mut serving = std::pin::pin!(serving);
    let mut upstream_ended = false;
    loop {
        tokio::select! {
            served = &mut serving => return if served.is_ok() { End::Closed } else { End::Reset },
            _ = &mut upstream, if !upstream_ended => upstream_ended = true,
        }
    }
}

/// The request as the destination gets it.
fn outgoing(request: Request<Incoming>, forward: &Forward) -> Request<Incoming> {
    let (mut parts, body) = request.into_parts();
    parts.uri = Uri::from(forward.path.clone());
    parts.version = Version::HTTP_11;
    between_neighbours(&mut parts.headers);
    if parts.method == Method::OPTIONS {
        one_hop_less(&mut parts.headers);
    }
    let host = if forward.to.port == 80 { forward.to.host.to_string() } else { forward.to.to_string() };
    match HeaderValue::try_from(host) {
        Ok(host) => parts.headers.insert(header::HOST, host),
        Err(_) => parts.headers.remove(header::HOST),
    };
    parts.headers.append(header::VIA, VIA);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Request::from_parts(parts, body)
}

/// Counts this proxy (RFC 9110 section 7.6.2); 0 was refused before.
fn one_hop_less(headers: &mut HeaderMap) {
    let hops = headers.get(header::MAX_FORWARDS).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(left) = hops.and_then(|hops| hops.checked_sub(1)) {
        headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
    }
}

/// The answer as the client gets it; nothing, where it is none to our request: nobody asked for another protocol, nor for a coding of the
/// transfer, and one that two readers may frame differently would be cut short here and called whole.
fn incoming(response: Response<Incoming>) -> Option<Response<Body>> {
    if response.status().is_informational() {
        return None;
    }
    let (mut parts, body) = response.into_parts();
    let all = |name: HeaderName| parts.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    request::framing(&all(header::CONTENT_LENGTH), &all(header::TRANSFER_ENCODING), 1).ok()?;
    between_neighbours(&mut parts.headers);
    // by this the client knows the proxy's own refusals
    parts.headers.remove(answer::REASON);
    parts.headers.append(header::VIA, VIA);
    Some(Response::from_parts(parts, Body::new(body)))
}

/// Takes out what was meant for this proxy alone.
fn between_neighbours(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // the framing of the body is not for a client to take out
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn bad_gateway() -> Response<Body> {
    let reason = Reason::Connect;
    let mut response = Response::new(Body::from(format!("{}\n", answer::sentence(reason))));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    let headers = response.headers_mut();
    headers.insert(answer::REASON, HeaderValue::from_static(reason.label()));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The destination's connection, with its bytes counted.
struct Metered<'a> {
    stream: &'a mut TcpStream,
    sent: &'a Meter,
    received: &'a Meter,
    place: &'a Place<'a>,
    /// The status that the client got; 0 until there is an answer.
    status: &'a AtomicU16,
}

impl AsyncRead for Metered<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.received.add(buf.filled().len() - before);
            self.place.beat();
            if self.status.load(Ordering::Relaxed) == 0 && self.received.total() > LONGEST_HEAD {
                return Poll::Ready(Err(io::Error::other("the head of the answer has no end")));
            }
        }
        read
    }
}

impl AsyncWrite for Metered<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.sent.add(*count);
            self.place.beat();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}

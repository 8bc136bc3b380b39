//! HTTP/2 (RFC 9113) to the port of a proxy: by prior knowledge, inside TLS, or after an upgrade from HTTP/1.1.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::MAX_ANSWER;
use crate::net::http::Head;
use crate::observation::Evidence;

/// The first bytes that are kept, to tell an HTTP/1 answer from silence.
const MAX_FIRST: usize = Evidence::MAX_HEAD;
/// The most bytes of header fields that an answer may have.
const MAX_FIELDS: u32 = 32 * 1024;
/// The first stream after an upgrade, whose request is stream 1 (RFC 7540 section 3.2).
const AFTER_UPGRADE: u32 = 3;

/// What became of one request.
pub(super) struct Talked {
    /// The answer's head, where there was one.
    pub(super) head: Option<Head>,
    /// What came in DATA frames.
    pub(super) body: Vec<u8>,
    /// The first raw bytes of all.
    pub(super) first: Vec<u8>,
    /// It ended by itself, not at the deadline.
    pub(super) ended: bool,
}

/// What is asked for.
pub(super) enum Asked<'a> {
    /// A tunnel to there (RFC 9113 section 8.5), and this through it.
    Tunnel { to: &'a str, send: String },
    /// This URI.
    Get(String),
}

/// Asks once, and reads until `enough` says so, the answer ends, or the deadline passes.
pub(super) async fn ask<S>(stream: S, upgraded: bool, asked: Asked<'_>, deadline: Instant, enough: impl Fn(&[u8]) -> bool) -> Talked
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let first = Arc::new(Mutex::new(Vec::new()));
    let mut talked = Talked { head: None, body: Vec::new(), first: Vec::new(), ended: false };
    let talking = talk(Tapped { stream, first: Arc::clone(&first) }, upgraded, asked, &mut talked, enough);
    let ended = timeout_at(deadline, talking).await.is_ok();
    talked.ended = ended;
    talked.first = std::mem::take(&mut *first.lock().unwrap_or_else(PoisonError::into_inner));
    talked
}

/// Every error means that no more will come; what came is in `talked`.
async fn talk<S>(stream: S, upgraded: bool, asked: Asked<'_>, talked: &mut Talked, enough: impl Fn(&[u8]) -> bool) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_FIELDS).max_concurrent_streams(0);
    if upgraded {
        builder.initial_stream_id(AFTER_UPGRADE);
    }
    let (client, connection) = builder.handshake::<_, Bytes>(stream).await?;
    let driven = async {
        let mut client = client.ready().await?;
        let (request, through) = match asked {
            Asked::Tunnel { to, send } => (http::Request::connect(to).body(()), Some(send)),
            Asked::Get(uri) => (http::Request::get(uri).body(()), None),
        };
        // What cannot be written as a request is never sent.
        let Ok(request) = request else { return Ok(()) };
        let (answer, mut sending) = client.send_request(request, through.is_none())?;
        let answer = answer.await?;
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = answer.headers().iter().map(|(name, value)| (name.as_str().to_string(), text(value))).collect();
        talked.head = Some(Head { status: answer.status().as_u16(), headers, rest: Vec::new() });
        if let Some(send) = through.filter(|_| answer.status().is_success()) {
            sending.send_data(Bytes::from(send), false)?;
        }
        let mut body = answer.into_body();
        while let Some(data) = body.data().await {
            let data = data?;
            let _ = body.flow_control().release_capacity(data.len());
            talked.body.extend_from_slice(&data);
            if talked.body.len() >= MAX_ANSWER || enough(&talked.body) {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        done = driven => done,
        ended = connection => ended,
    }
}

/// A stream whose first bytes are kept.
struct Tapped<S> {
    stream: S,
    first: Arc<Mutex<Vec<u8>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_FIRST.saturating_sub(first.len());
        first.extend_from_slice(new.get(..room.min(new.len())).unwrap_or_default());
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

//! One connection: its seat, its handshake, its requests, its end. Nobody who hangs keeps a place from others.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::gate::{Caller, Gate};
use super::seats::Seats;

/// Connections at one time; more are closed at once, so that readers cannot take the file descriptors of probes.
const MAX_CONNECTIONS: usize = 256;
/// The same of one client: whoever hangs there leaves the others room. A Prometheus that asks `/probe` of many targets needs most of it.
const MAX_PER_CLIENT: usize = 192;
/// A request's head, and before it a TLS handshake, must be there in this time; an idle connection is closed after it too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Header lines of one request.
const MAX_HEADERS: usize = 64;
/// Bytes of a request's head, and of an answer that waits to be sent.
const MAX_BUFFER: usize = 64 * 1024;
/// Who takes nothing of an answer for so long is cut off (`TCP_USER_TIMEOUT`).
const STALLED: Duration = Duration::from_secs(30);
/// A connection ends after this time, whatever its client does: who never reads an answer must not keep a place for ever.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(600);
/// Answers under way may take this long once the connection is to end.
pub const LAST_ANSWER: Duration = Duration::from_secs(5);

/// Places for connections.
pub fn seats() -> Arc<Seats> {
    Seats::new(MAX_CONNECTIONS, MAX_PER_CLIENT)
}

/// One connection, from its first byte to its end. No task outlives [`MAX_CONNECTION_AGE`] and [`LAST_ANSWER`].
pub async fn serve(stream: TcpStream, client: IpAddr, router: Router, gate: Arc<Gate>, seats: Arc<Seats>, stop: watch::Receiver<bool>) {
    let Some(_seat) = seats.take(client) else { return };
    SockRef::from(&stream).set_tcp_user_timeout(Some(STALLED)).ok();
    // Subscribed before the rules are read: none that come between are missed.
    let changes = gate.changes();
    match gate.rules().tls() {
        None => answer(stream, router, Caller { address: client, certified: false }, changes, stop).await,
        Some(config) => match timeout(HEAD_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => {
                let certified = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
                answer(stream, router, Caller { address: client, certified }, changes, stop).await;
            }
            Ok(Err(error)) => tracing::debug!(%client, %error, "a TLS handshake of the web listener failed"),
            Err(_) => tracing::debug!(%client, "a TLS handshake of the web listener was not finished in time"),
        },
    }
}

async fn answer<S, T>(stream: S, router: Router, caller: Caller, mut changes: watch::Receiver<T>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let router = router.layer(Extension(caller));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(MAX_HEADERS).max_buf_size(MAX_BUFFER);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        // An error says that the sender is gone: then nobody could ever stop us, so we do.
        _ = stop.wait_for(|stop| *stop) => {}
        // Whoever was let in by other rules has to come again.
        _ = changes.changed() => {}
        () = sleep(MAX_CONNECTION_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = timeout(LAST_ANSWER, connection).await {
        log_end(ended);
    }
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a web connection ended early");
    }
}

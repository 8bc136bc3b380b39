//! The web listener: metrics, API, health and the status page. Reads the board, and never waits for a probe.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{self, Path};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::clock::{Moment, Wall};
use crate::history::{Board, Reading};
use crate::metrics::{self, Metrics, openmetrics};
use crate::report::{self, Report};
use crate::serve;

mod accept;
mod page;

/// Connections at one time; more are closed at once, so that readers cannot take the file descriptors of probes.
const MAX_CONNECTIONS: usize = 64;
/// A request's head must be there in this time; an idle connection is closed after it too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Header lines of one request.
const MAX_HEADERS: usize = 64;
/// A connection ends after this time, whatever its client does: who never reads an answer must not keep a place for ever.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(600);
/// Answers under way may take this long once the connection is to end.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// Checks that `/readyz` names; the others are counted.
const MAX_NAMED: usize = 20;

/// What the routes read.
#[derive(Debug, Clone)]
pub struct State {
    /// Where the monitor stands.
    pub vantage: String,
    /// The newest records.
    pub board: Arc<Board>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Wall time of the program's start.
    pub started_at: Wall,
    /// The same by the clock for durations.
    pub started: Moment,
}

/// A listener that is bound and does not answer yet.
#[derive(Debug)]
pub struct Web {
    listeners: Vec<TcpListener>,
    address: SocketAddr,
}

impl State {
    /// The state of a program that starts now.
    pub fn new(vantage: &str, board: Arc<Board>, metrics: Arc<Metrics>) -> State {
        State { vantage: vantage.to_owned(), board, metrics, started_at: Wall::now(), started: Moment::now() }
    }

    /// The board as a report: from the program's start until now.
    fn report(&self, readings: &[Reading]) -> Report {
        Report {
            vantage: self.vantage.clone(),
            started_at: self.started_at,
            duration: Moment::now().since(self.started),
            as_of: Wall::now(),
            records: readings.iter().map(|r| r.record.as_ref().clone()).collect(),
            drills: Vec::new(),
        }
    }
}

impl Web {
    /// Binds the address; port 0 takes a free one.
    ///
    /// # Errors
    /// Why it cannot listen there, and what to do.
    pub async fn bind(address: SocketAddr) -> Result<Web, String> {
        let listeners = serve::listen(&[address]).map_err(|e| format!("[web] listen: {e}"))?;
        let address = serve::addresses(&listeners).first().copied().unwrap_or(address);
        Ok(Web { listeners, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` says true or its sender is gone; answers under way are finished.
    pub async fn run(self, state: State, stop: watch::Receiver<bool>) {
        let router = routes(state);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let handle = |stream, _, _| answer(stream, router.clone(), Arc::clone(&slots), stop.clone());
        serve::serve(self.listeners, stop.clone(), LAST_ANSWER, handle).await;
    }
}

/// Every route. Everything else is 404, every other method 405.
pub fn routes(state: State) -> Router {
    Router::new()
        .route("/", get(status_page))
        .route("/metrics", get(metrics))
        .route("/api/v1/checks", get(checks))
        .route("/api/v1/checks/{name}", get(one_check))
        .route("/healthz", get(healthy))
        .route("/-/healthy", get(healthy))
        .route("/readyz", get(ready))
        .route("/-/ready", get(ready))
        .layer(middleware::map_response(with_common_headers))
        .with_state(state)
}

/// One connection, from its first head to its end. No task outlives [`MAX_CONNECTION_AGE`] and [`LAST_ANSWER`].
async fn answer(stream: TcpStream, router: Router, slots: Arc<Semaphore>, mut stop: watch::Receiver<bool>) {
    let Ok(_slot) = slots.try_acquire() else { return };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(MAX_HEADERS);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = stopped(&mut stop) => {}
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

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone: then nobody could ever stop us, so we do.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn with_common_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    response
}

async fn status_page(extract::State(state): extract::State<State>) -> Response {
    written("text/html; charset=utf-8", move || {
        let readings = state.board.read(Moment::now());
        Ok(page::page(&state.vantage, &readings, Wall::now()))
    })
    .await
}

/// The metrics in the format and the encoding that the client asks for.
async fn metrics(extract::State(state): extract::State<State>, headers: HeaderMap) -> Response {
    let gzip = accept::takes_gzip(&headers);
    let mut response = if accept::prefers_openmetrics(&headers) {
        written(openmetrics::CONTENT_TYPE, move || encoded(state.metrics.openmetrics(), gzip)).await
    } else {
        written(metrics::CONTENT_TYPE, move || encoded(state.metrics.text()?, gzip)).await
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if gzip && response.status().is_success() {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn encoded(text: String, gzip: bool) -> Result<Vec<u8>, String> {
    if !gzip {
        return Ok(text.into_bytes());
    }
    // the least effort: of numbers and labels it leaves little more than the most
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).map_err(|e| format!("cannot compress the metrics: {e}"))
}

async fn checks(extract::State(state): extract::State<State>) -> Response {
    written("application/json", move || Ok(report::json(&state.report(&state.board.read(Moment::now()))))).await
}

async fn one_check(extract::State(state): extract::State<State>, Path(name): Path<String>) -> Response {
    let Some(recent) = state.board.recent(&name) else {
        let error = format!("there is no check \"{name}\"; /api/v1/checks lists those there are");
        return (StatusCode::NOT_FOUND, axum::Json(serde_json::json!({ "error": error }))).into_response();
    };
    written("application/json", move || {
        let mut readings = state.board.read(Moment::now());
        readings.retain(|r| r.about.name == name);
        Ok(report::json_of_one(&state.report(&readings), &recent, Wall::now()))
    })
    .await
}

async fn healthy() -> &'static str {
    "ok"
}

/// Ready once every check ran once; until then it says which did not.
async fn ready(extract::State(state): extract::State<State>) -> Response {
    if state.board.all_ran() {
        return "ok".into_response();
    }
    let readings = state.board.read(Moment::now());
    let pending: Vec<&Reading> = readings.iter().filter(|r| !r.ran).collect();
    let mut body = format!("not ready: {} of {} checks have not run yet:", pending.len(), readings.len());
    for reading in pending.iter().take(MAX_NAMED) {
        let _ = write!(body, " {}", reading.about.name);
    }
    body.push_str(if pending.len() > MAX_NAMED { " …\n" } else { "\n" });
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// Writes a body off the runtime's own threads: a thousand checks take long enough to make a probe late.
async fn written<T>(content_type: &'static str, write: impl FnOnce() -> Result<T, String> + Send + 'static) -> Response
where
    T: IntoResponse + Send + 'static,
{
    let text = match tokio::task::spawn_blocking(write).await {
        Ok(written) => written,
        Err(error) => Err(error.to_string()),
    };
    match text {
        Ok(body) => ([(header::CONTENT_TYPE, content_type)], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "a web answer could not be written");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

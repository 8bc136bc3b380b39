//! The web listener: metrics, API, health and the status page. Reads the board, and never waits for a probe; what the program behind it can be
//! asked to do, a reload or a probe of a template, it asks through [`control`].

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{self, Path, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::clock::{Moment, Wall};
use crate::history::{Board, Reading};
use crate::metrics::{self, Metrics, openmetrics};
use crate::report::{self, Report};
use crate::serve;
use connection::LAST_ANSWER;
use control::{Control, Fault, Refused};
use gate::{Caller, Gate, Outside};
use password::Refusal;

mod accept;
mod connection;
pub mod control;
pub mod gate;
mod origin;
mod page;
mod password;
mod probe;
mod seats;
pub mod settings;

pub use settings::Settings;

/// Paths that are told to everybody: who asks them is a load balancer or an orchestrator, which has neither password nor certificate.
const FOR_EVERYBODY: [&str; 4] = ["/healthz", "/-/healthy", "/readyz", "/-/ready"];
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
    /// The program behind the listener; without it there are neither `/config`, `/-/reload` nor `/probe`.
    pub control: Option<Arc<dyn Control>>,
}

/// A listener that is bound and does not answer yet.
#[derive(Debug)]
pub struct Web {
    listeners: Vec<TcpListener>,
    address: SocketAddr,
    gate: Arc<Gate>,
}

impl State {
    /// The state of a program that starts now.
    pub fn new(vantage: &str, board: Arc<Board>, metrics: Arc<Metrics>) -> State {
        State { vantage: vantage.to_owned(), board, metrics, started_at: Wall::now(), started: Moment::now(), control: None }
    }

    /// The same with the program behind it.
    #[must_use]
    pub fn with_control(self, control: Arc<dyn Control>) -> State {
        State { control: Some(control), ..self }
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
    /// Binds the address, for everybody who reaches it; port 0 takes a free one.
    ///
    /// # Errors
    /// Why it cannot listen there, and what to do.
    pub async fn bind(address: SocketAddr) -> Result<Web, String> {
        Web::guarded(Settings::open(address)).await
    }

    /// Binds the address of these settings, for whom they let in.
    ///
    /// # Errors
    /// Why it cannot listen there, or which of its files cannot be used, and what to do.
    pub async fn guarded(settings: Settings) -> Result<Web, String> {
        let address = settings.listen;
        let gate = Arc::new(Gate::new(settings)?);
        let listeners = serve::listen(&[address]).map_err(|e| format!("[web] listen: {e}"))?;
        let address = serve::addresses(&listeners).first().copied().unwrap_or(address);
        Ok(Web { listeners, address, gate })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whom it lets in.
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// Answers until `stop` says true or its sender is gone; answers under way are finished.
    pub async fn run(self, state: State, stop: watch::Receiver<bool>) {
        let router = guarded_routes(state, Arc::clone(&self.gate));
        let (gate, seats) = (self.gate, connection::seats());
        let handle = |stream, client: SocketAddr, _| {
            connection::serve(stream, client.ip(), router.clone(), Arc::clone(&gate), Arc::clone(&seats), stop.clone())
        };
        tokio::select! {
            () = serve::serve(self.listeners, stop.clone(), LAST_ANSWER, handle) => {}
            () = gate.keep_renewing() => {}
        }
    }
}

/// Every route. Everything else is 404, every other method 405.
fn routes(state: State) -> Router {
    let mut router = Router::new()
        .route("/", get(status_page))
        .route("/metrics", get(metrics))
        .route("/api/v1/checks", get(checks))
        .route("/api/v1/checks/{name}", get(one_check))
        .route("/healthz", get(healthy))
        .route("/-/healthy", get(healthy))
        .route("/readyz", get(ready))
        .route("/-/ready", get(ready));
    if state.control.is_some() {
        router = router.route("/config", get(config)).route("/-/reload", post(reload)).route("/probe", get(probe::probe));
    }
    router.with_state(state)
}

/// The same for whom the gate lets in.
fn guarded_routes(state: State, gate: Arc<Gate>) -> Router {
    routes(state).layer(middleware::from_fn_with_state(gate, guard)).layer(middleware::map_response(with_common_headers))
}

/// What the gate has found out of whoever asks.
#[derive(Debug, Clone, Copy)]
struct Admitted {
    /// Names of checks may be told.
    inside: bool,
    /// A password or a certificate was shown.
    known: bool,
}

async fn guard(
    extract::State(gate): extract::State<Arc<Gate>>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
    next: Next,
) -> Response {
    let open = gate.rules().settings.is_open();
    if FOR_EVERYBODY.contains(&request.uri().path()) {
        request.extensions_mut().insert(Admitted { inside: open, known: false });
        return next.run(request).await;
    }
    match gate.admit(caller, request.headers()).await {
        Ok(()) => {
            request.extensions_mut().insert(Admitted { inside: true, known: !open });
            next.run(request).await
        }
        Err(outside) => turned_away(outside),
    }
}

fn turned_away(outside: Outside) -> Response {
    match outside {
        Outside::Uncertified => {
            let why = "this listener wants a client certificate of the authority in [web] client_ca_file, and none was shown\n";
            (StatusCode::FORBIDDEN, why).into_response()
        }
        Outside::Password(Refusal::Stranger) => {
            let asks = [(header::WWW_AUTHENTICATE, "Basic realm=\"mustnot\", charset=\"UTF-8\"")];
            (StatusCode::UNAUTHORIZED, asks, "user or password is wrong or missing; see [web] basic_auth\n").into_response()
        }
        Outside::Password(Refusal::Busy) => {
            let why = "too many passwords are being checked; try again\n";
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], why).into_response()
        }
    }
}

/// The configuration in force.
async fn config(extract::State(state): extract::State<State>) -> Response {
    match state.control {
        Some(control) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], control.config()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Reads the configuration again, and answers when that is done.
async fn reload(extract::State(state): extract::State<State>, Extension(admitted): Extension<Admitted>, headers: HeaderMap) -> Response {
    if let Some(why) = origin::foreign(&headers, admitted.known) {
        return refused(&Refused::new(Fault::Forbidden, format!("not reloaded: {why}")));
    }
    let Some(control) = state.control else { return StatusCode::NOT_FOUND.into_response() };
    match control.reload().await {
        Ok(done) => format!("{done}\n").into_response(),
        Err(why) => refused(&why),
    }
}

fn refused(refused: &Refused) -> Response {
    let status = match refused.whose {
        Fault::Unknown => StatusCode::NOT_FOUND,
        Fault::Asked => StatusCode::BAD_REQUEST,
        Fault::Forbidden => StatusCode::FORBIDDEN,
        Fault::TooMuch => StatusCode::TOO_MANY_REQUESTS,
        Fault::Ours => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{}\n", refused.why)).into_response()
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
async fn ready(extract::State(state): extract::State<State>, Extension(admitted): Extension<Admitted>) -> Response {
    if state.board.all_ran() {
        return "ok".into_response();
    }
    let readings = state.board.read(Moment::now());
    let pending: Vec<&Reading> = readings.iter().filter(|r| !r.ran).collect();
    let mut body = format!("not ready: {} of {} checks have not run yet", pending.len(), readings.len());
    if !admitted.inside {
        return (StatusCode::SERVICE_UNAVAILABLE, body + "\n").into_response();
    }
    body.push(':');
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

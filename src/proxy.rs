//! The embedded egress proxy: CONNECT, and requests in absolute form where ports are listed for them; closed unless opened; it dials what it judged.
//!
//! accept -> [`limit`] -> [`policy`] (-> [`request`], [`address`]) -> [`dial`] -> [`tunnel`] or [`forward`]; a refusal ends at [`answer`]; all of it
//! is told to [`stats`] and [`log`]. It knows nothing of checks and probes.

pub mod address;
pub mod answer;
pub mod dial;
pub mod forward;
pub mod limit;
pub mod log;
pub mod own;
pub mod policy;
pub mod request;
pub mod stats;
pub mod tunnel;
pub mod why;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clock::Wall;
use crate::net::resolve::{Cached, Resolver};
use crate::serve;
use crate::target::{PortSet, fold_mapped};

pub use log::{LogFormat, LogTarget};
pub use policy::{Destination, Reason};
pub use stats::Stats;

use dial::{Dialled, Egress};
use limit::{Place, Seats};
use log::{Event, Line, Log};
use own::Own;
use policy::{Heard, Permit, Policy, Refused};
use request::{Method, Request};
use tunnel::{Limits, Meter};

/// How long the last lines of the access log may take at the end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Longer than any tunnel lasts, and short enough to be added to any instant.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Names whose addresses are kept.
const NAMES: u64 = 4096;
/// The answer to a CONNECT that succeeded (RFC 9110 section 9.3.6: no Content-Length, no body).
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// What the proxy is to do; SPEC section 11.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The source addresses of outgoing connections, at most one a family; only their families are dialled. None: the kernel chooses.
    pub egress: Vec<IpAddr>,
    /// Who may use it; nobody unless listed.
    pub allow_from: Vec<IpNet>,
    /// The ports that CONNECT may name.
    pub connect_ports: PortSet,
    /// The ports that a request in absolute form may name; none: CONNECT is the only method.
    pub http_ports: PortSet,
    /// Special-purpose destinations that may be reached all the same.
    pub allow_private: Vec<IpNet>,
    /// Destinations that are refused.
    pub deny_to: Vec<Destination>,
    /// The only destinations, unless empty.
    pub allow_to: Vec<Destination>,
    /// Other listeners of this process that are never a destination; its own are added when they are bound.
    pub own: Vec<SocketAddr>,
    /// How long a request head may take.
    pub header_timeout: Duration,
    /// How long resolving, and then connecting, may take.
    pub connect_timeout: Duration,
    /// How long a tunnel may last without a byte in either direction.
    pub idle_timeout: Duration,
    /// How long it may last without a byte once one side has ended.
    pub half_open_timeout: Duration,
    /// How long it may last at all.
    pub lifetime: Duration,
    /// The most connections; `None` is (file-descriptor limit − 256) / 2.
    pub max_connections: Option<usize>,
    /// The most connections of one client address; `None` is a quarter of all.
    pub max_per_client: Option<usize>,
    /// The longest request head, in bytes.
    pub max_head: usize,
    /// Where the access log goes.
    pub access_log: LogTarget,
    /// How it is written.
    pub access_log_format: LogFormat,
}

impl Settings {
    /// The defaults: listening nowhere, open to nobody, CONNECT to 443 on public addresses.
    pub fn new() -> Settings {
        Settings {
            listen: Vec::new(),
            egress: Vec::new(),
            allow_from: Vec::new(),
            connect_ports: PortSet::parse(["443"]).unwrap_or_default(),
            http_ports: PortSet::default(),
            allow_private: Vec::new(),
            deny_to: Vec::new(),
            allow_to: Vec::new(),
            own: Vec::new(),
            header_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(5 * 60),
            half_open_timeout: Duration::from_secs(60),
            lifetime: Duration::from_secs(24 * 60 * 60),
            max_connections: None,
            max_per_client: None,
            max_head: 16 * 1024,
            access_log: LogTarget::Stdout,
            access_log_format: LogFormat::Squid,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings::new()
    }
}

/// A proxy that is bound and has not begun to accept.
#[derive(Debug)]
pub struct Proxy {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    core: Arc<Core>,
}

/// What all connections share.
#[derive(Debug)]
struct Core {
    policy: Policy,
    egress: Egress,
    seats: Arc<Seats>,
    stats: Arc<Stats>,
    log: Log,
    header_timeout: Duration,
    connect_timeout: Duration,
    max_head: usize,
    limits: Limits,
}

impl Proxy {
    /// Binds every listener and makes everything ready that can fail.
    ///
    /// # Errors
    /// What cannot be had, with its address or file, and the remedy.
    pub async fn bind(settings: Settings) -> Result<Proxy, String> {
        if settings.listen.is_empty() {
            return Err("the proxy has no address to listen on; write listen = [\"127.0.0.1:3128\"]".into());
        }
        for net in settings.allow_from.iter().chain(&settings.allow_private) {
            policy::plain_net(*net)?;
        }
        let egress = Egress::new(&settings.egress)?;
        let listeners = serve::listen(&settings.listen).map_err(|why| format!("the proxy {why}"))?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>();
        let addresses = addresses.map_err(|e| format!("a listener has no address: {e}"))?;
        let stats = Arc::new(Stats::new(&settings.allow_from).map_err(|e| e.to_string())?);
        let log = Log::open(&settings.access_log, settings.access_log_format, stats.log_lines_lost.clone())?;
        let core = Core {
            policy: Policy {
                own: Own::new(settings.own.iter().chain(&addresses).copied()),
                families: egress.families(),
                allow_from: settings.allow_from,
                connect_ports: settings.connect_ports,
                http_ports: settings.http_ports,
                deny_to: settings.deny_to,
                allow_to: settings.allow_to,
                allow_private: settings.allow_private,
                resolver: Cached::new(Resolver::System, settings.connect_timeout.min(FOREVER), NAMES),
            },
            egress,
            seats: Arc::new(Seats::new(settings.max_connections, settings.max_per_client)),
            stats,
            log,
            header_timeout: settings.header_timeout,
            connect_timeout: settings.connect_timeout.min(FOREVER),
            max_head: settings.max_head,
            limits: Limits {
                idle: settings.idle_timeout.min(FOREVER),
                half_open: settings.half_open_timeout.min(FOREVER),
                lifetime: settings.lifetime.min(FOREVER),
            },
        };
        Ok(Proxy { listeners, addresses, core: Arc::new(core) })
    }

    /// Where it listens, with the ports that were bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// What it counts.
    pub fn stats(&self) -> Arc<Stats> {
        self.core.stats.clone()
    }

    /// Serves until `stop` is true or its sender is gone; then accepts no more, lets tunnels end within `grace`, and resets what is left.
    pub async fn run(self, stop: watch::Receiver<bool>, grace: Duration) {
        let (cut, was_cut) = watch::channel(false);
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        let accepting = self.listeners.into_iter().map(|listener| {
            let held = Share { core: self.core.clone(), cut: was_cut.clone(), _alive: alive.clone() };
            accept(listener, held, stop.clone())
        });
        // the listeners are closed when this is done, the connections go on
        futures_util::future::join_all(accepting).await;
        drop(alive);
        if tokio::time::timeout(grace, all_ended.recv()).await.is_err() {
            tracing::warn!(tunnels = self.core.stats.tunnels.get(), "the grace is over; what is left is reset");
            cut.send_replace(true);
            all_ended.recv().await;
        }
        self.core.log.flush(LAST_LINES).await;
    }
}

/// What every connection holds.
#[derive(Clone)]
struct Share {
    core: Arc<Core>,
    cut: watch::Receiver<bool>,
    /// The proxy has ended when the last of these is dropped.
    _alive: mpsc::Sender<()>,
}

/// Accepts until it is told to stop.
async fn accept(listener: TcpListener, held: Share, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            (stream, peer) = serve::accept(&listener) => admit(stream, peer, &held),
        }
    }
}

/// Finds a place for the connection and serves it; one for which there is not even standing room is closed at once.
fn admit(stream: TcpStream, peer: SocketAddr, held: &Share) {
    let client = SocketAddr::new(fold_mapped(peer.ip()), peer.port());
    let core = &held.core;
    let stranger = core.policy.source(client.ip()).is_none();
    let caller = Caller { client, accepted: Instant::now() };
    match core.seats.place(client.ip(), stranger) {
        Some(place) => {
            let held = held.clone();
            tokio::spawn(async move { attend(stream, caller, place, held).await });
        }
        None => {
            let reason = if stranger { Reason::Source } else { Reason::Limit };
            core.decided(&caller, &Heard::Nothing, reason, None);
            answer::refuse_at_once(&stream, reason);
        }
    }
}

/// Who calls, and since when.
#[derive(Debug, Clone, Copy)]
struct Caller {
    client: SocketAddr,
    accepted: Instant,
}

/// One connection from its first byte to its end. The place is held until then.
async fn attend(mut stream: TcpStream, caller: Caller, place: Place, held: Share) {
    let Share { core, mut cut, _alive } = held;
    let _open = stats::Counted::new(&core.stats.connections);
    // boxed, so that a tunnel does not carry the memory of its beginnings
    let opened = tokio::select! {
        opened = Box::pin(core.open(&mut stream, &caller, &place)) => opened,
        _ = cut.wait_for(|cut| *cut) => {
            tunnel::reset(&stream);
            return;
        }
    };
    if let Some((request, permit, dialled)) = opened {
        core.serve(&mut stream, &caller, request, &permit, dialled, cut).await;
    }
}

impl Core {
    /// Decides, and dials what is allowed; nothing, where the connection was refused and answered.
    async fn open(&self, stream: &mut TcpStream, caller: &Caller, place: &Place) -> Option<(Request, Permit, Dialled)> {
        let seated = place.is_seat();
        let head_limit = if seated { self.header_timeout } else { self.header_timeout.min(limit::STANDING_TIMEOUT) };
        let head = request::read(stream, self.max_head, head_limit);
        let (reason, heard) = match self.policy.decide(caller.client.ip(), seated, head).await {
            Ok((request, permit)) => match self.dial(&permit).await {
                Ok(dialled) => return Some((request, permit, dialled)),
                Err(reason) => (reason, Heard::Request(Box::new(request))),
            },
            Err(Refused { heard: Heard::Malformed(malformed), .. }) if malformed.silent => return None,
            Err(Refused { reason, heard, why, .. }) => {
                tracing::debug!(client = %caller.client, %reason, %why, "refused");
                (reason, heard)
            }
        };
        self.decided(caller, &heard, reason, None);
        answer::refuse(stream, reason).await;
        None
    }

    async fn dial(&self, permit: &Permit) -> Result<Dialled, Reason> {
        let begun = Instant::now();
        let dialled = dial::dial(&permit.addresses, &self.egress, self.connect_timeout).await?;
        self.stats.connect_duration.observe(begun.elapsed().as_secs_f64());
        Ok(dialled)
    }

    /// Relays, or forwards, until it ends.
    async fn serve(
        &self,
        client: &mut TcpStream,
        caller: &Caller,
        mut request: Request,
        permit: &Permit,
        dialled: Dialled,
        cut: watch::Receiver<bool>,
    ) {
        let early = std::mem::take(&mut request.early);
        let forwarded = match &mut request.method {
            Method::Forward(forward) => Some(forward.clone()),
            Method::Connect(_) | Method::Other(_) => None,
        };
        let heard = Heard::Request(Box::new(request));
        let mut line = self.decided(caller, &heard, Reason::Allow, Some(dialled.peer));
        let (sent, received) = (Meter::new(self.stats.sent(permit.source)), Meter::new(self.stats.received(permit.source)));
        let end = match forwarded {
            Some(request) => {
                let request = (&*request, early.as_slice());
                let forwarded = forward::forward(client, dialled.stream, request, (&sent, &received), self.limits, cut).await;
                line.status = forwarded.status;
                forwarded.end
            }
            None => {
                let _standing = stats::Counted::new(&self.stats.tunnels);
                match establish(client) {
                    Ok(()) => tunnel::relay(client, &dialled.stream, early, (&sent, &received), self.limits, cut).await,
                    Err(_) => {
                        tunnel::reset(&dialled.stream);
                        tunnel::End::Reset
                    }
                }
            }
        };
        line.event = Event::Close;
        line.time = Wall::now();
        line.duration = caller.accepted.elapsed();
        (line.sent, line.received) = (sent.total(), received.total());
        line.reason = end.label();
        self.log.write(&line);
    }

    /// Counts and logs one decision.
    fn decided(&self, caller: &Caller, heard: &Heard, reason: Reason, dialled: Option<SocketAddr>) -> Line {
        let mut line = Line {
            time: Wall::now(),
            event: Event::Decision,
            client: caller.client.ip(),
            client_port: caller.client.port(),
            method: String::new(),
            destination: Vec::new(),
            minor: 1,
            user_agent: Vec::new(),
            dialled,
            sent: 0,
            received: 0,
            duration: caller.accepted.elapsed(),
            status: reason.status(),
            decision: reason.decision(),
            reason: reason.label(),
        };
        match heard {
            Heard::Nothing => {}
            Heard::Malformed(malformed) => {
                tracing::debug!(client = %caller.client, why = malformed.why, "a request was not understood");
                line.destination.clone_from(&malformed.begin);
            }
            Heard::Request(request) => {
                line.minor = request.minor;
                line.user_agent.clone_from(&request.user_agent);
                (line.method, line.destination) = match &request.method {
                    Method::Connect(to) => ("CONNECT".into(), to.to_string().into_bytes()),
                    Method::Forward(forward) => (forward.method.into(), request.target.clone()),
                    Method::Other(method) => (method.clone(), request.target.clone()),
                };
            }
        }
        self.stats.decided(&line.method, reason);
        self.log.write(&line);
        line
    }
}

/// Sends the answer. Nothing was sent before it, so it fits the socket's buffer whole; a connection for which that is not so is broken.
fn establish(client: &TcpStream) -> io::Result<()> {
    dial::prepare(client)?;
    let written = socket2::SockRef::from(client).send(ESTABLISHED)?;
    if written == ESTABLISHED.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

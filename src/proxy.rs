//! The embedded egress proxy: CONNECT, and requests in absolute form where ports are listed for them; closed unless opened; it dials what it judged.
//!
//! [`door`] -> entrance (-> [`proxy_header`], [`limit`]) -> [`policy`] (-> [`request`], [`address`]) -> [`dial`] -> [`tunnel`] or
//! [`forward`]; a refusal ends at [`answer`]; all of it is told to [`stats`] and [`log`]. What it may do stands in [`rules`], how it
//! stands in [`life`], which [`health`] tells a load balancer. It knows nothing of checks and probes.

pub mod address;
pub mod answer;
pub mod budget;
pub mod destination;
pub mod dial;
pub mod door;
mod entrance;
pub mod forward;
pub mod health;
pub mod life;
pub mod limit;
pub mod log;
pub mod own;
pub mod pipes;
pub mod policy;
pub mod proxy_header;
pub mod reason;
pub mod request;
pub mod rules;
pub mod settings;
pub mod stats;
pub mod tunnel;
pub mod wheel;
pub mod why;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::Wall;
use crate::serve;

pub use budget::Budget;
pub use destination::Destination;
pub use log::{LogFormat, LogTarget};
pub use reason::Reason;
pub use settings::Settings;
pub use stats::Stats;

use budget::Ledger;
use dial::{Dialled, Patience};
use door::Door;
use life::Life;
use limit::{Place, Seats};
use log::{Event, Line, Log};
use policy::{Heard, Permit, Refused};
use request::{Method, Request};
use rules::Rules;
use tunnel::{End, Meter, Tunnels};

/// How long the last lines of the access log may take at the end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How often the egress budget is looked at.
const TICK: Duration = Duration::from_secs(1);
/// The answer to a CONNECT that succeeded (RFC 9110 section 9.3.6: no Content-Length, no body).
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// A proxy that is bound and has not begun to accept.
#[derive(Debug)]
pub struct Proxy {
    listeners: Vec<TcpListener>,
    health: Vec<TcpListener>,
    core: Arc<Core>,
}

/// A hand on a proxy that runs.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Core>);

/// What all connections share.
#[derive(Debug)]
struct Core {
    rules: RwLock<Arc<Rules>>,
    /// As it was started.
    settings: Settings,
    /// Where it listens, for clients and for health.
    addresses: Vec<SocketAddr>,
    seats: Arc<Seats>,
    stats: Arc<Stats>,
    log: Log,
    life: Arc<Life>,
    /// It was told that somebody sends PROXY headers who is not believed.
    stray_told: AtomicBool,
    tunnels: Arc<Tunnels>,
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
        // what is wrong with them is said before anything is bound
        Rules::new(&settings, &[])?.egress.vet()?;
        let listeners = serve::listen(&settings.listen).map_err(|why| format!("the proxy {why}"))?;
        let patience = Patience::new(settings.idle_timeout);
        for listener in &listeners {
            dial::prepare(SockRef::from(listener), patience).map_err(|e| format!("a listener cannot be set up: {e}"))?;
        }
        let health = serve::listen(&settings.health_listen).map_err(|why| format!("the proxy's health {why}"))?;
        let addresses = listeners.iter().chain(&health).map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>();
        let addresses = addresses.map_err(|e| format!("a listener has no address: {e}"))?;
        let stats = Arc::new(Stats::new(&settings.allow_from).map_err(|e| e.to_string())?);
        let log = Log::open(&settings.access_log, settings.access_log_format, stats.log_lines_lost.clone())?;
        let rules = Rules::new(&settings, &addresses)?;
        let core = Core {
            addresses,
            seats: Arc::new(Seats::new(settings.max_connections, settings.max_per_client)),
            life: Arc::new(Life::new(stats.draining.clone())),
            stats,
            log,
            tunnels: Arc::new(Tunnels::new(rules.limits)),
            rules: RwLock::new(Arc::new(rules)),
            settings,
            stray_told: AtomicBool::new(false),
        };
        Ok(Proxy { listeners, health, core: Arc::new(core) })
    }

    /// Where it listens for clients, with the ports that were bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        serve::addresses(&self.listeners)
    }

    /// Where it answers for its health, with the ports that were bound.
    pub fn health_addresses(&self) -> Vec<SocketAddr> {
        serve::addresses(&self.health)
    }

    /// What it counts.
    pub fn stats(&self) -> Arc<Stats> {
        self.core.stats.clone()
    }

    /// A hand on it, for when it runs.
    pub fn handle(&self) -> Handle {
        Handle(self.core.clone())
    }

    /// Serves until `stop` is true or its sender is gone, and the lead of [`Handle::leave`], if it was told so before, is over. Tunnels
    /// may go on for `drain` since it left; what is left then is reset.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let core = self.core;
        core.tunnels.keep(core.life.on_cut());
        let mut beside = JoinSet::new();
        for listener in self.health {
            beside.spawn(health::serve(listener, core.life.clone()));
        }
        beside.spawn(mind_the_budget(core.clone()));
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        let held = Share { core: core.clone(), cut: core.life.on_cut(), _alive: alive };
        let accepting = self.listeners.into_iter().map(|listener| entrance::accept(Door::new(listener), &held));
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
            core.life.stop();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = stopped => {}
            // the listeners are closed when this is done, the connections go on
            _ = futures_util::future::join_all(accepting) => {}
        }
        drop(held);
        let deadline = core.life.leave(Duration::ZERO).since + core.rules().drain;
        tracing::info!(tunnels = core.stats.tunnels.get(), "the proxy accepts no more; what is under way may end");
        tokio::select! {
            _ = all_ended.recv() => {}
            () = tokio::time::sleep_until(deadline) => core.reset("the time to drain is over"),
            () = core.life.is_cut() => core.reset("told to stop at once"),
        }
        all_ended.recv().await;
        drop(beside);
        core.log.flush(LAST_LINES).await;
    }
}

impl Handle {
    /// Changes the rules for connections from now on; those that are open keep theirs. Gives the keys that were changed and that only
    /// a restart changes.
    ///
    /// # Errors
    /// What is wrong with the settings; then nothing is changed.
    pub fn reload(&self, settings: &Settings) -> Result<Vec<&'static str>, String> {
        let rules = Rules::new(settings, &self.0.addresses)?;
        rules.egress.vet()?;
        self.0.stats.know(&settings.allow_from);
        *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        Ok(rules::need_a_restart(&self.0.settings, settings))
    }

    /// The settings that it was started with.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Leaves: health turns red, and clients are accepted for `drain_lead` at least, until the load balancer knows. To be followed by
    /// the `stop` of [`Proxy::run`] as soon as nobody in this process needs it any more.
    pub fn leave(&self) {
        let lead = self.0.rules().drain_lead;
        self.0.life.leave(lead);
    }

    /// Resets at once what has not ended.
    pub fn cut(&self) {
        self.0.life.cut();
    }

    /// How long it may take from [`Handle::leave`] until it has ended.
    pub fn drain(&self) -> Duration {
        self.0.rules().drain
    }
}

/// Looks at the egress budget, if there is one, for as long as the proxy runs.
async fn mind_the_budget(core: Arc<Core>) {
    let Some(budget) = core.settings.egress_budget else { return };
    let mut ledger = Ledger::new(budget, Instant::now());
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let now = ticks.tick().await;
        let (ratio, warning) = ledger.note(now, &core.stats.sent_by_source());
        core.stats.budget_ratio.set(ratio);
        if let Some(warning) = warning {
            tracing::warn!("the egress budget is spent: {warning}");
        }
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

/// Who calls, and since when.
#[derive(Debug, Clone)]
struct Caller {
    /// Who is judged: where the connection came from, or whom its PROXY header named.
    client: SocketAddr,
    /// Where the connection came from.
    peer: SocketAddr,
    accepted: Instant,
    /// The rules that hold for it from its beginning to its end.
    rules: Arc<Rules>,
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
        // from here on the wheel tells it when the proxy stops
        drop(cut);
        match request.method {
            Method::Forward(_) => Box::pin(core.forward(&mut stream, &caller, request, &permit, dialled)).await,
            Method::Connect(_) | Method::Other(_) => Box::pin(core.relay(&stream, &caller, request, &permit, dialled)).await,
        }
    }
}

impl Core {
    /// The rules that hold now.
    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes every connection end by a reset.
    fn reset(&self, why: &str) {
        let tunnels = self.stats.tunnels.get();
        if self.stats.connections.get() > 0 {
            tracing::warn!(tunnels, "{why}: what is left is reset; each tunnel has its line in the access log, with reason=shutdown");
        }
        self.life.cut();
    }

    /// Decides, and dials what is allowed; nothing, where the connection was refused and answered.
    async fn open(&self, stream: &mut TcpStream, caller: &Caller, place: &Place) -> Option<(Request, Permit, Dialled)> {
        let seated = place.is_seat();
        let rules = &caller.rules;
        let head_limit = if seated { rules.header_timeout } else { rules.header_timeout.min(limit::STANDING_TIMEOUT) };
        let head = request::read(stream, rules.max_head, head_limit);
        let (reason, heard) = match rules.policy.decide(caller.client.ip(), seated, head).await {
            Ok((request, permit)) => match self.dial(rules, &permit).await {
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

    async fn dial(&self, rules: &Rules, permit: &Permit) -> Result<Dialled, Reason> {
        let begun = Instant::now();
        let dialled = dial::dial(&permit.addresses, &rules.egress, rules.connect_timeout, rules.patience).await.inspect_err(|reason| {
            if *reason == Reason::Limit {
                self.life.lacks();
            }
        })?;
        self.stats.connect_duration.observe(begun.elapsed().as_secs_f64());
        Ok(dialled)
    }

    /// Tells the client that its tunnel stands, and relays until it ends. Not `async` as a whole: what a tunnel begins with must not be part of
    /// what stands for hours.
    fn relay<'a>(
        &'a self,
        client: &'a TcpStream,
        caller: &'a Caller,
        mut request: Request,
        permit: &Permit,
        dialled: Dialled,
    ) -> impl Future<Output = ()> + 'a {
        let standing = stats::Counted::new(&self.stats.tunnels);
        let early = std::mem::take(&mut request.early);
        let line = self.decided(caller, &Heard::Request(Box::new(request)), Reason::Allow, Some(dialled.peer));
        let (sent, received) = self.meters(permit);
        let server = dialled.stream;
        async move {
            let _standing = standing;
            let end = match establish(client) {
                Ok(()) => tunnel::relay(&self.tunnels, caller.rules.limits, client, &server, early, (&sent, &received)).await,
                Err(_) => {
                    tunnel::reset(&server);
                    End::Reset
                }
            };
            self.ended(caller, line, (&sent, &received), end);
        }
    }

    /// Forwards a request in absolute form.
    async fn forward(&self, client: &mut TcpStream, caller: &Caller, request: Request, permit: &Permit, dialled: Dialled) {
        let heard = Heard::Request(Box::new(request));
        let mut line = self.decided(caller, &heard, Reason::Allow, Some(dialled.peer));
        let Heard::Request(request) = &heard else { return };
        let Method::Forward(asked) = &request.method else { return };
        let (sent, received) = self.meters(permit);
        let asked = (&**asked, request.early.as_slice());
        let forwarded = forward::forward(&self.tunnels, caller.rules.limits, client, dialled.stream, asked, (&sent, &received)).await;
        line.status = forwarded.status;
        self.ended(caller, line, (&sent, &received), forwarded.end);
    }

    /// For bytes to and from destinations.
    fn meters(&self, permit: &Permit) -> (Meter, Meter) {
        (Meter::new(self.stats.sent(permit.source)), Meter::new(self.stats.received(permit.source)))
    }

    /// Logs the end of what was allowed.
    fn ended(&self, caller: &Caller, mut line: Line, (sent, received): (&Meter, &Meter), end: End) {
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
            peer: caller.peer,
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
                if malformed.stray_header && !self.stray_told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "{} sends a PROXY header and is not in proxy_protocol_from, so it is refused (reason=parse); if it is your load \
                         balancer, add its subnets there; this is said once",
                        caller.peer.ip()
                    );
                }
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
    let written = SockRef::from(client).send(ESTABLISHED)?;
    if written == ESTABLISHED.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

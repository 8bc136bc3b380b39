//! Probes: one way of looking each. A probe knows the wire, and does not know what a verdict is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::clock::Moment;
use crate::net::connect;
use crate::net::resolve::{Answer, Resolver};
use crate::net::tls;
use crate::observation::{Attempt, Class, Evidence, Family, Outcome, Stage, Subject};
use crate::secret::Secret;
use crate::target::{HostPort, Url};
use crate::token::Key;

mod egress_ip;
mod fetch;
mod http;
mod open_proxy;
mod peer;
mod tcp;
mod tls_handshake;
mod tunnel;

/// How every probe names itself, so that the audited side's logs corroborate.
pub const USER_AGENT: &str = concat!("mustnot/", env!("CARGO_PKG_VERSION"));

/// How much longer than its time an attempt may take before its process must have been stopped in the middle of it.
const OVERRUN: Duration = Duration::from_secs(1);

/// How an attempt ended, and how deep it got.
type Ended = (Outcome, Stage);

/// What to look at, and how.
#[derive(Debug)]
pub enum Probe {
    /// A TCP handshake.
    Tcp(Tcp),
    /// A TLS handshake, and the silence after it.
    Tls(Tls),
    /// One HTTP/1.1 exchange, direct or through a proxy.
    Http(Http),
    /// The address that the beacon sees us come from.
    EgressIp(EgressIp),
    /// Another monitor's verdict.
    Peer(Peer),
    /// The attempts to make a proxy relay for a stranger.
    OpenProxy(OpenProxy),
}

/// Kind `tcp`.
#[derive(Debug)]
pub struct Tcp {
    /// Where to connect.
    pub target: HostPort,
}

/// Kind `tls`.
#[derive(Debug)]
pub struct Tls {
    /// Where to connect.
    pub target: HostPort,
    /// How to shake hands.
    pub tls: tls::Client,
}

/// Kind `http`.
#[derive(Debug)]
pub struct Http {
    /// What to ask for; the path is sent as typed.
    pub url: Url,
    /// The proxy to go through.
    pub via: Option<Via>,
    /// The request method.
    pub method: String,
    /// Headers besides `Host`, `User-Agent`, `Accept` and `Connection`; the values may be secret.
    pub headers: Vec<(String, Secret)>,
    /// What the body of an accepted answer must contain.
    pub body_contains: Option<String>,
    /// Follow redirects to the end (positive checks only).
    pub follow_redirects: bool,
    /// How to shake hands, for `https`.
    pub tls: tls::Client,
}

/// Kind `egress-ip`.
#[derive(Debug)]
pub struct EgressIp {
    /// The beacon, over plain HTTP: its signature is its authentication.
    pub url: Url,
    /// The proxy to go through.
    pub via: Option<Via>,
    /// The addresses that it may see.
    pub expected: Vec<ipnet::IpNet>,
    /// The key shared with the beacon.
    pub key: Key,
}

/// Kind `peer`.
#[derive(Debug)]
pub struct Peer {
    /// The peer's web address.
    pub url: Url,
    /// The check to ask for.
    pub check: String,
    /// How long ago its newest record may have begun.
    pub max_age: Duration,
    /// Basic authentication.
    pub auth: Option<(String, Secret)>,
    /// How to shake hands, for `https`.
    pub tls: tls::Client,
}

/// Kind `open-proxy`.
#[derive(Debug)]
pub struct OpenProxy {
    /// The proxy that must relay nothing.
    pub target: HostPort,
    /// Our beacons, over plain HTTP.
    pub beacons: Vec<Url>,
    /// The techniques to try, in order.
    pub techniques: Vec<Technique>,
    /// A destination on the proxy's own allow-list, for OP-07.
    pub allowed_destination: Option<HostPort>,
    /// How OP-07 proves the destination's certificate.
    pub tls: tls::Client,
    /// The key shared with the beacons.
    pub key: Key,
}

/// One way to make a proxy relay (docs/techniques.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Technique {
    /// OP-01: CONNECT to the beacon, then a raw nonce.
    Connect,
    /// OP-02: GET with the beacon's absolute URI.
    AbsoluteGet,
    /// OP-07: CONNECT to a destination that the proxy allows, proven by its certificate.
    AllowedDestination,
    /// OP-09: GET in origin form with the beacon as Host.
    OriginGet,
}

/// A proxy on the way, spoken to in plain HTTP; it is always asked for a tunnel (CONNECT).
#[derive(Debug, Clone)]
pub struct Via {
    /// The proxy.
    pub proxy: HostPort,
    /// Basic credentials for it (RFC 7617).
    pub auth: Option<(String, Secret)>,
}

impl Technique {
    /// Every technique, in the order in which they are tried.
    pub const ALL: [Technique; 4] = [Technique::Connect, Technique::AbsoluteGet, Technique::OriginGet, Technique::AllowedDestination];

    /// Its number in the catalogue.
    pub fn id(self) -> &'static str {
        match self {
            Technique::Connect => "OP-01",
            Technique::AbsoluteGet => "OP-02",
            Technique::AllowedDestination => "OP-07",
            Technique::OriginGet => "OP-09",
        }
    }
}

impl Probe {
    /// The kind's token, as written in `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Probe::Tcp(_) => "tcp",
            Probe::Tls(_) => "tls",
            Probe::Http(_) => "http",
            Probe::EgressIp(_) => "egress-ip",
            Probe::Peer(_) => "peer",
            Probe::OpenProxy(_) => "open-proxy",
        }
    }

    /// The proxy on the way, where there is one.
    pub fn via(&self) -> Option<&Via> {
        match self {
            Probe::Http(http) => http.via.as_ref(),
            Probe::EgressIp(egress) => egress.via.as_ref(),
            Probe::Tcp(_) | Probe::Tls(_) | Probe::Peer(_) | Probe::OpenProxy(_) => None,
        }
    }

    /// What the check is about.
    pub fn target(&self) -> &HostPort {
        match self {
            Probe::Tcp(p) => &p.target,
            Probe::Tls(p) => &p.target,
            Probe::Http(p) => &p.url.authority,
            Probe::EgressIp(p) => &p.url.authority,
            Probe::Peer(p) => &p.url.authority,
            Probe::OpenProxy(p) => &p.target,
        }
    }

    /// What is dialled first: the proxy on the way, else the target.
    pub fn first_hop(&self) -> &HostPort {
        self.via().map_or_else(|| self.target(), |via| &via.proxy)
    }

    /// Whether a name must be resolved before anything can be dialled.
    pub fn needs_resolving(&self) -> bool {
        self.first_hop().host.ip().is_none()
    }

    /// What follows the last attempt at worst: the open-proxy suite asks the beacon's log.
    pub fn epilogue(&self, timeout: Duration) -> Duration {
        match self {
            Probe::OpenProxy(_) => timeout,
            Probe::Tcp(_) | Probe::Tls(_) | Probe::Http(_) | Probe::EgressIp(_) | Probe::Peer(_) => Duration::ZERO,
        }
    }
}

/// The way to one subject: where the first packet goes, from where, and what is asked for there.
#[derive(Debug, Clone)]
pub struct Approach {
    /// The first hop.
    pub to: SocketAddr,
    /// The address to bind.
    pub source: Option<IpAddr>,
    /// One attempt, from its first packet to its last event.
    pub timeout: Duration,
    /// What a proxy on the way is asked for, where that is not the target as written.
    pub tunnel_to: Option<HostPort>,
    /// The technique of the open-proxy suite.
    pub technique: Option<Technique>,
    /// The beacon that the technique aims at.
    pub beacon: Option<Url>,
    /// Who resolves what else must be resolved on the way.
    pub resolver: Resolver,
}

impl Probe {
    /// Every subject behind one address of the first hop: one, or one a technique and beacon.
    pub fn subjects(&self, to: SocketAddr, source: Option<IpAddr>, timeout: Duration, resolver: Resolver) -> Vec<(Subject, Approach)> {
        let via = self.via().is_some();
        let target = self.target();
        let subject = Subject {
            address: if via { target.to_string() } else { to.to_string() },
            named: target.host.ip().is_none().then(|| target.to_string()),
            family: Some(Family::of(to.ip())),
            dialled: Some(to),
            reached: if via { target.socket_addr() } else { Some(to) },
            source,
            via,
            technique: None,
        };
        let approach = Approach { to, source, timeout, tunnel_to: None, technique: None, beacon: None, resolver };
        let Probe::OpenProxy(suite) = self else { return vec![(subject, approach)] };
        let mut subjects = Vec::new();
        for technique in &suite.techniques {
            let beacons: Vec<Option<&Url>> =
                if *technique == Technique::AllowedDestination { vec![None] } else { suite.beacons.iter().map(Some).collect() };
            for beacon in beacons {
                let subject = Subject { technique: Some(technique.id()), ..subject.clone() };
                subjects.push((subject, Approach { technique: Some(*technique), beacon: beacon.cloned(), ..approach.clone() }));
            }
        }
        subjects
    }

    /// One attempt: one fresh connection, and what became of it.
    pub async fn attempt(&self, approach: &Approach) -> Attempt {
        let mut evidence = Evidence::default();
        let started = Moment::now();
        let deadline = Instant::now() + approach.timeout;
        let (outcome, stage) = match self {
            Probe::Tcp(_) => tcp::attempt(approach, deadline, &mut evidence).await,
            Probe::Tls(probe) => tls_handshake::attempt(probe, approach, deadline, &mut evidence).await,
            Probe::Http(probe) => http::attempt(probe, approach, deadline, &mut evidence).await,
            Probe::EgressIp(probe) => egress_ip::attempt(probe, approach, deadline, &mut evidence).await,
            Probe::Peer(probe) => peer::attempt(probe, approach, deadline, &mut evidence).await,
            Probe::OpenProxy(probe) => open_proxy::attempt(probe, approach, deadline, &mut evidence).await,
        };
        let ended = Moment::now();
        let longest = approach.timeout + self.epilogue(approach.timeout) + OVERRUN;
        if outcome.class() == Class::Closed && ended.since(started) > longest {
            // A witness before this attempt may be long out of date by the time of its first packet.
            evidence.detail =
                Some(format!("{outcome}, but this process was stopped meanwhile, or far too busy: see what else its host runs"));
            return Attempt { outcome: Outcome::LocalError, stage, evidence, started, ended };
        }
        Attempt { outcome, stage, evidence, started, ended }
    }
}

/// Opens the connection to the first hop.
async fn dial(approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Result<TcpStream, Ended> {
    connect::dial(approach.to, approach.source, deadline, evidence).await.map_err(|outcome| (outcome, Stage::Tcp))
}

/// The first address of a host that is needed on the way, of the approach's family where it has one.
async fn first_address(to: &HostPort, approach: &Approach, deadline: Instant) -> Result<SocketAddr, String> {
    let name = match &to.host {
        crate::target::Host::Ip(ip) => return Ok(SocketAddr::new(*ip, to.port)),
        crate::target::Host::Name(name) => name,
    };
    let limit = deadline.saturating_duration_since(Instant::now());
    let families = if approach.source.is_some() { vec![Family::of(approach.to.ip())] } else { Family::BOTH.to_vec() };
    let mut why = format!("{name} has no address");
    for (_, answer) in approach.resolver.addresses(name, &families, limit).await {
        match answer {
            Answer::Addresses(found) => {
                if let Some(ip) = found.first() {
                    return Ok(SocketAddr::new(*ip, to.port));
                }
            }
            Answer::Failed(failed) => why = failed,
            Answer::NoData | Answer::NxDomain => {}
        }
    }
    Err(why)
}

/// The value of an `Authorization` or `Proxy-Authorization` header (RFC 7617).
fn basic_auth(user: &str, password: &Secret) -> String {
    let pair = format!("{user}:{}", password.expose());
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

//! Probes: one way of looking each, one file a kind. A probe knows the wire, and does not know what a verdict is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::clock::Moment;
use crate::net::ask::QUESTIONS;
use crate::net::connect;
use crate::net::pace::{self, Pace, SPACING};
use crate::net::resolve::{Answer, Resolver};
use crate::net::tls::Stranger;
use crate::observation::{Attempt, Class, Evidence, Family, Outcome, Stage, Subject, Transport};
use crate::secret::Secret;
use crate::target::HostPort;
use crate::token::unguessable;

mod by_hand;
mod dns;
mod egress_ip;
mod fetch;
mod http;
mod icmp;
mod in_words;
mod kind;
mod open_proxy;
mod peer;
mod promql;
mod ports;
mod ranges;
mod tcp;
mod tls;
mod tunnel;
mod udp;
mod variant;

pub use dns::{Allowed, Dns, PORT as DNS_PORT, RecordType};
pub use egress_ip::EgressIp;
pub use http::{Http, MAX_PAGE};
pub use icmp::{Icmp, Scope, bare};
pub use kind::Kind;
pub use open_proxy::{Form, LEFT_OUT, OpenProxy, Technique};
pub use peer::Peer;
pub use ports::Ports;
pub use promql::{MAX_QUERY, PromQl, Takes, is_plain_series};
pub use ranges::{Expected, Form as ListForm, Pointer, Published, Ranges, Web as WebList};
pub use tcp::Tcp;
pub use tls::{Manner, Tls};
pub use tunnel::Via;
pub use udp::{Payload, Udp};
pub use variant::{BUDGET, EXTRA, Pick, Variant};

/// How every probe names itself, so that the audited side's logs corroborate.
pub const USER_AGENT: &str = concat!("mustnot/", env!("CARGO_PKG_VERSION"));
/// The hexadecimal digits of a nonce by which logs know an attempt.
const KNOWN_BY: usize = 32;

/// How an attempt names itself: with a number that it alone has, so that a line of a log is known to be about it. That is the beginning of the
/// nonce for the beacon, where it has one.
fn user_agent(evidence: &mut Evidence) -> String {
    if evidence.nonce.is_none() {
        evidence.nonce = unguessable();
    }
    evidence.nonce.as_deref().map_or_else(|| USER_AGENT.into(), named)
}

/// As [`user_agent`], with this nonce.
fn named(nonce: &str) -> String {
    format!("{USER_AGENT} (probe {})", nonce.get(..KNOWN_BY).unwrap_or(nonce))
}

/// How much longer than its time an attempt may take before its process must have been stopped in the middle of it.
const OVERRUN: Duration = Duration::from_secs(1);

/// How many subjects of one run are looked at at once, as a rule.
const LOOKS_AT_ONCE: usize = 128;

/// How an attempt ended, and how deep it got.
type Ended = (Outcome, Stage);

/// What to look at, and how.
#[derive(Debug, PartialEq)]
pub enum Probe {
    /// A TCP handshake.
    Tcp(Tcp),
    /// A TLS handshake, and the silence after it.
    Tls(Tls),
    /// One HTTP exchange, direct or through a proxy, and its variants.
    Http(Http),
    /// The address that the beacon sees us come from.
    EgressIp(EgressIp),
    /// Another monitor's verdict.
    Peer(Peer),
    /// A Prometheus server's word on a series.
    PromQl(PromQl),
    /// The attempts to make a proxy relay for a stranger.
    OpenProxy(OpenProxy),
    /// What a name server says of a name.
    Dns(Dns),
    /// A datagram that a live service answers.
    Udp(Udp),
    /// An ICMP echo.
    Icmp(Icmp),
    /// Many ports of many addresses.
    Ports(Ports),
    /// A published list of networks against the expected one.
    Ranges(Ranges),
}

impl Probe {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Probe::Tcp(_) => Kind::Tcp,
            Probe::Tls(_) => Kind::Tls,
            Probe::Http(_) => Kind::Http,
            Probe::EgressIp(_) => Kind::EgressIp,
            Probe::Peer(_) => Kind::Peer,
            Probe::PromQl(_) => Kind::PromQl,
            Probe::OpenProxy(_) => Kind::OpenProxy,
            Probe::Dns(_) => Kind::Dns,
            Probe::Udp(_) => Kind::Udp,
            Probe::Icmp(_) => Kind::Icmp,
            Probe::Ports(_) => Kind::Ports,
            Probe::Ranges(_) => Kind::Ranges,
        }
    }

    /// The proxy on the way, where there is one.
    pub fn via(&self) -> Option<&Via> {
        match self {
            Probe::Http(http) => http.via.as_ref(),
            Probe::EgressIp(egress) => egress.via.as_ref(),
            _ => None,
        }
    }

    /// The proxy on the way, where it is asked for a tunnel: then it is known which address was reached.
    pub fn tunnel(&self) -> Option<&Via> {
        self.via().filter(|via| !via.absolute)
    }

    /// The host that the check is about; none where that is a file on this one.
    pub fn target(&self) -> Option<&HostPort> {
        Some(match self {
            Probe::Tcp(p) => &p.target,
            Probe::Tls(p) => &p.target,
            Probe::Http(p) => &p.url.authority,
            Probe::EgressIp(p) => &p.url.authority,
            Probe::Peer(p) => &p.url.authority,
            Probe::PromQl(p) => &p.url.authority,
            Probe::OpenProxy(p) => &p.target,
            Probe::Dns(p) => &p.target,
            Probe::Udp(p) => &p.target,
            Probe::Icmp(p) => &p.target.host,
            Probe::Ports(p) => &p.target,
            Probe::Ranges(Ranges { published: Published::Web(list), .. }) => &list.url.authority,
            Probe::Ranges(Ranges { published: Published::File(_), .. }) => return None,
        })
    }

    /// What is dialled first: the proxy on the way, else the target; none where nothing is dialled.
    pub fn first_hop(&self) -> Option<&HostPort> {
        self.via().map_or_else(|| self.target(), |via| Some(&via.proxy))
    }

    /// Where the first packets go.
    pub fn hops(&self) -> Hops<'_> {
        match self {
            Probe::Dns(dns) => dns.hops(),
            Probe::Icmp(p) => p.target.addresses().map_or(Hops::Host(&p.target.host), Hops::Addresses),
            Probe::Ports(ports) => ports.hops(),
            Probe::Ranges(Ranges { published: Published::File(path), .. }) => Hops::File(path),
            _ => self.first_hop().map_or_else(|| Hops::Nowhere("there is no host to go to".into()), Hops::Host),
        }
    }

    /// What carries the first packet.
    pub fn transport(&self) -> Transport {
        match self {
            Probe::Tcp(_)
            | Probe::Tls(_)
            | Probe::Http(_)
            | Probe::EgressIp(_)
            | Probe::Peer(_)
            | Probe::PromQl(_)
            | Probe::OpenProxy(_)
            | Probe::Ports(_)
            | Probe::Ranges(_) => Transport::Tcp,
            Probe::Udp(_) | Probe::Dns(_) => Transport::Udp,
            Probe::Icmp(_) => Transport::Icmp,
        }
    }

    /// Whether it is made in the place of those who have no right client certificate.
    pub fn plays_strangers(&self) -> bool {
        match self {
            Probe::Tls(tls) => matches!(tls.manner, Manner::Strangers(_)),
            Probe::Http(http) => !http.strangers().is_empty(),
            _ => false,
        }
    }

    /// Whether it shows a client certificate of its own to who asks.
    pub fn shows_own_certificate(&self) -> bool {
        match self {
            Probe::Tls(Tls { tls, .. }) | Probe::Http(Http { tls, .. }) => tls.has_own_certificate(),
            _ => false,
        }
    }

    /// What is asked, where an answer to one question says nothing of another ([`Subject::asked`]).
    pub fn asked(&self) -> Option<String> {
        match self {
            Probe::Udp(p) => Some(p.payload.to_string()),
            _ => None,
        }
    }

    /// For how long one attempt keeps its host from all others, so that its datagrams are spaced ([`crate::net::pace`]).
    pub fn keeps_host(&self) -> Duration {
        match self {
            Probe::Udp(_) | Probe::Icmp(_) => SPACING * QUESTIONS,
            _ => Duration::ZERO,
        }
    }

    /// Whether a name must be resolved before anything can be dialled.
    pub fn needs_resolving(&self) -> bool {
        !matches!(self, Probe::Dns(_)) && self.first_hop().is_some_and(|hop| hop.host.ip().is_none())
    }

    /// Whether both may lead to one host, as far as that can be told without resolving.
    pub fn may_ask(&self, other: &Probe) -> bool {
        let (Some(here), Some(there)) = (self.first_hop(), other.first_hop()) else { return false };
        let overlap = |echo: &Icmp, hop: &HostPort| echo.target.may_be(&hop.host);
        match (self, other) {
            (Probe::Icmp(a), Probe::Icmp(b)) => overlap(a, there) || overlap(b, here),
            (Probe::Icmp(echo), _) => overlap(echo, there),
            (_, Probe::Icmp(echo)) => overlap(echo, here),
            // Two names may stand for one address.
            _ => match (here.host.ip(), there.host.ip()) {
                (Some(one), Some(other)) => one == other,
                _ => true,
            },
        }
    }

    /// What follows most attempts: the question to the beacon's log.
    pub fn afterthought(&self, timeout: Duration) -> Duration {
        match self {
            Probe::OpenProxy(_) => timeout,
            _ => Duration::ZERO,
        }
    }

    /// How many subjects of a run are looked at at once; witnesses run between those and the next.
    pub fn looks_at_once(&self) -> usize {
        match self {
            Probe::OpenProxy(_) => OpenProxy::AT_ONCE,
            Probe::Http(http) if !http.variants.is_empty() => variant::AT_ONCE,
            _ => LOOKS_AT_ONCE,
        }
    }

    /// How many subjects there are by the file alone: of one address, and of a name an address a family.
    pub fn subjects_known(&self) -> usize {
        match self {
            Probe::OpenProxy(suite) => suite.forms_known() * if self.needs_resolving() { 2 } else { 1 },
            Probe::Http(http) if !http.variants.is_empty() => {
                (http.variants.len() + variant::EXTRA) * if self.needs_resolving() { 2 } else { 1 }
            }
            Probe::Icmp(p) => p.target.addresses().map_or(1, |all| all.len()),
            _ => 1,
        }
    }

    /// How many requests one run may cost the target, where there is a bound.
    pub fn budget(&self) -> Option<usize> {
        match self {
            Probe::Http(http) if !http.variants.is_empty() => Some(variant::BUDGET),
            _ => None,
        }
    }

    /// What follows the last attempt at worst: the open-proxy suite asks the beacon's log.
    pub fn epilogue(&self, timeout: Duration) -> Duration {
        match self {
            // Late arrivals before it, the log after it; and another beacon, where one answered.
            Probe::OpenProxy(_) => timeout * 3,
            // Where a variant finds the page, public pages are asked for beside it.
            Probe::Http(http) if !http.variants.is_empty() => timeout,
            _ => Duration::ZERO,
        }
    }
}

/// What one subject of a probe asks for.
#[derive(Debug, Clone)]
pub enum Aim {
    /// The target as written.
    AsWritten,
    /// This address of the target, through the proxy on the way.
    Tunnel(HostPort),
    /// That a proxy relays, by this form of a technique.
    Relay(Arc<Form>),
    /// The target, in the place of this one of the strangers that the probe plays.
    Stranger(usize),
    /// For the records of this type.
    Ask(RecordType),
    /// The page of the target, by this one of the probe's variants.
    Variant(usize),
}

/// Where the first packets of a probe go.
#[derive(Debug)]
pub enum Hops<'a> {
    /// To every address of this host.
    Host(&'a HostPort),
    /// To these addresses.
    Addresses(Vec<SocketAddr>),
    /// To nobody: what is looked at is this file on this host.
    File(&'a Path),
    /// Nowhere, and why: a fault on this side.
    Nowhere(String),
}

/// The first hop of a look that goes nowhere, so that nobody is ever dialled by mistake.
pub const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The way to one subject: where the first packet goes, from where, and what is asked for there.
#[derive(Debug, Clone)]
pub struct Approach {
    /// The first hop; [`NOBODY`] where nothing is dialled.
    pub to: SocketAddr,
    /// The address to bind.
    pub source: Option<IpAddr>,
    /// One attempt, from its first packet to its last event.
    pub timeout: Duration,
    /// What is asked for there.
    pub aim: Aim,
    /// Who resolves what else must be resolved on the way.
    pub resolver: Resolver,
}

impl Probe {
    /// Every subject behind one address of the first hop: one, or one a technique and beacon.
    pub fn subjects(&self, to: SocketAddr, source: Option<IpAddr>, timeout: Duration, resolver: Resolver) -> Vec<(Subject, Approach)> {
        let via = self.via().is_some();
        let Some(target) = self.target() else { return Vec::new() };
        let has_port = self.transport() != Transport::Icmp;
        let shown = |to: &HostPort| if has_port { to.to_string() } else { bare(&to.host) };
        let subject = Subject {
            address: if via { target.to_string() } else { shown(&to.into()) },
            named: target.host.ip().is_none().then(|| shown(target)),
            family: Some(Family::of(to.ip())),
            dialled: Some(to),
            reached: if via { target.socket_addr() } else { Some(to) },
            transport: self.transport(),
            asked: self.asked(),
            source,
            via,
            technique: None,
            variant: None,
        };
        let approach = Approach { to, source, timeout, aim: Aim::AsWritten, resolver };
        match self {
            Probe::OpenProxy(suite) => suite.subjects(&subject, &approach),
            Probe::Tls(Tls { manner: Manner::Strangers(all), .. }) => strangers(all, &subject, &approach),
            Probe::Http(http) if !http.strangers().is_empty() => strangers(http.strangers(), &subject, &approach),
            Probe::Http(http) if !http.variants.is_empty() => variant::subjects(&http.variants, &subject, &approach),
            Probe::Dns(dns) => dns.subjects(&subject, &approach),
            _ => vec![(subject, approach)],
        }
    }

    /// One attempt: one fresh connection, and what became of it.
    pub async fn attempt(&self, approach: &Approach) -> Attempt {
        let mut evidence = Evidence::default();
        // Whoever waits for a host's turn has not begun, and his time is not running.
        let pace = if self.keeps_host().is_zero() { Pace::free() } else { pace::turn(approach.to.ip()).await };
        let started = Moment::now();
        let deadline = Instant::now() + approach.timeout;
        let (outcome, stage) = match self {
            Probe::Tcp(probe) => probe.attempt(approach, deadline, &mut evidence).await,
            Probe::Tls(probe) => probe.attempt(approach, deadline, &mut evidence).await,
            Probe::Http(probe) => probe.attempt(approach, deadline, &mut evidence).await,
            Probe::EgressIp(probe) => probe.attempt(approach, deadline, &mut evidence).await,
            Probe::Peer(probe) => probe.attempt(approach, deadline, &mut evidence).await,
            Probe::PromQl(probe) => probe.attempt(approach, deadline, &mut evidence).await,
            Probe::OpenProxy(probe) => probe.attempt(approach, deadline, &mut evidence).await,
            Probe::Dns(probe) => probe.attempt(approach, deadline, &mut evidence).await,
            Probe::Udp(probe) => probe.attempt(approach, pace, deadline, &mut evidence).await,
            Probe::Icmp(probe) => probe.attempt(approach, pace, deadline, &mut evidence).await,
            Probe::Ports(probe) => probe.attempt(approach, deadline, &mut evidence).await,
            Probe::Ranges(probe) => probe.attempt(approach, deadline, &mut evidence).await,
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

/// One subject a stranger.
fn strangers(all: &[Stranger], subject: &Subject, approach: &Approach) -> Vec<(Subject, Approach)> {
    let of = |(nth, stranger): (usize, &Stranger)| {
        let subject = Subject { variant: Some(stranger.variant()), ..subject.clone() };
        (subject, Approach { aim: Aim::Stranger(nth), ..approach.clone() })
    };
    all.iter().enumerate().map(of).collect()
}

impl Probe {
    /// Whether somebody answers at `to` as he would answer this probe's first packet: a handshake, or a datagram's
    /// question, which is `asked` where there are several ([`Subject::asked`]).
    pub async fn is_answered_at(
        &self,
        to: SocketAddr,
        transport: Transport,
        source: Option<IpAddr>,
        asked: Option<&str>,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> bool {
        match (self, transport) {
            (Probe::Udp(probe), Transport::Udp) => probe.ask(to, source, Pace::free(), deadline, evidence).await == Outcome::Replied,
            (Probe::Icmp(_), _) => icmp::ask(to, source, Pace::free(), deadline, evidence).await == Outcome::Replied,
            (Probe::Dns(probe), Transport::Udp) => probe.is_answered_at(to, source, asked, deadline, evidence).await,
            // The handshake was finished before a RST that comes after it.
            _ => matches!(connect::dial(to, source, deadline, evidence).await, Ok(_) | Err(Outcome::Reset)),
        }
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
pub fn basic_auth(user: &str, password: &Secret) -> String {
    let pair = format!("{user}:{}", password.expose());
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

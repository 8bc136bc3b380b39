//! Kind `open-proxy`: the ways to make a proxy relay for a stranger, believed only when our beacon signed (docs/techniques.md).

mod catalogue;
mod http2;
mod question;
mod socks;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use ipnet::IpNet;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use self::catalogue::{ADDRESS, ANYBODY, NONCE, NOWHERE, Talk};
use super::{Aim, Approach, Ended, dial, first_address, tunnel};
use crate::clock::Wall;
use crate::net::http::{self, Head};
use crate::net::tls;
use crate::observation::{Authentication, Evidence, Outcome, Stage, Subject};
use crate::target::{Host, HostPort, Url};
use crate::token::{Answer, Key, Nonce};

pub use catalogue::{Form, LEFT_OUT, Technique};

/// The most that is read of an answer: the longest signed line is far shorter, and an error page goes on for long.
const MAX_ANSWER: usize = 64 * 1024;
/// The most answers that are read from one connection.
const MAX_ANSWERS: usize = 8;
/// The longest request line that is kept as evidence.
const MAX_REQUEST: usize = 400;
/// What Squid's manager page has in it, and nothing else has.
const MANAGER_PAGE: &str = "Squid Object Cache";
/// The port that most proxies tunnel to, and that a beacon should listen on.
const USUAL_PORT: u16 = 443;

/// Kind `open-proxy`.
#[derive(Debug)]
pub struct OpenProxy {
    /// The proxy that must relay nothing.
    pub target: HostPort,
    /// Our beacons, over plain HTTP.
    pub beacons: Vec<Url>,
    /// The techniques to try, in order.
    pub techniques: Vec<Technique>,
    /// The proxy's own allow list of clients: addresses to forge, and not to come from.
    pub spoof: Vec<IpNet>,
    /// A destination on the proxy's own allow list, for OP-07.
    pub allowed_destination: Option<HostPort>,
    /// How OP-07 proves the destination's certificate.
    pub tls: tls::Client,
    /// The key shared with the beacons.
    pub key: Key,
    /// What the last run sent that may still arrive.
    late: Mutex<Vec<question::Late>>,
}

/// What is asked, and not what was.
impl PartialEq for OpenProxy {
    fn eq(&self, other: &OpenProxy) -> bool {
        let OpenProxy { target, beacons, techniques, spoof, allowed_destination, tls, key, late: _ } = self;
        (target, beacons, techniques, spoof) == (&other.target, &other.beacons, &other.techniques, &other.spoof)
            && (allowed_destination, tls, key) == (&other.allowed_destination, &other.tls, &other.key)
    }
}

impl OpenProxy {
    /// How many looks at one proxy are made at once: more would look like an attack to what limits rates there.
    pub const AT_ONCE: usize = 16;

    /// A suite that has not run yet.
    pub fn new(target: HostPort, beacons: Vec<Url>, techniques: Vec<Technique>, tls: tls::Client, key: Key) -> OpenProxy {
        OpenProxy { target, beacons, techniques, spoof: Vec::new(), allowed_destination: None, tls, key, late: Mutex::default() }
    }

    /// How many connections one run makes at most to each address of the proxy, where every attempt is made.
    /// OP-28, OP-29, OP-30 and OP-06 make up to two more each where a tunnel is granted that should not be.
    pub fn connections(&self, attempts: usize) -> usize {
        self.forms_known() * attempts
    }

    /// How many forms there are for one address.
    pub fn forms_known(&self) -> usize {
        let any = SocketAddr::from(([192, 0, 2, 1], self.target.port));
        self.techniques.iter().map(|t| catalogue::forms(self, *t, any).len()).sum()
    }

    /// The beacon that techniques go to which are tried with one only: the first on the port that most proxies tunnel to.
    fn main_beacon(&self) -> Option<&Url> {
        self.beacons.iter().find(|b| b.authority.port == USUAL_PORT).or_else(|| self.beacons.first())
    }

    /// One address of each declared network.
    fn forged(&self) -> impl Iterator<Item = IpAddr> {
        self.spoof.iter().map(catalogue::one_of)
    }

    /// One subject a form.
    pub(super) fn subjects(&self, subject: &Subject, approach: &Approach) -> Vec<(Subject, Approach)> {
        let forms = self.techniques.iter().flat_map(|technique| catalogue::forms(self, *technique, approach.to));
        let of = |form: Form| {
            let subject = Subject { technique: Some(form.technique.id()), variant: form.variant.clone(), ..subject.clone() };
            (subject, Approach { aim: Aim::Relay(Arc::new(form)), ..approach.clone() })
        };
        forms.map(of).collect()
    }

    /// What is sent to the subject as a line for a shell: a pipe to `nc`, the nonce left to be filled in.
    pub(super) fn bytes_by_hand(&self, subject: &Subject) -> Option<String> {
        let to = subject.dialled?;
        let technique = subject.technique.and_then(Technique::of)?;
        let form = catalogue::forms(self, technique, to).into_iter().find(|f| f.variant == subject.variant)?;
        let beacon = form.beacon.as_ref().map(|b| b.authority.to_string()).unwrap_or_default();
        let bytes = match &form.talk {
            Talk::Request(text) | Talk::Word(text) | Talk::Manager(text) => text.replace(ANYBODY, &anybody()).into_bytes(),
            Talk::Tunnel { head, .. } => format!("{head}{NONCE}\n").replace(ANYBODY, &anybody()).into_bytes(),
            Talk::Reach(to) => reach(to).into_bytes(),
            Talk::Allowed => return Some(format!("curl -sS -x 'http://{to}' 'https://{}/'", self.allowed_destination.as_ref()?)),
            Talk::ServerName => {
                let name = &self.allowed_destination.as_ref()?.host;
                return Some(format!("openssl s_client -verify_return_error -servername {name} -verify_hostname {name} -connect {to}"));
            }
            Talk::Socks5 { command, login, to } => {
                let let_in = login.map(socks::Login::written).unwrap_or_default();
                [socks::greeting(*login), &let_in, &socks::request5(*command, to)].concat()
            }
            Talk::Socks4(to) => socks::request4(to),
            Talk::Http2 { tunnel: true, .. } => {
                return Some(format!("nghttp -v -H ':method: CONNECT' -H ':authority: {beacon}' 'http://{to}/'"));
            }
            Talk::Http2 { tunnel: false, .. } => {
                return Some(format!("curl -sS --http2-prior-knowledge -H 'Host: {beacon}' 'http://{to}/NONCE'"));
            }
        };
        let pipe = match form.tls {
            Some(alpn) => format!("openssl s_client -quiet -alpn {alpn} -connect {to}"),
            None => format!("nc -w 5 {} {}", to.ip(), to.port()),
        };
        Some(format!("printf '{}' | {pipe}", for_printf(&[form.prefix.as_slice(), &bytes].concat())))
    }

    /// Tries one form once. Afterwards the beacon's log is asked whether the nonce came through all the same, and whether
    /// the beacon sees a stranger in us.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        let Aim::Relay(form) = &approach.aim else { return (Outcome::Internal, Stage::Proxy) };
        evidence.technique = Some(form.technique.id());
        if let Some(outcome) = self.came_late(approach, evidence).await {
            return (outcome, Stage::Proxy);
        }
        // The questions about the last run took time that this attempt shall have.
        let deadline = deadline.max(Instant::now() + approach.timeout);
        let (outcome, stage) = self.tried(form, approach, deadline, evidence).await;
        if let Some(why) = self.no_stranger(approach, evidence).await {
            evidence.detail = Some(why);
            return (Outcome::LocalError, stage);
        }
        (outcome, stage)
    }

    async fn tried(&self, form: &Form, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        let outcome = match &form.talk {
            Talk::Reach(to) => self.reach(form, to, approach, deadline, evidence).await,
            Talk::Socks5 { command, .. } if *command != socks::CONNECT => self.beside_connect(form, approach, deadline, evidence).await,
            _ => self.once(form, approach, deadline, evidence).await,
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            // RST straight after accept is how a proxy denies at TCP level.
            Err((outcome, stage)) => return (tunnel::of_silence(outcome), stage),
        };
        let ours = evidence.local_address;
        match (evidence.beacon_saw, ours) {
            // Nothing stood between: our own client went around the proxy.
            (Some(seen), Some(ours)) if seen == ours => {
                evidence.detail =
                    Some("the beacon saw this very connection, so no proxy stood between; is the target the beacon itself?".into());
                (Outcome::Internal, Stage::Proxy)
            }
            _ => (outcome, Stage::Proxy),
        }
    }

    /// One fresh connection, and what came of it; where it carried a nonce, by the beacon's word too.
    async fn once(&self, form: &Form, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Result<Outcome, Ended> {
        let nonce = match Nonce::mint(&self.key, Wall::now().unix_millis()) {
            Ok(nonce) => nonce,
            Err(why) => return Ok(local(evidence, why)),
        };
        let mut filling = Filling { nonce: nonce.to_string(), address: None };
        if let (Talk::Tunnel { head, .. }, Some(beacon)) = (&form.talk, &form.beacon)
            && head.contains(ADDRESS)
        {
            match first_address(&beacon.authority, approach, deadline).await {
                Ok(address) => filling.address = Some(address),
                Err(why) => return Ok(local(evidence, format!("the beacon's name could not be resolved: {why}"))),
            }
        }
        evidence.nonce = form.beacon.as_ref().map(|_| filling.nonce.clone());
        let answered = self.sent(form, &nonce, &filling, approach, deadline, evidence).await?;
        let Some(beacon) = &form.beacon else { return Ok(answered) };
        if answered == Outcome::Relayed {
            return Ok(self.own_request(form, beacon, answered, approach, evidence).await);
        }
        Ok(match self.seen_blind(beacon, &nonce, approach, evidence).await {
            Ok(true) => {
                evidence.authenticated = Some(Authentication::Beacon);
                self.own_request(form, beacon, Outcome::RelayedBlind, approach, evidence).await
            }
            Ok(false) => {
                if matches!(answered, Outcome::Mute | Outcome::GatewayError) {
                    self.remember(nonce, beacon, named(form));
                }
                answered
            }
            Err(why) => {
                local(evidence, format!("the proxy's answer was {answered}, but the beacon's log does not tell whether it relayed: {why}"))
            }
        })
    }

    /// What the answer to a fresh connection's talk was, whatever the beacon's log says.
    async fn sent(
        &self,
        form: &Form,
        nonce: &Nonce,
        filling: &Filling,
        approach: &Approach,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Result<Outcome, Ended> {
        let mut stream = dial(approach, deadline, evidence).await?;
        let talk = Talking { suite: self, form, nonce, filling, deadline };
        Ok(match (&form.talk, form.tls) {
            (Talk::Allowed, _) => self.allowed_destination(stream, deadline, evidence).await,
            (Talk::ServerName, _) => self.server_name(stream, approach, deadline, evidence).await,
            (_, Some(protocol)) => match self.shaken(stream, protocol, approach, deadline, evidence).await {
                Ok(stream) => talk.over(stream, evidence).await,
                Err(outcome) => of_handshake(outcome, evidence),
            },
            (_, None) => {
                let _ = http::send(&mut stream, &form.prefix, deadline).await;
                talk.over(stream, evidence).await
            }
        })
    }

    /// A TLS stream to the proxy itself, whatever its certificate. No name is sent: a relay by names that is given its own calls itself until
    /// it dies. Only to who has answered by an alert, and so ends TLS himself, it is said, since some have no certificate without one. But
    /// `handshake_failure` is also what a relay says to who names nobody.
    async fn shaken(
        &self,
        stream: TcpStream,
        protocol: &str,
        approach: &Approach,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Result<TlsStream<TcpStream>, Outcome> {
        let local = |(_, why), evidence: &mut Evidence| local(evidence, why);
        let anybody = tls::Client::anybody(&[protocol]).map_err(|e| local(e, evidence))?;
        let host = &self.target.host;
        let mut shaken = anybody.shake(stream, host, deadline, evidence).await;
        let ends_tls = evidence.tls_alert.as_deref().is_some_and(|alert| alert != "handshake_failure");
        if matches!(shaken, Err(Outcome::TlsRefused))
            && ends_tls
            && let Host::Name(name) = host
        {
            let stream = dial(approach, deadline, evidence).await.map_err(|(outcome, _)| outcome)?;
            (evidence.tls_alert, evidence.tls_error) = (None, None);
            shaken = anybody.for_anybody(Some(name.clone())).shake(stream, host, deadline, evidence).await;
        }
        // The proxy's own certificate vouches for nothing that it relays.
        evidence.authenticated = None;
        shaken.map(|shaken| shaken.stream)
    }

    /// A server whose only backend is a beacon looks like a relay of requests, and relays nothing. Where another beacon at another host is
    /// named, a request for that one must reach it, too: if it ends at a beacon that is not the one asked for, all end at one place.
    async fn own_request(&self, form: &Form, beacon: &Url, open: Outcome, approach: &Approach, evidence: &mut Evidence) -> Outcome {
        if !matches!(form.talk, Talk::Request(_) | Talk::Http2 { .. }) {
            return open;
        }
        // A signed answer may be another beacon's: each log knows whose.
        let sent = evidence.nonce.as_deref().and_then(|n| Nonce::verify(&self.key, n, Wall::now().unix_millis()));
        let astray = match sent {
            Some(sent) if open == Outcome::Relayed => self.elsewhere(beacon, &sent, approach, evidence).await,
            _ => false,
        };
        for other in self.beacons.iter().filter(|b| astray || b.authority.host != beacon.authority.host) {
            if astray || self.goes_astray(form, beacon, other, approach, evidence).await == Some(true) {
                evidence.detail = Some(format!(
                    "a request for {} ended at another beacon: a server whose only backend is a beacon, which relays nothing",
                    other.authority
                ));
                (evidence.beacon_saw, evidence.beacon_log, evidence.authenticated) = (None, None, None);
                return Outcome::NotRelayed;
            }
        }
        open
    }

    /// Whether the same form for the other beacon ends at some beacon, and not at that one; nothing where that cannot be told.
    async fn goes_astray(&self, form: &Form, beacon: &Url, other: &Url, approach: &Approach, evidence: &mut Evidence) -> Option<bool> {
        let deadline = Instant::now() + approach.timeout;
        let nonce = Nonce::mint(&self.key, Wall::now().unix_millis()).ok()?;
        let variant = form.variant.as_ref().map(|v| v.replace(&beacon.authority.to_string(), &other.authority.to_string()));
        let forms = catalogue::forms_to(self, form.technique, approach.to, other);
        let form = forms.into_iter().find(|f| f.variant == variant && f.beacon.as_ref() == Some(other))?;
        let filling = Filling { nonce: nonce.to_string(), address: None };
        let _ = self.sent(&form, &nonce, &filling, approach, deadline, &mut Evidence::default()).await;
        Some(self.elsewhere(other, &nonce, approach, evidence).await)
    }

    /// The nonce is not known where it was to go, and is known to a beacon at another host.
    async fn elsewhere(&self, asked: &Url, nonce: &Nonce, approach: &Approach, evidence: &mut Evidence) -> bool {
        let mut second = Evidence::default();
        let here = self.seen_blind(asked, nonce, approach, &mut second).await;
        evidence.beacon_saw_us = second.beacon_saw_us.or(evidence.beacon_saw_us);
        if here != Ok(false) {
            return false;
        }
        for other in self.beacons.iter().filter(|b| b.authority.host != asked.authority.host) {
            if self.seen_blind(other, nonce, approach, &mut second).await == Ok(true) {
                return true;
            }
        }
        false
    }

    /// A tunnel to where no beacon is. A refusal is judged by its words. A grant proves nothing by itself, since some servers
    /// grant everything: it counts where the same is not granted for a name that cannot exist; where it is, only a server
    /// whose tunnel to our beacon leads nowhere is known to grant nothing.
    async fn reach(
        &self,
        form: &Form,
        to: &str,
        approach: &Approach,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Result<Outcome, Ended> {
        let refused = |outcome: Outcome, evidence: &Evidence| match (outcome, evidence.status) {
            // Some say 500 where they could not connect.
            (_, Some(500)) => Outcome::GatewayError,
            _ => outcome,
        };
        let Err(outcome) = asked_for(to, approach, deadline, evidence).await? else {
            let port = to.rsplit(':').next().unwrap_or("443");
            let mut nowhere = Evidence::default();
            let compared = asked_for(&format!("{NOWHERE}:{port}"), approach, deadline, &mut nowhere).await;
            let compared = compared.map(|granted| granted.err().map(|outcome| refused(outcome, &nowhere)));
            if let Ok(Some(Outcome::Denied | Outcome::GatewayError | Outcome::AclPassed)) = compared {
                evidence.detail = Some(format!("it granted a tunnel to {to}, and none to a name that cannot exist"));
                return Ok(Outcome::AclPassed);
            }
            return Ok(self.grants_nothing(form, to, approach, deadline, evidence).await);
        };
        Ok(refused(outcome, evidence))
    }

    /// It grants a tunnel to what cannot exist: whether that is what it says to everything, our beacon tells.
    async fn grants_nothing(&self, form: &Form, to: &str, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Outcome {
        let ours = Form {
            technique: form.technique,
            ..match catalogue::forms(self, Technique::CONNECT, approach.to).into_iter().next() {
                Some(ours) => ours,
                None => return Outcome::Internal,
            }
        };
        let mut control = Evidence::default();
        match self.once(&ours, approach, deadline, &mut control).await {
            Ok(relayed @ (Outcome::Relayed | Outcome::RelayedBlind)) => {
                *evidence = control;
                relayed
            }
            Ok(Outcome::NotRelayed) if control.status.is_some_and(|s| (200..300).contains(&s)) => {
                evidence.detail = Some("it grants tunnels to everything, and they lead nowhere".into());
                Outcome::NotRelayed
            }
            _ => local(evidence, format!("it granted a tunnel to {to}, and nothing shows whether that leads there; try it by hand")),
        }
    }

    /// SOCKS5 for datagrams or for a visitor. A word for it proves nothing by itself, since some servers say yes to everything: it counts
    /// where CONNECT to our beacon is refused beside it, or does relay. Who grants CONNECT, and then leads nowhere, grants nothing.
    async fn beside_connect(&self, form: &Form, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Result<Outcome, Ended> {
        let outcome = self.once(form, approach, deadline, evidence).await?;
        let connect = catalogue::forms(self, Technique::SOCKS5, approach.to).into_iter().next();
        let (Outcome::AclPassed, Some(connect)) = (outcome, connect) else { return Ok(outcome) };
        let connect = Form { technique: form.technique, ..connect };
        let mut control = Evidence { technique: evidence.technique, ..Evidence::default() };
        let said = self.once(&connect, approach, deadline, &mut control).await;
        let reply = control.detail.as_deref().filter(|d| d.starts_with(socks::REPLIED));
        Ok(match (said, reply) {
            (Ok(relayed @ (Outcome::Relayed | Outcome::RelayedBlind)), _) => {
                *evidence = control;
                relayed
            }
            (Ok(Outcome::NotRelayed), Some(socks::GRANTED)) => {
                evidence.detail = Some("it grants everything by SOCKS5, and CONNECT leads nowhere".into());
                Outcome::NotRelayed
            }
            (Ok(Outcome::Denied | Outcome::GatewayError | Outcome::AclPassed | Outcome::NotUnderstood), Some(_)) => outcome,
            _ => local(
                evidence,
                "it granted more than CONNECT by SOCKS5, and nothing shows whether that leads anywhere; try it by hand".into(),
            ),
        })
    }

    /// OP-07: a tunnel to a destination that the proxy allows, proven by that host's verified certificate.
    async fn allowed_destination<S>(&self, mut stream: S, deadline: Instant, evidence: &mut Evidence) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(to) = &self.allowed_destination else { return Outcome::Internal };
        let granted = match granted(&mut stream, &reach(&to.to_string()), deadline, evidence).await {
            Ok(granted) => granted,
            Err(outcome) => return outcome,
        };
        let why = if granted.rest.is_empty() {
            match self.tls.shake(stream, &to.host, deadline, evidence).await {
                Ok(_) => return Outcome::Tunnelled,
                Err(outcome) => evidence.tls_error.clone().unwrap_or_else(|| outcome.to_string()),
            }
        } else {
            "bytes came through it before anything was sent".into()
        };
        // A grant without the proof that it leads there shows neither that it relays nor that it denies.
        evidence.detail = Some(format!(
            "it granted a tunnel to {to}, but that host's certificate could not be verified through it: {why}; see whether {to} is up, or set ca_file"
        ));
        Outcome::LocalError
    }
}

impl OpenProxy {
    /// OP-07 without a tunnel: what relays by the name in a ClientHello leads to that host, proven by its verified certificate. Whoever shows
    /// the same other certificate to who asks for the target itself speaks for itself, whatever the name.
    async fn server_name<S>(&self, stream: S, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(to) = &self.allowed_destination else { return Outcome::Internal };
        evidence.request = Some(format!("ClientHello for {}", to.host));
        let refused = match self.tls.shake(stream, &to.host, deadline, evidence).await {
            Ok(_) => Outcome::Tunnelled,
            Err(Outcome::TlsUntrusted | Outcome::Mismatch) => Outcome::NotRelayed,
            // Whose alert it is, the certificate before it tells.
            Err(Outcome::TlsRefused) if evidence.certificate_sha256.is_some() => Outcome::Denied,
            Err(outcome) => return of_handshake(outcome, evidence),
        };
        let mut own = Evidence::default();
        if let (Some(shown), Ok(stream)) = (&evidence.certificate_sha256, dial(approach, deadline, &mut own).await) {
            // With no name, so that a relay by names has none to call, its own least of all.
            if let Ok(anybody) = tls::Client::anybody(&[]) {
                let _ = anybody.shake(stream, &self.target.host, deadline, &mut own).await;
            }
            match refused {
                Outcome::Tunnelled if own.certificate_sha256.as_ref() == Some(shown) => {
                    let why = format!("the target shows the certificate of {} to everybody; name a destination with another one", to.host);
                    return local(evidence, why);
                }
                _ if own.certificate_sha256.as_ref() == Some(shown) => return refused,
                _ => {}
            }
        }
        if refused == Outcome::Tunnelled {
            return refused;
        }
        let why = evidence.tls_error.clone().unwrap_or_default();
        local(evidence, format!("a certificate was shown for {}, and could not be verified: {why}; see whether it needs ca_file", to.host))
    }
}

/// What stands for the marks in a text.
struct Filling {
    nonce: String,
    address: Option<SocketAddr>,
}

impl Filling {
    fn fill(&self, text: &str) -> String {
        let mut text = text.replace(NONCE, &self.nonce);
        // A tunnel's request has no nonce of its own, and the log of the proxy is to have it.
        text = text.replace(&format!("{}\r\n", super::USER_AGENT), &format!("{}\r\n", super::named(&self.nonce)));
        if text.contains(ANYBODY) {
            text = text.replace(ANYBODY, &anybody());
        }
        self.address.map_or(text.clone(), |address| text.replace(ADDRESS, &address.to_string()))
    }
}

/// One form being spoken over one stream.
struct Talking<'a> {
    suite: &'a OpenProxy,
    form: &'a Form,
    nonce: &'a Nonce,
    filling: &'a Filling,
    deadline: Instant,
}

impl Talking<'_> {
    async fn over<S>(&self, mut stream: S, evidence: &mut Evidence) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match &self.form.talk {
            Talk::Request(text) => self.request(&mut stream, text, evidence).await,
            Talk::Word(text) => match self.request(&mut stream, text, evidence).await {
                Outcome::NotRelayed if evidence.status == Some(500) => Outcome::GatewayError,
                outcome => outcome,
            },
            Talk::Manager(text) => self.manager(&mut stream, text, evidence).await,
            Talk::Tunnel { head, early } => self.tunnel(&mut stream, head, *early, evidence).await,
            Talk::Socks5 { command, login, to } => {
                evidence.request = Some(socks_line("SOCKS5", *command, to));
                match socks::ask5(&mut stream, (*command, *login, to), self.deadline, evidence).await {
                    Ok(rest) if *command == socks::CONNECT => self.through(&mut stream, rest, evidence).await,
                    Ok(_) => Outcome::AclPassed,
                    Err(outcome) => outcome,
                }
            }
            Talk::Socks4(to) => {
                evidence.request = Some(socks_line("SOCKS4", socks::CONNECT, to));
                match socks::ask4(&mut stream, to, self.deadline, evidence).await {
                    Ok(rest) => self.through(&mut stream, rest, evidence).await,
                    Err(outcome) => outcome,
                }
            }
            Talk::Http2 { tunnel, upgrade } => self.http2(stream, *tunnel, upgrade.as_deref(), evidence).await,
            // These have ways of their own.
            Talk::Allowed | Talk::ServerName | Talk::Reach(_) => Outcome::Internal,
        }
    }

    /// Requests, and every answer to them; the signed line may stand in any.
    async fn request<S>(&self, stream: &mut S, text: &str, evidence: &mut Evidence) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let text = self.filling.fill(text);
        evidence.request = Some(first_line(&text));
        // A request that could not be sent whole may still be answered.
        let _ = http::send(stream, text.as_bytes(), self.deadline).await;
        let (read, end) = self.signed(stream, Vec::new(), evidence).await;
        if evidence.beacon_saw.is_some() { Outcome::Relayed } else { of_answers(&read, end, evidence) }
    }

    /// A tunnel, and the bare nonce through it.
    async fn tunnel<S>(&self, stream: &mut S, head: &str, early: bool, evidence: &mut Evidence) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut text = self.filling.fill(head);
        if early {
            let _ = writeln!(text, "{}", self.filling.nonce);
        }
        match granted(stream, &text, self.deadline, evidence).await {
            Ok(granted) if early => self.read_through(stream, granted.rest, evidence).await,
            Ok(granted) => self.through(stream, granted.rest, evidence).await,
            Err(outcome) => outcome,
        }
    }

    async fn through<S>(&self, stream: &mut S, rest: Vec<u8>, evidence: &mut Evidence) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let _ = http::send(stream, format!("{}\n", self.filling.nonce).as_bytes(), self.deadline).await;
        self.read_through(stream, rest, evidence).await
    }

    async fn read_through<S>(&self, stream: &mut S, rest: Vec<u8>, evidence: &mut Evidence) -> Outcome
    where
        S: AsyncRead + Unpin,
    {
        self.signed(stream, rest, evidence).await;
        if evidence.beacon_saw.is_some() { Outcome::Relayed } else { Outcome::NotRelayed }
    }

    /// The proxy's own page, known by what only it has.
    async fn manager<S>(&self, stream: &mut S, text: &str, evidence: &mut Evidence) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        evidence.request = Some(first_line(text));
        let _ = http::send(stream, text.as_bytes(), self.deadline).await;
        let mut read = Vec::new();
        let end = loop {
            if read.len() >= MAX_ANSWER {
                break Outcome::NotRelayed;
            }
            if let Err(end) = http::more(stream, &mut read, self.deadline, evidence).await {
                break end;
            }
        };
        let outcome = of_answers(&read, end, evidence);
        let page = String::from_utf8_lossy(&read).contains(MANAGER_PAGE);
        if page && evidence.status.is_some_and(|s| (200..300).contains(&s)) {
            evidence.detail = Some("it showed its manager's page".into());
            return Outcome::AclPassed;
        }
        outcome
    }

    async fn http2<S>(&self, mut stream: S, tunnel: bool, upgrade: Option<&str>, evidence: &mut Evidence) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(beacon) = &self.form.beacon else { return Outcome::Internal };
        if let Some(text) = upgrade {
            let text = self.filling.fill(text);
            evidence.request = Some(first_line(&text));
            let _ = http::send(&mut stream, text.as_bytes(), self.deadline).await;
            return match self.switched(&mut stream, evidence).await {
                Ok(rest) => {
                    let (reading, writing) = tokio::io::split(stream);
                    let stream = tokio::io::join(std::io::Cursor::new(rest).chain(reading), writing);
                    self.over_http2(stream, true, tunnel, beacon, evidence).await
                }
                Err(_) if evidence.beacon_saw.is_some() => Outcome::Relayed,
                Err((read, end)) => of_answers(&read, end, evidence),
            };
        }
        self.over_http2(stream, false, tunnel, beacon, evidence).await
    }

    /// One request, once the stream speaks HTTP/2.
    async fn over_http2<S>(&self, stream: S, upgraded: bool, tunnel: bool, beacon: &Url, evidence: &mut Evidence) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let to = beacon.authority.to_string();
        let uri = self.filling.fill(&catalogue::absolute(beacon));
        let line = if tunnel { format!("CONNECT {to} HTTP/2") } else { format!("GET {} HTTP/2", uri.replace(NONCE, "")) };
        evidence.request = Some(line);
        let asked = match tunnel {
            true => http2::Asked::Tunnel { to: &to, send: format!("{}\n", self.filling.nonce) },
            false => http2::Asked::Get(uri),
        };
        let signed = |body: &[u8]| self.answer_in(body).is_some();
        let talked = http2::ask(stream, upgraded, asked, self.deadline, signed).await;
        if let Some(answer) = self.answer_in(&talked.body) {
            evidence.beacon_saw = Some(answer.peer);
            evidence.authenticated = Some(Authentication::Beacon);
            return Outcome::Relayed;
        }
        match talked.head {
            Some(head) => {
                evidence.status = Some(head.status);
                tunnel::of_answer(&head)
            }
            // An answer in HTTP/1 to what is no HTTP/1.
            None if talked.first.starts_with(b"HTTP/1") => of_answers(&talked.first, Outcome::Closed, evidence),
            None if talked.first.is_empty() => tunnel::of_silence(if talked.ended { Outcome::Closed } else { Outcome::Mute }),
            None if talked.ended => Outcome::NotUnderstood,
            // It speaks HTTP/2, and kept the request waiting.
            None => Outcome::Mute,
        }
    }

    /// Reads until the protocol was switched, and gives what came behind that; what else was answered is the error.
    async fn switched<S>(&self, stream: &mut S, evidence: &mut Evidence) -> Result<Vec<u8>, (Vec<u8>, Outcome)>
    where
        S: AsyncRead + Unpin,
    {
        let mut read = Vec::new();
        loop {
            if read.starts_with(b"HTTP/1.1 101")
                && let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n")
            {
                http::note_head(&read, evidence);
                evidence.status = Some(SWITCHED);
                return Ok(read.split_off(end + 4));
            }
            if read.len() > 12 && !read.starts_with(b"HTTP/1.1 101") {
                return Err(self.signed(stream, read, evidence).await);
            }
            if let Err(end) = http::more(stream, &mut read, self.deadline, evidence).await {
                return Err((read, end));
            }
        }
    }

    /// Reads until the beacon's signed line stands somewhere in the answer, the stream ends or the deadline passes.
    /// Gives what was read and how it ended; a signed line goes into the evidence.
    async fn signed<S>(&self, stream: &mut S, mut read: Vec<u8>, evidence: &mut Evidence) -> (Vec<u8>, Outcome)
    where
        S: AsyncRead + Unpin,
    {
        loop {
            if let Some(answer) = self.answer_in(&read) {
                evidence.beacon_saw = Some(answer.peer);
                evidence.authenticated = Some(Authentication::Beacon);
                return (read, Outcome::Relayed);
            }
            if read.len() >= MAX_ANSWER {
                return (read, Outcome::NotRelayed);
            }
            if let Err(end) = http::more(stream, &mut read, self.deadline, evidence).await {
                return (read, end);
            }
        }
    }

    fn answer_in(&self, read: &[u8]) -> Option<Answer> {
        let text = String::from_utf8_lossy(read);
        text.lines().find_map(|line| Answer::verify(&self.suite.key, line, self.nonce).ok())
    }
}

/// The interim status by which HTTP/1.1 becomes something else (RFC 9110 section 15.2.2).
const SWITCHED: u16 = 101;

/// A user and a password that nobody has: random, so that nobody's is guessed.
fn nobody() -> (String, String) {
    let mut random = [0; 24];
    // Zeros would do as well.
    let _ = SystemRandom::new().fill(&mut random);
    let text = base64::engine::general_purpose::URL_SAFE.encode(random);
    let (user, password) = text.split_at(text.len() / 2);
    (user.to_string(), password.to_string())
}

/// The same as RFC 7617 has it.
fn anybody() -> String {
    let (user, password) = nobody();
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

fn local(evidence: &mut Evidence, why: String) -> Outcome {
    evidence.beacon_log = Some(why.clone());
    evidence.detail = Some(why);
    Outcome::LocalError
}

/// The technique and its form, for a sentence.
fn named(form: &Form) -> String {
    form.variant.as_ref().map_or(form.technique.id().to_string(), |variant| format!("{} {variant}", form.technique))
}

/// A fresh connection and a request for a tunnel; the inner error is the refusal.
async fn asked_for(to: &str, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Result<Result<Head, Outcome>, Ended> {
    let mut stream = dial(approach, deadline, evidence).await?;
    Ok(granted(&mut stream, &reach(to), deadline, evidence).await)
}

fn reach(to: &str) -> String {
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {}\r\n\r\n", super::USER_AGENT)
}

/// Asks for a tunnel in these words: the head by which it was granted.
///
/// # Errors
/// What the refusal means.
async fn granted<S>(stream: &mut S, head: &str, deadline: Instant, evidence: &mut Evidence) -> Result<Head, Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    evidence.request = Some(first_line(head));
    match http::exchange(stream, head.as_bytes(), deadline, evidence).await {
        Ok(head) if (200..=299).contains(&head.status) => Ok(head),
        Ok(head) => Err(tunnel::of_answer(&head)),
        // An answer that is not HTTP relays nothing.
        Err(Outcome::BadHttp) => Err(Outcome::NotRelayed),
        Err(silence) => Err(tunnel::of_silence(silence)),
    }
}

/// What a TLS handshake means that did not come to be: who speaks no TLS has not understood, who refuses by alert denies.
fn of_handshake(outcome: Outcome, evidence: &mut Evidence) -> Outcome {
    match outcome {
        Outcome::NotTls => Outcome::NotUnderstood,
        Outcome::TlsRefused => Outcome::Denied,
        Outcome::TlsUntrusted => local(evidence, "it speaks TLS in a way that this monitor does not, so nothing was tried inside".into()),
        other => tunnel::of_silence(other),
    }
}

/// What all answers of one connection mean: that one of them tried weighs more than that another was denied.
fn of_answers(read: &[u8], end: Outcome, evidence: &mut Evidence) -> Outcome {
    http::note_head(read, evidence);
    let heads = http::heads(read, MAX_ANSWERS);
    if read.is_empty() {
        return tunnel::of_silence(end);
    }
    evidence.status = heads.first().map(|head| head.status);
    let meant: Vec<Outcome> = heads.iter().map(tunnel::of_answer).collect();
    let weighty = [Outcome::AclPassed, Outcome::GatewayError, Outcome::Denied];
    let found = weighty.into_iter().find(|outcome| meant.contains(outcome));
    found.or(meant.first().copied()).unwrap_or(Outcome::NotRelayed)
}

/// The first line that says something, bounded.
fn first_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(MAX_REQUEST).collect()
}

fn socks_line(version: &str, command: u8, to: &socks::To) -> String {
    let command = match command {
        socks::BIND => "BIND",
        socks::UDP_ASSOCIATE => "UDP ASSOCIATE",
        _ => "CONNECT",
    };
    match to {
        socks::To::Ip(address) => format!("{version} {command} {address}"),
        socks::To::Name(name, port) => format!("{version} {command} {name}:{port}"),
    }
}

/// Bytes as printf(1) takes them inside quotes.
fn for_printf(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            1 if bytes.len() > 20 && !bytes.starts_with(&[5]) && !bytes.starts_with(&[4]) => text.push_str("NONCE"),
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'%' => text.push_str("%%"),
            b'\'' | b'\\' => {
                let _ = write!(text, "\\{byte:03o}");
            }
            0x20..=0x7e => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;

//! Witnesses: was the way there alive, around an observation? The only maker of [`Proven`].
//!
//! A witness is a positive check of the same configuration. Its runs stand on a [`Timeline`]; an observation is
//! bracketed by the nearest run that ended before its first packet and the nearest that began after its last event.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::clock::{Moment, Wall};
use crate::expectation::Expectation;
use crate::observation::{Class, ClientCertificate, Family, Observation, Outcome, Reached, Subject, Transport};

/// How many runs a timeline keeps: ten minutes at one run a second, far more than any window needs.
const MAX_RUNS: usize = 600;
/// How many decoy results are kept, over all keys.
const MAX_DECOYS: usize = 4096;

/// What the witnesses have shown for an observation (SPEC 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proof {
    /// A direct witness of the same family and source got through around it.
    Vantage,
    /// Such a witness got through to the same destination port elsewhere.
    Port,
    /// The same address and port was reached by the allowed way around it.
    Target,
}

/// A set of proofs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProofSet(u8);

impl Proof {
    /// Every proof, in the order of the specification.
    pub const ALL: [Proof; 3] = [Proof::Vantage, Proof::Port, Proof::Target];

    /// The token, as written in `require` and in reports.
    pub fn token(self) -> &'static str {
        match self {
            Proof::Vantage => "vantage",
            Proof::Port => "port",
            Proof::Target => "target",
        }
    }
}

impl ProofSet {
    /// No proof.
    pub const NONE: ProofSet = ProofSet(0);
    /// All three.
    pub const ALL: ProofSet = ProofSet(0b111);

    /// Whether the proof is in the set.
    pub fn has(self, proof: Proof) -> bool {
        self.0 & (1 << proof as u8) != 0
    }

    /// The set with the proof in it.
    #[must_use]
    pub fn with(self, proof: Proof) -> ProofSet {
        ProofSet(self.0 | (1 << proof as u8))
    }

    /// What is in either.
    #[must_use]
    pub fn or(self, other: ProofSet) -> ProofSet {
        ProofSet(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: ProofSet) -> ProofSet {
        ProofSet(self.0 & other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn without(self, other: ProofSet) -> ProofSet {
        ProofSet(self.0 & !other.0)
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The proofs in it, in the order of the specification.
    pub fn iter(self) -> impl Iterator<Item = Proof> {
        Proof::ALL.into_iter().filter(move |p| self.has(*p))
    }
}

impl FromIterator<Proof> for ProofSet {
    fn from_iter<I: IntoIterator<Item = Proof>>(proofs: I) -> Self {
        proofs.into_iter().fold(ProofSet::NONE, ProofSet::with)
    }
}

impl Serialize for ProofSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Proof::token))
    }
}

/// The way there was alive, around one observation. Only [`Timeline::around`] can make one.
#[derive(Debug, Clone, PartialEq)]
pub struct Proven {
    proofs: ProofSet,
    before: Wall,
    after: Wall,
}

impl Proven {
    /// What this witness shows for the observation.
    pub fn proofs(&self) -> ProofSet {
        self.proofs
    }

    /// What two targets of one witness show together.
    #[must_use]
    pub fn and(self, other: &Proven) -> Proven {
        Proven { proofs: self.proofs.or(other.proofs), before: self.before.min(other.before), after: self.after.max(other.after) }
    }

    /// When the run before it started.
    pub fn before(&self) -> Wall {
        self.before
    }

    /// When the run after it started.
    pub fn after(&self) -> Wall {
        self.after
    }
}

/// Why a witness is not proven around an observation.
#[derive(Debug, Clone, PartialEq)]
pub enum Lapse {
    /// No run ended before the observation.
    NoneBefore,
    /// The nearest run before it failed, and how.
    FailedBefore(String),
    /// The nearest run before it is older than the window.
    TooEarly(Duration),
    /// No run began after the observation.
    NoneAfter,
    /// The nearest run after it failed, and how.
    FailedAfter(String),
    /// The nearest run after it began later than the window.
    TooLate(Duration),
    /// A failed run lies between or overlaps.
    FailedBetween(String),
    /// The peer's check did something other than hold in between.
    PeerWavered,
}

/// One run of a witness, as facts. Made from its observations, and from nothing else.
#[derive(Debug, Clone)]
pub struct WitnessRun {
    started: Moment,
    ended: Moment,
    started_at: Wall,
    seen: Vec<Observation>,
    expectation: Expectation,
}

impl WitnessRun {
    /// A run over `started..ended` that made these observations. Without an observation it is a failed run.
    pub fn new(started: Moment, ended: Moment, started_at: Wall, seen: Vec<Observation>, expectation: &Expectation) -> WitnessRun {
        WitnessRun { started, ended, started_at, seen, expectation: expectation.clone() }
    }

    /// Before its first packet.
    pub fn started(&self) -> Moment {
        self.started
    }

    /// After its last event.
    pub fn ended(&self) -> Moment {
        self.ended
    }

    /// Its observations, as they were seen on the wire.
    pub fn seen(&self) -> &[Observation] {
        &self.seen
    }

    /// Whether one of its observations got through, by an outcome that the witness's own check accepts.
    pub fn succeeded(&self, decoys: &Decoys) -> bool {
        self.accepted(decoys).next().is_some()
    }

    fn accepted<'a>(&'a self, decoys: &'a Decoys) -> impl Iterator<Item = &'a Observation> {
        let open = |o: &&Observation| o.outcome.class() == Class::Open && self.expectation.accepts(o.outcome);
        self.seen.iter().filter(open).filter(|o| decoys.clear(o))
    }

    /// What the run says on one question: yes, no, or nothing at all where it did not look.
    fn says(&self, decoys: &Decoys, about: impl Fn(&Observation) -> bool) -> Option<bool> {
        if self.accepted(decoys).any(&about) {
            return Some(true);
        }
        let failed = !self.succeeded(decoys);
        let looked = self.seen.iter().any(about);
        (failed || looked).then_some(false)
    }

    fn failure(&self, decoys: &Decoys) -> String {
        match self.seen.iter().find(|o| !(self.expectation.accepts(o.outcome) && decoys.clear(o))) {
            Some(o) if decoys.intercepted(o) == Some(true) => {
                format!("{} answered, but so does every address (intercepted)", o.subject.address)
            }
            Some(o) if self.expectation.accepts(o.outcome) => {
                format!(
                    "{} {}, but no decoy run could be made beside it; see whether `decoy` is an address of this host",
                    o.subject.address, o.outcome
                )
            }
            Some(o) => match &o.evidence.detail {
                Some(detail) => format!("{} {}: {detail}", o.subject.address, o.outcome),
                None => format!("{} {}", o.subject.address, o.outcome),
            },
            None => "it made no observation".into(),
        }
    }
}

/// The runs of one witness, in the order in which they were made; runs of one witness never overlap.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    runs: VecDeque<Arc<WitnessRun>>,
}

impl Timeline {
    /// Adds a finished run and forgets the oldest past the bound.
    pub fn push(&mut self, run: Arc<WitnessRun>) {
        self.runs.push_back(run);
        while self.runs.len() > MAX_RUNS {
            self.runs.pop_front();
        }
    }

    /// The newest run.
    pub fn newest(&self) -> Option<&Arc<WitnessRun>> {
        self.runs.back()
    }

    /// Whether this witness was proven around `seen`, and what that shows for it.
    ///
    /// # Errors
    /// Why it was not.
    pub fn around(&self, seen: &Observation, window: Duration, decoys: &Decoys) -> Result<Proven, Lapse> {
        if self.runs.iter().flat_map(|run| run.seen()).any(|w| asks_the_same_server(w, seen)) {
            // Another server that answers does not make up for one that denies every name.
            self.bracket(seen, window, decoys, |w| asks_the_same_server(w, seen))?;
        }
        let (before, after) = self.bracket(seen, window, decoys, |_| true)?;
        let shown = |proof: Proof| self.bracket(seen, window, decoys, |w| shows(w, seen, proof)).is_ok();
        let proofs = Proof::ALL.into_iter().filter(|p| shown(*p)).collect();
        Ok(Proven { proofs, before: before.started_at, after: after.started_at })
    }

    /// The nearest run on either side that says something `about` the question: both must say yes, within the window,
    /// and none that says no may lie between or overlap.
    fn bracket(
        &self,
        seen: &Observation,
        window: Duration,
        decoys: &Decoys,
        about: impl Fn(&Observation) -> bool,
    ) -> Result<(&WitnessRun, &WitnessRun), Lapse> {
        let telling = || self.runs.iter().filter_map(|r| r.says(decoys, &about).map(|yes| (r.as_ref(), yes)));
        let before = telling().filter(|(r, _)| r.ended <= seen.started).max_by_key(|(r, _)| r.ended);
        let (before, alive) = before.ok_or(Lapse::NoneBefore)?;
        if !alive {
            return Err(Lapse::FailedBefore(before.failure(decoys)));
        }
        if seen.started.since(before.ended) > window {
            return Err(Lapse::TooEarly(seen.started.since(before.ended)));
        }
        let between = telling().find(|(r, yes)| !yes && r.ended > seen.started && r.started < seen.ended);
        if let Some((run, _)) = between {
            return Err(Lapse::FailedBetween(run.failure(decoys)));
        }
        let after = telling().filter(|(r, _)| r.started >= seen.ended).min_by_key(|(r, _)| r.started);
        let (after, alive) = after.ok_or(Lapse::NoneAfter)?;
        if !alive {
            return Err(Lapse::FailedAfter(after.failure(decoys)));
        }
        if after.started.since(seen.ended) > window {
            return Err(Lapse::TooLate(after.started.since(seen.ended)));
        }
        let wavered = |o: &Observation| o.evidence.hearsay_since().is_some_and(|held| held.is_none_or(|since| since > seen.started));
        if after.accepted(decoys).filter(|o| about(o)).any(wavered) {
            return Err(Lapse::PeerWavered);
        }
        Ok((before, after))
    }
}

/// Whether a witness's observation, where it got through, shows this proof for `seen` (SPEC 2.3).
fn shows(witness: &Observation, seen: &Observation, proof: Proof) -> bool {
    match proof {
        Proof::Vantage => is_same_way_out(witness, seen),
        Proof::Port => {
            is_same_way_out(witness, seen)
                && witness.subject.transport == seen.subject.transport
                && match (witness.subject.dialled, seen.subject.dialled) {
                    (Some(w), Some(s)) => w.port() == s.port() && w.ip() != s.ip(),
                    _ => false,
                }
        }
        Proof::Target => reached_the_same(witness, seen),
    }
}

/// A direct connection from the same source by the same family; and one that stayed on this host says nothing of the world outside.
fn is_same_way_out(witness: &Observation, seen: &Observation) -> bool {
    let family = seen.subject.family.is_none_or(|f| witness.subject.family == Some(f));
    let outside = seen.stayed_on_this_host() || !witness.stayed_on_this_host();
    !witness.subject.via && witness.subject.dialled.is_some() && witness.subject.source == seen.subject.source && family && outside
}

/// Both are questions to the same name server.
fn asks_the_same_server(witness: &Observation, seen: &Observation) -> bool {
    witness.evidence.dns.is_some() && seen.evidence.dns.is_some() && witness.subject.dialled == seen.subject.dialled
}

/// The very address and port of `seen`, reached by another way: another source, a tunnel to it, or another vantage.
fn reached_the_same(witness: &Observation, seen: &Observation) -> bool {
    let Some(target) = seen.subject.reached else { return false };
    if let Some(reached) = witness.evidence.hearsay_reached() {
        return reached.iter().any(|there| peer_reached(there, &seen.subject, target));
    }
    if !is_same_question((witness.subject.transport, &witness.subject.asked), &seen.subject) {
        return false;
    }
    let another_source = witness.subject.source != seen.subject.source && differ(witness.local_ip(), seen.local_ip());
    let there = |address: Option<SocketAddr>| address.is_some_and(|there| is_same_place(there, &seen.subject, target));
    let tunnelled_there = witness.subject.via && there(witness.subject.reached);
    let dialled_there = there(witness.subject.dialled) && another_source;
    tunnelled_there || dialled_there || was_led_there(witness, seen, target) || had_the_certificate(witness, seen, target)
}

/// The witness came the same way to the very address and port, was asked for a client certificate there, and showed the one that
/// it has; `seen` was refused for want of one. The certificate is the allowed way then, as elsewhere the source is.
fn had_the_certificate(witness: &Observation, seen: &Observation, target: SocketAddr) -> bool {
    let same_way = !witness.subject.via && !seen.subject.via && witness.subject.source == seen.subject.source;
    let there = witness.subject.dialled == Some(target) && witness.evidence.redirected_to.is_none();
    let by_certificate = witness.evidence.client_certificate == Some(ClientCertificate::Own);
    same_way && there && by_certificate && seen.evidence.refused_for.is_some()
}

/// Whether an answer by this transport to this question is one to what `seen` asked. An ICMP echo asks whether the address
/// is alive, and whoever answers there by any transport says so.
fn is_same_question((transport, asked): (Transport, &Option<String>), seen: &Subject) -> bool {
    // What is asked says by what, too, save that a zone comes by TCP and a peer tells a name server's answers as of UDP.
    seen.transport == Transport::Icmp || (*asked == seen.asked && (asked.is_some() || transport == seen.transport))
}

/// The same address and port; ICMP knows no ports, and to a sweep (port 0) any port of the address will do.
fn is_same_place(there: SocketAddr, seen: &Subject, target: SocketAddr) -> bool {
    there == target || ((seen.transport == Transport::Icmp || target.port() == 0) && there.ip() == target.ip())
}

fn peer_reached(there: &Reached, seen: &Subject, target: SocketAddr) -> bool {
    let by_address = there.address.parse().is_ok_and(|address| is_same_place(address, seen, target))
        || there.address.parse().is_ok_and(|ip: IpAddr| seen.transport == Transport::Icmp && ip == target.ip());
    let host = |address: &str| address.rsplit_once(':').map(|(host, _)| host.to_string());
    let by_name = match &seen.named {
        Some(named) if target.port() == 0 => host(named).is_some() && host(named) == host(&there.address),
        named => named.as_ref() == Some(&there.address),
    };
    is_same_question((there.transport, &there.asked), seen) && (by_address || by_name)
}

/// A redirect led the witness to the very address and port, by a direct connection from another source; both sources as
/// configured and as the kernel chose them.
fn was_led_there(witness: &Observation, seen: &Observation, target: SocketAddr) -> bool {
    let known = |o: &Observation| o.local_ip().filter(|ip| !ip.is_unspecified());
    let from_elsewhere = match (known(witness), known(seen)) {
        (Some(theirs), Some(ours)) => witness.subject.source != seen.subject.source && theirs != ours,
        _ => false,
    };
    let led_there = witness.evidence.redirected_to.is_some_and(|there| is_same_place(there, &seen.subject, target));
    !witness.subject.via && led_there && from_elsewhere
}

fn differ(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a != b,
        _ => true,
    }
}

/// What a decoy run is shared by: the same way out, by the same transport to the same port, with the same question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DecoyKey {
    /// The family of the way out.
    pub family: Family,
    /// The address that is bound.
    pub source: Option<IpAddr>,
    /// What carries the first packet.
    pub transport: Transport,
    /// The port; 0 where the transport has none.
    pub port: u16,
    /// What is asked ([`Subject::asked`]).
    pub asked: Option<String>,
}

/// One attempt to connect to the decoy or to be answered by it, an address where nobody is (RFC 5737, RFC 3849).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecoyRun {
    /// The way out, and the question.
    pub key: DecoyKey,
    /// Before its first packet.
    pub started: Moment,
    /// After its last event.
    pub ended: Moment,
    /// Somebody answered for nobody.
    pub connected: bool,
}

/// Recent decoy runs: they unmask whoever answers for everybody.
#[derive(Debug, Clone)]
pub struct Decoys {
    runs: VecDeque<DecoyRun>,
    window: Duration,
}

impl Decoys {
    /// None yet. A decoy run counts for observations within `window` of it.
    pub fn new(window: Duration) -> Decoys {
        Decoys { runs: VecDeque::new(), window }
    }

    /// Adds a finished run and forgets the oldest past the bound.
    pub fn push(&mut self, run: DecoyRun) {
        self.runs.push_back(run);
        while self.runs.len() > MAX_DECOYS {
            self.runs.pop_front();
        }
    }

    /// Whether a run of that key began at or after `since`.
    pub fn ran_since(&self, key: &DecoyKey, since: Moment) -> bool {
        self.runs.iter().any(|d| d.key == *key && d.started >= since)
    }

    /// The decoys that could unmask this observation: one for its connection, and one for that of its last redirect. None
    /// where nothing needs to be unmasked: nobody answered, the answer is authenticated, or the connection never left this host.
    pub fn keys_for(seen: &Observation) -> impl Iterator<Item = DecoyKey> {
        let subject = &seen.subject;
        let answered = match subject.transport {
            Transport::Tcp => seen.got_past_tcp(),
            Transport::Udp | Transport::Icmp => seen.was_replied_to(),
        };
        let suspect = answered && seen.evidence.authenticated.is_none();
        let stayed = |to: &SocketAddr| to.ip().is_loopback() || seen.local_ip() == Some(to.ip());
        let first = seen.subject.dialled.filter(|_| !seen.stayed_on_this_host());
        let last = seen.evidence.redirected_to.filter(|to| !stayed(to));
        let key = move |to: SocketAddr| DecoyKey {
            family: Family::of(to.ip()),
            source: subject.source,
            transport: subject.transport,
            port: to.port(),
            // Whoever completes handshakes for everybody does so before he knows the question.
            asked: subject.asked.clone().filter(|_| subject.transport != Transport::Tcp),
        };
        first.into_iter().chain(last).filter(move |_| suspect).map(key)
    }

    /// Whether the decoy connected around this observation; none where no decoy run lies within the window.
    pub fn intercepted(&self, seen: &Observation) -> Option<bool> {
        let near = |d: &&DecoyRun| d.ended + self.window >= seen.started && d.started <= seen.ended + self.window;
        let connected = |key: DecoyKey| self.runs.iter().filter(near).filter(|d| d.key == key).map(|d| d.connected).reduce(|a, b| a || b);
        let heard: Vec<Option<bool>> = Decoys::keys_for(seen).map(connected).collect();
        if heard.contains(&Some(true)) {
            return Some(true);
        }
        if heard.contains(&None) { None } else { Some(false) }
    }

    /// The observation can be believed as far as interception goes. One whose decoy was never run cannot.
    fn clear(&self, seen: &Observation) -> bool {
        self.intercepted(seen) == Some(false)
    }

    /// The observation as it stands once the decoy was heard: intercepted, it is a `local-error` (SPEC 2.3).
    /// A closed answer that no decoy could vouch for becomes one too; an open one stays open.
    #[must_use]
    pub fn unmask(&self, mut seen: Observation) -> Observation {
        let heard = self.intercepted(&seen);
        let masked = heard == Some(true) || (heard.is_none() && seen.outcome.class() == Class::Closed);
        if masked {
            seen.evidence.intercepted = heard == Some(true);
            seen.evidence.before_decoy = Some(seen.outcome);
            if heard.is_none() {
                seen.evidence.detail = Some("no decoy run could be made beside it".into());
            }
            seen.outcome = Outcome::LocalError;
            seen.attempts = vec![Outcome::LocalError; seen.attempts.len()];
        }
        seen
    }
}

impl fmt::Display for Lapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lapse::NoneBefore => f.write_str("it did not run before"),
            Lapse::FailedBefore(why) => write!(f, "it failed just before: {why}"),
            Lapse::TooEarly(gap) => write!(f, "its last run ended {:.1} s before, outside the window", gap.as_secs_f64()),
            Lapse::NoneAfter => f.write_str("it did not run afterwards"),
            Lapse::FailedAfter(why) => write!(f, "it failed just after: {why}"),
            Lapse::TooLate(gap) => write!(f, "its next run began {:.1} s after, outside the window", gap.as_secs_f64()),
            Lapse::FailedBetween(why) => write!(f, "it failed meanwhile: {why}"),
            Lapse::PeerWavered => f.write_str("what it asks for elsewhere did not hold all the while"),
        }
    }
}

//! The sweep: thousands of ports, few observations. A wave of addresses at a time is asked by `net::sweep`; meanwhile every
//! witness, and every address's canary, runs at least every five seconds, so that each slice stands between two of their runs.
//!
//! What is as expected is one observation a slice, with its counts. What is not is looked at once more by itself, as kind
//! `tcp` would, and is an observation of its own: the verdict never rests on the sweep's word alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::look::Found;
use super::{Began, Engine, Side};
use crate::clock::{Moment, Wall};
use crate::expectation::Expectation;
use crate::net::sweep::{self, Job, Method, News, Slice, Swept};
use crate::observation::{Attempt, Class, Evidence, Family, Observation, Outcome, Stage, Subject, Sweep};
use crate::plan::{Check, MAX_SINGLES, SINGLES_AT_ONCE, WAVE_ADDRESSES};
use crate::probe::{Approach, Ports};
use crate::record::Coverage;
use crate::target::PortSet;
use crate::verdict::{Judged, Testimony};
use crate::witness::{Decoys, Timeline, WitnessRun};

/// What the witness of a sweep that names its open ports is called in its record.
const CANARY: &str = "(its open ports)";
/// The longest from one run of the canaries to the next, with a second in hand.
const BEAT: Duration = Duration::from_secs(4);
/// The time that one slice may take to send, where every port answers at once.
const SLICE: usize = 4;
/// How many of the open ports of an address are its canary.
const CANARIES: usize = 4;
/// The most controls that the sweep is given.
const CONTROLS: usize = 8;
/// The most kinds of denial that are told apart in a slice that has more of them than are looked at one by one.
const MAX_PATTERNS: usize = 16;
/// Ranges of ports that are written out.
const MAX_RANGES: usize = 16;

/// Ports of a slice by what every pass saw of them.
type Patterns = BTreeMap<Vec<Outcome>, Vec<u16>>;

/// What the canary of an address has to say around an observation: nothing against an open port, which is not a block.
pub(super) fn testimony(check: &Check, canary: &Timeline, seen: &Observation, window: Duration, decoys: &Decoys) -> Option<Testimony> {
    let around = canary.around(seen, window, decoys);
    let must_be_closed = check.demand(&seen.subject).is_inverted();
    (must_be_closed || around.is_ok()).then(|| (CANARY.to_string(), around))
}

/// One sweep under way.
struct Sweeping<'e> {
    engine: &'e Engine,
    number: usize,
    check: &'e Check,
    ports: &'e Ports,
    found: &'e Found,
    began: Began,
    canaries: Mutex<BTreeMap<IpAddr, Timeline>>,
    /// Seen, and not judged before all that vouch for it have run again.
    pending: Mutex<Vec<Observation>>,
    judged: Mutex<Vec<Judged>>,
    /// Ports that are looked at one by one.
    singled: Mutex<BTreeSet<SocketAddr>>,
    singles: Semaphore,
    /// What was to be seen and was not.
    missing: Mutex<usize>,
}

impl Engine {
    /// A run of a sweep: its judgements, and how many there had to be.
    pub(super) async fn judge_sweep(&self, number: usize, check: &Check, ports: &Ports, began: Began) -> (Vec<Judged>, usize) {
        let mut found = self.find(number, check).await;
        if found.has_an_answer(check) {
            // The answer is the observation, so it has to be given while the witnesses stand around it, and every time.
            self.let_witnesses_run(check, Side::Before, &found).await;
            found = self.find_every_time(number, check).await;
        }
        let planned = found.subjects.len() * ports.closed.len();
        self.with_coverage(number, |coverage| *coverage = Some(Coverage { planned, ..Coverage::default() }));
        let sweeping = Sweeping {
            engine: self,
            number,
            check,
            ports,
            found: &found,
            began,
            canaries: Mutex::default(),
            pending: Mutex::default(),
            judged: Mutex::default(),
            singled: Mutex::default(),
            singles: Semaphore::new(SINGLES_AT_ONCE),
            missing: Mutex::new(found.left_out),
        };
        for lost in &found.lost {
            sweeping.enter(lost.clone()).await;
        }
        let most = (ports.wave() / ports.closed.len().max(1)).clamp(1, WAVE_ADDRESSES);
        for wave in found.subjects.chunks(most) {
            sweeping.wave(wave).await;
        }
        if found.subjects.is_empty() {
            sweeping.beat(&[]).await;
        }
        let judged = sweeping.judged.into_inner().unwrap_or_else(PoisonError::into_inner);
        let missing = sweeping.missing.into_inner().unwrap_or_else(PoisonError::into_inner);
        let planned = judged.len() + missing;
        (judged, planned.max(1))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sweeping<'_> {
    /// Sweeps these addresses, between two runs of all that vouch for them and with more of those meanwhile.
    async fn wave(&self, wave: &[(Subject, Approach)]) {
        let sung = self.sing(wave).await;
        let (over, mut done) = watch::channel(false);
        let look = async {
            join(self.look_at_open(wave), self.look_at_closed(wave)).await;
            // The beat outlives this, and hears it.
            let _ = over.send(true);
        };
        let heart = async {
            let every = BEAT.min(self.engine.plan.witness_window / 2).max(Duration::from_secs(1));
            let mut next = Instant::now() + every;
            // What unmasks the canaries is heard beside the sweep, at no cost in time; where that is over sooner, the last beat hears it.
            tokio::select! {
                () = self.engine.hear_decoys(self.check, &sung) => {}
                _ = done.wait_for(|over| *over) => {}
            }
            while timeout(next.saturating_duration_since(Instant::now()), done.wait_for(|over| *over)).await.is_err() {
                next = Instant::now() + every;
                self.beat(wave).await;
            }
        };
        join(look, heart).await;
        self.beat(wave).await;
    }

    /// Lets all run that vouch for what is seen: the witnesses, and the canaries, whose observations it gives.
    async fn sing(&self, wave: &[(Subject, Approach)]) -> Vec<Observation> {
        let witnesses = self.engine.let_witnesses_run(self.check, Side::After, self.found);
        let canaries = join_all(wave.iter().map(|(subject, approach)| self.canary(subject, approach)));
        join(witnesses, canaries).await.1.into_iter().flatten().collect()
    }

    /// Lets all run that vouch for what is seen, and judges what was seen before.
    async fn beat(&self, wave: &[(Subject, Approach)]) {
        let now = Moment::now();
        let sung = self.sing(wave).await;
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut *locked(&self.pending)).into_iter().partition(|seen| seen.ended <= now);
        locked(&self.pending).extend(waiting);
        let heard: Vec<Observation> = sung.into_iter().chain(ready.iter().cloned()).collect();
        self.engine.hear_decoys(self.check, &heard).await;
        for seen in ready {
            let canaries = locked(&self.canaries);
            let canary = seen.subject.dialled.and_then(|to| canaries.get(&to.ip()));
            let judged = self.engine.judge_beside(self.check, seen, canary);
            locked(&self.judged).push(judged);
        }
    }

    /// One run of an address's canary: a connect to each of some of its open ports.
    async fn canary(&self, all: &Subject, approach: &Approach) -> Vec<Observation> {
        let Some(open) = &self.check.open else { return Vec::new() };
        let (started, started_at) = (Moment::now(), Wall::now());
        let look = |(subject, approach): (Subject, Approach)| async move {
            let attempt = self.check.probe.attempt(&approach).await;
            Observation::of(subject, vec![attempt], None, started_at)
        };
        let ports = self.ports.open.iter().take(CANARIES);
        let seen = join_all(ports.filter_map(|port| one_port(all, approach, port)).map(look)).await;
        if let Some(to) = all.dialled {
            let run = WitnessRun::new(started, Moment::now(), started_at, seen.clone(), open);
            locked(&self.canaries).entry(to.ip()).or_default().push(run.into());
        }
        seen
    }

    /// Looks at the ports that must be open.
    async fn look_at_open(&self, wave: &[(Subject, Approach)]) {
        let looks = wave.iter().flat_map(|(all, approach)| self.ports.open.iter().filter_map(move |port| one_port(all, approach, port)));
        join_all(looks.map(|(subject, approach)| async move {
            let Ok(_turn) = self.singles.acquire().await else { return };
            let seen = self.engine.observe(self.check, &subject, &approach).await;
            self.enter(seen).await;
        }))
        .await;
    }

    /// Sweeps the ports that must be closed, one family after the other.
    async fn look_at_closed(&self, wave: &[(Subject, Approach)]) {
        let each = (self.ports.rate as usize * SLICE / self.check.attempts.max(1)).max(1);
        let ports: Vec<u16> = self.ports.closed.iter().collect();
        for family in Family::BOTH {
            let of_family = |(subject, _): &&(Subject, Approach)| subject.family == Some(family);
            let ways: Vec<&(Subject, Approach)> = wave.iter().filter(of_family).collect();
            let slices: Vec<(&(Subject, Approach), Slice)> = ways
                .iter()
                .filter_map(|way| way.0.dialled.map(|to| (*way, to.ip())))
                .flat_map(|(way, ip)| ports.chunks(each).map(move |ports| (way, Slice { ip, ports: ports.to_vec() })))
                .collect();
            if !slices.is_empty() {
                self.run(&slices, family).await;
            }
        }
    }

    async fn run(&self, slices: &[(&(Subject, Approach), Slice)], family: Family) {
        let job = Job {
            slices: slices.iter().map(|(_, slice)| slice.clone()).collect(),
            source: self.check.source,
            attempts: self.check.attempts,
            timeout: self.check.timeout,
            rate: self.ports.rate,
            controls: self.controls(family),
        };
        let mut told = 0;
        let mut singles = FuturesUnordered::new();
        match sweep::start(job) {
            Err(error) => tracing::error!(%error, check = %self.check.name, "no thread for a sweep could be started"),
            Ok(mut running) => {
                let mut over = false;
                while !over || !singles.is_empty() {
                    let news = tokio::select! {
                        biased;
                        news = running.news.recv(), if !over => news,
                        _ = singles.next(), if !singles.is_empty() => continue,
                    };
                    match news {
                        None => over = true,
                        Some(News::Open(to, method, attempt)) => {
                            let way =
                                slices.iter().map(|(way, _)| *way).find(|(subject, _)| subject.dialled.is_some_and(|d| d.ip() == to.ip()));
                            if let Some(way) = way.filter(|_| self.is_singled_out(to)) {
                                singles.push(self.single(way, to, vec![], Some((method, *attempt))));
                            }
                        }
                        Some(News::Slice(swept)) => {
                            told += 1;
                            let Some((way, slice)) = slices.get(swept.slice) else { continue };
                            for (to, passes) in self.enter_slice(way, slice, &swept).await {
                                singles.push(self.single(way, to, passes, None));
                            }
                        }
                    }
                }
            }
        }
        *locked(&self.missing) += slices.len() - told;
    }

    /// What a real connect found open just now, of the open ports and of the witnesses: the sweep must find it open, too.
    fn controls(&self, family: Family) -> Vec<SocketAddr> {
        let canaries = locked(&self.canaries);
        let own = canaries.values().filter_map(|canary| canary.newest());
        let runners = self.check.witness_numbers().filter_map(|witness| self.engine.runners.get(witness));
        let witnesses: Vec<_> = runners.filter_map(|runner| runner.newest()).collect();
        let runs = own.map(|run| run.seen()).chain(witnesses.iter().map(|run| run.seen()));
        let open = |o: &&Observation| {
            o.outcome.class() == Class::Open
                && o.got_past_tcp()
                && o.subject.source == self.check.source
                && o.subject.family == Some(family)
        };
        let mut controls: Vec<SocketAddr> = runs.flatten().filter(open).filter_map(|o| o.subject.dialled).collect();
        controls.dedup();
        controls.truncate(CONTROLS);
        controls
    }

    /// Whether this port is looked at by itself: each at most once, and only so many of a run.
    fn is_singled_out(&self, to: SocketAddr) -> bool {
        let mut singled = locked(&self.singled);
        if singled.contains(&to) {
            return false;
        }
        if singled.len() >= MAX_SINGLES {
            drop(singled);
            *locked(&self.missing) += 1;
            return false;
        }
        singled.insert(to)
    }

    /// Looks at one port that was not as expected, and adds what was seen before.
    async fn single(&self, way: &(Subject, Approach), to: SocketAddr, passes: Vec<Outcome>, open: Option<(Method, Attempt)>) {
        let (all, approach) = way;
        let Some((subject, approach)) = one_port(all, approach, to.port()) else { return };
        let Ok(_turn) = self.singles.acquire().await else { return };
        let seen = match open {
            // A connect that got through is the look itself, and settles the matter.
            Some((Method::Connect, attempt)) => Observation::of(subject, vec![attempt], Some(0), Wall::now()),
            Some((Method::Syn, _)) => {
                let mut seen = self.engine.observe(self.check, &subject, &approach).await;
                seen.evidence.swept_as = Some(Outcome::Connected);
                if seen.outcome.class() == Class::Closed {
                    seen.evidence.detail = Some("a SYN of our own was answered by SYN-ACK, and connect was not let in".into());
                }
                seen
            }
            None => {
                let mut seen = self.engine.observe(self.check, &subject, &approach).await;
                seen.evidence.swept_as = passes.iter().find(|o| !self.check.expectation.accepts(**o)).copied();
                seen.attempts.splice(0..0, passes);
                seen
            }
        };
        self.enter(seen).await;
    }

    /// Takes an observation in; an open door is told at once.
    async fn enter(&self, seen: Observation) {
        locked(&self.pending).push(seen.clone());
        self.engine.announce(self.number, self.check, seen, self.began).await;
    }

    /// Takes a slice in; gives the ports that are to be looked at by themselves.
    async fn enter_slice(&self, way: &(Subject, Approach), slice: &Slice, swept: &Swept) -> Vec<(SocketAddr, Vec<Outcome>)> {
        let accepts = |expectation: &Expectation, passes: &[Outcome]| passes.iter().all(|o| expectation.accepts(*o));
        let (mut expected, mut others, mut local) = (Patterns::new(), Patterns::new(), Patterns::new());
        let mut singles = Vec::new();
        let (mut attempted, mut answered, mut open) = (0, 0, 0);
        for (at, port) in slice.ports.iter().enumerate() {
            let passes: Vec<Outcome> = swept.passes.iter().filter_map(|pass| pass.get(at).copied().flatten()).collect();
            let is = |class| passes.iter().any(|o| o.class() == class);
            attempted += usize::from(!passes.is_empty() && !is(Class::Local));
            answered += usize::from(passes.iter().any(|o| !o.is_silence() && o.class() != Class::Local));
            let to = SocketAddr::new(slice.ip, *port);
            if is(Class::Open) {
                // Told already, when it was found.
                open += 1;
            } else if is(Class::Local) || passes.is_empty() {
                local.entry(passes).or_default().push(*port);
            } else if accepts(&self.check.expectation, &passes) {
                expected.entry(passes).or_default().push(*port);
            } else if locked(&self.singled).len() < MAX_SINGLES && self.is_singled_out(to) {
                singles.push((to, passes));
            } else {
                others.entry(passes).or_default().push(*port);
            }
        }
        self.engine.with_coverage(self.number, |coverage| {
            let coverage = coverage.get_or_insert_default();
            coverage.attempted += attempted;
            coverage.answered += answered;
        });
        let counts = Sweep {
            method: match swept.method {
                Method::Syn => "syn",
                Method::Connect => "connect",
            },
            ports: shown(&slice.ports),
            planned: slice.ports.len(),
            attempted,
            answered,
            outcomes: BTreeMap::new(),
        };
        let mut seen = Vec::new();
        if !expected.is_empty() {
            seen.push(self.of_many(&way.0, slice, swept, &expected, counts.clone()));
        }
        if !local.is_empty() {
            let mut failed = self.of_many(&way.0, slice, swept, &local, counts.clone());
            failed.outcome = Outcome::LocalError;
            if let Some((errno, detail)) = &swept.failure {
                failed.evidence.errno = errno.clone();
                failed.evidence.detail = Some(detail.clone());
            }
            seen.push(failed);
        }
        let left_out = others.len().saturating_sub(MAX_PATTERNS);
        for (passes, ports) in others.into_iter().take(MAX_PATTERNS) {
            seen.push(self.of_many(&way.0, slice, swept, &Patterns::from([(passes, ports)]), counts.clone()));
        }
        *locked(&self.missing) += left_out + usize::from(seen.is_empty() && open == 0 && singles.is_empty());
        for one in seen {
            self.enter(one).await;
        }
        singles
    }

    /// One observation of many ports of a slice. Each pass has the outcome of most of them.
    fn of_many(&self, all: &Subject, slice: &Slice, swept: &Swept, patterns: &Patterns, counts: Sweep) -> Observation {
        let mut ports: Vec<u16> = patterns.values().flatten().copied().collect();
        ports.sort_unstable();
        let most = |pass: usize| {
            let mut count: BTreeMap<Outcome, usize> = BTreeMap::new();
            for (passes, ports) in patterns {
                if let Some(outcome) = passes.get(pass) {
                    *count.entry(*outcome).or_default() += ports.len();
                }
            }
            count.into_iter().max_by_key(|(_, n)| *n).map(|(outcome, _)| outcome)
        };
        let attempts: Vec<Outcome> = (0..self.check.attempts).filter_map(most).collect();
        let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
        for (passes, ports) in patterns {
            // What says most of a port: that this host failed there, else its first answer.
            let local = passes.iter().find(|o| o.class() == Class::Local);
            let told = local.or_else(|| passes.iter().find(|o| !o.is_silence())).or(passes.last());
            *outcomes.entry(told.copied().unwrap_or(Outcome::LocalError)).or_default() += ports.len();
        }
        let outcome = outcomes.iter().max_by_key(|(_, n)| **n).map_or(Outcome::LocalError, |(outcome, _)| *outcome);
        let silent = patterns.keys().flatten().any(|o| *o == Outcome::Timeout);
        let (address, port) = match (slice.ports.first(), slice.ports.last()) {
            (Some(first), Some(last)) if first != last => (format!("{}-{last}", SocketAddr::new(slice.ip, *first)), 0),
            (first, _) => (SocketAddr::new(slice.ip, first.copied().unwrap_or(0)).to_string(), first.copied().unwrap_or(0)),
        };
        let subject = Subject { address, dialled: Some(SocketAddr::new(slice.ip, port)), ..all.clone() };
        let evidence = Evidence {
            local_address: swept.local.map(|ip| SocketAddr::new(ip, 0)),
            icmp: swept.icmp.clone(),
            sweep: Some(Sweep { outcomes, ..counts }),
            ..Evidence::default()
        };
        Observation {
            subject,
            outcome,
            stage: Stage::Tcp,
            evidence,
            attempts,
            flows: Vec::new(),
            fewest_sent: swept.fewest_syns.filter(|_| silent),
            elapsed: swept.ended.since(swept.started),
            started: swept.started,
            ended: swept.ended,
            started_at: swept.started_at,
        }
    }
}

/// One port of an address, and the way to it.
fn one_port(all: &Subject, approach: &Approach, port: u16) -> Option<(Subject, Approach)> {
    let ip = all.dialled?.ip();
    Some((Ports::port(all, ip, port), Approach { to: SocketAddr::new(ip, port), ..approach.clone() }))
}

/// Ports as text of bounded length.
fn shown(ports: &[u16]) -> String {
    let text = PortSet::of(ports.iter().copied()).to_string();
    match (text.split(", ").count(), ports.first(), ports.last()) {
        (ranges, Some(first), Some(last)) if ranges > MAX_RANGES => format!("{} of {first}-{last}", ports.len()),
        _ => text,
    }
}

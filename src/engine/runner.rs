//! Runners: a positive check runs when its own turn or an inverted check asks for it, one run at a time, shared by all who ask.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::Mutex as Turn;

use super::look::{Found, Look};
use super::{Began, Engine, shown_target};
use crate::clock::{Moment, Wall};
use crate::observation::{Observation, Subject, Transport};
use crate::plan::{Check, WITNESS_SPACING};
use crate::probe::{Aim, Approach, Probe};
use crate::target::HostPort;
use crate::witness::{Timeline, WitnessRun};

/// How long a run waits for others who want one too.
const GATHERING: Duration = Duration::from_millis(50);
/// The most tunnels to pinned addresses that one run opens.
const MAX_PINS: usize = 64;

/// The runs of one positive check.
#[derive(Debug, Default)]
pub(super) struct Runner {
    turn: Turn<()>,
    runs: Mutex<Runs>,
}

#[derive(Debug, Default, Clone)]
struct Runs {
    timeline: Timeline,
    /// Addresses that the next run shall tunnel to, besides the target as written.
    wanted: BTreeSet<SocketAddr>,
    /// Addresses that the newest run was told to tunnel to.
    pinned: BTreeSet<SocketAddr>,
    newest: Option<Look>,
    newest_started: Option<Moment>,
}

impl Runner {
    /// Reads the runs so far, where they stand.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Timeline) -> T) -> T {
        self.with(|runs| read(&runs.timeline))
    }

    /// The runner of the same check in the next engine: it knows what this one has seen.
    pub(super) fn successor(&self) -> Runner {
        Runner { turn: Turn::default(), runs: Mutex::new(self.with(|runs| runs.clone())) }
    }

    /// The newest run.
    pub(super) fn newest(&self) -> Option<Arc<WitnessRun>> {
        self.read(|timeline| timeline.newest().cloned())
    }

    fn with<T>(&self, change: impl FnOnce(&mut Runs) -> T) -> T {
        change(&mut self.runs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Engine {
    /// Makes sure that the witness has a run that can stand before an observation that is about to be made.
    pub(super) async fn ensure_run_before(&self, number: usize, now: Moment, pins: &[SocketAddr]) {
        let Some(runner) = self.runners.get(number) else { return };
        let fresh = self.newest_age(number, now).is_some_and(|age| age <= self.plan.witness_window / 2);
        if !(fresh && runner.with(|runs| pins.iter().all(|pin| runs.pinned.contains(pin)))) {
            self.shared_run(number, now, pins).await;
        }
    }

    /// Lets a witness run again whose good run has grown old while the others were waited for.
    pub(super) async fn renew(&self, number: usize, pins: &[SocketAddr]) {
        let now = Moment::now();
        if self.newest_age(number, now).is_some_and(|age| age > self.plan.witness_window / 2) {
            self.shared_run(number, now, pins).await;
        }
    }

    /// How long ago the witness's newest run ended, where that one got through.
    fn newest_age(&self, number: usize, now: Moment) -> Option<Duration> {
        let newest = self.runners.get(number)?.newest().filter(|run| run.seen().iter().any(|o| self.opened(number, o)))?;
        Some(now.since(newest.ended()))
    }

    fn opened(&self, number: usize, seen: &Observation) -> bool {
        self.plan.checks.get(number).is_some_and(|check| check.expectation.accepts(seen.outcome))
    }

    /// A run of the positive check that began at or after `since` and tunnelled to every pin: the one that serves others, or a new one.
    pub(super) async fn shared_run(&self, number: usize, since: Moment, pins: &[SocketAddr]) -> Look {
        let (Some(runner), Some(check)) = (self.runners.get(number), self.plan.checks.get(number)) else { return Look::default() };
        runner.with(|runs| runs.wanted.extend(pins.iter().take(MAX_PINS)));
        let _turn = runner.turn.lock().await;
        let served = runner.with(|runs| {
            let serves = runs.newest_started.is_some_and(|started| started >= since) && pins.iter().all(|pin| runs.pinned.contains(pin));
            if serves { runs.newest.clone() } else { None }
        });
        if let Some(look) = served {
            return look;
        }
        let last = runner.with(|runs| runs.newest_started);
        let rest = last.map_or(Duration::ZERO, |last| WITNESS_SPACING.saturating_sub(Moment::now().since(last)));
        tokio::time::sleep(rest.max(GATHERING)).await;
        let pins = runner.with(|runs| std::mem::take(&mut runs.wanted));
        let (started, started_at) = (Moment::now(), Wall::now());
        let (look, of_pins) = self.new_run(number, check, &pins).await;
        let mut all_seen = look.seen.clone();
        all_seen.extend(of_pins);
        let run = WitnessRun::new(started, Moment::now(), started_at, all_seen, &check.expectation);
        let up = run.seen().iter().any(|o| self.opened(number, o));
        self.listener.witness(&check.name, &shown_target(&self.plan, check), up);
        runner.with(|runs| {
            runs.timeline.push(Arc::new(run));
            runs.pinned = pins;
            runs.newest = Some(look.clone());
            runs.newest_started = Some(started);
        });
        look
    }

    /// The check's own observations, and those of the pinned addresses, which count for proofs only.
    async fn new_run(&self, number: usize, check: &Check, pins: &BTreeSet<SocketAddr>) -> (Look, Vec<Observation>) {
        let found = self.find(number, check).await;
        let pinned = pinned(&found, pins);
        let began = Began::now();
        let own = self.look(check, found, |seen| self.announce(number, check, seen, began));
        let extra = join_all(pinned.iter().map(|(subject, approach)| self.observe(check, subject, approach)));
        join(own, extra).await
    }

    /// The addresses of `found` that the witness must tunnel to, so that it can show the proof `target` for them: it goes
    /// through a proxy, to the same host and port (SPEC 2.3).
    pub(super) fn pins(&self, check: &Check, witness: usize, found: &Found) -> Vec<SocketAddr> {
        let Some(witness) = self.plan.checks.get(witness) else { return Vec::new() };
        let (Some(there), Some(here)) = (witness.probe.target(), check.probe.target()) else { return Vec::new() };
        let same = match (check.probe.transport(), &check.probe) {
            // To a sweep any port of the host will do.
            (_, Probe::Ports(_)) | (Transport::Icmp, _) => there.host == here.host,
            (Transport::Tcp, _) => there == here,
            // No tunnel carries datagrams.
            (Transport::Udp, _) => false,
        };
        if witness.probe.tunnel().is_none() || !same {
            return Vec::new();
        }
        // Many subjects may be about one address, by one variant each.
        let direct = found.subjects.iter().filter(|(subject, _)| !subject.via);
        let reached: BTreeSet<SocketAddr> =
            direct.filter_map(|(subject, _)| Some(SocketAddr::new(subject.reached?.ip(), there.port))).collect();
        reached.into_iter().collect()
    }
}

/// For each way to the proxy and each pin a tunnel to the very address, with the name in SNI and Host.
fn pinned(found: &Found, pins: &BTreeSet<SocketAddr>) -> Vec<(Subject, Approach)> {
    let ways = found.subjects.iter();
    let tunnels = ways.flat_map(|(subject, approach)| pins.iter().map(move |to| (subject, approach, to)));
    let pin = |(subject, approach, to): (&Subject, &Approach, &SocketAddr)| {
        let subject = Subject { address: to.to_string(), reached: Some(*to), ..subject.clone() };
        (subject, Approach { aim: Aim::Tunnel(HostPort::from(*to)), ..approach.clone() })
    };
    tunnels.take(MAX_PINS).map(pin).collect()
}

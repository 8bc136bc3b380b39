//! The engine: one task per check, a bound on how many look at once, exactly one record per planned run.
//!
//! A run resolves, lets every witness run before, looks at every address, lets every witness run after, and judges.
//! `run` and `check` are this engine with two lengths.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::clock::{Moment, Wall};
use crate::expectation::Reading;
use crate::history::Board;
use crate::memory::Memory;
use crate::observation::{Class, Observation, Outcome, Stage, excuse_mute};
use crate::plan::{Check, Plan};
use crate::record::{About, Record};
use crate::schedule::Schedule;
use crate::secret::mask;
use crate::state::State;
use crate::verdict::{Cause, Judged, Verdict, fold, judge};
use crate::witness::Decoys;

mod decoy;
mod look;
mod report_run;
mod runner;

use runner::Runner;

/// How many runs may look at once, at most: more would not make an audit faster, only its own host slower.
const MAX_RUNS_AT_ONCE: usize = 512;
/// How many may in any case: a host that cannot bear these has a fault that must show as `local-error`, not as slowness.
const MIN_RUNS_AT_ONCE: usize = 64;
/// File descriptors that one run may need: its overlapping attempts, and a question to the beacon or the resolver.
const DESCRIPTORS_A_RUN: u64 = 4;

/// Whoever wants to know what the engine does, as it does it. Nothing here may wait.
pub trait Listener: Send + Sync {
    /// A run was recorded.
    fn finished(&self, record: &Record);
    /// A witness ran, and got through or not.
    fn witness(&self, name: &str, up: bool);
    /// So many more (or fewer) observations are being made.
    fn looking(&self, change: i64);
    /// A run started so much later than it was due.
    fn lag(&self, by: Duration);
}

/// Runs the plan's checks and writes their records on the board.
pub struct Engine {
    plan: Arc<Plan>,
    board: Arc<Board>,
    listener: Arc<dyn Listener>,
    runners: Vec<Runner>,
    decoys: Mutex<Decoys>,
    decoy_turns: decoy::Turns,
    memories: Vec<Mutex<Memory>>,
    partial: Vec<Mutex<Vec<Observation>>>,
    state: Option<State>,
    permits: Semaphore,
    done: AtomicUsize,
}

impl Engine {
    /// An engine for the plan; what `state` remembers is taken over.
    pub fn new(plan: Arc<Plan>, board: Arc<Board>, listener: Arc<dyn Listener>, state: Option<State>) -> Arc<Engine> {
        let memory =
            |check: &Arc<Check>| state.as_ref().map_or_else(Memory::default, |s| s.recall(&check.name, &shown_target(&plan, check)));
        let memories: Vec<Memory> = plan.checks.iter().map(memory).collect();
        for (number, (check, memory)) in plan.checks.iter().zip(&memories).enumerate() {
            if memory.violated && check.expectation.is_inverted() {
                board.announce(number, report_run::latched(check, &plan, memory, Moment::now(), Wall::now()));
            }
        }
        Arc::new(Engine {
            runners: plan.checks.iter().map(|_| Runner::default()).collect(),
            decoys: Mutex::new(Decoys::new(plan.witness_window)),
            decoy_turns: decoy::Turns::default(),
            memories: memories.into_iter().map(Mutex::new).collect(),
            partial: plan.checks.iter().map(|_| Mutex::default()).collect(),
            permits: Semaphore::new(runs_at_once(crate::net::descriptor_limit())),
            done: AtomicUsize::new(0),
            plan,
            board,
            listener,
            state,
        })
    }

    /// What readers need to know of each check of the plan.
    pub fn about(plan: &Plan) -> Vec<Arc<About>> {
        plan.checks.iter().map(|check| Arc::new(report_run::about(check, &plan.masks))).collect()
    }

    /// The board that the engine writes.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// How many runs are done, for progress.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Runs every check on its interval until `stop`; then no run is started any more, and those under way may finish within `grace`.
    pub async fn run(self: &Arc<Self>, stop: watch::Receiver<bool>, grace: Duration) {
        let start = Moment::now();
        let tasks: Vec<_> = (0..self.plan.checks.len())
            .map(|number| tokio::spawn(Arc::clone(self).keep_running(number, start, stop.clone(), grace)))
            .collect();
        join_all(tasks).await;
        self.save(true);
    }

    async fn keep_running(self: Arc<Self>, number: usize, start: Moment, mut stop: watch::Receiver<bool>, grace: Duration) {
        let Some(check) = self.plan.checks.get(number) else { return };
        let schedule = Schedule::new(&check.name, check.interval, start);
        let mut last = None;
        loop {
            let due = schedule.next(last, Moment::now());
            tokio::select! {
                () = sleep_until(due) => {}
                _ = stop.wait_for(|stopped| *stopped) => return,
            }
            self.listener.lag(Moment::now().since(due));
            last = Some(due);
            let mut stopping = stop.clone();
            let cut = async move {
                let _ = stopping.wait_for(|stopped| *stopped).await;
                tokio::time::sleep(grace).await;
            };
            self.run_once(number, cut).await;
        }
    }

    /// One round over these checks, all at once; what is not done by `deadline` is recorded as `unproven`.
    pub async fn round(self: &Arc<Self>, numbers: &[usize], deadline: Option<Instant>) {
        let cut = || async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        join_all(numbers.iter().map(|number| self.run_once(*number, cut()))).await;
        self.save(true);
    }

    /// One planned run and its one record: after a panic too, and when `cut` comes before the run is done.
    async fn run_once(self: &Arc<Self>, number: usize, cut: impl Future<Output = ()>) {
        let (began, wall) = (Moment::now(), Wall::now());
        let engine = Arc::clone(self);
        let mut task = tokio::spawn(async move { engine.judge_run(number, began, wall).await });
        let abort = task.abort_handle();
        let ended = tokio::select! {
            biased;
            ended = &mut task => Some(ended),
            () = cut => None,
        };
        abort.abort();
        let (judged, planned) = match ended {
            Some(Ok(run)) => run,
            Some(Err(panic)) => (vec![self.bug(number, &panic.to_string(), began, wall)], 1),
            None => (self.judge_partial(number), usize::MAX),
        };
        self.record(number, judged, planned, began, wall);
    }

    /// The story of one run.
    async fn judge_run(&self, number: usize, began: Moment, wall: Wall) -> (Vec<Judged>, usize) {
        let Some(check) = self.plan.checks.get(number) else { return (Vec::new(), 1) };
        self.with_partial(number, Vec::clear);
        let Ok(_permit) = self.permits.acquire().await else { return (Vec::new(), 1) };
        let mut looked = if check.expectation.is_inverted() {
            let mut found = self.find(number, check).await;
            self.let_witnesses_run(check, Side::Before, &found).await;
            if found.is_the_answer(check) {
                // The answer is the observation, so it has to be given while the witnesses stand around it.
                found = self.find(number, check).await;
            }
            let look = self.look(check, found, |seen| self.announce(number, check, seen, began, wall));
            // The witnesses' decoys run meanwhile: beside the runs before, and at no cost in time.
            join(look, self.hear_decoys(check, &[])).await.0
        } else {
            self.let_witnesses_run(check, Side::Before, &look::Found::default()).await;
            self.runner_looks(number, Moment::now(), &[]).await
        };
        let needs_witness = check.expectation.is_inverted() || !looked.seen.iter().all(|o| self.reads_as(check, o) == Reading::Accepted);
        if needs_witness {
            self.let_witnesses_run(check, Side::After, &looked.found).await;
        }
        self.hear_decoys(check, &looked.seen).await;
        excuse_mute(&mut looked.seen);
        let judged = looked.seen.into_iter().map(|seen| self.judge_one(check, seen)).collect();
        (judged, looked.planned)
    }

    fn reads_as(&self, check: &Check, seen: &Observation) -> Reading {
        check.expectation.read(seen, check.attempts)
    }

    /// Lets every named witness run on one side of the observations, all at once and shared with other checks.
    async fn let_witnesses_run(&self, check: &Check, side: Side, found: &look::Found) {
        let now = Moment::now();
        let runs = check.witnesses.iter().map(|witness| async move {
            let pins = self.pins(check, *witness, found);
            match side {
                Side::Before => self.run_before(*witness, now, &pins).await,
                Side::After => drop(self.runner_looks(*witness, now, &pins).await),
            }
        });
        join_all(runs).await;
        if side == Side::Before {
            join_all(check.witnesses.iter().map(|witness| async move { self.renew(*witness, &self.pins(check, *witness, found)).await }))
                .await;
        }
    }

    fn judge_one(&self, check: &Check, seen: Observation) -> Judged {
        let decoys = self.decoys.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = decoys.unmask(seen);
        let testimony = |witness: &usize| {
            let name = self.plan.checks.get(*witness).map_or(String::new(), |w| w.name.clone());
            let timeline = self.runners.get(*witness).map(|r| r.timeline()).unwrap_or_default();
            (name, timeline.around(&seen, self.plan.witness_window, &decoys))
        };
        let witnesses = check.witnesses.iter().map(testimony).collect();
        judge(seen, check.claim(), witnesses)
    }

    /// Shows an open door before the rest of the run is done.
    async fn announce(&self, number: usize, check: &Check, seen: Observation, began: Moment, wall: Wall) {
        let inverted = check.expectation.is_inverted();
        let settled = inverted && seen.outcome.class() == Class::Open || seen.outcome == Outcome::EgressOther;
        if inverted || settled {
            self.with_partial(number, |partial| partial.push(seen.clone()));
        }
        if !settled {
            return;
        }
        self.hear_decoys(check, std::slice::from_ref(&seen)).await;
        let judged = vec![self.judge_one(check, seen)];
        if let Some(one) = judged.first()
            && matches!(one.verdict, Verdict::Violated(_))
        {
            // What the finished run will teach, ahead of it.
            let mut memory = self.with_memory(number, |memory| memory.clone());
            memory.learn(&judged, one.verdict.clone(), check.expectation.is_inverted(), wall, Moment::now());
            let record = report_run::record(check, &self.plan, &judged, fold(&judged, 1), Vec::new(), &memory, began, wall);
            self.board.announce(number, record);
        }
    }

    fn record(&self, number: usize, judged: Vec<Judged>, planned: usize, began: Moment, wall: Wall) {
        let Some(check) = self.plan.checks.get(number) else { return };
        let mut folded = fold(&judged, planned);
        let inverted = check.expectation.is_inverted();
        let (memory, changed) = self.with_memory(number, |memory| {
            let (verdict, changed) = memory.learn(&judged, folded.verdict.clone(), inverted, wall, Moment::now());
            folded.verdict = verdict;
            (memory.clone(), changed)
        });
        let record = report_run::record(check, &self.plan, &judged, folded, changed, &memory, began, wall);
        if let Some(state) = &self.state {
            state.remember(&check.name, &shown_target(&self.plan, check), &memory);
        }
        self.listener.finished(&record);
        self.board.publish(number, record);
        self.done.fetch_add(1, Ordering::Relaxed);
        self.save(false);
    }

    fn save(&self, all: bool) {
        if let Some(state) = &self.state
            && let Err(why) = state.save(all)
        {
            tracing::error!("{why}");
        }
    }

    /// What a run that was cut short had seen by then.
    fn judge_partial(&self, number: usize) -> Vec<Judged> {
        let Some(check) = self.plan.checks.get(number) else { return Vec::new() };
        let seen = self.with_partial(number, std::mem::take);
        seen.into_iter().map(|seen| self.judge_one(check, seen)).collect()
    }

    fn bug(&self, number: usize, what: &str, at: Moment, wall: Wall) -> Judged {
        let address = self.plan.checks.get(number).map_or(String::new(), |c| c.target.clone());
        let subject = look::nowhere(address);
        let seen = Observation::without_attempt(subject, Outcome::Internal, Stage::Dns, what.to_string(), at, wall);
        let expectation = self.plan.checks.get(number);
        match expectation {
            Some(check) => judge(seen, check.claim(), Vec::new()),
            None => {
                Judged { seen, verdict: Verdict::Unproven(Cause::Local), proofs: crate::witness::ProofSet::NONE, witnesses: Vec::new() }
            }
        }
    }

    fn with_partial<T>(&self, number: usize, change: impl FnOnce(&mut Vec<Observation>) -> T) -> T {
        match self.partial.get(number) {
            Some(partial) => change(&mut partial.lock().unwrap_or_else(PoisonError::into_inner)),
            None => change(&mut Vec::new()),
        }
    }

    fn with_memory<T>(&self, number: usize, change: impl FnOnce(&mut Memory) -> T) -> T {
        match self.memories.get(number) {
            Some(memory) => change(&mut memory.lock().unwrap_or_else(PoisonError::into_inner)),
            None => change(&mut Memory::default()),
        }
    }
}

/// How many runs may look at once under this limit of file descriptors.
fn runs_at_once(descriptors: u64) -> usize {
    usize::try_from(descriptors / DESCRIPTORS_A_RUN).unwrap_or(usize::MAX).clamp(MIN_RUNS_AT_ONCE, MAX_RUNS_AT_ONCE)
}

/// A target as it may be shown, and kept: what came from the environment is no name to write into a file.
fn shown_target(plan: &Plan, check: &Check) -> String {
    mask(&check.target, &plan.masks)
}

/// On which side of the observations a witness runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// Sleeps until a moment of CLOCK_BOOTTIME, in steps, so that a suspended machine does not oversleep for hours.
async fn sleep_until(due: Moment) {
    const STEP: Duration = Duration::from_secs(10);
    loop {
        let left = due.since(Moment::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(STEP)).await;
    }
}

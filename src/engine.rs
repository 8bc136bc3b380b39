//! The engine: one task per check, a bound on how many look at once, exactly one record per planned run.
//!
//! A run resolves, lets every witness run before, looks at every address, lets every witness run after, and judges.
//! `run` and `check` are this engine with two lengths.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all, pending};
use tokio::sync::{Mutex as Turn, MutexGuard, Semaphore, watch};
use tokio::time::Instant;

use crate::clock::{Moment, Wall};
use crate::expectation::Reading;
use crate::history::Board;
use crate::memory::Memory;
use crate::observation::{Observation, Outcome, Stage, doubt_denials, excuse_mute, excuse_versions, note_shut_out};
use crate::plan::{Check, Plan, Witness};
use crate::probe::Probe;
use crate::record::{About, Coverage, Record};
use crate::schedule::Schedule;
use crate::secret::mask;
use crate::state::State;
use crate::target::Host;
use crate::verdict::{Judged, Testimony, Verdict, fold, judge};
use crate::witness::{Decoys, Lapse, Proven, Timeline};

mod beside;
mod decoy;
mod look;
mod runner;
mod scribe;
mod sweep;

pub use look::MAX_ADDRESSES;
use look::{Found, Look};
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
    /// A witness ran on one of its targets, and got through or not.
    fn witness(&self, name: &str, target: &str, up: bool);
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
    runners: Vec<Arc<Runner>>,
    decoys: Arc<Mutex<Decoys>>,
    decoy_turns: Arc<decoy::Turns>,
    memories: Vec<Mutex<Memory>>,
    partial: Vec<Mutex<Vec<Observation>>>,
    beats: Vec<Mutex<Beat>>,
    /// How much of its ports a sweep under way has asked.
    coverage: Vec<Mutex<Option<Coverage>>>,
    state: Option<Arc<State>>,
    permits: Arc<Semaphore>,
    /// One line for each host that is asked by datagrams.
    lines: BTreeMap<Host, Turn<()>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("checks", &self.plan.checks.len()).finish_non_exhaustive()
    }
}

/// What an engine that runs is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Go on.
    Going,
    /// Make place for another engine: finish what is under way.
    Changing,
    /// The same, and be quick about it.
    Stopping,
}

/// Where a check stands on its schedule.
#[derive(Debug, Clone, Copy)]
struct Beat {
    /// When this monitor first had the check.
    start: Moment,
    /// When its newest run was due.
    last: Option<Moment>,
}

/// When a run began, by both clocks.
#[derive(Debug, Clone, Copy)]
struct Began {
    at: Moment,
    wall: Wall,
}

/// On which side of the observations a witness runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

impl Engine {
    /// An engine for the plan; what `state` remembers is taken over.
    pub fn new(plan: Arc<Plan>, board: Arc<Board>, listener: Arc<dyn Listener>, state: Option<State>) -> Arc<Engine> {
        let engine = Engine::fresh(plan, board, listener, state.map(Arc::new));
        for (number, check) in engine.plan.checks.iter().enumerate() {
            engine.show_latch(number, check);
        }
        Arc::new(engine)
    }

    /// The engine that follows this one, which has ended, with another plan: a check that stays on a target that stays
    /// keeps its memory, its beat and its witness runs, and its place on the board.
    #[must_use]
    pub fn followed_by(&self, plan: Arc<Plan>) -> Arc<Engine> {
        self.board.change(Engine::about(&plan));
        let mut next = Engine::fresh(plan, Arc::clone(&self.board), Arc::clone(&self.listener), self.state.clone());
        let places: HashMap<(&str, &str), usize> =
            self.plan.checks.iter().enumerate().map(|(number, check)| ((check.name.as_str(), check.target.as_str()), number)).collect();
        for (number, check) in next.plan.checks.iter().enumerate() {
            let Some(old) = places.get(&(check.name.as_str(), check.target.as_str())) else {
                next.show_latch(number, check);
                continue;
            };
            if let (Some(mine), Some(memory)) = (next.memories.get_mut(number), self.memories.get(*old)) {
                *mine = Mutex::new(memory.lock().unwrap_or_else(PoisonError::into_inner).clone());
            }
            if self.plan.checks.get(*old).is_none_or(|old| !check.claims_the_same(old)) {
                // What was shown of another claim under the same name shows nothing of this one.
                self.board.forget(number);
                next.show_latch(number, check);
                continue;
            }
            if let (Some(mine), Some(runner)) = (next.runners.get_mut(number), self.runners.get(*old)) {
                *mine = Arc::new(runner.successor());
            }
            if let (Some(mine), Some(beat)) = (next.beats.get_mut(number), self.beats.get(*old)) {
                *mine = Mutex::new(*beat.lock().unwrap_or_else(PoisonError::into_inner));
            }
        }
        next.decoys = Arc::new(Mutex::new(self.decoys.lock().unwrap_or_else(PoisonError::into_inner).clone()));
        Arc::new(next)
    }

    fn fresh(plan: Arc<Plan>, board: Arc<Board>, listener: Arc<dyn Listener>, state: Option<Arc<State>>) -> Engine {
        let memory =
            |check: &Arc<Check>| state.as_ref().map_or_else(Memory::default, |s| s.recall(&check.name, &shown_target(&plan, check)));
        let memories: Vec<Memory> = plan.checks.iter().map(memory).collect();
        let beat = Beat { start: Moment::now(), last: None };
        Engine {
            beats: plan.checks.iter().map(|_| Mutex::new(beat)).collect(),
            runners: plan.checks.iter().map(|_| Arc::default()).collect(),
            decoys: Arc::new(Mutex::new(Decoys::new(plan.witness_window))),
            decoy_turns: Arc::default(),
            memories: memories.into_iter().map(Mutex::new).collect(),
            partial: plan.checks.iter().map(|_| Mutex::default()).collect(),
            lines: plan.checks.iter().filter_map(|c| Some((c.waits_at()?.clone(), Turn::default()))).collect(),
            coverage: plan.checks.iter().map(|_| Mutex::default()).collect(),
            permits: Arc::new(Semaphore::new(runs_at_once(crate::net::descriptor_limit()))),
            plan,
            board,
            listener,
            state,
        }
    }

    /// What was violated before this monitor had the check is so until a run holds.
    fn show_latch(&self, number: usize, check: &Check) {
        let memory = self.with_memory(number, |memory| memory.clone());
        if memory.violated && check.expectation.is_inverted() {
            self.board.announce(number, scribe::latched(check, &self.plan, &memory, Began::now()));
        }
    }

    /// What readers need to know of each check of the plan.
    pub fn about(plan: &Plan) -> Vec<Arc<About>> {
        plan.checks.iter().map(|check| Arc::new(scribe::about(check, plan))).collect()
    }

    /// The board that the engine writes.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Runs every check on its interval until the course changes; then no run is started any more. Those under way are
    /// finished, within `grace` where the monitor stops.
    pub async fn run(self: &Arc<Self>, course: watch::Receiver<Course>, grace: Duration) {
        let checks = 0..self.plan.checks.len();
        let tasks = checks.map(|number| tokio::spawn(Arc::clone(self).keep_running(number, course.clone(), grace)));
        join_all(tasks).await;
        self.save(true);
    }

    /// One round over these checks, all at once; what is not done by `deadline` is recorded as `unproven`.
    pub async fn round(self: &Arc<Self>, numbers: &[usize], deadline: Option<Instant>) {
        let over = || async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => pending().await,
            }
        };
        join_all(numbers.iter().map(|number| self.run_once(*number, over()))).await;
        self.save(true);
    }

    async fn keep_running(self: Arc<Self>, number: usize, mut course: watch::Receiver<Course>, grace: Duration) {
        let (Some(check), Some(beat)) = (self.plan.checks.get(number), self.beats.get(number)) else { return };
        let Beat { start, mut last } = *beat.lock().unwrap_or_else(PoisonError::into_inner);
        let schedule = Schedule::new(&format!("{} {}", check.name, check.target), check.interval, start);
        loop {
            let due = schedule.next(last, Moment::now());
            tokio::select! {
                biased;
                _ = course.wait_for(|course| *course != Course::Going) => return,
                () = sleep_until(due) => {}
            }
            self.listener.lag(Moment::now().since(due));
            last = Some(due);
            beat.lock().unwrap_or_else(PoisonError::into_inner).last = last;
            let over = async {
                let _ = course.wait_for(|course| *course == Course::Stopping).await;
                tokio::time::sleep(grace).await;
            };
            self.run_once(number, over).await;
        }
    }

    /// One planned run and its one record, after a time-out, a cancel or a panic too. It is cut short when `over` comes.
    async fn run_once(self: &Arc<Self>, number: usize, over: impl Future<Output = ()>) {
        let Some(check) = self.plan.checks.get(number) else { return };
        let began = Began::now();
        self.with_partial(number, Vec::clear);
        let (engine, its_check) = (Arc::clone(self), Arc::clone(check));
        let mut task = tokio::spawn(async move { engine.judge_run(number, &its_check, began).await });
        let ended = tokio::select! {
            biased;
            ended = &mut task => ended,
            () = over => {
                task.abort();
                (&mut task).await
            }
        };
        let (judged, planned) = ended.unwrap_or_else(|error| {
            let mut judged = self.judge_partial(number, check);
            judged.extend(error.is_panic().then(|| bug(check, &error.to_string(), began)));
            (judged, usize::MAX)
        });
        self.record(number, check, judged, planned, began);
    }

    /// The story of one run: its witnesses, what there is to see, its witnesses again, and what that comes to. Beside the
    /// judgements, how many there had to be.
    async fn judge_run(&self, number: usize, check: &Check, began: Began) -> (Vec<Judged>, usize) {
        let line = self.stand_in_line(check).await;
        let Ok(_permit) = self.permits.acquire().await else { return (Vec::new(), 1) };
        if let Probe::Ports(ports) = &check.probe {
            return self.judge_sweep(number, check, ports, began).await;
        }
        let mut look = if check.expectation.is_inverted() {
            self.look_with_witnesses(number, check, began).await
        } else {
            self.let_witnesses_run(check, Side::Before, &Found::default()).await;
            self.shared_run(number, Moment::now(), &[]).await
        };
        drop(line);
        if check.expectation.is_inverted() || !look.seen.iter().all(|o| self.reads_as(check, o) == Reading::Accepted) {
            self.let_witnesses_run(check, Side::After, &look.found).await;
        }
        self.hear_decoys(check, &look.seen).await;
        excuse_mute(&mut look.seen);
        excuse_versions(&mut look.seen);
        note_shut_out(&mut look.seen);
        doubt_denials(&mut look.seen);
        let judged = look.seen.into_iter().map(|seen| self.judge_one(check, seen)).collect();
        (judged, look.planned)
    }

    /// Lets the witnesses run before, and looks at all that must be closed.
    async fn look_with_witnesses(&self, number: usize, check: &Check, began: Began) -> Look {
        let mut found = self.find(number, check).await;
        self.let_witnesses_run(check, Side::Before, &found).await;
        if found.has_an_answer(check) {
            // The answer is the observation, so it has to be given while the witnesses stand around it, and every time.
            found = self.find_every_time(number, check).await;
        }
        let mut whole = Look::default();
        let mut parts = found.parts(check.probe.looks_at_once()).peekable();
        while let Some(part) = parts.next() {
            let look = self.look(check, part, |seen| self.announce(number, check, seen, began));
            // The witnesses' decoys run meanwhile: beside the runs before, and at no cost in time.
            let part = join(look, self.hear_decoys(check, &[])).await.0;
            if let Some(next) = parts.peek() {
                // After this part and before the next one, so about what stands in either, with the decoys beside what was seen.
                let either = part.found.subjects.iter().chain(&next.subjects).cloned().collect();
                let either = Found { subjects: either, ..Found::default() };
                join(self.let_witnesses_run(check, Side::After, &either), self.hear_decoys(check, &part.seen)).await;
            }
            whole = whole.and(part);
        }
        whole
    }

    /// Waits until no other run that must see a block asks the same host by datagrams: those leave one a second, and were
    /// many runs to share that second, the witnesses would be long out of date by the time of their first packet.
    async fn stand_in_line(&self, check: &Check) -> Option<MutexGuard<'_, ()>> {
        match self.lines.get(check.waits_at()?) {
            Some(line) => Some(line.lock().await),
            None => None,
        }
    }

    fn reads_as(&self, check: &Check, seen: &Observation) -> Reading {
        check.demand(&seen.subject).read(seen, check.attempts)
    }

    /// Lets every named witness run on one side of the observations, all at once and shared with other checks.
    async fn let_witnesses_run(&self, check: &Check, side: Side, found: &Found) {
        let now = Moment::now();
        let runs = check.witness_numbers().map(|witness| async move {
            let pins = self.pins(check, witness, found);
            match side {
                Side::Before => self.ensure_run_before(witness, now, &pins).await,
                Side::After => drop(self.shared_run(witness, now, &pins).await),
            }
        });
        join_all(runs).await;
        if side == Side::Before {
            join_all(check.witness_numbers().map(|witness| async move { self.renew(witness, &self.pins(check, witness, found)).await }))
                .await;
        }
    }

    fn judge_one(&self, check: &Check, seen: Observation) -> Judged {
        self.judge_beside(check, seen, None)
    }

    /// Judges one observation, beside the runs of its canary where it has one.
    fn judge_beside(&self, check: &Check, seen: Observation, canary: Option<&Timeline>) -> Judged {
        let decoys = self.decoys.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = decoys.unmask(seen);
        let testimony = |witness: &Witness| {
            let around = |timeline: &Timeline| timeline.around(&seen, self.plan.witness_window, &decoys);
            let each = witness.numbers.iter().filter_map(|number| Some(self.runners.get(*number)?.read(around)));
            (witness.name.clone(), each.reduce(any).unwrap_or(Err(Lapse::NoneBefore)))
        };
        let mut witnesses: Vec<Testimony> = check.witnesses.iter().map(testimony).collect();
        witnesses.extend(canary.and_then(|canary| sweep::testimony(check, canary, &seen, self.plan.witness_window, &decoys)));
        let claim = check.claim(&seen.subject);
        judge(seen, claim, witnesses)
    }

    /// Shows an open door before the rest of the run is done.
    async fn announce(&self, number: usize, check: &Check, seen: Observation, began: Began) {
        let inverted = check.expectation.is_inverted();
        let settled = self.reads_as(check, &seen) == Reading::Contrary;
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
            memory.learn(&judged, one.verdict.clone(), inverted, began.wall, Moment::now());
            let record = scribe::record(check, &self.plan, &judged, fold(&judged, 1), Vec::new(), &memory, began);
            self.board.announce(number, record);
        }
    }

    /// Folds what was judged, remembers what it teaches, and shows the record to everybody.
    fn record(&self, number: usize, check: &Check, judged: Vec<Judged>, planned: usize, began: Began) {
        let mut folded = fold(&judged, planned);
        let inverted = check.expectation.is_inverted();
        let (memory, changed) = self.with_memory(number, |memory| {
            let (verdict, changed) = memory.learn(&judged, folded.verdict.clone(), inverted, began.wall, Moment::now());
            folded.verdict = verdict;
            (memory.clone(), changed)
        });
        let coverage = self.with_coverage(number, Option::take);
        let record = Record { coverage, ..scribe::record(check, &self.plan, &judged, folded, changed, &memory, began) };
        if let Some(state) = &self.state {
            state.remember(&check.name, &shown_target(&self.plan, check), &memory);
        }
        self.listener.finished(&record);
        self.board.publish(number, record);
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
    fn judge_partial(&self, number: usize, check: &Check) -> Vec<Judged> {
        let seen = self.with_partial(number, std::mem::take);
        let judge = |seen: Observation| {
            let must_be_closed = check.demand(&seen.subject).is_inverted();
            let judged = self.judge_one(check, seen);
            match &check.open {
                None => judged.cut_short(),
                // The canary of a sweep sings for that sweep alone, and went with it.
                Some(_) if must_be_closed => judged.unheard(),
                // A port that must be open is, or is not, whatever becomes of the rest.
                Some(_) => judged,
            }
        };
        seen.into_iter().map(judge).collect()
    }

    fn with_partial<T>(&self, number: usize, change: impl FnOnce(&mut Vec<Observation>) -> T) -> T {
        match self.partial.get(number) {
            Some(partial) => change(&mut partial.lock().unwrap_or_else(PoisonError::into_inner)),
            None => change(&mut Vec::new()),
        }
    }

    fn with_coverage<T>(&self, number: usize, change: impl FnOnce(&mut Option<Coverage>) -> T) -> T {
        match self.coverage.get(number) {
            Some(coverage) => change(&mut coverage.lock().unwrap_or_else(PoisonError::into_inner)),
            None => change(&mut None),
        }
    }

    fn with_memory<T>(&self, number: usize, change: impl FnOnce(&mut Memory) -> T) -> T {
        match self.memories.get(number) {
            Some(memory) => change(&mut memory.lock().unwrap_or_else(PoisonError::into_inner)),
            None => change(&mut Memory::default()),
        }
    }
}

/// What two targets of one witness say together: one that got through is enough.
fn any(one: Result<Proven, Lapse>, other: Result<Proven, Lapse>) -> Result<Proven, Lapse> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(one.and(&other)),
        (Ok(proven), Err(_)) | (Err(_), Ok(proven)) => Ok(proven),
        (Err(lapse), Err(_)) => Err(lapse),
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

impl Began {
    fn now() -> Began {
        Began { at: Moment::now(), wall: Wall::now() }
    }
}

/// A run that panicked, as an observation of ours.
fn bug(check: &Check, what: &str, began: Began) -> Judged {
    let subject = look::nowhere(check.target.clone());
    let seen = Observation::without_attempt(subject, Outcome::Internal, Stage::Dns, what.to_string(), began.at, began.wall);
    let claim = check.claim(&seen.subject);
    judge(seen, claim, Vec::new())
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

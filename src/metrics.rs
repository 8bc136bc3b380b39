//! Metrics: every name, help and label that `/metrics` shows, in one file. Records in, text out (SPEC section 7).
//!
//! What a record says is computed when it is scraped, from the board, so that a wedged engine leaves nothing green behind
//! and a removed check leaves no series. Only what adds up over runs is kept here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntGauge, Registry, TextEncoder};

use crate::clock::{Moment, Wall};
use crate::defence::{Log, Word};
use crate::history::{Board, Reading};
use crate::observation::{Class, Outcome, Stage};
use crate::record::{About, Record, Seen};
use crate::report::{Drilled, Finding};
use crate::verdict::Verdict;
use crate::witness::Proof;

pub mod openmetrics;
pub mod remote_write;

/// What [`Metrics::text`] is (Prometheus exposition format 0.0.4).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Labels that no check may give itself: those of our own, and those that Datadog reserves.
const TAKEN_LABELS: [&str; 10] = ["vantage", "check", "kind", "target", "expect", "severity", "host", "env", "service", "cluster"];

/// Bounds of the histograms, in seconds. None is a whole number: `le="1"` and `le="1.0"` are one to some readers and two to
/// others. A time-out of 5, 10 or 30 s falls into a bucket of its own, just past it.
const BUCKETS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 2.5, 5.5, 10.5, 30.5];

/// One metric: its name, its help, its type.
struct Family(&'static str, &'static str, MetricType);

use MetricType::{COUNTER, GAUGE, HISTOGRAM};

const VERDICT: Family =
    Family("mustnot_check_verdict", "The check's verdict as judged at this scrape: 1 for the present one, 0 for the others.", GAUGE);
const CAUSE: Family = Family("mustnot_check_cause", "Why the verdict is what it is; the present cause only.", GAUGE);
const PROOF: Family = Family("mustnot_check_proof", "Whether the last run has this proof; 0 once it is stale.", GAUGE);
const INFO: Family = Family("mustnot_check_info", "What the check is about, with its own labels.", GAUGE);
const RUNS: Family = Family("mustnot_check_runs_total", "Finished runs, by verdict.", COUNTER);
const DURATION: Family = Family("mustnot_check_duration_seconds", "How long the last run took.", GAUGE);
const STALE_AFTER: Family = Family("mustnot_check_stale_after_seconds", "How old a run may grow before the verdict is unproven.", GAUGE);
const LAST_RUN: Family = Family("mustnot_check_last_run_timestamp_seconds", "When the last run started.", GAUGE);
const LAST_HOLDS: Family = Family("mustnot_check_last_holds_timestamp_seconds", "When the last run that held started.", GAUGE);
const OUTCOMES: Family = Family("mustnot_probe_outcomes_total", "Attempts, by outcome and by how deep the observation got.", COUNTER);
const PROBE_DURATION: Family = Family("mustnot_probe_duration_seconds", "Time of the attempt that decided an observation.", HISTOGRAM);
const DENIAL_CHANGED: Family =
    Family("mustnot_denial_changed_total", "Addresses still blocked, but by other means than in the run before.", COUNTER);
const EVIDENCE: Family = Family(
    "mustnot_evidence_matched_total",
    "What the logs of the defences said of this check's attempts, by what that comes to.",
    COUNTER,
);
const CONTRADICTED: Family = Family(
    "mustnot_evidence_contradicted_timestamp_seconds",
    "When the log of a defence last told that what was judged to be blocked had been let in; absent where none does.",
    GAUGE,
);
const EVIDENCE_LINES: Family = Family("mustnot_evidence_lines_total", "Lines of the logs that are followed, by what they were.", COUNTER);
const EVIDENCE_LOST: Family =
    Family("mustnot_evidence_lost_total", "Attempts and records that no log can be matched with any more, for want of room.", COUNTER);
const WITNESS_UP: Family = Family("mustnot_witness_up", "Whether the witness's last run got through.", GAUGE);
const EXCEPTED: Family = Family("mustnot_check_excepted", "Whether an exception of the check is in force at this scrape.", GAUGE);
const EXCEPTION: Family = Family(
    "mustnot_exception_until_timestamp_seconds",
    "When the exception of the check ends, or ended; with who answers for it, and why.",
    GAUGE,
);
const CERTIFICATE: Family =
    Family("mustnot_tls_certificate_expiry_timestamp_seconds", "When the first of the certificates seen in the last run expires.", GAUGE);
const TECHNIQUE: Family =
    Family("mustnot_open_proxy_technique", "Whether the technique got through; its worst present outcome only.", GAUGE);
const VIA_OVERHEAD: Family =
    Family("mustnot_via_overhead_seconds", "How much longer the answer took by the proxy than by the direct way.", GAUGE);
const DRILL_SUCCESS: Family =
    Family("mustnot_drill_last_success_timestamp_seconds", "When a drill last showed that this kind sees a breach.", GAUGE);
const DRILL_DETECTION: Family =
    Family("mustnot_drill_detection_seconds", "How long the last drill's open twin took to be seen; absent while it is not.", GAUGE);
const DRILL_OK: Family = Family(
    "mustnot_drill_last_successful",
    "Whether the last drill of this kind saw all; 0 where it is blind, or could not be drilled.",
    GAUGE,
);
const DRILL_INTERVAL: Family = Family("mustnot_drill_interval_seconds", "How often this kind is drilled.", GAUGE);
const LAG: Family = Family("mustnot_scheduler_lag_seconds", "How much later than planned runs started.", HISTOGRAM);
const IN_FLIGHT: Family = Family("mustnot_probes_in_flight", "Probes under way.", GAUGE);
const CHECKS: Family = Family("mustnot_checks", "Checks in the configuration, one a target.", GAUGE);
const RELOAD_OK: Family =
    Family("mustnot_config_last_reload_successful", "Whether the last configuration that was read is in force.", GAUGE);
const RELOADED_AT: Family =
    Family("mustnot_config_last_reload_success_timestamp_seconds", "When the configuration in force was read.", GAUGE);
const ALERTS_SENT: Family =
    Family("mustnot_alerts_sent_total", "Messages that the sink has taken: alerts opened, repeated or resolved, and heartbeats.", COUNTER);
const ALERTS_FAILED: Family =
    Family("mustnot_alerts_failed_total", "Requests to the sink that failed, each try; what they were to tell is tried again.", COUNTER);
const BUILD: Family = Family("mustnot_build_info", "What this program is.", GAUGE);
const PROBE_SUCCESS: Family = Family("probe_success", "Whether the target is as it must be, with every proof.", GAUGE);
const PROBE_UNPROVEN: Family = Family("probe_unproven", "Whether nothing was proven, either way.", GAUGE);
const PROBE_TOOK: Family = Family("probe_duration_seconds", "How long the probe took.", GAUGE);
const PUSHED_AT: Family = Family("mustnot_push_timestamp_seconds", "When the metrics of a run were pushed.", GAUGE);
const PUSHED_EVERY: Family = Family("mustnot_push_interval_seconds", "How often there is a run whose metrics are pushed.", GAUGE);
const FD_USED: Family = Family("mustnot_fd_used", "File descriptors in use.", GAUGE);
const FD_LIMIT: Family = Family("mustnot_fd_limit", "File descriptors that may be in use.", GAUGE);

/// The quickest answer of the last run, by a proxy or by the direct way, in milliseconds; none where there is no fresh one.
fn quickest(reading: &Reading, by_proxy: bool) -> Option<f64> {
    let answers = reading.record.observations.iter().filter(|o| o.stage == Stage::Http && o.evidence.via.is_some() == by_proxy);
    answers.map(|o| o.elapsed_ms).reduce(f64::min).filter(|_| reading.fresh)
}

/// The quickest direct answer of each target, over all its checks. Once a scrape, since every check that has a proxy asks for one.
fn quickest_direct(readings: &[Reading]) -> HashMap<&str, f64> {
    let mut direct: HashMap<&str, f64> = HashMap::new();
    for (reading, ms) in readings.iter().filter_map(|reading| Some((reading, quickest(reading, false)?))) {
        let least = direct.entry(&reading.about.target).or_insert(ms);
        *least = least.min(ms);
    }
    direct
}

/// How much longer an answer took by the proxy of this check than by the direct way, in seconds: the quickest answers of either last run,
/// the direct one of a check with the very same target. None, where one of the two is not known.
fn overhead(by_proxy: &Reading, direct: &HashMap<&str, f64>) -> Option<f64> {
    Some((quickest(by_proxy, true)? - direct.get(by_proxy.about.target.as_str())?) / 1000.0)
}

/// Metrics of one run that somebody has asked for: what adds up over runs says nothing of it, nor does how long it is good for.
#[derive(Debug)]
pub struct Probed {
    /// Where the monitor stands.
    pub vantage: String,
    /// The board with the one record.
    pub board: Arc<Board>,
    /// How long it took, from the question to the answer.
    pub took: Duration,
}

impl Probed {
    /// Everything, sorted by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let readings = self.board.read(Moment::now());
        let every = |token: &str| flag(!readings.is_empty() && readings.iter().all(|r| r.record.verdict.token() == token));
        let some = |token: &str| flag(readings.is_empty() || readings.iter().any(|r| r.record.verdict.token() == token));
        let mut families = of_one_run(&self.vantage, &readings);
        let values = [(&PROBE_SUCCESS, every("holds")), (&PROBE_UNPROVEN, some("unproven")), (&PROBE_TOOK, self.took.as_secs_f64())];
        families.extend(values.map(|(family, value)| one(family, &self.vantage, value)));
        families.sort_by(|a, b| a.name().cmp(b.name()));
        families
    }
}

/// Metrics of a run that is over, to be sent to who cannot scrape.
#[derive(Debug)]
pub struct Pushed {
    /// Where the run was.
    pub vantage: String,
    /// The board with its records.
    pub board: Arc<Board>,
    /// How often there is a run, where that is known.
    pub every: Option<Duration>,
}

impl Pushed {
    /// Everything, sorted by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut families = of_one_run(&self.vantage, &self.board.read(Moment::now()));
        families.push(one(&PUSHED_AT, &self.vantage, Wall::now().unix_seconds()));
        families.extend(self.every.map(|every| one(&PUSHED_EVERY, &self.vantage, every.as_secs_f64())));
        families.sort_by(|a, b| a.name().cmp(b.name()));
        families
    }
}

/// What the board says, less what is true only of a check that runs again by itself.
fn of_one_run(vantage: &str, readings: &[Reading]) -> Vec<MetricFamily> {
    let mut families = of_checks(vantage, readings);
    families.retain(|family| !family.get_metric().is_empty() && family.name() != STALE_AFTER.0);
    families
}

fn one(family: &'static Family, vantage: &str, value: f64) -> MetricFamily {
    let mut series = Series { family, vantage, metrics: Vec::new() };
    series.add(value, &[]);
    series.done()
}

/// The families as [`CONTENT_TYPE`].
///
/// # Errors
/// Where a family cannot be written.
pub fn text_of(families: &[MetricFamily]) -> Result<String, String> {
    TextEncoder::new().encode_to_string(families).map_err(|e| format!("cannot write the metrics: {e}"))
}

/// The counters that outlive a run, and the way to scrape them with all that the board says.
#[derive(Debug)]
pub struct Metrics {
    vantage: String,
    board: Arc<Board>,
    registry: Registry,
    tallies: Mutex<HashMap<Key, Tally>>,
    witnesses: Mutex<BTreeMap<Key, bool>>,
    probe_duration: HistogramVec,
    lag: Histogram,
    in_flight: IntGauge,
    reload: RwLock<Reload>,
    drills: Mutex<BTreeMap<&'static str, Drill>>,
    started: Wall,
    sinks: Mutex<BTreeMap<String, Told>>,
    logs: Mutex<Option<Logs>>,
}

/// What was read of the logs of the defences.
#[derive(Debug, Clone, Default)]
struct Logs {
    lines: BTreeMap<&'static str, u64>,
    lost: u64,
}

/// What the drills of one kind have shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Drill {
    /// How often it is drilled, if it is.
    pub interval: Option<Duration>,
    /// Whether the last drill saw all.
    pub saw: Option<bool>,
    /// When a drill last did.
    pub last_success: Option<Wall>,
    /// How long the last one took to see the open twin.
    pub detection: Option<Duration>,
}

/// What became of the last configuration that was read.
#[derive(Debug, Clone, Copy)]
struct Reload {
    in_force: bool,
    configured_at: Wall,
}

/// What one sink of alerts was told, and how often that failed.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    sent: u64,
    failed: u64,
    /// Since when it has taken nothing, and what it was told has failed.
    failing: Option<Moment>,
}

/// What is true of the whole program at one look: what `/metrics` shows, and what alerts are made from.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// Every witness that has run, and whether it got through.
    pub witnesses: BTreeMap<String, bool>,
    /// Every kind that is drilled.
    pub drills: BTreeMap<&'static str, Drill>,
    /// When the program started; none where nobody has.
    pub started: Option<Wall>,
    /// The configuration that was read last is not the one in force.
    pub reload_failed: bool,
    /// When the configuration in force was read.
    pub configured_at: Option<Wall>,
    /// File descriptors in use.
    pub fd_used: Option<f64>,
    /// File descriptors that may be in use.
    pub fd_limit: Option<f64>,
    /// What the proxy has sent, in shares of its budget.
    pub budget_ratio: Option<f64>,
    /// The proxy is stopping.
    pub draining: bool,
    /// Clients that the proxy has turned away because it was full.
    pub turned_away: f64,
    /// By check and target: when the run was in which a log let in what was judged to be blocked.
    pub contradicted: BTreeMap<(String, String), Wall>,
    /// Every sink of alerts, and since when it has taken nothing of what it was told; none where it does.
    pub sinks: BTreeMap<String, Option<Moment>>,
}

/// A check's name and target.
type Key = (String, String);

/// What adds up over the runs of one check on one target. Bounded by the closed set of outcomes.
#[derive(Debug, Clone, Default)]
struct Tally {
    runs: BTreeMap<&'static str, u64>,
    outcomes: BTreeMap<(Outcome, Stage), u64>,
    denial_changed: u64,
    evidence: BTreeMap<(Log, Word), u64>,
    contradicted: Option<Wall>,
}

impl Metrics {
    /// Metrics of the checks on this board, with `vantage` on every series.
    ///
    /// # Errors
    /// Where two metrics have one name: a bug of ours.
    pub fn new(vantage: &str, board: Arc<Board>) -> Result<Metrics, String> {
        let bug = |e: prometheus::Error| format!("cannot set up the metrics: {e}; this is a bug, please report it");
        let constant = HashMap::from([("vantage".to_owned(), vantage.to_owned())]);
        let registry = Registry::new_custom(None, Some(constant)).map_err(bug)?;
        let options = |f: &Family| HistogramOpts::new(f.0, f.1).buckets(BUCKETS.to_vec());
        let probe_duration = HistogramVec::new(options(&PROBE_DURATION), &["kind", "stage"]).map_err(bug)?;
        let lag = Histogram::with_opts(options(&LAG)).map_err(bug)?;
        let in_flight = IntGauge::new(IN_FLIGHT.0, IN_FLIGHT.1).map_err(bug)?;
        let collectors: [Box<dyn Collector>; 4] =
            [Box::new(probe_duration.clone()), Box::new(lag.clone()), Box::new(in_flight.clone()), Box::new(ProcessCollector::for_self())];
        for collector in collectors {
            registry.register(collector).map_err(bug)?;
        }
        Ok(Metrics {
            vantage: vantage.to_owned(),
            board,
            registry,
            tallies: Mutex::default(),
            witnesses: Mutex::default(),
            probe_duration,
            lag,
            in_flight,
            drills: Mutex::default(),
            logs: Mutex::default(),
            started: Wall::now(),
            sinks: Mutex::default(),
            reload: RwLock::new(Reload { in_force: true, configured_at: Wall::now() }),
        })
    }

    /// Counts a finished run; once for each record that is published.
    pub fn observe(&self, record: &Record) {
        for seen in &record.observations {
            let elapsed = (seen.elapsed_ms / 1000.0).max(0.0);
            self.probe_duration.with_label_values(&[record.about.kind, &seen.stage.to_string()]).observe(elapsed);
        }
        let changed = u64::try_from(record.denial_changed.len()).unwrap_or(u64::MAX);
        let mut tallies = lock(&self.tallies);
        let tally = tallies.entry(key(&record.about)).or_default();
        *tally.runs.entry(record.verdict.token()).or_default() += 1;
        tally.denial_changed = tally.denial_changed.saturating_add(changed);
        for seen in &record.observations {
            for (outcome, times) in attempts(seen) {
                *tally.outcomes.entry((outcome, seen.stage)).or_default() += times;
            }
        }
    }

    /// Says which kinds are drilled, and how often; before the first drill, so that one that never ends is seen too.
    pub fn drills_every(&self, kinds: impl IntoIterator<Item = &'static str>, interval: Duration) {
        let mut drills = lock(&self.drills);
        kinds.into_iter().for_each(|kind| drills.entry(kind).or_default().interval = Some(interval));
    }

    /// Takes note of a drill.
    pub fn drilled(&self, drilled: &Drilled) {
        let mut drills = lock(&self.drills);
        let drill = drills.entry(drilled.kind).or_default();
        drill.detection = drilled.detection;
        drill.saw = Some(drilled.finding == Finding::Saw);
        if drill.saw == Some(true) {
            drill.last_success = Some(Wall::now());
        }
    }

    /// Counts lines of logs, by what they were; the first time at the start, so that a log of which nothing comes is seen too.
    pub fn evidence_lines(&self, lines: &[(&'static str, u64)]) {
        let mut logs = lock(&self.logs);
        let logs = logs.get_or_insert_default();
        lines.iter().for_each(|(what, times)| *logs.lines.entry(what).or_default() += times);
    }

    /// Counts attempts and records that could not be kept for the logs.
    pub fn evidence_lost(&self, times: u64) {
        lock(&self.logs).get_or_insert_default().lost += times;
    }

    /// Counts one thing that a log said of an attempt.
    pub fn evidence_matched(&self, check: &str, target: &str, log: Log, word: Word) {
        let mut tallies = lock(&self.tallies);
        let tally = tallies.entry((check.to_string(), target.to_string())).or_default();
        *tally.evidence.entry((log, word)).or_default() += 1;
    }

    /// Says when a log was last found to contradict the check; none where none does any more.
    pub fn evidence_contradicts(&self, check: &str, target: &str, when: Option<Wall>) {
        lock(&self.tallies).entry((check.to_string(), target.to_string())).or_default().contradicted = when;
    }

    /// Says how much later than planned a run started.
    pub fn scheduler_lag(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }

    /// The gauge of probes under way; clones of it are the same gauge.
    pub fn probes_in_flight(&self) -> IntGauge {
        self.in_flight.clone()
    }

    /// Says whether a witness's last run got through.
    pub fn witness_up(&self, name: &str, target: &str, up: bool) {
        lock(&self.witnesses).insert((name.to_owned(), target.to_owned()), up);
    }

    /// Says which sinks there are: those that stay keep their counters, the others begin at 0.
    pub fn alerts_go_to<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut sinks = lock(&self.sinks);
        let told = names.into_iter().map(|name| (name.to_owned(), sinks.get(name).copied().unwrap_or_default())).collect();
        *sinks = told;
    }

    /// A sink has taken so many messages.
    pub fn alerts_sent(&self, sink: &str, messages: usize) {
        let messages = u64::try_from(messages).unwrap_or(u64::MAX);
        let mut sinks = lock(&self.sinks);
        let told = sinks.entry(sink.to_owned()).or_default();
        (told.sent, told.failing) = (told.sent + messages, None);
    }

    /// A request to a sink failed.
    pub fn alerts_failed(&self, sink: &str) {
        let mut sinks = lock(&self.sinks);
        let told = sinks.entry(sink.to_owned()).or_default();
        told.failed += 1;
        told.failing.get_or_insert_with(Moment::now);
    }

    /// What is true of the whole program now. It counts the file descriptors, so it is not for every moment.
    pub fn program(&self) -> Program {
        self.program_beside(&self.registry.gather())
    }

    /// The same, beside what the neighbours have registered.
    fn program_beside(&self, neighbours: &[MetricFamily]) -> Program {
        let mut witnesses: BTreeMap<String, bool> = BTreeMap::new();
        // Of a witness with many targets any one will do.
        for ((name, _), up) in lock(&self.witnesses).iter() {
            *witnesses.entry(name.clone()).or_default() |= *up;
        }
        let fd_limit = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft as f64);
        let reload = *self.reload.read().unwrap_or_else(PoisonError::into_inner);
        let of = |name: &str| neighbours.iter().find(|family| family.name() == name);
        let gauge = |name: &str| of(name)?.get_metric().first().map(|metric| metric.get_gauge().get_value());
        let full = |metric: &&proto::Metric| metric.get_label().iter().any(|label| label.name() == "reason" && label.value() == "limit");
        let refused = of("mustnot_proxy_requests_total").map_or(&[][..], MetricFamily::get_metric);
        Program {
            witnesses,
            drills: lock(&self.drills).clone(),
            started: Some(self.started),
            reload_failed: !reload.in_force,
            configured_at: Some(reload.configured_at),
            fd_used: fd_used(fd_limit),
            fd_limit,
            budget_ratio: gauge("mustnot_proxy_budget_ratio"),
            draining: gauge("mustnot_proxy_draining").is_some_and(|value| value == 1.0),
            turned_away: refused.iter().filter(full).map(|metric| metric.get_counter().get_value()).sum(),
            contradicted: lock(&self.tallies).iter().filter_map(|(key, tally)| Some((key.clone(), tally.contradicted?))).collect(),
            sinks: lock(&self.sinks).iter().map(|(name, told)| (name.clone(), told.failing)).collect(),
        }
    }

    /// Another configuration is in force: what stayed keeps its counters, what is gone from the board leaves no series.
    pub fn reloaded(&self) {
        let kept: BTreeSet<Key> = self.board.read(Moment::now()).iter().map(|r| key(&r.about)).collect();
        lock(&self.tallies).retain(|key, _| kept.contains(key));
        lock(&self.witnesses).retain(|key, _| kept.contains(key));
        *self.reload.write().unwrap_or_else(PoisonError::into_inner) = Reload { in_force: true, configured_at: Wall::now() };
    }

    /// What was read is wrong; what was in force before still is.
    pub fn reload_failed(&self) {
        self.reload.write().unwrap_or_else(PoisonError::into_inner).in_force = false;
    }

    /// Where others register metrics of their own, such as the embedded proxy; they get the `vantage` too.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything as of now, sorted by name; a metric without a series is left out.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let readings = self.board.read(Moment::now());
        let mut families = self.registry.gather();
        families.extend(self.of_checks(&readings));
        families.extend(self.of_counters(&readings));
        let program = self.program_beside(&families);
        families.extend(self.of_program(&readings, &program));
        families.retain(|f| !f.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        families
    }

    /// Everything as of now, as [`openmetrics::CONTENT_TYPE`].
    pub fn openmetrics(&self) -> String {
        openmetrics::encode(&self.gather())
    }

    /// Everything as of now, as [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// Where a registered collector gives what cannot be written.
    pub fn text(&self) -> Result<String, String> {
        text_of(&self.gather())
    }

    /// What the board says of every check.
    fn of_checks(&self, readings: &[Reading]) -> Vec<MetricFamily> {
        of_checks(&self.vantage, readings)
    }

    /// What adds up; from the first scrape, and for checks on the board only.
    fn of_counters(&self, readings: &[Reading]) -> Vec<MetricFamily> {
        let (mut runs, mut outcomes, mut changed) = (self.series(&RUNS), self.series(&OUTCOMES), self.series(&DENIAL_CHANGED));
        let (mut evidence, mut contradicted) = (self.series(&EVIDENCE), self.series(&CONTRADICTED));
        for reading in readings {
            let about = &reading.about;
            // One short lock a check, so that the engine never waits for a whole scrape.
            let tally = lock(&self.tallies).get(&key(about)).cloned().unwrap_or_default();
            let (check, target) = (("check", about.name.as_str()), ("target", about.target.as_str()));
            for token in Verdict::TOKENS {
                runs.add(tally.runs.get(token).copied().unwrap_or(0) as f64, &[check, target, ("verdict", token)]);
            }
            for ((outcome, stage), times) in &tally.outcomes {
                outcomes.add(*times as f64, &[check, target, ("outcome", &outcome.to_string()), ("stage", &stage.to_string())]);
            }
            changed.add(tally.denial_changed as f64, &[check, target]);
            for ((log, word), times) in &tally.evidence {
                evidence.add(*times as f64, &[check, target, ("log", log.token()), ("word", word.token())]);
            }
            tally.contradicted.iter().for_each(|when| contradicted.add(when.unix_seconds(), &[check, target]));
        }
        vec![runs.done(), outcomes.done(), changed.done(), evidence.done(), contradicted.done()]
    }

    /// What is true of the whole program.
    fn of_program(&self, readings: &[Reading], program: &Program) -> Vec<MetricFamily> {
        let one = |family, value: Option<f64>| {
            let mut series = self.series(family);
            value.iter().for_each(|v| series.add(*v, &[]));
            series.done()
        };
        let mut build = self.series(&BUILD);
        let rustversion = env!("MUSTNOT_RUSTC");
        build.add(1.0, &[("version", env!("CARGO_PKG_VERSION")), ("revision", env!("MUSTNOT_REVISION")), ("rustversion", rustversion)]);
        let mut witnesses = self.series(&WITNESS_UP);
        program.witnesses.iter().for_each(|(name, up)| witnesses.add(flag(*up), &[("witness", name)]));
        let (mut success, mut detection) = (self.series(&DRILL_SUCCESS), self.series(&DRILL_DETECTION));
        let (mut saw, mut interval) = (self.series(&DRILL_OK), self.series(&DRILL_INTERVAL));
        for (kind, drill) in &program.drills {
            drill.saw.iter().for_each(|all| saw.add(flag(*all), &[("kind", *kind)]));
            drill.interval.iter().for_each(|every| interval.add(every.as_secs_f64(), &[("kind", *kind)]));
            drill.last_success.iter().for_each(|at| success.add(at.unix_seconds(), &[("kind", *kind)]));
            drill.detection.iter().for_each(|took| detection.add(took.as_secs_f64(), &[("kind", *kind)]));
        }
        let (mut lines, logs) = (self.series(&EVIDENCE_LINES), lock(&self.logs).clone());
        for (what, times) in logs.iter().flat_map(|logs| &logs.lines) {
            lines.add(*times as f64, &[("line", what)]);
        }
        let (mut sent, mut failed) = (self.series(&ALERTS_SENT), self.series(&ALERTS_FAILED));
        for (sink, told) in lock(&self.sinks).iter() {
            sent.add(told.sent as f64, &[("sink", sink)]);
            failed.add(told.failed as f64, &[("sink", sink)]);
        }
        vec![
            build.done(),
            witnesses.done(),
            success.done(),
            detection.done(),
            saw.done(),
            interval.done(),
            lines.done(),
            one(&EVIDENCE_LOST, logs.map(|logs| logs.lost as f64)),
            sent.done(),
            failed.done(),
            one(&CHECKS, Some(readings.len() as f64)),
            one(&RELOAD_OK, Some(flag(!program.reload_failed))),
            one(&RELOADED_AT, program.configured_at.map(Wall::unix_seconds)),
            one(&FD_USED, program.fd_used),
            one(&FD_LIMIT, program.fd_limit),
        ]
    }

    fn series(&self, family: &'static Family) -> Series<'_> {
        Series { family, vantage: &self.vantage, metrics: Vec::new() }
    }
}

/// What the board says of every check.
fn of_checks(vantage: &str, readings: &[Reading]) -> Vec<MetricFamily> {
    let now = Wall::now();
    let each = |family, show: &dyn Fn(&Reading, &mut Series<'_>)| {
        let mut series = Series { family, vantage, metrics: Vec::new() };
        readings.iter().for_each(|r| show(r, &mut series));
        series.done()
    };
    let own_labels: BTreeSet<&str> =
        readings.iter().flat_map(|r| r.about.labels.keys()).map(String::as_str).filter(|l| is_usable_label(l)).collect();
    let direct = quickest_direct(readings);
    vec![
        each(&VERDICT, &|r, s| {
            let a = &r.about;
            for token in Verdict::TOKENS {
                let labels =
                    [("check", &*a.name), ("kind", a.kind), ("target", &a.target), ("severity", a.severity.token()), ("verdict", token)];
                s.add(flag(r.record.verdict.token() == token), &labels);
            }
        }),
        each(&CAUSE, &|r, s| {
            let cause = r.record.cause.to_string();
            s.add(1.0, &[("check", &r.about.name), ("target", &r.about.target), ("cause", &cause)]);
        }),
        each(&PROOF, &|r, s| {
            for proof in Proof::ALL {
                let labels = [("check", r.about.name.as_str()), ("target", &r.about.target), ("proof", proof.token())];
                s.add(flag(r.record.proofs.has(proof)), &labels);
            }
        }),
        each(&INFO, &|r, s| {
            let a = &r.about;
            let mut labels =
                vec![("check", &*a.name), ("kind", a.kind), ("target", &a.target), ("expect", &a.expect), ("severity", a.severity.token())];
            labels.extend(own_labels.iter().map(|l| (*l, a.labels.get(*l).map_or("", String::as_str))));
            s.add(1.0, &labels);
        }),
        each(&STALE_AFTER, &|r, s| s.add_of(&r.about, Some(r.about.stale_after.as_secs_f64()))),
        each(&DURATION, &|r, s| s.add_of(&r.about, r.ran.then(|| r.record.duration.as_secs_f64()))),
        each(&LAST_RUN, &|r, s| s.add_of(&r.about, r.ran.then(|| r.record.started_at.unix_seconds()))),
        each(&LAST_HOLDS, &|r, s| s.add_of(&r.about, r.last_holds.map(Wall::unix_seconds))),
        each(&EXCEPTED, &|r, s| s.add_of(&r.about, Some(flag(r.about.excepted(now).is_some())))),
        each(&EXCEPTION, &|r, s| {
            if let Some(exception) = &r.about.exception {
                let labels = [
                    ("check", r.about.name.as_str()),
                    ("target", &r.about.target),
                    ("owner", &exception.owner),
                    ("reason", &exception.reason),
                ];
                s.add(exception.until.end().unix_seconds(), &labels);
            }
        }),
        each(&CERTIFICATE, &|r, s| {
            s.add_of(&r.about, r.record.certificate_expires().map(|at| at as f64));
        }),
        each(&VIA_OVERHEAD, &|r, s| s.add_of(&r.about, overhead(r, &direct))),
        each(&TECHNIQUE, &techniques),
    ]
}

/// Whether a check's own label can be shown as one: a legal name (Prometheus data model) that is not taken.
/// A label that cannot is left out of `mustnot_check_info`; a configuration that has one should be refused.
pub fn is_usable_label(name: &str) -> bool {
    let legal = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !name.starts_with("__");
    legal && begins && !TAKEN_LABELS.contains(&name)
}

/// The series of one metric, while they are gathered.
struct Series<'a> {
    family: &'static Family,
    vantage: &'a str,
    metrics: Vec<proto::Metric>,
}

impl Series<'_> {
    /// A value with these labels, and the vantage.
    fn add(&mut self, value: f64, labels: &[(&str, &str)]) {
        let labels = labels.iter().copied().chain([("vantage", self.vantage)]).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        });
        let mut metric = proto::Metric::from_label(labels.collect());
        if self.family.2 == COUNTER {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// A value of a check on a target, where it has one.
    fn add_of(&mut self, about: &About, value: Option<f64>) {
        if let Some(value) = value {
            self.add(value, &[("check", &about.name), ("target", &about.target)]);
        }
    }

    fn done(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.family.0.to_owned());
        family.set_help(self.family.1.to_owned());
        family.set_field_type(self.family.2);
        family.set_metric(self.metrics);
        family
    }
}

/// One series a technique: a record has its worst observations first, so the first of each technique is its worst.
/// Nothing once it is stale: an old "did not get through" would be a green gauge left behind.
fn techniques(reading: &Reading, series: &mut Series<'_>) {
    let mut shown = BTreeSet::new();
    for seen in reading.record.observations.iter().filter(|_| reading.fresh) {
        let Some(technique) = seen.technique else { continue };
        if shown.insert(technique) {
            let (check, target) = (("check", reading.about.name.as_str()), ("target", reading.about.target.as_str()));
            let outcome = seen.outcome.to_string();
            series.add(flag(seen.outcome.class() == Class::Open), &[check, target, ("technique", technique), ("outcome", &outcome)]);
        }
    }
}

/// The outcome of every attempt: each where they differ, else the same so many times.
fn attempts(seen: &Seen) -> Vec<(Outcome, u64)> {
    match seen.attempt_outcomes.is_empty() {
        true => vec![(seen.outcome, u64::try_from(seen.attempts).unwrap_or(u64::MAX))],
        false => seen.attempt_outcomes.iter().map(|o| (*o, 1)).collect(),
    }
}

/// Open file descriptors, less the one that counts them (proc(5), `/proc/self/fd`). Where not even that one can be had,
/// all are in use.
fn fd_used(limit: Option<f64>) -> Option<f64> {
    match fs::read_dir("/proc/self/fd") {
        Ok(entries) => Some(entries.count().saturating_sub(1) as f64),
        Err(e) if e.raw_os_error() == Some(libc::EMFILE) => limit,
        Err(_) => None,
    }
}

fn flag(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

fn key(about: &About) -> Key {
    (about.name.clone(), about.target.clone())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bucket_bound_is_a_whole_number() {
        assert!(BUCKETS.iter().all(|b| b.fract() != 0.0));
        assert!(BUCKETS.is_sorted());
    }

    #[test]
    fn a_label_is_usable_on_one_side_of_the_border_only() {
        for good in ["team", "_team", "Team2"] {
            assert!(is_usable_label(good), "{good}");
        }
        for bad in ["", "2team", "te-am", "__team", "tëam", "host", "env", "vantage", "check"] {
            assert!(!is_usable_label(bad), "{bad}");
        }
    }
}

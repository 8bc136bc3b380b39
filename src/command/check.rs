//! `mustnot check`: the gate. One round, a report, an exit code.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::console::{Console, Show};
use super::evidence::gather;
use super::push::Push;
use super::services::Services;
use super::{expired, load, usage};
use crate::cli::{self, EXIT_NOTHING, EXIT_REPORT, EXIT_USAGE};
use crate::clock::{Moment, Wall};
use crate::drill::{drill, kinds_of};
use crate::engine::Engine;
use crate::history::Board;
use crate::metrics::Metrics;
use crate::plan::{Check, Keys, Loaded, Plan};
use crate::proxy::LogTarget;
use crate::record::Record;
use crate::report::{Conclusion, Format, Report, Style, write_report};
use crate::state::{NoState, State};
use crate::verdict::Verdict;

/// How long a settling gate rests between two tries.
const SETTLE_REST: Duration = Duration::from_secs(1);

/// How a gate runs, and where its report goes.
pub struct Gate<'a> {
    /// The numbers of the checks that are judged.
    pub selected: Vec<usize>,
    /// Whether their kinds are drilled first.
    pub drill: bool,
    /// Names of checks that may be unproven.
    pub allow_unproven: BTreeSet<String>,
    /// How many rounds.
    pub rounds: u32,
    /// Until when the violated and the unproven are tried again.
    pub settle: Option<Duration>,
    /// For the whole run.
    pub deadline: Option<Duration>,
    /// The form of the report.
    pub format: Format,
    /// Where the report goes; standard output by default.
    pub output: Option<&'a Path>,
    /// Where the metrics go besides.
    pub push: Option<Push>,
    /// Logs of the defences, and how long they are waited for.
    pub evidence: (Vec<PathBuf>, Duration),
    /// Other forms of it, and where they go.
    pub also: &'a [(Format, PathBuf)],
}

/// Runs the gate over the file.
pub async fn check(file: &Path, args: &cli::Check) -> u8 {
    let Ok((_, Loaded { mut plan, .. })) = load(file, Keys::Create) else { return EXIT_USAGE };
    if let Some(proxy) = plan.proxy.as_mut().filter(|p| p.access_log == LogTarget::Stdout) {
        // Standard output belongs to the report.
        proxy.access_log = LogTarget::Stderr;
    }
    let selected = match select(&plan.checks, &args.only) {
        Ok(selected) => selected,
        Err(Selection::Empty(what)) => {
            eprintln!("mustnot: {what}");
            return EXIT_NOTHING;
        }
        Err(Selection::Unknown(what)) => return usage(&what),
    };
    let chosen: Vec<&Check> = selected.iter().filter_map(|number| plan.checks.get(*number)).map(Arc::as_ref).collect();
    let over = expired(&plan, file, |exception| chosen.iter().any(|c| exception.covers(&c.name, &c.target)));
    if !over.is_empty() {
        over.iter().for_each(|line| eprintln!("{line}"));
        return usage("nothing was probed: no gate is passed on an exception that is over");
    }
    let mut allow_unproven = BTreeSet::new();
    for pattern in &args.allow_unproven {
        let matching: Vec<_> = plan.checks.iter().filter(|c| matches(c, pattern)).map(|c| c.name.clone()).collect();
        if matching.is_empty() {
            return usage(&format!("--allow-unproven {pattern} matches no check of {}; see `mustnot config check`", file.display()));
        }
        allow_unproven.extend(matching);
    }
    let push = match Push::of(&args.remote_write, &plan.vantage, |name| std::env::var(name).ok()) {
        Ok(push) => push,
        Err(why) => return usage(&why),
    };
    let gate = Gate {
        selected,
        drill: args.drill,
        allow_unproven,
        rounds: args.rounds,
        settle: args.settle,
        deadline: args.deadline,
        format: args.format,
        output: args.output.as_deref(),
        push,
        evidence: (args.evidence.clone(), args.evidence_wait),
        also: &args.also,
    };
    pass(Arc::new(plan), gate).await
}

/// Runs the gate's checks, writes the report and gives the exit code.
pub async fn pass(plan: Arc<Plan>, gate: Gate<'_>) -> u8 {
    crate::net::raise_descriptor_limit();
    let (began, started_at) = (Moment::now(), Wall::now());
    let deadline = gate.deadline.map(|d| Instant::now() + d);
    let state = match plan.state_dir.as_deref().map(State::open).transpose() {
        Ok(state) => state,
        Err(NoState::Broken(why)) => return usage(&why),
        Err(NoState::Held(why)) => {
            // A monitor that runs beside the gate holds the state; the gate judges what it sees itself.
            eprintln!("mustnot: going on without memory of earlier runs: {why}");
            None
        }
    };
    let drills = if gate.drill { drill(&kinds_of(&plan, &gate.selected), deadline).await } else { Vec::new() };
    let board = Arc::new(Board::new(Engine::about(&plan)));
    let metrics = match Metrics::new(&plan.vantage, Arc::clone(&board)) {
        Ok(metrics) => Arc::new(metrics),
        Err(why) => return usage(&why),
    };
    let services = Services::start(&plan).await;
    for why in &services.failed {
        eprintln!("mustnot: not started for this run ({why}); what is there already is probed");
    }
    let console = Arc::new(Console::new(metrics, Show::Progress(gate.selected.len())));
    let engine = Engine::new(Arc::clone(&plan), board, console, state);
    let mut records = rounds(&engine, &gate, deadline).await;
    services.stop(Duration::from_secs(1)).await;
    Console::clear_progress();
    if !gate.evidence.0.is_empty() {
        let settings = plan.evidence.as_ref().map(|evidence| evidence.settings.clone()).unwrap_or_default();
        let (paths, wait) = gate.evidence.clone();
        let wait = deadline.map_or(wait, |deadline| deadline.saturating_duration_since(Instant::now()).min(wait));
        let (joined, complaints) = gather(records, paths, settings, wait).await;
        records = joined;
        complaints.iter().for_each(|why| eprintln!("mustnot: {why}"));
    }

    let (duration, as_of) = (Moment::now().since(began), Wall::now());
    let report = Report { vantage: plan.vantage.clone(), started_at, duration, as_of, records, drills };
    let colour = gate.output.is_none() && std::io::stdout().is_terminal();
    let rendered = |format: Format, colour| format.render(&report, &Style { colour, allow_unproven: gate.allow_unproven.clone() });
    let text = rendered(gate.format, colour);
    let written = match gate.output {
        Some(path) => write_report(path, &text),
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .map_err(|e| format!("cannot write the report to standard output: {e}"))
        }
    };
    // Whatever becomes of one of them, the others are written, and pushed.
    let also = gate.also.iter().map(|(format, path)| write_report(path, &rendered(*format, false)));
    let mut results: Vec<Result<(), String>> = std::iter::once(written).chain(also).collect();
    if let Some(push) = &gate.push {
        results.push(push.send(&push.of_run(&report)).await);
    }
    let failed: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    failed.iter().for_each(|why| eprintln!("mustnot: {why}"));
    match report.conclusion(&gate.allow_unproven) {
        // Where the report is lost, the exit code is all that is left to say so.
        conclusion @ (Conclusion::Violated | Conclusion::Blind) => conclusion.exit_code(),
        conclusion if failed.is_empty() => conclusion.exit_code(),
        _ => EXIT_REPORT,
    }
}

/// Every round, each settled; the worst record of each check.
async fn rounds(engine: &Arc<Engine>, gate: &Gate<'_>, deadline: Option<Instant>) -> Vec<Record> {
    let settled_by = gate.settle.map(|s| Instant::now() + s);
    let mut worst: Vec<Record> = Vec::new();
    for _ in 0..gate.rounds {
        engine.round(&gate.selected, deadline).await;
        if let Some(until) = settled_by {
            settle(engine, gate, until, deadline).await;
        }
        let records = newest(engine, &gate.selected);
        if worst.is_empty() {
            worst = records;
            continue;
        }
        for (kept, new) in worst.iter_mut().zip(records) {
            if new.verdict.rank() >= kept.verdict.rank() {
                *kept = new;
            }
        }
    }
    worst
}

/// Tries what does not hold again, until it does or the time is up.
async fn settle(engine: &Arc<Engine>, gate: &Gate<'_>, until: Instant, deadline: Option<Instant>) {
    loop {
        let again: Vec<usize> = gate
            .selected
            .iter()
            .zip(newest(engine, &gate.selected))
            .filter(|(_, r)| !matches!(r.verdict, Verdict::Holds(_)))
            .map(|(n, _)| *n)
            .collect();
        let over = Instant::now() + SETTLE_REST >= deadline.map_or(until, |d| d.min(until));
        if again.is_empty() || over {
            return;
        }
        tokio::time::sleep(SETTLE_REST).await;
        engine.round(&again, deadline).await;
    }
}

fn newest(engine: &Engine, selected: &[usize]) -> Vec<Record> {
    let readings = engine.board().read(Moment::now());
    selected.iter().filter_map(|number| readings.get(*number)).map(|r| r.record.as_ref().clone()).collect()
}

enum Selection {
    /// Nothing at all is selected.
    Empty(String),
    /// One of the patterns selects nothing, so less would be judged than was asked for.
    Unknown(String),
}

/// The numbers of the checks that `only` names; all where it names none.
fn select(checks: &[Arc<Check>], only: &[String]) -> Result<Vec<usize>, Selection> {
    let selected: Vec<usize> =
        (0..checks.len()).filter(|n| only.is_empty() || checks.get(*n).is_some_and(|c| only.iter().any(|p| matches(c, p)))).collect();
    if selected.is_empty() {
        let what =
            if only.is_empty() { "the configuration has no check".into() } else { format!("no check matches --only {}", only.join(", ")) };
        return Err(Selection::Empty(what));
    }
    match only.iter().find(|p| !checks.iter().any(|c| matches(c, p))) {
        Some(pattern) => Err(Selection::Unknown(format!("--only {pattern} matches no check; leave it out or correct it"))),
        None => Ok(selected),
    }
}

fn matches(check: &Check, pattern: &str) -> bool {
    match pattern.strip_prefix("tag:") {
        Some(tag) => check.tags.iter().any(|t| t == tag),
        None => check.name == pattern,
    }
}

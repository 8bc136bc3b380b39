//! Evidence: what the logs of the defences say, put to the records: of a gate once its rounds are over, of a monitor while it runs.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::console::say;
use crate::clock::{Moment, Wall};
use crate::defence::{Sighting, Word};
use crate::engine::Listener;
use crate::flowlog::follow::Follow;
use crate::flowlog::join::{Slim, Whose, join, keep};
use crate::flowlog::stream::{self, Piece};
use crate::flowlog::{Counts, Index, Lines, Settings};
use crate::history::Board;
use crate::metrics::Metrics;
use crate::plan::{LogEvidence, Plan};
use crate::record::{About, Record};
use crate::verdict::Verdict;

/// How often the logs are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Records that may wait to be taken up while a long log is read.
const MAX_WAITING: usize = 65_536;
/// The longest that lines are left alone, so that the run that they are about is over when they are read.
const MAX_LAG: Duration = Duration::from_secs(600);
/// Matches that are kept of one reading: whoever writes our nonce into a log a million times is not to fill our memory.
const MAX_FOUND: usize = 100_000;
/// What a run may take besides: to be judged and published.
const LAG_MARGIN: Duration = Duration::from_secs(2);

/// Reads logs once more each second until all attempts were found or the time is over, and joins what they say to the records. What could not be read.
pub async fn gather(records: Vec<Record>, paths: Vec<PathBuf>, settings: Settings, wait: Duration) -> (Vec<Record>, Vec<String>) {
    let until = Instant::now() + wait;
    let mut all = records;
    loop {
        let begun = Instant::now();
        let (paths, settings) = (paths.clone(), settings.clone());
        let done = tokio::task::spawn_blocking(move || once(all, &paths, settings)).await;
        let Ok((joined, missing, complaints)) = done else { return (Vec::new(), vec!["reading the logs failed".into()]) };
        all = joined;
        // Long logs are not read without a pause.
        let rest = begun.elapsed().max(LOOK);
        if missing == 0 || Instant::now() + rest >= until {
            return (all, complaints);
        }
        tokio::time::sleep(rest).await;
    }
}

/// One reading of all logs; how many observations that hold no log says anything of, and what could not be read.
fn once(mut records: Vec<Record>, paths: &[PathBuf], settings: Settings) -> (Vec<Record>, usize, Vec<String>) {
    let mut index = Index::new(settings);
    for (run, record) in records.iter().enumerate() {
        keep(&mut index, run as u64, record);
    }
    let mut found = Vec::new();
    let mut counts = Counts::default();
    let mut complaints = Vec::new();
    for path in stream::files(paths) {
        let mut lines = Lines::default();
        let result = stream::open(&path).and_then(|mut log| {
            stream::lines(&mut *log, true, |piece| match piece {
                Piece::Line(line) => lines.read(line, &index, &mut |whose, sighting| {
                    if found.len() < MAX_FOUND {
                        found.push((whose, sighting));
                    }
                }),
                Piece::TooLong => lines.counts.too_long += 1,
            })
        });
        if let Err(error) = result {
            complaints.push(format!("--evidence {}: {error}", path.display()));
        }
        counts.add(lines.counts);
    }
    complaints.extend(doubts(&counts));
    for (whose, sighting) in found {
        if let Some(record) = usize::try_from(whose.run).ok().and_then(|run| records.get_mut(run)) {
            join(record, whose, sighting);
        }
    }
    let silent = |record: &Record| {
        let unseen = record.observations.iter().filter(|seen| !seen.flows.is_empty() && seen.defence.is_empty());
        if matches!(record.verdict, Verdict::Holds(_)) { unseen.count() } else { 0 }
    };
    let missing = records.iter().map(silent).sum();
    (records, missing, complaints)
}

/// What is to be said of lines that told nothing, and might have.
pub fn doubts(counts: &Counts) -> Vec<String> {
    let many = |n: u64, one: &str, more: &str| format!("{n} {}", if n == 1 { one } else { more });
    let told = [
        (
            counts.unusable,
            "header of a flow log lacks",
            "headers of flow logs lack",
            "fields by which a probe is known (srcaddr, dstaddr, srcport, dstport, protocol, start, end, action)",
        ),
        (counts.skipped, "record says", "records say", "that AWS has lost others (SKIPDATA): what is not there may have been"),
        (counts.ambiguous, "line could be", "lines could be", "about several attempts, and so are about none"),
        (counts.too_long, "line was", "lines were", "too long to be read"),
        (
            counts.unreadable,
            "line is",
            "lines are",
            "of no log that is known here; a flow log with fields of your own and without a header wants --flow-format, or flow_format in [evidence]",
        ),
    ];
    told.into_iter().filter(|(n, ..)| *n > 0).map(|(n, one, more, what)| format!("{} {what}", many(n, one, more))).collect()
}

/// A listener that hands every record on to whoever reads the logs, too.
pub struct Witnessed<L> {
    /// Who else listens.
    pub listener: L,
    /// To the reader of the logs.
    pub records: SyncSender<Record>,
    /// Counts what is lost.
    pub metrics: Arc<Metrics>,
}

impl<L: Listener> Listener for Witnessed<L> {
    fn finished(&self, record: &Record) {
        self.listener.finished(record);
        if record.observations.iter().any(|seen| !seen.flows.is_empty())
            && let Err(TrySendError::Full(_)) = self.records.try_send(record.clone())
        {
            self.metrics.evidence_lost(1);
        }
    }

    fn witness(&self, name: &str, target: &str, up: bool) {
        self.listener.witness(name, target, up);
    }

    fn looking(&self, change: i64) {
        self.listener.looking(change);
    }

    fn lag(&self, by: Duration) {
        self.listener.lag(by);
    }
}

/// A channel for the records of a monitor.
pub fn channel() -> (SyncSender<Record>, Receiver<Record>) {
    sync_channel(MAX_WAITING)
}

/// Follows the logs until told to stop, on a thread of its own: nothing that reads a disk or a gigabyte is in anybody's way.
pub fn follow(
    evidence: &LogEvidence,
    plan: &Plan,
    records: Receiver<Record>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
) {
    let worst = plan.checks.iter().map(|check| check.worst_run).max().unwrap_or_default();
    let lag = (worst + LAG_MARGIN).min(MAX_LAG);
    let mut desk = Desk {
        index: Index::new(evidence.settings.clone()),
        keep: evidence.keep,
        runs: VecDeque::new(),
        first: 0,
        contradicted: BTreeMap::new(),
        board,
        metrics,
    };
    let mut follow = Follow::new(evidence.follow.clone(), lag);
    // Before anything is sent: what is there now is about nothing of ours.
    let nothing = follow.look(Instant::now(), |_, _| {});
    desk.metrics.evidence_lines(&nothing.named());
    std::thread::spawn(move || {
        loop {
            let over = *stop.borrow();
            let mut found = Vec::new();
            let mut lost = 0;
            let counts = follow.look(Instant::now(), |lines, line| {
                lines.read(line, &desk.index, &mut |whose, sighting| {
                    if found.len() < MAX_FOUND {
                        found.push((whose, sighting));
                    } else {
                        lost += 1;
                    }
                });
            });
            desk.metrics.evidence_lost(lost);
            desk.metrics.evidence_lines(&counts.named());
            found.into_iter().for_each(|(whose, sighting)| desk.join(whose, sighting));
            follow.complaints().iter().for_each(|why| tracing::warn!("[evidence] {why}"));
            if over {
                return;
            }
            match desk.take(&records) {
                RecvTimeoutError::Timeout => {}
                RecvTimeoutError::Disconnected => return,
            }
        }
    });
}

/// A run that may still be found.
struct Run {
    about: Arc<About>,
    began: Moment,
    slim: Slim,
}

/// What the thread that follows the logs knows.
struct Desk {
    index: Index<Whose>,
    keep: Duration,
    runs: VecDeque<Run>,
    /// The number of the oldest of them.
    first: u64,
    /// The runs whose record is contradicted now, by check and target.
    contradicted: BTreeMap<(String, String), Vec<u64>>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
}

impl Desk {
    /// Takes up records for as long as a look is away.
    fn take(&mut self, records: &Receiver<Record>) -> RecvTimeoutError {
        let until = Instant::now() + LOOK;
        let ended = loop {
            match records.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(record) => self.keep(&record),
                Err(ended) => break ended,
            }
        };
        let now = Wall::now();
        let keep = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
        if let Some(oldest) = Wall::from_unix_millis(now.unix_millis().saturating_sub(keep)) {
            self.index.forget_before(oldest);
        }
        let moment = Moment::now();
        while self.runs.front().is_some_and(|run| moment.since(run.began) > self.keep + MAX_LAG)
            || self.runs.len() > crate::flowlog::MAX_SHOTS
        {
            self.runs.pop_front();
            self.first += 1;
        }
        let first = self.first;
        let mut over = Vec::new();
        self.contradicted.retain(|key, runs| {
            runs.retain(|run| *run >= first);
            if runs.is_empty() {
                over.push(key.clone());
            }
            !runs.is_empty()
        });
        over.iter().for_each(|(check, target)| self.metrics.evidence_contradicts(check, target, None));
        self.metrics.evidence_lost(std::mem::take(&mut self.index.crowded_out));
        ended
    }

    fn keep(&mut self, record: &Record) {
        let number = self.first + self.runs.len() as u64;
        keep(&mut self.index, number, record);
        self.runs.push_back(Run { about: Arc::clone(&record.about), began: record.began, slim: Slim::of(record) });
    }

    fn join(&mut self, whose: Whose, sighting: Sighting) {
        let place = whose.run.checked_sub(self.first).and_then(|n| usize::try_from(n).ok());
        let Some(run) = place.and_then(|n| self.runs.get_mut(n)) else { return };
        let (log, word) = (sighting.log, sighting.word);
        // What was known already is no news.
        if !run.slim.add(whose, sighting.clone()) {
            return;
        }
        self.board.join(&run.about, run.began, |record| join(record, whose, sighting.clone()));
        let contradicted = run.slim.contradicted(&run.about.expect);
        let (check, target) = (&run.about.name, &run.about.target);
        self.metrics.evidence_matched(check, target, log, word);
        let key = (check.clone(), target.clone());
        let runs = self.contradicted.entry(key.clone()).or_default();
        let known = runs.contains(&whose.run);
        match &contradicted {
            Some(alarm) if !known => {
                if runs.is_empty() {
                    say(&format!("{}  contradicted  {check}: {alarm}", Wall::now()));
                    tracing::warn!(check, target, "contradicted by a log: {alarm}");
                }
                runs.push(whose.run);
            }
            None if known => runs.retain(|run| *run != whose.run),
            _ => {}
        }
        let newest = runs.iter().max().copied();
        if newest.is_none() {
            self.contradicted.remove(&key);
        }
        if newest.is_none() {
            self.metrics.evidence_contradicts(check, target, None);
        } else if contradicted.is_some() && word == Word::LetIn {
            self.metrics.evidence_contradicts(check, target, Some(Wall::now()));
        }
    }
}

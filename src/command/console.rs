//! What a person reads while the engine works: progress on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::engine::Listener;
use crate::metrics::Metrics;
use crate::record::Record;

/// How the engine's work is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Every check when its verdict or its cause changes: a monitor.
    Changes,
    /// How many checks are done, to standard error: a gate.
    Progress(usize),
}

/// Counts into the metrics and shows the work.
pub struct Console {
    metrics: Arc<Metrics>,
    show: Show,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    done: usize,
    last: HashMap<(String, String), (&'static str, String)>,
}

impl Console {
    /// A console over these metrics.
    pub fn new(metrics: Arc<Metrics>, show: Show) -> Console {
        Console { metrics, show, seen: Mutex::default() }
    }

    /// Ends a line of progress, so that what follows starts on its own.
    pub fn clear_progress() {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

impl Listener for Console {
    fn finished(&self, record: &Record) {
        self.metrics.observe(record);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.done += 1;
        let (verdict, name) = (record.verdict.token(), &record.about.name);
        match self.show {
            Show::Changes => {
                let key = (name.clone(), record.about.target.clone());
                let now = (verdict, record.cause.to_string());
                if seen.last.insert(key, now.clone()).as_ref() != Some(&now) {
                    say(&format!("{}  {verdict:<8}  {name}: {}", record.started_at, record.reason));
                    if let Some(line) = record.reproduce.as_ref().filter(|_| verdict == "violated") {
                        say(&format!("{:24}  {:8}  try: {line}", "", ""));
                    }
                }
            }
            Show::Progress(all) if std::io::stderr().is_terminal() => eprint!("\r\x1b[K{}/{all} checked: {name} {verdict}", seen.done),
            Show::Progress(all) => eprintln!("{}/{all} checked: {name} {verdict}", seen.done),
        }
    }

    fn witness(&self, name: &str, target: &str, up: bool) {
        self.metrics.witness_up(name, target, up);
    }

    fn looking(&self, change: i64) {
        self.metrics.probes_in_flight().add(change);
    }

    fn lag(&self, by: Duration) {
        self.metrics.scheduler_lag(by);
    }
}

/// A line on standard output. A reader that has gone away is no reason to stop monitoring.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

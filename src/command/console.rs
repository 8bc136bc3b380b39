//! What a person reads while the engine works: progress on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
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
        flush();
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
            Show::Progress(all) => tell(Line::Progress(format!("{}/{all} checked: {name} {verdict}", seen.done))),
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

/// Lines that may wait for a slow reader.
const MAX_WAITING: usize = 1024;
/// How long the last lines may take at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What the printer is told.
enum Order {
    Print(Line),
    /// Tell when all before this is printed.
    Report(SyncSender<()>),
}

/// One line, and where it goes.
enum Line {
    Out(String),
    Progress(String),
}

/// The one thread that writes for people. Nobody waits for it: whoever stops reading loses lines, and is told how many.
static PRINTER: LazyLock<SyncSender<Order>> = LazyLock::new(|| {
    let (tell, orders) = sync_channel(MAX_WAITING);
    std::thread::spawn(move || {
        for order in orders {
            match order {
                Order::Print(line) => {
                    let lost = LOST.swap(0, Ordering::Relaxed);
                    if lost > 0 {
                        print(&Line::Out(format!("({lost} lines were lost here, since nobody read them)")));
                    }
                    print(&line);
                }
                Order::Report(done) => drop(done.send(())),
            }
        }
    });
    tell
});
static LOST: AtomicU64 = AtomicU64::new(0);

/// A reader that has gone away is no reason to stop monitoring.
fn print(line: &Line) {
    match line {
        Line::Out(line) => {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
        Line::Progress(line) => {
            let mut out = std::io::stderr().lock();
            let _ = if out.is_terminal() { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") }.and_then(|()| out.flush());
        }
    }
}

fn tell(line: Line) {
    if PRINTER.try_send(Order::Print(line)).is_err() {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// A line on standard output.
pub fn say(line: &str) {
    tell(Line::Out(line.to_string()));
}

/// Waits until what was said is printed, or nobody reads it for a while.
pub fn flush() {
    let (done, told) = sync_channel(1);
    if PRINTER.try_send(Order::Report(done)).is_ok() {
        let _ = told.recv_timeout(LAST_LINES);
    }
}

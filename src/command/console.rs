//! What a person reads while the engine works: progress on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Wall;
use crate::engine::Listener;
use crate::metrics::Metrics;
use crate::record::Record;
use crate::report::visible;

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
                    say(&format!("{}  {verdict:<8}  {name}: {}", record.started_at, visible(&record.reason)));
                    if let Some(exception) = record.about.exception.as_ref().filter(|_| verdict != "holds") {
                        say(&format!("{:24}  {:8}  excepted {}", "", "", visible(&exception.sentence(Wall::now()))));
                    }
                    if let Some(line) = record.reproduce.as_ref().filter(|_| verdict == "violated") {
                        say(&format!("{:24}  {:8}  try: {}", "", "", visible(line)));
                    }
                }
            }
            Show::Progress(all) => PRINTER.tell(Line::Progress(format!("{}/{all} checked: {name} {verdict}", seen.done))),
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

/// What a printer is told.
enum Order {
    Print(Line),
    /// Tell when all before this is printed.
    Report(SyncSender<()>),
}

/// One line, and where it goes.
enum Line {
    Out(String),
    Progress(String),
    /// An event of the log, with its end.
    Event(String),
}

/// A thread that writes for people. Nobody waits for it: whoever stops reading loses lines, and is told how many.
struct Printer {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

impl Printer {
    fn start(told_as: fn(String) -> Line) -> Printer {
        let (orders, received) = sync_channel(MAX_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let printer = Printer { orders, lost: Arc::clone(&lost) };
        std::thread::spawn(move || {
            for order in received {
                match order {
                    Order::Print(line) => {
                        let lost = lost.swap(0, Ordering::Relaxed);
                        if lost > 0 {
                            print(&told_as(format!("({lost} lines were lost here, since nobody read them)")));
                        }
                        print(&line);
                    }
                    Order::Report(done) => drop(done.send(())),
                }
            }
        });
        printer
    }

    fn tell(&self, line: Line) {
        if self.orders.try_send(Order::Print(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was told is printed, or nobody reads it until `deadline`.
    fn flush(&self, deadline: Instant) {
        let (done, told) = sync_channel(1);
        if self.orders.try_send(Order::Report(done)).is_ok() {
            let _ = told.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

static PRINTER: LazyLock<Printer> = LazyLock::new(|| Printer::start(Line::Out));
/// The same for the log of events: a worker that waited for its reader would be a worker less for everybody, and a signal not heard.
static EVENTS: LazyLock<Printer> = LazyLock::new(|| Printer::start(|line| Line::Event(line + "\n")));

/// Where the log of events is written; an event is one write.
pub struct Events;

impl Write for Events {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        EVENTS.tell(Line::Event(String::from_utf8_lossy(event).into_owned()));
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A reader that has gone away is no reason to stop monitoring.
fn print(line: &Line) {
    match line {
        Line::Out(line) => {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
        Line::Event(line) => {
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
        Line::Progress(line) => {
            let mut out = std::io::stderr().lock();
            let _ = if out.is_terminal() { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") }.and_then(|()| out.flush());
        }
    }
}

/// A line on standard output.
pub fn say(line: &str) {
    PRINTER.tell(Line::Out(line.to_string()));
}

/// Waits until what was said and logged is printed, or nobody reads it for a while.
pub fn flush() {
    let deadline = Instant::now() + LAST_LINES;
    PRINTER.flush(deadline);
    EVENTS.flush(deadline);
}

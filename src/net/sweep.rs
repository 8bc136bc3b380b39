//! Sweeps: many ports of many addresses, asked by one thread that does nothing else. Two methods that must agree:
//! plain connects, and SYNs of our own where this process may open raw sockets (capabilities(7), CAP_NET_RAW).
//!
//! Both ask every port in every one of `attempts` passes, each by a connection of its own that starts at least a second
//! after the one before, and tell of each slice of the work when its last answer is in, or overdue.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::clock::{Moment, Wall};
use crate::observation::{Attempt, Evidence, Icmp, Outcome, Stage};

mod agenda;
mod connects;
mod ledger;
mod packet;
mod syn;

pub use packet::{Notice, Reply, parse_icmp4, parse_icmp6, parse_tcp4, parse_tcp6};

use ledger::Ledger;

/// SYNs that each attempt sends to a port that says nothing.
pub const SYNS: u32 = 3;
/// Attempts at one port start at least this far apart.
const SPACING: Duration = Duration::from_secs(1);
/// The most connects that are open at once.
const MAX_OPEN: u64 = 4096;
/// The share of this process's file descriptors that one sweep may use.
const SHARE: u64 = 4;

/// What is to be asked.
#[derive(Debug, Clone)]
pub struct Job {
    /// The work, piece by piece, all of one family.
    pub slices: Vec<Slice>,
    /// The address to bind.
    pub source: Option<IpAddr>,
    /// How often every port is asked.
    pub attempts: usize,
    /// One attempt.
    pub timeout: Duration,
    /// Packets or connects a second, at most.
    pub rate: u32,
    /// What a real connect found open just now. SYNs of our own are believed only while they find one of these open, too.
    pub controls: Vec<SocketAddr>,
}

/// Ports of one address.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The address.
    pub ip: IpAddr,
    /// The ports, in order.
    pub ports: Vec<u16>,
}

/// How a sweep asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// SYNs of our own.
    Syn,
    /// connect(2).
    Connect,
}

/// What a sweep has to tell while it runs.
#[derive(Debug)]
pub enum News {
    /// A port let us in, or (by a SYN of our own) seems to.
    Open(SocketAddr, Method, Box<Attempt>),
    /// All of one slice.
    Slice(Box<Swept>),
}

/// What became of one slice.
#[derive(Debug, Clone)]
pub struct Swept {
    /// Its place in the job.
    pub slice: usize,
    /// How it was asked.
    pub method: Method,
    /// The outcomes, pass by pass, in each pass in the order of the ports; none where a port was not asked again, since
    /// it had let us in.
    pub passes: Vec<Vec<Option<Outcome>>>,
    /// The fewest SYNs that a port got in any attempt that it did not answer.
    pub fewest_syns: Option<u32>,
    /// Our own address.
    pub local: Option<IpAddr>,
    /// Some of the ICMP errors that came.
    pub icmp: Vec<Icmp>,
    /// The first failure of this host: errno, and what it means.
    pub failure: Option<(Option<String>, String)>,
    /// Before the first packet.
    pub started: Moment,
    /// After the last event.
    pub ended: Moment,
    /// Wall time of `started`.
    pub started_at: Wall,
}

/// A sweep under way; it stops when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// What it has to tell; ends with it.
    pub news: mpsc::UnboundedReceiver<News>,
    _stop: Stop,
}

#[derive(Debug)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts the sweep on a thread of its own. Its news are bounded by the job: one a slice, one a port that is open.
///
/// # Errors
/// What pthread_create(3) says.
pub fn start(job: Job) -> std::io::Result<Running> {
    let (sender, news) = mpsc::unbounded_channel();
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Stop(Arc::clone(&stopped));
    std::thread::Builder::new().name("sweep".into()).spawn(move || run(&job, &sender, &stopped))?;
    Ok(Running { news, _stop: stop })
}

/// Runs the job to its end, on this thread: by SYNs of our own where they may be sent and see what is there, else by connect.
pub fn run(job: &Job, news: &mpsc::UnboundedSender<News>, stopped: &AtomicBool) {
    if let Some(wire) = syn::Wire::open(job)
        && let Some(sees) = wire.sees(&job.controls, stopped)
    {
        wire.sweep(job, sees, Ledger::new(job, Method::Syn, news), stopped);
    } else {
        connects::sweep(job, Ledger::new(job, Method::Connect, news), stopped);
    }
}

/// How long a sweep of so many ports may take at worst, whichever its method: when every one is silent.
pub fn longest(ports: usize, attempts: usize, rate: u32, timeout: Duration) -> Duration {
    let asked = ports.saturating_mul(attempts) as f64;
    let by_syns = asked * f64::from(SYNS) / f64::from(rate.max(1));
    let by_connects = asked * timeout.as_secs_f64() / most_open() as f64;
    let last = SPACING * u32::try_from(attempts).unwrap_or(u32::MAX) + timeout;
    Duration::from_secs_f64(by_syns.max(by_connects)) + last
}

/// How many connects may be open at once: other checks need file descriptors, too.
fn most_open() -> usize {
    usize::try_from((super::descriptor_limit() / SHARE).clamp(8, MAX_OPEN)).unwrap_or(8)
}

/// A port that is open, as the sweep's own attempt.
fn opened(local: Option<SocketAddr>, started: Moment) -> Box<Attempt> {
    let evidence = Evidence { local_address: local, ..Evidence::default() };
    Box::new(Attempt { outcome: Outcome::Connected, stage: Stage::Tcp, evidence, started, ended: Moment::now() })
}

/// So many things a second, with some patience for a thread that was not called in time.
struct Bucket {
    rate: f64,
    most: f64,
    tokens: f64,
    last: Instant,
}

impl Bucket {
    fn new(rate: u32, now: Instant) -> Bucket {
        let rate = f64::from(rate.max(1));
        Bucket { rate, most: (rate / 50.0).max(1.0), tokens: 1.0, last: now }
    }

    /// How many may go now, at most `most`.
    fn ready(&mut self, now: Instant, most: usize) -> usize {
        self.tokens = (self.tokens + now.saturating_duration_since(self.last).as_secs_f64() * self.rate).min(self.most);
        self.last = now;
        (self.tokens as usize).min(most)
    }

    fn take(&mut self, taken: usize) {
        self.tokens -= taken as f64;
    }

    /// When the next one may go.
    fn next(&self) -> Instant {
        self.last + Duration::from_secs_f64(((1.0 - self.tokens) / self.rate).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_keeps_the_rate_and_no_grudge() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1000, start);
        let mut sent = 0;
        for ms in 0..1000 {
            let ready = bucket.ready(start + Duration::from_millis(ms), usize::MAX);
            bucket.take(ready);
            sent += ready;
        }
        assert!((998..=1001).contains(&sent), "{sent}");
        assert_eq!(bucket.ready(start + Duration::from_secs(60), usize::MAX), 20, "a long sleep does not end in a flood");
    }

    #[test]
    fn the_worst_time_grows_with_the_work() {
        let second = Duration::from_secs(1);
        assert_eq!(longest(1, 1, 1000, 5 * second).as_secs(), 6);
        let whole = longest(65_535, 3, 1000, 5 * second);
        assert!(whole >= Duration::from_secs(589), "{whole:?}");
        assert!(longest(65_535, 3, 1_000_000, 5 * second) < whole);
    }
}

//! A tunnel: bytes both ways, each half closed by itself, one idle clock for both, and always an end.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::IntCounter;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// How much is moved in one step.
const STEP: usize = 64 * 1024;

thread_local! {
    /// One buffer a worker: a step borrows it between two awaits, so an idle tunnel holds no memory for data.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; STEP]);
}

/// How long a tunnel may last.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// Without a byte, once one side has ended.
    pub half_open: Duration,
    /// At all.
    pub lifetime: Duration,
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides had finished.
    Closed,
    /// A side failed.
    Reset,
    /// Nothing was moved for too long.
    Idle,
    /// Nothing was moved for too long after one side had ended.
    HalfOpen,
    /// It lasted too long.
    Lifetime,
    /// The proxy stops.
    Shutdown,
}

/// The bytes of one direction, counted as they are moved.
#[derive(Debug)]
pub struct Meter {
    moved: AtomicU64,
    counter: IntCounter,
}

impl Meter {
    /// A meter at 0 that also adds to `counter`.
    pub fn new(counter: IntCounter) -> Meter {
        Meter { moved: AtomicU64::new(0), counter }
    }

    /// The bytes so far.
    pub fn total(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Counts bytes.
    pub(super) fn add(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        self.counter.inc_by(bytes as u64);
    }
}

/// Relays until both sides have ended, one of them fails, a limit is reached or `cut` says so. `early` goes to `server` first.
///
/// What ends in failure or by force is reset on both legs, so that neither side takes it for the end of the data.
pub async fn relay(
    client: &TcpStream,
    server: &TcpStream,
    early: Vec<u8>,
    (sent, received): (&Meter, &Meter),
    limits: Limits,
    mut cut: watch::Receiver<bool>,
) -> End {
    let pulse = Pulse::new();
    let both = async {
        let up = pump(client, server, early, sent, &pulse);
        let down = pump(server, client, Vec::new(), received, &pulse);
        tokio::try_join!(up, down)
    };
    let end = tokio::select! {
        done = both => if done.is_ok() { End::Closed } else { End::Reset },
        end = pulse.expired(limits) => end,
        _ = cut.wait_for(|cut| *cut) => End::Shutdown,
    };
    match end {
        End::Reset | End::Lifetime | End::Shutdown => {
            reset(client);
            reset(server);
        }
        End::Closed | End::Idle | End::HalfOpen => {}
    }
    end
}

/// Makes the connection's close a reset.
pub fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Moves bytes one way until `from` ends; then ends `to` that way.
async fn pump(from: &TcpStream, to: &TcpStream, early: Vec<u8>, meter: &Meter, pulse: &Pulse) -> io::Result<()> {
    write_all(to, &early, meter, pulse).await?;
    drop(early);
    loop {
        from.readable().await?;
        match step(from, to, meter, pulse)? {
            Step::Ended => break,
            Step::Moved => {}
            Step::Stuck(rest) => write_all(to, &rest, meter, pulse).await?,
        }
        tokio::task::coop::consume_budget().await;
    }
    match SockRef::from(to).shutdown(Shutdown::Write) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
        Ok(()) | Err(_) => {
            pulse.half_closed();
            Ok(())
        }
    }
}

/// What one step did.
enum Step {
    /// `from` has ended.
    Ended,
    /// All that was there was moved, or nothing was there.
    Moved,
    /// The peer takes no more at present; this is left over.
    Stuck(Vec<u8>),
}

/// Reads what is there and writes what is taken, without waiting.
fn step(from: &TcpStream, to: &TcpStream, meter: &Meter, pulse: &Pulse) -> io::Result<Step> {
    SCRATCH.with_borrow_mut(|scratch| {
        let count = match from.try_read(scratch) {
            Ok(0) => return Ok(Step::Ended),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Moved),
            Err(error) => return Err(error),
        };
        let mut rest = scratch.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            match to.try_write(rest) {
                Ok(written) => {
                    meter.add(written);
                    pulse.beat();
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Stuck(rest.to_vec())),
                Err(error) => return Err(error),
            }
        }
        Ok(Step::Moved)
    })
}

async fn write_all(to: &TcpStream, mut rest: &[u8], meter: &Meter, pulse: &Pulse) -> io::Result<()> {
    while !rest.is_empty() {
        to.writable().await?;
        match to.try_write(rest) {
            Ok(written) => {
                meter.add(written);
                pulse.beat();
                rest = rest.get(written..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The one clock of both directions.
pub(super) struct Pulse {
    start: Instant,
    /// Milliseconds from the start to the last byte moved.
    last: AtomicU64,
    /// How many directions have ended.
    ended: AtomicU64,
    half_closed: Notify,
}

impl Pulse {
    pub(super) fn new() -> Pulse {
        Pulse { start: Instant::now(), last: AtomicU64::new(0), ended: AtomicU64::new(0), half_closed: Notify::new() }
    }

    /// A byte moved.
    pub(super) fn beat(&self) {
        self.last.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn half_closed(&self) {
        self.beat();
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.half_closed.notify_one();
    }

    /// Waits until a limit is reached. The timer is set anew only when it fires, not at each byte.
    pub(super) async fn expired(&self, limits: Limits) -> End {
        let over = self.start + limits.lifetime;
        loop {
            let last = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed));
            let half = self.ended.load(Ordering::Relaxed) > 0;
            let (quiet, end) = match half {
                true if limits.half_open < limits.idle => (last + limits.half_open, End::HalfOpen),
                true | false => (last + limits.idle, End::Idle),
            };
            let (deadline, end) = if over <= quiet { (over, End::Lifetime) } else { (quiet, end) };
            if Instant::now() >= deadline {
                return end;
            }
            tokio::select! {
                () = sleep_until(deadline) => {}
                () = self.half_closed.notified() => {}
            }
        }
    }
}

impl End {
    /// The token in the log.
    pub fn label(self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Reset => "reset",
            End::Idle => "idle",
            End::HalfOpen => "half-open",
            End::Lifetime => "lifetime",
            End::Shutdown => "shutdown",
        }
    }
}

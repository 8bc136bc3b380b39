//! By connect: what any process may do, with one epoll for thousands of handshakes.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::Socket;

use super::agenda::{Agenda, Try};
use super::ledger::Ledger;
use super::{Bucket, Job, most_open};
use crate::clock::{Moment, Wall};
use crate::net::connect::{self, Failure};
use crate::net::sys::{CLOSE, SYN_RECV, SYN_SENT};
use crate::net::{failure, own_addresses};
use crate::observation::{Evidence, Outcome};

/// How many connects are begun between two looks at what came of those before.
const BATCH: usize = 64;
/// Events that are taken at once.
const EVENTS: usize = 256;
/// How often a handshake is looked at that a soft ICMP error has not ended.
const LOOK: Duration = Duration::from_millis(250);
/// The longest sleep: a sweep that nobody waits for any more must notice.
const NAP: Duration = Duration::from_millis(100);

/// A handshake under way.
struct Pending {
    socket: Socket,
    one: Try,
    to: SocketAddr,
    started: Moment,
    evidence: Evidence,
    error: Option<std::io::Error>,
}

struct Sweeper<'a> {
    job: &'a Job,
    ledger: Ledger<'a>,
    epoll: Epoll,
    pending: Vec<Option<Pending>>,
    free: Vec<usize>,
    /// In the order in which their time is up, since all have the same.
    overdue: VecDeque<(Instant, usize, Try)>,
    /// Those that an ICMP error has not ended.
    soft: Vec<usize>,
    own: Vec<IpAddr>,
    open: usize,
}

/// Sweeps until all is over or `stopped`.
pub(super) fn sweep(job: &Job, ledger: Ledger<'_>, stopped: &AtomicBool) {
    let Ok(epoll) = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC) else { return none_at_all(ledger, job) };
    let mut agenda = Agenda::new(ledger.slots(), job.attempts);
    let mut bucket = Bucket::new(job.rate, Instant::now());
    let most = most_open();
    let mut sweeper = Sweeper {
        job,
        ledger,
        epoll,
        pending: Vec::new(),
        free: Vec::new(),
        overdue: VecDeque::new(),
        soft: Vec::new(),
        own: own_addresses(),
        open: 0,
    };
    let mut events = vec![EpollEvent::empty(); EVENTS];
    let mut looked = Instant::now();
    while !sweeper.ledger.is_done() && !stopped.load(Ordering::Relaxed) {
        let now = Instant::now();
        let room = bucket.ready(now, BATCH).min(most.saturating_sub(sweeper.open));
        let mut begun = 0;
        let clocks = (Moment::now(), Wall::now());
        while begun < room {
            let Some(one) = agenda.begin(now) else { break };
            if sweeper.ledger.is_over(one) {
                continue;
            }
            begun += 1;
            sweeper.begin(one, now, clocks);
        }
        bucket.take(begun);
        sweeper.hear(&mut events, if begun > 0 { Duration::ZERO } else { sweeper.nap(now, &agenda, &bucket, most) });
        let now = Instant::now();
        if now.saturating_duration_since(looked) >= LOOK {
            looked = now;
            let soft = std::mem::take(&mut sweeper.soft);
            soft.into_iter().for_each(|at| sweeper.look(at));
        }
        sweeper.give_up(now);
    }
}

/// Without an epoll nothing can be asked: that is our own failure, at every port.
fn none_at_all(mut ledger: Ledger<'_>, job: &Job) {
    let evidence = Evidence { detail: Some("no epoll could be made: raise `ulimit -n`".into()), ..Evidence::default() };
    for slot in 0..u32::try_from(ledger.slots()).unwrap_or(u32::MAX) {
        for pass in 0..job.attempts {
            ledger.end(Try { slot, pass: u8::try_from(pass).unwrap_or(u8::MAX) }, Outcome::LocalError, &evidence);
        }
    }
}

impl Sweeper<'_> {
    fn begin(&mut self, one: Try, now: Instant, clocks: (Moment, Wall)) {
        let Some(to) = self.ledger.target(one.slot) else { return };
        self.ledger.begin(one.slot, clocks);
        let socket = match connect::start(to, self.job.source) {
            Ok(socket) => socket,
            Err(failed) => return self.fail(one, to, &failed),
        };
        let at = self.free.pop().unwrap_or(self.pending.len());
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLERR | EpollFlags::EPOLLET;
        if let Err(error) = self.epoll.add(socket.as_fd(), EpollEvent::new(flags, at as u64)) {
            self.free.extend((at < self.pending.len()).then_some(at));
            return self.fail(one, to, &("epoll_ctl", error.into()));
        }
        let pending = Some(Pending { socket, one, to, started: clocks.0, evidence: Evidence::default(), error: None });
        match self.pending.get_mut(at) {
            Some(place) => *place = pending,
            None => self.pending.push(pending),
        }
        self.open += 1;
        self.overdue.push_back((now + self.job.timeout, at, one));
    }

    fn fail(&mut self, one: Try, to: SocketAddr, (call, error): &Failure) {
        let detail = connect::explain_local(call, to, self.job.source, error);
        let evidence = Evidence { errno: Some(failure::name(error)), detail: Some(detail), ..Evidence::default() };
        self.ledger.end(one, Outcome::LocalError, &evidence);
    }

    /// How long nothing will happen of itself.
    fn nap(&self, now: Instant, agenda: &Agenda, bucket: &Bucket, most: usize) -> Duration {
        let begin = agenda.next_due(now).filter(|_| self.open < most).map(|due| due.max(bucket.next()));
        let overdue = self.overdue.front().map(|(due, ..)| *due);
        let next = begin.into_iter().chain(overdue).min();
        next.map_or(NAP, |next| next.saturating_duration_since(now)).min(NAP)
    }

    /// Takes the events that come within `wait`.
    fn hear(&mut self, events: &mut [EpollEvent], wait: Duration) {
        // epoll counts in whole milliseconds; rounded up, so that it does not spin through the last one.
        let wait = EpollTimeout::try_from(wait.as_micros().div_ceil(1000) as u64).unwrap_or(EpollTimeout::ZERO);
        let Ok(count) = self.epoll.wait(events, wait) else { return };
        for event in events.iter().take(count) {
            if let Ok(at) = usize::try_from(event.data()) {
                self.look(at);
            }
        }
    }

    /// Looks at one handshake: what is over is entered, and its socket closed.
    fn look(&mut self, at: usize) {
        let Some(Some(pending)) = self.pending.get_mut(at) else { return };
        match pending.look(&self.own) {
            None if pending.evidence.icmp.is_empty() => {}
            None => self.soft.extend((!self.soft.contains(&at)).then_some(at)),
            Some(outcome) => self.close(at, outcome),
        }
    }

    fn close(&mut self, at: usize, outcome: Outcome) {
        let Some(pending) = self.pending.get_mut(at).and_then(Option::take) else { return };
        self.free.push(at);
        self.soft.retain(|other| *other != at);
        self.open -= 1;
        // The handshake was finished before a RST came: that is open, as far as TCP goes.
        if matches!(outcome, Outcome::Connected | Outcome::Reset) {
            let local = pending.socket.local_addr().ok().and_then(|a| a.as_socket());
            self.ledger.open(pending.one, local, pending.started);
        } else {
            if outcome == Outcome::Timeout
                && let Some(local) = pending.socket.local_addr().ok().and_then(|a| a.as_socket())
            {
                self.ledger.from(pending.one.slot, local.ip());
            }
            self.ledger.end(pending.one, outcome, &pending.evidence);
        }
    }

    /// Ends the handshakes whose time is up.
    fn give_up(&mut self, now: Instant) {
        while let Some((due, at, one)) = self.overdue.front().copied() {
            let is_it = matches!(self.pending.get(at), Some(Some(pending)) if pending.one == one);
            if is_it && due > now {
                return;
            }
            self.overdue.pop_front();
            if is_it && let Some(Some(pending)) = self.pending.get_mut(at) {
                let outcome = pending.look(&self.own).unwrap_or_else(|| pending.give_up());
                self.close(at, outcome);
            }
        }
    }
}

impl Pending {
    /// What became of it, where that is known.
    fn look(&mut self, own: &[IpAddr]) -> Option<Outcome> {
        self.hear(own);
        let refused = self.error.as_ref().is_some_and(|e| e.raw_os_error() == Some(libc::ECONNREFUSED));
        if refused && self.evidence.icmp.is_empty() {
            // No more calls for what is by far the most frequent: an RST, and nothing in the queue.
            return Some(Outcome::Refused);
        }
        let info = match connect::state(&self.socket, &mut self.evidence) {
            Ok(info) => info,
            Err(outcome) => return Some(outcome),
        };
        match info.state {
            CLOSE => {
                if self.error.is_none() {
                    // It fell between the two looks, and only now SO_ERROR tells a RST to our SYN from one after the handshake.
                    self.hear(own);
                }
                Some(connect::closed(self.to, self.error.as_ref(), info, &mut self.evidence))
            }
            SYN_SENT | SYN_RECV => None,
            _ => Some(Outcome::Connected),
        }
    }

    /// Takes in what is wrong: `SO_ERROR` first, since the error queue would consume it.
    fn hear(&mut self, own: &[IpAddr]) {
        if let Ok(Some(error)) = self.socket.take_error() {
            self.evidence.errno = Some(failure::name(&error));
            self.error = Some(error);
        }
        connect::drain_error_queue(&self.socket, self.to, |ip| own.contains(&ip), &mut self.evidence);
    }

    fn give_up(&mut self) -> Outcome {
        match connect::state(&self.socket, &mut self.evidence) {
            Ok(info) => connect::gave_up(self.to, info, &mut self.evidence),
            Err(outcome) => outcome,
        }
    }
}

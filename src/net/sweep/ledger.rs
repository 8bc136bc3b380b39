//! The ledger: what became of every attempt, and of each slice when its last one is over.

use std::net::{IpAddr, SocketAddr};

use tokio::sync::mpsc::UnboundedSender;

use super::agenda::Try;
use super::{Job, Method, News, Swept, opened};
use crate::clock::{Moment, Wall};
use crate::observation::{Evidence, Icmp, Outcome};

/// How one attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not over, and not begun where no SYN was sent.
    Waiting,
    /// Over.
    Over(Outcome),
    /// Not made: the port had let us in.
    Spared,
}

/// One slice's account.
#[derive(Debug)]
struct Account {
    /// The slot of its first port.
    first: usize,
    /// Attempts that are not over.
    left: usize,
    began: Option<(Moment, Wall)>,
    fewest_syns: Option<u32>,
    local: Option<IpAddr>,
    icmp: Vec<Icmp>,
    failure: Option<(Option<String>, String)>,
}

/// The account of a whole job.
pub(super) struct Ledger<'a> {
    job: &'a Job,
    method: Method,
    news: &'a UnboundedSender<News>,
    accounts: Vec<Account>,
    /// The slice of each slot.
    slice_of: Vec<u32>,
    /// Pass by pass.
    states: Vec<State>,
    /// Attempts that are not over.
    left: usize,
    /// Slices that are over and whose answers are not vouched for yet.
    held: Vec<Swept>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(job: &'a Job, method: Method, news: &'a UnboundedSender<News>) -> Ledger<'a> {
        let mut slice_of = Vec::new();
        let mut accounts = Vec::new();
        for (at, slice) in job.slices.iter().enumerate() {
            let left = slice.ports.len() * job.attempts;
            let first = slice_of.len();
            accounts.push(Account { first, left, began: None, fewest_syns: None, local: None, icmp: Vec::new(), failure: None });
            slice_of.extend(slice.ports.iter().map(|_| u32::try_from(at).unwrap_or(u32::MAX)));
        }
        let attempts = slice_of.len() * job.attempts;
        Ledger { job, method, news, accounts, states: vec![State::Waiting; attempts], left: attempts, slice_of, held: Vec::new() }
    }

    /// How many ports there are, over all addresses.
    pub(super) fn slots(&self) -> usize {
        self.slice_of.len()
    }

    /// Where a slot's packets go.
    pub(super) fn target(&self, slot: u32) -> Option<SocketAddr> {
        let slot = slot as usize;
        let at = *self.slice_of.get(slot)? as usize;
        let (slice, account) = (self.job.slices.get(at)?, self.accounts.get(at)?);
        Some(SocketAddr::new(slice.ip, *slice.ports.get(slot - account.first)?))
    }

    /// The slot of an address and port.
    pub(super) fn slot_of(&self, at: SocketAddr) -> Option<u32> {
        let slices = self.job.slices.iter().zip(&self.accounts).filter(|(slice, _)| slice.ip == at.ip());
        let mut found = slices.filter_map(|(slice, account)| Some(account.first + slice.ports.binary_search(&at.port()).ok()?));
        found.next().and_then(|slot| u32::try_from(slot).ok())
    }

    /// The number of an attempt among all.
    pub(super) fn number(&self, one: Try) -> usize {
        usize::from(one.pass) * self.slice_of.len() + one.slot as usize
    }

    /// Whether the attempt is over.
    pub(super) fn is_over(&self, one: Try) -> bool {
        self.states.get(self.number(one)).is_none_or(|state| *state != State::Waiting)
    }

    /// Whether the port let us in, so that nothing more is asked there.
    pub(super) fn is_open(&self, slot: u32) -> bool {
        let passes = (0..self.job.attempts).map(|pass| Try { slot, pass: u8::try_from(pass).unwrap_or(u8::MAX) });
        passes.filter_map(|one| self.states.get(self.number(one))).any(|state| *state == State::Over(Outcome::Connected))
    }

    /// An attempt is about to send its first packet.
    pub(super) fn begin(&mut self, slot: u32, now: (Moment, Wall)) {
        if let Some(account) = self.account(slot) {
            account.began.get_or_insert(now);
        }
    }

    /// Our own address on the way to a slot.
    pub(super) fn from(&mut self, slot: u32, local: IpAddr) {
        if let Some(account) = self.account(slot) {
            account.local = Some(local);
        }
    }

    /// The attempt is over.
    pub(super) fn end(&mut self, one: Try, outcome: Outcome, evidence: &Evidence) {
        if let Some(account) = self.account(one.slot) {
            if outcome == Outcome::Timeout {
                let syns = evidence.syns_sent.unwrap_or(0);
                account.fewest_syns = Some(account.fewest_syns.map_or(syns, |fewest| fewest.min(syns)));
            }
            if let Some(icmp) = evidence.icmp.last()
                && account.icmp.len() < Evidence::MAX_ICMP
                && !account.icmp.contains(icmp)
            {
                account.icmp.push(icmp.clone());
            }
            if outcome == Outcome::LocalError && account.failure.is_none() {
                account.failure = Some((evidence.errno.clone(), evidence.detail.clone().unwrap_or_else(|| "this host failed".into())));
            }
        }
        self.close(one, State::Over(outcome));
    }

    /// The port let us in: that is told at once, and settles all its attempts.
    pub(super) fn open(&mut self, one: Try, local: Option<SocketAddr>, started: Moment) {
        let known = self.is_open(one.slot);
        if !known && let Some(to) = self.target(one.slot) {
            // Nobody listens any more where this fails, and then nobody needs to know.
            let _ = self.news.send(News::Open(to, self.method, opened(local, started)));
        }
        self.close(one, State::Over(Outcome::Connected));
        for pass in 0..self.job.attempts {
            let other = Try { slot: one.slot, pass: u8::try_from(pass).unwrap_or(u8::MAX) };
            if !self.is_over(other) {
                self.close(other, State::Spared);
            }
        }
    }

    fn account(&mut self, slot: u32) -> Option<&mut Account> {
        let at = *self.slice_of.get(slot as usize)? as usize;
        self.accounts.get_mut(at)
    }

    /// Enters how an attempt ended. Only that a port let us in may still be learnt of one that is over.
    fn close(&mut self, one: Try, state: State) {
        let number = self.number(one);
        let Some(known) = self.states.get_mut(number) else { return };
        let first = *known == State::Waiting;
        if first || state == State::Over(Outcome::Connected) {
            *known = state;
        }
        if !first {
            return;
        }
        self.left -= 1;
        let Some(at) = self.slice_of.get(one.slot as usize).map(|at| *at as usize) else { return };
        let Some(account) = self.accounts.get_mut(at) else { return };
        account.left -= 1;
        if account.left == 0 {
            self.finish(at);
        }
    }

    fn finish(&mut self, at: usize) {
        let (Some(slice), Some(account)) = (self.job.slices.get(at), self.accounts.get_mut(at)) else { return };
        let outcome = |state: &State| match state {
            State::Over(outcome) => Some(*outcome),
            State::Waiting | State::Spared => None,
        };
        let slots = self.slice_of.len();
        let pass = |pass: usize| {
            let from = pass * slots + account.first;
            self.states.iter().skip(from).take(slice.ports.len()).map(outcome).collect()
        };
        let ended = Moment::now();
        let (started, started_at) = account.began.unwrap_or((ended, Wall::now()));
        let swept = Swept {
            slice: at,
            method: self.method,
            passes: (0..self.job.attempts).map(pass).collect(),
            fewest_syns: account.fewest_syns,
            local: account.local,
            icmp: std::mem::take(&mut account.icmp),
            failure: account.failure.take(),
            started,
            ended,
            started_at,
        };
        match self.method {
            Method::Syn => self.held.push(swept),
            Method::Connect => drop(self.news.send(News::Slice(Box::new(swept)))),
        }
    }

    /// Every attempt is over.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Slices are over, and wait until somebody vouches for their answers.
    pub(super) fn holds_back(&self) -> bool {
        !self.held.is_empty()
    }

    /// Lets go of the slices that ended before `since`: what we saw, we saw with open eyes. Blind ones, where `why` says
    /// so, saw no silence.
    pub(super) fn vouch(&mut self, since: Moment, why: Option<&str>) {
        let (ready, held) = std::mem::take(&mut self.held).into_iter().partition(|swept| swept.ended <= since);
        self.held = held;
        let ready: Vec<Swept> = ready;
        for mut swept in ready {
            if let Some(why) = why {
                let silent = swept.passes.iter_mut().flatten().filter(|seen| **seen == Some(Outcome::Timeout));
                silent.for_each(|seen| *seen = Some(Outcome::LocalError));
                swept.failure.get_or_insert((None, why.to_string()));
            }
            let _ = self.news.send(News::Slice(Box::new(swept)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Slice;
    use super::*;

    fn job() -> Job {
        let slice = |ip: &str, ports: &[u16]| Slice { ip: ip.parse().unwrap(), ports: ports.to_vec() };
        Job {
            slices: vec![slice("192.0.2.7", &[1, 5, 9]), slice("192.0.2.7", &[10]), slice("192.0.2.8", &[1])],
            source: None,
            attempts: 2,
            timeout: Duration::from_secs(3),
            rate: 1000,
            controls: Vec::new(),
        }
    }

    #[test]
    fn slots_are_found_both_ways() {
        let (job, (news, _kept)) = (job(), tokio::sync::mpsc::unbounded_channel());
        let ledger = Ledger::new(&job, Method::Connect, &news);
        assert_eq!(ledger.slots(), 5);
        for slot in 0..5 {
            assert_eq!(ledger.slot_of(ledger.target(slot).unwrap()), Some(slot));
        }
        assert_eq!(ledger.target(5), None);
        for stranger in ["192.0.2.7:2", "192.0.2.8:5", "192.0.2.9:1"] {
            assert_eq!(ledger.slot_of(stranger.parse().unwrap()), None, "{stranger}");
        }
    }

    #[test]
    fn a_slice_is_told_when_its_last_attempt_is_over_and_an_open_port_at_once() {
        let (job, (news, mut told)) = (job(), tokio::sync::mpsc::unbounded_channel());
        let mut ledger = Ledger::new(&job, Method::Connect, &news);
        let end = |ledger: &mut Ledger<'_>, slot, pass, outcome| ledger.end(Try { slot, pass }, outcome, &Evidence::default());
        for slot in [0, 2] {
            end(&mut ledger, slot, 0, Outcome::Refused);
            end(&mut ledger, slot, 1, Outcome::Timeout);
        }
        assert!(told.try_recv().is_err());
        ledger.open(Try { slot: 1, pass: 0 }, None, Moment::now());
        assert!(matches!(told.try_recv(), Ok(News::Open(to, ..)) if to == "192.0.2.7:5".parse().unwrap()));
        let Ok(News::Slice(swept)) = told.try_recv() else { panic!("no slice") };
        assert_eq!(swept.passes[0], [Some(Outcome::Refused), Some(Outcome::Connected), Some(Outcome::Refused)]);
        assert_eq!(swept.passes[1], [Some(Outcome::Timeout), None, Some(Outcome::Timeout)]);
        assert_eq!(swept.fewest_syns, Some(0), "silence without a SYN is known as such");
        // An answer that comes late, and twice.
        end(&mut ledger, 0, 1, Outcome::Refused);
        ledger.open(Try { slot: 1, pass: 1 }, None, Moment::now());
        assert!(told.try_recv().is_err());
        assert!(!ledger.is_done());
    }

    #[test]
    fn nothing_is_told_of_our_own_syns_before_somebody_vouches_and_blind_eyes_saw_no_silence() {
        let (job, (news, mut told)) = (job(), tokio::sync::mpsc::unbounded_channel());
        let mut ledger = Ledger::new(&job, Method::Syn, &news);
        for (slot, outcome) in [(3, Outcome::Timeout), (4, Outcome::Refused)] {
            for pass in 0..2 {
                ledger.end(Try { slot, pass }, outcome, &Evidence::default());
            }
        }
        assert!(told.try_recv().is_err() && ledger.holds_back());
        ledger.vouch(Moment::ZERO, None);
        assert!(told.try_recv().is_err(), "vouched for too early");
        ledger.vouch(Moment::now(), Some("blind"));
        let mut outcome = || match told.try_recv() {
            Ok(News::Slice(swept)) => swept.passes[0][0],
            other => panic!("{other:?}"),
        };
        assert_eq!((outcome(), outcome()), (Some(Outcome::LocalError), Some(Outcome::Refused)));
        assert!(!ledger.holds_back());
    }
}

//! What a check remembers from run to run: its latch, its exposure, its kind of denial, and addresses that DNS took away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::{Moment, Wall};
use crate::observation::{Class, Outcome};
use crate::record::{DenialChanged, Exposure};
use crate::verdict::{Cause, Judged, Verdict, latch};

/// The most addresses of one check that are remembered.
const MAX_ADDRESSES: usize = 1024;

/// The memory of one check. Pure: clocks are handed in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// An inverted check was violated, and no run has held since.
    pub violated: bool,
    /// When it was seen open and closed.
    pub exposure: Exposure,
    /// How each address was blocked when it was last seen blocked.
    denials: BTreeMap<String, Outcome>,
    /// When DNS last gave each address that was violated and has not been seen closed since.
    lingering: BTreeMap<SocketAddr, Moment>,
}

impl Memory {
    /// A memory as it was kept over a restart.
    pub fn recalled(violated: bool, exposure: Exposure, lingering: impl IntoIterator<Item = (SocketAddr, Moment)>) -> Memory {
        Memory { violated, exposure, denials: BTreeMap::new(), lingering: lingering.into_iter().take(MAX_ADDRESSES).collect() }
    }

    /// Every lingering address, and when DNS last gave it.
    pub fn lingers(&self) -> impl Iterator<Item = (SocketAddr, Moment)> + '_ {
        self.lingering.iter().map(|(address, given)| (*address, *given))
    }

    /// What a finished run adds: its verdict as latched, and what changed in how addresses are blocked.
    pub fn learn(&mut self, judged: &[Judged], verdict: Verdict, inverted: bool, at: Wall, now: Moment) -> (Verdict, Vec<DenialChanged>) {
        let verdict = latch(self.violated, inverted, verdict);
        if !inverted {
            return (verdict, Vec::new());
        }
        match &verdict {
            Verdict::Holds(_) => {
                self.violated = false;
                self.exposure.last_closed = Some(at);
            }
            Verdict::Violated(Cause::Open) => {
                let begins = self.exposure.first_open.is_none() || self.exposure.last_closed > self.exposure.last_open;
                if begins {
                    self.exposure.first_open = Some(at);
                }
                self.exposure.last_open = Some(at);
                self.violated = true;
            }
            Verdict::Violated(_) => self.violated = true,
            Verdict::Unproven(_) => {}
        }
        self.remember_open(judged, now);
        (verdict, self.compare_denials(judged))
    }

    fn remember_open(&mut self, judged: &[Judged], now: Moment) {
        // An address is as bad as the worst of its observations: a technique that is denied there clears no other.
        let mut worst: BTreeMap<SocketAddr, &Verdict> = BTreeMap::new();
        for one in judged {
            // A sweep is of an address as a whole.
            let whole = one.seen.subject.reached.filter(|reached| reached.port() == 0);
            let Some(address) = whole.or(one.seen.subject.dialled) else { continue };
            let known = worst.entry(address).or_insert(&one.verdict);
            if one.verdict.rank() > known.rank() {
                *known = &one.verdict;
            }
        }
        for (address, verdict) in worst {
            match verdict {
                Verdict::Violated(_) if self.lingering.len() < MAX_ADDRESSES => {
                    self.lingering.entry(address).or_insert(now);
                }
                Verdict::Holds(_) => {
                    self.lingering.remove(&address);
                }
                Verdict::Violated(_) | Verdict::Unproven(_) => {}
            }
        }
    }

    fn compare_denials(&mut self, judged: &[Judged]) -> Vec<DenialChanged> {
        let mut changed = Vec::new();
        let mut seen_of: BTreeMap<(&str, Option<&str>, Option<&str>), usize> = BTreeMap::new();
        for one in judged {
            let subject = &one.seen.subject;
            // A technique is tried at one address with each beacon; the order of those is the plan's, and stays.
            let nth = seen_of.entry((&subject.address, subject.technique, subject.variant.as_deref())).or_default();
            *nth += 1;
            let (outcome, blocked) = (one.seen.outcome, one.seen.outcome.class() == Class::Closed);
            if !blocked || !matches!(one.verdict, Verdict::Holds(_)) {
                continue;
            }
            let (technique, variant) = (subject.technique.unwrap_or_default(), subject.variant.as_deref().unwrap_or_default());
            let key = format!("{} {technique} {variant} {nth}", subject.address);
            if !self.denials.contains_key(&key) && self.denials.len() >= MAX_ADDRESSES {
                continue;
            }
            if let Some(from) = self.denials.insert(key, outcome).filter(|from| *from != outcome) {
                changed.push(DenialChanged { address: one.seen.subject.address.clone(), from, to: outcome });
            }
        }
        changed
    }

    /// DNS gave these addresses just now.
    pub fn given(&mut self, addresses: &[SocketAddr], now: Moment) {
        for address in addresses {
            if let Some(last) = self.lingering.get_mut(address) {
                *last = now;
            }
        }
    }

    /// The addresses that were violated, were not seen closed since, and that DNS gave within `linger`.
    pub fn lingering(&mut self, linger: Duration, now: Moment) -> Vec<SocketAddr> {
        self.lingering.retain(|_, given| now.since(*given) <= linger);
        self.lingering.keys().copied().collect()
    }
}

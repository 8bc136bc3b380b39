//! The beacon's log: which nonces were brought, by whom. Bounded, and honest about how far it reaches back.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::clock::Moment;
use crate::token::{Finding, MAX_SIGHTINGS, NONCE_LIFE_MS, Nonce, Question, SKEW_MS, Sighting};

/// The most nonces kept; only key holders make any, so more than that in half an hour is a fault of theirs.
pub(super) const CAPACITY: usize = 100_000;
/// How long after the making of a nonce the log still answers for it: its life, skew, and as long again for asking.
const ANSWERABLE: Duration = Duration::from_millis((2 * (NONCE_LIFE_MS + SKEW_MS)) as u64);
/// How long after its first sighting a nonce is kept: longer than anyone may ask, so that dropping it makes no answer untrue.
const KEPT: Duration = Duration::from_millis((2 * (NONCE_LIFE_MS + SKEW_MS) + 10 * SKEW_MS) as u64);
/// What the rounding of two wall times to milliseconds can add to an age.
const ROUNDING: Duration = Duration::from_millis(5);

/// The sightings, oldest nonce first out.
pub(super) struct Log {
    entries: HashMap<[u8; 16], Entry>,
    order: VecDeque<([u8; 16], Moment)>,
    /// Nothing that was brought since is missing, save what is older than [`KEPT`].
    since: Moment,
    capacity: usize,
}

struct Entry {
    sightings: Vec<Sighting>,
    last: Moment,
}

impl Log {
    pub(super) fn new(capacity: usize, now: Moment) -> Log {
        Log { entries: HashMap::new(), order: VecDeque::new(), since: now, capacity }
    }

    /// Notes that the nonce was brought.
    pub(super) fn record(&mut self, nonce: &Nonce, sighting: Sighting, now: Moment) {
        self.drop_old(now);
        let entry = match self.entries.entry(nonce.id()) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                self.order.push_back((nonce.id(), now));
                slot.insert(Entry { sightings: Vec::new(), last: now })
            }
        };
        entry.last = now;
        if entry.sightings.len() < MAX_SIGHTINGS {
            entry.sightings.push(sighting);
        }
        self.drop_surplus();
    }

    /// What is known of the nonce asked about: 1. its sightings; 2. forgotten, where one may have been lost; 3. unknown.
    pub(super) fn find(&self, question: &Question, now: Moment) -> Finding {
        if let Some(entry) = self.entries.get(&question.nonce().id()) {
            return Finding::Known(entry.sightings.clone());
        }
        let age = Duration::from_millis(question.nonce_age_ms().unsigned_abs());
        if age > ANSWERABLE || now.since(self.since) + ROUNDING < age {
            return Finding::Forgotten;
        }
        Finding::Unknown
    }

    fn drop_old(&mut self, now: Moment) {
        while let Some((id, first)) = self.order.front().copied() {
            if now.since(first) <= KEPT {
                break;
            }
            self.order.pop_front();
            self.entries.remove(&id);
        }
    }

    fn drop_surplus(&mut self) {
        while self.entries.len() > self.capacity {
            let Some((id, _)) = self.order.pop_front() else { break };
            if let Some(lost) = self.entries.remove(&id) {
                self.since = self.since.max(lost.last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Key;

    const NOW: i64 = 1_767_323_045_678;

    fn key() -> Key {
        Key::from_text("0123456789abcdef0123456789abcdef").unwrap()
    }

    fn nonce() -> Nonce {
        Nonce::mint(&key(), NOW).unwrap()
    }

    fn asked(nonce: &Nonce, age: Duration) -> Question {
        Question::ask(&key(), nonce, NOW + age.as_millis() as i64).unwrap()
    }

    fn sighting(port: u16) -> Sighting {
        Sighting { peer: "192.0.2.7:4711".parse().unwrap(), port, at_unix_ms: NOW }
    }

    fn at(seconds: u64) -> Moment {
        Moment::after_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn a_sighting_is_known_and_only_the_first_sixteen_are_kept() {
        let mut log = Log::new(CAPACITY, at(0));
        let nonce = nonce();
        for port in 1..=20 {
            log.record(&nonce, sighting(port), at(100));
        }
        let expected = (1..=16).map(sighting).collect();
        assert_eq!(log.find(&asked(&nonce, Duration::ZERO), at(100)), Finding::Known(expected));
    }

    #[test]
    fn unknown_only_where_the_log_reaches_back_to_the_making() {
        let log = Log::new(CAPACITY, at(100));
        let cases = [
            (10, at(110), Finding::Unknown),
            (11, at(110), Finding::Forgotten),
            (1320, at(5000), Finding::Unknown),
            (1321, at(5000), Finding::Forgotten),
        ];
        for (age, now, finding) in cases {
            assert_eq!(log.find(&asked(&nonce(), Duration::from_secs(age)), now), finding, "asked after {age} s");
        }
    }

    #[test]
    fn what_overflows_is_forgotten_and_not_unknown() {
        let mut log = Log::new(2, at(0));
        let (first, second, third) = (nonce(), nonce(), nonce());
        log.record(&first, sighting(1), at(100));
        log.record(&second, sighting(1), at(110));
        log.record(&third, sighting(1), at(120));
        assert_eq!(log.find(&asked(&first, Duration::from_secs(25)), at(122)), Finding::Forgotten);
        assert!(matches!(log.find(&asked(&second, Duration::from_secs(25)), at(122)), Finding::Known(_)));
        let later = asked(&nonce(), Duration::from_secs(1));
        assert_eq!(log.find(&later, at(122)), Finding::Unknown, "made after the loss");
        assert_eq!(log.order.len(), log.entries.len());
    }

    #[test]
    fn what_is_old_is_dropped() {
        let mut log = Log::new(CAPACITY, at(0));
        log.record(&nonce(), sighting(1), at(0));
        log.record(&nonce(), sighting(1), Moment::ZERO + KEPT);
        assert_eq!(log.entries.len(), 2);
        log.record(&nonce(), sighting(1), Moment::ZERO + KEPT + Duration::from_secs(1));
        assert_eq!((log.entries.len(), log.order.len()), (2, 2));
    }
}

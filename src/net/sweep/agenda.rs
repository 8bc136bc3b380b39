//! The agenda: which port begins which of its attempts next.

use std::collections::VecDeque;
use std::time::Instant;

use super::SPACING;

/// One attempt at one port: the port's place in the job, and the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Try {
    pub(super) slot: u32,
    pub(super) pass: u8,
}

/// Attempts that are to begin: those that are due for another pass before those that are new.
#[derive(Debug)]
pub(super) struct Agenda {
    next: u32,
    slots: u32,
    /// For each pass after the first, who is in it next, and when at the earliest.
    later: Vec<VecDeque<(Instant, u32)>>,
}

impl Agenda {
    pub(super) fn new(slots: usize, attempts: usize) -> Agenda {
        let later = (1..attempts).map(|_| VecDeque::new()).collect();
        Agenda { next: 0, slots: u32::try_from(slots).unwrap_or(u32::MAX), later }
    }

    /// The next attempt to begin now; its successor is put on the agenda.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Try> {
        let due = |queue: &VecDeque<(Instant, u32)>| queue.front().is_some_and(|(at, _)| *at <= now);
        let found = match self.later.iter().rposition(due) {
            Some(at) => {
                let (_, slot) = self.later.get_mut(at)?.pop_front()?;
                Try { slot, pass: u8::try_from(at + 1).unwrap_or(u8::MAX) }
            }
            None if self.next < self.slots => {
                self.next += 1;
                Try { slot: self.next - 1, pass: 0 }
            }
            None => return None,
        };
        if let Some(queue) = self.later.get_mut(usize::from(found.pass)) {
            queue.push_back((now + SPACING, found.slot));
        }
        Some(found)
    }

    /// When something is due next; none where all has begun.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.next < self.slots {
            return Some(now);
        }
        self.later.iter().filter_map(|queue| queue.front()).map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_port_begins_in_every_pass_and_never_too_early() {
        let start = Instant::now();
        let mut agenda = Agenda::new(5, 3);
        let mut begun: Vec<(u64, Try)> = Vec::new();
        for ms in (0..4000).step_by(10) {
            let now = start + Duration::from_millis(ms);
            begun.extend(agenda.begin(now).map(|one| (ms, one)));
        }
        assert_eq!(begun.len(), 15);
        for slot in 0..5 {
            let times: Vec<u64> = begun.iter().filter(|(_, t)| t.slot == slot).map(|(ms, _)| *ms).collect();
            assert!(times.windows(2).all(|w| w[1] - w[0] >= 1000), "{times:?}");
            let passes: Vec<u8> = begun.iter().filter(|(_, t)| t.slot == slot).map(|(_, t)| t.pass).collect();
            assert_eq!(passes, [0, 1, 2]);
        }
        assert_eq!(agenda.next_due(start), None);
    }
}

//! When the next run is due: arithmetic on moments handed in.

use std::time::Duration;

use crate::clock::Moment;

/// The schedule of one check: at once, then on a beat of its own, so that checks of one interval do not all run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    first: Moment,
    phase: Duration,
    interval: Duration,
}

impl Schedule {
    /// A check of that name and interval on a monitor that started at `start`.
    pub fn new(name: &str, interval: Duration, start: Moment) -> Schedule {
        let share = f64::from(fnv1a(name)) / f64::from(u32::MAX);
        // Never 0: the first beat comes after the run at the start.
        let phase = interval.mul_f64(share.clamp(0.1, 1.0));
        Schedule { first: start, phase, interval }
    }

    /// When the run after one that was due at `last` and has ended by `now` is due. Missed beats are skipped.
    pub fn next(&self, last: Option<Moment>, now: Moment) -> Moment {
        let Some(last) = last else { return self.first };
        let beat = self.first + self.phase;
        let reached = last.max(now);
        if reached < beat {
            return beat;
        }
        let beats = reached.since(beat).as_nanos() / self.interval.as_nanos().max(1) + 1;
        beat + self.interval * u32::try_from(beats).unwrap_or(u32::MAX)
    }
}

/// FNV-1a (32 bit): spreads names, and is the same on every run.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Moment {
        Moment::after_boot(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn the_first_run_is_at_once_and_the_gap_is_never_longer_than_the_interval() {
        for name in ["a", "b", "admin-closed", ""] {
            let schedule = Schedule::new(name, Duration::from_secs(30), at(100.0));
            let first = schedule.next(None, at(100.0));
            assert_eq!(first, at(100.0));
            let second = schedule.next(Some(first), at(101.0));
            let third = schedule.next(Some(second), second + Duration::from_secs(1));
            assert!(second > first && second.since(first) <= Duration::from_secs(30), "{name}");
            assert_eq!(third.since(second), Duration::from_secs(30), "{name}");
        }
    }

    #[test]
    fn missed_beats_are_skipped_and_the_beat_is_kept() {
        let schedule = Schedule::new("x", Duration::from_secs(10), at(0.0));
        let second = schedule.next(Some(at(0.0)), at(0.5));
        let late = schedule.next(Some(second), second + Duration::from_secs(35));
        assert_eq!(late.since(second), Duration::from_secs(40));
    }

    #[test]
    fn a_long_suspend_does_not_overflow() {
        let schedule = Schedule::new("x", Duration::from_secs(1), at(0.0));
        let next = schedule.next(Some(at(1.0)), at(1e9));
        assert!(next > at(1e9) && next.since(at(1e9)) <= Duration::from_secs(1));
    }
}

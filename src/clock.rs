//! Two clocks: [`Moment`] for durations and order, [`Wall`] for records. Never the one for the other.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant of CLOCK_BOOTTIME (clock_gettime(2)): monotonic, and it runs on while the machine is suspended,
/// so that a verdict does not stay fresh through a sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The machine's boot.
    pub const ZERO: Moment = Moment(Duration::ZERO);

    /// Now. A kernel without CLOCK_BOOTTIME (before 2.6.39) cannot run this program.
    pub fn now() -> Moment {
        match nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME) {
            Ok(t) => Moment(Duration::from(t)),
            Err(_) => Moment::ZERO,
        }
    }

    /// A moment so long after boot; for tests and models.
    pub fn after_boot(since: Duration) -> Moment {
        Moment(since)
    }

    /// The time since `earlier`, or nothing where `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, by: Duration) -> Moment {
        Moment(self.0.saturating_add(by))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, by: Duration) -> Moment {
        Moment(self.0.saturating_sub(by))
    }
}

/// A wall-clock time, for records and reports only. Shown as RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(jiff::Timestamp);

impl Wall {
    /// Now.
    pub fn now() -> Wall {
        Wall(jiff::Timestamp::now())
    }

    /// Seconds since 1970, for metrics.
    pub fn unix_seconds(self) -> f64 {
        self.0.as_millisecond() as f64 / 1000.0
    }

    /// Milliseconds since 1970.
    pub fn unix_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// A time from milliseconds since 1970, where it is one.
    pub fn from_unix_millis(millis: i64) -> Option<Wall> {
        jiff::Timestamp::from_millisecond(millis).ok().map(Wall)
    }

    /// So much before it; the first time of all where there is none.
    #[must_use]
    pub fn before(self, by: Duration) -> Wall {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        Wall::from_unix_millis(self.unix_millis().saturating_sub(millis)).unwrap_or(self)
    }

    /// So much after it.
    #[must_use]
    pub fn after(self, by: Duration) -> Wall {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        Wall::from_unix_millis(self.unix_millis().saturating_add(millis)).unwrap_or(self)
    }

    /// The time since `earlier`, or nothing where `earlier` is later.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_millis(u64::try_from(self.unix_millis().saturating_sub(earlier.unix_millis())).unwrap_or(0))
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Wall> {
        text.parse().ok().map(Wall)
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl Serialize for Wall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Wall, D::Error> {
        let text = String::deserialize(deserializer)?;
        Wall::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("\"{text}\" is no time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_reads_back() {
        let wall = Wall::from_unix_millis(1_767_323_045_678).unwrap();
        assert_eq!(wall.to_string(), "2026-01-02T03:04:05.678Z");
        assert_eq!(Wall::parse("2026-01-02T03:04:05.678Z"), Some(wall));
    }

    #[test]
    fn moments_do_not_run_backwards() {
        let a = Moment::now();
        assert!(Moment::now() >= a);
        assert_eq!(Moment::ZERO.since(a), Duration::ZERO);
    }
}

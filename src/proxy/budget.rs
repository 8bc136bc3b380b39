//! The egress budget: how much may leave within a time before somebody should look. It refuses nothing; it warns.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

/// Units of bytes, as they are written.
const UNITS: [(&str, u64); 9] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];
/// Times, as they are written.
const PERIODS: [(&str, u64); 3] = [("m", 60), ("h", 3600), ("d", 24 * 3600)];
/// Into how many steps the time is cut: what was sent leaves the sum a step after its time at the latest.
const STEPS: u32 = 60;
/// Below this part of the budget its next excess is worth a new warning.
const REARMED: f64 = 0.9;

/// So many bytes to destinations within so long a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes.
    pub bytes: u64,
    /// The time that slides.
    pub period: Duration,
}

/// What was sent, at each step of the time that slides.
#[derive(Debug)]
pub struct Ledger {
    budget: Budget,
    steps: VecDeque<(Instant, Totals)>,
    over: bool,
}

/// The bytes sent to destinations since the start, by the entry of `allow_from`.
pub type Totals = BTreeMap<String, u64>;

impl Ledger {
    /// A ledger in which nothing was sent by `now`.
    pub fn new(budget: Budget, now: Instant) -> Ledger {
        Ledger { budget, steps: VecDeque::from([(now, Totals::new())]), over: false }
    }

    /// Takes note of what was sent by `now`. Gives the part of the budget that the time before took (1 is all of it), and
    /// a warning where it has just grown past it.
    pub fn note(&mut self, now: Instant, totals: &Totals) -> (f64, Option<String>) {
        // the newest step that is no younger than the time is what it is measured from
        while self.steps.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= self.budget.period) {
            self.steps.pop_front();
        }
        let before = self.steps.front().map(|(_, totals)| totals);
        let of = |source: &String| before.and_then(|totals| totals.get(source)).copied().unwrap_or(0);
        let sent: Totals = totals.iter().map(|(source, total)| (source.clone(), total.saturating_sub(of(source)))).collect();
        let sum = sent.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        if self.steps.back().is_none_or(|(at, _)| now.duration_since(*at) >= self.budget.period / STEPS) {
            self.steps.push_back((now, totals.clone()));
        }
        let ratio = sum as f64 / self.budget.bytes as f64;
        let warning = (ratio > 1.0 && !self.over).then(|| {
            let most = sent
                .iter()
                .max_by_key(|(_, bytes)| **bytes)
                .map_or(String::new(), |(source, bytes)| format!("; clients of {source} sent most of it, {}", Bytes(*bytes)));
            format!(
                "{} were sent to destinations within the last {}, more than egress_budget = \"{}\"{most}; \
                 the access log says who and to where (bytes sent, at each close)",
                Bytes(sum),
                self.budget.period_in_words(),
                self.budget
            )
        });
        self.over = ratio > 1.0 || (self.over && ratio >= REARMED);
        (ratio, warning)
    }
}

impl Budget {
    fn period_in_words(&self) -> &'static str {
        match self.period.as_secs() {
            60 => "minute",
            3600 => "hour",
            _ => "day",
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("\"{text}\" is no budget: {why}; write \"2.5GB/h\"");
        let (amount, period) = text.split_once('/').ok_or_else(|| wrong("it has no time behind a slash"))?;
        let (_, seconds) = PERIODS.iter().find(|(name, _)| *name == period).ok_or_else(|| wrong("the time is not one of m, h and d"))?;
        let split = amount.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(amount.len());
        let (number, unit) = amount.split_at(split);
        let (_, size) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| wrong("the unit is none of B, kB, MB, GB, TB, KiB, MiB, GiB and TiB"))?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.len() <= 12 && part.bytes().all(|b| b.is_ascii_digit());
        let number: Option<f64> = (digits(whole) && digits(fraction)).then(|| number.parse().ok()).flatten();
        let bytes = number.ok_or_else(|| wrong("the number is none"))? * *size as f64;
        if bytes < 1.0 || bytes > (1_u64 << 60) as f64 {
            return Err(wrong("it is less than a byte, or more than an exbibyte"));
        }
        Ok(Budget { bytes: bytes.round() as u64, period: Duration::from_secs(*seconds) })
    }
}

/// In the unit that takes the fewest characters.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = PERIODS.iter().find(|(_, seconds)| *seconds == self.period.as_secs()).map_or("h", |(name, _)| name);
        let exact = |size: u64| self.bytes >= size && self.bytes.checked_mul(1000).is_some_and(|b| b.is_multiple_of(size));
        let shown = UNITS.iter().filter(|(_, size)| exact(*size)).map(|(unit, size)| format!("{}{unit}", self.bytes as f64 / *size as f64));
        let shown = shown.min_by_key(String::len).unwrap_or_else(|| format!("{}B", self.bytes));
        write!(f, "{shown}/{period}")
    }
}

/// A number of bytes as people read it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().take(4).find(|(_, size)| self.0 >= *size) {
            Some((unit, size)) => write!(f, "{:.2} {unit}", self.0 as f64 / *size as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_both_sides_of_the_border() {
        for (text, bytes, seconds) in [
            ("2.5GB/h", 2_500_000_000, 3600),
            ("1B/m", 1, 60),
            ("10TiB/d", 10 << 40, 86400),
            ("0.5kB/h", 500, 3600),
            ("100MB/d", 100_000_000, 86400),
            ("1GiB/h", 1 << 30, 3600),
            ("1.234kB/h", 1234, 3600),
        ] {
            let budget: Budget = text.parse().unwrap();
            assert_eq!((budget.bytes, budget.period.as_secs()), (bytes, seconds), "{text}");
            assert_eq!(budget.to_string().parse(), Ok(budget), "{text} is shown as {budget}");
        }
        assert_eq!("2.5GB/h".parse::<Budget>().unwrap().to_string(), "2.5GB/h");
        assert_eq!("2GiB/d".parse::<Budget>().unwrap().to_string(), "2GiB/d");
        for text in [
            "",
            "2.5GB",
            "2.5GB/",
            "2.5GB/s",
            "2.5GB/hour",
            "GB/h",
            "2.5/h",
            "2.5gb/h",
            "2,5GB/h",
            ".5GB/h",
            "2.GB/h",
            "1.2.3GB/h",
            "-1GB/h",
            "0GB/h",
            "0.1B/h",
            "1e3GB/h",
            "9999999TiB/h",
            "2.5 GB/h",
            "inf/h",
        ] {
            let error = text.parse::<Budget>().unwrap_err();
            assert!(error.ends_with("; write \"2.5GB/h\""), "{error}");
        }
    }

    fn totals(entries: &[(&str, u64)]) -> Totals {
        entries.iter().map(|(source, bytes)| ((*source).to_string(), *bytes)).collect()
    }

    #[test]
    fn the_time_slides_and_a_warning_comes_once_an_excess() {
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(minutes * 60);
        let mut ledger = Ledger::new("1kB/h".parse().unwrap(), start);
        assert_eq!(ledger.note(at(1), &totals(&[("a", 400), ("b", 600)])), (1.0, None), "all of it, and not more");
        let (ratio, warning) = ledger.note(at(2), &totals(&[("a", 400), ("b", 1100)]));
        assert_eq!(
            (ratio, warning.unwrap().as_str()),
            (
                1.5,
                "1.50 kB were sent to destinations within the last hour, more than egress_budget = \"1kB/h\"; clients of b sent most of it, \
                 1.10 kB; the access log says who and to where (bytes sent, at each close)"
            )
        );
        let same = totals(&[("a", 400), ("b", 1100)]);
        for minute in 3..61 {
            assert_eq!(ledger.note(at(minute), &same), (1.5, None), "{minute}");
        }
        // what was sent in the first minute has left the hour, then what was sent in the second
        assert_eq!(ledger.note(at(61), &same), (0.5, None));
        assert_eq!(ledger.note(at(62), &same), (0.0, None));
        // and after its fall the next excess is told again
        assert!(ledger.note(at(63), &totals(&[("a", 400), ("b", 2200)])).1.is_some());
        assert!(ledger.steps.len() <= 62);
    }
}

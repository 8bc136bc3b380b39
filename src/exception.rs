//! Exceptions: who answers until when for a check that does not hold. They change what is said of it, and never its verdict.

use std::fmt;
use std::str::FromStr;

use crate::clock::Wall;

/// The most characters of a reason: it is a label of a metric, and on every scrape.
pub const MAX_REASON: usize = 200;
/// The most characters of an owner.
pub const MAX_OWNER: usize = 100;

/// One `[[exception]]`: a claim that is known not to be met, for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// The check's name.
    pub check: String,
    /// The only target that it is about, as written; all of the check's where there is none.
    pub target: Option<String>,
    /// Why it may be so.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// When it ends.
    pub until: Until,
    /// Line and column of its `[[exception]]`, both from 1.
    pub position: (usize, usize),
}

/// The end of an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    /// The first moment at which it is over.
    end: Wall,
    /// The day with which it ends, in UTC, where it was written as a day.
    day: Option<jiff::civil::Date>,
}

impl Exception {
    /// Whether it is about this check on this target.
    pub fn covers(&self, check: &str, target: &str) -> bool {
        self.check == check && self.target.as_deref().is_none_or(|only| only == target)
    }

    /// Whether it is still in force.
    pub fn active(&self, now: Wall) -> bool {
        now < self.until.end
    }

    /// Whether it is over.
    pub fn expired(&self, now: Wall) -> bool {
        !self.active(now)
    }

    /// By whom, until when and why, as a part of a sentence.
    pub fn sentence(&self, now: Wall) -> String {
        let Exception { reason, owner, until, .. } = self;
        match self.active(now) {
            true => format!("by {owner} until {until}: {reason}"),
            false => format!("by {owner} until {until}, which is over: {reason}"),
        }
    }

    /// The same with every text that a file or the environment gave passed through `show`.
    #[must_use]
    pub fn shown(&self, show: impl Fn(&str) -> String) -> Exception {
        let target = self.target.as_deref().map(&show);
        Exception { target, reason: show(&self.reason), owner: show(&self.owner), ..self.clone() }
    }
}

impl Until {
    /// The first moment at which it is over.
    pub fn end(self) -> Wall {
        self.end
    }
}

/// A day, which ends with it in UTC, or an instant (RFC 3339).
impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Until, String> {
        let wrong = || {
            format!(
                "\"{text}\" is no date; write a day such as 2026-12-31, which ends with it in UTC, or an instant with its zone, such as \
                 2026-12-31T18:00:00Z"
            )
        };
        let wall = |instant: jiff::Timestamp| Wall::from_unix_millis(instant.as_millisecond());
        // jiff would read the day of a local time, and forget the time.
        if text.len() == "2026-12-31".len() {
            let day: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
            let next = day.tomorrow().ok().and_then(|next| next.to_zoned(jiff::tz::TimeZone::UTC).ok());
            let end = next.and_then(|next| wall(next.timestamp())).ok_or_else(wrong)?;
            return Ok(Until { end, day: Some(day) });
        }
        // Nor forms that nobody writes by hand, such as the one without hyphens.
        let (day, rest) = text.split_at_checked("2026-12-31".len()).ok_or_else(wrong)?;
        let plain = day.split('-').map(str::len).eq([4, 2, 2]) && rest.starts_with(['T', 't', ' ']);
        let end = text.parse().ok().filter(|_| plain).and_then(wall).ok_or_else(wrong)?;
        Ok(Until { end, day: None })
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.day {
            Some(day) => write!(f, "the end of {day} (UTC)"),
            None => self.end.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(text: &str) -> Exception {
        let until = text.parse().unwrap();
        let (reason, owner) = ("the old host moves".into(), "alice".into());
        Exception { check: "a".into(), target: None, reason, owner, until, position: (1, 1) }
    }

    fn at(text: &str) -> Wall {
        Wall::parse(text).unwrap()
    }

    #[test]
    fn a_day_ends_with_it_in_utc_and_an_instant_with_itself() {
        for (written, last, first) in [
            ("2026-12-31", "2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"),
            ("2028-02-29", "2028-02-29T23:59:59.999Z", "2028-03-01T00:00:00Z"),
            ("2026-12-31T18:00:00Z", "2026-12-31T17:59:59.999Z", "2026-12-31T18:00:00Z"),
            ("2026-12-31T18:00:00+02:00", "2026-12-31T15:59:59.999Z", "2026-12-31T16:00:00Z"),
            ("2026-12-31 18:00:00Z", "2026-12-31T17:59:59.999Z", "2026-12-31T18:00:00Z"),
        ] {
            let exception = until(written);
            assert!(exception.active(at(last)) && !exception.expired(at(last)), "{written}");
            assert!(!exception.active(at(first)) && exception.expired(at(first)), "{written}");
            assert_eq!(exception.until.end(), at(first));
        }
        assert_eq!(until("2026-12-31").until.to_string(), "the end of 2026-12-31 (UTC)");
        assert_eq!(until("2026-12-31T18:00:00+02:00").until.to_string(), "2026-12-31T16:00:00.000Z");
    }

    #[test]
    fn what_is_no_date_or_has_no_zone_is_refused() {
        for bad in [
            "",
            "soon",
            "2026-13-01",
            "2026-02-30",
            "2026-12-31T18:00:00",
            "18:00:00",
            "31.12.2026",
            "2026-1-2",
            "2026-12-31Z",
            "20261231T180000Z",
            "+002026-12-31T18:00:00Z",
            "9999-12-31",
        ] {
            let said = bad.parse::<Until>().unwrap_err();
            assert!(said.starts_with(&format!("\"{bad}\" is no date; write a day such as 2026-12-31")), "{bad}: {said}");
        }
    }

    #[test]
    fn one_target_or_all_of_them() {
        let all = until("2026-12-31");
        let one = Exception { target: Some("b:1".into()), ..all.clone() };
        assert!(all.covers("a", "b:1") && all.covers("a", "c:1") && !all.covers("b", "b:1"));
        assert!(one.covers("a", "b:1") && !one.covers("a", "c:1"));
        let over = one.sentence(at("2027-01-01T00:00:00Z"));
        assert_eq!(one.sentence(at("2026-12-31T23:59:59Z")), "by alice until the end of 2026-12-31 (UTC): the old host moves");
        assert_eq!(over, "by alice until the end of 2026-12-31 (UTC), which is over: the old host moves");
    }
}

//! Durations as they are written: a whole number and one unit.

use std::time::Duration;

/// The units, with their length in milliseconds.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// The longest duration; a year is more than any key needs, and keeps every sum of durations far from overflow.
const LONGEST: u64 = 366 * 24 * 3_600_000;

/// Reads `"500ms"`, `"30s"`, `"5m"`, `"1h"`.
///
/// # Errors
/// What is wrong with it and what to write instead.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = |why: &str| format!("\"{text}\" is not a duration: {why}");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    if text.is_empty() {
        return Err(wrong("it is empty; write \"30s\""));
    }
    if text.starts_with(['-', '+']) {
        return Err(wrong("it has a sign; write \"30s\""));
    }
    if number.is_empty() {
        return Err(wrong("it does not begin with a number; write \"500ms\", \"30s\", \"5m\" or \"1h\""));
    }
    if unit.is_empty() {
        return Err(wrong(&format!("it has no unit; write \"{number}s\" for seconds, or ms, m or h")));
    }
    let too_long = || wrong("it is longer than a year; write at most \"8784h\"");
    let Ok(number) = number.parse::<u64>() else { return Err(too_long()) };
    let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(wrong(&remedy(text, number, unit)));
    };
    let millis = number.checked_mul(*length).filter(|ms| *ms <= LONGEST).ok_or_else(too_long)?;
    Ok(Duration::from_millis(millis))
}

/// How a duration is written: the largest unit that leaves a whole number.
pub fn show(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, length) = UNITS.iter().rev().find(|(_, length)| millis.is_multiple_of(*length) && millis >= *length).unwrap_or(&("ms", 1));
    format!("{}{unit}", millis / length)
}

/// Why `unit` is none of ours, and what was meant.
fn remedy(text: &str, number: u64, unit: &str) -> String {
    if unit.starts_with(['.', ',']) {
        return "it has a fraction; write a whole number of a smaller unit, such as \"90m\" for an hour and a half".into();
    }
    if let Some(sum) = sum_of_parts(text) {
        return format!("it has more than one unit; write \"{}\"", show(Duration::from_millis(sum)));
    }
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => return format!("days are no unit; write \"{}h\"", number.saturating_mul(24)),
        _ => return format!("\"{}\" is no unit; write \"{number}ms\", \"{number}s\", \"{number}m\" or \"{number}h\"", unit.trim()),
    };
    format!("\"{unit}\" is no unit; write \"{number}{meant}\"")
}

/// The milliseconds of `1m30s` and its like; none where a part is not a number with a unit.
fn sum_of_parts(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0u64;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(*length)?)?;
        rest = tail;
    }
    (sum > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_each_border() {
        let good = [("500ms", 500), ("0s", 0), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("8784h", LONGEST)];
        for (text, millis) in good {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let bad = [
            ("", "it is empty; write \"30s\""),
            ("30", "it has no unit; write \"30s\" for seconds, or ms, m or h"),
            ("-5s", "it has a sign; write \"30s\""),
            ("s", "it does not begin with a number; write \"500ms\", \"30s\", \"5m\" or \"1h\""),
            (" 5s", "it does not begin with a number; write \"500ms\", \"30s\", \"5m\" or \"1h\""),
            ("1.23h", "it has a fraction; write a whole number of a smaller unit, such as \"90m\" for an hour and a half"),
            ("1m30s", "it has more than one unit; write \"90s\""),
            ("1h30m", "it has more than one unit; write \"90m\""),
            ("30 s", "\" s\" is no unit; write \"30s\""),
            ("30S", "\"S\" is no unit; write \"30s\""),
            ("30sec", "\"sec\" is no unit; write \"30s\""),
            ("2d", "days are no unit; write \"48h\""),
            ("3w", "\"w\" is no unit; write \"3ms\", \"3s\", \"3m\" or \"3h\""),
            ("8785h", "it is longer than a year; write at most \"8784h\""),
            ("99999999999999999999s", "it is longer than a year; write at most \"8784h\""),
            ("18446744073709551615h", "it is longer than a year; write at most \"8784h\""),
        ];
        for (text, why) in bad {
            assert_eq!(parse(text), Err(format!("\"{text}\" is not a duration: {why}")), "{text}");
        }
    }

    #[test]
    fn shown_as_written() {
        for text in ["500ms", "30s", "90s", "5m", "1h", "0ms"] {
            assert_eq!(parse(text).map(show), Ok(text.to_string()));
        }
    }
}

//! Sweeps in words: many ports in one sentence.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::observation::{Class, Observation, Outcome, Sweep};
use crate::plan::Check;
use crate::target::PortSet;
use crate::verdict::{Cause, Judged, Verdict};

/// The most ports and addresses that are named.
const MAX_NAMED: usize = 8;

/// What a sweep has seen as a whole; none where one observation tells it better.
pub(super) fn as_a_whole(check: &Check, verdict: &Verdict, judged: &[Judged], one: &Judged) -> Option<String> {
    match verdict {
        Verdict::Violated(Cause::Open) => some_open(judged, one),
        Verdict::Violated(Cause::OtherDenial) if one.seen.evidence.sweep.is_some() => {
            Some(Tally::of(judged.iter().filter(|j| j.verdict == one.verdict).map(|j| &j.seen)).closed(check))
        }
        Verdict::Holds(_) => Some(all_closed(check, judged)),
        _ => None,
    }
}

/// A sweep that was not brought to its end, and what was seen until then.
pub(super) fn not_to_the_end(check: &Check, vantage: &str, judged: &[Judged]) -> String {
    let tally = Tally::of(judged.iter().map(|j| &j.seen).filter(|seen| seen.outcome.class() == Class::Closed));
    let what = match of(&tally.closed) {
        0 => format!("no port of {} was", check.target),
        1 => format!("only 1 port of {} was", tally.whose(check)),
        n => format!("only {} of {} were", ports(n), tally.whose(check)),
    };
    let kinds = if tally.closed.is_empty() { String::new() } else { format!(" ({})", kinds(&tally.closed)) };
    format!(
        "{what} looked at to the end from {vantage}{kinds}, less than the plan demands, which proves nothing about the rest. \
         Give it more time, a higher rate, or fewer ports."
    )
}

/// What was seen of the many ports of one slice.
pub(super) fn of_many(seen: &Observation, sweep: &Sweep) -> String {
    let detail = seen.evidence.detail.as_ref().map_or(String::new(), |d| format!(": {d}"));
    let many = format!("{} of {}", ports(of(&sweep.outcomes)), seen.subject.address);
    if seen.outcome.class() == Class::Local {
        return format!("{many} could not be asked{detail}");
    }
    format!("{many} {} closed ({})", is(of(&sweep.outcomes)), kinds(&sweep.outcomes))
}

fn of(outcomes: &BTreeMap<Outcome, usize>) -> usize {
    outcomes.values().sum()
}

fn is(n: usize) -> &'static str {
    if n == 1 { "is" } else { "are" }
}

/// Many observations, added up.
#[derive(Default)]
struct Tally {
    closed: BTreeMap<Outcome, usize>,
    open: BTreeSet<u16>,
    addresses: BTreeSet<IpAddr>,
}

impl Tally {
    fn of<'a>(all: impl Iterator<Item = &'a Observation>) -> Tally {
        let mut tally = Tally::default();
        for seen in all {
            let to = seen.subject.dialled;
            tally.addresses.extend(to.map(|to| to.ip()));
            match &seen.evidence.sweep {
                Some(sweep) => sweep.outcomes.iter().for_each(|(outcome, n)| *tally.closed.entry(*outcome).or_default() += n),
                None if seen.outcome.class() == Class::Open => tally.open.extend(to.map(|to| to.port())),
                None => *tally.closed.entry(seen.outcome).or_default() += 1,
            }
        }
        tally
    }

    fn whose(&self, check: &Check) -> String {
        match self.addresses.first() {
            Some(one) if self.addresses.len() == 1 => one.to_string(),
            _ => format!("{} addresses of {}", grouped(self.addresses.len()), check.target),
        }
    }

    fn closed(&self, check: &Check) -> String {
        let n = of(&self.closed);
        format!("{} of {} {} closed ({})", ports(n), self.whose(check), is(n), kinds(&self.closed))
    }
}

fn all_closed(check: &Check, judged: &[Judged]) -> String {
    let tally = Tally::of(judged.iter().map(|j| &j.seen));
    let besides = match tally.open.len() {
        0 => String::new(),
        1 => format!(", and {} is open as it must be", listed(&tally.open)),
        _ => format!(", and {} are open as they must be", listed(&tally.open)),
    };
    format!("{}{besides}", tally.closed(check))
}

fn some_open(judged: &[Judged], one: &Judged) -> Option<String> {
    let ip = one.seen.subject.dialled?.ip();
    let at = |j: &Judged| j.seen.subject.dialled.map(|to| to.ip());
    let is_open = |j: &&Judged| matches!(j.verdict, Verdict::Violated(Cause::Open));
    let open = Tally::of(judged.iter().filter(is_open).filter(|j| at(j) == Some(ip)).map(|j| &j.seen)).open;
    let closed = judged.iter().filter(|j| at(j) == Some(ip) && j.seen.outcome.class() == Class::Closed);
    let closed = match of(&Tally::of(closed.map(|j| &j.seen)).closed) {
        0 => String::new(),
        1 => " (1 other port did not)".into(),
        n => format!(" ({} other ports did not)", grouped(n)),
    };
    let others: BTreeSet<IpAddr> = judged.iter().filter(is_open).filter_map(at).filter(|other| *other != ip).collect();
    let elsewhere = match others.len() {
        0 => String::new(),
        1 => " and so did 1 more address".into(),
        n => format!(" and so did {n} more addresses"),
    };
    Some(format!("{ip} let us in by {} {}{closed}{elsewhere}", if open.len() == 1 { "port" } else { "ports" }, listed(&open)))
}

fn ports(n: usize) -> String {
    format!("{} port{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// Ports by name, as many as can be read.
fn listed(ports: &BTreeSet<u16>) -> String {
    let shown = PortSet::of(ports.iter().copied().take(MAX_NAMED)).to_string();
    match ports.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn kinds(outcomes: &BTreeMap<Outcome, usize>) -> String {
    let kind = |(outcome, n): (&Outcome, &usize)| format!("{} {outcome}", grouped(*n));
    outcomes.iter().map(kind).collect::<Vec<_>>().join(", ")
}

/// A number with its thousands apart.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([1, 999, 1000, 65_530, 1_048_576].map(grouped), ["1", "999", "1,000", "65,530", "1,048,576"]);
    }

    #[test]
    fn ports_are_named_up_to_a_bound() {
        assert_eq!(listed(&[22, 80, 81].into()), "22, 80-81");
        assert_eq!(listed(&(1..=10).map(|n| n * 10).collect()), "10, 20, 30, 40, 50, 60, 70, 80 and 2 more");
    }
}

//! Sweeps in words: many ports in one sentence.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::observation::{Class, Observation, Outcome, Sweep};
use crate::plan::Check;
use crate::target::PortSet;
use crate::verdict::{Cause, Judged, Verdict};

/// The most ports and addresses that are named.
const MAX_NAMED: usize = 8;

/// What a sweep that holds, or found an open door, has seen as a whole; none where one observation tells it better.
pub(super) fn as_a_whole(check: &Check, cause: Cause, judged: &[Judged], one: &Judged) -> Option<String> {
    match cause {
        Cause::AsExpected => Some(all_closed(check, judged)),
        Cause::Open => some_open(judged, one),
        _ => None,
    }
}

/// What was seen of the many ports of one slice.
pub(super) fn of_many(seen: &Observation, sweep: &Sweep) -> String {
    let detail = seen.evidence.detail.as_ref().map_or(String::new(), |d| format!(": {d}"));
    if seen.outcome.class() == Class::Local {
        return format!("{} of {} could not be asked{detail}", ports(of(&sweep.outcomes)), seen.subject.address);
    }
    format!("{} of {} closed ({})", are(of(&sweep.outcomes)), seen.subject.address, kinds(&sweep.outcomes))
}

fn of(outcomes: &BTreeMap<Outcome, usize>) -> usize {
    outcomes.values().sum()
}

fn are(n: usize) -> String {
    format!("{} {}", ports(n), if n == 1 { "is" } else { "are" })
}

fn all_closed(check: &Check, judged: &[Judged]) -> String {
    let mut closed: BTreeMap<Outcome, usize> = BTreeMap::new();
    let mut open: Vec<u16> = Vec::new();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for seen in judged.iter().map(|j| &j.seen) {
        let to = seen.subject.dialled;
        addresses.extend(to.map(|to| to.ip()));
        match &seen.evidence.sweep {
            Some(sweep) => sweep.outcomes.iter().for_each(|(outcome, n)| *closed.entry(*outcome).or_default() += n),
            None if seen.outcome.class() == Class::Open => open.extend(to.map(|to| to.port())),
            None => *closed.entry(seen.outcome).or_default() += 1,
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    open.sort_unstable();
    open.dedup();
    let whose = match addresses.as_slice() {
        [one] => one.to_string(),
        many => format!("{} addresses of {}", grouped(many.len()), check.target),
    };
    let besides = match open.len() {
        0 => String::new(),
        1 => format!(", and {} is open as it must be", listed(&open)),
        _ => format!(", and {} are open as they must be", listed(&open)),
    };
    format!("{} of {whose} {} closed ({}){besides}", ports(of(&closed)), if of(&closed) == 1 { "is" } else { "are" }, kinds(&closed))
}

fn some_open(judged: &[Judged], one: &Judged) -> Option<String> {
    let ip = one.seen.subject.dialled?.ip();
    let of_it = || judged.iter().filter(|j| j.seen.subject.dialled.is_some_and(|to| to.ip() == ip));
    let is_open = |j: &&Judged| matches!(j.verdict, Verdict::Violated(Cause::Open));
    let mut open: Vec<u16> = of_it().filter(is_open).filter_map(|j| Some(j.seen.subject.dialled?.port())).collect();
    open.sort_unstable();
    open.dedup();
    let closed: usize = of_it().filter_map(|j| j.seen.evidence.sweep.as_ref()).map(|sweep| of(&sweep.outcomes)).sum();
    let mut others: Vec<IpAddr> =
        judged.iter().filter(is_open).filter_map(|j| Some(j.seen.subject.dialled?.ip())).filter(|o| *o != ip).collect();
    others.sort_unstable();
    others.dedup();
    let besides = if closed == 0 { String::new() } else { format!(" ({} not)", are(closed)) };
    let elsewhere = if others.is_empty() { String::new() } else { format!(", and {} more addresses have such, too", others.len()) };
    Some(format!("{ip} let us in by {} {}{besides}{elsewhere}", if open.len() == 1 { "port" } else { "ports" }, listed(&open)))
}

fn ports(n: usize) -> String {
    format!("{} port{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// Ports by name, as many as can be read.
fn listed(ports: &[u16]) -> String {
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
        assert_eq!(listed(&[22, 80, 81]), "22, 80-81");
        assert_eq!(listed(&(1..=10).map(|n| n * 10).collect::<Vec<_>>()), "10, 20, 30, 40, 50, 60, 70, 80 and 2 more");
    }
}

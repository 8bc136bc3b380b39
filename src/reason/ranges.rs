//! The words for lists of networks: what the publisher did, and what is to be done with our own.

use crate::observation::{Drift, Observation, Outcome, Stage};
use crate::plan::Check;
use crate::probe::{Probe, Ranges};
use crate::verdict::{Judged, Verdict};

/// What became of the list, as the start of a sentence; none where that needs no words of its own.
pub(super) fn happened(seen: &Observation, check: &Check) -> Option<String> {
    let (Probe::Ranges(_), Some(detail)) = (&check.probe, &seen.evidence.detail) else { return None };
    let who = match seen.stage {
        Stage::File => seen.subject.address.clone(),
        _ => format!("{} (at {})", check.target, seen.subject.address),
    };
    match seen.outcome {
        Outcome::QueryTrue => Some(format!("{who} publishes {detail}")),
        Outcome::QueryFalse => Some(format!("{who} publishes another list than is expected, {detail}")),
        Outcome::Mismatch => Some(format!("{who} gave nothing to compare: {detail}")),
        Outcome::LocalError => Some(format!("{who} could not be compared: {detail}")),
        Outcome::Status(code) => Some(format!("{who} answered {code} {detail}")),
        _ => None,
    }
}

/// What to do about a list that is not as expected, or that could not be had.
pub(super) fn advice(ranges: &Ranges, one: &Judged) -> String {
    let file = ranges.expected.name();
    let new = format!("clients from what is new are refused here until it stands in {file}");
    let gone = format!("what is published no more may be somebody else's tomorrow, and is let in for as long as it stands in {file}");
    let drift = one.seen.evidence.ranges.as_ref().and_then(|seen| seen.drift);
    if one.seen.evidence.ranges.as_ref().is_some_and(|seen| seen.everybody) {
        return format!("that is everybody, and no list of a publisher: add it to {file} in no case, and ask the publisher what it means.");
    }
    match (&one.verdict, drift) {
        (Verdict::Violated(_), Some(Drift::Widened)) => format!("{new}. See that the publisher means it, and add it there."),
        (Verdict::Violated(_), Some(Drift::Narrowed)) => format!("{gone}. See that the publisher means it, and take it out there."),
        (Verdict::Violated(_), Some(Drift::Changed)) => {
            format!("{gone}, and {new}. See that the publisher means it, and write {file} anew.")
        }
        _ => {
            "without the list nothing can be said of it. Get it by hand, and see whether its place, its form or the way to it has changed."
                .into()
        }
    }
}

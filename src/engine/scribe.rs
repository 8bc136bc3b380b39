//! The scribe: from a judged run to its record, sorted, bounded, and told in words.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Began;
use crate::clock::Moment;
use crate::memory::Memory;
use crate::observation::{Family, Outcome};
use crate::plan::{Check, Plan};
use crate::reason;
use crate::record::{About, DenialChanged, Exposure, MAX_OBSERVATIONS, Origin, Record, Seen, WitnessRecord};
use crate::secret::mask;
use crate::verdict::{Cause, Folded, Judged, Verdict, latch};

/// What readers need to know of the check.
pub(super) fn about(check: &Check, plan: &Plan) -> About {
    let (line, column) = check.position;
    let about = About {
        name: check.name.clone(),
        kind: check.probe.kind().token(),
        target: check.target.clone(),
        expect: check.expect.clone(),
        severity: check.severity,
        runbook: check.runbook.clone(),
        description: check.description.clone(),
        labels: check.labels.clone(),
        tags: check.tags.clone(),
        inverted: check.expectation.is_inverted(),
        stale_after: check.stale_after(),
        exception: plan.exception_of(&check.name, &check.target).cloned(),
        origin: plan.file.clone().map(|file| Origin { file, line, column }),
    };
    about.shown(|text| mask(text, &plan.masks))
}

/// The record of one run.
pub(super) fn record(
    check: &Check,
    plan: &Plan,
    judged: &[Judged],
    folded: Folded,
    denial_changed: Vec<DenialChanged>,
    memory: &Memory,
    began: Began,
) -> Record {
    let reason = reason::sentence(check, &plan.vantage, &folded.verdict, judged, folded.decisive);
    let decisive = folded.decisive.and_then(|at| judged.get(at));
    let holds = matches!(folded.verdict, Verdict::Holds(_));
    let mut ranked: Vec<&Judged> = judged.iter().collect();
    ranked.sort_by_key(|j| std::cmp::Reverse(j.verdict.rank()));
    // Of a long suite the first of each technique comes before the rest of the same verdict, so that the bound leaves none out.
    let mut known = BTreeSet::new();
    let again: Vec<bool> = ranked.iter().map(|j| j.seen.subject.technique.is_some_and(|t| !known.insert(t))).collect();
    let mut ranked: Vec<(bool, &Judged)> = again.into_iter().zip(ranked).collect();
    ranked.sort_by_key(|(again, j)| (std::cmp::Reverse(j.verdict.rank()), *again));
    let record = Record {
        about: Arc::new(about(check, plan)),
        cause: folded.verdict.cause(),
        verdict: folded.verdict,
        reason,
        contradicted: None,
        reproduce: if holds { None } else { decisive.and_then(|j| check.probe.by_hand(&j.seen.subject, check.timeout)) },
        proofs: folded.proofs,
        not_covered: Family::BOTH.into_iter().filter(|f| !check.families.contains(f)).collect(),
        started_at: began.wall,
        duration: Moment::now().since(began.at),
        exposure: if check.expectation.is_inverted() { memory.exposure } else { Exposure::default() },
        denial_changed,
        coverage: None,
        observations: ranked.into_iter().take(MAX_OBSERVATIONS).map(|(_, judged)| seen(judged)).collect(),
        witnesses: witnesses(check, judged),
        began: began.at,
    };
    record.shown(|text| mask(text, &plan.masks))
}

/// What stands on the board until the first run after a restart: a violation does not end because the monitor did (SPEC 2.4).
pub(super) fn latched(check: &Check, plan: &Plan, memory: &Memory, began: Began) -> Record {
    let verdict = latch(memory.violated, check.expectation.is_inverted(), Verdict::Unproven(Cause::Pending));
    let reason = "it was violated before this monitor started, and no run has held since; it has not run again yet".to_string();
    let pending = Record::without_observation(Arc::new(about(check, plan)), verdict.cause(), reason, began.at, began.wall);
    Record { verdict, exposure: memory.exposure, ..pending }
}

fn seen(one: &Judged) -> Seen {
    let o = &one.seen;
    let uneven = o.attempts.windows(2).any(|w| matches!(w, [a, b] if a != b));
    Seen {
        address: o.subject.address.clone(),
        verdict: one.verdict.clone(),
        cause: one.verdict.cause(),
        outcome: o.outcome,
        stage: o.stage,
        elapsed_ms: (o.elapsed.as_secs_f64() * 10_000.0).round() / 10.0,
        attempts: o.attempts.len(),
        attempt_outcomes: if uneven { o.attempts.clone() } else { Vec::<Outcome>::new() },
        technique: o.subject.technique,
        variant: o.subject.variant.clone(),
        asked: o.subject.asked.clone(),
        proofs: one.proofs,
        flows: o.flows.clone(),
        defence: Vec::new(),
        evidence: o.evidence.clone(),
    }
}

/// Each named witness over the whole run: proven where it was so around every observation.
fn witnesses(check: &Check, judged: &[Judged]) -> Vec<WitnessRecord> {
    let named = |at: usize| {
        let testimonies: Vec<_> = judged.iter().filter_map(|j| j.witnesses.get(at)).collect();
        let name = testimonies.first().map(|(name, _)| name.clone())?;
        let proven: Vec<_> = testimonies.iter().filter_map(|(_, t)| t.as_ref().ok()).collect();
        let why = testimonies.iter().find_map(|(_, t)| t.as_ref().err()).map(ToString::to_string);
        Some(WitnessRecord {
            name,
            proven: why.is_none(),
            before: proven.iter().map(|p| p.before()).min(),
            after: proven.iter().map(|p| p.after()).max(),
            why,
        })
    };
    // One more than are named where a sweep's open ports are its witness.
    (0..=check.witnesses.len()).filter_map(named).collect()
}

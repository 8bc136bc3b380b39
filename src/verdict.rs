//! Verdicts: holds, violated or unproven. Pure judgement of facts; the only source of a `holds`.
//!
//! Beside [`judge`]: the fold of a run, the latch over runs, and freshness when a verdict is read.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::clock::Moment;
use crate::expectation::{Expectation, Reading};
use crate::observation::{Observation, Outcome};
use crate::witness::{Lapse, Proof, ProofSet, Proven};

/// The longest grace past a missed run, besides the run itself (SPEC 2.4).
pub const MAX_GRACE: Duration = Duration::from_secs(300);

/// What a run or an observation comes to. No `Default` and no `bool`: nothing holds by omission.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// As the check demands, with every proof it requires.
    Holds(Held),
    /// Not as the check demands.
    Violated(Cause),
    /// Neither could be shown.
    Unproven(Cause),
}

/// The right to say `holds`. Only [`judge`] can make one.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    _private: (),
}

/// Why a verdict is what it is (SPEC section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// As the check demands.
    AsExpected,
    /// An inverted check was let in.
    Open,
    /// A positive check failed.
    NotOpen,
    /// Closed, but not as the check demands.
    OtherDenial,
    /// No witness shows what the verdict would need.
    NoWitness,
    /// A witness that the check names did not get through around the observation.
    WitnessFailed,
    /// Our own host failed.
    Local,
    /// Something between answers for everybody.
    Intercepted,
    /// The target's name did not resolve.
    Resolve,
    /// Less was attempted than the plan demands.
    Coverage,
    /// No run yet.
    Pending,
    /// The last run is too long ago.
    Stale,
    /// Violated before, and no run has held since.
    Latched,
}

/// What the judge knows besides the observation: the check's demands.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// What the check accepts.
    pub expectation: &'a Expectation,
    /// The proofs that a `holds` of an inverted check must have.
    pub require: ProofSet,
    /// The attempts that a block must have survived.
    pub attempts: usize,
}

impl Claim<'_> {
    /// The proofs that a `holds` of this observation must have.
    pub fn required(&self, seen: &Observation) -> ProofSet {
        if self.expectation.needs_target_for(seen) { self.require.with(Proof::Target) } else { self.require }
    }
}

/// What one named witness has to say around one observation.
pub type Testimony = (String, Result<Proven, Lapse>);

/// One judged observation.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The facts.
    pub seen: Observation,
    /// What they come to.
    pub verdict: Verdict,
    /// What the witnesses have shown for it.
    pub proofs: ProofSet,
    /// Every named witness, in the order of the check.
    pub witnesses: Vec<Testimony>,
}

/// Judges one observation (SPEC 2.1; the numbers are its rules).
pub fn judge(seen: Observation, claim: Claim<'_>, witnesses: Vec<Testimony>) -> Judged {
    let proofs = witnesses.iter().filter_map(|(_, t)| t.as_ref().ok()).fold(ProofSet::NONE, |all, p| all.or(p.proofs()));
    let all_proven = witnesses.iter().all(|(_, t)| t.is_ok());
    let authenticated = seen.evidence.authenticated.is_some();
    let inverted = claim.expectation.is_inverted();
    let no_proof = if all_proven { Cause::NoWitness } else { Cause::WitnessFailed };
    let not_as_demanded = if inverted { Cause::OtherDenial } else { Cause::NotOpen };

    let verdict = match claim.expectation.read(&seen, claim.attempts) {
        Reading::Local => Verdict::Unproven(local_cause(&seen)), // 1
        Reading::Contrary => Verdict::Violated(if inverted { Cause::Open } else { Cause::NotOpen }), // 2
        Reading::Incomplete => Verdict::Unproven(Cause::Coverage), // 3
        Reading::Mixed | Reading::Undecided => Verdict::Unproven(not_as_demanded), // 3
        Reading::Accepted if !inverted => Verdict::Holds(Held { _private: () }), // 4
        Reading::Accepted if all_proven && claim.required(&seen).without(proofs).is_empty() => Verdict::Holds(Held { _private: () }), // 3
        Reading::Accepted => Verdict::Unproven(no_proof),        // 3
        Reading::Answered if all_proven || authenticated => Verdict::Violated(not_as_demanded), // 5
        Reading::Answered => Verdict::Unproven(Cause::WitnessFailed), // 5
        Reading::Silent if !proofs.is_empty() => Verdict::Violated(not_as_demanded), // 5
        Reading::Silent => Verdict::Unproven(no_proof),          // 5
    };
    Judged { seen, verdict, proofs, witnesses }
}

impl Judged {
    /// The same in a run that was cut short: it shows no block, since what was still to be seen there may have been open.
    /// A witness that had no time to run afterwards has not failed.
    #[must_use]
    pub fn cut_short(mut self) -> Judged {
        let only_late = self.witnesses.iter().all(|(_, t)| matches!(t, Ok(_) | Err(Lapse::NoneAfter)));
        if matches!(self.verdict, Verdict::Holds(_)) || (self.verdict == Verdict::Unproven(Cause::WitnessFailed) && only_late) {
            self.verdict = Verdict::Unproven(Cause::Coverage);
        }
        self
    }

    /// The same where those who vouch for it were never heard: only an open door needs nobody.
    #[must_use]
    pub fn unheard(mut self) -> Judged {
        if self.verdict != Verdict::Violated(Cause::Open) {
            self.verdict = Verdict::Unproven(Cause::Coverage);
        }
        self
    }
}

fn local_cause(seen: &Observation) -> Cause {
    match seen.outcome {
        Outcome::ResolveError => Cause::Resolve,
        _ if seen.evidence.intercepted => Cause::Intercepted,
        _ => Cause::Local,
    }
}

/// What a run comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// The worst of its observations.
    pub verdict: Verdict,
    /// What every one of its observations has.
    pub proofs: ProofSet,
    /// Which observation decided; none where nothing was observed.
    pub decisive: Option<usize>,
}

/// Folds a run (SPEC 2.2): the worst of its observations, and of violations an open door before another denial.
/// Nothing attempted, or fewer than `planned`, is never `holds`.
pub fn fold(judged: &[Judged], planned: usize) -> Folded {
    let worst =
        judged.iter().enumerate().max_by_key(|(at, j)| (j.verdict.rank(), j.verdict.cause() == Cause::Open, std::cmp::Reverse(*at)));
    let Some((at, worst)) = worst else {
        return Folded { verdict: Verdict::Unproven(Cause::Coverage), proofs: ProofSet::NONE, decisive: None };
    };
    let short = judged.len() < planned && matches!(worst.verdict, Verdict::Holds(_));
    let verdict = if short { Verdict::Unproven(Cause::Coverage) } else { worst.verdict.clone() };
    let proofs = judged.iter().fold(ProofSet::ALL, |all, j| all.and(j.proofs));
    Folded { verdict, proofs, decisive: (!short).then_some(at) }
}

/// Holds an inverted check violated until a run holds (SPEC 2.4): what was seen open is not closed by not being seen.
pub fn latch(was_violated: bool, inverted: bool, now: Verdict) -> Verdict {
    match now {
        Verdict::Unproven(_) if was_violated && inverted => Verdict::Violated(Cause::Latched),
        other => other,
    }
}

/// How old a record may grow before it proves nothing any more (SPEC 2.4).
pub fn stale_after(interval: Duration, worst_run: Duration) -> Duration {
    interval + interval.min(MAX_GRACE) + worst_run
}

/// The verdict as judged when it is read. A stale one is `unproven`, but a latched or violated inverted check stays violated.
pub fn when_read(verdict: &Verdict, inverted: bool, began: Moment, stale_after: Duration, now: Moment) -> Verdict {
    if now.since(began) <= stale_after {
        return verdict.clone();
    }
    let was_violated = matches!(verdict, Verdict::Violated(_));
    latch(was_violated, inverted, Verdict::Unproven(Cause::Stale))
}

impl Verdict {
    /// Every verdict's token, from best to worst.
    pub const TOKENS: [&'static str; 3] = ["holds", "unproven", "violated"];

    /// The token of reports and metrics.
    pub fn token(&self) -> &'static str {
        match self {
            Verdict::Holds(_) => "holds",
            Verdict::Violated(_) => "violated",
            Verdict::Unproven(_) => "unproven",
        }
    }

    /// Why.
    pub fn cause(&self) -> Cause {
        match self {
            Verdict::Holds(_) => Cause::AsExpected,
            Verdict::Violated(cause) | Verdict::Unproven(cause) => *cause,
        }
    }

    /// How bad it is: `violated` over `unproven` over `holds`.
    pub fn rank(&self) -> u8 {
        match self {
            Verdict::Holds(_) => 0,
            Verdict::Unproven(_) => 1,
            Verdict::Violated(_) => 2,
        }
    }
}

impl Cause {
    /// Every cause with its token.
    pub const TOKENS: [(Cause, &'static str); 13] = [
        (Cause::AsExpected, "as-expected"),
        (Cause::Open, "open"),
        (Cause::NotOpen, "not-open"),
        (Cause::OtherDenial, "other-denial"),
        (Cause::NoWitness, "no-witness"),
        (Cause::WitnessFailed, "witness-failed"),
        (Cause::Local, "local"),
        (Cause::Intercepted, "intercepted"),
        (Cause::Resolve, "resolve"),
        (Cause::Coverage, "coverage"),
        (Cause::Pending, "pending"),
        (Cause::Stale, "stale"),
        (Cause::Latched, "latched"),
    ];
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Cause::TOKENS.iter().find(|row| row.0 == *self).map_or("local", |row| row.1))
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.token())
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

//! Expectations: which outcomes a check accepts, and how an observation reads against them.

use crate::observation::{Attempt, Class, Marker, Observation, Outcome, RefusedFor};

/// SYNs, datagrams or echoes that must have left this host before silence can count as a block (SPEC 2.5).
pub const MIN_SENT: u32 = 3;

/// One accepted outcome, or one range of HTTP statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// This outcome.
    One(Outcome),
    /// Any status from the first to the last, both included.
    Statuses(u16, u16),
}

/// What a check accepts. All of it is open (a positive check) or all of it is closed (an inverted one); never both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    accepts: Vec<Accept>,
    undecided: Vec<Outcome>,
    controlled: Vec<&'static str>,
    refused_for: Option<RefusedFor>,
    by_answers: Option<Outcome>,
    silence_needs_target: bool,
    inverted: bool,
}

/// How an observation reads against an expectation, before any witness is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Class local: our own side failed, this says nothing about the target.
    Local,
    /// An inverted check was let in, or the beacon saw a foreign egress address. Settled: nothing later clears it.
    Contrary,
    /// As the check demands; inverted: in every one of its attempts.
    Accepted,
    /// Fewer attempts than planned were made.
    Incomplete,
    /// The attempts disagree: some were accepted, some were not.
    Mixed,
    /// An outcome that by its nature decides nothing for this check.
    Undecided,
    /// Somebody answered, and not as the check demands.
    Answered,
    /// Nobody answered, and silence is not what the check demands.
    Silent,
}

impl Expectation {
    /// An expectation that accepts these outcomes.
    ///
    /// # Errors
    /// Where the list is empty, mixes open with closed, or accepts what can never be accepted.
    pub fn new(accepts: Vec<Accept>) -> Result<Expectation, String> {
        let class = |a: &Accept| match a {
            Accept::One(o) => o.class(),
            Accept::Statuses(low, _) => Outcome::Status(*low).class(),
        };
        if let Some(Accept::One(local)) = accepts.iter().find(|a| class(a) == Class::Local) {
            return Err(format!("\"{local}\" is a failure of the monitor itself and can never be accepted; leave it out"));
        }
        let open = accepts.iter().filter(|a| class(a) == Class::Open).count();
        if accepts.is_empty() {
            return Err("nothing is accepted; write \"open\", \"blocked\" or at least one outcome".into());
        }
        if open != 0 && open != accepts.len() {
            return Err(
                "the list mixes open outcomes with closed ones, so it can neither prove a way nor a block; split it into two checks".into(),
            );
        }
        Ok(Expectation {
            accepts,
            undecided: Vec::new(),
            controlled: Vec::new(),
            refused_for: None,
            by_answers: None,
            silence_needs_target: false,
            inverted: open == 0,
        })
    }

    /// Names outcomes that decide nothing (SPEC section 8: `gateway-error` and `mute` of an open-proxy check).
    #[must_use]
    pub fn undecided_on(mut self, outcomes: &[Outcome]) -> Expectation {
        self.undecided = outcomes.to_vec();
        self
    }

    /// Of an inverted check: only what it accepts, and this one answer, decide anything. Who was not answered has asked in vain, and
    /// who was answered by somebody else than he asked (a login page, a broken answer) has heard neither yes nor no.
    #[must_use]
    pub fn decided_by_answers(mut self, contrary: Outcome) -> Expectation {
        self.by_answers = self.inverted.then_some(contrary);
        self
    }

    /// Of a positive check: it is violated by this one answer alone, and by that even where it was given once and not again. Who could
    /// not be asked, or answered with something else, has said neither yes nor no.
    #[must_use]
    pub fn denied_only_by(mut self, contrary: Outcome) -> Expectation {
        self.by_answers = (!self.inverted).then_some(contrary);
        self
    }

    /// The one answer that violates it, where no other does.
    pub fn only_violated_by(&self) -> Option<Outcome> {
        self.by_answers
    }

    /// Demands of every refusal, where it can be told, that it was for this.
    #[must_use]
    pub fn refused_for(mut self, what: RefusedFor) -> Expectation {
        self.refused_for = Some(what);
        self
    }

    /// Names techniques that a witness relays with through the same proxy: for these, `not-understood` is no denial (SPEC section 8).
    #[must_use]
    pub fn controlled_by(mut self, techniques: Vec<&'static str>) -> Expectation {
        self.controlled = techniques;
        self
    }

    /// Silence alone is no block: an open UDP port may be as silent, so the target must be shown to answer (SPEC section 4).
    #[must_use]
    pub fn silence_needs_target(mut self) -> Expectation {
        self.silence_needs_target = true;
        self
    }

    /// Whether this observation was silent where silence needs the proof `target`.
    pub fn needs_target_for(&self, seen: &Observation) -> bool {
        self.silence_needs_target && seen.attempts.iter().any(|o| o.is_silence())
    }

    /// Whether silence needs the proof `target`.
    pub fn needs_target_for_silence(&self) -> bool {
        self.silence_needs_target
    }

    /// Whether silence is all that it accepts.
    pub fn accepts_nothing_but_silence(&self) -> bool {
        self.accepts.iter().all(|a| *a == Accept::One(Outcome::Timeout))
    }

    /// The outcomes that decide nothing.
    pub fn undecided(&self) -> &[Outcome] {
        &self.undecided
    }

    /// What it accepts is all closed.
    pub fn is_inverted(&self) -> bool {
        self.inverted
    }

    /// Whether this outcome is one of the accepted.
    pub fn accepts(&self, outcome: Outcome) -> bool {
        self.accepts.iter().any(|a| match (a, outcome) {
            (Accept::One(one), _) => *one == outcome,
            (Accept::Statuses(low, high), Outcome::Status(code)) => (*low..=*high).contains(&code),
            (Accept::Statuses(..), _) => false,
        })
    }

    /// Whether silence is accepted as a block.
    pub fn accepts_silence(&self) -> bool {
        self.accepts(Outcome::Timeout)
    }

    /// Whether an attempt with this outcome ends the matter: no further attempt could change the verdict.
    pub fn settled_by(&self, outcome: Outcome) -> bool {
        match self.inverted {
            true => self.is_contrary(outcome),
            false => self.accepts(outcome) || outcome == Outcome::EgressOther,
        }
    }

    /// Of an inverted check: whether this outcome shows that we were let in.
    fn is_contrary(&self, outcome: Outcome) -> bool {
        self.by_answers.map_or(outcome.class() == Class::Open, |contrary| outcome == contrary)
    }

    /// Whether this attempt ends the matter, by its outcome or, where it is a variant of a request, by what it brought back.
    pub fn settled_by_attempt(&self, attempt: &Attempt) -> bool {
        match attempt.evidence.marker {
            Some(marker) => marker == Marker::Found,
            None => self.settled_by(attempt.outcome),
        }
    }

    /// How the observation reads; `attempts` is how many the plan demands of a block.
    pub fn read(&self, seen: &Observation, attempts: usize) -> Reading {
        if let Some(marker) = seen.evidence.marker {
            return self.read_variant(seen, marker, attempts);
        }
        let let_in = self.inverted && (self.is_contrary(seen.outcome) || seen.attempts.iter().any(|o| self.is_contrary(*o)));
        let any_local = seen.attempts.iter().any(|o| o.class() == Class::Local);
        if seen.outcome.class() == Class::Local || (self.inverted && any_local && !let_in) {
            return Reading::Local;
        }
        if let_in || seen.outcome == Outcome::EgressOther {
            return Reading::Contrary;
        }
        if !self.inverted && self.accepts(seen.outcome) {
            return Reading::Accepted;
        }
        if !self.inverted && self.by_answers.is_some_and(|no| seen.attempts.contains(&no)) {
            return Reading::Answered;
        }
        if self.inverted && seen.evidence.swept_as.is_some_and(|o| o.class() == Class::Open) {
            // One of the two ways to ask says that it is open.
            return Reading::Undecided;
        }
        let excused = |o: Outcome| o == Outcome::Mute && seen.evidence.excused_by.is_some();
        let undecided =
            |o: Outcome| self.is_undecided(o, seen.subject.technique) || (self.inverted && seen.subject.via && may_be_the_proxy(o));
        if seen.evidence.shut_out || seen.attempts.iter().any(|o| undecided(*o) && !excused(*o)) {
            return Reading::Undecided;
        }
        let accepted = seen.attempts.iter().filter(|o| self.accepts(**o) || (excused(**o) && self.undecided.contains(o))).count();
        let answered = seen.attempts.iter().any(|o| !o.is_silence());
        match accepted {
            0 if answered => Reading::Answered,
            0 if self.is_beside_the_point(seen) => Reading::Undecided,
            0 => Reading::Silent,
            n if n < seen.attempts.len() => Reading::Mixed,
            _ if self.is_beside_the_point(seen) => Reading::Undecided,
            _ if seen.fewest_sent.is_some_and(|n| n < MIN_SENT) => Reading::Local,
            n if n < attempts => Reading::Incomplete,
            _ => Reading::Accepted,
        }
    }

    /// How a variant of a denied request reads (SPEC section 9): it is an exposure only where it brought back the page that must
    /// not be seen. Any other answer is none, whatever its status, as long as it was one and was read whole; and so is an end
    /// without an answer, as long as the target ended it. Who let us in without having been asked has not said that the page is kept from us.
    fn read_variant(&self, seen: &Observation, marker: Marker, attempts: usize) -> Reading {
        if seen.outcome.class() == Class::Local {
            return Reading::Local;
        }
        if marker == Marker::Found {
            return Reading::Contrary;
        }
        if seen.attempts.iter().any(|o| o.class() == Class::Local) {
            return Reading::Local;
        }
        let untold = match marker {
            Marker::Everywhere | Marker::Cut | Marker::Shunned | Marker::Unheard => true,
            Marker::Unseen => seen.outcome.class() == Class::Open,
            Marker::Found | Marker::Absent => false,
        };
        let no_answer = |o: &Outcome| matches!(o, Outcome::Mute | Outcome::BadHttp);
        if untold || seen.attempts.iter().any(no_answer) {
            return Reading::Undecided;
        }
        match seen.attempts.len() {
            _ if seen.fewest_sent.is_some_and(|n| n < MIN_SENT) => Reading::Local,
            n if n < attempts => Reading::Incomplete,
            _ => Reading::Accepted,
        }
    }

    fn is_undecided(&self, outcome: Outcome, technique: Option<&'static str>) -> bool {
        let controlled = technique.is_some_and(|t| self.controlled.contains(&t));
        self.undecided.contains(&outcome)
            || (controlled && outcome == Outcome::NotUnderstood)
            || (self.by_answers.is_some() && !self.accepts(outcome) && !self.is_contrary(outcome))
    }

    /// Refused, but for something else than the check is about: whoever differs from us in that may get in.
    fn is_beside_the_point(&self, seen: &Observation) -> bool {
        let (demanded, found) = (self.refused_for, seen.evidence.refused_for);
        let for_something_else = demanded.is_some() && found.is_some() && found != demanded && seen.evidence.excused_by.is_none();
        // What was last seen is no longer known, and was not what the check accepts.
        for_something_else || seen.evidence.query.as_ref().is_some_and(|q| q.stale)
    }
}

/// Outcomes that a broken proxy on the way makes as well as a target that keeps us out: no block of the target.
/// What the proxy itself answers, the target's alert and its status have tokens of their own.
fn may_be_the_proxy(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Refused | Outcome::Prohibited | Outcome::Unreachable | Outcome::Timeout | Outcome::Reset | Outcome::Closed | Outcome::Mute
    )
}

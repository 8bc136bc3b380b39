//! Records: one judged run with its evidence. The only type that readers see: bounded, redacted, serialisable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::clock::{Moment, Wall};
use crate::defence::Sighting;
use crate::exception::Exception;
use crate::observation::{Evidence, Family, Flow, Outcome, Stage};
use crate::severity::Severity;
use crate::verdict::{Cause, Verdict, when_read};
use crate::witness::ProofSet;

/// The most observations that one record carries; what is worst comes first.
pub const MAX_OBSERVATIONS: usize = 256;

/// What a reader needs to know of a check, before and after it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct About {
    /// Unique name.
    pub name: String,
    /// The kind's token.
    pub kind: &'static str,
    /// The target as written.
    pub target: String,
    /// `expect` as written.
    pub expect: String,
    /// How bad a violation is.
    pub severity: Severity,
    /// Where to read what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// What the check is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The user's own labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Words to select it by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What it accepts is all closed.
    #[serde(skip)]
    pub inverted: bool,
    /// How old its record may grow before it proves nothing.
    #[serde(skip)]
    pub stale_after: Duration,
    /// Its exception, in force or over; readers say which ([`About::excepted`]).
    #[serde(skip)]
    pub exception: Option<Arc<Exception>>,
    /// Where it is written; none where it is in no file.
    #[serde(skip)]
    pub origin: Option<Origin>,
}

/// Where a check is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file, relative to the working directory where it lies below that, else absolute.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// One judged run.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// The check that ran.
    #[serde(flatten)]
    pub about: Arc<About>,
    /// What the run came to.
    pub verdict: Verdict,
    /// Why.
    pub cause: Cause,
    /// The same as a sentence: what happened, to whom, seen from where, and what to do.
    pub reason: String,
    /// Why the log of a defence contradicts it: what was judged to be blocked there was let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contradicted: Option<String>,
    /// A line that repeats the decisive observation by hand, for a verdict that does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reproduce: Option<String>,
    /// What every one of its observations has.
    pub proofs: ProofSet,
    /// Families that the check leaves out.
    pub not_covered: Vec<Family>,
    /// Wall time of the start.
    pub started_at: Wall,
    /// From start to end.
    #[serde(serialize_with = "as_millis", rename = "duration_ms")]
    pub duration: Duration,
    /// When it was seen open, and closed.
    pub exposure: Exposure,
    /// Still blocked, but by other means than in the run before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denial_changed: Vec<DenialChanged>,
    /// How much of its ports a sweep has asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// What was seen, the worst first, at most [`MAX_OBSERVATIONS`].
    pub observations: Vec<Seen>,
    /// What its witnesses showed.
    pub witnesses: Vec<WitnessRecord>,
    /// The start by the clock that freshness is judged by.
    #[serde(skip)]
    pub began: Moment,
}

/// How much of what it was to ask a sweep has asked, over all its addresses; the ports that must be open are not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Ports that must be closed.
    pub planned: usize,
    /// Of these, those that were asked in every attempt.
    pub attempted: usize,
    /// Of these, those that gave an answer to any, be it an ICMP error.
    pub answered: usize,
}

/// The exposure window of an inverted check, over all its runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Exposure {
    /// First seen open since it last held.
    pub first_open: Option<Wall>,
    /// Last seen open.
    pub last_open: Option<Wall>,
    /// Last seen closed as demanded.
    pub last_closed: Option<Wall>,
}

/// A block that is still a block, by other means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DenialChanged {
    /// The address.
    pub address: String,
    /// How it was blocked in the run before.
    pub from: Outcome,
    /// How it is blocked now.
    pub to: Outcome,
}

/// One judged observation.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// The address as dialled, or the name where a proxy resolves it.
    pub address: String,
    /// What it came to.
    pub verdict: Verdict,
    /// Why.
    pub cause: Cause,
    /// What happened on the wire.
    pub outcome: Outcome,
    /// How deep it got.
    pub stage: Stage,
    /// The deciding attempt's time, in milliseconds.
    pub elapsed_ms: f64,
    /// How many attempts were made.
    pub attempts: usize,
    /// Their outcomes, where they differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempt_outcomes: Vec<Outcome>,
    /// The technique of a suite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub technique: Option<&'static str>,
    /// The variant of a look that is made in several ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What was asked there, where an answer to one question says nothing of another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// What the witnesses have shown for it.
    pub proofs: ProofSet,
    /// Every attempt as it left this host; none where nothing was dialled, or where a sweep asked many ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<Flow>,
    /// What the logs of the defences say of those attempts, at most [`Sighting::MAX`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub defence: Vec<Sighting>,
    /// What shows it.
    pub evidence: Evidence,
}

/// What one witness showed for a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WitnessRecord {
    /// The witness check.
    pub name: String,
    /// Whether it was proven around every observation.
    pub proven: bool,
    /// When the run before the first observation started.
    pub before: Option<Wall>,
    /// When the run after the last observation started.
    pub after: Option<Wall>,
    /// Why it is not proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl About {
    /// What must be so: kind, target and expectation.
    pub fn claim(&self) -> String {
        format!("{} {} must be {}", self.kind, self.target, self.expect)
    }

    /// The exception that is in force at `now`.
    pub fn excepted(&self, now: Wall) -> Option<&Exception> {
        self.exception.as_deref().filter(|exception| exception.active(now))
    }

    /// The same with every text that a file or the environment gave passed through `show`.
    #[must_use]
    pub fn shown(mut self, show: impl Fn(&str) -> String) -> About {
        let optional = |text: Option<String>| text.map(|t| show(&t));
        self.target = show(&self.target);
        self.expect = show(&self.expect);
        self.runbook = optional(self.runbook);
        self.description = optional(self.description);
        self.labels = self.labels.into_iter().map(|(name, value)| (name, show(&value))).collect();
        self.tags = self.tags.iter().map(|t| show(t)).collect();
        self.exception = self.exception.map(|exception| Arc::new(exception.shown(&show)));
        self
    }
}

impl Seen {
    /// The same with every text that could repeat what was sent passed through `show`.
    #[must_use]
    fn shown(mut self, show: impl Fn(&str) -> String) -> Seen {
        let e = &mut self.evidence;
        for text in
            [&mut e.request, &mut e.request_head, &mut e.head, &mut e.detail, &mut e.tls_error, &mut e.beacon_log].into_iter().flatten()
        {
            *text = show(text);
        }
        for text in e.dns.iter_mut().flat_map(|dns| &mut dns.records) {
            *text = show(text);
        }
        let reached = e.peer.iter_mut().flat_map(|p| &mut p.reached).chain(e.query.iter_mut().flat_map(|q| &mut q.reached));
        for there in reached {
            there.address = show(&there.address);
            there.asked = there.asked.take().map(|asked| show(&asked));
        }
        self.address = show(&self.address);
        self.asked = self.asked.map(|asked| show(&asked));
        self
    }
}

impl Record {
    /// The same with every text that could carry a secret passed through `show`; `about` is expected to be shown already.
    #[must_use]
    pub fn shown(mut self, show: impl Fn(&str) -> String) -> Record {
        self.reason = show(&self.reason);
        self.reproduce = self.reproduce.map(|line| show(&line));
        self.observations = self.observations.into_iter().map(|seen| seen.shown(&show)).collect();
        for witness in &mut self.witnesses {
            witness.why = witness.why.take().map(|why| show(&why));
        }
        self
    }

    /// When the first of the certificates that were seen expires, in seconds since 1970.
    pub fn certificate_expires(&self) -> Option<i64> {
        self.observations.iter().filter_map(|o| o.evidence.certificate_expires).min()
    }

    /// Whether the record still says something at `now` (SPEC 2.4).
    pub fn is_fresh(&self, now: Moment) -> bool {
        now.since(self.began) <= self.about.stale_after
    }

    /// The record as judged when it is read: a stale one proves nothing (SPEC 2.4). A check that never ran stays `pending`.
    #[must_use]
    pub fn as_read(&self, now: Moment) -> Record {
        let mut read = self.clone();
        if self.is_fresh(now) || self.cause == Cause::Pending {
            return read;
        }
        read.verdict = when_read(&self.verdict, self.about.inverted, self.began, self.about.stale_after, now);
        read.cause = read.verdict.cause();
        read.proofs = ProofSet::NONE;
        read.reason = format!(
            "no run of {} for {:.0} s, longer than the {:.0} s that its record is good for; before that: {}. See whether the monitor is overloaded, stopped or suspended.",
            self.about.name,
            now.since(self.began).as_secs_f64(),
            self.about.stale_after.as_secs_f64(),
            self.reason.trim_end_matches('.')
        );
        read
    }

    /// The record of a check that has not run yet.
    pub fn pending(about: Arc<About>, at: Moment, wall: Wall) -> Record {
        Record::without_observation(about, Cause::Pending, "it has not run yet".into(), at, wall)
    }

    /// The record of a run that came to nothing.
    pub fn without_observation(about: Arc<About>, cause: Cause, reason: String, began: Moment, started_at: Wall) -> Record {
        Record {
            about,
            verdict: Verdict::Unproven(cause),
            cause,
            reason,
            contradicted: None,
            reproduce: None,
            proofs: ProofSet::NONE,
            not_covered: Vec::new(),
            started_at,
            duration: Duration::ZERO,
            exposure: Exposure::default(),
            denial_changed: Vec::new(),
            coverage: None,
            observations: Vec::new(),
            witnesses: Vec::new(),
            began,
        }
    }
}

fn as_millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

//! Scenes: what is so at one look, as the board and the metrics say it, and which alerts that would be.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Key, Name};
use crate::clock::{Moment, Wall};
use crate::exception::Exception;
use crate::history::Reading;
use crate::metrics::{Drill, Program};
use crate::record::{About, Record};
use crate::severity::Severity;
use crate::verdict::{Cause, Verdict};

/// How long a check that was taken away is missed.
const MISSED: Duration = Duration::from_secs(3600);
/// A certificate that ends so soon is told.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long a contradiction is told after its run.
const CONTRADICTS: Duration = Duration::from_secs(30 * 60);
/// The share of the file descriptors that must be in use to be told.
const DESCRIPTORS: f64 = 0.9;
/// How long the proxy is full after it has turned a client away.
const FULL: Duration = Duration::from_secs(300);

/// What is so at one look.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Where this monitor stands.
    pub vantage: &'a str,
    /// Now, for what lasts.
    pub now: Moment,
    /// Now, for what is told.
    pub wall: Wall,
    /// Every check as the board shows it.
    pub readings: &'a [Reading],
    /// The same, to be found.
    pub places: &'a Places<'a>,
    /// What was violated since the last look, even if it is over.
    pub breaches: &'a [Arc<Record>],
    /// What is true of the whole program.
    pub program: &'a Program,
    /// What is known from looks before.
    pub roll: &'a Roll,
}

/// Where each check stands among the readings: there may be many thousand, and as many alerts that ask.
#[derive(Debug, Clone, Default)]
pub struct Places<'a> {
    targets: HashMap<(&'a str, &'a str), &'a Reading>,
    /// The first of each name.
    names: HashMap<&'a str, &'a Reading>,
}

impl<'a> Places<'a> {
    /// The places of these.
    pub fn of(readings: &'a [Reading]) -> Places<'a> {
        let mut places = Places::default();
        for reading in readings {
            places.targets.insert((&reading.about.name, &reading.about.target), reading);
            places.names.entry(&reading.about.name).or_insert(reading);
        }
        places
    }
}

/// What one look teaches the next: which checks there were, and when the proxy was full.
#[derive(Debug, Clone, Default)]
pub struct Roll {
    seen: BTreeMap<String, Seen>,
    turned_away: f64,
    full: Option<Moment>,
}

#[derive(Debug, Clone)]
struct Seen {
    last: Moment,
    tags: Vec<String>,
    /// Its targets that were violated when they were last seen, and when that was.
    violated: BTreeMap<String, Moment>,
}

/// A check that was there, in the words of the file that is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Known {
    last: Wall,
    tags: Vec<String>,
    violated: BTreeMap<String, Wall>,
}

/// Whether an alert is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// It is so.
    Active,
    /// Nobody knows: what was told stays, and nothing new is.
    Undecided,
}

/// Something that is so, or may be.
#[derive(Debug, Clone)]
pub struct Condition<'a> {
    /// The alert that it would be.
    pub key: Key,
    /// Whether it is so.
    pub now: Now,
    /// What it is about.
    pub what: What<'a>,
    /// The check, with its tags; none: the monitor itself.
    pub check: Option<(&'a str, &'a [String])>,
    /// By whom it is excepted, until when and why, if it is.
    pub exception: Option<String>,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// [`Name::Violated`]
    Violated(&'a Record),
    /// [`Name::Unproven`]
    Unproven(&'a Record),
    /// [`Name::Stale`]
    Stale(&'a Record),
    /// [`Name::CheckGone`]: its name
    CheckGone(&'a str),
    /// [`Name::TargetGone`]: of which check, and which
    TargetGone(&'a str, &'a str),
    /// [`Name::ExceptionExpired`]: of which check
    ExceptionExpired(&'a str, &'a Exception),
    /// [`Name::Contradicted`]
    Contradicted(&'a Record),
    /// [`Name::WitnessDown`]: its name, and what its record says where it has one
    WitnessDown(&'a str, Option<&'a Record>),
    /// [`Name::CertificateExpiresSoon`]: how long until then, in seconds
    CertificateExpiresSoon(&'a Record, i64),
    /// [`Name::DrillFailed`]: the kind
    DrillFailed(&'a str),
    /// [`Name::DrillOverdue`]: the kind, and for how long
    DrillOverdue(&'a str, Duration),
    /// [`Name::ReloadFailed`]
    ReloadFailed,
    /// [`Name::AlertsFailing`]: the sink
    AlertsFailing(&'a str),
    /// [`Name::DescriptorsLow`]: which share is in use
    DescriptorsLow(f64),
    /// [`Name::EgressBudgetSpent`]: in shares of the budget
    EgressBudgetSpent(f64),
    /// [`Name::ProxyDraining`]
    ProxyDraining,
    /// [`Name::ProxyFull`]
    ProxyFull,
}

impl What<'_> {
    /// The alert's name.
    pub fn name(&self) -> Name {
        match self {
            What::Violated(_) => Name::Violated,
            What::Unproven(_) => Name::Unproven,
            What::Stale(_) => Name::Stale,
            What::CheckGone(_) => Name::CheckGone,
            What::TargetGone(..) => Name::TargetGone,
            What::ExceptionExpired(..) => Name::ExceptionExpired,
            What::Contradicted(_) => Name::Contradicted,
            What::WitnessDown(..) => Name::WitnessDown,
            What::CertificateExpiresSoon(..) => Name::CertificateExpiresSoon,
            What::DrillFailed(_) => Name::DrillFailed,
            What::DrillOverdue(..) => Name::DrillOverdue,
            What::ReloadFailed => Name::ReloadFailed,
            What::AlertsFailing(_) => Name::AlertsFailing,
            What::DescriptorsLow(_) => Name::DescriptorsLow,
            What::EgressBudgetSpent(_) => Name::EgressBudgetSpent,
            What::ProxyDraining => Name::ProxyDraining,
            What::ProxyFull => Name::ProxyFull,
        }
    }
}

impl Roll {
    /// Takes note of what is there at this look; asked before the scene is.
    pub fn call(&mut self, readings: &[Reading], program: &Program, now: Moment) {
        for reading in readings {
            let about = &reading.about;
            let new = || Seen { last: now, tags: Vec::new(), violated: BTreeMap::new() };
            if !self.seen.contains_key(&about.name) {
                self.seen.insert(about.name.clone(), new());
            }
            let Some(seen) = self.seen.get_mut(&about.name) else { continue };
            seen.last = now;
            if seen.tags != about.tags {
                seen.tags.clone_from(&about.tags);
            }
            if matches!(reading.record.verdict, Verdict::Violated(_)) {
                seen.violated.insert(about.target.clone(), now);
            } else if !seen.violated.is_empty() {
                seen.violated.remove(&about.target);
            }
        }
        self.seen.retain(|_, seen| now.since(seen.last) <= MISSED);
        self.seen.values_mut().for_each(|seen| seen.violated.retain(|_, last| now.since(*last) <= MISSED));
        if program.turned_away > self.turned_away {
            self.full = Some(now);
        }
        self.turned_away = program.turned_away;
    }

    /// What is kept of it.
    pub fn kept(&self, now: Moment, wall: Wall) -> BTreeMap<String, Known> {
        let then = |last: &Moment| wall.before(now.since(*last));
        let violated = |seen: &Seen| seen.violated.iter().map(|(target, last)| (target.clone(), then(last))).collect();
        let known = |seen: &Seen| Known { last: then(&seen.last), tags: seen.tags.clone(), violated: violated(seen) };
        self.seen.iter().map(|(name, seen)| (name.clone(), known(seen))).collect()
    }

    /// The roll as it was kept.
    pub fn recalled(kept: BTreeMap<String, Known>, now: Moment, wall: Wall) -> Roll {
        let then = |last: Wall| now - wall.since(last);
        let seen = |known: Known| Seen {
            last: then(known.last),
            tags: known.tags,
            violated: known.violated.into_iter().map(|(target, last)| (target, then(last))).collect(),
        };
        Roll { seen: kept.into_iter().map(|(name, known)| (name, seen(known))).collect(), ..Roll::default() }
    }
}

impl<'a> Scene<'a> {
    /// All that is so, or may be.
    pub fn conditions(&self) -> Vec<Condition<'a>> {
        let mut all = Vec::new();
        for reading in self.readings {
            all.extend(self.violated(&reading.about, &reading.record, Now::Undecided));
            all.extend(self.of_check(reading));
        }
        all.extend(self.contradicted());
        all.extend(self.of_program());
        all
    }

    /// What was violated since the last look.
    pub fn breached(&self) -> impl Iterator<Item = Condition<'a>> {
        self.breaches.iter().filter_map(|record| self.violated(&record.about, record, Now::Active))
    }

    /// A violation; of a check that does not hold without being violated, what `otherwise` says, since only a run that holds ends one.
    fn violated(&self, about: &'a About, record: &'a Record, otherwise: Now) -> Option<Condition<'a>> {
        let now = match record.verdict {
            Verdict::Holds(_) => return None,
            Verdict::Violated(_) => Now::Active,
            Verdict::Unproven(_) => otherwise,
        };
        Some(self.about(What::Violated(record), about, now))
    }

    fn of_check(&self, reading: &'a Reading) -> impl Iterator<Item = Condition<'a>> {
        let record = &*reading.record;
        let unproven = matches!(record.verdict, Verdict::Unproven(_)).then_some(What::Unproven(record));
        let stale = !reading.fresh && (reading.ran || record.cause == Cause::Stale);
        let left = record.certificate_expires().map(|at| at.saturating_sub(self.wall.unix_millis() / 1000));
        let ends = left.filter(|left| u64::try_from(*left).unwrap_or(0) < ENDS_SOON.as_secs());
        let all = [unproven, stale.then_some(What::Stale(record)), ends.map(|left| What::CertificateExpiresSoon(record, left))];
        all.into_iter().flatten().map(|what| self.about(what, &reading.about, Now::Active))
    }

    /// Blocks that the log of a defence denies.
    fn contradicted(&self) -> impl Iterator<Item = Condition<'a>> {
        let still = self.program.contradicted.iter().filter(|(_, when)| self.wall.since(**when) < CONTRADICTS);
        still.filter_map(|((check, target), _)| {
            let reading: &'a Reading = self.places.targets.get(&(check.as_str(), target.as_str()))?;
            Some(self.about(What::Contradicted(&reading.record), &reading.about, Now::Active))
        })
    }

    fn about(&self, what: What<'a>, about: &'a About, now: Now) -> Condition<'a> {
        let name = what.name();
        Condition {
            key: self.key_of(name, about),
            now,
            what,
            check: Some((about.name.as_str(), about.tags.as_slice())),
            exception: self.exception_of(name, about),
        }
    }

    /// The labels of an alert about a check, as the rules have them.
    fn key_of(&self, name: Name, about: &About) -> Key {
        let place = [("check", about.name.as_str()), ("target", about.target.as_str()), ("vantage", self.vantage)];
        let verdict = match name {
            Name::Violated => Some("violated"),
            Name::Unproven => Some("unproven"),
            _ => None,
        };
        let severity = match (name, about.severity) {
            (Name::Violated, severity) => severity,
            (Name::Unproven, Severity::Info) => Severity::Info,
            (Name::Contradicted, _) => Severity::Critical,
            _ => Severity::Warning,
        };
        let judged = verdict.map_or(Vec::new(), |verdict| vec![("kind", about.kind), ("verdict", verdict)]);
        // Another value, so another alert: when the exception ends, what is still so is told anew.
        let excepted = if self.exception_of(name, about).is_some() { "true" } else { "false" };
        let excepted = verdict.map_or(Vec::new(), |_| vec![("excepted", excepted)]);
        Key::new(name, severity, &[place.to_vec(), judged, excepted].concat())
    }

    /// By whom the check is excepted, until when and why; said of what is judged alone, as in the rules.
    fn exception_of(&self, name: Name, about: &About) -> Option<String> {
        let judged = matches!(name, Name::Violated | Name::Unproven);
        about.excepted(self.wall).filter(|_| judged).map(|exception| exception.sentence(self.wall))
    }

    fn of_program(&self) -> Vec<Condition<'a>> {
        let (program, vantage) = (self.program, ("vantage", self.vantage));
        let mut all = Vec::new();
        let mut add = |what: What<'a>, labels: &[(&str, &str)], check| {
            let key = Key::new(what.name(), Severity::Warning, &[labels, &[vantage]].concat());
            all.push(Condition { key, now: Now::Active, what, check, exception: None });
        };
        for (name, seen) in &self.roll.seen {
            let check = Some((name.as_str(), seen.tags.as_slice()));
            if seen.last < self.now {
                add(What::CheckGone(name), &[("check", name)], check);
                continue;
            }
            // Targets come and go; the alert of one that was violated ends with it, and somebody must know.
            for (target, _) in seen.violated.iter().filter(|(_, last)| **last < self.now) {
                add(What::TargetGone(name, target), &[("check", name), ("target", target)], check);
            }
        }
        for about in self.readings.iter().map(|reading| &*reading.about) {
            if let Some(exception) = about.exception.as_deref().filter(|exception| exception.expired(self.wall)) {
                let labels = [("check", about.name.as_str()), ("owner", &exception.owner), ("reason", &exception.reason)];
                add(What::ExceptionExpired(&about.name, exception), &labels, Some((about.name.as_str(), about.tags.as_slice())));
            }
        }
        for (name, _) in program.witnesses.iter().filter(|(_, up)| !**up) {
            let reading = self.places.names.get(name.as_str()).copied();
            let tags = reading.map_or(&[][..], |reading| &reading.about.tags);
            let record = reading.map(|reading| &*reading.record);
            add(What::WitnessDown(name, record), &[("witness", name)], Some((name.as_str(), tags)));
        }
        for (kind, drill) in &program.drills {
            if drill.saw == Some(false) {
                add(What::DrillFailed(kind), &[("kind", kind)], None);
            }
            if let Some(overdue) = self.overdue(drill) {
                add(What::DrillOverdue(kind, overdue), &[("kind", kind)], None);
            }
        }
        if program.reload_failed {
            add(What::ReloadFailed, &[], None);
        }
        for (sink, _) in program.sinks.iter().filter(|(_, failing)| failing.is_some()) {
            add(What::AlertsFailing(sink), &[("sink", sink)], None);
        }
        let share = program.fd_used.zip(program.fd_limit).map(|(used, limit)| used / limit);
        if let Some(share) = share.filter(|share| *share > DESCRIPTORS) {
            add(What::DescriptorsLow(share), &[], None);
        }
        if let Some(ratio) = program.budget_ratio.filter(|ratio| *ratio > 1.0) {
            add(What::EgressBudgetSpent(ratio), &[], None);
        }
        if program.draining {
            add(What::ProxyDraining, &[], None);
        }
        if self.roll.full.is_some_and(|full| self.now.since(full) < FULL) {
            add(What::ProxyFull, &[], None);
        }
        all
    }

    /// For how long no drill has succeeded, where that is longer than two intervals.
    fn overdue(&self, drill: &Drill) -> Option<Duration> {
        let since = drill.last_success.or(self.program.started)?;
        let passed = self.wall.since(since);
        (passed > drill.interval? * 2).then_some(passed)
    }

    /// Why an alert that was told and is no condition any more ends though nothing has got better; none where it has.
    pub fn gone(&self, key: &Key) -> Option<String> {
        let removed = |what: &str| {
            Some(format!("{what} was taken out of the configuration of {}; that says nothing of whether anything was mended", self.vantage))
        };
        let (check, target) = (key.label("check"), key.label("target"));
        if key.label("vantage") != self.vantage {
            return Some(format!("this monitor stands at {} now, and says no more of {}", self.vantage, key.label("vantage")));
        }
        let is_there = |name: &str| self.places.names.contains_key(name);
        if key.is(Name::TargetGone) {
            let back = self.places.targets.contains_key(&(check, target));
            return (!back).then(|| format!("{target} is still not among the targets of {check}, and is no longer missed"));
        }
        if !target.is_empty() {
            let Some(reading) = self.places.targets.get(&(check, target)) else {
                return removed(&format!("the check {check} of {target}"));
            };
            let name = Name::ALL.into_iter().find(|name| key.is(*name))?;
            let other = self.key_of(name, &reading.about) != *key;
            return other.then(|| format!("the alert of {check} goes on by other labels, as its severity or its exception has changed"));
        }
        if key.is(Name::CheckGone) && !is_there(check) {
            return Some(format!("{check} has been gone for more than an hour, and is no longer missed"));
        }
        if !check.is_empty() && !key.is(Name::CheckGone) && !is_there(check) {
            return removed(&format!("the check {check}"));
        }
        let (witness, kind) = (key.label("witness"), key.label("kind"));
        if !witness.is_empty() && !is_there(witness) {
            return removed(&format!("the witness {witness}"));
        }
        let sink = key.label("sink");
        if !sink.is_empty() && !self.program.sinks.contains_key(sink) {
            return removed(&format!("the sink {sink}"));
        }
        if !kind.is_empty() && !self.program.drills.contains_key(kind) {
            return removed(&format!("the drill of {kind}"));
        }
        None
    }

    /// The newest record of what an alert was about.
    pub fn record_of(&self, key: &Key) -> Option<&'a Record> {
        let reading: &'a Reading = self.places.targets.get(&(key.label("check"), key.label("target")))?;
        Some(&*reading.record)
    }
}

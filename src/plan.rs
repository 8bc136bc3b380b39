//! The plan: what the configuration means. Complete and legal; nothing in it can be half right.

mod build;
mod load;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::alert::sink::Sink;
use crate::exception::Exception;
use crate::expectation::Expectation;
use crate::flowlog;
use crate::net::resolve::Resolver;
use crate::net::sweep;
use crate::observation::{Family, Outcome, Subject};
use crate::probe::{Ports, Probe};
use crate::proxy;
use crate::secret::Secret;
use crate::severity::Severity;
use crate::target::Host;
use crate::token::Key;
use crate::verdict::{Claim, stale_after};
use crate::web;
use crate::witness::ProofSet;

pub use build::could_give;
pub use load::{Keys, Loaded, Source, from_text, load};
pub use template::{Template, Within};

/// The configuration as a JSON Schema.
pub fn schema() -> serde_json::Value {
    crate::config::schema::document(build::vocabulary)
}

/// Attempts of one observation start at least this far apart (SPEC 2.1), so that a block outlives a blink.
pub const ATTEMPT_SPACING: Duration = Duration::from_secs(1);
/// The most ports of a sweep that are looked at one by one, since they are not as expected; of the others only so many are told.
pub const MAX_SINGLES: usize = 64;
/// How many of those are looked at at once.
pub const SINGLES_AT_ONCE: usize = 16;
/// The most addresses that are swept at a time: each has its canary.
pub const WAVE_ADDRESSES: usize = 64;
/// How long a decoy is waited for at least: an interceptor sits near, as a rule.
pub const DECOY_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than any run that somebody waits for.
const NOT_STALE: Duration = Duration::from_secs(3600);
/// Runs of one witness start at least this far apart, so that many checks share one.
pub const WITNESS_SPACING: Duration = Duration::from_secs(1);

/// Everything that a `probes.toml` means.
#[derive(Debug)]
pub struct Plan {
    /// Where this monitor stands.
    pub vantage: String,
    /// The checks, in the order of the file. A check's number is its place here.
    pub checks: Vec<Arc<Check>>,
    /// The checks that run against targets which others name; those that have a target of their own stand in `checks`, too.
    pub templates: Vec<Template>,
    /// What is known not to hold for a time, and who answers for it; at most one for each target of a check.
    pub exceptions: Vec<Arc<Exception>>,
    /// The web listener, if any.
    pub web: Option<web::Settings>,
    /// Our own beacon, if any.
    pub beacon: Option<Beacon>,
    /// The embedded proxy, if any.
    pub proxy: Option<proxy::Settings>,
    /// How often the detectors are drilled, if they are.
    pub drill: Option<Duration>,
    /// The practice page, if any.
    pub admin_page: Option<AdminPage>,
    /// The logs of the defences that are followed, if any.
    pub evidence: Option<LogEvidence>,
    /// Where alerts go.
    pub alerts: Vec<Sink>,
    /// How near a witness run must be.
    pub witness_window: Duration,
    /// How long an address that was violated stays probed after DNS last gave it.
    pub linger: Duration,
    /// The decoy of each family.
    pub decoy: Decoy,
    /// Where latches survive a restart.
    pub state_dir: Option<PathBuf>,
    /// How long probes and tunnels may take to finish after SIGTERM.
    pub shutdown_grace: Duration,
    /// The files of targets that it was made from, as written: the last part may hold a `*`.
    pub depends_on: BTreeSet<PathBuf>,
    /// What the environment gave, longest first: to be masked ([`crate::secret::mask`]) wherever the plan is shown.
    pub masks: Vec<Secret>,
    /// The file it was read from, relative to the working directory where it lies below that, else absolute; none for flags.
    pub file: Option<String>,
}

/// Which logs of the defences are followed, and how they are matched.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEvidence {
    /// Files and directories.
    pub follow: Vec<PathBuf>,
    /// How long an attempt waits for what they say of it.
    pub keep: Duration,
    /// How they are read.
    pub settings: flowlog::Settings,
}

/// One claim about one target.
#[derive(Debug, PartialEq)]
pub struct Check {
    /// Unique name.
    pub name: String,
    /// The target as written, for reports and labels.
    pub target: String,
    /// The target's name is written with its last dot, so that no search list is followed.
    pub rooted: bool,
    /// How to look.
    pub probe: Probe,
    /// `expect` as written, for reports.
    pub expect: String,
    /// `expect` as meant.
    pub expectation: Expectation,
    /// What those ports of a sweep must be that must be open.
    pub open: Option<Expectation>,
    /// The checks that it names as witnesses.
    pub witnesses: Vec<Witness>,
    /// The proofs that a `holds` must have.
    pub require: ProofSet,
    /// Time from one run's start to the next.
    pub interval: Duration,
    /// One attempt, from its first packet to its last event.
    pub timeout: Duration,
    /// Attempts at each address.
    pub attempts: usize,
    /// The families that are looked at.
    pub families: Vec<Family>,
    /// The address to bind.
    pub source: Option<IpAddr>,
    /// Who resolves the target's name.
    pub resolver: Resolver,
    /// How bad a violation is.
    pub severity: Severity,
    /// Where to read what to do.
    pub runbook: Option<String>,
    /// What the check is about.
    pub description: Option<String>,
    /// The user's own labels.
    pub labels: BTreeMap<String, String>,
    /// Words to select it by.
    pub tags: Vec<String>,
    /// How long one run may take at worst, its witnesses included.
    pub worst_run: Duration,
    /// Where its target must lie, if somebody else has named it.
    pub within: Option<Arc<Within>>,
    /// Line and column of its `[[check]]`, both from 1.
    pub position: (usize, usize),
}

/// A check that is named as a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Its name.
    pub name: String,
    /// Its number; one a target where it has many, and any of them will do.
    pub numbers: Vec<usize>,
}

/// Our own beacon.
#[derive(Debug, Clone)]
pub struct Beacon {
    /// Where it listens; empty where the key serves another one's beacon.
    pub listen: Vec<SocketAddr>,
    /// The key that beacon and monitors share.
    pub key: Key,
}

/// The small page that the quick start audits.
#[derive(Debug, Clone)]
pub struct AdminPage {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may see it; everybody else gets 403.
    pub allow_from: Vec<IpNet>,
    /// The port that a knock by one of them opens for one visit.
    pub door: Option<SocketAddrV4>,
}

/// An address of each family where nobody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoy {
    /// By default 192.0.2.1 (TEST-NET-1, RFC 5737).
    pub v4: IpAddr,
    /// By default 2001:db8::1 (documentation prefix, RFC 3849).
    pub v6: IpAddr,
}

impl Check {
    /// What the judge needs to know of the check, to judge this.
    pub fn claim(&self, seen: &Subject) -> Claim<'_> {
        Claim { expectation: self.demand(seen), require: self.require, attempts: self.attempts }
    }

    /// What is demanded of the subject: a sweep demands of some ports that they are open.
    pub fn demand(&self, subject: &Subject) -> &Expectation {
        match (&self.open, subject.dialled, &self.probe) {
            (Some(open), Some(to), Probe::Ports(ports)) if ports.open.contains(to.port()) => open,
            _ => &self.expectation,
        }
    }

    /// Whether a verdict on the other is one on this: the same kind of look from the same place, and the same demands.
    pub fn claims_the_same(&self, other: &Check) -> bool {
        let names = |check: &Check| check.witnesses.iter().map(|witness| witness.name.clone()).collect::<Vec<_>>();
        (&self.probe, self.rooted, &self.resolver) == (&other.probe, other.rooted, &other.resolver)
            && (&self.expectation, &self.open) == (&other.expectation, &other.open)
            && (self.require, names(self)) == (other.require, names(other))
            && (self.source, &self.families, self.attempts) == (other.source, &other.families, other.attempts)
    }

    /// The number of every check that may witness for it.
    pub fn witness_numbers(&self) -> impl Iterator<Item = usize> {
        self.witnesses.iter().flat_map(|witness| &witness.numbers).copied()
    }

    /// How old its record may grow before it proves nothing.
    pub fn stale_after(&self) -> Duration {
        stale_after(self.interval, self.worst_run)
    }

    /// How long one of its observations may take at worst: resolving, then every attempt with its whole time-out.
    pub fn worst_observation(&self) -> Duration {
        let resolving = if self.probe.needs_resolving() { self.timeout } else { Duration::ZERO };
        if let Probe::Ports(ports) = &self.probe {
            return resolving + self.worst_sweep(ports);
        }
        let others = u32::try_from(self.attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let spacing = self.attempt_stagger(&self.expectation).max(self.probe.keeps_host()) * others;
        // Where the resolver's own answer may be the block, it is asked for as often as an address would be tried.
        let may_be_the_answer = [Outcome::NxDomain, Outcome::NoData].into_iter().any(|o| self.expectation.accepts(o));
        let asking_again = if may_be_the_answer && !resolving.is_zero() { spacing + self.timeout } else { Duration::ZERO };
        resolving
            + asking_again
            + (spacing + self.timeout + self.probe.afterthought(self.timeout)) * self.rounds()
            + self.probe.epilogue(self.timeout)
    }

    /// Whether both may send datagrams to one host, where only one is sent a second.
    fn shares_host(&self, other: &Check) -> bool {
        let paced = |check: &Check| !check.probe.keeps_host().is_zero();
        paced(self) && paced(other) && self.probe.may_ask(&other.probe)
    }

    /// Whether its runs wait for those of the other, so that the witnesses around each are near ([`Check::waits_at`]).
    fn waits_for(&self, other: &Check) -> bool {
        self.waits_at().is_some_and(|host| other.waits_at() == Some(host))
    }

    /// The host at which runs that must see a block stand in line, one at a time.
    pub fn waits_at(&self) -> Option<&Host> {
        let waits = self.expectation.is_inverted() && !self.probe.keeps_host().is_zero();
        self.probe.first_hop().filter(|_| waits).map(|hop| &hop.host)
    }

    /// How long a sweep may take at worst: all its ports are silent, and then as many as are looked at one by one.
    fn worst_sweep(&self, ports: &Ports) -> Duration {
        let swept = ports.most_addresses().saturating_mul(ports.closed.len());
        let one = self.attempt_stagger(&self.expectation) * u32::try_from(self.attempts).unwrap_or(u32::MAX) + self.timeout;
        let singles = one * u32::try_from(MAX_SINGLES.div_ceil(SINGLES_AT_ONCE)).unwrap_or(u32::MAX);
        // A wave ends with its slowest answer, and with the witnesses after it.
        let waves = u32::try_from(swept.div_ceil(ports.wave()).max(ports.most_addresses().div_ceil(WAVE_ADDRESSES))).unwrap_or(u32::MAX);
        sweep::longest(swept, self.attempts, ports.rate, self.timeout) + singles + (one + self.timeout) * waves * 2
    }

    /// In how many parts it is looked at, one after the other.
    pub fn rounds(&self) -> u32 {
        u32::try_from(self.probe.subjects_known().div_ceil(self.probe.looks_at_once())).unwrap_or(u32::MAX)
    }

    /// How long the next attempt waits for a slow one. A block needs all its attempts, so they overlap; a positive
    /// check needs one, so a second connection is opened only when the first is well overdue.
    pub fn attempt_stagger(&self, demand: &Expectation) -> Duration {
        if demand.is_inverted() { ATTEMPT_SPACING } else { (self.timeout / 2).max(ATTEMPT_SPACING) }
    }
}

impl Plan {
    /// Whether an engine would do the very same by the other.
    pub fn probes_as(&self, other: &Plan) -> bool {
        let marks = |plan: &Plan| (plan.witness_window, plan.linger, plan.decoy, plan.vantage.clone(), plan.file.clone());
        // A check is told by its place: that of another line is shown there.
        let said = |plan: &Plan| (plan.exceptions.clone(), plan.masks.clone());
        marks(self) == marks(other) && self.checks == other.checks && said(self) == said(other)
    }

    /// A plan of one check that is not in this one, with the checks that it names as witnesses, which are.
    #[must_use]
    pub fn beside(&self, check: Check, witnesses: impl Iterator<Item = Arc<Check>>) -> Plan {
        // Its record is read at once, and by him alone who asked for it.
        let check = Check { worst_run: NOT_STALE, ..check };
        Plan {
            vantage: self.vantage.clone(),
            checks: std::iter::once(Arc::new(check)).chain(witnesses).collect(),
            templates: Vec::new(),
            exceptions: self.exceptions.clone(),
            web: None,
            beacon: None,
            proxy: None,
            drill: None,
            admin_page: None,
            evidence: None,
            alerts: Vec::new(),
            witness_window: self.witness_window,
            linger: self.linger,
            decoy: self.decoy,
            state_dir: None,
            shutdown_grace: self.shutdown_grace,
            depends_on: BTreeSet::new(),
            masks: self.masks.clone(),
            file: self.file.clone(),
        }
    }

    /// Fills in every check's worst-case run time: its own observation, on either side the slowest of its witnesses, and
    /// what it waits for others that ask the same host by datagrams.
    pub fn worst_runs(checks: &mut [Check]) {
        let others = |at: usize| checks.iter().enumerate().filter(move |(other, _)| *other != at).map(|(_, check)| check);
        let attempts = |check: &Check| check.probe.keeps_host() * u32::try_from(check.attempts).unwrap_or(u32::MAX);
        let looks = checks.iter().enumerate().map(|(at, check)| {
            let between: Duration = others(at).filter(|other| check.shares_host(other)).map(attempts).sum();
            check.worst_observation() + between
        });
        let looks: Vec<Duration> = looks.collect();
        let runs = checks.iter().zip(&looks).map(|(check, look)| {
            let slowest = check.witness_numbers().filter_map(|w| looks.get(w)).max().copied();
            let witnessed = slowest.map_or(Duration::ZERO, |w| (WITNESS_SPACING + w) * (check.rounds() + 1));
            *look + witnessed + check.timeout.max(DECOY_TIMEOUT) * check.rounds()
        });
        let runs: Vec<Duration> = runs.collect();
        let in_line = |at: usize, check: &Check| -> Duration {
            let ahead = checks.iter().zip(&runs).enumerate().filter(|(other, (c, _))| *other != at && check.waits_for(c));
            ahead.map(|(_, (_, run))| *run).sum()
        };
        let worst: Vec<Duration> = checks.iter().zip(&runs).enumerate().map(|(at, (check, run))| *run + in_line(at, check)).collect();
        for (check, worst) in checks.iter_mut().zip(worst) {
            check.worst_run = worst;
        }
    }

    /// The exception of the check on this target, in force or over ([`Exception::active`]); none where there is none.
    pub fn exception_of(&self, check: &str, target: &str) -> Option<&Arc<Exception>> {
        self.exceptions.iter().find(|exception| exception.covers(check, target))
    }

    /// The decoy of a family.
    pub fn decoy_of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.decoy.v4,
            Family::V6 => self.decoy.v6,
        }
    }
}

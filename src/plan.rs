//! The plan: what the configuration means. Complete and legal; nothing in it can be half right.

mod build;
mod load;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::expectation::Expectation;
use crate::net::resolve::Resolver;
use crate::observation::Family;
use crate::probe::Probe;
use crate::proxy;
use crate::secret::Secret;
use crate::severity::Severity;
use crate::token::Key;
use crate::verdict::{Claim, stale_after};
use crate::witness::ProofSet;

pub use load::{Keys, Loaded, Source, from_text, load};

/// Attempts of one observation start at least this far apart (SPEC 2.1), so that a block outlives a blink.
pub const ATTEMPT_SPACING: Duration = Duration::from_secs(1);
/// How long a decoy is waited for at least: an interceptor sits near, as a rule.
pub const DECOY_TIMEOUT: Duration = Duration::from_secs(2);
/// Runs of one witness start at least this far apart, so that many checks share one.
pub const WITNESS_SPACING: Duration = Duration::from_secs(1);

/// Everything that a `probes.toml` means.
#[derive(Debug)]
pub struct Plan {
    /// Where this monitor stands.
    pub vantage: String,
    /// The checks, in the order of the file. A check's number is its place here.
    pub checks: Vec<Arc<Check>>,
    /// The web listener, if any.
    pub web: Option<SocketAddr>,
    /// Our own beacon, if any.
    pub beacon: Option<Beacon>,
    /// The embedded proxy, if any.
    pub proxy: Option<proxy::Settings>,
    /// How often the detectors are drilled, if they are.
    pub drill: Option<Duration>,
    /// The practice page, if any.
    pub admin_page: Option<AdminPage>,
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
}

/// One claim about one target.
#[derive(Debug)]
pub struct Check {
    /// Unique name.
    pub name: String,
    /// The target as written, for reports and labels.
    pub target: String,
    /// How to look.
    pub probe: Probe,
    /// `expect` as written, for reports.
    pub expect: String,
    /// `expect` as meant.
    pub expectation: Expectation,
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
#[derive(Debug, Clone, Copy)]
pub struct Decoy {
    /// By default 192.0.2.1 (TEST-NET-1, RFC 5737).
    pub v4: IpAddr,
    /// By default 2001:db8::1 (documentation prefix, RFC 3849).
    pub v6: IpAddr,
}

impl Check {
    /// What the judge needs to know of the check.
    pub fn claim(&self) -> Claim<'_> {
        Claim { expectation: &self.expectation, require: self.require, attempts: self.attempts }
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
        let spacing = self.attempt_stagger() * u32::try_from(self.attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        resolving + (spacing + self.timeout + self.probe.epilogue(self.timeout)) * self.rounds()
    }

    /// In how many rounds one address is looked at; witnesses run between them.
    fn rounds(&self) -> u32 {
        u32::try_from(self.probe.subjects_known().div_ceil(self.probe.looks_at_once())).unwrap_or(u32::MAX)
    }

    /// How long the next attempt waits for a slow one. A block needs all its attempts, so they overlap; a positive
    /// check needs one, so a second connection is opened only when the first is well overdue.
    pub fn attempt_stagger(&self) -> Duration {
        if self.expectation.is_inverted() { ATTEMPT_SPACING } else { (self.timeout / 2).max(ATTEMPT_SPACING) }
    }
}

impl Plan {
    /// Fills in every check's worst-case run time: its own observation, and on either side the slowest of its witnesses.
    pub fn worst_runs(checks: &mut [Check]) {
        let alone: Vec<Duration> = checks.iter().map(Check::worst_observation).collect();
        for check in checks {
            let slowest = check.witness_numbers().filter_map(|w| alone.get(w)).max().copied();
            let witnessed = slowest.map_or(Duration::ZERO, |w| (WITNESS_SPACING + w) * (check.rounds() + 1));
            check.worst_run = check.worst_observation() + witnessed + check.timeout.max(DECOY_TIMEOUT) * check.rounds();
        }
    }

    /// The decoy of a family.
    pub fn decoy_of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.decoy.v4,
            Family::V6 => self.decoy.v6,
        }
    }
}

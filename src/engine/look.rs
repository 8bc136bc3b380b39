//! Looking: find every address of a check, and try each as often as the plan says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::Engine;
use crate::clock::{Moment, Wall};
use crate::net::own_addresses;
use crate::net::resolve::Answer;
use crate::observation::{Attempt, Family, Observation, Outcome, Stage, Subject, Transport};
use crate::plan::{ATTEMPT_SPACING, Check};
use crate::probe::{Aim, Approach, Hops, NOBODY};
use crate::target::{Host, HostPort};

/// The most addresses of one name that are looked at; more is `unproven` for want of coverage.
pub const MAX_ADDRESSES: usize = 64;

/// What there is to look at.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Every subject, and the way to it.
    pub subjects: Vec<(Subject, Approach)>,
    /// What could not even be found: names that did not resolve, sinkholes.
    pub lost: Vec<Observation>,
    /// Subjects past the bound, which are not looked at.
    pub left_out: usize,
}

/// One look at all of it: what was seen.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// What there was to look at.
    pub found: Found,
    /// One observation each.
    pub seen: Vec<Observation>,
    /// How many there had to be.
    pub planned: usize,
}

impl Found {
    /// The same in parts of so many, each to be looked at at once; what was lost stands in the first.
    pub(super) fn parts(mut self, at_once: usize) -> impl Iterator<Item = Found> {
        let at_once = at_once.max(1);
        let mut rest = self.subjects.split_off(self.subjects.len().min(at_once)).into_iter().peekable();
        let parts = std::iter::from_fn(move || {
            rest.peek()?;
            Some(Found { subjects: rest.by_ref().take(at_once).collect(), ..Found::default() })
        });
        std::iter::once(self).chain(parts)
    }

    /// What there is to look at is the answer of the resolver itself, and the check accepts that one.
    pub(super) fn has_an_answer(&self, check: &Check) -> bool {
        self.lost.iter().any(|o| o.stage == Stage::Dns && check.expectation.accepts(o.outcome))
    }
}

impl Look {
    /// Both looks as one.
    pub(super) fn and(mut self, more: Look) -> Look {
        self.found.subjects.extend(more.found.subjects);
        self.found.lost.extend(more.found.lost);
        self.found.left_out += more.found.left_out;
        self.seen.extend(more.seen);
        self.planned += more.planned;
        self
    }
}

impl Engine {
    /// Finds every address of every family of the check, and those that linger.
    pub(super) async fn find(&self, number: usize, check: &Check) -> Found {
        let mut found = Found::default();
        let addresses = match check.probe.hops() {
            Hops::Host(hop) => {
                let mut addresses = self.addresses_of(number, check, hop, &mut found).await;
                found.left_out = addresses.len().saturating_sub(MAX_ADDRESSES);
                addresses.truncate(MAX_ADDRESSES);
                addresses
            }
            Hops::Addresses(addresses) => addresses,
            Hops::File(path) => {
                let subject = nowhere(path.display().to_string());
                let approach = Approach { to: NOBODY, source: None, timeout: check.timeout, aim: Aim::AsWritten, resolver: check.resolver };
                found.subjects.push((subject, approach));
                Vec::new()
            }
            Hops::Nowhere(why) => {
                found.lost.push(lost_now(check, why));
                Vec::new()
            }
        };
        let addresses = self.only_within(check, addresses, &mut found);
        let alone = |ip: IpAddr| addresses.iter().filter(|other| other.is_ipv4() == ip.is_ipv4()).count() == 1;
        for to in &addresses {
            let subjects = check.probe.subjects(*to, check.source, check.timeout, check.resolver);
            // Whoever reached the name elsewhere reached this address only where it is the one that the name has.
            let named = |(subject, approach): (Subject, Approach)| {
                (Subject { named: subject.named.filter(|_| alone(to.ip())), ..subject }, approach)
            };
            found.subjects.extend(subjects.into_iter().map(named));
        }
        // What would cost the target more requests than it may is left out, and said to be.
        let most = check.probe.budget().map_or(usize::MAX, |requests| requests / check.attempts.max(1));
        found.left_out += found.subjects.len().saturating_sub(most);
        found.subjects.truncate(most);
        found
    }

    /// The addresses, where somebody else has named the target: all of them where each may be dialled, else none. Who named it is not told what
    /// there is elsewhere, nor whether there is anything.
    fn only_within(&self, check: &Check, addresses: Vec<SocketAddr>, found: &mut Found) -> Vec<SocketAddr> {
        let Some(within) = &check.within else { return addresses };
        let outside: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).filter(|ip| !within.allows(*ip)).collect();
        let sunk = found.lost.iter().any(|lost| lost.outcome == Outcome::LocalError);
        if outside.is_empty() && !sunk && (!addresses.is_empty() || found.has_an_answer(check)) {
            return addresses;
        }
        let whys: Vec<String> = found.lost.iter().filter_map(|lost| lost.evidence.detail.clone()).collect();
        tracing::info!(
            check = check.name,
            target = check.target,
            ?outside,
            ?whys,
            "a template was not run: not every address is inside allow_targets"
        );
        let subject = nowhere(check.target.clone());
        let why = "its name does not resolve, or not to addresses of allow_targets alone; the log of the monitor has more".to_string();
        found.lost = vec![Observation::without_attempt(subject, Outcome::ResolveError, Stage::Dns, why, Moment::now(), Wall::now())];
        Vec::new()
    }

    /// Asks for the name as often as an address would be tried, a second apart. Where the answer is the same block each time, that
    /// is the observation; else what was found instead, and most of it where that differs.
    pub(super) async fn find_every_time(&self, number: usize, check: &Check) -> Found {
        let first = Instant::now();
        let asks = (0_u32..).take(check.attempts).map(|nth| async move {
            sleep_until(first + ATTEMPT_SPACING * nth).await;
            self.find(number, check).await
        });
        let mut every = join_all(asks).await;
        if every.iter().any(|found| !found.has_an_answer(check)) {
            every.retain(|found| !found.has_an_answer(check));
            return every.into_iter().max_by_key(|found| found.subjects.len()).unwrap_or_default();
        }
        let answers: Vec<Observation> = every.iter_mut().flat_map(|found| std::mem::take(&mut found.lost)).collect();
        // Beside the answer there are addresses only where some linger.
        Found { lost: Observation::of_answers(answers).into_iter().collect(), ..every.pop().unwrap_or_default() }
    }

    /// Every address of a host, and of a name those that linger.
    async fn addresses_of(&self, number: usize, check: &Check, hop: &HostPort, found: &mut Found) -> Vec<SocketAddr> {
        let name = match &hop.host {
            Host::Ip(ip) => return vec![SocketAddr::new(*ip, hop.port)],
            Host::Name(name) => name,
        };
        let addresses = match check.rooted {
            true => self.resolve(check, &format!("{name}."), found).await,
            false => self.resolve(check, name, found).await,
        };
        let mut sockets: Vec<_> = addresses.iter().map(|ip| SocketAddr::new(*ip, hop.port)).collect();
        let lingering = self.with_memory(number, |memory| {
            memory.given(&sockets, Moment::now());
            memory.lingering(self.plan.linger, Moment::now())
        });
        for address in lingering {
            if address.port() == hop.port && !sockets.contains(&address) {
                sockets.push(address);
            }
        }
        sockets
    }

    /// The addresses of the name; what is wrong with it is lost and said.
    async fn resolve(&self, check: &Check, name: &str, found: &mut Found) -> Vec<IpAddr> {
        let (asked, asked_at) = (Moment::now(), Wall::now());
        let answers = check.resolver.addresses(name, &check.families, check.timeout).await;
        let answered = Moment::now();
        let lose = |outcome, what: String, family: Option<Family>| {
            let address = family.map_or(name.to_string(), |f| format!("{name} ({f})"));
            let subject = Subject { family, source: check.source, ..nowhere(address) };
            let lost = Observation::without_attempt(subject, outcome, Stage::Dns, what, asked, asked_at);
            Observation { elapsed: answered.since(asked), ended: answered, ..lost }
        };
        let mut addresses: Vec<IpAddr> = Vec::new();
        let (mut failed, mut exists) = (false, false);
        for (family, answer) in answers {
            match answer {
                // An AAAA that carries an IPv4 address is dialled by IPv4, and only a witness of IPv4 speaks for it.
                Answer::Addresses(given) => addresses.extend(given.into_iter().map(crate::target::fold_mapped)),
                Answer::NoData => exists = true,
                Answer::NxDomain => {}
                Answer::Failed(why) => {
                    failed = true;
                    found.lost.push(lose(Outcome::ResolveError, why, Some(family)));
                }
            }
        }
        if addresses.is_empty() && !failed {
            let outcome = if exists { Outcome::NoData } else { Outcome::NxDomain };
            let as_tested = if check.expectation.accepts(outcome) { outcome } else { Outcome::ResolveError };
            let what = if exists { "it exists, but has no address of these families" } else { "it does not exist (NXDOMAIN)" };
            found.lost.push(lose(as_tested, format!("{} says that {what}", check.resolver), None));
        }
        addresses.sort_unstable();
        addresses.dedup();
        let own = own_addresses();
        let (sunk, real): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(|ip| is_sinkhole(*ip, &own));
        for ip in sunk {
            let what = format!(
                "its name gives {ip}, which is no address of a target but of this host (a sinkhole?); write the address itself if it is meant"
            );
            found.lost.push(lose(Outcome::LocalError, what, Some(Family::of(ip))));
        }
        real
    }

    /// Looks at all that was found; `each` hears of every observation as it is made.
    pub(super) async fn look<F>(&self, check: &Check, found: Found, each: impl Fn(Observation) -> F) -> Look
    where
        F: Future<Output = ()>,
    {
        let look_at = async |(subject, approach): &(Subject, Approach)| {
            let seen = self.observe(check, subject, approach).await;
            each(seen.clone()).await;
            seen
        };
        let mut seen = Vec::new();
        for part in found.subjects.chunks(check.probe.looks_at_once()) {
            seen.extend(join_all(part.iter().map(look_at)).await);
        }
        let lost = found.lost.clone();
        for one in &lost {
            each(one.clone()).await;
        }
        seen.extend(lost);
        let planned = found.subjects.len() + found.lost.len() + found.left_out;
        Look { found, seen, planned: planned.max(1) }
    }

    /// All attempts at one subject, each a fresh connection, spaced and overlapping as the plan says, until one settles the matter.
    pub(super) async fn observe(&self, check: &Check, subject: &Subject, approach: &Approach) -> Observation {
        self.listener.looking(1);
        let _looking = Looking(Arc::clone(&self.listener));
        let started_at = Wall::now();
        let demand = check.demand(subject);
        let stagger = check.attempt_stagger(demand);
        let mut under_way = FuturesUnordered::new();
        let mut attempts: Vec<Attempt> = Vec::new();
        let (mut started, mut last_start, mut settled) = (0, Instant::now(), None);
        let mut next_start = last_start;
        while settled.is_none() && (started < check.attempts || !under_way.is_empty()) {
            tokio::select! {
                biased;
                Some(attempt) = under_way.next(), if !under_way.is_empty() => {
                    let attempt: Attempt = attempt;
                    if demand.settled_by_attempt(&attempt) {
                        settled = Some(attempts.len());
                    }
                    attempts.push(attempt);
                    if under_way.is_empty() {
                        next_start = next_start.min(last_start + ATTEMPT_SPACING);
                    }
                }
                () = sleep_until(next_start), if started < check.attempts => {
                    started += 1;
                    last_start = Instant::now();
                    next_start = last_start + stagger;
                    under_way.push(check.probe.attempt(approach));
                }
            }
        }
        Observation::of(subject.clone(), attempts, settled, started_at)
    }
}

/// Counts an observation as made, however it ends.
struct Looking(Arc<dyn super::Listener>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.looking(-1);
    }
}

/// A check that could not even be begun, for a reason on this side.
fn lost_now(check: &Check, why: String) -> Observation {
    let subject = Subject { source: check.source, transport: check.probe.transport(), ..nowhere(check.target.clone()) };
    Observation::without_attempt(subject, Outcome::LocalError, Stage::Dns, why, Moment::now(), Wall::now())
}

/// An unspecified address, loopback, or one of this host's own.
fn is_sinkhole(ip: IpAddr, own: &[IpAddr]) -> bool {
    let ip = crate::target::fold_mapped(ip);
    ip.is_unspecified() || ip.is_loopback() || own.contains(&ip)
}

/// A subject that cannot be dialled.
pub fn nowhere(address: String) -> Subject {
    Subject {
        address,
        named: None,
        family: None,
        dialled: None,
        reached: None,
        transport: Transport::Tcp,
        asked: None,
        source: None,
        via: false,
        technique: None,
        variant: None,
    }
}

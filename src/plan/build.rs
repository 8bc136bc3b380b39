//! From the file as written to the plan: defaults, legality, witnesses found by name.

mod alerts;
mod check;
mod exceptions;
mod expect;
mod key;
mod ports;
mod templates;
mod variants;
mod web;
mod witnesses;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{AdminPage, Check, Decoy, Keys, LogEvidence, Plan};
use crate::config::duration::show;
use crate::config::{self, At, Context, File, Own, Place};
use crate::flowlog;
use crate::observation::Family;
use crate::target::fold_mapped;
use check::{Builder, Draft, Way};
pub(super) use expect::vocabulary;
pub use witnesses::could_give;

const WITNESS_WINDOW: Duration = Duration::from_secs(10);
const LINGER: Duration = Duration::from_secs(3600);
const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);

/// The plan that the file means, and the key file that was made for it; none where something is wrong, which is noted.
pub fn plan(mut file: File, context: &Context<'_>, keys: &Keys) -> Option<(Plan, Option<PathBuf>)> {
    // They are in no plan, so that their numbers must be nobody's.
    file.checks.sort_by_key(|check| check.placeholder);
    listeners_apart(&file.listeners, context);
    decoys_apart(&file, context);
    if file.checks.is_empty() && !context.has_problem_at("check") && !serves_something(&file) {
        let place = Place { offset: 0, path: "check".into() };
        context.wrong(&place, "there is no check, and nothing to serve; write at least one [[check]]");
    }
    let web = web::web(file.web.as_ref(), context);
    let key = key::beacon_key(&file, context, keys);
    let vantage = file.vantage.as_ref().map_or("", |v| v.value.as_str());
    let builder = Builder { context, defaults: &file.defaults, key: key.clone(), vantage };
    unique_names(&file.checks, context);
    let drafts: Vec<Draft> = file.checks.iter().map(|written| builder.draft(written)).collect();
    let witnesses = witnesses::resolve(&drafts, &file.defaults, context);
    let alerts = alerts::sinks(&file, context);
    let templates = templates::templates(&file.checks, web.as_ref(), context);
    let exceptions = exceptions::resolve(&file.exceptions, &file.checks, context);
    if context.problems() > 0 {
        return None;
    }

    let places: Vec<Place> = drafts.iter().filter(|draft| draft.check.is_some()).map(|draft| draft.written.place.clone()).collect();
    let mut checks: Vec<Check> = drafts.into_iter().filter_map(|draft| draft.check).collect();
    for (check, named) in checks.iter_mut().zip(witnesses) {
        check.witnesses = named;
    }
    checks.truncate(file.checks.iter().filter(|check| !check.placeholder).count());
    witnesses::controls(&mut checks);
    Plan::worst_runs(&mut checks);
    ports::hint_at_haste(&checks, &file.checks, context);
    for (check, place) in checks.iter().zip(&places).filter(|(check, _)| check.rounds() > 1 && check.worst_run > check.interval) {
        let message = format!(
            "one run may take {} where all is silent, longer than its interval of {}, and its target bears it without a pause; \
             write a longer interval, such as \"{}m\", or fewer techniques",
            show(Duration::from_secs(check.worst_run.as_secs())),
            show(check.interval),
            check.worst_run.as_secs() / 60 + 1
        );
        context.hint(place, message);
    }
    let (beacon, created) = key::file_key(&file, key, context, keys)?;
    if let Some(beacon) = &beacon {
        checks.iter_mut().for_each(|check| key::give_key(check, &beacon.key));
    }
    let own_page = file.admin_page.and_then(|page| {
        Some(AdminPage { listen: page.listen?.value, allow_from: page.allow_from, door: page.door.map(|door| door.value) })
    });
    let plan = Plan {
        vantage: file.vantage?.value,
        checks: checks.into_iter().map(Arc::new).collect(),
        templates,
        exceptions,
        web,
        beacon,
        proxy: file.proxy,
        drill: file.drill.map(|interval| interval.value),
        admin_page: own_page,
        evidence: file.evidence.map(|evidence| log_evidence(evidence, context)),
        alerts,
        witness_window: value_or(file.witness_window, WITNESS_WINDOW),
        linger: value_or(file.linger, LINGER),
        decoy: decoy(&file.decoy),
        state_dir: file.state_dir.map(|dir| context.base_dir.join(dir.value)),
        shutdown_grace: value_or(file.shutdown_grace, SHUTDOWN_GRACE),
        depends_on: BTreeSet::new(),
        masks: Vec::new(),
        file: None,
    };
    Some((plan, created))
}

fn value_or<T>(written: Option<At<T>>, default: T) -> T {
    written.map_or(default, |w| w.value)
}

fn log_evidence(written: config::LogEvidence, context: &Context<'_>) -> LogEvidence {
    LogEvidence {
        follow: written.follow.into_iter().map(|path| context.base_dir.join(path.value)).collect(),
        keep: value_or(written.keep, flowlog::KEEP),
        settings: flowlog::Settings {
            clock_skew: value_or(written.clock_skew, flowlog::CLOCK_SKEW),
            format: written.flow_format.map(|format| format.value),
            translated: written.translated,
            own_interfaces: written.own_interfaces.map(|all| all.into_iter().map(|one| one.value).collect()),
        },
    }
}

fn serves_something(file: &File) -> bool {
    file.proxy.is_some() || file.beacon.as_ref().is_some_and(|b| !b.listen.is_empty()) || file.admin_page.is_some()
}

/// A decoy that is itself looked at would make whoever is there look like somebody who answers for everybody.
fn decoys_apart(file: &File, context: &Context<'_>) {
    let goes_to = |check: &config::Check, ip: IpAddr| {
        let way = Way::of(check.own.as_ref());
        let inside = match &check.own {
            Some(Own::Icmp { target: Some(scope) }) => scope.value.network.is_some_and(|net| net.contains(&ip)),
            Some(Own::Ports(sweep)) => sweep.target.as_ref().is_some_and(|t| t.value.contains(ip)),
            _ => false,
        };
        let server = way.servers.iter().any(|server| server.ip() == ip);
        inside || server || [way.first_hop, way.target].into_iter().flatten().any(|hop| hop.host.ip() == Some(ip))
    };
    for decoy in &file.decoy {
        if let Some(check) = file.checks.iter().find(|check| goes_to(check, decoy.value)) {
            let message = format!("{} is where {} goes; write an address where nobody is", decoy.value, check.place.path);
            context.wrong(&decoy.place, message);
        }
    }
}

/// Two listeners cannot share an address and port, nor an address with all addresses; "::" is all addresses of IPv4, too.
fn listeners_apart(listeners: &[At<SocketAddr>], context: &Context<'_>) {
    let clash = |a: SocketAddr, b: SocketAddr| {
        let (one, other) = (fold_mapped(a.ip()), fold_mapped(b.ip()));
        let covers = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
        let same_ip = one == other || covers(one, other) || covers(other, one);
        a.port() == b.port() && a.port() != 0 && same_ip
    };
    for (i, later) in listeners.iter().enumerate() {
        if let Some(first) = listeners.iter().take(i).find(|l| clash(l.value, later.value)) {
            let message = format!("{} is taken by {} ({}) already; write another port", later.value, first.place.path, first.value);
            context.wrong(&later.place, message);
        }
    }
}

fn unique_names(checks: &[config::Check], context: &Context<'_>) {
    let names = || checks.iter().filter_map(|c| Some((c.number, c.name.as_ref()?)));
    for (i, name) in names() {
        // The targets of one check share its name.
        if let Some((first, _)) = names().find(|(j, other)| *j < i && other.value == name.value) {
            context.wrong(&name.place, format!("is the name of check #{first} already; write another"));
        }
    }
}

fn decoy(written: &[At<IpAddr>]) -> Decoy {
    let of = |family| written.iter().map(|a| a.value).find(|ip| Family::of(*ip) == family);
    Decoy {
        v4: of(Family::V4).unwrap_or(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        v6: of(Family::V6).unwrap_or(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
    }
}

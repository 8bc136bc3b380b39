//! From the file as written to the plan: defaults, legality, witnesses found by name.

mod expect;
mod witnesses;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{AdminPage, Beacon, Check, Decoy, Keys, Plan};
use crate::config::duration::show;
use crate::config::{self, At, Common, Context, File, MAX_LABELS, Own, Place, Tls, Via};
use crate::expectation::Expectation;
use crate::net::resolve::Resolver;
use crate::net::tls;
use crate::observation::Family;
use crate::probe::{self, Probe, Technique};
use crate::secret::Secret;
use crate::severity::Severity;
use crate::target::{HostPort, Scheme, Url, fold_mapped};
use crate::token::Key;
use crate::witness::{Proof, ProofSet};

const WITNESS_WINDOW: Duration = Duration::from_secs(10);
const LINGER: Duration = Duration::from_secs(3600);
const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 3;
const MAX_AGE: Duration = Duration::from_secs(60);
/// Linux sends a SYN at 0, 1 and 3 s (RFC 6298 section 2): the third, without which silence is no block, leaves here.
const THIRD_SYN: Duration = Duration::from_secs(3);
/// The only protocol that kind `http` and `peer` speak.
const HTTP_1_1: &str = "http/1.1";

/// The plan that the file means, and the key file that was made for it; none where something is wrong, which is noted.
pub fn plan(file: File, context: &Context<'_>, keys: Keys) -> Option<(Plan, Option<PathBuf>)> {
    listeners_apart(&file.listeners, context);
    decoys_apart(&file, context);
    if file.checks.is_empty() && !context.has_problem_at("check") && !serves_something(&file) {
        let place = Place { offset: 0, path: "check".into() };
        context.wrong(&place, "there is no check, and nothing to serve; write at least one [[check]]");
    }
    let key = beacon_key(&file, context);
    let builder = Builder { context, defaults: &file.defaults, key: key.clone() };
    unique_names(&file.checks, context);
    let drafts: Vec<Draft> = file.checks.iter().map(|written| builder.draft(written)).collect();
    let witnesses = witnesses::resolve(&drafts, &file.defaults, context);
    if context.problems() > 0 {
        return None;
    }

    let mut checks: Vec<Check> = drafts.into_iter().filter_map(|draft| draft.check).collect();
    for (check, named) in checks.iter_mut().zip(witnesses) {
        check.witnesses = named;
    }
    witnesses::controls(&mut checks);
    Plan::worst_runs(&mut checks);
    let (beacon, created) = file_key(&file, key, context, keys)?;
    if let Some(beacon) = &beacon {
        checks.iter_mut().for_each(|check| give_key(check, &beacon.key));
    }
    let own_page = file.admin_page.and_then(|page| {
        Some(AdminPage { listen: page.listen?.value, allow_from: page.allow_from, door: page.door.map(|door| door.value) })
    });
    let plan = Plan {
        vantage: file.vantage?.value,
        checks: checks.into_iter().map(Arc::new).collect(),
        web: file.web.map(|web| web.value),
        beacon,
        proxy: file.proxy,
        admin_page: own_page,
        witness_window: value_or(file.witness_window, WITNESS_WINDOW),
        linger: value_or(file.linger, LINGER),
        decoy: decoy(&file.decoy),
        state_dir: file.state_dir.map(|dir| context.base_dir.join(dir.value)),
        shutdown_grace: value_or(file.shutdown_grace, SHUTDOWN_GRACE),
        masks: Vec::new(),
    };
    Some((plan, created))
}

fn value_or<T>(written: Option<At<T>>, default: T) -> T {
    written.map_or(default, |w| w.value)
}

fn serves_something(file: &File) -> bool {
    file.proxy.is_some() || file.beacon.as_ref().is_some_and(|b| !b.listen.is_empty()) || file.admin_page.is_some()
}

/// What is known of a check before its witnesses are.
struct Draft<'f> {
    written: &'f config::Check,
    /// The check, where nothing in it is wrong.
    check: Option<Check>,
    /// Whether it is inverted, where that much can be told.
    inverted: Option<bool>,
}

/// What every check's draft needs.
struct Builder<'a> {
    context: &'a Context<'a>,
    defaults: &'a Common,
    /// The key shared with the beacon, or one that stands in for it until the end; none without `[beacon]`.
    key: Option<Key>,
}

impl Builder<'_> {
    fn draft<'f>(&self, written: &'f config::Check) -> Draft<'f> {
        let before = self.context.problems();
        let way = Way::of(written.own.as_ref());
        let expectation = written.own.as_ref().and_then(|own| expect::expectation(own, written.expect.as_ref()?, &way, self.context));
        let inverted = expectation.as_ref().map(Expectation::is_inverted);
        let probe = written.own.as_ref().and_then(|own| self.probe(own, written, inverted));
        self.vet_silence(written, expectation.as_ref());
        self.vet_families(written, &way);
        let labels = self.labels(written).len();
        if labels > MAX_LABELS {
            self.context.wrong(&written.place, format!("has {labels} labels with those of [defaults]; write at most {MAX_LABELS}"));
        }
        let sound = written.sound && self.context.problems() == before;
        let check = match (probe, expectation) {
            (Some(probe), Some(expectation)) if sound => self.check(written, probe, expectation),
            _ => None,
        };
        Draft { written, check, inverted }
    }

    /// The check with what it says itself, else with the default's, else with ours.
    fn check(&self, written: &config::Check, probe: Probe, expectation: Expectation) -> Option<Check> {
        let (own, defaults) = (&written.common, self.defaults);
        Some(Check {
            name: written.name.as_ref()?.value.clone(),
            target: written.target.as_ref()?.value.clone(),
            probe,
            expect: written.expect.as_ref()?.value.to_string(),
            expectation,
            witnesses: Vec::new(),
            require: self.either(written, |c| c.require.as_ref()).map_or(ProofSet::NONE.with(Proof::Vantage), |r| r.value),
            interval: self.either(written, |c| c.interval.as_ref()).map_or(INTERVAL, |i| i.value),
            timeout: self.either(written, |c| c.timeout.as_ref()).map_or(TIMEOUT, |t| t.value),
            attempts: self.either(written, |c| c.attempts.as_ref()).map_or(ATTEMPTS, |a| a.value),
            families: self.either(written, |c| c.families.as_ref()).map_or(Family::BOTH.to_vec(), |f| f.value.clone()),
            source: self.either(written, |c| c.source.as_ref()).map(|s| s.value),
            resolver: self.either(written, |c| c.resolver.as_ref()).map_or(Resolver::System, |r| r.value),
            severity: self.either(written, |c| c.severity.as_ref()).map_or(Severity::Warning, |s| s.value),
            runbook: self.either(written, |c| c.runbook.as_ref()).map(|r| r.value.clone()),
            description: self.either(written, |c| c.description.as_ref()).map(|d| d.value.clone()),
            labels: self.labels(written),
            tags: own.tags.clone().or_else(|| defaults.tags.clone()).unwrap_or_default(),
            worst_run: Duration::ZERO,
        })
    }

    /// What the check says, else what `[defaults]` says.
    fn either<'c, T>(&'c self, written: &'c config::Check, key: impl Fn(&'c Common) -> Option<&'c At<T>>) -> Option<&'c At<T>> {
        key(&written.common).or_else(|| key(self.defaults))
    }

    /// The default labels, and over them the check's own.
    fn labels(&self, written: &config::Check) -> BTreeMap<String, String> {
        let mut labels = self.defaults.labels.clone();
        labels.extend(written.common.labels.clone());
        labels
    }

    /// Silence is a block only where three SYNs can leave within one attempt.
    fn vet_silence(&self, written: &config::Check, expectation: Option<&Expectation>) {
        let timeout = self.either(written, |c| c.timeout.as_ref()).filter(|t| t.value < THIRD_SYN);
        if let Some(short) = timeout
            && expectation.is_some_and(Expectation::accepts_silence)
        {
            let message = format!(
                "a timeout of {} is too short to take silence for a block: the third SYN leaves after 3 s; \
                 write timeout = \"3s\" or more, or an expect without \"timeout\"",
                show(short.value)
            );
            self.context.wrong(if written.common.timeout.is_some() { &short.place } else { &written.place }, message);
        }
    }

    /// Target, `families` and `source` must leave something to look at.
    fn vet_families(&self, written: &config::Check, way: &Way) {
        let families = self.either(written, |c| c.families.as_ref());
        let source = self.either(written, |c| c.source.as_ref());
        let literal = way.first_hop.as_ref().and_then(|hop| hop.host.ip());
        let listed = |family| families.is_none_or(|f| f.value.contains(&family));
        let own = |place: &Place| if place.path.starts_with(&written.place.path) { place.clone() } else { written.place.clone() };
        if let (Some(ip), Some(families)) = (literal, families)
            && !listed(Family::of(ip))
        {
            let family = Family::of(ip);
            let message = format!("leaves out {family}, the family of {ip}, so nothing would be looked at; write [\"{family}\"]");
            self.context.wrong(&own(&families.place), message);
        }
        let Some(source) = source else { return };
        let family = Family::of(source.value);
        if let Some(ip) = literal.filter(|ip| Family::of(*ip) != family) {
            let message = format!("{} is {family} and cannot reach {ip}; write an address of its family", source.value);
            self.context.wrong(&own(&source.place), message);
        } else if !listed(family) {
            let message =
                format!("{} is {family}, which families leaves out; write an address of a family that is looked at", source.value);
            self.context.wrong(&own(&source.place), message);
        } else if literal.is_none() && Family::BOTH.into_iter().all(listed) {
            let message = format!(
                "the source {} is {family}, so only {family} can be looked at; write families = [\"{family}\"] to say so",
                source.value
            );
            self.context.hint(&own(&source.place), message);
        }
    }

    fn probe(&self, own: &Own, written: &config::Check, inverted: Option<bool>) -> Option<Probe> {
        let place = &written.place;
        match own {
            Own::Tcp { target } => Some(Probe::Tcp(probe::Tcp { target: target.as_ref()?.value.clone() })),
            Own::Tls { target, tls } => {
                let tls = self.tls(tls, place);
                Some(Probe::Tls(probe::Tls { target: target.as_ref()?.value.clone(), tls: tls? }))
            }
            Own::Http(http) => self.http(http, place, inverted).map(Probe::Http),
            Own::EgressIp { target, via } => {
                let via = self.via(via);
                let key = self.key(place);
                let url = target.as_ref()?.value.clone();
                let expected = expect::egress_addresses(written.expect.as_ref()?)?;
                Some(Probe::EgressIp(probe::EgressIp { url, via: via?, expected, key: key? }))
            }
            Own::Peer(peer) => self.peer(peer, place).map(Probe::Peer),
            Own::OpenProxy(suite) => self.open_proxy(suite, place).map(Probe::OpenProxy),
        }
    }

    fn http(&self, http: &config::Http, place: &Place, inverted: Option<bool>) -> Option<probe::Http> {
        if let Some(follow) = http.follow_redirects.as_ref().filter(|f| f.value && inverted == Some(true)) {
            self.context.wrong(&follow.place, "an inverted check is let in by the redirect itself; leave it out");
        }
        if let (Some(method), Some(body)) = (&http.method, &http.body_contains)
            && method.value == "HEAD"
        {
            self.context.wrong(&body.place, "the answer to HEAD has no body; write method = \"GET\" or leave it out");
        }
        self.vet_web_tls(http.target.as_ref(), &http.tls);
        let via = self.via(&http.via);
        let tls = self.tls(&http.tls, place);
        Some(probe::Http {
            url: http.target.as_ref()?.value.clone(),
            via: via?,
            method: http.method.as_ref().map_or("GET".into(), |m| m.value.clone()),
            headers: http.headers.clone(),
            body_contains: http.body_contains.as_ref().map(|b| b.value.clone()),
            follow_redirects: http.follow_redirects.as_ref().is_some_and(|f| f.value),
            tls: tls?,
        })
    }

    fn peer(&self, peer: &config::Peer, place: &Place) -> Option<probe::Peer> {
        self.vet_web_tls(peer.target.as_ref(), &peer.tls);
        let auth = self.credentials((&peer.user, "user"), (&peer.password_file, "password_file"));
        let tls = self.tls(&peer.tls, place);
        Some(probe::Peer {
            url: peer.target.as_ref()?.value.clone(),
            check: peer.check.as_ref()?.value.clone(),
            max_age: peer.max_age.as_ref().map_or(MAX_AGE, |m| m.value),
            auth: auth?,
            tls: tls?,
        })
    }

    fn open_proxy(&self, suite: &config::OpenProxy, place: &Place) -> Option<probe::OpenProxy> {
        let goes_there = |list: &Vec<At<Technique>>| list.iter().any(|t| t.value == Technique::AllowedDestination);
        match (&suite.techniques, &suite.allowed_destination) {
            (Some(list), None) if goes_there(&list.value) => {
                self.context.wrong(
                    &list.place,
                    "OP-07 needs a destination that the proxy allows; write allowed_destination = \"api.example.com:443\"",
                );
            }
            (Some(list), Some(destination)) if !goes_there(&list.value) => {
                self.context.wrong(&destination.place, "only OP-07 goes there; add \"OP-07\" to techniques or leave this out");
            }
            _ => {}
        }
        if suite.allowed_destination.is_none() {
            for key in [&suite.tls.server_name, &suite.tls.ca_file].into_iter().flatten() {
                self.context.wrong(&key.place, "is for the certificate of allowed_destination; write that too, or leave this out");
            }
        }
        let tls = self.tls(&suite.tls, place);
        let key = self.key(place);
        let default =
            || Technique::ALL.into_iter().filter(|t| *t != Technique::AllowedDestination || suite.allowed_destination.is_some()).collect();
        Some(probe::OpenProxy {
            target: suite.target.as_ref()?.value.clone(),
            beacons: suite.beacons.iter().map(|b| b.value.clone()).collect(),
            techniques: suite.techniques.as_ref().map_or_else(default, |list| list.value.iter().map(|t| t.value).collect()),
            allowed_destination: suite.allowed_destination.as_ref().map(|d| d.value.clone()),
            tls: tls?,
            key: key?,
        })
    }

    /// The key shared with the beacon, which this check cannot do without.
    fn key(&self, place: &Place) -> Option<Key> {
        if self.key.is_none() {
            self.context
                .wrong(place, "asks a beacon, and the key shared with it is not named; write [beacon] with key_file = \"beacon.key\"");
        }
        self.key.clone()
    }

    /// The proxy on the way; the outer `None` where something is wrong.
    #[expect(clippy::option_option, reason = "outside: is it right, inside: is there one")]
    fn via(&self, via: &Via) -> Option<Option<probe::Via>> {
        if via.proxy.is_none()
            && let Some(alone) = via.user.as_ref().or(via.password_file.as_ref())
            && !self.context.has_problem_at(&sibling(&alone.place, "via"))
        {
            self.context.wrong(&alone.place, "is for the proxy in via, and there is none; write via or leave this out");
            return None;
        }
        let auth = self.credentials((&via.user, "via_user"), (&via.password_file, "via_password_file"))?;
        Some(via.proxy.as_ref().map(|proxy| probe::Via { proxy: proxy.value.clone(), auth }))
    }

    /// A user name and the password from its file; the outer `None` where something is wrong.
    #[expect(clippy::option_option, reason = "outside: are they right, inside: are there any")]
    fn credentials(&self, user: (&Option<At<String>>, &str), password: (&Option<At<String>>, &str)) -> Option<Option<(String, Secret)>> {
        let alone = |here: &At<String>, other: &str| {
            if !self.context.has_problem_at(&sibling(&here.place, other)) {
                self.context.wrong(&here.place, format!("stands alone; write {other} too"));
            }
        };
        match (user, password) {
            ((None, _), (None, _)) => Some(None),
            ((Some(user), _), (None, other)) | ((None, other), (Some(user), _)) => {
                alone(user, other);
                None
            }
            ((Some(user), _), (Some(file), _)) => {
                let password = self.password(file)?;
                Some(Some((user.value.clone(), password)))
            }
        }
    }

    fn password(&self, file: &At<String>) -> Option<Secret> {
        let path = self.existing(file)?;
        match fs::read_to_string(&path) {
            Ok(text) => {
                let password = text.trim_end_matches(['\r', '\n']);
                if password.is_empty() || password.chars().any(char::is_control) {
                    self.context.wrong(&file.place, format!("{} must hold one line, the password; write it there", path.display()));
                    return None;
                }
                Some(Secret::new(password))
            }
            Err(e) => {
                self.context
                    .wrong(&file.place, format!("{} cannot be read ({e}); make it a text file that this user may read", path.display()));
                None
            }
        }
    }

    /// The path of a file that must be there.
    fn existing(&self, file: &At<String>) -> Option<PathBuf> {
        let path = self.context.base_dir.join(&file.value);
        if path.is_file() {
            return Some(path);
        }
        let why = if path.exists() { "is not a file" } else { "does not exist" };
        self.context.wrong(&file.place, format!("{} {why}; relative names start where the configuration lies", path.display()));
        None
    }

    /// TLS keys make sense for `https` only, and HTTP/1.1 is what is spoken.
    fn vet_web_tls(&self, url: Option<&At<Url>>, tls: &Tls) {
        if url.is_some_and(|u| u.value.scheme == Scheme::Http) {
            for place in tls.places() {
                self.context.wrong(place, "is for https, and the target is http; leave it out or write https://");
            }
        }
        for other in tls.alpn.iter().flat_map(|a| &a.value).filter(|a| a.value != HTTP_1_1) {
            self.context
                .wrong(&other.place, format!("\"{}\" is not spoken in this version; write [\"{HTTP_1_1}\"] or leave it out", other.value));
        }
    }

    fn tls(&self, keys: &Tls, place: &Place) -> Option<tls::Client> {
        let before = self.context.problems();
        let options = tls::Options {
            server_name: keys.server_name.as_ref().map(|s| s.value.clone()),
            ca_file: keys.ca_file.as_ref().and_then(|f| self.existing(f)),
            client_cert_file: keys.client_cert_file.as_ref().and_then(|f| self.existing(f)),
            client_key_file: keys.client_key_file.as_ref().and_then(|f| self.existing(f)),
            alpn: keys.alpn.iter().flat_map(|a| &a.value).map(|a| a.value.clone()).collect(),
            min_version: keys.min_version.as_ref().map(|v| v.value),
            max_version: keys.max_version.as_ref().map(|v| v.value),
        };
        match (&keys.client_cert_file, &keys.client_key_file) {
            (Some(alone), None) => self.context.wrong(&alone.place, "stands alone; write client_key_file too"),
            (None, Some(alone)) => self.context.wrong(&alone.place, "stands alone; write client_cert_file too"),
            _ => {}
        }
        if let (Some(min), Some(max)) = (&keys.min_version, &keys.max_version)
            && min.value > max.value
        {
            self.context.wrong(&min.place, "is above max_version, so nothing could be offered; swap them");
        }
        if self.context.problems() > before {
            return None;
        }
        match tls::Client::new(&options) {
            Ok(client) => Some(client),
            Err((key, why)) => {
                self.context.wrong(keys.place_of(key).unwrap_or(place), why);
                None
            }
        }
    }
}

/// Where a check leads, as far as that can be read.
struct Way {
    target: Option<HostPort>,
    /// The proxy on the way, else the target.
    first_hop: Option<HostPort>,
    via: bool,
}

impl Way {
    fn of(own: Option<&Own>) -> Way {
        let direct = |target: Option<HostPort>| Way { first_hop: target.clone(), target, via: false };
        let through = |url: Option<&At<Url>>, via: &Via| match &via.proxy {
            Some(proxy) => Way { target: authority(url), first_hop: Some(proxy.value.clone()), via: true },
            None => direct(authority(url)),
        };
        match own {
            None => direct(None),
            Some(Own::Tcp { target } | Own::Tls { target, .. }) => direct(target.as_ref().map(|t| t.value.clone())),
            Some(Own::Http(http)) => through(http.target.as_ref(), &http.via),
            Some(Own::EgressIp { target, via }) => through(target.as_ref(), via),
            Some(Own::Peer(peer)) => direct(authority(peer.target.as_ref())),
            Some(Own::OpenProxy(suite)) => direct(suite.target.as_ref().map(|t| t.value.clone())),
        }
    }
}

fn authority(url: Option<&At<Url>>) -> Option<HostPort> {
    url.map(|u| u.value.authority.clone())
}

/// The place of another key of the same table.
fn sibling(place: &Place, key: &str) -> String {
    place.path.rsplit_once('.').map_or(key.to_string(), |(table, _)| format!("{table}.{key}"))
}

/// A decoy that is itself looked at would make whoever is there look like somebody who answers for everybody.
fn decoys_apart(file: &File, context: &Context<'_>) {
    let goes_to = |check: &config::Check, ip: IpAddr| {
        let way = Way::of(check.own.as_ref());
        [way.first_hop, way.target].into_iter().flatten().any(|hop| hop.host.ip() == Some(ip))
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
    let names = || checks.iter().enumerate().filter_map(|(i, c)| Some((i, c.name.as_ref()?)));
    for (i, name) in names() {
        if let Some((first, _)) = names().find(|(j, other)| *j < i && other.value == name.value) {
            context.wrong(&name.place, format!("is the name of check #{} already; write another", first + 1));
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

/// The key in `[beacon]`; one stands in for it where it is still to be made, or where something is wrong (and noted).
fn beacon_key(file: &File, context: &Context<'_>) -> Option<Key> {
    let beacon = file.beacon.as_ref()?;
    let Some(key_file) = &beacon.key_file else { return stand_in(context, None) };
    let path = context.base_dir.join(&key_file.value);
    if path.exists() {
        return match Key::load(&path) {
            Ok(key) => Some(key),
            Err(why) => {
                context.wrong(&key_file.place, why);
                stand_in(context, None)
            }
        };
    }
    if beacon.listen.is_empty() {
        let message = format!("{} does not exist; copy it from where the beacon runs", path.display());
        context.wrong(&key_file.place, message);
    }
    stand_in(context, Some(&key_file.place))
}

/// A key that no beacon has.
fn stand_in(context: &Context<'_>, place: Option<&Place>) -> Option<Key> {
    match Key::ephemeral() {
        Ok(key) => Some(key),
        Err(why) => {
            place.into_iter().for_each(|place| context.wrong(place, why.clone()));
            None
        }
    }
}

/// The beacon with its key, which is made now if it must be: nothing is written for a file that is wrong.
fn file_key(file: &File, stand_in: Option<Key>, context: &Context<'_>, keys: Keys) -> Option<(Option<Beacon>, Option<PathBuf>)> {
    let (Some(beacon), Some(stand_in)) = (&file.beacon, stand_in) else { return Some((None, None)) };
    let key_file = beacon.key_file.as_ref()?;
    let listen: Vec<SocketAddr> = beacon.listen.iter().map(|a| a.value).collect();
    let path = context.base_dir.join(&key_file.value);
    if path.exists() || listen.is_empty() || keys == Keys::Read {
        return Some((Some(Beacon { listen, key: stand_in }), None));
    }
    match Key::load_or_create(&path) {
        Ok((key, created)) => Some((Some(Beacon { listen, key }), created.then_some(path))),
        Err(why) => {
            context.wrong(&key_file.place, why);
            None
        }
    }
}

fn give_key(check: &mut Check, shared: &Key) {
    match &mut check.probe {
        Probe::EgressIp(egress) => egress.key = shared.clone(),
        Probe::OpenProxy(suite) => suite.key = shared.clone(),
        Probe::Tcp(_) | Probe::Tls(_) | Probe::Http(_) | Probe::Peer(_) => {}
    }
}

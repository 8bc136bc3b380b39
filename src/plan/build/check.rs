//! One check: what it says itself, else the defaults; whether that is legal; and the probe that it means.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{expect, ports};
use crate::config::duration::show;
use crate::config::{self, At, Common, Context, ListAt, MAX_LABELS, Own, Place, Tls, Tried, Via};
use crate::expectation::Expectation;
use crate::net::h2;
use crate::net::resolve::Resolver;
use crate::net::tls::{self, Version};
use crate::observation::Family;
use crate::plan::Check;
use crate::probe::{self, Kind, ListForm, Manner, Payload, Pointer, Probe, Published, RecordType, Takes, Technique, WebList};
use crate::secret::Secret;
use crate::severity::Severity;
use crate::target::{Host, HostPort, Networks, Scheme, Url};
use crate::token::Key;
use crate::witness::{Proof, ProofSet};

pub(super) const INTERVAL: Duration = Duration::from_secs(30);
/// Of a check that is looked at in parts: it takes minutes, and its target bears the whole of it every time.
const SUITE_INTERVAL: Duration = Duration::from_secs(600);
/// Of a list that changes by the week, at a publisher who may count who asks.
const RANGES_INTERVAL: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const ATTEMPTS: usize = 3;
const MAX_AGE: Duration = Duration::from_secs(60);
/// Linux sends a SYN at 0, 1 and 3 s (RFC 6298 section 2): the third, without which silence is no block, leaves here.
const THIRD_SYN: Duration = Duration::from_secs(3);
/// The protocol that all speak; kind `http` speaks HTTP/2, too.
const HTTP_1_1: &str = "http/1.1";

/// What is known of a check before its witnesses are.
pub(super) struct Draft<'f> {
    pub(super) written: &'f config::Check,
    /// The check, where nothing in it is wrong.
    pub(super) check: Option<Check>,
    /// Whether it is inverted, where that much can be told.
    pub(super) inverted: Option<bool>,
}

/// What every check's draft needs.
pub(super) struct Builder<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) defaults: &'a Common,
    /// The key shared with the beacon, or one that stands in for it until the end; none without `[beacon]`.
    pub(super) key: Option<Key>,
    /// Where this monitor stands; empty where that is wrong.
    pub(super) vantage: &'a str,
}

impl Builder<'_> {
    pub(super) fn draft<'f>(&self, written: &'f config::Check) -> Draft<'f> {
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
        let usual_interval = match &probe {
            Probe::Ranges(_) => RANGES_INTERVAL,
            probe if probe.subjects_known() > probe.looks_at_once() => SUITE_INTERVAL,
            _ => INTERVAL,
        };
        Some(Check {
            name: written.name.as_ref()?.value.clone(),
            target: written.target.as_ref()?.value.clone(),
            rooted: probe.via().is_none() && is_rooted(&written.target.as_ref()?.value),
            open: ports::open(&probe),
            probe,
            expect: written.expect.as_ref()?.value.to_string(),
            expectation,
            witnesses: Vec::new(),
            require: self.either(written, |c| c.require.as_ref()).map_or(ProofSet::NONE.with(Proof::Vantage), |r| r.value),
            interval: self.either(written, |c| c.interval.as_ref()).map_or(usual_interval, |i| i.value),
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
            within: None,
            position: self.context.position(&written.place),
        })
    }

    /// What the check says, else what `[defaults]` says.
    pub(super) fn either<'c, T>(&'c self, written: &'c config::Check, key: impl Fn(&'c Common) -> Option<&'c At<T>>) -> Option<&'c At<T>> {
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
            let third = match written.own.as_ref().map(Own::kind) {
                Some(Kind::Udp) => "the third datagram leaves after 2 s, and its answer may take a second",
                Some(Kind::Icmp) => "the third echo leaves after 2 s, and its answer may take a second",
                _ => "the third SYN leaves after 3 s",
            };
            let message = format!(
                "a timeout of {} is too short to take silence for a block: {third}; \
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
        let hop = way.first_hop.as_ref().and_then(|hop| hop.host.ip());
        let literals: Vec<IpAddr> = hop.into_iter().chain(way.servers.iter().map(SocketAddr::ip)).collect();
        let listed = |family| families.is_none_or(|f| f.value.contains(&family));
        let own = |place: &Place| if place.path.starts_with(&written.place.path) { place.clone() } else { written.place.clone() };
        if let (Some(ip), Some(families)) = (literals.iter().find(|ip| !listed(Family::of(**ip))), families) {
            let family = Family::of(*ip);
            let others = literals.iter().any(|other| Family::of(*other) != family);
            let message = match others {
                true => format!("leaves out {family}, the family of {ip}; leave it out for both"),
                false => format!("leaves out {family}, the family of {ip}, so nothing would be looked at; write [\"{family}\"]"),
            };
            self.context.wrong(&own(&families.place), message);
        }
        let Some(source) = source else { return };
        let family = Family::of(source.value);
        if let Some(ip) = literals.iter().find(|ip| Family::of(**ip) != family) {
            let message = format!("{} is {family} and cannot reach {ip}; write an address of its family", source.value);
            self.context.wrong(&own(&source.place), message);
        } else if !listed(family) {
            let message =
                format!("{} is {family}, which families leaves out; write an address of a family that is looked at", source.value);
            self.context.wrong(&own(&source.place), message);
        } else if literals.is_empty() && Family::BOTH.into_iter().all(listed) {
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
                let (client, manner) = (self.tls(tls, place, inverted != Some(false)), self.manner(tls, place, inverted));
                Some(Probe::Tls(probe::Tls { target: target.as_ref()?.value.clone(), tls: client?, manner: manner? }))
            }
            Own::Http(http) => self.http(http, written, inverted).map(Probe::Http),
            Own::EgressIp { target, via } => {
                let via = self.via(via);
                let key = self.key(place);
                let url = target.as_ref()?.value.clone();
                let expected = expect::egress_addresses(written.expect.as_ref()?)?;
                Some(Probe::EgressIp(probe::EgressIp { url, via: via?, expected, key: key? }))
            }
            Own::Peer(peer) => self.peer(peer, place).map(Probe::Peer),
            Own::PromQl(query) => self.promql(query, place, inverted).map(Probe::PromQl),
            Own::OpenProxy(suite) => self.open_proxy(suite, place).map(Probe::OpenProxy),
            Own::Dns(dns) => self.dns(dns, written, inverted).map(Probe::Dns),
            Own::Udp { target, payload } => self.udp(target.as_ref()?, payload.as_ref(), written).map(Probe::Udp),
            Own::Icmp { target } => Some(Probe::Icmp(probe::Icmp { target: target.as_ref()?.value.clone() })),
            Own::Ports(sweep) => ports::probe(sweep, self.context).map(Probe::Ports),
            Own::Ranges(ranges) => self.ranges(ranges, written).map(Probe::Ranges),
        }
    }

    /// In whose place the check looks, and whether that is legal.
    fn manner(&self, keys: &Tls, place: &Place, inverted: Option<bool>) -> Option<Manner> {
        if let Some(pin) = keys.certificate_sha256.as_ref().filter(|_| inverted == Some(true)) {
            self.context.wrong(&pin.place, "an inverted check is let in by any certificate; leave it out");
        }
        let Some(certs) = &keys.client_certs else {
            return Some(keys.max_version.as_ref().filter(|v| v.value < Version::V1_2).map_or(Manner::Plain, |v| Manner::Old(v.value)));
        };
        let before = self.context.problems();
        if inverted == Some(false) {
            let message =
                "names who must be refused, and this check expects something open; write expect = \"blocked\", or client_cert_file";
            self.context.wrong(&certs.place, message);
        }
        if let Some(own) = &keys.client_cert_file {
            self.context.wrong(
                &own.place,
                "is the right certificate, and client_certs is for who has none; put it in a check of its own, as the witness",
            );
        }
        let options = self.tls_options(keys);
        if self.context.problems() > before {
            return None;
        }
        let tried: Vec<_> = certs.value.iter().map(|c| c.value).collect();
        match tls::Stranger::all(&options, &tried) {
            Ok(all) => Some(Manner::Strangers(all)),
            Err((key, why)) => {
                // What is wrong with the other keys is said where the check's own client is made.
                if key == "client_certs" {
                    self.context.wrong(keys.place_of(key).unwrap_or(place), why);
                }
                None
            }
        }
    }

    /// TLS 1.0 and 1.1 can be offered by a hello alone, to be refused.
    fn vet_versions(&self, keys: &Tls, may_be_old: bool) {
        if let Some(min) = keys.min_version.as_ref().filter(|v| v.value < Version::V1_2) {
            self.context.wrong(&min.place, "no handshake can be made with so old a version; write \"1.2\" or \"1.3\", or leave it out");
        }
        let Some(max) = keys.max_version.as_ref().filter(|v| v.value < Version::V1_2) else { return };
        if !may_be_old {
            let message = "so old a version can be offered only to be refused, by a check of kind tls with expect = \"blocked\" or [\"tls-refused\"]; write \"1.2\" or \"1.3\"";
            self.context.wrong(&max.place, message);
        }
        for (key, place) in [("client_certs", keys.place_of("client_certs")), ("client_cert_file", keys.place_of("client_cert_file"))] {
            if let Some(place) = place {
                self.context
                    .wrong(place, format!("with so old a max_version no handshake is made, and no certificate shown; leave out {key}"));
            }
        }
    }

    /// What is sent is what is written, else what the port is known for.
    fn udp(&self, target: &At<HostPort>, payload: Option<&At<Payload>>, written: &config::Check) -> Option<probe::Udp> {
        let (place, port) = (&written.place, target.value.port);
        let payload = match payload {
            Some(written) => Some(written.value.clone()),
            None if self.context.has_problem_at(&sibling(&target.place, "payload")) => None,
            None => {
                let known = Payload::of_port(port);
                if written.placeholder {
                    self.context.wrong(place, "names no payload, and without a target there is no port to tell it by; write payload");
                } else if known.is_none() {
                    let names: Vec<&str> = Payload::names().collect();
                    self.context.wrong(
                        place,
                        format!(
                            "names no payload, and port {port} is not known for one: no service answers just anything; \
                             write payload = \"hex:…\" with bytes that this one answers, or one of {}",
                            names.join(", ")
                        ),
                    );
                }
                known
            }
        };
        Some(probe::Udp { target: target.value.clone(), payload: payload? })
    }

    fn http(&self, http: &config::Http, written: &config::Check, inverted: Option<bool>) -> Option<probe::Http> {
        let place = &written.place;
        if let Some(follow) = http.follow_redirects.as_ref().filter(|f| f.value && inverted == Some(true)) {
            self.context.wrong(&follow.place, "an inverted check is let in by the redirect itself; leave it out");
        }
        if let (Some(method), Some(body)) = (&http.method, &http.body_contains)
            && method.value == "HEAD"
        {
            self.context.wrong(&body.place, "the answer to HEAD has no body; write method = \"GET\" or leave it out");
        }
        self.vet_web_tls(http.target.as_ref(), &http.tls, &[h2::ALPN, HTTP_1_1]);
        if let (Some(version), Some(url)) = (&http.http_version, &http.target)
            && url.value.scheme == Scheme::Https
        {
            self.context.wrong(&version.place, "is for http, and over https it is agreed; write alpn = [\"h2\"] or alpn = [\"http/1.1\"]");
        }
        if let (Some(method), Some(_)) = (http.via.absolute.as_ref().filter(|method| method.value), &http.via.proxy) {
            let tls = http.target.as_ref().is_some_and(|url| url.value.scheme == Scheme::Https);
            let message = match inverted {
                Some(true) => {
                    "a refusal by the proxy could not be told from the target's own; write via_method = \"connect\", or leave it out"
                }
                _ if tls => "no proxy fetches https for others; write an http target, or via_method = \"connect\"",
                _ if http.follow_redirects.as_ref().is_some_and(|f| f.value) => "follows no redirect; leave out follow_redirects",
                _ if http.http_version.as_ref().is_some_and(|v| v.value) => "is HTTP/1.1; leave out http_version",
                _ => "",
            };
            if !message.is_empty() {
                self.context.wrong(&method.place, message);
            }
        }
        if let (Some(deny), Some(_), Some(true)) = (&http.deny_location, &http.via.proxy, inverted) {
            let message = "a denial by the proxy in via could not be told from the target's own; leave out one of the two";
            self.context.wrong(&deny.place, message);
        }
        if let (Some(deny), Some(url)) = (&http.deny_location, &http.target) {
            // Such a page leads to itself, or into what it guards: `/` to `/dashboard`.
            for at in deny.value.iter().filter(|at| url.value.is_below(&at.value)) {
                let message = "the target itself lies there, so that a way in would be taken for a denial; write where only the sign-in is";
                self.context.wrong(&at.place, message);
            }
        }
        let via = self.via(&http.via);
        let (tls, manner) = (self.tls(&http.tls, place, false), self.manner(&http.tls, place, inverted));
        if let (Some(method), Some(certs)) = (&http.method, &http.tls.client_certs)
            && method.value == "HEAD"
        {
            let message = "the answer to HEAD has no body to say what the refusal is for; write method = \"GET\" or leave it out";
            self.context.wrong(&certs.place, message);
        }
        if let (Some(pin), Some(true)) = (&http.tls.certificate_sha256, http.follow_redirects.as_ref().map(|f| f.value)) {
            self.context.wrong(&pin.place, "is the certificate of one host, and redirects lead to others; leave out one of the two");
        }
        let variants = self.variants(http, written, inverted);
        Some(probe::Http {
            url: http.target.as_ref()?.value.clone(),
            via: via?,
            method: http.method.as_ref().map_or("GET".into(), |m| m.value.clone()),
            headers: http.headers.clone(),
            body_contains: http.body_contains.as_ref().map(|b| b.value.clone()),
            deny_location: http.deny_location.iter().flat_map(|d| &d.value).map(|d| d.value.clone()).collect(),
            prior_knowledge: http.http_version.as_ref().is_some_and(|v| v.value),
            follow_redirects: http.follow_redirects.as_ref().is_some_and(|f| f.value),
            tls: tls?.or_offering(&[h2::ALPN, HTTP_1_1]),
            manner: manner?,
            variants: variants?,
        })
    }

    fn peer(&self, peer: &config::Peer, place: &Place) -> Option<probe::Peer> {
        self.vet_web_tls(peer.target.as_ref(), &peer.tls, &[HTTP_1_1]);
        let auth = self.credentials((&peer.user, "user"), (&peer.password_file, "password_file"));
        let tls = self.tls(&peer.tls, place, false);
        Some(probe::Peer {
            url: peer.target.as_ref()?.value.clone(),
            check: peer.check.as_ref()?.value.clone(),
            max_age: peer.max_age.as_ref().map_or(MAX_AGE, |m| m.value),
            auth: auth?,
            tls: tls?,
        })
    }

    fn promql(&self, written: &config::PromQl, place: &Place, inverted: Option<bool>) -> Option<probe::PromQl> {
        self.vet_web_tls(written.target.as_ref(), &written.tls, &[HTTP_1_1]);
        let auth = self.credentials((&written.user, "user"), (&written.password_file, "password_file"));
        let tls = self.tls(&written.tls, place, false);
        Some(probe::PromQl {
            url: written.target.as_ref()?.value.clone(),
            query: written.query.as_ref()?.value.clone(),
            max_age: written.max_age.as_ref().map_or(MAX_AGE, |m| m.value),
            auth: auth?,
            tls: tls?,
            vantage: self.vantage.to_string(),
            // Of what must not be, one is too many; of what must be, each is missed.
            takes: if inverted == Some(true) { Takes::One } else { Takes::All },
        })
    }

    fn ranges(&self, ranges: &config::Ranges, written: &config::Check) -> Option<probe::Ranges> {
        let common = &written.common;
        let url = ranges.target.as_ref().and_then(|target| match &target.value {
            ListAt::Url(url) => Some(At { value: url.clone(), place: target.place.clone() }),
            ListAt::File(_) => None,
        });
        if let Some(At { value: ListAt::File(_), .. }) = &ranges.target {
            let fetching = ranges.tls.places().chain(&ranges.headers_at);
            let dialling = [common.source.as_ref().map(|s| &s.place), common.families.as_ref().map(|f| &f.place)];
            let asking = common.resolver.as_ref().map(|r| &r.place);
            for place in fetching.chain(dialling.into_iter().flatten()).chain(asking) {
                self.context.wrong(place, "is for a list that is fetched, and the target is a file; leave it out or write https://");
            }
        }
        self.vet_web_tls(url.as_ref(), &ranges.tls, &[HTTP_1_1]);
        let pointers =
            |list: &Option<At<Vec<At<Pointer>>>>| list.iter().flat_map(|l| &l.value).map(|p| p.value.clone()).collect::<Vec<_>>();
        let form = ListForm { pointers: pointers(&ranges.pointer), only_where: ranges.only_where.clone() };
        if let (Some(place), false) = (&ranges.where_at, form.pointers.iter().all(Pointer::has_each) && !form.pointers.is_empty()) {
            let message = "asks the objects that the first * of each pointer gives; write pointer = \"/prefixes/*/ip_prefix\"";
            self.context.wrong(place, message);
        }
        let tls = self.tls(&ranges.tls, &written.place, false);
        let expected = ranges.expected.as_ref()?;
        let source = match &expected.value {
            config::Networks::These(networks) => {
                if let Some(pointer) = &ranges.expected_pointer {
                    self.context.wrong(&pointer.place, "leads into a file, and expected is a list; leave it out");
                }
                probe::Expected::Given(Networks::of(networks.iter().copied()))
            }
            config::Networks::File(name) => {
                let path = self.existing(&At { value: name.clone(), place: expected.place.clone() })?;
                let form = ListForm { pointers: pointers(&ranges.expected_pointer), only_where: Vec::new() };
                probe::Expected::File { path, written: name.clone(), form }
            }
        };
        let probe = probe::Ranges {
            published: match &ranges.target.as_ref()?.value {
                ListAt::Url(url) => Published::Web(Box::new(WebList { url: url.clone(), headers: ranges.headers.clone(), tls: tls? })),
                ListAt::File(name) => Published::File(self.context.base_dir.join(name)),
            },
            form,
            expected: source,
            only: ranges.only.as_ref().map(|only| only.value),
            besides: Networks::of(ranges.besides.iter().flat_map(|list| &list.value).map(|net| net.value)),
        };
        match probe.expected.read() {
            Err(why) => self.context.wrong(&expected.place, format!("{why}; write networks, one a line, or JSON with expected_pointer")),
            Ok(networks) => {
                if let Some(all) = probe.everybody(&networks) {
                    let message = format!("has {all}, which is everybody; write the networks that the publisher has");
                    self.context.wrong(&expected.place, message);
                } else if probe.compared(networks).is_empty() {
                    self.context.wrong(&expected.place, "of it nothing is left to compare; see only and besides");
                } else {
                    if let Some(url) = url.filter(|url| url.value.scheme == Scheme::Http) {
                        let message = "is fetched over plain http, so whoever sits on the way may write the list; write https://";
                        self.context.hint(&url.place, message);
                    }
                    return Some(probe);
                }
            }
        }
        None
    }

    fn open_proxy(&self, suite: &config::OpenProxy, place: &Place) -> Option<probe::OpenProxy> {
        let goes_there = |list: &Vec<At<Tried>>| {
            list.iter().any(|t| match t.value {
                Tried::Standard | Tried::Quick => suite.allowed_destination.is_some(),
                Tried::One(technique) => technique.needs_destination(),
            })
        };
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
        let forge: Vec<Technique> = Technique::ALL.iter().copied().filter(|t| t.needs_spoof()).collect();
        let named = |t: &&At<Tried>| matches!(t.value, Tried::One(technique) if technique.needs_spoof());
        match (&suite.techniques, &suite.spoof) {
            (Some(list), None) if list.value.iter().any(|t| named(&t)) => {
                for one in list.value.iter().filter(named) {
                    let message = format!(
                        "{} forges an address that the proxy's own rules allow; write spoof = [\"203.0.113.10\"] too, or leave it out",
                        one.value.token()
                    );
                    self.context.wrong(&one.place, message);
                }
            }
            (list, None) if list.as_ref().is_none_or(|list| list.value.iter().any(|t| t.value == Tried::Standard)) => {
                let message = format!(
                    "{} are not tried, nor is it shown that this monitor is a stranger to the proxy: \
                     that takes spoof = [...], the addresses that the proxy's own rules allow",
                    forge.iter().map(|t| t.id()).collect::<Vec<_>>().join(", ")
                );
                self.context.hint(place, message);
            }
            _ => {}
        }
        let tls = self.tls(&suite.tls, place, false);
        let key = self.key(place);
        let possible = |technique: &Technique| {
            (suite.spoof.is_some() || !technique.needs_spoof()) && (suite.allowed_destination.is_some() || !technique.needs_destination())
        };
        let of = |tried: Tried| match tried {
            Tried::Standard => Technique::ALL.iter().copied().filter(possible).collect(),
            Tried::Quick => Technique::QUICK.iter().copied().filter(possible).collect(),
            Tried::One(technique) => vec![technique],
        };
        let techniques: Vec<Technique> = match &suite.techniques {
            Some(list) => list.value.iter().flat_map(|t| of(t.value)).collect(),
            None => of(Tried::Standard),
        };
        let beacons = suite.beacons.iter().map(|b| b.value.clone()).collect();
        let mut probe = probe::OpenProxy::new(suite.target.as_ref()?.value.clone(), beacons, techniques, tls?, key?);
        probe.spoof = suite.spoof.as_ref().map_or(Vec::new(), |s| s.value.clone());
        probe.allowed_destination = suite.allowed_destination.as_ref().map(|d| d.value.clone());
        Some(probe)
    }

    fn dns(&self, dns: &config::Dns, written: &config::Check, inverted: Option<bool>) -> Option<probe::Dns> {
        if let Some(resolver) = &written.common.resolver {
            self.context.wrong(&resolver.place, "is for names on the way, and a dns check asks its server; write server");
        }
        if let Some(answers) = dns.answers.as_ref().filter(|_| inverted == Some(true)) {
            self.context.wrong(&answers.place, "is what an open check may be answered, and this one wants no answer at all; leave it out");
        }
        let name = dns.target.as_ref()?.value.clone();
        let answers: Vec<probe::Allowed> = dns.answers.iter().flat_map(|list| &list.value).map(|a| a.value.clone()).collect();
        let families = self.either(written, |c| c.families.as_ref()).map_or(Family::BOTH.to_vec(), |f| f.value.clone());
        Some(probe::Dns {
            target: HostPort { host: Host::Name(name), port: probe::DNS_PORT },
            servers: dns.servers().map(|s| s.value).collect(),
            families,
            records: match &dns.records {
                Some(records) => records.value.iter().map(|r| r.value).collect(),
                None => default_records(inverted == Some(true), &answers),
            },
            answers,
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
            && let Some(alone) = [&via.user, &via.password_file]
                .into_iter()
                .flatten()
                .map(|a| &a.place)
                .chain(via.absolute.as_ref().map(|a| &a.place))
                .next()
            && !self.context.has_problem_at(&sibling(alone, "via"))
        {
            self.context.wrong(alone, "is for the proxy in via, and there is none; write via or leave this out");
            return None;
        }
        let auth = self.credentials((&via.user, "via_user"), (&via.password_file, "via_password_file"))?;
        let absolute = via.absolute.as_ref().is_some_and(|method| method.value);
        Some(via.proxy.as_ref().map(|proxy| probe::Via { proxy: proxy.value.clone(), auth, absolute }))
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

    /// TLS keys make sense for `https` only, and what is offered must be spoken.
    fn vet_web_tls(&self, url: Option<&At<Url>>, tls: &Tls, spoken: &[&str]) {
        if url.is_some_and(|u| u.value.scheme == Scheme::Http) {
            for place in tls.places() {
                self.context.wrong(place, "is for https, and the target is http; leave it out or write https://");
            }
        }
        for other in tls.alpn.iter().flat_map(|a| &a.value).filter(|a| !spoken.contains(&a.value.as_str())) {
            self.context.wrong(&other.place, format!("\"{}\" is not spoken here; write some of {spoken:?} or leave it out", other.value));
        }
    }

    /// The options as written; the files that they name are there.
    fn tls_options(&self, keys: &Tls) -> tls::Options {
        tls::Options {
            server_name: keys.server_name.as_ref().map(|s| s.value.clone()),
            ca_file: keys.ca_file.as_ref().and_then(|f| self.existing(f)),
            client_cert_file: keys.client_cert_file.as_ref().and_then(|f| self.existing(f)),
            client_key_file: keys.client_key_file.as_ref().and_then(|f| self.existing(f)),
            alpn: keys.alpn.iter().flat_map(|a| &a.value).map(|a| a.value.clone()).collect(),
            min_version: keys.min_version.as_ref().map(|v| v.value),
            max_version: keys.max_version.as_ref().map(|v| v.value),
            certificate_sha256: keys.certificate_sha256.as_ref().map(|s| s.value.clone()),
        }
    }

    fn tls(&self, keys: &Tls, place: &Place, may_be_old: bool) -> Option<tls::Client> {
        let before = self.context.problems();
        let mut options = self.tls_options(keys);
        self.vet_versions(keys, may_be_old);
        if keys.max_version.as_ref().is_some_and(|v| v.value < Version::V1_2) {
            // What is offered then is a hello of our own, and no handshake.
            (options.min_version, options.max_version) = (None, None);
        }
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
pub(super) struct Way {
    /// The addresses that are dialled first, where the file says them and they are not the target's.
    pub(super) servers: Vec<SocketAddr>,
    pub(super) target: Option<HostPort>,
    /// The proxy on the way, else the target.
    pub(super) first_hop: Option<HostPort>,
    pub(super) via: bool,
}

impl Way {
    pub(super) fn of(own: Option<&Own>) -> Way {
        let direct = |target: Option<HostPort>| Way { servers: Vec::new(), first_hop: target.clone(), target, via: false };
        let through = |url: Option<&At<Url>>, via: &Via| match &via.proxy {
            Some(proxy) => Way { servers: Vec::new(), target: authority(url), first_hop: Some(proxy.value.clone()), via: true },
            None => direct(authority(url)),
        };
        match own {
            None => direct(None),
            Some(Own::Tcp { target } | Own::Tls { target, .. }) => direct(target.as_ref().map(|t| t.value.clone())),
            Some(Own::Http(http)) => through(http.target.as_ref(), &http.via),
            Some(Own::EgressIp { target, via }) => through(target.as_ref(), via),
            Some(Own::Peer(peer)) => direct(authority(peer.target.as_ref())),
            Some(Own::PromQl(query)) => direct(authority(query.target.as_ref())),
            Some(Own::OpenProxy(suite)) => direct(suite.target.as_ref().map(|t| t.value.clone())),
            Some(Own::Dns(dns)) => Way { servers: dns.servers().map(|s| s.value).collect(), ..direct(None) },
            Some(Own::Ranges(ranges)) => direct(ranges.target.as_ref().and_then(|target| match &target.value {
                ListAt::Url(url) => Some(url.authority.clone()),
                ListAt::File(_) => None,
            })),
            Some(Own::Udp { target, .. }) => direct(target.as_ref().map(|t| t.value.clone())),
            Some(Own::Icmp { target }) => direct(target.as_ref().map(|t| t.value.host.clone())),
            Some(Own::Ports(sweep)) => direct(sweep.target.as_ref().map(|t| HostPort { host: t.value.first(), port: 0 })),
        }
    }
}

/// Whether the host of a target, `host:port` or a URL, has its last dot.
fn is_rooted(target: &str) -> bool {
    let authority = target.split_once("://").map_or(target, |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default();
    authority.rsplit_once(':').map_or(authority, |(host, _)| host).ends_with('.')
}

/// What is asked for where no type is written. Nothing must be given by either family; but what must be given is rarely
/// given by both, so there the addresses that are allowed tell, or else it is A.
fn default_records(inverted: bool, answers: &[probe::Allowed]) -> Vec<RecordType> {
    let of = |family: Family| {
        let net = |a: &probe::Allowed| matches!(a, probe::Allowed::Net(net) if Family::of(net.addr()) == family);
        inverted || answers.iter().any(net)
    };
    let (v4, v6) = (of(Family::V4), of(Family::V6));
    let v4 = (v4 || !v6).then_some(RecordType::A);
    v4.into_iter().chain(v6.then_some(RecordType::AAAA)).collect()
}

fn authority(url: Option<&At<Url>>) -> Option<HostPort> {
    url.map(|u| u.value.authority.clone())
}

/// The place of another key of the same table.
fn sibling(place: &Place, key: &str) -> String {
    place.path.rsplit_once('.').map_or(key.to_string(), |(table, _)| format!("{table}.{key}"))
}

//! Sections: from the tables of the file to what is written in them, key by key.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::alert::Alert;
use super::dns::Dns;
use super::duration::show;
use super::instance;
use super::keys;
use super::problem::At;
use super::reader::{Section, listed};
use super::targets::{self, Target};
use super::value::{
    client_cert_name, filled, parse_address, parse_alpn, parse_base, parse_bcrypt, parse_beacon, parse_client_cert, parse_decoy,
    parse_door, parse_family, parse_host_port, parse_hosts, parse_http_version, parse_interface, parse_kind, parse_label, parse_line,
    parse_list_at, parse_listen, parse_log, parse_method, parse_name, parse_proof, parse_query, parse_resolver, parse_runbook, parse_scope,
    parse_severity, parse_sha256, parse_technique, parse_url, parse_user, parse_variants, parse_version, parse_via, parse_via_method,
};
use super::written::{
    AdminPage, Beacon, Check, Common, Exception, Expect, File, Http, LogEvidence, MAX_LABELS, Networks, OpenProxy, Own, Peer, Ports,
    PromQl, Ranges, Tls, Tried, Via, Web,
};
use crate::exception::{MAX_OWNER, MAX_REASON};
use crate::flowlog::{Format, MAX_CLOCK_SKEW, MAX_KEEP};
use crate::observation::Family;
use crate::probe::{Kind, Pointer};
use crate::proxy;
use crate::secret::Secret;
use crate::target::{Host, PortSet, Url, fold_mapped, parse_cidr};

/// Headers that the monitor writes itself, or that frame the message (RFC 9110, RFC 9112).
pub(super) const OWN_HEADERS: [&str; 11] = [
    "host",
    "user-agent",
    "accept",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "proxy-authorization",
];
/// The least and the most that `max_head` can mean, in bytes.
const HEAD: std::ops::RangeInclusive<usize> = 1024..=1_048_576;
/// Packets or connects a second that a sweep may be told to send: a million is as fast as it can.
const RATE: std::ops::RangeInclusive<usize> = 1..=1_000_000;
/// The most pointers into one list, each of which reads it once more.
const POINTERS: usize = 16;
/// The most members that `where` may ask for.
pub(super) const WHERES: usize = 8;
/// Any duration but none.
const SOME: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// A drill takes some seconds, and its twins some descriptors: that is not to be had all the time.
const MINUTE: Duration = Duration::from_secs(60);

impl File {
    /// Reads the whole file.
    pub fn read(top: &Section<'_, '_>) -> File {
        keys::vet_top(top);
        top.require("vantage", "write where this monitor stands, such as vantage = \"office\", in the first line");
        let mut listeners = Vec::new();
        let web = top.table("web").map(|web| read_web(&web, &mut listeners));
        let beacon = top.table("beacon").map(|beacon| read_beacon(&beacon, &mut listeners));
        let mut proxy = top.table("proxy").map(|proxy| read_proxy(&proxy, &mut listeners));
        let shutdown_grace = top.duration("shutdown_grace", Duration::ZERO);
        if let Some(proxy) = &mut proxy {
            proxy.settings.own = web.iter().filter_map(|web| Some(web.listen.as_ref()?.value)).collect();
            proxy.drain_within(shutdown_grace.as_ref().map(|grace| grace.value), top);
        }
        File {
            vantage: top.public_string_of("vantage", "\"office\"", |text| parse_name(text, "-_.")),
            witness_window: top.duration("witness_window", SECOND),
            linger: top.duration("linger", Duration::ZERO),
            decoy: top.one_or_list("decoy", "\"192.0.2.1\"", parse_decoy).map_or(Vec::new(), |d| one_a_family(top, d)),
            state_dir: top.parsed("state_dir", "\"/var/lib/mustnot\"", filled),
            shutdown_grace,
            defaults: top.table("defaults").map_or_else(Common::default, |defaults| {
                keys::vet_defaults(&defaults);
                read_common(&defaults)
            }),
            web,
            beacon,
            proxy: proxy.map(|proxy| proxy.settings),
            drill: top.table("drill").and_then(|drill| {
                keys::vet_drill(&drill);
                drill.require("interval", "write interval = \"1h\"");
                drill.duration("interval", MINUTE)
            }),
            evidence: top.table("evidence").map(|evidence| read_evidence(&evidence)),
            admin_page: top.table("admin_page").map(|page| read_admin_page(&page, &mut listeners)),
            listeners,
            alerts: top.tables("alert").iter().map(Alert::read).collect(),
            checks: top.tables("check").iter().zip(1..).flat_map(|(check, number)| Check::read_all(check, number)).collect(),
            exceptions: top.tables("exception").iter().map(read_exception).collect(),
        }
    }
}

fn read_web(web: &Section<'_, '_>, listeners: &mut Vec<At<SocketAddr>>) -> Web {
    keys::vet_web(web);
    web.require("listen", "write listen = \"127.0.0.1:9890\"");
    let listen = web.parsed("listen", "\"127.0.0.1:9890\"", parse_listen);
    listeners.extend(listen.clone());
    Web {
        listen,
        cert_file: web.parsed("cert_file", "\"web.pem\"", filled),
        key_file: web.parsed("key_file", "\"web.key\"", filled),
        client_ca_file: web.parsed("client_ca_file", "\"clients-ca.pem\"", filled),
        basic_auth: web.table("basic_auth").map_or_else(BTreeMap::new, |users| read_users(&users)),
    }
}

fn read_users(users: &Section<'_, '_>) -> BTreeMap<String, Secret> {
    let mut read = BTreeMap::new();
    for (name, place) in users.keys() {
        if let Err(why) = parse_user(name) {
            users.context().wrong(&place, why);
        }
        read.extend(
            users.parsed(name, "\"$2y$10$...\", as htpasswd -nBC 10 gives it", parse_bcrypt).map(|hash| (name.to_string(), hash.value)),
        );
    }
    if users.keys().next().is_none() {
        users
            .context()
            .wrong(&users.place, "is empty, so nobody could be let in; write a user with the hash of a password, or leave it out");
    }
    read
}

fn read_beacon(beacon: &Section<'_, '_>, listeners: &mut Vec<At<SocketAddr>>) -> Beacon {
    keys::vet_beacon(beacon);
    beacon.require("key_file", "write key_file = \"beacon.key\", the key that beacon and monitors share");
    let listen = beacon.one_or_list("listen", "\"0.0.0.0:443\"", parse_listen).map_or(Vec::new(), |l| l.value);
    listeners.extend(listen.clone());
    Beacon { listen, key_file: beacon.parsed("key_file", "\"beacon.key\"", filled) }
}

fn read_evidence(evidence: &Section<'_, '_>) -> LogEvidence {
    keys::vet_evidence(evidence);
    let at_most = |key: &str, least: Duration, most: Duration| {
        let duration = evidence.duration(key, least)?;
        if duration.value > most {
            evidence.context().wrong(&duration.place, format!("is longer than {}; write at most that", show(most)));
        }
        Some(duration)
    };
    let mut translated = Vec::new();
    if let Some(table) = evidence.table("translated") {
        for (name, place) in table.keys() {
            let there = table.one_or_list(name, "\"10.0.1.7\"", parse_address).map_or(Vec::new(), |list| list.value);
            match parse_address(name) {
                Ok(here) => translated.extend(there.iter().map(|ip| (fold_mapped(here), fold_mapped(ip.value)))),
                Err(why) => evidence.context().wrong(&place, why),
            }
        }
    }
    LogEvidence {
        follow: evidence.one_or_list("follow", "\"/var/log/squid/access.log\"", filled).map_or(Vec::new(), |list| list.value),
        flow_format: evidence.parsed("flow_format", "\"version srcaddr dstaddr srcport dstport protocol start end action\"", Format::parse),
        clock_skew: at_most("clock_skew", Duration::ZERO, MAX_CLOCK_SKEW),
        keep: at_most("keep", MINUTE, MAX_KEEP),
        translated,
        own_interfaces: evidence.one_or_list("own_interfaces", "\"eni-0a1b2c3d\"", parse_interface).map(|list| list.value),
    }
}

fn read_admin_page(page: &Section<'_, '_>, listeners: &mut Vec<At<SocketAddr>>) -> AdminPage {
    keys::vet_admin_page(page);
    page.require("listen", "write listen = \"127.0.0.1:9892\"");
    let listen = page.parsed("listen", "\"127.0.0.1:9892\"", parse_listen);
    listeners.extend(listen.clone());
    let door = page.parsed("door", "\"127.0.0.1:9893\"", parse_door);
    listeners.extend(door.clone().map(|door| door.map(SocketAddr::V4)));
    AdminPage { listen, allow_from: networks(page, "allow_from"), door }
}

fn read_exception(exception: &Section<'_, '_>) -> Exception {
    keys::vet_exception(exception);
    exception.require("check", "write the name of the check that is excepted");
    exception.require("reason", "write why it may be so, such as reason = \"the old host moves, OPS-123\"");
    exception.require("owner", "write who answers for it, such as owner = \"alice@example.com\"");
    exception.require("until", "write the day with which it ends (UTC), such as until = 2026-12-31");
    Exception {
        place: exception.place.clone(),
        check: exception.public_string_of("check", "\"admin-closed\"", |text| parse_name(text, "-_")),
        target: exception.string("target", "\"admin.example.com:443\""),
        reason: exception.parsed("reason", "\"the old host moves, OPS-123\"", |text| parse_line(text, MAX_REASON)),
        owner: exception.public_string_of("owner", "\"alice@example.com\"", |text| parse_line(text, MAX_OWNER)),
        until: exception.dated("until", "2026-12-31", str::parse),
    }
}

/// `[proxy]`, and what of it hangs on the rest of the file.
struct Proxy {
    settings: proxy::Settings,
    drain: Option<At<Duration>>,
    drain_lead: Option<At<Duration>>,
}

impl Proxy {
    /// Tunnels may take as long as everything else at the end, and a fifth of that is for the load balancer, unless it is said otherwise.
    fn drain_within(&mut self, grace: Option<Duration>, top: &Section<'_, '_>) {
        let drain = self.drain.as_ref().map(|drain| drain.value).or(grace).unwrap_or(self.settings.drain);
        if let Some(lead) = self.drain_lead.as_ref().filter(|lead| lead.value > drain) {
            let message = format!("is longer than drain, which is {} and has it within; write a shorter one, such as \"5s\"", show(drain));
            top.context().wrong(&lead.place, message);
        }
        let lead = self.drain_lead.as_ref().map_or(self.settings.drain_lead.min(drain / 5), |lead| lead.value);
        (self.settings.drain, self.settings.drain_lead) = (drain, lead);
    }
}

fn read_proxy(proxy: &Section<'_, '_>, listeners: &mut Vec<At<SocketAddr>>) -> Proxy {
    keys::vet_proxy(proxy);
    proxy.require("listen", "write listen = [\"127.0.0.1:3128\"]");
    let mut settings = proxy::Settings::new();
    if let Some(listen) = proxy.one_or_list("listen", "\"127.0.0.1:3128\"", parse_listen) {
        if listen.value.is_empty() && !proxy.holds_problem_at(&listen.place) {
            proxy.context().wrong(&listen.place, "is empty; write [\"127.0.0.1:3128\"], or leave the whole section out");
        }
        settings.listen = listen.value.iter().map(|a| a.value).collect();
        listeners.extend(listen.value);
    }
    if let Some(egress) = proxy.one_or_list("egress", "\"192.0.2.10\"", parse_address) {
        settings.egress = one_a_family(proxy, egress).into_iter().map(|a| a.value).collect();
    }
    settings.allow_from = networks(proxy, "allow_from");
    settings.proxy_protocol_from = networks(proxy, "proxy_protocol_from");
    settings.allow_private = networks(proxy, "allow_private");
    if let Some(ports) = proxy.ports("connect_ports") {
        settings.connect_ports = port_set(proxy, ports);
    }
    if let Some(ports) = proxy.ports("http_ports") {
        settings.http_ports = port_set(proxy, ports);
    }
    set(&mut settings.deny_to, proxy.one_or_list("deny_to", "\".example.com\"", str::parse).map(values));
    set(&mut settings.allow_to, proxy.one_or_list("allow_to", "\".example.com\"", str::parse).map(values));
    set(&mut settings.header_timeout, proxy.duration("header_timeout", SOME));
    set(&mut settings.connect_timeout, proxy.duration("connect_timeout", SOME));
    set(&mut settings.idle_timeout, proxy.duration("idle_timeout", SOME));
    set(&mut settings.half_open_timeout, proxy.duration("half_open_timeout", SOME));
    set(&mut settings.lifetime, proxy.duration("lifetime", SOME));
    set(&mut settings.max_connections, proxy.integer("max_connections", 1..=usize::MAX).map(|n| n.map(Some)));
    set(&mut settings.max_per_client, proxy.integer("max_per_client", 1..=usize::MAX).map(|n| n.map(Some)));
    set(&mut settings.max_head, proxy.integer("max_head", HEAD));
    set(&mut settings.access_log, proxy.parsed("access_log", "\"-\"", |text| parse_log(text, proxy.context().base_dir)));
    set(&mut settings.access_log_format, proxy.parsed("access_log_format", "\"squid\"", str::parse));
    set(&mut settings.egress_budget, proxy.parsed("egress_budget", "\"2.5GB/h\"", str::parse).map(|b| b.map(Some)));
    if let Some(listen) = proxy.one_or_list("health_listen", "\"0.0.0.0:3129\"", parse_listen) {
        settings.health_listen = listen.value.iter().map(|a| a.value).collect();
        listeners.extend(listen.value);
        let inside = |net: &&IpNet| proxy::address::refused(net.addr(), &[]).is_some();
        if let (true, Some(net)) = (settings.proxy_protocol_from.is_empty(), settings.allow_from.iter().find(inside)) {
            let message = format!(
                "is for a load balancer, and {net} of allow_from may be its address: one that does not keep the client's address (a Network Load \
                 Balancer with address targets does not by default) would let in everybody; then write proxy_protocol_from, and keep an open-proxy \
                 check on the balancer"
            );
            proxy.context().hint(&listen.place, message);
        }
    }
    Proxy { settings, drain: proxy.duration("drain", Duration::ZERO), drain_lead: proxy.duration("drain_lead", Duration::ZERO) }
}

fn set<T>(field: &mut T, written: Option<At<T>>) {
    if let Some(written) = written {
        *field = written.value;
    }
}

fn values<T>(list: At<Vec<At<T>>>) -> At<Vec<T>> {
    list.map(|list| list.into_iter().map(|a| a.value).collect())
}

fn networks(section: &Section<'_, '_>, key: &str) -> Vec<IpNet> {
    section.one_or_list(key, "\"192.0.2.0/24\"", parse_cidr).map_or(Vec::new(), |list| values(list).value)
}

fn port_set(section: &Section<'_, '_>, ports: At<Vec<At<String>>>) -> PortSet {
    for entry in &ports.value {
        if let Err(why) = PortSet::parse([entry.value.as_str()]) {
            section.context().wrong(&entry.place, why);
        }
    }
    PortSet::parse(ports.value.iter().map(|p| p.value.as_str())).unwrap_or_default()
}

/// Keeps the first address of each family and notes the others.
fn one_a_family(section: &Section<'_, '_>, list: At<Vec<At<IpAddr>>>) -> Vec<At<IpAddr>> {
    let mut kept: Vec<At<IpAddr>> = Vec::new();
    for address in list.value {
        let family = Family::of(address.value);
        match kept.iter().find(|k| Family::of(k.value) == family) {
            Some(first) => {
                let message =
                    format!("\"{}\" is a second {family} address besides \"{}\"; write at most one per family", address.value, first.value);
                section.context().wrong(&address.place, message);
            }
            None => kept.push(address),
        }
    }
    kept
}

impl Check {
    /// The check; where it has many targets, one for each of them.
    fn read_all(section: &Section<'_, '_>, number: usize) -> Vec<Check> {
        let mut section = section.clone();
        if let Some(name) = section.raw("name").filter(|n| parse_name(n, "-_").is_ok()) {
            section.place.path = format!("check \"{name}\"");
        }
        let section = &section;
        let many = targets::read(section);
        let is_template = section.as_table().get("template").and_then(|value| value.get_ref().as_bool()) == Some(true);
        if let Some((_, place)) = section.keys().find(|(key, _)| is_template && ["targets", "targets_from"].contains(key)) {
            section.context().wrong(&place, "stands in a template, whose targets others name; write one of the two");
            return vec![Check::read(section, number)];
        }
        if is_template && !section.has("target") {
            let mut table = section.as_table().clone();
            let by_prior_knowledge = section.has("http_version");
            instance::put(&mut table, placeholder(section.raw("kind").unwrap_or_default(), by_prior_knowledge));
            let check = Check::read(&Section::new(&table, section.place.clone(), section.context()), number);
            return vec![Check { placeholder: true, ..check }];
        }
        if many.is_empty() {
            return vec![Check::read(section, number)];
        }
        let from_files = section.has("targets_from");
        let one = |target: Target| {
            let before = section.context().problems();
            let table = target.alone(section.as_table());
            let mut check = Check::read(&Section::new(&table, section.place.clone(), section.context()), number);
            if let Some(file) = target.said_by() {
                section.context().blame(before, ".target", &file);
            }
            check.common.labels.extend(target.labels);
            check.from_files = from_files;
            check
        };
        many.into_iter().map(one).collect()
    }

    fn read(section: &Section<'_, '_>, number: usize) -> Check {
        let before = section.context().problems();
        let name = section.public_string_of("name", "\"admin-closed\"", |text| parse_name(text, "-_"));
        let kind = section.parsed("kind", "\"tcp\"", parse_kind).map(|k| k.value);
        let unbuilt_kind = section.has("kind") && kind.is_none();
        keys::vet_check(section, kind);
        section.require("name", "write name = \"admin-closed\"; letters, digits, - and _");
        section.require("kind", &format!("write one of {}", listed(Kind::ALL.iter().map(|k| k.token()))));
        if !unbuilt_kind && !section.has("targets") && !section.has("targets_from") {
            section.require("target", remedy_for_target(kind));
        }
        if !unbuilt_kind {
            section.require("expect", remedy_for_expect(kind));
        }
        Check {
            place: section.place.clone(),
            number,
            name,
            target: kind.and_then(|_| section.raw("target")).and(quietly(section, "target")),
            from_files: false,
            expect: if unbuilt_kind { None } else { read_expect(section) },
            has_witness: section.has("witness"),
            common: read_common(section),
            own: kind.map(|kind| read_own(section, kind)),
            template: section.boolean("template").filter(|_| knows_template(kind)),
            allow_targets: some_of(section, section.one_or_list("allow_targets", "\"192.0.2.0/24\"", parse_cidr))
                .map(values)
                .filter(|_| knows_template(kind)),
            placeholder: false,
            sound: section.context().problems() == before,
        }
    }
}

/// Other kinds were told already that they have none.
fn knows_template(kind: Option<Kind>) -> bool {
    keys::OWN.iter().any(|(key, kinds)| *key == "template" && kind.is_some_and(|kind| kinds.contains(&kind)))
}

/// What stands in for the target of a template that has none; the name is one that never resolves (RFC 6761 section 6.4).
fn placeholder(kind: &str, by_prior_knowledge: bool) -> &'static str {
    match kind {
        "http" if by_prior_knowledge => "http://target.invalid/",
        "http" => "https://target.invalid/",
        "icmp" => "target.invalid",
        _ => "target.invalid:65535",
    }
}

/// The target's text; what is wrong with it is said where it is read into its type.
fn quietly(section: &Section<'_, '_>, key: &str) -> Option<At<String>> {
    let before = section.context().problems();
    let value = section.string(key, "\"db.example.com:5432\"");
    section.context().forget_problems(before);
    value
}

fn remedy_for_target(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Http) => "write target = \"https://admin.example.com/\"",
        Some(Kind::EgressIp) => "write target = \"http://beacon.example.com:443/\"",
        Some(Kind::Peer) => "write target = \"https://office-monitor.example.com:9890\"",
        Some(Kind::PromQl) => "write target = \"http://prometheus.example.com:9090\"",
        Some(Kind::OpenProxy) => "write target = \"proxy.example.com:3128\"",
        Some(Kind::Dns) => "write target = \"db.internal.example.com\"",
        Some(Kind::Udp) => "write target = \"resolver.example.com:53\"",
        Some(Kind::Icmp) => "write target = \"db.example.com\" or a network such as \"192.0.2.0/24\"",
        Some(Kind::Ranges) => "write target = \"https://ranges.example.com/ipv4.txt\", or target = \"file:published.json\"",
        Some(Kind::Ports) => "write target = \"db.example.com\", \"192.0.2.0/28\" or \"192.0.2.10-192.0.2.20\"",
        Some(Kind::Tcp | Kind::Tls) | None => "write target = \"db.example.com:5432\"",
    }
}

fn remedy_for_expect(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::EgressIp) => "write expect = { ip = [\"203.0.113.10\"] }",
        Some(Kind::Peer) => "write expect = \"open\"",
        Some(Kind::Ranges) => "write expect = \"open\", which is that both lists are the same addresses",
        Some(Kind::PromQl) => "write expect = \"open\", or \"blocked\" for a series that must be empty or zero",
        Some(Kind::OpenProxy | Kind::Ports) => "write expect = \"blocked\"",
        Some(Kind::Tcp | Kind::Tls | Kind::Http | Kind::Udp | Kind::Icmp | Kind::Dns) | None => "write expect = \"open\" or \"blocked\"",
    }
}

fn read_expect(section: &Section<'_, '_>) -> Option<At<Expect>> {
    if section.holds_table("expect") {
        let table = section.table("expect")?;
        for (key, place) in table.keys().filter(|(key, _)| *key != "ip") {
            section.context().wrong(&place, format!("unknown key \"{key}\"; write {{ ip = [\"203.0.113.10\"] }}"));
        }
        table.require("ip", "write { ip = [\"203.0.113.10\"] }");
        let list = table.one_or_list("ip", "\"203.0.113.10\"", parse_cidr)?;
        if list.value.is_empty() {
            if !section.holds_problem_at(&list.place) {
                section.context().wrong(&list.place, "is empty; write the addresses that the beacon may see");
            }
            return None;
        }
        let value = Expect::Ip(list.value.into_iter().map(|a| a.value).collect());
        return Some(At { value, place: table.place });
    }
    if section.holds_list("expect") {
        let before = section.context().problems();
        let list = section.list("expect", "\"refused\"", |text| Ok::<_, String>(text.to_string()))?;
        let sound = section.context().problems() == before;
        let list = unique(section, list, String::clone);
        return sound.then(|| list.map(Expect::List));
    }
    section.string("expect", "\"blocked\"").map(|text| text.map(Expect::Word))
}

fn read_common(section: &Section<'_, '_>) -> Common {
    Common {
        witness: section.list_of_public("witness", "\"internet\"").map(|w| unique(section, w, String::clone)),
        require: section
            .list("require", "\"vantage\"", parse_proof)
            .map(|r| values(unique(section, r, |p| p.token())).map(|list| list.into_iter().collect())),
        interval: section.duration("interval", SECOND),
        timeout: section.duration("timeout", SOME),
        attempts: section.integer("attempts", 1..=10),
        families: section.list("families", "\"ipv4\"", parse_family).and_then(|list| read_families(section, list)),
        source: section.parsed("source", "\"192.0.2.10\"", parse_address),
        resolver: section.parsed("resolver", "\"system\"", parse_resolver),
        severity: section.parsed("severity", "\"critical\"", parse_severity),
        runbook: section.parsed("runbook", "\"https://wiki.example.com/runbook\"", parse_runbook),
        description: section.string("description", "\"the admin page\""),
        labels: section.table("labels").map_or_else(BTreeMap::new, |labels| read_labels(&labels)),
        tags: section.list("tags", "\"nightly\"", |t| parse_name(t, "-_.")).map(|t| values(unique(section, t, String::clone)).value),
    }
}

/// Notes what stands twice in a list.
pub(super) fn unique<T, K: PartialEq + std::fmt::Display>(
    section: &Section<'_, '_>,
    list: At<Vec<At<T>>>,
    key: impl Fn(&T) -> K,
) -> At<Vec<At<T>>> {
    let mut kept: Vec<At<T>> = Vec::new();
    for entry in list.value {
        let name = key(&entry.value);
        if kept.iter().any(|k| key(&k.value) == name) {
            section.context().wrong(&entry.place, format!("\"{name}\" stands there twice; write it once"));
        } else {
            kept.push(entry);
        }
    }
    At { value: kept, place: list.place }
}

fn read_families(section: &Section<'_, '_>, list: At<Vec<At<Family>>>) -> Option<At<Vec<Family>>> {
    let faulty = section.holds_problem_at(&list.place);
    let mut list = values(unique(section, list, |f| *f));
    if list.value.is_empty() && !faulty {
        section.context().wrong(&list.place, "is empty, so nothing would be looked at; write [\"ipv4\", \"ipv6\"] or one of them");
    }
    list.value.sort();
    (!list.value.is_empty()).then_some(list)
}

pub(super) fn read_labels(labels: &Section<'_, '_>) -> BTreeMap<String, String> {
    let mut read = BTreeMap::new();
    for (key, place) in labels.keys() {
        if let Err(why) = parse_label(key) {
            labels.context().wrong(&place, why);
        }
        read.extend(labels.string(key, "\"platform\"").map(|value| (key.to_string(), value.value)));
    }
    if labels.keys().count() > MAX_LABELS {
        let message = format!("has {} labels; write at most {MAX_LABELS}", labels.keys().count());
        labels.context().wrong(&labels.place, message);
    }
    read
}

fn read_own(section: &Section<'_, '_>, kind: Kind) -> Own {
    let host_port = || section.parsed("target", "\"db.example.com:5432\"", parse_host_port);
    match kind {
        Kind::Tcp => Own::Tcp { target: host_port() },
        Kind::Tls => Own::Tls { target: host_port(), tls: Box::new(read_tls(section)) },
        Kind::Http => Own::Http(Box::new(Http {
            target: section.parsed("target", "\"https://admin.example.com/\"", parse_url),
            via: read_via(section),
            method: section.parsed("method", "\"GET\"", parse_method),
            headers: section.table("headers").map_or(Vec::new(), |headers| read_headers(&headers)),
            body_contains: section.parsed("body_contains", "\"Sign in\"", filled),
            follow_redirects: section.boolean("follow_redirects"),
            deny_location: some_of(section, section.one_or_list("deny_location", "\"https://login.example.com/\"", parse_url)),
            http_version: section.parsed("http_version", "\"2\"", parse_http_version),
            variants: some_of(section, section.one_or_list("variants", "\"standard\"", parse_variants)),
            spoof: some_of(section, section.one_or_list("spoof", "\"203.0.113.10\"", parse_cidr)),
            tls: read_tls(section),
        })),
        Kind::EgressIp => Own::EgressIp {
            target: section.parsed("target", "\"http://beacon.example.com:443/\"", parse_beacon),
            via: Box::new(read_via(section)),
        },
        Kind::Peer => Own::Peer(Box::new(Peer {
            target: section.parsed("target", "\"https://office-monitor.example.com:9890\"", parse_base),
            check: {
                section.require("check", "write the name that the check has in the peer's own file, such as check = \"admin-open\"");
                section.public_string_of("check", "\"admin-open\"", |text| parse_name(text, "-_"))
            },
            max_age: section.duration("max_age", SECOND),
            user: section.parsed("user", "\"monitor\"", parse_user),
            password_file: section.parsed("password_file", "\"peer.password\"", filled),
            tls: read_tls(section),
        })),
        Kind::PromQl => {
            Own::PromQl(Box::new(PromQl {
                target: section.parsed("target", "\"http://prometheus.example.com:9090\"", parse_base),
                query: {
                    let like = "\"mustnot_check_verdict{check=\\\"admin-open\\\",verdict=\\\"holds\\\"}\"";
                    section.require("query", "write a series, such as query = 'mustnot_check_verdict{check=\"admin-open\",vantage=\"office\",verdict=\"holds\"}'");
                    section.parsed("query", like, parse_query)
                },
                max_age: section.duration("max_age", SECOND),
                user: section.parsed("user", "\"monitor\"", parse_user),
                password_file: section.parsed("password_file", "\"prometheus.password\"", filled),
                tls: read_tls(section),
            }))
        }
        Kind::Dns => Own::Dns(Box::new(Dns::read(section))),
        Kind::OpenProxy => Own::OpenProxy(Box::new(OpenProxy {
            target: section.parsed("target", "\"proxy.example.com:3128\"", parse_host_port),
            beacons: read_beacons(section),
            techniques: section.one_or_list("techniques", "\"OP-01\"", parse_technique).and_then(|list| {
                let faulty = section.holds_problem_at(&list.place);
                if list.value.is_empty() && !faulty {
                    section.context().wrong(&list.place, "is empty, so nothing would be tried; leave it out for the default");
                }
                let list = unique(section, list, |t| t.token());
                if let (Some(set), true) = (list.value.iter().find(|t| !matches!(t.value, Tried::One(_))), list.value.len() > 1) {
                    let message = format!("\"{}\" is a set of its own; write it alone, or the numbers alone", set.value.token());
                    section.context().wrong(&set.place, message);
                }
                (!list.value.is_empty()).then_some(list)
            }),
            spoof: section.one_or_list("spoof", "\"203.0.113.10\"", parse_cidr).and_then(|list| {
                if list.value.is_empty() && !section.holds_problem_at(&list.place) {
                    section.context().wrong(&list.place, "is empty; write the addresses that the proxy's own rules allow, or leave it out");
                }
                (!list.value.is_empty()).then(|| values(list))
            }),
            allowed_destination: section.parsed("allowed_destination", "\"api.example.com:443\"", parse_host_port),
            tls: read_tls(section),
        })),
        Kind::Udp => Own::Udp {
            target: section.parsed("target", "\"resolver.example.com:53\"", parse_host_port),
            payload: section.parsed("payload", "\"dns\"", str::parse),
        },
        Kind::Icmp => Own::Icmp { target: section.parsed("target", "\"db.example.com\"", parse_scope) },
        Kind::Ports => Own::Ports(Box::new(read_ports(section))),
        Kind::Ranges => Own::Ranges(Box::new(read_ranges(section))),
    }
}

fn read_ranges(section: &Section<'_, '_>) -> Ranges {
    section.require("expected", "write the file with the networks that your own lists are made of, such as expected = \"ranges.txt\"");
    let pointers = |key: &str| {
        let list = section.one_or_list(key, "\"/prefixes/*/ip_prefix\"", str::parse)?;
        if list.value.len() > POINTERS {
            section.context().wrong(&list.place, format!("has {} pointers; write at most {POINTERS}", list.value.len()));
        }
        some_of(section, Some(list)).map(|list| unique(section, list, Pointer::to_string))
    };
    let wanted = section.table("where");
    let headers = section.table("headers");
    Ranges {
        target: section.parsed("target", "\"https://ranges.example.com/ipv4.txt\"", parse_list_at),
        pointer: pointers("pointer"),
        where_at: wanted.as_ref().map(|wanted| wanted.place.clone()),
        only_where: wanted.map_or(Vec::new(), |wanted| read_where(&wanted)),
        expected: match section.holds_list("expected") {
            true => {
                some_of(section, section.list("expected", "\"203.0.113.0/24\"", parse_cidr)).map(|list| values(list).map(Networks::These))
            }
            false => section.parsed("expected", "\"ranges.txt\"", filled).map(|file| file.map(Networks::File)),
        },
        expected_pointer: pointers("expected_pointer"),
        only: section.parsed("only", "\"ipv4\"", parse_family),
        besides: some_of(section, section.one_or_list("besides", "\"198.51.100.7\"", parse_cidr)),
        headers_at: headers.as_ref().map(|headers| headers.place.clone()),
        headers: headers.map_or(Vec::new(), |headers| read_headers(&headers)),
        tls: read_tls(section),
    }
}

/// What an object of a list must say, member by member.
fn read_where(wanted: &Section<'_, '_>) -> Vec<(String, String)> {
    let mut read = Vec::new();
    for (name, place) in wanted.keys() {
        if name.is_empty() {
            wanted.context().wrong(&place, "is empty; write the name of a member, such as where = { service = \"S3\" }");
        }
        read.extend(wanted.string(name, "\"S3\"").map(|value| (name.to_string(), value.value)));
    }
    if read.len() > WHERES {
        wanted.context().wrong(&wanted.place, format!("has {} members; write at most {WHERES}", read.len()));
    }
    read
}

fn read_ports(section: &Section<'_, '_>) -> Ports {
    section.require("ports", "write the ports that must be closed, such as ports = \"1-65535\"");
    let set = |key: &str| {
        let before = section.context().problems();
        let written = section.ports(key)?;
        let place = written.place.clone();
        let value = port_set(section, written);
        (section.context().problems() == before).then_some(At { value, place })
    };
    Ports {
        target: section.parsed("target", "\"192.0.2.0/28\"", parse_hosts),
        ports: set("ports"),
        except: set("except"),
        open: set("open"),
        rate: section.integer("rate", RATE),
    }
}

/// A list that is not empty; an empty one is noted.
fn some_of<T>(section: &Section<'_, '_>, list: Option<At<Vec<At<T>>>>) -> Option<At<Vec<At<T>>>> {
    let list = list?;
    if list.value.is_empty() && !section.holds_problem_at(&list.place) {
        section.context().wrong(&list.place, "is empty; write something, or leave it out");
    }
    (!list.value.is_empty()).then_some(list)
}

fn read_beacons(section: &Section<'_, '_>) -> Vec<At<Url>> {
    section.require("beacon", "write the URL of our own beacon, such as beacon = \"http://beacon.example.com:443/\"");
    let Some(list) = section.one_or_list("beacon", "\"http://beacon.example.com:443/\"", parse_beacon) else { return Vec::new() };
    if list.value.is_empty() && !section.holds_problem_at(&list.place) {
        section.context().wrong(&list.place, "is empty; write the URL of our own beacon");
    }
    unique(section, list, Url::to_string).value
}

fn read_via(section: &Section<'_, '_>) -> Via {
    Via {
        proxy: section.parsed("via", "\"http://proxy.example.com:3128\"", parse_via),
        absolute: section.parsed("via_method", "\"connect\"", parse_via_method),
        user: section.parsed("via_user", "\"monitor\"", parse_user),
        password_file: section.parsed("via_password_file", "\"proxy.password\"", filled),
    }
}

/// Reads those TLS keys that the check's kind knows; the others were refused already.
fn read_tls(section: &Section<'_, '_>) -> Tls {
    Tls {
        server_name: section.parsed("server_name", "\"admin.example.com\"", |text| text.parse::<Host>().map(|_| text.to_string())),
        ca_file: section.parsed("ca_file", "\"ca.pem\"", filled),
        client_cert_file: section.parsed("client_cert_file", "\"client.pem\"", filled),
        client_key_file: section.parsed("client_key_file", "\"client.key\"", filled),
        alpn: section.list("alpn", "\"http/1.1\"", parse_alpn).and_then(|list| {
            if list.value.is_empty() && !section.holds_problem_at(&list.place) {
                section
                    .context()
                    .wrong(&list.place, "is empty, which offers nothing; write [\"http/1.1\"], or leave it out for the default");
            }
            let list = unique(section, list, Clone::clone);
            (!list.value.is_empty()).then_some(list)
        }),
        min_version: section.parsed("min_version", "\"1.2\"", parse_version),
        max_version: section.parsed("max_version", "\"1.3\"", parse_version),
        client_certs: section.list("client_certs", "\"none\"", parse_client_cert).and_then(|list| {
            if list.value.is_empty() && !section.holds_problem_at(&list.place) {
                section.context().wrong(&list.place, "is empty, so nobody would be tried; write [\"none\", \"self-signed\"]");
            }
            let list = unique(section, list, |c| client_cert_name(*c));
            (!list.value.is_empty()).then_some(list)
        }),
        certificate_sha256: section.parsed("certificate_sha256", "\"64 hexadecimal digits\"", parse_sha256),
    }
}

pub(super) fn read_headers(headers: &Section<'_, '_>) -> Vec<(String, Secret)> {
    let mut read: Vec<(String, Secret)> = Vec::new();
    for (name, place) in headers.keys() {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(token) {
            headers.context().wrong(&place, format!("{name:?} cannot be a header name; write letters, digits and -"));
        } else if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            let remedy =
                if name.eq_ignore_ascii_case("proxy-authorization") { "; write via_user and via_password_file" } else { "; leave it out" };
            headers.context().wrong(&place, format!("the header {name} is written by the monitor itself{remedy}"));
        } else if read.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            headers.context().wrong(&place, format!("the header {name} stands there twice; write it once"));
        }
        let value = headers.parsed(name, "\"text\"", |text| match text.chars().find(|c| c.is_control() && *c != '\t') {
            Some(bad) => Err(format!("a header may not contain {bad:?}; leave it out")),
            None => Ok(Secret::new(text)),
        });
        read.extend(value.map(|value| (name.to_string(), value.value)));
    }
    read
}

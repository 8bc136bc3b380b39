//! The laboratory itself: every turn of the world does on the wire what its name says. Needs no binary.

use serde_json::{Value, json};

use crate::service::{Seen, Squid};
use crate::world::{
    ADMIN4, ADMIN6, DECOY4, DECOY6, Denial, EDGE4, EDGE6, EGRESS4, Host, Lab, OFFICE4, OTHER_EGRESS4, PROXY4, PROXY6, SECOND_ADMIN4,
    SECOND4, STRANGER4, STRANGER6, WITNESS4, WITNESS6,
};

/// ICMP errors that nftables can send, with what Linux makes of them: (rule, errno, type, code).
pub const ICMP4: [(&str, &str, u64, u64); 7] = [
    ("net-unreachable", "ENETUNREACH", 3, 0),
    ("host-unreachable", "EHOSTUNREACH", 3, 1),
    ("prot-unreachable", "ENOPROTOOPT", 3, 2),
    ("port-unreachable", "ECONNREFUSED", 3, 3),
    ("net-prohibited", "ENETUNREACH", 3, 9),
    ("host-prohibited", "EHOSTUNREACH", 3, 10),
    ("admin-prohibited", "EHOSTUNREACH", 3, 13),
];

/// The same for ICMPv6.
pub const ICMP6: [(&str, &str, u64, u64); 6] = [
    ("no-route", "ENETUNREACH", 1, 0),
    ("admin-prohibited", "EACCES", 1, 1),
    ("addr-unreachable", "EHOSTUNREACH", 1, 3),
    ("port-unreachable", "ECONNREFUSED", 1, 4),
    ("policy-fail", "EACCES", 1, 5),
    ("reject-route", "EACCES", 1, 6),
];

fn seen(outcome: &str) -> Seen {
    Seen { outcome: outcome.to_owned(), icmp: None }
}

fn seen_icmp(outcome: &str, kind: u64, code: u64, sender: &str) -> Seen {
    Seen { outcome: outcome.to_owned(), icmp: Some((kind, code, sender.to_owned())) }
}

fn probe(host: &str, port: u16) -> Value {
    json!({ "host": host, "port": port, "timeout": 2 })
}

#[test]
fn closed_for_the_stranger_open_for_the_office() {
    let Some(lab) = Lab::new() else { return };
    let all =
        [(ADMIN4, 80), (ADMIN4, 443), (ADMIN6, 443), (SECOND_ADMIN4, 22), (WITNESS4, 443), (WITNESS6, 22), (DECOY4, 443), (DECOY6, 443)];
    let probes: Vec<Value> = all.iter().map(|(host, port)| probe(host, *port)).collect();
    let stranger = lab.hub(Host::Stranger).connects(&probes);
    let office = lab.hub(Host::Allowed).connects(&probes);
    let outcomes = |seen: &[Seen]| seen.iter().map(|s| s.outcome.clone()).collect::<Vec<_>>();
    assert_eq!(outcomes(&stranger), ["timeout", "timeout", "timeout", "timeout", "connected", "connected", "timeout", "timeout"]);
    assert_eq!(outcomes(&office), ["connected", "connected", "connected", "connected", "connected", "connected", "timeout", "timeout"]);
    assert!(lab.kept_out() >= 8, "the ACL counted {}", lab.kept_out());

    lab.decoy("reject with icmpx type host-unreachable");
    let decoys = lab.hub(Host::Stranger).connects(&[probe(DECOY4, 443), probe(DECOY6, 443)]);
    assert_eq!(decoys, [seen_icmp("EHOSTUNREACH", 3, 1, "198.51.100.65"), seen_icmp("EHOSTUNREACH", 1, 3, "fd00:66::1")]);
}

#[test]
fn every_denial_of_the_edge_is_seen_as_itself() {
    let Some(lab) = Lab::new() else { return };
    let stranger = lab.hub(Host::Stranger);
    let mut cases = 0;
    for (rule, errno, kind, code) in ICMP4 {
        lab.acl(Denial::Icmp(rule));
        assert_eq!(stranger.connect(ADMIN4, 443, 1.5), seen_icmp(errno, kind, code, EDGE4), "{rule}");
        cases += 1;
    }
    for (rule, errno, kind, code) in ICMP6 {
        lab.acl(Denial::Icmp(&format!("v6 {rule}")));
        assert_eq!(stranger.connect(ADMIN6, 443, 1.5), seen_icmp(errno, kind, code, EDGE6), "v6 {rule}");
        cases += 1;
    }
    lab.acl(Denial::Reset);
    assert_eq!(stranger.connects(&[probe(ADMIN4, 443), probe(ADMIN6, 443)]), [seen("ECONNREFUSED"), seen("ECONNREFUSED")]);
    cases += 1;
    assert_eq!(cases, 14);
}

#[test]
fn the_acl_opens_as_told() {
    let Some(lab) = Lab::new() else { return };
    let stranger = lab.hub(Host::Stranger);
    let probes = [probe(ADMIN4, 443), probe(SECOND_ADMIN4, 443), probe(ADMIN6, 443)];
    let outcomes = || stranger.connects(&probes).into_iter().map(|s| s.outcome).collect::<Vec<_>>();
    lab.acl_with(&["meta nfproto ipv6 accept"], Denial::Drop);
    assert_eq!(outcomes(), ["timeout", "timeout", "connected"]);
    lab.acl_with(&["ip daddr 203.0.113.8 accept"], Denial::Drop);
    assert_eq!(outcomes(), ["timeout", "connected", "timeout"]);
    lab.acl_open();
    assert_eq!(outcomes(), ["connected", "connected", "connected"]);
    lab.edge_dead();
    assert_eq!(outcomes(), ["timeout", "timeout", "timeout"]);
    lab.acl_with(&["ip saddr 198.51.100.67 accept"], Denial::Drop);
}

#[test]
fn the_second_source_of_the_stranger_can_be_let_in() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["ip saddr 198.51.100.67 accept"], Denial::Drop);
    let seen = lab.hub(Host::Stranger).connects(&[
        json!({ "host": ADMIN4, "port": 443, "timeout": 1, "source": STRANGER4 }),
        json!({ "host": ADMIN4, "port": 443, "timeout": 1, "source": SECOND4 }),
    ]);
    assert_eq!(seen.iter().map(|s| s.outcome.as_str()).collect::<Vec<_>>(), ["timeout", "connected"]);
}

#[test]
fn the_monitors_own_host_fails_as_told() {
    let Some(lab) = Lab::new() else { return };
    let stranger = lab.hub(Host::Stranger);
    lab.own_firewall(&["tcp dport 443 drop"]);
    assert_eq!(stranger.connects(&[probe(WITNESS4, 443), probe(WITNESS4, 22)]), [seen("timeout"), seen("connected")]);
    lab.own_firewall(&[
        "meta nfproto ipv4 tcp dport 443 reject with icmp type admin-prohibited",
        "tcp dport 443 reject with icmpv6 type admin-prohibited",
    ]);
    assert_eq!(
        stranger.connects(&[probe(WITNESS4, 443), probe(WITNESS6, 443)]),
        [seen_icmp("EHOSTUNREACH", 3, 13, STRANGER4), seen_icmp("EACCES", 1, 1, STRANGER6)]
    );
    lab.own_firewall(&["tcp dport 443 reject with tcp reset"]);
    assert_eq!(stranger.connect(WITNESS4, 443, 1.0), seen("ECONNREFUSED"));
    lab.own_firewall(&[]);

    let mut routes = String::new();
    for (kind, four, six) in [("blackhole", ADMIN4, ADMIN6), ("prohibit", SECOND_ADMIN4, "fd00:113::8"), ("unreachable", PROXY4, PROXY6)] {
        routes.push_str(&format!("route add {kind} {four}\nroute add {kind} {six}\n"));
    }
    lab.ip(Host::Stranger, &routes);
    let four = stranger.connects(&[probe(ADMIN4, 443), probe(SECOND_ADMIN4, 443), probe(PROXY4, 3128)]);
    assert_eq!(four, [seen("EINVAL"), seen("EACCES"), seen("EHOSTUNREACH")]);
    let six = stranger.connects(&[probe(ADMIN6, 443), probe("fd00:113::8", 443), probe(PROXY6, 3128)]);
    assert_eq!(six, [seen("EINVAL"), seen("EACCES"), seen("EHOSTUNREACH")]);

    lab.no_neighbour();
    let nobody = stranger.connects(&[
        json!({ "host": "203.0.113.9", "port": 443, "timeout": 5 }),
        json!({ "host": "fd00:113::9", "port": 443, "timeout": 5 }),
    ]);
    assert_eq!(
        nobody,
        [seen_icmp("EHOSTUNREACH", 3, 1, STRANGER4), seen_icmp("EHOSTUNREACH", 1, 3, STRANGER6)],
        "ARP and ND failure are our own"
    );

    lab.ip(Host::Stranger, "route del default via fd00:66::1\n");
    assert_eq!(stranger.connect(WITNESS6, 443, 1.0), seen("ENETUNREACH"));
    lab.ip(Host::Stranger, "link set eth0 down\n");
    assert_eq!(stranger.connect(WITNESS4, 443, 1.0), seen("ENETUNREACH"));
}

#[test]
fn a_dead_target_is_dead_for_the_office_too() {
    let Some(lab) = Lab::new() else { return };
    lab.close(Host::Private, "admin4:443");
    assert_eq!(lab.hub(Host::Allowed).connect(ADMIN4, 443, 1.0), seen("ECONNREFUSED"));
    lab.ip(Host::Private, "link set eth0 down\n");
    let office = lab.hub(Host::Allowed).connect(ADMIN4, 80, 5.0);
    assert_eq!(office, seen_icmp("EHOSTUNREACH", 3, 1, EDGE4));
    lab.ip(Host::Core, "link set str down\n");
    assert_eq!(lab.hub(Host::Stranger).connect(WITNESS4, 443, 1.0), seen("timeout"), "an unplugged cable is silence");
}

#[test]
fn loss_hides_and_shows() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    lab.loss(30);
    let probes: Vec<Value> = (0..200).map(|_| json!({ "host": ADMIN4, "port": 443, "timeout": 0.9 })).collect();
    let open = lab.hub(Host::Stranger).connects(&probes).iter().filter(|s| s.outcome == "connected").count();
    assert!((60..140).contains(&open), "one SYN each: expected about 98 of 200 to get through, {open} did");
}

#[test]
fn the_interceptor_answers_for_everybody_and_splices_what_it_reaches() {
    let Some(lab) = Lab::new() else { return };
    lab.interceptor();
    let stranger = lab.hub(Host::Stranger);
    for (host, port) in [(ADMIN4, 443), (ADMIN6, 443), (DECOY4, 443), (DECOY6, 4444), (WITNESS4, 22)] {
        assert_eq!(stranger.connect(host, port, 1.0), seen("connected"), "{host}");
    }
    let page = stranger.ask(
        &json!({ "do": "get", "tls": true, "host": WITNESS4, "port": 443, "name": "witness.lab.test", "ca": lab.dir().join("ca.pem") }),
    );
    assert_eq!(page["status"], 200, "verified TLS goes through the interceptor: {page}");
    let page6 = stranger.ask(
        &json!({ "do": "get", "tls": true, "host": WITNESS6, "port": 443, "name": "witness.lab.test", "ca": lab.dir().join("ca.pem") }),
    );
    assert_eq!(page6["status"], 200, "{page6}");
    lab.acl_with(&["ip saddr 198.51.100.129 ip daddr 203.0.113.8 accept"], Denial::Drop);
    let spliced = stranger.ask(
        &json!({ "do": "get", "tls": true, "host": SECOND_ADMIN4, "port": 443, "name": "admin.lab.test", "ca": lab.dir().join("ca.pem") }),
    );
    assert_eq!(spliced["status"], 403, "what the interceptor may reach is spliced: {spliced}");
    assert_eq!(lab.hub(Host::Allowed).connect(DECOY4, 443, 0.5).outcome, "timeout", "the office is not intercepted");
}

#[test]
fn names_resolve_and_fail_as_told() {
    let Some(lab) = Lab::new() else { return };
    let stranger = lab.hub(Host::Stranger);
    let list = |a: &[&str]| a.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (name, kind, rcode, addresses) in [
        ("admin.lab.test", "A", 0, list(&[ADMIN4])),
        ("admin.lab.test", "AAAA", 0, list(&[ADMIN6])),
        ("two.lab.test", "A", 0, list(&[ADMIN4, SECOND_ADMIN4])),
        ("two.lab.test", "AAAA", 0, list(&[])),
        ("admin6.lab.test", "A", 0, list(&[])),
        ("sink.lab.test", "A", 0, list(&["0.0.0.0"])),
        ("sink-loop.lab.test", "A", 0, list(&["127.0.0.1"])),
        ("nx.lab.test", "A", 3, list(&[])),
    ] {
        assert_eq!(stranger.query(WITNESS4, 53, name, kind), (rcode, addresses), "{name} {kind}");
    }
    lab.faulty_dns(5353, &json!({ "A": "answer", "AAAA": "servfail" }));
    assert_eq!(stranger.query(WITNESS4, 5353, "admin.lab.test", "A"), (0, list(&[ADMIN4])));
    assert_eq!(stranger.query(WITNESS4, 5353, "admin.lab.test", "AAAA"), (2, list(&[])));
    lab.hub(Host::Beacon).ask(&json!({ "do": "turn", "name": "dns:5353", "rules": { "A": "answer", "AAAA": "silent" } }));
    assert_eq!(stranger.query(WITNESS4, 5353, "admin.lab.test", "AAAA"), (-1, list(&[])));
    let used = lab.output(Host::Stranger, &["cat", "/etc/resolv.conf"]);
    assert!(used.contains(WITNESS4), "{used}");
    lab.resolver_gone();
    assert_eq!(stranger.query(WITNESS4, 53, "admin.lab.test", "A").0, -1);
}

#[test]
fn the_admin_web_answers_as_told() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    let ca = lab.dir().join("ca.pem");
    let ask = |host: Host, tls: bool| {
        let port = if tls { 443 } else { 80 };
        lab.hub(host).ask(&json!({ "do": "get", "tls": tls, "host": ADMIN4, "port": port, "name": "admin.lab.test", "ca": ca }))
    };
    for tls in [false, true] {
        assert_eq!(ask(Host::Allowed, tls)["status"], 200);
        assert_eq!(ask(Host::Stranger, tls)["status"], 403);
    }
    for page in [200, 302, 404] {
        lab.admin_page(&json!(page));
        assert_eq!(ask(Host::Stranger, true)["status"], page);
    }
    lab.admin_certificate("untrusted.pem");
    let refused = ask(Host::Allowed, true);
    assert!(refused["problem"].as_str().unwrap().contains("CERTIFICATE_VERIFY_FAILED"), "{refused}");
}

/// What a client behind Squid gets: through the tunnel to the witness's TLS, by absolute-form, and from whom the witness sees it.
fn through_squid(lab: &Lab, from: Host, proxy: &str) -> (u64, u64) {
    let hub = lab.hub(from);
    let via = json!({ "host": proxy, "port": 3128 });
    let tunnel =
        hub.ask(&json!({ "do": "get", "tls": true, "host": "site.lab.test", "port": 443, "via": via, "ca": lab.dir().join("ca.pem") }));
    let plain = hub.ask(&json!({ "do": "get", "host": WITNESS4, "port": 80, "via": via, "absolute": true }));
    (tunnel["status"].as_u64().unwrap(), plain["status"].as_u64().unwrap())
}

#[test]
fn squid_relays_for_whom_it_should_and_for_whom_it_was_told() {
    let Some(lab) = Lab::new() else { return };
    let squid = Squid::Closed.start(&lab);
    assert_eq!(through_squid(&lab, Host::Allowed, PROXY4), (200, 403), "CONNECT only");
    assert_eq!(through_squid(&lab, Host::Allowed, PROXY6), (200, 403));
    assert_eq!(through_squid(&lab, Host::Stranger, PROXY4), (0, 403));
    let last_peer =
        || lab.hub(Host::Beacon).ask(&json!({ "do": "seen", "name": "witness4:443" }))["peers"].as_array().unwrap().last().cloned();
    assert_eq!(last_peer(), Some(json!(EGRESS4)), "the fixed egress address");
    drop(squid);

    let mut cases = 0;
    for (mistake, expected) in [(Squid::OpenToAll, (200, 200)), (Squid::OpenConnect, (200, 403)), (Squid::NoLastDeny, (200, 200))] {
        let _squid = mistake.start(&lab);
        assert_eq!(through_squid(&lab, Host::Stranger, PROXY4), expected, "{mistake:?}");
        cases += 1;
    }
    assert_eq!(cases, 3);

    lab.egress(OTHER_EGRESS4);
    let _squid = Squid::Closed.start(&lab);
    assert_eq!(through_squid(&lab, Host::Allowed, PROXY4).0, 200);
    assert_eq!(last_peer(), Some(json!(OTHER_EGRESS4)));
    assert_eq!(lab.hub(Host::Stranger).connect(OFFICE4, 1, 1.0), seen("ECONNREFUSED"), "hosts answer each other");
}

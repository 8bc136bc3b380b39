//! Squid: closed for the stranger, opened by every classic mistake, and the fixed egress address of what goes through it.

use serde_json::json;

use crate::run::{BINARY, Monitor, blocked, check, config, gate, internet, observed, office, peer, write_config};
use crate::service::{Process, Squid, until};
use crate::world::{ADMIN4, BEACON4, EGRESS4, Host, Lab, OTHER_EGRESS4, PROXY4, PROXY6, SECOND_ADMIN4};

const VIA: &str = "via = \"http://proxy.lab.test:3128\"\n";

/// The product's own beacon, on two ports of its own address.
pub fn beacon(lab: &Lab) -> Process {
    write_config(lab, "beacon.key", "6d7573746e6f742d6c61622d6b65792d6d7573746e6f742d6c61622d6b657921\n");
    let text = format!("vantage = \"beacon\"\n[beacon]\nlisten = [\"{BEACON4}:443\", \"{BEACON4}:9891\"]\nkey_file = \"beacon.key\"\n");
    let config = write_config(lab, "beacon.toml", &text);
    let mut process = Process::spawn(
        lab,
        Host::Beacon,
        "beacon",
        &[env!("CARGO_BIN_EXE_mustnot"), "beacon", "--config", config.to_str().unwrap()],
        false,
    );
    let hub = lab.hub(Host::Beacon);
    let ready = until(crate::run::SOON, || {
        assert!(process.ended().is_none(), "the beacon ended: {}", lab.log("beacon"));
        (hub.connect(BEACON4, 9891, 0.2).outcome == "connected").then_some(())
    });
    assert!(ready.is_some(), "the beacon did not get ready: {}", lab.log("beacon"));
    process
}

fn keyed(vantage: &str, body: &str) -> String {
    config(vantage, &format!("[beacon]\nkey_file = \"beacon.key\"\n{body}"))
}

fn open_proxy(name: &str, witness: &str, rest: &str) -> String {
    let quick = if rest.contains("techniques") { "" } else { "\ntechniques = \"quick\"" };
    let beacons = format!("beacon = [\"http://{BEACON4}:443/\", \"http://{BEACON4}:9891/\"]{quick}");
    check(name, "open-proxy", "proxy.lab.test:3128", &format!("{beacons}\nexpect = \"blocked\"\nwitness = {witness}\n{rest}"))
}

fn office_checks(lab: &Lab) -> String {
    let ca = format!("ca_file = {:?}\n", lab.dir().join("ca.pem"));
    let egress = format!("{VIA}expect = {{ ip = [\"{EGRESS4}\"] }}");
    check("egress-ip", "egress-ip", &format!("http://{BEACON4}:443/"), &egress)
        + &check("site-via", "http", "https://site.lab.test/", &format!("{VIA}{ca}expect = \"open\""))
        + &check("admin-via", "http", "https://admin4.lab.test/", &format!("{VIA}{ca}expect = \"open\""))
        + &check("witness", "tcp", "site.lab.test:443", "expect = \"open\"")
}

#[test]
fn the_allowed_way_works_and_leaves_from_the_fixed_address() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let squid = Squid::Closed.start(&lab);
    let text = keyed("office", &office_checks(&lab));

    let run = gate(&lab, Host::Allowed, &text);
    run.expect("egress-ip", "holds", "as-expected", "egress");
    run.expect("site-via", "holds", "as-expected", "status:200");
    run.expect("admin-via", "holds", "as-expected", "status:200");
    assert!(run.check("egress-ip").to_string().contains(EGRESS4), "{:#}", run.check("egress-ip"));
    run.expect_code(0);

    // This Squid tunnels, and fetches nothing for anybody: that it says itself, and not the site.
    let absolute = format!("{VIA}via_method = \"absolute\"\nexpect = \"open\"\n");
    let run = gate(&lab, Host::Allowed, &keyed("office", &check("absolute", "http", "http://site.lab.test/", &absolute)));
    run.expect("absolute", "violated", "not-open", "denied");
    assert!(observed(run.check("absolute")).iter().all(|o| o["stage"] == "proxy"), "{:#}", run.check("absolute"));

    lab.egress(OTHER_EGRESS4);
    let run = gate(&lab, Host::Allowed, &text);
    run.expect("egress-ip", "violated", "not-open", "egress-other");
    assert!(
        run.check("egress-ip")["observations"].to_string().contains(OTHER_EGRESS4),
        "the address is evidence: {:#}",
        run.check("egress-ip")
    );
    run.expect("site-via", "holds", "as-expected", "status:200");
    run.expect_code(1);
    lab.egress(EGRESS4);

    // The proxy is gone: somebody (its host) answers no.
    drop(squid);
    let run = gate(&lab, Host::Allowed, &text);
    for name in ["egress-ip", "site-via", "admin-via"] {
        run.expect(name, "violated", "not-open", "refused");
        let observed = observed(run.check(name));
        assert!(observed.iter().all(|o| o["stage"] == "tcp" || o["stage"] == "proxy"), "{observed:#?}");
    }
    run.expect_code(1);

    // Its host is gone: silence, and what silence means is up to a witness.
    lab.edge_dead();
    let run = gate(
        &lab,
        Host::Allowed,
        &(text + &check("witnessed", "http", "https://site.lab.test/", &format!("{VIA}expect = \"open\"\nwitness = [\"witness\"]"))),
    );
    for name in ["egress-ip", "site-via", "admin-via"] {
        run.expect(name, "unproven", "no-witness|witness-failed", "timeout");
    }
    run.expect("witnessed", "violated", "not-open", "timeout");
    run.expect_code(1);
}

/// Our own proxy in the place of the Squid; `rest` is more of its section.
fn embedded(lab: &Lab, allow_from: &str, rest: &str) -> Process {
    let text = format!(
        "vantage = \"proxy\"\n[proxy]\nlisten = [\"{PROXY4}:3128\", \"[{PROXY6}]:3128\"]\nallow_from = {allow_from}\n\
         allow_private = [\"203.0.113.0/24\", \"198.51.100.0/24\", \"fd00::/8\", \"2001:db8::/32\"]\n{rest}"
    );
    let config = write_config(lab, "proxy.toml", &text);
    let mut process = Process::spawn(lab, Host::Private, "embedded", &[BINARY, "proxy", "--config", config.to_str().unwrap()], false);
    let hub = lab.hub(Host::Private);
    let ready = until(crate::run::SOON, || {
        assert!(process.ended().is_none(), "the proxy ended: {}", lab.log("embedded"));
        [PROXY4, PROXY6].iter().all(|at| hub.connect(at, 3128, 0.2).outcome == "connected").then_some(())
    });
    assert!(ready.is_some(), "the proxy did not get ready: {}", lab.log("embedded"));
    process
}

#[test]
fn the_embedded_proxy_takes_squids_place_and_is_audited_by_the_same_file() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let office = "[\"198.51.100.10/32\", \"fd00:10::10/128\"]";
    let inside = keyed("office", &office_checks(&lab));
    let outside = |rest: &str| keyed("stranger", &(internet() + &open_proxy("not-open", "[\"internet\"]", rest)));
    let whole = "techniques = \"standard\"\ninterval = \"10m\"";
    let tunnels = "connect_ports = [443, 9891]\n";
    let both = format!("{tunnels}http_ports = [80, 443, 9891]\n");
    for (rest, suite) in [(tunnels, ""), (&both, whole)] {
        let _proxy = embedded(&lab, office, rest);
        let run = gate(&lab, Host::Allowed, &inside);
        for name in ["egress-ip", "site-via", "admin-via"] {
            run.expect(name, "holds", "as-expected", "*");
        }
        run.expect_code(0);
        let run = gate(&lab, Host::Stranger, &outside(suite));
        run.expect("not-open", "holds", "as-expected", "*");
        run.expect_code(0);
    }
    let everybody = "[\"0.0.0.0/0\", \"::/0\"]";
    for (rest, technique) in [(tunnels, "OP-01"), ("connect_ports = []\nhttp_ports = [443, 9891]\n", "OP-02")] {
        let _proxy = embedded(&lab, everybody, rest);
        let run = gate(&lab, Host::Stranger, &outside(""));
        run.expect("not-open", "violated", "open", "*");
        let relayed: Vec<_> = observed(run.check("not-open")).into_iter().filter(|o| o["outcome"] == "relayed").collect();
        assert!(relayed.iter().any(|o| o["evidence"]["technique"] == technique), "{rest}: {relayed:#?}");
    }
}

#[test]
fn a_stranger_is_told_no_by_the_proxy_not_by_the_target() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let _squid = Squid::Closed.start(&lab);
    let run = gate(&lab, Host::Stranger, &keyed("stranger", &office_checks(&lab)));
    for name in ["site-via", "admin-via", "egress-ip"] {
        run.expect(name, "violated", "not-open", "denied");
        assert!(observed(run.check(name)).iter().all(|o| o["stage"] == "proxy"), "{:#}", run.check(name));
    }
    run.expect_code(1);
}

#[test]
fn squid_as_production_has_it_relays_nothing_for_a_stranger() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let squid = Squid::Closed.start(&lab);
    let office: Monitor = office(&lab);
    let body = internet()
        + &peer("proxy-alive", "proxy-open")
        + &open_proxy("not-open", "[\"internet\"]", "")
        + &open_proxy("not-open-and-alive", "[\"internet\", \"proxy-alive\"]", "require = [\"vantage\", \"target\"]");
    let text = keyed("stranger", &body);
    let run = gate(&lab, Host::Stranger, &text);
    run.expect("not-open", "holds", "as-expected", "denied|not-relayed|not-understood");
    run.expect("not-open-and-alive", "holds", "as-expected", "denied|not-relayed|not-understood");
    let outcomes = observed(run.check("not-open"));
    assert!(outcomes.iter().any(|o| o["outcome"] == "denied"), "Squid said no in so many words: {outcomes:#?}");
    for technique in ["OP-01", "OP-02", "OP-09"] {
        assert!(
            run.check("not-open")["observations"].to_string().contains(technique),
            "{technique} was tried: {:#}",
            run.check("not-open")
        );
    }
    run.expect_code(0);

    // A dead proxy relays nothing either; only the proof `target` tells the two apart.
    drop(squid);
    office.wait_for(&lab, "proxy-open", "not holding", |c| c["verdict"] != "holds");
    let run = gate(&lab, Host::Stranger, &text);
    run.expect("not-open", "holds", "as-expected", "refused");
    run.expect("not-open-and-alive", "unproven", "witness-failed", "refused");
    assert_ne!(run.code, 0);
}

#[test]
fn every_wrong_acl_of_squid_is_seen_by_what_it_relays() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let text = keyed("stranger", &(internet() + &open_proxy("not-open", "[\"internet\"]", "")));
    let mut cases = 0;
    for (mistake, technique) in [(Squid::OpenToAll, "OP-02"), (Squid::OpenConnect, "OP-01"), (Squid::NoLastDeny, "OP-02")] {
        let _squid = mistake.start(&lab);
        let run = gate(&lab, Host::Stranger, &text);
        run.expect("not-open", "violated", "open", "relayed");
        let relayed: Vec<_> = observed(run.check("not-open")).into_iter().filter(|o| o["outcome"] == "relayed").collect();
        assert!(
            relayed.iter().any(|o| o.to_string().contains(technique)),
            "{mistake:?}: {technique} relays, and the evidence says so: {relayed:#?}"
        );
        assert!(relayed.iter().all(|o| o.to_string().contains(EGRESS4)), "{mistake:?}: what the beacon saw is evidence: {relayed:#?}");
        run.expect_code(1);
        cases += 1;
    }
    assert_eq!(cases, 3);
}

#[test]
fn an_open_proxy_whose_beacon_is_gone_is_not_closed() {
    let Some(lab) = Lab::new() else { return };
    let beacon = beacon(&lab);
    drop(beacon);
    let _squid = Squid::OpenToAll.start(&lab);
    let text = keyed("stranger", &(internet() + &open_proxy("not-open", "[\"internet\"]", "")));
    let run = gate(&lab, Host::Stranger, &text);
    run.expect_never_holds("not-open");
    assert_ne!(run.code, 0);
}

/// Squid as it is set up in the field, each with what OP-01 and OP-02, and what OP-07, must come to.
#[test]
fn every_way_to_set_up_squid_is_what_it_relays() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let ca = format!("ca_file = {:?}", lab.dir().join("ca.pem"));
    let listed = format!("techniques = [\"OP-07\"]\nallowed_destination = \"site.lab.test:443\"\n{ca}");
    let body = internet() + &open_proxy("ours", "[\"internet\"]", "") + &open_proxy("listed", "[\"internet\"]", &listed);
    let (shut, open) = (("holds", "as-expected"), ("violated", "open"));
    let denials = "denied|not-relayed|not-understood";
    let mut cases = 0;
    for (setup, ours, seen, to_listed) in [
        (Squid::OpenGet, open, "relayed", shut),
        (Squid::DenyInfo, shut, denials, shut),
        (Squid::Password, shut, denials, shut),
        (Squid::ProxyHeader, shut, "denied", shut),
        (Squid::OpenAllowList, shut, denials, open),
    ] {
        let _squid = setup.start(&lab);
        let run = gate(&lab, Host::Stranger, &keyed("stranger", &body));
        run.expect("ours", ours.0, ours.1, seen);
        run.expect("listed", to_listed.0, to_listed.1, if to_listed == open { "tunnelled" } else { denials });
        cases += 1;
    }
    // A forwarder in front, which is all that Squid sees: its own rules decide, and a rule for it is a rule for everybody.
    lab.hub(Host::Private).ask(
        &json!({ "do": "listen", "name": "forwarder", "host": PROXY4, "port": 3129, "mode": "far", "behind": [PROXY4, 3128], "delay": 0 }),
    );
    for (setup, ours, seen) in [(Squid::Closed, shut, denials), (Squid::BehindForwarder, open, "relayed")] {
        let _squid = setup.start(&lab);
        let run = gate(&lab, Host::Stranger, &keyed("stranger", &body.replace(":3128", ":3129")));
        run.expect("ours", ours.0, ours.1, seen);
        cases += 1;
    }
    assert_eq!(cases, 7);
}

/// A witness through the proxy tunnels to each address by itself: it speaks for those that it reached, and for no other.
#[test]
fn a_tunnel_proves_the_address_that_it_reached() {
    let Some(lab) = Lab::new() else { return };
    let ca = format!("ca_file = {:?}\n", lab.dir().join("ca.pem"));
    let body = internet()
        + &check("through", "http", "https://two.lab.test/", &format!("{VIA}{ca}expect = \"open\""))
        + &blocked("two", "two.lab.test:443", &["internet", "through"], &["vantage", "target"]);
    let text = config("stranger", &body);
    let target = |run: &crate::run::Run, address: &str| {
        run.observation("two", &format!("{address}:443"))["proofs"].as_array().unwrap().contains(&json!("target"))
    };
    let squid = Squid::OpenToAll.start(&lab);
    let run = gate(&lab, Host::Stranger, &text);
    run.expect("two", "holds", "as-expected", "timeout");
    assert!(target(&run, ADMIN4) && target(&run, SECOND_ADMIN4), "{:#}", run.check("two"));
    drop(squid);

    // It tunnels to names alone, so nothing speaks for an address; that the name answers is still true.
    let squid = Squid::NamesOnly.start(&lab);
    let run = gate(&lab, Host::Stranger, &text);
    run.expect("through", "holds", "as-expected", "status:200");
    run.expect("two", "unproven", "no-witness", "timeout");
    assert!(!target(&run, ADMIN4) && !target(&run, SECOND_ADMIN4), "{:#}", run.check("two"));
    drop(squid);

    let _squid = Squid::OpenToAll.start(&lab);
    lab.close(Host::Private, "second4:443");
    let run = gate(&lab, Host::Stranger, &text);
    run.expect("two", "unproven", "no-witness|witness-failed", "timeout");
    assert!(!target(&run, SECOND_ADMIN4), "nobody listens there: {:#}", run.check("two"));
}

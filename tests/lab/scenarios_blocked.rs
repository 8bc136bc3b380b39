//! The network ACL, seen from the stranger: closed in every way, opened in every way, and when nothing can be proven.

use serde_json::json;

use crate::run::{blocked, check, config, gate, internet, office, peer};
use crate::scenarios_world::{ICMP4, ICMP6};
use crate::world::{ADMIN4, ADMIN6, Denial, EDGE4, EDGE6, Host, Lab, SECOND_ADMIN4, SECOND4};

const EVERY_PROOF: [&str; 3] = ["vantage", "port", "target"];

/// The check of the reference deployment, with its two witnesses and every proof.
fn admin_closed() -> String {
    internet()
        + &peer("admin-alive", "admin-open")
        + &blocked("admin-closed", "admin.lab.test:443", &["internet", "admin-alive"], &EVERY_PROOF)
}

#[test]
fn closed_by_silence_holds_with_every_proof() {
    let Some(lab) = Lab::new() else { return };
    let _office = office(&lab);
    let run = gate(&lab, Host::Stranger, &config("stranger", &admin_closed()));
    run.expect("admin-closed", "holds", "as-expected", "timeout");
    run.expect_proofs("admin-closed", &EVERY_PROOF);
    run.expect("internet", "holds", "as-expected", "connected");
    run.expect("admin-alive", "holds", "as-expected", "query-true");
    for address in ["203.0.113.7:443", "[fd00:113::7]:443"] {
        let seen = run.observation("admin-closed", address);
        assert_eq!((&seen["stage"], &seen["attempts"]), (&json!("tcp"), &json!(3)), "{seen:#}");
        assert!(seen["evidence"]["syn_retransmits"].as_u64().is_some_and(|n| n >= 2), "three SYNs at least: {seen:#}");
    }
    assert_eq!(run.check("admin-closed")["not_covered"], json!([]));
    run.expect_code(0);
}

#[test]
fn every_denial_holds_as_what_it_is() {
    let Some(lab) = Lab::new() else { return };
    let token = |kind: u64, code: u64| match (kind, code) {
        (3, 3) | (1, 4) => "refused",
        (3, 9 | 10 | 13) | (1, 1 | 5 | 6) => "prohibited",
        _ => "unreachable",
    };
    let mut cases: Vec<(String, String, String, &str, &str)> = Vec::new();
    for (at, (rule, _, kind, code)) in (2001..).zip(ICMP4) {
        cases.push((
            format!("v4-{rule}"),
            format!("{ADMIN4}:{at}"),
            format!("tcp dport {at} reject with icmp type {rule}"),
            token(kind, code),
            EDGE4,
        ));
    }
    for (at, (rule, _, kind, code)) in (2101..).zip(ICMP6) {
        cases.push((
            format!("v6-{rule}"),
            format!("[{ADMIN6}]:{at}"),
            format!("tcp dport {at} reject with icmpv6 type {rule}"),
            token(kind, code),
            EDGE6,
        ));
    }
    let reset = "tcp dport 2201 reject with tcp reset".to_owned();
    cases.push(("v4-reset".to_owned(), format!("{ADMIN4}:2201"), reset.clone(), "refused", ""));
    cases.push(("v6-reset".to_owned(), format!("[{ADMIN6}]:2201"), reset, "refused", ""));
    cases.push(("v4-drop".to_owned(), format!("{ADMIN4}:2301"), "tcp dport 2301 drop".to_owned(), "timeout", ""));
    cases.push(("v6-drop".to_owned(), format!("[{ADMIN6}]:2301"), "tcp dport 2301 drop".to_owned(), "timeout", ""));

    let rules: Vec<&str> = cases.iter().map(|case| case.2.as_str()).collect();
    lab.acl_with(&rules, Denial::Drop);
    let checks: String = cases.iter().map(|case| blocked(&case.0, &case.1, &["internet"], &["vantage"])).collect();
    let run = gate(&lab, Host::Stranger, &config("stranger", &(internet() + &checks)));
    let mut ran = 0;
    for (name, address, _, outcome, sender) in &cases {
        run.expect(name, "holds", "as-expected", outcome);
        run.expect_proofs(name, &["vantage"]);
        let evidence = run.observation(name, address)["evidence"].to_string();
        assert!(sender.is_empty() || evidence.contains(sender), "{name}: the evidence must name the sender {sender}: {evidence}");
        ran += 1;
    }
    assert_eq!(ran, 17);
    run.expect_code(0);
}

#[test]
fn a_denial_of_another_kind_than_demanded_is_a_violation() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["tcp dport 443 reject with tcp reset", "tcp dport 80 reject with icmp type admin-prohibited"], Denial::Drop);
    let demand = |name: &str, port: u16, accepted: &str| {
        check(name, "tcp", &format!("{ADMIN4}:{port}"), &format!("expect = {accepted}\nwitness = [\"internet\"]"))
    };
    let body = internet()
        + &demand("reset-not-silence", 443, "[\"timeout\"]")
        + &demand("icmp-not-silence", 80, "[\"timeout\"]")
        + &demand("icmp-accepted", 80, "[\"prohibited\", \"timeout\"]")
        + &demand("silence-not-reset", 22, "[\"refused\"]");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("reset-not-silence", "violated", "other-denial", "refused");
    run.expect("icmp-not-silence", "violated", "other-denial", "prohibited");
    run.expect("icmp-accepted", "holds", "as-expected", "prohibited");
    run.expect("silence-not-reset", "violated", "other-denial", "timeout");
    run.expect_code(1);
}

#[test]
fn opened_for_everybody_is_violated() {
    let Some(lab) = Lab::new() else { return };
    let _office = office(&lab);
    lab.acl_open();
    let run = gate(&lab, Host::Stranger, &config("stranger", &admin_closed()));
    run.expect("admin-closed", "violated", "open", "connected");
    for address in ["203.0.113.7:443", "[fd00:113::7]:443"] {
        assert_eq!(run.observation("admin-closed", address)["verdict"], "violated");
    }
    let reason = run.check("admin-closed")["reason"].as_str().unwrap();
    assert!(reason.contains(ADMIN4) || reason.contains(ADMIN6), "the reason names the address: {reason}");
    assert!(run.check("admin-closed")["exposure"]["first_open"].is_string(), "{:#}", run.check("admin-closed"));
    run.expect_code(1);

    // Open is settled: no witness, and none that works, makes it less than violated.
    let alone = blocked("alone", "admin4.lab.test:443", &[], &[])
        + &check("dead", "tcp", "witness.lab.test:1", "expect = \"open\"")
        + &blocked("dead-witness", "admin4.lab.test:443", &["dead"], &["vantage"]);
    let run = gate(&lab, Host::Stranger, &config("stranger", &alone));
    run.expect("alone", "violated", "open", "connected");
    run.expect("dead-witness", "violated", "open", "connected");
    run.expect_code(1);
}

#[test]
fn opened_on_ipv6_only_is_violated() {
    let Some(lab) = Lab::new() else { return };
    let _office = office(&lab);
    lab.acl_with(&["meta nfproto ipv6 accept"], Denial::Drop);
    let body = admin_closed()
        + &check("only-v4", "tcp", "admin.lab.test:443", "expect = \"blocked\"\nwitness = [\"internet\"]\nfamilies = [\"ipv4\"]");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("admin-closed", "violated", "open", "connected");
    let four = run.observation("admin-closed", "203.0.113.7:443");
    assert_eq!((&four["verdict"], &four["outcome"]), (&json!("holds"), &json!("timeout")));
    run.expect("only-v4", "holds", "as-expected", "timeout");
    assert_eq!(run.check("only-v4")["not_covered"], json!(["ipv6"]), "what is left out is said");
    run.expect_code(1);
}

#[test]
fn one_open_address_of_two_is_enough() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["ip daddr 203.0.113.8 tcp dport 443 accept", "ip daddr 203.0.113.7 tcp dport 80 accept"], Denial::Drop);
    let body = internet()
        + &blocked("first-silent-second-open", "two.lab.test:443", &["internet"], &["vantage"])
        + &blocked("first-open-second-silent", "two.lab.test:80", &["internet"], &["vantage"])
        + &blocked("both-silent", "two.lab.test:22", &["internet"], &["vantage"]);
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("first-silent-second-open", "violated", "open", "connected");
    run.expect("first-open-second-silent", "violated", "open", "connected");
    run.expect("both-silent", "holds", "as-expected", "timeout");
    for name in ["first-silent-second-open", "first-open-second-silent", "both-silent"] {
        let port = run.check(name)["target"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
        for address in [ADMIN4, SECOND_ADMIN4] {
            run.observation(name, &format!("{address}:{port}"));
        }
    }
    run.expect_code(1);
}

#[test]
fn a_dead_target_proves_nothing() {
    let Some(lab) = Lab::new() else { return };
    let office = office(&lab);
    let body = admin_closed() + &blocked("without-target", "admin.lab.test:443", &["internet"], &["vantage"]);
    let dead = |why: &str| {
        office.wait_for(&lab, "admin-open", "not holding", |c| c["verdict"] != "holds");
        let run = gate(&lab, Host::Stranger, &config("stranger", &body));
        run.expect("admin-closed", "unproven", "witness-failed", "timeout");
        run.expect_never_holds("admin-alive");
        // What the proof `target` is for: without it, a dead target looks closed.
        run.expect("without-target", "holds", "as-expected", "timeout");
        eprintln!("{why}: exit code {}", run.code);
        assert_ne!(run.code, 0);
    };
    lab.close(Host::Private, "admin4:443");
    lab.close(Host::Private, "admin6:443");
    dead("nobody listens");
    lab.ip(Host::Private, "link set eth0 down\n");
    dead("the host is down");
}

#[test]
fn a_dead_edge_proves_nothing() {
    let Some(lab) = Lab::new() else { return };
    let office = office(&lab);
    lab.edge_dead();
    office.wait_for(&lab, "admin-open", "not holding", |c| c["verdict"] != "holds");
    let run = gate(&lab, Host::Stranger, &config("stranger", &admin_closed()));
    run.expect("admin-closed", "unproven", "witness-failed", "timeout");
    run.expect("internet", "holds", "as-expected", "connected");
    assert_ne!(run.code, 0);
}

#[test]
fn the_second_source_proves_the_target() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["ip saddr 198.51.100.67 accept"], Denial::Drop);
    let allowed =
        check("allowed-source", "tcp", "admin4.lab.test:443", &format!("expect = \"open\"\nsource = \"{SECOND4}\"\nfamilies = [\"ipv4\"]"));
    let closed = check(
        "closed",
        "tcp",
        "admin4.lab.test:443",
        "expect = \"blocked\"\nwitness = [\"internet\", \"allowed-source\"]\nrequire = [\"vantage\", \"port\", \"target\"]\nfamilies = [\"ipv4\"]",
    );
    let run = gate(&lab, Host::Stranger, &config("stranger", &(internet() + &allowed + &closed)));
    run.expect("allowed-source", "holds", "as-expected", "connected");
    run.expect("closed", "holds", "as-expected", "timeout");
    run.expect_proofs("closed", &EVERY_PROOF);
    run.expect_code(0);

    // The same from the allowed source is open: the stranger's block is the ACL's, not the path's.
    let mistaken = check(
        "from-allowed",
        "tcp",
        "admin4.lab.test:443",
        &format!("expect = \"blocked\"\nsource = \"{SECOND4}\"\nwitness = [\"internet-too\"]\nfamilies = [\"ipv4\"]"),
    ) + &check(
        "internet-too",
        "tcp",
        "site.lab.test:443",
        &format!("expect = \"open\"\nsource = \"{SECOND4}\"\nfamilies = [\"ipv4\"]"),
    );
    let run = gate(&lab, Host::Stranger, &config("stranger", &mistaken));
    run.expect("from-allowed", "violated", "open", "connected");
}

#[test]
fn loss_before_an_open_port_never_holds() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    lab.loss(30);
    let names: Vec<String> = (0..8).map(|n| format!("open-{n}")).collect();
    let long =
        |name: &String| check(name, "tcp", &format!("{ADMIN4}:443"), "expect = \"blocked\"\nwitness = [\"internet\"]\ntimeout = \"5s\"");
    let witness = check("internet", "tcp", "site.lab.test:443", "expect = \"open\"\ntimeout = \"5s\"");
    let run = gate(&lab, Host::Stranger, &config("stranger", &(witness + &names.iter().map(long).collect::<String>())));
    for name in &names {
        run.expect_never_holds(name);
    }
    let seen = names.iter().filter(|name| run.check(name)["verdict"] == "violated").count();
    assert!(seen >= 6, "three attempts of five SYNs see through 30 % loss, {seen} of 8 did");
    run.expect_code(1);
}

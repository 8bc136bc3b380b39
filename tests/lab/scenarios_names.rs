//! Names: a resolver that fails never looks like a closed target, and a family that was not asked is not covered.

use serde_json::json;

use crate::run::{blocked, check, config, gate, internet};
use crate::world::{Denial, Host, Lab, WITNESS4};

/// An inverted check that resolves through the faulty name server on that port.
fn through(name: &str, target: &str, port: u16, rest: &str) -> String {
    check(name, "tcp", target, &format!("expect = \"blocked\"\nwitness = [\"internet\"]\nresolver = \"{WITNESS4}:{port}\"\n{rest}"))
}

#[test]
fn a_resolver_that_fails_is_never_a_block() {
    let Some(lab) = Lab::new() else { return };
    let rules = [
        json!({ "A": "answer", "AAAA": "servfail" }),
        json!({ "A": "answer", "AAAA": "silent" }),
        json!({ "A": "answer", "AAAA": "refused" }),
        json!({ "A": "servfail", "AAAA": "answer" }),
        json!({ "A": "servfail", "AAAA": "servfail" }),
        json!({ "A": "silent", "AAAA": "silent" }),
        json!({ "A": "nxdomain", "AAAA": "nxdomain" }),
    ];
    let mut body = internet();
    for (port, rules) in (5353..).zip(&rules) {
        lab.faulty_dns(port, rules);
        body += &through(&format!("case-{port}"), "admin.lab.test:443", port, "");
    }
    body += &through("only-four", "admin.lab.test:443", 5353, "families = [\"ipv4\"]");
    body += &through("nobody-there", "admin.lab.test:443", 5999, "");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    let mut ran = 0;
    for port in (5353..).take(rules.len()).chain([5999]) {
        let name = if port == 5999 { "nobody-there".to_owned() } else { format!("case-{port}") };
        run.expect(&name, "unproven", "resolve", "resolve-error");
        ran += 1;
    }
    assert_eq!(ran, 8);
    run.expect("only-four", "holds", "as-expected", "timeout");
    assert_eq!(run.check("only-four")["not_covered"], json!(["ipv6"]));
    run.expect_code(3);
}

#[test]
fn an_open_address_outweighs_a_failing_resolver() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["meta nfproto ipv4 accept"], Denial::Drop);
    lab.faulty_dns(5353, &json!({ "A": "answer", "AAAA": "servfail" }));
    lab.faulty_dns(5354, &json!({ "A": "answer", "AAAA": "silent" }));
    let body = internet() + &through("servfail", "admin.lab.test:443", 5353, "") + &through("silent", "admin.lab.test:443", 5354, "");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("servfail", "violated", "open", "connected");
    run.expect("silent", "violated", "open", "connected");
    run.expect_code(1);
}

#[test]
fn the_systems_resolver_is_gone() {
    let Some(lab) = Lab::new() else { return };
    lab.resolver_gone();
    let witness = check("witness", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"");
    let run =
        gate(&lab, Host::Stranger, &config("stranger", &(witness + &blocked("closed", "admin.lab.test:443", &["witness"], &["vantage"]))));
    run.expect("closed", "unproven", "resolve", "resolve-error");
    run.expect("witness", "holds", "as-expected", "connected");
    run.expect_code(3);
}

#[test]
fn names_that_lead_nowhere_are_not_closed() {
    let Some(lab) = Lab::new() else { return };
    let sinks = ["sink.lab.test", "sink-loop.lab.test", "sink-own.lab.test"];
    let nothing = ["nx.lab.test", "empty.lab.test"];
    let named = |name: &str| blocked(name.split('.').next().unwrap(), &format!("{name}:443"), &["internet"], &["vantage"]);
    let mut body = internet();
    for name in sinks.iter().chain(&nothing) {
        body += &named(name);
    }
    body += &named("admin4.lab.test");
    body += &named("admin6.lab.test");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("sink", "unproven", "local", "local-error");
    run.expect("sink-loop", "unproven", "local", "local-error");
    run.expect("sink-own", "unproven", "local", "local-error");
    run.expect("nx", "unproven", "resolve", "resolve-error");
    run.expect("empty", "unproven", "resolve", "resolve-error");
    // A name of one family is whole: NODATA completes the other.
    run.expect("admin4", "holds", "as-expected", "timeout");
    run.expect("admin6", "holds", "as-expected", "timeout");
    run.expect_code(3);
}

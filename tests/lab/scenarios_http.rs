//! The admin web, reachable for everybody at the network and guarded by itself: 403 turned into everything else.

use serde_json::json;

use crate::run::{Run, check, config, gate, internet, office, peer};
use crate::world::{Host, Lab};

/// An inverted http check of the admin web.
fn forbidden(lab: &Lab, name: &str, scheme: &str, expect: &str, witness: &str) -> String {
    let ca = if scheme == "https" { format!("ca_file = {:?}\n", lab.dir().join("ca.pem")) } else { String::new() };
    check(name, "http", &format!("{scheme}://admin.lab.test/"), &format!("expect = {expect}\nwitness = {witness}\n{ca}"))
}

fn standard(lab: &Lab) -> String {
    let four = "[\"status:403\"]";
    internet()
        + &check("web", "tcp", "witness.lab.test:80", "expect = \"open\"")
        + &peer("admin-alive", "admin-page")
        + &(forbidden(lab, "secure", "https", four, "[\"internet\", \"admin-alive\"]") + "require = [\"vantage\", \"target\"]\n")
        + &forbidden(lab, "secure-alone", "https", four, "[\"internet\"]")
        + &forbidden(lab, "blocked", "https", "\"blocked\"", "[\"internet\"]")
        + &forbidden(lab, "plain-alone", "http", four, "[\"web\"]")
        + &forbidden(lab, "plain", "http", four, "[\"web\", \"admin-alive\"]")
}

fn with_page(lab: &Lab, page: &serde_json::Value) -> Run {
    lab.admin_page(page);
    gate(lab, Host::Stranger, &config("stranger", &standard(lab)))
}

#[test]
fn the_admin_web_answers_403_to_the_stranger_and_only_that_holds() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    let office = office(&lab);
    let office_is = |holds: bool| {
        office.wait_for(&lab, "admin-page", "as the page is", |c| (c["verdict"] == "holds") == holds);
    };
    let mut cases = 0;

    office_is(true);
    let run = with_page(&lab, &json!("acl"));
    for name in ["secure", "secure-alone", "blocked", "plain-alone"] {
        run.expect(name, "holds", "as-expected", "status:403");
    }
    run.expect_proofs("secure", &["port", "target", "vantage"]);
    assert_eq!(run.observation("secure", "203.0.113.7:443")["stage"], "http");
    assert_eq!(run.observation("secure", "203.0.113.7:443")["attempts"], 3, "a block must stand every attempt");
    run.expect("plain", "holds", "as-expected", "status:403");
    run.expect_code(0);
    cases += 1;

    for status in [200, 302] {
        let run = with_page(&lab, &json!(status));
        for name in ["secure", "secure-alone", "blocked", "plain-alone", "plain"] {
            run.expect(name, "violated", "open", &format!("status:{status}"));
        }
        run.expect_code(1);
        cases += 1;
    }

    // Closed, but not as demanded. The office gets it too, so its witness fails: then only what is authenticated counts.
    lab.admin_page(&json!(404));
    office_is(false);
    let run = with_page(&lab, &json!(404));
    run.expect("secure", "violated", "other-denial", "status:404");
    run.expect("secure-alone", "violated", "other-denial", "status:404");
    run.expect("blocked", "violated", "other-denial", "status:404");
    run.expect("plain-alone", "violated", "other-denial", "status:404");
    run.expect("plain", "unproven", "witness-failed", "status:404");
    run.expect_code(1);
    cases += 1;

    // 403 for everybody: the stranger's 403 proves nothing about the stranger.
    let run = with_page(&lab, &json!(403));
    run.expect("secure", "unproven", "witness-failed", "status:403");
    run.expect("secure-alone", "holds", "as-expected", "status:403");
    assert_ne!(run.code, 0);
    cases += 1;
    assert_eq!(cases, 5);
}

#[test]
fn an_untrusted_certificate_is_somebody_who_let_us_in() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    lab.admin_certificate("untrusted.pem");
    let ca = format!("ca_file = {:?}", lab.dir().join("ca.pem"));
    let body = internet()
        + &forbidden(&lab, "http", "https", "[\"status:403\"]", "[\"internet\"]")
        + &check("tls", "tls", "admin.lab.test:443", &format!("expect = \"blocked\"\nwitness = [\"internet\"]\n{ca}"))
        + &check("positive", "tls", "admin.lab.test:443", &format!("expect = \"open\"\n{ca}"));
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("http", "violated", "open", "tls-untrusted");
    run.expect("tls", "violated", "open", "tls-untrusted");
    run.expect("positive", "violated", "not-open", "tls-untrusted");
    run.expect_code(1);
}

#[test]
fn the_network_says_no_before_the_web_can() {
    let Some(lab) = Lab::new() else { return };
    let body = internet()
        + &forbidden(&lab, "only-403", "https", "[\"status:403\"]", "[\"internet\"]")
        + &forbidden(&lab, "blocked", "https", "\"blocked\"", "[\"internet\"]");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("only-403", "violated", "other-denial", "timeout");
    run.expect("blocked", "holds", "as-expected", "timeout");
    run.expect_code(1);
}

#[test]
fn who_accepts_and_says_nothing_let_us_in_for_tcp_and_not_for_http() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    let mut body = internet();
    for (port, mode) in [(8101, "reset"), (8102, "close"), (8103, "hold")] {
        lab.listen(Host::Private, mode, "203.0.113.7", port, mode);
        body += &check(&format!("tcp-{mode}"), "tcp", &format!("203.0.113.7:{port}"), "expect = \"blocked\"\nwitness = [\"internet\"]");
        body += &check(
            &format!("http-{mode}"),
            "http",
            &format!("http://203.0.113.7:{port}/"),
            "expect = \"blocked\"\nwitness = [\"internet\"]",
        );
    }
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    for mode in ["reset", "close", "hold"] {
        run.expect(&format!("tcp-{mode}"), "violated", "open", "connected");
    }
    run.expect("http-reset", "holds", "as-expected", "reset");
    run.expect("http-close", "holds", "as-expected", "closed|reset");
    run.expect("http-hold", "violated", "other-denial", "mute");
    run.expect_code(1);
}

//! Edges found by testing from outside: each is a small world in which the monitor once said what it had not seen.

use serde_json::json;

use crate::run::{Monitor, blocked, check, config, gate, internet};
use crate::world::{ADMIN4, Denial, Host, Lab, STRANGER4, WITNESS4, WITNESS6};

/// A name that must not exist can be shown not to exist: the question is asked again once the witness has run.
#[test]
fn a_name_that_must_not_exist_holds_while_it_does_not() {
    let Some(lab) = Lab::new() else { return };
    let gone = |name: &str, target: &str, expect: &str| check(name, "tcp", target, &format!("expect = {expect}\nwitness = [\"internet\"]"));
    let body = internet()
        + &gone("nx", "nx.lab.test:443", "[\"nxdomain\"]")
        + &gone("empty", "empty.lab.test:443", "[\"no-data\"]")
        + &gone("exists", "empty.lab.test:443", "[\"nxdomain\"]")
        + &gone("either", "nx.lab.test:443", "[\"nxdomain\", \"no-data\", \"timeout\"]")
        + &gone("back", "admin.lab.test:443", "[\"nxdomain\"]");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("nx", "holds", "as-expected", "nxdomain");
    run.expect("empty", "holds", "as-expected", "no-data");
    run.expect("either", "holds", "as-expected", "nxdomain");
    run.expect("exists", "unproven", "resolve", "resolve-error");
    run.expect("back", "violated", "other-denial", "timeout");
    lab.close(Host::Beacon, "witness4:443");
    lab.close(Host::Beacon, "witness6:443");
    let run = gate(&lab, Host::Stranger, &config("stranger", &(internet() + &gone("nx", "nx.lab.test:443", "[\"nxdomain\"]"))));
    run.expect("nx", "unproven", "witness-failed", "nxdomain");
}

/// `::ffff:203.0.113.7` is reached by IPv4, so only a witness of IPv4 can speak for it.
#[test]
fn an_ipv4_address_in_ipv6_clothes_is_ipv4() {
    let Some(lab) = Lab::new() else { return };
    let mapped = format!("[::ffff:{ADMIN4}]:443");
    let six = check("six", "tcp", &format!("[{WITNESS6}]:443"), "expect = \"open\"");
    let four = check("four", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"");
    lab.hub(Host::Beacon).ask(&json!({
        "do": "listen", "name": "dns", "mode": "dns", "host": WITNESS4, "port": 5360, "rules": {},
        "zone": { "clothed.lab.test": { "AAAA": [format!("::ffff:{ADMIN4}")] } }
    }));
    let named = |name: &str, witness: &str| {
        let rest = format!("expect = \"blocked\"\nwitness = [{witness:?}]\nresolver = \"{WITNESS4}:5360\"");
        check(name, "tcp", "clothed.lab.test:443", &rest)
    };
    let body =
        six + &four + &blocked("written", &mapped, &["four"], &["vantage"]) + &named("named", "four") + &named("named-by-six", "six");
    let text = config("stranger", &body);
    let run = gate(&lab, Host::Stranger, &text);
    for name in ["written", "named"] {
        run.expect(name, "holds", "as-expected", "timeout");
        assert_eq!(run.observation(name, &format!("{ADMIN4}:443"))["attempts"], 3);
    }
    run.expect("named-by-six", "unproven", "no-witness", "timeout");
    lab.acl_open();
    let run = gate(&lab, Host::Stranger, &text);
    for name in ["written", "named", "named-by-six"] {
        run.expect(name, "violated", "open", "connected");
    }
}

/// A restart does not resolve a violation, not even until the first run after it.
#[test]
fn a_violation_is_there_as_soon_as_the_monitor_is_back() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    let kept = lab.dir().join("kept");
    let text = |interval: &str| {
        format!(
            "vantage = \"stranger\"\nstate_dir = {kept:?}\n[web]\nlisten = \"{STRANGER4}:9890\"\n[defaults]\ninterval = \"{interval}\"\ntimeout = \"3s\"\n{}{}",
            internet(),
            blocked("admin", "admin.lab.test:443", &["internet"], &["vantage"])
        )
    };
    let monitor = Monitor::start(&lab, Host::Stranger, STRANGER4, &text("2s"));
    monitor.wait_for(&lab, "admin", "violated", |c| c["verdict"] == "violated" && c["cause"] == "open");
    assert_eq!(monitor.terminate(&lab), Some(0));

    // Its first run is an hour away, so what is read is what was kept.
    let monitor = Monitor::start_unready(&lab, Host::Stranger, STRANGER4, &text("1h"));
    let back = monitor.wait_for(&lab, "admin", "known", |_| true);
    assert_eq!((&back["verdict"], &back["cause"]), (&json!("violated"), &json!("latched")), "{back:#}");
    assert!(back["exposure"]["first_open"].is_string(), "{back:#}");
    let alone = monitor.wait_for(&lab, "internet", "known", |_| true);
    assert_eq!(alone["verdict"], "unproven", "a positive check has no latch: {alone:#}");
    assert_eq!(monitor.terminate(&lab), Some(0));
}

/// A server far away refuses the missing client certificate one round trip after the handshake is done (TLS 1.3).
#[test]
fn a_refusal_that_comes_late_is_a_refusal() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    let ca = lab.dir().join("ca.pem");
    lab.hub(Host::Private).ask(&json!({
        "do": "listen", "name": "mtls", "host": ADMIN4, "port": 8443, "mode": "http", "pem": lab.dir().join("valid.pem"), "client_ca": ca
    }));
    let mut body = internet();
    let far = [(8444, 0.2), (8445, 0.45), (8446, 0.7)];
    for (port, delay) in far {
        let behind = json!([ADMIN4, 8443]);
        lab.hub(Host::Private).ask(
            &json!({ "do": "listen", "name": format!("far{port}"), "host": ADMIN4, "port": port, "mode": "far", "behind": behind, "delay": delay }),
        );
        let rest = |expect: &str| format!("expect = {expect}\nwitness = [\"internet\"]\nca_file = {ca:?}\ntimeout = \"6s\"");
        body += &check(&format!("tls-{port}"), "tls", &format!("admin4.lab.test:{port}"), &rest("[\"tls-refused\"]"));
        body += &check(&format!("http-{port}"), "http", &format!("https://admin4.lab.test:{port}/"), &rest("\"blocked\""));
    }
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    let mut ran = 0;
    for (port, _) in far {
        run.expect(&format!("tls-{port}"), "holds", "as-expected", "tls-refused");
        run.expect(&format!("http-{port}"), "holds", "as-expected", "tls-refused");
        ran += 1;
    }
    assert_eq!(ran, 3);
    run.expect_code(0);
}

/// Redirects as servers write them: relative, with a query only, with a fragment that is never sent (RFC 3986 section 5).
#[test]
fn every_form_of_a_redirect_is_followed() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&[], Denial::Reset);
    let page = json!({ "/a/b?x=1": 302, "/a/c": 200, "/c": 200, "/a/b?y=2": 200, "/d/e?z=3": 200 });
    let forms = [
        ("relative", "c"),
        ("dotted", "./x/../c"),
        ("upwards", "../c"),
        ("query", "?y=2"),
        ("rooted", "/d/e?z=3"),
        ("fragment", "/c#top"),
        ("whole", "http://198.51.100.20:8103/c#top"),
        ("scheme", "//198.51.100.20:8103/c"),
    ];
    let mut body = String::new();
    for (port, (name, location)) in (8103..).zip(forms) {
        lab.hub(Host::Beacon).ask(&json!({
            "do": "listen", "name": name, "host": WITNESS4, "port": port, "mode": "http", "page": page, "location": location
        }));
        body += &check(name, "http", &format!("http://{WITNESS4}:{port}/a/b?x=1"), "expect = \"open\"\nfollow_redirects = true");
    }
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    let mut ran = 0;
    for (name, _) in forms {
        run.expect(name, "holds", "as-expected", "status:200");
        ran += 1;
    }
    assert_eq!(ran, 8);
}

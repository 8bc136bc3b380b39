//! Peers: what another monitor says proves only what it says, of what it saw, when it saw it.

use serde_json::{Value, json};

use crate::run::{check, config, gate, internet};
use crate::world::{ADMIN4, Host, Lab, OFFICE4, SECOND_ADMIN4};

/// What the other monitor saw: it got through to the address.
fn got_to(address: &str) -> Value {
    json!([["holds", "connected", address]])
}

/// Peers that answer as told, each on a port of its own at the office, and the checks that ask them.
struct Peers<'a> {
    lab: &'a Lab,
    port: u16,
    body: String,
    expected: Vec<(String, &'static str, &'static str)>,
}

impl Peers<'_> {
    /// A peer, and a check of `target` that needs it for the proof `target`.
    fn case(&mut self, name: &str, target: &str, answers: &Value, rest: &str, expected: (&'static str, &'static str)) {
        self.peer(&format!("peer-{name}"), answers, rest, "http", &json!(null));
        self.asks(name, target, &["internet", &format!("peer-{name}")], "[\"vantage\", \"target\"]", expected);
    }

    fn peer(&mut self, name: &str, answers: &Value, rest: &str, scheme: &str, pem: &Value) {
        self.port += 1;
        self.lab.hub(Host::Allowed).ask(
            &json!({ "do": "listen", "name": name, "host": OFFICE4, "port": self.port, "mode": "peer", "answers": answers, "pem": pem }),
        );
        let rest = format!("check = \"there\"\nexpect = \"open\"\nattempts = 1\n{rest}");
        self.body += &check(name, "peer", &format!("{scheme}://{OFFICE4}:{}", self.port), &rest);
    }

    fn asks(&mut self, name: &str, target: &str, witness: &[&str], require: &str, (verdict, cause): (&'static str, &'static str)) {
        self.body += &check(name, "tcp", target, &format!("expect = \"blocked\"\nwitness = {witness:?}\nrequire = {require}"));
        self.expected.push((name.to_owned(), verdict, cause));
    }
}

#[test]
fn a_peer_proves_what_it_says_and_nothing_else() {
    let Some(lab) = Lab::new() else { return };
    let (here, dir) = (format!("{ADMIN4}:443"), lab.dir());
    let held = |age: i32, seen: &Value| json!(["holds", age, seen]);
    let good = || json!({ "runs": [held(1, &got_to(&here)), held(40, &got_to(&here))] });
    let with = |mut answer: Value, key: &str, value: Value| {
        answer[key] = value;
        json!([answer])
    };
    let other = |verdict: &str| json!([{ "runs": [[verdict, 1, got_to(&here)], held(40, &got_to(&here))] }]);
    let proves = ("holds", "as-expected");
    let fails = ("unproven", "witness-failed");
    let silent = ("unproven", "no-witness");
    let mut p = Peers { lab: &lab, port: 7000, body: internet(), expected: Vec::new() };

    p.case("good", &here, &json!([good()]), "", proves);
    p.case("skewed", &here, &with(good(), "skew", json!(-3600)), "", proves);
    for verdict in ["unproven", "violated", "HOLDS", ""] {
        p.case(&format!("says-{verdict}"), &here, &other(verdict), "", fails);
    }
    p.case("too-old", &here, &json!([{ "runs": [held(6, &got_to(&here)), held(40, &got_to(&here))] }]), "max_age = \"5s\"", fails);
    p.case("from-the-future", &here, &json!([{ "runs": [held(-3600, &got_to(&here)), held(40, &got_to(&here))] }]), "", fails);
    let wavered = json!({ "runs": [held(1, &got_to(&here)), ["violated", 2, []], held(40, &got_to(&here))] });
    p.case("wavering", &here, &json!([good(), wavered]), "", fails);
    p.case("held-only-since", &here, &json!([good(), { "runs": [held(1, &got_to(&here))] }]), "", fails);
    p.case("no-records", &here, &json!([{ "runs": [] }]), "", fails);
    p.case("schema", &here, &with(good(), "schema", json!(2)), "", fails);
    p.case("another-check", &here, &with(good(), "name", json!("elsewhere")), "", fails);
    p.case("unknown", &here, &json!([{ "status": 404, "raw": "no such check" }]), "", fails);
    p.case("not-json", &here, &json!([{ "raw": "<html>hello</html>" }]), "", fails);
    p.case("huge", &here, &json!([{ "raw": "[[[[[[[[", "times": 1_000_000 }]), "", fails);
    p.case("moved", &here, &json!([{ "status": 302, "raw": "" }]), "", fails);
    p.case("not-authorised", &here, &with(good(), "auth", json!("dTpw")), "", fails);

    // It holds there, so it stands for the vantage; but what was reached is not what is blocked here.
    for (name, address) in [("address", SECOND_ADMIN4), ("six", "[fd00:113::7]")] {
        p.case(
            &format!("other-{name}"),
            &here,
            &json!([{ "runs": [held(1, &got_to(&format!("{address}:443"))), held(40, &json!([]))] }]),
            "",
            silent,
        );
    }
    p.case("other-port", &here, &json!([{ "runs": [held(1, &got_to(&format!("{ADMIN4}:22"))), held(40, &json!([]))] }]), "", silent);
    p.case(
        "inverted-there",
        &here,
        &json!([{ "runs": [held(1, &json!([["holds", "timeout", here]])), held(40, &json!([]))] }]),
        "",
        silent,
    );
    p.case(
        "by-name",
        "admin4.lab.test:443",
        &json!([{ "runs": [held(1, &got_to("admin4.lab.test:443")), held(40, &json!([]))] }]),
        "",
        proves,
    );

    let once = json!([{ "runs": [held(1, &got_to(&here)), held(40, &json!([]))] }]);
    let second = json!([{ "runs": [held(1, &got_to(&format!("{SECOND_ADMIN4}:443"))), held(40, &json!([]))] }]);
    p.case("one-of-two-addresses", "two.lab.test:443", &once, "", silent);
    p.peer("first", &once, "", "http", &json!(null));
    p.peer("second", &second, "", "http", &json!(null));
    p.peer("broken", &other("unproven"), "", "http", &json!(null));
    let both = "[\"vantage\", \"target\"]";
    p.asks("both-addresses", "two.lab.test:443", &["internet", "first", "second"], both, proves);
    p.asks("one-peer-of-two-fails", &here, &["internet", "first", "broken"], both, fails);
    p.asks("alone", &here, &["first"], "[\"vantage\"]", proves);
    p.asks("alone-and-broken", &here, &["broken"], "[\"vantage\"]", fails);

    let named = format!("ca_file = {:?}\nserver_name = \"admin.lab.test\"", dir.join("ca.pem"));
    let wrong = format!("ca_file = {:?}\nserver_name = \"office.lab.test\"", dir.join("ca.pem"));
    let pem = |file: &str| json!(dir.join(file));
    p.peer("tls", &once, &named, "https", &pem("valid.pem"));
    p.peer("tls-untrusted", &once, &named, "https", &pem("untrusted.pem"));
    p.peer("tls-misnamed", &once, &wrong, "https", &pem("valid.pem"));
    p.asks("by-tls", &here, &["internet", "tls"], both, proves);
    p.asks("by-untrusted-tls", &here, &["internet", "tls-untrusted"], both, fails);
    p.asks("by-misnamed-tls", &here, &["internet", "tls-misnamed"], both, fails);

    let password = crate::run::write_config(&lab, "password", "pässword\n");
    let user = format!("user = \"monitor\"\npassword_file = {password:?}");
    p.case("authorised", &here, &with(good(), "auth", json!("bW9uaXRvcjpww6Rzc3dvcmQ=")), &user, proves);
    p.case("wrongly-authorised", &here, &with(good(), "auth", json!("bW9uaXRvcjpwYXNzd29yZA==")), &user, fails);

    let (body, expected) = (p.body, p.expected);
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    let mut wrong = Vec::new();
    for (name, verdict, cause) in &expected {
        let found = run.check(name);
        if (found["verdict"].as_str(), found["cause"].as_str()) != (Some(*verdict), Some(*cause)) {
            wrong.push(format!("{name} must be {verdict} {cause}: {found:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let told = run.check("peer-not-authorised")["observations"].to_string();
    assert!(told.contains("password_file"), "{told}");
}

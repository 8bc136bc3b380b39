//! Who answers in between: for one port, for everybody with a 403, before a proxy; and decoys that cannot unmask him.

use serde_json::json;

use crate::run::{blocked, check, config, gate, internet};
use crate::world::{Host, Lab, SECOND4, STRANGER4};

#[test]
fn who_answers_for_one_port_spoils_that_port_alone() {
    let Some(lab) = Lab::new() else { return };
    lab.interceptor();
    lab.lure(&["tcp dport 80 redirect to :9999"]);
    let body = internet()
        + &blocked("answered", "admin4.lab.test:80", &["internet"], &["vantage"])
        + &blocked("silent", "admin4.lab.test:443", &["internet"], &["vantage", "port"]);
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("internet", "holds", "as-expected", "connected");
    run.expect("answered", "unproven", "intercepted", "local-error");
    run.expect("silent", "holds", "as-expected", "timeout");
    run.expect_code(3);
}

/// A captive portal that forbids: its 403 is nobody's whom we asked, although every witness is verified by TLS.
#[test]
fn a_403_for_everybody_is_no_denial() {
    let Some(lab) = Lab::new() else { return };
    let ca = format!("ca_file = {:?}", lab.dir().join("ca.pem"));
    for (port, pem) in [(9997, json!(null)), (9998, json!(lab.dir().join("untrusted.pem")))] {
        lab.hub(Host::Core).ask(
            &json!({ "do": "listen", "name": format!("portal{port}"), "host": "0.0.0.0", "port": port, "mode": "http", "page": 403, "pem": pem }),
        );
    }
    lab.lure(&["tcp dport { 80, 3128 } redirect to :9997", "ip daddr { 203.0.113.7, 192.0.2.1 } tcp dport 443 redirect to :9998"]);
    let with = |rest: &str| format!("{rest}\nwitness = [\"verified\"]\n{ca}");
    let plain = |rest: &str| format!("{rest}\nwitness = [\"verified\"]");
    let body = check("verified", "tls", "witness.lab.test:443", &format!("expect = \"open\"\n{ca}"))
        + &check("plain", "http", "http://admin4.lab.test/", &plain("expect = [\"status:403\"]"))
        + &check("blocked", "http", "http://admin4.lab.test/", &plain("expect = \"blocked\""))
        + &check("untrusted", "http", "https://admin4.lab.test/", &with("expect = [\"status:403\"]"))
        + &check("via", "http", "http://admin4.lab.test/", &plain("expect = [\"denied\"]\nvia = \"http://proxy.lab.test:3128\""));
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("verified", "holds", "as-expected", "tls-established");
    for name in ["plain", "blocked", "untrusted", "via"] {
        run.expect(name, "unproven", "intercepted", "local-error");
    }
    run.expect_code(3);
}

/// A decoy that is this host's own address is never intercepted, so that it is silent proves nothing.
#[test]
fn a_decoy_of_our_own_speaks_for_nobody() {
    let Some(lab) = Lab::new() else { return };
    lab.interceptor();
    lab.lure(&["tcp dport 443 redirect to :9999"]);
    let body = internet() + &blocked("silent", "admin4.lab.test:8080", &["internet"], &["vantage"]);
    for decoy in [STRANGER4, SECOND4] {
        let text = format!("decoy = [\"{decoy}\", \"fd00:66::67\"]\n{}", config("stranger", &body));
        let run = gate(&lab, Host::Stranger, &text);
        run.expect("silent", "unproven", "witness-failed", "timeout");
        let why = run.check("silent")["witnesses"].to_string();
        assert!(why.contains("decoy"), "it says where to look: {why}");
    }
}

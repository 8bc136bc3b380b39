//! Addresses that DNS takes away while they are open: they stay looked at for `linger`, over every kind of end of the monitor.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::run::{Monitor, check, observed};
use crate::world::{ADMIN4, Denial, Host, Lab, SECOND_ADMIN4, STRANGER4, WITNESS4};

/// A name server of the test's own, whose one name has these addresses.
fn name_has(lab: &Lab, addresses: &[&str], verb: &str) {
    lab.hub(Host::Beacon).ask(&json!({
        "do": verb, "name": "moving", "mode": "dns", "host": WITNESS4, "port": 5400, "rules": {}, "zone": { "moving.lab.test": { "A": addresses } }
    }));
}

fn config(lab: &Lab, linger: &str) -> String {
    let kept = lab.dir().join("kept");
    let closed = format!("expect = [\"refused\"]\nwitness = [\"witness\"]\nresolver = \"{WITNESS4}:5400\"");
    format!(
        "vantage = \"stranger\"\nlinger = \"{linger}\"\nstate_dir = {kept:?}\n[web]\nlisten = \"{STRANGER4}:9890\"\n\
         [defaults]\ninterval = \"1s\"\ntimeout = \"1s\"\nattempts = 1\n{}{}",
        check("witness", "tcp", &format!("{WITNESS4}:22"), "expect = \"open\""),
        check("closed", "tcp", "moving.lab.test:443", &closed)
    )
}

/// The state of the check once it is so.
fn when(lab: &Lab, monitor: &Monitor, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    monitor.wait_for(lab, "closed", what, is)
}

fn looks_at(check: &Value, address: &str) -> bool {
    observed(check).iter().any(|o| o["address"] == format!("{address}:443"))
}

fn killed(mut monitor: Monitor) {
    monitor.process().signal(Signal::SIGKILL);
}

#[test]
fn an_open_address_that_dns_takes_away_is_looked_at_until_it_is_closed() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["ip daddr 203.0.113.7 accept"], Denial::Reset);
    name_has(&lab, &[ADMIN4, SECOND_ADMIN4], "listen");
    let text = config(&lab, "1h");
    let monitor = Monitor::start(&lab, Host::Stranger, STRANGER4, &text);
    let first = when(&lab, &monitor, "violated", |c| c["cause"] == "open")["exposure"]["first_open"].clone();
    name_has(&lab, &[SECOND_ADMIN4], "turn");
    // Long after the answer has expired, and after each kind of end.
    let later = |c: &Value, than: &Value| c["exposure"]["last_open"].as_str() > than["exposure"]["last_open"].as_str();
    let mut last = when(&lab, &monitor, "violated without DNS", |c| looks_at(c, SECOND_ADMIN4) && later(c, &json!({})));
    last = when(&lab, &monitor, "violated on", |c| later(c, &last));
    assert_eq!(monitor.terminate(&lab), Some(0));
    let monitor = Monitor::start(&lab, Host::Stranger, STRANGER4, &text);
    last = when(&lab, &monitor, "violated after a restart", |c| c["cause"] == "open" && later(c, &last));
    killed(monitor);
    let monitor = Monitor::start(&lab, Host::Stranger, STRANGER4, &text);
    last = when(&lab, &monitor, "violated after a crash", |c| c["cause"] == "open" && later(c, &last));
    assert_eq!(last["exposure"]["first_open"], first, "{last:#}");
    assert_eq!(last["exposure"]["last_closed"], Value::Null, "{last:#}");

    lab.acl(Denial::Reset);
    let held = when(&lab, &monitor, "holding", |c| c["verdict"] == "holds");
    assert!(looks_at(&held, ADMIN4) && looks_at(&held, SECOND_ADMIN4), "it was seen closed: {held:#}");
    let exposure = &held["exposure"];
    assert_eq!(exposure["first_open"], first, "{held:#}");
    assert!(exposure["last_closed"].as_str() > exposure["last_open"].as_str(), "{held:#}");
    when(&lab, &monitor, "without what was seen closed", |c| c["verdict"] == "holds" && !looks_at(c, ADMIN4));
    assert_eq!(monitor.terminate(&lab), Some(0));
}

#[test]
fn a_crash_does_not_make_an_address_older_than_it_is() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["ip daddr 203.0.113.7 accept"], Denial::Reset);
    name_has(&lab, &[ADMIN4, SECOND_ADMIN4], "listen");
    let text = config(&lab, "12s");
    let monitor = Monitor::start(&lab, Host::Stranger, STRANGER4, &text);
    let seconds = |c: &Value| {
        let time = c["exposure"]["last_open"].as_str().unwrap_or("00:00:00.0000Z");
        let of_day: Vec<f64> = time.rsplit('T').next().unwrap().trim_end_matches('Z').split(':').map(|n| n.parse().unwrap()).collect();
        of_day[0] * 3600.0 + of_day[1] * 60.0 + of_day[2]
    };
    let first = seconds(&when(&lab, &monitor, "violated", |c| c["cause"] == "open"));
    // DNS gives it all the while, for longer than it would linger.
    let last = when(&lab, &monitor, "violated for long", |c| (seconds(c) - first).rem_euclid(86400.0) > 13.0);
    killed(monitor);
    name_has(&lab, &[SECOND_ADMIN4], "turn");
    let monitor = Monitor::start(&lab, Host::Stranger, STRANGER4, &text);
    let back = when(&lab, &monitor, "back", |c| c["observations"].as_array().is_some_and(|o| !o.is_empty()));
    assert_eq!((&back["verdict"], &back["cause"]), (&json!("violated"), &json!("open")), "it is open, and DNS gave it just now: {back:#}");
    assert!(back["exposure"]["last_open"].as_str() > last["exposure"]["last_open"].as_str(), "{back:#}");
    // And then its time is over.
    when(&lab, &monitor, "without it", |c| c["verdict"] == "holds" && !looks_at(c, ADMIN4));
    assert_eq!(monitor.terminate(&lab), Some(0));
}

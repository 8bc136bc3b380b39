//! Over time, in `run`: fresh or nothing, latched, changed denials, and an end when told.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::run::{Monitor, SOON, blocked, check, internet, series};
use crate::service::until;
use crate::world::{ADMIN4, Denial, Host, Lab, WITNESS4};

const HERE: &str = "127.0.0.1";

/// A monitor at the stranger's that runs its checks often.
fn stranger(lab: &Lab, defaults: &str, body: &str) -> Monitor {
    let text = format!("vantage = \"stranger\"\n[defaults]\n{defaults}\n[web]\nlisten = \"{HERE}:9890\"\n{body}");
    Monitor::start(lab, Host::Stranger, HERE, &text)
}

const QUICK: &str = "interval = \"2s\"\ntimeout = \"1s\"\nattempts = 1";

fn witness() -> String {
    check("witness", "tcp", &format!("{WITNESS4}:22"), "expect = \"open\"")
}

fn refused(name: &str, port: u16) -> String {
    check(name, "tcp", &format!("{ADMIN4}:{port}"), "expect = [\"refused\"]\nwitness = [\"witness\"]")
}

#[test]
fn a_violation_stays_until_a_run_holds() {
    let Some(lab) = Lab::new() else { return };
    lab.acl(Denial::Reset);
    let monitor = stranger(&lab, QUICK, &(witness() + &refused("closed", 443)));
    monitor.wait_for(&lab, "closed", "holding", |c| c["verdict"] == "holds" && c["cause"] == "as-expected");

    lab.acl_open();
    let open = monitor.wait_for(&lab, "closed", "violated", |c| c["verdict"] == "violated" && c["cause"] == "open");
    assert!(open["exposure"]["first_open"].is_string() && open["exposure"]["last_closed"].is_string(), "{open:#}");

    lab.close(Host::Beacon, "witness4:22");
    lab.acl(Denial::Reset);
    let latched = monitor.wait_for(&lab, "closed", "latched", |c| c["cause"] == "latched");
    assert_eq!(latched["verdict"], "violated", "{latched:#}");
    let metrics = monitor.metrics(&lab);
    let violated =
        series(&metrics, "mustnot_check_verdict").into_iter().find(|s| s.label("check") == "closed" && s.label("verdict") == "violated");
    assert!(violated.is_some_and(|s| s.value == 1.0), "{metrics}");

    lab.listen(Host::Beacon, "witness4:22", WITNESS4, 22, "hold");
    monitor.wait_for(&lab, "closed", "holding again", |c| c["verdict"] == "holds");
    assert_eq!(monitor.terminate(&lab), Some(0), "SIGTERM ends a run with 0");
}

#[test]
fn a_denial_that_changes_is_counted() {
    let Some(lab) = Lab::new() else { return };
    let body = internet() + &blocked("closed", "admin4.lab.test:443", &["internet"], &["vantage"]);
    let monitor = stranger(&lab, "interval = \"4s\"\ntimeout = \"3s\"\nattempts = 1", &body);
    let changed = || {
        let all = series(&monitor.metrics(&lab), "mustnot_denial_changed_total");
        all.into_iter().filter(|s| s.label("check") == "closed").map(|s| s.value).sum::<f64>()
    };
    let outcome_is = |c: &serde_json::Value, outcome: &str| c["verdict"] == "holds" && c["observations"][0]["outcome"] == outcome;
    monitor.wait_for(&lab, "closed", "silent", |c| outcome_is(c, "timeout"));
    assert_eq!(changed(), 0.0);
    lab.acl(Denial::Reset);
    monitor.wait_for(&lab, "closed", "refused", |c| outcome_is(c, "refused"));
    assert_eq!(until(SOON, || (changed() >= 1.0).then_some(changed())), Some(1.0));
    lab.acl(Denial::IcmpX("admin-prohibited"));
    monitor.wait_for(&lab, "closed", "prohibited", |c| outcome_is(c, "prohibited"));
    assert_eq!(until(SOON, || (changed() >= 2.0).then_some(changed())), Some(2.0));
    assert_eq!(monitor.terminate(&lab), Some(0));
}

#[test]
fn a_wedged_monitor_leaves_no_green_behind() {
    let Some(lab) = Lab::new() else { return };
    lab.acl(Denial::Reset);
    let checks: String = (0..200).map(|n| refused(&format!("closed-{n}"), 3000 + n)).collect();
    let mut monitor = stranger(&lab, "interval = \"3s\"\ntimeout = \"1s\"\nattempts = 1", &(witness() + &checks));
    let green =
        |metrics: &str| series(metrics, "mustnot_check_verdict").iter().filter(|s| s.label("verdict") == "holds" && s.value == 1.0).count();
    let ready = until(SOON, || (green(&monitor.metrics(&lab)) == 201).then_some(()));
    assert!(ready.is_some(), "not all of 200 checks hold: {} do", green(&monitor.metrics(&lab)));
    let metrics = monitor.metrics(&lab);
    promtool(&metrics);
    let limits: Vec<(String, f64)> =
        series(&metrics, "mustnot_check_stale_after_seconds").into_iter().map(|s| (s.label("check").to_owned(), s.value)).collect();
    assert_eq!(limits.len(), 201);
    let longest = limits.iter().map(|l| l.1).fold(0.0, f64::max);
    assert!(longest < 60.0, "the plan of this test was meant to be short, not {longest} s");

    monitor.process().signal(Signal::SIGSTOP);
    let until_stale = Instant::now() + Duration::from_secs_f64(longest + 1.0);
    let hub = lab.hub(Host::Stranger);
    // The question waits in the backlog: it is answered by the very first thing that the woken monitor does.
    hub.ask(&json!({ "do": "ask_ahead", "name": "scrape", "host": HERE, "port": 9890, "path": "/metrics" }));
    let asleep = until(Duration::from_secs(120), || (Instant::now() >= until_stale).then_some(()));
    assert!(asleep.is_some());
    monitor.process().signal(Signal::SIGCONT);
    let answer = hub.ask(&json!({ "do": "read_answer", "name": "scrape" }));
    assert_eq!(answer["status"], 200);
    let metrics = answer["body"].as_str().unwrap();
    let at = answer["at"].as_f64().unwrap();

    let ran = series(metrics, "mustnot_check_last_run_timestamp_seconds");
    let mut seen = 0;
    for held in series(metrics, "mustnot_check_verdict").iter().filter(|s| s.label("verdict") == "holds") {
        let name = held.label("check");
        let limit = limits.iter().find(|l| l.0 == name).unwrap().1;
        let last = ran.iter().find(|s| s.label("check") == name).unwrap().value;
        assert!(held.value == 0.0 || at - last <= limit, "{name} is green, {} s after its last run, stale after {limit} s", at - last);
        seen += 1;
    }
    assert_eq!(seen, 201);
    eprintln!("stale after {longest} s; green right after waking: {}", green(metrics));

    let back = until(SOON, || (green(&monitor.metrics(&lab)) == 201).then_some(()));
    assert!(back.is_some(), "it recovers by itself: {} hold", green(&monitor.metrics(&lab)));
    assert_eq!(monitor.terminate(&lab), Some(0));
}

/// `promtool check metrics` has nothing to say.
fn promtool(metrics: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.trim().is_empty(), "promtool: {said}");
}

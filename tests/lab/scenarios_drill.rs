//! Drills: a detector that sees passes, one that is made blind is found out, and where there is nothing to see with, that is said.

use std::process::Output;

use crate::run::{BINARY, Monitor, SOON, check, series};
use crate::service::until;
use crate::world::{Host, Lab, STRANGER4};

/// What makes every twin look closed, and leaves the witnesses alone.
const BLINDFOLD: &str = "table inet drill { chain input { type filter hook input priority 0; iif lo ip daddr 127.0.0.1 tcp flags & (syn|ack) == syn reject with tcp reset; }; }";

fn drill(lab: &Lab, kinds: &[&str]) -> (Option<i32>, String) {
    let flags: Vec<&str> = kinds.iter().flat_map(|kind| ["--kind", kind]).collect();
    let Output { status, stdout, stderr } = lab.inside(Host::Stranger, &[&[BINARY, "drill"], &flags[..]].concat()).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

#[test]
fn a_blind_detector_fails_its_drill() {
    let Some(lab) = Lab::new() else { return };
    let kinds = ["tcp", "tls", "http", "open-proxy"];
    let (code, said) = drill(&lab, &kinds);
    assert_eq!((code, said.matches("saw  ").count()), (Some(0), kinds.len()), "{said}");

    lab.nft(Host::Stranger, BLINDFOLD);
    let (code, said) = drill(&lab, &kinds);
    assert_eq!(code, Some(1), "{said}");
    for kind in &kinds[..3] {
        let line = said.lines().find(|line| line.starts_with(&format!("BLIND        {kind}:"))).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains("the open twin must be violated, and was holds"), "{line}");
    }
    lab.nft(Host::Stranger, "delete table inet drill");
    assert_eq!(drill(&lab, &["tcp"]).0, Some(0));

    lab.ip(Host::Stranger, "link set lo down");
    let (code, said) = drill(&lab, &["tcp"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("not drilled  tcp"), "{said}");
}

#[test]
fn a_monitor_drills_on_an_interval() {
    let Some(lab) = Lab::new() else { return };
    let text = |lines: &str| format!("vantage = \"stranger\"\n[web]\nlisten = \"{STRANGER4}:9890\"\n[drill]\ninterval = \"1m\"\n{lines}");
    let monitor = Monitor::start(&lab, Host::Stranger, STRANGER4, &text(&check("own", "tcp", "127.0.0.1:9", "expect = \"open\"")));
    let metric = |name: &str| {
        let metrics = monitor.metrics(&lab);
        let found = series(&metrics, name);
        assert!(found.iter().all(|one| one.label("kind") == "tcp"), "only kinds in use: {metrics}");
        found.first().map(|one| one.value)
    };
    let success = until(SOON, || metric("mustnot_drill_last_success_timestamp_seconds"));
    assert!(success.is_some());
    let detection = metric("mustnot_drill_detection_seconds").unwrap();
    assert!(detection > 0.0 && detection < 30.0, "{detection}");
    assert_eq!(metric("mustnot_drill_last_successful"), Some(1.0));
    assert_eq!(metric("mustnot_drill_interval_seconds"), Some(60.0));
}

//! The zoo: every product, open and closed, judged by the real binary against the known truth.

use std::time::Duration;

use crate::run::{Monitor, SOON, peak_kib, series};
use crate::service::until;
use crate::world::{Host, Lab, STRANGER4};
use crate::zoo::{
    APACHES, BOASTERS, Entry, HAPROXIES, HARM, Hall, NGINXES, NO_PROXIES, OTHERS, RECORDER, SOCKS, SQUIDS, TINYPROXIES, Truth,
};

fn visit(halls: &[&[Entry]]) {
    let Some(lab) = Lab::new() else { return };
    let hall = Hall::open(&lab, halls);
    let mut wrong = hall.by_hand();
    wrong.extend(hall.judge("", |_| true).wrong);
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn zoo_of_squid() {
    visit(&[SQUIDS]);
}

#[test]
fn zoo_of_tinyproxy_and_apache() {
    visit(&[TINYPROXIES, APACHES]);
}

#[test]
fn zoo_of_nginx_and_haproxy() {
    visit(&[NGINXES, HAPROXIES]);
}

#[test]
fn zoo_of_other_http_proxies() {
    visit(&[OTHERS]);
}

#[test]
fn zoo_of_socks() {
    visit(&[SOCKS]);
}

#[test]
fn zoo_of_what_is_no_proxy_or_out_of_reach() {
    visit(&[NO_PROXIES]);
}

#[test]
fn zoo_of_peers_that_say_yes_to_socks() {
    visit(&[BOASTERS]);
}

/// The most memory that the monitor may need for it that everybody pours at once, in KiB; besides what it takes for one honest proxy, most of
/// which are the pages of the program itself, and a debug build has many.
const MOST_KIB: u64 = 48 * 1024;
/// One technique of each protocol: what is harmful is in the answers, which are read by the same code for all others.
const HARM_SUITE: &str =
    "attempts = 1\ntechniques = [\"OP-01\", \"OP-02\", \"OP-09\", \"OP-15\", \"OP-16\", \"OP-17\", \"OP-18\", \"OP-20\"]";
/// The longest that it may take over peers that never end.
const LONGEST: Duration = Duration::from_secs(60);

/// Who lies, pours, waits and replays: none of them looks like what it is not, and none costs more than its bound.
#[test]
fn zoo_of_peers_that_mean_harm() {
    let Some(lab) = Lab::new() else { return };
    let hall = Hall::open(&lab, &[RECORDER, HARM]);
    let record = hall.judge(HARM_SUITE, |entry| entry.name == RECORDER[0].name);
    let all = hall.judge(HARM_SUITE, |_| true);
    eprintln!("one honest proxy: {} KiB; all harm at once: {:?}, at most {} KiB", record.peak_kib, all.took, all.peak_kib);
    let wrong = [record.wrong, all.wrong].concat();
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(all.took < LONGEST, "{:?}", all.took);
    assert!(record.peak_kib > 0 && all.peak_kib < record.peak_kib + MOST_KIB, "{} KiB, then {} KiB", record.peak_kib, all.peak_kib);
}

/// The same for a monitor that stays: after some rounds it has no more memory than after the first.
#[test]
fn a_monitor_among_peers_that_mean_harm_does_not_grow() {
    let Some(lab) = Lab::new() else { return };
    let hall = Hall::open(&lab, &[RECORDER, HARM]);
    let text = hall
        .config(&format!("[web]\nlisten = \"{STRANGER4}:9890\"\n"), "techniques = [\"OP-01\", \"OP-02\"]", |_| true)
        .replacen("\"30s\"", "\"5s\"", 1);
    let mut monitor = Monitor::start(&lab, Host::Stranger, STRANGER4, &text);
    let peak = |monitor: &mut Monitor| peak_kib(monitor.process().id()).unwrap();
    let runs = |monitor: &Monitor| {
        let metrics = monitor.metrics(&lab);
        series(&metrics, "mustnot_check_runs_total").iter().filter(|s| s.label("check") == "endless-body").map(|s| s.value).sum::<f64>()
    };
    let first = peak(&mut monitor);
    let enough = until(SOON, || (runs(&monitor) >= 3.0).then_some(()));
    assert!(enough.is_some(), "only {} rounds", runs(&monitor));
    let last = peak(&mut monitor);
    eprintln!("peak after the first round {first} KiB, after three {last} KiB");
    assert!(last < 2 * MOST_KIB && last < first + first / 4, "{first} KiB, then {last} KiB");
    assert_eq!(monitor.terminate(&lab), Some(0));
}

#[test]
fn the_zoo_is_large_and_balanced() {
    let all: Vec<&Entry> =
        [SQUIDS, TINYPROXIES, APACHES, NGINXES, HAPROXIES, OTHERS, RECORDER, SOCKS, NO_PROXIES].into_iter().flatten().collect();
    let open = all.iter().filter(|e| matches!(e.truth, Truth::Open(_))).count();
    let closed = all.iter().filter(|e| matches!(e.truth, Truth::Closed)).count();
    eprintln!("{} configurations, {open} open, {closed} closed", all.len());
    assert!(all.len() >= 40 && open >= 22 && closed >= 18, "{} configurations, {open} open, {closed} closed", all.len());
    let mut names: Vec<&str> = all.iter().map(|e| e.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len(), "each has a name of its own");
}

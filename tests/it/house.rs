//! The house: who may know whom. Reads the sources, and keeps the arrows and the invariants that `src/lib.rs` prints.

use std::fs;
use std::path::Path;

/// Rooms of `src/`, and the rooms that they never know.
const ARROWS: [(&[&str], &[&str]); 6] = [
    (&["config"], &["plan", "engine", "verdict", "memory", "reason", "record", "history", "metrics", "report", "web", "drill", "command"]),
    (
        &["probe", "net"],
        &[
            "config",
            "plan",
            "engine",
            "expectation",
            "verdict",
            "witness",
            "memory",
            "reason",
            "record",
            "history",
            "metrics",
            "report",
            "web",
            "proxy",
            "drill",
            "command",
        ],
    ),
    (
        &["proxy", "squid"],
        &[
            "plan",
            "engine",
            "probe",
            "expectation",
            "verdict",
            "witness",
            "record",
            "history",
            "metrics",
            "report",
            "web",
            "drill",
            "command",
        ],
    ),
    (&["alert"], &["config", "plan", "engine", "probe", "net", "proxy", "report", "web", "notify", "drill", "command"]),
    (&["notify"], &["plan", "engine", "probe", "proxy", "report", "web", "drill", "command"]),
    (&["history", "metrics", "report", "web"], &["config", "plan", "engine", "probe", "net", "proxy", "drill", "command"]),
];
/// What is true whatever the time and the runtime.
const NOUNS: [&str; 11] =
    ["alert", "exception", "target", "observation", "expectation", "witness", "verdict", "memory", "record", "plan", "schedule"];
const CLOCKS: [&str; 5] = ["tokio", "Moment::now", "Wall::now", "Instant::now", "SystemTime"];
/// The keyword, and the lint that would have to be lifted for it.
const UNSAFE: [&str; 6] = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern", "unsafe_code"];

/// What is wrong with one line of code of the file at `path` (inside `src/`).
fn breach(path: &str, line: &str) -> Option<String> {
    let room = path.split(['/', '.']).next().unwrap_or_default();
    if line.contains("use crate::{") {
        return Some("one `use` line a room: what is grouped cannot be read here".into());
    }
    for known in line.split("crate::").skip(1).filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()) {
        if ARROWS.iter().any(|(rooms, never)| rooms.contains(&room) && never.contains(&known)) {
            return Some(format!("{room} must not know {known}"));
        }
    }
    if let Some(clock) = CLOCKS.iter().find(|clock| NOUNS.contains(&room) && line.contains(**clock)) {
        return Some(format!("{room} must not know {clock}"));
    }
    if line.contains("Held {") && path != "verdict.rs" {
        return Some("only verdict.rs makes a `holds`".into());
    }
    if line.contains("Proven {") && path != "witness.rs" {
        return Some("only witness.rs makes a proof".into());
    }
    let lifted = UNSAFE.iter().any(|word| line.contains(word)) && path != "net/sys.rs";
    lifted.then(|| "unsafe stands in net/sys.rs alone".into())
}

/// Every source file with its path inside `src/`.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            let path = entry.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().display().to_string();
            found.push((path, fs::read_to_string(&entry).unwrap()));
        }
    }
}

#[test]
fn every_room_keeps_its_door() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let rooms = ARROWS.iter().flat_map(|(rooms, never)| rooms.iter().chain(*never)).chain(&NOUNS);
    for room in rooms {
        assert!(files.iter().any(|(path, _)| *path == format!("{room}.rs")), "{room} moved; let the rules follow it");
    }
    let mut wrong = Vec::new();
    for (path, text) in &files {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            wrong.extend(breach(path, line).map(|why| format!("src/{path}:{}: {why}", number + 1)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_rule_can_fail() {
    let bad = [
        ("config/written.rs", "use crate::plan::Check;"),
        ("probe/tcp.rs", "use crate::verdict::Verdict;"),
        ("squid/lint.rs", "use crate::probe::Kind;"),
        ("net.rs", "use crate::proxy;"),
        ("proxy/dial.rs", "    crate::probe::USER_AGENT"),
        ("metrics.rs", "use crate::net::resolve::Resolver;"),
        ("web/page.rs", "use crate::plan::Plan;"),
        ("report.rs", "use crate::{clock, engine};"),
        ("report.rs", "use crate::drill::kinds_of;"),
        ("plan/build.rs", "    let now = Moment::now();"),
        ("alert/ledger.rs", "    let now = Moment::now();"),
        ("alert/outbox.rs", "use tokio::sync::Notify;"),
        ("notify.rs", "use crate::plan::Plan;"),
        ("verdict.rs", "use tokio::time::Instant;"),
        ("engine.rs", "    Verdict::Holds(Held { _private: () })"),
        ("engine.rs", "fn held() -> Held { Held { _private: () } }"),
        ("engine.rs", "    Ok(Proven { proofs, before, after })"),
        ("net/connect.rs", "    unsafe { libc::close(3) };"),
        ("lib.rs", "#![allow(unsafe_code)]"),
    ];
    for (path, line) in bad {
        assert!(breach(path, line).is_some(), "{path}: {line}");
    }
    let good = [
        ("probe/tcp.rs", "use crate::observation::Outcome;"),
        ("proxy/policy.rs", "use crate::net::resolve::Resolver;"),
        ("plan.rs", "use crate::proxy;"),
        ("engine.rs", "    let now = Moment::now();"),
        ("verdict.rs", "    Verdict::Holds(Held { _private: () })"),
        ("web.rs", "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    for (path, line) in good {
        assert_eq!(breach(path, line), None, "{path}: {line}");
    }
}

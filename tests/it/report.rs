//! Reports: their shape, what they say, and where they are written.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use mustnot::report::{Conclusion, Drilled, Finding, Format, Report, Style, write_report};
use serde_json::{Value, json};

use crate::fixture::{held, record, unproven, violated, wall};

fn report(records: Vec<mustnot::record::Record>) -> Report {
    Report {
        vantage: "internet".into(),
        started_at: wall(0),
        duration: Duration::from_millis(5123),
        as_of: wall(5),
        records,
        drills: Vec::new(),
    }
}

fn drilled(kind: &'static str, finding: Finding) -> Drilled {
    let saw = finding == Finding::Saw;
    let why = if saw { Vec::new() } else { vec!["the open twin must be violated, and was holds: <&>\u{1b}[2J".to_string()] };
    Drilled { kind, finding, why, detection: saw.then_some(Duration::from_millis(1250)) }
}

/// One of each.
fn drills() -> Vec<Drilled> {
    vec![drilled("tcp", Finding::Saw), drilled("icmp", Finding::NotDrilled), drilled("tls", Finding::Blind)]
}

fn allowing(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

#[test]
fn json_has_every_key_of_the_specification() {
    let text = Format::Json.render(&report(vec![violated("admin-closed"), held("other")]), &Style::default());
    let mut written: Value = serde_json::from_str(&text).unwrap();
    let second = written["checks"].as_array_mut().unwrap().pop().unwrap();
    assert_eq!(second["verdict"], "holds");
    assert_eq!(second["cause"], "as-expected");
    // SPEC section 6, with the times of the fixture, and with what this version adds: `cause` of an observation, `reproduce`.
    let specified = json!({
        "schema": 1, "version": env!("CARGO_PKG_VERSION"), "vantage": "internet",
        "started_at": "2026-01-02T03:04:05.678Z", "duration_ms": 5123,
        "summary": { "holds": 1, "violated": 1, "unproven": 0 },
        "checks": [ {
            "name": "admin-closed", "kind": "tcp", "target": "admin.example.com:443", "expect": "blocked",
            "severity": "critical", "verdict": "violated", "cause": "open",
            "reason": "203.0.113.7:443 accepted a TCP connection after 12 ms",
            "reproduce": "nc -vz 203.0.113.7 443",
            "proofs": ["vantage", "target"], "not_covered": [],
            "started_at": "2026-01-02T03:04:05.678Z", "duration_ms": 7004,
            "exposure": { "first_open": "2026-01-02T03:03:05.678Z", "last_open": "2026-01-02T03:04:05.678Z", "last_closed": "2026-01-02T03:02:35.678Z" },
            "observations": [ {
                "address": "203.0.113.7:443", "verdict": "violated", "cause": "open", "outcome": "connected", "stage": "tcp",
                "elapsed_ms": 12.3, "attempts": 1, "proofs": ["vantage", "target"],
                "evidence": { "local_address": "10.0.0.5:41234", "syn_retransmits": 0 } } ],
            "witnesses": [ { "name": "internet", "proven": true, "before": "2026-01-02T03:04:04.678Z", "after": "2026-01-02T03:04:13.678Z" } ]
        } ]
    });
    assert_eq!(written, specified);
}

#[test]
fn the_conclusion_is_the_exit_code_of_every_mixture() {
    let none: &[&str] = &[];
    let table = [
        (vec![], none, Conclusion::NothingRan, 4),
        (vec![held("a")], none, Conclusion::Holds, 0),
        (vec![held("a"), violated("b")], none, Conclusion::Violated, 1),
        (vec![held("a"), violated("b")], &["b"], Conclusion::Violated, 1),
        (vec![unproven("a"), violated("b")], none, Conclusion::Violated, 1),
        (vec![held("a"), unproven("b")], none, Conclusion::Unproven, 3),
        (vec![held("a"), unproven("b")], &["b"], Conclusion::Holds, 0),
        (vec![held("a"), unproven("b"), unproven("c")], &["b"], Conclusion::Unproven, 3),
        (vec![unproven("b")], &["b"], Conclusion::Unproven, 3),
    ];
    for (records, allowed, conclusion, code) in table {
        let names: Vec<_> = records.iter().map(|r| format!("{} {}", r.about.name, r.verdict.token())).collect();
        let came_to = report(records).conclusion(&allowing(allowed));
        assert_eq!((came_to, came_to.exit_code()), (conclusion, code), "{names:?} allowing {allowed:?}");
    }
}

#[test]
fn a_blind_detector_fails_the_gate_and_an_undrilled_one_leaves_it_unproven() {
    use Finding::{Blind, NotDrilled, Saw};
    let table = [
        (vec![held("a")], vec![Saw, Saw], Conclusion::Holds, 0),
        (vec![held("a")], vec![Saw, NotDrilled], Conclusion::Unproven, 3),
        (vec![held("a")], vec![Blind, NotDrilled], Conclusion::Blind, 1),
        (vec![unproven("b")], vec![Blind], Conclusion::Blind, 1),
        (vec![held("a"), unproven("b")], vec![Saw], Conclusion::Holds, 0),
        (vec![held("a"), unproven("b")], vec![NotDrilled], Conclusion::Unproven, 3),
        (vec![violated("a")], vec![NotDrilled], Conclusion::Violated, 1),
        (vec![violated("a")], vec![Saw], Conclusion::Violated, 1),
        (vec![], vec![Saw], Conclusion::NothingRan, 4),
    ];
    for (records, findings, conclusion, code) in table {
        let mut report = report(records);
        report.drills = findings.iter().map(|finding| drilled("tcp", *finding)).collect();
        let came_to = report.conclusion(&allowing(&["b", "tcp", "drill of tcp"]));
        assert_eq!((came_to, came_to.exit_code()), (conclusion, code), "{:?} {findings:?}", report.summary());
    }
}

#[test]
fn every_format_tells_the_drills_and_none_takes_a_blind_one_for_passed() {
    let mut report = report(vec![held("fine")]);
    report.drills = drills();
    let written = |format: Format| format.render(&report, &Style::default());
    let document = |format| serde_json::from_str::<Value>(&written(format)).unwrap();
    let why = "the open twin must be violated, and was holds: <&>\u{1b}[2J";
    assert_eq!(
        document(Format::Json)["drills"],
        json!([
            { "kind": "tcp", "finding": "saw", "detection_seconds": 1.25 },
            { "kind": "icmp", "finding": "not-drilled", "why": [why] },
            { "kind": "tls", "finding": "blind", "why": [why] },
        ])
    );
    let shown = "the open twin must be violated, and was holds: <&>\\u{1b}[2J";
    let text = written(Format::Text);
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let expected = [
        "drill saw          tcp: a twin that was open was seen after 1.2 s".to_string(),
        format!("drill not drilled  icmp: it could not be shown that a breach would be seen: {shown}"),
        format!("drill BLIND        tls: what this kind says of its targets cannot be believed: {shown}"),
        "0 violated, 0 unproven, 1 held, seen from internet in 5.1 s".into(),
        "exit code 1: a detector is blind: what it says of its targets cannot be believed".into(),
    ];
    assert_eq!(lines, expected);

    let xml = written(Format::Junit);
    assert!(xml.contains("<testsuites name=\"mustnot\" tests=\"4\" failures=\"1\" errors=\"1\" skipped=\"0\""), "{xml}");
    for (name, element) in
        [("tcp", "<system-out>a twin"), ("icmp", "<error message=\"it could not"), ("tls", "<failure message=\"what this")]
    {
        let case = xml.split(&format!("name=\"drill of {name}\" classname=\"mustnot.drill\"")).nth(1).unwrap();
        assert!(case.split_once('\n').unwrap().1.trim_start().starts_with(element), "{case}");
    }
    assert!(!xml.contains("<&>") && !xml.contains('\u{1b}'), "{xml}");

    let text = written(Format::Tap);
    let points: Vec<&str> = text.lines().filter(|line| line.starts_with("ok ") || line.starts_with("not ok ")).collect();
    assert!(text.contains("\n1..4\n") && points.len() == 4, "{text}");
    let heads = ["ok 1 - fine", "ok 2 - drill of tcp saw", "not ok 3 - drill of icmp not-drilled", "not ok 4 - drill of tls blind"];
    assert!(points.iter().zip(heads).all(|(point, head)| point.starts_with(head)), "{text}");

    let text = written(Format::Github);
    let heads = ["saw drill of tcp: ", "::warning title=drill of icmp not-drilled::", "::error title=drill of tls blind::", "holds fine: "];
    assert!(text.lines().zip(heads).all(|(line, head)| line.starts_with(head)) && text.lines().count() == 5, "{text}");

    let entries = document(Format::Gitlab);
    let told: Vec<Value> =
        entries.as_array().unwrap().iter().map(|e| json!([e["check_name"], e["severity"], e["location"]["path"]])).collect();
    assert_eq!(json!(told), json!([["drill of icmp", "major", "(command line)"], ["drill of tls", "blocker", "(command line)"]]));

    let run = &document(Format::Sarif)["runs"][0];
    let invocation = &run["invocations"][0];
    assert_eq!((&run["results"], &invocation["executionSuccessful"], &invocation["exitCode"]), (&json!([]), &json!(false), &json!(1)));
    let levels: Vec<&Value> = invocation["toolExecutionNotifications"].as_array().unwrap().iter().map(|n| &n["level"]).collect();
    assert_eq!(levels, ["note", "warning", "error"]);
    // Without a blind one the tool did its work.
    report.drills.pop();
    let run: Value = serde_json::from_str(&Format::Sarif.render(&report, &Style::default())).unwrap();
    assert_eq!(run["runs"][0]["invocations"][0]["executionSuccessful"], true);
}

/// The program itself: the kinds of the selected check and of its witness, and no other; and a drill that is cut short.
#[test]
fn the_gate_drills_what_it_selects_before_it_looks() {
    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "vantage = \"here\"\n\
         [[check]]\nname = \"alive\"\nkind = \"tcp\"\ntarget = \"{open}\"\nexpect = \"open\"\n\
         [[check]]\nname = \"shut\"\nkind = \"http\"\ntarget = \"http://{closed}/\"\nexpect = [\"refused\"]\n\
         attempts = 1\nwitness = [\"alive\"]\n\
         [[check]]\nname = \"pages\"\nkind = \"dns\"\ntarget = \"there.test\"\nserver = \"127.0.0.1\"\nexpect = \"open\"\n",
        open = open.local_addr().unwrap(),
    );
    fs::write(folder.path().join("probes.toml"), text).unwrap();
    let gate = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mustnot"));
        let output = command.args(["check", "--only", "shut", "--format", "json"]).args(more).current_dir(folder.path()).output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), document)
    };
    let findings = |document: &Value| -> Vec<(String, String)> {
        let word = |value: &Value| value.as_str().unwrap().to_string();
        document["drills"].as_array().unwrap().iter().map(|one| (word(&one["kind"]), word(&one["finding"]))).collect()
    };
    let told = |finding: &str| ["tcp", "http"].map(|kind| (kind.to_string(), finding.to_string()));
    let (code, document) = gate(&["--drill"]);
    assert_eq!((code, findings(&document)), (Some(0), told("saw").to_vec()), "{document:#}");
    assert_eq!(document["summary"], json!({ "holds": 1, "violated": 0, "unproven": 0 }));
    let (code, document) = gate(&["--drill", "--deadline", "1ms"]);
    assert_eq!((code, findings(&document)), (Some(3), told("not-drilled").to_vec()), "{document:#}");
    let (code, document) = gate(&[]);
    assert_eq!((code, document.get("drills")), (Some(0), None));
}

#[test]
fn text_has_the_worst_first_and_ends_with_the_exit_code() {
    let text = Format::Text.render(&report(vec![held("fine"), unproven("unsure"), violated("open-door")]), &Style::default());
    let expected = "\
VIOLATED open-door (critical)
  reason      203.0.113.7:443 accepted a TCP connection after 12 ms
  cause       open: it was let in where it must be kept out
  claim       tcp admin.example.com:443 must be blocked
  seen from   internet, 2026-01-02T03:04:05.678Z (7.0 s)
  seen        203.0.113.7:443: connected at tcp after 12.3 ms, 1 attempt; violated (open); proofs: vantage, target
                local_address=10.0.0.5:41234 syn_retransmits=0
  exposure    first seen open 2026-01-02T03:03:05.678Z, last seen open 2026-01-02T03:04:05.678Z, last seen closed 2026-01-02T03:02:35.678Z
  witness     internet: proven
  proofs      vantage, target
  reproduce   nc -vz 203.0.113.7 443

UNPROVEN unsure (critical)
  reason      203.0.113.7:443 is silent, and so is the witness
  cause       witness-failed: a witness did not get through around it, so the block may be our own outage
  claim       tcp admin.example.com:443 must be blocked
  seen from   internet, 2026-01-02T03:04:05.678Z (7.0 s)
  seen        203.0.113.7:443: timeout at tcp after 12.3 ms, 1 attempt; unproven (witness-failed); proofs: vantage, target
                local_address=10.0.0.5:41234 syn_retransmits=0
  witness     internet: NOT proven: it failed just before: one.one.one.one:443 timeout
  proofs      none

holds fine: tcp admin.example.com:443 is refused; proofs: vantage, target
1 violated, 1 unproven, 1 held, seen from internet in 5.1 s
exit code 1: at least one check is violated
";
    assert_eq!(text, expected);
}

#[test]
fn colour_only_when_asked_and_the_wire_never_steers_the_terminal() {
    let mut hostile = violated("a");
    hostile.reason = "\u{1b}]0;owned\u{7} all is well\r".into();
    let records = report(vec![hostile]);
    let plain = Format::Text.render(&records, &Style::default());
    assert!(!plain.contains('\u{1b}') && !plain.contains('\u{7}') && !plain.contains('\r'), "{plain}");
    let coloured = Format::Text.render(&records, &Style { colour: true, ..Style::default() });
    assert!(coloured.starts_with("\u{1b}[1;31mVIOLATED\u{1b}[0m a"), "{coloured}");
    assert_eq!(coloured.matches('\u{1b}').count(), 2);
}

#[test]
fn junit_is_well_formed_and_says_which_is_which() {
    let mut hostile = violated("break-out");
    hostile.reason = "</failure>]]><x a=\"b\">&\u{0}\u{1b}\u{ffff}'".into();
    let mut again = record(crate::fixture::about("twice"), crate::fixture::holds(), mustnot::observation::Outcome::Refused);
    let twin = again.clone();
    std::sync::Arc::make_mut(&mut again.about).target = "other.example.com:443".into();
    let records = vec![hostile, held("fine"), unproven("unsure"), unproven("allowed"), twin, again];
    let xml = Format::Junit.render(&report(records), &Style { allow_unproven: allowing(&["allowed"]), colour: true });

    let program = r#"
import sys, json, xml.etree.ElementTree as e
root = e.fromstring(sys.stdin.buffer.read())
print(json.dumps({"counts": root.attrib, "cases": [[c.get("name"), c.get("classname"), [k.tag for k in c], (c[0].get("message") or "")] for c in root.iter("testcase")]}))
"#;
    let python = Command::new("python3").args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut python) = python else {
        println!("SKIPPED junit_is_well_formed: python3 is not installed, so nothing parses the XML");
        return;
    };
    python.stdin.take().unwrap().write_all(xml.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "not well-formed:\n{xml}");
    let parsed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counts = json!({ "name": "mustnot", "tests": "6", "failures": "1", "errors": "1", "skipped": "1", "time": "5.123" });
    assert_eq!(parsed["counts"], counts);
    let reason = "203.0.113.7:443 is silent, and so is the witness";
    let cases = json!([
        ["break-out", "mustnot.tcp", ["failure", "system-out"], "</failure>]]><x a=\"b\">&\\u{0}\\u{1b}\\u{ffff}'"],
        ["fine", "mustnot.tcp", ["system-out"], ""],
        ["unsure", "mustnot.tcp", ["error", "system-out"], reason],
        ["allowed", "mustnot.tcp", ["skipped", "system-out"], format!("allowed to be unproven: {reason}")],
        ["twice [admin.example.com:443]", "mustnot.tcp", ["system-out"], ""],
        ["twice [other.example.com:443]", "mustnot.tcp", ["system-out"], ""],
    ]);
    assert_eq!(parsed["cases"], cases);
}

#[test]
fn a_report_replaces_the_old_one_whole_and_leaves_nothing_beside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    write_report(&path, "old, and longer than the new one").unwrap();
    write_report(&path, "new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");

    let link = directory.path().join("link.json");
    symlink(&path, &link).unwrap();
    write_report(&link, "through the link").unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&path).unwrap(), "through the link");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn a_report_that_cannot_be_written_says_where_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no/report.json");
    let told = write_report(&missing, "x").unwrap_err();
    let expected =
        format!("cannot write the report to {}: No such file or directory (os error 2); create its directory first", missing.display());
    assert_eq!(told, expected);
    let told = write_report(directory.path(), "x").unwrap_err();
    assert_eq!(told, format!("cannot write the report to {}: is a directory; name a file in it", directory.path().display()));
}

#[test]
fn a_device_is_written_to_and_not_replaced() {
    use std::os::unix::fs::FileTypeExt as _;
    write_report(std::path::Path::new("/dev/null"), "x").unwrap();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

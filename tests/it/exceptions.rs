//! Exceptions: they change what is said, in every place where something is said, and never a verdict or an exit code.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use mustnot::clock::Wall;
use mustnot::exception::Exception;
use mustnot::history::Board;
use mustnot::metrics::Metrics;
use mustnot::plan::{Keys, from_text};
use mustnot::record::{About, Record};
use mustnot::report::{Format, Report, Style};
use serde_json::{Value, json};

use crate::fixture::{about, held, unproven, violated, wall};
use crate::proxy_life::{Program, said};

/// Long past, and far away: no test waits for a date.
const OVER: &str = "2020-01-31";
const AHEAD: &str = "2999-12-31";

fn exception(until: &str) -> Arc<Exception> {
    let (reason, owner) = ("the old host moves <b>|".into(), "alice@example.com".into());
    Arc::new(Exception { check: "a".into(), target: None, reason, owner, until: until.parse().unwrap(), position: (1, 1) })
}

fn excepted(mut record: Record, until: &str) -> Record {
    Arc::make_mut(&mut record.about).exception = Some(exception(until));
    record
}

fn report(records: Vec<Record>) -> Report {
    Report {
        vantage: "internet".into(),
        started_at: wall(0),
        duration: Duration::from_secs(5),
        as_of: wall(5),
        records,
        drills: Vec::new(),
    }
}

#[test]
fn every_format_says_it_and_counts_as_before() {
    let plain = report(vec![violated("a"), unproven("b"), held("c"), violated("d")]);
    let with = report(vec![
        excepted(violated("a"), AHEAD),
        excepted(unproven("b"), AHEAD),
        excepted(held("c"), AHEAD),
        excepted(violated("d"), OVER),
    ]);
    assert_eq!((plain.excepted(), with.excepted()), (0, 2), "what holds, or is over, is not excepted");
    assert_eq!(plain.conclusion(&Default::default()), with.conclusion(&Default::default()));
    for (format, name) in Format::NAMES {
        let written = |report: &Report| format.render(report, &Style::default());
        let text = written(&with);
        let without = written(&plain).replace("\"excepted\": null", "");
        assert!(!without.contains("xcept"), "{name}: {without}");
        for word in ["alice@example.com", "the old host moves"] {
            assert!(text.matches(word).count() >= 3, "{name} does not say {word} of each: {text}");
        }
        if *format != Format::Json {
            assert!(text.contains("until the end of 2999-12-31 (UTC)"), "{name}: {text}");
            assert!(text.contains("which is over"), "{name}: {text}");
        }
    }
}

#[test]
fn no_format_makes_an_excepted_violation_look_better() {
    let with = report(vec![excepted(violated("a"), AHEAD)]);
    let render = |format: Format| format.render(&with, &Style::default());
    assert_eq!(with.conclusion(&Default::default()).exit_code(), 1);
    let text = render(Format::Text);
    assert!(text.starts_with("VIOLATED a (critical, excepted)\n"), "{text}");
    assert!(text.contains("\n1 violated, 0 unproven (1 of them excepted), 0 held, "), "{text}");
    assert!(text.contains("  excepted    by alice@example.com until the end of 2999-12-31 (UTC): the old host moves <b>|\n"), "{text}");
    assert!(render(Format::Junit).contains("failures=\"1\""));
    let sarif: Value = serde_json::from_str(&render(Format::Sarif)).unwrap();
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!((&result["level"], &result["suppressions"]), (&json!("error"), &Value::Null));
    assert!(render(Format::Github).starts_with("::error title=a is violated (excepted)::"));
    let gitlab: Value = serde_json::from_str(&render(Format::Gitlab)).unwrap();
    assert_eq!(gitlab[0]["severity"], "blocker");
    assert!(render(Format::Tap).contains("\nnot ok 1 - "));
}

#[test]
fn json_has_it_as_it_is_when_it_is_read() {
    let of = |record: Record| -> Value {
        let text = Format::Json.render(&report(vec![record]), &Style::default());
        serde_json::from_str::<Value>(&text).unwrap()["checks"][0]["exception"].clone()
    };
    let said = |until: &str, expired: bool| json!({ "reason": "the old host moves <b>|", "owner": "alice@example.com", "until": until, "expired": expired });
    assert_eq!(of(violated("a")), Value::Null);
    assert_eq!(of(excepted(violated("a"), AHEAD)), said("3000-01-01T00:00:00.000Z", false));
    assert_eq!(of(excepted(violated("a"), OVER)), said("2020-02-01T00:00:00.000Z", true));
    // To the millisecond, by the report's own time.
    let instant = wall(5).to_string();
    assert_eq!(of(excepted(violated("a"), &instant)), said(&instant, true));
    let later = Wall::from_unix_millis(wall(5).unix_millis() + 1).unwrap().to_string();
    assert_eq!(of(excepted(violated("a"), &later)), said(&later, false));
}

#[test]
fn the_metrics_show_it_on_both_sides() {
    let of = |name: &str, exception: Option<Arc<Exception>>| Arc::new(About { exception, ..about(name) });
    let board = Arc::new(Board::new(vec![of("plain", None), of("ahead", Some(exception(AHEAD))), of("over", Some(exception(OVER)))]));
    let text = Metrics::new("internet", board).unwrap().text().unwrap();
    for line in [
        r#"mustnot_check_excepted{check="plain",target="admin.example.com:443",vantage="internet"} 0"#,
        r#"mustnot_check_excepted{check="ahead",target="admin.example.com:443",vantage="internet"} 1"#,
        r#"mustnot_check_excepted{check="over",target="admin.example.com:443",vantage="internet"} 0"#,
        r#"mustnot_exception_until_timestamp_seconds{check="over",target="admin.example.com:443",owner="alice@example.com",reason="the old host moves <b>|",vantage="internet"} 1580515200"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert_eq!(text.matches("\nmustnot_exception_until_timestamp_seconds{").count(), 2);
}

const CHECKS: &str = "[[check]]\nname = \"open\"\nkind = \"tcp\"\ntargets = [\"a.example:1\", \"b.example:1\"]\nexpect = \"open\"\n";

#[test]
fn the_plan_finds_it_by_check_and_target() {
    let plan = |exceptions: &str| {
        from_text("f", &format!("vantage = \"v\"\n{CHECKS}{exceptions}"), Path::new(""), &|_| None, Keys::Read).unwrap().plan
    };
    let one = |target: &str, owner: &str| {
        format!("[[exception]]\ncheck = \"open\"\n{target}reason = \"r\"\nowner = \"{owner}\"\nuntil = {AHEAD}\n")
    };
    let all = plan(&one("", "alice"));
    let owner = |plan: &mustnot::plan::Plan, target: &str| plan.exception_of("open", target).map(|found| found.owner.clone());
    assert_eq!((owner(&all, "a.example:1"), owner(&all, "b.example:1")), (Some("alice".into()), Some("alice".into())));
    assert_eq!(all.exceptions[0].position, (7, 1));
    let apart = plan(&(one("target = \"a.example:1\"\n", "alice") + &one("target = \"b.example:1\"\n", "bob")));
    assert_eq!((owner(&apart, "a.example:1"), owner(&apart, "b.example:1")), (Some("alice".into()), Some("bob".into())));
    let single = plan(&one("target = \"a.example:1\"\n", "alice"));
    assert_eq!(owner(&single, "b.example:1"), None);
}

/// Who writes the files of targets must not break a configuration by taking one out.
#[test]
fn a_target_that_files_may_bring_back_is_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("t.json"), r#"[{ "targets": ["a.example:1"] }]"#).unwrap();
    let text = CHECKS.replace("targets = [\"a.example:1\", \"b.example:1\"]", "targets_from = \"t.json\"");
    let text = format!(
        "vantage = \"v\"\n{text}[[exception]]\ncheck = \"open\"\ntarget = \"a.example:2\"\nreason = \"r\"\nowner = \"o\"\nuntil = {AHEAD}\n"
    );
    let loaded = from_text("f", &text, folder.path(), &|_| None, Keys::Read).unwrap();
    let [hint] = loaded.hints.as_slice() else { panic!("{:?}", loaded.hints) };
    assert!(
        hint.contains("\"a.example:2\" is no target of \"open\" (left out, all of them are meant); did you mean \"a.example:1\"?"),
        "{hint}"
    );
}

/// One check that is violated, one that holds, both inverted; the first excepted until then.
fn file(folder: &Path, open: SocketAddr, until: &str) -> String {
    let shut = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let check = |name: &str, at: SocketAddr| {
        format!(
            "[[check]]\nname = \"{name}\"\nkind = \"tcp\"\ntarget = \"{at}\"\nexpect = [\"refused\"]\nwitness = []\nrequire = []\nattempts = 1\ninterval = \"1s\"\n"
        )
    };
    let exception = format!("[[exception]]\ncheck = \"ajar\"\nreason = \"the old host moves\"\nowner = \"alice\"\nuntil = {until}\n");
    let text = format!("vantage = \"here\"\n[web]\nlisten = \"127.0.0.1:0\"\n{}{}{exception}", check("ajar", open), check("shut", shut));
    fs::write(folder.join("probes.toml"), &text).unwrap();
    text
}

fn mustnot(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mustnot")).args(arguments).current_dir(folder).output().unwrap()
}

#[test]
fn the_gate_is_as_red_as_before_and_says_whose_it_is() {
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), open.local_addr().unwrap(), AHEAD);
    let gate = mustnot(folder.path(), &["check"]);
    let said = String::from_utf8(gate.stdout).unwrap();
    assert_eq!(gate.status.code(), Some(1), "{said}");
    assert!(said.starts_with("VIOLATED ajar (warning, excepted)"), "{said}");
    assert!(said.contains("  excepted    by alice until the end of 2999-12-31 (UTC): the old host moves\n"), "{said}");
    let explained = String::from_utf8(mustnot(folder.path(), &["config", "explain", "ajar"]).stdout).unwrap();
    assert!(
        explained.contains("  excepted    by alice until the end of 2999-12-31 (UTC): the old host moves. Its verdict stays"),
        "{explained}"
    );
}

/// An exception that is over stops the gate before it looks, whatever it would have seen; but only the gate that is about it.
#[test]
fn a_gate_does_not_pass_on_an_exception_that_is_over() {
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    open.set_nonblocking(true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = file(folder.path(), open.local_addr().unwrap(), OVER);
    let line = text.lines().position(|line| line == "[[exception]]").unwrap() + 1;
    let told = format!(
        "probes.toml:{line}:1: exception of \"ajar\": is over since the end of 2020-01-31 (UTC); alice answers for it: the old host moves. Close what it \
         was for and take it out, or agree with its owner on another until\n"
    );
    for arguments in [vec!["check"], vec!["check", "--only", "ajar"], vec!["check", "--only", "ajar", "--only", "shut"]] {
        let gate = mustnot(folder.path(), &arguments);
        let said = String::from_utf8(gate.stderr).unwrap();
        assert_eq!((gate.status.code(), gate.stdout.len()), (Some(2), 0), "{said}");
        assert_eq!(said, format!("{told}mustnot: nothing was probed: no gate is passed on an exception that is over\n"));
        assert!(open.accept().is_err(), "something was probed");
    }
    assert_eq!(mustnot(folder.path(), &["check", "--only", "shut"]).status.code(), Some(0), "what is not selected is not held against it");
    let checked = mustnot(folder.path(), &["config", "check"]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(0), "the file itself is right, and `run` takes it: {said}");
    assert!(said.contains(&format!("hint: {told}")), "{said}");
}

#[tokio::test]
async fn a_monitor_shows_it_and_takes_another_date_by_sighup() {
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rest = |until: &str| file(folder.path(), open.local_addr().unwrap(), until).split_once('\n').unwrap().1.replace("\"1s\"", "\"1h\"");
    let program = Program::with("run", "", "", &rest(OVER));
    let shown = async |p: &Program| {
        let document: Value = serde_json::from_str(&p.get("/api/v1/checks/ajar").await).unwrap();
        let check = &document["checks"][0];
        (check["verdict"].as_str().unwrap().to_string(), check["exception"]["expired"].clone())
    };
    program.until("it has looked", async |p| shown(p).await == ("violated".into(), json!(true))).await;
    let page = program.get("/").await;
    assert!(page.contains("by alice until the end of 2020-01-31 (UTC), which is over: the old host moves"), "{page}");
    assert!(!page.contains("<span class=\"badge\">excepted</span>"), "{page}");
    assert_eq!(program.metric("mustnot_check_excepted ajar").await, Some(0.0));
    assert!(said(&program.folder).contains("exception of \"ajar\": is over since the end of 2020-01-31 (UTC); alice answers for it"));

    // The check itself is not changed, so nothing is looked at anew for an hour: what is known of it is only told otherwise.
    program.rewrite(&Program::text("", &rest(AHEAD)));
    program.until("the other date is in force", async |p| shown(p).await == ("violated".into(), json!(false))).await;
    let page = program.get("/").await;
    assert!(page.contains("<span class=\"badge\">violated</span> <span class=\"badge\">excepted</span>"), "{page}");
    assert_eq!(program.metric("mustnot_check_excepted ajar").await, Some(1.0));
    assert_eq!(program.metric("mustnot_check_excepted shut").await, Some(0.0));
}

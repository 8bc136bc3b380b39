//! The reports for CI, each read back by a reader that is not ours.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mustnot::engine::Engine;
use mustnot::plan::{Keys, from_text, load};
use mustnot::record::{Origin, Record};
use mustnot::report::{Drilled, Finding, Format, Report, Style};
use mustnot::severity::Severity;
use serde_json::{Value, json};

use crate::fixture::{held, unproven, violated, wall};

/// What a reader might stumble over: line ends, separators and escapes of every format, control characters, both ways of writing.
const HOSTILE: &str = "50%\r\n::error::x, a:b # TODO \\ \"q\" '...' \u{1b}[2J\u{202e} \u{e9}\nok 9\n  ...\nBail out!";

fn at(line: usize, mut record: Record) -> Record {
    let origin = Origin { file: "ci/probes 1,2.toml".into(), line, column: 3 };
    Arc::make_mut(&mut record.about).origin = Some(origin);
    record
}

fn report(records: Vec<Record>) -> Report {
    Report {
        vantage: "internet".into(),
        started_at: wall(0),
        duration: Duration::from_millis(5123),
        as_of: wall(5),
        records,
        drills: Vec::new(),
    }
}

/// One of each: violated (hostile), held, unproven, excused; one name on two targets; and one that is in no file.
fn everything() -> Report {
    let mut hostile = at(12, violated("admin-closed"));
    hostile.reason = HOSTILE.into();
    let about = Arc::make_mut(&mut hostile.about);
    about.runbook = Some("https://wiki.example.com/admin?page=1".into());
    about.description = Some("the admin page: office only".into());
    about.tags = vec!["deploy".into()];
    let mut twin = at(20, unproven("twice"));
    Arc::make_mut(&mut twin.about).target = "other.example.com:443".into();
    Arc::make_mut(&mut twin.about).severity = Severity::Info;
    report(vec![hostile, at(16, held("fine")), at(20, unproven("twice")), twin, at(30, unproven("allowed")), violated("ad-hoc")])
}

fn written(format: Format, report: &Report) -> String {
    let allow_unproven: BTreeSet<String> = ["allowed".to_string(), "fine".to_string()].into();
    format.render(report, &Style { colour: true, allow_unproven })
}

#[test]
fn a_check_is_found_again_at_its_line_in_its_file() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("probes.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let plan = load(&file, Keys::Read).unwrap().plan;
    let abouts = Engine::about(&plan);
    assert!(abouts.len() > 5);
    for about in abouts {
        // Tests run in the package's directory, so the file lies below it.
        let origin = about.origin.as_ref().unwrap();
        assert_eq!((origin.file.as_str(), origin.column), ("probes.toml", 1));
        assert_eq!(lines[origin.line - 1], "[[check]]");
        let name = lines[origin.line..].iter().find(|line| line.starts_with("name")).unwrap();
        assert!(name.contains(&format!("\"{}\"", about.name)), "{}: {name}", about.name);
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("probes.toml");
    std::fs::write(&file, "vantage = \"here\"\n\n  [[check]]\nname = \"a\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:1\"\nexpect = \"open\"\n")
        .unwrap();
    let plan = load(&file, Keys::Read).unwrap().plan;
    let origin = Origin { file: file.canonicalize().unwrap().display().to_string(), line: 3, column: 3 };
    assert_eq!(Engine::about(&plan)[0].origin, Some(origin), "not below the working directory");
    let flags = "vantage = \"here\"\n[[check]]\nname = \"a\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:1\"\nexpect = \"open\"\n";
    let plan = from_text("(command line)", flags, Path::new(""), &|_| None, Keys::Read).unwrap().plan;
    assert_eq!(Engine::about(&plan)[0].origin, None, "flags are in no file");
}

/// The program itself, over loopback: one check that holds and one that is violated, in every format, to a file and to a pipe.
#[test]
fn every_format_comes_out_of_the_command_with_the_same_exit_code() {
    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, address| {
        format!(
            "\n[[check]]\nname = \"{name}\"\nkind = \"tcp\"\ntarget = \"{address}\"\nexpect = [\"refused\"]\nwitness = []\nrequire = []\nattempts = 1\n"
        )
    };
    let text = format!("vantage = \"here\"\n{}{}", check("shut", closed), check("ajar", open.local_addr().unwrap()));
    std::fs::write(folder.path().join("probes.toml"), &text).unwrap();
    let line = text.lines().position(|line| line.contains("ajar")).unwrap();
    for (format, name) in Format::NAMES {
        let gate = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_mustnot"));
            command.args(["check", "--format", name]).args(more).current_dir(folder.path()).output().unwrap()
        };
        let to_a_pipe = gate(&[]);
        let to_a_file = gate(&["--output", "report"]);
        assert_eq!((to_a_pipe.status.code(), to_a_file.status.code()), (Some(1), Some(1)), "{name}");
        assert_eq!(to_a_file.stdout, b"");
        let text = std::fs::read_to_string(folder.path().join("report")).unwrap();
        assert_eq!(String::from_utf8(to_a_pipe.stdout).unwrap().lines().count(), text.lines().count(), "{name}");
        let document = || serde_json::from_str::<Value>(&text).unwrap();
        match format {
            Format::Text => assert!(text.starts_with("VIOLATED ajar") && text.contains("\nholds shut")),
            Format::Json => assert_eq!(document()["summary"], json!({ "holds": 1, "violated": 1, "unproven": 0 })),
            Format::Junit => assert!(text.contains("tests=\"2\" failures=\"1\" errors=\"0\"")),
            Format::Sarif => {
                let results = &document()["runs"][0]["results"];
                assert_eq!(results.as_array().unwrap().len(), 1);
                let place = &results[0]["locations"][0]["physicalLocation"];
                assert_eq!(place["artifactLocation"], json!({ "uri": "probes.toml", "uriBaseId": "%SRCROOT%" }));
                assert_eq!(place["region"], json!({ "startLine": line, "startColumn": 1 }));
            }
            Format::Github => {
                let found: Vec<_> = text.lines().filter_map(command).collect();
                assert_eq!(found.len(), 1);
                assert_eq!(found[0].1[..2], [("file".to_string(), "probes.toml".to_string()), ("line".to_string(), line.to_string())]);
            }
            Format::Gitlab => assert_eq!(document()[0]["location"], json!({ "path": "probes.toml", "lines": { "begin": line } })),
            Format::Tap => assert_eq!(harness(&text)["points"][1][1], false),
            Format::Markdown => assert!(text.starts_with("## mustnot: 1 violated, 0 unproven, 1 held\n"), "{text}"),
        }
    }
    // What stands in no file has no line; the formats do without.
    let target = open.local_addr().unwrap().to_string();
    for (_, name) in Format::NAMES {
        let probe = ["probe", "tcp", &target, "--expect", "refused", "--require", "none", "--attempts", "1", "--format", name];
        let output = Command::new(env!("CARGO_BIN_EXE_mustnot")).args(probe).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(!String::from_utf8(output.stdout).unwrap().contains("line="), "{name}");
    }
}

/// The official schema, as the crate that reads SARIF brings it.
fn sarif_schema() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let arguments = ["metadata", "--offline", "--format-version", "1", "--filter-platform", host, "--manifest-path"];
    let told = Command::new(cargo).args(arguments).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let metadata: Value = serde_json::from_slice(&told.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|p| p["name"] == "serde-sarif").unwrap();
    let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
    serde_json::from_str(&std::fs::read_to_string(folder.join("src/schema.json")).unwrap()).unwrap()
}

#[test]
fn sarif_is_as_its_schema_says() {
    let mut schema = sarif_schema();
    assert_eq!(schema["properties"]["version"]["enum"], json!(["2.1.0"]));
    // A slip of the standard: `]?` without its bracket is no regular expression to a strict reader. The report has no such field.
    for owner in ["run", "toolComponent"] {
        let slip = schema["definitions"][owner]["properties"]["language"].as_object_mut().unwrap().remove("pattern");
        assert_eq!(slip, Some(json!("^[a-zA-Z]{2}|^[a-zA-Z]{2}-[a-zA-Z]{2}]?$")));
    }
    let schema = jsonschema::validator_for(&schema).unwrap();
    let mut drilled = report(vec![held("fine")]);
    for finding in [Finding::Saw, Finding::NotDrilled, Finding::Blind] {
        drilled.drills.push(Drilled { kind: "tcp", finding, why: vec![HOSTILE.into()], detection: None });
    }
    for report in [everything(), report(vec![held("fine")]), report(vec![]), drilled] {
        let text = written(Format::Sarif, &report);
        let document: Value = serde_json::from_str(&text).unwrap();
        let wrong: Vec<String> = schema.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "{}\n{text}", wrong.join("\n"));
        let read: serde_sarif::sarif::Sarif = serde_json::from_str(&text).unwrap();
        assert_eq!(read.runs.len(), 1);
    }
    // The test can fail.
    let mut broken: Value = serde_json::from_str(&written(Format::Sarif, &everything())).unwrap();
    broken["runs"][0]["results"][0]["level"] = json!("fatal");
    assert!(!schema.is_valid(&broken));
}

#[test]
fn sarif_has_a_result_at_its_line_for_what_does_not_hold() {
    let document: Value = serde_json::from_str(&written(Format::Sarif, &everything())).unwrap();
    let run = &document["runs"][0];
    let rules: Vec<&str> = run["tool"]["driver"]["rules"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap()).collect();
    assert_eq!(rules, ["admin-closed", "fine", "twice", "allowed", "ad-hoc"]);
    let told: Vec<Value> = run["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            let line = &r["locations"][0]["physicalLocation"]["region"]["startLine"];
            assert_eq!(rules[usize::try_from(r["ruleIndex"].as_u64().unwrap()).unwrap()], r["ruleId"]);
            json!([r["ruleId"], r["kind"], r["level"], line, r["suppressions"][0]["status"]])
        })
        .collect();
    let expected = json!([
        ["admin-closed", "fail", "error", 12, null],
        ["twice", "fail", "warning", 20, null],
        ["twice", "fail", "warning", 20, null],
        ["allowed", "fail", "note", 30, "accepted"],
        ["ad-hoc", "fail", "error", null, null],
    ]);
    assert_eq!(json!(told), expected);
    let first = &run["results"][0];
    assert_eq!(first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "ci/probes%201%2C2.toml");
    assert_eq!(first["locations"][0]["physicalLocation"]["region"]["startColumn"], 3);
    assert_eq!(first["properties"]["verdict"], "violated");
    assert_eq!(first["properties"]["cause"], "open");
    assert_eq!(first["properties"]["reproduce"], "nc -vz 203.0.113.7 443");
    assert_eq!(first["properties"]["exposure"]["first_open"], "2026-01-02T03:03:05.678Z");
    assert!(!first["message"]["text"].as_str().unwrap().contains(['\u{1b}', '\n', '\u{202e}']));
    assert_eq!(run["automationDetails"]["id"], "mustnot/internet/");
    assert_eq!(run["invocations"][0]["exitCode"], 1);
    let rule = &run["tool"]["driver"]["rules"][0];
    assert_eq!(rule["helpUri"], "https://wiki.example.com/admin?page=1");
    assert_eq!(rule["properties"]["tags"], json!(["deploy", "security"]));
}

/// A consumer knows a result again by its fingerprint: whatever was seen, and wherever the check was moved in its file.
#[test]
fn fingerprints_tell_checks_apart_and_runs_not() {
    let prints = |format, report: &Report| -> Vec<Value> {
        let document: Value = serde_json::from_str(&written(format, report)).unwrap();
        match format {
            Format::Sarif => document["runs"][0]["results"].as_array().unwrap().iter().map(|r| r["partialFingerprints"].clone()).collect(),
            _ => document.as_array().unwrap().iter().map(|e| e["fingerprint"].clone()).collect(),
        }
    };
    for format in [Format::Sarif, Format::Gitlab] {
        let first = prints(format, &everything());
        let different: BTreeSet<String> = first.iter().map(Value::to_string).collect();
        assert_eq!(different.len(), first.len(), "{first:?}");
        let mut later = everything();
        later.started_at = wall(60);
        for record in &mut later.records {
            record.reason = "something else was seen".into();
            record.started_at = wall(61);
            if let Some(origin) = &mut Arc::make_mut(&mut record.about).origin {
                origin.line += 7;
            }
        }
        assert_eq!(prints(format, &later), first);
    }
    // A violation is news where it was unproven before.
    let one = |record| prints(Format::Gitlab, &report(vec![record]));
    assert_ne!(one(unproven("a")), one(violated("a")));
}

type Properties = Vec<(String, String)>;

/// A workflow command as the runner reads it: `::name key=value,key=value::data`, percent-encoded (GitHub, "Workflow commands").
fn command(line: &str) -> Option<(String, Properties, String)> {
    let (head, data) = line.trim_start().strip_prefix("::")?.split_once("::")?;
    let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
    let plain = |text: &str| text.replace("%0D", "\r").replace("%0A", "\n").replace("%3A", ":").replace("%2C", ",").replace("%25", "%");
    let pairs = properties.split(',').filter_map(|p| p.split_once('='));
    let properties = pairs.map(|(key, value)| (key.to_string(), plain(value))).collect();
    Some((name.to_string(), properties, data.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")))
}

#[test]
fn github_gets_a_command_at_its_line_for_what_does_not_hold() {
    let text = written(Format::Github, &everything());
    let commands: Vec<_> = text.lines().filter_map(command).collect();
    let heads: Vec<(String, String)> = commands
        .iter()
        .map(|(name, properties, _)| {
            let shown: Vec<String> = properties.iter().map(|(key, value)| format!("{key}={value}")).collect();
            (name.clone(), shown.join(" | "))
        })
        .collect();
    let own =
        |word: &str, line: usize, title: &str| (word.to_string(), format!("file=ci/probes 1,2.toml | line={line} | col=3 | title={title}"));
    let expected = [
        ("error".to_string(), "title=ad-hoc is violated".to_string()),
        own("error", 12, "admin-closed is violated"),
        own("notice", 30, "allowed is unproven"),
        own("warning", 20, "twice [admin.example.com:443] is unproven"),
        own("warning", 20, "twice [other.example.com:443] is unproven"),
    ];
    assert_eq!(heads, expected);
    let lines: Vec<&str> = commands[1].2.lines().collect();
    assert!(lines[0].starts_with("50%\\r\\n::error::x, a:b # TODO") && lines[0].contains("\\u{1b}[2J\\u{202e}"), "{lines:?}");
    let rest = [
        "tcp admin.example.com:443 must be blocked",
        "reproduce: nc -vz 203.0.113.7 443",
        "runbook: https://wiki.example.com/admin?page=1",
    ];
    assert_eq!(lines[1..], rest);
    let plain: Vec<&str> = text.lines().filter(|line| command(line).is_none()).collect();
    let expected = [
        "holds fine: 203.0.113.7:443 refused every attempt",
        "mustnot: 2 violated, 3 unproven, 1 held, seen from internet; exit code 1: at least one check is violated",
    ];
    assert_eq!(plain, expected);
}

/// The fields that GitLab's documentation demands of a code quality report.
fn gitlab_schema() -> Value {
    json!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["description", "check_name", "fingerprint", "severity", "location"],
            "additionalProperties": false,
            "properties": {
                "description": { "type": "string", "minLength": 1 },
                "check_name": { "type": "string", "minLength": 1 },
                "fingerprint": { "type": "string", "minLength": 1 },
                "severity": { "enum": ["info", "minor", "major", "critical", "blocker"] },
                "location": {
                    "type": "object",
                    "required": ["path", "lines"],
                    "properties": {
                        // Relative to the repository, and without ./ in front.
                        "path": { "type": "string", "pattern": "^[^./]" },
                        "lines": { "type": "object", "required": ["begin"], "properties": { "begin": { "type": "integer", "minimum": 1 } } },
                    },
                },
            },
        },
    })
}

#[test]
fn gitlab_gets_a_code_quality_report() {
    let document: Value = serde_json::from_str(&written(Format::Gitlab, &everything())).unwrap();
    let schema = jsonschema::validator_for(&gitlab_schema()).unwrap();
    let wrong: Vec<String> = schema.iter_errors(&document).map(|e| e.to_string()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let told: Vec<Value> = document
        .as_array()
        .unwrap()
        .iter()
        .map(|e| json!([e["check_name"], e["severity"], e["location"]["path"], e["location"]["lines"]["begin"]]))
        .collect();
    let file = "ci/probes 1,2.toml";
    let expected = json!([
        ["ad-hoc", "blocker", "(command line)", 1],
        ["admin-closed", "blocker", file, 12],
        ["allowed", "info", file, 30],
        ["twice", "major", file, 20],
        ["twice", "minor", file, 20],
    ]);
    assert_eq!(json!(told), expected);
    assert_eq!(document[2]["description"], "allowed is unproven: 203.0.113.7:443 is silent, and so is the witness");
    let none: Value = serde_json::from_str(&written(Format::Gitlab, &report(vec![held("fine")]))).unwrap();
    assert_eq!(none, json!([]), "an empty list, not null: GitLab closes what it had");
}

/// What Perl's own harness makes of a report.
fn harness(text: &str) -> Value {
    let program = r#"
use strict; use warnings; use TAP::Parser; use JSON::PP;
local $/; my $tap = <STDIN>;
my $parser = TAP::Parser->new({ tap => $tap });
my (@points, @yaml, $bail);
while (my $result = $parser->next) {
    push @points, [$result->number, $result->is_actual_ok ? \1 : \0, $result->is_ok ? \1 : \0, $result->directive, $result->description] if $result->is_test;
    push @yaml, $result->data if $result->is_yaml;
    $bail = $result->explanation if $result->is_bailout;
}
my @errors = $parser->parse_errors;
print JSON::PP->new->utf8->encode({ version => $parser->version, points => \@points, yaml => \@yaml, errors => \@errors,
    bail => $bail, passes => !$bail && !$parser->has_problems ? \1 : \0 });
"#;
    let mut perl = Command::new("perl");
    let perl = perl.args(["-e", program]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn();
    let mut perl = perl.expect("perl with TAP::Parser: `tests/run.sh --prepare` installs it");
    std::io::Write::write_all(&mut perl.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = perl.wait_with_output().unwrap();
    assert!(output.status.success(), "perl with TAP::Parser and JSON::PP: `tests/run.sh --prepare` installs it");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn tap_is_read_by_a_harness_and_only_what_holds_is_ok() {
    let text = written(Format::Tap, &everything());
    let read = harness(&text);
    assert_eq!(read["errors"], json!([]), "{text}");
    assert_eq!(read["version"], 13);
    // Number, as written, as counted, directive.
    let points: Vec<Value> = read["points"].as_array().unwrap().iter().map(|p| json!([p[0], p[1], p[2], p[3]])).collect();
    let expected = json!([
        [1, false, false, ""],
        [2, true, true, ""],
        [3, false, false, ""],
        [4, false, false, ""],
        [5, false, true, "TODO"],
        [6, false, false, ""],
    ]);
    assert_eq!(json!(points), expected, "{text}");
    assert_eq!(read["passes"], false);
    assert_eq!(read["points"][3][4], "- twice [other.example.com:443]: tcp other.example.com:443 must be blocked");
    let first = &read["yaml"][0];
    assert_eq!(first["verdict"], "violated");
    assert_eq!((&first["file"], &first["line"]), (&json!("ci/probes 1,2.toml"), &json!("12")));
    assert!(first["message"].as_str().unwrap().contains("\\u{1b}[2J"), "{first}");
    assert!(first["observations"].as_str().unwrap().starts_with("203.0.113.7:443: connected at tcp"), "{first}");
}

#[test]
fn tap_passes_only_where_the_exit_code_is_0() {
    let allowed = || at(1, unproven("allowed"));
    let table = [
        (vec![held("a")], true),
        (vec![held("a"), allowed()], true),
        (vec![held("a"), unproven("b")], false),
        (vec![held("a"), violated("b")], false),
        // Nothing holds, so nothing is excused.
        (vec![allowed()], false),
        (vec![], false),
    ];
    for (records, passes) in table {
        let report = report(records);
        let code = report.conclusion(&["allowed".to_string()].into()).exit_code();
        assert_eq!(code == 0, passes);
        let text = written(Format::Tap, &report);
        assert_eq!(harness(&text)["passes"], passes, "{text}");
        let junit = written(Format::Junit, &report);
        assert_eq!(junit.contains("failures=\"0\" errors=\"0\"") && !report.records.is_empty(), passes, "{junit}");
    }
}

/// What GitHub's own parser makes of it: every element as `name` or `name text`, with all that GitHub adds to Markdown, and with HTML let through.
fn elements(test: &str, markdown: &str) -> Option<Vec<(String, String)>> {
    let arguments = ["--unsafe", "-t", "xml", "-e", "table", "-e", "strikethrough", "-e", "autolink", "-e", "tasklist", "-e", "footnotes"];
    let mut parser = Command::new("cmark-gfm");
    let spawned = parser.args(arguments).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn();
    let Ok(mut parser) = spawned else {
        println!("SKIPPED {test}: cannot run cmark-gfm (Debian: cmark-gfm)");
        return None;
    };
    std::io::Write::write_all(&mut parser.stdin.take().unwrap(), markdown.as_bytes()).unwrap();
    let output = parser.wait_with_output().unwrap();
    assert!(output.status.success());
    let xml = String::from_utf8(output.stdout).unwrap();
    let plain = |text: &str| text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    let element = |rest: &str| {
        let (tag, text) = rest.split_once('>').unwrap();
        (tag.split([' ', '/']).next().unwrap().to_string(), plain(text.split("</").next().unwrap()))
    };
    Some(xml.split('<').skip(1).filter(|rest| !rest.starts_with(['/', '?', '!'])).map(element).collect())
}

/// What a banner might write into a summary, at the begin of a line and within one, in a table and out of it.
const BANNER: &str = "a | b \\| c ` `` ``` [click](http://evil.example) ![x](http://evil.example/p.png) <img src=x onerror=alert(1)> </code></td> http://evil.example \
    www.evil.example @everyone #1 !2 ~3 %4 $x$ **b** &lt;i&gt; :skull: [[wiki]] <!-- x me@evil.example \r\n\n# Heading\n```\n~~~\n| x | y |\n- [x] done\n\n[ref]: http://evil.example\n\\";

#[test]
fn markdown_lets_no_banner_write_into_a_summary() {
    let test = "markdown_lets_no_banner_write_into_a_summary";
    let mut every = everything();
    for record in &mut every.records {
        record.reason = BANNER.into();
        record.reproduce = record.reproduce.take().map(|line| line + BANNER);
        for seen in &mut record.observations {
            seen.address = BANNER.into();
            seen.variant = Some(BANNER.into());
        }
        for witness in &mut record.witnesses {
            witness.name = BANNER.into();
            witness.why = Some(BANNER.into());
        }
        let about = Arc::make_mut(&mut record.about);
        (about.target, about.expect) = (BANNER.into(), BANNER.into());
        (about.description, about.runbook) = (Some(BANNER.into()), Some(BANNER.into()));
    }
    every.vantage = BANNER.into();
    every.drills.push(Drilled { kind: "tcp", finding: Finding::Blind, why: vec![BANNER.into()], detection: None });
    let text = written(Format::Markdown, &every);
    let Some(found) = elements(test, &text) else { return };
    let count = |name: &str| found.iter().filter(|(element, _)| element == name).count();
    for never in [
        "link",
        "image",
        "html_block",
        "html_inline",
        "footnote_reference",
        "strikethrough",
        "emph",
        "taskitem",
        "block_quote",
        "thematic_break",
    ] {
        assert_eq!(count(never), 0, "{never}\n{text}");
    }
    // One head and five that do not hold; a table of six rows of four cells under its head; one line to copy of each violation.
    assert_eq!((count("heading"), count("table"), count("table_row"), count("code_block")), (6, 1, 6, 2), "{text}");
    assert_eq!(count("table_cell"), 4 * 7, "{text}");
    // Cells that are too many are dropped, so that what a banner put between would push the severity out.
    let severities = found.iter().filter(|(element, text)| element == "text" && ["critical", "info"].contains(&text.as_str())).count();
    assert_eq!(severities, 6, "{text}");
    let shown = "[click](http://evil.example) ![x](http://evil.example/p.png) <img src=x onerror=alert(1)> </code></td>";
    let outside: Vec<_> =
        found.iter().filter(|(element, text)| element != "code" && element != "code_block" && text.contains("evil")).collect();
    assert!(outside.is_empty(), "{outside:?}");
    assert!(found.iter().filter(|(element, text)| element == "code" && text.contains(shown)).count() > 20, "{text}");
    // The test can fail.
    let open = elements(test, &text.replace('`', "")).unwrap();
    assert!(open.iter().any(|(element, _)| element == "link") && open.iter().any(|(element, _)| element == "html_inline"));
}

#[test]
fn markdown_says_what_is_wrong_first_and_what_to_do() {
    let mut every = everything();
    every.records[0].reason = "203.0.113.7:443 accepted a TCP connection".into();
    let text = written(Format::Markdown, &every);
    let expected = "## mustnot: 2 violated, 3 unproven, 1 held

Seen from ` internet ` at 2026-01-02T03:04:05.678Z, in 5.1 s. Exit code 1: at least one check is violated.

| verdict | check | severity | why |
| --- | --- | --- | --- |
| **VIOLATED** | ` ad-hoc ` | critical | it was let in where it must be kept out |
| **VIOLATED** | ` admin-closed ` | critical | it was let in where it must be kept out |
| **unproven**, allowed to be unproven | ` allowed ` | critical | a witness did not get through around it, so the block may be our own outage |
| **unproven** | ` twice [admin.example.com:443] ` | critical | a witness did not get through around it, so the block may be our own outage |
| **unproven** | ` twice [other.example.com:443] ` | info | a witness did not get through around it, so the block may be our own outage |
| holds | ` fine ` | critical | as the check demands |

### ` ad-hoc ` is violated
";
    assert!(text.starts_with(expected), "{text}");
    let part = "### ` admin-closed ` is violated

` 203.0.113.7:443 accepted a TCP connection `

- **cause** open: it was let in where it must be kept out
- **what to do** close it, and see who came in since it was last seen closed; where it is meant to be open, correct the check
- **exposure** first seen open 2026-01-02T03:03:05.678Z, last seen open 2026-01-02T03:04:05.678Z, last seen closed 2026-01-02T03:02:35.678Z
- **claim** ` tcp admin.example.com:443 must be blocked `
- **about** ` the admin page: office only `
- **seen** ` 203.0.113.7:443: connected at tcp after 12.3 ms, 1 attempt; violated (open); proofs: vantage, target `
- **proofs** vantage, target
- **written in** ` ci/probes 1,2.toml:12 `
- **runbook** <https://wiki.example.com/admin?page=1>

By hand, at that vantage:

```sh
nc -vz 203.0.113.7 443
```
";
    assert!(text.contains(part), "{text}");
    let doubt = "- **cause** witness-failed: a witness did not get through around it, so the block may be our own outage
- **what to do** mend the witness, or the way to it, and try again
";
    assert!(text.contains(doubt), "{text}");
    assert!(text.contains("\n- **witness not proven** ` internet `: ` it failed just before: one.one.one.one:443 timeout `\n"), "{text}");
}

/// GitHub takes a summary of at most 1 MiB, GitLab a note of a million characters.
#[test]
fn markdown_ends_before_its_readers_do() {
    let long = |n: usize| {
        let mut record = violated(&format!("check-{n}"));
        record.reason = "\u{1f480}".repeat(5000);
        record.observations = vec![record.observations[0].clone(); 200];
        for seen in &mut record.observations {
            seen.address = "\u{1f480}".repeat(2000);
        }
        record
    };
    let text = written(Format::Markdown, &report((0..2000).map(long).collect()));
    assert!(text.len() < 1 << 20, "{}", text.len());
    assert!(text.contains("\nAnd 1500 more; the JSON report has them all.\n"));
    assert!(text.contains("\n### And ") && text.contains(" more\n\nThey would not fit here"));
    assert!(text.contains("\n- **seen** and 192 more, which the JSON report has\n"));
}

/// One run, three reports; and where one cannot be written, the others are, and the code says so.
#[test]
fn a_gate_writes_as_many_forms_as_are_wanted() {
    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let check =
        format!("[[check]]\nname = \"ajar\"\nkind = \"tcp\"\ntarget = \"{}\"\nexpect = [\"refused\"]\n", open.local_addr().unwrap());
    std::fs::write(folder.path().join("probes.toml"), format!("vantage = \"here\"\n{check}witness = []\nrequire = []\nattempts = 1\n"))
        .unwrap();
    let gate = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mustnot")).arg("check").args(arguments).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    // As a runner makes it: empty, before the step begins.
    std::fs::write(folder.path().join("summary.md"), "").unwrap();
    let (code, said, _) = gate(&["--format", "github", "--also", "markdown=summary.md", "--also", "json=report.json"]);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("::error file=probes.toml"), "{said}");
    assert!(file("summary.md").starts_with("## mustnot: 1 violated"));
    let document: Value = serde_json::from_str(&file("report.json")).unwrap();
    assert_eq!(document["checks"][0]["verdict"], "violated");
    // They are of one run.
    assert!(file("summary.md").contains(document["started_at"].as_str().unwrap()));

    let (code, said, complaint) = gate(&["--also", "json=no/such/report.json", "--also", "tap=report.tap"]);
    assert_eq!(code, Some(1), "whatever else fails, it is violated");
    assert!(complaint.contains("cannot write the report to no/such/report.json") && said.starts_with("VIOLATED ajar"), "{complaint}");
    assert!(file("report.tap").starts_with("TAP version 13"));
    // The report is lost altogether: the exit code is all that still says it.
    let (code, _, complaint) = gate(&["--output", "/dev/full"]);
    assert_eq!(code, Some(1), "{complaint}");
    assert!(complaint.contains("cannot write the report to /dev/full: No space left"), "{complaint}");
    // What is not violated and not written is not passed.
    let (_held, nobody) = crate::probe::closed();
    let text = file("probes.toml").replace(&open.local_addr().unwrap().to_string(), &nobody.to_string());
    std::fs::write(folder.path().join("probes.toml"), text).unwrap();
    assert_eq!(gate(&["--also", "json=no/such/report.json"]).0, Some(5));
    assert_eq!(gate(&["--also", "json=report.json"]).0, Some(0));
    for (wrong, word) in
        [("json", "write FORMAT=FILE"), ("json=", "write FORMAT=FILE"), ("yaml=a", "there is no format \"yaml\"; write one of text, json")]
    {
        let (code, _, complaint) = gate(&["--also", wrong]);
        assert_eq!(code, Some(2));
        assert!(complaint.contains(word), "{wrong}: {complaint}");
    }
}

//! Alert rules, the example of an Alertmanager, and the runbook: judged by the real promtool, amtool and Alertmanager.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use mustnot::proxy::Reason;
use mustnot::severity::Severity;
use mustnot::verdict::{Cause, Verdict};
use serde_json::{Value, json};

use crate::scene::listening;

const RULES: &str = "dashboards/prometheus/alerts.yaml";
const TESTS: &str = "dashboards/prometheus/alerts_test.yaml";
const WEEKLY: &str = "dashboards/prometheus/alerts_weekly_test.yaml";
const ALERTMANAGER: &str = "dashboards/alertmanager/alertmanager.yaml";
/// How long a server may take to start, or to take notice; never how long it should.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Labels that Prometheus and its service discovery give.
const SCRAPED: [&str; 4] = ["job", "instance", "pod", "le"];

fn path(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn text(of: &str) -> String {
    fs::read_to_string(path(of)).unwrap()
}

/// Runs a tool; None, and a word, where it is not installed.
fn run(test: &str, tool: &str, package: &str, arguments: &[&str]) -> Option<(bool, String)> {
    match Command::new(tool).args(arguments).current_dir(path("")).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            Some((output.status.success(), said))
        }
        Err(e) => {
            println!("SKIPPED {test}: cannot run {tool} (Debian: {package}): {e}");
            None
        }
    }
}

pub fn promtool(test: &str, arguments: &[&str]) {
    if let Some((good, said)) = run(test, "promtool", "prometheus", arguments) {
        assert!(good, "promtool {arguments:?}: {said}");
    }
}

/// One alert as it is written.
struct Alert {
    name: String,
    block: String,
}

impl Alert {
    /// What stands behind the key; of a block `|`, its lines.
    fn field(&self, key: &str) -> String {
        let mut lines = self.block.lines();
        let first = lines.find_map(|line| line.trim_start().strip_prefix(&format!("{key}: "))).unwrap_or_default();
        match first {
            "|" | ">-" => {
                let body: Vec<&str> = lines.collect();
                let deep = |line: &str| line.len() - line.trim_start().len();
                let depth = deep(body[0]);
                body.into_iter().take_while(|line| deep(line) >= depth).collect::<Vec<_>>().join("\n")
            }
            _ => first.trim_matches('\'').to_string(),
        }
    }

    /// The severities that it can have.
    fn severities(&self) -> Vec<&'static str> {
        let every = [Severity::Critical, Severity::Warning, Severity::Info].map(Severity::token);
        let written = self.field("severity");
        match written.as_str() {
            "{{ $labels.severity }}" => every.to_vec(),
            r#"{{ if eq $labels.severity "info" }}info{{ else }}warning{{ end }}"# => vec!["warning", "info"],
            plain => vec![every.into_iter().chain(["none"]).find(|s| *s == plain).unwrap_or_else(|| panic!("{}: {written}", self.name))],
        }
    }
}

fn alerts() -> Vec<Alert> {
    let alert = |block: &str| Alert { name: block.lines().next().unwrap().to_string(), block: block.to_string() };
    let all: Vec<Alert> = text(RULES).split("      - alert: ").skip(1).map(alert).collect();
    assert_eq!(all.len(), text(RULES).matches("- alert:").count());
    all
}

#[test]
fn promtool_accepts_rules_and_example() {
    promtool("promtool_accepts_rules_and_example", &["check", "rules", RULES]);
    promtool("promtool_accepts_rules_and_example", &["check", "config", "dashboards/prometheus/prometheus.yaml"]);
}

#[test]
fn every_alert_fires_and_does_not_fire_as_it_should() {
    promtool("every_alert_fires_and_does_not_fire_as_it_should", &["test", "rules", TESTS, WEEKLY]);
}

#[test]
fn every_alert_is_tested_on_both_sides() {
    let tests = text(TESTS);
    let lines: Vec<&str> = tests.lines().collect();
    for Alert { name, .. } in alerts() {
        let silent = lines.iter().any(|line| line.contains(&format!("alertname: {name},")) && line.contains("exp_alerts: []"));
        let fires = lines.windows(3).any(|three| three[0].ends_with(&format!("alertname: {name}")) && three[2].trim() == "exp_alerts:");
        assert!(fires, "{name}: no test in which it fires, with its annotations");
        assert!(silent != (name == "MustnotWatchdog"), "{name}: no test in which it does not fire; the watchdog always does");
    }
}

#[test]
fn every_alert_says_what_where_and_what_to_do() {
    let runbook = text("docs/runbook.md");
    let sections: BTreeMap<&str, &str> = runbook.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    for alert in alerts() {
        let name = &alert.name;
        assert!(name.starts_with("Mustnot") && name.chars().all(|c| c.is_ascii_alphanumeric()), "{name} is not CamelCase");
        assert!(alert.field("summary").ends_with('.') && alert.field("description").len() > 80, "{name}");
        // A heading's anchor is its text in small letters, where it is one word.
        assert_eq!(alert.field("runbook_url"), format!("docs/runbook.md#{}", name.to_lowercase()));
        let section = sections.get(name.as_str()).unwrap_or_else(|| panic!("docs/runbook.md has no heading {name}"));
        for part in ["**What happened.**", "**Look first.**", "**Silence**"] {
            assert!(section.contains(part), "{name} has no {part} in docs/runbook.md");
        }
        let place = ["$labels.vantage", "$labels.instance"].iter().any(|label| alert.field("summary").contains(label));
        assert!(place || ["MustnotWatchdog", "MustnotCertificateExpiresSoon"].contains(&name.as_str()), "{name}: seen from where?");
        let row = format!("| [{name}](#{}) | ", name.to_lowercase());
        let said = runbook.lines().find_map(|line| line.strip_prefix(&row)).unwrap_or_else(|| panic!("no row: {row}"));
        let severity = match alert.severities().as_slice() {
            [_, _, _] => "the check's own",
            [_, _] => "warning; info of an info check",
            [one] => one,
            other => panic!("{other:?}"),
        };
        assert!(said.starts_with(&format!("{severity} | ")), "{name}: {severity}, and the runbook says {said}");
    }
    let known: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    assert_eq!(sections.keys().map(|name| name.to_string()).collect::<BTreeSet<_>>(), known, "headings of docs/runbook.md");
}

/// Metrics with their labels, as docs/metrics.md has them (a test of the documents holds it to the code).
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_string).collect::<BTreeSet<_>>();
    let mut all = BTreeMap::new();
    for row in text("docs/metrics.md").lines().filter_map(|line| line.strip_prefix("| `")) {
        let (name, rest) = row.split_once('`').unwrap();
        let mut labels = quoted(rest.split(" | ").nth(2).unwrap_or_default());
        labels.insert("vantage".into());
        labels.extend(SCRAPED.map(String::from));
        all.insert(name.to_string(), labels);
    }
    // What Prometheus itself adds to every scrape.
    for own in ["up", "scrape_duration_seconds"] {
        all.insert(own.into(), SCRAPED.map(String::from).into());
    }
    // What it makes of the rules.
    all.insert("ALERTS".into(), ["alertname", "alertstate", "severity", "excepted", "vantage", "check"].map(String::from).into());
    all
}

/// The words of an expression that are neither numbers nor quoted, each with the mark behind it, and the quoted word behind that.
fn words(expr: &str) -> Vec<(String, char, String)> {
    let mut words = Vec::new();
    let mut rest = expr;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            rest = rest[1..].split_once('"').unwrap().1;
        } else if c.is_ascii_alphanumeric() || c == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let behind = after.trim_start();
            let mark = behind.chars().next().filter(|_| !behind.starts_with("==")).unwrap_or(' ');
            let value = after.split('"').nth(1).unwrap_or_default();
            if !c.is_ascii_digit() {
                words.push((word.to_string(), mark, value.to_string()));
            }
            rest = after;
        } else {
            rest = &rest[c.len_utf8()..];
        }
    }
    words
}

/// What is wrong with the names in an expression.
pub fn unknown_names(expr: &str) -> Vec<String> {
    const FUNCTIONS: [&str; 17] = [
        "absent",
        "changes",
        "count",
        "count_over_time",
        "group",
        "histogram_quantile",
        "increase",
        "last_over_time",
        "max",
        "max_over_time",
        "min",
        "rate",
        "sort",
        "sum",
        "time",
        "timestamp",
        "topk",
    ];
    const KEYWORDS: [&str; 10] = ["and", "or", "unless", "by", "without", "on", "ignoring", "group_right", "vector", "offset"];
    let known = documented();
    let bare = |word: &str| ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_string();
    let named = |word: &str| [word.to_string(), bare(word)].into_iter().find(|name| known.contains_key(name));
    let labels: BTreeSet<&String> = words(expr).iter().filter_map(|(word, ..)| named(word)).flat_map(|name| &known[&name]).collect();
    let (mut problems, mut last) = (Vec::new(), None);
    for (word, mark, value) in words(expr) {
        if let Some(name) = named(&word) {
            last = Some(name);
        } else if mark == '=' && !KEYWORDS.contains(&word.as_str()) {
            // In braces, of the metric before them.
            if !last.as_ref().is_some_and(|metric| known[metric].contains(&word)) {
                problems.push(format!("{last:?} has no label {word}"));
            }
            let values: Option<Vec<&str>> = match word.as_str() {
                "verdict" => Some(Verdict::TOKENS.to_vec()),
                "cause" => Some(Cause::TOKENS.iter().map(|(_, token)| *token).collect()),
                "reason" => Some(Reason::ALL.iter().map(|reason| reason.label()).collect()),
                _ => None,
            };
            if values.is_some_and(|values| !values.contains(&value.as_str())) {
                problems.push(format!("{word} is never {value}"));
            }
        } else if !(FUNCTIONS.contains(&word.as_str()) || KEYWORDS.contains(&word.as_str()) || labels.contains(&word)) {
            // A unit of time stands behind a number, as one word with it, and never comes here.
            problems.push(format!("{word} is no metric, no label of these metrics, and no word of PromQL that is used here"));
        }
    }
    problems
}

#[test]
fn every_name_in_the_rules_is_a_metric_or_its_label() {
    for alert in alerts() {
        assert_eq!(unknown_names(&alert.field("expr")), [] as [String; 0], "{}", alert.name);
    }
    for (bad, what) in [
        (r#"mustnot_check_verdicts == 1"#, "mustnot_check_verdicts is no metric"),
        (r#"mustnot_witness_up{check="a"} == 0"#, "has no label check"),
        (r#"mustnot_check_verdict{verdict="violates"} == 1"#, "verdict is never violates"),
        (r#"max by (vantages) (mustnot_witness_up)"#, "vantages is no metric"),
    ] {
        assert!(unknown_names(bad).concat().contains(what), "{bad}: {:?}", unknown_names(bad));
    }
}

#[test]
fn every_query_of_the_runbook_can_be_asked() {
    let runbook = text("docs/runbook.md");
    let blocks = runbook.split("```promql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let queries: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert!(queries.len() > 20);
    let mut rules = "groups:\n  - name: runbook\n    rules:\n".to_string();
    for (at, query) in queries.iter().enumerate() {
        assert_eq!(unknown_names(query), [] as [String; 0], "{query}");
        rules += &format!("      - record: query:{at}\n        expr: '{query}'\n");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.yaml");
    fs::write(&file, rules).unwrap();
    promtool("every_query_of_the_runbook_can_be_asked", &["check", "rules", file.to_str().unwrap()]);
}

#[test]
fn amtool_routes_every_alert_to_its_receiver() {
    let amtool = |arguments: &[&str]| run("amtool_routes_every_alert_to_its_receiver", "amtool", "prometheus-alertmanager", arguments);
    let Some((good, said)) = amtool(&["check-config", ALERTMANAGER]) else { return };
    assert!(good, "{said}");
    let goes = |labels: &[&str], to: &str| {
        let file = format!("--config.file={ALERTMANAGER}");
        let receiver = format!("--verify.receivers={to}");
        amtool(&[&["config", "routes", "test", &file, &receiver], labels].concat()).unwrap()
    };
    for alert in alerts() {
        for severity in alert.severities() {
            let receiver = match (alert.name.as_str(), severity) {
                ("MustnotWatchdog", _) => "dead-mans-switch",
                (_, "critical") => "page",
                ("MustnotViolated", _) => "chat",
                _ => "ticket",
            };
            let labels = [format!("alertname={}", alert.name), format!("severity={severity}")];
            let (good, said) = goes(&[&labels[0], &labels[1]], receiver);
            assert!(good, "{labels:?} does not go to {receiver}: {said}");
            let (good, _) = goes(&[&labels[0], &labels[1]], if receiver == "page" { "ticket" } else { "page" });
            assert!(!good, "{labels:?}: amtool agrees to everything");
            // Excepted is a word on a check's own alert, and quiet; on any other it changes nothing.
            let receiver = if ["MustnotViolated", "MustnotUnproven"].contains(&alert.name.as_str()) { "ticket" } else { receiver };
            let (good, said) = goes(&[&labels[0], &labels[1], "excepted=true"], receiver);
            assert!(good, "{labels:?}, excepted, does not go to {receiver}: {said}");
        }
    }
    let (good, said) = goes(&["alertname=Other", "severity=critical"], "ticket");
    assert!(good, "what is not ours wakes nobody by our routes: {said}");
}

/// A real Alertmanager on loopback, for as long as it is in scope, that delivers to this test.
pub struct Alertmanager {
    child: Child,
    pub at: SocketAddr,
    delivered: Receiver<(String, Value)>,
    _folder: tempfile::TempDir,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Alertmanager {
    pub fn start(test: &str) -> Option<Alertmanager> {
        let folder = tempfile::tempdir().unwrap();
        let inbox = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = format!("http://{}/", inbox.local_addr().unwrap());
        let mut config = text(ALERTMANAGER);
        for name in ["pager", "chat", "tickets", "switch"] {
            assert!(config.contains(&format!("https://{name}.example.com/mustnot")));
            config = config.replace(&format!("https://{name}.example.com/mustnot"), &format!("{here}{name}"));
        }
        assert!(!config.contains("example.com"), "nothing leaves this host");
        let file = folder.path().join("alertmanager.yaml");
        fs::write(&file, config).unwrap();
        let storage = format!("--storage.path={}", folder.path().display());
        let arguments = ["--web.listen-address=127.0.0.1:0", "--cluster.listen-address=", &storage];
        let mut command = Command::new("prometheus-alertmanager");
        command.arg(format!("--config.file={}", file.display())).args(arguments);
        let (child, at) = listening(test, &mut command)?;
        let (deliver, delivered) = channel();
        std::thread::spawn(move || {
            for mut stream in inbox.incoming().flatten() {
                if let Some(request) = request(&mut stream) {
                    let _ = deliver.send(request);
                }
            }
        });
        let manager = Alertmanager { child, at, delivered, _folder: folder };
        manager.until("is ready", || manager.ask("GET", "/-/ready", "").is_some_and(|answer| answer.starts_with("HTTP/1.0 200")));
        Some(manager)
    }

    /// One request over a connection of its own; HTTP/1.0, so that the answer comes in one piece.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.at).ok()?;
        let head = format!("{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn post(&self, alerts: &Value) {
        let answer = self.ask("POST", "/api/v2/alerts", &alerts.to_string()).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }

    /// Name and vantage of every alert, by its state.
    pub fn states(&self) -> BTreeSet<(String, String)> {
        let answer = self.ask("GET", "/api/v2/alerts", "").unwrap();
        let alerts: Vec<Value> = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        let of = |alert: &Value, key: &str| alert["labels"][key].as_str().unwrap_or_default().to_string();
        let name = |alert: &Value| format!("{} {} {}", of(alert, "alertname"), of(alert, "vantage"), of(alert, "check"));
        alerts.iter().map(|alert| (name(alert), alert["status"]["state"].as_str().unwrap().to_string())).collect()
    }

    pub fn until(&self, what: &str, is: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is() {
            assert!(begun.elapsed() < PATIENCE, "never: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The path and the body of a webhook, which is answered with 200.
fn request(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut line, mut path, mut length) = (String::new(), String::new(), 0);
    while reader.read_line(&mut line).ok()? > 2 {
        if path.is_empty() {
            path = line.split(' ').nth(1)?.to_string();
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
    Some((path, serde_json::from_slice(&body).ok()?))
}

fn firing(name: &str, vantage: &str, check: &str, severity: &str) -> Value {
    json!({ "labels": { "alertname": name, "vantage": vantage, "check": check, "target": "t:443", "severity": severity } })
}

/// A witness that is down holds back what is unproven at its own place; nothing ever holds back a violation.
#[test]
fn a_real_alertmanager_holds_back_what_is_unproven_and_no_violation() {
    let Some(manager) = Alertmanager::start("a_real_alertmanager_holds_back_what_is_unproven_and_no_violation") else { return };
    let mut witness =
        json!({ "labels": { "alertname": "MustnotWitnessDown", "vantage": "internet", "witness": "dns", "severity": "warning" } });
    let rest = json!([
        firing("MustnotStale", "lab", "stale", "warning"),
        firing("MustnotUnproven", "internet", "a", "warning"),
        firing("MustnotUnproven", "office", "a", "warning"),
        firing("MustnotUnproven", "lab", "stale", "warning"),
        firing("MustnotUnproven", "lab", "other", "warning"),
        firing("MustnotViolated", "internet", "a", "critical"),
        firing("MustnotViolated", "lab", "stale", "info"),
        firing("MustnotAbsent", "internet", "", "critical"),
    ]);
    manager.post(&rest);
    let state = |name: &str, state: &str| (name.to_string(), state.to_string());
    let expected = |internet: &str| {
        BTreeSet::from([
            state("MustnotStale lab stale", "active"),
            state("MustnotUnproven internet a", internet),
            state("MustnotUnproven office a", "active"),
            state("MustnotUnproven lab stale", "suppressed"),
            state("MustnotUnproven lab other", "active"),
            state("MustnotViolated internet a", "active"),
            state("MustnotViolated lab stale", "active"),
            state("MustnotAbsent internet ", "active"),
        ])
    };
    let shown = || manager.states().into_iter().filter(|(name, _)| !name.starts_with("MustnotWitnessDown")).collect::<BTreeSet<_>>();
    manager.until("only what is stale is held back, while the witness is up", || shown() == expected("active"));

    manager.post(&json!([witness]));
    manager.until("what is unproven there is held back, too", || shown() == expected("suppressed"));

    witness["endsAt"] = "2026-01-01T00:00:00Z".into();
    witness["startsAt"] = "2025-12-31T00:00:00Z".into();
    manager.post(&json!([witness]));
    manager.until("it is let go when the witness is back", || shown() == expected("active"));

    // Delivered, too: the violation to the pager, at once.
    let begun = Instant::now();
    loop {
        let (path, body) = manager.delivered.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())).unwrap();
        let labels = &body["commonLabels"];
        match labels["alertname"].as_str() {
            Some("MustnotViolated") if labels["severity"] == "critical" => {
                assert_eq!(path, "/pager");
                break;
            }
            Some("MustnotViolated") => assert_eq!(path, "/chat"),
            Some("MustnotAbsent") => assert_eq!(path, "/pager"),
            _ => assert_eq!(path, "/tickets"),
        }
    }
}

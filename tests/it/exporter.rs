//! What the web listener serves: metrics, API, health and the status page, over real TCP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mustnot::clock::Moment;
use mustnot::history::Board;
use mustnot::metrics::Metrics;
use mustnot::observation::{Outcome, Stage};
use mustnot::proxy::Stats;
use mustnot::record::{About, DenialChanged, Record, Seen};
use mustnot::report::{Drilled, Finding};
use mustnot::verdict::{Cause, Verdict};
use mustnot::web::{State, Web};
use serde_json::Value;
use tokio::sync::watch;

use crate::fixture::{about, held, holds, record, seen, unproven, violated};

fn board(abouts: impl IntoIterator<Item = About>) -> Arc<Board> {
    Arc::new(Board::new(abouts.into_iter().map(Arc::new).collect()))
}

fn metrics(board: &Arc<Board>) -> Metrics {
    Metrics::new("internet", Arc::clone(board)).unwrap()
}

fn long_ago(mut record: Record) -> Record {
    let about = Arc::make_mut(&mut record.about);
    about.stale_after = Duration::from_millis(1);
    record.began = Moment::now() - Duration::from_secs(5);
    record
}

/// The value of the one series whose line begins so.
fn value(text: &str, series: &str) -> Option<f64> {
    let lines: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix(series)?.strip_prefix(' ')).collect();
    assert!(lines.len() <= 1, "{series} is there {} times", lines.len());
    lines.first().map(|v| v.parse().unwrap())
}

const CT: &str = r#"check="a",target="admin.example.com:443""#;

fn of_a(text: &str, name: &str, labels: &str) -> Option<f64> {
    value(text, &format!(r#"{name}{{{CT}{labels},vantage="internet"}}"#))
}

fn verdict_of_a(text: &str, verdict: &str) -> Option<f64> {
    let labels = r#"check="a",kind="tcp",target="admin.example.com:443",severity="critical""#;
    value(text, &format!(r#"mustnot_check_verdict{{{labels},verdict="{verdict}",vantage="internet"}}"#))
}

#[test]
fn every_series_that_must_be_there_from_the_start_is() {
    let text = metrics(&board([about("a")])).text().unwrap();
    assert_eq!(["holds", "violated", "unproven"].map(|v| verdict_of_a(&text, v)), [Some(0.0), Some(0.0), Some(1.0)]);
    assert_eq!(of_a(&text, "mustnot_check_cause", r#",cause="pending""#), Some(1.0));
    assert_eq!(text.matches("\nmustnot_check_cause{").count(), 1, "the present cause only");
    for proof in ["vantage", "port", "target"] {
        assert_eq!(of_a(&text, "mustnot_check_proof", &format!(r#",proof="{proof}""#)), Some(0.0));
    }
    for verdict in ["holds", "violated", "unproven"] {
        assert_eq!(of_a(&text, "mustnot_check_runs_total", &format!(r#",verdict="{verdict}""#)), Some(0.0));
    }
    assert_eq!(of_a(&text, "mustnot_denial_changed_total", ""), Some(0.0));
    assert_eq!(of_a(&text, "mustnot_check_stale_after_seconds", ""), Some(60.0));
    for absent in
        ["check_last_run_timestamp_seconds", "check_last_holds_timestamp_seconds", "check_duration_seconds", "probe_outcomes_total"]
    {
        assert!(!text.contains(absent), "{absent} before the first run");
    }
    for always in
        ["mustnot_checks", "mustnot_probes_in_flight", "mustnot_fd_used", "mustnot_fd_limit", "mustnot_scheduler_lag_seconds_count"]
    {
        assert!(value(&text, &format!(r#"{always}{{vantage="internet"}}"#)).is_some(), "{always}");
    }
    assert_eq!(value(&text, r#"mustnot_config_last_reload_successful{vantage="internet"}"#), Some(1.0));
    assert!(text.contains("mustnot_build_info{version=\"0.1.0\",revision=\"") && text.contains("process_resident_memory_bytes{"));
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        assert!(line.contains(r#"vantage="internet""#), "no vantage: {line}");
    }
}

#[test]
fn a_run_is_counted_and_shown() {
    let board = board([about("a")]);
    let metrics = metrics(&board);
    let mut run = held("a");
    let mut slow = seen(holds(), Outcome::Refused);
    slow.attempts = 3;
    slow.evidence.certificate_expires = Some(1_800_000_000);
    let mut mixed = seen(holds(), Outcome::Refused);
    mixed.attempts = 2;
    mixed.attempt_outcomes = vec![Outcome::Refused, Outcome::Timeout];
    mixed.evidence.certificate_expires = Some(1_790_000_000);
    run.observations = vec![slow, mixed];
    run.denial_changed = vec![DenialChanged { address: "203.0.113.7:443".into(), from: Outcome::Timeout, to: Outcome::Refused }];
    metrics.observe(&run);
    metrics.witness_up("internet", "198.51.100.5:443", true);
    metrics.scheduler_lag(Duration::from_millis(3));
    metrics.probes_in_flight().inc();
    board.publish(0, run);

    let text = metrics.text().unwrap();
    assert_eq!(["holds", "violated", "unproven"].map(|v| verdict_of_a(&text, v)), [Some(1.0), Some(0.0), Some(0.0)]);
    assert_eq!(of_a(&text, "mustnot_check_runs_total", r#",verdict="holds""#), Some(1.0));
    assert_eq!(of_a(&text, "mustnot_check_proof", r#",proof="target""#), Some(1.0));
    assert_eq!(of_a(&text, "mustnot_check_proof", r#",proof="port""#), Some(0.0));
    assert_eq!(of_a(&text, "mustnot_probe_outcomes_total", r#",outcome="refused",stage="tcp""#), Some(4.0));
    assert_eq!(of_a(&text, "mustnot_probe_outcomes_total", r#",outcome="timeout",stage="tcp""#), Some(1.0));
    assert_eq!(value(&text, r#"mustnot_probe_duration_seconds_count{kind="tcp",stage="tcp",vantage="internet"}"#), Some(2.0));
    assert_eq!(of_a(&text, "mustnot_denial_changed_total", ""), Some(1.0));
    assert_eq!(of_a(&text, "mustnot_check_duration_seconds", ""), Some(7.004));
    assert_eq!(of_a(&text, "mustnot_check_last_run_timestamp_seconds", ""), Some(1_767_323_045.678));
    assert_eq!(of_a(&text, "mustnot_check_last_holds_timestamp_seconds", ""), Some(1_767_323_045.678));
    assert_eq!(of_a(&text, "mustnot_tls_certificate_expiry_timestamp_seconds", ""), Some(1_790_000_000.0));
    assert_eq!(value(&text, r#"mustnot_witness_up{witness="internet",vantage="internet"}"#), Some(1.0));
    assert_eq!(value(&text, r#"mustnot_scheduler_lag_seconds_count{vantage="internet"}"#), Some(1.0));
    assert_eq!(value(&text, r#"mustnot_probes_in_flight{vantage="internet"}"#), Some(1.0));
    assert!(!text.contains("203.0.113.7") && !text.contains("10.0.0.5"), "an address became a label");
}

/// A drill that is due, one that saw, one that did not: the alerts need all three apart.
#[test]
fn a_drill_that_failed_or_never_was_is_seen() {
    let metrics = metrics(&board([about("a")]));
    let of_tcp = |name: &str| value(&metrics.text().unwrap(), &format!(r#"mustnot_drill_{name}{{kind="tcp",vantage="internet"}}"#));
    assert_eq!(of_tcp("interval_seconds"), None);
    metrics.drills_every(["tcp"], Duration::from_secs(3600));
    let due = ["interval_seconds", "last_successful", "last_success_timestamp_seconds", "detection_seconds"].map(of_tcp);
    assert_eq!(due, [Some(3600.0), None, None, None]);

    let drilled = |finding, detection| Drilled { kind: "tcp", finding, why: Vec::new(), detection };
    metrics.drilled(&drilled(Finding::Saw, Some(Duration::from_secs(2))));
    assert_eq!((of_tcp("last_successful"), of_tcp("detection_seconds")), (Some(1.0), Some(2.0)));
    let saw_at = of_tcp("last_success_timestamp_seconds");
    assert!(saw_at.is_some());
    for finding in [Finding::Blind, Finding::NotDrilled] {
        metrics.drilled(&drilled(Finding::Saw, None));
        let saw_at = of_tcp("last_success_timestamp_seconds");
        metrics.drilled(&drilled(finding, None));
        assert_eq!((of_tcp("last_successful"), of_tcp("detection_seconds")), (Some(0.0), None));
        assert_eq!(of_tcp("last_success_timestamp_seconds"), saw_at, "a failure is no success");
        assert_eq!(of_tcp("interval_seconds"), Some(3600.0));
    }
}

#[test]
fn a_record_that_nobody_renews_goes_stale_in_the_scrape() {
    let board = board([about("a")]);
    let metrics = metrics(&board);
    let mut fresh = held("a");
    let mut technique = seen(holds(), Outcome::Denied);
    technique.technique = Some("OP-01");
    fresh.observations.push(technique);
    board.publish(0, fresh.clone());
    let text = metrics.text().unwrap();
    assert_eq!(verdict_of_a(&text, "holds"), Some(1.0));
    assert_eq!(of_a(&text, "mustnot_open_proxy_technique", r#",technique="OP-01",outcome="denied""#), Some(0.0));

    board.publish(0, long_ago(fresh));
    let text = metrics.text().unwrap();
    assert_eq!(["holds", "violated", "unproven"].map(|v| verdict_of_a(&text, v)), [Some(0.0), Some(0.0), Some(1.0)]);
    assert_eq!(of_a(&text, "mustnot_check_cause", r#",cause="stale""#), Some(1.0));
    assert_eq!(of_a(&text, "mustnot_check_proof", r#",proof="vantage""#), Some(0.0), "an old proof is no proof");
    assert!(!text.contains("mustnot_open_proxy_technique"), "an old denial is no denial");

    board.publish(0, long_ago(violated("a")));
    let text = metrics.text().unwrap();
    assert_eq!(verdict_of_a(&text, "violated"), Some(1.0), "what was seen open is not closed by not being seen");
    assert_eq!(of_a(&text, "mustnot_check_cause", r#",cause="latched""#), Some(1.0));
}

#[test]
fn a_check_that_never_ran_stays_pending() {
    let mut never = about("a");
    never.stale_after = Duration::ZERO;
    let board = board([never]);
    let made = Moment::now();
    while Moment::now() <= made {}
    assert_eq!(of_a(&metrics(&board).text().unwrap(), "mustnot_check_cause", r#",cause="pending""#), Some(1.0));
}

#[test]
fn a_technique_shows_its_worst_outcome_only() {
    let board = board([about("a")]);
    let with = |verdict, outcome| {
        let mut seen = seen(verdict, outcome);
        (seen.technique, seen.stage) = (Some("OP-01"), Stage::Proxy);
        seen
    };
    let mut run = violated("a");
    run.observations = vec![with(Verdict::Violated(Cause::Open), Outcome::Relayed), with(holds(), Outcome::Denied)];
    board.publish(0, run);
    let text = metrics(&board).text().unwrap();
    assert_eq!(of_a(&text, "mustnot_open_proxy_technique", r#",technique="OP-01",outcome="relayed""#), Some(1.0));
    assert_eq!(text.matches("\nmustnot_open_proxy_technique{").count(), 1);
}

#[test]
fn the_info_metric_has_the_union_of_labels_and_none_that_is_taken() {
    let (mut a, mut b) = (about("a"), about("b"));
    a.labels = [("team", "net\"\n\\"), ("host", "x"), ("no good", "x"), ("check", "x")].map(|(k, v)| (k.into(), v.into())).into();
    b.labels = [("tier".into(), "1".into())].into();
    let text = metrics(&board([a, b])).text().unwrap();
    let base = r#"kind="tcp",target="admin.example.com:443",expect="blocked",severity="critical""#;
    assert_eq!(value(&text, &format!(r#"mustnot_check_info{{check="a",{base},team="net\"\n\\",tier="",vantage="internet"}}"#)), Some(1.0));
    assert_eq!(value(&text, &format!(r#"mustnot_check_info{{check="b",{base},team="",tier="1",vantage="internet"}}"#)), Some(1.0));
}

#[test]
fn a_removed_check_leaves_no_series_and_the_others_keep_their_counts() {
    let board = board([about("a"), about("b")]);
    let metrics = metrics(&board);
    metrics.observe(&held("a"));
    metrics.observe(&held("b"));
    metrics.witness_up("b", "198.51.100.5:443", true);
    assert!(metrics.text().unwrap().contains(r#"check="b""#));
    board.change(vec![Arc::new(about("a"))]);
    metrics.reloaded();
    let text = metrics.text().unwrap();
    assert!(!text.contains(r#"check="b""#) && !text.contains("mustnot_witness_up"));
    assert_eq!(of_a(&text, "mustnot_check_runs_total", r#",verdict="holds""#), Some(1.0));
    assert_eq!(of_a(&text, "mustnot_probe_outcomes_total", r#",outcome="refused",stage="tcp""#), Some(1.0));
}

#[test]
fn others_register_metrics_of_their_own() {
    let metrics = metrics(&board([about("a")]));
    let tunnels = prometheus::IntGauge::new("mustnot_proxy_tunnels", "Tunnels that are open.").unwrap();
    metrics.registry().register(Box::new(tunnels.clone())).unwrap();
    tunnels.set(2);
    assert_eq!(value(&metrics.text().unwrap(), r#"mustnot_proxy_tunnels{vantage="internet"}"#), Some(2.0));
}

#[test]
fn what_the_proxy_costs_is_told_against_the_direct_way_to_the_same_target() {
    let elsewhere = About { target: "other.example.com:443".into(), ..about("c") };
    let board = board([about("a"), about("b"), elsewhere.clone()]);
    let metrics = metrics(&board);
    let proxy = "203.0.113.8:3128".parse().ok();
    let answer = |elapsed_ms: f64, by_proxy: Option<SocketAddr>, stage: Stage| {
        let mut answer = seen(holds(), Outcome::Status(403));
        (answer.stage, answer.elapsed_ms, answer.evidence.via) = (stage, elapsed_ms, by_proxy);
        answer
    };
    let run = |about: About, observations: Vec<Seen>| Record { observations, ..record(about, holds(), Outcome::Refused) };
    let overhead = || of_a(&metrics.text().unwrap(), "mustnot_via_overhead_seconds", "");
    board.publish(0, run(about("a"), vec![answer(90.0, proxy, Stage::Http), answer(70.0, proxy, Stage::Http)]));
    assert_eq!(overhead(), None, "no direct way is known");
    board.publish(2, run(elsewhere, vec![answer(10.0, None, Stage::Http)]));
    assert_eq!(overhead(), None, "another target says nothing");
    board.publish(1, run(about("b"), vec![answer(30.0, None, Stage::Tcp)]));
    assert_eq!(overhead(), None, "a handshake is no answer");
    board.publish(1, run(about("b"), vec![answer(50.0, None, Stage::Http), answer(45.0, None, Stage::Http)]));
    assert_eq!(overhead(), Some(0.025));
    let text = metrics.text().unwrap();
    assert_eq!(text.matches("mustnot_via_overhead_seconds{").count(), 1, "none for the direct way:\n{text}");
}

/// Metrics in which every family has a series.
fn full() -> Metrics {
    let board = board([about("a"), about("b")]);
    let metrics = metrics(&board);
    let mut run = violated("a");
    run.observations.iter_mut().for_each(|o| {
        o.technique = Some("OP-01");
        o.evidence.certificate_expires = Some(1_800_000_000);
        o.evidence.via_grant_ms = Some(2.5);
    });
    metrics.observe(&run);
    board.publish(0, run);
    metrics.observe(&held("b"));
    board.publish(1, held("b"));
    metrics.witness_up("internet", "198.51.100.5:443", false);
    Stats::new(&["10.0.0.0/8".parse().unwrap()]).unwrap().register(metrics.registry()).unwrap();
    metrics
}

/// Debian's own Python, whatever else is in the path: it has the packages that are installed.
const PYTHON: &str = "/usr/bin/python3";

/// The official parser of OpenMetrics, which is strict; it prints each family's type and samples.
const PARSER: &str = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                      for family in parse(sys.stdin.read()):\n    for s in family.samples: print(family.type, s.name, s.labels, s.value)\n";

#[test]
fn the_official_parser_reads_openmetrics_and_sees_what_is_in_the_text() {
    let metrics = full();
    let mut parser = match Command::new(PYTHON).args(["-c", "import prometheus_client"]).output() {
        Ok(output) if output.status.success() => Command::new(PYTHON),
        _ => {
            println!("SKIPPED the_official_parser_reads_openmetrics: python3-prometheus-client is not installed");
            return;
        }
    };
    let read = |parser: &mut Command, text: &str| {
        let mut parser = parser.args(["-c", PARSER]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        parser.wait_with_output().unwrap()
    };
    let (openmetrics, text) = (metrics.openmetrics(), metrics.text().unwrap());
    let output = read(&mut parser, &openmetrics);
    assert!(output.status.success(), "{}\n{openmetrics}", String::from_utf8_lossy(&output.stderr));
    let seen = String::from_utf8(output.stdout).unwrap();
    let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!((seen.lines().count(), samples(&openmetrics)), (samples(&text), samples(&text)), "as many samples as the text has");
    assert!(seen.lines().any(|line| line.starts_with("counter mustnot_check_runs_total {'check': 'a'")), "{seen}");
    assert!(seen.lines().all(|line| !line.starts_with("unknown ")), "{seen}");
    // it is strict: what is cut off is not read
    assert!(!read(&mut Command::new(PYTHON), openmetrics.trim_end_matches("# EOF\n")).status.success());
}

#[test]
fn promtool_finds_nothing_to_say() {
    let metrics = full();
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else {
        println!("SKIPPED promtool_finds_nothing_to_say: promtool (Debian: prometheus) is not installed");
        return;
    };
    let text = metrics.text().unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
}

#[test]
fn a_scrape_of_many_checks_takes_its_time_once_each() {
    let names: Vec<String> = (0..2000).map(|n| format!("check-{n}")).collect();
    let board = board(names.iter().map(|n| about(n)));
    let metrics = metrics(&board);
    for (at, name) in names.iter().enumerate() {
        let run = held(name);
        metrics.observe(&run);
        board.publish(at, run);
    }
    let started = std::time::Instant::now();
    let text = metrics.text().unwrap();
    println!("2000 checks: {} KiB in {:?}", text.len() / 1024, started.elapsed());
    // A debug build needs about a tenth of this; something quadratic would need a hundred times more.
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// A listener on a free port, while it is in scope.
struct Served {
    address: SocketAddr,
    board: Arc<Board>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(abouts: Vec<About>) -> Served {
    let board = board(abouts);
    let state = State::new("internet", Arc::clone(&board), Arc::new(metrics(&board)));
    let web = Web::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    Served { address: web.address(), board, stop, task: tokio::spawn(web.run(state, stopped)) }
}

impl Served {
    async fn ask(&self, request: &str) -> (u16, String, String) {
        let (address, request) = (self.address, request.to_owned());
        tokio::task::spawn_blocking(move || exchange(address, &request)).await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
    }
}

fn exchange(address: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_api_over_the_wire() {
    let served = serve(vec![about("a"), about("b")]).await;
    served.board.publish(0, unproven("a"));
    served.board.publish(0, violated("a"));

    let (status, head, body) = served.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert_eq!(verdict_of_a(&body, "violated"), Some(1.0));

    let (status, head, body) = served.get("/api/v1/checks").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/json") && head.contains("cache-control: no-store"), "{head}");
    let all: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(all["summary"], serde_json::json!({ "holds": 0, "violated": 1, "unproven": 1 }));
    let keys: Vec<&str> = all.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["checks", "duration_ms", "schema", "started_at", "summary", "vantage", "version"]);
    assert_eq!(all["checks"][1]["cause"], "pending");

    let (status, _, body) = served.get("/api/v1/checks/a").await;
    assert_eq!(status, 200);
    let one: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((one["checks"].as_array().unwrap().len(), &one["checks"][0]["name"], &one["vantage"]), (1, &"a".into(), &"internet".into()));
    let recent: Vec<&Value> = one["recent"].as_array().unwrap().iter().map(|r| &r["verdict"]).collect();
    assert_eq!(recent, ["violated", "unproven"], "the newest first");
    assert!(mustnot::clock::Wall::parse(one["now"].as_str().unwrap()).is_some());
    assert_eq!(serde_json::from_str::<Value>(&served.get("/api/v1/checks/b").await.2).unwrap()["recent"], serde_json::json!([]));

    let (status, head, body) = served.get("/api/v1/checks/nobody").await;
    assert_eq!(status, 404);
    assert!(head.contains("content-type: application/json"));
    assert_eq!(body, r#"{"error":"there is no check \"nobody\"; /api/v1/checks lists those there are"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_come_in_the_format_and_the_encoding_that_is_asked_for() {
    let served = serve(vec![about("a")]).await;
    served.board.publish(0, held("a"));
    let text = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";
    let openmetrics = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    for (accept, expected) in [
        ("", text),
        ("Accept: */*\r\n", text),
        ("Accept: text/plain\r\n", text),
        ("Accept: application/openmetrics-text; version=1.0.0\r\n", openmetrics),
        ("Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n", openmetrics),
        ("Accept: application/openmetrics-text;q=0,text/plain\r\n", text),
    ] {
        let (status, head, body) = served.ask(&format!("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{accept}\r\n")).await;
        let head = head + "\r\n";
        assert!(status == 200 && head.contains(expected), "{accept}: {head}");
        assert!(head.contains("vary: accept, accept-encoding\r\n") && !head.contains("content-encoding"), "{accept}: {head}");
        assert_eq!(body.matches("# EOF").count(), usize::from(expected == openmetrics), "{accept}");
        assert_eq!(body.ends_with("# EOF\n"), expected == openmetrics, "{accept}");
    }
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n";
    let address = served.address;
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    assert!(head.contains("content-encoding: gzip") && head.contains(text.trim_end()), "{head}");
    let mut body = String::new();
    flate2::read::GzDecoder::new(&answer[end + 4..]).read_to_string(&mut body).unwrap();
    assert_eq!(verdict_of_a(&body, "holds"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_once_every_check_ran() {
    let served = serve(vec![about("a"), about("b")]).await;
    for path in ["/healthz", "/-/healthy"] {
        assert_eq!(served.get(path).await.0, 200);
    }
    served.board.announce(1, violated("b"));
    served.board.publish(0, held("a"));
    for path in ["/readyz", "/-/ready"] {
        let (status, _, body) = served.get(path).await;
        assert_eq!((status, body.as_str()), (503, "not ready: 1 of 2 checks have not run yet: b\n"));
    }
    served.board.publish(1, violated("b"));
    assert_eq!(served.get("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_has_what_is_violated_first_and_lets_nothing_out() {
    let served = serve(vec![about("fine"), about("door"), about("unsure"), about("new")]).await;
    served.board.publish(0, held("fine"));
    served.board.publish(2, unproven("unsure"));
    let mut open = violated("door");
    open.reason = "<script>alert(1)</script>".into();
    Arc::make_mut(&mut open.about).runbook = Some("javascript:alert(1)".into());
    served.board.publish(1, open);
    let (status, head, body) = served.get("/").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html; charset=utf-8") && head.contains("content-security-policy: default-src 'none'"));
    assert!(body.contains("<title>1 violated – mustnot internet</title>") && body.contains("http-equiv=\"refresh\" content=\"10\""));
    let order = [">door", ">unsure", ">new", ">fine"].map(|name| body.find(name).unwrap());
    assert!(order.is_sorted(), "{order:?}");
    assert!(body.contains("&lt;script&gt;") && !body.contains("<script") && !body.contains("href=\"javascript"));
    // For a look at it with a browser.
    if let Some(path) = std::env::var_os("MUSTNOT_SAVE_PAGE") {
        std::fs::write(path, body).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_says_so() {
    let served = serve(vec![about("a")]).await;
    assert_eq!(served.get("/nothing").await.0, 404);
    assert_eq!(served.get("/config").await.0, 404);
    assert_eq!(served.ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").await.0, 405);
    assert_eq!(served.ask("GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").await.0, 200);
    let (status, _, body) = served.ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status, body.as_str()), (200, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_idle_connections_and_the_listener() {
    let served = serve(vec![about("a")]).await;
    let idle = TcpStream::connect(served.address).unwrap();
    assert_eq!(served.get("/healthz").await.0, 200);
    served.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(10), served.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).is_err());
    drop(idle);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_what_to_do() {
    let first = Web::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let told = Web::bind(first.address()).await.unwrap_err();
    let expected = format!(
        "[web] listen: cannot listen on {}: Address already in use (os error 98); stop what listens there (ss -ltnp shows it), or choose another port",
        first.address()
    );
    assert_eq!(told, expected);
}

#[test]
fn records_of_one_name_on_several_targets_stay_apart() {
    let (a, mut other) = (about("a"), about("a"));
    other.target = "other.example.com:443".into();
    let board = board([a, other.clone()]);
    board.publish(0, held("a"));
    board.publish(1, record(other, Verdict::Unproven(Cause::NoWitness), Outcome::Timeout));
    let text = metrics(&board).text().unwrap();
    assert_eq!(verdict_of_a(&text, "holds"), Some(1.0));
    assert!(text.contains(r#"mustnot_check_cause{check="a",target="other.example.com:443",cause="no-witness",vantage="internet"} 1"#));
    assert_eq!(board.recent("a").unwrap().len(), 2);
}

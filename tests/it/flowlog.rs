//! `mustnot flowlog`, `check --evidence` and `[evidence]`: real probes on loopback, and lines as the defences would write them about those very probes.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

/// A port of loopback on which nobody listens.
fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn mustnot(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mustnot")).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

/// A check of a closed port that holds, and its report.
fn closed(folder: &Path, expect: &str, more: &str) -> Value {
    let text = format!(
        "vantage = \"here\"\n{more}[[check]]\nname = \"closed\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:{}\"\nexpect = {expect}\nrequire = []\nwitness = []\nattempts = 2\n",
        nobody()
    );
    fs::write(folder.join("probes.toml"), text).unwrap();
    let output = mustnot(folder, &["check", "--format", "json", "--output", "report.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap()
}

fn flows(report: &Value) -> Vec<Value> {
    report["checks"][0]["observations"][0]["flows"].as_array().unwrap().clone()
}

/// As a VPC would write it down, in a format with `flow-direction`.
const HEADER: &str =
    "version interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status tcp-flags flow-direction";

fn line(flow: &Value, action: &str, direction: &str) -> String {
    let end = |key: &str| flow[key].as_str().unwrap().parse::<std::net::SocketAddr>().unwrap();
    let seconds = |key: &str| mustnot::clock::Wall::parse(flow[key].as_str().unwrap()).unwrap().unix_millis() / 1000;
    let (local, remote) = (end("local"), end("remote"));
    format!(
        "5 eni-0a1b {} {} {} {} 6 1 60 {} {} {action} OK 2 {direction}",
        local.ip(),
        remote.ip(),
        local.port(),
        remote.port(),
        seconds("started_at"),
        seconds("ended_at")
    )
}

#[test]
fn a_report_is_held_against_the_logs() {
    let folder = tempfile::tempdir().unwrap();
    let report = closed(folder.path(), "\"blocked\"", "");
    let flows = flows(&report);
    assert_eq!(flows.len(), 2, "{report}");
    assert!(flows.iter().all(|flow| flow["protocol"] == "tcp" && flow["outcome"] == "refused"), "{flows:?}");
    let write = |name: &str, lines: &[String]| fs::write(folder.path().join(name), format!("{HEADER}\n{}\n", lines.join("\n"))).unwrap();
    let both = |first: &str, second: &str| [line(&flows[0], first, "ingress"), line(&flows[1], second, "ingress")];
    let run = |args: &[&str]| {
        let output = mustnot(folder.path(), &[&["flowlog", "--report", "report.json"], args].concat());
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    write("rejected.log", &both("REJECT", "REJECT"));
    let (code, said, _) = run(&["rejected.log"]);
    assert!(code == 0 && said.contains("holds         closed 127.0.0.1:") && said.contains("2 of 2 attempts are in the logs"), "{said}");
    assert!(said.contains("attempt 1 (refused): rejected: the flow log (eni-0a1b) says REJECT, 1 packets"), "{said}");
    // One of two was let in: a refusal is what a dead target behind an open ACL gives.
    write("accepted.log", &both("REJECT", "ACCEPT"));
    let (code, said, _) = run(&["accepted.log"]);
    assert!(code == 1 && said.contains("contradicted  closed 127.0.0.1:"), "{said}");
    assert!(said.contains("the flow log (eni-0a1b) says ACCEPT for attempt 2: security group and network ACL let it in"), "{said}");
    // Both logs, in a directory, one of them gzipped: who passes one door and not the next is kept out.
    fs::create_dir_all(folder.path().join("logs/2026/01")).unwrap();
    fs::rename(folder.path().join("accepted.log"), folder.path().join("logs/2026/01/accepted.log")).unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&fs::read(folder.path().join("rejected.log")).unwrap()).unwrap();
    fs::write(folder.path().join("logs/rejected.log.gz"), gzip.finish().unwrap()).unwrap();
    let (code, said, _) = run(&["logs", "--format", "json"]);
    let joined: Value = serde_json::from_str(&said).unwrap();
    let defence = joined["checks"][0]["observations"][0]["defence"].as_array().unwrap();
    assert_eq!((code, defence.len(), joined["checks"][0].get("contradicted")), (0, 3, None), "{said}");
    assert_eq!(
        (defence[0]["log"].as_str(), defence[0]["word"].as_str(), defence[0]["matched_by"].as_str()),
        (Some("vpc-flow-log"), Some("rejected"), Some("five-tuple"))
    );
    // What our own interface lets out is let out every time.
    write("own.log", &[line(&flows[0], "ACCEPT", "egress")]);
    assert_eq!(run(&["own.log"]).0, 0);
    write("own.log", &[line(&flows[0], "ACCEPT", "ingress")]);
    assert_eq!((run(&["own.log"]).0, run(&["own.log", "--own-interface", "eni-0a1b"]).0), (1, 0));
    // No match is no claim, and garbage is none either.
    write("others.log", &[line(&flows[0], "REJECT", "ingress").replace("127.0.0.1 127.0.0.1", "127.0.0.2 127.0.0.1")]);
    let (code, said, _) = run(&["others.log"]);
    assert!(code == 3 && said.contains("No line is about any of these attempts, which says nothing"), "{said}");
    assert_eq!(run(&["others.log", "--translated", "127.0.0.1=127.0.0.2"]).0, 0);
    fs::write(folder.path().join("garbage"), [0xff; 5000]).unwrap();
    let (code, _, complained) = run(&["garbage"]);
    assert!(code == 3 && complained.contains("1 line is of no log that is known here"), "{complained}");
    fs::write(folder.path().join("flows.parquet"), b"PAR1\x15\x04\x15").unwrap();
    let (code, _, complained) = run(&["rejected.log", "flows.parquet"]);
    assert!(code == 3 && complained.contains("flows.parquet: it is Parquet, which is not read here"), "{complained}");
    let (code, _, complained) = run(&["missing.log"]);
    assert!(code == 3 && complained.contains("missing.log: No such file"), "{complained}");
    fs::write(folder.path().join("old.json"), "{\"checks\":[{\"observations\":[{\"address\":\"a\"}]}]}").unwrap();
    let output = mustnot(folder.path(), &["flowlog", "--report", "old.json"]);
    assert!(output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("has \"flows\""), "{output:?}");
}

#[test]
fn a_check_that_demands_a_refusal_needs_an_open_network() {
    let folder = tempfile::tempdir().unwrap();
    let report = closed(folder.path(), "[\"refused\"]", "");
    fs::write(folder.path().join("flow.log"), format!("{HEADER}\n{}\n", line(&flows(&report)[0], "ACCEPT", "ingress"))).unwrap();
    assert_eq!(mustnot(folder.path(), &["flowlog", "--report", "report.json", "flow.log"]).status.code(), Some(0));
}

/// The embedded proxy denies a stranger, and its own log says so of the very probe: by our port, since nothing was read, or by the nonce.
#[test]
fn a_gate_takes_evidence_up() {
    let folder = tempfile::tempdir().unwrap();
    let text = |allow: &str| {
        let port = nobody();
        format!(
            "vantage = \"here\"\n[proxy]\nlisten = \"127.0.0.1:{port}\"\nallow_from = [\"{allow}\"]\naccess_log = \"access.log\"\n\
             [[check]]\nname = \"stranger\"\nkind = \"http\"\ntarget = \"http://192.0.2.80:443/\"\nvia = \"http://127.0.0.1:{port}\"\n\
             expect = [\"denied\"]\nwitness = []\nrequire = []\nattempts = 1\nfamilies = [\"ipv4\"]\n"
        )
    };
    fs::write(folder.path().join("probes.toml"), text("127.0.0.9/32")).unwrap();
    let report = |args: &[&str]| {
        let output =
            mustnot(folder.path(), &[&["check", "--format", "json", "--evidence", "access.log", "--evidence-wait", "10s"], args].concat());
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        (output.status.code().unwrap(), said)
    };
    let (code, said) = report(&[]);
    let seen = &said["checks"][0]["observations"][0];
    assert_eq!((code, seen["outcome"].as_str()), (0, Some("denied")), "{said}");
    let sighting = &seen["defence"][0];
    assert_eq!(
        (sighting["log"].as_str(), sighting["word"].as_str(), sighting["why"].as_str()),
        (Some("proxy"), Some("rejected"), Some("source")),
        "{said}"
    );
    assert_eq!(seen["flows"][0]["nonce"].as_str().map(str::len), Some(32), "{said}");
}

/// A monitor that follows a file: what is appended later joins the record, and an ACCEPT is an alarm until a REJECT takes it back.
#[test]
fn a_monitor_follows_its_logs() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("flow.log");
    // What was there before is not read, but its header holds.
    fs::write(&log, format!("{HEADER}\n")).unwrap();
    let (web, closed) = (nobody(), nobody());
    let text = format!(
        "vantage = \"here\"\n[web]\nlisten = \"127.0.0.1:{web}\"\n[evidence]\nfollow = [\"flow.log\", \"s3\"]\n\
         [[check]]\nname = \"closed\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:{closed}\"\nexpect = \"blocked\"\nrequire = []\nwitness = []\nattempts = 1\ninterval = \"1h\"\ntimeout = \"3s\"\n"
    );
    fs::write(folder.path().join("probes.toml"), text).unwrap();
    let mut monitor = Command::new(env!("CARGO_BIN_EXE_mustnot"))
        .arg("run")
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let get = |path: &str| {
        let output = Command::new("curl").args(["-s", &format!("http://127.0.0.1:{web}{path}")]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let check = || serde_json::from_str::<Value>(&get("/api/v1/checks")).ok().map(|report| report["checks"][0].clone());
    let wait = |what: &str, so: &dyn Fn(&Value) -> bool| {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let now = check();
            if let Some(now) = now.as_ref().filter(|now| so(now)) {
                return now.clone();
            }
            assert!(Instant::now() < until, "{what}: {now:?}\n{}", get("/metrics"));
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let run = wait("a first run", &|check| check["verdict"] == "holds");
    let flow = run["observations"][0]["flows"][0].clone();
    let append = |text: &str| fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(text.as_bytes()).unwrap();
    append("garbage\n");
    append(&format!("{}\n", line(&flow, "ACCEPT", "ingress")));
    let told = wait("the alarm", &|check| check["contradicted"].is_string());
    assert_eq!(
        (told["verdict"].as_str(), told["observations"][0]["defence"][0]["action"].as_str()),
        (Some("holds"), Some("ACCEPT")),
        "{told}"
    );
    for series in [
        format!("mustnot_evidence_contradicted_timestamp_seconds{{check=\"closed\",target=\"127.0.0.1:{closed}\""),
        format!(
            "mustnot_evidence_matched_total{{check=\"closed\",target=\"127.0.0.1:{closed}\",log=\"vpc-flow-log\",word=\"let-in\",vantage=\"here\"}} 1"
        ),
        "mustnot_evidence_lines_total{line=\"unreadable\",vantage=\"here\"} 1".into(),
        "mustnot_evidence_lost_total{vantage=\"here\"} 0".into(),
    ] {
        wait(&series, &|_| get("/metrics").contains(&series));
    }
    // In a file that comes anew, gzipped, as from S3.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    write!(gzip, "{HEADER}\n{}\n", line(&flow, "REJECT", "ingress").replace("eni-0a1b", "eni-0c2d")).unwrap();
    fs::create_dir_all(folder.path().join("s3/eu-central-1")).unwrap();
    fs::write(folder.path().join("s3/eu-central-1/flow.log.gz"), gzip.finish().unwrap()).unwrap();
    let told = wait("the all-clear", &|check| check["contradicted"].is_null());
    assert_eq!(told["observations"][0]["defence"].as_array().map(Vec::len), Some(2), "{told}");
    wait("no more alarm", &|_| !get("/metrics").contains("mustnot_evidence_contradicted_timestamp_seconds{"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(monitor.id()).unwrap()), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(monitor.wait().unwrap().success());
}

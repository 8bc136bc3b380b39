//! Runs the real binary inside a host of the world and reads what it says, with a few truths that every report must obey.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::service::{Process, until};
use crate::world::{Host, Lab, OFFICE4};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_mustnot");
/// No gate of the laboratory may take longer.
const GATE: Duration = Duration::from_secs(120);
/// A monitor is ready, or has seen a turn of the world, within this time.
pub const SOON: Duration = Duration::from_secs(60);

/// What `check` came to.
pub struct Run {
    /// The exit code.
    pub code: i32,
    /// The JSON report.
    pub report: Value,
    stderr: String,
}

/// The head of every configuration: short time-outs, but long enough for three SYNs.
pub fn config(vantage: &str, body: &str) -> String {
    format!("vantage = \"{vantage}\"\n[defaults]\ninterval = \"30s\"\ntimeout = \"3s\"\nattempts = 3\n{body}")
}

/// One check; `rest` are further lines of the table.
pub fn check(name: &str, kind: &str, target: &str, rest: &str) -> String {
    format!("\n[[check]]\nname = \"{name}\"\nkind = \"{kind}\"\ntarget = \"{target}\"\n{rest}\n")
}

/// The witness of the stranger: open for everybody, both families.
pub fn internet() -> String {
    check("internet", "tcp", "witness.lab.test:443", "expect = \"open\"")
}

/// The witness that asks the office's monitor for its check of that name.
pub fn peer(name: &str, there: &str) -> String {
    check(name, "peer", &format!("http://{OFFICE4}:9890"), &format!("check = \"{there}\"\nexpect = \"open\""))
}

/// An inverted TCP check, blocked, with witnesses and required proofs.
pub fn blocked(name: &str, target: &str, witness: &[&str], require: &[&str]) -> String {
    check(name, "tcp", target, &format!("expect = \"blocked\"\nwitness = {witness:?}\nrequire = {require:?}"))
}

/// Writes a configuration file of the test.
pub fn write_config(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.dir().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// A gate that was started and not yet waited for.
pub struct Gate {
    process: Process,
    name: String,
    output: PathBuf,
}

/// Runs `mustnot check` in a host and reads its report.
pub fn gate(lab: &Lab, host: Host, text: &str) -> Run {
    start_gate(lab, host, text, None).finish(lab)
}

/// Starts `mustnot check` in a host, if wished with a limit of open files.
pub fn start_gate(lab: &Lab, host: Host, text: &str, files: Option<u32>) -> Gate {
    let limit = format!("ulimit -n {}; exec \"$@\"", files.unwrap_or(0));
    let under = ["sh", "-c", &limit, "sh"];
    start_gate_under(lab, host, text, if files.is_some() { &under } else { &[] })
}

/// Starts `mustnot check` in a host by a command that runs others, such as `setpriv`.
pub fn start_gate_under(lab: &Lab, host: Host, text: &str, under: &[&str]) -> Gate {
    start_gate_with(lab, host, text, under, &[])
}

/// The same with more flags of its own.
pub fn start_gate_with(lab: &Lab, host: Host, text: &str, under: &[&str], flags: &[&str]) -> Gate {
    let name = lab.fresh("check");
    let config = write_config(lab, &format!("{name}.toml"), text);
    let output = lab.dir().join(format!("{name}.json"));
    let command = [BINARY, "check", "--config", config.to_str().unwrap(), "--format", "json", "--output", output.to_str().unwrap()];
    let command: Vec<&str> = under.iter().copied().chain(command).chain(flags.iter().copied()).collect();
    let process = Process::spawn(lab, host, &name, &command, false);
    Gate { process, name, output }
}

/// The same by whoever stands in front of the command, such as `setpriv` with another user.
pub fn start_gate_as(lab: &Lab, host: Host, text: &str, front: &[&str]) -> Gate {
    let name = lab.fresh("check");
    let config = write_config(lab, &format!("{name}.toml"), text);
    let output = lab.dir().join(format!("{name}.json"));
    // The build directory need not be open to everybody.
    let binary = lab.dir().join("mustnot");
    fs::copy(BINARY, &binary).unwrap();
    let own =
        [binary.to_str().unwrap(), "check", "--config", config.to_str().unwrap(), "--format", "json", "--output", output.to_str().unwrap()];
    let command: Vec<&str> = front.iter().copied().chain(own).collect();
    Gate { process: Process::spawn(lab, host, &name, &command, false), name, output }
}

/// The most memory that a process had so far, in KiB (proc(5), `VmHWM`).
pub fn peak_kib(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

impl Gate {
    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// The most memory that it had so far, in KiB; none once it has ended.
    pub fn peak_kib(&self) -> Option<u64> {
        peak_kib(self.process.id())
    }

    /// Waits for the end and reads the report, which must be sane.
    pub fn finish(mut self, lab: &Lab) -> Run {
        let ended = self.process.wait(GATE);
        let stderr = lab.log(&self.name);
        let code = ended.unwrap_or_else(|| panic!("check did not end within {GATE:?}: {stderr}")).code();
        let code = code.unwrap_or_else(|| panic!("check was killed: {stderr}"));
        let text = fs::read_to_string(&self.output).unwrap_or_else(|e| panic!("exit code {code}, no report ({e}): {stderr}"));
        let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("report is not JSON ({e}): {text}"));
        let run = Run { code, report, stderr };
        run.sane();
        run
    }
}

impl Run {
    /// A check of the report.
    pub fn check(&self, name: &str) -> &Value {
        named(&self.report, name).unwrap_or_else(|| panic!("no check {name:?} in {}", self.text()))
    }

    /// Asserts verdict, cause and the outcome of the observations that decided. Causes and outcomes may be alternatives,
    /// parted by `|`, or `*` where the specification leaves them open.
    pub fn expect(&self, name: &str, verdict: &str, cause: &str, outcome: &str) {
        let check = self.check(name);
        assert_eq!(check["verdict"], verdict, "verdict of {name}: {check:#}\n{}", self.stderr);
        assert!(one_of(cause, &check["cause"]), "cause of {name} must be {cause}: {check:#}");
        let decided: Vec<&Value> = observations(check).filter(|o| o["verdict"] == verdict).collect();
        assert!(outcome == "*" || !decided.is_empty(), "no observation of {name} is {verdict}: {check:#}");
        for observation in decided {
            assert!(one_of(outcome, &observation["outcome"]), "outcome of {name} must be {outcome}: {check:#}");
        }
    }

    /// Asserts that a check does not hold, where the specification leaves open what else it is.
    pub fn expect_never_holds(&self, name: &str) {
        assert_ne!(self.check(name)["verdict"], "holds", "{name} must not hold: {:#}", self.check(name));
        for observation in observations(self.check(name)) {
            assert_ne!(observation["outcome"], "internal", "{:#}", self.check(name));
        }
    }

    /// Asserts the proofs of a check, in any order.
    pub fn expect_proofs(&self, name: &str, proofs: &[&str]) {
        assert_eq!(strings(&self.check(name)["proofs"]), sorted(proofs), "proofs of {name}: {:#}", self.check(name));
    }

    /// Asserts the exit code.
    pub fn expect_code(&self, code: i32) {
        assert_eq!(self.code, code, "exit code; {}", self.text());
    }

    /// The observation of a check at an address.
    pub fn observation(&self, name: &str, address: &str) -> &Value {
        let found = observations(self.check(name)).find(|o| o["address"].as_str() == Some(address));
        found.unwrap_or_else(|| panic!("{name} has no observation at {address}: {:#}", self.check(name)))
    }

    fn text(&self) -> String {
        format!("{:#}\n{}", self.report, self.stderr)
    }

    /// What every report must obey, whatever the world did.
    fn sane(&self) {
        let report = &self.report;
        assert_eq!(report["schema"], 1, "{}", self.text());
        let checks = report["checks"].as_array().unwrap();
        let count = |verdict: &str| checks.iter().filter(|c| c["verdict"] == verdict).count();
        let summary = json!({ "holds": count("holds"), "violated": count("violated"), "unproven": count("unproven") });
        assert_eq!(report["summary"], summary, "{}", self.text());
        let due = match (count("violated"), count("unproven")) {
            (0, 0) => 0,
            (0, _) => 3,
            _ => 1,
        };
        assert_eq!(self.code, due, "the exit code must follow from the verdicts: {}", self.text());
        for check in checks {
            sane_check(check);
        }
    }
}

fn sane_check(check: &Value) {
    let holds = check["verdict"] == "holds";
    assert_eq!(holds, check["cause"] == "as-expected", "{check:#}");
    assert!(!check["reason"].as_str().unwrap().is_empty(), "{check:#}");
    assert!(!holds || observations(check).count() > 0, "nothing was observed: {check:#}");
    for observation in observations(check) {
        let outcome = observation["outcome"].as_str().unwrap();
        let local = ["local-error", "resolve-error", "internal"].contains(&outcome);
        assert!(!local || observation["verdict"] == "unproven", "a local fault is never more than unproven: {check:#}");
        assert!(!holds || observation["verdict"] == "holds", "a run is as bad as its worst observation: {check:#}");
        assert_ne!(outcome, "internal", "{check:#}");
        if holds {
            let run_proofs = strings(&check["proofs"]);
            let own = strings(&observation["proofs"]);
            assert!(run_proofs.iter().all(|p| own.contains(p)), "a run has the proofs that all its observations have: {check:#}");
        }
    }
    for witness in check["witnesses"].as_array().into_iter().flatten() {
        assert!(!holds || witness["proven"] == true, "a holds needs every named witness: {check:#}");
        if let (Some(before), Some(after), true) = (witness["before"].as_str(), witness["after"].as_str(), witness["proven"] == true) {
            assert!(before < after, "a proven witness brackets: {check:#}");
        }
    }
}

/// A check of a report by its name.
pub fn named<'a>(report: &'a Value, name: &str) -> Option<&'a Value> {
    report["checks"].as_array()?.iter().find(|c| c["name"] == name)
}

/// The observations of a check, as a list.
pub fn observed(check: &Value) -> Vec<&Value> {
    observations(check).collect()
}

fn observations(check: &Value) -> impl Iterator<Item = &Value> {
    check["observations"].as_array().into_iter().flatten()
}

fn one_of(alternatives: &str, found: &Value) -> bool {
    alternatives == "*" || alternatives.split('|').any(|a| found == a)
}

fn strings(list: &Value) -> Vec<String> {
    let found: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    sorted(&found)
}

fn sorted(list: &[&str]) -> Vec<String> {
    let mut made: Vec<String> = list.iter().map(ToString::to_string).collect();
    made.sort();
    made
}

/// A `mustnot run` with a web listener.
pub struct Monitor {
    process: Process,
    host: Host,
    address: &'static str,
    name: String,
}

impl Monitor {
    /// Starts it and waits until it is ready; `text` must have `[web] listen` at port 9890 of `address`.
    pub fn start(lab: &Lab, host: Host, address: &'static str, text: &str) -> Monitor {
        Monitor::start_until(lab, host, address, text, "/readyz")
    }

    /// Starts it and waits until it answers, whether its checks have run or not.
    pub fn start_unready(lab: &Lab, host: Host, address: &'static str, text: &str) -> Monitor {
        Monitor::start_until(lab, host, address, text, "/healthz")
    }

    fn start_until(lab: &Lab, host: Host, address: &'static str, text: &str, path: &str) -> Monitor {
        let name = lab.fresh("run");
        let config = write_config(lab, &format!("{name}.toml"), text);
        let command = [BINARY, "run", "--config", config.to_str().unwrap()];
        let process = Process::spawn(lab, host, &name, &command, false);
        let mut monitor = Monitor { process, host, address, name };
        let ready = until(SOON, || {
            assert!(monitor.process.ended().is_none(), "run ended: {}", lab.log(&monitor.name));
            (monitor.get(lab, path)["status"] == 200).then_some(())
        });
        assert!(ready.is_some(), "run did not get ready: {}", lab.log(&monitor.name));
        monitor
    }

    /// One GET from its own host.
    pub fn get(&self, lab: &Lab, path: &str) -> Value {
        lab.hub(self.host).ask(&json!({ "do": "get", "host": self.address, "port": 9890, "path": path }))
    }

    /// The text of `/metrics`.
    pub fn metrics(&self, lab: &Lab) -> String {
        let answer = self.get(lab, "/metrics");
        assert_eq!(answer["status"], 200, "{answer}");
        answer["body"].as_str().unwrap().to_owned()
    }

    /// Waits until a check at `/api/v1/checks` is as asked, and gives it.
    pub fn wait_for(&self, lab: &Lab, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = until(SOON, || {
            let answer = self.get(lab, "/api/v1/checks");
            let report: Value = serde_json::from_str(answer["body"].as_str()?).ok()?;
            last = named(&report, name)?.clone();
            is(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("{name} did not become {what}: {last:#}\n{}", lab.log(&self.name)))
    }

    /// Its process, to be signalled.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks it to end, and gives the exit code.
    pub fn terminate(mut self, lab: &Lab) -> Option<i32> {
        self.process.signal(Signal::SIGTERM);
        let ended = self.process.wait(Duration::from_secs(40));
        ended.unwrap_or_else(|| panic!("run did not end at SIGTERM: {}", lab.log(&self.name))).code()
    }
}

/// The monitor at the office, with the positive checks that the stranger asks for as a peer.
pub fn office(lab: &Lab) -> Monitor {
    let ca = lab.dir().join("ca.pem");
    let often = "expect = \"open\"\ninterval = \"2s\"\ntimeout = \"1s\"\nattempts = 1";
    let text = format!(
        "vantage = \"office\"\n[web]\nlisten = \"{OFFICE4}:9890\"\n{}{}{}",
        check("admin-open", "tcp", "admin.lab.test:443", often),
        check("admin-page", "http", "https://admin.lab.test/", &format!("{often}\nca_file = {ca:?}")),
        check("proxy-open", "tcp", "proxy.lab.test:3128", often),
    );
    Monitor::start(lab, Host::Allowed, OFFICE4, &text)
}

/// One series of the text format: labels and value.
pub struct Series {
    /// The labels, unescaped only as far as the laboratory needs.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

impl Series {
    /// A label's value, empty where it is missing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }
}

/// All series of one metric.
pub fn series(metrics: &str, name: &str) -> Vec<Series> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
    lines
        .map(|rest| {
            let (labels, value) = rest.rsplit_once(' ').unwrap();
            let inner = labels.trim_start_matches('{').trim_end_matches('}');
            let labels = inner.split("\",").filter_map(|pair| pair.trim_end_matches('"').split_once("=\""));
            Series { labels: labels.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(), value: value.parse().unwrap() }
        })
        .collect()
}

#[test]
fn the_text_format_is_read_as_written() {
    let text = "# HELP a b\n# TYPE a gauge\na{check=\"x\",target=\"[fd00::1]:443\",verdict=\"holds\"} 1\na_total{check=\"x\"} 2\na 3.5\n";
    let found = series(text, "a");
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].label("check"), found[0].label("target"), found[0].label("verdict"), found[0].value),
        ("x", "[fd00::1]:443", "holds", 1.0)
    );
    assert_eq!((found[1].label("check"), found[1].value), ("", 3.5));
}

//! A real Prometheus: the scrape configurations that are shipped, and what is pushed to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::monitor::{Monitor, PATIENCE, curl};
use crate::probe::{Site, closed};

const FOLDER: &str = "dashboards/prometheus/scrape";

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER).join(name)).unwrap()
}

/// A Prometheus, or a Victoria Metrics, for as long as it is in scope.
pub struct Server {
    child: Child,
    pub at: SocketAddr,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Prometheus with this configuration, beside files that `prepare` writes; none, and a word, where it is not installed.
    pub fn prometheus(test: &str, config: &str, arguments: &[&str], prepare: impl Fn(&Path)) -> Option<Server> {
        Server::start(test, ("prometheus", "prometheus"), "/-/ready", |folder, at| {
            fs::write(folder.join("prometheus.yaml"), config).unwrap();
            prepare(folder);
            let own = [format!("--web.listen-address={at}"), "--config.file=prometheus.yaml".into(), "--storage.tsdb.path=data".into()];
            own.into_iter().chain(arguments.iter().map(ToString::to_string)).collect()
        })
    }

    pub fn start(
        test: &str,
        (program, package): (&str, &str),
        ready: &str,
        arguments: impl Fn(&Path, SocketAddr) -> Vec<String>,
    ) -> Option<Server> {
        // It has no way to say which port it took: one that is free is given to it, and another one where somebody was quicker.
        for _ in 0..5 {
            let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let log = fs::File::create(folder.path().join("log")).unwrap();
            let child = Command::new(program)
                .args(arguments(folder.path(), at))
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn();
            let child = match child {
                Ok(child) => child,
                Err(e) => {
                    println!("SKIPPED {test}: cannot run {program} (Debian: {package}): {e}");
                    return None;
                }
            };
            let mut server = Server { child, at, folder };
            let begun = Instant::now();
            while server.child.try_wait().unwrap().is_none() {
                if curl(&format!("http://{at}{ready}"), server.folder.path(), &[]).status == 200 {
                    return Some(server);
                }
                assert!(begun.elapsed() < PATIENCE, "{program} does not get ready: {}", server.log());
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            let log = server.log();
            assert!(log.contains("address already in use"), "{program} ended: {log}");
        }
        panic!("no port for {program}");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Labels and value of every series that the query gives.
    pub fn query(&self, query: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let arguments = ["-G", "--data-urlencode", &format!("query={query}")];
        let answer = curl(&format!("http://{}/api/v1/query", self.at), self.folder.path(), &arguments);
        let read: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{query}: {answer:?}"));
        let series = read["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer:?}"));
        let one = |series: &Value| {
            let labels =
                series["metric"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_string()));
            (labels.collect(), series["value"][1].as_str().unwrap().parse().unwrap())
        };
        series.iter().map(one).collect()
    }

    pub fn until<T>(&self, what: &str, is: impl Fn() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = is() {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "never: {what}\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
}

#[test]
fn promtool_accepts_every_scrape_configuration() {
    let names: BTreeSet<String> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["file_sd.yaml", "probe.yaml", "sharded.yaml", "static.yaml"].map(String::from).into());
    for name in names {
        let file = format!("{FOLDER}/{name}");
        let output = match Command::new("promtool").args(["check", "config", &file]).current_dir(env!("CARGO_MANIFEST_DIR")).output() {
            Ok(output) => output,
            Err(e) => {
                println!("SKIPPED promtool_accepts_every_scrape_configuration: cannot run promtool (Debian: prometheus): {e}");
                return;
            }
        };
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The check of the examples, for a target that Prometheus names.
fn monitor(witness: &Site) -> Monitor {
    Monitor::start(
        &format!(
            "vantage = \"office\"\n[web]\nlisten = \"127.0.0.1:0\"\n\
             [[check]]\nname = \"internet\"\nkind = \"http\"\ntarget = \"http://{}/\"\nexpect = \"open\"\ninterval = \"1h\"\n\
             [[check]]\nname = \"db-closed\"\nkind = \"tcp\"\nexpect = \"blocked\"\nwitness = [\"internet\"]\ntemplate = true\nallow_targets = [\"127.0.0.0/8\"]\n",
            witness.at
        ),
        |_| {},
    )
}

/// In a hurry, and to where the monitors are.
fn hurried(name: &str, monitors: &[SocketAddr]) -> String {
    let written = example(name);
    assert!(written.contains("scrape_interval: 30s") == written.contains("/probe\n"));
    let hurried = written.replace("scrape_interval: 30s", "scrape_interval: 8s").replace("scrape_timeout: 20s", "scrape_timeout: 8s");
    let hurried = hurried.replace("job_name: mustnot\n", "job_name: mustnot\n    scrape_interval: 1s\n    scrape_timeout: 1s\n");
    let hurried = hurried.replace("refresh_interval: 1m", "refresh_interval: 1s");
    let places = ["127.0.0.1:9890", "10.0.0.1:9890", "10.0.0.2:9890"];
    let places: Vec<&str> = places.into_iter().filter(|place| hurried.contains(place)).collect();
    assert!(places.len() <= monitors.len());
    places.into_iter().zip(monitors).fold(hurried, |text, (place, at)| text.replace(place, &at.to_string()))
}

fn labels(series: &[(BTreeMap<String, String>, f64)], name: &str) -> BTreeMap<String, f64> {
    let all: BTreeMap<String, f64> = series.iter().map(|(labels, value)| (labels.get(name).cloned().unwrap_or_default(), *value)).collect();
    assert_eq!(all.len(), series.len(), "twice: {series:?}");
    all
}

#[test]
fn prometheus_finds_monitors_by_name_and_by_file() {
    let witness = Site::new();
    let (one, other) = (monitor(&witness), monitor(&witness));
    for (name, all) in [("static.yaml", vec![one.at]), ("file_sd.yaml", vec![one.at, other.at])] {
        let files = serde_json::json!([{ "targets": all, "labels": { "site": "a" } }]).to_string();
        let prepare = |folder: &Path| {
            fs::create_dir(folder.join("monitors")).unwrap();
            fs::write(folder.join("monitors/a.json"), &files).unwrap();
        };
        let server = Server::prometheus("prometheus_finds_monitors_by_name_and_by_file", &hurried(name, &[one.at]), &[], prepare);
        let Some(server) = server else { return };
        let expected: BTreeMap<String, f64> = all.iter().map(|at| (at.to_string(), 1.0)).collect();
        server.until(name, || (labels(&server.query("up{job=\"mustnot\"}"), "instance") == expected).then_some(()));
        let holds = server.query("mustnot_check_verdict{check=\"internet\",verdict=\"holds\",vantage=\"office\"}");
        assert_eq!(holds.len(), all.len(), "{holds:?}");
    }
}

#[test]
fn prometheus_has_many_targets_probed_each_by_exactly_one_of_two_monitors() {
    let test = "prometheus_has_many_targets_probed_each_by_exactly_one_of_two_monitors";
    let (witness, open) = (Site::new(), Site::new());
    let (one, other) = (monitor(&witness), monitor(&witness));
    let held: Vec<_> = (0..15).map(|_| closed()).collect();
    let targets: Vec<String> = held.iter().map(|(_, at)| at.to_string()).chain([open.at.to_string()]).collect();
    let files = serde_json::json!([{ "targets": targets, "labels": { "team": "a" } }]).to_string();
    let prepare = |folder: &Path| {
        fs::create_dir(folder.join("targets")).unwrap();
        fs::write(folder.join("targets/a.json"), &files).unwrap();
    };
    let expected: BTreeMap<String, f64> =
        targets.iter().map(|at| (at.clone(), if *at == open.at.to_string() { 0.0 } else { 1.0 })).collect();
    for (name, monitors) in [("probe.yaml", vec![one.at]), ("sharded.yaml", vec![one.at, other.at])] {
        let Some(server) = Server::prometheus(test, &hurried(name, &monitors), &[], prepare) else { return };
        let probed = |what: &str| server.query(&format!("{what}{{job=\"mustnot-probe\",team=\"a\"}}"));
        server.until(name, || (labels(&probed("probe_success"), "instance") == expected).then_some(()));
        assert!(probed("up").iter().all(|(_, up)| *up == 1.0) && probed("up").len() == targets.len());
        assert!(probed("probe_unproven").iter().all(|(_, unproven)| *unproven == 0.0));
        let violated = server.query("mustnot_check_verdict{check=\"db-closed\",verdict=\"violated\"} == 1");
        assert_eq!(labels(&violated, "target").into_keys().collect::<Vec<_>>(), [open.at.to_string()], "the alert rules see it");
        if name == "sharded.yaml" {
            let by_target = server.query("count by (instance) (probe_success)");
            assert!(by_target.len() == targets.len() && by_target.iter().all(|(_, count)| *count == 1.0), "{by_target:?}");
            let by_monitor = labels(&server.query("count by (monitor) (probe_success)"), "monitor");
            let asked: BTreeSet<String> = monitors.iter().map(ToString::to_string).collect();
            assert_eq!(by_monitor.keys().cloned().collect::<BTreeSet<_>>(), asked, "both are asked");
            assert_eq!(by_monitor.values().sum::<f64>(), 16.0);
        }
    }
}

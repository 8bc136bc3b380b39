//! Alerts, end to end: from a packet filter that opens a port to a firing alert in a real Alertmanager, by our own way and by a real
//! Prometheus with the shipped rules; and what a monitor that is killed in the middle still tells.

use std::fs;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::run::{Monitor, SOON, check};
use crate::service::{Process, until};
use crate::world::{ADMIN4, Denial, Host, Lab, WITNESS4};

const HERE: &str = "127.0.0.1";
/// The check's interval, in seconds.
const INTERVAL: f64 = 2.0;
/// How often the own way is measured; that of the rules goes on for five minutes after each.
const ROUNDS: usize = 5;

/// A real Alertmanager beside the monitor.
struct Alertmanager {
    port: u16,
    _process: Process,
}

impl Alertmanager {
    fn start(lab: &Lab, port: u16) -> Alertmanager {
        let name = format!("alertmanager-{port}");
        let config = lab.dir().join(format!("{name}.yaml"));
        fs::write(&config, "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n").unwrap();
        let command = [
            "prometheus-alertmanager",
            &format!("--config.file={}", config.display()),
            &format!("--storage.path={}", lab.dir().join(&name).display()),
            &format!("--web.listen-address={HERE}:{port}"),
            "--cluster.listen-address=",
        ];
        let process = Process::spawn(lab, Host::Stranger, &name, &command, false);
        let manager = Alertmanager { port, _process: process };
        let ready = until(SOON, || (get(lab, port, "/-/ready")["status"] == 200).then_some(()));
        assert!(ready.is_some(), "{}", lab.log(&name));
        manager
    }

    /// Every violation that it shows as firing.
    fn violated(&self, lab: &Lab) -> Vec<Value> {
        let answer = get(lab, self.port, "/api/v2/alerts?filter=alertname%3DMustnotViolated");
        serde_json::from_str(answer["body"].as_str().unwrap_or("[]")).unwrap_or_default()
    }

    fn wait_for(&self, lab: &Lab, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut last = Vec::new();
        let found = until(SOON * 2, || {
            last = self.violated(lab);
            is(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("never {what}: {last:#?}"))
    }
}

fn get(lab: &Lab, port: u16, path: &str) -> Value {
    lab.hub(Host::Stranger).ask(&json!({ "do": "get", "host": HERE, "port": port, "path": path }))
}

/// A real Prometheus with the shipped rules, that looks as often as the check does twice.
fn prometheus(lab: &Lab, manager: u16) -> Process {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/prometheus/alerts.yaml");
    let config = lab.dir().join("prometheus.yaml");
    let text = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\n\
         alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ['{HERE}:{manager}'] }}] }}] }}\n\
         scrape_configs: [{{ job_name: mustnot, static_configs: [{{ targets: ['{HERE}:9890'] }}] }}]\n",
        rules.display()
    );
    fs::write(&config, text).unwrap();
    let command = [
        "prometheus",
        &format!("--config.file={}", config.display()),
        &format!("--storage.tsdb.path={}", lab.dir().join("prometheus").display()),
        &format!("--web.listen-address={HERE}:9091"),
    ];
    let process = Process::spawn(lab, Host::Stranger, "prometheus", &command, false);
    let scraped = until(SOON, || {
        let answer = get(lab, 9091, "/api/v1/query?query=up%7Bjob%3D%22mustnot%22%7D%3D%3D1");
        answer["body"].as_str()?.contains("\"value\"").then_some(())
    });
    assert!(scraped.is_some(), "{}", lab.log("prometheus"));
    process
}

fn text(sinks: &str) -> String {
    let witness = check("witness", "tcp", &format!("{WITNESS4}:22"), "expect = \"open\"");
    let closed =
        check("closed", "tcp", &format!("{ADMIN4}:443"), "expect = [\"refused\"]\nwitness = [\"witness\"]\nseverity = \"critical\"");
    format!(
        "vantage = \"stranger\"\nstate_dir = \"state\"\n[defaults]\ninterval = \"{INTERVAL}s\"\ntimeout = \"1s\"\nattempts = 1\n\
         [web]\nlisten = \"{HERE}:9890\"\n{sinks}{witness}{closed}"
    )
}

fn sink(ports: &[u16], rest: &str) -> String {
    let urls: Vec<String> = ports.iter().map(|port| format!("http://{HERE}:{port}")).collect();
    format!("[[alert]]\nkind = \"alertmanager\"\nurl = {urls:?}\n{rest}\n")
}

/// The median, and the least and the most.
fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}

#[test]
fn from_an_open_port_to_a_firing_alert_by_both_ways() {
    let Some(lab) = Lab::new() else { return };
    lab.acl(Denial::Reset);
    let (own, by_rules) = (Alertmanager::start(&lab, 9093), Alertmanager::start(&lab, 9094));
    let quick = "keep_firing_for = \"0s\"\nlabels = { job = \"mustnot\" }\nrepeat_interval = \"1s\"";
    let mut monitor = Monitor::start(&lab, Host::Stranger, HERE, &text(&sink(&[9093], quick)));
    monitor.wait_for(&lab, "closed", "holding", |c| c["verdict"] == "holds");

    // Each opening comes right after a run, which is the worst moment for it.
    let (mut judged, mut told) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        lab.acl_open();
        monitor.wait_for(&lab, "closed", "violated", |c| c["verdict"] == "violated");
        judged.push(begun.elapsed().as_secs_f64() / INTERVAL);
        let alerts = own.wait_for(&lab, "firing", |all| !all.is_empty());
        told.push(begun.elapsed().as_secs_f64() / INTERVAL);
        assert_eq!(alerts[0]["labels"]["check"], "closed", "{alerts:#?}");
        lab.acl(Denial::Reset);
        own.wait_for(&lab, "over", <[Value]>::is_empty);
    }

    let _prometheus = prometheus(&lab, 9094);
    let begun = Instant::now();
    lab.acl_open();
    own.wait_for(&lab, "firing", |all| !all.is_empty());
    let own_took = begun.elapsed().as_secs_f64() / INTERVAL;
    let theirs = by_rules.wait_for(&lab, "firing", |all| !all.is_empty());
    let rules_took = begun.elapsed().as_secs_f64() / INTERVAL;
    eprintln!(
        "from nft to a firing alert, in intervals of the check ({INTERVAL} s): judged {}, told {}; once by both: own way {own_took:.2}, by Prometheus, \
         which scrapes and judges every half interval, {rules_took:.2}",
        spread(&mut judged),
        spread(&mut told),
    );
    // An interval until the run begins, then its witness, its attempt and its decoy; and room for a machine that is busy.
    assert!(told[ROUNDS / 2] < 2.0 + 3.0 / INTERVAL, "{told:?}");
    assert!(own_took < rules_took + 1.0, "{own_took} {rules_took}");

    // Both ways tell one alert: the same labels, so that one Alertmanager takes them for one.
    let [mine] = own.violated(&lab).try_into().unwrap_or_else(|all| panic!("{all:#?}"));
    assert_eq!(theirs.len(), 1, "{theirs:#?}");
    let labels = |alert: &Value| {
        let mut labels = alert["labels"].clone();
        // Who scrapes knows which process it was; the rule leaves that out of what is said of a check.
        labels.as_object_mut().unwrap().remove("instance");
        labels
    };
    assert_eq!(labels(&mine), labels(&theirs[0]));
    assert_eq!(mine["annotations"]["summary"], theirs[0]["annotations"]["summary"]);
    assert_eq!(mine["fingerprint"], theirs[0]["fingerprint"]);
    assert!(mine["annotations"]["reproduce"].as_str().unwrap().contains("203.0.113.7"), "{mine:#}");

    // A reload: now both are told by us, too, and there is still one alert.
    let config = fs::read_dir(lab.dir()).unwrap().map(|entry| entry.unwrap().path());
    let config = config
        .into_iter()
        .find(|path| {
            path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("run")) && path.extension().is_some_and(|e| e == "toml")
        })
        .unwrap();
    fs::write(&config, text(&sink(&[9093, 9094], quick))).unwrap();
    monitor.process().signal(Signal::SIGHUP);
    by_rules.wait_for(&lab, "told by both", |all| all.iter().any(|alert| alert["annotations"]["reproduce"].is_string()));
    assert_eq!(by_rules.violated(&lab).len(), 1, "{:#?}", by_rules.violated(&lab));
    assert_eq!(monitor.terminate(&lab), Some(0));
}

#[test]
fn a_monitor_that_is_killed_while_nobody_hears_it_tells_it_after_all() {
    let Some(lab) = Lab::new() else { return };
    lab.acl(Denial::Reset);
    let config = text(&sink(&[9093], ""));
    let mut monitor = Monitor::start(&lab, Host::Stranger, HERE, &config);
    monitor.wait_for(&lab, "closed", "holding", |c| c["verdict"] == "holds");
    lab.acl_open();
    monitor.wait_for(&lab, "closed", "violated", |c| c["verdict"] == "violated");
    let kept = lab.dir().join("state/alerts.json");
    let written = until(SOON, || fs::read_to_string(&kept).ok()?.contains("MustnotViolated").then_some(()));
    assert!(written.is_some(), "what nobody hears is kept");
    lab.acl(Denial::Reset);
    monitor.process().signal(Signal::SIGKILL);
    let gone = until(SOON, || monitor.process().ended());
    assert!(gone.is_some());

    // It is closed again by the time that it is back: that it was open is told all the same, before that it is over.
    let monitor = Monitor::start(&lab, Host::Stranger, HERE, &config);
    monitor.wait_for(&lab, "closed", "holding", |c| c["verdict"] == "holds" && c["cause"] == "as-expected");
    let manager = Alertmanager::start(&lab, 9093);
    let alerts = manager.wait_for(&lab, "told", |all| !all.is_empty());
    assert_eq!(alerts[0]["labels"]["check"], "closed");
    assert!(alerts[0]["annotations"]["first_open"].is_string(), "{alerts:#?}");
    assert_eq!(monitor.terminate(&lab), Some(0));
}

//! Targets: one check on many, from the file and from files that others write, in the real program.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mustnot::plan::{Keys, Loaded, from_text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Long enough for two looks at the files and the runs that follow.
const SOON: Duration = Duration::from_secs(60);

fn read(text: &str, folder: &Path) -> Result<Loaded, String> {
    from_text("f", text, folder, &|_| Some("from-the-environment".into()), Keys::Read).map_err(|problems| problems.to_string())
}

/// A check of what `targets` says, beside a witness of two targets.
fn file(targets: &str) -> String {
    format!(
        "vantage = \"v\"\n[[check]]\nname = \"alive\"\nkind = \"tcp\"\ntargets = [\"a.example:1\", \"b.example:2\"]\nexpect = \"open\"\n\
         [[check]]\nname = \"closed\"\nkind = \"tcp\"\n{targets}\nexpect = \"blocked\"\nwitness = [\"alive\"]\nlabels = {{ team = \"mine\" }}\n"
    )
}

#[test]
fn a_file_of_targets_makes_a_check_of_each() {
    let folder = tempfile::tempdir().unwrap();
    let groups = json!([
        { "targets": ["one.example:1", "203.0.113.0/31:2"], "labels": { "team": "theirs", "zone": "z", "__meta": "m" } },
        { "targets": ["one.example:1", "${SECRET}.example:3"] },
    ]);
    fs::write(folder.path().join("a-1.json"), groups.to_string()).unwrap();
    fs::write(folder.path().join("a-2.json"), json!([{ "targets": ["two.example:1"] }]).to_string()).unwrap();
    let loaded = read(&file("targets_from = \"a-*.json\"\ntarget_labels = [\"team\", \"zone\"]"), folder.path());
    // What somebody else wrote does not reach into our environment: it is taken as it stands, and is no name.
    let said = loaded.unwrap_err();
    assert!(said.contains("a-1.json says \"${SECRET}.example\" is not a DNS name"), "{said}");

    fs::write(folder.path().join("a-1.json"), groups.to_string().replace("${SECRET}", "s")).unwrap();
    let plan = read(&file("targets_from = \"a-*.json\"\ntarget_labels = [\"team\", \"zone\"]"), folder.path()).unwrap().plan;
    let closed: Vec<_> = plan.checks.iter().filter(|check| check.name == "closed").collect();
    let targets: Vec<&str> = closed.iter().map(|check| check.target.as_str()).collect();
    assert_eq!(targets, ["one.example:1", "203.0.113.0:2", "203.0.113.1:2", "s.example:3", "two.example:1"]);
    let labels = |at: usize| closed[at].labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    assert_eq!((labels(0), labels(4)), (vec!["team=theirs".into(), "zone=z".into()], vec!["team=mine".to_string()]));
    assert!(closed.iter().all(|check| check.witness_numbers().collect::<Vec<_>>() == [0, 1]));
    assert_eq!(plan.depends_on.len(), 1);
}

#[test]
fn a_file_of_targets_that_says_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let said = |text: &str| {
        fs::write(folder.path().join("t.json"), text).unwrap();
        read(&file("targets_from = \"t.json\""), folder.path()).map(|_| ()).unwrap_err()
    };
    assert!(said("[]").contains("t.json names no target"));
    assert!(said("[{\"targets\": []}]").contains("t.json names no target"));
    assert!(said("[{\"targets\": [\"a\"]}]").contains("t.json says \"a\" names no port"));
    assert!(said("targets: [a:1]").contains("t.json: expected"));
    assert!(said(&format!("[{{\"targets\": [\"a:1\"]}}]{}", " ".repeat(5 << 20))).contains("is longer than"));
}

/// A monitor, ended with the test.
struct Monitor(Child, String);

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Monitor {
    fn start(config: &Path) -> Monitor {
        let command = [env!("CARGO_BIN_EXE_mustnot"), "run", "--config", config.to_str().unwrap()];
        let mut child = Command::new(command[0]).args(&command[1..]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let web = lines.find_map(|line| Some(line.split_once("http://")?.1.trim_end_matches('/').to_string()));
        let monitor = Monitor(child, web.unwrap());
        std::thread::spawn(move || lines.for_each(drop));
        monitor
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.1).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.1).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_string()
    }

    /// Targets and verdicts of the check.
    fn verdicts(&self) -> Vec<(String, String)> {
        let report: Value = serde_json::from_str(&self.get("/api/v1/checks")).unwrap();
        let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_string();
        let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "watched");
        checks.map(|check| (text(check, "target"), text(check, "verdict"))).collect()
    }

    fn until(&self, what: &str, done: impl Fn(&Monitor) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < SOON, "{what} did not come: {:?}", self.verdicts());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn targets_come_and_go_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let at = |i: usize| listeners[i].local_addr().unwrap().to_string();
    let targets = |text: &str| {
        let new = folder.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, folder.path().join("targets.json")).unwrap();
    };
    let of = |all: &[String]| json!([{ "targets": all }]).to_string();
    targets(&of(&[at(0), at(1)]));
    let config = folder.path().join("probes.toml");
    let text = "vantage = \"v\"\n[web]\nlisten = \"127.0.0.1:0\"\n[[check]]\nname = \"watched\"\nkind = \"tcp\"\n\
                targets_from = \"targets.json\"\nexpect = \"open\"\ninterval = \"1s\"\n";
    fs::write(&config, text).unwrap();
    let monitor = Monitor::start(&config);
    let all_hold = |of: &[String]| of.iter().map(|target| (target.clone(), "holds".to_string())).collect::<Vec<_>>();
    monitor.until("the first verdicts", |m| m.verdicts() == all_hold(&[at(0), at(1)]));
    let runs = |text: &str, target: &str| {
        let labels = ["check=\"watched\"", "verdict=\"holds\"", &format!("target=\"{target}\"")].map(String::from);
        let mut series = text.lines().filter(|line| line.starts_with("mustnot_check_runs_total{"));
        series.find(|line| labels.iter().all(|label| line.contains(label)))?.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    let before = runs(&monitor.get("/metrics"), &at(1)).unwrap();

    targets(&of(&[at(1), at(2)]));
    monitor.until("the new target", |m| m.verdicts() == all_hold(&[at(1), at(2)]));
    let metrics = monitor.get("/metrics");
    assert!(runs(&metrics, &at(1)).unwrap() >= before, "what stays keeps its counts");
    assert!(!metrics.contains(&format!("target=\"{}\"", at(0))), "what is gone leaves no series");
    assert!(metrics.contains("mustnot_config_last_reload_successful{vantage=\"v\"} 1"));

    targets("[{\"targets\": [\"not a target\"]}]");
    monitor.until("the failed reload", |m| m.get("/metrics").contains("mustnot_config_last_reload_successful{vantage=\"v\"} 0"));
    assert_eq!(monitor.verdicts(), all_hold(&[at(1), at(2)]), "what was known stays");

    targets(&of(&[at(2)]));
    monitor.until("the mended file", |m| m.verdicts() == all_hold(&[at(2)]));
    let taken =
        |m: &Monitor, value: u8| m.get("/metrics").contains(&format!("mustnot_config_last_reload_successful{{vantage=\"v\"}} {value}"));
    assert!(taken(&monitor, 1));

    // The configuration itself is broken: targets that come and go meanwhile are taken over, and make it no better.
    let reread = |text: &str| {
        fs::write(&config, text).unwrap();
        kill(Pid::from_raw(monitor.0.id().cast_signed()), Signal::SIGHUP).unwrap();
    };
    reread("vantage = ");
    monitor.until("the broken configuration", |m| taken(m, 0));
    targets(&of(&[at(1)]));
    monitor.until("the targets all the same", |m| m.verdicts() == all_hold(&[at(1)]));
    assert!(taken(&monitor, 0), "it would not start anew");
    reread(text);
    monitor.until("the mended configuration", |m| taken(m, 1));
}

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
        Server::prometheus_by("http", test, config, arguments, prepare)
    }

    fn prometheus_by(scheme: &str, test: &str, config: &str, arguments: &[&str], prepare: impl Fn(&Path)) -> Option<Server> {
        Server::start(test, ("prometheus", "prometheus"), (scheme, "/-/ready"), |folder, at| {
            fs::write(folder.join("prometheus.yaml"), config).unwrap();
            prepare(folder);
            let own = [format!("--web.listen-address={at}"), "--config.file=prometheus.yaml".into(), "--storage.tsdb.path=data".into()];
            own.into_iter().chain(arguments.iter().map(ToString::to_string)).collect()
        })
    }

    pub fn start(
        test: &str,
        (program, package): (&str, &str),
        (scheme, ready): (&str, &str),
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
                if curl(&format!("{scheme}://{at}{ready}"), server.folder.path(), &["-k"]).status == 200 {
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

/// What a run pushes, and where.
struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    /// A check that holds, and one that is violated.
    fn new(open: SocketAddr, nobody: SocketAddr) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let check = |name: &str, target: SocketAddr| {
            format!(
                "[[check]]\nname = \"{name}\"\nkind = \"tcp\"\ntarget = \"{target}\"\nexpect = [\"refused\"]\nwitness = []\nrequire = []\nattempts = 1\nlabels = {{ team = \"a\" }}\n"
            )
        };
        fs::write(folder.path().join("probes.toml"), format!("vantage = \"ci\"\n{}{}", check("shut", nobody), check("ajar", open)))
            .unwrap();
        Run { folder }
    }

    /// Exit code, standard output and standard error.
    fn push(&self, to: &str, arguments: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_mustnot"))
            .args(["check", "--remote-write", to])
            .args(arguments)
            .envs(env.iter().copied())
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }
}

/// What both kinds of server are to know after a run.
fn assert_pushed(server: &Server, nobody: SocketAddr, started: f64) {
    let verdict = server.until("the verdicts", || {
        let series = server.query("mustnot_check_verdict{job=\"mustnot-check\",instance=\"ci\",vantage=\"ci\"} == 1");
        (series.len() == 2).then_some(series)
    });
    let told: BTreeMap<&str, &str> = verdict.iter().map(|(labels, _)| (labels["check"].as_str(), labels["verdict"].as_str())).collect();
    assert_eq!(told, [("ajar", "violated"), ("shut", "holds")].into());
    let info = server.query("mustnot_check_info{check=\"shut\"}");
    assert_eq!((info[0].0["team"].as_str(), info[0].0["target"].clone(), info[0].0["site"].as_str()), ("a", nobody.to_string(), "lab"));
    let ran = server.query("mustnot_check_last_run_timestamp_seconds");
    assert!(ran.len() == 2 && ran.iter().all(|(_, at)| *at >= started && *at < started + 600.0), "{ran:?}");
    assert_eq!(server.query("mustnot_push_interval_seconds")[0].1, 3600.0);
    assert!(server.query("timestamp(mustnot_push_timestamp_seconds)")[0].1 >= started.floor());
    assert_eq!(server.query("mustnot_check_stale_after_seconds"), [], "a run that nobody repeats is good for no time");
    assert_eq!(server.query("{__name__=~\".*_total|probe_.*|mustnot_build_info\",job=\"mustnot-check\"}"), []);
}

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

const EVERY: [&str; 4] = ["--remote-write-every", "1h", "--remote-write-label", "site=lab"];

#[test]
fn prometheus_takes_what_a_run_pushes() {
    let (open, (_held, nobody)) = (Site::new(), closed());
    let receiver = ["--web.enable-remote-write-receiver"];
    let Some(server) = Server::prometheus("prometheus_takes_what_a_run_pushes", "global: {}\n", &receiver, |_| {}) else { return };
    let (run, started) = (Run::new(open.at, nobody), now());
    let (code, out, err) = run.push(&format!("http://{}/api/v1/write", server.at), &EVERY, &[]);
    assert_eq!(code, 1, "{out} {err}");
    assert!(out.contains("ajar") && !err.contains("not taken"), "{out} {err}");
    assert_pushed(&server, nobody, started);
    // a later run replaces what the earlier said
    drop(open);
    let (code, _, err) = run.push(&format!("http://{}/api/v1/write", server.at), &["--only", "shut"], &[]);
    assert_eq!(code, 0, "{err}");

    // the receiver is not on: it is said what is missing, and the report is written all the same
    let Some(deaf) = Server::prometheus("prometheus_takes_what_a_run_pushes", "global: {}\n", &[], |_| {}) else { return };
    let url = format!("http://{}/api/v1/write", deaf.at);
    let (code, out, err) = run.push(&url, &["--only", "shut", "--format", "json", "--output", "report.json"], &[]);
    assert_eq!(code, 5, "{out} {err}");
    assert!(err.contains(&format!("the metrics of this run were not taken by {url}: it answered 404")), "{err}");
    assert!(err.contains("--web.enable-remote-write-receiver"), "{err}");
    let report: Value = serde_json::from_str(&fs::read_to_string(run.folder.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(report["summary"]["holds"], 1);
}

#[test]
fn victoria_metrics_takes_what_a_run_pushes() {
    let (open, (_held, nobody)) = (Site::new(), closed());
    let test = "victoria_metrics_takes_what_a_run_pushes";
    let server = Server::start(test, ("victoria-metrics", "victoria-metrics"), ("http", "/health"), |folder, at| {
        vec![
            format!("-httpListenAddr={at}"),
            format!("-storageDataPath={}", folder.join("data").display()),
            "-search.latencyOffset=0s".into(),
        ]
    });
    let Some(server) = server else { return };
    let (run, started) = (Run::new(open.at, nobody), now());
    let (code, out, err) = run.push(&format!("http://{}/api/v1/write", server.at), &EVERY, &[]);
    assert_eq!(code, 1, "{out} {err}");
    assert_pushed(&server, nobody, started);
}

/// A server that answers each request with the next of these, and keeps what it was sent.
fn answering(answers: &'static [&'static str]) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    use std::io::{BufRead as _, Read as _, Write as _};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for (nth, mut stream) in listener.incoming().flatten().enumerate() {
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head += &line;
            }
            let _ = reader.read_exact(&mut vec![0; length]);
            let _ = tell.send(head);
            let answer = answers[nth.min(answers.len() - 1)];
            let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\nConnection: close\r\n\r\n").as_bytes());
        }
    });
    (at, told)
}

#[test]
fn a_push_shows_who_it_is_and_tries_again_what_may_pass() {
    let (_held, nobody) = closed();
    let run = Run::new(nobody, nobody);
    fs::write(run.folder.path().join("password"), "correct horse\n").unwrap();
    fs::write(run.folder.path().join("token"), "a-token\n").unwrap();

    let (at, told) = answering(&["503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0", "204 No Content"]);
    let url = format!("http://{at}/api/v1/write");
    let by_password = ["--remote-write-user", "ann", "--remote-write-password-file", "password"];
    assert_eq!(run.push(&url, &by_password, &[]).0, 0);
    let heads: Vec<String> = told.try_iter().collect();
    assert_eq!(heads.len(), 2, "once again: {heads:?}");
    let head = heads[0].to_lowercase();
    for line in [
        "post /api/v1/write http/1.1",
        "content-encoding: snappy",
        "content-type: application/x-protobuf",
        "x-prometheus-remote-write-version: 0.1.0",
        "user-agent: mustnot/",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    assert!(heads[0].contains("Basic YW5uOmNvcnJlY3QgaG9yc2U="), "{heads:?}");
    assert_eq!(run.push(&url, &["--remote-write-token-file", "token"], &[]).0, 0);
    assert!(told.try_iter().any(|head| head.contains("Bearer a-token")));
    assert_eq!(run.push(&url, &["--remote-write-user", "ann"], &[("MUSTNOT_REMOTE_WRITE_PASSWORD", "x")]).0, 0);
    assert!(told.try_iter().any(|head| head.contains("Basic YW5uOng=")));
    assert_eq!(run.push(&url, &[], &[("MUSTNOT_REMOTE_WRITE_TOKEN", "of-the-environment")]).0, 0);
    assert!(told.try_iter().any(|head| head.contains("Bearer of-the-environment")));

    // what is wrong by itself is not tried again, a redirect is followed nowhere, and no secret is told
    for (answers, word) in [
        (
            &["401 Unauthorized\r\nContent-Length: 14\r\n\r\ncorrect horse!"][..],
            "it answered 401 Unauthorized: ***!; see --remote-write-user",
        ),
        (&["400 Bad Request\r\nContent-Length: 10\r\n\r\nout of it\n"], "it answered 400 Bad Request: out of it;"),
        (&["307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0"], "it answered 307 Temporary Redirect"),
        // to come again later than any clock can count is not to come again
        (&["503 Service Unavailable\r\nRetry-After: 18446744073709551615\r\nContent-Length: 0"], "it answered 503 Service Unavailable"),
    ] {
        let (at, told) = answering(answers);
        let (code, _, err) = run.push(&format!("http://{at}/api/v1/write?key=a-key-in-a-url"), &by_password, &[]);
        assert_eq!(code, 5, "{err}");
        assert!(err.contains(word) && err.contains("/api/v1/write?***: "), "{err}");
        assert!(!err.contains("correct horse") && !err.contains("a-key"), "{err}");
        assert_eq!(told.try_iter().count(), 1, "{word}");
    }
    for (arguments, word) in [
        (&["--remote-write-user", "ann"][..], "--remote-write-user stands alone"),
        (&["--remote-write-password-file", "password"], "and no user"),
        (&["--remote-write-password-file", "no-such"], "--remote-write-password-file: no-such cannot be read"),
        (
            &["--remote-write-user", "ann", "--remote-write-password-file", "password", "--remote-write-token-file", "token"],
            "leave out one of them",
        ),
        (&["--remote-write-ca-file", "probes.toml"], "--remote-write-ca-file: probes.toml holds no certificate"),
        (&["--remote-write-label", "team"], "write NAME=VALUE"),
        (&["--remote-write-label", "__name__=x"], "cannot be a label"),
    ] {
        let (code, _, err) = run.push(&url, arguments, &[]);
        assert!(code == 2 && err.contains(word), "{arguments:?}: {code} {err}");
    }
    let (code, _, err) = run.push("http://ann:secret@127.0.0.1/", &[], &[]);
    assert!(code == 2 && err.contains("no user name or password") && !err.contains("secret"), "{code} {err}");
}

#[test]
fn a_push_trusts_the_authority_that_is_named_and_no_other() {
    let ours = crate::monitor::Authority::new("ours");
    let (_held, nobody) = closed();
    let test = "a_push_trusts_the_authority_that_is_named_and_no_other";
    let own_page = "tls_server_config:\n  cert_file: web.pem\n  key_file: web.key\n";
    let (run, folder) = (Run::new(nobody, nobody), tempfile::tempdir().unwrap());
    fs::write(run.folder.path().join("ca.pem"), &ours.pem).unwrap();
    fs::write(run.folder.path().join("other.pem"), crate::monitor::Authority::new("theirs").pem).unwrap();
    ours.server().write(folder.path(), "web");
    let prepare = |there: &Path| {
        for file in ["web.pem", "web.key"] {
            fs::copy(folder.path().join(file), there.join(file)).unwrap();
        }
        fs::write(there.join("web.yaml"), own_page).unwrap();
    };
    let arguments = ["--web.enable-remote-write-receiver", "--web.config.file=web.yaml"];
    let Some(server) = Server::prometheus_by("https", test, "global: {}\n", &arguments, prepare) else { return };
    let url = format!("https://{}/api/v1/write", server.at);
    let (code, _, err) = run.push(&url, &["--remote-write-ca-file", "ca.pem"], &[]);
    assert_eq!(code, 0, "{err}");
    for other in [&["--remote-write-ca-file", "other.pem"][..], &[]] {
        let (code, _, err) = run.push(&url, other, &[]);
        assert!(code == 5 && err.contains("invalid peer certificate: UnknownIssuer"), "{code} {err}");
    }
}

//! The gate in CI: the templates are what their owners' schemas and linters take, and their scripts are run as they stand, against twins on loopback.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mustnot::beacon::Beacon;
use mustnot::plan::{Keys, load};
use mustnot::token::Key;
use serde_json::Value;
use tokio::sync::watch;

const GITHUB: &str = "deploy/ci/github.yaml";
const GITLAB: &str = "deploy/ci/gitlab.yaml";
const CONFIG: &str = "deploy/ci/probes.toml";

fn path(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn text(of: &str) -> String {
    fs::read_to_string(path(of)).unwrap()
}

/// A tool of the environment that `tests/run.sh --prepare` makes; none, and a word, where it is not there.
pub fn tool(test: &str, name: &str) -> Option<Command> {
    let tool = path("target/python/bin").join(name);
    if !tool.exists() {
        println!("SKIPPED {test}: {} is not there: `tests/run.sh --prepare` installs it", tool.display());
        return None;
    }
    Some(Command::new(tool))
}

/// Runs a tool over a file, and over the same file with one thing changed, which it must refuse.
fn judges(test: &str, name: &str, arguments: &[&str], file: &str, good: &str, bad: &str) {
    let folder = tempfile::tempdir().unwrap();
    // Both linters of workflows go by the folder.
    let workflows = folder.path().join(".github/workflows");
    fs::create_dir_all(&workflows).unwrap();
    let judged = |text: String| {
        let copy = workflows.join(path(file).file_name().unwrap());
        fs::write(&copy, text).unwrap();
        let output = tool(test, name)?.args(arguments).arg(&copy).current_dir(folder.path()).output().unwrap();
        Some((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)))
    };
    let Some((taken, said)) = judged(text(file)) else { return };
    assert!(taken, "{name} {file}: {said}");
    assert_eq!(text(file).matches(good).count(), 1, "{good}");
    let (taken, said) = judged(text(file).replace(good, bad)).unwrap();
    assert!(!taken, "{name} takes {bad}: {said}");
}

#[test]
fn the_templates_are_as_their_schemas_say() {
    let test = "the_templates_are_as_their_schemas_say";
    judges(test, "check-jsonschema", &["--builtin-schema", "vendor.github-workflows"], GITHUB, "runs-on:", "runs-upon:");
    let gitlab = ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"];
    judges(test, "check-jsonschema", &gitlab, GITLAB, "when: always", "when: ever");
}

#[test]
fn the_workflow_has_nothing_that_its_linters_know() {
    let test = "the_workflow_has_nothing_that_its_linters_know";
    judges(test, "actionlint", &[], GITHUB, "inputs.runner", "inputs.runer");
    let pedantic = ["--offline", "--no-progress", "--persona=auditor"];
    judges(test, "zizmor", &pedantic, GITHUB, "@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0", "@v5");
    judges(test, "zizmor", &pedantic, GITHUB, "run: mustnot --config \"$MUSTNOT_CONFIG\"", "run: mustnot --config ${{ inputs.config }}");
    judges(test, "zizmor", &pedantic, GITHUB, "permissions: {}", "permissions: write-all");
}

#[test]
fn the_claims_are_a_right_configuration() {
    let folder = tempfile::tempdir().unwrap();
    Key::load_or_create(&folder.path().join("beacon.key")).unwrap();
    let file = folder.path().join("probes.toml");
    let with_examples = crate::schema::with_examples(&text(CONFIG));
    for (text, exceptions) in [(text(CONFIG), 0), (with_examples, 1)] {
        fs::write(&file, &text).unwrap();
        let loaded = load(&file, Keys::Read).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.plan.exceptions.len(), exceptions);
        let gated = loaded.plan.checks.iter().filter(|check| check.tags.contains(&"release".into()));
        let gated: Vec<&str> = gated.map(|check| check.name.as_str()).collect();
        assert_eq!(gated, ["staging-alive", "staging-admin-closed", "staging-proxy-not-open", "egress-fixed"]);
        for hint in &loaded.hints {
            assert!(hint.contains("no witness goes to port 3128"), "{hint}");
        }
    }
}

/// The steps of the workflow that have a script: name, script.
fn github_steps() -> Vec<(String, String)> {
    let steps = read_yaml(GITHUB)["jobs"]["gate"]["steps"].clone();
    let steps = steps.as_array().unwrap().iter().filter(|step| step["run"].is_string());
    steps.map(|step| (step["name"].as_str().unwrap().to_string(), step["run"].as_str().unwrap().to_string())).collect()
}

fn github_step(name: &str) -> String {
    github_steps().into_iter().find(|(step, _)| step == name).unwrap_or_else(|| panic!("no step {name}")).1
}

fn read_yaml(file: &str) -> Value {
    let program = "import json, sys, yaml; print(json.dumps(yaml.load(open(sys.argv[1]), Loader=yaml.BaseLoader)))";
    let output = Command::new("python3").args(["-c", program]).arg(path(file)).output().unwrap();
    assert!(output.status.success(), "python3-yaml (tests/run.sh --prepare): {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the claims are about: staging with its admin page, a proxy, a beacon, and something that stands for the internet.
struct Twins {
    staging: SocketAddr,
    /// What the admin page answers.
    admin: Arc<AtomicU16>,
    proxy: SocketAddr,
    beacon: SocketAddr,
    internet: Option<TcpListener>,
    nobody: SocketAddr,
    key: String,
    /// The repository.
    folder: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

/// Answers every request's head with what `answer` gives for its first line.
fn answering(answer: impl Fn(&str) -> u16 + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap_or(0);
                let status = answer(String::from_utf8_lossy(&head[..read]).lines().next().unwrap_or_default());
                let _ = write!(stream, "HTTP/1.1 {status} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                // What is still on its way would turn the end into a reset.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut head);
            });
        }
    });
    at
}

impl Twins {
    fn start() -> Twins {
        let admin = Arc::new(AtomicU16::new(403));
        let said = Arc::clone(&admin);
        let staging = answering(move |line| if line.contains("/admin/") { said.load(Ordering::SeqCst) } else { 200 });
        let proxy = answering(|_| 403);
        let folder = tempfile::tempdir().unwrap();
        let (key, _) = Key::load_or_create(&folder.path().join("their.key")).unwrap();
        let beacon = Beacon::bind(vec!["127.0.0.1:0".parse().unwrap()], key).unwrap();
        let at = beacon.addresses()[0];
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(beacon.run(stopped, Duration::ZERO));
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let internet = Some(TcpListener::bind("127.0.0.1:0").unwrap());
        let key = fs::read_to_string(folder.path().join("their.key")).unwrap().trim().to_string();
        Twins { staging, admin, proxy, beacon: at, internet, nobody, key, folder, _stop: stop }
    }

    /// The claims as they stand, of the twins.
    fn write_claims(&self) {
        let internet = self.internet.as_ref().map_or(self.nobody, |listener| listener.local_addr().unwrap());
        let mut claims = text(CONFIG);
        for (written, twin) in [
            ("\"one.one.one.one:443\", \"dns.google:443\"", format!("\"{internet}\"")),
            ("https://staging.example.com/", format!("http://{}/", self.staging)),
            ("proxy.staging.example.com:3128", self.proxy.to_string()),
            ("beacon.example.com:443", self.beacon.to_string()),
            ("203.0.113.10", "127.0.0.1".into()),
        ] {
            assert!(claims.contains(written), "{written}");
            claims = claims.replace(written, &twin);
        }
        let file = self.folder.path().join(CONFIG);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, claims).unwrap();
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        let place = |name: &str| self.folder.path().join(name).display().to_string();
        let bin = Path::new(env!("CARGO_BIN_EXE_mustnot")).parent().unwrap().display().to_string();
        BTreeMap::from([
            ("PATH", format!("{bin}:/usr/bin:/bin")),
            ("HOME", place("home")),
            ("MUSTNOT_CONFIG", CONFIG.into()),
            ("MUSTNOT_URL", String::new()),
            ("MUSTNOT_SHA256", String::new()),
            ("BEACON_KEY", self.key.clone()),
            ("RUNNER_TEMP", place("tmp")),
            ("GITHUB_PATH", place("path")),
            ("GITHUB_STEP_SUMMARY", place("summary.md")),
        ])
    }
}

/// A script as GitHub's runner runs it.
fn run(script: &str, folder: &Path, environment: &BTreeMap<&'static str, String>) -> Output {
    run_by(&["bash", "--noprofile", "--norc", "-eo", "pipefail"], script, folder, environment)
}

/// A script by this shell. A deployment is not waited for here.
fn run_by(shell: &[&str], script: &str, folder: &Path, environment: &BTreeMap<&'static str, String>) -> Output {
    let script = script.replace("--settle 2m", "--settle 1s");
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", &script]).current_dir(folder).env_clear().envs(environment);
    command.stdin(Stdio::null()).output().unwrap()
}

fn all_said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// All scripts of the workflow, in their order, as far as they succeed; then what always runs. The gate's own code, and what was said.
fn github(twins: &Twins) -> (i32, String) {
    let environment = twins.environment();
    fs::create_dir_all(twins.folder.path().join("tmp")).unwrap();
    for made in ["summary.md", "path"] {
        fs::write(twins.folder.path().join(made), "").unwrap();
    }
    let names: Vec<String> = github_steps().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Install mustnot", "Write the beacon's key", "Look at the configuration", "Gate", "Take the key away"]);
    let mut told = String::new();
    for name in &names[..3] {
        let output = run(&github_step(name), twins.folder.path(), &environment);
        told += &all_said(&output);
        assert!(output.status.success(), "{name}: {told}");
    }
    let key = twins.folder.path().join("deploy/ci/beacon.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let gate = run(&github_step("Gate"), twins.folder.path(), &environment);
    told += &all_said(&gate);
    assert!(run(&github_step("Take the key away"), twins.folder.path(), &environment).status.success());
    assert!(!key.exists());
    (gate.status.code().unwrap(), told)
}

/// All scripts of the job, which GitLab runs as one.
fn gitlab(twins: &Twins) -> (i32, String) {
    let job = read_yaml(GITLAB)["mustnot"].clone();
    let lines = |key: &str| -> Vec<String> {
        job[key].as_array().unwrap().iter().map(|line| line.as_str().unwrap().trim_end().to_string()).collect()
    };
    let script = [lines("before_script"), lines("script")].concat().join("\n");
    // GitLab takes bash where the image has it, and else what is there: what the least of shells takes will do.
    let run = |script: &str| run_by(&["sh", "-e"], script, twins.folder.path(), &twins.environment());
    let ended = run(&script);
    assert!(run(&lines("after_script").join("\n")).status.success());
    assert!(!twins.folder.path().join("deploy/ci/beacon.key").exists());
    for artifact in ["mustnot.xml", "mustnot-quality.json", "mustnot.md", "mustnot.json"] {
        assert!(text(GITLAB).matches(artifact).count() >= 2, "{artifact} is written and not kept");
    }
    (ended.status.code().unwrap(), all_said(&ended))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_are_green_where_all_holds() {
    let twins = Twins::start();
    twins.write_claims();
    let (code, said) = github(&twins);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("holds staging-admin-closed: "), "{said}");
    let summary = twins.file("summary.md");
    assert!(summary.starts_with("## mustnot: 0 violated, 0 unproven, 4 held\n"), "{summary}");
    assert_eq!(serde_json::from_str::<Value>(&twins.file("mustnot.json")).unwrap()["summary"]["holds"], 4);
    let (code, said) = gitlab(&twins);
    assert_eq!(code, 0, "{said}");
    assert!(twins.file("mustnot.xml").contains("failures=\"0\" errors=\"0\""));
    assert_eq!(twins.file("mustnot-quality.json"), "[]\n");
    assert_eq!(twins.file("mustnot.md").lines().next(), summary.lines().next());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_are_red_where_the_admin_page_is_open() {
    let twins = Twins::start();
    twins.admin.store(200, Ordering::SeqCst);
    twins.write_claims();
    let (code, said) = github(&twins);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("::error file=deploy/ci/probes.toml,line="), "{said}");
    let summary = twins.file("summary.md");
    assert!(summary.contains("\n| **VIOLATED** | ` staging-admin-closed ` | critical |"), "{summary}");
    assert!(summary.contains("\n```sh\ncurl "), "{summary}");
    let (code, said) = gitlab(&twins);
    assert_eq!(code, 1, "{said}");
    assert!(twins.file("mustnot.xml").contains("failures=\"1\""));
    assert_eq!(serde_json::from_str::<Value>(&twins.file("mustnot-quality.json")).unwrap()[0]["severity"], "blocker");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_are_red_where_the_runner_itself_is_cut_off() {
    let mut twins = Twins::start();
    twins.internet = None;
    twins.write_claims();
    let (code, said) = github(&twins);
    assert_eq!(code, 3, "{said}");
    let summary = twins.file("summary.md");
    assert!(summary.contains("\n| **unproven** | ` staging-admin-closed ` | critical |"), "{summary}");
    assert!(summary.contains("\n- **what to do** mend the witness, or the way to it, and try again\n"), "{summary}");
    let (code, said) = gitlab(&twins);
    assert_eq!(code, 3, "{said}");
    assert!(twins.file("mustnot.xml").contains("errors=\"2\""), "{}", twins.file("mustnot.xml"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_without_its_key_looks_at_nothing() {
    let twins = Twins::start();
    twins.write_claims();
    let mut environment = twins.environment();
    environment.insert("BEACON_KEY", String::new());
    assert!(run(&github_step("Write the beacon's key"), twins.folder.path(), &environment).status.success());
    let looked = run(&github_step("Look at the configuration"), twins.folder.path(), &environment);
    assert_eq!(looked.status.code(), Some(2), "{}", all_said(&looked));
    assert!(all_said(&looked).contains("beacon.key"), "{}", all_said(&looked));
}

/// A web server with a certificate, that gives one file.
struct Shop {
    child: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SERVER: &str = r#"
import http.server, ssl, sys
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

impl Shop {
    fn open(program: &str) -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        fs::write(folder.path().join("mustnot"), program).unwrap();
        let mut child = Command::new("python3")
            .args(["-c", SERVER])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Shop { child, url: format!("https://127.0.0.1:{}/mustnot", line.trim()), folder }
    }

    fn hash(&self) -> String {
        let output = Command::new("sha256sum").arg(self.folder.path().join("mustnot")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_is_what_it_must_be_or_is_not_run() {
    let shop = Shop::open("#!/bin/sh\necho \"$@\" >>\"$HOME/ran\"\necho mustnot 9.9.9\n");
    let twins = Twins::start();
    let home = twins.folder.path().join("home");
    fs::create_dir_all(&home).unwrap();
    fs::create_dir_all(twins.folder.path().join("tmp")).unwrap();
    let mut environment = twins.environment();
    environment.insert("PATH", "/usr/bin:/bin".into());
    environment.insert("CURL_CA_BUNDLE", shop.folder.path().join("cert.pem").display().to_string());
    let install = |environment: &BTreeMap<&'static str, String>| run(&github_step("Install mustnot"), twins.folder.path(), environment);
    let bare = install(&environment);
    assert_eq!(bare.status.code(), Some(2));
    assert!(all_said(&bare).starts_with("::error::mustnot is not on this runner; set the variables MUSTNOT_URL"), "{}", all_said(&bare));

    environment.insert("MUSTNOT_URL", shop.url.clone());
    environment.insert("MUSTNOT_SHA256", "0".repeat(64));
    let other = install(&environment);
    assert!(!other.status.success(), "{}", all_said(&other));
    assert!(!home.join("ran").exists(), "what nobody has vouched for was run");

    environment.insert("MUSTNOT_URL", shop.url.replace("https:", "http:"));
    environment.insert("MUSTNOT_SHA256", shop.hash());
    assert!(!install(&environment).status.success(), "fetched without TLS");
    assert!(!home.join("ran").exists());

    environment.insert("MUSTNOT_URL", shop.url.clone());
    let right = install(&environment);
    assert!(right.status.success(), "{}", all_said(&right));
    assert!(all_said(&right).ends_with("mustnot 9.9.9\n"), "{}", all_said(&right));
    assert_eq!(twins.file("path").trim(), twins.folder.path().join("tmp/bin").display().to_string());
}

//! The ways to deploy it besides AWS: each file is judged by the public linter of its kind, which must refuse the same file with one thing wrong; and what
//! the files name is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::ci::tool;
use crate::scene::{python, script};

const UNIT: &str = "deploy/systemd/mustnot.service";
const IMAGE: &str = "deploy/image/Dockerfile";
const SQUID_IMAGE: &str = "deploy/squid/Dockerfile";
const COMPOSE: &str = "deploy/compose/compose.yaml";
const KUBERNETES: &str = "deploy/kubernetes";
const RULE: &str = "deploy/kubernetes/prometheusrule.yaml";
/// What the unit may be exposed to, in tenths, of 100 (`systemd-analyze security`); it is 16.
const EXPOSURE: &str = "--threshold=18";

fn path(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn text(of: &str) -> String {
    fs::read_to_string(path(of)).unwrap_or_else(|e| panic!("{of}: {e}"))
}

/// Whether it ended well, and what it said.
fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// The text with one thing changed, which must be there once.
fn changed(text: &str, good: &str, bad: &str) -> String {
    assert_eq!(text.matches(good).count(), 1, "{good} is not there once");
    text.replace(good, bad)
}

/// What `judge` says of the file, and of the file with one thing changed: the first it must take, the other not. `judge` gives none where its tool is
/// not there.
fn judges(file: &str, changes: &[(&str, &str)], judge: impl Fn(&Path) -> Option<(bool, String)>) {
    // Not hidden: checkov passes over folders whose name begins with a dot.
    let folder = tempfile::Builder::new().prefix("deploy-").tempdir().unwrap();
    let copy = folder.path().join(Path::new(file).file_name().unwrap());
    fs::write(&copy, text(file)).unwrap();
    let Some((taken, said)) = judge(&copy) else { return };
    assert!(taken, "{file}: {said}");
    for (good, bad) in changes {
        fs::write(&copy, changed(&text(file), good, bad)).unwrap();
        let (taken, said) = judge(&copy).unwrap();
        assert!(!taken, "{file} is taken with {bad:?} in the place of {good:?}: {said}");
    }
}

/// `config check` of a file, with a beacon's key in the place of the one that the deployment brings.
fn is_a_right_configuration(file: &str) {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("beacon.key");
    fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    let mut lines: Vec<String> = text(file).lines().map(String::from).collect();
    let line = lines.iter_mut().find(|line| line.starts_with("key_file = ")).unwrap();
    *line = format!("key_file = {key:?}");
    let copy = folder.path().join("probes.toml");
    fs::write(&copy, lines.join("\n")).unwrap();
    let (good, said) = said(Command::new(env!("CARGO_BIN_EXE_mustnot")).arg("--config").arg(copy).args(["config", "check"]));
    assert!(good, "{file}: {said}");
}

// ---- systemd -----------------------------------------------------------------------------------------------------------

fn systemd_analyze(test: &str) -> Option<Command> {
    let there = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !there {
        println!("SKIPPED {test}: there is no systemd-analyze (Debian: systemd)");
    }
    there.then(|| Command::new("systemd-analyze"))
}

#[test]
fn the_unit_is_what_systemd_takes_without_a_word() {
    let test = "the_unit_is_what_systemd_takes_without_a_word";
    judges(UNIT, &[("ProtectSystem=strict", "ProtectSystm=strict"), ("Restart=always", "Restart=ever")], |file| {
        let here = fs::read_to_string(file).unwrap().replace("/usr/local/bin/mustnot", env!("CARGO_BIN_EXE_mustnot"));
        fs::write(file, here).unwrap();
        let (good, said) = said(systemd_analyze(test)?.arg("verify").arg(file));
        // It warns of what it passes over, and ends well.
        let ours = said.lines().filter(|line| line.contains("mustnot.service")).count();
        Some((good && ours == 0, said))
    });
}

#[test]
fn the_unit_gives_away_little() {
    let test = "the_unit_gives_away_little";
    let dear = [("User=mustnot\n", ""), ("SystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\n", "")];
    judges(UNIT, &dear, |file| Some(said(systemd_analyze(test)?.args(["security", "--offline=yes", "--no-pager", EXPOSURE]).arg(file))));
}

// ---- images ------------------------------------------------------------------------------------------------------------

#[test]
fn the_images_have_nothing_that_hadolint_knows() {
    let test = "the_images_have_nothing_that_hadolint_knows";
    let judge = |file: &Path| Some(said(tool(test, "hadolint")?.args(["--failure-threshold", "style"]).arg(file)));
    judges(IMAGE, &[("WORKDIR /etc/mustnot", "WORKDIR mustnot"), (":1.95-slim-trixie", "")], judge);
    judges(SQUID_IMAGE, &[("# hadolint ignore=DL3008\n", ""), ("USER 13:13", "USER proxy")], judge);
}

/// Everything that the build reads is let through to it, and what it says is not the whole repository.
#[test]
fn the_image_is_given_what_cargo_reads() {
    let allowed: Vec<String> =
        text(&format!("{IMAGE}.dockerignore")).lines().filter_map(|line| line.strip_prefix('!')).map(String::from).collect();
    assert!(text(&format!("{IMAGE}.dockerignore")).lines().any(|line| line == "*") && allowed.len() >= 5, "{allowed:?}");
    let folder = tempfile::tempdir().unwrap();
    for one in &allowed {
        let to = folder.path().join(one);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let (copied, said) = said(Command::new("cp").arg("-r").arg(path(one)).arg(&to));
        assert!(copied, "{one}: {said}");
    }
    let metadata = |folder: &Path| {
        said(
            Command::new(env!("CARGO"))
                .args(["metadata", "--no-deps", "--offline", "--locked", "--format-version=1", "--quiet"])
                .current_dir(folder),
        )
    };
    let (good, words) = metadata(folder.path());
    assert!(good, "{words}");
    for source in sources(&path("src")) {
        for included in fs::read_to_string(&source).unwrap().split("include_str!(\"").skip(1) {
            let name = included.split('"').next().unwrap();
            let here = source.parent().unwrap().join(name).canonicalize().unwrap_or_else(|e| panic!("{name}: {e}"));
            let there = folder.path().join(here.strip_prefix(path("").canonicalize().unwrap()).unwrap());
            assert!(there.exists(), "{} includes {}, which Dockerfile.dockerignore holds back", source.display(), here.display());
        }
    }
    // This test sees what is missing.
    fs::remove_file(folder.path().join("src/main.rs")).unwrap();
    assert!(!metadata(folder.path()).0);
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            _ if path.is_dir() => all.extend(sources(&path)),
            Some(extension) if extension == "rs" => all.push(path),
            _ => {}
        }
    }
    all
}

// ---- compose -----------------------------------------------------------------------------------------------------------

fn compose(python: &Path) -> Value {
    let file = path(COMPOSE);
    script(python, "yaml_as_json.py", &[file.to_str().unwrap()])[file.to_str().unwrap()][0].clone()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|one| one.as_str().unwrap()).collect()
}

#[test]
fn the_compose_file_is_as_its_specification_says() {
    let test = "the_compose_file_is_as_its_specification_says";
    judges(COMPOSE, &[("read_only: true", "readonly: true"), ("stop_grace_period: 60s", "stop_grace_period: [60s]")], |file| {
        Some(said(tool(test, "check-jsonschema")?.args(["--builtin-schema", "vendor.compose-spec"]).arg(file)))
    });
}

#[test]
fn what_the_compose_file_names_is_there() {
    let test = "what_the_compose_file_names_is_there";
    let Some(python) = python(test) else { return };
    let compose = compose(&python);
    let (folder, volumes) = (path("deploy/compose"), compose["volumes"].as_object().unwrap());
    let mut mounted = 0;
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        for volume in strings(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            assert!(volumes.contains_key(source) || folder.join(source).exists(), "{name}: {source} is not there");
            mounted += 1;
        }
        if let Some(image) = service["image"].as_str() {
            let tag = image.rsplit_once(':').map(|(_, tag)| tag);
            assert!(tag.is_some_and(|tag| tag != "latest"), "{name}: {image} changes by itself");
        }
    }
    assert!(mounted >= 7);
    for (tool, package) in [("prometheus", "prometheus"), ("alertmanager", "prometheus-alertmanager")] {
        // Debian's name for it is the package's.
        let Some(help) = [tool, package].iter().find_map(|tool| Command::new(tool).arg("--help").output().ok()) else {
            println!("SKIPPED {test}: no {tool} (Debian: {package})");
            continue;
        };
        let help = String::from_utf8_lossy(&help.stdout).into_owned() + &String::from_utf8_lossy(&help.stderr);
        for flag in strings(&compose["services"][tool]["command"]) {
            let flag = flag.split('=').next().unwrap();
            assert!(help.contains(flag), "{tool} has no {flag}");
        }
        let config =
            strings(&compose["services"][tool]["command"]).into_iter().find_map(|flag| flag.strip_prefix("--config.file=")).unwrap();
        let file = Path::new(config).file_name().unwrap();
        assert!(path("dashboards").join(tool).join(file).exists(), "{config}");
    }
}

/// The command by which the compose file makes Squid's configuration, run here: what comes of it Squid takes, and it leaves nothing open.
#[test]
fn squid_without_a_load_balancer_leaves_nothing_open() {
    let test = "squid_without_a_load_balancer_leaves_nothing_open";
    let Some(python) = python(test) else { return };
    let compose = compose(&python);
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    for name in ["squid.conf", "deny_to.txt", "load_balancers.txt"] {
        let of = text(&format!("deploy/squid/{name}")).replace("/etc/squid/", &format!("{place}/"));
        fs::write(folder.path().join(name), of).unwrap();
    }
    fs::copy(path("deploy/compose/allow_from.txt"), folder.path().join("allow_from.txt")).unwrap();
    let squid = &compose["services"]["squid"];
    let words = strings(&squid["command"])[0].replace("/etc/squid/", &format!("{place}/")).replace("/run/squid/", &format!("{place}/run-"));
    let words = changed(&words, "exec /usr/sbin/squid -N -f", "echo");
    let entry = strings(&squid["entrypoint"]);
    let (made, words) = said(Command::new(entry[0]).args(&entry[1..]).arg(words));
    assert!(made, "{words}");
    let file = words.trim();
    let made = fs::read_to_string(file).unwrap();
    assert!(made.contains("\nhttp_port 3128 tcpkeepalive=") && !made.contains("\nhttp_port 3128 require-proxy-header"), "{made}");

    let lint = |file: &str| said(Command::new(env!("CARGO_BIN_EXE_mustnot")).args(["proxy", "lint", file]));
    let (good, words) = lint(file);
    assert!(good && words.contains("0 critical, 0 warning"), "{words}");
    fs::write(folder.path().join("allow_from.txt"), "0.0.0.0/0\n").unwrap();
    assert!(!lint(file).0, "the list is read");
    fs::copy(path("deploy/compose/allow_from.txt"), folder.path().join("allow_from.txt")).unwrap();
    match Command::new("/usr/sbin/squid").args(["-k", "parse", "-f", file]).output() {
        Ok(parsed) => assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr)),
        Err(e) => println!("SKIPPED {test}: squid -k parse (Debian: squid): {e}"),
    }
}

#[test]
fn the_claims_of_both_are_right_configurations() {
    is_a_right_configuration("deploy/compose/probes.toml");
    is_a_right_configuration("deploy/kubernetes/probes.toml");
}

// ---- Kubernetes --------------------------------------------------------------------------------------------------------

fn manifests() -> Vec<String> {
    let named = text(&format!("{KUBERNETES}/kustomization.yaml"));
    named
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "))
        .filter(|name| name.ends_with(".yaml"))
        .map(|name| format!("{KUBERNETES}/{name}"))
        .collect()
}

/// Equal to dashboards/prometheus/alerts.yaml, which is what promtool and the runbook's tests judge. `BLESS=1` writes it anew.
#[test]
fn the_prometheus_rule_is_the_alert_rules() {
    let rules = text("dashboards/prometheus/alerts.yaml");
    let (_, groups) = rules.split_once("\ngroups:\n").unwrap();
    let groups: String = groups.lines().map(|line| if line.is_empty() { "\n".into() } else { format!("  {line}\n") }).collect();
    let head = "# dashboards/prometheus/alerts.yaml for the Prometheus Operator. Change it there, and then: BLESS=1 cargo test --test it deploy::\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: mustnot\n  namespace: mustnot\n\
         \x20 labels: {app.kubernetes.io/name: mustnot}\nspec:\n  groups:\n";
    let wanted = format!("{head}{groups}");
    if std::env::var_os("BLESS").is_some() {
        fs::write(path(RULE), &wanted).unwrap();
    }
    assert!(text(RULE) == wanted, "{RULE} is not dashboards/prometheus/alerts.yaml: BLESS=1 cargo test --test it deploy::");
}

#[test]
fn the_manifests_are_as_their_definitions_say() {
    let test = "the_manifests_are_as_their_definitions_say";
    let Some(python) = python(test) else { return };
    let files = manifests();
    let all: Vec<String> = files.iter().map(|file| path(file).to_str().unwrap().to_string()).collect();
    let judged = script(&python, "kubernetes_models.py", &all.iter().map(String::as_str).collect::<Vec<_>>());
    let kinds: BTreeSet<&str> = strings(&judged).into_iter().collect();
    let wanted = ["Namespace", "NetworkPolicy", "PrometheusRule", "Service", "ServiceMonitor", "StatefulSet"];
    assert_eq!(kinds, BTreeSet::from(wanted));

    let program = path("tests/python/kubernetes_models.py");
    let judge = |file: &Path| Some(said(Command::new(&python).arg(&program).arg(file)));
    let monitor = [
        ("readOnlyRootFilesystem", "readOnlyRootFileSystem"),
        ("containerPort: 9890", "containerPort: metrics"),
        ("kind: Service\n", "kind: Servise\n"),
    ];
    judges(&format!("{KUBERNETES}/monitor.yaml"), &monitor, judge);
    judges(&format!("{KUBERNETES}/servicemonitor.yaml"), &[("scrapeTimeout", "scrapeTimout"), ("interval: 15s", "interval: often")], judge);
    judges(RULE, &[("keep_firing_for", "keepFiringFor")], judge);
}

/// What belongs together says so: the service finds the pod, the job has a name that the alert rules look for, and the claims are in the map.
#[test]
fn the_manifests_know_each_other() {
    let test = "the_manifests_know_each_other";
    let Some(python) = python(test) else { return };
    let read = |file: &str| {
        let file = path(file);
        script(&python, "yaml_as_json.py", &[file.to_str().unwrap()])[file.to_str().unwrap()].clone()
    };
    let monitor = read(&format!("{KUBERNETES}/monitor.yaml"));
    let (set, service) = (&monitor[0], &monitor[1]);
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    let scrape = read(&format!("{KUBERNETES}/servicemonitor.yaml"))[0].clone();
    let policy = read(&format!("{KUBERNETES}/networkpolicy.yaml"))[0].clone();
    for selector in [&set["spec"]["selector"]["matchLabels"], &service["spec"]["selector"], &policy["spec"]["podSelector"]["matchLabels"]] {
        assert_eq!(selector, labels);
    }
    assert_eq!(scrape["spec"]["selector"]["matchLabels"], service["metadata"]["labels"]);
    let job = scrape["spec"]["jobLabel"].as_str().unwrap();
    assert!(service["metadata"]["labels"][job].as_str().unwrap().starts_with("mustnot"), "the rules ask for up{{job=~\"mustnot.*\"}}");
    let port = &service["spec"]["ports"][0];
    assert_eq!(scrape["spec"]["endpoints"][0]["port"], port["name"]);
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(port["targetPort"], container["ports"][0]["name"]);
    let claims = text(&format!("{KUBERNETES}/probes.toml"));
    assert!(claims.contains(&format!("listen = \"0.0.0.0:{}\"", container["ports"][0]["containerPort"])));
    for mount in container["volumeMounts"].as_array().unwrap() {
        let at = mount["mountPath"].as_str().unwrap();
        assert!(at == "/etc/mustnot" || claims.contains(&format!("\"{at}")), "nobody uses {at}");
    }
    match Command::new("kubectl").args(["kustomize"]).arg(path(KUBERNETES)).output() {
        Ok(built) => {
            let built = String::from_utf8_lossy(&built.stdout).into_owned() + &String::from_utf8_lossy(&built.stderr);
            assert!(
                built.contains("image: registry.example.com/mustnot:0.1.0")
                    && built.contains("name: mustnot-")
                    && built.contains("kind: PrometheusRule"),
                "{built}"
            );
        }
        Err(e) => println!("SKIPPED {test}: kubectl kustomize, since there is no kubectl: {e}"),
    }
}

#[test]
fn checkov_finds_nothing_that_is_not_answered() {
    let test = "checkov_finds_nothing_that_is_not_answered";
    let tool = path("target/checkov/bin/checkov");
    if !tool.exists() {
        println!("SKIPPED {test}: there is no target/checkov; tests/run.sh --prepare makes it");
        return;
    }
    let judge = |place: &Path, what: &str| {
        let frameworks = ["--framework", "kubernetes", "dockerfile", "--skip-download", "--compact", "--quiet", what];
        Some(said(Command::new(&tool).args(frameworks).arg(place)))
    };
    judges(IMAGE, &[("USER 65532:65532\n", "")], |file| judge(file, "--file"));
    judges(SQUID_IMAGE, &[("USER 13:13\n", "")], |file| judge(file, "--file"));
    // All of them together, since a pod wants a policy that stands in another file.
    judges(&format!("{KUBERNETES}/monitor.yaml"), &[("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true")], |file| {
        for other in manifests().iter().filter(|other| Path::new(other).file_name() != file.file_name()) {
            fs::copy(path(other), file.parent().unwrap().join(Path::new(other).file_name().unwrap())).unwrap();
        }
        judge(file.parent().unwrap(), "--directory")
    });
}

//! The reference deployment on AWS: what Terraform renders from a state is what this program takes. `deploy/aws/check.sh` shows, where there is a
//! Terraform, that `examples/` is what it renders.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use toml::de::{DeTable, DeValue};

const DEPLOYMENT: &str = "deploy/aws";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(DEPLOYMENT)
}

/// The folders of `examples/`: one a way to deploy.
fn examples() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    assert!(all.len() >= 4, "{all:?}");
    all
}

fn mustnot(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mustnot")).args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// What `config check` says of that file, beside a beacon key as the tasks have it.
fn config_check(text: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("beacon.key"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let file = folder.path().join("probes.toml");
    fs::write(&file, text).unwrap();
    mustnot(&["--config", file.to_str().unwrap(), "config", "check"])
}

type Table = DeTable<'static>;

/// The `[[check]]` tables. The text lives as long as the test: that is what the parser without copies wants.
fn checks(file: &Path) -> Vec<Table> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let whole = DeTable::parse(Box::leak(text.into_boxed_str())).unwrap().into_inner();
    let all = whole.get("check").and_then(|all| all.get_ref().as_array()).unwrap_or_else(|| panic!("{}: no checks", file.display()));
    all.iter().map(|check| check.get_ref().as_table().unwrap().clone()).collect()
}

fn value<'a>(check: &'a Table, key: &str) -> Option<&'a DeValue<'static>> {
    check.get(key).map(|value| value.get_ref())
}

fn word<'a>(check: &'a Table, key: &str) -> &'a str {
    value(check, key).and_then(DeValue::as_str).unwrap_or_default()
}

fn words(value: Option<&DeValue<'_>>) -> BTreeSet<String> {
    value.and_then(DeValue::as_array).into_iter().flatten().map(|word| word.get_ref().as_str().unwrap().to_string()).collect()
}

#[test]
fn both_vantages_and_the_proxy_pass_config_check() {
    for example in examples() {
        let own = example.join("proxy.toml");
        for file in
            [Some(example.join("inside.toml")), Some(example.join("outside.toml")), own.exists().then_some(own)].into_iter().flatten()
        {
            let (good, said) = config_check(&fs::read_to_string(&file).unwrap());
            assert!(good, "{}: {said}", file.display());
        }
    }
    let (good, said) =
        config_check("vantage = \"outside\"\n[[check]]\nname = \"a\"\nkind = \"tcp\"\ntarget = \"192.0.2.1\"\nexpect = \"open\"\n");
    assert!(!good && said.contains("target"), "a target without a port passes, so this test sees nothing: {said}");
}

#[test]
fn squid_as_deployed_leaves_nothing_open() {
    let mut linted = 0;
    for example in examples().iter().filter(|example| example.join("squid").exists()) {
        let file = example.join("squid/squid.conf");
        let with_header = fs::read_to_string(&file).unwrap().contains("require-proxy-header");
        // Where the balancer keeps the client's address nobody speaks the PROXY protocol.
        let balancer = if with_header { &["--behind-load-balancer"][..] } else { &[] };
        let (good, said) = mustnot(&[&["proxy", "lint", file.to_str().unwrap(), "--stop-timeout", "120s"], balancer].concat());
        assert!(good && said.contains("0 critical, 0 warning"), "{}: {said}", file.display());
        linted += 1;
    }
    assert_eq!(linted, 2, "one with the PROXY protocol, one without");
}

/// Every address that the state has is looked at from outside, on every port; and where there is a peer, it is one that exists.
#[test]
fn nothing_public_is_forgotten() {
    for example in examples() {
        let (inside, outside) = (checks(&example.join("inside.toml")), checks(&example.join("outside.toml")));
        let name = example.display();
        let sweep = outside.iter().find(|check| word(check, "name") == "public-ports").unwrap_or_else(|| panic!("{name}: no sweep"));
        let swept = words(value(sweep, "targets"));
        let closed: BTreeSet<&str> =
            outside.iter().filter(|c| word(c, "kind") == "tcp" && word(c, "expect") == "blocked").map(|c| word(c, "target")).collect();
        let relays: BTreeSet<&str> = outside.iter().filter(|c| word(c, "kind") == "open-proxy").map(|c| word(c, "target")).collect();
        assert_eq!(closed, relays, "{name}: each address is tried by a handshake, and as an open proxy");

        let balancers: Vec<&Table> = inside.iter().filter(|check| word(check, "name").starts_with("nlb-")).collect();
        assert!(!balancers.is_empty(), "{name}");
        for check in balancers {
            let target = word(check, "target");
            assert!(closed.contains(target), "{name}: {target} is not tried from outside");
            assert!(swept.contains(target.strip_suffix(":3128").unwrap()), "{name}: {target} is not swept");
        }
        for check in inside.iter().filter(|check| word(check, "kind") == "egress-ip") {
            let expected = words(value(check, "expect").and_then(|expect| expect.get("ip")).map(|ip| ip.get_ref()));
            assert!(!expected.is_empty() && expected.is_subset(&swept), "{name}: {expected:?} is not all swept");
        }
        for check in outside.iter().filter(|check| word(check, "kind") == "peer") {
            assert!(inside.iter().any(|other| word(other, "name") == word(check, "check")), "{name}: nobody inside has {check:?}");
        }
    }
}

/// A new kind of address is swept from its first day: each `aws_eip` of the module is named where the outside monitor's targets are made.
#[test]
fn every_kind_of_address_is_swept() {
    let mut text = String::new();
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "tf") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    let monitors = fs::read_to_string(root().join("monitors.tf")).unwrap();
    let looked_at: Vec<&str> =
        monitors.lines().map(str::trim_start).filter(|l| l.starts_with("public ") || l.starts_with("port_witness ")).collect();
    let kinds: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("resource \"aws_eip\" \"")?.strip_suffix("\" {")).collect();
    assert!(kinds.len() >= 3, "{kinds:?}");
    for kind in kinds {
        assert!(
            looked_at.iter().any(|line| line.contains(&format!("aws_eip.{kind}["))),
            "aws_eip.{kind} is swept by nobody: {looked_at:#?}"
        );
    }
}

/// `check.sh` with a Terraform that says so, instead of the real one: whether it passed, and what it said.
fn check_sh(validate: &str, init: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let terraform = folder.path().join("terraform");
    let script = format!("#!/bin/sh\ncase $1 in\nvalidate) echo '{validate}'; exit 1 ;;\ninit) echo '{init}'; exit 1 ;;\nesac\n");
    fs::write(&terraform, script).unwrap();
    fs::set_permissions(&terraform, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(root().join("check.sh")).env("TERRAFORM", &terraform).env("CHECKOV", "/nonexistent").output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// What could not be checked is skipped with its reason; what was checked and is broken is never called skipped.
#[test]
fn a_broken_module_is_not_taken_for_a_registry_that_cannot_be_reached() {
    let missing = "Error: Missing required provider\nYou may be able to install it automatically by\nrunning:\n  terraform init";
    let query = "Error: Failed to query available provider packages\nCould not retrieve the list of available versions:";
    let (good, said) = check_sh(missing, &format!("{query} could not\nconnect to registry.terraform.io"));
    assert!(good && said.contains("SKIPPED deploy/aws: validate and test"), "{said}");

    let no_version = format!("{query} no available releases match 6.69.1");
    for (validate, init, why) in [
        ("Error: Reference to undeclared input variable", "Error: could not connect to registry", "undeclared"),
        (missing, "Error: Duplicate variable declaration", "Duplicate"),
        (missing, no_version.as_str(), "no available releases"),
    ] {
        let (good, said) = check_sh(validate, init);
        assert!(!good && said.contains(why) && !said.contains("validate and test"), "{validate}; {init}: {said}");
    }
}

/// The line that CloudWatch's filters read: what is violated, unproven, and what holds, of the real exporter's text.
#[test]
fn the_tally_counts_verdicts_and_says_nothing_of_a_monitor_that_is_gone() {
    let metrics = "# HELP mustnot_check_verdict The verdict\n# TYPE mustnot_check_verdict gauge\n\
        mustnot_check_verdict{check=\"a\",kind=\"tcp\",severity=\"critical\",target=\"x verdict=\\\"holds\\\"\",vantage=\"inside\",verdict=\"holds\"} 0\n\
        mustnot_check_verdict{check=\"a\",kind=\"tcp\",severity=\"critical\",target=\"x\",vantage=\"inside\",verdict=\"violated\"} 1\n\
        mustnot_check_verdict{check=\"a\",kind=\"tcp\",severity=\"critical\",target=\"x\",vantage=\"inside\",verdict=\"unproven\"} 0\n\
        mustnot_check_verdict{check=\"b\",kind=\"tcp\",severity=\"critical\",target=\"y\",vantage=\"inside\",verdict=\"holds\"} 1\n\
        mustnot_check_verdict{check=\"c\",kind=\"tcp\",severity=\"critical\",target=\"z\",vantage=\"inside\",verdict=\"holds\"} 1\n\
        mustnot_checks 3\n";
    assert_eq!(tally(&[metrics], 1), ["tally 1 0 2"]);
    // First nobody answers, then a body without checks; the first line is the third's.
    assert_eq!(tally(&["", "mustnot_checks 0\n", metrics], 1), ["tally 1 0 2"]);
}

/// One check of a monitor: its verdict and cause, and how many of its runs were violated.
fn one(verdict: &str, cause: &str, runs: u32) -> String {
    format!(
        "mustnot_check_cause{{check=\"a\",target=\"x\",cause=\"{cause}\",vantage=\"v\"}} 1\n\
        mustnot_check_runs_total{{check=\"a\",target=\"x\",verdict=\"holds\",vantage=\"v\"}} 7\n\
        mustnot_check_runs_total{{check=\"a\",target=\"x\",verdict=\"violated\",vantage=\"v\"}} {runs}\n\
        mustnot_check_verdict{{check=\"a\",kind=\"tcp\",target=\"x\",severity=\"warning\",verdict=\"{verdict}\",vantage=\"v\"}} 1\n"
    )
}

/// The monitor keeps nothing over a restart there, so that it does not know what was open before: "0 violated" would end the alarm unseen.
#[test]
fn the_tally_does_not_say_that_nothing_is_open_before_all_was_looked_at() {
    let (pending, open) = (one("unproven", "pending", 0), one("violated", "open", 1));
    assert_eq!(tally(&[&pending, &one("holds", "as-expected", 0)], 1), ["tally 0 0 1"]);
    assert_eq!(tally(&[&(pending + &open)], 1), ["tally 1 1 0"], "what is seen open is told at once");
}

/// A door that was open for one run, and shut again before the next line.
#[test]
fn the_tally_tells_of_what_was_open_between_two_lines() {
    let (before, after) = (one("holds", "as-expected", 3), one("holds", "as-expected", 4));
    let lines = tally(&[&one("violated", "open", 3), &before, &after, "", &after], 4);
    assert_eq!(lines, ["tally 1 0 0", "tally 0 0 1", "tally 1 0 1", "tally 0 0 1"]);
}

/// The first lines that the script writes, where the exporter answers so, the last one again and again.
fn tally(answers: &[&str], lines: usize) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let wget = folder.path().join("wget");
    for (i, answer) in answers.iter().enumerate() {
        fs::write(folder.path().join(format!("answer{i}")), answer).unwrap();
    }
    let last = answers.len() - 1;
    let script = format!(
        "#!/bin/sh\ncd '{}'\nn=$(cat asked 2>/dev/null || echo 0)\necho $((n + 1)) >asked\n[ $n -le {last} ] || n={last}\n[ -s answer$n ] || exit 1\nexec cat answer$n\n",
        folder.path().display()
    );
    fs::write(&wget, script).unwrap();
    fs::set_permissions(&wget, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let text = fs::read_to_string(root().join("config/tally.sh")).unwrap();
    let mut shell =
        Command::new("sh").args(["-c", &text]).env("PATH", path).env("TALLY_SECONDS", "0.05").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(shell.stdout.take().unwrap()).lines().take(lines).collect::<Result<_, _>>().unwrap();
    // As ECS does: it ends by SIGTERM, without waiting for the minute to pass.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(shell.id()).unwrap()), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(shell.wait().unwrap().success());
    lines
}

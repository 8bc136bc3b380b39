//! `config init`: every combination of flags makes a file that is right, as it stands and with its examples.

use std::fs;
use std::path::Path;
use std::process::Command;

use mustnot::cli::Init;
use mustnot::command::init::start;
use mustnot::plan::{Keys, Loaded, from_text, schema};
use mustnot::token::Key;
use mustnot::witness::Proof;

use crate::schema::{faults, with_examples};

/// Every combination of the flags that make a difference.
fn combinations() -> impl Iterator<Item = Init> {
    (0..64u32).map(|bits| {
        let given = |bit: u32, text: &str| (bits & (1 << bit) != 0).then(|| text.to_string());
        Init {
            admin: given(0, "https://admin.corp.example/login?next=%2F"),
            proxy: given(1, "squid.corp.example:3128"),
            allowed: given(2, "198.51.100.0/24").iter().map(|net| net.parse().unwrap()).collect(),
            beacon: given(3, "http://beacon.corp.example:9890/x"),
            inside: bits & 16 != 0,
            vantage: given(5, "site-1"),
            output: None,
        }
    })
}

#[test]
fn every_combination_is_accepted_as_it_stands_and_with_its_examples() {
    let schema = jsonschema::draft202012::new(&schema()).unwrap();
    let mut inverted = 0;
    for flags in combinations() {
        let text = start(&flags);
        let alone = tempfile::tempdir().unwrap();
        let Loaded { plan, .. } =
            from_text("f", &text, alone.path(), &|_| None, Keys::Read).unwrap_or_else(|p| panic!("{flags:?}\n{p}\n{text}"));
        assert!(!plan.checks.is_empty());
        for check in plan.checks.iter().filter(|check| check.expectation.is_inverted()) {
            assert!(!check.witnesses.is_empty() && check.require.has(Proof::Vantage), "{flags:?}: {}", check.name);
            inverted += 1;
        }
        let asked = [&flags.admin, &flags.proxy].into_iter().flatten().count();
        let named: Vec<&str> = plan.checks.iter().map(|check| check.name.as_str()).filter(|name| *name != "internet").collect();
        assert_eq!(named.len(), asked, "{flags:?}: what a flag gives is at work, and nothing else: {named:?}");
        assert_eq!(plan.vantage, flags.vantage.clone().unwrap_or(if flags.inside { "inside" } else { "outside" }.into()));
        assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 140), "{flags:?}\n{text}");
        let faults_as_it_stands = faults(&schema, &text);
        assert!(faults_as_it_stands.is_empty(), "{faults_as_it_stands:?}\n{text}");

        let whole = with_examples(&text);
        Key::load_or_create(&alone.path().join("beacon.key")).unwrap();
        let examples = from_text("f", &whole, alone.path(), &|_| None, Keys::Read).unwrap_or_else(|p| panic!("{flags:?}\n{p}\n{whole}"));
        assert!(examples.plan.checks.len() >= 5, "{flags:?}");
        let hasty: Vec<_> = examples.hints.iter().filter(|hint| hint.contains("longer than its interval")).collect();
        assert!(hasty.is_empty(), "{flags:?}: {hasty:?}");
        let faults_of_examples = faults(&schema, &whole);
        assert!(faults_of_examples.is_empty(), "{faults_of_examples:?}\n{whole}");
    }
    assert!(inverted > 20, "{inverted}");
}

#[test]
fn the_two_places_fit_together() {
    let flags = |inside| Init {
        admin: Some("https://admin.corp.example/".into()),
        proxy: Some("squid.corp.example:3128".into()),
        allowed: vec!["203.0.113.10/32".parse().unwrap()],
        beacon: Some("http://beacon.corp.example:443/".into()),
        inside,
        vantage: None,
        output: None,
    };
    let folder = tempfile::tempdir().unwrap();
    Key::load_or_create(&folder.path().join("beacon.key")).unwrap();
    let plan = |inside| from_text("f", &with_examples(&start(&flags(inside))), folder.path(), &|_| None, Keys::Read).unwrap().plan;
    let (outside, inside) = (plan(false), plan(true));
    for check in &outside.checks {
        if let mustnot::probe::Probe::Peer(peer) = &check.probe {
            assert!(inside.checks.iter().any(|there| there.name == peer.check), "inside has no check {}", peer.check);
        }
    }
    assert!(start(&flags(true)).contains("expect = { ip = [\"203.0.113.10\"] }"));
    assert!(start(&flags(false)).contains("listen = [\"0.0.0.0:443\"]"));
    assert!(start(&flags(false)).contains("\nallowed_destination = \"admin.corp.example:443\"\n"));
}

fn init(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mustnot")).args(["config", "init"]).args(arguments).current_dir(folder).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn a_file_that_is_there_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probes.toml");
    let flags = ["--admin", "https://admin.corp.example/", "--proxy", "p.example:3128", "--allowed", "203.0.113.10"];
    let (code, said) = init(folder.path(), &flags);
    assert_eq!((code, said.as_str()), (Some(0), "wrote probes.toml; read it, then: mustnot --config probes.toml config check\n"));
    let check = Command::new(env!("CARGO_BIN_EXE_mustnot")).args(["config", "check"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(check.status.code(), Some(0));
    assert!(String::from_utf8(check.stdout).unwrap().ends_with("probes.toml: ok: 3 checks (2 inverted, 1 positive)\n"));

    fs::write(&file, "mine").unwrap();
    let (code, said) = init(folder.path(), &flags);
    assert_eq!(code, Some(2));
    assert_eq!(said, "mustnot: probes.toml is there already and stays as it is; write another place with --output FILE\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    std::os::unix::fs::symlink("nowhere", folder.path().join("link.toml")).unwrap();
    assert_eq!(init(folder.path(), &["--output", "link.toml"]).0, Some(2), "nor through a link that leads nowhere");
    assert!(!folder.path().join("nowhere").exists());

    let (code, said) = init(folder.path(), &["--inside", "--output", "-"]);
    assert!(code == Some(0) && said.starts_with("# Seen from a place that is allowed"), "{said}");
    assert_eq!(init(folder.path(), &["--output", "no/such/probes.toml"]).0, Some(2));
}

#[test]
fn flags_that_make_no_configuration_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let table: [(&[&str], &str); 7] = [
        (&["--admin", "admin.example.com"], "is not a URL"),
        (&["--admin", "https://user:word@admin.example.com/"], "no user name or password"),
        (&["--proxy", "proxy.example.com"], "names no port"),
        (&["--allowed", "203.0.113.10/8"], "has bits set behind its prefix"),
        (&["--beacon", "https://beacon.example.com/", "--proxy", "p.example:3128"], "the beacon is asked over plain HTTP"),
        (&["--vantage", "my office"], "contains ' '"),
        (&["--vantage", "a\"\n[proxy]\nlisten = \"0.0.0.0:1\"\n#"], "contains '\""),
    ];
    for (flags, part) in table {
        let (code, said) = init(folder.path(), flags);
        assert_eq!(code, Some(2), "{flags:?}: {said}");
        assert!(said.contains(part), "{flags:?}: {said}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

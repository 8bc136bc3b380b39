//! `config explain`: what it says is what the plan has.

use std::path::Path;
use std::process::Command;

use mustnot::command::explain::of_check;
use mustnot::plan::{Keys, Loaded, Plan, from_text, load};
use mustnot::probe::Kind;
use mustnot::token::Key;

fn plan_of(text: &str) -> Plan {
    let folder = tempfile::tempdir().unwrap();
    Key::load_or_create(&folder.path().join("beacon.key")).unwrap();
    let env = |name: &str| (name == "SECRET").then(|| "hunter2!".to_string());
    let loaded = from_text("f", text, folder.path(), &env, Keys::Read);
    loaded.unwrap_or_else(|problems| panic!("{problems}\n{text}")).plan
}

fn explained(plan: &Plan, name: &str) -> String {
    of_check(plan, plan.checks.iter().find(|check| check.name == name).unwrap())
}

const FILE: &str = r#"
vantage = "internet"
witness_window = "8s"
[beacon]
key_file = "beacon.key"
[[check]]
name = "internet"
kind = "tcp"
target = "one.one.one.one:443"
expect = "open"
[[check]]
name = "admin-alive"
kind = "peer"
target = "https://office.example.com/monitor"
check = "admin-open"
expect = "open"
[[check]]
name = "admin-closed"
kind = "tcp"
target = "admin.example.com:443"
expect = "blocked"
families = ["ipv4"]
interval = "10m"
timeout = "4s"
attempts = 2
witness = ["internet", "admin-alive"]
require = ["vantage", "target"]
severity = "critical"
description = "office only, ${SECRET}"
[[check]]
name = "series"
kind = "promql"
target = "http://prometheus.example.com:9090"
query = "up"
expect = "open"
[[check]]
name = "published"
kind = "ranges"
target = "https://ranges.example.com/ipv4.txt"
expected = ["203.0.113.0/24"]
expect = "open"
[[check]]
name = "published-here"
kind = "ranges"
target = "file:published.json"
expected = ["203.0.113.0/24"]
expect = "open"
[[check]]
name = "swept"
kind = "ports"
target = "192.0.2.0/30"
ports = "1-1024"
expect = "blocked"
witness = []
require = []
[[check]]
name = "resolver"
kind = "udp"
target = "ns.example.com:53"
expect = "blocked"
witness = []
require = []
[[check]]
name = "echo"
kind = "icmp"
target = "192.0.2.0/30"
expect = "blocked"
witness = []
require = []
[[check]]
name = "hidden"
kind = "dns"
target = "db.internal.example.com"
server = "192.0.2.53"
expect = "blocked"
witness = []
require = []
[[check]]
name = "suite"
kind = "open-proxy"
target = "192.0.2.7:3128"
techniques = ["OP-01", "OP-02", "OP-09", "OP-07"]
beacon = ["http://b.example.com/", "http://b.example.com:9891/"]
allowed_destination = "api.example.com:443"
expect = "blocked"
witness = []
require = []
"#;

#[test]
fn an_inverted_check_in_words() {
    let expected = "\
admin-closed (inverted: it must be kept out, critical)
  claim       tcp admin.example.com:443 must be blocked
  about       office only, ***
  sends       a TCP handshake, and nothing after it: the connection is closed at once
  to          every ipv4 address that the system's resolver gives for admin.example.com, port 443; not covered: ipv6
  from        the address that the system chooses
  when        every 10m by `run`; once a round by `check`
  attempts    2 at each address, each of at most 4s, begun 1s apart; fewer if one gets in. 9s at worst
  at most     2 connections an address and run; 64 addresses, so 128 a run; and where something answers without proof of who it is, one to the decoy (192.0.2.1)
  accepts     refused, prohibited, unreachable and timeout
              silence counts only where at least 3 SYNs left this host in each attempt
  witness     internet (tcp one.one.one.one:443): must get through within 8s before and 8s after; can give vantage and port
  witness     admin-alive (peer https://office.example.com/monitor): must get through within 8s before and 8s after; can give vantage, port and target
  requires    vantage (this place was online, by that family and source) and target (the target was alive at that very address)
  holds       every attempt at every address is accepted, every witness got through around it, and it has vantage and target
  violated    an attempt gets in, whatever the witnesses say; it stays so until a run holds. Or it is kept out by an answer that is not accepted, each time, while every witness got through or the answer is authenticated (silence counts where a witness gave a proof)
  unproven    the attempts disagree; or a witness failed; or a required proof is missing; or the name does not resolve; or this host could not even try; or the decoy answers too
  stale       ";
    let plan = plan_of(FILE);
    let text = explained(&plan, "admin-closed");
    assert!(text.starts_with(expected), "{text}");
    let check = plan.checks.iter().find(|check| check.name == "admin-closed").unwrap();
    let seconds = check.stale_after().as_secs();
    assert_eq!(check.stale_after(), check.interval + std::time::Duration::from_secs(300) + check.worst_run);
    assert!(text.contains(&format!("stale       {seconds}s after its last run began: the interval of 10m, 5m of grace")), "{text}");
}

#[test]
fn what_is_sent_has_its_own_word_and_what_asks_a_server_its_own_verdicts() {
    let shut = |kind: &str, target: &str, more: &str| {
        format!("[[check]]\nname = \"{kind}\"\nkind = \"{kind}\"\ntarget = \"{target}\"\nexpect = \"blocked\"\nwitness = [\"w\"]\n{more}\n")
    };
    let text = [
        "vantage = \"here\"\n[[check]]\nname = \"w\"\nkind = \"icmp\"\ntarget = \"192.0.2.1\"\nsource = \"127.0.0.1\"\nexpect = \"open\"\n"
            .to_string(),
        shut("icmp", "192.0.2.7", "require = []"),
        shut("promql", "http://prometheus.example:9090", "query = \"up\"\nrequire = []"),
    ]
    .concat();
    let plan = plan_of(&text);
    assert!(explained(&plan, "icmp").contains("at least 3 echoes left this host in each attempt"), "{}", explained(&plan, "icmp"));
    let promql = explained(&plan, "promql");
    assert!(
        promql
            .contains("violated    an attempt ends in query-true, whatever the witnesses say; it stays so until a run holds. Nothing else"),
        "{promql}"
    );
    assert!(promql.contains("unproven    there was no answer, or it says neither yes nor no; or the attempts disagree"), "{promql}");
}

#[test]
fn a_suite_counts_its_connections() {
    let text = explained(&plan_of(FILE), "suite");
    // OP-01, OP-02 and OP-09 for each of two beacons, OP-01 and OP-02 as a browser, and OP-07 in two forms; each with a question to a log, and all of it three times.
    assert!(text.contains("at most     60 connections a run;"), "{text}");
    assert!(text.contains("OP-01, OP-02, OP-09, OP-07"), "{text}");
    assert!(text.contains("http://b.example.com/, http://b.example.com:9891/"), "{text}");
    assert!(text.contains("requires    no proof: a block counts even where this place itself was cut off"), "{text}");
    assert!(text.contains("; gateway-error and mute decide nothing"), "{text}");
    assert!(text.contains("silence never counts, since no witness is named"), "{text}");
}

#[test]
fn silence_is_of_what_is_sent() {
    let check = |kind: &str, target: &str, more: &str| {
        let text = format!(
            "vantage = \"x\"\n[[check]]\nname = \"w\"\nkind = \"tcp\"\ntarget = \"192.0.2.7:443\"\nexpect = \"open\"\n\
             [[check]]\nname = \"c\"\nkind = \"{kind}\"\ntarget = \"{target}\"\nexpect = \"blocked\"\nwitness = [\"w\"]\n{more}"
        );
        explained(&plan_of(&text), "c")
    };
    let udp = check("udp", "192.0.2.8:53", "payload = \"dns\"\n");
    assert!(udp.contains("at least 3 datagrams left this host in each attempt, and with the proof target: "), "{udp}");
    assert!(udp.contains("and it has vantage; where there is only silence, the proof target too\n"), "{udp}");
    assert!(udp.contains("one to the decoy (") && !udp.contains("SYN"), "{udp}");
    let icmp = check("icmp", "192.0.2.8", "");
    assert!(icmp.contains("at least 3 echoes left this host in each attempt\n") && !icmp.contains("the proof target"), "{icmp}");
}

#[test]
fn every_check_of_every_kind_has_its_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = load(&root.join("probes.toml"), Keys::Read).unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let mut plans: Vec<Plan> = vec![shipped.plan, plan_of(FILE)];
    for block in readme.split("```toml\n").skip(1) {
        let folder = tempfile::tempdir().unwrap();
        Key::load_or_create(&folder.path().join("beacon.key")).unwrap();
        std::fs::write(folder.path().join("office-monitor.password"), "secret\n").unwrap();
        let Loaded { plan, .. } = from_text("README", block.split("```").next().unwrap(), folder.path(), &|_| None, Keys::Read).unwrap();
        plans.push(plan);
    }
    let tls = "vantage = \"v\"\n[[check]]\nname = \"t\"\nkind = \"tls\"\ntarget = \"[2001:db8::7]:443\"\nexpect = [\"tls-refused\"]\nwitness = []\nrequire = []\n";
    plans.push(plan_of(tls));
    let mut kinds: Vec<&str> = Vec::new();
    for plan in &plans {
        for check in &plan.checks {
            let text = of_check(plan, check);
            for word in [
                "claim", "sends", "to", "from", "when", "attempts", "at most", "accepts", "requires", "holds", "violated", "unproven",
                "stale",
            ] {
                let line = text.lines().find(|line| line.starts_with(&format!("  {word:<11} ")));
                assert!(line.is_some_and(|line| line.len() > 16), "{word} of\n{text}");
            }
            kinds.push(check.probe.kind().token());
        }
    }
    let missing: Vec<&str> = Kind::ALL.iter().map(|kind| kind.token()).filter(|kind| !kinds.contains(kind)).collect();
    assert!(missing.is_empty(), "no configuration here has a check of kind {missing:?}: add one to FILE");
}

#[test]
fn the_command_names_what_it_does_not_find() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mustnot")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, out, err) = run(&["config", "explain", "admin-304"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(err, "mustnot: probes.toml has no check \"admin-304\"; did you mean \"admin-403\"?\n");
    let (code, out, _) = run(&["config", "explain", "admin-403", "closed-port"]);
    assert_eq!(code, Some(0));
    let heads: Vec<&str> = out.lines().filter(|line| !line.starts_with(' ') && !line.is_empty()).collect();
    assert_eq!(heads, ["admin-403 (inverted: it must be kept out, warning)", "closed-port (inverted: it must be kept out, warning)"]);
    let (code, out, _) = run(&["config", "explain", "--all"]);
    assert_eq!((code, out.matches("\n  stale ").count()), (Some(0), 7));
    let (code, _, _) = run(&["config", "explain"]);
    assert_eq!(code, Some(2));
    // The schema is one JSON document on standard output.
    let (code, out, _) = run(&["config", "schema"]);
    assert_eq!(code, Some(0));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), mustnot::plan::schema());
}

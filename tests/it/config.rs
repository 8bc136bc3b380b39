//! The configuration: bad files with their exact messages, good files with the plan they mean, and no panic on anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mustnot::config::Problems;
use mustnot::observation::{Family, Outcome};
use mustnot::plan::{Keys, Loaded, from_text, load};
use mustnot::probe::{Probe, Technique};
use mustnot::severity::Severity;
use mustnot::token::Key;
use mustnot::witness::{Proof, ProofSet};
use proptest::prelude::*;

/// How many bad files there are: a file that the test does not find is a test that does not run.
const BAD_FILES: usize = 198;

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder)
}

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("hunter2!".into()),
        "DB_HOST" => Some("db.example.com".into()),
        "SITE" => Some("office-1".into()),
        _ => None,
    }
}

fn read(file: &str, text: &str) -> Result<Loaded, Problems> {
    from_text(file, text, Path::new("."), &env, Keys::Read)
}

/// A good file, beside the key that it may name.
fn good(name: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    Key::load_or_create(&folder.path().join("shared.key")).unwrap();
    let text = fs::read_to_string(data("good").join(name)).unwrap();
    from_text(name, &text, folder.path(), &env, Keys::Read).unwrap_or_else(|problems| panic!("{problems}"))
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(data(folder)).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

/// Each `bad/NAME.toml` must be refused with exactly the lines of `bad/NAME.txt`. `BLESS=1` writes them anew, to be read.
/// By its health port the proxy says that it stands behind a load balancer; who can be let in by mistake then are those inside.
#[test]
fn a_balancer_that_may_hide_its_clients_is_hinted_at() {
    let hints = |proxy: &str| {
        let text = format!("vantage = \"v\"\n[proxy]\nlisten = \"127.0.0.1:0\"\n{proxy}\n");
        from_text("f", &text, Path::new(""), &|_| None, Keys::Read).unwrap().hints
    };
    let health = "health_listen = \"0.0.0.0:3129\"\n";
    let [hint] = &hints(&format!("{health}allow_from = [\"1.1.1.1\", \"10.0.0.0/16\"]")).try_into().unwrap();
    assert!(
        hint.starts_with("f:4:17: proxy.health_listen: is for a load balancer, and 10.0.0.0/16 of allow_from may be its address"),
        "{hint}"
    );
    for proxy in [
        "allow_from = \"10.0.0.0/16\"".to_string(),
        format!("{health}allow_from = \"1.1.1.1\""),
        format!("{health}allow_from = \"10.0.0.0/16\"\nproxy_protocol_from = \"10.0.1.0/24\""),
    ] {
        assert_eq!(hints(&proxy), [""; 0], "{proxy}");
    }
}

/// What is legal, and would be missed at night.
#[test]
fn alerts_that_reach_nobody_or_can_be_read_by_all_are_hinted_at() {
    let check = "[[check]]\nname = \"a\"\nkind = \"tcp\"\ntarget = \"a.example.com:443\"\nexpect = \"open\"\nseverity = \"critical\"\ntags = [\"t\"]\n";
    let hints = |text: &str| read("f", &format!("vantage = \"v\"\n{check}{text}")).unwrap_or_else(|p| panic!("{p}")).hints;
    let kept = |text: &str| {
        let all = read("f", &format!("vantage = \"v\"\nstate_dir = \"state\"\n{check}{text}")).unwrap_or_else(|p| panic!("{p}")).hints;
        all.into_iter().map(|hint| hint.split(": ").skip(1).collect::<Vec<_>>().join(": ")).collect::<Vec<String>>()
    };
    let sink = |rest: &str| format!("[[alert]]\nkind = \"webhook\"\nurl = \"https://a.example.com/\"\n{rest}");
    assert_eq!(kept(&sink("")), [""; 0]);
    let [hint] = &hints(&sink("")).try_into().unwrap();
    assert!(hint.starts_with("f:9:1: alert \"webhook\": without state_dir a restart forgets what was told"), "{hint}");
    // nothing is told, so nothing is forgotten
    assert_eq!(hints("[[alert]]\nkind = \"heartbeat\"\nurl = \"https://a.example.com/\"\n"), [""; 0]);
    for (text, said) in [
        (sink("only = \"a\"\n"), "alert \"webhook\": every sink has only, so that nobody is told when a drill fails"),
        (sink("only = \"tag:t\"\n"), "alert \"webhook\": every sink has only"),
        (
            "[[alert]]\nkind = \"alertmanager\"\nurl = \"http://am.example.com:9093\"\n".to_string(),
            "alert \"alertmanager\".url: http://am.example.com:9093 is told over plain HTTP",
        ),
        (
            "[[alert]]\nkind = \"slack\"\nurl = \"https://hooks.example.com/services/T0/B0/x\"\n".to_string(),
            "alert \"slack\".url: who knows this URL can write there",
        ),
    ] {
        let [hint] = &kept(&text).try_into().unwrap();
        assert!(hint.starts_with(said), "{hint}");
    }
    let none = kept(
        &sink("min_severity = \"critical\"\n")
            .replace("[[alert]]", "[[check]]\nname = \"b\"\nkind = \"tcp\"\ntarget = \"b.example.com:443\"\nexpect = \"open\"\n[[alert]]"),
    );
    assert_eq!(none, [""; 0]);
    let [first, second] =
        &kept(&(sink("only = \"b\"\n") + "[[check]]\nname = \"b\"\nkind = \"tcp\"\ntarget = \"b.example.com:443\"\nexpect = \"open\"\n"))
            .try_into()
            .unwrap();
    assert!(first.starts_with("check \"a\": is critical, and no [[alert]] takes its alerts"), "{first}");
    assert!(second.starts_with("alert \"webhook\": every sink has only"), "{second}");
    for quiet in ["http://127.0.0.1:9093", "http://[::1]:9093", "http://localhost:9093"] {
        assert_eq!(kept(&format!("[[alert]]\nkind = \"alertmanager\"\nurl = \"{quiet}\"\n")), [""; 0], "{quiet}");
    }
    assert_eq!(kept("[[alert]]\nkind = \"slack\"\nurl = \"https://hooks.example.com/${SECRET}\"\n"), [""; 0]);
}

/// Tunnels have as long as all else, unless it is said otherwise; and the lead is a part of it.
#[test]
fn the_time_to_drain_follows_the_grace() {
    let of = |top: &str, proxy: &str| {
        let text = format!("vantage = \"v\"\n{top}\n[proxy]\nlisten = \"127.0.0.1:0\"\n{proxy}\n");
        let proxy = from_text("f", &text, Path::new(""), &|_| None, Keys::Read).unwrap().plan.proxy.unwrap();
        (proxy.drain.as_secs(), proxy.drain_lead.as_millis())
    };
    assert_eq!(of("", ""), (25, 5000));
    assert_eq!(of("shutdown_grace = \"2s\"", ""), (2, 400));
    assert_eq!(of("shutdown_grace = \"100s\"", ""), (100, 5000));
    assert_eq!(of("shutdown_grace = \"2s\"", "drain = \"40s\""), (40, 5000));
    assert_eq!(of("", "drain = \"40s\"\ndrain_lead = \"40s\""), (40, 40000));
    assert_eq!(of("", "drain = \"0s\"\ndrain_lead = \"0s\""), (0, 0));
}

#[test]
fn every_bad_file_gets_its_exact_messages() {
    let files = toml_files("bad");
    let mut wrong = Vec::new();
    for file in &files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(file).unwrap();
        let said = match read(&name, &text) {
            Ok(_) => "it was accepted".to_string(),
            Err(problems) => problems.to_string(),
        };
        let expected = file.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, format!("{said}\n")).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if said != expected.trim_end() {
            wrong.push(format!("--- {name}\nexpected:\n{expected}\nsaid:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(files.len(), BAD_FILES);
}

#[test]
fn five_errors_are_told_at_once_and_in_order() {
    let text = fs::read_to_string(data("bad/five-at-once.toml")).unwrap();
    let problems = read("five-at-once.toml", &text).unwrap_err();
    assert_eq!(problems.iter().count(), 5);
    let lines: Vec<usize> = problems.to_string().lines().map(|l| l.split(':').nth(1).unwrap().parse().unwrap()).collect();
    assert!(lines.is_sorted(), "{lines:?}");
}

#[test]
fn the_internet_vantage() {
    let Loaded { plan, hints, created_key } = good("internet.toml");
    assert_eq!(plan.vantage, "internet");
    assert_eq!(plan.web.unwrap().listen.to_string(), "127.0.0.1:9890");
    assert_eq!((plan.witness_window, plan.linger, plan.shutdown_grace), (secs(10), secs(3600), secs(25)));
    assert_eq!(plan.decoy.v4.to_string(), "192.0.2.1");
    assert_eq!(plan.decoy.v6.to_string(), "2001:db8::1");
    let names: Vec<(&str, &str)> = plan.checks.iter().map(|c| (c.name.as_str(), c.probe.kind().token())).collect();
    let expected =
        [("internet", "tcp"), ("admin-alive", "peer"), ("admin-closed", "tcp"), ("admin-403", "http"), ("not-an-open-proxy", "open-proxy")];
    assert_eq!(names, expected);

    let closed = &plan.checks[2];
    assert_eq!(closed.target, "admin.example.com:443");
    assert_eq!(closed.expect, "blocked");
    assert!(
        closed.expectation.is_inverted() && closed.expectation.accepts(Outcome::Timeout) && !closed.expectation.accepts(Outcome::Reset)
    );
    assert_eq!(closed.witness_numbers().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(closed.require, ProofSet::NONE.with(Proof::Vantage).with(Proof::Target));
    assert_eq!((closed.interval, closed.timeout, closed.attempts), (secs(60), secs(4), 3));
    assert_eq!(closed.families, Family::BOTH);
    assert_eq!(closed.severity, Severity::Critical);
    assert!(closed.worst_run > secs(4));

    let forbidden = &plan.checks[3];
    assert_eq!(forbidden.expect, "[\"status:403\"]");
    assert!(forbidden.expectation.accepts(Outcome::Status(403)) && !forbidden.expectation.accepts(Outcome::Status(404)));
    assert_eq!(forbidden.require, ProofSet::NONE.with(Proof::Vantage));
    assert_eq!(forbidden.severity, Severity::Warning);

    let Probe::OpenProxy(suite) = &plan.checks[4].probe else { panic!("{:?}", plan.checks[4].probe) };
    assert_eq!(suite.techniques[..3], [Technique::CONNECT, Technique::ABSOLUTE_GET, Technique::ORIGIN_GET]);
    let left: Vec<Technique> = Technique::ALL.iter().copied().filter(|t| !suite.techniques.contains(t)).collect();
    assert!(left.iter().all(|t| t.needs_destination()) && left.len() == 1, "{left:?}");
    assert_eq!(
        suite.beacons.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["http://beacon.example.com:443/", "http://beacon.example.com:9891/"]
    );
    let Probe::Peer(peer) = &plan.checks[1].probe else { panic!() };
    assert_eq!((peer.check.as_str(), peer.max_age), ("admin-open", secs(60)));

    assert!(plan.beacon.unwrap().listen.is_empty());
    assert_eq!(created_key, None);
    let expected =
        ["internet.toml:44:1: check \"not-an-open-proxy\": no witness goes to port 3128, so a network that drops port 3128 on the way \
         looks like the block; name one that reaches port 3128 elsewhere"];
    assert_eq!(hints, expected);
}

#[test]
fn the_office_vantage() {
    let Loaded { plan, hints, .. } = good("office.toml");
    assert_eq!(plan.vantage, "office-1");
    let beacon = plan.beacon.as_ref().unwrap();
    assert_eq!(beacon.listen.len(), 2);
    let proxy = plan.proxy.as_ref().unwrap();
    assert_eq!(proxy.own, [plan.web.as_ref().unwrap().listen]);
    assert_eq!(proxy.egress[0].to_string(), "127.0.0.10");
    assert!(proxy.connect_ports.contains(9891) && proxy.connect_ports.contains(8005) && !proxy.connect_ports.contains(8011));
    assert_eq!((proxy.idle_timeout, proxy.max_connections, proxy.max_head), (secs(120), Some(500), 8192));
    assert_eq!((proxy.drain, proxy.drain_lead, proxy.egress_budget.unwrap().bytes), (secs(100), secs(20), 2_500_000_000));
    assert_eq!((proxy.proxy_protocol_from.len(), proxy.health_listen.as_slice()), (2, ["127.0.0.1:3129".parse().unwrap()].as_slice()));
    let page = plan.admin_page.as_ref().unwrap();
    assert_eq!((page.listen.to_string(), page.door.unwrap().to_string()), ("127.0.0.1:9892".into(), "127.0.0.1:9893".into()));
    assert!(plan.state_dir.as_deref().is_some_and(|dir| dir.is_absolute() && dir.ends_with("state")), "it starts where the file lies");

    let open = &plan.checks[0];
    assert!(
        !open.expectation.is_inverted()
            && open.expectation.accepts(Outcome::Status(204))
            && !open.expectation.accepts(Outcome::Status(301))
    );
    let Probe::Http(http) = &open.probe else { panic!() };
    assert_eq!(http.via.as_ref().unwrap().proxy.to_string(), "proxy.example.com:3128");
    assert_eq!(http.headers[0].0, "X-Token");
    assert_eq!(http.headers[0].1.expose(), "hunter2!");
    assert!(plan.masks.iter().any(|m| m.expose() == "hunter2!"), "what the environment gave is masked");
    assert!(plan.masks.iter().all(|m| m.expose() != "office-1"), "a vantage is a name, not a secret");
    assert_eq!(open.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["team=platform", "tier=1"]);

    let egress = &plan.checks[1];
    assert_eq!(egress.expect, "{ ip = [\"203.0.113.10\", \"203.0.113.0/28\"] }");
    let Probe::EgressIp(probe) = &egress.probe else { panic!() };
    assert_eq!(probe.expected.len(), 2);
    assert!(egress.expectation.accepts(Outcome::Egress));

    let stranger = plan.checks.iter().find(|c| c.name == "proxy-refuses-strangers").unwrap();
    let witness = stranger.witnesses[0].name.as_str();
    assert_eq!((witness, stranger.source.unwrap().to_string()), ("admin-open", "127.0.0.66".into()));
    let controlled = stranger.expectation == stranger.expectation.clone().controlled_by(vec!["OP-01"]);
    assert!(controlled, "a witness relays through the same proxy");
    assert_eq!(hints.len(), 1, "{hints:#?}");
}

#[test]
fn names_for_the_inside() {
    let Loaded { plan, hints, .. } = good("dns.toml");
    let check = |name: &str| plan.checks.iter().find(|c| c.name == name).unwrap();
    let dns = |name: &str| match &check(name).probe {
        Probe::Dns(dns) => dns,
        other => panic!("{other:?}"),
    };
    let records = |name: &str| dns(name).records.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((dns("www").name().as_str(), dns("www").servers.as_slice()), ("www.example.com", &["192.0.2.53:53".parse().unwrap()][..]));
    assert_eq!(records("www"), ["A"], "what must be given is rarely given by both families");
    assert_eq!(records("mail"), ["MX", "TXT", "HTTPS"]);
    assert_eq!(records("addresses"), ["A", "AAAA"], "both are among the answers");
    assert_eq!(records("hidden"), ["A", "AAAA"], "nothing must be given");
    assert!(dns("mail").servers.is_empty(), "the system's");
    assert_eq!(dns("hidden").servers[1].to_string(), "[2001:db8::53]:5353");
    let accepts = |name: &str, outcome| check(name).expectation.accepts(outcome);
    assert!(accepts("hidden", Outcome::NxDomain) && accepts("hidden", Outcome::NoData) && accepts("hidden", Outcome::DnsRefused));
    assert!(!accepts("hidden", Outcome::ServFail) && !accepts("hidden", Outcome::Refused) && accepts("hidden-here", Outcome::Refused));
    assert!(check("tcp").rooted && !check("www").probe.needs_resolving());
    let expected = [
        "dns.toml:25:1: check \"hidden\": no witness shows that [2001:db8::53]:5353 answers at all, so a server that denies every name \
         looks like the block; name a dns check with expect = \"open\" that asks it for a name that exists",
        "dns.toml:40:1: check \"hidden-stub\": no witness shows that the system's name server answers at all, so a server that denies \
         every name looks like the block; name a dns check with expect = \"open\" that asks it for a name that exists",
    ];
    assert_eq!(hints, expected);
}

#[test]
fn require_is_judged_by_the_file_alone() {
    let head = "vantage = \"v\"\n[[check]]\nname = \"w\"\nkind = \"tcp\"\nexpect = \"open\"\n";
    let tail = "\n[[check]]\nname = \"c\"\nkind = \"tcp\"\ntarget = \"a.example:22\"\nexpect = [\"refused\"]\nwitness = [\"w\"]\n";
    let accepted = |witness: &str, check: &str| read("f", &format!("{head}{witness}{tail}{check}")).map(|_| ()).map_err(|p| p.to_string());
    let cells = [
        ("target = \"b.example:443\"", "require = [\"vantage\"]", None),
        ("target = \"b.example:443\"\nsource = \"192.0.2.1\"", "require = [\"vantage\"]", Some("the proof vantage is required")),
        ("target = \"b.example:443\"\nsource = \"192.0.2.1\"", "require = [\"vantage\"]\nsource = \"192.0.2.1\"", None),
        ("target = \"b.example:443\"\nfamilies = [\"ipv4\"]", "families = [\"ipv6\"]", Some("the proof vantage is required")),
        ("target = \"b.example:443\"", "require = [\"port\"]", Some("the proof port is required")),
        ("target = \"b.example:22\"", "require = [\"port\"]", None),
        ("target = \"b.example:22\"\nsource = \"192.0.2.1\"", "require = [\"port\"]", Some("the proof port is required")),
        ("target = \"a.example:22\"", "require = [\"target\"]", Some("the proof target is required")),
        ("target = \"a.example:22\"\nsource = \"192.0.2.1\"", "require = [\"target\"]", None),
        ("target = \"a.example:23\"\nsource = \"192.0.2.1\"", "require = [\"target\"]", Some("the proof target is required")),
        ("target = \"b.example:22\"\nsource = \"192.0.2.1\"", "require = []", None),
    ];
    for (witness, check, refused) in cells {
        match (accepted(witness, check), refused) {
            (Ok(()), None) => {}
            (Err(said), Some(part)) if said.contains(part) && said.lines().count() == 1 => {}
            (said, _) => panic!("{witness} / {check}: {said:?}"),
        }
    }
}

#[test]
fn a_witness_by_tunnel_or_through_the_target_gives_target() {
    let head = "vantage = \"v\"\n[beacon]\nlisten = \"127.0.0.1:9891\"\nkey_file = \"no-such.key\"\n\
                [[check]]\nname = \"w\"\nkind = \"http\"\ntarget = \"https://a.example/\"\nvia = \"http://p.example:3128\"\nexpect = \"open\"\n";
    let tunnelled = "[[check]]\nname = \"c\"\nkind = \"tcp\"\ntarget = \"a.example:443\"\nexpect = \"blocked\"\nwitness = [\"w\"]\nrequire = [\"target\"]\n";
    assert!(read("f", &format!("{head}{tunnelled}")).is_ok());
    let proxy = "[[check]]\nname = \"c\"\nkind = \"open-proxy\"\ntarget = \"p.example:3128\"\nbeacon = \"http://b.example:9891\"\n\
                 expect = \"blocked\"\nwitness = [\"w\"]\nrequire = [\"target\"]\n";
    let same_source = read("f", &format!("{head}{proxy}")).unwrap_err().to_string();
    assert!(same_source.contains("the proof target is required"), "{same_source}");
    let stranger = format!("{head}{proxy}source = \"192.0.2.66\"\nfamilies = [\"ipv4\"]\n");
    assert!(read("f", &stranger).is_ok());
}

#[test]
fn a_witness_that_follows_redirects_from_elsewhere_may_give_target() {
    let check = "[[check]]\nname = \"c\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:18022\"\nsource = \"127.0.0.66\"\nexpect = [\"refused\"]\n\
                 witness = [\"w\"]\nrequire = [\"target\"]\n";
    let accepted = |keys: &str| {
        let witness =
            "vantage = \"v\"\n[[check]]\nname = \"w\"\nkind = \"http\"\ntarget = \"http://127.0.0.1:18080/door\"\nexpect = \"open\"\n";
        read("f", &format!("{witness}{keys}\n{check}")).map(|_| ()).map_err(|p| p.to_string())
    };
    assert_eq!(accepted("follow_redirects = true"), Ok(()));
    assert_eq!(accepted("follow_redirects = true\nsource = \"127.0.0.1\""), Ok(()));
    let refused = ["", "follow_redirects = true\nsource = \"127.0.0.66\"", "follow_redirects = true\nvia = \"http://127.0.0.1:3128\""];
    for keys in refused {
        assert!(accepted(keys).unwrap_err().contains("the proof target is required"), "{keys}");
    }
}

#[test]
fn default_witnesses_skip_the_check_itself() {
    let text = "vantage = \"v\"\n[defaults]\nwitness = [\"w\"]\n\
                [[check]]\nname = \"w\"\nkind = \"tcp\"\ntarget = \"b.example:22\"\nexpect = \"open\"\n\
                [[check]]\nname = \"c\"\nkind = \"tcp\"\ntarget = \"a.example:22\"\nexpect = \"blocked\"\n";
    let plan = read("f", text).unwrap().plan;
    let witnesses = |check: usize| plan.checks[check].witness_numbers().collect::<Vec<_>>();
    assert_eq!((witnesses(0), witnesses(1)), (vec![], vec![0]));
}

#[test]
fn silence_needs_three_seconds() {
    let text = |timeout: &str, expect: &str| {
        format!(
            "vantage = \"v\"\n[[check]]\nname = \"c\"\nkind = \"tcp\"\ntarget = \"a.example:22\"\nexpect = {expect}\n\
             witness = []\nrequire = []\ntimeout = \"{timeout}\"\n"
        )
    };
    assert!(read("f", &text("3s", "\"blocked\"")).is_ok());
    assert!(read("f", &text("2999ms", "\"blocked\"")).unwrap_err().to_string().contains("a timeout of 2999ms is too short"));
    assert!(read("f", &text("1s", "[\"refused\"]")).is_ok());
}

#[test]
fn a_key_is_made_only_for_a_good_file_that_will_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probes.toml");
    let key = folder.path().join("beacon.key");
    let text = "vantage = \"v\"\n[beacon]\nlisten = \"127.0.0.1:9891\"\nkey_file = \"beacon.key\"\n";
    fs::write(&file, format!("{text}colour = 1\n")).unwrap();
    assert!(load(&file, Keys::Create).is_err());
    assert!(!key.exists(), "the file is wrong");
    fs::write(&file, text).unwrap();
    assert_eq!(load(&file, Keys::Read).unwrap().created_key, None);
    assert!(!key.exists(), "it was only looked at");
    assert_eq!(load(&file, Keys::Create).unwrap().created_key, Some(key.clone()));
    assert!(key.exists());
    assert_eq!(load(&file, Keys::Create).unwrap().created_key, None);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_too() {
    let said = load(Path::new("no/such.toml"), Keys::Read).unwrap_err().to_string();
    let expected =
        "no/such.toml:1:1: file: cannot be read (No such file or directory (os error 2)); write one there, or name another with --config";
    assert_eq!(said, expected);
}

#[test]
fn every_key_is_documented() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    let missing: Vec<&str> = mustnot::config::every_key().filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/configuration.md says nothing of {missing:?}");
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A good file with one stretch of it replaced.
fn mutated() -> impl Strategy<Value = String> {
    let texts: Vec<String> = ["good", "bad"].iter().flat_map(|f| toml_files(f)).map(|p| fs::read_to_string(p).unwrap()).collect();
    let piece = prop_oneof![
        Just(String::new()),
        "[\\[\\]{}\"'=,.#\n$ a-z0-9:/-]{0,8}",
        any::<char>().prop_map(String::from),
        Just("${SECRET}".into()),
        Just("99999999999999999999".into())
    ];
    (prop::sample::select(texts), any::<prop::sample::Index>(), 0usize..12, piece).prop_map(|(text, at, length, piece)| {
        let chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len() + 1);
        let end = (at + length).min(chars.len());
        chars[..at].iter().collect::<String>() + &piece + &chars[end..].iter().collect::<String>()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = read("f", &text);
    }

    #[test]
    fn no_mutation_makes_it_panic(text in mutated()) {
        if let Err(problems) = read("f", &text) {
            prop_assert!(problems.iter().count() > 0);
            let said = problems.to_string();
            prop_assert!(!said.contains("please report this"), "{}", said);
            for line in said.lines() {
                prop_assert!(line.splitn(5, ':').count() == 5 && line.starts_with("f:"), "{}", line);
            }
        }
    }
}

//! The sweep, by both of its methods: what they find must be the truth, and the same.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::run::{Run, check, config, internet, observed, office, peer, start_gate_under, start_gate_with};
use crate::service::until;
use crate::world::{ADMIN4, ADMIN6, Denial, Host, Lab, PROXY4, SECOND4};

/// Takes the right to raw sockets away: all that is left is to connect.
const UNPRIVILEGED: [&str; 3] = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"];

/// A sweep; `rest` are further lines of the table.
fn sweep(name: &str, target: &str, ports: &str, rest: &str) -> String {
    check(name, "ports", target, &format!("ports = {ports}\nexpect = \"blocked\"\nrate = 20000\n{rest}"))
}

/// The same gate by both methods at once: by SYNs of our own, and by connect.
fn both(lab: &Lab, body: &str) -> [(&'static str, Run); 2] {
    let text = config("stranger", body);
    let gates = [("syn", &[][..]), ("connect", &UNPRIVILEGED[..])]
        .map(|(method, under)| (method, start_gate_under(lab, Host::Stranger, &text, under)));
    gates.map(|(method, gate)| (method, gate.finish(lab)))
}

/// What the slices of a check count.
fn counted(check: &Value) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for counts in observed(check).iter().filter_map(|o| o["evidence"]["sweep"]["outcomes"].as_object()) {
        for (outcome, count) in counts {
            *sums.entry(outcome.clone()).or_default() += count.as_u64().unwrap();
        }
    }
    sums
}

fn methods(check: &Value) -> Vec<&str> {
    let mut methods: Vec<&str> = observed(check).iter().filter_map(|o| o["evidence"]["sweep"]["method"].as_str()).collect();
    methods.dedup();
    methods
}

fn coverage(check: &Value) -> [u64; 3] {
    ["planned", "attempted", "answered"].map(|what| check["coverage"][what].as_u64().unwrap())
}

/// The ports of a host that were found open and must not be.
fn open(check: &Value) -> Vec<&str> {
    let open = observed(check).into_iter().filter(|o| o["verdict"] == "violated" && o["cause"] == "open");
    open.map(|o| o["address"].as_str().unwrap()).collect()
}

/// Linux sends no more than 1000 ICMP errors a second (ip-sysctl, `icmp_msgs_per_sec`); here the edge sends them all.
fn every_error_is_sent(lab: &Lab) {
    lab.output(Host::Edge, &["sysctl", "-q", "-w", "net.ipv4.icmp_msgs_per_sec=1000000", "net.ipv4.icmp_msgs_burst=1000000"]);
}

/// How many answers of ours a host still waits for.
fn half_open(lab: &Lab, host: Host) -> usize {
    lab.output(host, &["ss", "-Htn", "state", "syn-recv"]).lines().count()
}

#[test]
fn a_host_that_refuses_everything_but_one_port_holds() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["tcp dport 443 accept"], Denial::Reset);
    for (method, run) in both(&lab, &sweep("closed", ADMIN4, "\"1-65535\"", "open = [443]")) {
        run.expect("closed", "holds", "as-expected", "refused|connected");
        run.expect_proofs("closed", &["vantage"]);
        let seen = run.check("closed");
        assert_eq!(coverage(seen), [65_534; 3]);
        assert_eq!(counted(seen), BTreeMap::from([("refused".to_owned(), 65_534)]));
        assert_eq!(methods(seen), [method]);
        let reason = seen["reason"].as_str().unwrap();
        assert!(reason.contains("65,534 ports of 203.0.113.7 are closed (65,534 refused), and 443 is open as it must be"), "{reason}");
        assert_eq!(run.observation("closed", "203.0.113.7:443")["outcome"], "connected");
        run.expect_code(0);
    }
}

#[test]
fn silence_is_a_block_after_nine_syns_and_between_witnesses() {
    let Some(lab) = Lab::new() else { return };
    let before = lab.kept_out();
    let body = internet() + &sweep("closed", ADMIN4, "\"1000-1199\"", "witness = [\"internet\"]");
    for (method, run) in both(&lab, &body) {
        run.expect("closed", "holds", "as-expected", "timeout");
        let seen = run.check("closed");
        assert_eq!((coverage(seen), methods(seen)), ([200, 200, 0], vec![method]));
        assert_eq!(observed(seen)[0]["attempts"], 3);
    }
    assert!(lab.kept_out() - before >= 2 * 200 * 9, "{} SYNs", lab.kept_out() - before);

    // A witness that is down makes the very same silence worth nothing; and nothing is seen by SYNs of our own alone.
    let alone = check("dead", "tcp", "witness.lab.test:1", "expect = \"open\"\nattempts = 1")
        + &sweep("dead-witness", ADMIN4, "\"1000-1099\"", "witness = [\"dead\"]")
        + &sweep("no-witness", ADMIN4, "\"1000-1099\"", "witness = []\nrequire = []");
    let [(_, run), _] = both(&lab, &alone);
    run.expect("dead-witness", "unproven", "witness-failed", "timeout");
    run.expect("no-witness", "holds", "as-expected", "timeout");
    assert_eq!((methods(run.check("dead-witness")), methods(run.check("no-witness"))), (vec!["connect"], vec!["connect"]));
}

#[test]
fn one_open_port_among_thousands_of_every_denial_is_found() {
    let Some(lab) = Lab::new() else { return };
    let rules = [
        "tcp dport 443 accept",
        "tcp dport 4567 accept",
        "tcp dport 1000-2999 reject with icmpx type admin-prohibited",
        "tcp dport 3000-3099 drop",
        "tcp dport 3100-3199 reject with icmpx type host-unreachable",
    ];
    lab.acl_with(&rules, Denial::Reset);
    every_error_is_sent(&lab);
    lab.listen(Host::Private, "hidden4", ADMIN4, 4567, "hold");
    lab.listen(Host::Private, "hidden6", ADMIN6, 4567, "hold");
    for (method, run) in both(&lab, &sweep("closed", "admin.lab.test", "\"1000-9000\"", "except = [8000]\nopen = [443]")) {
        run.expect("closed", "violated", "open", "connected");
        let seen = run.check("closed");
        let mut found = open(seen);
        found.sort_unstable();
        assert_eq!(found, ["203.0.113.7:4567", "[fd00:113::7]:4567"], "{method}");
        let expected = [("prohibited", 4000), ("refused", 2 * (8000 - 2000 - 200 - 1)), ("timeout", 200), ("unreachable", 200)];
        assert_eq!(counted(seen), expected.map(|(outcome, n)| (outcome.to_owned(), n)).into(), "{method}");
        assert_eq!((coverage(seen), methods(seen)), ([16_000, 16_000, 15_800], vec![method]));
        let reason = seen["reason"].as_str().unwrap();
        assert!(reason.contains("let us in by port 4567 (7,999 other ports did not) and so did 1 more address, seen from"), "{reason}");
        assert!(seen["reproduce"].as_str().unwrap().starts_with("nc -vz -w 3"), "{seen:#}");
        assert_eq!(seen["proofs"], json!(["vantage"]));
        run.expect_code(1);
    }
    assert_eq!(half_open(&lab, Host::Private), 0, "every SYN-ACK is answered by RST");
}

#[test]
fn a_port_that_must_be_open_and_is_not() {
    let Some(lab) = Lab::new() else { return };
    lab.acl(Denial::Reset);
    let body = sweep("refused", ADMIN4, "\"1000-1099\"", "open = [443]");
    for (_, run) in both(&lab, &body) {
        run.expect("refused", "violated", "not-open", "refused");
        let slice = observed(run.check("refused")).into_iter().find(|o| o["evidence"]["sweep"].is_object()).unwrap();
        assert_eq!((&slice["verdict"], &slice["cause"]), (&json!("unproven"), &json!("witness-failed")));
    }
    // One of two is enough of a canary, and the other is missed all the same.
    lab.acl_with(&["tcp dport 443 accept"], Denial::Reset);
    for (_, run) in both(&lab, &sweep("half", ADMIN4, "\"1000-1099\"", "open = [22, 443]")) {
        run.expect("half", "violated", "not-open", "refused");
        assert_eq!(run.observation("half", "203.0.113.7:1000-1099")["verdict"], "holds");
        assert!(run.check("half")["reason"].as_str().unwrap().contains("203.0.113.7:22 refused the connection"), "{:#}", run.check("half"));
    }
}

#[test]
fn a_port_that_opens_during_the_sweep_is_found() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["tcp dport 443 accept"], Denial::Reset);
    lab.listen(Host::Private, "late", ADMIN4, 2990, "hold");
    let text = config("stranger", &check("slow", "ports", ADMIN4, "ports = \"1000-3000\"\nopen = [443]\nexpect = \"blocked\"\nrate = 500"));
    for under in [&[][..], &UNPRIVILEGED] {
        lab.acl_with(&["tcp dport 443 accept"], Denial::Reset);
        let gate = start_gate_under(&lab, Host::Stranger, &text, under);
        std::thread::sleep(Duration::from_secs(4));
        lab.acl_with(&["tcp dport 443 accept", "tcp dport 2990 accept"], Denial::Reset);
        let run = gate.finish(&lab);
        run.expect("slow", "violated", "open", "connected");
        assert_eq!(open(run.check("slow")), ["203.0.113.7:2990"]);
    }
}

#[test]
fn a_soft_error_ends_no_handshake() {
    let Some(lab) = Lab::new() else { return };
    lab.listen(Host::Private, "wavers", ADMIN4, 1234, "hold");
    for (_, under) in [("syn", &[][..]), ("connect", &UNPRIVILEGED)] {
        // Three SYNs of four find no way: whoever goes on asking gets in, as any client does.
        let rejected = "tcp dport 1234 tcp flags & (syn | ack) == syn numgen inc mod 4 < 3 reject with icmpx type host-unreachable";
        lab.acl_with(&["tcp dport 443 accept", rejected, "tcp dport 1234 accept"], Denial::Reset);
        let text = config("stranger", &sweep("wavers", ADMIN4, "\"1200-1299\"", "open = [443]"));
        let run = start_gate_under(&lab, Host::Stranger, &text, under).finish(&lab);
        run.expect("wavers", "violated", "open", "connected");
    }
    lab.acl_with(&["tcp dport 443 accept", "tcp dport 1234 reject with icmpx type host-unreachable"], Denial::Reset);
    for (method, run) in both(&lab, &sweep("unreachable", ADMIN4, "\"1234-1235\"", "open = [443]")) {
        run.expect("unreachable", "holds", "as-expected", "*");
        assert_eq!(counted(run.check("unreachable")), BTreeMap::from([("refused".into(), 1), ("unreachable".into(), 1)]), "{method}");
    }
}

#[test]
fn what_was_swept_after_the_target_died_is_unproven() {
    let Some(lab) = Lab::new() else { return };
    let text = config("stranger", &check("dies", "ports", ADMIN4, "ports = \"1000-5000\"\nopen = [443]\nexpect = \"blocked\"\nrate = 500"));
    for under in [&[][..], &UNPRIVILEGED] {
        lab.acl_with(&["tcp dport 443 accept"], Denial::Reset);
        let gate = start_gate_under(&lab, Host::Stranger, &text, under);
        std::thread::sleep(Duration::from_secs(14));
        lab.acl(Denial::Drop);
        let run = gate.finish(&lab);
        run.expect("dies", "unproven", "witness-failed", "*");
        let slices = |verdict: &str| {
            observed(run.check("dies")).iter().filter(|o| o["evidence"]["sweep"].is_object() && o["verdict"] == verdict).count()
        };
        assert!(slices("holds") >= 1, "the first slices stand between two runs of the canary: {:#}", run.check("dies"));
        assert!(slices("unproven") >= 1, "{:#}", run.check("dies"));
    }
}

#[test]
fn answers_that_are_rate_limited_are_waited_for_and_never_an_open_port() {
    let Some(lab) = Lab::new() else { return };
    let rules = [
        "tcp dport 443 accept",
        "tcp dport 1000-1499 limit rate 50/second burst 5 packets reject with icmpx type admin-prohibited",
        "tcp dport 1000-1499 drop",
        "tcp dport 2000-2499 limit rate 50/second burst 5 packets reject with tcp reset",
        "tcp dport 2000-2499 drop",
    ];
    lab.acl_with(&rules, Denial::Drop);
    for (method, run) in both(&lab, &sweep("limited", ADMIN4, "[\"1000-1499\", \"2000-2499\"]", "open = [443]")) {
        run.expect("limited", "holds", "as-expected", "*");
        let [planned, attempted, answered] = coverage(run.check("limited"));
        assert_eq!((planned, attempted), (1000, 1000));
        // The burst alone lets five answers of each kind through; how many more follow depends on how fast the machine asks.
        assert!((5..=1000).contains(&answered), "{method}: {answered}");
    }
}

#[test]
fn loss_hides_no_open_port_and_invents_none() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["tcp dport 443 accept", "tcp dport 1234 accept"], Denial::Reset);
    lab.listen(Host::Private, "hidden", ADMIN4, 1234, "hold");
    lab.loss(20);
    let body = sweep("lossy", ADMIN4, "\"1000-1499\"", "open = [443]") + &sweep("clean", ADMIN4, "\"2000-2499\"", "open = [443]");
    for (method, run) in both(&lab, &body) {
        run.expect("lossy", "violated", "open", "connected");
        assert_eq!(open(run.check("lossy")), ["203.0.113.7:1234"], "{method}");
        assert_ne!(run.check("clean")["verdict"], "violated", "{method}: {:#}", run.check("clean"));
    }
}

#[test]
fn what_this_host_keeps_back_is_no_block() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["tcp dport 443 accept"], Denial::Reset);
    let body = internet()
        + &sweep("own", ADMIN4, "\"1000-1099\"", "open = [443]")
        + &sweep("witnessed", ADMIN4, "\"1000-1099\"", "witness = [\"internet\"]");
    // Nothing gets out.
    lab.own_firewall(&["tcp dport != 53 drop"]);
    for (_, run) in both(&lab, &body) {
        run.expect_never_holds("own");
        run.expect_never_holds("witnessed");
    }
    // The target alone does not get anything from us; the witness does.
    lab.own_firewall(&["ip daddr 203.0.113.7 drop"]);
    for (method, run) in both(&lab, &body) {
        run.expect_never_holds("own");
        if method == "syn" {
            run.expect("witnessed", "unproven", "local", "local-error");
            let detail = observed(run.check("witnessed"))[0]["evidence"]["errno"].clone();
            assert_eq!(detail, "EPERM");
        }
    }
    // Our own ICMP, our own missing route, a neighbour that is not there.
    lab.own_firewall(&["ip daddr 203.0.113.7 tcp dport 1000-1099 reject with icmp type admin-prohibited"]);
    for (_, run) in both(&lab, &body) {
        run.expect("own", "unproven", "local", "local-error");
    }
    lab.own_firewall(&[]);
    lab.ip(Host::Stranger, "route add unreachable 203.0.113.7\n");
    for (_, run) in both(&lab, &body) {
        run.expect("witnessed", "unproven", "local", "local-error");
    }
    lab.no_neighbour();
    let gone = internet() + &sweep("gone", "203.0.113.9", "\"1000-1009\"", "witness = [\"internet\"]\ntimeout = \"5s\"");
    for (_, run) in both(&lab, &gone) {
        run.expect("gone", "unproven", "local", "local-error");
    }
}

/// A rule of the stranger's own that lets a SYN-ACK in only where a socket waits for it: none does for SYNs of our own.
fn blind_to_our_own_syns(lab: &Lab) {
    let answer = "add rule inet own input tcp flags & (syn | ack) == (syn | ack)";
    lab.nft(Host::Stranger, &format!("{answer} socket transparent 0 accept\n{answer} drop\n"));
}

#[test]
fn eyes_that_are_closed_see_no_silence() {
    let Some(lab) = Lab::new() else { return };
    let open = ["tcp dport 443 accept", "tcp dport 1050 accept"];
    lab.acl_with(&open, Denial::Drop);
    lab.listen(Host::Private, "hidden", ADMIN4, 1050, "hold");
    let under: [&str; 0] = [];
    let gate = |ports: &str, rate: u32| {
        let body = check("closed", "ports", ADMIN4, &format!("ports = {ports}\nopen = [443]\nexpect = \"blocked\"\nrate = {rate}"));
        start_gate_under(&lab, Host::Stranger, &config("stranger", &body), &under)
    };
    // It closes while they look: what is silent from then on was not seen.
    let running = gate("\"1100-1999\"", 300);
    std::thread::sleep(Duration::from_secs(8));
    blind_to_our_own_syns(&lab);
    let run = running.finish(&lab);
    run.expect("closed", "unproven", "local", "local-error");
    assert_eq!(methods(run.check("closed")), ["syn"]);
    // The same, and of two ports that must be open the one that answered our SYNs goes away: the other one still tells.
    lab.nft(Host::Stranger, "flush chain inet own input\n");
    lab.listen(Host::Private, "other", ADMIN4, 1443, "hold");
    lab.acl_with(&["tcp dport 443 accept", "tcp dport 1443 accept"], Denial::Drop);
    let two = check("closed", "ports", ADMIN4, "ports = \"1100-1399\"\nopen = [443, 1443]\nexpect = \"blocked\"\nrate = 150");
    let running = start_gate_under(&lab, Host::Stranger, &config("stranger", &two), &under);
    std::thread::sleep(Duration::from_secs(8));
    blind_to_our_own_syns(&lab);
    lab.acl_with(&["tcp dport 1443 accept"], Denial::Drop);
    let run = running.finish(&lab);
    run.expect("closed", "unproven", "local", "local-error");
    assert_eq!(methods(run.check("closed")), ["syn"]);
    lab.acl_with(&open, Denial::Drop);
    // It was closed before: then they are not used at all.
    let run = gate("\"1000-1099\"", 20_000).finish(&lab);
    run.expect("closed", "violated", "open", "connected");
    assert_eq!((methods(run.check("closed")), open_ports(&run)), (vec!["connect"], vec!["203.0.113.7:1050".to_owned()]));
}

fn open_ports(run: &Run) -> Vec<String> {
    open(run.check("closed")).into_iter().map(str::to_owned).collect()
}

#[test]
fn a_syn_that_was_answered_and_a_connect_that_was_not_decide_nothing() {
    let Some(lab) = Lab::new() else { return };
    lab.listen(Host::Private, "once", ADMIN4, 1234, "hold");
    lab.acl_with(&["tcp dport 443 accept", "tcp dport 1234 tcp flags syn limit rate 1/hour burst 1 packets accept"], Denial::Reset);
    let text = config("stranger", &sweep("once", ADMIN4, "\"1200-1299\"", "open = [443]"));
    let run = start_gate_under(&lab, Host::Stranger, &text, &[]).finish(&lab);
    run.expect("once", "unproven", "other-denial", "refused");
    let seen = run.observation("once", "203.0.113.7:1234");
    assert_eq!((&seen["evidence"]["swept_as"], &seen["attempts"]), (&json!("connected"), &json!(3)), "{seen:#}");
}

#[test]
fn every_answered_syn_is_reset_by_us_if_not_by_the_kernel() {
    let Some(lab) = Lab::new() else { return };
    let ports: Vec<u16> = (1200..1210).collect();
    for port in &ports {
        lab.listen(Host::Private, &format!("open:{port}"), ADMIN4, *port, "hold");
    }
    lab.acl_with(&["tcp dport 443 accept", "tcp dport 1200-1209 accept"], Denial::Reset);
    // An RST of the kernel's has no owner.
    lab.own_firewall(&["tcp flags & rst == rst meta skuid 0 accept", "tcp flags & rst == rst drop"]);
    let text = config("stranger", &sweep("open", ADMIN4, "\"1200-1299\"", "open = [443]"));
    let run = start_gate_under(&lab, Host::Stranger, &text, &[]).finish(&lab);
    run.expect("open", "violated", "open", "connected");
    assert_eq!((open(run.check("open")).len(), methods(run.check("open"))), (10, vec!["syn"]));
    assert_eq!(half_open(&lab, Host::Private), 0);
}

#[test]
fn any_port_of_the_address_by_the_allowed_way_is_the_proof_target() {
    let Some(lab) = Lab::new() else { return };
    let _office = office(&lab);
    let elsewhere = check("other-source", "tcp", &format!("{ADMIN4}:443"), &format!("expect = \"open\"\nsource = \"{SECOND4}\""));
    lab.acl_with(&[&format!("ip saddr {SECOND4} accept")], Denial::Drop);
    let body = internet()
        + &peer("admin-alive", "admin-open")
        + &elsewhere
        + &sweep(
            "by-peer",
            "admin.lab.test",
            "\"1000-1049\"",
            "witness = [\"internet\", \"admin-alive\"]\nrequire = [\"vantage\", \"target\"]",
        )
        + &sweep("by-source", ADMIN4, "\"1000-1049\"", "witness = [\"internet\", \"other-source\"]\nrequire = [\"vantage\", \"target\"]")
        + &sweep("by-open-port", PROXY4, "\"1000-1049\"", "open = [3128]\nwitness = [\"internet\"]");
    lab.listen(Host::Private, "proxy", PROXY4, 3128, "hold");
    for (_, run) in both(&lab, &body) {
        for name in ["by-peer", "by-source"] {
            run.expect(name, "holds", "as-expected", "timeout");
            run.expect_proofs(name, &["vantage", "target"]);
        }
        // The usual way is not the allowed one.
        run.expect_proofs("by-open-port", &["vantage"]);
    }
}

#[test]
fn a_sweep_that_is_cut_short_says_how_much_is_missing() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["tcp dport 443 accept"], Denial::Reset);
    let text = config("stranger", &check("slow", "ports", ADMIN4, "ports = \"1000-9000\"\nopen = [443]\nexpect = \"blocked\"\nrate = 500"));
    let run = start_gate_with(&lab, Host::Stranger, &text, &[], &["--deadline", "12s"]).finish(&lab);
    run.expect("slow", "unproven", "coverage", "*");
    let reason = run.check("slow")["reason"].as_str().unwrap();
    assert!(reason.contains(" ports of 203.0.113.7 were looked at to the end from stranger ("), "{reason}");
    assert!(!reason.contains("443"), "the canary is well, and not what is amiss: {reason}");
    assert_eq!(run.observation("slow", "203.0.113.7:443")["verdict"], "holds");
    assert!(!run.check("slow")["reproduce"].as_str().unwrap().ends_with(" 443"), "{:#}", run.check("slow"));
    let [planned, attempted, _] = coverage(run.check("slow"));
    assert!(planned == 8001 && attempted > 0 && attempted < planned, "{attempted} of {planned}");
}

#[test]
fn few_file_descriptors_make_a_sweep_slow_and_never_wrong() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["tcp dport 443 accept", "tcp dport 1000-1020 drop"], Denial::Reset);
    let text = config("stranger", &sweep("few", ADMIN4, "\"1000-2999\"", "open = [443]"));
    let under: Vec<&str> = UNPRIVILEGED.into_iter().chain(["sh", "-c", "ulimit -n 48; exec \"$@\"", "sh"]).collect();
    let run = start_gate_under(&lab, Host::Stranger, &text, &under).finish(&lab);
    run.expect("few", "holds", "as-expected", "*");
    assert_eq!(coverage(run.check("few")), [2000, 2000, 1979]);
    let none: Vec<&str> = UNPRIVILEGED.into_iter().chain(["sh", "-c", "ulimit -n 16; exec \"$@\"", "sh"]).collect();
    start_gate_under(&lab, Host::Stranger, &text, &none).finish(&lab).expect_never_holds("few");
}

#[test]
fn what_is_not_as_demanded_is_told_port_by_port_up_to_a_bound() {
    let Some(lab) = Lab::new() else { return };
    let more = "tcp dport { 443, 5000-5099 } accept";
    lab.acl_with(&[more, "tcp dport 1000-1199 drop"], Denial::Reset);
    lab.nft(
        Host::Private,
        "table ip r {\n chain p {\n type nat hook prerouting priority -100;\n tcp dport 5000-5099 dnat to 203.0.113.7:443\n }\n}\n",
    );
    let refused = "ports = \"900-1299\"\nexpect = [\"refused\"]\nopen = [443]\nrate = 20000";
    let body = check("refused", "ports", ADMIN4, refused) + &sweep("many", ADMIN4, "\"4900-5199\"", "open = [443]");
    for (method, run) in both(&lab, &body) {
        run.expect("refused", "violated", "other-denial", "timeout");
        let seen = observed(run.check("refused"));
        let single = seen.iter().filter(|o| o["verdict"] == "violated" && o["evidence"]["swept_as"] == "timeout").count();
        assert_eq!(single, 64, "{method}");
        assert_eq!(counted(run.check("refused")), BTreeMap::from([("refused".to_owned(), 200), ("timeout".to_owned(), 136)]), "{method}");
        run.expect("many", "violated", "open", "connected");
        assert_eq!((open(run.check("many")).len(), coverage(run.check("many"))), (64, [300; 3]), "{method}");
        assert_eq!(counted(run.check("many")), BTreeMap::from([("refused".to_owned(), 200)]), "{method}");
    }
}

#[test]
fn networks_and_ranges_are_swept_address_by_address() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["ip daddr 203.0.113.8 tcp dport 80 accept"], Denial::Drop);
    let body = internet()
        + &sweep("net", "203.0.113.0/28", "[8099, 8100]", "witness = [\"internet\"]")
        + &sweep("range", "203.0.113.7-203.0.113.8", "\"79-81\"", "witness = [\"internet\"]");
    for (method, run) in both(&lab, &body) {
        run.expect("net", "holds", "as-expected", "*");
        assert_eq!(coverage(run.check("net"))[..2], [28, 28], "{method}");
        run.expect("range", "violated", "open", "connected");
        assert_eq!(open(run.check("range")), ["203.0.113.8:80"], "{method}");
    }
}

#[test]
fn an_interceptor_opens_no_port() {
    let Some(lab) = Lab::new() else { return };
    lab.interceptor();
    for (_, run) in both(&lab, &(internet() + &sweep("lured", ADMIN4, "\"1000-1199\"", "witness = [\"internet\"]"))) {
        run.expect("lured", "unproven", "intercepted", "local-error");
    }
}

/// Pseudo-random, and the same every time.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
fn both_methods_agree_on_a_random_world() {
    let Some(lab) = Lab::new() else { return };
    let mut seed = 0x5eed_0003_u64;
    let mut truth: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for port in 1000..3000_u16 {
        let fate = match random(&mut seed) % 1000 {
            0..=2 => "connected",
            3..=50 => "timeout",
            51..=350 => "prohibited",
            351..=500 => "unreachable",
            _ => "refused",
        };
        truth.entry(fate).or_default().push(port);
    }
    let set = |fate: &str| truth.get(fate).into_iter().flatten().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let rules = [
        format!("tcp dport {{ 443, {} }} accept", set("connected")),
        format!("tcp dport {{ {} }} drop", set("timeout")),
        format!("tcp dport {{ {} }} reject with icmpx type admin-prohibited", set("prohibited")),
        format!("tcp dport {{ {} }} reject with icmpx type no-route", set("unreachable")),
    ];
    lab.acl_with(&rules.each_ref().map(String::as_str), Denial::Reset);
    every_error_is_sent(&lab);
    for port in &truth["connected"] {
        lab.listen(Host::Private, &format!("open4:{port}"), ADMIN4, *port, "hold");
        lab.listen(Host::Private, &format!("open6:{port}"), ADMIN6, *port, "hold");
    }
    let closed: BTreeMap<String, u64> =
        truth.iter().filter(|(fate, _)| **fate != "connected").map(|(fate, ports)| ((*fate).to_owned(), 2 * ports.len() as u64)).collect();
    let mut hidden: Vec<String> = truth["connected"].iter().flat_map(|p| [format!("{ADMIN4}:{p}"), format!("[{ADMIN6}]:{p}")]).collect();
    hidden.sort();
    for (method, run) in both(&lab, &sweep("random", "admin.lab.test", "\"1000-2999\"", "open = [443]")) {
        assert_eq!(counted(run.check("random")), closed, "{method}");
        let mut found = open(run.check("random"));
        found.sort_unstable();
        assert_eq!(found, hidden, "{method}");
    }
    let calm = until(Duration::from_secs(5), || (half_open(&lab, Host::Private) == 0).then_some(()));
    assert!(calm.is_some(), "every SYN-ACK is answered by RST");
}

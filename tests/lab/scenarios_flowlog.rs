//! Logs of the defences: what a real firewall did with the very SYNs of a real probe, and what a real Squid wrote of its very requests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use mustnot::clock::Wall;
use serde_json::Value;

use crate::run::{BINARY, SOON, blocked, check, config, gate, internet, write_config};
use crate::scenarios_proxy::beacon;
use crate::service::{Process, until};
use crate::world::{BEACON4, Denial, Host, Lab, PROXY4};

/// Holds the report against a log; the exit code and the report with what was found.
fn flowlog(lab: &Lab, report: &Value, log: &PathBuf, flags: &[&str]) -> (i32, Value) {
    let report = write_config(lab, &format!("{}.json", lab.fresh("report")), &report.to_string());
    let output = Command::new(BINARY).args(["flowlog", "--format", "json", "--report"]).arg(report).arg(log).args(flags).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    (output.status.code().unwrap(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {output:?}")))
}

/// The words of `nft monitor trace` as a VPC would have written them: one aggregate for each five-tuple and verdict, in the default format.
fn as_flow_log(trace: &str, since: Wall, until: Wall) -> String {
    let mut packets: BTreeMap<&str, [&str; 4]> = BTreeMap::new();
    let mut flows: BTreeMap<([&str; 4], &str), u32> = BTreeMap::new();
    for line in trace.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, id, ..] = words.as_slice() else { continue };
        let after = |word: &str, then: &str| words.windows(3).find(|three| three[0] == word && three[1] == then).map(|three| three[2]);
        let address = |which: &str| after("ip", which).or_else(|| after("ip6", which));
        if line.contains(" packet: ")
            && let (Some(from), Some(to), Some(sport), Some(dport)) =
                (address("saddr"), address("daddr"), after("tcp", "sport"), after("tcp", "dport"))
        {
            packets.entry(id).or_insert([from, to, sport, dport]);
        }
        // The last word of the ACL; that it goes on is none.
        let verdict = if line.contains("(verdict drop)") {
            "REJECT"
        } else if line.contains("(verdict accept)") {
            "ACCEPT"
        } else {
            continue;
        };
        if let Some(packet) = packets.remove(id) {
            *flows.entry((packet, verdict)).or_default() += 1;
        }
    }
    let (start, end) = (since.unix_millis() / 1000, until.unix_millis() / 1000);
    let line = |(([from, to, sport, dport], verdict), packets): (&([&str; 4], &str), &u32)| {
        format!("2 123456789010 eni-0ed9e {from} {to} {sport} {dport} 6 {packets} {} {start} {end} {verdict} OK\n", packets * 60)
    };
    flows.iter().map(line).collect()
}

#[test]
fn a_firewall_says_of_our_very_syns_what_it_did() {
    let Some(lab) = Lab::new() else { return };
    let body = internet() + &blocked("admin-closed", "admin.lab.test:8443", &["internet"], &["vantage"]);
    let mut ran = 0;
    for (rules, outcome, action, word, code) in [
        (&["meta nftrace set 1"][..], "timeout", "REJECT", "rejected", 0),
        // Nobody listens there: it is refused behind a door that stands open.
        (&["meta nftrace set 1", "accept"], "refused", "ACCEPT", "let-in", 1),
    ] {
        lab.acl_with(rules, Denial::Drop);
        let name = lab.fresh("trace");
        let since = Wall::now();
        let mut tracer = Process::spawn(&lab, Host::Edge, &name, &["nft", "monitor", "trace"], false);
        // It listens once it has seen something.
        let hub = lab.hub(Host::Stranger);
        let listens = until(SOON, || {
            assert!(tracer.ended().is_none(), "{}", lab.log(&name));
            hub.connect("203.0.113.7", 9, 0.2);
            lab.log(&name).contains("(verdict ").then_some(())
        });
        assert!(listens.is_some(), "nothing is traced: {}", lab.log(&name));
        let run = gate(&lab, Host::Stranger, &config("stranger", &body));
        run.expect("admin-closed", "holds", "as-expected", outcome);
        let flows: Vec<Value> = ["203.0.113.7:8443", "[fd00:113::7]:8443"]
            .iter()
            .flat_map(|address| run.observation("admin-closed", address)["flows"].as_array().unwrap().clone())
            .collect();
        assert_eq!(flows.len(), 6, "three attempts in each family: {flows:#?}");
        let port = |flow: &Value| flow["local"].as_str().unwrap().rsplit_once(':').unwrap().1.to_string();
        let traced = until(SOON, || flows.iter().all(|flow| lab.log(&name).contains(&format!("sport {} ", port(flow)))).then_some(()));
        assert!(traced.is_some(), "not every attempt was traced: {flows:#?}\n{}", lab.log(&name));
        let log = write_config(&lab, &format!("{name}.flow"), &as_flow_log(&lab.log(&name), since, Wall::now()));

        let (ended, joined) = flowlog(&lab, &run.report, &log, &["--no-own-interface"]);
        let joined = joined["checks"].as_array().unwrap().iter().find(|c| c["name"] == "admin-closed").unwrap();
        assert_eq!((ended, joined["verdict"].as_str()), (code, Some("holds")), "{joined:#}");
        for seen in joined["observations"].as_array().unwrap() {
            let said: Vec<&Value> = seen["defence"].as_array().unwrap().iter().filter(|s| s["way"] == "there").collect();
            let attempts: Vec<u64> = said.iter().map(|s| s["attempt"].as_u64().unwrap()).collect();
            assert_eq!(attempts, [1, 2, 3], "{seen:#}");
            let as_it_was = |s: &&Value| s["action"] == action && s["word"] == word && s["matched_by"] == "five-tuple";
            assert!(said.iter().all(as_it_was), "{seen:#}");
        }
        assert_eq!(joined["contradicted"].is_string(), code == 1, "{joined:#}");
        // What is of another time, and what came from another port, is about nobody.
        let hours_ago = as_flow_log(
            &lab.log(&name),
            Wall::from_unix_millis(0).unwrap(),
            Wall::from_unix_millis(since.unix_millis() - 7_200_000).unwrap(),
        );
        let other = write_config(&lab, &format!("{name}-old.flow"), &hours_ago);
        assert_eq!(flowlog(&lab, &run.report, &other, &["--no-own-interface"]).0, 3);
        ran += 1;
    }
    assert_eq!(ran, 2);
}

#[test]
fn squid_says_of_our_very_requests_what_it_did() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let head = crate::zoo::SQUID.replace("{name}", "said").replace("{dir}", &lab.dir().display().to_string());
    let rules =
        format!("http_port {PROXY4}:3128\naccess_log stdio:{}/said-combined.log combined\nhttp_access deny all\n", lab.dir().display());
    let file = write_config(&lab, "said.conf", &(head + &rules));
    let mut squid = Process::spawn(&lab, Host::Private, "said", &["squid", "-N", "-n", "said", "-f", file.to_str().unwrap()], false);
    let hub = lab.hub(Host::Private);
    let ready = until(SOON, || {
        assert!(squid.ended().is_none(), "squid ended: {}", lab.log("said"));
        (hub.connect(PROXY4, 3128, 1.0).outcome == "connected").then_some(())
    });
    assert!(ready.is_some(), "{}", lab.log("said"));
    let suite = format!(
        "beacon = [\"http://{BEACON4}:443/\", \"http://{BEACON4}:9891/\"]\ntechniques = [\"OP-01\", \"OP-02\"]\nexpect = \"blocked\"\nwitness = [\"internet\"]\nfamilies = [\"ipv4\"]"
    );
    let text = config("stranger", &(internet() + &check("stranger", "open-proxy", "proxy.lab.test:3128", &suite))).replacen(
        "[[check]]",
        "[beacon]\nkey_file = \"beacon.key\"\n\n[[check]]",
        1,
    );
    let run = gate(&lab, Host::Stranger, &text);
    run.expect("stranger", "holds", "as-expected", "*");
    let mut ran = 0;
    // The native format has the nonce where it stands in the URL; the combined one also has what a tunnel's request said of itself.
    for (log, techniques) in [("said-access.log", &["OP-02"][..]), ("said-combined.log", &["OP-01", "OP-02"])] {
        let log = lab.dir().join(log);
        let (code, joined) = flowlog(&lab, &run.report, &log, &[]);
        let joined = joined["checks"].as_array().unwrap().iter().find(|c| c["name"] == "stranger").unwrap();
        assert_eq!((code, joined.get("contradicted")), (0, None), "{joined:#}");
        for technique in techniques {
            let of: Vec<&Value> = joined["observations"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|o| o["technique"] == *technique && o["outcome"] == "denied")
                .collect();
            let denied = |s: &&Value| {
                let by_nonce = s["log"] == "squid" && s["word"] == "rejected" && s["matched_by"] == "nonce";
                by_nonce && s["action"].as_str().unwrap().starts_with("TCP_DENIED")
            };
            // A form that names itself as a browser does leaves nothing of ours in a log.
            let said: Vec<&Value> = of.iter().filter_map(|o| o["defence"].as_array()).flatten().collect();
            let attempts = of.iter().filter_map(|o| o["defence"].as_array()).map(Vec::len).max();
            assert!(said.iter().all(denied) && attempts == Some(3), "each of three attempts: {of:#?}");
            ran += 1;
        }
    }
    assert_eq!(ran, 3);
}

//! The catalogue of techniques against real Squids, each open in a way that only some technique sees, and against closed ones.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::run::{check, config, gate, internet, observed};
use crate::scenarios_proxy::beacon;
use crate::service::{Process, until};
use crate::world::{BEACON4, Host, Lab, OFFICE4, PROXY4, STRANGER4, WITNESS4};

/// Squid on the private host with these rules, ready to accept. Whoever the rules do not name is denied.
fn squid(lab: &Lab, port: &str, rules: &str) -> Process {
    let config = lab.dir().join("squid.conf");
    let text = format!(
        "http_port {PROXY4}:3128 {port}\nvisible_hostname proxy.lab.test\npid_filename none\npinger_enable off\n\
         cache deny all\ncache_mem 1 MB\nmemory_pools off\nmax_filedescriptors 1024\nshutdown_lifetime 0 seconds\nconnect_timeout 3 seconds\n\
         dns_nameservers {WITNESS4}\nhosts_file none\ncache_log {dir}/squid-cache.log\naccess_log stdio:{dir}/squid-access.log\nnetdb_filename none\n\
         coredump_dir none\nvia off\nacl office src {OFFICE4}/32\nacl tunnel_ports port 443 9891\nacl CONNECT method CONNECT\n\
         acl Safe_ports port 80 443 1025-65535\nacl to_linklocal dst 169.254.0.0/16 fe80::/10\n{rules}\nhttp_access allow office\nhttp_access deny all\n",
        dir = lab.dir().display()
    );
    fs::write(&config, text).unwrap();
    let mut process = Process::spawn(lab, Host::Private, "squid", &["squid", "-N", "-f", config.to_str().unwrap()], false);
    let hub = lab.hub(Host::Private);
    let ready = until(Duration::from_secs(20), || {
        assert!(process.ended().is_none(), "squid ended at start: {} {}", lab.log("squid"), lab.log("squid-cache"));
        (hub.connect(PROXY4, 3128, 0.2).outcome == "connected").then_some(())
    });
    assert!(ready.is_some(), "squid did not get ready: {} {}", lab.log("squid"), lab.log("squid-cache"));
    process
}

/// One attempt each: what is looked for here is what a technique sees, not how often.
fn suite(techniques: &str, rest: &str) -> String {
    let beacons = format!("beacon = [\"http://{BEACON4}:443/\", \"http://{BEACON4}:9891/\"]");
    let head = format!(
        "{beacons}\ntechniques = {techniques}\nexpect = \"blocked\"\nwitness = [\"internet\"]\nattempts = 1\ninterval = \"10m\"\n{rest}"
    );
    let body = internet() + &check("not-open", "open-proxy", "proxy.lab.test:3128", &head);
    config("stranger", &format!("[beacon]\nkey_file = \"beacon.key\"\n{body}"))
}

/// The techniques that saw it open.
fn open_ones(lab: &Lab, text: &str) -> (Vec<String>, crate::run::Run) {
    let run = gate(lab, Host::Stranger, text);
    let mut seen: Vec<String> = observed(run.check("not-open"))
        .iter()
        .filter(|o| o["verdict"] == "violated")
        .map(|o| o["technique"].as_str().unwrap().to_owned())
        .collect();
    seen.sort();
    seen.dedup();
    (seen, run)
}

/// Everything against Squid as production has it, and behind a header that it demands: nothing is open, and nothing stays undecided.
#[test]
fn a_closed_squid_withstands_the_whole_catalogue() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let spoof = format!("spoof = [\"{OFFICE4}\", \"10.0.0.0/8\"]");
    for (port, rules) in [
        ("", "http_access deny !office\nhttp_access deny CONNECT !tunnel_ports"),
        ("", "deny_info 302:http://help.lab.test/denied office\nhttp_access deny !office"),
        ("", "deny_info TCP_RESET office\nhttp_access deny !office"),
        ("require-proxy-header", "proxy_protocol_access deny all"),
    ] {
        let _squid = squid(&lab, port, rules);
        let (open, run) = open_ones(&lab, &suite("\"standard\"", &spoof));
        assert_eq!(open, [] as [&str; 0], "{rules}: {:#}", run.check("not-open"));
        run.expect("not-open", "holds", "as-expected", "*");
    }
}

/// Each open in one way: the techniques that must see it, and one that must not.
#[test]
fn every_open_way_of_squid_is_seen_by_its_technique() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let spoof = format!("spoof = [\"{OFFICE4}\"]");
    let all = "[\"OP-01\", \"OP-02\", \"OP-03\", \"OP-08\", \"OP-13\", \"OP-23\", \"OP-24\", \"OP-26\", \"OP-27\", \"OP-34\", \"OP-06\"]";
    let cases = [
        ("", "follow_x_forwarded_for allow all", &["OP-26", "OP-27"][..], &["OP-01", "OP-02", "OP-23", "OP-34"][..]),
        ("require-proxy-header", "proxy_protocol_access allow all", &["OP-23", "OP-24"], &["OP-01", "OP-02", "OP-26"]),
        ("", "acl post method POST\nhttp_access allow post", &["OP-03"], &["OP-01", "OP-02", "OP-26"]),
        ("", "http_access allow manager", &["OP-34"], &["OP-01", "OP-02", "OP-03"]),
        ("", "acl smtp port 25\nhttp_access allow CONNECT smtp", &["OP-06"], &["OP-01", "OP-02", "OP-34"]),
    ];
    for (port, rules, seen, not_seen) in cases {
        let _squid = squid(&lab, port, rules);
        let (open, run) = open_ones(&lab, &suite(all, &spoof));
        for technique in seen {
            assert!(open.iter().any(|t| t == technique), "{rules}: {technique} sees it: {open:?}\n{:#}", run.check("not-open"));
        }
        for technique in not_seen {
            assert!(open.iter().all(|t| t != technique), "{rules}: {technique} sees nothing: {open:?}\n{:#}", run.check("not-open"));
        }
        run.expect_code(1);
    }
}

/// A rule for names, and a name that has an address.
#[test]
fn a_denied_name_is_reached_by_its_address() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let _squid = squid(&lab, "", "acl named dstdom_regex -n -i beacon\\.lab\\.test\nhttp_access deny named\nhttp_access allow all");
    let text = suite("[\"OP-01\", \"OP-02\", \"OP-08\", \"OP-32\"]", "").replace(BEACON4, "beacon.lab.test");
    let (open, run) = open_ones(&lab, &text);
    assert!(open.contains(&"OP-08".to_owned()), "{open:?}: {:#}", run.check("not-open"));
    assert!(!open.contains(&"OP-01".to_owned()) && !open.contains(&"OP-02".to_owned()), "{open:?}: {:#}", run.check("not-open"));
}

/// Whoever comes from an address that the operator declares to be allowed is no stranger: nothing that it sees counts.
#[test]
fn a_monitor_inside_the_allow_list_is_no_stranger() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    for rules in ["http_access deny !office", "http_access allow all"] {
        let _squid = squid(&lab, "", rules);
        let run = gate(&lab, Host::Stranger, &suite("\"quick\"", &format!("spoof = [\"{STRANGER4}/32\"]")));
        run.expect("not-open", "unproven", "local", "local-error");
        assert!(run.check("not-open")["reason"].as_str().unwrap().contains("no stranger"), "{:#}", run.check("not-open"));
    }
}

/// Somebody who has had enough after some connections: what is refused from then on shows no block.
#[test]
fn a_ban_in_the_middle_of_a_run_is_no_block() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let _squid = squid(&lab, "", "http_access deny !office");
    lab.internet(&["iifname str ip daddr 203.0.113.3 tcp dport 3128 tcp flags & (syn|ack) == syn limit rate over 1/minute burst 20 packets reject with tcp reset"]);
    let run = gate(&lab, Host::Stranger, &suite("\"standard\"", ""));
    run.expect("not-open", "unproven", "other-denial", "refused");
    assert!(observed(run.check("not-open")).iter().any(|o| o["outcome"] == "denied"), "{:#}", run.check("not-open"));
}

/// The same rules behind a forwarder whose own address is private, and allowed: everybody is.
#[test]
fn a_forwarder_that_hides_who_asks_opens_what_is_closed() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    lab.hub(Host::Private).ask(
        &json!({ "do": "listen", "name": "forwarder", "host": PROXY4, "port": 3129, "mode": "far", "behind": [PROXY4, 3128], "delay": 0 }),
    );
    let _squid = squid(&lab, "", &format!("acl forwarder src {PROXY4}\nhttp_access allow forwarder"));
    let text = suite("\"standard\"", "").replace("proxy.lab.test:3128", "proxy.lab.test:3129");
    let (open, _) = open_ones(&lab, &text);
    for technique in ["OP-01", "OP-02", "OP-03", "OP-04", "OP-12", "OP-13", "OP-14", "OP-32", "OP-33"] {
        assert!(open.iter().any(|t| t == technique), "{technique}: {open:?}");
    }
}

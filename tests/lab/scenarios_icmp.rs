//! ICMP echoes: with and without the right to send them, answered, dropped, rejected, and answered for everybody.

use serde_json::json;

use crate::run::office;
use crate::run::{Run, check, config, gate, internet, observed, peer, start_gate_as};
use crate::world::{ADMIN4, ADMIN6, Denial, EDGE4, EDGE6, Host, Lab, SECOND4, WITNESS4, WITNESS6};

/// Nobody may have a ping socket, as Linux starts; and everybody.
const NOBODY: &str = "net.ipv4.ping_group_range=1 0";
const EVERYBODY: &str = "net.ipv4.ping_group_range=0 2147483647";
/// What a user without any privilege runs in front of a command.
const UNPRIVILEGED: [&str; 5] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];

fn closed(name: &str, target: &str, witness: &[&str], rest: &str) -> String {
    check(name, "icmp", target, &format!("expect = \"blocked\"\nwitness = {witness:?}\n{rest}"))
}

fn open(name: &str, target: &str) -> String {
    check(name, "icmp", target, "expect = \"open\"")
}

fn may_ping(lab: &Lab, range: &str) {
    lab.output(Host::Stranger, &["sysctl", "-q", "-w", range]);
}

fn sent(run: &Run, name: &str) -> Vec<u64> {
    observed(run.check(name)).iter().map(|o| o["evidence"]["datagrams_sent"].as_u64().unwrap()).collect()
}

/// Both ways to send an echo see the same world.
#[test]
fn echoes_by_ping_socket_and_by_raw_socket_see_the_same() {
    let Some(lab) = Lab::new() else { return };
    let _office = office(&lab);
    let cases = [
        ("v4-port", "203.0.113.7", "ip daddr 203.0.113.7 icmp type echo-request reject with icmp type port-unreachable", "refused", EDGE4),
        (
            "v4-admin",
            "203.0.113.8",
            "ip daddr 203.0.113.8 icmp type echo-request reject with icmp type admin-prohibited",
            "prohibited",
            EDGE4,
        ),
        (
            "v4-host",
            "203.0.113.4",
            "ip daddr 203.0.113.4 icmp type echo-request reject with icmp type host-unreachable",
            "unreachable",
            EDGE4,
        ),
        (
            "v6-admin",
            "fd00:113::7",
            "ip6 daddr fd00:113::7 icmpv6 type echo-request reject with icmpv6 type admin-prohibited",
            "prohibited",
            EDGE6,
        ),
        (
            "v6-route",
            "fd00:113::8",
            "ip6 daddr fd00:113::8 icmpv6 type echo-request reject with icmpv6 type no-route",
            "unreachable",
            EDGE6,
        ),
        ("v6-drop", "fd00:113::4", "ip6 daddr fd00:113::4 icmpv6 type echo-request drop", "timeout", ""),
        ("v4-drop", "203.0.113.5", "ip daddr 203.0.113.5 drop", "timeout", ""),
    ];
    let rules: Vec<&str> = cases.iter().map(|case| case.2).collect();
    lab.acl_with(&rules, Denial::Drop);
    let checks: String =
        cases.iter().map(|case| closed(case.0, case.1, &["internet", "echo"], "require = [\"vantage\", \"port\"]")).collect();
    let body = internet() + &open("echo", "witness.lab.test") + &open("by-address", WITNESS6) + &checks;
    let text = config("stranger", &body);
    may_ping(&lab, EVERYBODY);
    let unprivileged = start_gate_as(&lab, Host::Stranger, &text, &UNPRIVILEGED).finish(&lab);
    may_ping(&lab, NOBODY);
    let raw = gate(&lab, Host::Stranger, &text);
    for run in [unprivileged, raw] {
        run.expect("echo", "holds", "as-expected", "replied");
        assert_eq!(observed(run.check("echo")).len(), 2);
        assert_eq!(run.observation("echo", WITNESS4)["stage"], "icmp", "an echo has no port");
        run.expect("by-address", "holds", "as-expected", "replied");
        for (name, address, _, outcome, sender) in cases {
            run.expect(name, "holds", "as-expected", outcome);
            run.expect_proofs(name, &["vantage", "port"]);
            let seen = run.observation(name, address);
            assert_eq!(sent(&run, name), [if outcome == "timeout" { 3 } else { 1 }], "{seen:#}");
            assert!(outcome == "timeout" || seen["evidence"]["icmp"][0]["sender"] == sender, "{seen:#}");
        }
        run.expect_code(0);
    }
    // Open is open.
    lab.acl_open();
    let run = gate(&lab, Host::Stranger, &text);
    run.expect("v4-port", "violated", "open", "replied");
    run.expect("v6-admin", "violated", "open", "replied");
    assert!(run.check("v4-port")["reproduce"].as_str().unwrap().starts_with("ping -c 3 -W 3 203.0.113.7"));
}

#[test]
fn without_the_right_to_send_an_echo_it_says_what_to_grant() {
    let Some(lab) = Lab::new() else { return };
    may_ping(&lab, NOBODY);
    let text = config(
        "stranger",
        &(internet() + &closed("closed", ADMIN4, &["internet"], "") + &closed("six", ADMIN6, &["internet"], "") + &open("echo", WITNESS4)),
    );
    let run = start_gate_as(&lab, Host::Stranger, &text, &UNPRIVILEGED).finish(&lab);
    for name in ["closed", "six", "echo"] {
        run.expect(name, "unproven", "local", "local-error");
        let detail = observed(run.check(name))[0]["evidence"]["detail"].as_str().unwrap();
        assert!(
            detail.contains("sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"") && detail.contains("setcap cap_net_raw+ep /"),
            "{detail}"
        );
    }
    run.expect_code(3);
}

#[test]
fn what_cannot_be_echoed_from_here_is_local() {
    // A world each: once the kernel knows that a router is dead, it takes IPv6 over another one.
    for front in [&[][..], &UNPRIVILEGED] {
        let Some(lab) = Lab::new() else { return };
        may_ping(&lab, if front.is_empty() { NOBODY } else { EVERYBODY });
        lab.own_firewall(&["ip daddr 203.0.113.4 drop", "ip6 daddr fd00:113::4 reject with icmpv6 type admin-prohibited"]);
        lab.no_neighbour();
        let names = [("drop4", "203.0.113.4"), ("reject6", "fd00:113::4"), ("arp4", "203.0.113.9"), ("nd6", "fd00:113::9")];
        let body: String = names.iter().map(|(name, target)| closed(name, target, &["internet"], "")).collect();
        let run = start_gate_as(&lab, Host::Stranger, &config("stranger", &(internet() + &body)), front).finish(&lab);
        for (name, _) in names {
            run.expect(name, "unproven", "local", "local-error");
            let told = run.check(name)["reason"].as_str().unwrap();
            assert!(!told.contains(":0"), "an echo has no port: {told}");
        }
        run.expect_code(3);
    }
}

#[test]
fn who_echoes_for_everybody_proves_and_violates_nothing() {
    let Some(lab) = Lab::new() else { return };
    lab.lure(&["icmp type echo-request redirect"]);
    let body = check("internet", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"")
        + &open("echo", WITNESS4)
        + &open("echo6", WITNESS6)
        + &closed("closed", ADMIN4, &["internet"], "")
        + &closed("by-echo", ADMIN4, &["echo"], "")
        + &check("tcp", "tcp", &format!("{ADMIN4}:443"), "expect = \"blocked\"\nwitness = [\"echo\"]");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("echo", "unproven", "intercepted", "local-error");
    run.expect("closed", "unproven", "intercepted", "local-error");
    run.expect("by-echo", "unproven", "intercepted", "local-error");
    run.expect("tcp", "unproven", "witness-failed", "timeout");
    run.expect("echo6", "holds", "as-expected", "replied");
    run.expect("internet", "holds", "as-expected", "connected");
}

/// Whoever answers at the address by any transport shows that it is alive.
#[test]
fn an_address_is_alive_where_any_transport_reached_it() {
    let Some(lab) = Lab::new() else { return };
    let _office = office(&lab);
    lab.acl_with(&[&format!("ip saddr {SECOND4} tcp dport 443 accept")], Denial::Drop);
    let body = internet()
        + &peer("alive", "admin-open")
        + &check("by-source", "tcp", &format!("{ADMIN4}:443"), &format!("expect = \"open\"\nsource = \"{SECOND4}\""))
        + &closed("peer", ADMIN4, &["internet", "alive"], "require = [\"vantage\", \"target\"]")
        + &closed("source", ADMIN4, &["internet", "by-source"], "require = [\"vantage\", \"target\"]")
        + &closed("elsewhere", "203.0.113.5", &["internet", "alive"], "require = [\"vantage\", \"target\"]");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("peer", "holds", "as-expected", "timeout");
    run.expect("source", "holds", "as-expected", "timeout");
    run.expect("elsewhere", "unproven", "no-witness", "timeout");
}

/// A network is every address in it, and one that answers is enough.
#[test]
fn a_network_is_every_address_in_it() {
    let Some(lab) = Lab::new() else { return };
    lab.acl(Denial::IcmpX("admin-prohibited"));
    let witness = check("internet", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"");
    // More than are looked at at once, so the witness runs between the parts, too.
    let text = config(
        "stranger",
        &(witness + &closed("net", "198.18.0.0/24", &["internet"], "") + &closed("admin", "203.0.113.0/28", &["internet"], "")),
    );
    lab.ip(Host::Stranger, "route add 198.18.0.0/24 via 198.51.100.65\n");
    lab.internet(&["ip daddr 198.18.0.0/24 reject with icmp type net-prohibited"]);
    let began = std::time::Instant::now();
    let run = gate(&lab, Host::Stranger, &text);
    eprintln!("256 addresses: {:.1} s", began.elapsed().as_secs_f64());
    // A router limits its errors to all the world together (icmp_msgs_per_sec): what it does not say is silence.
    run.expect("net", "holds", "as-expected", "prohibited|timeout");
    assert_eq!(observed(run.check("net")).len(), 256);
    // Squid's address is published to everybody, and the router answers for its own.
    run.expect("admin", "violated", "open", "replied");
    let open: Vec<&str> =
        observed(run.check("admin")).iter().filter(|o| o["outcome"] == "replied").map(|o| o["address"].as_str().unwrap()).collect();
    assert_eq!(open, ["203.0.113.1", "203.0.113.3", "203.0.113.10", "203.0.113.11"]);
    assert_eq!(observed(run.check("admin")).len(), 16);
    assert_eq!(run.check("admin")["target"], json!("203.0.113.0/28"));
}

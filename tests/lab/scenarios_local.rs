//! When it is our own host, or something between: never a verdict about the target.

use crate::run::{blocked, check, config, gate, internet, office, peer, start_gate};
use crate::service::until;
use crate::world::{ADMIN4, ADMIN6, Denial, Host, Lab, PROXY4, PROXY6, SECOND_ADMIN4, WITNESS4};

#[test]
fn own_routes_firewall_and_neighbours_are_local_errors() {
    let Some(lab) = Lab::new() else { return };
    lab.own_firewall(&[
        "meta nfproto ipv4 tcp dport 2401 reject with icmp type admin-prohibited",
        "meta nfproto ipv6 tcp dport 2401 reject with icmpv6 type admin-prohibited",
        "meta nfproto ipv4 tcp dport 2402 reject with icmp type port-unreachable",
    ]);
    lab.no_neighbour();
    let mut routes = String::new();
    for (kind, four, six) in [("blackhole", ADMIN4, ADMIN6), ("prohibit", SECOND_ADMIN4, "fd00:113::8"), ("unreachable", PROXY4, PROXY6)] {
        routes.push_str(&format!("route add {kind} {four}\nroute add {kind} {six}\n"));
    }
    lab.ip(Host::Stranger, &routes);
    let cases = [
        ("v4-blackhole", format!("{ADMIN4}:443")),
        ("v6-blackhole", format!("[{ADMIN6}]:443")),
        ("v4-prohibit", format!("{SECOND_ADMIN4}:443")),
        ("v6-prohibit", "[fd00:113::8]:443".to_owned()),
        ("v4-unreachable", format!("{PROXY4}:443")),
        ("v6-unreachable", format!("[{PROXY6}]:443")),
        ("v4-firewall", "203.0.113.4:2401".to_owned()),
        ("v6-firewall", "[fd00:113::4]:2401".to_owned()),
        ("v4-firewall-port", "203.0.113.4:2402".to_owned()),
        ("v4-arp", "203.0.113.9:443".to_owned()),
        ("v6-nd", "[fd00:113::9]:443".to_owned()),
    ];
    let checks: String =
        cases.iter().map(|(name, target)| blocked(name, target, &["internet"], &["vantage"]) + "timeout = \"5s\"\n").collect();
    let no_source =
        check("no-source", "tcp", "203.0.113.4:443", "expect = \"blocked\"\nsource = \"198.51.100.99\"\nwitness = []\nrequire = []");
    let run = gate(&lab, Host::Stranger, &config("stranger", &(internet() + &checks + &no_source)));
    let mut ran = 0;
    for (name, _) in &cases {
        run.expect(name, "unproven", "local", "local-error");
        ran += 1;
    }
    run.expect("no-source", "unproven", "local", "local-error");
    run.expect("internet", "holds", "as-expected", "connected");
    assert_eq!(ran, 11);
    run.expect_code(3);
}

#[test]
fn own_drop_is_what_the_proof_port_is_for() {
    let Some(lab) = Lab::new() else { return };
    let _office = office(&lab);
    lab.own_firewall(&["tcp dport 443 drop"]);
    let ssh = check("ssh", "tcp", "witness.lab.test:22", "expect = \"open\"");
    let body = ssh
        + &internet()
        + &peer("admin-alive", "admin-open")
        + &blocked("with-port", "admin.lab.test:443", &["ssh", "internet", "admin-alive"], &["vantage", "port", "target"])
        + &blocked("only-port", "admin.lab.test:443", &["internet"], &["vantage", "port"])
        + &blocked("vantage-only", "admin.lab.test:443", &["ssh"], &["vantage"]);
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("with-port", "unproven", "witness-failed", "timeout");
    run.expect("only-port", "unproven", "witness-failed", "timeout");
    // The stated blind spot: silence from our own DROP cannot be told from theirs, and this check did not ask for the proof.
    run.expect("vantage-only", "holds", "as-expected", "timeout");
    run.expect_proofs("vantage-only", &["vantage"]);
    assert_ne!(run.code, 0);

    // Our own RST is byte for byte theirs; again the port tells.
    lab.own_firewall(&["tcp dport 443 reject with tcp reset"]);
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect_never_holds("with-port");
    run.expect_never_holds("only-port");
    run.expect("vantage-only", "holds", "as-expected", "refused");
    assert_ne!(run.code, 0);
}

#[test]
fn a_monitor_without_link_proves_nothing() {
    let Some(lab) = Lab::new() else { return };
    let by_address = check("witness", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"")
        + &blocked("by-address", &format!("{ADMIN4}:443"), &["witness"], &["vantage"]);
    let body = config("stranger", &(internet() + &by_address + &blocked("by-name", "admin.lab.test:443", &["internet"], &["vantage"])));

    // Unplugged at the far end: silence everywhere.
    lab.ip(Host::Core, "link set str down\n");
    let run = gate(&lab, Host::Stranger, &body);
    run.expect("by-address", "unproven", "witness-failed|local", "timeout|local-error");
    run.expect("by-name", "unproven", "resolve", "resolve-error");
    run.expect_code(3);

    // The interface is down: the kernel says so itself.
    lab.ip(Host::Stranger, "link set eth0 down\n");
    let run = gate(&lab, Host::Stranger, &body);
    run.expect("by-address", "unproven", "local", "local-error");
    run.expect("by-name", "unproven", "resolve", "resolve-error");
    run.expect_code(3);
}

#[test]
fn a_dead_first_router_proves_nothing() {
    let Some(lab) = Lab::new() else { return };
    let by_address = check("witness", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"")
        + &blocked("by-address", &format!("{ADMIN4}:443"), &["witness"], &["vantage"]);
    lab.internet(&["iifname str drop"]);
    let run = gate(&lab, Host::Stranger, &config("stranger", &by_address));
    run.expect("by-address", "unproven", "witness-failed", "timeout");
    run.expect_code(3);
    lab.internet(&["iifname str reject with icmpx type no-route"]);
    let run = gate(&lab, Host::Stranger, &config("stranger", &by_address));
    run.expect("by-address", "unproven", "witness-failed", "unreachable");
    run.expect_never_holds("witness");
    assert_ne!(run.code, 0);
}

#[test]
fn no_route_for_a_family_is_not_a_block_of_it() {
    let Some(lab) = Lab::new() else { return };
    lab.ip(Host::Stranger, "route del default via fd00:66::1\n");
    let witness = check("internet4", "tcp", "site.lab.test:443", "expect = \"open\"");
    let body = witness
        + &blocked("both", "admin.lab.test:443", &["internet4"], &["vantage"])
        + &check("four", "tcp", "admin.lab.test:443", "expect = \"blocked\"\nwitness = [\"internet4\"]\nfamilies = [\"ipv4\"]");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("both", "unproven", "local|coverage|no-witness", "local-error");
    run.expect("four", "holds", "as-expected", "timeout");
    run.expect_code(3);
}

#[test]
fn who_answers_for_everybody_proves_and_violates_nothing() {
    let Some(lab) = Lab::new() else { return };
    lab.interceptor();
    // The interceptor's own way to the admin web is open on port 443 of the second address alone.
    lab.acl_with(&["ip saddr 198.51.100.129 ip daddr 203.0.113.8 accept"], Denial::Drop);
    let ca = format!("ca_file = {:?}", lab.dir().join("ca.pem"));
    let body = internet()
        + &check("tls-witness", "tls", "witness.lab.test:443", &format!("expect = \"open\"\n{ca}"))
        + &blocked("tcp", "admin.lab.test:443", &["internet"], &["vantage"])
        + &blocked("tcp-tls-witness", "admin.lab.test:443", &["tls-witness"], &["vantage"])
        + &check(
            "tls-verified",
            "tls",
            "203.0.113.8:443",
            &format!("expect = \"blocked\"\nserver_name = \"admin.lab.test\"\nwitness = [\"tls-witness\"]\n{ca}"),
        );
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("internet", "unproven", "intercepted", "local-error");
    run.expect("tcp", "unproven", "intercepted", "local-error");
    run.expect("tcp-tls-witness", "unproven", "intercepted", "local-error");
    run.expect("tls-witness", "holds", "as-expected", "tls-established");
    // What is authenticated is not the interceptor's word: this one really is open.
    run.expect("tls-verified", "violated", "open", "tls-established");
    run.expect_code(1);
}

#[test]
fn a_decoy_that_is_turned_away_is_no_interceptor() {
    let Some(lab) = Lab::new() else { return };
    lab.decoy("reject with icmpx type host-unreachable");
    lab.acl_with(&["ip daddr 203.0.113.7 tcp dport 443 accept"], Denial::Drop);
    let body = internet()
        + &blocked("open", "admin4.lab.test:443", &["internet"], &["vantage"])
        + &blocked("closed", "admin4.lab.test:80", &["internet"], &["vantage"]);
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("internet", "holds", "as-expected", "connected");
    run.expect("open", "violated", "open", "connected");
    run.expect("closed", "holds", "as-expected", "timeout");
    run.expect_code(1);
}

#[test]
fn a_full_descriptor_table_is_local_and_never_holds() {
    let Some(lab) = Lab::new() else { return };
    let names: Vec<String> = (0..200).map(|n| format!("closed-{n}")).collect();
    let checks: String =
        names.iter().zip(3000..).map(|(name, port)| blocked(name, &format!("{ADMIN4}:{port}"), &["witness"], &["vantage"])).collect();
    let witness = check("witness", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"");
    let run = start_gate(&lab, Host::Stranger, &config("stranger", &(witness + &checks)), Some(64)).finish(&lab);
    let of = |outcome: &str| {
        names.iter().filter(|name| run.check(name)["observations"].to_string().contains(&format!("\"outcome\":\"{outcome}\""))).count()
    };
    let holding = names.iter().filter(|name| run.check(name)["verdict"] == "holds").count();
    eprintln!("64 files, 200 checks: {} local-error, {} timeout, {holding} hold, exit code {}", of("local-error"), of("timeout"), run.code);
    for name in &names {
        let check = run.check(name);
        assert!(check["verdict"] != "holds" || !check["observations"].to_string().contains("local-error"), "{check:#}");
    }
    assert!(of("local-error") > 0, "64 files cannot be enough for 200 checks at once");
    assert_ne!(run.code, 0);
}

#[test]
fn a_witness_that_flaps_during_the_run_proves_nothing() {
    let Some(lab) = Lab::new() else { return };
    let witness = check("witness", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"\ntimeout = \"1s\"");
    let body = config("stranger", &(witness + &blocked("closed", &format!("{ADMIN4}:443"), &["witness"], &["vantage"])));
    let mut cases = 0;

    // Alive before, gone after: from the first packet that the ACL turned away.
    let before = lab.kept_out();
    let mut running = start_gate(&lab, Host::Stranger, &body, None);
    let seen = until(crate::run::SOON, || (lab.kept_out() > before || !running.running()).then_some(()));
    assert!(seen.is_some() && running.running(), "the run ended before it probed");
    lab.close(Host::Beacon, "witness4:443");
    let run = running.finish(&lab);
    run.expect("closed", "unproven", "witness-failed", "timeout");
    assert_ne!(run.code, 0);
    cases += 1;

    // Gone before, alive after.
    let before = lab.kept_out();
    let mut running = start_gate(&lab, Host::Stranger, &body, None);
    let seen = until(crate::run::SOON, || (lab.kept_out() > before || !running.running()).then_some(()));
    assert!(seen.is_some());
    lab.listen(Host::Beacon, "witness4:443", WITNESS4, 443, "hold");
    let run = running.finish(&lab);
    run.expect("closed", "unproven", "witness-failed", "*");
    assert_ne!(run.code, 0);
    cases += 1;

    // Our own link goes during the run.
    let before = lab.kept_out();
    let mut running = start_gate(&lab, Host::Stranger, &body, None);
    let seen = until(crate::run::SOON, || (lab.kept_out() > before || !running.running()).then_some(()));
    assert!(seen.is_some() && running.running(), "the run ended before it probed");
    lab.ip(Host::Stranger, "link set eth0 down\n");
    let run = running.finish(&lab);
    run.expect("closed", "unproven", "witness-failed|local", "timeout|local-error");
    run.expect_code(3);
    cases += 1;
    assert_eq!(cases, 3);
}

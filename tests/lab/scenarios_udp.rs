//! UDP: silence that could be anything, refusals that are rationed, and real services that answer.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::run::{Monitor, Run, check, config, gate, internet, observed, peer};
use crate::service::{Process, python, until};
use crate::world::{ADMIN4, ADMIN6, Denial, EDGE4, EDGE6, Host, Lab, OFFICE4, PROXY4, SECOND4, WITNESS4};

/// Who answers datagrams: processes that end with the test.
fn answering(lab: &Lab, host: Host, how: &str, address: &str, ports: &[u16]) -> (Process, String) {
    let script = lab.dir().join("udp.py");
    fs::write(&script, include_str!("udp.py")).unwrap();
    let name = lab.fresh("udp");
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let mut command = vec![python(), script.to_str().unwrap(), how, address];
    command.extend(ports.iter().map(String::as_str));
    let process = Process::spawn(lab, host, &name, &command, false);
    let ready = until(Duration::from_secs(20), || lab.log(&name).contains("ready").then_some(()));
    assert!(ready.is_some(), "no answerer: {}", lab.log(&name));
    (process, name)
}

/// An inverted UDP check.
fn closed(name: &str, target: &str, witness: &[&str], rest: &str) -> String {
    check(name, "udp", target, &format!("expect = \"blocked\"\nwitness = {witness:?}\n{rest}"))
}

/// The office's monitor, with a positive UDP check of the admin host.
fn office(lab: &Lab, payload: &str) -> Monitor {
    let often = format!("expect = \"open\"\ninterval = \"2s\"\ntimeout = \"1s\"\nattempts = 1\npayload = \"{payload}\"");
    let text =
        format!("vantage = \"office\"\n[web]\nlisten = \"{OFFICE4}:9890\"\n{}", check("there", "udp", &format!("{ADMIN4}:53"), &often));
    Monitor::start_unready(lab, Host::Allowed, OFFICE4, &text)
}

fn sent(run: &Run, name: &str) -> Vec<Value> {
    observed(run.check(name)).iter().map(|o| o["evidence"]["datagrams_sent"].clone()).collect()
}

#[test]
fn udp_silence_holds_only_where_the_same_payload_is_answered_by_the_allowed_way() {
    let Some(lab) = Lab::new() else { return };
    let (_dns, _) = answering(&lab, Host::Private, "all", ADMIN4, &[53]);
    let office = office(&lab, "dns");
    office.wait_for(&lab, "there", "holding", |check| check["verdict"] == "holds");
    let target = format!("{ADMIN4}:53");
    let body = internet()
        + &peer("alive", "there")
        + &closed("with-target", &target, &["internet", "alive"], "")
        + &closed("without-target", &target, &["internet"], "")
        + &closed("other-payload", &target, &["internet", "alive"], "payload = \"hex:00\"");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("with-target", "holds", "as-expected", "timeout");
    run.expect_proofs("with-target", &["vantage", "target"]);
    assert_eq!(sent(&run, "with-target"), [json!(3)]);
    assert_eq!(run.observation("with-target", &target)["asked"], "dns");
    run.expect("without-target", "unproven", "no-witness", "timeout");
    run.expect("other-payload", "unproven", "no-witness", "timeout");
    let reason = run.check("without-target")["reason"].as_str().unwrap();
    assert!(reason.contains("3 UDP datagrams (dns) in each of 3 attempts") && reason.contains("same payload"), "{reason}");

    // The door opens: settled by the first datagram.
    lab.acl_open();
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    for name in ["with-target", "without-target", "other-payload"] {
        run.expect(name, "violated", "open", "replied");
        assert_eq!(sent(&run, name), [json!(1)]);
    }
    assert!(run.check("with-target")["reproduce"].as_str().unwrap().contains("| nc -u"), "{:#}", run.check("with-target"));

    // The service dies, and so does the proof: silence shows nothing any more.
    lab.acl(Denial::Drop);
    drop(_dns);
    office.wait_for(&lab, "there", "not holding", |check| check["verdict"] != "holds");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("with-target", "unproven", "witness-failed", "timeout");
}

#[test]
fn every_udp_rejection_holds_as_what_it_is_and_names_its_sender() {
    let Some(lab) = Lab::new() else { return };
    let cases = [
        ("v4-port", format!("{ADMIN4}:2001"), "meta nfproto ipv4 udp dport 2001 reject with icmp type port-unreachable", "refused", EDGE4),
        (
            "v4-admin",
            format!("{ADMIN4}:2002"),
            "meta nfproto ipv4 udp dport 2002 reject with icmp type admin-prohibited",
            "prohibited",
            EDGE4,
        ),
        (
            "v4-host",
            format!("{ADMIN4}:2003"),
            "meta nfproto ipv4 udp dport 2003 reject with icmp type host-unreachable",
            "unreachable",
            EDGE4,
        ),
        (
            "v6-port",
            format!("[{ADMIN6}]:2001"),
            "meta nfproto ipv6 udp dport 2001 reject with icmpv6 type port-unreachable",
            "refused",
            EDGE6,
        ),
        (
            "v6-admin",
            format!("[{ADMIN6}]:2002"),
            "meta nfproto ipv6 udp dport 2002 reject with icmpv6 type admin-prohibited",
            "prohibited",
            EDGE6,
        ),
        ("v6-route", format!("[{ADMIN6}]:2003"), "meta nfproto ipv6 udp dport 2003 reject with icmpv6 type no-route", "unreachable", EDGE6),
        ("v4-nobody", format!("{ADMIN4}:2004"), "udp dport 2004 accept", "refused", ADMIN4),
        ("v6-nobody", format!("[{ADMIN6}]:2004"), "udp dport 2004 accept", "refused", ADMIN6),
    ];
    let rules: Vec<&str> = cases.iter().map(|case| case.2).collect();
    lab.acl_with(&rules, Denial::Drop);
    let checks: String = cases.iter().map(|case| closed(case.0, &case.1, &["internet"], "payload = \"hex:00\"")).collect();
    let silence =
        check("not-silence", "udp", &format!("{ADMIN4}:2001"), "expect = [\"prohibited\"]\nwitness = [\"internet\"]\npayload = \"hex:00\"");
    let run = gate(&lab, Host::Stranger, &config("stranger", &(internet() + &checks + &silence)));
    for (name, address, _, outcome, sender) in &cases {
        run.expect(name, "holds", "as-expected", outcome);
        let evidence = &run.observation(name, address)["evidence"];
        assert_eq!((&evidence["icmp"][0]["sender"], &evidence["datagrams_sent"]), (&json!(sender), &json!(1)), "{name}: {evidence:#}");
    }
    run.expect("not-silence", "violated", "other-denial", "refused");
    run.expect_code(1);
}

#[test]
fn what_udp_cannot_send_from_here_is_local() {
    let Some(lab) = Lab::new() else { return };
    lab.own_firewall(&[
        "udp dport 2401 drop",
        "udp dport 2402 reject with icmpx type port-unreachable",
        "udp dport 2403 reject with icmpx type admin-prohibited",
    ]);
    lab.no_neighbour();
    lab.ip(Host::Stranger, &format!("route add blackhole {PROXY4}\n"));
    let cases = [
        ("drop4", "203.0.113.4:2401"),
        ("drop6", "[fd00:113::4]:2401"),
        ("port4", "203.0.113.4:2402"),
        ("port6", "[fd00:113::4]:2402"),
        ("admin4", "203.0.113.4:2403"),
        ("arp4", "203.0.113.9:2404"),
        ("nd6", "[fd00:113::9]:2404"),
        ("blackhole", "203.0.113.3:2404"),
    ];
    let body: String = cases.iter().map(|(name, target)| closed(name, target, &["internet"], "payload = \"hex:00\"")).collect();
    let run = gate(&lab, Host::Stranger, &config("stranger", &(internet() + &body)));
    for (name, _) in cases {
        run.expect(name, "unproven", "local", "local-error");
    }
    let detail = |name: &str| observed(run.check(name))[0]["evidence"].clone();
    assert_eq!(detail("drop4")["errno"], "EPERM");
    assert!(detail("drop4")["detail"].as_str().unwrap().contains("nft list ruleset"), "{:#}", detail("drop4"));
    assert!(detail("arp4")["detail"].as_str().unwrap().contains("ip neigh"), "{:#}", detail("arp4"));
    run.expect_code(3);

    // One attempt ends before the kernel gives the neighbour up, so nothing but what still waits here tells.
    let once = closed("once", "203.0.113.9:2404", &["internet"], "payload = \"hex:00\"\nattempts = 1");
    let run = gate(&lab, Host::Stranger, &config("stranger", &(internet() + &once)));
    run.expect("once", "unproven", "local", "local-error");
    run.expect_code(3);
}

#[test]
fn udp_behind_a_dead_witness_or_another_family_is_unproven() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_with(&["udp dport 2001 reject with icmpx type port-unreachable"], Denial::Drop);
    lab.close(Host::Beacon, "witness4:443");
    let witness = check("four", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"");
    let six = check("six", "tcp", "witness6.lab.test:443", "expect = \"open\"");
    let body = witness
        + &six
        + &closed("dead", &format!("{ADMIN4}:2001"), &["four"], "payload = \"hex:00\"")
        + &closed("alive", &format!("[{ADMIN6}]:2001"), &["six"], "payload = \"hex:00\"");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("dead", "unproven", "witness-failed", "refused");
    run.expect("alive", "holds", "as-expected", "refused");
}

/// A transparent proxy for everybody's datagrams is neither an open door nor a witness.
#[test]
fn who_answers_every_datagram_proves_and_violates_nothing() {
    let Some(lab) = Lab::new() else { return };
    let (_lure, _) = answering(&lab, Host::Core, "all", "0.0.0.0", &[9999]);
    lab.lure(&["meta nfproto ipv4 udp dport 53 redirect to :9999"]);
    let (_ntp, _) = answering(&lab, Host::Beacon, "all", WITNESS4, &[123]);
    let positive = |name: &str, target: &str| check(name, "udp", target, "expect = \"open\"");
    let body = check("internet", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"")
        + &positive("dns", &format!("{WITNESS4}:53"))
        + &positive("ntp", &format!("{WITNESS4}:123"))
        + &closed("closed-dns", &format!("{ADMIN4}:53"), &["internet"], "")
        + &closed("port-by-dns", &format!("{ADMIN4}:53"), &["dns"], "")
        + &check(
            "refused-ntp",
            "udp",
            &format!("{ADMIN4}:123"),
            "expect = [\"refused\"]\nwitness = [\"ntp\"]\nrequire = [\"vantage\", \"port\"]",
        );
    lab.acl_with(&["udp dport 123 reject with icmp type port-unreachable"], Denial::Drop);
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("dns", "unproven", "intercepted", "local-error");
    run.expect("closed-dns", "unproven", "intercepted", "local-error");
    run.expect("port-by-dns", "unproven", "intercepted", "local-error");
    // Another port, which nobody answers for everybody.
    run.expect("ntp", "holds", "as-expected", "replied");
    run.expect("refused-ntp", "holds", "as-expected", "refused");
    run.expect_proofs("refused-ntp", &["vantage", "port"]);

    // The interceptor knows one protocol only, and another payload to the same port is not his.
    lab.lure(&[]);
    drop(_lure);
    let (_picky, _) = answering(&lab, Host::Core, "starts:aa", "0.0.0.0", &[9999]);
    lab.lure(&["meta nfproto ipv4 udp dport 99 redirect to :9999"]);
    let body = check("internet", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"")
        + &closed("his", &format!("{ADMIN4}:99"), &["internet"], "payload = \"hex:aa\"")
        + &closed("not-his", &format!("{ADMIN4}:99"), &["internet"], "payload = \"hex:bb\"");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("his", "unproven", "intercepted", "local-error");
    run.expect("not-his", "unproven", "no-witness", "timeout");
}

/// Linux answers a stranger's datagrams to closed ports with six ICMP errors at once, and then with one a second.
#[test]
fn many_closed_ports_of_one_host_are_asked_one_a_second_and_all_refuse() {
    let Some(lab) = Lab::new() else { return };
    const PORTS: u16 = 20;
    lab.acl_with(&["udp dport 3000-3100 accept"], Denial::Drop);
    lab.output(Host::Private, &["sysctl", "-q", "-w", "net.ipv4.icmp_ratelimit=1000"]);
    // The rate is the kernel's own: asked faster, most are silent.
    let flood = "import socket,select\nsocks=[]\nfor p in range(3000,3060):\n s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.setsockopt(0,11,1); s.setblocking(False); s.connect(('203.0.113.7',p)); s.send(b'x'); socks.append(s)\nimport time; time.sleep(1)\nn=0\nfor s in socks:\n try: s.recv(9)\n except ConnectionRefusedError: n+=1\n except OSError: pass\nprint(n)\n";
    let refused: u32 = lab.output(Host::Stranger, &[python(), "-c", flood]).trim().parse().unwrap();
    eprintln!("60 datagrams at once: {refused} refused");
    assert!((1..30).contains(&refused), "the kernel's rate limit is at work: {refused} of 60");
    let closed: String = (3000..3000 + PORTS)
        .map(|port| {
            let rest = "expect = [\"refused\"]\nwitness = [\"internet\"]\npayload = \"hex:00\"\nattempts = 2";
            check(&format!("c{port}"), "udp", &format!("{ADMIN4}:{port}"), rest)
        })
        .collect();
    let text = config("stranger", &(check("internet", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"") + &closed));
    let began = std::time::Instant::now();
    let run = gate(&lab, Host::Stranger, &text);
    eprintln!("{PORTS} closed ports, two attempts each: {:.1} s", began.elapsed().as_secs_f64());
    for port in 3000..3000 + PORTS {
        run.expect(&format!("c{port}"), "holds", "as-expected", "refused");
    }
    run.expect_code(0);
    assert!(began.elapsed() >= Duration::from_secs(u64::from(PORTS) * 2 - 1), "one a second");
}

/// Every datagram of every check to one host leaves at least a second after the one before.
#[test]
fn datagrams_to_one_host_are_spaced_over_all_checks() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    let (_quiet, log) = answering(&lab, Host::Private, "starts:ff", ADMIN4, &[3000, 3001, 3002]);
    let (_other, other_log) = answering(&lab, Host::Private, "starts:ff", "203.0.113.8", &[3000]);
    let body = check("internet", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"")
        + &(3000..3003)
            .map(|port| closed(&format!("c{port}"), &format!("{ADMIN4}:{port}"), &["internet"], "payload = \"hex:00\"\nattempts = 2"))
            .collect::<String>()
        + &check("answered", "udp", &format!("{ADMIN4}:3000"), "expect = \"open\"\npayload = \"hex:ff\"")
        + &closed("elsewhere", "203.0.113.8:3000", &["internet"], "payload = \"hex:00\"\nattempts = 2");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    for port in 3000..3003 {
        // Silence, three datagrams in each attempt, and no proof of the target: an open port may be as silent. This one is.
        run.expect(&format!("c{port}"), "unproven", "no-witness", "timeout");
        assert_eq!(sent(&run, &format!("c{port}")), [json!(3)]);
    }
    run.expect("answered", "holds", "as-expected", "replied");
    let times = |log: &str| -> Vec<f64> {
        lab.log(log)
            .lines()
            .filter(|line| line.contains(" 198.51.100.66 "))
            .map(|line| line.split(' ').next().unwrap().parse().unwrap())
            .collect()
    };
    let at = times(&log);
    assert_eq!(at.len(), 3 * 2 * 3 + 1, "{at:?}");
    let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap > 0.95), "{gaps:?}");
    assert_eq!(times(&other_log).len(), 6, "another host waits for nobody");
    assert!(times(&other_log)[5] - times(&other_log)[0] < 9.0);
}

#[test]
fn a_second_source_of_the_same_host_gives_target_to_udp() {
    let Some(lab) = Lab::new() else { return };
    let (_dns, _) = answering(&lab, Host::Private, "all", ADMIN4, &[53]);
    lab.acl_with(&[&format!("ip saddr {SECOND4} udp dport 53 accept")], Denial::Drop);
    let body = internet()
        + &check("allowed", "udp", &format!("{ADMIN4}:53"), &format!("expect = \"open\"\nsource = \"{SECOND4}\""))
        + &closed("closed", &format!("{ADMIN4}:53"), &["internet", "allowed"], "require = [\"vantage\", \"target\"]");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("allowed", "holds", "as-expected", "replied");
    run.expect("closed", "holds", "as-expected", "timeout");
}

/// Starts `command` on the admin host, or says why it ended at once.
fn daemon(lab: &Lab, name: &str, command: &[&str]) -> Process {
    Process::spawn(lab, Host::Private, name, command, false)
}

/// Every payload that some Debian package answers, against that package.
#[test]
fn real_services_answer_their_payloads() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    let dir = lab.dir().display().to_string();
    let file = |name: &str, text: &str| {
        let path = lab.dir().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let chrony = file(
        "chrony.conf",
        &format!("local stratum 8\nallow all\nbindaddress {ADMIN4}\ncmdport 0\nbindcmdaddress /\npidfile {dir}/chrony.pid\n"),
    );
    let snmp = file("snmpd.conf", &format!("agentaddress udp:{ADMIN4}:161\nrocommunity nobody-knows-it\n"));
    let turn = file(
        "turn.conf",
        &format!(
            "listening-ip={ADMIN4}\nlistening-port=3478\nstun-only\nno-tls\nno-dtls\nno-cli\nlog-file=stdout\npidfile={dir}/turn.pid\nuserdb={dir}/turn.db\n"
        ),
    );
    let caddy = file("caddy.json", &json!({
        "admin": { "disabled": true }, "storage": { "module": "file_system", "root": dir },
        "apps": { "http": { "servers": { "s": { "listen": [format!("{ADMIN4}:8443")], "routes": [{ "handle": [{ "handler": "static_response" }] }],
            "tls_connection_policies": [{}], "automatic_https": { "disable": true } } } },
            "tls": { "certificates": { "load_files": [{ "certificate": format!("{dir}/valid.pem"), "key": format!("{dir}/valid.pem") }] } } }
    }).to_string());
    let squid = file(
        "squid-icp.conf",
        &format!(
            "http_port {ADMIN4}:3128\nicp_port 3130\nicp_access allow all\nhtcp_port 4827\nhtcp_access allow all\nudp_incoming_address {ADMIN4}\n\
             pid_filename none\npinger_enable off\ncache deny all\nshutdown_lifetime 0 seconds\ncache_log {dir}/squid-cache.log\naccess_log none\n\
             netdb_filename none\nvisible_hostname squid\ncoredump_dir none\nhosts_file none\nmax_filedescriptors 512\n"
        ),
    );
    let pem = format!("{dir}/valid.pem");
    let _daemons = [
        daemon(&lab, "chronyd", &["chronyd", "-d", "-x", "-u", "root", "-f", &chrony]),
        daemon(&lab, "snmpd", &["snmpd", "-f", "-Lo", "-C", "-c", &snmp, "-p", &format!("{dir}/snmpd.pid")]),
        daemon(&lab, "memcached", &["memcached", "-u", "root", "-l", ADMIN4, "-U", "11211"]),
        daemon(&lab, "turnserver", &["turnserver", "-c", &turn]),
        daemon(&lab, "caddy", &["caddy", "run", "--config", &caddy]),
        daemon(
            &lab,
            "dtls",
            &["openssl", "s_server", "-dtls", "-listen", "-accept", &format!("{ADMIN4}:5684"), "-cert", &pem, "-key", &pem, "-quiet"],
        ),
        daemon(&lab, "coap", &["coap-server-notls", "-A", ADMIN4, "-p", "5683"]),
        daemon(&lab, "squid", &["squid", "-N", "-f", &squid]),
        daemon(&lab, "rpcbind", &["rpcbind", "-f", "-h", ADMIN4]),
        daemon(&lab, "ike", &["/usr/lib/ipsec/charon"]),
    ];
    let of = |name: &str, port: u16, rest: &str| {
        check(name, "udp", &format!("{ADMIN4}:{port}"), &format!("expect = \"open\"\nattempts = 10\n{rest}"))
    };
    let names = [
        ("ntp", 123),
        ("snmp", 161),
        ("memcached", 11211),
        ("stun", 3478),
        ("dtls", 5684),
        ("coap", 5683),
        ("rpcbind", 111),
        ("ike", 500),
        ("icp", 3130),
        ("htcp", 4827),
    ];
    let body: String = names.iter().map(|(name, port)| of(name, *port, "")).collect::<String>()
        + &of("quic", 8443, "payload = \"quic\"")
        + &check("dns", "udp", &format!("{WITNESS4}:53"), "expect = \"open\"");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    for name in names.iter().map(|(name, _)| *name).chain(["quic", "dns"]) {
        let check = run.check(name);
        let seen = &observed(check)[0]["evidence"];
        eprintln!("{name}: {} after {} of {} bytes, {}", check["verdict"], seen["datagrams_sent"], seen["reply_bytes"], seen["head"]);
        assert_eq!(
            check["verdict"],
            "holds",
            "{name}: {check:#}\n{}",
            ["chronyd", "snmpd", "memcached", "turnserver", "caddy", "dtls", "coap", "rpcbind", "ike", "squid", "squid-cache"]
                .map(|log| format!("--- {log}\n{}", lab.log(log)))
                .join("\n")
        );
    }
}

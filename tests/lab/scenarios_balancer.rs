//! Our own proxy behind a load balancer: a real HAProxy in TCP mode, which hides its clients or names them by the PROXY protocol.

use std::fs;

use crate::run::{BINARY, Run, check, config, gate, internet, write_config};
use crate::scenarios_proxy::beacon;
use crate::service::{Process, until};
use crate::world::{BEACON4, Host, Lab, OFFICE4, PROXY4, STRANGER4};

/// Our proxy on port 3128 of the proxy's host, with these lines of `[proxy]`; gives its access log's name.
fn proxy(lab: &Lab, rules: &str) -> (Process, String) {
    let name = lab.fresh("proxy");
    let text = format!(
        "vantage = \"edge\"\n[proxy]\nlisten = \"{PROXY4}:3128\"\nconnect_ports = [443, 9891]\nallow_private = \"198.51.100.0/24\"\n\
         access_log = \"{name}-access.log\"\n{rules}\n"
    );
    let file = write_config(lab, &format!("{name}.toml"), &text);
    let process = Process::spawn(lab, Host::Private, &name, &[BINARY, "proxy", "--config", file.to_str().unwrap()], false);
    (ready(lab, process, &name, 3128), name)
}

/// HAProxy on port 3129 before it, with these words on its `server` line.
fn balancer(lab: &Lab, server: &str) -> Process {
    let name = lab.fresh("haproxy");
    let file = lab.dir().join(format!("{name}.cfg"));
    let text = format!(
        "global\n maxconn 200\ndefaults\n mode tcp\n timeout client 20s\n timeout server 20s\n timeout connect 5s\n\
         frontend in\n bind {PROXY4}:3129\n default_backend out\nbackend out\n server ours {PROXY4}:3128 {server}\n"
    );
    fs::write(&file, text).unwrap();
    let process = Process::spawn(lab, Host::Private, &name, &["haproxy", "-db", "-f", file.to_str().unwrap()], false);
    ready(lab, process, &name, 3129)
}

fn ready(lab: &Lab, mut process: Process, name: &str, port: u16) -> Process {
    let hub = lab.hub(Host::Private);
    let ready = until(crate::run::SOON, || {
        assert!(process.ended().is_none(), "{name} ended: {}", lab.log(name));
        (hub.connect(PROXY4, port, 0.2).outcome == "connected").then_some(())
    });
    assert!(ready.is_some(), "{name} did not get ready: {}", lab.log(name));
    process
}

fn log(lab: &Lab, name: &str) -> Vec<String> {
    fs::read_to_string(lab.dir().join(format!("{name}-access.log"))).unwrap().lines().map(String::from).collect()
}

/// What the stranger's monitor says of the proxy behind the balancer, and what the office gets through it.
fn seen(lab: &Lab) -> (Run, Run) {
    let beacons = format!("beacon = [\"http://{BEACON4}:443/\", \"http://{BEACON4}:9891/\"]\ntechniques = \"quick\"");
    let open = check(
        "not-open",
        "open-proxy",
        "proxy.lab.test:3129",
        &format!("{beacons}\nexpect = \"blocked\"\nwitness = [\"internet\"]\nattempts = 1"),
    );
    let stranger = gate(lab, Host::Stranger, &config("stranger", &format!("[beacon]\nkey_file = \"beacon.key\"\n{}{open}", internet())));
    let through = check(
        "through",
        "http",
        "https://site.lab.test/",
        &format!("via = \"http://proxy.lab.test:3129\"\nca_file = {:?}\nexpect = \"open\"", lab.dir().join("ca.pem")),
    );
    (stranger, gate(lab, Host::Allowed, &config("office", &through)))
}

/// By hand, with a tool that knows nothing of the monitor.
fn curl(lab: &Lab, host: Host) -> bool {
    let command = ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-x", &format!("http://{PROXY4}:3129"), "--proxytunnel", "--cacert"];
    let ca = lab.dir().join("ca.pem");
    let done = lab.inside(host, &command).arg(ca).arg("https://site.lab.test/").output().unwrap();
    done.status.success()
}

/// The balancer's address is allowed, since it is the only one that the proxy ever sees: then everybody is.
#[test]
fn a_balancer_that_hides_its_clients_makes_an_open_proxy_and_the_monitor_says_so() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let (_proxy, name) = proxy(&lab, &format!("allow_from = [\"{OFFICE4}\", \"{PROXY4}\"]"));
    let _balancer = balancer(&lab, "");
    assert!(curl(&lab, Host::Stranger), "the stranger is served");
    let (stranger, office) = seen(&lab);
    stranger.expect("not-open", "violated", "open", "relayed");
    stranger.expect_code(1);
    office.expect("through", "holds", "as-expected", "status:200");
    let log = log(&lab, &name);
    assert!(!log.is_empty() && log.iter().all(|l| l.contains(&format!(" {PROXY4} TCP_"))), "everybody is the balancer: {log:#?}");
}

/// The header names the client, the rules judge it, and the log has both.
#[test]
fn the_proxy_protocol_of_a_real_balancer_is_believed() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    // HAProxy checks the server's health by LOCAL, or by UNKNOWN
    for send in
        ["send-proxy check inter 200", "send-proxy-v2 check inter 200", "send-proxy-v2 proxy-v2-options crc32c,unique-id check inter 200"]
    {
        let (_proxy, name) = proxy(&lab, &format!("allow_from = \"{OFFICE4}\"\nproxy_protocol_from = \"{PROXY4}\""));
        let _balancer = balancer(&lab, send);
        assert!(curl(&lab, Host::Allowed) && !curl(&lab, Host::Stranger), "{send}: by hand");
        let (stranger, office) = seen(&lab);
        stranger.expect("not-open", "holds", "as-expected", "denied|not-relayed|not-understood");
        office.expect("through", "holds", "as-expected", "status:200");
        let log = log(&lab, &name);
        let of = |client: &str, action: &str| {
            let (client, peer) = (format!(" {client} TCP_{action}/"), format!(" peer={PROXY4}:"));
            log.iter().filter(|l| l.contains(&client) && l.contains(&peer)).count()
        };
        assert!(of(OFFICE4, "TUNNEL") > 0 && of(STRANGER4, "DENIED") > 0, "{send}: {log:#?}");
        // this laboratory's own look whether the balancer is ready came from the balancer's host, too
        let others = log.len() - of(OFFICE4, "TUNNEL") - of(STRANGER4, "DENIED");
        assert!(others <= 1, "{send}: health checks leave no line: {log:#?}");
    }
}

/// The one says the PROXY protocol and the other does not, in both ways to get that wrong: nobody is served by mistake.
#[test]
fn half_a_proxy_protocol_serves_nobody() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    for (rules, send, reason) in [
        (format!("allow_from = [\"{OFFICE4}\", \"{PROXY4}\"]\nproxy_protocol_from = \"{PROXY4}\""), "", "proxy-header"),
        (format!("allow_from = [\"{OFFICE4}\", \"{PROXY4}\"]"), "send-proxy-v2", "parse"),
    ] {
        let (_proxy, name) = proxy(&lab, &rules);
        let _balancer = balancer(&lab, send);
        assert!(!curl(&lab, Host::Allowed) && !curl(&lab, Host::Stranger), "{reason}: by hand");
        let (stranger, office) = seen(&lab);
        stranger.expect("not-open", "holds", "as-expected", "denied|not-relayed|not-understood");
        assert_eq!(office.check("through")["verdict"], "violated", "{:#}", office.check("through"));
        let log = log(&lab, &name);
        assert!(!log.is_empty() && log.iter().all(|l| l.ends_with(&format!("reason={reason}"))), "{log:#?}");
    }
}

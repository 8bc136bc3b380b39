//! The reference deployment as its SASE sees it: CONNECT from many addresses, tunnels that are kept, X-Forwarded-For set; through a load balancer that names
//! its clients by PROXY v2, or keeps their addresses; to the Squid that we ship and to our own proxy; and out by one NAT address.
//!
//! HAProxy in TCP mode on the edge router stands for the NLB. Its `usesrc clientip` is the NLB's client IP preservation: the proxy sees the client's own
//! address and answers to it, and the router takes the answer for the balancer's.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::run::{BINARY, SOON, write_config};
use crate::scenarios_squid::{ours, said};
use crate::service::{Process, python, until};
use crate::world::{BEACON4, EDGE4, EGRESS4, Host, Lab, OFFICE4, PROXY4, STRANGER4};

/// The SASE's published range, routed to the host of the office, which has every address of it.
const SASE: &str = "198.51.100.192/26";
/// A stranger with as many.
const STRANGERS: &str = "198.18.66.0/26";
/// A user's device, as X-Forwarded-For names it.
const DEVICE: &str = "10.1.2.3";
/// Where the balancer stands, on the proxies' side: whose PROXY header is believed.
const INSIDE_OF_EDGE: &str = "203.0.113.1";
const SOURCES: u8 = 24;
const TUNNELS: usize = 3;
const REQUESTS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// `proxy_protocol_v2`.
    Header,
    /// `preserve_client_ip`.
    Preserved,
}

fn addresses(of: &str) -> Vec<String> {
    let (base, first) = of.split('/').next().unwrap().rsplit_once('.').unwrap();
    let first: u8 = first.parse().unwrap();
    (1..=SOURCES).map(|at| format!("{base}.{}", first + at)).collect()
}

/// Both ranges are there, and lead where they should.
fn ranges(lab: &Lab) {
    lab.ip(Host::Core, &format!("route add {SASE} via {OFFICE4}\nroute add {STRANGERS} via {STRANGER4}\n"));
    lab.ip(Host::Allowed, &format!("route add local {SASE} dev lo\n"));
    lab.ip(Host::Stranger, &format!("route add local {STRANGERS} dev lo\n"));
    // Answers to a client whose address the balancer keeps come by the proxy's side, and are the balancer's.
    lab.ip(Host::Edge, "rule add fwmark 1 lookup 100\nroute add local 0.0.0.0/0 dev lo table 100\n");
    lab.nft(
        Host::Edge,
        "table ip nlb {\n chain back {\n type filter hook prerouting priority mangle;\n iifname lan meta l4proto tcp socket transparent 1 meta mark set 1 accept\n }\n}\n",
    );
}

fn balancer(lab: &Lab, naming: Naming) -> Process {
    let words = match naming {
        Naming::Header => "send-proxy-v2",
        Naming::Preserved => "source 0.0.0.0 usesrc clientip",
    };
    let name = lab.fresh("nlb");
    let text = format!(
        "global\n maxconn 1000\ndefaults\n mode tcp\n timeout client 60s\n timeout server 60s\n timeout connect 5s\nlisten nlb\n bind {EDGE4}:3128\n server proxy {PROXY4}:3128 {words}\n"
    );
    let file = write_config(lab, &format!("{name}.cfg"), &text);
    let mut process = Process::spawn(lab, Host::Edge, &name, &["haproxy", "-db", "-q", "-f", file.to_str().unwrap()], false);
    let hub = lab.hub(Host::Allowed);
    let ready = until(SOON, || {
        assert!(process.ended().is_none(), "{name} ended: {}", lab.log(&name));
        (hub.connect(EDGE4, 3128, 1.0).outcome == "connected").then_some(())
    });
    assert!(ready.is_some(), "{}", lab.log(&name));
    process
}

/// Our own proxy; gives its access log's name.
fn own(lab: &Lab, naming: Naming) -> (Process, String) {
    let name = lab.fresh("own");
    let header = if naming == Naming::Header { format!("proxy_protocol_from = \"{INSIDE_OF_EDGE}\"\n") } else { String::new() };
    let text = format!(
        "vantage = \"proxy\"\n[proxy]\nlisten = \"{PROXY4}:3128\"\nallow_from = \"{SASE}\"\nallow_private = \"198.51.100.0/24\"\naccess_log = \"{name}-access.log\"\n{header}"
    );
    let file = write_config(lab, &format!("{name}.toml"), &text);
    let mut process = Process::spawn(lab, Host::Private, &name, &[BINARY, "proxy", "--config", file.to_str().unwrap()], false);
    let hub = lab.hub(Host::Private);
    let ready = until(SOON, || {
        assert!(process.ended().is_none(), "{name} ended: {}", lab.log(&name));
        (hub.connect(PROXY4, 3128, 1.0).outcome == "connected").then_some(())
    });
    assert!(ready.is_some(), "{}", lab.log(&name));
    (process, name)
}

fn destination(lab: &Lab) -> Process {
    let script = write_config(lab, "sase.py", include_str!("sase.py"));
    let process = Process::spawn(lab, Host::Beacon, "destination", &[python(), script.to_str().unwrap(), "serve", BEACON4, "443"], false);
    let hub = lab.hub(Host::Beacon);
    let ready = until(SOON, || (hub.connect(BEACON4, 443, 0.5).outcome == "connected").then_some(()));
    assert!(ready.is_some(), "{}", lab.log("destination"));
    process
}

fn forward(lab: &Lab, host: Host, range: &str, device: &str) -> Vec<Value> {
    let spec = json!({ "proxy": [EDGE4, 3128], "sources": addresses(range), "tunnels": TUNNELS, "requests": REQUESTS,
        "to": "beacon.lab.test:443", "device": device });
    let script = lab.dir().join("sase.py");
    let said = lab.output(host, &[python(), script.to_str().unwrap(), "forward", &spec.to_string()]);
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

/// What the SASE and strangers get, and what the proxy's log says of them. `log` gives its lines, in Squid's form: time, client, ….
fn seen_from_both(lab: &Lab, what: &str, log: impl Fn() -> String) {
    let tunnels = forward(lab, Host::Allowed, SASE, DEVICE);
    assert_eq!(tunnels.len(), usize::from(SOURCES) * TUNNELS);
    for tunnel in &tunnels {
        assert_eq!(tunnel["status"], 200, "{what}: {tunnel}");
        // Every request of every tunnel, from every source address, left by the one address.
        assert_eq!(tunnel["seen"], json!(vec![EGRESS4; REQUESTS]), "{what}: {tunnel}");
    }
    // The stranger says that he forwards for one whom the list has.
    let refused = forward(lab, Host::Stranger, STRANGERS, &addresses(SASE)[0]);
    for tunnel in &refused {
        assert!(tunnel["status"] != 200 && tunnel["again"] != 200 && tunnel["seen"] == json!([]), "{what}: {tunnel}");
    }

    let clients = |log: &str, action: &str| -> BTreeSet<String> {
        let lines = log.lines().filter(|line| line.contains(action));
        lines.filter_map(|line| line.split_whitespace().find(|word| word.parse::<std::net::IpAddr>().is_ok())).map(String::from).collect()
    };
    let sase: BTreeSet<String> = addresses(SASE).into_iter().collect();
    let strangers: BTreeSet<String> = addresses(STRANGERS).into_iter().collect();
    // Squid writes a tunnel when it has ended.
    let told = until(SOON, || {
        let log = log();
        (clients(&log, " TCP_TUNNEL/") == sase && clients(&log, " TCP_DENIED/").is_superset(&strangers)).then_some(log)
    });
    let log = told.unwrap_or_else(|| panic!("{what}: {}", log()));
    let denied = clients(&log, " TCP_DENIED/");
    assert!(denied.is_disjoint(&sase), "{what}: {log}");
    for hidden in [EDGE4, INSIDE_OF_EDGE] {
        assert!(!denied.contains(hidden), "{what}: the balancer is nobody's client: {log}");
    }
    let ended = log.lines().filter(|line| line.contains(" TCP_TUNNEL/")).count();
    assert!(ended >= usize::from(SOURCES) * TUNNELS, "{what}: {ended} lines of tunnels");
}

#[test]
fn a_sase_through_a_load_balancer_to_the_squid_that_we_ship() {
    let Some(lab) = Lab::new() else { return };
    ranges(&lab);
    let _destination = destination(&lab);
    for naming in [Naming::Header, Naming::Preserved] {
        let balancers = if naming == Naming::Header { format!("{INSIDE_OF_EDGE}\n") } else { String::new() };
        let (squid, _reader) = ours(&lab, &format!("{SASE}\n"), &balancers, naming == Naming::Header);
        let nlb = balancer(&lab, naming);
        seen_from_both(&lab, &format!("Squid, {naming:?}"), || said(&lab));
        drop((nlb, squid));
        gone(&lab);
    }
}

#[test]
fn a_sase_through_a_load_balancer_to_our_own_proxy() {
    let Some(lab) = Lab::new() else { return };
    ranges(&lab);
    let _destination = destination(&lab);
    for naming in [Naming::Header, Naming::Preserved] {
        let (proxy, name) = own(&lab, naming);
        let nlb = balancer(&lab, naming);
        let log = lab.dir().join(format!("{name}-access.log"));
        seen_from_both(&lab, &format!("ours, {naming:?}"), || fs::read_to_string(&log).unwrap());
        drop((nlb, proxy));
        gone(&lab);
    }
}

/// The ports are free for the next.
fn gone(lab: &Lab) {
    for (host, address) in [(Host::Private, PROXY4), (Host::Edge, EDGE4)] {
        let hub = lab.hub(host);
        assert!(until(SOON, || (hub.connect(address, 3128, 1.0).outcome == "ECONNREFUSED").then_some(())).is_some(), "{address}");
    }
}

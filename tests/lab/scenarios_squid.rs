//! The Squid of `deploy/squid`, its very files, run and audited; and the table that `proxy lint` makes of a squid.conf, held against real Squid.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use mustnot::squid::acl::Request;
use mustnot::squid::config::Config;
use mustnot::squid::read::Files;
use mustnot::squid::span::number;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::run::{SOON, check, config, gate, internet, write_config};
use crate::scenarios_proxy::beacon;
use crate::service::{Process, python, until};
use crate::world::{BEACON4, EGRESS4, Host, Lab, OFFICE4, PROXY4, SECOND4, STRANGER4, WITNESS4};

/// What each of these gets, in their order.
fn talk(lab: &Lab, host: Host, asks: &[Value]) -> Vec<Value> {
    let script = write_config(lab, "talk.py", include_str!("talk.py"));
    let said = lab.output(host, &[python(), script.to_str().unwrap(), &json!(asks).to_string()]);
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

fn ask(port: u16, source: &str, request: &str) -> Value {
    json!({ "host": PROXY4, "port": port, "source": source, "say": format!("{request} HTTP/1.1\r\nHost: x\r\nUser-Agent: talker/1\r\n\r\n") })
}

fn wait_for(lab: &Lab, process: &mut Process, name: &str, port: u16) {
    let hub = lab.hub(Host::Private);
    let ready = until(SOON, || {
        assert!(process.ended().is_none(), "{name} ended at start: {}", lab.log(name));
        (hub.connect(PROXY4, port, 1.0).outcome == "connected").then_some(())
    });
    assert!(ready.is_some(), "{name} did not get ready: {}", lab.log(name));
}

// ---- the table of `proxy lint` against real Squid ----------------------------------------------------------------------

/// Lists of rules, each with what tells it from the others.
const RULES: [&str; 14] = [
    // the tutorial
    "acl SSL_ports port 443\nacl Safe_ports port 80 21 443\nacl Safe_ports port 1025-65535\nhttp_access deny !Safe_ports\nhttp_access deny CONNECT !SSL_ports\nhttp_access allow all",
    // the last line denies, and so the rest is let in
    "acl office src 198.51.100.10\nhttp_access allow office\nhttp_access deny CONNECT",
    // a line that is skipped
    "acl office src 198.51.100.10\nhttp_access allow office\nhttp_access deny",
    // nobody
    "",
    // of two that overlap only the first is kept
    "acl bad dst 127.0.0.1 127.0.0.0/8 169.254.0.0/16\nhttp_access deny bad\nhttp_access allow all",
    "acl bad dst 127.0.0.0/8 127.0.0.1\nhttp_access deny bad\nhttp_access deny !CONNECT\nhttp_access allow all",
    // names alone are not resolved
    "acl bad dst -n 127.0.0.0/8 198.51.100.0/24\nhttp_access deny bad\nhttp_access allow all",
    "acl bad dst 198.51.100.0/24\nhttp_access deny bad\nhttp_access allow all",
    // names, with and without the lookup of literals
    "acl listed dstdomain -n .lab.test\nhttp_access allow listed\nhttp_access deny all",
    "acl strangers src 198.51.100.64/26\nacl usual method get post connect\nhttp_access deny usual strangers\nhttp_access allow all",
    // groups, negation, letters, the own port
    "acl office src 198.51.100.10/255.255.255.255\nacl high port 1025-65535\nacl ok all-of OFFICE !high\nacl ok all-of manager\nacl here localport 20105\nhttp_access deny !OK\nhttp_access allow Ok",
    "acl plain proto HTTP\nacl two src 198.51.100.66-198.51.100.67\nhttp_access deny plain !two\nhttp_access deny manager\nhttp_access deny to_localhost\nhttp_access allow all",
    "if false\nhttp_access allow all\nelse\nacl one src 198.51.100.66\nendif\nhttp_access deny !one \\\n# who\n  all\nhttp_access allow CONNECT\nhttp_access deny all",
    "acl listed src \"{dir}/listed\"\nacl none src \"{dir}/none\"\nhttp_access deny none\nhttp_access allow listed\nhttp_access deny all",
];
/// Method, scheme, host, address behind it, port, what is asked for.
type Asked = (&'static str, &'static str, &'static str, &'static str, u16, &'static str);
const ASKED: [Asked; 16] = [
    ("CONNECT", "NONE", "site.lab.test", WITNESS4, 443, "site.lab.test:443"),
    ("CONNECT", "NONE", "", WITNESS4, 443, "198.51.100.20:443"),
    ("CONNECT", "NONE", "", WITNESS4, 22, "198.51.100.20:22"),
    ("CONNECT", "NONE", "sink-loop.lab.test", "127.0.0.1", 443, "sink-loop.lab.test:443"),
    ("CONNECT", "NONE", "", "127.0.0.1", 443, "127.0.0.1:443"),
    ("CONNECT", "NONE", "", "127.0.0.2", 443, "127.0.0.2:443"),
    ("CONNECT", "NONE", "", "127.0.0.1", 443, "[::ffff:127.0.0.1]:443"),
    ("CONNECT", "NONE", "", "::1", 443, "[::1]:443"),
    ("CONNECT", "NONE", "", "169.254.169.254", 443, "169.254.169.254:443"),
    ("GET", "HTTP", "site.lab.test", WITNESS4, 80, "http://site.lab.test/"),
    ("GET", "HTTP", "", "127.0.0.1", 2000, "http://127.0.0.1:2000/"),
    ("GET", "HTTP", "", "169.254.169.254", 80, "http://169.254.169.254/"),
    ("OPTIONS", "HTTP", "", WITNESS4, 80, "http://198.51.100.20/"),
    ("GET", "FTP", "", "127.0.0.1", 21, "ftp://127.0.0.1/"),
    ("GET", "FTP", "", "127.0.0.1", 2121, "ftp://127.0.0.1:2121/"),
    ("GET", "HTTP", "proxy.lab.test", PROXY4, 0, "http://proxy.lab.test:{port}/squid-internal-mgr/menu"),
];

struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> Result<String, String> {
        fs::read_to_string(path).map_err(|e| e.to_string())
    }

    fn glob(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn squid_decides_as_its_configuration_was_read() {
    let Some(lab) = Lab::new() else { return };
    let dir = lab.dir().display().to_string();
    write_config(&lab, "listed", "# two\n198.51.100.10 # the office\n198.51.100.66\n");
    write_config(&lab, "none", "# nobody\n");
    lab.ip(Host::Private, "route add unreachable 169.254.0.0/16\n");
    let mut running = Vec::new();
    for (at, rules) in (0u16..).zip(RULES) {
        let port = 20_100 + at;
        let head = crate::zoo::SQUID.replace("{name}", &format!("table-{at}"));
        let rules = format!("http_port {PROXY4}:{port}\n{rules}");
        // Its own head defines an ACL of its own named `office`; these rules have theirs.
        let head: String = head.lines().filter(|l| !l.starts_with("acl ")).map(|l| format!("{l}\n")).collect();
        let text = format!("{head}{rules}\n").replace("{dir}", &dir);
        let file = write_config(&lab, &format!("table-{at}.conf"), &text);
        let name = format!("table-{at}");
        let service = format!("table{port}");
        let process = Process::spawn(&lab, Host::Private, &name, &["squid", "-N", "-n", &service, "-f", file.to_str().unwrap()], false);
        running.push((process, port, name, text));
    }
    let (mut compared, mut wrong, mut let_in) = (0, Vec::new(), 0);
    for (process, port, name, _) in &mut running {
        wait_for(&lab, process, name, *port);
    }
    for (_, port, name, text) in &running {
        let read = Config::read(name, text, &Disk);
        let rules = read.access("http_access").cloned().unwrap_or_default();
        for (host, sources) in [(Host::Stranger, [STRANGER4, SECOND4].as_slice()), (Host::Allowed, &[OFFICE4])] {
            for source in sources {
                let lines = ASKED.map(|(method, .., what)| format!("{method} {}", what.replace("{port}", &port.to_string())));
                let asks: Vec<Value> = lines.iter().map(|line| ask(*port, source, line)).collect();
                for ((asked, line), answer) in ASKED.iter().zip(&lines).zip(talk(&lab, host, &asks)) {
                    let (method, scheme, host, to, asked_port, what) = *asked;
                    let request = Request {
                        from: number(source.parse().unwrap()),
                        method,
                        scheme,
                        name: (!host.is_empty()).then_some(host),
                        to: number(to.parse().unwrap()),
                        port: if asked_port == 0 { *port } else { asked_port },
                        manager: what.contains("squid-internal-mgr"),
                        at: &read.ports[0].listener,
                    };
                    let outcomes = rules.outcomes(&read.acls, &request);
                    let denied = answer["error"] == "ERR_ACCESS_DENIED";
                    assert!(denied || answer["status"].as_u64().unwrap() > 0, "{name} {source} {line}: {answer}");
                    if !outcomes.iter().all(|outcome| outcome.allowed != denied) {
                        wrong.push(format!("{name}: {line} from {source}: Squid says {answer}, we say {outcomes:?}"));
                    }
                    compared += 1;
                    let_in += u32::from(!denied);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(compared, RULES.len() * ASKED.len() * 3);
    assert!(let_in > 100 && compared - let_in as usize > 100, "{let_in} of {compared} are let in: both sides are seen");
    eprintln!("{compared} requests, {let_in} let in, and Squid decides each as its table says");
}

// ---- the Squid that we ship --------------------------------------------------------------------------------------------

/// The port of the load balancer in front.
const FRONT: u16 = 3130;

/// Lays the files out as they are, with these clients and balancers, and starts Squid as the image does: not root, and on a root that is read-only.
/// Without `header` as deploy/aws does where the load balancer keeps the clients' addresses: the PROXY header is not asked for.
pub fn ours(lab: &Lab, allowed: &str, balancers: &str, header: bool) -> (Process, Process) {
    let name = "ours";
    let etc = lab.dir().join("etc-squid");
    fs::create_dir_all(&etc).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/squid");
    let conf = fs::read_to_string(shipped.join("squid.conf")).unwrap();
    let words = " require-proxy-header tcpkeepalive";
    assert_eq!(conf.matches(words).count(), 1);
    fs::write(etc.join("squid.conf"), if header { conf } else { conf.replace(words, " tcpkeepalive") }).unwrap();
    let add = |file: &str, lines: &str| fs::write(etc.join(file), fs::read_to_string(shipped.join(file)).unwrap() + lines).unwrap();
    add("allow_from.txt", allowed);
    add("load_balancers.txt", balancers);
    // The laboratory's internet has addresses of a block for documentation.
    let deny_to = fs::read_to_string(shipped.join("deny_to.txt")).unwrap();
    let kept: Vec<&str> = deny_to.lines().filter(|line| !line.starts_with("198.51.100.0/24")).collect();
    assert_eq!(kept.len() + 1, deny_to.lines().count());
    fs::write(etc.join("deny_to.txt"), kept.join("\n") + "\n").unwrap();
    let dir = lab.dir().display();
    // Standard output is a pipe of the container's user there, too; its reader is outside, or the root would stay writable.
    fs::write(lab.dir().join("ours.out"), "").unwrap();
    let pipe = format!("rm -f {dir}/out && mkfifo {dir}/out && chown proxy {dir}/out && exec cat <>{dir}/out >>{dir}/ours.out");
    let reader = Process::spawn(lab, Host::Private, "reader", &["sh", "-c", &pipe], false);
    assert!(until(SOON, || fs::metadata(lab.dir().join("out")).ok().filter(|m| m.uid() != 0)).is_some(), "{}", lab.log("reader"));
    let script = format!(
        "set -e\nmount --bind {dir}/etc-squid /etc/squid\nmount -o remount,bind,ro /\n! touch {dir}/written 2>/dev/null\n\
         squid -k parse -f /etc/squid/squid.conf 2>&1 | grep -iE 'warn|error|fatal|upgrade' >{dir}/out || true\n\
         exec setpriv --reuid=proxy --regid=proxy --clear-groups squid -N -f /etc/squid/squid.conf >{dir}/out 2>&1\n"
    );
    let file = write_config(lab, "ours.sh", &script);
    let mut process = Process::spawn(lab, Host::Private, name, &["sh", file.to_str().unwrap()], false);
    let hub = lab.hub(Host::Private);
    let ready = until(SOON, || {
        assert!(process.ended().is_none(), "it ended at start: {} {}", lab.log(name), said(lab));
        (hub.connect(PROXY4, 3128, 1.0).outcome == "connected").then_some(())
    });
    assert!(ready.is_some(), "it did not get ready: {} {}", lab.log(name), said(lab));
    (process, reader)
}

/// What that Squid said so far, its access log among it.
pub fn said(lab: &Lab) -> String {
    fs::read_to_string(lab.dir().join("ours.out")).unwrap_or_default()
}

fn balancer(lab: &Lab) -> Process {
    let text = format!(
        "defaults\n timeout connect 5s\n timeout client 60s\n timeout server 60s\nlisten front\n bind {PROXY4}:{FRONT}\n mode tcp\n \
         server squid 10.0.0.3:3128 source 10.0.0.3 send-proxy-v2\n"
    );
    let file = write_config(lab, "balancer.cfg", &text);
    let mut process = Process::spawn(lab, Host::Private, "balancer", &["haproxy", "-db", "-q", "-f", file.to_str().unwrap()], false);
    wait_for(lab, &mut process, "balancer", FRONT);
    process
}

#[test]
fn our_squid_is_shut_for_strangers_and_leads_its_clients_nowhere_but_out() {
    let Some(lab) = Lab::new() else { return };
    let _beacon = beacon(&lab);
    let (mut squid, _reader) = ours(&lab, &format!("{OFFICE4}\n"), "10.0.0.3\n", true);
    let _balancer = balancer(&lab);
    assert_eq!(
        fs::read_to_string(format!("/proc/{}/status", squid.id())).unwrap().lines().filter(|l| l.starts_with("Uid:\t13\t13\t")).count(),
        1,
        "as proxy"
    );
    assert!(!lab.dir().join("written").exists(), "the root is read-only");
    assert!(
        !["WARNING", "ERROR", "FATAL", "UPGRADE"].iter().any(|w| said(&lab).lines().any(|l| l.contains(w) && !l.contains("RLIMIT_NOFILE"))),
        "{}",
        said(&lab)
    );

    // The whole suite, through the balancer and straight at it.
    let keyed = |vantage: &str, body: &str| {
        write_config(&lab, "beacon.key", "6d7573746e6f742d6c61622d6b65792d6d7573746e6f742d6c61622d6b657921\n");
        config(vantage, &format!("[beacon]\nkey_file = \"beacon.key\"\n{body}"))
    };
    let suite = format!(
        "beacon = [\"http://{BEACON4}:443/\", \"http://{BEACON4}:9891/\"]\nexpect = \"blocked\"\nwitness = [\"internet\"]\nattempts = 1\nspoof = [\"{OFFICE4}\"]"
    );
    let body = internet()
        + &check("through", "open-proxy", &format!("proxy.lab.test:{FRONT}"), &suite)
        + &check("straight", "open-proxy", "proxy.lab.test:3128", &suite);
    let run = gate(&lab, Host::Stranger, &keyed("stranger", &body));
    run.expect("through", "holds", "as-expected", "*");
    run.expect("straight", "holds", "as-expected", "*");
    assert!(
        run.check("through")["observations"].as_array().unwrap().iter().filter(|o| o["outcome"] == "denied").count() > 5,
        "it says no in so many words"
    );

    // The one allowed way.
    let via = format!("via = \"http://proxy.lab.test:{FRONT}\"\n");
    let ca = format!("ca_file = {:?}\n", lab.dir().join("ca.pem"));
    let body = check("egress", "egress-ip", &format!("http://{BEACON4}:443/"), &format!("{via}expect = {{ ip = [\"{EGRESS4}\"] }}"))
        + &check("site", "http", "https://site.lab.test/", &format!("{via}{ca}expect = \"open\""));
    let run = gate(&lab, Host::Allowed, &keyed("office", &body));
    run.expect("egress", "holds", "as-expected", "egress");
    run.expect("site", "holds", "as-expected", "status:200");

    // Where its own clients must not get.
    let nowhere = [
        "CONNECT 169.254.169.254:443",
        "CONNECT 169.254.170.2:443",
        "CONNECT [fd00:ec2::254]:443",
        "CONNECT 168.63.129.16:443",
        "CONNECT 127.0.0.1:443",
        "CONNECT 127.9.9.9:443",
        "CONNECT 0.0.0.0:443",
        "CONNECT 0.0.0.1:443",
        "CONNECT [::]:443",
        "CONNECT [::1]:443",
        "CONNECT [::ffff:127.0.0.1]:443",
        "CONNECT [::ffff:169.254.169.254]:443",
        "CONNECT [::127.0.0.1]:443",
        "CONNECT [64:ff9b::169.254.169.254]:443",
        "CONNECT [2002:7f00:1::1]:443",
        "CONNECT [fe80::1]:443",
        "CONNECT 10.0.0.3:443",
        "CONNECT 192.168.1.1:443",
        "CONNECT 203.0.113.7:443",
        "CONNECT localhost:443",
        "CONNECT sink-loop.lab.test:443",
        "CONNECT sink.lab.test:443",
        "CONNECT site.lab.test:22",
        "CONNECT site.lab.test:3128",
        "CONNECT 203.0.113.3:3128",
        "GET http://site.lab.test/",
        "GET http://127.0.0.1/",
        "GET http://169.254.170.2/v2/credentials",
        "OPTIONS http://site.lab.test/",
        "TRACE http://site.lab.test/",
        "GET ftp://site.lab.test/",
        "GET gopher://site.lab.test/",
        "GET cache_object://egress-proxy/info",
        "GET /squid-internal-mgr/info",
        "GET http://egress-proxy:3128/squid-internal-mgr/info",
    ];
    let asks: Vec<Value> = nowhere.iter().chain(&["CONNECT site.lab.test:443"]).map(|line| ask(FRONT, OFFICE4, line)).collect();
    let answers = talk(&lab, Host::Allowed, &asks);
    let odd: Vec<String> = nowhere
        .iter()
        .zip(&answers)
        .filter(|(line, answer)| match **line {
            // DNS has no such name, and Debian took gopher out; neither gets as far as the rules.
            "CONNECT localhost:443" => answer["status"] == 200,
            "GET gopher://site.lab.test/" => answer["status"] != 400 && answer["status"] != 403,
            _ => answer["status"] != 403 || answer["error"] != "ERR_ACCESS_DENIED",
        })
        .map(|(line, answer)| format!("{line}: {answer}"))
        .collect();
    assert!(odd.is_empty(), "{}", odd.join("\n"));
    assert_eq!(answers[nowhere.len()]["status"], 200, "and out it leads: {answers:?}");

    // Who is judged, and logged, is the client; whoever writes a PROXY header himself is cut off.
    let stranger = talk(&lab, Host::Stranger, &[ask(FRONT, STRANGER4, "CONNECT site.lab.test:443")]);
    assert_eq!(stranger[0]["status"], 403, "{stranger:?}");
    let forged = json!({ "host": PROXY4, "port": 3128, "source": STRANGER4,
        "say": format!("PROXY TCP4 {OFFICE4} {PROXY4} 5555 3128\r\nCONNECT site.lab.test:443 HTTP/1.1\r\n\r\n") });
    let twice = json!({ "host": PROXY4, "port": FRONT, "source": STRANGER4,
        "say": format!("PROXY TCP4 {OFFICE4} {PROXY4} 5555 3128\r\nCONNECT site.lab.test:443 HTTP/1.1\r\n\r\n") });
    let answers = talk(&lab, Host::Stranger, &[forged, twice]);
    assert_eq!(answers[0]["status"], 0, "{answers:?}");
    assert_ne!(answers[1]["status"], 200, "{answers:?}");
    let plain = talk(&lab, Host::Allowed, &[ask(3128, OFFICE4, "CONNECT site.lab.test:443")]);
    assert_eq!(plain[0]["status"], 0, "not past the balancer: {plain:?}");
    let logged = until(SOON, || {
        let log = said(&lab);
        let line = |client: &str, what: &str| {
            log.lines().any(|l| l.contains(&format!(" {client} ")) && l.contains(what) && l.contains("\"talker/1\""))
        };
        (line(OFFICE4, "TCP_TUNNEL/200 CONNECT site.lab.test:443 198.51.100.20 ")
            && line(STRANGER4, "TCP_DENIED/403 CONNECT site.lab.test:443"))
        .then_some(log)
    });
    let log = logged.unwrap_or_else(|| panic!("{}", said(&lab)));
    assert!(!log.lines().any(|l| l.contains(" 10.0.0.3 NONE_NONE")), "the balancer's own connections are not logged: {log}");

    // The end: it waits for the tunnel, and not longer than its configuration says.
    let script = lab.dir().join("talk.py");
    let mut held = ask(FRONT, OFFICE4, "CONNECT site.lab.test:443");
    held["hold"] = true.into();
    let mut tunnel =
        Process::spawn(&lab, Host::Allowed, "tunnel", &[python(), script.to_str().unwrap(), &json!([held]).to_string()], false);
    assert!(until(SOON, || lab.log("tunnel").contains("held").then_some(())).is_some(), "{}", lab.log("tunnel"));
    squid.signal(Signal::SIGTERM);
    assert!(
        until(SOON, || said(&lab).contains("Waiting 20 seconds for active connections to finish").then_some(())).is_some(),
        "{}",
        said(&lab)
    );
    let ended = squid.wait(Duration::from_secs(90)).unwrap_or_else(|| panic!("it does not end: {}", said(&lab)));
    assert!(ended.success(), "{ended}: {}", said(&lab));
    assert!(tunnel.wait(SOON).is_some() && lab.log("tunnel").contains("ended"), "{}", lab.log("tunnel"));
}

#[test]
fn our_squid_with_empty_lists_is_shut_for_everybody() {
    let Some(lab) = Lab::new() else { return };
    let _balancer = balancer(&lab);
    let ways = |lab: &Lab| -> Vec<u64> {
        let said = [ask(FRONT, OFFICE4, "CONNECT site.lab.test:443"), ask(3128, OFFICE4, "CONNECT site.lab.test:443")];
        talk(lab, Host::Allowed, &said).iter().map(|answer| answer["status"].as_u64().unwrap()).collect()
    };
    let office = format!("{OFFICE4}\n");
    for (allowed, balancers, expected) in
        [("", "10.0.0.3\n", [403, 0]), (office.as_str(), "", [0, 0]), ("", "", [0, 0]), (office.as_str(), "10.0.0.3\n", [200, 0])]
    {
        let squid = ours(&lab, allowed, balancers, true);
        assert_eq!(ways(&lab), expected, "allow_from {allowed:?}, load_balancers {balancers:?}: {}", said(&lab));
        drop(squid);
        let hub = lab.hub(Host::Private);
        assert!(until(SOON, || (hub.connect(PROXY4, 3128, 1.0).outcome == "ECONNREFUSED").then_some(())).is_some());
    }
}

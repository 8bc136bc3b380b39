//! `/probe`: a template's recipe against targets that others name, and never against any other.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::monitor::{Answer, Monitor, metric};

/// A listener that answers each request with 204, while it is told to; it counts its visitors.
pub struct Site {
    pub at: SocketAddr,
    pub alive: Arc<AtomicBool>,
    pub visits: Arc<AtomicUsize>,
}

impl Site {
    pub fn new() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Site { at: listener.local_addr().unwrap(), alive: Arc::new(AtomicBool::new(true)), visits: Arc::default() };
        let (alive, visits) = (Arc::clone(&site.alive), Arc::clone(&site.visits));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                visits.fetch_add(1, Ordering::SeqCst);
                if !alive.load(Ordering::SeqCst) {
                    continue;
                }
                std::thread::spawn(move || {
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
                });
            }
        });
        site
    }
}

/// A port of loopback where nobody listens, for as long as this is held.
pub fn closed() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, at)
}

/// Two templates, and a witness whose own turn comes once an hour.
pub fn templates(witness: SocketAddr, more: &str) -> String {
    format!(
        "vantage = \"office\"\n[web]\nlisten = \"127.0.0.1:0\"\n[defaults]\ninterval = \"1h\"\n{more}\n\
         [[check]]\nname = \"alive\"\nkind = \"http\"\ntarget = \"http://{witness}/\"\nexpect = \"open\"\n\
         [[check]]\nname = \"closed\"\nkind = \"tcp\"\nexpect = \"blocked\"\nwitness = [\"alive\"]\nseverity = \"critical\"\n\
         template = true\nallow_targets = [\"127.0.0.0/8\", \"203.0.113.0/24\"]\n\
         [[check]]\nname = \"page\"\nkind = \"http\"\nexpect = [\"status:204\"]\ntimeout = \"60s\"\ntemplate = true\nallow_targets = \"127.0.0.1\"\n"
    )
}

fn probe(monitor: &Monitor, check: &str, target: impl std::fmt::Display, arguments: &[&str]) -> Answer {
    let target = target.to_string();
    let asked = ["-G", "--data-urlencode", &format!("check={check}"), "--data-urlencode", &format!("target={target}")];
    monitor.curl("/probe", &[&asked, arguments].concat())
}

/// `probe_success` and `probe_unproven`.
fn told(answer: &Answer) -> (f64, f64) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let of = |name: &str| metric(&answer.body, &[&format!("{name}{{")]).unwrap_or_else(|| panic!("{name}: {answer:?}"));
    assert!(of("probe_duration_seconds") > 0.0);
    (of("probe_success"), of("probe_unproven"))
}

const HOLDS: (f64, f64) = (1.0, 0.0);
const VIOLATED: (f64, f64) = (0.0, 0.0);
const UNPROVEN: (f64, f64) = (0.0, 1.0);

#[test]
fn a_recipe_is_run_against_the_target_that_is_named() {
    let (witness, open) = (Site::new(), Site::new());
    let (_held, nobody) = closed();
    let monitor = Monitor::start(&templates(witness.at, ""), |_| {});
    let answer = probe(&monitor, "closed", nobody, &[]);
    assert_eq!(told(&answer), HOLDS, "{answer:?}");
    let labels = ["check=\"closed\"", "kind=\"tcp\"", &format!("target=\"{nobody}\""), "severity=\"critical\"", "vantage=\"office\""];
    let verdict = |answer: &Answer, verdict: &str| {
        metric(&answer.body, &[&["mustnot_check_verdict{", &format!("verdict=\"{verdict}\"")], &labels[..2]].concat())
    };
    assert_eq!((verdict(&answer, "holds"), verdict(&answer, "violated")), (Some(1.0), Some(0.0)));
    assert!(labels.iter().all(|label| answer.body.contains(label)), "{answer:?}");
    assert_eq!(metric(&answer.body, &["mustnot_check_proof{", "proof=\"vantage\""]), Some(1.0), "its witness stood around it");
    for absent in ["mustnot_check_stale_after_seconds", "_total", "process_", "mustnot_build_info"] {
        assert!(!answer.body.contains(absent), "{absent}: {answer:?}");
    }

    let answer = probe(&monitor, "closed", open.at, &[]);
    assert_eq!(told(&answer), VIOLATED, "{answer:?}");
    assert_eq!(verdict(&answer, "violated"), Some(1.0));
    assert_eq!(told(&probe(&monitor, "page", format!("http://{}/", open.at), &[])), HOLDS);
    assert_eq!(told(&probe(&monitor, "page", format!("http://{nobody}/"), &[])), VIOLATED);

    // for people, the record
    let debug: serde_json::Value =
        serde_json::from_str(&probe(&monitor, "closed", open.at, &["--data-urlencode", "debug=true"]).body).unwrap();
    assert_eq!((&debug["checks"][0]["verdict"], &debug["checks"][0]["name"]), (&"violated".into(), &"closed".into()));
    assert!(debug["checks"][0]["reason"].as_str().unwrap().contains("accepted a TCP connection"), "{debug}");

    // nothing of it is the monitor's own
    assert_eq!(monitor.verdicts().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["alive"]);
    assert!(!monitor.get("/metrics").contains("check=\"closed\""));
    assert_eq!(monitor.metric(&["mustnot_checks{"]), Some(1.0));
    assert_eq!(monitor.curl("/readyz", &[]).status, 200, "what waits for a target is not waited for");
    // a scrape asks for OpenMetrics and gzip
    let openmetrics =
        probe(&monitor, "closed", nobody, &["--compressed", "-H", "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"]);
    assert!(openmetrics.head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{openmetrics:?}");
    assert!(openmetrics.body.ends_with("# EOF\n") && told(&openmetrics) == HOLDS);
}

#[test]
fn promtool_reads_the_metrics_of_a_probe() {
    let witness = Site::new();
    let monitor = Monitor::start(&templates(witness.at, ""), |_| {});
    let text = probe(&monitor, "closed", closed().1, &[]).body;
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else {
        println!("SKIPPED promtool_reads_the_metrics_of_a_probe: promtool (Debian: prometheus) is not installed");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
}

#[test]
fn what_is_asked_wrongly_is_refused_and_nobody_is_dialled() {
    let (witness, site) = (Site::new(), Site::new());
    let monitor = Monitor::start(&templates(witness.at, ""), |_| {});
    let port = site.at.port();
    for (check, target, status, word) in [
        ("nobody", site.at.to_string(), 404, "there is no check \"nobody\" with template = true"),
        ("alive", site.at.to_string(), 404, "there is no check \"alive\" with template = true"),
        ("closed", "".into(), 400, ""),
        ("closed", "127.0.0.1".into(), 400, "names no port"),
        ("closed", format!("http://127.0.0.1:{port}/"), 400, "is a URL; write host:port"),
        ("closed", format!("ann:secret@127.0.0.1:{port}"), 400, "no user name or password may stand in a target"),
        ("page", format!("http://ann:secret@127.0.0.1:{port}/"), 400, "no user name or password may stand in a URL"),
        ("closed", format!("127.1:{port}"), 400, "is neither a name nor an address"),
        ("closed", format!("0x7f000001:{port}"), 400, "is neither a name nor an address"),
        ("closed", format!("2130706433:{port}"), 400, "is neither a name nor an address"),
        ("closed", "224.0.0.1:80".into(), 400, "is not the address of one host"),
        ("closed", "${HOME}:80".into(), 400, "is not a DNS name"),
        ("closed", format!("127.0.0.1:{port}\nname = \"x\""), 400, ""),
        ("closed", "a".repeat(2000), 400, "the target is too long"),
        // outside, in every spelling
        ("closed", "192.0.2.1:80".into(), 403, "not probed: the target is outside allow_targets"),
        ("page", "http://[::1]:80/".into(), 403, "outside allow_targets"),
        ("closed", "[::ffff:192.0.2.1]:80".into(), 403, "outside allow_targets"),
        ("page", "http://[64:ff9b::7f00:1]:80/".into(), 403, "outside allow_targets"),
        ("closed", "169.254.169.254:80".into(), 403, "outside allow_targets"),
        ("page", format!("http://127.0.0.2:{port}/"), 403, "outside allow_targets"),
    ] {
        let answer = probe(&monitor, check, &target, &[]);
        assert_eq!(answer.status, status, "{check} {target}: {answer:?}");
        assert!(answer.body.contains(word) && !answer.body.contains("probes.toml"), "{check} {target}: {answer:?}");
    }
    for query in
        ["", "?check=closed", "?target=127.0.0.1:1", "?module=closed&target=127.0.0.1:1", "?check=closed&check=page&target=127.0.0.1:1"]
    {
        let answer = monitor.curl(&format!("/probe{query}"), &[]);
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
    }
    for header in ["Origin: http://evil.example.com", "Sec-Fetch-Site: cross-site", "Host: evil.example.com:9890"] {
        assert_eq!(probe(&monitor, "closed", site.at, &["-H", header]).status, 403, "{header}");
    }
    assert_eq!(probe(&monitor, "closed", site.at, &["-H", "X-Prometheus-Scrape-Timeout-Seconds: soon"]).status, 400);
    assert_eq!(monitor.curl("/probe", &["-X", "POST"]).status, 405);
    assert_eq!(site.visits.load(Ordering::SeqCst), 0);
    // one spelling of the very address that is allowed is that address
    assert_eq!(told(&probe(&monitor, "closed", format!("[::ffff:127.0.0.1]:{port}"), &[])), VIOLATED);
}

/// A name server that gives these addresses in turn; of a name that begins with `no` it says that it does not exist.
fn name_server(turns: Vec<Vec<[u8; 4]>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut nth, mut packet) = (0, [0; 512]);
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let question = &packet[12..length];
            let end = question.iter().position(|b| *b == 0).unwrap() + 5;
            let (name, kind) = (&question[..end], question[end - 3]);
            let exists = !name[1..].starts_with(b"no");
            let addresses: &[[u8; 4]] = if kind == 1 && exists { &turns[nth % turns.len()] } else { &[] };
            nth += usize::from(kind == 1);
            let mut answer = packet[..2].to_vec();
            answer.extend([0x81, if exists { 0x80 } else { 0x83 }, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
            answer.extend(name);
            for address in addresses {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                answer.extend(address);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    at
}

/// Where a name leads is told to nobody: not that it leads out, not where to, nor that it is no name at all.
#[test]
fn a_name_that_leads_out_is_not_dialled_and_looks_like_one_that_is_not_there() {
    let witness = Site::new();
    let outside = name_server(vec![
        vec![[198, 51, 100, 77]],
        vec![[203, 0, 113, 5], [198, 51, 100, 77]],
        vec![[127, 0, 0, 1]],
        vec![[203, 0, 113, 5], [127, 0, 0, 1]],
    ]);
    let monitor = Monitor::start(&templates(witness.at, &format!("resolver = \"{outside}\"\n")), |_| {});
    let debug = |name: &str| {
        let answer = probe(&monitor, "closed", format!("{name}:80"), &["--data-urlencode", "debug=true"]);
        let report: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
        for address in ["198.51.100.77", "203.0.113.5", "127.0.0.1:80"] {
            assert!(!answer.body.contains(address), "{answer:?}");
        }
        let record = &report["checks"][0];
        let words = |text: &serde_json::Value| text.as_str().unwrap().replace(name, "NAME");
        (words(&record["verdict"]), words(&record["cause"]), words(&record["reason"]), record["observations"].as_array().unwrap().len())
    };
    let absent = debug("nobody.example.com");
    assert_eq!((absent.0.as_str(), absent.1.as_str(), absent.3), ("unproven", "resolve", 1), "{absent:?}");
    for turn in 0..4 {
        assert_eq!(debug("somebody.example.com"), absent, "turn {turn}");
    }
    assert_eq!(told(&probe(&monitor, "closed", "somebody.example.com:80", &[])), UNPROVEN);
    assert!(monitor.logged().contains("198.51.100.77"), "who runs the monitor is told: {}", monitor.logged());
}

/// What hangs is unproven, and the answer comes while Prometheus still waits.
#[test]
fn the_answer_comes_within_the_time_of_the_scrape() {
    let witness = Site::new();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let monitor = Monitor::start(&templates(witness.at, ""), |_| {});
    let began = Instant::now();
    let answer =
        probe(&monitor, "page", format!("http://{}/", mute.local_addr().unwrap()), &["-H", "X-Prometheus-Scrape-Timeout-Seconds: 1"]);
    assert_eq!(told(&answer), UNPROVEN);
    assert!(began.elapsed() < Duration::from_secs(20), "the check itself would wait for a minute: {:?}", began.elapsed());
    // seen open before the time is up, and shown to be so after it: here the witness hangs
    witness.alive.store(true, Ordering::SeqCst);
    let open = Site::new();
    let slow = Monitor::start(&templates(mute.local_addr().unwrap(), "timeout = \"60s\""), |_| {});
    let answer = probe(&slow, "closed", closed().1, &["-H", "X-Prometheus-Scrape-Timeout-Seconds: 2"]);
    assert_eq!(told(&answer), UNPROVEN, "without its witness no block is proven");
    let answer = probe(&monitor, "closed", open.at, &["-H", "X-Prometheus-Scrape-Timeout-Seconds: 1.5"]);
    assert_eq!(told(&answer).0, 0.0);
}

/// Many targets at once, one witness run before and one after for all of them that come together.
#[test]
fn many_targets_share_the_runs_of_their_witness() {
    let witness = Site::new();
    let monitor = Monitor::start(&templates(witness.at, ""), |_| {});
    monitor.until("the witness's own first run", || (monitor.verdicts() == [("alive".to_string(), "holds".to_string())]).then_some(()));
    let before = witness.visits.load(Ordering::SeqCst);
    let held: Vec<_> = (0..40).map(|_| closed()).collect();
    std::thread::scope(|scope| {
        let monitor = &monitor;
        let all: Vec<_> = held.iter().map(|(_, at)| scope.spawn(move || told(&probe(monitor, "closed", at, &[])))).collect();
        for one in all {
            assert_eq!(one.join().unwrap(), HOLDS);
        }
    });
    let cost = witness.visits.load(Ordering::SeqCst) - before;
    assert!(cost < 40, "{cost} runs of the witness for 40 targets");
}

/// What was seen open is so until a run holds; that a witness is down does not close it.
#[test]
fn a_target_that_was_seen_open_stays_violated_until_it_is_seen_closed() {
    let witness = Site::new();
    let monitor = Monitor::start(&templates(witness.at, ""), |_| {});
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = door.local_addr().unwrap();
    assert_eq!(told(&probe(&monitor, "closed", at, &[])), VIOLATED);
    drop(door);
    witness.alive.store(false, Ordering::SeqCst);
    let (_other, never_open) = closed();
    assert_eq!(told(&probe(&monitor, "closed", never_open, &[])), UNPROVEN);
    let latched = probe(&monitor, "closed", at, &[]);
    assert_eq!(told(&latched), VIOLATED);
    assert_eq!(metric(&latched.body, &["mustnot_check_cause{", "cause=\"latched\""]), Some(1.0), "{latched:?}");
    witness.alive.store(true, Ordering::SeqCst);
    monitor.until("it holds", || (told(&probe(&monitor, "closed", at, &[])) == HOLDS).then_some(()));
    witness.alive.store(false, Ordering::SeqCst);
    assert_eq!(told(&probe(&monitor, "closed", at, &[])), UNPROVEN, "and then it is forgotten");
}

#[test]
fn a_template_with_a_target_runs_by_itself_too() {
    let witness = Site::new();
    let (_held, nobody) = closed();
    let (_other, second) = closed();
    let text = templates(witness.at, "").replace("kind = \"tcp\"\nexpect", &format!("kind = \"tcp\"\ntarget = \"{nobody}\"\nexpect"));
    let monitor = Monitor::start(&text, |_| {});
    monitor.until("its own run", || monitor.verdicts().contains(&("closed".into(), "holds".into())).then_some(()));
    assert_eq!(told(&probe(&monitor, "closed", second, &[])), HOLDS);
    // another template after a reload, with the engine that runs then
    monitor.write(&text.replace("name = \"page\"", "name = \"site\""));
    assert_eq!(monitor.curl("/-/reload", &["-X", "POST"]).status, 200);
    assert_eq!(probe(&monitor, "page", format!("http://{}/", witness.at), &[]).status, 404);
    assert_eq!(told(&probe(&monitor, "site", format!("http://{}/", witness.at), &[])), HOLDS);
}

#[test]
fn strangers_have_nobody_to_probe_for_them() {
    let witness = Site::new();
    let told = Monitor::with(&templates(witness.at, ""), &["--listen", "0.0.0.0:0"], &[], |_| {}).err().expect("it must not start");
    assert!(told.contains("template = true, and whoever can reach 0.0.0.0:0 could have this monitor knock"), "{told}");
    let hash = bcrypt::hash("x", 4).unwrap();
    let guarded = templates(witness.at, "").replace("[defaults]", &format!("basic_auth = {{ ann = \"{hash}\" }}\n[defaults]"));
    let mut monitor = Monitor::with(&guarded, &["--listen", "0.0.0.0:0"], &[], |_| {}).unwrap_or_else(|said| panic!("{said}"));
    monitor.at.set_ip([127, 0, 0, 1].into());
    assert_eq!(probe(&monitor, "page", format!("http://{}/", witness.at), &[]).status, 401);
    // a reload cannot take the password away
    monitor.write(&templates(witness.at, ""));
    let answer = monitor.curl("/-/reload", &["-X", "POST", "-u", "ann:x"]);
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("could have this monitor knock"), "{answer:?}");
    assert_eq!(probe(&monitor, "page", format!("http://{}/", witness.at), &[]).status, 401);
}

//! SIGHUP: the configuration is read again by the program that runs. A bad file changes nothing; a good one touches nothing that it
//! does not change.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener as StdListener;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::monitor::Monitor;
use crate::proxy::{PATIENCE, assert_refused, read_exact, read_to_end, server};
use crate::proxy_life::{Program, said};

impl Program {
    pub fn rewrite(&self, text: &str) {
        let (new, file) = (self.folder.path().join("new"), self.folder.path().join("probes.toml"));
        fs::write(&new, text).unwrap();
        fs::rename(&new, file).unwrap();
        self.signal(Signal::SIGHUP);
    }

    /// Names and verdicts.
    pub async fn verdicts(&self) -> Vec<(String, String)> {
        let report: Value = serde_json::from_str(&self.get("/api/v1/checks").await).unwrap();
        let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_string();
        report["checks"].as_array().unwrap().iter().map(|check| (text(check, "name"), text(check, "verdict"))).collect()
    }

    pub async fn until(&self, what: &str, is: impl AsyncFn(&Program) -> bool) {
        let begun = Instant::now();
        while !is(self).await {
            assert!(begun.elapsed() < PATIENCE * 3, "{what}: {:?} {}", self.verdicts().await, said(&self.folder));
            sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    async fn connect(&self, to: impl std::fmt::Display) -> String {
        let mut client = TcpStream::connect(self.at).await.unwrap();
        client.write_all(format!("CONNECT {to} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        read_to_end(&mut client).await
    }
}

/// A page that says `hello`.
pub fn page() -> std::net::SocketAddr {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
        }
    });
    at
}

const TAKEN: &str = "mustnot_config_last_reload_successful";

#[tokio::test]
async fn a_monitor_takes_over_what_is_right_and_keeps_what_is_not_changed() {
    let page = page();
    let check = |name: &str, rest: &str| {
        format!(
            "[[check]]\nname = \"{name}\"\nkind = \"http\"\ntarget = \"http://{page}/\"\nexpect = \"open\"\ninterval = \"1h\"\n{rest}\n"
        )
    };
    let web = "[web]\nlisten = \"127.0.0.1:0\"\n[beacon]\nkey_file = \"beacon.key\"\nlisten = \"127.0.0.1:0\"\n";
    let before = format!("{web}{}{}", check("stays", ""), check("changes", "body_contains = \"hello\""));
    let program = Program::with("run", "", "", &before);
    let pairs = |all: &[(&str, &str)]| all.iter().map(|(name, verdict)| (name.to_string(), verdict.to_string())).collect::<Vec<_>>();
    let both = pairs(&[("stays", "holds"), ("changes", "holds")]);
    program.until("the first verdicts", async |p| p.verdicts().await == both).await;
    let (mut client, mut behind) = program.ends().await;
    let (_listener, at) = server().await;
    drop(program.tunnel(at).await);
    // the status page has the port that the kernel chose, and is no destination
    assert_refused(&program.connect(program.web.unwrap()).await, 403, "address");

    // the beacon's key is gone: one that stands in for it would show every proxy to relay nothing
    let key = program.folder.path().join("beacon.key");
    fs::rename(&key, key.with_extension("away")).unwrap();
    program.rewrite(&Program::text("deny_to = \"127.0.0.0/8\"", &before));
    program.until("the problem is said", async |p| said(&p.folder).contains("the key that is shared with the beacon")).await;
    assert_eq!(program.metric(TAKEN).await, Some(0.0));
    drop(program.tunnel(at).await);
    fs::rename(key.with_extension("away"), &key).unwrap();

    // wrong in many ways: none of it is taken over
    let wrong = [
        Program::text("deny_to = \"127.0.0.0/8\"\nno_such_key = 1", &before),
        Program::text("deny_to = \"127.0.0.0/8\"\negress = \"192.0.2.1\"", &before),
        Program::text("deny_to = \"127.0.0.0/8\"", &before).replace("vantage = \"v\"", "vantage = \"w\""),
        "not TOML".into(),
    ];
    let words = [
        "probes.toml:10:1: proxy.no_such_key: unknown key",
        "cannot send from the egress address 192.0.2.1",
        "vantage is \"v\"",
        "probes.toml:1:",
    ];
    for (text, word) in wrong.iter().zip(words) {
        program.rewrite(text);
        program.until("the problem is said", async |p| said(&p.folder).contains(word)).await;
        assert_eq!(program.metric(TAKEN).await, Some(0.0));
        assert_eq!(program.verdicts().await, both);
        drop(program.tunnel(at).await);
    }

    let after = format!("{web}{}{}{}", check("added", ""), check("stays", ""), check("changes", "body_contains = \"goodbye\""));
    program.rewrite(&Program::text("deny_to = \"127.0.0.0/8\"\nmax_connections = 7", &after));
    let all = pairs(&[("added", "holds"), ("stays", "holds"), ("changes", "violated")]);
    program.until("the new claims are judged", async |p| p.verdicts().await == all).await;
    assert_eq!(program.metric(TAKEN).await, Some(1.0));
    assert_eq!(
        program.metric("mustnot_check_runs_total{ check=\"stays\" verdict=\"holds\"").await,
        Some(1.0),
        "it kept its record and its beat"
    );
    assert_refused(&program.connect(at).await, 403, "address");
    program.rewrite(&Program::text("", &after));
    program.until("the way is open again", async |p| p.connect("127.0.0.1:1").await.starts_with("HTTP/1.1 502 ")).await;
    assert_refused(&program.connect(program.web.unwrap()).await, 403, "address");
    client.write_all(b"still").await.unwrap();
    assert_eq!(read_exact(&mut behind, 5).await, b"still", "the tunnel from before goes on");
    let said = said(&program.folder);
    assert!(said.contains("[proxy]: max_connections stay as they were until a restart"), "{said}");
}

#[tokio::test]
async fn a_proxy_by_itself_takes_over_its_rules() {
    let program = Program::start("", "");
    let (_listener, at) = server().await;
    drop(program.tunnel(at).await);
    program.rewrite("vantage = \"v\"\n[proxy]\nlisten = 5\n");
    program.until("the problem is said", async |p| said(&p.folder).contains("SIGHUP: nothing is changed")).await;
    drop(program.tunnel(at).await);
    program.rewrite(&Program::text("", "").replace("1-65535", "443"));
    program.until("the new rules", async |p| said(&p.folder).contains("the rules hold for new connections")).await;
    assert_refused(&program.connect(at).await, 403, "port");
}

/// A monitor of this page that looks once an hour.
fn once_an_hour(page: std::net::SocketAddr, more: &str) -> String {
    format!(
        "vantage = \"v\"\n[web]\nlisten = \"127.0.0.1:0\"\n\
         [[check]]\nname = \"stays\"\nkind = \"http\"\ntarget = \"http://{page}/\"\nexpect = \"open\"\ninterval = \"1h\"\n{more}\n"
    )
}

const ADDED: &str = "[[check]]\nname = \"added\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:1\"\nexpect = [\"refused\"]\nwitness = []\nrequire = []\ninterval = \"1h\"\n";

#[test]
fn a_reload_over_the_wire_answers_when_it_is_done() {
    let page = page();
    let text = once_an_hour(page, "# a word that nobody is to read");
    let monitor = Monitor::start(&text, |_| {});
    let reload = |arguments: &[&str]| monitor.curl("/-/reload", &[&["-X", "POST"], arguments].concat());
    let ran = || monitor.metric(&["mustnot_check_runs_total", "check=\"stays\"", "verdict=\"holds\""]);
    monitor.until("the first verdict", || (ran() == Some(1.0)).then_some(()));
    let has_changed = "the configuration has changed";

    let unchanged = reload(&[]);
    assert_eq!((unchanged.status, unchanged.body.as_str()), (200, "reloaded: nothing has changed\n"), "{unchanged:?}");
    monitor.hang_up();
    monitor.until("SIGHUP says so", || (monitor.logged().matches("read again: nothing has changed").count() == 2).then_some(()));
    monitor.write(&text.replace("nobody", "somebody"));
    assert_eq!(reload(&[]).body, "reloaded: the checks are the same\n");
    assert!(!monitor.said().contains(has_changed), "{}", monitor.said());

    monitor.write(&text.replace("kind = \"http\"", "kind = \"htp\""));
    let bad = reload(&[]);
    assert_eq!(bad.status, 500);
    assert!(
        bad.body.starts_with("not reloaded, all stays as it was:\nprobes.toml:6:8: check \"stays\".kind: \"htp\" is no kind; did you mean"),
        "{bad:?}"
    );
    assert_eq!(monitor.metric(&[TAKEN]), Some(0.0));
    assert!(monitor.get("/config").contains("kind = \"http\""), "what is in force is shown, not what is in the file");

    monitor.write(&format!("{text}{ADDED}"));
    let good = reload(&[]);
    assert_eq!((good.status, good.body.as_str()), (200, "reloaded: 2 checks from now on\n"), "{good:?}");
    // It is done: no waiting here.
    assert_eq!(monitor.metric(&[TAKEN]), Some(1.0));
    assert_eq!(monitor.metric(&["mustnot_checks{"]), Some(2.0));
    assert_eq!(ran(), Some(1.0), "what stays keeps its record and its beat");
    assert!(monitor.said().contains(&format!("{has_changed}: 2 checks from now on")));
    let shown = monitor.get("/config");
    assert!(shown.contains("name = \"added\"") && !shown.contains("nobody is to read"), "{shown}");

    assert_eq!(monitor.curl("/-/reload", &[]).status, 405, "a link is no order");
    let origin = |origin: &str| reload(&["-H", &format!("Origin: {origin}")]);
    for foreign in ["http://evil.example.com", "null", "http://127.0.0.1:1", &format!("https://evil.example.com/{}", monitor.at)] {
        let refused = origin(foreign);
        assert_eq!(refused.status, 403, "{foreign}");
        assert!(refused.body.starts_with("not reloaded: "), "{refused:?}");
    }
    assert_eq!(reload(&["-H", "Sec-Fetch-Site: cross-site"]).status, 403);
    assert_eq!(origin(&format!("http://{}", monitor.at)).status, 200, "our own page may");
    let rebound = reload(&["-H", "Origin: http://evil.example.com", "-H", "Host: evil.example.com"]);
    assert_eq!(rebound.status, 403, "a name that anybody can have lead here");
    // what it is sent is not read
    let long = "x".repeat(1 << 20);
    std::fs::write(monitor.path("long"), long).unwrap();
    assert!([200, 0].contains(&reload(&["--data-binary", "@long"]).status));
    assert_eq!(monitor.metric(&[TAKEN]), Some(1.0));
}

#[test]
fn a_reload_asks_for_the_password_where_there_is_one() {
    let hash = bcrypt::hash("x", 4).unwrap();
    let text = once_an_hour(page(), "").replace("[[check]]", &format!("basic_auth = {{ ann = \"{hash}\" }}\n[[check]]"));
    let monitor = Monitor::start(&text, |_| {});
    assert_eq!(monitor.curl("/-/reload", &["-X", "POST"]).status, 401);
    let known = monitor.curl("/-/reload", &["-X", "POST", "-u", "ann:x"]);
    assert_eq!((known.status, known.body.as_str()), (200, "reloaded: nothing has changed\n"));
    let named = ["-X", "POST", "-u", "ann:x", "-H", "Host: monitor.example.com", "-H", "Origin: http://monitor.example.com"];
    assert_eq!(monitor.curl("/-/reload", &named).status, 200, "who has shown a password is no page of somebody else");
    let shown = monitor.curl("/config", &["-u", "ann:x"]);
    assert!(shown.status == 200 && !shown.body.contains(&hash) && shown.body.contains("ann = \"***\""), "{shown:?}");
}

/// Fifty at once, in the midst of a run that has found a door open: each is answered, and the violation is shown all the while.
#[test]
fn fifty_reloads_in_the_midst_of_a_run_lose_no_violation() {
    let open = StdListener::bind("127.0.0.1:0").unwrap();
    let at = open.local_addr().unwrap();
    std::thread::spawn(move || for _stream in open.incoming().flatten() {});
    // The witness takes its time, so that the run goes on after the door was found open.
    let witness = StdListener::bind("127.0.0.1:0").unwrap();
    let alive = witness.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in witness.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                std::thread::sleep(std::time::Duration::from_secs(2));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            });
        }
    });
    let text = format!(
        "vantage = \"v\"\n[web]\nlisten = \"127.0.0.1:0\"\n\
         [[check]]\nname = \"closed\"\nkind = \"tcp\"\ntarget = \"{at}\"\nexpect = \"blocked\"\nwitness = [\"alive\"]\ninterval = \"1h\"\n\
         [[check]]\nname = \"alive\"\nkind = \"http\"\ntarget = \"http://{alive}/\"\nexpect = \"open\"\ninterval = \"1h\"\n"
    );
    let monitor = Monitor::start(&text, |_| {});
    let is_violated = || monitor.verdicts().contains(&("closed".into(), "violated".into()));
    monitor.until("the open door", || is_violated().then_some(()));
    assert_eq!(monitor.metric(&["mustnot_check_runs_total", "check=\"closed\"", "verdict=\"violated\""]), Some(0.0), "its run goes on");
    monitor.write(&format!("{text}{ADDED}"));
    let told: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..50).map(|_| scope.spawn(|| monitor.curl("/-/reload", &["-X", "POST"]))).collect();
        while !all.iter().all(|one| one.is_finished()) {
            assert!(is_violated(), "{:?}", monitor.verdicts());
        }
        all.into_iter().map(|one| one.join().unwrap()).map(|answer| format!("{} {}", answer.status, answer.body)).collect()
    });
    let done = "200 reloaded: 3 checks from now on\n";
    assert!(told.iter().any(|one| one == done), "{told:?}");
    assert!(told.iter().all(|one| one == done || one == "200 reloaded: nothing has changed\n"), "{told:?}");
    assert!(is_violated());
    assert_eq!(monitor.metric(&["mustnot_check_runs_total", "check=\"closed\"", "verdict=\"violated\""]), Some(1.0), "and was finished");
    // a change of something else does not forget it either
    monitor.write(&text.replace("interval = \"1h\"", "interval = \"2h\""));
    assert_eq!(monitor.curl("/-/reload", &["-X", "POST"]).body, "reloaded: 2 checks from now on\n");
    assert!(is_violated());
    let record: Value = serde_json::from_str(&monitor.get("/api/v1/checks/closed")).unwrap();
    assert_eq!(record["recent"].as_array().unwrap().len(), 1, "its history stays");
}

/// Every key that can carry a secret does, and nothing of it is shown.
#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let secret = "correct-horse-battery";
    let hash = bcrypt::hash(secret, 4).unwrap();
    let text = format!(
        "# {secret}\nvantage = \"v\" # {secret}\n[web]\nlisten = \"127.0.0.1:0\"\nbasic_auth = {{ ann = \"{hash}\" }}\n[beacon]\nkey_file = \"beacon.key\"\n\
         [[check]]\nname = \"a\"\nkind = \"http\"\ntarget = \"http://127.0.0.1:1/${{MUSTNOT_TEST_SECRET}}\"\nexpect = [\"refused\"]\nwitness = []\nrequire = []\n\
         headers = {{ Authorization = \"Bearer {secret}\", \"X-Api\" = '{secret}' }}\nbody_contains = \"{secret}\"\ninterval = \"1h\"\n\
         description = \"see http://ann:{secret}@127.0.0.1/\"\n\
         [[check]]\nname = \"b\"\nkind = \"peer\"\ntarget = \"http://127.0.0.1:1\"\ncheck = \"x\"\nexpect = \"open\"\nuser = \"ann\"\npassword_file = \"password\"\ninterval = \"1h\"\n\
         [[check]]\nname = \"c\"\nkind = \"http\"\ntarget = \"http://127.0.0.1:1/\"\nexpect = \"open\"\nvia = \"http://127.0.0.1:1\"\nvia_user = \"ann\"\nvia_password_file = \"password\"\ninterval = \"1h\"\n"
    );
    let monitor = Monitor::with_env(&text, &[("MUSTNOT_TEST_SECRET", secret)], |folder| {
        fs::write(folder.join("password"), secret).unwrap();
        fs::write(folder.join("beacon.key"), secret.repeat(3)).unwrap();
    });
    let answer = monitor.curl("/config", &["-u", &format!("ann:{secret}")]);
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; charset=utf-8"));
    assert!(!answer.body.contains(secret) && !answer.body.contains(&hash), "{}", answer.body);
    for kept in [
        "vantage = \"v\"\n",
        "ann = \"***\"",
        "${MUSTNOT_TEST_SECRET}",
        "Authorization = \"***\"",
        "X-Api\" = \"***\"",
        "password_file = \"password\"",
        "http://***@127.0.0.1/",
    ] {
        assert!(answer.body.contains(kept), "{kept}\n{}", answer.body);
    }
    assert_eq!(answer.body.lines().count(), text.lines().count());
}

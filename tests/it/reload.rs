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
fn page() -> std::net::SocketAddr {
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

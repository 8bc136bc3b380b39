//! Sinks: what is told to peers that take it, fail, hang, ask to wait, refuse or hang up; over restarts and reloads; and to a real Alertmanager.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mustnot::alert::sink::Sink;
use mustnot::clock::Moment;
use mustnot::history::Board;
use mustnot::metrics::Metrics;
use mustnot::notify::{Alerts, Ready};
use mustnot::plan::{Keys, from_text};
use mustnot::record::{About, Record};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::fixture::{about, held, unproven, violated};
use crate::monitor::Monitor;
use crate::rules::{Alertmanager, PATIENCE};

/// How often is looked whether something has come; never how long it should take.
const GLANCE: Duration = Duration::from_millis(10);

/// A request that came in.
#[derive(Debug, Clone)]
struct Request {
    at: Instant,
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// What a peer does with a request.
#[derive(Debug, Clone)]
enum Does {
    Answer(u16, &'static str),
    /// Refuses, and says what it was asked.
    Repeat,
    /// Refuses with this.
    Say(&'static str),
    Cut,
    Hang,
}

use Does::{Answer, Cut, Hang, Repeat, Say};

type Script = Arc<dyn Fn(usize, &Request) -> Does + Send + Sync>;

/// A place that is told something, and does with it what its script says; the number of the request counts from 0.
struct Peer {
    url: String,
    heard: Arc<Mutex<Vec<Request>>>,
}

impl Peer {
    async fn new(script: impl Fn(usize, &Request) -> Does + Send + Sync + 'static) -> Peer {
        Peer::by(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, script)
    }

    fn by(
        listener: TcpListener,
        tls: Option<tokio_rustls::TlsAcceptor>,
        script: impl Fn(usize, &Request) -> Does + Send + Sync + 'static,
    ) -> Peer {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (heard, script): (Arc<Mutex<Vec<Request>>>, Script) = (Arc::default(), Arc::new(script));
        let known = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (heard, script, tls) = (Arc::clone(&known), Arc::clone(&script), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &heard, &script).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &heard, &script).await;
                            }
                        }
                    }
                });
            }
        });
        Peer { url, heard }
    }

    /// It takes everything.
    async fn good() -> Peer {
        Peer::new(|_, _| Answer(202, "")).await
    }

    fn heard(&self) -> Vec<Request> {
        self.heard.lock().unwrap().clone()
    }

    async fn until(&self, what: &str, is: impl Fn(&[Request]) -> bool) -> Vec<Request> {
        let begun = Instant::now();
        loop {
            let heard = self.heard();
            if is(&heard) {
                return heard;
            }
            assert!(begun.elapsed() < PATIENCE, "never: {what}: {heard:#?}");
            sleep(GLANCE).await;
        }
    }

    async fn requests(&self, count: usize) -> Vec<Request> {
        self.until(&format!("{count} requests"), |heard| heard.len() >= count).await
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, heard: &Mutex<Vec<Request>>, script: &Script) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines: Vec<String> = Vec::new();
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) if line.trim_end().is_empty() => break,
                Ok(_) => lines.push(line.trim_end().to_string()),
            }
        }
        let headers: Vec<(String, String)> =
            lines[1..].iter().filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut request = Request { at: Instant::now(), line: lines[0].clone(), headers, body: String::new() };
        let mut body = vec![0; request.header("content-length").parse().unwrap_or(0)];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        request.body = String::from_utf8(body).unwrap();
        let does = {
            let mut heard = heard.lock().unwrap();
            let does = script(heard.len(), &request);
            heard.push(request.clone());
            does
        };
        match does {
            Cut => return,
            Hang => sleep(Duration::from_secs(3600)).await,
            Answer(..) | Repeat | Say(_) => {
                let (status, headers) = if let Answer(status, headers) = does { (status, headers) } else { (400, "") };
                let said = format!("cannot {}\r\n{} {}", request.line, request.header("authorization"), request.body);
                let text = match does {
                    Repeat => said.as_str(),
                    Say(said) => said,
                    _ => "what was wrong",
                };
                let answer = format!("HTTP/1.1 {status} Status\r\n{headers}Content-Length: {}\r\n\r\n{text}", text.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The sinks of a configuration.
fn sinks(folder: &Path, text: &str) -> Vec<Sink> {
    let check = "[[check]]\nname = \"a\"\nkind = \"tcp\"\ntarget = \"a.example.com:443\"\nexpect = \"open\"\n";
    let env = |name: &str| Some(format!("secret-of-{name}"));
    from_text("f", &format!("vantage = \"internet\"\n{check}{text}"), folder, &env, Keys::Read)
        .unwrap_or_else(|p| panic!("{p}"))
        .plan
        .alerts
}

/// A board with checks of these names, and who tells of it.
struct World {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    folder: tempfile::TempDir,
}

impl World {
    fn new(checks: &[&str]) -> World {
        let board = Arc::new(Board::new(checks.iter().map(|name| Arc::new(about(name))).collect()));
        let metrics = Arc::new(Metrics::new("internet", Arc::clone(&board)).unwrap());
        World { board, metrics, folder: tempfile::tempdir().unwrap() }
    }

    fn tell(&self, text: &str) -> Alerts {
        Alerts::start("internet", &sinks(self.folder.path(), text), Arc::clone(&self.board), Arc::clone(&self.metrics), None).unwrap()
    }

    fn tell_and_keep(&self, text: &str) -> Alerts {
        let (board, metrics) = (Arc::clone(&self.board), Arc::clone(&self.metrics));
        Alerts::start("internet", &sinks(self.folder.path(), text), board, metrics, Some(self.folder.path())).unwrap()
    }

    /// The same place after a restart, with nothing on the board yet.
    fn restarted(self, checks: &[&str]) -> World {
        World { folder: self.folder, ..World::new(checks) }
    }

    fn metric(&self, line: &str) -> Option<f64> {
        let text = self.metrics.text().unwrap();
        text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
    }

    fn counted(&self, sink: &str) -> (f64, f64) {
        let of = |name: &str| self.metric(&format!("mustnot_alerts_{name}_total{{sink=\"{sink}\",vantage=\"internet\"}}")).unwrap();
        (of("sent"), of("failed"))
    }

    async fn until(&self, what: &str, is: impl Fn(&World) -> bool) {
        let begun = Instant::now();
        while !is(self) {
            assert!(begun.elapsed() < PATIENCE, "never: {what}");
            sleep(GLANCE).await;
        }
    }
}

async fn stop(alerts: Alerts) {
    alerts.stop(tokio::time::Instant::now() + PATIENCE).await;
}

/// What is over is told at once.
const QUICK: &str = "keep_firing_for = \"0s\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_sink_hears_that_it_is_so_and_that_it_is_over_in_its_own_words() {
    let world = World::new(&["a"]);
    let peer = Peer::good().await;
    let url = &peer.url;
    fs::write(world.folder.path().join("routing.key"), "R0UT1NG\n").unwrap();
    fs::write(world.folder.path().join("token"), "t0ken\n").unwrap();
    fs::write(world.folder.path().join("slack.url"), format!("{url}/services/T0/B0/hunter2\n")).unwrap();
    let text = format!(
        "[[alert]]\nkind = \"alertmanager\"\nurl = [\"{url}/one/\", \"{url}/two\"]\nbearer_token_file = \"token\"\nlabels = {{ job = \"mustnot\" }}\n{QUICK}
         [[alert]]\nkind = \"pagerduty\"\nurl = \"{url}/enqueue\"\nrouting_key_file = \"routing.key\"\n{QUICK}
         [[alert]]\nkind = \"slack\"\nurl_file = \"slack.url\"\n{QUICK}
         [[alert]]\nkind = \"datadog\"\nurl = \"{url}/events\"\napi_key = \"${{DATADOG}}\"\n{QUICK}
         [[alert]]\nname = \"all\"\nkind = \"webhook\"\nurl = \"{url}/all\"\nheaders = {{ X-Team = \"blue\" }}\n{QUICK}
         [[alert]]\nname = \"some\"\nkind = \"webhook\"\nurl = \"{url}/some\"\nbody = '{{\"text\": {{{{ status ~ \" \" ~ check }}}}, \"by_hand\": {{{{ reproduce }}}}}}'\n{QUICK}"
    );
    let alerts = world.tell(&text);
    let zero = ["alertmanager", "pagerduty", "slack", "datadog", "all", "some"];
    assert!(zero.iter().all(|sink| world.counted(sink) == (0.0, 0.0)), "from the start");
    let mut record = violated("a");
    record.reproduce = Some("curl -d '\"<x>\\' http://a & b".into());
    world.board.publish(0, record);
    peer.requests(7).await;
    world.board.publish(0, held("a"));
    let heard = peer.requests(14).await;
    stop(alerts).await;
    let to = |path: &str| heard.iter().filter(|r| r.line == format!("POST {path} HTTP/1.1")).cloned().collect::<Vec<Request>>();
    let two = |path: &str| <[Request; 2]>::try_from(to(path)).unwrap_or_else(|r| panic!("{path}: {r:#?}"));

    for path in ["/one/api/v2/alerts", "/two/api/v2/alerts"] {
        let [opened, over] = two(path);
        assert_eq!((opened.header("authorization"), opened.header("content-type")), ("Bearer t0ken", "application/json"));
        let alert = &opened.json()[0];
        let labels = json!({ "alertname": "MustnotViolated", "check": "a", "excepted": "false", "job": "mustnot", "kind": "tcp", "severity": "critical",
            "target": "admin.example.com:443", "vantage": "internet", "verdict": "violated" });
        assert_eq!(alert["labels"], labels);
        assert_eq!(alert["annotations"]["runbook_url"], "docs/runbook.md#mustnotviolated");
        assert_eq!(over.json()[0]["labels"], labels);
        let ends = |value: &Value| mustnot::clock::Wall::parse(value["endsAt"].as_str().unwrap()).unwrap();
        let now = mustnot::clock::Wall::now();
        assert!(ends(alert).since(now) > Duration::from_secs(600), "it stands for a while: {alert}");
        assert!(ends(&over.json()[0]) <= now, "it is over");
    }
    let [opened, over] = two("/enqueue");
    assert_eq!(opened.json()["routing_key"], "R0UT1NG");
    assert_eq!((&opened.json()["event_action"], &over.json()["event_action"]), (&json!("trigger"), &json!("resolve")));
    assert_eq!(opened.json()["dedup_key"], over.json()["dedup_key"]);
    assert_eq!(opened.json()["payload"]["severity"], "critical");
    assert_eq!(opened.json()["payload"]["summary"], "a: admin.example.com:443 is not as it must be, seen from internet.");
    let [opened, over] = two("/services/T0/B0/hunter2");
    let text = opened.json()["attachments"][0]["text"].as_str().unwrap().to_string();
    assert!(opened.json()["text"].as_str().unwrap().starts_with("[CRITICAL] a: "), "{}", opened.body);
    assert!(text.contains("by hand: `curl -d '\"&lt;x&gt;\\' http://a &amp; b`"), "{text}");
    assert!(over.json()["text"].as_str().unwrap().starts_with("[RESOLVED] a: "), "{}", over.body);
    let [opened, over] = two("/events");
    assert_eq!(opened.header("dd-api-key"), "secret-of-DATADOG");
    assert_eq!((&opened.json()["alert_type"], &over.json()["alert_type"]), (&json!("error"), &json!("success")));
    assert_eq!(opened.json()["aggregation_key"], over.json()["aggregation_key"]);
    assert!(opened.json()["aggregation_key"].as_str().unwrap().len() <= 100);
    let [opened, over] = two("/all");
    assert_eq!(opened.header("x-team"), "blue");
    assert_eq!((&opened.json()["status"], &over.json()["status"]), (&json!("firing"), &json!("resolved")));
    assert_eq!(opened.json()["reason"], "203.0.113.7:443 accepted a TCP connection after 12 ms");
    let [opened, over] = two("/some");
    assert_eq!(opened.json(), json!({ "text": "firing a", "by_hand": "curl -d '\"<x>\\' http://a & b" }));
    assert_eq!(over.json()["text"], "resolved a");
    assert_eq!((world.counted("alertmanager"), world.counted("some")), ((4.0, 0.0), (2.0, 0.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_fails_in_every_way_is_told_in_the_end_and_holds_up_no_other() {
    let world = World::new(&["a"]);
    let bad = Peer::new(|n, _| match n {
        // longer than the first pause would be
        0 => Answer(429, "Retry-After: 3\r\n"),
        1 => Answer(500, ""),
        2 => Cut,
        3 => Hang,
        4 => Answer(503, ""),
        _ => Answer(202, ""),
    })
    .await;
    let good = Peer::good().await;
    let sink =
        |name: &str, url: &str| format!("[[alert]]\nname = \"{name}\"\nkind = \"webhook\"\nurl = \"{url}/\"\ntimeout = \"500ms\"\n{QUICK}");
    let alerts = world.tell(&(sink("bad", &bad.url) + &sink("good", &good.url)));
    world.board.publish(0, violated("a"));
    good.requests(1).await;
    let begun = Instant::now();
    world.board.publish(0, held("a"));
    good.requests(2).await;
    assert!(bad.heard().len() < 6, "the other one is still at it, {:?} later", begun.elapsed());
    let heard = bad.requests(7).await;
    assert!(heard[1].at.duration_since(heard[0].at) >= Duration::from_secs(3), "who asks to wait is waited for");
    let told: Vec<String> = heard.iter().map(|r| r.json()["status"].as_str().unwrap().to_string()).collect();
    assert_eq!(told, ["firing", "firing", "firing", "firing", "firing", "firing", "resolved"]);
    world.until("all is counted", |w| w.counted("bad") == (2.0, 5.0)).await;
    assert_eq!(world.counted("good"), (2.0, 0.0));
    stop(alerts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_counted_once_and_takes_nothing_with_it() {
    let world = World::new(&["bad", "good"]);
    let refuses = |_, request: &Request| if request.body.contains("\"bad\"") { Answer(400, "") } else { Answer(200, "") };
    let (one, many) = (Peer::new(refuses).await, Peer::new(refuses).await);
    let text = format!(
        "[[alert]]\nkind = \"webhook\"\nurl = \"{}\"\n[[alert]]\nkind = \"alertmanager\"\nurl = \"{}\"\nrepeat_interval = \"1s\"\n",
        one.url, many.url
    );
    // both are there at the first look, so that an Alertmanager is told of both at once
    world.board.publish(0, violated("bad"));
    world.board.publish(1, violated("good"));
    let alerts = world.tell(&text);
    let about_good = |heard: &[Request]| heard.iter().any(|r| r.body.contains("\"good\"") && !r.body.contains("\"bad\""));
    one.until("the good one is told", about_good).await;
    many.until("the good one is told", about_good).await;
    // repeated three times, and each time without the one that was refused
    let heard = many.until("it goes on", |heard| heard.len() >= 6).await;
    assert_eq!(heard[0].json().as_array().map(Vec::len), Some(2), "told of both at once: {heard:#?}");
    let refused = |peer: &Peer| peer.heard().iter().filter(|r| r.body.contains("\"bad\"")).count();
    assert_eq!(refused(&one), 1, "not again at once");
    assert!(refused(&many) <= 2, "with the others, and alone: {:#?}", many.heard());
    assert_eq!(world.counted("webhook"), (1.0, 1.0));
    assert!(world.counted("alertmanager").1 <= 2.0);
    stop(alerts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_announced_and_is_over_before_anybody_looks_is_told() {
    let world = World::new(&["a"]);
    let peer = Peer::good().await;
    world.board.announce(0, violated("a"));
    world.board.publish(0, held("a"));
    let alerts = world.tell(&format!("[[alert]]\nkind = \"webhook\"\nurl = \"{}\"\n{QUICK}", peer.url));
    let told: Vec<Value> = peer.requests(2).await.iter().map(|r| r.json()["status"].clone()).collect();
    assert_eq!(told, ["firing", "resolved"]);
    stop(alerts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_followed_by_nobody() {
    let world = World::new(&["a"]);
    let there = Peer::good().await;
    let location: &'static str = format!("Location: {}/\r\n", there.url).leak();
    let here = Peer::new(move |_, _| Answer(307, location)).await;
    let alerts = world.tell(&format!("[[alert]]\nkind = \"webhook\"\nurl = \"{}\"\n", here.url));
    world.board.publish(0, violated("a"));
    here.requests(1).await;
    world.until("it is counted", |w| w.counted("webhook") == (0.0, 1.0)).await;
    assert_eq!(there.heard().len(), 0);
    alerts.stop(tokio::time::Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_of_an_outage_loses_nothing() {
    let world = World::new(&["a"]);
    let down = Peer::new(|_, _| Answer(500, "")).await;
    let text = |peer: &Peer| format!("[[alert]]\nkind = \"webhook\"\nurl = \"{}/x\"\n{QUICK}", peer.url);
    let sink = text(&down);
    let alerts = world.tell_and_keep(&sink);
    world.board.publish(0, violated("a"));
    down.requests(1).await;
    let begun = Instant::now();
    stop(alerts).await;
    assert!(begun.elapsed() < PATIENCE / 2, "what is kept need not be waited for");
    let kept = fs::read_to_string(world.folder.path().join("alerts.json")).unwrap();
    assert!(kept.contains("MustnotViolated") && !kept.contains("/x"), "no path, which may be a secret: {kept}");

    // up again at the same place, and the check holds since
    let world = world.restarted(&["a"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let moved = format!("http://{}", listener.local_addr().unwrap());
    let kept = kept.replace(&down.url, &moved);
    fs::write(world.folder.path().join("alerts.json"), kept).unwrap();
    let up = Peer::by(listener, None, |_, _| Answer(200, ""));
    let alerts = world.tell_and_keep(&text(&up));
    world.board.publish(0, held("a"));
    let heard = up.requests(2).await;
    assert_eq!((&heard[0].json()["status"], &heard[1].json()["status"]), (&json!("firing"), &json!("resolved")));
    stop(alerts).await;

    // and all is told: nothing is told again
    let world = world.restarted(&["a"]);
    let alerts = world.tell_and_keep(&text(&up));
    world.board.publish(0, violated("a"));
    let heard = up.requests(3).await;
    assert_eq!(heard[2].json()["status"], "firing");
    stop(alerts).await;
    let world = world.restarted(&["a"]);
    let alerts = world.tell_and_keep(&text(&up));
    world.board.publish(0, violated("a"));
    stop(alerts).await;
    assert_eq!(up.heard().len(), 3, "who was told that it is open is not told again by a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_that_is_broken_is_put_aside_and_all_is_told_anew() {
    let world = World::new(&["a"]);
    let peer = Peer::good().await;
    fs::write(world.folder.path().join("alerts.json"), "{\"known\": 5").unwrap();
    let alerts = world.tell_and_keep(&format!("[[alert]]\nkind = \"webhook\"\nurl = \"{}\"\n", peer.url));
    world.board.publish(0, violated("a"));
    peer.requests(1).await;
    stop(alerts).await;
    assert_eq!(fs::read_to_string(world.folder.path().join("alerts.json.broken")).unwrap(), "{\"known\": 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_what_is_still_to_be_told() {
    let world = World::new(&["a"]);
    let slow = Peer::new(|n, _| if n == 0 { Answer(500, "") } else { Answer(200, "") }).await;
    let alerts = world.tell(&format!("[[alert]]\nkind = \"webhook\"\nurl = \"{}\"\n", slow.url));
    world.board.publish(0, violated("a"));
    stop(alerts).await;
    assert_eq!(slow.heard().len(), 2, "without a state_dir it is tried to the end");

    let world = World::new(&["a"]);
    let never = Peer::new(|_, _| Answer(500, "")).await;
    let alerts = world.tell(&format!("[[alert]]\nkind = \"webhook\"\nurl = \"{}\"\n", never.url));
    world.board.publish(0, violated("a"));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
    alerts.stop(deadline).await;
    assert!(tokio::time::Instant::now() >= deadline && !never.heard().is_empty(), "and no longer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_did_not_change() {
    let world = World::new(&["a"]);
    let (stays, leaves, comes) = (Peer::good().await, Peer::good().await, Peer::good().await);
    let sink =
        |name: &str, peer: &Peer, rest: &str| format!("[[alert]]\nname = \"{name}\"\nkind = \"webhook\"\nurl = \"{}\"\n{rest}", peer.url);
    let alerts = world.tell(&(sink("stays", &stays, QUICK) + &sink("leaves", &leaves, QUICK)));
    world.board.publish(0, violated("a"));
    stays.requests(1).await;
    leaves.requests(1).await;
    let after = sinks(
        world.folder.path(),
        &(sink("stays", &stays, "min_severity = \"critical\"\nkeep_firing_for = \"0s\"\n") + &sink("comes", &comes, QUICK)),
    );
    alerts.reload(Ready::all(&after).unwrap());
    // who is new hears what is open
    assert_eq!(comes.requests(1).await[0].json()["status"], "firing");
    assert_eq!(world.metric("mustnot_alerts_sent_total{sink=\"leaves\""), None, "a sink that is gone leaves no series");
    assert_eq!(world.counted("stays"), (1.0, 0.0));
    world.board.publish(0, held("a"));
    assert_eq!(comes.requests(2).await[1].json()["status"], "resolved");
    assert_eq!(stays.requests(2).await[1].json()["status"], "resolved", "it knew what was open");
    stop(alerts).await;
    assert_eq!((stays.heard().len(), leaves.heard().len(), comes.heard().len()), (2, 1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heart_beats_while_all_is_fresh_and_not_a_moment_longer() {
    let peer = Peer::good().await;
    let text = format!("[[alert]]\nkind = \"heartbeat\"\nurl = \"{}/ping\"\ninterval = \"1s\"\n", peer.url);
    let brief = |name: &str| About { stale_after: Duration::from_secs(8), ..about(name) };
    let board = Arc::new(Board::new(vec![Arc::new(brief("a"))]));
    let metrics = Arc::new(Metrics::new("internet", Arc::clone(&board)).unwrap());
    let world = World { board, metrics, folder: tempfile::tempdir().unwrap() };
    let alerts = world.tell(&text);
    let begun = Moment::now();
    world.board.publish(0, Record { about: Arc::new(brief("a")), began: begun, ..held("a") });
    let heard = peer.requests(2).await;
    assert!(heard.iter().all(|r| r.line == "GET /ping HTTP/1.1"));
    // nobody looks any more, as where the engine hangs
    world.until("it is stale", |w| !w.board.read(Moment::now())[0].fresh).await;
    let before = peer.heard().len();
    sleep(Duration::from_secs(4)).await;
    let after = peer.heard().len();
    assert!(after <= before + 1, "one may have been on its way; a wedged engine is not alive: {before} {after}");
    world.board.publish(0, Record { about: Arc::new(brief("a")), began: Moment::now(), ..violated("a") });
    peer.requests(after + 1).await;
    assert!(world.counted("heartbeat").0 >= 3.0);
    stop(alerts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_where_it_is_named_and_nowhere_else() {
    let world = World::new(&["a"]);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().self_signed(&key).unwrap();
    fs::write(world.folder.path().join("ca.pem"), certificate.pem()).unwrap();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = Peer::by(listener, Some(tokio_rustls::TlsAcceptor::from(Arc::new(config))), |_, _| Answer(200, ""));
    let sink = |name: &str, rest: &str| format!("[[alert]]\nname = \"{name}\"\nkind = \"webhook\"\nurl = \"{}\"\n{rest}", peer.url);
    let alerts = world.tell(&(sink("trusts", "ca_file = \"ca.pem\"\n") + &sink("doubts", "")));
    world.board.publish(0, violated("a"));
    world.until("both were tried", |w| w.counted("trusts") == (1.0, 0.0) && w.counted("doubts").1 >= 1.0).await;
    assert_eq!((world.counted("doubts").0, peer.heard().len()), (0.0, 1));
    alerts.stop(tokio::time::Instant::now()).await;
}

/// A place that is replaced because it did not take anything: what happened meanwhile, and is over, must be heard at the new one.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_place_before_has_not_taken_is_told_to_the_one_in_its_stead() {
    let sink =
        |key: &str, peer: &Peer| format!("[[alert]]\nkind = \"pagerduty\"\nurl = \"{}\"\nrouting_key = \"${{{key}}}\"\n{QUICK}", peer.url);
    let told = |heard: &[Request]| -> Vec<String> {
        let new = heard.iter().filter(|r| r.body.contains("secret-of-NEW"));
        new.map(|r| {
            format!("{} {}", r.json()["event_action"], r.json()["dedup_key"])
                .replace('"', "")
                .split('/')
                .take(4)
                .collect::<Vec<_>>()
                .join("/")
        })
        .collect()
    };
    let wrong = |_, request: &Request| if request.body.contains("secret-of-NEW") { Answer(202, "") } else { Answer(401, "") };
    let expected = ["trigger mustnot/internet/MustnotViolated/over", "trigger mustnot/internet/MustnotViolated/still"];
    for restart in [false, true] {
        let mut world = World::new(&["over", "still"]);
        let peer = Peer::new(wrong).await;
        let mut alerts = world.tell_and_keep(&sink("OLD", &peer));
        world.board.publish(0, violated("over"));
        world.board.publish(1, violated("still"));
        peer.until("both were refused", |heard| {
            ["over", "still"].iter().all(|name| heard.iter().any(|r| r.body.contains(&format!("/{name}/"))))
        })
        .await;
        world.board.publish(0, held("over"));
        let kept = world.folder.path().join("alerts.json");
        world.until("its end waits too", |_| fs::read_to_string(&kept).is_ok_and(|kept| kept.contains("\"resolved\":"))).await;
        if restart {
            stop(alerts).await;
            world = world.restarted(&["over", "still"]);
            world.board.publish(0, held("over"));
            world.board.publish(1, violated("still"));
            alerts = world.tell_and_keep(&sink("NEW", &peer));
        } else {
            alerts.reload(Ready::all(&sinks(world.folder.path(), &sink("NEW", &peer))).unwrap());
        }
        let heard = peer.until("all is told", |heard| told(heard).len() >= 3).await;
        let mut first: Vec<String> = told(&heard)[..2].to_vec();
        first.sort();
        assert_eq!(first, expected, "restart: {restart}");
        assert_eq!(told(&heard)[2], "resolve mustnot/internet/MustnotViolated/over", "restart: {restart}");
        world.board.publish(1, held("still"));
        let heard = peer.until("the other end", |heard| told(heard).len() >= 4).await;
        assert_eq!(told(&heard)[3], "resolve mustnot/internet/MustnotViolated/still", "restart: {restart}");
        stop(alerts).await;
        let kept = fs::read_to_string(world.folder.path().join("alerts.json")).unwrap();
        assert!(!kept.contains("secret-of"), "{kept}");
    }
}

/// Another key of the same sink leads to somebody else, who has heard of nothing yet.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_by_another_key_hears_what_is_open() {
    let sink = |key: &str, peer: &Peer| format!("[[alert]]\nkind = \"datadog\"\nurl = \"{}\"\napi_key = \"${{{key}}}\"\n{QUICK}", peer.url);
    let world = World::new(&["a"]);
    let peer = Peer::good().await;
    let alerts = world.tell_and_keep(&sink("OLD", &peer));
    world.board.publish(0, violated("a"));
    peer.requests(1).await;
    stop(alerts).await;
    let world = world.restarted(&["a"]);
    world.board.publish(0, violated("a"));
    let alerts = world.tell_and_keep(&sink("NEW", &peer));
    let heard = peer.requests(2).await;
    assert_eq!((heard[1].header("dd-api-key"), &heard[1].json()["alert_type"]), ("secret-of-NEW", &json!("error")));
    stop(alerts).await;
    // and who has is not told again
    let world = world.restarted(&["a"]);
    world.board.publish(0, violated("a"));
    let alerts = world.tell_and_keep(&sink("NEW", &peer));
    stop(alerts).await;
    assert_eq!(peer.heard().len(), 2);
}

/// Renamed while it was down: the place is the same, and what it has not taken is told there, also what is over by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_renamed_over_a_restart_hears_what_it_has_not_taken() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let peer = Peer::new(move |_, _| Answer(if is_up.load(Ordering::SeqCst) { 200 } else { 500 }, "")).await;
    let sink = |name: &str| format!("[[alert]]\nname = \"{name}\"\nkind = \"webhook\"\nurl = \"{}/x\"\n{QUICK}", peer.url);
    let world = World::new(&["a"]);
    let alerts = world.tell_and_keep(&sink("before"));
    world.board.publish(0, violated("a"));
    peer.requests(1).await;
    stop(alerts).await;
    let told = peer.heard().len();
    up.store(true, Ordering::SeqCst);
    let world = world.restarted(&["a"]);
    world.board.publish(0, held("a"));
    let alerts = world.tell_and_keep(&sink("after"));
    let heard = peer.requests(told + 2).await;
    assert_eq!((&heard[told].json()["status"], &heard[told + 1].json()["status"]), (&json!("firing"), &json!("resolved")));
    stop(alerts).await;
}

/// The disk is full: what is told is told, and what must survive is written as soon as it can be.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_told_all_the_same_and_written_later() {
    let world = World::new(&["a"]);
    let peer = Peer::new(|_, _| Hang).await;
    let full = world.folder.path().join("alerts.json.new");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let alerts = world.tell_and_keep(&format!("[[alert]]\nkind = \"webhook\"\nurl = \"{}\"\ntimeout = \"1h\"\n", peer.url));
    world.board.publish(0, violated("a"));
    peer.requests(1).await;
    // It is written at the same time; after a moment that has failed, and nothing happens any more that would be a reason to write.
    sleep(GLANCE * 30).await;
    assert!(!world.folder.path().join("alerts.json").exists());
    fs::remove_file(&full).unwrap();
    let kept = || fs::read_to_string(world.folder.path().join("alerts.json")).unwrap_or_default();
    world.until("it is written after all", |_| kept().contains("MustnotViolated")).await;
    alerts.stop(tokio::time::Instant::now()).await;

    // and at the end, however short a while ago it failed
    let world = world.restarted(&["b"]);
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    world.board.publish(0, violated("b"));
    let alerts = world.tell_and_keep(&format!("[[alert]]\nkind = \"webhook\"\nurl = \"{}\"\ntimeout = \"1h\"\n", peer.url));
    peer.requests(2).await;
    sleep(GLANCE * 30).await;
    fs::remove_file(&full).unwrap();
    alerts.stop(tokio::time::Instant::now()).await;
    let kept = fs::read_to_string(world.folder.path().join("alerts.json")).unwrap();
    assert!(kept.contains("\"check\":\"b\""), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_of_another_form_or_that_cannot_be_read_is_put_aside() {
    type Put<'a> = (&'a str, &'a dyn Fn(&Path));
    let put: [Put; 3] = [
        ("of a newer program", &|path| fs::write(path, "{\"version\": 2, \"known\": {}, \"sinks\": {}}").unwrap()),
        ("not text", &|path| fs::write(path, [0xff, 0xfe, 0]).unwrap()),
        ("not a file", &|path| fs::create_dir(path).unwrap()),
    ];
    for (what, put) in put {
        let world = World::new(&["a"]);
        let peer = Peer::good().await;
        put(&world.folder.path().join("alerts.json"));
        let alerts = world.tell_and_keep(&format!("[[alert]]\nkind = \"webhook\"\nurl = \"{}\"\n", peer.url));
        world.board.publish(0, violated("a"));
        peer.requests(1).await;
        stop(alerts).await;
        assert!(world.folder.path().join("alerts.json.broken").exists(), "{what}");
        let kept = fs::read_to_string(world.folder.path().join("alerts.json")).unwrap();
        assert!(kept.starts_with("{\"version\":1,") && kept.contains("MustnotViolated"), "{what}: {kept}");
    }
}

/// Who has mended what was refused, and tells the monitor, does not wait for the next of its tries.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_tries_at_once_what_was_refused() {
    let world = World::new(&["a"]);
    let peer = Peer::new(|_, request| if request.header("x-team").is_empty() { Answer(403, "") } else { Answer(200, "") }).await;
    let sink = |rest: &str| format!("[[alert]]\nkind = \"webhook\"\nurl = \"{}\"\n{rest}", peer.url);
    let alerts = world.tell(&sink(""));
    world.board.publish(0, violated("a"));
    world.until("it is refused", |w| w.counted("webhook") == (0.0, 1.0)).await;
    alerts.reload(Ready::all(&sinks(world.folder.path(), &sink("headers = { X-Team = \"blue\" }\n"))).unwrap());
    world.until("it is taken", |w| w.counted("webhook") == (1.0, 1.0)).await;
    stop(alerts).await;
}

/// One message of many is refused, and then nobody answers: each of the others would wait for a whole time-out.
#[tokio::test(flavor = "multi_thread")]
async fn who_stops_answering_in_the_middle_is_not_asked_for_each_of_the_rest() {
    let names: Vec<String> = (0..20).map(|n| format!("c{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = World::new(&names);
    for (number, name) in names.iter().enumerate() {
        world.board.publish(number, violated(name));
    }
    let peer = Peer::new(|n, _| match n {
        0 => Answer(400, ""),
        1 => Answer(200, ""),
        2 => Answer(500, ""),
        _ => Answer(200, ""),
    })
    .await;
    let alerts = world.tell(&format!("[[alert]]\nkind = \"alertmanager\"\nurl = \"{}\"\n", peer.url));
    let heard = peer.requests(4).await;
    let told: Vec<usize> = heard.iter().map(|r| r.json().as_array().unwrap().len()).collect();
    assert_eq!(told[..4], [20, 1, 1, 19], "{heard:#?}");
    world.until("all is told", |w| w.counted("alertmanager") == (20.0, 1.0)).await;
    stop(alerts).await;
}

/// What is sent with a request must not come back in a log, in whichever part of it the other side repeats it.
#[tokio::test(flavor = "multi_thread")]
async fn no_part_of_a_secret_is_shown_by_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let tell: [(&str, &str, &str); 6] = [
        ("url = \"URL/hooks/0123456789abcdef0123/x\"", "no such hook: 0123456789abcdef0123", "0123456789abcdef0123"),
        ("url = \"URL/hook?key=q1w2e3r4\"", "the key q1w2e3r4 is unknown", "q1w2e3r4"),
        ("url = \"URL/\"\nbearer_token_file = \"file\"", "invalid token: t0pS3cret", "t0pS3cret"),
        ("url = \"URL/\"\nuser = \"ann\"\npassword_file = \"file\"", "ann may not come in with t0pS3cret", "t0pS3cret"),
        ("url = \"URL/\"\nheaders = { Authorization = \"Token t0pS3cret\" }", "t0pS3cret?", "t0pS3cret"),
        ("url = \"URL/\"\nbody = '{\"token\": \"${APP}\", \"text\": {{ summary }}}'", "bad token hunter2-app", "hunter2-app"),
    ];
    fs::write(folder.path().join("file"), "t0pS3cret\n").unwrap();
    for (keys, said, secret) in tell {
        let peer = Peer::new(move |_, _| Say(said)).await;
        let done = drill(folder.path(), &format!("[[alert]]\nkind = \"webhook\"\n{}\n", keys.replace("URL", &peer.url))).await;
        let shown = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(shown.contains("answered 400 Bad Request: ") && shown.contains("***"), "{keys}: {shown}");
        assert!(!shown.contains(secret), "{keys}: {shown}");
    }
    let all = sinks(folder.path(), &format!("[[alert]]\nkind = \"webhook\"\n{}\n", tell[5].0.replace("URL", "http://127.0.0.1:1")));
    assert!(!format!("{all:?}").contains("secret-of-APP"), "{all:?}");
}

/// The program itself: what an excepted check tells, what `/config` shows, and what a reload over the wire changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_runs_tells_shows_and_reloads_its_sinks() {
    let peer = Peer::good().await;
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = &peer.url;
    let text = format!(
        "vantage = \"v\"\nstate_dir = \"state\"\n[web]\nlisten = \"127.0.0.1:0\"\n\
         [[alert]]\nname = \"all\"\nkind = \"webhook\"\nurl = \"{url}/all/hunter2-path\"\nheaders = {{ X-Key = \"hunter2-header\" }}\n\
         [[alert]]\nname = \"own\"\nkind = \"webhook\"\nurl = \"{url}/own\"\nbody = '{{\"app\": \"hunter2-body\", \"text\": {{{{ summary }}}}}}'\n\
         [[alert]]\nkind = \"pagerduty\"\nurl = \"{url}/pager\"\nrouting_key = \"${{MUSTNOT_TEST_PAGER}}\"\n\
         [[alert]]\nkind = \"datadog\"\nurl = \"{url}/dog\"\napi_key_file = \"dog.key\"\n\
         [[check]]\nname = \"closed\"\nkind = \"tcp\"\ntarget = \"{}\"\nexpect = \"blocked\"\nwitness = []\nrequire = []\ninterval = \"1h\"\n\
         [[exception]]\ncheck = \"closed\"\nreason = \"OPS-1\"\nowner = \"alice\"\nuntil = 2099-12-31\n",
        open.local_addr().unwrap()
    );
    let start = {
        let text = text.clone();
        move || {
            Monitor::with_env(&text, &[("MUSTNOT_TEST_PAGER", "hunter2-env")], |folder| {
                fs::write(folder.join("dog.key"), "hunter2-old").unwrap()
            })
        }
    };
    let monitor = Arc::new(tokio::task::spawn_blocking(start).await.unwrap());
    let of =
        |heard: &[Request], path: &str| heard.iter().filter(|r| r.line.starts_with(&format!("POST {path}"))).cloned().collect::<Vec<_>>();
    let heard = peer.requests(4).await;
    let alert = of(&heard, "/all")[0].json();
    assert_eq!((&alert["labels"]["excepted"], &alert["check"]), (&json!("true"), &json!("closed")));
    assert_eq!(alert["annotations"]["exception"], "by alice until the end of 2099-12-31 (UTC): OPS-1");
    assert_eq!(of(&heard, "/dog")[0].header("dd-api-key"), "hunter2-old");

    let ask = |path: &'static str, arguments: &'static [&'static str]| {
        let monitor = Arc::clone(&monitor);
        async move { tokio::task::spawn_blocking(move || monitor.curl(path, arguments)).await.unwrap() }
    };
    let shown = ask("/config", &[]).await;
    assert_eq!(shown.status, 200);
    assert!(!shown.body.contains("hunter2"), "{}", shown.body);
    for kept in [&format!("url = \"{url}/***\""), "api_key_file = \"dog.key\"", "name = \"own\""] {
        assert!(shown.body.contains(kept), "{kept}: {}", shown.body);
    }
    let metrics = ask("/metrics", &[]).await.body;
    assert!(metrics.contains("mustnot_alerts_sent_total{sink=\"all\",vantage=\"v\"} 1") && !metrics.contains("hunter2"), "{metrics}");

    let post: &'static [&'static str] = &["-X", "POST"];
    fs::remove_file(monitor.path("dog.key")).unwrap();
    let bad = ask("/-/reload", post).await;
    assert_eq!(bad.status, 500);
    assert!(bad.body.contains("alert \"datadog\".api_key_file: ") && bad.body.contains("cannot be read"), "{}", bad.body);
    fs::write(monitor.path("dog.key"), "hunter2-new").unwrap();
    let good = ask("/-/reload", post).await;
    assert_eq!((good.status, good.body.as_str()), (200, "reloaded: the checks are the same\n"));
    // who is told by another key has heard of nothing; the others have
    let heard = peer.requests(5).await;
    assert_eq!(of(&heard, "/dog").iter().map(|r| r.header("dd-api-key")).collect::<Vec<_>>(), ["hunter2-old", "hunter2-new"]);
    assert_eq!((of(&heard, "/all").len(), of(&heard, "/own").len(), of(&heard, "/pager").len()), (1, 1, 1), "{heard:#?}");
    let said = monitor.said() + &monitor.logged();
    assert!(!said.contains("hunter2"), "{said}");
}

/// `mustnot drill --alert` by the program itself, with proxies in its environment that nobody must ask.
async fn drill(folder: &Path, text: &str) -> Output {
    let check = "[[check]]\nname = \"a\"\nkind = \"tcp\"\ntarget = \"a.example.com:443\"\nexpect = \"open\"\n";
    fs::write(folder.join("probes.toml"), format!("vantage = \"internet\"\n{check}{text}")).unwrap();
    let folder = folder.to_path_buf();
    let program = move || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_mustnot"));
        program
            .args(["drill", "--kind", "tcp", "--alert"])
            .current_dir(folder)
            .env("PAGER", "hunter2-the-key")
            .env("HOOK", "hunter3")
            .env("APP", "hunter2-app");
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            program.env(proxy, "http://127.0.0.1:1");
        }
        program.output().unwrap()
    };
    tokio::task::spawn_blocking(program).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_sends_a_test_alert_through_every_sink_and_says_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (Peer::good().await, Peer::new(|_, _| Answer(403, "")).await);
    let pager = |peer: &Peer| {
        format!(
            "[[alert]]\nname = \"pager\"\nkind = \"pagerduty\"\nurl = \"{}/v2\"\nrouting_key = \"${{PAGER}}\"\nmin_severity = \"critical\"\n",
            peer.url
        )
    };
    let heart = format!("[[alert]]\nkind = \"heartbeat\"\nurl = \"{}/beat\"\n", good.url);
    let done = drill(folder.path(), &(pager(&good) + &heart)).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(0), "{said} {}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains(&format!("alerts to pager (pagerduty {}): taken with status 202", good.url)), "{said}");
    assert!(said.contains("not told: only a monitor that runs"), "{said}");
    let heard = good.heard();
    assert_eq!(heard.len(), 2, "{heard:#?}");
    assert_eq!((&heard[0].json()["event_action"], &heard[1].json()["event_action"]), (&json!("trigger"), &json!("resolve")));
    assert_eq!(heard[0].json()["payload"]["custom_details"]["labels"]["test"], "true");
    assert_eq!(heard[0].json()["payload"]["severity"], "info", "nobody is woken by a test");

    let slack = format!("[[alert]]\nkind = \"slack\"\nurl = \"{}/services/${{HOOK}}\"\n", bad.url);
    let nobody = "[[alert]]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:1/${HOOK}\"\n";
    let done = drill(folder.path(), &(pager(&good) + &slack + nobody)).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "a breach would not be heard: {said}");
    assert!(said.contains(&format!("alerts to slack (slack {0}): FAILED: {0} answered 403 Forbidden: what was wrong", bad.url)), "{said}");
    assert!(said.contains("alerts to webhook (webhook http://127.0.0.1:1): FAILED: cannot connect: "), "{said}");
    assert!(!said.contains("hunter"), "a secret is shown: {said}");

    let repeats = Peer::new(|_, _| Repeat).await;
    let slack = format!("[[alert]]\nkind = \"slack\"\nurl = \"{}/services/${{HOOK}}\"\n", repeats.url);
    fs::write(folder.path().join("token"), "hunter4").unwrap();
    let hook = format!("[[alert]]\nkind = \"webhook\"\nurl = \"{}/x\"\nbearer_token_file = \"token\"\n", repeats.url);
    let done = drill(folder.path(), &(pager(&repeats) + &slack + &hook)).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("answered 400 Bad Request: cannot POST *** HTTP/1.1\\r\\n"), "{said}");
    assert!(!said.contains("hunter"), "a secret is shown: {said}");

    let done = drill(folder.path(), "").await;
    assert_eq!(done.status.code(), Some(2), "nobody to tell");
}

/// What the real one has of us, with what it says of each.
fn known(manager: &Alertmanager) -> Vec<Value> {
    let answer = manager.ask("GET", "/api/v2/alerts?filter=alertname%3DMustnotViolated", "").unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_alertmanager_shows_what_is_opened_repeated_and_resolved() {
    let Some(manager) = Alertmanager::start("a_real_alertmanager_shows_what_is_opened_repeated_and_resolved") else { return };
    let world = World::new(&["a", "b"]);
    let alerts =
        world.tell(&format!("[[alert]]\nkind = \"alertmanager\"\nurl = \"http://{}\"\nrepeat_interval = \"1s\"\n{QUICK}", manager.at));
    world.board.publish(0, violated("a"));
    world.board.publish(1, unproven("b"));
    world.until("it is there", |_| !known(&manager).is_empty()).await;
    let first = known(&manager);
    let [alert] = first.as_slice() else { panic!("{first:#?}") };
    assert_eq!((&alert["status"]["state"], &alert["labels"]["check"]), (&json!("active"), &json!("a")));
    assert_eq!(alert["annotations"]["reproduce"], "nc -vz 203.0.113.7 443");
    let fingerprint = alert["fingerprint"].clone();
    world.until("it is told again", |_| known(&manager).first().is_some_and(|now| now["updatedAt"] != alert["updatedAt"])).await;
    let again = known(&manager);
    assert_eq!((again.len(), &again[0]["fingerprint"], &again[0]["startsAt"]), (1, &fingerprint, &alert["startsAt"]));
    assert!(again[0]["endsAt"].as_str() > alert["endsAt"].as_str(), "it does not time out: {again:#?}");
    world.board.publish(0, held("a"));
    world.until("it is over", |_| known(&manager).is_empty()).await;
    assert!(manager.states().is_empty(), "what nobody knows is not told before its time");
    world.until("all is counted", |w| w.counted("alertmanager").0 >= 3.0).await;
    assert_eq!(world.counted("alertmanager").1, 0.0);
    stop(alerts).await;
}

//! The door: what a knock opens, for whom, for how long; and the proof that it gives a monitor.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener as Plain};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use mustnot::admin_page::AdminPage;
use mustnot::clock::{Moment, Wall};
use mustnot::expectation::{Accept, Expectation};
use mustnot::net::resolve::Resolver;
use mustnot::net::tls;
use mustnot::observation::{Attempt, Authentication, Evidence, Family, Observation, Outcome, Stage, Subject, Transport};
use mustnot::probe::{self, Probe};
use mustnot::target::parse_cidr;
use mustnot::witness::{DecoyKey, DecoyRun, Decoys, Proof, Timeline, WitnessRun};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const ALLOWED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const ALLOWED_TOO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// A port that nobody has, below the range that the kernel gives to outgoing connections (ip_local_port_range, ip(7)).
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + (std::process::id() % 100) as u16 * 100;
    (0..100)
        .map(|_| start + NEXT.fetch_add(1, Ordering::Relaxed) % 100)
        .find(|port| Plain::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
        .unwrap()
}

/// A page with a door, both running.
struct House {
    page: SocketAddr,
    door: SocketAddrV4,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl House {
    fn new() -> House {
        let door = SocketAddrV4::new(ALLOWED, free_port());
        let allow = vec![parse_cidr("127.0.0.0/30").unwrap()];
        let page = AdminPage::bind("127.0.0.1:0".parse().unwrap(), allow).unwrap().with_door(door);
        let (stop, stopped) = watch::channel(false);
        House { page: page.address(), door, stop, task: tokio::spawn(page.run(stopped, Duration::ZERO)) }
    }

    /// What the page says to a knock.
    async fn knock(&self, from: Ipv4Addr) -> String {
        get(connect(self.page, from).await.unwrap(), "/door").await
    }

    async fn visit(&self, from: Ipv4Addr) -> std::io::Result<TcpStream> {
        connect(self.door.into(), from).await
    }

    fn opened(&self) -> String {
        format!("HTTP/1.1 303 See Other\r\nLocation: http://{}/\r\n", self.door)
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

async fn connect(to: SocketAddr, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddrV4::new(from, 0).into()).unwrap();
    socket.connect(to).await
}

async fn get(mut stream: TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[track_caller]
fn assert_refused(tried: std::io::Result<TcpStream>, why: &str) {
    assert_eq!(tried.map(|s| s.local_addr()).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused, "{why}");
}

#[tokio::test]
async fn a_knock_opens_the_door_for_one_visit() {
    let house = House::new();
    for from in [ALLOWED, ALLOWED_TOO, ALLOWED] {
        assert_refused(house.visit(from).await, "nobody has knocked");
        let answer = house.knock(from).await;
        assert!(answer.starts_with(&house.opened()), "{answer}");
        let visit = house.visit(from).await.unwrap();
        // The first visitor has not said a word yet.
        sleep(Duration::from_millis(20)).await;
        assert_refused(house.visit(from).await, "one visit a knock");
        let page = get(visit, "/").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert_refused(house.visit(from).await, "the visit is over");
    }
    house.stop().await;
}

#[tokio::test]
async fn a_stranger_cannot_open_it() {
    let house = House::new();
    assert!(house.knock(STRANGER).await.starts_with("HTTP/1.1 403 Forbidden\r\n"));
    assert_refused(house.visit(STRANGER).await, "nothing was opened");
    assert_refused(house.visit(ALLOWED).await, "for nobody");
    house.stop().await;
}

#[tokio::test]
async fn a_stranger_is_not_let_in_while_it_is_open_for_another() {
    let house = House::new();
    for other in [STRANGER, ALLOWED_TOO] {
        assert!(house.knock(ALLOWED).await.starts_with(&house.opened()));
        let tried = Instant::now();
        let mut trying = Box::pin(house.visit(other));
        // Neither let in nor refused: the door is there, and does not hear it.
        let early = timeout(Duration::from_millis(300), &mut trying).await;
        assert!(early.is_err(), "{other}: {early:?}");
        assert!(get(house.visit(ALLOWED).await.unwrap(), "/").await.starts_with("HTTP/1.1 200 OK\r\n"), "it was open all the while");
        assert_refused(trying.await, "its next SYN finds the door closed");
        assert!(tried.elapsed() < Duration::from_millis(1900), "by the first retransmission: {:?}", tried.elapsed());
    }
    house.stop().await;
}

#[tokio::test]
async fn it_closes_when_nobody_comes_and_rests() {
    let house = House::new();
    assert!(house.knock(ALLOWED).await.starts_with(&house.opened()));
    let opened = Instant::now();
    sleep(Duration::from_millis(350)).await;
    let early = timeout(Duration::from_millis(50), house.visit(STRANGER)).await;
    assert!(early.is_err(), "still open: {early:?}");
    sleep(Duration::from_millis(600).saturating_sub(opened.elapsed())).await;
    assert_refused(house.visit(ALLOWED).await, "half a second is over");
    assert!(house.knock(ALLOWED_TOO).await.starts_with(&house.opened()));
    assert!(
        opened.elapsed() > Duration::from_millis(1600),
        "the next knock waits until a stranger's SYN was refused: {:?}",
        opened.elapsed()
    );
    assert!(house.visit(ALLOWED_TOO).await.is_ok());
    house.stop().await;
}

#[tokio::test]
async fn knocks_queue_and_each_gets_its_visit() {
    let house = Arc::new(House::new());
    let visits = (0..40).map(|i| {
        let house = Arc::clone(&house);
        tokio::spawn(async move {
            let from = if i % 2 == 0 { ALLOWED } else { ALLOWED_TOO };
            let answer = house.knock(from).await;
            assert!(answer.starts_with(&house.opened()), "{answer}");
            get(house.visit(from).await.unwrap(), "/").await
        })
    });
    for visit in visits.collect::<Vec<_>>() {
        assert!(visit.await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn a_door_that_another_program_holds_is_not_opened() {
    let house = House::new();
    let taken = Plain::bind(house.door).unwrap();
    let answer = house.knock(ALLOWED).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && answer.contains("cannot be opened: Address already in use"),
        "{answer}"
    );
    drop(taken);
    assert!(house.knock(ALLOWED).await.starts_with(&house.opened()));
    house.stop().await;
}

/// The address of the observation that is to be proven.
const TARGET: &str = "127.0.0.1:18022";

fn at(milliseconds: u64) -> Moment {
    Moment::after_boot(Duration::from_secs(100) + Duration::from_millis(milliseconds))
}

fn observation(dialled: &str, source: Option<&str>, outcome: Outcome, evidence: Evidence, started: u64) -> Observation {
    let to: SocketAddr = dialled.parse().unwrap();
    let subject = Subject {
        address: dialled.into(),
        named: None,
        family: Some(Family::V4),
        dialled: Some(to),
        reached: Some(to),
        source: source.map(|s| s.parse().unwrap()),
        transport: Transport::Tcp,
        asked: None,
        via: false,
        technique: None,
        variant: None,
    };
    let attempt = Attempt { outcome, stage: Stage::Http, evidence, started: at(started), ended: at(started + 10) };
    Observation::of(subject, vec![attempt], None, Wall::now())
}

/// A witness at 127.0.0.1:18080, led to 127.0.0.1:18022 from 127.0.0.1; and how one world differs from that.
struct World {
    led_to: Option<&'static str>,
    source: Option<&'static str>,
    local: Option<&'static str>,
    via: bool,
    outcome: Outcome,
    stranger_local: Option<&'static str>,
}

impl World {
    fn usual() -> World {
        World {
            led_to: Some(TARGET),
            source: Some("127.0.0.1"),
            local: Some("127.0.0.1:40000"),
            via: false,
            outcome: Outcome::Status(200),
            stranger_local: Some("127.0.0.66:40001"),
        }
    }

    fn shows_target(&self) -> bool {
        let parsed = |a: Option<&str>| a.map(|a| a.parse().unwrap());
        let evidence = Evidence { local_address: parsed(self.local), redirected_to: parsed(self.led_to), ..Evidence::default() };
        let mut timeline = Timeline::default();
        for started in [0, 2000] {
            let mut seen = observation("127.0.0.1:18080", self.source, self.outcome, evidence.clone(), started);
            seen.subject.via = self.via;
            let expectation = Expectation::new((200..=299).map(|s| Accept::One(Outcome::Status(s))).collect()).unwrap();
            let run = WitnessRun::new(at(started), at(started + 20), Wall::now(), vec![seen], &expectation);
            timeline.push(Arc::new(run));
        }
        let evidence = Evidence { local_address: parsed(self.stranger_local), ..Evidence::default() };
        let seen = observation(TARGET, Some("127.0.0.66"), Outcome::Refused, evidence, 1000);
        let window = Duration::from_secs(10);
        timeline.around(&seen, window, &Decoys::new(window)).is_ok_and(|proven| proven.proofs().has(Proof::Target))
    }
}

#[test]
fn a_witness_that_was_led_to_the_same_port_from_another_source_shows_target() {
    let usual = World::usual;
    let worlds = [
        ("as it should be", usual(), true),
        ("by the kernel's choice of source", World { source: None, ..usual() }, true),
        ("not led anywhere", World { led_to: None, ..usual() }, false),
        ("to another port", World { led_to: Some("127.0.0.1:18023"), ..usual() }, false),
        ("to another address", World { led_to: Some("127.0.0.2:18022"), ..usual() }, false),
        ("the same source as configured", World { source: Some("127.0.0.66"), ..usual() }, false),
        ("the same source in truth", World { source: None, local: Some("127.0.0.66:40000"), ..usual() }, false),
        ("its source unknown", World { local: None, ..usual() }, false),
        ("its source unspecified", World { local: Some("0.0.0.0:40000"), ..usual() }, false),
        ("the other source unknown", World { stranger_local: None, ..usual() }, false),
        ("through a proxy", World { via: true, ..usual() }, false),
        ("the door answered no", World { outcome: Outcome::Status(403), ..usual() }, false),
        ("the redirect was not followed", World { outcome: Outcome::Status(303), ..usual() }, false),
    ];
    for (what, world, shows) in worlds {
        assert_eq!(world.shows_target(), shows, "{what}");
    }
}

/// Where a redirect leads off this host, an interceptor there must be unmasked too, and nothing less than before.
#[test]
fn both_connections_of_a_redirect_need_their_decoys() {
    let led = |dialled: &str, to: &str, authenticated| {
        let evidence = Evidence {
            local_address: "198.51.100.5:40000".parse().ok(),
            redirected_to: to.parse().ok(),
            authenticated,
            ..Evidence::default()
        };
        observation(dialled, None, Outcome::Status(200), evidence, 0)
    };
    let ports = |seen: &Observation| Decoys::keys_for(seen).map(|key| key.port).collect::<Vec<_>>();
    let (here, there) = ("127.0.0.1:81", "203.0.113.7:82");
    assert_eq!(ports(&led(here, "127.0.0.1:83", None)), [0; 0]);
    assert_eq!(ports(&led(here, there, None)), [82]);
    assert_eq!(ports(&led(there, "127.0.0.1:83", None)), [82]);
    assert_eq!(ports(&led(there, "203.0.113.8:84", None)), [82, 84]);
    assert_eq!(ports(&led(there, "203.0.113.8:84", Some(Authentication::Tls))), [0; 0]);

    let seen = led(there, "203.0.113.8:84", None);
    let heard = |runs: &[(u16, bool)]| {
        let mut decoys = Decoys::new(Duration::from_secs(10));
        for &(port, connected) in runs {
            decoys.push(DecoyRun {
                key: DecoyKey { family: Family::V4, source: None, transport: Transport::Tcp, port, asked: None },
                started: at(0),
                ended: at(1),
                connected,
            });
        }
        decoys.intercepted(&seen)
    };
    assert_eq!(heard(&[]), None);
    assert_eq!(heard(&[(82, false)]), None, "the other was not heard");
    assert_eq!(heard(&[(82, false), (84, false)]), Some(false));
    assert_eq!(heard(&[(82, true)]), Some(true));
    assert_eq!(heard(&[(82, false), (84, false), (84, true)]), Some(true));
}

/// A monitor with its page and door: three doorkeepers, and three strangers who must be refused.
fn probes(beacon: u16, page: u16, door: u16) -> String {
    let mut text = format!(
        "vantage = \"here\"\n[beacon]\nlisten = \"127.0.0.1:{beacon}\"\nkey_file = \"beacon.key\"\n\
         [admin_page]\nlisten = \"127.0.0.1:{page}\"\nallow_from = \"127.0.0.0/28\"\ndoor = \"127.0.0.1:{door}\"\n"
    );
    for i in 1..=3 {
        text += &format!(
            "[[check]]\nname = \"stranger-{i}-alive\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:{beacon}\"\nsource = \"127.0.0.6{i}\"\nexpect = \"open\"\n\
             [[check]]\nname = \"door-{i}\"\nkind = \"http\"\ntarget = \"http://127.0.0.1:{page}/door\"\nsource = \"127.0.0.{i}\"\n\
             follow_redirects = true\nexpect = \"open\"\n\
             [[check]]\nname = \"closed-{i}\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:{door}\"\nsource = \"127.0.0.6{i}\"\nexpect = [\"refused\"]\n\
             witness = [\"stranger-{i}-alive\", \"door-{i}\"]\nrequire = [\"vantage\", \"target\"]\n"
        );
    }
    text
}

/// Runs the gate and gives its report and exit code.
async fn gate(beacon: u16, page: u16, door: u16) -> (Value, i32) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probes.toml");
    std::fs::write(&file, probes(beacon, page, door)).unwrap();
    let run = move || {
        let _folder = folder;
        Command::new(env!("CARGO_BIN_EXE_mustnot")).args(["check", "--format", "json", "--config"]).arg(&file).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (report, output.status.code().unwrap())
}

fn named<'r>(report: &'r Value, name: &str) -> &'r Value {
    report["checks"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap()
}

#[tokio::test]
async fn a_port_refused_to_strangers_is_proven_by_the_door() {
    let (beacon, page, door) = (free_port(), free_port(), free_port());
    let (report, code) = gate(beacon, page, door).await;
    assert_eq!(code, 0, "{report:#}");
    for i in 1..=3 {
        let closed = named(&report, &format!("closed-{i}"));
        assert_eq!((&closed["verdict"], &closed["proofs"]), (&json!("holds"), &json!(["vantage", "target"])), "{report:#}");
        assert_eq!(closed["observations"][0]["outcome"], "refused");
        assert_eq!(closed["observations"][0]["attempts"], 3);
        let opened = named(&report, &format!("door-{i}"));
        let reason = opened["reason"].as_str().unwrap();
        assert!(reason.contains(&format!("127.0.0.1:{page}, redirecting to 127.0.0.1:{door}, answered 200")), "{reason}");
        let evidence = &opened["observations"][0]["evidence"];
        assert_eq!(evidence["redirected_to"], format!("127.0.0.1:{door}"), "{evidence:#}");
        assert_eq!((&evidence["status"], &evidence["request"]), (&json!(200), &json!("GET / HTTP/1.1")), "of the last hop");
        assert!(evidence["local_address"].as_str().unwrap().starts_with(&format!("127.0.0.{i}:")), "{evidence:#}");
    }
}

#[tokio::test]
async fn a_listener_on_the_doors_port_is_a_violation() {
    let (beacon, page, door) = (free_port(), free_port(), free_port());
    let open = Plain::bind((ALLOWED, door)).unwrap();
    let (report, code) = gate(beacon, page, door).await;
    drop(open);
    assert_eq!(code, 1, "{report:#}");
    for i in 1..=3 {
        let closed = named(&report, &format!("closed-{i}"));
        assert_eq!((&closed["verdict"], &closed["cause"]), (&json!("violated"), &json!("open")), "{report:#}");
        let door = named(&report, &format!("door-{i}"));
        assert_eq!((&door["verdict"], &door["observations"][0]["outcome"]), (&json!("violated"), &json!("status:503")), "{report:#}");
    }
}

/// A server that answers one connection with this text, over TLS where it is given a certificate.
async fn one_answer(answer: String, tls: Option<tokio_rustls::TlsAcceptor>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((ALLOWED, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        match tls {
            Some(tls) => say(tls.accept(stream).await.unwrap(), &answer).await,
            None => say(stream, &answer).await,
        }
    });
    address
}

async fn say(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, answer: &str) {
    let mut request = [0; 1024];
    assert_ne!(stream.read(&mut request).await.unwrap(), 0);
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// A page whose certificate verifies must not vouch for where it sends us.
#[tokio::test]
async fn the_evidence_of_a_redirect_is_that_of_its_last_connection() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let server = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let options = tls::Options { ca_file: Some(ca_file), ..tls::Options::default() };
    let look = async |to: SocketAddr| {
        let probe = Probe::Http(probe::Http {
            url: format!("https://{to}/").parse().unwrap(),
            via: None,
            method: "GET".into(),
            headers: Vec::new(),
            body_contains: None,
            follow_redirects: true,
            deny_location: Vec::new(),
            prior_knowledge: false,
            variants: Vec::new(),
            tls: tls::Client::new(&options).unwrap(),
            manner: probe::Manner::Plain,
        });
        let (_, approach) = probe.subjects(to, None, Duration::from_secs(5), Resolver::System).remove(0);
        let Attempt { outcome, evidence, .. } = probe.attempt(&approach).await;
        assert_eq!(outcome, Outcome::Status(200), "{evidence:?}");
        evidence
    };
    let there = look(one_answer("HTTP/1.1 200 OK\r\n\r\n".into(), Some(acceptor.clone())).await).await;
    assert_eq!((there.authenticated, there.redirected_to), (Some(Authentication::Tls), None));

    let last = one_answer("HTTP/1.1 200 OK\r\n\r\n".into(), None).await;
    let moved = format!("HTTP/1.1 302 Found\r\nLocation: http://{last}/there\r\n\r\n");
    let led = look(one_answer(moved, Some(acceptor)).await).await;
    assert_eq!((led.authenticated, led.redirected_to, led.certificate_sha256), (None, Some(last), None));
    assert_eq!(led.request.as_deref(), Some("GET /there HTTP/1.1"));
}

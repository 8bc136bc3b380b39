//! The life of the embedded proxy: how it leaves, what it does without file descriptors or behind a full log, and what it takes over
//! while it runs. The program itself where a signal or a limit is the process's.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mustnot::proxy::{LogTarget, Reason};
use mustnot::target::PortSet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::proxy::{PATIENCE, World, assert_refused, ends, open_tunnel, read_exact, read_head, read_to_end, server, until};

/// `mustnot proxy` in a process of its own, open to loopback for loopback on all ports.
pub struct Program {
    child: Child,
    pub at: SocketAddr,
    health: SocketAddr,
    /// Where it shows its status, if it does.
    pub web: Option<SocketAddr>,
    /// Where its beacon is, if it has one.
    pub beacon: Option<SocketAddr>,
    pub folder: tempfile::TempDir,
}

impl Program {
    /// Starts it with these further lines of `[proxy]`, by a shell that first does `prelude`.
    pub fn start(prelude: &str, more: &str) -> Program {
        Program::with("proxy", prelude, more, "")
    }

    pub fn with(command: &str, prelude: &str, more: &str, rest: &str) -> Program {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("probes.toml"), Program::text(more, rest)).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", &format!("{prelude} exec \"$0\" {command} --config probes.toml"), env!("CARGO_BIN_EXE_mustnot")])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let mut heard: Vec<String> = Vec::new();
        while !heard.last().is_some_and(|line| line.contains("health ")) {
            heard.push(lines.next().unwrap_or_else(|| panic!("it ended: {}", said(&folder))));
        }
        let of = |word: &str| {
            let line = heard.iter().find(|line| line.contains(word))?;
            line.split("http://").nth(1)?.split([' ', '/']).next()?.parse().ok()
        };
        let (at, health, web, beacon) = (of("proxy  ").unwrap(), of("health ").unwrap(), of("status "), of("beacon  "));
        // what it says later must find a reader
        std::thread::spawn(move || lines.for_each(drop));
        Program { child, at, health, web, beacon, folder }
    }

    pub fn text(more: &str, rest: &str) -> String {
        format!(
            "vantage = \"v\"\n[proxy]\nlisten = \"127.0.0.1:0\"\nhealth_listen = \"127.0.0.1:0\"\nallow_from = \"127.0.0.1\"\n\
             allow_private = \"127.0.0.0/8\"\nconnect_ports = \"1-65535\"\naccess_log = \"access.log\"\n{more}\n{rest}"
        )
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub async fn tunnel(&self, to: SocketAddr) -> TcpStream {
        open_tunnel(TcpStream::connect(self.at).await.unwrap(), to, b"").await
    }

    /// Both ends of a tunnel.
    pub async fn ends(&self) -> (TcpStream, TcpStream) {
        let (listener, at) = server().await;
        let (client, accepted) = tokio::join!(self.tunnel(at), listener.accept());
        (client, accepted.unwrap().0)
    }

    /// The status, and what it says, where it is asked for its health.
    async fn health(&self) -> (u16, String) {
        health(self.health, b"").await
    }

    /// What the monitor shows there.
    pub async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.web.unwrap()).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_string()
    }

    /// The value of the series of which this is a part.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").await;
        let names: Vec<&str> = series.split(' ').collect();
        text.lines().find(|line| !line.starts_with('#') && names.iter().all(|name| line.contains(name)))?.rsplit_once(' ')?.1.parse().ok()
    }

    async fn exit_code(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(begun.elapsed() < PATIENCE * 3, "it does not end: {}", said(&self.folder));
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> Vec<String> {
        fs::read_to_string(self.folder.path().join("access.log")).unwrap().lines().map(String::from).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn said(folder: &tempfile::TempDir) -> String {
    fs::read_to_string(folder.path().join("stderr")).unwrap_or_default()
}

async fn assert_reset(stream: &mut TcpStream) {
    let read = timeout(PATIENCE * 2, stream.read_u8()).await.expect("it is ended");
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

async fn health(at: SocketAddr, header: &[u8]) -> (u16, String) {
    let mut client = TcpStream::connect(at).await.unwrap();
    client.write_all(&[header, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"].concat()).await.unwrap();
    let answer = read_to_end(&mut client).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.trim_end().to_string())
}

#[tokio::test]
async fn health_is_plain_http_with_a_proxy_header_or_without() {
    let world = World::start(|s| s.health_listen = vec!["127.0.0.1:0".parse().unwrap()]).await;
    let at = world.health.unwrap();
    let headers: [&[u8]; 4] = [
        b"",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x20\x11\x00\x07\x04\x00\x04abcd",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x01\x00\x02",
    ];
    for header in headers {
        assert_eq!(health(at, header).await, (200, "ok".into()), "{header:?}");
    }
    for (request, status) in [
        ("HEAD /healthz HTTP/1.1\r\n\r\n", "200"),
        ("GET /healthz?a=b HTTP/1.0\r\n\r\n", "200"),
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /healthz HTTP/1.1\r\n\r\n", "405"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        ("PROXY TCP4 nonsense\r\nGET /healthz HTTP/1.1\r\n\r\n", ""),
    ] {
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, client.read_to_end(&mut answer)).await.expect("an end");
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(answer.split(' ').nth(1).unwrap_or_default(), status, "{request:?}: {answer:?}");
    }
    // it is no destination: nobody outside asks this way
    assert_refused(&world.connect(at).await, 403, "address");
}

#[tokio::test]
async fn who_says_nothing_does_not_keep_a_balancer_from_asking_for_health() {
    let world = World::start(|s| s.health_listen = vec!["127.0.0.1:0".parse().unwrap()]).await;
    let at = world.health.unwrap();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    assert_eq!(health(at, b"").await, (200, "ok".into()));
    // and they are not kept for long: the first had to go for the others
    let first = silent.first_mut().unwrap();
    assert!(matches!(timeout(PATIENCE, first.read(&mut [0])).await.expect("it is closed"), Ok(0)));
}

/// SIGTERM with tunnels open: what can finish in time is not cut, what cannot is reset and logged.
#[tokio::test]
async fn it_leaves_as_a_load_balancer_needs_it() {
    let mut program = Program::start("", "drain = \"16s\"\ndrain_lead = \"8s\"\nheader_timeout = \"5m\"");
    let (listener, at) = server().await;
    let request = format!("CONNECT {at} HTTP/1.1\r\n\r\n");
    let mut halfway = TcpStream::connect(program.at).await.unwrap();
    halfway.write_all(&request.as_bytes()[..20]).await.unwrap();
    let (mut finishes, mut its_server) = program.ends().await;
    let (mut endless, _endless_server) = program.ends().await;
    assert_eq!(program.health().await, (200, "ok".into()));
    program.signal(Signal::SIGTERM);
    let told = Instant::now();
    while program.health().await.0 == 200 {
        assert!(told.elapsed() < PATIENCE, "health turns red");
    }
    assert_eq!(program.health().await, (503, "draining: the proxy is being stopped".into()));
    let late = program.tunnel(at).await;
    let (mut late_server, _) = listener.accept().await.unwrap();
    if told.elapsed() > Duration::from_secs(8) {
        panic!("the machine is too slow to say what was served within the lead");
    }
    while TcpStream::connect(program.at).await.is_ok() {
        assert!(told.elapsed() < PATIENCE, "it accepts no more after its lead");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(told.elapsed() >= Duration::from_secs(7), "it accepted all the lead: {:?}", told.elapsed());
    // who was amid its request is served
    halfway.write_all(&request.as_bytes()[20..]).await.unwrap();
    assert!(read_head(&mut halfway).await.starts_with("HTTP/1.1 200 "));
    drop((halfway, listener.accept().await.unwrap()));
    // one finishes after it stopped accepting, both halves of it, and so does the one that came in the lead
    for (client, server) in [(&mut finishes, &mut its_server), (&mut { late }, &mut late_server)] {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_to_end(server).await, "question");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(read_to_end(client).await, "answer");
    }
    assert_eq!(program.health().await.0, 503, "it is asked to the end");
    assert_reset(&mut endless).await;
    assert!(told.elapsed() >= Duration::from_secs(15), "{:?}", told.elapsed());
    assert_eq!(program.exit_code().await, 0);
    let log = program.log();
    let ended = |reason: &str| log.iter().filter(|l| l.ends_with(&format!("event=close decision=allow reason={reason}"))).count();
    assert_eq!((ended("closed"), ended("shutdown")), (3, 1), "{log:#?}");
    let said = said(&program.folder);
    assert!(said.contains("the time to drain is over: what is left is reset"), "{said}");
}

/// Who watches sees how it ends: the metrics answer as long as a tunnel stands.
#[tokio::test]
async fn its_end_is_seen() {
    let mut program = Program::with("run", "", "drain = \"10m\"\ndrain_lead = \"0s\"", "[web]\nlisten = \"127.0.0.1:0\"");
    let (client, server) = program.ends().await;
    assert_eq!(program.metric("mustnot_proxy_draining").await, Some(0.0));
    program.signal(Signal::SIGTERM);
    let told = Instant::now();
    while TcpStream::connect(program.at).await.is_ok() {
        assert!(told.elapsed() < PATIENCE, "it accepts no more");
    }
    assert_eq!(program.metric("mustnot_proxy_draining").await, Some(1.0));
    assert_eq!(program.metric("mustnot_proxy_tunnels").await, Some(1.0));
    drop((client, server));
    assert_eq!(program.exit_code().await, 0);
}

/// SIGINT has no lead: nobody waits at a terminal for a load balancer. A second signal ends it at once.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for command in ["proxy", "run"] {
        let mut program = Program::with(command, "", "drain = \"10m\"\ndrain_lead = \"5m\"", "");
        let (mut endless, _server) = program.ends().await;
        program.signal(Signal::SIGINT);
        let told = Instant::now();
        while TcpStream::connect(program.at).await.is_ok() {
            assert!(told.elapsed() < PATIENCE, "it accepts no more");
            sleep(Duration::from_millis(20)).await;
        }
        assert!(program.child.try_wait().unwrap().is_none(), "it waits for the tunnel");
        program.signal(Signal::SIGTERM);
        assert_reset(&mut endless).await;
        assert_eq!(program.exit_code().await, 0);
        assert!(program.log().last().unwrap().ends_with("reason=shutdown"));
    }
}

/// Who leaves may still be needed by this process's own probes: it accepts until it is told to stop.
#[tokio::test]
async fn it_accepts_after_its_lead_for_whom_it_still_has_to() {
    let world = World::start(|s| (s.drain, s.drain_lead) = (Duration::from_secs(600), Duration::ZERO)).await;
    let (_listener, at) = server().await;
    world.handle.leave();
    for _ in 0..20 {
        drop(world.tunnel(at).await);
    }
    assert_eq!(world.stats.draining.get(), 1);
    world.stop();
    let refused = async { while TcpStream::connect(world.at).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("no more is accepted");
}

/// Every connection is decided by the rules before or by those after, whole, and none is lost.
#[tokio::test]
async fn rules_change_in_a_storm() {
    let world = World::start(|_| {}).await;
    let (_listener, at) = server().await;
    let (open, mut shut) = (world.settings.clone(), world.settings.clone());
    shut.deny_to = vec!["127.0.0.0/8".parse().unwrap()];
    shut.allow_from.insert(0, "127.0.0.0/8".parse().unwrap());
    let storm = async {
        let mut changes = 0;
        while world.stats.requests("CONNECT", Reason::Allow) + world.stats.requests("CONNECT", Reason::Address) < 400 {
            assert!(world.handle.reload(if changes % 2 == 0 { &shut } else { &open }).is_ok());
            changes += 1;
            tokio::task::yield_now().await;
        }
    };
    let asked = futures_util::future::join_all((0..400).map(|_| async {
        let mut client = world.dial().await;
        client.write_all(format!("CONNECT {at} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        read_head(&mut client).await.split(' ').nth(1).unwrap().to_string()
    }));
    let (answers, ()) = timeout(PATIENCE * 3, futures_util::future::join(asked, storm)).await.expect("every one is answered");
    assert!(answers.iter().all(|status| status == "200" || status == "403"), "{answers:?}");
}

/// Whoever is in the backlog when the lead ends was told by the kernel that they are connected.
#[tokio::test]
async fn nobody_in_the_backlog_is_reset() {
    let world = World::start(|_| {}).await;
    let (_listener, at) = server().await;
    // this test's only thread dials without giving the proxy a chance to accept
    let waiting: Vec<std::net::TcpStream> = (0..50).map(|_| std::net::TcpStream::connect(world.at).unwrap()).collect();
    world.stop();
    for client in waiting {
        client.set_nonblocking(true).unwrap();
        drop(open_tunnel(TcpStream::from_std(client).unwrap(), at, b"").await);
    }
}

/// A real limit, reached by tunnels: who comes then is told, health is red, what stands goes on; and it recovers.
#[tokio::test]
async fn it_survives_a_lack_of_file_descriptors() {
    let program = Program::start("ulimit -n 64;", "max_connections = 1000\nmax_per_client = 1000");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    assert_eq!(program.health().await, (200, "ok".into()));
    let mut tunnels = Vec::new();
    let refused = loop {
        let mut client = TcpStream::connect(program.at).await.unwrap();
        client.write_all(format!("CONNECT {at} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        let mut head = [0; 12];
        let read = timeout(PATIENCE, client.read_exact(&mut head)).await.expect("an answer");
        match read.map(|_| head) {
            Ok(head) if &head == b"HTTP/1.1 200" => tunnels.push((client, listener.accept().await.unwrap().0)),
            Ok(_) => break Some((head, client)),
            // the refusal was destroyed on its way by what the client had sent: it is refused all the same
            Err(_) => break None,
        }
        assert!(tunnels.len() < 64);
    };
    assert!(tunnels.len() > 5, "{}", tunnels.len());
    if let Some((head, mut client)) = refused {
        assert_eq!(&head, b"HTTP/1.1 503");
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, client.read_to_end(&mut rest)).await.expect("an end");
        assert!(String::from_utf8_lossy(&rest).contains("X-Mustnot-Reason: limit\r\n"));
    }
    // those who hold on to it keep it short of descriptors, so that even its health needs the reserve
    let held: Vec<TcpStream> =
        futures_util::future::join_all((0..40).map(|_| TcpStream::connect(program.at))).await.into_iter().flatten().collect();
    assert_eq!(program.health().await, (503, "lacking: there is no file descriptor for one more connection".into()));
    for (client, server) in &mut tunnels {
        client.write_all(b"still").await.unwrap();
        assert_eq!(read_exact(server, 5).await, b"still", "a tunnel that stands is not touched");
    }
    drop((tunnels, held));
    let freed = Instant::now();
    while program.health().await.0 != 200 {
        assert!(freed.elapsed() < PATIENCE * 2, "health recovers: {}", said(&program.folder));
        sleep(Duration::from_millis(100)).await;
    }
    drop(program.tunnel(at).await);
    assert!(program.log().iter().any(|l| l.ends_with("decision=deny reason=limit")));
    let said = said(&program.folder);
    assert!(said.contains("health is red until they can") && said.matches("cannot be accepted").count() < 10, "{said}");
}

/// Standard error that nobody reads: what the program has to say there keeps it from nothing, least of all from its end.
#[tokio::test]
async fn events_that_nobody_reads_stall_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("events");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let open = fs::OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe);
    let mut unread = open.unwrap();
    while unread.write(&[b'x'; 4096]).is_ok() {}
    let mut program = Program::start(&format!("exec 2>'{}';", pipe.display()), "drain = \"1s\"\ndrain_lead = \"0s\"");
    for _ in 0..2 {
        program.signal(Signal::SIGHUP);
        drop(program.ends().await);
    }
    program.signal(Signal::SIGTERM);
    assert_eq!(program.exit_code().await, 0);
}

/// Nobody reads the log: the pipe is full, then the queue before it. Nothing waits for that, and what is lost is counted.
#[tokio::test]
async fn a_full_log_stalls_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // open for both, it needs no other end to be opened, and nobody reads
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let world = World::start(|s| {
        s.access_log = LogTarget::File(pipe);
        s.connect_ports = PortSet::parse(["1-65535"]).unwrap();
    })
    .await;
    let (mut client, mut server, _) = ends(&world).await;
    let begun = Instant::now();
    while world.stats.log_lines_lost.get() == 0 {
        assert!(begun.elapsed() < PATIENCE * 6, "lines are lost by now");
        let refusals = (0..64).map(|_| async { read_to_end(&mut world.dial_from("127.0.0.66").await).await });
        for answer in futures_util::future::join_all(refusals).await {
            assert_refused(&answer, 403, "source");
        }
    }
    client.write_all(b"ping").await.unwrap();
    assert_eq!(read_exact(&mut server, 4).await, b"ping", "a tunnel that stood goes on");
    let lost = world.stats.log_lines_lost.get();
    let (mut another, mut its_server, _) = ends(&world).await;
    another.write_all(b"ping").await.unwrap();
    assert_eq!(read_exact(&mut its_server, 4).await, b"ping", "and another is set up");
    assert!(world.stats.log_lines_lost.get() > lost, "its line is lost, and counted");
}

#[tokio::test]
async fn new_rules_hold_for_new_connections_and_touch_no_tunnel() {
    let world = World::start(|_| {}).await;
    let (listener, at) = server().await;
    let mut before = world.tunnel(at).await;
    let (mut its_server, _) = listener.accept().await.unwrap();

    let mut settings = world.settings.clone();
    settings.deny_to = vec!["127.0.0.0/8".parse().unwrap()];
    settings.allow_from.push("127.0.0.66/32".parse().unwrap());
    settings.max_per_client = Some(7);
    assert_eq!(world.handle.reload(&settings), Ok(vec!["max_per_client"]));
    assert_refused(&world.connect(at).await, 403, "address");
    before.write_all(b"still").await.unwrap();
    assert_eq!(read_exact(&mut its_server, 5).await, b"still");

    settings.deny_to.clear();
    settings.allow_from.remove(0);
    assert!(world.handle.reload(&settings).is_ok());
    assert_refused(&read_to_end(&mut world.dial().await).await, 403, "source");
    drop(open_tunnel(world.dial_from("127.0.0.66").await, at, b"").await);

    settings.connect_ports = PortSet::parse(["443"]).unwrap();
    assert!(world.handle.reload(&settings).is_ok());
    let mut client = world.dial_from("127.0.0.66").await;
    client.write_all(format!("CONNECT {at} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    assert_refused(&read_to_end(&mut client).await, 403, "port");

    // what is wrong changes nothing
    let mut wrong = world.settings.clone();
    wrong.egress = vec!["192.0.2.1".parse().unwrap()];
    assert!(world.handle.reload(&wrong).unwrap_err().starts_with("cannot send from the egress address 192.0.2.1: "));
    assert_refused(&read_to_end(&mut world.dial().await).await, 403, "source");
    before.write_all(b"and").await.unwrap();
    assert_eq!(read_exact(&mut its_server, 3).await, b"and");
    // its own listeners are never a destination, before and after
    settings.connect_ports = PortSet::parse(["1-65535"]).unwrap();
    assert!(world.handle.reload(&settings).is_ok());
    let mut client = world.dial_from("127.0.0.66").await;
    client.write_all(format!("CONNECT {} HTTP/1.1\r\n\r\n", world.at).as_bytes()).await.unwrap();
    assert_refused(&read_to_end(&mut client).await, 403, "address");
}

#[tokio::test]
async fn the_budget_is_watched_while_a_tunnel_runs() {
    let world = World::start(|s| s.egress_budget = Some("1kB/h".parse().unwrap())).await;
    let (mut client, mut server, _) = ends(&world).await;
    server.write_all(&[0; 5000]).await.unwrap();
    assert_eq!(read_exact(&mut client, 5000).await.len(), 5000);
    client.write_all(&[0; 500]).await.unwrap();
    until("half of it is sent", || world.stats.budget_ratio.get() == 0.5).await;
    client.write_all(&[0; 1000]).await.unwrap();
    until("more than all of it is sent", || world.stats.budget_ratio.get() == 1.5).await;
    assert_eq!(world.stats.tunnels.get(), 1, "the tunnel still runs, and is not refused");
    let (_another, ..) = ends(&world).await;
}

/// A balancer that was told to send headers, and a proxy that was not told so: every request fails, and the log says why.
#[tokio::test]
async fn a_stray_proxy_header_is_said_once() {
    let mut program = Program::start("", "");
    for header in [&b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"] {
        let mut client = TcpStream::connect(program.at).await.unwrap();
        client.write_all(&[header, b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n"].concat()).await.unwrap();
        assert_refused(&read_to_end(&mut client).await, 400, "parse");
    }
    // events are written by a thread of their own, and all of them by the end
    program.signal(Signal::SIGINT);
    assert_eq!(program.exit_code().await, 0);
    let said = said(&program.folder);
    assert_eq!(said.matches("127.0.0.1 sends a PROXY header and is not in proxy_protocol_from").count(), 1, "{said}");
}

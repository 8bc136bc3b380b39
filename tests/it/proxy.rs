//! The embedded proxy over real sockets on loopback.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mustnot::proxy::{Handle, LogFormat, LogTarget, Proxy, Reason, Settings, Stats};
use mustnot::target::PortSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes, so that a fault is a failure and not a hang.
pub const PATIENCE: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(5);

/// A proxy that runs.
pub struct World {
    pub at: SocketAddr,
    pub health: Option<SocketAddr>,
    pub stats: Arc<Stats>,
    pub handle: Handle,
    pub settings: Settings,
    log: PathBuf,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl World {
    /// Open to 127.0.0.1, for loopback, on all ports; then `change`.
    pub async fn start(change: impl FnOnce(&mut Settings)) -> World {
        World::with_grace(GRACE, change).await
    }

    pub async fn with_grace(grace: Duration, change: impl FnOnce(&mut Settings)) -> World {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let mut settings = Settings::new();
        settings.listen = vec!["127.0.0.1:0".parse().unwrap()];
        settings.allow_from = vec!["127.0.0.1/32".parse().unwrap()];
        settings.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
        settings.connect_ports = PortSet::parse(["1-65535"]).unwrap();
        settings.access_log = LogTarget::File(log.clone());
        settings.drain = grace;
        change(&mut settings);
        let proxy = Proxy::bind(settings.clone()).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let at = *proxy.addresses().first().unwrap();
        let health = proxy.health_addresses().first().copied();
        let (stats, handle) = (proxy.stats(), proxy.handle());
        World { at, health, stats, handle, settings, log, stop, running: tokio::spawn(proxy.run(stopped)), _dir: dir }
    }

    pub async fn dial_from(&self, source: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source.parse::<IpAddr>().unwrap(), 0)).unwrap();
        socket.connect(self.at).await.unwrap()
    }

    pub async fn dial(&self) -> TcpStream {
        self.dial_from("127.0.0.1").await
    }

    /// Sends `bytes`, and reads what comes until the proxy closes.
    pub async fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.dial().await;
        client.write_all(bytes.as_ref()).await.unwrap();
        read_to_end(&mut client).await
    }

    pub async fn connect(&self, to: impl std::fmt::Display) -> String {
        self.ask(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")).await
    }

    pub async fn tunnel(&self, to: SocketAddr) -> TcpStream {
        open_tunnel(self.dial().await, to, b"").await
    }

    /// Tells it to stop.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Stops it, and gives its access log.
    pub async fn end(self) -> Vec<String> {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.running).await.expect("the proxy stops").unwrap();
        std::fs::read_to_string(&self.log).unwrap().lines().map(String::from).collect()
    }
}

pub async fn open_tunnel(mut client: TcpStream, to: SocketAddr, early: &[u8]) -> TcpStream {
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: test/1\r\n\r\n").into_bytes();
    request.extend_from_slice(early);
    client.write_all(&request).await.unwrap();
    assert_eq!(read_head(&mut client).await, "HTTP/1.1 200 Connection established\r\n\r\n");
    client
}

pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let read = timeout(PATIENCE, stream.read_u8()).await.expect("an answer in time");
        match read {
            Ok(byte) => head.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
}

pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an end in time").expect("an end without a reset");
    String::from_utf8(all).unwrap()
}

pub async fn read_exact(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.expect("bytes in time").unwrap();
    bytes
}

pub async fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// Both ends of a tunnel, and who the server saw.
pub async fn ends(world: &World) -> (TcpStream, TcpStream, SocketAddr) {
    let (listener, at) = server().await;
    let (client, accepted) = tokio::join!(world.tunnel(at), listener.accept());
    let (server, peer) = accepted.unwrap();
    (client, server, peer)
}

pub async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[track_caller]
pub fn assert_refused(response: &str, status: u16, reason: &str) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {response:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    assert!(head.contains(&format!("\r\nX-Mustnot-Reason: {reason}\r\n")), "{response}");
    assert!(head.ends_with("\r\nConnection: close"), "{response}");
    assert_eq!(body.lines().count(), 1, "{response}");
}

#[tokio::test]
async fn a_listed_source_is_served_and_another_is_refused_before_it_says_a_word() {
    let world = World::start(|_| {}).await;
    let (mut client, mut server, _) = ends(&world).await;
    client.write_all(b"ping").await.unwrap();
    assert_eq!(read_exact(&mut server, 4).await, b"ping");

    let mut stranger = world.dial_from("127.0.0.66").await;
    assert_refused(&read_to_end(&mut stranger).await, 403, "source");
    drop((client, server, stranger));
    let log = world.end().await;
    assert!(log.iter().any(|l| l.contains(" 127.0.0.66 TCP_DENIED/403 0 - - ") && l.ends_with("decision=deny reason=source")), "{log:?}");
}

#[tokio::test]
async fn nobody_is_the_default() {
    assert!(Settings::new().allow_from.is_empty());
    let world = World::start(|s| s.allow_from.clear()).await;
    assert_refused(&read_to_end(&mut world.dial().await).await, 403, "source");
}

#[tokio::test]
async fn ports_both_sides_of_the_border() {
    let (listener, at) = server().await;
    let world = World::start(|s| s.connect_ports = PortSet::parse([at.port().to_string().as_str()]).unwrap()).await;
    drop(world.tunnel(at).await);
    drop(listener);
    assert_refused(&world.connect("127.0.0.1:1").await, 403, "port");
    let strict = World::start(|s| s.connect_ports = Settings::new().connect_ports).await;
    assert_refused(&strict.connect(at).await, 403, "port");
}

#[tokio::test]
async fn loopback_in_every_form_is_refused_unless_listed() {
    let (_listener, at) = server().await;
    let port = at.port();
    let world = World::start(|s| s.allow_private.clear()).await;
    let hosts = [
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "localhost",
        "LOCALHOST.",
        "0.0.0.0",
        "[::1]",
    ];
    for host in hosts {
        assert_refused(&world.connect(format!("{host}:{port}")).await, 403, "address");
    }
    let open = World::start(|_| {}).await;
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost"] {
        let mut client = open.dial().await;
        client.write_all(format!("CONNECT {host}:{port} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let head = read_head(&mut client).await;
        // localhost may be ::1 too, which is not listed: then the whole name is refused
        let mixed = host == "localhost" && head.starts_with("HTTP/1.1 403 ");
        assert!(mixed || head.starts_with("HTTP/1.1 200 "), "{host}: {head}");
    }
}

#[tokio::test]
async fn names_both_sides_of_a_rule() {
    let (_listener, at) = server().await;
    let to = format!("localhost:{}", at.port());
    let world = World::start(|s| {
        s.deny_to = vec!["localhost".parse().unwrap()];
        s.allow_private.push("::1/128".parse().unwrap());
    })
    .await;
    assert_refused(&world.connect(&to).await, 403, "name");
    drop(world.tunnel(at).await); // the rule is on the name, not on where it leads
    let world = World::start(|s| {
        s.allow_to = vec![".localhost".parse().unwrap()];
        s.allow_private.push("::1/128".parse().unwrap());
    })
    .await;
    let mut client = world.dial().await;
    client.write_all(format!("CONNECT {to} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
    assert_refused(&world.connect(at).await, 403, "address");
    assert_refused(&world.connect("elsewhere.example:443").await, 403, "name");
}

#[tokio::test]
async fn ipv6_is_served_and_dialled() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        println!("skipped: this host has no IPv6 loopback, so nothing was dialled over IPv6");
        return;
    };
    let at = listener.local_addr().unwrap();
    let world = World::start(|s| {
        s.listen = vec!["[::1]:0".parse().unwrap(), "[::]:0".parse().unwrap()];
        s.allow_from = vec!["::1/128".parse().unwrap(), "127.0.0.1/32".parse().unwrap()];
        s.allow_private = vec!["::1/128".parse().unwrap()];
    })
    .await;
    let mut client = open_tunnel(TcpStream::connect(world.at).await.unwrap(), at, b"over IPv6").await;
    let (mut server, peer) = listener.accept().await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await, "over IPv6");
    assert!(peer.is_ipv6());
}

#[tokio::test]
async fn own_listeners_are_no_destination() {
    let (_web, web) = server().await;
    let (_other, other) = server().await;
    let world = World::start(|s| {
        s.own = vec![web];
        s.allow_private.push("0.0.0.0/8".parse().unwrap());
    })
    .await;
    let own = world.at.port();
    for to in [format!("127.0.0.1:{own}"), format!("[::ffff:127.0.0.1]:{own}"), format!("0.0.0.0:{own}"), web.to_string()] {
        assert_refused(&world.connect(&to).await, 403, "address");
    }
    drop(world.tunnel(other).await);

    let everywhere = World::start(|s| s.listen = vec!["0.0.0.0:0".parse().unwrap()]).await;
    let own = everywhere.at.port();
    let world = World { at: SocketAddr::new([127, 0, 0, 1].into(), own), ..everywhere };
    for host in ["127.0.0.1", "127.0.0.77"] {
        assert_refused(&world.connect(format!("{host}:{own}")).await, 403, "address");
    }
}

#[tokio::test]
async fn what_is_not_plainly_a_connect_is_refused_by_its_reason() {
    let world = World::start(|_| {}).await;
    for (head, status, reason) in [
        ("GET http://127.0.0.1/ HTTP/1.1\r\nHost: a\r\n\r\n", 403, "method"),
        ("connect 127.0.0.1:443 HTTP/1.1\r\n\r\n", 403, "method"),
        ("CONNECT 127.0.0.1 HTTP/1.1\r\n\r\n", 400, "parse"),
        ("CONNECT [127.0.0.1]:443 HTTP/1.1\r\n\r\n", 400, "parse"),
        ("CONNECT 127.0.0.1:443\r\n\r\n", 400, "parse"),
        ("CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "parse"),
        ("CONNECT 127.0.0.1:443 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400, "parse"),
        ("CONNECT 127.0.0.1:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "parse"),
        ("\x16\x03\x01\x00\x05hello", 400, "parse"),
    ] {
        assert_refused(&world.ask(head).await, status, reason);
    }
    assert_eq!(world.stats.requests("GET", Reason::Method), 1);
    assert_eq!(world.stats.requests("connect", Reason::Method), 1);
    assert_eq!(world.end().await.len(), 9);
}

#[tokio::test]
async fn what_follows_a_refusal_is_never_interpreted() {
    let (listener, at) = server().await;
    let world = World::start(|_| {}).await;
    for first in ["CONNECT bad\r\n\r\n", "CONNECT bad HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let response = world
            .ask(format!(
                "{first}GET http://169.254.169.254/ HTTP/1.1\r\n\r\nCONNECT {at} HTTP/1.1\r\n\r\nGET http://{at}/ HTTP/1.1\r\n\r\n"
            ))
            .await;
        assert_eq!(response.matches("HTTP/1.1").count(), 1, "{response}");
    }
    assert_eq!(world.end().await.len(), 3, "one line a refusal");
    // whatever the proxy had dialled would be in the backlog by now
    assert!(timeout(Duration::ZERO, listener.accept()).await.is_err());
}

#[tokio::test]
async fn a_refusal_is_read_even_by_a_client_that_goes_on_sending() {
    let world = World::start(|s| s.connect_ports = PortSet::parse(["443"]).unwrap()).await;
    let mut client = world.dial().await;
    client.write_all(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n").await.unwrap();
    let head = read_head(&mut client).await;
    // the proxy has said all it will say; each write still finds it listening, where a reset would make the next one fail
    for _ in 0..20 {
        client.write_all(&[b'x'; 10 * 1024]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.shutdown().await.unwrap();
    assert_refused(&(head + &read_to_end(&mut client).await), 403, "port");
}

#[tokio::test]
async fn a_refused_connection_is_closed_though_the_client_keeps_it_open() {
    let world = World::start(|_| {}).await;
    let mut client = world.dial().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_refused(&read_to_end(&mut client).await, 403, "method");
    // the client neither closes nor sends: the proxy still lets go of it
    until("the proxy holds no connection", || world.stats.connections.get() == 0).await;
    let dead = async {
        while client.write_all(b"more").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, dead).await.expect("the connection is really closed");
}

#[tokio::test]
async fn half_close_is_kept_both_ways() {
    let world = World::start(|_| {}).await;

    let (mut client, mut server, _) = ends(&world).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await, "question");
    tokio::time::sleep(Duration::from_millis(300)).await; // the answer takes its time: that is what is tested
    server.write_all(b"late answer").await.unwrap();
    drop(server);
    assert_eq!(read_to_end(&mut client).await, "late answer");

    let (mut client, mut server, _) = ends(&world).await;
    server.write_all(b"greeting").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "greeting");
    client.write_all(b"late question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await, "late question");

    let closes = world.end().await.into_iter().filter(|l| l.ends_with("event=close decision=allow reason=closed")).count();
    assert_eq!(closes, 2);
}

#[tokio::test]
async fn early_bytes_are_forwarded_once_and_in_order() {
    let world = World::start(|_| {}).await;
    let (listener, at) = server().await;
    let (client, accepted) = tokio::join!(open_tunnel(world.dial().await, at, b"early,"), listener.accept());
    let (mut client, (mut server, _)) = (client, accepted.unwrap());
    client.write_all(b"late").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await, "early,late");
}

#[tokio::test]
async fn bulk_passes_whole_both_ways_at_once_and_is_counted_while_it_runs() {
    const SIZE: usize = 8 * 1024 * 1024;
    let world = World::start(|_| {}).await;
    let (client, server, _) = ends(&world).await;
    let bytes: Arc<Vec<u8>> = Arc::new((0..SIZE).map(|i| (i * 31 % 251) as u8).collect());
    let run = |stream: TcpStream| {
        let bytes = bytes.clone();
        async move {
            let (mut read, mut write) = stream.into_split();
            let sent = bytes.clone();
            let writing = tokio::spawn(async move {
                write.write_all(&sent).await.unwrap();
                write
            });
            let mut got = vec![0; SIZE];
            read.read_exact(&mut got).await.unwrap();
            assert!(got == *bytes, "what arrived is what was sent");
            (read, writing.await.unwrap())
        }
    };
    let both = timeout(PATIENCE, async { tokio::join!(run(client), run(server)) }).await.expect("all arrives");
    let source = "127.0.0.1/32".parse().unwrap();
    until("both directions are counted", || {
        world.stats.sent(source).get() == SIZE as u64 && world.stats.received(source).get() == SIZE as u64
    })
    .await;
    assert_eq!(world.stats.tunnels.get(), 1, "the tunnel still runs");
    drop(both);
    until("the tunnel is gone", || world.stats.tunnels.get() == 0 && world.stats.connections.get() == 0).await;
}

#[tokio::test]
async fn a_slow_head_is_refused_and_a_quick_one_is_not() {
    let world = World::start(|s| s.header_timeout = Duration::from_millis(200)).await;
    let mut slow = world.dial().await;
    slow.write_all(b"CONNECT 127.0.0.1:44").await.unwrap();
    let begun = Instant::now();
    assert_refused(&read_to_end(&mut slow).await, 400, "parse");
    assert!(begun.elapsed() >= Duration::from_millis(150));
    let _quick = ends(&world).await;
}

#[tokio::test]
async fn a_long_head_is_refused() {
    let world = World::start(|_| {}).await;
    assert_refused(&world.ask(format!("CONNECT 127.0.0.1:443 HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(16 * 1024))).await, 400, "parse");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_no_request() {
    let world = World::start(|_| {}).await;
    drop(world.dial().await);
    until("it is gone", || world.stats.connections.get() == 0).await;
    assert_eq!(world.end().await, [""; 0]);
}

#[tokio::test]
async fn idle_is_one_clock_for_both_directions() {
    let idle = Duration::from_millis(400);
    let world = World::start(|s| s.idle_timeout = idle).await;
    let (mut client, mut server, _) = ends(&world).await;
    let begun = Instant::now();
    while begun.elapsed() < idle * 3 {
        server.write_all(b".").await.unwrap(); // the other direction is silent all the while
        assert_eq!(read_exact(&mut client, 1).await, b".");
        tokio::time::sleep(idle / 8).await;
    }
    let silent = Instant::now();
    assert_eq!(read_to_end(&mut client).await, "");
    assert!(silent.elapsed() >= idle / 2, "{:?}", silent.elapsed());
    assert!(world.end().await.last().unwrap().ends_with("reason=idle"));
}

#[tokio::test]
async fn a_half_open_tunnel_ends_sooner_than_an_idle_one() {
    let world = World::start(|s| s.half_open_timeout = Duration::from_millis(200)).await;
    let (mut client, mut server, _) = ends(&world).await;
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await, "");
    assert_eq!(read_to_end(&mut client).await, "");
    assert!(world.end().await.last().unwrap().ends_with("reason=half-open"));
}

#[tokio::test]
async fn a_tunnel_has_a_lifetime_though_bytes_flow() {
    let world = World::start(|s| s.lifetime = Duration::from_millis(300)).await;
    let (mut client, mut server, _) = ends(&world).await;
    let begun = Instant::now();
    while client.write_all(b".").await.is_ok() && server.read_u8().await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the lifetime is over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(world.end().await.last().unwrap().ends_with("reason=lifetime"));
}

#[tokio::test]
async fn a_reset_of_one_side_is_a_reset_for_the_other() {
    let world = World::start(|_| {}).await;
    let (mut client, server, _) = ends(&world).await;
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    let error = timeout(PATIENCE, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(world.end().await.last().unwrap().ends_with("reason=reset"));
}

#[tokio::test]
async fn the_limit_of_all_holds_for_tunnels_until_they_end() {
    let world = World::start(|s| (s.max_connections, s.max_per_client) = (Some(1), Some(1))).await;
    let (client, server, _) = ends(&world).await;
    assert_refused(&world.connect("127.0.0.1:1").await, 503, "limit");
    // the order of decision holds for them too
    assert_refused(&world.connect("10.0.0.1:443").await, 403, "address");
    assert_refused(&world.ask("GET / HTTP/1.1\r\n\r\n").await, 403, "method");
    // and one that says nothing is not kept for the whole header time-out
    let begun = Instant::now();
    let mut mute = world.dial().await;
    assert_refused(&read_to_end(&mut mute).await, 400, "parse");
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop((client, server));
    until("the seat is free", || world.stats.connections.get() == 0).await;
    let _again = ends(&world).await;
}

#[tokio::test]
async fn the_limit_of_one_client_leaves_room_for_others() {
    let world = World::start(|s| {
        s.allow_from.push("127.0.0.66/32".parse().unwrap());
        (s.max_connections, s.max_per_client) = (Some(3), Some(1));
    })
    .await;
    let (listener, at) = server().await;
    let _first = world.tunnel(at).await;
    assert_refused(&world.connect(at).await, 503, "limit");
    let _other = open_tunnel(world.dial_from("127.0.0.66").await, at, b"").await;
    drop(listener);
}

#[tokio::test]
async fn many_without_a_seat_are_answered_or_closed_at_once() {
    let world = World::start(|s| (s.max_connections, s.max_per_client) = (Some(0), Some(0))).await;
    let mut mute = Vec::new();
    for _ in 0..200 {
        mute.push(world.dial().await);
    }
    until("no more than the standing room is held", || world.stats.connections.get() <= 64).await;
    for client in &mut mute {
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, client.read_to_end(&mut answer)).await.expect("each is ended");
    }
    until("none is held", || world.stats.connections.get() == 0).await;
    assert!(world.stats.requests("", Reason::Limit) >= 100);
}

#[tokio::test]
async fn connections_leave_from_the_egress_address() {
    let world = World::start(|s| s.egress = vec!["127.0.0.10".parse().unwrap()]).await;
    let (_client, _server, peer) = ends(&world).await;
    assert_eq!(peer.ip().to_string(), "127.0.0.10");
    let plain = World::start(|_| {}).await;
    let (_client, _server, peer) = ends(&plain).await;
    assert_eq!(peer.ip().to_string(), "127.0.0.1");
    // no IPv6 egress address: IPv6 is not dialled
    let v6 = World::start(|s| {
        s.egress = vec!["127.0.0.10".parse().unwrap()];
        s.allow_private.push("::1/128".parse().unwrap());
    })
    .await;
    assert_refused(&v6.connect("[::1]:443").await, 502, "connect");
}

#[tokio::test]
async fn an_upstream_that_fails_is_a_gateway_error() {
    let (listener, at) = server().await;
    drop(listener);
    let world = World::start(|s| s.connect_timeout = Duration::from_secs(2)).await;
    assert_refused(&world.connect(at).await, 502, "connect");
    let unresolved = world.connect("nonexistent.invalid:443").await;
    assert!(unresolved.contains("X-Mustnot-Reason: resolve\r\n"), "{unresolved}");
    assert!(unresolved.starts_with("HTTP/1.1 502 ") || unresolved.starts_with("HTTP/1.1 504 "), "{unresolved}");
    assert_eq!(world.stats.requests("CONNECT", Reason::Allow), 0);
    assert!(world.end().await.first().unwrap().ends_with("decision=error reason=connect"));
}

#[tokio::test]
async fn an_upstream_that_is_silent_is_a_gateway_timeout() {
    // a listener whose backlog is full drops further SYNs
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let at = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    for _ in 0..8 {
        filling.push(tokio::spawn(TcpStream::connect(at)));
    }
    let world = World::start(|s| s.connect_timeout = Duration::from_millis(300)).await;
    until("the backlog is full", || filling.iter().filter(|f| f.is_finished()).count() >= 2).await;
    assert_refused(&world.connect(at).await, 504, "connect");
    filling.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_line_per_decision_and_per_close_with_all_that_happened() {
    let world = World::start(|s| s.access_log_format = LogFormat::Json).await;
    let (mut client, mut server, _) = ends(&world).await;
    let at = server.local_addr().unwrap();
    client.write_all(b"12345").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await, "12345");
    server.write_all(b"123").await.unwrap();
    drop(server);
    assert_eq!(read_to_end(&mut client).await, "123");
    let from = client.local_addr().unwrap().to_string();
    let lines: Vec<serde_json::Value> = world.end().await.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    let [decision, close] = lines.as_slice() else { panic!("{lines:?}") };
    for line in [decision, close] {
        for (key, value) in [
            ("client", from.as_str()),
            ("user_agent", "test/1"),
            ("method", "CONNECT"),
            ("destination", &at.to_string()),
            ("dialled", &at.to_string()),
            ("decision", "allow"),
        ] {
            assert_eq!(line.get(key).unwrap(), value, "{line}");
        }
        assert!(line.get("duration_ms").unwrap().is_u64() && line.get("time").unwrap().is_string());
    }
    let of = |line: &serde_json::Value, keys: [&str; 4]| keys.map(|k| line.get(k).unwrap().to_string());
    let keys = ["event", "reason", "bytes_sent", "bytes_received"];
    assert_eq!(of(decision, keys), ["\"decision\"", "\"allow\"", "0", "0"]);
    assert_eq!(of(close, keys), ["\"close\"", "\"closed\"", "5", "3"]);
}

#[tokio::test]
async fn a_client_cannot_forge_log_lines() {
    for format in [LogFormat::Squid, LogFormat::Combined, LogFormat::Json] {
        let world = World::start(|s| s.access_log_format = format).await;
        // httparse lets bytes above ASCII and a tab through in a header's value; a quote is plain text to it
        let mut head = b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nUser-Agent: a\" decision=allow \t\xc2\x9b\xff\xe2\x80\xae\\\r\n\r\n".to_vec();
        world.ask(&head).await;
        head = b"CONNECT a\rb\x1b[2J\n1 10.0.0.1 TCP_TUNNEL/200 forged\r\n\r\n".to_vec();
        world.ask(&head).await;
        let log = world.end().await;
        assert_eq!(log.len(), 2, "{log:?}");
        assert!(log.iter().all(|l| l.bytes().all(|b| b == b' ' || b.is_ascii_graphic())), "{log:?}");
        assert!(!log.iter().any(|l| l.contains("\" decision=allow")), "{log:?}");
    }
}

#[tokio::test]
async fn stopping_lets_tunnels_end_and_takes_no_more() {
    let world = World::start(|_| {}).await;
    let (mut client, mut server, _) = ends(&world).await;
    world.stop.send_replace(true);
    let refused = async {
        while let Ok(late) = TcpStream::connect(world.at).await {
            drop(late); // the listener closes at its own pace
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("no more is accepted");
    client.write_all(b"still").await.unwrap();
    assert_eq!(read_exact(&mut server, 5).await, b"still");
    drop((client, server));
    assert!(world.end().await.last().unwrap().ends_with("reason=closed"));
}

#[tokio::test]
async fn what_outlasts_the_grace_is_reset_and_logged() {
    let world = World::with_grace(Duration::from_millis(100), |_| {}).await;
    let (mut client, _server, _) = ends(&world).await;
    let log = world.end().await;
    assert!(log.last().unwrap().ends_with("event=close decision=allow reason=shutdown"), "{log:?}");
    assert_eq!(client.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_cannot_be_bound_is_named_with_its_remedy() {
    let (_taken, at) = server().await;
    let bind = async |change: &dyn Fn(&mut Settings)| {
        let mut settings = Settings::new();
        settings.listen = vec!["127.0.0.1:0".parse().unwrap()];
        change(&mut settings);
        Proxy::bind(settings).await.map(|p| p.addresses()).unwrap_err()
    };
    let taken = bind(&|s| s.listen = vec![at]).await;
    assert!(taken.starts_with(&format!("the proxy cannot listen on {at}: ")) && taken.contains("stop what listens there"), "{taken}");
    let foreign = bind(&|s| s.listen = vec!["192.0.2.1:3128".parse().unwrap()]).await;
    assert!(foreign.ends_with("; choose an address of this host, or 0.0.0.0 or [::] for all of them"), "{foreign}");
    let egress = bind(&|s| s.egress = vec!["192.0.2.1".parse().unwrap()]).await;
    assert!(egress.starts_with("cannot send from the egress address 192.0.2.1: "), "{egress}");
    let nowhere = bind(&|s| s.listen.clear()).await;
    assert_eq!(nowhere, "the proxy has no address to listen on; write listen = [\"127.0.0.1:3128\"]");
    let mapped = bind(&|s| s.allow_from = vec!["::ffff:10.0.0.0/104".parse().unwrap()]).await;
    assert_eq!(mapped, "\"::ffff:10.0.0.0/104\" is an IPv4 network in IPv6 form; write 10.0.0.0/8");
}

#[tokio::test]
async fn curl_tunnels_and_reads_refusals() {
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIP curl_tunnels_and_reads_refusals: curl is not installed here");
        return;
    }
    let (listener, at) = server().await;
    let world = World::start(|_| {}).await;
    let curl = async |to: String| {
        let proxy = format!("http://{}", world.at);
        let args =
            ["--silent", "--show-error", "--max-time", "15", "--proxytunnel", "--proxy", proxy.as_str(), "--noproxy", "", to.as_str()];
        tokio::process::Command::new("curl").args(args).output().await.unwrap()
    };
    let serving = async {
        let (mut server, _) = listener.accept().await.unwrap();
        read_head(&mut server).await;
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").await.unwrap();
    };
    let (output, ()) = tokio::join!(curl(format!("http://{at}/")), serving);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello", "{output:?}");
    let refused = curl("http://169.254.169.254/".into()).await;
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("403"), "{refused:?}");
    let log = world.end().await;
    assert!(
        log.iter().any(|l| l.contains(" CONNECT 169.254.169.254:80 ") && l.contains("\"curl/") && l.ends_with("reason=address")),
        "{log:?}"
    );
}

//! The embedded proxy behind a load balancer: PROXY headers over real sockets on loopback. 127.0.0.7 is the balancer.

use mustnot::proxy::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proxy::{PATIENCE, World, assert_refused, open_tunnel, read_exact, read_head, read_to_end, server, until};

const BALANCER: &str = "127.0.0.7";
/// What a Network Load Balancer was seen to send with its health checks: LOCAL, TCP over IPv4, 84 bytes, and no addresses in them.
fn health_check() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\x00\x54\x03\x00\x04\x71\x9b\x5d\x1a\x04\x00\x4a".to_vec();
    bytes.resize(16 + 0x54, 0);
    bytes
}

fn v1(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 192.0.2.2 40000 3128\r\n").into_bytes()
}

fn v2(source: [u8; 4]) -> Vec<u8> {
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"[..], &source, &[192, 0, 2, 2], &40000_u16.to_be_bytes(), &3128_u16.to_be_bytes()].concat()
}

/// Open to 203.0.113.5 behind the balancer, and to 127.0.0.1.
async fn balanced() -> World {
    World::start(|s| {
        s.proxy_protocol_from = vec!["127.0.0.7/32".parse().unwrap()];
        s.allow_from.push("203.0.113.5/32".parse().unwrap());
    })
    .await
}

async fn behind(world: &World, bytes: &[u8]) -> TcpStream {
    let mut client = world.dial_from(BALANCER).await;
    client.write_all(bytes).await.unwrap();
    client
}

fn connect(to: impl std::fmt::Display) -> Vec<u8> {
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn the_address_in_the_header_is_judged_and_both_are_in_the_log() {
    let (listener, at) = server().await;
    let world = balanced().await;
    let mut balancers = Vec::new();
    for header in [v1("203.0.113.5"), v2([203, 0, 113, 5])] {
        let all = [header, connect(at), b"early".to_vec()].concat();
        let mut client = behind(&world, &all).await;
        assert_eq!(read_head(&mut client).await, "HTTP/1.1 200 Connection established\r\n\r\n");
        let (mut server, _) = listener.accept().await.unwrap();
        assert_eq!(read_exact(&mut server, 5).await, b"early", "what follows the header is the client's, whole");
        balancers.push(client.local_addr().unwrap());
    }
    for header in [v1("203.0.113.6"), v2([203, 0, 113, 6])] {
        assert_refused(&read_to_end(&mut behind(&world, &[header, connect(at)].concat()).await).await, 403, "source");
    }
    until("all have ended", || world.stats.connections.get() == 0).await;
    let log = world.end().await;
    for (served, balancer) in log.iter().filter(|l| l.ends_with("event=decision decision=allow reason=allow")).zip(&balancers) {
        assert!(served.contains(" 203.0.113.5 TCP_TUNNEL/200 ") && served.contains(&format!(" port=40000 peer={balancer} ")), "{served}");
    }
    let refused: Vec<_> = log.iter().filter(|l| l.contains(" 203.0.113.6 TCP_DENIED/403 ") && l.contains(" peer=127.0.0.7:")).collect();
    assert_eq!((log.len(), refused.len()), (6, 2), "{log:#?}");
}

#[tokio::test]
async fn a_header_is_required_of_its_sender_and_believed_of_nobody_else() {
    let (listener, at) = server().await;
    let world = balanced().await;
    let no_header: [&[u8]; 4] = [&connect(at), b"\x16\x03\x01\x00\x05hello", b"PROXY TCP4 203.0.113.5\r\n", b"PROXY UNKNOWN\n"];
    for bytes in no_header {
        assert_refused(&read_to_end(&mut behind(&world, bytes).await).await, 403, "proxy-header");
    }
    // two headers, or TLS behind one: the second is no request
    for rest in [v1("203.0.113.5"), v2([203, 0, 113, 5]), b"\x16\x03\x01\x00\x05hello".to_vec()] {
        let all = [v2([203, 0, 113, 5]), rest, connect(at)].concat();
        assert_refused(&read_to_end(&mut behind(&world, &all).await).await, 400, "parse");
    }
    // who may use the proxy, and is no balancer; and who may not
    for header in [v1("203.0.113.5"), v2([203, 0, 113, 5]), health_check()] {
        assert_refused(&world.ask([header.clone(), connect(at)].concat()).await, 400, "parse");
        let mut stranger = world.dial_from("127.0.0.66").await;
        stranger.write_all(&[header, connect(at)].concat()).await.unwrap();
        assert_refused(&read_to_end(&mut stranger).await, 403, "source");
    }
    drop(open_tunnel(world.dial().await, at, b"").await);
    assert_eq!(world.stats.requests("", Reason::ProxyHeader), 4);
    assert!(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().1.ip().is_loopback());
    let log = world.end().await;
    let begin = "TCP_DENIED/403 0 - CONNECT\\x20127.0.0.1";
    assert!(log.iter().any(|l| l.contains(begin) && l.ends_with("decision=deny reason=proxy-header")), "{log:#?}");
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let (listener, at) = server().await;
    let world = balanced().await;
    for header in [v1("203.0.113.5"), v2([203, 0, 113, 5])] {
        let mut client = world.dial_from(BALANCER).await;
        client.set_nodelay(true).unwrap();
        for byte in [header, connect(at)].concat() {
            client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(read_head(&mut client).await, "HTTP/1.1 200 Connection established\r\n\r\n");
    }
    drop(listener);
}

#[tokio::test]
async fn health_checks_leave_no_trace_and_relay_nothing() {
    let (_listener, at) = server().await;
    let world = balanced().await;
    let checks: [&[u8]; 4] = [b"", &health_check(), b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", b"PROXY UNKNOWN\r\n"];
    for bytes in checks {
        let mut client = behind(&world, bytes).await;
        client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut client).await, "", "nothing is said to who says nothing");
    }
    // HAProxy's version 1 names itself
    let mut client = world.dial_from(BALANCER).await;
    let own = client.local_addr().unwrap().port();
    client.write_all(format!("PROXY TCP4 {BALANCER} 127.0.0.1 {own} 3128\r\n").as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "");
    // for itself the balancer is judged by its own address
    for bytes in &checks[1..] {
        assert_refused(&read_to_end(&mut behind(&world, &[bytes, connect(at).as_slice()].concat()).await).await, 403, "source");
        assert_refused(&read_to_end(&mut behind(&world, bytes).await).await, 403, "source");
    }
    let log = world.end().await;
    assert!(log.len() == 6 && log.iter().all(|l| l.contains(" 127.0.0.7 TCP_DENIED/403 ") && l.ends_with("reason=source")), "{log:#?}");

    let let_in = World::start(|s| {
        s.proxy_protocol_from = vec!["127.0.0.0/29".parse().unwrap()];
        s.allow_from = s.proxy_protocol_from.clone();
    })
    .await;
    let mut client = behind(&let_in, &[health_check(), connect(at)].concat()).await;
    assert_eq!(read_head(&mut client).await, "HTTP/1.1 200 Connection established\r\n\r\n");
}

#[tokio::test]
async fn a_slow_header_is_refused() {
    let world = balanced().await;
    let mut slow = behind(&world, b"PROXY TCP4 203.0").await;
    assert_refused(&read_to_end(&mut slow).await, 403, "proxy-header");
    let mut mute = behind(&world, b"").await;
    assert_refused(&read_to_end(&mut mute).await, 403, "proxy-header");
}

#[tokio::test]
async fn places_are_counted_by_the_address_in_the_header() {
    let (_listener, at) = server().await;
    let world = World::start(|s| {
        s.proxy_protocol_from = vec!["127.0.0.7/32".parse().unwrap()];
        s.allow_from = vec!["203.0.113.0/24".parse().unwrap()];
        (s.max_connections, s.max_per_client) = (Some(3), Some(1));
    })
    .await;
    let ask = async |source| {
        let mut client = behind(&world, &[v1(source), connect(at)].concat()).await;
        let head = read_head(&mut client).await;
        (head.split(' ').nth(1).unwrap().to_string(), client)
    };
    let (first, _one) = ask("203.0.113.1").await;
    let (second, _two) = ask("203.0.113.2").await;
    let (again, refused) = ask("203.0.113.1").await;
    drop(refused);
    until("two are in", || world.stats.connections.get() == 2).await;
    assert_eq!((first.as_str(), second.as_str(), again.as_str()), ("200", "200", "503"));
    // who has not said who they are takes a seat, too
    let waiting = behind(&world, b"PROXY ").await;
    until("three are in", || world.stats.connections.get() == 3).await;
    let mut late = world.dial_from(BALANCER).await;
    let mut answer = String::new();
    let _ = timeout(PATIENCE, late.read_to_string(&mut answer)).await.expect("it is ended");
    assert!(answer.contains("\r\nX-Mustnot-Reason: limit\r\n"), "{answer}");
    drop(waiting);
}

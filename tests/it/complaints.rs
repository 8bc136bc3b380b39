//! What users of other proxies complain about, one test each, with where they did.

use std::time::Duration;

use mustnot::target::PortSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::proxy::{PATIENCE, World, assert_refused, ends, read_exact, read_to_end, server, until};

/// tinyproxy#438, ingress-nginx#6996: a load balancer's health checks fill the log.
#[tokio::test]
async fn a_health_check_that_only_connects_leaves_no_line_in_the_log() {
    let world = World::start(|_| {}).await;
    for _ in 0..20 {
        drop(world.dial().await);
    }
    let (client, server, _) = ends(&world).await;
    drop((client, server));
    until("all are gone", || world.stats.connections.get() == 0).await;
    let log = world.end().await;
    assert_eq!(log.len(), 2, "the tunnel's two lines and no other: {log:?}");
}

/// start-technologies#3211: keepalive is answered by the peer's kernel, so it never ends a tunnel that nobody uses.
#[tokio::test]
async fn a_tunnel_that_nobody_uses_ends_though_both_peers_are_alive() {
    let world = World::start(|s| s.idle_timeout = Duration::from_millis(300)).await;
    let (mut client, mut server, _) = ends(&world).await;
    assert_eq!(read_to_end(&mut client).await, "");
    assert_eq!(read_to_end(&mut server).await, "");
    until("the tunnel is over", || world.stats.tunnels.get() == 0).await;
}

/// pipelock#816, Squid bug 3659: a timer a direction cuts a stream that flows one way, such as server-sent events.
#[tokio::test]
async fn a_stream_that_flows_one_way_is_not_idle() {
    let idle = Duration::from_secs(1);
    let world = World::start(|s| s.idle_timeout = idle).await;
    for download in [true, false] {
        let (client, server, _) = ends(&world).await;
        let (mut from, mut to) = if download { (server, client) } else { (client, server) };
        for _ in 0..10 {
            from.write_all(b"event").await.unwrap();
            assert_eq!(read_exact(&mut to, 5).await, b"event");
            tokio::time::sleep(idle / 5).await;
        }
    }
}

/// go-gost/x#91: a read deadline meant for requests cuts tunnels.
#[tokio::test]
async fn no_time_out_of_the_set_up_applies_to_a_tunnel_that_stands() {
    let short = Duration::from_millis(200);
    let world = World::start(|s| (s.header_timeout, s.connect_timeout) = (short, Duration::from_secs(5))).await;
    let (mut client, mut server, _) = ends(&world).await;
    tokio::time::sleep(short * 4).await;
    server.write_all(b"late").await.unwrap();
    assert_eq!(read_exact(&mut client, 4).await, b"late");
    client.write_all(b"too").await.unwrap();
    assert_eq!(read_exact(&mut server, 3).await, b"too");
}

/// onecli#484, tokio#4556, shadowsocks-rust#1195: half-closed tunnels pile up; and one that is cut too soon loses the answer.
#[tokio::test]
async fn a_half_closed_tunnel_waits_for_the_answer_and_then_ends() {
    let half_open = Duration::from_secs(1);
    let world = World::start(|s| s.half_open_timeout = half_open).await;
    let (mut client, mut server, _) = ends(&world).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await, "question");
    for part in [b"slow", b"but ", b"here"] {
        tokio::time::sleep(half_open / 4).await;
        server.write_all(part).await.unwrap();
    }
    let mut got = [0; 12];
    timeout(PATIENCE, client.read_exact(&mut got)).await.expect("the answer in time").unwrap();
    assert_eq!(&got, b"slowbut here");
    // the server never ends: the tunnel does
    until("the tunnel is over", || world.stats.tunnels.get() == 0).await;
    assert!(world.end().await.last().unwrap().ends_with("reason=half-open"));
}

/// tinyproxy#289, #383, #414, #518: once as many connections as allowed were open, none is ever served again.
#[tokio::test]
async fn after_the_most_connections_the_next_are_served_as_soon_as_others_end() {
    let world = World::start(|s| (s.max_connections, s.max_per_client) = (Some(4), Some(4))).await;
    for _ in 0..3 {
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(ends(&world).await);
        }
        assert_refused(&world.connect("127.0.0.1:9").await, 503, "limit");
        drop(all);
        until("all seats are free", || world.stats.connections.get() == 0).await;
    }
}

/// gh-aw-firewall#189: some clients tunnel to port 80, too, and a proxy for 443 alone says nothing that helps.
#[tokio::test]
async fn a_tunnel_to_port_80_is_refused_by_name_of_the_rule_and_granted_where_it_is_listed() {
    let only = |ports: &'static str| move |s: &mut mustnot::proxy::Settings| s.connect_ports = PortSet::parse([ports]).unwrap();
    let (listener, at) = server().await;
    let refused = World::start(only("443")).await.connect(at).await;
    assert_refused(&refused, 403, "port");
    assert!(refused.ends_with("the port is not allowed\n"), "{refused}");
    let world = World::start(move |s| s.connect_ports = PortSet::parse([at.port().to_string().as_str()]).unwrap()).await;
    let (granted, _) = tokio::join!(world.tunnel(at), listener.accept());
    drop(granted);
}

/// aws/containers-roadmap#995: nothing on Fargate tells how many connections are open.
#[tokio::test]
async fn open_tunnels_and_their_bytes_are_counted_while_they_stand() {
    let world = World::start(|_| {}).await;
    let (mut client, mut server, _) = ends(&world).await;
    let (_second, _server, _) = ends(&world).await;
    until("two tunnels stand", || (world.stats.tunnels.get(), world.stats.connections.get()) == (2, 2)).await;
    client.write_all(b"123456").await.unwrap();
    assert_eq!(read_exact(&mut server, 6).await, b"123456");
    let source = "127.0.0.1/32".parse().unwrap();
    until("they are counted before the end", || world.stats.sent(source).get() == 6).await;
}

/// 3proxy#807: a rule for 127.0.0.1 is passed by as ::ffff:127.0.0.1.
#[tokio::test]
async fn a_denied_address_is_denied_in_every_form() {
    let world = World::start(|s| {
        s.deny_to = vec!["127.0.0.1".parse().unwrap()];
        s.allow_private = ["127.0.0.0/8", "::/96", "64:ff9b:1::/48", "2002::/16"].map(|net| net.parse().unwrap()).to_vec();
    })
    .await;
    for form in ["127.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::1]"] {
        assert_refused(&world.connect(format!("{form}:443")).await, 403, "address");
    }
    // the next address is not denied, so that it was this rule that decided
    assert_refused(&world.connect("127.0.0.2:1").await, 502, "connect");
}

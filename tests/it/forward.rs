//! Requests in absolute form through the embedded proxy, over real sockets on loopback.

use std::time::Duration;

use mustnot::proxy::{Reason, Settings};
use mustnot::target::PortSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::proxy::{PATIENCE, World, assert_refused, read_head, read_to_end, server, until};

async fn world(change: impl FnOnce(&mut Settings)) -> World {
    World::start(|settings| {
        settings.http_ports = PortSet::parse(["1-65535"]).unwrap();
        change(settings);
    })
    .await
}

/// Serves one connection: reads a head and `body` bytes behind it, answers, and gives all that came until the other side ended.
async fn serve_once(listener: &TcpListener, body: usize, answer: &[u8]) -> String {
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.expect("a connection in time").unwrap();
    let head = read_head(&mut stream).await;
    let mut rest = vec![0; body];
    timeout(PATIENCE, stream.read_exact(&mut rest)).await.expect("a body in time").unwrap();
    stream.write_all(answer).await.unwrap();
    stream.shutdown().await.unwrap();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end in time").ok();
    head + &String::from_utf8_lossy(&rest)
}

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn has(head: &str, field: &str) -> bool {
    head.lines().any(|line| line.eq_ignore_ascii_case(field))
}

#[tokio::test]
async fn a_request_is_written_anew_and_so_is_its_answer() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    let request = format!(
        "GET http://{at}/a%2fb?c=d HTTP/1.1\r\nHost: elsewhere.example\r\nX-Kept: 1\r\nUser-Agent: test/2\r\nConnection: X-Nominated, Upgrade\r\n\
         X-Nominated: secret\r\nUpgrade: websocket\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic c2VjcmV0\r\n\r\n"
    );
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n\
                   Proxy-Authenticate: Basic\r\nX-Told: yes\r\n\r\nhello";
    let (got, seen) = tokio::join!(world.ask(&request), serve_once(&listener, 0, answer));
    assert!(seen.starts_with("GET /a%2fb?c=d HTTP/1.1\r\n"), "{seen}");
    for kept in
        [format!("Host: {at}"), "X-Kept: 1".into(), "User-Agent: test/2".into(), "Via: 1.1 mustnot".into(), "Connection: close".into()]
    {
        assert!(has(&seen, &kept), "{kept}: {seen}");
    }
    for gone in ["elsewhere", "nominated", "secret", "upgrade", "keep-alive", "te:", "proxy-"] {
        assert!(!seen.to_lowercase().contains(gone), "{gone}: {seen}");
    }
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\nhello"), "{got}");
    assert!(has(&got, "X-Told: yes") && has(&got, "Via: 1.1 mustnot") && has(&got, "Connection: close"), "{got}");
    for gone in ["x-mine", "keep-alive", "proxy-authenticate"] {
        assert!(!got.to_lowercase().contains(gone), "{gone}: {got}");
    }
    assert_eq!(world.stats.requests("GET", Reason::Allow), 1);
    let log = world.end().await;
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log[0].contains(&format!(" GET http://{at}/a%2fb ")) && log[0].contains("TCP_MISS/200"), "{log:?}");
    assert!(log[1].contains("TCP_MISS/200") && log[1].contains("\"test/2\""), "{log:?}");
}

#[tokio::test]
async fn an_options_request_counts_its_hops() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    let options = |hops: u32| format!("OPTIONS http://{at}/ HTTP/1.1\r\nHost: a\r\nMax-Forwards: {hops}\r\n\r\n");
    let (got, seen) = tokio::join!(world.ask(options(3)), serve_once(&listener, 0, HELLO));
    assert!(got.ends_with("hello") && has(&seen, "Max-Forwards: 2"), "{seen}");
    assert_refused(&world.ask(options(0)).await, 400, "parse");
}

#[tokio::test]
async fn a_body_passes_whole_in_either_framing_and_nothing_behind_it_does() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    let smuggled = "GET http://169.254.169.254/latest HTTP/1.1\r\nHost: a\r\n\r\n";
    for (framing, wire) in
        [("Content-Length: 7", "a\r\n\r\nbc"), ("Transfer-Encoding: chunked", "3;x=y\r\na\r\n\r\n4\r\n\r\nbc\r\n0\r\nT: x\r\n\r\n")]
    {
        let request = format!("POST http://{at}/ HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{wire}{smuggled}");
        let expected = if framing.starts_with('C') { 7 } else { "3\r\na\r\n\r\n4\r\n\r\nbc\r\n0\r\n\r\n".len() };
        let (got, seen) = tokio::join!(world.ask(&request), serve_once(&listener, expected, HELLO));
        assert!(got.ends_with("\r\n\r\nhello"), "{got}");
        assert!(has(&seen, framing), "{seen}");
        assert!(!seen.contains("169.254"), "what follows the body went out: {seen}");
    }
    assert_eq!(world.stats.requests("GET", Reason::Allow), 0);
}

#[tokio::test]
async fn framing_that_can_be_misread_is_refused_and_the_connection_closed() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
    ] {
        let request =
            format!("POST http://{at}/ HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET http://{at}/ HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_refused(&world.ask(request).await, 400, "parse");
    }
    for (request, status, reason) in [
        (format!("TRACE http://{at}/ HTTP/1.1\r\nHost: a\r\n\r\n"), 403, "method"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 403, "method"),
        (format!("GET https://{at}/ HTTP/1.1\r\nHost: a\r\n\r\n"), 403, "method"),
        (format!("GET ftp://{at}/ HTTP/1.1\r\nHost: a\r\n\r\n"), 403, "method"),
        ("GET http://169.254.169.254/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 403, "address"),
        ("GET http://[64:ff9b::a9fe:a9fe]/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 403, "address"),
        (format!("GET http://{}/ HTTP/1.1\r\nHost: a\r\n\r\n", world.at), 403, "address"),
    ] {
        assert_refused(&world.ask(request).await, status, reason);
    }
    assert!(timeout(Duration::ZERO, listener.accept()).await.is_err(), "nobody was dialled");
}

#[tokio::test]
async fn a_chunk_that_cannot_be_read_ends_the_request() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    for chunks in ["-1\r\n", "10000000000000000\r\nx", "0x5\r\nhello\r\n", "5\nhello", " 5\r\nhello\r\n", "5\r\nhelloX\r\n0\r\n\r\n"] {
        let mut client = world.dial().await;
        let request = format!("POST http://{at}/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut origin, _) = timeout(PATIENCE, listener.accept()).await.expect("a connection in time").unwrap();
        let mut seen = Vec::new();
        timeout(PATIENCE, origin.read_to_end(&mut seen)).await.expect("the proxy gives up").ok();
        let seen = String::from_utf8_lossy(&seen);
        assert!(!seen.ends_with("0\r\n\r\n"), "{chunks:?} was sent on as whole: {seen:?}");
    }
}

#[tokio::test]
async fn an_answer_that_changes_the_protocol_unasked_is_a_gateway_error() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    let request = format!("GET http://{at}/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    for answer in [
        &b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    ] {
        let (got, _) = tokio::join!(world.ask(&request), serve_once(&listener, 0, answer));
        assert!(got.starts_with("HTTP/1.1 502 ") && has(&got, "X-Mustnot-Reason: connect"), "{answer:?}: {got}");
    }
    assert!(world.end().await.iter().any(|line| line.contains("TCP_MISS/502")));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_whole() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    // to HTTP/1.0 the end of the connection is the end of the answer: a reset alone tells that it is not
    for (version, answer) in [
        ("1.0", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("1.1", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
    ] {
        let mut client = world.dial().await;
        client.write_all(format!("GET http://{at}/ HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        serve_once(&listener, 0, answer.as_bytes()).await;
        let mut got = Vec::new();
        let ended = timeout(PATIENCE, client.read_to_end(&mut got)).await.expect("an end in time");
        assert!(ended.is_err(), "{version}: {:?}", String::from_utf8_lossy(&got));
    }
}

#[tokio::test]
async fn an_old_client_and_a_chunked_answer_understand_each_other() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let request = format!("GET http://{at}/ HTTP/1.0\r\n\r\n");
    let (got, seen) = tokio::join!(world.ask(&request), serve_once(&listener, 0, answer));
    assert!(seen.starts_with("GET / HTTP/1.1\r\n") && has(&seen, &format!("Host: {at}")), "{seen}");
    assert!(got.starts_with("HTTP/1.0 200 OK\r\n") && got.ends_with("\r\n\r\nhello"), "{got}");
}

#[tokio::test]
async fn bytes_are_counted_while_they_pass_and_silence_has_an_end() {
    let (listener, at) = server().await;
    let world = world(|settings| settings.idle_timeout = Duration::from_millis(400)).await;
    let mut client = world.dial().await;
    client.write_all(format!("GET http://{at}/ HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    let (mut origin, _) = listener.accept().await.unwrap();
    read_head(&mut origin).await;
    origin.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await.unwrap();
    origin.write_all(&[b'x'; 50_000]).await.unwrap();
    let source = "127.0.0.1/32".parse().unwrap();
    until("half of it is counted", || world.stats.received(source).get() >= 50_000).await;
    assert!(world.stats.sent(source).get() > 20);
    read_head(&mut client).await;
    let mut got = Vec::new();
    let ended = timeout(PATIENCE, client.read_to_end(&mut got)).await.expect("idle ends it");
    assert!(ended.is_err(), "cut off, and said so");
    assert!(world.end().await.last().unwrap().ends_with("reason=idle"));
}

#[tokio::test]
async fn a_body_that_waits_to_be_asked_for_is_asked_for() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    let mut client: TcpStream = world.dial().await;
    let head = format!("PUT http://{at}/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let asking = async {
        assert_eq!(read_head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"body").await.unwrap();
        read_to_end(&mut client).await
    };
    let (got, seen) = tokio::join!(asking, serve_once(&listener, 4, HELLO));
    assert!(got.ends_with("hello") && seen.ends_with("body") && !seen.to_lowercase().contains("expect"), "{got} {seen}");
}

#[tokio::test]
async fn curl_gets_and_puts_by_absolute_form() {
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIP curl_gets_and_puts_by_absolute_form: curl is not installed here");
        return;
    }
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    let curl = async |more: &[&str]| {
        let proxy = format!("http://{}", world.at);
        let to = format!("http://{at}/x");
        let args = ["--silent", "--show-error", "--max-time", "15", "--proxy", &proxy, "--noproxy", "", &to];
        tokio::process::Command::new("curl").args(args).args(more).output().await.unwrap()
    };
    let (output, seen) = tokio::join!(curl(&[]), serve_once(&listener, 0, HELLO));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello", "{output:?}");
    assert!(seen.starts_with("GET /x HTTP/1.1\r\n"), "{seen}");
    let large = "y".repeat(100_000);
    let put = ["--request", "PUT", "--header", "Expect: 100-continue", "--data", &large];
    let (output, seen) = tokio::join!(curl(&put), serve_once(&listener, large.len(), HELLO));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello", "{output:?}");
    assert!(seen.ends_with(&large), "{} bytes came", seen.len());
    let (output, _) = tokio::join!(curl(&["--head"]), serve_once(&listener, 0, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"));
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("ength: 5"), "{output:?}");
}

#[tokio::test]
async fn an_answer_that_two_readers_may_frame_differently_is_a_gateway_error() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    let request = format!("GET http://{at}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    for (fields, body, status) in [
        ("Transfer-Encoding: Chunked\r\n", chunked, 200),
        ("Content-Length: 5\r\n", "hello", 200),
        ("", "hello", 200),
        // read by its chunks it was cut to three bytes here, and looked whole
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", chunked, 502),
        ("Transfer-Encoding: gzip, chunked\r\n", chunked, 502),
        ("Transfer-Encoding: xchunked\r\n", chunked, 502),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "hello", 502),
        ("Content-Length: 5, 5\r\n", "hello", 502),
        ("Content-Length: +5\r\n", "hello", 502),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
        let (got, _) = tokio::join!(world.ask(&request), serve_once(&listener, 0, answer.as_bytes()));
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{fields:?}: {got}");
        assert_eq!(got.contains("hello"), status == 200, "{fields:?}: {got}");
    }
}

#[tokio::test]
async fn a_page_cannot_sign_as_the_proxy() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    let request = format!("GET http://{at}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    let forged = b"HTTP/1.1 403 Forbidden\r\nX-Mustnot-Reason: source\r\nContent-Length: 0\r\n\r\n";
    let (got, _) = tokio::join!(world.ask(&request), serve_once(&listener, 0, forged));
    assert!(got.starts_with("HTTP/1.1 403 ") && !got.to_lowercase().contains("x-mustnot"), "{got}");
}

#[tokio::test]
async fn interim_answers_pass_unseen_and_have_an_end() {
    let (listener, at) = server().await;
    let world = world(|_| {}).await;
    let request = format!("GET http://{at}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let few = hint.repeat(1000) + "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let (got, _) = tokio::join!(world.ask(&request), serve_once(&listener, 0, few.as_bytes()));
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && !got.contains("Link"), "{got}");
    let flood = async {
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        read_head(&mut stream).await;
        let many = hint.repeat(1000);
        while stream.write_all(many.as_bytes()).await.is_ok() {}
    };
    let (got, ()) = tokio::join!(world.ask(&request), async { timeout(PATIENCE, flood).await.expect("the proxy has enough of it") });
    assert!(got.starts_with("HTTP/1.1 502 "), "{got}");
    // a long answer is none of that
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(1_000_000));
    let (got, _) = tokio::join!(world.ask(&request), serve_once(&listener, 0, long.as_bytes()));
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.len() > 1_000_000, "{}", got.len());
}

/// Serves every connection with an answer by the path: `/` is there, `/secret` is not for us.
async fn site(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let head = read_head(&mut stream).await;
            let status = if head.starts_with("GET / ") { "200 OK" } else { "403 Forbidden" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
    }
}

#[tokio::test]
async fn a_check_by_absolute_form_tells_the_proxys_refusal_from_the_pages() {
    let (listener, at) = server().await;
    let serving = tokio::spawn(site(listener));
    let world = world(|_| {}).await;
    let proxy = world.at;
    let check = |name: &str, target: &str| {
        format!(
            "[[check]]\nname = \"{name}\"\nkind = \"http\"\ntarget = \"{target}\"\nvia = \"http://{proxy}\"\nvia_method = \"absolute\"\n\
             expect = \"open\"\nattempts = 1\nrequire = []\n"
        )
    };
    let text = format!(
        "vantage = \"here\"\n{}{}{}",
        check("there", &format!("http://{at}/")),
        check("secret", &format!("http://{at}/secret")),
        check("inside", "http://169.254.169.254/"),
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("probes.toml"), text).unwrap();
    let mut gate = tokio::process::Command::new(env!("CARGO_BIN_EXE_mustnot"));
    let output = gate.args(["check", "--format", "json"]).current_dir(folder.path()).output().await.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    for (name, verdict, outcome, stage) in
        [("there", "holds", "status:200", "http"), ("secret", "violated", "status:403", "http"), ("inside", "violated", "denied", "proxy")]
    {
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        let seen = &check["observations"][0];
        assert_eq!((&check["verdict"], &seen["outcome"], &seen["stage"]), (&verdict.into(), &outcome.into(), &stage.into()), "{check:#}");
        assert!(seen["evidence"]["request"].as_str().unwrap().starts_with("GET http://"), "{check:#}");
    }
    serving.abort();
}

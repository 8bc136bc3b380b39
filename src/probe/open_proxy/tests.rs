//! The suite against small servers that say what they are told, with real beacons of ours.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::beacon::Beacon;
use crate::net::resolve::Resolver;
use crate::observation::Attempt;
use crate::probe::Probe;

/// A beacon that answers until the test ends.
fn beacon(ip: &str, key: &Key) -> (Url, watch::Sender<bool>) {
    let beacon = Beacon::bind(vec![format!("{ip}:0").parse().unwrap()], key.clone()).unwrap();
    let url = format!("http://{}/", beacon.addresses()[0]).parse().unwrap();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(beacon.run(stopped, Duration::ZERO));
    (url, stop)
}

/// What a server does upon a request.
enum Does {
    Says(String),
    /// It passes the whole connection on to there, the request with it.
    Passes(SocketAddr),
    /// It grants a tunnel to there.
    Tunnels(SocketAddr),
    Hangs,
}

async fn server(does: impl Fn(&str) -> Does + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let does = Arc::new(does);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let does = Arc::clone(&does);
            tokio::spawn(async move {
                let mut read = vec![0; 4096];
                let n = stream.read(&mut read).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&read[..n]).into_owned();
                match does(&request) {
                    Does::Says(text) => {
                        let _ = stream.write_all(text.as_bytes()).await;
                        let _ = stream.shutdown().await;
                        let _ = stream.read(&mut read).await;
                    }
                    Does::Passes(to) => {
                        let mut there = TcpStream::connect(to).await.unwrap();
                        there.write_all(&read[..n]).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
                    }
                    Does::Tunnels(to) => {
                        let mut there = TcpStream::connect(to).await.unwrap();
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
                    }
                    Does::Hangs => tokio::time::sleep(Duration::from_secs(60)).await,
                }
            });
        }
    });
    address
}

fn says(text: &str) -> Does {
    Does::Says(text.into())
}

fn suite(target: SocketAddr, beacons: Vec<Url>, techniques: &[&str], key: &Key) -> OpenProxy {
    let techniques = techniques.iter().map(|id| Technique::of(id).unwrap()).collect();
    OpenProxy::new(target.into(), beacons, techniques, tls::Client::new(&tls::Options::default()).unwrap(), key.clone())
}

/// One attempt of each form.
async fn tried(suite: OpenProxy, timeout: Duration) -> Vec<(Subject, Attempt)> {
    let to = suite.target.socket_addr().unwrap();
    let probe = Probe::OpenProxy(suite);
    again(&probe, to, timeout).await
}

async fn again(probe: &Probe, to: SocketAddr, timeout: Duration) -> Vec<(Subject, Attempt)> {
    let mut made = Vec::new();
    for (subject, approach) in probe.subjects(to, None, timeout, Resolver::System) {
        let attempt = probe.attempt(&approach).await;
        made.push((subject, attempt));
    }
    made
}

const SOON: Duration = Duration::from_secs(5);

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

#[tokio::test]
async fn every_technique_has_its_forms_and_each_form_a_name_and_a_line() {
    let key = Key::ephemeral().unwrap();
    let at: SocketAddr = "192.0.2.3:3128".parse().unwrap();
    let ids: Vec<&str> = Technique::ALL.iter().map(|t| t.id()).collect();
    let mut count = Vec::new();
    for (beacons, spoof) in [
        (vec![url("http://198.51.100.1:443/")], vec![]),
        (vec![url("http://198.51.100.1:443/")], vec!["203.0.113.10/32"]),
        (vec![url("http://beacon.example:443/")], vec!["203.0.113.10/32", "2001:db8::/32"]),
    ] {
        let mut suite = suite(at, beacons, &ids, &key);
        suite.spoof = spoof.iter().map(|s| s.parse().unwrap()).collect();
        suite.allowed_destination = Some("allowed.example:443".parse().unwrap());
        count.push(suite.forms_known());
        let with_spoof = !suite.spoof.is_empty();
        let probe = Probe::OpenProxy(suite);
        let subjects = probe.subjects(at, None, SOON, Resolver::System);
        let names: BTreeSet<_> = subjects.iter().map(|(s, _)| (s.technique, s.variant.clone())).collect();
        assert_eq!(names.len(), subjects.len(), "two forms have one name");
        for technique in Technique::ALL {
            let any = subjects.iter().any(|(s, _)| s.technique == Some(technique.id()));
            assert_eq!(any, with_spoof || !technique.needs_spoof(), "{technique}");
        }
        for (subject, _) in &subjects {
            let line = probe.by_hand(subject, SOON).unwrap_or_else(|| panic!("{subject:?}"));
            assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        }
    }
    // What docs/techniques.md says of the costs.
    assert_eq!(count, [115, 137, 158]);
}

#[test]
fn a_forged_header_is_as_the_protocol_writes_it() {
    let at: SocketAddr = "192.0.2.3:3128".parse().unwrap();
    let key = Key::ephemeral().unwrap();
    let mut suite = suite(at, vec![url("http://198.51.100.1:443/")], &["OP-23", "OP-24"], &key);
    suite.spoof = vec!["10.0.0.0/8".parse().unwrap()];
    let prefixes: Vec<Vec<u8>> = suite.techniques.iter().flat_map(|t| catalogue::forms(&suite, *t, at)).map(|f| f.prefix).collect();
    assert_eq!(prefixes[0], b"PROXY TCP4 10.0.0.1 192.0.2.3 5555 3128\r\n");
    assert_eq!(prefixes[2], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\xc0\0\x02\x03\x15\xb3\x0c\x38");
    assert_eq!(prefixes[4], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    assert_eq!(prefixes[6], b"PROXY UNKNOWN\r\n");
}

#[tokio::test]
async fn a_grant_that_proves_nothing_is_no_denial() {
    let key = Key::ephemeral().unwrap();
    for (answer, outcome) in [
        ("HTTP/1.1 200 OK\r\n\r\n", Outcome::LocalError),
        ("HTTP/1.1 200 OK\r\n\r\n\r\n", Outcome::LocalError),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", Outcome::LocalError),
        ("HTTP/1.1 403 Forbidden\r\n\r\nno", Outcome::Denied),
        ("HTTP/1.1 302 Found\r\n\r\n", Outcome::NotRelayed),
        ("no\r\n", Outcome::NotRelayed),
    ] {
        let at = server(move |_| says(answer)).await;
        let mut suite = suite(at, Vec::new(), &["OP-07"], &key);
        suite.allowed_destination = Some("allowed.example:443".parse().unwrap());
        let made = tried(suite, SOON).await;
        assert_eq!(made[0].1.outcome, outcome, "{answer:?}: {:?}", made[0].1.evidence);
    }
}

#[tokio::test]
async fn where_no_beacon_is_a_grant_counts_only_beside_a_refusal() {
    let key = Key::ephemeral().unwrap();
    let (url, _stop) = beacon("127.0.0.1", &key);
    let to = url.authority.socket_addr().unwrap();
    const GRANT: &str = "HTTP/1.1 200 OK\r\n\r\n";
    const DENY: &str = "HTTP/1.1 403 No\r\n\r\n";
    // What is said of the beacon, of what cannot exist, and of a private place; and what that comes to.
    let cells = [
        (DENY, DENY, DENY, Outcome::Denied),
        (DENY, DENY, "HTTP/1.1 500 Unable to connect\r\n\r\n", Outcome::GatewayError),
        (DENY, DENY, "HTTP/1.1 503 No\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n\r\n", Outcome::AclPassed),
        (DENY, "HTTP/1.1 503 No\r\n\r\n", GRANT, Outcome::AclPassed),
        (DENY, DENY, GRANT, Outcome::AclPassed),
        (DENY, "HTTP/1.1 404 No\r\n\r\n", GRANT, Outcome::LocalError),
        (DENY, GRANT, GRANT, Outcome::LocalError),
        (GRANT, GRANT, GRANT, Outcome::NotRelayed),
    ];
    for (ours, nowhere, private, outcome) in cells {
        let own = format!("CONNECT {to} ");
        let at = server(move |request| match request {
            r if r.starts_with(&own) => says(ours),
            r if r.contains(NOWHERE) => says(nowhere),
            _ => says(private),
        })
        .await;
        let made = tried(suite(at, vec![url.clone()], &["OP-30"], &key), SOON).await;
        assert_eq!(made[0].1.outcome, outcome, "{ours:?} {nowhere:?} {private:?}: {:?}", made[0].1.evidence);
    }
    let at = server(move |request| if request.contains(NOWHERE) || request.contains("10.0.0.1") { says(GRANT) } else { Does::Tunnels(to) })
        .await;
    let made = tried(suite(at, vec![url.clone()], &["OP-30"], &key), SOON).await;
    assert_eq!(made[0].1.outcome, Outcome::Relayed);
}

#[tokio::test]
async fn a_reverse_proxy_of_one_beacon_is_no_relay_and_one_that_follows_the_host_is() {
    let key = Key::ephemeral().unwrap();
    let ((one, _stop), (other, _other_stop)) = (beacon("127.0.0.1", &key), beacon("127.0.0.2", &key));
    let (first, second) = (one.authority.socket_addr().unwrap(), other.authority.socket_addr().unwrap());
    let both = || vec![one.clone(), other.clone()];

    let fixed = server(move |_| Does::Passes(first)).await;
    let outcomes = |made: Vec<(Subject, Attempt)>| made.into_iter().map(|(_, a)| a.outcome).collect::<Vec<_>>();
    assert_eq!(outcomes(tried(suite(fixed, both(), &["OP-09"], &key), SOON).await), [Outcome::NotRelayed, Outcome::NotRelayed]);
    // Whatever the form, and whether the answer comes back or not.
    for technique in ["OP-02", "OP-03", "OP-04", "OP-10", "OP-11", "OP-13", "OP-33", "OP-36"] {
        let made = tried(suite(fixed, both(), &[technique], &key), SOON).await;
        let open = |o: &Outcome| matches!(o, Outcome::Relayed | Outcome::RelayedBlind);
        let astray = made.iter().filter(|(s, _)| s.variant.as_ref().is_none_or(|v| *v != other.authority.to_string()));
        assert!(astray.into_iter().all(|(_, a)| !open(&a.outcome)), "{technique}: {made:?}");
        assert!(outcomes(made).contains(&Outcome::NotRelayed), "{technique}");
    }
    assert_eq!(outcomes(tried(suite(fixed, vec![one.clone()], &["OP-09"], &key), SOON).await), [Outcome::Relayed]);

    let by_host =
        move |request: &str| if request.contains(&format!("Host: {second}")) { Does::Passes(second) } else { Does::Passes(first) };
    let routed = server(by_host).await;
    assert_eq!(outcomes(tried(suite(routed, both(), &["OP-09"], &key), SOON).await), [Outcome::Relayed, Outcome::Relayed]);

    // It relays to one of them only, and denies the other by name: still a relay.
    let half = server(
        move |request: &str| {
            if request.contains(&format!("Host: {second}")) { says("HTTP/1.1 403 No\r\n\r\n") } else { Does::Passes(first) }
        },
    )
    .await;
    assert_eq!(outcomes(tried(suite(half, both(), &["OP-09"], &key), SOON).await), [Outcome::Relayed, Outcome::Denied]);
}

#[tokio::test]
async fn what_comes_late_is_seen_by_the_next_run() {
    let key = Key::ephemeral().unwrap();
    let (url, _stop) = beacon("127.0.0.1", &key);
    let mute = server(|_| Does::Hangs).await;
    let probe = Probe::OpenProxy(suite(mute, vec![url.clone()], &["OP-02"], &key));
    let quickly = Duration::from_millis(300);
    let first = again(&probe, mute, quickly).await;
    assert_eq!(first[0].1.outcome, Outcome::Mute);
    let second = again(&probe, mute, quickly).await;
    assert_eq!(second[0].1.outcome, Outcome::Mute, "nothing came yet: {:?}", second[0].1.evidence);

    // The proxy dials after all.
    let mut late = TcpStream::connect(url.authority.socket_addr().unwrap()).await.unwrap();
    late.write_all(format!("{}\n", first[0].1.evidence.nonce.as_ref().unwrap()).as_bytes()).await.unwrap();
    late.read_to_end(&mut Vec::new()).await.unwrap();
    let third = again(&probe, mute, quickly).await;
    assert_eq!(third[0].1.outcome, Outcome::RelayedBlind, "{:?}", third[0].1.evidence);
    assert!(third[0].1.evidence.detail.as_ref().unwrap().contains("came late"));
    assert_eq!(again(&probe, mute, quickly).await[0].1.outcome, Outcome::Mute, "it is told once");
}

#[tokio::test]
async fn who_comes_from_an_allowed_address_is_no_stranger() {
    let key = Key::ephemeral().unwrap();
    let (url, _stop) = beacon("127.0.0.1", &key);
    let to = url.authority.socket_addr().unwrap();
    for (net, outcomes) in
        [("127.0.0.0/8", [Outcome::LocalError, Outcome::LocalError]), ("127.0.0.2/32", [Outcome::Relayed, Outcome::Denied])]
    {
        let at =
            server(move |request| if request.starts_with("CONNECT") { Does::Tunnels(to) } else { says("HTTP/1.1 403 No\r\n\r\n") }).await;
        let mut suite = suite(at, vec![url.clone()], &["OP-01", "OP-02"], &key);
        suite.spoof = vec![net.parse().unwrap()];
        let made = tried(suite, SOON).await;
        assert_eq!([made[0].1.outcome, made[2].1.outcome], outcomes, "{net}: {:?}", made[0].1.evidence);
    }
}

#[tokio::test]
async fn a_later_answer_of_the_connection_counts() {
    let key = Key::ephemeral().unwrap();
    let (url, _stop) = beacon("127.0.0.1", &key);
    let two = |second: &str| format!("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n{second}");
    for (second, outcome) in [
        ("HTTP/1.1 403 No\r\n\r\n", Outcome::Denied),
        ("HTTP/1.1 503 No\r\nX-Squid-Error: ERR_CONNECT_FAIL 101\r\n\r\n", Outcome::AclPassed),
        ("HTTP/1.1 502 No\r\n\r\n", Outcome::GatewayError),
        ("", Outcome::NotRelayed),
    ] {
        let answer = two(second);
        let at = server(move |_| says(&answer)).await;
        let made = tried(suite(at, vec![url.clone()], &["OP-13"], &key), SOON).await;
        assert_eq!(made[0].1.outcome, outcome, "{second:?}");
    }
}

#[tokio::test]
async fn the_managers_page_is_known_by_what_it_has() {
    let key = Key::ephemeral().unwrap();
    let (url, _stop) = beacon("127.0.0.1", &key);
    for (answer, outcome) in [
        ("HTTP/1.1 200 OK\r\n\r\nSquid Object Cache: Version 5.7", Outcome::AclPassed),
        ("HTTP/1.1 200 OK\r\n\r\nwelcome", Outcome::NotRelayed),
        ("HTTP/1.1 403 No\r\n\r\nSquid Object Cache", Outcome::Denied),
    ] {
        let at = server(move |_| says(answer)).await;
        for (subject, attempt) in tried(suite(at, vec![url.clone()], &["OP-34"], &key), SOON).await {
            assert_eq!(attempt.outcome, outcome, "{answer:?} {:?}", subject.variant);
        }
    }
}

#[tokio::test]
async fn what_speaks_no_http2_says_so_and_what_does_relays() {
    let key = Key::ephemeral().unwrap();
    let (url, _stop) = beacon("127.0.0.1", &key);
    for (answer, outcome) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", Outcome::NotUnderstood),
        ("HTTP/1.1 403 No\r\n\r\n", Outcome::Denied),
        ("SSH-2.0-x\r\n", Outcome::NotUnderstood),
        ("", Outcome::Denied),
    ] {
        let at = server(move |_| says(answer)).await;
        for (subject, attempt) in tried(suite(at, vec![url.clone()], &["OP-15"], &key), SOON).await {
            assert_eq!(attempt.outcome, outcome, "{answer:?} {:?}", subject.variant);
        }
    }

    let at = http2_proxy(url.authority.socket_addr().unwrap()).await;
    for (subject, attempt) in tried(suite(at, vec![url.clone()], &["OP-15"], &key), SOON).await {
        assert_eq!(attempt.outcome, Outcome::Relayed, "{:?}: {:?}", subject.variant, attempt.evidence);
    }
}

/// A forward proxy that speaks HTTP/2 alone, and leads to the beacon whatever it is asked for.
async fn http2_proxy(beacon: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut send = respond.send_response(::http::Response::new(()), false).unwrap();
                        let path = request.uri().path().to_string();
                        let word = match request.method() == ::http::Method::CONNECT {
                            true => request.into_body().data().await.unwrap().unwrap().to_vec(),
                            false => format!("{}\n", path.trim_start_matches('/')).into_bytes(),
                        };
                        let mut there = TcpStream::connect(beacon).await.unwrap();
                        there.write_all(&word).await.unwrap();
                        let mut answer = Vec::new();
                        there.read_to_end(&mut answer).await.unwrap();
                        send.send_data(answer.into(), true).unwrap();
                    });
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn who_speaks_no_tls_has_not_understood() {
    let key = Key::ephemeral().unwrap();
    let (url, _stop) = beacon("127.0.0.1", &key);
    for (answer, outcome) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", Outcome::NotUnderstood),
        ("\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{28}", Outcome::Denied),
        ("", Outcome::Denied),
    ] {
        let at = server(move |_| says(answer)).await;
        for (subject, attempt) in tried(suite(at, vec![url.clone()], &["OP-17"], &key), SOON).await {
            assert_eq!(attempt.outcome, outcome, "{answer:?} {:?}: {:?}", subject.variant, attempt.evidence);
        }
    }
}

proptest::proptest! {
    /// Whoever answers whatever: no panic, and nothing but a signature is a relay.
    #[test]
    fn no_answer_is_a_relay_without_the_signature(read in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        let mut evidence = Evidence::default();
        let outcome = of_answers(&read, Outcome::Closed, &mut evidence);
        proptest::prop_assert!(!matches!(outcome, Outcome::Relayed | Outcome::RelayedBlind | Outcome::Tunnelled));
        for_printf(&read);
    }
}

#[tokio::test]
async fn who_lets_in_browsers_alone_is_seen() {
    let key = Key::ephemeral().unwrap();
    let (url, _stop) = beacon("127.0.0.1", &key);
    let to = url.authority.socket_addr().unwrap();
    let at = server(move |request| match request {
        r if !r.contains("User-Agent: Mozilla/") || !r.contains("Proxy-Connection: ") => says("HTTP/1.1 403 No\r\n\r\n"),
        r if !r.contains("X-Monitor: mustnot/") => says("HTTP/1.1 500 it hides\r\n\r\n"),
        r if r.starts_with("CONNECT") => Does::Tunnels(to),
        _ => Does::Passes(to),
    })
    .await;
    for technique in ["OP-01", "OP-02"] {
        let outcomes: Vec<_> =
            tried(suite(at, vec![url.clone()], &[technique], &key), SOON).await.into_iter().map(|(_, a)| a.outcome).collect();
        assert_eq!(outcomes, [Outcome::Denied, Outcome::Relayed], "{technique}");
    }
}

#[tokio::test]
async fn who_asks_for_a_password_and_takes_any_is_seen() {
    use base64::Engine as _;
    let key = Key::ephemeral().unwrap();
    let (url, _stop) = beacon("127.0.0.1", &key);
    let to = url.authority.socket_addr().unwrap();
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let asked = Arc::clone(&seen);
    let at = server(move |request| {
        let basic = request.lines().find_map(|l| l.strip_prefix("Proxy-Authorization: Basic "));
        let Some(basic) = basic else { return says("HTTP/1.1 407 No\r\n\r\n") };
        asked.lock().unwrap().insert(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(basic).unwrap()).unwrap());
        if request.starts_with("CONNECT") { Does::Tunnels(to) } else { Does::Passes(to) }
    })
    .await;
    let outcomes: Vec<_> = tried(suite(at, vec![url.clone()], &["OP-19"], &key), SOON).await.into_iter().map(|(_, a)| a.outcome).collect();
    assert_eq!(outcomes[1..], [Outcome::Denied, Outcome::Relayed, Outcome::Relayed]);
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 2 && seen.iter().all(|pair| pair.split(':').all(|half| half.len() == 16)), "{seen:?}");
}

/// What would make a proxy without loop detection call itself: a request, not a bare tunnel, that names it in URI or Host.
#[test]
fn no_request_names_the_proxy_itself() {
    let key = Key::ephemeral().unwrap();
    let at: SocketAddr = "192.0.2.3:3128".parse().unwrap();
    let ids: Vec<&str> = Technique::ALL.iter().map(|t| t.id()).collect();
    let mut suite = suite(at, vec![url("http://198.51.100.1:443/")], &ids, &key);
    for destination in [None, Some("allowed.example:443".parse().unwrap())] {
        suite.allowed_destination = destination;
        for form in suite.techniques.iter().flat_map(|t| catalogue::forms(&suite, *t, at)) {
            if let Talk::Request(text) | Talk::Word(text) | Talk::Manager(text) = &form.talk {
                assert!(!text.contains("192.0.2.3"), "{} {:?}: {text}", form.technique, form.variant);
            }
        }
    }
}

/// A SOCKS5 server that answers CONNECT with the one reply and all else with the other, and says what it hears.
async fn socks_server(connect: &'static [u8], other: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut read = [0; 512];
                let _ = stream.read(&mut read).await;
                let _ = stream.write_all(&[5, 0]).await;
                let _ = stream.read(&mut read).await;
                let _ = stream.write_all(if read[1] == socks::CONNECT { connect } else { other }).await;
                let _ = stream.read(&mut read).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_grant_for_datagrams_counts_only_beside_a_refusal() {
    let key = Key::ephemeral().unwrap();
    let (url, _stop) = beacon("127.0.0.1", &key);
    const GRANT: &[u8] = &[5, 0, 0, 1, 10, 0, 0, 3, 0, 80];
    for (connect, other, outcome) in [
        (&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0][..], GRANT, Outcome::AclPassed),
        (&[5, 1, 0, 1, 0, 0, 0, 0, 0, 0], GRANT, Outcome::AclPassed),
        (GRANT, GRANT, Outcome::NotRelayed),
        (GRANT, &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0], Outcome::Denied),
        (&[], GRANT, Outcome::LocalError),
        (b"no", GRANT, Outcome::LocalError),
    ] {
        let at = socks_server(connect, other).await;
        for (subject, attempt) in tried(suite(at, vec![url.clone()], &["OP-21"], &key), Duration::from_secs(1)).await {
            assert_eq!(attempt.outcome, outcome, "{connect:?} {other:?} {:?}: {:?}", subject.variant, attempt.evidence);
        }
    }
}

/// A TLS server with that certificate, for that name alone or for everybody.
async fn tls_server(made: &rcgen::CertifiedKey<rcgen::KeyPair>, only_for: Option<&str>) -> SocketAddr {
    use rustls::server::{ResolvesServerCertUsingSni, ServerConfig};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_no_client_auth();
    let config = match only_for {
        Some(name) => {
            let mut by_name = ResolvesServerCertUsingSni::new();
            let shown = rustls::sign::CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider).unwrap();
            by_name.add(name, shown).unwrap();
            builder.with_cert_resolver(Arc::new(by_name))
        }
        None => builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap(),
    };
    let (listener, acceptor) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), tokio_rustls::TlsAcceptor::from(Arc::new(config)));
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read(&mut [0; 512]).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn who_goes_by_the_server_name_is_known_by_the_destinations_certificate() {
    let key = Key::ephemeral().unwrap();
    let made = rcgen::generate_simple_self_signed(["allowed.example".to_string()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = Some(folder.path().join("ca.pem"));
    std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
    for (only_for, ca_file, outcome) in [
        (Some("allowed.example"), ca_file, Outcome::Tunnelled),
        (Some("allowed.example"), None, Outcome::LocalError),
        (Some("other.example"), None, Outcome::Denied),
        (None, None, Outcome::NotRelayed),
        (None, Some(folder.path().join("ca.pem")), Outcome::LocalError),
    ] {
        let made = match only_for {
            Some("other.example") => &rcgen::generate_simple_self_signed(["other.example".to_string()]).unwrap(),
            _ => &made,
        };
        let at = tls_server(made, only_for).await;
        let mut suite = suite(at, Vec::new(), &["OP-07"], &key);
        suite.allowed_destination = Some("allowed.example:443".parse().unwrap());
        suite.tls = tls::Client::new(&tls::Options { ca_file, ..tls::Options::default() }).unwrap();
        let made = tried(suite, SOON).await;
        assert_eq!(made[1].0.variant.as_deref(), Some(Evidence::SERVER_NAME));
        assert_eq!(made[1].1.outcome, outcome, "{only_for:?}: {:?}", made[1].1.evidence);
    }
    for (answer, outcome) in [("HTTP/1.1 400 Bad Request\r\n\r\n", Outcome::NotUnderstood), ("", Outcome::Denied)] {
        let mut suite = suite(server(move |_| says(answer)).await, Vec::new(), &["OP-07"], &key);
        suite.allowed_destination = Some("allowed.example:443".parse().unwrap());
        assert_eq!(tried(suite, SOON).await[1].1.outcome, outcome, "{answer:?}");
    }
}

#[tokio::test]
async fn a_relay_by_names_is_never_told_its_own() {
    let key = Key::ephemeral().unwrap();
    let (url, _stop) = beacon("127.0.0.1", &key);
    let by_name = |at: SocketAddr, techniques: &[&str]| {
        let mut suite = suite(at, vec![url.clone()], techniques, &key);
        suite.target = format!("localhost:{}", at.port()).parse().unwrap();
        suite.allowed_destination = Some("allowed.example:443".parse().unwrap());
        suite
    };
    // Who closes, or says handshake_failure, may be one.
    for answer in ["", "\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{28}"] {
        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let at = server(move |hello| {
            hears.lock().unwrap().push(hello.to_string());
            says(answer)
        })
        .await;
        for (subject, attempt) in again(&Probe::OpenProxy(by_name(at, &["OP-17", "OP-07"])), at, SOON).await {
            let by_tls = subject.technique == Some("OP-17") || subject.variant.is_some();
            assert!(!by_tls || attempt.outcome == Outcome::Denied, "{answer:?} {:?}: {:?}", subject.variant, attempt);
        }
        let heard = heard.lock().unwrap();
        assert!(heard.len() >= 5 && heard.iter().any(|hello| hello.contains("allowed.example")), "{heard:?}");
        assert!(!heard.iter().any(|hello| hello.contains("localhost")), "{heard:?}");
    }
    // Who ends TLS himself, and has no certificate for who names nobody, is named.
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let ends_tls = tls_server(&made, Some("localhost")).await;
    for (subject, attempt) in again(&Probe::OpenProxy(by_name(ends_tls, &["OP-17"])), ends_tls, SOON).await {
        assert!(attempt.evidence.tls_version.is_some(), "{:?}: {:?}", subject.variant, attempt.evidence);
        assert_eq!((attempt.evidence.authenticated, attempt.evidence.tls_alert), (None, None));
    }
}

//! The beacon and the practice page, from outside: over sockets, by their public interface alone.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use mustnot::admin_page::AdminPage;
use mustnot::beacon::Beacon;
use mustnot::clock::Wall;
use mustnot::target::parse_cidr;
use mustnot::token::{Answer, Finding, Flaw, Key, LogAnswer, NONCE_LIFE_MS, Nonce, Question, SKEW_MS};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const CLIENT: &str = "127.0.0.66:0";
const GRACE: Duration = Duration::from_secs(5);

fn key() -> Key {
    Key::from_text("the key that all these tests share").unwrap()
}

fn now() -> i64 {
    Wall::now().unix_millis()
}

fn mint() -> Nonce {
    Nonce::mint(&key(), now()).unwrap()
}

/// A running server, and the way to stop it.
struct Running {
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn beacon() -> Running {
        let listen = vec!["127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
        let beacon = Beacon::bind(listen, key()).unwrap();
        Running::start(beacon.addresses(), |stop| beacon.run(stop, GRACE))
    }

    fn start<F: Future<Output = ()> + Send + 'static>(addresses: Vec<SocketAddr>, run: impl FnOnce(watch::Receiver<bool>) -> F) -> Running {
        let (stop, stopped) = watch::channel(false);
        Running { addresses, stop, task: tokio::spawn(run(stopped)) }
    }

    fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

async fn connect(to: SocketAddr, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(from.parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// What comes back until the other side closes, and our own address.
async fn exchange(to: SocketAddr, request: &str) -> (String, SocketAddr) {
    let mut stream = connect(to, CLIENT).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    (answer, stream.local_addr().unwrap())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: beacon.example.com\r\n\r\n")
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").unwrap().1
}

async fn ask(to: SocketAddr, nonce: &Nonce) -> (LogAnswer, SocketAddr) {
    let question = Question::ask(&key(), nonce, now()).unwrap();
    let (response, us) = exchange(to, &get(&format!("/log/{question}"))).await;
    (LogAnswer::verify(&key(), body(&response), &question).unwrap(), us)
}

#[tokio::test]
async fn raw_and_http_are_answered_on_every_port_with_what_was_seen() {
    let beacon = Running::beacon();
    assert_eq!(beacon.addresses.len(), 2);
    for &address in &beacon.addresses {
        for form in ["raw", "origin", "deep", "absolute", "post", "foo", "http/1.0"] {
            let nonce = mint();
            let request = match form {
                "raw" => format!("{nonce}\n"),
                "origin" => get(&format!("/{nonce}")),
                "deep" => get(&format!("/some/path/{nonce}?query=/x")),
                "absolute" => get(&format!("http://beacon.example.com:443/{nonce}")),
                "post" => format!("POST /{nonce} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"),
                "foo" => format!("FOO /{nonce} HTTP/1.1\r\nHost: x\r\n\r\n"),
                _ => format!("GET /{nonce} HTTP/1.0\r\n\r\n"),
            };
            let (response, us) = exchange(address, &request).await;
            let line = if form == "raw" {
                response.as_str()
            } else {
                assert!(response.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain"), "{form}: {response}");
                for header in ["Cache-Control: no-store", "Connection: close", &format!("Content-Length: {}", body(&response).len())] {
                    assert!(response.contains(&format!("\r\n{header}\r\n")), "{form}: {header}: {response}");
                }
                body(&response)
            };
            assert!(line.ends_with('\n'), "{form}");
            let answer = Answer::verify(&key(), line, &nonce).unwrap();
            assert_eq!((answer.peer, answer.port), (us, address.port()), "{form}");
            assert!((answer.at_unix_ms - now()).abs() < 10_000, "{form}");
        }
    }
    beacon.stop().await;
}

#[tokio::test]
async fn a_client_may_half_close_instead_of_ending_its_line() {
    let beacon = Running::beacon();
    for end in ["", "\n", "\r\n"] {
        let nonce = mint();
        let mut stream = connect(beacon.address(), CLIENT).await;
        stream.write_all(format!("{nonce}{end}").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut line = String::new();
        stream.read_to_string(&mut line).await.unwrap();
        assert!(Answer::verify(&key(), &line, &nonce).is_ok(), "{end:?}");
    }
    beacon.stop().await;
}

#[tokio::test]
async fn an_answer_survives_what_the_client_still_sends() {
    let beacon = Running::beacon();
    let nonce = mint();
    let (answer, _) = exchange(beacon.address(), &format!("{nonce}\n{}", "x".repeat(30_000))).await;
    assert!(Answer::verify(&key(), &answer, &nonce).is_ok());
    beacon.stop().await;
}

#[tokio::test]
async fn head_gets_the_head_alone_and_is_seen() {
    let beacon = Running::beacon();
    let nonce = mint();
    let (response, _) = exchange(beacon.address(), &format!("HEAD /{nonce} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && !response.contains("Content-Length: 0\r\n"), "{response}");
    assert_eq!(body(&response), "");
    assert!(matches!(ask(beacon.address(), &nonce).await.0.finding, Finding::Known(_)));
    beacon.stop().await;
}

#[tokio::test]
async fn what_does_not_verify_gets_nothing_of_itself_back() {
    let beacon = Running::beacon();
    let long_ago = now() - NONCE_LIFE_MS - SKEW_MS - 1;
    let other_key = Key::from_text("another key, of more than 32 bytes").unwrap();
    let mut forged = mint().to_string();
    let last = if forged.ends_with('0') { '1' } else { '0' };
    forged.pop();
    forged.push(last);
    let words = [
        Nonce::mint(&key(), long_ago).unwrap().to_string(),
        Nonce::mint(&other_key, now()).unwrap().to_string(),
        forged,
        mint().to_string().to_uppercase(),
        "a".repeat(Nonce::LENGTH),
        "hello".to_string(),
    ];
    for word in words {
        assert_eq!(exchange(beacon.address(), &format!("{word}\n")).await.0, "", "{word}");
        for path in [format!("/{word}"), format!("/log/{word}"), format!("http://h/{word}"), format!("/?{word}")] {
            let (response, _) = exchange(beacon.address(), &get(&path)).await;
            assert!(response.starts_with("HTTP/1.1 404 Not Found\r\n"), "{path}: {response}");
            assert!(
                response.ends_with("\r\nConnection: close\r\n\r\n") && response.contains("Content-Length: 0\r\n"),
                "{path}: {response}"
            );
            assert!(!response.contains(&word), "{path}: {response}");
        }
    }
    beacon.stop().await;
}

#[tokio::test]
async fn a_nonce_in_a_query_or_a_header_is_no_request_for_it() {
    let beacon = Running::beacon();
    let nonce = mint();
    let (response, _) = exchange(beacon.address(), &format!("GET /?{nonce} HTTP/1.1\r\nX: /{nonce}\r\n\r\n")).await;
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    assert_eq!(ask(beacon.address(), &nonce).await.0.finding, Finding::Unknown);
    beacon.stop().await;
}

#[tokio::test]
async fn the_log_knows_what_was_brought_and_says_so_of_nothing_else() {
    let beacon = Running::beacon();
    let nonce = mint();
    let (unknown, us) = ask(beacon.address(), &nonce).await;
    assert_eq!((unknown.finding, unknown.asker), (Finding::Unknown, us));
    let (_, first) = exchange(beacon.addresses[0], &format!("{nonce}\n")).await;
    let (_, second) = exchange(beacon.addresses[1], &get(&format!("/{nonce}"))).await;
    let Finding::Known(sightings) = ask(beacon.address(), &nonce).await.0.finding else { panic!("not known") };
    let seen: Vec<_> = sightings.iter().map(|s| (s.peer, s.port)).collect();
    assert_eq!(seen, [(first, beacon.addresses[0].port()), (second, beacon.addresses[1].port())], "one log for all ports");
    assert_eq!(ask(beacon.address(), &mint()).await.0.finding, Finding::Unknown);
    beacon.stop().await;
}

#[tokio::test]
async fn a_nonce_that_is_older_than_the_beacon_is_forgotten_and_not_unknown() {
    let beacon = Running::beacon();
    let before = Nonce::mint(&key(), now() - 30_000).unwrap();
    assert_eq!(ask(beacon.address(), &before).await.0.finding, Finding::Forgotten);
    exchange(beacon.address(), &format!("{before}\n")).await;
    assert!(matches!(ask(beacon.address(), &before).await.0.finding, Finding::Known(_)));
    beacon.stop().await;
}

#[tokio::test]
async fn a_relay_that_throws_the_answer_away_is_in_the_log() {
    let beacon = Running::beacon();
    let nonce = mint();
    let mut stream = connect(beacon.address(), CLIENT).await;
    stream.write_all(format!("{nonce}\n").as_bytes()).await.unwrap();
    let us = stream.local_addr().unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.unwrap();
    // By the first byte of the answer the sighting is already in the log.
    let Finding::Known(sightings) = ask(beacon.address(), &nonce).await.0.finding else { panic!("not known") };
    assert_eq!(sightings[0].peer, us);
    drop(stream);
    beacon.stop().await;
}

#[tokio::test]
async fn a_question_counts_only_under_its_own_tag_path_and_method() {
    let beacon = Running::beacon();
    let nonce = mint();
    let question = Question::ask(&key(), &nonce, now()).unwrap();
    let expired = Question::ask(&key(), &nonce, now() - 10 * SKEW_MS).unwrap();
    let other = Question::ask(&Key::from_text("another key, of more than 32 bytes").unwrap(), &nonce, now()).unwrap();
    let refused = [
        get(&format!("/{question}")),
        get(&format!("/log/x/{question}")),
        get(&format!("/log/{expired}")),
        get(&format!("/log/{other}")),
        format!("POST /log/{question} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ];
    for request in refused {
        let (response, _) = exchange(beacon.address(), &request).await;
        assert!(response.starts_with("HTTP/1.1 404 ") && body(&response).is_empty(), "{request}: {response}");
    }
    assert_eq!(exchange(beacon.address(), &format!("{question}\n")).await.0, "", "raw");
    // A nonce asked as a question is a nonce: it is answered as one, which no reader of the log takes for the log's answer.
    let (response, _) = exchange(beacon.address(), &get(&format!("/log/{nonce}"))).await;
    assert_eq!(LogAnswer::verify(&key(), body(&response), &question), Err(Flaw::Format));
    assert!(Answer::verify(&key(), body(&response), &nonce).is_ok());
    beacon.stop().await;
}

#[tokio::test]
async fn stopping_ends_it_within_the_grace() {
    let beacon = Beacon::bind(vec!["127.0.0.1:0".parse().unwrap()], key()).unwrap();
    let beacon = Running::start(beacon.addresses(), |stop| beacon.run(stop, Duration::from_millis(50)));
    let address = beacon.address();
    let idle = connect(address, CLIENT).await;
    tokio::time::timeout(Duration::from_secs(5), beacon.stop()).await.unwrap();
    drop(idle);
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn accepting_survives_a_full_descriptor_table() {
    // In a process of its own, since the table is the process's.
    let itself = std::env::current_exe().unwrap();
    let child = Command::new(itself).args(["--exact", "--ignored", "beacon::with_a_full_descriptor_table"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "started by accepting_survives_a_full_descriptor_table, in a process of its own"]
async fn with_a_full_descriptor_table() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let beacon = Running::beacon();
    let sockets: Vec<TcpSocket> = (0..8).map(|_| TcpSocket::new_v4().unwrap()).collect();
    let mut fill = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        fill.push(file);
    }
    assert!(fill.len() > 8, "there was room before");
    let nonce = mint();
    let mut clients = Vec::new();
    for socket in sockets {
        // The kernel's queue takes them; no descriptor is left to accept them with.
        let mut client = socket.connect(beacon.address()).await.unwrap();
        client.write_all(format!("{nonce}\n").as_bytes()).await.unwrap();
        clients.push(client);
    }
    let unanswered = tokio::time::timeout(Duration::from_millis(300), clients[0].read_u8()).await;
    assert!(unanswered.is_err(), "{unanswered:?}");
    drop(fill);
    for mut client in clients {
        let mut line = String::new();
        client.read_to_string(&mut line).await.unwrap();
        assert!(Answer::verify(&key(), &line, &nonce).is_ok(), "{line}");
    }
    beacon.stop().await;
}

#[tokio::test]
async fn curl_reads_the_beacon_and_the_page() {
    if Command::new("curl").arg("--version").output().await.is_err() {
        eprintln!("SKIP curl_reads_the_beacon_and_the_page: curl is not installed here");
        return;
    }
    let curl = async |url: String| {
        let output = Command::new("curl").args(["-sS", "--noproxy", "*", "--interface", "127.0.0.66", &url]).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let beacon = Running::beacon();
    let nonce = mint();
    let line = curl(format!("http://{}/{nonce}", beacon.address())).await;
    assert_eq!(Answer::verify(&key(), &line, &nonce).unwrap().peer.ip().to_string(), "127.0.0.66");
    beacon.stop().await;
    let page = AdminPage::bind("127.0.0.1:0".parse().unwrap(), vec![parse_cidr("127.0.0.66").unwrap()]).unwrap();
    let page = Running::start(vec![page.address()], |stop| page.run(stop, GRACE));
    assert!(curl(format!("http://{}/", page.address())).await.contains("<h1>Admin</h1>"));
    page.stop().await;
}

#[tokio::test]
async fn the_practice_page_is_for_allowed_sources_alone() {
    let page = AdminPage::bind("127.0.0.1:0".parse().unwrap(), vec![parse_cidr("127.0.0.66").unwrap()]).unwrap();
    let page = Running::start(vec![page.address()], |stop| page.run(stop, GRACE));
    let cases = [
        ("127.0.0.66:0", "/", "HTTP/1.1 200 OK", "</html>\n"),
        ("127.0.0.66:0", "/other", "HTTP/1.1 404 Not Found", "there is only /\n"),
        ("127.0.0.67:0", "/", "HTTP/1.1 403 Forbidden", "\r\n\r\nyour address is not on the allow list\n"),
    ];
    for (from, path, status, end) in cases {
        let mut stream = connect(page.address(), from).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 127.0.0.66\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with(status) && response.ends_with(end), "{path} from {from}: {response}");
        assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
    }
    page.stop().await;
}

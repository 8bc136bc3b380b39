//! Serving: listening and accepting for all who do, and the small server under the beacon and the practice page: bounded
//! reading, one answer a connection, a gentle close.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::target::fold_mapped;

/// How long a client may take over its request; far more than any proxy needs, short enough that slow ones do not pile up.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Connections at a time over all ports of one server; each costs a descriptor and some 20 KiB at most.
const MAX_CONNECTIONS: usize = 1024;
/// The longest request head (SPEC section 11 has the same for the proxy).
const MAX_HEAD: usize = 16 * 1024;
/// The most header lines.
const MAX_HEADERS: usize = 64;
/// The longest first line that is looked at as a word of its own.
const MAX_WORD: usize = 512;
/// How long an answer of a few hundred bytes may take to leave.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long and how much is drained after the answer: what is unread at close makes the kernel send RST, and RST can destroy the answer.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
const MAX_DRAIN: usize = 64 * 1024;
/// Connections that the kernel queues until they are accepted, as far as net.core.somaxconn lets it.
const BACKLOG: i32 = 4096;
/// The pause after a failed accept: EMFILE lasts until some descriptor is closed, and must not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client opened with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A first line that the caller knows.
    Word(String),
    /// The head of an HTTP/1.x request.
    Request(Request),
    /// Neither, in time and within the bounds.
    Nothing,
}

/// The first line of an HTTP request; its headers are read and not used, so that none is ever believed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
}

impl Request {
    /// The path, without query, of a target in origin-form or absolute-form (RFC 9112 section 3.2); `/` where there is none.
    pub(crate) fn path(&self) -> &str {
        let rest = match self.target.split_once("://") {
            Some((scheme, rest)) if !scheme.contains('/') => rest.find(['/', '?']).map_or("", |at| rest.split_at(at).1),
            _ => &self.target,
        };
        let path = rest.split(['?', '#']).next().unwrap_or(rest);
        if path.is_empty() { "/" } else { path }
    }

    /// Whether it asks for the head alone (RFC 9110 section 9.3.2).
    pub(crate) fn head_alone(&self) -> bool {
        self.method == "HEAD"
    }

    /// Whether it only reads.
    pub(crate) fn reads(&self) -> bool {
        self.method == "GET" || self.head_alone()
    }
}

/// One HTTP answer, after which the connection closes.
pub(crate) struct Response {
    /// Code and phrase.
    pub(crate) status: &'static str,
    content_type: &'static str,
    body: String,
    /// Where to go instead.
    location: Option<String>,
}

impl Response {
    pub(crate) fn text(status: &'static str, body: String) -> Response {
        Response { status, content_type: "text/plain; charset=utf-8", body, location: None }
    }

    pub(crate) fn page(status: &'static str, body: String) -> Response {
        Response { status, content_type: "text/html; charset=utf-8", body, location: None }
    }

    /// RFC 9110 section 15.4.4: ask there, with GET.
    pub(crate) fn see_other(location: String) -> Response {
        let body = format!("go to {location}\n");
        Response { location: Some(location), ..Response::text("303 See Other", body) }
    }

    /// The bytes to send; never cached, since an old answer would be taken for a new one.
    pub(crate) fn bytes(&self, head_alone: bool) -> Vec<u8> {
        let Response { status, content_type, body, location } = self;
        let location = location.as_ref().map_or(String::new(), |to| format!("Location: {to}\r\n"));
        let head = format!(
            "HTTP/1.1 {status}\r\n{location}Content-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            body.len()
        );
        if head_alone { head.into_bytes() } else { (head + body).into_bytes() }
    }
}

/// Listens on every address. `[::]` takes IPv4 too, as Linux does, unless the list gives IPv4 on that port to another listener.
///
/// # Errors
/// The address that cannot be had, why, and what to do.
pub(crate) fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, String> {
    addresses.iter().map(|&address| open(address, addresses).map_err(|e| cannot_listen(address, &e))).collect()
}

fn open(address: SocketAddr, all: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(all.iter().any(|other| other.is_ipv4() && other.port() == address.port()))?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn cannot_listen(address: SocketAddr, e: &io::Error) -> String {
    let remedy = match e.kind() {
        io::ErrorKind::AddrInUse => "stop what listens there (ss -ltnp shows it), or choose another port",
        io::ErrorKind::AddrNotAvailable => "choose an address of this host, or 0.0.0.0 or [::] for all of them",
        io::ErrorKind::PermissionDenied => "choose a port from 1024 up, or give the process CAP_NET_BIND_SERVICE",
        _ => "choose another address",
    };
    format!("cannot listen on {address}: {e}; {remedy}")
}

/// The addresses that the listeners have, with the ports that the kernel chose for 0.
pub(crate) fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// Accepts on every listener and handles each connection in a task of its own, until `stop` says true or its sender is gone;
/// then the connections have `grace` to end. The handler gets the stream, the client's address and the address it came to,
/// with IPv4 written as such.
pub(crate) async fn serve<H, F>(listeners: Vec<TcpListener>, stop: watch::Receiver<bool>, grace: Duration, handle: H)
where
    H: Fn(TcpStream, SocketAddr, SocketAddr) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    join_all(listeners.into_iter().map(|listener| serve_one(listener, &slots, stop.clone(), grace, &handle))).await;
}

async fn serve_one<H, F>(listener: TcpListener, slots: &Arc<Semaphore>, mut stop: watch::Receiver<bool>, grace: Duration, handle: &H)
where
    H: Fn(TcpStream, SocketAddr, SocketAddr) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            // A handler that panicked is its connection's end and nobody else's.
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener) => accepted,
        };
        // Over the bound the connection is dropped, that is closed at once.
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else { continue };
        let Ok(local) = stream.local_addr() else { continue };
        stream.set_nodelay(true).ok();
        let handled = handle(stream, folded(peer), folded(local));
        connections.spawn(async move {
            handled.await;
            drop(slot);
        });
    }
    drop(listener);
    // What is not done by then is cut when the set is dropped.
    timeout(grace, async { while connections.join_next().await.is_some() {} }).await.ok();
}

/// The next connection. No error ends it: what is wrong with one connection is over with the next, and a lack of file
/// descriptors or memory passes.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut warned = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !warned {
                    tracing::warn!(%error, "connections cannot be accepted at present; trying again");
                }
                warned = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the error is one of the connection that was to be accepted (accept(2) passes pending network errors on).
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}

/// IPv4 as such, and no scope: one address has one text.
fn folded(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = fold_mapped(address.ip());
    SocketAddr::new(ip, address.port())
}

/// Reads until the client has opened: with a line that `is_word` knows (ended by LF, or by the client's half-close),
/// or with the head of an HTTP request. All of it within `limit`, however slowly it drips.
pub(crate) async fn read_opening(stream: &mut (impl AsyncRead + Unpin), limit: Duration, is_word: impl Fn(&str) -> bool) -> Opening {
    timeout(limit, opening(stream, is_word)).await.unwrap_or(Opening::Nothing)
}

async fn opening(stream: &mut (impl AsyncRead + Unpin), is_word: impl Fn(&str) -> bool) -> Opening {
    let mut read = Vec::new();
    let mut chunk = [0; 2048];
    let mut first_line_judged = false;
    while read.len() < MAX_HEAD {
        let new = match stream.read(&mut chunk).await {
            Ok(count) => chunk.get(..count).unwrap_or_default(),
            Err(_) => return Opening::Nothing,
        };
        let before = read.len();
        read.extend_from_slice(new);
        let ended = new.is_empty();
        if !first_line_judged && (ended || new.contains(&b'\n')) {
            first_line_judged = true;
            if let Some(word) = first_line(&read).filter(|line| is_word(line)) {
                return Opening::Word(word.to_string());
            }
            if parse(&read) == Some(Opening::Nothing) {
                return Opening::Nothing;
            }
        }
        if ended {
            return Opening::Nothing;
        }
        // Parsed only where an empty line may have come, so that a dripping client costs no time.
        let recent = read.get(before.saturating_sub(2)..).unwrap_or_default();
        if recent.windows(2).any(|w| w == b"\n\n") || recent.windows(3).any(|w| w == b"\n\r\n") {
            match parse(&read) {
                Some(opening) => return opening,
                None => continue,
            }
        }
    }
    Opening::Nothing
}

/// The first line without its end, where it is short enough to be a word.
fn first_line(read: &[u8]) -> Option<&str> {
    let line = read.split(|byte| *byte == b'\n').next()?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > MAX_WORD { None } else { std::str::from_utf8(line).ok() }
}

/// The request, [`Opening::Nothing`] where it can never become one, or nothing yet.
fn parse(read: &[u8]) -> Option<Opening> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(read) {
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => {
            let (method, target) = (request.method.unwrap_or_default().to_string(), request.path.unwrap_or_default().to_string());
            Some(Opening::Request(Request { method, target }))
        }
        Ok(httparse::Status::Complete(_)) | Err(_) => Some(Opening::Nothing),
    }
}

/// Sends the answer (nothing, for none) and closes so that it arrives: FIN first, then what still comes is drained, within bounds.
pub(crate) async fn answer_and_close(mut stream: TcpStream, answer: &[u8]) {
    let sent = timeout(WRITE_LIMIT, async {
        stream.write_all(answer).await?;
        stream.shutdown().await
    });
    if !matches!(sent.await, Ok(Ok(()))) {
        return;
    }
    timeout(DRAIN_LIMIT, drain(&mut stream, MAX_DRAIN)).await.ok();
}

/// Reads what still comes, unseen, until the client ends or `most` bytes have come.
pub(crate) async fn drain(stream: &mut TcpStream, most: usize) {
    let mut chunk = [0; 2048];
    let mut drained = 0;
    while drained < most {
        match stream.read(&mut chunk).await {
            Ok(count @ 1..) => drained += count,
            Ok(0) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened(pieces: &[&[u8]]) -> Opening {
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|p| p.to_vec()).collect();
        let writing = tokio::spawn(async move {
            for piece in pieces {
                theirs.write_all(&piece).await.ok();
                tokio::task::yield_now().await;
            }
        });
        let opening = read_opening(&mut ours, REQUEST_LIMIT, |line| line == "the word").await;
        writing.await.unwrap();
        opening
    }

    fn request(method: &str, target: &str) -> Opening {
        Opening::Request(Request { method: method.into(), target: target.into() })
    }

    #[tokio::test]
    async fn openings_both_sides_of_each_border() {
        let word = || Opening::Word("the word".into());
        assert_eq!(opened(&[b"the word\n"]).await, word());
        assert_eq!(opened(&[b"the w", b"ord\r\nand more"]).await, word());
        assert_eq!(opened(&[b"the word"]).await, word(), "half-closed instead of a newline");
        assert_eq!(opened(&[b"another\n"]).await, Opening::Nothing);
        assert_eq!(opened(&[b"\xff\xfe\n"]).await, Opening::Nothing);
        assert_eq!(opened(&[]).await, Opening::Nothing);
        assert_eq!(opened(&[b"GET /a HTTP/1.1\r\n", b"Host: x\r\n\r", b"\n"]).await, request("GET", "/a"));
        assert_eq!(opened(&[b"\r\nFOO http://h/a HTTP/1.0\n", b"\n"]).await, request("FOO", "http://h/a"));
        assert_eq!(opened(&[b"GET /a HTTP/1.1\r\nHost: x\r\n"]).await, Opening::Nothing, "no end of the head");
        assert_eq!(opened(&[b"GET /a\r\n\r\n"]).await, Opening::Nothing, "HTTP/0.9");
        let lines = |n: usize| format!("GET /a HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n)).into_bytes();
        assert_eq!(opened(&[&lines(MAX_HEADERS)]).await, request("GET", "/a"));
        assert_eq!(opened(&[&lines(MAX_HEADERS + 1)]).await, Opening::Nothing);
        let long = |n: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(n - 18)).into_bytes();
        assert_eq!(long(MAX_HEAD).len(), MAX_HEAD);
        assert!(matches!(opened(&[&long(MAX_HEAD)]).await, Opening::Request(_)));
        assert_eq!(opened(&[&long(MAX_HEAD + 1)]).await, Opening::Nothing);
    }

    #[tokio::test]
    async fn a_bad_first_line_is_not_waited_for() {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"another\n").await.unwrap();
        assert_eq!(read_opening(&mut ours, Duration::from_secs(3600), |_| false).await, Opening::Nothing);
    }

    #[tokio::test]
    async fn a_dripping_client_is_cut() {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        let dripping = tokio::spawn(async move {
            while theirs.write_all(b"G").await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert_eq!(read_opening(&mut ours, Duration::from_millis(100), |_| false).await, Opening::Nothing);
        drop(ours);
        dripping.await.unwrap();
    }

    #[test]
    fn paths_of_all_forms() {
        let cases = [
            ("/", "/"),
            ("/a/b?c=/d", "/a/b"),
            ("http://h:80/a/b", "/a/b"),
            ("http://h", "/"),
            ("http://h?q=/x", "/"),
            ("HTTP://u@h//a", "//a"),
            ("/a?u=http://h/b", "/a"),
            ("/a/http://h/b", "/a/http://h/b"),
            ("*", "*"),
            ("h:443", "h:443"),
        ];
        for (target, path) in cases {
            assert_eq!(Request { method: "GET".into(), target: target.into() }.path(), path, "{target}");
        }
    }

    #[tokio::test]
    async fn listening_names_the_address_and_the_remedy() {
        let first = listen(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let taken = addresses(&first)[0];
        assert_eq!(
            listen(&[taken]).unwrap_err(),
            format!(
                "cannot listen on {taken}: Address already in use (os error 98); stop what listens there (ss -ltnp shows it), or choose another port"
            )
        );
        let foreign = listen(&["192.0.2.1:0".parse().unwrap()]).unwrap_err();
        assert!(foreign.contains("cannot listen on 192.0.2.1:0: ") && foreign.contains("choose an address of this host"), "{foreign}");
    }

    #[tokio::test]
    async fn both_families_of_one_port_can_be_listed() {
        let Ok(first) = listen(&["[::]:0".parse().unwrap()]) else {
            eprintln!("SKIP both_families_of_one_port_can_be_listed: this host has no IPv6");
            return;
        };
        let port = addresses(&first)[0].port();
        drop(first);
        listen(&[SocketAddr::new([0, 0, 0, 0].into(), port), format!("[::]:{port}").parse().unwrap()]).unwrap();
    }

    proptest::proptest! {
        /// Whoever opens with whatever, in pieces or at once: no panic, and an end when the stream ends.
        #[test]
        fn no_opening_panics(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600),
            pieces in proptest::collection::vec(proptest::sample::select(vec!["GET ", "/x", " HTTP/1.1\r\n", "\r\n", "\n", "Host: x", "://", "?", " "]), 0..20),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            for sent in [bytes, pieces.concat().into_bytes()] {
                let opening = runtime.block_on(read_opening(&mut sent.as_slice(), REQUEST_LIMIT, |line| line.len() == 7));
                if let Opening::Request(request) = opening {
                    proptest::prop_assert!(request.path().len() <= sent.len().max(1));
                }
            }
        }
    }
}

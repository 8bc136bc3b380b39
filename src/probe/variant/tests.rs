//! Variants against servers that lie, break off or speak otherwise: real sockets, real TLS, real HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::attempt::TRIES;
use super::*;
use crate::net::h2;
use crate::net::resolve::Resolver;
use crate::net::tls;
use crate::observation::{Evidence, Marker, Outcome};
use crate::probe::{Http, Manner};

const MARKER: &str = "SECRET-4711";
const LIMIT: Duration = Duration::from_secs(5);

/// A server that does this with each connection, told its number; and how many there were.
async fn server<F>(serve: impl Fn(usize, TcpStream) -> F + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(counted.fetch_add(1, Ordering::SeqCst), stream));
        }
    });
    (address, count)
}

/// Reads once, says this, and closes.
async fn say(mut stream: TcpStream, text: Vec<u8>) {
    let _ = stream.read(&mut [0; 4096]).await;
    end_with(stream, &text).await;
}

async fn end_with(mut stream: TcpStream, text: &[u8]) {
    let _ = stream.write_all(text).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

fn page(status: &str, more: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// One attempt at the variant of that name.
async fn tried(name: &str, scheme: &str, to: SocketAddr, options: tls::Options) -> (Outcome, Marker, Evidence) {
    let url: Url = format!("{scheme}://{to}/admin").parse().unwrap();
    let http = Http {
        variants: Vec::new(),
        url: url.clone(),
        via: None,
        method: "GET".into(),
        headers: Vec::new(),
        body_contains: Some(MARKER.into()),
        deny_location: Vec::new(),
        prior_knowledge: false,
        follow_redirects: false,
        tls: tls::Client::new(&options).unwrap().or_offering(&[h2::ALPN, "http/1.1"]),
        manner: Manner::Plain,
    };
    let made = Variant::of(&url, &["203.0.113.9".parse().unwrap()], |known| known == name);
    // Names are for hosts with one, and this one is an address.
    let variant = made.into_iter().next().unwrap_or_else(|| {
        let ground = Ground { url: &url, method: "GET", host: url.host_header(), path: Path::of(&url.path) };
        Variant { name: "AD-04 no-sni", sni: Sni::None, ..ground.plain() }
    });
    let approach = Approach { to, source: None, timeout: LIMIT, aim: Aim::Variant(0), resolver: Resolver::System };
    let mut evidence = Evidence::default();
    let ended = variant.attempt(&http, &approach, Instant::now() + LIMIT, &mut evidence).await;
    (ended.0, evidence.marker.unwrap(), evidence)
}

/// A TLS server of these protocols, and the options of who trusts it.
fn secure(folder: &std::path::Path, protocols: &[&str]) -> (TlsAcceptor, tls::Options) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), tls::Options { ca_file: Some(ca_file), ..tls::Options::default() })
}

/// The page for whoever asks for it, by TLS.
async fn page_by_tls(acceptor: TlsAcceptor, stream: TcpStream) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut asked = [0; 4096];
    let length = stream.read(&mut asked).await.unwrap_or(0);
    let body = if asked[..length].starts_with(b"GET /admin ") { MARKER } else { "welcome" };
    let _ = stream.write_all(&page("200 OK", "", body)).await;
    let _ = stream.shutdown().await;
}

#[tokio::test]
async fn who_was_not_asked_has_not_said_no() {
    // Something else than TLS; a certificate of nobody; only ciphers of old.
    let (other, _) = server(|_, stream| say(stream, b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())).await;
    let (outcome, marker, evidence) = tried("AD-05 x-forwarded-for", "https", other, tls::Options::default()).await;
    assert_eq!((outcome, marker), (Outcome::NotTls, Marker::Unheard), "{evidence:?}");

    let folder = tempfile::tempdir().unwrap();
    let (acceptor, trusting) = secure(folder.path(), &["http/1.1"]);
    let (anybody, _) = server(move |_, stream| page_by_tls(acceptor.clone(), stream)).await;
    let (outcome, marker, evidence) = tried("AD-05 x-forwarded-for", "https", anybody, tls::Options::default()).await;
    assert_eq!((outcome, marker), (Outcome::TlsUntrusted, Marker::Unheard), "{evidence:?}");
    assert_eq!(tried("AD-05 x-forwarded-for", "https", anybody, trusting).await.1, Marker::Found);

    // handshake_failure for whoever comes with the ciphers of today, and a ServerHello with TLS_RSA_WITH_AES_128_CBC_SHA for the rest.
    let hello = [&[22, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
    let (old, count) = server(move |nth, stream| say(stream, if nth == 0 { vec![21, 3, 3, 0, 2, 2, 40] } else { hello.clone() })).await;
    let (outcome, marker, evidence) = tried("AD-05 x-forwarded-for", "https", old, tls::Options::default()).await;
    assert_eq!((outcome, marker, count.load(Ordering::SeqCst)), (Outcome::TlsUntrusted, Marker::Unheard, 2), "{evidence:?}");
    assert!(evidence.request_head.is_some(), "what was to be sent stays");
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_is_asked_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (acceptor, options) = secure(folder.path(), &["http/1.1"]);
    let (at, _) = server(move |_, stream| page_by_tls(acceptor.clone(), stream)).await;
    let pinned = tls::Options { certificate_sha256: Some("0".repeat(64)), ..options };
    assert_eq!(tried("AD-04 no-sni", "https", at, pinned.clone()).await.1, Marker::Found);
    // By the check's own handshake nobody else is asked, and so nothing is known.
    let (outcome, marker, _) = tried("AD-05 x-forwarded-for", "https", at, pinned).await;
    assert_eq!((outcome, marker), (Outcome::Mismatch, Marker::Unheard));
}

#[tokio::test]
async fn a_header_that_is_no_tls_is_answered_by_what_is_none() {
    // nginx answers in plain text to who speaks plain text to its TLS.
    let (nginx, _) = server(|_, stream| say(stream, page("400 Bad Request", "", "plain HTTP was sent to HTTPS port"))).await;
    let (outcome, marker, _) = tried("AD-06 proxy-v1", "https", nginx, tls::Options::default()).await;
    assert_eq!((outcome, marker), (Outcome::NotTls, Marker::Absent));
}

#[tokio::test]
async fn a_server_of_http_2_alone_denies_the_version_and_not_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let (acceptor, options) = secure(folder.path(), &["h2"]);
    let (at, _) = server(move |_, stream| page_by_tls(acceptor.clone(), stream)).await;
    let (outcome, marker, evidence) = tried("AD-05 x-forwarded-for", "https", at, options.clone()).await;
    assert_eq!((outcome, marker), (Outcome::TlsRefused, Marker::Unheard), "{evidence:?}");
    assert_eq!(tried("AD-09 http-1.1", "https", at, options).await.1, Marker::Unseen);
}

/// SETTINGS, and a GOAWAY that names no stream, without an error.
const GOES_AWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

async fn page_by_http_2(stream: TcpStream) {
    let Ok(mut connection) = ::h2::server::handshake(stream).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let head = ::http::Response::builder().status(200).body(()).unwrap();
        respond.send_response(head, false).unwrap().send_data(MARKER.as_bytes().into(), true).unwrap();
    }
}

#[tokio::test]
async fn whoever_goes_away_unasked_is_asked_again() {
    let goes = |times: usize| {
        server(
            move |nth, stream| async move { if nth < times { say(stream, GOES_AWAY.to_vec()).await } else { page_by_http_2(stream).await } },
        )
    };
    let (at, count) = goes(TRIES - 1).await;
    let (outcome, marker, _) = tried("AD-09 prior-knowledge", "http", at, tls::Options::default()).await;
    assert_eq!((outcome, marker), (Outcome::Status(200), Marker::Found));
    assert_eq!(count.load(Ordering::SeqCst), TRIES + 2, "and two looks at public pages");
    let (at, count) = goes(usize::MAX).await;
    let (outcome, marker, evidence) = tried("AD-09 prior-knowledge", "http", at, tls::Options::default()).await;
    assert_eq!((outcome, marker, count.load(Ordering::SeqCst)), (Outcome::Closed, Marker::Unheard, TRIES), "{evidence:?}");
    assert!(evidence.detail.unwrap().contains("GOAWAY with NO_ERROR"));
}

#[tokio::test]
async fn an_upgrade_that_is_granted_and_ended_is_no_denial() {
    let granted = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    for (behind, marker, connections) in [
        (&b""[..], Marker::Unheard, TRIES),
        (GOES_AWAY, Marker::Unheard, TRIES),
        // RST_STREAM of stream 3, with CANCEL: that is about the page.
        (b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x03\0\0\0\0\x03\0\0\0\x08", Marker::Unseen, 1),
        (b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x03\0\0\0\0\x03\0\0\0\x07", Marker::Unheard, TRIES),
    ] {
        let (at, count) = server(move |_, mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(granted).await;
            // The preface, and the second request behind it.
            let _ = stream.read(&mut [0; 4096]).await;
            end_with(stream, behind).await;
        })
        .await;
        let (outcome, found, evidence) = tried("AD-09 h2c-upgrade", "http", at, tls::Options::default()).await;
        assert_eq!((found, count.load(Ordering::SeqCst)), (marker, connections), "{outcome} {behind:?} {evidence:?}");
    }
}

#[tokio::test]
async fn what_the_body_says_counts_whatever_the_status_and_the_version() {
    let gzipped = "Content-Encoding: gzip\r\n";
    for (name, answer, marker) in [
        ("AD-05 x-forwarded-for", page("404 Not Found", "", MARKER), Marker::Found),
        ("AD-05 x-forwarded-for", page("404 Not Found", "", "none"), Marker::Absent),
        ("AD-05 x-forwarded-for", page("404 Not Found", gzipped, "\u{1f}packed"), Marker::Cut),
        ("AD-05 x-forwarded-for", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 999\r\n\r\nbroken".to_vec(), Marker::Cut),
        // A limit of rates, as nginx has it by default; a gateway that let us in, and whose server is down.
        ("AD-05 x-forwarded-for", page("503 Service Temporarily Unavailable", "", "later"), Marker::Unheard),
        ("AD-05 x-forwarded-for", page("502 Bad Gateway", "", "down"), Marker::Unheard),
        ("AD-05 x-forwarded-for", page("429 Too Many Requests", "", "later"), Marker::Unheard),
        ("AD-05 x-forwarded-for", page("500 Internal Server Error", "", "bug"), Marker::Absent),
        // HAProxy has no server for that name.
        ("AD-04 host-localhost", page("503 Service Unavailable", "", "none"), Marker::Absent),
        ("AD-04 absolute-form-other", page("503 Service Unavailable", "", "none"), Marker::Absent),
        // Who knows no HTTP/2, and answers all the same.
        ("AD-09 prior-knowledge", page("200 OK", "", MARKER), Marker::Found),
        ("AD-09 prior-knowledge", page("400 Bad Request", "", "what?"), Marker::Absent),
        ("AD-09 prior-knowledge", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nbroken".to_vec(), Marker::Cut),
    ] {
        let public = page("200 OK", "", "welcome");
        let (at, _) = server(move |nth, stream| say(stream, if nth == 0 { answer.clone() } else { public.clone() })).await;
        let (outcome, found, evidence) = tried(name, "http", at, tls::Options::default()).await;
        assert_eq!(found, marker, "{name} {outcome} {evidence:?}");
    }
}

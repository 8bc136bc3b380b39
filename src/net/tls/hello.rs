//! A ClientHello of our own, for what rustls cannot offer: TLS 1.0 and 1.1, and the cipher suites of their time.
//!
//! It offers all that was ever in wide use, so whoever speaks the version at all answers it with a ServerHello. That is where the
//! look ends: no key is agreed upon, no secret is sent, and nothing that the server sends afterwards is read.

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Version;
use crate::net::{failure, http};
use crate::observation::{Evidence, Outcome, RefusedFor};

/// The most that is read of the answer: a ServerHello with all its extensions is far shorter (RFC 5246 section 6.2.1 allows
/// 16 KiB a record).
const MAX_ANSWER: usize = 16 * 1024;
/// Record types (RFC 5246 section 6.2.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// Handshake message types (section 7.4).
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// An alert that is not the end (section 7.2).
const WARNING: u8 = 1;
const CLOSE_NOTIFY: u8 = 0;
/// Cipher suites (IANA registry), the better ones first: ECDHE, DHE and RSA with AES in GCM, CCM and CBC, ChaCha20, Camellia, SEED,
/// 3DES, RC4, DES; DSS; and the word that renegotiation is understood (RFC 5746 section 3.3).
const SUITES: &[u16] = &[
    0xc02c, 0xc030, 0xc02b, 0xc02f, 0xcca9, 0xcca8, 0xccaa, 0x009f, 0x009e, 0x009d, 0x009c, 0xc0ad, 0xc0ac, 0xc09f, 0xc09e, 0xc09d, 0xc09c,
    0xc024, 0xc028, 0xc023, 0xc027, 0xc00a, 0xc014, 0xc009, 0xc013, 0x006b, 0x0067, 0x0039, 0x0033, 0x003d, 0x003c, 0x0035, 0x002f, 0x00a3,
    0x00a2, 0x006a, 0x0040, 0x0038, 0x0032, 0x0088, 0x0087, 0x0084, 0x0045, 0x0044, 0x0041, 0x009a, 0x0099, 0x0096, 0xc008, 0xc012, 0x0016,
    0x0013, 0x000a, 0xc007, 0xc011, 0x0005, 0x0004, 0x0015, 0x0012, 0x0009, 0x0006, 0x00ff,
];
/// Curves and groups (RFC 8422, RFC 7919): x25519, P-256, P-384, P-521, ffdhe2048, ffdhe3072.
const GROUPS: &[u16] = &[29, 23, 24, 25, 256, 257];
/// Signatures (RFC 5246 section 7.4.1.4.1, RFC 8446 section 4.2.3): ECDSA, RSA-PSS, RSA and DSA with SHA-512 to SHA-1.
const SIGNATURES: &[u16] =
    &[0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0203, 0x0201, 0x0202, 0x0402, 0x0303];

/// What came back upon a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Not enough yet to tell.
    Partial,
    /// The server takes this version, by its two bytes, and has chosen this cipher suite.
    ServerHello([u8; 2], u16),
    /// A fatal alert, or the end of the connection in words.
    Alert(u8),
    /// Something that is not TLS.
    NotTls,
}

/// Offers TLS up to `version`, and no more recent one, until `deadline`.
///
/// # Errors
/// None: the outcome is what is looked for. `tls-untrusted`: it takes the version; `tls-refused`: it does not.
pub async fn offer<S>(mut stream: S, version: Version, name: Option<&str>, deadline: Instant, evidence: &mut Evidence) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut random = [0; 32];
    if ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random).is_err() {
        evidence.detail = Some("the system gives no random bytes".into());
        return Outcome::LocalError;
    }
    let sent = http::send(&mut stream, &client_hello(version, name, random), deadline).await;
    let mut read = Vec::new();
    loop {
        match answer(&read) {
            Answer::ServerHello(version, suite) => {
                let version = version_name(version);
                evidence.tls_error = Some(format!("it takes {version}, with cipher suite {suite:#06x}"));
                evidence.tls_version = Some(version);
                return Outcome::TlsUntrusted;
            }
            Answer::Alert(CLOSE_NOTIFY) => return Outcome::Closed,
            Answer::Alert(alert) => return refused(alert, evidence),
            Answer::NotTls => return Outcome::NotTls,
            Answer::Partial if read.len() > MAX_ANSWER => return Outcome::NotTls,
            Answer::Partial => {}
        }
        if let Err(outcome) = http::more(&mut stream, &mut read, deadline, evidence).await {
            return match &sent {
                Err(Some(error)) => failure::of_exchange(error),
                _ => outcome,
            };
        }
    }
}

/// The version was refused, where the alert is about what was offered; else something else was.
fn refused(alert: u8, evidence: &mut Evidence) -> Outcome {
    let alert = AlertDescription::from(alert);
    evidence.tls_alert = Some(failure::alert_name(alert));
    let of_the_offer =
        matches!(alert, AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity);
    evidence.refused_for = Some(if of_the_offer { RefusedFor::Version } else { RefusedFor::Other });
    if !of_the_offer {
        evidence.detail = Some("that is not about the version that was offered; see whether server_name is right".into());
    }
    Outcome::TlsRefused
}

/// The name of a version, as rustls writes those that it knows.
fn version_name([major, minor]: [u8; 2]) -> String {
    match (major, minor) {
        (3, 0) => "SSLv3".into(),
        (3, minor @ 1..=4) => format!("TLSv1_{}", minor - 1),
        _ => format!("{major:#04x}{minor:02x}"),
    }
}

/// The two bytes of a version (RFC 2246, RFC 4346, RFC 5246, section 6.2.1 each).
fn bytes_of(version: Version) -> [u8; 2] {
    match version {
        Version::V1_0 => [3, 1],
        Version::V1_1 => [3, 2],
        // A ClientHello of TLS 1.3 says 1.2 here, and more elsewhere (RFC 8446 section 4.1.2); this one says nothing elsewhere.
        Version::V1_2 | Version::V1_3 => [3, 3],
    }
}

/// The whole record (RFC 5246 section 7.4.1.2, the same form since RFC 2246; extensions by RFC 3546).
fn client_hello(version: Version, name: Option<&str>, random: [u8; 32]) -> Vec<u8> {
    let version = bytes_of(version);
    let mut extensions = Vec::new();
    if let Some(name) = name {
        // RFC 6066 section 3: a list of names, each with its type, 0 for a host's.
        let entry = [&[0][..], &with_length16(name.as_bytes())].concat();
        extensions.extend(extension(0, &with_length16(&entry)));
    }
    extensions.extend(extension(10, &with_length16(&pairs(GROUPS))));
    extensions.extend(extension(11, &[1, 0]));
    if version == [3, 3] {
        extensions.extend(extension(13, &with_length16(&pairs(SIGNATURES))));
    }
    let no_session = [0];
    let no_compression = [1, 0];
    let body = [&version[..], &random, &no_session, &with_length16(&pairs(SUITES)), &no_compression, &with_length16(&extensions)].concat();
    let message = [&[CLIENT_HELLO, 0][..], &with_length16(&body)].concat();
    // The record's own version is that of the first hello ever, as all clients write it (RFC 5246 appendix E.1).
    [&[HANDSHAKE, 3, 1][..], &with_length16(&message)].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_length16(data)].concat()
}

fn pairs(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// The bytes with their length in two bytes before them. A name has at most 253, so nothing here is ever longer.
fn with_length16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}

/// What the bytes read so far come to: the first handshake message or the first fatal alert. A message may lie in several
/// records, and warnings before it are passed over.
pub fn answer(mut read: &[u8]) -> Answer {
    let mut message: Vec<u8> = Vec::new();
    loop {
        let (kind, major, length) = match read {
            [] => return Answer::Partial,
            [kind, ..] if !matches!(*kind, ALERT | HANDSHAKE) => return Answer::NotTls,
            [_, major, ..] if *major != 3 => return Answer::NotTls,
            [kind, major, _, high, low, ..] => (*kind, *major, usize::from(u16::from_be_bytes([*high, *low]))),
            _ => return Answer::Partial,
        };
        debug_assert_eq!(major, 3);
        if length > MAX_ANSWER || length == 0 {
            return Answer::NotTls;
        }
        let payload = read.get(5..).unwrap_or_default();
        let whole = payload.get(..length);
        match kind {
            ALERT => match (length, whole) {
                (2, Some([WARNING, alert])) if *alert != CLOSE_NOTIFY => {}
                (2, Some([_, alert])) => return Answer::Alert(*alert),
                (2, _) => return Answer::Partial,
                _ => return Answer::NotTls,
            },
            _ => {
                message.extend_from_slice(whole.unwrap_or(payload));
                match server_hello(&message) {
                    Answer::Partial => {}
                    told => return told,
                }
            }
        }
        read = match payload.get(length..) {
            Some(rest) => rest,
            None => return Answer::Partial,
        };
    }
}

/// A ServerHello, as far as its cipher suite (RFC 5246 section 7.4.1.3).
fn server_hello(message: &[u8]) -> Answer {
    match message {
        [] => Answer::Partial,
        [kind, ..] if *kind != SERVER_HELLO => Answer::NotTls,
        [_, _, _, _, major, minor, rest @ ..] => {
            if *major != 3 {
                return Answer::NotTls;
            }
            let Some((session, rest)) = rest.get(32..).and_then(|rest| rest.split_first()) else { return Answer::Partial };
            match rest.get(usize::from(*session)..) {
                Some([high, low, ..]) => Answer::ServerHello([*major, *minor], u16::from_be_bytes([*high, *low])),
                _ => Answer::Partial,
            }
        }
        _ => Answer::Partial,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;
    use rustls::ServerConfig;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// As a server of that version would begin its answer, after what may come before.
    fn hello_record(version: [u8; 2], session: u8, suite: u16) -> Vec<u8> {
        let body = [&version[..], &[7; 32], &[session], &vec![9; usize::from(session)], &suite.to_be_bytes(), &[0]].concat();
        let message = [&[SERVER_HELLO, 0][..], &with_length16(&body)].concat();
        [&[HANDSHAKE, 3, 1][..], &with_length16(&message)].concat()
    }

    #[test]
    fn an_answer_is_told_as_soon_as_it_can_be_and_not_before() {
        let whole = hello_record([3, 1], 32, 0xc014);
        let told = Answer::ServerHello([3, 1], 0xc014);
        // All but the compression method behind the cipher suite.
        for cut in 0..whole.len() - 1 {
            assert_eq!(answer(&whole[..cut]), Answer::Partial, "{cut}");
        }
        assert_eq!(answer(&whole[..whole.len() - 1]), told);
        assert_eq!(answer(&[&whole[..], &[0; 40]].concat()), told);

        let warned = [&[ALERT, 3, 1, 0, 2, WARNING, 112][..], &whole].concat();
        assert_eq!(answer(&warned), told);
        let in_two_records = [&[HANDSHAKE, 3, 1, 0, 1, SERVER_HELLO][..], &[HANDSHAKE, 3, 1], &with_length16(&whole[6..])].concat();
        assert_eq!(answer(&in_two_records), told);

        assert_eq!(answer(&[ALERT, 3, 1, 0, 2, 2, 70]), Answer::Alert(70));
        assert_eq!(answer(&[ALERT, 3, 1, 0, 2, WARNING, CLOSE_NOTIFY]), Answer::Alert(CLOSE_NOTIFY));
        assert_eq!(answer(&[ALERT, 3, 1, 0, 2, 2]), Answer::Partial);
        for other in
            [&b"HTTP/1.1 400"[..], b"SSH-2.0", &[HANDSHAKE, 2], &[ALERT, 3, 1, 0, 3, 2, 70, 0], &[HANDSHAKE, 3, 1, 0, 4, 1, 0, 0, 0]]
        {
            assert_eq!(answer(other), Answer::NotTls, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_told_without_a_panic_and_more_of_it_changes_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            kind in prop::sample::select(vec![ALERT, HANDSHAKE, 0]),
            more in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = if kind == 0 { bytes } else { [&[kind, 3, 3, 0][..], &bytes].concat() };
            let told = answer(&bytes);
            if told != Answer::Partial {
                prop_assert_eq!(answer(&[bytes, more].concat()), told);
            }
        }

        #[test]
        fn records_of_any_size_join_to_one_message(size in 1_usize..90, session in 0_u8..=32, suite in any::<u16>()) {
            let whole = hello_record([3, 2], session, suite);
            let records: Vec<u8> =
                whole[5..].chunks(size).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &with_length16(part)].concat()).collect();
            prop_assert_eq!(answer(&records), Answer::ServerHello([3, 2], suite));
        }

        #[test]
        fn no_answer_of_any_server_outlasts_the_deadline(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (ours, mut theirs) = tokio::io::duplex(4096);
                tokio::io::AsyncWriteExt::write_all(&mut theirs, &bytes).await.unwrap();
                let began = Instant::now();
                offer(ours, Version::V1_1, None, began + Duration::from_millis(5), &mut Evidence::default()).await;
                assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            });
        }
    }

    /// A server of rustls that speaks these versions, asked by our own hello.
    async fn offered(versions: &[&'static rustls::SupportedProtocolVersion], highest: Version) -> (Outcome, Evidence) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(stream).await;
        });
        let mut evidence = Evidence::default();
        let stream = TcpStream::connect(address).await.unwrap();
        let outcome = offer(stream, highest, Some("localhost"), Instant::now() + Duration::from_secs(5), &mut evidence).await;
        (outcome, evidence)
    }

    #[tokio::test]
    async fn a_server_that_we_did_not_write_understands_our_hello() {
        let (outcome, evidence) = offered(&[&rustls::version::TLS12, &rustls::version::TLS13], Version::V1_2).await;
        assert_eq!((outcome, evidence.tls_version.as_deref()), (Outcome::TlsUntrusted, Some("TLSv1_2")), "{evidence:?}");
        // It tells a version that it does not speak by what it would have needed there: servers differ in that.
        for (versions, highest, alert) in [
            (&[&rustls::version::TLS13][..], Version::V1_2, "protocol_version"),
            (&[&rustls::version::TLS12], Version::V1_1, "handshake_failure"),
        ] {
            let (outcome, evidence) = offered(versions, highest).await;
            assert_eq!((outcome, evidence.tls_alert.as_deref()), (Outcome::TlsRefused, Some(alert)), "{evidence:?}");
            assert_eq!(evidence.refused_for, Some(RefusedFor::Version));
        }
    }
}

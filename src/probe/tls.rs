//! Kind `tls`: a handshake, and the silence after it.

use tokio::time::Instant;

use super::{Aim, Approach, Ended, dial};
use crate::net::tls::{self, Stranger, Version, hello, watch_for_refusal};
use crate::observation::{Evidence, Outcome, Stage};
use crate::target::{Host, HostPort};

/// Kind `tls`.
#[derive(Debug, PartialEq)]
pub struct Tls {
    /// Where to connect.
    pub target: HostPort,
    /// How to shake hands.
    pub tls: tls::Client,
    /// In whose place to try it.
    pub manner: Manner,
}

/// In whose place a server is tried.
#[derive(Debug, PartialEq)]
pub enum Manner {
    /// In our own.
    Plain,
    /// In that of everybody who has no right certificate; never empty.
    Strangers(Vec<Stranger>),
    /// In that of somebody who speaks no more recent version.
    Old(Version),
}

impl Tls {
    /// One handshake, watched for an alert that follows it.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        let stream = match dial(approach, deadline, evidence).await {
            Ok(stream) => stream,
            Err(ended) => return ended,
        };
        let host = &self.target.host;
        if let Manner::Old(version) = self.manner {
            let name = self.tls.name_in_sni(host);
            return (hello::offer(stream, version, name.as_deref(), deadline, evidence).await, Stage::Tls);
        }
        let stranger = stranger(&approach.aim, &self.manner);
        let client = stranger.map_or(&self.tls, |stranger| &stranger.client);
        let outcome = match client.shake(stream, host, deadline, evidence).await {
            Ok(mut shaken) => match watch_for_refusal(&mut shaken, deadline, evidence).await {
                Ok(_) => Outcome::TlsEstablished,
                Err(Outcome::TlsRefused) => Outcome::TlsRefused,
                // The server had not made up its mind yet, and now it has, or never says.
                Err(outcome) if shaken.still_open => outcome,
                // The handshake was done, and no alert followed it; what the server did then is no refusal of it.
                Err(_) => Outcome::TlsEstablished,
            },
            Err(outcome) => outcome,
        };
        match stranger {
            Some(stranger) => stranger.note_refusal((outcome, Stage::Tls), &[], evidence),
            None if may_be_our_taste(&self.tls, outcome, evidence) => {
                if let Ok(stream) = dial(approach, deadline, &mut Evidence::default()).await {
                    return (ask_again(&self.tls, stream, host, outcome, deadline, evidence).await, Stage::Tls);
                }
            }
            None => {}
        }
        (outcome, Stage::Tls)
    }
}

/// The stranger in whose place an approach is made.
pub fn stranger<'a>(aim: &Aim, manner: &'a Manner) -> Option<&'a Stranger> {
    match (aim, manner) {
        (Aim::Stranger(nth), Manner::Strangers(all)) => all.get(*nth),
        _ => None,
    }
}

/// A handshake that was refused before anybody was asked for a certificate, with a client that offers only what is good: the
/// server may be one that talks to whoever offers less.
pub fn may_be_our_taste(client: &tls::Client, outcome: Outcome, evidence: &Evidence) -> bool {
    let of_parameters = matches!(evidence.tls_alert.as_deref(), Some("handshake_failure" | "insufficient_security"));
    outcome == Outcome::TlsRefused && of_parameters && evidence.client_certificate_requested.is_none() && client.offers_1_2()
}

/// Offers, by a connection of its own, all cipher suites that were ever in use; what comes of it stands instead of `outcome`
/// where the server takes one.
pub async fn ask_again<S>(
    client: &tls::Client,
    stream: S,
    host: &Host,
    outcome: Outcome,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Outcome
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut again = Evidence::default();
    let name = client.name_in_sni(host);
    match hello::offer(stream, Version::V1_2, name.as_deref(), deadline, &mut again).await {
        Outcome::TlsUntrusted => {
            let Evidence { tls_version, tls_error, .. } = again;
            let before = std::mem::take(evidence);
            *evidence = Evidence { tls_version, tls_error, tls_alert: None, certificate_sha256: None, certificate_expires: None, ..before };
            Outcome::TlsUntrusted
        }
        _ => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::net::resolve::Resolver;
    use crate::observation::{ClientCertificate, RefusedFor};
    use crate::probe::Http;

    /// What a server does once the handshake is done on its side.
    #[derive(Clone, Copy)]
    enum Then {
        Holds,
        Drops,
    }

    /// A server that asks for a client certificate and takes none as well; and the options of who trusts it.
    fn asking(versions: &[&'static SupportedProtocolVersion], folder: &Path) -> (TlsAcceptor, tls::Options) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
        let ca_file = folder.join("ca.pem");
        std::fs::write(&ca_file, made.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let asks = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).allow_unauthenticated();
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(asks.build().unwrap())
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        (TlsAcceptor::from(Arc::new(server)), tls::Options { ca_file: Some(ca_file), ..tls::Options::default() })
    }

    /// The outcome at a server of that version.
    async fn tried(version: &'static SupportedProtocolVersion, then: Then, timeout: Duration) -> (Outcome, Evidence) {
        let folder = tempfile::tempdir().unwrap();
        let (acceptor, options) = asking(&[version], folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await;
            match then {
                Then::Holds => tokio::time::sleep(Duration::from_secs(30)).await,
                Then::Drops => drop(stream),
            }
        });
        let strangers = Stranger::all(&options, &[ClientCertificate::None]).unwrap();
        let nth = strangers.iter().position(|s| (s.version == Version::V1_3) == (version.version == rustls::ProtocolVersion::TLSv1_3));
        let probe = Tls { target: to.into(), tls: tls::Client::new(&options).unwrap(), manner: Manner::Strangers(strangers) };
        let approach = Approach { to, source: None, timeout, aim: Aim::Stranger(nth.unwrap()), resolver: Resolver::System };
        let mut evidence = Evidence::default();
        let (outcome, stage) = probe.attempt(&approach, Instant::now() + timeout, &mut evidence).await;
        assert_eq!(stage, Stage::Tls);
        assert_eq!(evidence.client_certificate, Some(ClientCertificate::None), "{evidence:?}");
        assert!(evidence.certificate_sha256.is_some() && evidence.certificate_expires.is_some(), "{evidence:?}");
        (outcome, evidence)
    }

    #[tokio::test]
    async fn resets_closes_and_silences_are_told_apart_until_the_server_must_have_spoken() {
        let (new, old) = (&rustls::version::TLS13, &rustls::version::TLS12);
        let (long, short) = (Duration::from_secs(5), Duration::from_millis(400));
        let cells = [
            (new, Then::Holds, long, Outcome::TlsEstablished),
            (old, Then::Holds, long, Outcome::TlsEstablished),
            // The deadline came before an alert upon our empty certificate could have.
            (new, Then::Holds, short, Outcome::Mute),
            (old, Then::Holds, short, Outcome::TlsEstablished),
            // In TLS 1.2 the server has looked at the certificate before it says that it is done.
            (new, Then::Drops, long, Outcome::Closed),
            (old, Then::Drops, long, Outcome::TlsEstablished),
        ];
        for (nth, (version, then, timeout, expected)) in cells.into_iter().enumerate() {
            let (outcome, evidence) = tried(version, then, timeout).await;
            assert_eq!(outcome, expected, "cell {nth}: {evidence:?}");
        }
    }

    /// A write that is answered by a reset may lose the alert that came before it.
    #[tokio::test]
    async fn nothing_is_sent_before_a_late_refusal_could_have_come() {
        let folder = tempfile::tempdir().unwrap();
        let (acceptor, options) = asking(rustls::DEFAULT_VERSIONS, folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut too_early = Vec::new();
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut request = [0; 1024];
                too_early.push(tokio::time::timeout(Duration::from_millis(300), stream.read(&mut request)).await.is_ok());
                stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
            too_early
        });
        let strangers = Stranger::all(&options, &[ClientCertificate::None]).unwrap();
        let probe = Http {
            deny_location: Vec::new(),
            prior_knowledge: false,
            variants: Vec::new(),
            url: format!("https://{to}/").parse().unwrap(),
            via: None,
            method: "GET".into(),
            headers: Vec::new(),
            body_contains: None,
            follow_redirects: false,
            tls: tls::Client::new(&options).unwrap(),
            manner: Manner::Strangers(strangers),
        };
        for nth in 0..2 {
            let timeout = Duration::from_secs(5);
            let approach = Approach { to, source: None, timeout, aim: Aim::Stranger(nth), resolver: Resolver::System };
            let mut evidence = Evidence::default();
            let ended = probe.attempt(&approach, Instant::now() + timeout, &mut evidence).await;
            assert_eq!(ended, (Outcome::Status(403), Stage::Http), "{evidence:?}");
            assert_eq!(evidence.refused_for, Some(RefusedFor::Certificate), "{evidence:?}");
        }
        assert_eq!(server.await.unwrap(), [false, false]);
    }
}

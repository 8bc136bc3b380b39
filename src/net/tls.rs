//! TLS by rustls: a handshake that is carried to its end whether or not the certificate can be trusted, so that both can be told.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure;
use crate::observation::{Authentication, ClientCertificate, Evidence, Outcome};
use crate::target::Host;
use crate::token::hex;

pub mod hello;
mod stranger;

pub use stranger::{Stranger, refused_for};

/// How long a finished handshake is watched for a late refusal: in TLS 1.3 the client is done before the server has
/// looked at its certificate (RFC 8446 section 4.4.2.4), so the alert comes a round trip later.
pub const LATE_ALERT: Duration = Duration::from_millis(500);

/// The TLS keys of a check, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The name in SNI and the one that the certificate must carry; by default the target's host.
    pub server_name: Option<String>,
    /// PEM file of the certificate authorities to trust instead of Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of our own certificate chain.
    pub client_cert_file: Option<PathBuf>,
    /// PEM file of its key.
    pub client_key_file: Option<PathBuf>,
    /// Protocols to offer (RFC 7301).
    pub alpn: Vec<String>,
    /// The lowest version to offer.
    pub min_version: Option<Version>,
    /// The highest version to offer.
    pub max_version: Option<Version>,
    /// SHA-256 of the only certificate that the server may show, in small hexadecimal digits.
    pub certificate_sha256: Option<String>,
}

/// A TLS version that can be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.0 (RFC 2246), written `1.0`; offered by [`hello`] alone.
    V1_0,
    /// TLS 1.1 (RFC 4346), written `1.1`; offered by [`hello`] alone.
    V1_1,
    /// TLS 1.2 (RFC 5246), written `1.2`.
    V1_2,
    /// TLS 1.3 (RFC 8446), written `1.3`.
    V1_3,
}

/// A way to shake hands, ready to use.
#[derive(Clone)]
pub struct Client {
    /// What it was made from, and what the files held.
    options: Options,
    roots: Arc<RootCertStore>,
    server_name: Option<String>,
    config: ClientConfig,
    trust: Arc<WebPkiServerVerifier>,
    certificate: Option<Arc<CertifiedKey>>,
    /// What `certificate` is.
    showing: ClientCertificate,
    pin: Option<String>,
    /// The check does not limit the versions: what we cannot speak then is ours, not the server's denial.
    any_version: bool,
    offers_1_2: bool,
    /// An untrusted certificate ends nothing; it stays in the evidence, and nothing is authenticated.
    any_certificate: bool,
}

/// A finished handshake.
#[derive(Debug)]
pub struct Shaken<S> {
    /// The encrypted stream.
    pub stream: TlsStream<S>,
    /// The server asked for a client certificate, so a refusal may still be on its way.
    pub may_refuse_late: bool,
    /// In TLS 1.3 the server had not looked at our certificate when the handshake was done here.
    pub still_open: bool,
    /// How long it took, at least one round trip.
    pub took: Duration,
}

impl Client {
    /// Reads the files that the options name.
    ///
    /// # Errors
    /// The key at fault (as in the configuration), what is wrong with it and what to do.
    pub fn new(options: &Options) -> Result<Client, (&'static str, String)> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(roots(options.ca_file.as_deref()).map_err(|e| ("ca_file", e))?);
        let trust = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let trust = trust.map_err(|e| ("ca_file", format!("no usable certificate authority: {e}")))?;
        let certificate = own_certificate(options, &provider)?;
        let versions = versions(options)?;
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions);
        let builder = builder.map_err(|e| ("min_version", format!("no usable TLS version: {e}")))?;
        let verifier = Arc::new(AnyCertificate { trust: Arc::clone(&trust), seen: Arc::default() });
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = options.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        // Every handshake proves the whole chain anew.
        config.resumption = Resumption::disabled();
        let any_version = options.min_version.is_none() && options.max_version.is_none();
        let showing = if certificate.is_some() { ClientCertificate::Own } else { ClientCertificate::None };
        let (server_name, pin) = (options.server_name.clone(), options.certificate_sha256.clone());
        let offers_1_2 = versions.contains(&&rustls::version::TLS12);
        Ok(Client {
            options: options.clone(),
            roots,
            server_name,
            config,
            trust,
            certificate,
            showing,
            pin,
            any_version,
            offers_1_2,
            any_certificate: false,
        })
    }

    /// The same, offering these protocols (RFC 7301) where the check names none.
    #[must_use]
    pub fn or_offering(mut self, protocols: &[&str]) -> Client {
        if self.config.alpn_protocols.is_empty() {
            self.config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        }
        self
    }

    /// The same, offering these protocols and no others.
    #[must_use]
    pub fn offering(mut self, protocols: &[&str]) -> Client {
        self.config.alpn_protocols.clear();
        self.or_offering(protocols)
    }

    /// A way to shake hands with whoever is there, with no name in SNI, offering these protocols.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn anybody(protocols: &[&str]) -> Result<Client, (&'static str, String)> {
        Ok(Client::new(&Options::default())?.offering(protocols).for_anybody(None))
    }

    /// The same for whom a certificate says nothing: with this name in SNI, or with none.
    /// Nothing that is secret may be sent over what it shakes.
    #[must_use]
    pub fn for_anybody(mut self, name: Option<String>) -> Client {
        self.config.enable_sni = name.is_some();
        self.server_name = name.or(self.server_name);
        self.any_certificate = true;
        self.pin = None;
        self
    }

    /// Shakes hands over `stream` with `host` until `deadline`; what was seen goes into `evidence`.
    ///
    /// # Errors
    /// The outcome: refused, broken off, not TLS, or not to be trusted. Nothing is ever sent over an untrusted stream, save by
    /// a client that is [for anybody](Client::for_anybody).
    pub async fn shake<S>(&self, stream: S, host: &Host, deadline: Instant, evidence: &mut Evidence) -> Result<Shaken<S>, Outcome>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = self.name(host, evidence)?;
        let seen = Arc::new(Seen::default());
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = Arc::new(WatchedCertificate { own: self.certificate.clone(), seen: Arc::clone(&seen) });
        config.dangerous().set_certificate_verifier(Arc::new(AnyCertificate { trust: Arc::clone(&self.trust), seen: Arc::clone(&seen) }));
        let began = Instant::now();
        let shaking = TlsConnector::from(Arc::new(config)).connect(name.clone(), stream);
        let shaken = timeout_at(deadline, shaking).await;
        let asked = seen.asked.load(Ordering::Relaxed);
        self.note_seen(&seen, asked, evidence);
        let stream = shaken.map_err(|_| Outcome::Mute)?.map_err(|e| self.refused(&e, evidence))?;
        let trusted = self.note(&stream, &name, evidence);
        let still_open = asked && stream.get_ref().1.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let mut shaken = Shaken { stream, may_refuse_late: asked, still_open, took: began.elapsed() };
        match trusted {
            Ok(()) => Ok(shaken),
            Err(Outcome::TlsUntrusted) if self.any_certificate => Ok(shaken),
            // Nothing is sent to whom we do not trust; but whether it lets us in at all, it may yet say.
            Err(outcome) if asked => match watch_for_refusal(&mut shaken, deadline, evidence).await {
                Err(Outcome::TlsRefused) => Err(Outcome::TlsRefused),
                Ok(_) | Err(_) => Err(outcome),
            },
            Err(outcome) => Err(outcome),
        }
    }

    /// The name in SNI; an address is none (RFC 6066 section 3).
    pub fn name_in_sni(&self, host: &Host) -> Option<String> {
        match self.name(host, &mut Evidence::default()) {
            Ok(ServerName::DnsName(name)) if self.config.enable_sni => Some(name.as_ref().to_string()),
            _ => None,
        }
    }

    /// The check names a client certificate.
    pub fn has_own_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    /// TLS 1.2 is among what is offered.
    pub fn offers_1_2(&self) -> bool {
        self.offers_1_2
    }

    /// Writes down what the handshake showed before it ended, however it ended.
    fn note_seen(&self, seen: &Seen, asked: bool, evidence: &mut Evidence) {
        evidence.client_certificate_requested = asked.then_some(true);
        let shown = if seen.shown.load(Ordering::Relaxed) { self.showing } else { ClientCertificate::None };
        evidence.client_certificate = asked.then_some(shown);
        if let Some(leaf) = seen.leaf.get() {
            evidence.certificate_sha256 = Some(hex(ring::digest::digest(&ring::digest::SHA256, leaf).as_ref()));
            evidence.certificate_expires = x509_parser::parse_x509_certificate(leaf).ok().map(|(_, c)| c.validity().not_after.timestamp());
        }
    }

    /// A server that has only versions older than any that is offered here talks to whoever speaks those: it keeps nobody out.
    fn refused(&self, error: &std::io::Error, evidence: &mut Evidence) -> Outcome {
        let outcome = refusal(error, evidence);
        let too_old = matches!(evidence.tls_alert.as_deref(), Some("protocol_version" | "insufficient_security"));
        if outcome == Outcome::TlsRefused && self.any_version && too_old { Outcome::TlsUntrusted } else { outcome }
    }

    fn name(&self, host: &Host, evidence: &mut Evidence) -> Result<ServerName<'static>, Outcome> {
        let name = match (&self.server_name, host) {
            (Some(name), _) | (None, Host::Name(name)) => ServerName::try_from(name.clone()),
            (None, Host::Ip(ip)) => Ok(ServerName::IpAddress((*ip).into())),
        };
        name.map_err(|e| {
            evidence.detail = Some(format!("the name cannot stand in a TLS handshake: {e}"));
            Outcome::LocalError
        })
    }

    /// Writes down what the handshake showed, and whether the certificate can be trusted for `name`.
    fn note<S>(&self, stream: &TlsStream<S>, name: &ServerName<'_>, evidence: &mut Evidence) -> Result<(), Outcome> {
        let connection = stream.get_ref().1;
        evidence.tls_version = connection.protocol_version().map(|v| format!("{v:?}"));
        evidence.alpn = connection.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned());
        let Some((leaf, chain)) = connection.peer_certificates().and_then(|c| c.split_first()) else {
            evidence.tls_error = Some("the server sent no certificate".into());
            return Err(Outcome::TlsUntrusted);
        };
        match self.trust.verify_server_cert(leaf, chain, name, &[], UnixTime::now()) {
            Ok(_) if self.pin.is_some() && self.pin != evidence.certificate_sha256 => {
                evidence.detail = Some("its certificate is valid, but not the one that certificate_sha256 names".into());
                Err(Outcome::Mismatch)
            }
            Ok(_) => {
                evidence.authenticated = Some(Authentication::Tls);
                Ok(())
            }
            Err(why) => {
                evidence.tls_error = Some(why.to_string());
                Err(Outcome::TlsUntrusted)
            }
        }
    }
}

/// Watches a fresh stream for a late refusal: twice as long as the handshake took, and at least [`LATE_ALERT`] longer than it,
/// never past the deadline. An alert upon our last message is one round trip away, and the handshake was at least one.
/// Bytes that the server sent meanwhile are handed back.
///
/// # Errors
/// The outcome where the server refused or closed after all; `mute` where the deadline came before an alert could have.
pub async fn watch_for_refusal<S>(shaken: &mut Shaken<S>, deadline: Instant, evidence: &mut Evidence) -> Result<Vec<u8>, Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut early = vec![0; Evidence::MAX_HEAD];
    let long_enough = Instant::now() + shaken.took + shaken.took.max(LATE_ALERT);
    let read = match timeout_at(deadline.min(long_enough), shaken.stream.read(&mut early)).await {
        Err(_silence) if shaken.still_open && deadline < long_enough => return Err(take_back(evidence, Outcome::Mute)),
        Err(_silence) => 0,
        Ok(Ok(0)) => return Err(take_back(evidence, Outcome::Closed)),
        Ok(Ok(n)) => n,
        Ok(Err(e)) => return Err(refusal(&e, evidence)),
    };
    early.truncate(read);
    Ok(early)
}

/// What a failed handshake or read on a TLS stream means; the alert goes into the evidence.
pub fn refusal(error: &std::io::Error, evidence: &mut Evidence) -> Outcome {
    let outcome = failure::of_tls(error, evidence);
    take_back(evidence, outcome)
}

/// A server that refuses after the handshake has authenticated nothing that we asked for.
fn take_back(evidence: &mut Evidence, outcome: Outcome) -> Outcome {
    if outcome != Outcome::TlsRefused {
        evidence.authenticated = None;
    }
    outcome
}

/// How to shake hands with whom these authorities (PEM) vouch for, Mozilla's where none are named; for what is sent, never for a probe.
///
/// # Errors
/// What is wrong with the file.
pub fn trusting(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| format!("no usable TLS version: {e}"))?;
    Ok(builder.with_root_certificates(roots(ca_file)?).with_no_client_auth())
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let Some(path) = ca_file else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|e| format!("{} holds a certificate that cannot be a trust anchor: {e}", path.display()))?;
    }
    Ok(store)
}

fn own_certificate(options: &Options, provider: &CryptoProvider) -> Result<Option<Arc<CertifiedKey>>, (&'static str, String)> {
    match (&options.client_cert_file, &options.client_key_file) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(("client_key_file", "a certificate needs its key; write client_key_file too".into())),
        (None, Some(_)) => Err(("client_cert_file", "a key needs its certificate; write client_cert_file too".into())),
        (Some(chain), Some(key)) => {
            let chain = certificates(chain).map_err(|e| ("client_cert_file", e))?;
            let read = PrivateKeyDer::from_pem_file(key);
            let key = read.map_err(|e| ("client_key_file", format!("{} holds no PEM private key: {e}", key.display())))?;
            let pair = CertifiedKey::from_der(chain, key, provider);
            pair.map(|p| Some(Arc::new(p))).map_err(|e| ("client_key_file", format!("certificate and key cannot be used together: {e}")))
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|e| format!("{} cannot be read as PEM certificates: {e}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{} holds no certificate; it must be in PEM form", path.display()));
    }
    Ok(found)
}

fn versions(options: &Options) -> Result<Vec<&'static SupportedProtocolVersion>, (&'static str, String)> {
    let lowest = options.min_version.unwrap_or(Version::V1_2);
    let highest = options.max_version.unwrap_or(Version::V1_3);
    let all = [(Version::V1_2, &rustls::version::TLS12), (Version::V1_3, &rustls::version::TLS13)];
    let chosen: Vec<_> = all.into_iter().filter(|(v, _)| (lowest..=highest).contains(v)).map(|(_, v)| v).collect();
    if chosen.is_empty() {
        return Err(("min_version", "min_version is above max_version, so nothing could be offered".into()));
    }
    Ok(chosen)
}

/// Lets the handshake finish with any certificate whose key the server really has; trust is judged afterwards.
#[derive(Debug)]
struct AnyCertificate {
    trust: Arc<WebPkiServerVerifier>,
    seen: Arc<Seen>,
}

/// What one handshake shows on its way.
#[derive(Debug, Default)]
struct Seen {
    /// The server asked for a certificate.
    asked: AtomicBool,
    /// We answered with one.
    shown: AtomicBool,
    /// The server's own.
    leaf: OnceLock<CertificateDer<'static>>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // It is seen once a handshake, so there is nothing to replace.
        let _ = self.seen.leaf.set(leaf.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trust.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trust.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.supported_verify_schemes()
    }
}

/// Our own certificate, where there is one, and whether the server asked for any.
struct WatchedCertificate {
    own: Option<Arc<CertifiedKey>>,
    seen: Arc<Seen>,
}

impl ResolvesClientCert for WatchedCertificate {
    /// Whose certificates the server wants to see is no matter: that it refuses others is what is looked at.
    fn resolve(&self, _issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.seen.asked.store(true, Ordering::Relaxed);
        let usable = self.own.clone().filter(|own| own.key.choose_scheme(schemes).is_some());
        self.seen.shown.store(usable.is_some(), Ordering::Relaxed);
        usable
    }

    fn has_certs(&self) -> bool {
        self.own.is_some()
    }
}

impl fmt::Debug for WatchedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedCertificate").field("own", &self.own.is_some()).finish()
    }
}

/// The same options, and the same in the files that they name: a handshake by one is as good as a handshake by the other.
impl PartialEq for Client {
    fn eq(&self, other: &Client) -> bool {
        // Whoever signs for himself does so anew each time.
        let own = |client: &Client| {
            let own = client.certificate.as_ref().filter(|_| client.showing == ClientCertificate::Own);
            own.map(|own| own.cert.clone())
        };
        let made = |client: &Client| (client.server_name.clone(), client.config.alpn_protocols.clone(), client.config.enable_sni);
        self.options == other.options
            && self.roots.roots == other.roots.roots
            && made(self) == made(other)
            && (self.showing, self.any_certificate, own(self)) == (other.showing, other.any_certificate, own(other))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A server that answers any ClientHello with this fatal alert (RFC 8446 section 6.2).
    async fn shaken_by_alert(alert: u8, options: Options) -> (Outcome, Evidence) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 2048]).await.unwrap(), 0, "no ClientHello came");
            stream.write_all(&[21, 3, 1, 0, 2, 2, alert]).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.ok();
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let mut evidence = Evidence::default();
        let deadline = Instant::now() + Duration::from_secs(5);
        let host = Host::from_str("127.0.0.1").unwrap();
        let outcome = Client::new(&options).unwrap().shake(stream, &host, deadline, &mut evidence).await.map(|_| ()).unwrap_err();
        server.await.unwrap();
        (outcome, evidence)
    }

    #[tokio::test]
    async fn a_server_too_old_for_us_keeps_nobody_out_unless_the_check_chose_the_versions() {
        let chosen = || Options { max_version: Some(Version::V1_2), ..Options::default() };
        let cells = [
            (70, Options::default(), Outcome::TlsUntrusted, "protocol_version"),
            (71, Options::default(), Outcome::TlsUntrusted, "insufficient_security"),
            (70, chosen(), Outcome::TlsRefused, "protocol_version"),
            (40, Options::default(), Outcome::TlsRefused, "handshake_failure"),
            (116, Options::default(), Outcome::TlsRefused, "certificate_required"),
        ];
        for (alert, options, expected, name) in cells {
            let (outcome, evidence) = shaken_by_alert(alert, options).await;
            assert_eq!((outcome, evidence.tls_alert.as_deref()), (expected, Some(name)), "alert {alert}");
        }
    }
}

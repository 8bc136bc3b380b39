//! Asking our own listener how it is, from the same host: for a health check that runs beside the monitor.
//!
//! `/healthz` and `/readyz` are told to everybody, so that no secret is sent; and whose certificate is shown does not matter to whoever asks
//! his own host, so that a renewed or a home-made one is no reason to be taken for dead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::settings::Settings;

/// The most that is read of an answer.
const MAX_ANSWER: u64 = 64 * 1024;

/// Asks the listener of these settings for a path, such as `/healthz`, and gives status and body.
///
/// # Errors
/// Where it does not answer within `limit`: at which address, and why.
pub async fn ask(settings: &Settings, path: &str, limit: Duration) -> Result<(u16, String), String> {
    let to = reachable(settings.listen);
    let asked = async {
        let stream = TcpStream::connect(to).await.map_err(|e| format!("{to} cannot be reached: {e}"))?;
        if settings.tls.is_none() {
            return exchange(stream, to, path).await;
        }
        let config = client()?;
        let name = ServerName::IpAddress(to.ip().into());
        let shaken = TlsConnector::from(config).connect(name, stream).await;
        exchange(shaken.map_err(|e| format!("no TLS handshake with {to}: {e}"))?, to, path).await
    };
    timeout(limit, asked).await.unwrap_or_else(|_| Err(format!("{to} did not answer {path} within {limit:?}")))
}

/// Where a listener can be reached from its own host: one on all addresses, on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, to: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let failed = |e: std::io::Error| format!("{to} did not answer {path}: {e}");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: mustnot/{}\r\nConnection: close\r\n\r\n", env!("CARGO_PKG_VERSION"));
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await.map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{to} did not answer {path} in HTTP"))?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next()?.parse().ok());
    Ok((status.ok_or_else(|| format!("{to} did not answer {path} in HTTP"))?, body.to_string()))
}

fn client() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| format!("no usable TLS version: {e}"))?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(Whoever(provider))).with_no_client_auth()))
}

/// Takes any certificate whose key the server really has.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

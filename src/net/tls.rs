//! TLS by rustls: a handshake that is carried to its end whether or not the certificate can be trusted, so that both can be told.

use std::path::PathBuf;
use std::sync::Arc;

/// The TLS keys of a check, as written.
#[derive(Debug, Clone, Default)]
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
}

/// A TLS version that can be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2 (RFC 5246), written `1.2`.
    V1_2,
    /// TLS 1.3 (RFC 8446), written `1.3`.
    V1_3,
}

/// A way to shake hands, ready to use.
#[derive(Clone)]
pub struct Client {
    server_name: Option<String>,
    config: Arc<rustls::ClientConfig>,
}

impl Client {
    /// Reads the files that the options name.
    ///
    /// # Errors
    /// The key at fault (as in the configuration) and what is wrong with it.
    pub fn new(options: &Options) -> Result<Client, (&'static str, String)> {
        // stub
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| ("min_version", e.to_string()))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        Ok(Client { server_name: options.server_name.clone(), config: Arc::new(config) })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server_name", &self.server_name).field("alpn", &self.config.alpn_protocols).finish()
    }
}

//! Settings: where the listener is, and whom it lets in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};

use crate::secret::Secret;

/// The one protocol that is spoken (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// `[web]` as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The files of its certificate, where it speaks TLS.
    pub tls: Option<Files>,
    /// The bcrypt hash of each user's password; nobody is asked where there is no user.
    pub users: BTreeMap<String, Secret>,
}

/// PEM files of a TLS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Its certificate, and those between it and the authority.
    pub cert_file: PathBuf,
    /// The key of that certificate.
    pub key_file: PathBuf,
    /// Whose certificates clients must have, where they must have one.
    pub client_ca_file: Option<PathBuf>,
}

impl Settings {
    /// A listener for everybody who reaches it, in plain text.
    pub fn open(listen: SocketAddr) -> Settings {
        Settings { listen, tls: None, users: BTreeMap::new() }
    }

    /// Whether everybody is let in who can reach it.
    pub fn is_open(&self) -> bool {
        self.users.is_empty() && !self.asks_for_certificates()
    }

    /// Whether a client must have a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some())
    }

    /// Whether only this host can reach it.
    pub fn is_local(&self) -> bool {
        crate::target::fold_mapped(self.listen.ip()).is_loopback()
    }

    /// How its addresses begin.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

impl Files {
    /// What they hold, ready to shake hands with.
    ///
    /// # Errors
    /// The key of the configuration at fault, what is wrong with its file and what to do.
    pub fn load(&self) -> Result<Arc<ServerConfig>, (&'static str, String)> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(&self.cert_file).map_err(|e| ("cert_file", e))?;
        let key = PrivateKeyDer::from_pem_file(&self.key_file);
        let key = key.map_err(|e| ("key_file", format!("{} holds no PEM private key: {e}", self.key_file.display())))?;
        let pair = CertifiedKey::from_der(chain, key, &provider);
        let pair = pair.map_err(|e| {
            let (cert, key) = (self.cert_file.display(), self.key_file.display());
            (
                "key_file",
                format!(
                    "{key} and the certificate in {cert} cannot be used together: {e}; write the key that the certificate was made for"
                ),
            )
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| ("cert_file", format!("no usable TLS version: {e}")))?;
        let builder = match &self.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let wrong = |why: String| ("client_ca_file", why);
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file).map_err(wrong)? {
                    roots.add(certificate).map_err(|e| wrong(format!("{} holds what is no certificate authority: {e}", file.display())))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                // Who has none is turned away a step later, at each page but those that load balancers ask.
                let verifier = verifier.allow_unauthenticated().build();
                builder.with_client_cert_verifier(verifier.map_err(|e| wrong(format!("{} cannot be used: {e}", file.display())))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }

    /// Every file, as it is named.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.cert_file), Some(&self.key_file), self.client_ca_file.as_ref()].into_iter().flatten().map(PathBuf::as_path)
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

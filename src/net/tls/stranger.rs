//! Strangers: those who have no right client certificate, and try the handshake all the same (docs/techniques.md).

use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use super::{Client, Options, Version};
use crate::observation::{ClientCertificate, Evidence, Outcome, RefusedFor, Stage};

/// The versions that are tried apart, as the names of the variants begin.
const VERSIONS: [(Version, &str); 2] = [(Version::V1_2, "tls1.2"), (Version::V1_3, "tls1.3")];
/// What nginx says to whom it would have a certificate from (`ngx_http_special_response.c`: errors 495 and 496, which leave it
/// with status 400).
const NGINX_REFUSALS: [&str; 2] = ["No required SSL certificate was sent", "The SSL certificate error"];
/// Alerts that are about the client's certificate (RFC 8446 section 6.2; `no_certificate` is of SSL 3.0, and Mbed TLS sends it).
const OF_CERTIFICATES: [&str; 9] = [
    "certificate_required",
    "bad_certificate",
    "unsupported_certificate",
    "certificate_revoked",
    "certificate_expired",
    "certificate_unknown",
    "unknown_ca",
    "access_denied",
    "no_certificate",
];

/// Somebody who tries one TLS version, and has no certificate or one that nobody signed.
#[derive(Debug, Clone, PartialEq)]
pub struct Stranger {
    /// The only version that is offered.
    pub version: Version,
    /// What is shown when the server asks.
    pub certificate: ClientCertificate,
    /// How this one shakes hands.
    pub client: Client,
}

impl Stranger {
    /// Every stranger that these options allow for: each version between the lowest and the highest, by each certificate.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn all(options: &Options, certificates: &[ClientCertificate]) -> Result<Vec<Stranger>, (&'static str, String)> {
        let lowest = options.min_version.unwrap_or(Version::V1_2);
        let highest = options.max_version.unwrap_or(Version::V1_3);
        let versions = VERSIONS.into_iter().map(|(v, _)| v).filter(|v| (lowest..=highest).contains(v));
        let each = versions.flat_map(|version| certificates.iter().map(move |certificate| (version, *certificate)));
        each.map(|(version, certificate)| Stranger::new(options, version, certificate)).collect()
    }

    fn new(options: &Options, version: Version, certificate: ClientCertificate) -> Result<Stranger, (&'static str, String)> {
        let only = Options { min_version: Some(version), max_version: Some(version), ..options.clone() };
        let mut client = Client::new(&only)?;
        client.showing = certificate;
        client.certificate = match certificate {
            ClientCertificate::SelfSigned => Some(thrown_away().map_err(|e| ("client_certs", e))?),
            ClientCertificate::None | ClientCertificate::Own => None,
        };
        Ok(Stranger { version, certificate, client })
    }

    /// The name of the variant, such as `tls1.3/self-signed`.
    pub fn variant(&self) -> String {
        let version = VERSIONS.iter().find(|(v, _)| *v == self.version).map_or("tls", |(_, name)| name);
        let certificate = match self.certificate {
            ClientCertificate::None => "none",
            ClientCertificate::SelfSigned => "self-signed",
            ClientCertificate::Own => "own",
        };
        format!("{version}/{certificate}")
    }

    /// Writes down what this stranger was refused for, where it was refused above TCP; `body` is that of an HTTP answer.
    pub fn note_refusal(&self, (outcome, stage): (Outcome, Stage), body: &[u8], evidence: &mut Evidence) {
        evidence.refused_for = refused_for(outcome, stage, evidence, self.certificate, body);
        evidence.detail = evidence.detail.take().or_else(|| why_not(outcome, evidence, self.certificate));
    }
}

/// What a stranger with this certificate was refused for. Only who was asked for a certificate, and answered as it meant to, was
/// refused for it: who was not asked may only be asked later, by means that we do not have (renegotiation, post-handshake
/// authentication), and others have.
pub fn refused_for(outcome: Outcome, stage: Stage, evidence: &Evidence, certificate: ClientCertificate, body: &[u8]) -> Option<RefusedFor> {
    let asked = evidence.client_certificate == Some(certificate);
    // In TLS 1.2 the server has looked at the certificate by the end of the handshake; what follows is about something else.
    let let_in = evidence.tls_version.as_deref() == Some("TLSv1_2");
    let for_it = match outcome {
        Outcome::TlsRefused => match evidence.tls_alert.as_deref() {
            Some("protocol_version") => return Some(RefusedFor::Version),
            Some("handshake_failure") => !let_in,
            Some(alert) => OF_CERTIFICATES.contains(&alert),
            None => false,
        },
        // Some refuse without a word; but once the request is out, it may as well be what ended the matter.
        Outcome::Closed | Outcome::Reset => stage == Stage::Tls && !let_in,
        Outcome::Status(400) => {
            let text = String::from_utf8_lossy(body);
            NGINX_REFUSALS.iter().any(|known| text.contains(known))
        }
        Outcome::Status(401..=499) => true,
        // Silence behind a handshake may be a server that waits for what we do not do, such as to renegotiate.
        Outcome::Status(500..) | Outcome::Mute => false,
        _ => return None,
    };
    Some(if asked && for_it { RefusedFor::Certificate } else { RefusedFor::Other })
}

/// Why a refusal is none for want of a certificate, and what to do.
fn why_not(outcome: Outcome, evidence: &Evidence, certificate: ClientCertificate) -> Option<String> {
    let why = match (evidence.refused_for?, evidence.client_certificate) {
        (RefusedFor::Certificate, _) => return None,
        (RefusedFor::Version, _) => "it does not speak this version; it counts where the other one is refused for want of a certificate",
        (RefusedFor::Other, None) => {
            "it never asked for a client certificate, so it may let in who renegotiates, authenticates after the handshake, or speaks other cipher suites"
        }
        (RefusedFor::Other, Some(shown)) if shown != certificate => {
            "it asked for a certificate of a kind that could not be made, so none was shown"
        }
        (RefusedFor::Other, Some(_)) if outcome == Outcome::Status(400) => {
            "a 400 may be about anything, and this one does not say that it is about the certificate; let the server answer 403 to who has none (nginx: error_page 495 496 =403)"
        }
        (RefusedFor::Other, Some(_)) => "that is not about the client certificate",
    };
    Some(why.into())
}

/// A key and a certificate that nobody but this process has ever seen, and that it never writes anywhere.
fn thrown_away() -> Result<Arc<CertifiedKey>, String> {
    let bug = |e: String| format!("no certificate could be made to be thrown away: {e}");
    let key = KeyPair::generate().map_err(|e| bug(e.to_string()))?;
    let mut params = CertificateParams::new(Vec::new()).map_err(|e| bug(e.to_string()))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "mustnot: a stranger");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key).map_err(|e| bug(e.to_string()))?;
    let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| bug(e.into()))?;
    let provider = rustls::crypto::ring::default_provider();
    let pair = CertifiedKey::from_der(vec![certificate.der().clone()], der, &provider);
    pair.map(Arc::new).map_err(|e| bug(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_asked_and_answered_was_refused_for_its_certificate() {
        use ClientCertificate::{None as Bare, SelfSigned};
        // How it ended, the alert, what was shown where it asked, what was meant to be shown, the body, what it was for.
        let nginx = b"<center>No required SSL certificate was sent</center>".as_slice();
        let asked = Some(Bare);
        type Cell = (Outcome, Stage, Option<&'static str>, Option<ClientCertificate>, ClientCertificate, &'static [u8], Option<RefusedFor>);
        let cells: &[Cell] = &[
            (Outcome::TlsRefused, Stage::Tls, Some("certificate_required"), asked, Bare, b"", Some(RefusedFor::Certificate)),
            (Outcome::TlsRefused, Stage::Tls, Some("handshake_failure"), asked, Bare, b"", Some(RefusedFor::Certificate)),
            (Outcome::TlsRefused, Stage::Tls, Some("unknown_ca"), Some(SelfSigned), SelfSigned, b"", Some(RefusedFor::Certificate)),
            (Outcome::TlsRefused, Stage::Tls, Some("handshake_failure"), None, Bare, b"", Some(RefusedFor::Other)),
            (Outcome::TlsRefused, Stage::Http, Some("handshake_failure"), None, SelfSigned, b"", Some(RefusedFor::Other)),
            // It was asked, but could show nothing: that is not what the variant is about.
            (Outcome::TlsRefused, Stage::Tls, Some("certificate_required"), asked, SelfSigned, b"", Some(RefusedFor::Other)),
            (Outcome::TlsRefused, Stage::Tls, Some("protocol_version"), None, Bare, b"", Some(RefusedFor::Version)),
            (Outcome::TlsRefused, Stage::Tls, Some("internal_error"), asked, Bare, b"", Some(RefusedFor::Other)),
            (Outcome::TlsRefused, Stage::Tls, Some("unrecognised_name"), asked, Bare, b"", Some(RefusedFor::Other)),
            (Outcome::Closed, Stage::Tls, None, asked, Bare, b"", Some(RefusedFor::Certificate)),
            (Outcome::Reset, Stage::Tls, None, None, Bare, b"", Some(RefusedFor::Other)),
            (Outcome::Reset, Stage::Http, None, asked, Bare, b"", Some(RefusedFor::Other)),
            (Outcome::Status(400), Stage::Http, None, asked, Bare, nginx, Some(RefusedFor::Certificate)),
            (Outcome::Status(400), Stage::Http, None, asked, Bare, b"Bad Request", Some(RefusedFor::Other)),
            (Outcome::Status(400), Stage::Http, None, None, Bare, nginx, Some(RefusedFor::Other)),
            (Outcome::Status(403), Stage::Http, None, asked, Bare, b"", Some(RefusedFor::Certificate)),
            (Outcome::Status(403), Stage::Http, None, None, Bare, b"", Some(RefusedFor::Other)),
            (Outcome::Status(502), Stage::Http, None, asked, Bare, b"", Some(RefusedFor::Other)),
            (Outcome::Mute, Stage::Http, None, None, Bare, b"", Some(RefusedFor::Other)),
            (Outcome::Timeout, Stage::Tcp, None, None, Bare, b"", None),
            (Outcome::Status(200), Stage::Http, None, asked, Bare, b"", None),
        ];
        for (outcome, stage, alert, shown, certificate, body, expected) in cells {
            let evidence = Evidence { tls_alert: alert.map(Into::into), client_certificate: *shown, ..Evidence::default() };
            let found = refused_for(*outcome, *stage, &evidence, *certificate, body);
            assert_eq!(found, *expected, "{outcome} {stage} {alert:?} {shown:?} as {certificate:?}");
        }
    }

    #[test]
    fn what_follows_a_finished_handshake_of_tls_1_2_is_not_about_the_certificate() {
        let after = |version: &str, outcome, alert: Option<&str>| {
            let evidence = Evidence {
                tls_version: Some(version.into()),
                tls_alert: alert.map(Into::into),
                client_certificate: Some(ClientCertificate::None),
                ..Evidence::default()
            };
            refused_for(outcome, Stage::Tls, &evidence, ClientCertificate::None, b"")
        };
        for (outcome, alert) in [(Outcome::Closed, None), (Outcome::Reset, None), (Outcome::TlsRefused, Some("handshake_failure"))] {
            assert_eq!(after("TLSv1_3", outcome, alert), Some(RefusedFor::Certificate), "{outcome}");
            assert_eq!(after("TLSv1_2", outcome, alert), Some(RefusedFor::Other), "{outcome}");
        }
    }

    #[test]
    fn strangers_are_every_version_by_every_certificate() {
        let both = [ClientCertificate::None, ClientCertificate::SelfSigned];
        let variants = |options| Stranger::all(&options, &both).unwrap().iter().map(Stranger::variant).collect::<Vec<_>>();
        assert_eq!(variants(Options::default()), ["tls1.2/none", "tls1.2/self-signed", "tls1.3/none", "tls1.3/self-signed"]);
        let limited = Options { max_version: Some(Version::V1_2), ..Options::default() };
        assert_eq!(variants(limited), ["tls1.2/none", "tls1.2/self-signed"]);
    }
}

//! The certificates of the laboratory: one authority, and what is signed by it or is not. Made once a test process.

use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Names that the valid server certificate carries.
const NAMES: [&str; 6] = ["admin.lab.test", "admin4.lab.test", "two.lab.test", "witness.lab.test", "witness6.lab.test", "site.lab.test"];

/// PEM texts; `valid` and `untrusted` hold key and certificate chain in one, as the servers want them.
pub struct Certificates {
    /// The authority that a check trusts by `ca_file`.
    pub ca: String,
    /// A server certificate for all names of the laboratory, signed by the authority.
    pub valid: String,
    /// The same names, signed by nobody.
    pub untrusted: String,
    /// The right client certificate, signed by the authority.
    pub client: String,
}

/// The certificates of this test process.
pub fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(make)
}

fn make() -> Certificates {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "lab.test authority");
    let authority_key = KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);

    let names: Vec<String> = NAMES.iter().map(ToString::to_string).collect();
    let key = KeyPair::generate().unwrap();
    let valid = CertificateParams::new(names.clone()).unwrap().signed_by(&key, &issuer).unwrap();
    let lone_key = KeyPair::generate().unwrap();
    let untrusted = CertificateParams::new(names).unwrap().self_signed(&lone_key).unwrap();
    let client_key = KeyPair::generate().unwrap();
    let mut client = CertificateParams::new(Vec::new()).unwrap();
    client.distinguished_name.push(rcgen::DnType::CommonName, "lab.test operator");
    client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let client = client.signed_by(&client_key, &issuer).unwrap();
    Certificates {
        client: format!("{}{}", client_key.serialize_pem(), client.pem()),
        ca: authority_certificate.pem(),
        valid: format!("{}{}", key.serialize_pem(), valid.pem()),
        untrusted: format!("{}{}", lone_key.serialize_pem(), untrusted.pem()),
    }
}

//! Kind `http`: one exchange by HTTP/1.1 or HTTP/2, direct or through a proxy's tunnel; the path is sent as typed. And the
//! variants of a request that is denied ([`Variant`]).

use tokio::time::Instant;

use super::fetch::{Fetch, Speak, reach};
use super::tls::{ask_again, may_be_our_taste, stranger};
use super::variant::Variant;
use super::{Aim, Approach, Ended, Manner, Via};
use crate::net::http::{Body, Head};
use crate::net::tls::{self, Stranger};
use crate::observation::{Class, Evidence, Outcome, Stage};
use crate::secret::Secret;
use crate::target::{HostPort, Url};

/// Redirects that are followed before one too many is a loop (RFC 9110 section 15.4).
pub(super) const MAX_REDIRECTS: usize = 5;

/// The most that is read of a page to look for `body_contains`; one a run at once, and a run may look at many addresses.
pub const MAX_PAGE: usize = 1024 * 1024;

/// Kind `http`.
#[derive(Debug, PartialEq)]
pub struct Http {
    /// What to ask for; the path is sent as typed.
    pub url: Url,
    /// The proxy to go through.
    pub via: Option<Via>,
    /// The request method.
    pub method: String,
    /// Headers besides `Host`, `User-Agent`, `Accept` and `Connection`; the values may be secret.
    pub headers: Vec<(String, Secret)>,
    /// What the body of an accepted answer must contain, and that of a denial must not.
    pub body_contains: Option<String>,
    /// Where redirects lead that are denials: to one of these, or below it.
    pub deny_location: Vec<Url>,
    /// HTTP/2 by prior knowledge where the target is plain HTTP; over TLS that is agreed (ALPN).
    pub prior_knowledge: bool,
    /// Follow redirects to the end (positive checks only).
    pub follow_redirects: bool,
    /// How to shake hands, for `https`.
    pub tls: tls::Client,
    /// In whose place to try it; [`Manner::Old`] is for kind `tls` alone.
    pub manner: Manner,
    /// The variants that are tried besides.
    pub variants: Vec<Variant>,
}

impl Http {
    /// Those in whose place to try it, besides our own.
    pub(super) fn strangers(&self) -> &[Stranger] {
        match &self.manner {
            Manner::Strangers(all) => all,
            Manner::Plain | Manner::Old(_) => &[],
        }
    }

    /// One exchange, and the redirects that the check follows; or one variant of it.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        if let Aim::Variant(nth) = approach.aim {
            return match self.variants.get(nth) {
                Some(variant) => variant.attempt(self, approach, deadline, evidence).await,
                None => (Outcome::Internal, Stage::Http),
            };
        }
        let (ended, body) = match self.follow(approach, deadline, evidence).await {
            Ok((from, head, body)) => ((self.of_answer(&from, &head, &body, evidence), Stage::Http), body),
            Err(ended) => (ended, Body::default()),
        };
        match stranger(&approach.aim, &self.manner) {
            Some(stranger) => stranger.note_refusal(ended, &body.bytes, evidence),
            None if ended.1 == Stage::Tls && may_be_our_taste(&self.tls, ended.0, evidence) => {
                return (self.ask_again(approach, ended.0, deadline, evidence).await, Stage::Tls);
            }
            None => {}
        }
        ended
    }

    /// The handshake again, with all that could be offered; not after a redirect, whose handshake is no longer the target's.
    async fn ask_again(&self, approach: &Approach, outcome: Outcome, deadline: Instant, evidence: &mut Evidence) -> Outcome {
        if evidence.redirected_to.is_some() || self.follow_redirects {
            return outcome;
        }
        let stream = reach(&self.url, self.via.as_ref(), approach, deadline, &mut Evidence::default()).await;
        match stream {
            Ok(stream) => ask_again(&self.tls, stream, &self.url.authority.host, outcome, deadline, evidence).await,
            Err(_) => outcome,
        }
    }

    async fn follow(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Result<(Url, Head, Body), Ended> {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_string())).collect();
        let (mut url, mut approach) = (self.url.clone(), approach.clone());
        let mut authenticated = true;
        for hop in 0..=MAX_REDIRECTS {
            if hop > 0 {
                // What an earlier hop showed, its authentication above all, says nothing of this one.
                *evidence = Evidence { redirected_to: self.via.is_none().then_some(approach.to), ..Evidence::default() };
            }
            // Headers may carry credentials for the target, and for nobody else who reads along.
            let headers: &[_] = if (url.scheme, &url.authority) == (self.url.scheme, &self.url.authority) { &headers } else { &[] };
            let stranger = stranger(&approach.aim, &self.manner);
            let fetch = Fetch {
                url: &url,
                via: self.via.as_ref(),
                tls: Some(stranger.map_or(&self.tls, |stranger| &stranger.client)),
                method: if hop == 0 { &self.method } else { "GET" },
                headers,
                // What a stranger is refused for, some servers say in the body alone.
                body: self.body_contains.is_some() || stranger.is_some(),
            };
            let plain = if self.prior_knowledge { Speak::Http2 } else { Speak::Http1 };
            let fetched = fetch.run_by(plain, MAX_PAGE, &approach, deadline, evidence).await;
            // Who answered a hop in plain text chose the host of the next: its certificate proves that host, not the one that was asked.
            authenticated &= evidence.authenticated.is_some();
            if !authenticated {
                evidence.authenticated = None;
            }
            let (head, body) = fetched?;
            let next = redirect(&url, &head).filter(|next| self.follow_redirects && !self.denies(next));
            let Some(next) = next else { return Ok((url, head, body)) };
            if next.authority != url.authority {
                approach = approach.rerouted(self.via.is_some(), &next.authority, deadline, evidence).await?;
            }
            url = next;
        }
        evidence.detail = Some(format!("more than {MAX_REDIRECTS} redirects"));
        Err((Outcome::Mismatch, Stage::Http))
    }

    /// What the answer to a request for `from` is.
    fn of_answer(&self, from: &Url, head: &Head, body: &Body, evidence: &mut Evidence) -> Outcome {
        let outcome = Outcome::Status(head.status);
        let marked = self.body_contains.as_ref().map(|marker| contains(body, marker.as_bytes()));
        let told_where = head.headers.iter().filter(|(name, _)| name == "location").count() == 1;
        match (redirect(from, head).filter(|next| told_where && self.denies(next)), marked, outcome.class()) {
            // Whoever sends the page along with a denial, or with a redirect, has not kept it to himself.
            (_, Some(true), Class::Closed) => {
                evidence.detail = Some(format!("the body of its {outcome} contains body_contains all the same"));
                Outcome::Mismatch
            }
            (Some(to), Some(false) | None, _) => {
                evidence.detail = Some(format!("it redirects to {}", shortened(&to.to_string())));
                Outcome::Denied
            }
            (None, Some(false), Class::Open) => {
                let cut = if body.whole { "" } else { ", as far as it came" };
                evidence.detail = Some(format!("the body ({} bytes{cut}) does not contain body_contains", body.len()));
                Outcome::Mismatch
            }
            _ => outcome,
        }
    }

    /// Whether a redirect there is a denial.
    fn denies(&self, to: &Url) -> bool {
        // As a browser would go there, without the segments `.` and `..`.
        let to = to.join(&to.path).unwrap_or_else(|| to.clone());
        self.deny_location.iter().any(|from| to.is_below(from))
    }
}

/// Where the answer sends us, if anywhere that is HTTP.
fn redirect(from: &Url, head: &Head) -> Option<Url> {
    if !matches!(head.status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    from.join(head.header("location")?.trim())
}

/// As much of a text from outside as a sentence can bear.
fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    text.chars().take(MOST).collect()
}

pub(super) fn contains(body: &[u8], marker: &[u8]) -> bool {
    marker.is_empty() || body.windows(marker.len()).any(|w| w == marker)
}

impl Approach {
    /// The way to another host, as a redirect names it: through the same proxy, or to the first address of its name.
    async fn rerouted(&self, via: bool, to: &HostPort, deadline: Instant, evidence: &mut Evidence) -> Result<Approach, Ended> {
        if via {
            return Ok(Approach { aim: Aim::Tunnel(to.clone()), ..self.clone() });
        }
        let address = super::first_address(to, self, deadline).await.map_err(|why| {
            evidence.detail = Some(format!("the redirect to {to} leads nowhere: {why}"));
            (Outcome::Mismatch, Stage::Dns)
        })?;
        Ok(Approach { to: address, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::net::resolve::Resolver;
    use crate::observation::Authentication;

    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    /// A server of one answer, in plain text or over TLS.
    async fn server(text: String, tls: Option<TlsAcceptor>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    Some(tls) => answer(tls.accept(stream).await.unwrap(), &text).await,
                    None => answer(stream, &text).await,
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn a_redirect_in_plain_text_leads_to_no_authentication() {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, made.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server_side = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server_side));
        let end = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_string();
        let to = |address| format!("HTTP/1.1 302 Found\r\nLocation: https://{address}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let portal = server(end, Some(acceptor.clone())).await;
        let in_plain_text = server(to(portal), None).await;
        let over_tls = server(to(portal), Some(acceptor)).await;
        for (first, url, authenticated) in [
            (portal, format!("https://{portal}/"), Some(Authentication::Tls)),
            (over_tls, format!("https://{over_tls}/"), Some(Authentication::Tls)),
            (in_plain_text, format!("http://{in_plain_text}/"), None),
        ] {
            let options = tls::Options { ca_file: Some(ca_file.clone()), ..tls::Options::default() };
            let probe = Http {
                url: url.parse().unwrap(),
                via: None,
                method: "GET".into(),
                headers: Vec::<(String, Secret)>::new(),
                body_contains: None,
                deny_location: Vec::new(),
                prior_knowledge: false,
                follow_redirects: true,
                tls: tls::Client::new(&options).unwrap(),
                manner: Manner::Plain,
                variants: Vec::new(),
            };
            let timeout = Duration::from_secs(5);
            let approach = Approach { to: first, source: None, timeout, aim: Aim::AsWritten, resolver: Resolver::System };
            let mut evidence = Evidence::default();
            let ended = probe.attempt(&approach, Instant::now() + timeout, &mut evidence).await;
            assert_eq!((ended.0, evidence.authenticated), (Outcome::Status(200), authenticated), "{url}: {evidence:?}");
        }
    }
}

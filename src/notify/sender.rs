//! Senders: one request, and what came of it. Sent by a client of its own that knows no proxy of the environment, follows nobody, and
//! waits no longer than it was told; nothing is ever probed by it.

use std::error::Error;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Method, StatusCode};
use tokio_rustls::rustls::ClientConfig;

use crate::alert::sink::{Address, Sink, To};
use crate::clock::Wall;
use crate::config::printable;
use crate::net::tls;
use crate::secret::{Secret, mask};

/// Who we say we are.
const USER_AGENT: &str = concat!("mustnot/", env!("CARGO_PKG_VERSION"));
/// Bytes of an answer that are read, to say what was wrong.
const MAX_ANSWER: usize = 4096;
/// Characters of it that are said.
const MAX_SAID: usize = 200;
/// A part of a path that is as long as this may be a token.
const TOKEN: usize = 12;

/// Sends to one place of one sink.
#[derive(Debug, Clone)]
pub struct Sender {
    client: Client,
    method: Method,
    address: Address,
    path: &'static str,
    content_type: String,
    headers: HeaderMap,
    secrets: Vec<Secret>,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It was taken, with this status.
    Taken(u16),
    /// It was refused, and will be as it is.
    Refused(String),
    /// Not now; after so long where the place says so.
    Later(String, Option<Duration>),
}

impl Sender {
    /// A sender to that place.
    ///
    /// # Errors
    /// What is wrong with its files or headers, and what to do.
    pub fn new(sink: &Sink, address: &Address) -> Result<Sender, String> {
        let tls = tls::trusting(sink.ca_file.as_deref())?;
        let client = client(tls, sink.timeout)
            .retry(reqwest::retry::never())
            .connect_timeout(sink.timeout)
            .build()
            .map_err(|e| format!("cannot set up a client: {}", explain(&e.without_url())))?;
        let (path, content_type) = match &sink.to {
            To::Alertmanager { .. } => ("/api/v2/alerts", "application/json"),
            To::Webhook { content_type, .. } => ("", content_type.as_str()),
            _ => ("", "application/json"),
        };
        let mut own = sink.headers.clone();
        if let To::Datadog { api_key, .. } = &sink.to {
            own.push(("DD-API-KEY".into(), api_key.clone()));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &own {
            let name = HeaderName::try_from(name).map_err(|_| format!("\"{name}\" is no name of a header"))?;
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_| format!("the value of the header {name} cannot be sent; leave out control characters"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let secrets = hidden(sink, address, &own);
        let method = if matches!(sink.to, To::Heartbeat { .. }) { Method::GET } else { Method::POST };
        Ok(Sender { client, method, address: address.clone(), path, content_type: content_type.to_string(), headers, secrets })
    }

    /// Sends the body and waits for the answer, within the sink's time-out.
    pub async fn send(&self, body: String) -> Told {
        let url = format!("{}{}", self.address.expose().trim_end_matches(if self.path.is_empty() { '\0' } else { '/' }), self.path);
        let mut request = self.client.request(self.method.clone(), url).headers(self.headers.clone());
        if self.method == Method::POST {
            request = request.header(CONTENT_TYPE, &self.content_type).body(body);
        }
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Told::Later(self.shown(&explain(&error.without_url())), None),
        };
        let status = answer.status();
        if status.is_success() {
            return Told::Taken(status.as_u16());
        }
        let after = answer.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, Wall::now()));
        let mut said = Vec::new();
        while let Ok(Some(bytes)) = answer.chunk().await {
            said.extend_from_slice(bytes.get(..(MAX_ANSWER - said.len()).min(bytes.len())).unwrap_or_default());
            if said.len() >= MAX_ANSWER {
                break;
            }
        }
        let said: String = printable(&self.shown(&String::from_utf8_lossy(&said))).chars().take(MAX_SAID).collect();
        let why = if said.trim().is_empty() {
            format!("{} answered {status}", self.address)
        } else {
            format!("{} answered {status}: {}", self.address, said.trim())
        };
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Told::Later(why, after),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Told::Later(why, None),
            status if status.is_server_error() => Told::Later(why, after),
            // Redirects are followed by nobody: they are refused as much as any 4xx.
            _ => Told::Refused(why),
        }
    }

    fn shown(&self, text: &str) -> String {
        mask(text, &self.secrets)
    }
}

/// What an answer may show of the question, and nobody is to read in a log; longest first. Who answers often repeats where it was asked, and with what.
fn hidden(sink: &Sink, address: &Address, headers: &[(String, Secret)]) -> Vec<Secret> {
    let mut texts = vec![address.expose().to_string()];
    if let Ok(url) = reqwest::Url::parse(address.expose()) {
        texts.extend([url.path().to_string(), url.query().unwrap_or_default().to_string()]);
        texts.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        // One word of the path is said too often to be hidden, unless it is as long as a token.
        texts.extend(url.path_segments().into_iter().flatten().filter(|part| part.len() >= TOKEN).map(String::from));
    }
    for value in headers.iter().map(|(_, value)| value.expose()) {
        texts.push(value.to_string());
        let Some((scheme, credential)) = value.split_once(' ') else { continue };
        texts.push(credential.to_string());
        let decoded = scheme.eq_ignore_ascii_case("basic").then(|| BASE64.decode(credential).ok()).flatten();
        let password = decoded.and_then(|bytes| Some(String::from_utf8(bytes).ok()?.split_once(':')?.1.to_string()));
        texts.extend(password);
    }
    match &sink.to {
        To::PagerDuty { routing_key, .. } => texts.push(routing_key.expose().to_string()),
        To::Webhook { body: Some(body), .. } => texts.extend(body.secrets().iter().map(|secret| secret.expose().to_string())),
        _ => {}
    }
    texts.retain(|text| text.len() > 1);
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    texts.into_iter().map(Secret::new).collect()
}

/// How long `Retry-After` asks to wait: seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(value: &str, now: Wall) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?;
    Wall::from_unix_millis(at.timestamp().as_millisecond()).map(|at| at.since(now))
}

/// A client that brings what this program has to tell: it knows no proxy of the environment, and follows nobody who leads elsewhere.
pub fn client(tls: ClientConfig, limit: Duration) -> ClientBuilder {
    let client = Client::builder().tls_backend_preconfigured(tls).no_proxy().redirect(Policy::none());
    client.timeout(limit).user_agent(USER_AGENT)
}

/// Why a request failed; of several reasons the innermost, since the outer ones say that something was wrong.
pub fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_string();
    }
    let mut inner: &dyn Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn explain(error: &reqwest::Error) -> String {
    match reason(error) {
        why if error.is_timeout() => why,
        why if error.is_connect() => format!("cannot connect: {why}"),
        why => format!("broken off: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_somebody_asks_to_wait() {
        let now = Wall::parse("2026-01-02T03:04:05Z").unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(" 0 ", now), Some(Duration::ZERO));
        assert_eq!(retry_after("Fri, 02 Jan 2026 03:05:05 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Fri, 02 Jan 2026 03:04:04 GMT", now), Some(Duration::ZERO), "the past is now");
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
    }
}

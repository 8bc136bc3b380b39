//! One HTTP exchange along an approach: dial, tunnel where there is a proxy, shake hands where it is https, ask, read.

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Aim, Approach, Ended, Via, dial, tunnel};
use crate::net::h2;
use crate::net::http::{self, Body, Head};
use crate::net::tls::{self, watch_for_refusal};
use crate::observation::{Evidence, Outcome, Stage};
use crate::target::{Scheme, Url};

/// What to ask, and how to get there.
pub struct Fetch<'a> {
    /// Where to.
    pub url: &'a Url,
    /// The proxy on the way.
    pub via: Option<&'a Via>,
    /// How to shake hands; `https` needs it.
    pub tls: Option<&'a tls::Client>,
    /// The request method.
    pub method: &'a str,
    /// Headers besides the usual ones, or instead of them where they have the same name.
    pub headers: &'a [(String, String)],
    /// Whether the body is wanted.
    pub body: bool,
}

/// A connection to the URL's host, through the tunnel where there is a proxy; to the proxy where it is asked in absolute form.
///
/// # Errors
/// Where it ended before.
pub async fn reach(
    url: &Url,
    via: Option<&Via>,
    approach: &Approach,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Result<TcpStream, Ended> {
    let mut stream = dial(approach, deadline, evidence).await?;
    if let Some(via) = via {
        evidence.via = Some(approach.to);
        if via.absolute {
            return Ok(stream);
        }
        let to = if let Aim::Tunnel(to) = &approach.aim { to } else { &url.authority };
        tunnel::open(&mut stream, via, to, deadline, evidence).await.map_err(|outcome| (outcome, Stage::Proxy))?;
    }
    Ok(stream)
}

impl Fetch<'_> {
    /// Asks once and reads the answer.
    ///
    /// # Errors
    /// Where it ended before there was a final response head.
    pub async fn run(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Result<(Head, Body), Ended> {
        self.run_by(Speak::Http1, http::MAX_BODY, approach, deadline, evidence).await
    }

    /// The same over plain text by this protocol, and over TLS by what was agreed; `limit` is the most that is read of a body.
    ///
    /// # Errors
    /// As [`Fetch::run`].
    pub async fn run_by(
        &self,
        plain: Speak,
        limit: usize,
        approach: &Approach,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Result<(Head, Body), Ended> {
        let limit = if self.body && self.method != "HEAD" { limit } else { 0 };
        let stream = reach(self.url, self.via, approach, deadline, evidence).await?;
        match (self.url.scheme, self.tls) {
            (Scheme::Http, _) => self.ask(stream, Vec::new(), plain, limit, deadline, evidence).await,
            (Scheme::Https, Some(client)) => {
                let shaken = client.shake(stream, &self.url.authority.host, deadline, evidence).await;
                let mut shaken = shaken.map_err(|outcome| (outcome, Stage::Tls))?;
                let mut early = Vec::new();
                if shaken.may_refuse_late {
                    // Reading before writing: a write may turn the alert into a reset and lose it.
                    early = watch_for_refusal(&mut shaken, deadline, evidence).await.map_err(|outcome| (outcome, Stage::Tls))?;
                }
                let agreed = if evidence.alpn.as_deref() == Some(h2::ALPN) { Speak::Http2 } else { Speak::Http1 };
                self.ask(shaken.stream, early, agreed, limit, deadline, evidence).await
            }
            (Scheme::Https, None) => Err((Outcome::Internal, Stage::Tls)),
        }
    }

    async fn ask<S>(
        &self,
        mut stream: S,
        early: Vec<u8>,
        speak: Speak,
        limit: usize,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Result<(Head, Body), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        evidence.request = Some(format!("{} {} {speak}", self.method, self.target()));
        if speak == Speak::Http2 {
            let (authority, headers) = (self.url.host_header(), self.lines(super::user_agent(evidence)));
            let request = h2::Request {
                method: self.method,
                scheme: self.url.scheme.as_str(),
                authority: &authority,
                path: &self.url.path,
                headers: &headers,
                stream: 1,
                body: limit,
            };
            let answered = h2::exchange(stream, early, request, deadline, evidence).await;
            return answered.map_err(|none| (none.outcome, Stage::Http));
        }
        let head = match early.is_empty() {
            true => http::exchange(&mut stream, self.request(super::user_agent(evidence)).as_bytes(), deadline, evidence).await,
            false => http::read_head(&mut stream, early, deadline, evidence).await,
        };
        let head = match head {
            Ok(head) if self.absolute().is_some() && tunnel::is_of_the_proxy(&head) => {
                return Err((tunnel::of_answer(&head), Stage::Proxy));
            }
            Ok(head) => head,
            Err(outcome) if self.absolute().is_some() => return Err((tunnel::of_silence(outcome), Stage::Proxy)),
            Err(outcome) => return Err((outcome, Stage::Http)),
        };
        let body = if limit > 0 { http::read_body(&mut stream, &head, limit, deadline).await } else { Body::default() };
        Ok((head, body))
    }

    /// The proxy that is asked in absolute form.
    fn absolute(&self) -> Option<&Via> {
        self.via.filter(|via| via.absolute)
    }

    /// The request target (RFC 9112 section 3.2).
    fn target(&self) -> String {
        if self.absolute().is_some() { self.url.to_string() } else { self.url.path.clone() }
    }

    /// The headers, in the order in which they are sent.
    fn lines(&self, user_agent: String) -> Vec<(String, String)> {
        let usual =
            [("Host", self.url.host_header()), ("User-Agent", user_agent), ("Accept", "*/*".into()), ("Connection", "close".into())];
        let unless_own = |(name, _): &(&str, String)| !self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let usual = usual.into_iter().filter(unless_own).map(|(name, value)| (name.to_string(), value));
        usual.chain(self.headers.iter().cloned()).chain(self.absolute().and_then(Via::authorization)).collect()
    }

    fn request(&self, user_agent: String) -> String {
        let lines = self.lines(user_agent).into_iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        format!("{} {} HTTP/1.1\r\n{}\r\n", self.method, self.target(), lines.collect::<String>())
    }
}

/// What is spoken once the way is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speak {
    /// HTTP/1.1 (RFC 9112).
    Http1,
    /// HTTP/2 (RFC 9113), over plain text by prior knowledge.
    Http2,
}

impl fmt::Display for Speak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Speak::Http1 => "HTTP/1.1",
            Speak::Http2 => "HTTP/2",
        })
    }
}

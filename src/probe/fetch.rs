//! One HTTP exchange along an approach: dial, tunnel where there is a proxy, shake hands where it is https, ask, read.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Aim, Approach, Ended, Via, dial, tunnel};
use crate::net::http::{self, Head};
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

/// A connection to the URL's host, through the tunnel where there is a proxy.
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
    pub async fn run(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Result<(Head, Vec<u8>), Ended> {
        let stream = reach(self.url, self.via, approach, deadline, evidence).await?;
        match (self.url.scheme, self.tls) {
            (Scheme::Http, _) => self.ask(stream, Vec::new(), deadline, evidence).await,
            (Scheme::Https, Some(client)) => {
                let shaken = client.shake(stream, &self.url.authority.host, deadline, evidence).await;
                let mut shaken = shaken.map_err(|outcome| (outcome, Stage::Tls))?;
                let mut early = Vec::new();
                if shaken.may_refuse_late {
                    // Reading before writing: a write may turn the alert into a reset and lose it.
                    early = watch_for_refusal(&mut shaken, deadline, evidence).await.map_err(|outcome| (outcome, Stage::Tls))?;
                }
                self.ask(shaken.stream, early, deadline, evidence).await
            }
            (Scheme::Https, None) => Err((Outcome::Internal, Stage::Tls)),
        }
    }

    async fn ask<S>(&self, mut stream: S, early: Vec<u8>, deadline: Instant, evidence: &mut Evidence) -> Result<(Head, Vec<u8>), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        evidence.request = Some(format!("{} {} HTTP/1.1", self.method, self.url.path));
        let head = match early.is_empty() {
            true => http::exchange(&mut stream, self.request().as_bytes(), deadline, evidence).await,
            false => http::read_head(&mut stream, early, deadline, evidence).await,
        };
        let head = head.map_err(|outcome| (outcome, Stage::Http))?;
        let body = if self.body && self.method != "HEAD" { http::read_body(&mut stream, &head, deadline).await } else { Vec::new() };
        Ok((head, body))
    }

    fn request(&self) -> String {
        let usual = [
            ("Host", self.url.host_header()),
            ("User-Agent", super::USER_AGENT.into()),
            ("Accept", "*/*".into()),
            ("Connection", "close".into()),
        ];
        let mut request = format!("{} {} HTTP/1.1\r\n", self.method, self.url.path);
        for (name, value) in &usual {
            if !self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for (name, value) in self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request + "\r\n"
    }
}

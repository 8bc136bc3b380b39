//! Tunnels: asking a proxy for one (RFC 9110 section 9.3.6), and what its answers mean.

use std::time::Instant as Stopwatch;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::net::http::{self, Head};
use crate::observation::{Evidence, Outcome};
use crate::secret::Secret;
use crate::target::HostPort;

/// A proxy on the way, spoken to in plain HTTP; it is always asked for a tunnel (CONNECT).
#[derive(Debug, Clone, PartialEq)]
pub struct Via {
    /// The proxy.
    pub proxy: HostPort,
    /// Basic credentials for it (RFC 7617).
    pub auth: Option<(String, Secret)>,
    /// Whether it is asked to fetch the page itself, in absolute form (RFC 9112 section 3.2.2), and not for a tunnel.
    pub absolute: bool,
}

impl Via {
    /// Its credentials as a header (RFC 9110 section 11.7.2).
    pub fn authorization(&self) -> Option<(String, String)> {
        self.auth.as_ref().map(|(user, password)| ("Proxy-Authorization".to_string(), super::basic_auth(user, password)))
    }
}

/// Opens a tunnel to `to` through the proxy at the other end of `stream`.
///
/// # Errors
/// The outcome at stage `proxy` (SPEC section 8).
pub async fn open(stream: &mut TcpStream, via: &Via, to: &HostPort, deadline: Instant, evidence: &mut Evidence) -> Result<(), Outcome> {
    let started = Stopwatch::now();
    let head = ask(stream, via, to, deadline, evidence).await?;
    evidence.via_grant_ms = Some((started.elapsed().as_secs_f64() * 10_000.0).round() / 10.0);
    // What the proxy wrote belongs to the tunnel; the target's own answer will stand here.
    (evidence.status, evidence.head) = (None, None);
    if head.rest.is_empty() {
        return Ok(());
    }
    evidence.detail = Some("bytes came through the tunnel before anything was sent".into());
    Err(Outcome::BadHttp)
}

/// Asks the proxy at the other end of `stream` for a tunnel to `to`: the head by which it granted it, and what came behind.
///
/// # Errors
/// The outcome at stage `proxy`; `bad-http` where the answer is not HTTP.
async fn ask(stream: &mut TcpStream, via: &Via, to: &HostPort, deadline: Instant, evidence: &mut Evidence) -> Result<Head, Outcome> {
    let auth = via.authorization().map_or(String::new(), |(name, value)| format!("{name}: {value}\r\n"));
    let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {}\r\n{auth}\r\n", super::user_agent(evidence));
    evidence.request = Some(format!("CONNECT {to} HTTP/1.1"));
    let head = http::exchange(stream, request.as_bytes(), deadline, evidence).await.map_err(of_silence)?;
    if (200..=299).contains(&head.status) { Ok(head) } else { Err(of_answer(&head)) }
}

/// Squid's words for a request that it let in and could not carry out: it dialled, or asked DNS. All its other words are also said by an
/// accelerator whose own site is dead, which goes nowhere else (SPEC section 8).
const TRIED: [&str; 2] = ["ERR_CONNECT_FAIL", "ERR_DNS_FAIL"];

/// What a proxy's answer that is no grant means.
pub fn of_answer(head: &Head) -> Outcome {
    let squid_says = head.header("x-squid-error").unwrap_or_default();
    let squid = squid_says.split(' ').next().unwrap_or_default();
    let smokescreen = head.header("x-smokescreen-error").is_some();
    match head.status {
        _ if TRIED.contains(&squid) => Outcome::AclPassed,
        // A denial that deny_info sends elsewhere: `X-Squid-Error: 302 Access Denied`.
        300..=399 if squid_says.ends_with("Access Denied") => Outcome::Denied,
        _ if squid == "ERR_ACCESS_DENIED" || squid == "ERR_CACHE_ACCESS_DENIED" => Outcome::Denied,
        403 | 407 => Outcome::Denied,
        // It denies with 407; with these it had let us in, and could not connect.
        502 | 504 if smokescreen => Outcome::AclPassed,
        400 | 405 | 501 | 505 => Outcome::NotUnderstood,
        // Who limits rates has not judged the request.
        429 | 502..=504 => Outcome::GatewayError,
        _ => Outcome::NotRelayed,
    }
}

/// Whether an answer to a request in absolute form is the proxy's own, and not the page's: what only a proxy may say (RFC 9110 section
/// 15.5.8), and the headers by which proxies sign their refusals. A page that signs so would be taken for the proxy: it is not reached then,
/// as far as anybody can tell.
pub fn is_of_the_proxy(head: &Head) -> bool {
    head.status == 407 || ["x-mustnot-reason", "x-squid-error", "x-smokescreen-error"].iter().any(|name| head.header(name).is_some())
}

/// What the end of a connection without an answer means: RST or FIN after accept is a denial.
pub fn of_silence(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Reset | Outcome::Closed => Outcome::Denied,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, squid: Option<&str>) -> Outcome {
        let headers = squid.map(|s| ("x-squid-error".to_string(), s.to_string())).into_iter().collect();
        of_answer(&Head { status, headers, rest: Vec::new() })
    }

    #[test]
    fn smokescreen_tells_a_denial_from_a_failure() {
        let answer = |status| of_answer(&Head { status, headers: vec![("x-smokescreen-error".into(), "x".into())], rest: Vec::new() });
        assert_eq!(answer(407), Outcome::Denied);
        assert_eq!(answer(502), Outcome::AclPassed);
        assert_eq!(answer(503), Outcome::GatewayError);
    }

    #[test]
    fn answers_cell_by_cell() {
        let cells = [
            (403, None, Outcome::Denied),
            (407, None, Outcome::Denied),
            (400, None, Outcome::NotUnderstood),
            (405, None, Outcome::NotUnderstood),
            (501, None, Outcome::NotUnderstood),
            (505, None, Outcome::NotUnderstood),
            (502, None, Outcome::GatewayError),
            (503, None, Outcome::GatewayError),
            (504, None, Outcome::GatewayError),
            (503, Some("ERR_CONNECT_FAIL 111"), Outcome::AclPassed),
            (503, Some("ERR_DNS_FAIL 0"), Outcome::AclPassed),
            (403, Some("ERR_ACCESS_DENIED 0"), Outcome::Denied),
            (302, Some("ERR_ACCESS_DENIED 0"), Outcome::Denied),
            (302, None, Outcome::NotRelayed),
            (302, Some("302 Access Denied"), Outcome::Denied),
            (200, None, Outcome::NotRelayed),
            (404, None, Outcome::NotRelayed),
            (500, None, Outcome::NotRelayed),
            (429, None, Outcome::GatewayError),
            (503, Some("ERR_SECURE_CONNECT_FAIL 71"), Outcome::GatewayError),
            (502, Some("ERR_READ_ERROR 104"), Outcome::GatewayError),
            (502, Some("ERR_ZERO_SIZE_OBJECT 0"), Outcome::GatewayError),
            (503, Some("ERR_CANNOT_FORWARD 0"), Outcome::GatewayError),
        ];
        for (status, squid, outcome) in cells {
            assert_eq!(answer(status, squid), outcome, "{status} {squid:?}");
        }
    }
}

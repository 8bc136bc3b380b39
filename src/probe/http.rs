//! Kind `http`: one HTTP/1.1 exchange, direct or through a proxy's tunnel; the path is sent as typed.

use tokio::time::Instant;

use super::fetch::Fetch;
use super::{Approach, Ended, Http};
use crate::net::http::Head;
use crate::observation::{Class, Evidence, Outcome, Stage};
use crate::target::{HostPort, Url};

/// Redirects that are followed before one too many is a loop (RFC 9110 section 15.4).
const MAX_REDIRECTS: usize = 5;

/// One exchange, and the redirects that the check follows.
pub async fn attempt(probe: &Http, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
    match follow(probe, approach, deadline, evidence).await {
        Ok((head, body)) => (of_answer(probe, &head, &body, evidence), Stage::Http),
        Err(ended) => ended,
    }
}

async fn follow(probe: &Http, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Result<(Head, Vec<u8>), Ended> {
    let headers: Vec<_> = probe.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_string())).collect();
    let (mut url, mut approach) = (probe.url.clone(), approach.clone());
    for hop in 0..=MAX_REDIRECTS {
        if hop > 0 {
            // What an earlier hop showed, its authentication above all, says nothing of this one.
            *evidence = Evidence { redirected_to: probe.via.is_none().then_some(approach.to), ..Evidence::default() };
        }
        // Headers may carry credentials for the target, and for nobody else.
        let headers: &[_] = if url.authority == probe.url.authority { &headers } else { &[] };
        let fetch = Fetch {
            url: &url,
            via: probe.via.as_ref(),
            tls: Some(&probe.tls),
            method: if hop == 0 { &probe.method } else { "GET" },
            headers,
            body: probe.body_contains.is_some(),
        };
        let (head, body) = fetch.run(&approach, deadline, evidence).await?;
        let Some(next) = probe.follow_redirects.then(|| redirect(&url, &head)).flatten() else { return Ok((head, body)) };
        if next.authority != url.authority {
            approach = approach.rerouted(probe.via.is_some(), &next.authority, deadline, evidence).await?;
        }
        url = next;
    }
    evidence.detail = Some(format!("more than {MAX_REDIRECTS} redirects"));
    Err((Outcome::Mismatch, Stage::Http))
}

/// Where the answer sends us, if anywhere that is HTTP.
fn redirect(from: &Url, head: &Head) -> Option<Url> {
    if !matches!(head.status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    from.join(head.header("location")?.trim())
}

fn of_answer(probe: &Http, head: &Head, body: &[u8], evidence: &mut Evidence) -> Outcome {
    let outcome = Outcome::Status(head.status);
    match &probe.body_contains {
        Some(marker) if outcome.class() == Class::Open && !contains(body, marker.as_bytes()) => {
            evidence.detail = Some(format!("the body ({} bytes) does not contain body_contains", body.len()));
            Outcome::Mismatch
        }
        _ => outcome,
    }
}

fn contains(body: &[u8], marker: &[u8]) -> bool {
    marker.is_empty() || body.windows(marker.len()).any(|w| w == marker)
}

impl Approach {
    /// The way to another host, as a redirect names it: through the same proxy, or to the first address of its name.
    async fn rerouted(&self, via: bool, to: &HostPort, deadline: Instant, evidence: &mut Evidence) -> Result<Approach, Ended> {
        if via {
            return Ok(Approach { tunnel_to: Some(to.clone()), ..self.clone() });
        }
        let address = super::first_address(to, self, deadline).await.map_err(|why| {
            evidence.detail = Some(format!("the redirect to {to} leads nowhere: {why}"));
            (Outcome::Mismatch, Stage::Dns)
        })?;
        Ok(Approach { to: address, ..self.clone() })
    }
}

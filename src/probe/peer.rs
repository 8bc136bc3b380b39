//! Kind `peer`: another monitor's verdict on one of its checks.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::fetch::Fetch;
use super::{Approach, Ended, Peer};
use crate::clock::{Moment, Wall};
use crate::observation::{Class, Evidence, Outcome, PeerEvidence, Stage};
use crate::target::Url;

/// The part of `GET /api/v1/checks/{name}` that is read.
#[derive(Debug, Deserialize)]
struct Report {
    vantage: String,
    now: String,
    checks: Vec<Run>,
    recent: Vec<Run>,
}

#[derive(Debug, Deserialize)]
struct Run {
    verdict: String,
    started_at: String,
    #[serde(default)]
    observations: Vec<Seen>,
}

#[derive(Debug, Deserialize)]
struct Seen {
    address: String,
    verdict: String,
    outcome: String,
}

/// One question to the peer.
pub async fn attempt(probe: &Peer, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
    let url = Url { path: format!("{}/api/v1/checks/{}", probe.url.path.trim_end_matches('/'), probe.check), ..probe.url.clone() };
    let auth = probe.auth.iter().map(|(user, password)| ("Authorization".to_string(), super::basic_auth(user, password)));
    let headers: Vec<_> = auth.collect();
    let fetch = Fetch { url: &url, via: None, tls: Some(&probe.tls), method: "GET", headers: &headers, body: true };
    let (head, body) = match fetch.run(approach, deadline, evidence).await {
        Ok(answer) => answer,
        Err(ended) => return ended,
    };
    let read_at = Moment::now();
    if head.status != 200 {
        evidence.detail = Some(format!("the peer does not show a check named \"{}\"", probe.check));
        return (Outcome::Status(head.status), Stage::Http);
    }
    let outcome = match serde_json::from_slice::<Report>(&body) {
        Ok(report) => match weigh(&report, probe, read_at) {
            Some(seen) => {
                let holds = seen.verdict == "holds" && seen.age_seconds <= probe.max_age.as_secs_f64();
                evidence.detail =
                    Some(format!("\"{}\" at {} was {} {:.0} s ago", seen.check, seen.vantage, seen.verdict, seen.age_seconds));
                evidence.peer = Some(seen);
                if holds { Outcome::QueryTrue } else { Outcome::QueryFalse }
            }
            None => mismatch(evidence, "it has no record with a readable time"),
        },
        Err(e) => mismatch(evidence, &e.to_string()),
    };
    (outcome, Stage::Http)
}

fn mismatch(evidence: &mut Evidence, why: &str) -> Outcome {
    evidence.detail = Some(format!("the answer is not a mustnot report: {why}"));
    Outcome::Mismatch
}

/// What the peer's newest record says, its age by the peer's own clock, and since when it has done nothing but hold.
fn weigh(report: &Report, probe: &Peer, read_at: Moment) -> Option<PeerEvidence> {
    let now = Wall::parse(&report.now)?;
    let age = |run: &Run| {
        Some(Duration::from_millis(u64::try_from(now.unix_millis() - Wall::parse(&run.started_at)?.unix_millis()).unwrap_or(0)))
    };
    let newest = report.checks.first()?;
    let holding = report.recent.iter().take_while(|run| run.verdict == "holds").last();
    let holding_since = holding.and_then(age).map(|age| read_at - age);
    // An inverted check there holds where nothing was reached.
    let open = |o: &&Seen| o.verdict == "holds" && o.outcome.parse().is_ok_and(|outcome: Outcome| outcome.class() == Class::Open);
    let reached = newest.observations.iter().filter(open).map(|o| o.address.clone()).collect();
    Some(PeerEvidence {
        check: probe.check.clone(),
        vantage: report.vantage.clone(),
        verdict: newest.verdict.clone(),
        age_seconds: age(newest)?.as_secs_f64(),
        holding_since,
        reached,
    })
}

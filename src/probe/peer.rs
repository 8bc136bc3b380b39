//! Kind `peer`: another monitor's verdict on one of its checks.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::fetch::Fetch;
use super::{Approach, Ended};
use crate::clock::{Moment, Wall};
use crate::net::tls;
use crate::observation::{Class, Evidence, Outcome, PeerEvidence, Reached, Stage, one_line};
use crate::secret::Secret;
use crate::target::Url;

/// Kind `peer`.
#[derive(Debug, PartialEq)]
pub struct Peer {
    /// The peer's web address.
    pub url: Url,
    /// The check to ask for.
    pub check: String,
    /// How long ago its newest record may have begun.
    pub max_age: Duration,
    /// Basic authentication.
    pub auth: Option<(String, Secret)>,
    /// How to shake hands, for `https`.
    pub tls: tls::Client,
}

/// The part of `GET /api/v1/checks/{name}` that is read.
#[derive(Debug, Deserialize)]
struct Report {
    schema: u32,
    vantage: String,
    now: String,
    checks: Vec<Run>,
    recent: Vec<Run>,
}

#[derive(Debug, Deserialize)]
struct Run {
    name: String,
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
    stage: Stage,
    #[serde(default)]
    asked: Option<String>,
    #[serde(default)]
    variant: Option<String>,
}

/// The most characters of a word of the peer's that is kept: a name, a vantage, an address.
const MAX_WORD: usize = 300;
/// The most addresses that a peer is believed to have reached; what is past it proves nothing here.
const MAX_REACHED: usize = 4096;

/// The form of the report that is understood; another one may mean another thing by the same words.
const SCHEMA: u32 = 1;

impl Peer {
    /// One question to the peer.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        let url = Url { path: format!("{}/api/v1/checks/{}", self.url.path.trim_end_matches('/'), self.check), ..self.url.clone() };
        let auth = self.auth.iter().map(|(user, password)| ("Authorization".to_string(), super::basic_auth(user, password)));
        let headers: Vec<_> = auth.collect();
        let fetch = Fetch { url: &url, via: None, tls: Some(&self.tls), method: "GET", headers: &headers, body: true };
        let (head, body) = match fetch.run(approach, deadline, evidence).await {
            Ok(answer) => answer,
            Err(ended) => return ended,
        };
        let read_at = Moment::now();
        if head.status != 200 {
            evidence.detail = Some(match head.status {
                401 => "the peer asks who we are; see user and password_file".into(),
                404 => format!("the peer does not show a check named \"{}\"", self.check),
                other => format!("the peer answered {other} instead of a report"),
            });
            return (Outcome::Status(head.status), Stage::Http);
        }
        let outcome = match serde_json::from_slice::<Report>(&body) {
            Ok(report) => match weigh(&report, self, read_at) {
                Ok(seen) => {
                    let holds = seen.verdict == "holds" && seen.age_seconds <= self.max_age.as_secs_f64();
                    evidence.detail =
                        Some(format!("\"{}\" at {} was {} {:.0} s ago", seen.check, seen.vantage, seen.verdict, seen.age_seconds));
                    evidence.peer = Some(seen);
                    if holds { Outcome::QueryTrue } else { Outcome::QueryFalse }
                }
                Err(why) => mismatch(evidence, &why),
            },
            Err(e) => mismatch(evidence, &e.to_string()),
        };
        (outcome, Stage::Http)
    }
}

fn mismatch(evidence: &mut Evidence, why: &str) -> Outcome {
    evidence.detail = Some(format!("the answer is not a mustnot report: {why}"));
    Outcome::Mismatch
}

/// What the peer's newest record says, its age by the peer's own clock, and since when it has done nothing but hold.
///
/// # Errors
/// Why nothing can be told from it.
fn weigh(report: &Report, probe: &Peer, read_at: Moment) -> Result<PeerEvidence, String> {
    if report.schema != SCHEMA {
        return Err(format!("its schema is {}, and this version reads {SCHEMA}", report.schema));
    }
    let now = Wall::parse(&report.now).ok_or("it has no readable time")?;
    // None where it lies ahead of the peer's own clock: that was set back, and how old the record is cannot be told.
    let age = |run: &Run| {
        let millis = now.unix_millis() - Wall::parse(&run.started_at)?.unix_millis();
        Some(Duration::from_millis(u64::try_from(millis).ok()?))
    };
    if let Some(other) = report.checks.iter().find(|run| run.name != probe.check) {
        return Err(format!("it tells of another check, \"{}\"", short(&other.name)));
    }
    // One a target: the check holds there where it holds on all of them, and is as old as the oldest.
    let newest = report.checks.iter().find(|run| run.verdict != "holds").or(report.checks.first()).ok_or("it has no record")?;
    let ages: Option<Vec<Duration>> = report.checks.iter().map(age).collect();
    let aged = ages.and_then(|ages| ages.into_iter().max());
    let aged = aged.ok_or("a newest record of it has no readable time, or one ahead of its own clock")?;
    let holding = report.recent.iter().take_while(|run| run.verdict == "holds").last();
    let holding_since = holding.and_then(age).map(|age| read_at - age);
    // An inverted check there holds where nothing was reached.
    // So does a variant there that was answered, and not with the page.
    let open = |o: &&Seen| {
        o.variant.is_none() && o.verdict == "holds" && o.outcome.parse().is_ok_and(|outcome: Outcome| outcome.class() == Class::Open)
    };
    let there = |o: &Seen| Reached { address: o.address.clone(), transport: o.stage.transport(), asked: o.asked.clone() };
    let whole = |o: &&Seen| [Some(&o.address), o.asked.as_ref()].into_iter().flatten().all(|word| word.len() <= MAX_WORD);
    let reached = report.checks.iter().flat_map(|run| &run.observations).filter(open).filter(whole).map(there).take(MAX_REACHED);
    Ok(PeerEvidence {
        check: probe.check.clone(),
        vantage: short(&report.vantage),
        verdict: short(&newest.verdict),
        age_seconds: aged.as_secs_f64(),
        holding_since,
        reached: reached.collect(),
    })
}

/// A word of the peer's, which may be anybody: within bounds, and in one line.
fn short(text: &str) -> String {
    one_line(text, MAX_WORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Peer {
        Peer {
            url: "http://office.example.com:9890".parse().unwrap(),
            check: "admin-open".into(),
            max_age: Duration::from_secs(60),
            auth: None,
            tls: tls::Client::new(&tls::Options::default()).unwrap(),
        }
    }

    fn weighed(report: serde_json::Value) -> PeerEvidence {
        weigh(&serde_json::from_value(report).unwrap(), &asked(), Moment::after_boot(Duration::from_secs(1000))).unwrap()
    }

    fn run(second: u32, verdict: &str, outcome: &str) -> serde_json::Value {
        let observation = serde_json::json!({ "address": "203.0.113.7:443", "verdict": verdict, "outcome": outcome, "stage": "tcp" });
        serde_json::json!({ "name": "admin-open", "verdict": verdict, "started_at": format!("2026-01-02T03:04:{second:02}Z"), "observations": [observation] })
    }

    fn report(runs: &[serde_json::Value]) -> serde_json::Value {
        serde_json::json!({ "schema": 1, "vantage": "office", "now": "2026-01-02T03:04:50Z", "checks": runs.get(..1), "recent": runs })
    }

    #[test]
    fn only_what_was_open_there_was_reached() {
        for (verdict, outcome, reached) in [
            ("holds", "connected", true),
            ("holds", "status:200", true),
            ("holds", "status:403", false),
            ("holds", "timeout", false),
            ("holds", "refused", false),
            ("holds", "from a later version", false),
            ("violated", "connected", false),
            ("unproven", "connected", false),
        ] {
            assert_eq!(weighed(report(&[run(40, verdict, outcome)])).reached.len(), usize::from(reached), "{verdict} {outcome}");
            let mut variant = run(40, verdict, outcome);
            variant["observations"][0]["variant"] = "AD-08 options".into();
            assert_eq!(weighed(report(&[variant])).reached.len(), 0, "a variant that holds was kept out");
        }
    }

    /// Whoever answers in the peer's place fills no memory and writes no line of his own.
    #[test]
    fn what_a_peer_says_is_short_and_in_one_line() {
        let long = "x\n\u{1b}[2J".to_string() + &"y".repeat(1 << 20);
        let mut told = report(&[run(40, "holds", "connected")]);
        told["vantage"] = long.clone().into();
        told["checks"][0]["verdict"] = long.clone().into();
        let seen = weighed(told.clone());
        for word in [seen.vantage, seen.verdict] {
            assert!(word.starts_with("x[2Jyyy") && word.len() == MAX_WORD, "{word}");
        }
        told["checks"][0]["name"] = long.into();
        let why = weigh(&serde_json::from_value(told).unwrap(), &asked(), Moment::ZERO).unwrap_err();
        assert!(why.starts_with("it tells of another check, \"x[2Jyyy") && why.len() < 2 * MAX_WORD, "{why}");
        let open = |address: String| serde_json::json!({ "address": address, "verdict": "holds", "outcome": "connected", "stage": "tcp" });
        let mut many = report(&[run(40, "holds", "connected")]);
        many["checks"][0]["observations"] = (0..2 * MAX_REACHED).map(|n| open(format!("{n}"))).collect();
        assert_eq!(weighed(many.clone()).reached.len(), MAX_REACHED);
        many["checks"][0]["observations"] = [MAX_WORD, MAX_WORD + 1].map(|length| open("y".repeat(length))).into_iter().collect();
        assert_eq!(weighed(many).reached.len(), 1);
    }

    #[test]
    fn it_has_held_since_the_oldest_record_behind_which_all_hold() {
        let since = |verdicts: &[&str]| {
            let runs: Vec<_> = verdicts.iter().zip([40, 30, 20]).map(|(v, second)| run(second, v, "connected")).collect();
            weighed(report(&runs)).holding_since.map(|m| m.since(Moment::ZERO).as_secs())
        };
        assert_eq!(since(&["holds", "holds", "holds"]), Some(970));
        assert_eq!(since(&["holds", "holds", "unproven"]), Some(980));
        assert_eq!(since(&["holds", "violated", "holds"]), Some(990));
        assert_eq!(since(&["unproven", "holds", "holds"]), None);
    }

    #[test]
    fn a_check_with_many_targets_holds_where_all_of_them_do() {
        let all = |runs: &[serde_json::Value]| {
            let now = "2026-01-02T03:04:50Z";
            weighed(serde_json::json!({ "schema": 1, "vantage": "office", "now": now, "checks": runs, "recent": runs }))
        };
        let both = all(&[run(40, "holds", "connected"), run(30, "holds", "connected")]);
        assert_eq!((both.verdict.as_str(), both.age_seconds, both.reached.len()), ("holds", 20.0, 2), "as old as the oldest");
        for bad in ["violated", "unproven"] {
            assert_eq!(all(&[run(40, "holds", "connected"), run(30, bad, "connected")]).verdict, bad);
            assert_eq!(all(&[run(40, bad, "connected"), run(30, "holds", "connected")]).verdict, bad);
        }
    }
}

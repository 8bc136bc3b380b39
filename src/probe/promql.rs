//! Kind `promql`: a Prometheus server's word on a series.
//!
//! An instant query says what was last seen in five minutes, stamps it with the time of asking, and so keeps a dead target's
//! last word true. Only the samples of a plain series carry their own times, by a range selector; so a plain series is all that
//! may be asked for, and it is asked for twice: its samples, and then whether it is still alive (a series whose target is gone
//! is marked stale, which the range does not show).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::fetch::Fetch;
use super::{Approach, Ended};
use crate::clock::Moment;
use crate::net::tls;
use crate::observation::{Evidence, Outcome, QueryEvidence, Reached, Stage, Transport, one_line};
use crate::secret::Secret;
use crate::target::{HostPort, Url};

/// The longest query that is sent.
pub const MAX_QUERY: usize = 4096;
/// How far back it is looked whether the series held all the while, besides `max_age`.
const HISTORY: Duration = Duration::from_secs(900);
/// The most series that are weighed.
const MAX_SERIES: usize = 1000;
/// The most checks of other monitors whose targets are looked for.
const MAX_CHECKS: usize = 32;
/// How far ahead of the server's clock another monitor's may be.
const MAX_AHEAD: f64 = 1.0;
/// The latest time that can be one, in seconds since 1970: the year 5138.
const MAX_TIME: f64 = 1e11;
/// The series of another monitor that says what it reached, and those that say what of.
const VERDICT: &str = "mustnot_check_verdict";
const INFO: &str = "mustnot_check_info";
const LAST_RUN: &str = "mustnot_check_last_run_timestamp_seconds";

/// Kind `promql`.
#[derive(Debug, PartialEq)]
pub struct PromQl {
    /// The server's address; `/api/v1/query` is put behind its path.
    pub url: Url,
    /// A plain series.
    pub query: String,
    /// How old its newest sample may be.
    pub max_age: Duration,
    /// Basic authentication.
    pub auth: Option<(String, Secret)>,
    /// How to shake hands, for `https`.
    pub tls: tls::Client,
    /// Where we stand ourselves: what was reached from here is no other way.
    pub vantage: String,
    /// Which of several series it takes.
    pub takes: Takes,
}

/// How many of several series must be other than zero for the answer to be yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Every one: each says that something works.
    All,
    /// One: each says that something is as it must not be.
    One,
}

/// The part of an answer of `/api/v1/query` that is read.
#[derive(Debug, Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    data: Option<Data>,
    /// What is missing in the answer, as of a server that asks others, of which one was silent.
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

/// What a server gave.
#[derive(Debug)]
struct Given {
    series: Vec<Series>,
    /// It says that something may be missing.
    warning: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

/// A series with its samples, each a time by the server's clock, in seconds, and a number as text.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    value: Option<(f64, String)>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

/// What the samples come to.
#[derive(Debug, PartialEq)]
struct Weighed {
    holds: bool,
    /// When the query was evaluated, by the server's clock.
    now: f64,
    /// How old the newest sample is, of the series where it is oldest; of those that are other than zero, where one is enough.
    age: f64,
    /// What would decide was last seen longer ago than may be.
    stale: bool,
    /// For how long all that was seen was true.
    holding: Option<f64>,
}

impl PromQl {
    /// One question, in two or three requests.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        let range = format!("{}[{}s]", self.query, (self.max_age + HISTORY).as_secs());
        let samples = match self.ask(&range, "matrix", approach, deadline, evidence).await {
            Ok(samples) => samples,
            Err(ended) => return ended,
        };
        let live = match self.ask(&self.query, "vector", approach, deadline, evidence).await {
            Ok(live) => live,
            Err(ended) => return ended,
        };
        let read_at = Moment::now();
        let warning = samples.warning.or(live.warning);
        let (samples, live) = (samples.series, live.series);
        let weighed = match weigh(&samples, &live, self.max_age, self.takes) {
            Ok(weighed) => weighed,
            Err(why) => return (mismatch(evidence, why), Stage::Http),
        };
        let holds = weighed.as_ref().is_some_and(|w| w.holds);
        if let Some(warning) = warning.filter(|_| !holds) {
            // What is there, half an answer shows as well; what is not there may be in the other half.
            return (mismatch(evidence, format!("the server says that its answer may not be whole: {warning}")), Stage::Http);
        }
        let reached = if holds { self.reached(&live, approach, deadline, evidence).await } else { Vec::new() };
        evidence.request = Some("GET /api/v1/query HTTP/1.1".into());
        evidence.detail = Some(told(weighed.as_ref(), live.len(), self.takes));
        evidence.query = Some(QueryEvidence {
            series: live.len(),
            age_seconds: weighed.as_ref().map(|w| w.age),
            stale: weighed.as_ref().is_some_and(|w| w.stale),
            holding_since: weighed.as_ref().and_then(|w| w.holding).map(|s| read_at - Duration::from_secs_f64(s)),
            reached,
        });
        (if holds { Outcome::QueryTrue } else { Outcome::QueryFalse }, Stage::Http)
    }

    /// The series that the server gives for an expression that must give this type.
    async fn ask(
        &self,
        expression: &str,
        kind: &str,
        approach: &Approach,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Result<Given, Ended> {
        let path = format!("{}/api/v1/query?query={}", self.url.path.trim_end_matches('/'), percent_encoded(expression));
        let url = Url { path, ..self.url.clone() };
        let auth = self.auth.iter().map(|(user, password)| ("Authorization".to_string(), super::basic_auth(user, password)));
        let headers: Vec<_> = auth.collect();
        let fetch = Fetch { url: &url, via: None, tls: Some(&self.tls), method: "GET", headers: &headers, body: true };
        let fetched = fetch.run(approach, deadline, evidence).await;
        evidence.request = Some("GET /api/v1/query HTTP/1.1".into());
        let (head, body) = fetched?;
        match head.status {
            200 => read(&body, kind).map_err(|why| (mismatch(evidence, why), Stage::Http)),
            status => {
                let said = serde_json::from_slice::<Answer>(&body).ok().and_then(|a| a.error);
                evidence.detail = Some(match (status, said) {
                    (401, _) => "the server asks who we are; see user and password_file".into(),
                    (_, Some(why)) => format!("the server cannot answer: {}", short(&why)),
                    (_, None) => format!("the server answered {status} instead of a result"),
                });
                Err((Outcome::Status(status), Stage::Http))
            }
        }
    }

    /// What other monitors have reached, by their verdicts among the series: only what is known to be expected open there, to be
    /// of a run that is young enough, and by its very address, since a name says neither which address nor which family.
    async fn reached(&self, live: &[Series], approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Vec<Reached> {
        if self.takes == Takes::One {
            // Such a check is inverted, and nobody's witness.
            return Vec::new();
        }
        let held =
            |s: &&Series| s.is(VERDICT) && s.label("verdict") == "holds" && s.label("vantage") != self.vantage && is_name(s.label("check"));
        let verdicts: Vec<&Series> = live.iter().filter(held).take(MAX_CHECKS).collect();
        if verdicts.is_empty() {
            return Vec::new();
        }
        let names: Vec<&str> = verdicts.iter().map(|s| s.label("check")).collect();
        let about = format!("{{__name__=~\"{INFO}|{LAST_RUN}\",check=~\"{}\"}}", names.join("|"));
        // What cannot be asked is not reached; that the series itself holds is known already.
        let mut own = Evidence { local_address: evidence.local_address, ..Evidence::default() };
        let about = self.ask(&about, "vector", approach, deadline, &mut own).await.map_or(Vec::new(), |given| given.series);
        verdicts.into_iter().filter_map(|verdict| reached(verdict, &about, self.max_age)).collect()
    }
}

impl Series {
    fn label(&self, name: &str) -> &str {
        self.metric.get(name).map_or("", String::as_str)
    }

    fn is(&self, name: &str) -> bool {
        self.label("__name__") == name
    }

    /// Of the same check at the same monitor, as scraped by the same job.
    fn is_of(&self, other: &Series) -> bool {
        ["check", "target", "vantage", "instance", "job"].iter().all(|name| self.label(name) == other.label(name))
    }
}

/// What the monitor behind this verdict reached, where `about` says enough of its check.
fn reached(verdict: &Series, about: &[Series], max_age: Duration) -> Option<Reached> {
    let positive = about.iter().any(|s| s.is(INFO) && s.is_of(verdict) && s.label("expect") == "open");
    let last_run = about.iter().find(|s| s.is(LAST_RUN) && s.is_of(verdict))?.value.as_ref()?;
    let age = last_run.0 - last_run.1.parse::<f64>().ok()?;
    if !positive || !(-MAX_AHEAD..=max_age.as_secs_f64()).contains(&age) {
        return None;
    }
    let target = verdict.label("target");
    let there = match verdict.label("kind") {
        "tcp" | "tls" => target.parse::<HostPort>().ok()?,
        "http" => target.parse::<Url>().ok()?.authority,
        _ => return None,
    };
    there.socket_addr().map(|address| Reached { address: address.to_string(), transport: Transport::Tcp, asked: None })
}

/// The series of an answer, which must be of this type.
///
/// # Errors
/// Why it is no such answer.
fn read(body: &[u8], kind: &str) -> Result<Given, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|e| format!("the answer is not Prometheus's: {e}"))?;
    if answer.status != "success" {
        return Err(format!("the server cannot answer: {}", short(&answer.error.unwrap_or(answer.status))));
    }
    let data = answer.data.ok_or("the answer has no data")?;
    if data.kind != kind {
        return Err(format!("the query gives a {}, whose age cannot be told; ask for a plain series", short(&data.kind)));
    }
    let series: Vec<Series> =
        serde_json::from_value(data.result).map_err(|e| format!("the answer has samples that are no numbers with a time: {e}"))?;
    if series.len() > MAX_SERIES {
        return Err(format!("the query gives {} series, and at most {MAX_SERIES} are weighed; ask for fewer", series.len()));
    }
    Ok(Given { series, warning: answer.warnings.and_then(|all| all.into_iter().next()) })
}

/// Weighs the live series by their samples; none where there is no live series.
///
/// As many of them as it takes must be other than zero, each with a sample that is young enough. A zero that is too old is none.
///
/// # Errors
/// Why nothing can be told from them.
fn weigh(samples: &[Series], live: &[Series], max_age: Duration, takes: Takes) -> Result<Option<Weighed>, String> {
    let times = samples.iter().chain(live).flat_map(|s| s.values.iter().chain(&s.value));
    if let Some((at, _)) = times.into_iter().find(|(at, _)| !(0.0..=MAX_TIME).contains(at)) {
        return Err(format!("the answer has a time that is none, {at}"));
    }
    let max_age = max_age.as_secs_f64();
    let values: Vec<&(f64, String)> = live.iter().filter_map(|one| one.value.as_ref()).collect();
    if values.len() < live.len() {
        return Err("the answer has a series without a value".into());
    }
    let now = values.iter().fold(f64::INFINITY, |now, (at, _)| now.min(*at));
    // Of each series whether it is other than zero, and how old that is.
    let mut each: Vec<(bool, f64)> = Vec::new();
    let mut since = f64::NEG_INFINITY;
    for (one, (_, value)) in live.iter().zip(values) {
        let is_true = is_true(value)?;
        let Some(history) = samples.iter().find(|s| s.metric == one.metric).filter(|s| !s.values.is_empty()) else {
            // It was born between the two requests, or all that is known of it is older than we look back.
            each.push((is_true, f64::INFINITY));
            since = f64::INFINITY;
            continue;
        };
        let newest = history.values.last().map_or(f64::NEG_INFINITY, |(at, _)| *at);
        if newest > now + MAX_AHEAD {
            return Err("the server's clock ran backwards between two requests".into());
        }
        each.push((is_true, now - newest));
        since = since.max(held_from(&history.values, max_age)?);
    }
    // A series that is gone by now was asked for as well while it lived.
    for gone in samples.iter().filter(|s| !live.iter().any(|l| l.metric == s.metric)) {
        for (at, value) in &gone.values {
            if !is_true(value)? && *at >= since {
                since = since.max(*at + 0.001);
            }
        }
    }
    if live.is_empty() {
        return Ok(None);
    }
    let is_old = |(_, age): &(bool, f64)| *age > max_age;
    let holds = |one: &(bool, f64)| one.0 && !is_old(one);
    let oldest = |which: &dyn Fn(&(bool, f64)) -> bool| each.iter().filter(|one| which(one)).fold(0.0_f64, |oldest, one| oldest.max(one.1));
    let (holds, stale, age, holding) = match takes {
        Takes::All => {
            let (all_true, all_hold) = (each.iter().all(|one| one.0), each.iter().all(holds));
            let holding = (all_hold && since <= now).then_some((now - since).max(0.0));
            (all_hold, all_true && !all_hold, oldest(&|_| true), holding)
        }
        Takes::One if each.iter().any(holds) => (true, false, oldest(&holds), None),
        Takes::One => (false, each.iter().any(is_old), oldest(&|_| true), None),
    };
    Ok(Some(Weighed { holds, now, age: age.min(HISTORY.as_secs_f64() + max_age), stale, holding }))
}

/// Since when all samples are true without a gap that is longer than a sample may be old.
fn held_from(values: &[(f64, String)], max_age: f64) -> Result<f64, String> {
    let mut from = f64::INFINITY;
    for (at, value) in values.iter().rev() {
        if !is_true(value)? || (from.is_finite() && from - at > max_age) {
            break;
        }
        from = *at;
    }
    Ok(from)
}

/// Neither zero nor not a number.
fn is_true(value: &str) -> Result<bool, String> {
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number != 0.0),
        _ => Err(format!("a sample is {}, which is neither yes nor no", short(value))),
    }
}

fn told(weighed: Option<&Weighed>, series: usize, takes: Takes) -> String {
    match weighed {
        None => "no series is alive".into(),
        Some(w) if w.stale => format!("the newest sample is {:.0} s old, older than max_age", w.age),
        Some(w) => {
            let said = match (series, takes, w.holds) {
                (1, _, true) => "the series is other than zero".into(),
                (1, _, false) => "the series is zero".into(),
                (_, Takes::All, true) => format!("each of {series} series is other than zero"),
                (_, Takes::All, false) => format!("not each of {series} series is other than zero"),
                (_, Takes::One, true) => format!("of {series} series at least one is other than zero"),
                (_, Takes::One, false) => format!("each of {series} series is zero"),
            };
            if w.holds { format!("{said}, the newest sample {:.0} s old", w.age) } else { said }
        }
    }
}

fn mismatch(evidence: &mut Evidence, why: String) -> Outcome {
    evidence.detail = Some(short(&why));
    Outcome::Mismatch
}

/// At most as much as evidence may have.
fn short(text: &str) -> String {
    one_line(text, Evidence::MAX_HEAD / 4)
}

/// A name as checks have it, which is the same inside a regular expression.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// RFC 3986 section 2.1, everything that is not unreserved.
fn percent_encoded(text: &str) -> String {
    let encoded = text.bytes().map(|b| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    });
    encoded.collect()
}

/// Whether a query is one plain series: a name, matchers in braces, or both, and nothing else (an instant vector selector
/// without `offset` and `@`).
pub fn is_plain_series(query: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let query = query.trim();
    let (metric, rest) = query.split_at(query.find(|c| !name(c)).unwrap_or(query.len()));
    if metric.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    match rest.trim_start().strip_prefix('{') {
        Some(matchers) => after_matchers(matchers).is_some_and(|rest| rest.trim().is_empty()),
        None => !metric.is_empty() && rest.trim().is_empty(),
    }
}

/// What stands behind the brace that ends the matchers; a brace in quotes ends nothing.
fn after_matchers(text: &str) -> Option<&str> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(q), '\\') if q != '`' => escaped = true,
            (Some(q), _) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '}') => return text.get(at + 1..),
            (None, '{' | '(' | ')' | '[' | ']' | '#') => return None,
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const MAX_AGE: Duration = Duration::from_secs(60);
    const NOW: f64 = 1000.0;

    fn series(name: &str, values: &[(f64, &str)]) -> Series {
        let metric = BTreeMap::from([("__name__".to_string(), name.to_string())]);
        Series { metric, value: None, values: values.iter().map(|(at, v)| (*at, (*v).to_string())).collect() }
    }

    fn alive(name: &str, value: &str) -> Series {
        Series { value: Some((NOW, value.into())), ..series(name, &[]) }
    }

    /// Whether it holds, whether it is stale, and for how long it has held.
    fn come_to(samples: &[Series], live: &[Series]) -> Option<(bool, bool, Option<f64>)> {
        weigh(samples, live, MAX_AGE, Takes::All).unwrap().map(|w| (w.holds, w.stale, w.holding))
    }

    #[test]
    fn a_series_holds_while_its_samples_are_young_and_not_zero() {
        let of = |values: &[(f64, &str)], now: &str| come_to(&[series("a", values)], &[alive("a", now)]);
        assert_eq!(of(&[(950.0, "1"), (990.0, "1")], "1"), Some((true, false, Some(50.0))));
        assert_eq!(of(&[(950.0, "0"), (990.0, "2")], "2"), Some((true, false, Some(10.0))));
        assert_eq!(of(&[(990.0, "1")], "0"), Some((false, false, None)));
        // The border of its age.
        assert_eq!(of(&[(940.0, "1")], "1"), Some((true, false, Some(60.0))));
        assert_eq!(of(&[(939.9, "1")], "1"), Some((false, true, None)));
        // Nothing is known of the time between two samples that lie further apart than one may be old.
        assert_eq!(of(&[(800.0, "1"), (900.0, "1"), (960.0, "1")], "1"), Some((true, false, Some(100.0))));
        // Its newest sample says no, and the answer afterwards says yes: it holds since it is known to, and no longer.
        assert_eq!(of(&[(990.0, "0")], "1"), Some((true, false, None)));
        assert_eq!(come_to(&[series("a", &[(990.0, "1")])], &[]), None);
        assert_eq!(come_to(&[], &[alive("a", "1")]), Some((false, true, None)));
    }

    #[test]
    fn every_series_counts_the_gone_ones_as_well() {
        let young = |name| series(name, &[(900.0, "1"), (950.0, "1"), (990.0, "1")]);
        let both = [alive("a", "1"), alive("b", "1")];
        assert_eq!(come_to(&[young("a"), young("b")], &both), Some((true, false, Some(100.0))));
        assert_eq!(come_to(&[young("a"), series("b", &[(930.0, "1")])], &both), Some((false, true, None)));
        assert_eq!(come_to(&[young("a"), young("b")], &[alive("a", "1"), alive("b", "0")]), Some((false, false, None)));
        let gone = series("gone", &[(920.0, "1"), (970.0, "0")]);
        assert_eq!(come_to(&[young("a"), gone], &[alive("a", "1")]).map(|c| c.2.map(f64::round)), Some(Some(30.0)));
    }

    #[test]
    fn where_one_is_enough_one_is_and_an_old_zero_is_none() {
        let come_to = |samples: &[Series], live: &[Series]| {
            let weighed = weigh(samples, live, MAX_AGE, Takes::One).unwrap();
            weighed.map(|w| (w.holds, w.stale, w.holding))
        };
        let young = |name| series(name, &[(950.0, "1"), (990.0, "1")]);
        let old = |name| series(name, &[(800.0, "1"), (930.0, "1")]);
        let (yes, no) = (|name| alive(name, "1"), |name| alive(name, "0"));
        let (holds, denied, stale) = (Some((true, false, None)), Some((false, false, None)), Some((false, true, None)));
        assert_eq!(come_to(&[young("a"), young("b")], &[no("a"), yes("b")]), holds, "one of two");
        assert_eq!(come_to(&[young("a"), old("b")], &[yes("a"), yes("b")]), holds, "the young one of two");
        assert_eq!(come_to(&[young("a"), young("b")], &[no("a"), no("b")]), denied);
        assert_eq!(come_to(&[young("a"), old("b")], &[no("a"), yes("b")]), stale, "one that was, when last seen");
        assert_eq!(come_to(&[young("a"), old("b")], &[no("a"), no("b")]), stale, "a zero of long ago");
        assert_eq!(come_to(&[], &[no("a")]), stale, "a zero of nobody knows when");
        assert_eq!(come_to(&[young("a")], &[]), None);
    }

    #[test]
    fn what_is_no_number_tells_nothing() {
        for value in ["NaN", "+Inf", "-Inf", "yes", ""] {
            assert!(weigh(&[series("a", &[(990.0, "1")])], &[alive("a", value)], MAX_AGE, Takes::All).is_err(), "{value}");
            assert!(weigh(&[series("a", &[(990.0, value)])], &[alive("a", "1")], MAX_AGE, Takes::All).is_err(), "{value}");
        }
        let answer =
            |kind: &str, result: Value| json!({ "status": "success", "data": { "resultType": kind, "result": result } }).to_string();
        let good = answer("vector", json!([{ "metric": {}, "value": [1.5, "1"] }]));
        assert_eq!(read(good.as_bytes(), "vector").unwrap().series.len(), 1);
        for bad in [
            answer("scalar", json!([1.5, "1"])),
            answer("string", json!([1.5, "a"])),
            answer("matrix", json!([])),
            answer("vector", json!([{ "metric": {}, "value": [1.5, 1] }])),
            answer("vector", json!([1.5, "1"])),
            json!({ "status": "error", "errorType": "bad_data", "error": "parse error" }).to_string(),
            json!({ "status": "success" }).to_string(),
            "<html>".into(),
        ] {
            assert!(read(bad.as_bytes(), "vector").is_err(), "{bad}");
        }
        let native_histogram = answer("vector", json!([{ "metric": {}, "histogram": [1.5, {}] }]));
        assert!(weigh(&[], &read(native_histogram.as_bytes(), "vector").unwrap().series, MAX_AGE, Takes::All).is_err());
    }

    #[test]
    fn plain_series_are_told_from_expressions() {
        for plain in [
            "up",
            "job:up:min",
            " up ",
            "up{job=\"x\"}",
            "up {job=\"x\", instance!~'a|b'} ",
            "{__name__=\"up\"}",
            "up{}",
            r#"up{a="}",b="\"}"}"#,
            "up{a=`\\`}",
            "{\"dotted.name\",a=\"b\"}",
        ] {
            assert!(is_plain_series(plain), "{plain}");
        }
        for other in [
            "",
            "1",
            "up[5m]",
            "up == 1",
            "up offset 5m",
            "up @ 5",
            "min(up)",
            "up{a=\"b\"} or down",
            "up{a=\"b\"",
            "up{a=\"b}",
            "-up",
            "up{a=\"b\"}[5m:1s]",
            "up # down",
            "(up)",
            "\"up\"",
            "up{a=\"b\"}{c=\"d\"}",
        ] {
            assert!(!is_plain_series(other), "{other}");
        }
    }

    fn labelled(name: &str, labels: &[(&str, &str)], value: &str) -> Series {
        let mut one = alive(name, value);
        one.metric.extend(labels.iter().map(|(n, v)| ((*n).to_string(), (*v).to_string())));
        one
    }

    #[test]
    fn only_what_a_young_positive_check_elsewhere_holds_was_reached() {
        let labels =
            |kind, target| [("check", "admin-open"), ("kind", kind), ("target", target), ("vantage", "office"), ("verdict", "holds")];
        let came_to = |kind, target, expect: &str, ran: &str| {
            let verdict = labelled(VERDICT, &labels(kind, target), "1");
            let about = &labels(kind, target)[..4];
            let info = labelled(INFO, &[about, &[("expect", expect)]].concat(), "1");
            let last = labelled(LAST_RUN, about, ran);
            reached(&verdict, &[info, last], MAX_AGE).map(|r| r.address)
        };
        let there = || Some("203.0.113.7:443".to_string());
        assert_eq!(came_to("tcp", "203.0.113.7:443", "open", "950"), there());
        assert_eq!(came_to("http", "https://203.0.113.7/x", "open", "940"), there());
        assert_eq!(came_to("tcp", "203.0.113.7:443", "blocked", "950"), None, "a block there reached nothing");
        assert_eq!(came_to("tcp", "203.0.113.7:443", "[\"refused\"]", "950"), None);
        assert_eq!(came_to("tcp", "203.0.113.7:443", "open", "939"), None, "its run is too old");
        assert_eq!(came_to("tcp", "203.0.113.7:443", "open", "1002"), None, "its clock runs ahead");
        assert_eq!(came_to("tcp", "admin.example.com:443", "open", "950"), None, "a name is no address");
        assert_eq!(came_to("peer", "http://203.0.113.7:9890", "open", "950"), None, "a question is not its answer");
        let verdict = labelled(VERDICT, &labels("tcp", "203.0.113.7:443"), "1");
        assert_eq!(reached(&verdict, &[], MAX_AGE), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes, "vector");
        }

        #[test]
        fn no_samples_make_it_panic_or_hold_for_longer_than_they_go_back(
            values in prop::collection::vec((prop::num::f64::ANY, "[01]|NaN|-?[0-9]{1,3}"), 0..20),
            live in "[01]|NaN|2",
            now in prop::num::f64::ANY,
            takes in prop::sample::select(&[Takes::All, Takes::One][..]),
        ) {
            let values: Vec<(f64, &str)> = values.iter().map(|(at, v)| (*at, v.as_str())).collect();
            let live = Series { value: Some((now, live)), ..series("a", &[]) };
            if let Ok(Some(weighed)) = weigh(&[series("a", &values)], &[live], MAX_AGE, takes) {
                prop_assert!(weighed.holding.is_none_or(|held| held.is_finite() && held >= 0.0));
            }
        }

        #[test]
        fn nothing_is_plain_that_could_look_elsewhere(query in "[a-z{}()\\[\\]\"'`=, @#\\\\]{0,24}") {
            let mut quote = None;
            let outside: String = query
                .chars()
                .filter(|c| match quote {
                    Some(q) => {
                        quote = (q != *c).then_some(q);
                        false
                    }
                    None => {
                        quote = "\"'`".contains(*c).then_some(*c);
                        quote.is_none()
                    }
                })
                .collect();
            if is_plain_series(&query) && !query.contains('\\') {
                let (before, inside) = outside.split_once('{').unwrap_or((&outside, "}"));
                let (inside, after) = inside.split_once('}').unwrap();
                let bare = |text: &str| text.trim().chars().all(|c| c.is_ascii_lowercase());
                prop_assert!(bare(before) && after.trim().is_empty() && !inside.contains(['(', '[', '{']), "{query}");
            }
        }
    }
}

//! Join: the attempts that a record or a report has, and what was found of them, put where they stand.

use std::net::SocketAddr;

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::index::{Index, Shot};
use crate::clock::Wall;
use crate::defence::{Sighting, Word, alarm, contradiction};
use crate::observation::{Class, Outcome, Transport};
use crate::record::{Record, Seen};
use crate::verdict::Verdict;

/// Which attempt of which observation of which run; the number of the run is the caller's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose {
    /// The run.
    pub run: u64,
    /// The observation, from 0.
    pub observation: usize,
    /// The attempt, from 0.
    pub attempt: usize,
}

/// Keeps every attempt of a record in the index; how many they are.
pub fn keep(index: &mut Index<Whose>, run: u64, record: &Record) -> usize {
    let before = index.len();
    for (observation, seen) in record.observations.iter().enumerate() {
        for (attempt, flow) in seen.flows.iter().enumerate() {
            let shot = Shot {
                protocol: flow.protocol,
                local: flow.local,
                remote: flow.remote,
                started: flow.started_at,
                ended: flow.ended_at,
                nonce: flow.nonce.clone(),
            };
            index.push(shot, Whose { run, observation, attempt });
        }
    }
    index.len().saturating_sub(before)
}

/// Adds what was found to the record, and judges whether it contradicts it; whether it was new.
pub fn join(record: &mut Record, whose: Whose, sighting: Sighting) -> bool {
    let Some(seen) = record.observations.get_mut(whose.observation) else { return false };
    if !add(&mut seen.defence, Sighting { attempt: whose.attempt + 1, ..sighting }) {
        return false;
    }
    record.contradicted = record.observations.iter().find_map(|seen| contradicted(seen, &record.about.expect));
    true
}

/// Adds one, unless it is there already.
fn add(all: &mut Vec<Sighting>, one: Sighting) -> bool {
    if all.contains(&one) {
        return false;
    }
    if all.len() >= Sighting::MAX {
        // What clears an attempt is never what there is no room for.
        let Some(place) = all.iter().rposition(|s| s.word != Word::Rejected).filter(|_| one.word == Word::Rejected) else { return false };
        all.remove(place);
    }
    all.push(one);
    true
}

/// The alarm about an observation that holds, where one of its attempts was let in.
fn contradicted(seen: &Seen, expect: &str) -> Option<String> {
    if !matches!(seen.verdict, Verdict::Holds(_)) {
        return None;
    }
    let attempts = seen.flows.iter().enumerate().map(|(nth, flow)| (nth + 1, flow.outcome.to_string()));
    first_alarm(&seen.address, attempts, expect, &seen.defence)
}

fn first_alarm(address: &str, attempts: impl Iterator<Item = (usize, String)>, expect: &str, all: &[Sighting]) -> Option<String> {
    let attempts: Vec<(usize, String)> = attempts.collect();
    if attempts.iter().any(|(_, outcome)| outcome.parse::<Outcome>().is_ok_and(|outcome| outcome.class() == Class::Open)) {
        // It holds because it gets through: a witness, or another check that must.
        return None;
    }
    attempts.into_iter().find_map(|(nth, outcome)| {
        let one = contradiction(&outcome, expect, all.iter().filter(|s| s.attempt == nth))?;
        Some(alarm(address, &outcome, one))
    })
}

/// As much of a record as is needed to judge what logs say of it, once nobody keeps the whole of it any more.
#[derive(Debug)]
pub struct Slim(Vec<SlimSeen>);

#[derive(Debug)]
struct SlimSeen {
    address: String,
    holds: bool,
    outcomes: Vec<Outcome>,
    found: Vec<Sighting>,
}

impl Slim {
    /// Of this record.
    pub fn of(record: &Record) -> Slim {
        let slim = |seen: &Seen| SlimSeen {
            address: seen.address.clone(),
            holds: matches!(seen.verdict, Verdict::Holds(_)),
            outcomes: seen.flows.iter().map(|flow| flow.outcome).collect(),
            found: Vec::new(),
        };
        Slim(record.observations.iter().map(slim).collect())
    }

    /// Adds what was found; whether it was new.
    pub fn add(&mut self, whose: Whose, sighting: Sighting) -> bool {
        let seen = self.0.get_mut(whose.observation);
        seen.is_some_and(|seen| add(&mut seen.found, Sighting { attempt: whose.attempt + 1, ..sighting }))
    }

    /// The alarm, where one of its observations holds and was let in.
    pub fn contradicted(&self, expect: &str) -> Option<String> {
        self.0.iter().filter(|seen| seen.holds).find_map(|seen| {
            let attempts = seen.outcomes.iter().enumerate().map(|(nth, outcome)| (nth + 1, outcome.to_string()));
            first_alarm(&seen.address, attempts, expect, &seen.found)
        })
    }
}

/// A report as JSON, of `mustnot check` or of the API, with what is found of its attempts.
#[derive(Debug)]
pub struct Report {
    value: Value,
    /// By check and observation, in the order of the report.
    found: Vec<Vec<Vec<Sighting>>>,
}

impl Report {
    /// Reads a report, and keeps its attempts in the index; how many they are stands beside.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(text: &[u8], index: &mut Index<Whose>) -> Result<(Report, usize), String> {
        let value: Value = serde_json::from_slice(text).map_err(|e| format!("it is no JSON: {e}"))?;
        let checks = checks(&value).ok_or("it has no \"checks\"; write one with `mustnot check --format json`, or take /api/v1/checks")?;
        let mut found = Vec::new();
        let (mut attempts, mut kept) = (0, 0);
        for (run, check) in checks.iter().enumerate() {
            let observations = list(check, "observations");
            // What other logs have said of it before goes on to count.
            let before = |seen: &Value| list(seen, "defence").iter().filter_map(|one| Sighting::deserialize(one).ok()).collect();
            found.push(observations.iter().map(before).collect());
            for (observation, seen) in observations.iter().enumerate() {
                for (attempt, flow) in list(seen, "flows").iter().enumerate() {
                    let shot =
                        shot(flow).ok_or_else(|| format!("checks[{run}].observations[{observation}].flows[{attempt}] cannot be read"))?;
                    attempts += 1;
                    let before = index.len();
                    index.push(shot, Whose { run: run as u64, observation, attempt });
                    kept += index.len().saturating_sub(before);
                }
            }
        }
        if attempts == 0 {
            return Err(
                "none of its observations has \"flows\", by which a log is matched; an older mustnot wrote it, or nothing was dialled"
                    .into(),
            );
        }
        Ok((Report { value, found }, kept))
    }

    /// Adds what was found of an attempt; whether it was new.
    pub fn join(&mut self, whose: Whose, sighting: Sighting) -> bool {
        let run = usize::try_from(whose.run).unwrap_or(usize::MAX);
        let place = self.found.get_mut(run).and_then(|of| of.get_mut(whose.observation));
        place.is_some_and(|all| add(all, Sighting { attempt: whose.attempt + 1, ..sighting }))
    }

    /// The report with what was found in it, and every alarm.
    pub fn finish(mut self) -> (Value, Vec<Told>) {
        let mut told = Vec::new();
        let found = std::mem::take(&mut self.found);
        for (check, of_check) in checks_mut(&mut self.value).into_iter().flatten().zip(found) {
            let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
            let (name, target, expect) = (text(check, "name"), text(check, "target"), text(check, "expect"));
            let mut alarm_of_check = None;
            for (seen, mut all) in check.get_mut("observations").and_then(Value::as_array_mut).into_iter().flatten().zip(of_check) {
                all.sort_by_key(|s| (s.attempt, s.first));
                let (address, verdict) = (text(seen, "address"), text(seen, "verdict"));
                let outcomes: Vec<String> = list(seen, "flows").iter().map(|flow| text(flow, "outcome")).collect();
                let attempts = outcomes.iter().enumerate().map(|(nth, outcome)| (nth + 1, outcome.clone()));
                let alarm = (verdict == "holds").then(|| first_alarm(&address, attempts, &expect, &all)).flatten();
                alarm_of_check = alarm_of_check.or_else(|| alarm.clone());
                if let (Some(object), false) = (seen.as_object_mut(), all.is_empty()) {
                    object.insert("defence".into(), json!(all));
                }
                told.push(Told { check: name.clone(), target: target.clone(), address, verdict, outcomes, found: all, alarm });
            }
            if let Some(object) = check.as_object_mut() {
                match alarm_of_check {
                    Some(alarm) => object.insert("contradicted".into(), json!(alarm)),
                    None => object.remove("contradicted"),
                };
            }
        }
        (self.value, told)
    }
}

/// What the logs said of one observation.
#[derive(Debug, Clone)]
pub struct Told {
    /// The check.
    pub check: String,
    /// Its target.
    pub target: String,
    /// The address.
    pub address: String,
    /// What it was judged to be.
    pub verdict: String,
    /// How each attempt ended.
    pub outcomes: Vec<String>,
    /// What was found, by attempt and time.
    pub found: Vec<Sighting>,
    /// Why that contradicts the verdict.
    pub alarm: Option<String>,
}

/// `checks` of a report; of `/api/v1/checks/{name}` the `recent` ones, the newest among them.
fn checks(value: &Value) -> Option<&Vec<Value>> {
    value.get(key_of(value)).and_then(Value::as_array)
}

fn checks_mut(value: &mut Value) -> Option<&mut Vec<Value>> {
    let key = key_of(value);
    value.get_mut(key).and_then(Value::as_array_mut)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn shot(flow: &Value) -> Option<Shot> {
    let text = |key: &str| flow.get(key).and_then(Value::as_str);
    let address = |key: &str| text(key)?.parse::<SocketAddr>().ok();
    Some(Shot {
        protocol: match text("protocol")? {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            "icmp" => Transport::Icmp,
            _ => return None,
        },
        local: address("local")?,
        remote: address("remote")?,
        started: Wall::parse(text("started_at")?)?,
        ended: Wall::parse(text("ended_at")?)?,
        nonce: text("nonce").map(str::to_string),
    })
}

fn key_of(value: &Value) -> &'static str {
    if value.get("recent").is_some() { "recent" } else { "checks" }
}

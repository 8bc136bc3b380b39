//! Records as the engine would make them, without an engine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mustnot::clock::{Moment, Wall};
use mustnot::expectation::{Accept, Expectation};
use mustnot::observation::{Attempt, Evidence, Family, Observation, Outcome, Stage, Subject, Transport};
use mustnot::record::{About, Exposure, Record, Seen, WitnessRecord};
use mustnot::severity::Severity;
use mustnot::verdict::{Cause, Claim, Verdict, judge};
use mustnot::witness::{Proof, ProofSet};

/// A Friday in January 2026, so many seconds after its first moment.
pub fn wall(seconds: i64) -> Wall {
    Wall::from_unix_millis(1_767_323_045_678 + seconds * 1000).unwrap()
}

pub fn about(name: &str) -> About {
    About {
        name: name.into(),
        kind: "tcp",
        target: "admin.example.com:443".into(),
        expect: "blocked".into(),
        severity: Severity::Critical,
        runbook: None,
        description: None,
        labels: BTreeMap::new(),
        tags: Vec::new(),
        inverted: true,
        stale_after: Duration::from_secs(60),
        exception: None,
        origin: None,
    }
}

/// The only way to a `holds`: the judge.
pub fn holds() -> Verdict {
    let now = Moment::now();
    let address: SocketAddr = "203.0.113.7:443".parse().unwrap();
    let subject = Subject {
        address: address.to_string(),
        named: None,
        family: Some(Family::V4),
        dialled: Some(address),
        reached: Some(address),
        source: None,
        transport: Transport::Tcp,
        asked: None,
        via: false,
        technique: None,
        variant: None,
    };
    let attempt = Attempt { outcome: Outcome::Connected, stage: Stage::Tcp, evidence: Evidence::default(), started: now, ended: now };
    let seen = Observation::of(subject, vec![attempt], None, Wall::now());
    let expectation = Expectation::new(vec![Accept::One(Outcome::Connected)]).unwrap();
    let judged = judge(seen, Claim { expectation: &expectation, require: ProofSet::NONE, attempts: 1 }, Vec::new());
    assert!(matches!(judged.verdict, Verdict::Holds(_)));
    judged.verdict
}

pub fn seen(verdict: Verdict, outcome: Outcome) -> Seen {
    Seen {
        address: "203.0.113.7:443".into(),
        cause: verdict.cause(),
        verdict,
        outcome,
        stage: Stage::Tcp,
        elapsed_ms: 12.3,
        attempts: 1,
        attempt_outcomes: Vec::new(),
        technique: None,
        variant: None,
        asked: None,
        proofs: [Proof::Vantage, Proof::Target].into_iter().collect(),
        flows: Vec::new(),
        defence: Vec::new(),
        evidence: Evidence { local_address: "10.0.0.5:41234".parse().ok(), syn_retransmits: Some(0), ..Evidence::default() },
    }
}

pub fn record(about: About, verdict: Verdict, outcome: Outcome) -> Record {
    Record {
        about: Arc::new(about),
        cause: verdict.cause(),
        verdict: verdict.clone(),
        reason: "203.0.113.7:443 accepted a TCP connection after 12 ms".into(),
        contradicted: None,
        reproduce: None,
        proofs: [Proof::Vantage, Proof::Target].into_iter().collect(),
        not_covered: Vec::new(),
        started_at: wall(0),
        duration: Duration::from_millis(7004),
        exposure: Exposure::default(),
        denial_changed: Vec::new(),
        coverage: None,
        observations: vec![seen(verdict, outcome)],
        witnesses: vec![WitnessRecord { name: "internet".into(), proven: true, before: Some(wall(-1)), after: Some(wall(8)), why: None }],
        began: Moment::now(),
    }
}

pub fn violated(name: &str) -> Record {
    let mut record = record(about(name), Verdict::Violated(Cause::Open), Outcome::Connected);
    record.exposure = Exposure { first_open: Some(wall(-60)), last_open: Some(wall(0)), last_closed: Some(wall(-90)) };
    record.reproduce = Some("nc -vz 203.0.113.7 443".into());
    record
}

pub fn held(name: &str) -> Record {
    let mut record = record(about(name), holds(), Outcome::Refused);
    record.reason = "203.0.113.7:443 refused every attempt".into();
    record
}

pub fn unproven(name: &str) -> Record {
    let mut record = record(about(name), Verdict::Unproven(Cause::WitnessFailed), Outcome::Timeout);
    record.reason = "203.0.113.7:443 is silent, and so is the witness".into();
    record.proofs = ProofSet::NONE;
    record.witnesses = vec![WitnessRecord {
        name: "internet".into(),
        proven: false,
        before: None,
        after: None,
        why: Some("it failed just before: one.one.one.one:443 timeout".into()),
    }];
    record
}

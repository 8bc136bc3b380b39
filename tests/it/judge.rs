//! The judge and what stands beside it, cell by cell, straight from SPEC sections 2.1 to 2.4 and 8.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mustnot::clock::{Moment, Wall};
use mustnot::expectation::{Accept, Expectation, MIN_SENT};
use mustnot::history::Board;
use mustnot::memory::Memory;
use mustnot::observation::{
    Attempt, Authentication, Class, Evidence, Family, Marker, Observation, Outcome, PeerEvidence, QueryEvidence, Reached, Stage, Subject,
    Transport, doubt_denials, excuse_mute, note_shut_out,
};
use mustnot::record::{Exposure, Record};
use mustnot::schedule::Schedule;
use mustnot::verdict::{Cause, Claim, Judged, Testimony, Verdict, fold, judge, latch, stale_after, when_read};
use mustnot::witness::{DecoyKey, DecoyRun, Decoys, Lapse, Proof, ProofSet, Proven, Timeline, WitnessRun};

use crate::fixture::{about, held, holds, unproven, violated, wall};

const WINDOW: Duration = Duration::from_secs(10);
const TARGET: &str = "203.0.113.7:443";
const WITNESS: &str = "198.51.100.1:443";
const MONITOR: &str = "10.0.0.5:40000";

fn at(seconds: f64) -> Moment {
    Moment::after_boot(Duration::from_secs_f64(10_000.0 + seconds))
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn one(outcomes: &[Outcome]) -> Expectation {
    Expectation::new(outcomes.iter().map(|o| Accept::One(*o)).collect()).unwrap()
}

/// Attempts that end one by one between `from` and `until`, each of as many SYNs as silence needs.
fn seen(to: &str, outcomes: &[Outcome], from: f64, until: f64) -> Observation {
    let to: SocketAddr = to.parse().unwrap();
    let subject = Subject {
        address: to.to_string(),
        named: None,
        family: Some(Family::of(to.ip())),
        dialled: Some(to),
        reached: Some(to),
        source: None,
        transport: Transport::Tcp,
        asked: None,
        via: false,
        technique: None,
        variant: None,
    };
    let local = if to.is_ipv4() { MONITOR } else { "[2001:db8:5::5]:40000" };
    let attempt = |outcome: &Outcome| {
        let syns = (*outcome == Outcome::Timeout).then_some(MIN_SENT);
        let evidence = Evidence { local_address: local.parse().ok(), syns_sent: syns, ..Evidence::default() };
        Attempt { outcome: *outcome, stage: Stage::Tcp, evidence, started: at(from), ended: at(until) }
    };
    let settled = outcomes.iter().position(|o| o.class() == Class::Open);
    Observation::of(subject, outcomes.iter().map(attempt).collect(), settled, wall(0))
}

fn authenticated(mut seen: Observation) -> Observation {
    seen.evidence.authenticated = Some(Authentication::Tls);
    seen
}

fn from_source(mut seen: Observation, source: &str) -> Observation {
    seen.subject.source = source.parse().ok();
    seen.evidence.local_address = source.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 40000));
    seen
}

/// A block of three silent attempts from 20 s to 27 s.
fn block() -> Observation {
    seen(TARGET, &[Outcome::Timeout; 3], 20.0, 27.0)
}

fn run_of(observations: Vec<Observation>, from: f64, until: f64) -> Arc<WitnessRun> {
    let expectation = one(&[Outcome::Connected, Outcome::QueryTrue]);
    Arc::new(WitnessRun::new(at(from), at(until), wall(from as i64), observations, &expectation))
}

/// A witness run that got through, in a way that needs no decoy.
fn up(from: f64, until: f64) -> Arc<WitnessRun> {
    run_of(vec![authenticated(seen(WITNESS, &[Outcome::Connected], from, until))], from, until)
}

fn down(from: f64, until: f64) -> Arc<WitnessRun> {
    run_of(vec![seen(WITNESS, &[Outcome::Timeout; 3], from, until)], from, until)
}

fn timeline(runs: impl IntoIterator<Item = Arc<WitnessRun>>) -> Timeline {
    let mut timeline = Timeline::default();
    runs.into_iter().for_each(|run| timeline.push(run));
    timeline
}

fn no_decoys() -> Decoys {
    Decoys::new(WINDOW)
}

fn around(runs: impl IntoIterator<Item = Arc<WitnessRun>>, seen: &Observation) -> Result<Proven, Lapse> {
    timeline(runs).around(seen, WINDOW, &no_decoys())
}

fn proofs(runs: impl IntoIterator<Item = Arc<WitnessRun>>, seen: &Observation) -> Vec<&'static str> {
    around(runs, seen).map(|p| p.proofs().iter().map(Proof::token).collect()).unwrap_or_default()
}

/// The proofs that this witness observation gives for `about` when it got through before and after.
fn shown_by(witness: &Observation, about: &Observation) -> Vec<&'static str> {
    proofs([run_of(vec![witness.clone()], 18.0, 19.0), run_of(vec![witness.clone()], 28.0, 29.0)], about)
}

fn proven() -> Testimony {
    ("w".into(), around([up(18.0, 19.0), up(28.0, 29.0)], &block()))
}

fn not_proven() -> Testimony {
    ("w".into(), around([down(18.0, 19.0), up(28.0, 29.0)], &block()))
}

fn set(proofs: &[Proof]) -> ProofSet {
    proofs.iter().copied().collect()
}

fn came_to(judged: &Judged) -> (&'static str, Cause) {
    (judged.verdict.token(), judged.verdict.cause())
}

// ---------------------------------------------------------------------------------------------- SPEC 2.1, judge

#[derive(Debug, Clone, Copy, PartialEq)]
enum Named {
    Nobody,
    Proven,
    Failed,
    /// Two witnesses, of which one is not proven.
    OneOfTwo,
}

/// The rules of SPEC 2.1 in the words of the specification, for an observation whose attempts all ended alike.
fn by_the_rules(outcome: Outcome, expectation: &Expectation, named: Named, met: bool, authenticated: bool) -> (&'static str, Cause) {
    let inverted = expectation.is_inverted();
    let all_named_are_proven = matches!(named, Named::Nobody | Named::Proven);
    let a_witness_is_proven = matches!(named, Named::Proven | Named::OneOfTwo);
    let wrong = if inverted { Cause::OtherDenial } else { Cause::NotOpen };
    let lacking = if all_named_are_proven { Cause::NoWitness } else { Cause::WitnessFailed };
    match outcome.class() {
        Class::Local if outcome == Outcome::ResolveError => ("unproven", Cause::Resolve), // 1
        Class::Local => ("unproven", Cause::Local),                                       // 1
        Class::Open if inverted => ("violated", Cause::Open),                             // 2
        Class::Open if outcome == Outcome::EgressOther => ("violated", Cause::NotOpen),   // 2
        Class::Closed if expectation.accepts(outcome) && inverted && all_named_are_proven && met => ("holds", Cause::AsExpected), // 3
        Class::Closed if expectation.accepts(outcome) && inverted => ("unproven", lacking), // 3
        _ if expectation.accepts(outcome) => ("holds", Cause::AsExpected),                // 4
        _ if matches!(outcome, Outcome::Timeout | Outcome::Mute) && a_witness_is_proven => ("violated", wrong), // 5
        _ if matches!(outcome, Outcome::Timeout | Outcome::Mute) => ("unproven", lacking), // 5
        _ if all_named_are_proven || authenticated => ("violated", wrong),                // 5
        _ => ("unproven", Cause::WitnessFailed),                                          // 5
    }
}

#[test]
fn judge_every_cell_of_2_1() {
    let statuses = [200, 204, 301, 399, 400, 403, 404, 503, 599].map(Outcome::Status);
    let outcomes: Vec<Outcome> = Outcome::all().chain(statuses).collect();
    let expectations = [
        one(&[Outcome::Refused, Outcome::Timeout, Outcome::Unreachable, Outcome::Prohibited]),
        one(&[Outcome::Refused]),
        one(&[Outcome::Status(403)]),
        one(&[Outcome::Mute, Outcome::Reset, Outcome::Closed, Outcome::TlsRefused]),
        one(&[Outcome::NxDomain]),
        one(&[Outcome::Denied, Outcome::NotRelayed, Outcome::NotUnderstood]),
        one(&[Outcome::Connected]),
        one(&[Outcome::TlsEstablished]),
        one(&[Outcome::Egress]),
        Expectation::new(vec![Accept::Statuses(200, 299)]).unwrap(),
    ];
    let requires =
        [(ProofSet::NONE, true, true), (set(&[Proof::Vantage]), true, false), (set(&[Proof::Vantage, Proof::Target]), false, false)];
    let mut cells = 0;
    for expectation in &expectations {
        for &outcome in &outcomes {
            for named in [Named::Nobody, Named::Proven, Named::Failed, Named::OneOfTwo] {
                for (require, met_by_witness, met_by_nobody) in requires {
                    for signed in [false, true] {
                        let mut observed = seen(TARGET, &[outcome; 3], 20.0, 27.0);
                        observed.evidence.authenticated = signed.then_some(Authentication::Tls);
                        let witnesses = match named {
                            Named::Nobody => vec![],
                            Named::Proven => vec![proven()],
                            Named::Failed => vec![not_proven()],
                            Named::OneOfTwo => vec![proven(), not_proven()],
                        };
                        let met = if named == Named::Nobody { met_by_nobody } else { met_by_witness };
                        let judged = judge(observed, Claim { expectation, require, attempts: 3 }, witnesses);
                        let expected = by_the_rules(outcome, expectation, named, met, signed);
                        assert_eq!(
                            came_to(&judged),
                            expected,
                            "{outcome} {named:?} require {require:?} authenticated {signed} {expectation:?}"
                        );
                        cells += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cells, expectations.len() * outcomes.len() * 4 * 3 * 2);
}

/// What three attempts come to, with a proven witness and `vantage` required.
fn verdict_of(outcomes: &[Outcome], expectation: &Expectation) -> (&'static str, Cause) {
    let observed = seen(TARGET, outcomes, 20.0, 27.0);
    came_to(&judge(observed, Claim { expectation, require: set(&[Proof::Vantage]), attempts: 3 }, vec![proven()]))
}

#[test]
fn a_block_needs_every_attempt() {
    use Outcome::{Connected, LocalError, Refused, Status, Timeout};
    let blocked = one(&[Refused, Timeout]);
    let table: &[(&[Outcome], (&str, Cause))] = &[
        (&[Refused, Refused, Refused], ("holds", Cause::AsExpected)),
        (&[Refused, Timeout, Refused], ("holds", Cause::AsExpected)),
        (&[Refused, Refused], ("unproven", Cause::Coverage)),
        (&[Timeout], ("unproven", Cause::Coverage)),
        (&[Refused, Refused, Connected], ("violated", Cause::Open)),
        (&[Connected], ("violated", Cause::Open)),
        (&[LocalError, Connected], ("violated", Cause::Open)),
        (&[Refused, LocalError, Refused], ("unproven", Cause::Local)),
        (&[LocalError, Refused, Refused], ("unproven", Cause::Local)),
        (&[Refused, Refused, LocalError], ("unproven", Cause::Local)),
        // Some as demanded, some not: neither shown. (Read to the letter, 2.1 rule 5 would have it `violated`; one lost packet
        // before a port that refuses would then be a violation.)
        (&[Refused, Status(404), Refused], ("unproven", Cause::OtherDenial)),
        (&[Status(404), Status(404), Status(404)], ("violated", Cause::OtherDenial)),
    ];
    for (outcomes, expected) in table {
        assert_eq!(verdict_of(outcomes, &blocked), *expected, "{outcomes:?}");
    }
    let only_refused = one(&[Refused]);
    assert_eq!(verdict_of(&[Refused, Timeout, Refused], &only_refused), ("unproven", Cause::OtherDenial));
    assert_eq!(verdict_of(&[Timeout, Timeout, Timeout], &only_refused), ("violated", Cause::OtherDenial));
    // A positive check needs one.
    let open = one(&[Connected]);
    assert_eq!(verdict_of(&[Timeout, Refused, Connected], &open), ("holds", Cause::AsExpected));
    assert_eq!(verdict_of(&[Timeout, Refused, Timeout], &open), ("violated", Cause::NotOpen));
    // A name that must not exist is asked for as often.
    let claim = one(&[Outcome::NxDomain]);
    for (times, expected) in [(3, ("holds", Cause::AsExpected)), (2, ("unproven", Cause::Coverage)), (1, ("unproven", Cause::Coverage))] {
        let mut name = seen(TARGET, &[Outcome::NxDomain].repeat(times), 20.0, 27.0);
        name.stage = Stage::Dns;
        let judged = judge(name, Claim { expectation: &claim, require: ProofSet::NONE, attempts: 3 }, vec![proven()]);
        assert_eq!(came_to(&judged), expected, "{times}");
    }
}

#[test]
fn silence_needs_three_syns_in_every_attempt() {
    let blocked = one(&[Outcome::Timeout, Outcome::Refused]);
    for (syns, expected) in [(Some(MIN_SENT), "holds"), (Some(MIN_SENT - 1), "unproven"), (Some(0), "unproven"), (None, "unproven")] {
        let subject = block().subject;
        let attempt = |syns_sent, outcome| {
            let evidence = Evidence { syns_sent, local_address: MONITOR.parse().ok(), ..Evidence::default() };
            Attempt { outcome, stage: Stage::Tcp, evidence, started: at(20.0), ended: at(27.0) }
        };
        // Only the silent attempt's SYNs count: a refusal comes after the first.
        let attempts = vec![attempt(Some(9), Outcome::Timeout), attempt(syns, Outcome::Timeout), attempt(Some(1), Outcome::Refused)];
        let observed = Observation::of(subject, attempts, None, wall(0));
        let claim = Claim { expectation: &blocked, require: set(&[Proof::Vantage]), attempts: 3 };
        let judged = judge(observed, claim, vec![proven()]);
        assert_eq!(judged.verdict.token(), expected, "{syns:?}");
    }
}

#[test]
fn an_observation_without_an_attempt_is_our_bug() {
    let none = Observation::of(block().subject, Vec::new(), None, wall(0));
    assert_eq!(none.outcome, Outcome::Internal);
    let blocked = one(&[Outcome::Timeout]);
    let judged = judge(none, Claim { expectation: &blocked, require: ProofSet::NONE, attempts: 0 }, vec![]);
    assert_eq!(came_to(&judged), ("unproven", Cause::Local));
}

#[test]
fn the_deciding_attempt_is_the_settled_else_open_else_local_else_last() {
    use Outcome::{Connected, LocalError, Refused, Timeout};
    let of = |outcomes: &[Outcome], settled| {
        let attempts = outcomes.iter().enumerate().map(|(i, o)| Attempt {
            outcome: *o,
            stage: Stage::Tcp,
            evidence: Evidence::default(),
            started: at(i as f64),
            ended: at(5.0 - i as f64 / 10.0),
        });
        Observation::of(block().subject, attempts.collect(), settled, wall(0))
    };
    assert_eq!(of(&[Refused, Timeout], Some(0)).outcome, Refused);
    assert_eq!(of(&[Refused, LocalError, Connected, Timeout], None).outcome, Connected);
    assert_eq!(of(&[Refused, LocalError, Timeout], None).outcome, LocalError);
    let last = of(&[Refused, Refused, Timeout], None);
    assert_eq!((last.outcome, last.attempts.len(), last.fewest_sent), (Timeout, 3, Some(0)));
    assert_eq!((last.started, last.ended), (at(0.0), at(5.0)), "from the first packet of any to the last event of any");
}

#[test]
fn a_query_that_once_saw_only_what_was_long_ago_decides_nothing() {
    let told = |stale| Attempt {
        outcome: Outcome::QueryFalse,
        stage: Stage::Http,
        evidence: Evidence { query: Some(QueryEvidence { stale, ..QueryEvidence::default() }), ..Evidence::default() },
        started: at(0.0),
        ended: at(1.0),
    };
    let blocked = one(&[Outcome::QueryFalse]);
    let claim = || Claim { expectation: &blocked, require: ProofSet::NONE, attempts: 3 };
    for (stale, verdict) in [([false; 3], "holds"), ([true, false, false], "unproven"), ([false, false, true], "unproven")] {
        let observed = Observation::of(block().subject, stale.map(told).to_vec(), None, wall(0));
        assert_eq!(judge(observed, claim(), vec![]).verdict.token(), verdict, "{stale:?}");
    }
}

#[test]
fn settled_is_what_nothing_can_change() {
    let blocked = one(&[Outcome::Refused]);
    let open = one(&[Outcome::Connected]);
    let egress = one(&[Outcome::Egress]);
    let cells = [
        (&blocked, Outcome::Connected, true),
        (&blocked, Outcome::Refused, false),
        (&blocked, Outcome::LocalError, false),
        (&open, Outcome::Connected, true),
        (&open, Outcome::Refused, false),
        (&open, Outcome::Mismatch, false),
        (&egress, Outcome::Egress, true),
        (&egress, Outcome::EgressOther, true),
        (&egress, Outcome::Mismatch, false),
    ];
    for (expectation, outcome, settled) in cells {
        assert_eq!(expectation.settled_by(outcome), settled, "{outcome}");
    }
    // The foreign address settles, whatever else was seen.
    assert_eq!(verdict_of(&[Outcome::EgressOther], &egress), ("violated", Cause::NotOpen));
}

#[test]
fn expectations_refuse_what_could_never_be_meant() {
    let refused = |accepts: &[Outcome]| Expectation::new(accepts.iter().map(|o| Accept::One(*o)).collect()).unwrap_err();
    assert!(refused(&[]).contains("nothing is accepted"));
    assert!(refused(&[Outcome::Refused, Outcome::Connected]).contains("mixes open outcomes with closed ones"));
    for local in [Outcome::LocalError, Outcome::ResolveError, Outcome::Internal] {
        assert!(refused(&[Outcome::Refused, local]).contains("can never be accepted"));
    }
    let ranges = Expectation::new(vec![Accept::Statuses(200, 299)]).unwrap();
    for (code, accepted) in [(200, true), (299, true), (300, false), (199, false)] {
        assert_eq!(ranges.accepts(Outcome::Status(code)), accepted, "{code}");
    }
    assert!(!ranges.accepts(Outcome::Connected));
}

// ---------------------------------------------------------------------------------------------- SPEC 8, open-proxy

fn proxy_blocked() -> Expectation {
    let below_tcp = [Outcome::Refused, Outcome::Timeout, Outcome::Unreachable, Outcome::Prohibited];
    let denied = [Outcome::Denied, Outcome::NotRelayed, Outcome::NotUnderstood];
    one(&[&below_tcp[..], &denied[..]].concat()).undecided_on(&[Outcome::GatewayError, Outcome::Mute])
}

fn technique(outcomes: &[Outcome], id: &'static str) -> Observation {
    let mut seen = seen("203.0.113.9:3128", outcomes, 20.0, 27.0);
    seen.subject.technique = Some(id);
    seen.evidence.beacon_log = Some("unknown".into());
    seen
}

fn suite_verdict(seen: Observation, expectation: &Expectation) -> &'static str {
    judge(seen, Claim { expectation, require: set(&[Proof::Vantage]), attempts: 3 }, vec![proven()]).verdict.token()
}

#[test]
fn open_proxy_every_outcome() {
    use Outcome::*;
    let table = [
        (Relayed, "violated"),
        (RelayedBlind, "violated"),
        (Tunnelled, "violated"),
        (AclPassed, "violated"),
        (Denied, "holds"),
        (NotRelayed, "holds"),
        (NotUnderstood, "holds"),
        (Refused, "holds"),
        (Timeout, "holds"),
        (Unreachable, "holds"),
        (Prohibited, "holds"),
        (GatewayError, "unproven"),
        (Mute, "unproven"),
        (LocalError, "unproven"),
        (Internal, "unproven"),
    ];
    for (outcome, token) in table {
        assert_eq!(suite_verdict(technique(&[outcome; 3], "OP-02"), &proxy_blocked()), token, "{outcome}");
    }
    // One attempt that decides nothing spoils the rest; one that was let in settles.
    assert_eq!(suite_verdict(technique(&[Denied, GatewayError, Denied], "OP-01"), &proxy_blocked()), "unproven");
    assert_eq!(suite_verdict(technique(&[Denied, GatewayError, Relayed], "OP-01"), &proxy_blocked()), "violated");
}

// ------------------------------------------------------------------------------------------------ SPEC 9, variants

fn variant(outcomes: &[Outcome], marker: Marker) -> Observation {
    let mut seen = seen(TARGET, outcomes, 20.0, 27.0);
    seen.subject.variant = Some("AD-07 double-slash".into());
    seen.evidence.marker = Some(marker);
    seen
}

#[test]
fn a_variant_is_an_exposure_only_by_the_page_itself() {
    use Outcome::*;
    let denied = one(&[Status(403)]);
    let token =
        |seen| judge(seen, Claim { expectation: &denied, require: set(&[Proof::Vantage]), attempts: 3 }, vec![proven()]).verdict.token();
    for outcome in [
        Status(200),
        Status(302),
        Status(403),
        Status(404),
        Status(503),
        TlsUntrusted,
        NotTls,
        Mismatch,
        Refused,
        Reset,
        Closed,
        TlsRefused,
        Timeout,
    ] {
        assert_eq!(token(variant(&[outcome; 3], Marker::Absent)), "holds", "{outcome}");
        // Who let us in, and was not asked, has kept nothing from us.
        let unseen = if outcome.class() == Class::Open { "unproven" } else { "holds" };
        assert_eq!(token(variant(&[outcome; 3], Marker::Unseen)), unseen, "{outcome}");
        for undecided in [Marker::Cut, Marker::Everywhere, Marker::Shunned, Marker::Unheard] {
            assert_eq!(token(variant(&[outcome; 3], undecided)), "unproven", "{outcome} {undecided:?}");
        }
        assert_eq!(token(variant(&[outcome], Marker::Found)), "violated", "{outcome}: one attempt settles it");
        assert_eq!(token(variant(&[outcome; 2], Marker::Absent)), "unproven", "{outcome}: two attempts are too few");
    }
    for undecided in [Mute, BadHttp, LocalError, Internal] {
        assert_eq!(token(variant(&[Status(403), undecided, Status(403)], Marker::Absent)), "unproven", "{undecided}");
    }
    // One attempt that was not heard spoils the rest, whichever it was.
    let attempt = |outcome, marker| {
        let evidence = Evidence { marker: Some(marker), ..Evidence::default() };
        Attempt { outcome, stage: Stage::Http, evidence, started: at(20.0), ended: at(21.0) }
    };
    for unheard in [Closed, Reset, Status(429), TlsUntrusted] {
        let denied = || attempt(Status(403), Marker::Absent);
        let attempts = vec![denied(), attempt(unheard, Marker::Unheard), denied()];
        let subject = variant(&[Status(403)], Marker::Absent).subject;
        assert_eq!(token(Observation::of(subject, attempts, None, wall(0))), "unproven", "{unheard}");
    }
    // Whoever answers for everybody shows no page.
    assert_eq!(token(variant(&[LocalError], Marker::Found)), "unproven");
    let alone = Claim { expectation: &denied, require: set(&[Proof::Vantage]), attempts: 3 };
    assert_eq!(judge(variant(&[Status(404); 3], Marker::Absent), alone, vec![]).verdict.token(), "unproven");
}

#[test]
fn the_marker_settles_a_variant_and_its_status_does_not() {
    let denied = one(&[Outcome::Status(403)]);
    let attempt = |outcome, marker| {
        let evidence = Evidence { marker, ..Evidence::default() };
        Attempt { outcome, stage: Stage::Http, evidence, started: at(20.0), ended: at(21.0) }
    };
    assert!(denied.settled_by_attempt(&attempt(Outcome::Status(200), None)));
    assert!(!denied.settled_by_attempt(&attempt(Outcome::Status(200), Some(Marker::Absent))));
    assert!(denied.settled_by_attempt(&attempt(Outcome::Status(404), Some(Marker::Found))));
}

#[test]
fn denials_are_doubted_where_the_plain_request_was_answered_otherwise() {
    use Outcome::*;
    let after = |plain: Outcome, again: Outcome, variant_outcome: Outcome| {
        let mut last = seen(TARGET, &[again; 3], 20.0, 27.0);
        last.subject.variant = Some(Subject::AGAIN.into());
        let mut all = vec![seen(TARGET, &[plain; 3], 20.0, 27.0), variant(&[variant_outcome; 3], Marker::Unseen), last];
        doubt_denials(&mut all);
        all.into_iter().nth(1).unwrap().evidence.marker
    };
    assert_eq!(after(Status(403), Status(403), Reset), Some(Marker::Unseen));
    assert_eq!(after(Status(403), Status(403), Timeout), Some(Marker::Shunned));
    assert_eq!(after(Status(403), Status(403), Refused), Some(Marker::Shunned));
    assert_eq!(after(Status(403), Reset, Reset), Some(Marker::Shunned));
    assert_eq!(after(Status(403), Status(429), Status(404)), Some(Marker::Shunned));
    assert_eq!(after(Timeout, Timeout, Timeout), Some(Marker::Unseen));
}

#[test]
fn a_broken_proxy_on_the_way_is_no_block_of_the_target() {
    let blocked = one(&[Outcome::Refused, Outcome::Timeout, Outcome::Reset, Outcome::TlsRefused, Outcome::Status(403), Outcome::Denied]);
    for (outcome, direct, through) in [
        (Outcome::Refused, "holds", "unproven"),
        (Outcome::Timeout, "holds", "unproven"),
        (Outcome::Reset, "holds", "unproven"),
        (Outcome::TlsRefused, "holds", "holds"),
        (Outcome::Status(403), "holds", "holds"),
        (Outcome::Denied, "holds", "holds"),
        (Outcome::Status(200), "violated", "violated"),
    ] {
        for (via, token) in [(false, direct), (true, through)] {
            let mut observed = seen("203.0.113.9:3128", &[outcome; 3], 20.0, 27.0);
            observed.subject.via = via;
            assert_eq!(suite_verdict(observed, &blocked), token, "{outcome} via {via}");
        }
    }
}

#[test]
fn a_technique_that_a_witness_relays_with_must_be_understood() {
    let controlled = proxy_blocked().controlled_by(vec!["OP-01"]);
    let not_understood = [Outcome::NotUnderstood; 3];
    assert_eq!(suite_verdict(technique(&not_understood, "OP-01"), &controlled), "unproven");
    assert_eq!(suite_verdict(technique(&not_understood, "OP-02"), &controlled), "holds");
    assert_eq!(suite_verdict(technique(&[Outcome::Denied, Outcome::NotUnderstood, Outcome::Denied], "OP-01"), &controlled), "unproven");
    assert_eq!(suite_verdict(technique(&[Outcome::Denied; 3], "OP-01"), &controlled), "holds");
}

#[test]
fn a_greeting_that_is_met_with_silence_is_excused_by_another_technique_denied_at_the_same_address() {
    let verdict = |others: Vec<Observation>, change: fn(&mut Observation)| {
        let mut mute = technique(&[Outcome::Mute; 3], "OP-18");
        change(&mut mute);
        let mut all = vec![mute];
        all.extend(others);
        excuse_mute(&mut all);
        suite_verdict(all.remove(0), &proxy_blocked())
    };
    let denied = technique(&[Outcome::Denied; 3], "OP-01");
    assert_eq!(verdict(vec![denied.clone()], |_| ()), "holds");
    assert_eq!(verdict(vec![], |_| ()), "unproven");
    // A ClientHello is a greeting, what is asked inside TLS is not.
    assert_eq!(verdict(vec![denied.clone()], |mute| mute.subject.technique = Some("OP-17")), "holds");
    let inside = |mute: &mut Observation| (mute.subject.technique, mute.evidence.tls_version) = (Some("OP-17"), Some("1.3".into()));
    assert_eq!(verdict(vec![denied.clone()], inside), "unproven");
    // OP-21 carries no nonce, so no log is asked.
    let without_nonce = |mute: &mut Observation| (mute.subject.technique, mute.evidence.beacon_log) = (Some("OP-21"), None);
    assert_eq!(verdict(vec![denied.clone()], without_nonce), "holds");
    // A whole request that nobody answers may still be thought over.
    assert_eq!(verdict(vec![denied.clone()], |mute| mute.subject.technique = Some("OP-02")), "unproven");
    assert_eq!(verdict(vec![denied.clone()], |mute| mute.evidence.beacon_log = None), "unproven");
    assert_eq!(verdict(vec![denied.clone()], |mute| mute.evidence.beacon_log = Some("known".into())), "unproven");
    assert_eq!(verdict(vec![technique(&[Outcome::Denied; 3], "OP-18")], |_| ()), "unproven", "the same technique is no other");
    assert_eq!(verdict(vec![technique(&[Outcome::NotRelayed; 3], "OP-01")], |_| ()), "unproven");
    // Who answers in HTTP every time reads HTTP, whatever the answer was.
    let in_http = |outcomes: [Outcome; 3], status| {
        let mut answered = technique(&outcomes, "OP-01");
        answered.evidence.status = status;
        vec![answered]
    };
    use Outcome::{GatewayError, Mute, NotRelayed, NotUnderstood};
    assert_eq!(verdict(in_http([NotRelayed; 3], Some(302)), |_| ()), "holds");
    assert_eq!(verdict(in_http([NotRelayed, NotUnderstood, Outcome::Denied], Some(400)), |_| ()), "holds");
    assert_eq!(verdict(in_http([NotUnderstood; 3], None), |_| ()), "unproven");
    assert_eq!(verdict(in_http([GatewayError; 3], Some(502)), |_| ()), "unproven");
    assert_eq!(verdict(in_http([NotRelayed, Mute, NotRelayed], Some(302)), |_| ()), "unproven");
    assert_eq!(verdict(in_http([NotRelayed; 3], Some(302)), |mute| mute.evidence.beacon_log = Some("known".into())), "unproven");
    assert_eq!(verdict(in_http([NotRelayed; 3], Some(302)), |mute| mute.subject.technique = Some("OP-02")), "unproven");
    // A relay by server name that cannot reach the destination is as silent; that it denies the rest by hanging up shows no HTTP.
    let named = |mute: &mut Observation| {
        (mute.subject.technique, mute.subject.variant, mute.evidence.beacon_log) = (Some("OP-07"), Some("server name".into()), None);
    };
    assert_eq!(verdict(vec![denied.clone()], named), "unproven");
    assert_eq!(verdict(in_http([Outcome::Denied; 3], Some(403)), named), "holds");
    let tunnel = |mute: &mut Observation| (mute.subject.technique, mute.evidence.beacon_log) = (Some("OP-07"), None);
    assert_eq!(verdict(in_http([Outcome::Denied; 3], Some(403)), tunnel), "unproven");
    assert_eq!(verdict(vec![technique(&[Outcome::Denied, Outcome::Timeout, Outcome::Denied], "OP-01")], |_| ()), "unproven");
    let mut elsewhere = denied;
    elsewhere.subject.dialled = "203.0.113.10:3128".parse().ok();
    assert_eq!(verdict(vec![elsewhere], |_| ()), "unproven");
}

#[test]
fn what_is_refused_after_others_got_in_shows_no_block() {
    let verdicts = |all: &[Observation]| {
        let mut all = all.to_vec();
        note_shut_out(&mut all);
        all.into_iter().map(|one| suite_verdict(one, &proxy_blocked())).collect::<Vec<_>>()
    };
    let (denied, refused) = (technique(&[Outcome::Denied; 3], "OP-01"), technique(&[Outcome::Refused; 3], "OP-02"));
    assert_eq!(verdicts(&[denied.clone(), refused.clone()]), ["holds", "unproven"]);
    assert_eq!(verdicts(&[refused.clone(), refused.clone()]), ["holds", "holds"], "kept out from the first to the last");
    let uneven = technique(&[Outcome::Denied, Outcome::Timeout, Outcome::Denied], "OP-03");
    assert_eq!(verdicts(&[denied.clone(), uneven]), ["holds", "unproven"]);
    let mut elsewhere = refused;
    elsewhere.subject.dialled = "203.0.113.10:3128".parse().ok();
    assert_eq!(verdicts(&[denied, elsewhere]), ["holds", "holds"]);
}

// ---------------------------------------------------------------------------------------------- SPEC 2.2, fold

fn judged(outcome: Outcome, witnesses: Vec<Testimony>) -> Judged {
    let blocked = one(&[Outcome::Refused]);
    let observed = seen(TARGET, &[outcome; 3], 20.0, 27.0);
    judge(observed, Claim { expectation: &blocked, require: ProofSet::NONE, attempts: 3 }, witnesses)
}

#[test]
fn the_worst_observation_wins_and_the_first_of_the_worst_decides() {
    let (good, bad, unsure) =
        (judged(Outcome::Refused, vec![proven()]), judged(Outcome::Connected, vec![proven()]), judged(Outcome::LocalError, vec![proven()]));
    let table = [
        (vec![good.clone()], "holds", Some(0)),
        (vec![good.clone(), unsure.clone(), good.clone()], "unproven", Some(1)),
        (vec![unsure.clone(), bad.clone(), good.clone(), bad.clone()], "violated", Some(1)),
        (vec![good.clone(), good.clone()], "holds", Some(0)),
    ];
    for (run, token, decisive) in table {
        let folded = fold(&run, run.len());
        assert_eq!((folded.verdict.token(), folded.decisive), (token, decisive));
    }
    // An open door is never hidden behind another denial: the exposure window hangs on it.
    let denied = judged(Outcome::Status(404), vec![]);
    let folded = fold(&[good, denied.clone(), bad.clone(), denied], 4);
    assert_eq!((folded.verdict, folded.decisive), (Verdict::Violated(Cause::Open), Some(2)));
}

#[test]
fn coverage_short_of_the_plan_never_holds() {
    let good = judged(Outcome::Refused, vec![]);
    let cause = |run: &[Judged], planned| {
        let folded = fold(run, planned);
        (folded.verdict.token(), folded.verdict.cause())
    };
    assert_eq!(cause(&[], 0), ("unproven", Cause::Coverage));
    assert_eq!(cause(&[], 1), ("unproven", Cause::Coverage));
    assert_eq!(cause(std::slice::from_ref(&good), 1), ("holds", Cause::AsExpected));
    assert_eq!(cause(std::slice::from_ref(&good), 2), ("unproven", Cause::Coverage));
    assert_eq!(cause(std::slice::from_ref(&good), usize::MAX), ("unproven", Cause::Coverage));
    // What is worse than short coverage stays so.
    assert_eq!(cause(&[judged(Outcome::Connected, vec![])], usize::MAX), ("violated", Cause::Open));
    assert_eq!(cause(&[judged(Outcome::LocalError, vec![])], 9), ("unproven", Cause::Local));
}

#[test]
fn a_run_has_the_proofs_that_all_its_observations_have() {
    let with = |proofs: &[Proof]| Judged { proofs: set(proofs), ..judged(Outcome::Refused, vec![]) };
    let (all, vantage, target) = (with(&Proof::ALL), with(&[Proof::Vantage]), with(&[Proof::Target]));
    assert_eq!(fold(std::slice::from_ref(&all), 1).proofs, ProofSet::ALL);
    assert_eq!(fold(&[all.clone(), vantage.clone()], 2).proofs, set(&[Proof::Vantage]));
    assert_eq!(fold(&[all, vantage, target], 3).proofs, ProofSet::NONE);
    assert_eq!(fold(&[], 0).proofs, ProofSet::NONE);
}

// ---------------------------------------------------------------------------------------------- SPEC 2.3, witnesses

#[test]
fn a_witness_is_proven_by_the_nearest_run_on_either_side_within_the_window() {
    // The observation lasts from 20 s to 27 s.
    let around = |runs: Vec<Arc<WitnessRun>>| around(runs, &block()).map(|p| (p.before(), p.after()));
    let yes = |before: i64, after: i64| Ok((wall(before), wall(after)));
    assert_eq!(around(vec![up(18.0, 19.0), up(28.0, 29.0)]), yes(18, 28));
    // Both sides of each border.
    assert_eq!(around(vec![up(19.0, 20.0), up(27.0, 28.0)]), yes(19, 27), "touching is before and after");
    assert_eq!(around(vec![up(9.0, 10.0), up(37.0, 38.0)]), yes(9, 37), "just inside the window");
    assert_eq!(around(vec![up(9.0, 9.999), up(28.0, 29.0)]), Err(Lapse::TooEarly(secs(10.001))));
    assert_eq!(around(vec![up(18.0, 19.0), up(37.001, 38.0)]), Err(Lapse::TooLate(secs(10.001))));
    // One that overlaps is neither before nor after.
    assert_eq!(around(vec![up(19.5, 20.001), up(28.0, 29.0)]), Err(Lapse::NoneBefore));
    assert_eq!(around(vec![up(18.0, 19.0), up(26.999, 28.0)]), Err(Lapse::NoneAfter));
    assert_eq!(around(vec![]), Err(Lapse::NoneBefore));
    assert_eq!(around(vec![up(28.0, 29.0)]), Err(Lapse::NoneBefore));
    assert_eq!(around(vec![up(18.0, 19.0)]), Err(Lapse::NoneAfter));
    // The nearest counts, not the best.
    let failed = "198.51.100.1:443 timeout".to_string();
    assert_eq!(around(vec![up(15.0, 16.0), down(18.0, 19.0), up(28.0, 29.0)]), Err(Lapse::FailedBefore(failed.clone())));
    assert_eq!(around(vec![up(18.0, 19.0), down(28.0, 29.0), up(30.0, 31.0)]), Err(Lapse::FailedAfter(failed.clone())));
    assert_eq!(around(vec![down(15.0, 16.0), up(18.0, 19.0), up(28.0, 29.0), down(30.0, 31.0)]), yes(18, 28));
    // A failed run between or overlapping, at every edge.
    for (from, until) in [(21.0, 22.0), (19.5, 20.5), (26.5, 27.5), (19.5, 27.5), (20.0, 27.0)] {
        let runs = vec![up(18.0, 19.0), down(from, until), up(28.0, 29.0)];
        assert_eq!(around(runs), Err(Lapse::FailedBetween(failed.clone())), "{from} to {until}");
        assert_eq!(around(vec![up(18.0, 19.0), up(from, until), up(28.0, 29.0)]), yes(18, 28), "{from} to {until}");
    }
    // A run that made no observation is a failed one.
    assert!(matches!(around(vec![up(18.0, 19.0), run_of(vec![], 21.0, 22.0), up(28.0, 29.0)]), Err(Lapse::FailedBetween(_))));
    // So is one whose open outcome is not what its own check accepts.
    let mismatch = run_of(vec![authenticated(seen(WITNESS, &[Outcome::Mismatch], 18.0, 19.0))], 18.0, 19.0);
    assert!(matches!(around(vec![mismatch, up(28.0, 29.0)]), Err(Lapse::FailedBefore(_))));
}

#[test]
fn the_timeline_forgets_the_oldest_only() {
    let mut line = timeline((0..2000).map(|i| up(f64::from(i) - 3000.0, f64::from(i) - 2999.5)));
    line.push(up(18.0, 19.0));
    line.push(up(28.0, 29.0));
    assert!(line.around(&block(), WINDOW, &no_decoys()).is_ok());
    assert_eq!(line.newest().map(|r| r.started()), Some(at(28.0)));
}

#[test]
fn vantage_asks_for_the_same_family_and_source_and_no_proxy() {
    let witness = |to| authenticated(seen(to, &[Outcome::Connected], 18.0, 19.0));
    let elsewhere = "198.51.100.1:80";
    assert_eq!(shown_by(&witness(elsewhere), &block()), ["vantage"]);
    assert_eq!(shown_by(&witness("[2001:db8:1::1]:80"), &block()), [""; 0]);
    assert_eq!(shown_by(&from_source(witness(elsewhere), "10.0.0.6"), &block()), [""; 0]);
    let ours = from_source(block(), "10.0.0.6");
    assert_eq!(shown_by(&witness(elsewhere), &ours), [""; 0]);
    assert_eq!(shown_by(&from_source(witness(elsewhere), "10.0.0.6"), &ours), ["vantage"]);
    let mut through = witness(elsewhere);
    through.subject.via = true;
    assert_eq!(shown_by(&through, &block()), [""; 0]);
    // A name that does not exist has no family: either will do, but something must have left this host.
    let mut name = block();
    (name.subject.family, name.subject.dialled, name.subject.reached) = (None, None, None);
    assert_eq!(shown_by(&witness("[2001:db8:1::1]:80"), &name), ["vantage"]);
    let mut undialled = witness(elsewhere);
    undialled.subject.dialled = None;
    assert_eq!(shown_by(&undialled, &block()), [""; 0]);
}

#[test]
fn what_stays_on_this_host_vouches_for_nothing_outside() {
    let local = |to: &str| authenticated(seen(to, &[Outcome::Connected], 18.0, 19.0));
    assert_eq!(shown_by(&local("127.0.0.1:443"), &block()), [""; 0]);
    assert_eq!(shown_by(&local("10.0.0.5:443"), &block()), [""; 0], "one of this host's own addresses");
    let inside = seen("127.0.0.9:443", &[Outcome::Refused; 3], 20.0, 27.0);
    assert_eq!(shown_by(&local("127.0.0.1:443"), &inside), ["vantage", "port"]);
    assert_eq!(shown_by(&local("198.51.100.1:80"), &inside), ["vantage"], "who gets out gets to itself");
}

#[test]
fn port_asks_for_the_same_port_elsewhere() {
    let witness = |to| authenticated(seen(to, &[Outcome::Connected], 18.0, 19.0));
    assert_eq!(shown_by(&witness("198.51.100.1:443"), &block()), ["vantage", "port"]);
    assert_eq!(shown_by(&witness("198.51.100.1:444"), &block()), ["vantage"]);
    assert_eq!(shown_by(&witness(TARGET), &block()), ["vantage"], "the very address is not elsewhere");
    assert_eq!(shown_by(&witness("[2001:db8:1::1]:443"), &block()), [""; 0]);
    let mut through = witness("198.51.100.1:443");
    through.subject.via = true;
    assert_eq!(shown_by(&through, &block()), [""; 0]);
}

#[test]
fn target_asks_for_the_very_address_by_another_way() {
    let to_it = authenticated(seen(TARGET, &[Outcome::Connected], 18.0, 19.0));
    // Another source.
    assert_eq!(shown_by(&from_source(to_it.clone(), "10.0.0.6"), &block()), ["target"]);
    assert_eq!(shown_by(&to_it, &block()), ["vantage"], "the same source is no other way");
    let other_port = from_source(authenticated(seen("203.0.113.7:80", &[Outcome::Connected], 18.0, 19.0)), "10.0.0.6");
    assert_eq!(shown_by(&other_port, &block()), [""; 0]);
    let other_address = from_source(authenticated(seen("203.0.113.8:443", &[Outcome::Connected], 18.0, 19.0)), "10.0.0.6");
    assert_eq!(shown_by(&other_address, &block()), [""; 0]);
    // Bound in words, but the kernel used the same address: no other source.
    let mut same = to_it.clone();
    same.subject.source = "10.0.0.5".parse().ok();
    assert_eq!(shown_by(&same, &block()), [""; 0]);
    // Through a tunnel, to the very address and port.
    let tunnel = |to: &str| {
        let mut tunnel = authenticated(seen("10.0.9.9:3128", &[Outcome::Connected], 18.0, 19.0));
        (tunnel.subject.via, tunnel.subject.reached) = (true, to.parse().ok());
        tunnel
    };
    assert_eq!(shown_by(&tunnel(TARGET), &block()), ["target"]);
    assert_eq!(shown_by(&tunnel("203.0.113.8:443"), &block()), [""; 0]);
    assert_eq!(shown_by(&tunnel("203.0.113.7:80"), &block()), [""; 0]);
    assert_eq!(shown_by(&tunnel("a name"), &block()), [""; 0], "a proxy that resolves the name may go to another address");
}

fn peer(reached: &[&str], holding_since: Option<f64>, outcome: Outcome, from: f64, until: f64) -> Arc<WitnessRun> {
    let mut asked = authenticated(seen("198.51.100.3:9890", &[outcome], from, until));
    asked.evidence.peer = Some(PeerEvidence {
        check: "admin-open".into(),
        vantage: "office".into(),
        verdict: "holds".into(),
        age_seconds: 1.0,
        holding_since: holding_since.map(at),
        reached: reached.iter().map(|r| Reached { address: (*r).into(), transport: Transport::Tcp, asked: None }).collect(),
    });
    run_of(vec![asked], from, until)
}

#[test]
fn a_peer_shows_the_target_that_it_reached() {
    let both = |reached: &[&str]| {
        [peer(reached, Some(0.0), Outcome::QueryTrue, 18.0, 19.0), peer(reached, Some(0.0), Outcome::QueryTrue, 28.0, 29.0)]
    };
    assert_eq!(proofs(both(&[TARGET]), &block()), ["vantage", "target"]);
    assert_eq!(proofs(both(&["203.0.113.8:443", TARGET]), &block()), ["vantage", "target"]);
    assert_eq!(proofs(both(&["203.0.113.8:443"]), &block()), ["vantage"]);
    assert_eq!(proofs(both(&["203.0.113.7:80"]), &block()), ["vantage"]);
    assert_eq!(proofs(both(&["admin.example.com:443"]), &block()), ["vantage"]);
    let mut named = block();
    named.subject.named = Some("admin.example.com:443".into());
    assert_eq!(proofs(both(&["admin.example.com:443"]), &named), ["vantage", "target"]);
    assert_eq!(proofs(both(&["other.example.com:443"]), &named), ["vantage"]);
    // It must have been reached on both sides.
    let one_side =
        [peer(&[TARGET], Some(0.0), Outcome::QueryTrue, 18.0, 19.0), peer(&["203.0.113.8:443"], Some(0.0), Outcome::QueryTrue, 28.0, 29.0)];
    assert_eq!(proofs(one_side, &block()), ["vantage"]);
    let failed = [peer(&[TARGET], Some(0.0), Outcome::QueryTrue, 18.0, 19.0), peer(&[TARGET], Some(0.0), Outcome::QueryFalse, 28.0, 29.0)];
    assert!(matches!(around(failed, &block()), Err(Lapse::FailedAfter(_))));
}

#[test]
fn a_peer_that_wavered_since_the_observation_began_proves_nothing() {
    let since = |since| {
        around([peer(&[TARGET], None, Outcome::QueryTrue, 18.0, 19.0), peer(&[TARGET], since, Outcome::QueryTrue, 28.0, 29.0)], &block())
    };
    assert!(since(Some(20.0)).is_ok());
    assert_eq!(since(Some(20.001)), Err(Lapse::PeerWavered));
    assert_eq!(since(None), Err(Lapse::PeerWavered));
}

#[test]
fn a_run_that_says_nothing_about_a_question_is_skipped_and_one_that_says_no_is_not() {
    let v4 = |outcome, from, until| authenticated(seen("198.51.100.1:80", &[outcome], from, until));
    let v6 = |outcome, from, until| authenticated(seen("[2001:db8:1::1]:80", &[outcome], from, until));
    let (open, shut) = (Outcome::Connected, Outcome::Timeout);
    let good = |from, until| run_of(vec![v4(open, from, until), v6(open, from, until)], from, until);
    let after = || good(28.0, 29.0);
    // IPv6 only, twice nearer: it says nothing of IPv4, and the older run still counts.
    let silent = run_of(vec![v6(open, 18.0, 19.0)], 18.0, 19.0);
    assert_eq!(proofs([good(15.0, 16.0), silent.clone(), after()], &block()), ["vantage"]);
    assert_eq!(proofs([good(8.0, 9.0), silent, after()], &block()), [""; 0], "but not from outside the window");
    // IPv6 up and IPv4 down: the witness got through, and still does not show the way.
    let no = |from, until| run_of(vec![v4(shut, from, until), v6(open, from, until)], from, until);
    for runs in [
        [good(15.0, 16.0), no(18.0, 19.0), after()],
        [good(18.0, 19.0), no(22.0, 23.0), after()],
        [good(18.0, 19.0), no(19.5, 20.5), after()],
    ] {
        assert_eq!(around(runs, &block()).map(|p| p.proofs()), Ok(ProofSet::NONE));
    }
    assert_eq!(around([good(18.0, 19.0), no(28.0, 29.0), good(30.0, 31.0)], &block()).map(|p| p.proofs()), Ok(ProofSet::NONE));
    // Of two IPv4 addresses one is enough.
    let one_of_two = |from, until| run_of(vec![seen("198.51.100.2:80", &[shut; 3], from, until), v4(open, from, until)], from, until);
    assert_eq!(proofs([one_of_two(18.0, 19.0), one_of_two(28.0, 29.0)], &block()), ["vantage"]);
}

// ---------------------------------------------------------------------------------------------- SPEC 2.3, interception

const KEY: DecoyKey = DecoyKey { family: Family::V4, source: None, transport: Transport::Tcp, port: 443, asked: None };

fn decoys(runs: &[(bool, f64, f64)]) -> Decoys {
    let mut decoys = no_decoys();
    for (connected, from, until) in runs {
        decoys.push(DecoyRun { key: KEY, started: at(*from), ended: at(*until), connected: *connected });
    }
    decoys
}

#[test]
fn a_decoy_unmasks_what_is_near_of_its_key_and_not_authenticated() {
    // The observation lasts from 20 s to 21 s.
    let connected = || seen(TARGET, &[Outcome::Connected], 20.0, 21.0);
    let outcome = |decoys: &Decoys, seen: Observation| decoys.unmask(seen).outcome;
    let masked = decoys(&[(true, 22.0, 22.1)]);
    let unmasked = masked.unmask(connected());
    assert_eq!((unmasked.outcome, unmasked.evidence.intercepted), (Outcome::LocalError, true));
    assert_eq!(unmasked.evidence.before_decoy, Some(Outcome::Connected));
    assert_eq!(unmasked.attempts, [Outcome::LocalError]);
    // Near or not, both sides of each border.
    for (from, until, expected) in [
        (9.0, 10.0, Outcome::LocalError),
        (9.0, 9.999, Outcome::Connected),
        (31.0, 32.0, Outcome::LocalError),
        (31.001, 32.0, Outcome::Connected),
        (20.2, 20.4, Outcome::LocalError),
    ] {
        assert_eq!(outcome(&decoys(&[(true, from, until)]), connected()), expected, "decoy from {from} to {until}");
    }
    // One that connected outweighs any number that did not.
    assert_eq!(outcome(&decoys(&[(false, 19.0, 19.5), (true, 22.0, 22.1), (false, 23.0, 24.0)]), connected()), Outcome::LocalError);
    assert_eq!(outcome(&decoys(&[(false, 19.0, 19.5)]), connected()), Outcome::Connected);
    // Authenticated, elsewhere, or on this host: no decoy speaks of it.
    assert_eq!(outcome(&masked, authenticated(connected())), Outcome::Connected);
    assert_eq!(outcome(&masked, seen("203.0.113.7:444", &[Outcome::Connected], 20.0, 21.0)), Outcome::Connected);
    assert_eq!(outcome(&masked, seen("[2001:db8:7::7]:443", &[Outcome::Connected], 20.0, 21.0)), Outcome::Connected);
    assert_eq!(outcome(&masked, from_source(connected(), "10.0.0.6")), Outcome::Connected);
    assert_eq!(outcome(&masked, seen("127.0.0.1:443", &[Outcome::Connected], 20.0, 21.0)), Outcome::Connected);
    assert_eq!(outcome(&masked, seen("10.0.0.5:443", &[Outcome::Connected], 20.0, 21.0)), Outcome::Connected);
    // Nobody answered, so nobody answers for everybody.
    for silent in [Outcome::Refused, Outcome::Timeout, Outcome::Prohibited, Outcome::Unreachable, Outcome::LocalError] {
        assert_eq!(outcome(&masked, seen(TARGET, &[silent; 3], 20.0, 21.0)), silent);
    }
    // A denial above TCP can be the interceptor's too.
    for denial in [Outcome::Status(403), Outcome::Reset, Outcome::Closed, Outcome::TlsRefused, Outcome::Mute, Outcome::Denied] {
        assert_eq!(outcome(&masked, seen(TARGET, &[denial; 3], 20.0, 21.0)), Outcome::LocalError, "{denial}");
    }
}

#[test]
fn one_attempt_past_tcp_is_enough_to_be_unmasked() {
    for outcomes in [
        [Outcome::Reset, Outcome::Timeout, Outcome::Timeout],
        [Outcome::Timeout, Outcome::Timeout, Outcome::Reset],
        [Outcome::Refused, Outcome::Status(403), Outcome::Refused],
    ] {
        let observed = seen(TARGET, &outcomes, 20.0, 21.0);
        assert_eq!(Decoys::keys_for(&observed).collect::<Vec<_>>(), [KEY], "{outcomes:?}");
        let unmasked = decoys(&[(true, 22.0, 22.1)]).unmask(observed);
        assert_eq!(unmasked.attempts, [Outcome::LocalError; 3]);
        let blocked = one(&[Outcome::Reset, Outcome::Timeout, Outcome::Refused, Outcome::Status(403)]);
        let judged = judge(unmasked, Claim { expectation: &blocked, require: ProofSet::NONE, attempts: 3 }, vec![]);
        assert_eq!(came_to(&judged), ("unproven", Cause::Intercepted));
    }
}

#[test]
fn without_a_decoy_run_an_open_door_stays_open_and_a_denial_proves_nothing() {
    let none = no_decoys();
    assert_eq!(none.intercepted(&seen(TARGET, &[Outcome::Connected], 20.0, 21.0)), None);
    assert_eq!(none.unmask(seen(TARGET, &[Outcome::Connected], 20.0, 21.0)).outcome, Outcome::Connected);
    let denied = none.unmask(seen(TARGET, &[Outcome::Status(403); 3], 20.0, 21.0));
    assert_eq!((denied.outcome, denied.evidence.intercepted), (Outcome::LocalError, false));
    assert_eq!(none.unmask(block()).outcome, Outcome::Timeout);
    assert_eq!(none.unmask(authenticated(seen(TARGET, &[Outcome::Status(403); 3], 20.0, 21.0))).outcome, Outcome::Status(403));
}

#[test]
fn a_witness_that_is_not_authenticated_needs_its_decoy() {
    let plain = |from, until| run_of(vec![seen(WITNESS, &[Outcome::Connected], from, until)], from, until);
    let around = |decoys: &Decoys| timeline([plain(18.0, 19.0), plain(28.0, 29.0)]).around(&block(), WINDOW, decoys).is_ok();
    assert!(!around(&no_decoys()), "nobody knows who answered");
    assert!(around(&decoys(&[(false, 19.0, 20.0), (false, 29.0, 30.0)])));
    assert!(around(&decoys(&[(false, 23.0, 24.0)])), "near both");
    assert!(!around(&decoys(&[(true, 19.0, 20.0), (false, 29.0, 30.0)])));
    assert!(!around(&decoys(&[(false, 19.0, 20.0), (true, 29.0, 30.0)])));
    assert!(!around(&decoys(&[(false, 29.001, 30.0)])), "too far from the run before");
    assert!(!around(&decoys(&[(false, 17.0, 17.999)])), "too far from the run after");
}

#[test]
fn a_decoy_serves_from_its_start_on() {
    let decoys = decoys(&[(false, 20.0, 22.0)]);
    assert!(decoys.ran_since(&KEY, at(20.0)) && !decoys.ran_since(&KEY, at(20.001)));
    assert!(!decoys.ran_since(&DecoyKey { port: 80, ..KEY }, at(0.0)));
    assert!(!decoys.ran_since(&DecoyKey { family: Family::V6, ..KEY }, at(0.0)));
}

// ---------------------------------------------------------------------------------------------- SPEC 2.4, over time

#[test]
fn a_record_is_good_for_its_interval_a_bounded_grace_and_its_run() {
    assert_eq!(stale_after(secs(30.0), secs(20.0)), secs(80.0));
    assert_eq!(stale_after(secs(300.0), secs(20.0)), secs(620.0));
    assert_eq!(stale_after(secs(3600.0), secs(20.0)), secs(3920.0));
}

#[test]
fn when_read_both_sides_of_the_border() {
    let read = |verdict: &Verdict, inverted, now| when_read(verdict, inverted, at(0.0), secs(80.0), at(now));
    let (good, bad, unsure) = (holds(), Verdict::Violated(Cause::Open), Verdict::Unproven(Cause::Local));
    for inverted in [true, false] {
        for verdict in [&good, &bad, &unsure] {
            assert_eq!(&read(verdict, inverted, 80.0), verdict, "fresh");
        }
        assert_eq!(read(&good, inverted, 80.001), Verdict::Unproven(Cause::Stale));
        assert_eq!(read(&unsure, inverted, 80.001), Verdict::Unproven(Cause::Stale));
    }
    assert_eq!(read(&bad, true, 80.001), Verdict::Violated(Cause::Latched));
    assert_eq!(read(&bad, false, 80.001), Verdict::Unproven(Cause::Stale));
    assert_eq!(read(&Verdict::Violated(Cause::Latched), true, 1e6), Verdict::Violated(Cause::Latched));
}

#[test]
fn a_record_as_read() {
    let mut record = held("a");
    (record.began, record.about) = (at(0.0), Arc::new(about("a")));
    assert!(matches!(record.as_read(at(60.0)).verdict, Verdict::Holds(_)));
    let stale = record.as_read(at(60.001));
    assert_eq!((stale.verdict, stale.cause, stale.proofs), (Verdict::Unproven(Cause::Stale), Cause::Stale, ProofSet::NONE));
    assert!(stale.reason.contains("no run of a for 60 s"), "{}", stale.reason);
    let mut record = violated("a");
    record.began = at(0.0);
    assert_eq!(record.as_read(at(61.0)).cause, Cause::Latched);
    let pending = Record::pending(Arc::new(about("a")), at(0.0), wall(0));
    assert_eq!(pending.as_read(at(1e6)).cause, Cause::Pending);
}

#[test]
fn latch_cell_by_cell() {
    let unsure = Verdict::Unproven(Cause::WitnessFailed);
    let bad = Verdict::Violated(Cause::OtherDenial);
    assert_eq!(latch(true, true, unsure.clone()), Verdict::Violated(Cause::Latched));
    assert_eq!(latch(true, false, unsure.clone()), unsure);
    assert_eq!(latch(false, true, unsure.clone()), unsure);
    for was in [true, false] {
        for inverted in [true, false] {
            assert!(matches!(latch(was, inverted, holds()), Verdict::Holds(_)));
            assert_eq!(latch(was, inverted, bad.clone()), bad);
        }
    }
}

/// One run of one address, learnt at so many seconds.
fn learn(memory: &mut Memory, outcomes: &[Outcome], seconds: i64) -> (Verdict, usize) {
    let blocked = one(&[Outcome::Refused, Outcome::Timeout]);
    let observed = seen(TARGET, outcomes, 20.0, 27.0);
    let judged = [judge(observed, Claim { expectation: &blocked, require: ProofSet::NONE, attempts: 3 }, vec![])];
    let (verdict, changed) = memory.learn(&judged, fold(&judged, 1).verdict, true, wall(seconds), at(seconds as f64));
    (verdict, changed.len())
}

const REFUSED: [Outcome; 3] = [Outcome::Refused; 3];
const SILENT: [Outcome; 3] = [Outcome::Timeout; 3];
const LOCAL: [Outcome; 3] = [Outcome::LocalError; 3];
const OPEN: [Outcome; 1] = [Outcome::Connected];

#[test]
fn a_violation_stays_until_a_run_holds() {
    let mut memory = Memory::default();
    let mut tell = |outcomes: &[Outcome], seconds| learn(&mut memory, outcomes, seconds).0;
    assert_eq!(tell(&LOCAL, 0), Verdict::Unproven(Cause::Local));
    assert_eq!(tell(&OPEN, 1), Verdict::Violated(Cause::Open));
    assert_eq!(tell(&LOCAL, 2), Verdict::Violated(Cause::Latched));
    assert_eq!(tell(&LOCAL, 3), Verdict::Violated(Cause::Latched));
    assert!(matches!(tell(&REFUSED, 4), Verdict::Holds(_)));
    assert_eq!(tell(&LOCAL, 5), Verdict::Unproven(Cause::Local));
    // Another denial than the demanded latches as well.
    assert_eq!(tell(&[Outcome::Status(404); 3], 6), Verdict::Violated(Cause::OtherDenial));
    assert_eq!(tell(&LOCAL, 7), Verdict::Violated(Cause::Latched));
}

#[test]
fn a_positive_check_is_never_latched() {
    let mut memory = Memory::default();
    let open = one(&[Outcome::Connected]);
    let mut tell = |outcome| {
        let judged =
            [judge(seen(TARGET, &[outcome; 3], 20.0, 27.0), Claim { expectation: &open, require: ProofSet::NONE, attempts: 3 }, vec![])];
        memory.learn(&judged, fold(&judged, 1).verdict, false, wall(0), at(0.0)).0
    };
    assert_eq!(tell(Outcome::Refused), Verdict::Violated(Cause::NotOpen));
    assert_eq!(tell(Outcome::LocalError), Verdict::Unproven(Cause::Local));
    assert_eq!((memory.violated, memory.exposure, memory.lingers().count()), (false, Exposure::default(), 0));
}

#[test]
fn the_exposure_window_is_first_and_last_open_and_last_closed() {
    let mut memory = Memory::default();
    let mut after = |outcomes: &[Outcome], seconds| {
        learn(&mut memory, outcomes, seconds);
        let e = memory.exposure;
        let second = |w: Option<Wall>| w.map(|w| (w.unix_millis() - wall(0).unix_millis()) / 1000);
        (second(e.first_open), second(e.last_open), second(e.last_closed))
    };
    assert_eq!(after(&LOCAL, 0), (None, None, None));
    assert_eq!(after(&REFUSED, 1), (None, None, Some(1)));
    assert_eq!(after(&OPEN, 2), (Some(2), Some(2), Some(1)));
    assert_eq!(after(&LOCAL, 3), (Some(2), Some(2), Some(1)), "latched, but not seen open");
    assert_eq!(after(&OPEN, 4), (Some(2), Some(4), Some(1)), "one window: it never held in between");
    assert_eq!(after(&REFUSED, 5), (Some(2), Some(4), Some(5)));
    assert_eq!(after(&OPEN, 6), (Some(6), Some(6), Some(5)), "a new window");
}

#[test]
fn a_block_by_other_means_is_told_once() {
    let mut memory = Memory::default();
    let mut changed = |outcomes: &[Outcome]| learn(&mut memory, outcomes, 0).1;
    assert_eq!(changed(&SILENT), 0, "the first is no change");
    assert_eq!(changed(&SILENT), 0);
    assert_eq!(changed(&REFUSED), 1);
    assert_eq!(changed(&REFUSED), 0);
    assert_eq!(changed(&OPEN), 0, "no block");
    assert_eq!(changed(&LOCAL), 0, "no block either");
    assert_eq!(changed(&SILENT), 1, "against the last block");
}

#[test]
fn an_address_that_was_open_lingers_until_seen_closed_or_long_not_given() {
    let linger = secs(3600.0);
    let target: SocketAddr = TARGET.parse().unwrap();
    let lingering = |memory: &mut Memory, now| memory.lingering(linger, at(now));
    let mut memory = Memory::default();
    learn(&mut memory, &REFUSED, 0);
    assert!(lingering(&mut memory, 0.0).is_empty());
    learn(&mut memory, &OPEN, 1);
    assert_eq!(lingering(&mut memory, 3601.0), [target]);
    learn(&mut memory, &LOCAL, 2);
    assert_eq!(lingering(&mut memory, 3601.0), [target], "not seen closed");
    memory.given(&[target], at(100.0));
    assert_eq!(lingering(&mut memory, 3700.0), [target], "counted from when DNS last gave it");
    // Still open but no longer given: the clock is that of DNS.
    learn(&mut memory, &OPEN, 3000);
    assert_eq!(lingering(&mut memory, 3700.0), [target]);
    assert!(lingering(&mut memory, 3700.001).is_empty());
    assert!(lingering(&mut memory, 0.0).is_empty(), "and forgotten");
    learn(&mut memory, &OPEN, 1);
    learn(&mut memory, &REFUSED, 2);
    assert!(lingering(&mut memory, 3.0).is_empty(), "seen closed");
    // An address that was never open does not begin to linger by being given.
    memory.given(&[target], at(5.0));
    assert!(lingering(&mut memory, 6.0).is_empty());
}

#[test]
fn an_address_is_as_open_as_its_worst_technique() {
    let target: SocketAddr = "203.0.113.9:3128".parse().unwrap();
    let suite = proxy_blocked();
    let run = |outcomes: [Outcome; 2]| {
        let judge = |(outcome, id)| {
            judge(technique(&[outcome; 3], id), Claim { expectation: &suite, require: ProofSet::NONE, attempts: 3 }, vec![])
        };
        [(outcomes[0], "OP-01"), (outcomes[1], "OP-02")].map(judge)
    };
    for outcomes in [[Outcome::Relayed, Outcome::Denied], [Outcome::Denied, Outcome::Relayed]] {
        let mut memory = Memory::default();
        let mut learn = |outcomes| {
            let judged = run(outcomes);
            memory.learn(&judged, fold(&judged, 2).verdict, true, wall(0), at(0.0));
            memory.lingering(secs(60.0), at(0.0))
        };
        assert_eq!(learn(outcomes), [target], "{outcomes:?}");
        assert_eq!(learn([Outcome::Denied, Outcome::GatewayError]), [target], "not every technique was seen closed");
        assert_eq!(learn([Outcome::GatewayError, Outcome::Denied]), [target], "not every technique was seen closed");
        let [first, _] = run([Outcome::Denied, Outcome::Denied]);
        let cut = [first.cut_short()];
        assert_eq!(cut[0].verdict, Verdict::Unproven(Cause::Coverage));
        memory.learn(&cut, fold(&cut, usize::MAX).verdict, true, wall(0), at(0.0));
        assert_eq!(memory.lingering(secs(60.0), at(0.0)), [target], "the run was cut short before the other technique was tried");
        let closed = run([Outcome::Denied, Outcome::Denied]);
        memory.learn(&closed, fold(&closed, 2).verdict, true, wall(0), at(0.0));
        assert!(memory.lingering(secs(60.0), at(0.0)).is_empty());
    }
}

#[test]
fn a_page_that_was_open_at_another_port_lingers_at_the_targets_own() {
    let target: SocketAddr = TARGET.parse().unwrap();
    let claim = one(&[Outcome::Status(403)]);
    let plain = |marker| {
        let mut seen = variant(&[Outcome::Status(200); 3], marker);
        seen.subject.reached = Some(target);
        seen.subject.dialled = Some(SocketAddr::new(target.ip(), 80));
        judge(seen, Claim { expectation: &claim, require: ProofSet::NONE, attempts: 3 }, vec![])
    };
    let denied = || {
        let seen = seen(TARGET, &[Outcome::Status(403); 3], 20.0, 27.0);
        judge(seen, Claim { expectation: &claim, require: ProofSet::NONE, attempts: 3 }, vec![])
    };
    let mut memory = Memory::default();
    for (marker, lingering) in [(Marker::Found, vec![target]), (Marker::Cut, vec![target]), (Marker::Absent, vec![])] {
        let judged = [denied(), plain(marker)];
        memory.learn(&judged, fold(&judged, 2).verdict, true, wall(0), at(0.0));
        assert_eq!(memory.lingering(secs(60.0), at(0.0)), lingering, "{marker:?}");
    }
}

#[test]
fn what_a_restart_brings_back() {
    let target: SocketAddr = TARGET.parse().unwrap();
    let exposure = Exposure { first_open: Some(wall(1)), last_open: Some(wall(2)), last_closed: None };
    let mut memory = Memory::recalled(true, exposure, [(target, at(0.0))]);
    assert_eq!(memory.lingers().collect::<Vec<_>>(), [(target, at(0.0))]);
    assert_eq!(learn(&mut memory, &LOCAL, 3).0, Verdict::Violated(Cause::Latched));
    assert_eq!(memory.exposure, exposure);
    learn(&mut memory, &OPEN, 4);
    assert_eq!((memory.exposure.first_open, memory.exposure.last_open), (Some(wall(1)), Some(wall(4))));
}

// ---------------------------------------------------------------------------------------------- the board

fn began(mut record: Record, seconds: f64) -> Record {
    record.began = at(seconds);
    record
}

#[test]
fn the_board_before_during_and_after_a_run() {
    let board = Board::new(vec![Arc::new(about("a")), Arc::new(about("b"))]);
    let read = |now| board.read(at(now)).swap_remove(0);
    let pending = read(0.0);
    assert_eq!((pending.record.cause, pending.ran, pending.last_holds), (Cause::Pending, false, None));
    assert_eq!(board.read(at(1e6))[0].record.cause, Cause::Pending, "pending is not stale");
    board.announce(0, began(violated("a"), 1.0));
    let announced = read(2.0);
    assert_eq!((announced.record.cause, announced.ran), (Cause::Open, false), "a violation is shown before its run is done");
    assert_eq!(board.recent("a").map(|r| r.len()), Some(0), "but it is no record of its own");
    board.publish(0, began(held("a"), 3.0));
    let held_now = read(4.0);
    assert!(matches!(held_now.record.verdict, Verdict::Holds(_)) && held_now.fresh && held_now.ran);
    assert_eq!(held_now.last_holds, Some(wall(0)));
    assert!(!board.all_ran());
    let stale = read(63.001);
    assert_eq!((stale.record.cause, stale.fresh), (Cause::Stale, false));
    assert_eq!(read(63.0).record.cause, Cause::AsExpected);
    board.publish(1, began(unproven("b"), 3.0));
    assert!(board.all_ran());
    assert!(board.recent("c").is_none());
    board.publish(9, held("a"));
    assert_eq!(board.read(at(4.0)).len(), 2, "a number past the board is nobody's");
}

#[test]
fn what_did_not_hold_outlives_the_ring() {
    let board = Board::new(vec![Arc::new(about("a"))]);
    board.publish(0, began(violated("a"), 0.0));
    for second in 1..=100 {
        board.publish(0, began(held("a"), f64::from(second)));
    }
    let recent = board.recent("a").unwrap();
    assert_eq!(recent.len(), 33);
    assert_eq!(recent.first().map(|r| r.began), Some(at(100.0)), "the newest first");
    assert_eq!(recent.last().map(|r| (r.began, r.cause)), Some((at(0.0), Cause::Open)));
    for second in 101..=200 {
        board.publish(0, began(unproven("a"), f64::from(second)));
    }
    let recent = board.recent("a").unwrap();
    assert_eq!(recent.len(), 32, "bounded, and none twice");
    assert!(recent.windows(2).all(|w| w[0].began > w[1].began));
}

// ---------------------------------------------------------------------------------------------- the schedule

#[test]
fn every_beat_is_later_than_now_and_no_farther_than_an_interval() {
    for name in ["a", "internet", "admin-closed", "not-an-open-proxy"] {
        let interval = secs(30.0);
        let schedule = Schedule::new(name, interval, at(0.0));
        assert_eq!(schedule.next(None, at(5.0)), at(0.0), "the first is at once, late or not");
        let mut last = at(0.0);
        for took in [0.1, 29.9, 30.0, 31.0, 0.0, 95.0, 7.0] {
            let now = last + secs(took);
            let next = schedule.next(Some(last), now);
            assert!(next > now && next.since(now) <= interval, "{name} after {took} s");
            assert_eq!(schedule.next(Some(next), next).since(next), interval, "{name} keeps its beat");
            last = next;
        }
    }
    assert_ne!(
        Schedule::new("a", secs(30.0), at(0.0)).next(Some(at(0.0)), at(1.0)),
        Schedule::new("b", secs(30.0), at(0.0)).next(Some(at(0.0)), at(1.0))
    );
}

// ---------------------------------------------------------------------------------------------- a restart

struct Deaf;

impl mustnot::engine::Listener for Deaf {
    fn finished(&self, _: &Record) {}
    fn witness(&self, _: &str, _: &str, _: bool) {}
    fn looking(&self, _: i64) {}
    fn lag(&self, _: Duration) {}
}

#[test]
fn a_restart_does_not_resolve_a_violation() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, expect: &str| {
        format!("[[check]]\nname = \"{name}\"\nkind = \"tcp\"\ntarget = \"{TARGET}\"\nexpect = \"{expect}\"\nwitness = []\nrequire = []\n")
    };
    let text = format!(
        "vantage = \"here\"\nstate_dir = \"state\"\n{}{}{}",
        check("was-open", "blocked"),
        check("was-shut", "blocked"),
        check("positive", "open")
    );
    let file = folder.path().join("probes.toml");
    std::fs::write(&file, text).unwrap();
    let kept = |violated| serde_json::json!({ "violated": violated, "first_open_ms": 1000, "last_open_ms": 2000, "last_closed_ms": null, "lingering": {} });
    let state = serde_json::json!({
        (format!("was-open {TARGET}")): kept(true), (format!("was-shut {TARGET}")): kept(false), (format!("positive {TARGET}")): kept(true),
    });
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state/state.json"), state.to_string()).unwrap();

    let plan = Arc::new(mustnot::plan::load(&file, mustnot::plan::Keys::Read).unwrap().plan);
    let board = Arc::new(Board::new(mustnot::engine::Engine::about(&plan)));
    let state = mustnot::state::State::open(plan.state_dir.as_deref().unwrap()).unwrap();
    let _engine = mustnot::engine::Engine::new(plan, Arc::clone(&board), Arc::new(Deaf), Some(state));
    let read = |after| board.read(Moment::now() + secs(after)).into_iter().map(|r| (r.record.cause, r.ran)).collect::<Vec<_>>();
    for after in [0.0, 1e6] {
        assert_eq!(read(after), [(Cause::Latched, false), (Cause::Pending, false), (Cause::Pending, false)]);
    }
    let record = Arc::clone(&board.read(Moment::now())[0].record);
    assert_eq!(record.verdict, Verdict::Violated(Cause::Latched));
    assert_eq!(record.exposure.last_open, Wall::from_unix_millis(2000));
}

#[test]
fn what_was_shown_of_another_claim_under_the_same_name_is_not_shown_of_this_one() {
    let plan = |expect: &str, timeout: &str| {
        let text = format!(
            "vantage = \"here\"\n[[check]]\nname = \"shut\"\nkind = \"tcp\"\ntarget = \"{TARGET}\"\nexpect = {expect}\ntimeout = \"{timeout}\"\nwitness = []\nrequire = []\n"
        );
        let keys = mustnot::plan::Keys::Read;
        Arc::new(mustnot::plan::from_text("f", &text, std::path::Path::new("."), &|_| None, keys).unwrap().plan)
    };
    for (expect, timeout, cause) in
        [("\"blocked\"", "8s", Cause::AsExpected), ("[\"refused\"]", "8s", Cause::Pending), ("\"open\"", "8s", Cause::Pending)]
    {
        let old = plan("\"blocked\"", "9s");
        let board = Arc::new(Board::new(mustnot::engine::Engine::about(&old)));
        let engine = mustnot::engine::Engine::new(old, Arc::clone(&board), Arc::new(Deaf), None);
        board.publish(0, Record { began: Moment::now(), ..held("shut") });
        let _next = engine.followed_by(plan(expect, timeout));
        assert_eq!(board.read(Moment::now())[0].record.cause, cause, "{expect}");
    }
}

#[test]
fn a_check_claims_the_same_only_where_every_key_of_its_kind_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let certificate = || rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let (one, other) = (certificate(), certificate());
    for (name, text) in [("ca.pem", one.cert.pem()), ("own.pem", one.cert.pem()), ("own.key", one.signing_key.serialize_pem())] {
        write(name, &text);
    }
    write("password", "one");
    write("beacon.key", &"a".repeat(64));
    let check = |lines: &str| {
        let text = format!(
            "vantage = \"here\"\n[beacon]\nkey_file = \"beacon.key\"\n[[check]]\nname = \"same\"\n{}\n[[check]]\nname = \"w\"\nkind = \"tcp\"\ntarget = \"192.0.2.9:443\"\nexpect = \"open\"\n",
            lines.replace("; ", "\n")
        );
        let plan = mustnot::plan::from_text("f", &text, folder.path(), &|_| None, mustnot::plan::Keys::Read);
        let plan = plan.unwrap_or_else(|e| panic!("{text}\n{e:?}")).plan;
        plan.checks.into_iter().find(|check| check.name == "same").unwrap()
    };
    let shut = "expect = \"blocked\"; witness = []; require = []";
    let tls = [
        "server_name = \"b.example\"",
        "ca_file = \"ca.pem\"",
        "alpn = [\"http/1.1\"]",
        "min_version = \"1.3\"",
        "max_version = \"1.2\"",
        "client_cert_file = \"own.pem\"; client_key_file = \"own.key\"",
    ];
    write("ranges.json", "[\"203.0.113.0/24\"]");
    let web = |more: &[&'static str]| [&tls[..], more].concat();
    let login = "user = \"u\"; password_file = \"password\"";
    let kinds = [
        (
            "kind = \"tcp\"; target = \"a.example:443\"; SHUT",
            vec!["families = [\"ipv4\"]", "resolver = \"192.0.2.53:53\"", "source = \"127.0.0.1\""],
        ),
        ("kind = \"tls\"; target = \"a.example:443\"; SHUT", web(&["client_certs = [\"none\"]", "max_version = \"1.1\""])),
        ("kind = \"tls\"; target = \"a.example:443\"; SHUT; client_certs = [\"none\", \"self-signed\"]", web(&[])[..5].to_vec()),
        ("kind = \"tls\"; target = \"a.example:443\"; expect = \"open\"", vec!["certificate_sha256 = \"SHA\""]),
        (
            "kind = \"http\"; target = \"https://a.example/x\"; SHUT",
            web(&[
                "method = \"POST\"",
                "headers = { X-A = \"1\" }",
                "body_contains = \"x\"",
                "deny_location = [\"https://sso.example/\"]",
                "via = \"http://192.0.2.7:3128\"",
                "client_certs = [\"none\"]",
            ]),
        ),
        (
            "kind = \"http\"; target = \"http://a.example/x\"; SHUT; via = \"http://192.0.2.7:3128\"",
            vec!["via_user = \"u\"; via_password_file = \"password\""],
        ),
        ("kind = \"http\"; target = \"http://a.example/x\"; SHUT; headers = { X-A = \"2\" }", vec!["http_version = \"2\""]),
        (
            "kind = \"http\"; target = \"http://a.example/x\"; expect = \"open\"",
            vec![
                "follow_redirects = true",
                "via = \"http://192.0.2.7:3128\"",
                "via = \"http://192.0.2.7:3128\"; via_method = \"absolute\"",
            ],
        ),
        ("kind = \"udp\"; target = \"192.0.2.7:53\"; expect = \"open\"", vec!["payload = \"ntp\"", "payload = \"hex:00\""]),
        (
            "kind = \"dns\"; target = \"a.example\"; expect = \"open\"",
            vec!["server = \"192.0.2.53:53\"", "record = \"AAAA\"", "answers = [\"192.0.2.7\"]"],
        ),
        ("kind = \"ports\"; target = \"192.0.2.7\"; ports = \"1-100\"; SHUT", vec!["except = 5", "open = 6", "rate = 7"]),
        (
            "kind = \"egress-ip\"; target = \"http://b.example:443/\"; expect = { ip = [\"203.0.113.10\"] }",
            vec!["via = \"http://192.0.2.7:3128\""],
        ),
        ("kind = \"peer\"; target = \"https://b.example/\"; check = \"c\"; expect = \"open\"", web(&["max_age = \"30s\"", login])),
        ("kind = \"promql\"; target = \"https://b.example/\"; query = \"up\"; expect = \"open\"", web(&["max_age = \"30s\"", login])),
        (
            "kind = \"ranges\"; target = \"https://b.example/\"; expected = \"ranges.json\"; pointer = \"/*/a\"; expect = \"open\"",
            web(&[
                "where = { b = \"c\" }",
                "only = \"ipv4\"",
                "besides = \"198.51.100.7\"",
                "expected_pointer = \"/0\"",
                "headers = { X-A = \"1\" }",
            ]),
        ),
        (
            "kind = \"open-proxy\"; target = \"a.example:3128\"; beacon = [\"http://b.example:443/\"]; SHUT",
            vec!["techniques = [\"OP-01\"]", "spoof = [\"203.0.113.10\"]", "allowed_destination = \"c.example:443\""],
        ),
    ];
    for (base, keys) in &kinds {
        let base = base.replace("SHUT", shut);
        let old = check(&base);
        assert!(old.claims_the_same(&check(&format!("{base}; description = \"said otherwise\"; severity = \"info\""))), "{base}");
        let mut others: Vec<_> =
            keys.iter().map(|key| (*key, check(&format!("{base}; {}", key.replace("SHA", &"ab".repeat(32)))))).collect();
        others.push(("", old));
        for (at, (key, one)) in others.iter().enumerate() {
            for (other_key, other) in &others[at + 1..] {
                assert!(!one.claims_the_same(other) && !other.claims_the_same(one), "{base}: {key:?} and {other_key:?}");
            }
        }
    }
    // The values of keys that must be there, a query for instance, and what is in a file that is named.
    let pairs = [
        ("kind = \"promql\"; target = \"https://b.example/\"; query = \"up\"; expect = \"open\"", "\"up\"", "\"down\""),
        ("kind = \"peer\"; target = \"https://b.example/\"; check = \"c\"; expect = \"open\"", "\"c\"", "\"d\""),
        ("kind = \"ranges\"; target = \"file:a\"; expected = [\"192.0.2.7\"]; expect = \"open\"", "192.0.2.7", "192.0.2.8"),
        ("kind = \"ranges\"; target = \"file:a\"; expected = [\"192.0.2.7\"]; expect = \"open\"", "file:a", "file:b"),
        ("kind = \"http\"; target = \"http://a.example/x\"; expect = \"open\"; headers = { X-A = \"2\" }", "\"2\"", "\"3\""),
        ("kind = \"ports\"; target = \"192.0.2.7\"; ports = 1; expect = \"blocked\"; witness = [\"w\"]", "ports = 1", "ports = 2"),
        (
            "kind = \"open-proxy\"; target = \"a.example:3128\"; beacon = [\"http://b.example:443/\"]; expect = \"blocked\"; witness = [\"w\"]",
            "b.example",
            "c.example",
        ),
    ];
    for (base, from, to) in pairs {
        assert!(!check(base).claims_the_same(&check(&base.replace(from, to))), "{base}: {from} and {to}");
    }
    let files = [
        ("kind = \"tls\"; target = \"a.example:443\"; expect = \"open\"; ca_file = \"ca.pem\"", "ca.pem", other.cert.pem()),
        (
            "kind = \"peer\"; target = \"http://b.example/\"; check = \"c\"; expect = \"open\"; user = \"u\"; password_file = \"password\"",
            "password",
            "two".into(),
        ),
        ("kind = \"egress-ip\"; target = \"http://b.example:443/\"; expect = { ip = [\"203.0.113.10\"] }", "beacon.key", "b".repeat(64)),
    ];
    for (base, file, text) in files {
        let old = check(base);
        assert!(old.claims_the_same(&check(base)), "{base}");
        write(file, &text);
        assert!(!old.claims_the_same(&check(base)), "{base}: another {file}");
    }
}

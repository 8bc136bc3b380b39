//! Alerts: from what the board says to what is opened, repeated and resolved; and what waits for a sink that does not take it. Tables with
//! both sides of every border, by clocks that are turned by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mustnot::alert::heart::{DEAF_AFTER, LOOKED_WITHIN, beats};
use mustnot::alert::ledger::{Ledger, Note};
use mustnot::alert::outbox::{LONGEST_ASKED, LONGEST_PAUSE, MAX_WAITING, Message, Next, Outbox, REFUSED_PAUSE};
use mustnot::alert::scene::{Places, Roll, Scene};
use mustnot::alert::sink::{Only, Rules};
use mustnot::alert::{Alert, Key, Name};
use mustnot::clock::{Moment, Wall};
use mustnot::exception::Exception;
use mustnot::history::Reading;
use mustnot::metrics::{Drill, Program};
use mustnot::record::{About, Record};
use mustnot::severity::Severity;
use mustnot::verdict::{Cause, Verdict};

use crate::fixture;

const MINUTE: u64 = 60;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn moment(seconds: u64) -> Moment {
    Moment::after_boot(secs(100_000 + seconds))
}

fn wall(seconds: u64) -> Wall {
    fixture::wall(i64::try_from(seconds).unwrap())
}

fn rules() -> Rules {
    Rules {
        min_severity: Severity::Info,
        only: Vec::new(),
        unproven_for: secs(15 * MINUTE),
        stale_for: secs(2 * MINUTE),
        keep_firing_for: secs(5 * MINUTE),
        repeat_interval: secs(60 * MINUTE),
    }
}

fn reading(record: Record) -> Reading {
    Reading { about: Arc::clone(&record.about), record: Arc::new(record), fresh: true, ran: true, last_holds: None }
}

/// One sink, and what it looks at.
struct World {
    readings: Vec<Reading>,
    breaches: Vec<Arc<Record>>,
    program: Program,
    roll: Roll,
    ledger: Ledger,
    rules: Rules,
}

impl World {
    fn of(record: Record) -> World {
        World {
            readings: vec![reading(record)],
            breaches: Vec::new(),
            program: Program::default(),
            roll: Roll::default(),
            ledger: Ledger::default(),
            rules: rules(),
        }
    }

    fn now_is(&mut self, record: Record) -> &mut World {
        self.readings = vec![reading(record)];
        self
    }

    fn notes(&mut self, at: u64) -> Vec<Note> {
        let breaches = std::mem::take(&mut self.breaches);
        self.roll.call(&self.readings, &self.program, moment(at));
        let scene = Scene {
            vantage: "internet",
            now: moment(at),
            wall: wall(at),
            readings: &self.readings,
            places: &Places::of(&self.readings),
            breaches: &breaches,
            program: &self.program,
            roll: &self.roll,
        };
        self.ledger.look(&scene, &scene.conditions(), &self.rules)
    }

    /// What is told at a look, in short.
    fn look(&mut self, at: u64) -> Vec<String> {
        let short = |note: &Note| {
            let what = match (note.repeated, note.alert.ends_at) {
                (true, _) => "repeated",
                (false, None) => "opened",
                (false, Some(_)) => "resolved",
            };
            format!("{what} {}", note.alert.key.label("alertname").trim_start_matches("Mustnot"))
        };
        self.notes(at).iter().map(short).collect()
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_violation_is_told_at_once_repeated_and_resolved_by_a_run_that_holds() {
    let mut world = World::of(fixture::held("a"));
    assert_eq!(world.look(0), NOTHING);
    world.now_is(fixture::violated("a"));
    assert_eq!(world.look(1), ["opened Violated"]);
    assert_eq!(world.look(2), NOTHING);
    assert_eq!(world.look(60 * MINUTE), NOTHING);
    assert_eq!(world.look(60 * MINUTE + 1), ["repeated Violated"]);
    // the latch is the board's; nothing but a run that holds ends it
    world.now_is(fixture::unproven("a"));
    assert_eq!(world.look(61 * MINUTE), NOTHING);
    assert_eq!(world.look(70 * MINUTE), NOTHING);
    world.now_is(fixture::held("a"));
    assert_eq!(world.look(71 * MINUTE), NOTHING);
    assert_eq!(world.look(76 * MINUTE - 1), NOTHING);
    let notes = world.notes(76 * MINUTE);
    let [Note { alert, repeated: false }] = notes.as_slice() else { panic!("{notes:?}") };
    assert_eq!((alert.starts_at, alert.ends_at), (wall(1), Some(wall(76 * MINUTE))));
    assert!(alert.said("resolved").ends_with("holds: 203.0.113.7:443 refused every attempt."), "{}", alert.said("resolved"));
    assert_eq!(world.look(77 * MINUTE), NOTHING);
}

#[test]
fn what_comes_and_goes_is_told_once() {
    let mut world = World::of(fixture::violated("a"));
    assert_eq!(world.look(0), ["opened Violated"]);
    for at in 1..20 {
        world.now_is(if at % 2 == 0 { fixture::violated("a") } else { fixture::held("a") });
        assert_eq!(world.look(at * 4 * MINUTE), if at == 15 { vec!["repeated Violated"] } else { vec![] }, "{at}");
    }
    world.rules.keep_firing_for = Duration::ZERO;
    world.rules.repeat_interval = secs(100 * 60 * MINUTE);
    for at in 1..20 {
        let holds = at % 2 == 1;
        world.now_is(if holds { fixture::held("a") } else { fixture::violated("a") });
        // a violation is never damped
        assert_eq!(world.look((100 + at) * MINUTE), if holds { ["resolved Violated"] } else { ["opened Violated"] }, "{at}");
    }
}

#[test]
fn what_was_violated_and_is_over_before_anybody_looks_is_told() {
    let mut world = World::of(fixture::held("a"));
    world.rules.keep_firing_for = Duration::ZERO;
    assert_eq!(world.look(0), NOTHING);
    world.breaches = vec![Arc::new(fixture::violated("a"))];
    assert_eq!(world.look(1), ["opened Violated", "resolved Violated"]);
    world.breaches = vec![Arc::new(fixture::violated("gone"))];
    assert_eq!(world.look(2), ["opened Violated", "resolved Violated"], "also where the check went with it");
    world.now_is(fixture::violated("a"));
    world.breaches = vec![Arc::new(fixture::violated("a"))];
    assert_eq!(world.look(3), ["opened Violated"], "and once");
}

#[test]
fn what_nobody_knows_is_told_when_it_lasts() {
    let mut world = World::of(fixture::unproven("a"));
    assert_eq!(world.look(0), NOTHING);
    assert_eq!(world.look(15 * MINUTE - 1), NOTHING);
    assert_eq!(world.look(15 * MINUTE), ["opened Unproven"]);
    world.now_is(fixture::violated("a"));
    assert_eq!(world.look(16 * MINUTE), ["opened Violated"]);
    world.now_is(fixture::unproven("a"));
    assert_eq!(world.look(17 * MINUTE), NOTHING, "it came back before it was over for long");
    world.now_is(fixture::held("a"));
    assert_eq!(world.look(18 * MINUTE), NOTHING);
    assert_eq!(world.look(23 * MINUTE), ["resolved Unproven", "resolved Violated"]);

    let mut world = World::of(fixture::unproven("a"));
    assert_eq!(world.look(0), NOTHING);
    world.now_is(fixture::held("a"));
    assert_eq!(world.look(14 * MINUTE), NOTHING);
    world.now_is(fixture::unproven("a"));
    assert_eq!(world.look(15 * MINUTE), NOTHING, "one that holds begins it anew");
    assert_eq!(world.look(30 * MINUTE - 1), NOTHING);
    assert_eq!(world.look(30 * MINUTE), ["opened Unproven"]);
}

#[test]
fn what_nobody_looks_at_is_told() {
    let stale = |record: Record| Reading { fresh: false, ..reading(record) };
    let mut record = fixture::unproven("a");
    (record.verdict, record.cause) = (Verdict::Unproven(Cause::Stale), Cause::Stale);
    let mut world = World::of(fixture::held("a"));
    world.readings = vec![stale(record)];
    assert_eq!(world.look(0), NOTHING);
    assert_eq!(world.look(2 * MINUTE - 1), NOTHING);
    assert_eq!(world.look(2 * MINUTE), ["opened Stale"]);
    assert_eq!(world.look(15 * MINUTE), ["opened Unproven"]);
    // a latched one is stale, and still violated
    world.readings = vec![stale(fixture::violated("a"))];
    assert_eq!(world.look(16 * MINUTE), ["opened Violated"]);
    // what never ran is pending, and nothing else
    let pending = Record::pending(Arc::new(fixture::about("a")), moment(0), wall(0));
    let mut world = World::of(fixture::held("a"));
    world.readings = vec![Reading { ran: false, ..stale(pending) }];
    assert_eq!(world.look(0), NOTHING);
    assert_eq!(world.look(15 * MINUTE), ["opened Unproven"]);
}

#[test]
fn a_check_that_is_taken_away_resolves_with_a_word_and_is_missed() {
    let mut world = World::of(fixture::violated("a"));
    assert_eq!(world.look(0), ["opened Violated"]);
    world.now_is(fixture::held("b"));
    let notes = world.notes(1);
    let [Note { alert, .. }] = notes.as_slice() else { panic!("{notes:?}") };
    assert!(alert.ends_at.is_some());
    assert_eq!(
        alert.said("resolved"),
        "the check a of admin.example.com:443 was taken out of the configuration of internet; that says nothing of whether anything was mended"
    );
    assert_eq!(world.look(5 * MINUTE), NOTHING);
    assert_eq!(world.look(5 * MINUTE + 1), ["opened CheckGone"]);
    assert_eq!(world.look(60 * MINUTE), NOTHING);
    world.rules.repeat_interval = secs(10 * 60 * MINUTE);
    let gone = world.notes(60 * MINUTE + 1);
    assert!(gone[0].alert.said("resolved").contains("no longer missed"), "{gone:?}");

    let mut world = World::of(fixture::held("a"));
    assert_eq!(world.look(0), NOTHING);
    world.now_is(fixture::held("b"));
    assert_eq!(world.look(1), NOTHING);
    world.readings.push(reading(fixture::held("a")));
    assert_eq!(world.look(6 * MINUTE + 1), NOTHING, "it is back");
}

/// Of a check that stays, targets come and go; one that was violated is missed, since its alert ends with it.
#[test]
fn a_target_that_was_violated_and_is_taken_away_is_missed() {
    let of = |target: &str, record: Record| {
        let about = About { target: target.into(), ..(*record.about).clone() };
        reading(Record { about: Arc::new(about), ..record })
    };
    let stays = || of("stays:443", fixture::held("a"));
    let mut world = World::of(fixture::held("x"));
    world.rules.repeat_interval = secs(100 * 60 * MINUTE);
    world.readings =
        vec![stays(), of("shut:443", fixture::violated("a")), of("open:443", fixture::violated("a")), of("fine:443", fixture::held("a"))];
    assert_eq!(world.look(0), ["opened Violated", "opened Violated"]);
    world.readings[1] = of("shut:443", fixture::held("a"));
    assert_eq!(world.look(10), NOTHING);
    // a restart in between forgets nothing
    let kept = serde_json::to_string(&world.roll.kept(moment(10), wall(10))).unwrap();
    world.roll = Roll::recalled(serde_json::from_str(&kept).unwrap(), moment(10), wall(10));
    world.readings = vec![stays()];
    assert_eq!(world.look(20), ["resolved Violated", "resolved Violated"], "with a word");
    assert_eq!(world.look(5 * MINUTE + 19), NOTHING);
    let notes = world.notes(5 * MINUTE + 20);
    let [Note { alert, repeated: false }] = notes.as_slice() else { panic!("{notes:?}") };
    assert_eq!((alert.key.label("alertname"), alert.key.label("check"), alert.key.label("target")), ("MustnotTargetGone", "a", "open:443"));
    assert_eq!(alert.said("summary"), "a: open:443 was violated, and is no longer among its targets at internet.");
    assert_eq!(world.look(60 * MINUTE + 10), NOTHING);
    let notes = world.notes(60 * MINUTE + 11);
    assert!(notes[0].alert.said("resolved").contains("is no longer missed"), "{notes:?}");
    // one that comes back is there
    world.readings = vec![stays(), of("open:443", fixture::violated("a"))];
    assert_eq!(world.look(70 * MINUTE), ["opened Violated"]);
    world.readings = vec![stays()];
    assert_eq!(world.look(70 * MINUTE + 1), ["resolved Violated"]);
    assert_eq!(world.look(75 * MINUTE + 1), ["opened TargetGone"]);
    world.readings = vec![stays(), of("open:443", fixture::violated("a"))];
    assert_eq!(world.look(76 * MINUTE), ["opened Violated"]);
    assert_eq!(world.look(81 * MINUTE), ["resolved TargetGone"]);
}

#[test]
fn another_severity_is_another_alert() {
    let mut world = World::of(fixture::violated("a"));
    assert_eq!(world.look(0), ["opened Violated"]);
    let record = fixture::violated("a");
    let about = About { severity: Severity::Info, ..(*record.about).clone() };
    world.now_is(Record { about: Arc::new(about), ..record });
    let notes = world.notes(1);
    let [opened, resolved] = notes.as_slice() else { panic!("{notes:?}") };
    assert_eq!((opened.alert.key.severity(), opened.alert.ends_at), (Severity::Info, None));
    assert_eq!(resolved.alert.key.severity(), Severity::Critical);
    assert!(resolved.alert.said("resolved").contains("goes on by other labels"), "{resolved:?}");
}

/// Somebody answers for it: it is told all the same, as another alert, and by whom and until when; when that is over, anew.
#[test]
fn what_is_excepted_says_so_and_is_told_anew_when_that_is_over() {
    let excepted = |record: Record| {
        let until = wall(60 * MINUTE).to_string().parse().unwrap();
        let (reason, owner) = ("the old host moves".to_string(), "alice".to_string());
        let exception = Exception { check: "a".into(), target: None, reason, owner, until, position: (1, 1) };
        let about = About { exception: Some(Arc::new(exception)), ..(*record.about).clone() };
        Record { about: Arc::new(about), ..record }
    };
    let mut world = World::of(excepted(fixture::violated("a")));
    world.rules.repeat_interval = secs(10 * 60 * MINUTE);
    let notes = world.notes(0);
    let [Note { alert, .. }] = notes.as_slice() else { panic!("{notes:?}") };
    assert_eq!((alert.key.label("excepted"), alert.key.severity()), ("true", Severity::Critical));
    assert!(
        alert.said("exception").starts_with("by alice until 2026-") && alert.said("exception").ends_with(": the old host moves"),
        "{alert:?}"
    );
    assert!(alert.said("description").contains("It is excepted by alice until 2026-"), "{}", alert.said("description"));
    assert_eq!(world.look(60 * MINUTE - 1), NOTHING);
    let notes = world.notes(60 * MINUTE);
    let [opened, over, resolved] = notes.as_slice() else { panic!("{notes:?}") };
    assert_eq!((opened.alert.key.label("excepted"), opened.alert.key.label("alertname")), ("false", "MustnotViolated"));
    assert_eq!((over.alert.key.label("alertname"), over.alert.key.label("owner")), ("MustnotExceptionExpired", "alice"));
    assert!(resolved.alert.ends_at.is_some() && resolved.alert.key.label("excepted") == "true");
    assert!(resolved.alert.said("resolved").contains("goes on by other labels"), "{resolved:?}");
    world.now_is(fixture::violated("a"));
    assert_eq!(world.look(61 * MINUTE), NOTHING);
    assert_eq!(world.look(66 * MINUTE), ["resolved ExceptionExpired"]);
}

#[test]
fn what_is_not_wanted_is_not_told_and_what_is_not_wanted_any_more_ends() {
    let mut world = World::of(fixture::violated("a"));
    world.rules.only = vec![Only::Check("b".into())];
    assert_eq!(world.look(0), NOTHING);
    world.rules.only = Vec::new();
    assert_eq!(world.look(1), ["opened Violated"]);
    world.rules.only = vec![Only::Check("b".into())];
    let notes = world.notes(2);
    assert!(notes[0].alert.said("resolved").contains("no longer told here"), "{notes:?}");
    assert_eq!(world.look(3), NOTHING);
    world.rules.only = vec![Only::Check("a".into())];
    world.rules.min_severity = Severity::Critical;
    world.program.reload_failed = true;
    assert_eq!(world.look(4), ["opened Violated"]);
    assert_eq!(world.look(10 * MINUTE), NOTHING, "a warning of the monitor itself goes elsewhere");
}

#[test]
fn a_restart_opens_nothing_anew_and_forgets_nothing() {
    let mut world = World::of(fixture::violated("a"));
    assert_eq!(world.look(0), ["opened Violated"]);
    let kept = serde_json::to_string(&world.ledger.kept(moment(30 * MINUTE), wall(30 * MINUTE))).unwrap();
    // the machine has booted since: its clock of moments is another one
    let mut after = World::of(fixture::violated("a"));
    after.ledger = Ledger::recalled(serde_json::from_str(&kept).unwrap(), moment(1), wall(40 * MINUTE));
    let shift = |world: &mut World, at: u64, wall_at: u64| {
        world.roll.call(&world.readings, &world.program, moment(at));
        let scene = Scene {
            vantage: "internet",
            now: moment(at),
            wall: wall(wall_at),
            readings: &world.readings,
            places: &Places::of(&world.readings),
            breaches: &[],
            program: &world.program,
            roll: &world.roll,
        };
        world.ledger.look(&scene, &scene.conditions(), &world.rules)
    };
    assert_eq!(shift(&mut after, 1, 40 * MINUTE), []);
    assert_eq!(shift(&mut after, 20 * MINUTE, 60 * MINUTE - 1), []);
    assert!(shift(&mut after, 20 * MINUTE + 1, 60 * MINUTE)[0].repeated, "an hour after it was told last");
    after.now_is(fixture::held("a"));
    assert_eq!(shift(&mut after, 21 * MINUTE, 61 * MINUTE), []);
    let over = shift(&mut after, 26 * MINUTE, 66 * MINUTE);
    assert_eq!((over[0].alert.starts_at, over[0].alert.ends_at), (wall(0), Some(wall(66 * MINUTE))));
}

#[test]
fn the_monitor_itself_both_sides_of_every_border() {
    let drill = |saw: Option<bool>, last: Option<u64>| {
        BTreeMap::from([("tcp", Drill { interval: Some(secs(3600)), saw, last_success: last.map(wall), detection: None })])
    };
    let none = Program::default;
    let now = 100_000;
    let started = Some(wall(now));
    let witness = |up: bool| BTreeMap::from([("internet".to_string(), up)]);
    let contradicted = |at: u64| BTreeMap::from([(("internet".to_string(), "admin.example.com:443".to_string()), wall(at))]);
    let fds = |used: f64| Program { fd_used: Some(used), fd_limit: Some(1000.0), ..none() };
    let cases: Vec<(&str, u64, Program, Program)> = vec![
        ("WitnessDown", 5, Program { witnesses: witness(false), ..none() }, Program { witnesses: witness(true), ..none() }),
        (
            "DrillFailed",
            0,
            Program { drills: drill(Some(false), Some(now)), ..none() },
            Program { drills: drill(Some(true), Some(now)), ..none() },
        ),
        ("ReloadFailed", 2, Program { reload_failed: true, ..none() }, none()),
        (
            "AlertsFailing",
            10,
            Program { sinks: BTreeMap::from([("chat".into(), Some(moment(0)))]), ..none() },
            Program { sinks: BTreeMap::from([("chat".into(), None)]), ..none() },
        ),
        (
            "Contradicted",
            5,
            Program { contradicted: contradicted(now + 5 * MINUTE - 30 * MINUTE + 1), ..none() },
            Program { contradicted: contradicted(now + 60 * MINUTE - 10 - 30 * MINUTE), ..none() },
        ),
        ("DescriptorsLow", 2, fds(901.0), fds(900.0)),
        ("EgressBudgetSpent", 0, Program { budget_ratio: Some(1.01), ..none() }, Program { budget_ratio: Some(1.0), ..none() }),
        ("ProxyDraining", 5, Program { draining: true, ..none() }, none()),
    ];
    for (name, minutes, bad, good) in cases {
        let mut world = World::of(fixture::held("internet"));
        world.program = Program { started, ..bad };
        let opened = [format!("opened {name}")];
        if minutes > 0 {
            assert_eq!(world.look(now), NOTHING, "{name}");
            assert_eq!(world.look(now + minutes * MINUTE - 1), NOTHING, "{name}");
        }
        assert_eq!(world.look(now + minutes * MINUTE), opened, "{name}");
        world.program = Program { started, ..good };
        assert_eq!(world.look(now + 60 * MINUTE - 10), NOTHING, "{name}");
        assert_eq!(world.look(now + 65 * MINUTE - 10), [format!("resolved {name}")], "{name}");
    }

    // overdue: since the last success, or since the start, for more than two intervals and five minutes
    for (last, started) in [(Some(0), None), (None, Some(wall(0)))] {
        let mut world = World::of(fixture::held("a"));
        world.program = Program { drills: drill(Some(true), last), started, ..none() };
        assert_eq!(world.look(7200), NOTHING);
        assert_eq!(world.look(7201), NOTHING);
        assert_eq!(world.look(7200 + 5 * MINUTE), NOTHING);
        assert_eq!(world.look(7201 + 5 * MINUTE), ["opened DrillOverdue"]);
    }

    // full: for five minutes, no five of which were without a refusal
    let mut world = World::of(fixture::held("a"));
    assert_eq!(world.look(0), NOTHING);
    world.program.turned_away = 1.0;
    assert_eq!(world.look(1), NOTHING);
    assert_eq!(world.look(5 * MINUTE), NOTHING);
    world.program.turned_away = 2.0;
    assert_eq!(world.look(5 * MINUTE + 1), ["opened ProxyFull"]);
    assert_eq!(world.look(10 * MINUTE), NOTHING);
    assert_eq!(world.look(10 * MINUTE + 1), NOTHING, "over from here");
    assert_eq!(world.look(15 * MINUTE + 1), ["resolved ProxyFull"]);

    // a certificate: fourteen days before its end
    let mut record = fixture::held("a");
    record.observations[0].evidence.certificate_expires = Some(wall(14 * 24 * 3600).unix_millis() / 1000);
    let mut world = World::of(record);
    // its end is a whole second, and the clock of these tests is not
    assert_eq!(world.look(0), NOTHING);
    assert_eq!(world.look(1), NOTHING);
    assert_eq!(world.look(15 * MINUTE), NOTHING);
    assert_eq!(world.look(1 + 15 * MINUTE), ["opened CertificateExpiresSoon"]);
}

/// The rules for Prometheus, as far as they can be held against an alert.
struct Rule {
    lasts: u64,
    severity: String,
    summary: String,
    runbook: String,
    /// The names of the labels that it sets.
    labels: Vec<String>,
}

fn name_of(line: &str) -> String {
    line.trim().split(':').next().unwrap_or_default().to_string()
}

fn rule(name: Name) -> Rule {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/prometheus/alerts.yaml")).unwrap();
    let block = text.split("      - alert: ").find(|block| block.lines().next() == Some(name.token())).unwrap().to_string();
    let field = |key: &str| block.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{key}: "))).unwrap_or("0m").to_string();
    Rule {
        lasts: field("for").trim_end_matches('m').parse().unwrap(),
        severity: field("severity").trim_matches('\'').to_string(),
        summary: field("summary").trim_matches('\'').to_string(),
        runbook: field("runbook_url"),
        labels: block
            .lines()
            .skip_while(|line| line.trim() != "labels:")
            .skip(1)
            .take_while(|line| line.trim() != "annotations:")
            .map(name_of)
            .collect(),
    }
}

/// What stands in braces, filled in from the labels; `value` is what the expression gives.
fn filled(template: &str, alert: &Alert, value: &str) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{ ") {
        let (inside, after) = after.split_once(" }}").unwrap();
        text += before;
        match inside.strip_prefix("$labels.") {
            // our own alert is of this process, and there is no other
            Some("instance") => {}
            Some(label) => text += alert.key.label(label),
            None => text += value,
        }
        rest = after;
    }
    (text + rest).trim_start_matches(" at ").to_string()
}

/// Both ways lead to the same alert: same name, same `for`, same severity, the same first sentence, and the same page to read.
#[test]
fn every_alert_is_as_the_rules_of_prometheus_have_it() {
    let mut certificate = fixture::held("c");
    certificate.observations[0].evidence.certificate_expires = Some(wall(0).unix_millis() / 1000 + 3 * 86_400 + 7200);
    let stale = Reading { fresh: false, ..reading(fixture::violated("s")) };
    let expired = Exception {
        check: "e".into(),
        target: None,
        reason: "the old host moves".into(),
        owner: "alice".into(),
        until: "2025-12-31T18:00:00Z".parse().unwrap(),
        position: (1, 1),
    };
    let expired = About { exception: Some(Arc::new(expired)), ..fixture::about("e") };
    let expired = Record { about: Arc::new(expired), ..fixture::held("e") };
    let drilled = |saw, last| Drill { interval: Some(secs(60)), saw, last_success: last, detection: None };
    let program = Program {
        witnesses: BTreeMap::from([("w".into(), false)]),
        drills: BTreeMap::from([
            ("tcp", drilled(Some(false), Some(wall(0)))),
            ("dns", drilled(Some(true), Some(wall(0).before(secs(9000))))),
        ]),
        started: Some(wall(0)),
        reload_failed: true,
        sinks: BTreeMap::from([("chat".into(), Some(moment(0)))]),
        contradicted: BTreeMap::from([(("u".into(), "admin.example.com:443".into()), wall(0))]),
        fd_used: Some(95.0),
        fd_limit: Some(100.0),
        budget_ratio: Some(1.25),
        draining: true,
        ..Program::default()
    };
    let mut world = World::of(fixture::held("gone"));
    world.rules.unproven_for = Name::Unproven.lasts();
    let taken_away = fixture::violated("v");
    let about = About { target: "taken-away:443".into(), severity: Severity::Info, ..(*taken_away.about).clone() };
    world.readings.push(reading(Record { about: Arc::new(about), ..taken_away }));
    world.rules.min_severity = Severity::Warning;
    world.look(0);
    world.rules.min_severity = Severity::Info;
    world.readings = vec![reading(fixture::violated("v")), reading(fixture::unproven("u")), stale, reading(certificate), reading(expired)];
    world.program = Program { turned_away: 1.0, ..program };
    let mut opened: BTreeMap<String, Alert> = BTreeMap::new();
    for minute in 0..=16 {
        world.program.turned_away += 1.0;
        // what is overdue is so from the start, what ends soon does not end meanwhile
        let notes = world.notes(1 + minute * MINUTE);
        for Note { alert, .. } in notes {
            let name = alert.key.label("alertname").to_string();
            let rule = rule(Name::ALL.into_iter().find(|n| n.token() == name).unwrap());
            if let std::collections::btree_map::Entry::Vacant(entry) = opened.entry(name.clone()) {
                assert_eq!(minute, rule.lasts, "{name} is told after its `for`");
                entry.insert(alert);
            }
        }
    }
    assert_eq!(opened.len(), Name::ALL.len(), "{:?}", opened.keys());
    for name in Name::ALL {
        let (alert, rule) = (&opened[name.token()], rule(name));
        assert_eq!(name.lasts(), secs(rule.lasts * MINUTE), "{name:?}");
        let severity = match rule.severity.as_str() {
            "{{ $labels.severity }}" => "critical",
            r#"{{ if eq $labels.severity "info" }}info{{ else }}warning{{ end }}"# => "warning",
            plain => plain,
        };
        assert_eq!(alert.key.label("severity"), severity, "{name:?}");
        let value = match name {
            Name::CertificateExpiresSoon => "3d 1h 44m",
            Name::DrillOverdue => "2 hours",
            Name::ExceptionExpired => "2025-12-31T18:00:00.000Z",
            Name::DescriptorsLow => "95%",
            Name::EgressBudgetSpent => "125%",
            _ => "",
        };
        assert_eq!(alert.said("summary"), filled(&rule.summary, alert, value), "{name:?}");
        assert_eq!(alert.said("runbook_url"), rule.runbook);
        assert!(
            alert.said("description").len() > 80 && alert.said("description").ends_with('.'),
            "{name:?}: {}",
            alert.said("description")
        );
        assert_eq!(alert.key.label("vantage"), "internet");
        assert!(rule.labels.contains(&"severity".to_string()), "{name:?}");
        assert!(rule.labels.iter().all(|label| !alert.key.label(label).is_empty()), "{name:?}: {:?}", rule.labels);
    }
    // and what Prometheus cannot know
    let said = opened["MustnotViolated"].said("description");
    for part in [
        "203.0.113.7:443 accepted a TCP connection",
        "First seen open 2026-",
        "last seen closed 2026-",
        "nc -vz 203.0.113.7 443",
        "close it",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let labels: Vec<&str> = opened["MustnotViolated"].key.labels().keys().map(String::as_str).collect();
    assert_eq!(labels, ["alertname", "check", "excepted", "kind", "severity", "target", "vantage", "verdict"]);
}

// ---- what waits ----------------------------------------------------------------------------------------------------------------

fn alert(name: Name, severity: Severity, check: &str) -> Alert {
    Alert { key: Key::new(name, severity, &[("check", check)]), annotations: BTreeMap::new(), starts_at: wall(0), ends_at: None }
}

fn opened(check: &str) -> Note {
    Note { alert: alert(Name::Violated, Severity::Critical, check), repeated: false }
}

fn doubted(check: &str) -> Note {
    Note { alert: alert(Name::Unproven, Severity::Warning, check), repeated: false }
}

fn repeated(note: Note) -> Note {
    Note { repeated: true, ..note }
}

fn resolved(note: Note) -> Note {
    Note { alert: Alert { ends_at: Some(wall(9)), ..note.alert }, repeated: false }
}

fn sent(outbox: &mut Outbox, at: u64) -> Vec<Message> {
    match outbox.next(moment(at), 1) {
        Next::Send(messages) => messages,
        other => panic!("{other:?}"),
    }
}

fn short(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|m| format!("{} {} {}", m.alert.key.label("alertname"), m.alert.key.label("check"), m.alert.status())).collect()
}

/// Everything that is sent to a place that takes all.
fn drained(outbox: &mut Outbox, at: u64) -> Vec<String> {
    let mut all = Vec::new();
    while let Next::Send(messages) = outbox.next(moment(at), 64) {
        all.extend(short(&messages));
        outbox.taken(&messages, Duration::ZERO, moment(0));
    }
    assert!(outbox.is_empty());
    all
}

#[test]
fn the_most_important_is_told_first() {
    let mut outbox = Outbox::default();
    outbox.put(repeated(opened("r")), moment(0));
    outbox.put(doubted("u"), moment(0));
    outbox.put(opened("a"), moment(0));
    outbox.put(resolved(opened("x")), moment(0));
    outbox.put(Note { alert: alert(Name::Violated, Severity::Info, "i"), repeated: false }, moment(0));
    let expected = [
        "MustnotViolated a firing",
        "MustnotViolated i firing",
        "MustnotUnproven u firing",
        "MustnotViolated x resolved",
        "MustnotViolated r firing",
    ];
    assert_eq!(drained(&mut outbox, 0), expected);
}

#[test]
fn one_message_an_alert_however_often_it_turns_and_no_violation_is_lost() {
    let mut outbox = Outbox::default();
    for _ in 0..1000 {
        outbox.put(opened("a"), moment(0));
        outbox.put(resolved(opened("a")), moment(0));
        outbox.put(doubted("b"), moment(0));
        outbox.put(resolved(doubted("b")), moment(0));
    }
    assert_eq!(outbox.len(), 2);
    // of what nobody heard the end needs no telling, save of a violation
    assert_eq!(drained(&mut outbox, 0), ["MustnotViolated a firing", "MustnotViolated a resolved"]);

    // once it was tried it may have arrived, so its end is told
    outbox.put(doubted("b"), moment(1));
    let way = sent(&mut outbox, 1);
    outbox.put(resolved(doubted("b")), moment(1));
    outbox.failed(&way, None, moment(1), 0.0);
    assert_eq!(drained(&mut outbox, 100), ["MustnotUnproven b firing", "MustnotUnproven b resolved"]);

    // a repetition that was not taken gives way to the end
    outbox.put(repeated(doubted("b")), moment(1));
    outbox.put(resolved(doubted("b")), moment(1));
    assert_eq!(drained(&mut outbox, 100), ["MustnotUnproven b resolved"]);

    // it is so again: the end on its way must not be the last word
    outbox.put(resolved(opened("a")), moment(200));
    let way = sent(&mut outbox, 200);
    outbox.put(opened("a"), moment(200));
    outbox.failed(&way, None, moment(200), 0.0);
    assert_eq!(drained(&mut outbox, 300), ["MustnotViolated a firing"]);
    outbox.put(resolved(opened("a")), moment(400));
    let way = sent(&mut outbox, 400);
    outbox.put(opened("a"), moment(400));
    outbox.taken(&way, Duration::ZERO, moment(0));
    assert_eq!(drained(&mut outbox, 400), ["MustnotViolated a firing"]);

    // and the other way round: over, while that it is so is on its way
    outbox.put(opened("a"), moment(500));
    let way = sent(&mut outbox, 500);
    outbox.put(resolved(opened("a")), moment(500));
    assert_eq!(outbox.next(moment(500), 1), Next::Idle, "one after the other");
    outbox.taken(&way, Duration::ZERO, moment(0));
    assert_eq!(drained(&mut outbox, 500), ["MustnotViolated a resolved"]);
}

/// An Alertmanager waits for what belongs together before it tells anybody; what is over by then it does not tell at all.
#[test]
fn who_hears_late_that_it_was_so_hears_later_that_it_is_over() {
    let mut outbox = Outbox::default();
    outbox.put(opened("a"), moment(0));
    outbox.put(resolved(opened("a")), moment(0));
    let way = sent(&mut outbox, 10);
    outbox.taken(&way, secs(300), moment(10));
    assert_eq!(outbox.next(moment(10), 1), Next::Wait(secs(300)));
    assert_eq!(outbox.next(moment(309), 1), Next::Wait(secs(1)));
    assert_eq!(short(&sent(&mut outbox, 310)), ["MustnotViolated a resolved"]);
    // who was told before is told at once
    let mut outbox = Outbox::default();
    outbox.put(repeated(opened("a")), moment(0));
    let way = sent(&mut outbox, 0);
    outbox.put(resolved(opened("a")), moment(0));
    outbox.taken(&way, secs(300), moment(0));
    assert_eq!(short(&sent(&mut outbox, 0)), ["MustnotViolated a resolved"]);
}

#[test]
fn a_place_that_does_not_answer_is_tried_again_for_as_long_as_it_takes() {
    let mut outbox = Outbox::default();
    outbox.put(doubted("a"), moment(0));
    let mut at = 0;
    let mut pauses = Vec::new();
    for _ in 0..100 {
        let way = sent(&mut outbox, at);
        outbox.failed(&way, None, moment(at), 0.0);
        let Next::Wait(pause) = outbox.next(moment(at), 1) else { panic!() };
        pauses.push(pause.as_secs());
        assert!(matches!(outbox.next(moment(at + pause.as_secs() - 1), 1), Next::Wait(_)));
        at += pause.as_secs();
    }
    assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
    assert!(pauses[8..].iter().all(|pause| secs(*pause) == LONGEST_PAUSE));
    // by chance up to a half less
    let way = sent(&mut outbox, at);
    outbox.failed(&way, None, moment(at), 1.0);
    assert_eq!(outbox.next(moment(at), 1), Next::Wait(LONGEST_PAUSE / 2));
    // what is new and urgent does not wait for the rest of the pause, and not for nothing
    outbox.put(doubted("c"), moment(at));
    assert_eq!(outbox.next(moment(at), 1), Next::Wait(LONGEST_PAUSE / 2));
    outbox.put(opened("b"), moment(at));
    assert_eq!(outbox.next(moment(at), 1), Next::Wait(secs(1)));
    assert_eq!(short(&sent(&mut outbox, at + 1)), ["MustnotViolated b firing"]);
}

#[test]
fn who_asks_to_wait_is_waited_for() {
    let mut outbox = Outbox::default();
    outbox.put(opened("a"), moment(0));
    let way = sent(&mut outbox, 0);
    outbox.failed(&way, Some(secs(120)), moment(0), 0.0);
    outbox.put(opened("b"), moment(1));
    assert_eq!(outbox.next(moment(1), 1), Next::Wait(secs(119)), "also with what is urgent: it would be turned away");
    let way = sent(&mut outbox, 120);
    outbox.failed(&way, Some(secs(1_000_000)), moment(120), 0.0);
    assert_eq!(outbox.next(moment(120), 1), Next::Wait(LONGEST_ASKED), "within reason");
    outbox.failed(&[], Some(Duration::ZERO), moment(200), 0.0);
    assert_eq!(outbox.next(moment(200), 1), Next::Wait(secs(4)), "and never without a pause");
}

#[test]
fn what_is_refused_waits_for_long_and_holds_up_no_other() {
    let mut outbox = Outbox::default();
    outbox.put(opened("bad"), moment(0));
    let way = sent(&mut outbox, 0);
    outbox.put(doubted("good"), moment(0));
    outbox.refused(&way, moment(0), 0.5);
    let way = sent(&mut outbox, 0);
    assert_eq!(short(&way), ["MustnotUnproven good firing"]);
    outbox.taken(&way, Duration::ZERO, moment(0));
    assert_eq!(outbox.next(moment(0), 1), Next::Wait(REFUSED_PAUSE));
    outbox.put(repeated(opened("bad")), moment(60));
    assert_eq!(outbox.next(moment(60), 1), Next::Wait(REFUSED_PAUSE - secs(60)), "the same again is refused again");
    assert_eq!(outbox.breach_since(), Some(moment(0)), "nobody was told yet, whatever it is called");
    assert_eq!(short(&sent(&mut outbox, 600)), ["MustnotViolated bad firing"]);
}

#[test]
fn who_refuses_one_after_the_other_is_asked_slower_and_slower() {
    let mut outbox = Outbox::default();
    for n in 0..1000 {
        outbox.put(doubted(&format!("u{n:03}")), moment(0));
    }
    let mut at = 0;
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let way = sent(&mut outbox, at);
        outbox.refused(&way, moment(at), 0.0);
        let pause = match outbox.next(moment(at), 1) {
            Next::Wait(pause) => pause.as_secs(),
            Next::Send(way) => {
                outbox.refused(&way, moment(at), 0.0);
                0
            }
            Next::Idle => panic!(),
        };
        pauses.push(pause);
        at += pause.max(1);
    }
    assert_eq!(pauses[..3], [0, 2, 4], "the second at once");
    assert_eq!(pauses.last(), Some(&LONGEST_PAUSE.as_secs()));
    // what is urgent and new is tried all the same, and one that is taken ends it
    outbox.put(opened("a"), moment(at));
    let way = sent(&mut outbox, at);
    assert_eq!(short(&way), ["MustnotViolated a firing"]);
    outbox.taken(&way, Duration::ZERO, moment(at));
    let way = sent(&mut outbox, at);
    outbox.refused(&way, moment(at), 0.0);
    assert!(matches!(outbox.next(moment(at), 1), Next::Send(_)));
}

/// A place that hangs holds a try for as long as its time-out: a violation that comes in meanwhile has not had one.
#[test]
fn a_violation_that_comes_in_during_a_try_waits_for_no_long_pause() {
    let mut outbox = Outbox::default();
    outbox.put(opened("old"), moment(0));
    let mut at = 0;
    for _ in 0..10 {
        let way = sent(&mut outbox, at);
        outbox.failed(&way, None, moment(at), 0.0);
        let Next::Wait(pause) = outbox.next(moment(at), 1) else { panic!() };
        at += pause.as_secs();
    }
    let way = sent(&mut outbox, at);
    outbox.put(opened("new"), moment(at));
    outbox.failed(&way, None, moment(at + 10), 0.0);
    assert_eq!(outbox.next(moment(at + 10), 2), Next::Wait(secs(1)));
    // and once: after that it is as patient as with all others
    let Next::Send(way) = outbox.next(moment(at + 11), 2) else { panic!() };
    assert_eq!(short(&way), ["MustnotViolated old firing", "MustnotViolated new firing"]);
    outbox.failed(&way, None, moment(at + 21), 0.0);
    assert_eq!(outbox.next(moment(at + 21), 2), Next::Wait(LONGEST_PAUSE));
    let way = sent(&mut outbox, at + 100);
    outbox.put(doubted("u"), moment(at + 100));
    outbox.failed(&way, None, moment(at + 110), 0.0);
    assert_eq!(outbox.next(moment(at + 110), 2), Next::Wait(LONGEST_PAUSE), "nothing else is in a hurry");
}

/// What is told again while the first time is on its way may have arrived by then, so that its end is told.
#[test]
fn the_end_of_what_is_on_its_way_is_told_whatever_came_in_meanwhile() {
    let mut outbox = Outbox::default();
    outbox.put(doubted("a"), moment(0));
    let way = sent(&mut outbox, 0);
    outbox.put(repeated(doubted("a")), moment(1));
    outbox.put(resolved(doubted("a")), moment(2));
    outbox.taken(&way, Duration::ZERO, moment(3));
    assert_eq!(drained(&mut outbox, 3), ["MustnotUnproven a firing", "MustnotUnproven a resolved"]);
}

#[test]
fn who_tells_another_place_takes_over_what_the_one_before_has_not_taken() {
    let mut before = Outbox::default();
    before.put(opened("a"), moment(0));
    before.put(resolved(opened("a")), moment(1));
    before.put(doubted("b"), moment(1));
    let mut here = Outbox::default();
    here.put(opened("c"), moment(2));
    here.put(doubted("b"), moment(2));
    here.take_over(before.kept(moment(2), wall(2)), moment(2), wall(2));
    assert_eq!((here.len(), here.opens(&opened("a").alert.key), here.opens(&opened("x").alert.key)), (4, true, false));
    let expected = ["MustnotViolated c firing", "MustnotViolated a firing", "MustnotUnproven b firing", "MustnotViolated a resolved"];
    assert_eq!(drained(&mut here, 3), expected);
}

/// The end is near: what was refused or waits for an answer is tried a last time, and what would undo an alert of a moment ago is not.
#[test]
fn at_the_end_all_is_tried_but_what_must_come_later() {
    let mut outbox = Outbox::default();
    outbox.put(opened("refused"), moment(0));
    let way = sent(&mut outbox, 0);
    outbox.refused(&way, moment(0), 0.0);
    assert!(outbox.only_later());
    outbox.put(opened("late"), moment(0));
    outbox.put(resolved(opened("late")), moment(0));
    assert!(!outbox.only_later());
    let way = sent(&mut outbox, 1);
    outbox.taken(&way, secs(300), moment(1));
    assert!(outbox.only_later());
    outbox.hurry();
    assert!(!outbox.only_later());
    let way = sent(&mut outbox, 2);
    assert_eq!(short(&way), ["MustnotViolated refused firing"]);
    outbox.taken(&way, Duration::ZERO, moment(2));
    assert_eq!(outbox.next(moment(2), 1), Next::Wait(secs(299)));
    assert!(outbox.only_later());
    // nor does a restart bring the end nearer
    let kept = outbox.kept(moment(2), wall(2));
    let mut after = Outbox::recalled(kept.clone(), moment(50), wall(12));
    assert_eq!(after.next(moment(50), 1), Next::Wait(secs(289)));
    let mut turned_back = Outbox::recalled(kept, moment(50), wall(2).before(secs(86_400)));
    assert_eq!(turned_back.next(moment(50), 1), Next::Wait(REFUSED_PAUSE), "however the clock was turned");
}

#[test]
fn a_full_outbox_gives_up_what_matters_least_and_never_a_violation() {
    let mut outbox = Outbox::default();
    let mut given_up = 0;
    for n in 0..MAX_WAITING {
        outbox.put(repeated(doubted(&format!("r{n}"))), moment(0));
        given_up += outbox.make_room();
    }
    assert_eq!((outbox.len(), given_up), (MAX_WAITING, 0));
    for n in 0..MAX_WAITING + 10 {
        outbox.put(opened(&format!("v{n}")), moment(2));
        outbox.put(resolved(opened(&format!("v{n}"))), moment(2));
    }
    assert_eq!(outbox.make_room(), 0, "violations and their ends take no other's place");
    for (n, note) in [doubted("u"), resolved(doubted("x")), doubted("w"), resolved(doubted("y"))].into_iter().enumerate() {
        outbox.put(note, moment(3));
        assert_eq!(outbox.make_room(), 1, "{n}");
    }
    let all = drained(&mut outbox, 4);
    assert_eq!(all.len(), 2 * (MAX_WAITING + 10) + MAX_WAITING);
    for state in ["firing", "resolved"] {
        assert_eq!(all.iter().filter(|m| m.starts_with("MustnotViolated v") && m.ends_with(state)).count(), MAX_WAITING + 10);
    }
    let others = ["MustnotUnproven u firing", "MustnotUnproven w firing", "MustnotUnproven x resolved", "MustnotUnproven y resolved"];
    assert!(others.iter().all(|other| all.iter().any(|m| m == other)), "repetitions go first");
    // and of those that are left, what is over, then what is least severe
    let mut outbox = Outbox::default();
    outbox.put(Note { alert: alert(Name::Unproven, Severity::Info, "i"), repeated: false }, moment(0));
    outbox.put(resolved(doubted("x")), moment(0));
    for n in 1..MAX_WAITING {
        outbox.put(doubted(&format!("u{n}")), moment(0));
    }
    assert_eq!(outbox.make_room(), 1);
    outbox.put(doubted("last"), moment(0));
    assert_eq!(outbox.make_room(), 1);
    let all = drained(&mut outbox, 1);
    assert_eq!(all.len(), MAX_WAITING);
    assert!(!all.iter().any(|m| m.ends_with("resolved") || m == "MustnotUnproven i firing"), "{all:?}");
}

#[test]
fn what_waits_survives_a_restart() {
    let mut outbox = Outbox::default();
    outbox.put(opened("a"), moment(0));
    outbox.put(doubted("b"), moment(0));
    let way = sent(&mut outbox, 0);
    outbox.put(resolved(opened("a")), moment(1));
    let kept = serde_json::to_string(&outbox.kept(moment(1), wall(1))).unwrap();
    let mut after = Outbox::recalled(serde_json::from_str(&kept).unwrap(), moment(5), wall(5));
    assert_eq!(drained(&mut after, 5), ["MustnotViolated a firing", "MustnotUnproven b firing", "MustnotViolated a resolved"]);
    outbox.taken(&way, Duration::ZERO, moment(0));
    let mut after = Outbox::recalled(outbox.kept(moment(1), wall(1)), moment(5), wall(5));
    assert_eq!(drained(&mut after, 5), ["MustnotUnproven b firing", "MustnotViolated a resolved"]);
}

// ---- the heart -----------------------------------------------------------------------------------------------------------------

#[test]
fn the_heart_beats_only_while_all_is_looked_at_and_somebody_hears() {
    let fresh = || reading(fixture::violated("a"));
    let stale = || Reading { fresh: false, ..reading(fixture::held("b")) };
    let now = moment(10_000);
    assert_eq!(beats(&[fresh()], now - LOOKED_WITHIN, [], now), Ok(()), "what is found is not what is asked");
    assert_eq!(beats(&[], now, [], now), Err("there is no check".into()));
    assert_eq!(beats(&[fresh(), stale()], now, [], now), Err("1 of 2 checks are stale, b among them".into()));
    assert_eq!(beats(&[fresh()], now, [("pager", now - DEAF_AFTER)], now), Ok(()));
    let unseen = beats(&[fresh()], now - LOOKED_WITHIN - secs(1), [], now);
    assert_eq!(unseen, Err("nobody has looked for what is to be told for 61 s".into()));
    let deaf = beats(&[fresh()], now, [("pager", now - DEAF_AFTER - secs(1))], now);
    assert_eq!(deaf, Err("pager has not taken a violation for 901 s".into()));
}

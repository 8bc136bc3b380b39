//! What does a scrape of ten thousand checks cost? `/metrics` as text, as OpenMetrics and with gzip, beside the `prometheus` crate with the same
//! series in vectors of its own, the crate's writer alone, and a bare loop that writes lines which are ready; in turns, in one process.
//!
//! ```text
//! cargo bench --bench scrape            eleven rounds of 10,000 and of 100 checks
//! cargo bench --bench scrape -- 31 2000 31 rounds, of 2000 checks instead of 10,000
//! ```
//!
//! Time is the processor's, of the one thread that does it (CLOCK_THREAD_CPUTIME_ID), so that other work on the machine counts little.
//! One check in ten goes by a proxy, one in ten is its direct way, one in fifty tries an open proxy's techniques.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a measurement that is broken must stop")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use mustnot::clock::{Moment, Wall};
use mustnot::history::Board;
use mustnot::metrics::{Metrics, openmetrics};
use mustnot::observation::{Evidence, Outcome, Stage};
use mustnot::probe::Technique;
use mustnot::record::{About, Exposure, Record, Seen};
use mustnot::severity::Severity;
use mustnot::verdict::{Cause, Verdict};
use mustnot::witness::ProofSet;
use nix::time::{ClockId, clock_gettime};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{CounterVec, GaugeVec, Opts, Registry, TextEncoder};

const FEW: usize = 100;

/// Gives the length of what it wrote.
type Scrape<'a> = Box<dyn Fn() -> usize + 'a>;

fn main() {
    // `cargo bench` passes `--bench`; what is left is ours
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let number = |at: usize, otherwise: usize| {
        arguments.get(at).map_or(otherwise, |n| n.parse().unwrap_or_else(|_| panic!("{n}: write rounds, and how many checks")))
    };
    measure(number(0, 11), number(1, 10_000));
}

fn about(at: usize) -> About {
    let kind = match at % 50 {
        0 => "open-proxy",
        n if n % 5 == 1 => "http",
        _ => "tcp",
    };
    // the direct way and the way by the proxy have one target
    let host = if kind == "http" { at / 10 } else { at };
    About {
        name: format!("check-{at}"),
        kind,
        target: format!("https://host-{host}.example.com:8443/"),
        expect: "blocked".into(),
        severity: Severity::Critical,
        runbook: None,
        description: None,
        labels: BTreeMap::from([("team".to_string(), format!("team-{}", at % 20))]),
        tags: Vec::new(),
        inverted: true,
        stale_after: Duration::from_secs(3600),
        origin: None,
        exception: None,
    }
}

fn seen(outcome: Outcome, stage: Stage) -> Seen {
    let verdict = Verdict::Unproven(Cause::NoWitness);
    Seen {
        address: "203.0.113.7:8443".into(),
        cause: verdict.cause(),
        verdict,
        outcome,
        stage,
        elapsed_ms: 12.3,
        attempts: 3,
        attempt_outcomes: Vec::new(),
        technique: None,
        variant: None,
        asked: None,
        proofs: ProofSet::NONE,
        flows: Vec::new(),
        defence: Vec::new(),
        evidence: Evidence::default(),
    }
}

fn record(at: usize, about: Arc<About>) -> Record {
    let verdict = Verdict::Unproven(Cause::NoWitness);
    let observations = match about.kind {
        "open-proxy" => Technique::ALL.iter().map(|t| Seen { technique: Some(t.id()), ..seen(Outcome::Denied, Stage::Proxy) }).collect(),
        "http" => {
            let mut answer = seen(Outcome::Status(403), Stage::Http);
            answer.evidence.via = (at % 10 == 1).then(|| "203.0.113.8:3128".parse().unwrap());
            vec![answer]
        }
        _ => vec![seen(Outcome::Refused, Stage::Tcp)],
    };
    Record {
        about,
        cause: verdict.cause(),
        verdict,
        reason: "203.0.113.7:8443 refused every attempt".into(),
        contradicted: None,
        reproduce: None,
        proofs: ProofSet::NONE,
        not_covered: Vec::new(),
        started_at: Wall::now(),
        duration: Duration::from_millis(2004),
        exposure: Exposure::default(),
        denial_changed: Vec::new(),
        coverage: None,
        observations,
        witnesses: Vec::new(),
        began: Moment::now(),
    }
}

/// The metrics of a monitor with so many checks, each of which ran once.
fn monitor(checks: usize) -> Metrics {
    let board = Arc::new(Board::new((0..checks).map(|at| Arc::new(about(at))).collect()));
    let metrics = Metrics::new("internet", Arc::clone(&board)).unwrap();
    for at in 0..checks {
        let record = record(at, Arc::new(about(at)));
        metrics.observe(&record);
        board.publish(at, record);
    }
    metrics
}

/// The same gauges and counters in vectors of the crate's own, as most exporters hold them; histograms are few, and left out.
fn vectors(families: &[MetricFamily]) -> Registry {
    let registry = Registry::new();
    for family in families {
        let Some(first) = family.get_metric().first() else { continue };
        let names: Vec<&str> = first.get_label().iter().map(|pair| pair.name()).collect();
        let options = Opts::new(family.name(), family.help());
        let values = |metric: &prometheus::proto::Metric| metric.get_label().iter().map(|p| p.value().to_owned()).collect::<Vec<_>>();
        match family.get_field_type() {
            MetricType::GAUGE => {
                let gauges = GaugeVec::new(options, &names).unwrap();
                family.get_metric().iter().for_each(|m| gauges.with_label_values(&values(m)).set(m.get_gauge().get_value()));
                registry.register(Box::new(gauges)).unwrap();
            }
            MetricType::COUNTER => {
                let counters = CounterVec::new(options, &names).unwrap();
                family.get_metric().iter().for_each(|m| counters.with_label_values(&values(m)).inc_by(m.get_counter().get_value()));
                registry.register(Box::new(counters)).unwrap();
            }
            _ => {}
        }
    }
    registry
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn processor() -> f64 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    now.as_secs_f64() * 1e3
}

fn measure(rounds: usize, checks: usize) {
    let (many, few) = (monitor(checks), monitor(FEW));
    let families = many.gather();
    let registry = vectors(&families);
    let text = many.text().unwrap();
    let ready: Vec<(&str, f64)> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').map(|(series, value)| (series, value.parse().unwrap())).unwrap())
        .collect();
    let bare = || {
        let mut out = String::new();
        ready.iter().for_each(|(series, value)| writeln!(out, "{series} {value}").unwrap());
        out.len()
    };
    let contestants: Vec<(&str, Scrape<'_>)> = vec![
        ("text", Box::new(|| many.text().unwrap().len())),
        ("OpenMetrics", Box::new(|| many.openmetrics().len())),
        ("text, gzip", Box::new(|| gzip(&many.text().unwrap()).len())),
        ("OpenMetrics, gzip", Box::new(|| gzip(&many.openmetrics()).len())),
        ("what is gathered for each", Box::new(|| many.gather().len())),
        ("our OpenMetrics writer alone", Box::new(|| openmetrics::encode(&families).len())),
        ("the crate's text writer alone", Box::new(|| TextEncoder::new().encode_to_string(&families).unwrap().len())),
        ("the crate's vectors, text", Box::new(|| TextEncoder::new().encode_to_string(&registry.gather()).unwrap().len())),
        ("a bare loop", Box::new(bare)),
        ("text of 100 checks", Box::new(|| few.text().unwrap().len())),
        ("OpenMetrics of 100 checks", Box::new(|| few.openmetrics().len())),
    ];

    let mut took = vec![Vec::new(); contestants.len()];
    let mut sizes = vec![0; contestants.len()];
    for _ in 0..rounds {
        for (at, (_, scrape)) in contestants.iter().enumerate() {
            let began = processor();
            sizes[at] = black_box(scrape());
            took[at].push(processor() - began);
        }
    }
    for runs in &mut took {
        runs.sort_by(f64::total_cmp);
    }
    let median = |name: &str| {
        let at = contestants.iter().position(|(known, _)| *known == name).unwrap();
        took[at][rounds / 2]
    };

    println!("{checks} checks, {} series; processor ms, median of {rounds} rounds in turns (least to most); bytes", ready.len());
    for (at, (name, _)) in contestants.iter().enumerate() {
        let runs = &took[at];
        println!("{name:<30} {:9.3} ({:.3} to {:.3}) {:>10}", runs[rounds / 2], runs[0], runs[rounds - 1], sizes[at]);
    }
    for (ours, other) in [
        ("text", "the crate's vectors, text"),
        ("OpenMetrics", "the crate's vectors, text"),
        ("text, gzip", "the crate's vectors, text"),
        ("our OpenMetrics writer alone", "the crate's text writer alone"),
        ("text", "a bare loop"),
        ("OpenMetrics", "a bare loop"),
    ] {
        println!("{ours} / {other}: {:.2}", median(ours) / median(other));
    }
    let each = checks as f64 / FEW as f64;
    for (ours, other) in [("text", "text of 100 checks"), ("OpenMetrics", "OpenMetrics of 100 checks")] {
        println!("a check's part of {ours} / of {other}: {:.2}", median(ours) / each / median(other));
    }
}

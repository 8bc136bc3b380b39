//! The report by the Test Anything Protocol, version 13: most harnesses do not know version 14, and nothing here needs it.
//!
//! What is unproven is `not ok`, without a directive: `# SKIP` and `# TODO` both count as passed. Only what `--allow-unproven`
//! excuses is `not ok … # TODO`: it fails, and is not held against the run.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Finding, Report, seen_line, visible};
use crate::record::Record;
use crate::verdict::Verdict;

/// The report as TAP: the plan, and a test point with its diagnostics a check, in the order of the file; then the drills.
pub fn tap(report: &Report, allow_unproven: &BTreeSet<String>) -> String {
    let mut out = String::from("TAP version 13\n");
    if report.records.is_empty() {
        // A plan of nothing passes.
        let _ = writeln!(out, "Bail out! {}", report.conclusion(allow_unproven));
        return out;
    }
    let _ = writeln!(out, "1..{}", report.records.len() + report.drills.len());
    let names = report.names();
    for (number, record) in report.records.iter().enumerate() {
        let ok = if matches!(record.verdict, Verdict::Holds(_)) && record.contradicted.is_none() { "ok" } else { "not ok" };
        let directive = if report.excuses(record, allow_unproven) { " # TODO allowed to be unproven" } else { "" };
        let what = format!("{}: {}", names.of(&record.about), record.about.claim());
        let _ = writeln!(out, "{ok} {} - {}{directive}", number + 1, description(&what));
        diagnostics(&mut out, record, report);
    }
    for (number, drilled) in (report.records.len()..).zip(&report.drills) {
        let ok = if drilled.finding == Finding::Saw { "ok" } else { "not ok" };
        let what = format!("{} {}: {}", drilled.name(), drilled.finding.token(), drilled.sentence());
        let _ = writeln!(out, "{ok} {} - {}", number + 1, description(&what));
    }
    let conclusion = report.conclusion(allow_unproven);
    let _ = writeln!(out, "# {}; exit code {}: {conclusion}", report.counted(), conclusion.exit_code());
    out
}

/// A YAML map of scalars, which is what harnesses read.
fn diagnostics(out: &mut String, record: &Record, report: &Report) {
    let about = &record.about;
    let mut lines = vec![
        ("verdict", record.verdict.token().to_string()),
        ("cause", record.cause.to_string()),
        ("message", record.sentence().to_string()),
        ("severity", about.severity.token().to_string()),
        ("vantage", report.vantage.clone()),
        ("started_at", record.started_at.to_string()),
        ("proofs", super::proofs(record.proofs)),
    ];
    lines.extend(report.exception(record).map(|exception| ("excepted", exception)));
    lines.extend(record.reproduce.iter().map(|line| ("reproduce", line.clone())));
    lines.extend(about.runbook.iter().map(|runbook| ("runbook", runbook.clone())));
    if let Some(at) = &about.origin {
        lines.extend([("file", at.file.clone()), ("line", at.line.to_string())]);
    }
    let _ = writeln!(out, "  ---");
    for (key, value) in lines {
        let _ = writeln!(out, "  {key}: {}", quoted(&value));
    }
    if !record.observations.is_empty() {
        // A block, since Perl's harness takes a list's entry with a colon in it for a map.
        let _ = writeln!(out, "  observations: |");
        for seen in &record.observations {
            let _ = writeln!(out, "    {}", visible(&seen_line(seen)));
        }
    }
    let _ = writeln!(out, "  ...");
}

/// Text in which no `#` begins a directive.
fn description(text: &str) -> String {
    visible(text).replace('\\', "\\\\").replace('#', "\\#")
}

/// A YAML scalar in double quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", visible(text).replace('\\', "\\\\").replace('"', "\\\""))
}

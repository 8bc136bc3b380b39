//! The text report, for a person who was asleep a minute ago: what is wrong first, and all that is known about it.

use std::fmt::Write as _;

use super::{Report, Style, evidence_line, meaning, proofs, seen_line, visible};
use crate::record::{Exposure, Record};
use crate::verdict::Verdict;

/// Width of the column of words at the left.
const WORDS: usize = 11;

/// The report as text: a block for every check that does not hold, a line for every one that does, and what it comes to.
pub fn text(report: &Report, style: &Style) -> String {
    let mut out = String::new();
    for record in report.worst_first() {
        match record.verdict {
            Verdict::Holds(_) => held(&mut out, record, report, style),
            Verdict::Violated(_) | Verdict::Unproven(_) => {
                heading(&mut out, record, report, style);
                out.push_str(&details(record, report));
                out.push('\n');
            }
        }
    }
    for drilled in &report.drills {
        let _ = writeln!(out, "drill {}", visible(&drilled.line()));
    }
    ending(&mut out, report, style);
    out
}

/// Everything that is known of a check, one fact a line, without colour.
pub(super) fn details(record: &Record, report: &Report) -> String {
    let about = &record.about;
    let mut out = String::new();
    let mut line = |word: &str, text: &str| {
        let _ = writeln!(out, "  {word:<WORDS$} {}", visible(text));
    };
    line("reason", &record.reason);
    if let Some(exception) = report.exception(record) {
        line("excepted", &exception);
    }
    if let Some(alarm) = &record.contradicted {
        line("contradicted", alarm);
    }
    line("cause", &format!("{}: {}", record.cause, meaning(record.cause)));
    line("claim", &about.claim());
    if let Some(description) = &about.description {
        line("about", description);
    }
    line("seen from", &format!("{}, {} ({:.1} s)", report.vantage, record.started_at, record.duration.as_secs_f64()));
    for seen in &record.observations {
        line("seen", &seen_line(seen));
        let evidence = evidence_line(&seen.evidence);
        if !evidence.is_empty() {
            line("", &format!("  {evidence}"));
        }
        for sighting in &seen.defence {
            line("", &format!("  attempt {}: {}", sighting.attempt, sighting.in_words()));
        }
    }
    for changed in &record.denial_changed {
        line("changed", &format!("{}: blocked by {}, before that by {}", changed.address, changed.to, changed.from));
    }
    if about.inverted && record.exposure != Exposure::default() {
        line("exposure", &exposure(&record.exposure));
    }
    for witness in &record.witnesses {
        match (&witness.why, witness.proven) {
            (_, true) => line("witness", &format!("{}: proven", witness.name)),
            (Some(why), false) => line("witness", &format!("{}: NOT proven: {why}", witness.name)),
            (None, false) => line("witness", &format!("{}: NOT proven", witness.name)),
        }
    }
    line("proofs", &proofs(record.proofs));
    if let Some(families) = not_covered(record) {
        line("not covered", &families);
    }
    if let Some(command) = &record.reproduce {
        line("reproduce", command);
    }
    if let Some(runbook) = &about.runbook {
        line("runbook", runbook);
    }
    out
}

fn heading(out: &mut String, record: &Record, report: &Report, style: &Style) {
    let allowed = matches!(record.verdict, Verdict::Unproven(_)) && style.allow_unproven.contains(&record.about.name);
    let word = record.verdict.token().to_uppercase();
    let note = if allowed { ", allowed to be unproven" } else { "" };
    let excepted = if record.about.excepted(report.as_of).is_some() { ", excepted" } else { "" };
    let _ = writeln!(
        out,
        "{} {} ({}{note}{excepted})",
        painted(&record.verdict, &word, style),
        visible(&record.about.name),
        record.about.severity
    );
}

fn held(out: &mut String, record: &Record, report: &Report, style: &Style) {
    let about = &record.about;
    let word = painted(&record.verdict, "holds", style);
    let mut seen: Vec<String> = record.observations.iter().map(|s| s.outcome.to_string()).collect();
    seen.sort();
    seen.dedup();
    let mut line = format!("{}: {} {} is {}; proofs: {}", about.name, about.kind, about.target, seen.join(", "), proofs(record.proofs));
    if let Some(families) = not_covered(record) {
        let _ = write!(line, "; not covered: {families}");
    }
    if let Some(exception) = report.exception(record) {
        let _ = write!(line, "; excepted {exception}");
    }
    let _ = writeln!(out, "{word} {}", visible(&line));
    if let Some(alarm) = &record.contradicted {
        let _ = writeln!(out, "  {:WORDS$} {}", "CONTRADICTED", visible(alarm));
    }
}

fn ending(out: &mut String, report: &Report, style: &Style) {
    let conclusion = report.conclusion(&style.allow_unproven);
    let _ = writeln!(out, "{}, seen from {} in {:.1} s", report.counted(), visible(&report.vantage), report.duration.as_secs_f64());
    let _ = writeln!(out, "exit code {}: {conclusion}", conclusion.exit_code());
}

pub(super) fn exposure(window: &Exposure) -> String {
    let at = |wall: Option<crate::clock::Wall>| wall.map_or_else(|| "never".to_owned(), |w| w.to_string());
    format!(
        "first seen open {}, last seen open {}, last seen closed {}",
        at(window.first_open),
        at(window.last_open),
        at(window.last_closed)
    )
}

fn not_covered(record: &Record) -> Option<String> {
    let families: Vec<String> = record.not_covered.iter().map(ToString::to_string).collect();
    (!families.is_empty()).then(|| families.join(", "))
}

/// The word in its verdict's colour (ECMA-48 SGR), where colour is wanted.
fn painted(verdict: &Verdict, word: &str, style: &Style) -> String {
    let colour = match verdict {
        Verdict::Holds(_) => "32",
        Verdict::Violated(_) => "1;31",
        Verdict::Unproven(_) => "1;33",
    };
    if style.colour { format!("\u{1b}[{colour}m{word}\u{1b}[0m") } else { word.to_owned() }
}

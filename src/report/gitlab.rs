//! The report for GitLab's code quality widget: a list with an entry for every check that does not hold,
//! and for every drill in which the detector did not see.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Drilled, Finding, Report, fingerprint, visible};
use crate::record::Record;
use crate::severity::Severity;
use crate::verdict::Verdict;

/// What stands for the file of a check that is in none; GitLab wants one.
const NO_FILE: &str = "(command line)";

/// The report as a code quality report, indented, with a line feed at its end.
pub fn gitlab(report: &Report, allow_unproven: &BTreeSet<String>) -> String {
    let failed = report.worst_first().into_iter().filter(|r| !matches!(r.verdict, Verdict::Holds(_)));
    let names = report.names();
    let entry = |record: &Record| entry(report, &names.of(&record.about), record, report.excuses(record, allow_unproven));
    let drills = report.drills.iter().filter(|drilled| drilled.finding != Finding::Saw);
    let entries: Value = drills.map(|drilled| drill(&report.vantage, drilled)).chain(failed.map(entry)).collect();
    let mut text = format!("{entries:#}");
    text.push('\n');
    text
}

fn entry(report: &Report, name: &str, record: &Record, excused: bool) -> Value {
    let about = &record.about;
    let verdict = record.verdict.token();
    let (path, line) = about.origin.as_ref().map_or((NO_FILE, 1), |at| (at.file.as_str(), at.line));
    let excepted = report.exception(record).map_or(String::new(), |exception| format!(" (excepted {exception})"));
    json!({
        "description": visible(&format!("{name} is {verdict}{excepted}: {}", record.sentence())),
        "check_name": about.name,
        // A merge request shows what is new by its fingerprint: a violation where it was unproven before is new.
        "fingerprint": fingerprint(&[&report.vantage, &about.name, &about.target, verdict]),
        "severity": if excused { "info" } else { severity(&record.verdict, about.severity) },
        "location": { "path": path, "lines": { "begin": line } },
    })
}

fn drill(vantage: &str, drilled: &Drilled) -> Value {
    let (name, finding) = (drilled.name(), drilled.finding.token());
    json!({
        "description": visible(&format!("{name} {finding}: {}", drilled.sentence())),
        "check_name": name,
        "fingerprint": fingerprint(&[vantage, &name, finding]),
        "severity": if drilled.finding == Finding::Blind { "blocker" } else { "major" },
        "location": { "path": NO_FILE, "lines": { "begin": 1 } },
    })
}

/// One of GitLab's five words; what is unproven is below what is violated, and never nothing.
fn severity(verdict: &Verdict, severity: Severity) -> &'static str {
    match (verdict, severity) {
        (Verdict::Violated(_), Severity::Critical) => "blocker",
        (Verdict::Violated(_), Severity::Warning) => "critical",
        (Verdict::Violated(_), Severity::Info) | (_, Severity::Critical) => "major",
        (_, Severity::Warning | Severity::Info) => "minor",
    }
}

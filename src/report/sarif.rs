//! The SARIF 2.1.0 report, for code scanning: a rule a check, a result for every check that does not hold, at its line in the file.
//!
//! A check that holds gives no result: consumers raise an alert for every result, whatever its `kind` says, and close the
//! alert once the result is gone. For the same reason what is unproven is a `fail` of level `warning` and not `open`, which
//! SARIF has for it: `open` has no level, and who reads levels would take it for nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Drilled, Finding, Report, fingerprint, visible};
use crate::record::{About, Origin, Record};
use crate::severity::Severity;
use crate::verdict::Verdict;

/// Where the official schema can be read (SARIF 2.1.0, appendix of the standard).
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// The base that consumers replace by where they have the sources.
const SOURCES: &str = "%SRCROOT%";

/// The report as SARIF, indented, with a line feed at its end.
pub fn sarif(report: &Report, allow_unproven: &BTreeSet<String>) -> String {
    let mut rules: Vec<&About> = Vec::new();
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for record in &report.records {
        numbers.entry(&record.about.name).or_insert_with(|| {
            rules.push(&record.about);
            rules.len() - 1
        });
    }
    let failed = report.records.iter().filter(|r| !matches!(r.verdict, Verdict::Holds(_)));
    let results: Vec<Value> = failed
        .map(|record| {
            let number = numbers.get(record.about.name.as_str());
            result(report, record, number, report.excuses(record, allow_unproven))
        })
        .collect();
    let conclusion = report.conclusion(allow_unproven);
    let document = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "mustnot",
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules.into_iter().map(rule).collect::<Vec<_>>(),
            } },
            // Two vantages may look at one commit, and neither may replace the other's results.
            "automationDetails": { "id": format!("mustnot/{}/", report.vantage) },
            "columnKind": "unicodeCodePoints",
            "originalUriBaseIds": { SOURCES: { "description": { "text": "the directory that mustnot ran in" } } },
            "invocations": [{
                // A drill is about the tool, and not about what it looks at (SARIF 2.1.0, 3.20.21).
                "executionSuccessful": report.drills_found(Finding::Blind) == 0,
                "toolExecutionNotifications": report.drills.iter().map(drill).collect::<Vec<_>>(),
                "startTimeUtc": report.started_at,
                "exitCode": conclusion.exit_code(),
                "exitCodeDescription": conclusion.to_string(),
            }],
            "results": results,
            "properties": { "vantage": report.vantage, "summary": report.summary() },
        }],
    });
    let mut text = format!("{document:#}");
    text.push('\n');
    text
}

fn rule(about: &About) -> Value {
    let claim = visible(&about.claim());
    let tags: BTreeSet<&str> = about.tags.iter().map(String::as_str).chain(["security"]).collect();
    let link = |text: &&String| (text.starts_with("https://") || text.starts_with("http://")) && text.bytes().all(|b| b.is_ascii_graphic());
    filled(json!({
        "id": about.name,
        "name": about.name,
        "shortDescription": { "text": claim },
        "fullDescription": { "text": about.description.as_deref().map_or(claim.clone(), visible) },
        "help": about.runbook.as_ref().map(|runbook| json!({ "text": format!("Runbook: {}", visible(runbook)) })),
        "helpUri": about.runbook.as_ref().filter(link),
        "defaultConfiguration": { "level": "error" },
        "properties": {
            "tags": tags,
            "severity": about.severity,
            "security-severity": score(about.severity),
        },
    }))
}

fn result(report: &Report, record: &Record, number: Option<&usize>, excused: bool) -> Value {
    let about = &record.about;
    let level = match record.verdict {
        Verdict::Violated(_) => "error",
        Verdict::Unproven(_) if excused => "note",
        Verdict::Unproven(_) | Verdict::Holds(_) => "warning",
    };
    let accepted = json!([{ "kind": "external", "status": "accepted", "justification": "--allow-unproven names this check" }]);
    // A suppressed result is as good as none to who counts them, so an exception is words and no suppression.
    let exception = report.exception(record);
    let message = record.sentence().to_string() + &exception.iter().map(|said| format!(" Excepted {said}.")).collect::<String>();
    filled(json!({
        "ruleId": about.name,
        "ruleIndex": number,
        "kind": "fail",
        "level": level,
        "message": { "text": visible(&message) },
        "locations": [place(about)],
        "partialFingerprints": { "mustnotCheck/v1": fingerprint(&[&report.vantage, &about.name, &about.target]) },
        "suppressions": excused.then_some(accepted),
        "properties": {
            "verdict": record.verdict.token(),
            "cause": record.cause,
            "kind": about.kind,
            "target": about.target,
            "expect": about.expect,
            "severity": about.severity,
            "vantage": report.vantage,
            "started_at": record.started_at,
            "proofs": record.proofs,
            "exposure": record.exposure,
            "reproduce": record.reproduce,
            "labels": about.labels,
            "excepted": exception,
        },
    }))
}

fn drill(drilled: &Drilled) -> Value {
    let level = match drilled.finding {
        Finding::Saw => "note",
        Finding::NotDrilled => "warning",
        Finding::Blind => "error",
    };
    json!({
        "descriptor": { "id": drilled.name() },
        "level": level,
        "message": { "text": visible(&format!("{} {}: {}", drilled.name(), drilled.finding.token(), drilled.sentence())) },
        "properties": drilled,
    })
}

/// The object without its members that are null: SARIF knows none.
fn filled(mut object: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    object
}

/// The check's line in its file; and the target, which is no file.
fn place(about: &About) -> Value {
    let target = json!([{ "name": about.target, "fullyQualifiedName": format!("{} {}", about.kind, about.target), "kind": "resource" }]);
    match &about.origin {
        None => json!({ "logicalLocations": target }),
        Some(origin) => json!({
            "physicalLocation": {
                "artifactLocation": artifact(origin),
                "region": { "startLine": origin.line, "startColumn": origin.column },
            },
            "logicalLocations": target,
        }),
    }
}

/// The file as a URI reference (RFC 3986): relative to the sources where it lies in them.
fn artifact(origin: &Origin) -> Value {
    let mut path = String::with_capacity(origin.file.len());
    for byte in origin.file.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => path.push(char::from(byte)),
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    if path.starts_with('/') { json!({ "uri": format!("file://{path}") }) } else { json!({ "uri": path, "uriBaseId": SOURCES }) }
}

/// The severity as a score from 0 to 10, by which code scanning sorts: critical is above 9, high from 7, medium from 4.
fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.5",
        Severity::Warning => "7.5",
        Severity::Info => "4.0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_uri_relative_to_the_sources_or_absolute() {
        let uri = |file: &str| artifact(&Origin { file: file.into(), line: 1, column: 1 });
        assert_eq!(uri("ci/probes.toml"), json!({ "uri": "ci/probes.toml", "uriBaseId": "%SRCROOT%" }));
        assert_eq!(uri("my probes #1%.toml"), json!({ "uri": "my%20probes%20%231%25.toml", "uriBaseId": "%SRCROOT%" }));
        assert_eq!(uri("/etc/mustnot/ä.toml"), json!({ "uri": "file:///etc/mustnot/%C3%A4.toml" }));
    }
}

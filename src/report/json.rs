//! The JSON report (SPEC section 6), which `GET /api/v1/checks` serves too.

use std::sync::Arc;

use serde::Serialize;

use super::{Drilled, Report, SCHEMA, Summary};
use crate::clock::Wall;
use crate::record::Record;

/// The report as JSON, indented, with a line feed at its end.
pub fn json(report: &Report) -> String {
    written(&Document::of(report))
}

/// The report on one check, with its `recent` records and this host's time `now`, by which a peer tells their age.
pub fn json_of_one(report: &Report, recent: &[Arc<Record>], now: Wall) -> String {
    written(&OneCheck { document: Document::of(report), now, recent })
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    version: &'static str,
    vantage: &'a str,
    started_at: Wall,
    duration_ms: u64,
    summary: Summary,
    checks: Vec<Check<'a>>,
    #[serde(skip_serializing_if = "<[Drilled]>::is_empty")]
    drills: &'a [Drilled],
}

/// A record as it is read now.
#[derive(Serialize)]
struct Check<'a> {
    #[serde(flatten)]
    record: &'a Record,
    #[serde(skip_serializing_if = "Option::is_none")]
    exception: Option<Excepted<'a>>,
}

#[derive(Serialize)]
struct Excepted<'a> {
    reason: &'a str,
    owner: &'a str,
    until: Wall,
    expired: bool,
}

#[derive(Serialize)]
struct OneCheck<'a> {
    #[serde(flatten)]
    document: Document<'a>,
    now: Wall,
    recent: &'a [Arc<Record>],
}

impl<'a> Document<'a> {
    fn of(report: &'a Report) -> Document<'a> {
        Document {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            vantage: &report.vantage,
            started_at: report.started_at,
            duration_ms: u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
            summary: report.summary(),
            checks: report.records.iter().map(|record| Check::of(record, report.as_of)).collect(),
            drills: &report.drills,
        }
    }
}

impl<'a> Check<'a> {
    fn of(record: &'a Record, as_of: Wall) -> Check<'a> {
        let exception = record.about.exception.as_deref().map(|exception| Excepted {
            reason: &exception.reason,
            owner: &exception.owner,
            until: exception.until.end(),
            expired: exception.expired(as_of),
        });
        Check { record, exception }
    }
}

/// Strings, numbers and lists always serialise; should that ever change, a reader finds no `schema` and no `checks` here,
/// and so nothing that holds.
fn written(document: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(document).unwrap_or_else(|e| serde_json::json!({ "error": e.to_string() }).to_string());
    text.push('\n');
    text
}

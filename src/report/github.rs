//! The report as workflow commands, which GitHub shows at the check's line: an `error` for a violation, a `warning` for what is
//! unproven, a `notice` for what may be; a plain line for what holds, and one for what it all came to.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Finding, Report, visible};
use crate::record::Record;
use crate::verdict::Verdict;

/// The report as workflow commands, the worst first: of each kind only the first ten of a step are shown.
pub fn github(report: &Report, allow_unproven: &BTreeSet<String>) -> String {
    let mut out = String::new();
    // First, for where a detector is blind, what follows cannot be believed.
    for drilled in &report.drills {
        let word = match drilled.finding {
            Finding::Saw => {
                let _ = writeln!(out, "saw {}: {}", drilled.name(), visible(&drilled.sentence()));
                continue;
            }
            Finding::NotDrilled => "warning",
            Finding::Blind => "error",
        };
        let title = format!("{} {}", drilled.name(), drilled.finding.token());
        let _ = writeln!(out, "::{word} title={}::{}", property(&title), data(&visible(&drilled.sentence())));
    }
    let names = report.names();
    for record in report.worst_first() {
        let about = &record.about;
        let word = match record.verdict {
            Verdict::Holds(_) if record.contradicted.is_some() => "error",
            Verdict::Holds(_) => {
                let excepted = report.exception(record).map_or(String::new(), |exception| format!("; excepted {exception}"));
                let _ = writeln!(out, "holds {}: {}{}", visible(&about.name), visible(record.sentence()), visible(&excepted));
                continue;
            }
            Verdict::Violated(_) => "error",
            Verdict::Unproven(_) if report.excuses(record, allow_unproven) => "notice",
            Verdict::Unproven(_) => "warning",
        };
        let _ = writeln!(out, "::{word} {}::{}", properties(&names.of(about), record, report), data(&message(record, report)));
    }
    let conclusion = report.conclusion(allow_unproven);
    let _ = writeln!(
        out,
        "mustnot: {}, seen from {}; exit code {}: {conclusion}",
        report.counted(),
        visible(&report.vantage),
        conclusion.exit_code()
    );
    out
}

/// Where and what: `file=…,line=…,col=…,title=…`, without a place where the check is in no file.
fn properties(name: &str, record: &Record, report: &Report) -> String {
    let excepted = if record.about.excepted(report.as_of).is_some() { " (excepted)" } else { "" };
    let title = format!("{name} is {}{excepted}", record.verdict.token());
    let title = format!("title={}", property(&visible(&title)));
    match &record.about.origin {
        None => title,
        Some(at) => format!("file={},line={},col={},{title}", property(&at.file), at.line, at.column),
    }
}

fn message(record: &Record, report: &Report) -> String {
    let mut lines = vec![visible(record.sentence()), visible(&record.about.claim())];
    lines.extend(report.exception(record).map(|exception| format!("excepted: {}", visible(&exception))));
    lines.extend(record.reproduce.iter().map(|line| format!("reproduce: {}", visible(line))));
    lines.extend(record.about.runbook.iter().map(|runbook| format!("runbook: {}", visible(runbook))));
    lines.join("\n")
}

/// Text behind the second `::`, where a line end would end the command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property's value, which a colon or a comma would end as well.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

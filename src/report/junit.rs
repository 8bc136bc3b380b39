//! The JUnit report, for CI servers: a violation is a `failure`, unproven an `error`, unproven but allowed `skipped`; a drill
//! is a test case, too: of a blind detector a `failure`, of one that could not be drilled an `error`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use super::text::details;
use super::{Drilled, Finding, Report, visible};
use crate::record::Record;
use crate::verdict::Verdict;

/// The report as JUnit XML: one suite, one test case a check.
pub fn junit(report: &Report, allow_unproven: &BTreeSet<String>) -> String {
    let summary = report.summary();
    let skipped = report.records.iter().filter(|r| report.excuses(r, allow_unproven)).count();
    let counts = format!(
        r#"tests="{}" failures="{}" errors="{}" skipped="{skipped}" time="{}""#,
        report.records.len() + report.drills.len(),
        summary.violated + report.contradicted() + report.drills_found(Finding::Blind),
        summary.unproven - skipped + report.drills_found(Finding::NotDrilled),
        seconds(report.duration)
    );
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(out, r#"<testsuites name="mustnot" {counts}>"#);
    let _ = writeln!(out, r#"  <testsuite name="{}" {counts} timestamp="{}">"#, escaped(&report.vantage), report.started_at);
    let _ = writeln!(out, "    <properties>");
    for (name, value) in [("version", env!("CARGO_PKG_VERSION")), ("vantage", &report.vantage)] {
        let _ = writeln!(out, r#"      <property name="{name}" value="{}"/>"#, escaped(value));
    }
    let _ = writeln!(out, "    </properties>");
    let names = report.names();
    for record in &report.records {
        case(&mut out, &names.of(&record.about), record, report, report.excuses(record, allow_unproven));
    }
    report.drills.iter().for_each(|drilled| drill(&mut out, drilled));
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn case(out: &mut String, name: &str, record: &Record, report: &Report, skipped: bool) {
    let _ = writeln!(
        out,
        r#"    <testcase name="{}" classname="mustnot.{}" time="{}">"#,
        escaped(name),
        escaped(record.about.kind),
        seconds(record.duration)
    );
    let element = match record.verdict {
        Verdict::Holds(_) if record.contradicted.is_none() => None,
        Verdict::Holds(_) | Verdict::Violated(_) => Some("failure"),
        Verdict::Unproven(_) if skipped => Some("skipped"),
        Verdict::Unproven(_) => Some("error"),
    };
    let evidence = escaped(&details(record, report));
    match element {
        Some("skipped") => {
            let message = format!("allowed to be unproven: {}", record.reason);
            let _ = writeln!(out, r#"      <skipped message="{}"/>"#, escaped(&message));
        }
        Some(element) => {
            let message = escaped(record.sentence());
            let cause = record.contradicted.as_ref().map_or_else(|| record.cause.to_string(), |_| "contradicted".into());
            let _ = writeln!(out, r#"      <{element} message="{message}" type="{cause}">{evidence}</{element}>"#);
        }
        None => {}
    }
    let _ = writeln!(out, "      <system-out>{evidence}</system-out>\n    </testcase>");
}

fn drill(out: &mut String, drilled: &Drilled) {
    let (name, sentence) = (escaped(&drilled.name()), escaped(&drilled.sentence()));
    let took = seconds(drilled.detection.unwrap_or_default());
    let _ = writeln!(out, r#"    <testcase name="{name}" classname="mustnot.drill" time="{took}">"#);
    let element = match drilled.finding {
        Finding::Saw => None,
        Finding::NotDrilled => Some("error"),
        Finding::Blind => Some("failure"),
    };
    if let Some(element) = element {
        let _ = writeln!(out, r#"      <{element} message="{sentence}" type="{}"/>"#, drilled.finding.token());
    }
    let _ = writeln!(out, "      <system-out>{sentence}</system-out>\n    </testcase>");
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

/// Text for an element or an attribute in double quotes (XML 1.0, 2.4). What XML 1.0 has no way to write, escaped or not
/// (2.2: most control characters, U+FFFE, U+FFFF), is shown as its number.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        for c in visible(line).chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\u{fffe}' | '\u{ffff}' => out.extend(c.escape_unicode()),
                c => out.push(c),
            }
        }
        out.push_str(end);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_an_attribute_or_an_element() {
        assert_eq!(escaped("<a b=\"c\">&'</a>]]>"), "&lt;a b=&quot;c&quot;&gt;&amp;'&lt;/a&gt;]]&gt;");
        assert_eq!(escaped("\u{0}\u{1b}[1m\r\u{fffe}\u{7f}\nnext"), "\\u{0}\\u{1b}[1m\\r\\u{fffe}\\u{7f}\nnext");
    }
}

//! The report as Markdown, for a job's summary (GitHub) or a note on a merge request (GitLab): a table of verdicts, then a part for every
//! check that does not hold.
//!
//! Whatever comes from outside stands in a code span or a code block, the one place where no reader of Markdown looks for links, HTML,
//! mentions or anything else: what a server says of itself must not write into a summary.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::text::exposure;
use super::{Finding, Names, Report, meaning, proofs, seen_line, visible};
use crate::record::{Exposure, Record};
use crate::verdict::{Cause, Verdict};

/// The most rows of the table; GitHub takes a summary of at most 1 MiB, GitLab a note of 1 MB.
const MAX_ROWS: usize = 500;
/// When no further part is begun, in bytes. A part has at most [`MAX_SEEN`] and some ten more spans, so that it ends well below the limit.
const FULL: usize = 700 * 1024;
/// The most characters of one span.
const MAX_SPAN: usize = 1000;
/// Observations of one check.
const MAX_SEEN: usize = 8;

/// The report as Markdown, the worst first.
pub fn markdown(report: &Report, allow_unproven: &BTreeSet<String>) -> String {
    let conclusion = report.conclusion(allow_unproven);
    let mut out = format!("## mustnot: {}\n\n", report.counted());
    let _ = writeln!(
        out,
        "Seen from {} at {}, in {:.1} s. Exit code {}: {conclusion}.\n",
        code(&report.vantage),
        report.started_at,
        report.duration.as_secs_f64(),
        conclusion.exit_code()
    );
    for drilled in report.drills.iter().filter(|drilled| drilled.finding != Finding::Saw) {
        // First, for where a detector is blind, what follows cannot be believed.
        let _ = writeln!(out, "- **{} {}** {}", drilled.name(), drilled.finding.token(), code(&drilled.sentence()));
    }
    if !report.drills.is_empty() {
        let saw = report.drills_found(Finding::Saw);
        let _ = writeln!(out, "- {saw} of {} kinds in use were drilled, and saw\n", report.drills.len());
    }
    let records = report.worst_first();
    let names = report.names();
    table(&mut out, report, &names, &records, allow_unproven);
    let mut failed = records.iter().filter(|r| !matches!(r.verdict, Verdict::Holds(_)));
    while out.len() < FULL {
        let Some(record) = failed.next() else { return out };
        part(&mut out, report, &names.of(&record.about), record, allow_unproven);
    }
    match failed.count() {
        0 => {}
        more => {
            let _ = writeln!(out, "### And {more} more\n\nThey would not fit here; the JSON report has them all.");
        }
    }
    out
}

/// One row a check. Only the name, the target and words of our own: a cell is no place for what a server said.
fn table(out: &mut String, report: &Report, names: &Names<'_>, records: &[&Record], allow_unproven: &BTreeSet<String>) {
    if records.is_empty() {
        return;
    }
    out.push_str("| verdict | check | severity | why |\n| --- | --- | --- | --- |\n");
    for record in records.iter().take(MAX_ROWS) {
        let _ = writeln!(
            out,
            "| {}{} | {} | {} | {} |",
            word(&record.verdict),
            note(report, record, allow_unproven),
            cell(&names.of(&record.about)),
            record.about.severity,
            meaning(record.cause)
        );
    }
    if records.len() > MAX_ROWS {
        let _ = writeln!(out, "\nAnd {} more; the JSON report has them all.", records.len() - MAX_ROWS);
    }
    out.push('\n');
}

/// What there is to know of a check that does not hold.
fn part(out: &mut String, report: &Report, name: &str, record: &Record, allow_unproven: &BTreeSet<String>) {
    let about = &record.about;
    let note = note(report, record, allow_unproven);
    let _ = writeln!(out, "### {} is {}{note}\n\n{}\n", code(name), record.verdict.token(), code(record.sentence()));
    let mut fact = |what: &str, text: &str| {
        let _ = writeln!(out, "- **{what}** {text}");
    };
    fact("cause", &format!("{}: {}", record.cause, meaning(record.cause)));
    fact("what to do", todo(record.cause, about.inverted));
    if let Some(exception) = report.exception(record) {
        fact("excepted", &code(&exception));
    }
    if about.inverted && record.exposure != Exposure::default() {
        fact("exposure", &exposure(&record.exposure));
    }
    fact("claim", &code(&about.claim()));
    if let Some(description) = &about.description {
        fact("about", &code(description));
    }
    for seen in record.observations.iter().take(MAX_SEEN) {
        fact("seen", &code(&seen_line(seen)));
    }
    if record.observations.len() > MAX_SEEN {
        fact("seen", &format!("and {} more, which the JSON report has", record.observations.len() - MAX_SEEN));
    }
    for witness in record.witnesses.iter().filter(|witness| !witness.proven) {
        let why = witness.why.as_deref().map_or(String::new(), |why| format!(": {}", code(why)));
        fact("witness not proven", &format!("{}{why}", code(&witness.name)));
    }
    fact("proofs", &proofs(record.proofs));
    if let Some(at) = &about.origin {
        fact("written in", &code(&format!("{}:{}", at.file, at.line)));
    }
    if let Some(runbook) = &about.runbook {
        fact("runbook", &link(runbook));
    }
    out.push('\n');
    if let Some(line) = &record.reproduce {
        let _ = writeln!(out, "By hand, at that vantage:\n\n{}", block("sh", line));
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Holds(_) => "holds",
        Verdict::Violated(_) => "**VIOLATED**",
        Verdict::Unproven(_) => "**unproven**",
    }
}

/// What is to be said beside the verdict, and changes nothing of it.
fn note(report: &Report, record: &Record, allow_unproven: &BTreeSet<String>) -> &'static str {
    if record.contradicted.is_some() {
        return ", **contradicted by a log**";
    }
    match (record.about.excepted(report.as_of).is_some(), report.excuses(record, allow_unproven)) {
        (true, true) => ", excepted, allowed to be unproven",
        (true, false) => ", excepted",
        (false, true) => ", allowed to be unproven",
        (false, false) => "",
    }
}

/// What to do about a check that does not hold, by its cause.
fn todo(cause: Cause, inverted: bool) -> &'static str {
    match cause {
        Cause::Open => "close it, and see who came in since it was last seen closed; where it is meant to be open, correct the check",
        Cause::NotOpen => "mend the one allowed way, or correct the check",
        Cause::OtherDenial if inverted => "see which answer came: either the way of denying changed, or the check is too narrow",
        Cause::OtherDenial => "see which answer came, and mend that",
        Cause::NoWitness => "`mustnot config explain` says which witness could give the proof that is required",
        Cause::WitnessFailed => "mend the witness, or the way to it, and try again",
        Cause::Local => "mend this runner: its route, its rules, its file descriptors, its permissions",
        Cause::Intercepted => "look from another place: here something answers for every address",
        Cause::Resolve => "mend the resolver here, or the name",
        Cause::Coverage => "give it more time: a longer --deadline, or fewer checks at once",
        Cause::Pending => "it was not run; give it more time",
        Cause::Stale => "see why the monitor stopped looking",
        Cause::Latched => "let a run hold: mend what keeps it unproven",
        Cause::AsExpected => "nothing",
    }
}

/// Text as a code span (CommonMark 6.1): between more backquotes than it has in a row, and one space on either side, which is taken off.
fn code(text: &str) -> String {
    let text = cut(&visible(text));
    let fence = "`".repeat(longest_run(&text) + 1);
    format!("{fence} {text} {fence}")
}

/// The same within a table, where a `|` ends the cell even in a code span, and no two readers agree how to escape it behind a `\`.
fn cell(text: &str) -> String {
    code(&text.replace('|', "\u{a6}"))
}

/// Text as a code block (CommonMark 4.5).
fn block(language: &str, text: &str) -> String {
    let text = visible(text);
    let fence = "`".repeat(longest_run(&text).max(2) + 1);
    format!("{fence}{language}\n{text}\n{fence}\n")
}

/// A link where it is one to the web (CommonMark 6.5), else text.
fn link(text: &str) -> String {
    let web = text.starts_with("https://") || text.starts_with("http://");
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"<>`\\\"'|".contains(&b)) && text.len() <= MAX_SPAN;
    if web && plain { format!("<{text}>") } else { code(text) }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SPAN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_string(),
    }
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_a_span() {
        assert_eq!(code("plain"), "` plain `");
        assert_eq!(code("a `b` ``c"), "``` a `b` ``c ```");
        assert_eq!(code("`"), "`` ` ``");
        assert_eq!(code("two\nlines\u{202e}"), "` two\\nlines\\u{202e} `");
        assert_eq!(cell("a|b\\|c"), "` a\u{a6}b\\\u{a6}c `");
        assert_eq!(block("sh", "echo '```'"), "````sh\necho '```'\n````\n");
        assert_eq!(code(&"é".repeat(MAX_SPAN)).chars().count(), MAX_SPAN + 4);
        assert_eq!(code(&"é".repeat(MAX_SPAN + 1)).chars().count(), MAX_SPAN + 5);
    }

    #[test]
    fn a_link_is_one_to_the_web() {
        assert_eq!(link("https://wiki.example.com/a?b=c#d"), "<https://wiki.example.com/a?b=c#d>");
        for no in ["javascript:alert(1)", "https://a/> <script>", "https://a/ b", "see the wiki", "https://a/`b"] {
            assert!(link(no).starts_with('`'), "{no}");
        }
    }
}

//! Reports: what a round of checks came to, in the words of its reader. One format, one file, one function.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Wall;
use crate::observation::Evidence;
use crate::record::{About, Record, Seen};
use crate::verdict::{Cause, Verdict};
use crate::witness::{Proof, ProofSet};

mod drilled;
mod github;
mod gitlab;
mod json;
mod junit;
mod markdown;
mod sarif;
mod tap;
mod text;

pub use drilled::{Drilled, Finding};
pub use github::github;
pub use gitlab::gitlab;
pub use json::{json, json_of_one};
pub use junit::junit;
pub use markdown::markdown;
pub use sarif::sarif;
pub use tap::tap;
pub use text::text;

/// The layout of the JSON report; it grows when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// What a round of checks came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where the monitor stands.
    pub vantage: String,
    /// Wall time of the start.
    pub started_at: Wall,
    /// From start to end.
    pub duration: Duration,
    /// Wall time by which exceptions are in force or over.
    pub as_of: Wall,
    /// One record a check and target, in the order of the file.
    pub records: Vec<Record>,
    /// What the drills before it came to; none where none was asked for.
    pub drills: Vec<Drilled>,
}

/// How many checks came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Checks that hold.
    pub holds: usize,
    /// Checks that are violated.
    pub violated: usize,
    /// Checks of which neither could be shown.
    pub unproven: usize,
}

/// How many targets each name stands for.
#[derive(Debug)]
pub struct Names<'a>(BTreeMap<&'a str, usize>);

/// What a report comes to, and so the exit code of `mustnot check` (SPEC section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// Every check holds, or is unproven and allowed to be while at least one holds.
    Holds,
    /// At least one is violated.
    Violated,
    /// None is violated, and the detector of a kind in use is blind: what it says cannot be believed.
    Blind,
    /// None is violated; at least one is unproven, or of a kind that could not be drilled.
    Unproven,
    /// No check was selected.
    NothingRan,
}

/// What a format may be told besides the report.
#[derive(Debug, Clone, Default)]
pub struct Style {
    /// Colour by ANSI sequences, in the text format only.
    pub colour: bool,
    /// Names of the checks that may be unproven.
    pub allow_unproven: BTreeSet<String>,
}

/// A format that a report can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs (SPEC section 6).
    Json,
    /// For CI servers.
    Junit,
    /// For GitHub's code scanning and other readers of SARIF 2.1.0.
    Sarif,
    /// For the log of a GitHub workflow.
    Github,
    /// For GitLab's code quality widget.
    Gitlab,
    /// For harnesses of the Test Anything Protocol.
    Tap,
    /// For the summary of a job, or a note on a merge request.
    Markdown,
}

impl Report {
    /// How many checks came to what.
    pub fn summary(&self) -> Summary {
        let count = |token| self.records.iter().filter(|r| r.verdict.token() == token).count();
        Summary { holds: count("holds"), violated: count("violated"), unproven: count("unproven") }
    }

    /// What the report comes to; `allow_unproven` names the checks that may be unproven.
    ///
    /// 1. no check: nothing ran
    /// 2. one is violated, or the log of a defence says that what is said to be blocked was let in: violated
    /// 3. a detector is blind: blind
    /// 4. one is unproven and may not be, none holds, or a kind was not drilled: unproven
    /// 5. else it holds
    pub fn conclusion(&self, allow_unproven: &BTreeSet<String>) -> Conclusion {
        let summary = self.summary();
        let forbidden = |r: &Record| matches!(r.verdict, Verdict::Unproven(_)) && !allow_unproven.contains(&r.about.name);
        match summary {
            _ if self.records.is_empty() => Conclusion::NothingRan,          // 1
            Summary { violated: 1.., .. } => Conclusion::Violated,           // 2
            _ if self.contradicted() > 0 => Conclusion::Violated,            // 2
            _ if self.drills_found(Finding::Blind) > 0 => Conclusion::Blind, // 3
            _ if self.records.iter().any(forbidden) || summary.holds == 0 => Conclusion::Unproven, // 4
            _ if self.drills_found(Finding::NotDrilled) > 0 => Conclusion::Unproven, // 4
            _ => Conclusion::Holds,                                          // 5
        }
    }

    /// How many drills found that.
    fn drills_found(&self, finding: Finding) -> usize {
        self.drills.iter().filter(|one| one.finding == finding).count()
    }

    /// Whether the record is unproven, may be, and is not held against the run: where nothing holds, nothing is excused.
    pub fn excuses(&self, record: &Record, allow_unproven: &BTreeSet<String>) -> bool {
        let unproven = matches!(record.verdict, Verdict::Unproven(_));
        let holds = |r: &Record| matches!(r.verdict, Verdict::Holds(_));
        unproven && allow_unproven.contains(&record.about.name) && self.records.iter().any(holds)
    }

    /// How many checks do not hold and are excepted.
    pub fn excepted(&self) -> usize {
        let holds = |r: &Record| matches!(r.verdict, Verdict::Holds(_));
        self.records.iter().filter(|r| !holds(r) && r.about.excepted(self.as_of).is_some()).count()
    }

    /// What is to be said of the record's exception, in force or over; with what to do, where it holds.
    pub(crate) fn exception(&self, record: &Record) -> Option<String> {
        let exception = record.about.exception.as_deref()?;
        let said = exception.sentence(self.as_of);
        Some(if matches!(record.verdict, Verdict::Holds(_)) { format!("{said}; but it holds: take the exception out") } else { said })
    }

    /// `N violated, N unproven, N held`, and how many of them are excepted, where any are.
    pub(crate) fn counted(&self) -> String {
        let Summary { holds, violated, unproven } = self.summary();
        let excepted = match self.excepted() {
            0 => String::new(),
            some => format!(" ({some} of them excepted)"),
        };
        let contradicted = match self.contradicted() {
            0 => String::new(),
            some => format!(" ({some} of them contradicted by a log)"),
        };
        format!("{violated} violated, {unproven} unproven{excepted}, {holds} held{contradicted}")
    }

    /// How many checks hold against the word of a defence's log.
    pub fn contradicted(&self) -> usize {
        self.records.iter().filter(|r| r.contradicted.is_some()).count()
    }

    /// The names of the checks, as a reader can tell them apart.
    pub fn names(&self) -> Names<'_> {
        let mut targets: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &self.records {
            *targets.entry(&record.about.name).or_default() += 1;
        }
        Names(targets)
    }

    /// The records, the worst first; within a verdict the most severe, then by name and target.
    pub fn worst_first(&self) -> Vec<&Record> {
        let mut records: Vec<&Record> = self.records.iter().collect();
        records
            .sort_by_cached_key(|r| (std::cmp::Reverse(r.verdict.rank()), r.about.severity, r.about.name.clone(), r.about.target.clone()));
        records
    }
}

impl Names<'_> {
    /// The check's name; with its target where one name stands for several.
    pub fn of(&self, about: &About) -> String {
        let alone = self.0.get(about.name.as_str()).is_none_or(|targets| *targets == 1);
        if alone { about.name.clone() } else { format!("{} [{}]", about.name, about.target) }
    }
}

impl Conclusion {
    /// The exit code of `mustnot check`.
    pub const fn exit_code(self) -> u8 {
        match self {
            Conclusion::Holds => 0,
            Conclusion::Violated | Conclusion::Blind => 1,
            Conclusion::Unproven => 3,
            Conclusion::NothingRan => 4,
        }
    }
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Conclusion::Holds => "every check holds, or may be unproven",
            Conclusion::Violated => "at least one check is violated",
            Conclusion::Blind => "a detector is blind: what it says of its targets cannot be believed",
            Conclusion::Unproven => "nothing is violated, but not everything is proven",
            Conclusion::NothingRan => "nothing ran: no check was selected",
        })
    }
}

impl Format {
    /// Every format with its name.
    pub const NAMES: &[(Format, &'static str)] = &[
        (Format::Text, "text"),
        (Format::Json, "json"),
        (Format::Junit, "junit"),
        (Format::Sarif, "sarif"),
        (Format::Github, "github"),
        (Format::Gitlab, "gitlab"),
        (Format::Tap, "tap"),
        (Format::Markdown, "markdown"),
    ];

    /// Writes the report in this format.
    pub fn render(self, report: &Report, style: &Style) -> String {
        match self {
            Format::Text => text(report, style),
            Format::Json => json(report),
            Format::Junit => junit(report, &style.allow_unproven),
            Format::Sarif => sarif(report, &style.allow_unproven),
            Format::Github => github(report, &style.allow_unproven),
            Format::Gitlab => gitlab(report, &style.allow_unproven),
            Format::Tap => tap(report, &style.allow_unproven),
            Format::Markdown => markdown(report, &style.allow_unproven),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Format::NAMES.iter().find(|row| row.0 == *self).map_or("text", |row| row.1))
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        if let Some((format, _)) = Format::NAMES.iter().find(|row| row.1 == name) {
            return Ok(*format);
        }
        let known: Vec<&str> = Format::NAMES.iter().map(|row| row.1).collect();
        Err(format!("there is no format \"{name}\"; write one of {}", known.join(", ")))
    }
}

/// Writes a report beside its place and renames it, so that nobody ever reads half of one. What is not a regular file
/// (`/dev/stdout`, a pipe) is written to as it is, for a rename would replace it.
///
/// # Errors
/// What failed, where, and what to do.
pub fn write_report(path: &Path, text: &str) -> Result<(), String> {
    let written = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(meta) if !meta.is_file() => fs::OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(text.as_bytes())),
        Ok(_) => path.canonicalize().and_then(|real| replace(&real, text)),
        Err(_) => replace(path, text),
    };
    written.map_err(|error| format!("cannot write the report to {}: {error}; {}", path.display(), remedy(&error)))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = beside(path).ok_or(io::ErrorKind::InvalidFilename)?;
    let written = File::create_new(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first error is the one to tell; a leftover is only untidy.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// A hidden name in the same directory, for a rename works within one file system only. In a container every process
/// may have the same number, so the time makes it unique.
fn beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_string_lossy();
    Some(path.with_file_name(format!(".{name}.{}-{}.tmp", std::process::id(), Wall::now().unix_millis())))
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create its directory first",
        io::ErrorKind::IsADirectory | io::ErrorKind::InvalidFilename => "name a file in it",
        io::ErrorKind::PermissionDenied => "choose a place where this user may write",
        io::ErrorKind::ReadOnlyFilesystem => "choose a place on a writable file system",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that file system",
        _ => "choose another --output",
    }
}

impl Record {
    /// What the log of a defence has against it, else the reason; where there is none, what the cause means.
    pub(crate) fn sentence(&self) -> &str {
        match &self.contradicted {
            Some(alarm) => alarm,
            None if self.reason.is_empty() => meaning(self.cause),
            None => &self.reason,
        }
    }
}

/// What a cause means, for a reader who has never seen its token.
pub fn meaning(cause: Cause) -> &'static str {
    match cause {
        Cause::AsExpected => "as the check demands",
        Cause::Open => "it was let in where it must be kept out",
        Cause::NotOpen => "it was kept out where it must get through",
        Cause::OtherDenial => "closed, but not in the way that the check demands",
        Cause::NoWitness => "no witness gives the proof that the check requires",
        Cause::WitnessFailed => "a witness did not get through around it, so the block may be our own outage",
        Cause::Local => "this monitor's own host failed, which says nothing about the target",
        Cause::Intercepted => "something between answers for every address, even where nobody is",
        Cause::Resolve => "the target's name did not resolve",
        Cause::Coverage => "less was looked at than the check demands",
        Cause::Pending => "it has not run yet",
        Cause::Stale => "its last run is too long ago to say anything",
        Cause::Latched => "it was violated before, and no run has held since",
    }
}

/// SHA-256 over the parts, each with its length before it, in hexadecimal: by this a reader finds a result again in later runs.
pub(crate) fn fingerprint(parts: &[&str]) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finish().as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Tokens of proofs, or `none`.
pub(crate) fn proofs(proofs: ProofSet) -> String {
    match proofs.is_empty() {
        true => "none".into(),
        false => proofs.iter().map(Proof::token).collect::<Vec<_>>().join(", "),
    }
}

/// One observation as a line: where, what, how deep, how often, why that counts as it does.
pub(crate) fn seen_line(seen: &Seen) -> String {
    let mut line = seen.address.clone();
    if let Some(technique) = seen.technique {
        let _ = write!(line, " {technique}");
    }
    if let Some(variant) = &seen.variant {
        let _ = write!(line, " {variant}");
    }
    if let Some(asked) = &seen.asked {
        let _ = write!(line, " asked for {asked}");
    }
    let times = if seen.attempts == 1 { "1 attempt".to_owned() } else { format!("{} attempts", seen.attempts) };
    let _ = write!(line, ": {} at {} after {:.1} ms, {times}", seen.outcome, seen.stage, seen.elapsed_ms);
    if !seen.attempt_outcomes.is_empty() {
        let each: Vec<String> = seen.attempt_outcomes.iter().map(ToString::to_string).collect();
        let _ = write!(line, " ({})", each.join(", "));
    }
    let _ = write!(line, "; {} ({}); proofs: {}", seen.verdict.token(), seen.cause, proofs(seen.proofs));
    line
}

/// Evidence as `name=value`, whatever its kind gives; of an answer's head only the first line.
pub(crate) fn evidence_line(evidence: &Evidence) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(evidence) else { return String::new() };
    let shown = fields.into_iter().map(|(name, value)| match value {
        serde_json::Value::String(text) => format!("{name}={}", text.lines().next().unwrap_or_default()),
        other => format!("{name}={other}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// The text with everything visible: what the wire gave us must not steer a terminal (control characters), nor turn a
/// line around (Unicode bidirectional controls, UAX 9), nor command a runner of CI that reads the log: GitHub's takes `##[`, that of Azure
/// `##vso[` and TeamCity `##teamcity[` anywhere in a line.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '#' if commands(rest.as_str()) => out.extend(c.escape_unicode()),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// Whether a `#` before this text begins a command to a runner of CI.
fn commands(rest: &str) -> bool {
    rest.strip_prefix('#').is_some_and(|word| word.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).starts_with('['))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_runner_of_ci_is_shown_and_not_done() {
        for (text, shown) in [
            ("HTTP/1.1 200 ##vso[task.complete result=Succeeded]", "HTTP/1.1 200 \\u{23}#vso[task.complete result=Succeeded]"),
            ("##[stop-commands]x", "\\u{23}#[stop-commands]x"),
            ("###teamcity[x", "#\\u{23}#teamcity[x"),
            ("## a [b] #[c] ##", "## a [b] #[c] ##"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn formats_read_back_and_others_say_what_to_write() {
        for (format, name) in Format::NAMES {
            assert_eq!(name.parse(), Ok(*format));
            assert_eq!(format.to_string(), *name);
        }
        let told = "there is no format \"JSON\"; write one of text, json, junit, sarif, github, gitlab, tap, markdown";
        assert_eq!("JSON".parse::<Format>(), Err(told.into()));
    }

    #[test]
    fn what_steers_a_terminal_is_shown_and_not_done() {
        assert_eq!(visible("a\u{1b}[2Jb\r\n\u{202e}c é"), "a\\u{1b}[2Jb\\r\\n\\u{202e}c é");
    }
}

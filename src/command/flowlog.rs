//! `mustnot flowlog`: a report held against the logs of the defences.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::evidence::doubts;
use super::{console, usage};
use crate::cli::{EXIT_HOLDS, EXIT_REPORT, EXIT_UNPROVEN, EXIT_VIOLATED, Flowlog, FlowlogFormat};
use crate::config::printable;
use crate::defence::{Place, Sighting, Way, Word};
use crate::flowlog::join::{Report, Told};
use crate::flowlog::stream::{self, Piece};
use crate::flowlog::{Counts, Index, Lines, Settings};
use crate::report::write_report;

/// The longest report that is read.
const MAX_REPORT: u64 = 512 * 1024 * 1024;
/// Standard input.
const STDIN: &str = "-";

/// Reads the report and the logs, and tells what the one says of the other.
pub fn flowlog(args: &Flowlog) -> u8 {
    let settings = Settings {
        clock_skew: args.clock_skew,
        format: args.flow_format.clone(),
        translated: args.translated.clone(),
        own_interfaces: (args.no_own_interface || !args.own_interface.is_empty()).then(|| args.own_interface.iter().cloned().collect()),
    };
    let mut index = Index::new(settings);
    let name = args.report.display();
    let text = match bytes(&args.report) {
        Ok(text) => text,
        Err(why) => return usage(&format!("--report {name} cannot be read: {why}")),
    };
    let (mut report, kept) = match Report::read(&text, &mut index) {
        Ok(read) => read,
        Err(why) => return usage(&format!("--report {name}: {why}")),
    };
    drop(text);
    let mut counts = Counts::default();
    let mut broken = Vec::new();
    for path in files(&args.logs) {
        let mut lines = Lines::default();
        let result = open(&path).and_then(|mut log| {
            stream::lines(&mut *log, true, |piece| match piece {
                Piece::Line(line) => lines.read(line, &index, &mut |whose, sighting| {
                    report.join(whose, sighting);
                }),
                Piece::TooLong => lines.counts.too_long += 1,
            })
        });
        if let Err(error) = result {
            broken
                .push(format!("{}: {error}", if path == Path::new(STDIN) { "standard input".into() } else { path.display().to_string() }));
        }
        counts.add(lines.counts);
    }
    let (value, told) = report.finish();
    for why in broken.iter().chain(&doubts(&counts)) {
        eprintln!("mustnot: {}", printable(why));
    }
    let code = concluded(&told, !broken.is_empty());
    let text = match args.format {
        FlowlogFormat::Json => value.to_string() + "\n",
        FlowlogFormat::Text => in_words(&told, kept, &counts, code),
    };
    match &args.output {
        None => console::say(text.trim_end()),
        Some(path) => {
            if let Err(why) = write_report(path, &text) {
                eprintln!("mustnot: {why}");
                return if code == EXIT_VIOLATED { code } else { EXIT_REPORT };
            }
        }
    }
    code
}

/// 1. a log contradicts what holds: violated
/// 2. a log broke off, or none says a word of any attempt: nothing is shown
/// 3. else what is said agrees
fn concluded(told: &[Told], broken: bool) -> u8 {
    match () {
        () if told.iter().any(|one| one.alarm.is_some()) => EXIT_VIOLATED, // 1
        () if broken || told.iter().all(|one| one.found.is_empty()) => EXIT_UNPROVEN, // 2
        () => EXIT_HOLDS,                                                  // 3
    }
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file: Box<dyn Read> = if path == Path::new(STDIN) { Box::new(io::stdin()) } else { Box::new(std::fs::File::open(path)?) };
    file.take(MAX_REPORT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_REPORT { Err(io::Error::other(format!("it is longer than {MAX_REPORT} bytes"))) } else { Ok(text) }
}

fn files(logs: &[PathBuf]) -> Vec<PathBuf> {
    let (stdin, paths): (Vec<PathBuf>, Vec<PathBuf>) = logs.iter().cloned().partition(|path| path == Path::new(STDIN));
    stdin.into_iter().take(1).chain(stream::files(&paths)).collect()
}

fn open(path: &Path) -> io::Result<Box<dyn io::BufRead>> {
    if path == Path::new(STDIN) { stream::decoded(io::stdin()) } else { stream::open(path) }
}

fn in_words(told: &[Told], kept: usize, counts: &Counts, code: u8) -> String {
    let mut lines = Vec::new();
    for one in told.iter().filter(|one| !one.outcomes.is_empty()) {
        let found: Vec<usize> = one.found.iter().map(|s| s.attempt).collect();
        let seen = (1..=one.outcomes.len()).filter(|nth| found.contains(nth)).count();
        let state = if one.alarm.is_some() { "contradicted" } else { one.verdict.as_str() };
        lines.push(format!("{state:<12}  {} {}: {seen} of {} attempts are in the logs", one.check, one.address, one.outcomes.len()));
        lines.extend(one.found.iter().map(|sighting| format!("    {}", line(sighting, &one.outcomes))));
        lines.extend(one.alarm.iter().map(|alarm| format!("    {alarm}")));
    }
    let end = match code {
        EXIT_VIOLATED => "A defence let in what was judged to be blocked.",
        EXIT_UNPROVEN if counts.matched == 0 => {
            "No line is about any of these attempts, which says nothing: see whether the logs are of that time and place, whether addresses are \
             translated on the way (--translated), and whether the clocks agree (--clock-skew)."
        }
        EXIT_UNPROVEN => "Not all of the logs could be read.",
        _ => "What the logs say agrees with the report.",
    };
    lines.push(format!("{} lines, {} of them about {kept} attempts. {end}", counts.lines, counts.matched));
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n") + "\n"
}

fn line(sighting: &Sighting, outcomes: &[String]) -> String {
    let outcome = sighting.attempt.checked_sub(1).and_then(|nth| outcomes.get(nth)).map_or("", String::as_str);
    let word = match sighting.word {
        Word::Rejected => "rejected",
        Word::LetIn => "let in",
        Word::Neither => "neither",
    };
    let place = match (sighting.way, sighting.place) {
        (Way::Back, _) => ", an answer",
        (Way::There, Place::Outgoing) => ", going out",
        (Way::There, Place::Incoming) => "",
        (Way::There, Place::Unknown) => ", at an interface of which the log does not say whose it is",
    };
    let more = [
        sighting.packets.map(|n| format!(", {n} packets")),
        sighting.why.as_ref().map(|why| format!(", {why}")),
        sighting.translated.then(|| ", by a translated address".to_string()),
    ];
    format!(
        "attempt {} ({outcome}): {word}: {}{place}{}, {} to {}",
        sighting.attempt,
        sighting.in_words(),
        more.into_iter().flatten().collect::<String>(),
        sighting.first,
        sighting.last
    )
}

//! `mustnot proxy lint`: a squid.conf on disk, and what it leaves open.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::{EXIT_HOLDS, EXIT_UNPROVEN, EXIT_VIOLATED, LintFormat, ProxyLint};
use crate::command::{console, usage};
use crate::config::printable;
use crate::severity::Severity;
use crate::squid::finding::{Finding, Id, Report};
use crate::squid::lint::{Setting, lint};
use crate::squid::read::Files;

/// The version of the JSON report.
const SCHEMA: u32 = 1;

/// Reads the file and tells what it leaves open.
pub fn proxy_lint(args: &ProxyLint) -> u8 {
    let file = args.file.display().to_string();
    let text = match std::fs::read(&args.file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) => return usage(&format!("{file} cannot be read ({e}); name a squid.conf")),
    };
    let setting = Setting { behind_load_balancer: args.behind_load_balancer, stop_timeout: args.stop_timeout };
    let disk = Disk { beside: args.file.parent().map(Path::to_path_buf).unwrap_or_default() };
    let report = lint(&file, &text, &disk, setting);
    let (code, text) = told(&file, &report, args);
    console::say(&text);
    code
}

/// The exit code and what is printed.
fn told(file: &str, report: &Report, args: &ProxyLint) -> (u8, String) {
    let accepted: BTreeSet<_> = args.accept.iter().copied().collect();
    let counts = |finding: &&Finding| !accepted.contains(&finding.id) && finding.severity != Severity::Info;
    let certain = report.findings.iter().filter(counts).filter(|finding| finding.certain).count();
    let may = report.findings.iter().filter(counts).filter(|finding| !finding.certain).count();
    let code = match (certain, may + report.not_judged.len()) {
        (0, 0) => EXIT_HOLDS,
        (0, _) => EXIT_UNPROVEN,
        _ => EXIT_VIOLATED,
    };
    let text = match args.format {
        LintFormat::Json => json(file, report, &accepted),
        LintFormat::Text => plain(file, report, &accepted, code),
    };
    (code, text)
}

fn plain(file: &str, report: &Report, accepted: &BTreeSet<Id>, code: u8) -> String {
    let mut lines = Vec::new();
    for finding in &report.findings {
        let Finding { id, severity, at, message, remedy, .. } = finding;
        let wanted = if accepted.contains(id) { ", accepted" } else { "" };
        lines.push(printable(&format!("{at}: {id}: {severity}{wanted}: {message}")));
        lines.extend(remedy.iter().filter(|_| wanted.is_empty()).map(|line| format!("    write: {line}")));
    }
    lines.extend(report.not_judged.iter().map(|left| printable(&format!("{}: not judged: {}", left.at, left.message))));
    let of = |severity: Severity| report.findings.iter().filter(|f| f.severity == severity && !accepted.contains(&f.id)).count();
    let [critical, warning, info] = Severity::ALL.map(of);
    let result = match code {
        EXIT_HOLDS => "nothing is left open",
        EXIT_UNPROVEN => "nothing was found that is surely open, but not all could be judged",
        _ => "it leaves open what it must not",
    };
    let not_judged = report.not_judged.len();
    lines.push(format!("{file}: {result}: {critical} critical, {warning} warning, {info} info, {not_judged} not judged"));
    lines.join("\n")
}

/// The report as JSON.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    file: &'a str,
    accepted: Vec<&'static str>,
    #[serde(flatten)]
    report: &'a Report,
}

fn json(file: &str, report: &Report, accepted: &BTreeSet<Id>) -> String {
    let document = Document { schema: SCHEMA, file, accepted: accepted.iter().map(|id| id.token()).collect(), report };
    serde_json::to_string_pretty(&document).unwrap_or_else(|e| format!("{{\"error\": \"{e}\"}}"))
}

/// The disk; what is named by a path that is not here is looked for beside the configuration, since a deployment's
/// `/etc/squid` is rarely that of the machine that judges it.
struct Disk {
    beside: PathBuf,
}

impl Disk {
    fn here(&self, path: &Path) -> PathBuf {
        let beside = path.file_name().map(|name| self.beside.join(name)).unwrap_or_default();
        if !path.exists() && beside.exists() { beside } else { path.to_path_buf() }
    }
}

impl Files for Disk {
    fn read(&self, path: &str) -> Result<String, String> {
        let here = self.here(Path::new(path));
        std::fs::read(here).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|e| e.to_string())
    }

    fn glob(&self, pattern: &str) -> Vec<String> {
        let path = Path::new(pattern);
        let Some((folder, name)) = path.parent().zip(path.file_name().and_then(|name| name.to_str())) else { return Vec::new() };
        if !name.contains(['*', '?']) {
            let here = self.here(path);
            return if here.exists() { vec![here.display().to_string()] } else { Vec::new() };
        }
        let beside = folder.file_name().map(|last| self.beside.join(last)).unwrap_or_default();
        let folder = if !folder.exists() && beside.is_dir() { beside } else { folder.to_path_buf() };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let fits = |path: &PathBuf| {
            path.file_name().and_then(|n| n.to_str()).is_some_and(|n| !n.starts_with('.') && wild(name.as_bytes(), n.as_bytes()))
        };
        let mut found: Vec<String> = entries.filter(|path| path.is_file() && fits(path)).map(|path| path.display().to_string()).collect();
        found.sort();
        found
    }
}

/// Whether the name fits the pattern: `*` is anything, `?` one byte (glob(7); sets in brackets are not known).
fn wild(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|at| name.get(at..).is_some_and(|tail| wild(rest, tail))),
        ([b'?', rest @ ..], [_, tail @ ..]) => wild(rest, tail),
        ([one, rest @ ..], [first, tail @ ..]) => one == first && wild(rest, tail),
        _ => false,
    }
}

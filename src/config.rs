//! The configuration: `probes.toml` read into a plan, or everything that is wrong with it, all at once.

pub mod duration;
mod environment;
mod keys;
mod problem;
mod reader;
mod syntax;
mod value;
mod written;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use keys::{Kind, every_key};
pub use problem::{At, Place, Problem, Problems};
pub use reader::{Context, Notes, did_you_mean, listed};
pub use written::{AdminPage, Beacon, Check, Common, Expect, File, Http, MAX_LABELS, OpenProxy, Own, Peer, Tls, Via};

use crate::plan::Plan;
use crate::plan::build;

/// What to do about a missing `beacon.key_file` of our own beacon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Make one: the beacon is going to run.
    Create,
    /// Let one in memory stand in for it: the file is only being looked at.
    Read,
}

/// A file that is right.
#[derive(Debug)]
pub struct Loaded {
    /// What it means.
    pub plan: Plan,
    /// What is legal in it and still worth a word, a line each, with its place.
    pub hints: Vec<String>,
    /// The key file that was made.
    pub created_key: Option<PathBuf>,
}

/// Reads a configuration file.
///
/// # Errors
/// Everything that is wrong with it; that it cannot be read is one such thing.
pub fn load(path: &Path, keys: Keys) -> Result<Loaded, Problems> {
    let file = path.display().to_string();
    let unreadable = |why: &str| Problems::single(Problem::unreadable(&file, why));
    let bytes = std::fs::read(path).map_err(|e| unreadable(&e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text"))?;
    let base = path.parent().unwrap_or(Path::new(""));
    from_text(&file, &text, base, &|name| std::env::var(name).ok(), keys)
}

/// Reads a configuration: `file` is its name in messages, relative file names in it start at `base_dir`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the text.
pub fn from_text(file: &str, text: &str, base_dir: &Path, env: &dyn Fn(&str) -> Option<String>, keys: Keys) -> Result<Loaded, Problems> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut notes = Notes::default();
    notes.problems.extend(errors.iter().map(|e| syntax::explain(text, e)));
    let context = Context {
        env,
        base_dir,
        broken: !errors.is_empty(),
        adrift: errors.iter().any(|e| syntax::in_header(text, e)),
        notes: RefCell::new(notes),
    };

    let top = reader::Section::new(document.get_ref(), Place { offset: 0, path: String::new() }, &context);
    let written = File::read(&top);
    let built = if context.broken { None } else { build::plan(written, &context, keys) };

    let mut notes = context.notes.into_inner();
    notes.masks.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
    notes.masks.dedup_by(|a, b| a.expose() == b.expose());
    let hints = Problem::locate(file, text, notes.hints, &notes.masks).iter().map(Problem::to_string).collect();
    match (Problems::of(Problem::locate(file, text, notes.problems, &notes.masks)), built) {
        (Some(problems), _) => Err(problems),
        (None, Some((plan, created_key))) => Ok(Loaded { plan: Plan { masks: notes.masks, ..plan }, hints, created_key }),
        (None, None) => Err(Problems::single(Problem::internal(file))),
    }
}

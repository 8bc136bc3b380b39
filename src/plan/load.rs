//! Loading: a configuration file read into a plan, or everything that is wrong with it, all at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Check, Plan, Template, build};
use crate::config::{self, Noted, Problems};
use crate::probe::Probe;
use crate::secret::Secret;
use crate::token::Key;

/// Where the key shared with the beacon comes from.
#[derive(Debug, Clone)]
pub enum Keys {
    /// From its file, which is made where it is missing: our own beacon is going to run.
    Create,
    /// Let one in memory stand in for a missing file: the configuration is only being looked at.
    Read,
    /// From here, whatever the configuration says.
    Given(Key),
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

/// A configuration as it was read, to be read again when a file of targets that it names has changed.
#[derive(Debug, Clone)]
pub struct Source {
    file: String,
    from_here: String,
    text: String,
    base_dir: PathBuf,
}

impl Source {
    /// Reads the file.
    ///
    /// # Errors
    /// That it cannot be read.
    pub fn read(path: &Path) -> Result<Source, Problems> {
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| Problems::unreadable(&file, &e.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| Problems::unreadable(&file, "it is not UTF-8 text"))?;
        Ok(Source { file, from_here: from_here(path), text, base_dir: path.parent().unwrap_or(Path::new("")).to_path_buf() })
    }

    /// The text as it may be shown: without comments and without secrets; `masks` is what came from the environment.
    pub fn shown(&self, masks: &[Secret]) -> String {
        config::shown(&self.text, masks)
    }

    /// The check that a template of the plan, which was made from this, is for this target.
    ///
    /// # Errors
    /// What is wrong with the target, for whom has named it.
    pub fn instance(&self, plan: &Plan, template: &Template, target: &str) -> Result<Check, String> {
        let env = |name: &str| std::env::var(name).ok();
        let (written, context) = config::read_instance(&self.text, &self.base_dir, &env, &template.name, target);
        let keys = plan.beacon.as_ref().map_or(Keys::Read, |beacon| Keys::Given(beacon.key.clone()));
        let built = build::plan(written, &context, &keys);
        let told = |problems: Problems| problems.iter().map(|problem| problem.message().to_string()).collect::<Vec<_>>().join("; ");
        context.noted(&self.file, &self.text).map_err(told)?;
        let check = built.and_then(|(plan, _)| plan.checks.into_iter().find(|check| check.name == template.name));
        let check = check.and_then(Arc::into_inner).ok_or("no check came of it; please report this")?;
        if matches!(&check.probe, Probe::Icmp(echo) if echo.target.network.is_some()) {
            return Err("a template has one target at a time; name one host".into());
        }
        Ok(Check { within: Some(Arc::clone(&template.within)), ..check })
    }

    /// Whether the other is the same text of the same file.
    pub fn is_same(&self, other: &Source) -> bool {
        (&self.file, &self.text) == (&other.file, &other.text)
    }

    /// What it means now.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self, keys: Keys) -> Result<Loaded, Problems> {
        let mut loaded = from_text(&self.file, &self.text, &self.base_dir, &|name| std::env::var(name).ok(), keys)?;
        loaded.plan.file = Some(self.from_here.clone());
        Ok(loaded)
    }
}

/// Reads a configuration file.
///
/// # Errors
/// Everything that is wrong with it; that it cannot be read is one such thing.
pub fn load(path: &Path, keys: Keys) -> Result<Loaded, Problems> {
    Source::read(path)?.load(keys)
}

/// The path as seen from the working directory, if it lies below that, for what reads a report in CI knows the repository only;
/// else the whole path.
fn from_here(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    let below = here.iter().find_map(|here| whole.strip_prefix(here).ok());
    below.unwrap_or(&whole).display().to_string()
}

/// Reads a configuration: `file` is its name in messages, relative file names in it start at `base_dir`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the text.
pub fn from_text(file: &str, text: &str, base_dir: &Path, env: &dyn Fn(&str) -> Option<String>, keys: Keys) -> Result<Loaded, Problems> {
    let (written, context) = config::read(text, base_dir, env);
    let built = if context.broken { None } else { build::plan(written, &context, &keys) };
    let Noted { hints, masks, depends_on } = context.noted(file, text)?;
    let (plan, created_key) = built.ok_or_else(|| Problems::internal(file))?;
    Ok(Loaded { plan: Plan { masks, depends_on, ..plan }, hints, created_key })
}

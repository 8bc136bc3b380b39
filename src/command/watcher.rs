//! The watcher: sees when a file of targets has changed, and hears when the configuration is to be read again; and what it means then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::expired;
use crate::config::{Problems, matching};
use crate::metrics::Metrics;
use crate::plan::{Keys, Loaded, Plan, Source};
use crate::token::Key;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(5);

/// What tells one state of a file from another: whoever replaces it changes one of these.
type Stamp = (PathBuf, Option<(SystemTime, u64, u64)>);

/// What a file of targets can change of a check: its name, one of its targets, its labels.
type Targets = (String, String, BTreeMap<String, String>);

/// The configuration, and the files of targets that it names.
pub struct Watcher {
    file: PathBuf,
    source: Source,
    hangups: watch::Receiver<u64>,
    key: Option<Key>,
    files: BTreeSet<PathBuf>,
    seen: Vec<Stamp>,
    targets: Vec<Targets>,
}

impl Watcher {
    /// A watcher of the files that the plan was made from; `hangups` counts how often the configuration itself was to be read again.
    pub fn new(file: &Path, source: Source, plan: &Plan, hangups: watch::Receiver<u64>) -> Watcher {
        // Nothing has been seen yet: what changed between the plan and the first look is not missed.
        Watcher {
            file: file.to_path_buf(),
            source,
            hangups,
            key: plan.beacon.as_ref().map(|beacon| beacon.key.clone()),
            files: plan.depends_on.clone(),
            seen: Vec::new(),
            targets: targets(plan),
        }
    }

    /// Waits until the files have changed, or SIGHUP came, and what they say now is right and `take` takes it. What is wrong is said,
    /// counted, and changes nothing: what was known stays.
    pub async fn changed(&mut self, metrics: &Metrics, take: impl Fn(&Plan) -> Result<(), String>) -> Arc<Plan> {
        loop {
            tokio::select! {
                // an error is the end of the program
                Ok(()) = self.hangups.changed() => {
                    match self.read_again(&take).await {
                        Ok(plan) => return plan,
                        Err(why) => {
                            metrics.reload_failed();
                            tracing::error!("SIGHUP: nothing is changed, all stays as it was: {why}");
                        }
                    }
                    continue;
                }
                () = tokio::time::sleep(EVERY) => {}
            }
            if self.files.is_empty() {
                continue;
            }
            let (source, files) = (self.source.clone(), self.files.clone());
            let seen = self.seen.clone();
            // Files may lie on a slow disk, and no probe is to wait for one.
            let looked = tokio::task::spawn_blocking(move || {
                let now = stamps(&files);
                let changed = now != seen;
                changed.then(|| (now, source.load(Keys::Read)))
            });
            let Ok(Some((now, loaded))) = looked.await else { continue };
            self.seen = now;
            match loaded {
                Ok(loaded) => {
                    let told = targets(&loaded.plan);
                    if told != self.targets {
                        self.targets = told;
                        tracing::info!("the targets have changed");
                        return Arc::new(loaded.plan);
                    }
                    metrics.reloaded();
                }
                Err(problems) => {
                    metrics.reload_failed();
                    for problem in problems.iter() {
                        tracing::error!("a file of targets has changed and is not taken over, the targets from before stay: {problem}");
                    }
                }
            }
        }
    }
}

impl Watcher {
    /// The configuration as it stands now.
    async fn read_again(&mut self, take: impl Fn(&Plan) -> Result<(), String>) -> Result<Arc<Plan>, String> {
        let (source, loaded) = read_anew(self.file.clone()).await?;
        // a missing key is stood in for by one that no beacon has, with which every proxy would seem to relay nothing
        if loaded.plan.beacon.as_ref().map(|beacon| &beacon.key) != self.key.as_ref() {
            return Err("the key that is shared with the beacon is not the one from before; restart to change it".into());
        }
        take(&loaded.plan)?;
        for hint in &loaded.hints {
            tracing::info!("hint: {hint}");
        }
        expired(&loaded.plan, &self.file, |_| true).iter().for_each(|line| tracing::warn!("{line}"));
        self.source = source;
        (self.files, self.seen, self.targets) = (loaded.plan.depends_on.clone(), Vec::new(), targets(&loaded.plan));
        Ok(Arc::new(loaded.plan))
    }
}

/// Reads a configuration file, off the threads that probe.
///
/// # Errors
/// Everything that is wrong with it, a line each.
pub async fn read_anew(file: PathBuf) -> Result<(Source, Loaded), String> {
    let read = tokio::task::spawn_blocking(move || {
        let source = Source::read(&file)?;
        let loaded = source.load(Keys::Read)?;
        Ok((source, loaded))
    });
    match read.await {
        Ok(read) => read.map_err(|problems: Problems| problems.to_string()),
        Err(bug) => Err(bug.to_string()),
    }
}

fn targets(plan: &Plan) -> Vec<Targets> {
    plan.checks.iter().map(|check| (check.name.clone(), check.target.clone(), check.labels.clone())).collect()
}

/// Every file that is meant, as it is now.
fn stamps(files: &BTreeSet<PathBuf>) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let one = |file: &Path| fs::metadata(file).ok().and_then(|data| Some((data.modified().ok()?, data.len(), data.ino())));
    let meant = files.iter().flat_map(|file| matching(file).unwrap_or_else(|_| vec![file.clone()]));
    meant.map(|file| (file.clone(), one(&file))).collect()
}

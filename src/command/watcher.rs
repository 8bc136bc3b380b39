//! The watcher: sees when a file of targets has changed, and what the configuration means then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::matching;
use crate::metrics::Metrics;
use crate::plan::{Keys, Plan, Source};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(5);

/// What tells one state of a file from another: whoever replaces it changes one of these.
type Stamp = (PathBuf, Option<(SystemTime, u64, u64)>);

/// What a file of targets can change of a check: its name, one of its targets, its labels.
type Targets = (String, String, BTreeMap<String, String>);

/// The files of targets that a configuration names.
pub struct Watcher {
    source: Source,
    files: BTreeSet<PathBuf>,
    seen: Vec<Stamp>,
    targets: Vec<Targets>,
}

impl Watcher {
    /// A watcher of the files that the plan was made from.
    pub fn new(source: Source, plan: &Plan) -> Watcher {
        // Nothing has been seen yet: what changed between the plan and the first look is not missed.
        Watcher { source, files: plan.depends_on.clone(), seen: Vec::new(), targets: targets(plan) }
    }

    /// Waits until the files have changed and what they say now is right. What is wrong is said, counted, and changes
    /// nothing: the targets that were known stay.
    pub async fn changed(&mut self, metrics: &Metrics) -> Arc<Plan> {
        loop {
            tokio::time::sleep(EVERY).await;
            if self.files.is_empty() {
                std::future::pending::<()>().await;
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

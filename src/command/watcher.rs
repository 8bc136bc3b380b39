//! The watcher: sees when a file of targets has changed, and hears when the configuration is to be read again; and what it means then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

use super::expired;
use super::operator::InForce;
use crate::config::{Problems, matching};
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::plan::{Keys, Loaded, Plan, Source};
use crate::token::Key;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(5);

/// A missing key is stood in for by one that no beacon has, with which every proxy would seem to relay nothing.
const OTHER_KEY: &str = "the key that is shared with the beacon is not the one from before; restart to change it";

/// Orders to read the configuration again that may wait; one reading is for all of them.
pub const MAX_WAITING: usize = 64;

/// What tells one state of a file from another: whoever replaces it changes one of these.
type Stamp = (PathBuf, Option<(SystemTime, u64, u64)>);

/// What a file of targets can change of a check: its name, one of its targets, its labels.
type Targets = (String, String, BTreeMap<String, String>);

/// Who has told to read the configuration again, and waits for what becomes of it.
pub type Order = oneshot::Sender<Result<String, String>>;

/// Another plan, and who waits until it is in force.
pub struct Change {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Who has told to read it.
    pub waiting: Vec<Order>,
}

/// The configuration, and the files of targets that it names.
pub struct Watcher {
    file: PathBuf,
    source: Source,
    hangups: watch::Receiver<u64>,
    orders: mpsc::Receiver<Order>,
    key: Option<Key>,
    plan: Arc<Plan>,
    seen: Vec<Stamp>,
    /// What was told to be read last is wrong: files of targets that are right make it no better.
    wrong: bool,
    in_force: Arc<RwLock<InForce>>,
}

/// Why the configuration is read.
enum Cause {
    /// SIGHUP, or those who have told so: one reading is for all who wait.
    Told(Vec<Order>),
    /// It is time to look at the files of targets.
    Look,
}

impl Watcher {
    /// A watcher of the files that the plan was made from; `hangups` counts how often the configuration itself was to be read again, and
    /// `orders` brings those who wait for it.
    pub fn new(file: &Path, source: Source, plan: &Arc<Plan>, hangups: watch::Receiver<u64>, orders: mpsc::Receiver<Order>) -> Watcher {
        // Nothing has been seen yet: what changed between the plan and the first look is not missed.
        Watcher {
            file: file.to_path_buf(),
            hangups,
            orders,
            key: plan.beacon.as_ref().map(|beacon| beacon.key.clone()),
            in_force: Arc::new(RwLock::new(InForce {
                shown: source.shown(&plan.masks),
                source: source.clone(),
                plan: Arc::clone(plan),
                engine: None,
            })),
            plan: Arc::clone(plan),
            seen: Vec::new(),
            wrong: false,
            source,
        }
    }

    /// The configuration in force, now and later.
    pub fn what_is_in_force(&self) -> Arc<RwLock<InForce>> {
        Arc::clone(&self.in_force)
    }

    /// This engine runs by what is in force.
    pub fn runs(&self, engine: &Arc<Engine>) {
        self.in_force.write().unwrap_or_else(PoisonError::into_inner).engine = Some(Arc::clone(engine));
    }

    /// What was read last is in force.
    pub fn in_force(&self, metrics: &Metrics) {
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        in_force.shown = self.source.shown(&self.plan.masks);
        (in_force.source, in_force.plan) = (self.source.clone(), Arc::clone(&self.plan));
        drop(in_force);
        self.reloaded(metrics);
    }

    fn reloaded(&self, metrics: &Metrics) {
        metrics.reloaded();
        if self.wrong {
            metrics.reload_failed();
        }
    }

    /// Waits until the checks have changed, in the configuration that was told to be read again or in the files of targets, and what they
    /// say now is right and `take` takes it. What is wrong is said, counted, and changes nothing: what was known stays.
    pub async fn changed(&mut self, metrics: &Metrics, take: impl Fn(&Plan) -> Result<(), String>) -> Change {
        loop {
            match self.cause().await {
                Cause::Told(waiting) => match self.read_again(&take).await {
                    Ok((plan, same_text)) => {
                        self.wrong = false;
                        let same_work = plan.probes_as(&self.plan);
                        // A key in a file of its own may be another one.
                        let same_text = same_text && plan.alerts == self.plan.alerts;
                        self.plan = Arc::clone(&plan);
                        if !same_work {
                            return Change { plan, waiting };
                        }
                        self.in_force(metrics);
                        let told = if same_text { "nothing has changed" } else { "the checks are the same" };
                        tracing::info!("the configuration was read again: {told}");
                        answer(waiting, &Ok(format!("reloaded: {told}")));
                    }
                    Err(why) => {
                        self.wrong = true;
                        metrics.reload_failed();
                        tracing::error!(
                            "told to read the configuration again (SIGHUP, /-/reload): nothing is changed, all stays as it was: {why}"
                        );
                        answer(waiting, &Err(why));
                    }
                },
                Cause::Look => {
                    if let Some(plan) = self.look_at_targets(metrics).await {
                        return Change { plan, waiting: Vec::new() };
                    }
                }
            }
        }
    }

    async fn cause(&mut self) -> Cause {
        let mut waiting = tokio::select! {
            // an error is the end of the program
            Ok(()) = self.hangups.changed() => Vec::new(),
            Some(order) = self.orders.recv() => vec![order],
            () = tokio::time::sleep(EVERY) => return Cause::Look,
        };
        self.hangups.mark_unchanged();
        while let Ok(order) = self.orders.try_recv() {
            waiting.push(order);
        }
        Cause::Told(waiting)
    }

    /// Another plan, where the files of targets have changed and say something else.
    async fn look_at_targets(&mut self, metrics: &Metrics) -> Option<Arc<Plan>> {
        if self.plan.depends_on.is_empty() {
            return None;
        }
        let (source, files) = (self.source.clone(), self.plan.depends_on.clone());
        let seen = self.seen.clone();
        // Files may lie on a slow disk, and no probe is to wait for one.
        let looked = tokio::task::spawn_blocking(move || {
            let now = stamps(&files);
            let changed = now != seen;
            changed.then(|| (now, source.load(Keys::Read)))
        });
        let (now, loaded) = looked.await.ok()??;
        self.seen = now;
        match loaded {
            Ok(loaded) if loaded.plan.beacon.as_ref().map(|beacon| &beacon.key) != self.key.as_ref() => {
                metrics.reload_failed();
                tracing::error!("a file of targets has changed and is not taken over: {OTHER_KEY}");
            }
            Ok(loaded) if targets(&loaded.plan) != targets(&self.plan) => {
                tracing::info!("the targets have changed");
                self.plan = Arc::new(loaded.plan);
                return Some(Arc::clone(&self.plan));
            }
            Ok(_) => self.reloaded(metrics),
            Err(problems) => {
                metrics.reload_failed();
                for problem in problems.iter() {
                    tracing::error!("a file of targets has changed and is not taken over, the targets from before stay: {problem}");
                }
            }
        }
        None
    }

    /// The configuration as it stands now, and whether its text is the one from before.
    async fn read_again(&mut self, take: impl Fn(&Plan) -> Result<(), String>) -> Result<(Arc<Plan>, bool), String> {
        let (source, loaded) = read_anew(self.file.clone()).await?;
        if loaded.plan.beacon.as_ref().map(|beacon| &beacon.key) != self.key.as_ref() {
            return Err(OTHER_KEY.into());
        }
        take(&loaded.plan)?;
        for hint in &loaded.hints {
            tracing::info!("hint: {hint}");
        }
        expired(&loaded.plan, &self.file, |_| true).iter().for_each(|line| tracing::warn!("{line}"));
        let same = source.is_same(&self.source);
        self.source = source;
        self.seen = Vec::new();
        Ok((Arc::new(loaded.plan), same))
    }
}

/// Tells everybody who waits what became of it; who waits no longer is not asked why.
pub fn answer(waiting: Vec<Order>, what: &Result<String, String>) {
    for order in waiting {
        let _ = order.send(what.clone());
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

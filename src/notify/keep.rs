//! Keeping: what alerts must survive a restart, in one small file of `state_dir`. What cannot be read or written is said, and stops nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::Said;
use crate::alert::scene::Known;
use crate::alert::sink::Sink;
use crate::alert::{ledger, outbox};
use crate::clock::Moment;
use crate::state::write_beside;

/// The file in `state_dir`.
const FILE: &str = "alerts.json";
/// The form of the file.
const VERSION: u32 = 1;
/// After what could not be written, the next try.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// What is written at the very end may take so long.
const LAST_WRITE: Duration = Duration::from_secs(5);
/// A share of the time goes into writing, at most one of so many parts, where nothing new is to be told: every message that is taken changes the file.
const PARTS: u32 = 5;

/// What stands in the file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    version: u32,
    /// Every check that was there.
    pub known: BTreeMap<String, Known>,
    /// By their names.
    pub sinks: BTreeMap<String, KeptSink>,
}

/// What is kept of one sink.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptSink {
    /// Where it was ([`crate::alert::sink::Sink::mark`]).
    pub mark: String,
    /// What is open there.
    pub open: Vec<ledger::Kept>,
    /// What waits for each of its places.
    pub waiting: Vec<Vec<outbox::Kept>>,
}

impl Kept {
    /// What is to be kept.
    pub fn new(known: BTreeMap<String, Known>, sinks: BTreeMap<String, KeptSink>) -> Kept {
        Kept { version: VERSION, known, sinks }
    }

    /// Takes what was kept of this sink: under its name; else, where nobody has that name now (`names`), of the very same place, which was renamed
    /// while nobody ran; else of the place that its name stood for.
    pub fn take(&mut self, sink: &Sink, names: &BTreeSet<String>) -> Option<KeptSink> {
        let mark = sink.mark();
        let own = self.sinks.get(&sink.name).filter(|kept| kept.mark == mark).map(|_| sink.name.clone());
        let renamed = || self.sinks.iter().find(|(name, kept)| kept.mark == mark && !names.contains(*name)).map(|(name, _)| name.clone());
        let name = own.or_else(renamed).unwrap_or_else(|| sink.name.clone());
        self.sinks.remove(&name)
    }

    /// What stands in the file. One that is none of ours is put aside: to begin anew tells too much, and not to run would tell nothing.
    fn read(path: &Path) -> Kept {
        let broken = |why: &str| {
            let aside = path.with_extension("json.broken");
            let where_now = match fs::rename(path, &aside) {
                Ok(()) => format!("it is {} now", aside.display()),
                Err(e) => format!("it cannot be put aside either ({e}), and is written over"),
            };
            tracing::error!(
                "{} is no memory of alerts: {why}; {where_now}. What is so is told anew; what was not taken before, and is over, is lost",
                path.display()
            );
            Kept::default()
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Kept::default(),
            Err(e) => return broken(&format!("it cannot be read ({e})")),
        };
        /// The form alone, whatever else is in it.
        #[derive(Deserialize)]
        struct Form {
            version: u32,
        }
        match serde_json::from_str(&text) {
            Ok(Form { version: VERSION }) => serde_json::from_str(&text).unwrap_or_else(|e| broken(&e.to_string())),
            Ok(Form { version }) => {
                broken(&format!("its form is {version}, and this program reads {VERSION}; was it written by a newer one?"))
            }
            Err(e) => broken(&e.to_string()),
        }
    }
}

/// The file, and what is being written to it: on a thread of its own, since the looking waits for no disk.
#[derive(Debug)]
pub(super) struct Keeper {
    file: Option<PathBuf>,
    writing: Option<JoinHandle<Result<Duration, String>>>,
    /// Nothing is written before, save what is new.
    not_before: Option<Moment>,
    /// The last time failed: not before then.
    again: Option<Moment>,
    said: Said,
}

impl Keeper {
    /// The file in that directory, if any, and what stands in it.
    pub fn open(state_dir: Option<&Path>) -> (Keeper, Kept) {
        let file = state_dir.map(|dir| dir.join(FILE));
        let kept = file.as_deref().map_or_else(Kept::default, Kept::read);
        (Keeper { file, writing: None, not_before: None, again: None, said: Said::default() }, kept)
    }

    /// Whether anything survives a restart.
    pub fn keeps(&self) -> bool {
        self.file.is_some()
    }

    /// Whether it can be written now; `urgent` where something new is to be told. What became of the last time is taken note of.
    pub fn ready(&mut self, urgent: bool, now: Moment) -> bool {
        if let Some(written) = self.writing.as_mut().and_then(|writing| writing.now_or_never()) {
            self.writing = None;
            self.note(written.unwrap_or_else(|bug| Err(bug.to_string())), now);
        }
        let later = if urgent { self.again } else { self.not_before.max(self.again) };
        self.file.is_some() && self.writing.is_none() && later.is_none_or(|later| later <= now)
    }

    /// The last time failed, and what was to be written then is not.
    pub fn owes(&self) -> bool {
        self.again.is_some()
    }

    fn note(&mut self, written: Result<Duration, String>, now: Moment) {
        match written {
            Ok(took) => {
                (self.again, self.not_before) = (None, Some(now + took * (PARTS - 1)));
                if self.said.is_over() {
                    tracing::info!("what alerts must survive a restart is written again");
                }
            }
            Err(why) => {
                self.again = Some(now + TRY_AGAIN);
                if self.said.is_news(&why, now) {
                    tracing::error!(
                        "{why}; after a restart some alerts may be told twice, and what was not taken by then may be lost. See that there is room, and that this \
                         user may write there; it is tried again"
                    );
                }
            }
        }
    }

    /// Begins to write it beside its place.
    pub fn write(&mut self, kept: Kept) {
        let Some(path) = self.file.clone() else { return };
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let began = Moment::now();
            let text = serde_json::to_string(&kept).map_err(std::io::Error::other);
            text.and_then(|text| write_beside(&path, &text)).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            Ok(Moment::now().since(began))
        }));
    }

    /// Waits until what is being written is, so that it can be written again, whatever came of it; not for ever, as a disk may.
    pub async fn done(&mut self) {
        if let Some(writing) = self.writing.take() {
            let written = match tokio::time::timeout(LAST_WRITE, writing).await {
                Ok(written) => written.unwrap_or_else(|bug| Err(bug.to_string())),
                Err(_) => Err(format!("{} was not written within {} s", FILE, LAST_WRITE.as_secs())),
            };
            self.note(written, Moment::now());
        }
        self.again = None;
    }
}

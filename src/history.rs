//! History: the newest record of every check, and recent ones; those that did not hold outlive the ring.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::clock::{Moment, Wall};
use crate::record::{About, Record};
use crate::verdict::Verdict;

/// Recent records that are kept of each check.
const RECENT: usize = 32;
/// Records that did not hold that are kept of each check besides.
const FAILURES: usize = 16;

/// The board that the engine writes and the readers read. Reading never waits for a probe.
#[derive(Debug)]
pub struct Board {
    checks: RwLock<Arc<Vec<Mutex<Entry>>>>,
    /// The newest violation of each check and target that nobody has asked for yet: one that is over before anybody looks
    /// must still be told.
    breaches: Mutex<BTreeMap<(String, String), Arc<Record>>>,
    turned: Notify,
}

#[derive(Debug, Clone)]
struct Entry {
    about: Arc<About>,
    newest: Arc<Record>,
    ran: bool,
    recent: VecDeque<Arc<Record>>,
    failures: VecDeque<Arc<Record>>,
    last_holds: Option<Wall>,
}

/// What a reader sees of one check at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The check.
    pub about: Arc<About>,
    /// Its newest record, as judged now.
    pub record: Arc<Record>,
    /// The record is not stale.
    pub fresh: bool,
    /// A run was finished.
    pub ran: bool,
    /// When it last held.
    pub last_holds: Option<Wall>,
}

impl Board {
    /// A board on which every check is pending.
    pub fn new(checks: Vec<Arc<About>>) -> Board {
        let checks = checks.into_iter().map(|about| Mutex::new(Entry::pending(about))).collect();
        Board { checks: RwLock::new(Arc::new(checks)), breaches: Mutex::default(), turned: Notify::new() }
    }

    /// Waits until a verdict has changed, or the checks have; at once where that was so since it was last waited for. For one
    /// who waits.
    pub async fn turned(&self) {
        self.turned.notified().await;
    }

    /// Every violation since this was last asked for, the newest of each check and target: also what is over by now.
    pub fn breaches(&self) -> Vec<Arc<Record>> {
        std::mem::take(&mut *self.breaches.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect()
    }

    fn note(&self, record: &Arc<Record>) {
        if matches!(record.verdict, Verdict::Violated(_)) {
            let key = (record.about.name.clone(), record.about.target.clone());
            self.breaches.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(record));
        }
    }

    /// Puts other checks on the board, in this order; those that stay keep what is known of them.
    pub fn change(&self, checks: Vec<Arc<About>>) {
        let old = self.checks();
        let stays = |about: &About| {
            let entry = old.iter().map(lock).find(|entry| (&entry.about.name, &entry.about.target) == (&about.name, &about.target))?;
            Some(entry.clone())
        };
        let entry = |about: Arc<About>| match stays(&about) {
            Some(entry) => {
                // What is known stays; what it is called, how bad it is and whether it is excepted is as in the new file.
                let newest = Arc::new(Record { about: Arc::clone(&about), ..Record::clone(&entry.newest) });
                Entry { about, newest, ..entry }
            }
            None => Entry::pending(about),
        };
        let new = checks.into_iter().map(|about| Mutex::new(entry(about))).collect();
        *self.checks.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        self.turned.notify_one();
    }

    /// Forgets what is known of a check that claims something else now: it is pending again.
    pub fn forget(&self, check: usize) {
        self.with(check, |entry| *entry = Entry::pending(Arc::clone(&entry.about)));
        self.turned.notify_one();
    }

    fn checks(&self) -> Arc<Vec<Mutex<Entry>>> {
        Arc::clone(&self.checks.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows a violation before its run is done. The finished record follows by [`Board::publish`].
    pub fn announce(&self, check: usize, record: Record) {
        let record = Arc::new(record);
        self.note(&record);
        self.with(check, |entry| entry.newest = record);
        self.turned.notify_one();
    }

    /// Puts a finished run's record on the board.
    pub fn publish(&self, check: usize, record: Record) {
        let record = Arc::new(record);
        self.note(&record);
        let mut turned = false;
        self.with(check, |entry| {
            turned = entry.newest.verdict.token() != record.verdict.token();
            if matches!(record.verdict, Verdict::Holds(_)) {
                entry.last_holds = Some(record.started_at);
            } else {
                push(&mut entry.failures, Arc::clone(&record), FAILURES);
            }
            push(&mut entry.recent, Arc::clone(&record), RECENT);
            entry.ran = true;
            entry.newest = record;
        });
        if turned {
            self.turned.notify_one();
        }
    }

    /// Adds to the record of the run of this check that began then what is known of it since, wherever the record is kept; whether `add`
    /// says that there was something to add.
    pub fn join(&self, about: &About, began: Moment, mut add: impl FnMut(&mut Record) -> bool) -> Option<Arc<Record>> {
        for mut entry in self.checks().iter().map(lock) {
            if (&entry.about.name, &entry.about.target) != (&about.name, &about.target) {
                continue;
            }
            let kept = [&entry.newest].into_iter().chain(&entry.recent).chain(&entry.failures).find(|r| r.began == began)?;
            let mut record = Record::clone(kept);
            if !add(&mut record) {
                return None;
            }
            let record = Arc::new(record);
            let Entry { newest, recent, failures, .. } = &mut *entry;
            for place in [newest].into_iter().chain(recent).chain(failures).filter(|r| r.began == began) {
                *place = Arc::clone(&record);
            }
            return Some(record);
        }
        None
    }

    /// Every check as it stands at `now`, in the order of the file.
    pub fn read(&self, now: Moment) -> Vec<Reading> {
        self.checks().iter().map(|entry| reading(&lock(entry), now)).collect()
    }

    /// One check's recent records of all its targets, the newest first, and the older ones that did not hold.
    pub fn recent(&self, name: &str) -> Option<Vec<Arc<Record>>> {
        let mut kept: Option<Vec<Arc<Record>>> = None;
        for entry in self.checks().iter().map(lock) {
            if entry.about.name == name {
                kept.get_or_insert_default().extend(entry.kept());
            }
        }
        if let Some(records) = &mut kept {
            records.sort_by_key(|r| Reverse(r.began));
        }
        kept
    }

    /// Whether every check has run once.
    pub fn all_ran(&self) -> bool {
        self.checks().iter().all(|entry| lock(entry).ran)
    }

    fn with(&self, check: usize, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.checks().get(check) {
            change(&mut lock(entry));
        }
    }
}

fn lock(entry: &Mutex<Entry>) -> MutexGuard<'_, Entry> {
    entry.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    fn pending(about: Arc<About>) -> Entry {
        let newest = Arc::new(Record::pending(Arc::clone(&about), Moment::now(), Wall::now()));
        Entry { about, newest, ran: false, recent: VecDeque::new(), failures: VecDeque::new(), last_holds: None }
    }

    /// The ring, and what the ring has lost of the records that did not hold.
    fn kept(&self) -> impl Iterator<Item = Arc<Record>> {
        let oldest = self.recent.front().map(|r| r.began);
        let older = self.failures.iter().filter(move |r| oldest.is_some_and(|o| r.began < o));
        self.recent.iter().chain(older).cloned()
    }
}

fn reading(entry: &Entry, now: Moment) -> Reading {
    let fresh = entry.newest.is_fresh(now);
    let record = if fresh { Arc::clone(&entry.newest) } else { Arc::new(entry.newest.as_read(now)) };
    Reading { about: Arc::clone(&entry.about), record, fresh, ran: entry.ran, last_holds: entry.last_holds }
}

fn push(ring: &mut VecDeque<Arc<Record>>, record: Arc<Record>, bound: usize) {
    ring.push_back(record);
    while ring.len() > bound {
        ring.pop_front();
    }
}

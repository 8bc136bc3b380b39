//! History: the newest record of every check, and recent ones; those that did not hold outlive the ring.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

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
    checks: Vec<Mutex<Entry>>,
}

#[derive(Debug)]
struct Entry {
    about: Arc<About>,
    newest: Record,
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
    pub record: Record,
    /// A run was finished.
    pub ran: bool,
    /// When it last held.
    pub last_holds: Option<Wall>,
}

impl Board {
    /// A board on which every check is pending.
    pub fn new(checks: Vec<Arc<About>>) -> Board {
        let (at, wall) = (Moment::now(), Wall::now());
        let entry = |about: Arc<About>| {
            let newest = Record::pending(Arc::clone(&about), at, wall);
            Mutex::new(Entry { about, newest, ran: false, recent: VecDeque::new(), failures: VecDeque::new(), last_holds: None })
        };
        Board { checks: checks.into_iter().map(entry).collect() }
    }

    /// Shows a violation before its run is done. The finished record follows by [`Board::publish`].
    pub fn announce(&self, check: usize, record: Record) {
        self.with(check, |entry| entry.newest = record);
    }

    /// Puts a finished run's record on the board.
    pub fn publish(&self, check: usize, record: Record) {
        self.with(check, |entry| {
            let kept = Arc::new(record.clone());
            if matches!(record.verdict, Verdict::Holds(_)) {
                entry.last_holds = Some(record.started_at);
            } else {
                push(&mut entry.failures, Arc::clone(&kept), FAILURES);
            }
            push(&mut entry.recent, kept, RECENT);
            entry.ran = true;
            entry.newest = record;
        });
    }

    /// Every check as it stands at `now`, in the order of the file.
    pub fn read(&self, now: Moment) -> Vec<Reading> {
        self.checks.iter().map(|entry| reading(&entry.lock().unwrap_or_else(PoisonError::into_inner), now)).collect()
    }

    /// One check's recent records, the newest first, and the older ones that did not hold.
    pub fn recent(&self, name: &str) -> Option<Vec<Arc<Record>>> {
        let entries = self.checks.iter().map(|e| e.lock().unwrap_or_else(PoisonError::into_inner));
        let entry = entries.into_iter().find(|e| e.about.name == name)?;
        let oldest = entry.recent.front().map(|r| r.began);
        let older = entry.failures.iter().filter(|r| oldest.is_some_and(|o| r.began < o));
        Some(entry.recent.iter().rev().chain(older.rev()).cloned().collect())
    }

    /// Whether every check has run once.
    pub fn all_ran(&self) -> bool {
        self.checks.iter().all(|entry| entry.lock().unwrap_or_else(PoisonError::into_inner).ran)
    }

    fn with(&self, check: usize, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.checks.get(check) {
            change(&mut entry.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

fn reading(entry: &Entry, now: Moment) -> Reading {
    Reading { about: Arc::clone(&entry.about), record: entry.newest.as_read(now), ran: entry.ran, last_holds: entry.last_holds }
}

fn push(ring: &mut VecDeque<Arc<Record>>, record: Arc<Record>, bound: usize) {
    ring.push_back(record);
    while ring.len() > bound {
        ring.pop_front();
    }
}

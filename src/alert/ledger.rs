//! The ledger of one sink: what it was told is open, and what it is to be told next. Pure: every clock is handed in.
//!
//! What happens to an alert, the first rule that applies:
//!
//! 1. A violation is opened at the look that sees it, also where it is over by then. Nothing delays or damps it.
//! 2. Anything else is opened when it has been so, without a break, for as long as the rules say.
//! 3. What is open and still so is told again after `repeat_interval`.
//! 4. What is open ends at once, with a word, where nobody can say more of it: its check was taken away, goes elsewhere, or has other labels.
//! 5. What is open and over ends when it has been over, without a break, for `keep_firing_for`: what comes and goes is told once. A violation is
//!    over with a run that holds, and with nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scene::{Condition, Now, Scene, What};
use super::sink::Rules;
use super::{Alert, Key, Labels, Name, words};
use crate::clock::{Moment, Wall};

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The alert.
    pub alert: Alert,
    /// It was told before, and is still so.
    pub repeated: bool,
}

/// What one sink knows.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    pending: BTreeMap<Key, Moment>,
    firing: BTreeMap<Key, Firing>,
}

#[derive(Debug, Clone)]
struct Firing {
    starts_at: Wall,
    annotations: Labels,
    told: Moment,
    /// Since when it is over.
    over: Option<Moment>,
}

/// An alert that was told and is open, in the words of the file that is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    key: Key,
    starts_at: Wall,
    annotations: Labels,
    told: Wall,
}

impl Ledger {
    /// The ledger as it was kept; how long what is over has been so begins anew.
    pub fn recalled(kept: Vec<Kept>, now: Moment, wall: Wall) -> Ledger {
        let firing = kept.into_iter().map(|kept| {
            let told = now - wall.since(kept.told);
            (kept.key, Firing { starts_at: kept.starts_at, annotations: kept.annotations, told, over: None })
        });
        Ledger { pending: BTreeMap::new(), firing: firing.collect() }
    }

    /// What must survive a restart.
    pub fn kept(&self, now: Moment, wall: Wall) -> Vec<Kept> {
        let each = self.firing.iter().map(|(key, firing)| Kept {
            key: key.clone(),
            starts_at: firing.starts_at,
            annotations: firing.annotations.clone(),
            told: wall.before(now.since(firing.told)),
        });
        each.collect()
    }

    /// Forgets that the others were told.
    pub fn keep(&mut self, these: impl Fn(&Key) -> bool) {
        self.firing.retain(|key, _| these(key));
    }

    /// What is to be told after this look, in this order.
    pub fn look(&mut self, scene: &Scene<'_>, conditions: &[Condition<'_>], rules: &Rules) -> Vec<Note> {
        let mut notes = Vec::new();
        let wanted = |condition: &&Condition<'_>| rules.want(condition.key.severity(), condition.check);
        for condition in scene.breached().filter(|condition| wanted(&condition)) {
            if !self.firing.contains_key(&condition.key) {
                notes.push(self.open_one(&condition, scene, Duration::ZERO));
            }
        }
        let (mut so, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
        for condition in conditions {
            if wanted(&condition) {
                so.insert(&condition.key);
                notes.extend(self.still_so(condition, scene, rules));
            } else {
                elsewhere.insert(&condition.key);
            }
        }
        self.pending.retain(|key, _| so.contains(key));
        let over: Vec<Key> = self.firing.keys().filter(|key| !so.contains(key)).cloned().collect();
        for key in over {
            notes.extend(self.over(&key, elsewhere.contains(&key), scene, rules));
        }
        notes
    }

    fn still_so(&mut self, condition: &Condition<'_>, scene: &Scene<'_>, rules: &Rules) -> Option<Note> {
        let lasts = lasts(&condition.what, rules);
        if let Some(firing) = self.firing.get_mut(&condition.key) {
            firing.over = None;
            firing.annotations = words::annotations(condition, scene, lasts);
            return repeat(&condition.key, firing, scene.now, rules);
        }
        if condition.now == Now::Undecided {
            return None;
        }
        let since = *self.pending.entry(condition.key.clone()).or_insert(scene.now);
        if scene.now.since(since) < lasts {
            return None;
        }
        self.pending.remove(&condition.key);
        Some(self.open_one(condition, scene, lasts))
    }

    fn open_one(&mut self, condition: &Condition<'_>, scene: &Scene<'_>, lasts: Duration) -> Note {
        let annotations = words::annotations(condition, scene, lasts);
        let firing = Firing { starts_at: scene.wall, annotations, told: scene.now, over: None };
        let alert = alert(&condition.key, &firing);
        self.firing.insert(condition.key.clone(), firing);
        Note { alert, repeated: false }
    }

    fn over(&mut self, key: &Key, elsewhere: bool, scene: &Scene<'_>, rules: &Rules) -> Option<Note> {
        let firing = self.firing.get_mut(key)?;
        let gone = scene
            .gone(key)
            .or_else(|| elsewhere.then(|| "it goes on, and is no longer told here: the rules of this sink have changed".to_string()));
        let since = *firing.over.get_or_insert(scene.now);
        if gone.is_none() && scene.now.since(since) < rules.keep_firing_for {
            return repeat(key, firing, scene.now, rules);
        }
        let mut alert = alert(key, firing);
        let why = gone.unwrap_or_else(|| words::better(key, scene.record_of(key)));
        alert.annotations.insert("resolved".into(), why);
        alert.ends_at = Some(scene.wall.max(alert.starts_at));
        self.firing.remove(key);
        Some(Note { alert, repeated: false })
    }
}

/// How long it must be so before it is told.
fn lasts(what: &What<'_>, rules: &Rules) -> Duration {
    match what.name() {
        Name::Unproven => rules.unproven_for,
        Name::Stale => rules.stale_for,
        other => other.lasts(),
    }
}

fn repeat(key: &Key, firing: &mut Firing, now: Moment, rules: &Rules) -> Option<Note> {
    if now.since(firing.told) < rules.repeat_interval {
        return None;
    }
    firing.told = now;
    Some(Note { alert: alert(key, firing), repeated: true })
}

fn alert(key: &Key, firing: &Firing) -> Alert {
    Alert { key: key.clone(), annotations: firing.annotations.clone(), starts_at: firing.starts_at, ends_at: None }
}

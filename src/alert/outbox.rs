//! The outbox of one place: what it has not taken yet. Bounded, since there is one entry an alert, however often that turns; and
//! patient, since nothing in it grows old. Pure: every clock is handed in, and so is chance.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ledger::Note;
use super::{Alert, Key, Name};
use crate::clock::Moment;
use crate::severity::Severity;

/// Messages that wait at most, besides violations: more than three an alert of a thousand checks. What is least important goes first; a
/// violation never does.
pub const MAX_WAITING: usize = 4096;
/// The longest pause between two tries while a place does not answer.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause after a message was refused in a way that trying again does not mend: somebody has to, there or here.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(600);
/// The longest pause that a place may ask for: longer would be silence.
pub const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// What is new and urgent waits no longer than this for a place that did not answer.
const URGENT_PAUSE: Duration = Duration::from_secs(1);

/// Everything that one place has not taken yet.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    slots: BTreeMap<Key, Slot>,
    count: u64,
    failures: u32,
    not_before: Option<Moment>,
    last_try: Option<Moment>,
    asked_to_wait: bool,
}

/// What waits of one alert: that it is so, and then that it is over.
#[derive(Debug, Clone, Default)]
struct Slot {
    firing: Option<Waiting>,
    resolved: Option<Waiting>,
}

#[derive(Debug, Clone)]
struct Waiting {
    note: Note,
    rank: Rank,
    number: u64,
    since: Moment,
    tries: u32,
    not_before: Option<Moment>,
    on_its_way: bool,
}

/// A message that waits, in the words of the file that is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    alert: Alert,
    repeated: bool,
    tried: bool,
}

/// A message that is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it tells.
    pub alert: Alert,
    number: u64,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Send these.
    Send(Vec<Message>),
    /// Nothing before this has passed, unless something new comes.
    Wait(Duration),
    /// Nothing waits.
    Idle,
}

impl Outbox {
    /// The outbox as it was kept.
    pub fn recalled(kept: Vec<Kept>, now: Moment) -> Outbox {
        let mut outbox = Outbox::default();
        for Kept { alert, repeated, tried } in kept {
            outbox.count += 1;
            let (key, ends) = (alert.key.clone(), alert.ends_at.is_some());
            let note = Note { alert, repeated };
            let waiting = Waiting {
                rank: rank(&note),
                note,
                number: outbox.count,
                since: now,
                tries: tried.into(),
                not_before: None,
                on_its_way: false,
            };
            let slot = outbox.slots.entry(key).or_default();
            *(if ends { &mut slot.resolved } else { &mut slot.firing }) = Some(waiting);
        }
        outbox
    }

    /// What must survive a restart.
    pub fn kept(&self) -> Vec<Kept> {
        let waiting = self.slots.values().flat_map(|slot| [&slot.firing, &slot.resolved]).flatten();
        waiting.map(|w| Kept { alert: w.note.alert.clone(), repeated: w.note.repeated, tried: w.tries > 0 || w.on_its_way }).collect()
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.slots.values().flat_map(|slot| [&slot.firing, &slot.resolved]).flatten().count()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Since when the oldest critical alert waits that is so, and that nobody was told of there.
    pub fn critical_since(&self) -> Option<Moment> {
        let critical = |w: &&Waiting| !w.note.repeated && w.note.alert.key.severity() == Severity::Critical;
        self.slots.values().filter_map(|slot| slot.firing.as_ref()).filter(critical).map(|waiting| waiting.since).min()
    }

    /// Whether all that waits was refused: trying again soon mends nothing.
    pub fn only_refused(&self) -> bool {
        let mut waiting = self.slots.values().map(|slot| slot.firing.as_ref().or(slot.resolved.as_ref()));
        waiting.all(|waiting| waiting.is_some_and(|waiting| waiting.not_before.is_some()))
    }

    /// The end is near: whatever waits is tried now.
    pub fn hurry(&mut self) {
        self.not_before = None;
        let waiting = self.slots.values_mut().flat_map(|slot| [&mut slot.firing, &mut slot.resolved]).flatten();
        waiting.for_each(|waiting| waiting.not_before = None);
    }

    /// Takes a message in; how many were given up for want of room.
    pub fn put(&mut self, note: Note, now: Moment) -> usize {
        self.count += 1;
        let urgent = note.alert.is_breach() && !note.repeated;
        let key = note.alert.key.clone();
        let mut new = Waiting { rank: rank(&note), note, number: self.count, since: now, tries: 0, not_before: None, on_its_way: false };
        let slot = self.slots.entry(key.clone()).or_default();
        if new.note.alert.ends_at.is_none() {
            // It is so again: that it was over need not be told any more.
            slot.resolved = slot.resolved.take().filter(|waiting| waiting.on_its_way);
            if let Some(old) = &slot.firing {
                // One message of it is enough, in the newest words. What was refused is no less so.
                new.note.repeated &= old.note.repeated;
                new.rank = rank(&new.note);
                (new.since, new.tries, new.not_before) = (old.since, old.tries, if urgent { None } else { old.not_before });
            }
            slot.firing = Some(new);
        } else {
            // Who was never told that it is so need not be told that it is over; of a violation everybody is told.
            let untold = slot.firing.as_ref().is_some_and(|w| !w.note.repeated && w.tries == 0 && !w.on_its_way);
            let repeated = slot.firing.as_ref().is_some_and(|w| w.note.repeated);
            if untold && !key.is(Name::Violated) {
                self.slots.remove(&key);
                return 0;
            }
            if repeated {
                slot.firing = None;
            }
            slot.resolved = Some(new);
        }
        if urgent && !self.asked_to_wait {
            let soon = self.last_try.map_or(now, |last| last + URGENT_PAUSE);
            self.not_before = self.not_before.map(|later| later.min(soon));
        }
        self.make_room()
    }

    fn make_room(&mut self) -> usize {
        let mut given_up = 0;
        // The count comes before the search, so that an outbox with room pays nothing.
        while self.slots.len() > MAX_WAITING / 2 && self.len() > MAX_WAITING {
            let all = self.slots.iter().flat_map(|(key, slot)| [(key, &slot.firing, false), (key, &slot.resolved, true)]);
            let least = all
                .filter_map(|(key, waiting, ends)| waiting.as_ref().map(|w| ((w.rank, w.number), key, ends)))
                .max_by_key(|(rank, ..)| *rank);
            let Some((rank, key, ends)) = least.map(|((rank, _), key, ends)| (rank, key.clone(), ends)) else { break };
            if matches!(rank, Rank::Breach(_)) {
                break;
            }
            if let Some(slot) = self.slots.get_mut(&key) {
                if ends { slot.resolved = None } else { slot.firing = None }
            }
            self.drop_if_empty(&key);
            given_up += 1;
        }
        given_up
    }

    /// What is to be sent now, the most important first; at most so many at once.
    pub fn next(&mut self, now: Moment, most: usize) -> Next {
        if self.slots.is_empty() {
            return Next::Idle;
        }
        if let Some(wait) = self.not_before.map(|later| later.since(now)).filter(|wait| !wait.is_zero()) {
            return Next::Wait(wait);
        }
        let mut due: Vec<(Rank, u64, &Key, bool)> = Vec::new();
        let mut soonest: Option<Duration> = None;
        for (key, slot) in &self.slots {
            // That it is over is told after that it was so.
            let (waiting, ends) = match (&slot.firing, &slot.resolved) {
                (Some(firing), _) => (firing, false),
                (None, Some(resolved)) => (resolved, true),
                (None, None) => continue,
            };
            if waiting.on_its_way {
                continue;
            }
            let wait = waiting.not_before.map_or(Duration::ZERO, |later| later.since(now));
            if wait.is_zero() {
                due.push((waiting.rank, waiting.number, key, ends));
            } else {
                soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait)));
            }
        }
        if due.is_empty() {
            return soonest.map_or(Next::Idle, Next::Wait);
        }
        due.sort_unstable();
        let chosen: Vec<(Key, bool)> = due.into_iter().take(most).map(|(_, _, key, ends)| (key.clone(), ends)).collect();
        let mut messages = Vec::new();
        for (key, ends) in chosen {
            let slot = self.slots.get_mut(&key);
            let waiting = slot.and_then(|slot| if ends { slot.resolved.as_mut() } else { slot.firing.as_mut() });
            if let Some(waiting) = waiting {
                waiting.on_its_way = true;
                messages.push(Message { alert: waiting.note.alert.clone(), number: waiting.number });
            }
        }
        self.last_try = Some(now);
        Next::Send(messages)
    }

    /// The place has taken these. Where it was told only now that something was so, it is told that it is over no sooner than `apart`:
    /// an Alertmanager that hears both at once tells nobody of either.
    pub fn taken(&mut self, messages: &[Message], apart: Duration, now: Moment) {
        (self.failures, self.not_before, self.asked_to_wait) = (0, None, false);
        for message in messages {
            let key = &message.alert.key;
            let Some(slot) = self.slots.get_mut(key) else { continue };
            let mut news = false;
            for place in [&mut slot.firing, &mut slot.resolved] {
                if let Some(waiting) = place.take_if(|waiting| waiting.number == message.number) {
                    news = !waiting.note.repeated && waiting.note.alert.ends_at.is_none();
                    break;
                }
            }
            // What came in meanwhile, in newer words, goes too; it is no longer the first that is told.
            if let Some(firing) = slot.firing.as_mut().filter(|_| message.alert.ends_at.is_none()) {
                (firing.note.repeated, firing.tries, firing.on_its_way) = (true, 0, false);
                firing.rank = rank(&firing.note);
            }
            if let Some(resolved) = slot.resolved.as_mut().filter(|_| news && !apart.is_zero()) {
                resolved.not_before = Some(now + apart);
            }
            self.drop_if_empty(key);
        }
    }

    /// The place did not answer, or asks to wait: nothing goes there for a while. `chance` is from 0 to 1, so that many monitors do not
    /// all come back at once.
    pub fn failed(&mut self, messages: &[Message], asked: Option<Duration>, now: Moment, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        let pause = pause(self.failures, chance);
        self.asked_to_wait = asked.is_some();
        self.not_before = Some(now + asked.map_or(pause, |asked| asked.min(LONGEST_ASKED).max(pause)));
        self.tried(messages, None);
    }

    /// The place will not take these as they are: they wait for long, and the others go on.
    pub fn refused(&mut self, messages: &[Message], now: Moment, chance: f64) {
        (self.failures, self.not_before, self.asked_to_wait) = (0, None, false);
        self.tried(messages, Some(now + REFUSED_PAUSE.mul_f64(0.75 + chance / 2.0)));
    }

    fn tried(&mut self, messages: &[Message], not_before: Option<Moment>) {
        for message in messages {
            let Some(slot) = self.slots.get_mut(&message.alert.key) else { continue };
            let ends = message.alert.ends_at.is_some();
            if ends && slot.firing.as_ref().is_some_and(|firing| firing.number > message.number) {
                // It is so again: told now, that it was over would be the last word.
                slot.resolved = None;
                continue;
            }
            let waiting = if ends { slot.resolved.as_mut() } else { slot.firing.as_mut() };
            if let Some(waiting) = waiting {
                waiting.on_its_way = false;
                waiting.tries = waiting.tries.saturating_add(1);
                waiting.not_before = not_before;
            }
        }
    }

    fn drop_if_empty(&mut self, key: &Key) {
        if self.slots.get(key).is_some_and(|slot| slot.firing.is_none() && slot.resolved.is_none()) {
            self.slots.remove(key);
        }
    }
}

/// How important a message is; the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Breach(Severity),
    Firing(Severity),
    Resolved,
    Repeated,
}

fn rank(note: &Note) -> Rank {
    let severity = note.alert.key.severity();
    match (note.alert.is_breach(), note.alert.ends_at.is_some(), note.repeated) {
        (_, true, _) => Rank::Resolved,
        (_, false, true) => Rank::Repeated,
        (true, false, false) => Rank::Breach(severity),
        (false, false, false) => Rank::Firing(severity),
    }
}

/// The pause after so many failures: twice as long each time, to a bound, less up to a half by chance.
fn pause(failures: u32, chance: f64) -> Duration {
    let whole = Duration::from_secs(1) * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    whole.min(LONGEST_PAUSE).mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
}

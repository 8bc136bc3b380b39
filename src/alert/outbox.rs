//! The outbox of one place: what it has not taken yet. Bounded, since there is one entry an alert, however often that turns; and
//! patient, since nothing in it grows old. Pure: every clock is handed in, and so is chance.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ledger::Note;
use super::{Alert, Key, Name};
use crate::clock::{Moment, Wall};
use crate::severity::Severity;

/// Messages that wait at most, besides violations and their ends: more than three an alert of a thousand checks. What is least important goes first.
/// Violations are as many as there are checks: none is given up, nor that it is over, without which a pager would ring for ever.
pub const MAX_WAITING: usize = 4096;
/// The longest pause between two tries while a place does not answer.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause after a message was refused in a way that trying again does not mend: somebody has to, there or here.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(600);
/// The longest pause that a place may ask for: longer would be silence. Less than the 15 minutes for which the rules of Prometheus look back.
pub const LONGEST_ASKED: Duration = Duration::from_secs(600);
/// What is new and urgent waits no longer than this for a place that did not answer.
const URGENT_PAUSE: Duration = Duration::from_secs(1);

/// Everything that one place has not taken yet.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    slots: BTreeMap<Key, Slot>,
    count: u64,
    /// Tries in a row that got no answer, or a place that asked to wait.
    failures: u32,
    /// Tries in a row that were refused.
    refusals: u32,
    not_before: Option<Moment>,
    last_try: Option<Moment>,
    asked_to_wait: bool,
    /// A violation came in since the last try began.
    urgent: bool,
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
    /// It was refused, and is not tried again before.
    not_before: Option<Moment>,
    /// That it was so was told only now: that it is over is not told before.
    apart: Option<Moment>,
    on_its_way: bool,
}

/// A message that waits, in the words of the file that is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    alert: Alert,
    repeated: bool,
    tried: bool,
    apart: Option<Wall>,
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
    pub fn recalled(kept: Vec<Kept>, now: Moment, wall: Wall) -> Outbox {
        let mut outbox = Outbox::default();
        for Kept { alert, repeated, tried, apart } in kept {
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
                // However far the clock was turned since.
                apart: apart.map(|until| now + until.since(wall).min(REFUSED_PAUSE)),
                on_its_way: false,
            };
            let slot = outbox.slots.entry(key).or_default();
            *(if ends { &mut slot.resolved } else { &mut slot.firing }) = Some(waiting);
        }
        outbox
    }

    /// What must survive a restart.
    pub fn kept(&self, now: Moment, wall: Wall) -> Vec<Kept> {
        let waiting = self.slots.values().flat_map(|slot| [&slot.firing, &slot.resolved]).flatten();
        let each = waiting.map(|w| Kept {
            alert: w.note.alert.clone(),
            repeated: w.note.repeated,
            tried: w.tries > 0 || w.on_its_way,
            apart: w.apart.map(|until| wall.after(until.since(now))),
        });
        each.collect()
    }

    /// Whether it is still to be told that this is so.
    pub fn opens(&self, key: &Key) -> bool {
        self.slots.get(key).is_some_and(|slot| slot.firing.is_some())
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.slots.values().flat_map(|slot| [&slot.firing, &slot.resolved]).flatten().count()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Since when the oldest violation waits that nobody was told of there.
    pub fn breach_since(&self) -> Option<Moment> {
        let untold = |w: &&Waiting| !w.note.repeated && w.note.alert.is_breach();
        self.slots.values().filter_map(|slot| slot.firing.as_ref()).filter(untold).map(|waiting| waiting.since).min()
    }

    /// Whether all that waits was refused, or is not to be told yet: trying again soon mends nothing.
    pub fn only_later(&self) -> bool {
        let mut waiting = self.slots.values().map(|slot| slot.firing.as_ref().or(slot.resolved.as_ref()));
        waiting.all(|waiting| waiting.is_some_and(|waiting| waiting.not_before.or(waiting.apart).is_some()))
    }

    /// Whatever waits is tried now: the end is near, or something was changed that may have been what was wrong.
    pub fn hurry(&mut self) {
        (self.not_before, self.asked_to_wait, self.failures, self.refusals) = (None, false, 0, 0);
        let waiting = self.slots.values_mut().flat_map(|slot| [&mut slot.firing, &mut slot.resolved]).flatten();
        waiting.for_each(|waiting| waiting.not_before = None);
    }

    /// Takes a message in.
    pub fn put(&mut self, note: Note, now: Moment) {
        self.count += 1;
        let urgent = note.alert.is_breach() && !note.repeated;
        let key = note.alert.key.clone();
        let mut new =
            Waiting { rank: rank(&note), note, number: self.count, since: now, tries: 0, not_before: None, apart: None, on_its_way: false };
        let slot = self.slots.entry(key.clone()).or_default();
        if new.note.alert.ends_at.is_none() {
            // It is so again: that it was over need not be told any more.
            slot.resolved = slot.resolved.take().filter(|waiting| waiting.on_its_way);
            if let Some(old) = &slot.firing {
                // One message of it is enough, in the newest words. What was refused is no less so.
                new.note.repeated &= old.note.repeated;
                new.rank = rank(&new.note);
                (new.since, new.not_before) = (old.since, if urgent { None } else { old.not_before });
                // What is on its way may arrive.
                new.tries = old.tries.saturating_add(u32::from(old.on_its_way));
            }
            slot.firing = Some(new);
        } else {
            // Who was never told that it is so need not be told that it is over; of a violation everybody is told.
            let untold = slot.firing.as_ref().is_some_and(|w| !w.note.repeated && w.tries == 0 && !w.on_its_way);
            let repeated = slot.firing.as_ref().is_some_and(|w| w.note.repeated);
            if untold && !key.is(Name::Violated) {
                self.slots.remove(&key);
                return;
            }
            if repeated {
                slot.firing = None;
            }
            slot.resolved = Some(new);
        }
        self.urgent |= urgent;
        if urgent && !self.asked_to_wait {
            let soon = self.last_try.map_or(now, |last| last + URGENT_PAUSE);
            self.not_before = self.not_before.map(|later| later.min(soon));
        }
    }

    /// Gives up what matters least, where more waits than may; how many messages that was.
    pub fn make_room(&mut self) -> usize {
        if self.len() <= MAX_WAITING {
            return 0;
        }
        let all = self.slots.iter().flat_map(|(key, slot)| [(key, &slot.firing, false), (key, &slot.resolved, true)]);
        let mut may_go: Vec<(Rank, u64, Key, bool)> = all
            .filter_map(|(key, waiting, ends)| waiting.as_ref().map(|w| (w.rank, w.number, key.clone(), ends)))
            .filter(|(rank, _, key, _)| !matches!(rank, Rank::Breach(_)) && (*rank != Rank::Resolved || !key.is(Name::Violated)))
            .collect();
        may_go.sort_unstable();
        let go = may_go.split_off(may_go.len().min(MAX_WAITING));
        for (_, _, key, ends) in &go {
            if let Some(slot) = self.slots.get_mut(key) {
                if *ends { slot.resolved = None } else { slot.firing = None }
            }
            self.drop_if_empty(key);
        }
        go.len()
    }

    /// Takes over what waited for another place, in whose stead this one is told.
    pub fn take_over(&mut self, kept: Vec<Kept>, now: Moment, wall: Wall) {
        for (key, theirs) in Outbox::recalled(kept, now, wall).slots {
            let mine = self.slots.entry(key).or_default();
            for (mine, theirs) in [(&mut mine.firing, theirs.firing), (&mut mine.resolved, theirs.resolved)] {
                if let (None, Some(mut waiting)) = (&mine, theirs) {
                    self.count += 1;
                    waiting.number = self.count;
                    *mine = Some(waiting);
                }
            }
        }
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
            let wait = waiting.not_before.max(waiting.apart).map_or(Duration::ZERO, |later| later.since(now));
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
        (self.last_try, self.urgent) = (Some(now), false);
        Next::Send(messages)
    }

    /// The place has taken these. Where it was told only now that something was so, it is told that it is over no sooner than `apart`:
    /// an Alertmanager that hears both at once tells nobody of either.
    pub fn taken(&mut self, messages: &[Message], apart: Duration, now: Moment) {
        (self.failures, self.refusals, self.not_before, self.asked_to_wait) = (0, 0, None, false);
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
                resolved.apart = Some(now + apart);
            }
            self.drop_if_empty(key);
        }
    }

    /// The place did not answer, or asks to wait: nothing goes there for a while. `chance` is from 0 to 1, so that many monitors do not
    /// all come back at once.
    pub fn failed(&mut self, messages: &[Message], asked: Option<Duration>, now: Moment, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        self.tried(messages, None);
        let pause = pause(self.failures, chance);
        self.asked_to_wait = asked.is_some();
        let pause = match asked {
            Some(asked) => asked.min(LONGEST_ASKED).max(pause),
            // What came in while that try was under way has not had one.
            None if self.urgent => pause.min(URGENT_PAUSE),
            None => pause,
        };
        self.not_before = Some(now + pause);
    }

    /// The place will not take these as they are: they wait for long, and the others go on; at once after the first, and slower
    /// where it refuses one after the other.
    pub fn refused(&mut self, messages: &[Message], now: Moment, chance: f64) {
        self.refusals = self.refusals.saturating_add(1);
        (self.failures, self.asked_to_wait) = (0, false);
        self.not_before = (self.refusals > 1).then(|| now + pause(self.refusals - 1, chance));
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

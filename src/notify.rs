//! Notify: looks at the board as `/metrics` does, keeps a ledger for each sink, and brings every sink what it is to be told.
//!
//! One task looks; each place of each sink has a task of its own, so that one that is slow or away holds up nobody: neither a probe, nor
//! the looking, nor another place.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::alert::ledger::{Ledger, Note};
use crate::alert::outbox::{Message, Next, Outbox};
use crate::alert::scene::{Places, Roll, Scene};
use crate::alert::sink::{Sink, To};
use crate::alert::{Alert, Key, Name, test_alert};
use crate::clock::{Moment, Wall};
use crate::history::Board;
use crate::metrics::{Metrics, Program};

mod body;
mod heartbeat;
mod keep;
mod sender;

pub use sender::{client, reason};

use keep::{Keeper, Kept, KeptSink};
use sender::{Sender, Told};

/// How often is looked where no verdict changes: what is stale or overdue changes none.
const LOOK: Duration = Duration::from_secs(1);
/// The least time between two looks: what changes meanwhile is seen by the next. The first is at once.
const BREATH: Duration = Duration::from_millis(50);
/// A share of the time goes into looking, at most one of so many parts, however many checks there are.
const PARTS: u32 = 5;
/// How often is asked what is true of the whole program: nothing of it is told in a hurry, and to count descriptors costs.
const ASK: Duration = Duration::from_secs(5);
/// Alerts that an Alertmanager is told at once.
const BATCH: usize = 64;
/// How long a task sleeps at a time: its clock does not run while the machine is suspended.
const STEP: Duration = Duration::from_secs(10);
/// How often the same failure is logged.
const SAY_AGAIN: Duration = Duration::from_secs(600);

/// The alerts of a monitor that runs.
pub struct Alerts {
    orders: mpsc::UnboundedSender<Order>,
    desk: JoinHandle<()>,
}

enum Order {
    /// These are the sinks from now on.
    Reload(Vec<Ready>),
    /// Tell what is still to be told, by then at the latest.
    Stop(Instant),
}

/// A sink with a way to each of its places.
pub struct Ready {
    sink: Arc<Sink>,
    senders: Vec<Sender>,
}

impl Ready {
    /// Every sink, ready to be told.
    ///
    /// # Errors
    /// What is wrong with the files of one.
    pub fn all(sinks: &[Sink]) -> Result<Vec<Ready>, String> {
        let one = |sink: &Sink| {
            let senders = sink.to.addresses().into_iter().map(|address| Sender::new(sink, address));
            let senders = senders.collect::<Result<Vec<Sender>, String>>().map_err(|why| format!("alert \"{}\": {why}", sink.name))?;
            Ok(Ready { sink: Arc::new(sink.clone()), senders })
        };
        sinks.iter().map(one).collect()
    }
}

impl Alerts {
    /// Begins to look. What was open, and what had not been told yet, is taken over from `state_dir`, which this process holds.
    ///
    /// # Errors
    /// What is wrong with a sink.
    pub fn start(
        vantage: &str,
        sinks: &[Sink],
        board: Arc<Board>,
        metrics: Arc<Metrics>,
        state_dir: Option<&Path>,
    ) -> Result<Alerts, String> {
        let ready = Ready::all(sinks)?;
        let (orders, received) = mpsc::unbounded_channel();
        let (keeper, mut kept) = Keeper::open(state_dir);
        let (now, wall) = (Moment::now(), Wall::now());
        let roll = Roll::recalled(std::mem::take(&mut kept.known), now, wall);
        let mut desk = Desk {
            vantage: vantage.to_string(),
            board,
            metrics,
            roll,
            posts: Vec::new(),
            program: (now - ASK, Program::default()),
            pulse: Arc::new(Pulse { ways: Mutex::default(), looked: Mutex::new(now) }),
            keeper,
            dirty: false,
        };
        desk.take(ready, kept);
        Ok(Alerts { orders, desk: tokio::spawn(desk.run(received)) })
    }

    /// Takes over other sinks: one that tells the same place keeps what is open there and what waits for it.
    pub fn reload(&self, ready: Vec<Ready>) {
        // an error would be the end of the desk, which ends with this
        let _ = self.orders.send(Order::Reload(ready));
    }

    /// Looks a last time, and lets what waits be told by `deadline` at the latest. What is not told by then is kept in `state_dir`.
    pub async fn stop(self, deadline: Instant) {
        let _ = self.orders.send(Order::Stop(deadline));
        let _ = self.desk.await;
    }
}

/// Sends a test alert through every sink, and its end, whatever their rules; what came of it at each place.
///
/// # Errors
/// What is wrong with a sink.
pub async fn try_all(vantage: &str, sinks: &[Sink]) -> Result<Vec<(String, Result<String, String>)>, String> {
    let ready = Ready::all(sinks)?;
    let places =
        ready.iter().flat_map(|ready| ready.senders.iter().zip(ready.sink.to.addresses()).map(move |(sender, at)| (ready, sender, at)));
    let each = places.map(|(ready, sender, address)| async move {
        let place = format!("{} ({} {address})", ready.sink.name, ready.sink.to.kind().token());
        if matches!(ready.sink.to, To::Heartbeat { .. }) {
            return (place, Ok("not told: only a monitor that runs tells it that it does".to_string()));
        }
        let opened = test_alert(vantage, Wall::now());
        let began = Instant::now();
        let told = match sender.send(body::body(&ready.sink, &opened, Wall::now())).await {
            Told::Taken(status) => {
                let took = began.elapsed().as_millis();
                let mut over = Alert { ends_at: Some(Wall::now()), ..opened };
                over.annotations.insert("resolved".into(), "the test is over".into());
                match sender.send(body::body(&ready.sink, &over, Wall::now())).await {
                    Told::Taken(_) => Ok(format!("taken with status {status} after {took} ms, and its end too")),
                    Told::Refused(why) | Told::Later(why, _) => Err(format!("took the alert, and not its end: {why}")),
                }
            }
            Told::Refused(why) | Told::Later(why, _) => Err(why),
        };
        (place, told)
    });
    Ok(futures_util::future::join_all(each).await)
}

/// Who looks, and what is known of every sink.
struct Desk {
    vantage: String,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    roll: Roll,
    posts: Vec<Post>,
    program: (Moment, Program),
    pulse: Arc<Pulse>,
    keeper: Keeper,
    /// Something was opened or has ended since that was kept.
    dirty: bool,
}

/// One sink.
struct Post {
    sink: Arc<Sink>,
    ledger: Ledger,
    ways: Vec<Arc<Way>>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the heart feels: whether somebody looks, and is heard.
struct Pulse {
    ways: Mutex<Vec<Arc<Way>>>,
    looked: Mutex<Moment>,
}

/// The way to one place.
struct Way {
    name: String,
    outbox: Mutex<Outbox>,
    by: Mutex<(Arc<Sink>, Sender)>,
    wake: Notify,
    /// What waits has changed since it was kept.
    changed: AtomicBool,
    /// It failed since the end is near.
    failed: AtomicBool,
}

/// The time until the next look after one that took so long. Where the machine was suspended in the midst of it, the look was not that long.
fn rest(took: Duration) -> Duration {
    (took * (PARTS - 1)).clamp(BREATH, STEP)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Order::Reload(ready)) => self.reload(ready),
                    Some(Order::Stop(deadline)) => return self.stop(deadline).await,
                    None => return self.stop(Instant::now()).await,
                },
                () = self.board.turned() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            let began = Moment::now();
            self.look();
            self.save(began);
            tokio::time::sleep(rest(Moment::now().since(began))).await;
        }
    }

    /// One look: what is so, what each sink is to be told of it, and off it goes.
    fn look(&mut self) {
        let (now, wall) = (Moment::now(), Wall::now());
        // First what may be over by now, so that nothing falls between the two.
        let breaches = self.board.breaches();
        let readings = self.board.read(now);
        if now.since(self.program.0) >= ASK {
            self.program = (now, self.metrics.program());
        }
        let program = &self.program.1;
        self.roll.call(&readings, program, now);
        let places = Places::of(&readings);
        let scene = Scene {
            vantage: &self.vantage,
            now,
            wall,
            readings: &readings,
            places: &places,
            breaches: &breaches,
            program,
            roll: &self.roll,
        };
        let conditions = scene.conditions();
        // A dead man's switch is told of no alert.
        for post in self.posts.iter_mut().filter(|post| !post.ways.is_empty()) {
            let notes = post.ledger.look(&scene, &conditions, &post.sink.rules);
            self.dirty |= notes.iter().any(|note| !note.repeated);
            notes.iter().for_each(|note| log(&post.sink, &note.alert, note.repeated));
            for way in post.ways.iter().filter(|_| !notes.is_empty()) {
                let given_up = {
                    let mut outbox = lock(&way.outbox);
                    notes.iter().for_each(|note| outbox.put(note.clone(), now));
                    outbox.make_room()
                };
                if given_up > 0 {
                    self.metrics.alerts_failed(&way.name);
                    tracing::warn!("alerts to {}: too many wait, and {given_up} of the least important were given up", way.name);
                }
            }
            post.ways.iter().for_each(|way| way.wake.notify_one());
        }
        *lock(&self.pulse.looked) = now;
    }

    fn reload(&mut self, ready: Vec<Ready>) {
        self.take(ready, Kept::default());
        self.dirty = true;
    }

    /// These are the sinks from now on. Each goes on from the post it has, else from what was kept of it, else from nothing.
    fn take(&mut self, ready: Vec<Ready>, mut kept: Kept) {
        self.metrics.alerts_go_to(ready.iter().map(|ready| ready.sink.name.as_str()));
        let mut old = std::mem::take(&mut self.posts);
        let (mut same, mut moved) = (Vec::new(), Vec::new());
        for Ready { sink, senders } in ready {
            match old.iter().position(|post| post.sink.tells_the_same(&sink) && post.ways.len() == senders.len()) {
                Some(at) => same.push((sink, senders, old.swap_remove(at))),
                None => moved.push((sink, senders)),
            }
        }
        for (sink, senders, mut post) in same {
            for (way, sender) in post.ways.iter().zip(senders) {
                *lock(&way.by) = (Arc::clone(&sink), sender);
                // What was refused may be taken now: somebody has changed something.
                lock(&way.outbox).hurry();
                way.wake.notify_one();
            }
            post.sink = sink;
            self.posts.push(post);
        }
        let names: BTreeSet<String> = moved.iter().map(|(sink, _)| sink.name.clone()).collect();
        for (sink, senders) in moved {
            let mut kept = kept.take(&sink, &names);
            if let Some(at) = old.iter().position(|post| post.sink.stands_in_for(&sink)) {
                let before = old.swap_remove(at).end();
                if !before.open.is_empty() && before.mark != sink.mark() {
                    tracing::warn!(
                        "alerts to {}: from now on another place is told; {} alerts stay open at the one before",
                        sink.name,
                        before.open.len()
                    );
                }
                kept = Some(before);
            }
            self.posts.push(self.post(sink, senders, kept));
        }
        let gone = old.into_iter().map(|post| (post.sink.name.clone(), post.end()));
        for (name, KeptSink { open, waiting, .. }) in gone.chain(kept.sinks) {
            let untold: usize = waiting.iter().map(Vec::len).sum();
            if open.len() + untold > 0 {
                tracing::warn!(
                    "alerts to {name}: it is told nothing any more; {} alerts stay open there, and {untold} messages that it has not taken are given up",
                    open.len()
                );
            }
        }
        *lock(&self.pulse.ways) = self.posts.iter().flat_map(|post| post.ways.iter().map(Arc::clone)).collect();
    }

    fn post(&self, sink: Arc<Sink>, senders: Vec<Sender>, kept: Option<KeptSink>) -> Post {
        let (now, wall) = (Moment::now(), Wall::now());
        let same = kept.as_ref().is_some_and(|kept| kept.mark == sink.mark() && kept.waiting.len() == senders.len());
        let (open, waiting) = kept.map_or_else(Default::default, |kept| (kept.open, kept.waiting));
        let outboxes = senders.iter().enumerate().map(|(at, _)| {
            let mut outbox = Outbox::default();
            // Elsewhere nobody was told what is open; what waited for there must be heard here.
            let for_it = waiting.iter().enumerate().filter(|(of, _)| !same || *of == at);
            for_it.for_each(|(_, waiting)| {
                let waiting = waiting.iter().cloned().map(|waiting| if same { waiting } else { waiting.untold() });
                outbox.take_over(waiting.collect(), now, wall);
            });
            outbox
        });
        let mut outboxes: Vec<Outbox> = outboxes.collect();
        let mut ledger = Ledger::recalled(open, now, wall);
        if !same {
            // What is violated is so until a run holds, also while nobody knows, as before the first run; all else is seen by the next look.
            let readings = self.board.read(now);
            let places = Places::of(&readings);
            let goes_there = |key: &Key| {
                let about = places.about(key);
                key.is(Name::Violated) && about.is_some_and(|about| sink.rules.want(key.severity(), Some((&about.name, &about.tags))))
            };
            let open: Vec<Note> = ledger.open().filter(|note| goes_there(&note.alert.key)).collect();
            for outbox in &mut outboxes {
                let untold = open.iter().filter(|note| !outbox.opens(&note.alert.key)).cloned();
                untold.collect::<Vec<Note>>().into_iter().for_each(|note| outbox.put(note, now));
            }
            ledger.keep(|key| outboxes.iter().any(|outbox| outbox.opens(key)));
        }
        let ways: Vec<Arc<Way>> = senders
            .into_iter()
            .zip(outboxes)
            .map(|(sender, outbox)| {
                Arc::new(Way {
                    name: sink.name.clone(),
                    outbox: Mutex::new(outbox),
                    by: Mutex::new((Arc::clone(&sink), sender)),
                    wake: Notify::new(),
                    changed: AtomicBool::new(false),
                    failed: AtomicBool::new(false),
                })
            })
            .collect();
        let tell = |way: &Arc<Way>| match sink.to {
            To::Heartbeat { interval, .. } => tokio::spawn(heartbeat::keep_beating(
                Arc::clone(way),
                interval,
                Arc::clone(&self.board),
                Arc::clone(&self.metrics),
                Arc::clone(&self.pulse),
            )),
            _ => tokio::spawn(deliver(Arc::clone(way), Arc::clone(&self.metrics))),
        };
        let tasks = ways.iter().map(tell).collect();
        // A dead man's switch is told nothing else.
        let ways = if matches!(sink.to, To::Heartbeat { .. }) { Vec::new() } else { ways };
        Post { sink, ledger, ways, tasks }
    }

    /// Keeps what has changed.
    fn save(&mut self, now: Moment) {
        let changed = || self.posts.iter().flat_map(|post| &post.ways).any(|way| way.changed.load(Ordering::Relaxed));
        let ready = self.keeper.ready(self.dirty, now);
        if !ready || !(self.dirty || self.keeper.owes() || changed()) {
            return;
        }
        self.posts.iter().flat_map(|post| &post.ways).for_each(|way| way.changed.store(false, Ordering::Relaxed));
        self.dirty = false;
        let wall = Wall::now();
        let sinks = self.posts.iter().filter(|post| !post.ways.is_empty()).map(|post| (post.sink.name.clone(), post.kept(now, wall)));
        self.keeper.write(Kept::new(self.roll.kept(now, wall), sinks.collect()));
    }

    async fn stop(mut self, deadline: Instant) {
        self.look();
        self.save(Moment::now());
        let ways: Vec<Arc<Way>> = self.posts.iter().flat_map(|post| post.ways.iter().map(Arc::clone)).collect();
        for way in &ways {
            way.failed.store(false, Ordering::Relaxed);
            lock(&way.outbox).hurry();
            way.wake.notify_one();
        }
        // What is kept can wait for the next start; what is not is tried to the end.
        let keeps = self.keeper.keeps();
        let done = |way: &Arc<Way>| lock(&way.outbox).only_later() || keeps && way.failed.load(Ordering::Relaxed);
        while !ways.iter().all(done) && Instant::now() < deadline {
            tokio::time::sleep(BREATH).await;
        }
        let left: usize = ways.iter().map(|way| lock(&way.outbox).len()).sum();
        if left > 0 {
            let what = if keeps { "they are told after the next start" } else { "they are lost: there is no state_dir" };
            tracing::warn!("alerts: {left} messages were not taken in time; {what}");
        }
        self.posts.iter().flat_map(|post| &post.tasks).for_each(JoinHandle::abort);
        self.keeper.done().await;
        self.dirty = true;
        self.save(Moment::now());
        self.keeper.done().await;
    }
}

fn log(sink: &Sink, alert: &Alert, repeated: bool) {
    let (name, severity, said) = (alert.key.label("alertname"), alert.key.severity(), alert.said("summary"));
    match (repeated, alert.ends_at) {
        (true, _) => tracing::debug!("alert to {}: {name} ({severity}) goes on: {said}", sink.name),
        (false, None) => tracing::info!("alert to {}: {name} ({severity}) opened: {said}", sink.name),
        (false, Some(_)) => tracing::info!("alert to {}: {name} ({severity}) resolved: {said} Now {}", sink.name, alert.said("resolved")),
    }
}

impl Post {
    fn kept(&self, now: Moment, wall: Wall) -> KeptSink {
        let waiting = self.ways.iter().map(|way| lock(&way.outbox).kept(now, wall)).collect();
        KeptSink { mark: self.sink.mark(), open: self.ledger.kept(now, wall), waiting }
    }

    /// Nothing more is told by it; what it knew.
    fn end(self) -> KeptSink {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.kept(Moment::now(), Wall::now())
    }
}

/// Brings one place what waits for it, for as long as it takes.
async fn deliver(way: Arc<Way>, metrics: Arc<Metrics>) {
    let mut said = Said::default();
    loop {
        let most = if matches!(lock(&way.by).0.to, To::Alertmanager { .. }) { BATCH } else { 1 };
        let next = lock(&way.outbox).next(Moment::now(), most);
        match next {
            Next::Send(messages) => way.hand_over(messages, &metrics, &mut said).await,
            Next::Wait(pause) => tokio::select! {
                () = way.wake.notified() => {}
                () = tokio::time::sleep(pause.min(STEP)) => {}
            },
            Next::Idle => way.wake.notified().await,
        }
    }
}

impl Way {
    async fn hand_over(&self, messages: Vec<Message>, metrics: &Metrics, said: &mut Said) {
        let told = self.tell(&messages).await;
        // One that is refused must not take the others with it.
        if messages.len() > 1 && matches!(told, Told::Refused(_)) {
            let mut rest = messages.as_slice();
            while let Some((alone, _)) = rest.split_at_checked(1) {
                let told = self.tell(alone).await;
                // Who does not answer now need not be asked for each of the others.
                let to_note = if matches!(told, Told::Later(..)) { rest } else { alone };
                self.note(to_note, told, metrics, said);
                rest = rest.get(to_note.len()..).unwrap_or_default();
            }
            return;
        }
        self.note(&messages, told, metrics, said);
    }

    async fn tell(&self, messages: &[Message]) -> Told {
        let (sink, sender) = lock(&self.by).clone();
        let now = Wall::now();
        let body = match messages {
            [one] => body::body(&sink, &one.alert, now),
            many => body::batch(&sink, &many.iter().map(|message| &message.alert).collect::<Vec<_>>(), now),
        };
        sender.send(body).await
    }

    fn note(&self, messages: &[Message], told: Told, metrics: &Metrics, said: &mut Said) {
        let now = Moment::now();
        match told {
            Told::Taken(_) => {
                let sink = Arc::clone(&lock(&self.by).0);
                let groups = matches!(sink.to, To::Alertmanager { .. });
                lock(&self.outbox).taken(messages, if groups { sink.rules.keep_firing_for } else { Duration::ZERO }, now);
                metrics.alerts_sent(&self.name, messages.len());
                said.taken(&self.name);
                self.failed.store(false, Ordering::Relaxed);
            }
            Told::Later(why, asked) => {
                lock(&self.outbox).failed(messages, asked, now, chance());
                metrics.alerts_failed(&self.name);
                said.failed(&self.name, &why, "it is tried again", now);
                self.failed.store(true, Ordering::Relaxed);
            }
            Told::Refused(why) => {
                lock(&self.outbox).refused(messages, now, chance());
                metrics.alerts_failed(&self.name);
                let remedy = "see its URL, its keys and what it takes; it is tried again every 10 minutes";
                said.failed(&self.name, &why, remedy, now);
                self.failed.store(true, Ordering::Relaxed);
            }
        }
        self.changed.store(true, Ordering::Relaxed);
    }
}

/// What was said of a place last: the same failure is not said again and again.
#[derive(Debug, Default)]
struct Said {
    failure: Option<(String, Moment)>,
}

impl Said {
    fn failed(&mut self, sink: &str, why: &str, remedy: &str, now: Moment) {
        if self.is_news(why, now) {
            tracing::warn!("alerts to {sink}: {why}; {remedy}");
        }
    }

    fn taken(&mut self, sink: &str) {
        if self.is_over() {
            tracing::info!("alerts to {sink}: they are taken again");
        }
    }

    /// Whether this failure is to be said; it counts as said then.
    fn is_news(&mut self, why: &str, now: Moment) -> bool {
        let known = self.failure.as_ref().is_some_and(|(last, at)| last == why && now.since(*at) < SAY_AGAIN);
        if !known {
            self.failure = Some((why.to_string(), now));
        }
        !known
    }

    /// Whether a failure was said, and is over by this.
    fn is_over(&mut self) -> bool {
        self.failure.take().is_some()
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 2];
    match ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes) {
        Ok(()) => f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_was_suspended_during_a_look_is_looked_at_soon_after() {
        let millis = Duration::from_millis;
        assert_eq!([rest(millis(0)), rest(millis(12)), rest(millis(13))], [BREATH, BREATH, millis(52)]);
        assert_eq!([rest(millis(2500)), rest(millis(2501)), rest(Duration::from_secs(8 * 3600))], [STEP; 3]);
    }
}

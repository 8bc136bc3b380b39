//! The operator: does what the web listener is asked to do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::watcher::Order;
use crate::engine::Engine;
use crate::history::Board;
use crate::memory::Memory;
use crate::plan::{Plan, Source};
use crate::target::Host;
use crate::web::control::{Asked, Control, Fault, Pending, Refused};

/// Probes of templates at one time.
const AT_ONCE: usize = 128;
/// The time from the start of one to that of the next, in the long run: 20 a second, which is 600 targets every 30 s.
const APART: Duration = Duration::from_millis(50);
/// How many may start at once where few did before.
const BURST: u32 = 40;
/// Targets of which something is remembered, since they were seen open.
const MAX_REMEMBERED: usize = 1024;

/// The program behind the web listener.
#[derive(Debug)]
pub struct Operator {
    orders: mpsc::Sender<Order>,
    in_force: Arc<RwLock<InForce>>,
    prober: Arc<Prober>,
}

/// The configuration in force, and what runs by it.
#[derive(Debug)]
pub struct InForce {
    /// As it may be shown.
    pub shown: String,
    /// As it was read.
    pub source: Source,
    /// What it means.
    pub plan: Arc<Plan>,
    /// What runs by it, once it does.
    pub engine: Option<Arc<Engine>>,
}

/// Runs templates, at a bounded rate.
#[derive(Debug)]
struct Prober {
    places: Arc<Semaphore>,
    next: Mutex<Instant>,
    /// By check and target. A target that was seen open is so until a run holds, and its addresses linger (SPEC 2.4), as those of every check.
    memories: Mutex<Memories>,
}

/// What is remembered, by check and target; and as of when, so that of too many the one goes that nobody has asked about for longest.
#[derive(Debug, Default)]
struct Memories(BTreeMap<(String, String), (Instant, Memory)>);

impl Memories {
    fn recall(&self, key: &(String, String)) -> Memory {
        self.0.get(key).map(|(_, memory)| memory.clone()).unwrap_or_default()
    }

    /// Keeps what was seen open, and forgets what holds.
    fn keep(&mut self, key: (String, String), memory: Memory, now: Instant) {
        if !memory.violated && memory.lingers().next().is_none() {
            self.0.remove(&key);
            return;
        }
        self.0.insert(key, (now, memory));
        if self.0.len() > MAX_REMEMBERED
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (asked, _))| *asked).map(|(key, _)| key.clone())
        {
            tracing::warn!(
                check = oldest.0,
                target = oldest.1,
                "more targets of templates were seen open than are remembered; this one is forgotten"
            );
            self.0.remove(&oldest);
        }
    }
}

impl Operator {
    /// One that passes orders on to the watcher, and probes by what is in force.
    pub fn new(orders: mpsc::Sender<Order>, in_force: Arc<RwLock<InForce>>) -> Operator {
        let prober = Prober { places: Arc::new(Semaphore::new(AT_ONCE)), next: Mutex::new(Instant::now()), memories: Mutex::default() };
        Operator { orders, in_force, prober: Arc::new(prober) }
    }
}

impl Control for Operator {
    fn config(&self) -> String {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).shown.clone()
    }

    fn reload(&self) -> Pending<String> {
        let orders = self.orders.clone();
        Box::pin(async move {
            let (order, done) = oneshot::channel();
            let full =
                |_| Refused::new(Fault::TooMuch, "many reloads wait already, and one of them will read what is there now; ask again later");
            orders.try_send(order).map_err(full)?;
            match done.await {
                Ok(Ok(told)) => Ok(told),
                Ok(Err(why)) => Err(Refused::new(Fault::Ours, format!("not reloaded, all stays as it was:\n{why}"))),
                Err(_) => Err(Refused::new(Fault::Ours, "not reloaded: this monitor is about to end")),
            }
        })
    }

    fn probe(&self, asked: Asked) -> Pending<Arc<Board>> {
        let (prober, in_force) = (Arc::clone(&self.prober), Arc::clone(&self.in_force));
        // In a task of its own: whoever goes away without the answer must not make room for one more at a time.
        let probing = tokio::spawn(async move { prober.probe(&in_force, asked).await });
        Box::pin(async move {
            match probing.await {
                Ok(done) => done,
                Err(bug) => Err(Refused::new(Fault::Ours, format!("{bug}; please report this"))),
            }
        })
    }
}

impl Prober {
    async fn probe(&self, in_force: &RwLock<InForce>, asked: Asked) -> Result<Arc<Board>, Refused> {
        let deadline = Instant::now() + asked.limit;
        let (source, plan, engine) = {
            let in_force = in_force.read().unwrap_or_else(PoisonError::into_inner);
            (in_force.source.clone(), Arc::clone(&in_force.plan), in_force.engine.clone())
        };
        let template = plan.templates.iter().find(|template| template.name == asked.check).cloned();
        let unknown = || Refused::new(Fault::Unknown, format!("there is no check {:?} with template = true", asked.check));
        let template = template.ok_or_else(unknown)?;
        let engine = engine.ok_or_else(|| Refused::new(Fault::TooMuch, "this monitor has not begun yet; ask again later"))?;
        let _place = self.place(asked.limit).await?;
        let within = Arc::clone(&template.within);
        // It reads the files that the check names, and no probe is to wait for a disk.
        let made = tokio::task::spawn_blocking(move || source.instance(&plan, &template, &asked.target)).await;
        let check =
            made.unwrap_or_else(|bug| Err(bug.to_string())).map_err(|why| Refused::new(Fault::Asked, format!("not probed: {why}")))?;
        if let Some(&Host::Ip(ip)) = check.probe.first_hop().map(|hop| &hop.host)
            && !within.allows(ip)
        {
            return Err(Refused::new(Fault::Forbidden, "not probed: the target is outside allow_targets"));
        }
        let key = (check.name.clone(), check.target.clone());
        let memory = self.memories.lock().unwrap_or_else(PoisonError::into_inner).recall(&key);
        let (board, memory) = engine.run_beside(check, memory, deadline).await;
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).keep(key, memory, Instant::now());
        Ok(board)
    }

    /// Waits for a place and for its turn, a quarter of the time that there is: the rest is for the probe.
    async fn place(&self, limit: Duration) -> Result<OwnedSemaphorePermit, Refused> {
        let latest = Instant::now() + limit / 4;
        let busy = || {
            Refused::new(
                Fault::TooMuch,
                "more probes are asked for than this monitor makes; spread the targets over more of them, or ask less often",
            )
        };
        let place = tokio::time::timeout_at(latest, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.ok().and_then(Result::ok).ok_or_else(busy)?;
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let turn = (*next).max(now.checked_sub(APART * BURST).unwrap_or(now));
            if turn > latest {
                return Err(busy());
            }
            *next = turn + APART;
            turn
        };
        sleep_until(turn).await;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Targets come and go, and some go while they are open: they must not keep the place of those that are there.
    #[test]
    fn of_too_many_targets_the_one_is_forgotten_that_nobody_asks_about() {
        let mut memories = Memories::default();
        let key = |n: usize| ("closed".to_string(), format!("192.0.2.1:{n}"));
        let open = Memory::recalled(true, crate::record::Exposure::default(), []);
        let began = Instant::now();
        let at = |second: usize| began + Duration::from_secs(second as u64);
        for n in 0..MAX_REMEMBERED {
            memories.keep(key(n), open.clone(), at(n));
        }
        memories.keep(key(0), open.clone(), at(MAX_REMEMBERED));
        memories.keep(key(MAX_REMEMBERED), open, at(MAX_REMEMBERED + 1));
        assert_eq!(memories.0.len(), MAX_REMEMBERED);
        for (n, known) in [(0, true), (1, false), (2, true), (MAX_REMEMBERED, true)] {
            assert_eq!(memories.recall(&key(n)).violated, known, "{n}");
        }
        memories.keep(key(0), Memory::default(), at(0));
        assert!(!memories.recall(&key(0)).violated && memories.0.len() == MAX_REMEMBERED - 1, "what holds takes no place");
    }

    /// By a clock that stands but for those who wait for it.
    #[tokio::test(start_paused = true)]
    async fn probes_have_a_rate_and_a_bound() {
        let prober = Prober { places: Arc::new(Semaphore::new(AT_ONCE)), next: Mutex::new(Instant::now()), memories: Mutex::default() };
        tokio::time::advance(Duration::from_secs(60)).await;
        let limit = Duration::from_secs(8);
        let began = Instant::now();
        for _ in 0..=BURST {
            drop(prober.place(limit).await.unwrap());
        }
        assert_eq!(Instant::now(), began, "few at once do not wait");
        for nth in 1..=20 {
            drop(prober.place(limit).await.unwrap());
            assert_eq!(Instant::now(), began + APART * nth);
        }
        let mut held = Vec::new();
        while let Ok(place) = prober.place(Duration::from_secs(60)).await {
            held.push(place);
        }
        assert_eq!(held.len(), AT_ONCE);
        let before = Instant::now();
        assert_eq!(prober.place(limit).await.unwrap_err().whose, Fault::TooMuch);
        assert_eq!(Instant::now(), before + limit / 4, "who gets no place is told so in good time");
        // all come at once: those whose turn would be too late do not wait for it
        held.clear();
        *prober.next.lock().unwrap() = Instant::now() + limit;
        let before = Instant::now();
        assert_eq!(prober.place(limit).await.unwrap_err().whose, Fault::TooMuch);
        assert_eq!(Instant::now(), before);
    }
}

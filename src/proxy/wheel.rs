//! The wheel: one coarse clock for all tunnels, that tells each when to end. A tunnel that moves bytes stores a flag, and reads no clock.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::proxy::tunnel::End;

/// The longest time between two looks at all tunnels.
const COARSEST: Duration = Duration::from_secs(1);
/// The shortest.
const FINEST: Duration = Duration::from_millis(10);
/// How many looks fall into the shortest limit, at least.
const FINENESS: u32 = 8;

/// How long a tunnel may last.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// Without a byte, once one side has ended.
    pub half_open: Duration,
    /// At all.
    pub lifetime: Duration,
}

/// All tunnels that stand, each with its limits. No limit strikes early; each strikes at most two ticks late: bytes are stamped at the first tick
/// after them, and the limit is seen at the first tick after it.
#[derive(Debug)]
pub struct Wheel {
    limits: Limits,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    taken: Vec<Option<Watched>>,
    free: Vec<usize>,
    stopped: bool,
}

#[derive(Debug)]
struct Watched {
    limits: Limits,
    pulse: Arc<Pulse>,
    began: Instant,
    /// When it was first seen that the last bytes had moved.
    last: Instant,
}

/// What a tunnel and the wheel know of each other.
#[derive(Debug, Default)]
struct Pulse {
    beaten: AtomicBool,
    half_closed: AtomicBool,
    end: OnceLock<End>,
    waker: AtomicWaker,
}

/// A tunnel's place on the wheel, until it is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    wheel: &'a Wheel,
    at: usize,
    pulse: Arc<Pulse>,
}

impl Wheel {
    /// A wheel without tunnels, for such as mostly have these limits. It must be turned, once a [`Wheel::tick`].
    pub fn new(limits: Limits) -> Wheel {
        Wheel { limits, places: Mutex::default() }
    }

    /// How often it is to be turned: each second, or more often for limits of a few seconds.
    pub fn tick(&self) -> Duration {
        let Limits { idle, half_open, lifetime } = self.limits;
        (idle.min(half_open).min(lifetime) / FINENESS).clamp(FINEST, COARSEST)
    }

    /// Takes a tunnel in, which begins now and may last as long as `limits` say.
    pub fn place(&self, limits: Limits) -> Place<'_> {
        let pulse = Arc::new(Pulse::default());
        let began = Instant::now();
        let mut places = self.places();
        if places.stopped {
            pulse.tell(End::Shutdown);
        }
        let watched = Some(Watched { limits, pulse: pulse.clone(), began, last: began });
        let reused = places.free.pop();
        let at = reused.unwrap_or(places.taken.len());
        match reused.and_then(|at| places.taken.get_mut(at)) {
            Some(place) => *place = watched,
            None => places.taken.push(watched),
        }
        Place { wheel: self, at, pulse }
    }

    /// Looks at every tunnel once, and tells those whose time is over.
    pub fn turn(&self) {
        let now = Instant::now();
        for watched in self.places().taken.iter_mut().flatten() {
            if watched.pulse.beaten.load(Ordering::Relaxed) {
                watched.pulse.beaten.store(false, Ordering::Relaxed);
                // read anew, since the bytes may have moved after `now`
                watched.last = Instant::now();
            }
            if let Some(end) = watched.limits.over(watched, now) {
                watched.pulse.tell(end);
            }
        }
    }

    /// Tells every tunnel that the proxy stops, those to come too.
    pub fn stop(&self) {
        let mut places = self.places();
        places.stopped = true;
        places.taken.iter().flatten().for_each(|watched| watched.pulse.tell(End::Shutdown));
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limits {
    /// Why a tunnel is over, where it is: the limit that was reached first.
    fn over(&self, watched: &Watched, now: Instant) -> Option<End> {
        let half = watched.pulse.half_closed.load(Ordering::Relaxed) && self.half_open < self.idle;
        let (quiet, end) = if half { (self.half_open, End::HalfOpen) } else { (self.idle, End::Idle) };
        let (quiet, whole) = (watched.last + quiet, watched.began + self.lifetime);
        let (first, end) = if whole <= quiet { (whole, End::Lifetime) } else { (quiet, end) };
        (now >= first).then_some(end)
    }
}

impl Pulse {
    fn tell(&self, end: End) {
        // the first reason stays
        if self.end.set(end).is_ok() {
            self.waker.wake();
        }
    }
}

impl Place<'_> {
    /// Bytes were moved, or one side has ended.
    pub fn beat(&self) {
        self.pulse.beaten.store(true, Ordering::Relaxed);
    }

    /// One side has ended. Says whether the other had before.
    pub fn half_closed(&self) -> bool {
        self.beat();
        self.pulse.half_closed.swap(true, Ordering::Relaxed)
    }

    /// Waits until the tunnel is to end, and says why.
    pub async fn over(&self) -> End {
        poll_fn(|context| self.poll_over(context)).await
    }

    /// Why the tunnel is to end, once it is.
    pub fn poll_over(&self, context: &Context<'_>) -> Poll<End> {
        self.pulse.waker.register(context.waker());
        self.pulse.end.get().map_or(Poll::Pending, |end| Poll::Ready(*end))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.wheel.places();
        if let Some(place) = places.taken.get_mut(self.at) {
            *place = None;
        }
        places.free.push(self.at);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn wheel(idle: u64, half_open: u64, lifetime: u64) -> Wheel {
        let [idle, half_open, lifetime] = [idle, half_open, lifetime].map(Duration::from_secs);
        Wheel::new(Limits { idle, half_open, lifetime })
    }

    fn told(place: &Place<'_>) -> Option<End> {
        match place.poll_over(&Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        }
    }

    /// Turns it once a second until the tunnel is told, and says when that was.
    async fn ended(wheel: &Wheel, place: &Place<'_>) -> (u64, End) {
        for second in 1..100_000 {
            advance(SECOND).await;
            wheel.turn();
            if let Some(end) = told(place) {
                return (second, end);
            }
        }
        panic!("never told");
    }

    #[tokio::test(start_paused = true)]
    async fn each_limit_strikes_at_its_time_and_not_before() {
        for (limits, half, expected) in [
            ((300, 60, 86_400), false, (300, End::Idle)),
            ((300, 60, 86_400), true, (61, End::HalfOpen)),
            ((300, 60, 300), false, (300, End::Lifetime)),
            ((300, 60, 299), false, (299, End::Lifetime)),
            ((300, 60, 301), false, (300, End::Idle)),
            ((300, 60, 61), true, (61, End::Lifetime)),
            // half open is never longer than idle
            ((60, 300, 86_400), true, (61, End::Idle)),
        ] {
            let wheel = wheel(limits.0, limits.1, limits.2);
            let place = wheel.place(wheel.limits);
            if half {
                place.half_closed();
            }
            assert_eq!(ended(&wheel, &place).await, expected, "{limits:?}, half {half}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_put_idle_off_and_never_the_lifetime() {
        let wheel = wheel(10, 5, 60);
        let place = wheel.place(wheel.limits);
        for second in 1..60 {
            place.beat();
            advance(SECOND).await;
            wheel.turn();
            assert_eq!(told(&place), None, "{second}");
        }
        advance(SECOND).await;
        wheel.turn();
        assert_eq!(told(&place), Some(End::Lifetime));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_never_strikes_early_though_the_wheel_turns_late() {
        let wheel = wheel(10, 5, 600);
        let place = wheel.place(wheel.limits);
        advance(SECOND * 9).await;
        place.beat();
        // the runtime was busy, and the wheel stood still
        advance(SECOND * 9).await;
        wheel.turn();
        assert_eq!(told(&place), None);
        let begun = Instant::now();
        assert_eq!(ended(&wheel, &place).await, (10, End::Idle));
        assert_eq!(begun.elapsed(), SECOND * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_reaches_every_tunnel_and_those_to_come_and_places_are_used_again() {
        let wheel = wheel(300, 60, 86_400);
        let (first, second) = (wheel.place(wheel.limits), wheel.place(wheel.limits));
        drop(first);
        let third = wheel.place(wheel.limits);
        assert_eq!(wheel.places().taken.len(), 2);
        wheel.stop();
        let late = wheel.place(wheel.limits);
        for place in [&second, &third, &late] {
            assert_eq!(told(place), Some(End::Shutdown));
        }
        drop((second, third, late));
        assert!(wheel.places().taken.iter().all(Option::is_none) && wheel.places().free.len() == 3);
    }

    #[test]
    fn the_tick_is_a_second_and_shorter_for_short_limits_only() {
        assert_eq!(wheel(300, 60, 86_400).tick(), SECOND);
        assert_eq!(wheel(8, 8, 8).tick(), SECOND);
        assert_eq!(wheel(4, 60, 60).tick(), SECOND / 2);
        assert_eq!(wheel(0, 0, 0).tick(), FINEST);
    }
}

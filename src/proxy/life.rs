//! The life of the proxy: it serves, it leaves, it is cut; and it may lack file descriptors meanwhile. What its health says follows from that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long a lack of file descriptors is remembered: long enough for a load balancer to see it, and no flapping at the limit.
const LACK: Duration = Duration::from_secs(5);

/// Where the proxy stands.
#[derive(Debug)]
pub struct Life {
    leaving: watch::Sender<Option<Leaving>>,
    stopping: watch::Sender<bool>,
    cut: watch::Sender<bool>,
    draining: IntGauge,
    born: Instant,
    /// Milliseconds from birth to the end of the last lack's memory.
    lacking_until: AtomicU64,
}

/// That it leaves.
#[derive(Debug, Clone, Copy)]
pub struct Leaving {
    /// Since when.
    pub since: Instant,
    /// Until when it goes on to accept, since a load balancer may not know yet.
    pub accepts_until: Instant,
}

/// What a load balancer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Send clients here.
    Well,
    /// It leaves.
    Draining,
    /// It has no file descriptor for one more connection.
    Lacking,
}

impl Life {
    /// The life of a proxy that serves; `draining` is set once it leaves.
    pub fn new(draining: IntGauge) -> Life {
        Life {
            leaving: watch::Sender::new(None),
            stopping: watch::Sender::new(false),
            cut: watch::Sender::new(false),
            draining,
            born: Instant::now(),
            lacking_until: AtomicU64::new(0),
        }
    }

    /// Leaves: health is red from now on, and clients are accepted for `lead` longer. Who leaves already goes on as it does.
    pub fn leave(&self, lead: Duration) -> Leaving {
        let since = Instant::now();
        let fresh = Leaving { since, accepts_until: since + lead };
        let first = self.leaving.send_if_modified(|leaving| {
            let first = leaving.is_none();
            leaving.get_or_insert(fresh);
            first
        });
        if first {
            self.draining.set(1);
            tracing::info!(?lead, "the proxy leaves: its health is red, and it accepts for the lead");
        }
        self.leaving.borrow().unwrap_or(fresh)
    }

    /// Stops: once the lead is over, nobody is accepted any more. Without a lead that is now.
    pub fn stop(&self) {
        self.leave(Duration::ZERO);
        self.stopping.send_replace(true);
    }

    /// Waits until nobody is to be accepted any more: it stops and its lead is over, it has been leaving for `drain` (asked once it leaves), or it
    /// is cut. Until it stops somebody in this process may still need it.
    pub async fn closing(&self, drain: impl Fn() -> Duration) {
        let leaving = self.leaving.subscribe().wait_for(Option::is_some).await.ok().and_then(|leaving| *leaving);
        // the sender lives as long as this
        let Some(leaving) = leaving else { return };
        let stopped = async {
            let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
            sleep_until(leaving.accepts_until).await;
        };
        tokio::select! {
            () = stopped => {}
            () = sleep_until(leaving.since + drain()) => {}
            () = self.is_cut() => {}
        }
    }

    /// Ends at once whatever is left.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Says true once all that is left is to end at once.
    pub fn on_cut(&self) -> watch::Receiver<bool> {
        self.cut.subscribe()
    }

    /// Waits for that.
    pub async fn is_cut(&self) {
        // what this gives locks the channel as long as it is held
        let _ = self.on_cut().wait_for(|cut| *cut).await;
    }

    /// Notes that a file descriptor was needed and not to be had.
    pub fn lacks(&self) {
        let until = self.born.elapsed() + LACK;
        self.lacking_until.fetch_max(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How it is.
    pub fn health(&self) -> Health {
        if self.leaving.borrow().is_some() {
            Health::Draining
        } else if self.born.elapsed().as_millis() < u128::from(self.lacking_until.load(Ordering::Relaxed)) {
            Health::Lacking
        } else {
            Health::Well
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life() -> Life {
        Life::new(IntGauge::new("draining", "draining").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn health_is_red_while_it_lacks_and_recovers() {
        let life = life();
        assert_eq!(life.health(), Health::Well);
        life.lacks();
        assert_eq!(life.health(), Health::Lacking);
        tokio::time::sleep(LACK / 2).await;
        life.lacks();
        tokio::time::sleep(LACK - Duration::from_millis(1)).await;
        assert_eq!(life.health(), Health::Lacking, "the last lack counts");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(life.health(), Health::Well);
    }

    #[tokio::test(start_paused = true)]
    async fn it_closes_when_it_is_to_stop_and_its_first_lead_is_over() {
        let (life, drain) = (life(), Duration::from_secs(25));
        assert!(tokio::time::timeout(drain * 100, life.closing(|| drain)).await.is_err(), "it serves");
        let lead = Duration::from_secs(5);
        let told = Instant::now();
        life.leave(lead);
        assert_eq!((life.health(), life.draining.get()), (Health::Draining, 1));
        tokio::time::sleep(lead / 5).await;
        life.stop();
        assert_eq!(life.leave(Duration::ZERO).since, told, "being told again changes nothing");
        life.closing(|| drain).await;
        assert_eq!(told.elapsed(), lead);
        life.closing(|| drain).await;
        assert_eq!(told.elapsed(), lead);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_still_needs_it_has_until_the_drain_is_over() {
        let (life, drain) = (life(), Duration::from_secs(25));
        let told = Instant::now();
        life.leave(Duration::ZERO);
        life.closing(|| drain).await;
        assert_eq!(told.elapsed(), drain);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_cut_within_the_lead_waits_for_no_lead() {
        let life = life();
        let told = Instant::now();
        life.leave(Duration::from_secs(5));
        life.cut();
        life.closing(|| Duration::from_secs(25)).await;
        assert_eq!(told.elapsed(), Duration::ZERO);
    }
}

//! Pacing: at most one datagram a second to each host, over all checks.
//!
//! A host answers what it refuses with ICMP errors, and Linux sends those to one peer at about one a second (icmp(7),
//! `icmp_ratelimit`): whoever asks faster takes the host's own restraint for silence.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio::time::{Instant, sleep_until};

/// How far apart datagrams to one host are.
pub const SPACING: Duration = Duration::from_secs(1);

/// For each host that was asked of late: when the next datagram may leave.
static HOSTS: Mutex<BTreeMap<IpAddr, Arc<Turn<Instant>>>> = Mutex::new(BTreeMap::new());

/// The right to send to one host; whoever else wants to waits until it is dropped, and then a spacing more.
#[derive(Debug)]
pub struct Pace(Option<OwnedMutexGuard<Instant>>);

/// Waits for the host's turn, first come first served. The way to this host itself has no limit, and needs none.
pub async fn turn(host: IpAddr) -> Pace {
    if host.is_loopback() {
        return Pace::free();
    }
    let turn = {
        let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // A host that nobody asks or waits for, and whose spacing is over, is as good as one never asked.
        hosts.retain(|_, turn| Arc::strong_count(turn) > 1 || turn.try_lock().map_or(true, |next| *next > now));
        Arc::clone(hosts.entry(host).or_insert_with(|| Arc::new(Turn::new(now))))
    };
    let next = turn.lock_owned().await;
    sleep_until(*next).await;
    Pace(Some(next))
}

impl Pace {
    /// Where nothing is to be spaced.
    pub fn free() -> Pace {
        Pace(None)
    }

    /// A datagram left just now.
    pub fn sent(&mut self) {
        if let Some(next) = &mut self.0 {
            **next = Instant::now() + SPACING;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test]
    async fn one_a_second_to_one_host_first_come_first_served() {
        let began = Instant::now();
        let ask = |name: &'static str| async move {
            let mut pace = turn(host(101)).await;
            let at = began.elapsed();
            pace.sent();
            (name, at.as_secs())
        };
        let all = futures_util::future::join_all([ask("first"), ask("second"), ask("third")]).await;
        assert_eq!(all, [("first", 0), ("second", 1), ("third", 2)]);
        assert_eq!(ask("later").await.1, 3);
    }

    #[tokio::test]
    async fn hosts_do_not_wait_for_each_other_nor_for_whoever_gave_up() {
        let began = Instant::now();
        let mut one = turn(host(102)).await;
        one.sent();
        drop(turn(host(103)).await);
        drop(turn("127.0.0.1".parse().unwrap()).await);
        assert!(began.elapsed() < SPACING / 2);
        // Whoever waits and is dropped leaves no trace; who did not send costs nobody a second.
        let waiting = tokio::time::timeout(Duration::from_millis(100), turn(host(102))).await;
        assert!(waiting.is_err());
        drop(one);
        drop(turn(host(102)).await);
        drop(turn(host(102)).await);
        assert!(began.elapsed() >= SPACING && began.elapsed() < SPACING * 3 / 2);
    }

    #[tokio::test]
    async fn hosts_that_nobody_asks_any_more_are_forgotten() {
        let mut pace = turn(host(104)).await;
        pace.sent();
        drop(pace);
        tokio::time::sleep(SPACING).await;
        drop(turn(host(105)).await);
        assert!(!HOSTS.lock().unwrap().contains_key(&host(104)));
    }
}

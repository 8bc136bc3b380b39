//! Decoys: an attempt to reach an address where nobody is. Who answers there answers for everybody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use super::Engine;
use crate::clock::Moment;
use crate::net::own_addresses;
use crate::observation::{Evidence, Observation};
use crate::plan::{Check, DECOY_TIMEOUT};
use crate::witness::{DecoyKey, DecoyRun, Decoys};

/// Errors by which this host could not even try: such a run shows nothing. (That there is no route to the decoy does show
/// that nobody answers there.)
const EXHAUSTED: [&str; 5] = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL"];

/// How much longer than the answer that it is to unmask a decoy is waited for.
const DECOY_MARGIN: Duration = Duration::from_secs(1);

/// One decoy run at a time for each key, shared by all who need it.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<DecoyKey, Arc<Turn<()>>>>);

impl Engine {
    /// Makes sure that a decoy run lies beside every one of these observations, and of the newest run of each of the check's
    /// witnesses, that an interceptor could have made.
    pub(super) async fn hear_decoys<'a>(&'a self, check: &'a Check, seen: &[Observation]) {
        let mut needed: BTreeMap<DecoyKey, (Moment, Duration, &Check)> = BTreeMap::new();
        let mut need = |asker: &'a Check, one: &Observation| {
            for key in Decoys::keys_for(one) {
                // One from before would not know of an interceptor that came since; and who took his time once may do so again.
                let (since, patience, _) = needed.entry(key).or_insert((one.started, DECOY_TIMEOUT, asker));
                *since = one.started.max(*since);
                *patience = (one.elapsed + DECOY_MARGIN).min(check.timeout).max(*patience);
            }
        };
        seen.iter().for_each(|one| need(check, one));
        for witness in check.witness_numbers() {
            let (Some(runner), Some(asker)) = (self.runners.get(witness), self.plan.checks.get(witness)) else { continue };
            runner.newest().iter().flat_map(|run| run.seen()).for_each(|one| need(asker, one));
        }
        join_all(needed.into_iter().map(|(key, (since, patience, asker))| self.run_decoy(key, since, patience, asker))).await;
    }

    /// A decoy run of that key that began at or after `since`: the one that serves others, or a new one, by the question of `asker`.
    async fn run_decoy(&self, key: DecoyKey, since: Moment, patience: Duration, asker: &Check) {
        let turn = {
            let mut turns = self.decoy_turns.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Redirects name ports as they like: a turn that nobody has or waits for is not kept.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(key.clone()).or_default())
        };
        let _turn = turn.lock().await;
        if self.decoys.lock().unwrap_or_else(PoisonError::into_inner).ran_since(&key, since) {
            return;
        }
        let to = SocketAddr::new(self.plan.decoy_of(key.family), key.port);
        if own_addresses().contains(&to.ip()) {
            // The way to ourselves is nobody's to intercept, so such a decoy would show nothing.
            return;
        }
        let started = Moment::now();
        let mut evidence = Evidence::default();
        let connected = asker.probe.is_answered_at(to, key.transport, key.source, Instant::now() + patience, &mut evidence).await;
        if evidence.errno.is_some_and(|errno| EXHAUSTED.contains(&errno.as_str())) {
            return;
        }
        let run = DecoyRun { key, started, ended: Moment::now(), connected };
        self.decoys.lock().unwrap_or_else(PoisonError::into_inner).push(run);
    }
}

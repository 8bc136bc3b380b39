//! Decoys: an attempt to reach an address where nobody is. Who answers there answers for everybody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use super::Engine;
use crate::clock::Moment;
use crate::net::connect;
use crate::observation::{Evidence, Observation, Outcome};
use crate::plan::{Check, DECOY_TIMEOUT};
use crate::witness::{DecoyKey, DecoyRun, Decoys};

/// Errors by which this host could not even try: such a run shows nothing. (That there is no route to the decoy does show
/// that nobody answers there.)
const EXHAUSTED: [&str; 5] = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL"];

/// One decoy run at a time for each key, shared by all who need it.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<DecoyKey, Arc<Turn<()>>>>);

impl Engine {
    /// Makes sure that a decoy run lies beside every one of these observations, and of the newest run of each of the check's
    /// witnesses, that an interceptor could have made.
    pub(super) async fn hear_decoys(&self, check: &Check, seen: &[Observation]) {
        let mut needed: BTreeMap<DecoyKey, Moment> = BTreeMap::new();
        let mut need = |one: &Observation, since: Moment| {
            for key in Decoys::keys_for(one) {
                let latest = needed.entry(key).or_insert(since);
                *latest = since.max(*latest);
            }
        };
        // One from before would not know of an interceptor that came since.
        seen.iter().for_each(|one| need(one, one.started));
        let half = self.plan.witness_window / 2;
        for witness in &check.witnesses {
            let Some(runner) = self.runners.get(*witness) else { continue };
            let timeline = runner.timeline();
            timeline.newest().iter().flat_map(|run| run.seen()).for_each(|one| need(one, one.ended - half));
        }
        join_all(needed.into_iter().map(|(key, since)| self.run_decoy(key, since))).await;
    }

    /// A decoy run of that key that began at or after `since`: the one that serves others, or a new one.
    async fn run_decoy(&self, key: DecoyKey, since: Moment) {
        let turn = {
            let mut turns = self.decoy_turns.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Redirects name ports as they like: a turn that nobody has or waits for is not kept.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(key).or_default())
        };
        let _turn = turn.lock().await;
        if self.decoys.lock().unwrap_or_else(PoisonError::into_inner).ran_since(key, since) {
            return;
        }
        let (family, source, port) = key;
        let to = SocketAddr::new(self.plan.decoy_of(family), port);
        let started = Moment::now();
        let mut evidence = Evidence::default();
        let dialled = connect::dial(to, source, Instant::now() + DECOY_TIMEOUT, &mut evidence).await;
        if evidence.errno.is_some_and(|errno| EXHAUSTED.contains(&errno.as_str())) {
            return;
        }
        let connected = matches!(dialled, Ok(_) | Err(Outcome::Reset));
        let run = DecoyRun { key, started, ended: Moment::now(), connected };
        self.decoys.lock().unwrap_or_else(PoisonError::into_inner).push(run);
    }
}

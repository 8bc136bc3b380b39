//! Beside: a check that is not in the plan is run once, by the very same engine, with the witnesses of those that are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Engine, Listener};
use crate::history::Board;
use crate::memory::Memory;
use crate::plan::{Check, Plan, Witness};
use crate::record::Record;

/// Hears of witnesses and of what is under way; the runs themselves are nobody's but his who asked for them.
struct Quiet(Arc<dyn Listener>);

impl Listener for Quiet {
    fn finished(&self, _: &Record) {}

    fn witness(&self, name: &str, target: &str, up: bool) {
        self.0.witness(name, target, up);
    }

    fn looking(&self, change: i64) {
        self.0.looking(change);
    }

    fn lag(&self, _: Duration) {}
}

impl Engine {
    /// Runs a check once, beside those of the plan; what is not done by `deadline` is unproven. `memory` is what is known of it from before.
    /// Gives a board with its record alone, and what is known of it now.
    ///
    /// It shares the runs of its witnesses with every check of the plan, and with all others that are run so.
    pub async fn run_beside(self: &Arc<Self>, check: Check, memory: Memory, deadline: Instant) -> (Arc<Board>, Memory) {
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let mut witnesses = Vec::new();
        let mut number_here = |there: usize| {
            *numbers.entry(there).or_insert_with(|| {
                witnesses.push(there);
                witnesses.len()
            })
        };
        let named = check
            .witnesses
            .iter()
            .map(|witness| Witness { name: witness.name.clone(), numbers: self.numbers_of(&witness.name).map(&mut number_here).collect() });
        let check = Check { witnesses: named.collect(), ..check };
        let checks = witnesses.iter().filter_map(|number| self.plan.checks.get(*number)).cloned();
        let plan = Arc::new(self.plan.beside(check, checks));
        let board = Arc::new(Board::new(Engine::about(&plan).into_iter().take(1).collect()));
        let mut engine = Engine::fresh(plan, Arc::clone(&board), Arc::new(Quiet(Arc::clone(&self.listener))), None);
        let shared = witnesses.iter().filter_map(|number| self.runners.get(*number)).cloned();
        for (own, shared) in engine.runners.iter_mut().skip(1).zip(shared) {
            *own = shared;
        }
        (engine.decoys, engine.decoy_turns) = (Arc::clone(&self.decoys), Arc::clone(&self.decoy_turns));
        engine.permits = Arc::clone(&self.permits);
        if let Some(own) = engine.memories.first_mut() {
            *own = Mutex::new(memory);
        }
        let engine = Arc::new(engine);
        engine.round(&[0], Some(deadline)).await;
        let memory = engine.memories.first().map_or_else(Memory::default, |m| m.lock().unwrap_or_else(PoisonError::into_inner).clone());
        (board, memory)
    }

    /// The numbers of the checks of this name.
    fn numbers_of(&self, name: &str) -> impl Iterator<Item = usize> {
        let plan: &Plan = &self.plan;
        plan.checks.iter().enumerate().filter(move |(_, check)| check.name == name).map(|(number, _)| number)
    }
}

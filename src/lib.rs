//! `mustnot` proves that what must not be reachable is not reachable, and that the one allowed way still works.
//!
//! ```text
//!     probes.toml
//!         |  config      what was written
//!         v
//!        plan            what it means: complete, legal, witnesses resolved
//!         |  schedule    when
//!         v
//!       engine  --->  probe --(net)-->  the wire
//!                       |
//!                  observation          what happened: facts, no opinion
//!                       |   + witness   was the way there alive?
//!                       v
//!                    verdict            holds / violated / unproven
//!                       |   + memory    what earlier runs have seen
//!                       v
//!                    record             one judged run, with its evidence and its reason
//!                       |   + defence   what the logs of the defences say of its attempts; flowlog reads them
//!                       |
//!         +-------+-----+-----+---------+
//!         v       v           v         v
//!      metrics  history     report    alert    opened, repeated, resolved
//!         \______ web ______/           |
//!                                     notify   brings it to its sinks
//!      beacon, proxy, admin_page, squid: neighbours; they know nothing of checks
//!      drill: all of the above once more, on twins of its own that are open and closed on purpose
//! ```
//!
//! Data flows down, knowledge never flows up. A probe does not know what a verdict is; a verdict does not know what a
//! metric is; a reader does not know what a probe is. Only the engine, the drill and the commands see two stages
//! at once.
//! `tests/it/house.rs` reads the `use crate::` lines and keeps these arrows.
//!
//! # Invariants
//!
//! 1. Every planned run ends in exactly one record, after a time-out, a cancel or a panic too.
//! 2. Only `verdict.rs` can make a `holds`, and only `witness.rs` the proof that it needs.
//! 3. No network error gets past `net/failure.rs`: outside it there are only outcomes.
//! 4. Readers never slow the engine: they copy from a board and count; nothing waits for them.
//! 5. `run` and `check` are one engine with two lengths.
//! 6. The nouns (target to record), the plan and the alerts know neither tokio nor the clock: moments are handed in.
//! 7. The proxy never imports probe code; probes never import proxy code.
//! 8. `unsafe` stands in `net/sys.rs` alone, with its reasons.

// The way down, in reading order.
pub mod config;
pub mod plan;
pub mod schedule;
pub mod engine;
pub mod probe;
pub mod net;
pub mod observation;
pub mod expectation;
pub mod witness;
pub mod verdict;
pub mod memory;
pub mod reason;
pub mod defence;
pub mod record;

// The readers.
pub mod history;
pub mod metrics;
pub mod alert;
pub mod notify;
pub mod report;
pub mod web;

// The neighbours.
pub mod admin_page;
pub mod beacon;
pub mod flowlog;
pub mod proxy;
pub mod squid;

// What all share.
pub mod clock;
pub mod exception;
pub mod secret;
mod serve;
pub mod severity;
pub mod state;
pub mod target;
pub mod token;

// The shell.
pub mod cli;
pub mod drill;
pub mod command;

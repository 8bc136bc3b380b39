//! The heart: whether a dead man's switch may be told that all is well with the monitor itself.

use std::time::Duration;

use crate::clock::Moment;
use crate::history::Reading;

/// How long a violation may wait for a sink before that is a fault of the monitor: somebody must hear of it another way.
pub const DEAF_AFTER: Duration = Duration::from_secs(900);

/// How long ago somebody must have looked for what is to be told; that is done once a second.
pub const LOOKED_WITHIN: Duration = Duration::from_secs(60);

/// Whether the scheduler goes round and is heard: there are checks, no record of any is older than it may be, somebody has `looked` at them, and no violation has
/// waited for longer than [`DEAF_AFTER`] for a sink. `waits` are the sinks for which one waits, and since when.
///
/// # Errors
/// Why not.
pub fn beats<'a>(
    readings: &[Reading],
    looked: Moment,
    waits: impl IntoIterator<Item = (&'a str, Moment)>,
    now: Moment,
) -> Result<(), String> {
    if readings.is_empty() {
        return Err("there is no check".into());
    }
    let stale: Vec<&str> = readings.iter().filter(|reading| !reading.fresh).map(|reading| reading.about.name.as_str()).collect();
    if let Some(first) = stale.first() {
        return Err(format!("{} of {} checks are stale, {first} among them", stale.len(), readings.len()));
    }
    if now.since(looked) > LOOKED_WITHIN {
        return Err(format!("nobody has looked for what is to be told for {:.0} s", now.since(looked).as_secs_f64()));
    }
    match waits.into_iter().find(|(_, since)| now.since(*since) > DEAF_AFTER) {
        Some((sink, since)) => Err(format!("{sink} has not taken a violation for {:.0} s", now.since(since).as_secs_f64())),
        None => Ok(()),
    }
}

//! The heartbeat: tells a dead man's switch, again and again, that the monitor looks and is heard. It calls when that ends.

use std::sync::Arc;
use std::time::Duration;

use super::sender::Told;
use super::{Pulse, Said, Way, lock};
use crate::alert::heart;
use crate::clock::Moment;
use crate::history::Board;
use crate::metrics::Metrics;

/// The first pause after a failure; it doubles up to the interval.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells it every `interval`, while that is true.
pub(super) async fn keep_beating(way: Arc<Way>, interval: Duration, board: Arc<Board>, metrics: Arc<Metrics>, pulse: Arc<Pulse>) {
    let (mut said, mut withheld, mut failures) = (Said::default(), false, 0);
    loop {
        let pause = match fit(&board, &pulse) {
            Err(why) => {
                // Again soon: it is told as soon as it is true.
                if !std::mem::replace(&mut withheld, true) {
                    tracing::warn!("heartbeat to {}: withheld, since {why}", way.name);
                }
                interval.min(PAUSE)
            }
            Ok(()) => {
                if std::mem::replace(&mut withheld, false) {
                    tracing::info!("heartbeat to {}: goes on", way.name);
                }
                let sender = lock(&way.by).1.clone();
                match sender.send(String::new()).await {
                    Told::Taken(_) => {
                        metrics.alerts_sent(&way.name, 1);
                        said.taken(&way.name);
                        failures = 0;
                        interval
                    }
                    Told::Refused(why) => {
                        metrics.alerts_failed(&way.name);
                        said.failed(&way.name, &why, "see its URL; the next heartbeat tries again", Moment::now());
                        interval
                    }
                    Told::Later(why, asked) => {
                        metrics.alerts_failed(&way.name);
                        said.failed(&way.name, &why, "it is tried again", Moment::now());
                        failures += 1;
                        interval.min(asked.unwrap_or(PAUSE * 2_u32.saturating_pow(failures - 1)).max(PAUSE))
                    }
                }
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn fit(board: &Board, pulse: &Pulse) -> Result<(), String> {
    let now = Moment::now();
    let (ways, looked) = (lock(&pulse.ways).clone(), *lock(&pulse.looked));
    let waits = ways.iter().filter_map(|way| Some((way.name.as_str(), lock(&way.outbox).breach_since()?)));
    heart::beats(&board.read(now), looked, waits, now)
}

//! `mustnot drill`: prove that a breach would be seen.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::sync::watch;

use super::console::say;
use super::{load, usage};
use crate::cli::{self, EXIT_HOLDS, EXIT_NOTHING, EXIT_UNPROVEN, EXIT_USAGE, EXIT_VIOLATED};
use crate::drill::{drill as drill_all, kinds};
use crate::metrics::Metrics;
use crate::notify::try_all;
use crate::plan::{Keys, Loaded};
use crate::probe::Kind;
use crate::report::{Drilled, Finding};

/// Drills the kinds that the file uses, or those that are named.
pub async fn drill(file: &Path, args: &cli::Drill) -> u8 {
    let plan = if args.kind.is_empty() || args.alert {
        let Ok((_, Loaded { plan, .. })) = load(file, Keys::Read) else { return EXIT_USAGE };
        Some(plan)
    } else {
        None
    };
    let drilled = match &plan {
        Some(plan) if args.kind.is_empty() => kinds(plan),
        _ => args.kind.clone(),
    };
    let sinks = plan.as_ref().filter(|_| args.alert).map_or(&[][..], |plan| &plan.alerts);
    if args.alert && sinks.is_empty() {
        return usage(&format!("--alert sends a test alert through every sink, and {} has none; write an [[alert]]", file.display()));
    }
    crate::net::raise_descriptor_limit();
    let vantage = plan.as_ref().map_or("", |plan| plan.vantage.as_str());
    let (drilled, told) = join(drill_all(&drilled, None), try_all(vantage, sinks)).await;
    drilled.iter().for_each(|one| say(&one.line()));
    let told = match told {
        Ok(told) => told,
        Err(why) => return usage(&why),
    };
    for (sink, came) in &told {
        match came {
            Ok(what) => say(&format!("alerts to {sink}: {what}")),
            Err(why) => say(&format!("alerts to {sink}: FAILED: {why}")),
        }
    }
    // Who cannot be told would not hear of a breach either.
    if told.iter().any(|(_, came)| came.is_err()) {
        return EXIT_VIOLATED;
    }
    if drilled.is_empty() && !told.is_empty() {
        return EXIT_HOLDS;
    }
    exit_code(&drilled)
}

/// 0: every detector saw; 1: one is blind; 3: one could not be drilled; 4: there is none.
pub(super) fn exit_code(drilled: &[Drilled]) -> u8 {
    match drilled.iter().map(|one| one.finding).max() {
        Some(Finding::Saw) => EXIT_HOLDS,
        Some(Finding::Blind) => EXIT_VIOLATED,
        Some(Finding::NotDrilled) => EXIT_UNPROVEN,
        None => EXIT_NOTHING,
    }
}

/// Drills the kinds of a monitor that runs, at its start and then on an interval.
pub(super) async fn keep_drilling(kinds: Vec<Kind>, interval: Duration, metrics: Arc<Metrics>, mut stop: watch::Receiver<bool>) {
    metrics.drills_every(kinds.iter().map(|kind| kind.token()), interval);
    loop {
        let rounds = async {
            for one in drill_all(&kinds, None).await {
                match one.finding {
                    Finding::Saw => tracing::info!("drill: {}", one.line()),
                    Finding::NotDrilled => tracing::warn!("drill: {}", one.line()),
                    Finding::Blind => tracing::error!("drill: {}; what this kind says of its targets cannot be believed", one.line()),
                }
                metrics.drilled(&one);
            }
            tokio::time::sleep(interval).await;
        };
        tokio::select! {
            _ = stop.wait_for(|stopped| *stopped) => return,
            () = rounds => {}
        }
    }
}

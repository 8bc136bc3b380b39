//! `mustnot run`: probe on intervals until told to stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::sync::watch;
use tokio::time::Instant;

use super::console::{Console, Show, say};
use super::drill::keep_drilling;
use super::services::Services;
use super::watcher::Watcher;
use super::{load, stop_on_signal, usage};
use crate::cli::{self, EXIT_HOLDS, EXIT_USAGE};
use crate::drill::kinds;
use crate::engine::{Course, Engine};
use crate::history::Board;
use crate::metrics::Metrics;
use crate::plan::{Keys, Loaded, Plan, Source};
use crate::state::State;
use crate::web::{self, Web};

/// Runs until SIGTERM or SIGINT.
pub async fn run(file: &Path, args: &cli::Run) -> u8 {
    let Ok((source, Loaded { mut plan, created_key, .. })) = load(file, Keys::Create) else { return EXIT_USAGE };
    if let Some(key) = created_key {
        say(&format!("made the beacon key {}; other monitors of this beacon need a copy", key.display()));
    }
    plan.web = args.listen.or(plan.web);
    match serve(Arc::new(plan), file, source).await {
        Ok(()) => EXIT_HOLDS,
        Err(why) => usage(&why),
    }
}

async fn serve(plan: Arc<Plan>, file: &Path, source: Source) -> Result<(), String> {
    crate::net::raise_descriptor_limit();
    let stop = stop_on_signal()?;
    let state = plan.state_dir.as_deref().map(State::open).transpose().map_err(|why| why.to_string())?;
    let board = Arc::new(Board::new(Engine::about(&plan)));
    let metrics = Arc::new(Metrics::new(&plan.vantage, Arc::clone(&board))?);
    let web = match plan.web {
        Some(address) => Some(Web::bind(address).await?),
        None => None,
    };
    let services = Services::start(&plan).await;
    if !services.failed.is_empty() {
        return Err(services.failed.join("\nmustnot: "));
    }
    if let Some(stats) = &services.proxy {
        stats.register(metrics.registry()).map_err(|e| format!("cannot register the proxy's metrics: {e}"))?;
    }
    say(&format!(
        "mustnot {} at vantage \"{}\", {} checks of {}",
        env!("CARGO_PKG_VERSION"),
        plan.vantage,
        plan.checks.len(),
        file.display()
    ));
    let mut web_task = None;
    if let Some(web) = web {
        let address = web.address();
        say(&format!(
            "  status      http://{address}/\n  metrics     http://{address}/metrics\n  API         http://{address}/api/v1/checks"
        ));
        let state = web::State::new(&plan.vantage, Arc::clone(&board), Arc::clone(&metrics));
        web_task = Some(tokio::spawn(web.run(state, stop.clone())));
    }
    services.lines.iter().for_each(|line| say(&format!("  {line}")));

    if let Some(interval) = plan.drill {
        tokio::spawn(keep_drilling(kinds(&plan), interval, Arc::clone(&metrics), stop.clone()));
    }
    let console = Arc::new(Console::new(Arc::clone(&metrics), Show::Changes));
    let engine = Engine::new(Arc::clone(&plan), board, console, state);
    let mut asked = stop.clone();
    let asked = tokio::spawn(async move {
        let _ = asked.wait_for(|stopped| *stopped).await;
        Instant::now()
    });
    keep_up(engine, Watcher::new(source, &plan), &metrics, stop, plan.shutdown_grace).await;

    // One grace for all: first the probes, which may need the neighbours, then the neighbours' own tunnels.
    let deadline = asked.await.unwrap_or_else(|_| Instant::now()) + plan.shutdown_grace;
    services.stop(deadline.saturating_duration_since(Instant::now())).await;
    if let Some(task) = web_task {
        let _ = tokio::time::timeout_at(deadline, task).await;
    }
    say("stopped");
    Ok(())
}

/// Lets one engine follow another as the files of targets change, until told to stop.
async fn keep_up(mut engine: Arc<Engine>, mut watcher: Watcher, metrics: &Metrics, mut stop: watch::Receiver<bool>, grace: Duration) {
    loop {
        let (tell, course) = watch::channel(Course::Going);
        let steer = async {
            let plan = tokio::select! {
                biased;
                _ = stop.wait_for(|stopped| *stopped) => None,
                plan = watcher.changed(metrics) => Some(plan),
            };
            if plan.is_some() {
                let _ = tell.send(Course::Changing);
                // Should the end come while the last runs of this engine are waited for, they have less time.
                tokio::select! {
                    _ = stop.wait_for(|stopped| *stopped) => {}
                    () = tell.closed() => return plan,
                }
            }
            let _ = tell.send(Course::Stopping);
            None
        };
        let (next, ()) = join(steer, engine.run(course, grace)).await;
        let Some(plan) = next else { return };
        say(&format!("the targets have changed: {} checks from now on", plan.checks.len()));
        engine = engine.followed_by(plan);
        metrics.reloaded();
    }
}

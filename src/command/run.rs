//! `mustnot run`: probe on intervals until told to stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::sync::watch;
use tokio::time::Instant;

use super::console::{Console, Show, say};
use super::drill::keep_drilling;
use super::services::Services;
use super::signals::{Signals, Word};
use super::watcher::Watcher;
use super::{expired, load, usage};
use crate::cli::{self, EXIT_HOLDS, EXIT_USAGE};
use crate::drill::kinds;
use crate::engine::{Course, Engine};
use crate::history::Board;
use crate::metrics::Metrics;
use crate::plan::{Keys, Loaded, Plan, Source};
use crate::state::State;
use crate::web::{self, Web};

/// How long answers of the web listener may take at the very end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT; a second one ends it at once.
pub async fn run(file: &Path, args: &cli::Run) -> u8 {
    let Ok((source, Loaded { plan, created_key, .. })) = load(file, Keys::Create) else { return EXIT_USAGE };
    if let Some(key) = created_key {
        say(&format!("made the beacon key {}; other monitors of this beacon need a copy", key.display()));
    }
    expired(&plan, file, |_| true).iter().for_each(|line| tracing::warn!("{line}"));
    match serve(plan, args.listen, file, source).await {
        Ok(()) => EXIT_HOLDS,
        Err(why) => usage(&why),
    }
}

async fn serve(mut plan: Plan, listen: Option<SocketAddr>, file: &Path, source: Source) -> Result<(), String> {
    crate::net::raise_descriptor_limit();
    let signals = Signals::listen()?;
    let stop = signals.stop.clone();
    let web = match listen.or(plan.web) {
        Some(address) => Some(Web::bind(address).await?),
        None => None,
    };
    if let (Some(proxy), Some(web)) = (&mut plan.proxy, &web) {
        proxy.own = vec![web.address()];
    }
    let plan = Arc::new(plan);
    let state = plan.state_dir.as_deref().map(State::open).transpose().map_err(|why| why.to_string())?;
    let board = Arc::new(Board::new(Engine::about(&plan)));
    let metrics = Arc::new(Metrics::new(&plan.vantage, Arc::clone(&board))?);
    let services = Services::start(&plan).await;
    if !services.failed.is_empty() {
        return Err(services.failed.join("\nmustnot: "));
    }
    if let Some(stats) = &services.stats {
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
        // it goes last: how tunnels end is to be seen
        let (close, closed) = watch::channel(false);
        web_task = Some((close, tokio::spawn(web.run(state, closed))));
    }
    services.lines.iter().for_each(|line| say(&format!("  {line}")));
    services.heed(&signals);

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
    let watcher = Watcher::new(file, source, &plan, signals.hangups.clone());
    tokio::select! {
        () = keep_up(engine, &plan, watcher, &services, &metrics, stop) => {}
        () = signals.hear(Word::AtOnce) => say("told to stop a second time: what is under way is given up"),
    }

    // One grace for all: first the probes, which may need the neighbours, then the neighbours' own tunnels.
    let deadline = asked.await.unwrap_or_else(|_| Instant::now()) + plan.shutdown_grace;
    services.stop_when_told(deadline.saturating_duration_since(Instant::now()), &signals).await;
    if let Some((close, task)) = web_task {
        let _ = close.send(true);
        let _ = tokio::time::timeout(LAST_ANSWERS, task).await;
    }
    say("stopped");
    Ok(())
}

/// Lets one engine follow another as the configuration and its files of targets change, until told to stop.
async fn keep_up(
    mut engine: Arc<Engine>,
    begun: &Plan,
    mut watcher: Watcher,
    services: &Services,
    metrics: &Metrics,
    mut stop: watch::Receiver<bool>,
) {
    let take = |plan: &Plan| {
        if plan.vantage != begun.vantage {
            return Err(format!("vantage is \"{}\" on every record and metric of this process; restart it to change that", begun.vantage));
        }
        services.reload(plan)?;
        let kept = need_a_restart(begun, plan);
        if !kept.is_empty() {
            tracing::warn!("{} stay as they were until a restart", kept.join(", "));
        }
        Ok(())
    };
    loop {
        let (tell, course) = watch::channel(Course::Going);
        let steer = async {
            let plan = tokio::select! {
                biased;
                _ = stop.wait_for(|stopped| *stopped) => None,
                plan = watcher.changed(metrics, take) => Some(plan),
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
        let (next, ()) = join(steer, engine.run(course, begun.shutdown_grace)).await;
        let Some(plan) = next else { return };
        say(&format!("the configuration has changed: {} checks from now on", plan.checks.len()));
        engine = engine.followed_by(plan);
        metrics.reloaded();
    }
}

/// The keys in which two plans differ and which no reload changes. Those of `[proxy]` say so themselves.
fn need_a_restart(begun: &Plan, now: &Plan) -> Vec<&'static str> {
    let beacon = |plan: &Plan| plan.beacon.as_ref().map(|beacon| beacon.listen.clone());
    let page = |plan: &Plan| plan.admin_page.as_ref().map(|page| (page.listen, page.allow_from.clone(), page.door));
    let differing = [
        ("[web]", begun.web != now.web),
        ("state_dir", begun.state_dir != now.state_dir),
        ("shutdown_grace", begun.shutdown_grace != now.shutdown_grace),
        ("[beacon] listen", beacon(begun) != beacon(now)),
        ("[proxy]", begun.proxy.is_some() != now.proxy.is_some()),
        ("[admin_page]", page(begun) != page(now)),
        ("[drill]", begun.drill != now.drill),
    ];
    differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

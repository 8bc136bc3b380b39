//! `mustnot run`: probe on intervals until told to stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::console::{Console, Show, say};
use super::drill::keep_drilling;
use super::evidence::{self, Witnessed};
use super::operator::Operator;
use super::services::Services;
use super::signals::{Signals, Word};
use super::watcher::{Change, MAX_WAITING, Watcher, answer};
use super::{expired, load, usage};
use crate::cli::{self, EXIT_HOLDS, EXIT_USAGE};
use crate::drill::kinds;
use crate::engine::{Course, Engine, Listener};
use crate::history::Board;
use crate::metrics::Metrics;
use crate::notify::{Alerts, Ready};
use crate::plan::{Keys, Loaded, Plan, Source};
use crate::state::State;
use crate::web::gate::Gate;
use crate::web::{self, Settings, Web};

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
    let settings = match (listen, plan.web.clone()) {
        (Some(listen), Some(settings)) => Some(Settings { listen, ..settings }),
        (Some(listen), None) => Some(Settings::open(listen)),
        (None, settings) => settings,
    };
    if let Some(settings) = &settings {
        safe_to_probe(&plan, settings)?;
    }
    let web = match settings {
        Some(settings) => Some(Web::guarded(settings).await?),
        None => None,
    };
    let gate = web.as_ref().map(Web::gate);
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
    let (order, orders) = mpsc::channel(MAX_WAITING);
    let watcher = Watcher::new(file, source, &plan, signals.hangups.clone(), orders);
    let operator = Arc::new(Operator::new(order, watcher.what_is_in_force()));
    let console = Console::new(Arc::clone(&metrics), Show::Changes);
    let listener: Arc<dyn Listener> = match plan.evidence.as_ref().filter(|evidence| !evidence.follow.is_empty()) {
        Some(logs) => {
            let (records, kept) = evidence::channel();
            evidence::follow(logs, &plan, kept, Arc::clone(&board), Arc::clone(&metrics), stop.clone());
            Arc::new(Witnessed { listener: console, records, metrics: Arc::clone(&metrics) })
        }
        None => Arc::new(console),
    };
    let engine = Engine::new(Arc::clone(&plan), Arc::clone(&board), listener, state);
    // Before anybody can ask for a probe.
    watcher.runs(&engine);
    let mut web_task = None;
    if let Some(web) = web {
        let at = format!("{}://{}", web.gate().rules().settings.scheme(), web.address());
        say(&format!("  status      {at}/\n  metrics     {at}/metrics\n  API         {at}/api/v1/checks"));
        let state = web::State::new(&plan.vantage, Arc::clone(&board), Arc::clone(&metrics)).with_control(operator);
        // it goes last: how tunnels end is to be seen
        let (close, closed) = watch::channel(false);
        web_task = Some((close, tokio::spawn(web.run(state, closed))));
    }
    services.lines.iter().for_each(|line| say(&format!("  {line}")));
    plan.alerts.iter().for_each(|sink| say(&format!("  alerts      {} ({})", sink.name, sink.place())));
    services.heed(&signals);

    if let Some(interval) = plan.drill {
        tokio::spawn(keep_drilling(kinds(&plan), interval, Arc::clone(&metrics), stop.clone()));
    }
    let alerts = Alerts::start(&plan.vantage, &plan.alerts, Arc::clone(&board), Arc::clone(&metrics), plan.state_dir.as_deref())?;
    let mut asked = stop.clone();
    let asked = tokio::spawn(async move {
        let _ = asked.wait_for(|stopped| *stopped).await;
        Instant::now()
    });
    let beside = Beside { services: &services, alerts: &alerts, gate, metrics: &metrics };
    tokio::select! {
        () = keep_up(engine, &plan, watcher, &beside, stop) => {}
        () = signals.hear(Word::AtOnce) => say("told to stop a second time: what is under way is given up"),
    }

    // One grace for all: first the probes, which may need the neighbours, then the neighbours' own tunnels.
    let deadline = asked.await.unwrap_or_else(|_| Instant::now()) + plan.shutdown_grace;
    let told = async {
        tokio::select! {
            () = alerts.stop(deadline) => {}
            () = told_again(&signals) => {}
        }
    };
    join(told, services.stop_when_told(deadline.saturating_duration_since(Instant::now()), &signals)).await;
    if let Some((close, task)) = web_task {
        let _ = close.send(true);
        let _ = tokio::time::timeout(LAST_ANSWERS, task).await;
    }
    say("stopped");
    Ok(())
}

/// Waits until it is told a second time, and then a moment: what is on its way may arrive.
async fn told_again(signals: &Signals) {
    signals.hear(Word::AtOnce).await;
    tokio::time::sleep(LAST_ANSWERS).await;
}

/// Where `--listen` says another address than the file, the plan could not tell that strangers would have it probe for them.
fn safe_to_probe(plan: &Plan, settings: &Settings) -> Result<(), String> {
    match plan.templates.first() {
        Some(template) if !settings.is_local() && settings.is_open() => Err(format!(
            "the check \"{}\" has template = true, and whoever can reach {} could have this monitor knock at every address of its allow_targets; \
             write basic_auth or client_ca_file in [web], or listen on 127.0.0.1",
            template.name, settings.listen
        )),
        _ => Ok(()),
    }
}

/// What runs beside the engine, and takes over another configuration with it.
struct Beside<'a> {
    services: &'a Services,
    alerts: &'a Alerts,
    gate: Option<Arc<Gate>>,
    metrics: &'a Metrics,
}

impl Beside<'_> {
    /// Takes over all of a plan that is not the engine's.
    fn take(&self, begun: &Plan, plan: &Plan) -> Result<(), String> {
        if plan.vantage != begun.vantage {
            return Err(format!("vantage is \"{}\" on every record and metric of this process; restart it to change that", begun.vantage));
        }
        if let Some(gate) = &self.gate {
            let settings = plan.web.clone().unwrap_or_else(|| gate.rules().settings.clone());
            let listen = gate.rules().settings.listen;
            safe_to_probe(plan, &Settings { listen, ..settings })?;
        }
        // What can be wrong comes first, so that nothing is taken over by halves.
        let rules = match (&self.gate, &plan.web) {
            (Some(gate), Some(settings)) => Some((gate, gate.prepare(settings.clone())?)),
            _ => None,
        };
        let sinks = Ready::all(&plan.alerts)?;
        self.services.reload(plan)?;
        self.alerts.reload(sinks);
        if let Some((gate, rules)) = rules {
            gate.change(rules);
        }
        let kept = need_a_restart(begun, plan);
        if !kept.is_empty() {
            tracing::warn!("{} stay as they were until a restart", kept.join(", "));
        }
        Ok(())
    }
}

/// Lets one engine follow another as the configuration and its files of targets change, until told to stop.
async fn keep_up(mut engine: Arc<Engine>, begun: &Plan, mut watcher: Watcher, beside: &Beside<'_>, mut stop: watch::Receiver<bool>) {
    let take = |plan: &Plan| beside.take(begun, plan);
    loop {
        watcher.runs(&engine);
        let (tell, course) = watch::channel(Course::Going);
        let steer = async {
            let change = tokio::select! {
                biased;
                _ = stop.wait_for(|stopped| *stopped) => None,
                change = watcher.changed(beside.metrics, take) => Some(change),
            };
            if change.is_some() {
                let _ = tell.send(Course::Changing);
                // Should the end come while the last runs of this engine are waited for, they have less time.
                tokio::select! {
                    _ = stop.wait_for(|stopped| *stopped) => {}
                    () = tell.closed() => return change,
                }
            }
            let _ = tell.send(Course::Stopping);
            None
        };
        let (next, ()) = join(steer, engine.run(course, begun.shutdown_grace)).await;
        let Some(Change { plan, waiting }) = next else { return };
        let told = format!("{} checks from now on", plan.checks.len());
        say(&format!("the configuration has changed: {told}"));
        engine = engine.followed_by(plan);
        watcher.in_force(beside.metrics);
        answer(waiting, &Ok(format!("reloaded: {told}")));
    }
}

/// The keys in which two plans differ and which no reload changes. Those of `[proxy]` say so themselves.
fn need_a_restart(begun: &Plan, now: &Plan) -> Vec<&'static str> {
    let listen = |plan: &Plan| plan.web.as_ref().map(|web| web.listen);
    let beacon = |plan: &Plan| plan.beacon.as_ref().map(|beacon| beacon.listen.clone());
    let page = |plan: &Plan| plan.admin_page.as_ref().map(|page| (page.listen, page.allow_from.clone(), page.door));
    let differing = [
        ("[web] listen", listen(begun) != listen(now)),
        ("state_dir", begun.state_dir != now.state_dir),
        ("shutdown_grace", begun.shutdown_grace != now.shutdown_grace),
        ("[beacon] listen", beacon(begun) != beacon(now)),
        ("[proxy]", begun.proxy.is_some() != now.proxy.is_some()),
        ("[admin_page]", page(begun) != page(now)),
        ("[drill]", begun.drill != now.drill),
        ("[evidence]", begun.evidence != now.evidence),
    ];
    differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

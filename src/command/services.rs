//! The neighbours that a plan asks for: beacon, embedded proxy, practice page. Started before the engine, stopped after it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::signals::{Signals, Word};
use crate::admin_page::AdminPage;
use crate::beacon::Beacon;
use crate::plan::Plan;
use crate::proxy::{self, Proxy};

/// What runs beside the engine.
pub struct Services {
    running: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    /// A line each: what runs, and where.
    pub lines: Vec<String>,
    /// A line each: what could not be started, and why.
    pub failed: Vec<String>,
    /// What the proxy counts.
    pub stats: Option<Arc<proxy::Stats>>,
    proxy: Option<proxy::Handle>,
}

/// What the proxy may take besides `drain`: the last lines of its log.
const LAST_LINES: Duration = Duration::from_secs(3);

impl Services {
    /// Starts all that the plan asks for; what fails is said in `failed`.
    pub async fn start(plan: &Plan) -> Services {
        let (stop, _) = watch::channel(false);
        let mut services = Services { running: Vec::new(), stop, lines: Vec::new(), failed: Vec::new(), stats: None, proxy: None };
        services.beacon(plan);
        services.proxy(plan).await;
        services.admin_page(plan);
        services
    }

    fn beacon(&mut self, plan: &Plan) {
        let Some(settings) = plan.beacon.as_ref().filter(|b| !b.listen.is_empty()) else { return };
        match Beacon::bind(settings.listen.clone(), settings.key.clone()) {
            Ok(beacon) => {
                self.lines.extend(beacon.addresses().iter().map(|a| format!("beacon      http://{a}/")));
                self.running.push(tokio::spawn(beacon.run(self.stop.subscribe(), plan.shutdown_grace)));
            }
            Err(why) => self.failed.push(format!("beacon: {why}")),
        }
    }

    async fn proxy(&mut self, plan: &Plan) {
        let Some(settings) = &plan.proxy else { return };
        match Proxy::bind(settings.clone()).await {
            Ok(proxy) => {
                let forms = if settings.http_ports.is_empty() { "CONNECT" } else { "CONNECT and absolute form" };
                self.lines.extend(proxy.addresses().iter().map(|a| format!("proxy       http://{a}  ({forms})")));
                self.lines.extend(proxy.health_addresses().iter().map(|a| format!("  health    http://{a}/healthz")));
                self.stats = Some(proxy.stats());
                self.proxy = Some(proxy.handle());
                self.running.push(tokio::spawn(proxy.run(self.stop.subscribe())));
            }
            Err(why) => self.failed.push(format!("proxy: {why}")),
        }
    }

    fn admin_page(&mut self, plan: &Plan) {
        let Some(settings) = &plan.admin_page else { return };
        match AdminPage::bind(settings.listen, settings.allow_from.clone()) {
            Ok(mut page) => {
                self.lines.push(format!("admin page  http://{}/", page.address()));
                if let Some(door) = settings.door {
                    self.lines.push(format!("door        {door}  (opened for one visit by http://{}/door)", page.address()));
                    page = page.with_door(door);
                }
                self.running.push(tokio::spawn(page.run(self.stop.subscribe(), plan.shutdown_grace)));
            }
            Err(why) => self.failed.push(format!("admin_page: {why}")),
        }
    }

    /// Lets the proxy leave as soon as the process is told to, though probes may still need it: its load balancer has to learn of it
    /// first. Ends it at once where that is what is told.
    pub fn heed(&self, signals: &Signals) {
        let Some(proxy) = self.proxy.clone() else { return };
        let signals = signals.clone();
        tokio::spawn(async move {
            signals.hear(Word::Leave).await;
            if *signals.word.borrow() == Word::Leave {
                proxy.leave();
            }
            signals.hear(Word::AtOnce).await;
            proxy.cut();
        });
    }

    /// Gives the proxy the rules of another plan, for connections from now on. The keys that only a restart changes are said.
    ///
    /// # Errors
    /// What is wrong with them; then nothing is changed.
    pub fn reload(&self, plan: &Plan) -> Result<(), String> {
        let (Some(proxy), Some(settings)) = (&self.proxy, &plan.proxy) else { return Ok(()) };
        let own = proxy.settings().own.clone();
        let kept = proxy.reload(&proxy::Settings { own, ..settings.clone() }).map_err(|why| format!("[proxy]: {why}"))?;
        if !kept.is_empty() {
            tracing::warn!("[proxy]: {} stay as they were until a restart", kept.join(", "));
        }
        tracing::info!("[proxy]: the rules hold for new connections; those that are open keep theirs");
        Ok(())
    }

    /// Being told twice does no harm.
    fn leave_if_told(&self, signals: &Signals) {
        if let (Some(proxy), Word::Leave) = (&self.proxy, *signals.word.borrow()) {
            proxy.leave();
        }
    }

    /// How long the proxy's tunnels may need to end, once it leaves.
    pub fn drain(&self) -> Duration {
        self.proxy.as_ref().map_or(Duration::ZERO, |proxy| proxy.drain() + LAST_LINES)
    }

    /// Stops accepting and waits until what is under way has ended, at most `grace`.
    pub async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        let all = futures_util::future::join_all(self.running);
        let _ = tokio::time::timeout(grace, all).await;
    }

    /// The same, for a process that was told to: the proxy has its own time, and who is told a second time waits no longer.
    pub async fn stop_when_told(self, grace: Duration, signals: &Signals) {
        self.leave_if_told(signals);
        let limit = grace.max(self.drain());
        let told_again = async {
            signals.hear(Word::AtOnce).await;
            tokio::time::sleep(LAST_LINES).await;
        };
        tokio::select! {
            () = self.stop(limit) => {}
            () = told_again => {}
        }
    }
}

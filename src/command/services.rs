//! The neighbours that a plan asks for: beacon, embedded proxy, practice page. Started before the engine, stopped after it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

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
    pub proxy: Option<std::sync::Arc<proxy::Stats>>,
}

impl Services {
    /// Starts all that the plan asks for; what fails is said in `failed`.
    pub async fn start(plan: &Plan) -> Services {
        let (stop, _) = watch::channel(false);
        let mut services = Services { running: Vec::new(), stop, lines: Vec::new(), failed: Vec::new(), proxy: None };
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
                self.proxy = Some(proxy.stats());
                self.running.push(tokio::spawn(proxy.run(self.stop.subscribe(), plan.shutdown_grace)));
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

    /// Stops accepting and waits until what is under way has ended, at most `grace`.
    pub async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        let all = futures_util::future::join_all(self.running);
        let _ = tokio::time::timeout(grace, all).await;
    }
}

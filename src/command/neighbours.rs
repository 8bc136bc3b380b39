//! `mustnot proxy` and `mustnot beacon`: only that part, until told to stop.

use std::path::Path;

use super::console::say;
use super::services::Services;
use super::signals::{Signals, Word};
use super::watcher::read_anew;
use super::{load, usage};
use crate::cli::{EXIT_HOLDS, EXIT_USAGE};
use crate::plan::{Keys, Loaded, Plan};

/// Runs the embedded proxy of the file.
pub async fn proxy(file: &Path) -> u8 {
    let Ok((_, Loaded { mut plan, .. })) = load(file, Keys::Read) else { return EXIT_USAGE };
    if plan.proxy.is_none() {
        return usage(&format!("{} has no [proxy] section; write one with `listen` and `allow_from`", file.display()));
    }
    (plan.beacon, plan.admin_page) = (None, None);
    alone(file, &plan).await
}

/// Runs the beacon of the file.
pub async fn beacon(file: &Path) -> u8 {
    let Ok((_, Loaded { mut plan, created_key, .. })) = load(file, Keys::Create) else { return EXIT_USAGE };
    if plan.beacon.as_ref().is_none_or(|b| b.listen.is_empty()) {
        return usage(&format!("{} has no [beacon] section with `listen`; write one with `listen` and `key_file`", file.display()));
    }
    if let Some(key) = created_key {
        say(&format!("made the beacon key {}; the monitors that use this beacon need a copy", key.display()));
    }
    (plan.proxy, plan.admin_page) = (None, None);
    alone(file, &plan).await
}

async fn alone(file: &Path, plan: &Plan) -> u8 {
    crate::net::raise_descriptor_limit();
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(why) => return usage(&why),
    };
    let services = Services::start(plan).await;
    if !services.failed.is_empty() {
        return usage(&services.failed.join("\nmustnot: "));
    }
    services.lines.iter().for_each(|line| say(line));
    services.heed(&signals);
    tokio::select! {
        () = signals.hear(Word::Leave) => {}
        () = keep_reloading(file, plan, &services, &signals) => {}
    }
    services.stop_when_told(plan.shutdown_grace, &signals).await;
    EXIT_HOLDS
}

/// Gives the proxy new rules at each SIGHUP; a file that is wrong changes nothing.
async fn keep_reloading(file: &Path, plan: &Plan, services: &Services, signals: &Signals) {
    let mut hangups = signals.hangups.clone();
    while hangups.changed().await.is_ok() {
        let read = read_anew(file.to_path_buf()).await.and_then(|(_, loaded)| {
            if plan.proxy.is_none() || loaded.plan.proxy.is_none() {
                return Err("there is no [proxy], and all else takes a restart".into());
            }
            services.reload(&loaded.plan)
        });
        if let Err(why) = read {
            tracing::error!("SIGHUP: nothing is changed, all stays as it was: {why}");
        }
    }
    std::future::pending().await
}

//! `mustnot proxy` and `mustnot beacon`: only that part, until told to stop.

use std::path::Path;

use super::console::say;
use super::services::Services;
use super::{load, stop_on_signal, usage};
use crate::cli::{EXIT_HOLDS, EXIT_USAGE};
use crate::plan::{Keys, Loaded, Plan};

/// Runs the embedded proxy of the file.
pub async fn proxy(file: &Path) -> u8 {
    let Ok((_, Loaded { mut plan, .. })) = load(file, Keys::Read) else { return EXIT_USAGE };
    if plan.proxy.is_none() {
        return usage(&format!("{} has no [proxy] section; write one with `listen` and `allow_from`", file.display()));
    }
    (plan.beacon, plan.admin_page) = (None, None);
    alone(&plan).await
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
    alone(&plan).await
}

async fn alone(plan: &Plan) -> u8 {
    crate::net::raise_descriptor_limit();
    let mut stop = match stop_on_signal() {
        Ok(stop) => stop,
        Err(why) => return usage(&why),
    };
    let services = Services::start(plan).await;
    if !services.failed.is_empty() {
        return usage(&services.failed.join("\nmustnot: "));
    }
    services.lines.iter().for_each(|line| say(line));
    let _ = stop.wait_for(|stopped| *stopped).await;
    services.stop(plan.shutdown_grace).await;
    EXIT_HOLDS
}

//! The gate: who is let in, by TLS, by certificate and by password. It can be changed while it stands, and its files may be renewed.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, header};
use rustls::ServerConfig;
use tokio::sync::watch;

use super::password::{Passwords, Refusal};
use super::settings::{Files, Settings};

/// How often it is looked whether a file was renewed.
const EVERY: Duration = Duration::from_secs(5);

/// What tells one state of a file from another: whoever replaces it changes one of these.
type Stamp = (PathBuf, Option<(SystemTime, u64, u64)>);

/// Whom a listener lets in.
#[derive(Debug)]
pub struct Gate {
    rules: watch::Sender<Arc<Rules>>,
    passwords: Passwords,
}

/// What holds at one time.
#[derive(Debug)]
pub struct Rules {
    /// As they were written.
    pub settings: Settings,
    tls: RwLock<Option<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    stamps: Vec<Stamp>,
}

/// Who asks: what his connection has shown.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// From where.
    pub address: IpAddr,
    /// He has a certificate of the authority that clients must have one of.
    pub certified: bool,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// A certificate is asked for, and he has none.
    Uncertified,
    /// A password is asked for.
    Password(Refusal),
}

impl Gate {
    /// A gate by these settings.
    ///
    /// # Errors
    /// The file that cannot be used, why, and what to do.
    pub fn new(settings: Settings) -> Result<Gate, String> {
        Ok(Gate { rules: watch::channel(Arc::new(Rules::of(settings)?)).0, passwords: Passwords::new()? })
    }

    /// Rules by other settings, to be [changed to](Gate::change); where it listens stays.
    ///
    /// # Errors
    /// As [`Gate::new`].
    pub fn prepare(&self, settings: Settings) -> Result<Rules, String> {
        Rules::of(Settings { listen: self.rules().settings.listen, ..settings })
    }

    /// Other rules from now on. Whoever was let in by those before has to come again, unless they say the same.
    pub fn change(&self, rules: Rules) {
        let now = self.rules();
        if rules.settings == now.settings {
            now.renew();
        } else {
            self.rules.send_replace(Arc::new(rules));
        }
    }

    /// What holds now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.borrow())
    }

    /// Hears of every change.
    pub fn changes(&self) -> watch::Receiver<Arc<Rules>> {
        self.rules.subscribe()
    }

    /// Whether the caller may have what is not for everybody.
    ///
    /// # Errors
    /// Why not.
    pub async fn admit(&self, caller: Caller, headers: &HeaderMap) -> Result<(), Outside> {
        let rules = self.rules();
        if rules.settings.asks_for_certificates() && !caller.certified {
            return Err(Outside::Uncertified);
        }
        if rules.settings.users.is_empty() {
            return Ok(());
        }
        self.passwords.admit(caller.address, &rules.settings.users, headers.get(header::AUTHORIZATION)).await.map_err(Outside::Password)
    }

    /// Takes over renewed files for as long as it is waited for.
    pub async fn keep_renewing(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            let rules = self.rules();
            if rules.settings.tls.is_some() {
                // Files may lie on a slow disk, and no probe is to wait for one.
                let _ = tokio::task::spawn_blocking(move || rules.renew()).await;
            }
        }
    }
}

impl Rules {
    fn of(settings: Settings) -> Result<Rules, String> {
        let load = |files: &Files| {
            let stamps = stamps(files);
            files.load().map(|config| Loaded { config, stamps }).map_err(|(key, why)| format!("[web] {key}: {why}"))
        };
        let tls = settings.tls.as_ref().map(load).transpose()?;
        Ok(Rules { settings, tls: RwLock::new(tls) })
    }

    /// How to shake hands, where it speaks TLS.
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|loaded| Arc::clone(&loaded.config))
    }

    /// Reads the files again where they have changed. What cannot be used is said once, and what was there before stays: of a renewal
    /// one file comes after the other.
    pub fn renew(&self) {
        let Some(files) = &self.settings.tls else { return };
        let now = stamps(files);
        let known = |loaded: &Loaded| loaded.stamps == now;
        if self.tls.read().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(known) {
            return;
        }
        let loaded = files.load();
        let mut tls = self.tls.write().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = tls.as_mut() else { return };
        before.stamps = now;
        match loaded {
            Ok(config) => {
                before.config = config;
                tracing::info!("[web]: {} was renewed, and is shown from now on", files.cert_file.display());
            }
            Err((key, why)) => tracing::error!("[web] {key} has changed and is not taken over, the certificate from before stays: {why}"),
        }
    }
}

fn stamps(files: &Files) -> Vec<Stamp> {
    let one = |path: &std::path::Path| std::fs::metadata(path).ok().and_then(|data| Some((data.modified().ok()?, data.len(), data.ino())));
    files.paths().map(|path| (path.to_path_buf(), one(path))).collect()
}

//! Pushing: the metrics of one run to a Prometheus, by Remote-Write, from a place that nothing can scrape.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use tokio::time::{Instant, sleep};

use crate::cli;
use crate::clock::Wall;
use crate::config::printable;
use crate::history::Board;
use crate::metrics::{Pushed, remote_write};
use crate::net::tls;
use crate::notify::{client, reason};
use crate::record::{About, Record};
use crate::report::Report;
use crate::secret::{Secret, mask};
use crate::target::Url;

/// Where a password is, if in no file.
const PASSWORD: &str = "MUSTNOT_REMOTE_WRITE_PASSWORD";
/// The same of a token.
const TOKEN: &str = "MUSTNOT_REMOTE_WRITE_TOKEN";
/// How long one request may take.
const ONE_REQUEST: Duration = Duration::from_secs(10);
/// For how long what may pass is tried again.
const ALL_OF_IT: Duration = Duration::from_secs(30);
/// The pause before the first time again; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
/// The most of an answer that is told.
const MAX_TOLD: usize = 300;

/// Where the metrics of a run go, and by which right.
#[derive(Debug)]
pub struct Push {
    url: String,
    /// The same as it may be told: some put a key into the query.
    shown: String,
    client: Client,
    authorization: Option<HeaderValue>,
    labels: BTreeMap<String, String>,
    /// How often a run is pushed, where that is said.
    every: Option<Duration>,
    secrets: Vec<Secret>,
}

/// What rustls says of a certificate that it does not trust, and will not trust the next time.
const UNTRUSTED: &str = "invalid peer certificate";

/// How one request ended that was not taken.
struct Failed {
    why: String,
    /// It may pass, after so long where the other side says so.
    again: Option<Duration>,
}

impl Push {
    /// What the flags say; none where they say nothing.
    ///
    /// # Errors
    /// What is wrong with them, and what to write.
    pub fn of(args: &cli::RemoteWrite, vantage: &str, env: impl Fn(&str) -> Option<String>) -> Result<Option<Push>, String> {
        let Some(url) = &args.remote_write else {
            return Ok(None);
        };
        let parsed: Url = url.parse().map_err(|why| format!("--remote-write: {why}"))?;
        let password = secret(args.remote_write_password_file.as_deref(), "--remote-write-password-file", env(PASSWORD))?;
        let token = secret(args.remote_write_token_file.as_deref(), "--remote-write-token-file", env(TOKEN))?;
        let authorization = match (&args.remote_write_user, &password, &token) {
            (None, None, None) => None,
            (Some(user), Some(password), None) => Some(crate::probe::basic_auth(user, password)),
            (None, None, Some(token)) => Some(format!("Bearer {}", token.expose())),
            (Some(_), None, _) => {
                return Err(format!("--remote-write-user stands alone; write --remote-write-password-file, or set {PASSWORD}"));
            }
            (None, Some(_), _) => return Err("there is a password for Remote-Write and no user; write --remote-write-user".into()),
            (Some(_), Some(_), Some(_)) => return Err("there is a password for Remote-Write and a token too; leave out one of them".into()),
        };
        let authorization = authorization.map(|text| {
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| "the credential of Remote-Write has characters that no header may have".to_string())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        let tls = tls::trusting(args.remote_write_ca_file.as_deref()).map_err(|why| format!("--remote-write-ca-file: {why}"))?;
        let client = client(tls, ONE_REQUEST).build().map_err(|e| format!("cannot set up Remote-Write: {}", reason(&e)))?;
        let mut labels = BTreeMap::from([("job".to_string(), "mustnot-check".to_string()), ("instance".to_string(), vantage.to_string())]);
        for label in &args.remote_write_label {
            let (name, value) = label.split_once('=').ok_or_else(|| format!("--remote-write-label {label}: write NAME=VALUE"))?;
            let legal = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
            if name.is_empty() || !legal || name.starts_with("__") {
                return Err(format!(
                    "--remote-write-label {label}: \"{name}\" cannot be a label; write letters, digits and _, no digit first"
                ));
            }
            labels.insert(name.to_string(), value.to_string());
        }
        let place = format!("{}://{}", parsed.scheme, parsed.authority);
        let shown = parsed.path.split_once('?').map_or_else(|| parsed.path.clone(), |(path, _)| format!("{path}?***"));
        Ok(Some(Push {
            url: format!("{place}{}", parsed.path),
            shown: place + &shown,
            client,
            authorization: authorization.transpose()?,
            labels,
            every: args.remote_write_every,
            secrets: [password, token].into_iter().flatten().collect(),
        }))
    }

    /// The metrics of what the report says, no more and no less.
    pub fn of_run(&self, report: &Report) -> Pushed {
        // The report is of this moment, however long ago one of its runs began.
        let lasting = |record: &Record| Record {
            about: Arc::new(About { stale_after: Duration::MAX, ..record.about.as_ref().clone() }),
            ..record.clone()
        };
        let records: Vec<Record> = report.records.iter().map(lasting).collect();
        let board = Arc::new(Board::new(records.iter().map(|record| Arc::clone(&record.about)).collect()));
        for (number, record) in records.into_iter().enumerate() {
            board.publish(number, record);
        }
        Pushed { vantage: report.vantage.clone(), board, every: self.every }
    }

    /// Sends them; what may pass is tried again for a while.
    ///
    /// # Errors
    /// Where it was not taken: by whom, and why.
    pub async fn send(&self, pushed: &Pushed) -> Result<(), String> {
        let now = Wall::now().unix_millis();
        let body = remote_write::encode(&pushed.gather(), &self.labels, now)?;
        let until = Instant::now() + ALL_OF_IT;
        let mut pause = PAUSE;
        loop {
            let Err(failed) = self.once(body.clone()).await else { return Ok(()) };
            let rest = failed.again.map(|asked| asked.max(pause));
            // What the other side asks for may be longer than any clock can count.
            match rest.filter(|rest| *rest < until.saturating_duration_since(Instant::now())) {
                Some(rest) => sleep(rest).await,
                None => {
                    return Err(format!(
                        "the metrics of this run were not taken by {}: {}; its series there are those of an earlier run, or none",
                        self.shown,
                        printable(&mask(&failed.why, &self.secrets))
                    ));
                }
            }
            pause *= 2;
        }
    }

    async fn once(&self, body: Vec<u8>) -> Result<(), Failed> {
        let mut request = self.client.post(&self.url).body(body);
        request = request.header(CONTENT_TYPE, remote_write::CONTENT_TYPE).header(CONTENT_ENCODING, remote_write::CONTENT_ENCODING);
        request = request.header(remote_write::VERSION.0, remote_write::VERSION.1);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                let why = reason(&error.without_url());
                let again = (!why.contains(UNTRUSTED)).then_some(Duration::ZERO);
                return Err(Failed { why, again });
            }
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
        let mut told = Vec::new();
        while let Ok(Some(bytes)) = answer.chunk().await {
            told.extend_from_slice(&bytes);
            if told.len() >= MAX_TOLD {
                break;
            }
        }
        let told: String = String::from_utf8_lossy(&told).chars().take(MAX_TOLD).collect();
        // What is wrong by itself is wrong the next time, too (Retries & Backoff).
        let may_pass = status.is_server_error() || status.as_u16() == 429;
        let hint = match status.as_u16() {
            401 | 403 => "; see --remote-write-user, --remote-write-token-file",
            404 | 405 => {
                "; is that the address that takes Remote-Write? Prometheus takes it at /api/v1/write, with --web.enable-remote-write-receiver"
            }
            _ => "",
        };
        Err(Failed { why: format!("it answered {status}: {}{hint}", told.trim()), again: may_pass.then(|| asked.unwrap_or_default()) })
    }
}

/// A secret from its file, else from the environment.
fn secret(file: Option<&Path>, flag: &str, env: Option<String>) -> Result<Option<Secret>, String> {
    let text = match file {
        None => return Ok(env.filter(|text| !text.is_empty()).map(Secret::new)),
        Some(file) => fs::read_to_string(file).map_err(|e| format!("{flag}: {} cannot be read ({e})", file.display()))?,
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!("{flag} must name a file that holds one line, the secret"));
    }
    Ok(Some(Secret::new(text)))
}

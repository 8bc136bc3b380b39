//! `[[alert]]`: where alerts go, as written.

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys;
use super::problem::{At, Place};
use super::reader::{Section, did_you_mean, listed};
use super::sections::{read_headers, read_labels, unique};
use super::value::{filled, parse_alertmanager, parse_name, parse_severity, parse_sink, parse_user};
use crate::alert::sink::{Address, Only, SinkKind};
use crate::secret::Secret;
use crate::severity::Severity;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// One `[[alert]]`.
pub struct Alert {
    /// Where it stands.
    pub place: Place,
    /// `name`
    pub name: Option<At<String>>,
    /// `kind`
    pub kind: Option<SinkKind>,
    /// `min_severity`
    pub min_severity: Option<At<Severity>>,
    /// `only`
    pub only: Option<At<Vec<At<Only>>>>,
    /// `unproven_for`
    pub unproven_for: Option<At<Duration>>,
    /// `stale_for`
    pub stale_for: Option<At<Duration>>,
    /// `keep_firing_for`
    pub keep_firing_for: Option<At<Duration>>,
    /// `repeat_interval`
    pub repeat_interval: Option<At<Duration>>,
    /// `timeout`
    pub timeout: Option<At<Duration>>,
    /// `ca_file`
    pub ca_file: Option<At<String>>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
    /// `url`, one or many
    pub urls: Option<At<Vec<At<Address>>>>,
    /// `url_file`
    pub url_file: Option<At<String>>,
    /// `routing_key`
    pub routing_key: Option<At<Secret>>,
    /// `routing_key_file`
    pub routing_key_file: Option<At<String>>,
    /// `api_key`
    pub api_key: Option<At<Secret>>,
    /// `api_key_file`
    pub api_key_file: Option<At<String>>,
    /// `body`
    pub body: Option<At<String>>,
    /// `content_type`
    pub content_type: Option<At<String>>,
    /// `headers`
    pub headers: Vec<(String, Secret)>,
    /// `user`
    pub user: Option<At<String>>,
    /// `password_file`
    pub password_file: Option<At<String>>,
    /// `bearer_token_file`
    pub bearer_token_file: Option<At<String>>,
    /// `interval`
    pub interval: Option<At<Duration>>,
    /// Nothing in it was found wrong yet.
    pub sound: bool,
}

impl Alert {
    /// Reads one.
    pub fn read(section: &Section<'_, '_>) -> Alert {
        let mut section = section.clone();
        if let Some(name) = section.raw("name").or(section.raw("kind")).filter(|n| parse_name(n, "-_").is_ok()) {
            section.place.path = format!("alert \"{name}\"");
        }
        let (section, before) = (&section, section.context().problems());
        let kind = section.parsed("kind", "\"alertmanager\"", parse_kind).map(|kind| kind.value);
        keys::vet_alert(section, kind);
        section.require("kind", &format!("write one of {}", listed(SinkKind::ALL.iter().map(|kind| kind.token()))));
        let parse_url = |text: &str| if kind == Some(SinkKind::Alertmanager) { parse_alertmanager(text) } else { parse_sink(text) };
        let mut alert = Alert {
            place: section.place.clone(),
            name: section.public_string_of("name", "\"pager\"", |text| parse_name(text, "-_")),
            kind,
            min_severity: section.parsed("min_severity", "\"critical\"", parse_severity),
            only: section.one_or_list("only", "\"admin-closed\"", parse_only),
            unproven_for: section.duration("unproven_for", Duration::ZERO),
            stale_for: section.duration("stale_for", Duration::ZERO),
            keep_firing_for: section.duration("keep_firing_for", Duration::ZERO),
            repeat_interval: section.duration("repeat_interval", if kind == Some(SinkKind::Alertmanager) { SECOND } else { MINUTE }),
            timeout: section.duration("timeout", Duration::from_millis(1)),
            ca_file: section.parsed("ca_file", "\"ca.pem\"", filled),
            labels: section.table("labels").map_or_else(BTreeMap::new, |labels| read_labels(&labels)),
            urls: section.one_or_list("url", like_url(kind), parse_url),
            url_file: section.parsed("url_file", "\"slack.url\"", filled),
            routing_key: secret(section, "routing_key"),
            routing_key_file: section.parsed("routing_key_file", "\"pagerduty.key\"", filled),
            api_key: secret(section, "api_key"),
            api_key_file: section.parsed("api_key_file", "\"datadog.key\"", filled),
            body: section.parsed("body", "'{\"text\": {{ summary }}}'", filled),
            content_type: section.parsed("content_type", "\"application/json\"", parse_content_type),
            headers: section.table("headers").map_or(Vec::new(), |headers| read_headers(&headers)),
            user: section.parsed("user", "\"monitor\"", parse_user),
            password_file: section.parsed("password_file", "\"alerts.password\"", filled),
            bearer_token_file: section.parsed("bearer_token_file", "\"alerts.token\"", filled),
            interval: section.duration("interval", SECOND),
            sound: true,
        };
        if let Some(urls) = &alert.urls {
            if urls.value.is_empty() && !section.holds_problem_at(&urls.place) {
                section.context().wrong(&urls.place, format!("is empty; write {}", like_url(kind)));
            }
            if let (true, Some(second)) = (kind != Some(SinkKind::Alertmanager), urls.value.get(1)) {
                section
                    .context()
                    .wrong(&second.place, "is a second one; write an [[alert]] for each, so that each has its own queue and metrics");
            }
        }
        alert.only = alert.only.map(|only| unique(section, only, shown_only));
        if let Some(only) = alert.only.as_ref().filter(|only| only.value.is_empty() && !section.holds_problem_at(&only.place)) {
            section.context().wrong(&only.place, "is empty, so nothing would go there; leave it out for everything");
        }
        alert.sound = section.context().problems() == before;
        alert
    }
}

fn like_url(kind: Option<SinkKind>) -> &'static str {
    match kind {
        Some(SinkKind::Alertmanager) | None => "\"http://alertmanager.example.com:9093\"",
        Some(SinkKind::Slack) => "\"${SLACK_WEBHOOK}\"",
        Some(SinkKind::Webhook) => "\"https://hooks.example.com/mustnot\"",
        Some(SinkKind::Heartbeat) => "\"${HEARTBEAT_URL}\"",
        Some(SinkKind::PagerDuty) => "\"https://events.eu.pagerduty.com/v2/enqueue\"",
        Some(SinkKind::Datadog) => "\"https://api.datadoghq.eu/api/v1/events\"",
    }
}

fn parse_kind(text: &str) -> Result<SinkKind, String> {
    let found = SinkKind::ALL.into_iter().find(|kind| kind.token() == text);
    found.ok_or_else(|| format!("\"{text}\" is no kind of sink; {}", did_you_mean(text, SinkKind::ALL.iter().map(|kind| kind.token()))))
}

fn parse_only(text: &str) -> Result<Only, String> {
    match text.strip_prefix("tag:") {
        Some(tag) => parse_name(tag, "-_.").map(Only::Tag),
        None => parse_name(text, "-_").map(Only::Check).map_err(|why| format!("{why}; or tag:TAG for all checks with a tag")),
    }
}

fn shown_only(only: &Only) -> String {
    match only {
        Only::Check(check) => check.clone(),
        Only::Tag(tag) => format!("tag:{tag}"),
    }
}

fn parse_content_type(text: &str) -> Result<String, String> {
    let legal = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c));
    let (media, _) = text.split_once(';').unwrap_or((text, ""));
    let good = media.trim().split_once('/').is_some_and(|(kind, of)| legal(kind) && legal(of)) && !text.chars().any(char::is_control);
    if good {
        Ok(text.to_string())
    } else {
        Err(format!("\"{text}\" is no media type; write one such as \"application/json\" or \"text/plain\""))
    }
}

/// A key from the environment; one that stands in the file is there for all to read.
fn secret(section: &Section<'_, '_>, key: &str) -> Option<At<Secret>> {
    let from_file = section.raw(key).is_some_and(|text| !text.contains("${"));
    section.parsed(key, "\"${NAME}\"", |text| {
        if from_file {
            Err(format!("stands in the file for all to read; write {key}_file, or {key} = \"${{NAME}}\" to take it from the environment"))
        } else if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
            Err("from the environment is empty, or holds a space or a control character; see what the variable holds".to_string())
        } else {
            Ok(Secret::new(text))
        }
    })
}

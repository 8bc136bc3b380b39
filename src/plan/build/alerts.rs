//! From `[[alert]]` as written to sinks that can be told: their secrets read, their templates tried, and what is worth a word.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::value_or;
use crate::alert::Name;
use crate::alert::sink::{Address, Only, Rules, Sink, SinkKind, To};
use crate::alert::template::Template;
use crate::config::{Alert, At, Check, Context, File, Place, parse_sink};
use crate::net::tls;
use crate::secret::Secret;
use crate::severity::Severity;

const TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_FIRING_FOR: Duration = Duration::from_secs(300);
/// As often as Prometheus tells an Alertmanager, which repeats by its own rules.
const RESEND: Duration = Duration::from_secs(60);
const REPEAT: Duration = Duration::from_secs(4 * 3600);
const BEAT: Duration = Duration::from_secs(60);
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";
const DATADOG: &str = "https://api.datadoghq.com/api/v1/events";
const JSON: &str = "application/json";

/// Every sink; what is wrong with one is noted.
pub(super) fn sinks(file: &File, context: &Context<'_>) -> Vec<Sink> {
    let built: Vec<(&Alert, Sink)> = file.alerts.iter().filter_map(|alert| Some((alert, sink(alert, context)?))).collect();
    for (at, (alert, sink)) in built.iter().enumerate() {
        if built.iter().take(at).any(|(_, other)| other.name == sink.name) {
            let place = alert.name.as_ref().map_or(&alert.place, |name| &name.place);
            context.wrong(
                place,
                format!("a sink before has the name \"{}\", which is also its kind where none is written; write another name", sink.name),
            );
        }
        for only in alert.only.iter().flat_map(|only| &only.value) {
            vet_only(only, file, context);
        }
    }
    hint(&built, file, context);
    built.into_iter().map(|(_, sink)| sink).collect()
}

fn vet_only(only: &At<Only>, file: &File, context: &Context<'_>) {
    let meant = |check: &&Check| match &only.value {
        Only::Check(name) => check.name.as_ref().is_some_and(|known| known.value == *name),
        Only::Tag(tag) => check.common.tags.as_ref().or(file.defaults.tags.as_ref()).is_some_and(|tags| tags.contains(tag)),
    };
    let known: Vec<&Check> = file.checks.iter().filter(meant).collect();
    let what = match &only.value {
        _ if known.iter().any(|check| !check.placeholder) => return,
        Only::Check(name) if known.is_empty() => format!("there is no check \"{name}\""),
        Only::Tag(tag) if known.is_empty() => format!("no check has the tag \"{tag}\""),
        _ => "is a template alone: what /probe finds is told to who asks, and to nobody else".to_string(),
    };
    context.wrong(&only.place, format!("{what}; write the name of one that runs by itself, or tag:TAG"));
}

/// What is legal and still would be missed at night.
fn hint(built: &[(&Alert, Sink)], file: &File, context: &Context<'_>) {
    for (alert, sink) in built {
        for url in alert.urls.iter().flat_map(|urls| &urls.value) {
            let shown = url.value.to_string();
            if shown.starts_with("http://") && !is_near(&shown) {
                context.hint(&url.place, format!("{shown} is told over plain HTTP: whoever is between reads what is open, and can say that nothing is; write https:// where it speaks TLS"));
            }
        }
        let url = alert.urls.as_ref().and_then(|urls| urls.value.first()).filter(|_| sink.to.kind() == SinkKind::Slack);
        if let Some(url) = url.filter(|url| context.from_environment(url.value.expose()).is_empty() && !is_near(&url.value.to_string())) {
            let message =
                "who knows this URL can write there, and here it stands for all to read; write url_file, or url = \"${SLACK_WEBHOOK}\"";
            context.hint(&url.place, message);
        }
    }
    let told: Vec<&(&Alert, Sink)> = built.iter().filter(|(_, sink)| sink.to.kind() != SinkKind::Heartbeat).collect();
    let Some((first, _)) = told.first() else { return };
    if !told.iter().any(|(_, sink)| sink.rules.only.is_empty()) {
        let message =
            "every sink has only, so that nobody is told when a drill fails, a reload fails or descriptors run out; leave only out of one";
        context.hint(&first.place, message);
    }
    let untold = file.checks.iter().filter(|check| !check.placeholder).find(|check| {
        let severity =
            check.common.severity.as_ref().or(file.defaults.severity.as_ref()).map_or(Severity::Warning, |severity| severity.value);
        let name = check.name.as_ref().map_or("", |name| name.value.as_str());
        let tags = check.common.tags.as_ref().or(file.defaults.tags.as_ref()).map_or(&[][..], Vec::as_slice);
        severity == Severity::Critical && !told.iter().any(|(_, sink)| sink.rules.want(severity, Some((name, tags))))
    });
    if let Some(check) = untold {
        context.hint(&check.place, "is critical, and no [[alert]] takes its alerts: see only and min_severity there");
    }
    if file.state_dir.is_none() {
        let message = "without state_dir a restart forgets what was told: what was open is never resolved there, and what was not taken yet is lost; write state_dir = \"/var/lib/mustnot\" at the top";
        context.hint(&first.place, message);
    }
}

/// On this very host.
fn is_near(shown: &str) -> bool {
    let authority = shown.split_once("://").map_or(shown, |(_, authority)| authority);
    ["127.", "localhost:", "[::1]:"].iter().any(|near| authority.starts_with(near))
}

fn sink(alert: &Alert, context: &Context<'_>) -> Option<Sink> {
    let before = context.problems();
    let kind = alert.kind?;
    let (to, headers) = (to(alert, kind, context), headers(alert, context));
    let ca_file = alert.ca_file.as_ref().map(|file| context.base_dir.join(&file.value));
    if let (Some(written), Err(why)) = (&alert.ca_file, tls::trusting(ca_file.as_deref())) {
        context.wrong(&written.place, why);
    }
    let repeat = if kind == SinkKind::Alertmanager { RESEND } else { REPEAT };
    let rules = Rules {
        min_severity: alert.min_severity.as_ref().map_or(Severity::Info, |severity| severity.value),
        only: alert.only.iter().flat_map(|only| &only.value).map(|only| only.value.clone()).collect(),
        unproven_for: value_or(alert.unproven_for.clone(), Name::Unproven.lasts()),
        stale_for: value_or(alert.stale_for.clone(), Name::Stale.lasts()),
        keep_firing_for: value_or(alert.keep_firing_for.clone(), KEEP_FIRING_FOR),
        repeat_interval: value_or(alert.repeat_interval.clone(), repeat),
    };
    let name = alert.name.as_ref().map_or_else(|| kind.token().to_string(), |name| name.value.clone());
    let timeout = value_or(alert.timeout.clone(), TIMEOUT);
    let sink = Sink { name, to: to?, rules, headers: headers?, ca_file, timeout, labels: alert.labels.clone() };
    (alert.sound && context.problems() == before).then_some(sink)
}

fn to(alert: &Alert, kind: SinkKind, context: &Context<'_>) -> Option<To> {
    let usual = |url: &str| Some(Address::new(Secret::new(url), url.split('/').take(3).collect::<Vec<_>>().join("/")));
    let missing = |key: &str, remedy: &str| {
        if alert.sound && !context.broken {
            context.wrong(&place_of(alert, key), format!("is missing; {remedy}"));
        }
    };
    match kind {
        SinkKind::Alertmanager => {
            let Some(urls) = &alert.urls else {
                missing("url", "write url = \"http://alertmanager.example.com:9093\", or a list of them");
                return None;
            };
            Some(To::Alertmanager { urls: urls.value.iter().map(|url| url.value.clone()).collect() })
        }
        SinkKind::PagerDuty => {
            let key = key_of(alert, context, "routing_key", (&alert.routing_key, &alert.routing_key_file))?;
            Some(To::PagerDuty { url: first(alert).or_else(|| usual(PAGERDUTY))?, routing_key: key })
        }
        SinkKind::Datadog => {
            let key = key_of(alert, context, "api_key", (&alert.api_key, &alert.api_key_file))?;
            Some(To::Datadog { url: first(alert).or_else(|| usual(DATADOG))?, api_key: key })
        }
        SinkKind::Slack => Some(To::Slack { url: url(alert, context, "url_file = \"slack.url\", or url = \"${SLACK_WEBHOOK}\"")? }),
        SinkKind::Heartbeat => {
            let url = url(alert, context, "url = \"${HEARTBEAT_URL}\", or url_file")?;
            Some(To::Heartbeat { url, interval: value_or(alert.interval.clone(), BEAT) })
        }
        SinkKind::Webhook => {
            let content_type = value_or(alert.content_type.clone(), JSON.to_string());
            let body =
                alert.body.as_ref().map(|body| (body, Template::new(&body.value, &content_type, context.from_environment(&body.value))));
            let body = match body {
                None => None,
                Some((_, Ok(template))) => Some(template),
                Some((body, Err(why))) => {
                    context.wrong(&body.place, why);
                    return None;
                }
            };
            let url = url(alert, context, "url = \"https://hooks.example.com/mustnot\", or url_file")?;
            Some(To::Webhook { url, body, content_type })
        }
    }
}

fn first(alert: &Alert) -> Option<Address> {
    alert.urls.as_ref()?.value.first().map(|url| url.value.clone())
}

/// The URL, from the file or from a file of its own.
fn url(alert: &Alert, context: &Context<'_>, remedy: &str) -> Option<Address> {
    match (&alert.urls, &alert.url_file) {
        (Some(_), Some(file)) => {
            context.wrong(&file.place, "stands beside url; write one of them");
            None
        }
        (Some(_), None) => first(alert),
        (None, Some(file)) => {
            let text = line(file, "the URL", context)?;
            // What is wrong with it is said without it: it is a secret.
            let parsed = parse_sink(text.expose())
                .map_err(|_| "must hold a URL, such as https://hooks.example.com/mustnot, without user and password");
            parsed.map_err(|why| context.wrong(&file.place, format!("{} {why}", file.value))).ok()
        }
        (None, None) => {
            if alert.sound && !context.broken {
                context.wrong(&place_of(alert, "url"), format!("is missing; write {remedy}"));
            }
            None
        }
    }
}

fn key_of(alert: &Alert, context: &Context<'_>, key: &str, written: (&Option<At<Secret>>, &Option<At<String>>)) -> Option<Secret> {
    match written {
        (Some(_), Some(file)) => {
            context.wrong(&file.place, format!("stands beside {key}; write one of them"));
            None
        }
        (Some(secret), None) => Some(secret.value.clone()),
        (None, Some(file)) => line(file, "the key", context),
        (None, None) => {
            if alert.sound && !context.broken {
                context.wrong(
                    &place_of(alert, key),
                    format!("is missing; write {key}_file, or {key} = \"${{NAME}}\" to take it from the environment"),
                );
            }
            None
        }
    }
}

fn headers(alert: &Alert, context: &Context<'_>) -> Option<Vec<(String, Secret)>> {
    let mut headers = alert.headers.clone();
    let ways = [alert.user.as_ref().map(|k| &k.place), alert.bearer_token_file.as_ref().map(|k| &k.place)];
    let written = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    if let Some(place) = ways.iter().flatten().nth(usize::from(!written)) {
        context.wrong(place, "is a second way to say who we are; write one of user, bearer_token_file and the header Authorization");
        return None;
    }
    let authorization = match (&alert.user, &alert.password_file, &alert.bearer_token_file) {
        (Some(user), Some(file), _) => {
            let password = line(file, "the password", context)?;
            Some(format!("Basic {}", BASE64.encode(format!("{}:{}", user.value, password.expose()))))
        }
        (Some(alone), None, _) => {
            context.wrong(&alone.place, "stands alone; write password_file too");
            return None;
        }
        (None, Some(alone), _) => {
            context.wrong(&alone.place, "stands alone; write user too");
            return None;
        }
        (None, None, Some(file)) => Some(format!("Bearer {}", line(file, "the token", context)?.expose())),
        (None, None, None) => None,
    };
    headers.extend(authorization.map(|value| ("Authorization".to_string(), Secret::new(value))));
    Some(headers)
}

/// The one line of a file that keeps a secret.
fn line(file: &At<String>, what: &str, context: &Context<'_>) -> Option<Secret> {
    let path: PathBuf = context.base_dir.join(&file.value);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let text = text.trim_end_matches(['\r', '\n']);
            if text.is_empty() || text.chars().any(char::is_control) {
                context.wrong(&file.place, format!("{} must hold one line, {what}; write it there", path.display()));
                return None;
            }
            Some(Secret::new(text))
        }
        Err(e) => {
            context.wrong(&file.place, format!("{} cannot be read ({e}); make it a text file that this user may read", path.display()));
            None
        }
    }
}

fn place_of(alert: &Alert, key: &str) -> Place {
    Place { offset: alert.place.offset, path: format!("{}.{key}", alert.place.path) }
}

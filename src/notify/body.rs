//! Bodies: one alert in the words of each kind of sink. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use crate::alert::Alert;
use crate::alert::sink::{Sink, To};
use crate::alert::template::fields;
use crate::clock::Wall;
use crate::severity::Severity;

/// What an Alertmanager keeps of an alert that is not told again: a restart, or an outage as long, must not look like a door that was closed.
const LEAST_VALID: Duration = Duration::from_secs(900);
/// PagerDuty: characters of `payload.summary` (Events API v2).
const PAGERDUTY_SUMMARY: usize = 1024;
/// Datadog: characters of `text` (Events API v1), and of `aggregation_key`.
const DATADOG_TEXT: usize = 4000;
const DATADOG_KEY: usize = 100;
/// Slack: characters of `text` after which it is cut there.
const SLACK_TEXT: usize = 3500;

/// The bodies that tell these alerts: one for all of them for an Alertmanager, else one each.
pub fn body(sink: &Sink, alert: &Alert, now: Wall) -> String {
    let alert = alert.clone().labelled(&sink.labels);
    match &sink.to {
        To::Alertmanager { .. } => batch(sink, &[&alert], now),
        To::PagerDuty { routing_key, .. } => pagerduty(&alert, routing_key.expose()).to_string(),
        To::Slack { .. } => slack(&alert).to_string(),
        To::Datadog { .. } => datadog(&alert, now).to_string(),
        To::Webhook { body, .. } => match body.as_ref().map(|template| template.render(&alert)) {
            Some(Ok(body)) => body,
            // It was tried at the start; better another form than silence.
            Some(Err(why)) => {
                tracing::error!("alerts to {}: the template of body failed, so all of the alert is sent: {why}", sink.name);
                fields(&alert).to_string()
            }
            None => fields(&alert).to_string(),
        },
        To::Heartbeat { .. } => String::new(),
    }
}

/// What an Alertmanager takes at once (API v2, `postableAlerts`).
pub fn batch(sink: &Sink, alerts: &[&Alert], now: Wall) -> String {
    let valid = LEAST_VALID.max(sink.rules.repeat_interval * 4);
    let one = |alert: &&Alert| {
        let alert = (*alert).clone().labelled(&sink.labels);
        // A clock that was set back: it takes none that begins after it ends, and holds what ends in times to come for open until then.
        let ends_at = alert.ends_at.map_or_else(|| now.after(valid), |over| over.min(now));
        json!({
            "labels": alert.key.labels(),
            "annotations": alert.annotations,
            "startsAt": alert.starts_at.min(now),
            "endsAt": ends_at,
        })
    };
    Value::from_iter(alerts.iter().map(one)).to_string()
}

/// An event of PagerDuty (Events API v2): the same `dedup_key` for all that is said of one alert.
fn pagerduty(alert: &Alert, routing_key: &str) -> Value {
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": if alert.ends_at.is_some() { "resolve" } else { "trigger" },
        "dedup_key": alert.key.fingerprint(),
    });
    if alert.ends_at.is_some() {
        return event;
    }
    let severity = match alert.key.severity() {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let target = alert.key.label("target");
    let payload = json!({
        "summary": cut(alert.said("summary"), PAGERDUTY_SUMMARY),
        "source": if target.is_empty() { alert.key.label("vantage") } else { target },
        "severity": severity,
        "timestamp": alert.starts_at,
        "component": alert.key.label("check"),
        "group": alert.key.label("vantage"),
        "class": alert.key.label("alertname"),
        "custom_details": { "labels": alert.key.labels(), "annotations": alert.annotations },
    });
    let links: Vec<Value> = [("check_runbook", "runbook of the check"), ("runbook_url", "runbook of the alert")]
        .into_iter()
        .filter(|(name, _)| alert.said(name).starts_with("http"))
        .map(|(name, text)| json!({ "href": alert.said(name), "text": text }))
        .collect();
    if let Some(event) = event.as_object_mut() {
        event.extend([("payload".into(), payload), ("client".into(), json!("mustnot")), ("links".into(), json!(links))]);
    }
    event
}

/// A message of Slack (incoming webhooks), which reads `&`, `<` and `>` as its own.
fn slack(alert: &Alert) -> Value {
    let safe = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let (mark, colour) = match (alert.ends_at.is_some(), alert.key.severity()) {
        (true, _) => ("RESOLVED", "#2eb886"),
        (false, Severity::Critical) => ("CRITICAL", "#a30200"),
        (false, Severity::Warning) => ("WARNING", "#daa038"),
        (false, Severity::Info) => ("INFO", "#439fe0"),
    };
    let what = if alert.ends_at.is_some() { alert.said("resolved") } else { alert.said("description") };
    let mut text = safe(cut(what, SLACK_TEXT));
    for (title, name) in [("by hand", "reproduce"), ("runbook", "check_runbook"), ("runbook", "runbook_url")] {
        let said = alert.said(name);
        if alert.ends_at.is_none() && !said.is_empty() {
            let said = safe(cut(said, SLACK_TEXT)).replace('`', "'");
            text += &if name == "reproduce" { format!("\n{title}: `{said}`") } else { format!("\n{title}: {said}") };
        }
    }
    let head = format!("[{mark}] {}", safe(cut(alert.said("summary"), SLACK_TEXT)));
    let since = alert.starts_at.unix_millis() / 1000;
    let footer = safe(&format!("{} at {}", alert.key.label("alertname"), alert.key.label("vantage")));
    json!({ "text": head, "attachments": [{ "color": colour, "fallback": head, "text": text, "footer": footer, "ts": since }] })
}

/// An event of Datadog (Events API v1), which takes none that is older than 18 hours: so it is of now, and its text says since when.
fn datadog(alert: &Alert, now: Wall) -> Value {
    let over = alert.ends_at.is_some();
    let kind = match (over, alert.key.severity()) {
        (true, _) => "success",
        (false, Severity::Critical) => "error",
        (false, Severity::Warning) => "warning",
        (false, Severity::Info) => "info",
    };
    let tags: Vec<String> = alert.key.labels().iter().map(|(name, value)| format!("{name}:{value}")).collect();
    let mut text = if over { alert.said("resolved").to_string() } else { alert.said("description").to_string() };
    for name in ["reproduce", "check_runbook", "runbook_url"] {
        if !alert.said(name).is_empty() {
            text += &format!("\n{name}: {}", alert.said(name));
        }
    }
    text += &format!("\nsince: {}", alert.starts_at);
    let title = if over { format!("Resolved: {}", alert.said("summary")) } else { alert.said("summary").to_string() };
    // The end of the fingerprint is what tells it from others.
    let fingerprint = alert.key.fingerprint();
    let key =
        fingerprint.char_indices().rev().nth(DATADOG_KEY - 1).map_or(fingerprint.as_str(), |(at, _)| fingerprint.get(at..).unwrap_or(""));
    let (title, text) = (nobody_called(&title), nobody_called(&text));
    json!({
        "title": cut(&title, DATADOG_KEY * 5),
        "text": cut(&text, DATADOG_TEXT),
        "alert_type": kind,
        "priority": if alert.key.severity() == Severity::Info { "low" } else { "normal" },
        "aggregation_key": key,
        "date_happened": now.unix_millis() / 1000,
        "tags": tags,
    })
}

/// The text in which no word begins with `@`, by which Datadog calls somebody: a target may say `@all`. An address of mail stays one.
fn nobody_called(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '@' && !out.ends_with(char::is_alphanumeric) {
            out.push_str("(at)");
        } else {
            out.push(c);
        }
    }
    out
}

/// The text, cut where it is longer than so many characters.
fn cut(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(at, _)| text.get(..at).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sink::{Address, Rules};
    use crate::alert::test_alert;
    use crate::secret::Secret;

    fn at(text: &str) -> Wall {
        Wall::parse(text).unwrap()
    }

    fn sink(to: To) -> Sink {
        let rules = Rules {
            min_severity: Severity::Info,
            only: Vec::new(),
            unproven_for: Duration::ZERO,
            stale_for: Duration::ZERO,
            keep_firing_for: Duration::ZERO,
            repeat_interval: Duration::from_secs(60),
        };
        Sink {
            name: "a".into(),
            to,
            rules,
            headers: Vec::new(),
            ca_file: None,
            timeout: Duration::ZERO,
            labels: crate::alert::Labels::new(),
        }
    }

    fn address() -> Address {
        Address::new(Secret::new("https://example.com/x"), "https://example.com".into())
    }

    /// Alertmanager refuses what begins after it ends ("start time must be before end time"): a violation would wait for the clock.
    #[test]
    fn a_clock_that_was_set_back_makes_no_alert_that_an_alertmanager_refuses() {
        let sink = sink(To::Alertmanager { urls: vec![address()] });
        let firing = test_alert("office", at("2026-01-02T03:04:05Z"));
        let over = Alert { ends_at: Some(at("2026-01-02T03:05:05Z")), ..firing.clone() };
        for (alert, now, starts, ends) in [
            (&firing, "2026-01-02T03:04:06Z", "2026-01-02T03:04:05.000Z", "2026-01-02T03:19:06.000Z"),
            (&firing, "2026-01-02T01:04:06Z", "2026-01-02T01:04:06.000Z", "2026-01-02T01:19:06.000Z"),
            (&over, "2026-01-02T03:05:06Z", "2026-01-02T03:04:05.000Z", "2026-01-02T03:05:05.000Z"),
            (&over, "2026-01-02T01:04:06Z", "2026-01-02T01:04:06.000Z", "2026-01-02T01:04:06.000Z"),
        ] {
            let told: Value = serde_json::from_str(&body(&sink, alert, at(now))).unwrap();
            assert_eq!((told[0]["startsAt"].as_str(), told[0]["endsAt"].as_str()), (Some(starts), Some(ends)), "{now}");
        }
    }

    #[test]
    fn no_target_calls_anybody_in_datadog() {
        let sink = sink(To::Datadog { url: address(), api_key: Secret::new("k") });
        let mut alert = test_alert("office", at("2026-01-02T03:04:05Z"));
        alert.annotations.insert("summary".into(), "@all a".into());
        alert.annotations.insert("description".into(), "it says \"@pagerduty-x\" and (@all), ask ann@example.com".into());
        let told: Value = serde_json::from_str(&body(&sink, &alert, at("2026-01-02T03:04:05Z"))).unwrap();
        assert_eq!(told["title"], "(at)all a");
        let text = told["text"].as_str().unwrap();
        assert!(text.starts_with("it says \"(at)pagerduty-x\" and ((at)all), ask ann@example.com\n"), "{text}");
    }
}

//! Templates: what a webhook is told, in its own form. Every value is written as JSON where the body is JSON, so that no reason of
//! a check can break out of its string.

use std::fmt;
use std::sync::Arc;

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Value, json};

use super::Alert;
use crate::clock::Wall;
use crate::secret::Secret;
use crate::severity::Severity;

/// Instructions that one message may take; a loop over all labels takes some hundred.
const FUEL: u64 = 100_000;

/// A template (Jinja) that was tried.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    text: Arc<str>,
    json: bool,
    secrets: Vec<Secret>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("json", &self.json).finish_non_exhaustive()
    }
}

impl Template {
    /// The template, tried on alerts of every form; `secrets` stand in it.
    ///
    /// # Errors
    /// What is wrong with it, in which of its lines, and what to write.
    pub fn new(text: &str, content_type: &str, secrets: Vec<Secret>) -> Result<Template, String> {
        let template = Template { text: text.into(), json: content_type.contains("json"), secrets };
        for sample in samples() {
            template.render(&sample)?;
        }
        Ok(template)
    }

    /// The secrets that every body has.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// The body that tells this alert.
    ///
    /// # Errors
    /// What the template cannot do with it.
    pub fn render(&self, alert: &Alert) -> Result<String, String> {
        let mut environment = Environment::new();
        let json = self.json;
        environment.set_auto_escape_callback(move |_| if json { AutoEscape::Json } else { AutoEscape::None });
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        let explain = |error: minijinja::Error| {
            let line = error.line().map_or(String::new(), |line| format!("line {line} of the template: "));
            let remedy = match error.kind() {
                ErrorKind::UndefinedError => format!("; known here: {}", known().join(", ")),
                _ => String::new(),
            };
            let what = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
            format!("{line}{what}{remedy}")
        };
        let template = environment.template_from_str(&self.text).map_err(explain)?;
        let body = template.render(minijinja::value::Serde(fields(alert))).map_err(explain)?;
        if self.json
            && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&body)
        {
            return Err(format!(
                "what it gives is not JSON ({error}); write {{{{ summary }}}} without quotes, it brings its own, and {{{{ \"text \" ~ summary }}}} \
                 to put text before it"
            ));
        }
        Ok(body)
    }
}

/// What a template may name, and what is sent where there is none.
pub fn fields(alert: &Alert) -> Value {
    let text = |at: Option<Wall>| at.map_or(String::new(), |at| at.to_string());
    let mut fields = json!({
        "status": alert.status(),
        "fingerprint": alert.key.fingerprint(),
        "starts_at": alert.starts_at,
        "ends_at": text(alert.ends_at),
        "labels": alert.key.labels(),
        "annotations": alert.annotations,
    });
    let own = ["alertname", "severity", "vantage", "check", "kind", "target"].map(|name| (name, alert.key.label(name)));
    let said = ["summary", "description", "runbook_url", "reason", "cause", "reproduce", "resolved"].map(|name| (name, alert.said(name)));
    if let Some(fields) = fields.as_object_mut() {
        fields.extend(own.into_iter().chain(said).map(|(name, value)| (name.to_string(), json!(value))));
    }
    fields
}

fn known() -> Vec<String> {
    let sample = samples().into_iter().next().map(|sample| fields(&sample));
    sample.iter().filter_map(Value::as_object).flat_map(|fields| fields.keys().cloned()).collect()
}

/// An alert of a check, one of the monitor itself, and one that is over, with what breaks a body that was put together by hand.
fn samples() -> Vec<Alert> {
    let at = Wall::from_unix_millis(0);
    let Some(at) = at else { return Vec::new() };
    let hostile = "\"quotes\", a \\ and a\nnew line: {{ x }}";
    let firing = super::words::sample(Severity::Critical, at, hostile);
    let resolved = Alert { ends_at: Some(at), ..firing.clone() };
    vec![firing, resolved, super::words::test_alert("vantage", at)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "application/json";

    #[test]
    fn values_bring_their_own_quotes() {
        let template =
            Template::new("{\"text\": {{ status ~ \": \" ~ summary }}, \"all\": {{ labels }}, \"why\": {{ reason }}}", JSON, Vec::new())
                .unwrap();
        for sample in samples() {
            let body: Value = serde_json::from_str(&template.render(&sample).unwrap()).unwrap();
            assert_eq!(body["why"], sample.said("reason"));
            assert_eq!(body["text"], format!("{}: {}", sample.status(), sample.said("summary")));
            assert_eq!(body["all"]["alertname"], sample.key.label("alertname"));
        }
    }

    #[test]
    fn what_is_wrong_is_found_before_anything_burns() {
        for (text, word) in [
            ("{\"text\": \"{{ summary }}\"}", "is not JSON"),
            ("{\n\"text\": {{ sumary }}}", "line 2 of the template: undefined value"),
            ("{\"text\": {{ sumary }}}", "known here: alertname, annotations, "),
            ("{\"text\": {{ summary }", "line 1 of the template: syntax error"),
            ("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "fuel"),
            ("{{ labels.nobody }}", "undefined value"),
            ("{\"a\": {{ reason }},}", "is not JSON"),
            ("", "is not JSON"),
        ] {
            let why = Template::new(text, JSON, Vec::new()).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
        assert!(Template::new("{{ labels.nobody | default(\"\") }}", JSON, Vec::new()).is_ok());
        assert!(Template::new("{{ status }}: {{ summary }}", "text/plain", Vec::new()).is_ok(), "plain text is no JSON, and need not be");
    }
}

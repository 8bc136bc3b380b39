//! Sinks: where alerts go, which of them, and when.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ring::digest;

use super::Labels;
use super::template::Template;
use crate::secret::Secret;
use crate::severity::Severity;
use crate::token::hex;

/// One `[[alert]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// The label `sink` of its metrics.
    pub name: String,
    /// What it is, and where.
    pub to: To,
    /// What goes there, and when.
    pub rules: Rules,
    /// Headers of every request, with what lets us in.
    pub headers: Vec<(String, Secret)>,
    /// PEM file of the certificate authorities to trust instead of Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// One request, from the first packet to the last byte of its answer.
    pub timeout: Duration,
    /// Labels of every alert that goes there.
    pub labels: Labels,
}

/// A kind of sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Alertmanagers, by their API v2; each is told all.
    Alertmanager {
        /// Their base URLs.
        urls: Vec<Address>,
    },
    /// PagerDuty, by its Events API v2.
    PagerDuty {
        /// Where its events go.
        url: Address,
        /// The integration's key.
        routing_key: Secret,
    },
    /// An incoming webhook of Slack, or of what understands the same.
    Slack {
        /// The webhook; who knows it can write there.
        url: Address,
    },
    /// Whatever takes a POST.
    Webhook {
        /// Where to.
        url: Address,
        /// What is sent; none: all of the alert as JSON.
        body: Option<Template>,
        /// What that is.
        content_type: String,
    },
    /// Datadog's events.
    Datadog {
        /// Where its events go.
        url: Address,
        /// Its key.
        api_key: Secret,
    },
    /// A dead man's switch, which calls when it is no longer told.
    Heartbeat {
        /// What is asked for.
        url: Address,
        /// How often.
        interval: Duration,
    },
}

/// A kind of sink, by its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkKind {
    /// [`To::Alertmanager`]
    Alertmanager,
    /// [`To::PagerDuty`]
    PagerDuty,
    /// [`To::Slack`]
    Slack,
    /// [`To::Webhook`]
    Webhook,
    /// [`To::Datadog`]
    Datadog,
    /// [`To::Heartbeat`]
    Heartbeat,
}

impl SinkKind {
    /// Every kind.
    pub const ALL: [SinkKind; 6] =
        [SinkKind::Alertmanager, SinkKind::PagerDuty, SinkKind::Slack, SinkKind::Webhook, SinkKind::Datadog, SinkKind::Heartbeat];

    /// As written in `kind`.
    pub fn token(self) -> &'static str {
        match self {
            SinkKind::Alertmanager => "alertmanager",
            SinkKind::PagerDuty => "pagerduty",
            SinkKind::Slack => "slack",
            SinkKind::Webhook => "webhook",
            SinkKind::Datadog => "datadog",
            SinkKind::Heartbeat => "heartbeat",
        }
    }
}

impl To {
    /// Which kind it is.
    pub fn kind(&self) -> SinkKind {
        match self {
            To::Alertmanager { .. } => SinkKind::Alertmanager,
            To::PagerDuty { .. } => SinkKind::PagerDuty,
            To::Slack { .. } => SinkKind::Slack,
            To::Webhook { .. } => SinkKind::Webhook,
            To::Datadog { .. } => SinkKind::Datadog,
            To::Heartbeat { .. } => SinkKind::Heartbeat,
        }
    }

    /// Every place that is told.
    pub fn addresses(&self) -> Vec<&Address> {
        match self {
            To::Alertmanager { urls } => urls.iter().collect(),
            To::PagerDuty { url, .. }
            | To::Slack { url }
            | To::Webhook { url, .. }
            | To::Datadog { url, .. }
            | To::Heartbeat { url, .. } => vec![url],
        }
    }
}

impl Sink {
    /// Whether who is told by the other is told by this one: then what is open there, and what waits for it, is the same.
    pub fn tells_the_same(&self, other: &Sink) -> bool {
        (&self.name, &self.to, &self.labels) == (&other.name, &other.to, &other.labels)
    }

    /// Whether it is told in the stead of the other, which is no more: what waits there must be heard here.
    pub fn stands_in_for(&self, new: &Sink) -> bool {
        (&self.name, self.to.kind()) == (&new.name, new.to.kind()) || self.to == new.to
    }

    /// The place as it is kept in a file: with a digest of what is secret of it, since another key or path leads to somebody else.
    pub fn mark(&self) -> String {
        let key = match &self.to {
            To::PagerDuty { routing_key: key, .. } | To::Datadog { api_key: key, .. } => key.expose(),
            To::Alertmanager { .. } | To::Slack { .. } | To::Webhook { .. } | To::Heartbeat { .. } => "",
        };
        let mut all = digest::Context::new(&digest::SHA256);
        for text in self.to.addresses().into_iter().map(Address::expose).chain([key]) {
            // With its length, so that no text runs into the next.
            all.update(&(text.len() as u64).to_be_bytes());
            all.update(text.as_bytes());
        }
        let hash = hex(all.finish().as_ref());
        format!("{} #{}", self.place(), hash.get(..16).unwrap_or(&hash))
    }

    /// Where it is, in words that may be shown: no secret, and no path that may be one.
    pub fn place(&self) -> String {
        let hosts: Vec<String> = self.to.addresses().into_iter().map(Address::to_string).collect();
        let labels: Vec<String> = self.labels.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        format!("{} {}{}", self.to.kind().token(), hosts.join(" "), labels.concat())
    }
}

/// A URL whose path may be a secret: it is shown without one.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    url: Secret,
    shown: String,
}

impl Address {
    /// The URL, and how it may be shown.
    pub fn new(url: Secret, shown: String) -> Address {
        Address { url, shown }
    }

    /// The URL itself, for the one place that goes there.
    pub fn expose(&self) -> &str {
        self.url.expose()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// What goes to a sink, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The least bad that goes there.
    pub min_severity: Severity,
    /// The checks whose alerts go there, and then no alert of the monitor itself; none: everything.
    pub only: Vec<Only>,
    /// How long nobody must have known.
    pub unproven_for: Duration,
    /// How long nobody must have looked.
    pub stale_for: Duration,
    /// How long it must be over before that is told: what comes and goes is told once.
    pub keep_firing_for: Duration,
    /// How often what goes on is told again.
    pub repeat_interval: Duration,
}

/// Which checks are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Only {
    /// The one of this name.
    Check(String),
    /// All with this tag.
    Tag(String),
}

impl Rules {
    /// Whether alerts of this severity, about this check (none: about the monitor itself), go there.
    pub fn want(&self, severity: Severity, check: Option<(&str, &[String])>) -> bool {
        let meant = |(name, tags): (&str, &[String])| {
            self.only.iter().any(|only| match only {
                Only::Check(check) => check == name,
                Only::Tag(tag) => tags.contains(tag),
            })
        };
        severity <= self.min_severity && (self.only.is_empty() || check.is_some_and(meant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(min_severity: Severity, only: Vec<Only>) -> Rules {
        let none = Duration::ZERO;
        Rules { min_severity, only, unproven_for: none, stale_for: none, keep_firing_for: none, repeat_interval: none }
    }

    #[test]
    fn what_goes_where() {
        let tags = ["payments".to_string()];
        let all = rules(Severity::Info, Vec::new());
        let some = rules(Severity::Warning, vec![Only::Check("a".into()), Only::Tag("payments".into())]);
        for (severity, check, to_all, to_some) in [
            (Severity::Info, Some(("a", &[][..])), true, false),
            (Severity::Warning, Some(("a", &[][..])), true, true),
            (Severity::Critical, Some(("b", &[][..])), true, false),
            (Severity::Critical, Some(("b", &tags[..])), true, true),
            (Severity::Critical, None, true, false),
        ] {
            assert_eq!((all.want(severity, check), some.want(severity, check)), (to_all, to_some), "{severity} {check:?}");
        }
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_a_secret() {
        let address = Address::new(Secret::new("https://hooks.example.com/services/T0/B0/hunter2"), "https://hooks.example.com".into());
        assert_eq!(format!("{address} {address:?}"), "https://hooks.example.com https://hooks.example.com");
    }
}

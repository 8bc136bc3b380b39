//! Alerts: from what the board and the metrics say to what is opened, repeated and resolved. Pure: knows neither tokio nor the clock.
//!
//! The names, labels and first words are those of `dashboards/prometheus/alerts.yaml`, so that an alert looks alike whether this
//! monitor sends it or Prometheus does. `crate::notify` brings them to their sinks.

use std::collections::BTreeMap;
use std::time::Duration;

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::clock::Wall;
use crate::severity::Severity;
use crate::token::hex;

pub mod heart;
pub mod ledger;
pub mod outbox;
pub mod scene;
pub mod sink;
pub mod template;
mod words;

pub use words::test_alert;

/// Names and values.
pub type Labels = BTreeMap<String, String>;

/// What an alert says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// A check is violated.
    Violated,
    /// Nobody has known for long.
    Unproven,
    /// A check is no longer made.
    Stale,
    /// A check was taken out of the configuration.
    CheckGone,
    /// A target that was violated was taken out of its check.
    TargetGone,
    /// An exception is over, and still written.
    ExceptionExpired,
    /// The log of a defence says that what is judged to be blocked was let in.
    Contradicted,
    /// A witness does not get through.
    WitnessDown,
    /// A certificate that was seen ends soon.
    CertificateExpiresSoon,
    /// The last drill of a kind failed.
    DrillFailed,
    /// No drill of a kind has succeeded for long.
    DrillOverdue,
    /// The configuration that was last read is wrong.
    ReloadFailed,
    /// A sink of alerts takes none.
    AlertsFailing,
    /// File descriptors run out.
    DescriptorsLow,
    /// The proxy has sent more than its budget.
    EgressBudgetSpent,
    /// The proxy stops, and does not end.
    ProxyDraining,
    /// The proxy turns clients away.
    ProxyFull,
    /// Somebody tries whether alerts get through.
    Test,
}

impl Name {
    /// Every alert, in the order of the rules; the test is none of them.
    pub const ALL: [Name; 17] = [
        Name::Violated,
        Name::Unproven,
        Name::Stale,
        Name::CheckGone,
        Name::TargetGone,
        Name::ExceptionExpired,
        Name::Contradicted,
        Name::WitnessDown,
        Name::CertificateExpiresSoon,
        Name::DrillFailed,
        Name::DrillOverdue,
        Name::ReloadFailed,
        Name::AlertsFailing,
        Name::DescriptorsLow,
        Name::EgressBudgetSpent,
        Name::ProxyDraining,
        Name::ProxyFull,
    ];

    /// The label `alertname`.
    pub fn token(self) -> &'static str {
        match self {
            Name::Violated => "MustnotViolated",
            Name::Unproven => "MustnotUnproven",
            Name::Stale => "MustnotStale",
            Name::CheckGone => "MustnotCheckGone",
            Name::TargetGone => "MustnotTargetGone",
            Name::ExceptionExpired => "MustnotExceptionExpired",
            Name::Contradicted => "MustnotContradicted",
            Name::WitnessDown => "MustnotWitnessDown",
            Name::CertificateExpiresSoon => "MustnotCertificateExpiresSoon",
            Name::DrillFailed => "MustnotDrillFailed",
            Name::DrillOverdue => "MustnotDrillOverdue",
            Name::ReloadFailed => "MustnotReloadFailed",
            Name::AlertsFailing => "MustnotAlertsFailing",
            Name::DescriptorsLow => "MustnotDescriptorsLow",
            Name::EgressBudgetSpent => "MustnotEgressBudgetSpent",
            Name::ProxyDraining => "MustnotProxyDraining",
            Name::ProxyFull => "MustnotProxyFull",
            Name::Test => "MustnotTest",
        }
    }

    /// How long it must be so before it is told, where no sink says otherwise: the `for` of the rules. Nothing for a violation, ever.
    pub const fn lasts(self) -> Duration {
        let minutes = match self {
            Name::Violated | Name::ExceptionExpired | Name::DrillFailed | Name::EgressBudgetSpent | Name::Test => 0,
            Name::Stale | Name::ReloadFailed | Name::DescriptorsLow => 2,
            Name::CheckGone
            | Name::TargetGone
            | Name::Contradicted
            | Name::WitnessDown
            | Name::DrillOverdue
            | Name::ProxyDraining
            | Name::ProxyFull => 5,
            Name::AlertsFailing => 10,
            Name::Unproven | Name::CertificateExpiresSoon => 15,
        };
        Duration::from_secs(minutes * 60)
    }

    /// Where to read what to do.
    pub fn runbook(self) -> Option<String> {
        (self != Name::Test).then(|| format!("docs/runbook.md#{}", self.token().to_lowercase()))
    }
}

/// What tells one alert from another: all its labels, as in Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Labels);

impl Key {
    /// The alert of that name and severity with these labels besides.
    pub fn new(name: Name, severity: Severity, labels: &[(&str, &str)]) -> Key {
        let own = [("alertname", name.token()), ("severity", severity.token())];
        Key(own.iter().chain(labels).map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect())
    }

    /// All labels.
    pub fn labels(&self) -> &Labels {
        &self.0
    }

    /// The value of a label, empty where it has none.
    pub fn label(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Its severity; what cannot be read is the worst.
    pub fn severity(&self) -> Severity {
        Severity::ALL.into_iter().find(|severity| severity.token() == self.label("severity")).unwrap_or(Severity::Critical)
    }

    /// Whether it is of this name.
    pub fn is(&self, name: Name) -> bool {
        self.label("alertname") == name.token()
    }

    /// A word for those who know no labels: the same for the same alert, and for no other. At most 255 characters.
    pub fn fingerprint(&self) -> String {
        let mut all = digest::Context::new(&digest::SHA256);
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            // With its length, so that no text runs into the next.
            all.update(&(text.len() as u64).to_be_bytes());
            all.update(text.as_bytes());
        }
        let hash = hex(all.finish().as_ref());
        let readable = [self.label("vantage"), self.label("alertname"), self.label("check")].join("/");
        let readable: String = readable.chars().filter(char::is_ascii).take(150).collect();
        format!("mustnot/{}/{}", readable.trim_end_matches('/'), hash.get(..32).unwrap_or(&hash))
    }
}

/// One alert, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What it is about.
    pub key: Key,
    /// What is said of it.
    pub annotations: Labels,
    /// Since when it is so.
    pub starts_at: Wall,
    /// When it was found to be over; none while it is not.
    pub ends_at: Option<Wall>,
}

impl Alert {
    /// `firing` or `resolved`.
    pub fn status(&self) -> &'static str {
        if self.ends_at.is_some() { "resolved" } else { "firing" }
    }

    /// An annotation, empty where there is none.
    pub fn said(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }

    /// A violation that is so now: what must be told before all else, and is never given up.
    pub fn is_breach(&self) -> bool {
        self.key.is(Name::Violated) && self.ends_at.is_none()
    }

    /// The same with more labels; its own stay what they are.
    #[must_use]
    pub fn labelled(mut self, labels: &Labels) -> Alert {
        for (name, value) in labels {
            self.key.0.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_one_alert_alone() {
        let of = |check: &str, target: &str| {
            Key::new(Name::Violated, Severity::Critical, &[("check", check), ("target", target), ("vantage", "internet")]).fingerprint()
        };
        assert_eq!(of("a", "b"), of("a", "b"));
        assert_ne!(of("a", "b"), of("a", "c"));
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert!(of("a", "b").starts_with("mustnot/internet/MustnotViolated/a/"));
        assert!(of(&"ü".repeat(500), &"x".repeat(5000)).len() <= 255);
    }

    #[test]
    fn a_violation_waits_for_nothing() {
        assert_eq!(Name::Violated.lasts(), Duration::ZERO);
    }
}

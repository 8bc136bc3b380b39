//! What a drill came to: whether the detector of a kind would see a breach.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// What the drill of one kind came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drilled {
    /// The kind.
    pub kind: &'static str,
    /// What was found.
    pub finding: Finding,
    /// Which scenes went wrong and how; one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// How long after the first packet could leave the open twin was known to be open.
    #[serde(rename = "detection_seconds", serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub detection: Option<Duration>,
}

/// Whether a detector works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// It saw what there was to see.
    Saw,
    /// It could not be shown, for a reason on this host.
    NotDrilled,
    /// It judged a twin wrongly.
    Blind,
}

impl Drilled {
    /// One line for a person.
    pub fn line(&self) -> String {
        let took =
            self.detection.map_or(String::new(), |took| format!(": a twin that was open was seen after {:.1} s", took.as_secs_f64()));
        match self.finding {
            Finding::Saw => format!("saw          {}{took}", self.kind),
            Finding::NotDrilled => format!("not drilled  {}: {}", self.kind, self.why.join("; ")),
            Finding::Blind => format!("BLIND        {}: {}", self.kind, self.why.join("; ")),
        }
    }
}

fn seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_some(&duration.map(|d| d.as_secs_f64()))
}

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// It saw what there was to see.
    Saw,
    /// It could not be shown, for a reason on this host.
    NotDrilled,
    /// It judged a twin wrongly.
    Blind,
}

impl Finding {
    /// Its token in reports.
    pub const fn token(self) -> &'static str {
        match self {
            Finding::Saw => "saw",
            Finding::NotDrilled => "not-drilled",
            Finding::Blind => "blind",
        }
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.token())
    }
}

impl Drilled {
    /// What it is called beside the checks. The name of a check has no space, so none can be meant by it.
    pub fn name(&self) -> String {
        format!("drill of {}", self.kind)
    }

    /// What it came to, as a sentence.
    pub fn sentence(&self) -> String {
        let why = self.why.join("; ");
        match (self.finding, self.detection) {
            (Finding::Saw, Some(took)) => format!("a twin that was open was seen after {:.1} s", took.as_secs_f64()),
            (Finding::Saw, None) => "every twin was judged rightly".into(),
            (Finding::NotDrilled, _) => format!("it could not be shown that a breach would be seen: {why}"),
            (Finding::Blind, _) => format!("what this kind says of its targets cannot be believed: {why}"),
        }
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        let word = match self.finding {
            Finding::Saw => "saw",
            Finding::NotDrilled => "not drilled",
            Finding::Blind => "BLIND",
        };
        format!("{word:<12} {}: {}", self.kind, self.sentence())
    }
}

fn seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_some(&duration.map(|d| d.as_secs_f64()))
}

//! Defence: what the logs of the defences themselves (network ACLs, security groups, a WAF, a proxy) say of this monitor's own
//! probes. Facts come from `flowlog`; what they come to beside a verdict is judged here, and changes no verdict: a block is proven by
//! witnesses, and a log can corroborate it, or contradict it.

use serde::{Deserialize, Serialize};

use crate::clock::Wall;

/// One thing that a log says of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Which attempt of the observation, from 1.
    pub attempt: usize,
    /// Whose log it is.
    pub log: Log,
    /// What was done, in the log's own word: `REJECT`, `BLOCK`, `TCP_DENIED/403`.
    pub action: String,
    /// What that comes to.
    pub word: Word,
    /// By what it is known to be about this attempt.
    pub matched_by: By,
    /// By an address that `translated` says stands for ours or the target's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub translated: bool,
    /// Whether it is about what we sent, or about an answer.
    pub way: Way,
    /// On which side of the network it was written down.
    pub place: Place,
    /// Where: the network interface, the rule of the web ACL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Why, where the log says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The earliest that it may be about.
    pub first: Wall,
    /// The latest.
    pub last: Wall,
    /// How many packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
}

/// Whose log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Log {
    /// VPC flow log of AWS: security group and network ACL.
    VpcFlowLog,
    /// AWS WAF.
    Waf,
    /// Squid's access log.
    Squid,
    /// The embedded proxy's.
    Proxy,
}

impl Log {
    /// Every one.
    pub const ALL: [Log; 4] = [Log::VpcFlowLog, Log::Waf, Log::Squid, Log::Proxy];

    /// Its name in reports and labels.
    pub fn token(self) -> &'static str {
        match self {
            Log::VpcFlowLog => "vpc-flow-log",
            Log::Waf => "waf",
            Log::Squid => "squid",
            Log::Proxy => "proxy",
        }
    }

    /// In a sentence.
    pub fn in_words(self) -> &'static str {
        match self {
            Log::VpcFlowLog => "the flow log",
            Log::Waf => "the WAF's log",
            Log::Squid => "Squid's access log",
            Log::Proxy => "the proxy's access log",
        }
    }
}

/// What an action comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// The defence refused it.
    Rejected,
    /// The defence let it pass. That anything answered, it does not say.
    LetIn,
    /// Neither: it was not understood, or only counted.
    Neither,
}

impl Word {
    /// Its name in reports and labels.
    pub fn token(self) -> &'static str {
        match self {
            Word::Rejected => "rejected",
            Word::LetIn => "let-in",
            Word::Neither => "neither",
        }
    }
}

/// By what a line of a log is known to be about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Protocol, both addresses and both ports, and the time.
    FiveTuple,
    /// Our address and port, and the time.
    Client,
    /// The number that only this attempt sent.
    Nonce,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// What we sent.
    There,
    /// What came back.
    Back,
}

/// Where a line was written, as seen by the network that the defence guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Where it comes in.
    Incoming,
    /// Where it goes out: our own interface, or one on the way.
    Outgoing,
    /// The log does not say.
    Unknown,
}

impl Sighting {
    /// The most of one observation that a record keeps.
    pub const MAX: usize = 24;

    /// As the middle of a sentence: `the flow log of eni-0a1b says ACCEPT`.
    pub fn in_words(&self) -> String {
        let at = self.at.as_ref().map_or(String::new(), |at| format!(" ({at})"));
        format!("{}{at} says {}", self.log.in_words(), self.action)
    }
}

/// Outcomes of an attempt that never got past the network: whatever let its packets in is no part of such a block.
const BELOW: [&str; 4] = ["timeout", "unreachable", "prohibited", "refused"];
/// Outcomes by which a proxy itself is said to have kept us out.
const BY_A_PROXY: [&str; 6] = ["denied", "not-relayed", "not-understood", "mute", "reset", "closed"];

/// What contradicts an attempt of an inverted check's observation that was judged `holds`, in this order:
///
/// 1. a defence that rejected it, at whichever place, or that rejected the answer on its way out, leaves no contradiction: who passes one
///    door and not the next is kept out. That our own side takes no answer keeps out nobody else;
/// 2. a flow log contradicts what ended below TCP alone, and there not a `refused` where the check (`expect`, as written) accepts no
///    silence: then an answer of the host is demanded, and the network has to let us in for that;
/// 3. an `ACCEPT` of what we sent counts where it comes in, since our own interface lets it out every time; one of an answer counts
///    anywhere;
/// 4. a WAF that let it in contradicts a status, a proxy's log a denial by the proxy.
pub fn contradiction<'a>(outcome: &str, expect: &str, sightings: impl Iterator<Item = &'a Sighting> + Clone) -> Option<&'a Sighting> {
    if sightings.clone().any(|s| s.word == Word::Rejected && (s.way == Way::There || s.place != Place::Incoming)) {
        return None; // 1
    }
    let answered = outcome == "refused" && !accepts_silence(expect);
    sightings.filter(|s| s.word == Word::LetIn).find(|s| match s.log {
        Log::VpcFlowLog if !BELOW.contains(&outcome) || answered => false,   // 2
        Log::VpcFlowLog => s.way == Way::Back || s.place == Place::Incoming, // 3
        Log::Waf => outcome.starts_with("status:"),                          // 4
        Log::Squid | Log::Proxy => BY_A_PROXY.contains(&outcome),            // 4
    })
}

/// Whether what is expected, as written, accepts silence.
fn accepts_silence(expect: &str) -> bool {
    expect == "blocked" || expect.contains("timeout")
}

/// The alarm, as a sentence.
pub fn alarm(address: &str, vantage_outcome: &str, by: &Sighting) -> String {
    let what = match by.log {
        Log::VpcFlowLog if by.way == Way::Back => "an answer was let out to us",
        Log::VpcFlowLog => "security group and network ACL let it in, and something else keeps it from answering",
        Log::Waf => "no rule of it blocked the request, and something behind it answered",
        Log::Squid | Log::Proxy => "its access rules let us in, and something else failed",
    };
    format!(
        "{address} was judged to be blocked ({vantage_outcome}), but {} for attempt {}: {what}. \
         Close it there, or see what has become of the rule.",
        by.in_words(),
        by.attempt
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(log: Log, word: Word, way: Way, place: Place) -> Sighting {
        let at = Wall::from_unix_millis(0).unwrap();
        Sighting {
            attempt: 1,
            log,
            action: "X".into(),
            word,
            matched_by: By::FiveTuple,
            translated: false,
            way,
            place,
            at: None,
            why: None,
            first: at,
            last: at,
            packets: None,
        }
    }

    #[test]
    fn every_cell_of_the_judgement() {
        use Place::{Incoming, Outgoing, Unknown};
        use Way::{Back, There};
        use Word::{LetIn, Neither, Rejected};
        let flow = |word, way, place| sighting(Log::VpcFlowLog, word, way, place);
        for (outcome, expect, seen, contradicted) in [
            ("timeout", "blocked", vec![], false),
            ("timeout", "blocked", vec![flow(LetIn, There, Incoming)], true),
            ("timeout", "blocked", vec![flow(Neither, There, Incoming)], false),
            // Our own interface lets everything out; where the log does not say where it was written, it may be that.
            ("timeout", "blocked", vec![flow(LetIn, There, Outgoing)], false),
            ("timeout", "blocked", vec![flow(LetIn, There, Unknown)], false),
            ("timeout", "blocked", vec![flow(LetIn, Back, Outgoing)], true),
            ("timeout", "blocked", vec![flow(LetIn, Back, Unknown)], true),
            // Who passes one door and not the next is kept out, in whatever order the logs come.
            ("timeout", "blocked", vec![flow(LetIn, There, Incoming), flow(Rejected, There, Incoming)], false),
            ("timeout", "blocked", vec![flow(Rejected, Back, Outgoing), flow(LetIn, There, Incoming)], false),
            ("timeout", "blocked", vec![flow(Rejected, Back, Incoming), flow(LetIn, There, Incoming)], true),
            ("timeout", "blocked", vec![flow(Rejected, Back, Unknown), flow(LetIn, There, Incoming)], false),
            ("prohibited", "blocked", vec![flow(LetIn, There, Incoming)], true),
            ("unreachable", "[\"unreachable\"]", vec![flow(LetIn, There, Incoming)], true),
            // Behind an open ACL only a dead target refuses; where a refusal is what is demanded, the ACL has to be open.
            ("refused", "blocked", vec![flow(LetIn, There, Incoming)], true),
            ("refused", "[\"refused\", \"timeout\"]", vec![flow(LetIn, There, Incoming)], true),
            ("refused", "[\"refused\"]", vec![flow(LetIn, There, Incoming)], false),
            // What keeps us out above TCP needs a network that does not.
            ("status:403", "[\"status:403\"]", vec![flow(LetIn, There, Incoming)], false),
            ("tls-refused", "blocked", vec![flow(LetIn, Back, Outgoing)], false),
            ("status:403", "blocked", vec![sighting(Log::Waf, LetIn, There, Incoming)], true),
            ("status:403", "blocked", vec![sighting(Log::Waf, Rejected, There, Incoming)], false),
            ("timeout", "blocked", vec![sighting(Log::Waf, LetIn, There, Incoming)], false),
            ("denied", "blocked", vec![sighting(Log::Squid, LetIn, There, Incoming)], true),
            ("not-relayed", "blocked", vec![sighting(Log::Proxy, LetIn, There, Incoming)], true),
            // A target behind a proxy that is to let us through.
            ("status:403", "blocked", vec![sighting(Log::Squid, LetIn, There, Incoming)], false),
            ("denied", "blocked", vec![sighting(Log::Squid, Neither, There, Incoming)], false),
        ] {
            assert_eq!(contradiction(outcome, expect, seen.iter()).is_some(), contradicted, "{outcome} {expect} {seen:?}");
        }
    }
}

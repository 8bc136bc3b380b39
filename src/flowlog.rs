//! Flow logs: what the logs of the defences say of this monitor's own probes, matched by five-tuple and time, or by nonce. No match is no
//! claim. `defence` judges what is found.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

pub mod flow;
pub mod follow;
pub mod index;
pub mod join;
mod line;
pub mod stream;

pub use flow::Format;
pub use index::{Index, MAX_SHOTS, Shot};
pub use line::{Counts, Lines};

/// How far the clocks of monitor and log may differ, where nothing else is said.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5);
/// The furthest that they may be said to.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);
/// How long an attempt waits for the logs, where nothing else is said: AWS delivers within some ten minutes, as a rule.
pub const KEEP: Duration = Duration::from_secs(3600);
/// The longest that it may wait.
pub const MAX_KEEP: Duration = Duration::from_secs(86_400);

/// How logs are read, and what is taken for the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How far the clocks may differ.
    pub clock_skew: Duration,
    /// The fields of flow logs that come without a header, other than the default ones.
    pub format: Option<Format>,
    /// An address as this monitor has it, and what the logs have in its stead.
    pub translated: Vec<(IpAddr, IpAddr)>,
    /// Network interfaces on this monitor's side of the defence, where they are known: none but these is.
    pub own_interfaces: Option<BTreeSet<String>>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { clock_skew: CLOCK_SKEW, format: None, translated: Vec::new(), own_interfaces: None }
    }
}

#[cfg(test)]
mod tests;

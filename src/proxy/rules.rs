//! The rules: all that may change while the proxy runs. A connection keeps those that it began with.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use crate::net::resolve::{Cached, Resolver};
use crate::proxy::destination::plain_net;
use crate::proxy::dial::{Egress, Patience};
use crate::proxy::own::Own;
use crate::proxy::policy::Policy;
use crate::proxy::wheel::Limits;
use crate::proxy::{Settings, budget};
use crate::target::fold_mapped;

/// Longer than any tunnel lasts, and short enough to be added to any instant.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Names whose addresses are kept.
const NAMES: u64 = 4096;

/// Who may use the proxy, for what, and how long it may take.
#[derive(Debug)]
pub struct Rules {
    /// Who, and for what.
    pub policy: Policy,
    /// Where connections leave from.
    pub egress: Egress,
    /// Who must send a PROXY header, and is believed.
    proxy_protocol_from: Vec<IpNet>,
    /// How long a request head may take.
    pub header_timeout: Duration,
    /// How long resolving, and then connecting, may take.
    pub connect_timeout: Duration,
    /// How long a destination may leave bytes unacknowledged.
    pub patience: Patience,
    /// The longest request head, in bytes.
    pub max_head: usize,
    /// How long a tunnel may last.
    pub limits: Limits,
    /// How long tunnels may go on once the proxy leaves.
    pub drain: Duration,
    /// How long it accepts once it leaves.
    pub drain_lead: Duration,
}

impl Rules {
    /// The rules of these settings, for a proxy whose listeners are bound to `bound`.
    ///
    /// # Errors
    /// What is wrong with them, and the remedy.
    pub fn new(settings: &Settings, bound: &[SocketAddr]) -> Result<Rules, String> {
        for net in settings.allow_from.iter().chain(&settings.allow_private).chain(&settings.proxy_protocol_from) {
            plain_net(*net)?;
        }
        let egress = Egress::new(&settings.egress)?;
        let policy = Policy {
            own: Own::new(settings.own.iter().chain(bound).copied()),
            families: egress.families(),
            allow_from: settings.allow_from.clone(),
            connect_ports: settings.connect_ports.clone(),
            http_ports: settings.http_ports.clone(),
            deny_to: settings.deny_to.clone(),
            allow_to: settings.allow_to.clone(),
            allow_private: settings.allow_private.clone(),
            resolver: Cached::new(Resolver::System, settings.connect_timeout.min(FOREVER), NAMES),
        };
        Ok(Rules {
            policy,
            egress,
            proxy_protocol_from: settings.proxy_protocol_from.clone(),
            header_timeout: settings.header_timeout,
            connect_timeout: settings.connect_timeout.min(FOREVER),
            patience: Patience::new(settings.idle_timeout),
            max_head: settings.max_head,
            limits: Limits {
                idle: settings.idle_timeout.min(FOREVER),
                half_open: settings.half_open_timeout.min(FOREVER),
                lifetime: settings.lifetime.min(FOREVER),
            },
            drain: settings.drain.min(FOREVER),
            drain_lead: settings.drain_lead.min(FOREVER),
        })
    }

    /// Whether a connection from there must begin with a PROXY header, which is then believed.
    pub fn believes(&self, peer: IpAddr) -> bool {
        let peer = fold_mapped(peer);
        self.proxy_protocol_from.iter().any(|net| net.contains(&peer))
    }
}

/// The keys in which two settings differ and which no reload changes: what is bound, opened and counted at the start.
pub fn need_a_restart(before: &Settings, after: &Settings) -> Vec<&'static str> {
    let budget = |settings: &Settings| settings.egress_budget.map(|budget: budget::Budget| (budget.bytes, budget.period));
    let differing = [
        ("listen", before.listen != after.listen),
        ("health_listen", before.health_listen != after.health_listen),
        ("max_connections", before.max_connections != after.max_connections),
        ("max_per_client", before.max_per_client != after.max_per_client),
        ("access_log", before.access_log != after.access_log),
        ("access_log_format", before.access_log_format != after.access_log_format),
        ("egress_budget", budget(before) != budget(after)),
    ];
    differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

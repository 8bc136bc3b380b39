//! What the proxy is to do, as its section of the configuration has it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use crate::proxy::budget::Budget;
use crate::proxy::destination::Destination;
use crate::proxy::log::{LogFormat, LogTarget};
use crate::target::PortSet;

/// What the proxy is to do; SPEC section 11.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The source addresses of outgoing connections, at most one a family; only their families are dialled. None: the kernel chooses.
    pub egress: Vec<IpAddr>,
    /// Who may use it; nobody unless listed.
    pub allow_from: Vec<IpNet>,
    /// Load balancers: who must begin a connection with a PROXY header, and is believed.
    pub proxy_protocol_from: Vec<IpNet>,
    /// The ports that CONNECT may name.
    pub connect_ports: PortSet,
    /// The ports that a request in absolute form may name; none: CONNECT is the only method.
    pub http_ports: PortSet,
    /// Special-purpose destinations that may be reached all the same.
    pub allow_private: Vec<IpNet>,
    /// Destinations that are refused.
    pub deny_to: Vec<Destination>,
    /// The only destinations, unless empty.
    pub allow_to: Vec<Destination>,
    /// Other listeners of this process that are never a destination; its own are added when they are bound.
    pub own: Vec<SocketAddr>,
    /// How long a request head may take.
    pub header_timeout: Duration,
    /// How long resolving, and then connecting, may take.
    pub connect_timeout: Duration,
    /// How long a tunnel may last without a byte in either direction.
    pub idle_timeout: Duration,
    /// How long it may last without a byte once one side has ended.
    pub half_open_timeout: Duration,
    /// How long it may last at all.
    pub lifetime: Duration,
    /// The most connections; `None` is (file-descriptor limit − 256) / 2.
    pub max_connections: Option<usize>,
    /// The most connections of one client address; `None` is a quarter of all.
    pub max_per_client: Option<usize>,
    /// The longest request head, in bytes.
    pub max_head: usize,
    /// Where the access log goes.
    pub access_log: LogTarget,
    /// How it is written.
    pub access_log_format: LogFormat,
    /// How much may be sent to destinations before a warning.
    pub egress_budget: Option<Budget>,
    /// How long it may take from the moment that it leaves until all tunnels have ended; then what is left is reset.
    pub drain: Duration,
    /// For how much of that it goes on to accept, since a load balancer may not know yet.
    pub drain_lead: Duration,
    /// Where a load balancer asks for `/healthz`.
    pub health_listen: Vec<SocketAddr>,
}

impl Settings {
    /// The defaults: listening nowhere, open to nobody, CONNECT to 443 on public addresses.
    pub fn new() -> Settings {
        Settings {
            listen: Vec::new(),
            egress: Vec::new(),
            allow_from: Vec::new(),
            proxy_protocol_from: Vec::new(),
            connect_ports: PortSet::parse(["443"]).unwrap_or_default(),
            http_ports: PortSet::default(),
            allow_private: Vec::new(),
            deny_to: Vec::new(),
            allow_to: Vec::new(),
            own: Vec::new(),
            header_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(5 * 60),
            half_open_timeout: Duration::from_secs(60),
            lifetime: Duration::from_secs(24 * 60 * 60),
            max_connections: None,
            max_per_client: None,
            max_head: 16 * 1024,
            access_log: LogTarget::Stdout,
            access_log_format: LogFormat::Squid,
            egress_budget: None,
            drain: Duration::from_secs(25),
            drain_lead: Duration::from_secs(5),
            health_listen: Vec::new(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings::new()
    }
}

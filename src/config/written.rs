//! The file as written: every value read into its type, none yet held against another.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use ipnet::IpNet;

use super::alert::Alert;
use super::dns::Dns;
use super::problem::{At, Place};
use crate::exception::Until;
use crate::flowlog::Format;
use crate::net::resolve::Resolver;
use crate::net::tls::Version;
use crate::observation::{ClientCertificate, Family};
use crate::probe::{Kind, Payload, Pick, Pointer, Scope, Technique};
use crate::proxy;
use crate::secret::Secret;
use crate::severity::Severity;
use crate::target::{HostPort, Hosts, PortSet, Url};
use crate::witness::ProofSet;

/// Labels that a check may carry: they are on every scrape, for ever.
pub const MAX_LABELS: usize = 16;

/// Everything that stands in the file.
pub struct File {
    /// `vantage`
    pub vantage: Option<At<String>>,
    /// `witness_window`
    pub witness_window: Option<At<Duration>>,
    /// `linger`
    pub linger: Option<At<Duration>>,
    /// `decoy`, at most one of each family
    pub decoy: Vec<At<IpAddr>>,
    /// `state_dir`
    pub state_dir: Option<At<String>>,
    /// `shutdown_grace`
    pub shutdown_grace: Option<At<Duration>>,
    /// `[defaults]`
    pub defaults: Common,
    /// `[web]`
    pub web: Option<Web>,
    /// `[beacon]`
    pub beacon: Option<Beacon>,
    /// `[proxy]`, with its own defaults filled in
    pub proxy: Option<proxy::Settings>,
    /// `[drill] interval`
    pub drill: Option<At<Duration>>,
    /// `[admin_page]`
    pub admin_page: Option<AdminPage>,
    /// `[evidence]`
    pub evidence: Option<LogEvidence>,
    /// Every address that something of ours listens on
    pub listeners: Vec<At<SocketAddr>>,
    /// Every `[[alert]]`
    pub alerts: Vec<Alert>,
    /// Every `[[check]]`
    pub checks: Vec<Check>,
    /// Every `[[exception]]`
    pub exceptions: Vec<Exception>,
}

/// One `[[exception]]`.
pub struct Exception {
    /// Where it stands.
    pub place: Place,
    /// `check`
    pub check: Option<At<String>>,
    /// `target`
    pub target: Option<At<String>>,
    /// `reason`
    pub reason: Option<At<String>>,
    /// `owner`
    pub owner: Option<At<String>>,
    /// `until`
    pub until: Option<At<Until>>,
}

/// `[web]`
pub struct Web {
    /// `listen`
    pub listen: Option<At<SocketAddr>>,
    /// `cert_file`
    pub cert_file: Option<At<String>>,
    /// `key_file`
    pub key_file: Option<At<String>>,
    /// `client_ca_file`
    pub client_ca_file: Option<At<String>>,
    /// `basic_auth`: the bcrypt hash of each user's password
    pub basic_auth: BTreeMap<String, Secret>,
}

/// `[beacon]`
pub struct Beacon {
    /// `listen`
    pub listen: Vec<At<SocketAddr>>,
    /// `key_file`
    pub key_file: Option<At<String>>,
}

/// `[evidence]`
pub struct LogEvidence {
    /// `follow`
    pub follow: Vec<At<String>>,
    /// `flow_format`
    pub flow_format: Option<At<Format>>,
    /// `clock_skew`
    pub clock_skew: Option<At<Duration>>,
    /// `keep`
    pub keep: Option<At<Duration>>,
    /// `translated`: an address, and one that logs have in its stead
    pub translated: Vec<(IpAddr, IpAddr)>,
    /// `own_interfaces`
    pub own_interfaces: Option<Vec<At<String>>>,
}

/// `[admin_page]`
pub struct AdminPage {
    /// `listen`
    pub listen: Option<At<SocketAddr>>,
    /// `allow_from`
    pub allow_from: Vec<IpNet>,
    /// `door`
    pub door: Option<At<SocketAddrV4>>,
}

/// The keys that `[defaults]` and `[[check]]` share.
#[derive(Default, Clone)]
pub struct Common {
    /// `witness`
    pub witness: Option<At<Vec<At<String>>>>,
    /// `require`
    pub require: Option<At<ProofSet>>,
    /// `interval`
    pub interval: Option<At<Duration>>,
    /// `timeout`
    pub timeout: Option<At<Duration>>,
    /// `attempts`
    pub attempts: Option<At<usize>>,
    /// `families`
    pub families: Option<At<Vec<Family>>>,
    /// `source`
    pub source: Option<At<IpAddr>>,
    /// `resolver`
    pub resolver: Option<At<Resolver>>,
    /// `severity`
    pub severity: Option<At<Severity>>,
    /// `runbook`
    pub runbook: Option<At<String>>,
    /// `description`
    pub description: Option<At<String>>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
    /// `tags`
    pub tags: Option<Vec<String>>,
}

/// One `[[check]]`.
pub struct Check {
    /// Where it stands.
    pub place: Place,
    /// Which `[[check]]` of the file it is, from 1; those that come of one check with many targets have the same.
    pub number: usize,
    /// `name`
    pub name: Option<At<String>>,
    /// `target`, as text
    pub target: Option<At<String>>,
    /// Files of targets are read for it, so that its targets are not all known here.
    pub from_files: bool,
    /// `expect`
    pub expect: Option<At<Expect>>,
    /// `witness` is written, rightly or wrongly
    pub has_witness: bool,
    /// What every check has.
    pub common: Common,
    /// What its kind has; none where the kind is unknown.
    pub own: Option<Own>,
    /// `template`
    pub template: Option<At<bool>>,
    /// `allow_targets`
    pub allow_targets: Option<At<Vec<IpNet>>>,
    /// It is a template without a target of its own, and one stands in for it.
    pub placeholder: bool,
    /// Nothing in it was found wrong yet.
    pub sound: bool,
}

/// `expect`
pub enum Expect {
    /// `"open"`, `"blocked"` or one outcome
    Word(String),
    /// A list of outcomes
    List(Vec<At<String>>),
    /// `{ ip = [...] }`
    Ip(Vec<IpNet>),
}

/// The keys of one kind.
pub enum Own {
    /// `tcp`
    Tcp {
        /// `target`
        target: Option<At<HostPort>>,
    },
    /// `tls`
    Tls {
        /// `target`
        target: Option<At<HostPort>>,
        /// TLS keys
        tls: Box<Tls>,
    },
    /// `http`
    Http(Box<Http>),
    /// `egress-ip`
    EgressIp {
        /// `target`
        target: Option<At<Url>>,
        /// `via` and its credentials
        via: Box<Via>,
    },
    /// `peer`
    Peer(Box<Peer>),
    /// `promql`
    PromQl(Box<PromQl>),
    /// `open-proxy`
    OpenProxy(Box<OpenProxy>),
    /// `dns`
    Dns(Box<Dns>),
    /// `udp`
    Udp {
        /// `target`
        target: Option<At<HostPort>>,
        /// `payload`
        payload: Option<At<Payload>>,
    },
    /// `icmp`
    Icmp {
        /// `target`
        target: Option<At<Scope>>,
    },
    /// `ports`
    Ports(Box<Ports>),
    /// `ranges`
    Ranges(Box<Ranges>),
}

/// The keys of `http`.
pub struct Http {
    /// `target`
    pub target: Option<At<Url>>,
    /// `via` and its credentials
    pub via: Via,
    /// `method`
    pub method: Option<At<String>>,
    /// `headers`
    pub headers: Vec<(String, Secret)>,
    /// `body_contains`
    pub body_contains: Option<At<String>>,
    /// `follow_redirects`
    pub follow_redirects: Option<At<bool>>,
    /// `deny_location`
    pub deny_location: Option<At<Vec<At<Url>>>>,
    /// `http_version`, true for 2
    pub http_version: Option<At<bool>>,
    /// `variants`
    pub variants: Option<At<Vec<At<Pick>>>>,
    /// `spoof`
    pub spoof: Option<At<Vec<At<IpNet>>>>,
    /// TLS keys
    pub tls: Tls,
}

/// The keys of `peer`.
pub struct Peer {
    /// `target`
    pub target: Option<At<Url>>,
    /// `check`
    pub check: Option<At<String>>,
    /// `max_age`
    pub max_age: Option<At<Duration>>,
    /// `user`
    pub user: Option<At<String>>,
    /// `password_file`
    pub password_file: Option<At<String>>,
    /// TLS keys
    pub tls: Tls,
}

/// The keys of `promql`.
pub struct PromQl {
    /// `target`
    pub target: Option<At<Url>>,
    /// `query`
    pub query: Option<At<String>>,
    /// `max_age`
    pub max_age: Option<At<Duration>>,
    /// `user`
    pub user: Option<At<String>>,
    /// `password_file`
    pub password_file: Option<At<String>>,
    /// TLS keys
    pub tls: Tls,
}

/// The keys of `open-proxy`.
pub struct OpenProxy {
    /// `target`
    pub target: Option<At<HostPort>>,
    /// `beacon`
    pub beacons: Vec<At<Url>>,
    /// `techniques`
    pub techniques: Option<At<Vec<At<Tried>>>>,
    /// `spoof`
    pub spoof: Option<At<Vec<IpNet>>>,
    /// `allowed_destination`
    pub allowed_destination: Option<At<HostPort>>,
    /// TLS keys, for OP-07
    pub tls: Tls,
}

/// The keys of `ports`.
pub struct Ports {
    /// `target`
    pub target: Option<At<Hosts>>,
    /// `ports`
    pub ports: Option<At<PortSet>>,
    /// `except`
    pub except: Option<At<PortSet>>,
    /// `open`
    pub open: Option<At<PortSet>>,
    /// `rate`
    pub rate: Option<At<usize>>,
}

/// The keys of `ranges`.
pub struct Ranges {
    /// `target`
    pub target: Option<At<ListAt>>,
    /// `pointer`
    pub pointer: Option<At<Vec<At<Pointer>>>>,
    /// `where`
    pub only_where: Vec<(String, String)>,
    /// Where `where` stands.
    pub where_at: Option<Place>,
    /// `expected`
    pub expected: Option<At<Networks>>,
    /// `expected_pointer`
    pub expected_pointer: Option<At<Vec<At<Pointer>>>>,
    /// `only`
    pub only: Option<At<Family>>,
    /// `besides`
    pub besides: Option<At<Vec<At<IpNet>>>>,
    /// `headers`
    pub headers: Vec<(String, Secret)>,
    /// Where `headers` stands.
    pub headers_at: Option<Place>,
    /// TLS keys
    pub tls: Tls,
}

/// Where a list is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListAt {
    /// A URL
    Url(Url),
    /// A file, by its name behind `file:`
    File(String),
}

/// `expected`
pub enum Networks {
    /// The name of a file
    File(String),
    /// The networks themselves
    These(Vec<IpNet>),
}

/// One entry of `techniques`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// `"standard"`: all that the rest of the check allows
    Standard,
    /// `"quick"`: the few that find most
    Quick,
    /// One by its number
    One(Technique),
}

impl Tried {
    /// As written.
    pub fn token(self) -> &'static str {
        match self {
            Tried::Standard => "standard",
            Tried::Quick => "quick",
            Tried::One(technique) => technique.id(),
        }
    }
}

/// `via`, `via_method`, `via_user`, `via_password_file`
pub struct Via {
    /// `via`
    pub proxy: Option<At<HostPort>>,
    /// `via_method`: whether it is `absolute`
    pub absolute: Option<At<bool>>,
    /// `via_user`
    pub user: Option<At<String>>,
    /// `via_password_file`
    pub password_file: Option<At<String>>,
}

/// The TLS keys.
pub struct Tls {
    /// `server_name`
    pub server_name: Option<At<String>>,
    /// `ca_file`
    pub ca_file: Option<At<String>>,
    /// `client_cert_file`
    pub client_cert_file: Option<At<String>>,
    /// `client_key_file`
    pub client_key_file: Option<At<String>>,
    /// `alpn`
    pub alpn: Option<At<Vec<At<String>>>>,
    /// `min_version`
    pub min_version: Option<At<Version>>,
    /// `max_version`
    pub max_version: Option<At<Version>>,
    /// `client_certs`
    pub client_certs: Option<At<Vec<At<ClientCertificate>>>>,
    /// `certificate_sha256`
    pub certificate_sha256: Option<At<String>>,
}

impl Own {
    /// The kind whose keys these are.
    pub fn kind(&self) -> Kind {
        match self {
            Own::Tcp { .. } => Kind::Tcp,
            Own::Tls { .. } => Kind::Tls,
            Own::Http(_) => Kind::Http,
            Own::EgressIp { .. } => Kind::EgressIp,
            Own::Peer(_) => Kind::Peer,
            Own::PromQl(_) => Kind::PromQl,
            Own::OpenProxy(_) => Kind::OpenProxy,
            Own::Dns(_) => Kind::Dns,
            Own::Udp { .. } => Kind::Udp,
            Own::Icmp { .. } => Kind::Icmp,
            Own::Ports(_) => Kind::Ports,
            Own::Ranges(_) => Kind::Ranges,
        }
    }
}

impl Tls {
    /// Where the keys stand that are written.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.named().into_iter().filter_map(|(_, place)| place)
    }

    /// Where one key stands.
    pub fn place_of(&self, key: &str) -> Option<&Place> {
        self.named().into_iter().find(|(name, _)| *name == key).and_then(|(_, place)| place)
    }

    fn named(&self) -> [(&'static str, Option<&Place>); 9] {
        [
            ("server_name", self.server_name.as_ref().map(|k| &k.place)),
            ("ca_file", self.ca_file.as_ref().map(|k| &k.place)),
            ("client_cert_file", self.client_cert_file.as_ref().map(|k| &k.place)),
            ("client_key_file", self.client_key_file.as_ref().map(|k| &k.place)),
            ("alpn", self.alpn.as_ref().map(|k| &k.place)),
            ("min_version", self.min_version.as_ref().map(|k| &k.place)),
            ("max_version", self.max_version.as_ref().map(|k| &k.place)),
            ("client_certs", self.client_certs.as_ref().map(|k| &k.place)),
            ("certificate_sha256", self.certificate_sha256.as_ref().map(|k| &k.place)),
        ]
    }
}

/// As written, for reports.
impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Word(word) => f.write_str(word),
            Expect::List(tokens) => write!(f, "{:?}", tokens.iter().map(|t| t.value.as_str()).collect::<Vec<_>>()),
            Expect::Ip(nets) => write!(f, "{{ ip = {:?} }}", nets.iter().map(|n| shown_net(*n)).collect::<Vec<_>>()),
        }
    }
}

/// A network as it is usually written: a single address without its prefix.
fn shown_net(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

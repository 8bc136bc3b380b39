//! Kinds of check, by their names.

use std::fmt;

/// A kind of check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `tcp`
    Tcp,
    /// `tls`
    Tls,
    /// `http`
    Http,
    /// `egress-ip`
    EgressIp,
    /// `peer`
    Peer,
    /// `promql`
    PromQl,
    /// `open-proxy`
    OpenProxy,
    /// `dns`
    Dns,
    /// `udp`
    Udp,
    /// `icmp`
    Icmp,
    /// `ports`
    Ports,
    /// `ranges`
    Ranges,
}

impl Kind {
    /// Every kind.
    pub const ALL: &[Kind] = &[
        Kind::Tcp,
        Kind::Tls,
        Kind::Http,
        Kind::Udp,
        Kind::Icmp,
        Kind::Dns,
        Kind::Ports,
        Kind::EgressIp,
        Kind::Peer,
        Kind::PromQl,
        Kind::Ranges,
        Kind::OpenProxy,
    ];

    /// The token, as written in `kind`, in reports and in metrics.
    pub fn token(self) -> &'static str {
        match self {
            Kind::Tcp => "tcp",
            Kind::Tls => "tls",
            Kind::Http => "http",
            Kind::EgressIp => "egress-ip",
            Kind::Peer => "peer",
            Kind::PromQl => "promql",
            Kind::OpenProxy => "open-proxy",
            Kind::Dns => "dns",
            Kind::Udp => "udp",
            Kind::Icmp => "icmp",
            Kind::Ports => "ports",
            Kind::Ranges => "ranges",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

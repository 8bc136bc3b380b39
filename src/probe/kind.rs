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
    /// `open-proxy`
    OpenProxy,
    /// `ports`
    Ports,
}

impl Kind {
    /// Every kind.
    pub const ALL: &[Kind] = &[Kind::Tcp, Kind::Tls, Kind::Http, Kind::EgressIp, Kind::Peer, Kind::OpenProxy, Kind::Ports];

    /// The token, as written in `kind`, in reports and in metrics.
    pub fn token(self) -> &'static str {
        match self {
            Kind::Tcp => "tcp",
            Kind::Tls => "tls",
            Kind::Http => "http",
            Kind::EgressIp => "egress-ip",
            Kind::Peer => "peer",
            Kind::OpenProxy => "open-proxy",
            Kind::Ports => "ports",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

//! Why a request ended as it did: one word for the metric, the log, the response header and the exit of `proxy explain`.

use std::fmt;

/// Why a request ended as it did. `Display` is the metric label, the log field and the response header alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The PROXY header that must be there is not, or is none.
    ProxyHeader,
    /// The client may not use this proxy.
    Source,
    /// The head is not a request.
    Parse,
    /// The method, or the form of the target, is not one that is served.
    Method,
    /// The port is not allowed.
    Port,
    /// The destination's name is not allowed.
    Name,
    /// An address of the destination is not allowed.
    Address,
    /// Too many connections.
    Limit,
    /// Allowed.
    Allow,
    /// The name gave no address.
    Resolve,
    /// The name was not resolved in time.
    ResolveTimeout,
    /// The destination could not be reached.
    Connect,
    /// The destination did not answer in time.
    ConnectTimeout,
}

impl Reason {
    /// Every reason, in the order of decision.
    pub const ALL: [Reason; 13] = [
        Reason::ProxyHeader,
        Reason::Source,
        Reason::Parse,
        Reason::Method,
        Reason::Port,
        Reason::Name,
        Reason::Address,
        Reason::Limit,
        Reason::Allow,
        Reason::Resolve,
        Reason::ResolveTimeout,
        Reason::Connect,
        Reason::ConnectTimeout,
    ];

    /// The status of the response.
    pub fn status(self) -> u16 {
        match self {
            Reason::Allow => 200,
            Reason::Parse => 400,
            Reason::ProxyHeader | Reason::Source | Reason::Method | Reason::Port | Reason::Name | Reason::Address => 403,
            Reason::Limit => 503,
            Reason::Resolve | Reason::Connect => 502,
            Reason::ResolveTimeout | Reason::ConnectTimeout => 504,
        }
    }

    /// `allow`, `deny`, or `error` where the destination let us down.
    pub fn decision(self) -> &'static str {
        match self {
            Reason::Allow => "allow",
            Reason::ProxyHeader
            | Reason::Source
            | Reason::Parse
            | Reason::Method
            | Reason::Port
            | Reason::Name
            | Reason::Address
            | Reason::Limit => "deny",
            Reason::Resolve | Reason::ResolveTimeout | Reason::Connect | Reason::ConnectTimeout => "error",
        }
    }

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Reason::ProxyHeader => "proxy-header",
            Reason::Source => "source",
            Reason::Parse => "parse",
            Reason::Method => "method",
            Reason::Port => "port",
            Reason::Name => "name",
            Reason::Address => "address",
            Reason::Limit => "limit",
            Reason::Allow => "allow",
            Reason::Resolve | Reason::ResolveTimeout => "resolve",
            Reason::Connect | Reason::ConnectTimeout => "connect",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

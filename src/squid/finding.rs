//! What is found: what it leaves open, to whom, and the line that closes it.

use std::fmt;

use serde::{Serialize, Serializer};

use super::read::Place;
use crate::severity::Severity;

macro_rules! ids {
    ($($(#[$doc:meta])* $id:ident = $token:literal, $severity:ident;)*) => {
        /// What kind of finding it is; `docs/proxy-lint.md` has a heading for each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Id { $($(#[$doc])* $id,)* }

        impl Id {
            /// Every one, the worst first.
            pub const ALL: &'static [Id] = &[$(Id::$id,)*];

            /// The name, as it is printed and as `--accept` takes it.
            pub fn token(self) -> &'static str {
                match self { $(Id::$id => $token,)* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Id::$id => Severity::$severity,)* }
            }
        }
    };
}

ids! {
    /// Somebody whom no list of clients can mean gets in.
    OpenToStrangers = "open-to-strangers", Critical;
    /// Clients reach what listens on the proxy's own host for itself alone.
    ToLoopback = "to-loopback", Critical;
    /// Clients reach link-local addresses, among them the metadata services.
    ToLinkLocal = "to-link-local", Critical;
    /// Anybody may claim an address by the PROXY protocol.
    ProxyHeaderBelieved = "proxy-header-believed", Critical;
    /// Anybody may claim an address by X-Forwarded-For.
    ForwardedForBelieved = "forwarded-for-believed", Critical;
    /// The rules judge the load balancer's address instead of the client's.
    BalancerHidesClient = "balancer-hides-client", Critical;
    /// Clients reach private networks.
    ToPrivate = "to-private", Warning;
    /// Clients reach the cache manager.
    Manager = "manager", Warning;
    /// Requests other than CONNECT are taken.
    PlainRequests = "plain-requests", Warning;
    /// Squid is a gateway to FTP.
    Ftp = "ftp", Warning;
    /// Squid is a gateway to gopher, wais, whois or urn.
    OtherSchemes = "other-schemes", Warning;
    /// CONNECT goes to more than a few ports of TLS.
    ConnectPorts = "connect-ports", Warning;
    /// Clients can make it ask itself.
    ToItself = "to-itself", Warning;
    /// The rules do not end with a denial.
    NoFinalDeny = "no-final-deny", Warning;
    /// ICP, HTCP or SNMP answers strangers.
    SidePorts = "side-ports", Warning;
    /// Passwords travel in the clear.
    BasicAuth = "basic-auth", Warning;
    /// The PROXY protocol is required of everybody and taken from nobody.
    ProxyHeaderRefused = "proxy-header-refused", Info;
    /// A line does not do what it says.
    Ignored = "ignored", Warning;
    /// Squid does not start with it.
    Refused = "refused", Warning;
    /// IPv6 addresses that carry a private IPv4 one are let through.
    ToEmbedded = "to-embedded", Info;
    /// Nobody gets in.
    NobodyGetsIn = "nobody-gets-in", Info;
    /// Whether a load balancer stands in front is not said.
    BalancerUntold = "balancer-untold", Info;
    /// What a container writes there nobody sees.
    AccessLog = "access-log", Info;
    /// Squid is killed before it has stopped.
    ShutdownLifetime = "shutdown-lifetime", Info;
    /// Connections run out early.
    FileDescriptors = "file-descriptors", Info;
    /// Requests tell the destination of the network inside.
    Leaks = "leaks", Info;
    /// Every error page tells the version.
    VersionShown = "version-shown", Info;
    /// A cache that is none.
    CacheDir = "cache-dir", Info;
    /// Older versions do not know it.
    TooNew = "too-new", Info;
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.token())
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind.
    pub id: Id,
    /// How bad it is.
    pub severity: Severity,
    /// False where it hangs on an ACL that cannot be judged from the text.
    pub certain: bool,
    /// The line that leaves it open, or the last one where a line is missing.
    #[serde(flatten)]
    pub at: Place,
    /// What is left open, and to whom.
    pub message: String,
    /// The lines to write.
    pub remedy: Vec<String>,
}

impl Finding {
    /// A finding that hangs on nothing.
    pub fn new(id: Id, at: Place, message: String, remedy: &[&str]) -> Finding {
        Finding { id, severity: id.severity(), certain: true, at, message, remedy: remedy.iter().map(ToString::to_string).collect() }
    }
}

/// What could not be judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotJudged {
    /// Where it is written.
    #[serde(flatten)]
    pub at: Place,
    /// What, and why.
    pub message: String,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// What was not judged.
    pub not_judged: Vec<NotJudged>,
}

//! Observations: what happened on the wire. Facts only, nothing here is good or bad.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::clock::{Moment, Wall};
use crate::target::Networks;

/// An address family; A and AAAA are asked and judged apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The class of an outcome: somebody let us in, we were kept out, or the fault is on our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Somebody answered and let us in, at least this far.
    Open,
    /// We were kept out.
    Closed,
    /// Our own host, resolver or program failed: this says nothing about the target.
    Local,
}

/// What happened on the wire; the closed set of SPEC section 3. Its `Display` is the token and the metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// TCP handshake completed.
    Connected,
    /// TLS handshake done, and no alert followed.
    TlsEstablished,
    /// It speaks TLS, but its chain or name is not valid.
    TlsUntrusted,
    /// Somebody answered with something other than TLS.
    NotTls,
    /// Somebody answered with something other than HTTP.
    BadHttp,
    /// A final HTTP response head, 200 to 599; below 400 is open, above is closed.
    Status(u16),
    /// Answered, but body, answers or certificate are not as the check says.
    Mismatch,
    /// A UDP datagram or an ICMP echo reply came back.
    Replied,
    /// DNS gave at least one record.
    Resolved,
    /// The beacon's signed answer came back through the proxy.
    Relayed,
    /// The beacon's log has the nonce from another address; the answer did not come back.
    RelayedBlind,
    /// A tunnel to the allowed destination was granted, proven by its certificate.
    Tunnelled,
    /// The proxy says that it tried: its source ACL let us in.
    AclPassed,
    /// The beacon saw us from an address in the set.
    Egress,
    /// The beacon saw us from an address that is not in the set.
    EgressOther,
    /// The peer or the query says yes.
    QueryTrue,
    /// RST to our SYN, or ICMP port-unreachable from someone else.
    Refused,
    /// ICMP "administratively prohibited" from someone else.
    Prohibited,
    /// Any other ICMP error from someone else.
    Unreachable,
    /// Nothing came back.
    Timeout,
    /// Connected, then RST before what the stage needed.
    Reset,
    /// Connected, then FIN before what the stage needed.
    Closed,
    /// Connected, then nothing until the deadline.
    Mute,
    /// Refused by a TLS alert.
    TlsRefused,
    /// The name does not exist.
    NxDomain,
    /// The name exists without records of the asked types.
    NoData,
    /// The DNS server refuses to answer (RCODE 5).
    DnsRefused,
    /// The DNS server failed (RCODE 2).
    ServFail,
    /// The proxy denied: 403, 407, its own error page, or RST or FIN after accept.
    Denied,
    /// Another answer of the proxy, and the beacon's log does not know the nonce.
    NotRelayed,
    /// 400, 405, 501 or 505.
    NotUnderstood,
    /// A bare 502, 503 or 504.
    GatewayError,
    /// The peer or the query says no.
    QueryFalse,
    /// Our own host failed, or something between answers for everybody.
    LocalError,
    /// The target's name did not resolve, and resolving is not what is tested.
    ResolveError,
    /// A bug of ours.
    Internal,
}

/// The tokens without a number, in the order of SPEC section 3.
const TOKENS: &[(Outcome, &str, Class)] = &[
    (Outcome::Connected, "connected", Class::Open),
    (Outcome::TlsEstablished, "tls-established", Class::Open),
    (Outcome::TlsUntrusted, "tls-untrusted", Class::Open),
    (Outcome::NotTls, "not-tls", Class::Open),
    (Outcome::BadHttp, "bad-http", Class::Open),
    (Outcome::Mismatch, "mismatch", Class::Open),
    (Outcome::Replied, "replied", Class::Open),
    (Outcome::Resolved, "resolved", Class::Open),
    (Outcome::Relayed, "relayed", Class::Open),
    (Outcome::RelayedBlind, "relayed-blind", Class::Open),
    (Outcome::Tunnelled, "tunnelled", Class::Open),
    (Outcome::AclPassed, "acl-passed", Class::Open),
    (Outcome::Egress, "egress", Class::Open),
    (Outcome::EgressOther, "egress-other", Class::Open),
    (Outcome::QueryTrue, "query-true", Class::Open),
    (Outcome::Refused, "refused", Class::Closed),
    (Outcome::Prohibited, "prohibited", Class::Closed),
    (Outcome::Unreachable, "unreachable", Class::Closed),
    (Outcome::Timeout, "timeout", Class::Closed),
    (Outcome::Reset, "reset", Class::Closed),
    (Outcome::Closed, "closed", Class::Closed),
    (Outcome::Mute, "mute", Class::Closed),
    (Outcome::TlsRefused, "tls-refused", Class::Closed),
    (Outcome::NxDomain, "nxdomain", Class::Closed),
    (Outcome::NoData, "no-data", Class::Closed),
    (Outcome::DnsRefused, "dns-refused", Class::Closed),
    (Outcome::ServFail, "servfail", Class::Closed),
    (Outcome::Denied, "denied", Class::Closed),
    (Outcome::NotRelayed, "not-relayed", Class::Closed),
    (Outcome::NotUnderstood, "not-understood", Class::Closed),
    (Outcome::GatewayError, "gateway-error", Class::Closed),
    (Outcome::QueryFalse, "query-false", Class::Closed),
    (Outcome::LocalError, "local-error", Class::Local),
    (Outcome::ResolveError, "resolve-error", Class::Local),
    (Outcome::Internal, "internal", Class::Local),
];

impl Outcome {
    /// The class that SPEC section 3 gives this outcome.
    pub fn class(self) -> Class {
        match self {
            Outcome::Status(code) if code < 400 => Class::Open,
            Outcome::Status(_) => Class::Closed,
            other => TOKENS.iter().find(|row| row.0 == other).map_or(Class::Local, |row| row.2),
        }
    }

    /// Nothing at all came back: neither side of a border can be told from silence alone.
    pub fn is_silence(self) -> bool {
        matches!(self, Outcome::Timeout | Outcome::Mute)
    }

    /// Somebody completed a TCP handshake before it, where TCP is what carried it.
    pub fn is_past_tcp(self) -> bool {
        let kept_out = matches!(self, Outcome::Refused | Outcome::Prohibited | Outcome::Unreachable | Outcome::Timeout);
        !kept_out && self != Outcome::Replied && self.class() != Class::Local
    }

    /// Every outcome without a number.
    pub fn all() -> impl Iterator<Item = Outcome> {
        TOKENS.iter().map(|row| row.0)
    }
}

impl FromStr for Outcome {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(code) = text.strip_prefix("status:") {
            return match code.parse::<u16>() {
                Ok(code) if (200..=599).contains(&code) && text.len() == "status:200".len() => Ok(Outcome::Status(code)),
                _ => Err(()),
            };
        }
        TOKENS.iter().find(|row| row.1 == text).map(|row| row.0).ok_or(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Status(code) => write!(f, "status:{code}"),
            other => f.write_str(TOKENS.iter().find(|row| row.0 == *other).map_or("internal", |row| row.1)),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How deep we got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Resolving the target's name, or asking for the records that a check is about.
    Dns,
    /// An ICMP echo.
    Icmp,
    /// A UDP datagram.
    Udp,
    /// The TCP handshake.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// The proxy that was asked to relay.
    Proxy,
    /// The HTTP exchange.
    Http,
    /// A file on this host.
    File,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Dns => "dns",
            Stage::Icmp => "icmp",
            Stage::Udp => "udp",
            Stage::Tcp => "tcp",
            Stage::Tls => "tls",
            Stage::Proxy => "proxy",
            Stage::Http => "http",
            Stage::File => "file",
        })
    }
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        })
    }
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What carries the first packet of a look: a block seen by one says nothing of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6; it has no ports, so its addresses carry port 0.
    Icmp,
}

impl Stage {
    /// What carried a look that ended at this stage.
    pub fn transport(self) -> Transport {
        match self {
            Stage::Icmp => Transport::Icmp,
            Stage::Udp | Stage::Dns => Transport::Udp,
            Stage::Tcp | Stage::Tls | Stage::Proxy | Stage::Http | Stage::File => Transport::Tcp,
        }
    }
}

/// A client certificate, as far as it matters who may get in with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificate {
    /// None.
    None,
    /// One that we made and signed ourselves a moment ago, so that nobody can know it.
    SelfSigned,
    /// The one that the check names.
    Own,
}

/// What a server refused us for, as far as the wire tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusedFor {
    /// The certificate that we did not have, or the wrong one that we had.
    Certificate,
    /// The TLS version that we offered.
    Version,
    /// Something else, or nothing that can be told: a client of another make might have got in.
    Other,
}

/// What proves that the answer came from whom we asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Authentication {
    /// A TLS handshake whose chain and name verified.
    Tls,
    /// The beacon's signature over our nonce.
    Beacon,
}

/// An ICMP error as the kernel's error queue gave it (ip(7), `struct sock_extended_err`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Icmp {
    /// ICMP or ICMPv6 type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// ICMP or ICMPv6 code.
    pub code: u8,
    /// Who sent it, where the kernel says.
    pub sender: Option<IpAddr>,
    /// The sender is this host: its own route, firewall or failed ARP or ND.
    pub ours: bool,
    /// It came while TCP was still trying, and was not the end.
    pub soft: bool,
}

/// Evidence of one attempt, bounded in size and free of secrets. What does not apply is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Evidence {
    /// Our own address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_address: Option<SocketAddr>,
    /// The proxy that `via` names, as dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<SocketAddr>,
    /// Where the last redirect led: the address and port that were dialled for it, by a connection of its own. All else in
    /// this evidence, our own address too, is of that last connection. Absent through a proxy, which alone knows where it went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirected_to: Option<SocketAddr>,
    /// The errno of the failed call, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// SYNs that left this host (`TCP_INFO`: one and its retransmissions).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syns_sent: Option<u32>,
    /// SYN retransmissions (`TCP_INFO`, `tcpi_total_retrans`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syn_retransmits: Option<u32>,
    /// Datagrams or echoes that left this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datagrams_sent: Option<u32>,
    /// Bytes of the datagram or echo that came back; its first ones are `head`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_bytes: Option<usize>,
    /// ICMP errors from the error queue, at most [`Evidence::MAX_ICMP`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icmp: Vec<Icmp>,
    /// Something between answers for everybody: the decoy connected too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub intercepted: bool,
    /// What the outcome was before the decoy showed the interception.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_decoy: Option<Outcome>,
    /// The negotiated TLS version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<String>,
    /// The negotiated application protocol (ALPN).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// The alert that the other side sent, by its name in RFC 8446 section 6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_alert: Option<String>,
    /// Why the chain or name was not trusted, or why the handshake failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_error: Option<String>,
    /// The server asked for a client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_requested: Option<bool>,
    /// What we answered with, where it asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
    /// What a refusal was about, of a check that keeps a door shut against certificates or versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_for: Option<RefusedFor>,
    /// SHA-256 of the leaf certificate, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
    /// When the leaf certificate expires, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<i64>,
    /// The request line that was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Every byte of the head that a variant sent, the PROXY header before it too, with control characters made visible, at
    /// most [`Evidence::MAX_REQUEST`]. Headers of the check itself are left out of it: they may be secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_head: Option<String>,
    /// Of a variant: whether the page that must not be seen was in its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<Marker>,
    /// The status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The first bytes of the answer's head, at most [`Evidence::MAX_HEAD`]; of a datagram in hexadecimal where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// The technique of the open-proxy suite (`OP-01` and so on).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub technique: Option<&'static str>,
    /// The number that this attempt alone sent: the nonce for the beacon, or one in `User-Agent`, by which logs know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The address that the beacon saw, by its signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon_saw: Option<SocketAddr>,
    /// The address from which the beacon sees us come, directly, by its signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon_saw_us: Option<SocketAddr>,
    /// What the beacon's log said of the nonce: `unknown`, `known`, or why it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon_log: Option<String>,
    /// The technique that was denied at the same address: with it, and a log that does not know the nonce, a `mute` answer
    /// is a proxy waiting for more, not one that relays (SPEC section 8). Or the variant that was refused for want of a
    /// certificate by a server that does not speak the version of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excused_by: Option<String>,
    /// It ended below TCP where other techniques at the same address got past it: a limit or a ban fell meanwhile.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shut_out: bool,
    /// How long the proxy took to grant the tunnel, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via_grant_ms: Option<f64>,
    /// What the peer said of its check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerEvidence>,
    /// What a Prometheus server said of a series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<QueryEvidence>,
    /// How a published list differs from the expected one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranges: Option<RangesEvidence>,
    /// What the name server was asked and said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsEvidence>,
    /// What authenticated the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authenticated: Option<Authentication>,
    /// What a sweep saw of many ports at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
    /// What a sweep saw of this port, before this look at it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swept_as: Option<Outcome>,
    /// One sentence fragment of detail for a reader, at most [`Evidence::MAX_HEAD`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a sweep saw of many ports of one address at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sweep {
    /// How it asked: `syn`, by SYNs of our own, or `connect`.
    pub method: &'static str,
    /// The ports of this part of the sweep.
    pub ports: String,
    /// How many those are.
    pub planned: usize,
    /// How many of them were asked in every attempt.
    pub attempted: usize,
    /// How many of them gave an answer to any attempt, be it an ICMP error.
    pub answered: usize,
    /// How many of them this observation is about, each by the first answer to any attempt.
    pub outcomes: BTreeMap<Outcome, usize>,
}

/// Whether a body has the text by which the page that must not be seen is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Marker {
    /// It has, and pages that everybody may see have not.
    Found,
    /// It has, but so has a page that everybody may see: it tells nothing.
    Everywhere,
    /// It was read to its end, or came with a denial, and has not.
    Absent,
    /// It broke off, or went on past the bound, and has not as far as it was read.
    Cut,
    /// There was no body to look into: it ended before.
    Unseen,
    /// Whoever has the page was not asked, or has not said anything: the request was never sent, never looked at, or answered by
    /// something in front.
    Unheard,
    /// The plain request was answered otherwise in the same run: the target may have shut us out for asking.
    Shunned,
}

/// What a peer's API said of one of its checks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerEvidence {
    /// The check's name there.
    pub check: String,
    /// The vantage there.
    pub vantage: String,
    /// The verdict there, as judged when it was read.
    pub verdict: String,
    /// How old its newest record was, by the peer's own clock, in seconds.
    pub age_seconds: f64,
    /// Since when, by our own clock, that check has done nothing but hold.
    #[serde(skip)]
    pub holding_since: Option<Moment>,
    /// What the peer reached.
    pub reached: Vec<Reached>,
}

/// What a Prometheus server said of a series.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct QueryEvidence {
    /// How many series were alive.
    pub series: usize,
    /// How old the newest sample was, by the server's own clock, in seconds; of several series the oldest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// It was other than zero when it was last seen, but that is too long ago.
    pub stale: bool,
    /// Since when, by our own clock, no sample was zero.
    #[serde(skip)]
    pub holding_since: Option<Moment>,
    /// What other monitors reached, by the verdicts among the series.
    pub reached: Vec<Reached>,
}

/// How a list went away from the one that is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Drift {
    /// It has addresses that are not expected.
    Widened,
    /// It has no more what is expected.
    Narrowed,
    /// Both.
    Changed,
}

/// How a published list of networks differs from the expected one; networks are the fewest that cover the addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RangesEvidence {
    /// How many networks the published list comes to.
    pub published: usize,
    /// How many the expected one comes to.
    pub expected: usize,
    /// How they differ; none where they are the same addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// A whole family is published: everybody.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub everybody: bool,
    /// What is published and not expected, at most [`RangesEvidence::MAX_NETWORKS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// How many more there were.
    #[serde(skip_serializing_if = "is_none_more")]
    pub more_added: usize,
    /// What is expected and not published, at most as many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// How many more there were.
    #[serde(skip_serializing_if = "is_none_more")]
    pub more_removed: usize,
}

impl RangesEvidence {
    /// Networks of either side that are kept.
    pub const MAX_NETWORKS: usize = 32;

    /// The one set held against the other.
    pub fn of(published: &Networks, expected: &Networks) -> RangesEvidence {
        let kept = |networks: &Networks| {
            let mut all = networks.cidrs();
            let kept: Vec<String> = all.by_ref().take(RangesEvidence::MAX_NETWORKS).map(|net| net.to_string()).collect();
            (kept, all.count())
        };
        let (added, more_added) = kept(&published.without(expected));
        let (removed, more_removed) = kept(&expected.without(published));
        let drift = match (added.is_empty(), removed.is_empty()) {
            (true, true) => None,
            (false, true) => Some(Drift::Widened),
            (true, false) => Some(Drift::Narrowed),
            (false, false) => Some(Drift::Changed),
        };
        let (published, expected) = (published.cidrs().count(), expected.cidrs().count());
        RangesEvidence { published, expected, drift, everybody: false, added, more_added, removed, more_removed }
    }
}

/// What a name server was asked and said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DnsEvidence {
    /// How often the question left this host, over UDP and TCP.
    pub queries_sent: u32,
    /// Messages that came and were no answer to this question: another id, another question.
    #[serde(skip_serializing_if = "is_zero")]
    pub answers_ignored: u32,
    /// The response code of the answer, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rcode: Option<String>,
    /// The server speaks for the zone (AA).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub authoritative: bool,
    /// The server asks others (RA).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recursion_available: bool,
    /// By what the answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<Transport>,
    /// The records of the answer, each its type and what it says; at most [`DnsEvidence::MAX_RECORDS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<String>,
    /// How many more there were.
    #[serde(skip_serializing_if = "is_none_more")]
    pub more_records: usize,
}

impl DnsEvidence {
    /// Records of an answer that are kept.
    pub const MAX_RECORDS: usize = 16;
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_none_more(count: &usize) -> bool {
    *count == 0
}

/// One thing that a peer reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reached {
    /// The address, or `host:port` where it was reached by name through a proxy.
    pub address: String,
    /// By what.
    pub transport: Transport,
    /// What was asked there, where not every answer is the same ([`Subject::asked`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
}

impl Evidence {
    /// Since when what somebody else said has held, where this is hearsay at all: a peer's word, or a Prometheus server's.
    pub fn hearsay_since(&self) -> Option<Option<Moment>> {
        let peer = self.peer.as_ref().map(|p| p.holding_since);
        peer.or_else(|| self.query.as_ref().map(|q| q.holding_since))
    }

    /// What somebody else says to have reached, where this is hearsay.
    pub fn hearsay_reached(&self) -> Option<&[Reached]> {
        let peer = self.peer.as_ref().map(|p| p.reached.as_slice());
        peer.or_else(|| self.query.as_ref().map(|q| q.reached.as_slice()))
    }

    /// The variant of OP-07 that is a ClientHello to the proxy itself.
    pub const SERVER_NAME: &str = "server name";
    /// Bytes of an answer's head that are kept.
    pub const MAX_HEAD: usize = 512;
    /// Bytes of a variant's request that are kept.
    pub const MAX_REQUEST: usize = 2048;
    /// ICMP errors of one attempt that are kept.
    pub const MAX_ICMP: usize = 4;
}

/// One attempt: one fresh connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// What happened.
    pub outcome: Outcome,
    /// How deep it got.
    pub stage: Stage,
    /// What shows it.
    pub evidence: Evidence,
    /// Before its first packet.
    pub started: Moment,
    /// After its last event.
    pub ended: Moment,
}

/// What an observation is about: which address, from which source, by which way.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// The address as reports show it: `203.0.113.7:443`, or the name where a proxy resolves it.
    pub address: String,
    /// `host:port` of the target (port 0 where every port of it is meant), where the check names a host that has this one address of its family.
    pub named: Option<String>,
    /// The family of the connection that leaves this host; none where nothing was dialled.
    pub family: Option<Family>,
    /// The first hop: the target itself, or the proxy.
    pub dialled: Option<SocketAddr>,
    /// The very address that the check is about, where it is known: the dialled one, or the one tunnelled to. Port 0 stands
    /// for every port of it.
    pub reached: Option<SocketAddr>,
    /// What carries the first packet.
    pub transport: Transport,
    /// What is asked there, where an answer to one question says nothing of another: the payload of a datagram, the name
    /// and type of a DNS question.
    pub asked: Option<String>,
    /// The `source` that the check binds.
    pub source: Option<IpAddr>,
    /// Through a proxy.
    pub via: bool,
    /// The technique of a suite.
    pub technique: Option<&'static str>,
    /// The variant of a look that is made in several ways: the TLS version and the client certificate, the form of a technique.
    pub variant: Option<String>,
}

/// One attempt as it left this host: what a log on the way has to know it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// What carried it.
    pub protocol: Transport,
    /// Our own address and port.
    pub local: SocketAddr,
    /// Where it went: the first hop, or where the last redirect led.
    pub remote: SocketAddr,
    /// Before its first packet, by the wall clock.
    pub started_at: Wall,
    /// After its last event.
    pub ended_at: Wall,
    /// How it ended.
    pub outcome: Outcome,
    /// The number that it alone sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

impl Flow {
    /// That of an attempt at the subject; none where it had no address or port of its own. `started`, by both clocks, is any moment before.
    fn of(attempt: &Attempt, subject: &Subject, started: (Moment, Wall)) -> Option<Flow> {
        let wall = |at: Moment| {
            let after = i64::try_from(at.since(started.0).as_millis()).ok()?;
            Wall::from_unix_millis(started.1.unix_millis().checked_add(after)?)
        };
        Some(Flow {
            protocol: subject.transport,
            local: attempt.evidence.local_address.filter(|local| local.port() != 0)?,
            remote: attempt.evidence.redirected_to.or(subject.dialled).filter(|remote| remote.port() != 0)?,
            started_at: wall(attempt.started)?,
            ended_at: wall(attempt.ended)?,
            outcome: attempt.outcome,
            nonce: attempt.evidence.nonce.clone(),
        })
    }
}

/// The outcome of all attempts at one subject, with the evidence of the attempt that decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// What it is about.
    pub subject: Subject,
    /// What happened; with several attempts, the one that weighs most (see [`Observation::of`]).
    pub outcome: Outcome,
    /// How deep it got.
    pub stage: Stage,
    /// The evidence of the deciding attempt.
    pub evidence: Evidence,
    /// The outcome of every attempt, in order.
    pub attempts: Vec<Outcome>,
    /// The attempts as they left this host, in order; those that did not are not among them.
    pub flows: Vec<Flow>,
    /// The fewest SYNs, datagrams or echoes that any silent attempt sent, where one was silent.
    pub fewest_sent: Option<u32>,
    /// How long the deciding attempt took.
    pub elapsed: Duration,
    /// Before the first packet of the first attempt.
    pub started: Moment,
    /// After the last event of the last attempt.
    pub ended: Moment,
    /// Wall time of `started`, for records only.
    pub started_at: Wall,
}

impl Observation {
    /// Folds the attempts at one subject. The deciding attempt is `settled` where one ended the matter,
    /// else one whose answer was not read whole, tells nothing or is of another time, else one that shows a drift, else the first open one, else the first local one, else the
    /// first that was refused for nothing that the check is
    /// about, else the last.
    /// No attempt at all is a bug of ours, and says so.
    pub fn of(subject: Subject, attempts: Vec<Attempt>, settled: Option<usize>, started_at: Wall) -> Observation {
        let first = |class| attempts.iter().position(|a| a.outcome.class() == class);
        let stale = |a: &Attempt| a.evidence.query.as_ref().is_some_and(|q| q.stale);
        let unread = |a: &Attempt| matches!(a.evidence.marker, Some(Marker::Cut | Marker::Everywhere | Marker::Unheard));
        let untold = attempts.iter().position(|a| unread(a) || stale(a));
        // What was read once is not unread where it could not be read again.
        let drifted = attempts.iter().position(|a| a.evidence.ranges.as_ref().is_some_and(|r| r.drift.is_some()));
        let refused_for = |what| attempts.iter().position(|a| a.evidence.refused_for == Some(what));
        let at = settled
            .or(untold)
            .or(drifted)
            .or_else(|| first(Class::Open))
            .or_else(|| first(Class::Local))
            .or_else(|| refused_for(RefusedFor::Other))
            .or_else(|| refused_for(RefusedFor::Version))
            .unwrap_or(attempts.len().saturating_sub(1));
        let sent = |a: &Attempt| match subject.transport {
            Transport::Tcp => a.evidence.syns_sent.unwrap_or(0),
            Transport::Udp | Transport::Icmp => a.evidence.datagrams_sent.unwrap_or(0),
        };
        let fewest_sent = attempts.iter().filter(|a| a.outcome == Outcome::Timeout).map(sent).min();
        let outcomes = attempts.iter().map(|a| a.outcome).collect();
        let started = attempts.iter().map(|a| a.started).min().unwrap_or(Moment::ZERO);
        let flows = attempts.iter().filter_map(|a| Flow::of(a, &subject, (started, started_at))).collect();
        let ended = attempts.iter().map(|a| a.ended).max().unwrap_or(Moment::ZERO);
        match attempts.into_iter().nth(at) {
            Some(a) => Observation {
                elapsed: a.ended.since(a.started),
                subject,
                outcome: a.outcome,
                stage: a.stage,
                evidence: a.evidence,
                attempts: outcomes,
                flows,
                fewest_sent,
                started,
                ended,
                started_at,
            },
            None => Observation::without_attempt(subject, Outcome::Internal, Stage::Dns, "no attempt was made".into(), started, started_at),
        }
    }

    /// An observation that ended before anything could be dialled.
    pub fn without_attempt(subject: Subject, outcome: Outcome, stage: Stage, detail: String, at: Moment, started_at: Wall) -> Observation {
        let evidence = Evidence { detail: Some(detail), ..Evidence::default() };
        Observation {
            subject,
            outcome,
            stage,
            evidence,
            attempts: vec![outcome],
            flows: Vec::new(),
            fewest_sent: None,
            elapsed: Duration::ZERO,
            started: at,
            ended: at,
            started_at,
        }
    }

    /// The same answer of a resolver, asked for again and again, as one observation.
    pub fn of_answers(answers: Vec<Observation>) -> Option<Observation> {
        let attempts = answers.iter().flat_map(|o| o.attempts.iter().copied()).collect();
        let ended = answers.iter().map(|o| o.ended).max();
        let first = answers.into_iter().min_by_key(|o| o.started)?;
        Some(Observation { attempts, ended: ended.unwrap_or(first.ended), ..first })
    }

    /// Our own address, as the kernel chose it.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.evidence.local_address.map(|a| a.ip())
    }

    /// The connection never left this host: loopback, or one of its own addresses.
    pub fn stayed_on_this_host(&self) -> bool {
        self.subject.dialled.is_some_and(|d| d.ip().is_loopback() || self.local_ip() == Some(d.ip()))
    }

    /// The handshake of some attempt was completed by somebody, so that an interceptor could be who answered.
    pub fn got_past_tcp(&self) -> bool {
        self.attempts.iter().chain([&self.outcome]).any(|o| o.is_past_tcp())
    }

    /// Some datagram or echo was answered, so that an interceptor could be who did; of DNS, a name that is denied is an answer, too.
    pub fn was_replied_to(&self) -> bool {
        let answers = [
            Outcome::Replied,
            Outcome::Resolved,
            Outcome::Mismatch,
            Outcome::NxDomain,
            Outcome::NoData,
            Outcome::DnsRefused,
            Outcome::ServFail,
        ];
        self.attempts.iter().chain([&self.outcome]).any(|o| answers.contains(o))
    }
}

/// The techniques that send the beginning of a conversation: an HTTP proxy waits in silence for what it takes for the rest of a head.
/// All others send a whole request, and whoever is silent about that may still be thinking it over.
const GREETINGS: &[&str] = &["OP-18", "OP-19", "OP-20", "OP-21"];
/// This one greets with a ClientHello; what it asks for inside TLS is whole again.
const INSIDE_TLS: &str = "OP-17";
/// A ClientHello to the proxy itself, for the allowed destination: without a nonce, too. A relay that dials that destination is as silent as
/// an HTTP proxy that waits, so only an answer in HTTP shows that it is the latter.
const SERVER_NAME: (&str, &str) = ("OP-07", Evidence::SERVER_NAME);
/// The one of them that carries no nonce, so that no log can know it.
const WITHOUT_NONCE: &str = "OP-21";

/// Somebody else's words, as far as a record or a sentence can bear them: at most so many characters, in one line.
pub fn one_line(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

/// Excuses the `mute` observations of a suite's greetings: the beacon's log does not know their nonce, and another technique
/// was answered `denied` at the same address (SPEC section 8), or relayed nothing with an HTTP status in every attempt.
pub fn excuse_mute(seen: &mut [Observation]) {
    // Who answered every attempt in HTTP, whatever it said, reads HTTP, and so waits for the end of a head.
    let in_http = |o: &Observation| {
        let closed = [Outcome::Denied, Outcome::NotRelayed, Outcome::NotUnderstood];
        o.evidence.status.is_some() && o.attempts.iter().all(|a| closed.contains(a))
    };
    let denied: Vec<_> = seen
        .iter()
        .filter(|o| in_http(o) || o.attempts.iter().all(|a| *a == Outcome::Denied))
        .map(|o| (o.subject.dialled, o.subject.technique, in_http(o)))
        .collect();
    let named = |o: &Observation| o.subject.technique.zip(o.subject.variant.as_deref()) == Some(SERVER_NAME);
    let hello = |o: &Observation| (named(o) || o.subject.technique == Some(INSIDE_TLS)) && o.evidence.tls_version.is_none();
    let greeted = |o: &Observation| hello(o) || o.subject.technique.is_some_and(|t| GREETINGS.contains(&t));
    let unknown =
        |o: &Observation| o.evidence.beacon_log.as_deref() == Some("unknown") || o.subject.technique == Some(WITHOUT_NONCE) || named(o);
    for mute in seen.iter_mut().filter(|o| o.outcome == Outcome::Mute && greeted(o) && unknown(o)) {
        let other = |(address, technique, in_http): &&(Option<SocketAddr>, Option<&'static str>, bool)| {
            *address == mute.subject.dialled && *technique != mute.subject.technique && (*in_http || !named(mute))
        };
        mute.evidence.excused_by = denied.iter().find(other).and_then(|(_, technique, _)| technique.map(str::to_string));
    }
}

/// Excuses a TLS version that is not spoken at all, where the other version was refused for want of the right certificate:
/// by the same stranger at the same address. The variants are named `VERSION/CERTIFICATE`.
pub fn excuse_versions(seen: &mut [Observation]) {
    let of = |o: &Observation| {
        let (version, certificate) = o.subject.variant.as_deref()?.split_once('/')?;
        Some((o.subject.address.clone(), o.subject.dialled, certificate.to_string(), version.to_string()))
    };
    let refused = |o: &&Observation| o.evidence.refused_for == Some(RefusedFor::Certificate);
    let shut: Vec<_> = seen.iter().filter(refused).filter_map(of).collect();
    for unspoken in seen.iter_mut().filter(|o| o.evidence.refused_for == Some(RefusedFor::Version)) {
        let Some((address, dialled, certificate, version)) = of(unspoken) else { continue };
        let other =
            |s: &&(String, Option<SocketAddr>, String, String)| (&s.0, s.1, &s.2) == (&address, dialled, &certificate) && s.3 != version;
        unspoken.evidence.excused_by = shut.iter().find(other).map(|s| format!("{}/{}", s.3, s.2));
    }
}

/// Marks what a suite saw end below TCP at an address where something else of it got past: one port lets in or keeps out, so
/// what changed meanwhile is that somebody had enough of us (a limit of rates, a ban), and these show no block.
pub fn note_shut_out(seen: &mut [Observation]) {
    let suite = |o: &&mut Observation| o.subject.technique.is_some() && o.subject.dialled.is_some();
    let let_in: BTreeSet<SocketAddr> =
        seen.iter().filter(|o| o.subject.technique.is_some() && o.got_past_tcp()).filter_map(|o| o.subject.dialled).collect();
    let below = |o: &Outcome| matches!(o, Outcome::Refused | Outcome::Prohibited | Outcome::Unreachable | Outcome::Timeout);
    for one in seen.iter_mut().filter(suite) {
        let here = one.subject.dialled.is_some_and(|address| let_in.contains(&address));
        one.evidence.shut_out = here && one.attempts.iter().any(below);
    }
}

/// Doubts the denials of variants where the plain request, asked again behind them, is no longer answered as before, or where
/// an address that answered it was silent: whoever is asked odd questions may shut out whoever asks, and then all that
/// follow are met alike.
pub fn doubt_denials(seen: &mut [Observation]) {
    let plain: Vec<_> =
        seen.iter().filter(|o| o.evidence.marker.is_none()).map(|o| (o.subject.clone(), o.outcome, o.got_past_tcp())).collect();
    for variant in seen.iter_mut().filter(|o| o.evidence.marker.is_some_and(|m| m != Marker::Found)) {
        let of_it = || plain.iter().filter(|(subject, ..)| subject.reached == variant.subject.reached);
        let turned = of_it().any(|(_, outcome, _)| of_it().any(|(_, other, _)| other != outcome));
        let silent = variant.attempts.iter().any(|o| o.class() == Class::Closed && !o.is_past_tcp());
        let answered = of_it().any(|(subject, _, answered)| *answered && subject.dialled == variant.subject.dialled);
        if turned || (silent && answered) {
            variant.evidence.marker = Some(Marker::Shunned);
            variant.evidence.detail =
                Some("the plain request was answered otherwise in the same run; does it shut out whoever asks too much?".into());
        }
    }
}

impl Subject {
    /// The variant that is none: the plain request, once more behind all others.
    pub const AGAIN: &str = "again";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_reads_back_as_itself() {
        for outcome in Outcome::all().chain([Outcome::Status(200), Outcome::Status(399), Outcome::Status(400), Outcome::Status(599)]) {
            assert_eq!(outcome.to_string().parse(), Ok(outcome));
        }
        for bad in ["status:199", "status:600", "status:", "open", "blocked", ""] {
            assert_eq!(bad.parse::<Outcome>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn status_class_turns_at_400() {
        assert_eq!(Outcome::Status(399).class(), Class::Open);
        assert_eq!(Outcome::Status(400).class(), Class::Closed);
    }
}

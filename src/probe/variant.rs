//! Variants: the known ways to get round an IP restriction over HTTP (docs/variants.md). What each sends, and nothing of what
//! it means. Safe methods only; every one goes to an address of the target.

use std::net::{IpAddr, SocketAddr};

use super::{Aim, Approach};
use crate::observation::Subject;
use crate::target::{Scheme, Url};

mod attempt;
mod by_hand;
mod spelling;
#[cfg(test)]
mod tests;

use spelling::Path;

/// How many are under way at once: a production site is asked, not flooded.
pub const AT_ONCE: usize = 4;
/// The most requests that one run sends to one target, each attempt counted; what does not fit is not covered.
pub const BUDGET: usize = 1000;

/// The plain requests beside them: one before, one behind.
pub const EXTRA: usize = 2;

/// Somebody who is nobody: documentation addresses (RFC 5737, RFC 3849), for lists of forwarders.
const STRANGER: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// A name that every server knows, and that is not the target's.
const OTHER_HOST: &str = "localhost";

/// One way to ask for the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    name: &'static str,
    forged: Option<IpAddr>,
    door: Door,
    sni: Sni,
    proxy: Option<ProxyHeader>,
    wire: Wire,
    method: &'static str,
    /// The request target, exactly as sent.
    target: String,
    hosts: Vec<HostLine>,
    headers: Vec<(&'static str, String)>,
}

/// Which variants a check tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// All that apply.
    Standard,
    /// One by its name, or all of one number of the catalogue.
    Named(String),
}

/// Where it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// As the target says.
    Own,
    /// Plain HTTP on port 80.
    Plain,
    /// HTTPS on port 443.
    Tls,
}

/// The name in the TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sni {
    Own,
    None,
    Other(String),
}

/// A PROXY protocol header before all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProxyHeader {
    V1(IpAddr),
    V1Unknown,
    V2(IpAddr),
    V2Local,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Http11,
    Http10,
    /// HTTP/2, agreed by ALPN.
    Http2,
    /// HTTP/2 by prior knowledge (RFC 9113 section 3.3).
    PriorKnowledge,
    /// An upgrade to HTTP/2 at `/`, then the page inside (RFC 7540 section 3.2).
    Upgrade,
    /// A WebSocket's opening handshake (RFC 6455 section 4.1).
    WebSocket,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostLine {
    Text(String),
    /// The address that is dialled.
    Dialled,
}

impl Wire {
    fn version(self) -> &'static str {
        match self {
            Wire::Http10 => "HTTP/1.0",
            Wire::Http2 | Wire::PriorKnowledge => "HTTP/2",
            Wire::Http11 | Wire::Upgrade | Wire::WebSocket => "HTTP/1.1",
        }
    }

    fn is_http2(self) -> bool {
        matches!(self, Wire::Http2 | Wire::PriorKnowledge)
    }
}

/// What the variants of one check are made from.
struct Ground<'a> {
    url: &'a Url,
    method: &'static str,
    host: String,
    path: Path<'a>,
}

/// How a row of the catalogue becomes variants.
enum Make {
    /// One, where it applies.
    Once(fn(&Ground<'_>) -> Option<Variant>),
    /// One for each address that is forged.
    Each(fn(&Ground<'_>, IpAddr) -> Option<Variant>),
}

use Make::{Each, Once};

/// The catalogue, the most telling first.
const CATALOGUE: &[(&str, Make)] = &[
    ("AD-05 x-forwarded-for", Each(|g, a| g.header("X-Forwarded-For", a.to_string()))),
    ("AD-06 proxy-v1", Each(|g, a| Some(Variant { proxy: Some(ProxyHeader::V1(a)), ..g.plain() }))),
    ("AD-06 proxy-v2", Each(|g, a| Some(Variant { proxy: Some(ProxyHeader::V2(a)), ..g.plain() }))),
    ("AD-02 plain-http", Once(|g| g.through(Door::Plain))),
    ("AD-02 https", Once(|g| g.through(Door::Tls))),
    ("AD-07 double-slash", Once(|g| g.spelled(g.path.double_slash()))),
    ("AD-07 upper-case", Once(|g| g.spelled(g.path.upper_case()))),
    ("AD-09 http-2", Once(|g| g.over(Scheme::Https, Wire::Http2))),
    ("AD-09 prior-knowledge", Once(|g| g.over(Scheme::Http, Wire::PriorKnowledge))),
    ("AD-09 http-1.1", Once(|g| g.over(Scheme::Https, Wire::Http11))),
    ("AD-09 http-1.0", Once(|g| Some(Variant { wire: Wire::Http10, ..g.plain() }))),
    ("AD-09 no-host", Once(|g| Some(Variant { wire: Wire::Http10, hosts: Vec::new(), ..g.plain() }))),
    ("AD-09 h2c-upgrade", Once(|g| Some(Variant { wire: Wire::Upgrade, ..g.plain() }))),
    ("AD-05 list-alike", Each(|g, a| g.header("X-Forwarded-For", format!("{a}, {a}")))),
    ("AD-05 list-first", Each(|g, a| g.header("X-Forwarded-For", format!("{a}, {}", stranger(a))))),
    ("AD-05 list-last", Each(|g, a| g.header("X-Forwarded-For", format!("{}, {a}", stranger(a))))),
    ("AD-05 lines-first", Each(|g, a| g.lines("X-Forwarded-For", [a.to_string(), stranger(a).into()]))),
    ("AD-05 lines-last", Each(|g, a| g.lines("X-Forwarded-For", [stranger(a).into(), a.to_string()]))),
    ("AD-05 mapped", Each(|g, a| g.header("X-Forwarded-For", mapped(a)?))),
    ("AD-05 with-port", Each(|g, a| g.header("X-Forwarded-For", SocketAddr::new(a, 1234).to_string()))),
    ("AD-05 forwarded", Each(|g, a| g.header("Forwarded", forwarded(a)))),
    ("AD-05 x-real-ip", Each(|g, a| g.header("X-Real-IP", a.to_string()))),
    ("AD-05 true-client-ip", Each(|g, a| g.header("True-Client-IP", a.to_string()))),
    ("AD-05 cf-connecting-ip", Each(|g, a| g.header("CF-Connecting-IP", a.to_string()))),
    ("AD-05 x-client-ip", Each(|g, a| g.header("X-Client-IP", a.to_string()))),
    ("AD-05 client-ip", Each(|g, a| g.header("Client-IP", a.to_string()))),
    ("AD-05 x-cluster-client-ip", Each(|g, a| g.header("X-Cluster-Client-IP", a.to_string()))),
    ("AD-05 fastly-client-ip", Each(|g, a| g.header("Fastly-Client-IP", a.to_string()))),
    ("AD-05 x-original-forwarded-for", Each(|g, a| g.header("X-Original-Forwarded-For", a.to_string()))),
    ("AD-05 x-originating-ip", Each(|g, a| g.header("X-Originating-IP", a.to_string()))),
    ("AD-05 x-remote-ip", Each(|g, a| g.header("X-Remote-IP", a.to_string()))),
    ("AD-05 x-remote-addr", Each(|g, a| g.header("X-Remote-Addr", a.to_string()))),
    ("AD-05 x-envoy-external-address", Each(|g, a| g.header("X-Envoy-External-Address", a.to_string()))),
    ("AD-05 loopback", Once(|g| Some(Variant { headers: everywhere("127.0.0.1"), ..g.plain() }))),
    ("AD-05 invalid", Once(|g| Some(Variant { headers: everywhere("invalid"), ..g.plain() }))),
    ("AD-05 empty", Once(|g| g.header("X-Forwarded-For", String::new()))),
    ("AD-06 proxy-v1-unknown", Once(|g| Some(Variant { proxy: Some(ProxyHeader::V1Unknown), ..g.plain() }))),
    ("AD-06 proxy-v2-local", Once(|g| Some(Variant { proxy: Some(ProxyHeader::V2Local), ..g.plain() }))),
    ("AD-07 dot-segment", Once(|g| g.spelled(g.path.after("/.")))),
    ("AD-07 encoded-dot", Once(|g| g.spelled(g.path.after("/%2e")))),
    ("AD-07 up-segment", Once(|g| g.spelled(g.path.after("/x/..")))),
    ("AD-07 up-semicolon", Once(|g| g.spelled(g.path.after("/x/..;")))),
    ("AD-07 encoded-up", Once(|g| g.spelled(g.path.encoded_up()))),
    ("AD-07 encoded-letter", Once(|g| g.spelled(g.path.encoded_letter()))),
    ("AD-07 encoded-slash", Once(|g| g.spelled(g.path.before("%2f")))),
    ("AD-07 semicolon", Once(|g| g.spelled(g.path.before(";x")))),
    ("AD-07 null", Once(|g| g.spelled(g.path.before("%00")))),
    ("AD-07 dot-end", Once(|g| g.spelled(g.path.before("/.")))),
    ("AD-07 slash-end", Once(|g| g.spelled(g.path.slash_end()))),
    ("AD-07 backslash", Once(|g| g.spelled(g.path.backslash()))),
    ("AD-07 x-original-url", Once(|g| g.rewritten("X-Original-URL"))),
    ("AD-07 x-rewrite-url", Once(|g| g.rewritten("X-Rewrite-URL"))),
    ("AD-04 no-sni", Once(|g| g.naming(Sni::None))),
    ("AD-04 sni-parent", Once(|g| g.naming(Sni::Other(g.parent()?)))),
    ("AD-04 sni-www", Once(|g| g.naming(Sni::Other(format!("www.{}", g.parent()?))))),
    ("AD-04 host-dot", Once(|g| g.hosts([g.named(|name| format!("{name}."))?]))),
    ("AD-04 host-upper-case", Once(|g| g.hosts([g.named(|name| name.to_ascii_uppercase())?]))),
    ("AD-04 host-port", Once(|g| g.hosts([HostLine::Text(format!("{}:{}", g.url.authority.host, g.url.authority.port))]))),
    ("AD-04 host-wrong-port", Once(|g| g.hosts([HostLine::Text(format!("{}:1", g.url.authority.host))]))),
    ("AD-04 host-address", Once(|g| g.hosts([HostLine::Dialled]))),
    ("AD-04 host-localhost", Once(|g| g.hosts([HostLine::Text(OTHER_HOST.into())]))),
    ("AD-04 host-twice-first", Once(|g| g.hosts([g.own_host(), HostLine::Text(OTHER_HOST.into())]))),
    ("AD-04 host-twice-last", Once(|g| g.hosts([HostLine::Text(OTHER_HOST.into()), g.own_host()]))),
    ("AD-04 absolute-form", Once(|g| Some(Variant { target: g.url.to_string(), ..g.hosts([HostLine::Text(OTHER_HOST.into())])? }))),
    ("AD-04 absolute-form-other", Once(|g| g.spelled(Some(format!("{}://{OTHER_HOST}{}", g.url.scheme, g.url.path))))),
    ("AD-04 x-forwarded-host", Once(|g| g.forwarded_host())),
    ("AD-08 options", Once(|g| Some(Variant { method: "OPTIONS", ..g.plain() }))),
    ("AD-08 lower-case", Once(|g| Some(Variant { method: "get", ..g.plain() }))),
    ("AD-08 method-override", Once(|g| g.overridden())),
    ("AD-11 websocket", Once(|g| Some(Variant { wire: Wire::WebSocket, ..g.plain() }))),
];

impl Variant {
    /// Every name, in the order of the catalogue.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CATALOGUE.iter().map(|(name, _)| *name)
    }

    /// Every number of the catalogue that has variants.
    pub fn numbers() -> impl Iterator<Item = &'static str> {
        let mut numbers: Vec<&'static str> = Variant::names().filter_map(|name| name.split(' ').next()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter()
    }

    /// The variants of a request for `url` that are picked and that apply, those with an address once for each of `spoof`.
    pub fn of(url: &Url, spoof: &[IpAddr], picked: impl Fn(&str) -> bool) -> Vec<Variant> {
        let ground = Ground { url, method: "GET", host: url.host_header(), path: Path::of(&url.path) };
        let mut all = Vec::new();
        for (name, make) in CATALOGUE.iter().filter(|(name, _)| picked(name)) {
            match make {
                Once(make) => all.extend(make(&ground).map(|v| Variant { name, ..v })),
                Each(make) => {
                    all.extend(spoof.iter().filter_map(|a| make(&ground, *a).map(|v| Variant { name, forged: Some(*a), ..v })));
                }
            }
        }
        all
    }

    /// Whether variants of that name carry an address.
    pub fn forges(name: &str) -> bool {
        CATALOGUE.iter().any(|(known, make)| *known == name && matches!(make, Each(_)))
    }

    /// Its name, and the address that it carries.
    pub fn label(&self) -> String {
        self.forged.map_or(self.name.to_string(), |address| format!("{} {address}", self.name))
    }

    /// How many connections one attempt makes at most: one, and where it finds the page one for each of two public pages.
    pub fn most_connections(&self) -> usize {
        let http2 = self.wire.is_http2() || self.wire == Wire::Upgrade;
        2 + if http2 { attempt::TRIES } else { 1 }
    }

    /// Whether it asks for the page of `url` by another name, by several or by none.
    fn names_another_host(&self, url: &Url) -> bool {
        let own = [url.host_header(), url.authority.host.to_string()];
        let by_own = matches!(self.hosts.as_slice(), [HostLine::Text(host)] if own.contains(host));
        !by_own || self.target.contains("://")
    }

    /// Where it connects, for a target at `to`.
    fn dials(&self, to: SocketAddr) -> SocketAddr {
        match self.door {
            Door::Own => to,
            Door::Plain => SocketAddr::new(to.ip(), Scheme::Http.default_port()),
            Door::Tls => SocketAddr::new(to.ip(), Scheme::Https.default_port()),
        }
    }

    /// Over what.
    fn scheme(&self, url: &Url) -> Scheme {
        match self.door {
            Door::Own => url.scheme,
            Door::Plain => Scheme::Http,
            Door::Tls => Scheme::Https,
        }
    }

    /// Whether it goes to whom the check goes, by the same handshake, so that the check's own headers may go along.
    fn is_private(&self) -> bool {
        self.door == Door::Own && self.sni == Sni::Own
    }
}

impl Ground<'_> {
    /// The request as it is denied.
    fn plain(&self) -> Variant {
        Variant {
            name: "",
            forged: None,
            door: Door::Own,
            sni: Sni::Own,
            proxy: None,
            wire: Wire::Http11,
            method: self.method,
            target: self.url.path.clone(),
            hosts: vec![self.own_host()],
            headers: Vec::new(),
        }
    }

    fn own_host(&self) -> HostLine {
        HostLine::Text(self.host.clone())
    }

    fn header(&self, name: &'static str, value: String) -> Option<Variant> {
        Some(Variant { headers: vec![(name, value)], ..self.plain() })
    }

    fn lines(&self, name: &'static str, values: [String; 2]) -> Option<Variant> {
        Some(Variant { headers: values.into_iter().map(|value| (name, value)).collect(), ..self.plain() })
    }

    fn through(&self, door: Door) -> Option<Variant> {
        let (other, port) = match door {
            Door::Own => return None,
            Door::Plain => (Scheme::Http, Scheme::Http.default_port()),
            Door::Tls => (Scheme::Https, Scheme::Https.default_port()),
        };
        let elsewhere = self.url.scheme != other && self.url.authority.port != port;
        let hosts = vec![HostLine::Text(self.url.authority.host.to_string())];
        elsewhere.then(|| Variant { door, hosts, ..self.plain() })
    }

    fn spelled(&self, target: Option<String>) -> Option<Variant> {
        let target = target.filter(|t| *t != self.url.path)?;
        Some(Variant { target, ..self.plain() })
    }

    fn over(&self, scheme: Scheme, wire: Wire) -> Option<Variant> {
        (self.url.scheme == scheme).then(|| Variant { wire, ..self.plain() })
    }

    fn rewritten(&self, header: &'static str) -> Option<Variant> {
        (self.url.path != "/").then(|| Variant { target: "/".into(), headers: vec![(header, self.url.path.clone())], ..self.plain() })
    }

    fn naming(&self, sni: Sni) -> Option<Variant> {
        let named = self.url.authority.host.ip().is_none();
        (self.url.scheme == Scheme::Https && named).then(|| Variant { sni, ..self.plain() })
    }

    /// The domain that the host's name is in, where that is more than a top level.
    fn parent(&self) -> Option<String> {
        let name = self.url.authority.host.to_string();
        let (_, parent) = name.split_once('.').filter(|_| self.url.authority.host.ip().is_none())?;
        parent.contains('.').then(|| parent.to_string())
    }

    fn hosts<const N: usize>(&self, hosts: [HostLine; N]) -> Option<Variant> {
        let hosts = hosts.to_vec();
        (hosts != [self.own_host()]).then(|| Variant { hosts, ..self.plain() })
    }

    /// The host's name, changed, with the port where it is needed.
    fn named(&self, change: fn(&str) -> String) -> Option<HostLine> {
        let name = self.url.authority.host.to_string();
        let port = self.host.strip_prefix(&name).filter(|_| self.url.authority.host.ip().is_none())?;
        Some(HostLine::Text(change(&name) + port))
    }

    fn forwarded_host(&self) -> Option<Variant> {
        let names = ["X-Forwarded-Host", "X-Host", "X-Forwarded-Server"];
        let headers = names.into_iter().map(|name| (name, self.host.clone())).collect();
        Some(Variant { headers, ..self.hosts([HostLine::Text(OTHER_HOST.into())])? })
    }

    fn overridden(&self) -> Option<Variant> {
        let names = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"];
        let headers = names.into_iter().map(|name| (name, "GET".to_string())).collect();
        Some(Variant { method: "OPTIONS", headers, ..self.plain() })
    }
}

/// One value in every header that tells a client's address.
fn everywhere(value: &str) -> Vec<(&'static str, String)> {
    let names = ["X-Forwarded-For", "X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP", "Client-IP", "X-Originating-IP"];
    let mut headers: Vec<_> = names.into_iter().map(|name| (name, value.to_string())).collect();
    headers.push(("Forwarded", format!("for={value}")));
    headers
}

fn stranger(like: IpAddr) -> &'static str {
    let [v4, v6] = STRANGER;
    if like.is_ipv4() { v4 } else { v6 }
}

/// An IPv4 address as IPv6 writes it (RFC 4291 section 2.5.5.2).
fn mapped(address: IpAddr) -> Option<String> {
    match address {
        IpAddr::V4(v4) => Some(v4.to_ipv6_mapped().to_string()),
        IpAddr::V6(_) => None,
    }
}

/// The value of `Forwarded` (RFC 7239 section 6).
fn forwarded(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("for={v4}"),
        IpAddr::V6(v6) => format!("for=\"[{v6}]\""),
    }
}

/// The plain request, behind it each variant, and at last the plain request again: whoever was shut out meanwhile learns it.
pub(super) fn subjects(variants: &[Variant], subject: &Subject, approach: &Approach) -> Vec<(Subject, Approach)> {
    let plain = (subject.clone(), approach.clone());
    let of = |(nth, variant): (usize, &Variant)| {
        // What it is about stays the target's own address and port; where it dials may be another.
        let to = variant.dials(approach.to);
        let subject = Subject { variant: Some(variant.label()), dialled: Some(to), address: to.to_string(), ..subject.clone() };
        (subject, Approach { to, aim: Aim::Variant(nth), ..approach.clone() })
    };
    let again = (Subject { variant: Some(Subject::AGAIN.into()), ..subject.clone() }, approach.clone());
    [plain].into_iter().chain(variants.iter().enumerate().map(of)).chain([again]).collect()
}

#[cfg(test)]
mod catalogue {
    use super::*;

    fn labels(url: &str, spoof: &[&str]) -> Vec<String> {
        let spoof: Vec<IpAddr> = spoof.iter().map(|a| a.parse().unwrap()).collect();
        Variant::of(&url.parse().unwrap(), &spoof, |_| true).iter().map(Variant::label).collect()
    }

    #[test]
    fn names_are_unique_and_every_one_applies_somewhere() {
        let mut names: Vec<&str> = Variant::names().collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        let made =
            [labels("https://admin.example.com/admin", &["10.0.0.5"]), labels("http://admin.example.com/admin", &["10.0.0.5"])].concat();
        for name in names {
            let label = if Variant::forges(name) { format!("{name} 10.0.0.5") } else { name.to_string() };
            assert!(made.contains(&label), "{name} never applies");
        }
    }

    #[test]
    fn what_does_not_apply_is_not_sent() {
        let at_root = labels("http://192.0.2.7:80/", &[]);
        for absent in ["AD-02 plain-http", "AD-04 no-sni", "AD-04 host-dot", "AD-07 x-original-url", "AD-07 upper-case", "AD-09 http-2"] {
            assert!(!at_root.contains(&absent.to_string()), "{absent}");
        }
        assert!(!at_root.iter().any(|l| Variant::forges(l)), "without an address to forge nothing is forged");
        assert!(at_root.contains(&"AD-09 prior-knowledge".to_string()));
        let secure = labels("https://a.b.example/", &["10.0.0.5", "fd00::5"]);
        assert!(secure.contains(&"AD-05 forwarded fd00::5".to_string()));
        assert!(!secure.contains(&"AD-05 mapped fd00::5".to_string()));
        assert!(secure.contains(&"AD-04 sni-parent".to_string()));
        assert!(!labels("https://b.example/", &[]).contains(&"AD-04 sni-parent".to_string()), "a top level is nobody's site");
    }

    #[test]
    fn two_addresses_fit_into_the_budget() {
        let all = labels("https://admin.example.com/admin", &["10.0.0.5", "10.0.0.6"]).len() + EXTRA;
        assert!(all * 3 <= BUDGET, "{all} subjects");
    }
}

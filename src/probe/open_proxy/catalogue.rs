//! The catalogue: every technique, and the forms in which each is sent. Data alone; how it is sent stands in the files beside.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::OpenProxy;
use super::socks::{self, Login, To};
use crate::observation::Evidence;
use crate::probe::USER_AGENT;
use crate::target::{Host, HostPort, Url};

/// Stands for the nonce in the text of a form: a control character, which no URL has.
pub(super) const NONCE: &str = "\u{1}";
/// Stands for the address and port that the beacon's name has.
pub(super) const ADDRESS: &str = "\u{2}";
/// Stands for a fresh random user and password, encoded as RFC 7617 has it.
pub(super) const ANYBODY: &str = "\u{3}";
/// A stranger's address in chains of forwarded addresses (RFC 5737): nobody's, so nobody's allow list has it.
const STRANGER: &str = "192.0.2.66";
/// A name that cannot exist (RFC 6761 section 6.4).
pub(super) const NOWHERE: &str = "mustnot.invalid";
/// What browsers send to proxies.
const PROXY_CONNECTION: &str = "Proxy-Connection: keep-alive\r\n";
/// A browser's name, for a proxy that lets in nobody else.
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
/// The client's port in a forged PROXY header.
const FORGED_PORT: u16 = 5555;

/// One way to make a proxy relay, by its number in the catalogue (docs/techniques.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Technique(&'static str);

/// What is not sent, and why.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("OP-05", "it is OP-02 with a beacon on that port; name one beacon for each port"),
    ("OP-22", "it is the telnet dialogue of devices that only vendors' passwords open, and passwords are never guessed"),
    ("OP-25", "it is OP-23 and OP-24 sent to the load balancer; name its address as target"),
    ("OP-31", "it takes a DNS zone of one's own whose answers change between two questions"),
    ("OP-35", "it is UDP and other ports; write checks of kind udp and tcp for them"),
    ("OP-37", "request smuggling can give one client's answer to another, so it is never sent to what others use"),
    ("OP-38", "every technique is tried by both families; see families"),
    ("OP-39", "every technique is tried at every address of the name; write a target for each address that DNS does not give"),
    ("OP-40", "it is another monitor elsewhere with the same check"),
];

impl Technique {
    /// OP-01: CONNECT to the beacon, then a raw nonce.
    pub const CONNECT: Technique = Technique("OP-01");
    /// OP-02: GET with the beacon's absolute URI.
    pub const ABSOLUTE_GET: Technique = Technique("OP-02");
    /// OP-07: CONNECT to a destination that the proxy allows, or its name in a ClientHello; proven by its certificate.
    pub const ALLOWED_DESTINATION: Technique = Technique("OP-07");
    /// OP-09: GET in origin form with the beacon as Host.
    pub const ORIGIN_GET: Technique = Technique("OP-09");
    /// OP-18: SOCKS5 without a password.
    pub const SOCKS5: Technique = Technique("OP-18");

    /// Every technique, in the order in which they are tried: the most damning first.
    pub const ALL: &[Technique] = &[
        Technique::CONNECT,
        Technique::ABSOLUTE_GET,
        Technique::ORIGIN_GET,
        Technique("OP-23"),
        Technique("OP-24"),
        Technique("OP-26"),
        Technique::ALLOWED_DESTINATION,
        Technique("OP-08"),
        Technique::SOCKS5,
        Technique("OP-20"),
        Technique("OP-17"),
        Technique("OP-15"),
        Technique("OP-34"),
        Technique("OP-27"),
        Technique("OP-06"),
        Technique("OP-29"),
        Technique("OP-28"),
        Technique("OP-30"),
        Technique("OP-03"),
        Technique("OP-04"),
        Technique("OP-10"),
        Technique("OP-11"),
        Technique("OP-12"),
        Technique("OP-13"),
        Technique("OP-14"),
        Technique("OP-16"),
        Technique("OP-19"),
        Technique("OP-21"),
        Technique("OP-32"),
        Technique("OP-33"),
        Technique("OP-36"),
    ];
    /// The few that find most open proxies: `techniques = "quick"`.
    pub const QUICK: &[Technique] = &[Technique::CONNECT, Technique::ABSOLUTE_GET, Technique::ORIGIN_GET, Technique::ALLOWED_DESTINATION];

    /// Its number in the catalogue.
    pub fn id(self) -> &'static str {
        self.0
    }

    /// The technique of that number.
    pub fn of(id: &str) -> Option<Technique> {
        Technique::ALL.iter().copied().find(|t| t.0 == id)
    }

    /// It forges an address that the operator declares in `spoof`, and has nothing to send without.
    pub fn needs_spoof(self) -> bool {
        matches!(self.0, "OP-23" | "OP-26" | "OP-27")
    }

    /// It goes to `allowed_destination`.
    pub fn needs_destination(self) -> bool {
        self == Technique::ALLOWED_DESTINATION
    }
}

impl fmt::Display for Technique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// One form of a technique: what is sent, and how the answer is read.
#[derive(Debug, Clone)]
pub struct Form {
    /// The technique.
    pub technique: Technique,
    /// What tells it from the technique's other forms.
    pub variant: Option<String>,
    /// Raw bytes in front of everything: a forged PROXY header.
    pub(super) prefix: Vec<u8>,
    /// Inside TLS, offering this protocol.
    pub(super) tls: Option<&'static str>,
    /// What is said.
    pub(super) talk: Talk,
    /// The beacon that must see it.
    pub(super) beacon: Option<Url>,
}

/// What is said, and how the answer is read.
#[derive(Debug, Clone)]
pub(super) enum Talk {
    /// HTTP requests that bring the nonce; the signed line may stand in any answer.
    Request(String),
    /// A request for a tunnel; then the nonce through it, or at once with it.
    Tunnel { head: String, early: bool },
    /// A tunnel to the allowed destination, proven by its certificate.
    Allowed,
    /// A ClientHello to the proxy itself with the allowed destination's name, proven by its certificate.
    ServerName,
    /// A tunnel to where no beacon is: judged by what the proxy says.
    Reach(String),
    /// A request for which nobody can have an answer but who tried: judged by what the proxy says.
    Word(String),
    /// The proxy's own pages.
    Manager(String),
    /// SOCKS5 (RFC 1928).
    Socks5 { command: u8, login: Option<Login>, to: To },
    /// SOCKS4 and 4a.
    Socks4(To),
    /// HTTP/2 (RFC 9113), from the first byte or after an upgrade.
    Http2 { tunnel: bool, upgrade: Option<String> },
}

/// The forms of one technique at one address of the proxy, in order.
pub(super) fn forms(suite: &OpenProxy, technique: Technique, at: SocketAddr) -> Vec<Form> {
    match suite.main_beacon() {
        Some(main) => forms_to(suite, technique, at, main),
        None if technique.needs_destination() => allowed(suite, technique),
        None => Vec::new(),
    }
}

/// The same, with this beacon as the one that techniques go to which are tried with one only.
pub(super) fn forms_to(suite: &OpenProxy, technique: Technique, at: SocketAddr, main: &Url) -> Vec<Form> {
    let plain = |variant: &str, talk: Talk| form(technique, variant, talk);
    let ours = |variant: &str, talk: Talk| Form { beacon: Some(main.clone()), ..form(technique, variant, talk) };
    let both = |variant: &str, extra: &str| {
        vec![ours(&join("connect", variant), tunnel(&connect(main, extra))), ours(&join("get", variant), get(main, extra))]
    };
    let (host, authority) = (main.authority.host.to_string(), main.authority.to_string());
    match technique.0 {
        "OP-01" => {
            let browser = ours("browser", tunnel(&as_browser(&connect(main, PROXY_CONNECTION))));
            each(suite, technique, |b| tunnel(&connect(b, ""))).into_iter().chain([browser]).collect()
        }
        "OP-02" => {
            let browser = ours("browser", Talk::Request(as_browser(&get_text(main, PROXY_CONNECTION))));
            each(suite, technique, |b| get(b, "")).into_iter().chain([browser]).collect()
        }
        "OP-03" => {
            let methods = ["POST", "PUT", "HEAD", "OPTIONS", "TRACE", "FOO"];
            methods.iter().map(|m| ours(m, request(m, &absolute(main), "HTTP/1.1", &main.host_header(), ""))).collect()
        }
        "OP-04" => vec![
            ours("connect http/1.0 without host", tunnel(&format!("CONNECT {authority} HTTP/1.0\r\n\r\n"))),
            ours("get http/1.0 without host", Talk::Request(format!("GET {} HTTP/1.0\r\n\r\n", absolute(main)))),
            ours("get http/0.9", Talk::Request(format!("GET {}\r\n\r\n", absolute(main)))),
        ],
        "OP-06" => {
            let ports = [25, 22, 80, 465, 587, 853, 3389, 8443, 1, 65535];
            let new = |p: &u16| suite.beacons.iter().all(|b| b.authority.port != *p);
            ports.iter().filter(|p| new(p)).map(|p| plain(&format!("port {p}"), Talk::Reach(with_port(&main.authority.host, *p)))).collect()
        }
        "OP-07" => allowed(suite, technique),
        "OP-08" => spelled(suite, technique, &other_spellings(&main.authority.host), main),
        "OP-09" => each(suite, technique, |b| request("GET", &origin(b), "HTTP/1.1", &b.host_header(), "")),
        "OP-10" => {
            // Never the target itself: a proxy that knows no loops would call itself until it dies.
            let other = suite.allowed_destination.as_ref().map_or(NOWHERE.to_string(), HostPort::to_string);
            vec![
                ours("beacon in the uri", request("GET", &absolute(main), "HTTP/1.1", &other, "")),
                ours("beacon in host", request("GET", &format!("http://{other}{}", origin(main)), "HTTP/1.1", &main.host_header(), "")),
                ours("beacon in x-forwarded-host", {
                    let extra = format!("X-Forwarded-Host: {}\r\n", main.host_header());
                    request("GET", &origin(main), "HTTP/1.1", &other, &extra)
                }),
            ]
        }
        "OP-11" => {
            let path = origin(main);
            let uris = [
                ("https", format!("https://{authority}{path}")),
                ("ftp", format!("ftp://{authority}{path}")),
                ("ws", format!("ws://{authority}{path}")),
                ("capitals", format!("HTTP://{authority}{path}")),
                ("user", format!("http://x@{authority}{path}")),
                ("no scheme", format!("//{authority}{path}")),
                ("at", format!("@{authority}{path}")),
            ];
            uris.iter().map(|(name, uri)| ours(name, request("GET", uri, "HTTP/1.1", &main.host_header(), ""))).collect()
        }
        "OP-12" => {
            let whole = connect(main, "");
            let spellings = [
                ("lower case", whole.replacen("CONNECT", "connect", 1)),
                ("empty line first", format!("\r\n{whole}")),
                ("line feed first", format!("\n{whole}")),
                ("bare line feeds", whole.replace("\r\n", "\n")),
                ("tab", whole.replacen(' ', "\t", 1)),
                ("two spaces", whole.replacen(' ', "  ", 1)),
            ];
            spellings.iter().map(|(name, head)| ours(name, tunnel(head))).collect()
        }
        "OP-13" => {
            let first = format!("GET http://{NOWHERE}/ HTTP/1.1\r\nHost: {NOWHERE}\r\nUser-Agent: {USER_AGENT}\r\n\r\n");
            let second = get_text(main, "");
            vec![ours("", Talk::Request(first + &second))]
        }
        "OP-14" => vec![
            ours("nonce in the same segment", Talk::Tunnel { head: connect(main, ""), early: true }),
            ours("content-length 0", tunnel(&connect(main, "Content-Length: 0\r\n"))),
        ],
        "OP-15" => {
            vec![ours("connect", Talk::Http2 { tunnel: true, upgrade: None }), ours("get", Talk::Http2 { tunnel: false, upgrade: None })]
        }
        "OP-16" => {
            let upgrade = get_text(main, "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n").replacen(
                "Connection: close",
                "Connection: Upgrade, HTTP2-Settings",
                1,
            );
            vec![ours("", Talk::Http2 { tunnel: true, upgrade: Some(upgrade) })]
        }
        "OP-17" => vec![
            Form { tls: Some("http/1.1"), ..ours("connect", tunnel(&connect(main, ""))) },
            Form { tls: Some("http/1.1"), ..ours("get", get(main, "")) },
            Form { tls: Some("h2"), ..ours("http/2 connect", Talk::Http2 { tunnel: true, upgrade: None }) },
        ],
        "OP-18" => To::both(&main.authority)
            .into_iter()
            .map(|to| ours(to.label(), Talk::Socks5 { command: socks::CONNECT, login: None, to }))
            .collect(),
        "OP-19" => {
            let logins = [("empty user and password", Login::Empty), ("socks5 any password", Login::Anybody)];
            let socks = To::both(&main.authority).into_iter().take(1).flat_map(|to| {
                logins.map(|(name, login)| ours(name, Talk::Socks5 { command: socks::CONNECT, login: Some(login), to: to.clone() }))
            });
            socks.chain(both("any password", &format!("Proxy-Authorization: Basic {ANYBODY}\r\n"))).collect()
        }
        "OP-20" => To::both(&main.authority)
            .into_iter()
            .filter(To::fits_socks4)
            .map(|to| ours(if to.label() == "name" { "4a" } else { "4" }, Talk::Socks4(to)))
            .collect(),
        "OP-21" => {
            let to = || To::Ip(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
            let bind = To::both(&main.authority).into_iter().next().unwrap_or_else(to);
            vec![
                ours("udp associate", Talk::Socks5 { command: socks::UDP_ASSOCIATE, login: None, to: to() }),
                ours("bind", Talk::Socks5 { command: socks::BIND, login: None, to: bind }),
            ]
        }
        "OP-23" => suite.forged().flat_map(|a| prefixed(both(&format!("v1 {a}"), ""), &proxy_v1(a, at))).collect(),
        "OP-24" => {
            let forged = suite.forged().flat_map(|a| prefixed(both(&format!("v2 {a}"), ""), &proxy_v2(a, at)));
            let local = prefixed(both("v2 local", ""), PROXY_V2_LOCAL);
            forged.chain(local).chain(prefixed(both("v1 unknown", ""), b"PROXY UNKNOWN\r\n")).collect()
        }
        "OP-26" => suite.forged().flat_map(|a| both(&a.to_string(), &format!("X-Forwarded-For: {a}\r\n"))).collect(),
        "OP-27" => suite.forged().flat_map(|a| forwarded(a).into_iter().flat_map(move |(name, extra)| both(&name, &extra))).collect(),
        "OP-28" => {
            let own = suite.target.host.to_string();
            let spellings = [
                "127.0.0.1",
                "localhost",
                "[::1]",
                "[::ffff:127.0.0.1]",
                "[::ffff:7f00:1]",
                "127.1",
                "0x7f.1",
                "0x7f000001",
                "0177.0.0.1",
                "2130706433",
                "127.0.0.1.",
                "127.0.0.53",
                "0.0.0.0",
                "0",
                "[::]",
                &bracketed(&own),
            ];
            let word = "GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n";
            let reach = spellings.iter().map(|s| plain(s, Talk::Reach(format!("{s}:443"))));
            let itself = plain("own port", Talk::Reach(format!("127.0.0.1:{}", suite.target.port)));
            reach.chain([itself, plain("get", Talk::Word(word.into()))]).collect()
        }
        "OP-29" => {
            let spellings = [
                "169.254.169.254",
                "2852039166",
                "0xA9FEA9FE",
                "0251.0376.0251.0376",
                "[::ffff:a9fe:a9fe]",
                "[fd00:ec2::254]",
                "169.254.170.2",
                "169.254.170.23",
                "[fd00:ec2::23]",
                "[64:ff9b::a9fe:a9fe]",
                "[2002:a9fe:a9fe::]",
            ];
            spellings.iter().map(|s| plain(s, Talk::Reach(format!("{s}:80")))).collect()
        }
        "OP-30" => {
            let places = ["10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "[fd00::1]"];
            places.iter().map(|p| plain(p, Talk::Reach(format!("{p}:443")))).collect()
        }
        "OP-32" => spelled(suite, technique, &host_spellings(&main.authority.host, main.authority.port), main),
        "OP-33" => vec![
            ours("connect proxy-connection", tunnel(&connect(main, PROXY_CONNECTION))),
            ours("get proxy-connection", get(main, PROXY_CONNECTION)),
            ours("trace max-forwards", request("TRACE", &absolute(main), "HTTP/1.1", &main.host_header(), "Max-Forwards: 0\r\n")),
            ours("options max-forwards", request("OPTIONS", &absolute(main), "HTTP/1.1", &main.host_header(), "Max-Forwards: 0\r\n")),
            ours("upstream of the client's choice", tunnel(&connect(main, &format!("X-Upstream-Https-Proxy: http://{authority}\r\n")))),
        ],
        // No form names the target itself, be it as Host: a proxy that knows no loops would call itself until it dies.
        "OP-34" => {
            let page = |target: &str, version: &str| {
                Talk::Manager(format!("GET {target} {version}\r\nHost: {NOWHERE}\r\nUser-Agent: {USER_AGENT}\r\nConnection: close\r\n\r\n"))
            };
            vec![
                plain("origin form", page("/squid-internal-mgr/info", "HTTP/1.1")),
                plain("cache_object", page(&format!("cache_object://{NOWHERE}/info"), "HTTP/1.0")),
            ]
        }
        "OP-36" => {
            let schemes = ["gopher", "whois", "wais"];
            let uri = |s: &str| format!("{s}://{authority}{}", origin(main));
            schemes.iter().map(|s| ours(s, request("GET", &uri(s), "HTTP/1.1", &host, ""))).collect()
        }
        _ => Vec::new(),
    }
}

fn form(technique: Technique, variant: &str, talk: Talk) -> Form {
    let variant = (!variant.is_empty()).then(|| variant.to_string());
    Form { technique, variant, prefix: Vec::new(), tls: None, talk, beacon: None }
}

/// The ways to the allowed destination. A ClientHello has no place for an address.
fn allowed(suite: &OpenProxy, technique: Technique) -> Vec<Form> {
    let named = suite.allowed_destination.as_ref().is_some_and(|to| matches!(to.host, Host::Name(_)));
    let by_name = named.then(|| form(technique, Evidence::SERVER_NAME, Talk::ServerName));
    [form(technique, "", Talk::Allowed)].into_iter().chain(by_name).collect()
}

/// One form a beacon, told apart by it where there are several.
fn each(suite: &OpenProxy, technique: Technique, talk: impl Fn(&Url) -> Talk) -> Vec<Form> {
    let several = suite.beacons.len() > 1;
    let of = |beacon: &Url| {
        let variant = if several { beacon.authority.to_string() } else { String::new() };
        Form { beacon: Some(beacon.clone()), ..form(technique, &variant, talk(beacon)) }
    };
    suite.beacons.iter().map(of).collect()
}

/// A tunnel to the main beacon, its address spelled in other ways.
fn spelled(_: &OpenProxy, technique: Technique, spellings: &[(&str, String)], beacon: &Url) -> Vec<Form> {
    let head = |to: &str| format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {USER_AGENT}\r\n\r\n");
    let of = |(name, to): &(&str, String)| {
        let to = if to.contains(ADDRESS) || name.starts_with("port") { to.clone() } else { format!("{to}:{}", beacon.authority.port) };
        Form { beacon: Some(beacon.clone()), ..form(technique, name, tunnel(&head(&to))) }
    };
    spellings.iter().map(of).collect()
}

/// The same destination as an address instead of a name, or as another kind of address.
fn other_spellings(host: &Host) -> Vec<(&'static str, String)> {
    match host {
        Host::Name(_) => vec![("the name's address", ADDRESS.into())],
        Host::Ip(IpAddr::V4(ip)) => {
            let mapped = ip.to_ipv6_mapped();
            let [.., high, low] = mapped.segments();
            vec![("mapped", format!("[::ffff:{ip}]")), ("mapped hex", format!("[::ffff:{high:x}:{low:x}]"))]
        }
        Host::Ip(IpAddr::V6(ip)) => {
            let groups: Vec<String> = ip.segments().iter().map(|s| format!("{s:04x}")).collect();
            vec![("written out", format!("[{}]", groups.join(":")))]
        }
    }
}

/// The same host and port, so that a rule may miss them.
fn host_spellings(host: &Host, port: u16) -> Vec<(&'static str, String)> {
    let mut all = match host {
        Host::Name(name) => {
            let mixed = name.chars().enumerate().map(|(i, c)| if i % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect();
            vec![("dot", format!("{name}.")), ("case", mixed), ("brackets", format!("[{name}]")), ("nul", format!("{name}%00"))]
        }
        Host::Ip(IpAddr::V4(ip)) => vec![("dot", format!("{ip}.")), ("decimal", u32::from(*ip).to_string())],
        Host::Ip(IpAddr::V6(_)) => Vec::new(),
    };
    let host = bracketed(&host.to_string());
    all.extend([("port with a zero", format!("{host}:0{port}")), ("port with a plus", format!("{host}:+{port}"))]);
    all
}

/// Every place in which a proxy may look for the client's address, and which end of a list it may trust.
fn forwarded(a: IpAddr) -> Vec<(String, String)> {
    let own = match a {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_string(),
        IpAddr::V6(v6) => v6.to_string(),
    };
    let quoted = if a.is_ipv6() { format!("\"[{a}]\"") } else { a.to_string() };
    let with_port = SocketAddr::new(a, 1234);
    let mut others = format!("Forwarded: for={quoted}\r\n");
    for name in [
        "X-Real-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "Fastly-Client-IP",
        "X-Original-Forwarded-For",
    ] {
        let _ = write!(others, "{name}: {a}\r\n");
    }
    let xff = |value: &str| format!("X-Forwarded-For: {value}\r\n");
    let ways = [
        ("twice", xff(&format!("{a}, {a}"))),
        ("left", xff(&format!("{a}, {STRANGER}"))),
        ("right", xff(&format!("{STRANGER}, {a}"))),
        ("first line", xff(&a.to_string()) + &xff(STRANGER)),
        ("last line", xff(STRANGER) + &xff(&a.to_string())),
        ("mapped", xff(&own)),
        ("with a port", xff(&with_port.to_string())),
        ("its kin", others),
    ];
    ways.into_iter().map(|(name, extra)| (format!("{name} {a}"), extra)).collect()
}

/// Version 1 of the PROXY protocol (HAProxy's proxy-protocol.txt, section 2.1).
fn proxy_v1(a: IpAddr, at: SocketAddr) -> Vec<u8> {
    let to = if a.is_ipv4() == at.is_ipv4() { at.ip() } else { a };
    let family = if a.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {a} {to} {FORGED_PORT} {}\r\n", at.port()).into_bytes()
}

/// The signature of version 2 (section 2.2).
const PROXY_V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command LOCAL: the connection speaks for itself.
const PROXY_V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn proxy_v2(a: IpAddr, at: SocketAddr) -> Vec<u8> {
    let to = if a.is_ipv4() == at.is_ipv4() { at.ip() } else { a };
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (family, length) = if a.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    let ports = [FORGED_PORT.to_be_bytes(), at.port().to_be_bytes()].concat();
    [PROXY_V2.to_vec(), vec![0x21, family, 0, length], octets(a), octets(to), ports].concat()
}

/// One address of the network: itself, or its first host.
pub(super) fn one_of(net: &IpNet) -> IpAddr {
    if net.prefix_len() == net.max_prefix_len() { net.addr() } else { net.hosts().next().unwrap_or(net.addr()) }
}

fn prefixed(forms: Vec<Form>, prefix: &[u8]) -> Vec<Form> {
    forms.into_iter().map(|form| Form { prefix: prefix.to_vec(), ..form }).collect()
}

fn join(first: &str, second: &str) -> String {
    if second.is_empty() { first.into() } else { format!("{first} {second}") }
}

/// A host as it stands before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.into() }
}

fn with_port(host: &Host, port: u16) -> String {
    HostPort { host: host.clone(), port }.to_string()
}

fn tunnel(head: &str) -> Talk {
    Talk::Tunnel { head: head.into(), early: false }
}

/// The head that asks for a tunnel to the beacon.
pub(super) fn connect(beacon: &Url, extra: &str) -> String {
    let to = &beacon.authority;
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {USER_AGENT}\r\n{extra}\r\n")
}

/// The same head as a browser sends it. Who we are stands in another header.
fn as_browser(head: &str) -> String {
    head.replacen(&format!("User-Agent: {USER_AGENT}\r\n"), &format!("User-Agent: {BROWSER}\r\nX-Monitor: {USER_AGENT}\r\n"), 1)
}

fn get(beacon: &Url, extra: &str) -> Talk {
    Talk::Request(get_text(beacon, extra))
}

fn get_text(beacon: &Url, extra: &str) -> String {
    head("GET", &absolute(beacon), "HTTP/1.1", &beacon.host_header(), extra)
}

fn request(method: &str, target: &str, version: &str, host: &str, extra: &str) -> Talk {
    Talk::Request(head(method, target, version, host, extra))
}

fn head(method: &str, target: &str, version: &str, host: &str, extra: &str) -> String {
    let body = if matches!(method, "POST" | "PUT" | "FOO") { "Content-Length: 0\r\n" } else { "" };
    format!(
        "{method} {target} {version}\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n{body}{extra}Connection: close\r\n\r\n"
    )
}

/// The beacon's absolute URI with the nonce.
pub(super) fn absolute(beacon: &Url) -> String {
    format!("http://{}{}", beacon.host_header(), origin(beacon))
}

/// Its path alone.
fn origin(beacon: &Url) -> String {
    format!("{}/{NONCE}", beacon.path.trim_end_matches('/'))
}

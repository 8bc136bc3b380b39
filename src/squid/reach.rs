//! Who gets where: every kind of request that the rules can tell apart, tried on them from every kind of source.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::acl::{Request, is_listed};
use super::config::{Config, Port};
use super::read::Place;
use super::rules::Rules;
use super::span::{Class, Span, Spans, address, classes, number};

/// What kind of destination an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// None of the others.
    Public,
    /// The proxy's own host.
    Loopback,
    /// One hop away, and the metadata services of clouds and of ECS.
    LinkLocal,
    /// Networks of somebody's own.
    Private,
    /// IPv6 addresses that a translator or a tunnel turns into such an IPv4 one.
    Embedded,
}

/// The blocks. `0.0.0.0` and `::` reach the own host; `fd00:ec2::254` is the metadata service over IPv6, and 168.63.129.16 that of Azure.
const BLOCKS: [(Block, &[&str]); 4] = [
    (Block::Loopback, &["127.0.0.0/8", "0.0.0.0/32", "::1/128", "::/128"]),
    (Block::LinkLocal, &["169.254.0.0/16", "fe80::/10", "168.63.129.16/32", "fd00:ec2::254/128"]),
    (Block::Private, &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]),
    (Block::Embedded, &["64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"]),
];
/// Nobody's client: not routed on the internet, or no single host.
const NOT_PUBLIC: [&str; 8] =
    ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"];
/// Addresses that say something to whoever reads them, in the order in which they are tried.
const TELLING: [&str; 6] = ["93.184.216.34", "127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "2606:2800:220:1::1"];
/// Names of a list that are tried.
const MAX_NAMES: usize = 200;
/// Any name that no list has.
const ANY_NAME: &str = "site.example.org";
/// Schemes besides http that Squid 5 or 6 is a gateway to, with their usual ports.
const SCHEMES: [(&str, u16); 6] = [("FTP", 21), ("HTTPS", 443), ("GOPHER", 70), ("WAIS", 210), ("WHOIS", 43), ("URN", 80)];

/// A kind of request.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The method, in capitals.
    pub method: &'static str,
    /// The scheme, in capitals; `NONE` for CONNECT.
    pub scheme: &'static str,
    /// The name that is asked for; none for an address.
    pub name: Option<String>,
    /// The address, and what kind it is.
    pub to: u128,
    /// What kind of address it is.
    pub block: Block,
    /// An example of the ports.
    pub port: u16,
    /// Every port that the rules treat alike.
    pub ports: Spans,
    /// Whether it asks for the cache manager.
    pub manager: bool,
}

/// A kind of request that is let in for somebody.
#[derive(Debug, Clone)]
pub struct Granted<'a> {
    /// The request.
    pub ask: Ask,
    /// Where it comes in.
    pub port: &'a Port,
    /// From whom, whatever else.
    pub sure: Spans,
    /// From whom, if ACLs that cannot be judged say so.
    pub may: Spans,
    /// Those ACLs with their types, and whether they must match.
    pub hangs_on: BTreeSet<(String, bool)>,
    /// The line that lets it in; none where it is the opposite of the last one.
    pub by: Option<Place>,
}

impl Ask {
    /// Whether its port is that of its scheme.
    pub fn is_usual(&self) -> bool {
        let of_scheme = SCHEMES.iter().find(|(scheme, _)| *scheme == self.scheme).map(|(_, port)| *port);
        self.port == of_scheme.unwrap_or(if self.method == "CONNECT" { 443 } else { 80 })
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = address(self.to);
        let host = match &self.name {
            Some(name) if self.block == Block::Public => name.clone(),
            Some(name) => format!("{name} (a name that resolves to {ip})"),
            None if ip.is_ipv6() => format!("[{ip}]"),
            None => ip.to_string(),
        };
        match (self.method, self.manager) {
            (_, true) => write!(f, "GET http://{host}:{}/squid-internal-mgr/", self.port),
            ("CONNECT", _) => write!(f, "CONNECT {host}:{}", self.port),
            (method, _) => write!(f, "{method} {}://{host}:{}/", self.scheme.to_lowercase(), self.port),
        }
    }
}

/// The networks, as spans.
pub fn spans(nets: &[&str]) -> Spans {
    Spans::of(nets.iter().filter_map(|net| net.parse::<ipnet::IpNet>().ok()).map(Span::from))
}

/// Whether these can only be strangers: more addresses of the public internet than anybody's clients have, a /8 of IPv4 or a /19 of IPv6.
pub fn strangers(from: &Spans) -> bool {
    let not_public = spans(&NOT_PUBLIC);
    let public4 = from.without(&not_public).size_within(Span::IPV4);
    let global6 = spans(&["2000::/3"]).iter().map(|net| from.size_within(net)).fold(0, u128::saturating_add);
    public4 >= 1 << 24 || global6 >= 1 << 109
}

/// Every address outside the proxy's own host: what it may do itself is not a matter of its rules.
fn elsewhere(from: &Spans) -> Spans {
    from.without(&spans(&["127.0.0.0/8", "::1/128"]))
}

/// Classes of sources that an access list can tell apart.
pub fn sources(config: &Config) -> Vec<Class> {
    let lists: Vec<&Spans> = config.acls.iter().filter_map(|acl| acl.sources()).collect();
    let own = spans(&["127.0.0.0/8", "::1/128"]);
    classes(&lists.into_iter().chain([&own, &Spans::of([Span::IPV4])]).collect::<Vec<_>>(), Span::ALL)
}

/// Who passes an access list that is asked about a peer alone, before there is a request.
pub fn peers(config: &Config, rules: &Rules, port: &Port) -> Spans {
    let passes = |class: &Class| {
        let request =
            Request { from: class.example, method: "NONE", scheme: "NONE", name: None, to: 0, port: 0, manager: false, at: &port.listener };
        rules.outcomes(&config.acls, &request).iter().any(|outcome| outcome.allowed)
    };
    elsewhere(&Spans::of(sources(config).iter().filter(|class| passes(class)).flat_map(|class| class.spans.iter())))
}

/// Every kind of request that is let in, and for whom. The second is what was not tried.
pub fn granted<'a>(config: &'a Config, rules: &'a Rules) -> (Vec<Granted<'a>>, Vec<String>) {
    let (asks, left_out) = asks(config);
    let sources = sources(config);
    let mut all = Vec::new();
    for port in config.ports.iter().filter(|port| !port.listener.address.is_some_and(|ip| ip.is_loopback())) {
        for ask in &asks {
            all.extend(grant(config, rules, port, ask, &sources));
        }
    }
    (all, left_out)
}

fn grant<'a>(config: &'a Config, rules: &'a Rules, port: &'a Port, ask: &Ask, sources: &[Class]) -> Option<Granted<'a>> {
    let (mut sure, mut may) = (Vec::new(), Vec::new());
    let mut hangs_on = BTreeSet::new();
    let mut by = None;
    for class in sources {
        let request = Request {
            from: class.example,
            method: ask.method,
            scheme: ask.scheme,
            name: ask.name.as_deref(),
            to: ask.to,
            port: ask.port,
            manager: ask.manager,
            at: &port.listener,
        };
        let outcomes = rules.outcomes(&config.acls, &request);
        let allowed: Vec<_> = outcomes.iter().filter(|outcome| outcome.allowed).collect();
        if allowed.is_empty() || elsewhere(&class.spans).is_empty() {
            continue;
        }
        let certain = allowed.len() == outcomes.len();
        if certain { &mut sure } else { &mut may }.extend(class.spans.iter());
        if !certain {
            let answers = allowed.iter().flat_map(|outcome| outcome.assumed.iter());
            let told = |name: &str| config.acls.get(name).map_or(format!("`{name}`"), |acl| format!("`{}` ({})", acl.name, acl.kind));
            hangs_on.extend(answers.map(|(name, answer)| (told(name), *answer)));
        }
        by = by.or(allowed.first().and_then(|outcome| outcome.rule).map(|rule| rule.at.clone()));
    }
    let (sure, may) = (elsewhere(&Spans::of(sure)), elsewhere(&Spans::of(may)));
    (!sure.is_empty() || !may.is_empty()).then(|| Granted { ask: ask.clone(), port, sure, may, hangs_on, by })
}

/// Every kind of request that the ACLs can tell apart; and what was left out.
fn asks(config: &Config) -> (Vec<Ask>, Vec<String>) {
    let own_ports: Vec<u16> = config.ports.iter().map(|port| port.listener.port).collect();
    let ports = ports(config, &own_ports);
    let (names, left_out) = names(config);
    let known: Vec<&String> = config.acls.iter().flat_map(|acl| acl.methods()).collect();
    let other = ["OPTIONS", "DELETE", "PATCH", "PROPFIND", "BREW"]
        .into_iter()
        .find(|method| !known.iter().any(|known| known == method))
        .unwrap_or("BREW");
    let methods = [("CONNECT", "NONE"), ("GET", "HTTP"), (other, "HTTP")];
    let mut asks = Vec::new();
    for (block, to) in destinations(config) {
        let any = [Some(ANY_NAME.to_string()), None];
        let hosts = names.iter().cloned().map(Some);
        // What is told first is the plainest: a name on the internet, and an address elsewhere.
        let hosts: Vec<Option<String>> =
            if block == Block::Public { any.into_iter().chain(hosts).collect() } else { any.into_iter().rev().chain(hosts).collect() };
        for name in hosts {
            for ports in &ports {
                let port = u16::try_from(ports.example).unwrap_or_default();
                let ask = |(method, scheme), port| Ask {
                    method,
                    scheme,
                    name: name.clone(),
                    to,
                    block,
                    port,
                    ports: ports.spans.clone(),
                    manager: false,
                };
                asks.extend(methods.map(|way| ask(way, port)));
                if block == Block::Public {
                    let usual = |usual: u16| if ports.spans.has(usual.into()) { usual } else { port };
                    asks.extend(SCHEMES.map(|(scheme, port)| ask(("GET", scheme), usual(port))));
                }
            }
            if block == Block::Public && name.is_some() {
                let manager = |port: u16, scheme| {
                    let ports = Spans::of([Span::one(port.into())]);
                    Ask { method: "GET", scheme, name: Some("this-proxy".into()), to, block, port, ports, manager: true }
                };
                asks.extend(own_ports.iter().flat_map(|port| [manager(*port, "HTTP"), manager(*port, "CACHE_OBJECT")]));
            }
        }
    }
    (asks, left_out)
}

/// The ports that the rules tell apart, with the usual one of each class as its example.
fn ports(config: &Config, own: &[u16]) -> Vec<Class> {
    let usual: [u128; 6] = [443, 80, 22, 21, 25, 70];
    let lists: Vec<&Spans> = config.acls.iter().filter_map(|acl| acl.ports()).collect();
    let set_apart: Vec<Spans> = [443].iter().chain(own).map(|port| Spans::of([Span::one(u128::from(*port))])).collect();
    let all = lists.into_iter().chain(&set_apart).collect::<Vec<_>>();
    let usual_first = |mut class: Class| {
        class.example = usual.into_iter().find(|port| class.spans.has(*port)).unwrap_or(class.example);
        class
    };
    let mut found: Vec<Class> = classes(&all, Span::PORTS).into_iter().map(usual_first).collect();
    found.sort_by_key(|class| (usual.iter().position(|port| *port == class.example).unwrap_or(usual.len()), class.example));
    found
}

/// One address of every kind that the rules tell apart.
fn destinations(config: &Config) -> Vec<(Block, u128)> {
    let blocks = BLOCKS.map(|(block, nets)| (block, spans(nets)));
    let v4 = Spans::of([Span::IPV4]);
    let lists: Vec<&Spans> =
        config.acls.iter().filter_map(|acl| acl.destinations()).chain(blocks.iter().map(|(_, s)| s)).chain([&v4]).collect();
    let of = |class: Class| {
        let telling = TELLING.iter().enumerate().filter_map(|(at, ip)| Some((at, number(ip.parse().ok()?))));
        let (at, to) = telling.into_iter().find(|(_, ip)| class.spans.has(*ip)).unwrap_or((TELLING.len(), class.example));
        let block = blocks.iter().find(|(_, spans)| spans.has(to)).map_or(Block::Public, |(block, _)| *block);
        (at, block, to)
    };
    let mut found: Vec<_> = classes(&lists, Span::ALL).into_iter().map(of).collect();
    found.sort_by_key(|(at, _, to)| (*at, *to));
    found.into_iter().map(|(_, block, to)| (block, to)).collect()
}

/// A name of every kind that the lists of names tell apart.
fn names(config: &Config) -> (Vec<String>, Vec<String>) {
    let lists: Vec<(&str, &BTreeSet<String>)> = config.acls.iter().filter_map(|acl| Some((acl.name.as_str(), acl.domains()?))).collect();
    let mut kinds: BTreeMap<Vec<bool>, String> = BTreeMap::new();
    let mut left_out = Vec::new();
    for (acl, domains) in &lists {
        for domain in domains.iter().take(MAX_NAMES) {
            let name = domain.strip_prefix('.').map_or(domain.clone(), |bare| format!("www.{bare}"));
            let kind = lists.iter().map(|(_, domains)| is_listed(&name, domains)).collect();
            kinds.entry(kind).or_insert(name);
        }
        if domains.len() > MAX_NAMES {
            left_out.push(format!("of the {} names of the ACL `{acl}` the first {MAX_NAMES} were tried", domains.len()));
        }
    }
    (kinds.into_values().collect(), left_out)
}

//! What an `acl` line matches, of what can be said without running Squid: yes, no, or it may.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::read::{Directive, Files, Place, Trouble, entries};
use super::span::{Span, Spans, address, number};

/// What can be said of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It does not match.
    No,
    /// It hangs on what is not known here.
    Maybe,
    /// It matches.
    Yes,
}

/// An ACL, with all its lines.
#[derive(Debug, Clone)]
pub struct Acl {
    /// Its name, as it was written first.
    pub name: String,
    /// Its type, as Squid calls it.
    pub kind: String,
    /// Where it was written first; `None` for what Squid defines itself.
    pub at: Option<Place>,
    test: Test,
    /// It has entries that cannot be judged, so that whatever it does not match it may match all the same.
    partly: bool,
}

#[derive(Debug, Clone)]
enum Test {
    Source(Spans),
    /// Whether names are left unresolved (`-n`).
    Destination(Spans, bool),
    LocalAddress(Spans),
    Port(Spans),
    LocalPort(Spans),
    /// In capitals.
    Method(Vec<String>),
    /// In capitals.
    Scheme(Vec<String>),
    /// In small letters, and whether an address is never asked for its name (`-n`).
    Domain(BTreeSet<String>, bool),
    /// Names of ports.
    PortName(Vec<String>),
    /// The built-in `manager`.
    Manager,
    /// Any of these lines, each of which needs all of its terms.
    AnyLine(Vec<Vec<Term>>),
    /// A regular expression that all matches.
    Everything,
    /// What hangs on more than the text.
    Unknown,
}

/// An ACL as a rule names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// `!`
    pub negated: bool,
    /// Its name in small letters: Squid does not tell them apart.
    pub acl: String,
}

/// A listening port, as far as ACLs ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `name=`, or what stands as its address and port.
    pub name: String,
    /// The address, if one is given.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// A request that is tried on the rules.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Who asks, as the rules see him.
    pub from: u128,
    /// The method, in capitals.
    pub method: &'a str,
    /// The scheme, in capitals; `NONE` for CONNECT.
    pub scheme: &'a str,
    /// The name that is asked for; an address literal has none.
    pub name: Option<&'a str>,
    /// The address behind it.
    pub to: u128,
    /// The port that is asked for.
    pub port: u16,
    /// Whether it asks for the cache manager.
    pub manager: bool,
    /// Where it came in.
    pub at: &'a Listener,
}

/// Every ACL of a configuration, by its name in small letters.
#[derive(Debug, Default)]
pub struct Acls(BTreeMap<String, Acl>);

/// What Squid 5 and 6 define before the first line is read; `to_linklocal` since 6.
const BUILT_IN: [(&str, &str, &[&str]); 6] = [
    ("all", "src", &["all"]),
    ("localhost", "src", &["127.0.0.1/32", "::1"]),
    ("to_localhost", "dst", &["127.0.0.0/8", "0.0.0.0/32", "::1/128", "::/128"]),
    ("to_linklocal", "dst", &["169.254.0.0/16", "fe80::/10"]),
    ("CONNECT", "method", &["CONNECT"]),
    ("manager", "url_regex", &[]),
];
/// Types that Squid has and that cannot be judged from the text alone.
const OTHER_TYPES: &str = " random time src_as dst_as browser dstdom_regex hier_code rep_header req_header http_status maxconn peername \
    peername_regex referer_regex rep_mime_type req_mime_type srcdomain srcdom_regex url_regex urllogin urlpath_regex external squid_error \
    connections_encrypted tag note annotate_client annotate_transaction has transaction_initiator client_connection_mark ssl_error user_cert \
    ca_cert server_cert_fingerprint at_step ssl::server_name ssl::server_name_regex arp eui64 ident ident_regex ext_user ext_user_regex \
    proxy_auth proxy_auth_regex max_user_ip adaptation_service snmp_community server_ssl_cert_fingerprint ";

impl Acls {
    /// What Squid has before it reads anything.
    pub fn built_in() -> Acls {
        let mut acls = Acls::default();
        for (name, kind, values) in BUILT_IN {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            let (test, partly, _) = if name == "manager" { (Test::Manager, false, Vec::new()) } else { test(kind, &[], &values, None) };
            acls.0.insert(name.to_lowercase(), Acl { name: name.into(), kind: kind.into(), at: None, test, partly });
        }
        acls
    }

    /// The ACL of that name.
    pub fn get(&self, name: &str) -> Option<&Acl> {
        self.0.get(&name.to_lowercase())
    }

    /// Every ACL.
    pub fn iter(&self) -> impl Iterator<Item = &Acl> {
        self.0.values()
    }

    /// Takes an `acl` line in; gives what is wrong with it.
    pub fn add(&mut self, line: &Directive, files: &dyn Files) -> Vec<Trouble> {
        let [name, kind, rest @ ..] = line.words.as_slice() else {
            return vec![Trouble::Refused("an `acl` has a name and a type".into())];
        };
        let kind = match kind.as_str() {
            "myip" => "localip",
            "myport" => "localport",
            "clientside_mark" => "client_connection_mark",
            kind => kind,
        };
        // A leftover of Squid 3.1 that Squid skips.
        if name == "manager" && kind == "proto" {
            return Vec::new();
        }
        let key = name.to_lowercase();
        if self.0.get(&key).is_some_and(|known| known.kind != kind) {
            return vec![Trouble::Refused(format!("the ACL `{name}` exists already with another type"))];
        }
        let split = rest.iter().take_while(|word| word.len() > 1 && word.starts_with(['-', '+'])).count();
        let (flags, values) = rest.split_at(split);
        let flags: Vec<&str> =
            flags.iter().flat_map(|flag| flag.trim_start_matches(['-', '+']).split("")).filter(|f| !f.is_empty()).collect();
        let (values, mut trouble, unread) = expand(values, files);
        let before = self.0.remove(&key);
        let known = before.as_ref().map(|acl| acl.test.clone());
        let (test, partly, more) = match kind {
            "all-of" | "any-of" => group(kind, &values, known, self),
            _ => test(kind, &flags, &values, known),
        };
        trouble.extend(more.into_iter().map(|what| match what {
            Trouble::Refused(why) => Trouble::Refused(format!("ACL `{name}`: {why}")),
            Trouble::Ignored(why) => Trouble::Ignored(format!("ACL `{name}`: {why}")),
            Trouble::NotFollowed(why) => Trouble::NotFollowed(format!("ACL `{name}`: {why}")),
        }));
        let partly = partly || unread || before.as_ref().is_some_and(|acl| acl.partly);
        let acl = match before {
            Some(acl) => Acl { test, partly, ..acl },
            None => Acl { name: name.clone(), kind: kind.into(), at: Some(line.at.clone()), test, partly },
        };
        self.0.insert(key, acl);
        trouble
    }

    /// Whether the terms all match; `assumed` answers for what is not known. The name of the first ACL that nobody answers for, if it decides.
    ///
    /// # Errors
    /// The ACL on which it hangs.
    pub fn all<'a>(&'a self, terms: &'a [Term], request: &Request<'_>, assumed: &[(&'a str, bool)]) -> Result<bool, &'a str> {
        // Squid stops at the first that does not match, so one that is not known decides only if those after it match.
        let mut hangs = None;
        for term in terms {
            let matched = match self.0.get(&term.acl) {
                None => false,
                Some(acl) => match self.one(&term.acl, acl, request, assumed) {
                    Ok(matched) => matched,
                    Err(name) => {
                        hangs = hangs.or(Some(name));
                        continue;
                    }
                },
            };
            if matched == term.negated {
                return Ok(false);
            }
        }
        hangs.map_or(Ok(true), Err)
    }

    fn one<'a>(&'a self, key: &'a str, acl: &'a Acl, request: &Request<'_>, assumed: &[(&'a str, bool)]) -> Result<bool, &'a str> {
        if let Test::AnyLine(lines) = &acl.test {
            let mut hangs = None;
            for line in lines {
                match self.all(line, request, assumed) {
                    Ok(true) => return Ok(true),
                    Ok(false) => {}
                    Err(name) => hangs = hangs.or(Some(name)),
                }
            }
            return hangs.map_or(Ok(false), Err);
        }
        match acl.matches(request) {
            Truth::Yes => Ok(true),
            Truth::No => Ok(false),
            Truth::Maybe => assumed.iter().find(|(name, _)| *name == key).map(|(_, answer)| *answer).ok_or(key),
        }
    }
}

impl Acl {
    /// The sources that it lists, if it is about them.
    pub fn sources(&self) -> Option<&Spans> {
        if let Test::Source(spans) = &self.test { Some(spans) } else { None }
    }

    /// The destinations.
    pub fn destinations(&self) -> Option<&Spans> {
        if let Test::Destination(spans, _) = &self.test { Some(spans) } else { None }
    }

    /// The ports that are asked for.
    pub fn ports(&self) -> Option<&Spans> {
        if let Test::Port(spans) = &self.test { Some(spans) } else { None }
    }

    /// The names that are asked for.
    pub fn domains(&self) -> Option<&BTreeSet<String>> {
        if let Test::Domain(names, _) = &self.test { Some(names) } else { None }
    }

    /// The methods.
    pub fn methods(&self) -> &[String] {
        if let Test::Method(methods) = &self.test { methods } else { &[] }
    }

    /// Whether it matches; a group of ACLs is asked by [`Acls::all`].
    fn matches(&self, request: &Request<'_>) -> Truth {
        let said = match &self.test {
            Test::Everything => Truth::Yes,
            Test::Unknown | Test::AnyLine(_) => Truth::Maybe,
            Test::Manager => yes(request.manager),
            Test::Source(spans) => yes(spans.has(request.from)),
            Test::Destination(spans, literals_alone) => yes((request.name.is_none() || !literals_alone) && spans.has(request.to)),
            Test::LocalAddress(spans) => {
                request.at.address.filter(|ip| !ip.is_unspecified()).map_or(Truth::Maybe, |ip| yes(spans.has(number(ip))))
            }
            Test::Port(spans) => yes(spans.has(request.port.into())),
            Test::LocalPort(spans) => yes(spans.has(request.at.port.into())),
            Test::PortName(names) => yes(names.contains(&request.at.name)),
            Test::Method(methods) => yes(methods.iter().any(|m| m == request.method)),
            Test::Scheme(schemes) => yes(schemes.iter().any(|s| s == request.scheme)),
            Test::Domain(names, no_lookup) => match request.name {
                Some(name) => yes(is_listed(name, names)),
                None => literal(names, request.to, *no_lookup),
            },
        };
        if said == Truth::No && self.partly { Truth::Maybe } else { said }
    }
}

fn yes(said: bool) -> Truth {
    if said { Truth::Yes } else { Truth::No }
}

/// Whether a name is among the domains, or below one that begins with a dot (`matchDomainName`).
pub fn is_listed(name: &str, domains: &BTreeSet<String>) -> bool {
    let name = name.trim_start_matches('.');
    let below = name.match_indices('.').filter_map(|(at, _)| name.get(at..));
    domains.contains(name) || domains.contains(&format!(".{name}")) || below.into_iter().any(|end| domains.contains(end))
}

/// An address among names: as it is written, and by the name that DNS gives it. Whose address is not public, his name is nobody's to choose.
fn literal(names: &BTreeSet<String>, to: u128, no_lookup: bool) -> Truth {
    let ip = address(to);
    let written = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    if names.contains(&written) {
        return Truth::Yes;
    }
    let public = crate::proxy::address::refused(ip, &[]).is_none();
    if no_lookup || names.is_empty() {
        Truth::No
    } else if public {
        Truth::Maybe
    } else if ip.is_loopback() {
        yes(is_listed("localhost", names))
    } else {
        Truth::No
    }
}

/// The words of a line with the files that it names read; whether one could not be.
fn expand(words: &[String], files: &dyn Files) -> (Vec<String>, Vec<Trouble>, bool) {
    let mut values = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let Some(path) = word.strip_prefix(['"', '\'']) else {
            values.push(word.clone());
            continue;
        };
        let path = path.split(['"', '\'']).next().unwrap_or_default();
        let mut trouble = Vec::new();
        if at + 1 < words.len() {
            trouble.push(Trouble::Ignored(format!("Squid reads nothing of this line after the file `{path}`")));
        }
        let unread = match files.read(path) {
            Ok(text) => {
                values.extend(entries(&text).map(str::to_string));
                false
            }
            Err(why) => {
                trouble.push(Trouble::NotFollowed(format!("`{path}` cannot be read ({why}), so who or what it lists is not known")));
                true
            }
        };
        return (values, trouble, unread);
    }
    (values, Vec::new(), false)
}

/// What values of that type match beside `known`, what earlier lines said; whether there is more that cannot be judged.
fn test(kind: &str, flags: &[&str], values: &[String], known: Option<Test>) -> (Test, bool, Vec<Trouble>) {
    let literals_alone = flags.contains(&"n");
    let mut partly = false;
    let mut trouble = Vec::new();
    let test = match (kind, known) {
        ("src", Some(Test::Source(kept))) => Test::Source(addresses(kept, values, &mut partly, &mut trouble)),
        ("src", _) => Test::Source(addresses(Spans::default(), values, &mut partly, &mut trouble)),
        ("localip", Some(Test::LocalAddress(kept))) => Test::LocalAddress(addresses(kept, values, &mut partly, &mut trouble)),
        ("localip", _) => Test::LocalAddress(addresses(Spans::default(), values, &mut partly, &mut trouble)),
        ("dst", Some(Test::Destination(kept, before))) => {
            Test::Destination(addresses(kept, values, &mut partly, &mut trouble), before || literals_alone)
        }
        ("dst", _) => Test::Destination(addresses(Spans::default(), values, &mut partly, &mut trouble), literals_alone),
        ("port", Some(Test::Port(kept))) => Test::Port(ports(&kept, values, &mut trouble)),
        ("port", _) => Test::Port(ports(&Spans::default(), values, &mut trouble)),
        ("localport", Some(Test::LocalPort(kept))) => Test::LocalPort(ports(&kept, values, &mut trouble)),
        ("localport", _) => Test::LocalPort(ports(&Spans::default(), values, &mut trouble)),
        ("method", known) => Test::Method(words(known, values, str::to_uppercase)),
        ("proto", known) => Test::Scheme(words(known, values, str::to_uppercase)),
        ("myportname", known) => Test::PortName(words(known, values, str::to_string)),
        ("dstdomain", known) => {
            let (mut domains, before) =
                if let Some(Test::Domain(domains, before)) = known { (domains, before) } else { Default::default() };
            domains.extend(values.iter().map(|value| value.to_lowercase()));
            Test::Domain(domains, before || literals_alone)
        }
        (_, Some(Test::Manager)) => {
            partly = true;
            Test::Manager
        }
        (_, Some(Test::Everything)) => Test::Everything,
        ("url_regex" | "dstdom_regex", _) if values.iter().any(|v| v == "." || v == ".*") => Test::Everything,
        _ => {
            if !OTHER_TYPES.contains(&format!(" {kind} ")) {
                trouble.push(Trouble::Refused(format!("there is no type `{kind}`")));
            }
            Test::Unknown
        }
    };
    (test, partly, trouble)
}

/// The words of this line after those of the earlier ones.
fn words(known: Option<Test>, values: &[String], spelt: impl Fn(&str) -> String) -> Vec<String> {
    let mut all = match known {
        Some(Test::Method(kept) | Test::Scheme(kept) | Test::PortName(kept)) => kept,
        _ => Vec::new(),
    };
    all.extend(values.iter().map(|value| spelt(value)));
    all
}

/// Adds each entry that overlaps none before it: of two that do, Squid 5 and 6 keep the first, be it the narrower one (`ACLIP::parse`).
fn addresses(mut kept: Spans, values: &[String], partly: &mut bool, trouble: &mut Vec<Trouble>) -> Spans {
    for value in values {
        let Some(spans) = address_spans(value) else {
            *partly = true;
            trouble.push(match value.starts_with(|c: char| c.is_ascii_digit() || c == ':') {
                true => Trouble::Refused(format!("`{value}` is no address")),
                false => Trouble::NotFollowed(format!("whose address `{value}` is, is known only when Squid starts")),
            });
            continue;
        };
        for span in spans {
            if !kept.iter().any(|k| k.both(span).is_some()) {
                kept = Spans::of(kept.iter().chain([span]));
            } else if kept.size_within(span) <= span.last - span.first && span != Span::ALL {
                let what = format!(
                    "Squid drops `{value}`, as it overlaps what stands before it, and of two only the first is kept: put the widest first"
                );
                trouble.push(Trouble::Ignored(what));
            }
        }
    }
    kept
}

/// An address, a network or a range as Squid reads it (`acl_ip_data::FactoryParse`).
fn address_spans(value: &str) -> Option<Vec<Span>> {
    let value = value.split([' ', '\t']).next().unwrap_or_default();
    match value {
        "all" | "0/0" | "0.0.0.0/0" | "0.0.0.0/0.0.0.0" | "0.0.0.0-255.255.255.255" | "0.0.0.0-0.0.0.0/0" => return Some(vec![Span::ALL]),
        "ipv4" => return Some(vec![Span::IPV4]),
        "ipv6" => {
            let nets = ["1000::/4", "2000::/3", "4000::/2", "8000::/2", "c000::/3", "e000::/4", "fc00::/7", "fe80::/10"];
            return Some(nets.iter().filter_map(|net| net.parse::<IpNet>().ok()).map(Span::from).collect());
        }
        _ => {}
    }
    let (range, mask) = value.split_once('/').map_or((value, None), |(range, mask)| (range, Some(mask)));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (IpAddr, IpAddr) = (first.parse().ok()?, last.parse().ok()?);
    let prefix = match mask {
        None => {
            if first.is_ipv4() {
                32
            } else {
                128
            }
        }
        Some(mask) => match mask.parse::<IpAddr>() {
            Ok(IpAddr::V4(mask)) => u8::try_from(u32::from(mask).leading_ones()).ok()?,
            Ok(IpAddr::V6(mask)) => u8::try_from(u128::from(mask).leading_ones()).ok()?,
            Err(_) => mask.parse().ok()?,
        },
    };
    let ends = (Span::from(IpNet::new(first, prefix).ok()?), Span::from(IpNet::new(last, prefix).ok()?));
    // With a mask, a range goes from the first network to the end of the last one.
    let span = Span { first: ends.0.first, last: ends.1.last };
    (span.first <= span.last).then(|| vec![span])
}

fn ports(known: &Spans, values: &[String], trouble: &mut Vec<Trouble>) -> Spans {
    let mut all: Vec<Span> = known.iter().collect();
    for value in values {
        let (first, last) = value.split_once('-').unwrap_or((value, value));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last => all.push(Span { first: first.into(), last: last.into() }),
            _ => trouble.push(Trouble::Refused(format!("`{value}` is no port"))),
        }
    }
    Spans::of(all)
}

/// ACLs of ACLs: each line of `all-of` needs all of its own, and one line is enough; `any-of` needs one of any line.
fn group(kind: &str, values: &[String], known: Option<Test>, acls: &Acls) -> (Test, bool, Vec<Trouble>) {
    let (terms, trouble) = terms(values, acls);
    let mut lines = if let Some(Test::AnyLine(lines)) = known { lines } else { Vec::new() };
    match kind {
        "all-of" => lines.push(terms),
        _ => lines.extend(terms.into_iter().map(|term| vec![term])),
    }
    (Test::AnyLine(lines), false, trouble)
}

/// The ACLs that a rule names; one that is not defined above it ends Squid.
pub fn terms(words: &[String], acls: &Acls) -> (Vec<Term>, Vec<Trouble>) {
    let mut trouble = Vec::new();
    let terms = words.iter().map(|word| {
        let (negated, name) = word.strip_prefix('!').map_or((false, word.as_str()), |name| (true, name));
        if acls.get(name).is_none() {
            trouble.push(Trouble::Refused(format!("no line above defines the ACL `{name}`")));
        }
        Term { negated, acl: name.to_lowercase() }
    });
    (terms.collect(), trouble)
}

//! Values: what a string must be to mean an address, a name, a proof … Errors say what is wrong and what to write.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

use super::reader::{did_you_mean, listed, near};
use super::written::{ListAt, Tried};
use crate::alert::sink::Address;
use crate::net::resolve::Resolver;
use crate::net::tls::Version;
use crate::observation::{ClientCertificate, Family};
use crate::probe::{Kind, LEFT_OUT, MAX_QUERY, Pick, Scope, Technique, Variant, is_plain_series};
use crate::proxy;
use crate::secret::Secret;
use crate::severity::Severity;
use crate::target::{Host, HostPort, Hosts, Scheme, Url, fold_mapped};
use crate::witness::Proof;

/// A name that can be a label value, a path segment and a word on the command line.
pub fn parse_name(text: &str, punctuation: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || punctuation.contains(c);
    let allowed: Vec<String> = punctuation.chars().map(String::from).collect();
    let (last, others) = allowed.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
    let allowed = if others.is_empty() { last.to_string() } else { format!("{} and {last}", others.join(" ")) };
    match text.chars().find(|c| !legal(*c)) {
        None if text.is_empty() => Err(format!("is empty; write letters, digits, {allowed}")),
        None => Ok(text.to_string()),
        Some(bad) => Err(format!("\"{text}\" contains {bad:?}; write letters, digits, {allowed}")),
    }
}

/// A kind by its token.
pub fn parse_kind(text: &str) -> Result<Kind, String> {
    match Kind::ALL.iter().find(|k| k.token() == text) {
        Some(kind) => Ok(*kind),
        None => Err(format!("\"{text}\" is no kind; {}", did_you_mean(text, Kind::ALL.iter().map(|k| k.token())))),
    }
}

/// Label names that the metrics use themselves, or that Datadog and Prometheus keep for themselves (SPEC section 7).
pub(super) const RESERVED_LABELS: [&str; 15] = [
    "check", "kind", "target", "expect", "severity", "vantage", "verdict", "cause", "proof", "host", "env", "service", "cluster", "le",
    "quantile",
];

/// Whether a check may give itself a label of this name.
pub fn parse_label(name: &str) -> Result<(), String> {
    let legal = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if name.is_empty() || !legal || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("\"{name}\" cannot be a label; write small letters, digits and _, no digit first"));
    }
    if RESERVED_LABELS.contains(&name) || name.starts_with("__") {
        let other = name.trim_start_matches('_');
        return Err(format!("the label \"{name}\" is reserved; write another name, such as \"my_{other}\""));
    }
    Ok(())
}

/// Any text but none.
pub fn filled(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty; write something or leave it out".into()) } else { Ok(text.into()) }
}

/// One line that says something, of at most so many characters.
pub fn parse_line(text: &str, most: usize) -> Result<String, String> {
    match text.chars().count() {
        _ if text.trim().is_empty() => Err("is empty; write a few words".into()),
        _ if text.chars().any(char::is_control) => Err("has a line end or another control character; write one line".into()),
        long if long > most => Err(format!("is {long} characters long; write at most {most}, and where to read the rest")),
        _ => Ok(text.into()),
    }
}

/// The address of one host.
pub fn parse_address(text: &str) -> Result<IpAddr, String> {
    let ip = text
        .parse::<IpAddr>()
        .map_err(|_| format!("\"{text}\" is not an address; write one such as \"192.0.2.10\" or \"2001:db8::10\""))?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(format!("\"{text}\" is not the address of one host; write one such as \"192.0.2.10\" or \"2001:db8::10\""));
    }
    Ok(fold_mapped(ip))
}

/// An address where nobody is.
pub fn parse_decoy(text: &str) -> Result<IpAddr, String> {
    let ip = parse_address(text)?;
    if ip.is_loopback() {
        return Err(format!(
            "\"{text}\" is this host itself, where nobody between would ever be heard; write an address beyond it, such as \"192.0.2.1\""
        ));
    }
    Ok(ip)
}

/// An address and port to listen on.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let remedy = match text.rsplit_once(':') {
        Some(("", port)) => format!("it has no address; write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for all"),
        Some(("localhost", port)) => format!("it has a name; write \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
        _ if text.parse::<IpAddr>().is_ok() => "it has no port; write one behind it, such as \"127.0.0.1:9890\" or \"[::1]:9890\"".into(),
        _ => "write address and port, such as \"127.0.0.1:9890\" or \"[::1]:9890\"".into(),
    };
    Err(format!("\"{text}\" is nothing to listen on: {remedy}"))
}

/// An address and port that are closed until somebody knocks: those that visitors dial, so one address and one port, of IPv4.
pub fn parse_door(text: &str) -> Result<SocketAddrV4, String> {
    let door = text.parse().map_err(|_| format!("\"{text}\" is no address and port; write one such as \"127.0.0.1:9893\""))?;
    match door {
        SocketAddr::V6(_) => Err(format!("\"{text}\" is IPv6, and the door is not; write an IPv4 address, such as \"127.0.0.1:9893\"")),
        SocketAddr::V4(door) if door.ip().is_unspecified() => {
            Err(format!("\"{text}\" is all addresses, and visitors are sent to one; write that one, such as \"127.0.0.1:{}\"", door.port()))
        }
        SocketAddr::V4(door) if door.port() == 0 => {
            Err(format!("\"{text}\" is any free port, and a closed one must be known; write it, such as \"{}:9893\"", door.ip()))
        }
        SocketAddr::V4(door) => Ok(door),
    }
}

/// A target that is not a URL.
pub fn parse_host_port(text: &str) -> Result<HostPort, String> {
    if text.contains("://") {
        return Err(format!("\"{text}\" is a URL; write host:port"));
    }
    if text.contains('@') {
        return Err("no user name or password may stand in a target; leave them out".into());
    }
    let target: HostPort = text.parse()?;
    one_host(&target.host)?;
    Ok(target)
}

/// A host without a port, or a network.
pub fn parse_scope(text: &str) -> Result<Scope, String> {
    if text.contains("://") {
        return Err(format!("\"{text}\" is a URL; write the host alone"));
    }
    let scope: Scope = text.parse()?;
    one_host(&scope.host.host)?;
    Ok(scope)
}

/// A host without a port, a network or a range of addresses.
pub fn parse_hosts(text: &str) -> Result<Hosts, String> {
    if text.contains("://") {
        return Err(format!("\"{text}\" is a URL; write the host alone"));
    }
    if text.contains('@') {
        return Err("no user name or password may stand in a target; leave them out".into());
    }
    if text.parse::<IpAddr>().is_err()
        && let Ok(HostPort { host, port }) = text.parse()
    {
        return Err(format!("\"{text}\" names a port; write target = \"{host}\" and ports = [{port}]"));
    }
    let hosts: Hosts = text.parse()?;
    match &hosts {
        Hosts::One(host) => one_host(host)?,
        Hosts::Net(_) | Hosts::Range(..) => {
            for ip in hosts.addresses().into_iter().flatten() {
                one_host(&Host::Ip(ip))?;
            }
        }
    }
    Ok(hosts)
}

/// A literal must be an address that can be dialled.
fn one_host(host: &Host) -> Result<(), String> {
    let remedy = "write one such as 192.0.2.10 or [2001:db8::10]";
    match host.ip() {
        Some(ip) if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Err(format!("{host} is not the address of one host; {remedy}"))
        }
        Some(IpAddr::V6(ip)) if ip.is_unicast_link_local() => {
            Err(format!("{host} is link-local, which is an address only together with an interface; {remedy}"))
        }
        _ => Ok(()),
    }
}

/// A URL without credentials.
pub fn parse_url(text: &str) -> Result<Url, String> {
    if has_credentials(text) {
        return Err("no user name or password may stand in a URL; leave them out".into());
    }
    let url: Url = text.parse()?;
    one_host(&url.authority.host)?;
    Ok(url)
}

/// A network interface, as flow logs name it.
pub fn parse_interface(text: &str) -> Result<String, String> {
    let plain = text.strip_prefix("eni-").is_some_and(|id| !id.is_empty() && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    if plain { Ok(text.into()) } else { Err(format!("\"{text}\" is no network interface; write its id, such as \"eni-0a1b2c3d\"")) }
}

/// Where a list is published: a URL, or `file:` and the name of a file.
pub fn parse_list_at(text: &str) -> Result<ListAt, String> {
    let Some(name) = text.strip_prefix("file:") else {
        return match text.contains("://") {
            true => parse_url(text).map(ListAt::Url),
            false => Err(format!("\"{text}\" is no URL; write https://host/path, or \"file:{text}\" for a file on this host")),
        };
    };
    let name = name.strip_prefix("//").map_or(Ok(name), |rest| match rest.starts_with('/') {
        true => Ok(rest),
        false => Err(format!("\"{text}\" names a host, and only files on this one are read; write file:///path")),
    })?;
    if name.is_empty() { Err("names no file; write \"file:published.json\"".into()) } else { Ok(ListAt::File(name.into())) }
}

/// A URL that something is put behind.
pub fn parse_base(text: &str) -> Result<Url, String> {
    let url = parse_url(text)?;
    match url.path.split_once('?') {
        None => Ok(url),
        Some((path, query)) => {
            Err(format!("\"?{query}\" cannot stand there, more is put behind the path; write \"{}://{}{path}\"", url.scheme, url.authority))
        }
    }
}

fn has_credentials(url: &str) -> bool {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    authority.is_some_and(|a| a.contains('@'))
}

/// Where alerts go: its path may be a secret, and is never shown.
pub fn parse_sink(text: &str) -> Result<Address, String> {
    address(text, parse_url)
}

/// An Alertmanager's base URL.
pub fn parse_alertmanager(text: &str) -> Result<Address, String> {
    address(text, parse_base)
}

fn address(text: &str, parse: impl Fn(&str) -> Result<Url, String>) -> Result<Address, String> {
    let url = parse(text)?;
    let shown = format!("{}://{}", url.scheme, url.authority);
    // What reads it when something is sent must read it the same way.
    let other =
        reqwest::Url::parse(text).map_err(|e| format!("is no URL: {e}; write one such as \"https://hooks.example.com/mustnot\""))?;
    if other.port_or_known_default() != Some(url.authority.port) {
        return Err("is read in two ways; write it in plain letters".into());
    }
    Ok(Address::new(Secret::new(text), shown))
}

/// A beacon's URL.
pub fn parse_beacon(text: &str) -> Result<Url, String> {
    let url = parse_base(text)?;
    match url.scheme {
        Scheme::Http => Ok(url),
        Scheme::Https => {
            Err(format!("the beacon is asked over plain HTTP, its signature is its proof; write \"http://{}{}\"", url.authority, url.path))
        }
    }
}

/// How a proxy is asked: whether in absolute form.
pub fn parse_via_method(text: &str) -> Result<bool, String> {
    match text {
        "connect" => Ok(false),
        "absolute" => Ok(true),
        _ => Err(format!("\"{text}\" is not a way to ask a proxy; write \"connect\" or \"absolute\"")),
    }
}

/// A proxy to go through.
pub fn parse_via(text: &str) -> Result<HostPort, String> {
    let Some(rest) = text.strip_prefix("http://") else {
        return Err(match text.split_once("://") {
            Some((scheme, rest)) => format!("\"{scheme}\" is not spoken to a proxy; write \"http://{}\"", without_credentials(rest)),
            None => format!("\"{text}\" is not a URL; write \"http://{}\"", without_credentials(text)),
        });
    };
    if rest.contains('@') {
        return Err("no user name or password may stand in a URL; write via_user and via_password_file".into());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err(format!("\"{text}\" has a path; write only http://host:port"));
    }
    let proxy = rest.parse::<HostPort>().map_err(|why| why.replace("write host:port", "write http://host:port"))?;
    one_host(&proxy.host)?;
    Ok(proxy)
}

fn without_credentials(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, rest)| rest)
}

/// A link, or any other hint at where to read on.
pub fn parse_runbook(text: &str) -> Result<String, String> {
    if has_credentials(text) {
        return Err("no user name or password may stand in a URL; leave them out".into());
    }
    filled(text)
}

/// `-`, or a file that starts where the configuration lies.
pub fn parse_log(text: &str, base_dir: &Path) -> Result<proxy::LogTarget, String> {
    if text == "-" { text.parse() } else { base_dir.join(filled(text)?).to_string_lossy().parse() }
}

/// A plain series: of an expression nobody can tell how old the samples behind it are.
pub fn parse_query(text: &str) -> Result<String, String> {
    if text.len() > MAX_QUERY {
        return Err(format!("is {} bytes long; write at most {MAX_QUERY}", text.len()));
    }
    if !is_plain_series(text) {
        return Err(format!(
            "\"{text}\" is no plain series, and of an expression nobody can tell how old the samples behind it are; \
             write a name with its labels, such as up{{job=\"admin\"}}"
        ));
    }
    Ok(text.trim().into())
}

/// A user name (RFC 7617 section 2).
pub fn parse_user(text: &str) -> Result<String, String> {
    if text.contains(':') || text.chars().any(char::is_control) {
        return Err("a user name has no colon and no control character (RFC 7617); the password comes from a file".into());
    }
    filled(text)
}

/// Costs of a bcrypt hash that is checked in at most some seconds: each step doubles the work.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;

/// The bcrypt hash of a password. What is wrong with it is told without it.
pub fn parse_bcrypt(text: &str) -> Result<Secret, String> {
    let remedy = "write what `htpasswd -nBC 10 USER` gives behind the colon, 60 characters that begin with $2y$";
    let parts: bcrypt::HashParts = text.parse().map_err(|_| format!("is no bcrypt hash; {remedy}"))?;
    match parts.get_cost() {
        cost if COSTS.contains(&cost) => Ok(Secret::new(text)),
        cost => Err(format!(
            "is a bcrypt hash of cost {cost}, and checking one takes a moment at {} to {} only; {remedy}",
            COSTS.start(),
            COSTS.end()
        )),
    }
}

/// A request method that a probe may send.
pub fn parse_method(text: &str) -> Result<String, String> {
    match text {
        "CONNECT" => Err("CONNECT is what via does; write another method".into()),
        "" => Err("is empty; write \"GET\"".into()),
        _ if text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_') => Ok(text.into()),
        _ if text.bytes().all(|b| b.is_ascii_alphabetic()) => {
            Err(format!("methods are in capitals; write \"{}\"", text.to_ascii_uppercase()))
        }
        _ => Err(format!("\"{text}\" is not a method; write \"GET\"")),
    }
}

/// A protocol name (RFC 7301 section 3.1).
pub fn parse_alpn(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 {
        return Err("a protocol name has 1 to 255 bytes (RFC 7301); write one such as \"http/1.1\"".into());
    }
    Ok(text.into())
}

/// A client certificate that strangers have.
pub fn parse_client_cert(text: &str) -> Result<ClientCertificate, String> {
    let known = [ClientCertificate::None, ClientCertificate::SelfSigned];
    let found = known.into_iter().find(|c| client_cert_name(*c) == text);
    found.ok_or_else(|| format!("\"{text}\" is no client certificate to try; {}", did_you_mean(text, known.map(client_cert_name))))
}

/// Its name, as written.
pub fn client_cert_name(certificate: ClientCertificate) -> &'static str {
    match certificate {
        ClientCertificate::None => "none",
        ClientCertificate::SelfSigned => "self-signed",
        ClientCertificate::Own => "own",
    }
}

/// A SHA-256 in hexadecimal digits, as `openssl x509 -fingerprint -sha256` writes it or without the colons.
pub fn parse_sha256(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(digits.to_ascii_lowercase());
    }
    Err(format!("\"{text}\" is no SHA-256; write 64 hexadecimal digits, as `openssl x509 -noout -fingerprint -sha256` gives them"))
}

/// A TLS version.
pub fn parse_version(text: &str) -> Result<Version, String> {
    match text {
        "1.0" => Ok(Version::V1_0),
        "1.1" => Ok(Version::V1_1),
        "1.2" => Ok(Version::V1_2),
        "1.3" => Ok(Version::V1_3),
        _ => Err(format!(
            "\"{text}\" is not a TLS version that can be offered; write \"1.2\" or \"1.3\", or \"1.0\" or \"1.1\" as max_version of a tls check that they are refused"
        )),
    }
}

/// A technique by its number in the catalogue, or a set of them by its name.
pub fn parse_technique(text: &str) -> Result<Tried, String> {
    match text {
        "standard" => return Ok(Tried::Standard),
        "quick" => return Ok(Tried::Quick),
        _ => {}
    }
    if let Some(technique) = Technique::of(text) {
        return Ok(Tried::One(technique));
    }
    if let Some((id, why)) = LEFT_OUT.iter().find(|(id, _)| *id == text) {
        return Err(format!("{id} is not sent: {why}; leave it out"));
    }
    let known = ["standard", "quick"].into_iter().chain(Technique::ALL.iter().map(|t| t.id()));
    Err(format!("\"{text}\" is no technique; write one of {}", listed(known)))
}

/// Which variants of a request: all, those of one number of the catalogue, or one.
pub fn parse_variants(text: &str) -> Result<Pick, String> {
    let known = || ["standard"].into_iter().chain(Variant::numbers()).chain(Variant::names());
    match text {
        "standard" => Ok(Pick::Standard),
        _ if known().any(|name| name == text) => Ok(Pick::Named(text.into())),
        "AD-01" => Err("\"AD-01\" is a check of kind tcp or ports, not a variant of a request; leave it out".into()),
        "AD-03" => Err("\"AD-03\" is a check of its own, on the address of the origin; leave it out".into()),
        "AD-10" => Err("\"AD-10\" is a check of kind tls, or of http with client certificates; leave it out".into()),
        "AD-12" => Err("\"AD-12\" is a check of its own for each path; leave it out".into()),
        _ => match near(text, known()) {
            Some(meant) => Err(format!("\"{text}\" is no variant; did you mean \"{meant}\"?")),
            None => {
                Err(format!("\"{text}\" is no variant; write \"standard\", or some of {} or of their names", listed(Variant::numbers())))
            }
        },
    }
}

/// A version of HTTP over plain text; true for 2.
pub fn parse_http_version(text: &str) -> Result<bool, String> {
    match text {
        "1.1" => Ok(false),
        "2" => Ok(true),
        _ => Err(format!("\"{text}\" is not a version of HTTP that is spoken; write \"1.1\" or \"2\"")),
    }
}

/// A proof by its token.
pub fn parse_proof(text: &str) -> Result<Proof, String> {
    let found = Proof::ALL.into_iter().find(|p| p.token() == text);
    found.ok_or_else(|| format!("\"{text}\" is no proof; {}", did_you_mean(text, Proof::ALL.map(Proof::token))))
}

/// A family by its token.
pub fn parse_family(text: &str) -> Result<Family, String> {
    match text {
        "ipv4" => Ok(Family::V4),
        "ipv6" => Ok(Family::V6),
        _ => Err(format!("\"{text}\" is no family; write \"ipv4\" or \"ipv6\"")),
    }
}

/// A severity by its token.
pub fn parse_severity(text: &str) -> Result<Severity, String> {
    let found = Severity::ALL.into_iter().find(|s| s.token() == text);
    found.ok_or_else(|| format!("\"{text}\" is no severity; {}", did_you_mean(text, Severity::ALL.map(Severity::token))))
}

/// Whom to ask for addresses; the port is 53 (RFC 1035 section 4.2) unless it is given.
pub fn parse_resolver(text: &str) -> Result<Resolver, String> {
    const DNS: u16 = 53;
    if text == "system" {
        return Ok(Resolver::System);
    }
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS));
    match bare.or_else(|_| text.parse::<SocketAddr>()) {
        Ok(server) if server.port() != 0 && !server.ip().is_unspecified() => Ok(Resolver::At(server)),
        _ => Err(format!("\"{text}\" is no resolver; write \"system\", an address, or address:port such as \"192.0.2.53:53\"")),
    }
}

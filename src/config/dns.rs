//! The keys of a dns check, and what their values must be.

use std::net::{IpAddr, SocketAddr};

use super::problem::At;
use super::reader::{Section, listed};
use crate::probe::{Allowed, DNS_PORT, RecordType};
use crate::target::{fold_mapped, parse_cidr};

/// The longest name that DNS can carry in text form (RFC 1035 section 2.3.4, less length octets).
const MAX_NAME: usize = 253;
/// The longest label of a name (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;
/// The most questions that one run may ask: each is sent three times by each attempt at least.
const MAX_QUESTIONS: usize = 64;

/// The keys of `dns`.
pub struct Dns {
    /// `target`, in small letters and without the last dot; the root is a dot
    pub target: Option<At<String>>,
    /// `record`
    pub records: Option<At<Vec<At<RecordType>>>>,
    /// `server`
    pub servers: Option<At<Vec<At<SocketAddr>>>>,
    /// `answers`
    pub answers: Option<At<Vec<At<Allowed>>>>,
}

impl Dns {
    pub(super) fn read(section: &Section<'_, '_>) -> Dns {
        let dns = Dns {
            target: section.parsed("target", "\"db.internal.example.com\"", parse_name),
            records: some(section, section.one_or_list("record", "\"A\"", parse_record), "leave it out for A and AAAA"),
            servers: some(section, section.one_or_list("server", "\"192.0.2.53\"", parse_server), "leave it out for the system's servers"),
            answers: some(section, section.one_or_list("answers", "\"192.0.2.7\"", parse_answer), "leave it out where any will do"),
        };
        let count = |n: Option<usize>| n.unwrap_or(1);
        let questions = count(dns.records.as_ref().map(|r| r.value.len())) * count(dns.servers.as_ref().map(|s| s.value.len()));
        if questions > MAX_QUESTIONS {
            let message = format!("asks {questions} questions, each type at each server; write at most {MAX_QUESTIONS}, or two checks");
            section.context().wrong(&section.place, message);
        }
        dns
    }

    /// The servers that are written.
    pub fn servers(&self) -> impl Iterator<Item = &At<SocketAddr>> {
        self.servers.iter().flat_map(|list| &list.value)
    }
}

/// A list with something in it, and nothing twice.
fn some<T: PartialEq>(section: &Section<'_, '_>, list: Option<At<Vec<At<T>>>>, remedy: &str) -> Option<At<Vec<At<T>>>> {
    let mut list = list?;
    if list.value.is_empty() && !section.holds_problem_at(&list.place) {
        section.context().wrong(&list.place, format!("is empty; {remedy}"));
    }
    let mut kept: Vec<At<T>> = Vec::new();
    for entry in list.value.drain(..) {
        if kept.iter().any(|k| k.value == entry.value) {
            section.context().wrong(&entry.place, "stands there twice; write it once");
        } else {
            kept.push(entry);
        }
    }
    (!kept.is_empty()).then_some(At { value: kept, place: list.place })
}

/// A name to ask for.
fn parse_name(text: &str) -> Result<String, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        let reverse = reverse_name(fold_mapped(ip));
        return Err(format!("\"{text}\" is an address, and a name is asked for; write target = \"{reverse}\" with record = \"PTR\""));
    }
    if text == "." {
        return Ok(text.into());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err("is empty; write a name such as \"db.internal.example.com\"".into());
    }
    if !name.is_ascii() {
        return Err(format!("\"{text}\" is not ASCII; write the name's xn-- form"));
    }
    if text.contains("://") || text.contains(':') {
        return Err(format!("\"{text}\" is more than a name; write the name alone, and whom to ask as server"));
    }
    if name.len() > MAX_NAME {
        return Err(format!("the name is {} characters long; DNS allows {MAX_NAME}", name.len()));
    }
    if name.split('.').any(|label| label.is_empty() || label.len() > MAX_LABEL) {
        return Err(format!("\"{text}\" is not a DNS name; write labels of 1 to {MAX_LABEL} characters between single dots"));
    }
    // Reverse zones smaller than a class have a slash (RFC 2317), wildcards a star.
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_*/.".contains(*c))) {
        Some(bad) => Err(format!("\"{text}\" is not a DNS name: it may not contain {bad:?}; write letters, digits, -, _, * and /")),
        None => Ok(name.to_ascii_lowercase()),
    }
}

/// The name under which an address is looked up (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

/// A record type by its name, or by its number.
fn parse_record(text: &str) -> Result<RecordType, String> {
    text.parse().map_err(|()| {
        let remedy = match text.to_ascii_uppercase() {
            capitals if capitals == "IXFR" => "write \"AXFR\"".to_string(),
            capitals if capitals != text && capitals.parse::<RecordType>().is_ok() => format!("write \"{capitals}\""),
            _ => format!("write one of {}, or TYPE and its number, such as TYPE29", listed(RecordType::NAMES.iter().map(|(_, n)| *n))),
        };
        format!("\"{text}\" is no record type that can be asked for; {remedy}")
    })
}

/// Whom to ask.
fn parse_server(text: &str) -> Result<SocketAddr, String> {
    let remedy = "write an address, or address:port such as \"192.0.2.53:53\" or \"[2001:db8::53]:53\"";
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(fold_mapped(ip), DNS_PORT));
    let server = bare.or_else(|_| text.parse::<SocketAddr>().map(|s| SocketAddr::new(fold_mapped(s.ip()), s.port())));
    match server {
        Err(_) if text == "system" => Err("the system's servers are asked where none is written; leave it out".into()),
        Err(_) => Err(format!("\"{text}\" is no server; {remedy}")),
        Ok(server) if server.port() == 0 || server.ip().is_unspecified() || server.ip().is_multicast() => {
            Err(format!("\"{text}\" is not the address of one host; {remedy}"))
        }
        Ok(server) => Ok(server),
    }
}

/// An address or network, or what a record of another type says.
fn parse_answer(text: &str) -> Result<Allowed, String> {
    let like_a_net = text.split_once('/').map_or(text, |(ip, _)| ip).parse::<IpAddr>().is_ok();
    if like_a_net {
        return parse_cidr(text).map(Allowed::Net);
    }
    if text.is_empty() {
        return Err("is empty; write an address, a network, or what the record says".into());
    }
    Ok(Allowed::Text(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_sides_of_each_border() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        for (text, name) in [
            ("DB.Example.com.", "db.example.com"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("*.example.com", "*.example.com"),
            ("0/25.2.0.192.in-addr.arpa", "0/25.2.0.192.in-addr.arpa"),
            (".", "."),
            ("localhost", "localhost"),
            (longest.as_str(), longest.as_str()),
        ] {
            assert_eq!(parse_name(text).as_deref(), Ok(name), "{text}");
        }
        let too_long = format!("{longest}c");
        let bad_label = format!("{label}a.example.com");
        for text in ["", "a..b", "..", "a b", "db.example.com:53", "dns://db", "bücher.example", "a\\b", &too_long, &bad_label] {
            assert!(parse_name(text).is_err(), "{text}");
        }
        assert!(parse_name("192.0.2.7").unwrap_err().contains("\"7.2.0.192.in-addr.arpa\""));
        assert!(
            parse_name("2001:db8::7").unwrap_err().contains("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa")
        );
    }

    #[test]
    fn record_types_by_name_and_number() {
        for (text, shown) in
            [("A", "A"), ("TYPE1", "A"), ("TYPE29", "TYPE29"), ("ANY", "ANY"), ("AXFR", "AXFR"), ("TYPE65534", "TYPE65534")]
        {
            assert_eq!(parse_record(text).map(|r| r.to_string()), Ok(shown.to_string()), "{text}");
        }
        for text in ["", "a", "aaaa", "TYPE", "TYPE0", "TYPE41", "TYPE249", "TYPE251", "TYPE65535", "TYPE65536", "TYPE+1", "IXFR", "OPT"] {
            assert!(parse_record(text).is_err(), "{text}");
        }
        assert!(parse_record("mx").unwrap_err().ends_with("write \"MX\""));
    }

    #[test]
    fn servers_and_answers() {
        assert_eq!(parse_server("192.0.2.53"), Ok("192.0.2.53:53".parse().unwrap()));
        assert_eq!(parse_server("2001:db8::53"), Ok("[2001:db8::53]:53".parse().unwrap()));
        assert_eq!(parse_server("[2001:db8::53]:5353"), Ok("[2001:db8::53]:5353".parse().unwrap()));
        assert_eq!(parse_server("::ffff:192.0.2.53"), Ok("192.0.2.53:53".parse().unwrap()));
        for text in ["", "ns.example.com", "system", "0.0.0.0", "224.0.0.1", "192.0.2.53:0", "192.0.2.53:"] {
            assert!(parse_server(text).is_err(), "{text}");
        }
        assert_eq!(parse_answer("192.0.2.7"), Ok(Allowed::Net("192.0.2.7/32".parse().unwrap())));
        assert_eq!(parse_answer("10 mail.example.com."), Ok(Allowed::Text("10 mail.example.com.".into())));
        assert!(parse_answer("192.0.2.7/24").is_err());
        assert!(parse_answer("").is_err());
    }
}

//! Lists of networks as they are published: JSON with a pointer to the networks in it, or plain lines. A list is read whole or not
//! at all: one entry that is no network, and nobody knows what else was meant otherwise.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::observation::one_line;

/// The most networks of one list: the largest that is published, Azure's service tags, has some hundred thousand.
const MAX_ENTRIES: usize = 300_000;
/// Characters of an entry that is no network, in a sentence.
const MAX_SHOWN: usize = 60;
/// The most parts of a pointer: serde_json reads no deeper than 128.
const MAX_PARTS: usize = 32;

/// Where the networks stand in a JSON document: a JSON Pointer (RFC 6901), in which `*` stands for each element of an array or
/// each member of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    parts: Vec<Part>,
    written: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Each,
    Named(String),
}

/// How to read a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// Where the networks stand; nowhere said, it is the whole document, or plain lines.
    pub pointers: Vec<Pointer>,
    /// What the objects must say, by member, that the first `*` gives; the others are passed over.
    pub only_where: Vec<(String, String)>,
}

impl Pointer {
    /// Whether something stands for each of many.
    pub fn has_each(&self) -> bool {
        self.parts.contains(&Part::Each)
    }
}

impl FromStr for Pointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Pointer, String> {
        let remedy = "write one such as /prefixes/*/ip_prefix (RFC 6901; * stands for each)";
        let Some(rest) = text.strip_prefix('/') else {
            return match text {
                "" => Ok(Pointer { parts: Vec::new(), written: String::new() }),
                _ => Err(format!("\"{text}\" is no JSON Pointer, which begins with /; {remedy}")),
            };
        };
        let parts: Vec<Part> = rest
            .split('/')
            .map(part)
            .collect::<Option<_>>()
            .ok_or_else(|| format!("\"{text}\" is no JSON Pointer: behind ~ stands 0 (for ~) or 1 (for /); {remedy}"))?;
        if parts.len() > MAX_PARTS {
            return Err(format!("has {} parts; write at most {MAX_PARTS}", parts.len()));
        }
        Ok(Pointer { parts, written: text.into() })
    }
}

/// One part (RFC 6901 section 4): first `~1`, then `~0`.
fn part(text: &str) -> Option<Part> {
    let lone = text.split('~').skip(1).any(|behind| !behind.starts_with(['0', '1']));
    let named = || Part::Named(text.replace("~1", "/").replace("~0", "~"));
    (!lone).then(|| if text == "*" { Part::Each } else { named() })
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.written.is_empty() { "the whole document" } else { &self.written })
    }
}

impl Form {
    /// The networks of the list, at least one.
    ///
    /// # Errors
    /// Why it is no list.
    pub fn read(&self, bytes: &[u8]) -> Result<Vec<IpNet>, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text")?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut found = Vec::new();
        if self.pointers.is_empty() && !text.trim_start().starts_with(['[', '{']) {
            lines(text, &mut found)?;
        } else if self.pointers.is_empty() {
            self.point(text, &Pointer { parts: Vec::new(), written: String::new() }, &mut found)?;
        }
        for pointer in &self.pointers {
            self.point(text, pointer, &mut found)?;
        }
        if found.is_empty() { Err("it names no network".into()) } else { Ok(found) }
    }

    /// What one pointer gives. Nothing is an error: the publisher may have renamed what it leads to, and half a list is none.
    fn point(&self, text: &str, pointer: &Pointer, found: &mut Vec<IpNet>) -> Result<(), String> {
        let before = found.len();
        let mut json = serde_json::Deserializer::from_str(text);
        let walk = Walk { parts: &pointer.parts, only_where: &self.only_where, found, element: false };
        walk.deserialize(&mut json).and_then(|()| json.end()).map_err(|e| format!("{pointer}: {e}"))?;
        if found.len() > before {
            return Ok(());
        }
        let those = if self.only_where.is_empty() { "" } else { " where it is as where says" };
        Err(format!("{pointer} leads to no network{those}"))
    }
}

/// One network a line; behind `#` or `;` stands a comment.
fn lines(text: &str, found: &mut Vec<IpNet>) -> Result<(), String> {
    for (at, line) in text.lines().enumerate() {
        let entry = line.split(['#', ';']).next().unwrap_or_default().trim();
        if !entry.is_empty() {
            take(entry, found).map_err(|why| format!("line {}: {why}", at + 1))?;
        }
    }
    Ok(())
}

fn take(entry: &str, found: &mut Vec<IpNet>) -> Result<(), String> {
    if found.len() >= MAX_ENTRIES {
        return Err(format!("it has more than {MAX_ENTRIES} networks"));
    }
    found.push(network(entry)?);
    Ok(())
}

/// A network, or one address. Bits behind the prefix are refused: one address may be meant, or the whole network.
fn network(entry: &str) -> Result<IpNet, String> {
    if let Ok(ip) = entry.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    let net = cidr(entry).ok_or_else(|| format!("\"{}\" is no network", short(entry)))?;
    if net.trunc() != net {
        return Err(format!("\"{net}\" has bits set behind its prefix: is it {} or {}?", net.addr(), net.trunc()));
    }
    Ok(net)
}

/// An address and a prefix in decimal digits; a number that begins with 0, which some take for octal, is neither.
fn cidr(entry: &str) -> Option<IpNet> {
    let (ip, prefix) = entry.split_once('/')?;
    let plain = prefix == "0" || (!prefix.starts_with('0') && prefix.bytes().all(|b| b.is_ascii_digit()));
    IpNet::new(ip.parse().ok()?, prefix.parse().ok().filter(|_| plain)?).ok()
}

/// As much of a text from outside as a sentence can bear.
pub(super) fn short(text: &str) -> String {
    let mut shown = one_line(text, MAX_SHOWN);
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// A walk along a pointer; what lies beside the way is skipped as it is read, and never kept.
struct Walk<'a> {
    parts: &'a [Part],
    only_where: &'a [(String, String)],
    found: &'a mut Vec<IpNet>,
    /// The first `*` gave this, and `where` has something to ask it.
    element: bool,
}

impl Walk<'_> {
    /// The same from the next part on, for one of many or for the one that is named.
    fn next<'n>(&'n mut self, parts: &'n [Part], element: bool) -> Walk<'n> {
        Walk { parts, only_where: self.only_where, found: self.found, element }
    }

    /// What is no network, no array and no object: nothing on the way, and no network at its end.
    fn other<E: Error>(self, what: &str) -> Result<(), E> {
        match self.parts {
            // What says nothing of itself is not what `where` wants.
            _ if self.element => Ok(()),
            [] => Err(E::custom(format_args!("there is {what}, not a network"))),
            _ => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.parts {
            [] if !self.element => take(text.trim(), self.found).map_err(E::custom),
            _ => Ok(()),
        }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.other("true or false")
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.other("a number")
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.other("a number")
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.other("a number")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.other("null")
    }

    /// An array at the pointer's end stands for its elements.
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<(), A::Error> {
        match self.parts.split_first() {
            _ if self.element => while array.next_element::<IgnoredAny>()?.is_some() {},
            None => while array.next_element_seed(self.next(&[], false))?.is_some() {},
            Some((Part::Each, rest)) => {
                let element = !self.only_where.is_empty();
                while array.next_element_seed(self.next(rest, element))?.is_some() {}
            }
            Some((Part::Named(name), rest)) => {
                let nth = name.parse::<usize>().ok();
                for at in 0.. {
                    let more = match nth == Some(at) {
                        true => array.next_element_seed(self.next(rest, false))?.is_some(),
                        false => array.next_element::<IgnoredAny>()?.is_some(),
                    };
                    if !more {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        if self.element {
            return self.visit_element(object);
        }
        let Some((part, rest)) = self.parts.split_first() else { return self.other("an object") };
        let element = *part == Part::Each && !self.only_where.is_empty();
        let mut seen = false;
        while let Some(key) = object.next_key::<String>()? {
            match part {
                Part::Named(name) if *name != key => drop(object.next_value::<IgnoredAny>()?),
                // Of two members of one name (RFC 8259 section 4) some readers take the first, others the last.
                Part::Named(name) if std::mem::replace(&mut seen, true) => {
                    return Err(A::Error::custom(format_args!("\"{}\" stands there twice", short(name))));
                }
                _ => object.next_value_seed(self.next(rest, element))?,
            }
        }
        Ok(())
    }
}

impl Walk<'_> {
    /// An object that must say what `where` wants: what it gives is taken once that is known, since its members have no order.
    fn visit_element<'de, A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let Some((part, rest)) = self.parts.split_first() else { return self.other("an object") };
        let mut given = Vec::new();
        let mut says: Vec<Option<bool>> = vec![None; self.only_where.len()];
        let mut seen = false;
        while let Some(key) = object.next_key::<String>()? {
            let wanted = self.only_where.iter().zip(&mut says).find(|((name, _), _)| *name == key);
            let twice = || A::Error::custom(format_args!("\"{}\" stands there twice", short(&key)));
            match (wanted, part) {
                (Some((_, Some(_))), _) => return Err(twice()),
                (Some(((_, value), met)), _) => *met = Some(object.next_value::<Said>()?.0.as_ref() == Some(value)),
                (None, Part::Named(name)) if *name != key => drop(object.next_value::<IgnoredAny>()?),
                (None, Part::Named(_)) if std::mem::replace(&mut seen, true) => return Err(twice()),
                // `where` has been asked here, and is not again further down.
                (None, _) => object.next_value_seed(Walk { parts: rest, only_where: &[], found: &mut given, element: false })?,
            }
        }
        if says.iter().all(|met| *met == Some(true)) {
            if self.found.len() + given.len() > MAX_ENTRIES {
                return Err(A::Error::custom(format_args!("it has more than {MAX_ENTRIES} networks")));
            }
            self.found.append(&mut given);
        }
        Ok(())
    }
}

/// A plain value as text; none where it is an array, an object or null.
struct Said(Option<String>);

impl<'de> serde::Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Said, D::Error> {
        deserializer.deserialize_any(Plain).map(Said)
    }
}

struct Plain;

impl<'de> Visitor<'de> for Plain {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<String>, E> {
        Ok(Some(text.into()))
    }

    fn visit_bool<E: Error>(self, yes: bool) -> Result<Option<String>, E> {
        Ok(Some(yes.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<String>, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<String>, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Option<String>, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_unit<E: Error>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Option<String>, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Option<String>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests;

//! Access rules: which line decides a request, and what it hangs on.

use super::acl::{Acls, Request, Term, terms};
use super::read::{Directive, Place, Trouble};

/// The most unknown ACLs whose every answer is tried on one request.
const MAX_ASSUMED: usize = 10;

/// One `allow` or `deny` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whether it lets in.
    pub allow: bool,
    /// All of these must match.
    pub terms: Vec<Term>,
    /// Where it stands.
    pub at: Place,
}

/// The lines of one access directive, in their order.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

/// One way in which a request can be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// Whether it is let in.
    pub allowed: bool,
    /// The line that decides; without one it is the opposite of the last line, or a denial where there is no line.
    pub rule: Option<&'a Rule>,
    /// What unknown ACLs must answer for it: their names and whether they match.
    pub assumed: Vec<(&'a str, bool)>,
}

impl Rules {
    /// Takes a line in; gives what is wrong with it.
    pub fn add(&mut self, line: &Directive, acls: &Acls) -> Vec<Trouble> {
        let [action, names @ ..] = line.words.as_slice() else {
            return vec![skipped("it says neither `allow` nor `deny`")];
        };
        let allow = match action.as_str() {
            "allow" => true,
            "deny" => false,
            _ => return vec![skipped("it says neither `allow` nor `deny`")],
        };
        let (terms, trouble) = terms(names, acls);
        if terms.is_empty() {
            return vec![skipped("it names no ACL")];
        }
        self.0.push(Rule { allow, terms, at: line.at.clone() });
        trouble
    }

    /// The lines.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Rule> {
        self.0.iter()
    }

    /// The last line.
    pub fn last(&self) -> Option<&Rule> {
        self.0.last()
    }

    /// Every way in which the request can be decided; one where all ACLs are known.
    pub fn outcomes<'a>(&'a self, acls: &'a Acls, request: &Request<'_>) -> Vec<Outcome<'a>> {
        let mut done = Vec::new();
        let mut open = vec![Vec::new()];
        while let Some(assumed) = open.pop() {
            match self.decide(acls, request, &assumed) {
                Ok((allowed, rule)) => done.push(Outcome { allowed, rule, assumed }),
                Err(_) if assumed.len() >= MAX_ASSUMED => done.push(Outcome { allowed: true, rule: None, assumed }),
                Err(name) => open.extend([true, false].map(|answer| assumed.iter().copied().chain([(name, answer)]).collect())),
            }
        }
        done
    }

    /// The first line that matches decides; where none does, the opposite of the last one (`ACLChecklist::calcImplicitAnswer`).
    fn decide<'a>(
        &'a self,
        acls: &'a Acls,
        request: &Request<'_>,
        assumed: &[(&'a str, bool)],
    ) -> Result<(bool, Option<&'a Rule>), &'a str> {
        for rule in &self.0 {
            if acls.all(&rule.terms, request, assumed)? {
                return Ok((rule.allow, Some(rule)));
            }
        }
        Ok((self.0.last().is_some_and(|last| !last.allow), None))
    }
}

fn skipped(why: &str) -> Trouble {
    Trouble::Ignored(format!("Squid skips this line, since {why}"))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::squid::acl::Listener;
    use crate::squid::read::{Files, read};
    use crate::squid::span::number;

    struct Nothing;

    impl Files for Nothing {
        fn read(&self, path: &str) -> Result<String, String> {
            if path == "office" { Ok("198.51.100.10\n".into()) } else { Err("no such file".into()) }
        }

        fn glob(&self, _: &str) -> Vec<String> {
            Vec::new()
        }
    }

    /// What becomes of `CONNECT name:port` from an address: the ways it can end, as `allow 3` or `deny -`.
    fn ends(text: &str, from: &str, name: &str, port: u16) -> Vec<String> {
        let (mut acls, mut rules) = (Acls::built_in(), Rules::default());
        for line in read("f", text, &Nothing).directives {
            let trouble = if line.name == "acl" { acls.add(&line, &Nothing) } else { rules.add(&line, &acls) };
            assert!(!trouble.iter().any(|t| matches!(t, Trouble::Refused(_))), "{trouble:?}");
        }
        let to: IpAddr = name.parse().unwrap_or("93.184.216.34".parse().unwrap());
        let at = Listener { name: "3128".into(), address: None, port: 3128 };
        let name = name.parse::<IpAddr>().is_err().then_some(name);
        let from = number(from.parse().unwrap());
        let request = Request { from, method: "CONNECT", scheme: "NONE", name, to: number(to), port, manager: false, at: &at };
        let mut ends: Vec<String> = rules
            .outcomes(&acls, &request)
            .iter()
            .map(|o| format!("{} {}", if o.allowed { "allow" } else { "deny" }, o.rule.map_or("-".into(), |r| r.at.line.to_string())))
            .collect();
        ends.sort();
        ends.dedup();
        ends
    }

    #[test]
    fn the_first_match_decides_and_else_the_opposite_of_the_last_line() {
        let text = "acl office src \"office\"\nacl ssl port 443\nhttp_access deny CONNECT !ssl\nhttp_access allow Office";
        assert_eq!(ends(text, "198.51.100.10", "example.com", 443), ["allow 4"]);
        assert_eq!(ends(text, "198.51.100.10", "example.com", 22), ["deny 3"]);
        assert_eq!(ends(text, "198.51.100.11", "example.com", 443), ["deny -"]);
        assert_eq!(ends("acl ssl port 443\nhttp_access deny CONNECT !ssl", "192.0.2.1", "example.com", 443), ["allow -"]);
        assert_eq!(ends("", "192.0.2.1", "example.com", 443), ["deny -"]);
        // the line is skipped, and then the last one allows
        assert_eq!(ends("http_access allow localhost\nhttp_access deny", "192.0.2.1", "example.com", 443), ["deny -"]);
    }

    #[test]
    fn what_is_not_known_is_tried_both_ways() {
        let known = "acl known proxy_auth REQUIRED\nhttp_access deny !known\nhttp_access allow known\nhttp_access deny all";
        assert_eq!(ends(known, "192.0.2.1", "example.com", 443), ["allow 3", "deny 2"]);
        // one ACL has one answer: nobody falls through both lines
        let both = "acl night time 20:00-23:59\nhttp_access deny night\nhttp_access deny !night\nhttp_access allow all";
        assert_eq!(ends(both, "192.0.2.1", "example.com", 443), ["deny 2", "deny 3"]);
        // what cannot match makes what is not known beside it idle
        let idle = "acl night time 20:00-23:59\nacl high port 1024-65535\nhttp_access allow night high\nhttp_access deny all";
        assert_eq!(ends(idle, "192.0.2.1", "example.com", 443), ["deny 4"]);
        let gone = "acl office src \"gone\"\nhttp_access allow office\nhttp_access deny all";
        assert_eq!(ends(gone, "192.0.2.1", "example.com", 443), ["allow 2", "deny 3"]);
    }

    #[test]
    fn groups_names_and_overlaps() {
        let groups = "acl office src 198.51.100.0/24\nacl ssl port 443\nacl ok all-of office ssl\nacl ok all-of localhost\nhttp_access allow ok\nhttp_access deny all";
        assert_eq!(ends(groups, "198.51.100.10", "example.com", 443), ["allow 5"]);
        assert_eq!(ends(groups, "198.51.100.10", "example.com", 80), ["deny 6"]);
        assert_eq!(ends(groups, "127.0.0.1", "example.com", 80), ["allow 5"]);
        let names = "acl listed dstdomain .example.com\nhttp_access allow listed\nhttp_access deny all";
        assert_eq!(ends(names, "192.0.2.1", "www.example.com", 443), ["allow 2"]);
        assert_eq!(ends(names, "192.0.2.1", "notexample.com", 443), ["deny 3"]);
        assert_eq!(ends(names, "192.0.2.1", "127.0.0.1", 443), ["deny 3"]);
        assert_eq!(ends(names, "192.0.2.1", "8.8.8.8", 443), ["allow 2", "deny 3"], "by the name that DNS gives the address");
        // Squid 5 and 6 drop the wider of the two
        let overlap = "acl bad dst 127.0.0.1 127.0.0.0/8\nhttp_access deny bad\nhttp_access allow all";
        assert_eq!(ends(overlap, "192.0.2.1", "127.0.0.1", 443), ["deny 2"]);
        assert_eq!(ends(overlap, "192.0.2.1", "127.0.0.2", 443), ["allow 3"]);
        let order = "acl bad dst 127.0.0.0/8 127.0.0.1\nhttp_access deny bad\nhttp_access allow all";
        assert_eq!(ends(order, "192.0.2.1", "127.0.0.2", 443), ["deny 2"]);
        assert_eq!(ends(order, "192.0.2.1", "::ffff:127.0.0.2", 443), ["deny 2"]);
    }
}

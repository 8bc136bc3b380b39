//! Kind `dns`: what a name server says of a name.

use std::net::SocketAddr;

use hickory_resolver::system_conf::read_system_conf;
use ipnet::IpNet;
use tokio::time::Instant;

use super::{Aim, Approach, Ended, Hops};
use crate::net::dns::wire::{self, Answer, Given, Question};
use crate::net::dns;
use crate::observation::{Evidence, Family, Outcome, Stage, Subject, Transport};
use crate::target::{Host, HostPort};

pub use crate::net::dns::wire::RecordType;

/// The port of DNS (RFC 1035 section 4.2).
pub const PORT: u16 = 53;

/// Kind `dns`.
#[derive(Debug)]
pub struct Dns {
    /// The name, fully qualified, and the port of DNS.
    pub target: HostPort,
    /// Who is asked; empty for the servers of `/etc/resolv.conf`, read at each run.
    pub servers: Vec<SocketAddr>,
    /// Of those in `/etc/resolv.conf`, the servers of these families are asked.
    pub families: Vec<Family>,
    /// The types that are asked for, each by a question of its own.
    pub records: Vec<RecordType>,
    /// The only answers that are allowed; empty where all are.
    pub answers: Vec<Allowed>,
}

/// An answer that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// An address of this network.
    Net(IpNet),
    /// A record that says this.
    Text(String),
}

impl Allowed {
    fn covers(&self, given: &Given) -> bool {
        match (self, given.address) {
            (Allowed::Net(net), Some(address)) => net.contains(&address),
            (Allowed::Net(_), None) => false,
            // Names have no case, and may be written with their last dot or without; texts are what they are.
            (Allowed::Text(text), _) if given.record == RecordType::TXT => *text == given.text,
            (Allowed::Text(text), _) => bare(text).eq_ignore_ascii_case(bare(&given.text)),
        }
    }
}

fn bare(text: &str) -> &str {
    text.strip_suffix('.').unwrap_or(text)
}

impl Dns {
    /// The name without its last dot, in small letters; the root is a dot.
    pub fn name(&self) -> String {
        match &self.target.host {
            Host::Name(name) => name.clone(),
            Host::Ip(ip) => ip.to_string(),
        }
    }

    /// The question as reports show it, and as peers tell theirs.
    fn asked(&self, record: RecordType) -> String {
        format!("{} {record}", self.name())
    }

    /// The servers that are asked.
    pub(super) fn hops(&self) -> Hops<'_> {
        if !self.servers.is_empty() {
            return Hops::Addresses(self.servers.clone());
        }
        let config = match read_system_conf() {
            Ok((config, _)) => config,
            Err(e) => return Hops::Nowhere(format!("/etc/resolv.conf names nobody to ask ({e}); mend it, or write server")),
        };
        let mut servers: Vec<SocketAddr> = Vec::new();
        for server in config.name_servers().iter().map(|s| SocketAddr::new(s.ip, PORT)) {
            if self.families.contains(&Family::of(server.ip())) && !servers.contains(&server) {
                servers.push(server);
            }
        }
        if servers.is_empty() {
            return Hops::Nowhere("/etc/resolv.conf names no server of these families; write server, or other families".into());
        }
        Hops::Addresses(servers)
    }

    /// One subject a type.
    pub(super) fn subjects(&self, subject: &Subject, approach: &Approach) -> Vec<(Subject, Approach)> {
        let ask = |record: &RecordType| {
            let transport = if *record == RecordType::AXFR { Transport::Tcp } else { Transport::Udp };
            let subject = Subject { named: None, transport, asked: Some(self.asked(*record)), ..subject.clone() };
            (subject, Approach { aim: Aim::Ask(*record), ..approach.clone() })
        };
        self.records.iter().map(ask).collect()
    }

    /// One question.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        let Aim::Ask(record) = approach.aim else { return (Outcome::Internal, Stage::Dns) };
        let question = match Question::new(&self.name(), record) {
            Ok(question) => question,
            Err(why) => {
                evidence.detail = Some(why);
                return (Outcome::Internal, Stage::Dns);
            }
        };
        match dns::ask(approach.to, approach.source, &question, deadline, evidence).await {
            Ok(answer) => {
                let (outcome, detail) = outcome(&answer, record, &self.answers);
                evidence.detail = detail;
                (outcome, Stage::Dns)
            }
            Err(ended) => ended,
        }
    }
}

/// What an answer is, and what there is to say about it.
fn outcome(answer: &Answer, record: RecordType, allowed: &[Allowed]) -> (Outcome, Option<String>) {
    let undecided = |why: String| (Outcome::ServFail, Some(why));
    match answer.rcode {
        _ if !answer.given.is_empty() => given(answer, record, allowed),
        wire::NX_DOMAIN => (Outcome::NxDomain, None),
        wire::REFUSED => (Outcome::DnsRefused, None),
        wire::NOT_AUTH if record == RecordType::AXFR => (Outcome::DnsRefused, Some("it says NOTAUTH".into())),
        wire::NO_ERROR => match empty(answer, record) {
            None => (Outcome::NoData, None),
            Some(why) => undecided(why.into()),
        },
        wire::SERV_FAIL => (Outcome::ServFail, None),
        other => undecided(format!("it says {}", wire::rcode_name(other))),
    }
}

/// Why an answer without records does not say that there are none; none where it does say so (RFC 2308 section 2.2).
fn empty(answer: &Answer, record: RecordType) -> Option<&'static str> {
    if record == RecordType::AXFR {
        return Some("it answers a zone transfer with nothing at all");
    }
    if record == RecordType::ANY {
        return Some("it answers ANY with nothing, as servers do that do not like the question (RFC 8482); ask for a type");
    }
    if answer.has_soa {
        return None;
    }
    if answer.names_servers {
        return Some("it refers to other servers, and says nothing of the name itself; ask one that knows");
    }
    (!answer.authoritative && !answer.recursion_available)
        .then_some("it neither speaks for the zone nor asks others, so it cannot know; ask one that does")
}

/// What records are: as the check says, or not.
fn given(answer: &Answer, record: RecordType, allowed: &[Allowed]) -> (Outcome, Option<String>) {
    let shown = |given: &Given| format!("{} {}", given.record, given.text);
    let first = answer.given.first().map(shown).unwrap_or_default();
    let more = answer.given.len().saturating_sub(1);
    let all = if more == 0 { first.clone() } else { format!("{first} and {more} more") };
    if answer.rcode == wire::NX_DOMAIN {
        return (Outcome::Mismatch, Some(format!("it gives {all}, which leads to a name that does not exist")));
    }
    if allowed.is_empty() {
        return (Outcome::Resolved, Some(all));
    }
    let counts = |given: &&Given| record == RecordType::ANY || given.record == record || !given.record.leads_on();
    let covered = |given: &Given| allowed.iter().any(|a| a.covers(given));
    let mut asked_for = answer.given.iter().filter(counts).peekable();
    if asked_for.peek().is_none() {
        return (Outcome::Mismatch, Some(format!("it gives {all}, and none of what is in answers")));
    }
    match asked_for.find(|g| !covered(g)) {
        Some(other) => (Outcome::Mismatch, Some(format!("it gives {}, which is not in answers", shown(other)))),
        None if answer.truncated => (Outcome::ServFail, Some("its answer is cut, and the rest cannot be had over TCP".into())),
        None => (Outcome::Resolved, Some(all)),
    }
}

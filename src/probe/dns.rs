//! Kind `dns`: what a name server says of a name.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::system_conf::read_system_conf;
use ipnet::IpNet;
use tokio::time::Instant;

use super::{Aim, Approach, Ended, Hops};
use crate::net::dns;
use crate::net::dns::wire::{self, Answer, Given, Question};
use crate::observation::{Evidence, Family, Outcome, Stage, Subject, Transport};
use crate::target::{Host, HostPort};

pub use crate::net::dns::wire::RecordType;

/// The port of DNS (RFC 1035 section 4.2).
pub const PORT: u16 = 53;

/// Kind `dns`.
#[derive(Debug, PartialEq)]
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

    /// Whether somebody gives any answer at `to` to this one of the check's questions.
    pub(super) async fn is_answered_at(
        &self,
        to: SocketAddr,
        source: Option<IpAddr>,
        asked: Option<&str>,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> bool {
        // Another type may be asked for by TCP, or be none that an interceptor cares for.
        let record = self.records.iter().find(|record| asked == Some(self.asked(**record).as_str()));
        match record.and_then(|record| Question::new(&self.name(), *record).ok()) {
            Some(question) => dns::ask(to, source, &question, deadline, evidence).await.is_ok(),
            None => false,
        }
    }
}

/// What an answer is, and what there is to say about it.
fn outcome(answer: &Answer, record: RecordType, allowed: &[Allowed]) -> (Outcome, Option<String>) {
    let undecided = |why: String| (Outcome::ServFail, Some(why));
    match answer.rcode {
        _ if !answer.given.is_empty() => given(answer, record, allowed),
        _ if answer.truncated || !answer.complete => undecided("its answer is cut, and the rest may be anything".into()),
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
    let more = answer.given.len().saturating_sub(1) + answer.more;
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
        None if answer.more > 0 => (Outcome::ServFail, Some("it gives more records than are held against answers".into())),
        None if answer.truncated => (Outcome::ServFail, Some("its answer is cut, and the rest cannot be had over TCP".into())),
        None => (Outcome::Resolved, Some(all)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::net::dns::wire::Heard;

    const ID: u16 = 0x1234;
    /// `name.test`, as it stands in a question, and after it type A, class IN.
    const NAME: &[u8] = b"\x04name\x04test\0";
    const SOA: &[u8] = b"\x04test\0\0\x06\0\x01\0\0\0\x3c\0\x16\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05";
    const NS: &[u8] = b"\x04test\0\0\x02\0\x01\0\0\0\x3c\0\x04\x02ns\0";
    const A: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\x09\x09\x07";
    const CNAME: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x04gone\0";
    const TXT: &[u8] = b"\xc0\x0c\0\x10\0\x01\0\0\0\x3c\0\x08\x03a\x1bb\x03c d";

    fn message(flags: u16, answers: &[&[u8]], authorities: &[&[u8]], additionals: &[&[u8]]) -> Vec<u8> {
        let count = |list: &[&[u8]]| u16::try_from(list.len()).unwrap();
        let head = [ID, flags, 1, count(answers), count(authorities), count(additionals)];
        let mut bytes: Vec<u8> = head.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend_from_slice(NAME);
        bytes.extend_from_slice(&[0, 1, 0, 1]);
        for record in [answers, authorities, additionals].concat() {
            bytes.extend_from_slice(record);
        }
        bytes
    }

    /// What becomes of a message: none where it is waited past.
    fn heard(bytes: &[u8], record: RecordType, allowed: &[Allowed]) -> Option<(Outcome, String)> {
        let question = Question::new("Name.Test", record).unwrap();
        match wire::read(bytes, ID, &question) {
            Heard::NotOurs => None,
            Heard::Broken => Some((Outcome::ServFail, "malformed".into())),
            Heard::Answer(answer) => {
                let (outcome, detail) = outcome(&answer, record, allowed);
                Some((outcome, detail.unwrap_or_default()))
            }
        }
    }

    fn came_to(bytes: &[u8]) -> Option<Outcome> {
        heard(bytes, RecordType::A, &[]).map(|(outcome, _)| outcome)
    }

    /// Beside a question for another type it would go by TCP, where this interceptor is not.
    #[tokio::test]
    async fn a_decoy_is_asked_the_very_question() {
        let interceptor = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = interceptor.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let mut bytes = [0; 512];
            while let Ok((read, from)) = interceptor.recv_from(&mut bytes).await {
                bytes[2..4].copy_from_slice(&0x8183_u16.to_be_bytes());
                let _ = interceptor.send_to(&bytes[..read], from).await;
            }
        });
        let probe = Dns {
            target: "name.test:53".parse().unwrap(),
            servers: vec![to],
            families: vec![Family::V4],
            records: vec![RecordType::AXFR, RecordType::A],
            answers: vec![],
        };
        let answered = async |asked| {
            let deadline = Instant::now() + std::time::Duration::from_millis(500);
            probe.is_answered_at(to, None, asked, deadline, &mut Evidence::default()).await
        };
        assert!(answered(Some("name.test A")).await);
        assert!(!answered(Some("name.test AXFR")).await);
        answering.abort();
    }

    #[test]
    fn every_kind_of_answer() {
        const AA: u16 = 0x8400;
        const RA: u16 = 0x8180;
        let opt = |extended: u8| [&b"\0\0\x29\x04\xd0"[..], &[extended, 0, 0, 0, 0, 0]].concat();
        let table: &[(&str, Vec<u8>, Option<Outcome>)] = &[
            ("NXDOMAIN", message(AA | 3, &[], &[SOA], &[]), Some(Outcome::NxDomain)),
            ("NXDOMAIN of a resolver, without SOA", message(RA | 3, &[], &[], &[]), Some(Outcome::NxDomain)),
            ("NODATA", message(AA, &[], &[SOA], &[]), Some(Outcome::NoData)),
            ("NODATA with SOA and NS", message(0x8000, &[], &[NS, SOA], &[]), Some(Outcome::NoData)),
            ("NODATA of a resolver, bare", message(RA, &[], &[], &[]), Some(Outcome::NoData)),
            ("NODATA of the zone, bare", message(AA, &[], &[], &[]), Some(Outcome::NoData)),
            ("nothing from who cannot know", message(0x8000, &[], &[], &[]), Some(Outcome::ServFail)),
            ("a referral", message(0x8000, &[], &[NS], &[]), Some(Outcome::ServFail)),
            ("a referral by a resolver", message(RA, &[], &[NS], &[]), Some(Outcome::ServFail)),
            ("REFUSED", message(0x8005, &[], &[], &[]), Some(Outcome::DnsRefused)),
            ("SERVFAIL", message(RA | 2, &[], &[], &[]), Some(Outcome::ServFail)),
            ("NOTAUTH", message(0x8009, &[], &[], &[]), Some(Outcome::ServFail)),
            ("BADVERS looks like NOERROR", message(AA, &[], &[SOA], &[&opt(1)]), Some(Outcome::ServFail)),
            ("an OPT without more", message(AA, &[], &[SOA], &[&opt(0)]), Some(Outcome::NoData)),
            ("NXDOMAIN with upper bits is another code", message(AA | 3, &[], &[SOA], &[&opt(1)]), Some(Outcome::ServFail)),
            ("a record", message(AA, &[A], &[], &[]), Some(Outcome::Resolved)),
            ("an alias", message(AA, &[CNAME], &[SOA], &[]), Some(Outcome::Resolved)),
            ("an alias to nothing", message(AA | 3, &[CNAME], &[SOA], &[]), Some(Outcome::Mismatch)),
            ("a record, and then the message ends", message(AA, &[A, b"\xc0"], &[], &[]), Some(Outcome::Resolved)),
            ("no record, and then the message ends", message(AA, &[], &[SOA, b"\xc0"], &[]), Some(Outcome::ServFail)),
            ("a broken record", message(AA | 3, &[b"\xc0\x0c\0\x01"], &[], &[]), Some(Outcome::ServFail)),
            (
                "a name that goes round in circles",
                message(AA, &[b"\xc0\x1b\0\x02\0\x01\0\0\0\0\0\x02\xc0\x1b"], &[], &[]),
                Some(Outcome::Resolved),
            ),
            ("a length that is none", message(AA | 3, &[], &[b"\x80"], &[]), Some(Outcome::ServFail)),
            ("a question", message(0x0003, &[], &[SOA], &[]), None),
            ("another opcode", message(0xa003, &[], &[SOA], &[]), None),
        ];
        for (what, bytes, expected) in table {
            assert_eq!(came_to(bytes), *expected, "{what}");
        }
        let mut another = message(AA | 3, &[], &[SOA], &[]);
        another[0] ^= 1;
        assert_eq!(came_to(&another), None, "another id");
        let mut another = message(AA | 3, &[], &[SOA], &[]);
        another[14] = b'x';
        assert_eq!(came_to(&another), None, "another name");
        let mut capitals = message(AA | 3, &[], &[SOA], &[]);
        capitals[13..17].copy_from_slice(b"NaMe");
        assert_eq!(came_to(&capitals), Some(Outcome::NxDomain), "the same name in capitals");
        assert_eq!(heard(&message(AA | 3, &[], &[SOA], &[]), RecordType::AAAA, &[]), None, "another type");

        // Turned away unheard: the header alone. Only an error may come so.
        for (code, expected) in [(5, Some(Outcome::DnsRefused)), (2, Some(Outcome::ServFail)), (3, None), (0, None)] {
            let mut bare = message(0x8000 | code, &[], &[], &[])[..12].to_vec();
            bare[5] = 0;
            assert_eq!(came_to(&bare), expected, "{code}");
        }
    }

    /// Names that point to names that point to names, and thousands of them.
    #[test]
    fn a_chain_of_pointers_costs_little() {
        let mut link: Vec<u8> = b"\xc0\x0c\0\x10\0\x01\0\0\0\0".to_vec();
        let start = u16::try_from(message(0, &[], &[], &[]).len() + link.len() + 2).unwrap();
        let links = (0x3fff - start) / 2;
        link.extend_from_slice(&(links * 2).to_be_bytes());
        let mut to = 12;
        for n in 0..links {
            link.extend_from_slice(&(0xc000_u16 | to).to_be_bytes());
            to = start + n * 2;
        }
        let end = (0xc000 | to).to_be_bytes();
        let record = [&end[..], b"\0\x02\0\x01\0\0\0\0\0\x02", &end].concat();
        let count = (65_535 - usize::from(to) - 100) / record.len();
        let records: Vec<&[u8]> = std::iter::once(link.as_slice()).chain(std::iter::repeat_n(record.as_slice(), count)).collect();
        let bytes = message(0x8400, &records, &[], &[]);
        let question = Question::new("name.test", RecordType::A).unwrap();
        let Heard::Answer(answer) = wire::read(&bytes, ID, &question) else { panic!("{} bytes are no answer", bytes.len()) };
        assert_eq!((answer.complete, answer.given.len(), answer.more), (true, 256, count + 1 - 256), "no more are chased");
        let answers = heard(&bytes, RecordType::A, &[Allowed::Text("name.test".into())]).unwrap();
        assert_ne!(answers.0, Outcome::Resolved);
    }

    #[test]
    fn what_is_asked_decides_too() {
        let of = |name_type: u16, flags: u16, answers: &[&[u8]], record: RecordType| {
            let mut bytes = message(flags, answers, &[], &[]);
            bytes[12 + NAME.len()..14 + NAME.len()].copy_from_slice(&name_type.to_be_bytes());
            heard(&bytes, record, &[]).unwrap().0
        };
        assert_eq!(of(255, 0x8400, &[], RecordType::ANY), Outcome::ServFail, "an empty answer to ANY says nothing");
        assert_eq!(of(255, 0x8403, &[], RecordType::ANY), Outcome::NxDomain);
        assert_eq!(of(252, 0x8400, &[], RecordType::AXFR), Outcome::ServFail, "nor does one to AXFR");
        assert_eq!(of(252, 0x8009, &[], RecordType::AXFR), Outcome::DnsRefused);
        assert_eq!(of(252, 0x8400, &[A], RecordType::AXFR), Outcome::Resolved);
    }

    #[test]
    fn answers_are_the_only_ones() {
        let net = |text: &str| Allowed::Net(text.parse().unwrap());
        let text = |text: &str| Allowed::Text(text.into());
        let of = |answers: &[&[u8]], allowed: &[Allowed]| heard(&message(0x8400, answers, &[], &[]), RecordType::A, allowed).unwrap();
        assert_eq!(of(&[A], &[net("10.9.9.0/24")]).0, Outcome::Resolved);
        assert_eq!(of(&[A], &[net("10.9.8.0/24")]), (Outcome::Mismatch, "it gives A 10.9.9.7, which is not in answers".into()));
        assert_eq!(of(&[CNAME, A], &[net("10.9.9.7/32")]).0, Outcome::Resolved, "an alias on the way");
        assert_eq!(of(&[CNAME], &[net("10.9.9.7/32")]).0, Outcome::Mismatch, "an alias and nothing behind it");
        assert_eq!(of(&[A, TXT], &[net("10.9.9.7/32")]).0, Outcome::Mismatch, "what was not asked for");
        assert_eq!(of(&[TXT], &[text("a\u{fffd}bc d")]).0, Outcome::Resolved, "no control character is shown");
        let cut = heard(&message(0x8600, &[A], &[], &[]), RecordType::A, &[net("10.9.9.7/32")]).unwrap();
        assert_eq!(cut.0, Outcome::ServFail, "there may be more that is not allowed");
        assert_eq!(came_to(&message(0x8603, &[], &[SOA], &[])), Some(Outcome::ServFail), "a cut answer denies nothing");
    }

    /// What the bytes say, read without the code under test: a header, our question word for word, and no answer.
    fn says_so(bytes: &[u8], outcome: Outcome) -> bool {
        let Some((head, rest)) = bytes.split_at_checked(12) else { return false };
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let question = rest.len() >= NAME.len() + 4
            && rest[..NAME.len()].eq_ignore_ascii_case(NAME)
            && rest[NAME.len()..NAME.len() + 4] == [0, 1, 0, 1];
        let code = if outcome == Outcome::NxDomain { 3 } else { 0 };
        word(0) == ID && word(2) & 0xf800 == 0x8000 && word(2) & 0xf == code && word(4) == 1 && word(6) == 0 && question
    }

    /// A real message with some bytes changed, cut off or put behind.
    fn mangled() -> impl Strategy<Value = Vec<u8>> {
        let real = prop_oneof![
            Just(message(0x8403, &[], &[SOA], &[])),
            Just(message(0x8400, &[], &[SOA], &[])),
            Just(message(0x8400, &[CNAME, A, TXT], &[NS], &[])),
            Just(message(0x8000, &[], &[NS], &[])),
            Just(message(0x8005, &[], &[], &[])),
        ];
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
        (real, changes, prop::option::weighted(0.3, any::<prop::sample::Index>()), prop::collection::vec(any::<u8>(), 0..12)).prop_map(
            |(mut bytes, changes, cut, more)| {
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                if let Some(cut) = cut {
                    bytes.truncate(cut.index(bytes.len()));
                }
                bytes.extend(more);
                bytes
            },
        )
    }

    /// Records of any type with any data, behind a right head and question.
    fn stuffed() -> impl Strategy<Value = Vec<u8>> {
        let record = (prop_oneof![0_u16..70, Just(257), any::<u16>()], prop::collection::vec(any::<u8>(), 0..40));
        (prop::collection::vec(record, 0..6), 0_usize..6, any::<u8>()).prop_map(|(records, answers, flags)| {
            let records: Vec<Vec<u8>> = records
                .into_iter()
                .map(|(kind, data)| {
                    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
                    [&b"\xc0\x0c"[..], &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 9], &length, &data].concat()
                })
                .collect();
            let all: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            let (answers, authorities) = all.split_at(answers.min(all.len()));
            message(0x8000 | (u16::from(flags & 0xf0) << 3) | u16::from(flags & 0x3), answers, authorities, &[])
        })
    }

    #[test]
    fn no_bytes_hide_a_name_but_those_that_say_so() {
        let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
        let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        let any_bytes = prop::collection::vec(any::<u8>(), 0..600);
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let reached = std::cell::RefCell::new(BTreeMap::<String, u32>::new());
        let ran = runner.run(&prop_oneof![1 => any_bytes, 4 => mangled(), 4 => stuffed()], |bytes| {
            let came = heard(&bytes, RecordType::A, &[]);
            if let Some((outcome @ (Outcome::NxDomain | Outcome::NoData), _)) = &came {
                prop_assert!(says_so(&bytes, *outcome), "{outcome} from {bytes:02x?}");
            }
            if let Some((_, text)) = &came {
                prop_assert!(!text.chars().any(char::is_control), "{text:?}");
                prop_assert!(text.chars().count() < 1200, "{}", text.len());
            }
            *reached.borrow_mut().entry(came.map_or("ignored".into(), |(outcome, _)| outcome.to_string())).or_default() += 1;
            Ok(())
        });
        ran.unwrap();
        let reached = reached.into_inner();
        for outcome in ["ignored", "nxdomain", "no-data", "servfail", "resolved", "mismatch", "dns-refused"] {
            assert!(reached.get(outcome).is_some_and(|n| *n > cases / 2000), "{outcome} is hardly reached: {reached:?}");
        }
    }
}

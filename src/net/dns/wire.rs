//! The wire format: a question as bytes, and what a message from the server is to whoever asked it.
//!
//! The message is walked record by record, so that one that cannot be shown still counts as one that came.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// The most characters of one record that are kept as text; a longer one is cut.
const MAX_TEXT: usize = 512;
/// What may come back in one datagram: more is lost on some paths (the DNS flag day of 2020).
const PAYLOAD: u16 = 1232;
/// The most records of an answer that are read into text; the others are counted. What names in them point to is chased, and one
/// message of 64 KiB can hold a chain of thousands.
const MAX_GIVEN: usize = 256;
/// The fixed head of a message (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// Class IN (RFC 1035 section 3.2.4).
const IN: u16 = 1;

/// A record type by its number (RFC 1035 section 3.2.2, and the registry of IANA).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordType(u16);

impl RecordType {
    /// An IPv4 address.
    pub const A: RecordType = RecordType(1);
    /// A delegation, or the servers of a zone.
    pub const NS: RecordType = RecordType(2);
    /// An alias.
    pub const CNAME: RecordType = RecordType(5);
    /// The start of a zone.
    pub const SOA: RecordType = RecordType(6);
    /// Text.
    pub const TXT: RecordType = RecordType(16);
    /// An IPv6 address.
    pub const AAAA: RecordType = RecordType(28);
    /// An alias of all that stands below a name.
    pub const DNAME: RecordType = RecordType(39);
    /// A signature.
    pub const RRSIG: RecordType = RecordType(46);
    /// A whole zone, over TCP (RFC 5936).
    pub const AXFR: RecordType = RecordType(252);
    /// Whatever the server likes to give (RFC 8482).
    pub const ANY: RecordType = RecordType(255);

    const DS: RecordType = RecordType(43);
    const DNSKEY: RecordType = RecordType(48);
    const OPT: RecordType = RecordType(41);

    /// The types that are known by name; all others are `TYPE123` (RFC 3597).
    pub const NAMES: &[(RecordType, &str)] = &[
        (RecordType::A, "A"),
        (RecordType::AAAA, "AAAA"),
        (RecordType::CNAME, "CNAME"),
        (RecordType(15), "MX"),
        (RecordType::TXT, "TXT"),
        (RecordType::NS, "NS"),
        (RecordType::SOA, "SOA"),
        (RecordType(33), "SRV"),
        (RecordType(12), "PTR"),
        (RecordType(257), "CAA"),
        (RecordType(65), "HTTPS"),
        (RecordType(64), "SVCB"),
        (RecordType::DS, "DS"),
        (RecordType::DNSKEY, "DNSKEY"),
        (RecordType(52), "TLSA"),
        (RecordType(35), "NAPTR"),
        (RecordType::DNAME, "DNAME"),
        (RecordType(44), "SSHFP"),
        (RecordType(13), "HINFO"),
        (RecordType::RRSIG, "RRSIG"),
        (RecordType(47), "NSEC"),
        (RecordType::ANY, "ANY"),
        (RecordType::AXFR, "AXFR"),
    ];

    /// It stands on the way to what was asked: an alias, or a signature of it.
    pub fn leads_on(self) -> bool {
        matches!(self, RecordType::CNAME | RecordType::DNAME | RecordType::RRSIG)
    }

    /// It belongs to messages and transactions, not to names (RFC 6895 section 3.1), so nothing can be asked for by it.
    fn is_meta(self) -> bool {
        let asked = [RecordType::ANY, RecordType::AXFR].contains(&self);
        !asked && (self.0 == 0 || self == RecordType::OPT || (128..256).contains(&self.0) || self.0 == u16::MAX)
    }
}

impl FromStr for RecordType {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some((named, _)) = RecordType::NAMES.iter().find(|(_, name)| *name == text) {
            return Ok(*named);
        }
        let number = text.strip_prefix("TYPE").filter(|n| n.bytes().all(|b| b.is_ascii_digit())).ok_or(())?;
        let read = RecordType(number.parse().map_err(|_| ())?);
        if read.is_meta() { Err(()) } else { Ok(read) }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RecordType::NAMES.iter().find(|(known, _)| known == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

/// One question: a fully qualified name and a type, of class IN.
#[derive(Debug, Clone)]
pub struct Question {
    name: Name,
    record: RecordType,
}

impl Question {
    /// The question for `record` of `name`, which is fully qualified with or without its last dot.
    ///
    /// # Errors
    /// Why DNS cannot carry the name.
    pub fn new(name: &str, record: RecordType) -> Result<Question, String> {
        let mut name = Name::from_ascii(name).map_err(|e| e.to_string())?;
        name.set_fqdn(true);
        Ok(Question { name, record })
    }

    /// The type that is asked for.
    pub fn record(&self) -> RecordType {
        self.record
    }

    /// The question as a datagram, which asks for recursion, and with `edns` says that 1232 bytes may come back (RFC 6891).
    ///
    /// # Errors
    /// Why it cannot be written.
    pub fn encode(&self, id: u16, edns: bool) -> Result<Vec<u8>, String> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.record.0.into()));
        if edns {
            let mut option = Edns::new();
            option.set_max_payload(PAYLOAD);
            message.set_edns(option);
        }
        message.to_vec().map_err(|e| e.to_string())
    }
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its type.
    pub record: RecordType,
    /// The address that it gives.
    pub address: Option<IpAddr>,
    /// What it says, as zone files write it; of TXT the bare text. No control characters.
    pub text: String,
}

/// An answer to our question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The response code, with its upper bits from EDNS (RFC 6891 section 6.1.3).
    pub rcode: u16,
    /// AA: the server speaks for the zone.
    pub authoritative: bool,
    /// RA: the server asks others.
    pub recursion_available: bool,
    /// TC: there is more, over TCP.
    pub truncated: bool,
    /// The records of the answer section, at most 256.
    pub given: Vec<Given>,
    /// How many more there were.
    pub more: usize,
    /// The authority section has the zone's SOA.
    pub has_soa: bool,
    /// The authority section names servers.
    pub names_servers: bool,
    /// It could be read to its end.
    pub complete: bool,
}

/// What a message is to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// No answer to this question: another id, another question, no answer at all.
    NotOurs,
    /// An answer to this question that cannot be read to its end, and of whose answer section nothing can be.
    Broken,
    /// An answer to this question.
    Answer(Answer),
}

/// NOERROR.
pub const NO_ERROR: u16 = 0;
/// FORMERR.
pub const FORM_ERR: u16 = 1;
/// SERVFAIL.
pub const SERV_FAIL: u16 = 2;
/// NXDOMAIN.
pub const NX_DOMAIN: u16 = 3;
/// NOTIMP.
pub const NOT_IMP: u16 = 4;
/// REFUSED.
pub const REFUSED: u16 = 5;
/// NOTAUTH: how some servers turn a transfer away (RFC 8945 section 5.2, RFC 2136 section 2.2).
pub const NOT_AUTH: u16 = 9;
/// BADVERS.
pub const BAD_VERS: u16 = 16;

/// The mnemonic of a response code.
pub fn rcode_name(rcode: u16) -> String {
    let name = match rcode {
        NO_ERROR => "NOERROR",
        FORM_ERR => "FORMERR",
        SERV_FAIL => "SERVFAIL",
        NX_DOMAIN => "NXDOMAIN",
        NOT_IMP => "NOTIMP",
        REFUSED => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        NOT_AUTH => "NOTAUTH",
        10 => "NOTZONE",
        BAD_VERS => "BADVERS",
        other => return format!("RCODE{other}"),
    };
    name.into()
}

/// What `message` is to whoever asked `question` under `id`. It is an answer only where the question stands in it again, in
/// capitals or not; an error may come without any, as from a server that turns a source away unheard.
pub fn read(message: &[u8], id: u16, question: &Question) -> Heard {
    let Some(head) = Head::of(message).filter(|h| h.id == id && h.is_answer) else { return Heard::NotOurs };
    let mut decoder = BinDecoder::new(message);
    if decoder.read_slice(HEADER).is_err() {
        return Heard::NotOurs;
    }
    let bare = head.questions == 0 && head.answers == 0 && head.authorities == 0;
    let refuses = bare && !matches!(head.rcode, NO_ERROR | NX_DOMAIN);
    let ours = refuses || (head.questions == 1 && repeats(&mut decoder, question));
    if !ours {
        return Heard::NotOurs;
    }
    let mut answer = Answer {
        rcode: head.rcode,
        authoritative: head.authoritative,
        recursion_available: head.recursion_available,
        truncated: head.truncated,
        given: Vec::new(),
        more: 0,
        has_soa: false,
        names_servers: false,
        complete: false,
    };
    answer.complete = walk(message, &mut decoder, &head, &mut answer).is_some();
    if answer.complete || answer.truncated || !answer.given.is_empty() { Heard::Answer(answer) } else { Heard::Broken }
}

/// The header's fields that matter.
struct Head {
    id: u16,
    is_answer: bool,
    authoritative: bool,
    truncated: bool,
    recursion_available: bool,
    rcode: u16,
    questions: u16,
    answers: u16,
    authorities: u16,
    additionals: u16,
}

impl Head {
    fn of(message: &[u8]) -> Option<Head> {
        let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        let flags = word(2)?;
        Some(Head {
            id: word(0)?,
            // QR is set, and the opcode is that of a query.
            is_answer: flags & 0xf800 == 0x8000,
            authoritative: flags & 0x0400 != 0,
            truncated: flags & 0x0200 != 0,
            recursion_available: flags & 0x0080 != 0,
            rcode: flags & 0x000f,
            questions: word(4)?,
            answers: word(6)?,
            authorities: word(8)?,
            additionals: word(10)?,
        })
    }
}

fn number(decoder: &mut BinDecoder<'_>) -> Option<u16> {
    decoder.read_u16().ok().map(|n| n.unverified())
}

/// Whether the next question in the message is ours.
fn repeats(decoder: &mut BinDecoder<'_>, question: &Question) -> bool {
    let name = Name::read(decoder).ok();
    let (record, class) = (number(decoder), number(decoder));
    name.is_some_and(|n| n.eq_ignore_root(&question.name)) && record == Some(question.record.0) && class == Some(IN)
}

/// Reads all three sections into the answer; none where they do not come to their end.
fn walk(message: &[u8], decoder: &mut BinDecoder<'_>, head: &Head, answer: &mut Answer) -> Option<()> {
    for _ in 0..head.answers {
        let (record, _, data, from) = frame(decoder)?;
        if answer.given.len() == MAX_GIVEN {
            answer.more += 1;
            continue;
        }
        answer.given.push(Given { record, address: address(record, data), text: text(message, from, record, data) });
    }
    for _ in 0..head.authorities {
        let (record, ..) = frame(decoder)?;
        answer.has_soa |= record == RecordType::SOA;
        answer.names_servers |= record == RecordType::NS;
    }
    for _ in 0..head.additionals {
        let (record, ttl, ..) = frame(decoder)?;
        if record == RecordType::OPT {
            let [upper, ..] = ttl.to_be_bytes();
            answer.rcode |= u16::from(upper) << 4;
        }
    }
    Some(())
}

/// The next record: its type, its time to live, its data, and where it began.
fn frame<'m>(decoder: &mut BinDecoder<'m>) -> Option<(RecordType, u32, &'m [u8], usize)> {
    let from = decoder.index();
    skip_name(decoder)?;
    let record = RecordType(number(decoder)?);
    number(decoder)?;
    let ttl = decoder.read_u32().ok()?.unverified();
    let length = number(decoder)?;
    let data = decoder.read_slice(usize::from(length)).ok()?.unverified();
    Some((record, ttl, data, from))
}

/// Past a name, without going where it points (RFC 1035 section 4.1.4).
fn skip_name(decoder: &mut BinDecoder<'_>) -> Option<()> {
    loop {
        match decoder.pop().ok()?.unverified() {
            0 => return Some(()),
            pointer if pointer >= 0xc0 => return decoder.pop().ok().map(|_| ()),
            length if length < 0x40 => drop(decoder.read_slice(usize::from(length)).ok()?),
            _ => return None,
        }
    }
}

fn address(record: RecordType, data: &[u8]) -> Option<IpAddr> {
    match record {
        RecordType::A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        RecordType::AAAA => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
        _ => None,
    }
}

/// What the record says. One that cannot be read is shown as bytes (RFC 3597 section 5).
fn text(message: &[u8], from: usize, record: RecordType, data: &[u8]) -> String {
    let shown = match (record, data) {
        (RecordType::TXT, _) => strings(data),
        (RecordType::DS, [t1, t2, algorithm, digest_type, digest @ ..]) => {
            format!("{} {algorithm} {digest_type} {}", word(&[*t1, *t2]), hex(digest))
        }
        (RecordType::DNSKEY, [f1, f2, protocol, algorithm, key @ ..]) => {
            format!("{} {protocol} {algorithm} {}", word(&[*f1, *f2]), base64::engine::general_purpose::STANDARD.encode(key))
        }
        _ => parsed(message, from).unwrap_or_else(|| format!("\\# {} {}", data.len(), hex(data))),
    };
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    shown.chars().take(MAX_TEXT).map(plain).collect()
}

fn parsed(message: &[u8], from: usize) -> Option<String> {
    let mut decoder = BinDecoder::new(message);
    decoder.read_slice(from).ok()?;
    let record = Record::read(&mut decoder).ok()?;
    match record.data {
        RData::Unknown { .. } | RData::NULL(_) | RData::Update0(_) => None,
        data => Some(data.to_string()),
    }
}

/// The strings of a TXT record put together, as those who publish them mean it (RFC 7208 section 3.3).
fn strings(mut data: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(data.len());
    while let [length, rest @ ..] = data {
        let (string, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes.extend_from_slice(string);
        data = rest;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn word(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u16::from(*byte))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

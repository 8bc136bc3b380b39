//! Lines: whose log a line is of, and what it says of which attempt. Every line is somebody else's word: one that cannot be read is counted.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use memchr::memmem;
use serde::Deserialize;

use super::flow::{self, Format, Line, Record};
use super::index::{Found, Hit, Index, Trace};
use crate::clock::Wall;
use crate::defence::{Log, Place, Sighting, Way, Word};
use crate::observation::one_line;

/// How long after an attempt a proxy's line with its nonce may be written: one that keeps dialling writes when it has given up.
const LATE_MS: i64 = 15 * 60 * 1000;
/// How deep lines may stand in other lines: a record in an event, in a batch of events.
const MAX_DEPTH: u8 = 3;
/// Characters that are kept of a word of a log.
const MAX_WORD: usize = 128;
/// The flag of a SYN among a flow log's (RFC 9293 section 3.1).
const SYN: u16 = 2;
/// TCP, as flow logs have it.
const TCP: u8 = 6;

/// Version 2, where nothing else is said.
static DEFAULT: LazyLock<Format> = LazyLock::new(Format::default);

/// How many lines were what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All, those inside of others too.
    pub lines: u64,
    /// Records of flow logs.
    pub flows: u64,
    /// Lines of a WAF's log.
    pub waf: u64,
    /// Lines of access logs.
    pub access: u64,
    /// Of all those, what was told to be about one attempt.
    pub matched: u64,
    /// What could be about several attempts, and so is about none.
    pub ambiguous: u64,
    /// Records by which AWS says to have lost others.
    pub skipped: u64,
    /// What is of no log that is known here.
    pub unreadable: u64,
    /// Headers of flow logs without the fields by which a probe is known.
    pub unusable: u64,
    /// What was longer than a line may be.
    pub too_long: u64,
}

impl Counts {
    /// By name, as labels have them.
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("flow", self.flows),
            ("waf", self.waf),
            ("access", self.access),
            ("ambiguous", self.ambiguous),
            ("skipped", self.skipped),
            ("unreadable", self.unreadable),
            ("unusable", self.unusable),
            ("too-long", self.too_long),
        ]
    }

    /// Both together.
    pub fn add(&mut self, other: Counts) {
        self.lines += other.lines;
        self.flows += other.flows;
        self.waf += other.waf;
        self.access += other.access;
        self.matched += other.matched;
        self.ambiguous += other.ambiguous;
        self.skipped += other.skipped;
        self.unreadable += other.unreadable;
        self.unusable += other.unusable;
        self.too_long += other.too_long;
    }
}

/// The lines of one file.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    /// The fields, by the file's own header.
    header: Option<Format>,
    /// How many were what.
    pub counts: Counts,
}

impl Lines {
    /// For another file, with the counts of this one.
    pub fn anew(&mut self) {
        self.header = None;
    }

    /// Takes the fields of a file whose other lines are not read.
    pub fn take_header(&mut self, line: &[u8]) {
        if flow::is_header(line.trim_ascii()) {
            self.header = std::str::from_utf8(line.trim_ascii()).ok().and_then(|text| Format::parse(text).ok());
        }
    }

    /// Reads one line, and tells of the attempt that it is about.
    pub fn read<T: Copy + PartialEq>(&mut self, line: &[u8], index: &Index<T>, found: &mut impl FnMut(T, Sighting)) {
        self.read_within(line, index, found, 0);
    }

    fn read_within<T: Copy + PartialEq>(&mut self, line: &[u8], index: &Index<T>, found: &mut impl FnMut(T, Sighting), depth: u8) {
        let line = line.trim_ascii();
        let Some(first) = line.first() else { return };
        self.counts.lines += 1;
        match first {
            b'{' | b'[' | b']' | b'}' | b'"' => self.json(line, index, found, depth),
            b'a'..=b'z' if flow::is_header(line) => match std::str::from_utf8(line).map(Format::parse) {
                Ok(Ok(format)) => self.header = Some(format),
                _ => self.counts.unusable += 1,
            },
            _ => {
                let text = without_time(line);
                let dated = text.len() < line.len();
                let known = self.flow(line, index, found) || (dated && self.flow(text, index, found)) || self.access(line, index, found);
                if !known {
                    match text.first() {
                        // An event that CloudWatch put its time before.
                        Some(b'{') if dated => self.json(text, index, found, depth),
                        _ => self.counts.unreadable += 1,
                    }
                }
            }
        }
    }

    /// Whether it is a flow log's.
    fn flow<T: Copy + PartialEq>(&mut self, line: &[u8], index: &Index<T>, found: &mut impl FnMut(T, Sighting)) -> bool {
        let format = self.header.as_ref().or(index.settings().format.as_ref()).unwrap_or(&DEFAULT);
        match format.read(line, |source, destination| index.has_port(source, destination)) {
            Line::None => return false,
            Line::Other | Line::NoData => {}
            Line::Skipped => self.counts.skipped += 1,
            Line::Record(record) => {
                let trace = Trace {
                    protocol: record.protocol,
                    source: (record.source, record.source_port),
                    destination: (record.destination, record.destination_port),
                    // The second in which it ended is not over when it begins.
                    when: (record.start.saturating_mul(1000), record.end.saturating_mul(1000).saturating_add(999)),
                };
                let hit = index.by_flow(&trace);
                self.tell(hit, found, |hit| of_flow(&record, hit, index.settings().own_interfaces.as_ref()));
            }
        }
        self.counts.flows += 1;
        true
    }

    fn tell<T>(&mut self, hit: Found<Hit<T>>, found: &mut impl FnMut(T, Sighting), sighting: impl FnOnce(&Hit<T>) -> Option<Sighting>) {
        match hit {
            Found::Nothing => {}
            Found::Several => self.counts.ambiguous += 1,
            Found::One(hit) => {
                if let Some(sighting) = sighting(&hit) {
                    self.counts.matched += 1;
                    found(hit.whose, sighting);
                }
            }
        }
    }

    /// A line of JSON: the WAF's, the embedded proxy's, or events with lines in them.
    fn json<T: Copy + PartialEq>(&mut self, line: &[u8], index: &Index<T>, found: &mut impl FnMut(T, Sighting), depth: u8) {
        if memmem::find(line, b"\"httpRequest\"").is_some() {
            self.counts.waf += 1;
            // The nonce stands in a header or in the URI, and hexadecimal digits are themselves in JSON.
            if index.by_nonce(line, None) != Found::Nothing {
                self.waf(line, index, found);
            }
            return;
        }
        if line.first() == Some(&b'{')
            && let Ok(one) = serde_json::from_slice::<Access>(line)
        {
            self.counts.access += 1;
            let hit = one.hit(index);
            return self.tell(hit, found, |hit| one.sighting(hit));
        }
        match messages(line) {
            Some(messages) if depth < MAX_DEPTH => {
                for message in messages {
                    self.read_within(message.as_bytes(), index, found, depth + 1);
                }
            }
            // The brackets and other members of a document over many lines.
            _ if is_furniture(line) => {}
            _ => self.counts.unreadable += 1,
        }
    }

    fn waf<T: Copy + PartialEq>(&mut self, line: &[u8], index: &Index<T>, found: &mut impl FnMut(T, Sighting)) {
        let Ok(one) = serde_json::from_slice::<Waf>(line) else {
            self.counts.unreadable += 1;
            return;
        };
        let Some(at) = Wall::from_unix_millis(one.timestamp) else { return };
        let hit = index.by_nonce(line, Some((one.timestamp, one.timestamp)));
        self.tell(hit, found, |hit| {
            let word = match one.action.as_str() {
                "ALLOW" => Word::LetIn,
                "BLOCK" | "CAPTCHA" | "CHALLENGE" => Word::Rejected,
                _ => Word::Neither,
            };
            Some(Sighting {
                attempt: 0,
                log: Log::Waf,
                action: short(&one.action),
                word,
                matched_by: hit.by,
                translated: hit.translated,
                way: Way::There,
                place: Place::Incoming,
                at: one.terminating_rule_id.as_deref().map(short),
                why: one.terminating_rule_type.as_deref().map(short),
                first: at,
                last: at,
                packets: None,
            })
        });
    }

    /// Whether it is an access log's: Squid's, in whatever format has its result code, or the embedded proxy's.
    fn access<T: Copy + PartialEq>(&mut self, line: &[u8], index: &Index<T>, found: &mut impl FnMut(T, Sighting)) -> bool {
        if index.by_nonce(line, None) == Found::Nothing && memmem::find(line, b" decision=").is_none() {
            // Most lines are somebody else's, and end here.
            let known = line.split(|b| *b == b' ').any(|word| result(word).is_some());
            self.counts.access += u64::from(known);
            return known;
        }
        let Some(one) = Access::of_line(line) else { return false };
        self.counts.access += 1;
        let hit = match (&one.client, index.by_nonce(line, one.when(one.late()))) {
            (Some(client), Found::Nothing) => one.when(0).map_or(Found::Nothing, |when| index.by_client(*client, when)),
            (_, hit) => hit,
        };
        self.tell(hit, found, |hit| one.sighting(hit));
        true
    }
}

fn of_flow<T>(record: &Record<'_>, hit: &Hit<T>, own: Option<&std::collections::BTreeSet<String>>) -> Option<Sighting> {
    let is_syn = record.protocol != TCP || record.flags.is_none_or(|flags| flags & SYN != 0);
    if !hit.back && !is_syn {
        // What was done to other packets says nothing of the SYN.
        return None;
    }
    // Where none is ours, none has to be named.
    let ours = own.and_then(|own| if own.is_empty() { Some(false) } else { record.interface.map(|interface| own.contains(interface)) });
    let (from_us, to_us) = if hit.back { (Place::Incoming, Place::Outgoing) } else { (Place::Outgoing, Place::Incoming) };
    let place = match (record.ingress, ours) {
        (_, Some(true)) => from_us,
        (Some(false), _) => Place::Outgoing,
        _ if hit.on_the_way => Place::Outgoing,
        (Some(true), _) => Place::Incoming,
        (None, Some(false)) => to_us,
        (None, None) if hit.from_outside && !hit.back => Place::Incoming,
        (None, None) => Place::Unknown,
    };
    let why = match (record.reason, record.path) {
        (Some(reason), _) => Some(format!("reject-reason {reason}")),
        (None, path) => path.map(|path| format!("traffic-path {path}")),
    };
    Some(Sighting {
        attempt: 0,
        log: Log::VpcFlowLog,
        action: if record.accepted { "ACCEPT" } else { "REJECT" }.into(),
        word: if record.accepted { Word::LetIn } else { Word::Rejected },
        matched_by: hit.by,
        translated: hit.translated,
        way: if hit.back { Way::Back } else { Way::There },
        place,
        at: record.interface.map(short),
        why,
        first: Wall::from_unix_millis(record.start.saturating_mul(1000))?,
        last: Wall::from_unix_millis(record.end.saturating_mul(1000))?,
        packets: record.packets,
    })
}

/// What is read of a WAF's line.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Waf {
    timestamp: i64,
    action: String,
    terminating_rule_id: Option<String>,
    terminating_rule_type: Option<String>,
}

/// A line of an access log; as JSON it is the embedded proxy's.
#[derive(Deserialize)]
#[serde(from = "ProxyLine")]
struct Access {
    log: Log,
    action: String,
    word: Word,
    why: Option<String>,
    client: Option<SocketAddr>,
    text: String,
    /// When it was written, and how long it had taken by then, in milliseconds.
    written: Option<i64>,
    took: i64,
}

/// The embedded proxy's line of JSON.
#[derive(Deserialize)]
struct ProxyLine {
    time: String,
    client: SocketAddr,
    user_agent: String,
    destination: String,
    duration_ms: i64,
    status: u16,
    decision: String,
    reason: String,
}

impl From<ProxyLine> for Access {
    fn from(line: ProxyLine) -> Access {
        Access {
            log: Log::Proxy,
            action: format!("{}/{}", short(&line.decision), line.status),
            word: decided(&line.decision, &line.reason),
            why: Some(short(&line.reason)),
            client: Some(line.client),
            text: format!("{} {}", line.user_agent, line.destination),
            written: Wall::parse(&line.time).map(Wall::unix_millis),
            took: line.duration_ms,
        }
    }
}

/// What the embedded proxy's decision comes to: what it could not read, it has judged by no rule.
fn decided(decision: &str, reason: &str) -> Word {
    match (decision, reason) {
        ("deny", "parse" | "proxy-header") => Word::Neither,
        ("deny", _) => Word::Rejected,
        ("allow", _) => Word::LetIn,
        _ => Word::Neither,
    }
}

impl Access {
    fn of_line(line: &[u8]) -> Option<Access> {
        let words = || line.split(|b| *b == b' ').filter(|word| !word.is_empty());
        // The embedded proxy's own words stand behind all that a client has said.
        let own = memchr::memrchr(b'"', line).and_then(|at| line.get(at..)).unwrap_or(line);
        let value =
            |key: &[u8]| own.split(|b| *b == b' ').find_map(|word| word.strip_prefix(key)).and_then(|v| std::str::from_utf8(v).ok());
        let ip = |nth: usize| words().nth(nth).and_then(|w| std::str::from_utf8(w).ok()).and_then(|w| w.parse::<IpAddr>().ok());
        let native = words().next().and_then(epoch);
        // The common form has seconds alone.
        let within = if native.is_some() { 0 } else { 999 };
        let written = native.or_else(|| common_time(line)?.checked_add(within));
        if let (Some(decision), Some(reason)) = (value(b"decision="), value(b"reason=")) {
            let client = if native.is_some() { ip(2) } else { ip(0) };
            let port = value(b"port=").and_then(|port| port.parse().ok());
            let seconds: Option<f64> = value(b"duration=").and_then(|text| text.parse().ok());
            return Some(Access {
                log: Log::Proxy,
                action: short(decision),
                word: decided(decision, reason),
                why: Some(short(reason)),
                client: client.zip(port).map(|(ip, port)| SocketAddr::new(ip, port)),
                text: String::new(),
                written,
                took: seconds.filter(|s| (0.0..1e9).contains(s)).map_or(0, |s| (s * 1000.0).ceil() as i64) + within,
            });
        }
        let unquoted = unquoted(line);
        let (code, status) = unquoted.split(|b| *b == b' ').find_map(result)?;
        let took = native.and_then(|_| words().nth(1)).and_then(|w| std::str::from_utf8(w).ok()).and_then(|w| w.parse::<u32>().ok());
        Some(Access {
            log: Log::Squid,
            action: if status.is_empty() { short(code) } else { format!("{}/{}", short(code), short(status)) },
            word: of_squid(code),
            why: words().find(|w| w.starts_with(b"ERR_")).and_then(|w| std::str::from_utf8(w).ok()).map(short),
            client: None,
            text: String::new(),
            written,
            took: took.map_or(within, i64::from),
        })
    }

    /// A refusal is written at once. Who may write one later could take an alarm back with a nonce that was read somewhere.
    fn late(&self) -> i64 {
        if self.word == Word::Rejected { 0 } else { LATE_MS }
    }

    fn when(&self, late: i64) -> Option<(i64, i64)> {
        let written = self.written?;
        Some((written.saturating_sub(self.took.max(0)).saturating_sub(late), written))
    }

    fn hit<T: Copy + PartialEq>(&self, index: &Index<T>) -> Found<Hit<T>> {
        match (self.client, index.by_nonce(self.text.as_bytes(), self.when(self.late()))) {
            (Some(client), Found::Nothing) => self.when(0).map_or(Found::Nothing, |when| index.by_client(client, when)),
            (_, hit) => hit,
        }
    }

    fn sighting<T>(&self, hit: &Hit<T>) -> Option<Sighting> {
        let (first, last) = self.when(0)?;
        Some(Sighting {
            attempt: 0,
            log: self.log,
            action: self.action.clone(),
            word: self.word,
            matched_by: hit.by,
            translated: hit.translated,
            way: Way::There,
            place: Place::Incoming,
            at: None,
            why: self.why.clone(),
            first: Wall::from_unix_millis(first)?,
            last: Wall::from_unix_millis(last)?,
            packets: None,
        })
    }
}

/// The line without what stands in quotes, where clients have their say.
fn unquoted(line: &[u8]) -> Vec<u8> {
    let (mut quoted, mut escaped) = (false, false);
    let outside = |b: &u8| {
        let inside = quoted;
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        !inside && !quoted
    };
    line.iter().copied().filter(outside).collect()
}

/// Squid's result code and what stands behind it: `TCP_DENIED/403`, or `TCP_DENIED:HIER_NONE` in the combined format.
fn result(word: &[u8]) -> Option<(&str, &str)> {
    let known = [&b"TCP_"[..], b"NONE", b"TAG_NONE", b"UDP_"];
    if !known.iter().any(|start| word.starts_with(start)) {
        return None;
    }
    let text = std::str::from_utf8(word).ok()?;
    let (code, behind) = text.split_once(['/', ':'])?;
    let plain = code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    plain.then_some((code, if behind.bytes().all(|b| b.is_ascii_digit()) { behind } else { "" }))
}

/// What a result code of Squid comes to. `TCP_DENIED_REPLY` is said of an answer that was kept back: its request had gone out.
fn of_squid(code: &str) -> Word {
    match code {
        _ if code.starts_with("TCP_DENIED_REPLY") => Word::LetIn,
        _ if code.starts_with("TCP_DENIED") => Word::Rejected,
        _ if code.starts_with("TCP_REDIRECT") || !code.starts_with("TCP_") => Word::Neither,
        _ if [
            "TCP_MISS",
            "TCP_TUNNEL",
            "TCP_HIT",
            "TCP_MEM_HIT",
            "TCP_REFRESH",
            "TCP_CLIENT_REFRESH",
            "TCP_SWAPFAIL",
            "TCP_IMS",
            "TCP_INM",
            "TCP_NEGATIVE",
            "TCP_OFFLINE",
            "TCP_CF",
        ]
        .iter()
        .any(|known| code.starts_with(known)) =>
        {
            Word::LetIn
        }
        _ => Word::Neither,
    }
}

/// The events of CloudWatch in a line: an object with `message`, or a batch of them; or one member of a document over many lines.
fn messages(line: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Event {
        message: String,
    }
    #[derive(Deserialize)]
    struct Batch {
        #[serde(alias = "logEvents")]
        events: Vec<Event>,
    }
    if line.first() == Some(&b'"') {
        let member = line.strip_suffix(b",").unwrap_or(line);
        let object = [b"{", member, b"}"].concat();
        return serde_json::from_slice::<Event>(&object).ok().map(|event| vec![event.message]);
    }
    // Firehose puts batches behind one another without an end of line.
    let mut all = Vec::new();
    for value in serde_json::Deserializer::from_slice(line).into_iter::<serde_json::Value>() {
        let value = value.ok()?;
        if let Ok(batch) = serde_json::from_value::<Batch>(value.clone()) {
            all.extend(batch.events.into_iter().map(|event| event.message));
        } else {
            all.push(serde_json::from_value::<Event>(value).ok()?.message);
        }
    }
    Some(all)
}

/// Lines of a document over many lines that have nothing in them.
fn is_furniture(line: &[u8]) -> bool {
    let bracket = line.iter().all(|b| matches!(b, b'{' | b'}' | b'[' | b']' | b','));
    bracket || (line.first() == Some(&b'"') && memmem::find(line, b"\":").is_some())
}

/// The line without the time of RFC 3339 that CloudWatch puts before events that it exports.
fn without_time(line: &[u8]) -> &[u8] {
    let Some(end) = memchr::memchr(b' ', line) else { return line };
    let (time, rest) = line.split_at(end);
    let time_like =
        (20..=30).contains(&time.len()) && time.get(4) == Some(&b'-') && time.get(10) == Some(&b'T') && time.last() == Some(&b'Z');
    if time_like { rest.trim_ascii_start() } else { line }
}

/// `1767322982.123`, Squid's time, in milliseconds.
fn epoch(word: &[u8]) -> Option<i64> {
    let (seconds, millis) = std::str::from_utf8(word).ok()?.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !(9..=12).contains(&seconds.len()) || millis.len() != 3 || !digits(seconds) || !digits(millis) {
        return None;
    }
    seconds.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(millis.parse().ok()?)
}

/// `[02/Jan/2026:03:04:05 +0000]`, of the common log format, in milliseconds.
fn common_time(line: &[u8]) -> Option<i64> {
    let from = memchr::memchr(b'[', line)?;
    let text = line.get(from + 1..from + 27)?;
    let time = jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S %z", text).ok()?.to_timestamp().ok()?;
    Some(time.as_millisecond())
}

/// As much of a word from outside as a report can bear.
fn short(text: &str) -> String {
    one_line(text, MAX_WORD)
}

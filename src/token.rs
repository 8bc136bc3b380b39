//! The signed words between monitor and beacon: nonce, answer, question to the log, answer of the log.
//!
//! Each is MACed with the shared key under its own domain tag, every field length-prefixed, so that none is ever taken
//! for another, and so that what a proxy can echo (the nonce) is never what proves a relay (the answer).
//! Times are milliseconds since 1970, as [`crate::clock::Wall::unix_millis`] gives them, and are arguments.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::secret::Secret;

/// How long a nonce is good for: longer than the latest dial of a proxy that keeps trying (240 s seen), and the asking afterwards.
pub const NONCE_LIFE_MS: i64 = 10 * 60 * 1000;
/// How long a question to the log is good for: one round trip, and a retry.
pub const QUESTION_LIFE_MS: i64 = 60 * 1000;
/// How far the clocks of monitor and beacon may differ.
pub const SKEW_MS: i64 = 60 * 1000;
/// The most sightings of one nonce that the log keeps and tells.
pub const MAX_SIGHTINGS: usize = 16;
/// The longest answer of either kind, without its newline; what is longer is not ours.
pub const MAX_LINE: usize = 4096;

/// The fewest bytes of a key: as many as the MAC has (RFC 2104 section 3).
const MIN_KEY: usize = 32;
/// The most bytes that a key file is read for; a mistaken path (a disk, a log) must not fill memory.
const MAX_KEY_FILE: u64 = 4096;
/// The bytes of an HMAC-SHA256.
const MAC: usize = 32;
/// The first word of an answer.
const ANSWER: &str = "mustnot-beacon/1";
/// The first word of the log's answer.
const LOG_ANSWER: &str = "mustnot-beacon-log/1";

/// What a MAC is for; its tag is the first field under the MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Nonce,
    Answer,
    Question,
    LogAnswer,
}

impl Purpose {
    fn tag(self) -> &'static [u8] {
        match self {
            Purpose::Nonce => b"mustnot beacon nonce 1",
            Purpose::Answer => b"mustnot beacon answer 1",
            Purpose::Question => b"mustnot beacon log question 1",
            Purpose::LogAnswer => b"mustnot beacon log answer 1",
        }
    }
}

/// The key that monitors and beacon share.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        // Equal keys give equal codes; nothing that is ever sent is this short.
        hmac::verify(&other.0, b"compare", hmac::sign(&self.0, b"compare").as_ref()).is_ok()
    }
}

impl Key {
    /// A key of this process alone, where a file is only being looked at.
    ///
    /// # Errors
    /// That the system gives no randomness.
    pub fn ephemeral() -> Result<Key, String> {
        Ok(Key(hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()?)))
    }

    /// The key that the text of a key file holds: all of it, less white space around it.
    ///
    /// # Errors
    /// Fewer than 32 bytes.
    pub fn from_text(text: impl AsRef<[u8]>) -> Result<Key, String> {
        let text = text.as_ref().trim_ascii();
        if text.len() < MIN_KEY {
            return Err(format!("the key has {} bytes; write at least {MIN_KEY}, for example by: openssl rand -hex 32", text.len()));
        }
        Ok(Key(hmac::Key::new(hmac::HMAC_SHA256, text)))
    }

    /// The text of a new key: 256 random bits as 64 hex characters.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Secret, String> {
        Ok(Secret::new(hex(&random::<32>()?)))
    }

    /// The key in the file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no good key; the text names it and says what to do.
    pub fn load(path: &Path) -> Result<Key, String> {
        let shown = path.display();
        let cannot = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => {
                format!(
                    "the key file {shown} does not exist; copy the beacon's key file there, or start a beacon with it once to create it"
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!("the key file {shown} may not be read by this user; give it to the user that runs mustnot (chown, mode 0600)")
            }
            _ => format!("the key file {shown} cannot be read: {e}; point key_file at a readable file"),
        };
        let mut text = Vec::new();
        File::open(path).and_then(|file| file.take(MAX_KEY_FILE + 1).read_to_end(&mut text)).map_err(cannot)?;
        if text.len() as u64 > MAX_KEY_FILE {
            return Err(format!(
                "the key file {shown} has more than {MAX_KEY_FILE} bytes; point key_file at a file that holds only the key"
            ));
        }
        Key::from_text(&text).map_err(|why| format!("the key file {shown} is no good: {why}"))
    }

    /// The key in the file; where there is none, a new key in a new file that only its owner may read. True: it is new.
    ///
    /// # Errors
    /// The file can be neither read nor created, or holds no good key; the text names it and says what to do.
    pub fn load_or_create(path: &Path) -> Result<(Key, bool), String> {
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok((Key::load(path)?, false)),
            // A key on a read-only file system is as good as any.
            Err(_) if path.exists() => return Ok((Key::load(path)?, false)),
            Err(e) => {
                let shown = path.display();
                return Err(format!("the key file {shown} cannot be created: {e}; create its directory and let this user write there"));
            }
        };
        let written = Key::generate().and_then(|text| {
            let line = format!("{}\n", text.expose());
            file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| e.to_string())?;
            Key::from_text(line)
        });
        match written {
            Ok(key) => Ok((key, true)),
            Err(why) => {
                // A half-written key would be refused at the next start; that no file stays behind is all that can be done here.
                fs::remove_file(path).ok();
                Err(format!("the key file {} cannot be written: {why}; make room there", path.display()))
            }
        }
    }

    fn mac(&self, purpose: Purpose, fields: &[&[u8]]) -> [u8; MAC] {
        let mut mac = [0; MAC];
        let tag = hmac::sign(&self.0, &message(purpose, fields));
        mac.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        mac
    }

    fn verifies(&self, purpose: Purpose, fields: &[&[u8]], mac: &[u8]) -> bool {
        hmac::verify(&self.0, &message(purpose, fields), mac).is_ok()
    }

    /// Fields, none with a space in it, and their MAC, as one line.
    fn sign_line(&self, purpose: Purpose, fields: &[String]) -> String {
        let bytes: Vec<&[u8]> = fields.iter().map(String::as_bytes).collect();
        format!("{} {}", fields.join(" "), hex(&self.mac(purpose, &bytes)))
    }

    /// The fields of a line that starts with `word`, if its MAC is right.
    fn open_line<'a>(&self, purpose: Purpose, word: &str, line: &'a str) -> Result<Vec<&'a str>, Flaw> {
        let line = line.strip_suffix('\n').map_or(line, |l| l.strip_suffix('\r').unwrap_or(l));
        let (fields, mac) = line.rsplit_once(' ').ok_or(Flaw::Format)?;
        let mac = unhex::<MAC>(mac).ok_or(Flaw::Format)?;
        let fields: Vec<&str> = fields.split(' ').collect();
        if fields.first() != Some(&word) || line.len() > MAX_LINE {
            return Err(Flaw::Format);
        }
        let bytes: Vec<&[u8]> = fields.iter().map(|f| f.as_bytes()).collect();
        if self.verifies(purpose, &bytes, &mac) { Ok(fields) } else { Err(Flaw::Signature) }
    }
}

/// Why a line is not the answer that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It is not written as one.
    Format,
    /// It is written as one, but not signed with our key, or changed on the way.
    Signature,
    /// It is signed, but answers something else: an older answer, from a cache perhaps.
    Other,
}

/// A word that only key holders can make, that cannot be guessed, and that expires: what a relay carries to the beacon.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce {
    id: [u8; 16],
    expires: i64,
    mac: [u8; MAC],
}

impl Nonce {
    /// The length of its text: lower-case hex, which passes through a path segment and a line unchanged.
    pub const LENGTH: usize = 2 * (16 + 8 + MAC);

    /// A new nonce, good for [`NONCE_LIFE_MS`].
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn mint(key: &Key, now_unix_ms: i64) -> Result<Nonce, String> {
        Ok(Nonce::of(key, random()?, now_unix_ms.saturating_add(NONCE_LIFE_MS)))
    }

    fn of(key: &Key, id: [u8; 16], expires: i64) -> Nonce {
        Nonce { id, expires, mac: key.mac(Purpose::Nonce, &[&id, &expires.to_be_bytes()]) }
    }

    /// The nonce that the text is, if a holder of the key made it and it is good now.
    pub fn verify(key: &Key, text: &str, now_unix_ms: i64) -> Option<Nonce> {
        let bytes = unhex::<{ Nonce::LENGTH / 2 }>(text)?;
        let (id, rest) = bytes.split_first_chunk::<16>()?;
        let (expires, mac) = rest.split_first_chunk::<8>()?;
        if !key.verifies(Purpose::Nonce, &[id, expires], mac) {
            return None;
        }
        let expires = i64::from_be_bytes(*expires);
        good(expires, NONCE_LIFE_MS, now_unix_ms).then(|| Nonce::of(key, *id, expires))
    }

    /// What tells it from every other.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// When it was made, by its maker's clock.
    pub fn minted_unix_ms(&self) -> i64 {
        self.expires.saturating_sub(NONCE_LIFE_MS)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", hex(&self.id), hex(&self.expires.to_be_bytes()), hex(&self.mac))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({})", hex(&self.id))
    }
}

/// What the beacon says to a nonce: who brought it, to which port, and when. Its signature is the proof of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The nonce that was brought.
    pub nonce: Nonce,
    /// The address and port that the beacon saw.
    pub peer: SocketAddr,
    /// The beacon's own port.
    pub port: u16,
    /// When, by the beacon's clock.
    pub at_unix_ms: i64,
}

impl Answer {
    /// The signed line, without a newline.
    pub fn sign(&self, key: &Key) -> String {
        let Answer { nonce, peer, port, at_unix_ms } = self;
        let fields = [ANSWER.into(), nonce.to_string(), peer.to_string(), port.to_string(), at_unix_ms.to_string()];
        key.sign_line(Purpose::Answer, &fields)
    }

    /// The answer that the line is (one newline may end it), if it is signed and answers `expected`.
    ///
    /// # Errors
    /// Why it is not.
    pub fn verify(key: &Key, line: &str, expected: &Nonce) -> Result<Answer, Flaw> {
        let fields = key.open_line(Purpose::Answer, ANSWER, line)?;
        let [_, nonce, peer, port, at] = fields.as_slice() else { return Err(Flaw::Format) };
        if *nonce != expected.to_string() {
            return Err(Flaw::Other);
        }
        Ok(Answer { nonce: *expected, peer: read(peer)?, port: read(port)?, at_unix_ms: read(at)? })
    }
}

/// A question to the beacon's log: was this nonce brought, and by whom?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    nonce: Nonce,
    id: [u8; 16],
    expires: i64,
    mac: [u8; MAC],
}

impl Question {
    /// The length of its text, lower-case hex.
    pub const LENGTH: usize = 2 * (16 + 8 + 16 + 8 + MAC);

    /// A new question about the nonce, good for [`QUESTION_LIFE_MS`]; the nonce may have expired.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn ask(key: &Key, nonce: &Nonce, now_unix_ms: i64) -> Result<Question, String> {
        let (id, expires) = (random()?, now_unix_ms.saturating_add(QUESTION_LIFE_MS));
        let fields: [&[u8]; 4] = [&nonce.id, &nonce.expires.to_be_bytes(), &id, &expires.to_be_bytes()];
        Ok(Question { nonce: *nonce, id, expires, mac: key.mac(Purpose::Question, &fields) })
    }

    /// The question that the text is, if a holder of the key asks it, now.
    pub fn verify(key: &Key, text: &str, now_unix_ms: i64) -> Option<Question> {
        let bytes = unhex::<{ Question::LENGTH / 2 }>(text)?;
        let (nonce, rest) = bytes.split_first_chunk::<16>()?;
        let (nonce_expires, rest) = rest.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let mac = rest.first_chunk::<MAC>()?;
        if !key.verifies(Purpose::Question, &[nonce, nonce_expires, id, expires], mac) {
            return None;
        }
        let nonce = Nonce::of(key, *nonce, i64::from_be_bytes(*nonce_expires));
        let expires = i64::from_be_bytes(*expires);
        good(expires, QUESTION_LIFE_MS, now_unix_ms).then_some(Question { nonce, id: *id, expires, mac: *mac })
    }

    /// The nonce asked about.
    pub fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// How long after the making of the nonce it was asked. Both times come from the monitor's clock, so no skew is in it.
    pub fn nonce_age_ms(&self) -> i64 {
        self.expires.saturating_sub(QUESTION_LIFE_MS).saturating_sub(self.nonce.minted_unix_ms()).max(0)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Question { nonce, id, expires, mac } = self;
        write!(f, "{}{}", hex(&nonce.id), hex(&nonce.expires.to_be_bytes()))?;
        write!(f, "{}{}{}", hex(id), hex(&expires.to_be_bytes()), hex(mac))
    }
}

/// One time that a nonce was brought to the beacon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// The address and port that the beacon saw.
    pub peer: SocketAddr,
    /// The beacon's own port.
    pub port: u16,
    /// When, by the beacon's clock.
    pub at_unix_ms: i64,
}

/// What the log says about a nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It was brought; the first [`MAX_SIGHTINGS`] times of it, at least one.
    Known(Vec<Sighting>),
    /// It was never brought: the log reaches back to before it was made, and does not have it.
    Unknown,
    /// The log does not have it, but does not reach back to its making (a restart, an overflow, an old nonce): proves nothing.
    Forgotten,
}

/// The log's answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogAnswer {
    /// The asker's address and port as the beacon saw them.
    pub asker: SocketAddr,
    /// When, by the beacon's clock.
    pub at_unix_ms: i64,
    /// What the log says.
    pub finding: Finding,
}

impl LogAnswer {
    /// The signed line for this very question, without a newline.
    pub fn sign(&self, key: &Key, question: &Question) -> String {
        let LogAnswer { asker, at_unix_ms, finding } = self;
        let mut fields = vec![LOG_ANSWER.into(), question.nonce.to_string(), hex(&question.id), asker.to_string(), at_unix_ms.to_string()];
        match finding {
            Finding::Known(sightings) => {
                fields.push("known".into());
                for Sighting { peer, port, at_unix_ms } in sightings.iter().take(MAX_SIGHTINGS) {
                    fields.extend([peer.to_string(), port.to_string(), at_unix_ms.to_string()]);
                }
            }
            Finding::Unknown => fields.push("unknown".into()),
            Finding::Forgotten => fields.push("forgotten".into()),
        }
        key.sign_line(Purpose::LogAnswer, &fields)
    }

    /// The log's answer that the line is (one newline may end it), if it is signed and answers `expected`.
    ///
    /// # Errors
    /// Why it is not.
    pub fn verify(key: &Key, line: &str, expected: &Question) -> Result<LogAnswer, Flaw> {
        let fields = key.open_line(Purpose::LogAnswer, LOG_ANSWER, line)?;
        let [_, nonce, id, asker, at, word, rest @ ..] = fields.as_slice() else { return Err(Flaw::Format) };
        if *nonce != expected.nonce.to_string() || *id != hex(&expected.id) {
            return Err(Flaw::Other);
        }
        let finding = match (*word, rest) {
            ("known", []) => return Err(Flaw::Format),
            ("known", rest) => Finding::Known(rest.chunks(3).map(sighting).collect::<Result<_, _>>()?),
            ("unknown", []) => Finding::Unknown,
            ("forgotten", []) => Finding::Forgotten,
            _ => return Err(Flaw::Format),
        };
        Ok(LogAnswer { asker: read(asker)?, at_unix_ms: read(at)?, finding })
    }
}

fn sighting(fields: &[&str]) -> Result<Sighting, Flaw> {
    let [peer, port, at] = fields else { return Err(Flaw::Format) };
    Ok(Sighting { peer: read(peer)?, port: read(port)?, at_unix_ms: read(at)? })
}

fn read<T: std::str::FromStr>(field: &str) -> Result<T, Flaw> {
    field.parse().map_err(|_| Flaw::Format)
}

/// Not expired, and not from further ahead than anything that expires so late can have been made.
fn good(expires: i64, life: i64, now: i64) -> bool {
    expires.saturating_add(SKEW_MS) > now && expires <= now.saturating_add(life).saturating_add(SKEW_MS)
}

/// The bytes under a MAC: the tag, then each field, every one behind its length.
fn message(purpose: Purpose, fields: &[&[u8]]) -> Vec<u8> {
    let mut message = Vec::new();
    for field in std::iter::once(&purpose.tag()).chain(fields) {
        message.extend_from_slice(&(field.len() as u64).to_be_bytes());
        message.extend_from_slice(field);
    }
    message
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no randomness; let this process call getrandom(2)".to_string())?;
    Ok(bytes)
}

/// A number that nobody can guess, in 32 hexadecimal digits; none where the system gives no randomness.
pub fn unguessable() -> Option<String> {
    random::<16>().ok().map(|bytes| hex(&bytes))
}

/// Bytes in hexadecimal, in small letters.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// Lower case only, so that each value has one text and a flipped bit cannot pass.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(bytes)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flaw::Format => "not a beacon's answer",
            Flaw::Signature => "not signed with our key; give beacon and monitor the same key file",
            Flaw::Other => "a signed answer to something else",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_767_323_045_678;

    fn key() -> Key {
        Key::from_text("0123456789abcdef0123456789abcdef").unwrap()
    }

    fn other_key() -> Key {
        Key::from_text("0123456789abcdef0123456789abcdeF").unwrap()
    }

    fn peer() -> SocketAddr {
        "192.0.2.7:4711".parse().unwrap()
    }

    fn answer(nonce: Nonce) -> Answer {
        Answer { nonce, peer: "[2001:db8::abcd]:4711".parse().unwrap(), port: 443, at_unix_ms: NOW }
    }

    fn sightings(count: usize) -> Vec<Sighting> {
        let peer = "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535".parse().unwrap();
        (0..count).map(|i| Sighting { peer, port: 65535, at_unix_ms: NOW + i as i64 }).collect()
    }

    #[test]
    fn a_key_has_at_least_32_bytes() {
        assert!(Key::from_text(format!("  {}\n", "k".repeat(32))).is_ok());
        assert_eq!(
            Key::from_text(format!("{}\n", "k".repeat(31))).unwrap_err(),
            "the key has 31 bytes; write at least 32, for example by: openssl rand -hex 32"
        );
        assert_eq!(format!("{:?}", key()), "Key(***)");
        let text = Key::generate().unwrap();
        assert_eq!(text.expose().len(), 64);
        assert_ne!(text.expose(), Key::generate().unwrap().expose());
    }

    #[test]
    fn white_space_around_a_key_does_not_matter() {
        let spaced = Key::from_text("\n 0123456789abcdef0123456789abcdef \r\n").unwrap();
        assert!(Nonce::verify(&spaced, &Nonce::mint(&key(), NOW).unwrap().to_string(), NOW).is_some());
    }

    #[test]
    fn a_key_file_is_created_once_and_read_ever_after() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("beacon.key");
        let missing = Key::load(&path).unwrap_err();
        assert!(missing.starts_with(&format!("the key file {} does not exist; copy", path.display())), "{missing}");
        let (first, created) = Key::load_or_create(&path).unwrap();
        assert!(created);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (second, created) = Key::load_or_create(&path).unwrap();
        assert!(!created);
        let nonce = Nonce::mint(&first, NOW).unwrap().to_string();
        assert!(Nonce::verify(&second, &nonce, NOW).is_some());
        assert!(Nonce::verify(&Key::load(&path).unwrap(), &nonce, NOW).is_some());
    }

    #[test]
    fn a_bad_key_file_is_named_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("beacon.key");
        fs::write(&path, "short").unwrap();
        let short = Key::load_or_create(&path).unwrap_err();
        let expected = format!(
            "the key file {} is no good: the key has 5 bytes; write at least 32, for example by: openssl rand -hex 32",
            path.display()
        );
        assert_eq!(short, expected);
        assert_eq!(fs::read_to_string(&path).unwrap(), "short", "a bad file is left alone");
        fs::write(&path, "k".repeat(4097)).unwrap();
        assert!(Key::load(&path).unwrap_err().contains("has more than 4096 bytes"));
        let nowhere = dir.path().join("none/beacon.key");
        assert!(Key::load_or_create(&nowhere).unwrap_err().contains("cannot be created: "));
        assert!(Key::load_or_create(dir.path()).unwrap_err().contains("cannot be read: "));
    }

    #[test]
    fn a_nonce_is_good_from_its_making_to_its_expiry_with_a_minute_of_skew() {
        let nonce = Nonce::mint(&key(), NOW).unwrap();
        let text = nonce.to_string();
        assert_eq!(text.len(), Nonce::LENGTH);
        assert!(text.len() <= 120 && text.bytes().all(|b| b.is_ascii_alphanumeric()));
        let cases = [
            (NOW - SKEW_MS, true),
            (NOW - SKEW_MS - 1, false),
            (NOW, true),
            (NOW + NONCE_LIFE_MS + SKEW_MS - 1, true),
            (NOW + NONCE_LIFE_MS + SKEW_MS, false),
        ];
        for (now, valid) in cases {
            assert_eq!(Nonce::verify(&key(), &text, now), valid.then_some(nonce), "{}", now - NOW);
        }
        assert_eq!(Nonce::verify(&other_key(), &text, NOW), None);
        assert_eq!(Nonce::verify(&key(), &text.to_uppercase(), NOW), None);
        assert_eq!(Nonce::verify(&key(), &format!("{text}\n"), NOW), None);
        assert_ne!(text, Nonce::mint(&key(), NOW).unwrap().to_string());
    }

    #[test]
    fn an_answer_reads_back_and_is_bound_to_its_nonce_and_key() {
        let nonce = Nonce::mint(&key(), NOW).unwrap();
        let line = answer(nonce).sign(&key());
        assert!(line.starts_with(&format!("mustnot-beacon/1 {nonce} [2001:db8::abcd]:4711 443 {NOW} ")), "{line}");
        for end in ["", "\n", "\r\n"] {
            assert_eq!(Answer::verify(&key(), &format!("{line}{end}"), &nonce), Ok(answer(nonce)));
        }
        for end in [" ", "\n\n", "\r", "x"] {
            assert_eq!(Answer::verify(&key(), &format!("{line}{end}"), &nonce), Err(Flaw::Format), "{end:?}");
        }
        assert_eq!(Answer::verify(&other_key(), &line, &nonce), Err(Flaw::Signature));
        assert_eq!(Answer::verify(&key(), &line, &Nonce::mint(&key(), NOW).unwrap()), Err(Flaw::Other));
        assert_eq!(Answer::verify(&key(), &nonce.to_string(), &nonce), Err(Flaw::Format));
    }

    #[test]
    fn a_question_reads_back_and_knows_the_age_of_its_nonce() {
        let nonce = Nonce::mint(&key(), NOW).unwrap();
        let question = Question::ask(&key(), &nonce, NOW + 5000).unwrap();
        let text = question.to_string();
        assert_eq!(text.len(), Question::LENGTH);
        assert_eq!(Question::verify(&key(), &text, NOW), Some(question));
        assert_eq!(question.nonce(), &nonce);
        assert_eq!(question.nonce_age_ms(), 5000);
        let last = NOW + 5000 + QUESTION_LIFE_MS + SKEW_MS - 1;
        assert!(Question::verify(&key(), &text, last).is_some());
        assert_eq!(Question::verify(&key(), &text, last + 1), None);
        assert_eq!(Question::verify(&other_key(), &text, NOW), None);
    }

    #[test]
    fn a_log_answer_reads_back_and_is_bound_to_its_question() {
        let nonce = Nonce::mint(&key(), NOW).unwrap();
        let question = Question::ask(&key(), &nonce, NOW).unwrap();
        for finding in [Finding::Unknown, Finding::Forgotten, Finding::Known(sightings(1)), Finding::Known(sightings(MAX_SIGHTINGS))] {
            let said = LogAnswer { asker: peer(), at_unix_ms: NOW, finding };
            let line = said.sign(&key(), &question);
            assert!(line.len() < MAX_LINE, "{}", line.len());
            assert_eq!(LogAnswer::verify(&key(), &line, &question), Ok(said));
            assert_eq!(LogAnswer::verify(&other_key(), &line, &question), Err(Flaw::Signature));
            let again = Question::ask(&key(), &nonce, NOW).unwrap();
            assert_eq!(LogAnswer::verify(&key(), &line, &again), Err(Flaw::Other), "asked again");
        }
        let much = LogAnswer { asker: peer(), at_unix_ms: NOW, finding: Finding::Known(sightings(MAX_SIGHTINGS + 1)) };
        let read = LogAnswer::verify(&key(), &much.sign(&key(), &question), &question).unwrap();
        assert_eq!(read.finding, Finding::Known(sightings(MAX_SIGHTINGS)));
    }

    #[test]
    fn no_purpose_verifies_as_another() {
        let all = [Purpose::Nonce, Purpose::Answer, Purpose::Question, Purpose::LogAnswer];
        let fields: [&[u8]; 2] = [b"a", b"bc"];
        for made in all {
            for read in all {
                assert_eq!(key().verifies(read, &fields, &key().mac(made, &fields)), made == read, "{made:?} as {read:?}");
            }
        }
        assert!(!key().verifies(Purpose::Nonce, &[b"ab", b"c"], &key().mac(Purpose::Nonce, &fields)), "fields keep their borders");
        // The log's answer re-labelled as an answer, and the other way round.
        let nonce = Nonce::mint(&key(), NOW).unwrap();
        let question = Question::ask(&key(), &nonce, NOW).unwrap();
        let relabelled = answer(nonce).sign(&key()).replace(ANSWER, LOG_ANSWER);
        assert_eq!(LogAnswer::verify(&key(), &relabelled, &question), Err(Flaw::Signature));
        let line = LogAnswer { asker: peer(), at_unix_ms: NOW, finding: Finding::Unknown }.sign(&key(), &question);
        assert_eq!(Answer::verify(&key(), &line.replace(LOG_ANSWER, ANSWER), &nonce), Err(Flaw::Signature));
    }

    fn flip(text: &str, bit: usize) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        let at = (bit / 8) % bytes.len();
        bytes[at] ^= 1 << (bit % 8);
        String::from_utf8(bytes).ok()
    }

    proptest! {
        #[test]
        fn a_flipped_bit_fails_everywhere(bit in 0usize..32768) {
            let key = key();
            let nonce = Nonce::mint(&key, NOW).unwrap();
            let question = Question::ask(&key, &nonce, NOW).unwrap();
            let log = LogAnswer { asker: peer(), at_unix_ms: NOW, finding: Finding::Known(sightings(2)) };
            if let Some(text) = flip(&nonce.to_string(), bit) {
                prop_assert_eq!(Nonce::verify(&key, &text, NOW), None);
            }
            if let Some(text) = flip(&question.to_string(), bit) {
                prop_assert_eq!(Question::verify(&key, &text, NOW), None);
            }
            if let Some(text) = flip(&answer(nonce).sign(&key), bit) {
                prop_assert!(Answer::verify(&key, &text, &nonce).is_err());
            }
            if let Some(text) = flip(&log.sign(&key, &question), bit) {
                prop_assert!(LogAnswer::verify(&key, &text, &question).is_err());
            }
        }

        #[test]
        fn no_text_is_a_panic(text in "\\PC*") {
            let nonce = Nonce::mint(&key(), NOW).unwrap();
            let question = Question::ask(&key(), &nonce, NOW).unwrap();
            prop_assert!(Nonce::verify(&key(), &text, NOW).is_none());
            prop_assert!(Question::verify(&key(), &text, NOW).is_none());
            prop_assert!(Answer::verify(&key(), &text, &nonce).is_err());
            prop_assert!(LogAnswer::verify(&key(), &text, &question).is_err());
        }
    }
}

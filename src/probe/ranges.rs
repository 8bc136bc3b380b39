//! Kind `ranges`: a list of networks as somebody publishes it, held against the one that is expected. Both are sets of addresses:
//! how they are cut, ordered or repeated says nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use tokio::time::{Instant, timeout_at};

use super::fetch::{Fetch, Speak};
use super::{Approach, Ended};
use crate::net::http::{Body, Head};
use crate::net::tls;
use crate::observation::{Evidence, Family, Outcome, RangesEvidence, Stage};
use crate::secret::Secret;
use crate::target::{Networks, Url};

mod list;

use list::short;
pub use list::{Form, Pointer};

/// The most that is read of a list: the largest that is published, Azure's service tags, has some five megabytes.
const MAX_LIST: usize = 16 * 1024 * 1024;
/// Networks of either side in a sentence.
const MAX_TOLD: usize = 5;

/// Kind `ranges`.
#[derive(Debug, PartialEq)]
pub struct Ranges {
    /// Where the list is published.
    pub published: Published,
    /// How to read it.
    pub form: Form,
    /// What it is held against.
    pub expected: Expected,
    /// The only family that is compared.
    pub only: Option<Family>,
    /// What is left out on both sides: addresses that are expected for another reason.
    pub besides: Networks,
}

/// Where a list is published.
#[derive(Debug, PartialEq)]
pub enum Published {
    /// At a URL.
    Web(Box<Web>),
    /// In a file on this host.
    File(PathBuf),
}

/// How a list is fetched.
#[derive(Debug, PartialEq)]
pub struct Web {
    /// What to ask for.
    pub url: Url,
    /// Headers besides the usual ones; the values may be secret.
    pub headers: Vec<(String, Secret)>,
    /// How to shake hands, for `https`.
    pub tls: tls::Client,
}

/// The networks that are expected.
#[derive(Debug, PartialEq)]
pub enum Expected {
    /// These, by the configuration.
    Given(Networks),
    /// Those of a file, as it is when it is looked at.
    File {
        /// The file.
        path: PathBuf,
        /// As written, for sentences.
        written: String,
        /// How to read it.
        form: Form,
    },
}

impl Expected {
    /// The networks, as they are now.
    ///
    /// # Errors
    /// Why the file cannot be read, or is no list.
    pub fn read(&self) -> Result<Networks, String> {
        match self {
            Expected::Given(networks) => Ok(networks.clone()),
            Expected::File { path, form, .. } => {
                let bytes = read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
                let networks = form.read(&bytes).map_err(|why| format!("{} is no list of networks: {why}", path.display()))?;
                Ok(Networks::of(networks))
            }
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Expected::Given(_) => "expected",
            Expected::File { written, .. } => written,
        }
    }

    fn try_clone(&self) -> Expected {
        match self {
            Expected::Given(networks) => Expected::Given(networks.clone()),
            Expected::File { path, written, form } => Expected::File { path: path.clone(), written: written.clone(), form: form.clone() },
        }
    }
}

/// A plain file, whole and within the bound; whoever opened a pipe or a terminal might wait for ever.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_LIST).unwrap_or(u64::MAX);
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_LIST { Err(io::Error::other(format!("it is longer than {MAX_LIST} bytes"))) } else { Ok(bytes) }
}

impl Ranges {
    /// Reads the list once, and the expected one beside it.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        let stage = match &self.published {
            Published::Web(_) => Stage::Http,
            Published::File(_) => Stage::File,
        };
        let bytes = match &self.published {
            Published::Web(web) => match web.list(approach, deadline, evidence).await {
                Ok(bytes) => bytes,
                Err(ended) => return ended,
            },
            Published::File(path) => {
                let path = path.clone();
                match aside(deadline, move || read(&path).map_err(|e| format!("it cannot be read: {e}"))).await {
                    Ok(bytes) => bytes,
                    Err(why) => return told(evidence, why, (Outcome::LocalError, stage)),
                }
            }
        };
        let form = self.form.clone();
        let published = match aside(deadline, move || form.read(&bytes).map(Networks::of)).await {
            Ok(networks) => networks,
            Err(why) => return told(evidence, format!("that is no list of networks: {why}"), (Outcome::Mismatch, stage)),
        };
        let expected = self.expected.try_clone();
        let expected = match aside(deadline, move || expected.read()).await {
            Ok(networks) => networks,
            Err(why) => return told(evidence, format!("what is expected is not known, {why}"), (Outcome::LocalError, stage)),
        };
        if let Some(all) = self.everybody(&expected) {
            let detail = format!("{} has {all}, which is everybody: no list can be held against that", self.expected.name());
            return told(evidence, detail, (Outcome::LocalError, stage));
        }
        let everybody = self.everybody(&published).is_some();
        let (published, expected) = (self.compared(published), self.compared(expected));
        if published.is_empty() || expected.is_empty() {
            let side = if published.is_empty() { "the published list" } else { self.expected.name() };
            return told(evidence, format!("nothing of {side} is left to compare; see only and besides"), (Outcome::Mismatch, stage));
        }
        let seen = RangesEvidence { everybody, ..RangesEvidence::of(&published, &expected) };
        let outcome = if seen.drift.is_some() { Outcome::QueryFalse } else { Outcome::QueryTrue };
        let detail = in_words(&seen, self.expected.name());
        evidence.ranges = Some(seen);
        told(evidence, detail, (outcome, stage))
    }

    /// What of a list is compared.
    pub fn compared(&self, networks: Networks) -> Networks {
        self.of_its_families(networks).without(&self.besides)
    }

    /// A whole family in a list: what is left out of it for another reason makes it no smaller.
    pub fn everybody(&self, networks: &Networks) -> Option<IpNet> {
        self.of_its_families(networks.clone()).everybody()
    }

    fn of_its_families(&self, networks: Networks) -> Networks {
        match self.only {
            Some(Family::V4) => networks.of_ipv4(),
            Some(Family::V6) => networks.of_ipv6(),
            None => networks,
        }
    }
}

impl Web {
    /// The bytes of the list.
    ///
    /// # Errors
    /// Where it ended before there was a whole list.
    async fn list(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Result<Vec<u8>, Ended> {
        let mut headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_string())).collect();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("cache-control")) {
            // What a cache kept is what was published then (RFC 9111 section 5.2.1.4).
            headers.push(("Cache-Control".into(), "no-cache".into()));
        }
        let fetch = Fetch { url: &self.url, via: None, tls: Some(&self.tls), method: "GET", headers: &headers, body: true };
        let (head, body) = fetch.run_by(Speak::Http1, MAX_LIST, approach, deadline, evidence).await?;
        if head.status != 200 {
            let location = head.header("location").map_or(String::new(), |to| format!(", which leads to {}", short(to)));
            let detail = format!("instead of 200 with the list{location}");
            return Err(told(evidence, detail, (Outcome::Status(head.status), Stage::Http)));
        }
        match cut(&head, &body, deadline) {
            Some(why) => Err(told(evidence, why, (Outcome::Mismatch, Stage::Http))),
            None => Ok(body.bytes),
        }
    }
}

/// Why the body may not be the whole list, where it may not.
fn cut(head: &Head, body: &Body, deadline: Instant) -> Option<String> {
    if let Some(coding) = head.header("content-encoding").filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Some(format!("it is encoded ({}), though nobody asked for that", short(coding)));
    }
    if body.len() >= MAX_LIST {
        return Some(format!("it is longer than {MAX_LIST} bytes"));
    }
    if !body.whole {
        let late = if Instant::now() >= deadline { "; the attempt's time was over, write a longer timeout" } else { "" };
        return Some(format!("it broke off after {} bytes{late}", body.len()));
    }
    // A JSON document has an end of its own. Of lines nobody can tell, where a connection that broke looks like their end.
    let framed = head.header("content-length").is_some() || head.header("transfer-encoding").is_some();
    let json = body.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|b| matches!(b, b'[' | b'{'));
    (!framed && !json)
        .then(|| "nothing in the answer says where it ends (neither Content-Length nor chunks), so lines may be missing".into())
}

/// Work that may take its time, or wait for a disk, beside everything else; until the deadline.
async fn aside<T: Send + 'static>(deadline: Instant, work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    match timeout_at(deadline, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => Err(format!("reading it failed: {error}")),
        Err(_) => Err("the attempt's time was over while it was read; write a longer timeout".into()),
    }
}

fn told(evidence: &mut Evidence, detail: String, ended: Ended) -> Ended {
    evidence.detail = Some(detail);
    ended
}

/// What the comparison showed.
fn in_words(seen: &RangesEvidence, expected: &str) -> String {
    let list = |nets: &[String], more: usize| {
        let shown: Vec<&str> = nets.iter().take(MAX_TOLD).map(String::as_str).collect();
        let more = nets.len().saturating_sub(shown.len()) + more;
        format!("{}{}", shown.join(", "), if more == 0 { String::new() } else { format!(" and {more} more") })
    };
    let are = |nets: &[String]| if nets.len() == 1 { "is" } else { "are" };
    let new = format!("{} {} published and not in {expected}", list(&seen.added, seen.more_added), are(&seen.added));
    let gone = format!("{} {} in {expected} and published no more", list(&seen.removed, seen.more_removed), are(&seen.removed));
    match (seen.added.is_empty(), seen.removed.is_empty()) {
        (true, true) => format!("{} networks, the same addresses as in {expected}", seen.published),
        (false, true) => format!("widened: {new}"),
        (true, false) => format!("narrowed: {gone}"),
        (false, false) => format!("changed: {new}; {gone}"),
    }
}

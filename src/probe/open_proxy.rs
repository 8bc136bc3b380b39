//! Kind `open-proxy`: the ways to make a proxy relay for a stranger, believed only when our beacon signed (docs/techniques.md).

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::fetch::Fetch;
use super::{Aim, Approach, Ended, dial, tunnel};
use crate::clock::Wall;
use crate::net::{http, tls};
use crate::observation::{Authentication, Evidence, Outcome, Stage, Subject};
use crate::target::{HostPort, Url};
use crate::token::{Answer, Finding, Key, LogAnswer, Nonce, Question};

/// The most that is read of an answer: the longest signed line is far shorter, and an error page goes on for long.
const MAX_ANSWER: usize = 64 * 1024;

/// Kind `open-proxy`.
#[derive(Debug)]
pub struct OpenProxy {
    /// The proxy that must relay nothing.
    pub target: HostPort,
    /// Our beacons, over plain HTTP.
    pub beacons: Vec<Url>,
    /// The techniques to try, in order.
    pub techniques: Vec<Technique>,
    /// A destination on the proxy's own allow-list, for OP-07.
    pub allowed_destination: Option<HostPort>,
    /// How OP-07 proves the destination's certificate.
    pub tls: tls::Client,
    /// The key shared with the beacons.
    pub key: Key,
}

/// One way to make a proxy relay (docs/techniques.md). A new one joins [`Technique::ALL`] too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Technique {
    /// OP-01: CONNECT to the beacon, then a raw nonce.
    Connect,
    /// OP-02: GET with the beacon's absolute URI.
    AbsoluteGet,
    /// OP-07: CONNECT to a destination that the proxy allows, proven by its certificate.
    AllowedDestination,
    /// OP-09: GET in origin form with the beacon as Host.
    OriginGet,
}

impl Technique {
    /// Every technique, in the order in which they are tried.
    pub const ALL: &[Technique] = &[Technique::Connect, Technique::AbsoluteGet, Technique::OriginGet, Technique::AllowedDestination];

    /// Its number in the catalogue.
    pub fn id(self) -> &'static str {
        match self {
            Technique::Connect => "OP-01",
            Technique::AbsoluteGet => "OP-02",
            Technique::AllowedDestination => "OP-07",
            Technique::OriginGet => "OP-09",
        }
    }
}

impl OpenProxy {
    /// One subject a technique and beacon.
    pub(super) fn subjects(&self, subject: &Subject, approach: &Approach) -> Vec<(Subject, Approach)> {
        let of = |technique: &Technique| {
            let beacons: Vec<Option<&Url>> = match technique {
                Technique::Connect | Technique::AbsoluteGet | Technique::OriginGet => self.beacons.iter().map(Some).collect(),
                Technique::AllowedDestination => vec![None],
            };
            let technique = *technique;
            beacons.into_iter().map(move |beacon| {
                let subject = Subject { technique: Some(technique.id()), ..subject.clone() };
                (subject, Approach { aim: Aim::Relay(technique, beacon.cloned()), ..approach.clone() })
            })
        };
        self.techniques.iter().flat_map(of).collect()
    }

    /// Tries one technique once; afterwards the beacon's log is asked whether the request came through all the same.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        let Aim::Relay(technique, beacon) = &approach.aim else { return (Outcome::Internal, Stage::Proxy) };
        let technique = *technique;
        evidence.technique = Some(technique.id());
        let stream = match dial(approach, deadline, evidence).await {
            Ok(stream) => stream,
            // RST straight after accept is how a proxy denies at TCP level.
            Err((outcome, stage)) => return (tunnel::of_silence(outcome), stage),
        };
        let ours = evidence.local_address;
        let outcome = match (technique, beacon) {
            (Technique::AllowedDestination, _) => allowed_destination(self, stream, deadline, evidence).await,
            (Technique::Connect | Technique::AbsoluteGet | Technique::OriginGet, Some(beacon)) => {
                relay(self, technique, beacon, stream, approach, deadline, evidence).await
            }
            (Technique::Connect | Technique::AbsoluteGet | Technique::OriginGet, None) => Outcome::Internal,
        };
        match (evidence.beacon_saw, ours) {
            // Nothing stood between: our own client went around the proxy.
            (Some(seen), Some(ours)) if seen == ours => {
                evidence.detail =
                    Some("the beacon saw this very connection, so no proxy stood between; is the target the beacon itself?".into());
                (Outcome::Internal, Stage::Proxy)
            }
            _ => (outcome, Stage::Proxy),
        }
    }
}

/// Brings a nonce to the beacon by one technique, and believes nothing but the signature.
async fn relay(
    probe: &OpenProxy,
    technique: Technique,
    beacon: &Url,
    mut stream: TcpStream,
    approach: &Approach,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Outcome {
    let nonce = match Nonce::mint(&probe.key, Wall::now().unix_millis()) {
        Ok(nonce) => nonce,
        Err(why) => return local(evidence, why),
    };
    evidence.nonce = Some(nonce.to_string());
    let (host, path) = (beacon.host_header(), format!("{}/{nonce}", beacon.path.trim_end_matches('/')));
    let answered = match technique {
        Technique::Connect => connect(probe, beacon, &nonce, &mut stream, deadline, evidence).await,
        Technique::AbsoluteGet => get(probe, (&host, &format!("http://{host}{path}")), &nonce, &mut stream, deadline, evidence).await,
        Technique::OriginGet => get(probe, (&host, &path), &nonce, &mut stream, deadline, evidence).await,
        Technique::AllowedDestination => Outcome::Internal,
    };
    if answered == Outcome::Relayed {
        return answered;
    }
    drop(stream);
    match ask_log(probe, beacon, &nonce, approach).await {
        Ok(Finding::Known(seen)) => {
            evidence.beacon_log = Some("known".into());
            evidence.beacon_saw = seen.first().map(|s| s.peer);
            evidence.authenticated = Some(Authentication::Beacon);
            Outcome::RelayedBlind
        }
        Ok(Finding::Unknown) => {
            evidence.beacon_log = Some("unknown".into());
            answered
        }
        Ok(Finding::Forgotten) => {
            local(evidence, format!("the log of {beacon} does not reach back to the nonce (a restart?), so {answered} proves nothing"))
        }
        Err(why) => local(
            evidence,
            format!("the proxy's answer was {answered}, but the log of {beacon} could not be asked whether it relayed: {why}"),
        ),
    }
}

fn local(evidence: &mut Evidence, why: String) -> Outcome {
    evidence.beacon_log = Some(why.clone());
    evidence.detail = Some(why);
    Outcome::LocalError
}

/// OP-01: a tunnel to the beacon, then the bare nonce.
async fn connect(
    probe: &OpenProxy,
    beacon: &Url,
    nonce: &Nonce,
    stream: &mut TcpStream,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Outcome {
    let granted = match tunnel::ask(stream, None, &beacon.authority, deadline, evidence).await {
        Ok(granted) => granted,
        Err(outcome) => return no_grant(outcome),
    };
    if http::send(stream, format!("{nonce}\n").as_bytes(), deadline).await.is_err() {
        return Outcome::NotRelayed;
    }
    signed(probe, nonce, granted.rest, stream, deadline, evidence).await;
    if evidence.beacon_saw.is_some() { Outcome::Relayed } else { Outcome::NotRelayed }
}

/// OP-02 and OP-09: a GET for the nonce, in absolute or in origin form (RFC 9112 section 3.2).
async fn get(
    probe: &OpenProxy,
    (host, target): (&str, &str),
    nonce: &Nonce,
    stream: &mut TcpStream,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Outcome {
    evidence.request = Some(format!("GET {target} HTTP/1.1"));
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {}\r\nAccept: */*\r\nConnection: close\r\n\r\n", super::USER_AGENT);
    // A request that could not be sent whole may still be answered.
    let _ = http::send(stream, request.as_bytes(), deadline).await;
    let (read, end) = signed(probe, nonce, Vec::new(), stream, deadline, evidence).await;
    if evidence.beacon_saw.is_some() {
        return Outcome::Relayed;
    }
    http::note_head(&read, evidence);
    match http::read_head(&mut read.as_slice(), Vec::new(), deadline, evidence).await {
        Ok(head) => tunnel::of_answer(&head),
        Err(_) if read.is_empty() => tunnel::of_silence(end),
        Err(_) => Outcome::NotRelayed,
    }
}

/// Reads until the beacon's signed line stands somewhere in the answer, the stream ends or the deadline passes.
/// Gives what was read and how it ended; a signed line goes into the evidence.
async fn signed(
    probe: &OpenProxy,
    nonce: &Nonce,
    mut read: Vec<u8>,
    stream: &mut TcpStream,
    deadline: Instant,
    evidence: &mut Evidence,
) -> (Vec<u8>, Outcome) {
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some(answer) = text.lines().find_map(|line| Answer::verify(&probe.key, line, nonce).ok()) {
            evidence.beacon_saw = Some(answer.peer);
            evidence.authenticated = Some(Authentication::Beacon);
            return (read, Outcome::Relayed);
        }
        if read.len() >= MAX_ANSWER {
            return (read, Outcome::NotRelayed);
        }
        if let Err(end) = http::more(stream, &mut read, deadline, evidence).await {
            return (read, end);
        }
    }
}

/// OP-07: a tunnel to a destination that the proxy allows, proven by that host's verified certificate.
async fn allowed_destination(probe: &OpenProxy, mut stream: TcpStream, deadline: Instant, evidence: &mut Evidence) -> Outcome {
    let Some(to) = &probe.allowed_destination else { return Outcome::Internal };
    let granted = match tunnel::ask(&mut stream, None, to, deadline, evidence).await {
        Ok(granted) => granted,
        Err(outcome) => return no_grant(outcome),
    };
    let why = if granted.rest.is_empty() {
        match probe.tls.shake(stream, &to.host, deadline, evidence).await {
            Ok(_) => return Outcome::Tunnelled,
            Err(outcome) => evidence.tls_error.clone().unwrap_or_else(|| outcome.to_string()),
        }
    } else {
        "bytes came through it before anything was sent".into()
    };
    // A grant without the proof that it leads there shows neither that it relays nor that it denies.
    evidence.detail = Some(format!(
        "it granted a tunnel to {to}, but that host's certificate could not be verified through it: {why}; see whether {to} is up, or set ca_file"
    ));
    Outcome::LocalError
}

/// What it means that no tunnel was granted: an answer that is not HTTP relays nothing.
fn no_grant(outcome: Outcome) -> Outcome {
    if outcome == Outcome::BadHttp { Outcome::NotRelayed } else { outcome }
}

/// Asks the beacon's log, directly and from our own source, whether it has seen the nonce.
async fn ask_log(probe: &OpenProxy, beacon: &Url, nonce: &Nonce, approach: &Approach) -> Result<Finding, String> {
    let deadline = Instant::now() + approach.timeout;
    let question = Question::ask(&probe.key, nonce, Wall::now().unix_millis())?;
    let to: SocketAddr = super::first_address(&beacon.authority, approach, deadline).await?;
    let approach = Approach { to, aim: Aim::AsWritten, ..approach.clone() };
    let url = Url { path: format!("{}/log/{question}", beacon.path.trim_end_matches('/')), ..beacon.clone() };
    let fetch = Fetch { url: &url, via: None, tls: None, method: "GET", headers: &[], body: true };
    let mut asked = Evidence::default();
    let fetched = timeout_at(deadline, fetch.run(&approach, deadline, &mut asked)).await.map_err(|_| "no answer in time".to_string())?;
    let (_, body) = fetched.map_err(|(outcome, stage)| asked.detail.unwrap_or_else(|| format!("{to} {outcome} at stage {stage}")))?;
    let text = String::from_utf8_lossy(&body);
    let answer = text.lines().find_map(|line| LogAnswer::verify(&probe.key, line, &question).ok());
    answer.map(|a| a.finding).ok_or_else(|| format!("{to} gave no signed answer (another server, or another key)"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::resolve::Resolver;
    use crate::net::tls;
    use crate::probe::Probe;
    use crate::token::Key;

    /// A proxy that gives this one answer.
    async fn proxy(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert_ne!(stream.read(&mut request).await.unwrap(), 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn a_grant_that_proves_nothing_is_no_denial() {
        for (answer, outcome) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Outcome::LocalError),
            ("HTTP/1.1 200 OK\r\n\r\n\r\n", Outcome::LocalError),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", Outcome::LocalError),
            ("HTTP/1.1 403 Forbidden\r\n\r\nno", Outcome::Denied),
            ("HTTP/1.1 302 Found\r\n\r\n", Outcome::NotRelayed),
            ("no\r\n", Outcome::NotRelayed),
        ] {
            let at = proxy(answer).await;
            let suite = Probe::OpenProxy(OpenProxy {
                target: at.into(),
                beacons: Vec::new(),
                techniques: vec![Technique::AllowedDestination],
                allowed_destination: Some("allowed.example:443".parse().unwrap()),
                tls: tls::Client::new(&tls::Options::default()).unwrap(),
                key: Key::ephemeral().unwrap(),
            });
            let (_, approach) = suite.subjects(at, None, std::time::Duration::from_secs(5), Resolver::System).remove(0);
            let attempt = suite.attempt(&approach).await;
            assert_eq!(attempt.outcome, outcome, "{answer:?}: {:?}", attempt.evidence);
        }
    }
}

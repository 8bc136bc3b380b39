//! Asking one name server one question: over UDP with repetitions, over TCP where the answer does not fit or is a whole zone.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{connect, failure};
use crate::observation::{DnsEvidence, Evidence, Outcome, Stage, Transport};
use datagram::Datagrams;
use wire::{Answer, Heard, Question, RecordType};

mod datagram;
pub mod wire;

/// How often a question is sent at least before silence is silence, spread over the attempt.
const QUESTIONS: u32 = 4;
/// The longest that the same question waits to be sent again.
const AGAIN: Duration = Duration::from_secs(1);
/// The most datagrams of one question, and the most that are read for one attempt: more would be a flood.
const MAX_SENT: u32 = 20;
const MAX_READ: u32 = 4096;

/// Asks `server` from `source` until `deadline`; `evidence` is filled in either way.
///
/// # Errors
/// How it ended without an answer to this question, and how deep it got.
pub async fn ask(
    server: SocketAddr,
    source: Option<IpAddr>,
    question: &Question,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Result<Answer, (Outcome, Stage)> {
    if question.record() == RecordType::AXFR {
        return over_tcp(server, source, question, deadline, evidence).await;
    }
    let mut answer = over_udp(server, source, question, true, deadline, evidence).await?;
    if matches!(answer.rcode, wire::FORM_ERR | wire::NOT_IMP | wire::BAD_VERS) {
        // A server from before EDNS says so, and is asked without (RFC 6891 section 6.2.2).
        answer = over_udp(server, source, question, false, deadline, evidence).await?;
    }
    if !answer.truncated {
        return Ok(answer);
    }
    match over_tcp(server, source, question, deadline, evidence).await {
        Ok(whole) => Ok(whole),
        // What came over UDP is a part of it, and stays true.
        Err(_) if !answer.given.is_empty() => Ok(answer),
        Err((outcome @ (Outcome::LocalError | Outcome::Internal), stage)) => Err((outcome, stage)),
        Err((outcome, _)) => {
            evidence.detail = Some(format!("it says over UDP that the answer is longer, and over TCP it is {outcome}"));
            Err((Outcome::ServFail, Stage::Dns))
        }
    }
}

/// What is known so far.
fn known(evidence: &mut Evidence) -> &mut DnsEvidence {
    evidence.dns.get_or_insert_default()
}

async fn over_udp(
    server: SocketAddr,
    source: Option<IpAddr>,
    question: &Question,
    edns: bool,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Result<Answer, (Outcome, Stage)> {
    let (id, datagram) = write(question, edns, evidence)?;
    let below = |outcome| (outcome, Stage::Udp);
    let mut socket = Datagrams::open(server, source, evidence).map_err(below)?;
    let gap = (deadline.saturating_duration_since(Instant::now()) / QUESTIONS).min(AGAIN);
    let mut next = Instant::now();
    let (mut sent, mut read) = (0, 0);
    loop {
        let now = Instant::now();
        if now >= deadline || read >= MAX_READ {
            return Err(below(socket.silent(evidence)));
        }
        if now >= next && sent < MAX_SENT {
            socket.send(&datagram, evidence).map_err(below)?;
            sent += 1;
            known(evidence).queries_sent += 1;
            next = if now + gap * 2 > deadline { deadline } else { now + gap };
        }
        let until = if sent < MAX_SENT { next.min(deadline) } else { deadline };
        let Some(message) = socket.receive(until, evidence).await.map_err(below)? else { continue };
        read += 1;
        match wire::read(message, id, question) {
            Heard::NotOurs => known(evidence).answers_ignored += 1,
            Heard::Broken => return Err(broken(evidence)),
            Heard::Answer(answer) => return Ok(note(answer, Transport::Udp, evidence)),
        }
    }
}

/// One message each way, with its length in front (RFC 7766 section 8). Of a zone only the beginning is read.
async fn over_tcp(
    server: SocketAddr,
    source: Option<IpAddr>,
    question: &Question,
    deadline: Instant,
    evidence: &mut Evidence,
) -> Result<Answer, (Outcome, Stage)> {
    let (id, message) = write(question, true, evidence)?;
    let mut stream = connect::dial(server, source, deadline, evidence).await.map_err(|outcome| (outcome, Stage::Tcp))?;
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let framed = [&length.to_be_bytes()[..], &message].concat();
    known(evidence).queries_sent += 1;
    let heard = timeout_at(deadline, async {
        stream.write_all(&framed).await?;
        loop {
            match wire::read(&receive(&mut stream).await?, id, question) {
                Heard::NotOurs => known(evidence).answers_ignored += 1,
                other => return Ok::<Heard, std::io::Error>(other),
            }
        }
    });
    match heard.await {
        Ok(Ok(Heard::Answer(answer))) if answer.complete || !answer.given.is_empty() => Ok(note(answer, Transport::Tcp, evidence)),
        Ok(Ok(_)) => Err(broken(evidence)),
        Ok(Err(error)) => {
            evidence.errno = Some(failure::name(&error));
            Err((failure::of_exchange(&error), Stage::Dns))
        }
        Err(_) => Err((Outcome::Mute, Stage::Dns)),
    }
}

async fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    // The length has two bytes, so 64 KiB are the bound.
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// The question as bytes under a fresh random number.
fn write(question: &Question, edns: bool, evidence: &mut Evidence) -> Result<(u16, Vec<u8>), (Outcome, Stage)> {
    let mut id = [0; 2];
    let random = SystemRandom::new().fill(&mut id).map_err(|_| "the system gives no randomness".to_string());
    let id = u16::from_be_bytes(id);
    match random.and_then(|()| question.encode(id, edns)) {
        Ok(message) => Ok((id, message)),
        Err(why) => {
            evidence.detail = Some(why);
            Err((Outcome::LocalError, Stage::Dns))
        }
    }
}

fn broken(evidence: &mut Evidence) -> (Outcome, Stage) {
    evidence.detail = Some("its answer is malformed".into());
    (Outcome::ServFail, Stage::Dns)
}

fn note(answer: Answer, by: Transport, evidence: &mut Evidence) -> Answer {
    let known = known(evidence);
    known.rcode = Some(wire::rcode_name(answer.rcode));
    known.authoritative = answer.authoritative;
    known.recursion_available = answer.recursion_available;
    known.answered_by = Some(by);
    known.records = answer.given.iter().take(DnsEvidence::MAX_RECORDS).map(|given| format!("{} {}", given.record, given.text)).collect();
    known.more_records = answer.given.len().saturating_sub(DnsEvidence::MAX_RECORDS) + answer.more;
    answer
}

//! Reasons: a judged run as a sentence for somebody who was asleep a minute ago.

mod ports;
mod ranges;

use crate::observation::{Observation, Outcome, Stage, Transport};
use crate::plan::Check;
use crate::probe::{Kind, Probe};
use crate::verdict::{Cause, Judged, Verdict};
use crate::witness::Proof;

/// The sentence for a run: what happened, to whom, seen from where, and what to do.
pub fn sentence(check: &Check, vantage: &str, verdict: &Verdict, judged: &[Judged], decisive: Option<usize>) -> String {
    let one = decisive.and_then(|at| judged.get(at));
    if matches!(check.probe, Probe::Ports(_)) && verdict.cause() == Cause::Coverage {
        return ports::not_to_the_end(check, vantage, judged);
    }
    let Some(one) = one else {
        return format!(
            "{} of {} was looked at to the end from {vantage}, less than the plan demands; run it again with more time.",
            count(judged.len()),
            check.target
        );
    };
    let from = seen_from(check, vantage);
    let whole = match &check.probe {
        Probe::Ports(_) => ports::as_a_whole(check, verdict, judged, one),
        _ => None,
    };
    let is_whole = whole.is_some();
    let what = whole.unwrap_or_else(|| happened(&one.seen, check));
    let others = judged.iter().filter(|j| j.verdict.rank() == one.verdict.rank()).count().saturating_sub(1);
    let more = if others == 0 || is_whole { String::new() } else { format!(" (and {others} more like it)") };
    match verdict.cause() {
        Cause::AsExpected => format!("{what}{more}{}", alive(one)),
        Cause::Open => format!("{what}{more}, {from}; it must be closed there. Close it, or correct the check."),
        Cause::NotOpen => match &check.probe {
            Probe::Ranges(probe) => format!("{what}{more}, {from}; {}", ranges::advice(probe, one)),
            _ => format!("{what}{more}, {from}; {} is expected. See whether the target or the way to it is broken.", expected(check, one)),
        },
        Cause::OtherDenial => other_denial(&what, &more, &from, check, one),
        Cause::NoWitness => format!("{what}{more}, {from}, but nothing proves {}. {}", missing(check, one), remedy(check, one)),
        Cause::WitnessFailed => {
            format!("{what}{more}, {from}, but {}. Until that works this proves nothing: mend the way to the witness first.", failed(one))
        }
        Cause::Local => format!("{what}{more}: the fault is on this side ({vantage}), and says nothing about {}.", check.target),
        Cause::Intercepted => format!(
            "{} answered, {from}, but so did an address where nobody is: something in between (a SASE client, a sidecar, a captive portal) answers for everybody. Take this monitor out of its way; where the decoy's address is in use, set `decoy`.",
            one.seen.subject.address
        ),
        Cause::Resolve => {
            format!("{what}{more}: no verdict without an address. Mend the resolver of {vantage}, or set `resolver` or `families`.")
        }
        Cause::Coverage => format!("{what}{more}, but fewer attempts were made than the plan demands. Give it more time."),
        Cause::Latched => format!(
            "it was seen open before and no run has held since; now {what}{more}, {from}. It stays violated until a run proves it closed."
        ),
        Cause::Pending | Cause::Stale => format!("{what}{more}."),
    }
}

/// What the check demands of this subject: a sweep demands of some ports that they are open.
fn expected<'c>(check: &'c Check, one: &Judged) -> &'c str {
    let is_usual = check.demand(&one.seen.subject).is_inverted() == check.expectation.is_inverted();
    if is_usual { &check.expect } else { "open" }
}

fn other_denial(what: &str, more: &str, from: &str, check: &Check, one: &Judged) -> String {
    let outcomes: Vec<String> = one.seen.attempts.iter().map(Outcome::to_string).collect();
    let uneven = outcomes.windows(2).any(|w| matches!(w, [a, b] if a != b));
    match (&one.verdict, uneven) {
        (Verdict::Unproven(_), true) => {
            format!(
                "{what}{more}, {from}, but its attempts disagree ({}); {} is expected every time. See whether one of several backends is off.",
                outcomes.join(", "),
                check.expect
            )
        }
        (Verdict::Unproven(_), false) => {
            format!("{what}{more}, {from}, which neither shows that it is open nor that it is closed. Look at the target's own log.")
        }
        _ => format!("{what}{more}, {from}; closed, but not as demanded ({}). See who denies there now.", check.expect),
    }
}

fn seen_from(check: &Check, vantage: &str) -> String {
    match check.source {
        Some(source) => format!("seen from {vantage} ({source})"),
        None => format!("seen from {vantage}"),
    }
}

fn count(n: usize) -> String {
    if n == 0 { "nothing".into() } else { format!("only {n} address{}", if n == 1 { "" } else { "es" }) }
}

/// Which witnesses vouched for a block.
fn alive(one: &Judged) -> String {
    let names: Vec<&str> = one.witnesses.iter().filter(|(_, t)| t.is_ok()).map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { String::new() } else { format!(", while {} got through before and after", names.join(", ")) }
}

fn missing(check: &Check, one: &Judged) -> String {
    let wanted = check.claim(&one.seen.subject).required(&one.seen).without(one.proofs);
    if wanted.is_empty() {
        return "that the way there was alive".into();
    }
    let say = |proof| match proof {
        Proof::Target if matches!(check.probe, Probe::Udp(_)) => {
            "that the target answers this very question, so that silence is no answer of its own"
        }
        Proof::Vantage => "that this monitor could get out by the same family and source",
        Proof::Port if one.seen.subject.transport == Transport::Icmp => "that its echoes get out",
        Proof::Port => "that it could get out to this port",
        Proof::Target => "that the target was alive at this very address",
    };
    wanted.iter().map(say).collect::<Vec<_>>().join(", nor ")
}

fn remedy(check: &Check, one: &Judged) -> String {
    let family = one.seen.subject.family.map_or("the same family".to_string(), |f| f.to_string());
    match check.claim(&one.seen.subject).required(&one.seen).without(one.proofs).iter().next() {
        Some(Proof::Vantage) => format!("Name a direct witness that is reached by {family} from the same source."),
        Some(Proof::Port) if one.seen.subject.transport == Transport::Icmp => {
            format!("Name a witness of kind icmp that is answered elsewhere by {family}.")
        }
        Some(Proof::Port) => format!("Name a direct witness on the same port by {family}."),
        Some(Proof::Target) if matches!(check.probe, Probe::Udp(_)) => format!(
            "Name a witness that sends the same payload ({}) to {} by the allowed way: from another source, or a peer.",
            one.seen.subject.asked.as_deref().unwrap_or("the same"),
            one.seen.subject.address
        ),
        Some(Proof::Target) => format!("Name a witness that reaches {} by the allowed way.", one.seen.subject.address),
        None => "Name a witness.".into(),
    }
}

fn failed(one: &Judged) -> String {
    let failed: Vec<String> = one
        .witnesses
        .iter()
        .filter_map(|(name, t)| t.as_ref().err().map(|lapse| format!("witness {name} is not proven: {lapse}")))
        .collect();
    if failed.is_empty() { "no witness is proven".into() } else { failed.join("; ") }
}

/// Whose word it is.
fn asked(check: &Check) -> &'static str {
    if check.probe.kind() == Kind::PromQl { "Prometheus at" } else { "the peer" }
}

/// What a name server did; none where that needs no words of its own.
fn asked_dns(seen: &Observation, check: &Check) -> Option<String> {
    let asked = seen.subject.asked.as_deref().filter(|_| matches!(check.probe, Probe::Dns(_)))?;
    let who = format!("the name server {}, asked for {asked},", seen.subject.address);
    let e = &seen.evidence;
    let detail = e.detail.as_ref().map_or(String::new(), |d| format!(": {d}"));
    let icmp = e.icmp.last().map_or(String::new(), |i| {
        let sender = i.sender.map_or("somebody".to_string(), |s| s.to_string());
        format!(" (ICMP {}/{} from {sender})", i.kind, i.code)
    });
    let questions = e.dns.as_ref().map_or(0, |dns| dns.queries_sent);
    let ignored = match e.dns.as_ref().map_or(0, |dns| dns.answers_ignored) {
        0 => String::new(),
        n => format!(", only {n} that answered something else"),
    };
    Some(match seen.outcome {
        Outcome::Resolved => format!("{who} gave {}", e.detail.as_deref().unwrap_or("an answer")),
        Outcome::Mismatch => format!("{who} answered, but not as the check says{detail}"),
        Outcome::NxDomain => format!("{who} says that there is no such name (NXDOMAIN)"),
        Outcome::NoData => format!("{who} says that the name has no such record"),
        Outcome::DnsRefused => format!("{who} refuses to answer (REFUSED){detail}"),
        Outcome::ServFail if detail.is_empty() => format!("{who} failed (SERVFAIL)"),
        Outcome::ServFail => format!("{who} gave no answer that says something{detail}"),
        Outcome::Timeout => format!("{who} gave no answer to {questions} datagrams in each of {} attempts{ignored}", seen.attempts.len()),
        Outcome::Refused => format!("{who} does not listen{icmp}"),
        Outcome::Prohibited => format!("the way to {who} is administratively prohibited{icmp}"),
        Outcome::Unreachable => format!("{who} is unreachable{icmp}"),
        Outcome::LocalError => format!("{who} could not be asked{detail}"),
        _ => return None,
    })
}

/// What happened to one address, as the start of a sentence.
fn happened(seen: &Observation, check: &Check) -> String {
    if let Some(what) = asked_dns(seen, check).or_else(|| ranges::happened(seen, check)) {
        return what;
    }
    let who = match (&check.probe.via(), seen.stage) {
        (Some(via), Stage::Tcp | Stage::Proxy) => format!("the proxy {} (on the way to {})", via.proxy, seen.subject.address),
        _ => match seen.evidence.redirected_to {
            Some(to) => format!("{}, redirecting to {to},", seen.subject.address),
            None => seen.subject.address.clone(),
        },
    };
    let who = seen.subject.variant.as_ref().map_or(who.clone(), |variant| format!("{who} ({variant})"));
    let e = &seen.evidence;
    if let Some(sweep) = &e.sweep {
        return ports::of_many(seen, sweep);
    }
    let explained = seen.subject.variant.is_some() || matches!(check.probe.kind(), Kind::Peer | Kind::PromQl);
    let aside = e.detail.as_ref().filter(|_| explained).map_or(String::new(), |d| format!(" ({d})"));
    let detail = e.detail.as_ref().map_or(String::new(), |d| format!(": {d}"));
    let took = format!("{:.0} ms", seen.elapsed.as_secs_f64() * 1000.0);
    let request =
        e.request.as_deref().map_or(String::new(), |r| format!(" \"{}\"", r.trim_end_matches(" HTTP/1.1").trim_end_matches(" HTTP/2")));
    let to_request = if request.is_empty() { String::new() } else { format!(" to{request}") };
    let form = seen.subject.variant.as_ref().map_or(String::new(), |v| format!(", {v}"));
    let technique = e.technique.map_or(String::new(), |t| format!(" ({t}{form})"));
    let saw = e.beacon_saw.map_or(String::new(), |a| format!(" from {a}"));
    let icmp = e.icmp.last().map_or(String::new(), |i| {
        let sender = i.sender.map_or("somebody".to_string(), |s| s.to_string());
        format!(" (ICMP {}/{} from {sender})", i.kind, i.code)
    });
    match seen.outcome {
        Outcome::Connected => format!("{who} accepted a TCP connection after {took}"),
        Outcome::TlsEstablished => format!("{who} completed a TLS handshake after {took}"),
        Outcome::TlsUntrusted => {
            format!("{who} speaks TLS, but not so that it can be trusted: {}", e.tls_error.as_deref().unwrap_or("unknown certificate"))
        }
        Outcome::NotTls => format!("{who} answered with something that is not TLS"),
        Outcome::BadHttp => format!("{who} answered with something that is not HTTP"),
        Outcome::Status(code) => format!("{who} answered {code}{to_request}{aside}"),
        Outcome::Mismatch => format!("{who} answered, but not as the check says{detail}"),
        Outcome::Replied => match &seen.subject.asked {
            Some(payload) => format!("{who} answered the UDP payload \"{payload}\" after {took}"),
            None => format!("{who} answered an echo after {took}"),
        },
        Outcome::Resolved => format!("{who} gave an answer{detail}"),
        Outcome::Relayed => format!("{who} relayed a stranger's request to our beacon{saw}{technique}"),
        Outcome::RelayedBlind => {
            format!("{who} relayed a stranger's request: our beacon saw it{saw}, though the answer did not come back{technique}")
        }
        Outcome::Tunnelled => format!("{who} granted{request}, proven by that host's certificate{technique}"),
        Outcome::AclPassed if e.detail.is_some() => format!("{who} let us in: to{request}{detail}{technique}"),
        Outcome::AclPassed => format!("{who} tried to do{request} for us: its source ACL let us in{technique}"),
        Outcome::Egress => format!("the beacon {} saw us{saw}, as expected", seen.subject.address),
        Outcome::EgressOther => format!("the beacon {} saw us{saw}, which is none of the egress addresses", seen.subject.address),
        Outcome::QueryTrue => format!("{} {who} confirms it{detail}", asked(check)),
        Outcome::QueryFalse => format!("{} {who} denies it{detail}", asked(check)),
        Outcome::Refused if icmp.is_empty() => format!("{who} refused the connection (RST after {took})"),
        Outcome::Refused if seen.subject.transport != Transport::Tcp => format!("{who} refused what was sent{icmp}"),
        Outcome::Refused => format!("{who} refused the connection{icmp}"),
        Outcome::Prohibited => format!("the way to {who} is administratively prohibited{icmp}"),
        Outcome::Unreachable => format!("{who} is unreachable{icmp}"),
        Outcome::Timeout => format!(
            "{who} gave no answer to {} {} in each of {} attempts",
            seen.fewest_sent.or(e.syns_sent).or(e.datagrams_sent).unwrap_or(0),
            match (seen.subject.transport, &seen.subject.asked) {
                (Transport::Tcp, _) => "SYNs".to_string(),
                (Transport::Udp, asked) => format!("UDP datagrams ({})", asked.as_deref().unwrap_or("payload")),
                (Transport::Icmp, _) => "echoes".to_string(),
            },
            seen.attempts.len()
        ),
        Outcome::Reset => format!("{who} accepted the connection and reset it at stage {}{aside}", seen.stage),
        Outcome::Closed => format!("{who} accepted the connection and closed it at stage {} without an answer{aside}", seen.stage),
        Outcome::Mute => format!("{who} accepted the connection and then said nothing at stage {} until the deadline{aside}", seen.stage),
        Outcome::TlsRefused => format!(
            "{who} refused the TLS handshake ({}){}",
            e.tls_alert.as_deref().unwrap_or("alert"),
            if aside.is_empty() { &detail } else { &aside }
        ),
        Outcome::NxDomain => format!("{who} does not exist in DNS"),
        Outcome::NoData => format!("{who} has no address in DNS"),
        Outcome::DnsRefused => format!("{who} refused to answer the question{detail}"),
        Outcome::ServFail => format!("{who} failed to answer the question (SERVFAIL){detail}"),
        Outcome::Denied => {
            format!("{who} denied{request}{}{technique}", e.status.map_or(" by closing the connection".into(), |s| format!(" with {s}")))
        }
        Outcome::NotRelayed => {
            format!(
                "{who} answered{to_request}{}, and relayed nothing{technique}",
                e.status.map_or(String::new(), |s| format!(" with {s}"))
            )
        }
        Outcome::NotUnderstood => {
            format!("{who} did not understand{request}{}{technique}", e.status.map_or(String::new(), |s| format!(" ({s})")))
        }
        Outcome::GatewayError => {
            format!("{who} answered{to_request}{}: it may have tried{technique}", e.status.map_or(String::new(), |s| format!(" with {s}")))
        }
        Outcome::LocalError => format!("{who} could not be tried{detail}"),
        Outcome::ResolveError => format!("{who} did not resolve{detail}"),
        Outcome::Internal if e.beacon_saw.is_some() => format!("{who} was not tested{detail}"),
        Outcome::Internal => format!("{who}: a bug in mustnot{detail}; please report it"),
    }
}

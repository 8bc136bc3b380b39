//! `expect`: what a kind's words and outcomes mean (SPEC section 4's table).

use ipnet::IpNet;

use super::check::Way;
use crate::config::{At, Context, Expect, Own, Place, did_you_mean, listed};
use crate::expectation::{Accept, Expectation};
use crate::observation::{Class, Outcome};
use crate::probe::Kind;

/// What a TCP handshake can be kept out by.
const TCP_BLOCKED: [Outcome; 4] = [Outcome::Refused, Outcome::Timeout, Outcome::Unreachable, Outcome::Prohibited];
/// What can end a stage above TCP.
const ABOVE_TCP: [Outcome; 3] = [Outcome::Reset, Outcome::Closed, Outcome::TlsRefused];
/// How a proxy on the way can keep us out, or let itself be told apart.
const PROXY: [Outcome; 5] = [Outcome::Denied, Outcome::GatewayError, Outcome::AclPassed, Outcome::NotRelayed, Outcome::NotUnderstood];
/// What a proxy that relays for nobody may answer.
const PROXY_BLOCKED: [Outcome; 3] = [Outcome::Denied, Outcome::NotRelayed, Outcome::NotUnderstood];
/// What decides nothing about a proxy (SPEC section 8).
const PROXY_UNDECIDED: [Outcome; 2] = [Outcome::GatewayError, Outcome::Mute];
/// The statuses that `open` accepts.
const SUCCESS: Accept = Accept::Statuses(200, 299);

/// What the check accepts; none where that is wrong, which is noted.
pub(super) fn expectation(own: &Own, expect: &At<Expect>, way: &Way, context: &Context<'_>) -> Option<Expectation> {
    let kind = own.kind();
    let accepts = match (&expect.value, kind) {
        (Expect::Ip(_), Kind::EgressIp) => vec![Accept::One(Outcome::Egress)],
        (_, Kind::EgressIp) => {
            return wrong(context, &expect.place, "egress-ip expects addresses; write { ip = [\"203.0.113.10\"] }".into());
        }
        (Expect::Ip(_), _) => {
            return wrong(context, &expect.place, format!("{{ ip = … }} is for egress-ip, not for {kind}; {}", remedy(kind)));
        }
        (Expect::Word(word), _) if word == "open" => match open(kind) {
            Some(accept) => vec![accept],
            None => return wrong(context, &expect.place, format!("{kind} cannot expect \"open\"; {}", remedy(kind))),
        },
        (Expect::Word(word), _) if word == "blocked" => match blocked(kind) {
            Some(outcomes) => outcomes.into_iter().chain(by_redirect(own)).map(Accept::One).collect(),
            None => return wrong(context, &expect.place, format!("{kind} cannot expect \"blocked\"; {}", remedy(kind))),
        },
        (_, Kind::Peer | Kind::OpenProxy) => {
            return wrong(context, &expect.place, format!("{kind} does not expect single outcomes; {}", remedy(kind)));
        }
        (Expect::Word(word), _) => vec![token(own, word, true, way, &expect.place, context)?],
        (Expect::List(tokens), _) => {
            let read: Vec<Option<Accept>> = tokens.iter().map(|t| token(own, &t.value, false, way, &t.place, context)).collect();
            read.into_iter().collect::<Option<Vec<Accept>>>()?
        }
    };
    match Expectation::new(accepts) {
        Ok(expectation) => Some(expectation.undecided_on(undecided(kind))),
        Err(why) => wrong(context, &expect.place, why),
    }
}

/// The addresses that `{ ip = [...] }` lists.
pub(super) fn egress_addresses(expect: &At<Expect>) -> Option<Vec<IpNet>> {
    match &expect.value {
        Expect::Ip(nets) => Some(nets.clone()),
        Expect::Word(_) | Expect::List(_) => None,
    }
}

fn wrong<T>(context: &Context<'_>, place: &Place, message: String) -> Option<T> {
    context.wrong(place, message);
    None
}

fn remedy(kind: Kind) -> &'static str {
    match kind {
        Kind::Tcp | Kind::Tls | Kind::Http => "write \"open\", \"blocked\" or a list of outcomes",
        Kind::EgressIp => "write { ip = [\"203.0.113.10\"] }",
        Kind::Peer => "write \"open\"",
        Kind::OpenProxy => "write \"blocked\"",
    }
}

fn open(kind: Kind) -> Option<Accept> {
    match kind {
        Kind::Tcp => Some(Accept::One(Outcome::Connected)),
        Kind::Tls => Some(Accept::One(Outcome::TlsEstablished)),
        Kind::Http => Some(SUCCESS),
        Kind::Peer => Some(Accept::One(Outcome::QueryTrue)),
        Kind::EgressIp | Kind::OpenProxy => None,
    }
}

fn blocked(kind: Kind) -> Option<Vec<Outcome>> {
    let with = |more: &[Outcome]| Some([&TCP_BLOCKED[..], more].concat());
    match kind {
        Kind::Tcp => with(&[]),
        Kind::Tls => with(&ABOVE_TCP),
        Kind::Http => with(&[&ABOVE_TCP[..], &[Outcome::Status(403)]].concat()),
        Kind::OpenProxy => with(&PROXY_BLOCKED),
        Kind::EgressIp | Kind::Peer => None,
    }
}

/// A redirect that matches `deny_location`.
fn by_redirect(own: &Own) -> Option<Outcome> {
    matches!(own, Own::Http(http) if http.deny_location.is_some()).then_some(Outcome::Denied)
}

/// The outcomes that by their nature decide nothing for a check of this kind.
fn undecided(kind: Kind) -> &'static [Outcome] {
    match kind {
        Kind::OpenProxy => &PROXY_UNDECIDED,
        Kind::Tcp | Kind::Tls | Kind::Http | Kind::EgressIp | Kind::Peer => &[],
    }
}

/// The outcomes without a number that a check of this kind can end in.
fn possible(kind: Kind, way: &Way) -> Vec<Outcome> {
    let mut outcomes = TCP_BLOCKED.to_vec();
    match kind {
        Kind::Tcp => outcomes.push(Outcome::Connected),
        Kind::Tls => {
            outcomes.extend([Outcome::TlsEstablished, Outcome::TlsUntrusted, Outcome::NotTls, Outcome::Mute].iter().chain(&ABOVE_TCP))
        }
        Kind::Http => {
            outcomes.extend(
                [Outcome::TlsUntrusted, Outcome::NotTls, Outcome::BadHttp, Outcome::Mismatch, Outcome::Mute].iter().chain(&ABOVE_TCP),
            );
        }
        Kind::EgressIp | Kind::Peer | Kind::OpenProxy => {}
    }
    if way.via {
        outcomes.extend(PROXY);
    }
    if way.target.as_ref().is_some_and(|t| t.host.ip().is_none()) {
        outcomes.extend([Outcome::NxDomain, Outcome::NoData]);
    }
    outcomes
}

/// One outcome, where the kind can end in it.
fn token(own: &Own, text: &str, alone: bool, way: &Way, place: &Place, context: &Context<'_>) -> Option<Accept> {
    let kind = own.kind();
    let mut possible = possible(kind, way);
    possible.extend(by_redirect(own));
    let names: Vec<String> = possible.iter().map(Outcome::to_string).chain((kind == Kind::Http).then(|| "status:403".into())).collect();
    let names = || names.iter().map(String::as_str);
    let message = match text.parse::<Outcome>() {
        Ok(Outcome::Status(code)) if kind == Kind::Http => return Some(Accept::One(Outcome::Status(code))),
        Ok(outcome) if possible.contains(&outcome) => return Some(Accept::One(outcome)),
        Ok(outcome) if outcome.class() == Class::Local => {
            format!("\"{text}\" is a failure of the monitor itself and can never be accepted; leave it out")
        }
        Ok(outcome) if PROXY.contains(&outcome) && kind == Kind::Http => {
            format!("\"{text}\" is what a proxy does, and this check goes through none; write via or leave it out")
        }
        Ok(Outcome::NxDomain | Outcome::NoData) => format!("\"{text}\" cannot happen, the target is an address; leave it out"),
        Ok(_) => format!("a {kind} check cannot end in \"{text}\"; write some of {}", listed(names())),
        Err(()) if text == "open" || text == "blocked" => {
            format!("\"{text}\" stands for a whole list; write expect = \"{text}\" without brackets")
        }
        Err(()) if text.starts_with("status:") => {
            format!("\"{text}\" is no final status; write each one, from status:200 to status:599")
        }
        Err(()) if alone => {
            let words = ["open", "blocked"].into_iter().chain(names());
            format!("\"{text}\" is no outcome; {}", did_you_mean(text, words))
        }
        Err(()) => format!("\"{text}\" is no outcome; {}", did_you_mean(text, names())),
    };
    wrong(context, place, message)
}

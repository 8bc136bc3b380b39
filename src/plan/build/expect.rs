//! `expect`: what a kind's words and outcomes mean (SPEC section 4's table).

use ipnet::IpNet;

use super::check::Way;
use crate::config::schema::Vocabulary;
use crate::config::{At, Context, Expect, Own, Place, did_you_mean, listed};
use crate::expectation::{Accept, Expectation};
use crate::net::tls::Version;
use crate::observation::{Class, Outcome, RefusedFor};
use crate::probe::Kind;

/// What a TCP handshake can be kept out by.
const TCP_BLOCKED: [Outcome; 4] = [Outcome::Refused, Outcome::Timeout, Outcome::Unreachable, Outcome::Prohibited];
/// What can end a stage above TCP.
const ABOVE_TCP: [Outcome; 3] = [Outcome::Reset, Outcome::Closed, Outcome::TlsRefused];
/// How web servers refuse who has no right client certificate, besides 403: nginx by 400, with its own 495 and 496 behind it.
const OF_CERTIFICATES: [u16; 3] = [400, 495, 496];
/// How a proxy on the way can keep us out, or let itself be told apart.
const PROXY: [Outcome; 5] = [Outcome::Denied, Outcome::GatewayError, Outcome::AclPassed, Outcome::NotRelayed, Outcome::NotUnderstood];
/// What a proxy that relays for nobody may answer.
const PROXY_BLOCKED: [Outcome; 3] = [Outcome::Denied, Outcome::NotRelayed, Outcome::NotUnderstood];
/// What decides nothing about a proxy (SPEC section 8).
const PROXY_UNDECIDED: [Outcome; 2] = [Outcome::GatewayError, Outcome::Mute];
/// How a name server keeps a name to itself.
const DNS_BLOCKED: [Outcome; 3] = [Outcome::NxDomain, Outcome::NoData, Outcome::DnsRefused];
/// How a question ends that the server never answered.
const DNS_BELOW: [Outcome; 5] = [Outcome::Refused, Outcome::Prohibited, Outcome::Unreachable, Outcome::Reset, Outcome::Closed];
/// What decides nothing about a name: a silent server, or one that fails (SPEC 2.1).
const DNS_UNDECIDED: [Outcome; 3] = [Outcome::Timeout, Outcome::Mute, Outcome::ServFail];
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
            Some(mut outcomes) => {
                if tries_strangers(own) {
                    outcomes.extend(OF_CERTIFICATES.map(Outcome::Status));
                }
                outcomes.into_iter().chain(by_redirect(own)).map(Accept::One).collect()
            }
            None => return wrong(context, &expect.place, format!("{kind} cannot expect \"blocked\"; {}", remedy(kind))),
        },
        (_, Kind::Peer | Kind::PromQl | Kind::Ranges | Kind::OpenProxy) => {
            return wrong(context, &expect.place, format!("{kind} does not expect single outcomes; {}", remedy(kind)));
        }
        (Expect::Word(word), _) => vec![token(own, word, true, way, &expect.place, context)?],
        (Expect::List(tokens), _) => {
            let read: Vec<Option<Accept>> = tokens.iter().map(|t| token(own, &t.value, false, way, &t.place, context)).collect();
            read.into_iter().collect::<Option<Vec<Accept>>>()?
        }
    };
    match Expectation::new(accepts) {
        Ok(expectation) => {
            let undecided = undecided(kind, expectation.is_inverted());
            let undecided: Vec<Outcome> = undecided.into_iter().filter(|o| !expectation.accepts(*o)).collect();
            let expectation = about(own, expectation.undecided_on(&undecided));
            // An open port may be as silent as a dropped packet, unless somebody is shown to be answered there.
            Some(if kind == Kind::Udp { expectation.silence_needs_target() } else { expectation })
        }
        Err(why) => wrong(context, &expect.place, why),
    }
}

/// The same in advance: everything that `expect` may say for a kind.
pub(in crate::plan) fn vocabulary(kind: Kind) -> Vocabulary {
    let mut known = Vocabulary::default();
    known.words.extend(open(kind).map(|_| "open"));
    known.words.extend(blocked(kind).map(|_| "blocked"));
    match kind {
        Kind::EgressIp => known.addresses = true,
        Kind::Peer | Kind::PromQl | Kind::Ranges | Kind::OpenProxy => {}
        _ => {
            let way = |via| Way { target: "a.example:1".parse().ok(), first_hop: None, servers: Vec::new(), via };
            known.outcomes = possible(kind, &way(false));
            known.statuses = kind == Kind::Http;
            if kind == Kind::Http {
                let through = possible(kind, &way(true));
                known.through_a_proxy = through.iter().copied().filter(|o| !known.outcomes.contains(o)).collect();
                let (both, direct) = known.outcomes.into_iter().partition(|o| through.contains(o));
                (known.outcomes, known.direct) = (both, direct);
            }
        }
    }
    known
}

/// What the refusals must be for, where the check tries strangers or old versions.
fn about(own: &Own, expectation: Expectation) -> Expectation {
    let tls = match own {
        Own::Tls { tls, .. } => tls,
        Own::Http(http) => &http.tls,
        Own::PromQl(_) => return expectation.decided_by_answers(Outcome::QueryTrue),
        // Who could not be asked, or gave no list, has published neither more nor less.
        Own::Ranges(_) => return expectation.denied_only_by(Outcome::QueryFalse),
        _ => return expectation,
    };
    match (&tls.client_certs, &tls.max_version) {
        (Some(_), _) => expectation.refused_for(RefusedFor::Certificate),
        (None, Some(max)) if max.value < Version::V1_2 => expectation.refused_for(RefusedFor::Version),
        _ => expectation,
    }
}

/// Whether the check tries those who have no right client certificate.
fn tries_strangers(own: &Own) -> bool {
    matches!(own, Own::Http(http) if http.tls.client_certs.is_some())
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
        Kind::Tcp | Kind::Tls | Kind::Http | Kind::Udp | Kind::Icmp | Kind::Dns => "write \"open\", \"blocked\" or a list of outcomes",
        Kind::EgressIp => "write { ip = [\"203.0.113.10\"] }",
        Kind::Peer | Kind::Ranges => "write \"open\"",
        Kind::PromQl => "write \"open\" or \"blocked\"",
        Kind::OpenProxy => "write \"blocked\"",
        Kind::Ports => "write \"blocked\" or a list of outcomes; the ports that must be open stand in open",
    }
}

fn open(kind: Kind) -> Option<Accept> {
    match kind {
        Kind::Tcp => Some(Accept::One(Outcome::Connected)),
        Kind::Tls => Some(Accept::One(Outcome::TlsEstablished)),
        Kind::Http => Some(SUCCESS),
        Kind::Peer | Kind::PromQl | Kind::Ranges => Some(Accept::One(Outcome::QueryTrue)),
        Kind::Dns => Some(Accept::One(Outcome::Resolved)),
        Kind::Udp | Kind::Icmp => Some(Accept::One(Outcome::Replied)),
        Kind::EgressIp | Kind::OpenProxy | Kind::Ports => None,
    }
}

fn blocked(kind: Kind) -> Option<Vec<Outcome>> {
    let with = |more: &[Outcome]| Some([&TCP_BLOCKED[..], more].concat());
    match kind {
        // A firewall's plain `reject` answers an echo, too, with port-unreachable.
        Kind::Tcp | Kind::Udp | Kind::Icmp | Kind::Ports => with(&[]),
        Kind::Tls => with(&ABOVE_TCP),
        Kind::Http => with(&[&ABOVE_TCP[..], &[Outcome::Status(403)]].concat()),
        Kind::OpenProxy => with(&PROXY_BLOCKED),
        Kind::PromQl => Some(vec![Outcome::QueryFalse]),
        Kind::Dns => Some(DNS_BLOCKED.to_vec()),
        Kind::EgressIp | Kind::Peer | Kind::Ranges => None,
    }
}

/// A redirect that matches `deny_location`.
fn by_redirect(own: &Own) -> Option<Outcome> {
    matches!(own, Own::Http(http) if http.deny_location.is_some()).then_some(Outcome::Denied)
}

/// The outcomes that by their nature decide nothing for a check of this kind.
fn undecided(kind: Kind, inverted: bool) -> Vec<Outcome> {
    match kind {
        Kind::OpenProxy => PROXY_UNDECIDED.to_vec(),
        // A name is neither hidden nor shown by a server that is not there; that it must be there, only an open check says.
        Kind::Dns if inverted => [&DNS_UNDECIDED[..], &DNS_BELOW].concat(),
        Kind::Dns => DNS_UNDECIDED.to_vec(),
        _ => Vec::new(),
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
        Kind::Dns => {
            outcomes = [&DNS_BLOCKED[..], &DNS_BELOW, &[Outcome::Resolved, Outcome::Mismatch]].concat();
        }
        Kind::Udp | Kind::Icmp => outcomes.push(Outcome::Replied),
        Kind::EgressIp | Kind::Peer | Kind::PromQl | Kind::Ranges | Kind::OpenProxy | Kind::Ports => {}
    }
    if way.via {
        outcomes.extend(PROXY);
    }
    // Through a proxy it is the proxy that resolves the target's name, and tells nobody how that went.
    if !way.via && way.target.as_ref().is_some_and(|t| t.host.ip().is_none()) {
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
        Ok(outcome) if kind == Kind::Dns && DNS_UNDECIDED.contains(&outcome) => {
            format!("\"{text}\" decides nothing about a name: a server that is silent or fails hides what is there, too; leave it out")
        }
        Ok(Outcome::NxDomain | Outcome::NoData) if way.via => {
            format!("\"{text}\" cannot be seen through a proxy, which resolves the name itself; leave it out")
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

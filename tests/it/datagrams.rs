//! Kinds `udp` and `icmp` before the judge, the witnesses, the decoys and the plan; both sides of each border.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mustnot::clock::Moment;
use mustnot::expectation::{Accept, Expectation, MIN_SENT};
use mustnot::observation::{
    Attempt, Authentication, Evidence, Family, Observation, Outcome, PeerEvidence, Reached, Stage, Subject, Transport,
};
use mustnot::plan::{Keys, Loaded, from_text};
use mustnot::verdict::{Claim, judge};
use mustnot::witness::{DecoyRun, Decoys, Proof, ProofSet, Timeline, WitnessRun};

use crate::fixture::wall;

const WINDOW: Duration = Duration::from_secs(10);
const MONITOR: &str = "10.0.0.5:40000";

fn at(seconds: u64) -> Moment {
    Moment::after_boot(Duration::from_secs(10_000 + seconds))
}

/// Attempts at `to` that ended so, each of as many datagrams as silence needs.
fn seen(to: &str, transport: Transport, asked: Option<&str>, outcomes: &[Outcome], sent: u32, from: u64) -> Observation {
    let to: SocketAddr = to.parse().unwrap();
    let subject = Subject {
        address: if transport == Transport::Icmp { to.ip().to_string() } else { to.to_string() },
        named: None,
        family: Some(Family::of(to.ip())),
        dialled: Some(to),
        reached: Some(to),
        transport,
        asked: asked.map(str::to_string),
        source: None,
        via: false,
        technique: None,
        variant: None,
    };
    let stage = match transport {
        Transport::Tcp => Stage::Tcp,
        Transport::Udp => Stage::Udp,
        Transport::Icmp => Stage::Icmp,
    };
    let attempt = |outcome: &Outcome| {
        let (syns, datagrams) = if transport == Transport::Tcp { (Some(sent), None) } else { (None, Some(sent)) };
        let evidence = Evidence { local_address: MONITOR.parse().ok(), syns_sent: syns, datagrams_sent: datagrams, ..Evidence::default() };
        Attempt { outcome: *outcome, stage, evidence, started: at(from), ended: at(from + 7) }
    };
    Observation::of(subject, outcomes.iter().map(attempt).collect(), None, wall(0))
}

fn udp(to: &str, asked: &str, outcomes: &[Outcome]) -> Observation {
    seen(to, Transport::Udp, Some(asked), outcomes, MIN_SENT, 20)
}

fn echo(to: &str, outcomes: &[Outcome]) -> Observation {
    seen(to, Transport::Icmp, None, outcomes, MIN_SENT, 20)
}

/// What a witness shows for `about` that got through by `witness` before and after, as the decoys were `answered`.
fn shown(witness: &Observation, about: &Observation, answered: Option<bool>) -> Option<ProofSet> {
    let expectation = Expectation::new([Outcome::Replied, Outcome::Connected, Outcome::QueryTrue].map(Accept::One).to_vec()).unwrap();
    let mut timeline = Timeline::default();
    for from in [10, 28] {
        let mut one = witness.clone();
        (one.started, one.ended) = (at(from), at(from + 1));
        timeline.push(Arc::new(WitnessRun::new(at(from), at(from + 1), wall(0), vec![one], &expectation)));
    }
    let mut decoys = Decoys::new(WINDOW);
    for key in Decoys::keys_for(witness) {
        if let Some(connected) = answered {
            decoys.push(DecoyRun { key: key.clone(), started: at(18), ended: at(20), connected });
        }
    }
    timeline.around(about, WINDOW, &decoys).ok().map(|proven| proven.proofs())
}

fn from_source(mut seen: Observation, source: &str) -> Observation {
    seen.subject.source = source.parse().ok();
    seen.evidence.local_address = Some(SocketAddr::new(source.parse().unwrap(), 40000));
    seen
}

fn tokens(proofs: Option<ProofSet>) -> Vec<&'static str> {
    proofs.map_or(vec!["not proven"], |proofs| proofs.iter().map(Proof::token).collect())
}

#[test]
fn silence_of_a_datagram_needs_the_target_and_three_datagrams() {
    use Outcome::{Prohibited, Refused, Timeout};
    let blocked = |outcomes: &[Outcome]| Expectation::new(outcomes.iter().map(|o| Accept::One(*o)).collect()).unwrap();
    let all = blocked(&[Refused, Timeout, Prohibited]).silence_needs_target();
    let vantage = seen("198.51.100.1:443", Transport::Tcp, None, &[Outcome::Connected], 1, 20);
    let target = from_source(udp("203.0.113.7:53", "dns", &[Outcome::Replied]), "10.0.0.6");
    let other = from_source(udp("203.0.113.7:53", "ntp", &[Outcome::Replied]), "10.0.0.6");
    for (outcomes, sent, witness, expected) in [
        ([Timeout; 3], 3, &target, "holds"),
        ([Timeout; 3], 2, &target, "unproven"),
        ([Timeout; 3], 0, &target, "unproven"),
        ([Timeout; 3], 3, &other, "unproven"),
        ([Timeout; 3], 3, &vantage, "unproven"),
        ([Refused; 3], 1, &vantage, "holds"),
        ([Prohibited; 3], 1, &vantage, "holds"),
        ([Refused, Timeout, Refused], 3, &vantage, "unproven"),
        ([Refused, Timeout, Refused], 3, &target, "holds"),
    ] {
        let observed = seen("203.0.113.7:53", Transport::Udp, Some("dns"), &outcomes, sent, 20);
        let decoys = {
            let mut decoys = Decoys::new(WINDOW);
            for key in Decoys::keys_for(witness) {
                decoys.push(DecoyRun { key, started: at(18), ended: at(20), connected: false });
            }
            decoys
        };
        let expectation = Expectation::new([Outcome::Replied, Outcome::Connected].map(Accept::One).to_vec()).unwrap();
        let mut timeline = Timeline::default();
        for from in [10, 28] {
            let mut one = (*witness).clone();
            (one.started, one.ended) = (at(from), at(from + 1));
            timeline.push(Arc::new(WitnessRun::new(at(from), at(from + 1), wall(0), vec![one], &expectation)));
        }
        let testimony = timeline.around(&observed, WINDOW, &decoys);
        let claim = Claim { expectation: &all, require: ProofSet::NONE, attempts: 3 };
        let judged = judge(observed, claim, vec![("w".into(), testimony)]);
        assert_eq!(judged.verdict.token(), expected, "{outcomes:?} {sent}");
    }
    // The same without that rule, as for TCP and for echoes: a vantage will do.
    let plain = blocked(&[Timeout]);
    let silent = echo("203.0.113.7:0", &[Timeout; 3]);
    assert!(!plain.needs_target_for(&silent) && plain.clone().silence_needs_target().needs_target_for(&silent));
    assert!(plain.accepts_nothing_but_silence() && !all.accepts_nothing_but_silence());
    for (sent, expected) in [(MIN_SENT, "holds"), (MIN_SENT - 1, "unproven")] {
        let silent = seen("203.0.113.7:0", Transport::Icmp, None, &[Timeout; 3], sent, 20);
        let judged = judge(silent, Claim { expectation: &plain, require: ProofSet::NONE, attempts: 3 }, vec![]);
        assert_eq!(judged.verdict.token(), expected);
    }
}

#[test]
fn witnesses_of_one_transport_and_payload_show_nothing_of_another() {
    let silent = udp("203.0.113.7:53", "dns", &[Outcome::Timeout; 3]);
    let replied = |to: &str, asked: &str| udp(to, asked, &[Outcome::Replied]);
    let tcp = |to: &str| seen(to, Transport::Tcp, None, &[Outcome::Connected], 1, 20);
    let there = |seen: Observation| from_source(seen, "10.0.0.6");
    for (witness, expected) in [
        (replied("198.51.100.1:53", "dns"), vec!["vantage", "port"]),
        (replied("198.51.100.1:53", "ntp"), vec!["vantage", "port"]),
        (replied("198.51.100.1:123", "dns"), vec!["vantage"]),
        (tcp("198.51.100.1:53"), vec!["vantage"]),
        (echo("198.51.100.1:0", &[Outcome::Replied]), vec!["vantage"]),
        (there(replied("203.0.113.7:53", "dns")), vec!["target"]),
        (there(replied("203.0.113.7:53", "ntp")), vec![]),
        (there(replied("203.0.113.8:53", "dns")), vec![]),
        (there(tcp("203.0.113.7:53")), vec![]),
        (there(echo("203.0.113.7:0", &[Outcome::Replied])), vec![]),
    ] {
        assert_eq!(tokens(shown(&witness, &silent, Some(false))), expected, "{:?}", witness.subject);
    }
    // An echo: an echo elsewhere is its port, and anything at the address its target.
    let silent = echo("203.0.113.7:0", &[Outcome::Timeout; 3]);
    for (witness, expected) in [
        (echo("198.51.100.1:0", &[Outcome::Replied]), vec!["vantage", "port"]),
        (echo("203.0.113.7:0", &[Outcome::Replied]), vec!["vantage"]),
        (tcp("198.51.100.1:443"), vec!["vantage"]),
        (there(tcp("203.0.113.7:443")), vec!["target"]),
        (there(replied("203.0.113.7:53", "dns")), vec!["target"]),
        (there(tcp("203.0.113.8:443")), vec![]),
    ] {
        assert_eq!(tokens(shown(&witness, &silent, Some(false))), expected, "{:?}", witness.subject);
    }
    // No datagram says anything of TCP.
    let silent = seen("203.0.113.7:53", Transport::Tcp, None, &[Outcome::Timeout; 3], 3, 20);
    assert_eq!(tokens(shown(&there(replied("203.0.113.7:53", "dns")), &silent, Some(false))), [""; 0]);
    assert_eq!(tokens(shown(&replied("198.51.100.1:53", "dns"), &silent, Some(false))), ["vantage"]);
}

#[test]
fn a_tunnel_or_a_redirect_to_the_address_shows_that_it_is_alive_to_an_echo_only() {
    let mut tunnel = seen("198.51.100.3:3128", Transport::Tcp, None, &[Outcome::Connected], 1, 20);
    (tunnel.subject.via, tunnel.subject.reached) = (true, "203.0.113.7:443".parse().ok());
    tunnel.evidence.authenticated = Some(Authentication::Tls);
    let proof = |about: &Observation| tokens(shown(&tunnel, about, None));
    assert_eq!(proof(&echo("203.0.113.7:0", &[Outcome::Timeout; 3])), ["target"]);
    assert_eq!(proof(&echo("203.0.113.8:0", &[Outcome::Timeout; 3])), [""; 0]);
    assert_eq!(proof(&udp("203.0.113.7:443", "quic", &[Outcome::Timeout; 3])), [""; 0]);
    assert_eq!(proof(&seen("203.0.113.7:443", Transport::Tcp, None, &[Outcome::Timeout; 3], 3, 20)), ["target"]);
    assert_eq!(proof(&seen("203.0.113.7:80", Transport::Tcp, None, &[Outcome::Timeout; 3], 3, 20)), [""; 0]);
}

#[test]
fn a_peer_that_asked_the_same_gives_target() {
    let peer = |address: &str, transport, asked: Option<&str>| {
        let mut peer = seen("198.51.100.9:9890", Transport::Tcp, None, &[Outcome::QueryTrue], 1, 20);
        peer.evidence.authenticated = Some(Authentication::Tls);
        peer.evidence.peer = Some(PeerEvidence {
            check: "there".into(),
            vantage: "office".into(),
            verdict: "holds".into(),
            age_seconds: 1.0,
            holding_since: Some(at(0)),
            reached: vec![Reached { address: address.into(), transport, asked: asked.map(str::to_string) }],
        });
        peer
    };
    let has = |witness: &Observation, about: &Observation| shown(witness, about, None).is_some_and(|p| p.has(Proof::Target));
    let silent = udp("203.0.113.7:53", "dns", &[Outcome::Timeout; 3]);
    assert!(has(&peer("203.0.113.7:53", Transport::Udp, Some("dns")), &silent));
    assert!(!has(&peer("203.0.113.7:53", Transport::Udp, Some("ntp")), &silent));
    assert!(!has(&peer("203.0.113.7:53", Transport::Tcp, None), &silent));
    assert!(!has(&peer("203.0.113.7:54", Transport::Udp, Some("dns")), &silent));
    let silent = echo("203.0.113.7:0", &[Outcome::Timeout; 3]);
    assert!(has(&peer("203.0.113.7", Transport::Icmp, None), &silent));
    assert!(has(&peer("203.0.113.7:443", Transport::Tcp, None), &silent));
    assert!(has(&peer("203.0.113.7:53", Transport::Udp, Some("dns")), &silent));
    assert!(!has(&peer("203.0.113.8", Transport::Icmp, None), &silent));
}

#[test]
fn an_answer_is_unmasked_by_the_same_question_and_by_no_other() {
    let replied = udp("203.0.113.7:53", "dns", &[Outcome::Replied]);
    let keys: Vec<_> = Decoys::keys_for(&replied).collect();
    let [key] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!((key.transport, key.port, key.asked.as_deref()), (Transport::Udp, 53, Some("dns")));
    let unmasked = |key: &mustnot::witness::DecoyKey| {
        let mut decoys = Decoys::new(WINDOW);
        decoys.push(DecoyRun { key: key.clone(), started: at(20), ended: at(21), connected: true });
        decoys.unmask(replied.clone()).outcome
    };
    assert_eq!(unmasked(key), Outcome::LocalError);
    for other in [
        mustnot::witness::DecoyKey { asked: Some("ntp".into()), ..key.clone() },
        mustnot::witness::DecoyKey { transport: Transport::Tcp, asked: None, ..key.clone() },
        mustnot::witness::DecoyKey { port: 54, ..key.clone() },
    ] {
        assert_eq!(unmasked(&other), Outcome::Replied, "{other:?}");
    }
    let silent = udp("203.0.113.7:53", "dns", &[Outcome::Timeout, Outcome::Refused, Outcome::Prohibited]);
    assert_eq!(Decoys::keys_for(&silent).count(), 0, "nobody answered, so nobody answers for everybody");
    assert_eq!(Decoys::keys_for(&echo("203.0.113.7:0", &[Outcome::Timeout; 3])).count(), 0);
    let echoed: Vec<_> = Decoys::keys_for(&echo("203.0.113.7:0", &[Outcome::Timeout, Outcome::Replied])).collect();
    assert_eq!(echoed.iter().map(|k| (k.transport, k.port, k.asked.clone())).collect::<Vec<_>>(), [(Transport::Icmp, 0, None)]);
    // A witness whose decoy was answered, or never asked, proves nothing.
    let about = udp("203.0.113.9:53", "dns", &[Outcome::Refused; 3]);
    for (answered, expected) in [(Some(false), true), (Some(true), false), (None, false)] {
        assert_eq!(shown(&replied, &about, answered).is_some(), expected, "{answered:?}");
    }
}

// ---------------------------------------------------------------------------------------------- the plan

fn read(text: &str) -> Result<Loaded, String> {
    from_text("f", &format!("vantage = \"v\"\n{text}"), Path::new("."), &|_| None, Keys::Read).map_err(|problems| problems.to_string())
}

fn check(name: &str, kind: &str, target: &str, rest: &str) -> String {
    format!("[[check]]\nname = \"{name}\"\nkind = \"{kind}\"\ntarget = \"{target}\"\n{rest}\n")
}

#[test]
fn by_the_file_alone_a_witness_of_another_transport_or_payload_gives_no_port_and_no_target() {
    let udp = |rest: &str| check("c", "udp", "192.0.2.7:53", &format!("expect = [\"refused\"]\nwitness = [\"w\"]\n{rest}"));
    let icmp = |rest: &str| check("c", "icmp", "192.0.2.7", &format!("expect = [\"refused\"]\nwitness = [\"w\"]\n{rest}"));
    let open = "expect = \"open\"";
    let there = "expect = \"open\"\nsource = \"198.51.100.5\"\nfamilies = [\"ipv4\"]";
    let w = |kind: &str, target: &str, rest: &str| check("w", kind, target, rest);
    let (port, target) = ("require = [\"port\"]", "require = [\"target\"]");
    for (witness, checked, accepted) in [
        (w("udp", "192.0.2.8:53", open), udp(port), true),
        (w("tcp", "192.0.2.8:53", open), udp(port), false),
        (w("udp", "192.0.2.8:123", open), udp(port), false),
        (
            w("udp", "192.0.2.8:53", open),
            check("c", "tcp", "192.0.2.7:53", &format!("expect = \"blocked\"\nwitness = [\"w\"]\n{port}")),
            false,
        ),
        (w("udp", "192.0.2.7:53", there), udp(target), true),
        (w("udp", "192.0.2.7:53", &format!("{there}\npayload = \"hex:00\"")), udp(target), false),
        (w("udp", "192.0.2.7:53", &format!("{there}\npayload = \"hex:00\"")), udp(&format!("{target}\npayload = \"hex:00\"")), true),
        (w("tcp", "192.0.2.7:53", there), udp(target), false),
        (w("udp", "192.0.2.7:53", open), udp(target), false),
        (w("http", "https://192.0.2.7:53/", "expect = \"open\"\nvia = \"http://192.0.2.3:3128\""), udp(target), false),
        (w("icmp", "192.0.2.8", open), icmp(port), true),
        (w("icmp", "192.0.2.7", open), icmp(port), false),
        (w("tcp", "192.0.2.8:443", open), icmp(port), false),
        (w("tcp", "192.0.2.7:443", there), icmp(target), true),
        (w("tcp", "192.0.2.8:443", there), icmp(target), false),
        (w("udp", "192.0.2.7:53", there), icmp(target), true),
        (w("http", "https://192.0.2.7/", "expect = \"open\"\nvia = \"http://192.0.2.3:3128\""), icmp(target), true),
        (
            w("tcp", "192.0.2.7:443", there),
            check(
                "c",
                "icmp",
                "192.0.2.0/28",
                "expect = \"blocked\"\nwitness = [\"w\"]\nrequire = [\"target\"]\nfamilies = [\"ipv4\"]\ndescription = \"\"",
            ),
            true,
        ),
        (
            w("tcp", "192.0.2.7:443", there),
            check("c", "icmp", "192.0.2.16/28", "expect = \"blocked\"\nwitness = [\"w\"]\nrequire = [\"target\"]"),
            false,
        ),
    ] {
        let text = format!("decoy = \"203.0.113.1\"\n{witness}{checked}");
        match read(&text) {
            Ok(_) => assert!(accepted, "accepted:\n{text}"),
            Err(said) => assert!(
                !accepted && said.contains(" is required, and no witness can give it") && said.lines().count() == 1,
                "{said}\n{text}"
            ),
        }
    }
}

#[test]
fn silence_that_no_witness_can_make_a_block_is_hinted_at_or_refused() {
    let vantage = check("w", "tcp", "198.51.100.1:443", "expect = \"open\"");
    let target = check("t", "udp", "203.0.113.7:53", "expect = \"open\"\nsource = \"198.51.100.5\"\nfamilies = [\"ipv4\"]");
    let closed = |expect: &str, witness: &str| check("c", "udp", "203.0.113.7:53", &format!("expect = {expect}\nwitness = {witness}"));
    let hints = |text: &str| read(text).unwrap().hints.iter().filter(|h| h.contains("silence will be unproven")).count();
    let file = |expect: &str, witness: &str| format!("{vantage}{target}{}", closed(expect, witness));
    assert_eq!(hints(&file("\"blocked\"", "[\"w\"]")), 1);
    assert_eq!(hints(&file("\"blocked\"", "[\"w\", \"t\"]")), 0);
    assert_eq!(hints(&file("[\"refused\", \"prohibited\"]", "[\"w\"]")), 0);
    assert!(read(&file("[\"timeout\"]", "[\"w\", \"t\"]")).is_ok());
    let said = read(&file("[\"timeout\"]", "[\"w\"]")).unwrap_err();
    assert!(
        said.contains("nothing but silence is accepted") && said.contains("sends \"dns\" to 203.0.113.7:53 from another source"),
        "{said}"
    );
}

#[test]
fn the_time_that_checks_of_one_host_wait_for_each_other_is_in_their_worst_run() {
    let file = |targets: &[&str]| {
        let witness = check("w", "tcp", "198.51.100.1:443", "expect = \"open\"");
        let closed = |(at, target): (usize, &&str)| {
            check(&format!("c{at}"), "udp", target, "expect = \"blocked\"\npayload = \"hex:00\"\nwitness = [\"w\"]")
        };
        read(&(witness + &targets.iter().enumerate().map(closed).collect::<String>())).unwrap().plan
    };
    let worst = |targets: &[&str]| file(targets).checks[1].worst_run.as_secs_f64();
    let alone = worst(&["203.0.113.7:1"]);
    // Three attempts of three datagrams, the rest of the last one's time, a witness on either side, a decoy.
    assert_eq!(file(&["203.0.113.7:1"]).checks[1].worst_observation(), Duration::from_secs(2 * 3 + 5));
    assert_eq!(worst(&["203.0.113.7:1", "203.0.113.8:1"]), alone, "another host");
    let two = worst(&["203.0.113.7:1", "203.0.113.7:2"]);
    assert!(two >= 2.0 * alone, "a run of the other, and its datagrams between ours: {two} after {alone}");
    assert!(worst(&["203.0.113.7:1", "203.0.113.7:2", "203.0.113.7:3"]) >= two + alone);
    assert!(worst(&["203.0.113.7:1", "a.example:1"]) > alone, "a name may stand for any address");
}

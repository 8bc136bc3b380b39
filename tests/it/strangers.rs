//! Strangers before the judge: a refusal counts for what the check is about, and the right certificate is the allowed way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mustnot::clock::{Moment, Wall};
use mustnot::expectation::{Accept, Expectation};
use mustnot::observation::{
    Attempt, ClientCertificate, Evidence, Family, Observation, Outcome, RefusedFor, Stage, Subject, Transport, excuse_versions,
};
use mustnot::verdict::{Cause, Claim, Verdict, judge};
use mustnot::witness::{Decoys, Proof, ProofSet, Timeline, WitnessRun};

fn at(seconds: u64) -> Moment {
    Moment::after_boot(Duration::from_secs(100 + seconds))
}

fn subject(to: &str, variant: Option<&str>) -> Subject {
    let to: SocketAddr = to.parse().unwrap();
    Subject {
        address: to.to_string(),
        named: None,
        family: Some(Family::of(to.ip())),
        dialled: Some(to),
        reached: Some(to),
        transport: Transport::Tcp,
        asked: None,
        source: None,
        via: false,
        technique: None,
        variant: variant.map(Into::into),
    }
}

const HERE: &str = "203.0.113.7:443";

/// How an attempt ended, and what for.
type Ended = (Outcome, Option<RefusedFor>);

/// A stranger's observation.
fn stranger(variant: &str, attempts: &[Ended]) -> Observation {
    let attempt = |(outcome, refused_for): &Ended| {
        let evidence = Evidence {
            local_address: "198.51.100.66:40000".parse().ok(),
            refused_for: *refused_for,
            authenticated: Some(mustnot::observation::Authentication::Tls),
            ..Evidence::default()
        };
        Attempt { outcome: *outcome, stage: Stage::Tls, evidence, started: at(10), ended: at(13) }
    };
    Observation::of(subject(HERE, Some(variant)), attempts.iter().map(attempt).collect(), None, Wall::now())
}

fn claim(expectation: &Expectation) -> Claim<'_> {
    Claim { expectation, require: ProofSet::NONE, attempts: 3 }
}

fn keeps_out_for(what: RefusedFor) -> Expectation {
    let accepts = [Outcome::TlsRefused, Outcome::Closed, Outcome::Timeout, Outcome::Status(403)];
    Expectation::new(accepts.map(Accept::One).to_vec()).unwrap().refused_for(what)
}

#[test]
fn a_refusal_for_something_else_holds_nothing() {
    use RefusedFor::{Certificate, Other, Version};
    let refused = |what| (Outcome::TlsRefused, Some(what));
    let thrice = |what| [refused(what); 3];
    let cells: [(&[Ended], &str); 9] = [
        (&thrice(Certificate), "holds"),
        (&thrice(Other), "unproven"),
        (&thrice(Version), "unproven"),
        // One attempt of three is enough, wherever it stands.
        (&[refused(Other), refused(Certificate), refused(Certificate)], "unproven"),
        (&[refused(Certificate), refused(Certificate), refused(Version)], "unproven"),
        // Kept out below TLS, so nobody was refused for anything.
        (&[(Outcome::Timeout, None), refused(Certificate), refused(Certificate)], "unproven"),
        (&[(Outcome::Status(404), Some(Certificate)); 3], "violated"),
        (&[(Outcome::Mute, Some(Other)); 3], "unproven"),
        (&[refused(Certificate), (Outcome::TlsEstablished, None)], "violated"),
    ];
    for (attempts, verdict) in cells {
        let judged = judge(stranger("tls1.2/none", attempts), claim(&keeps_out_for(Certificate)), Vec::new());
        assert_eq!(judged.verdict.token(), verdict, "{attempts:?}: {:?}", judged.verdict);
    }
    // Without the demand a refusal is a refusal; and for another demand this one is beside the point.
    let plain = Expectation::new(vec![Accept::One(Outcome::TlsRefused)]).unwrap();
    assert_eq!(judge(stranger("tls1.2/none", &thrice(Other)), claim(&plain), Vec::new()).verdict.token(), "holds");
    let judged = judge(stranger("tls1.2/none", &thrice(Certificate)), claim(&keeps_out_for(Version)), Vec::new());
    assert_eq!(judged.verdict, Verdict::Unproven(Cause::OtherDenial));
}

#[test]
fn a_version_that_is_not_spoken_is_excused_by_the_other_one_alone() {
    use RefusedFor::{Certificate, Other, Version};
    let thrice = |variant, what| stranger(variant, &[(Outcome::TlsRefused, Some(what)); 3]);
    let elsewhere = |mut seen: Observation| {
        seen.subject = subject("203.0.113.8:443", seen.subject.variant.as_deref());
        seen
    };
    let open = stranger("tls1.3/none", &[(Outcome::TlsEstablished, None)]);
    let cells = [
        (vec![thrice("tls1.3/none", Certificate)], "holds"),
        (vec![thrice("tls1.3/none", Version)], "unproven"),
        (vec![thrice("tls1.3/none", Other)], "unproven"),
        (vec![open], "unproven"),
        // Neither another stranger nor another address says anything of this one.
        (vec![thrice("tls1.3/self-signed", Certificate)], "unproven"),
        (vec![elsewhere(thrice("tls1.3/none", Certificate))], "unproven"),
        (vec![thrice("tls1.2/none", Certificate)], "unproven"),
        (vec![], "unproven"),
    ];
    for (nth, (others, verdict)) in cells.into_iter().enumerate() {
        let mut seen = vec![thrice("tls1.2/none", Version)];
        seen.extend(others);
        excuse_versions(&mut seen);
        let judged = judge(seen.swap_remove(0), claim(&keeps_out_for(Certificate)), Vec::new());
        assert_eq!(judged.verdict.token(), verdict, "cell {nth}: {:?}", judged.seen.evidence);
    }
}

#[test]
fn the_right_certificate_is_the_allowed_way_to_where_it_was_asked_for() {
    let expectation = Expectation::new(vec![Accept::One(Outcome::TlsEstablished)]).unwrap();
    let proven = |change: &dyn Fn(&mut Observation), refused_for: Option<RefusedFor>| {
        let mut timeline = Timeline::default();
        for (from, until) in [(5, 6), (14, 15)] {
            let evidence = Evidence {
                local_address: "198.51.100.66:40001".parse().ok(),
                client_certificate: Some(ClientCertificate::Own),
                authenticated: Some(mustnot::observation::Authentication::Tls),
                ..Evidence::default()
            };
            let attempt = Attempt { outcome: Outcome::TlsEstablished, stage: Stage::Tls, evidence, started: at(from), ended: at(until) };
            let mut seen = Observation::of(subject(HERE, None), vec![attempt], Some(0), Wall::now());
            change(&mut seen);
            timeline.push(Arc::new(WitnessRun::new(at(from), at(until), Wall::now(), vec![seen], &expectation)));
        }
        let seen = stranger("tls1.3/none", &[(Outcome::TlsRefused, refused_for); 3]);
        let around = timeline.around(&seen, Duration::from_secs(10), &Decoys::new(Duration::from_secs(10))).unwrap();
        around.proofs().has(Proof::Target)
    };
    let certificate = Some(RefusedFor::Certificate);
    assert!(proven(&|_| {}, certificate));
    assert!(proven(&|_| {}, Some(RefusedFor::Version)), "what excuses it, the judge asks");
    assert!(!proven(&|_| {}, None), "nobody was refused for a certificate");
    assert!(!proven(&|w| w.evidence.client_certificate = Some(ClientCertificate::None), certificate), "it had none that could be used");
    assert!(!proven(&|w| w.evidence.client_certificate = None, certificate), "it was never asked");
    assert!(!proven(&|w| w.subject = subject("203.0.113.8:443", None), certificate), "another address");
    assert!(!proven(&|w| w.subject = subject("203.0.113.7:8443", None), certificate), "another port");
    assert!(!proven(&|w| w.subject.source = "198.51.100.66".parse().ok(), certificate), "another source by name, and the same by address");
    assert!(!proven(&|w| w.evidence.redirected_to = HERE.parse().ok(), certificate), "it was shown to another connection");
}

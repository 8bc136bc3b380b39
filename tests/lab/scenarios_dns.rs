//! Kind `dns`: real servers that hide, refuse, fail, refer and cut, and one that lies as told. A name is hidden only where a
//! server says so in an answer to our very question, every time.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::run::{Monitor, check, config, gate, observed};
use crate::service::{Process, python, until};
use crate::world::{ADMIN4, BEACON4, Denial, Host, Lab, OFFICE4, SECOND4, WITNESS4, WITNESS6};

const READY: Duration = Duration::from_secs(20);
/// Where nsd, knot and the split unbound listen.
const NSD: &str = "198.51.100.21:53";
const KNOT: &str = "198.51.100.21:5302";
const SPLIT: &str = "198.51.100.21:5303";

const ZONE: &str = "$ORIGIN corp.test.\n$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\n@ IN MX 10 mail\n\
    ns IN A 198.51.100.21\nsecret IN A 10.9.9.7\nsecret IN AAAA fd00:9::7\nsecret IN TXT \"v=spf1 \" \"-all\"\nfour IN A 10.9.9.8\n\
    alias IN CNAME gone\nout IN CNAME www.else.test.\nsub IN NS ns.sub\nns.sub IN A 10.9.9.9\n";

/// An inverted check of a name at a server.
fn hidden(name: &str, target: &str, server: &str, witness: &[&str], rest: &str) -> String {
    check(name, "dns", target, &format!("expect = \"blocked\"\nserver = \"{server}\"\nwitness = {witness:?}\n{rest}"))
}

/// A positive check of a name at a server.
fn given(name: &str, target: &str, server: &str, rest: &str) -> String {
    check(name, "dns", target, &format!("expect = \"open\"\nserver = \"{server}\"\n{rest}"))
}

/// The witness by TCP, which speaks for the way out.
fn out() -> String {
    check("out", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\"")
}

fn started(lab: &Lab, host: Host, name: &str, command: &[&str], ready: impl Fn() -> bool) -> Process {
    let mut process = Process::spawn(lab, host, name, command, false);
    let up = until(READY, || {
        assert!(process.ended().is_none(), "{name} ended at start: {}", lab.log(name));
        ready().then_some(())
    });
    assert!(up.is_some(), "{name} did not get ready: {}", lab.log(name));
    process
}

/// nsd: the zone is transferred to the stranger's second address, and `broken.test` has no file.
fn nsd(lab: &Lab) -> Process {
    let long: String = (0..30).map(|n| format!("long IN TXT \"{n} {}\"\n", "x".repeat(100))).collect();
    fs::write(lab.dir().join("corp.zone"), format!("{ZONE}{long}")).unwrap();
    let dir = lab.dir().display();
    let text = format!(
        "server:\n  ip-address: {BEACON4}@53\n  username: \"\"\n  zonesdir: \"{dir}\"\n  database: \"\"\n  pidfile: \"\"\n  server-count: 1\n  \
         xfrdfile: \"{dir}/xfrd.state\"\n  zonelistfile: \"{dir}/zone.list\"\n  xfrdir: \"{dir}\"\nremote-control:\n  control-enable: no\n\
         zone:\n  name: corp.test\n  zonefile: corp.zone\n  provide-xfr: {SECOND4} NOKEY\nzone:\n  name: broken.test\n  zonefile: nowhere.zone\n"
    );
    fs::write(lab.dir().join("nsd.conf"), text).unwrap();
    let hub = lab.hub(Host::Beacon);
    started(lab, Host::Beacon, "nsd", &["nsd", "-d", "-c", "nsd.conf"], || hub.query(BEACON4, 53, "ns.corp.test", "A").0 == 0)
}

/// Knot: the same zone, and the same one who may have it whole.
fn knot(lab: &Lab) -> Process {
    fs::write(lab.dir().join("knot.zone"), ZONE).unwrap();
    let dir = lab.dir().display();
    let text = format!(
        "server:\n  listen: {BEACON4}@5302\n  rundir: {dir}\ndatabase:\n  storage: {dir}\nacl:\n  - id: second\n    address: {SECOND4}\n    action: transfer\n\
         zone:\n  - domain: corp.test\n    storage: {dir}\n    file: knot.zone\n    acl: second\n"
    );
    fs::write(lab.dir().join("knot.conf"), text).unwrap();
    let hub = lab.hub(Host::Beacon);
    started(lab, Host::Beacon, "knot", &["knotd", "-c", "knot.conf"], || hub.query(BEACON4, 5302, "ns.corp.test", "A").0 == 0)
}

/// unbound with two views: the office sees the name inside, everybody else one name only; the second address is refused.
fn split(lab: &Lab) -> Process {
    let text = format!(
        "server:\n  interface: {BEACON4}@5303\n  access-control: 0.0.0.0/0 allow\n  access-control: {SECOND4}/32 refuse\n  access-control-view: {OFFICE4}/32 inside\n  \
         username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  num-threads: 1\n  so-rcvbuf: 0\n  module-config: \"iterator\"\n  \
         local-zone: \"corp.test.\" static\n  local-data: \"www.corp.test. A 198.51.100.20\"\n\
         view:\n  name: inside\n  view-first: yes\n  local-zone: \"corp.test.\" static\n  local-data: \"secret.corp.test. A 10.9.9.7\"\n\
         remote-control:\n  control-enable: no\n"
    );
    fs::write(lab.dir().join("split.conf"), text).unwrap();
    let hub = lab.hub(Host::Beacon);
    started(lab, Host::Beacon, "split", &["unbound", "-d", "-c", "split.conf"], || hub.query(BEACON4, 5303, "www.corp.test", "A").0 == 0)
}

/// The server that lies as told, on a port of the witness.
fn liar(lab: &Lab, port: u16, steps: &[&str]) -> Process {
    liar_at(lab, Host::Beacon, WITNESS4, port, steps)
}

fn liar_at(lab: &Lab, host: Host, address: &str, port: u16, steps: &[&str]) -> Process {
    let script = lab.dir().join("liar.py");
    fs::write(&script, include_str!("liar.py")).unwrap();
    let (name, port) = (format!("liar-{port}"), port.to_string());
    let command = [&[python(), script.to_str().unwrap(), address, port.as_str()], steps].concat();
    started(lab, host, &name, &command, || lab.log(&name).contains("ready"))
}

/// A box on the way that answers every server's questions hides nothing and gives nothing away: the decoy is answered, too.
#[test]
fn who_answers_for_every_server_hides_nothing() {
    let Some(lab) = Lab::new() else { return };
    let _box = liar_at(&lab, Host::Core, "0.0.0.0", 9999, &["nx"]);
    let _generous = liar_at(&lab, Host::Core, "0.0.0.0", 9998, &["answer"]);
    lab.lure(&["meta nfproto ipv4 udp dport 5300 redirect to :9999", "meta nfproto ipv4 udp dport 5301 redirect to :9998"]);
    let (denies, gives) = (format!("{WITNESS4}:5300"), format!("{WITNESS4}:5301"));
    let body = out()
        + &given("any", "www.corp.test", &gives, "")
        + &hidden("denied", "secret.corp.test", &denies, &["out"], "")
        + &hidden("shown", "secret.corp.test", &gives, &["out"], "");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    for name in ["any", "denied", "shown"] {
        run.expect(name, "unproven", "intercepted", "local-error");
    }
}

#[test]
fn a_name_for_the_inside_only() {
    let Some(lab) = Lab::new() else { return };
    let _split = split(&lab);
    let inside = given("secret-inside", "secret.corp.test", SPLIT, "interval = \"2s\"\nattempts = 1");
    let office = format!("vantage = \"office\"\n[web]\nlisten = \"{OFFICE4}:9890\"\n{inside}");
    let _office = Monitor::start(&lab, Host::Allowed, OFFICE4, &office);
    let peer = check("inside", "peer", &format!("http://{OFFICE4}:9890"), "check = \"secret-inside\"\nexpect = \"open\"");
    let body = given("www", "www.corp.test", SPLIT, "")
        + &out()
        + &peer
        + &hidden("secret", "secret.corp.test", SPLIT, &["www"], "")
        + &hidden("secret-tcp-witness", "secret.corp.test", SPLIT, &["out"], "")
        + &hidden("proven", "Secret.Corp.Test.", SPLIT, &["www", "inside"], "record = \"A\"\nrequire = [\"vantage\", \"target\"]")
        // The peer was given the address, and nobody there asked for the text.
        + &hidden("other-question", "secret.corp.test", SPLIT, &["www", "inside"], "record = \"TXT\"\nrequire = [\"vantage\", \"target\"]")
        + &hidden("www-hidden", "www.corp.test", SPLIT, &["out"], "")
        + &hidden("refused", "secret.corp.test", SPLIT, &["out2"], &format!("source = \"{SECOND4}\""))
        + &check("out2", "tcp", &format!("{WITNESS4}:443"), &format!("expect = \"open\"\nsource = \"{SECOND4}\""));
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("www", "holds", "as-expected", "resolved");
    run.expect("secret", "holds", "as-expected", "nxdomain");
    run.expect_proofs("secret", &["vantage"]);
    assert_eq!(observed(run.check("secret")).len(), 2, "A and AAAA are asked");
    run.expect("secret-tcp-witness", "holds", "as-expected", "nxdomain");
    run.expect("proven", "holds", "as-expected", "nxdomain");
    run.expect_proofs("proven", &["vantage", "target"]);
    run.expect("other-question", "unproven", "no-witness", "nxdomain");
    run.expect("www-hidden", "violated", "open", "resolved");
    run.expect("refused", "holds", "as-expected", "dns-refused");
    run.expect_code(1);
    let seen = &observed(run.check("proven"))[0];
    assert_eq!(seen["asked"], "secret.corp.test A");
    assert_eq!((&seen["stage"], &seen["attempts"]), (&json!("dns"), &json!(3)));
    assert_eq!(seen["evidence"]["dns"]["rcode"], "NXDOMAIN");
    let shown = &observed(run.check("www-hidden"))[0]["evidence"]["dns"];
    assert_eq!((&shown["records"], &shown["answered_by"]), (&json!(["A 198.51.100.20"]), &json!("udp")));

    // The line that repeats it by hand does so.
    let line = run.check("www-hidden")["reproduce"].as_str().unwrap();
    assert!(line.starts_with("dig "), "{line}");
    assert!(lab.output(Host::Stranger, &["sh", "-c", line]).contains("198.51.100.20"), "{line}");
}

#[test]
fn an_authoritative_server_in_all_its_words() {
    let Some(lab) = Lab::new() else { return };
    let _nsd = nsd(&lab);
    let body = given("ns", "ns.corp.test", NSD, "")
        + &given("mx", "corp.test", NSD, "record = \"MX\"\nanswers = \"10 mail.corp.test\"")
        + &given("spf", "secret.corp.test", NSD, "record = \"TXT\"\nanswers = \"v=spf1 -all\"")
        + &given("spf-other", "secret.corp.test", NSD, "record = \"TXT\"\nanswers = \"v=spf1 ~all\"")
        + &given("net", "secret.corp.test", NSD, "answers = [\"10.9.9.0/24\", \"fd00:9::/64\"]")
        + &given("other-net", "secret.corp.test", NSD, "answers = \"10.9.8.0/24\"")
        + &given("long", "long.corp.test", NSD, "record = \"TXT\"")
        + &given("alias", "out.corp.test", NSD, "")
        + &given("alias-answers", "out.corp.test", NSD, "answers = \"10.9.9.7\"")
        + &given("dangling", "alias.corp.test", NSD, "")
        + &given("six", "four.corp.test", NSD, "record = \"AAAA\"")
        + &hidden("nothing", "nothing.corp.test", NSD, &["ns"], "")
        + &hidden("no-text", "four.corp.test", NSD, &["ns"], "record = [\"TXT\", \"CAA\", \"TYPE65\"]")
        + &hidden("four", "four.corp.test", NSD, &["ns"], "")
        + &hidden("dangling-hidden", "alias.corp.test", NSD, &["ns"], "record = \"A\"")
        + &hidden("any", "secret.corp.test", NSD, &["ns"], "record = \"ANY\"")
        + &hidden("referral", "x.sub.corp.test", NSD, &["ns"], "")
        + &given("elsewhere", "witness.lab.test", &format!("{WITNESS4}:53"), "")
        + &hidden("port", "nothing.corp.test", NSD, &["ns", "elsewhere"], "require = [\"vantage\", \"port\"]")
        + &hidden("foreign", "www.else.test", NSD, &["ns"], "")
        + &hidden("broken", "www.broken.test", NSD, &["ns"], "")
        + &given("broken-open", "www.broken.test", NSD, "witness = [\"ns\"]");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    for name in ["ns", "mx", "spf", "net", "long", "alias"] {
        run.expect(name, "holds", "as-expected", "resolved");
    }
    run.expect("spf-other", "violated", "not-open", "mismatch");
    run.expect("other-net", "violated", "not-open", "mismatch");
    assert!(run.check("other-net")["reason"].as_str().unwrap().contains("A 10.9.9.7"), "{:#}", run.check("other-net"));
    run.expect("alias-answers", "violated", "not-open", "mismatch");
    run.expect("dangling", "violated", "not-open", "mismatch");
    run.expect("six", "violated", "not-open", "no-data");
    assert_eq!(observed(run.check("long"))[0]["evidence"]["dns"]["answered_by"], "tcp");
    run.expect("nothing", "holds", "as-expected", "nxdomain");
    run.expect("no-text", "holds", "as-expected", "no-data");
    run.expect("four", "violated", "open", "resolved");
    run.expect("dangling-hidden", "violated", "open", "mismatch");
    run.expect("any", "violated", "open", "resolved");
    run.expect("referral", "unproven", "other-denial", "servfail");
    run.expect("port", "holds", "as-expected", "nxdomain");
    run.expect_proofs("port", &["vantage", "port"]);
    run.expect("foreign", "holds", "as-expected", "dns-refused");
    run.expect("broken", "unproven", "other-denial", "servfail");
    run.expect("broken-open", "unproven", "not-open", "servfail");
    run.expect_code(1);
}

#[test]
fn a_zone_is_given_whole_to_whom_it_may() {
    let Some(lab) = Lab::new() else { return };
    let _servers = [nsd(&lab), knot(&lab)];
    let second = format!("source = \"{SECOND4}\"");
    let axfr = |name: &str, server: &str, witness: &str, rest: &str| {
        hidden(name, "corp.test", server, &[witness], &format!("record = \"AXFR\"\n{rest}"))
    };
    let body = given("soa", "corp.test", NSD, "record = \"SOA\"")
        + &given("soa-knot", "corp.test", KNOT, "record = \"SOA\"")
        + &given("soa2", "corp.test", NSD, &format!("record = \"SOA\"\n{second}"))
        + &given("soa2-knot", "corp.test", KNOT, &format!("record = \"SOA\"\n{second}"))
        + &given("axfr2", "corp.test", NSD, &format!("record = \"AXFR\"\n{second}"))
        + &axfr("nsd", NSD, "soa", "")
        + &axfr("knot", KNOT, "soa-knot", "")
        + &axfr("nsd2", NSD, "soa2", &second)
        + &axfr("knot2", KNOT, "soa2-knot", &second)
        // That it may be had from the other address is the proof that there is something to refuse.
        + &hidden("proven", "corp.test", NSD, &["soa", "axfr2"], "record = \"AXFR\"\nrequire = [\"vantage\", \"target\"]")
        + &axfr("unbound", &format!("{WITNESS4}:53"), "lab", "")
        + &given("lab", "witness.lab.test", &format!("{WITNESS4}:53"), "")
        + &axfr("nobody", &format!("{WITNESS4}:5999"), "lab", "")
        + &axfr("nobody-listed", &format!("{WITNESS4}:5999"), "lab", "")
            .replace("\"blocked\"", "[\"dns-refused\", \"refused\"]");
    // TCP is accepted, and then no zone comes: neither given nor refused, unless the check says that it may end so.
    let mut body = body;
    for (port, mode) in [(5991, "hold"), (5992, "close"), (5993, "reset")] {
        lab.listen(Host::Beacon, &format!("axfr-{mode}"), WITNESS4, port, mode);
        body += &axfr(mode, &format!("{WITNESS4}:{port}"), "lab", "");
        let listed = axfr(&format!("{mode}-listed"), &format!("{WITNESS4}:{port}"), "lab", "");
        body += &listed.replace("\"blocked\"", "[\"dns-refused\", \"closed\", \"reset\"]");
    }
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    for (name, outcome, listed) in [("hold", "mute", "unproven"), ("close", "closed|reset", "holds"), ("reset", "closed|reset", "holds")] {
        run.expect(name, "unproven", "other-denial", outcome);
        run.expect(&format!("{name}-listed"), listed, "*", outcome);
    }
    for name in ["nsd", "knot", "unbound"] {
        run.expect(name, "holds", "as-expected", "dns-refused");
    }
    for name in ["nsd2", "knot2"] {
        run.expect(name, "violated", "open", "resolved");
    }
    run.expect("axfr2", "holds", "as-expected", "resolved");
    run.expect("proven", "holds", "as-expected", "dns-refused");
    run.expect_proofs("proven", &["vantage", "target"]);
    run.expect("nobody", "unproven", "other-denial", "refused");
    run.expect("nobody-listed", "holds", "as-expected", "refused");
    run.expect_code(1);
}

#[test]
fn who_answers_tcp_for_everybody_refuses_no_transfer() {
    let Some(lab) = Lab::new() else { return };
    let _nsd = nsd(&lab);
    let second = format!("source = \"{SECOND4}\"");
    let body = given("soa", "corp.test", NSD, "record = \"SOA\"")
        + &given("soa2", "corp.test", NSD, &format!("record = \"SOA\"\n{second}"))
        + &hidden("axfr", "corp.test", NSD, &["soa"], "record = \"AXFR\"")
        + &hidden("axfr2", "corp.test", NSD, &["soa2"], &format!("record = \"AXFR\"\n{second}"));
    lab.interceptor();
    lab.lure(&["tcp dport 53 redirect to :9999"]);
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    // The refusal may be the interceptor's, or be meant for its address.
    run.expect("axfr", "unproven", "intercepted", "local-error");
    run.expect("axfr2", "unproven", "intercepted", "local-error");
    run.expect("soa", "holds", "as-expected", "resolved");
    run.expect_code(3);
}

#[test]
fn what_is_no_answer_hides_nothing() {
    let Some(lab) = Lab::new() else { return };
    lab.internet(&[
        "iifname str udp dport 5498 drop",
        "iifname str udp dport 5497 reject with icmpx type admin-prohibited",
        "iifname str udp dport 5496 reject with icmpx type host-unreachable",
        "iifname str tcp dport 5495 reject with tcp reset",
    ]);
    lab.own_firewall(&["udp dport 5494 drop"]);
    // (steps, port, verdict for an inverted check, outcome)
    let cases: &[(&str, &str, &str)] = &[
        ("nx", "holds", "nxdomain"),
        ("empty", "holds", "no-data"),
        ("refused", "holds", "dns-refused"),
        ("wrong-id+nx", "holds", "nxdomain"),
        ("old", "violated", "resolved"),
        ("answer", "violated", "resolved"),
        ("alias", "violated", "resolved"),
        ("alias-nx", "violated", "mismatch"),
        ("cut", "violated", "resolved"),
        ("wrong-id", "unproven", "timeout"),
        ("wrong-question", "unproven", "timeout"),
        ("elsewhere", "unproven", "timeout"),
        ("silent", "unproven", "timeout"),
        ("servfail", "unproven", "servfail"),
        ("formerr", "unproven", "servfail"),
        ("notimp", "unproven", "servfail"),
        ("notauth", "unproven", "servfail"),
        ("badvers", "unproven", "servfail"),
        ("referral", "unproven", "servfail"),
        ("bare", "unproven", "servfail"),
        ("broken", "unproven", "servfail"),
        ("cut-only", "unproven", "servfail"),
    ];
    let mut servers = Vec::new();
    let mut body = out();
    let at = |port: u16| format!("{WITNESS4}:{port}");
    for ((steps, ..), port) in cases.iter().zip(5400..) {
        servers.push(liar(&lab, port, &[steps]));
        body += &hidden(&format!("c-{}", steps.replace('+', "-")), "name.corp.test", &at(port), &["out"], "record = \"A\"");
    }
    for (port, name) in [(5499, "nobody"), (5498, "dropped"), (5497, "prohibited"), (5496, "unreachable"), (5494, "own")] {
        body += &hidden(name, "name.corp.test", &at(port), &["out"], "record = \"A\"");
    }
    servers.push(liar(&lab, 5495, &["cut"]));
    body += &hidden("cut-reset", "name.corp.test", &at(5495), &["out"], "record = \"A\"");
    body +=
        &hidden("listed", "name.corp.test", &at(5499), &["out"], "record = \"A\"").replace("\"blocked\"", "[\"nxdomain\", \"refused\"]");
    body += &given("open-nobody", "name.corp.test", &at(5499), "witness = [\"out\"]");
    body += &given("open-dropped", "name.corp.test", &at(5498), "witness = [\"out\"]");
    // The real server by IPv6, and a port of its host where nobody is.
    let six = |port: u16| format!("[{WITNESS6}]:{port}");
    body += &given("six", "witness.lab.test", &six(53), "record = \"AAAA\"\nanswers = \"fd00:20::/64\"");
    body += &hidden("six-hidden", "nothing.lab.test", &six(53), &["six"], "");
    body += &hidden("six-nobody", "nothing.lab.test", &six(5999), &["six"], "record = \"A\"");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("six", "holds", "as-expected", "resolved");
    run.expect("six-hidden", "holds", "as-expected", "nxdomain");
    run.expect("six-nobody", "unproven", "other-denial", "refused");
    for (steps, verdict, outcome) in cases {
        let cause = match *verdict {
            "holds" => "as-expected",
            "violated" => "open",
            _ => "other-denial",
        };
        run.expect(&format!("c-{}", steps.replace('+', "-")), verdict, cause, outcome);
    }
    run.expect("nobody", "unproven", "other-denial", "refused");
    run.expect("dropped", "unproven", "other-denial", "timeout");
    run.expect("prohibited", "unproven", "other-denial", "prohibited");
    run.expect("unreachable", "unproven", "other-denial", "unreachable");
    run.expect("own", "unproven", "local", "local-error");
    run.expect("cut-reset", "unproven", "other-denial", "servfail");
    run.expect("listed", "holds", "as-expected", "refused");
    run.expect("open-nobody", "violated", "not-open", "refused");
    run.expect("open-dropped", "unproven", "not-open", "timeout");
    run.expect_code(1);
    let dropped = &observed(run.check("dropped"))[0];
    assert!(dropped["evidence"]["dns"]["queries_sent"].as_u64().unwrap() >= 3, "{dropped:#}");
    let spoofed = &observed(run.check("c-wrong-id-nx"))[0];
    assert_eq!(spoofed["evidence"]["dns"]["answers_ignored"], 1, "{spoofed:#}");
    assert_eq!(observed(run.check("c-old"))[0]["evidence"]["dns"]["queries_sent"], 2, "asked again without EDNS");
}

#[test]
fn a_block_must_be_said_every_time_and_by_every_server() {
    let Some(lab) = Lab::new() else { return };
    let _servers = [
        liar(&lab, 5400, &["nx", "nx", "answer"]),
        liar(&lab, 5401, &["nx", "servfail", "nx"]),
        liar(&lab, 5402, &["nx"]),
        liar(&lab, 5403, &["answer"]),
        // As a resolver: once to find it, then three times as the observation.
        liar(&lab, 5404, &["nx", "nx", "nx", "answer"]),
        liar(&lab, 5405, &["nx"]),
        liar(&lab, 5406, &["nx", "nx", "servfail"]),
    ];
    lab.acl_with(&["ip daddr 203.0.113.7 tcp dport 443 accept"], Denial::Drop);
    let at = |port: u16| format!("{WITNESS4}:{port}");
    let tcp = |name: &str, port: u16| {
        let rest = format!("expect = [\"nxdomain\", \"timeout\"]\nfamilies = [\"ipv4\"]\nwitness = [\"out\"]\nresolver = \"{}\"", at(port));
        check(name, "tcp", "name.corp.test:443", &rest)
    };
    let body = out()
        + &hidden("flaps", "name.corp.test", &at(5400), &["out"], "record = \"A\"")
        + &hidden("fails-once", "name.corp.test", &at(5401), &["out"], "record = \"A\"")
        + &check(
            "one-leaks",
            "dns",
            "name.corp.test",
            &format!("expect = \"blocked\"\nserver = [\"{}\", \"{}\"]\nrecord = \"A\"\nwitness = [\"out\"]", at(5402), at(5403)),
        )
        // A server that denies every name: the witness shows it, and another server's answer does not make up for it.
        + &given("exists", "exists.corp.test", &at(5402), "")
        + &hidden("denies-all", "name.corp.test", &at(5402), &["exists"], "record = \"A\"")
        + &check("either", "dns", "exists.corp.test", &format!("expect = \"open\"\nserver = [\"{}\", \"{}\"]", at(5402), at(5403)))
        + &hidden("denies-all-either", "name.corp.test", &at(5402), &["either"], "record = \"A\"")
        + &tcp("name-flaps", 5404)
        + &tcp("name-hidden", 5405)
        + &tcp("name-fails-once", 5406);
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("flaps", "violated", "open", "resolved");
    run.expect("fails-once", "unproven", "other-denial", "nxdomain|servfail");
    run.expect("one-leaks", "violated", "open", "resolved");
    run.expect("exists", "violated", "not-open", "nxdomain");
    run.expect("denies-all", "unproven", "witness-failed", "nxdomain");
    run.expect("denies-all-either", "unproven", "witness-failed", "nxdomain");
    run.expect("name-flaps", "violated", "open", "connected");
    run.expect("name-hidden", "holds", "as-expected", "nxdomain");
    run.expect("name-fails-once", "unproven", "resolve", "resolve-error");
    assert_eq!(observed(run.check("name-hidden"))[0]["attempts"], 3);
    assert_eq!(run.observation("one-leaks", &at(5402))["verdict"], "holds");
    run.expect_code(1);
}

#[test]
fn the_systems_servers_and_a_stub_on_this_host() {
    let Some(lab) = Lab::new() else { return };
    let system = |name: &str, target: &str, rest: &str| check(name, "dns", target, rest);
    let body = system("known", "witness.lab.test", "expect = \"open\"")
        + &out()
        + &system("hidden", "nothing.lab.test", "expect = \"blocked\"\nwitness = [\"known\", \"out\"]");
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("known", "holds", "as-expected", "resolved");
    run.expect("hidden", "holds", "as-expected", "nxdomain");
    run.expect_code(0);

    // A stub on loopback, as many systems have it: what it says is this host's own word, and a witness outside stands by it.
    let text = format!(
        "server:\n  interface: 127.0.0.53\n  access-control: 127.0.0.0/8 allow\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  so-rcvbuf: 0\n  \
         module-config: \"iterator\"\n  do-not-query-localhost: no\n  local-zone: \"test.\" nodefault\n  local-zone: \"witness.\" static\nforward-zone:\n  name: \".\"\n  forward-addr: {WITNESS4}\nremote-control:\n  control-enable: no\n"
    );
    fs::write(lab.dir().join("stub.conf"), text).unwrap();
    let hub = lab.hub(Host::Stranger);
    let _stub = started(&lab, Host::Stranger, "stub", &["unbound", "-d", "-c", "stub.conf"], || {
        hub.query("127.0.0.53", 53, "witness.lab.test", "A").0 == 0
    });
    lab.resolv_conf(Host::Stranger, "nameserver 127.0.0.53\noptions edns0\nsearch lab.test\n");
    let stub = body.clone()
        + &system("by-stub", "nothing.lab.test", "expect = \"blocked\"\nwitness = [\"known\"]")
        // The search list is for people: a name is asked for as it stands.
        + &system("short", "witness", "expect = \"blocked\"\nwitness = [\"known\"]\nrecord = \"A\"")
        + &check("searched", "tcp", "witness:443", "expect = \"open\"")
        + &check("rooted", "tcp", "witness.:443", "expect = \"open\"")
        + &check("rooted-url", "http", "http://witness.:80/", "expect = \"open\"")
        + &check("tcp", "tcp", &format!("{ADMIN4}:443"), "expect = \"blocked\"\nwitness = [\"known\"]");
    let run = gate(&lab, Host::Stranger, &config("stranger", &stub));
    run.expect("known", "holds", "as-expected", "resolved");
    run.expect("hidden", "holds", "as-expected", "nxdomain");
    run.expect("by-stub", "holds", "as-expected", "nxdomain");
    run.expect("short", "holds", "as-expected", "nxdomain");
    run.expect("searched", "holds", "as-expected", "connected");
    for name in ["rooted", "rooted-url"] {
        run.expect(name, "unproven", "resolve", "resolve-error");
    }
    // A stub on this very host answers from memory, and says nothing of the way out.
    run.expect("tcp", "unproven", "no-witness", "timeout");
    assert_eq!(observed(run.check("hidden"))[0]["address"], "127.0.0.53:53");

    for (file, why) in [("search lab.test\n", "names nobody to ask"), ("nameserver fd00:20::20\n", "names no server of these families")] {
        lab.resolv_conf(Host::Stranger, file);
        let four = body.replace("expect = \"blocked\"", "expect = \"blocked\"\nfamilies = [\"ipv4\"]");
        let run = gate(&lab, Host::Stranger, &config("stranger", &four));
        run.expect("hidden", "unproven", "local|witness-failed", "local-error");
        assert!(run.check("hidden")["reason"].as_str().unwrap().contains(why), "{:#}", run.check("hidden"));
        assert_ne!(run.code, 0);
    }
}

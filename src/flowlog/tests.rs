//! Lines as the logs have them, against attempts that are and are not what they are about.

use proptest::prelude::*;

use super::*;
use crate::clock::Wall;
use crate::defence::{By, Log, Place, Sighting, Way, Word};
use crate::observation::Transport;

/// 2026-01-02T03:04:05Z.
const T: i64 = 1_767_323_045;
const NONCE: &str = "0123456789abcdef0123456789abcdef";

fn wall(millis: i64) -> Wall {
    Wall::from_unix_millis(millis).unwrap()
}

fn shot(local: &str, remote: &str) -> Shot {
    Shot {
        protocol: Transport::Tcp,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        started: wall(T * 1000),
        ended: wall(T * 1000 + 5_000),
        nonce: Some(NONCE.into()),
    }
}

fn index(settings: Settings, shots: Vec<Shot>) -> Index<usize> {
    let mut index = Index::new(settings);
    for (whose, shot) in shots.into_iter().enumerate() {
        index.push(shot, whose);
    }
    index
}

fn read(index: &Index<usize>, text: &str) -> (Vec<(usize, Sighting)>, Counts) {
    let (mut lines, mut found) = (Lines::default(), Vec::new());
    text.lines().for_each(|line| lines.read(line.as_bytes(), index, &mut |whose, sighting| found.push((whose, sighting))));
    (found, lines.counts)
}

fn ours() -> Index<usize> {
    index(Settings::default(), vec![shot("198.51.100.9:41234", "10.0.1.7:443")])
}

fn flow(source: &str, destination: &str, ports: &str, start: i64, end: i64, action: &str) -> String {
    format!("2 123456789010 eni-0a1b {source} {destination} {ports} 6 3 180 {start} {end} {action} OK")
}

#[test]
fn a_record_of_the_very_attempt_is_found() {
    let line = flow("198.51.100.9", "10.0.1.7", "41234 443", T, T + 5, "REJECT");
    let (found, counts) = read(&ours(), &line);
    let [(0, one)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (one.log, one.word, one.way, one.place, one.matched_by),
        (Log::VpcFlowLog, Word::Rejected, Way::There, Place::Incoming, By::FiveTuple)
    );
    assert_eq!((one.action.as_str(), one.at.as_deref(), one.packets), ("REJECT", Some("eni-0a1b"), Some(3)));
    assert_eq!((one.first, one.last), (wall(T * 1000), wall((T + 5) * 1000)));
    assert_eq!(counts, Counts { lines: 1, flows: 1, matched: 1, ..Counts::default() });
    // The answer, at the target's interface or at ours.
    let (found, _) = read(&ours(), &flow("10.0.1.7", "198.51.100.9", "443 41234", T, T + 5, "ACCEPT"));
    assert_eq!((found[0].1.way, found[0].1.word), (Way::Back, Word::LetIn));
}

#[test]
fn what_is_about_somebody_else_is_not() {
    for other in [
        flow("198.51.100.8", "10.0.1.7", "41234 443", T, T + 5, "REJECT"),
        flow("198.51.100.9", "10.0.1.8", "41234 443", T, T + 5, "REJECT"),
        flow("198.51.100.9", "10.0.1.7", "41235 443", T, T + 5, "REJECT"),
        flow("198.51.100.9", "10.0.1.7", "41234 444", T, T + 5, "REJECT"),
        flow("198.51.100.9", "10.0.1.7", "443 41234", T, T + 5, "REJECT"),
        flow("198.51.100.9", "10.0.1.7", "41234 443", T, T + 5, "REJECT").replace(" 6 3 ", " 17 3 "),
        flow("198.51.100.9", "10.0.1.7", "41234 443", T, T + 5, "REJECT").replace("OK", "SKIPDATA"),
    ] {
        let (found, counts) = read(&ours(), &other);
        assert!(found.is_empty() && counts.matched == 0 && counts.unreadable == 0, "{other}: {found:?} {counts:?}");
    }
}

/// Both sides of the window: AWS may write a packet down as up to a minute later than it came, and clocks differ by so much.
#[test]
fn the_time_is_part_of_what_it_is_known_by() {
    let skew = 5;
    let found = |start: i64, end: i64| !read(&ours(), &flow("198.51.100.9", "10.0.1.7", "41234 443", start, end, "REJECT")).0.is_empty();
    // The attempt was from T to T + 5.
    assert!(found(T, T + 5) && found(T - 600, T) && found(T + 5, T + 600));
    assert!(found(T + 5 + 60 + skew, T + 700) && !found(T + 5 + 60 + skew + 1, T + 700));
    assert!(found(T - 600, T - skew) && !found(T - 600, T - skew - 1));
    let none = Settings { clock_skew: Duration::ZERO, ..Settings::default() };
    let exact = index(none, vec![shot("198.51.100.9:41234", "10.0.1.7:443")]);
    let found = |start: i64, end: i64| !read(&exact, &flow("198.51.100.9", "10.0.1.7", "41234 443", start, end, "REJECT")).0.is_empty();
    assert!(found(T - 600, T) && !found(T - 600, T - 1) && found(T + 65, T + 70) && !found(T + 66, T + 70));
}

/// The same port again within the aggregation interval: nobody can tell which of the two is meant, so neither is.
#[test]
fn what_may_be_about_two_attempts_is_about_none() {
    let later = Shot { started: wall((T + 20) * 1000), ended: wall((T + 25) * 1000), ..shot("198.51.100.9:41234", "10.0.1.7:443") };
    let both = index(Settings::default(), vec![shot("198.51.100.9:41234", "10.0.1.7:443"), later]);
    let (found, counts) = read(&both, &flow("198.51.100.9", "10.0.1.7", "41234 443", T, T + 25, "REJECT"));
    assert!(found.is_empty() && counts.ambiguous == 1, "{found:?}");
    let (found, _) = read(&both, &flow("198.51.100.9", "10.0.1.7", "41234 443", T - 60, T + 2, "REJECT"));
    assert_eq!(found.iter().map(|(whose, _)| *whose).collect::<Vec<_>>(), [0]);
}

#[test]
fn only_what_was_done_to_the_syn_counts() {
    let format = "srcaddr dstaddr srcport dstport protocol start end action tcp-flags flow-direction interface-id";
    let line = |action: &str, flags: u16, direction: &str| {
        format!("{format}\n198.51.100.9 10.0.1.7 41234 443 6 {T} {} {action} {flags} {direction} eni-0a1b", T + 5)
    };
    // SYN; SYN and FIN; all that may be together; then what is no SYN at all: data, FIN, RST.
    for (flags, counts) in [(2, true), (3, true), (7, true), (0, false), (1, false), (4, false)] {
        let (found, _) = read(&ours(), &line("REJECT", flags, "ingress"));
        assert_eq!(!found.is_empty(), counts, "{flags}");
    }
    assert_eq!(read(&ours(), &line("ACCEPT", 2, "ingress")).0[0].1.place, Place::Incoming);
    assert_eq!(read(&ours(), &line("ACCEPT", 2, "egress")).0[0].1.place, Place::Outgoing);
}

/// Where it was written decides whether an ACCEPT is an alarm.
#[test]
fn whose_interface_it_is() {
    let place = |own: Option<&[&str]>, local: &str, line: &str| {
        let own_interfaces = own.map(|all| all.iter().map(ToString::to_string).collect());
        let index = index(Settings { own_interfaces, ..Settings::default() }, vec![shot(local, "10.0.1.7:443")]);
        read(&index, line).0[0].1.place
    };
    let outside = flow("198.51.100.9", "10.0.1.7", "41234 443", T, T + 5, "ACCEPT");
    assert_eq!(place(None, "198.51.100.9:41234", &outside), Place::Incoming, "an interface's own address is never a public one");
    let pod = flow("198.19.0.5", "10.0.1.7", "41234 443", T, T + 5, "ACCEPT");
    assert_eq!(place(None, "198.19.0.5:41234", &pod), Place::Unknown, "a pod's own");
    let inside = flow("10.0.0.5", "10.0.1.7", "41234 443", T, T + 5, "ACCEPT");
    assert_eq!(place(None, "10.0.0.5:41234", &inside), Place::Unknown, "it may be our own");
    assert_eq!(place(Some(&["eni-0a1b"]), "10.0.0.5:41234", &inside), Place::Outgoing);
    assert_eq!(place(Some(&["eni-0ffff"]), "10.0.0.5:41234", &inside), Place::Incoming);
    assert_eq!(place(Some(&[]), "10.0.0.5:41234", &inside), Place::Incoming);
    // What does not say of which interface it is may be of our own.
    let bare = format!("srcaddr dstaddr srcport dstport protocol start end action\n10.0.0.5 10.0.1.7 41234 443 6 {T} {} ACCEPT", T + 5);
    assert_eq!(place(Some(&["eni-0ffff"]), "10.0.0.5:41234", &bare), Place::Unknown);
    assert_eq!(place(Some(&[]), "10.0.0.5:41234", &bare), Place::Incoming);
    // An answer leaves the target's interface, and comes in at ours.
    let answer = flow("10.0.1.7", "10.0.0.5", "443 41234", T, T + 5, "REJECT");
    assert_eq!(place(Some(&["eni-0a1b"]), "10.0.0.5:41234", &answer), Place::Incoming);
    assert_eq!(place(Some(&["eni-0ffff"]), "10.0.0.5:41234", &answer), Place::Outgoing);
    // A NAT gateway on the way: the interface's address is its own, the packet's is the target's.
    let nat = format!(
        "interface-id srcaddr dstaddr pkt-srcaddr pkt-dstaddr srcport dstport protocol start end action flow-direction\n\
         eni-0aaa 10.0.0.5 10.0.0.220 10.0.0.5 10.0.1.7 41234 443 6 {T} {} ACCEPT ingress",
        T + 5
    );
    assert_eq!(place(None, "10.0.0.5:41234", &nat), Place::Outgoing);
}

#[test]
fn addresses_that_stand_for_others() {
    let ip = |text: &str| text.parse().unwrap();
    let translated =
        vec![(ip("203.0.113.7"), ip("10.0.1.7")), (ip("203.0.113.7"), ip("10.0.2.7")), (ip("192.168.0.5"), ip("198.51.100.9"))];
    let settings = Settings { translated, ..Settings::default() };
    let index = index(settings, vec![shot("192.168.0.5:41234", "203.0.113.7:443")]);
    for (source, destination, translated) in [
        ("198.51.100.9", "10.0.1.7", true),
        ("198.51.100.9", "10.0.2.7", true),
        ("192.168.0.5", "10.0.2.7", true),
        ("192.168.0.5", "203.0.113.7", false),
        ("::ffff:192.168.0.5", "::ffff:203.0.113.7", false),
    ] {
        let (found, _) = read(&index, &flow(source, destination, "41234 443", T, T + 5, "REJECT"));
        assert_eq!(found.first().map(|(_, one)| one.translated), Some(translated), "{source} {destination}");
    }
    assert!(read(&index, &flow("198.51.100.9", "10.0.3.7", "41234 443", T, T + 5, "REJECT")).0.is_empty());
}

#[test]
fn a_header_holds_for_its_file_and_a_given_format_where_there_is_none() {
    let bare = format!("REJECT 10.0.1.7 198.51.100.9 443 41234 6 {T} {}", T + 5);
    assert_eq!(read(&ours(), &bare).1.unreadable, 1);
    let header = "action dstaddr srcaddr dstport srcport protocol start end";
    assert_eq!(read(&ours(), &format!("{header}\n{bare}\n{header}\n{bare}")).0.len(), 2);
    let settings = Settings { format: Some(Format::parse(header).unwrap()), ..Settings::default() };
    let given = index(settings, vec![shot("198.51.100.9:41234", "10.0.1.7:443")]);
    assert_eq!(read(&given, &bare).0.len(), 1);
    let (found, counts) = read(&ours(), &format!("version account-id srcaddr action\n{bare}"));
    assert!(found.is_empty() && counts.unusable == 1, "{counts:?}");
}

/// As CloudWatch and Firehose wrap it.
#[test]
fn events_have_lines_in_them() {
    let line = flow("198.51.100.9", "10.0.1.7", "41234 443", T, T + 5, "REJECT");
    let event = format!("{{\"id\":\"1\",\"timestamp\":{}, \"message\": \"{line}\" }}", T * 1000);
    let batch = format!("{{\"messageType\":\"DATA_MESSAGE\",\"owner\":\"1\",\"logGroup\":\"flow\",\"logEvents\":[{event},{event}]}}");
    let pretty =
        serde_json::to_string_pretty(&serde_json::json!({ "events": [{ "logStreamName": "eni-0a1b-all", "message": line }] })).unwrap();
    for (text, times) in [
        (format!("2026-01-02T03:04:05.000Z {line}"), 1),
        (event.clone(), 1),
        (batch.clone(), 2),
        (format!("{batch}{batch}"), 4),
        (format!("{{\"events\":[{event}],\"nextToken\":\"x\"}}"), 1),
        (pretty, 1),
        (format!("{{\"message\":{}}}", serde_json::to_string(&event).unwrap()), 1),
    ] {
        let (found, counts) = read(&ours(), &text);
        assert_eq!((found.len(), counts.unreadable), (times, 0), "{text}");
    }
    // Boxes in boxes have a bottom.
    let deep = (0..6).fold(line, |inner, _| serde_json::json!({ "message": inner }).to_string());
    assert_eq!(read(&ours(), &deep).0.len(), 0);
}

fn waf(action: &str, user_agent: &str, at: i64) -> String {
    serde_json::json!({
        "timestamp": at, "formatVersion": 1, "webaclId": "arn:aws:wafv2:eu-central-1:123456789010:regional/webacl/admin/1",
        "terminatingRuleId": "only-the-office", "terminatingRuleType": "REGULAR", "action": action, "terminatingRuleMatchDetails": [],
        "httpSourceName": "ALB", "httpSourceId": "123456789010-app/admin/1", "ruleGroupList": [], "rateBasedRuleList": [], "nonTerminatingMatchingRules": [],
        "httpRequest": { "clientIp": "198.51.100.9", "country": "DE", "uri": "/", "args": "", "httpVersion": "HTTP/1.1", "httpMethod": "GET",
            "headers": [ { "name": "Host", "value": "admin.example.com" }, { "name": "User-Agent", "value": user_agent } ], "requestId": "1-65" },
        "labels": []
    })
    .to_string()
}

#[test]
fn a_wafs_line_is_known_by_the_nonce() {
    let agent = format!("mustnot/0.1.0 (probe {NONCE})");
    for (action, word) in [
        ("BLOCK", Word::Rejected),
        ("CAPTCHA", Word::Rejected),
        ("CHALLENGE", Word::Rejected),
        ("ALLOW", Word::LetIn),
        ("COUNT", Word::Neither),
    ] {
        let (found, counts) = read(&ours(), &waf(action, &agent, T * 1000 + 200));
        let [(0, one)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((one.log, one.word, one.matched_by, one.at.as_deref()), (Log::Waf, word, By::Nonce, Some("only-the-office")));
        assert_eq!((counts.waf, counts.matched), (1, 1));
    }
    // A nonce of nobody, none at all, and ours at another time.
    for (agent, at) in [
        ("mustnot/0.1.0 (probe ffffffffffffffffffffffffffffffff)", T),
        ("curl/8.0", T),
        (agent.as_str(), T - 6),
        // Somebody who has read the nonce meanwhile, and is blocked on purpose.
        (agent.as_str(), T + 11),
        (agent.as_str(), T + 86_400),
    ] {
        let (found, counts) = read(&ours(), &waf("BLOCK", agent, at * 1000));
        assert!(found.is_empty() && counts.waf == 1, "{found:?}");
    }
    assert_eq!(read(&ours(), &waf("BLOCK", &agent, (T + 10) * 1000)).0.len(), 1);
    assert_eq!(read(&ours(), &format!("{{\"httpRequest\":{{\"x\":\"{NONCE}\"}},\"action\":7")).1.unreadable, 1);
}

#[test]
fn access_logs_in_every_form() {
    let agent = format!("mustnot/0.1.0 (probe {NONCE})");
    // A beacon's nonce is longer, and known by its beginning.
    let url = format!("http://192.0.2.80/{NONCE}{}", "0".repeat(80));
    let time = format!("{T}.250");
    let further = "port=41234 peer=10.0.0.9:50000 dialled=- sent=0 received=120 duration=0.250 event=decision decision=deny reason=source";
    for (line, log, action, word, by) in [
        (
            format!("{time}    250 198.51.100.9 TCP_DENIED/403 3900 GET {url} - HIER_NONE/- text/html"),
            Log::Squid,
            "TCP_DENIED/403",
            Word::Rejected,
            By::Nonce,
        ),
        (
            format!("{time}    250 198.51.100.9 TCP_MISS/200 120 GET {url} - HIER_DIRECT/192.0.2.80 -"),
            Log::Squid,
            "TCP_MISS/200",
            Word::LetIn,
            By::Nonce,
        ),
        (
            format!("{time}    250 198.51.100.9 TCP_MISS/503 120 GET {url} - HIER_NONE/- -"),
            Log::Squid,
            "TCP_MISS/503",
            Word::LetIn,
            By::Nonce,
        ),
        (
            format!("{time}    250 198.51.100.9 TCP_DENIED_REPLY/403 120 GET {url} - HIER_NONE/- -"),
            Log::Squid,
            "TCP_DENIED_REPLY/403",
            Word::LetIn,
            By::Nonce,
        ),
        (
            format!("{time}      0 198.51.100.9 NONE_NONE/400 120 GET /{NONCE} - HIER_NONE/- -"),
            Log::Squid,
            "NONE_NONE/400",
            Word::Neither,
            By::Nonce,
        ),
        (
            format!(
                "198.51.100.9 - - [02/Jan/2026:03:04:05 +0000] \"CONNECT 192.0.2.80:443 HTTP/1.1\" 403 3900 \"-\" \"{agent}\" TCP_DENIED:HIER_NONE"
            ),
            Log::Squid,
            "TCP_DENIED",
            Word::Rejected,
            By::Nonce,
        ),
        (
            format!(
                "198.51.100.9 - - [02/Jan/2026:04:04:05 +0100] \"CONNECT 192.0.2.80:443 HTTP/1.1\" 200 39 \"-\" \"{agent}\" TCP_TUNNEL:HIER_DIRECT"
            ),
            Log::Squid,
            "TCP_TUNNEL",
            Word::LetIn,
            By::Nonce,
        ),
        (
            format!("{time}    250 198.51.100.9 TCP_DENIED_REPLY_ABORTED/403 120 GET {url} - HIER_NONE/- -"),
            Log::Squid,
            "TCP_DENIED_REPLY_ABORTED/403",
            Word::LetIn,
            By::Nonce,
        ),
        // Outside quotes Squid writes a blank as RFC 1738 does.
        (
            format!("{time}    250 198.51.100.9 TCP_DENIED/403 120 GET http://a/ mustnot/0.1.0%20(probe%20{NONCE}) HIER_NONE/- -"),
            Log::Squid,
            "TCP_DENIED/403",
            Word::Rejected,
            By::Nonce,
        ),
        // What a client says of itself is no word of the proxy's.
        (
            format!(
                "198.51.100.9 - - [02/Jan/2026:03:04:05 +0000] \"CONNECT 192.0.2.80:443 HTTP/1.1\" 200 39 \"-\" \"{agent} \\\" TCP_DENIED:x\" TCP_TUNNEL:HIER_DIRECT"
            ),
            Log::Squid,
            "TCP_TUNNEL",
            Word::LetIn,
            By::Nonce,
        ),
        (
            format!("{time} 198.51.100.9 TCP_TUNNEL/200 CONNECT 192.0.2.80:443 - 0 39 0 \"{agent} decision=deny reason=source\" -/-"),
            Log::Squid,
            "TCP_TUNNEL/200",
            Word::LetIn,
            By::Nonce,
        ),
        // As deploy/squid writes it.
        (
            format!("{time} 198.51.100.9 TCP_DENIED/403 CONNECT 192.0.2.80:443 - 0 3900 0 \"{agent}\" ERR_ACCESS_DENIED/-"),
            Log::Squid,
            "TCP_DENIED/403",
            Word::Rejected,
            By::Nonce,
        ),
        // The embedded proxy, which knows our port, and denies before it has read a header.
        (
            format!("{time}    250 198.51.100.9 TCP_DENIED/403 120 - - - HIER_NONE/- - \"-\" {further}"),
            Log::Proxy,
            "deny",
            Word::Rejected,
            By::Client,
        ),
        (
            format!("198.51.100.9 - - [02/Jan/2026:03:04:05 +0000] \"- - HTTP/1.1\" 403 120 \"-\" \"-\" {further}"),
            Log::Proxy,
            "deny",
            Word::Rejected,
            By::Client,
        ),
        (
            "{\"time\":\"2026-01-02T03:04:05.250Z\",\"event\":\"decision\",\"client\":\"198.51.100.9:41234\",\"peer\":\"198.51.100.9:41234\",\"user_agent\":\"\",\"method\":\"\",\
                      \"destination\":\"\",\"dialled\":null,\"bytes_sent\":0,\"bytes_received\":120,\"duration_ms\":250,\"status\":403,\"decision\":\"deny\",\"reason\":\"source\"}".to_string(),
            Log::Proxy,
            "deny/403",
            Word::Rejected,
            By::Client,
        ),
        (
            format!(
                "{time}    250 198.51.100.9 TCP_DENIED/400 120 - - - HIER_NONE/- - \"-\" {}",
                further.replace("reason=source", "reason=parse")
            ),
            Log::Proxy,
            "deny",
            Word::Neither,
            By::Client,
        ),
        (
            format!(
                "{time}    250 198.51.100.9 TCP_TUNNEL/200 120 CONNECT a:443 - HIER_DIRECT/192.0.2.80 - \"{agent}\" {}",
                further.replace("port=41234", "port=9").replace("deny reason=source", "allow reason=closed")
            ),
            Log::Proxy,
            "allow",
            Word::LetIn,
            By::Nonce,
        ),
    ] {
        let (found, counts) = read(&ours(), &line);
        let [(0, one)] = found.as_slice() else { panic!("{line}: {found:?} {counts:?}") };
        assert_eq!((one.log, one.action.as_str(), one.word, one.matched_by), (log, action, word, by), "{line}");
        assert_eq!((counts.access, counts.unreadable), (1, 0), "{line}");
    }
    for line in [
        // Without our nonce or port it is about whoever has that address, or another.
        format!("{time}    250 198.51.100.9 TCP_DENIED/403 3900 CONNECT 192.0.2.80:443 - HIER_NONE/- text/html"),
        format!("{time}    250 198.51.100.9 TCP_DENIED/403 120 - - - HIER_NONE/- - \"-\" {}", further.replace("port=41234", "port=41235")),
        format!("{time}    250 198.51.100.8 TCP_DENIED/403 120 - - - HIER_NONE/- - \"-\" {further}"),
        // Another's, that says it were ours.
        format!(
            "{time}    250 198.51.100.9 TCP_TUNNEL/200 120 CONNECT a:443 - HIER_DIRECT/192.0.2.80 - \"x decision=deny reason=source port=41234\" {}",
            further.replace("port=41234", "port=9").replace("deny reason=source", "allow reason=closed")
        ),
        // A refusal is written at once.
        format!("{}.000      0 198.51.100.9 TCP_DENIED/403 120 GET {url} - HIER_NONE/- -", T + 65),
        // Ours, long before.
        format!("{}.250    250 198.51.100.9 TCP_DENIED/403 120 - - - HIER_NONE/- - \"-\" {further}", T - 60),
        format!("{}.250    250 198.51.100.9 TCP_DENIED/403 3900 GET {url} - HIER_NONE/- text/html", T - 6),
    ] {
        let (found, counts) = read(&ours(), &line);
        assert!(found.is_empty() && counts.access == 1, "{line}: {found:?}");
    }
    // A tunnel that was dialled for long after we had left.
    let late = format!("{}.000  60000 198.51.100.9 TCP_MISS/503 120 GET {url} - HIER_NONE/- -", T + 65);
    assert_eq!(read(&ours(), &late).0.len(), 1);
    let late = format!("{}.000      0 198.51.100.9 TCP_MISS/503 120 GET {url} - HIER_NONE/- -", T + 65);
    assert_eq!(read(&ours(), &late).0.len(), 1);
}

/// A witness gets through: whatever lets it in does what it must, also where an attempt before got no answer.
#[test]
fn what_must_get_through_is_contradicted_by_nobody() {
    for (outcomes, alarm) in [(["timeout", "timeout"], true), (["timeout", "connected"], false), (["status:200", "status:200"], false)] {
        let flow = |outcome| serde_json::json!({ "protocol": "tcp", "local": "198.51.100.9:41234", "remote": "10.0.1.7:443", "outcome": outcome, "started_at": wall(T * 1000), "ended_at": wall(T * 1000) });
        let seen = serde_json::json!({ "address": "10.0.1.7:443", "verdict": "holds", "flows": outcomes.map(flow) });
        let check = serde_json::json!({ "name": "c", "target": "10.0.1.7:443", "expect": "blocked", "observations": [seen] });
        let report = serde_json::json!({ "checks": [check] }).to_string();
        let mut index = Index::new(Settings::default());
        let (mut report, _) = join::Report::read(report.as_bytes(), &mut index).unwrap();
        let (found, _) = read(&ours(), &flow_line_of_ours());
        let sighting = Sighting { log: if outcomes[0] == "timeout" { Log::VpcFlowLog } else { Log::Waf }, ..found[0].1.clone() };
        assert!(report.join(join::Whose { run: 0, observation: 0, attempt: 0 }, sighting));
        assert_eq!(report.finish().1[0].alarm.is_some(), alarm, "{outcomes:?}");
    }
}

/// What one log says joins what another has said before, whichever came first.
#[test]
fn a_report_with_what_logs_say_is_read_on() {
    let sighting = |action: &str| read(&ours(), &flow("198.51.100.9", "10.0.1.7", "41234 443", T, T + 5, action)).0[0].1.clone();
    let attempt = serde_json::json!({ "protocol": "tcp", "local": "198.51.100.9:41234", "remote": "10.0.1.7:443", "outcome": "timeout", "started_at": wall(T * 1000), "ended_at": wall(T * 1000) });
    let seen = serde_json::json!({ "address": "10.0.1.7:443", "verdict": "holds", "flows": [attempt] });
    let mut text =
        serde_json::json!({ "checks": [{ "name": "c", "target": "10.0.1.7:443", "expect": "blocked", "observations": [seen] }] })
            .to_string();
    for (action, contradicted) in [("ACCEPT", true), ("REJECT", false)] {
        let mut report = join::Report::read(text.as_bytes(), &mut Index::new(Settings::default())).unwrap().0;
        assert!(report.join(join::Whose { run: 0, observation: 0, attempt: 0 }, sighting(action)));
        let (value, told) = report.finish();
        assert_eq!((told[0].alarm.is_some(), value["checks"][0].get("contradicted").is_some()), (contradicted, contradicted), "{action}");
        text = value.to_string();
    }
    assert!(text.contains("ACCEPT") && text.contains("REJECT"), "{text}");
}

fn flow_line_of_ours() -> String {
    flow("198.51.100.9", "10.0.1.7", "41234 443", T, T + 5, "ACCEPT")
}

#[test]
fn echoes_have_no_port_to_be_known_by() {
    let ping = Shot { protocol: Transport::Icmp, ..shot("198.51.100.9:0", "10.0.1.7:0") };
    let index = index(Settings::default(), vec![ping]);
    assert!(index.is_empty());
    let line = flow("198.51.100.9", "10.0.1.7", "0 0", T, T + 5, "REJECT").replace(" 6 3 ", " 1 3 ");
    assert!(read(&index, &line).0.is_empty());
}

#[test]
fn what_is_kept_has_a_bound_and_an_end() {
    let mut index = Index::new(Settings::default());
    let nth = |n: usize| {
        let local = std::net::SocketAddr::from(([10, 0, (n / 60_000) as u8, 5], 1024 + (n % 60_000) as u16));
        let at = T * 1000 + n as i64;
        Shot { local, started: wall(at), ended: wall(at), nonce: Some(format!("{n:032x}")), ..shot("10.0.0.5:1", "10.0.1.7:443") }
    };
    for n in 0..MAX_SHOTS + 3 {
        index.push(nth(n), n);
    }
    assert_eq!((index.len(), index.crowded_out), (MAX_SHOTS, 3));
    let found = |index: &Index<usize>, n: usize| {
        let nonce = format!("{n:032x}");
        let mut all = Vec::new();
        Lines::default().read(
            format!("{}.000 0 10.0.0.5 TCP_DENIED/403 1 GET http://x/{nonce} - HIER_NONE/- -", T + n as i64 / 1000).as_bytes(),
            index,
            &mut |whose, _| all.push(whose),
        );
        all
    };
    assert_eq!((found(&index, 2), found(&index, 3), found(&index, MAX_SHOTS + 2)), (vec![], vec![3], vec![MAX_SHOTS + 2]));
    index.forget_before(wall(T * 1000 + 1_000));
    assert_eq!((found(&index, 999), found(&index, 1000)), (vec![], vec![1000]));
    index.forget_before(wall(i64::from(i32::MAX) * 1000));
    assert!(index.is_empty() && !index.has_port(1024, 1025));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes: nothing is claimed by it, and nothing breaks.
    #[test]
    fn no_garbage_says_anything(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (mut lines, mut found) = (Lines::default(), 0);
        lines.read(&bytes, &ours(), &mut |_, _| found += 1);
        prop_assert_eq!(found, 0);
    }

    #[test]
    fn no_garbage_of_their_own_letters_does(text in "[0-9a-f .:/\"{}\\[\\],TCP_DENIOK=$-]{0,200}") {
        let (mut lines, mut found) = (Lines::default(), 0);
        lines.read(text.as_bytes(), &ours(), &mut |_, _| found += 1);
        prop_assert_eq!(found, 0);
    }

    /// A good line with one stretch of it replaced: it is still about us by what it is known by, or about nobody.
    #[test]
    fn no_mutation_makes_it_panic(nth in 0_usize..4, at in any::<prop::sample::Index>(), length in 0_usize..8, piece in "[ -~]{0,8}") {
        let good = [
            flow("198.51.100.9", "10.0.1.7", "41234 443", T, T + 5, "REJECT"),
            waf("BLOCK", &format!("mustnot/0.1.0 (probe {NONCE})"), T * 1000),
            format!("{T}.250    250 198.51.100.9 TCP_DENIED/403 3900 GET http://192.0.2.80/{NONCE} - HIER_NONE/- text/html"),
            format!("{{\"logEvents\":[{{\"message\":\"{}\"}}]}}", flow("198.51.100.9", "10.0.1.7", "41234 443", T, T + 5, "REJECT")),
        ];
        let line = good[nth].as_bytes();
        let at = at.index(line.len());
        let line = [&line[..at], piece.as_bytes(), &line[(at + length).min(line.len())..]].concat();
        let (mut lines, mut found) = (Lines::default(), 0);
        lines.read(&line, &ours(), &mut |_, _| found += 1);
        prop_assert!(found <= 1);
    }
}

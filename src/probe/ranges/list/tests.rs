//! Lists in the forms in which they are published, with addresses of documentation in the place of real ones.

use proptest::prelude::*;

use super::*;

fn form(pointers: &[&str], only_where: &[(&str, &str)]) -> Form {
    let only_where = only_where.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Form { pointers: pointers.iter().map(|p| p.parse().unwrap()).collect(), only_where }
}

fn read(pointers: &[&str], only_where: &[(&str, &str)], text: &str) -> Result<Vec<String>, String> {
    form(pointers, only_where).read(text.as_bytes()).map(|nets| nets.iter().map(ToString::to_string).collect())
}

/// As AWS's ip-ranges.json.
const AWS: &str = r#"{
  "syncToken": "1767322982",
  "createDate": "2026-01-02-03-03-02",
  "prefixes": [
    { "ip_prefix": "203.0.113.0/25", "region": "eu-central-1", "service": "AMAZON", "network_border_group": "eu-central-1" },
    { "ip_prefix": "203.0.113.0/26", "region": "eu-central-1", "service": "EC2", "network_border_group": "eu-central-1" },
    { "region": "us-east-1", "service": "EC2", "ip_prefix": "198.51.100.0/24", "network_border_group": "us-east-1" }
  ],
  "ipv6_prefixes": [
    { "ipv6_prefix": "2001:db8:1000::/36", "region": "eu-central-1", "service": "EC2", "network_border_group": "eu-central-1" }
  ]
}"#;

#[test]
fn aws() {
    let both = ["/prefixes/*/ip_prefix", "/ipv6_prefixes/*/ipv6_prefix"];
    assert_eq!(read(&both, &[], AWS).unwrap(), ["203.0.113.0/25", "203.0.113.0/26", "198.51.100.0/24", "2001:db8:1000::/36"]);
    let ec2 = [("service", "EC2"), ("region", "eu-central-1")];
    assert_eq!(read(&both, &ec2, AWS).unwrap(), ["203.0.113.0/26", "2001:db8:1000::/36"]);
    assert_eq!(read(&both[..1], &[("service", "EC2")], AWS).unwrap(), ["203.0.113.0/26", "198.51.100.0/24"]);
    // Half of a list is none: what a pointer leads to may have been renamed.
    let why = read(&both, &[("region", "us-east-1")], AWS).unwrap_err();
    assert_eq!(why, "/ipv6_prefixes/*/ipv6_prefix leads to no network where it is as where says");
    assert_eq!(read(&["/prefixes/*/ipv4_prefix"], &[], AWS).unwrap_err(), "/prefixes/*/ipv4_prefix leads to no network");
    assert!(
        read(&["/prefixes/*/region"], &[], AWS).unwrap_err().starts_with("/prefixes/*/region: \"eu-central-1\" is no network at line 5")
    );
}

#[test]
fn other_publishers() {
    // Zscaler: objects in objects, of which every one counts.
    let zscaler = r#"{ "zscaler.net": {
        "continent : EMEA": { "city : Amsterdam": [
            { "range": "203.0.113.0/25", "vpn": "ams.example.net", "gre": "203.0.113.1", "hostname": "", "latitude": "52" },
            { "range": "203.0.113.128/25", "vpn": "", "gre": "", "hostname": "", "latitude": "52" } ] },
        "continent : Americas": { "city : Denver": [ { "range": "2001:db8:40::/48", "vpn": "", "gre": "" } ] } } }"#;
    let all = ["203.0.113.0/25", "203.0.113.128/25", "2001:db8:40::/48"];
    assert_eq!(read(&["/zscaler.net/*/*/*/range"], &[], zscaler).unwrap(), all);
    assert_eq!(read(&["/zscaler.net/continent : Americas/*/*/range"], &[], zscaler).unwrap(), ["2001:db8:40::/48"]);
    // Netskope: an answer of its API.
    let netskope = r#"{ "status": "success", "data": [ { "dc": "FRA1", "ranges": ["203.0.113.0/24"] }, { "dc": "AMS1", "ranges": ["198.51.100.0/24", "198.51.100.7"] } ] }"#;
    assert_eq!(read(&["/data/*/ranges"], &[("dc", "AMS1")], netskope).unwrap(), ["198.51.100.0/24", "198.51.100.7/32"]);
    assert_eq!(read(&["/data/*/ranges/*"], &[], netskope).unwrap().len(), 3);
    // GitHub's meta.
    let github = r#"{ "verifiable_password_authentication": false, "hooks": ["192.0.2.0/25", "2001:db8:b::/48"], "web": ["192.0.2.128/25"], "domains": { "website": ["*.example.com"] } }"#;
    assert_eq!(read(&["/hooks"], &[], github).unwrap(), ["192.0.2.0/25", "2001:db8:b::/48"]);
    assert_eq!(read(&["/hooks/1"], &[], github).unwrap(), ["2001:db8:b::/48"]);
    assert!(read(&["/hooks/2"], &[], github).is_err());
    // Google: each object has one of two members.
    let google = r#"{ "prefixes": [ { "ipv4Prefix": "203.0.113.0/24", "scope": "global" }, { "ipv6Prefix": "2001:db8::/32", "scope": "global" } ] }"#;
    assert_eq!(read(&["/prefixes/*/ipv4Prefix", "/prefixes/*/ipv6Prefix"], &[], google).unwrap().len(), 2);
    // Azure's service tags: what is asked stands above a second *.
    let azure = r#"{ "changeNumber": 7, "values": [
        { "name": "AzureFrontDoor.Backend", "properties": { "changeNumber": 3, "addressPrefixes": ["203.0.113.0/24", "2001:db8::/32"] } },
        { "name": "Sql", "properties": { "addressPrefixes": ["198.51.100.0/24"] } } ] }"#;
    let tags = ["/values/*/properties/addressPrefixes/*"];
    assert_eq!(read(&tags, &[("name", "Sql")], azure).unwrap(), ["198.51.100.0/24"]);
    assert_eq!(read(&tags, &[], azure).unwrap().len(), 3);
    // Microsoft 365: an array at the top, and a member that is no string.
    let office =
        r#"[ { "id": 1, "required": true, "ips": ["203.0.113.0/24"] }, { "id": 2, "required": false, "urls": ["*.example.com"] } ]"#;
    assert_eq!(read(&["/*/ips"], &[("required", "true")], office).unwrap(), ["203.0.113.0/24"]);
    assert_eq!(read(&["/*/ips"], &[("id", "1")], office).unwrap(), ["203.0.113.0/24"]);
    // Cloudflare: lines, of which the last does not end.
    assert_eq!(read(&[], &[], "203.0.113.0/24\n198.51.100.0/24\n2001:db8::/32").unwrap().len(), 3);
    // Terraform: its output, and a file that is a variable's value.
    let output = r#"{ "allowed": { "sensitive": false, "type": ["list", "string"], "value": ["203.0.113.0/24"] } }"#;
    assert_eq!(read(&["/allowed/value"], &[], output).unwrap(), ["203.0.113.0/24"]);
    assert_eq!(read(&[], &[], "[\"203.0.113.0/24\",\n \"198.51.100.7\"]").unwrap(), ["203.0.113.0/24", "198.51.100.7/32"]);
}

#[test]
fn lines_may_have_comments_and_ends_of_any_kind() {
    let text = "\u{feff}# offices\r\n203.0.113.0/24   # Berlin\r\n\r\n  198.51.100.7 ; SBL1\n";
    assert_eq!(read(&[], &[], text).unwrap(), ["203.0.113.0/24", "198.51.100.7/32"]);
}

#[test]
fn what_is_no_list_is_none_as_a_whole() {
    for (text, why) in [
        ("", "it names no network"),
        ("# nothing yet\n", "it names no network"),
        ("[]", "the whole document leads to no network"),
        ("<!DOCTYPE html>\n<html>", "line 1: \"<!DOCTYPE html>\" is no network"),
        ("203.0.113.0/24\nexample.com\n", "line 2: \"example.com\" is no network"),
        ("203.0.113.0/24\n203.0.113.0/33\n", "line 2: \"203.0.113.0/33\" is no network"),
        ("203.0.113.0/24, 198.51.100.0/24", "line 1: \"203.0.113.0/24, 198.51.100.0/24\" is no network"),
        ("203.0.113.5/24", "line 1: \"203.0.113.5/24\" has bits set behind its prefix: is it 203.0.113.5 or 203.0.113.0/24?"),
        ("010.0.0.0/8", "line 1: \"010.0.0.0/8\" is no network"),
        ("10.0.0.0/08", "line 1: \"10.0.0.0/08\" is no network"),
        ("10.0.0.0/+8", "line 1: \"10.0.0.0/+8\" is no network"),
        ("10.0.0.0/", "line 1: \"10.0.0.0/\" is no network"),
        ("2001:db8::/129", "line 1: \"2001:db8::/129\" is no network"),
        ("{\"a\": 1}", "the whole document: there is an object, not a network at line 1 column"),
        ("[\"203.0.113.0/24\", null]", "the whole document: there is null, not a network at line 1 column"),
        ("[\"203.0.113.0/24\", 7]", "the whole document: there is a number, not a network at line 1 column"),
        ("[\"203.0.113.0/24\", \"\"]", "the whole document: \"\" is no network at line 1 column"),
        ("[\"203.0.113.0/24\",", "the whole document: EOF while parsing a value at line 1 column"),
        ("[\"203.0.113.0/24\"] more", "the whole document: trailing characters at line 1 column"),
    ] {
        let said = read(&[], &[], text).unwrap_err();
        assert!(said.starts_with(why), "{text:?}: {said}");
    }
    assert!(read(&["/a"], &[], "203.0.113.0/24").unwrap_err().starts_with("/a: "));
    assert!(form(&[], &[]).read(b"\xff\xfe").is_err());
    let long = read(&[], &[], &"x".repeat(1000)).unwrap_err();
    assert!(long.len() < 100 && long.contains('…'), "{long}");
    // A member that says nothing of itself is not what is wanted, and no network is taken of it unasked.
    assert!(read(&["/*"], &[("a", "b")], "[\"203.0.113.0/24\"]").is_err());
    assert!(read(&["/*/ip"], &[("a", "b")], "[{\"ip\": \"203.0.113.0/24\"}, {\"ip\": \"203.0.113.0/24\", \"a\": [\"b\"]}]").is_err());
}

/// Some readers of JSON take the first of two, others the last: nobody knows which of them was published.
#[test]
fn a_member_that_stands_there_twice_leads_nowhere() {
    let twice = r#"{ "a": ["203.0.113.0/24"], "b": 1, "a": ["203.0.113.0/24"] }"#;
    assert!(read(&["/a"], &[], twice).unwrap_err().contains("\"a\" stands there twice"));
    let once = r#"{ "a": ["203.0.113.0/24"], "b": 1, "b": ["203.0.113.0/24"] }"#;
    assert_eq!(read(&["/a"], &[], once).unwrap(), ["203.0.113.0/24"]);
    for twice in
        [r#"[ { "s": "x", "ip": "203.0.113.0/24", "s": "y" } ]"#, r#"[ { "s": "x", "ip": "203.0.113.0/24", "ip": "198.51.100.0/24" } ]"#]
    {
        assert!(read(&["/*/ip"], &[("s", "x")], twice).unwrap_err().contains("stands there twice"), "{twice}");
    }
}

#[test]
fn a_list_has_a_bound() {
    let lines = |n: usize| "192.0.2.1\n".repeat(n);
    assert_eq!(read(&[], &[], &lines(MAX_ENTRIES)).unwrap().len(), MAX_ENTRIES);
    assert_eq!(
        read(&[], &[], &lines(MAX_ENTRIES + 1)).unwrap_err(),
        format!("line {}: it has more than {MAX_ENTRIES} networks", MAX_ENTRIES + 1)
    );
    let elements =
        |n: usize| format!("[{}{{\"a\": \"b\", \"ip\": \"192.0.2.1\"}}]", "{\"a\": \"b\", \"ip\": \"192.0.2.1\"},".repeat(n - 1));
    assert_eq!(read(&["/*/ip"], &[("a", "b")], &elements(MAX_ENTRIES)).unwrap().len(), MAX_ENTRIES);
    assert!(read(&["/*/ip"], &[("a", "b")], &elements(MAX_ENTRIES + 1)).unwrap_err().contains("more than"));
    // Brackets without end are no way to the end of the stack.
    assert!(read(&[], &[], &"[".repeat(1_000_000)).is_err());
    assert!(read(&["/a"], &[], &"{\"a\":".repeat(1_000_000)).is_err());
    assert!(read(&["/a"], &[], &format!("{{\"b\":{}", "[".repeat(1_000_000))).is_err());
}

#[test]
fn pointers_are_those_of_rfc_6901_with_a_star() {
    let text = r#"{ "a/b": ["192.0.2.1"], "m~n": ["192.0.2.2"], "": ["192.0.2.3"], "x": { "": ["192.0.2.4"] }, "~1": ["192.0.2.5"] }"#;
    for (pointer, found) in
        [("/a~1b", "192.0.2.1/32"), ("/m~0n", "192.0.2.2/32"), ("/", "192.0.2.3/32"), ("/x/", "192.0.2.4/32"), ("/~01", "192.0.2.5/32")]
    {
        assert_eq!(read(&[pointer], &[], text).unwrap(), [found], "{pointer}");
    }
    for bad in ["a", "prefixes/*", "/a~", "/a~2", "#/a", "/~/b"] {
        assert!(bad.parse::<Pointer>().is_err(), "{bad}");
    }
    assert!("/a".repeat(MAX_PARTS).parse::<Pointer>().is_ok());
    assert!("/a".repeat(MAX_PARTS + 1).parse::<Pointer>().is_err());
    assert_eq!("/prefixes/*/ip".parse::<Pointer>().unwrap().to_string(), "/prefixes/*/ip");
}

proptest! {
    #[test]
    fn no_list_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), pointer in "(/([a-c*0-2]|~[01])){0,3}") {
        let _ = form(&[], &[]).read(&bytes);
        let _ = form(&[&pointer], &[("a", "b")]).read(&bytes);
    }

    #[test]
    fn no_json_makes_it_panic(text in "[\\[\\]{}:,\"a-c0-2. /*]{0,60}", pointer in "(/([a-c*0-2])){0,3}") {
        let _ = form(&[], &[]).read(text.as_bytes());
        let _ = form(&[&pointer], &[("a", "b")]).read(text.as_bytes());
    }
}

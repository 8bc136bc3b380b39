//! `proxy lint`: every finding from both sides, what cannot be judged, and the command around it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mustnot::severity::Severity;
use mustnot::squid::finding::{Id, Report};
use mustnot::squid::lint::{Setting, lint};
use mustnot::squid::read::Files;
use proptest::prelude::*;

/// Files that are known by heart.
struct Shelf;

impl Files for Shelf {
    fn read(&self, path: &str) -> Result<String, String> {
        match path {
            "/etc/squid/office" => Ok("# who\n203.0.113.0/24 # the office\n".into()),
            "/etc/squid/empty" => Ok("# nobody yet\n\n".into()),
            _ => Err("no such file".into()),
        }
    }

    fn glob(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

const SETTING: Setting = Setting { behind_load_balancer: false, stop_timeout: Duration::from_secs(30) };
const BEHIND: Setting = Setting { behind_load_balancer: true, ..SETTING };

/// A configuration that leaves nothing open.
const CLOSED: &str = "\
http_port 3128 require-proxy-header
acl balancer src 10.0.1.0/24
proxy_protocol_access allow balancer
proxy_protocol_access deny all
acl office src 203.0.113.0/24
acl tunnel_ports port 443
acl never dst 0.0.0.0/8 127.0.0.0/8 ::/128 ::1
acl link_local dst 169.254.0.0/16 fe80::/10 168.63.129.16
acl private dst 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7
acl embedded dst 64:ff9b::/96 64:ff9b:1::/48 2002::/16
http_access deny manager
http_access deny !CONNECT
http_access deny !tunnel_ports
http_access deny !office
http_access deny never
http_access deny link_local
http_access deny private
http_access deny embedded
http_access allow office
http_access deny all
access_log stdio:/dev/stdout combined
shutdown_lifetime 20 seconds
max_filedescriptors 65535
forwarded_for delete
httpd_suppress_version_string on
";

fn judged(text: &str, setting: Setting) -> Report {
    lint("squid.conf", text, &Shelf, setting)
}

/// The closed configuration with one line exchanged; it must be there.
fn with(line: &str, instead: &str) -> String {
    assert!(CLOSED.contains(line), "{line}");
    CLOSED.replace(line, instead)
}

fn found(report: &Report, id: Id) -> Option<&mustnot::squid::finding::Finding> {
    report.findings.iter().find(|finding| finding.id == id)
}

#[test]
fn nothing_is_found_where_nothing_is_open() {
    for setting in [SETTING, BEHIND] {
        assert_eq!(judged(CLOSED, setting), Report::default());
    }
    // the same, spelt otherwise
    let spelt = CLOSED
        .replace("acl office src 203.0.113.0/24", "acl office src \"/etc/squid/office\"")
        .replace("http_access deny never\n", "http_access deny \\\n\n  # why\n  NEVER\r\n")
        .replace("acl private", "if 1 = 1\nacl private")
        .replace("acl embedded", "endif\nacl embedded");
    assert_eq!(judged(&spelt, SETTING), Report::default());
}

#[test]
fn every_finding_is_found_where_its_line_is_wrong() {
    let plain = "http_port 3128 require-proxy-header\n";
    let cases = [
        (Id::OpenToStrangers, with("acl office src 203.0.113.0/24", "acl office src 0.0.0.0/1 128.0.0.0/1"), SETTING),
        (Id::ToLoopback, with("http_access deny never\n", ""), SETTING),
        (Id::ToLoopback, with("127.0.0.0/8 ::/128", "::/128"), SETTING),
        (Id::ToLoopback, with("acl never dst 0.0.0.0/8 127.0.0.0/8", "acl never dst 0.0.0.0/8 127.0.0.1 127.0.0.0/8"), SETTING),
        (Id::ToLoopback, with("acl never dst", "acl never dst -n"), SETTING),
        (Id::ToLinkLocal, with("http_access deny link_local\n", ""), SETTING),
        (Id::ToLinkLocal, with("169.254.0.0/16 ", "169.254.169.254 "), SETTING),
        (Id::ProxyHeaderBelieved, with("proxy_protocol_access allow balancer", "proxy_protocol_access allow all"), SETTING),
        (Id::ForwardedForBelieved, format!("{CLOSED}follow_x_forwarded_for allow all\n"), SETTING),
        (
            Id::ForwardedForBelieved,
            with(plain, "http_port 3128\nfollow_x_forwarded_for allow localhost\nfollow_x_forwarded_for allow balancer2\n")
                .replace("acl balancer ", "acl balancer2 src 10.0.2.0/24\nacl balancer "),
            BEHIND,
        ),
        (Id::BalancerHidesClient, with(plain, "http_port 3128\n"), BEHIND),
        (Id::BalancerUntold, with(plain, "http_port 3128\n"), SETTING),
        (Id::ToPrivate, with("http_access deny private\n", ""), SETTING),
        (Id::ToPrivate, with(" 172.16.0.0/12", " 172.16.0.0/13"), SETTING),
        (Id::Manager, with("http_access deny manager\nhttp_access deny !CONNECT\nhttp_access deny !tunnel_ports\n", ""), SETTING),
        (Id::PlainRequests, with("http_access deny !CONNECT\n", ""), SETTING),
        (Id::PlainRequests, with("http_access deny !CONNECT\n", "acl usual method GET POST HEAD\nhttp_access deny usual\n"), SETTING),
        (Id::Ftp, with("http_access deny !CONNECT\n", "").replace("port 443", "port 443 1025-65535"), SETTING),
        (Id::OtherSchemes, with("http_access deny !CONNECT\n", "acl usual proto HTTP FTP\nhttp_access deny usual\n"), SETTING),
        (Id::ConnectPorts, with("acl tunnel_ports port 443", "acl tunnel_ports port 443 22"), SETTING),
        (Id::ConnectPorts, with("acl tunnel_ports port 443", "acl tunnel_ports port 443 8000-8100"), SETTING),
        (Id::ToItself, with("acl tunnel_ports port 443", "acl tunnel_ports port 443 3128"), SETTING),
        (Id::NoFinalDeny, with("http_access deny all\n", ""), SETTING),
        (Id::NoFinalDeny, with("http_access deny all\n", "http_access deny manager\n"), SETTING),
        (Id::SidePorts, format!("{CLOSED}icp_port 3130\nicp_access allow all\n"), SETTING),
        (Id::BasicAuth, format!("{CLOSED}auth_param basic program /usr/lib/squid/basic_ncsa_auth /etc/squid/passwords\n"), SETTING),
        (Id::ProxyHeaderRefused, with("proxy_protocol_access allow balancer\nproxy_protocol_access deny all\n", ""), SETTING),
        (Id::ProxyHeaderRefused, with("acl balancer src 10.0.1.0/24", "acl balancer src \"/etc/squid/empty\""), SETTING),
        (Id::Ignored, with("http_access deny all\n", "http_access deny\n"), SETTING),
        (Id::Ignored, with("dst 0.0.0.0/8 127.0.0.0/8", "dst 0.0.0.0/8 127.0.0.1 127.0.0.0/8"), SETTING),
        (Id::Ignored, with("src 203.0.113.0/24", "src \"/etc/squid/office\" 198.51.100.0/24"), SETTING),
        (Id::Refused, format!("{CLOSED}http_acces deny all\n"), SETTING),
        (Id::Refused, with("http_access deny private", "http_access deny privat"), SETTING),
        (Id::Refused, with("acl tunnel_ports port 443", "acl tunnel_ports port 443\nacl tunnel_ports src 10.0.0.1"), SETTING),
        (Id::ToEmbedded, with("http_access deny embedded\n", ""), SETTING),
        (Id::NobodyGetsIn, with("http_access allow office\n", ""), SETTING),
        (Id::NobodyGetsIn, with("acl office src 203.0.113.0/24", "acl office src \"/etc/squid/empty\""), SETTING),
        (Id::AccessLog, with("access_log stdio:/dev/stdout combined\n", ""), SETTING),
        (Id::AccessLog, with("stdio:/dev/stdout", "daemon:/var/log/squid/access.log"), SETTING),
        (Id::AccessLog, with("stdio:/dev/stdout combined", "none"), SETTING),
        (Id::ShutdownLifetime, with("shutdown_lifetime 20 seconds", "shutdown_lifetime 1 minute"), SETTING),
        (Id::ShutdownLifetime, with("shutdown_lifetime 20 seconds\n", ""), SETTING),
        (Id::FileDescriptors, with("max_filedescriptors 65535\n", ""), SETTING),
        (Id::Leaks, with("forwarded_for delete\n", ""), SETTING),
        (Id::VersionShown, with("httpd_suppress_version_string on\n", ""), SETTING),
        (Id::CacheDir, format!("{CLOSED}cache_dir null /dev/null\n"), SETTING),
        (Id::TooNew, with("http_access deny private\n", "http_access deny private\nhttp_access deny to_linklocal\n"), SETTING),
    ];
    let mut tried = BTreeSet::new();
    for (id, text, setting) in &cases {
        let report = judged(text, *setting);
        let finding = found(&report, *id).unwrap_or_else(|| panic!("{id} is not found in\n{text}\n{report:#?}"));
        assert!(finding.certain && finding.severity == id.severity() && !finding.message.is_empty(), "{finding:#?}");
        let last = text.lines().count();
        assert!((1..=last).contains(&finding.at.line), "{finding:#?}");
        tried.insert(*id);
    }
    assert_eq!(tried, Id::ALL.iter().copied().collect(), "every finding is tried");
}

#[test]
fn what_is_found_stands_at_its_line_and_the_remedy_closes_it() {
    let text = with("http_access deny link_local\n", "");
    let report = judged(&text, SETTING);
    let finding = found(&report, Id::ToLinkLocal).unwrap();
    let line = text.lines().nth(finding.at.line - 1).unwrap();
    assert_eq!(line, "http_access allow office", "the line that lets it in");
    assert!(finding.message.starts_with("203.0.113.0/24 reaches"), "{}", finding.message);
    assert!(finding.message.contains("CONNECT 169.254.169.254:443"), "{}", finding.message);
    // as somebody would do who reads it: the lines before the one that lets it in
    let mut names = 0;
    for (id, text) in [
        (Id::ToLoopback, with("http_access deny never\n", "")),
        (Id::ToLinkLocal, with("http_access deny link_local\n", "")),
        (Id::ToPrivate, with("http_access deny private\n", "")),
        (Id::ToEmbedded, with("http_access deny embedded\n", "")),
        (Id::PlainRequests, with("http_access deny !CONNECT\n", "")),
        (Id::ConnectPorts, with("http_access deny !tunnel_ports\n", "").replace("acl tunnel_ports port 443\n", "")),
    ] {
        let report = judged(&text, SETTING);
        let finding = found(&report, id).unwrap_or_else(|| panic!("{id}: {report:#?}"));
        let mut lines: Vec<&str> = text.lines().collect();
        let at = finding.at.line - 1;
        let renamed: Vec<String> = finding
            .remedy
            .iter()
            .map(|l| ["link_local", "private", "embedded"].iter().fold(l.clone(), |l, n| l.replace(n, "mine")))
            .collect();
        lines.splice(at..at, renamed.iter().map(String::as_str));
        assert_eq!(judged(&lines.join("\n"), SETTING).findings, [], "{id}: {renamed:?}");
        names += 1;
    }
    assert_eq!(names, 6);
}

/// A user of the tutorial must be told every hole of it.
#[test]
fn the_usual_tutorial_is_open_in_every_way() {
    let text = include_str!("../data/squid/reference.conf");
    let at = |needle: &str| text.lines().position(|line| line.starts_with(needle)).unwrap() + 1;
    let (allow, port) = (at("http_access allow all"), at("http_port"));
    let report = judged(text, BEHIND);
    let expected = [
        (Id::OpenToStrangers, allow),
        (Id::ToLoopback, allow),
        (Id::ToLinkLocal, allow),
        (Id::BalancerHidesClient, port),
        (Id::ToPrivate, allow),
        (Id::Manager, allow),
        (Id::PlainRequests, allow),
        (Id::Ftp, allow),
        (Id::OtherSchemes, allow),
        (Id::ToItself, allow),
        (Id::NoFinalDeny, allow),
        (Id::ToEmbedded, allow),
        (Id::AccessLog, at("access_log")),
        (Id::ShutdownLifetime, 1),
        (Id::Leaks, at("forwarded_for")),
        (Id::VersionShown, 1),
        (Id::CacheDir, at("cache_dir")),
    ];
    let told: Vec<(Id, usize)> = report.findings.iter().map(|f| (f.id, f.at.line)).collect();
    assert_eq!(told, expected);
    assert!(report.findings.iter().all(|f| f.certain) && report.not_judged.is_empty());
    let ftp = found(&report, Id::Ftp).unwrap();
    assert!(ftp.message.contains("ftp://site.example.org:21/"), "{}", ftp.message);
}

#[test]
fn what_cannot_be_judged_is_never_silent() {
    let uncertain = [
        "acl known proxy_auth REQUIRED\nhttp_access allow known\n",
        "acl helper external whoever\nhttp_access allow helper\n",
        "acl night time 20:00-23:59\nhttp_access allow night\n",
        "acl ours srcdomain .example.com\nhttp_access allow ours\n",
        "acl odd dstdom_regex ^a\nhttp_access allow odd\n",
        "acl gone src \"/etc/squid/gone\"\nhttp_access allow gone\n",
        "acl named src clients.example.com\nhttp_access allow named\n",
        "acl either any-of office helper\nhttp_access allow either\n",
    ];
    for lines in uncertain {
        let lines = format!("external_acl_type whoever %SRC /bin/true\nacl helper external whoever\n{lines}");
        let text = with("http_access deny !office\n", &lines);
        let report = judged(&text, SETTING);
        let open = found(&report, Id::OpenToStrangers).unwrap_or_else(|| panic!("{lines}: {report:#?}"));
        assert!(!open.certain && open.severity == Severity::Warning && open.message.contains("may get in, where"), "{open:#?}");
    }
    let not_judged = [
        "cache_peer 10.0.0.3 parent 3128 0",
        "url_rewrite_program /usr/bin/rewrite",
        "include /etc/squid/conf.d/*.conf",
        "http_port 3129 intercept",
        "https_port 3130 ssl-bump tls-cert=/x",
        "http_port 127.0.0.1:3131",
        "ftp_port 2121",
        "if ${process_number} = 1\nhttp_access allow all\nendif",
        "acl bad dst \"/etc/squid/gone\"",
        "configuration_includes_quoted_values on",
    ];
    for line in not_judged {
        let report = judged(&format!("{line}\n{CLOSED}"), SETTING);
        assert!(!report.not_judged.is_empty(), "{line}: {report:#?}");
        assert_eq!(report.findings, [], "{line}");
    }
}

// ---- the command -------------------------------------------------------------------------------------------------------

fn run(file: &Path, flags: &[&str]) -> (i32, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_mustnot")).args(["proxy", "lint"]).arg(file).args(flags).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

#[test]
fn exit_codes_follow_from_what_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let closed = file("closed.conf", CLOSED);
    let (code, out, _) = run(&closed, &[]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");
    assert!(out.contains("nothing is left open: 0 critical, 0 warning, 0 info, 0 not judged"), "{out}");

    let info = file("info.conf", &with("httpd_suppress_version_string on\n", ""));
    assert_eq!(run(&info, &[]).0, 0, "what is for the record decides nothing");

    let open = file("open.conf", &with("http_access deny !CONNECT\n", ""));
    let (code, out, _) = run(&open, &[]);
    assert_eq!(code, 1, "{out}");
    assert!(out.starts_with(&format!("{}:18: plain-requests: warning: 203.0.113.0/24 can send plain requests", open.display())), "{out}");
    assert!(out.contains("\n    write: http_access deny !CONNECT\n"), "{out}");
    let (code, out, _) = run(&open, &["--accept", "plain-requests", "--accept", "ftp", "--accept", "other-schemes"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("plain-requests: warning, accepted: "), "{out}");
    let (code, _, err) = run(&open, &["--accept", "plain"]);
    assert!(code == 2 && err.contains("write one of open-to-strangers, "), "{err}");

    let may = file("may.conf", &with("acl office src 203.0.113.0/24", "acl office proxy_auth REQUIRED"));
    assert_eq!(run(&may, &[]).0, 3);
    let unread = file("unread.conf", &format!("{CLOSED}include /nowhere/*.conf\n"));
    let (code, out, _) = run(&unread, &[]);
    assert!(code == 3 && out.contains(":26: not judged: `/nowhere/*.conf` is not here"), "{out}");

    assert_eq!(run(&closed, &["--stop-timeout", "20s"]).0, 0);
    let (_, out, _) = run(&closed, &["--stop-timeout", "20s"]);
    assert!(out.contains("shutdown-lifetime: info: after SIGTERM Squid waits 20 s for its clients, and is killed after 20 s"), "{out}");

    let (code, _, err) = run(&folder.path().join("none.conf"), &[]);
    assert!(code == 2 && err.contains("none.conf cannot be read"), "{err}");
}

#[test]
fn the_json_report_has_all_that_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("squid.conf");
    std::fs::write(&path, format!("{}ftp_port 2121\n", with("http_access deny !CONNECT\n", ""))).unwrap();
    let (code, out, _) = run(&path, &["--format", "json", "--accept", "ftp"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 1);
    assert_eq!((&report["schema"], &report["accepted"]), (&1.into(), &serde_json::json!(["ftp"])));
    let finding = &report["findings"][0];
    assert_eq!(finding["id"], "plain-requests");
    assert_eq!((&finding["line"], &finding["severity"], &finding["certain"]), (&18.into(), &"warning".into(), &true.into()));
    assert_eq!(finding["remedy"], serde_json::json!(["http_access deny !CONNECT"]));
    assert_eq!(report["not_judged"][0]["line"], 25);
}

#[test]
fn files_are_read_from_where_they_are_or_from_beside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("squid.conf");
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    std::fs::write(&path, with("src 203.0.113.0/24", "src \"/nowhere/of/ours/office\"") + "include /nowhere/of/ours/conf.d/*.conf\n")
        .unwrap();
    std::fs::write(folder.path().join("conf.d/10-old.conf.off"), "http_access allow all\n").unwrap();
    assert_eq!(run(&path, &[]).0, 3, "neither is here");
    std::fs::write(folder.path().join("office"), "203.0.113.0/24\n").unwrap();
    std::fs::write(folder.path().join("conf.d/10.conf"), "via off\n").unwrap();
    let (code, out, _) = run(&path, &[]);
    assert_eq!(code, 0, "{out}");
    std::fs::write(folder.path().join("office"), "all\n").unwrap();
    let (code, out, _) = run(&path, &[]);
    assert!(code == 1 && out.contains("open-to-strangers"), "{out}");
    std::fs::write(folder.path().join("conf.d/10.conf"), "follow_x_forwarded_for allow all\n").unwrap();
    let (_, out, _) = run(&path, &[]);
    assert!(out.contains("conf.d/10.conf:1: forwarded-for-believed"), "{out}");
}

/// What we ship: closed for everybody as it stands, and clean once it has clients.
#[test]
fn our_own_squid_is_clean() {
    let ours = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/squid");
    let (code, out, _) = run(&ours.join("squid.conf"), &["--behind-load-balancer"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("nobody-gets-in: info") && out.contains("0 critical, 0 warning, 2 info, 0 not judged"), "{out}");

    let folder = tempfile::tempdir().unwrap();
    for file in ["squid.conf", "deny_to.txt"] {
        std::fs::copy(ours.join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("allow_from.txt"), "163.116.128.0/17\n2001:db8::/48\n").unwrap();
    std::fs::write(folder.path().join("load_balancers.txt"), "10.0.1.0/24\n10.0.2.0/24\n").unwrap();
    let (code, out, _) = run(&folder.path().join("squid.conf"), &["--behind-load-balancer"]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");
    // its list of destinations is read, not taken for granted
    std::fs::write(folder.path().join("deny_to.txt"), "").unwrap();
    let (code, out, _) = run(&folder.path().join("squid.conf"), &[]);
    assert!(code == 1 && out.contains("to-private") && !out.contains("to-link-local") && !out.contains("to-loopback"), "{out}");
}

/// Words that squid.conf is made of.
fn line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("acl"),
        Just("http_access"),
        Just("allow"),
        Just("deny"),
        Just("all"),
        Just("!all"),
        Just("src"),
        Just("dst"),
        Just("port"),
        Just("a"),
        Just("!a"),
        Just("b"),
        Just("all-of"),
        Just("any-of"),
        Just("\"/etc/squid/office\""),
        Just("\""),
        Just("0.0.0.0/0"),
        Just("10.0.0.0-10.0.0.9/8"),
        Just("::/0"),
        Just("ipv6"),
        Just("65535"),
        Just("0-65535"),
        Just("-n"),
        Just("--"),
        Just("http_port"),
        Just("3128"),
        Just("[::1]:3128"),
        Just("require-proxy-header"),
        Just("include"),
        Just("if"),
        Just("true"),
        Just("else"),
        Just("endif"),
        Just("proxy_auth"),
        Just("dstdomain"),
        Just(".example.com"),
        Just("."),
        Just("method"),
        Just("CONNECT"),
        Just("\\"),
        Just("#"),
        Just("follow_x_forwarded_for"),
        Just("proxy_protocol_access"),
        Just("shutdown_lifetime"),
        Just("99999999999999999999"),
        Just("weeks"),
    ];
    prop_oneof![
        4 => proptest::collection::vec(word, 0..7).prop_map(|words| words.join(" ")),
        1 => "\\PC{0,40}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_text_makes_it_fall(lines in proptest::collection::vec(line(), 0..14), behind in any::<bool>()) {
        let text = lines.join("\n");
        let report = judged(&text, Setting { behind_load_balancer: behind, ..SETTING });
        let last = text.split('\n').count();
        prop_assert!(report.findings.iter().all(|f| (1..=last).contains(&f.at.line)));
    }
}

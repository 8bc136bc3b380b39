//! Client certificates, against servers as they are set up in the field: nobody gets in without the right one, and who thinks so
//! of `optional` is told. Versions that must be refused.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::run::{Run, check, config, gate, internet, observed};
use crate::service::{Process, until};
use crate::world::{ADMIN4, Host, Lab};

/// The four variants, in the order of the plan.
const ALL: [&str; 4] = ["tls1.2/none", "tls1.2/self-signed", "tls1.3/none", "tls1.3/self-signed"];

/// nginx with one server a port.
fn nginx(lab: &Lab, servers: &[(u16, &str)]) -> Process {
    let dir = lab.dir().display();
    let each: String = servers
        .iter()
        .map(|(port, lines)| {
            let versions = if lines.contains("ssl_protocols") { "" } else { "ssl_protocols TLSv1.2 TLSv1.3;" };
            format!(
                "server {{ listen {ADMIN4}:{port} ssl; ssl_certificate {dir}/valid.pem; ssl_certificate_key {dir}/valid.pem; \
                 ssl_client_certificate {dir}/ca.pem; {versions} {lines} }}\n"
            )
        })
        .collect();
    let text = format!(
        "daemon off; master_process off; user root; pid {dir}/nginx.pid; error_log {dir}/nginx-error.log;\nevents {{}}\n\
         http {{ access_log off; root {dir}/www; client_body_temp_path {dir}/nb; proxy_temp_path {dir}/np; fastcgi_temp_path {dir}/nf; \
         uwsgi_temp_path {dir}/nu; scgi_temp_path {dir}/ns;\n{each}}}\n"
    );
    let file = lab.dir().join("nginx.conf");
    fs::write(&file, text).unwrap();
    start(lab, "nginx", &["nginx", "-c", file.to_str().unwrap()], servers.iter().map(|(port, _)| *port))
}

fn haproxy(lab: &Lab, binds: &[(u16, &str)]) -> Process {
    let dir = lab.dir().display();
    let each: String = binds
        .iter()
        .map(|(port, verify)| {
            format!(
                "frontend f{port}\n bind {ADMIN4}:{port} ssl crt {dir}/valid.pem ca-file {dir}/ca.pem {verify}\n \
                 http-request return status 200 content-type text/plain string secret\n"
            )
        })
        .collect();
    let text = format!("global\n maxconn 200\ndefaults\n mode http\n timeout client 20s\n timeout connect 5s\n timeout server 20s\n{each}");
    let file = lab.dir().join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    start(lab, "haproxy", &["haproxy", "-db", "-f", file.to_str().unwrap()], binds.iter().map(|(port, _)| *port))
}

fn apache(lab: &Lab, sites: &[(u16, &str)]) -> Process {
    let dir = lab.dir().display();
    let modules = "/usr/lib/apache2/modules";
    let each: String = sites
        .iter()
        .map(|(port, lines)| {
            format!(
                "Listen {ADMIN4}:{port}\n<VirtualHost {ADMIN4}:{port}>\nSSLEngine on\nSSLCertificateFile {dir}/valid.pem\n\
                 SSLCertificateKeyFile {dir}/valid.pem\nSSLCACertificateFile {dir}/ca.pem\n{lines}\n</VirtualHost>\n"
            )
        })
        .collect();
    let text = format!(
        "ServerRoot {dir}\nServerName admin4.lab.test\nPidFile {dir}/apache.pid\nErrorLog {dir}/apache-error.log\nDefaultRuntimeDir {dir}\n\
         LoadModule mpm_event_module {modules}/mod_mpm_event.so\nLoadModule authz_core_module {modules}/mod_authz_core.so\n\
         LoadModule socache_shmcb_module {modules}/mod_socache_shmcb.so\nLoadModule ssl_module {modules}/mod_ssl.so\n\
         StartServers 1\nDocumentRoot {dir}/www\n<Directory {dir}/www>\nRequire all granted\n</Directory>\n{each}"
    );
    let file = lab.dir().join("apache.conf");
    fs::write(&file, text).unwrap();
    start(lab, "apache", &["apache2", "-X", "-f", file.to_str().unwrap()], sites.iter().map(|(port, _)| *port))
}

fn s_server(lab: &Lab, port: u16, flags: &[&str]) -> Process {
    let accept = format!("{ADMIN4}:{port}");
    let command = ["openssl", "s_server", "-accept", &accept, "-cert", "valid.pem", "-key", "valid.pem", "-CAfile", "ca.pem", "-www"];
    start(lab, &format!("s_server-{port}"), &[&command[..], flags].concat(), [port])
}

/// Starts a server of the private host and waits until each of its ports accepts.
fn start(lab: &Lab, name: &str, command: &[&str], ports: impl IntoIterator<Item = u16>) -> Process {
    let mut process = Process::spawn(lab, Host::Private, name, command, false);
    let hub = lab.hub(Host::Private);
    for port in ports {
        let ready = until(Duration::from_secs(20), || {
            let told = || format!("{} {}", lab.log(name), lab.log(&format!("{name}-error")));
            assert!(process.ended().is_none(), "{name} ended at start: {}", told());
            (hub.connect(ADMIN4, port, 0.2).outcome == "connected").then_some(())
        });
        assert!(ready.is_some(), "{name} does not listen on {port}: {}", lab.log(name));
    }
    process
}

/// What the check of a port must come to, and how each variant ends, in the order of [`ALL`].
struct Truth {
    port: u16,
    verdict: &'static str,
    outcomes: [&'static str; 4],
}

fn truth(port: u16, verdict: &'static str, outcomes: [&'static str; 4]) -> Truth {
    Truth { port, verdict, outcomes }
}

fn strangers(lab: &Lab, kind: &str, port: u16, rest: &str) -> String {
    let target = if kind == "http" { format!("https://admin4.lab.test:{port}/index.html") } else { format!("admin4.lab.test:{port}") };
    let ca = lab.dir().join("ca.pem");
    let keys = format!("expect = \"blocked\"\nca_file = {ca:?}\nclient_certs = [\"none\", \"self-signed\"]\nfamilies = [\"ipv4\"]\n{rest}");
    check(&format!("{kind}-{port}"), kind, &target, &keys)
}

/// The check that has the right certificate.
fn operator(lab: &Lab, kind: &str, port: u16) -> String {
    let target = if kind == "http" { format!("https://admin4.lab.test:{port}/index.html") } else { format!("admin4.lab.test:{port}") };
    let (ca, own) = (lab.dir().join("ca.pem"), lab.dir().join("client.pem"));
    let keys = format!("expect = \"open\"\nca_file = {ca:?}\nclient_cert_file = {own:?}\nclient_key_file = {own:?}\nfamilies = [\"ipv4\"]");
    check(&format!("operator-{kind}-{port}"), kind, &target, &keys)
}

fn variant<'a>(run: &'a Run, name: &str, variant: &str) -> &'a Value {
    let all = observed(run.check(name));
    all.into_iter().find(|o| o["variant"] == variant).unwrap_or_else(|| panic!("no {variant} in {:#}", run.check(name)))
}

/// What is wrong with a check of every variant.
fn differs(run: &Run, kind: &str, truth: &Truth) -> Option<String> {
    let name = format!("{kind}-{}", truth.port);
    let check = run.check(&name);
    let found: Vec<&str> = ALL.iter().map(|v| variant(run, &name, v)["outcome"].as_str().unwrap()).collect();
    let same = ALL.iter().zip(truth.outcomes).all(|(v, outcome)| {
        let seen = variant(run, &name, v);
        let unproven = outcome.strip_prefix('?');
        seen["outcome"] == unproven.unwrap_or(outcome) && (unproven.is_some() == (seen["verdict"] == "unproven"))
    });
    (check["verdict"] != truth.verdict || !same || found.len() != 4)
        .then(|| format!("{name} must be {} {:?}: {check:#}", truth.verdict, truth.outcomes))
}

#[test]
fn who_has_no_right_certificate_gets_in_or_not_as_the_server_is_set_up() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    fs::create_dir_all(lab.dir().join("www")).unwrap();
    fs::write(lab.dir().join("www/index.html"), "secret\n").unwrap();
    let never = "if ($ssl_client_verify != SUCCESS) { return 403; }";
    let _nginx = nginx(
        &lab,
        &[
            (9101, "ssl_verify_client on;"),
            (9102, "ssl_verify_client optional;"),
            (9103, "ssl_verify_client optional_no_ca;"),
            (9104, "ssl_verify_client on; ssl_protocols TLSv1.2;"),
            (9105, "ssl_verify_client on; ssl_protocols TLSv1.3;"),
            (9106, "return 403;"),
            (9107, &format!("ssl_verify_client optional_no_ca; {never}")),
            (9108, "ssl_verify_client on; error_page 495 496 =403 @none; location @none { return 403; }"),
            (9109, "ssl_verify_client optional_no_ca; return 400 nope;"),
        ],
    );
    let _haproxy = haproxy(
        &lab,
        &[(9201, "verify required"), (9202, "verify optional"), (9203, "verify optional crt-ignore-err all ca-ignore-err all")],
    );
    let location = |verify: &str| format!("<Location />\nSSLVerifyClient {verify}\n</Location>");
    let _apache = apache(
        &lab,
        &[
            (9301, "SSLVerifyClient require"),
            (9302, &location("require")),
            (9303, &location("optional_no_ca")),
            (9304, "SSLVerifyClient optional_no_ca"),
            (9305, &location("optional")),
        ],
    );
    let _s_server = s_server(&lab, 9401, &["-Verify", "1", "-verify_return_error"]);

    let (shut, bad) = ("tls-refused", "status:400");
    let by_http = [
        truth(9101, "holds", [bad; 4]),
        truth(9102, "violated", ["status:200", bad, "status:200", bad]),
        truth(9103, "violated", ["status:200"; 4]),
        truth(9104, "holds", [bad, bad, shut, shut]),
        truth(9105, "holds", [shut, shut, bad, bad]),
        truth(9106, "unproven", ["?status:403"; 4]),
        truth(9107, "holds", ["status:403"; 4]),
        truth(9108, "holds", ["status:403"; 4]),
        truth(9109, "unproven", ["?status:400"; 4]),
        truth(9201, "holds", [shut; 4]),
        truth(9202, "violated", ["status:200", shut, "status:200", shut]),
        truth(9203, "violated", ["status:200"; 4]),
        truth(9301, "holds", [shut; 4]),
        // Apache asks only after the request, by means that who is looked for may have and this client has not. It asks for
        // `optional_no_ca` and `optional` in just the same way, and lets in whoever answers.
        truth(9302, "unproven", ["?mute", "?mute", "?status:403", "?status:403"]),
        truth(9303, "unproven", ["?mute", "?mute", "?status:403", "?status:403"]),
        truth(9304, "violated", ["status:200"; 4]),
        truth(9305, "unproven", ["?mute", "?mute", "?status:403", "?status:403"]),
        truth(9401, "holds", [shut; 4]),
    ];
    let by_tls = [
        truth(9101, "violated", ["tls-established"; 4]),
        truth(9103, "violated", ["tls-established"; 4]),
        truth(9201, "holds", [shut; 4]),
        truth(9202, "violated", ["tls-established", shut, "tls-established", shut]),
        truth(9301, "holds", [shut; 4]),
        truth(9401, "holds", [shut; 4]),
    ];
    let mut body = internet();
    for (kind, truths) in [("http", &by_http[..]), ("tls", &by_tls)] {
        for truth in truths {
            body += &strangers(&lab, kind, truth.port, "witness = [\"internet\"]");
        }
    }
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    let mut wrong: Vec<String> = by_http.iter().filter_map(|truth| differs(&run, "http", truth)).collect();
    wrong.extend(by_tls.iter().filter_map(|truth| differs(&run, "tls", truth)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // What shows it.
    for (port, variant_of, alert) in [
        (9201, "tls1.2/none", "handshake_failure"),
        (9201, "tls1.2/self-signed", "unknown_ca"),
        (9201, "tls1.3/none", "certificate_required"),
        (9201, "tls1.3/self-signed", "unknown_ca"),
        (9401, "tls1.3/none", "certificate_required"),
        (9104, "tls1.3/none", "protocol_version"),
    ] {
        let seen = variant(&run, &format!("http-{port}"), variant_of);
        assert_eq!(seen["evidence"]["tls_alert"], alert, "{seen:#}");
        assert_eq!(seen["attempts"], 3, "{seen:#}");
        let unspoken = port == 9104;
        assert_eq!(seen["evidence"]["refused_for"], if unspoken { "version" } else { "certificate" }, "{seen:#}");
        assert_eq!(seen["evidence"]["excused_by"].as_str(), unspoken.then_some("tls1.2/none"), "{seen:#}");
        // The server's certificate was seen, though no handshake came to its end.
        assert_eq!(seen["evidence"]["certificate_sha256"].is_string(), !unspoken, "{seen:#}");
        assert_eq!(seen["evidence"]["certificate_expires"].is_i64(), !unspoken, "{seen:#}");
    }
    let told = run.check("http-9303")["reason"].as_str().unwrap();
    assert!(told.contains("never asked for a client certificate"), "{told}");
}

#[test]
fn the_right_certificate_shows_that_the_target_is_alive() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    fs::create_dir_all(lab.dir().join("www")).unwrap();
    fs::write(lab.dir().join("www/index.html"), "secret\n").unwrap();
    let _nginx =
        nginx(&lab, &[(9101, "ssl_verify_client on;"), (9111, "ssl_verify_client on; return 503;"), (9112, "ssl_verify_client off;")]);
    let _haproxy = haproxy(&lab, &[(9201, "verify required")]);
    let both = |witness: &str| format!("witness = [\"internet\", {witness:?}]\nrequire = [\"vantage\", \"target\"]");
    let mut body = internet();
    for (kind, port) in [("http", 9101), ("http", 9111), ("http", 9201), ("tls", 9201)] {
        body += &operator(&lab, kind, port);
        body += &strangers(&lab, kind, port, &both(&format!("operator-{kind}-{port}")));
    }
    // Reached, but the witness was not asked for its certificate there: then it is no other way than the stranger's.
    body += &operator(&lab, "http", 9112);
    let limited = "max_version = \"1.2\"";
    body += &strangers(&lab, "http", 9112, &format!("{}\n{limited}", both("operator-http-9112")));
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    for name in ["http-9101", "http-9201", "tls-9201"] {
        run.expect(name, "holds", "as-expected", "status:400|tls-refused");
        run.expect_proofs(name, &["target", "vantage"]);
    }
    // The page is dead for everybody: its 400 shows nothing of who would get in.
    run.expect("http-9111", "unproven", "witness-failed", "status:400");
    run.expect("http-9112", "violated", "open", "status:200");
    assert!(observed(run.check("http-9112")).iter().all(|o| o["proofs"] == json!(["vantage"])), "{:#}", run.check("http-9112"));
    assert_eq!(observed(run.check("http-9112")).len(), 2, "the versions that the check leaves out are not tried");
}

#[test]
fn an_old_version_is_refused_or_it_is_not() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    let all = ["-cipher", "ALL:@SECLEVEL=0"];
    let _servers = [
        s_server(&lab, 9501, &[&["-tls1"][..], &all].concat()),
        s_server(&lab, 9502, &[&["-tls1_1"][..], &all].concat()),
        s_server(&lab, 9503, &["-tls1_2"]),
        s_server(&lab, 9504, &["-tls1_3"]),
        // TLS 1.2 by cipher suites that nobody offers today.
        s_server(&lab, 9505, &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"]),
    ];
    let _nginx = nginx(
        &lab,
        &[(9601, ""), (9602, "ssl_protocols TLSv1.3;"), (9603, "ssl_protocols TLSv1 TLSv1.1 TLSv1.2; ssl_ciphers ALL:@SECLEVEL=0;")],
    );
    let _haproxy = haproxy(&lab, &[(9701, "ssl-min-ver TLSv1.2"), (9702, "ssl-min-ver TLSv1.0 ciphers ALL:@SECLEVEL=0")]);
    lab.listen(Host::Private, "closing", ADMIN4, 9801, "close");
    lab.listen(Host::Private, "resetting", ADMIN4, 9802, "reset");
    lab.listen(Host::Private, "holding", ADMIN4, 9803, "hold");

    // Port, highest version offered, what must come of it.
    let cells = [
        (9501, "1.0", "violated", "tls-untrusted"),
        (9501, "1.1", "violated", "tls-untrusted"),
        (9502, "1.0", "holds", "tls-refused"),
        (9502, "1.1", "violated", "tls-untrusted"),
        (9503, "1.0", "holds", "tls-refused"),
        (9503, "1.1", "holds", "tls-refused"),
        (9503, "1.2", "violated", "tls-established"),
        (9504, "1.1", "holds", "tls-refused"),
        (9504, "1.2", "holds", "tls-refused"),
        (9505, "1.2", "violated", "tls-untrusted"),
        (9505, "1.1", "holds", "tls-refused"),
        (9601, "1.1", "holds", "tls-refused"),
        (9601, "1.2", "violated", "tls-established"),
        (9602, "1.2", "holds", "tls-refused"),
        (9603, "1.0", "violated", "tls-untrusted"),
        (9603, "1.1", "violated", "tls-untrusted"),
        (9701, "1.1", "holds", "tls-refused"),
        (9702, "1.0", "violated", "tls-untrusted"),
        // Closed, and not by a word about the version.
        (9801, "1.1", "violated", "closed|reset"),
        (9802, "1.1", "violated", "reset"),
        (9803, "1.1", "violated", "mute"),
    ];
    let ca = lab.dir().join("ca.pem");
    let name = |port: u16, version: &str| format!("at-{port}-{}", version.replace('.', "-"));
    let mut body = internet();
    for (port, version, _, _) in cells {
        let keys = format!(
            "expect = [\"tls-refused\"]\nwitness = [\"internet\"]\nca_file = {ca:?}\nfamilies = [\"ipv4\"]\nmax_version = \"{version}\"\nattempts = 2"
        );
        body += &check(&name(port, version), "tls", &format!("admin4.lab.test:{port}"), &keys);
    }
    let untold = check(
        "cbc-only",
        "http",
        "https://admin4.lab.test:9505/",
        &format!("expect = \"blocked\"\nwitness = [\"internet\"]\nca_file = {ca:?}\nfamilies = [\"ipv4\"]"),
    );
    let run = gate(&lab, Host::Stranger, &config("stranger", &(body + &untold)));
    let mut wrong = Vec::new();
    for (port, version, verdict, outcome) in cells {
        let check = run.check(&name(port, version));
        let seen = observed(check)[0]["outcome"].as_str().unwrap();
        if check["verdict"] != verdict || !outcome.split('|').any(|o| o == seen) {
            wrong.push(format!("{port} by {version} must be {verdict} {outcome}: {check:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let seen = observed(run.check("at-9501-1-1"))[0];
    assert_eq!(seen["evidence"]["tls_version"], "TLSv1_0", "{seen:#}");
    run.expect("cbc-only", "violated", "open", "tls-untrusted");
}

#[test]
fn a_pinned_certificate_is_that_one_or_a_mismatch() {
    let Some(lab) = Lab::new() else { return };
    lab.acl_open();
    let _nginx = nginx(&lab, &[(9901, "return 204;")]);
    let print = lab.output(Host::Private, &["openssl", "x509", "-in", "valid.pem", "-noout", "-fingerprint", "-sha256"]);
    let right = print.trim().split_once('=').unwrap().1.to_string();
    let other = right.replace(|c: char| c != ':', "0");
    let ca = lab.dir().join("ca.pem");
    let mut body = String::new();
    for (name, kind, target, pin) in [
        ("tls-right", "tls", "admin4.lab.test:9901", &right),
        ("tls-other", "tls", "admin4.lab.test:9901", &other),
        ("http-right", "http", "https://admin4.lab.test:9901/", &right),
        ("http-other", "http", "https://admin4.lab.test:9901/", &other),
    ] {
        body += &check(name, kind, target, &format!("expect = \"open\"\nca_file = {ca:?}\ncertificate_sha256 = {pin:?}"));
    }
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    run.expect("tls-right", "holds", "as-expected", "tls-established");
    run.expect("tls-other", "violated", "not-open", "mismatch");
    run.expect("http-right", "holds", "as-expected", "status:204");
    run.expect("http-other", "violated", "not-open", "mismatch");
}

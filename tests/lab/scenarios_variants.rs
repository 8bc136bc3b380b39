//! Ways round an IP restriction over HTTP: real nginx, HAProxy and Apache in front of a page, each open by one of them or by
//! none. And HTTP/2, redirects that deny, and how each stage ends.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::run::{Run, check, config, gate, internet, observed};
use crate::service::{Process, until};
use crate::world::{ADMIN4, Host, Lab, SECOND4};

/// What only the denied page has.
const MARKER: &str = "SECRET-4711";
/// Nothing may take longer to get ready.
const READY: Duration = Duration::from_secs(20);
/// What every server lets in: the address of the stranger's host that the witness uses.
const ALLOWED: &str = SECOND4;

/// The admin web without the laboratory's own listeners, so that real servers can take its ports.
fn bare() -> Option<Lab> {
    let lab = Lab::new()?;
    lab.acl_open();
    for port in [80, 443] {
        lab.close(Host::Private, &format!("admin4:{port}"));
    }
    Some(lab)
}

fn start(lab: &Lab, name: &str, command: &[&str], ports: &[u16]) -> Process {
    let mut process = Process::spawn(lab, Host::Private, name, command, false);
    let hub = lab.hub(Host::Private);
    let ready = until(READY, || {
        assert!(process.ended().is_none(), "{name} ended at start: {}", lab.log(name));
        ports.iter().all(|port| hub.connect(ADMIN4, *port, 0.2).outcome == "connected").then_some(())
    });
    assert!(ready.is_some(), "{name} did not get ready: {}", lab.log(name));
    process
}

/// nginx with these servers in its `http`; `PEM` and `IP` stand for the certificate and the address.
fn nginx(lab: &Lab, servers: &str, ports: &[u16]) -> Process {
    let dir = lab.dir().join("nginx");
    fs::create_dir_all(&dir).unwrap();
    let dir = dir.display();
    let pem = lab.dir().join("valid.pem");
    let tls = format!("ssl_certificate {pem};\nssl_certificate_key {pem};", pem = pem.display());
    let servers = servers.replace("PEM", &tls).replace("IP", ADMIN4).replace("OFFICE", &format!("allow {ALLOWED}; deny all;"));
    let text = format!(
        "daemon off; master_process off; user root; pid {dir}/pid; error_log stderr;\nevents {{ worker_connections 256; }}\nhttp {{\n\
         access_log off; client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c; uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;\n\
         default_type text/html;\n{servers}\n}}\n"
    );
    let file = lab.dir().join("nginx.conf");
    fs::write(&file, text).unwrap();
    start(lab, "nginx", &["nginx", "-c", file.to_str().unwrap(), "-e", "stderr"], ports)
}

/// HAProxy with these sections.
fn haproxy(lab: &Lab, sections: &str, ports: &[u16]) -> Process {
    let pem = lab.dir().join("valid.pem").display().to_string();
    let sections = sections.replace("PEM", &pem).replace("IP", ADMIN4).replace("OFFICE", ALLOWED);
    let text = format!(
        "global\n maxconn 200\ndefaults\n mode http\n timeout client 20s\n timeout server 20s\n timeout connect 5s\n timeout http-request 5s\n{sections}\n"
    );
    let file = lab.dir().join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    start(lab, "haproxy", &["haproxy", "-db", "-f", file.to_str().unwrap()], ports)
}

/// Apache with this inside; plain HTTP on port 80.
fn apache(lab: &Lab, inside: &str) -> Process {
    let dir = lab.dir().join("apache");
    fs::create_dir_all(dir.join("docs/admin")).unwrap();
    fs::write(dir.join("docs/admin/index.html"), format!("<p>{MARKER}</p>")).unwrap();
    fs::write(dir.join("docs/index.html"), "welcome").unwrap();
    let modules = ["mpm_event", "authz_core", "authz_host", "dir", "remoteip", "rewrite", "http2"];
    let modules: String = modules.iter().map(|m| format!("LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so\n")).collect();
    let inside = inside.replace("OFFICE", &format!("Require ip {ALLOWED}"));
    let text = format!(
        "ServerRoot {dir}\nServerName admin4.lab.test\nListen {ADMIN4}:80\nPidFile {dir}/pid\nErrorLog /dev/stderr\nUser root\nGroup root\n{modules}\
         DocumentRoot {dir}/docs\nDirectoryIndex index.html\n{inside}\n",
        dir = dir.display()
    );
    let file = dir.join("httpd.conf");
    fs::write(&file, text.replace("User root\nGroup root\n", "")).unwrap();
    start(lab, "apache", &["apache2", "-X", "-f", file.to_str().unwrap()], &[80])
}

/// What the stranger's gate says of the page at `target`, with more lines for the check.
fn tried(lab: &Lab, target: &str, more: &str) -> Run {
    let ca = if target.starts_with("https") { format!("ca_file = {:?}\n", lab.dir().join("ca.pem")) } else { String::new() };
    let more = if more.contains("expect") { more.to_string() } else { format!("expect = [\"status:403\"]\n{more}") };
    let body = internet()
        + &check(
            "inside",
            "http",
            target,
            &format!("expect = \"open\"\nsource = \"{ALLOWED}\"\nfamilies = [\"ipv4\"]\nbody_contains = \"{MARKER}\"\n{ca}"),
        )
        + &check(
            "admin",
            "http",
            target,
            &format!(
                "witness = [\"internet\", \"inside\"]\nrequire = [\"vantage\", \"target\"]\ninterval = \"1h\"\nattempts = 1\n\
                 variants = \"standard\"\nspoof = [\"{ALLOWED}\"]\nbody_contains = \"{MARKER}\"\n{ca}{more}"
            ),
        );
    gate(lab, Host::Stranger, &config("stranger", &body))
}

/// The variants that came to a verdict.
fn variants(run: &Run, verdict: &str) -> BTreeSet<String> {
    let of = |o: &&serde_json::Value| o["verdict"] == verdict;
    observed(run.check("admin")).iter().copied().filter(of).filter_map(|o| o["variant"].as_str()).map(str::to_string).collect()
}

/// What was seen of the variant of that name.
fn variant_of(run: &Run, name: &str) -> serde_json::Value {
    let all = observed(run.check("admin"));
    (*all.iter().find(|o| o["variant"] == name).unwrap_or_else(|| panic!("{name}"))).clone()
}

/// Asserts that exactly these are exposures, and that each shows its request.
fn exposed_by(run: &Run, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|name| name.replace(" A", &format!(" {ALLOWED}"))).collect();
    assert_eq!(variants(run, "violated"), expected, "{:#}", run.check("admin")["reason"]);
    assert_eq!(variants(run, "unproven"), BTreeSet::new(), "{:#}", run.check("admin")["reason"]);
    for one in observed(run.check("admin")).into_iter().filter(|o| o["verdict"] == "violated") {
        assert_eq!(one["evidence"]["marker"], "found", "{one:#}");
        assert!(!one["evidence"]["request_head"].as_str().unwrap().is_empty(), "{one:#}");
    }
    let verdict = if expected.is_empty() { "holds" } else { "violated" };
    assert_eq!(run.check("admin")["verdict"], verdict, "{:#}", run.check("admin")["reason"]);
    assert!(observed(run.check("admin")).len() > 40, "all were tried");
}

const PAGE: &str = "return 200 'SECRET-4711';";

/// The line that the record gives for the exposure gets the page, too.
fn by_hand(lab: &Lab, run: &Run) {
    let line = run.check("admin")["reproduce"].as_str().unwrap();
    let shown = lab.output(Host::Stranger, &["sh", "-c", &format!("CURL_CA_BUNDLE=ca.pem {line}")]);
    assert!(shown.contains(MARKER), "{line}: {shown}");
}

/// All forms of a list of forwarders whose last one is believed.
const LAST: [&str; 6] =
    ["AD-05 x-forwarded-for A", "AD-05 list-alike A", "AD-05 list-last A", "AD-05 lines-last A", "AD-05 mapped A", "AD-05 with-port A"];

#[test]
fn nginx_that_believes_the_last_forwarder_is_open() {
    let Some(lab) = bare() else { return };
    let _nginx = nginx(
        &lab,
        "server { listen IP:443 ssl; PEM set_real_ip_from 0.0.0.0/0; real_ip_header X-Forwarded-For;\n\
         location /admin { root /nowhere; OFFICE try_files /none @page; } location @page { return 200 'SECRET-4711'; } location / { return 200 'welcome'; } }",
        &[443],
    );
    let run = tried(&lab, "https://admin4.lab.test/admin", "");
    exposed_by(&run, &LAST);
    run.expect_code(1);
    by_hand(&lab, &run);
    let reproduce = run.check("admin")["reproduce"].as_str().unwrap();
    assert!(reproduce.contains(&format!("-H 'X-Forwarded-For: {ALLOWED}")), "{reproduce}");
}

#[test]
fn haproxy_that_believes_the_first_forwarder_is_open() {
    let Some(lab) = bare() else { return };
    let _haproxy = haproxy(
        &lab,
        "frontend f\n bind IP:443 ssl crt PEM alpn h2,http/1.1\n acl office src OFFICE\n acl office hdr_ip(x-forwarded-for,1) OFFICE\n\
         http-request deny if !office\n http-request return status 200 content-type text/html string SECRET-4711",
        &[443],
    );
    let run = tried(&lab, "https://admin4.lab.test/admin", "");
    exposed_by(
        &run,
        &[
            "AD-05 x-forwarded-for A",
            "AD-05 list-alike A",
            "AD-05 list-first A",
            "AD-05 lines-first A",
            "AD-05 mapped A",
            "AD-05 with-port A",
        ],
    );
}

#[test]
fn haproxy_that_matches_the_path_as_typed_is_open() {
    let Some(lab) = bare() else { return };
    let _nginx = nginx(
        &lab,
        "server { listen 127.0.0.1:8080; location ~* ^/admin/?$ { return 200 'SECRET-4711'; } location / { return 200 'welcome'; } }",
        &[],
    );
    let _haproxy = haproxy(
        &lab,
        "frontend f\n bind IP:80\n http-request deny if { path_beg /admin } !{ src OFFICE }\n default_backend b\nbackend b\n server s 127.0.0.1:8080",
        &[80],
    );
    let run = tried(&lab, "http://admin4.lab.test/admin", "");
    let found = variants(&run, "violated");
    for spelling in ["double-slash", "upper-case", "dot-segment", "up-segment", "encoded-letter", "encoded-up", "encoded-dot"] {
        assert!(found.contains(&format!("AD-07 {spelling}")), "{spelling}: {found:?}");
    }
    assert!(found.iter().all(|name| name.starts_with("AD-07 ")), "{found:?}");
    by_hand(&lab, &run);
    let request = |name: &str| {
        let all = observed(run.check("admin"));
        let one = all.iter().find(|o| o["variant"] == name).unwrap_or_else(|| panic!("{name}"));
        one["evidence"]["request_head"].as_str().unwrap().lines().next().unwrap().to_string()
    };
    assert_eq!(request("AD-07 encoded-letter"), "GET /%61dmin HTTP/1.1");
    assert_eq!(request("AD-07 backslash"), "GET \\admin HTTP/1.1");
}

#[test]
fn a_rule_on_one_listener_only_is_open_by_the_other() {
    let Some(lab) = bare() else { return };
    let _nginx = nginx(
        &lab,
        "server { listen IP:443 ssl; PEM location / { root /nowhere; OFFICE try_files /none @page; } location @page { return 200 'SECRET-4711'; } }\n\
         server { listen IP:80; location / { return 200 'SECRET-4711'; } }",
        &[80, 443],
    );
    let run = tried(&lab, "https://admin4.lab.test/", "");
    exposed_by(&run, &["AD-02 plain-http"]);
    by_hand(&lab, &run);
    let all = observed(run.check("admin"));
    let plain = all.iter().find(|o| o["variant"] == "AD-02 plain-http").unwrap();
    assert_eq!(plain["address"], format!("{ADMIN4}:80"));
}

#[test]
fn a_rule_for_http_1_only_is_open_by_http_2() {
    let Some(lab) = bare() else { return };
    let rule = "acl office src OFFICE\n http-request deny if !office { req.ver 1.1 }\n http-request deny if !office { req.ver 1.0 }\n \
                http-request return status 200 content-type text/html string SECRET-4711";
    let _haproxy = haproxy(
        &lab,
        &format!("frontend f\n bind IP:443 ssl crt PEM alpn h2,http/1.1\n {rule}\nfrontend p\n bind IP:80\n {rule}"),
        &[80, 443],
    );
    let run = tried(&lab, "https://admin4.lab.test/admin", "alpn = [\"http/1.1\"]");
    exposed_by(&run, &["AD-09 http-2"]);
    // By what both agree on, the plain request is in already.
    let run = tried(&lab, "https://admin4.lab.test/admin", "");
    assert_eq!(run.check("admin")["verdict"], "violated");
    let all = observed(run.check("admin"));
    let plain = all.iter().find(|o| o["variant"].is_null()).unwrap();
    assert_eq!((plain["verdict"].as_str(), plain["evidence"]["request"].as_str()), (Some("violated"), Some("GET /admin HTTP/2")));
    let run = tried(&lab, "http://admin4.lab.test/admin", "");
    let found = variants(&run, "violated");
    assert!(found.contains("AD-09 prior-knowledge"), "{found:?}");
    assert!(found.iter().all(|name| name.starts_with("AD-09 ")), "{found:?}");
}

#[test]
fn whoever_believes_a_proxy_header_is_open() {
    let Some(lab) = bare() else { return };
    let _haproxy = haproxy(
        &lab,
        "frontend f\n bind IP:443 ssl crt PEM\n tcp-request connection expect-proxy layer4 if !{ src OFFICE }\n http-request deny if !{ src OFFICE }\n\
         http-request return status 200 content-type text/html string SECRET-4711",
        &[443],
    );
    let run = tried(&lab, "https://admin4.lab.test/admin", "expect = \"blocked\"");
    exposed_by(&run, &["AD-06 proxy-v1 A", "AD-06 proxy-v2 A"]);
}

#[test]
fn a_rule_by_the_name_in_the_handshake_is_open_by_another() {
    let Some(lab) = bare() else { return };
    let _haproxy = haproxy(
        &lab,
        "frontend f\n bind IP:443 ssl crt PEM\n http-request deny if { ssl_fc_sni -i admin4.lab.test } !{ src OFFICE }\n\
         http-request return status 200 content-type text/html string SECRET-4711 if { hdr(host) -i admin4.lab.test }\n\
         http-request return status 404 content-type text/html string none",
        &[443],
    );
    let run = tried(&lab, "https://admin4.lab.test/admin", "headers = { X-Token = \"hush\" }");
    exposed_by(&run, &["AD-04 no-sni", "AD-04 sni-parent", "AD-04 sni-www"]);
    by_hand(&lab, &run);
    assert!(!serde_json::to_string(&run.report).unwrap().contains("hush"), "what may be secret is shown nowhere");
}

#[test]
fn apache_that_believes_a_header_of_its_own_is_open() {
    let Some(lab) = bare() else { return };
    let _apache = apache(
        &lab,
        "RemoteIPHeader X-Client-IP\nRemoteIPInternalProxy 198.51.100.0/24\n<Location /admin>\n OFFICE\n</Location>\n<Location />\n Require all granted\n</Location>\n\
         <Location /admin>\n OFFICE\n</Location>",
    );
    let run = tried(&lab, "http://admin4.lab.test/admin/", "");
    exposed_by(&run, &["AD-05 x-client-ip A"]);
}

#[test]
fn apache_that_looks_at_http_1_only_is_open_by_an_upgrade() {
    let Some(lab) = bare() else { return };
    let _apache = apache(
        &lab,
        &format!(
            "Protocols h2c http/1.1\nH2Upgrade on\nRewriteEngine on\nRewriteCond expr \"%{{HTTP2}} != 'on'\"\nRewriteCond %{{REMOTE_ADDR}} !={ALLOWED}\n\
             RewriteRule ^/admin - [F,NC]\n<Location />\n Require all granted\n</Location>"
        ),
    );
    let run = tried(&lab, "http://admin4.lab.test/admin/", "");
    // Apache may end the connection that it upgraded (GOAWAY, NO_ERROR) before the second request on it, every time: then nothing is
    // known of that way, which may not be said to be closed.
    let upgraded = variant_of(&run, "AD-09 h2c-upgrade");
    eprintln!("the upgrade: {} {}", upgraded["outcome"], upgraded["evidence"]["detail"]);
    match upgraded["evidence"]["status"].is_null() {
        false => exposed_by(&run, &["AD-09 h2c-upgrade", "AD-09 prior-knowledge"]),
        true => {
            assert_eq!((&upgraded["verdict"], &upgraded["evidence"]["marker"]), (&"unproven".into(), &"unheard".into()), "{upgraded:#}");
            assert_eq!(variants(&run, "violated"), BTreeSet::from(["AD-09 prior-knowledge".to_string()]));
        }
    }
    assert_eq!(run.check("admin")["verdict"], "violated", "{:#}", run.check("admin")["reason"]);
}

#[test]
fn the_well_closed_hold_whatever_else_they_answer() {
    let mut cases = 0;
    // A catch-all that welcomes everybody, everywhere but there.
    let Some(lab) = bare() else { return };
    {
        let _nginx = nginx(
            &lab,
            "server { listen IP:443 ssl http2; PEM location ~* ^/admin { root /nowhere; OFFICE try_files /none @page; } location @page { return 200 'SECRET-4711'; }\n\
             location / { return 200 'welcome'; } }\nserver { listen IP:80; return 301 https://$host$request_uri; }",
            &[80, 443],
        );
        let run = tried(&lab, "https://admin4.lab.test/admin", "");
        exposed_by(&run, &[]);
        let some_answer_200 = observed(run.check("admin")).into_iter().any(|o| o["outcome"] == "status:200" && o["verdict"] == "holds");
        assert!(some_answer_200, "the catch-all was met, and is no exposure: {:#}", run.check("admin"));
        run.expect_code(0);
        cases += 1;
    }
    {
        // A name that nobody serves gets 503.
        let _haproxy = haproxy(
            &lab,
            "frontend f\n bind IP:80\n http-request deny if !{ src OFFICE }\n use_backend b if { hdr(host) -i admin4.lab.test }\nbackend b\n\
             http-request return status 200 content-type text/html string SECRET-4711",
            &[80],
        );
        exposed_by(&tried(&lab, "http://admin4.lab.test/admin", ""), &[]);
        cases += 1;
    }
    {
        let _apache = apache(&lab, "<Location />\n OFFICE\n</Location>");
        exposed_by(&tried(&lab, "http://admin4.lab.test/admin/", ""), &[]);
        cases += 1;
    }
    assert_eq!(cases, 3);
}

#[test]
fn what_proves_nothing_neither_holds_nor_violates() {
    let Some(lab) = bare() else { return };
    {
        // The text stands on every page, so a way round the rule to another page is none.
        let _nginx = nginx(
            &lab,
            "server { listen IP:443 ssl; PEM location ~ ^/admin { root /nowhere; OFFICE try_files /none @page; } location @page { return 200 'SECRET-4711'; }\n\
             location / { return 200 'welcome to SECRET-4711'; } }",
            &[443],
        );
        let run = tried(&lab, "https://admin4.lab.test/admin", "");
        assert_eq!(run.check("admin")["verdict"], "unproven", "{:#}", run.check("admin"));
        assert_eq!(variants(&run, "violated"), BTreeSet::new());
        assert!(run.check("admin")["reason"].as_str().unwrap().contains("everybody may see"), "{:#}", run.check("admin")["reason"]);
    }
    {
        // Whoever asks too much is not told.
        let _nginx = nginx(
            &lab,
            "limit_req_zone $binary_remote_addr zone=z:1m rate=30r/m; limit_req_status 429;\n\
             server { listen IP:443 ssl; PEM set_real_ip_from 0.0.0.0/0; real_ip_header X-Nothing; location / { root /nowhere; limit_req zone=z burst=3 nodelay; try_files /none @page; }\n\
             location @page { return 200 'SECRET-4711'; } location /admin { return 403; } }",
            &[443],
        );
        let run = tried(&lab, "https://admin4.lab.test/admin", "");
        run.expect_never_holds("admin");
        assert_eq!(variants(&run, "violated"), BTreeSet::new());
    }
    {
        // The site is down for everybody.
        let run = tried(&lab, "https://admin4.lab.test/admin", "expect = \"blocked\"");
        run.expect_never_holds("admin");
        assert_eq!(variants(&run, "violated"), BTreeSet::new());
    }
}

#[test]
fn a_ban_is_no_denial() {
    let Some(lab) = bare() else { return };
    let _haproxy = haproxy(
        &lab,
        "frontend f\n bind IP:80\n stick-table type ip size 1k expire 60s store conn_cnt\n tcp-request connection track-sc0 src\n\
         http-request deny if !{ src OFFICE }\n http-request return status 200 content-type text/html string SECRET-4711",
        &[80],
    );
    // After some connections the network of the site takes no more of this source.
    lab.acl_with(
        &["ip saddr 198.51.100.66 tcp dport 80 ct state new limit rate over 1/hour burst 9 packets drop", "accept"],
        crate::world::Denial::Drop,
    );
    let run = tried(&lab, "http://admin4.lab.test/admin", "expect = \"blocked\"");
    run.expect_never_holds("admin");
    assert_eq!(variants(&run, "violated"), BTreeSet::new());
}

/// An inverted check without variants, and the witness for it.
fn asked(lab: &Lab, target: &str, rest: &str) -> Run {
    let ca = if target.starts_with("https") { format!("ca_file = {:?}\n", lab.dir().join("ca.pem")) } else { String::new() };
    let body = internet() + &check("admin", "http", target, &format!("witness = [\"internet\"]\n{ca}{rest}"));
    gate(lab, Host::Stranger, &config("stranger", &body))
}

#[test]
fn http_2_is_spoken_where_it_is_agreed_or_asked_for() {
    let Some(lab) = bare() else { return };
    let _nginx = nginx(
        &lab,
        &format!(
            "server {{ listen IP:443 ssl http2; PEM location /admin {{ return 403 'no'; }} location /open {{ {PAGE} }} location /gone {{ return 444; }} }}\n\
             server {{ listen IP:80; location / {{ return 403; }} }}"
        ),
        &[80, 443],
    );
    let closed = "expect = [\"status:403\"]\n";
    let spoken =
        |run: &Run| run.observation("admin", &format!("{ADMIN4}:443"))["evidence"]["request"].as_str().unwrap_or_default().to_string();
    let run = asked(&lab, "https://admin4.lab.test/admin", closed);
    run.expect("admin", "holds", "as-expected", "status:403");
    assert_eq!(spoken(&run), "GET /admin HTTP/2");
    assert_eq!(run.observation("admin", &format!("{ADMIN4}:443"))["evidence"]["alpn"], "h2");
    let run = asked(&lab, "https://admin4.lab.test/admin", &format!("{closed}alpn = [\"http/1.1\"]"));
    run.expect("admin", "holds", "as-expected", "status:403");
    assert_eq!(spoken(&run), "GET /admin HTTP/1.1");
    let run = asked(&lab, "https://admin4.lab.test/open", closed);
    run.expect("admin", "violated", "open", "status:200");
    // nginx ends the stream without an answer (444).
    let run = asked(&lab, "https://admin4.lab.test/gone", "expect = \"blocked\"");
    run.expect("admin", "holds", "as-expected", "closed|reset");
    assert_eq!(run.observation("admin", &format!("{ADMIN4}:443"))["stage"], "http");
    // Who knows no HTTP/2 says so in HTTP/1.1.
    let run = asked(&lab, "http://admin4.lab.test/", "expect = [\"status:403\"]\nhttp_version = \"2\"");
    run.expect("admin", "violated", "other-denial|open", "status:400");
}

#[test]
fn h2c_by_prior_knowledge() {
    let Some(lab) = bare() else { return };
    let _haproxy = haproxy(
        &lab,
        "frontend f\n bind IP:80\n http-request deny if { path_beg /admin }\n http-request return status 200 content-type text/html string SECRET-4711",
        &[80],
    );
    let rest = "expect = [\"status:403\"]\nhttp_version = \"2\"\nrequire = []";
    let run = asked(&lab, "http://admin4.lab.test/admin", rest);
    run.expect("admin", "holds", "as-expected", "status:403");
    assert_eq!(run.observation("admin", &format!("{ADMIN4}:80"))["evidence"]["request"], "GET /admin HTTP/2");
    let run = asked(&lab, "http://admin4.lab.test//admin", rest);
    run.expect("admin", "violated", "open", "status:200");
}

#[test]
fn a_redirect_to_the_sign_in_is_a_denial_and_no_other() {
    let Some(lab) = bare() else { return };
    let _nginx = nginx(
        &lab,
        "server { listen IP:443 ssl http2; PEM location /sso { return 302 https://login.lab.test/auth?next=x; } location /away { return 302 https://elsewhere.lab.test/auth; }\n\
         location /near { return 302 https://login.lab.test.evil.test/auth; } location /leak { add_header Location https://login.lab.test/auth always; return 200 'x'; } }",
        &[443],
    );
    let deny = "expect = \"blocked\"\ndeny_location = \"https://login.lab.test/auth\"";
    let run = asked(&lab, "https://admin4.lab.test/sso", deny);
    run.expect("admin", "holds", "as-expected", "denied");
    assert_eq!(run.observation("admin", &format!("{ADMIN4}:443"))["stage"], "http");
    for (path, outcome) in [("away", "status:302"), ("near", "status:302"), ("leak", "status:200")] {
        asked(&lab, &format!("https://admin4.lab.test/{path}"), deny).expect("admin", "violated", "open", outcome);
    }
    asked(&lab, "https://admin4.lab.test/sso", "expect = \"blocked\"").expect("admin", "violated", "open", "status:302");
}

#[test]
fn each_stage_ends_in_its_own_way() {
    let Some(lab) = bare() else { return };
    for (port, mode, outcome) in [(8101, "reset", "reset"), (8102, "close", "closed|reset"), (8103, "hold", "mute")] {
        lab.listen(Host::Private, mode, ADMIN4, port, mode);
        for (scheme, stage) in [("https", "tls"), ("http", "http")] {
            let run = asked(&lab, &format!("{scheme}://admin4.lab.test:{port}/"), "expect = [\"reset\", \"closed\", \"mute\"]");
            run.expect("admin", "holds", "as-expected", outcome);
            let stages = [stage, if mode == "reset" { "tcp" } else { stage }];
            let found = run.observation("admin", &format!("{ADMIN4}:{port}"))["stage"].as_str().unwrap().to_string();
            assert!(stages.contains(&found.as_str()), "{mode} {scheme}: {found}");
        }
    }
}

//! Who is let in to the web listener: TLS, client certificates, passwords; and that nobody who hangs keeps others out.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;

use mustnot::plan::{Keys, from_text};
use socket2::{Domain, Socket, Type};

use crate::monitor::{Authority, Monitor, PATIENCE};

const CHECK: &str = "[[check]]\nname = \"a\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:1\"\nexpect = [\"refused\"]\nwitness = []\nrequire = []\ninterval = \"1h\"\n";

/// A hash that is made in no time.
fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

fn monitor(web: &str, prepare: impl Fn(&Path)) -> Monitor {
    Monitor::start(&format!("vantage = \"office\"\n[web]\nlisten = \"127.0.0.1:0\"\n{web}\n{CHECK}"), prepare)
}

const TLS: &str = "cert_file = \"web.pem\"\nkey_file = \"web.key\"\n";

#[test]
fn passwords_are_asked_for_on_all_but_health() {
    let monitor = monitor(&format!("basic_auth = {{ ann = \"{}\" }}", hash("correct horse")), |_| {});
    for path in ["/", "/metrics", "/api/v1/checks", "/api/v1/checks/a", "/config", "/nothing", "/-/reload"] {
        let answer = monitor.curl(path, &[]);
        assert_eq!(answer.status, 401, "{path}: {answer:?}");
        assert!(answer.head.contains("www-authenticate: basic realm=\"mustnot\""), "{path}: {answer:?}");
        assert!(!answer.body.contains('$'), "{answer:?}");
    }
    for (wrong, status) in [("ann:wrong", 401), ("ann:", 401), ("eve:correct horse", 401), ("ann:correct horse", 200)] {
        assert_eq!(monitor.curl("/metrics", &["-u", wrong]).status, status, "{wrong}");
    }
    assert_eq!(monitor.curl("/nothing", &["-u", "ann:correct horse"]).status, 404);
    assert_eq!(monitor.curl("/metrics", &["-H", "Authorization: Bearer x"]).status, 401);
    for path in ["/healthz", "/-/healthy"] {
        assert_eq!(monitor.curl(path, &[]).status, 200, "{path}");
    }
    monitor.until("its check ran", || (monitor.curl("/readyz", &[]).status == 200).then_some(()));
}

/// What a stranger may ask tells him that something is missing, and not what.
#[test]
fn a_stranger_is_told_of_no_check() {
    // Ten attempts, a second apart, so that it has not run for a while.
    let text = |web: &str| format!("vantage = \"office\"\n[web]\nlisten = \"127.0.0.1:0\"\n{web}\n{CHECK}attempts = 10\n");
    let guarded = Monitor::start(&text(&format!("basic_auth = {{ ann = \"{}\" }}", hash("x"))), |_| {});
    let open = Monitor::start(&text(""), |_| {});
    for (monitor, body) in
        [(guarded, "not ready: 1 of 1 checks have not run yet\n"), (open, "not ready: 1 of 1 checks have not run yet: a\n")]
    {
        let answer = monitor.curl("/readyz", &[]);
        assert_eq!((answer.status, answer.body.as_str()), (503, body));
    }
}

#[test]
fn tls_and_client_certificates() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let monitor = monitor(&format!("{TLS}client_ca_file = \"ca.pem\""), |folder| {
        ours.server().write(folder, "web");
        ours.client().write(folder, "client");
        theirs.client().write(folder, "stranger");
        fs::write(folder.join("ca.pem"), &ours.pem).unwrap();
        fs::write(folder.join("other-ca.pem"), &theirs.pem).unwrap();
    });
    assert_eq!(monitor.scheme, "https");
    let ca = ["--cacert", "ca.pem"];
    let with = |own: &'static str, key: &'static str| [ca[0], ca[1], "--cert", own, "--key", key];
    assert_eq!(monitor.curl("/metrics", &with("client.pem", "client.key")).status, 200);
    let bare = monitor.curl("/metrics", &ca);
    assert_eq!(bare.status, 403);
    assert!(bare.body.contains("client certificate"), "{bare:?}");
    assert_eq!(monitor.curl("/healthz", &ca).status, 200, "an orchestrator has no certificate");
    let stranger = monitor.curl("/healthz", &with("stranger.pem", "stranger.key"));
    assert_eq!(stranger.status, 0, "a wrong certificate is worse than none: {stranger:?}");
    assert_eq!(monitor.curl("/healthz", &["--cacert", "other-ca.pem"]).status, 0, "curl does not trust it");
    // plain text to a TLS port
    let plain = crate::monitor::curl(&format!("http://{}/healthz", monitor.at), monitor.folder.path(), &[]);
    assert_eq!(plain.status, 0, "{plain:?}");
}

/// Certificate and password together; and a reload that changes either holds for connections that are open, too.
#[test]
fn a_reload_takes_over_passwords_and_certificates() {
    let ours = Authority::new("ours");
    let text = |password: &str| {
        format!(
            "vantage = \"office\"\n[web]\nlisten = \"127.0.0.1:0\"\n{TLS}client_ca_file = \"ca.pem\"\nbasic_auth = {{ ann = \"{}\" }}\n{CHECK}",
            hash(password)
        )
    };
    let monitor = Monitor::start(&text("before"), |folder| {
        ours.server().write(folder, "web");
        ours.client().write(folder, "client");
        fs::write(folder.join("ca.pem"), &ours.pem).unwrap();
    });
    let with = |auth: &'static str| ["--cacert", "ca.pem", "--cert", "client.pem", "--key", "client.key", "-u", auth];
    assert_eq!(monitor.curl("/metrics", &with("ann:before")).status, 200);
    assert_eq!(monitor.curl("/metrics", &["--cacert", "ca.pem", "-u", "ann:before"]).status, 403, "both are asked for");
    assert_eq!(monitor.curl("/metrics", &with("ann:before")[..6]).status, 401, "both are asked for");

    monitor.write(&text("after"));
    monitor.hang_up();
    monitor.until("the new password", || (monitor.curl("/metrics", &with("ann:after")).status == 200).then_some(()));
    assert_eq!(monitor.curl("/metrics", &with("ann:before")).status, 401);

    // of a renewal the certificate comes first, and does not fit the key for a moment
    let renewed = ours.server();
    fs::write(monitor.path("web.pem"), &renewed.cert).unwrap();
    monitor.until("that is said", || monitor.logged().contains("[web] key_file has changed and is not taken over").then_some(()));
    assert_eq!(monitor.curl("/metrics", &with("ann:after")).status, 200, "the one from before is shown");
    fs::write(monitor.path("web.key"), &renewed.key).unwrap();
    monitor.until("the renewed one", || monitor.logged().contains("was renewed, and is shown from now on").then_some(()));
    assert_eq!(monitor.curl("/metrics", &with("ann:after")).status, 200);

    // at SIGHUP at once, and a bad one changes nothing
    fs::write(monitor.path("web.pem"), "no certificate").unwrap();
    monitor.hang_up();
    monitor.until("that is said", || monitor.logged().contains("web.cert_file: ").then_some(()));
    let answer = monitor.curl("/metrics", &with("ann:after"));
    assert_eq!(crate::monitor::metric(&answer.body, &["mustnot_config_last_reload_successful"]), Some(0.0));
}

/// The real use of it: the monitor outside asks the monitor inside, by certificate and password.
#[test]
fn a_peer_asks_by_certificate_and_password() {
    let ours = Authority::new("ours");
    let page = crate::reload::page();
    let office = Monitor::start(
        &format!(
            "vantage = \"office\"\n[web]\nlisten = \"127.0.0.1:0\"\n{TLS}client_ca_file = \"ca.pem\"\nbasic_auth = {{ outside = \"{}\" }}\n\
             [[check]]\nname = \"admin-open\"\nkind = \"http\"\ntarget = \"http://{page}/\"\nexpect = \"open\"\ninterval = \"1s\"\n",
            hash("correct horse")
        ),
        |folder| {
            ours.server().write(folder, "web");
            fs::write(folder.join("ca.pem"), &ours.pem).unwrap();
        },
    );
    let outside = tempfile::tempdir().unwrap();
    ours.client().write(outside.path(), "client");
    fs::write(outside.path().join("ca.pem"), &ours.pem).unwrap();
    fs::write(outside.path().join("right"), "correct horse\n").unwrap();
    fs::write(outside.path().join("wrong"), "horse correct\n").unwrap();
    let check = |keys: &str| {
        let text = format!(
            "vantage = \"internet\"\n[[check]]\nname = \"admin-alive\"\nkind = \"peer\"\ntarget = \"https://{}\"\ncheck = \"admin-open\"\n\
             expect = \"open\"\nca_file = \"ca.pem\"\n{keys}\nattempts = 1\n",
            office.at
        );
        fs::write(outside.path().join("probes.toml"), text).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mustnot"))
            .args(["check", "--format", "json"])
            .current_dir(outside.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let report: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {}", String::from_utf8_lossy(&output.stderr)));
        let told = report["checks"][0].clone();
        (told["verdict"].as_str().unwrap().to_string(), told["observations"][0]["outcome"].as_str().unwrap().to_string())
    };
    let all_held = || office.curl("/readyz", &["--cacert", "ca.pem"]).status == 200;
    office.until("its first run", || all_held().then_some(()));
    let certificate = "client_cert_file = \"client.pem\"\nclient_key_file = \"client.key\"";
    let right = "user = \"outside\"\npassword_file = \"right\"";
    let wrong = "user = \"outside\"\npassword_file = \"wrong\"";
    assert_eq!(check(&format!("{certificate}\n{right}")), ("holds".into(), "query-true".into()));
    assert_eq!(check(&format!("{certificate}\n{wrong}")).1, "status:401");
    assert_eq!(check(certificate).1, "status:401");
    assert_eq!(check(right).1, "status:403");
}

/// A health check beside the monitor has neither certificate nor password, and need not have: it is told by the file alone that TLS is spoken.
#[test]
fn a_health_check_needs_no_secret() {
    let ours = Authority::new("ours");
    let keys = format!("{TLS}client_ca_file = \"ca.pem\"\nbasic_auth = {{ ann = \"{}\" }}", hash("x"));
    let monitor = monitor(&keys, |folder| {
        ours.server().write(folder, "web");
        fs::write(folder.join("ca.pem"), &ours.pem).unwrap();
    });
    let healthcheck = |keys: &str| {
        fs::write(monitor.path("health.toml"), format!("vantage = \"office\"\n[web]\nlisten = \"{}\"\n{keys}\n", monitor.at)).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mustnot"));
        let output = command.args(["healthcheck", "--config", "health.toml"]).current_dir(monitor.folder.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    assert_eq!(healthcheck(&keys), (Some(0), format!("ok: https://{}/healthz\n", monitor.at)));
    let (code, said) = healthcheck("");
    assert_eq!(code, Some(1), "{said}");
}

/// A connection from this address of loopback.
fn from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::from(source), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask_by(mut stream: TcpStream) -> String {
    // One that was closed over the bound may be reset while it is written.
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split("\r\n").next().unwrap().to_string()
}

/// In the midst of a handshake, of a head, or of an answer that is never read: they fill their own places alone.
#[test]
fn clients_that_hang_keep_nobody_else_out() {
    let ours = Authority::new("ours");
    let plain = monitor("", |_| {});
    let tls = monitor(TLS, |folder| ours.server().write(folder, "web"));
    for (monitor, begun) in [(&plain, &b"GET /metrics HTTP/1.1\r\nHost"[..]), (&plain, b""), (&tls, b"\x16\x03\x01")] {
        let hanging: Vec<TcpStream> = (0..400)
            .map(|_| {
                let mut stream = from([127, 0, 0, 3], monitor.at);
                let _ = stream.write_all(begun);
                stream
            })
            .collect();
        if monitor.scheme == "http" {
            assert_eq!(ask_by(from([127, 0, 0, 4], monitor.at)), "HTTP/1.1 200 OK");
            assert_eq!(ask_by(from([127, 0, 0, 3], monitor.at)), "", "its own places are taken");
        } else {
            let answer = crate::monitor::curl(
                &format!("https://{}/healthz", monitor.at),
                monitor.folder.path(),
                &["-k", "--interface", "127.0.0.4"],
            );
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        drop(hanging);
        monitor.until("the places are free again", || {
            (ask_by(from([127, 0, 0, 3], monitor.at)) == "HTTP/1.1 200 OK" || monitor.scheme == "https").then_some(())
        });
    }
}

#[test]
fn a_listener_for_everybody_is_hinted_at() {
    let ours = Authority::new("ours");
    let folder = tempfile::tempdir().unwrap();
    ours.server().write(folder.path(), "web");
    fs::write(folder.path().join("ca.pem"), &ours.pem).unwrap();
    let hints = |listen: &str, more: &str| {
        let text = format!("vantage = \"v\"\n[web]\nlisten = \"{listen}\"\n{more}\n{CHECK}");
        let hints = from_text("f", &text, folder.path(), &|_| None, Keys::Read).unwrap_or_else(|e| panic!("{e}")).hints;
        hints.into_iter().filter(|hint| hint.contains("web")).collect::<Vec<_>>()
    };
    let auth = format!("basic_auth = {{ ann = \"{}\" }}", hash("x"));
    for listen in ["0.0.0.0:9890", "[::]:9890", "192.0.2.1:9890"] {
        let [hint] = hints(listen, "").try_into().unwrap();
        assert!(hint.starts_with(&format!("f:3:10: web.listen: {listen} is open to every host that can reach it")), "{hint}");
        assert_eq!(hints(listen, TLS).len(), 1, "TLS lets in everybody");
        let [hint] = hints(listen, &auth).try_into().unwrap();
        assert!(hint.contains("in plain text; write cert_file"), "{hint}");
        assert_eq!(hints(listen, &format!("{TLS}{auth}")), [""; 0]);
        assert_eq!(hints(listen, &format!("{TLS}client_ca_file = \"ca.pem\"")), [""; 0]);
    }
    for listen in ["127.0.0.1:9890", "127.1.2.3:9890", "[::1]:9890", "[::ffff:127.0.0.1]:9890"] {
        assert_eq!(hints(listen, ""), [""; 0]);
    }
}

//! A real Prometheus as witness: what it scraped of another monitor proves what that monitor reached, while it is fresh.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::run::{Monitor, check, config, gate, internet};
use crate::service::{Process, until};
use crate::world::{ADMIN4, Host, Lab, OFFICE4, SECOND_ADMIN4};

const SERVER: &str = "http://198.51.100.10:9090";

/// Prometheus at the office, which scrapes the monitor there once a second and, from another port, whatever `page` holds.
fn prometheus(lab: &Lab) -> Process {
    let text = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n- job_name: mustnot\n  static_configs: [ {{ targets: ['{OFFICE4}:9890'] }} ]\n\
         - job_name: page\n  metrics_path: /page.txt\n  static_configs: [ {{ targets: ['{OFFICE4}:9200'] }} ]\n"
    );
    fs::write(lab.dir().join("prometheus.yml"), text).unwrap();
    let listen = format!("--web.listen-address={OFFICE4}:9090");
    let command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=prometheus", &listen];
    let mut process = Process::spawn(lab, Host::Allowed, "prometheus", &command, false);
    let ready = until(Duration::from_secs(30), || {
        assert!(process.ended().is_none(), "prometheus ended at start: {}", lab.log("prometheus"));
        ask(lab, "up == 1").starts_with("[{").then_some(())
    });
    assert!(ready.is_some(), "prometheus scraped nothing: {}", lab.log("prometheus"));
    process
}

/// A web server at the office whose page Prometheus scrapes.
fn page(lab: &Lab, text: &str) -> Process {
    fs::write(lab.dir().join("page.txt"), text).unwrap();
    let command = [crate::service::python(), "-m", "http.server", "9200", "--bind", OFFICE4];
    Process::spawn(lab, Host::Allowed, "page", &command, false)
}

/// What Prometheus itself answers to an instant query.
fn ask(lab: &Lab, query: &str) -> String {
    let query = query
        .replace('{', "%7B")
        .replace('}', "%7D")
        .replace('"', "%22")
        .replace(' ', "%20")
        .replace('=', "%3D")
        .replace('>', "%3E")
        .replace('+', "%2B")
        .replace('[', "%5B")
        .replace(']', "%5D");
    let path = format!("/api/v1/query?query={query}");
    let answer = lab.hub(Host::Allowed).ask(&json!({ "do": "get", "host": OFFICE4, "port": 9090, "path": path }));
    let body: serde_json::Value = serde_json::from_str(answer["body"].as_str().unwrap_or_default()).unwrap_or_default();
    body["data"]["result"].to_string()
}

/// The time by its clock, in seconds since 1970.
fn server_time(lab: &Lab) -> f64 {
    let answer: serde_json::Value = serde_json::from_str(&ask(lab, "time()")).unwrap();
    answer[0].as_f64().unwrap()
}

fn wait(lab: &Lab, query: &str, what: &str, is: impl Fn(&str) -> bool) {
    let mut last = String::new();
    let seen = until(Duration::from_secs(30), || {
        last = ask(lab, query);
        is(&last).then_some(())
    });
    assert!(seen.is_some(), "{query} did not become {what}: {last}");
}

/// The office's monitor: what it gets through to, by address and by name, and what is blocked for it, too.
fn office(lab: &Lab) -> Monitor {
    let often = "interval = \"2s\"\ntimeout = \"1s\"\nattempts = 1";
    let open = format!("expect = \"open\"\n{often}");
    let text = format!(
        "vantage = \"office\"\n[web]\nlisten = \"{OFFICE4}:9890\"\n{}{}{}{}",
        check("admin-open", "tcp", &format!("{ADMIN4}:443"), &open),
        check(
            "admin-page",
            "http",
            &format!("https://{ADMIN4}/"),
            &format!("{open}\nca_file = {:?}\nserver_name = \"admin.lab.test\"", lab.dir().join("ca.pem"))
        ),
        check("admin-named", "tcp", "admin4.lab.test:443", &open),
        check(
            "second-closed",
            "tcp",
            &format!("{SECOND_ADMIN4}:9999"),
            &format!("expect = [\"refused\"]\nwitness = []\nrequire = []\n{often}")
        ),
    );
    Monitor::start(lab, Host::Allowed, OFFICE4, &text)
}

fn series(check: &str) -> String {
    format!("mustnot_check_verdict{{check=\"{check}\",vantage=\"office\",verdict=\"holds\"}}")
}

fn promql(name: &str, query: &str, rest: &str) -> String {
    check(name, "promql", SERVER, &format!("query = '{query}'\nexpect = \"open\"\nattempts = 1\n{rest}"))
}

/// A check that the query must not be true.
fn inverted(name: &str, server: &str, query: &str, witness: &str, rest: &str) -> String {
    check(name, "promql", server, &format!("query = \"{query}\"\nexpect = \"blocked\"\nwitness = [\"{witness}\"]\n{rest}"))
}

fn blocked(name: &str, target: &str, witness: &str, require: &str) -> String {
    check(name, "tcp", target, &format!("expect = \"blocked\"\nwitness = [\"internet\", {witness:?}]\nrequire = {require}"))
}

/// Configurations beside each other: a query, the check that has it as witness, and what that must come to.
struct Cases {
    body: String,
    expected: Vec<(String, &'static str, &'static str)>,
}

impl Cases {
    fn case(&mut self, name: &str, query: &str, rest: &str, target: &str, require: &str, expected: (&'static str, &'static str)) {
        let witness = format!("q-{name}");
        self.body += &promql(&witness, query, rest);
        self.body += &blocked(name, target, &witness, require);
        self.expected.push((name.into(), expected.0, expected.1));
    }

    fn judge(self, lab: &Lab) -> crate::run::Run {
        let run = gate(lab, Host::Stranger, &config("stranger", &(internet() + &self.body)));
        let mut wrong = Vec::new();
        for (name, verdict, cause) in &self.expected {
            let found = run.check(name);
            if (found["verdict"].as_str(), found["cause"].as_str()) != (Some(*verdict), Some(*cause)) {
                wrong.push(format!("{name} must be {verdict} {cause}: {found:#}\n{:#}", run.check(&format!("q-{name}"))));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        run
    }
}

#[test]
fn prometheus_proves_what_another_monitor_reached_while_it_is_fresh() {
    let Some(lab) = Lab::new() else { return };
    let (admin, both, vantage) = (format!("{ADMIN4}:443"), "[\"vantage\", \"target\"]", "[\"vantage\"]");
    let _page = page(&lab, "one{a=\"1\"} 1\none{a=\"2\"} 1\nzero 0\nmixed{a=\"1\"} 1\nmixed{a=\"2\"} 0\nnot_a_number NaN\n");
    let office = office(&lab);
    let mut server = prometheus(&lab);
    for name in ["admin-open", "admin-page", "admin-named", "second-closed"] {
        wait(&lab, &series(name), "1", |answer| answer.contains("\"1\""));
    }
    wait(&lab, "one", "there", |answer| answer.starts_with("[{"));
    // So that there are samples from before the first observation.
    wait(&lab, "count_over_time(one[1m])", "three samples", |answer| answer.contains("\"3\""));

    let (proves, fails, silent) = (("holds", "as-expected"), ("unproven", "witness-failed"), ("unproven", "no-witness"));
    let mut c = Cases { body: String::new(), expected: Vec::new() };
    c.case("reached", &series("admin-open"), "", &admin, both, proves);
    c.case("reached-http", &series("admin-page"), "", &admin, both, proves);
    c.case("reached-by-name-here", &series("admin-open"), "", "admin4.lab.test:443", both, proves);
    // A name at the other monitor may be any of its addresses, and of any family.
    c.case("reached-by-name-there", &series("admin-named"), "", "admin4.lab.test:443", both, silent);
    c.case("other-port", &series("admin-open"), "", &format!("{ADMIN4}:22"), both, silent);
    c.case("other-address", &series("admin-open"), "", &format!("{SECOND_ADMIN4}:443"), both, silent);
    // It holds there that this is closed, so nobody reached it.
    c.case("blocked-there", &series("second-closed"), "", &format!("{SECOND_ADMIN4}:9999"), both, silent);
    c.case("one", "one", "", &admin, vantage, proves);
    c.case("all", "one{a=~\"1|2\"}", "", &admin, vantage, proves);
    c.case("zero", "zero", "", &admin, vantage, fails);
    c.case("mixed", "mixed", "", &admin, vantage, fails);
    c.case("nan", "not_a_number", "", &admin, vantage, fails);
    c.case("empty", "nobody_has_this", "", &admin, vantage, fails);
    c.case("error", "one{a=}", "", &admin, vantage, fails);
    // Another HTTP server, on the port of the monitor itself.
    for (name, port) in [("monitor", 9890), ("plain-files", 9200), ("nobody", 9299)] {
        let wrong =
            check(&format!("q-{name}"), "promql", &format!("http://{OFFICE4}:{port}"), "query = \"one\"\nexpect = \"open\"\nattempts = 1");
        c.body += &wrong;
        c.body += &blocked(name, &admin, &format!("q-{name}"), vantage);
        c.expected.push((name.into(), fails.0, fails.1));
    }
    // What must not be is, where one of several series says so; what is no number says nothing.
    for name in ["mixed", "zero", "not_a_number"] {
        c.body += &inverted(&format!("no-{name}"), SERVER, name, "q-one", "");
    }
    let run = c.judge(&lab);
    run.expect("no-mixed", "violated", "open", "query-true");
    run.expect("no-zero", "holds", "as-expected", "query-false");
    run.expect("no-not_a_number", "unproven", "other-denial", "mismatch");
    run.expect_proofs("reached", &["port", "target", "vantage"]);
    run.expect("q-zero", "violated", "not-open", "query-false");
    run.expect("q-empty", "violated", "not-open", "query-false");
    run.expect("q-nan", "violated", "not-open", "mismatch");
    run.expect("q-error", "violated", "not-open", "status:400");
    run.expect("q-monitor", "violated", "not-open", "status:404");
    let told = run.check("q-error")["reason"].as_str().unwrap();
    assert!(told.contains("parse error"), "{told}");

    // The other monitor dies, and Prometheus with it for a moment, so that nobody marks the series stale: an instant query
    // gives its last word for five minutes.
    let died = server_time(&lab);
    server.signal(nix::sys::signal::Signal::SIGKILL);
    assert!(server.wait(Duration::from_secs(10)).is_some());
    assert_eq!(office.terminate(&lab), Some(0));
    let _again = prometheus(&lab);
    // What it says of `up` by now may be of its former life.
    wait(&lab, &format!("timestamp(one) > {}", died + 4.0), "scraped again", |answer| answer.starts_with("[{"));
    let mut c = Cases { body: String::new(), expected: Vec::new() };
    let old = "max_age = \"3s\"";
    c.case("dead", &series("admin-open"), old, &admin, both, fails);
    c.case("dead-for-vantage", &series("admin-open"), old, &admin, vantage, fails);
    c.case("alive", "one", old, &admin, vantage, proves);
    c.judge(&lab).expect("q-dead", "violated", "not-open", "query-false");
}

#[test]
fn a_target_that_is_gone_is_stale_and_one_that_wavers_did_not_hold() {
    let Some(lab) = Lab::new() else { return };
    let (admin, vantage) = (format!("{ADMIN4}:443"), "[\"vantage\"]");
    // A sample that carries its own time is never marked stale: an instant query repeats it for five minutes.
    let page = page(&lab, "waits 1\n");
    let _server = prometheus(&lab);
    wait(&lab, "waits", "there", |answer| answer.starts_with("[{"));
    let stamp = ((server_time(&lab) - 30.0) * 1000.0).round();
    fs::write(lab.dir().join("page.txt"), format!("old 1 {stamp}\nold_zero 0 {stamp}\nwavers 0\nwaits 1\n")).unwrap();
    wait(&lab, "wavers", "there", |answer| answer.starts_with("[{"));
    wait(&lab, "old", "there", |answer| answer.contains("\"1\""));
    fs::write(lab.dir().join("page.txt"), "wavers 1\nwaits 1\n").unwrap();
    wait(&lab, "wavers", "1", |answer| answer.contains("\"1\""));
    wait(&lab, "old", "still there", |answer| answer.contains("\"1\""));

    let fails = ("unproven", "witness-failed");
    let mut c = Cases { body: String::new(), expected: Vec::new() };
    c.case("old", "old", "max_age = \"20s\"", &admin, vantage, fails);
    c.case("old-enough", "old", "max_age = \"250s\"", &admin, vantage, ("holds", "as-expected"));
    // An inverted check: what was last seen is not what it accepts, and it is too old to say that it is not.
    c.body += &promql("q-alive", "up{job=\"page\"}", "");
    c.body += &inverted("inverted-old", SERVER, "old", "q-alive", "max_age = \"20s\"");
    c.body += &inverted("inverted-old-zero", SERVER, "old_zero", "q-alive", "max_age = \"20s\"");
    c.body += &inverted("inverted-zero", SERVER, "old_zero", "q-alive", "max_age = \"250s\"");
    c.body += &inverted("inverted-true", SERVER, "waits", "q-alive", "");
    c.body += &inverted("inverted-empty", SERVER, "nobody_has_this", "q-alive", "");
    c.body += &inverted("inverted-unanswered", &format!("http://{OFFICE4}:9299"), "waits", "q-alive", "");
    let run = c.judge(&lab);
    run.expect("q-old", "violated", "not-open", "query-false");
    run.expect("inverted-old", "unproven", "other-denial", "query-false");
    run.expect("inverted-old-zero", "unproven", "other-denial", "query-false");
    run.expect("inverted-zero", "holds", "as-expected", "query-false");
    run.expect("inverted-true", "violated", "open", "query-true");
    run.expect("inverted-empty", "holds", "as-expected", "query-false");
    run.expect("inverted-unanswered", "unproven", "other-denial", "refused");

    // A series that says yes by now, but said no within the observation that it is to stand around.
    let body = internet() + &promql("q-wavers", "wavers", "") + &blocked("wavers", &admin, "q-wavers", vantage);
    fs::write(lab.dir().join("page.txt"), "wavers 0\nwaits 1\n").unwrap();
    wait(&lab, "wavers", "0", |answer| answer.contains("\"0\""));
    let gate = crate::run::start_gate(&lab, Host::Stranger, &config("stranger", &body), None);
    let run = gate.finish(&lab);
    run.expect("wavers", "unproven", "witness-failed", "timeout");

    // The exporter is gone: its series are marked stale at once, and the instant question says so.
    drop(page);
    wait(&lab, "waits", "gone", |answer| answer == "[]");
    let mut c = Cases { body: String::new(), expected: Vec::new() };
    c.case("gone", "waits", "max_age = \"250s\"", &admin, vantage, fails);
    c.judge(&lab);
}

/// A server that is no Prometheus, or half of one: what it answers is the first part of the path.
const IMPOSTOR: &str = r#"
import http.server, json, socketserver, sys, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        what = self.path.split('/')[1]
        kind = 'matrix' if '%5B' in self.path else 'vector'
        now = time.time()
        sample = {'metric': {'__name__': 'a'}, 'values': [[now - 1, '1']]} if kind == 'matrix' else {'metric': {'__name__': 'a'}, 'value': [now, '1']}
        good = lambda result, **more: json.dumps({'status': 'success', 'data': {'resultType': kind, 'result': result}, **more})
        pages = {
            'page': (200, '<html>welcome</html>'), 'nothing': (204, ''), 'login': (302, ''), 'denied': (403, 'no'), 'broken': (503, ''),
            'error': (200, json.dumps({'status': 'error', 'error': 'not today'})), 'drip': (200, None), 'never': (200, good([])),
            'half-empty': (200, good([], warnings=['store 2 is silent'])), 'half-true': (200, good([sample], warnings=['store 2 is silent'])),
        }
        status, body = pages[what]
        self.send_response(status)
        if what == 'login':
            self.send_header('Location', '/page')
        self.send_header('Content-Length', str(len(body)) if body is not None else '1000')
        self.end_headers()
        for byte in (body.encode() if body is not None else b' ' * 1000):
            self.wfile.write(bytes([byte]))
            if body is None:
                self.wfile.flush()
                time.sleep(0.1)
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64
Server((sys.argv[1], 9300), Answer).serve_forever()
"#;

#[test]
fn what_is_no_result_of_prometheus_neither_proves_nor_violates() {
    let Some(lab) = Lab::new() else { return };
    let _impostor = Process::spawn(&lab, Host::Allowed, "impostor", &[crate::service::python(), "-c", IMPOSTOR, OFFICE4], false);
    let ready = until(Duration::from_secs(30), || {
        let answer = lab.hub(Host::Allowed).ask(&json!({ "do": "get", "host": OFFICE4, "port": 9300, "path": "/page" }));
        answer["body"].as_str().is_some_and(|body| body.contains("welcome")).then_some(())
    });
    assert!(ready.is_some(), "the impostor did not start: {}", lab.log("impostor"));
    let mut body = internet();
    for name in ["page", "nothing", "login", "denied", "broken", "error", "drip", "never", "half-empty", "half-true"] {
        body += &inverted(name, &format!("http://{OFFICE4}:9300/{name}"), "a", "internet", "timeout = \"3s\"");
    }
    let run = gate(&lab, Host::Stranger, &config("stranger", &body));
    for (name, outcome) in [
        ("page", "mismatch"),
        ("nothing", "status:204"),
        ("login", "status:302"),
        ("denied", "status:403"),
        ("broken", "status:503"),
        ("error", "mismatch"),
        ("drip", "*"),
        ("half-empty", "mismatch"),
    ] {
        run.expect(name, "unproven", "other-denial", outcome);
    }
    run.expect("never", "holds", "as-expected", "query-false");
    run.expect("half-true", "violated", "open", "query-true");
    let told = run.check("half-empty")["reason"].as_str().unwrap();
    assert!(told.contains("may not be whole: store 2 is silent"), "{told}");
}

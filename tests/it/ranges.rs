//! Kind `ranges`: what is published by a real HTTPS server, or lies in a file, against what is expected; by `mustnot check`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use mustnot::clock::Moment;
use mustnot::engine::{Engine, Listener};
use mustnot::history::Board;
use mustnot::plan::{Keys, from_text};
use mustnot::record::Record;
use serde_json::Value;

/// The bytes of an answer, head and all.
type Answers = Arc<Mutex<Vec<Vec<u8>>>>;

/// An HTTPS server that gives these answers one after the other, and the last one again and again; it keeps what it was asked.
struct Publisher {
    address: String,
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Publisher {
    fn start(folder: &Path, polite: bool) -> Publisher {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
        fs::write(folder.join("ca.pem"), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answers, asked): (Answers, Arc<Mutex<Vec<String>>>) = Default::default();
        let (say, keep) = (Arc::clone(&answers), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
                let mut request = [0; 4096];
                let Ok(length) = stream.read(&mut request) else { continue };
                keep.lock().unwrap().push(String::from_utf8_lossy(&request[..length]).into_owned());
                let mut answers = say.lock().unwrap();
                let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
                let _ = stream.write_all(&answer);
                if polite {
                    stream.conn.send_close_notify();
                }
                let _ = stream.flush();
            }
        });
        Publisher { address, answers, asked }
    }

    fn url(&self) -> String {
        format!("https://{}/ranges", self.address)
    }

    fn gives(&self, answers: &[Vec<u8>]) {
        *self.answers.lock().unwrap() = answers.to_vec();
    }
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn raw(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// One round over one check; its record and the exit code.
fn judged(folder: &Path, target: &str, keys: &str) -> (Value, i32) {
    let text = format!(
        "vantage = \"here\"\n[[check]]\nname = \"sase\"\nkind = \"ranges\"\ntarget = \"{target}\"\nexpect = \"open\"\n{keys}\n\
         [[check]]\nname = \"away\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:1\"\nexpect = \"open\"\nattempts = 1\n"
    );
    fs::write(folder.join("probes.toml"), text).unwrap();
    let command = ["check", "--only", "sase", "--format", "json"];
    let output = Command::new(env!("CARGO_BIN_EXE_mustnot")).args(command).current_dir(folder).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let check = report["checks"].as_array().unwrap().iter().find(|c| c["name"] == "sase").unwrap().clone();
    (check, output.status.code().unwrap())
}

fn seen(check: &Value) -> &Value {
    &check["observations"][0]
}

const TRUSTED: &str = "ca_file = \"ca.pem\"\nattempts = 1";

#[test]
fn drift_is_told_from_a_list_that_is_cut_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = Publisher::start(folder.path(), true);
    fs::write(folder.path().join("ranges.txt"), "203.0.113.0/24 # the SASE\n2001:db8::/32\n198.51.100.7/32 # our office\n").unwrap();
    let keys = format!("{TRUSTED}\nexpected = \"ranges.txt\"\nbesides = \"198.51.100.7\"");
    let of = |body: &str| {
        publisher.gives(&[ok(body)]);
        judged(folder.path(), &publisher.url(), &keys)
    };
    // The same addresses: halves, twice, in another order, and what is ours.
    for same in [
        "203.0.113.0/24\n2001:db8::/32\n",
        "2001:db8:8000::/33\n203.0.113.128/25\n203.0.113.0/25\n203.0.113.7\n2001:db8::/33\n2001:db8::/32",
        "203.0.113.0/24\n2001:db8::/32\n198.51.100.7\n",
    ] {
        let (check, code) = of(same);
        assert_eq!((check["verdict"].as_str(), code), (Some("holds"), 0), "{check}");
        assert_eq!(seen(&check)["outcome"], "query-true");
        assert_eq!(seen(&check)["evidence"]["ranges"], serde_json::json!({ "published": 2, "expected": 2 }));
    }
    let (check, code) = of("203.0.113.0/24\n203.0.112.0/24\n2001:db8::/32\n");
    assert_eq!((check["verdict"].as_str(), check["cause"].as_str(), code), (Some("violated"), Some("not-open"), 1), "{check}");
    let ranges = &seen(&check)["evidence"]["ranges"];
    assert_eq!((ranges["drift"].as_str(), ranges["added"].clone()), (Some("widened"), serde_json::json!(["203.0.112.0/24"])), "{ranges}");
    let reason = check["reason"].as_str().unwrap();
    let said = "publishes another list than is expected, widened: 203.0.112.0/24 is published and not in ranges.txt, seen from here; clients from what is new are refused here until it stands in ranges.txt.";
    assert!(reason.contains(said) && reason.starts_with(&publisher.url()), "{reason}");
    let (check, code) = of("203.0.113.0/25\n203.0.113.192/26\n2001:db8::/32\n");
    let ranges = &seen(&check)["evidence"]["ranges"];
    assert_eq!((ranges["drift"].as_str(), ranges["removed"].clone(), code), (Some("narrowed"), serde_json::json!(["203.0.113.128/26"]), 1));
    let reason = check["reason"].as_str().unwrap();
    assert!(reason.contains("narrowed: 203.0.113.128/26 is in ranges.txt and published no more, seen from here; what is published no more may be somebody else's tomorrow"), "{reason}");
    let (check, code) = of("203.0.113.0/24\n2001:db8:1::/48\n10.0.0.0/8\n");
    let ranges = &seen(&check)["evidence"]["ranges"];
    assert_eq!((ranges["drift"].as_str(), ranges["added"].clone(), code), (Some("changed"), serde_json::json!(["10.0.0.0/8"]), 1));
    assert_eq!((ranges["removed"].as_array().unwrap().len(), ranges["removed"][0].as_str()), (16, Some("2001:db8::/48")));
    assert!(check["reason"].as_str().unwrap().contains(" and 11 more are in ranges.txt"), "{check}");
    // Of one family alone it is no drift.
    let keys = format!("{keys}\nonly = \"ipv4\"");
    assert_eq!(judged(folder.path(), &publisher.url(), &keys).0["observations"][0]["evidence"]["ranges"]["drift"], "widened");
    publisher.gives(&[ok("203.0.113.0/24\n2001:db8:1::/48\n")]);
    assert_eq!(judged(folder.path(), &publisher.url(), &keys).0["verdict"], "holds");
    // Everybody is no list that anybody should take, and what is left out of it makes it no smaller; mapped addresses are those that they map.
    for all in ["0.0.0.0/0\n2001:db8::/32\n", "128.0.0.0/1\n0.0.0.0/1\n2001:db8::/32\n", "::ffff:0:0/96\n2001:db8::/32\n"] {
        let (check, code) = of(all);
        let ranges = &seen(&check)["evidence"]["ranges"];
        assert_eq!((ranges["drift"].as_str(), ranges["everybody"].as_bool(), code), (Some("widened"), Some(true), 1), "{check}");
        assert!(check["reason"].as_str().unwrap().contains("that is everybody, and no list of a publisher"), "{check}");
    }
    assert_eq!(of("::ffff:203.0.113.0/120\n2001:db8::/32\n").0["verdict"], "holds");
}

#[test]
fn what_is_no_whole_list_is_neither_the_same_nor_another() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = Publisher::start(folder.path(), true);
    let rude = tempfile::tempdir().unwrap();
    let rude = (Publisher::start(rude.path(), false), rude);
    let keys = format!("{TRUSTED}\nexpected = [\"203.0.113.0/24\"]");
    let list = "203.0.113.0/24\n";
    let with = |status: &str, more: &str, body: &str| raw(&format!("HTTP/1.1 {status}\r\n{more}\r\n{body}"));
    let length = |n: usize| format!("Content-Length: {n}\r\n");
    for (answer, outcome, why) in [
        (ok(""), "mismatch", "it names no network"),
        (ok("<html><title>Sign in</title></html>"), "mismatch", "line 1: \"<html><title>Sign in</title></html>\" is no network"),
        (ok("203.0.113.0/24\n203.0.113.9/24"), "mismatch", "line 2: \"203.0.113.9/24\" has bits set behind its prefix"),
        (ok("[\"203.0.113.0/24\""), "mismatch", "EOF while parsing a list"),
        (with("200 OK", &length(list.len() + 9), list), "mismatch", "it broke off after 15 bytes"),
        (with("200 OK", "Transfer-Encoding: chunked\r\n", &format!("f\r\n{list}\r\n")), "mismatch", "it broke off after 15 bytes"),
        (with("200 OK", "", list), "mismatch", "nothing in the answer says where it ends"),
        (with("200 OK", &format!("Content-Encoding: gzip\r\n{}", length(15)), list), "mismatch", "it is encoded (gzip)"),
        (with("206 Partial Content", &length(15), list), "status:206", "answered 206 instead of 200 with the list"),
        (with("304 Not Modified", "", ""), "status:304", "answered 304 instead of 200"),
        (
            with("301 Moved", &format!("Location: https://new.example.com/\r\n{}", length(15)), list),
            "status:301",
            "which leads to https://new.example.com/",
        ),
        (with("404 Not Found", &length(15), list), "status:404", "answered 404 instead of 200"),
        (with("503 Later", &length(15), list), "status:503", "answered 503 instead of 200"),
        (raw("203.0.113.0/24\n"), "bad-http", "something that is not HTTP"),
        (raw(""), "closed", "closed it at stage http"),
    ] {
        publisher.gives(&[answer]);
        let (check, code) = judged(folder.path(), &publisher.url(), &keys);
        let got = (check["verdict"].as_str().unwrap(), seen(&check)["outcome"].as_str().unwrap(), code);
        assert_eq!(got, ("unproven", outcome, 3), "{check}");
        let reason = check["reason"].as_str().unwrap();
        assert!(reason.contains(why) && reason.contains("without the list nothing can be said of it"), "{why}: {reason}");
    }
    // A list without end is not read to its end: one byte within the bound it is one, and one behind it none.
    let bound = 16 * 1024 * 1024;
    for (length, verdict) in [(bound - 1, "holds"), (bound, "unproven"), (3 * bound, "unproven")] {
        publisher.gives(&[ok(&format!("{list}{}", "\n".repeat(length - list.len())))]);
        let (check, _) = judged(folder.path(), &publisher.url(), &format!("{keys}\ntimeout = \"60s\""));
        assert_eq!(check["verdict"], verdict, "{}", check["reason"]);
    }
    // Both sides of those borders: the same list, whole.
    let chunked = with("200 OK", "Transfer-Encoding: chunked\r\n", &format!("f\r\n{list}\r\n0\r\n\r\n"));
    for answer in [ok(list), chunked, with("200 OK", "", "[\"203.0.113.0/24\"]")] {
        publisher.gives(&[answer]);
        let (check, code) = judged(folder.path(), &publisher.url(), &keys);
        assert_eq!((check["verdict"].as_str(), code), (Some("holds"), 0), "{check}");
    }
    // An end of TLS that says nothing of it does not end a list of lines.
    rude.0.gives(&[with("200 OK", "", list)]);
    assert_eq!(judged(rude.1.path(), &rude.0.url(), &keys).0["verdict"], "unproven");
    // A certificate of somebody else, and nobody there.
    publisher.gives(&[ok("198.51.100.0/24")]);
    let (check, code) = judged(folder.path(), &publisher.url(), "attempts = 1\nexpected = [\"203.0.113.0/24\"]");
    assert_eq!(
        (check["verdict"].as_str(), seen(&check)["outcome"].as_str(), code),
        (Some("unproven"), Some("tls-untrusted"), 3),
        "{check}"
    );
    let refusing = "https://127.0.0.1:1/ranges";
    let (check, code) = judged(folder.path(), refusing, &keys);
    assert_eq!((check["verdict"].as_str(), seen(&check)["outcome"].as_str(), code), (Some("unproven"), Some("refused"), 3), "{check}");
}

#[test]
fn a_drift_that_was_read_once_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = Publisher::start(folder.path(), true);
    let keys = "ca_file = \"ca.pem\"\nattempts = 3\nexpected = [\"203.0.113.0/24\"]";
    let (drift, same, busy) = (ok("198.51.100.0/24"), ok("203.0.113.0/24"), raw("HTTP/1.1 429 Slower\r\nContent-Length: 0\r\n\r\n"));
    for (answers, verdict) in [
        (vec![drift.clone(), busy.clone()], "violated"),
        (vec![busy.clone(), busy.clone(), drift.clone()], "violated"),
        (vec![drift.clone(), busy.clone(), same.clone()], "holds"),
        (vec![busy.clone()], "unproven"),
    ] {
        publisher.gives(&answers);
        let (check, _) = judged(folder.path(), &publisher.url(), keys);
        assert_eq!(check["verdict"], verdict, "{check}");
    }
    // A witness that failed: what TLS has proven needs none.
    publisher.gives(&[drift]);
    assert_eq!(judged(folder.path(), &publisher.url(), &format!("{keys}\nwitness = [\"away\"]")).0["verdict"], "violated");
}

#[test]
fn pointers_filters_and_headers_reach_the_publisher_and_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = Publisher::start(folder.path(), true);
    let published = r#"{ "prefixes": [ { "ip_prefix": "203.0.113.0/25", "service": "EC2" }, { "ip_prefix": "203.0.113.128/25", "service": "EC2" },
        { "ip_prefix": "198.51.100.0/24", "service": "S3" } ], "ipv6_prefixes": [ { "ipv6_prefix": "2001:db8::/32", "service": "EC2" } ] }"#;
    publisher.gives(&[ok(published)]);
    fs::write(folder.path().join("outputs.json"), r#"{ "ec2": { "sensitive": false, "value": ["203.0.113.0/24", "2001:db8::/32"] } }"#)
        .unwrap();
    let keys = format!(
        "{TRUSTED}\npointer = [\"/prefixes/*/ip_prefix\", \"/ipv6_prefixes/*/ipv6_prefix\"]\nwhere = {{ service = \"EC2\" }}\n\
         expected = \"outputs.json\"\nexpected_pointer = \"/ec2/value\"\nheaders = {{ Authorization = \"Bearer hunter2\" }}"
    );
    let (check, code) = judged(folder.path(), &publisher.url(), &keys);
    assert_eq!((check["verdict"].as_str(), code), (Some("holds"), 0), "{check}");
    let asked = publisher.asked.lock().unwrap().join("\n");
    assert!(asked.starts_with("GET /ranges HTTP/1.1\r\n") && asked.contains("\r\nAuthorization: Bearer hunter2\r\n"), "{asked}");
    assert!(asked.contains("\r\nCache-Control: no-cache\r\n"), "what a cache kept was published once: {asked}");
    assert!(!check.to_string().contains("hunter2"), "{check}");
}

#[test]
fn files_are_read_again_each_time_and_a_broken_one_proves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("ranges.txt", "203.0.113.0/24\n");
    write("published.json", "{ \"a\": [\"203.0.113.0/24\"] }");
    let keys = "attempts = 1\nexpected = \"ranges.txt\"\npointer = \"/a\"";
    let of = || judged(folder.path(), "file:published.json", keys);
    let (check, code) = of();
    assert_eq!((check["verdict"].as_str(), code), (Some("holds"), 0), "{check}");
    let one = seen(&check);
    assert_eq!(
        (one["stage"].as_str(), one["address"].as_str(), one["evidence"]["local_address"].as_str()),
        (Some("file"), Some("published.json"), None)
    );
    write("published.json", "{ \"a\": [\"203.0.113.0/25\"] }");
    let (check, code) = of();
    assert_eq!((check["verdict"].as_str(), code), (Some("violated"), 1), "{check}");
    assert_eq!(check["observations"][0]["evidence"]["ranges"]["drift"], "narrowed");
    for (text, outcome) in [("{ \"a\": [] }", "mismatch"), ("{ \"a\": [\"203.0.113.0/2", "mismatch"), ("", "mismatch")] {
        write("published.json", text);
        let (check, code) = of();
        assert_eq!(
            (check["verdict"].as_str(), seen(&check)["outcome"].as_str(), code),
            (Some("unproven"), Some(outcome), 3),
            "{text}: {check}"
        );
    }
    fs::remove_file(folder.path().join("published.json")).unwrap();
    let (check, code) = of();
    assert_eq!((check["verdict"].as_str(), check["cause"].as_str(), code), (Some("unproven"), Some("local"), 3), "{check}");
    // A pipe that nobody writes to, and a folder, are not waited for.
    assert!(Command::new("mkfifo").arg(folder.path().join("published.json")).status().unwrap().success());
    let (check, _) = of();
    assert!(check["reason"].as_str().unwrap().contains("it is not a file"), "{check}");
}

/// Nobody listens to this engine.
struct Nobody;

impl Listener for Nobody {
    fn finished(&self, _: &Record) {}
    fn witness(&self, _: &str, _: &str, _: bool) {}
    fn looking(&self, _: i64) {}
    fn lag(&self, _: std::time::Duration) {}
}

/// Over plain http the list is whoever's who sits on the way: it is said, and only then.
#[test]
fn a_list_over_plain_http_is_hinted_at() {
    let hints = |scheme: &str| {
        let text = format!(
            "vantage = \"here\"\n[[check]]\nname = \"sase\"\nkind = \"ranges\"\ntarget = \"{scheme}://ranges.example.com/\"\nexpected = [\"203.0.113.0/24\"]\nexpect = \"open\"\n"
        );
        from_text("f", &text, Path::new("."), &|_| None, Keys::Read).unwrap().hints
    };
    assert_eq!(hints("https"), [""; 0]);
    assert_eq!(
        hints("http"),
        ["f:5:10: check \"sase\".target: is fetched over plain http, so whoever sits on the way may write the list; write https://"]
    );
}

/// While `run` goes on: the expected file is taken up as it is at the next run, and one that is gone is said to be.
#[test]
fn what_is_expected_may_change_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("ranges.txt", "203.0.113.0/24\n");
    write("published.txt", "203.0.113.0/24\n");
    let text = "vantage = \"here\"\n[[check]]\nname = \"sase\"\nkind = \"ranges\"\ntarget = \"file:published.txt\"\nexpected = \"ranges.txt\"\nexpect = \"open\"\nattempts = 1\n";
    let loaded = from_text("f", text, folder.path(), &|_| None, Keys::Read).unwrap();
    let plan = Arc::new(loaded.plan);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let board = Arc::new(Board::new(Engine::about(&plan)));
    let engine = Engine::new(plan, Arc::clone(&board), Arc::new(Nobody), None);
    let told = || {
        runtime.block_on(engine.round(&[0], None));
        let reading = board.read(Moment::now()).into_iter().next().unwrap();
        (reading.record.verdict.token(), reading.record.reason.clone())
    };
    assert_eq!(told().0, "holds");
    write("ranges.txt", "203.0.113.0/25\n");
    assert_eq!(told().0, "violated");
    write("ranges.txt", "");
    let (verdict, reason) = told();
    assert!(
        verdict == "unproven" && reason.contains("what is expected is not known") && reason.contains("it names no network"),
        "{reason}"
    );
    fs::remove_file(folder.path().join("ranges.txt")).unwrap();
    let (verdict, reason) = told();
    assert!(verdict == "unproven" && reason.contains("ranges.txt cannot be read: No such file"), "{reason}");
    write("ranges.txt", "203.0.113.0/24\n0.0.0.0/0\n");
    write("published.txt", "0.0.0.0/0\n");
    let (verdict, reason) = told();
    assert!(verdict == "unproven" && reason.contains("ranges.txt has 0.0.0.0/0, which is everybody"), "{reason}");
    write("published.txt", "203.0.113.0/24\n");
    write("ranges.txt", "203.0.113.0/24\n");
    assert_eq!(told().0, "holds");
}

//! Who scrapes: a real Prometheus sees the same in both formats, and nobody who scrapes ever waits for a probe.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::proxy_life::Program;
use crate::scene::{PATIENCE, Prometheus, Scene, until, with_accept};

/// What changes from one scrape to the next although nothing happens.
fn is_alive(name: &str) -> bool {
    name.starts_with("process_") || name.starts_with("scrape_") || name == "mustnot_fd_used"
}

/// Prometheus 2.42 asks for OpenMetrics, and cannot be told not to (`scrape_protocols` came with 2.49): for the other format, something between
/// asks for the plain text alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_sees_the_same_series_and_values_in_both_formats() {
    let scene = Scene::start("1h").await;
    let (forwarder, heard) = with_accept(scene.web(), "text/plain;version=0.0.4");
    let test = "a_real_prometheus_sees_the_same_series_and_values_in_both_formats";
    let Some(prometheus) = Prometheus::start(test, &[("openmetrics", scene.web()), ("text", forwarder)], None) else { return };
    let up = |job: &str| prometheus.query(&format!("up{{job=\"{job}\"}}")).first().is_some_and(|(_, value)| *value == 1.0);
    until("both are up", || up("openmetrics") && up("text"));
    let (asked, given) = heard.recv_timeout(PATIENCE).unwrap();
    assert!(asked.starts_with("application/openmetrics-text;"), "it asks for OpenMetrics by itself: {asked}");
    assert_eq!(given, mustnot::metrics::CONTENT_TYPE);

    let of = |job: &str| -> BTreeMap<Vec<(String, String)>, f64> {
        let mut all = BTreeMap::new();
        for (mut labels, value) in prometheus.query(&format!("{{job=\"{job}\"}}")) {
            labels.retain(|name, _| name != "job" && name != "instance");
            let name = labels["__name__"].clone();
            // of what is never at rest only the series is the same
            let value = if is_alive(&name) { 0.0 } else { value };
            assert!(all.insert(labels.into_iter().collect(), value).is_none(), "two of {name}");
        }
        all
    };
    until("the same in both", || of("openmetrics") == of("text"));
    let all = of("text");
    let has = |name: &str, labels: &[(&str, &str)]| {
        let fits = |series: &[(String, String)]| {
            [("__name__", name)].iter().chain(labels).all(|(key, value)| series.iter().any(|(k, v)| k == key && v == value))
        };
        all.keys().filter(|series| fits(series)).count()
    };
    assert_eq!(has("mustnot_check_verdict", &[("check", "breached"), ("verdict", "violated"), ("vantage", "v")]), 1);
    assert_eq!(has("mustnot_check_runs_total", &[("check", "closed")]), 3, "a counter has its whole name in both");
    assert_eq!(has("mustnot_probe_duration_seconds_bucket", &[("kind", "tcp"), ("stage", "tcp"), ("le", "0.5")]), 1);
    assert_eq!(has("mustnot_proxy_bytes_total", &[("direction", "sent"), ("source", "127.0.0.1/32")]), 1);
    assert!(all.len() > 250, "{} series", all.len());
}

/// One probe hangs at a server that takes connections and says nothing, one at a resolver that is silent. A hundred readers are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_never_waits_for_a_probe() {
    let (say, heard) = channel();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
    resolver.set_read_timeout(Some(PATIENCE)).unwrap();
    let checks = format!(
        "[web]\nlisten = \"127.0.0.1:0\"\n[defaults]\nattempts = 1\ninterval = \"1h\"\ntimeout = \"5m\"\n\
         [[check]]\nname = \"hangs\"\nkind = \"http\"\ntarget = \"http://{}/\"\nexpect = \"open\"\n\
         [[check]]\nname = \"waits-for-its-name\"\nkind = \"tcp\"\ntarget = \"slow.example.com:443\"\nresolver = \"{}\"\nexpect = \"open\"\n",
        server.local_addr().unwrap(),
        resolver.local_addr().unwrap()
    );
    std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
        say.send("it hangs").unwrap();
        let _ = stream.read(&mut [0; 1]);
        let _ = say.send("it was given up");
    });
    let program = Program::with("run", "", "", &checks);
    assert_eq!(heard.recv_timeout(PATIENCE), Ok("it hangs"));
    assert_ne!(resolver.recv(&mut [0; 512]).unwrap(), 0, "the name is asked for");

    let web = program.web.unwrap();
    let reader = |at: usize| {
        std::thread::spawn(move || {
            let accept = if at.is_multiple_of(2) { "text/plain" } else { "application/openmetrics-text" };
            scrape(web, accept)
        })
    };
    // fewer at once than are served at once, so that none is turned away
    let answers: Vec<String> =
        (0..10).flat_map(|_| (0..10).map(reader).collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()).collect();
    for answer in &answers {
        for name in ["hangs", "waits-for-its-name"] {
            let pending = answer.lines().any(|line| {
                let is = ["mustnot_check_cause{", &format!("check=\"{name}\""), "cause=\"pending\""].iter().all(|part| line.contains(part));
                is && line.ends_with(" 1")
            });
            assert!(pending, "{name} had ended by then: {answer}");
        }
        assert!(answer.lines().any(|line| line == "mustnot_probes_in_flight{vantage=\"v\"} 1"), "the probe was under way: {answer}");
    }
    assert!(heard.try_recv().is_err(), "the probe still hangs");
    assert_eq!(answers.len(), 100);
}

fn scrape(web: SocketAddr, accept: &str) -> String {
    let mut stream = TcpStream::connect(web).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer
}

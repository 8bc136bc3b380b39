//! A real `mustnot run` with neighbours that give every metric a series, for those who read metrics; and the readers: a real Prometheus, and
//! Python with the packages of `tests/python/requirements.txt`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::proxy_life::Program;

/// How long a server may take to start, or to take notice; never how long it should.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// No status: the page says nothing.
const SILENCE: u16 = 0;

/// A listener whose connections go to `serve`, each in a thread of its own.
fn listener(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    at
}

/// It takes connections, and says nothing until its client leaves.
pub fn mute() -> SocketAddr {
    listener(|mut stream| while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {})
}

fn page() -> SocketAddr {
    listener(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    })
}

/// A page that says `hello` until it is told to fail, or to be silent.
fn changing_page(says: Arc<AtomicU16>) -> SocketAddr {
    listener(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        match says.load(Ordering::Relaxed) {
            SILENCE => while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {},
            status => {
                let _ = write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        }
    })
}

/// A TLS server, and the certificate that it shows.
fn tls() -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let config = Arc::new(config);
    let at = listener(move |stream| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
    });
    (at, made.cert.pem())
}

/// A port that refuses, for as long as it is held.
fn closed() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, at)
}

/// The monitor with its neighbours.
pub struct Scene {
    pub program: Program,
    _closed: Socket,
    /// Refused at first; from [`Scene::change_the_denial`] on it is closed without a word.
    flap: Mutex<Option<Socket>>,
    /// What the pages of `fails` and `falls-silent` say.
    says: [Arc<AtomicU16>; 2],
    file: String,
    page: SocketAddr,
}

impl Scene {
    /// One check that holds, is violated or is unproven of each sort; each is looked at so often.
    pub async fn start(interval: &str) -> Scene {
        let head = "[defaults]\ntimeout = \"5s\"\nattempts = 1\ninterval = \"INTERVAL\"\n[web]\nlisten = \"127.0.0.1:0\"\n[drill]\ninterval = \"1h\"\n\
                    [beacon]\nkey_file = \"beacon.key\"\nlisten = \"127.0.0.1:0\"\n"
            .replace("INTERVAL", interval);
        let proxy = "egress_budget = \"1MB/h\"\nhttp_ports = \"1-65535\"";
        let (open, page, (certified, certificate)) = (mute(), page(), tls());
        let ((held, shut), (flapping, flap)) = (closed(), closed());
        let says = [200, 200].map(|status| Arc::new(AtomicU16::new(status)));
        let [fails, falls_silent] = says.each_ref().map(|says| changing_page(Arc::clone(says)));
        let alive = format!(
            "[[check]]\nname = \"alive\"\nkind = \"tcp\"\ntarget = \"{open}\"\nexpect = \"open\"\ndescription = \"The witness.\"\n"
        );
        // The ports of beacon and proxy are the kernel's, so their checks come with a reload.
        let program = Program::with("run", "", proxy, &format!("{head}{alive}"));
        fs::write(program.folder.path().join("ca.pem"), certificate).unwrap();
        let (way, beacon) = (program.at, program.beacon.unwrap());
        let checks: [(&str, &str, String, &str); 14] = [
            ("dead", "tcp", shut.to_string(), "expect = \"open\""),
            (
                "closed",
                "tcp",
                shut.to_string(),
                "expect = \"blocked\"\nwitness = [\"alive\"]\nseverity = \"critical\"\nlabels = { team = \"net\" }",
            ),
            ("breached", "tcp", open.to_string(), "expect = \"blocked\"\nwitness = [\"alive\"]\nseverity = \"critical\""),
            ("unknown", "tcp", shut.to_string(), "expect = \"blocked\"\nwitness = [\"dead\"]"),
            ("flapping", "tls", flap.to_string(), "expect = \"blocked\"\nwitness = [\"alive\"]\nseverity = \"info\""),
            ("certified", "tls", certified.to_string(), "expect = \"open\"\nca_file = \"ca.pem\""),
            ("fails", "http", format!("http://{fails}/"), "expect = \"open\""),
            ("falls-silent", "http", format!("http://{falls_silent}/"), "expect = \"open\""),
            ("page", "http", format!("http://{page}/"), "expect = \"open\""),
            ("page-by-proxy", "http", format!("http://{page}/"), "expect = \"open\"\nvia = \"http://PROXY\""),
            ("egress", "egress-ip", format!("http://{beacon}/"), "expect = { ip = [\"127.0.0.1\"] }\nvia = \"http://PROXY\""),
            ("egress-wrong", "egress-ip", format!("http://{beacon}/"), "expect = { ip = [\"203.0.113.10\"] }"),
            ("relays", "open-proxy", way.to_string(), "expect = \"blocked\"\nBEACON\nwitness = [\"alive\"]"),
            (
                "relays-nothing",
                "open-proxy",
                way.to_string(),
                "expect = \"blocked\"\nBEACON\nsource = \"127.0.0.9\"\nwitness = []\nrequire = []",
            ),
        ];
        let own = format!("beacon = \"http://{beacon}/\"\ntechniques = [\"OP-01\", \"OP-02\"]");
        let mut text = format!("{head}{alive}");
        for (name, kind, target, rest) in checks {
            let rest = rest.replace("BEACON", &own).replace("PROXY", &way.to_string());
            text += &format!("[[check]]\nname = \"{name}\"\nkind = \"{kind}\"\ntarget = \"{target}\"\n{rest}\n");
        }
        text += "[[exception]]\ncheck = \"breached\"\nreason = \"OPS-123\"\nowner = \"net\"\nuntil = 2099-12-31\n";
        let file = Program::text(proxy, &text);
        program.rewrite(&file);
        let scene = Scene { program, _closed: held, flap: Mutex::new(Some(flapping)), says, file, page };
        let expected: BTreeMap<&str, &str> = [
            ("alive", "holds"),
            ("dead", "violated"),
            ("closed", "holds"),
            ("breached", "violated"),
            ("unknown", "unproven"),
            ("flapping", "holds"),
            ("certified", "holds"),
            ("fails", "holds"),
            ("falls-silent", "holds"),
            ("page", "holds"),
            ("page-by-proxy", "holds"),
            ("egress", "holds"),
            ("egress-wrong", "violated"),
            ("relays", "violated"),
            ("relays-nothing", "holds"),
        ]
        .into();
        let judged = async |p: &Program| {
            let verdicts = p.verdicts().await;
            verdicts.len() == expected.len() && verdicts.iter().all(|(name, verdict)| expected[name.as_str()] == verdict)
        };
        scene.program.until("every check is as it is to be", judged).await;
        let drilled = async |p: &Program| p.metric("mustnot_drill_last_successful{ kind=\"tcp\"").await == Some(1.0);
        scene.program.until("the drill", drilled).await;
        scene
    }

    pub fn web(&self) -> SocketAddr {
        self.program.web.unwrap()
    }

    /// The metrics in the plain text format.
    pub async fn text(&self) -> String {
        self.program.get("/metrics").await
    }

    /// What was refused is from now on accepted and closed: still a block, by other means.
    pub fn change_the_denial(&self) {
        if let Some(socket) = self.flap.lock().unwrap().take() {
            socket.listen(16).unwrap();
            let listener = TcpListener::from(socket);
            std::thread::spawn(move || listener.incoming().for_each(drop));
        }
    }

    /// What held is violated (`fails`) and unproven (`falls-silent`) at its next run.
    pub fn go_bad(&self) {
        self.says.iter().zip([500, SILENCE]).for_each(|(says, status)| says.store(status, Ordering::Relaxed));
    }

    /// Clients of the proxy: bytes both ways, a request that is refused, and one that leads nowhere.
    pub fn use_the_proxy(&self) {
        for request in [
            format!("GET http://{}/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.page, self.page),
            "CONNECT 192.168.0.1:443 HTTP/1.1\r\n\r\n".into(),
            "no request\r\n\r\n".into(),
            "CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n".into(),
            format!("CONNECT {0} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: {0}\r\n\r\n", self.page),
        ] {
            let mut stream = TcpStream::connect(self.program.at).unwrap();
            let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut Vec::new()));
        }
    }

    /// The file is broken while this is in force, and mended by [`Scene::mend`].
    pub async fn break_the_file(&self) {
        self.program.rewrite("no configuration");
        self.program.until("the file is wrong", async |p| p.metric("mustnot_config_last_reload_successful").await == Some(0.0)).await;
    }

    pub async fn mend(&self) {
        self.program.rewrite(&self.file);
        self.program.until("the file is right", async |p| p.metric("mustnot_config_last_reload_successful").await == Some(1.0)).await;
    }
}

/// A real Prometheus on loopback, for as long as it is in scope.
pub struct Prometheus {
    child: Child,
    at: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Scrapes these jobs once a second; None, and a word, where it is not installed.
    pub fn start(test: &str, jobs: &[(&str, SocketAddr)], rules: Option<&Path>) -> Option<Prometheus> {
        let folder = tempfile::tempdir().unwrap();
        let mut config = "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\n".to_string();
        if let Some(rules) = rules {
            config += &format!("rule_files: [\"{}\"]\n", rules.display());
        }
        config += "scrape_configs:\n";
        for (job, at) in jobs {
            config += &format!("  - job_name: {job}\n    static_configs: [{{ targets: [\"{at}\"] }}]\n");
        }
        let file = folder.path().join("prometheus.yaml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0");
        let (child, at) = listening(test, &mut command)?;
        let prometheus = Prometheus { child, at, _folder: folder };
        until("Prometheus is ready", || prometheus.get("/-/ready").is_some_and(|(head, _)| head.starts_with("HTTP/1.0 200")));
        Some(prometheus)
    }

    /// One request over a connection of its own; HTTP/1.0, so that the answer comes in one piece.
    fn get(&self, path: &str) -> Option<(String, String)> {
        let mut stream = TcpStream::connect(self.at).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.into(), body.into()))
    }

    /// What its API says there; an error of its own is told.
    pub fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
        let (_, body) = self.get(&format!("/api/v1/{path}?{}", pairs.join("&"))).unwrap();
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["status"], "success", "{parameters:?}: {body}");
        answer["data"].clone()
    }

    /// The series of an instant query, each with its value.
    pub fn query(&self, expr: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let data = self.api("query", &[("query", expr)]);
        let series = data["result"].as_array().unwrap_or_else(|| panic!("{expr}: {data}")).iter();
        series
            .map(|one| (serde_json::from_value(one["metric"].clone()).unwrap(), one["value"][1].as_str().unwrap().parse().unwrap()))
            .collect()
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Waits until it is so.
pub fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Passes requests on with another `Accept`, one a connection; gives each first `Accept`, and the `Content-Type` of its answer.
pub fn with_accept(to: SocketAddr, accept: &'static str) -> (SocketAddr, Receiver<(String, String)>) {
    let (say, heard) = channel();
    let at = listener(move |stream| {
        let _ = pass_on(stream, to, accept, &say);
    });
    (at, heard)
}

fn pass_on(mut client: TcpStream, to: SocketAddr, accept: &str, say: &Sender<(String, String)>) -> std::io::Result<()> {
    let mut lines = BufReader::new(client.try_clone()?).lines();
    let (mut head, mut asked) = (String::new(), String::new());
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("accept") => asked = value.trim().into(),
            Some((name, _)) if name.eq_ignore_ascii_case("connection") => {}
            _ => head += &format!("{line}\r\n"),
        }
    }
    let mut server = TcpStream::connect(to)?;
    server.write_all(format!("{head}Accept: {accept}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
    let said = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let kind = said.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    let _ = say.send((asked, kind.into()));
    client.write_all(&answer)
}

/// Starts one of Prometheus' servers, which are called as their packages are; and where it says that it listens. None, and a word, where there is none.
pub fn listening(test: &str, command: &mut Command) -> Option<(Child, SocketAddr)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = match command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(e) => {
            println!("SKIPPED {test}: cannot run {name} (Debian: {name}): {e}");
            return None;
        }
    };
    let (say, heard) = channel();
    let log = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            let at = line.contains("Listening on").then(|| line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok());
            let _ = at.flatten().map(|at: SocketAddr| say.send(at));
        }
    });
    Some((child, heard.recv_timeout(PATIENCE).unwrap()))
}

/// The Python that `tests/run.sh` sets up with `tests/python/requirements.txt`; None, and a word, where it is not.
pub fn python(test: &str) -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    if python.exists() {
        return Some(python);
    }
    println!("SKIPPED {test}: there is no target/python; tests/run.sh --prepare makes it");
    None
}

/// What a script of `tests/python` says, as JSON.
pub fn script(python: &Path, name: &str, arguments: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name);
    let output = Command::new(python).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{name}: {e}: {}", String::from_utf8_lossy(&output.stdout)))
}

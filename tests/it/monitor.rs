//! `mustnot run` in a process of its own, and certificates for it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// How long anything may take that must happen; never how long it should.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A monitor, for as long as it is in scope.
pub struct Monitor {
    child: Child,
    pub at: SocketAddr,
    pub scheme: String,
    pub folder: tempfile::TempDir,
}

/// An answer of curl.
#[derive(Debug)]
pub struct Answer {
    /// 0 where there was none.
    pub status: u16,
    pub head: String,
    /// Where there was no answer, what curl said of that.
    pub body: String,
}

impl Monitor {
    /// Starts it with this configuration beside files that `prepare` writes.
    pub fn start(text: &str, prepare: impl Fn(&Path)) -> Monitor {
        Monitor::with_env(text, &[], prepare)
    }

    /// The same with these variables.
    pub fn with_env(text: &str, env: &[(&str, &str)], prepare: impl Fn(&Path)) -> Monitor {
        Monitor::with(text, &[], env, prepare).unwrap_or_else(|said| panic!("it ended: {said}"))
    }

    /// The same with further arguments; what it said, where it ends.
    pub fn with(text: &str, arguments: &[&str], env: &[(&str, &str)], prepare: impl Fn(&Path)) -> Result<Monitor, String> {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        fs::write(folder.path().join("probes.toml"), text).unwrap();
        let stderr = folder.path().join("stderr");
        let mut child = Command::new(env!("CARGO_BIN_EXE_mustnot"))
            .args(["run", "--config", "probes.toml"])
            .args(arguments)
            .envs(env.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let Some(line) = lines.find(|line| line.contains("  status  ")) else {
            child.wait().unwrap();
            return Err(fs::read_to_string(stderr).unwrap());
        };
        let (scheme, at) = line.split_whitespace().last().unwrap().split_once("://").unwrap();
        let (scheme, at) = (scheme.to_string(), at.trim_end_matches('/').parse().unwrap());
        let stdout = folder.path().join("stdout");
        // what it says later must find a reader
        std::thread::spawn(move || {
            let mut file = fs::File::create(stdout).unwrap();
            lines.for_each(|line| std::io::Write::write_all(&mut file, (line + "\n").as_bytes()).unwrap());
        });
        Ok(Monitor { child, at, scheme, folder })
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// What it has logged.
    pub fn logged(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// What it has said.
    pub fn said(&self) -> String {
        fs::read_to_string(self.path("stdout")).unwrap_or_default()
    }

    pub fn hang_up(&self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGHUP).unwrap();
    }

    /// Puts another text in the place of the configuration, at once.
    pub fn write(&self, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path("probes.toml")).unwrap();
    }

    pub fn until<T>(&self, what: &str, is: impl Fn() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = is() {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "never: {what}\n{}\n{}", self.logged(), self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks by curl, with these arguments.
    pub fn curl(&self, path: &str, arguments: &[&str]) -> Answer {
        curl(&format!("{}://{}{path}", self.scheme, self.at), self.folder.path(), arguments)
    }

    /// Asks without more, and gives the body of a good answer.
    pub fn get(&self, path: &str) -> String {
        let answer = self.curl(path, &[]);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    /// The value of the one series of which all these are a part.
    pub fn metric(&self, parts: &[&str]) -> Option<f64> {
        metric(&self.get("/metrics"), parts)
    }

    /// Names and verdicts.
    pub fn verdicts(&self) -> Vec<(String, String)> {
        let report: serde_json::Value = serde_json::from_str(&self.get("/api/v1/checks")).unwrap();
        let text = |check: &serde_json::Value, key: &str| check[key].as_str().unwrap().to_string();
        report["checks"].as_array().unwrap().iter().map(|check| (text(check, "name"), text(check, "verdict"))).collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of the one series of which all these are a part.
pub fn metric(text: &str, parts: &[&str]) -> Option<f64> {
    let found: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part))).collect();
    assert!(found.len() <= 1, "{parts:?}: {found:?}");
    found.first()?.rsplit_once(' ')?.1.parse().ok()
}

/// Asks a URL by curl, in this folder.
pub fn curl(url: &str, folder: &Path, arguments: &[&str]) -> Answer {
    let output = Command::new("curl")
        .args(["-sS", "-i", "--noproxy", "*", "--max-time", "60", "--http1.1"])
        .args(arguments)
        .arg(url)
        .current_dir(folder)
        .output()
        .expect("curl (Debian: curl)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = if status == 0 { String::from_utf8_lossy(&output.stderr).into_owned() } else { body.to_string() };
    Answer { status, head: head.to_lowercase(), body }
}

/// An authority that signs certificates.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A server's certificate for 127.0.0.1 and localhost.
    pub fn server(&self) -> Pair {
        self.sign(&["127.0.0.1", "localhost"], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate.
    pub fn client(&self) -> Pair {
        self.sign(&["client.example.com"], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Pair {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, names[0]);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Pair { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

impl Pair {
    /// Writes both beside each other, as `NAME.pem` and `NAME.key`, each in one piece.
    pub fn write(&self, folder: &Path, name: &str) {
        for (end, text) in [("pem", &self.cert), ("key", &self.key)] {
            let (file, new) = (folder.join(format!("{name}.{end}")), folder.join(format!("{name}.{end}.new")));
            fs::write(&new, text).unwrap();
            fs::rename(new, file).unwrap();
        }
    }
}

//! What answers inside the namespaces: processes that end with the test, the Python hub, unbound, Squid.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::world::{Host, Lab, WITNESS4, WITNESS6};

/// How long anything in the laboratory may take to get ready.
const READY: Duration = Duration::from_secs(20);

/// A process that this test started; it ends with this value.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` inside the namespace of `host`; the kernel ends it should this thread end first.
    pub fn spawn(lab: &Lab, host: Host, name: &str, command: &[&str], piped: bool) -> Process {
        let log = lab.dir().join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut started = lab.inside(host, command);
        started.stderr(log.try_clone().unwrap());
        if piped {
            started.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            started.stdin(Stdio::null()).stdout(log);
        }
        Process { child: started.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}")) }
    }

    /// The same by a command of this host that runs others.
    pub fn spawn_by(by: &[&str], lab: &Lab, host: Host, name: &str, command: &[&str]) -> Process {
        let log = File::options().create(true).append(true).open(lab.dir().join(format!("{name}.log"))).unwrap();
        let made = lab.inside(host, command);
        let mut started = Command::new(by[0]);
        started.args(&by[1..]).arg(made.get_program()).args(made.get_args()).current_dir(lab.dir());
        started.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Process { child: started.spawn().unwrap_or_else(|e| panic!("cannot start {by:?}: {e}")) }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to this very process.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end until the deadline.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        until(within, || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is something, or the time is over; the only way in which the laboratory waits.
pub fn until<T>(within: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = ask() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The Python process of one namespace: its listeners, and a client that sees the wire.
pub struct Hub {
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    _process: Process,
}

impl Hub {
    /// Starts the hub of `host`.
    pub fn start(lab: &Lab, host: Host) -> Hub {
        let mut process = Process::spawn(lab, host, &format!("hub-{}", host.name()), &[python(), "-c", include_str!("hub.py")], true);
        let stdin = process.child.stdin.take().unwrap();
        let stdout = BufReader::new(process.child.stdout.take().unwrap());
        Hub { pipes: Mutex::new((stdin, stdout)), _process: process }
    }

    /// One command, one answer.
    pub fn ask(&self, command: &Value) -> Value {
        let mut pipes = self.pipes.lock().unwrap();
        writeln!(pipes.0, "{command}").expect("the hub is gone, see its log");
        let mut line = String::new();
        pipes.1.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("hub answered {line:?} to {command}: {e}"));
        assert!(answer.get("failed").is_none(), "hub failed at {command}: {answer}");
        answer
    }

    /// A TCP connection attempt, as the kernel reports it.
    pub fn connect(&self, host: &str, port: u16, timeout: f64) -> Seen {
        Seen::from(&self.ask(&json!({ "do": "connect", "host": host, "port": port, "timeout": timeout })))
    }

    /// Many at once.
    pub fn connects(&self, probes: &[Value]) -> Vec<Seen> {
        self.ask(&json!({ "do": "connects", "probes": probes }))["answers"].as_array().unwrap().iter().map(Seen::from).collect()
    }

    /// Rcode and addresses of one DNS question; -1 is silence.
    pub fn query(&self, server: &str, port: u16, name: &str, kind: &str) -> (i64, Vec<String>) {
        let answer = self.ask(&json!({ "do": "query", "host": server, "port": port, "name": name, "type": kind, "timeout": 1 }));
        let addresses = answer["addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned()).collect();
        (answer["rcode"].as_i64().unwrap(), addresses)
    }
}

/// What the kernel said about one connection attempt.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// `connected`, `timeout` or the name of the errno.
    pub outcome: String,
    /// ICMP type, code and sender.
    pub icmp: Option<(u64, u64, String)>,
}

impl Seen {
    fn from(answer: &Value) -> Seen {
        let icmp = answer["icmp"].as_array().map(|i| (i[0].as_u64().unwrap(), i[1].as_u64().unwrap(), i[2].as_str().unwrap().to_owned()));
        Seen { outcome: answer["outcome"].as_str().unwrap().to_owned(), icmp }
    }
}

/// The system's Python; a version manager's shim in front of it costs more than the namespace.
pub fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

/// The zone of the laboratory, served by a real name server on the beacon host.
const ZONE: &str = "
  local-zone: \"lab.test.\" static
  local-data: \"lab.test. 60 IN SOA ns.lab.test. admin.lab.test. 1 3600 600 86400 60\"
  local-data: \"admin.lab.test. 1 IN A 203.0.113.7\"
  local-data: \"admin.lab.test. 1 IN AAAA fd00:113::7\"
  local-data: \"admin4.lab.test. 1 IN A 203.0.113.7\"
  local-data: \"admin6.lab.test. 1 IN AAAA fd00:113::7\"
  local-data: \"two.lab.test. 1 IN A 203.0.113.7\"
  local-data: \"two.lab.test. 1 IN A 203.0.113.8\"
  local-data: \"witness.lab.test. 1 IN A 198.51.100.20\"
  local-data: \"witness.lab.test. 1 IN AAAA fd00:20::20\"
  local-data: \"witness6.lab.test. 1 IN AAAA fd00:20::20\"
  local-data: \"site.lab.test. 1 IN A 198.51.100.20\"
  local-data: \"proxy.lab.test. 1 IN A 203.0.113.3\"
  local-data: \"beacon.lab.test. 1 IN A 198.51.100.21\"
  local-data: \"sink.lab.test. 1 IN A 0.0.0.0\"
  local-data: \"sink-loop.lab.test. 1 IN A 127.0.0.1\"
  local-data: \"sink-own.lab.test. 1 IN A 198.51.100.66\"
  local-data: \"empty.lab.test. 1 IN TXT x\"
";

/// Starts unbound on the beacon host and waits until it answers.
pub fn unbound(lab: &Lab) -> Process {
    let config = lab.dir().join("unbound.conf");
    let text = format!(
        "server:\n  interface: {WITNESS4}\n  interface: {WITNESS6}\n  access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow\n  \
         username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  directory: \"{}\"\n  use-syslog: no\n  logfile: \"\"\n  num-threads: 1\n  \
         module-config: \"iterator\"\n  so-rcvbuf: 0\n  msg-cache-size: 64k\n  rrset-cache-size: 64k\n{ZONE}\nremote-control:\n  control-enable: no\n",
        lab.dir().display()
    );
    fs::write(&config, text).unwrap();
    let mut process = Process::spawn(lab, Host::Beacon, "unbound", &["unbound", "-d", "-c", config.to_str().unwrap()], false);
    let hub = lab.hub(Host::Beacon);
    let ready = until(READY, || {
        assert!(process.ended().is_none(), "unbound ended at start, see its log: {}", lab.log("unbound"));
        (hub.connect(WITNESS4, 53, 0.2).outcome == "connected").then_some(())
    });
    assert!(ready.is_some(), "unbound did not get ready: {}", lab.log("unbound"));
    process
}

/// Who may use the Squid, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Squid {
    /// As production would have it: the office only, CONNECT to 443 and 9891 only, deny all last.
    Closed,
    /// The classic mistake: a broad source ACL that is allowed before the rules that were meant to protect.
    OpenToAll,
    /// The source ACL is wrong, for CONNECT only.
    OpenConnect,
    /// No `deny all` at the end: the implicit last rule is the opposite of the last line.
    NoLastDeny,
    /// Open for everybody, for plain requests only.
    OpenGet,
    /// Closed, and a denial is a redirect to a page that explains.
    DenyInfo,
    /// Whoever has a password, from anywhere.
    Password,
    /// Open for everybody, to one destination of its allow list.
    OpenAllowList,
    /// Open for everybody, and every client must come by the PROXY protocol.
    ProxyHeader,
    /// Open for everybody, to names only.
    NamesOnly,
    /// For the office and for the forwarder in front, which hides who asks.
    BehindForwarder,
}

impl Squid {
    fn rules(self) -> &'static str {
        match self {
            Squid::Closed => {
                "http_access deny !office\nhttp_access deny CONNECT !tunnel_ports\nhttp_access deny !CONNECT\nhttp_access allow office"
            }
            Squid::OpenToAll => "acl localnet src 0.0.0.0/0\nhttp_access allow localnet\nhttp_access deny all",
            Squid::OpenConnect => {
                "http_access deny CONNECT !tunnel_ports\nhttp_access deny !CONNECT\nacl partners src 198.51.100.0/24\nhttp_access allow partners\nhttp_access deny all"
            }
            Squid::OpenGet => "http_access deny CONNECT\nhttp_access allow all",
            Squid::DenyInfo => "deny_info 302:http://help.lab.test/denied office\nhttp_access deny !office\nhttp_access allow office",
            Squid::Password => {
                "auth_param basic program /usr/lib/squid/basic_fake_auth\nauth_param basic realm lab\nacl known proxy_auth REQUIRED\nhttp_access deny !known\nhttp_access allow known"
            }
            Squid::OpenAllowList => "acl listed dstdomain site.lab.test\nhttp_access allow listed\nhttp_access allow office",
            Squid::ProxyHeader => "proxy_protocol_access allow all\nhttp_access allow all",
            Squid::NamesOnly => "acl literal dstdom_regex -n ^[0-9.]+$\nhttp_access deny literal\nhttp_access allow all",
            Squid::BehindForwarder => "acl forwarder src 203.0.113.3\nhttp_access allow office\nhttp_access allow forwarder",
            Squid::NoLastDeny => "http_access allow office\nhttp_access deny CONNECT !tunnel_ports",
        }
    }

    /// Starts Squid on the private host and waits until it accepts.
    pub fn start(self, lab: &Lab) -> Process {
        let config = lab.dir().join("squid.conf");
        let tail = if self == Squid::NoLastDeny { "" } else { "http_access deny all\n" };
        let port = if self == Squid::ProxyHeader { "3128 require-proxy-header" } else { "3128" };
        let text = format!(
            "http_port {proxy4}:{port}\nhttp_port [{proxy6}]:{port}\nvisible_hostname proxy.lab.test\npid_filename none\npinger_enable off\n\
             cache deny all\ncache_mem 1 MB\nmemory_pools off\nmax_filedescriptors 512\nshutdown_lifetime 0 seconds\nconnect_timeout 3 seconds\n\
             dns_nameservers {WITNESS4}\nhosts_file none\ncache_log {dir}/squid-cache.log\naccess_log stdio:{dir}/squid-access.log\nnetdb_filename none\n\
             coredump_dir none\nforwarded_for delete\nvia off\n\
             acl office src 198.51.100.10/32 fd00:10::10/128\nacl tunnel_ports port 443 9891\nacl CONNECT method CONNECT\n{}\n{tail}",
            self.rules(),
            proxy4 = crate::world::PROXY4,
            proxy6 = crate::world::PROXY6,
            dir = lab.dir().display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Process::spawn(lab, Host::Private, "squid", &["squid", "-N", "-f", config.to_str().unwrap()], false);
        let hub = lab.hub(Host::Private);
        let ready = until(READY, || {
            assert!(process.ended().is_none(), "squid ended at start, see its log: {}", lab.log("squid"));
            let both = [crate::world::PROXY4, crate::world::PROXY6].iter().all(|a| hub.connect(a, 3128, 0.2).outcome == "connected");
            both.then_some(())
        });
        assert!(ready.is_some(), "squid did not get ready: {} {}", lab.log("squid"), lab.log("squid-cache"));
        process
    }
}

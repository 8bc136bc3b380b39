//! The world: six namespaces that make the reference deployment small, and the turns that it can be given.
//!
//! ```text
//!  stranger 198.51.100.66, .67     allowed 198.51.100.10 (the office)     beacon 198.51.100.20 (witness, DNS), .21 (beacon)
//!           fd00:66::66, ::67              fd00:10::10                           fd00:20::20, ::21
//!        |                               |                                      |
//!        +------------------- core, the internet (router; 192.0.2.0/24 ends here) -------------------+
//!                                        | 198.51.100.128/30, fd00:130::/64
//!                                      edge: network ACL, stateless as a NACL; SNAT of 10.0.0.0/24 to 203.0.113.10
//!                                        | 203.0.113.0/28, 10.0.0.0/24, fd00:113::/64, fd00:a::/64
//!                                     private: 203.0.113.7, .8 admin web; 203.0.113.3 Squid
//! ```

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};

use serde_json::json;
use tempfile::TempDir;

use crate::certificates::certificates;
use crate::service::{Hub, Process, unbound};

/// The stranger, whom the ACL must keep out.
pub const STRANGER4: &str = "198.51.100.66";
/// The stranger, IPv6.
pub const STRANGER6: &str = "fd00:66::66";
/// A second source address of the stranger's host.
pub const SECOND4: &str = "198.51.100.67";
/// The same, IPv6.
pub const SECOND6: &str = "fd00:66::67";
/// The office, whom the ACL lets in.
pub const OFFICE4: &str = "198.51.100.10";
/// The office, IPv6.
pub const OFFICE6: &str = "fd00:10::10";
/// The witness: its ports are always open for everybody.
pub const WITNESS4: &str = "198.51.100.20";
/// The witness, IPv6.
pub const WITNESS6: &str = "fd00:20::20";
/// Where the product's own beacon runs; nothing else listens there.
pub const BEACON4: &str = "198.51.100.21";
/// The edge router, as the internet sees it: the sender of its ICMP errors.
pub const EDGE4: &str = "198.51.100.130";
/// The edge router, IPv6.
pub const EDGE6: &str = "fd00:130::2";
/// The admin web.
pub const ADMIN4: &str = "203.0.113.7";
/// The admin web, IPv6.
pub const ADMIN6: &str = "fd00:113::7";
/// The second address of the admin web.
pub const SECOND_ADMIN4: &str = "203.0.113.8";
/// Squid.
pub const PROXY4: &str = "203.0.113.3";
/// Squid, IPv6.
pub const PROXY6: &str = "fd00:113::3";
/// What the internet sees of everything that leaves the private side.
pub const EGRESS4: &str = "203.0.113.10";
/// What it sees after the egress address was changed.
pub const OTHER_EGRESS4: &str = "203.0.113.11";
/// The decoy of the product: routed to the internet, and nobody is there.
pub const DECOY4: &str = "192.0.2.1";
/// The decoy, IPv6.
pub const DECOY6: &str = "2001:db8::1";
/// Ports on which the witness and the admin host listen.
pub const PORTS: [u16; 3] = [80, 443, 22];

/// A host of the world, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Host {
    /// The internet between all.
    Core,
    /// The monitor outside.
    Stranger,
    /// The monitor at the office.
    Allowed,
    /// Witness, name server, beacon.
    Beacon,
    /// The router with the network ACL.
    Edge,
    /// Admin web and Squid.
    Private,
}

impl Host {
    const ALL: [Host; 6] = [Host::Core, Host::Stranger, Host::Allowed, Host::Beacon, Host::Edge, Host::Private];

    /// Its short name.
    pub fn name(self) -> &'static str {
        match self {
            Host::Core => "core",
            Host::Stranger => "stranger",
            Host::Allowed => "allowed",
            Host::Beacon => "beacon",
            Host::Edge => "edge",
            Host::Private => "private",
        }
    }

    fn routes_packets(self) -> bool {
        matches!(self, Host::Core | Host::Edge)
    }

    /// `ip` commands that give this host its addresses and routes.
    fn addresses(self) -> &'static str {
        match self {
            Host::Core => {
                "addr add 198.51.100.65/26 dev str\naddr add fd00:66::1/64 dev str nodad\n\
                 addr add 198.51.100.9/29 dev off\naddr add fd00:10::1/64 dev off nodad\n\
                 addr add 198.51.100.17/28 dev bcn\naddr add fd00:20::1/64 dev bcn nodad\n\
                 addr add 198.51.100.129/30 dev edg\naddr add fd00:130::1/64 dev edg nodad\n\
                 link set lo up\nlink set str up\nlink set off up\nlink set bcn up\nlink set edg up\n\
                 route add 203.0.113.0/24 via 198.51.100.130\nroute add fd00:113::/64 via fd00:130::2\n\
                 route add default via 198.51.100.20\nroute add default via fd00:20::20\n"
            }
            Host::Stranger => {
                "addr add 198.51.100.66/26 dev eth0\naddr add 198.51.100.67/26 dev eth0\n\
                 addr add fd00:66::66/64 dev eth0 nodad\naddr add fd00:66::67/64 dev eth0 nodad\n\
                 link set lo up\nlink set eth0 up\n\
                 route add default via 198.51.100.65 src 198.51.100.66\nroute add default via fd00:66::1 src fd00:66::66\n"
            }
            Host::Allowed => {
                "addr add 198.51.100.10/29 dev eth0\naddr add fd00:10::10/64 dev eth0 nodad\nlink set lo up\nlink set eth0 up\n\
                 route add default via 198.51.100.9\nroute add default via fd00:10::1\n"
            }
            Host::Beacon => {
                "addr add 198.51.100.20/28 dev eth0\naddr add 198.51.100.21/28 dev eth0\n\
                 addr add fd00:20::20/64 dev eth0 nodad\naddr add fd00:20::21/64 dev eth0 nodad\nlink set lo up\nlink set eth0 up\n\
                 route add default via 198.51.100.17\nroute add default via fd00:20::1\n"
            }
            Host::Edge => {
                "addr add 198.51.100.130/30 dev net\naddr add fd00:130::2/64 dev net nodad\n\
                 addr add 203.0.113.1/28 dev lan\naddr add 203.0.113.10/32 dev lan\naddr add 203.0.113.11/32 dev lan\naddr add 10.0.0.1/24 dev lan\n\
                 addr add fd00:113::1/64 dev lan nodad\naddr add fd00:113::10/64 dev lan nodad\naddr add fd00:a::1/64 dev lan nodad\n\
                 link set lo up\nlink set net up\nlink set lan up\nroute add default via 198.51.100.129\nroute add default via fd00:130::1\n"
            }
            Host::Private => {
                "addr add 10.0.0.3/24 dev eth0\naddr add 203.0.113.3/28 dev eth0\naddr add 203.0.113.7/28 dev eth0\naddr add 203.0.113.8/28 dev eth0\n\
                 addr add fd00:a::3/64 dev eth0 nodad\naddr add fd00:113::3/64 dev eth0 nodad\naddr add fd00:113::7/64 dev eth0 nodad\naddr add fd00:113::8/64 dev eth0 nodad\n\
                 link set lo up\nlink set eth0 up\nroute add default via 10.0.0.1 src 10.0.0.3\nroute add default via fd00:a::1 src fd00:a::3\n"
            }
        }
    }

    /// The firewall this host starts with; the empty chains are what the turns fill.
    fn firewall(self) -> &'static str {
        match self {
            Host::Core => {
                "table inet core {\n chain decoy {\n }\n chain turn {\n }\n\
                 chain forward {\n type filter hook forward priority 0; policy accept;\n ip daddr 192.0.2.0/24 jump decoy\n ip6 daddr 2001:db8::/32 jump decoy\n jump turn\n }\n\
                 chain lure {\n type nat hook prerouting priority -100;\n }\n}\n"
            }
            Host::Stranger => {
                "table inet own {\n chain output {\n type filter hook output priority 0;\n }\n chain input {\n type filter hook input priority 0;\n }\n}\n"
            }
            Host::Edge => {
                "table inet acl {\n counter kept_out {\n }\n chain published {\n }\n\
                 chain forward {\n type filter hook forward priority 0; policy accept;\n iifname net ip daddr 203.0.113.0/28 jump published\n iifname net ip6 daddr fd00:113::/64 jump published\n }\n\
                 chain egress {\n type nat hook postrouting priority 100;\n }\n}\n"
            }
            Host::Allowed | Host::Beacon | Host::Private => "",
        }
    }
}

/// How the network ACL of the edge turns somebody away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial<'a> {
    /// Silence.
    Drop,
    /// RST.
    Reset,
    /// An ICMP or ICMPv6 error, by its name in nftables.
    Icmp(&'a str),
    /// The same for both families.
    IcmpX(&'a str),
}

impl Denial<'_> {
    fn rule(self) -> String {
        match self {
            Denial::Drop => "drop".to_owned(),
            Denial::Reset => "meta l4proto tcp reject with tcp reset".to_owned(),
            Denial::Icmp(name) if name.starts_with("v6 ") => {
                format!("meta nfproto ipv6 reject with icmpv6 type {}", name.trim_start_matches("v6 "))
            }
            Denial::Icmp(name) => format!("meta nfproto ipv4 reject with icmp type {name}"),
            Denial::IcmpX(name) => format!("reject with icmpx type {name}"),
        }
    }
}

/// The world of one test.
pub struct Lab {
    id: String,
    dir: Option<TempDir>,
    hubs: Mutex<HashMap<Host, Arc<Hub>>>,
    unbound: Mutex<Option<Process>>,
    files: AtomicU32,
}

impl Lab {
    /// Makes the world: closed ACL, witness, name server and admin web running, no Squid. `None` where the wish to skip is named.
    pub fn new() -> Option<Lab> {
        if let Err(why) = possible() {
            if std::env::var("MUSTNOT_SKIP_LAB").as_deref() == Ok("1") {
                eprintln!("SKIPPED, because MUSTNOT_SKIP_LAB=1 and the laboratory cannot run here: {why}");
                return None;
            }
            panic!(
                "the laboratory cannot run here: {why}; run it as root with nftables, iproute2, unbound, squid and python3, or set MUSTNOT_SKIP_LAB=1"
            );
        }
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let lab = Lab::bare();
        lab.acl(Denial::Drop);
        lab.decoy("drop");
        lab.egress(EGRESS4);
        lab.serve();
        *lab.unbound.lock().unwrap() = Some(unbound(&lab));
        Some(lab)
    }

    fn bare() -> Lab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("mn{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&format!("lab-{id}-")).tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let lab = Lab { id, dir: Some(dir), hubs: Mutex::default(), unbound: Mutex::default(), files: AtomicU32::default() };

        let names: String = Host::ALL.iter().map(|h| format!("netns add {}\n", lab.namespace(*h))).collect();
        feed(Command::new("ip").args(["-batch", "-"]), &names);
        for host in Host::ALL {
            let forwarding = u8::from(host.routes_packets());
            let settings = format!(
                "net.ipv6.conf.all.disable_ipv6=0\nnet.ipv6.conf.default.disable_ipv6=0\nnet.ipv6.conf.default.accept_dad=0\nnet.ipv6.conf.default.accept_ra=0\n\
                 net.ipv4.conf.all.rp_filter=0\nnet.ipv4.conf.default.rp_filter=0\nnet.ipv4.icmp_ratelimit=0\nnet.ipv6.icmp.ratelimit=0\nnet.ipv4.ip_nonlocal_bind=0\n\
                 net.ipv4.ip_forward={forwarding}\nnet.ipv6.conf.all.forwarding={forwarding}\n"
            );
            feed(lab.inside(host, &["sysctl", "-q", "-p", "-"]).stdout(Stdio::null()), &settings);
            let etc = PathBuf::from("/etc/netns").join(lab.namespace(host));
            fs::create_dir_all(&etc).unwrap();
            fs::write(etc.join("resolv.conf"), format!("nameserver {WITNESS4}\noptions timeout:1 attempts:2\n")).unwrap();
        }
        let cable = |a: &str, left: Host, b: &str, right: Host| {
            format!("link add {a} netns {} type veth peer name {b} netns {}\n", lab.namespace(left), lab.namespace(right))
        };
        let cables = [
            cable("str", Host::Core, "eth0", Host::Stranger),
            cable("off", Host::Core, "eth0", Host::Allowed),
            cable("bcn", Host::Core, "eth0", Host::Beacon),
            cable("edg", Host::Core, "net", Host::Edge),
            cable("lan", Host::Edge, "eth0", Host::Private),
        ];
        feed(Command::new("ip").args(["-batch", "-"]), &cables.concat());
        for host in Host::ALL {
            lab.ip(host, host.addresses());
            lab.nft(host, host.firewall());
        }
        lab
    }

    /// The listeners that the world starts with: the witness for everybody, the admin web for whom it likes.
    fn serve(&self) {
        let certificates = certificates();
        for (name, text) in [
            ("ca.pem", &certificates.ca),
            ("valid.pem", &certificates.valid),
            ("untrusted.pem", &certificates.untrusted),
            ("client.pem", &certificates.client),
        ] {
            fs::write(self.dir().join(name), text).unwrap();
        }
        let valid = self.dir().join("valid.pem");
        let places = [
            (Host::Beacon, "witness4", WITNESS4),
            (Host::Beacon, "witness6", WITNESS6),
            (Host::Private, "admin4", ADMIN4),
            (Host::Private, "admin6", ADMIN6),
            (Host::Private, "second4", SECOND_ADMIN4),
        ];
        for (host, name, address) in places {
            for port in PORTS {
                let page = if host == Host::Private { json!("acl") } else { json!(200) };
                let mode = if port == 22 { "hold" } else { "http" };
                let pem = if port == 443 { json!(valid) } else { json!(null) };
                self.hub(host).ask(&json!({
                    "do": "listen", "name": format!("{name}:{port}"), "host": address, "port": port, "mode": mode,
                    "page": page, "pem": pem, "allowed": [OFFICE4, OFFICE6, PROXY4, ADMIN4, ADMIN6]
                }));
            }
        }
    }

    // ---- turns of the world ----------------------------------------------------------------------------------------

    /// The network ACL of the edge: the office and the public proxy port get in, all others meet `denial`.
    pub fn acl(&self, denial: Denial<'_>) {
        self.acl_with(&[], denial);
    }

    /// The same with more rules in front, each a whole nftables rule.
    pub fn acl_with(&self, before: &[&str], denial: Denial<'_>) {
        let last = format!("counter name kept_out {}", denial.rule());
        let usual = [
            "ip saddr 198.51.100.10 accept",
            "ip6 saddr fd00:10::10 accept",
            "ip daddr 203.0.113.3 accept",
            "ip6 daddr fd00:113::3 accept",
        ];
        let drop = "drop";
        self.refill(Host::Edge, "acl", "published", before.iter().chain(&usual).copied().chain([last.as_str(), drop]));
    }

    /// The ACL is open for everybody.
    pub fn acl_open(&self) {
        self.refill(Host::Edge, "acl", "published", ["accept"]);
    }

    /// The edge is dead: it takes packets and does nothing with them.
    pub fn edge_dead(&self) {
        self.refill(Host::Edge, "acl", "forward", ["drop"]);
    }

    /// How many packets the last rule of the ACL has turned away.
    pub fn kept_out(&self) -> u64 {
        let text = self.output(Host::Edge, &["nft", "-j", "list", "counter", "inet", "acl", "kept_out"]);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        parsed["nftables"].as_array().unwrap().iter().find_map(|entry| entry["counter"]["packets"].as_u64()).unwrap()
    }

    /// What becomes of packets to the decoy addresses: `drop`, or `reject with icmpx type host-unreachable`.
    pub fn decoy(&self, fate: &str) {
        self.refill(Host::Core, "core", "decoy", [fate]);
    }

    /// Rules on the way through the internet.
    pub fn internet(&self, rules: &[&str]) {
        self.refill(Host::Core, "core", "turn", rules.iter().copied());
    }

    /// This many of a hundred packets of the stranger are lost, in each direction.
    pub fn loss(&self, percent: u8) {
        let out = format!("iifname str numgen random mod 100 < {percent} drop");
        let back = format!("oifname str numgen random mod 100 < {percent} drop");
        self.internet(&[&out, &back]);
    }

    /// The internet answers every SYN of the stranger itself and splices what it can reach.
    pub fn interceptor(&self) {
        for (name, host) in [("lure4", "0.0.0.0"), ("lure6", "::")] {
            self.hub(Host::Core).ask(&json!({ "do": "listen", "name": name, "host": host, "port": 9999, "mode": "intercept" }));
        }
        self.lure(&["meta l4proto tcp redirect to :9999"]);
    }

    /// What of the stranger's packets the internet keeps for itself: the ends of nftables rules.
    pub fn lure(&self, rules: &[&str]) {
        let rules: Vec<String> = rules.iter().map(|rule| format!("iifname str {rule}")).collect();
        self.refill(Host::Core, "core", "lure", rules.iter().map(String::as_str));
    }

    /// The stranger's own firewall, outgoing.
    pub fn own_firewall(&self, rules: &[&str]) {
        self.refill(Host::Stranger, "own", "output", rules.iter().copied());
    }

    /// The stranger's way to 203.0.113.9 and fd00:113::9 leads over a neighbour that does not exist; all else stays as it is.
    pub fn no_neighbour(&self) {
        self.ip(Host::Stranger, "route add 203.0.113.9 via 198.51.100.99\nroute add fd00:113::9 via fd00:66::99 src fd00:66::66\n");
    }

    /// The address that the internet sees of the private side.
    pub fn egress(&self, address: &str) {
        let rule = format!("oifname net ip saddr 10.0.0.0/24 snat ip to {address}");
        self.refill(Host::Edge, "acl", "egress", [rule.as_str(), "oifname net ip6 saddr fd00:a::/64 snat ip6 to fd00:113::10"]);
    }

    /// What the admin web answers on every address: `"acl"` or a status.
    pub fn admin_page(&self, page: &serde_json::Value) {
        for name in ["admin4", "admin6", "second4"] {
            for port in [80, 443] {
                self.hub(Host::Private).ask(&json!({ "do": "turn", "name": format!("{name}:{port}"), "page": page }));
            }
        }
    }

    /// The admin web shows a certificate, by file name in this test's directory: `valid.pem` or `untrusted.pem`.
    pub fn admin_certificate(&self, file: &str) {
        for name in ["admin4", "admin6", "second4"] {
            self.hub(Host::Private).ask(&json!({ "do": "turn", "name": format!("{name}:443"), "pem": self.dir().join(file) }));
        }
    }

    /// Nobody listens any more on a port of a host's listener, by its name, such as `witness4:443`.
    pub fn close(&self, host: Host, listener: &str) {
        self.hub(host).ask(&json!({ "do": "close", "name": listener }));
    }

    /// A listener of mode `hold` at an address.
    pub fn listen(&self, host: Host, name: &str, address: &str, port: u16, mode: &str) {
        self.hub(host).ask(&json!({ "do": "listen", "name": name, "host": address, "port": port, "mode": mode }));
    }

    /// A name server on a port of the witness that fails as `rules` say, one for each record type.
    pub fn faulty_dns(&self, port: u16, rules: &serde_json::Value) {
        let zone = json!({
            "admin.lab.test": { "A": [ADMIN4], "AAAA": [ADMIN6] },
            "admin4.lab.test": { "A": [ADMIN4] },
            "witness.lab.test": { "A": [WITNESS4], "AAAA": [WITNESS6] },
        });
        self.hub(Host::Beacon)
            .ask(&json!({ "do": "listen", "name": format!("dns:{port}"), "mode": "dns", "host": WITNESS4, "port": port, "zone": zone, "rules": rules }));
    }

    /// The real name server is gone: nobody listens on its port.
    pub fn resolver_gone(&self) {
        self.unbound.lock().unwrap().take();
    }

    /// What a host finds in `/etc/resolv.conf` from now on.
    pub fn resolv_conf(&self, host: Host, text: &str) {
        fs::write(PathBuf::from("/etc/netns").join(self.namespace(host)).join("resolv.conf"), text).unwrap();
    }

    // ---- tools -----------------------------------------------------------------------------------------------------

    /// The directory of this test: configurations, reports, logs.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// The text of a log in that directory.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// A name for a file that this test has not used yet.
    pub fn fresh(&self, what: &str) -> String {
        format!("{what}-{}", self.files.fetch_add(1, Ordering::Relaxed))
    }

    /// The hub of a host, started when first asked for.
    pub fn hub(&self, host: Host) -> Arc<Hub> {
        let mut hubs = self.hubs.lock().unwrap();
        Arc::clone(hubs.entry(host).or_insert_with(|| Arc::new(Hub::start(self, host))))
    }

    /// A command to be run inside a host; it dies with the thread that starts it.
    pub fn inside(&self, host: Host, command: &[&str]) -> Command {
        let mut made = Command::new("ip");
        made.args(["netns", "exec", &self.namespace(host), "setpriv", "--pdeathsig", "KILL", "--"]).args(command).current_dir(self.dir());
        made
    }

    /// Runs a command inside a host and gives its standard output; it must succeed.
    pub fn output(&self, host: Host, command: &[&str]) -> String {
        let done = self.inside(host, command).output().unwrap();
        assert!(done.status.success(), "{command:?} in {}: {}", host.name(), String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// `ip` commands inside a host, one a line.
    pub fn ip(&self, host: Host, commands: &str) {
        feed(Command::new("ip").args(["-n", &self.namespace(host), "-batch", "-"]), commands);
    }

    /// An nftables script inside a host.
    pub fn nft(&self, host: Host, script: &str) {
        if !script.is_empty() {
            feed(&mut self.inside(host, &["nft", "-f", "-"]), script);
        }
    }

    fn refill<'a>(&self, host: Host, table: &str, chain: &str, rules: impl IntoIterator<Item = &'a str>) {
        let mut script = format!("flush chain inet {table} {chain}\n");
        for rule in rules {
            script.push_str(&format!("add rule inet {table} {chain} {rule}\n"));
        }
        self.nft(host, &script);
    }

    fn namespace(&self, host: Host) -> String {
        format!("{}-{}", self.id, host.name())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Ok(mut unbound) = self.unbound.lock() {
            unbound.take();
        }
        if let Ok(mut hubs) = self.hubs.lock() {
            hubs.clear();
        }
        if std::env::var_os("MUSTNOT_LAB_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept {}", dir.keep().display());
        }
        for host in Host::ALL {
            remove(&self.namespace(host));
        }
    }
}

/// Removes one namespace of the laboratory and what `ip netns exec` was told about it.
fn remove(namespace: &str) {
    let _ = Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status();
    let _ = fs::remove_dir_all(Path::new("/etc/netns").join(namespace));
}

/// Removes what killed runs of the laboratory left behind: namespaces named after a process that is gone.
fn sweep() {
    let left = fs::read_dir("/run/netns").into_iter().chain(fs::read_dir("/etc/netns")).flatten().flatten();
    for name in left.filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix("mn").and_then(|rest| rest.split_once('x')).and_then(|(pid, _)| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}

/// Whether this machine can have a laboratory; the reason why not.
fn possible() -> Result<(), String> {
    let name = format!("mn{}xtry{:?}", std::process::id(), std::thread::current().id()).replace(['(', ')'], "");
    let made = Command::new("ip").args(["netns", "add", &name]).output().map_err(|e| format!("ip: {e}"))?;
    let ruled = Command::new("ip").args(["netns", "exec", &name, "nft", "list", "ruleset"]).output().map_err(|e| format!("ip: {e}"));
    remove(&name);
    if !made.status.success() {
        return Err(format!("ip netns add: {}", String::from_utf8_lossy(&made.stderr).trim()));
    }
    let ruled = ruled?;
    if !ruled.status.success() {
        return Err(format!("nft: {}", String::from_utf8_lossy(&ruled.stderr).trim()));
    }
    Ok(())
}

/// Runs a command with `text` as its standard input; it must succeed.
fn feed(command: &mut Command, text: &str) {
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{command:?} failed: {}\n{text}", String::from_utf8_lossy(&done.stderr));
}

//! The zoo: real products, each set up as it is met in the field, and the truth about each.
//!
//! An [`Entry`] is one listener on the private host. Before the monitor judges it, the truth is shown by hand, with tools that know
//! nothing of the monitor: what is open gives a page to the stranger, what is closed gives it to the allowed address and not to him.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::run::{SOON, check, config, internet, observed, start_gate, write_config};
use crate::service::{Process, python, until};
use crate::world::{BEACON4, Denial, EGRESS4, Host, Lab, PROXY4, PROXY6, SECOND4, SECOND6, STRANGER4, STRANGER6, WITNESS4};

mod harm;
mod http;
mod rest;
mod squid;

pub use harm::{BOASTERS, HARM, RECORDER};
pub use http::{APACHES, HAPROXIES, NGINXES, OTHERS, TINYPROXIES};
pub use rest::{NO_PROXIES, SOCKS};
pub use squid::{HEAD as SQUID, SQUIDS};

/// A page by absolute-form GET.
pub const GET: &str = "curl -sS -m 6 --interface {from} -x http://{at} http://site.lab.test/";
/// A page through a tunnel.
pub const TUNNEL: &str = "curl -sS -m 6 --interface {from} -x http://{at} --cacert {dir}/ca.pem https://site.lab.test/";
/// A page from whom the Host header names.
pub const ORIGIN: &str = "curl -sS -m 6 --interface {from} -H 'Host: site.lab.test' http://{at}/";
/// A page from whom the ClientHello names.
pub const SERVER_NAME: &str =
    "curl -sS -m 6 --interface {from} --cacert {dir}/ca.pem --connect-to site.lab.test:443:{at} https://site.lab.test/";
/// A page by SOCKS 5.
pub const SOCKS5: &str = "curl -sS -m 6 --interface {from} --socks5-hostname {at} http://site.lab.test/";
/// A page by SOCKS 4.
pub const SOCKS4: &str = "curl -sS -m 6 --interface {from} --socks4 {at} http://198.51.100.20/";
/// Nobody gets anything relayed: it is no proxy, or only for addresses that are not in this world.
pub const NOBODY: &str = "";
/// It relays, and by hand that cannot be seen from here.
pub const UNSEEN: &str = "";
/// What a page got through a proxy says.
const PAGE: &str = "the admin page of lab.test";
/// The address on the private side of forwarders and what they stand for.
const BACK: &str = "10.0.0.3";
/// The first port; each entry has two.
const FIRST_PORT: usize = 20_000;

/// The truth about an entry.
#[derive(Debug, Clone, Copy)]
pub enum Truth {
    /// Relays for strangers. Each of these techniques shows it.
    Open(&'static [&'static str]),
    /// Relays for strangers, but so that it may not be shown; only `holds` would be a lie.
    Hidden,
    /// Relays for no stranger, and that can be shown.
    Closed,
    /// Relays for no stranger, and is so quiet about it that it may not be shown.
    Quiet,
    /// From here nobody can tell: silence for everybody alike, a dead host, a dead server behind.
    Unprovable,
}

/// What an entry is made of, beside its setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Squid,
    Tinyproxy,
    Haproxy,
    Apache,
    Nginx,
    Privoxy,
    Dante,
    Microsocks,
    Ncat,
    Sniproxy,
    Lighttpd,
    Nghttpx,
    Simpleproxy,
    Socat,
    Stunnel,
    Ssh,
    /// A peer of `peer.py`: its mode and where it listens.
    Peer,
    /// A rule of the network ACL, before the usual ones.
    Edge,
    /// A rule of the private host's own firewall, outgoing.
    Own,
}

/// One listener of the zoo.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    pub truth: Truth,
    /// A shell command that gets the page through it: from the stranger where it is open, from the allowed address where it is closed.
    by_hand: &'static str,
    /// What it is made of.
    parts: &'static [(Part, &'static str)],
    v6: bool,
}

impl Entry {
    /// The same, listening on the proxy's IPv6 address alone.
    pub const fn over_ipv6(self) -> Entry {
        Entry { v6: true, ..self }
    }

    /// The techniques that it is asked by: every one where none may show anything, else those that must, and the quick ones.
    /// One attempt each, since what a technique shows does not hang on luck here.
    fn suite(&self) -> String {
        let techniques = match self.truth {
            Truth::Open(by) if !by.is_empty() => {
                let quick = QUICK.iter().filter(|t| !by.contains(t) && (**t != "OP-07" || !self.by_hand.is_empty()));
                format!("techniques = {:?}\n", by.iter().chain(quick).collect::<Vec<_>>())
            }
            _ => String::new(),
        };
        format!("attempts = 1\nspoof = [\"198.51.100.10\"]\n{techniques}")
    }

    fn address(&self) -> &'static str {
        if self.v6 { PROXY6 } else { PROXY4 }
    }

    /// The stranger and the allowed address, which are on one host.
    fn sources(&self) -> (&'static str, &'static str) {
        if self.v6 { (STRANGER6, SECOND6) } else { (STRANGER4, SECOND4) }
    }
}

/// An entry that relays for strangers.
pub const fn open(name: &'static str, by_hand: &'static str, by: &'static [&'static str], parts: &'static [(Part, &'static str)]) -> Entry {
    Entry { name, truth: Truth::Open(by), by_hand, parts, v6: false }
}

/// An entry that relays for strangers when they have long hung up.
pub const fn hidden(name: &'static str, by_hand: &'static str, parts: &'static [(Part, &'static str)]) -> Entry {
    Entry { name, truth: Truth::Hidden, by_hand, parts, v6: false }
}

/// An entry that relays for no stranger.
pub const fn closed(name: &'static str, by_hand: &'static str, parts: &'static [(Part, &'static str)]) -> Entry {
    Entry { name, truth: Truth::Closed, by_hand, parts, v6: false }
}

/// An entry that relays for no stranger, and may not even say so.
pub const fn quiet(name: &'static str, by_hand: &'static str, parts: &'static [(Part, &'static str)]) -> Entry {
    Entry { name, truth: Truth::Quiet, by_hand, parts, v6: false }
}

/// An entry of which nobody can tell from here.
pub const fn unprovable(name: &'static str, by_hand: &'static str, parts: &'static [(Part, &'static str)]) -> Entry {
    Entry { name, truth: Truth::Unprovable, by_hand, parts, v6: false }
}

/// An entry that is open, closed or dead: nothing answers anybody.
pub const fn silent(name: &'static str, parts: &'static [(Part, &'static str)]) -> Entry {
    Entry { name, truth: Truth::Unprovable, by_hand: NOBODY, parts, v6: false }
}

/// An entry at its place.
struct Kept<'a> {
    entry: &'a Entry,
    port: usize,
    processes: Vec<Process>,
}

/// What the monitor made of a hall.
pub struct Judgement {
    /// Where it and the truth differ.
    pub wrong: Vec<String>,
    /// The most memory it had, in KiB.
    pub peak_kib: u64,
    /// How long it took.
    pub took: Duration,
}

/// Part of the zoo, with everything in it awake.
pub struct Hall<'a> {
    lab: &'a Lab,
    kept: Vec<Kept<'a>>,
    _beacons: [Process; 2],
}

impl Part {
    /// What stands in front of every setup of this product.
    fn head(self) -> &'static str {
        match self {
            Part::Squid => squid::HEAD,
            Part::Tinyproxy => http::TINYPROXY,
            Part::Haproxy => http::HAPROXY,
            Part::Apache => http::APACHE,
            Part::Nginx => http::NGINX,
            Part::Privoxy => "confdir /etc/privoxy\nlogdir {dir}\n",
            Part::Dante => rest::DANTE,
            Part::Sniproxy => "user nobody\n",
            Part::Lighttpd => {
                "server.document-root = \"{dir}\"\nserver.port = {port}\nserver.bind = \"{ip}\"\nserver.errorlog = \"{dir}/{name}-error.log\"\n"
            }
            Part::Ssh => {
                "ListenAddress 127.0.0.1:{port}\nHostKey {dir}/ssh-key\nAuthorizedKeysFile {dir}/ssh-key.pub\nPidFile none\nStrictModes no\n\
                 PermitRootLogin yes\nUsePAM no\nMaxSessions 200\n"
            }
            _ => "",
        }
    }

    /// The command that runs it in the foreground; `file` is its configuration and `setup` the same without the head.
    fn command(self, file: &str, setup: &str, place: &Place<'_>) -> String {
        match self {
            Part::Squid => format!("squid -N -n zoo{} -f {file}", place.port),
            Part::Tinyproxy => format!("tinyproxy -d -c {file}"),
            Part::Haproxy => format!("haproxy -db -q -f {file}"),
            Part::Apache => format!("apache2 -DFOREGROUND -f {file}"),
            Part::Nginx => format!("nginx -c {file}"),
            Part::Privoxy => format!("privoxy --no-daemon {file}"),
            Part::Dante => format!("danted -f {file}"),
            Part::Sniproxy => format!("sniproxy -f -c {file}"),
            Part::Lighttpd => format!("lighttpd -D -f {file}"),
            Part::Microsocks => format!("microsocks {setup}"),
            Part::Ncat => format!("ncat {setup} --max-conns 200"),
            Part::Nghttpx => format!("nghttpx --conf=/dev/null --errorlog-file={file}.errors {setup}"),
            Part::Simpleproxy => format!("simpleproxy {setup}"),
            Part::Stunnel => format!("stunnel4 {file}"),
            Part::Socat => format!("socat {setup}"),
            Part::Peer => format!("{} {}/peer.py {setup}", python(), place.dir()),
            Part::Ssh => {
                let (dir, port) = (place.dir(), place.port);
                let options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectionAttempts=50 -o BatchMode=yes";
                format!(
                    "sh -c '$(command -v sshd) -D -e -f {file} & exec ssh -N {options} -i {dir}/ssh-key -D {PROXY4}:{port} -p {port} root@127.0.0.1'"
                )
            }
            Part::Edge | Part::Own => String::new(),
        }
    }
}

/// What the placeholders of a setup stand for.
struct Place<'a> {
    lab: &'a Lab,
    name: String,
    port: usize,
    ip: &'static str,
}

impl Place<'_> {
    fn dir(&self) -> String {
        self.lab.dir().display().to_string()
    }

    fn at(&self) -> String {
        if self.ip.contains(':') { format!("[{}]:{}", self.ip, self.port) } else { format!("{}:{}", self.ip, self.port) }
    }

    fn fill(&self, text: &str, from: &str) -> String {
        let back = self.port + 1;
        [
            ("{connects}", "LoadModule proxy_connect_module /usr/lib/apache2/modules/mod_proxy_connect.so\n".to_string()),
            ("{at}", self.at()),
            ("{ip}", self.ip.into()),
            ("{port}", self.port.to_string()),
            ("{back}", format!("{BACK}:{back}")),
            ("{backs}", format!("{BACK},{back}")),
            ("{backport}", back.to_string()),
            ("{dir}", self.dir()),
            ("{name}", self.name.clone()),
            ("{from}", from.into()),
        ]
        .into_iter()
        .fold(text.to_string(), |text, (word, means)| text.replace(word, &means))
    }
}

impl<'a> Hall<'a> {
    /// Starts every entry and waits until it listens.
    pub fn open(lab: &'a Lab, entries: &'a [&'a [Entry]]) -> Hall<'a> {
        let dir = lab.dir();
        fs::write(dir.join("peer.py"), include_str!("zoo/peer.py")).unwrap();
        fs::write(dir.join("listed"), "^site[.]lab[.]test$\n").unwrap();
        fs::write(dir.join("slow.sh"), "while read -r _; do sleep 6; echo OK; done\n").unwrap();
        let hash = lab.output(Host::Private, &["openssl", "passwd", "-apr1", &format!("word-{SECOND4}")]);
        fs::write(dir.join("passwords"), format!("known:{hash}")).unwrap();
        lab.output(Host::Private, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &dir.join("ssh-key").display().to_string()]);
        lab.output(Host::Private, &["mkdir", "-p", "/run/sshd"]);
        lab.ip(Host::Private, "addr add 10.0.0.4/24 dev eth0\n");
        lab.nft(Host::Private, "table inet own {\n chain output {\n type filter hook output priority 0;\n }\n}\n");

        for port in [25, 8080] {
            lab.hub(Host::Beacon)
                .ask(&json!({ "do": "listen", "name": format!("page:{port}"), "host": WITNESS4, "port": port, "mode": "http" }));
        }
        let mut hall = Hall { lab, kept: Vec::new(), _beacons: beacons(lab) };
        let mut rules = Vec::new();
        for (number, entry) in entries.iter().copied().flatten().enumerate() {
            for (part, setup) in entry.parts {
                let place = Place { lab, name: entry.name.into(), port: FIRST_PORT + 2 * number, ip: entry.address() };
                match part {
                    Part::Edge => rules.push(place.fill(setup, "")),
                    Part::Own => lab.nft(Host::Private, &format!("add rule inet own output {}\n", place.fill(setup, ""))),
                    _ => {}
                }
            }
            hall.kept.push(Kept { entry, port: FIRST_PORT + 2 * number, processes: Vec::new() });
        }
        lab.acl_with(&rules.iter().map(String::as_str).collect::<Vec<_>>(), Denial::Drop);
        // Who stands behind comes first: a proxy that finds nobody there at its start may remember that.
        hall.wake(|part| part == Part::Peer);
        hall.wake(|part| !matches!(part, Part::Peer | Part::Edge | Part::Own));
        hall
    }

    /// Starts these parts of every entry, and waits until they listen.
    fn wake(&mut self, these: impl Fn(Part) -> bool) {
        let mut places: Vec<(String, &str, usize)> = Vec::new();
        for kept in &mut self.kept {
            for (at, (part, setup)) in kept.entry.parts.iter().enumerate().filter(|(_, (part, _))| these(*part)) {
                let place = Place { lab: self.lab, name: format!("{}-{at}", kept.entry.name), port: kept.port, ip: kept.entry.address() };
                let behind = !setup.contains("{at}") && setup.contains("{back}");
                let setup = place.fill(setup, "");
                let file = write_config(self.lab, &format!("{}.conf", place.name), &format!("{}{setup}\n", place.fill(part.head(), "")));
                // A process namespace of its own, whose first process never changes its user: whatever is forked ends with it.
                let script = format!("{} &\nwait $!\n", part.command(&file.display().to_string(), &setup, &place));
                let script = write_config(self.lab, &format!("{}.sh", place.name), &script);
                let command = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--", "sh", script.to_str().unwrap()];
                kept.processes.push(Process::spawn(self.lab, Host::Private, &place.name, &command, false));
                places.push(if behind { (place.name, BACK, kept.port + 1) } else { (place.name, place.ip, kept.port) });
            }
        }
        let hub = self.lab.hub(Host::Private);
        let ready = until(SOON, || {
            let probes: Vec<Value> = places.iter().map(|(_, host, port)| json!({ "host": host, "port": port, "timeout": 1 })).collect();
            let mut seen = hub.connects(&probes).into_iter();
            places.retain(|_| !seen.next().is_some_and(|s| ["connected", "ECONNRESET"].contains(&s.outcome.as_str())));
            places.is_empty().then_some(())
        });
        let logs: String = places.iter().map(|(name, ..)| format!("{name}: {}\n", self.lab.log(name))).collect();
        assert!(ready.is_some(), "these did not get ready:\n{logs}");
    }

    /// The truth by hand: what each entry gives to whom, without the monitor.
    pub fn by_hand(&self) -> Vec<String> {
        let ask = |kept: &Kept<'_>, from: &str| {
            let place = Place { lab: self.lab, name: kept.entry.name.into(), port: kept.port, ip: kept.entry.address() };
            let command = place.fill(kept.entry.by_hand, from);
            let done = self.lab.inside(Host::Stranger, &["sh", "-c", &command]).output().unwrap();
            (String::from_utf8_lossy(&done.stdout).contains(PAGE), format!("{command}: {done:?}"))
        };
        let seen = |kept: &Kept<'_>| {
            let mut wrong = Vec::new();
            if kept.entry.by_hand.is_empty() {
                return wrong;
            }
            let (stranger, how) = ask(kept, kept.entry.sources().0);
            let open = matches!(kept.entry.truth, Truth::Open(_) | Truth::Hidden);
            if stranger != open {
                wrong.push(format!(
                    "{}: by hand a stranger {}: {how}",
                    kept.entry.name,
                    if stranger { "got the page" } else { "got nothing" }
                ));
            }
            if !open {
                let (allowed, how) = ask(kept, kept.entry.sources().1);
                wrong.extend((!allowed).then(|| format!("{}: by hand the allowed address got nothing: {how}", kept.entry.name)));
            }
            wrong
        };
        std::thread::scope(|scope| {
            let share = self.kept.len().div_ceil(4).max(1);
            let threads: Vec<_> =
                self.kept.chunks(share).map(|some| scope.spawn(move || some.iter().flat_map(seen).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        })
    }

    /// A configuration that has a check of each of these entries, with its witnesses; `top` are more sections.
    pub fn config(&self, top: &str, suite: &str, these: impl Fn(&Entry) -> bool) -> String {
        let ca = self.lab.dir().join("ca.pem");
        let mut body = format!("{top}[beacon]\nkey_file = \"beacon.key\"\n{}", internet());
        for Kept { entry, port, .. } in self.kept.iter().filter(|kept| these(kept.entry)) {
            let place = Place { lab: self.lab, name: entry.name.into(), port: *port, ip: entry.address() };
            let (name, at) = (entry.name, place.at());
            let from_allowed = format!("source = \"{}\"\nexpect = \"open\"", entry.sources().1);
            body += &check(&format!("{name}-alive"), "tcp", &at, &from_allowed);
            let relays = matches!(entry.truth, Truth::Closed) && entry.by_hand == TUNNEL;
            if relays {
                let through = format!("via = \"http://{at}\"\nca_file = {ca:?}\n{from_allowed}");
                body += &check(&format!("{name}-relays"), "http", "https://site.lab.test/", &through);
            }
            let relays = if relays { format!(", \"{name}-relays\"") } else { String::new() };
            // Only who audits a proxy with a list of destinations knows one of them.
            let listed = if entry.by_hand == NOBODY { String::new() } else { format!("{LISTED}\nca_file = {ca:?}") };
            let suite = if suite.is_empty() { entry.suite() } else { suite.to_owned() };
            body += &check(
                name,
                "open-proxy",
                &at,
                &format!(
                    "beacon = [\"http://{BEACON4}:443/\", \"http://beacon.lab.test:80/\", \"http://{WITNESS4}:9891/\"]\nexpect = \"blocked\"\n{suite}\n{listed}\n\
                     witness = [\"internet\", \"{name}-alive\"{relays}]\nrequire = [\"vantage\", \"target\"]"
                ),
            );
        }
        // Two cores may have a whole hall to serve between two witnesses.
        format!("witness_window = \"30s\"\n{}", config("stranger", &body))
    }

    /// What the monitor says of these entries, against the truth; `suite` is what is written of techniques, each entry's own where it is empty.
    pub fn judge(&self, suite: &str, these: impl Fn(&Entry) -> bool) -> Judgement {
        let kept = || self.kept.iter().filter(|kept| these(kept.entry));
        let mut gate = start_gate(self.lab, Host::Stranger, &self.config("", suite, &these), None);
        let mut peak_kib = 0;
        until(SOON * 2, || {
            peak_kib = gate.peak_kib().unwrap_or(peak_kib);
            (!gate.running()).then_some(())
        });
        let run = gate.finish(self.lab);
        let wrong = kept().flat_map(|kept| wrong_about(kept.entry, run.check(kept.entry.name))).collect();
        Judgement { wrong, peak_kib, took: Duration::from_millis(run.report["duration_ms"].as_u64().unwrap()) }
    }
}

/// A destination that the lists of the zoo have.
const LISTED: &str = "allowed_destination = \"site.lab.test:443\"";
/// The few techniques that find most.
const QUICK: [&str; 4] = ["OP-01", "OP-02", "OP-07", "OP-09"];
/// What says that a proxy let a stranger in.
const OPEN: [&str; 4] = ["relayed", "relayed-blind", "tunnelled", "acl-passed"];

/// What a verdict has that the truth has not.
fn wrong_about(entry: &Entry, judged: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let verdict = judged["verdict"].as_str().unwrap();
    let due = match entry.truth {
        Truth::Open(_) => "violated",
        Truth::Hidden if verdict == "unproven" => "unproven",
        Truth::Hidden => "violated",
        Truth::Quiet if verdict == "unproven" => "unproven",
        Truth::Closed | Truth::Quiet => "holds",
        Truth::Unprovable => "unproven",
    };
    let mut say = |what: String| wrong.push(format!("{}: {what}", entry.name));
    let looked = observed(judged);
    let shown = |technique: &str| {
        looked.iter().filter(|o| o["evidence"]["technique"] == technique && OPEN.iter().any(|t| o["outcome"] == *t)).count()
    };
    let mut table = String::new();
    for o in &looked {
        let detail = o["evidence"]["detail"].as_str().unwrap_or_default();
        let _ = write!(table, "\n    {} {} {} {detail}", o["evidence"]["technique"], o["outcome"], o["verdict"]);
    }
    if verdict != due {
        say(format!("is {verdict}, must be {due}: {} {table}", judged["reason"]));
    }
    match entry.truth {
        Truth::Open(by) => {
            for technique in by {
                if shown(technique) == 0 {
                    say(format!("{technique} must show it{table}"));
                }
            }
            let (due, seen) = (by.iter().any(|t| QUICK.contains(t)), QUICK.iter().any(|t| shown(t) > 0));
            if due != seen && !by.is_empty() {
                say(format!("the quick techniques alone {} it{table}", if seen { "show" } else { "miss" }));
            }
        }
        Truth::Hidden => {}
        Truth::Closed | Truth::Quiet | Truth::Unprovable => {
            for o in looked.iter().filter(|o| OPEN.iter().any(|t| o["outcome"] == *t)) {
                say(format!("relays for nobody: {o:#}"));
            }
        }
    }
    let proofs = |of: &Value| ["vantage", "target"].iter().all(|p| of["proofs"].as_array().is_some_and(|all| all.contains(&json!(p))));
    if verdict == "holds" && !(proofs(judged) && looked.iter().all(|o| proofs(o))) {
        say(format!("holds without its proofs: {judged:#}"));
    }
    for o in looked.iter().filter(|o| o["outcome"] == "relayed") {
        if !o["evidence"]["beacon_saw"].as_str().is_some_and(|saw| saw.starts_with(EGRESS4)) {
            say(format!("the beacon saw somebody else: {o:#}"));
        }
    }
    wrong
}

/// The product's own beacons: one by address and by name on the usual ports, another one elsewhere on a high port.
fn beacons(lab: &Lab) -> [Process; 2] {
    write_config(lab, "beacon.key", "6d7573746e6f742d6c61622d6b65792d6d7573746e6f742d6c61622d6b657921\n");
    let hub = lab.hub(Host::Beacon);
    [("beacon", BEACON4, &[443, 80][..]), ("far-beacon", WITNESS4, &[9891])].map(|(name, host, ports)| {
        let listen: Vec<String> = ports.iter().map(|port: &u16| format!("{host}:{port}")).collect();
        let text = format!("vantage = \"{name}\"\n[beacon]\nlisten = {listen:?}\nkey_file = \"beacon.key\"\n");
        let config = write_config(lab, &format!("{name}.toml"), &text);
        let command = [env!("CARGO_BIN_EXE_mustnot"), "beacon", "--config", config.to_str().unwrap()];
        let mut process = Process::spawn(lab, Host::Beacon, name, &command, false);
        let ready = until(SOON, || {
            assert!(process.ended().is_none(), "{name} ended: {}", lab.log(name));
            (hub.connect(host, ports[0], 0.2).outcome == "connected").then_some(())
        });
        assert!(ready.is_some(), "{name} did not get ready: {}", lab.log(name));
        process
    })
}

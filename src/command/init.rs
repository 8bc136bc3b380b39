//! `mustnot config init`: an annotated start. What a flag gives is at work in it; what no flag gives stands there as an example.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::{console, usage};
use crate::cli::{EXIT_HOLDS, Init};
use crate::plan::{self, Keys};
use crate::target::{HostPort, Scheme, Url};

/// Examples, where no flag says better.
const ADMIN: &str = "https://admin.example.com/";
const PROXY: &str = "proxy.example.com:3128";
const BEACON: &str = "http://beacon.example.com:443/";
/// Where status page and metrics go, unless the beacon is there.
const WEB_PORT: u16 = 9890;
const ALLOWED: &str = "203.0.113.10";
/// How often the whole suite of kind open-proxy is tried: longer than its longest run.
const SUITE: &str = "15m";

/// Writes the start; an existing file is left as it is.
pub fn init(config: &Path, flags: &Init) -> u8 {
    let path = flags.output.as_deref().unwrap_or(config);
    let text = start(flags);
    let base = path.parent().unwrap_or(Path::new(""));
    if let Err(problems) = plan::from_text("(config init)", &text, base, &|_| None, Keys::Read) {
        return usage(&format!("these flags make no configuration:\n{problems}"));
    }
    if path == Path::new("-") {
        console::say(text.trim_end());
        return EXIT_HOLDS;
    }
    let shown = path.display();
    let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => {
            console::say(&format!("wrote {shown}; read it, then: mustnot --config {shown} config check"));
            EXIT_HOLDS
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            usage(&format!("{shown} is there already and stays as it is; write another place with --output FILE"))
        }
        Err(e) => usage(&format!("cannot write {shown}: {e}; write another place with --output FILE")),
    }
}

/// The text that these flags ask for.
pub fn start(flags: &Init) -> String {
    let values = Values::of(flags);
    let mut out = values.head();
    let parts = if flags.inside { values.inside() } else { values.outside() };
    for Part { at_work, text } in parts {
        out.push('\n');
        for line in text.lines() {
            // In an example the # is put before each line that is none already, and nothing else: taking it away brings it to work.
            let mark = if at_work || line.is_empty() || line.starts_with('#') { "" } else { "#" };
            let _ = writeln!(out, "{mark}{line}");
        }
    }
    out
}

/// One paragraph of the file.
struct Part {
    at_work: bool,
    text: String,
}

fn part(at_work: bool, text: String) -> Part {
    Part { at_work, text }
}

/// What the flags say, as it stands in TOML.
struct Values<'a> {
    flags: &'a Init,
    vantage: String,
    admin: String,
    proxy: String,
    via: String,
    beacon: String,
    allowed: String,
    /// `host:port` of the admin page where it speaks TLS, so that its certificate can prove a tunnel to it.
    destination: Option<String>,
    beacon_port: u16,
}

impl<'a> Values<'a> {
    fn of(flags: &'a Init) -> Values<'a> {
        let place = if flags.inside { "inside" } else { "outside" };
        let admin = flags.admin.as_deref().unwrap_or(ADMIN);
        let proxy = flags.proxy.as_deref().unwrap_or(PROXY);
        let beacon = flags.beacon.as_deref().unwrap_or(BEACON);
        let networks: Vec<String> = flags.allowed.iter().map(|net| quoted(&single(*net))).collect();
        let page = admin.parse::<Url>().ok().filter(|url| url.scheme == Scheme::Https);
        Values {
            flags,
            vantage: quoted(flags.vantage.as_deref().unwrap_or(place)),
            admin: quoted(admin),
            proxy: quoted(proxy),
            via: quoted(&format!("http://{proxy}")),
            beacon: quoted(beacon),
            allowed: if networks.is_empty() { quoted(ALLOWED) } else { networks.join(", ") },
            destination: page.map(|url: Url| HostPort::to_string(&url.authority)),
            beacon_port: beacon.parse::<Url>().map_or(443, |url| url.authority.port),
        }
    }

    fn head(&self) -> String {
        let (who, other) = match self.flags.inside {
            true => ("a place that is allowed: the one way that must work, works", "`mustnot config init` without --inside"),
            false => ("a place that nobody allows: what must not be reachable is not", "`mustnot config init --inside`"),
        };
        format!(
            "# Seen from {who}.\n\
             # Two monitors show the whole: one outside, at an address that no list allows, and one inside. Each has a file of its own;\n\
             # {other} writes the other one. Lines that begin with # and no space are examples: take the # away.\n\
             #\n\
             # After every change: `mustnot config check`. What a check will do, in words: `mustnot config explain NAME`.\n\
             # Completion in editors: `mustnot config schema > probes.schema.json`, and here the line  #:schema ./probes.schema.json\n\
             \n\
             # Where this monitor stands; it is on every report and metric.\n\
             vantage = {vantage}\n\
             # What was seen open stays violated until a run holds; with a directory here, over a restart, too.\n\
             #state_dir = \"state\"\n\
             \n\
             [defaults]\n\
             interval = \"30s\"\n\
             # Where this place has no IPv6. Without this line its IPv6 addresses are `unproven`, never \"blocked\".\n\
             #families = [\"ipv4\"]\n\
             \n\
             # Status page, metrics, API. It has neither TLS nor a password: keep it on loopback, or put a server in front that adds both.\n\
             [web]\n\
             listen = \"127.0.0.1:{web_port}\"\n",
            vantage = self.vantage,
            web_port = if self.beacon_port == WEB_PORT { WEB_PORT + 1 } else { WEB_PORT }
        )
    }

    fn outside(&self) -> Vec<Part> {
        let Values { flags, admin, proxy, via, beacon, allowed, .. } = self;
        let destination = match &self.destination {
            Some(to) => format!("# And a stranger must not get to the page through it (OP-07).\nallowed_destination = {}\n", quoted(to)),
            None => String::new(),
        };
        let through = if flags.admin.is_some() { admin } else { "\"https://example.com/\"" };
        vec![
            part(
                flags.beacon.is_some(),
                format!(
                    "# Our beacon: it answers with the address that it saw, and signs that. Nothing else proves that a proxy relayed. The first\n\
                     # start makes the key; the inside monitor needs a copy. Many proxies tunnel to port 443 only; for that one, listening takes\n\
                     # CAP_NET_BIND_SERVICE. Where the beacon runs elsewhere: leave out listen, and copy its key here.\n\
                     [beacon]\nlisten = [\"0.0.0.0:{}\"]\nkey_file = \"beacon.key\"\n",
                    self.beacon_port
                ),
            ),
            internet(true),
            part(
                false,
                "# The better witness: the inside monitor says that it reaches the page right now. With it, add \"admin-alive\" to the witnesses\n\
                     # of admin-closed and write require = [\"vantage\", \"target\"] there: then a page that is down is no block.\n\
                     [[check]]\nname = \"admin-alive\"\nkind = \"peer\"\ntarget = \"https://inside-monitor.example.com/\"\n\
                     check = \"admin-open\"\nexpect = \"open\"\n"
                    .into(),
            ),
            part(
                flags.admin.is_some(),
                format!(
                    "# The page must be closed to this place: no TCP, no TLS, or 403. It may be open to {allowed} only,\n\
                     # so this monitor must not stand there.\n\
                     [[check]]\nname = \"admin-closed\"\nkind = \"http\"\ntarget = {admin}\nexpect = \"blocked\"\n\
                     witness = [\"internet\"]\nrequire = [\"vantage\"]\nseverity = \"critical\"\n",
                    allowed = allowed.replace('"', "")
                ),
            ),
            part(
                flags.proxy.is_some() && flags.beacon.is_none(),
                format!(
                    "# The proxy must grant no tunnel to a stranger. That is one of many ways to make a proxy relay: with --beacon URL, a check of\n\
                     # kind open-proxy tries the others as well, and this one can go.\n\
                     [[check]]\nname = \"proxy-denies\"\nkind = \"http\"\ntarget = {through}\nvia = {via}\n\
                     # No \"reset\" or \"closed\": those may come from the target, through a tunnel that was granted.\n\
                     expect = [\"denied\", \"refused\", \"timeout\", \"unreachable\", \"prohibited\"]\n\
                     witness = [\"internet\"]\nrequire = [\"vantage\"]\nseverity = \"critical\"\n"
                ),
            ),
            part(
                flags.proxy.is_some() && flags.beacon.is_some(),
                format!(
                    "# The proxy must relay nothing for a stranger, whichever way it is asked. That takes minutes where all is silent.\n\
                     [[check]]\nname = \"proxy-relays-nothing\"\nkind = \"open-proxy\"\ntarget = {proxy}\nbeacon = [{beacon}]\n{destination}\
                     expect = \"blocked\"\ninterval = \"{SUITE}\"\nwitness = [\"internet\"]\nrequire = [\"vantage\"]\nseverity = \"critical\"\n"
                ),
            ),
        ]
    }

    fn inside(&self) -> Vec<Part> {
        let Values { flags, admin, proxy, via, beacon, allowed, .. } = self;
        let way = if flags.proxy.is_some() { format!("via = {via}\n") } else { format!("#via = {via}\n") };
        vec![
            internet(flags.admin.is_none() && flags.proxy.is_none()),
            part(
                flags.admin.is_some(),
                format!(
                    "# The allowed way works: the page answers. The outside monitor takes this check as its witness (kind peer).\n\
                     [[check]]\nname = \"admin-open\"\nkind = \"http\"\ntarget = {admin}\n{way}\
                     # What only the page itself says, so that no other 200 is taken for it.\n#body_contains = \"Sign in\"\n\
                     expect = \"open\"\nseverity = \"critical\"\n"
                ),
            ),
            part(
                flags.proxy.is_some(),
                format!("# The proxy is there.\n[[check]]\nname = \"proxy-open\"\nkind = \"tcp\"\ntarget = {proxy}\nexpect = \"open\"\n"),
            ),
            part(
                false,
                format!(
                    "# The world sees the one address: by the signature of the beacon, which runs outside. Copy its beacon.key here first (mode 0600).\n\
                     [beacon]\nkey_file = \"beacon.key\"\n\
                     [[check]]\nname = \"egress-ip\"\nkind = \"egress-ip\"\ntarget = {beacon}\nvia = {via}\n\
                     expect = {{ ip = [{allowed}] }}\nseverity = \"critical\"\n"
                ),
            ),
            part(
                false,
                format!(
                    "# Where the proxy is to be the only way: the page is closed to this place without it, while it is open with it.\n\
                     # Needs admin-open through the proxy, and proxy-open.\n\
                     [[check]]\nname = \"admin-only-by-the-proxy\"\nkind = \"http\"\ntarget = {admin}\nexpect = \"blocked\"\n\
                     witness = [\"proxy-open\", \"admin-open\"]\nrequire = [\"vantage\", \"target\"]\n"
                ),
            ),
        ]
    }
}

fn internet(at_work: bool) -> Part {
    part(
        at_work,
        "# This place is online. A block counts only while this gets through, just before it and just after it. Any host will do that is\n\
         # always there, by both families; best with the port of what is blocked.\n\
         [[check]]\nname = \"internet\"\nkind = \"tcp\"\ntarget = \"one.one.one.one:443\"\nexpect = \"open\"\n"
            .into(),
    )
}

/// A network as it is usually written: a single address without its prefix.
fn single(net: ipnet::IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// A TOML basic string: its escapes are those of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

//! What a configuration says, as far as it is about who gets in, to where, and in what state Squid runs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::acl::{Acls, Listener};
use super::read::{Directive, Files, Place, Trouble, read};
use super::rules::Rules;

/// Every directive of Squid 5.7 and 6.13 (`cf.data.pre`), one a line.
const DIRECTIVES: &str = include_str!("directives.txt");
/// Access directives that are judged.
const ACCESS: [&str; 6] = ["http_access", "proxy_protocol_access", "follow_x_forwarded_for", "icp_access", "htcp_access", "snmp_access"];
/// Directives by which a request ends elsewhere than where it was judged.
const ELSEWHERE: [&str; 8] = [
    "cache_peer",
    "url_rewrite_program",
    "redirect_program",
    "adaptation_access",
    "ssl_bump",
    "store_id_program",
    "always_direct",
    "never_direct",
];
/// Words of a port that make it something else than a plain forward proxy's.
const MODES: [&str; 6] = ["accel", "vhost", "intercept", "transparent", "tproxy", "ssl-bump"];

/// A port where clients come in.
#[derive(Debug, Clone)]
pub struct Port {
    /// What ACLs can ask of it.
    pub listener: Listener,
    /// Whether it wants the PROXY protocol.
    pub proxy_header: bool,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Where it is written.
    pub at: Place,
}

/// A configuration, understood.
#[derive(Debug, Default)]
pub struct Config {
    /// Every ACL.
    pub acls: Acls,
    /// The ports that are plain forward proxies.
    pub ports: Vec<Port>,
    /// What Squid would not start with, and what was not followed, in the order of the file.
    pub trouble: Vec<(Place, Trouble)>,
    /// Lines that name no ACL or no action, which Squid skips.
    access: BTreeMap<&'static str, Rules>,
    /// Every other directive, by its name, the last line last.
    lines: BTreeMap<String, Vec<Directive>>,
}

impl Config {
    /// Reads a configuration and what it includes.
    pub fn read(file: &str, text: &str, files: &dyn Files) -> Config {
        let read = read(file, text, files);
        let mut config = Config { acls: Acls::built_in(), trouble: read.trouble, ..Config::default() };
        for line in read.directives {
            config.take(line, files);
        }
        config.trouble.sort_by(|a, b| a.0.line.cmp(&b.0.line).then_with(|| a.0.file.cmp(&b.0.file)));
        config
    }

    fn take(&mut self, line: Directive, files: &dyn Files) {
        let name = line.name.as_str();
        let trouble = match name {
            "acl" => self.acls.add(&line, files),
            "http_port" | "https_port" => self.port(&line),
            "ftp_port" => vec![Trouble::NotFollowed("who may use the FTP proxy of `ftp_port` is not judged; leave it out".into())],
            "configuration_includes_quoted_values" if line.words.first().is_some_and(|w| w == "on") => {
                vec![Trouble::NotFollowed(
                    "with `configuration_includes_quoted_values on` quotes mean something else; they are read as file names here".into(),
                )]
            }
            _ if ELSEWHERE.contains(&name) => {
                vec![Trouble::NotFollowed(format!(
                    "`{name}` can send a request elsewhere than to where it was judged; that is not looked at"
                ))]
            }
            _ if !DIRECTIVES.lines().any(|known| known == name) => {
                vec![Trouble::Refused(format!("neither Squid 5 nor 6 knows `{name}`"))]
            }
            _ => match ACCESS.iter().find(|known| **known == name) {
                Some(known) => self.access.entry(known).or_default().add(&line, &self.acls),
                None => Vec::new(),
            },
        };
        self.trouble.extend(trouble.into_iter().map(|what| (line.at.clone(), what)));
        self.lines.entry(line.name.clone()).or_default().push(line);
    }

    fn port(&mut self, line: &Directive) -> Vec<Trouble> {
        let [spec, options @ ..] = line.words.as_slice() else {
            return vec![Trouble::Refused("it names no port".into())];
        };
        let (host, port) = spec.rsplit_once(':').map_or((None, spec.as_str()), |(host, port)| (Some(host), port));
        let Ok(port) = port.parse::<u16>() else {
            return vec![Trouble::Refused(format!("`{spec}` has no port"))];
        };
        if let Some(mode) = options.iter().find(|option| MODES.contains(&option.as_str())) {
            return vec![Trouble::NotFollowed(format!(
                "a port of mode `{mode}` is no plain proxy's; who gets in there, and to where, is not judged"
            ))];
        }
        let address: Option<IpAddr> = host.and_then(|host| host.trim_matches(['[', ']']).parse().ok());
        let name = options.iter().find_map(|option| option.strip_prefix("name=")).unwrap_or(spec);
        let listener = Listener { name: name.to_string(), address, port };
        let proxy_header = options.iter().any(|option| option == "require-proxy-header");
        self.ports.push(Port { listener, proxy_header, tls: line.name == "https_port", at: line.at.clone() });
        Vec::new()
    }

    /// The lines of an access directive.
    pub fn access(&self, name: &str) -> Option<&Rules> {
        self.access.get(name).filter(|rules| rules.last().is_some())
    }

    /// The line of a directive that counts where the last one does.
    pub fn last(&self, name: &str) -> Option<&Directive> {
        self.lines.get(name)?.last()
    }

    /// Its first word, or what Squid takes without a line.
    pub fn value<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.last(name).and_then(|line| line.words.first()).map_or(default, String::as_str)
    }

    /// Whether it is on.
    pub fn is_on(&self, name: &str, default: bool) -> bool {
        self.last(name).and_then(|line| line.words.first()).map_or(default, |word| matches!(word.as_str(), "on" | "enable"))
    }

    /// Every line of a directive.
    pub fn every(&self, name: &str) -> impl Iterator<Item = &Directive> {
        self.lines.get(name).into_iter().flatten()
    }
}

//! What a configuration leaves open: by the requests that its rules let in, and by what its settings say.

use std::collections::BTreeSet;
use std::time::Duration;

use super::config::Config;
use super::finding::{Finding, Id, NotJudged, Report};
use super::reach::{Block, Granted, granted, peers, spans, strangers};
use super::read::{Files, Place, Trouble};
use super::rules::Rules;
use super::settings;
use super::span::{Span, Spans};
use crate::severity::Severity;

/// What somebody does for sure, and what he may do.
const REACHES: [&str; 2] = ["reaches", "may reach"];
/// Ports of CONNECT that are as good as one; more is a finding.
const FEW_PORTS: u128 = 16;

/// What the text does not say.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Whether a load balancer stands in front that opens its own connections.
    pub behind_load_balancer: bool,
    /// How long Squid is given to stop before it is killed.
    pub stop_timeout: Duration,
}

/// Reads a configuration and says what it leaves open.
pub fn lint(file: &str, text: &str, files: &dyn Files, setting: Setting) -> Report {
    let config = Config::read(file, text, files);
    let start = Place { file: file.into(), line: 1 };
    let mut report = Report::default();
    trouble(&config, &mut report);
    doors(&config, &start, setting, &mut report);
    match config.access("http_access") {
        Some(rules) => rules_of_http(&config, rules, &mut report),
        None => {
            let what = "there is no `http_access` line, so Squid refuses everybody";
            report.findings.push(Finding::new(
                Id::NobodyGetsIn,
                start.clone(),
                what.into(),
                &["http_access allow allowed", "http_access deny all"],
            ));
        }
    }
    settings::judge(&config, &start, setting, &mut report);
    let order = |f: &Finding| (f.severity, !f.certain, f.id, f.at.clone());
    report.findings.sort_by_key(order);
    report.findings.dedup();
    report.not_judged.dedup();
    report
}

fn trouble(config: &Config, report: &mut Report) {
    for (at, what) in &config.trouble {
        match what {
            Trouble::Refused(why) => {
                report.findings.push(Finding::new(Id::Refused, at.clone(), format!("Squid does not start with this line: {why}"), &[]));
            }
            Trouble::Ignored(why) => report.findings.push(Finding::new(Id::Ignored, at.clone(), why.clone(), &[])),
            Trouble::NotFollowed(why) => report.not_judged.push(NotJudged { at: at.clone(), message: why.clone() }),
        }
    }
}

/// Whose address the rules judge.
fn doors(config: &Config, start: &Place, setting: Setting, report: &mut Report) {
    if config.ports.is_empty() {
        report.not_judged.push(NotJudged { at: start.clone(), message: "no plain `http_port` was found, so no request was tried".into() });
    }
    for port in &config.ports {
        let address = port.listener.address;
        if address.is_some_and(|ip| ip.is_loopback()) {
            let message = "this port is for the own host alone; whoever forwards to it from outside is not judged".into();
            report.not_judged.push(NotJudged { at: port.at.clone(), message });
        } else if port.proxy_header {
            let lines = [
                "acl load_balancers src 10.0.1.0/24   # the subnets of the load balancer",
                "proxy_protocol_access allow load_balancers",
                "proxy_protocol_access deny all",
            ];
            let (believed, by) = match config.access("proxy_protocol_access") {
                Some(rules) => (peers(config, rules, port), rules.last().map(|rule| rule.at.clone())),
                None => (Spans::default(), None),
            };
            let at = by.unwrap_or(port.at.clone());
            if strangers(&believed) {
                let what = format!(
                    "whoever comes from {believed} is believed what address he claims in a PROXY header, and so passes for any client"
                );
                report.findings.push(Finding::new(Id::ProxyHeaderBelieved, at, what, &lines));
            } else if believed.is_empty() {
                let what = "this port requires a PROXY header and `proxy_protocol_access` takes one from nobody, so nobody gets in; that is right until a load balancer is listed";
                report.findings.push(Finding::new(Id::ProxyHeaderRefused, at, what.into(), &lines));
            }
        } else {
            let lines = [
                "http_port 3128 require-proxy-header",
                "acl load_balancers src 10.0.1.0/24   # the subnets of the load balancer",
                "proxy_protocol_access allow load_balancers",
            ];
            let (id, what) = if setting.behind_load_balancer {
                let what = "behind a load balancer that opens its own connections every client has the balancer's address: `src` rules and the access log see nobody else, so a rule that lets it in lets everybody in. Or let the balancer keep the client's address (`preserve_client_ip.enabled`)";
                (Id::BalancerHidesClient, what)
            } else {
                let what = "if a load balancer stands in front (an NLB with IP targets does not keep the client's address), `src` rules and the log see its address alone; say --behind-load-balancer to have that judged";
                (Id::BalancerUntold, what)
            };
            report.findings.push(Finding::new(id, port.at.clone(), what.into(), &lines));
        }
    }
    forwarded_for(config, setting, report);
}

fn forwarded_for(config: &Config, setting: Setting, report: &mut Report) {
    let Some((rules, port)) = config.access("follow_x_forwarded_for").zip(config.ports.first()) else { return };
    let believed = peers(config, rules, port);
    let acl = config.is_on("acl_uses_indirect_client", true);
    let log = config.is_on("log_uses_indirect_client", true);
    let forged = strangers(&believed) || (setting.behind_load_balancer && !port.proxy_header && !believed.is_empty());
    if let Some(rule) = rules.iter().find(|rule| rule.allow).filter(|_| forged && (acl || log)) {
        let harm = if acl { "and so passes for any client" } else { "and so the log names whom he likes" };
        let what = format!(
            "whoever comes from {believed} is believed what address he writes into X-Forwarded-For, {harm}; a load balancer that passes TCP on passes this header on, too"
        );
        let mut finding = Finding::new(Id::ForwardedForBelieved, rule.at.clone(), what, &["follow_x_forwarded_for deny all"]);
        if !acl {
            finding.severity = Severity::Warning;
        }
        report.findings.push(finding);
    }
}

/// What the rules let in that nobody should get.
fn rules_of_http(config: &Config, rules: &Rules, report: &mut Report) {
    let Some(last) = rules.last().map(|rule| rule.at.clone()) else { return };
    let (all, left_out) = granted(config, rules);
    report.not_judged.extend(left_out.into_iter().map(|message| NotJudged { at: last.clone(), message }));
    let tell = Tell { last: &last };
    if all.is_empty() && report.not_judged.is_empty() {
        let what = "nobody from outside gets in, whatever he asks";
        report.findings.push(Finding::new(
            Id::NobodyGetsIn,
            last.clone(),
            what.into(),
            &["acl allowed src 203.0.113.0/24   # your clients", "http_access allow allowed"],
        ));
    }
    let of = |filter: &dyn Fn(&Granted<'_>) -> bool| all.iter().filter(|g| filter(g)).collect::<Vec<_>>();

    let open = of(&|g| g.ask.block == Block::Public && !g.ask.manager && strangers(&Spans::of(g.sure.iter().chain(g.may.iter()))));
    let clients = ["acl allowed src 203.0.113.0/24   # your clients", "http_access allow allowed", "http_access deny all"];
    report.findings.extend(tell.one(Id::OpenToStrangers, &open, ["gets in", "may get in"], "", &clients));

    let to_loopback = of(&|g| g.ask.block == Block::Loopback);
    let lines = ["acl own_host dst 127.0.0.0/8 0.0.0.0/32 ::1/128 ::/128", "http_access deny own_host"];
    report.findings.extend(tell.one(
        Id::ToLoopback,
        &to_loopback,
        REACHES,
        "what listens on the proxy's own host for itself alone",
        &lines,
    ));

    let to_link_local = of(&|g| g.ask.block == Block::LinkLocal);
    let lines = ["acl link_local dst 169.254.0.0/16 fe80::/10 fd00:ec2::254 168.63.129.16", "http_access deny link_local"];
    let what = "link-local addresses: 169.254.169.254 and 169.254.170.2 give the credentials of the machine and of the task";
    report.findings.extend(tell.one(Id::ToLinkLocal, &to_link_local, REACHES, what, &lines));

    let to_private = of(&|g| g.ask.block == Block::Private);
    let lines = ["acl private dst 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7", "http_access deny private"];
    report.findings.extend(tell.one(Id::ToPrivate, &to_private, REACHES, "the private networks behind the proxy", &lines));

    let to_embedded = of(&|g| g.ask.block == Block::Embedded);
    let lines = ["acl embedded dst 64:ff9b::/96 64:ff9b:1::/48 2002::/16", "http_access deny embedded"];
    report.findings.extend(tell.one(
        Id::ToEmbedded,
        &to_embedded,
        REACHES,
        "IPv6 addresses that a NAT64 or a tunnel turns into IPv4 ones, private ones among them",
        &lines,
    ));

    let manager = of(&|g| g.ask.manager);
    report.findings.extend(tell.one(
        Id::Manager,
        &manager,
        REACHES,
        "the cache manager, which tells who uses the proxy and for what",
        &["http_access deny manager"],
    ));

    let public = |g: &Granted<'_>| g.ask.block == Block::Public && !g.ask.manager;
    let plain = of(&|g| public(g) && g.ask.method != "CONNECT" && matches!(g.ask.scheme, "HTTP" | "HTTPS"));
    let what = "plain requests, which Squid takes apart and sends itself; a proxy for TLS needs CONNECT alone";
    report.findings.extend(tell.one(Id::PlainRequests, &plain, ["can send", "may send"], what, &["http_access deny !CONNECT"]));

    let ftp = of(&|g| public(g) && g.ask.scheme == "FTP");
    let what = "FTP servers, through Squid's reader of FTP listings (CVE-2026-47729)";
    report.findings.extend(tell.one(Id::Ftp, &ftp, REACHES, what, &["acl ftp proto FTP", "http_access deny ftp"]));

    let others = of(&|g| public(g) && matches!(g.ask.scheme, "GOPHER" | "WAIS" | "WHOIS" | "URN"));
    report.findings.extend(tell.one(
        Id::OtherSchemes,
        &others,
        REACHES,
        "schemes that nobody needs, each with code of its own",
        &["http_access deny !CONNECT"],
    ));

    let connect = of(&|g| public(g) && g.ask.method == "CONNECT");
    let ports = Spans::of(connect.iter().flat_map(|g| g.ask.ports.iter()));
    let low = ports.without(&Spans::of([Span::one(443)])).size_within(Span { first: 1, last: 1023 });
    if low > 0 || ports.size_within(Span::PORTS) > FEW_PORTS {
        let odd: Vec<&Granted<'_>> = connect.iter().filter(|g| !g.ask.ports.has(443)).copied().collect();
        let what = format!("ports {} by CONNECT, mail and remote shells among them", ports.ports());
        let lines = ["acl tunnel_ports port 443", "http_access deny !tunnel_ports"];
        report.findings.extend(tell.one(Id::ConnectPorts, &odd, REACHES, &what, &lines));
    }
    let own: Vec<u16> = config.ports.iter().map(|port| port.listener.port).collect();
    let itself = of(&|g| public(g) && own.contains(&g.ask.port));
    let what = "the port of the proxy itself, on any address: it asks itself in a loop, or is asked as the own host";
    report.findings.extend(tell.one(
        Id::ToItself,
        &itself,
        REACHES,
        what,
        &["acl tunnel_ports port 443", "http_access deny !tunnel_ports"],
    ));

    let catches_all =
        rules.last().is_some_and(|rule| !rule.allow && matches!(rule.terms.as_slice(), [term] if !term.negated && term.acl == "all"));
    if !catches_all {
        let deny = rules.last().is_some_and(|rule| !rule.allow);
        let what = match deny {
            true => "the last line denies, so whoever matches no line at all is let in: Squid's default is the opposite of the last line",
            false => {
                "the last line allows: whoever matches none is refused only until somebody adds a `deny` below it, since Squid's default is the opposite of the last line"
            }
        };
        report.findings.push(Finding::new(Id::NoFinalDeny, last.clone(), what.into(), &["http_access deny all"]));
    }
    side_ports(config, report);
}

fn side_ports(config: &Config, report: &mut Report) {
    for (port, access) in [("icp_port", "icp_access"), ("htcp_port", "htcp_access"), ("snmp_port", "snmp_access")] {
        let Some(line) = config.last(port).filter(|_| config.value(port, "0") != "0") else { continue };
        let Some((rules, first)) = config.access(access).zip(config.ports.first()) else { continue };
        let from = peers(config, rules, first);
        if strangers(&from) {
            let what = format!("{from} may ask on `{port}`, by UDP, where a source address is anybody's to claim");
            report.findings.push(Finding::new(Id::SidePorts, line.at.clone(), what, &[&format!("{port} 0")]));
        }
    }
}

struct Tell<'a> {
    last: &'a Place,
}

impl Tell<'_> {
    /// One finding of all that is granted of a kind: at the line that grants it for sure, else at the one that may.
    fn one(&self, id: Id, granted: &[&Granted<'_>], verbs: [&str; 2], what: &str, remedy: &[&str]) -> Option<Finding> {
        let certain = granted.iter().any(|g| !g.sure.is_empty() && (id != Id::OpenToStrangers || strangers(&g.sure)));
        let mut counted: Vec<&&Granted<'_>> =
            granted.iter().filter(|g| !certain || (!g.sure.is_empty() && (id != Id::OpenToStrangers || strangers(&g.sure)))).collect();
        // What is told first is what everybody would try first.
        counted.sort_by_key(|g| !g.ask.is_usual());
        let first = counted.first()?;
        let from = Spans::of(
            counted
                .iter()
                .flat_map(|g| if certain { g.sure.iter().collect::<Vec<_>>() } else { g.may.iter().chain(g.sure.iter()).collect() }),
        );
        let who = if from == all_but_own() { "everybody".to_string() } else { from.to_string() };
        let mut shown: Vec<String> = Vec::new();
        for ask in counted.iter().map(|g| format!("`{}`", g.ask)) {
            if shown.len() < 3 && !shown.contains(&ask) {
                shown.push(ask);
            }
        }
        let [verb, perhaps] = verbs;
        let (verb, if_so) = if certain { (verb, String::new()) } else { (perhaps, hangs_on(&counted)) };
        let inverted = if first.by.is_none() { "; no line decides it, and Squid does the opposite of the last one" } else { "" };
        let what = if what.is_empty() { String::new() } else { format!(" {what}") };
        let message = format!("{who} {verb}{what}{if_so}: {}{inverted}", shown.join(", "));
        let at = first.by.clone().unwrap_or_else(|| self.last.clone());
        let mut finding = Finding::new(id, at, message, remedy);
        finding.certain = certain;
        if !certain {
            finding.severity = finding.severity.max(Severity::Warning);
        }
        Some(finding)
    }
}

/// The ACLs that decide, and how.
fn hangs_on(granted: &[&&Granted<'_>]) -> String {
    let answers: BTreeSet<&(String, bool)> = granted.iter().flat_map(|g| g.hangs_on.iter()).collect();
    let told = answers.iter().map(|(acl, answer)| format!("{acl} {}", if *answer { "matches" } else { "does not match" }));
    format!(", where {}, which cannot be judged here", told.collect::<Vec<_>>().join(" and "))
}

fn all_but_own() -> Spans {
    Spans::of([Span::ALL]).without(&spans(&["127.0.0.0/8", "::1/128"]))
}

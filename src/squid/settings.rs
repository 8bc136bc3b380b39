//! Settings that no request shows: what the log, the limits and the end of the process come to.

use std::time::Duration;

use super::config::Config;
use super::finding::{Finding, Id, Report};
use super::lint::Setting;
use super::read::{Directive, Place};

/// Fewer file descriptors than this end a proxy's service early: two a tunnel, and 1024 is what most soft limits say.
const FEW_DESCRIPTORS: u64 = 4096;
/// Where Squid logs without a line.
const DEFAULT_LOG: &str = "daemon:/var/log/squid/access.log";

/// How a log begins that leaves the container.
const SEEN: [&str; 9] = [
    "stdio:/dev/stdout",
    "stdio:/dev/stderr",
    "stdio:/proc/self/fd/",
    "/dev/stdout",
    "/dev/stderr",
    "/proc/self/fd/",
    "syslog",
    "udp:",
    "tcp:",
];

/// Looks at the settings; `start` is where what is missing is missed.
pub fn judge(config: &Config, start: &Place, setting: Setting, report: &mut Report) {
    let mut find = |id: Id, line: Option<&Directive>, message: String, remedy: &[&str]| {
        let at = line.map_or_else(|| start.clone(), |line| line.at.clone());
        report.findings.push(Finding::new(id, at, message, remedy));
    };
    for line in config.every("auth_param") {
        let clear = config.ports.iter().any(|port| !port.tls);
        if clear && line.words.first().is_some_and(|w| w == "basic") && line.words.get(1).is_some_and(|w| w == "program") {
            let what = "user names and passwords come over `http_port` in the clear, for everybody on the way to read";
            find(Id::BasicAuth, Some(line), what.into(), &["https_port 3129 tls-cert=/etc/squid/proxy.pem"]);
        }
    }
    for line in config.every("cache_dir").filter(|line| line.words.first().is_some_and(|w| w == "null")) {
        let what = "there is no cache of the type `null` (since Squid 3): Squid says \"Ignoring\" and keeps what it may in memory";
        find(Id::CacheDir, Some(line), what.into(), &["cache deny all"]);
    }
    for (line, what) in log(config) {
        find(Id::AccessLog, line, what, &["access_log stdio:/dev/stdout combined"]);
    }
    if let Some(lifetime) = duration(config.last("shutdown_lifetime")).filter(|lifetime| *lifetime >= setting.stop_timeout) {
        let line = config.last("shutdown_lifetime");
        let given = setting.stop_timeout.as_secs();
        let by_default = if line.is_some() { "" } else { " (the default)" };
        let what = format!(
            "after SIGTERM Squid waits {} s for its clients{by_default}, and is killed after {given} s: tunnels end without a word, and the last log lines are lost",
            lifetime.as_secs()
        );
        find(Id::ShutdownLifetime, line, what, &[&format!("shutdown_lifetime {} seconds", given * 2 / 3)]);
    }
    let descriptors = config.last("max_filedescriptors").or_else(|| config.last("max_filedesc"));
    let most: u64 = descriptors.and_then(|line| line.words.first()?.parse().ok()).unwrap_or(0);
    if most < FEW_DESCRIPTORS {
        let what = "Squid takes the soft limit of file descriptors, often 1024: some five hundred tunnels, and then nobody gets in";
        find(Id::FileDescriptors, descriptors, what.into(), &["max_filedescriptors 65535"]);
    }
    let forwarded = config.last("forwarded_for");
    if config.access("http_access").is_some() && !matches!(config.value("forwarded_for", "on"), "delete" | "off" | "transparent") {
        let what = "plain requests tell every destination the client's own address in X-Forwarded-For; a CONNECT tells nothing";
        find(Id::Leaks, forwarded, what.into(), &["forwarded_for delete"]);
    }
    if !config.is_on("httpd_suppress_version_string", false) {
        let what = "every error page tells strangers which version of Squid this is";
        find(Id::VersionShown, config.last("httpd_suppress_version_string"), what.into(), &["httpd_suppress_version_string on"]);
    }
    let linklocal =
        config.access("http_access").and_then(|rules| rules.iter().find(|rule| rule.terms.iter().any(|t| t.acl == "to_linklocal")));
    if let Some(rule) = linklocal
        .filter(|_| config.every("acl").all(|line| line.words.first().is_none_or(|name| !name.eq_ignore_ascii_case("to_linklocal"))))
    {
        let what = "`to_linklocal` is defined by Squid 6 alone; 5.7 (Debian 12) does not start with this line";
        let lines = ["acl link_local dst 169.254.0.0/16 fe80::/10", "http_access deny link_local"];
        report.findings.push(Finding::new(Id::TooNew, rule.at.clone(), what.into(), &lines));
    }
}

/// What is wrong with the access log: each line that nobody sees, where none is seen.
fn log(config: &Config) -> Vec<(Option<&Directive>, String)> {
    let place = |line: &Directive| line.words.first().cloned().unwrap_or_default();
    let lines: Vec<&Directive> = config.every("access_log").collect();
    if lines.is_empty() {
        let what = format!(
            "without an `access_log` line Squid logs to {DEFAULT_LOG}, which nobody sees in a container, and without the user agent"
        );
        return vec![(None, what)];
    }
    if lines.iter().any(|line| SEEN.iter().any(|begin| place(line).starts_with(begin))) {
        return Vec::new();
    }
    let unseen = lines.into_iter().map(|line| match place(line).as_str() {
        "none" => (Some(line), "who used the proxy, and for what, is not logged".to_string()),
        place => (Some(line), format!("`{place}` is inside the container: nobody sees it, and it is gone with the task")),
    });
    unseen.collect()
}

/// A time as Squid writes it, 30 seconds where there is none; nothing where it cannot be read.
fn duration(line: Option<&Directive>) -> Option<Duration> {
    let Some(line) = line else { return Some(Duration::from_secs(30)) };
    let number: f64 = line.words.first()?.parse().ok()?;
    let unit = match line.words.get(1).map_or("seconds", String::as_str).trim_end_matches('s') {
        "second" => 1.0,
        "minute" => 60.0,
        "hour" => 3600.0,
        "day" => 86_400.0,
        "week" => 604_800.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * unit).ok()
}

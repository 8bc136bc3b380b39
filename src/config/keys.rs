//! The keys that each section knows: the one table that the reader, its suggestions and the documentation's test share.

use super::reader::{Section, did_you_mean, listed};
use crate::alert::sink::SinkKind;
use crate::probe::Kind;

/// The top level's own keys.
pub const TOP: &[&str] = &["vantage", "witness_window", "linger", "decoy", "state_dir", "shutdown_grace"];
/// The tables at the top level.
pub const SECTIONS: &[&str] = &["defaults", "web", "beacon", "proxy", "admin_page", "drill", "alert", "evidence", "check", "exception"];
/// Keys of `[web]`.
pub const WEB: &[&str] = &["listen", "cert_file", "key_file", "client_ca_file", "basic_auth"];
/// Keys of `[beacon]`.
pub const BEACON: &[&str] = &["listen", "key_file"];
/// Keys of `[admin_page]`.
pub const ADMIN_PAGE: &[&str] = &["listen", "allow_from", "door"];
/// Keys of `[proxy]`.
pub const PROXY: &[&str] = &[
    "listen",
    "egress",
    "allow_from",
    "proxy_protocol_from",
    "connect_ports",
    "http_ports",
    "allow_private",
    "deny_to",
    "allow_to",
    "header_timeout",
    "connect_timeout",
    "idle_timeout",
    "half_open_timeout",
    "lifetime",
    "max_connections",
    "max_per_client",
    "max_head",
    "access_log",
    "access_log_format",
    "egress_budget",
    "drain",
    "drain_lead",
    "health_listen",
];
/// Keys of `[drill]`.
pub const DRILL: &[&str] = &["interval"];
/// Keys of `[evidence]`.
pub const EVIDENCE: &[&str] = &["follow", "flow_format", "clock_skew", "keep", "translated", "own_interfaces"];
/// Keys of every `[[alert]]`.
pub const ALERT: &[&str] = &["name", "kind", "timeout", "ca_file"];
/// Keys of some kinds of sink only.
pub const ALERT_OWN: &[(&str, &[SinkKind])] = &[
    ("min_severity", TOLD),
    ("only", TOLD),
    ("unproven_for", TOLD),
    ("stale_for", TOLD),
    ("keep_firing_for", TOLD),
    ("repeat_interval", TOLD),
    ("labels", TOLD),
    ("url", &SinkKind::ALL),
    ("url_file", &[SinkKind::Slack, SinkKind::Webhook, SinkKind::Heartbeat]),
    ("routing_key", &[SinkKind::PagerDuty]),
    ("routing_key_file", &[SinkKind::PagerDuty]),
    ("api_key", &[SinkKind::Datadog]),
    ("api_key_file", &[SinkKind::Datadog]),
    ("body", &[SinkKind::Webhook]),
    ("content_type", &[SinkKind::Webhook]),
    ("headers", ASKED),
    ("user", ASKED),
    ("password_file", ASKED),
    ("bearer_token_file", ASKED),
    ("interval", &[SinkKind::Heartbeat]),
];
/// The sinks that are told of alerts.
const TOLD: &[SinkKind] = &[SinkKind::Alertmanager, SinkKind::PagerDuty, SinkKind::Slack, SinkKind::Webhook, SinkKind::Datadog];
/// The sinks that may ask who we are in the usual ways of HTTP.
const ASKED: &[SinkKind] = &[SinkKind::Alertmanager, SinkKind::Webhook, SinkKind::Heartbeat];
/// Keys of `[[exception]]`.
pub const EXCEPTION: &[&str] = &["check", "target", "reason", "owner", "until"];
/// Keys of a check that may not stand in `[defaults]`.
pub const IDENTITY: &[&str] = &["name", "kind", "target", "targets", "targets_from", "target_labels", "expect"];
/// Keys of every check that may stand in `[defaults]`.
pub const COMMON: &[&str] = &[
    "witness",
    "require",
    "interval",
    "timeout",
    "attempts",
    "families",
    "source",
    "resolver",
    "severity",
    "runbook",
    "description",
    "labels",
    "tags",
];
/// Keys of some kinds of check only.
pub const OWN: &[(&str, &[Kind])] = &[
    ("via", &[Kind::Http, Kind::EgressIp]),
    ("via_method", &[Kind::Http, Kind::EgressIp]),
    ("via_user", &[Kind::Http, Kind::EgressIp]),
    ("via_password_file", &[Kind::Http, Kind::EgressIp]),
    ("method", &[Kind::Http]),
    ("headers", &[Kind::Http, Kind::Ranges]),
    ("body_contains", &[Kind::Http]),
    ("follow_redirects", &[Kind::Http]),
    ("deny_location", &[Kind::Http]),
    ("http_version", &[Kind::Http]),
    ("variants", &[Kind::Http]),
    ("server_name", &[Kind::Tls, Kind::Http, Kind::Peer, Kind::PromQl, Kind::Ranges, Kind::OpenProxy]),
    ("ca_file", &[Kind::Tls, Kind::Http, Kind::Peer, Kind::PromQl, Kind::Ranges, Kind::OpenProxy]),
    ("client_cert_file", &[Kind::Tls, Kind::Http, Kind::Peer, Kind::PromQl, Kind::Ranges]),
    ("client_key_file", &[Kind::Tls, Kind::Http, Kind::Peer, Kind::PromQl, Kind::Ranges]),
    ("alpn", &[Kind::Tls, Kind::Http, Kind::Peer, Kind::PromQl, Kind::Ranges]),
    ("min_version", &[Kind::Tls, Kind::Http, Kind::Peer, Kind::PromQl, Kind::Ranges]),
    ("max_version", &[Kind::Tls, Kind::Http, Kind::Peer, Kind::PromQl, Kind::Ranges]),
    ("client_certs", &[Kind::Tls, Kind::Http]),
    ("certificate_sha256", &[Kind::Tls, Kind::Http]),
    ("check", &[Kind::Peer]),
    ("query", &[Kind::PromQl]),
    ("max_age", &[Kind::Peer, Kind::PromQl]),
    ("user", &[Kind::Peer, Kind::PromQl]),
    ("password_file", &[Kind::Peer, Kind::PromQl]),
    ("beacon", &[Kind::OpenProxy]),
    ("techniques", &[Kind::OpenProxy]),
    ("allowed_destination", &[Kind::OpenProxy]),
    ("record", &[Kind::Dns]),
    ("server", &[Kind::Dns]),
    ("answers", &[Kind::Dns]),
    ("payload", &[Kind::Udp]),
    ("ports", &[Kind::Ports]),
    ("except", &[Kind::Ports]),
    ("open", &[Kind::Ports]),
    ("rate", &[Kind::Ports]),
    ("spoof", &[Kind::Http, Kind::OpenProxy]),
    ("expected", &[Kind::Ranges]),
    ("expected_pointer", &[Kind::Ranges]),
    ("pointer", &[Kind::Ranges]),
    ("where", &[Kind::Ranges]),
    ("only", &[Kind::Ranges]),
    ("besides", &[Kind::Ranges]),
    ("template", &[Kind::Tcp, Kind::Tls, Kind::Http, Kind::Udp, Kind::Icmp]),
    ("allow_targets", &[Kind::Tcp, Kind::Tls, Kind::Http, Kind::Udp, Kind::Icmp]),
];

/// Notes every unknown key at the top level.
pub fn vet_top(top: &Section<'_, '_>) {
    let known: Vec<&str> = [TOP, SECTIONS].concat();
    vet(top, &known, |_| None);
}

/// Notes every unknown key of `[web]`.
pub fn vet_web(web: &Section<'_, '_>) {
    vet(web, WEB, |_| None);
}

/// Notes every unknown key of `[beacon]`.
pub fn vet_beacon(beacon: &Section<'_, '_>) {
    vet(beacon, BEACON, |_| None);
}

/// Notes every unknown key of `[drill]`.
pub fn vet_drill(drill: &Section<'_, '_>) {
    vet(drill, DRILL, |_| None);
}

/// Notes every unknown key of `[evidence]`.
pub fn vet_evidence(evidence: &Section<'_, '_>) {
    vet(evidence, EVIDENCE, |_| None);
}

/// Notes every unknown key of an `[[exception]]`.
pub fn vet_exception(exception: &Section<'_, '_>) {
    vet(exception, EXCEPTION, |_| None);
}

/// Notes every unknown key of `[admin_page]`.
pub fn vet_admin_page(page: &Section<'_, '_>) {
    vet(page, ADMIN_PAGE, |_| None);
}

/// Notes every unknown key of `[proxy]`.
pub fn vet_proxy(proxy: &Section<'_, '_>) {
    vet(proxy, PROXY, |_| None);
}

/// Notes every unknown key of an `[[alert]]`; where its kind is unknown, the keys of every kind are let pass.
pub fn vet_alert(alert: &Section<'_, '_>, kind: Option<SinkKind>) {
    let own = ALERT_OWN.iter().filter(|(_, kinds)| kind.is_none_or(|k| kinds.contains(&k))).map(|(key, _)| *key);
    let known: Vec<&str> = ALERT.iter().copied().chain(own).collect();
    vet(alert, &known, |key| {
        let kind = kind?;
        let (_, kinds) = ALERT_OWN.iter().find(|(k, _)| *k == key)?;
        if kinds == &TOLD {
            return Some(format!(
                "\"{key}\" is for sinks that are told of alerts, and a {} is told that all is well; leave it out",
                kind.token()
            ));
        }
        Some(format!("\"{key}\" is for {}, not for {}; leave it out", listed(kinds.iter().map(|k| k.token())), kind.token()))
    });
}

/// Notes every unknown key of `[defaults]`.
pub fn vet_defaults(defaults: &Section<'_, '_>) {
    vet(defaults, COMMON, |key| {
        let own = IDENTITY.contains(&key) || OWN.iter().any(|(k, _)| *k == key);
        own.then(|| format!("\"{key}\" has no default; write it in each [[check]]"))
    });
}

/// Notes every unknown key of a check; where its kind is unknown, the keys of every kind are let pass.
pub fn vet_check(check: &Section<'_, '_>, kind: Option<Kind>) {
    let own = OWN.iter().filter(|(_, kinds)| kind.is_none_or(|k| kinds.contains(&k))).map(|(key, _)| *key);
    let known: Vec<&str> = IDENTITY.iter().chain(COMMON).copied().chain(own).collect();
    vet(check, &known, |key| {
        let kind = kind?;
        let (_, kinds) = OWN.iter().find(|(k, _)| *k == key)?;
        let kinds: Vec<&str> = kinds.iter().map(|k| k.token()).collect();
        let (last, others) = kinds.split_last()?;
        let kinds = if others.is_empty() { (*last).to_string() } else { format!("{} and {last}", others.join(", ")) };
        Some(format!("\"{key}\" is for {kinds}, not for {kind}; leave it out"))
    });
}

/// Notes what is unknown: what `special` has to say of it, else where it belongs, else a near miss, else the list.
fn vet(section: &Section<'_, '_>, known: &[&str], special: impl Fn(&str) -> Option<String>) {
    if section.context().adrift {
        return;
    }
    for (key, place) in section.keys().filter(|(key, _)| !known.contains(key)) {
        let message = if let Some(message) = special(key) {
            message
        } else if let Some(home) = home(key) {
            format!("unknown key \"{key}\" here; it belongs {home}")
        } else if super::reader::near(key, known.iter().copied()).is_some() {
            format!("unknown key \"{key}\"; {}", did_you_mean(key, known.iter().copied()))
        } else {
            format!("unknown key \"{key}\"; known here: {}", listed(known.iter().copied()))
        };
        section.context().wrong(&place, message);
    }
}

/// Where a key that is unknown here would be at home, if that is one place.
fn home(key: &str) -> Option<&'static str> {
    if TOP.contains(&key) {
        return Some("at the top of the file, above the first [section]");
    }
    if IDENTITY.contains(&key) {
        return Some("in a [[check]]");
    }
    if COMMON.contains(&key) {
        return Some("in a [[check]] or in [defaults]");
    }
    if PROXY.contains(&key) && key != "listen" && key != "allow_from" {
        return Some("in [proxy]");
    }
    if key == "key_file" {
        return Some("in [beacon]");
    }
    (EXCEPTION.contains(&key) && key != "check").then_some("in an [[exception]]")
}

/// Every key and section that this version knows.
pub fn every_key() -> impl Iterator<Item = &'static str> {
    let own = OWN.iter().map(|(key, _)| *key).chain(ALERT_OWN.iter().map(|(key, _)| *key));
    [TOP, SECTIONS, WEB, BEACON, ADMIN_PAGE, PROXY, EXCEPTION, IDENTITY, COMMON].into_iter().flatten().copied().chain(own)
}

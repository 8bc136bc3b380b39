//! Words: what an alert says. Each begins as `dashboards/prometheus/alerts.yaml` does, and then tells what only the monitor itself knows.

use std::time::Duration;

use super::scene::{Condition, Scene, What};
use super::{Alert, Key, Labels, Name};
use crate::clock::Wall;
use crate::record::Record;
use crate::severity::Severity;
use crate::verdict::{Cause, Verdict};

/// What is said of a condition.
pub(super) fn annotations(condition: &Condition<'_>, scene: &Scene<'_>, lasts: Duration) -> Labels {
    let mut said = Labels::new();
    let mut say = |name: &str, text: Option<String>| {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            said.insert(name.to_string(), text);
        }
    };
    say("summary", Some(summary(&condition.what, scene.vantage, lasts)));
    say("description", Some(description(&condition.what, scene.vantage, condition.exception.as_deref())));
    say("runbook_url", condition.what.name().runbook());
    say("exception", condition.exception.clone());
    let record = match condition.what {
        What::Violated(record)
        | What::Unproven(record)
        | What::Stale(record)
        | What::Contradicted(record)
        | What::CertificateExpiresSoon(record, _) => Some(record),
        What::WitnessDown(_, record) => record,
        _ => None,
    };
    if let Some(record) = record {
        let time = |at: Option<Wall>| at.map(|at| at.to_string());
        say("cause", Some(record.cause.to_string()));
        say("reason", Some(record.reason.clone()));
        say("reproduce", record.reproduce.clone());
        say("first_open", time(record.exposure.first_open));
        say("last_open", time(record.exposure.last_open));
        say("last_closed", time(record.exposure.last_closed));
        say("check_description", record.about.description.clone());
        say("check_runbook", record.about.runbook.clone());
        let labels: Vec<String> = record.about.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        say("check_labels", Some(labels.join(" ")));
        say("check_tags", Some(record.about.tags.join(" ")));
    }
    said
}

fn summary(what: &What<'_>, vantage: &str, lasts: Duration) -> String {
    match what {
        What::Violated(r) => format!("{}: {} is not as it must be, seen from {vantage}.", r.about.name, r.about.target),
        What::Unproven(r) => format!(
            "{}: for {} nobody has known whether {} is as it must be, seen from {vantage}.",
            r.about.name,
            long(lasts),
            r.about.target
        ),
        What::Stale(r) => {
            format!("{}: {} is no longer looked at from {vantage}, though the monitor answers.", r.about.name, r.about.target)
        }
        What::CheckGone(check) => format!("{check} is no longer among the checks at {vantage}."),
        What::TargetGone(check, target) => format!("{check}: {target} was violated, and is no longer among its targets at {vantage}."),
        What::ExceptionExpired(check, exception) => {
            format!("The exception of {check} at {vantage} is over since {}.", exception.until.end())
        }
        What::Contradicted(r) => {
            format!("{}: the log of a defence says that {} let in what is blocked, seen from {vantage}.", r.about.name, r.about.target)
        }
        What::WitnessDown(witness, _) => format!("The witness {witness} does not get through from {vantage}."),
        What::CertificateExpiresSoon(r, left) => format!("A certificate of {} ends in {}.", r.about.target, days(*left)),
        What::DrillFailed(kind) => format!("The drill of {kind} failed at {vantage}: the detector may be blind."),
        What::DrillOverdue(kind, passed) => format!("No drill of {kind} has succeeded at {vantage} for {}.", long(*passed)),
        What::ReloadFailed => format!("The configuration at {vantage} is broken; the one from before is still in force."),
        What::AlertsFailing(sink) => format!("The alerts of {vantage} do not reach {sink}."),
        What::DescriptorsLow(share) => format!("{vantage} has {} of its file descriptors in use.", percent(*share)),
        What::EgressBudgetSpent(ratio) => format!("The proxy at {vantage} has sent {} of its egress budget.", percent(*ratio)),
        What::ProxyDraining => format!("The proxy at {vantage} has been stopping for {} and is still there.", long(lasts)),
        What::ProxyFull => format!("The proxy at {vantage} turns clients away: it is full."),
    }
}

fn description(what: &What<'_>, vantage: &str, exception: Option<&str>) -> String {
    let whom = |r: &Record| format!("The {} check {} of {}, seen from {vantage},", r.about.kind, r.about.name, r.about.target);
    let said = match what {
        What::Violated(r) => violated(&whom(r), r),
        What::Unproven(r) => format!(
            "{} is unproven (cause: {}): it is neither shown to be closed nor shown to be open. A breach would not be seen. Mend this: {}",
            whom(r),
            r.cause,
            sentence(&r.reason)
        ),
        What::Stale(r) => format!(
            "The last run of {} on {}, from {vantage}, is older than its record is good for. The monitor is stuck, suspended or overloaded. What it \
             last saw proves nothing now: {}",
            r.about.name,
            r.about.target,
            sentence(&r.reason)
        ),
        What::CheckGone(check) => format!(
            "The monitor at {vantage} runs, and has no check {check} any more: a reload or a restart took it away. Its other alerts have ended \
             because nobody looks any more, not because anything was closed. Meant: nothing is to be done. Not meant: put it back and reload."
        ),
        What::TargetGone(check, target) => format!(
            "The monitor at {vantage} runs, and has no target {target} of {check} any more: a reload, or a file of targets, took it away. Its alert has ended because \
             nobody looks any more, not because anything was closed: see that it is. Not meant: put it back."
        ),
        What::ExceptionExpired(_, exception) => format!(
            "{} answers for it: {} Nothing is excepted any more, so what does not hold is told as ever, and `mustnot check` refuses the file. Close what it was for and \
             take it out, or agree with its owner on another date.",
            exception.owner,
            sentence(&exception.reason)
        ),
        What::Contradicted(r) => format!(
            "{} holds, and yet the log of a defence (network ACL and security group, WAF or proxy) says of the very probe that it was let in: something else keeps \
             it from answering, a dead target for instance.{} GET /api/v1/checks/{} of the monitor has what each log said (defence).",
            whom(r),
            r.contradicted.as_deref().map_or(String::new(), |said| format!(" {}", sentence(said))),
            r.about.name
        ),
        What::WitnessDown(witness, record) => format!(
            "The check {witness}, which shows that blocks seen from {vantage} are real ones, has not got through. Every check that names it as \
             its witness is unproven or will be: a breach is still seen, a block is not believed.{}",
            record.map_or(String::new(), |r| format!(" {}", sentence(&r.reason)))
        ),
        What::CertificateExpiresSoon(r, left) => format!(
            "The first to end of the certificates that {} saw at {} from {vantage} ends in {} (a minus: it has ended). After that a positive check \
             is violated there, and a witness proves nothing.",
            r.about.name,
            r.about.target,
            days(*left)
        ),
        What::DrillFailed(kind) => format!(
            "The last drill of the kind {kind} at {vantage} did not see its twins as they are, or could not be done. Until one does, what {kind} \
             checks there say of their targets, holds as well, is not to be relied on. The log says which twin, and why; `mustnot drill` does it again."
        ),
        What::DrillOverdue(kind, _) => format!(
            "For more than two intervals nobody has shown that a {kind} check at {vantage} would see a breach. Drills hang or fail; see the log, and \
             `mustnot drill`."
        ),
        What::ReloadFailed => format!(
            "The monitor at {vantage} was told to read its file again, or a file of targets changed, and found errors. It works by what it had before, \
             so newer checks and rules are not in force, and it would not start anew. The log names file, line and what to write, and so does \
             `mustnot config check`."
        ),
        What::AlertsFailing(sink) => format!(
            "Nothing that the monitor at {vantage} told {sink} has been taken since it began to fail. What waits is tried again for as long as it takes, and told \
             then; until then nobody hears by that way of a breach. The log says why; `mustnot drill --alert` tries every sink."
        ),
        What::DescriptorsLow(_) => {
            "Without descriptors probes end as local-error, which is unproven, and the proxy refuses clients with the reason \
                                    limit. Look for who holds the connections, or raise the limit."
                .to_string()
        }
        What::EgressBudgetSpent(_) => format!(
            "Clients of the proxy at {vantage} have sent more than egress_budget within its time. Nothing is refused: it is an alarm for data that \
             leaves. mustnot_proxy_bytes_total{{direction=\"sent\"}} says which entry of allow_from sends."
        ),
        What::ProxyDraining => format!(
            "The proxy at {vantage} got SIGTERM or SIGINT and waits for tunnels to end. It takes no new clients. If no other one does, its clients are \
             cut off."
        ),
        What::ProxyFull => format!(
            "The proxy at {vantage} has refused clients with the reason limit (503): max_connections or max_per_client is reached, or it has no file \
             descriptor left."
        ),
    };
    match exception {
        Some(exception) => format!("{said} It is excepted {}", sentence(exception)),
        None => said,
    }
}

/// Who got in, since when, how to see it by hand, and what to do by its cause.
fn violated(whom: &str, record: &Record) -> String {
    let mut all = match record.verdict {
        Verdict::Violated(_) => format!("{whom} is violated (cause: {}): {}", record.cause, sentence(&record.reason)),
        // A positive check does not stay violated by itself; its alert does, until a run holds.
        _ => format!(
            "{whom} was violated, and no run has held since (now it is {}, cause: {}): {}",
            record.verdict.token(),
            record.cause,
            sentence(&record.reason)
        ),
    };
    let exposure = record.exposure;
    if let (Some(first), Some(last)) = (exposure.first_open, exposure.last_open) {
        let before =
            exposure.last_closed.map_or_else(|| "it was never seen closed".to_string(), |closed| format!("last seen closed {closed}"));
        all += &format!(" First seen open {first}, last seen open {last}, {before}.");
    }
    if let Some(line) = &record.reproduce {
        all += &format!(" To see it by hand, at that vantage: {line}");
        all += if line.ends_with('.') { "" } else { " ." };
    }
    let todo = match record.cause {
        Cause::Open => {
            "See what changed when it was first seen open (firewall, security group, load balancer, DNS, deployment), close it, and keep the log of who came in."
        }
        Cause::Latched => "It was let in earlier, and no run could show since that it is closed again: mend what keeps it unproven.",
        Cause::NotOpen => "The allowed way does not work: treat the target as down for its users. Nobody got in.",
        Cause::OtherDenial => {
            "It is closed, but not in the way that the check demands: either the way it is denied changed, or the check is too narrow."
        }
        _ => "GET /api/v1/checks of the monitor has all that was seen.",
    };
    format!("{all} {todo}")
}

/// What is said when an alert is over: by a run that holds, or whatever else it is about.
pub(super) fn better(key: &Key, record: Option<&Record>) -> String {
    match record {
        Some(record) if key.is(Name::Violated) => format!("the run of {} holds: {}", record.started_at, sentence(&record.reason)),
        Some(_) if key.is(Name::Contradicted) => {
            "no log of a defence has said so for half an hour, or another one has taken it back".to_string()
        }
        Some(record) => format!("the run of {} is {}: {}", record.started_at, record.verdict.token(), sentence(&record.reason)),
        None => "it is no longer so".to_string(),
    }
}

/// The alert that `mustnot drill --alert` sends: nothing is wrong.
pub fn test_alert(vantage: &str, at: Wall) -> Alert {
    let text = |text: &str| text.to_string();
    let annotations = [
        ("summary", format!("Test: alerts of the monitor at {vantage} get through. Nothing is wrong.")),
        (
            "description",
            text(
                "Somebody has called `mustnot drill --alert`. It ends by itself, at once. Whoever reads this would read of a breach, too.",
            ),
        ),
    ];
    Alert {
        key: Key::new(Name::Test, Severity::Info, &[("vantage", vantage), ("test", "true")]),
        annotations: annotations.map(|(name, value)| (name.to_string(), value)).into(),
        starts_at: at,
        ends_at: None,
    }
}

/// A violation with everything that can be said of one, and `hostile` wherever a target may have a say.
pub(super) fn sample(severity: Severity, at: Wall, hostile: &str) -> Alert {
    let labels = [
        ("check", "sample"),
        ("kind", "tcp"),
        ("target", "sample.example.com:443"),
        ("vantage", "sample"),
        ("verdict", "violated"),
        ("excepted", "false"),
    ];
    let said =
        ["summary", "description", "runbook_url", "cause", "reason", "reproduce", "first_open", "last_open", "last_closed", "resolved"];
    let said = said.into_iter().chain(["exception", "check_description", "check_runbook", "check_labels", "check_tags"]);
    Alert {
        key: Key::new(Name::Violated, severity, &labels),
        annotations: said.map(|name| (name.to_string(), hostile.to_string())).collect(),
        starts_at: at,
        ends_at: None,
    }
}

/// The text as a sentence, with its end.
fn sentence(text: &str) -> String {
    if text.ends_with(['.', '!', '?']) { text.to_string() } else { format!("{text}.") }
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0).replace(".0%", "%")
}

/// A duration as people say it.
fn long(lasts: Duration) -> String {
    let seconds = lasts.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Seconds until then as Prometheus shows them, in days, hours and minutes.
fn days(left: i64) -> String {
    let (sign, left) = (if left < 0 { "-" } else { "" }, left.unsigned_abs());
    format!("{sign}{}d {}h {}m", left / 86_400, left / 3600 % 24, left / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_shares_as_people_say_them() {
        let seconds = |s| long(Duration::from_secs(s));
        assert_eq!([seconds(0), seconds(1), seconds(119), seconds(120)], ["0 seconds", "1 second", "119 seconds", "2 minutes"]);
        assert_eq!([seconds(900), seconds(7199), seconds(7200)], ["15 minutes", "119 minutes", "2 hours"]);
        assert_eq!([seconds(172_799), seconds(172_800)], ["47 hours", "2 days"]);
        assert_eq!([days(86_399), days(86_400), days(-3700)], ["0d 23h 59m", "1d 0h 0m", "-0d 1h 1m"]);
        assert_eq!([percent(0.95), percent(1.0), percent(1.0014)], ["95%", "100%", "100.1%"]);
    }
}

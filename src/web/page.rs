//! The status page: what is wrong first, since when and why. One file of HTML, without script and without assets.

use std::fmt::Write as _;

use crate::clock::Wall;
use crate::history::Reading;
use crate::report::{meaning, proofs, seen_line, visible};
use crate::verdict::{Cause, Verdict};

/// Observations of one check that the page shows; the API has them all.
const MAX_SEEN: usize = 8;

const STYLE: &str = include_str!("page.css");

/// The board as a page, as of `now`.
pub fn page(vantage: &str, readings: &[Reading], now: Wall) -> String {
    let mut readings: Vec<&Reading> = readings.iter().collect();
    readings.sort_by_key(|r| (std::cmp::Reverse(r.record.verdict.rank()), r.about.severity));
    let count = |token| readings.iter().filter(|r| r.record.verdict.token() == token).count();
    let (violated, unproven, holds) = (count("violated"), count("unproven"), count("holds"));
    let title = match (violated, unproven, holds) {
        (0, 0, 0) => "no checks".to_owned(),
        (0, 0, _) => format!("all {holds} hold"),
        (0, _, _) => format!("{unproven} unproven"),
        _ => format!("{violated} violated"),
    };
    let worst = readings.first().map_or("unproven", |r| r.record.verdict.token());

    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta http-equiv=\"refresh\" content=\"10\">\n<title>{title} – mustnot {vantage}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<header class=\"{worst}\">\n<h1>{title}</h1>\n<p>seen from <strong>{vantage}</strong> at {now}</p>\n\
         <ul class=\"counts\"><li class=\"violated\"><b>{violated}</b> violated</li><li class=\"unproven\"><b>{unproven}</b> unproven</li>\
         <li class=\"holds\"><b>{holds}</b> held</li></ul>\n</header>\n<main>\n",
        vantage = escaped(vantage),
    );
    for reading in &readings {
        match reading.record.verdict {
            Verdict::Holds(_) => {}
            Verdict::Violated(_) | Verdict::Unproven(_) => card(&mut out, reading, now),
        }
    }
    if holds > 0 {
        out.push_str("<table>\n<caption>What holds</caption>\n<thead><tr><th>check</th><th>claim</th><th>proofs</th><th>last run</th></tr></thead>\n<tbody>\n");
        readings.iter().filter(|r| matches!(r.record.verdict, Verdict::Holds(_))).for_each(|r| row(&mut out, r, now));
        out.push_str("</tbody>\n</table>\n");
    }
    let _ = write!(
        out,
        "</main>\n<footer>mustnot {} · <a href=\"/metrics\">metrics</a> · <a href=\"/api/v1/checks\">report as JSON</a> · renewed every 10 s</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    out
}

/// A check that does not hold, with all that somebody needs who was asleep a minute ago.
fn card(out: &mut String, reading: &Reading, now: Wall) {
    let (about, record) = (&reading.about, &reading.record);
    let token = record.verdict.token();
    let excepted = if about.excepted(now).is_some() { " <span class=\"badge\">excepted</span>" } else { "" };
    let _ = write!(
        out,
        "<article class=\"{token}\">\n<h2>{} <span class=\"badge\">{token}</span>{excepted} <small>{}</small></h2>\n<p class=\"reason\">{}</p>\n<dl>\n",
        escaped(&about.name),
        about.severity,
        escaped(&record.reason)
    );
    let mut fact = |word: &str, text: &str| {
        let _ = writeln!(out, "<dt>{word}</dt><dd>{}</dd>", escaped(text));
    };
    fact("since", &since(reading, now));
    if let Some(exception) = &about.exception {
        fact("excepted", &exception.sentence(now));
    }
    fact("claim", &format!("{} {} must be {}", about.kind, about.target, about.expect));
    fact("cause", &format!("{}: {}", record.cause, meaning(record.cause)));
    if let Some(description) = &about.description {
        fact("about", description);
    }
    for seen in record.observations.iter().take(MAX_SEEN) {
        fact("seen", &seen_line(seen));
    }
    if let Some(more) = record.observations.len().checked_sub(MAX_SEEN).filter(|more| *more > 0) {
        fact("seen", &format!("and {more} more, in /api/v1/checks/{}", about.name));
    }
    for witness in record.witnesses.iter().filter(|w| !w.proven) {
        fact("witness", &format!("{} is not proven: {}", witness.name, witness.why.as_deref().unwrap_or("it says no more")));
    }
    fact("proofs", &proofs(record.proofs));
    if reading.ran {
        fact("last run", &ago(record.started_at, now));
    }
    if let Some(alarm) = &record.contradicted {
        let _ = writeln!(out, "<dt>contradicted</dt><dd>{}</dd>", escaped(alarm));
    }
    if let Some(command) = &record.reproduce {
        let _ = writeln!(out, "<dt>reproduce</dt><dd><code>{}</code></dd>", escaped(command));
    }
    if let Some(runbook) = &about.runbook {
        let _ = writeln!(out, "<dt>runbook</dt><dd>{}</dd>", link(runbook));
    }
    let _ = writeln!(out, "</dl>\n<p><a href=\"/api/v1/checks/{}\">evidence and recent runs</a></p>\n</article>", in_path(&about.name));
}

/// A check that holds, as one row.
fn row(out: &mut String, reading: &Reading, now: Wall) {
    let (about, record) = (&reading.about, &reading.record);
    let _ = writeln!(
        out,
        "<tr><td><a href=\"/api/v1/checks/{}\">{}</a></td><td>{}{}</td><td>{}</td><td>{}</td></tr>",
        in_path(&about.name),
        escaped(&about.name),
        escaped(&format!("{} {} must be {}", about.kind, about.target, about.expect)),
        escaped(
            &about
                .exception
                .iter()
                .map(|e| format!("; excepted {}, but it holds: take the exception out", e.sentence(now)))
                .collect::<String>()
        ),
        escaped(&if about.inverted { proofs(record.proofs) } else { "got through".to_owned() }),
        escaped(&ago(record.started_at, now))
    );
}

/// Since when a check does not hold, as far as we know.
fn since(reading: &Reading, now: Wall) -> String {
    let held = || match reading.last_holds {
        Some(held) => format!("last held {}", ago(held, now)),
        None => "has not held since this monitor started".to_owned(),
    };
    let window = &reading.record.exposure;
    match (reading.record.cause, window.first_open, window.last_open) {
        (Cause::Pending, ..) => "not run yet".to_owned(),
        (_, Some(first), Some(last)) if matches!(reading.record.verdict, Verdict::Violated(_)) => {
            format!("first seen open {}, last seen open {}; {}", ago(first, now), ago(last, now), held())
        }
        _ => held(),
    }
}

/// `2026-01-02T03:04:05.678Z (5 min ago)`.
fn ago(then: Wall, now: Wall) -> String {
    let seconds = now.unix_millis().saturating_sub(then.unix_millis()).max(0) / 1000;
    let distance = match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    };
    format!("{distance} ago ({then})")
}

/// A link where it is one to the web; else the words alone, for a browser would run `javascript:`.
fn link(text: &str) -> String {
    let shown = escaped(text);
    match text.starts_with("https://") || text.starts_with("http://") {
        true => format!("<a href=\"{shown}\" rel=\"noreferrer\">{shown}</a>"),
        false => shown,
    }
}

/// A name as one path segment (RFC 3986, 2.3: what is not unreserved is percent-encoded).
fn in_path(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// Text for an element or an attribute in double quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_place() {
        assert_eq!(escaped("<script>\"a\" & 'b'\u{1b}"), "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;\\u{1b}");
        assert_eq!(in_path("a/b c?é"), "a%2Fb%20c%3F%C3%A9");
        assert_eq!(link("javascript:alert(1)"), "javascript:alert(1)");
        assert!(link("https://wiki/x").starts_with("<a href=\"https://wiki/x\""));
    }

    #[test]
    fn distances_turn_where_they_should() {
        let at = |seconds: i64| Wall::from_unix_millis(seconds * 1000).unwrap();
        for (seconds, text) in
            [(0, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7199, "119 min ago"), (7200, "2 h ago"), (172_800, "2 days ago")]
        {
            assert!(ago(at(0), at(seconds)).starts_with(text), "{seconds}");
        }
        assert!(ago(at(10), at(0)).starts_with("0 s ago"), "a clock set back");
    }
}

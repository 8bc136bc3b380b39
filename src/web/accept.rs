//! What a client takes: `Accept` and `Accept-Encoding` with their weights (RFC 9110 sections 12.4.2, 12.5.1, 12.5.3).

use axum::http::{HeaderMap, HeaderName, header};

/// Whether OpenMetrics 1.0 is preferred to the text format 0.0.4. Who names neither, or refuses both, gets the text that everybody reads.
pub fn prefers_openmetrics(headers: &HeaderMap) -> bool {
    let ranges = listed(headers, header::ACCEPT);
    let openmetrics = weight(&ranges, "application", "openmetrics-text", "1.0.0");
    openmetrics > 0.0 && openmetrics > weight(&ranges, "text", "plain", "0.0.4")
}

/// Whether gzip is taken. Nobody who says nothing of encodings is sent one.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings = listed(headers, header::ACCEPT_ENCODING);
    let named = |name: &str| codings.iter().find(|coding| coding.name == name).map(|coding| coding.weight);
    named("gzip").or_else(|| named("x-gzip")).or_else(|| named("*")).is_some_and(|weight| weight > 0.0)
}

/// One member of a list.
struct Member {
    /// In lower case, without parameters.
    name: String,
    version: Option<String>,
    weight: f32,
}

fn listed(headers: &HeaderMap, name: HeaderName) -> Vec<Member> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let members = values.flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty());
    members.map(member).collect()
}

fn member(text: &str) -> Member {
    let mut parts = text.split(';').map(str::trim);
    let mut member = Member { name: parts.next().unwrap_or_default().to_ascii_lowercase(), version: None, weight: 1.0 };
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match key.trim().to_ascii_lowercase().as_str() {
            // what is no weight is none: it asks for nothing
            "q" => member.weight = value.parse().ok().filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0),
            "version" => member.version = Some(value.to_string()),
            _ => {}
        }
    }
    member
}

/// How much is wanted of a media type in this version: by the most specific range that has it, and 0 where none has.
fn weight(ranges: &[Member], kind: &str, subtype: &str, version: &str) -> f32 {
    let name = format!("{kind}/{subtype}");
    let specific = |range: &&Member| match range.name.as_str() {
        own if own == name => match &range.version {
            Some(asked) if asked == version => 4,
            Some(_) => 0,
            None => 3,
        },
        own if own.strip_suffix("/*") == Some(kind) => 2,
        "*/*" => 1,
        _ => 0,
    };
    let best = ranges.iter().filter(|range| specific(range) > 0).max_by_key(specific);
    best.map_or(0.0, |range| range.weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn those_who_ask_for_openmetrics_get_it_and_nobody_else() {
        for (accept, openmetrics) in [
            // Prometheus 2.42
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            // Prometheus 3
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                true,
            ),
            // Prometheus 3 that is told to scrape the text format
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", false),
            // Datadog, by default and with use_latest_spec
            ("text/plain", false),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            // curl, and a browser
            ("*/*", false),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.9, text/plain; q=0.8", true),
            ("application/openmetrics-text;q=0, text/plain", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.5", false),
            ("application/openmetrics-text;version=0.0.1", false),
            ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", false),
            ("application/openmetrics-text;q=nonsense,text/plain;q=0.1", false),
            ("application/*;q=0.9,text/plain;q=0.1", true),
            ("text/plain;q=0, */*;q=0.5", true),
            ("text/plain;q=0", false),
            ("", false),
            (",;,=;q", false),
        ] {
            assert_eq!(prefers_openmetrics(&with(header::ACCEPT, &[accept])), openmetrics, "{accept}");
        }
        assert!(!prefers_openmetrics(&HeaderMap::new()));
        assert!(prefers_openmetrics(&with(header::ACCEPT, &["text/plain;q=0.1", "application/openmetrics-text"])));
    }

    #[test]
    fn gzip_goes_to_those_who_take_it() {
        for (accept, gzip) in [
            ("gzip", true),
            ("gzip, deflate", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0, *", false),
            ("*;q=0", false),
            ("identity", false),
            ("deflate, br", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(&with(header::ACCEPT_ENCODING, &[accept])), gzip, "{accept}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}

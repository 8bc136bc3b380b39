//! Origins: whether a browser asks, for a page of somebody else (RFC 6454; Fetch, section 3.2 and `Sec-Fetch-Site`).

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

/// Why the request is refused, where a browser sends it for a page that is not our own. Programs that are no browsers say neither.
///
/// `named` says whether the name in `Host` can be trusted: somebody who has shown a password or a certificate has chosen it himself. Else it
/// must be an address or `localhost`, since a page of a stranger's can have its own name lead here (DNS rebinding).
pub fn foreign(headers: &HeaderMap, named: bool) -> Option<&'static str> {
    let text = |name| headers.get(name).map(|value: &axum::http::HeaderValue| value.to_str().unwrap_or("?"));
    if text(header::HeaderName::from_static("sec-fetch-site")).is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Some("a browser asks this for a page of another site; ask it by a program such as curl, or from this listener's own page");
    }
    let origin = text(header::ORIGIN)?;
    let host = text(header::HOST).unwrap_or_default();
    let ours = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).is_some_and(|o| !host.is_empty() && o == host);
    if !ours {
        return Some("its Origin is not this listener; leave the header out, or ask from this listener's own page");
    }
    (!named && !is_plain(host)).then_some("its Host is a name that anybody could have chosen; ask by address, or by localhost")
}

/// Why a GET is refused that makes the monitor do something, where nobody is asked who he is: a page of a stranger's can have its own name lead
/// here, and asks then for a page of its own site, with neither `Origin` nor `Sec-Fetch-Site` (which browsers send to trustworthy origins alone).
pub fn rebound(headers: &HeaderMap, named: bool) -> Option<&'static str> {
    let host = headers.get(header::HOST)?.to_str().unwrap_or("?");
    (!named && !is_plain(host)).then_some("its Host is a name that anybody could have chosen; ask by address, or by localhost")
}

/// Whether the host is one that no name server decides on.
fn is_plain(host: &str) -> bool {
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_our_own_page_may_and_pages_of_others_may_not() {
        let headers = |all: &[(&'static str, &'static str)]| -> HeaderMap {
            all.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
        };
        let own = [("host", "127.0.0.1:9890"), ("origin", "http://127.0.0.1:9890")];
        let six = [("host", "[::1]:9890"), ("origin", "https://[::1]:9890"), ("sec-fetch-site", "same-origin")];
        let localhost = [("host", "localhost:9890"), ("origin", "http://localhost:9890"), ("sec-fetch-site", "none")];
        for good in [&[][..], &[("host", "monitor.example.com")], &own, &six, &localhost] {
            assert_eq!(foreign(&headers(good), false), None, "{good:?}");
        }
        let elsewhere = [("host", "evil.example.com:9890"), ("origin", "http://evil.example.com:9890")];
        assert_eq!(foreign(&headers(&elsewhere), true), None, "who has shown a password knows where he is");
        for (host, named, refused) in [
            ("127.0.0.1:9890", false, false),
            ("[::1]:9890", false, false),
            ("LOCALHOST", false, false),
            ("evil.example.com:9890", false, true),
            ("127.0.0.1.evil.example.com", false, true),
            ("", false, true),
            ("monitor.example.com", true, false),
        ] {
            assert_eq!(rebound(&headers(&[("host", host)]), named).is_some(), refused, "{host}");
        }
        assert_eq!(rebound(&HeaderMap::new(), false), None, "no browser");
        for bad in [
            &[("host", "127.0.0.1:9890"), ("origin", "http://127.0.0.1:9891")][..],
            &[("host", "127.0.0.1:9890"), ("origin", "https://evil.example.com")],
            &[("host", "127.0.0.1:9890"), ("origin", "null")],
            &[("host", "127.0.0.1:9890"), ("origin", "127.0.0.1:9890")],
            &[("host", "127.0.0.1:9890"), ("origin", "")],
            &[("host", ""), ("origin", "http://")],
            &[("origin", "http://127.0.0.1:9890")],
            &[("host", "127.0.0.1:9890"), ("sec-fetch-site", "cross-site")],
            &[("host", "127.0.0.1:9890"), ("origin", "http://127.0.0.1:9890"), ("sec-fetch-site", "same-site")],
            &elsewhere,
        ] {
            assert!(foreign(&headers(bad), false).is_some(), "{bad:?}");
        }
    }
}

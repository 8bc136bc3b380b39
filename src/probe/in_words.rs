//! In words: what one attempt does on the wire, for somebody who decides whether it may be done.

use super::http::MAX_REDIRECTS;
use super::{Aim, Expected, OpenProxy, Probe, Published, Ranges, Variant, Via};
use crate::net::ask::QUESTIONS;
use crate::target::{Scheme, Url};

impl Probe {
    /// What one attempt at one address sends, and what it waits for.
    pub fn in_words(&self) -> String {
        match self {
            Probe::Tcp(_) => "a TCP handshake, and nothing after it: the connection is closed at once".into(),
            Probe::Tls(_) => "a TCP and a TLS handshake, then silence until an alert could have come back; no byte of data is sent".into(),
            Probe::Http(http) => {
                let names: Vec<&str> = http.headers.iter().map(|(name, _)| name.as_str()).collect();
                let headers = if names.is_empty() { String::new() } else { format!(", with the headers {}", names.join(", ")) };
                let redirects = match http.follow_redirects {
                    true => format!(", and after it up to {MAX_REDIRECTS} redirects, each by a connection of its own"),
                    false => String::new(),
                };
                let variants = match http.variants.len() {
                    0 => String::new(),
                    more => format!("; and {more} variants of it, the known ways round a denial, each by a connection of its own"),
                };
                format!(
                    "{} over {}{}{headers}{redirects}{variants}",
                    request(&http.method, &http.url),
                    match http.url.scheme {
                        Scheme::Https => "TLS, by HTTP/2 or HTTP/1.1 as both agree in the handshake",
                        Scheme::Http if http.prior_knowledge => "HTTP/2",
                        Scheme::Http => "HTTP/1.1",
                    },
                    through(http.via.as_ref())
                )
            }
            Probe::EgressIp(egress) => format!(
                "{} with a new nonce behind the path, over HTTP/1.1{}; only the beacon's signature on the answer is believed",
                request("GET", &egress.url),
                through(egress.via.as_ref())
            ),
            Probe::Peer(peer) => format!(
                "one question over {}, \"how is {}?\" ({}/api/v1/checks/{}){}",
                spoken(&peer.url),
                peer.check,
                peer.url.path.trim_end_matches('/'),
                peer.check,
                if peer.auth.is_some() { ", with user and password" } else { "" }
            ),
            Probe::PromQl(promql) => format!(
                "two questions over {} for {}: its samples with their own times, and its value now{}",
                spoken(&promql.url),
                promql.query,
                if promql.auth.is_some() { ", with user and password" } else { "" }
            ),
            Probe::Ranges(Ranges { published, expected, .. }) => {
                let against = match expected {
                    Expected::Given(_) => "the networks that the configuration expects".to_string(),
                    Expected::File { path, .. } => format!("the file {}, which is read again each time", path.display()),
                };
                match published {
                    Published::Web(list) => {
                        let names: Vec<&str> = list.headers.iter().map(|(name, _)| name.as_str()).collect();
                        let headers = if names.is_empty() { String::new() } else { format!(", with the headers {}", names.join(", ")) };
                        format!(
                            "{} over {}{headers}; the networks of the answer are held against {against}",
                            request("GET", &list.url),
                            spoken(&list.url)
                        )
                    }
                    Published::File(_) => format!("nothing: a file on this host is read, and its networks are held against {against}"),
                }
            }
            Probe::Ports(ports) => format!(
                "a TCP SYN to each of {} ports (by SYNs of its own where it may, else by connect), at most {} a second; what answers, and what must \
                 be open, by a TCP handshake of its own",
                ports.closed.len(),
                ports.rate
            ),
            Probe::Udp(udp) => {
                format!("the datagram \"{}\" {QUESTIONS} times, a second apart; any datagram that comes back is an answer", udp.payload)
            }
            Probe::Icmp(_) => format!("{QUESTIONS} ICMP echo requests, a second apart"),
            Probe::Dns(dns) => {
                let records: Vec<String> = dns.records.iter().map(ToString::to_string).collect();
                format!(
                    "the question for {} {} over UDP, again until there is an answer; over TCP where that is cut",
                    dns.target.host,
                    listed(&records)
                )
            }
            Probe::OpenProxy(suite) => {
                let techniques: Vec<&str> = suite.techniques.iter().map(|t| t.id()).collect();
                let beacons: Vec<String> = suite.beacons.iter().map(Url::to_string).collect();
                let destination = suite.allowed_destination.as_ref();
                format!(
                    "a request to relay a new nonce to our beacons ({}), in {} forms by the techniques {}{}, {} at a time; then that beacon's log \
                     is asked whether the nonce came all the same",
                    beacons.join(", "),
                    suite.forms_known(),
                    techniques.join(", "),
                    destination.map_or(String::new(), |to| format!(" (OP-07: a tunnel and a TLS handshake to {to})")),
                    OpenProxy::AT_ONCE
                )
            }
        }
    }

    /// How many connections one attempt makes at most, to wherever.
    pub fn most_connections(&self, aim: &Aim) -> usize {
        match (self, aim) {
            (Probe::Http(http), _) if http.follow_redirects => 1 + MAX_REDIRECTS,
            (Probe::Http(http), Aim::Variant(nth)) => http.variants.get(*nth).map_or(1, Variant::most_connections),
            (Probe::PromQl(_), _) => 2,
            (Probe::Ranges(Ranges { published: Published::File(_), .. }), _) => 0,
            (Probe::Ports(ports), _) => ports.closed.len() + ports.open.len(),
            // One to the proxy, and one to the log of the beacon that it aims at.
            (Probe::OpenProxy(_), Aim::Relay(_)) => 2,
            _ => 1,
        }
    }
}

fn listed(words: &[String]) -> String {
    words.join(", ")
}

fn request(method: &str, url: &Url) -> String {
    format!("{method} {url}")
}

fn spoken(url: &Url) -> &'static str {
    match url.scheme {
        Scheme::Http => "HTTP/1.1",
        Scheme::Https => "HTTP/1.1 and TLS",
    }
}

fn through(via: Option<&Via>) -> String {
    let credentials = |via: &Via| if via.auth.is_some() { ", with user and password" } else { "" };
    via.map_or(String::new(), |via| {
        let how = if via.absolute { "in absolute form, by" } else { "in a tunnel (CONNECT) that is asked of" };
        format!(", {how} the proxy {}{}", via.proxy, credentials(via))
    })
}

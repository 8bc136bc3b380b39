//! By hand: the command line that repeats a look, for somebody who does not take our word for it.

use std::time::Duration;

use super::{Probe, Technique};
use crate::observation::Subject;
use crate::target::{Host, HostPort, Url};

impl Probe {
    /// The line that looks at the subject once; none where nothing was dialled.
    pub fn by_hand(&self, subject: &Subject, timeout: Duration) -> Option<String> {
        let to = subject.dialled?;
        let wait = timeout.as_secs().max(1);
        let source = |flag: &str| subject.source.map_or(String::new(), |s| format!(" {flag} {s}"));
        let curl = format!("curl -sS -o /dev/null -D - --path-as-is --max-time {wait}{}", source("--interface"));
        if let (Probe::Http(http), Some(label)) = (self, &subject.variant)
            && let Some(variant) = http.variants.iter().find(|v| v.label() == *label)
        {
            return variant.by_hand(&http.url, to, &source("--interface"), wait);
        }
        let pin = |host: &HostPort| match host.host.ip() {
            Some(_) => String::new(),
            None => format!(" --resolve '{}:{}:{}'", host.host, host.port, Host::Ip(to.ip())),
        };
        Some(match self {
            Probe::Tcp(_) => format!("nc -vz -w {wait}{} {} {}", source("-s"), to.ip(), to.port()),
            Probe::Tls(tls) => format!("openssl s_client -connect {to} -servername {} </dev/null", tls.target.host),
            Probe::Http(http) => match &http.via {
                Some(via) => format!("{curl} -X {} -p -x 'http://{}' {}", http.method, via.proxy, quoted(&http.url)),
                None => {
                    let http2 = if http.prior_knowledge { " --http2-prior-knowledge" } else { "" };
                    format!("{curl} -X {}{http2}{} {}", http.method, pin(&http.url.authority), quoted(&http.url))
                }
            },
            Probe::EgressIp(egress) => match &egress.via {
                Some(via) => format!("{curl} -p -x 'http://{}' {}", via.proxy, quoted(&egress.url)),
                None => format!("{curl} {}", quoted(&egress.url)),
            },
            Probe::Peer(peer) => {
                format!("curl -sS --max-time {wait} '{}://{}/api/v1/checks/{}'", peer.url.scheme, peer.url.authority, peer.check)
            }
            Probe::OpenProxy(suite) => {
                let beacon = suite.beacons.first();
                match Technique::ALL.iter().find(|t| Some(t.id()) == subject.technique)? {
                    Technique::Connect => format!("{curl} -p -x 'http://{to}' {}", quoted(beacon?)),
                    Technique::AbsoluteGet => format!("{curl} -x 'http://{to}' {}", quoted(beacon?)),
                    Technique::AllowedDestination => format!("{curl} -x 'http://{to}' 'https://{}/'", suite.allowed_destination.as_ref()?),
                    Technique::OriginGet => format!("{curl} -H 'Host: {}' 'http://{to}/'", beacon?.host_header()),
                }
            }
        })
    }
}

/// A URL as one word of a shell; its path is sent as typed, so it may hold a quote.
fn quoted(url: &Url) -> String {
    format!("'{}'", url.to_string().replace('\'', "'\\''"))
}

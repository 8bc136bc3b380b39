//! By hand: the command line that repeats a look, for somebody who does not take our word for it.

use std::time::Duration;

use super::{DNS_PORT, Probe, Technique};
use crate::net::ask::{QUESTIONS, hex};
use crate::observation::Subject;
use crate::target::{Host, HostPort, Url};

impl Probe {
    /// The line that looks at the subject once; none where nothing was dialled.
    pub fn by_hand(&self, subject: &Subject, timeout: Duration) -> Option<String> {
        let to = subject.dialled?;
        let wait = timeout.as_secs().max(1);
        let source = |flag: &str| subject.source.map_or(String::new(), |s| format!(" {flag} {s}"));
        let curl = format!("curl -sS -o /dev/null -D - --path-as-is --max-time {wait}{}", source("--interface"));
        let pin = |host: &HostPort| match host.host.ip() {
            Some(_) => String::new(),
            None => format!(" --resolve '{}:{}:{}'", host.host, host.port, Host::Ip(to.ip())),
        };
        Some(match self {
            Probe::Tcp(_) => format!("nc -vz -w {wait}{} {} {}", source("-s"), to.ip(), to.port()),
            Probe::Tls(tls) => format!("openssl s_client -connect {to} -servername {} </dev/null", tls.target.host),
            Probe::Http(http) => match &http.via {
                Some(via) => format!("{curl} -X {} -p -x 'http://{}' {}", http.method, via.proxy, quoted(&http.url)),
                None => format!("{curl} -X {}{} {}", http.method, pin(&http.url.authority), quoted(&http.url)),
            },
            Probe::EgressIp(egress) => match &egress.via {
                Some(via) => format!("{curl} -p -x 'http://{}' {}", via.proxy, quoted(&egress.url)),
                None => format!("{curl} {}", quoted(&egress.url)),
            },
            Probe::Peer(peer) => {
                format!("curl -sS --max-time {wait} '{}://{}/api/v1/checks/{}'", peer.url.scheme, peer.url.authority, peer.check)
            }
            Probe::Dns(_) => {
                let (name, record) = subject.asked.as_deref()?.rsplit_once(' ')?;
                let port = if to.port() == DNS_PORT { String::new() } else { format!(" -p {}", to.port()) };
                let dot = if name == "." { "" } else { "." };
                format!("dig{} @{}{port} +time={wait} '{name}{dot}' {record}", source("-b"), to.ip())
            }
            Probe::Udp(udp) => {
                let bytes = perl(&udp.payload.datagram(to));
                format!("perl -e '{bytes}' | nc -u -w {wait}{} {} {} | xxd", source("-s"), to.ip(), to.port())
            }
            Probe::Icmp(_) => format!("ping -c {QUESTIONS} -W {wait}{} {}", source("-I"), to.ip()),
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

/// The line of Perl that prints these bytes, with what only fills them up at the end shortened.
fn perl(bytes: &[u8]) -> String {
    let told = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let (told, zeros) = bytes.split_at_checked(told).unwrap_or((bytes, &[]));
    let filled = if zeros.is_empty() { String::new() } else { format!(",\"\\0\"x{}", zeros.len()) };
    format!("print pack(\"H*\",\"{}\"){filled}", hex(told))
}

/// A URL as one word of a shell; its path is sent as typed, so it may hold a quote.
fn quoted(url: &Url) -> String {
    format!("'{}'", url.to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_printed_by_perl_byte_for_byte() {
        for bytes in [&b"\x00\x01'\"$@%\\\xff"[..], &[0; 3], &[7, 0, 0], &[1; 1200]] {
            let printed = std::process::Command::new("perl").args(["-e", &perl(bytes)]).output().unwrap();
            assert_eq!(printed.stdout, bytes);
        }
        assert_eq!(perl(&[1, 0, 0]), "print pack(\"H*\",\"01\"),\"\\0\"x2");
    }
}

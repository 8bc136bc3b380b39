//! By hand: the command line that repeats a look, for somebody who does not take our word for it.

use std::time::Duration;

use super::{DNS_PORT, Http, Manner, Probe, Published, Ranges, Technique, Tls, Via};
use crate::net::ask::QUESTIONS;
use crate::net::tls::{Stranger, Version};
use crate::observation::{ClientCertificate, Subject};
use crate::target::{Host, HostPort, Url};
use crate::token::hex;

impl Probe {
    /// The line that looks at the subject once; none where nothing was dialled.
    pub fn by_hand(&self, subject: &Subject, timeout: Duration) -> Option<String> {
        if let Probe::Ranges(Ranges { published: Published::File(path), .. }) = self {
            return Some(format!("cat '{}'", path.display().to_string().replace('\'', "'\\''")));
        }
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
            Probe::Ports(ports) => {
                let (first, last) = (ports.closed.iter().next()?, ports.closed.iter().last()?);
                let port = if to.port() == 0 { format!("{first}-{last}") } else { to.port().to_string() };
                format!("nc -vz -w {wait}{} {} {port}", source("-s"), to.ip())
            }
            Probe::Tls(tls) => {
                let s_client = format!("openssl s_client -connect {to} -servername {}", tls.target.host);
                match (&tls.manner, self.stranger(subject)) {
                    (Manner::Old(version), _) => {
                        let flag = if *version == Version::V1_0 { "-tls1" } else { "-tls1_1" };
                        format!("{s_client} {flag} -cipher ALL:@SECLEVEL=0 </dev/null")
                    }
                    // The alert of TLS 1.3 comes after the handshake.
                    (_, Some(stranger)) => {
                        let flag = if stranger.version == Version::V1_2 { "-tls1_2" } else { "-tls1_3" };
                        format!("{}(sleep 1) | {s_client} {flag}{}", thrown_away(stranger), shown(stranger, "-cert"))
                    }
                    _ => format!("{s_client} </dev/null"),
                }
            }
            Probe::Http(http) => {
                let (before, certificate) = match self.stranger(subject) {
                    Some(stranger) => {
                        let version = if stranger.version == Version::V1_2 { "--tlsv1.2 --tls-max 1.2" } else { "--tlsv1.3" };
                        (thrown_away(stranger), format!(" {version}{}", shown(stranger, "--cert")))
                    }
                    None => Default::default(),
                };
                match &http.via {
                    Some(via) => {
                        format!("{before}{curl}{certificate} -X {} {} {}", http.method, by_proxy(via), quoted(&http.url))
                    }
                    None => {
                        let http2 = if http.prior_knowledge { " --http2-prior-knowledge" } else { "" };
                        let pin = pin(&http.url.authority);
                        format!("{before}{curl}{certificate} -X {}{http2}{pin} {}", http.method, quoted(&http.url))
                    }
                }
            }
            Probe::EgressIp(egress) => match &egress.via {
                Some(via) => format!("{curl} {} {}", by_proxy(via), quoted(&egress.url)),
                None => format!("{curl} {}", quoted(&egress.url)),
            },
            Probe::Peer(peer) => {
                format!("curl -sS --max-time {wait} '{}://{}/api/v1/checks/{}'", peer.url.scheme, peer.url.authority, peer.check)
            }
            Probe::PromQl(promql) => format!(
                "curl -sS --max-time {wait} -G --data-urlencode 'query={}' '{}://{}{}/api/v1/query'",
                promql.query.replace('\'', "'\\''"),
                promql.url.scheme,
                promql.url.authority,
                promql.url.path.trim_end_matches('/')
            ),
            Probe::Ranges(Ranges { published: Published::Web(list), .. }) => {
                format!(
                    "curl -sS --path-as-is --max-time {wait}{}{} {}",
                    source("--interface"),
                    pin(&list.url.authority),
                    quoted(&list.url)
                )
            }
            Probe::Ranges(_) => return None,
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
                match subject.technique.and_then(Technique::of)? {
                    Technique::CONNECT => format!("{curl} -p -x 'http://{to}' {}", quoted(beacon?)),
                    Technique::ABSOLUTE_GET => format!("{curl} -x 'http://{to}' {}", quoted(beacon?)),
                    Technique::ORIGIN_GET => format!("{curl} -H 'Host: {}' 'http://{to}/'", beacon?.host_header()),
                    _ => suite.bytes_by_hand(subject)?,
                }
            }
        })
    }
}

impl Probe {
    /// The stranger in whose place the subject was looked at.
    fn stranger(&self, subject: &Subject) -> Option<&Stranger> {
        let all = match self {
            Probe::Tls(Tls { manner: Manner::Strangers(all), .. }) | Probe::Http(Http { manner: Manner::Strangers(all), .. }) => all,
            _ => return None,
        };
        all.iter().find(|stranger| Some(stranger.variant()) == subject.variant)
    }
}

/// The command that makes the stranger's certificate; its end joins it to the next one.
fn thrown_away(stranger: &Stranger) -> &'static str {
    match stranger.certificate {
        ClientCertificate::SelfSigned => {
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=stranger -keyout stranger.key -out stranger.pem 2>/dev/null && "
        }
        ClientCertificate::None | ClientCertificate::Own => "",
    }
}

/// How it is shown.
fn shown(stranger: &Stranger, flag: &str) -> String {
    let key = flag.replace("cert", "key");
    match stranger.certificate {
        ClientCertificate::SelfSigned => format!(" {flag} stranger.pem {key} stranger.key"),
        ClientCertificate::None | ClientCertificate::Own => String::new(),
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

/// curl's flags for a proxy on the way.
fn by_proxy(via: &Via) -> String {
    format!("{}-x 'http://{}'", if via.absolute { "" } else { "-p " }, via.proxy)
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

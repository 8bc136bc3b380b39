//! A variant by hand: the command line that sends the same.

use std::net::SocketAddr;

use super::attempt::{host_text, proxy_header, visible};
use super::{HostLine, ProxyHeader, Sni, Variant, Wire};
use crate::probe::USER_AGENT;
use crate::target::{Host, Scheme, Url};

impl Variant {
    /// The line that sends it once to `to`; none where no common tool can. The check's own headers, which may be secret, are
    /// left for the reader to add.
    pub(in crate::probe) fn by_hand(&self, url: &Url, to: SocketAddr, source: &str, wait: u64) -> Option<String> {
        let scheme = self.scheme(url);
        let one_host = matches!(self.hosts.as_slice(), [_]) || self.wire.is_http2();
        let curl_says_it = matches!(self.proxy, None | Some(ProxyHeader::V1(_))) && one_host;
        match scheme {
            _ if curl_says_it => Some(self.curl(url, scheme, to, source, wait)),
            Scheme::Http => Some(format!("printf '{}' | nc -w {wait} {} {}", self.bytes(to), to.ip(), to.port())),
            Scheme::Https if self.proxy.is_none() => {
                let name = &url.authority.host;
                Some(format!("printf '{}' | openssl s_client -quiet -connect {to} -servername {name}", self.bytes(to)))
            }
            Scheme::Https => None,
        }
    }

    /// Everything, as printf(1) wants it.
    fn bytes(&self, to: SocketAddr) -> String {
        let opening = self.proxy.map(|header| proxy_header(header, to)).unwrap_or_default();
        visible(&[opening, self.head(to, &[]).into_bytes()].concat()).replace('\'', "\\047")
    }

    fn curl(&self, url: &Url, scheme: Scheme, to: SocketAddr, source: &str, wait: u64) -> String {
        let mut line = format!("curl -sS -D - --path-as-is --max-time {wait} -A {USER_AGENT}{source} -X {}", self.method);
        line.push_str(match self.wire {
            Wire::Http11 | Wire::WebSocket => " --http1.1",
            Wire::Http10 => " --http1.0",
            Wire::PriorKnowledge => " --http2-prior-knowledge",
            Wire::Http2 | Wire::Upgrade => " --http2",
        });
        let name = match &self.sni {
            Sni::Own => url.authority.host.clone(),
            Sni::None => Host::Ip(to.ip()),
            Sni::Other(name) => Host::Name(name.clone()),
        };
        if !self.is_private() && scheme == Scheme::Https {
            line.push_str(" -k");
        }
        if name.ip().is_none() {
            line.push_str(&format!(" --resolve '{name}:{}:{}'", to.port(), Host::Ip(to.ip())));
        }
        if let Some(ProxyHeader::V1(from)) = self.proxy {
            line.push_str(&format!(" --haproxy-clientip {from}"));
        }
        let hosts = self.hosts.iter().map(|host| format!("Host: {}", host_text(host, to)));
        let no_host = self.hosts.is_empty().then(|| "Host:".to_string());
        let headers =
            self.headers.iter().map(|(name, value)| if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") });
        let same_host = self.hosts == [HostLine::Text(url.host_header())] && self.sni == Sni::Own;
        let websocket =
            ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: bXVzdG5vdCBtdXN0bm90IQ=="];
        let websocket = websocket.into_iter().filter(|_| self.wire == Wire::WebSocket).map(str::to_string);
        for header in hosts.filter(|_| !same_host).chain(no_host).chain(headers).chain(websocket) {
            line.push_str(&format!(" -H {}", word(&header)));
        }
        let port = if to.port() == scheme.default_port() { String::new() } else { format!(":{}", to.port()) };
        format!("{line} --request-target {} {}", word(&self.target), word(&format!("{scheme}://{name}{port}/")))
    }
}

/// One word of a shell.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

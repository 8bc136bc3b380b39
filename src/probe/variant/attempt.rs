//! One attempt at one variant: the bytes that go out, and whether the page came back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Door, HostLine, ProxyHeader, Sni, Variant, Wire};
use crate::net::h2::{self, Heard};
use crate::net::http::{self, Body, Head, Upgraded};
use crate::net::tls::{Client, watch_for_refusal};
use crate::observation::{Class, Evidence, Marker, Outcome, Stage};
use crate::probe::fetch::{Fetch, Speak};
use crate::probe::http::{Http, MAX_PAGE, contains};
use crate::probe::tls::{ask_again, may_be_our_taste};
use crate::probe::{Aim, Approach, Ended, USER_AGENT, dial, user_agent};
use crate::target::{Scheme, Url};

/// The protocol's name in ALPN (RFC 7301 section 6).
const HTTP_1_1: &str = "http/1.1";
/// A page that no site has, so that whoever shows the marker there shows it everywhere.
const NO_SUCH_PAGE: &str = "/mustnot-asks-for-no-such-page";
/// The source port that a forged PROXY header names.
const FORGED_PORT: u16 = 50000;
/// The SETTINGS of an upgrade to HTTP/2 (RFC 7540 section 3.2.1): MAX_CONCURRENT_STREAMS 100, INITIAL_WINDOW_SIZE 65535. Not empty,
/// since some take an empty header for none.
const SETTINGS: &str = "AAMAAABkAAQAAP__";
/// How often HTTP/2 is tried anew within one attempt where the server says that it has not looked at the request.
pub(super) const TRIES: usize = 3;
/// The first twelve bytes of a PROXY header, version 2.
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

impl Variant {
    /// Asks once, and looks for the marker in what comes back.
    pub(in crate::probe) async fn attempt(&self, http: &Http, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        evidence.request = Some(format!("{} {} {}", self.method, self.target, self.wire.version()));
        let agent = user_agent(evidence);
        evidence.request_head = Some(self.shown(http, approach.to).replace(USER_AGENT, &agent));
        let (head, body) = match self.ask_until_heard(http, approach, deadline, evidence).await {
            Ok(answered) => answered,
            Err(ended) => {
                if matches!(ended.0, Outcome::Mute | Outcome::BadHttp) {
                    evidence.marker = Some(Marker::Unheard);
                }
                return ended;
            }
        };
        let outcome = Outcome::Status(head.status);
        let marker = http.body_contains.as_deref().unwrap_or_default();
        evidence.marker = Some(match contains(&body, marker.as_bytes()) {
            true if self.is_everywhere(http, marker, approach).await => Marker::Everywhere,
            true => Marker::Found,
            false if self.is_of_something_in_front(head.status, &http.url) => Marker::Unheard,
            false if body.whole && !is_encoded(&head) => Marker::Absent,
            false => Marker::Cut,
        });
        evidence.detail = match evidence.marker {
            Some(Marker::Found) => Some("with the page that body_contains tells it by".into()),
            Some(Marker::Everywhere) => {
                Some("body_contains stands on a page that everybody may see, too; choose a text that only the denied page has".into())
            }
            Some(Marker::Cut) if is_encoded(&head) => {
                Some("its body is encoded, though nobody asked for that, and cannot be looked through".into())
            }
            Some(Marker::Cut) => Some(format!("body_contains is not in the first {} bytes, and more was to come", body.len())),
            Some(Marker::Unheard) => Some("so says a limit of rates, or a server in front of the page: who has it did not answer".into()),
            _ => None,
        };
        (outcome, Stage::Http)
    }

    /// Asks, and again by a fresh connection where the server says that it has not looked at the request: HTTP/2 invites to that
    /// (RFC 9113 section 8.7). Some end every connection that they have upgraded so, some times.
    async fn ask_until_heard(
        &self,
        http: &Http,
        approach: &Approach,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Result<(Head, Body), Ended> {
        let fresh = Evidence { marker: Some(Marker::Unseen), ..evidence.clone() };
        let mut tries = 1;
        loop {
            *evidence = fresh.clone();
            let answered = self.ask(http, approach, deadline, evidence).await;
            let unheard = matches!(answered, Err((_, Stage::Http))) && evidence.marker == Some(Marker::Unheard);
            if !unheard || tries == TRIES || Instant::now() >= deadline {
                return answered;
            }
            tries += 1;
        }
    }

    /// Statuses of those who stand before the page and did not get to it: a limit of rates (RFC 6585 section 4; nginx says 503), a gateway
    /// whose server does not answer (RFC 9110 section 15.6), which has let us in. But 503 is also said of a name that nobody serves.
    fn is_of_something_in_front(&self, status: u16, url: &Url) -> bool {
        matches!(status, 429 | 502 | 504) || (status == 503 && !self.names_another_host(url))
    }

    /// Whether pages that are nobody's secret have the marker as well: then it shows nothing.
    async fn is_everywhere(&self, http: &Http, marker: &str, approach: &Approach) -> bool {
        // The variant may have gone elsewhere; what everybody may see is to be seen at the target's own door.
        let to = SocketAddr::new(approach.to.ip(), http.url.authority.port);
        let approach = Approach { to, aim: Aim::AsWritten, ..approach.clone() };
        let deadline = Instant::now() + approach.timeout;
        let front = Some("/").filter(|front| *front != http.url.path.split('?').next().unwrap_or_default());
        for path in [NO_SUCH_PAGE].into_iter().chain(front) {
            let url = Url { path: path.into(), ..http.url.clone() };
            let fetch = Fetch { url: &url, via: None, tls: Some(&http.tls), method: "GET", headers: &[], body: true };
            let asked = fetch.run_by(Speak::Http1, MAX_PAGE, &approach, deadline, &mut Evidence::default()).await;
            if asked.is_ok_and(|(_, body)| contains(&body, marker.as_bytes())) {
                return true;
            }
        }
        false
    }

    async fn ask(&self, http: &Http, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Result<(Head, Body), Ended> {
        let mut stream = dial(approach, deadline, evidence).await?;
        if let Some(header) = self.proxy {
            let bytes = proxy_header(header, approach.to);
            // Who closes upon it is heard when the answer is read.
            let _ = http::send(&mut stream, &bytes, deadline).await;
        }
        match self.scheme(&http.url) {
            Scheme::Http => self.ask_over(stream, Vec::new(), http, approach.to, deadline, evidence).await,
            Scheme::Https => self.ask_over_tls(stream, http, approach, deadline, evidence).await,
        }
    }

    async fn ask_over_tls(
        &self,
        stream: TcpStream,
        http: &Http,
        approach: &Approach,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Result<(Head, Body), Ended> {
        let client = self.client(http);
        let mut shaken = match client.shake(stream, &http.url.authority.host, deadline, evidence).await {
            Ok(shaken) => shaken,
            Err(outcome) => return Err((self.not_shaken(outcome, &client, http, approach, deadline, evidence).await, Stage::Tls)),
        };
        let mut early = Vec::new();
        if shaken.may_refuse_late {
            early = watch_for_refusal(&mut shaken, deadline, evidence).await.map_err(|outcome| (outcome, Stage::Tls))?;
        }
        if self.wire == Wire::Http2 && evidence.alpn.as_deref() != Some(h2::ALPN) {
            // It has no HTTP/2, and so none that could be open.
            evidence.marker = Some(Marker::Absent);
            evidence.detail = Some("it does not agree on HTTP/2".into());
            return Err((Outcome::Mismatch, Stage::Tls));
        }
        self.ask_over(shaken.stream, early, http, approach.to, deadline, evidence).await
    }

    /// What a handshake that came to nothing means. Whoever speaks another version or with other ciphers, shows a certificate that is
    /// not to be trusted, or speaks no TLS, keeps nobody out: he was not asked.
    async fn not_shaken(
        &self,
        outcome: Outcome,
        client: &Client,
        http: &Http,
        approach: &Approach,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Outcome {
        if self.proxy.is_some() && evidence.certificate_sha256.is_none() {
            // Without the PROXY header the same handshake comes to be, as the plain request shows: this is the answer to it.
            evidence.marker = Some(Marker::Absent);
            return outcome;
        }
        let mut outcome = outcome;
        if may_be_our_taste(client, outcome, evidence)
            && let Ok(stream) = dial(approach, deadline, &mut Evidence::default()).await
        {
            outcome = ask_again(client, stream, &http.url.authority.host, outcome, deadline, evidence).await;
        }
        // A server of HTTP/2 alone denies the version, which is what some variants are about and the others are not.
        let by_version = evidence.tls_alert.as_deref() == Some("no_application_protocol") && !self.name.starts_with("AD-09 ");
        if by_version || outcome.class() == Class::Open {
            evidence.marker = Some(Marker::Unheard);
            evidence.detail.get_or_insert("nothing was asked, so nothing is known of the page there".into());
        }
        outcome
    }

    /// How to shake hands: as the check does, save for what the variant is about.
    fn client(&self, http: &Http) -> Client {
        let client = http.tls.clone().offering(&[if self.wire == Wire::Http2 { h2::ALPN } else { HTTP_1_1 }]);
        match (&self.sni, self.door) {
            (Sni::Own, Door::Tls) => client.for_anybody(Some(http.url.authority.host.to_string())),
            (Sni::Own, _) => client,
            (Sni::None, _) => client.for_anybody(None),
            (Sni::Other(name), _) => client.for_anybody(Some(name.clone())),
        }
    }

    async fn ask_over<S>(
        &self,
        mut stream: S,
        early: Vec<u8>,
        http: &Http,
        to: SocketAddr,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Result<(Head, Body), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let failed = |outcome| (outcome, Stage::Http);
        if self.wire.is_http2() {
            return self.ask_http2(stream, early, 1, http, deadline, evidence).await.map_err(failed);
        }
        let request = self.head(to, &self.own_headers(http)).replacen(USER_AGENT, &user_agent(evidence), 1);
        let head = match (self.wire, early.is_empty()) {
            (_, false) => http::read_head(&mut stream, early, deadline, evidence).await,
            (Wire::Upgrade | Wire::WebSocket, true) => {
                match http::upgrade(&mut stream, request.as_bytes(), deadline, evidence).await.map_err(failed)? {
                    Upgraded::No(head) => Ok(head),
                    Upgraded::Yes(early) if self.wire == Wire::Upgrade => {
                        return self.ask_http2(stream, early, 3, http, deadline, evidence).await.map_err(failed);
                    }
                    Upgraded::Yes(_) => {
                        evidence.detail = Some("it switches protocols (101), so something behind the denial hears us".into());
                        Err(Outcome::BadHttp)
                    }
                }
            }
            _ => http::exchange(&mut stream, request.as_bytes(), deadline, evidence).await,
        };
        let head = head.map_err(failed)?;
        let body = http::read_body(&mut stream, &head, MAX_PAGE, deadline).await;
        Ok((head, body))
    }

    async fn ask_http2<S>(
        &self,
        stream: S,
        early: Vec<u8>,
        number: u32,
        http: &Http,
        deadline: Instant,
        evidence: &mut Evidence,
    ) -> Result<(Head, Body), Outcome>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut headers = vec![("User-Agent".to_string(), user_agent(evidence)), ("Accept".to_string(), "*/*".to_string())];
        headers.extend(self.own_headers(http));
        let authority = http.url.host_header();
        let request = h2::Request {
            method: self.method,
            scheme: self.scheme(&http.url).as_str(),
            authority: &authority,
            path: &self.target,
            headers: &headers,
            stream: number,
            body: MAX_PAGE,
        };
        h2::exchange(stream, early, request, deadline, evidence).await.map_err(|none| {
            // Who has switched to HTTP/2 has agreed to be asked: that he then ends all of it is no word about the page.
            let upgraded = self.wire == Wire::Upgrade;
            let unheard = none.heard == Heard::No || (none.heard == Heard::Unknown && upgraded);
            if unheard && matches!(none.outcome, Outcome::Closed | Outcome::Reset) {
                evidence.marker = Some(Marker::Unheard);
                let how = evidence.detail.take().unwrap_or_else(|| format!("{} after 101", none.outcome));
                evidence.detail = Some(format!("{how}, before any word on the request, which was made up to {TRIES} times"));
            }
            none.outcome
        })
    }

    /// The check's own headers, where they go to whom they are for.
    fn own_headers(&self, http: &Http) -> Vec<(String, String)> {
        let own = http.headers.iter().filter(|_| self.is_private());
        own.map(|(name, value)| (name.clone(), value.expose().to_string())).collect()
    }

    /// The head in HTTP/1, byte for byte.
    pub(super) fn head(&self, to: SocketAddr, own: &[(String, String)]) -> String {
        let target = if self.wire == Wire::Upgrade { "/" } else { &self.target };
        let mut head = format!("{} {target} {}\r\n", self.method, self.wire.version());
        for host in &self.hosts {
            head.push_str(&format!("Host: {}\r\n", host_text(host, to)));
        }
        for (name, value) in self.usual().into_iter().chain(self.headers.iter().map(|(n, v)| (*n, v.as_str()))) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        for (name, value) in own {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "\r\n"
    }

    fn usual(&self) -> Vec<(&'static str, &'static str)> {
        let connection: &[(&str, &str)] = match self.wire {
            Wire::Upgrade => &[("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", SETTINGS)],
            Wire::WebSocket => &[
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "bXVzdG5vdCBtdXN0bm90IQ=="),
            ],
            Wire::Http11 | Wire::Http10 | Wire::Http2 | Wire::PriorKnowledge => &[("Connection", "close")],
        };
        [("User-Agent", USER_AGENT), ("Accept", "*/*")].into_iter().chain(connection.iter().copied()).collect()
    }

    /// Whether it sends this text, in capitals or not, so that an answer that repeats the request has it too.
    pub fn sends(&self, text: &str, to: SocketAddr) -> bool {
        [self.head(to, &[]), self.target.clone()].iter().any(|sent| sent.to_ascii_lowercase().contains(&text.to_ascii_lowercase()))
    }

    /// All that it sends, for a reader, less what the check itself adds.
    fn shown(&self, http: &Http, to: SocketAddr) -> String {
        let opening = self.proxy.map(|header| visible(&proxy_header(header, to)) + "\n").unwrap_or_default();
        let page = format!(
            ":method: {}\n:scheme: {}\n:authority: {}\n:path: {}\nuser-agent: {USER_AGENT}\naccept: */*\n",
            self.method,
            self.scheme(&http.url),
            http.url.host_header(),
            self.target
        );
        let asked = match self.wire {
            Wire::Http2 | Wire::PriorKnowledge => page,
            Wire::Upgrade => format!("{}and after 101, on stream 3:\n{page}", self.head(to, &[]).replace("\r\n", "\n")),
            Wire::Http11 | Wire::Http10 | Wire::WebSocket => self.head(to, &[]).replace("\r\n", "\n"),
        };
        (opening + &asked).chars().take(Evidence::MAX_REQUEST).collect()
    }
}

/// Whether the body is another than the page (RFC 9110 section 8.4).
fn is_encoded(head: &Head) -> bool {
    head.header("content-encoding").is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity"))
}

pub(super) fn host_text(host: &HostLine, to: SocketAddr) -> String {
    match (host, to.ip()) {
        (HostLine::Text(text), _) => text.clone(),
        (HostLine::Dialled, IpAddr::V4(ip)) => ip.to_string(),
        (HostLine::Dialled, IpAddr::V6(ip)) => format!("[{ip}]"),
    }
}

/// The bytes of a PROXY protocol header, as HAProxy's document defines them (proxy-protocol.txt, 2.1 and 2.2).
pub(super) fn proxy_header(header: ProxyHeader, to: SocketAddr) -> Vec<u8> {
    // Both addresses are of one family, and where the dialled one is not, nobody misses it.
    let to_ip = |from: IpAddr| match (from, to.ip()) {
        (IpAddr::V4(_), IpAddr::V6(_)) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (IpAddr::V6(_), IpAddr::V4(_)) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        (_, ip) => ip,
    };
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    match header {
        ProxyHeader::V1(from) => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {} {FORGED_PORT} {}\r\n", to_ip(from), to.port()).into_bytes()
        }
        ProxyHeader::V1Unknown => b"PROXY UNKNOWN\r\n".to_vec(),
        ProxyHeader::V2(from) => {
            let (family, length): (u8, u8) = if from.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
            let addresses = [octets(from), octets(to_ip(from)), FORGED_PORT.to_be_bytes().to_vec(), to.port().to_be_bytes().to_vec()];
            [PROXY_V2, &[0x21, family, 0, length], &addresses.concat()].concat()
        }
        ProxyHeader::V2Local => [PROXY_V2, &[0x20, 0, 0, 0]].concat(),
    }
}

/// Bytes as printf(1) would be given them.
pub(super) fn visible(bytes: &[u8]) -> String {
    let shown = bytes.iter().map(|b| match b {
        b'\r' => "\\r".to_string(),
        b'\n' => "\\n".to_string(),
        b'\\' => "\\\\".to_string(),
        b'%' => "%%".to_string(),
        b if b.is_ascii_graphic() || *b == b' ' => char::from(*b).to_string(),
        b => format!("\\{b:03o}"),
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_headers_byte_by_byte() {
        let to: SocketAddr = "203.0.113.7:443".parse().unwrap();
        let to6: SocketAddr = "[fd00::7]:443".parse().unwrap();
        let from: IpAddr = "10.0.0.5".parse().unwrap();
        let text = |header, to| String::from_utf8(proxy_header(header, to)).unwrap();
        assert_eq!(text(ProxyHeader::V1(from), to), "PROXY TCP4 10.0.0.5 203.0.113.7 50000 443\r\n");
        assert_eq!(text(ProxyHeader::V1(from), to6), "PROXY TCP4 10.0.0.5 127.0.0.1 50000 443\r\n");
        assert_eq!(text(ProxyHeader::V1("fd00::5".parse().unwrap()), to6), "PROXY TCP6 fd00::5 fd00::7 50000 443\r\n");
        let v2 = proxy_header(ProxyHeader::V2(from), to);
        assert_eq!(v2.len(), 16 + 12);
        assert_eq!(v2[12..], [0x21, 0x11, 0, 12, 10, 0, 0, 5, 203, 0, 113, 7, 0xc3, 0x50, 0x01, 0xbb]);
        assert_eq!(proxy_header(ProxyHeader::V2("fd00::5".parse().unwrap()), to6).len(), 16 + 36);
        assert_eq!(proxy_header(ProxyHeader::V2Local, to)[12..], [0x20, 0, 0, 0]);
    }

    #[test]
    fn what_is_shown_is_what_is_sent() {
        assert_eq!(visible(b"PROXY\r\n\0%41\\"), "PROXY\\r\\n\\000%%41\\\\");
        let url: Url = "https://admin.example.com/admin".parse().unwrap();
        let made = Variant::of(&url, &["10.0.0.5".parse().unwrap()], |name| name == "AD-05 lines-first");
        let [variant] = made.as_slice() else { panic!("{made:?}") };
        let head = variant.head("203.0.113.7:443".parse().unwrap(), &[("X-Key".into(), "s".into())]);
        assert_eq!(
            head,
            format!(
                "GET /admin HTTP/1.1\r\nHost: admin.example.com\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\nConnection: close\r\n\
                 X-Forwarded-For: 10.0.0.5\r\nX-Forwarded-For: 192.0.2.1\r\nX-Key: s\r\n\r\n"
            )
        );
    }
}

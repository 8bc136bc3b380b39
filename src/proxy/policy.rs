//! The policy: who may use the proxy, for what, and to where. The only maker of [`Vetted`] addresses.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::net::resolve::{Answer, Cached};
use crate::observation::Family;
use crate::proxy::address;
use crate::proxy::destination::Destination;
use crate::proxy::own::{Own, of_this_host};
use crate::proxy::reason::Reason;
use crate::proxy::request::{Malformed, Method, Request};
use crate::proxy::why::Why;
use crate::target::{Host, HostPort, PortSet, fold_mapped};

/// The rules, complete.
#[derive(Debug)]
pub struct Policy {
    /// Who may use the proxy.
    pub allow_from: Vec<IpNet>,
    /// The ports that CONNECT may name.
    pub connect_ports: PortSet,
    /// The ports that a request in absolute form may name; none: CONNECT is the only method.
    pub http_ports: PortSet,
    /// Destinations that are refused, whatever else is said.
    pub deny_to: Vec<Destination>,
    /// The only destinations, unless empty.
    pub allow_to: Vec<Destination>,
    /// Special-purpose addresses that may be reached all the same.
    pub allow_private: Vec<IpNet>,
    /// Where this process itself listens.
    pub own: Own,
    /// Where names are asked, each within its limit.
    pub resolver: Cached,
    /// The families that can be dialled, and so are asked for.
    pub families: Vec<Family>,
}

/// An address that the policy has judged and let pass. Only [`Policy`] can make one, and only for one can be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vetted(SocketAddr);

impl Vetted {
    /// The address, to dial or to show.
    pub fn address(&self) -> SocketAddr {
        self.0
    }

    #[cfg(test)]
    pub(super) fn for_tests(address: SocketAddr) -> Vetted {
        Vetted(address)
    }
}

/// Leave to dial.
#[derive(Debug)]
pub struct Permit {
    /// The entry of `allow_from` that let the client in.
    pub source: IpNet,
    /// The addresses to try, in order.
    pub addresses: Vec<Vetted>,
}

/// A request that goes no further.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// What is known of the request.
    pub heard: Heard,
    /// The rule that decided, with what it met.
    pub why: Why,
    /// The addresses that the destination had, where it came to that.
    pub addresses: Vec<IpAddr>,
}

/// What was heard of a request by the time that it was decided.
#[derive(Debug)]
pub enum Heard {
    /// Not a byte was read.
    Nothing,
    /// Something that is no request.
    Malformed(Malformed),
    /// A request.
    Request(Box<Request>),
}

impl Policy {
    /// Decides one connection. The first rule that matches decides; before all of them, where the connection comes from a sender of
    /// PROXY headers, its header must be one (`proxy-header`, [`crate::proxy::proxy_header`]), and names the client.
    ///
    /// 1. `source`: the client is in no entry of `allow_from`; `head` is not even polled, so not a byte is read.
    /// 2. `parse`: the head is not whole in time, too long, not HTTP/1, its authority is not plainly `host:port`, or its body not plainly framed.
    /// 3. `method`: anything but CONNECT, and where there are `http_ports`, a method that is forwarded with a target in absolute form.
    /// 4. `port`: the port is not in `connect_ports`, or `http_ports` in absolute form.
    /// 5. `name`: the name is in `deny_to`; or `allow_to` has only names, and this is none of them (an address literal is judged at 6).
    /// 6. `address`: any address of the destination is refused by [`Policy::vet`]. Names are resolved here, once; one that gives no
    ///    address ends as `resolve`.
    /// 7. `limit`: the connection has no seat. A name is then not resolved and so not judged at 6: who has no seat shall cost nothing.
    /// 8. `allow`.
    ///
    /// # Errors
    /// The reason, and what is known of the request.
    pub async fn decide(
        &self,
        client: IpAddr,
        seated: bool,
        head: impl Future<Output = Result<Request, Malformed>>,
    ) -> Result<(Request, Permit), Refused> {
        // 1. source
        let Some(source) = self.source(client) else {
            return Err(Refused { reason: Reason::Source, heard: Heard::Nothing, why: Why::Stranger, addresses: Vec::new() });
        };
        // 2. parse
        let request = match head.await {
            Ok(request) => request,
            Err(malformed) => {
                let heard = Heard::Malformed(malformed);
                return Err(Refused { reason: Reason::Parse, heard, why: Why::NoRequest, addresses: Vec::new() });
            }
        };
        let mut addresses = Vec::new();
        match self.judge(&request, seated, &mut addresses).await {
            Ok(addresses) => Ok((request, Permit { source, addresses })),
            Err((reason, why)) => Err(Refused { reason, heard: Heard::Request(Box::new(request)), why, addresses }),
        }
    }

    /// Rules 3 to 8; what addresses the destination has is left in `addresses`.
    async fn judge(&self, request: &Request, seated: bool, addresses: &mut Vec<IpAddr>) -> Result<Vec<Vetted>, (Reason, Why)> {
        // 3. method
        let (to, ports) = match &request.method {
            Method::Connect(to) => (to, &self.connect_ports),
            Method::Forward(forward) if !self.http_ports.is_empty() => (&forward.to, &self.http_ports),
            Method::Forward(_) | Method::Other(_) => return Err((Reason::Method, Why::Method)),
        };
        // 4. port
        if !ports.contains(to.port) {
            return Err((Reason::Port, Why::Port(to.port)));
        }
        // 5. name
        let named = self.name(&to.host).map_err(|why| (Reason::Name, why))?;
        // 6. address
        match &to.host {
            Host::Ip(ip) => addresses.push(*ip),
            Host::Name(name) if seated => *addresses = self.resolve(name).await?,
            Host::Name(_) => {}
        }
        let vetted = self.vet(addresses, to, named).map_err(|why| (Reason::Address, why))?;
        // 7. limit
        if !seated {
            return Err((Reason::Limit, Why::NoSeat));
        }
        // 8. allow
        Ok(vetted)
    }

    /// The entry of `allow_from` that lets the client in.
    pub fn source(&self, client: IpAddr) -> Option<IpNet> {
        let client = fold_mapped(client);
        self.allow_from.iter().find(|net| net.contains(&client)).copied()
    }

    /// Whether `allow_to` has the name.
    fn name(&self, host: &Host) -> Result<bool, Why> {
        let Host::Name(name) = host else { return Ok(false) };
        if let Some(rule) = self.deny_to.iter().find(|rule| rule.names(name)) {
            return Err(Why::NameDenied(rule.clone()));
        }
        let named = self.allow_to.iter().any(|rule| rule.names(name));
        // an entry that is a network may still let its addresses in
        let some_net = self.allow_to.iter().any(|rule| matches!(rule, Destination::Net(_)));
        if named || self.allow_to.is_empty() || some_net { Ok(named) } else { Err(Why::NameUnlisted) }
    }

    /// Every address that the name has now, in the families that can be dialled; the search list of `resolv.conf` is not followed,
    /// since the name that was judged must be the name that is asked for.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, (Reason, Why)> {
        let asked = tokio::time::Instant::now();
        let mut addresses = Vec::new();
        let mut failures = Vec::new();
        for (_, answer) in self.resolver.addresses(name, &self.families).await {
            match answer {
                Answer::Addresses(found) => addresses.extend(found),
                Answer::NoData | Answer::NxDomain => {}
                Answer::Failed(why) => failures.push(why),
            }
        }
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        // the resolver gives up by itself; its last question's time-out and the whole one's fall together
        let timed_out = asked.elapsed() >= self.resolver.limit().mul_f64(0.9);
        let reason = if timed_out { Reason::ResolveTimeout } else { Reason::Resolve };
        Err((reason, Why::Unresolved(failures.pop())))
    }

    /// Judges every address of a destination, `named` where `allow_to` has its name. One that is refused refuses them all. The first rule that matches decides:
    ///
    /// 1. refused: it, or an IPv4 address hidden in it, is in a network of `deny_to`;
    /// 2. refused: this process listens there;
    /// 3. refused: it, or an IPv4 address hidden in it, is special-purpose, and `allow_private` does not list it;
    /// 4. refused: `allow_to` has neither the name nor a network that holds it;
    /// 5. vetted.
    ///
    /// # Errors
    /// The rule, with the address that it refuses.
    pub fn vet(&self, addresses: &[IpAddr], to: &HostPort, named: bool) -> Result<Vec<Vetted>, Why> {
        addresses.iter().map(|ip| self.vet_one(*ip, to.port, named)).collect()
    }

    fn vet_one(&self, ip: IpAddr, port: u16, named: bool) -> Result<Vetted, Why> {
        let forms = address::forms(ip);
        let address = SocketAddr::new(fold_mapped(ip), port);
        // 1.
        if let Some(rule) = self.deny_to.iter().find(|rule| forms.iter().any(|form| rule.holds(*form))) {
            return Err(Why::AddressDenied(ip, rule.clone()));
        }
        // 2.
        if forms.iter().any(|form| self.own.answers_at(SocketAddr::new(*form, port), of_this_host)) {
            return Err(Why::Own(address));
        }
        // 3.
        if let Some(block) = address::refused(ip, &self.allow_private) {
            return Err(Why::Special(ip, block));
        }
        // 4.
        if named || self.allow_to.is_empty() || self.allow_to.iter().any(|rule| rule.holds(address.ip())) {
            // 5.
            return Ok(Vetted(address));
        }
        Err(Why::AddressUnlisted(ip))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::resolve::Resolver;

    fn policy() -> Policy {
        Policy {
            allow_from: vec!["10.0.0.0/8".parse().unwrap()],
            connect_ports: PortSet::parse(["443"]).unwrap(),
            http_ports: PortSet::default(),
            deny_to: vec![],
            allow_to: vec![],
            allow_private: vec![],
            own: Own::new([]),
            resolver: cached("127.0.0.1:1".parse().unwrap(), 300),
            families: vec![Family::V4],
        }
    }

    fn cached(server: SocketAddr, millis: u64) -> Cached {
        Cached::new(Resolver::At(server), Duration::from_millis(millis), 16)
    }

    fn rules(texts: &[&str]) -> Vec<Destination> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    async fn reason(policy: &Policy, client: &str, seated: bool, head: &str) -> Reason {
        let read = async { crate::proxy::request::read(&mut head.as_bytes(), 1024, Duration::from_secs(1)).await };
        match policy.decide(client.parse().unwrap(), seated, read).await {
            Ok(_) => Reason::Allow,
            Err(refused) => refused.reason,
        }
    }

    #[tokio::test]
    async fn the_first_rule_that_matches_decides() {
        let mut policy = policy();
        policy.deny_to = rules(&["denied.example"]);
        // each head is wrong in everything from its own rule on
        let cells = [
            ("192.0.2.1", false, "garbage\r\n\r\n", Reason::Source),
            ("10.0.0.1", false, "garbage\r\n\r\n", Reason::Parse),
            ("::ffff:10.0.0.1", false, "garbage\r\n\r\n", Reason::Parse),
            ("10.0.0.1", false, "GET 127.0.0.1:22 HTTP/1.1\r\n\r\n", Reason::Method),
            ("10.0.0.1", false, "CONNECT 127.0.0.1:22 HTTP/1.1\r\n\r\n", Reason::Port),
            ("10.0.0.1", false, "CONNECT denied.example:443 HTTP/1.1\r\n\r\n", Reason::Name),
            ("10.0.0.1", false, "CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n", Reason::Address),
            ("10.0.0.1", false, "CONNECT 1.1.1.1:443 HTTP/1.1\r\n\r\n", Reason::Limit),
            ("10.0.0.1", false, "CONNECT other.example:443 HTTP/1.1\r\n\r\n", Reason::Limit),
            ("10.0.0.1", true, "CONNECT 1.1.1.1:443 HTTP/1.1\r\n\r\n", Reason::Allow),
        ];
        for (client, seated, head, expected) in cells {
            assert_eq!(reason(&policy, client, seated, head).await, expected, "{client} {head:?}");
        }
        let failed = reason(&policy, "10.0.0.1", true, "CONNECT other.example:443 HTTP/1.1\r\n\r\n").await;
        assert_eq!(failed.label(), "resolve");
    }

    #[tokio::test]
    async fn absolute_form_is_served_on_its_own_ports_and_by_the_same_rules() {
        let mut policy = policy();
        let get = |to: &str| format!("GET http://{to}/ HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(reason(&policy, "10.0.0.1", true, &get("1.1.1.1")).await, Reason::Method, "none by default");
        policy.http_ports = PortSet::parse(["80", "8080"]).unwrap();
        policy.deny_to = rules(&[".denied.example"]);
        let cells = [
            (get("1.1.1.1"), Reason::Allow),
            (get("1.1.1.1:8080"), Reason::Allow),
            (get("1.1.1.1:443"), Reason::Port),
            ("CONNECT 1.1.1.1:80 HTTP/1.1\r\n\r\n".into(), Reason::Port),
            (get("a.denied.example"), Reason::Name),
            (get("A.DENIED.example."), Reason::Name),
            (get("169.254.169.254"), Reason::Address),
            (get("[::ffff:10.0.0.1]"), Reason::Address),
            (get("127.1"), Reason::Parse),
            (get("user@1.1.1.1"), Reason::Parse),
            ("GET / HTTP/1.1\r\nHost: 1.1.1.1\r\n\r\n".into(), Reason::Method),
            ("GET https://1.1.1.1/ HTTP/1.1\r\nHost: x\r\n\r\n".into(), Reason::Method),
            ("GET ftp://1.1.1.1/ HTTP/1.1\r\nHost: x\r\n\r\n".into(), Reason::Method),
            ("TRACE http://1.1.1.1/ HTTP/1.1\r\nHost: x\r\n\r\n".into(), Reason::Method),
            ("get http://1.1.1.1/ HTTP/1.1\r\nHost: x\r\n\r\n".into(), Reason::Method),
        ];
        for (head, expected) in cells {
            assert_eq!(reason(&policy, "10.0.0.1", true, &head).await, expected, "{head}");
        }
    }

    #[tokio::test]
    async fn a_stranger_is_refused_before_a_byte_is_read() {
        let never = std::future::poll_fn(|_| -> std::task::Poll<Result<Request, Malformed>> { panic!("the head was polled") });
        let refused = policy().decide("192.0.2.1".parse().unwrap(), true, never).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Source);
        assert!(matches!(refused.heard, Heard::Nothing));
    }

    fn vet(policy: &Policy, addresses: &[&str], named: bool) -> Result<Vec<String>, String> {
        let ips: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let vetted = policy.vet(&ips, &"a.example:443".parse().unwrap(), named);
        vetted.map(|v| v.iter().map(|v| v.address().to_string()).collect()).map_err(|why| why.to_string())
    }

    #[test]
    fn one_refused_address_refuses_the_whole_answer() {
        let policy = policy();
        assert_eq!(vet(&policy, &["1.1.1.1", "8.8.8.8"], false).unwrap(), ["1.1.1.1:443", "8.8.8.8:443"]);
        for bad in ["10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "fd00:ec2::254", "::1"] {
            let why = vet(&policy, &["1.1.1.1", bad], false).unwrap_err();
            assert!(why.starts_with(&format!("{} ", bad.parse::<IpAddr>().unwrap())), "{bad}: {why}");
            assert!(vet(&policy, &[bad, "1.1.1.1"], false).is_err(), "{bad}");
        }
        assert_eq!(vet(&policy, &["::ffff:1.1.1.1"], false).unwrap(), ["1.1.1.1:443"]);
    }

    const HUNDRED: [&str; 100] = ["1.1.1.1"; 100];
    const ROTTEN: [&str; 100] = {
        let mut all = HUNDRED;
        all[99] = "169.254.169.254";
        all
    };

    /// What a DNS server answers that was asked `before` times already: each name's addresses; `flip.test` has another after the first time.
    fn answer(query: &[u8], before: usize) -> Vec<u8> {
        let end = 12 + query[12..].iter().position(|b| *b == 0).unwrap() + 5;
        let v6 = query[end - 3] == 28;
        let name = String::from_utf8_lossy(&query[13..end - 5]).to_lowercase();
        let name = name.split('\u{4}').next().unwrap();
        let addresses: &[&str] = match (name, v6) {
            ("public" | "kept", false) => &["1.1.1.1", "8.8.8.8"],
            ("public", true) => &["2606:4700::1111"],
            ("mixed", false) => &["1.1.1.1", "10.0.0.1"],
            ("family", false) | ("mapped", false) => &["1.1.1.1"],
            ("family", true) => &["fd00:ec2::254"],
            ("mapped", true) => &["::ffff:169.254.169.254"],
            ("flip", false) if before == 0 => &["1.1.1.1"],
            ("flip", false) => &["127.0.0.1"],
            ("many", false) => &HUNDRED,
            ("rotten", false) => &ROTTEN,
            _ => &[],
        };
        let mut records = Vec::new();
        let mut count = addresses.len() as u8;
        if name == "alias" {
            // alias.test is inside.test, which is 10.0.0.7
            let inside = b"\x06inside\x04test\0";
            records.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, inside.len() as u8]);
            records.extend_from_slice(inside);
            let at = (end + 12) as u8;
            records.extend_from_slice(&[0xc0, at, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 7]);
            count = 2;
        }
        let lasts = if name == "kept" { 60 } else { 0 };
        for ip in addresses {
            let data = match ip.parse::<IpAddr>().unwrap() {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            records.extend_from_slice(&[0xc0, 12, 0, query[end - 3], 0, 1, 0, 0, 0, lasts, 0, data.len() as u8]);
            records.extend_from_slice(&data);
        }
        let mut whole = query[..end].to_vec();
        whole[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
        whole.extend_from_slice(&records);
        whole
    }

    /// A DNS server that counts the questions; what does not fit a datagram comes by TCP.
    async fn dns() -> (Cached, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = tcp.local_addr().unwrap();
        let udp = tokio::net::UdpSocket::bind(at).await.unwrap();
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, from) = udp.recv_from(&mut query).await.unwrap();
                let mut answer = answer(&query[..length], count.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
                if answer.len() > 512 {
                    answer.truncate(12 + query[12..length].iter().position(|b| *b == 0).unwrap() + 5);
                    answer[2] |= 0x02;
                    answer[7] = 0;
                }
                udp.send_to(&answer, from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; length.into()];
                        stream.read_exact(&mut query).await.unwrap();
                        let answer = answer(&query, 0);
                        stream.write_u16(answer.len() as u16).await.unwrap();
                        stream.write_all(&answer).await.unwrap();
                    }
                });
            }
        });
        (cached(at, 5000), asked)
    }

    #[tokio::test]
    async fn one_refused_address_in_dns_refuses_the_name_and_a_name_is_asked_for_once() {
        let (resolver, asked) = dns().await;
        let policy = Policy { resolver, families: Family::BOTH.to_vec(), ..policy() };
        let ask =
            async |policy: &Policy, host: &str| reason(policy, "10.0.0.1", true, &format!("CONNECT {host}:443 HTTP/1.1\r\n\r\n")).await;
        for (host, expected) in [
            ("public.test", Reason::Allow),
            ("mixed.test", Reason::Address),
            ("family.test", Reason::Address),
            ("mapped.test", Reason::Address),
            ("empty.test", Reason::Resolve),
            ("many.test", Reason::Allow),
            ("rotten.test", Reason::Address),
            ("alias.test", Reason::Address),
        ] {
            assert_eq!(ask(&policy, host).await, expected, "{host}");
        }
        // a family that is not dialled is not asked for, so what it holds does not matter
        let v4 = Policy { families: vec![Family::V4], ..policy };
        assert_eq!(ask(&v4, "family.test").await, Reason::Allow);

        let (resolver, flipping) = dns().await;
        let v4 = Policy { resolver, ..v4 };
        let head = "CONNECT flip.test:443 HTTP/1.1\r\n\r\n";
        let read = async { crate::proxy::request::read(&mut head.as_bytes(), 1024, Duration::from_secs(1)).await };
        let (_, permit) = v4.decide("10.0.0.1".parse().unwrap(), true, read).await.unwrap();
        assert_eq!(permit.addresses, [Vetted("1.1.1.1:443".parse().unwrap())], "what was judged is what is dialled");
        assert_eq!(flipping.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert_eq!(ask(&v4, "flip.test").await, Reason::Address);
        assert!(asked.load(std::sync::atomic::Ordering::SeqCst) >= 11);
    }

    #[tokio::test]
    async fn an_answer_is_kept_as_long_as_it_says_and_many_who_want_a_name_ask_once() {
        let (resolver, asked) = dns().await;
        let policy = Policy { resolver, ..policy() };
        let count = || asked.load(std::sync::atomic::Ordering::SeqCst);
        let head = |name: &str| format!("CONNECT {name}:443 HTTP/1.1\r\n\r\n");
        let (kept, short) = (head("kept.test"), head("public.test"));
        let reasons = futures_util::future::join_all((0..20).map(|_| reason(&policy, "10.0.0.1", true, &kept))).await;
        assert!(reasons.iter().all(|r| *r == Reason::Allow));
        assert_eq!(count(), 1, "twenty at once");
        assert_eq!(reason(&policy, "10.0.0.1", true, &kept).await, Reason::Allow);
        assert_eq!(count(), 1, "later");
        for asked_before in 1..3 {
            assert_eq!(count(), asked_before);
            assert_eq!(reason(&policy, "10.0.0.1", true, &short).await, Reason::Allow, "a TTL of 0 is not kept");
        }
        assert_eq!(count(), 3);
    }

    #[tokio::test]
    async fn a_resolver_that_is_silent_is_a_timeout() {
        let mute = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let policy = Policy { resolver: cached(mute.local_addr().unwrap(), 300), ..policy() };
        assert_eq!(reason(&policy, "10.0.0.1", true, "CONNECT a.test:443 HTTP/1.1\r\n\r\n").await, Reason::ResolveTimeout);
    }

    #[test]
    fn private_destinations_both_sides_of_allow_private() {
        let mut policy = policy();
        assert!(vet(&policy, &["10.1.0.0"], false).is_err());
        policy.allow_private = vec!["10.1.0.0/16".parse().unwrap()];
        assert!(vet(&policy, &["10.1.0.0"], false).is_ok());
        assert!(vet(&policy, &["::ffff:10.1.255.255"], false).is_ok());
        assert!(vet(&policy, &["10.2.0.0"], false).is_err());
    }

    #[test]
    fn own_listeners_are_refused_even_where_private_is_allowed() {
        let mut policy = policy();
        policy.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
        policy.own = Own::new(["127.0.0.1:443".parse().unwrap()]);
        assert!(vet(&policy, &["127.0.0.1"], false).is_err());
        assert!(vet(&policy, &["127.0.0.2"], false).is_ok());
        policy.own = Own::new(["0.0.0.0:443".parse().unwrap()]);
        assert!(vet(&policy, &["127.0.0.2"], false).is_err());
        policy.own = Own::new(["0.0.0.0:8443".parse().unwrap()]);
        assert!(vet(&policy, &["127.0.0.2"], false).is_ok());
    }

    #[test]
    fn deny_to_and_allow_to_for_addresses() {
        let mut policy = policy();
        policy.deny_to = rules(&["8.8.8.0/24", "a.example"]);
        assert!(vet(&policy, &["8.8.8.8"], true).is_err());
        assert!(vet(&policy, &["64:ff9b::808:808"], true).is_err());
        assert!(vet(&policy, &["8.8.4.4"], false).is_ok());
        policy.allow_to = rules(&["9.9.9.9", "b.example"]);
        assert!(vet(&policy, &["9.9.9.9"], false).is_ok());
        assert!(vet(&policy, &["9.9.9.10"], false).is_err());
        assert!(vet(&policy, &["9.9.9.10"], true).is_ok());
        assert!(vet(&policy, &["8.8.8.8"], true).is_err());
        assert!(vet(&policy, &["127.0.0.1"], true).is_err());
    }

    #[tokio::test]
    async fn names_are_judged_before_they_are_resolved() {
        let mut policy = policy();
        let ask =
            async |policy: &Policy, host: &str| reason(policy, "10.0.0.1", false, &format!("CONNECT {host}:443 HTTP/1.1\r\n\r\n")).await;
        policy.deny_to = rules(&[".bad.example.com"]);
        policy.allow_to = rules(&["exact.example", ".example.com"]);
        for host in ["exact.example", "EXACT.example.", "example.com", "a.b.example.com", "notbad.example.com"] {
            assert_eq!(ask(&policy, host).await, Reason::Limit, "{host}");
        }
        for host in ["a.exact.example", "xexample.com", "example.com.evil", "bad.example.com", "a.BAD.example.com.", "localhost"] {
            assert_eq!(ask(&policy, host).await, Reason::Name, "{host}");
        }
        assert_eq!(ask(&policy, "1.1.1.1").await, Reason::Address);
        policy.allow_to = rules(&["exact.example", "1.1.1.0/24"]);
        assert_eq!(ask(&policy, "other.example").await, Reason::Limit);
        assert_eq!(ask(&policy, "1.1.1.1").await, Reason::Limit);
        assert_eq!(ask(&policy, "1.1.2.1").await, Reason::Address);
    }
}

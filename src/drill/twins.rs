//! Twins: small servers that are open or closed on purpose, for as long as a drill lasts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Scene;
use crate::beacon::Beacon;
use crate::clock::Wall;
use crate::probe::Kind;
use crate::proxy::{LogTarget, Proxy, Settings};
use crate::target::{PortSet, parse_cidr};
use crate::token::Key;

/// Where the twins are.
const TWINS: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where the witnesses are: elsewhere, so that what keeps the twins out does not keep them out.
const WITNESSES: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// A TLS record with the fatal alert `handshake_failure` (RFC 5246 section 7.2).
const HANDSHAKE_FAILURE: &str = "\x15\x03\x03\x00\x02\x02\x28";
/// RCODE 3 (RFC 1035 section 4.1.1).
const NXDOMAIN: u8 = 3;
/// A record of the name that was asked for: A, IN, 1 s, 127.0.0.1.
const A_RECORD: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1];
/// The check that a twin of a peer tells of.
const THERE: &str = "there";

/// Every twin of one drill; they end with it.
pub(super) struct Twins {
    /// What serves them, ended when this is dropped.
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    /// Sockets that hold a port and do not listen: whoever tries it is refused, and nobody else can take it.
    closed: Vec<Socket>,
    alive: SocketAddr,
    dead: SocketAddr,
    key: Key,
}

/// What a twin does with a connection.
#[derive(Clone)]
enum Manner {
    /// It says nothing.
    Mute,
    /// It answers every request with this.
    Says(Arc<dyn Fn() -> String + Send + Sync>),
    /// It answers as Prometheus would to whom every series is this number.
    Counts(u8),
    /// It speaks TLS, and closes.
    Tls(TlsAcceptor),
}

impl Twins {
    /// The witnesses: one that is alive, and one that is not.
    pub(super) fn start(key: &Key) -> Result<Twins, String> {
        let (stop, _) = watch::channel(false);
        let nowhere = SocketAddr::from((WITNESSES, 0));
        let mut twins = Twins { tasks: JoinSet::new(), stop, closed: Vec::new(), alive: nowhere, dead: nowhere, key: key.clone() };
        twins.alive = twins.serve(WITNESSES, Manner::Mute)?;
        twins.dead = twins.refuse(WITNESSES, Type::STREAM)?;
        Ok(twins)
    }

    pub(super) fn alive(&self) -> SocketAddr {
        self.alive
    }

    pub(super) fn dead(&self) -> SocketAddr {
        self.dead
    }

    /// The twins of a kind: open, closed, and closed where nothing vouches for the way there.
    ///
    /// # Errors
    /// Why one could not be started.
    pub(super) async fn scenes(&mut self, kind: Kind) -> Result<Vec<Scene>, String> {
        match kind {
            Kind::Tcp => {
                let (open, closed) = (self.serve(TWINS, Manner::Mute)?, self.refuse(TWINS, Type::STREAM)?);
                Ok(inverted("tcp", &open.to_string(), &closed.to_string(), ""))
            }
            Kind::Tls => {
                let (open, closed) = (self.serve(TWINS, tls()?)?, self.serve(TWINS, says(|| HANDSHAKE_FAILURE.into()))?);
                Ok(inverted("tls", &open.to_string(), &closed.to_string(), ""))
            }
            Kind::Http => {
                let open = self.serve(TWINS, says(|| http("200 OK", "in")))?;
                let closed = self.serve(TWINS, says(|| http("403 Forbidden", "out")))?;
                Ok(inverted("http", &format!("http://{open}/"), &format!("http://{closed}/"), ""))
            }
            Kind::EgressIp => {
                let (beacon, mute) = (self.beacon()?, self.serve(TWINS, Manner::Mute)?);
                let expect = |ip: &str| format!("{{ ip = [\"{ip}\"] }}");
                let scene = |at: SocketAddr, ip| positive("egress-ip", &format!("http://{at}/"), &expect(ip), "");
                Ok(scenes(scene(beacon, "203.0.113.1"), scene(beacon, "127.0.0.1"), scene(mute, "127.0.0.1")))
            }
            Kind::Peer => {
                let violated = self.serve(TWINS, says(|| http("200 OK", &peer("violated"))))?;
                let holds = self.serve(TWINS, says(|| http("200 OK", &peer("holds"))))?;
                let mute = self.serve(TWINS, Manner::Mute)?;
                let scene = |at: SocketAddr| positive("peer", &format!("http://{at}"), "\"open\"", &format!("check = \"{THERE}\"\n"));
                Ok(scenes(scene(violated), scene(holds), scene(mute)))
            }
            Kind::PromQl => {
                let (zero, one) = (self.serve(TWINS, Manner::Counts(0))?, self.serve(TWINS, Manner::Counts(1))?);
                let mute = self.serve(TWINS, Manner::Mute)?;
                let scene = |at: SocketAddr| positive("promql", &format!("http://{at}"), "\"open\"", "query = \"there\"\n");
                Ok(scenes(scene(zero), scene(one), scene(mute)))
            }
            Kind::Ranges => {
                let list = |lines: &'static str| says(move || http("200 OK", lines));
                let other = self.serve(TWINS, list("203.0.113.0/25\n198.51.100.0/24\n"))?;
                let same = self.serve(TWINS, list("203.0.113.0/25\n203.0.113.128/25\n"))?;
                let mute = self.serve(TWINS, Manner::Mute)?;
                let scene = |at: SocketAddr| positive("ranges", &format!("http://{at}/"), "\"open\"", "expected = [\"203.0.113.0/24\"]\n");
                Ok(scenes(scene(other), scene(same), scene(mute)))
            }
            Kind::Udp => {
                let (open, closed) = (self.answers(TWINS, |question| Some(question.to_vec()))?, self.refuse(TWINS, Type::DGRAM)?);
                Ok(inverted("udp", &open.to_string(), &closed.to_string(), "payload = \"dns\"\n"))
            }
            Kind::Icmp => {
                // Every address of loopback answers an echo, so there is no closed one to be had without a firewall.
                let open = blocked("icmp", &TWINS.to_string(), "alive", "");
                Ok(vec![Scene { name: "open", check: open, expected: "violated" }])
            }
            Kind::Dns => {
                let open = self.answers(TWINS, |question| name_server(question, 0, A_RECORD))?;
                let closed = self.answers(TWINS, |question| name_server(question, NXDOMAIN, &[]))?;
                let check = |server: SocketAddr, witness: &str| {
                    let own = format!("server = \"{server}\"\nrecord = \"A\"\n");
                    blocked("dns", "twin.test", witness, &own)
                };
                Ok(scenes(check(open, "alive"), check(closed, "alive"), check(closed, "dead")))
            }
            Kind::Ports => {
                let (open, closed) = (self.serve(TWINS, Manner::Mute)?, self.refuse(TWINS, Type::STREAM)?);
                let sweep = |witness: &str, ports: &[u16]| blocked("ports", &TWINS.to_string(), witness, &format!("ports = {ports:?}\n"));
                let (both, alone) = ([open.port(), closed.port()], [closed.port()]);
                Ok(scenes(sweep("alive", &both), sweep("alive", &alone), sweep("dead", &alone)))
            }
            Kind::OpenProxy => {
                let beacon = self.beacon()?;
                let open = self.proxy(beacon, true).await?;
                let closed = self.proxy(beacon, false).await?;
                let own = format!("beacon = \"http://{beacon}/\"\ntechniques = [\"OP-01\"]\n");
                Ok(inverted("open-proxy", &open.to_string(), &closed.to_string(), &own))
            }
        }
    }

    /// A listener of that manner.
    fn serve(&mut self, ip: Ipv4Addr, manner: Manner) -> Result<SocketAddr, String> {
        let bound = std::net::TcpListener::bind((ip, 0)).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let listener = bound.map_err(|e| cannot("listen", ip, &e))?;
        let address = listener.local_addr().map_err(|e| cannot("listen", ip, &e))?;
        self.tasks.spawn(async move {
            let mut visits = JoinSet::new();
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    visits.spawn(attend(stream, manner.clone()));
                }
            }
        });
        Ok(address)
    }

    /// A UDP server that gives each datagram this answer, or none.
    fn answers(&mut self, ip: Ipv4Addr, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Result<SocketAddr, String> {
        let bound = std::net::UdpSocket::bind((ip, 0)).and_then(|socket| {
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        });
        let socket = bound.map_err(|e| cannot("listen", ip, &e))?;
        let address = socket.local_addr().map_err(|e| cannot("listen", ip, &e))?;
        self.tasks.spawn(async move {
            let mut datagram = [0; 2048];
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut datagram).await
                    && let Some(answer) = datagram.get(..length).and_then(&answer)
                {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Ok(address)
    }

    /// A port that refuses: it is taken, and nobody listens there. For datagrams it has a peer, and takes none from others, which the
    /// kernel tells them (udp(7)).
    fn refuse(&mut self, ip: Ipv4Addr, kind: Type) -> Result<SocketAddr, String> {
        let bind = || {
            let socket = Socket::new(Domain::IPV4, kind, None)?;
            socket.bind(&SocketAddr::from((ip, 0)).into())?;
            if kind == Type::DGRAM {
                socket.connect(&self.dead.into())?;
            }
            let address = socket.local_addr()?.as_socket();
            Ok((socket, address.ok_or(std::io::ErrorKind::AddrNotAvailable)?))
        };
        let (socket, address) = bind().map_err(|e: std::io::Error| cannot("take a port", ip, &e))?;
        self.closed.push(socket);
        Ok(address)
    }

    fn beacon(&mut self) -> Result<SocketAddr, String> {
        let beacon = Beacon::bind(vec![SocketAddr::from((TWINS, 0))], self.key.clone())?;
        let address = beacon.addresses().first().copied().ok_or("the beacon has no address")?;
        self.tasks.spawn(beacon.run(self.stop.subscribe(), Duration::ZERO));
        Ok(address)
    }

    /// The embedded proxy, for everybody here or for nobody.
    async fn proxy(&mut self, beacon: SocketAddr, open: bool) -> Result<SocketAddr, String> {
        let here = vec![parse_cidr("127.0.0.0/8")?];
        let settings = Settings {
            listen: vec![SocketAddr::from((TWINS, 0))],
            allow_from: if open { here.clone() } else { Vec::new() },
            connect_ports: PortSet::parse([beacon.port().to_string().as_str()])?,
            allow_private: here,
            access_log: LogTarget::File(PathBuf::from("/dev/null")),
            drain: Duration::ZERO,
            ..Settings::new()
        };
        let proxy = Proxy::bind(settings).await?;
        let address = proxy.addresses().first().copied().ok_or("the proxy has no address")?;
        self.tasks.spawn(proxy.run(self.stop.subscribe()));
        Ok(address)
    }
}

fn cannot(what: &str, ip: Ipv4Addr, error: &std::io::Error) -> String {
    format!("cannot {what} at {ip} for a twin: {error}; see `ulimit -n`, and whether loopback is up")
}

fn says(answer: impl Fn() -> String + Send + Sync + 'static) -> Manner {
    Manner::Says(Arc::new(answer))
}

async fn attend(mut stream: TcpStream, manner: Manner) {
    match manner {
        Manner::Mute => std::future::pending().await,
        Manner::Says(answer) => {
            // The head of a request of ours comes in one piece, and nothing in it matters here.
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer().as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Manner::Counts(number) => {
            let mut asked = [0; 4096];
            let length = stream.read(&mut asked).await.unwrap_or(0);
            // A range has a bracket, which is percent-encoded in a URL.
            let range = asked.get(..length).is_some_and(|asked| asked.windows(3).any(|w| w == b"%5B"));
            let _ = stream.write_all(http("200 OK", &prometheus(range, number)).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Manner::Tls(acceptor) => {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.shutdown().await;
            }
        }
    }
}

/// A TLS server with a certificate of its own making.
fn tls() -> Result<Manner, String> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).map_err(|e| e.to_string())?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?.with_no_client_auth();
    let config = builder.with_single_cert(vec![made.cert.der().clone()], key).map_err(|e| e.to_string())?;
    Ok(Manner::Tls(TlsAcceptor::from(Arc::new(config))))
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// The answer of a name server: the question again, the RCODE, and the record if there is one (RFC 1035 section 4.1).
fn name_server(question: &[u8], rcode: u8, record: &[u8]) -> Option<Vec<u8>> {
    let (id, rest) = (question.get(..2)?, question.get(12..)?);
    let name = rest.iter().position(|byte| *byte == 0)?;
    let asked = rest.get(..name + 5)?;
    let flags = [0x81, 0x80 | rcode, 0, 1, 0, u8::from(!record.is_empty()), 0, 0, 0, 0];
    Some([id, &flags, asked, record].concat())
}

/// What another monitor would say of its check just now.
fn peer(verdict: &str) -> String {
    let now = Wall::now().to_string();
    let run = serde_json::json!({ "name": THERE, "verdict": verdict, "started_at": now, "observations": [] });
    serde_json::json!({ "schema": 1, "vantage": "twin", "now": now, "checks": [run], "recent": [run] }).to_string()
}

/// What Prometheus would say of a series whose newest sample is of just now.
fn prometheus(range: bool, number: u8) -> String {
    let sample = serde_json::json!([Wall::now().unix_seconds(), number.to_string()]);
    let (kind, key, samples) = if range { ("matrix", "values", serde_json::json!([sample])) } else { ("vector", "value", sample) };
    let series = serde_json::json!({ "metric": {}, key: samples });
    serde_json::json!({ "status": "success", "data": { "resultType": kind, "result": [series] } }).to_string()
}

/// The three scenes, each with the lines of its check.
fn scenes(open: String, closed: String, dark: String) -> Vec<Scene> {
    let names = [("open", open, "violated"), ("closed", closed, "holds"), ("dark", dark, "unproven")];
    names.into_iter().map(|(name, check, expected)| Scene { name, check, expected }).collect()
}

fn inverted(kind: &str, open: &str, closed: &str, own: &str) -> Vec<Scene> {
    scenes(blocked(kind, open, "alive", own), blocked(kind, closed, "alive", own), blocked(kind, closed, "dead", own))
}

fn blocked(kind: &str, target: &str, witness: &str, own: &str) -> String {
    format!("kind = \"{kind}\"\ntarget = \"{target}\"\nexpect = \"blocked\"\nwitness = [\"{witness}\"]\n{own}")
}

fn positive(kind: &str, target: &str, expect: &str, own: &str) -> String {
    format!("kind = \"{kind}\"\ntarget = \"{target}\"\nexpect = {expect}\n{own}")
}

//! What does a tunnel cost? The embedded proxy beside Squid (with and without its access log), tinyproxy, HAProxy in TCP mode with splice, for bulk
//! a bare loop of splice(2) that does nothing else (`floor`: what the kernel alone takes), and no proxy at all, in turns, on loopback: processor a gigabyte and a tunnel, memory of an idle tunnel, latency, and how many stand at once.
//!
//! ```text
//! cargo bench --bench proxy                        five rounds of everything
//! cargo bench --bench proxy -- 3 bulk ours haproxy  three rounds, one task, two contestants
//! cargo bench --bench proxy -- before=PATH          another build of this program, too
//! cargo bench --bench proxy -- unpinned             proxy and load on all processors
//! ```
//!
//! The proxy has the first processor for itself, the load the others, unless there is only one. Processor time is user and system time of the proxy
//! and its children (proc_pid_stat(5)); memory is `Rss` of proc_pid_smaps(5). Every proxy starts anew for each measurement.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a measurement that is broken must stop")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Pid, SysconfVar, sysconf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// What each contestant is asked to do.
const TASKS: [&str; 5] = ["bulk", "setup", "pingpong", "idle", "most"];
/// Those that begin with `nlb-` stand behind HAProxy in TCP mode, which names their clients by PROXY v2.
const CONTESTANTS: [&str; 9] = ["ours", "squid", "squid-nolog", "tinyproxy", "haproxy", "floor", "direct", "nlb-ours", "nlb-squid"];
/// Bulk: so many tunnels at once, so much each way in each.
const BULK_TUNNELS: usize = 4;
const BULK_BYTES: u64 = 512 << 20;
/// Set-up: so many tunnels in all, so many at once.
const SETUPS: usize = 12_000;
const SETUPS_AT_ONCE: usize = 16;
const PINGS: usize = 10_000;
/// So many idle tunnels, and what is passed each way through each to warm it.
const IDLE: usize = 2000;
const WARM_BYTES: usize = 64 * 1024;
/// The limit of file descriptors, for all; and how many tunnels are asked for to see how many stand at once.
const DESCRIPTORS: u64 = 20_000;
const MOST: usize = 10_000;
const MOST_AT_ONCE: usize = 64;
const MOST_PATIENCE: Duration = Duration::from_secs(2);
/// One client address may have a quarter of all by default, so there are more of them.
const ADDRESSES: u8 = 8;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    // `cargo bench` passes `--bench`; what is left is ours
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["target"] => return target(),
        ["floor", at, to] => return floor(at, to),
        _ => {}
    }
    let mut bench = Bench { rounds: 5, tasks: vec![], contestants: vec![], before: None, pin: processors() > 1 };
    for argument in arguments {
        match argument.as_str() {
            "unpinned" => bench.pin = false,
            task if TASKS.contains(&task) => bench.tasks.push(argument),
            "before" => bench.contestants.push(argument),
            who if CONTESTANTS.contains(&who) => bench.contestants.push(argument),
            other => match other.strip_prefix("before=") {
                Some(path) => bench.before = Some(path.into()),
                None => {
                    bench.rounds =
                        other.parse().unwrap_or_else(|_| panic!("{other}: write how many rounds, one of {TASKS:?} or {CONTESTANTS:?}"))
                }
            },
        }
    }
    bench.run();
}

struct Bench {
    rounds: usize,
    tasks: Vec<String>,
    contestants: Vec<String>,
    before: Option<PathBuf>,
    pin: bool,
}

/// What one run came to: a figure by name.
type Figures = Vec<(&'static str, f64)>;

impl Bench {
    fn run(&self) {
        let mut contestants: Vec<&str> = CONTESTANTS.iter().copied().filter(|who| self.has(&self.contestants, who)).collect();
        contestants.retain(|who| match installed(who) {
            Ok(version) => {
                println!("{who}: {version}");
                true
            }
            Err(why) => {
                println!("SKIPPED {who}: {why}");
                false
            }
        });
        if self.before.is_some() && self.has(&self.contestants, "before") {
            contestants.insert(0, "before");
        }
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let limit = hard.min(DESCRIPTORS);
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit).unwrap();
        println!("file descriptors: {limit} each");
        self.pin_to(Part::Load);
        let mut target = Command::new(std::env::current_exe().unwrap()).arg("target").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(target.stdout.take().unwrap()), &mut line).unwrap();
        let (port, mut runs): (u16, u8) = (line.trim().parse().unwrap(), 0);
        let _target = Target(target);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let whose = if self.pin { "the proxy has one processor, the load the rest" } else { "all share all processors" };
        println!("{} rounds in turns; {whose}; median (least to most)\n", self.rounds);
        for task in TASKS.into_iter().filter(|task| self.has(&self.tasks, task)) {
            let mut all: BTreeMap<&str, Vec<Figures>> = BTreeMap::new();
            // how many stand is no matter of chance
            for _ in 0..if task == "most" { 1 } else { self.rounds } {
                for &who in &contestants {
                    let has_no_part = match who {
                        "direct" => matches!(task, "idle" | "most"),
                        "floor" => task != "bulk",
                        "tinyproxy" => task == "most",
                        _ => false,
                    };
                    if has_no_part {
                        continue;
                    }
                    // an address a run: what an earlier one left in TIME-WAIT must not cost this one the search for a port
                    runs = runs.wrapping_add(1);
                    let to = SocketAddr::from(([127, 0, 2, runs], port));
                    let dir = tempfile::tempdir().unwrap();
                    self.pin_to(Part::Proxy);
                    let proxy = Running::start(who, self.before.as_deref(), to, dir.path());
                    self.pin_to(Part::Load);
                    let figures = runtime.block_on(async {
                        match task {
                            "bulk" => bulk(&proxy).await,
                            "setup" => setup(&proxy).await,
                            "pingpong" => pingpong(&proxy).await,
                            "idle" => idle(&proxy).await,
                            _ => most(&proxy).await,
                        }
                    });
                    all.entry(who).or_default().push(figures);
                }
            }
            told(task, &contestants, &all);
        }
    }

    fn has(&self, chosen: &[String], what: &str) -> bool {
        chosen.is_empty() || chosen.iter().any(|c| c == what)
    }

    /// The processors of what this thread starts from now on, and of itself.
    fn pin_to(&self, part: Part) {
        if !self.pin {
            return;
        }
        let mut set = CpuSet::new();
        match part {
            Part::Proxy => set.set(0).unwrap(),
            Part::Load => (1..processors()).for_each(|at| set.set(at).unwrap()),
        }
        sched_setaffinity(Pid::from_raw(0), &set).unwrap();
    }
}

enum Part {
    Proxy,
    Load,
}

fn processors() -> usize {
    let set = sched_getaffinity(Pid::from_raw(1)).or_else(|_| sched_getaffinity(Pid::from_raw(0))).unwrap();
    (0..CpuSet::count()).filter(|at| set.is_set(*at).unwrap()).count()
}

fn installed(who: &str) -> Result<String, String> {
    let (program, flag) = match who {
        "ours" => (env!("CARGO_BIN_EXE_mustnot"), "--version"),
        "nlb-ours" | "nlb-squid" => ("haproxy", "-v"),
        "squid" | "squid-nolog" => ("squid", "-v"),
        "tinyproxy" => ("tinyproxy", "-v"),
        "haproxy" => ("haproxy", "-v"),
        "floor" => return Ok("splice(2) and nothing else".into()),
        _ => return Ok("no proxy at all".into()),
    };
    let said = Command::new(program).arg(flag).output().map_err(|e| format!("{program}: {e}; install it"))?;
    Ok(String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or_default().into())
}

/// Figures of all rounds, as a table, with the ratios to those that others are measured by.
fn told(task: &str, contestants: &[&str], all: &BTreeMap<&str, Vec<Figures>>) {
    println!("## {task}");
    let Some(first) = all.values().next() else { return };
    for (at, (name, _)) in first[0].iter().enumerate() {
        let sorted = |who: &str| -> Option<Vec<f64>> {
            let mut values: Vec<f64> = all.get(who)?.iter().map(|figures| figures[at].1).collect();
            values.sort_by(f64::total_cmp);
            Some(values)
        };
        let median = |who: &str| sorted(who).map(|values| values[values.len() / 2]);
        println!("{name}");
        for who in contestants {
            let (Some(values), Some(middle)) = (sorted(who), median(who)) else { continue };
            let ratio = |to: &str| median(to).filter(|m| *m > 0.0).map_or(String::new(), |m| format!("  {:6.2} of {to}", middle / m));
            let span = format!("({:.2} to {:.2})", values[0], values[values.len() - 1]);
            println!("  {who:>12} {middle:12.2}  {span:<24}{}{}", ratio("squid"), ratio("haproxy") + &ratio("direct"));
        }
    }
    println!();
}

/// An address of loopback that nobody has.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Where tunnels lead; gone at the end, however that comes.
struct Target(Child);

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A proxy that runs, or none.
struct Running {
    /// Where clients connect.
    at: SocketAddr,
    /// What they ask for; none where they are led there anyway.
    ask: Option<SocketAddr>,
    child: Option<Child>,
    /// The load balancer before it, whose processor and memory are not the proxy's.
    front: Option<Target>,
}

impl Running {
    fn start(who: &str, before: Option<&Path>, to: SocketAddr, dir: &Path) -> Running {
        let Some(behind) = who.strip_prefix("nlb-") else { return Running::alone(who, before, to, dir, false) };
        let mut running = Running::alone(behind, before, to, dir, true);
        let (at, file) = (free(), dir.join("nlb"));
        let words = format!(
            "defaults\n mode tcp\n option splice-request\n option splice-response\n timeout connect 10s\n timeout client 300s\n timeout server 300s\nlisten front\n bind {at}\n server proxy {} send-proxy-v2\n",
            running.at
        );
        std::fs::write(&file, words).unwrap();
        let child = Command::new("haproxy").args(["-db", "-q", "-f"]).arg(&file).stdin(Stdio::null()).spawn().unwrap();
        running.front = Some(Target(child));
        running.at = at;
        running.wait(who);
        running
    }

    /// Without a load balancer; whether one is to come, whose PROXY header is then asked for.
    fn alone(who: &str, before: Option<&Path>, to: SocketAddr, dir: &Path, behind: bool) -> Running {
        if who == "direct" {
            return Running { at: to, ask: None, child: None, front: None };
        }
        let at = free();
        let (file, shown) = (dir.join("conf"), dir.display());
        let (conf, mut command) = match who {
            "ours" | "before" => {
                let conf = format!(
                    "vantage = \"bench\"\n[proxy]\nlisten = [\"{at}\"]\nallow_from = [\"127.0.0.0/8\"]\nallow_private = [\"127.0.0.0/8\"]\nconnect_ports = [{}]\naccess_log = \"{shown}/access.log\"\n{}",
                    to.port(),
                    if behind { "proxy_protocol_from = [\"127.0.0.0/8\"]\n" } else { "" }
                );
                let program = before.filter(|_| who == "before").unwrap_or(Path::new(env!("CARGO_BIN_EXE_mustnot")));
                let mut command = Command::new(program);
                command.arg("--config").arg(&file).arg("proxy");
                (conf, command)
            }
            "squid" | "squid-nolog" => {
                let log = if who == "squid" { format!("daemon:{shown}/access.log squid") } else { "none".into() };
                let header = if behind { " require-proxy-header\nproxy_protocol_access allow all" } else { "" };
                let conf = format!(
                    "http_port {at}{header}\nacl here src 127.0.0.0/8\nacl CONNECT method CONNECT\nacl ports port {}\nhttp_access deny !CONNECT\n\
                     http_access deny !ports\nhttp_access allow here\nhttp_access deny all\naccess_log {log}\ncache_log {shown}/cache.log\n\
                     pid_filename none\ncoredump_dir {shown}\ncache deny all\npinger_enable off\nnetdb_filename none\nvisible_hostname bench\n\
                     shutdown_lifetime 0 seconds\nmax_filedescriptors 20000\n",
                    to.port()
                );
                let mut command = Command::new("squid");
                command.arg("-N").arg("-f").arg(&file);
                (conf, command)
            }
            "floor" => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg("floor").arg(at.to_string()).arg(to.to_string());
                (String::new(), command)
            }
            "tinyproxy" => {
                let conf = format!(
                    "Listen 127.0.0.1\nPort {}\nTimeout 600\nMaxClients 10000\nLogFile \"{shown}/access.log\"\nLogLevel Connect\nAllow 127.0.0.0/8\nConnectPort {}\n",
                    at.port(),
                    to.port()
                );
                let mut command = Command::new("tinyproxy");
                command.arg("-d").arg("-c").arg(&file);
                (conf, command)
            }
            _ => {
                let conf = format!(
                    "defaults\n mode tcp\n option splice-request\n option splice-response\n timeout connect 10s\n timeout client 300s\n timeout server 300s\nlisten front\n bind {at}\n server target {to}\n"
                );
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(&file);
                (conf, command)
            }
        };
        std::fs::write(&file, conf).unwrap();
        // Squid gives up being root, and must still write its log
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir, open).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let ask = (!matches!(who, "haproxy" | "floor")).then_some(to);
        let running = Running { at, ask, child: Some(child), front: None };
        running.wait(&format!("{who}, whose configuration was {}", std::fs::read_to_string(&file).unwrap()));
        running
    }

    fn wait(&self, who: &str) {
        let begun = Instant::now();
        while std::net::TcpStream::connect(self.at).is_err() {
            assert!(begun.elapsed() < PATIENCE, "nobody listens: {who}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One tunnel, through which the target was told what to do.
    async fn tunnel(&self, from: u8, order: &[u8]) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if from != 0 {
            let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true);
            socket.bind((Ipv4Addr::new(127, 0, 1, from), 0).into())?;
        }
        let mut stream = socket.connect(self.at).await?;
        stream.set_nodelay(true)?;
        if let Some(to) = self.ask {
            stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: bench\r\n\r\n").as_bytes()).await?;
            let (mut head, mut byte) = (Vec::new(), [0; 256]);
            while !head.ends_with(b"\r\n\r\n") {
                let count = stream.read(&mut byte).await?;
                head.extend_from_slice(&byte[..count]);
                if count == 0 {
                    break;
                }
            }
            if !head.starts_with(b"HTTP/1.1 200 ") && !head.starts_with(b"HTTP/1.0 200 ") {
                return Err(std::io::Error::other(String::from_utf8_lossy(&head).into_owned()));
            }
        }
        stream.write_all(order).await?;
        Ok(stream)
    }

    fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.child.iter().map(Child::id).collect();
        let mut at = 0;
        while let Some(pid) = pids.get(at) {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            pids.extend(children.split_whitespace().map(|c| c.parse::<u32>().unwrap()));
            at += 1;
        }
        pids
    }

    /// Seconds of the processor so far.
    fn cpu(&self) -> f64 {
        let hertz = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as f64;
        let ticks = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            // the name may hold anything; user and system time are the 12th and 13th field behind it
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
        };
        self.pids().iter().map(ticks).sum::<f64>() / hertz
    }

    /// Bytes of memory.
    fn rss(&self) -> f64 {
        let of = |pid: &u32| {
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
            let line = rollup.lines().find(|line| line.starts_with("Rss:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
        };
        self.pids().iter().map(of).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.front = None;
        if let Some(child) = &mut self.child {
            let _ = nix::sys::signal::kill(Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM);
            let begun = Instant::now();
            while child.try_wait().unwrap().is_none() {
                if begun.elapsed() > Duration::from_secs(3) {
                    let _ = child.kill();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Relays from `at` to `to` by blocking splice(2), a thread a direction: no less can be done by who moves bytes from socket to socket.
fn floor(at: &str, to: &str) {
    let way = |from: std::net::TcpStream, to: std::net::TcpStream| {
        let (out, into) = nix::unistd::pipe().unwrap();
        let _ = nix::fcntl::fcntl(&into, nix::fcntl::FcntlArg::F_SETPIPE_SZ(512 * 1024));
        let moved = |from: std::os::fd::BorrowedFd<'_>, to: std::os::fd::BorrowedFd<'_>, most| {
            nix::fcntl::splice(from, None, to, None, most, nix::fcntl::SpliceFFlags::empty()).unwrap_or(0)
        };
        use std::os::fd::AsFd as _;
        loop {
            let mut held = moved(from.as_fd(), into.as_fd(), 512 * 1024);
            if held == 0 {
                let _ = to.shutdown(std::net::Shutdown::Write);
                return;
            }
            while held > 0 {
                match moved(out.as_fd(), to.as_fd(), held) {
                    0 => return,
                    count => held -= count,
                }
            }
        }
    };
    for client in std::net::TcpListener::bind(at).unwrap().incoming() {
        let (client, server) = (client.unwrap(), std::net::TcpStream::connect(to).unwrap());
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let (c, s) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || way(c, s));
        std::thread::spawn(move || way(server, client));
    }
}

/// Gigabytes each way, through a few tunnels.
async fn bulk(proxy: &Running) -> Figures {
    let (cpu, begun) = (proxy.cpu(), Instant::now());
    let down = async |_| {
        let mut stream = proxy.tunnel(0, &order(b'd', BULK_BYTES)).await.unwrap();
        let (mut buffer, mut left) = (vec![0; 256 * 1024], BULK_BYTES);
        while left > 0 {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "all bytes come");
            left -= count as u64;
        }
    };
    let up = async |_| {
        let mut stream = proxy.tunnel(0, &order(b'u', BULK_BYTES)).await.unwrap();
        let buffer = vec![7; 256 * 1024];
        for _ in 0..BULK_BYTES / buffer.len() as u64 {
            stream.write_all(&buffer).await.unwrap();
        }
        assert_eq!(stream.read_u8().await.unwrap(), b'!');
    };
    (0..BULK_TUNNELS).map(down).collect::<FuturesUnordered<_>>().collect::<Vec<()>>().await;
    (0..BULK_TUNNELS).map(up).collect::<FuturesUnordered<_>>().collect::<Vec<()>>().await;
    let gigabytes = 2.0 * BULK_TUNNELS as f64 * BULK_BYTES as f64 / 1e9;
    vec![("processor ms a GB", (proxy.cpu() - cpu) * 1e3 / gigabytes), ("Gbit/s", gigabytes * 8.0 / begun.elapsed().as_secs_f64())]
}

/// Tunnels that are opened, carry a byte each way, and close.
async fn setup(proxy: &Running) -> Figures {
    let one = async |_| {
        let begun = Instant::now();
        let mut stream = proxy.tunnel(0, b"e.").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'.');
        begun.elapsed().as_secs_f64() * 1e6
    };
    stream::iter(0..200).map(one).buffer_unordered(SETUPS_AT_ONCE).collect::<Vec<_>>().await;
    let (cpu, begun) = (proxy.cpu(), Instant::now());
    let mut took: Vec<f64> = stream::iter(0..SETUPS).map(one).buffer_unordered(SETUPS_AT_ONCE).collect().await;
    let wall = begun.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    vec![
        ("processor us a tunnel", (proxy.cpu() - cpu) * 1e6 / SETUPS as f64),
        ("tunnels a second", SETUPS as f64 / wall),
        ("p50 us", took[SETUPS / 2]),
        ("p99 us", took[SETUPS * 99 / 100]),
    ]
}

/// 64 bytes there and back, one after the other.
async fn pingpong(proxy: &Running) -> Figures {
    let stream = proxy.tunnel(0, b"e").await.unwrap();
    let mut stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    let (mut took, mut pong) = (Vec::with_capacity(PINGS), [0; 64]);
    let mut cpu = 0.0;
    for at in 0..PINGS + 500 {
        if at == 500 {
            cpu = proxy.cpu();
        }
        let begun = Instant::now();
        stream.write_all(&[b'p'; 64]).unwrap();
        stream.read_exact(&mut pong).unwrap();
        if at >= 500 {
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    let cpu = proxy.cpu() - cpu;
    took.sort_by(f64::total_cmp);
    vec![("p50 us", took[PINGS / 2]), ("p99 us", took[PINGS * 99 / 100]), ("processor us a round trip", cpu * 1e6 / PINGS as f64)]
}

/// Tunnels in which nothing happens, before and after something did.
async fn idle(proxy: &Running) -> Figures {
    let open = async |at: usize| {
        let mut stream = proxy.tunnel((at % usize::from(ADDRESSES)) as u8 + 1, b"e.").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'.');
        stream
    };
    let warm = async |mut stream: TcpStream| {
        let (mut read, mut write) = stream.split();
        let (bytes, mut back) = (vec![7; WARM_BYTES], vec![0; WARM_BYTES]);
        let (sent, got) = tokio::join!(write.write_all(&bytes), read.read_exact(&mut back));
        sent.and(got).unwrap();
        stream
    };
    // code and what is allocated once is not the tunnels'
    let first: Vec<TcpStream> = stream::iter(0..64).map(open).buffer_unordered(SETUPS_AT_ONCE).collect().await;
    let first: Vec<TcpStream> = stream::iter(first).map(warm).buffer_unordered(SETUPS_AT_ONCE).collect().await;
    drop(first);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let none = proxy.rss();
    let all: Vec<TcpStream> = stream::iter(0..IDLE).map(open).buffer_unordered(SETUPS_AT_ONCE).collect().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let cold = proxy.rss();
    let all: Vec<TcpStream> = stream::iter(all).map(warm).buffer_unordered(SETUPS_AT_ONCE).collect().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let warmed = proxy.rss();
    let cpu = proxy.cpu();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let cpu = proxy.cpu() - cpu;
    drop(all);
    vec![
        ("bytes an idle tunnel, cold", (cold - none) / IDLE as f64),
        ("bytes an idle tunnel, after 64 KiB each way", (warmed - none) / IDLE as f64),
        ("processor ms a second, 2000 idle", cpu * 1e3 / 10.0),
    ]
}

/// As many as it lets stand at once, each of which is then asked to answer.
async fn most(proxy: &Running) -> Figures {
    let open = async |at: usize| {
        let opened = proxy.tunnel((at % usize::from(ADDRESSES)) as u8 + 1, b"e");
        tokio::time::timeout(MOST_PATIENCE, opened).await.ok()?.ok()
    };
    let opened: Vec<Option<TcpStream>> = stream::iter(0..MOST).map(open).buffer_unordered(MOST_AT_ONCE).collect().await;
    let ask = async |mut stream: TcpStream| {
        let asked = async {
            stream.write_all(b"?").await?;
            stream.read_u8().await
        };
        let answered = matches!(tokio::time::timeout(MOST_PATIENCE, asked).await, Ok(Ok(b'?')));
        (stream, answered)
    };
    let opened = stream::iter(opened.into_iter().flatten());
    let asked: Vec<(TcpStream, bool)> = opened.map(ask).buffer_unordered(MOST_AT_ONCE).collect().await;
    let answered = asked.iter().filter(|(_, answered)| *answered).count();
    vec![("tunnels that stand at once, each answered", answered as f64), ("MB of memory with them", proxy.rss() / 1e6)]
}

fn order(what: u8, bytes: u64) -> Vec<u8> {
    [&[what][..], &bytes.to_be_bytes()].concat()
}

/// Does what the first byte of each connection says: `e` echoes, `d` sends, `u` reads and then says so.
fn target() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let listener: TcpListener = socket.listen(4096).unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(serve(stream));
        }
    });
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let what = stream.read_u8().await?;
    if what == b'e' {
        // read and written in turns, so that an idle connection has no buffer here
        let mut buffer = Vec::new();
        loop {
            stream.readable().await?;
            buffer.resize(16 * 1024, 0);
            match stream.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => stream.write_all(&buffer[..count]).await?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            buffer = Vec::new();
        }
    }
    let mut left = stream.read_u64().await?;
    let mut buffer = vec![7; 256 * 1024];
    while left > 0 {
        let most = left.min(256 * 1024) as usize;
        let moved = if what == b'd' { stream.write(&buffer[..most]).await? } else { stream.read(&mut buffer[..most]).await? };
        if moved == 0 {
            return Ok(());
        }
        left -= moved as u64;
    }
    if what == b'u' { stream.write_all(b"!").await } else { Ok(()) }
}

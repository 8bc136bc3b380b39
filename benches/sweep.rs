//! How fast, and how dear, is a sweep of 65,535 ports of one host that refuses? Ours by SYN beside `nmap -sS -T5`, ours by
//! connect beside a bare epoll connect loop, in turns, between two network namespaces on this machine.
//!
//! ```text
//! cargo bench --bench sweep            five rounds; needs root, iproute2, and nmap for the first pair
//! cargo bench --bench sweep -- 15      fifteen
//! ```
//!
//! Processor time is that of the process, user and system (getrusage(2)). Over a veth pair the kernel handles much of what
//! the target does in the sender's time; that is so for all of them.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a measurement that is broken must stop")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use mustnot::net::sweep::{Job, Method, News, Slice, run};
use mustnot::observation::Outcome;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{UsageWho, getrusage};
use socket2::{Domain, Protocol, Socket, Type};

const TARGET: &str = "10.99.0.2";
const OPEN: u16 = 8080;
const PORTS: std::ops::RangeInclusive<u16> = 1..=65_535;

fn main() {
    // `cargo bench` passes `--bench`; what is left is ours.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("target") => target(),
        Some("syn") => ours(Method::Syn),
        Some("connect") => ours(Method::Connect),
        Some("bare") => bare(),
        rounds => measure(rounds.map_or(5, |n| n.parse().unwrap_or_else(|_| panic!("{n}: write how many rounds")))),
    }
}

/// One open port, for ever; all others refuse.
fn target() {
    let listener = TcpListener::bind(("0.0.0.0", OPEN)).unwrap();
    println!("ready");
    for stream in listener.incoming() {
        drop(stream);
    }
}

/// Our sweep, without the witnesses and the verdict around it: one attempt a port, as fast as it goes.
fn ours(method: Method) {
    let ip: IpAddr = TARGET.parse().unwrap();
    let controls = if method == Method::Syn { vec![SocketAddr::new(ip, OPEN)] } else { vec![] };
    let ports = PORTS.filter(|port| *port != OPEN).collect();
    let job =
        Job { slices: vec![Slice { ip, ports }], source: None, attempts: 1, timeout: Duration::from_secs(5), rate: 1_000_000, controls };
    let (news, mut told) = tokio::sync::mpsc::unbounded_channel();
    run(&job, &news, &AtomicBool::new(false));
    let Ok(News::Slice(swept)) = told.try_recv() else { panic!("no slice") };
    assert_eq!(swept.method, method);
    let refused = swept.passes.iter().flatten().filter(|seen| **seen == Some(Outcome::Refused)).count();
    assert_eq!(refused, 65_534);
}

/// The least that a connect sweep can do: a socket, a connect, an event, its error.
fn bare() {
    const OPEN_AT_ONCE: usize = 512;
    let ip: IpAddr = TARGET.parse().unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let mut events = vec![EpollEvent::empty(); 256];
    let mut open: Vec<Option<Socket>> = Vec::new();
    let mut free: Vec<usize> = (0..OPEN_AT_ONCE).collect();
    open.resize_with(OPEN_AT_ONCE, || None);
    let (mut ports, mut refused) = (PORTS.filter(|port| *port != OPEN), 0);
    let mut left = true;
    while left || free.len() < OPEN_AT_ONCE {
        while let Some(at) = free.pop() {
            let Some(port) = ports.next() else {
                left = false;
                free.push(at);
                break;
            };
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP)).unwrap();
            let _ = socket.connect(&SocketAddr::new(ip, port).into());
            let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLERR;
            epoll.add(socket.as_fd(), EpollEvent::new(flags, at as u64)).unwrap();
            open[at] = Some(socket);
        }
        let count = epoll.wait(&mut events, EpollTimeout::from(100_u16)).unwrap();
        for event in &events[..count] {
            let at = event.data() as usize;
            let error = open[at].take().unwrap().take_error().unwrap();
            refused += usize::from(error.is_some_and(|e| e.raw_os_error() == Some(libc::ECONNREFUSED)));
            free.push(at);
        }
    }
    assert_eq!(refused, 65_534);
}

/// Two namespaces with a cable between them; gone again at the end.
struct World {
    names: [String; 2],
    target: Option<Child>,
}

impl World {
    fn new() -> World {
        let names = ["here", "there"].map(|side| format!("sweep{}-{side}", std::process::id()));
        let [here, there] = &names;
        let world = World { names: names.clone(), target: None };
        ip(&format!("netns add {here}"));
        ip(&format!("netns add {there}"));
        ip(&format!("link add eth0 netns {here} type veth peer name eth0 netns {there}"));
        for (name, address) in [(here, "10.99.0.1/24"), (there, "10.99.0.2/24")] {
            ip(&format!("-n {name} addr add {address} dev eth0"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set eth0 up"));
        }
        world
    }

    fn inside(&self, side: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[side]]);
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut target) = self.target.take() {
            let _ = target.kill();
            let _ = target.wait();
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// What one run took: on the clock, and of the processor.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
}

fn children() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn time(command: &mut Command) -> Took {
    let (cpu, began) = (children(), Instant::now());
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    Took { wall: began.elapsed().as_secs_f64(), cpu: children() - cpu }
}

fn measure(rounds: usize) {
    let has_nmap = Command::new("nmap").arg("--version").output().is_ok_and(|done| done.status.success());
    if !has_nmap {
        println!("SKIPPED: nmap is not installed, so SYNs are measured against nobody");
    }
    let me = std::env::current_exe().unwrap();
    let mut world = World::new();
    let mut target = world.inside(1).arg(&me).arg("target").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(target.stdout.take().unwrap()), &mut line).unwrap();
    world.target = Some(target);

    let mut took: BTreeMap<&str, Vec<Took>> = BTreeMap::new();
    for _ in 0..rounds {
        for name in ["syn", "nmap", "connect", "bare"] {
            let mut command = world.inside(0);
            match name {
                "nmap" if !has_nmap => continue,
                "nmap" => command.args(["nmap", "-sS", "-T5", "-n", "-Pn", "-p1-65535", TARGET]),
                ours => command.arg(&me).arg(ours),
            };
            took.entry(name).or_default().push(time(&mut command));
        }
    }

    println!("65,535 ports of a host that refuses, one attempt a port, {rounds} rounds in turns; median (least to most)");
    for (name, runs) in &took {
        println!("{name:>8}  {}  {}", shown("time", runs, |t| t.wall), shown("processor", runs, |t| t.cpu));
    }
    for (ours, other) in [("syn", "nmap"), ("connect", "bare")] {
        if let (Some(ours_took), Some(other_took)) = (took.get(ours), took.get(other)) {
            let ratio = |of: fn(&Took) -> f64| median(ours_took, of) / median(other_took, of);
            println!("{ours} / {other}: time {:.2}, processor {:.2}", ratio(|t| t.wall), ratio(|t| t.cpu));
        }
    }
}

fn sorted(runs: &[Took], of: fn(&Took) -> f64) -> Vec<f64> {
    let mut all: Vec<f64> = runs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all
}

fn median(runs: &[Took], of: fn(&Took) -> f64) -> f64 {
    let all = sorted(runs, of);
    all[all.len() / 2]
}

fn shown(what: &str, runs: &[Took], of: fn(&Took) -> f64) -> String {
    let all = sorted(runs, of);
    format!("{what} {:.3} s ({:.3} to {:.3})", median(runs, of), all[0], all[all.len() - 1])
}

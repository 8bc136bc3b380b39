//! By SYNs of our own, over raw sockets (raw(7), CAP_NET_RAW): no file descriptor a port, and the kernel keeps nothing of it.
//!
//! - Each SYN's sequence number is a keyed hash of its two ends: an answer counts only if it acknowledges that very number,
//!   an ICMP error only if it quotes it. Nobody who has not seen the SYN can forge one.
//! - Each pass has a source port of its own, kept by a socket that is really bound to it and does nothing else. So no other
//!   program can be given the port, no answer can be meant for anybody else, and the kernel, which knows no connection
//!   there, answers a SYN-ACK with an RST. That RST may be lost in a rule of this host, so another one is sent from here.
//! - A packet filter in the kernel (bpf(4) as in socket(7), SO_ATTACH_FILTER) lets only answers to those ports through.
//! - What is lost is sent again: three SYNs an attempt. And nothing is believed that was seen with closed eyes: a port that a
//!   real connect found open must answer our SYN too, before the first slice and after each.
//! - What does not end a handshake of the kernel's ends none of ours: after a soft ICMP error the next SYN may get through.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::agenda::{Agenda, Try};
use super::ledger::Ledger;
use super::packet::{ACK, Notice, Packet, RST, Reply, SYN, parse_icmp4, parse_icmp6, parse_tcp4, parse_tcp6, reset, syn};
use super::{Bucket, Job, SPACING, SYNS};
use crate::clock::{Moment, Wall};
use crate::net::{connect, failure, ip_of, own_addresses};
use crate::observation::{Evidence, Icmp, Outcome};

/// Packets that are sent, and at most taken in, between two looks at the clock: fewer than a receive queue holds.
const BATCH: usize = 128;
/// Bytes of a received packet that are looked at: headers with all their options.
const SEEN: usize = 192;
/// What the receive queue should hold, in bytes.
const QUEUE: usize = 4 << 20;
/// The SYNs of an attempt leave as those of Linux do (RFC 6298): after 1 s, and after 2 s more.
const WAITS: [Duration; 2] = [SPACING, Duration::from_secs(2)];
/// How often a full send queue is waited for.
const PATIENCE: usize = 50;
/// The longest sleep: a sweep that nobody waits for any more must notice.
const NAP: Duration = Duration::from_millis(100);
/// How long a control is waited for, and how often it is asked.
const CONTROL_WAIT: Duration = Duration::from_millis(700);
const CONTROL_SYNS: u32 = 4;
/// Slices that are over wait this long for others, so that one look at a control serves all.
const GATHERING: Duration = Duration::from_millis(500);

/// Raw sockets of one family, and the ports that answers come to.
pub(super) struct Wire {
    v6: bool,
    out: Socket,
    segments: Socket,
    errors: Socket,
    /// Keep the source ports.
    _held: Vec<Socket>,
    /// One a pass, and one for controls.
    ports: Vec<u16>,
    source: Option<IpAddr>,
    key: RandomState,
    /// For timestamps (RFC 7323).
    epoch: Instant,
}

/// A way to an address: our own address on it, or why there is none.
type Way = Result<IpAddr, Box<Evidence>>;

impl Wire {
    /// The sockets; none where this process may not have them, or has nothing to prove them by.
    pub(super) fn open(job: &Job) -> Option<Wire> {
        let v6 = job.slices.first()?.ip.is_ipv6();
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let raw = |protocol: i32| {
            let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(Protocol::from(protocol))).ok()?;
            if let Some(source) = job.source {
                socket.bind(&SocketAddr::new(source, 0).into()).ok()?;
            }
            Some(socket)
        };
        // IPPROTO_RAW: what is sent has its IP header, so that the checksum is over the very address that it leaves from.
        let out = raw(libc::IPPROTO_RAW)?;
        let held: Option<Vec<Socket>> = (0..=job.attempts).map(|_| hold(domain, job.source)).collect();
        let held = held?;
        let port = |socket: &Socket| Some(socket.local_addr().ok()?.as_socket()?.port());
        let ports: Vec<u16> = held.iter().filter_map(port).collect();
        let segments = raw(libc::IPPROTO_TCP)?;
        segments.attach_filter(&segment_filter(v6, &ports)).ok()?;
        let errors = raw(if v6 { libc::IPPROTO_ICMPV6 } else { libc::IPPROTO_ICMP })?;
        errors.attach_filter(&error_filter(v6, &ports)).ok()?;
        for socket in [&segments, &errors] {
            // Beyond the host's usual limit where we may; what the queue loses is asked again.
            if setsockopt(socket, sockopt::RcvBufForce, &QUEUE).is_err() {
                let _ = socket.set_recv_buffer_size(QUEUE);
            }
        }
        let complete = ports.len() == job.attempts + 1;
        let wire =
            Wire { v6, out, segments, errors, _held: held, ports, source: job.source, key: RandomState::new(), epoch: Instant::now() };
        complete.then_some(wire)
    }

    /// A control that answers our SYNs; none where none does.
    pub(super) fn sees(&self, controls: &[SocketAddr], stopped: &AtomicBool) -> Option<SocketAddr> {
        controls.iter().filter(|to| to.is_ipv6() == self.v6).find(|to| self.answers(**to, stopped, &mut Vec::new())).copied()
    }

    /// Whether somebody answers our SYN there with a SYN-ACK; what else comes in is kept in `others`.
    fn answers(&self, to: SocketAddr, stopped: &AtomicBool, others: &mut Vec<Reply>) -> bool {
        let (Ok(from), Some(port)) = (self.way(to), self.ports.last()) else { return false };
        let from = SocketAddr::new(from, *port);
        let cookie = self.cookie(from, to);
        for _ in 0..CONTROL_SYNS {
            if self.send_one(to, &syn(from, to, cookie, self.stamp())).is_err() {
                return false;
            }
            let until = Instant::now() + CONTROL_WAIT;
            while Instant::now() < until && !stopped.load(Ordering::Relaxed) {
                let mut found = false;
                self.receive(&self.segments, |sender, bytes| match self.segment(sender, bytes) {
                    Some(r) if r.port == *port => found |= r.from == to && is_answer(&r, cookie) && r.flags & SYN != 0,
                    other => others.extend(other),
                });
                if found {
                    let _ = self.send_one(to, &reset(from, to, cookie.wrapping_add(1)));
                    return true;
                }
                self.wait(until.saturating_duration_since(Instant::now()).min(NAP));
            }
        }
        false
    }

    /// The address that the kernel would send from: a datagram socket knows it without sending anything (udp(7)).
    fn way(&self, to: SocketAddr) -> Way {
        let local = |call: &'static str, error: std::io::Error| {
            let detail = connect::explain_local(call, to, self.source, &error);
            Box::new(Evidence { errno: Some(failure::name(&error)), detail: Some(detail), ..Evidence::default() })
        };
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None).map_err(|e| local("socket", e))?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into()).map_err(|e| local("bind", e))?;
        }
        socket.connect(&to.into()).map_err(|e| local("connect", e))?;
        let from = socket.local_addr().map_err(|e| local("getsockname", e))?;
        from.as_socket().map(|a| a.ip()).ok_or_else(Box::default)
    }

    /// The sequence number of our SYN from here to there: 32 bits of a keyed hash (SipHash).
    fn cookie(&self, from: SocketAddr, to: SocketAddr) -> u32 {
        self.key.hash_one((from, to)) as u32
    }

    fn stamp(&self) -> u32 {
        self.epoch.elapsed().as_millis() as u32
    }

    fn segment(&self, sender: Option<IpAddr>, bytes: &[u8]) -> Option<Reply> {
        if self.v6 { parse_tcp6(sender?, bytes) } else { parse_tcp4(bytes) }
    }

    fn notice(&self, sender: Option<IpAddr>, bytes: &[u8]) -> Option<Notice> {
        if self.v6 { parse_icmp6(sender?, bytes) } else { parse_icmp4(bytes) }
    }

    fn send_one(&self, to: SocketAddr, packet: &Packet) -> std::io::Result<()> {
        self.out.send_to(packet.bytes(), &SocketAddr::new(to.ip(), 0).into()).map(drop)
    }

    /// Sends all of them, as far as the host lets us; gives the places and errors of those that it did not.
    fn send(&self, packets: &[(SocketAddr, Packet)], headers: &mut MultiHeaders<SockaddrStorage>) -> Vec<(usize, Errno)> {
        let addresses: Vec<Option<SockaddrStorage>> =
            packets.iter().map(|(to, _)| Some(SockaddrStorage::from(SocketAddr::new(to.ip(), 0)))).collect();
        let slices: Vec<[IoSlice<'_>; 1]> = packets.iter().map(|(_, packet)| [IoSlice::new(packet.bytes())]).collect();
        let (mut done, mut failed, mut waited) = (0, Vec::new(), 0);
        while let (Some(slices), Some(addresses)) = (slices.get(done..), addresses.get(done..))
            && !slices.is_empty()
        {
            match sendmmsg(self.out.as_raw_fd(), headers, slices, addresses, [], MsgFlags::empty()) {
                Ok(sent) => done += sent.count().max(1),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS) if waited < PATIENCE => {
                    waited += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(errno) => {
                    failed.push((done, errno));
                    done += 1;
                }
            }
        }
        failed
    }

    /// Hands over what has come in, at most one batch; tells how much that was.
    fn receive(&self, socket: &Socket, mut each: impl FnMut(Option<IpAddr>, &[u8])) -> usize {
        let mut buffers = [[0_u8; SEEN]; BATCH];
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let mut parts: Vec<[IoSliceMut<'_>; 1]> = buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
        let Ok(messages) = recvmmsg(socket.as_raw_fd(), &mut headers, parts.iter_mut(), MsgFlags::MSG_DONTWAIT, None) else { return 0 };
        let received: Vec<(usize, Option<IpAddr>)> = messages.map(|m| (m.bytes, m.address.as_ref().and_then(ip_of))).collect();
        for (buffer, (length, sender)) in buffers.iter().zip(&received) {
            each(*sender, buffer.get(..(*length).min(SEEN)).unwrap_or_default());
        }
        received.len()
    }

    /// Sleeps until something comes in, at most so long.
    fn wait(&self, longest: Duration) {
        let mut fds = [PollFd::new(self.segments.as_fd(), PollFlags::POLLIN), PollFd::new(self.errors.as_fd(), PollFlags::POLLIN)];
        let wait = u16::try_from(longest.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        let _ = poll(&mut fds, PollTimeout::from(wait));
    }

    /// Sweeps until all is over or `stopped`; `control` is what answered our SYNs before.
    pub(super) fn sweep(self, job: &Job, control: SocketAddr, ledger: Ledger<'_>, stopped: &AtomicBool) {
        let attempts = ledger.slots() * job.attempts;
        // A time-out too short for three SYNs a second apart still has three: silence is then no block, but a fact.
        let three = WAITS.iter().sum::<Duration>();
        let short = job.timeout < three;
        let waits = if short { [job.timeout / SYNS; 2] } else { WAITS };
        let grace = if short { job.timeout / SYNS } else { (job.timeout - three).max(SPACING) };
        let sweeper = Sweeper {
            job,
            control,
            agenda: Agenda::new(ledger.slots(), job.attempts),
            ledger,
            sent: vec![0; attempts],
            ways: HashMap::new(),
            again: [VecDeque::new(), VecDeque::new()],
            waits,
            overdue: VecDeque::new(),
            soft: HashMap::new(),
            grace,
            own: own_addresses(),
            wire: &self,
        };
        sweeper.run(stopped);
    }
}

/// A socket that keeps a port: bound, and neither listening nor connected.
fn hold(domain: Domain, source: Option<IpAddr>) -> Option<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).ok()?;
    let any = if domain == Domain::IPV6 { IpAddr::from([0_u16; 8]) } else { IpAddr::from([0_u8; 4]) };
    socket.bind(&SocketAddr::new(source.unwrap_or(any), 0).into()).ok()?;
    Some(socket)
}

/// Whether it acknowledges our SYN and nothing else, and says yes or no (RFC 9293 section 3.10.7.3).
fn is_answer(reply: &Reply, cookie: u32) -> bool {
    reply.flags & ACK != 0 && reply.flags & (SYN | RST) != 0 && reply.acknowledged == cookie.wrapping_add(1)
}

/// An error that Linux does not take for the end of a handshake (since 6.9: 3/0 and 3/1, ICMPv6 1/0): the way may come back while
/// the SYN is sent again (RFC 1122 section 4.2.3.9, RFC 6069).
fn is_soft(notice: &Notice) -> bool {
    let (kind, codes) = if notice.to.is_ipv6() { (1, 0..=0) } else { (3, 0..=1) };
    notice.kind == kind && codes.contains(&notice.code)
}

fn step(code: u32, jt: u8, jf: u8, k: u32) -> SockFilter {
    SockFilter::new(code as u16, jt, jf, k)
}

/// Ends a filter: one of the ports is in the accumulator, or the packet is not for us.
fn one_of(ports: &[u16], filter: &mut Vec<SockFilter>) {
    for (at, port) in ports.iter().enumerate() {
        let to_accept = u8::try_from(ports.len() - at).unwrap_or(0);
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to_accept, 0, u32::from(*port)));
    }
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, 0));
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::from(u16::MAX)));
}

/// Segments with SYN or RST to one of the ports. A raw IPv4 socket sees the IP header, a raw IPv6 socket does not.
fn segment_filter(v6: bool, ports: &[u16]) -> Vec<SockFilter> {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET};
    let from = if v6 { BPF_ABS } else { BPF_IND };
    let mut filter = Vec::new();
    if !v6 {
        filter.push(step(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0));
    }
    filter.push(step(BPF_LD | BPF_B | from, 0, 0, 13));
    filter.push(step(BPF_JMP | BPF_JSET | BPF_K, 1, 0, u32::from(SYN | RST)));
    filter.push(step(BPF_RET | BPF_K, 0, 0, 0));
    filter.push(step(BPF_LD | BPF_H | from, 0, 0, 2));
    one_of(ports, &mut filter);
    filter
}

/// ICMP messages that quote a TCP segment from one of the ports.
fn error_filter(v6: bool, ports: &[u16]) -> Vec<SockFilter> {
    use libc::{BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_LSH};
    use libc::{BPF_MISC, BPF_MSH, BPF_RET, BPF_TAX, BPF_X};
    const TCP: u32 = 6;
    let not_tcp = [step(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, TCP), step(BPF_RET | BPF_K, 0, 0, 0)];
    let mut filter = Vec::new();
    if v6 {
        // 8 bytes of ICMPv6, then the quoted header of 40.
        filter.push(step(BPF_LD | BPF_B | BPF_ABS, 0, 0, 8 + 6));
        filter.extend(not_tcp);
        filter.push(step(BPF_LD | BPF_H | BPF_ABS, 0, 0, 8 + 40));
    } else {
        // Our header, 8 bytes of ICMP, then the quoted header, as long as it says.
        filter.push(step(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0));
        filter.push(step(BPF_LD | BPF_B | BPF_IND, 0, 0, 8 + 9));
        filter.extend(not_tcp);
        filter.push(step(BPF_LD | BPF_B | BPF_IND, 0, 0, 8));
        filter.push(step(BPF_ALU | BPF_AND | BPF_K, 0, 0, 0xf));
        filter.push(step(BPF_ALU | BPF_LSH | BPF_K, 0, 0, 2));
        filter.push(step(BPF_ALU | BPF_ADD | BPF_X, 0, 0, 0));
        filter.push(step(BPF_MISC | BPF_TAX, 0, 0, 0));
        filter.push(step(BPF_LD | BPF_H | BPF_IND, 0, 0, 8));
    }
    one_of(ports, &mut filter);
    filter
}

/// One sweep under way.
struct Sweeper<'a> {
    job: &'a Job,
    wire: &'a Wire,
    control: SocketAddr,
    ledger: Ledger<'a>,
    agenda: Agenda,
    /// SYNs that each attempt has sent, pass by pass.
    sent: Vec<u8>,
    ways: HashMap<IpAddr, Way>,
    /// Who is to be sent a second, and who a third SYN, and when.
    again: [VecDeque<(Instant, Try)>; 2],
    waits: [Duration; 2],
    /// Who was sent his last SYN, and is waited for until then.
    overdue: VecDeque<(Instant, Try)>,
    /// The last soft ICMP error of an attempt, by its number: its answer, where no other comes.
    soft: HashMap<usize, Notice>,
    grace: Duration,
    own: Vec<IpAddr>,
}

impl Sweeper<'_> {
    fn run(mut self, stopped: &AtomicBool) {
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let mut bucket = Bucket::new(self.job.rate, Instant::now());
        let mut vouched = Instant::now();
        while !stopped.load(Ordering::Relaxed) {
            let now = Instant::now();
            let room = bucket.ready(now, BATCH);
            let batch = self.batch(room, now);
            bucket.take(batch.len());
            let asked = !batch.is_empty();
            self.ask(batch, &mut headers);
            let heard = self.hear();
            self.give_up(Instant::now());
            if !self.ledger.holds_back() {
                if self.ledger.is_done() {
                    return;
                }
                vouched = now;
            } else if self.ledger.is_done() || now.saturating_duration_since(vouched) >= GATHERING {
                self.vouch(stopped);
                vouched = Instant::now();
            }
            if !asked && !heard {
                self.wire.wait(self.nap(now, &bucket));
            }
        }
    }

    /// The SYNs that may go now: those that go again before those that are the first of their attempt.
    fn batch(&mut self, room: usize, now: Instant) -> Vec<(Try, SocketAddr, SocketAddr)> {
        let mut batch = Vec::with_capacity(room);
        let mut clocks = None;
        while batch.len() < room {
            let due = |queue: &VecDeque<(Instant, Try)>| queue.front().is_some_and(|(at, _)| *at <= now);
            let again = self.again.iter().rposition(due).and_then(|at| self.again.get_mut(at)?.pop_front());
            let one = match again {
                Some((_, one)) => one,
                None => match self.agenda.begin(now) {
                    Some(one) => one,
                    None => break,
                },
            };
            if self.ledger.is_over(one) {
                continue;
            }
            let Some(to) = self.ledger.target(one.slot) else { continue };
            if again.is_none() {
                self.ledger.begin(one.slot, *clocks.get_or_insert_with(|| (Moment::now(), Wall::now())));
            }
            let way = self.ways.entry(to.ip()).or_insert_with(|| self.wire.way(to));
            match (way, self.wire.ports.get(usize::from(one.pass))) {
                (Ok(from), Some(port)) => {
                    self.ledger.from(one.slot, *from);
                    batch.push((one, SocketAddr::new(*from, *port), to));
                }
                (Err(evidence), _) => self.ledger.end(one, Outcome::LocalError, evidence),
                (Ok(_), None) => {}
            }
        }
        batch
    }

    fn ask(&mut self, batch: Vec<(Try, SocketAddr, SocketAddr)>, headers: &mut MultiHeaders<SockaddrStorage>) {
        if batch.is_empty() {
            return;
        }
        let stamp = self.wire.stamp();
        let packet = |(_, from, to): &(Try, SocketAddr, SocketAddr)| (*to, syn(*from, *to, self.wire.cookie(*from, *to), stamp));
        let packets: Vec<(SocketAddr, Packet)> = batch.iter().map(packet).collect();
        let failed = self.wire.send(&packets, headers);
        let sent = Instant::now();
        for (at, (one, _, to)) in batch.into_iter().enumerate() {
            if let Some((_, errno)) = failed.iter().find(|(place, _)| *place == at) {
                let error = std::io::Error::from(*errno);
                let detail = connect::explain_local("sendmmsg", to, self.job.source, &error);
                let evidence = Evidence { errno: Some(failure::name(&error)), detail: Some(detail), ..Evidence::default() };
                self.ledger.end(one, Outcome::LocalError, &evidence);
                continue;
            }
            let number = self.ledger.number(one);
            let Some(count) = self.sent.get_mut(number) else { continue };
            *count += 1;
            let at = usize::from(*count) - 1;
            match (self.again.get_mut(at), self.waits.get(at)) {
                (Some(queue), Some(wait)) => queue.push_back((sent + *wait, one)),
                _ => self.overdue.push_back((sent + self.grace, one)),
            }
        }
    }

    /// Takes in what has come; tells whether there was anything.
    fn hear(&mut self) -> bool {
        let (mut segments, mut notices) = (Vec::new(), Vec::new());
        let wire = self.wire;
        let mut heard = wire.receive(&wire.segments, |sender, bytes| segments.extend(wire.segment(sender, bytes)));
        if segments.len() < BATCH / 2 {
            heard += wire.receive(&wire.errors, |sender, bytes| notices.extend(wire.notice(sender, bytes)));
        }
        for reply in segments {
            self.take_reply(&reply);
        }
        for notice in notices {
            self.take_notice(&notice);
        }
        heard > 0
    }

    /// The attempt that went from our port to that address, and our own end of it.
    fn attempt(&self, port: u16, to: SocketAddr) -> Option<(Try, SocketAddr)> {
        let pass = self.wire.ports.iter().take(self.job.attempts).position(|p| *p == port)?;
        let Some(Ok(from)) = self.ways.get(&to.ip()) else { return None };
        let one = Try { slot: self.ledger.slot_of(to)?, pass: u8::try_from(pass).ok()? };
        Some((one, SocketAddr::new(*from, port)))
    }

    fn sent(&self, one: Try) -> u32 {
        self.sent.get(self.ledger.number(one)).map_or(0, |n| u32::from(*n))
    }

    fn take_reply(&mut self, reply: &Reply) {
        let Some((one, from)) = self.attempt(reply.port, reply.from) else { return };
        let cookie = self.wire.cookie(from, reply.from);
        if !is_answer(reply, cookie) || self.sent(one) == 0 {
            return;
        }
        if reply.flags & RST != 0 {
            let evidence = Evidence { syns_sent: Some(self.sent(one)), ..Evidence::default() };
            self.ledger.end(one, Outcome::Refused, &evidence);
            return;
        }
        // Whether or not the kernel does the same: the other side must not wait for us.
        let _ = self.wire.send_one(reply.from, &reset(from, reply.from, cookie.wrapping_add(1)));
        self.ledger.open(one, Some(from), Moment::now());
    }

    fn take_notice(&mut self, notice: &Notice) {
        let Some((one, from)) = self.attempt(notice.port, notice.to) else { return };
        if notice.sequence != self.wire.cookie(from, notice.to) || self.sent(one) == 0 {
            return;
        }
        if is_soft(notice) && !self.ledger.is_over(one) {
            self.soft.insert(self.ledger.number(one), *notice);
            return;
        }
        self.end_by(one, from.ip(), notice);
    }

    /// An ICMP error is the answer.
    fn end_by(&mut self, one: Try, from: IpAddr, notice: &Notice) {
        let ours = notice.sender.is_loopback() || notice.sender == from || self.own.contains(&notice.sender);
        let icmp = Icmp { kind: notice.kind, code: notice.code, sender: Some(notice.sender), ours, soft: false };
        let outcome = failure::of_icmp(&icmp, self.wire.v6);
        let detail = ours.then(|| {
            format!(
                "this host itself answered with ICMP {}/{} for {}: its own firewall, or a next hop that does not answer ARP or ND; \
                 look at `nft list ruleset` and `ip neigh`",
                icmp.kind, icmp.code, notice.to
            )
        });
        let evidence = Evidence { icmp: vec![icmp], detail, syns_sent: Some(self.sent(one)), ..Evidence::default() };
        self.ledger.end(one, outcome, &evidence);
    }

    fn give_up(&mut self, now: Instant) {
        while let Some((_, one)) = self.overdue.pop_front_if(|(due, _)| *due <= now) {
            let soft = self.soft.remove(&self.ledger.number(one));
            if self.ledger.is_over(one) {
                continue;
            }
            match soft.and_then(|notice| Some((self.attempt(notice.port, notice.to)?.1, notice))) {
                Some((from, notice)) => self.end_by(one, from.ip(), &notice),
                None => {
                    let evidence = Evidence { syns_sent: Some(self.sent(one)), ..Evidence::default() };
                    self.ledger.end(one, Outcome::Timeout, &evidence);
                }
            }
        }
    }

    /// Looks whether our eyes are open still, and lets the slices go that are over.
    fn vouch(&mut self, stopped: &AtomicBool) {
        let since = Moment::now();
        let (wire, mut others) = (self.wire, Vec::new());
        let family = self.control.is_ipv6();
        let controls = self.job.controls.iter().filter(|to| to.is_ipv6() == family && **to != self.control);
        let sees = std::iter::once(&self.control).chain(controls).any(|to| wire.answers(*to, stopped, &mut others));
        others.iter().for_each(|reply| self.take_reply(reply));
        if sees {
            return self.ledger.vouch(since, None);
        }
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        // Where no connect gets through either, the controls are gone and not our eyes: their own witnesses will know.
        let controls: Vec<SocketAddr> = self.job.controls.iter().filter(|to| to.is_ipv6() == family).copied().collect();
        let why = connects(&controls, self.job.source, self.job.timeout)
            .map(|open| format!("SYNs of our own find {open} closed, and a connect finds it open: something on this side keeps them back"));
        self.ledger.vouch(since, why.as_deref());
    }

    /// How long nothing will happen of itself.
    fn nap(&self, now: Instant, bucket: &Bucket) -> Duration {
        let again = self.again.iter().filter_map(|queue| queue.front()).map(|(at, _)| *at);
        let begin = self.agenda.next_due(now);
        let sends = again.chain(begin).min().map(|at| at.max(bucket.next()));
        let next = sends.into_iter().chain(self.overdue.front().map(|(at, _)| *at)).min();
        next.map_or(NAP, |next| next.saturating_duration_since(now)).min(NAP)
    }
}

/// The first of them that a real connect gets through to, each having as long.
fn connects(to: &[SocketAddr], source: Option<IpAddr>, within: Duration) -> Option<SocketAddr> {
    let until = Instant::now() + within;
    let mut waiting: Vec<(SocketAddr, Socket)> = to.iter().filter_map(|to| Some((*to, connect::start(*to, source).ok()?))).collect();
    while !waiting.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds: Vec<PollFd<'_>> = waiting.iter().map(|(_, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLOUT)).collect();
        let _ = poll(&mut fds, PollTimeout::from(u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX)));
        let over: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let mut over = over.into_iter();
        let is_open = |socket: &Socket| socket.take_error().is_ok_and(|error| error.is_none()) && socket.peer_addr().is_ok();
        // Who has answered is open, or out.
        let (answered, silent): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|_| over.next().unwrap_or(true));
        if let Some((open, _)) = answered.into_iter().find(|(_, socket)| is_open(socket)) {
            return Some(open);
        }
        waiting = if left.is_zero() { Vec::new() } else { silent };
    }
    None
}

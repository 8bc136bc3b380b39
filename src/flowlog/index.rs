//! Index: the attempts that a log may be about, found by five-tuple, by our own address and port, or by nonce.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::Settings;
use crate::clock::Wall;
use crate::defence::By;
use crate::observation::Transport;
use crate::target::fold_mapped;

/// The most attempts that are kept: ten thousand checks of three attempts every 30 s, for three minutes; of three hundred checks, for two hours.
pub const MAX_SHOTS: usize = 200_000;
/// AWS writes down when a packet was captured or, up to a minute later, when that was noticed.
const LATE: i64 = 60_000;
/// Hexadecimal digits by which a nonce is known; a beacon's has more behind them.
pub const NONCE: usize = 32;

/// One attempt of one observation, as it left this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    /// What carried it.
    pub protocol: Transport,
    /// Our own address and port.
    pub local: SocketAddr,
    /// Where it went.
    pub remote: SocketAddr,
    /// Before its first packet.
    pub started: Wall,
    /// After its last event.
    pub ended: Wall,
    /// The number that it alone sent.
    pub nonce: Option<String>,
}

/// What a line says of who sent what to whom, and when; times in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Trace {
    /// IANA's number.
    pub protocol: u8,
    /// The source, by its addresses.
    pub source: ([Option<IpAddr>; 2], u16),
    /// The destination, the same.
    pub destination: ([Option<IpAddr>; 2], u16),
    /// The earliest and the latest.
    pub when: (i64, i64),
}

/// An attempt that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit<T> {
    /// Whose it is.
    pub whose: T,
    /// By what it was found.
    pub by: By,
    /// It is about an answer.
    pub back: bool,
    /// Found by a translated address.
    pub translated: bool,
    /// The source was, as the log has it, an address that only the world outside has.
    pub from_outside: bool,
    /// The interface is one on the way, such as a NAT gateway's: the packet is for another address than the interface has.
    pub on_the_way: bool,
}

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<T> {
    /// No attempt is meant.
    Nothing,
    /// This one.
    One(T),
    /// Several could be, so none is.
    Several,
}

#[derive(Debug)]
struct Kept<T> {
    shot: Shot,
    whose: T,
}

/// Attempts, the oldest of which give way to new ones; `T` says whose they are.
#[derive(Debug)]
pub struct Index<T> {
    settings: Settings,
    kept: VecDeque<Kept<T>>,
    /// The number of the oldest that is kept.
    first: u64,
    by_flow: HashMap<(u8, SocketAddr, SocketAddr), Vec<(u64, bool)>>,
    by_client: HashMap<SocketAddr, Vec<(u64, bool)>>,
    by_nonce: HashMap<[u8; NONCE], u64>,
    /// How many of those kept have this local port.
    ports: Vec<u32>,
    /// How many had to go before their time.
    pub crowded_out: u64,
}

impl<T: Copy + PartialEq> Index<T> {
    /// None yet.
    pub fn new(settings: Settings) -> Index<T> {
        Index {
            settings,
            kept: VecDeque::new(),
            first: 0,
            by_flow: HashMap::new(),
            by_client: HashMap::new(),
            by_nonce: HashMap::new(),
            ports: vec![0; usize::from(u16::MAX) + 1],
            crowded_out: 0,
        }
    }

    /// How to read and match.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Keeps one more. What has no port of ours cannot be told from what others send, and is not kept.
    pub fn push(&mut self, shot: Shot, whose: T) {
        if shot.local.port() == 0 || shot.protocol == Transport::Icmp {
            return;
        }
        if self.kept.len() >= MAX_SHOTS {
            self.crowded_out += 1;
            self.drop_oldest();
        }
        let number = self.first + self.kept.len() as u64;
        for (source, destination, translated) in self.ways(&shot) {
            self.by_flow.entry((iana(shot.protocol), source, destination)).or_default().push((number, translated));
        }
        for (source, translated) in self.names(shot.local) {
            self.by_client.entry(source).or_default().push((number, translated));
        }
        if let Some(nonce) = shot.nonce.as_deref().and_then(key) {
            self.by_nonce.insert(nonce, number);
        }
        if let Some(count) = self.ports.get_mut(usize::from(shot.local.port())) {
            *count += 1;
        }
        self.kept.push_back(Kept { shot, whose });
    }

    /// Forgets all that ended before.
    pub fn forget_before(&mut self, when: Wall) {
        while self.kept.front().is_some_and(|kept| kept.shot.ended < when) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(Kept { shot, .. }) = self.kept.pop_front() else { return };
        let number = self.first;
        self.first += 1;
        for (source, destination, _) in self.ways(&shot) {
            forget(&mut self.by_flow, &(iana(shot.protocol), source, destination), number);
        }
        for (source, _) in self.names(shot.local) {
            forget(&mut self.by_client, &source, number);
        }
        if let Some(nonce) = shot.nonce.as_deref().and_then(key)
            && self.by_nonce.get(&nonce) == Some(&number)
        {
            self.by_nonce.remove(&nonce);
        }
        if let Some(count) = self.ports.get_mut(usize::from(shot.local.port())) {
            *count = count.saturating_sub(1);
        }
    }

    /// Every pair of addresses that a log may have for a shot.
    fn ways(&self, shot: &Shot) -> Vec<(SocketAddr, SocketAddr, bool)> {
        let (sources, destinations) = (self.names(shot.local), self.names(shot.remote));
        sources.iter().flat_map(|(s, a)| destinations.iter().map(move |(d, b)| (*s, *d, *a || *b))).collect()
    }

    /// Every address that a log may have for one of ours, and whether it is a translated one.
    fn names(&self, address: SocketAddr) -> Vec<(SocketAddr, bool)> {
        let ip = fold_mapped(address.ip());
        let others = self.settings.translated.iter().filter(|(from, to)| *from == ip && *to != ip).map(|(_, to)| (*to, true));
        std::iter::once((ip, false)).chain(others).map(|(ip, translated)| (SocketAddr::new(ip, address.port()), translated)).collect()
    }

    /// Whether some attempt may have sent from one of these ports; most lines of a log end here.
    pub fn has_port(&self, one: u16, other: u16) -> bool {
        let has = |port: u16| self.ports.get(usize::from(port)).is_some_and(|count| *count > 0);
        has(one) || has(other)
    }

    /// The one attempt that a trace is about, in either direction.
    pub fn by_flow(&self, trace: &Trace) -> Found<Hit<T>> {
        let end = |ip: Option<IpAddr>, port: u16| ip.map(|ip| SocketAddr::new(ip, port));
        let (([source, packet_source], source_port), ([destination, packet_destination], destination_port)) =
            (trace.source, trace.destination);
        let from_outside = is_outside(source);
        let mut found = Found::Nothing;
        for from in [source, packet_source.filter(|ip| Some(*ip) != source)] {
            for (to, in_packet) in [(destination, false), (packet_destination.filter(|ip| Some(*ip) != destination), true)] {
                let (Some(from), Some(to)) = (end(from, source_port), end(to, destination_port)) else { continue };
                for (one, other, back) in [(from, to, false), (to, from, true)] {
                    let on_the_way = in_packet && destination.is_some();
                    for (number, translated) in self.by_flow.get(&(trace.protocol, one, other)).into_iter().flatten() {
                        if self.meets(*number, (trace.when.0.saturating_sub(LATE), trace.when.1)) {
                            let hit = |whose| Hit { whose, by: By::FiveTuple, back, translated: *translated, from_outside, on_the_way };
                            found = self.and(found, *number, hit);
                        }
                    }
                }
            }
        }
        found
    }

    /// The one attempt that came from this address and port then.
    pub fn by_client(&self, client: SocketAddr, when: (i64, i64)) -> Found<Hit<T>> {
        let client = SocketAddr::new(fold_mapped(client.ip()), client.port());
        let mut found = Found::Nothing;
        for (number, translated) in self.by_client.get(&client).into_iter().flatten() {
            let tcp = self.get(*number).is_some_and(|kept| kept.shot.protocol == Transport::Tcp);
            if tcp && self.meets(*number, when) {
                found = self.and(found, *number, |whose| Hit {
                    whose,
                    by: By::Client,
                    back: false,
                    translated: *translated,
                    from_outside: false,
                    on_the_way: false,
                });
            }
        }
        found
    }

    /// The attempt that sent one of the nonces in the text, and none other; where the time is known, it must be its own.
    pub fn by_nonce(&self, text: &[u8], when: Option<(i64, i64)>) -> Found<Hit<T>> {
        let mut found = Found::Nothing;
        let mut start = 0_usize;
        for run in text.split(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            let escape = start.checked_sub(1).and_then(|before| text.get(before)) == Some(&b'%');
            start += run.len() + 1;
            // `%20`: two digits are the blank before it.
            let run = if escape { run.get(2..).unwrap_or_default() } else { run };
            if run.len() < NONCE {
                continue;
            }
            let Some(number) = run.first_chunk::<NONCE>().and_then(|nonce| self.by_nonce.get(nonce)) else { continue };
            if when.is_none_or(|when| self.meets(*number, when)) {
                found = self.and(found, *number, |whose| Hit {
                    whose,
                    by: By::Nonce,
                    back: false,
                    translated: false,
                    from_outside: false,
                    on_the_way: false,
                });
            }
        }
        found
    }

    fn get(&self, number: u64) -> Option<&Kept<T>> {
        self.kept.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Whether the attempt was under way at some time of these, as far as two clocks may differ.
    fn meets(&self, number: u64, (from, until): (i64, i64)) -> bool {
        let skew = i64::try_from(self.settings.clock_skew.as_millis()).unwrap_or(i64::MAX);
        self.get(number).is_some_and(|Kept { shot, .. }| {
            shot.started.unix_millis() <= until.saturating_add(skew) && shot.ended.unix_millis() >= from.saturating_sub(skew)
        })
    }

    fn and(&self, found: Found<Hit<T>>, number: u64, hit: impl Fn(T) -> Hit<T>) -> Found<Hit<T>> {
        let Some(kept) = self.get(number) else { return found };
        match found {
            Found::Nothing => Found::One(hit(kept.whose)),
            // The same attempt by two of its names.
            Found::One(before) if before.whose == kept.whose => found,
            Found::One(_) | Found::Several => Found::Several,
        }
    }
}

fn forget<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<(u64, bool)>>, key: &K, number: u64) {
    if let Some(numbers) = map.get_mut(key) {
        numbers.retain(|(n, _)| *n != number);
        if numbers.is_empty() {
            map.remove(key);
        }
    }
}

/// The digits by which a nonce is known.
fn key(nonce: &str) -> Option<[u8; NONCE]> {
    nonce.as_bytes().first_chunk::<NONCE>().copied()
}

/// The number that flow logs have for it (IANA's protocol numbers).
fn iana(protocol: Transport) -> u8 {
    match protocol {
        Transport::Icmp => 1,
        Transport::Tcp => 6,
        Transport::Udp => 17,
    }
}

/// Of carriers, and of VPCs by AWS's leave (RFC 6598).
const SHARED: ipnet::Ipv4Net = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(100, 64, 0, 0), 10);

/// Of tests (RFC 2544), and of pods on EKS.
const BENCHMARK: ipnet::Ipv4Net = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(198, 18, 0, 0), 15);

/// An IPv4 address that no network interface of a VPC has for its own: flow logs give those their private address alone.
fn is_outside(source: Option<IpAddr>) -> bool {
    matches!(source, Some(IpAddr::V4(ip))
        if !ip.is_private() && !ip.is_loopback() && !ip.is_link_local() && !SHARED.contains(&ip) && !BENCHMARK.contains(&ip))
}

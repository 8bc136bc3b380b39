//! The judge in randomised worlds. A world knows the truth over time: links, doors, targets, witnesses, interceptors,
//! resolvers, loss. A simulated engine makes the attempts and witness runs that the real one would make, with outcomes
//! taken from the truth at their instants, and hands them to the real `Observation::of`, `Decoys`, `Timeline`, `judge`,
//! `fold` and `Memory`. Then the truth is asked whether the verdict may stand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mustnot::clock::{Moment, Wall};
use mustnot::expectation::{Accept, Expectation};
use mustnot::memory::Memory;
use mustnot::observation::{
    Attempt, Authentication, Class, Evidence, Family, Observation, Outcome, PeerEvidence, Reached, Stage, Subject, Transport,
};
use mustnot::verdict::{Cause, Claim, Judged, Verdict, fold, judge, stale_after, when_read};
use mustnot::witness::{DecoyKey, DecoyRun, Decoys, Proof, ProofSet, Timeline, WitnessRun};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

/// Milliseconds since the world began.
type Ms = u64;

const WINDOW: Ms = 10_000;
const SPACING: Ms = 1_000;
const GATHERING: Ms = 50;
const RTT: Ms = 20;
const DECOY_TIMEOUT: Ms = 2_000;
const INTERVAL: Ms = 30_000;
const ATTEMPTS: usize = 3;
/// Runs of the check in one world.
const RUNS: u64 = 4;
/// When the first run begins; before that a peer has looked already.
const BEGIN: Ms = 70_000;
const END: Ms = BEGIN + RUNS * INTERVAL + 60_000;
/// When Linux sends its first SYNs.
const SYNS: [Ms; 3] = [0, 1_000, 3_000];
const TARGETS: [&str; 2] = ["203.0.113.7:443", "203.0.113.8:443"];
const WITNESS: &str = "198.51.100.1:443";
const ALLOWED_SOURCE: &str = "10.0.0.6";
const PEER: &str = "198.51.100.3:443";

/// Something that is so or not so, and changes at these instants.
#[derive(Debug, Clone)]
struct Fact {
    at_first: bool,
    flips: Vec<Ms>,
}

impl Fact {
    fn at(&self, now: Ms) -> bool {
        self.at_first ^ (self.flips.iter().filter(|f| **f <= now).count() % 2 == 1)
    }

    fn never(&self) -> bool {
        !self.at_first && self.flips.is_empty()
    }

    fn always(&self) -> bool {
        self.at_first && self.flips.is_empty()
    }

    fn changes_within(&self, from: Ms, until: Ms) -> bool {
        self.flips.iter().any(|f| (from..=until).contains(f))
    }
}

/// How the witness on the internet is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    /// TCP: an interceptor can answer for it.
    Plainly,
    /// TLS with a verified chain: nobody else can.
    Verified,
}

/// Who shows that the target is alive.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Alive {
    Nobody,
    /// The very address from another source of this host.
    OtherSource,
    /// Another monitor, asked over our own link.
    Peer,
}

#[derive(Debug, Clone)]
struct World {
    link: Fact,
    /// The door of each address: open to us?
    doors: [Fact; 2],
    targets: [Fact; 2],
    witness: Fact,
    interceptor: Fact,
    resolver: Fact,
    /// No file descriptor is left on this host.
    starved: Fact,
    /// DNS gives the second address too.
    second: Fact,
    /// A closed door answers with RST.
    rejects: Fact,
    /// Percent of packets lost, each way.
    loss: u64,
    dice: u64,
    asked: Asked,
    alive: Alive,
    /// The check's own demands.
    require_target: bool,
    only_refused: bool,
    /// The process is stopped for so long just before the attempts, between them, or just before the witness's run after.
    stalls: [[Ms; 3]; RUNS as usize],
    /// The gate's deadline cuts the run after so long.
    cuts: [Option<Ms>; RUNS as usize],
    /// Other checks run the witness at these times too.
    others: Vec<Ms>,
    /// How long a record is left lying before it is read.
    read_after: Ms,
}

fn fact(mostly: bool, odds: u32) -> impl Strategy<Value = Fact> {
    // Changes gather where runs are: within 20 s of the start of one.
    let flip = (0..RUNS, 0..20_000_u64).prop_map(|(run, after)| BEGIN + run * INTERVAL + after - 5_000);
    let flips = prop_oneof![
        odds => Just(Vec::new()),
        1 => prop::collection::vec(flip, 1..5),
    ];
    let first = prop::bool::weighted(if mostly { 0.85 } else { 0.15 });
    (first, flips).prop_map(|(at_first, mut flips)| {
        flips.sort_unstable();
        flips.dedup();
        Fact { at_first, flips }
    })
}

fn stall() -> impl Strategy<Value = Ms> {
    prop_oneof![12 => Just(0_u64), 1 => 0..30_000_u64]
}

fn worlds() -> impl Strategy<Value = World> {
    let truth = (
        fact(true, 3),
        [fact(false, 3), fact(false, 6)],
        [fact(true, 1), fact(true, 6)],
        fact(true, 3),
        fact(false, 5),
        (fact(true, 6), Just(Fact { at_first: false, flips: Vec::new() }), fact(false, 12))
            .prop_map(|(resolver, never, starved)| (resolver, if starved.at_first { never } else { starved })),
        fact(false, 3),
        fact(true, 2),
    );
    let noise = (prop_oneof![4 => Just(0_u64), 1 => Just(5), 1 => Just(30), 1 => Just(60)], any::<u64>());
    let demands = (
        prop_oneof![Just(Asked::Plainly), Just(Asked::Verified)],
        prop_oneof![Just(Alive::Nobody), Just(Alive::OtherSource), Just(Alive::Peer)],
        any::<bool>(),
        prop::bool::weighted(0.3),
    );
    let troubles = (
        [[stall(), stall(), stall()], [stall(), stall(), stall()], [stall(), stall(), stall()], [stall(), stall(), stall()]],
        prop::array::uniform4(prop_oneof![15 => Just(None), 1 => (0..12_000_u64).prop_map(Some)]),
        prop::collection::vec(BEGIN - 20_000..END, 0..6),
        prop_oneof![3 => 0..40_000_u64, 1 => 60_000..200_000_u64],
    );
    (truth, noise, demands, troubles).prop_map(
        |(
            (link, doors, targets, witness, interceptor, (resolver, starved), second, rejects),
            (loss, dice),
            (asked, alive, require_target, only_refused),
            (stalls, cuts, mut others, read_after),
        )| {
            others.sort_unstable();
            let require_target = require_target && alive != Alive::Nobody;
            World {
                link,
                doors,
                targets,
                witness,
                interceptor,
                resolver,
                starved,
                second,
                rejects,
                loss,
                dice,
                asked,
                alive,
                require_target,
                only_refused,
                stalls,
                cuts,
                others,
                read_after,
            }
        },
    )
}

/// What one attempt really met.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Met {
    Target,
    Interceptor,
    Nobody,
}

#[derive(Debug, Clone)]
struct Try {
    attempt: Attempt,
    met: Met,
}

fn moment(ms: Ms) -> Moment {
    Moment::after_boot(Duration::from_millis(ms))
}

fn wall(ms: Ms) -> Wall {
    Wall::from_unix_millis(1_767_323_045_678 + ms as i64).unwrap()
}

/// The engine of a world, with what it remembers and what it alone knows.
struct Simulation<'w> {
    world: &'w World,
    packets: u64,
    internet: Timeline,
    alive: Timeline,
    /// What every run of the witnesses really was: start, end, whether it truly got through, by witness.
    truth: [Vec<(Ms, Ms, bool)>; 2],
    decoys: Decoys,
    decoy_runs: Vec<(DecoyKey, Ms)>,
    others: std::collections::VecDeque<Ms>,
}

impl<'w> Simulation<'w> {
    fn new(world: &'w World) -> Simulation<'w> {
        Simulation {
            world,
            packets: world.dice,
            internet: Timeline::default(),
            alive: Timeline::default(),
            truth: [Vec::new(), Vec::new()],
            decoys: Decoys::new(Duration::from_millis(WINDOW)),
            decoy_runs: Vec::new(),
            others: world.others.iter().copied().collect(),
        }
    }

    /// Whether a packet and its answer get through (splitmix64).
    fn round_trip(&mut self) -> bool {
        (0..2).all(|_| {
            self.packets = self.packets.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.packets;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % 100 >= self.world.loss
        })
    }

    /// One TCP handshake: each SYN meets the world as it is when it is sent.
    fn handshake(&mut self, start: Ms, timeout: Ms, answers: impl Fn(&World, Ms) -> Option<bool>) -> (Outcome, Ms, u32, Met) {
        if self.world.starved.at(start) {
            return (Outcome::LocalError, start, 0, Met::Nobody);
        }
        for (sent, after) in SYNS.iter().enumerate() {
            let now = start + after;
            if *after >= timeout {
                return (Outcome::Timeout, start + timeout, sent as u32, Met::Nobody);
            }
            if self.world.interceptor.at(now) {
                return (Outcome::Connected, now + 1, sent as u32 + 1, Met::Interceptor);
            }
            if !self.world.link.at(now) || !self.round_trip() {
                continue;
            }
            match answers(self.world, now) {
                Some(true) => return (Outcome::Connected, now + RTT, sent as u32 + 1, Met::Target),
                Some(false) => return (Outcome::Refused, now + RTT, sent as u32 + 1, Met::Nobody),
                None => {}
            }
        }
        (Outcome::Timeout, start + timeout, SYNS.len() as u32, Met::Nobody)
    }

    fn one_try(&self, source: &str, (outcome, end, syns, met): (Outcome, Ms, u32, Met), start: Ms, signed: Option<Authentication>) -> Try {
        let evidence = Evidence {
            local_address: format!("{source}:40000").parse().ok(),
            syns_sent: Some(syns),
            authenticated: signed,
            ..Evidence::default()
        };
        Try { attempt: Attempt { outcome, stage: Stage::Tcp, evidence, started: moment(start), ended: moment(end) }, met }
    }

    /// All attempts at one address of the target, spaced and overlapping, until one settles; and when the last event was.
    fn look(&mut self, address: usize, start: Ms, stall: Ms, expectation: &Expectation) -> (Observation, Vec<Try>, Ms) {
        let mut tries = Vec::new();
        for number in 0..ATTEMPTS as u64 {
            let begin = start + number * SPACING + if number > 0 { stall } else { 0 };
            let met = self.handshake(begin, 5_000, |world, now| {
                let silent = if world.rejects.at(now) { Some(false) } else { None };
                let (door, target) = (&world.doors[address], &world.targets[address]);
                if !door.at(now) { silent } else { target.at(now).then_some(true) }
            });
            tries.push(self.one_try("10.0.0.5", met, begin, None));
        }
        tries.sort_by_key(|t| t.attempt.ended);
        let settled = tries.iter().position(|t| expectation.settled_by(t.attempt.outcome));
        if let Some(at) = settled {
            tries.truncate(at + 1);
        }
        let end = tries.iter().map(|t| t.attempt.ended).max().unwrap_or(Moment::ZERO);
        let seen =
            Observation::of(subject(TARGETS[address], None), tries.iter().map(|t| t.attempt.clone()).collect(), settled, wall(start));
        (seen, tries, end.since(Moment::ZERO).as_millis() as u64)
    }

    /// One run of the witness on the internet.
    fn run_internet(&mut self, start: Ms) -> Ms {
        let asked = self.world.asked;
        let mut tries = Vec::new();
        let mut begin = start;
        for _ in 0..ATTEMPTS {
            let (mut outcome, end, syns, met) = self.handshake(begin, 3_500, |world, now| world.witness.at(now).then_some(true));
            let signed = (asked == Asked::Verified && met == Met::Target).then_some(Authentication::Tls);
            if asked == Asked::Verified && outcome == Outcome::Connected {
                outcome = if met == Met::Target { Outcome::TlsEstablished } else { Outcome::TlsUntrusted };
            }
            tries.push(self.one_try("10.0.0.5", (outcome, end, syns, met), begin, signed));
            if self.expects_of_witness().accepts(outcome) {
                break;
            }
            begin = end.max(begin + SPACING);
        }
        let real = tries.last().is_some_and(|t| t.met == Met::Target);
        self.finish(0, start, &tries, subject(WITNESS, None), real)
    }

    fn expects_of_witness(&self) -> Expectation {
        one(&[if self.world.asked == Asked::Verified { Outcome::TlsEstablished } else { Outcome::Connected }])
    }

    /// One run of whoever shows that the target is alive.
    fn run_alive(&mut self, start: Ms) -> Ms {
        let mut tries = Vec::new();
        let mut begin = start;
        for _ in 0..ATTEMPTS {
            let one_try = match self.world.alive {
                Alive::Nobody => return start,
                Alive::OtherSource => {
                    // The other source is let in by the door, and passes no interceptor.
                    let (link, target) = (self.world.link.at(begin), self.world.targets[0].at(begin));
                    let reached = link && target && self.round_trip();
                    let met = if reached {
                        (Outcome::TlsEstablished, begin + RTT, 1, Met::Target)
                    } else {
                        (Outcome::Timeout, begin + 3_500, 3, Met::Nobody)
                    };
                    self.one_try(ALLOWED_SOURCE, met, begin, reached.then_some(Authentication::Tls))
                }
                Alive::Peer => self.ask_peer(begin),
            };
            let (outcome, end) = (one_try.attempt.outcome, one_try.attempt.ended.since(Moment::ZERO).as_millis() as u64);
            tries.push(one_try);
            if outcome == Outcome::TlsEstablished || outcome == Outcome::QueryTrue {
                break;
            }
            begin = end.max(begin + SPACING);
        }
        let real = tries.last().is_some_and(|t| t.met == Met::Target);
        let about = match self.world.alive {
            Alive::Peer => subject(PEER, None),
            _ => subject(TARGETS[0], Some(ALLOWED_SOURCE)),
        };
        self.finish(1, start, &tries, about, real)
    }

    /// The peer looks at both addresses every two seconds, and tells its newest record.
    fn ask_peer(&mut self, now: Ms) -> Try {
        if !self.world.link.at(now) || !self.round_trip() || self.world.interceptor.at(now) {
            return self.one_try("10.0.0.5", (Outcome::Timeout, now + 3_500, 3, Met::Nobody), now, None);
        }
        let sample = |k: u64| self.world.targets[0].at(k * 2_000);
        let newest = now / 2_000;
        let holds = sample(newest);
        let since = (0..=newest).rev().take_while(|k| sample(*k)).last();
        let peer = PeerEvidence {
            check: "admin-open".into(),
            vantage: "office".into(),
            verdict: if holds { "holds" } else { "violated" }.into(),
            age_seconds: (now - newest * 2_000) as f64 / 1000.0,
            holding_since: since.map(|k| moment(k * 2_000)),
            reached: if holds { vec![Reached { address: TARGETS[0].into(), transport: Transport::Tcp, asked: None }] } else { vec![] },
        };
        let outcome = if holds { Outcome::QueryTrue } else { Outcome::QueryFalse };
        let met = if holds { Met::Target } else { Met::Nobody };
        let mut asked = self.one_try("10.0.0.5", (outcome, now + RTT, 1, met), now, Some(Authentication::Tls));
        asked.attempt.evidence.peer = Some(peer);
        asked
    }

    fn finish(&mut self, which: usize, start: Ms, tries: &[Try], about: Subject, real: bool) -> Ms {
        let end = tries.iter().map(|t| t.attempt.ended).max().unwrap_or(moment(start));
        let accepts = if which == 0 { self.expects_of_witness() } else { one(&[Outcome::TlsEstablished, Outcome::QueryTrue]) };
        let settled = tries.iter().position(|t| accepts.accepts(t.attempt.outcome));
        let seen = Observation::of(about, tries.iter().map(|t| t.attempt.clone()).collect(), settled, wall(start));
        let run = Arc::new(WitnessRun::new(moment(start), end, wall(start), vec![seen], &accepts));
        let line = if which == 0 { &mut self.internet } else { &mut self.alive };
        line.push(run);
        let end = end.since(Moment::ZERO).as_millis() as u64;
        self.truth[which].push((start, end, real));
        end
    }

    /// Runs of the witness that other checks ask for, up to now; runs of one witness never overlap.
    fn let_others_run(&mut self, until: Ms) {
        while let Some(due) = self.others.front().copied().filter(|due| *due < until) {
            self.others.pop_front();
            let free = self.truth[0].last().map_or(0, |(start, end, _)| (*end).max(start + SPACING));
            let end = self.run_internet(due.max(free));
            // Whoever asked for the run lets its decoy run as well.
            self.run_decoys(&[], end);
        }
    }

    /// Every witness on one side; at once, so the slowest decides when all are done.
    fn witnesses(&mut self, now: Ms, before: bool) -> Ms {
        self.let_others_run(now + 1);
        let mut done = now;
        for which in 0..2 {
            if which == 1 && self.world.alive == Alive::Nobody {
                continue;
            }
            let last = self.truth[which].last().copied();
            let newest = if which == 0 { self.internet.newest() } else { self.alive.newest() };
            let opened =
                newest.is_some_and(|run| run.seen().iter().any(|o| o.outcome.class() == Class::Open && o.outcome != Outcome::TlsUntrusted));
            let shared =
                last.is_some_and(|(start, end, _)| if before { opened && end <= now && now - end <= WINDOW / 2 } else { start >= now });
            let end = match (shared, which) {
                (true, _) => last.map_or(now, |l| l.1),
                (false, 0) => self.run_internet(begin_after(last, now)),
                (false, _) => self.run_alive(begin_after(last, now)),
            };
            done = done.max(end);
        }
        done
    }

    /// Decoys beside these observations and the newest witness run, as `hear_decoys`.
    fn run_decoys(&mut self, seen: &[Observation], now: Ms) -> Ms {
        let mut needed: BTreeMap<DecoyKey, Moment> = BTreeMap::new();
        let of_witnesses: Vec<Observation> = self.internet.newest().iter().flat_map(|run| run.seen()).cloned().collect();
        let wanted = seen.iter().map(|o| (o, o.started)).chain(of_witnesses.iter().map(|o| (o, o.started)));
        for (one, since) in wanted {
            for key in Decoys::keys_for(one) {
                let latest = needed.entry(key).or_insert(since);
                *latest = since.max(*latest);
            }
        }
        let mut done = now;
        for (key, since) in needed {
            if self.decoys.ran_since(&key, since) || self.world.starved.at(now) {
                continue;
            }
            let connected = self.world.interceptor.at(now);
            let end = if connected { now + 1 } else { now + DECOY_TIMEOUT };
            self.decoys.push(DecoyRun { key: key.clone(), started: moment(now), ended: moment(end), connected });
            self.decoy_runs.push((key, now));
            done = done.max(end);
        }
        done
    }

    fn judge(&self, seen: Observation, claim: Claim<'_>) -> Judged {
        let seen = self.decoys.unmask(seen);
        let window = Duration::from_millis(WINDOW);
        let mut witnesses = vec![("internet".to_string(), self.internet.around(&seen, window, &self.decoys))];
        if self.world.alive != Alive::Nobody {
            witnesses.push(("alive".to_string(), self.alive.around(&seen, window, &self.decoys)));
        }
        judge(seen, claim, witnesses)
    }
}

fn begin_after(last: Option<(Ms, Ms, bool)>, now: Ms) -> Ms {
    let free = last.map_or(0, |(start, end, _)| end.max(start + SPACING));
    (now + GATHERING).max(free)
}

fn subject(to: &str, source: Option<&str>) -> Subject {
    let to: SocketAddr = to.parse().unwrap();
    Subject {
        address: to.to_string(),
        named: None,
        family: Some(Family::of(to.ip())),
        dialled: Some(to),
        reached: Some(to),
        source: source.and_then(|s| s.parse().ok()),
        transport: Transport::Tcp,
        asked: None,
        via: false,
        technique: None,
        variant: None,
    }
}

fn one(outcomes: &[Outcome]) -> Expectation {
    Expectation::new(outcomes.iter().map(|o| Accept::One(*o)).collect()).unwrap()
}

/// How often something was seen, so that no property is vacuous.
type Counts = BTreeMap<String, u64>;

fn count(counts: &mut Counts, what: impl Into<String>) {
    *counts.entry(what.into()).or_default() += 1;
}

macro_rules! must {
    ($truth:expr, $($why:tt)+) => {
        if !$truth {
            return Err(TestCaseError::fail(format!($($why)+)));
        }
    };
}

/// Lives through a world and asks the truth about every verdict.
fn live(world: &World, counts: &mut Counts) -> Result<(), TestCaseError> {
    let mut sim = Simulation::new(world);
    let mut memory = Memory::default();
    let expectation = if world.only_refused { one(&[Outcome::Refused]) } else { one(&[Outcome::Refused, Outcome::Timeout]) };
    let mut require = ProofSet::NONE.with(Proof::Vantage);
    if world.require_target {
        require = require.with(Proof::Target);
    }
    let claim = Claim { expectation: &expectation, require, attempts: ATTEMPTS };
    let mut violated_since_it_held = false;
    let mut free = 0;
    for run in 0..RUNS {
        let began = (BEGIN + run * INTERVAL).max(free);
        let stalls = world.stalls[run as usize];

        // find
        let resolved = world.resolver.at(began);
        let given: Vec<usize> = if !resolved {
            vec![]
        } else if world.second.at(began) {
            vec![0, 1]
        } else {
            vec![0]
        };
        let sockets: Vec<SocketAddr> = given.iter().map(|a| TARGETS[*a].parse().unwrap()).collect();
        memory.given(&sockets, moment(began));
        let lingering = memory.lingering(Duration::from_secs(3600), moment(began));
        let looked_at: Vec<usize> = (0..2).filter(|a| given.contains(a) || lingering.contains(&TARGETS[*a].parse().unwrap())).collect();

        // witnesses before, the look with its decoys beside it, witnesses after, decoys
        let start = sim.witnesses(began, true) + 1 + stalls[0];
        sim.run_decoys(&[], start);
        let mut seen = Vec::new();
        let mut tries = Vec::new();
        let mut ended = start;
        for address in &looked_at {
            let (observation, made, end) = sim.look(*address, start, stalls[1], &expectation);
            if observation.outcome == Outcome::Connected {
                sim.run_decoys(std::slice::from_ref(&observation), end);
            }
            seen.push(observation);
            tries.push(made);
            ended = ended.max(end);
        }
        if !resolved {
            let lost = Subject { dialled: None, reached: None, family: None, ..subject(TARGETS[0], None) };
            let what = "no answer".to_string();
            seen.push(Observation::without_attempt(lost, Outcome::ResolveError, Stage::Dns, what, moment(began), wall(began)));
        }
        let done = sim.witnesses(ended + stalls[2], false);
        free = sim.run_decoys(&seen, done) + 1;
        let last = sim.truth.iter().flatten().map(|t| t.1).max().unwrap_or(0);
        let (quiet_from, quiet_until) = (began.saturating_sub(3 * WINDOW), free.max(last) + WINDOW);

        // judging, whole or cut by a deadline
        let planned = seen.len();
        let cut = world.cuts[run as usize].map(|after| moment(began + after));
        let observed: Vec<Observation> = seen.iter().filter(|o| cut.is_none_or(|c| o.ended <= c)).cloned().collect();
        let planned = if cut.is_some() { usize::MAX } else { planned };
        let judged: Vec<Judged> = observed.into_iter().map(|o| sim.judge(o, claim)).collect();
        let folded = fold(&judged, planned);
        let fresh = folded.verdict.clone();
        let (verdict, changed) = memory.learn(&judged, folded.verdict.clone(), true, wall(began), moment(began));

        // what is read later
        let read_at = free + world.read_after;
        let good_for = stale_after(Duration::from_millis(INTERVAL), Duration::from_secs(40));
        let read = when_read(&verdict, true, moment(began), good_for, moment(read_at));

        // the truth
        let holds = matches!(verdict, Verdict::Holds(_));
        let got_in = tries.iter().flatten().any(|t| t.met == Met::Target);
        let flapped = world.interceptor.changes_within(quiet_from, quiet_until);
        must!(!(holds && got_in), "run {run} holds, and an attempt got in: {tries:?}");
        must!(!holds || resolved, "run {run} holds, and the name did not resolve");
        must!(!(holds && cut.is_some()), "run {run} holds, and was cut short");
        must!(!(holds && world.link.never()), "run {run} holds, and the link was down all the while");
        must!(!(holds && world.witness.never() && !flapped), "run {run} holds, and the witness never lived");
        must!(!(holds && world.interceptor.always()), "run {run} holds behind an interceptor");
        must!(
            !(holds && world.require_target && world.targets[0].never()),
            "run {run} holds with the proof target, and the target was dead all the while"
        );
        if holds && world.require_target && world.alive == Alive::Peer {
            // The peer looks every two seconds.
            let dead = (start.div_ceil(2_000)..=ended / 2_000).find(|k| !world.targets[0].at(k * 2_000));
            must!(dead.is_none(), "run {run} holds with the proof target, and the peer saw it dead meanwhile, at {dead:?}");
        }
        for address in &looked_at {
            let open = world.loss == 0
                && world.starved.never()
                && world.doors[*address].always()
                && world.targets[*address].always()
                && world.link.always()
                && world.interceptor.never();
            must!(!(holds && open), "run {run} holds, and address {address} was open all the while");
            if open {
                count(counts, "open all the while");
                let opened = fresh == Verdict::Violated(Cause::Open) || cut.is_some();
                must!(opened, "run {run} is {fresh:?}, and address {address} was open all the while");
            }
        }
        if holds {
            must!(require.without(folded.proofs).is_empty(), "run {run} holds without the proofs that it requires");
            for one in &judged {
                for (which, truth) in sim.truth.iter().enumerate().filter(|(which, _)| *which == 0 || world.alive != Alive::Nobody) {
                    if let Err(why) = bracketed(truth, &one.seen, flapped && world.asked == Asked::Plainly) {
                        must!(
                            false,
                            "run {run} holds, and witness {which} {why}: {truth:?} around {:?}..{:?}",
                            one.seen.started,
                            one.seen.ended
                        );
                    }
                }
                must!(one.seen.attempts.len() == ATTEMPTS, "run {run} holds after {} attempts", one.seen.attempts.len());
                must!(
                    one.seen.attempts.iter().all(|o| o.class() == Class::Closed && expectation.accepts(*o)),
                    "run {run} holds by {:?}",
                    one.seen.attempts
                );
            }
        }
        if fresh == Verdict::Violated(Cause::Open) {
            let answered = tries.iter().flatten().any(|t| t.attempt.outcome == Outcome::Connected);
            must!(answered, "run {run} is violated by an open door, and nobody answered");
            // Where no decoy could be run, or not in time, what answers counts as open.
            let decoyless = cut.is_some() || !world.starved.never();
            must!(got_in || flapped || decoyless, "run {run} is violated by an interceptor's answer: {tries:?}");
        }
        if fresh == Verdict::Violated(Cause::OtherDenial) {
            must!(world.only_refused, "run {run} calls a block another denial, and it is accepted");
            let proven = |one: &Judged| {
                let around = |truth: &Vec<_>| bracketed(truth, &one.seen, flapped && world.asked == Asked::Plainly).is_ok();
                sim.truth.iter().any(around)
            };
            let wrong = judged.iter().any(|j| j.verdict == Verdict::Violated(Cause::OtherDenial) && !proven(j));
            must!(!wrong, "run {run} calls silence another denial, and no witness got through around it");
        }
        if violated_since_it_held {
            must!(holds || matches!(verdict, Verdict::Violated(_)), "run {run} is {verdict:?}, and no run held since it was violated");
            let kept = matches!(read, Verdict::Violated(_)) || holds;
            must!(kept, "run {run} reads {read:?}, and no run held since it was violated");
        }
        let is_stale = read_at - began > good_for.as_millis() as u64;
        must!(!(is_stale && matches!(read, Verdict::Holds(_))), "a record of {} ms ago reads holds", read_at - began);
        must!(is_stale || read == verdict, "a fresh record reads {read:?}, and is {verdict:?}");
        violated_since_it_held = matches!(verdict, Verdict::Violated(_));

        // A quiet world with a closed door holds: the properties above are not kept by never saying `holds`.
        let calm = [&world.link, &world.targets[0], &world.witness, &world.resolver, &world.rejects].iter().all(|f| f.always())
            && [&world.doors[0], &world.interceptor, &world.second].iter().all(|f| f.never())
            && (world.loss, cut, stalls) == (0, None, [0; 3])
            && world.starved.never();
        if calm {
            count(counts, "calm");
            must!(holds, "run {run} is {verdict:?} in a quiet world with a closed door: {judged:?}");
        }

        count(counts, format!("verdict {}", verdict.token()));
        count(counts, format!("cause {}", verdict.cause()));
        count(counts, format!("read {}", read.cause()));
        for (what, so) in [
            ("got in", got_in),
            ("interceptor flapped", flapped),
            ("cut", cut.is_some()),
            ("denial changed", !changed.is_empty()),
            ("lingering", looked_at.iter().any(|a| !given.contains(a)) && resolved),
            ("held with target", holds && world.require_target),
            ("held with plain witness", holds && world.asked == Asked::Plainly),
            ("held after violated", holds && memory.exposure.last_open.is_some()),
            ("intercepted attempt", tries.iter().flatten().any(|t| t.met == Met::Interceptor)),
            ("a target that died, blocked", !got_in && !world.targets[0].always() && !world.doors[0].always()),
        ] {
            if so {
                count(counts, what);
            }
        }
        for one in &judged {
            for (name, testimony) in &one.witnesses {
                let what = match testimony {
                    Ok(_) => "proven".to_string(),
                    Err(lapse) => format!("{lapse:?}").chars().take_while(char::is_ascii_alphabetic).collect(),
                };
                count(counts, format!("{name} {what}"));
            }
        }
    }
    Ok(())
}

/// Whether a witness truly got through around an observation, told by what its runs really were.
fn bracketed(truth: &[(Ms, Ms, bool)], seen: &Observation, may_be_fooled: bool) -> Result<(), String> {
    let (from, until) = (seen.started.since(Moment::ZERO).as_millis() as Ms, seen.ended.since(Moment::ZERO).as_millis() as Ms);
    let real = |run: &&(Ms, Ms, bool)| run.2 || may_be_fooled;
    let before = truth.iter().filter(real).filter(|(_, end, _)| *end <= from && from - end <= WINDOW).max_by_key(|r| r.1);
    let after = truth.iter().filter(real).filter(|(start, ..)| *start >= until && start - until <= WINDOW).min_by_key(|r| r.0);
    let before = before.ok_or("did not get through just before")?;
    let after = after.ok_or("did not get through just after")?;
    match truth.iter().find(|run| !real(run) && run.0 >= before.1 && run.1 <= after.0) {
        Some(failed) => Err(format!("failed in between, at {failed:?}")),
        None => Ok(()),
    }
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() }
}

/// `MUSTNOT_WORLDS=500000 cargo test worlds` goes deeper.
fn cases(default: u32) -> u32 {
    std::env::var("MUSTNOT_WORLDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn no_world_gets_a_verdict_that_its_truth_denies() {
    let mut runner = TestRunner::new(config(cases(20_000)));
    runner.run(&worlds(), |world| live(&world, &mut Counts::new())).unwrap();
}

#[test]
fn the_worlds_reach_every_verdict_and_cause_often_enough() {
    let mut runner = TestRunner::new_with_rng(config(5_000), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let counts = std::cell::RefCell::new(Counts::new());
    runner.run(&worlds(), |world| live(&world, &mut counts.borrow_mut())).unwrap();
    let counts = counts.into_inner();
    let enough = [
        "verdict holds",
        "verdict violated",
        "verdict unproven",
        "cause as-expected",
        "cause open",
        "cause other-denial",
        "cause no-witness",
        "cause witness-failed",
        "cause local",
        "cause intercepted",
        "cause resolve",
        "cause coverage",
        "cause latched",
        "read stale",
        "read latched",
        "internet proven",
        "internet TooEarly",
        "internet TooLate",
        "internet FailedBefore",
        "internet FailedAfter",
        "internet FailedBetween",
        "alive proven",
        "alive FailedBefore",
        "alive FailedAfter",
        "alive PeerWavered",
        "got in",
        "open all the while",
        "calm",
        "cut",
        "interceptor flapped",
        "intercepted attempt",
        "denial changed",
        "lingering",
        "held with target",
        "held with plain witness",
        "held after violated",
        "a target that died, blocked",
    ];
    // A target must die and rise again within one look for a peer to waver.
    let least = |what: &str| if what == "alive PeerWavered" { 5 } else { 30 };
    let rare: Vec<_> = enough.iter().filter(|what| counts.get(**what).copied().unwrap_or(0) < least(what)).collect();
    assert!(rare.is_empty(), "too seldom: {rare:?} in {counts:#?}");
}

/// A positive check, which has no attempts to survive and no latch: `not-open` only where somebody answered or a witness got through.
#[test]
fn positive_checks_in_randomised_worlds() {
    let mut runner = TestRunner::new_with_rng(config(5_000), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let counts = std::cell::RefCell::new(Counts::new());
    let expectation = one(&[Outcome::Connected]);
    let claim = Claim { expectation: &expectation, require: ProofSet::NONE, attempts: ATTEMPTS };
    let lived = runner.run(&worlds(), |world| {
        let mut sim = Simulation::new(&world);
        for run in 0..RUNS {
            let began = BEGIN + run * INTERVAL;
            let start = sim.witnesses(began, true) + 1;
            let (seen, tries, end) = sim.look(0, start, 0, &expectation);
            sim.witnesses(end, false);
            sim.run_decoys(std::slice::from_ref(&seen), end);
            let judged = sim.judge(seen, claim);
            let flapped = world.interceptor.changes_within(began.saturating_sub(3 * WINDOW), end + 4 * WINDOW);
            let got_in = tries.iter().any(|t| t.met == Met::Target);
            match &judged.verdict {
                Verdict::Holds(_) => must!(got_in || flapped, "it holds, and nobody was reached: {tries:?}"),
                Verdict::Violated(cause) => {
                    must!(*cause == Cause::NotOpen, "it is violated for {cause}");
                    must!(!got_in, "it is violated, and was reached");
                    let refused = tries.iter().any(|t| t.attempt.outcome == Outcome::Refused);
                    let around = |truth: &Vec<_>| bracketed(truth, &judged.seen, flapped && world.asked == Asked::Plainly).is_ok();
                    must!(refused || sim.truth.iter().any(around), "it is violated by silence, and no witness got through");
                }
                Verdict::Unproven(_) => {}
            }
            count(&mut counts.borrow_mut(), format!("{} {}", judged.verdict.token(), judged.verdict.cause()));
        }
        Ok(())
    });
    lived.unwrap();
    let counts = counts.into_inner();
    for what in ["holds as-expected", "violated not-open", "unproven intercepted", "unproven witness-failed"] {
        assert!(counts.get(what).copied().unwrap_or(0) >= 30, "{what} in {counts:?}");
    }
}

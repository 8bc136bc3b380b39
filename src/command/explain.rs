//! `mustnot config explain`: what a check will do, in words, with the plan's own numbers. Resolves nothing, sends nothing.

use std::fmt::Write as _;
use std::path::Path;

use super::{console, load, usage};
use crate::cli::{EXIT_HOLDS, EXIT_USAGE, Explain};
use crate::config::did_you_mean;
use crate::config::duration::show;
use crate::engine::MAX_ADDRESSES;
use crate::exception::Exception;
use crate::expectation::MIN_SENT;
use crate::net::resolve::Resolver;
use crate::observation::{Family, Outcome, Transport};
use crate::plan::{ATTEMPT_SPACING, Check, Keys, Loaded, Plan, could_give};
use crate::probe::Hops;
use crate::secret::mask;
use crate::target::Host;
use crate::verdict::MAX_GRACE;
use crate::witness::{Proof, ProofSet};

/// Width of the column of words at the left.
const WORDS: usize = 11;

/// Explains the checks that are named, or all.
pub fn explain(file: &Path, args: &Explain) -> u8 {
    let Ok((_, Loaded { plan, .. })) = load(file, Keys::Read) else { return EXIT_USAGE };
    let lone = |name: &String| plan.templates.iter().any(|t| t.name == *name) && !plan.checks.iter().any(|check| check.name == *name);
    if let Some(template) = args.name.iter().find(|name| lone(name)) {
        return usage(&format!(
            "\"{template}\" is a template without a target of its own; give it one, for the while, to have it explained"
        ));
    }
    let names = || plan.checks.iter().map(|check| check.name.as_str());
    if let Some(unknown) = args.name.iter().find(|name| !names().any(|known| known == *name)) {
        return usage(&format!("{} has no check \"{unknown}\"; {}", file.display(), did_you_mean(unknown, names())));
    }
    let chosen = plan.checks.iter().filter(|check| args.all || args.name.contains(&check.name));
    let texts: Vec<String> = chosen.map(|check| of_check(&plan, check)).collect();
    console::say(texts.join("\n").trim_end());
    EXIT_HOLDS
}

/// What the check will do, one fact a line; what the environment gave is masked.
pub fn of_check(plan: &Plan, check: &Check) -> String {
    let inverted = check.expectation.is_inverted();
    let sign = if inverted { "inverted: it must be kept out" } else { "positive: it must get through" };
    let mut out = format!("{} ({}, {})\n", check.name, sign, check.severity);
    let mut line = |word: &str, text: &str| {
        let _ = writeln!(out, "  {word:<WORDS$} {text}");
    };
    line("claim", &format!("{} {} must be {}", check.probe.kind(), check.target, check.expect));
    if let Some(description) = &check.description {
        line("about", description);
    }
    if let Some(exception) = plan.exception_of(&check.name, &check.target) {
        let Exception { owner, until, reason, .. } = exception.as_ref();
        line("excepted", &format!("by {owner} until {until}: {reason}. Its verdict stays what it is; only what is said of it changes"));
    }
    line("sends", &check.probe.in_words());
    line("to", &whereto(check));
    line("from", &check.source.map_or("the address that the system chooses".into(), |ip| format!("{ip}, which this host must have")));
    line("when", &format!("every {} by `run`; once a round by `check`", show(check.interval)));
    line("attempts", &attempts(check));
    line("at most", &at_most(plan, check));
    line("accepts", &listed(&accepted(check)));
    if check.expectation.accepts_silence() {
        line("", &silence(check));
    }
    for witness in check.witness_numbers().filter_map(|number| plan.checks.get(number)) {
        line("witness", &of_witness(plan, check, witness));
    }
    line("requires", &requires(check));
    line("holds", &holds(check));
    line("violated", &violated(check));
    line("unproven", &unproven(check));
    line("stale", &stale(check));
    mask(&out, &plan.masks)
}

fn whereto(check: &Check) -> String {
    let families = listed(&check.families.iter().map(ToString::to_string).collect::<Vec<_>>());
    let by = |resolver: Resolver| match resolver {
        Resolver::System => "the system's resolver".to_string(),
        Resolver::At(server) => format!("the name server {server}"),
    };
    let left_out: Vec<String> = Family::BOTH.iter().filter(|f| !check.families.contains(f)).map(ToString::to_string).collect();
    let left_out = if left_out.is_empty() { String::new() } else { format!("; not covered: {}", listed(&left_out)) };
    match check.probe.hops() {
        Hops::Host(hop) => match &hop.host {
            Host::Ip(_) => hop.to_string(),
            Host::Name(name) => {
                let port = if check.probe.transport() == Transport::Icmp { String::new() } else { format!(", port {}", hop.port) };
                format!("every {families} address that {} gives for {name}{port}{left_out}", by(check.resolver))
            }
        },
        Hops::Addresses(addresses) => {
            let shown: Vec<String> = addresses.iter().take(8).map(ToString::to_string).collect();
            let more = addresses.len().saturating_sub(shown.len());
            format!("{}{}", listed(&shown), if more == 0 { String::new() } else { format!(" and {more} more") })
        }
        Hops::File(path) => format!("the file {} on this host", path.display()),
        Hops::Nowhere(why) => format!("nowhere: {why}"),
    }
}

fn attempts(check: &Check) -> String {
    let each = format!("each of at most {}", show(check.timeout));
    let worst = show(check.worst_observation());
    match (check.expectation.is_inverted(), check.attempts) {
        (_, 1) => format!("1 at each address, of at most {}; {worst} at worst", show(check.timeout)),
        (true, n) => format!("{n} at each address, {each}, begun {} apart; fewer if one gets in. {worst} at worst", show(ATTEMPT_SPACING)),
        (false, n) => format!("up to {n} at each address until one gets through, {each}; {worst} at worst"),
    }
}

fn at_most(plan: &Plan, check: &Check) -> String {
    if let Hops::File(_) = check.probe.hops() {
        return format!("{} reads of the file a run", check.attempts);
    }
    let what = if check.probe.transport() == Transport::Tcp { "connections" } else { "exchanges" };
    let per_address = most_an_address(plan, check);
    let whole = match check.probe.hops() {
        Hops::Host(hop) if hop.host.ip().is_some() => format!("{per_address} {what} a run"),
        Hops::Host(_) => {
            format!(
                "{per_address} {what} an address and run; {MAX_ADDRESSES} addresses, so {} a run",
                per_address.saturating_mul(MAX_ADDRESSES)
            )
        }
        Hops::Addresses(addresses) => format!("{per_address} {what} an address, {} a run", per_address.saturating_mul(addresses.len())),
        Hops::File(_) | Hops::Nowhere(_) => "nothing".into(),
    };
    let decoys: Vec<String> = check.families.iter().map(|family| plan.decoy_of(*family).to_string()).collect();
    format!("{whole}; and where something answers without proof of who it is, one to the decoy ({})", listed(&decoys))
}

/// Subjects behind one address, times attempts, times what one attempt takes.
fn most_an_address(plan: &Plan, check: &Check) -> usize {
    let somewhere = check.families.first().map_or(plan.decoy.v4, |family| plan.decoy_of(*family));
    let to = std::net::SocketAddr::new(somewhere, check.probe.first_hop().map_or(0, |hop| hop.port));
    let subjects = check.probe.subjects(to, check.source, check.timeout, check.resolver);
    let once: usize = subjects.iter().map(|(_, approach)| check.probe.most_connections(&approach.aim)).sum();
    once.saturating_mul(check.attempts)
}

/// Every outcome that the check accepts; statuses as ranges.
fn accepted(check: &Check) -> Vec<String> {
    let mut words: Vec<String> = Outcome::all().filter(|o| check.expectation.accepts(*o)).map(|o| o.to_string()).collect();
    let accepts = |code: u16| (200..600).contains(&code) && check.expectation.accepts(Outcome::Status(code));
    for first in (200..600).filter(|code| accepts(*code) && !accepts(code - 1)) {
        let last = (first..600).take_while(|code| accepts(*code)).last().unwrap_or(first);
        words.push(if first == last { format!("status:{first}") } else { format!("status:{first} to status:{last}") });
    }
    words
}

/// What silence takes to count.
fn silence(check: &Check) -> String {
    let packets = match check.probe.transport() {
        Transport::Tcp => "SYNs",
        Transport::Udp => "datagrams",
        Transport::Icmp => "echoes",
    };
    let alive = match check.expectation.needs_target_for_silence() {
        true => ", and with the proof target: who is there may be as silent to strangers",
        false => "",
    };
    format!("silence counts only where at least {MIN_SENT} {packets} left this host in each attempt{alive}")
}

fn of_witness(plan: &Plan, check: &Check, witness: &Check) -> String {
    let gives: Vec<&str> = Proof::ALL.into_iter().filter(|proof| could_give(witness, check, *proof)).map(Proof::token).collect();
    let gives = if gives.is_empty() { "no proof by the file alone".into() } else { listed(&gives) };
    let window = show(plan.witness_window);
    format!(
        "{} ({} {}): must get through within {window} before and {window} after; can give {gives}",
        witness.name,
        witness.probe.kind(),
        witness.target
    )
}

fn requires(check: &Check) -> String {
    if !check.expectation.is_inverted() {
        return "no proof: what got through is its own".into();
    }
    let tell = |proof: Proof| match proof {
        Proof::Vantage => "vantage (this place was online, by that family and source)",
        Proof::Port => "port (that port got out, to another host)",
        Proof::Target => "target (the target was alive at that very address)",
    };
    match check.require.is_empty() {
        true => "no proof: a block counts even where this place itself was cut off".into(),
        false => listed(&check.require.iter().map(tell).collect::<Vec<_>>()),
    }
}

fn holds(check: &Check) -> String {
    if !check.expectation.is_inverted() {
        return "at every address an attempt is accepted".into();
    }
    let witnesses = if check.witnesses.is_empty() { "" } else { ", every witness got through around it" };
    let required = if check.require == ProofSet::NONE { String::new() } else { format!(", and it has {}", proofs(check.require)) };
    let silent = match check.expectation.needs_target_for_silence() && !check.require.has(Proof::Target) {
        true if check.expectation.accepts_silence() => "; where there is only silence, the proof target too",
        _ => "",
    };
    format!("every attempt at every address is accepted{witnesses}{required}{silent}")
}

fn violated(check: &Check) -> String {
    let silence = match check.witnesses.is_empty() {
        true => "silence never counts, since no witness is named",
        false => "silence counts where a witness gave a proof",
    };
    let answered = if check.witnesses.is_empty() { "" } else { ", while every witness got through or the answer is authenticated" };
    if let Some(contrary) = check.expectation.only_violated_by().filter(|_| !check.expectation.is_inverted()) {
        return format!("no attempt at some address is accepted, and one ends in {contrary}{answered}. Nothing else violates it");
    }
    if let Some(contrary) = check.expectation.only_violated_by() {
        return format!(
            "an attempt ends in {contrary}, whatever the witnesses say; it stays so until a run holds. Nothing else violates it"
        );
    }
    match check.expectation.is_inverted() {
        true => format!(
            "an attempt gets in, whatever the witnesses say; it stays so until a run holds. Or it is kept out by an answer that is not \
             accepted, each time{answered} ({silence})"
        ),
        false => format!("no attempt at some address is accepted, and somebody answered otherwise{answered} ({silence})"),
    }
}

fn unproven(check: &Check) -> String {
    let mut reasons = Vec::new();
    if check.expectation.only_violated_by().is_some() {
        reasons.push("there was no answer, or it says neither yes nor no");
    }
    if check.expectation.is_inverted() {
        reasons.push("the attempts disagree");
        if !check.witnesses.is_empty() {
            reasons.push("a witness failed");
        }
        if !check.require.is_empty() {
            reasons.push("a required proof is missing");
        }
    } else if check.expectation.only_violated_by().is_none() {
        reasons.push("there was only silence");
    }
    if check.probe.needs_resolving() {
        reasons.push("the name does not resolve");
    }
    reasons.push("this host could not even try");
    reasons.push("the decoy answers too");
    let undecided: Vec<String> = check.expectation.undecided().iter().map(ToString::to_string).collect();
    let undecided = if undecided.is_empty() { String::new() } else { format!("; {} decide nothing", listed(&undecided)) };
    format!("{}{undecided}", reasons.join("; or "))
}

fn stale(check: &Check) -> String {
    format!(
        "{} after its last run began: the interval of {}, {} of grace, and {} for a run with its witnesses at worst. Then it is unproven",
        show(check.stale_after()),
        show(check.interval),
        show(check.interval.min(MAX_GRACE)),
        show(check.worst_run)
    )
}

fn proofs(set: ProofSet) -> String {
    listed(&set.iter().map(Proof::token).collect::<Vec<_>>())
}

/// Words with commas, and `and` before the last.
fn listed<T: AsRef<str>>(words: &[T]) -> String {
    match words {
        [] => String::new(),
        [one] => one.as_ref().into(),
        [others @ .., last] => format!("{} and {}", others.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", "), last.as_ref()),
    }
}

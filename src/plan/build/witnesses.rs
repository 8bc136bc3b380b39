//! Witnesses: names to numbers, and whether the file alone lets them give the proofs that are required.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::check::Draft;
use super::variants::unsure_of_the_page;
use crate::config::{At, Common, Context, Own, Place, did_you_mean};
use crate::observation::{Family, Transport};
use crate::plan::{Check, Witness};
use crate::probe::{DNS_PORT, Dns, Icmp, Probe, RecordType, Technique};
use crate::target::{Host, HostPort};
use crate::witness::Proof;

/// Each check's witnesses by number, in the order of the checks. What is wrong with them is noted.
pub(super) fn resolve(drafts: &[Draft<'_>], defaults: &Common, context: &Context<'_>) -> Vec<Vec<Witness>> {
    let mut numbers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, draft) in drafts.iter().enumerate() {
        if let Some(name) = &draft.written.name {
            numbers.entry(name.value.as_str()).or_default().push(i);
        }
    }
    let known = Known { drafts, numbers, context };
    let inherited = defaults.witness.as_ref().map_or(Vec::new(), |list| list.value.iter().filter_map(|w| known.find(w)).collect());
    let named = drafts.iter().enumerate().map(|(i, draft)| known.witnesses_of(i, draft, &inherited, defaults));
    named.collect()
}

/// For a proxy that a witness relays through with CONNECT, `not-understood` is no denial of CONNECT (SPEC section 8).
pub(super) fn controls(checks: &mut [Check]) {
    let relayed: Vec<Option<HostPort>> = checks.iter().map(|c| c.probe.tunnel().map(|via| via.proxy.clone())).collect();
    for check in checks {
        let through = |w: usize| relayed.get(w).and_then(Option::as_ref);
        let suite = matches!(check.probe, Probe::OpenProxy(_));
        if suite && check.witness_numbers().filter_map(through).any(|proxy| Some(proxy) == check.probe.target()) {
            check.expectation = check.expectation.clone().controlled_by(vec![Technique::CONNECT.id()]);
        }
    }
}

struct Known<'a, 'f> {
    drafts: &'a [Draft<'f>],
    numbers: BTreeMap<&'a str, Vec<usize>>,
    context: &'a Context<'a>,
}

impl Known<'_, '_> {
    /// The positive check that is meant.
    fn find(&self, witness: &At<String>) -> Option<Witness> {
        let inverted = |numbers: &[usize]| numbers.iter().any(|i| self.drafts.get(*i).is_some_and(|d| d.inverted == Some(true)));
        let Some(numbers) = self.numbers.get(witness.value.as_str()) else {
            let positive = self.numbers.iter().filter(|(_, numbers)| !inverted(numbers));
            let remedy = match positive.clone().count() {
                0 => "write the name of a [[check]] with expect = \"open\"".into(),
                _ => did_you_mean(&witness.value, positive.map(|(name, _)| *name)),
            };
            self.context.wrong(&witness.place, format!("there is no check \"{}\"; {remedy}", witness.value));
            return None;
        };
        if numbers.iter().any(|i| self.drafts.get(*i).is_some_and(|d| d.written.placeholder)) {
            let message = format!(
                "the check \"{}\" is a template without a target of its own, and never run by itself; name a check that has one",
                witness.value
            );
            self.context.wrong(&witness.place, message);
            return None;
        }
        if inverted(numbers) {
            let message =
                format!("the check \"{}\" is inverted, and a block proves no way; name a check that expects something open", witness.value);
            self.context.wrong(&witness.place, message);
            return None;
        }
        let of_ranges = |i: &usize| self.drafts.get(*i).is_some_and(|d| matches!(d.written.own, Some(Own::Ranges(_))));
        if numbers.iter().any(of_ranges) {
            let message = format!(
                "the check \"{}\" compares lists: that they are the same proves no way, and that they differ breaks none; \
                 name a check of kind tcp or http",
                witness.value
            );
            self.context.wrong(&witness.place, message);
            return None;
        }
        Some(Witness { name: witness.value.clone(), numbers: numbers.clone() })
    }

    fn witnesses_of(&self, number: usize, draft: &Draft<'_>, inherited: &[Witness], defaults: &Common) -> Vec<Witness> {
        let before = self.context.problems();
        let named = match &draft.written.common.witness {
            Some(own) => own.value.iter().filter_map(|w| self.find_other(number, w)).collect(),
            None => inherited.iter().filter(|witness| !witness.numbers.contains(&number)).cloned().collect::<Vec<Witness>>(),
        };
        let built_in = match &draft.written.own {
            Some(Own::Ports(sweep)) => sweep.open.as_ref().is_some_and(|open| !open.value.is_empty()),
            _ => false,
        };
        let named_at_all = draft.written.has_witness || defaults.witness.is_some() || built_in;
        if draft.inverted == Some(true) && !named_at_all {
            let message = "names no witness: a block seen by a monitor that is itself offline looks the same; \
                           write witness = [\"NAME\"] of a check that expects something open, \
                           or witness = [] and require = [] to do without";
            self.context.wrong(&draft.written.place, message);
        } else if let Some(check) = draft.check.as_ref().filter(|_| self.context.problems() == before && !draft.written.placeholder) {
            let numbers = named.iter().flat_map(|witness| &witness.numbers);
            let witnesses: Option<Vec<&Check>> = numbers.map(|i| self.drafts.get(*i).and_then(|d| d.check.as_ref())).collect();
            if let Some(witnesses) = witnesses {
                self.vet_proofs(check, &witnesses, draft);
            }
        }
        named
    }

    fn find_other(&self, number: usize, witness: &At<String>) -> Option<Witness> {
        if self.numbers.get(witness.value.as_str()).is_some_and(|numbers| numbers.contains(&number)) {
            self.context.wrong(&witness.place, "a check cannot be its own witness; name another one, or none");
            return None;
        }
        self.find(witness)
    }

    /// Every required proof must be possible by the file alone.
    fn vet_proofs(&self, check: &Check, witnesses: &[&Check], draft: &Draft<'_>) {
        let written = &draft.written.common;
        if !check.expectation.is_inverted() {
            if let Some(require) = &written.require {
                self.context.hint(&require.place, "has no effect, a check that expects something open holds by what it sees; leave it out");
            }
            return;
        }
        let place = written.require.as_ref().map(|r| &r.place).or(written.witness.as_ref().map(|w| &w.place));
        let place = place.unwrap_or(&draft.written.place);
        let given = |proof| witnesses.iter().any(|w| could_give(w, check, proof)) || (proof == Proof::Vantage && check.open.is_some());
        for proof in check.require.iter().filter(|proof| !given(*proof)) {
            self.context.wrong(place, format!("the proof {} is required, and {}", proof.token(), why_not(proof, check, witnesses)));
        }
        match unsure_of_the_page(check, witnesses) {
            Some(Err(why)) => self.context.wrong(place, why),
            Some(Ok(why)) => self.context.hint(&draft.written.place, why),
            None => {}
        }
        if check.require.is_empty() {
            self.context
                .hint(place, "require is empty, so a block counts although the way there may be dead; write require = [\"vantage\"]");
        }
        if let Probe::Dns(dns) = &check.probe {
            // What is dropped on the way is silence, and that is no block of a name; but a server that denies everything is.
            if let Some(server) = server_without_witness(dns, witnesses) {
                let message = format!(
                    "no witness shows that {server} answers at all, so a server that denies every name looks like the block; \
                     name a dns check with expect = \"open\" that asks it for a name that exists"
                );
                self.context.hint(&draft.written.place, message);
            }
        } else if matches!(check.probe, Probe::Ports(_)) {
            // No witness goes to every port of a sweep.
        } else if !check.require.has(Proof::Port) && !witnesses.iter().any(|w| could_give(w, check, Proof::Port)) {
            let port = port_of(check);
            let message = match check.probe.transport() {
                Transport::Icmp => "no witness asks for an echo, so a network that drops echoes on the way looks like the block; \
                                    name one of kind icmp that is answered elsewhere"
                    .into(),
                _ => format!(
                    "no witness goes to {port}, so a network that drops {port} on the way looks like the block; \
                     name one that reaches {port} elsewhere"
                ),
            };
            self.context.hint(&draft.written.place, message);
        }
        self.vet_silence(check, witnesses, place, draft);
    }

    /// Where silence needs the proof `target`, some witness should be able to give it.
    fn vet_silence(&self, check: &Check, witnesses: &[&Check], place: &Place, draft: &Draft<'_>) {
        let expectation = &check.expectation;
        let needed = expectation.accepts_silence() && expectation.needs_target_for_silence() && !check.require.has(Proof::Target);
        if !needed || witnesses.iter().any(|w| could_give(w, check, Proof::Target)) {
            return;
        }
        if expectation.accepts_nothing_but_silence() {
            let message = format!(
                "nothing but silence is accepted, which is no block without the proof target, and {}",
                why_not(Proof::Target, check, witnesses)
            );
            self.context.wrong(place, message);
        } else {
            let message = format!(
                "silence will be unproven, an open UDP port may be as silent, and no witness can give the proof target: \
                 {}; name one, or let the firewall reject instead of drop",
                what_gives_target(check, witnesses)
            );
            self.context.hint(&draft.written.place, message);
        }
    }
}

/// Whether this witness could ever give this proof for the check, by the file alone.
pub fn could_give(witness: &Check, check: &Check, proof: Proof) -> bool {
    match proof {
        Proof::Vantage => goes_the_same_way(witness, check),
        Proof::Port => {
            let there = doors(witness);
            let elsewhere = |here: &HostPort| {
                there.iter().any(|there| there.port == here.port && (there.host.ip().is_none() || there.host != here.host))
            };
            let carried = transports(witness).iter().any(|t| transports(check).contains(t));
            goes_the_same_way(witness, check) && carried && doors(check).iter().any(elsewhere)
        }
        Proof::Target => reaches_the_same(witness, check),
    }
}

fn goes_the_same_way(witness: &Check, check: &Check) -> bool {
    let shared = Family::BOTH.into_iter().any(|f| looks_at(witness, f) && looks_at(check, f));
    witness.probe.via().is_none() && witness.source == check.source && shared
}

fn reaches_the_same(witness: &Check, check: &Check) -> bool {
    match (&witness.probe, &check.probe) {
        (Probe::Peer(_), _) => return true,
        // A query tells of what others reached only by their verdicts, and of these only tcp, tls and http are believed.
        (Probe::PromQl(promql), ours) => {
            return promql.query.contains("mustnot_check_verdict") && ours.transport() != Transport::Udp;
        }
        (Probe::Dns(theirs), Probe::Dns(ours)) => return witness.source != check.source && asks_the_same(theirs, ours),
        // An answer to a question says nothing of a connection, nor the other way round.
        (Probe::Dns(_), _) | (_, Probe::Dns(_)) => return false,
        _ => {}
    }
    let (Some(theirs), Some(ours)) = (witness.probe.target(), check.probe.target()) else { return false };
    let there = |hop: &HostPort| match &check.probe {
        Probe::Icmp(echo) => {
            (echo.target.may_be(&hop.host) && !are_two_names(&echo.target.host.host, &hop.host)) || asks_inside(witness, echo)
        }
        Probe::Ports(ports) => hop.host.ip().is_some_and(|ip| ports.hosts.contains(ip)) || could_be_one(hop, ours),
        _ => could_be_one(hop, ours),
    };
    let tunnelled = witness.probe.tunnel().is_some() && there(theirs);
    let from_elsewhere = witness.source != check.source && (witness.probe.first_hop().is_some_and(there) || may_be_led(witness));
    is_same_question(witness, check) && (tunnelled || from_elsewhere || has_the_certificate(witness, check))
}

/// The check tries those without the right client certificate, and the witness goes the same way with it.
fn has_the_certificate(witness: &Check, check: &Check) -> bool {
    let hops = witness.probe.first_hop().zip(check.probe.first_hop());
    let way = hops.is_some_and(|(theirs, ours)| could_be_one(theirs, ours)) && witness.probe.via().is_none();
    check.probe.plays_strangers() && witness.probe.shows_own_certificate() && way && witness.source == check.source
}

/// The same name and a type in common, at a server in common; the system's servers are known when it runs.
fn asks_the_same(a: &Dns, b: &Dns) -> bool {
    let server = a.servers.is_empty() || b.servers.is_empty() || a.servers.iter().any(|s| b.servers.contains(s));
    server && a.target == b.target && a.records.iter().any(|r| b.records.contains(r))
}

/// A server of the check that no witness asks for something that exists.
fn server_without_witness(dns: &Dns, witnesses: &[&Check]) -> Option<String> {
    let asked = |server: Option<&SocketAddr>| {
        witnesses.iter().any(|w| match (&w.probe, server) {
            (Probe::Dns(theirs), Some(server)) => theirs.servers.contains(server),
            (Probe::Dns(theirs), None) => theirs.servers.is_empty(),
            _ => false,
        })
    };
    if dns.servers.is_empty() {
        return (!asked(None)).then(|| "the system's name server".into());
    }
    dns.servers.iter().find(|server| !asked(Some(server))).map(ToString::to_string)
}

/// Where the first packets go. The system's name servers stand for any host at the port of DNS.
fn doors(check: &Check) -> Vec<HostPort> {
    match &check.probe {
        Probe::Dns(dns) if !dns.servers.is_empty() => dns.servers.iter().copied().map(HostPort::from).collect(),
        probe => probe.first_hop().cloned().into_iter().collect(),
    }
}

/// What carries the first packets.
fn transports(check: &Check) -> Vec<Transport> {
    match &check.probe {
        Probe::Dns(dns) if dns.records.contains(&RecordType::AXFR) => vec![Transport::Tcp, Transport::Udp],
        probe => vec![probe.transport()],
    }
}

/// Whether the witness asks what the check asks, by the same transport; that an address is alive, anything shows.
fn is_same_question(witness: &Check, check: &Check) -> bool {
    let of = |check: &Check| (check.probe.transport(), check.probe.asked());
    matches!(check.probe, Probe::Icmp(_)) || of(witness) == of(check)
}

/// Whether both are names, and not the same one.
fn are_two_names(a: &Host, b: &Host) -> bool {
    a.ip().is_none() && b.ip().is_none() && a != b
}

/// Whether two echo checks have addresses in common.
fn asks_inside(witness: &Check, echo: &Icmp) -> bool {
    let host = &echo.target.host.host;
    matches!(&witness.probe, Probe::Icmp(other) if other.target.may_be(host) && !are_two_names(&other.target.host.host, host))
}

/// The port of a check with its transport, as messages name it.
fn port_of(check: &Check) -> String {
    let port = check.probe.first_hop().map_or(0, |hop| hop.port);
    if check.probe.transport() == Transport::Udp { format!("port {port}/udp") } else { format!("port {port}") }
}

/// Whether redirects take the check wherever they like, directly.
fn may_be_led(check: &Check) -> bool {
    matches!(&check.probe, Probe::Http(http) if http.follow_redirects && http.via.is_none())
}

/// Whether the check looks at this family, as far as `families`, its source and a literal address say.
fn looks_at(check: &Check, family: Family) -> bool {
    let of = |ip| Family::of(ip) == family;
    let some_door = doors(check).iter().any(|door| door.host.ip().is_none_or(of));
    check.families.contains(&family) && some_door && check.source.is_none_or(of)
}

/// The same host and port (0 of a sweep is any); a name may stand for an address.
fn could_be_one(a: &HostPort, b: &HostPort) -> bool {
    let one_is_a_name = a.host.ip().is_none() != b.host.ip().is_none();
    (a.port == b.port || b.port == 0) && (a.host == b.host || one_is_a_name)
}

/// Why none of the witnesses can give the proof, and what to write.
fn why_not(proof: Proof, check: &Check, witnesses: &[&Check]) -> String {
    if witnesses.is_empty() {
        return "there is no witness to give it; name one in witness, or write require = []".into();
    }
    let source = check.source.map_or("no source".to_string(), |s| format!("source = \"{s}\""));
    match proof {
        Proof::Vantage => {
            format!("no witness can give it: that takes one without via, with {source} as here and a family in common; name one")
        }
        Proof::Port if matches!(check.probe, Probe::Ports(_)) => {
            "a sweep cannot have it: that takes a witness on every one of its ports; leave it out, or check the port with kind tcp".into()
        }
        Proof::Port if check.probe.transport() == Transport::Icmp => {
            format!("no witness can give it: that takes one of kind icmp to another host, with {source} as here; name one")
        }
        Proof::Port if matches!(check.probe, Probe::Dns(_)) => {
            let port = doors(check).first().map_or(DNS_PORT, |door| door.port);
            format!(
                "no witness can give it: that takes one of kind dns to port {port} of another host, without via, with {source} as here; name one"
            )
        }
        Proof::Port => {
            let port = port_of(check);
            format!("no witness can give it: that takes one to {port} of another host, without via, with {source} as here; name one")
        }
        Proof::Target => format!("no witness can give it: {}; name one", what_gives_target(check, witnesses)),
    }
}

/// What a witness must be to give the proof `target`.
fn what_gives_target(check: &Check, witnesses: &[&Check]) -> String {
    let target = check.probe.target().map_or_else(|| check.target.clone(), ToString::to_string);
    match &check.probe {
        Probe::Udp(udp) => {
            format!("that takes one of kind udp that sends \"{}\" to {target} from another source, or one of kind peer", udp.payload)
        }
        Probe::Icmp(_) => {
            format!("that takes one that reaches {} on any port by a via or from another source, or one of kind peer", check.target)
        }
        Probe::Dns(_) => {
            "that takes one of kind dns that asks the same server the same question from another source, or one of kind peer".into()
        }
        _ => format!(
            "that takes one that reaches {target} by a via or from another source{}, or one of kind peer{}",
            if check.probe.plays_strangers() { " or with the right client_cert_file" } else { "" },
            if witnesses.iter().any(|w| matches!(w.probe, Probe::PromQl(_))) { " or promql, of mustnot_check_verdict" } else { "" }
        ),
    }
}

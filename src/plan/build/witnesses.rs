//! Witnesses: names to numbers, and whether the file alone lets them give the proofs that are required.

use std::collections::BTreeMap;

use super::check::Draft;
use super::variants::unsure_of_the_page;
use crate::config::{At, Common, Context, did_you_mean};
use crate::observation::Family;
use crate::plan::{Check, Witness};
use crate::probe::{Probe, Technique};
use crate::target::HostPort;
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
    let relayed: Vec<Option<HostPort>> = checks.iter().map(|c| c.probe.via().map(|via| via.proxy.clone())).collect();
    for check in checks {
        let through = |w: usize| relayed.get(w).and_then(Option::as_ref);
        let suite = matches!(check.probe, Probe::OpenProxy(_));
        if suite && check.witness_numbers().filter_map(through).any(|proxy| proxy == check.probe.target()) {
            check.expectation = check.expectation.clone().controlled_by(vec![Technique::Connect.id()]);
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
        if inverted(numbers) {
            let message =
                format!("the check \"{}\" is inverted, and a block proves no way; name a check that expects something open", witness.value);
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
        let named_at_all = draft.written.has_witness || defaults.witness.is_some();
        if draft.inverted == Some(true) && !named_at_all {
            let message = "names no witness: a block seen by a monitor that is itself offline looks the same; \
                           write witness = [\"NAME\"] of a check that expects something open, \
                           or witness = [] and require = [] to do without";
            self.context.wrong(&draft.written.place, message);
        } else if let Some(check) = draft.check.as_ref().filter(|_| self.context.problems() == before) {
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
        for proof in check.require.iter().filter(|proof| !witnesses.iter().any(|w| could_give(w, check, *proof))) {
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
        if !check.require.has(Proof::Port) && !witnesses.iter().any(|w| could_give(w, check, Proof::Port)) {
            let port = check.probe.first_hop().port;
            let message = format!(
                "no witness goes to port {port}, so a network that drops port {port} on the way looks like the block; \
                 name one that reaches port {port} elsewhere"
            );
            self.context.hint(&draft.written.place, message);
        }
    }
}

/// Whether this witness could ever give this proof for the check, by the file alone.
fn could_give(witness: &Check, check: &Check, proof: Proof) -> bool {
    match proof {
        Proof::Vantage => goes_the_same_way(witness, check),
        Proof::Port => {
            let (there, here) = (witness.probe.first_hop(), check.probe.first_hop());
            let elsewhere = there.host.ip().is_none() || there.host != here.host;
            goes_the_same_way(witness, check) && there.port == here.port && elsewhere
        }
        Proof::Target => reaches_the_same(witness, check),
    }
}

fn goes_the_same_way(witness: &Check, check: &Check) -> bool {
    let shared = Family::BOTH.into_iter().any(|f| looks_at(witness, f) && looks_at(check, f));
    witness.probe.via().is_none() && witness.source == check.source && shared
}

fn reaches_the_same(witness: &Check, check: &Check) -> bool {
    let target = check.probe.target();
    let tunnelled = witness.probe.via().is_some() && could_be_one(witness.probe.target(), target);
    let from_elsewhere = witness.source != check.source && (could_be_one(witness.probe.first_hop(), target) || may_be_led(witness));
    matches!(witness.probe, Probe::Peer(_)) || tunnelled || from_elsewhere
}

/// Whether redirects take the check wherever they like, directly.
fn may_be_led(check: &Check) -> bool {
    matches!(&check.probe, Probe::Http(http) if http.follow_redirects && http.via.is_none())
}

/// Whether the check looks at this family, as far as `families`, its source and a literal address say.
fn looks_at(check: &Check, family: Family) -> bool {
    let literal = check.probe.first_hop().host.ip();
    let of = |ip| Family::of(ip) == family;
    check.families.contains(&family) && literal.is_none_or(of) && check.source.is_none_or(of)
}

/// The same host and port; a name may stand for an address.
fn could_be_one(a: &HostPort, b: &HostPort) -> bool {
    let one_is_a_name = a.host.ip().is_none() != b.host.ip().is_none();
    a.port == b.port && (a.host == b.host || one_is_a_name)
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
        Proof::Port => {
            let port = check.probe.first_hop().port;
            format!("no witness can give it: that takes one to port {port} of another host, without via, with {source} as here; name one")
        }
        Proof::Target => format!(
            "no witness can give it: that takes one that reaches {} by a via or from another source, or one of kind peer; name one",
            check.probe.target()
        ),
    }
}

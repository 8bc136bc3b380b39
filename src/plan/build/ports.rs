//! `ports`: what is swept, and whether that is little enough, and something at all.

use crate::config::duration::show;
use crate::config::{self, Context};
use crate::expectation::{Accept, Expectation};
use crate::observation::Outcome;
use crate::plan::Check;
use crate::probe::{self, Probe};
use crate::target::PortSet;

/// Packets or connects a second, where the file names no rate: a whole host in about three minutes, and a load that the
/// connection tables of small routers and hosts bear (at 120 s a forgotten SYN, 120,000 entries at worst; at 10 s a refused
/// one, 10,000).
const RATE: u32 = 1000;
/// The most that one check sweeps: addresses times ports.
const MAX_SWEPT: usize = 1 << 20;
/// The most ports of an address that must be open: each is looked at by itself.
const MAX_OPEN: usize = 64;

/// The probe that the keys mean; none where something is wrong, which is noted.
pub(super) fn probe(sweep: &config::Ports, context: &Context<'_>) -> Option<probe::Ports> {
    let before = context.problems();
    let none = PortSet::default();
    let except = sweep.except.as_ref().map_or(&none, |e| &e.value);
    let open = sweep.open.as_ref().map_or(&none, |o| &o.value);
    if let Some(both) = open.iter().find(|port| except.contains(*port))
        && let Some(written) = &sweep.except
    {
        context.wrong(&written.place, format!("leaves out port {both}, which open says must be open; write it in one of them"));
    }
    if let Some(written) = sweep.open.as_ref().filter(|o| o.value.len() > MAX_OPEN) {
        let message = format!("is {} ports; write at most {MAX_OPEN}, or leave out of ports what may be open", written.value.len());
        context.wrong(&written.place, message);
    }
    let ports = sweep.ports.as_ref()?;
    let closed = ports.value.without(except).without(open);
    if closed.is_empty() {
        let message = if ports.value.is_empty() {
            "is empty, so nothing would be looked at; write the ports that must be closed, such as \"1-65535\""
        } else {
            "nothing of it is left after except and open, so nothing would be looked at; write ports that must be closed"
        };
        context.wrong(&ports.place, message);
    }
    let rate = sweep.rate.as_ref().map_or(RATE, |r| u32::try_from(r.value).unwrap_or(RATE));
    let probe = probe::Ports::new(sweep.target.as_ref()?.value.clone(), closed, open.clone(), rate);
    let swept = probe.most_addresses().saturating_mul(probe.closed.len());
    if swept > MAX_SWEPT {
        let most = MAX_SWEPT / probe.most_addresses().max(1);
        let message = format!(
            "is {} ports of up to {} addresses, {swept} in all; write at most {most} ports, or fewer addresses: {MAX_SWEPT} is the bound of one check",
            probe.closed.len(),
            probe.most_addresses()
        );
        context.wrong(&ports.place, message);
    }
    if context.problems() > before {
        return None;
    }
    Some(probe)
}

/// A sweep that may take longer than its interval is legal, and worth a second look.
pub(super) fn hint_at_haste(checks: &[Check], written: &[config::Check], context: &Context<'_>) {
    for (check, written) in checks.iter().zip(written) {
        if matches!(check.probe, Probe::Ports(_)) && check.worst_run > check.interval {
            let seconds = std::time::Duration::from_secs(check.worst_run.as_secs().next_multiple_of(60));
            let message = format!(
                "a sweep by this plan may take up to {} if every port is silent, longer than its interval of {}; \
                 write interval = \"{}\", a higher rate, or fewer ports",
                show(seconds),
                show(check.interval),
                show(seconds)
            );
            context.hint(&written.place, message);
        }
    }
}

/// What its open ports must be.
pub(super) fn open(probe: &Probe) -> Option<Expectation> {
    match probe {
        Probe::Ports(ports) if !ports.open.is_empty() => Expectation::new(vec![Accept::One(Outcome::Connected)]).ok(),
        _ => None,
    }
}

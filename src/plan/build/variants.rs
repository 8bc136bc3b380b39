//! `variants` of an http check: whether they make sense, and which they are.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::check::Builder;
use crate::config::duration::show;
use crate::config::{self, At, listed};
use crate::plan::Check;
use crate::probe::{BUDGET, EXTRA, Pick, Probe, Variant};
use crate::target::Url;
use crate::witness::Proof;

/// A site is tried this often at most.
const MIN_INTERVAL: Duration = Duration::from_secs(3600);

impl Builder<'_> {
    /// The variants that the check picks; none where something is wrong with them, which is noted.
    pub(super) fn variants(&self, http: &config::Http, written: &config::Check, inverted: Option<bool>) -> Option<Vec<Variant>> {
        let Some(picks) = &http.variants else {
            if let Some(spoof) = &http.spoof {
                self.context.wrong(&spoof.place, "is for variants, and there are none; write variants = \"standard\" or leave this out");
            }
            return Some(Vec::new());
        };
        let before = self.context.problems();
        self.vet_surroundings(http, picks, written, inverted);
        let url = &http.target.as_ref()?.value;
        let spoof: Vec<IpAddr> = http.spoof.iter().flat_map(|s| &s.value).map(|net| an_address_of(net.value)).collect();
        let variants = Variant::of(url, &spoof, |name| picks.value.iter().any(|pick| is_picked(&pick.value, name)));
        self.vet_picks(picks, url, &spoof);
        if let (Some(marker), Some(_)) = (&http.body_contains, &http.variants) {
            let holds = |text: &str| text.to_ascii_lowercase().contains(&marker.value.to_ascii_lowercase());
            let somewhere = SocketAddr::from(([192, 0, 2, 1], url.authority.port));
            let own = http.headers.iter().any(|(_, value)| holds(value.expose()));
            if own || holds(&url.to_string()) || variants.iter().any(|v| v.sends(&marker.value, somewhere)) {
                let message = "stands in the requests themselves, so a page that repeats them would have it too; write a text that only the denied page has";
                self.context.wrong(&marker.place, message);
            }
        }
        let attempts = self.either(written, |c| c.attempts.as_ref()).map_or(super::check::ATTEMPTS, |a| a.value);
        let requests = (variants.len() + EXTRA) * attempts;
        if requests > BUDGET {
            let message =
                format!("makes {requests} requests of each address, and at most {BUDGET} are sent; write fewer, or a shorter spoof");
            self.context.wrong(&picks.place, message);
        }
        (self.context.problems() == before).then_some(variants)
    }

    /// What the rest of the check must be.
    fn vet_surroundings(&self, http: &config::Http, picks: &At<Vec<At<Pick>>>, written: &config::Check, inverted: Option<bool>) {
        if inverted == Some(false) {
            self.context.wrong(&picks.place, "are ways round a denial, and this check expects something open; leave it out");
            return;
        }
        if let Some(via) = &http.via.proxy {
            self.context.wrong(&via.place, "a proxy on the way would hear what is meant for the target; leave out via or variants");
        }
        if let Some(certs) = &http.tls.client_certs {
            self.context.wrong(&certs.place, "asks in the place of others, and variants in our own; write a check for each");
        }
        if let Some(method) = http.method.as_ref().filter(|m| m.value != "GET") {
            self.context.wrong(&method.place, "variants ask by GET; write method = \"GET\" or leave it out");
        }
        if http.body_contains.is_none() {
            let message = "need to know the page that must not be seen, since 200 alone may be any page; \
                           write body_contains = \"a text that only the denied page has\"";
            self.context.wrong(&picks.place, message);
        }
        let interval = self.either(written, |c| c.interval.as_ref());
        if interval.is_none_or(|i| i.value < MIN_INTERVAL) {
            let found = interval.map_or(super::check::INTERVAL, |i| i.value);
            let message = format!("many odd requests every {} are too many for a site; write interval = \"1h\" or more", show(found));
            self.context.wrong(written.common.interval.as_ref().map_or(&picks.place, |i| &i.place), message);
        }
        if !self.either(written, |c| c.require.as_ref()).is_some_and(|r| r.value.has(Proof::Target)) {
            let message = "show nothing unless the page is there; write require = [\"vantage\", \"target\"], \
                           and a witness that reaches it by the allowed way";
            self.context.wrong(written.common.require.as_ref().map_or(&picks.place, |r| &r.place), message);
        }
    }

    /// Every pick must pick something.
    fn vet_picks(&self, picks: &At<Vec<At<Pick>>>, url: &Url, spoof: &[IpAddr]) {
        let made = |pick: &Pick| !Variant::of(url, spoof, |name| is_picked(pick, name)).is_empty();
        let mut forging = Variant::names().filter(|name| Variant::forges(name));
        for pick in &picks.value {
            match &pick.value {
                Pick::Standard if picks.value.len() > 1 => {
                    self.context.wrong(&pick.place, "\"standard\" is all of them; write it alone, or leave it out");
                }
                Pick::Standard if spoof.is_empty() => {
                    let message =
                        "forge no address, since spoof names none; write spoof = [\"203.0.113.10\"], the addresses that are let in";
                    self.context.hint(&pick.place, message);
                }
                Pick::Named(name) if !made(&pick.value) => {
                    let why = if spoof.is_empty() && Variant::forges(name) {
                        "carries an address of spoof, which names none; write spoof = [\"203.0.113.10\"], the addresses that are let in"
                    } else {
                        "does not apply to this target; leave it out"
                    };
                    self.context.wrong(&pick.place, format!("\"{name}\" {why}"));
                }
                _ => {}
            }
        }
        let picked = |name: &str| picks.value.iter().any(|pick| is_picked(&pick.value, name));
        if !spoof.is_empty() && !forging.any(picked) {
            self.context.wrong(&picks.place, "pick none that carries an address; add \"AD-05\" or \"AD-06\", or leave out spoof");
        }
    }
}

/// What the witnesses of a check with variants should say of its page. What is wrong is given as an error, else as a hint.
pub(super) fn unsure_of_the_page(check: &Check, witnesses: &[&Check]) -> Option<Result<String, String>> {
    let Probe::Http(http) = &check.probe else { return None };
    let marker = http.body_contains.as_ref().filter(|_| !http.variants.is_empty())?;
    let pages: Vec<_> =
        witnesses.iter().filter_map(|w| if let Probe::Http(page) = &w.probe { Some((&w.name, page)) } else { None }).collect();
    let same = |host: &Url| host.authority.host == http.url.authority.host;
    if pages.iter().any(|(_, page)| same(&page.url) && page.body_contains.as_ref() == Some(marker)) {
        return None;
    }
    let there: Vec<&str> = pages.iter().filter(|(_, page)| same(&page.url)).map(|(name, _)| name.as_str()).collect();
    if there.is_empty() {
        return Some(Ok("no witness here sees the page itself, so a body_contains that it does not have would find nothing; \
                        write the same body_contains where the peer's check is"
            .into()));
    }
    Some(Err(format!(
        "the witness {} does not look for the same text, so one that the page does not have would find nothing; write the same body_contains there",
        listed(there.into_iter())
    )))
}

fn is_picked(pick: &Pick, name: &str) -> bool {
    match pick {
        Pick::Standard => true,
        Pick::Named(picked) => picked == name || name.split(' ').next() == Some(picked.as_str()),
    }
}

/// An address of the network that a host could have.
fn an_address_of(net: IpNet) -> IpAddr {
    net.hosts().next().unwrap_or(net.addr())
}

//! Templates: checks whose recipe is run against targets that are named when it is asked for, by whom the web listener lets in.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::probe::Kind;
use crate::proxy::address::forms;

/// A check marked `template = true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The name of the check.
    pub name: String,
    /// What a target must be.
    pub kind: Kind,
    /// Where a target may lie.
    pub within: Arc<Within>,
}

/// `allow_targets`: the networks that every address of a target must lie in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Within(pub Vec<IpNet>);

impl Within {
    /// Whether the address may be dialled: it, and every IPv4 address that an IPv6 one may carry a packet to.
    pub fn allows(&self, ip: IpAddr) -> bool {
        forms(ip).into_iter().all(|form| self.0.iter().any(|net| net.contains(&form)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_must_be_allowed() {
        let within = |nets: &[&str]| Within(nets.iter().map(|net| net.parse().unwrap()).collect());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let office = within(&["192.0.2.0/24", "2001:db8::/32", "64:ff9b::/96", "2002::/16"]);
        for allowed in ["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.7", "2001:db8::1", "64:ff9b::192.0.2.7", "2002:c000:0207::1"] {
            assert!(office.allows(ip(allowed)), "{allowed}");
        }
        for outside in [
            "192.0.1.255",
            "192.0.3.0",
            "127.0.0.1",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "2001:db9::1",
            "::1",
            "::192.0.2.7",
        ] {
            assert!(!office.allows(ip(outside)), "{outside}");
        }
        assert!(!within(&[]).allows(ip("192.0.2.7")));
    }
}

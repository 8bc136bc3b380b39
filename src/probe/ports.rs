//! Kind `ports`: the sweep. Everything is closed but what is named; that is asked by `net::sweep`, and one by one where it
//! is not as expected.

use std::net::{IpAddr, SocketAddr};

use tokio::time::Instant;

use super::{Approach, Ended, Hops, Tcp};
use crate::observation::{Evidence, Subject};
use crate::target::{HostPort, Hosts, PortSet};

/// The most addresses of one name that are swept; more is `unproven` for want of coverage.
pub const MAX_NAMED: usize = 8;

/// Kind `ports`.
#[derive(Debug, PartialEq)]
pub struct Ports {
    /// Whose ports.
    pub hosts: Hosts,
    /// The host, or the first of them; a sweep's port is 0, which stands for every one.
    pub target: HostPort,
    /// The ports that must be closed.
    pub closed: PortSet,
    /// The ports that must be open.
    pub open: PortSet,
    /// Packets or connects a second, at most.
    pub rate: u32,
}

impl Ports {
    /// What is swept.
    pub fn new(hosts: Hosts, closed: PortSet, open: PortSet, rate: u32) -> Ports {
        let target = HostPort { host: hosts.first(), port: 0 };
        Ports { hosts, target, closed, open, rate }
    }

    /// How many ports are swept at a time: about twenty seconds of work, and at least one address.
    pub fn wave(&self) -> usize {
        (self.rate as usize).saturating_mul(20).max(self.closed.len()).max(1)
    }

    /// How many addresses there may be.
    pub fn most_addresses(&self) -> usize {
        self.hosts.addresses().map_or(MAX_NAMED, |addresses| addresses.len())
    }

    /// Where the first packets go.
    pub(super) fn hops(&self) -> Hops<'_> {
        match (&self.hosts, self.hosts.addresses()) {
            (Hosts::Net(_) | Hosts::Range(..), Some(addresses)) => {
                Hops::Addresses(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect())
            }
            _ => Hops::Host(&self.target),
        }
    }

    /// One handshake with one port.
    pub(super) async fn attempt(&self, approach: &Approach, deadline: Instant, evidence: &mut Evidence) -> Ended {
        Tcp { target: self.target.clone() }.attempt(approach, deadline, evidence).await
    }

    /// One port of an address whose every port is `all`.
    pub fn port(all: &Subject, ip: IpAddr, port: u16) -> Subject {
        let to = SocketAddr::new(ip, port);
        Subject { address: to.to_string(), dialled: Some(to), ..all.clone() }
    }
}

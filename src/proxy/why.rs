//! The rule that decided a request, with what it met: a sentence for the log of events and for `mustnot proxy explain`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::proxy::address::Block;
use crate::proxy::destination::Destination;
use crate::target::fold_mapped;

/// Why a request was refused. `Display` names the rule as the configuration does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// `allow_from` has no entry for the client.
    Stranger,
    /// What was sent is no request that this proxy reads.
    NoRequest,
    /// Neither CONNECT, nor, where there are `http_ports`, a request in absolute form.
    Method,
    /// The port is not listed.
    Port(u16),
    /// `deny_to` has the name.
    NameDenied(Destination),
    /// `allow_to` has only names, and not this one.
    NameUnlisted,
    /// The name gave no address; the last question's failure, where one failed.
    Unresolved(Option<String>),
    /// `deny_to` has the address.
    AddressDenied(IpAddr, Destination),
    /// This very process listens there.
    Own(SocketAddr),
    /// The address, or one hidden in it, is no public destination.
    Special(IpAddr, &'static Block),
    /// `allow_to` has neither the name nor the address.
    AddressUnlisted(IpAddr),
    /// All seats are taken, or all that one client may have.
    NoSeat,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Stranger => f.write_str("no entry of allow_from holds the client's address"),
            Why::NoRequest => f.write_str("what was sent is no request"),
            Why::Method => f.write_str("only CONNECT is served, and where http_ports lists ports, requests in absolute form (http://...)"),
            Why::Port(port) => write!(f, "port {port} is not listed (connect_ports for CONNECT, http_ports for absolute form)"),
            Why::NameDenied(rule) => write!(f, "deny_to has {rule}"),
            Why::NameUnlisted => f.write_str("allow_to does not have the name"),
            Why::Unresolved(None) => f.write_str("the name has no address"),
            Why::Unresolved(Some(failure)) => f.write_str(failure),
            Why::AddressDenied(ip, rule) => write!(f, "{ip} is refused: deny_to has {rule}"),
            Why::Own(at) => write!(f, "{at} is where this very process listens"),
            Why::Special(ip, block) => {
                let Block { net, class, document } = block;
                let how = if net.contains(&fold_mapped(*ip)) { "is" } else { "hides an address that is" };
                write!(f, "{ip} {how} {class} ({net}, {document}), and allow_private does not list it")
            }
            Why::AddressUnlisted(ip) => write!(f, "{ip} is not in allow_to, and neither is the name"),
            Why::NoSeat => f.write_str("as many connections as allowed are open (max_connections, max_per_client)"),
        }
    }
}

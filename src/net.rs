//! The way to the wire: resolving and dialling under one deadline. The only place that opens a socket for a probe.

use std::net::IpAddr;

use nix::sys::socket::SockaddrStorage;

pub mod ask;
pub mod connect;
pub mod dns;
pub mod echo;
pub mod failure;
pub mod h2;
pub mod http;
pub mod pace;
pub mod resolve;
pub mod sweep;
pub mod sys;
pub mod tls;

/// Whether it is an address of this host.
pub fn is_own(ip: IpAddr) -> bool {
    own_addresses().contains(&ip)
}

/// The addresses of this host's interfaces (getifaddrs(3)); none where they cannot be read.
pub fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    interfaces.filter_map(|interface| ip_of(interface.address.as_ref()?)).collect()
}

/// The IP address in a socket address, where there is one.
pub fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

/// How many file descriptors this process may have open (getrlimit(2)).
pub fn descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// Raises the soft limit of file descriptors to the hard one (getrlimit(2)); where that is refused the soft one stays.
pub fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, "the file descriptor limit stays low; raise `ulimit -n`");
    }
}

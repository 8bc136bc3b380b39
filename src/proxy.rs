//! stub
use crate::target::PortSet;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
/// stub
#[derive(Debug, Clone)]
pub struct Settings {
    /// s
    pub listen: Vec<SocketAddr>,
    /// s
    pub egress: Vec<IpAddr>,
    /// s
    pub allow_from: Vec<IpNet>,
    /// s
    pub connect_ports: PortSet,
    /// s
    pub allow_private: Vec<IpNet>,
    /// s
    pub header_timeout: Duration,
}

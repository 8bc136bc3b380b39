//! stub
use crate::target::{Host, PortSet, parse_cidr};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
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
    pub deny_to: Vec<Destination>,
    /// s
    pub allow_to: Vec<Destination>,
    /// s
    pub own: Vec<SocketAddr>,
    /// s
    pub header_timeout: Duration,
    /// s
    pub connect_timeout: Duration,
    /// s
    pub idle_timeout: Duration,
    /// s
    pub half_open_timeout: Duration,
    /// s
    pub lifetime: Duration,
    /// s
    pub max_connections: Option<usize>,
    /// s
    pub max_per_client: Option<usize>,
    /// s
    pub max_head: usize,
    /// s
    pub access_log: LogTarget,
    /// s
    pub access_log_format: LogFormat,
}
/// stub
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// s
    Name(String),
    /// s
    Net(IpNet),
}
/// stub
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// s
    Stdout,
    /// s
    File(PathBuf),
}
/// stub
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// s
    Squid,
    /// s
    Combined,
    /// s
    Json,
}
impl Settings {
    /// stub
    #[expect(clippy::new_without_default, reason = "stub")]
    pub fn new() -> Settings {
        Settings {
            listen: vec![],
            egress: vec![],
            allow_from: vec![],
            connect_ports: PortSet::default(),
            allow_private: vec![],
            deny_to: vec![],
            allow_to: vec![],
            own: vec![],
            header_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            half_open_timeout: Duration::from_secs(60),
            lifetime: Duration::from_secs(86400),
            max_connections: None,
            max_per_client: None,
            max_head: 16384,
            access_log: LogTarget::Stdout,
            access_log_format: LogFormat::Squid,
        }
    }
}
impl FromStr for Destination {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(net) = parse_cidr(text) {
            return Ok(Destination::Net(net));
        }
        text.trim_start_matches('.').parse::<Host>().map(|h| Destination::Name(h.to_string()))
    }
}
impl FromStr for LogTarget {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(if text == "-" { LogTarget::Stdout } else { LogTarget::File(text.into()) })
    }
}
impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "squid" => Ok(LogFormat::Squid),
            "combined" => Ok(LogFormat::Combined),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("\"{text}\" is not a log format; write squid, combined or json")),
        }
    }
}

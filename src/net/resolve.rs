//! Resolving names: A and AAAA asked apart, and "could not be asked" never mistaken for "does not exist". For probes nothing is cached.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, Resolver as Hickory, TokioResolver, system_conf};
use tokio::time::{Instant, timeout_at};

use crate::observation::Family;

/// How often one question is sent before it counts as unanswered.
const QUESTIONS: u32 = 2;
/// Where the system's servers are written.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long a [`Cached`] answer is used at most, whatever its time to live says.
const LONGEST_KEPT: Duration = Duration::from_secs(5 * 60);
/// The same of an answer that there is nothing.
const LONGEST_NOTHING: Duration = Duration::from_secs(30);

/// The answer for one family. Only the first three complete a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// At least one address.
    Addresses(Vec<IpAddr>),
    /// The name exists, without an address of this family.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// The question was not answered: time-out, SERVFAIL, REFUSED, no resolver. The text says which.
    Failed(String),
}

/// Where names are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolver {
    /// `/etc/hosts` and `/etc/resolv.conf`, read anew for each question, so that a change is seen at once.
    System,
    /// One server, and nothing else.
    At(SocketAddr),
}

impl Resolver {
    /// Asks for the addresses of `name` in each of `families`, all within `limit`.
    /// The search list of `resolv.conf` is followed; the first candidate with an address, or that cannot be asked, ends it.
    /// A name with a trailing dot is asked for as it stands.
    pub async fn addresses(self, name: &str, families: &[Family], limit: Duration) -> Vec<(Family, Answer)> {
        let deadline = Instant::now() + limit;
        if self == Resolver::System
            && let Some(found) = in_hosts_file(name, families)
        {
            return found;
        }
        let (resolver, candidates) = match self.prepare(name, limit) {
            Ok(ready) => ready,
            Err(why) => return all(families, &Answer::Failed(why)),
        };
        let mut found = all(families, &Answer::NxDomain);
        for candidate in candidates {
            let answers = self.ask(&resolver, &candidate, families, deadline).await;
            if answers.iter().any(|(_, a)| matches!(a, Answer::Addresses(_) | Answer::Failed(_))) {
                return answers;
            }
            for (known, new) in found.iter_mut().zip(answers) {
                if new.1 == Answer::NoData {
                    *known = new;
                }
            }
        }
        found
    }

    /// The resolver, and the fully qualified names to ask for, in order.
    fn prepare(self, name: &str, limit: Duration) -> Result<(TokioResolver, Vec<Name>), String> {
        let wrong = |e: &dyn std::fmt::Display| format!("{self}: {e}");
        let (config, ndots) = self.servers()?;
        let absolute = absolute(name).map_err(|e| wrong(&e))?;
        let search = if name.ends_with('.') { &[] } else { config.search() };
        let searched = search.iter().filter_map(|domain| {
            let mut full = Name::from_ascii(name).and_then(|n| n.append_domain(domain)).ok()?;
            full.set_fqdn(true);
            Some(full)
        });
        let mut candidates: Vec<Name> = searched.collect();
        let dots = name.bytes().filter(|b| *b == b'.').count();
        candidates.insert(if dots >= ndots { 0 } else { candidates.len() }, absolute);

        Ok((self.asking(&config, limit, 0)?, candidates))
    }

    /// The servers to ask, and how many dots make a name absolute.
    fn servers(self) -> Result<(ResolverConfig, usize), String> {
        match self {
            Resolver::System => {
                let (config, options) = system_conf::read_system_conf().map_err(|e| format!("{self}: {e}"))?;
                Ok((config, options.ndots))
            }
            Resolver::At(server) => {
                let on_port = |mut c: ConnectionConfig| {
                    c.port = server.port();
                    c
                };
                let connections = vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())];
                let mut server = NameServerConfig::udp(server.ip());
                server.connections = connections;
                Ok((ResolverConfig::from_parts(None, vec![], vec![server]), 1))
            }
        }
    }

    /// What asks these servers, no question for longer than `limit`, with `kept` answers in its cache.
    fn asking(self, config: &ResolverConfig, limit: Duration, kept: u64) -> Result<TokioResolver, String> {
        let mut options = ResolverOpts::default();
        options.cache_size = kept;
        options.positive_max_ttl = Some(LONGEST_KEPT);
        options.negative_max_ttl = Some(LONGEST_NOTHING);
        options.use_hosts_file = ResolveHosts::Never;
        options.attempts = QUESTIONS as usize - 1;
        options.timeout = limit / QUESTIONS;
        let config = ResolverConfig::from_parts(None, vec![], config.name_servers().to_vec());
        let resolver = Hickory::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build();
        resolver.map_err(|e| format!("{self}: {e}"))
    }

    /// Asks for every family at once.
    async fn ask(self, asking: &TokioResolver, name: &Name, families: &[Family], deadline: Instant) -> Vec<(Family, Answer)> {
        // Each family has the whole time: a mute answer for one must not hide what the other has.
        let ask = async |&family: &Family| match timeout_at(deadline, self.lookup(asking, name, family)).await {
            Ok(answer) => (family, answer),
            Err(_) => (family, Answer::Failed(format!("{self} gave no answer for {} of {name} in time", record_type(family)))),
        };
        join_all(families.iter().map(ask)).await
    }

    async fn lookup(self, resolver: &TokioResolver, name: &Name, family: Family) -> Answer {
        let kind = record_type(family);
        match resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => {
                let addresses: Vec<IpAddr> =
                    lookup.answers().iter().filter_map(|r| r.data.ip_addr()).filter(|ip| Family::of(*ip) == family).collect();
                if addresses.is_empty() { Answer::NoData } else { Answer::Addresses(addresses) }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) if none.response_code == ResponseCode::NXDomain => Answer::NxDomain,
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) if none.response_code == ResponseCode::NoError => Answer::NoData,
            Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::NXDomain))) => Answer::NxDomain,
            Err(other) => Answer::Failed(format!("{self} gave no answer for {kind} of {name}: {other}")),
        }
    }
}

/// A resolver that keeps answers for as long as they say (their TTL, five minutes at most), and asks once where many want the same name
/// at once. `/etc/hosts` is read for each question; servers are read anew, and answers forgotten, when `/etc/resolv.conf` changes.
#[derive(Debug)]
pub struct Cached {
    resolver: Resolver,
    limit: Duration,
    kept: u64,
    now: Mutex<Option<(Option<SystemTime>, TokioResolver)>>,
}

impl Cached {
    /// Asks `resolver`, no question for longer than `limit`, and keeps up to `kept` answers.
    pub fn new(resolver: Resolver, limit: Duration, kept: u64) -> Cached {
        Cached { resolver, limit, kept, now: Mutex::default() }
    }

    /// How long one question may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Asks for the addresses of a name as it stands; no search list is followed.
    pub async fn addresses(&self, name: &str, families: &[Family]) -> Vec<(Family, Answer)> {
        let deadline = Instant::now() + self.limit;
        if self.resolver == Resolver::System
            && let Some(found) = in_hosts_file(name, families)
        {
            return found;
        }
        let ready = absolute(name).map_err(|e| format!("{}: {e}", self.resolver)).and_then(|name| Ok((name, self.asking()?)));
        match ready {
            Ok((name, asking)) => self.resolver.ask(&asking, &name, families, deadline).await,
            Err(why) => all(families, &Answer::Failed(why)),
        }
    }

    fn asking(&self) -> Result<TokioResolver, String> {
        let written = match self.resolver {
            Resolver::System => std::fs::metadata(RESOLV_CONF).and_then(|file| file.modified()).ok(),
            Resolver::At(_) => None,
        };
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match &*now {
            Some((read, asking)) if *read == written => Ok(asking.clone()),
            Some(_) | None => {
                let (config, _) = self.resolver.servers()?;
                let asking = self.resolver.asking(&config, self.limit, self.kept)?;
                *now = Some((written, asking.clone()));
                Ok(asking)
            }
        }
    }
}

/// The name as it stands: no search list is followed.
fn absolute(name: &str) -> Result<Name, ProtoError> {
    let mut name = Name::from_ascii(name)?;
    name.set_fqdn(true);
    Ok(name)
}

/// What `/etc/hosts` says of the name: where it lists it at all, it is the whole answer, as for getaddrinfo(3).
fn in_hosts_file(name: &str, families: &[Family]) -> Option<Vec<(Family, Answer)>> {
    let hosts = Hosts::from_system().ok()?;
    let name = Name::from_ascii(name).ok()?;
    let listed = |family| {
        let lookup = hosts.lookup_static_host(&Query::query(name.clone(), record_type(family)))?;
        let addresses: Vec<IpAddr> = lookup.answers().iter().filter_map(|r| r.data.ip_addr()).collect();
        (!addresses.is_empty()).then_some(Answer::Addresses(addresses))
    };
    if Family::BOTH.iter().all(|f| listed(*f).is_none()) {
        return None;
    }
    Some(families.iter().map(|f| (*f, listed(*f).unwrap_or(Answer::NoData))).collect())
}

fn record_type(family: Family) -> RecordType {
    match family {
        Family::V4 => RecordType::A,
        Family::V6 => RecordType::AAAA,
    }
}

fn all(families: &[Family], answer: &Answer) -> Vec<(Family, Answer)> {
    families.iter().map(|f| (*f, answer.clone())).collect()
}

impl std::fmt::Display for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Resolver::System => f.write_str("the system's resolver (/etc/resolv.conf)"),
            Resolver::At(server) => write!(f, "the resolver {server}"),
        }
    }
}

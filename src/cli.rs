//! The contract with the shell: commands, flags and exit codes (SPEC section 5).

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::duration;
use crate::probe::Kind;
use crate::report::{Conclusion, Format};
use crate::squid::finding::Id as Finding;

/// Every selected check holds, or is unproven and allowed to be while at least one holds; for the other commands: done.
pub const EXIT_HOLDS: u8 = Conclusion::Holds.exit_code();
/// At least one check is violated.
pub const EXIT_VIOLATED: u8 = Conclusion::Violated.exit_code();
/// Usage or configuration error; nothing was probed. `clap` uses the same code.
pub const EXIT_USAGE: u8 = 2;
/// None is violated, at least one is unproven.
pub const EXIT_UNPROVEN: u8 = Conclusion::Unproven.exit_code();
/// Nothing ran: no check selected.
pub const EXIT_NOTHING: u8 = Conclusion::NothingRan.exit_code();
/// What was to be written could not be: a report, a page; or metrics were not taken where they were pushed to. A violation comes before that.
pub const EXIT_REPORT: u8 = 5;
/// `mustnot healthcheck`: the monitor is not well, or could not be asked. Docker reserves 2.
pub const EXIT_UNWELL: u8 = 1;

/// What `--version` says, with what this was made from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (revision ", env!("MUSTNOT_REVISION"), ", Rust ", env!("MUSTNOT_RUSTC"), ")");

/// Proves that what must not be reachable is not reachable, and that the one allowed way still works.
#[derive(Debug, Parser)]
#[command(name = "mustnot", version = VERSION, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What holds for every command.
    #[command(flatten)]
    pub common: Common,
}

const EXIT_CODES: &str =
    "Exit codes: 0 holds, 1 violated, 2 usage or configuration, 3 unproven, 4 nothing selected, 5 report not written, or metrics not taken";

/// Flags of all commands.
#[derive(Debug, Args)]
pub struct Common {
    /// The configuration
    #[arg(long, visible_alias = "config.file", global = true, value_name = "FILE", default_value = "probes.toml")]
    pub config: PathBuf,
    /// How log lines are written to standard error
    #[arg(long, visible_alias = "log.format", global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// The least important log lines to write
    #[arg(long, visible_alias = "log.level", global = true, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
}

/// A form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How important a log line must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Failures of the monitor itself.
    Error,
    /// What should not be so.
    Warn,
    /// What happens.
    Info,
    /// What happens inside.
    Debug,
    /// Everything.
    Trace,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Probe on intervals until told to stop; serve metrics, status page and API; run the embedded proxy and beacon
    Run(Run),
    /// The gate: one round, a report, an exit code
    Check(Check),
    /// One ad-hoc check from flags alone
    Probe(Box<Probe>),
    /// Prove that a breach would be seen: every kind in use is tried on a twin that is open, and on one that is closed
    Drill(Drill),
    /// Run only the embedded proxy; or look at one
    Proxy(Proxy),
    /// Run only the beacon
    Beacon,
    /// Hold a report against the logs of the defences: what VPC flow logs, a WAF or a proxy say of its very probes
    Flowlog(Flowlog),
    /// Look at the configuration
    #[command(subcommand)]
    Config(Config),
    /// Ask the monitor of this host whether it is well, for a container's HEALTHCHECK: 0 if so, else 1
    Healthcheck(Healthcheck),
    /// Write the completions for a shell
    Completions(Completions),
    /// Write the manual page
    Man(Man),
}

/// `mustnot flowlog`.
#[derive(Debug, Args)]
pub struct Flowlog {
    /// A report of `mustnot check --format json`, or an answer of /api/v1/checks: whose probes are looked for
    #[arg(long, value_name = "FILE")]
    pub report: PathBuf,
    /// The logs: files, directories, or - for standard input; gzipped or not
    #[arg(value_name = "LOG", default_value = "-")]
    pub logs: Vec<PathBuf>,
    /// What is written: text, or the report with what was found in it
    #[arg(long, value_enum, default_value_t = FlowlogFormat::Text)]
    pub format: FlowlogFormat,
    /// Where that is written, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The fields of flow logs that come without a header, as they were given to AWS [default: those of version 2]
    #[arg(long, value_name = "FIELDS", value_parser = crate::flowlog::Format::parse)]
    pub flow_format: Option<crate::flowlog::Format>,
    /// How far the clocks of monitor and logs may differ, at most 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_skew, default_value = "5s")]
    pub clock_skew: Duration,
    /// An address as the report has it, and what the logs have in its stead (repeatable): --translated 203.0.113.7=10.0.1.7
    #[arg(long, value_name = "ADDRESS=ADDRESS", value_parser = parse_translated)]
    pub translated: Vec<(std::net::IpAddr, std::net::IpAddr)>,
    /// A network interface on the monitor's side of the defence (repeatable)
    #[arg(long, value_name = "ENI")]
    pub own_interface: Vec<String>,
    /// None of the monitor's own interfaces is in the logs
    #[arg(long, conflicts_with = "own_interface")]
    pub no_own_interface: bool,
}

/// What `mustnot flowlog` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FlowlogFormat {
    /// A paragraph an observation.
    Text,
    /// The report, with `defence` and `contradicted`.
    Json,
}

fn parse_skew(text: &str) -> Result<Duration, String> {
    let skew = duration::parse(text).map_err(|e| e.to_string())?;
    let most = crate::flowlog::MAX_CLOCK_SKEW;
    if skew > most { Err(format!("write at most {}", duration::show(most))) } else { Ok(skew) }
}

fn parse_translated(text: &str) -> Result<(std::net::IpAddr, std::net::IpAddr), String> {
    let both = text.split_once('=').and_then(|(here, there)| Some((here.parse().ok()?, there.parse().ok()?)));
    let (here, there) = both.ok_or("write two addresses, such as 203.0.113.7=10.0.1.7")?;
    Ok((crate::target::fold_mapped(here), crate::target::fold_mapped(there)))
}

/// `mustnot healthcheck`.
#[derive(Debug, Args)]
pub struct Healthcheck {
    /// The page to ask [default: /healthz where [web] listens, or else the proxy's health_listen]
    #[arg(long, value_name = "URL")]
    pub url: Option<crate::target::Url>,
    /// How long it may take, all of it
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "3s")]
    pub timeout: Duration,
}

/// `mustnot completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `mustnot man`.
#[derive(Debug, Args)]
pub struct Man {
    /// A directory for the pages of all commands, mustnot-check.1 and so on; without it, the page of the program to standard output
    #[arg(long, value_name = "DIRECTORY")]
    pub output: Option<PathBuf>,
}

/// `mustnot run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Where metrics, status page and API are served, instead of `[web] listen`
    #[arg(long, visible_alias = "web.listen-address", value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,
}

/// `mustnot check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Run only this check, or every check with this tag (repeatable); its witnesses run too
    #[arg(long, value_name = "NAME|tag:TAG")]
    pub only: Vec<String>,
    /// The form of the report
    #[arg(long, default_value = "text", value_parser = formats())]
    pub format: Format,
    /// Where the report is written, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the same report in another form, too, to a file (repeatable): --also markdown=summary.md
    #[arg(long, value_name = "FORMAT=FILE", value_parser = parse_also)]
    pub also: Vec<(Format, PathBuf)>,
    /// Prove first that a breach would be seen: drill the kinds of what is run
    #[arg(long)]
    pub drill: bool,
    /// How many rounds; the worst of a check's records counts
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Try what is violated or unproven again until then, after a deployment
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub settle: Option<Duration>,
    /// What is not done by then is unproven
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub deadline: Option<Duration>,
    /// This check, or every check with this tag, may be unproven (repeatable)
    #[arg(long, value_name = "NAME|tag:TAG")]
    pub allow_unproven: Vec<String>,
    /// A log of a defence, or a directory of logs (repeatable): what it says of these very probes joins the report
    #[arg(long, value_name = "FILE")]
    pub evidence: Vec<PathBuf>,
    /// How long to wait for what the logs are to say: AWS delivers flow logs within some ten minutes
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "evidence", default_value = "0s")]
    pub evidence_wait: Duration,
    /// Where the metrics go besides.
    #[command(flatten)]
    pub remote_write: RemoteWrite,
}

/// Where the metrics of a run are pushed to, from a place that nothing can scrape.
#[derive(Debug, Default, Args)]
pub struct RemoteWrite {
    /// Push the metrics of the run by Prometheus Remote-Write, such as https://prometheus.example.com/api/v1/write
    #[arg(long, value_name = "URL")]
    pub remote_write: Option<String>,
    /// How often there is such a run: the alert rules tell then when one is missing
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "remote_write")]
    pub remote_write_every: Option<Duration>,
    /// The user; the password is in --remote-write-password-file, or in MUSTNOT_REMOTE_WRITE_PASSWORD
    #[arg(long, value_name = "USER", requires = "remote_write")]
    pub remote_write_user: Option<String>,
    /// A file with the password
    #[arg(long, value_name = "FILE", requires = "remote_write")]
    pub remote_write_password_file: Option<PathBuf>,
    /// A file with a bearer token; it may be in MUSTNOT_REMOTE_WRITE_TOKEN
    #[arg(long, value_name = "FILE", requires = "remote_write")]
    pub remote_write_token_file: Option<PathBuf>,
    /// A PEM file of the authorities to trust instead of Mozilla's
    #[arg(long, value_name = "FILE", requires = "remote_write")]
    pub remote_write_ca_file: Option<PathBuf>,
    /// A label for every series, besides job="mustnot-check" and instance="VANTAGE" (repeatable)
    #[arg(long, value_name = "NAME=VALUE", requires = "remote_write")]
    pub remote_write_label: Vec<String>,
}

/// `mustnot probe`.
#[derive(Debug, Args)]
pub struct Probe {
    /// tcp, tls, http, udp, icmp, dns, ports, egress-ip, peer, promql, ranges or open-proxy
    pub kind: String,
    /// host:port, a URL for http, egress-ip, peer, promql and ranges, a name for dns, a host or network for icmp and ports
    pub target: String,
    /// open, blocked, or outcomes such as refused,timeout; for egress-ip the addresses, as ip:203.0.113.10,203.0.113.11
    #[arg(long, default_value = "open")]
    pub expect: String,
    /// A positive check that shows that this place can reach anything, as KIND:TARGET (repeatable)
    #[arg(long, value_name = "KIND:TARGET")]
    pub witness: Vec<String>,
    /// The proofs that a block must have: vantage, port, target; or none
    #[arg(long, value_delimiter = ',')]
    pub require: Vec<String>,
    /// The address to bind
    #[arg(long)]
    pub source: Option<String>,
    /// One attempt
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Attempts at each address
    #[arg(long)]
    pub attempts: Option<u32>,
    /// ipv4, ipv6 or both
    #[arg(long, value_delimiter = ',')]
    pub families: Vec<String>,
    /// Who resolves names: IP or IP:PORT
    #[arg(long)]
    pub resolver: Option<String>,
    /// Whom to ask, for dns and its dns witnesses: IP or IP:PORT (repeatable)
    #[arg(long, value_name = "SERVER", value_delimiter = ',')]
    pub server: Vec<String>,
    /// What to ask for, for dns: A, AAAA, MX, TXT, AXFR and so on (repeatable)
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    pub record: Vec<String>,
    /// The only answers that are allowed, for dns (repeatable)
    #[arg(long, value_name = "ANSWER")]
    pub answers: Vec<String>,
    /// The proxy to go through, as http://host:port
    #[arg(long)]
    pub via: Option<String>,
    /// What udp sends, if the port is not known for it: dns, ntp, snmp … or hex:00ff; the witnesses of kind udp send it, too
    #[arg(long)]
    pub payload: Option<String>,
    /// Our beacon's URL, for open-proxy (repeatable)
    #[arg(long, value_name = "URL")]
    pub beacon: Vec<String>,
    /// A technique of open-proxy, or standard or quick (repeatable)
    #[arg(long, value_name = "OP-NN")]
    pub technique: Vec<String>,
    /// An address or network that the proxy's own rules allow, to be forged (repeatable)
    #[arg(long, value_name = "CIDR")]
    pub spoof: Vec<String>,
    /// The beacon's key
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Any other key of a check, as KEY=VALUE in TOML (repeatable): --set 'body_contains="ok"'
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// What this place is called in the report
    #[arg(long, default_value = "here")]
    pub vantage: String,
    /// The form of the report
    #[arg(long, default_value = "text", value_parser = formats())]
    pub format: Format,
}

/// `mustnot drill`.
#[derive(Debug, Args)]
pub struct Drill {
    /// Drill this kind, whether it is in use or not (repeatable)
    #[arg(long, value_name = "KIND", value_parser = parse_kind)]
    pub kind: Vec<Kind>,
    /// Send a test alert through every sink too, and say what came of each
    #[arg(long)]
    pub alert: bool,
}

/// `mustnot proxy`: without a command it runs the embedded proxy.
#[derive(Debug, Args)]
pub struct Proxy {
    /// What to do instead of running it.
    #[command(subcommand)]
    pub command: Option<ProxyCommand>,
}

/// What can be done with a proxy besides running it.
#[derive(Debug, Subcommand)]
pub enum ProxyCommand {
    /// Read a squid.conf and name what it leaves open, with the line and what to write instead
    Lint(ProxyLint),
    /// Say what the embedded proxy would decide, by which rule, and which addresses it saw; nothing is dialled
    Explain(ProxyExplain),
}

/// `mustnot proxy explain`.
#[derive(Debug, Args)]
pub struct ProxyExplain {
    /// The client's address
    #[arg(long, value_name = "ADDRESS")]
    pub from: std::net::IpAddr,
    /// Where the client wants to go: HOST:PORT for CONNECT, http://HOST/ for a request in absolute form
    #[arg(long, value_name = "HOST:PORT")]
    pub to: String,
}

/// `mustnot proxy lint`.
#[derive(Debug, Args)]
pub struct ProxyLint {
    /// Squid's configuration; files that it names are read too, those that are not here from beside it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A load balancer stands in front that opens its own connections, as an NLB with IP targets does
    #[arg(long)]
    pub behind_load_balancer: bool,
    /// How long Squid is given to stop before it is killed: `stopTimeout` on ECS, at most 120s on Fargate
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "30s")]
    pub stop_timeout: Duration,
    /// What is wanted all the same: it is shown, and does not count (repeatable)
    #[arg(long, value_name = "ID", value_parser = parse_finding)]
    pub accept: Vec<Finding>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = LintFormat::Text)]
    pub format: LintFormat,
}

/// A form of what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LintFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// `mustnot config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Validate the configuration and hint at what could be proven better
    Check,
    /// Write the configuration's JSON Schema, for editors
    Schema,
    /// Tell what a check will do, in words; nothing is resolved and nothing is sent
    Explain(Explain),
    /// Write an annotated start; a file that exists is never overwritten
    Init(Init),
}

/// `mustnot config explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The checks to explain
    #[arg(required_unless_present = "all")]
    pub name: Vec<String>,
    /// Explain every check
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
}

/// `mustnot config init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The page that only some may see
    #[arg(long, value_name = "URL", value_parser = as_written::<crate::target::Url>)]
    pub admin: Option<String>,
    /// The proxy that only some may use
    #[arg(long, value_name = "HOST:PORT", value_parser = as_written::<crate::target::HostPort>)]
    pub proxy: Option<String>,
    /// The addresses that the page allows, such as that of the proxy (repeatable)
    #[arg(long, value_name = "CIDR", value_parser = crate::target::parse_cidr)]
    pub allowed: Vec<ipnet::IpNet>,
    /// Our own beacon; it will run at the outside place
    #[arg(long, value_name = "URL", value_parser = as_written::<crate::target::Url>)]
    pub beacon: Option<String>,
    /// For a place that is allowed; without it, for one that is not
    #[arg(long)]
    pub inside: bool,
    /// What the place is called [default: outside, or inside]
    #[arg(long, value_name = "NAME")]
    pub vantage: Option<String>,
    /// Where to write it, - for standard output [default: what --config names]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Holds the text against its type, and keeps it as it was typed.
fn as_written<T: std::str::FromStr<Err = String>>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|_| text.to_string())
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    let kind = Kind::ALL.iter().copied().find(|kind| kind.token() == text);
    kind.ok_or_else(|| format!("write one of {}", Kind::ALL.iter().map(|kind| kind.token()).collect::<Vec<_>>().join(", ")))
}

fn parse_finding(text: &str) -> Result<Finding, String> {
    let found = Finding::ALL.iter().copied().find(|id| id.token() == text);
    found.ok_or_else(|| format!("write one of {}", Finding::ALL.iter().map(|id| id.token()).collect::<Vec<_>>().join(", ")))
}

fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::NAMES.iter().map(|(_, name)| *name)).try_map(|name| name.parse::<Format>())
}

fn parse_also(text: &str) -> Result<(Format, PathBuf), String> {
    let (format, file) =
        text.split_once('=').filter(|(_, file)| !file.is_empty()).ok_or("write FORMAT=FILE, such as markdown=summary.md")?;
    Ok((format.parse()?, file.into()))
}

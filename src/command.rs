//! Commands: each reads the plan, puts the parts together and gives an exit code. Thin.

use std::path::Path;
use std::time::Duration;

use crate::cli::{Cli, Command, Common, Config, EXIT_HOLDS, EXIT_USAGE, LogFormat, LogLevel, Proxy, ProxyCommand};
use crate::clock::Wall;
use crate::config::printable;
use crate::exception::Exception;
use crate::plan::{Keys, Loaded, Plan, Source};
use crate::secret::mask;

mod check;
mod console;
mod drill;
mod evidence;
pub mod explain;
mod flowlog;
mod healthcheck;
pub mod init;
mod manual;
mod neighbours;
mod operator;
mod probe;
mod push;
mod proxy_explain;
mod proxy_lint;
mod run;
mod services;
mod signals;
mod watcher;

/// What is under way at the very end, beside all that was waited for.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Runs the command and gives its exit code.
pub fn run(cli: Cli) -> u8 {
    start_log(&cli.common);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return usage(&format!("cannot start: {e}; see `ulimit -n` and `ulimit -u`")),
    };
    let file = &cli.common.config;
    let code = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(file, &args).await,
            Command::Check(args) => check::check(file, &args).await,
            Command::Probe(args) => probe::probe(&args).await,
            Command::Drill(args) => drill::drill(file, &args).await,
            Command::Proxy(Proxy { command: None }) => neighbours::proxy(file).await,
            Command::Proxy(Proxy { command: Some(ProxyCommand::Lint(args)) }) => proxy_lint::proxy_lint(&args),
            Command::Proxy(Proxy { command: Some(ProxyCommand::Explain(args)) }) => proxy_explain::explain(file, &args).await,
            Command::Beacon => neighbours::beacon(file).await,
            Command::Flowlog(args) => flowlog::flowlog(&args),
            Command::Config(Config::Check) => config_check(file),
            Command::Config(Config::Schema) => {
                console::say(&format!("{:#}", crate::plan::schema()));
                EXIT_HOLDS
            }
            Command::Config(Config::Explain(args)) => explain::explain(file, &args),
            Command::Config(Config::Init(args)) => init::init(file, &args),
            Command::Healthcheck(args) => healthcheck::healthcheck(file, &args).await,
            Command::Completions(args) => manual::completions(&args),
            Command::Man(args) => manual::man(&args),
        }
    });
    console::flush();
    // Somebody's name may still be looked up, which no time limit ends; nobody waits for that.
    runtime.shutdown_timeout(LAST_WORK);
    code
}

fn config_check(file: &Path) -> u8 {
    let Ok((_, Loaded { plan, hints, .. })) = load(file, Keys::Read) else { return EXIT_USAGE };
    let inverted = plan.checks.iter().filter(|c| c.expectation.is_inverted()).count();
    for hint in hints.iter().chain(&expired(&plan, file, |_| true)) {
        console::say(&format!("hint: {hint}"));
    }
    let positive = plan.checks.len() - inverted;
    let templates = match plan.templates.len() {
        0 => String::new(),
        1 => ", 1 template".to_string(),
        many => format!(", {many} templates"),
    };
    console::say(&format!("{}: ok: {} checks ({inverted} inverted, {positive} positive){templates}", file.display(), plan.checks.len()));
    EXIT_HOLDS
}

/// The configuration and its plan, or every problem on standard error.
fn load(file: &Path, keys: Keys) -> Result<(Source, Loaded), ()> {
    let loaded = Source::read(file).and_then(|source| Ok((source.clone(), source.load(keys)?)));
    loaded.map_err(|problems| {
        eprintln!("{problems}");
        if !file.exists() {
            eprintln!("hint: name another file with --config FILE");
        }
    })
}

/// The exceptions that are over, of those that `which` means, a line each: where it stands, whose it is, and what to do.
fn expired(plan: &Plan, file: &Path, which: impl Fn(&Exception) -> bool) -> Vec<String> {
    let now = Wall::now();
    let over = plan.exceptions.iter().filter(|exception| exception.expired(now) && which(exception));
    let told = over.map(|exception| {
        let (line, column) = exception.position;
        let Exception { check, target, reason, owner, until, .. } = exception.shown(|text| mask(text, &plan.masks));
        let only = target.map_or(String::new(), |target| format!(" [{target}]"));
        printable(&format!(
            "{}:{line}:{column}: exception of \"{check}\"{only}: is over since {until}; {owner} answers for it: {reason}. Close what it was for and \
             take it out, or agree with its owner on another until",
            file.display()
        ))
    });
    told.collect()
}

fn usage(what: &str) -> u8 {
    eprintln!("mustnot: {what}");
    EXIT_USAGE
}

fn start_log(common: &Common) {
    let level = match common.log_level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(|| console::Events).with_target(false);
    match common.log_format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
}

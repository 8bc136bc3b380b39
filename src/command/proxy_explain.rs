//! `mustnot proxy explain`: what the embedded proxy would decide, by the very code that decides; nothing is dialled.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{console, load, usage};
use crate::cli::{EXIT_HOLDS, EXIT_UNPROVEN, EXIT_USAGE, EXIT_VIOLATED, ProxyExplain};
use crate::plan::{Keys, Loaded};
use crate::proxy::policy::{Heard, Policy, Refused};
use crate::proxy::reason::Reason;
use crate::proxy::request::{self, Malformed};
use crate::proxy::rules::Rules;

/// How many addresses are shown.
const SHOWN: usize = 16;

/// Explains one request: exit code 0 where it would be allowed, 1 where it would be refused, 3 where the name could not be resolved.
pub async fn explain(file: &Path, args: &ProxyExplain) -> u8 {
    let Ok((_, Loaded { plan, .. })) = load(file, Keys::Read) else { return EXIT_USAGE };
    let Some(settings) = plan.proxy else {
        return usage(&format!("{} has no [proxy] section; write one with `listen` and `allow_from`", file.display()));
    };
    let head = if args.to.contains("://") {
        format!("GET {} HTTP/1.1\r\nHost: -\r\n\r\n", args.to)
    } else {
        format!("CONNECT {} HTTP/1.1\r\n\r\n", args.to)
    };
    if args.to.contains(|c: char| c.is_ascii_whitespace() || c.is_ascii_control()) {
        return usage(&format!("--to {:?} has white space in it; write --to host:port, or --to http://host/ for absolute form", args.to));
    }
    let bound: Vec<SocketAddr> = settings.listen.iter().chain(&settings.health_listen).copied().collect();
    match Rules::new(&settings, &bound) {
        Ok(rules) => {
            let (mut text, code) = decision(&rules.policy, args.from, &args.to, head.as_bytes()).await;
            if rules.believes(args.from) {
                text.push_str(
                    "header     a connection from there must begin with a PROXY header: ask with --from for the client that it names\n",
                );
            }
            console::say(text.trim_end());
            code
        }
        Err(why) => usage(&format!("{}: proxy: {why}", file.display())),
    }
}

async fn decision(policy: &Policy, from: IpAddr, to: &str, head: &[u8]) -> (String, u8) {
    let read = async { request::parse(head).and_then(|request| request.ok_or("it is not whole".into())).map_err(malformed) };
    let decided = policy.decide(from, true, read).await;
    let (reason, why, source, addresses) = match decided {
        Ok((_, permit)) => {
            let addresses: Vec<IpAddr> = permit.addresses.iter().map(|to| to.address().ip()).collect();
            (Reason::Allow, "no rule refuses it".to_string(), Some(permit.source), addresses)
        }
        Err(Refused { reason, heard: Heard::Malformed(malformed), .. }) => (reason, malformed.why, policy.source(from), Vec::new()),
        Err(Refused { reason, why, addresses, .. }) => (reason, why.to_string(), policy.source(from), addresses),
    };
    let (verdict, code) = match reason.decision() {
        "allow" => ("allowed", EXIT_HOLDS),
        "deny" => ("refused", EXIT_VIOLATED),
        _ => ("not decided", EXIT_UNPROVEN),
    };
    let mut out = String::new();
    let mut line = |word: &str, text: &str| {
        let _ = writeln!(out, "{word:<10} {text}");
    };
    line(verdict, &format!("{to} for {from}"));
    line("reason", &format!("{reason} ({})", reason.status()));
    line("because", &why);
    line("client", &source.map_or(format!("{from} is in no entry of allow_from"), |net| format!("{from} is in {net} of allow_from")));
    if !addresses.is_empty() {
        let shown: Vec<String> = addresses.iter().take(SHOWN).map(IpAddr::to_string).collect();
        let more = addresses.len().saturating_sub(SHOWN);
        line("addresses", &(shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }));
    }
    if reason == Reason::Allow {
        line("not judged", "limits, which depend on what is open; and who really answers, which is compared after dialling");
    }
    (out, code)
}

fn malformed(why: String) -> Malformed {
    Malformed { why, begin: Vec::new(), silent: false, stray_header: false }
}

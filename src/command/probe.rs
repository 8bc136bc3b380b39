//! `mustnot probe`: one ad-hoc check. Its flags are written as a configuration and go the same way as a file.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use super::check::{Gate, pass};
use super::usage;
use crate::cli::{self, EXIT_USAGE};
use crate::plan::{self, Keys};

/// Runs the check that the flags describe.
pub async fn probe(args: &cli::Probe) -> u8 {
    let text = match configuration(args) {
        Ok(text) => text,
        Err(why) => return usage(&why),
    };
    let loaded = plan::from_text("(command line)", &text, Path::new(""), &|name| std::env::var(name).ok(), Keys::Read);
    let plan = match loaded {
        Ok(loaded) => loaded.plan,
        Err(problems) => {
            eprintln!("{problems}\nmustnot: the flags say:\n{text}");
            return EXIT_USAGE;
        }
    };
    let gate = Gate {
        selected: vec![0],
        drill: false,
        allow_unproven: BTreeSet::new(),
        rounds: 1,
        settle: None,
        deadline: None,
        format: args.format,
        output: None,
        push: None,
        evidence: Default::default(),
        also: &[],
    };
    pass(Arc::new(plan), gate).await
}

/// The flags as a configuration. The check comes first, then its witnesses.
fn configuration(args: &cli::Probe) -> Result<String, String> {
    let mut text = format!("vantage = {}\n", quote(&args.vantage));
    if let Some(key) = &args.key_file {
        let _ = write!(text, "[beacon]\nkey_file = {}\n", quote(&key.display().to_string()));
    }
    let mut check = section("probe", &args.kind, &args.target, &expectation(&args.expect));
    let names: Vec<String> = (1..=args.witness.len()).map(|n| format!("witness-{n}")).collect();
    let none = args.require.iter().any(|r| r == "none");
    if !names.is_empty() || none {
        let _ = writeln!(check, "witness = {}", list(&names));
    }
    if !args.require.is_empty() {
        let _ = writeln!(check, "require = {}", if none { "[]".into() } else { list(&args.require) });
    }
    let mut way = String::new();
    for (key, value) in [("source", &args.source), ("timeout", &args.timeout), ("resolver", &args.resolver)] {
        if let Some(value) = value {
            let _ = writeln!(way, "{key} = {}", quote(value));
        }
    }
    if let Some(attempts) = args.attempts {
        let _ = writeln!(way, "attempts = {attempts}");
    }
    if !args.families.is_empty() {
        let _ = writeln!(way, "families = {}", list(&args.families));
    }
    let payload = |kind: &str| match &args.payload {
        Some(payload) if kind == "udp" => format!("payload = {}\n", quote(payload)),
        _ => String::new(),
    };
    check.push_str(&way);
    for (key, values) in [("server", &args.server), ("record", &args.record), ("answers", &args.answers)] {
        if !values.is_empty() {
            let _ = writeln!(check, "{key} = {}", list(values));
        }
    }
    check.push_str(&payload("udp"));
    if let Some(via) = &args.via {
        let _ = writeln!(check, "via = {}", quote(via));
    }
    if !args.beacon.is_empty() {
        let _ = writeln!(check, "beacon = {}", list(&args.beacon));
    }
    for (key, values) in [("techniques", &args.technique), ("spoof", &args.spoof)] {
        if !values.is_empty() {
            let _ = writeln!(check, "{key} = {}", list(values));
        }
    }
    for set in &args.set {
        let (key, value) = set.split_once('=').ok_or_else(|| format!("--set {set}: write KEY=VALUE, with VALUE as in TOML"))?;
        let _ = writeln!(check, "{} = {}", key.trim(), value.trim());
    }
    text.push_str(&check);
    for (name, witness) in names.iter().zip(&args.witness) {
        let (kind, target) =
            witness.split_once(':').ok_or_else(|| format!("--witness {witness}: write KIND:TARGET, such as tcp:example.com:443"))?;
        text.push_str(&section(name, kind, target, &quote("open")));
        text.push_str(&way);
        if kind == "dns" && !args.server.is_empty() {
            let _ = writeln!(text, "server = {}", list(&args.server));
        }
        text.push_str(&payload(kind));
    }
    Ok(text)
}

fn section(name: &str, kind: &str, target: &str, expect: &str) -> String {
    format!("[[check]]\nname = {}\nkind = {}\ntarget = {}\nexpect = {expect}\n", quote(name), quote(kind), quote(target))
}

fn expectation(text: &str) -> String {
    let parts = |text: &str| text.split(',').map(|p| p.trim().to_string()).collect::<Vec<_>>();
    match text.strip_prefix("ip:") {
        Some(addresses) => format!("{{ ip = {} }}", list(&parts(addresses))),
        None if matches!(text, "open" | "blocked") => quote(text),
        None => list(&parts(text)),
    }
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|i| quote(i)).collect::<Vec<_>>().join(", "))
}

/// A TOML basic string: its escapes are those of JSON.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

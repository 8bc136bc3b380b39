//! Tells the program which revision and which compiler made it, for `mustnot_build_info`. Works without git too.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MUSTNOT_REVISION");
    println!("cargo::rustc-env=MUSTNOT_REVISION={}", revision().unwrap_or_else(|| "unknown".into()));
    println!("cargo::rustc-env=MUSTNOT_RUSTC={}", rustc().unwrap_or_else(|| "unknown".into()));
}

/// `MUSTNOT_REVISION` where a packager sets it, else what git says of this very directory.
fn revision() -> Option<String> {
    if let Some(given) = env::var("MUSTNOT_REVISION").ok().filter(|r| !r.trim().is_empty()) {
        return Some(given.trim().into());
    }
    // Unpacked inside another repository, that one's revision would be a lie.
    let here = Path::new(&env::var("CARGO_MANIFEST_DIR").ok()?).canonicalize().ok()?;
    let top = Path::new(&output("git", &["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if here != top {
        return None;
    }
    // The log of HEAD grows with every commit and checkout; a path that is missing would force a rebuild every time.
    if let Some(log) = output("git", &["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).is_file()) {
        println!("cargo::rerun-if-changed={log}");
    }
    output("git", &["rev-parse", "--short=12", "HEAD"])
}

/// `1.95.0` of `rustc 1.95.0 (59807616e 2026-04-14)`.
fn rustc() -> Option<String> {
    let version = output(&env::var("RUSTC").ok()?, &["--version"])?;
    version.split_whitespace().nth(1).map(str::to_owned)
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next().unwrap_or_default().trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}

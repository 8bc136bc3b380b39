//! `mustnot`: parse arguments, run one command, return its exit code.

use std::process::ExitCode;

use clap::Parser;
use mustnot::cli::Cli;

fn main() -> ExitCode {
    ExitCode::from(mustnot::command::run(Cli::parse()))
}

//! `mustnot completions` and `mustnot man`: what the command line itself says of its commands, for shells and for man(1).

use std::io::{self, Write as _};
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man as Page;

use crate::cli::{Cli, Completions, EXIT_HOLDS, EXIT_REPORT, Man};

/// Writes the script for a shell.
pub fn completions(args: &Completions) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mustnot", &mut script);
    written(&script)
}

/// Writes the page of the program, or one for each command into a directory.
pub fn man(args: &Man) -> u8 {
    let mut program = Cli::command().disable_help_subcommand(true);
    // Only then a command knows what it is called.
    program.build();
    let Some(folder) = &args.output else {
        return match page(&titled(program)) {
            Ok(page) => written(page.as_bytes()),
            Err(e) => failed(&format!("the page cannot be made: {e}")),
        };
    };
    match std::fs::create_dir_all(folder).and_then(|()| pages(program, folder)) {
        Ok(()) => EXIT_HOLDS,
        Err(e) => failed(&format!("the pages cannot be written to {}: {e}; name a directory where this user may write", folder.display())),
    }
}

/// A page for the command and for every one below it.
fn pages(command: Command, folder: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below.clone(), folder)?;
    }
    let of = titled(command);
    std::fs::write(folder.join(of.get_filename()), page(&of)?)
}

/// The page of the command, under its whole name.
fn titled(command: Command) -> Page {
    let title = command.get_display_name().unwrap_or(command.get_name()).to_uppercase();
    Page::new(command).title(title)
}

/// The page; what stands below the help is about exit codes, and has a heading of its own by custom (man-pages(7)).
fn page(of: &Page) -> io::Result<String> {
    let mut page = Vec::new();
    of.render(&mut page)?;
    let page = String::from_utf8(page).map_err(io::Error::other)?;
    // A date that is empty is left out, and what follows would be taken for it.
    Ok(page.replacen(" 1  \"", " 1 \"\" \"", 1).replace(".SH EXTRA\n", ".SH \"EXIT STATUS\"\n"))
}

/// To standard output; who has stopped reading wants no more.
fn written(text: &[u8]) -> u8 {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => failed(&format!("standard output cannot be written: {e}")),
        _ => EXIT_HOLDS,
    }
}

fn failed(why: &str) -> u8 {
    eprintln!("mustnot: {why}");
    EXIT_REPORT
}

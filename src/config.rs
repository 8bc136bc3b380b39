//! The configuration: what is written in `probes.toml`, and what is wrong with it. What it means is the plan's to say.

mod alert;
mod dns;
pub mod duration;
mod environment;
mod instance;
mod keys;
mod problem;
mod reader;
pub mod schema;
mod sections;
mod shown;
mod syntax;
mod targets;
mod value;
mod written;

use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;

pub use alert::Alert;
pub use dns::Dns;
pub use keys::every_key;
pub use problem::{At, Place, Problem, Problems, printable};
pub use reader::{Context, Noted, did_you_mean, listed, near};
pub use shown::shown;
pub use targets::{MAX_TARGETS, matching};
pub use value::parse_sink;
pub use written::{
    AdminPage, Beacon, Check, Common, Exception, Expect, File, Http, ListAt, LogEvidence, MAX_LABELS, Networks, OpenProxy, Own, Peer,
    Ports, PromQl, Ranges, Tls, Tried, Via, Web,
};

/// Reads the text as far as it can be read. What is wrong in it is noted in the context, where the plan notes more.
pub fn read<'a>(text: &'a str, base_dir: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> (File, Context<'a>) {
    read_document(text, DeTable::parse_recoverable(text), base_dir, env)
}

/// The same of one template with this target, and the checks that it names as witnesses.
pub fn read_instance<'a>(
    text: &'a str,
    base_dir: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    template: &str,
    target: &str,
) -> (File, Context<'a>) {
    let (mut document, errors) = DeTable::parse_recoverable(text);
    instance::keep(document.get_mut(), env, template, target);
    read_document(text, (document, errors), base_dir, env)
}

fn read_document<'a>(
    text: &'a str,
    (document, errors): (Spanned<DeTable<'a>>, Vec<toml::de::Error>),
    base_dir: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
) -> (File, Context<'a>) {
    let context = Context::new(text, base_dir, env, !errors.is_empty(), errors.iter().any(|e| syntax::in_header(text, e)));
    for error in &errors {
        let (place, message) = syntax::explain(text, error);
        context.wrong(&place, message);
    }
    let top = reader::Section::new(document.get_ref(), Place { offset: 0, path: String::new() }, &context);
    let written = File::read(&top);
    (written, context)
}

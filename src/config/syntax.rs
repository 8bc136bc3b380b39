//! Syntax errors: where the text is not TOML, in words that say what to write.

use super::problem::Place;

/// The place of a syntax error and what to do about it.
pub fn explain(text: &str, error: &toml::de::Error) -> (Place, String) {
    let offset = error.span().map_or(text.len(), |span| span.start);
    let message = error.message().lines().next().unwrap_or("it cannot be read").trim();
    let place = Place { offset, path: path_at(text, offset) };
    let remedy = match message {
        m if m.starts_with("duplicate key") => "write it once",
        m if m.contains("string values must be quoted") => "write it in quotes, such as \"30s\"",
        _ => "see https://toml.io",
    };
    (place, format!("not TOML: {message}; {remedy}"))
}

/// The section and key of the line at `offset`, as far as they can be told in a broken text.
fn path_at(text: &str, offset: usize) -> String {
    let mut section = String::new();
    let mut checks = 0;
    let mut begin = 0;
    for line in text.split_inclusive('\n') {
        let here = begin <= offset && offset < begin + line.len();
        begin += line.len();
        let code = line.split('#').next().unwrap_or("").trim();
        if let Some(header) = code.strip_prefix('[') {
            section = header.trim_matches(['[', ']', ' ']).to_string();
            if section == "check" {
                checks += 1;
                section = format!("check #{checks}");
            }
        }
        if here || begin > offset {
            let key = code.split_once('=').map(|(key, _)| key.trim()).filter(|k| !k.is_empty() && !k.contains(['"', ' ', '[', '{']));
            return match (section.as_str(), key) {
                ("", None) => "file".into(),
                ("", Some(key)) => key.into(),
                (section, None) => section.into(),
                (section, Some(key)) => format!("{section}.{key}"),
            };
        }
    }
    if section.is_empty() { "file".into() } else { section }
}

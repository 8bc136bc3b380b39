//! Instances: a template with a target that somebody names, as if the file had that check and its witnesses alone.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::environment::replace;

/// What of the top level an instance needs.
const KEPT: [&str; 7] = ["vantage", "witness_window", "linger", "decoy", "defaults", "beacon", "check"];
/// Keys of a template that its instance has not.
const OF_TEMPLATES: [&str; 3] = ["template", "allow_targets", "target"];

/// Leaves the template of this name, with this target, and the checks that it names as witnesses.
pub(super) fn keep(document: &mut DeTable<'_>, env: &dyn Fn(&str) -> Option<String>, name: &str, target: &str) {
    let other: Vec<String> = document.keys().map(|key| key.get_ref().to_string()).filter(|key| !KEPT.contains(&key.as_str())).collect();
    for key in other {
        document.remove(key.as_str());
    }
    let text = |value: &DeValue<'_>| Some(replace(value.as_str()?, env).ok()?.text);
    let is_named = |check: &DeTable<'_>, name: &str| check.get("name").and_then(|value| text(value.get_ref())).as_deref() == Some(name);
    let witnesses = |table: &DeTable<'_>| -> Vec<String> {
        let Some(DeValue::Array(names)) = table.get("witness").map(Spanned::get_ref) else { return Vec::new() };
        names.iter().filter_map(|name| text(name.get_ref())).collect()
    };
    let inherited = document.get("defaults").and_then(|defaults| defaults.get_ref().as_table()).map_or(Vec::new(), witnesses);
    let Some(DeValue::Array(checks)) = document.get_mut("check").map(Spanned::get_mut) else { return };
    let template = checks.iter().filter_map(|check| check.get_ref().as_table()).find(|check| is_named(check, name));
    let own = template.filter(|template| template.contains_key("witness")).map(witnesses);
    let named = own.unwrap_or(inherited);
    let all = std::mem::replace(checks, std::iter::empty().collect());
    let kept = all.into_iter().filter_map(|mut check| {
        let DeValue::Table(table) = check.get_mut() else { return None };
        if is_named(table, name) {
            for key in OF_TEMPLATES {
                table.remove(key);
            }
            put(table, target);
        } else if !named.iter().any(|witness| is_named(table, witness)) {
            return None;
        }
        Some(check)
    });
    *checks = kept.collect();
}

/// The check's table with this target in it. What somebody named is not for our environment to fill in.
pub(super) fn put(template: &mut DeTable<'_>, target: &str) {
    let place = template.iter().find(|(key, _)| key.get_ref() == "name").map_or(0..0, |(key, _)| key.span());
    let text = target.replace("${", "$${");
    template.insert(Spanned::new(place.clone(), DeString::from("target")), Spanned::new(place, DeValue::String(text.into())));
}

//! Exceptions of the file: each names a check that is there, and no two are about one target.

use std::sync::Arc;

use crate::config::{self, At, Context, did_you_mean, near};
use crate::exception::Exception;

/// Targets that a message lists.
const MAX_LISTED: usize = 8;

/// The exceptions; what is wrong with one is noted.
pub fn resolve(written: &[config::Exception], checks: &[config::Check], context: &Context<'_>) -> Vec<Arc<Exception>> {
    let mut known: Vec<Arc<Exception>> = Vec::new();
    for one in written {
        let Some(name) = &one.check else { continue };
        if !names_a_check(name, one.target.as_ref(), checks, context) {
            continue;
        }
        let (Some(reason), Some(owner), Some(until)) = (&one.reason, &one.owner, &one.until) else { continue };
        let exception = Exception {
            check: name.value.clone(),
            target: one.target.as_ref().map(|target| target.value.clone()),
            reason: reason.value.clone(),
            owner: owner.value.clone(),
            until: until.value,
            position: context.position(&one.place),
        };
        let overlaps = |other: &&Arc<Exception>| {
            let same = other.target.is_none() || exception.target.is_none() || other.target == exception.target;
            other.check == exception.check && same
        };
        if let Some(other) = known.iter().find(overlaps) {
            let message = format!("\"{}\" is excepted in line {} already; write one exception for it", exception.check, other.position.0);
            context.wrong(&name.place, message);
            continue;
        }
        known.push(Arc::new(exception));
    }
    known
}

fn names_a_check(name: &At<String>, target: Option<&At<String>>, checks: &[config::Check], context: &Context<'_>) -> bool {
    let names = || checks.iter().filter_map(|check| Some(check.name.as_ref()?.value.as_str()));
    if !names().any(|known| known == name.value) {
        context.wrong(&name.place, format!("there is no check \"{}\"; {}", name.value, did_you_mean(&name.value, names())));
        return false;
    }
    let Some(target) = target else { return true };
    let its: Vec<&config::Check> =
        checks.iter().filter(|check| check.name.as_ref().is_some_and(|known| known.value == name.value)).collect();
    let targets: Vec<&str> = its.iter().filter_map(|check| Some(check.target.as_ref()?.value.as_str())).collect();
    // Of a check that is wrong itself nothing is said twice.
    if targets.contains(&target.value.as_str()) || targets.is_empty() {
        return true;
    }
    let meant = match near(&target.value, targets.iter().copied()) {
        None if targets.len() > MAX_LISTED => format!("write one of its {} targets as it stands there", targets.len()),
        _ => did_you_mean(&target.value, targets),
    };
    let message = format!("\"{}\" is no target of \"{}\" (left out, all of them are meant); {meant}", target.value, name.value);
    if its.iter().any(|check| check.from_files) {
        // Whoever writes the files of targets may bring it back, and must not make this one wrong by taking it out.
        context.hint(&target.place, message);
        return true;
    }
    context.wrong(&target.place, message);
    false
}

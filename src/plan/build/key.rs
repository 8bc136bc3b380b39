//! The beacon's key: read, made where it must be, and given to the checks that share it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{Context, File, Place};
use crate::plan::{Beacon, Check, Keys};
use crate::probe::Probe;
use crate::token::Key;

/// The key in `[beacon]`; one stands in for it where it is still to be made, or where something is wrong (and noted).
pub(super) fn beacon_key(file: &File, context: &Context<'_>, keys: &Keys) -> Option<Key> {
    if let Keys::Given(key) = keys {
        return Some(key.clone());
    }
    let beacon = file.beacon.as_ref()?;
    let Some(key_file) = &beacon.key_file else { return stand_in(context, None) };
    let path = context.base_dir.join(&key_file.value);
    if path.exists() {
        return match Key::load(&path) {
            Ok(key) => Some(key),
            Err(why) => {
                context.wrong(&key_file.place, why);
                stand_in(context, None)
            }
        };
    }
    if beacon.listen.is_empty() {
        let message = format!("{} does not exist; copy it from where the beacon runs", path.display());
        context.wrong(&key_file.place, message);
    }
    stand_in(context, Some(&key_file.place))
}

/// A key that no beacon has.
fn stand_in(context: &Context<'_>, place: Option<&Place>) -> Option<Key> {
    match Key::ephemeral() {
        Ok(key) => Some(key),
        Err(why) => {
            place.into_iter().for_each(|place| context.wrong(place, why.clone()));
            None
        }
    }
}

/// The beacon with its key, which is made now if it must be: nothing is written for a file that is wrong.
pub(super) fn file_key(
    file: &File,
    stand_in: Option<Key>,
    context: &Context<'_>,
    keys: &Keys,
) -> Option<(Option<Beacon>, Option<PathBuf>)> {
    let (Some(beacon), Some(stand_in)) = (&file.beacon, stand_in) else { return Some((None, None)) };
    let key_file = beacon.key_file.as_ref()?;
    let listen: Vec<SocketAddr> = beacon.listen.iter().map(|a| a.value).collect();
    let path = context.base_dir.join(&key_file.value);
    if path.exists() || listen.is_empty() || !matches!(keys, Keys::Create) {
        return Some((Some(Beacon { listen, key: stand_in }), None));
    }
    match Key::load_or_create(&path) {
        Ok((key, created)) => Some((Some(Beacon { listen, key }), created.then_some(path))),
        Err(why) => {
            context.wrong(&key_file.place, why);
            None
        }
    }
}

/// Gives the check the key that it shares with the beacon, where it asks one.
pub(super) fn give_key(check: &mut Check, shared: &Key) {
    match &mut check.probe {
        Probe::EgressIp(egress) => egress.key = shared.clone(),
        Probe::OpenProxy(suite) => suite.key = shared.clone(),
        _ => {}
    }
}

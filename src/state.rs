//! State: what survives a restart, in one small file of `state_dir`. A violation does not end because the monitor did.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Moment, Wall};
use crate::memory::Memory;
use crate::record::Exposure;

/// The file in `state_dir`.
const FILE: &str = "state.json";
/// Its lock, so that two monitors do not write one state.
const LOCK: &str = "state.lock";
/// While something is open, what is known of it is written at least this often: a monitor that is killed, or whose host goes
/// down, must still know which addresses linger and when they were last seen open.
const WHILE_OPEN: Duration = Duration::from_secs(5);

/// The state file, held by this process.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    inner: Mutex<Inner>,
    _lock: File,
}

#[derive(Debug, Default)]
struct Inner {
    kept: BTreeMap<String, Kept>,
    dirty: bool,
    changed: bool,
    open: bool,
    written: Option<Moment>,
}

/// What is kept of one check, in the words of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    violated: bool,
    first_open_ms: Option<i64>,
    last_open_ms: Option<i64>,
    last_closed_ms: Option<i64>,
    #[serde(default)]
    lingering: BTreeMap<SocketAddr, i64>,
}

/// Why there is no state to work with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoState {
    /// Another mustnot holds it: its memory is being kept.
    Held(String),
    /// It cannot be read or written: memory would be lost.
    Broken(String),
}

impl std::fmt::Display for NoState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoState::Held(why) | NoState::Broken(why) => f.write_str(why),
        }
    }
}

impl State {
    /// Opens the state in `dir`, which is made where it is missing.
    ///
    /// # Errors
    /// What is wrong and what to do: no permission, another monitor's lock, a file that cannot be read.
    pub fn open(dir: &Path) -> Result<State, NoState> {
        let cannot = |what: &str, path: &Path, e: &dyn std::fmt::Display| {
            NoState::Broken(format!("{what} {}: {e}; see that this user may write there, or change state_dir", path.display()))
        };
        fs::create_dir_all(dir).map_err(|e| cannot("cannot make", dir, &e))?;
        let lock_path = dir.join(LOCK);
        let lock =
            File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(|e| cannot("cannot open", &lock_path, &e))?;
        lock.try_lock().map_err(|_| {
            NoState::Held(format!("{} is held by another mustnot; stop it, or give this one a state_dir of its own", lock_path.display()))
        })?;
        let path = dir.join(FILE);
        let kept = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| {
                NoState::Broken(format!(
                    "{} is not a state of this program: {e}; mend it, or move it away to start without memory of violations",
                    path.display()
                ))
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(cannot("cannot read", &path, &e)),
        };
        Ok(State { path, inner: Mutex::new(Inner { kept, ..Inner::default() }), _lock: lock })
    }

    /// What is remembered of a check.
    pub fn recall(&self, name: &str, target: &str) -> Memory {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.kept.get(&key(name, target)).map_or_else(Memory::default, Kept::to_memory)
    }

    /// Takes over what a check remembers now.
    pub fn remember(&self, name: &str, target: &str, memory: &Memory) {
        let new = Kept::of(memory);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let old = inner.kept.get(&key(name, target)).cloned().unwrap_or_default();
        if old != new {
            inner.dirty = true;
            inner.changed |=
                old.violated != new.violated || old.first_open_ms != new.first_open_ms || !old.lingering.keys().eq(new.lingering.keys());
            inner.open |= old.last_open_ms != new.last_open_ms || old.lingering != new.lingering;
            inner.kept.insert(key(name, target), new);
        }
    }

    /// Writes the file beside its place and renames it, where something that matters has changed, where something is open and the
    /// last time is a while ago, or (`all`) where anything has changed.
    ///
    /// # Errors
    /// What is wrong and what to do.
    pub fn save(&self, all: bool) -> Result<(), String> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let a_while_ago = inner.written.is_none_or(|written| Moment::now().since(written) >= WHILE_OPEN);
        if !(inner.changed || inner.open && a_while_ago || all && inner.dirty) {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&inner.kept).map_err(|e| e.to_string())?;
        write_beside(&self.path, &text).map_err(|e| {
            format!("cannot write {}: {e}; violations will not survive a restart until that is mended", self.path.display())
        })?;
        (inner.changed, inner.dirty, inner.open) = (false, false, false);
        inner.written = Some(Moment::now());
        Ok(())
    }
}

/// Writes the file beside its place and renames it: it is whole, or as it was.
///
/// # Errors
/// The kernel's.
pub fn write_beside(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("json.new");
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

impl Kept {
    fn of(memory: &Memory) -> Kept {
        let millis = |wall: Option<Wall>| wall.map(Wall::unix_millis);
        let (now, wall) = (Moment::now(), Wall::now());
        let at = |given: Moment| wall.unix_millis() - i64::try_from(now.since(given).as_millis()).unwrap_or(0);
        Kept {
            violated: memory.violated,
            first_open_ms: millis(memory.exposure.first_open),
            last_open_ms: millis(memory.exposure.last_open),
            last_closed_ms: millis(memory.exposure.last_closed),
            lingering: memory.lingers().map(|(address, given)| (address, at(given))).collect(),
        }
    }

    fn to_memory(&self) -> Memory {
        let wall = |millis: Option<i64>| millis.and_then(Wall::from_unix_millis);
        let (now, today) = (Moment::now(), Wall::now().unix_millis());
        let moment = |millis: i64| now - Duration::from_millis(u64::try_from(today - millis).unwrap_or(0));
        let exposure =
            Exposure { first_open: wall(self.first_open_ms), last_open: wall(self.last_open_ms), last_closed: wall(self.last_closed_ms) };
        Memory::recalled(self.violated, exposure, self.lingering.iter().map(|(address, at)| (*address, moment(*at))))
    }
}

fn key(name: &str, target: &str) -> String {
    format!("{name} {target}")
}

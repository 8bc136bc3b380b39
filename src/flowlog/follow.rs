//! Follow: files and directories as they grow, turn over and come anew, read as far as they were written some time ago.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::line::{Counts, Lines};
use super::stream::{self, Piece};

/// The most files that are followed.
pub const MAX_FILES: usize = 100_000;
/// How deep directories are looked into: S3 has its logs by account, region, year, month, day and hour.
const MAX_DEPTH: usize = 12;
/// The most of one file that is read at once, so that others have their turn.
const PART: u64 = 64 * 1024 * 1024;
/// How long a file that was compressed must have been left alone before it is read: whoever fetches it writes it piece by piece.
const AT_REST: Duration = Duration::from_secs(2);
/// The most sizes that are kept of a file that grows all the time.
const MAX_MARKS: usize = 64;

/// A file is itself by device and inode, whatever it is called now.
type Id = (u64, u64);

/// What is followed, and how far it was read.
#[derive(Debug)]
pub struct Follow {
    paths: Vec<PathBuf>,
    /// How long what was written is left alone before it is read.
    lag: Duration,
    files: HashMap<Id, State>,
    /// The first look was taken: what comes later came later.
    begun: bool,
    /// What could not be read, once each.
    complaints: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    path: PathBuf,
    /// How long it was when it was last seen.
    length: u64,
    read_to: u64,
    lines: Lines,
    /// How long the file was, and when that was seen.
    marks: VecDeque<(Instant, u64)>,
    gzip: Option<bool>,
    /// Length and time of change of a compressed file that was read, or was there before.
    done: Option<(u64, i64)>,
    changed: Option<((u64, i64), Instant)>,
    /// It was said that it cannot be read.
    refused: bool,
    seen: bool,
}

impl Follow {
    /// Follows these; what is in them already was written before anything was sent, and is not read.
    pub fn new(paths: Vec<PathBuf>, lag: Duration) -> Follow {
        Follow { paths, lag, files: HashMap::new(), begun: false, complaints: Vec::new() }
    }

    /// Takes one look, and gives every line to `each`, with the reader of its file. What was counted is told.
    pub fn look(&mut self, now: Instant, mut each: impl FnMut(&mut Lines, &[u8])) -> Counts {
        let mut counts = Counts::default();
        for (id, path, meta) in self.found() {
            let (begun, lag) = (self.begun, self.lag);
            let state = self.files.entry(id).or_default();
            (state.seen, state.path) = (true, path);
            let before = state.lines.counts;
            let read = state.read(&meta, begun, lag, now, &mut each);
            if let Err(error) = read
                && !std::mem::replace(&mut state.refused, true)
            {
                self.complaints.push(format!("{} cannot be read: {error}", state.path.display()));
            }
            counts.add(since(state.lines.counts, before));
        }
        self.begun = true;
        // What is gone will not come back under its number; another file may.
        self.files.retain(|_, state| std::mem::take(&mut state.seen));
        counts
    }

    /// What could not be read since the last time this was asked.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    fn found(&mut self) -> Vec<(Id, PathBuf, Metadata)> {
        let mut found = Vec::new();
        for path in &self.paths {
            find(path, 0, &mut found);
        }
        found.sort_by(|a, b| a.1.cmp(&b.1));
        found.dedup_by_key(|(id, ..)| *id);
        if found.len() >= MAX_FILES && self.begun {
            let told = format!("more than {MAX_FILES} files are followed, and no more than that are read; take away what is old");
            if !self.files.values().any(|state| state.refused) {
                self.complaints.push(told);
            }
        }
        found
    }
}

/// The files below a directory, by name.
pub fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    find(directory, 0, &mut found);
    let mut paths: Vec<PathBuf> = found.into_iter().map(|(_, path, _)| path).collect();
    paths.sort();
    paths
}

/// Every plain file at the path or below it.
fn find(path: &Path, depth: usize, found: &mut Vec<(Id, PathBuf, Metadata)>) {
    // A path that is not there yet is one that a log will be written to.
    let Ok(meta) = fs::metadata(path) else { return };
    if found.len() >= MAX_FILES {
        return;
    }
    if meta.is_file() {
        found.push(((meta.dev(), meta.ino()), path.to_path_buf(), meta));
    } else if meta.is_dir() && depth < MAX_DEPTH {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            // No link is followed into a circle.
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if !hidden && (!is_link || fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file())) {
                find(&entry.path(), depth + 1, found);
            }
        }
    }
}

impl State {
    fn read(
        &mut self,
        meta: &Metadata,
        begun: bool,
        lag: Duration,
        now: Instant,
        each: &mut impl FnMut(&mut Lines, &[u8]),
    ) -> io::Result<()> {
        let length = meta.len();
        if length < self.length {
            // It was cut, and is written anew.
            (self.read_to, self.gzip) = (0, None);
            self.lines.anew();
            self.marks.clear();
        }
        self.length = length;
        if length == 0 {
            return Ok(());
        }
        let first = self.gzip.is_none();
        let gzip = match self.gzip {
            Some(gzip) => gzip,
            None => stream::is_gzip(&self.path)?,
        };
        self.gzip = Some(gzip);
        if gzip {
            return self.read_gzip(meta, begun || !first, lag, now, each);
        }
        if first && !begun {
            // What was written before this monitor sent anything; its first line may name the fields.
            self.header()?;
            self.read_to = length;
        }
        if self.marks.back().is_none_or(|(_, marked)| *marked != length) && self.marks.len() < MAX_MARKS {
            self.marks.push_back((now, length));
        }
        let mut until = None;
        while let Some((_, marked)) = self.marks.front().copied().filter(|(at, _)| now.duration_since(*at) >= lag) {
            until = Some(marked);
            self.marks.pop_front();
        }
        let Some(until) = until.map(|until| until.min(length)).filter(|until| *until > self.read_to) else { return Ok(()) };
        let part = (until - self.read_to).min(PART);
        if self.read_to + part < until {
            self.marks.push_front((now.checked_sub(lag).unwrap_or(now), until));
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read_to))?;
        let lines = &mut self.lines;
        let whole = stream::lines(&mut BufReader::with_capacity(256 * 1024, file.take(part)), false, |piece| give(lines, piece, each))?;
        // A part without an end of line is one line that is longer than a part.
        self.read_to += if whole == 0 && part == PART { part } else { whole };
        Ok(())
    }

    fn header(&mut self) -> io::Result<()> {
        let mut start = File::open(&self.path)?.take(64 * 1024);
        let mut text = Vec::new();
        start.read_to_end(&mut text)?;
        if let Some(line) = text.split(|b| *b == b'\n').next() {
            self.lines.take_header(line);
        }
        Ok(())
    }

    /// Compressed files are read whole, once nobody has touched them for a while; what is broken is tried again when it has changed.
    fn read_gzip(
        &mut self,
        meta: &Metadata,
        new: bool,
        lag: Duration,
        now: Instant,
        each: &mut impl FnMut(&mut Lines, &[u8]),
    ) -> io::Result<()> {
        let is = (meta.len(), meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()));
        if !new {
            self.done = Some(is);
        }
        if self.done == Some(is) {
            return Ok(());
        }
        let since = match self.changed {
            Some((before, since)) if before == is => since,
            _ => {
                self.changed = Some((is, now));
                now
            }
        };
        if now.duration_since(since) < lag.max(AT_REST) {
            return Ok(());
        }
        self.done = Some(is);
        self.lines.anew();
        let lines = &mut self.lines;
        let result = stream::open(&self.path).and_then(|mut log| stream::lines(&mut *log, true, |piece| give(lines, piece, each)));
        self.refused &= result.is_err();
        result.map(drop)
    }
}

fn give(lines: &mut Lines, piece: Piece<'_>, each: &mut impl FnMut(&mut Lines, &[u8])) {
    match piece {
        Piece::Line(line) => each(lines, line),
        Piece::TooLong => lines.counts.too_long += 1,
    }
}

fn since(now: Counts, before: Counts) -> Counts {
    Counts {
        lines: now.lines - before.lines,
        flows: now.flows - before.flows,
        waf: now.waf - before.waf,
        access: now.access - before.access,
        matched: now.matched - before.matched,
        ambiguous: now.ambiguous - before.ambiguous,
        skipped: now.skipped - before.skipped,
        unreadable: now.unreadable - before.unreadable,
        unusable: now.unusable - before.unusable,
        too_long: now.too_long - before.too_long,
    }
}

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
    /// The file itself, where it is followed by its name: what is not read of it must outlive a rotation.
    held: Option<File>,
    /// Since when it has another name, or none.
    gone: Option<Instant>,
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
            let named = self.paths.contains(&path);
            (state.seen, state.path, state.gone) = (true, path, None);
            let before = state.lines.counts;
            let read = state.read(&meta, begun, lag, now, &mut each);
            if let Err(error) = read
                && error.kind() != io::ErrorKind::NotFound
                && !std::mem::replace(&mut state.refused, true)
            {
                self.complaints.push(format!("{} cannot be read: {error}", state.path.display()));
            }
            counts.add(since(state.lines.counts, before));
            if named && state.held.is_none() && state.gzip == Some(false) {
                state.held = open(&state.path, &meta).ok();
            }
        }
        self.begun = true;
        for state in self.files.values_mut().filter(|state| !state.seen) {
            let before = state.lines.counts;
            state.seen = state.read_on(self.lag, now, &mut each);
            counts.add(since(state.lines.counts, before));
        }
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
        let mut file = self.held.as_ref().map_or_else(|| open(&self.path, meta), File::try_clone)?;
        file.seek(SeekFrom::Start(self.read_to))?;
        let lines = &mut self.lines;
        let whole = stream::lines(&mut BufReader::with_capacity(256 * 1024, file.take(part)), false, |piece| give(lines, piece, each))?;
        // A part without an end of line is one line that is longer than a part.
        self.read_to += if whole == 0 && part == PART { part } else { whole };
        Ok(())
    }

    /// Reads a file on that was rotated away: its writer may not know yet. Whether there is more to come.
    fn read_on(&mut self, lag: Duration, now: Instant, each: &mut impl FnMut(&mut Lines, &[u8])) -> bool {
        let Some(meta) = self.held.as_ref().and_then(|file| file.metadata().ok()) else { return false };
        let gone = *self.gone.get_or_insert(now);
        let is_done = now.duration_since(gone) > lag * 2 || meta.len() < self.length;
        !is_done && self.read(&meta, true, lag, now, each).is_ok()
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

/// Opens the very file that was looked at, not one that has taken its name since.
fn open(path: &Path, meta: &Metadata) -> io::Result<File> {
    let file = File::open(path)?;
    let is = file.metadata()?;
    let same = (is.dev(), is.ino()) == (meta.dev(), meta.ino());
    if same { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LAG: Duration = Duration::from_secs(10);

    /// What is read at a time after the first look.
    struct Reader {
        follow: Follow,
        begun: Instant,
    }

    impl Reader {
        fn of(path: &Path) -> Reader {
            let mut reader = Reader { follow: Follow::new(vec![path.to_path_buf()], LAG), begun: Instant::now() };
            assert_eq!(reader.at(0), "");
            reader
        }

        fn at(&mut self, seconds: u64) -> String {
            let mut text = Vec::new();
            let now = self.begun + Duration::from_secs(seconds);
            self.follow.look(now, |_, line| text.extend([line, b";"].concat()));
            String::from_utf8(text).unwrap()
        }
    }

    fn append(path: &Path, text: &str) {
        File::options().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn lines_rest_before_they_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "before\n");
        let mut reader = Reader::of(&path);
        append(&path, "one\ntw");
        assert_eq!((reader.at(1), reader.at(10)), (String::new(), String::new()));
        append(&path, "o\n");
        assert_eq!(reader.at(11), "one;");
        assert_eq!((reader.at(20), reader.at(21)), (String::new(), "two;".into()));
    }

    #[test]
    fn what_was_not_read_outlives_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        append(&path, "before\n");
        let mut reader = Reader::of(&path);
        append(&path, "last\n");
        assert_eq!(reader.at(1), "");
        fs::rename(&path, &old).unwrap();
        append(&path, "first\n");
        assert_eq!(reader.at(2), "");
        // its writer has not been told yet
        append(&old, "late\n");
        assert_eq!(reader.at(3), "");
        assert_eq!((reader.at(11), reader.at(12), reader.at(13)), ("last;".into(), "first;".into(), "late;".into()));
        // and then it is over, and let go
        assert_eq!((reader.at(23), reader.follow.files.len()), (String::new(), 1));
    }

    #[test]
    fn a_file_that_was_cut_begins_anew_and_rests_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, &"before\n".repeat(100));
        let mut reader = Reader::of(&path);
        File::create(&path).unwrap();
        assert_eq!(reader.at(1), "");
        append(&path, "new\n");
        assert_eq!((reader.at(2), reader.at(11), reader.at(12)), (String::new(), String::new(), "new;".into()));
        // cut, and longer than what was read, but not than what was there
        append(&path, &"unread\n".repeat(10));
        assert_eq!(reader.at(13), "");
        fs::write(&path, "again and again\n").unwrap();
        assert_eq!((reader.at(14), reader.at(23), reader.at(24)), (String::new(), String::new(), "again and again;".into()));
    }
}

//! Streams: lines out of a file or standard input, plain or gzipped, in bounded memory whatever comes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use memchr::memchr;

/// Bytes of a line: a WAF's may have a hundred headers, a batch of CloudWatch's events a megabyte.
pub const MAX_LINE: usize = 4 * 1024 * 1024;
/// Bytes that are read at once.
const BUFFER: usize = 256 * 1024;
/// The first bytes of gzip (RFC 1952 section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The first bytes of Parquet.
const PARQUET: [u8; 4] = *b"PAR1";

/// What became of one line.
pub enum Piece<'a> {
    /// A whole one, without its end.
    Line(&'a [u8]),
    /// One that was longer than [`MAX_LINE`], and was passed over.
    TooLong,
}

/// Opens a log.
///
/// # Errors
/// Why it cannot be read; of Parquet, what to do instead.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    decoded(File::open(path)?)
}

/// The files at these paths: of a directory all below it.
pub fn files(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => all.extend(super::follow::below(path)),
            // One that is not there is to be complained of.
            false => all.push(path.clone()),
        }
    }
    all
}

/// What is inside: gzip is told by its first bytes, whatever the name.
///
/// # Errors
/// As [`open`].
pub fn decoded(raw: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let mut raw = BufReader::with_capacity(BUFFER, raw);
    let start = peek(&mut raw)?;
    if start.starts_with(&PARQUET) {
        let why =
            "it is Parquet, which is not read here; let the flow log be written as text (file-format plain-text), or turn it into lines";
        return Err(io::Error::other(why));
    }
    match start.starts_with(&GZIP) {
        true => Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw)))),
        false => Ok(Box::new(raw)),
    }
}

/// Whether a file is gzipped.
///
/// # Errors
/// Why it cannot be read.
pub fn is_gzip(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(GZIP.len() as u64).read_to_end(&mut start)?;
    Ok(start == GZIP)
}

/// The first bytes, as far as there are any. A pipe may give them one by one; the magic of both forms is in the first write of any.
fn peek(raw: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let start = raw.fill_buf()?;
    Ok(start.iter().take(PARQUET.len()).copied().collect())
}

/// Reads to the end and gives every line to `each`; the last one too, where `partial` says that it counts without an end. How many bytes
/// were read up to the last end of a line.
///
/// # Errors
/// What broke the reading; all lines before were given.
pub fn lines(stream: &mut dyn BufRead, partial: bool, mut each: impl FnMut(Piece<'_>)) -> io::Result<u64> {
    let mut kept: Vec<u8> = Vec::new();
    let (mut whole, mut pending, mut skipping) = (0, 0, false);
    loop {
        let buffer = match stream.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            break;
        }
        let mut rest = buffer;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, behind) = rest.split_at(end);
            if std::mem::take(&mut skipping) || kept.len() + line.len() > MAX_LINE {
                each(Piece::TooLong);
                kept.clear();
            } else if kept.is_empty() {
                each(Piece::Line(line));
            } else {
                kept.extend_from_slice(line);
                each(Piece::Line(&kept));
                kept.clear();
            }
            whole += pending + end as u64 + 1;
            pending = 0;
            rest = behind.split_first().map_or(&[], |(_, behind)| behind);
        }
        if skipping || kept.len() + rest.len() > MAX_LINE {
            skipping = true;
            kept.clear();
        } else {
            kept.extend_from_slice(rest);
        }
        pending += rest.len() as u64;
        let length = buffer.len();
        stream.consume(length);
    }
    if partial && skipping {
        each(Piece::TooLong);
    } else if partial && !kept.is_empty() {
        each(Piece::Line(&kept));
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn read(bytes: Vec<u8>, partial: bool) -> (Vec<String>, usize, io::Result<u64>) {
        let (mut all, mut long) = (Vec::new(), 0);
        let result = decoded(Cursor::new(bytes)).and_then(|mut stream| {
            lines(&mut *stream, partial, |piece| match piece {
                Piece::Line(line) => all.push(String::from_utf8_lossy(line).into_owned()),
                Piece::TooLong => long += 1,
            })
        });
        (all, long, result)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn lines_whole_and_not() {
        let (all, _, read_to) = read(b"a\nbc\n\nd".to_vec(), true);
        assert_eq!((all, read_to.unwrap()), (vec!["a".to_string(), "bc".into(), String::new(), "d".into()], 6));
        let (all, _, read_to) = read(b"a\nbc\n\nd".to_vec(), false);
        assert_eq!((all.len(), read_to.unwrap()), (3, 6), "what has no end yet is read when it has");
        assert_eq!(read(Vec::new(), true).0.len(), 0);
        // Lines over many buffers.
        let long = "x".repeat(3 * BUFFER + 7);
        let (all, _, read_to) = read(format!("a\n{long}\nb\n").into_bytes(), true);
        assert_eq!((all.len(), all[1].len(), read_to.unwrap()), (3, long.len(), long.len() as u64 + 5));
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_its_bound() {
        let line = |length: usize| [&b"a\n"[..], &vec![b'x'; length], b"\nb\n"].concat();
        for (length, told, long) in [(MAX_LINE, 3, 0), (MAX_LINE + 1, 2, 1), (3 * MAX_LINE, 2, 1)] {
            let (all, skipped, read_to) = read(line(length), true);
            assert_eq!((all.len(), skipped, read_to.unwrap()), (told, long, length as u64 + 5));
        }
        assert_eq!(read(vec![b'x'; 2 * MAX_LINE], true).1, 1);
    }

    #[test]
    fn gzip_of_several_members_and_a_broken_one() {
        let both = [gzip(b"a\n"), gzip(b"b\n")].concat();
        assert_eq!(read(both.clone(), true).0, ["a", "b"]);
        let (all, _, cut) = read(both[..both.len() - 4].to_vec(), true);
        assert!(cut.is_err() && all.len() <= 2, "{all:?}");
        assert!(read([&gzip(b"a\n")[..], b"garbage"].concat(), true).2.is_err());
        let parquet = read(b"PAR1\x15\x04".to_vec(), true).2.unwrap_err().to_string();
        assert!(parquet.starts_with("it is Parquet, which is not read here"), "{parquet}");
    }
}

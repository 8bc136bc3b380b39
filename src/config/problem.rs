//! Problems: what is wrong in the file, where, and what to write instead.

use std::fmt;

use crate::secret::{Secret, mask};

/// A place in the file: a byte offset and the path of the key that stands there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Bytes from the start of the text.
    pub offset: usize,
    /// Such as `web.listen` or `check "admin-closed".expect`.
    pub path: String,
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub place: Place,
}

/// One thing that is wrong, ready to be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    file: String,
    line: usize,
    column: usize,
    path: String,
    message: String,
}

/// Everything that is wrong, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Place {
    /// The place of a key inside this one.
    #[must_use]
    pub fn within(&self, key: &str, offset: usize) -> Place {
        let path = if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) };
        Place { offset, path }
    }
}

impl<T> At<T> {
    /// The same place, another reading of what is there.
    pub fn map<U>(self, read: impl FnOnce(T) -> U) -> At<U> {
        At { value: read(self.value), place: self.place }
    }
}

impl Problem {
    /// What is wrong and what to write instead, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Finds line and column of each place, hides what came from the environment, and sorts.
    pub(super) fn locate(file: &str, text: &str, found: Vec<(Place, String)>, masks: &[Secret]) -> Vec<Problem> {
        let mut found = found;
        found.sort();
        found.dedup();
        let lines = Lines::of(text);
        let located = found.into_iter().map(|(place, message)| {
            let (line, column) = lines.position(text, place.offset);
            Problem { file: file.into(), line, column, path: printable(&place.path), message: printable(&mask(&message, masks)) }
        });
        located.collect()
    }
}

/// The text with its control characters written out: a message is one line, whatever the file holds.
pub fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if c.is_control() {
            shown.extend(c.escape_default())
        } else {
            shown.push(c)
        }
        shown
    })
}

impl Problems {
    /// At least one problem, sorted; none where there is none.
    pub(super) fn of(problems: Vec<Problem>) -> Option<Problems> {
        (!problems.is_empty()).then_some(Problems(problems))
    }

    /// A file that could not be read at all.
    pub fn unreadable(file: &str, why: &str) -> Problems {
        Problems::of_all(file, format!("cannot be read ({why}); write one there, or name another with --config"))
    }

    /// No plan came of it although nothing was found wrong: a bug of ours.
    pub fn internal(file: &str) -> Problems {
        Problems::of_all(file, "nothing is wrong with it, and still no plan came of it; please report this".into())
    }

    fn of_all(file: &str, message: String) -> Problems {
        Problems(vec![Problem { file: file.into(), line: 1, column: 1, path: "file".into(), message }])
    }

    /// The problems, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

/// Where each line begins.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Lines {
        let begins = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Lines(std::iter::once(0).chain(begins).collect())
    }

    /// Line and column, both from 1; columns are characters.
    pub(super) fn position(&self, text: &str, offset: usize) -> (usize, usize) {
        let line = self.0.partition_point(|begin| *begin <= offset).max(1);
        let begin = self.0.get(line - 1).copied().unwrap_or(0);
        let before = text.get(begin..).unwrap_or("").char_indices().take_while(|(i, _)| begin + i < offset).count();
        (line, before + 1)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { file, line, column, path, message } = self;
        write!(f, "{file}:{line}:{column}: {path}: {message}")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_characters_and_lines_begin_at_one() {
        let text = "a\nä = 1\r\nb";
        let lines = Lines::of(text);
        assert_eq!(lines.position(text, 0), (1, 1));
        assert_eq!(lines.position(text, 2), (2, 1));
        assert_eq!(lines.position(text, 5), (2, 3), "ä is two bytes and one column");
        assert_eq!(lines.position(text, text.len()), (3, 2));
        assert_eq!(lines.position(text, text.len() + 9), (3, 2));
        assert_eq!(lines.position("", 0), (1, 1));
    }
}

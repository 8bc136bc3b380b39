//! The reader: takes known keys out of a TOML table with their types, and notes everything that is wrong on the way.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::duration;
use super::environment;
use super::problem::{At, Lines, Place, Problem, Problems};
use crate::secret::Secret;

/// How far a mistyped word may be from the one that was meant: one edit in this many letters. As many that begin it do, too.
const LETTERS_AN_EDIT: usize = 3;

/// What was found in the file besides values, while it is read.
#[derive(Debug, Default)]
struct Notes {
    problems: Vec<(Place, String)>,
    hints: Vec<(Place, String)>,
    masks: Vec<Secret>,
    depends_on: BTreeSet<PathBuf>,
}

/// What was found besides values in a file that is right.
#[derive(Debug)]
pub struct Noted {
    /// What is legal and still worth a word, a line each, with its place.
    pub hints: Vec<String>,
    /// What came from the environment, longest first.
    pub masks: Vec<Secret>,
    /// Files of targets that were read for it, as written: the last part may hold a `*`.
    pub depends_on: BTreeSet<PathBuf>,
}

/// Where values come from and where notes go.
pub struct Context<'a> {
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Where relative file names start.
    pub base_dir: &'a Path,
    /// The text is broken TOML: what seems to be missing may just not have been read.
    pub broken: bool,
    /// A section's header is broken: what stands below it seems to be elsewhere.
    pub adrift: bool,
    text: &'a str,
    lines: Lines,
    notes: RefCell<Notes>,
}

/// A table of the file.
#[derive(Clone)]
pub struct Section<'s, 'i> {
    /// The place of the table itself.
    pub place: Place,
    table: &'s DeTable<'i>,
    context: &'s Context<'s>,
}

impl<'a> Context<'a> {
    /// A context in which nothing was found yet.
    pub(super) fn new(
        text: &'a str,
        base_dir: &'a Path,
        env: &'a dyn Fn(&str) -> Option<String>,
        broken: bool,
        adrift: bool,
    ) -> Context<'a> {
        Context { env, base_dir, broken, adrift, text, lines: Lines::of(text), notes: RefCell::default() }
    }

    /// Line and column of the place, both from 1; columns are characters.
    pub fn position(&self, place: &Place) -> (usize, usize) {
        self.lines.position(self.text, place.offset)
    }

    /// Everything that was noted, found again in its file's text.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the text.
    pub fn noted(self, file: &str, text: &str) -> Result<Noted, Problems> {
        let Notes { problems, hints, mut masks, depends_on } = self.notes.into_inner();
        masks.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        masks.dedup_by(|a, b| a.expose() == b.expose());
        let hints = Problem::locate(file, text, hints, &masks).iter().map(Problem::to_string).collect();
        match Problems::of(Problem::locate(file, text, problems, &masks)) {
            Some(problems) => Err(problems),
            None => Ok(Noted { hints, masks, depends_on }),
        }
    }

    /// Notes a problem.
    pub fn wrong(&self, place: &Place, message: impl Into<String>) {
        self.notes.borrow_mut().problems.push((place.clone(), message.into()));
    }

    /// Notes a hint.
    pub fn hint(&self, place: &Place, message: impl Into<String>) {
        self.notes.borrow_mut().hints.push((place.clone(), message.into()));
    }

    /// Notes a file of targets.
    pub(super) fn depends_on(&self, file: PathBuf) {
        self.notes.borrow_mut().depends_on.insert(file);
    }

    /// Puts in front of every problem of such a key past the first so many who has written it.
    pub(super) fn blame(&self, kept: usize, key: &str, whom: &str) {
        for (place, message) in self.notes.borrow_mut().problems.iter_mut().skip(kept).filter(|(place, _)| place.path.ends_with(key)) {
            *message = format!("{whom} says {message}");
            place.path = format!("{}s_from", place.path);
        }
    }

    /// Whether a problem was noted for the key with this path.
    pub fn has_problem_at(&self, path: &str) -> bool {
        self.notes.borrow().problems.iter().any(|(p, _)| p.path == path)
    }

    /// What came from the environment and stands in this text.
    pub fn from_environment(&self, text: &str) -> Vec<Secret> {
        self.notes.borrow().masks.iter().filter(|secret| !secret.expose().is_empty() && text.contains(secret.expose())).cloned().collect()
    }

    /// How many problems were noted so far.
    pub fn problems(&self) -> usize {
        self.notes.borrow().problems.len()
    }

    /// Forgets the problems past the first so many: they are said elsewhere.
    pub(super) fn forget_problems(&self, kept: usize) {
        self.notes.borrow_mut().problems.truncate(kept);
    }
}

impl<'s, 'i> Section<'s, 'i> {
    /// The table at `place`.
    pub fn new(table: &'s DeTable<'i>, place: Place, context: &'s Context<'s>) -> Section<'s, 'i> {
        Section { place, table, context }
    }

    /// The table itself.
    pub(super) fn as_table(&self) -> &'s DeTable<'i> {
        self.table
    }

    /// The place where notes go.
    pub fn context(&self) -> &'s Context<'s> {
        self.context
    }

    /// Whether the key is written, rightly or wrongly.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Every key, with its place.
    pub fn keys(&self) -> impl Iterator<Item = (&'s str, Place)> {
        self.table.iter().map(|(key, _)| {
            let name: &str = key.get_ref();
            (name, self.place.within(&shown_key(name), key.span().start))
        })
    }

    /// Notes that a key is missing, unless it stands there (or the file is broken anyway).
    pub fn require(&self, key: &str, remedy: &str) {
        if !self.has(key) && !self.context.broken {
            self.context.wrong(&self.place.within(key, self.place.offset), format!("is missing; {remedy}"));
        }
    }

    /// A string as written, before the environment is heard.
    pub fn raw(&self, key: &str) -> Option<&'s str> {
        self.table.get(key).and_then(|v| v.get_ref().as_str())
    }

    /// A string, after replacing from the environment; `like` is a good value, quoted.
    pub fn string(&self, key: &str, like: &str) -> Option<At<String>> {
        self.parsed(key, like, |text| Ok::<_, String>(text.to_string()))
    }

    /// A name: what the environment gives here is there for all to see, not a secret.
    pub fn public_string_of(&self, key: &str, like: &str, parse: impl Fn(&str) -> Result<String, String>) -> Option<At<String>> {
        let masks = self.context.notes.borrow().masks.len();
        let value = self.parsed(key, like, parse);
        if value.is_some() {
            self.context.notes.borrow_mut().masks.truncate(masks);
        }
        value
    }

    /// A list of such names.
    pub fn list_of_public(&self, key: &str, like: &str) -> Option<At<Vec<At<String>>>> {
        let masks = self.context.notes.borrow().masks.len();
        let value = self.list(key, like, |text| Ok::<_, String>(text.to_string()));
        if value.is_some() {
            self.context.notes.borrow_mut().masks.truncate(masks);
        }
        value
    }

    /// Whether something was already found wrong with this key.
    pub fn holds_problem_at(&self, place: &Place) -> bool {
        self.context.has_problem_at(&place.path)
    }

    /// A string that means something.
    pub fn parsed<T, E: Display>(&self, key: &str, like: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<At<T>> {
        let (place, value) = self.get(key)?;
        self.scalar(place, value, like, &parse)
    }

    /// A list of strings that mean something; faulty ones are noted and left out.
    pub fn list<T, E: Display>(&self, key: &str, like: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<At<Vec<At<T>>>> {
        let (place, value) = self.get(key)?;
        let DeValue::Array(_) = value else {
            self.context.wrong(&place, format!("is {}; write a list such as [{like}]", article(value)));
            return None;
        };
        Some(self.elements(place, value, like, &parse))
    }

    /// One string, or a list of them.
    pub fn one_or_list<T, E: Display>(&self, key: &str, like: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<At<Vec<At<T>>>> {
        let (place, value) = self.get(key)?;
        Some(self.elements(place, value, like, &parse))
    }

    /// A duration of at least `least`.
    pub fn duration(&self, key: &str, least: Duration) -> Option<At<Duration>> {
        self.parsed(key, "\"30s\"", |text| match duration::parse(text)? {
            short if short < least => Err(format!("\"{text}\" is too short; write at least \"{}\"", duration::show(least))),
            long => Ok(long),
        })
    }

    /// A date: TOML's own, or a string.
    pub fn dated<T, E: Display>(&self, key: &str, like: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<At<T>> {
        let (place, value) = self.get(key)?;
        match value {
            DeValue::String(_) => self.scalar(place, value, like, &parse),
            DeValue::Datetime(date) => match parse(&date.to_string()) {
                Ok(value) => Some(At { value, place }),
                Err(why) => {
                    self.context.wrong(&place, why.to_string());
                    None
                }
            },
            other => {
                self.context.wrong(&place, format!("is {}; write a date such as {like}", article(other)));
                None
            }
        }
    }

    /// A whole number in a range.
    pub fn integer(&self, key: &str, range: RangeInclusive<usize>) -> Option<At<usize>> {
        let (place, value) = self.get(key)?;
        let (least, most) = (range.start(), range.end());
        let span = if *most == usize::MAX { format!("of at least {least}") } else { format!("from {least} to {most}") };
        let DeValue::Integer(number) = value else {
            self.context.wrong(&place, format!("is {}; write a whole number {span}", article(value)));
            return None;
        };
        let parsed = i128::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| usize::try_from(n).ok());
        match parsed.filter(|n| range.contains(n)) {
            Some(value) => Some(At { value, place }),
            None => {
                self.context.wrong(&place, format!("{} is out of range; write a whole number {span}", number.as_str()));
                None
            }
        }
    }

    /// True or false.
    pub fn boolean(&self, key: &str) -> Option<At<bool>> {
        let (place, value) = self.get(key)?;
        let found = value.as_bool();
        if found.is_none() {
            self.context.wrong(&place, format!("is {}; write true or false", article(value)));
        }
        found.map(|value| At { value, place })
    }

    /// Ports: a number, a string such as `"22,8000-8010"`, or a list of both; as the texts of the entries.
    pub fn ports(&self, key: &str) -> Option<At<Vec<At<String>>>> {
        let (place, value) = self.get(key)?;
        let values = match value {
            DeValue::Array(values) => values.iter().map(|v| (v.span().start, v.get_ref())).collect(),
            one => vec![(place.offset, one)],
        };
        let entries = values.into_iter().filter_map(|(offset, value)| {
            let place = Place { offset, path: place.path.clone() };
            match value {
                DeValue::Integer(number) if number.radix() == 10 => Some(At { value: number.as_str().to_string(), place }),
                other => self.scalar(place, other, "443 or \"8000-8010\"", &|text| Ok::<_, String>(text.to_string())),
            }
        });
        Some(At { value: entries.collect(), place })
    }

    /// A table inside this one.
    pub fn table(&self, key: &str) -> Option<Section<'s, 'i>> {
        let (place, value) = self.get(key)?;
        match value {
            DeValue::Table(table) => Some(Section::new(table, place, self.context)),
            other => {
                let remedy = if self.place.path.is_empty() { format!("[{key}]") } else { "{ NAME = \"VALUE\" }".into() };
                self.context.wrong(&place, format!("is {}; write {remedy}", article(other)));
                None
            }
        }
    }

    /// The tables of a `[[key]]`.
    pub fn tables(&self, key: &str) -> Vec<Section<'s, 'i>> {
        let Some((place, value)) = self.get(key) else { return Vec::new() };
        let elements = match value {
            DeValue::Array(elements) => elements.iter().collect(),
            _ => Vec::new(),
        };
        let misshapen = elements.is_empty() || elements.iter().any(|e| !e.get_ref().is_table());
        if misshapen && !self.context.adrift {
            self.context.wrong(&place, format!("is {}; write [[{key}]] with two brackets above each one", article(value)));
        }
        let tables = elements.into_iter().enumerate().filter_map(|(i, element)| {
            let table = element.get_ref().as_table()?;
            let place = Place { offset: element.span().start, path: format!("{key} #{}", i + 1) };
            Some(Section::new(table, place, self.context))
        });
        tables.collect()
    }

    /// Whether the value is a table, so that it must be read as one.
    pub fn holds_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|v| v.get_ref().is_table())
    }

    /// Whether the value is a list, so that it must be read as one.
    pub fn holds_list(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|v| v.get_ref().is_array())
    }

    fn get(&self, key: &str) -> Option<(Place, &'s DeValue<'i>)> {
        let value = self.table.get(key)?;
        Some((self.place.within(&shown_key(key), value.span().start), value.get_ref()))
    }

    fn elements<T, E: Display>(
        &self,
        place: Place,
        value: &'s DeValue<'i>,
        like: &str,
        parse: &impl Fn(&str) -> Result<T, E>,
    ) -> At<Vec<At<T>>> {
        let read = match value {
            DeValue::Array(values) => {
                let element = |v: &'s toml::Spanned<DeValue<'i>>| {
                    let place = Place { offset: v.span().start, path: place.path.clone() };
                    self.scalar(place, v.get_ref(), like, parse)
                };
                values.iter().filter_map(element).collect()
            }
            one => self.scalar(place.clone(), one, like, parse).into_iter().collect(),
        };
        At { value: read, place }
    }

    fn scalar<T, E: Display>(&self, place: Place, value: &DeValue<'_>, like: &str, parse: &impl Fn(&str) -> Result<T, E>) -> Option<At<T>> {
        let DeValue::String(text) = value else {
            self.context.wrong(&place, format!("is {}; write a string such as {like}", article(value)));
            return None;
        };
        let text = match environment::replace(text, self.context.env) {
            Ok(replaced) => {
                self.context.notes.borrow_mut().masks.extend(replaced.values);
                replaced.text
            }
            Err(problems) => {
                problems.into_iter().for_each(|p| self.context.wrong(&place, p));
                return None;
            }
        };
        match parse(&text) {
            Ok(value) => Some(At { value, place }),
            Err(why) => {
                self.context.wrong(&place, why.to_string());
                None
            }
        }
    }
}

/// The word that was meant, where one is near.
pub fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let letters = word.chars().count();
    let distance = |known: &str| {
        let begun = letters >= LETTERS_AN_EDIT && known.starts_with(&word);
        if begun { 1 } else { strsim::damerau_levenshtein(&word, &known.replace('-', "_")) }
    };
    let allowed = |known: &str| (letters.max(known.chars().count()) / LETTERS_AN_EDIT).max(1).min(letters);
    let nearest = known.into_iter().map(|k| (distance(k), k)).min_by_key(|(d, _)| *d);
    nearest.filter(|(d, k)| *d <= allowed(k)).map(|(_, k)| k)
}

/// `did you mean …?` where a known word is near, else the known words.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match near(word, known.clone()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("write one of {}", listed(known)),
    }
}

/// Words, with commas between.
pub fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// A key as it can stand in a path: quoted where it is not bare.
fn shown_key(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_string() } else { format!("{key:?}") }
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses() {
        let known = ["interval", "timeout", "witness", "via_user"];
        assert_eq!(near("intervall", known), Some("interval"));
        assert_eq!(near("Timeout", known), Some("timeout"));
        assert_eq!(near("via-user", known), Some("via_user"));
        assert_eq!(near("witnes", known), Some("witness"));
        assert_eq!(near("int", known), Some("interval"));
        assert_eq!(near("block", ["blocked", "closed"]), Some("blocked"));
        assert_eq!(near("in", known), None);
        assert_eq!(near("color", known), None);
        assert_eq!(near("", known), None);
    }
}

//! From the text of a squid.conf to its directives, as Squid itself takes it apart (`ConfigParser.cc` and `cache_cf.cc` of Squid 5.7 and 6.13).

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// How deep files may include one another, as in Squid.
const MAX_DEPTH: usize = 16;
/// The most bytes that Squid reads as one line (`BUFSIZ` of glibc, less the terminating null).
const MAX_LINE: usize = 8191;

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line, from 1; that where it begins, if it is continued.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One line that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Its first word.
    pub name: String,
    /// The words after it, up to a comment.
    pub words: Vec<String>,
    /// Where it begins.
    pub at: Place,
}

/// What stands in other files: whoever reads a configuration says where to look for them.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &str) -> Result<String, String>;
    /// The files that a pattern of `include` names, sorted; empty where there is none.
    fn glob(&self, pattern: &str) -> Vec<String>;
}

/// A configuration, taken apart.
#[derive(Debug, Default)]
pub struct Read {
    /// Every line that counts, in the order in which Squid takes them.
    pub directives: Vec<Directive>,
    /// What Squid would not start with, and what was not followed.
    pub trouble: Vec<(Place, Trouble)>,
}

/// What is wrong with a line before anybody asks what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Squid ends at this line; the sentence says why.
    Refused(String),
    /// Squid reads over it, so it does not do what it says.
    Ignored(String),
    /// It may mean something, and nobody here can say what.
    NotFollowed(String),
}

/// Takes a configuration apart, with the files that it includes.
pub fn read(file: &str, text: &str, files: &dyn Files) -> Read {
    let mut read = Read::default();
    one_file(&mut read, file, text, files, 0);
    read
}

/// Whether the lines inside an `if` count.
#[derive(Clone, Copy, PartialEq)]
enum Branch {
    Taken,
    Left,
    /// The condition hangs on the process that reads it.
    Unknown,
}

fn one_file(read: &mut Read, file: &str, text: &str, files: &dyn Files, depth: usize) {
    let file: Arc<str> = file.into();
    let mut branches: Vec<(Branch, Place)> = Vec::new();
    let mut pending: Option<(Place, String)> = None;
    for (number, raw) in text.split('\n').enumerate() {
        let here = Place { file: Arc::clone(&file), line: number + 1 };
        if raw.len() > MAX_LINE {
            read.trouble.push((here.clone(), Trouble::NotFollowed(format!("Squid cuts a line of more than {MAX_LINE} bytes in two"))));
        }
        // A carriage return ends the line; what follows it is lost.
        let line = raw.split('\r').next().unwrap_or_default().trim_start_matches(is_space);
        // A comment or an empty line between two parts of one line does not part them.
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (at, mut whole) = pending.take().unwrap_or((here, String::new()));
        whole.push_str(line);
        if whole.ends_with('\\') {
            whole.pop();
            pending = Some((at, whole));
            continue;
        }
        statement(read, whole.trim_end_matches(is_space), at, files, depth, &mut branches);
    }
    // The end of the file leaves a continued line unread.
    if let Some((at, whole)) = pending {
        read.trouble.push((at, Trouble::Ignored(format!("Squid never reads `{whole}`: a backslash ends it, and the file ends there"))));
    }
    if let Some((_, at)) = branches.pop() {
        read.trouble.push((at, Trouble::Refused("there is no `endif` to this `if`".into())));
    }
}

fn statement(read: &mut Read, line: &str, at: Place, files: &dyn Files, depth: usize, branches: &mut Vec<(Branch, Place)>) {
    let name = line.split(is_space).next().unwrap_or_default();
    let rest = line.get(name.len()..).unwrap_or_default().trim_start_matches(is_space);
    match name {
        "if" => {
            let branch = condition(rest).unwrap_or(Branch::Unknown);
            if branch == Branch::Unknown {
                let what = format!("what stands under `if {rest}` is not looked at: it hangs on the process that reads it");
                read.trouble.push((at.clone(), Trouble::NotFollowed(what)));
            }
            branches.push((branch, at));
        }
        "endif" | "else" => match branches.pop() {
            None => read.trouble.push((at, Trouble::Refused(format!("there is no `if` to this `{name}`")))),
            Some(_) if name == "endif" => {}
            Some((Branch::Taken, opened)) => branches.push((Branch::Left, opened)),
            Some((Branch::Left, opened)) => branches.push((Branch::Taken, opened)),
            Some((Branch::Unknown, opened)) => branches.push((Branch::Unknown, opened)),
        },
        // Squid looks at the innermost `if` alone.
        _ if branches.last().is_some_and(|(branch, _)| *branch != Branch::Taken) => {}
        "include" if !rest.is_empty() => include(read, rest, &at, files, depth),
        _ => {
            let words = words(rest);
            read.directives.push(Directive { name: name.to_string(), words, at });
        }
    }
}

/// `true`, `false`, or two whole numbers that are the same or not.
fn condition(text: &str) -> Option<Branch> {
    let holds = match text {
        "true" => true,
        "false" => false,
        _ => {
            let (left, right) = text.split_once('=')?;
            left.trim().parse::<i64>().ok()? == right.trim().parse::<i64>().ok()?
        }
    };
    Some(if holds { Branch::Taken } else { Branch::Left })
}

fn include(read: &mut Read, patterns: &str, at: &Place, files: &dyn Files, depth: usize) {
    if depth >= MAX_DEPTH {
        read.trouble.push((at.clone(), Trouble::Refused(format!("files are included more than {MAX_DEPTH} deep"))));
        return;
    }
    for pattern in patterns.split(is_space).map(|word| word.trim_matches('"')).filter(|word| !word.is_empty()) {
        if pattern.starts_with(['!', '|']) {
            read.trouble.push((at.clone(), Trouble::NotFollowed(format!("what the command `{pattern}` prints is not read"))));
            continue;
        }
        let found = files.glob(pattern);
        if found.is_empty() {
            read.trouble.push((
                at.clone(),
                Trouble::NotFollowed(format!("`{pattern}` is not here, so what it says was not read; Squid ends without it")),
            ));
        }
        for path in found {
            match files.read(&path) {
                Ok(text) => one_file(read, &path, &text, files, depth + 1),
                Err(why) => {
                    read.trouble.push((
                        at.clone(),
                        Trouble::NotFollowed(format!("`{path}` cannot be read ({why}), so what it says is not judged")),
                    ));
                }
            }
        }
    }
}

/// The words of a line; one that begins with `#` begins a comment.
fn words(text: &str) -> Vec<String> {
    text.split(is_space).filter(|word| !word.is_empty()).take_while(|word| !word.starts_with('#')).map(str::to_string).collect()
}

/// The entries of a file that an ACL names: one a line, without comments (`ConfigParser::strtokFile`).
pub fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.trim_matches(is_space);
        let comment = line.match_indices('#').find(|(at, _)| *at == 0 || line.get(..*at).is_some_and(|before| before.ends_with(is_space)));
        let entry = line.get(..comment.map_or(line.len(), |(at, _)| at)).unwrap_or_default().trim_end_matches(is_space);
        (!entry.is_empty()).then_some(entry)
    })
}

/// What parts words in Squid: space, tab and the ends of lines, and nothing of Unicode.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files that are known by heart.
    struct Shelf(&'static [(&'static str, &'static str)]);

    impl Files for Shelf {
        fn read(&self, path: &str) -> Result<String, String> {
            self.0.iter().find(|(name, _)| *name == path).map(|(_, text)| text.to_string()).ok_or("no such file".into())
        }

        fn glob(&self, pattern: &str) -> Vec<String> {
            let begin = pattern.trim_end_matches('*');
            self.0
                .iter()
                .filter(|(name, _)| *name == pattern || (begin != pattern && name.starts_with(begin)))
                .map(|(name, _)| name.to_string())
                .collect()
        }
    }

    fn lines(text: &str, files: &'static [(&'static str, &'static str)]) -> Vec<String> {
        let read = read("squid.conf", text, &Shelf(files));
        read.directives.iter().map(|d| format!("{} {} {}", d.at, d.name, d.words.join("|"))).collect()
    }

    fn trouble(text: &str) -> Vec<String> {
        read("squid.conf", text, &Shelf(&[])).trouble.iter().map(|(at, what)| format!("{at} {what:?}")).collect()
    }

    #[test]
    fn comments_continuations_and_spaces() {
        let text = "# first\n\n  acl a src 10.0.0.1 # why\nacl b port 80#81\nhttp_access allow \\\n\n# between\n   a \\\n  b\r\nvia off\n";
        assert_eq!(
            lines(text, &[]),
            [
                "squid.conf:3 acl a|src|10.0.0.1",
                "squid.conf:4 acl b|port|80#81",
                "squid.conf:5 http_access allow|a|b",
                "squid.conf:10 via off"
            ]
        );
        assert_eq!(trouble("via off\nhttp_access deny \\\n").len(), 1);
    }

    #[test]
    fn includes_are_taken_in_their_place() {
        let files: &[(&str, &str)] = &[("/etc/squid/conf.d/10.conf", "via off\n"), ("/etc/squid/conf.d/20.conf", "\nvia on")];
        assert_eq!(
            lines("pid_filename none\ninclude /etc/squid/conf.d/*\nhttp_port 1", files),
            [
                "squid.conf:1 pid_filename none",
                "/etc/squid/conf.d/10.conf:1 via off",
                "/etc/squid/conf.d/20.conf:2 via on",
                "squid.conf:3 http_port 1"
            ]
        );
        assert_eq!(trouble("include /nowhere/*.conf\ninclude !echo\n").len(), 2);
        assert!(matches!(&read("a", "include a", &Shelf(&[("a", "include a")])).trouble[..], [(_, Trouble::Refused(_))]), "it ends");
    }

    #[test]
    fn conditions_are_squids_own() {
        let text = "if true\na\nelse\nb\nendif\nif 1 = 2\nc\nelse\nd\nendif\nif ${process_number} = 1\ne\nelse\nf\nendif\ng";
        assert_eq!(lines(text, &[]), ["squid.conf:2 a ", "squid.conf:9 d ", "squid.conf:16 g "]);
        assert_eq!(trouble(text).len(), 1);
        assert_eq!(trouble("endif\nelse\nif true\n").len(), 3);
        // the innermost alone decides, as wrong as that is
        assert_eq!(lines("if false\nif true\na\nendif\nb\nendif", &[]), ["squid.conf:3 a "]);
    }

    #[test]
    fn entries_of_files_are_whole_lines() {
        let text = "# who\n10.0.0.1\n  10.0.0.2 # the office\n\n10.0.0.3 10.0.0.4\n#\n10.0.0.5#6\n";
        assert_eq!(entries(text).collect::<Vec<_>>(), ["10.0.0.1", "10.0.0.2", "10.0.0.3 10.0.0.4", "10.0.0.5#6"]);
    }
}

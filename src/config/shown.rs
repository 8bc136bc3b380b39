//! The file as it may be shown: as it was read, line by line, without comments and without secrets.
//!
//! What the environment gave is shown as it was written, `${NAME}`. Comments go, since nobody knows what was once written there.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::secret::{Secret, mask};

/// Tables whose values are secrets, or may be.
const SECRET_TABLES: [&str; 2] = ["headers", "basic_auth"];
/// Words in the name of a key whose value is one, unless it is the name of a file.
const SECRET_WORDS: [&str; 8] = ["password", "passphrase", "secret", "token", "credential", "authorization", "webhook", "_key"];
/// The section whose URLs are secrets behind their host: who knows such a one can send.
const ALERT: &str = "alert";
/// What is sent there, in which a key may stand.
const BODY: &str = "body";
/// What stands in the place of a secret.
const HIDDEN: &str = "\"***\"";

/// What is known of a value from the keys above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Plain,
    /// Of a URL the host alone.
    HostAlone,
    Secret,
}

/// The text without comments and without secrets; `masks` is what came from the environment, longest first. Lines stay where they are.
pub fn shown(text: &str, masks: &[Secret]) -> String {
    let (document, _) = DeTable::parse_recoverable(text);
    let mut leaves = Vec::new();
    of_table(document.get_ref(), Manner::Plain, &mut leaves);
    leaves.sort_by_key(|(range, _)| range.start);
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for (range, manner) in leaves {
        let (Some(between), Some(leaf)) = (text.get(at..range.start), text.get(range.clone())) else { continue };
        out.push_str(&without_comments(between));
        match manner {
            Manner::Secret => out.push_str(HIDDEN),
            Manner::HostAlone => out.push_str(&mask(&host_alone(leaf), masks)),
            Manner::Plain => out.push_str(&mask(&without_user(leaf), masks)),
        }
        // Of a text of many lines those that are hidden are kept empty, so that the others keep their numbers.
        if manner == Manner::Secret {
            out.push_str(&"\n".repeat(leaf.matches('\n').count()));
        }
        at = range.end;
    }
    out.push_str(&without_comments(text.get(at..).unwrap_or_default()));
    out
}

fn of_table(table: &DeTable<'_>, manner: Manner, leaves: &mut Vec<(Range<usize>, Manner)>) {
    for (key, value) in table {
        let name: &str = key.get_ref();
        leaves.push((key.span(), Manner::Plain));
        let below = match manner {
            Manner::Secret => Manner::Secret,
            _ if is_secret(name) => Manner::Secret,
            Manner::HostAlone if name == BODY => Manner::Secret,
            Manner::Plain if name == ALERT => Manner::HostAlone,
            other => other,
        };
        of_value(value, below, leaves);
    }
}

fn of_value(value: &Spanned<DeValue<'_>>, manner: Manner, leaves: &mut Vec<(Range<usize>, Manner)>) {
    match value.get_ref() {
        DeValue::Table(table) => of_table(table, manner, leaves),
        DeValue::Array(values) => values.iter().for_each(|value| of_value(value, manner, leaves)),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            leaves.push((value.span(), manner));
        }
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_TABLES.contains(&key.as_str()) || (!key.ends_with("_file") && SECRET_WORDS.iter().any(|word| key.contains(word)))
}

/// What stands between values: nothing there is a string, so that every `#` begins a comment.
fn without_comments(between: &str) -> String {
    let bare = |line: &str| match line.split_once('#') {
        Some((before, comment)) => {
            let end = if comment.ends_with('\n') { "\n" } else { "" };
            before.trim_end().to_string() + end
        }
        None => line.to_string(),
    };
    between.split_inclusive('\n').map(bare).collect()
}

/// The text with user and password in every URL of it hidden.
fn without_user(text: &str) -> String {
    let mut parts = text.split("://");
    let mut out = parts.next().unwrap_or_default().to_string();
    for rest in parts {
        out.push_str("://");
        let end = rest.find(|c: char| c == '/' || c.is_whitespace() || c == '"' || c == '\'').unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => out.push_str(&format!("***@{host}")),
            None => out.push_str(authority),
        }
        out.push_str(behind);
    }
    out
}

/// The text with everything behind the host of every URL of it hidden, and what stands before that host.
fn host_alone(text: &str) -> String {
    let mut parts = text.split("://");
    let mut out = parts.next().unwrap_or_default().to_string();
    for rest in parts {
        let end = rest.find(|c: char| c.is_whitespace() || c == '"' || c == '\'').unwrap_or(rest.len());
        let (url, behind) = rest.split_at(end);
        let authority = url.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        out.push_str(&format!("://{host}{}{behind}", if url.len() > host.len() { "/***" } else { "" }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_secret_stays_as_it_was_written() {
        let text = "vantage = \"a#b\"\n[web]\nlisten = '127.0.0.1:9890'\n\n[[check]]\nname = \"a\"\nports = [22, \"8000-8010\"]\n\
                    target = \"https://x.example.com/a?b#c\"\nlabels = { team = \"x\" }\nattempts = 3\n[[check]]\nname = \"b\"\n";
        assert_eq!(shown(text, &[]), text);
    }

    #[test]
    fn comments_and_secrets_go_and_lines_stay() {
        let text = "# hunter2\nvantage = \"v\" # hunter2\nlist = [ # hunter2\n  \"a\", # hunter2 \"b\"\n]\n\
                    [web.basic_auth]\nann = \"hunter2\"\n\"b # c\" = 'hunter2' # x\n[[check]]\nheaders = { Authorization = \"hunter2\", X = \"hunter2\" }\n\
                    [[check]]\nheaders.Cookie = \"\"\"hunter2\nhunter2\"\"\"\nquery_token = \"hunter2\"\npassword_file = \"kept\"\n\
                    description = \"see https://me:hunter2@x.example.com/a\"\n[alert.pager]\nurl = \"https://u:hunter2@hook.example.com/T0/hunter2\"\n\
                    bare = \"https://hook.example.com\"\nenv = \"${HUNTER}\"\n";
        let shown = shown(text, &[]);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(shown.lines().count(), text.lines().count(), "{shown}");
        for kept in [
            "vantage = \"v\"\n",
            "ann = \"***\"\n",
            "\"b # c\" = \"***\"\n",
            "headers = { Authorization = \"***\", X = \"***\" }",
            "password_file = \"kept\"",
            "https://***@x.example.com/a",
            "url = \"https://hook.example.com/***\"",
            "bare = \"https://hook.example.com\"",
            "env = \"${HUNTER}\"",
        ] {
            assert!(shown.contains(kept), "{kept}\n{shown}");
        }
    }

    #[test]
    fn of_a_sink_its_kind_and_host_stay() {
        let text = "[[alert]]\nkind = \"webhook\"\nbody = '''\nhunter2\n'''\nheaders.X = \"hunter2\"\nonly = [\"a\"]\n\
                    [[alert]]\nkind = \"alertmanager\"\nurl = [\"https://am.example.com:9093/hunter2\"]\n\
                    [[alert]]\nkind = \"datadog\"\napi_key = \"hunter2\"\napi_key_file = \"dog.key\"\n";
        let expected = "[[alert]]\nkind = \"webhook\"\nbody = \"***\"\n\n\nheaders.X = \"***\"\nonly = [\"a\"]\n\
                        [[alert]]\nkind = \"alertmanager\"\nurl = [\"https://am.example.com:9093/***\"]\n\
                        [[alert]]\nkind = \"datadog\"\napi_key = \"***\"\napi_key_file = \"dog.key\"\n";
        assert_eq!(shown(text, &[]), expected);
    }

    #[test]
    fn what_the_environment_gave_is_hidden_where_it_is_written_out_too() {
        let masks = [Secret::new("hunter2")];
        assert_eq!(shown("a = \"${X}\"\nb = \"say hunter2\"\n", &masks), "a = \"${X}\"\nb = \"say ***\"\n");
    }

    proptest::proptest! {
        /// A secret in any form of string, among anything that may stand beside it, is never shown.
        #[test]
        fn no_secret_is_shown(before in "[ \t\n#a-z=\\[\\]\"']{0,30}", quote in proptest::sample::select(vec!["\"", "'", "\"\"\"", "'''"])) {
            let text = format!("{before}\nheaders = {{ A = {quote}hunter2{quote} }} # hunter2\n");
            if DeTable::parse(&text).is_ok() {
                proptest::prop_assert!(!shown(&text, &[]).contains("hunter2"), "{}", shown(&text, &[]));
            }
        }
    }
}

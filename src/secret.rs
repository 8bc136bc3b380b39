//! A secret: a text that no log line, report or error can show by accident.

use std::fmt;

use ring::hmac;

/// Values shorter than this are masked only where they stand alone: masking every "a" would leave nothing to read.
const SHORT: usize = 4;

/// A password, key or token. `Debug` shows `***`; there is neither `Display` nor `Serialize`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one place that must send or hash it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the secret, in a time that does not depend on where they differ.
    pub fn matches(&self, given: &str) -> bool {
        // HMAC under the secret, of a fixed word: equal keys give equal codes, and the codes are compared in constant time.
        let key = |text: &str| hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        // A key longer than a block is hashed first (RFC 2104 section 2), so the lengths are compared too.
        let same = hmac::verify(&key(&self.0), b"compare", hmac::sign(&key(given), b"compare").as_ref()).is_ok();
        same & (self.0.len() == given.len())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.matches(other.expose())
    }
}

impl Eq for Secret {}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

/// The text with every secret in it shown as `***`; `secrets` longest first.
pub fn mask(text: &str, secrets: &[Secret]) -> String {
    secrets.iter().map(Secret::expose).filter(|s| !s.is_empty()).fold(text.to_string(), |text, secret| {
        let mut shown = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once(secret) {
            let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
            let begins = before.chars().next_back().or_else(|| shown.chars().next_back());
            let alone = !inside(begins) && !inside(after.chars().next());
            shown.push_str(before);
            shown.push_str(if secret.len() >= SHORT || alone { "***" } else { secret });
            rest = after;
        }
        shown + rest
    })
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_long_values_anywhere_and_short_ones_alone() {
        let secrets = [Secret::new("hunter2"), Secret::new("ab"), Secret::new("")];
        assert_eq!(mask("xhunter2y \"ab\" cab ab:1 abab", &secrets), "x***y \"***\" cab ***:1 abab");
    }

    #[test]
    fn debug_shows_nothing_and_matches_only_itself() {
        let secret = Secret::new("correct horse");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "*** Some(\n    ***,\n)");
        assert!(secret.matches("correct horse"));
        for wrong in ["", "correct hors", "correct horsE", "correct horse ", "correct horse\0"] {
            assert!(!secret.matches(wrong), "{wrong:?}");
        }
    }
}

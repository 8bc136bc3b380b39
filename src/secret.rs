//! A secret: a text that no log line, report or error can show by accident.

use std::fmt;

use ring::hmac;

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

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
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
    fn debug_shows_nothing_and_matches_only_itself() {
        let secret = Secret::new("correct horse");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "*** Some(\n    ***,\n)");
        assert!(secret.matches("correct horse"));
        for wrong in ["", "correct hors", "correct horsE", "correct horse ", "correct horse\0"] {
            assert!(!secret.matches(wrong), "{wrong:?}");
        }
    }
}

//! Secrets: values that no log, report or Debug may show.
use std::fmt;

/// Values shorter than this are masked only where they stand alone: masking every "a" would leave nothing to read.
const SHORT: usize = 4;

/// A secret text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);
impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }
    /// The text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// The text with every secret in it shown as `***`; `secrets` longest first.
pub fn mask(text: &str, secrets: &[Secret]) -> String {
    secrets.iter().map(Secret::reveal).filter(|s| !s.is_empty()).fold(text.to_string(), |text, secret| {
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
        assert_eq!(format!("{secrets:?}"), "[***, ***, ***]");
    }
}

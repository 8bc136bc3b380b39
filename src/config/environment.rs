//! `${NAME}` in a string: replaced from the environment, once, after parsing.

use crate::secret::Secret;

/// A string after replacing, and the values that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The string to use.
    pub text: String,
    /// What the environment gave: to be masked wherever it is shown.
    pub values: Vec<Secret>,
}

/// Replaces every `${NAME}` in `text`; `$${` stands for `${` itself. What comes in is not looked at again.
///
/// # Errors
/// Every name that is not set or not a name, and what to write instead.
pub fn replace(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Replaced, Vec<String>> {
    let mut replaced = Replaced { text: String::with_capacity(text.len()), values: Vec::new() };
    let mut problems = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            replaced.text.push_str(before);
            replaced.text.push_str("${");
            rest = after;
            continue;
        }
        replaced.text.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            problems.push("\"${\" is not closed; write ${NAME}, or $${ for the two characters themselves".into());
            return Err(problems);
        };
        rest = after;
        if !is_name(name) {
            problems.push(format!("\"${{{name}}}\" names no variable; write letters, digits and _, or $${{ for a literal ${{"));
            continue;
        }
        match env(name) {
            Some(value) => {
                replaced.text.push_str(&value);
                replaced.values.push(Secret::new(value));
            }
            None => problems.push(format!("the environment variable {name} is not set; set it, or write $${{ for a literal ${{")),
        }
    }
    replaced.text.push_str(rest);
    if problems.is_empty() { Ok(replaced) } else { Err(problems) }
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db.example.com".into()),
            "SNEAKY" => Some("${HOST}".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn both_sides_of_each_border() {
        let good = [
            ("plain $5 {x}", "plain $5 {x}"),
            ("${HOST}:1", "db.example.com:1"),
            ("a${EMPTY}b", "ab"),
            ("$${HOST}", "${HOST}"),
            ("$$${HOST}", "$${HOST}"),
            ("${SNEAKY}", "${HOST}"),
            ("$", "$"),
        ];
        for (text, result) in good {
            assert_eq!(replace(text, &env).map(|r| r.text), Ok(result.to_string()), "{text}");
        }
        let bad = [
            ("${NONE}", vec!["the environment variable NONE is not set; set it, or write $${ for a literal ${"]),
            ("${}", vec!["\"${}\" names no variable; write letters, digits and _, or $${ for a literal ${"]),
            ("${1A}", vec!["\"${1A}\" names no variable; write letters, digits and _, or $${ for a literal ${"]),
            ("${HOST", vec!["\"${\" is not closed; write ${NAME}, or $${ for the two characters themselves"]),
            (
                "${A}${B}",
                vec![
                    "the environment variable A is not set; set it, or write $${ for a literal ${",
                    "the environment variable B is not set; set it, or write $${ for a literal ${",
                ],
            ),
        ];
        for (text, messages) in bad {
            let messages = messages.into_iter().map(String::from).collect();
            assert_eq!(replace(text, &env), Err(messages), "{text}");
        }
    }

    #[test]
    fn what_came_in_is_remembered() {
        let values = replace("${HOST} and ${EMPTY}", &env).unwrap().values;
        assert_eq!(values, [Secret::new("db.example.com"), Secret::new("")]);
    }
}

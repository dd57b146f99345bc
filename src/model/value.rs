//! Plaintext values. They are wiped on drop, and cannot be printed, compared or serialised by accident: they have no
//! `Debug`, `Display`, `Serialize` or `PartialEq`.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::names::name::FieldName;

/// One plaintext value: any bytes, wiped on drop.
pub struct Value(Zeroizing<Vec<u8>>);

impl Value {
    /// Takes ownership of the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The plaintext.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Moves the plaintext out. The caller sees to it that the plaintext is wiped or sent.
    pub fn into_exposed(mut self) -> Vec<u8> {
        std::mem::take(&mut *self.0)
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if it is empty; an empty value is a value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if it looks like a mask that a tool prints instead of a secret. Such a value was read from a tool's output and
    /// written back by mistake.
    pub fn looks_masked(&self) -> bool {
        std::str::from_utf8(self.expose()).is_ok_and(|text| is_mask(text.trim()))
    }
}

/// Signs that tools print in place of each character of a secret.
const DOTS: [char; 6] = ['*', '•', '●', '∙', '█', '▪'];
/// Words that tools print in brackets or stars in a secret's place.
const HIDDEN: [&str; 15] = [
    "concealed",
    "filtered",
    "hidden",
    "known after apply",
    "masked",
    "obfuscated",
    "omitted",
    "protected",
    "redacted",
    "sanitized",
    "secret",
    "secure",
    "sensitive",
    "sensitive value",
    "value redacted",
];
/// Masks of kubectl, Ansible, Octopus and other tools, as they are printed.
const EXACT: [&str; 5] = [
    "--- sanitized ---",
    "DATA+OMITTED",
    "REDACTED",
    "Sensitive [value redacted]",
    "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER",
];
/// How masks of n8n, 1Password and kubectl begin and end.
const AROUND: [(&str, &str); 4] = [
    ("__n8n_BLANK_VALUE_", ""),
    ("<concealed by ", ">"),
    ("[use 'op item get ", "]"),
    ("<set to the key ", ">"),
];

/// True if a tool prints this text in place of a secret.
fn is_mask(text: &str) -> bool {
    // `aws configure list` shows the last four characters; other tools show the first four, too.
    let begun = text.trim_start_matches(|c| !DOTS.contains(&c));
    let inner = begun.trim_end_matches(|c| !DOTS.contains(&c));
    let [all, begun, dots] = [text, begun, inner].map(|text| text.chars().count());
    let (before, after) = (all - begun, begun - dots);
    let is_dotted = is_dots(inner)
        && ((before == 0 && after == 0)
            || (before == 0 && after == 4 && dots >= 5)
            || (before <= 4 && after <= 4 && dots >= 8));
    let brackets = ['<', '>', '[', ']', '(', ')', '{', '}', '*'];
    let word = text.trim_start_matches(brackets).trim_end_matches(brackets).trim();
    let is_within = !text.starts_with(word) && !text.ends_with(word);
    is_dotted
        || is_in_url(text)
        || is_in_json(text)
        || (is_within && HIDDEN.iter().any(|hidden| word.eq_ignore_ascii_case(hidden)))
        || EXACT.contains(&text)
        || AROUND.iter().any(|(start, end)| text.starts_with(start) && text.ends_with(end))
}

/// True if a text is nothing but such signs.
fn is_dots(text: &str) -> bool {
    text.chars().count() >= 3 && text.chars().all(|c| DOTS.contains(&c))
}

/// `https://user:***@host/path`
fn is_in_url(text: &str) -> bool {
    let (_, rest) = text.split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, _) = authority.rsplit_once('@').unwrap_or_default();
    user.split_once(':').is_some_and(|(_, password)| is_dots(password))
}

/// `{"password": "***"}`
fn is_in_json(text: &str) -> bool {
    let parts: Vec<&str> = text.split('"').collect();
    let is_value =
        |pair: &[&str]| matches!(pair, [before, value] if before.trim() == ":" && is_dots(value));
    text.starts_with('{') && parts.windows(2).any(is_value)
}

/// The smallest size class, in bytes.
const LEAST_SIZE: usize = 2 * 1024;
/// Larger size classes are multiples of this, in bytes.
pub const SIZE_STEP: usize = 32 * 1024;

/// The size class of so many bytes of secrets: shown in place of the size, of which it reveals little. It is never less.
///
/// | bytes | size |
/// |---|---|
/// | up to 2 KiB | 2 KiB |
/// | up to 32 KiB | the next power of two |
/// | more | the next multiple of 32 KiB |
pub fn size_class(bytes: usize) -> usize {
    match bytes <= SIZE_STEP {
        true => bytes.next_power_of_two().max(LEAST_SIZE),
        false => bytes.next_multiple_of(SIZE_STEP),
    }
}

/// The plaintext of one credential, by field.
pub type Fields = BTreeMap<FieldName, Value>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_recognised_and_real_values_are_not() {
        let masks = [
            "***",
            "********",
            "••••••••",
            "<redacted>",
            "((Redacted))",
            "***REDACTED***",
            "[MASKED]",
            "(SENSITIVE)",
            "(sensitive value)",
            " **** \n",
            "****************MPLE",
            "DATA+OMITTED",
            "<concealed by 1Password>",
            "[use 'op item get abc --reveal' to reveal]",
            "__n8n_BLANK_VALUE_e5362baf",
            "REDACTED",
            "[value redacted]",
            "Sensitive [value redacted]",
            "--- sanitized ---",
            "(known after apply)",
            "*****abcd",
            "AKIA****************",
            "sk-a********wxyz",
            "https://user:***@host/x",
            r#"{"password": "***"}"#,
        ];
        for mask in masks {
            assert!(Value::new(mask.into()).looks_masked(), "{mask}");
        }
        for real in [
            "",
            "**",
            "a***",
            "*****abc",
            "redacted",
            "<b>redacted",
            "hunter2",
            "secret",
            "https://user:pw@host/***",
            r#"{"***": "pw*"}"#,
        ] {
            assert!(!Value::new(real.into()).looks_masked(), "{real}");
        }
    }
}

//! Why an operator does something, in their own words.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::letter::is_unseen;
use super::name::Invalid;
use crate::model::text::read_from_text;

/// The longest reason, in bytes.
const MAX_BYTES: usize = 256;

/// The reason that an operator gives: 1 to 256 bytes, and no character that a terminal obeys or does not show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Because(String);

impl Because {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Because {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_one = (1..=MAX_BYTES).contains(&text.len())
            && !text.chars().any(is_unseen)
            && !text.trim().is_empty();
        let rule = "say why, in 1 to 256 bytes of one line";
        is_one.then(|| Self(text.to_owned())).ok_or_else(|| Invalid::new("reason", text, rule))
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

read_from_text!(Because, str::parse);

//! What a decision is called.
//!
//! Its line's place is a counter of what everybody does, so a step is told another name: a keyed permutation of
//! the place. It is the same for the same line, and only the broker leads it back.

use std::fmt;
use std::str::FromStr;

use crate::seal::Keyring;

/// Where a decision stands in the journal: what an operator looks it up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionId {
    pub(crate) file: u64,
    pub(crate) line: u64,
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.file, self.line)
    }
}

impl DecisionId {
    /// What a step is told: 32 hexadecimal digits.
    pub fn to_opaque(self, keyring: &Keyring) -> String {
        let place = u128::from(self.file) << 64 | u128::from(self.line);
        // Of one length, and made in one piece: what it takes is the same for all.
        hex::encode(keyring.hide_place(place).to_be_bytes())
    }
}

/// A decision as somebody names it: "FILE.LINE", or what a step was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionName {
    /// Its place.
    Clear(DecisionId),
    /// What stands for it.
    Opaque(u128),
}

/// A text that is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no decision is called so")]
pub struct NoDecisionName;

impl FromStr for DecisionName {
    type Err = NoDecisionName;

    fn from_str(text: &str) -> Result<Self, NoDecisionName> {
        let number = |text: &str| text.parse().map_err(|_| NoDecisionName);
        if let Some((file, line)) = text.split_once('.') {
            return Ok(Self::Clear(DecisionId { file: number(file)?, line: number(line)? }));
        }
        let is_hidden = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hidden = is_hidden.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        hidden.map(Self::Opaque).ok_or(NoDecisionName)
    }
}

impl DecisionName {
    /// The place, if it can be one.
    pub(crate) fn place(self, keyring: &Keyring) -> Option<DecisionId> {
        match self {
            Self::Clear(id) => Some(id),
            Self::Opaque(hidden) => {
                let place = keyring.reveal_place(hidden);
                let (file, line) = (place >> 64, place & u128::from(u64::MAX));
                Some(DecisionId { file: file.try_into().ok()?, line: line.try_into().ok()? })
            }
        }
    }
}

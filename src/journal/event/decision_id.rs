//! The ids of decisions.
//!
//! The place of a line counts the decisions of everybody. So a step gets an opaque id instead: a keyed permutation of
//! the place. The same line always has the same id, and only the broker can reverse it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{Id, parsed};
use crate::seal::Keyring;

/// The place of a decision's line, by which operators look it up.
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
    /// The opaque id, which steps get: 32 hexadecimal digits.
    pub fn to_opaque(self, keyring: &Keyring) -> String {
        // The length is fixed and there is one allocation, so that all refusals cost the same.
        hex::encode(self.hidden(keyring))
    }

    /// The id of the mint that begins with this line: the same digits as the opaque id.
    pub(in crate::journal) fn to_mint(self, keyring: &Keyring) -> Id {
        Id::from_bytes(self.hidden(keyring))
    }

    /// True if this broker, or one that it was restored from, has made the id of this mint. The ids of others stand for places
    /// that no journal reaches.
    pub(in crate::journal) fn is_of_mint(mint: Id, keyring: &Keyring) -> bool {
        /// No journal has as many files, or a file as many lines.
        const MOST: u128 = 1 << 32;
        let place = keyring.reveal_place(u128::from_be_bytes(*mint.as_bytes()));
        place >> 64 < MOST && place & u128::from(u64::MAX) < MOST
    }

    fn hidden(self, keyring: &Keyring) -> [u8; Id::BYTES] {
        let place = u128::from(self.file) << 64 | u128::from(self.line);
        keyring.hide_place(place).to_be_bytes()
    }
}

impl Serialize for DecisionId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DecisionId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, |text| match text.parse()? {
            DecisionName::Clear(id) => Ok(id),
            DecisionName::Opaque(_) => Err(NoDecisionName),
        })
    }
}

/// The id of a decision as a caller gives it: "FILE.LINE", or an opaque id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionName {
    /// The place.
    Clear(DecisionId),
    /// The opaque id.
    Opaque(u128),
}

/// The text is neither a place nor an opaque id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text is not a decision id")]
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
    /// The place, if the id can be one.
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

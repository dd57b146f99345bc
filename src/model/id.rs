//! Random identifiers.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::text::{HexDigits, read_from_text};

/// 128 random bits, written as 32 lower-case hexadecimal digits. Two ids are never equal by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; Self::BYTES]);

impl Id {
    /// Its length in bytes.
    pub const BYTES: usize = 16;

    /// An identifier of these bytes, which the caller has from a random source.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, as store keys and associated data use them.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The hexadecimal digits.
    pub fn digits(&self) -> HexDigits<{ 2 * Self::BYTES }> {
        HexDigits::of(&self.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits().as_str())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.digits().as_str())
    }
}

impl FromStr for Id {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; Self::BYTES];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

read_from_text!(Id, str::parse);

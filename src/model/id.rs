//! Random identifiers.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::text::{HexDigits, read_from_text};

/// 128 random bits, written as 32 lower-case hexadecimal digits. Two ids are never equal by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// A map by ids.
pub type IdMap<V> = HashMap<Id, V, BuildHasherDefault<IdHasher>>;
/// A set of ids.
pub type IdSet = HashSet<Id, BuildHasherDefault<IdHasher>>;

/// The hash of an id is its first half. Ids are random and the broker makes them, so nobody can choose ids that collide.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let half = bytes.first_chunk().map_or(0, |half| u64::from_ne_bytes(*half));
        self.0 ^= half;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

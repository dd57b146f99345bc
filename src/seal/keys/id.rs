//! Names of keys.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Timestamp, hex_bytes};

/// The id of a KEK or DEK. Not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(#[serde(with = "hex_bytes")] pub(crate) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl KeyId {
    /// The id in this text; `None` if it is not of 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 8];
        hex::decode_to_slice(text, &mut bytes).ok().map(|()| Self(bytes))
    }
}

/// A DEK without the key itself.
#[derive(Clone, Copy, Debug)]
pub struct Dek {
    /// Its id.
    pub id: KeyId,
    /// When it was made; `None` in a keyring of the first format.
    pub create_time: Option<Timestamp>,
}

//! Bytes as text, for `#[serde(with = "…")]` and elsewhere, and reading types that are written as text.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// `N` lower-case hexadecimal digits, without a heap block.
pub struct HexDigits<const N: usize>([u8; N]);

impl<const N: usize> HexDigits<N> {
    /// The digits of `N / 2` bytes; zeros for any other number of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digits = [b'0'; N];
        // It fails only if the lengths do not match, and writes nothing then.
        let _ = hex::encode_to_slice(bytes, &mut digits);
        Self(digits)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// As ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a text and parses it in place, without a copy: a catalogue holds millions of texts.
///
/// # Errors
/// As the deserializer or `parse`.
pub fn parsed<'de, D, T, E>(
    from: D,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    E: fmt::Display,
{
    from.deserialize_str(Parsing { parse, result: PhantomData })
}

struct Parsing<F, R> {
    parse: F,
    result: PhantomData<R>,
}

impl<F: FnOnce(&str) -> Result<T, E>, T, E: fmt::Display> Visitor<'_> for Parsing<F, Result<T, E>> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<D: Error>(self, text: &str) -> Result<T, D> {
        (self.parse)(text).map_err(D::custom)
    }
}

/// Implements `Deserialize` for a type that is written as text.
macro_rules! read_from_text {
    ($type:ty, $parse:expr) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::model::parsed(from, $parse)
            }
        }
    };
}
pub(crate) use read_from_text;

/// Bytes as hexadecimal digits.
pub mod hex_bytes {
    use hex::{FromHex, FromHexError};
    use serde::{Deserializer, Serializer};

    use super::parsed;

    /// Writes lower-case digits.
    ///
    /// # Errors
    /// As the serializer.
    pub fn serialize<S: Serializer, T: AsRef<[u8]>>(bytes: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    /// Reads digits.
    ///
    /// # Errors
    /// If the text is not hexadecimal or has another length.
    pub fn deserialize<'de, D, T>(from: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: FromHex<Error = FromHexError>,
    {
        parsed(from, |text| T::from_hex(text))
    }
}

/// Bytes as standard base64 (RFC 4648 section 4).
pub mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserializer, Serializer};

    use super::parsed;

    /// Writes base64 with padding.
    ///
    /// # Errors
    /// As the serializer.
    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    /// Reads base64.
    ///
    /// # Errors
    /// If the text is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        parsed(from, |text| STANDARD.decode(text))
    }
}

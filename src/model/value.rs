//! Plaintext values. They are wiped when dropped and cannot be printed, compared or serialised by
//! accident: there is no `Debug`, `Display`, `Serialize` or `PartialEq` here.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::name::FieldName;

/// One plaintext value: any bytes, wiped on drop.
pub struct Value(Zeroizing<Vec<u8>>);

impl Value {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The plaintext.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Gives the plaintext away, to something that the caller knows will wipe or send it.
    pub fn into_exposed(mut self) -> Vec<u8> {
        std::mem::take(&mut *self.0)
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty; an empty value is a value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it looks like what a tool prints instead of a secret: such a value is a mistake, made by
    /// writing back what was read.
    pub fn looks_masked(&self) -> bool {
        let text = self.expose().trim_ascii();
        let stars = text.len() >= 3 && text.iter().all(|&byte| byte == b'*');
        let words: [&[u8]; 4] =
            [b"<redacted>", b"(sensitive)", b"[redacted]", b"(sensitive value)"];
        stars || words.iter().any(|word| text.eq_ignore_ascii_case(word))
    }
}

/// The least size that tells anything of a secret, in bytes.
const LEAST_SIZE: usize = 2 * 1024;
/// From here on sizes are multiples of this, in bytes.
pub const SIZE_STEP: usize = 32 * 1024;

/// The size that stands for so many bytes of secrets wherever somebody may see it: one of a few, and never less.
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
        for mask in ["***", "********", "<redacted>", "(SENSITIVE)", " **** \n"] {
            assert!(Value::new(mask.into()).looks_masked(), "{mask}");
        }
        for real in ["", "**", "a***", "redacted", "hunter2"] {
            assert!(!Value::new(real.into()).looks_masked(), "{real}");
        }
    }
}

//! The plaintext of a credential as bytes, sealed and opened as a whole.
//!
//! ```text
//! (name length 2 BE | name | value length 4 BE | value) …   sorted by name
//! ```

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::keys::keyring::Keyring;
use super::record::{RecordKey, Sealed};
use super::{NoRandomness, OpenError};
use crate::model::{FieldName, Fields, Value};

/// The change of one field when a credential is sealed again.
pub enum FieldChange {
    /// Removes the field.
    Remove,
    /// Sets its value.
    Set(Value),
}

/// Why a credential could not be sealed again.
#[derive(Debug, thiserror::Error)]
pub enum ReadValues {
    /// The old record fails authentication.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// A credential in the clear, in the layout that was sealed. Wiped on drop; only requested fields are copied.
pub struct OpenedFields(Zeroizing<Vec<u8>>);

impl OpenedFields {
    /// The value of a field; `None` if there is no field of this name.
    pub fn get(&self, name: &FieldName) -> Option<&[u8]> {
        let mut fields = fields_in(&self.0).flatten();
        fields.find(|(field, _)| *field == name.as_str().as_bytes()).map(|(_, value)| value)
    }

    /// A copy of all fields; `None` if a name is malformed.
    pub fn to_fields(&self) -> Option<Fields> {
        let owned = |(name, value): EncodedField<'_>| {
            let name = FieldName::parse(std::str::from_utf8(name).ok()?).ok()?;
            Some((name, Value::new(value.to_vec())))
        };
        fields_in(&self.0).map(|field| field.and_then(owned)).collect()
    }
}

impl Keyring {
    /// Seals a credential.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn seal_values(
        &self,
        key: RecordKey,
        version: u64,
        fields: &Fields,
    ) -> Result<Sealed, NoRandomness> {
        self.seal(key, version, &encode(fields))
    }

    /// Opens a credential. Only the journal's `Permit` calls this.
    ///
    /// # Errors
    /// If the record fails authentication.
    pub fn open_values(&self, key: RecordKey, sealed: &Sealed) -> Result<OpenedFields, OpenError> {
        let bytes = self.decrypt(key, sealed)?;
        let is_whole = fields_in(&bytes).all(|field| field.is_some());
        if is_whole { Ok(OpenedFields(bytes)) } else { Err(OpenError) }
    }

    /// Seals a credential again with some fields changed. The plaintext stays in this function.
    ///
    /// # Errors
    /// If the old record fails authentication.
    pub fn reseal_values(
        &self,
        key: RecordKey,
        old: &Sealed,
        version: u64,
        changes: BTreeMap<FieldName, FieldChange>,
    ) -> Result<Sealed, ReadValues> {
        let mut fields = self.open_values(key, old)?.to_fields().ok_or(OpenError)?;
        for (name, change) in changes {
            match change {
                FieldChange::Remove => fields.remove(&name),
                FieldChange::Set(value) => fields.insert(name, value),
            };
        }
        Ok(self.seal_values(key, version, &fields)?)
    }

    /// Seals a record of any kind, as it is, under the newest DEK. The plaintext stays in this function.
    ///
    /// # Errors
    /// If the old record fails authentication.
    pub fn reseal(&self, key: RecordKey, old: &Sealed) -> Result<Sealed, ReadValues> {
        Ok(self.seal(key, old.version(), &self.decrypt(key, old)?)?)
    }
}

fn encode(fields: &Fields) -> Zeroizing<Vec<u8>> {
    let size = fields.iter().map(|(name, value)| 6 + name.as_str().len() + value.len()).sum();
    // Sized beforehand: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    for (name, value) in fields {
        let name = name.as_str().as_bytes();
        bytes.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(value.expose());
    }
    bytes
}

/// One field of an encoded credential: its name and its value.
type EncodedField<'a> = (&'a [u8], &'a [u8]);

/// The fields of an encoded credential; the last is `None` if the encoding is damaged.
fn fields_in(mut rest: &[u8]) -> impl Iterator<Item = Option<EncodedField<'_>>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let split = split_field(rest);
        rest = split.map_or(&[], |(_, rest)| rest);
        Some(split.map(|(field, _)| field))
    })
}

/// The first field, and the bytes after it.
fn split_field(bytes: &[u8]) -> Option<(EncodedField<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (value, rest) = rest.split_at_checked(length)?;
    Some(((name, value), rest))
}

#[cfg(test)]
mod tests {
    use super::super::RecordKind;
    use super::super::samples::keyring;
    use super::*;
    use crate::model::Id;

    fn key(kind: RecordKind, n: u8) -> RecordKey {
        RecordKey { kind, uid: Id::from_bytes([n; 16]) }
    }

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(k, v)| (FieldName::parse(k).unwrap(), Value::new((*v).into()))).collect()
    }

    #[test]
    fn a_sealed_credential_opens_only_as_its_own_record() {
        let keyring = keyring();
        let own = key(RecordKind::ConnectionValues, 1);
        let sealed = keyring.seal_values(own, 7, &fields(&[("a", "x"), ("b", "")])).unwrap();
        let opened = keyring.open_values(own, &sealed).unwrap();
        let b = FieldName::parse("b").unwrap();
        assert!(
            opened.get(&b) == Some(b"") && opened.get(&FieldName::parse("c").unwrap()).is_none()
        );
        let opened = opened.to_fields().unwrap();
        let texts: Vec<_> = opened.iter().map(|(k, v)| (k.as_str(), v.expose())).collect();
        assert_eq!(texts, [("a", &b"x"[..]), ("b", &b""[..])]);

        for other in [key(RecordKind::ConnectionValues, 2), key(RecordKind::SecretValue, 1)] {
            assert!(keyring.open_values(other, &sealed).is_err());
        }
        assert!(keyring.open_metadata(own, &sealed).is_err());
        assert!(super::super::tests_support::every_flipped_bit_is_refused(&keyring, own, &sealed));
    }

    #[test]
    fn sealing_again_changes_only_the_named_fields() {
        let keyring = keyring();
        let own = key(RecordKind::ConnectionValues, 1);
        let old =
            keyring.seal_values(own, 1, &fields(&[("a", "1"), ("b", "2"), ("c", "3")])).unwrap();
        let changes = BTreeMap::from([
            (FieldName::parse("a").unwrap(), FieldChange::Set(Value::new(b"9".to_vec()))),
            (FieldName::parse("b").unwrap(), FieldChange::Remove),
        ]);
        let new = keyring.reseal_values(own, &old, 2, changes).unwrap();
        assert_eq!(new.version(), 2);
        let opened = keyring.open_values(own, &new).unwrap().to_fields().unwrap();
        let texts: Vec<_> = opened.iter().map(|(k, v)| (k.as_str(), v.expose())).collect();
        assert_eq!(texts, [("a", &b"9"[..]), ("c", &b"3"[..])]);
    }
}

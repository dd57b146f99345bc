//! The keyring: the DEKs and two derivation keys, unwrapped.
//!
//! Derivation keys never encrypt. The keys of everything that is authenticated but not sealed are derived from them, by
//! HMAC-SHA-256 over a label. They stay the same when a DEK is added.
//!
//! | derivation key | what is derived from it |
//! |---|---|
//! | `shared` | field fingerprints, MACs of requests: equal for brokers with the same records |
//! | `host` | tags of the journal, of backups and of the keyring, the store's digest, decision ids: of this broker alone |
//!
//! A keyring of 0.1.0 had one derivation key. It becomes both, under the same labels, so that all its tags verify.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::id::{Dek, KeyId};
use crate::model::Id;
use crate::seal::aad;
use crate::seal::cipher;
use crate::seal::memory::secret_memory::SecretKey;
use crate::seal::permutation::{invert, permute};
use crate::seal::prf::prf;
use crate::seal::record::{RecordKey, Sealed};
use crate::seal::{NoRandomness, OpenError, random, random_key};

/// The id of the key of this process, which seals records that are in memory only.
const IN_MEMORY: KeyId = KeyId(*b"inmemory");

/// The unwrapped keys of one broker. They change while it runs, when keys are rotated.
pub struct Keyring {
    keys: ArcSwap<UnwrappedKeys>,
    journal: hmac::Key,
    fingerprint: hmac::Key,
    request: hmac::Key,
    digest: hmac::Key,
    backup: hmac::Key,
    keyring: hmac::Key,
    place: hmac::Key,
    /// Seals records that are in memory only. It is made at start, so no rotation concerns them.
    in_memory: SecretKey,
}

#[derive(Clone)]
struct UnwrappedKeys {
    kek_id: KeyId,
    /// Oldest first.
    deks: Vec<Dek>,
    newest: KeyId,
    /// The keys of `deks`, and of DEKs that were retired and are not forgotten yet.
    keys: BTreeMap<KeyId, Arc<SecretKey>>,
}

impl Keyring {
    /// A keyring of these keys, the oldest DEK first; `None` if there is no DEK, or no random numbers.
    pub(crate) fn new(
        kek_id: KeyId,
        unwrapped: Vec<(Dek, SecretKey)>,
        shared: &SecretKey,
        host: &SecretKey,
    ) -> Option<Self> {
        let deks: Vec<Dek> = unwrapped.iter().map(|(dek, _)| *dek).collect();
        let newest = deks.last()?.id;
        let keys = unwrapped.into_iter().map(|(dek, key)| (dek.id, Arc::new(key))).collect();
        let [shared, host] =
            [shared, host].map(|key| hmac::Key::new(hmac::HMAC_SHA256, &*key.copy()));
        let derive = |root: &hmac::Key, label: &[u8]| {
            hmac::Key::new(hmac::HMAC_SHA256, &*Zeroizing::new(prf(root, &[label])))
        };
        Some(Self {
            keys: ArcSwap::from_pointee(UnwrappedKeys { kek_id, deks, newest, keys }),
            journal: derive(&host, b"keyhatch/v1/journal tag"),
            fingerprint: derive(&shared, b"keyhatch/v1/field fingerprint"),
            request: derive(&shared, b"keyhatch/v1/request mac"),
            digest: derive(&host, b"keyhatch/v1/store digest"),
            backup: derive(&host, b"keyhatch/v1/backup manifest"),
            keyring: derive(&host, b"keyhatch/v1/keyring tag"),
            place: derive(&host, b"keyhatch/v1/decision id"),
            in_memory: random_key().ok()?,
        })
    }

    /// The id of the KEK that wraps this keyring.
    pub fn kek_id(&self) -> KeyId {
        self.keys.load().kek_id
    }

    /// The DEKs, oldest first. New records are sealed under the last.
    pub fn deks(&self) -> Vec<Dek> {
        self.keys.load().deks.clone()
    }

    /// The DEK that new records are sealed under.
    pub fn newest_dek(&self) -> KeyId {
        self.keys.load().newest
    }

    /// Takes the keys of a changed keyring. Records under the keys of before can still be opened.
    pub(super) fn adopt(&self, written: &Self) {
        let written = written.keys.load();
        self.change(|keys| {
            (keys.kek_id, keys.newest) = (written.kek_id, written.newest);
            keys.deks.clone_from(&written.deks);
            keys.keys.extend(written.keys.iter().map(|(id, key)| (*id, Arc::clone(key))));
        });
    }

    /// Takes DEKs off the list. Records under them can be opened until the keys are forgotten: a request may be about to.
    pub(super) fn retire(&self, is_retired: impl Fn(&KeyId) -> bool) {
        self.change(|keys| keys.deks.retain(|dek| dek.id == keys.newest || !is_retired(&dek.id)));
    }

    /// Forgets the keys that are no longer on the list.
    pub fn forget_retired(&self) {
        self.change(|keys| {
            let UnwrappedKeys { deks, keys, .. } = keys;
            keys.retain(|id, _| deks.iter().any(|dek| dek.id == *id));
        });
    }

    /// Callers take turns: they have changed the keyring on disk.
    fn change(&self, change: impl Fn(&mut UnwrappedKeys)) {
        self.keys.rcu(|keys| {
            let mut changed = UnwrappedKeys::clone(keys);
            change(&mut changed);
            changed
        });
    }

    /// Seals one record: under the newest DEK, or under the key of this process if such records are in memory only.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn seal(
        &self,
        key: RecordKey,
        version: u64,
        plaintext: &[u8],
    ) -> Result<Sealed, NoRandomness> {
        let nonce = random::<24>()?;
        let keys = self.keys.load();
        let (id, dek) = match key.kind.is_in_memory() {
            true => (IN_MEMORY, Some(&self.in_memory)),
            false => (keys.newest, keys.keys.get(&keys.newest).map(AsRef::as_ref)),
        };
        let aad = aad::record(key, version, id);
        let dek = dek.ok_or(NoRandomness)?;
        let ciphertext = cipher::encrypt(dek, &nonce, plaintext, &aad).ok_or(NoRandomness)?;
        Ok(Sealed::assemble(id, version, &nonce, &ciphertext))
    }

    /// Opens a record that holds no values.
    ///
    /// # Errors
    /// If it fails authentication, or is of a kind that only a permit may open.
    pub fn open_metadata(
        &self,
        key: RecordKey,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if key.kind.is_values() {
            return Err(OpenError);
        }
        self.decrypt(key, sealed)
    }

    pub(crate) fn decrypt(
        &self,
        key: RecordKey,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let keys = self.keys.load();
        let dek = match key.kind.is_in_memory() {
            true => &self.in_memory,
            false => keys.keys.get(&sealed.dek()).ok_or(OpenError)?,
        };
        let aad = aad::record(key, sealed.version(), sealed.dek());
        cipher::decrypt(dek, &sealed.nonce(), sealed.ciphertext(), &aad).ok_or(OpenError)
    }

    /// The keyed tag of a journal line.
    pub fn journal_tag(&self, line: &[u8]) -> [u8; 32] {
        prf(&self.journal, &[line])
    }

    /// True if `tag` is the keyed tag of this journal line. Takes the same time for every wrong tag.
    pub fn is_journal_tag(&self, line: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.journal, line, tag).is_ok()
    }

    /// The keyed fingerprint of a field's value. Equal values of one field of one connection have equal fingerprints;
    /// without the key a fingerprint says nothing about the value.
    pub fn fingerprint(&self, uid: Id, field: &str, value: &[u8]) -> [u8; 32] {
        let length = (field.len() as u64).to_be_bytes();
        prf(&self.fingerprint, &[uid.as_bytes(), &length, field.as_bytes(), value])
    }

    /// The keyed MAC of a request: of its parts in their order, each with its length.
    pub fn request_mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let lengths: Vec<_> = parts.iter().map(|part| (part.len() as u64).to_be_bytes()).collect();
        let framed = lengths.iter().zip(parts).flat_map(|(length, part)| [&length[..], *part]);
        prf(&self.request, &framed.collect::<Vec<_>>())
    }

    /// The keyed tag of a backup's manifest.
    pub fn backup_tag(&self, manifest: &[u8]) -> [u8; 32] {
        prf(&self.backup, &[manifest])
    }

    /// True if `tag` is the keyed tag of this manifest.
    pub fn is_backup_tag(&self, manifest: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.backup, manifest, tag).is_ok()
    }

    /// The keyed tag of `keyring.json`.
    pub(super) fn keyring_tag(&self, file: &[u8]) -> [u8; 32] {
        prf(&self.keyring, &[file])
    }

    /// True if `tag` is the keyed tag of this `keyring.json`.
    pub(super) fn is_keyring_tag(&self, file: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.keyring, file, tag).is_ok()
    }

    /// A number that replaces a position in the journal where the position itself would reveal too much.
    pub fn hide_place(&self, place: u128) -> u128 {
        permute(&self.place, place)
    }

    /// The position that such a number replaces.
    pub fn reveal_place(&self, hidden: u128) -> u128 {
        invert(&self.place, hidden)
    }

    /// The share of one record in the store's digest.
    pub fn digest_share(&self, key: RecordKey, sealed: &[u8]) -> [u8; 32] {
        prf(&self.digest, &[&[key.kind.byte()], key.uid.as_bytes(), sealed])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Fields;
    use crate::seal::RecordKind;
    use crate::seal::samples;

    #[test]
    fn what_is_in_memory_only_outlives_every_dek() {
        let keyring = samples::keyring();
        let [minted, ending] = [RecordKind::MintedValues, RecordKind::Ending].map(|kind| {
            let key = RecordKey { kind, uid: Id::from_bytes([1; Id::BYTES]) };
            (key, keyring.seal_values(key, 1, &Fields::new()).unwrap())
        });
        let opens = |(key, sealed): &(RecordKey, Sealed)| keyring.open_values(*key, sealed).is_ok();
        keyring.adopt(&samples::keyring());
        assert!(opens(&minted) && opens(&ending), "a request may be about to open it");
        let resealed = (ending.0, keyring.reseal(ending.0, &ending.1).unwrap());
        keyring.forget_retired();
        assert!(opens(&minted) && opens(&resealed) && !opens(&ending));
    }
}

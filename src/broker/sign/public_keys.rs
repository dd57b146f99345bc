//! The public halves of keys that have signed.
//!
//! Only a private key tells its public key, so the first request opens the key for that alone, with a line that says so. From then on
//! a request is compared with the public key before its line is written.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::{Id, IdMap};
use crate::ssh::KeyFault;

/// The most keys that are kept. A key that is forgotten is read again.
const MAX_KEYS: usize = 1024;

/// A public key as SSH writes it, or why the private key does not sign.
pub(super) type PublicKey = Result<Arc<[u8]>, KeyFault>;

/// The public keys of connections, each of the last version that was read.
#[derive(Default)]
pub(super) struct PublicKeys(Mutex<IdMap<(u64, PublicKey)>>);

impl PublicKeys {
    /// The key of a version of a connection; `None` if it was not read yet.
    pub(super) fn find(&self, uid: Id, version: u64) -> Option<PublicKey> {
        let keys = self.0.lock();
        keys.get(&uid).filter(|(read, _)| *read == version).map(|(_, key)| key.clone())
    }

    /// Keeps the key of a version of a connection.
    pub(super) fn keep(&self, uid: Id, version: u64, key: PublicKey) {
        let mut keys = self.0.lock();
        if keys.len() >= MAX_KEYS {
            keys.clear();
        }
        keys.insert(uid, (version, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_that_of_its_version_and_forgotten_at_last() {
        let keys = PublicKeys::default();
        let id = |number: usize| Id::from_bytes((number as u128).to_be_bytes());
        keys.keep(id(0), 2, Ok(Arc::from(&b"key"[..])));
        assert_eq!(keys.find(id(0), 2), Some(Ok(Arc::from(&b"key"[..]))));
        assert_eq!(
            (keys.find(id(0), 1), keys.find(id(0), 3), keys.find(id(1), 2)),
            (None, None, None)
        );
        (1..=MAX_KEYS).for_each(|number| keys.keep(id(number), 1, Err(KeyFault::Malformed)));
        assert_eq!(keys.find(id(0), 2), None);
        assert_eq!(keys.find(id(MAX_KEYS), 1), Some(Err(KeyFault::Malformed)));
    }
}

//! What the tests of this room seal with.

use super::Keyring;
use super::kek::Kek;
use super::kek::source::NotedSource;
use super::keys::keyring_file::KeyringFile;
use crate::model::Timestamp;

/// A new keyring.
pub(super) fn keyring() -> Keyring {
    let directory = tempfile::tempdir().unwrap();
    let kek = Kek::create(&directory.path().join("kek")).unwrap();
    let (source, now) = (NotedSource::File("kek".into()), Timestamp::from_millis(0));
    KeyringFile::create(&kek, source, now).unwrap().open(&kek).unwrap()
}

//! Refresh tokens that the store does not take: each is sealed in a file of its own in the state directory, until the store
//! takes it. A store that has failed takes nothing before a restart.
//!
//! ```text
//! fingerprint of the written value 32 | sealed record
//! ```

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::model::Id;
use crate::seal::Sealed;
use crate::sys::files::replace_file;

/// The files, in this directory.
pub(super) struct Spares(PathBuf);

/// A refresh token that the store has not taken yet.
pub(super) struct Spare {
    /// The fingerprint of the value that an operator wrote.
    pub(super) written: [u8; 32],
    /// Its record, whose version is its generation.
    pub(super) sealed: Sealed,
}

impl Spares {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Writes the file of a connection, and waits until it is on disk.
    pub(super) fn write(&self, connection: Id, spare: &Spare) -> io::Result<()> {
        let content = [spare.written.as_slice(), spare.sealed.as_bytes()].concat();
        replace_file(&self.path(connection), 0o600, &content)
    }

    /// The refresh token in the file of a connection; `None` if there is no file.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub(super) fn read(&self, connection: Id) -> io::Result<Option<Spare>> {
        let content = match std::fs::read(self.path(connection)) {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let spare = content.split_first_chunk().and_then(|(written, sealed)| {
            Some(Spare { written: *written, sealed: Sealed::parse(sealed).ok()? })
        });
        spare.map(Some).ok_or_else(|| ErrorKind::InvalidData.into())
    }

    /// True if a connection has a file.
    pub(super) fn has(&self, connection: Id) -> bool {
        self.path(connection).exists()
    }

    /// Removes the file of a connection.
    pub(super) fn remove(&self, connection: Id) -> io::Result<()> {
        std::fs::remove_file(self.path(connection))
    }

    fn path(&self, connection: Id) -> PathBuf {
        self.0.join(format!("refresh-token-{connection}.sealed"))
    }
}

//! Refresh tokens that the store does not take: each is sealed in a file of its own in the state directory, until the store
//! takes it. A store that has failed takes nothing before a restart.
//!
//! ```text
//! fingerprint of the written value 32 | when it was written, ms, big-endian 8 | sealed record
//! ```

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::model::{Id, Timestamp};
use crate::seal::Sealed;
use crate::sys::files::{replace_file, sync_directory_of};

/// The files, in this directory.
pub(super) struct Spares(PathBuf);

/// A refresh token that the store has not taken yet.
pub(super) struct Spare {
    /// The fingerprint of the value that an operator wrote.
    pub(super) written: [u8; 32],
    /// When they did.
    pub(super) write_time: Timestamp,
    /// Its record, whose version is its generation.
    pub(super) sealed: Sealed,
}

impl Spares {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Writes the file of a connection, and waits until it is on disk.
    pub(super) fn write(&self, connection: Id, spare: &Spare) -> io::Result<()> {
        let time = spare.write_time.millis().to_be_bytes();
        let content = [spare.written.as_slice(), &time, spare.sealed.as_bytes()].concat();
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
        let spare = content.split_first_chunk().and_then(|(written, rest)| {
            let (time, sealed) = rest.split_first_chunk()?;
            let write_time = Timestamp::from_millis(i64::from_be_bytes(*time));
            Some(Spare { written: *written, write_time, sealed: Sealed::parse(sealed).ok()? })
        });
        spare.map(Some).ok_or_else(|| ErrorKind::InvalidData.into())
    }

    /// True if a connection has a file.
    pub(super) fn has(&self, connection: Id) -> bool {
        self.path(connection).exists()
    }

    /// The connections that have a file.
    pub(super) fn connections(&self) -> io::Result<Vec<Id>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let id: Option<Id> = name.to_str().and_then(|name| {
                name.strip_prefix("refresh-token-")?.strip_suffix(".sealed")?.parse().ok()
            });
            found.extend(id);
        }
        Ok(found)
    }

    /// Gives the file of a connection another name, by which it is not found again. Returns its path.
    pub(super) fn set_aside(&self, connection: Id) -> io::Result<PathBuf> {
        let aside = self.0.join(format!("refresh-token-{connection}.set-aside"));
        std::fs::rename(self.path(connection), &aside)?;
        sync_directory_of(&aside)?;
        Ok(aside)
    }

    /// Removes the file of a connection.
    pub(super) fn remove(&self, connection: Id) -> io::Result<()> {
        std::fs::remove_file(self.path(connection))
    }

    fn path(&self, connection: Id) -> PathBuf {
        self.0.join(format!("refresh-token-{connection}.sealed"))
    }
}

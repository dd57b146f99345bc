//! Files that hold values: for their owner alone, and there as a whole or not at all.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::failure::{Failure, exit};

/// Writes a file of mode 0600, in place of the one that is there.
///
/// # Errors
/// If what is there is no file, or it cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    // A rename would put a file in the place of a device or of somebody's link.
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        let text = format!(
            "{} is a link or no regular file, and is not replaced; choose another name",
            path.display()
        );
        return Err(Failure::new("FILE", text, exit::FAILED));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    // tempfile makes it 0600.
    let mut file = tempfile::Builder::new()
        .prefix(".keyhatch-")
        .tempfile_in(directory)
        .map_err(|error| unwritable(path, &error))?;
    file.write_all(content).map_err(|error| unwritable(path, &error))?;
    file.persist(path).map_err(|error| unwritable(path, &error.error))?;
    Ok(())
}

/// A file of mode 0600 that is removed when this is dropped.
pub struct TemporaryFile {
    path: PathBuf,
}

impl TemporaryFile {
    /// Writes it where nothing is yet.
    ///
    /// # Errors
    /// If something is there, or it cannot be written.
    pub fn write(path: &Path, content: &[u8]) -> Result<Self, Failure> {
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file: File = opened.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => in_the_way(path),
            _ => unwritable(path, &error),
        })?;
        // From here on it is removed, whatever happens, and wherever the command has gone to meanwhile.
        let path = std::path::absolute(path)?;
        let written = Self { path };
        file.write_all(content).map_err(|error| unwritable(&written.path, &error))?;
        Ok(written)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Why a file that is there is not replaced, and what to do.
fn in_the_way(path: &Path) -> Failure {
    let is_like_ours = |found: &Metadata| {
        let is_private = found.is_file() && found.mode() & 0o077 == 0;
        is_private && found.uid() == geteuid().as_raw()
    };
    let step = match std::fs::symlink_metadata(path).is_ok_and(|found| is_like_ours(&found)) {
        true => {
            "an earlier run that was killed leaves such a file behind; remove it if no other run uses it"
        }
        false => "what is there is not of an earlier run; choose another name",
    };
    let text = format!("{} cannot be written: it exists already: {step}", path.display());
    Failure::new("FILE", text, exit::FAILED)
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new("FILE", format!("{} cannot be written: {error}", path.display()), exit::FAILED)
}

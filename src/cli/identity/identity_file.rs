//! Files of an identity: PEM, and lines of an `env` file.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::sys::input;
use zeroize::Zeroizing;

/// More than any chain of certificates takes.
const MAX_BYTES: usize = 256 * 1024;

/// Reads a file that is named by its path.
///
/// # Errors
/// If it is not a regular file of text, or longer than 256 KiB.
pub(crate) fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    input::text(input::file(path, MAX_BYTES)?)
}

/// Reads a file that was opened without waiting.
///
/// # Errors
/// As [`read`].
pub(super) fn read_open(file: File) -> io::Result<Zeroizing<String>> {
    input::text(input::open_file(file, MAX_BYTES)?)
}

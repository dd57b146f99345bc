//! Files of an identity, which somebody else may have put there: a pipe or a device in their place must
//! neither hang a command nor fill its memory.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use zeroize::Zeroizing;

/// More than any chain of certificates takes.
const MAX_BYTES: u64 = 256 * 1024;

/// Reads a file that is named by its path.
///
/// # Errors
/// If it is not a regular file of text, or longer than 256 KiB.
pub(super) fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    // Opening a pipe waits for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    read_open(File::from(openat(CWD, path, flags, Mode::empty())?))
}

/// Reads a file that was opened without waiting.
///
/// # Errors
/// As [`read`].
pub(super) fn read_open(file: File) -> io::Result<Zeroizing<String>> {
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = Zeroizing::new(String::new());
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    match u64::try_from(read) {
        Ok(0..=MAX_BYTES) => Ok(text),
        _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 256 KiB")),
    }
}

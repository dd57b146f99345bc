//! Files that somebody else may have named or made: a pipe or a device in their place must neither hang this process
//! nor fill its memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use zeroize::Zeroizing;

/// How an input file is opened: opening a pipe waits for its other end.
pub const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Reads a file that is named by its path, of at most so many bytes.
///
/// # Errors
/// If it is not a regular file, or [`io::ErrorKind::FileTooLarge`].
pub fn file(path: &Path, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    whole(open(path)?, most)
}

/// Opens a file that is named by its path, to be read piece by piece.
///
/// # Errors
/// If it is not a regular file, or cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    regular(File::from(openat(CWD, path, FLAGS, Mode::empty())?))
}

/// The file that was opened with [`FLAGS`].
///
/// # Errors
/// If it is not a regular file.
pub fn regular(file: File) -> io::Result<File> {
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Reads a file that was opened with [`FLAGS`].
///
/// # Errors
/// As [`file()`].
pub fn open_file(file: File, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    whole(regular(file)?, most)
}

/// Whether a file's name means stdin.
pub fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Reads a file that is named by its path, or stdin if the name is `-`.
///
/// # Errors
/// As [`file()`].
pub fn named(path: &Path, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    if is_stdin(path) { stdin(most) } else { file(path, most) }
}

/// Reads stdin to its end.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`]
pub fn stdin(most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    whole(io::stdin().lock(), most)
}

fn whole(from: impl Read, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    from.take(most as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > most {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {most} bytes"))),
        false => Ok(bytes),
    }
}

/// The same as text.
///
/// # Errors
/// If it is not UTF-8.
pub fn text(mut bytes: Zeroizing<Vec<u8>>) -> io::Result<Zeroizing<String>> {
    let text = String::from_utf8(std::mem::take(&mut *bytes));
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, "this is not UTF-8");
    text.map(Zeroizing::new).map_err(wrong)
}

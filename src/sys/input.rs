//! Reading files that another user may have named or made. A pipe or a device in their place must neither block this process
//! nor fill its memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use zeroize::Zeroizing;

/// The flags to open an input file with. Without NONBLOCK, opening a pipe would wait for its other end.
pub const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Reads the file at a path, of at most so many bytes.
///
/// # Errors
/// If it is not a regular file, or [`io::ErrorKind::FileTooLarge`].
pub fn file(path: &Path, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    whole(open(path)?, most)
}

/// Opens the file at a path, to be read piece by piece.
///
/// # Errors
/// If it is not a regular file, or cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    regular(File::from(openat(CWD, path, FLAGS, Mode::empty())?))
}

/// Checks a file that was opened with [`FLAGS`].
///
/// # Errors
/// If it is not a regular file.
pub fn regular(file: File) -> io::Result<File> {
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Reads a file that was opened with [`FLAGS`], of at most so many bytes.
///
/// # Errors
/// As [`file()`].
pub fn open_file(file: File, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    whole(regular(file)?, most)
}

/// True if a file's name means stdin.
pub fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Reads the file at a path, or stdin if the path is `-`.
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

/// The bytes as text.
///
/// # Errors
/// If it is not UTF-8.
pub fn text(mut bytes: Zeroizing<Vec<u8>>) -> io::Result<Zeroizing<String>> {
    let text = String::from_utf8(std::mem::take(&mut *bytes));
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, "this is not UTF-8");
    text.map(Zeroizing::new).map_err(wrong)
}

//! Looking a line up again, for whoever asks why.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use super::chain::file_name;
use super::line::{Body, Parts};
use crate::seal::Keyring;

/// The line of a decision id, "FILE.LINE"; none if there is no such line, or it is not one that the broker
/// wrote. Reads the file up to the line: call it where waiting is allowed.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn find(
    directory: &Path,
    keyring: &Keyring,
    (file, number): (u64, u64),
) -> std::io::Result<Option<Body>> {
    let path = directory.join(file_name(file));
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let start = format!("{{\"n\":{number},");
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.starts_with(start.as_bytes()) {
            let parts = Parts::split(line.strip_suffix(b"\n").unwrap_or(&line));
            return Ok(parts
                .filter(|parts| parts.is_tagged(keyring))
                .and_then(|parts| parts.parse()));
        }
    }
}

/// The lines that start at these offsets of a file; what is no line of the broker's is left out.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn read_at(
    directory: &Path,
    keyring: &Keyring,
    file: u64,
    offsets: &[u64],
) -> std::io::Result<Vec<Body>> {
    let mut reader = BufReader::new(File::open(directory.join(file_name(file)))?);
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    let mut position = 0;
    for offset in offsets {
        // Mostly forward and near: what is buffered is used.
        let step = i64::try_from(*offset).unwrap_or(i64::MAX) - position;
        reader.seek_relative(step)?;
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        position += step + i64::try_from(read).unwrap_or(0);
        let parts = Parts::split(line.strip_suffix(b"\n").unwrap_or(&line));
        let parts = parts.filter(|parts| parts.is_tagged(keyring));
        lines.extend(parts.and_then(|parts| parts.parse()));
    }
    Ok(lines)
}

/// The file and line of a decision id.
pub(super) fn parse_id(text: &str) -> Option<(u64, u64)> {
    let (file, line) = text.split_once('.')?;
    Some((file.parse().ok()?, line.parse().ok()?))
}

//! The time of the last line, for commands that have no keys.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use crate::journal::files::{file_name, file_numbers};
use crate::journal::write::line::Parts;
use crate::model::Timestamp;

/// Room for many lines; only a checkpoint of thousands of open steps is longer.
const END_BYTES: u64 = 256 * 1024;

/// The time of the last whole line; `None` if there is no line near the end. The line's tag is not checked.
///
/// # Errors
/// If the directory or the newest file cannot be read.
pub fn last_time(directory: &Path) -> io::Result<Option<Timestamp>> {
    let Some(number) = file_numbers(directory)?.last().copied() else { return Ok(None) };
    let mut file = File::open(directory.join(file_name(number)))?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES)))?;
    let mut end = Vec::new();
    file.take(END_BYTES).read_to_end(&mut end)?;
    let mut lines = end.rsplit(|byte| *byte == b'\n');
    Ok(lines.find_map(|line| Parts::split(line)?.time()))
}

//! The files of the journal by their numbers: `000001.jsonl` and so on.

use std::io;
use std::path::Path;

/// The name of a file.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:06}.jsonl")
}

/// The numbers of the files in a directory, oldest first.
///
/// # Errors
/// If the directory cannot be read.
pub(super) fn file_numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| {
            let number = name.strip_suffix(".jsonl")?.parse().ok()?;
            (file_name(number) == name).then_some(number)
        }));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

//! The files that are read.

use std::io::ErrorKind;
use std::path::Path;

use zeroize::Zeroizing;

use crate::cli::io::failure::Failure;
use crate::model::limits::MAX_APPLY_BYTES;
use crate::sys::input;

/// A file, read.
pub struct Source {
    /// As messages call it.
    pub shown: String,
    /// All of it.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl Source {
    /// Reads a file, or stdin for `-`.
    ///
    /// # Errors
    /// If it cannot be read, is not a regular file, or is longer than all that one Apply takes.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let (read, shown) = match path == Path::new("-") {
            true => (input::stdin(MAX_APPLY_BYTES), "stdin".to_owned()),
            false => (input::file(path, MAX_APPLY_BYTES), path.display().to_string()),
        };
        let bytes = read.map_err(|error| match error.kind() {
            ErrorKind::FileTooLarge => {
                let most = MAX_APPLY_BYTES / (1024 * 1024);
                Failure::usage(format!("{shown} has more than {most} MiB; import it in parts"))
            }
            _ => Failure::usage(format!("{shown}: {error}")),
        })?;
        Ok(Self { shown, bytes })
    }
}

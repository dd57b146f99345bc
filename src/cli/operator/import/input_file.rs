//! The files that are imported.

use std::io::ErrorKind;
use std::path::Path;

use zeroize::Zeroizing;

use crate::cli::io::failure::Failure;
use crate::cli::io::text::file_label;
use crate::model::limits::MAX_APPLY_BYTES;
use crate::sys::input;

/// A file, read.
pub struct ImportFile {
    /// Its name in messages.
    pub shown: String,
    /// Its content.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl ImportFile {
    /// Reads a file, or stdin for `-`.
    ///
    /// # Errors
    /// If it cannot be read, is not a regular file, or is larger than what one Apply takes.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let shown = file_label(path);
        let bytes = input::named(path, MAX_APPLY_BYTES).map_err(|error| match error.kind() {
            ErrorKind::FileTooLarge => {
                let most = MAX_APPLY_BYTES / (1024 * 1024);
                Failure::usage(format!("{shown} has more than {most} MiB; import it in parts"))
            }
            _ => Failure::usage(format!("{shown}: {error}")),
        })?;
        Ok(Self { shown, bytes })
    }
}

//! The files that are read.

use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::cli::failure::Failure;
use crate::model::limits::MAX_APPLY_BYTES;

/// A file, read.
pub struct Source {
    /// As messages call it.
    pub shown: String,
    /// The directory that it is in.
    pub base: PathBuf,
    /// All of it.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl Source {
    /// Reads a file, or stdin for `-`.
    ///
    /// # Errors
    /// If it cannot be read, or is longer than all that one Apply takes.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            let bytes = all(std::io::stdin().lock(), "stdin")?;
            return Ok(Self { shown: "stdin".to_owned(), base: PathBuf::from("."), bytes });
        }
        let shown = path.display().to_string();
        let file = std::fs::File::open(path)
            .map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
        let bytes = all(file, &shown)?;
        Ok(Self { shown, base: path.parent().unwrap_or(Path::new(".")).to_owned(), bytes })
    }
}

fn all(from: impl Read, shown: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = from.take(MAX_APPLY_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    if bytes.len() > MAX_APPLY_BYTES {
        let most = MAX_APPLY_BYTES / (1024 * 1024);
        let text = format!("{shown} has more than {most} MiB; import it in parts");
        return Err(Failure::usage(text));
    }
    Ok(bytes)
}

//! Files that are written whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Replaces or makes a file: it is written beside the old one, synced, then renamed.
///
/// # Errors
/// If it cannot be written. The old file is still there then.
pub fn replace_file(path: &Path, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let unfinished = beside(path, "new");
    write_new(&unfinished, mode, content)?;
    rename(&unfinished, path)
}

/// Writes a file that is on disk when this returns. The file of an earlier attempt is removed.
pub(crate) fn write_new(path: &Path, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let _ = std::fs::remove_file(path);
    create_new(path, mode, content)
}

/// Writes a file that does not exist yet. It is on disk when this returns.
pub(crate) fn create_new(path: &Path, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Renames a file. The new name is on disk when this returns.
pub(crate) fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::rename(from, to)?;
    sync_directory_of(to)
}

/// Syncs the directory of a file.
pub(crate) fn sync_directory_of(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// The path with a dot and another ending after its own.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

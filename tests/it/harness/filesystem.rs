//! File systems of a limited size.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, unmounted when dropped.
pub struct SmallFilesystem(PathBuf);

impl SmallFilesystem {
    /// Mounts a file system with these options. `None` without the right to mount.
    pub fn mount(directory: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(directory).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(directory);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(directory.to_owned()))
    }
}

impl Drop for SmallFilesystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

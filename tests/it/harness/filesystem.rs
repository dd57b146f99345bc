//! File systems of a limited size.

use std::fs::OpenOptions;
use std::io::Write as _;
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

    /// Fills it to the last page.
    pub fn fill(&self) {
        let path = self.0.join("fill");
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        let piece = vec![0; 4096];
        while file.write_all(&piece).is_ok() {}
    }

    /// Makes room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for SmallFilesystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

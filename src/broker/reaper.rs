//! Removes directories that steps have filled, however they did it.
//!
//! A step can nest directories deeper than a stack or a table of descriptors is large, or put more files
//! into one than is good for whoever waits. So nothing waits for the removal, nothing recurses, and two
//! descriptors are enough: a directory inside a directory is first renamed to the top, and so becomes one
//! more to empty.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::seal::random_id;

/// The directory of what is to be removed, and the thread that removes it.
pub(super) struct Reaper {
    directory: PathBuf,
    next: AtomicU64,
    wake: mpsc::Sender<()>,
}

impl Reaper {
    /// Starts the thread, which begins with what is there already; it ends when this is dropped.
    pub(super) fn start(directory: PathBuf) -> io::Result<Self> {
        let (wake, woken) = mpsc::channel();
        let reaped = directory.clone();
        let next = first_free(&directory)?;
        std::thread::Builder::new().name("reaper".to_owned()).spawn(move || {
            loop {
                if let Err(error) = reap(&reaped) {
                    tracing::warn!(directory = %reaped.display(), %error, "something cannot be removed");
                }
                if woken.recv().is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { directory, next: AtomicU64::new(next), wake })
    }

    /// Takes a file or directory away from where it is, at once; it is removed in time.
    pub(super) fn take_path(&self, path: &Path) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let target = self.directory.join(number.to_string());
        renameat(CWD, path, CWD, &target)?;
        let _ = self.wake.send(());
        Ok(())
    }
}

fn first_free(directory: &Path) -> io::Result<u64> {
    let names = std::fs::read_dir(directory)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let highest = names.filter_map(|name| name.parse::<u64>().ok()).max();
    Ok(highest.map_or(0, |highest| highest + 1))
}

/// Empties the directory. What cannot be removed is left, and does not keep the rest from going.
fn reap(directory: &Path) -> Result<(), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(CWD, directory, flags, Mode::empty())?;
    let mut outcome = Ok(());
    let mut names = names_in(&top)?;
    while let Some(name) = names.pop() {
        match unlinkat(&top, &name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            other => {
                outcome = outcome.and(other);
                continue;
            }
        }
        let emptied = empty(&top, &name, &mut names);
        outcome = outcome.and(emptied).and(unlinkat(&top, &name, AtFlags::REMOVEDIR));
    }
    outcome
}

/// Unlinks the files in one directory, and renames the directories in it to the top.
fn empty(
    top: &OwnedFd,
    name: &std::ffi::CStr,
    names: &mut Vec<std::ffi::CString>,
) -> Result<(), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(top, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // Our own user's, closed to itself. The name is in a directory that only we can enter.
            rustix::fs::chmodat(top, name, Mode::RWXU, AtFlags::empty())?;
            openat(top, name, flags, Mode::empty())?
        }
        other => other?,
    };
    // Its own user may have closed it to writing, too.
    let _ = rustix::fs::fchmod(&directory, Mode::RWXU);
    for entry in names_in(&directory)? {
        match unlinkat(&directory, &entry, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                let raised = random_id().map_err(|_| Errno::AGAIN)?.to_string();
                let raised = std::ffi::CString::new(raised).map_err(|_| Errno::INVAL)?;
                make_movable(&directory, &entry);
                renameat(&directory, &entry, top, &raised)?;
                names.push(raised);
            }
            other => other?,
        }
    }
    Ok(())
}

/// A directory can be renamed to another parent only by whoever may write to it.
fn make_movable(parent: &OwnedFd, name: &std::ffi::CStr) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(directory) = openat(parent, name, flags, Mode::empty()) {
        use std::os::fd::AsRawFd as _;
        // chmod on the descriptor itself: the name may be another thing by now.
        let itself = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let _ = rustix::fs::chmod(itself, Mode::RWXU);
    }
}

fn names_in(directory: &OwnedFd) -> Result<Vec<std::ffi::CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_deeper_than_descriptors_go_is_removed_without_following_links() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let gone = directory.path().join("gone");
        let victim = directory.path().join("victim");
        std::fs::create_dir(&gone).unwrap();
        std::fs::create_dir(&victim).unwrap();
        std::fs::write(victim.join("file"), "untouched").unwrap();
        let top = openat(CWD, &gone, OFlags::DIRECTORY, Mode::empty()).unwrap();
        // Deeper than a path can be long, and than this process may have files open.
        let mut level = top;
        for _ in 0..3000 {
            rustix::fs::mkdirat(&level, "d", Mode::RWXU).unwrap();
            rustix::fs::symlinkat(&victim, &level, "link").unwrap();
            level = openat(&level, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let closed = gone.join("closed");
        std::fs::create_dir_all(closed.join("inner")).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
        reap(&gone).unwrap();
        assert_eq!(std::fs::read_dir(&gone).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(victim.join("file")).unwrap(), "untouched");
    }
}

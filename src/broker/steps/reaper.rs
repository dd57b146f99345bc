//! Removes directories, however full they are.
//!
//! Steps of older versions own their directories. They can nest directories deeper than a stack or a descriptor table
//! allows, or put more files into one than fit into memory. So no caller waits for the removal, nothing recurses, and
//! names are read while they are removed. Three descriptors are enough: a directory inside a directory is first renamed
//! to the top, where it is emptied in turn.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::seal::random_id;
use crate::sys::{Directory, names_in};

/// The directory `gone`, and the thread that empties it.
pub(crate) struct Reaper {
    directory: Arc<Directory>,
    next: AtomicU64,
    wake: mpsc::Sender<()>,
}

impl Reaper {
    /// Starts the thread, which begins with what is left from before. It ends when this is dropped.
    pub(crate) fn start(directory: Directory) -> io::Result<Self> {
        let (wake, woken) = mpsc::channel();
        let next = AtomicU64::new(first_free(&directory)?);
        let directory = Arc::new(directory);
        let reaped = Arc::clone(&directory);
        std::thread::Builder::new().name("reaper".to_owned()).spawn(move || {
            loop {
                if let Err(error) = reap(reaped.as_fd()) {
                    let path = reaped.path().display();
                    tracing::warn!(directory = %path, %error, "something cannot be removed");
                }
                if woken.recv().is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { directory, next, wake })
    }

    /// Moves a file or directory out of its place at once, if it exists. The thread removes it later.
    pub(crate) fn take(&self, from: &Directory, name: &str) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match from.rename(name, &self.directory, &number.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            taken => taken?,
        }
        let _ = self.wake.send(());
        Ok(())
    }
}

fn first_free(directory: &Directory) -> io::Result<u64> {
    let names = directory.names()?.filter_map(Result::ok);
    let numbers = names.filter_map(|name| name.to_str().ok()?.parse::<u64>().ok());
    Ok(numbers.max().map_or(0, |highest| highest + 1))
}

/// Empties the directory in passes, until a pass changes nothing. Entries that cannot be removed are left, and do not
/// stop the others.
fn reap(top: BorrowedFd<'_>) -> Result<(), Errno> {
    loop {
        let mut pass = Pass { top, has_changed: false };
        let mut outcome = Ok(());
        for name in names_in(top)? {
            outcome = outcome.and(pass.remove(&name?));
        }
        if !pass.has_changed {
            return outcome;
        }
    }
}

struct Pass<'a> {
    top: BorrowedFd<'a>,
    has_changed: bool,
}

impl Pass<'_> {
    fn remove(&mut self, name: &CStr) -> Result<(), Errno> {
        let removed = match unlinkat(self.top, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                self.empty(name)?;
                unlinkat(self.top, name, AtFlags::REMOVEDIR)
            }
            other => other,
        };
        self.has_changed |= removed.is_ok();
        removed
    }

    /// Unlinks the files in one directory, and renames the directories in it to the top.
    fn empty(&mut self, name: &CStr) -> Result<(), Errno> {
        let directory = open(self.top, name)?;
        // Its own user may have made it read-only.
        let _ = rustix::fs::fchmod(&directory, Mode::RWXU);
        for entry in names_in(directory.as_fd())? {
            let entry = entry?;
            match unlinkat(&directory, &entry, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => {
                    let raised = random_id().map_err(|_| Errno::AGAIN)?.to_string();
                    make_movable(&directory, &entry);
                    renameat(&directory, &entry, self.top, raised)?;
                }
                other => other?,
            }
            self.has_changed = true;
        }
        Ok(())
    }
}

fn open(top: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(top, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // Our own user has closed it to itself. The name is in a directory that only we can enter.
            rustix::fs::chmodat(top, name, Mode::RWXU, AtFlags::empty())?;
            openat(top, name, flags, Mode::empty())
        }
        other => other,
    }
}

/// A directory can be renamed to another parent only by a user who may write to it.
fn make_movable(parent: &OwnedFd, name: &CStr) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(directory) = openat(parent, name, flags, Mode::empty()) {
        // chmod on the descriptor: the name may be another file by now.
        let itself = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let _ = rustix::fs::chmod(itself, Mode::RWXU);
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn deep_directories_are_removed_and_links_are_not_followed() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let gone = directory.path().join("gone");
        let victim = directory.path().join("victim");
        std::fs::create_dir(&gone).unwrap();
        std::fs::create_dir(&victim).unwrap();
        std::fs::write(victim.join("file"), "untouched").unwrap();
        let open = || openat(CWD, &gone, OFlags::DIRECTORY, Mode::empty()).unwrap();
        // Deeper than a path can be long, and than this process may have open files.
        let mut level = open();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&level, "d", Mode::RWXU).unwrap();
            rustix::fs::symlinkat(&victim, &level, "link").unwrap();
            level = openat(&level, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let closed = gone.join("closed");
        std::fs::create_dir_all(closed.join("inner")).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
        reap(open().as_fd()).unwrap();
        assert_eq!(std::fs::read_dir(&gone).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(victim.join("file")).unwrap(), "untouched");
    }
}

//! A directory that is open and safe to work in. Files in it are used relative to its descriptor.
//!
//! System calls that only take paths get `/proc/self/fd` paths, which no other user can lead elsewhere.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FlockOperation, Gid, Mode, OFlags, chmodat, chownat, fchmod, flock, fsync,
    mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::acl::{self, Grantees, Permission};
use super::input;
use super::trust::{DirectoryError, Trust};

/// An open directory that is safe to work in; see [`Trust`].
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    trust: Trust,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Holds the lock of a file until it is dropped.
pub struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone is not enough: a child that was just forked holds the file until it execs.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Directory {
    /// Opens a directory.
    ///
    /// # Errors
    /// If it is not safe to work in, or cannot be opened.
    pub fn open(path: &Path, trust: &Trust) -> Result<Self, DirectoryError> {
        let (fd, path) = trust.open(path, None)?;
        Ok(Self { fd, path, trust: trust.clone() })
    }

    /// Opens a directory. Missing directories of the path are made with this mode.
    ///
    /// # Errors
    /// If it is not safe to work in, or cannot be made or opened.
    pub fn make(path: &Path, mode: u32, trust: &Trust) -> Result<Self, DirectoryError> {
        let (fd, path) = trust.open(path, Some(mode))?;
        Ok(Self { fd, path, trust: trust.clone() })
    }

    /// Opens a directory below this one: a name, or names with slashes between.
    ///
    /// # Errors
    /// If a directory of the path is not safe to work in, is a link, or cannot be opened.
    pub fn directory(&self, path: &str) -> Result<Self, DirectoryError> {
        match path.split_once('/') {
            Some((name, rest)) => self.child(name)?.directory(rest),
            None => self.child(path),
        }
    }

    fn child(&self, name: &str) -> Result<Self, DirectoryError> {
        let path = self.path.join(name);
        let fd = self.trust.open_in(&self.fd, name, &path)?;
        Ok(Self { fd, path, trust: self.trust.clone() })
    }

    /// Opens a directory below this one. All directories of the path are made if they are missing, and get this mode.
    ///
    /// # Errors
    /// If a directory of the path is not safe to work in, is a link, or cannot be made or opened.
    pub fn make_directory(&self, path: &str, mode: u32) -> Result<Self, DirectoryError> {
        match path.split_once('/') {
            Some((name, rest)) => self.make_child(name, mode)?.make_directory(rest, mode),
            None => self.make_child(path, mode),
        }
    }

    fn make_child(&self, name: &str, mode: u32) -> Result<Self, DirectoryError> {
        let path = self.path.join(name);
        let failed = |error: Errno| DirectoryError::Io { path: path.clone(), source: error.into() };
        match mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            Err(Errno::EXIST) => {}
            made => made.map_err(failed)?,
        }
        let made = self.child(name)?;
        // The umask may have taken bits away.
        fchmod(&made.fd, Mode::from_raw_mode(mode)).map_err(failed)?;
        Ok(made)
    }

    /// Removes the directory itself, if it is empty and still has its name.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove_self(&self) -> io::Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        Ok(unlinkat(&self.fd, Path::new("..").join(name), AtFlags::REMOVEDIR)?)
    }

    /// True if the directory has an entry of this name, even a dangling link.
    pub fn has(&self, name: &str) -> bool {
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The absolute path. Only trusted users can change where it leads; see [`Trust`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the mode of the directory itself.
    ///
    /// # Errors
    /// If another user owns it.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(&self.fd, Mode::from_raw_mode(mode))?)
    }

    /// The names of its entries.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn names(&self) -> Result<impl Iterator<Item = Result<CString, Errno>> + use<>, Errno> {
        names_in(self.fd.as_fd())
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        input::regular(File::from(openat(&self.fd, path, input::FLAGS, Mode::empty())?))?
            .read_to_end(&mut content)?;
        Ok(content)
    }

    /// Opens a regular file to read, without following a link.
    ///
    /// # Errors
    /// `ELOOP` if it is a link; any other error if it cannot be opened.
    pub fn open_file(&self, name: &str) -> io::Result<File> {
        let opened = openat(&self.fd, name, input::FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
        input::regular(File::from(opened))
    }

    /// The rules by which the directory was found safe.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Makes a new file.
    ///
    /// # Errors
    /// If there is an entry of this name, even a link, or the file cannot be written.
    pub fn create(&self, name: &str, mode: u32, content: &[u8]) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.fd, name, flags, Mode::from_raw_mode(mode))?);
        (&file).write_all(content)?;
        Ok(file)
    }

    /// Replaces or makes a file, whole or not at all. It is on disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written. The old file is still there then.
    pub fn replace(&self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let unfinished = format!("{name}.new");
        self.remove(&unfinished)?;
        let file = self.create(&unfinished, mode, content)?;
        // The umask may have taken bits away.
        fchmod(&file, Mode::from_raw_mode(mode))?;
        file.sync_all()?;
        self.rename(&unfinished, self, name)?;
        self.sync()
    }

    /// Waits until the names of its entries are on disk.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.fd)?)
    }

    /// Moves an entry to another directory of this file system, and replaces the entry of that name there.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn rename(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, name, &to.fd, new)?)
    }

    /// Removes a file, if it exists.
    ///
    /// # Errors
    /// If it is a directory, or cannot be removed.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Locks a file, which is made if it is missing.
    ///
    /// # Errors
    /// `WouldBlock` if another process holds the lock.
    pub fn lock(&self, name: &str) -> io::Result<Lock> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Lock(file))
    }

    /// Makes a socket that listens. The kernel shows every user the path that it was bound by (/proc/net/unix), so that path
    /// reveals neither the name of the directory nor its place.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn bind(&self, name: &str) -> io::Result<UnixListener> {
        let listener = UnixListener::bind(self.within(name))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Gives grantees a permission on a file, or on the directory itself as `.`. No other user may be able to reach the file
    /// yet.
    ///
    /// # Errors
    /// `EINVAL` if a grantee is not mapped in this user namespace; `EPERM` or `EOPNOTSUPP` if the file system has no access
    /// control lists and the file's owner cannot be changed instead.
    pub fn grant(&self, name: &str, permission: Permission, grantees: Grantees) -> io::Result<()> {
        acl::grant(&self.within(name), permission, grantees)
    }

    /// Changes the group and the mode of a file. No other user may be able to reach the file yet.
    ///
    /// # Errors
    /// If this process is neither a member of the group nor has CAP_CHOWN.
    pub fn give_to_group(&self, name: &str, gid: u32, mode: u32) -> io::Result<()> {
        let gid = Some(Gid::from_raw(gid));
        chownat(&self.fd, name, None, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(chmodat(&self.fd, name, Mode::from_raw_mode(mode), AtFlags::empty())?)
    }

    /// True if the file system has access control lists.
    pub fn keeps_acls(&self) -> bool {
        acl::are_kept(&self.fd)
    }

    fn within(&self, name: &str) -> String {
        format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd())
    }
}

/// The names in an open directory, read one by one: memory use does not depend on their number.
///
/// # Errors
/// If it cannot be read.
pub fn names_in(
    directory: BorrowedFd<'_>,
) -> Result<impl Iterator<Item = Result<CString, Errno>> + use<>, Errno> {
    let is_name = |name: &CString| ![c".", c".."].contains(&name.as_c_str());
    let names = Dir::read_from(directory)?.map(|entry| Ok(entry?.file_name().to_owned()));
    Ok(names.filter(move |name| name.as_ref().map_or(true, is_name)))
}

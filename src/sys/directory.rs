//! A directory that is open and fit to work in: what is done in it is done relative to its descriptor.
//!
//! What takes paths only goes by `/proc/self/fd`, so that it cannot be led elsewhere, either.

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

/// An open directory that was found fit to work in.
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

/// A file that is locked as long as this is held.
pub struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would do, but for a child that was just forked and holds the file until it execs.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Directory {
    /// Opens a directory.
    ///
    /// # Errors
    /// If it is not fit to work in, or cannot be opened.
    pub fn open(path: &Path, trust: &Trust) -> Result<Self, DirectoryError> {
        let (fd, path) = trust.open(path, None)?;
        Ok(Self { fd, path, trust: trust.clone() })
    }

    /// Opens a directory. It is made if it is missing, and what is missing above it, with this mode.
    ///
    /// # Errors
    /// If it is not fit to work in, or cannot be made or opened.
    pub fn make(path: &Path, mode: u32, trust: &Trust) -> Result<Self, DirectoryError> {
        let (fd, path) = trust.open(path, Some(mode))?;
        Ok(Self { fd, path, trust: trust.clone() })
    }

    /// Opens a directory below this one: a name, or names with slashes between.
    ///
    /// # Errors
    /// If it, or one on the way, is not fit to work in, a link, or cannot be opened.
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

    /// Opens a directory below this one, makes what is missing of it, and gives it this mode.
    ///
    /// # Errors
    /// If it, or one on the way, is not fit to work in, a link, or cannot be made or opened.
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

    /// Removes the directory itself, if it is empty and has its name still.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove_self(&self) -> io::Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        Ok(unlinkat(&self.fd, Path::new("..").join(name), AtFlags::REMOVEDIR)?)
    }

    /// Whether something has this name in it, be it a link that leads nowhere.
    pub fn has(&self, name: &str) -> bool {
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Its absolute path. It leads here as long as those who may change it let it; see [`Trust`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the directory itself another mode.
    ///
    /// # Errors
    /// If it is not ours.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(&self.fd, Mode::from_raw_mode(mode))?)
    }

    /// The names in it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn names(&self) -> Result<impl Iterator<Item = Result<CString, Errno>> + use<>, Errno> {
        names_in(self.fd.as_fd())
    }

    /// Reads a file whole.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        input::regular(File::from(openat(&self.fd, path, input::FLAGS, Mode::empty())?))?
            .read_to_end(&mut content)?;
        Ok(content)
    }

    /// Opens a regular file to read, following no link.
    ///
    /// # Errors
    /// `ELOOP` if it is a link; if it cannot be opened.
    pub fn open_file(&self, name: &str) -> io::Result<File> {
        let opened = openat(&self.fd, name, input::FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
        input::regular(File::from(opened))
    }

    /// What it was found fit by.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Makes a file that is not there yet.
    ///
    /// # Errors
    /// If it is there, even as a link, or cannot be written.
    pub fn create(&self, name: &str, mode: u32, content: &[u8]) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.fd, name, flags, Mode::from_raw_mode(mode))?);
        (&file).write_all(content)?;
        Ok(file)
    }

    /// Puts a file in place of the one of its name, whole or not at all, and on disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written. The old one is there then.
    pub fn replace(&self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let unfinished = format!("{name}.new");
        self.remove(&unfinished)?;
        self.create(&unfinished, mode, content)?.sync_all()?;
        self.rename(&unfinished, self, name)?;
        Ok(fsync(&self.fd)?)
    }

    /// Moves what has a name here to another directory of this file system, in place of what has the name there.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn rename(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, name, &to.fd, new)?)
    }

    /// Removes a file, if there is one.
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
    /// `WouldBlock` if somebody else holds it.
    pub fn lock(&self, name: &str) -> io::Result<Lock> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Lock(file))
    }

    /// Makes a socket that listens. The kernel tells everybody the path that it was bound by (/proc/net/unix), so
    /// that path says neither where the directory is nor what it is called.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn bind(&self, name: &str) -> io::Result<UnixListener> {
        let listener = UnixListener::bind(self.within(name))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Lets guests use a file in it, or the directory itself as `.`. Nobody else may reach it yet.
    ///
    /// # Errors
    /// `EINVAL` if a guest is not known in this user namespace; `EPERM` or `EOPNOTSUPP` if the file system has no
    /// access control lists, and the file cannot be given away instead.
    pub fn grant(&self, name: &str, permission: Permission, grantees: Grantees) -> io::Result<()> {
        acl::grant(&self.within(name), permission, grantees)
    }

    /// Gives a file of ours to a group, with this mode. Nobody else may reach it yet.
    ///
    /// # Errors
    /// If this process is neither a member of the group nor has CAP_CHOWN.
    pub fn give_to_group(&self, name: &str, gid: u32, mode: u32) -> io::Result<()> {
        let gid = Some(Gid::from_raw(gid));
        chownat(&self.fd, name, None, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(chmodat(&self.fd, name, Mode::from_raw_mode(mode), AtFlags::empty())?)
    }

    /// Whether its file system keeps access control lists.
    pub fn keeps_acls(&self) -> bool {
        acl::are_kept(&self.fd)
    }

    fn within(&self, name: &str) -> String {
        format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd())
    }
}

/// The names in an open directory, read while they are asked for: memory stays flat, however many there are.
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

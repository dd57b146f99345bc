//! Which directories are safe to work in.
//!
//! A directory is safe if root or our user owns it, and neither its group nor others may write to it. The same rule holds
//! for every directory above it, with two exceptions. Others may write to a parent with the sticky bit, because there they
//! cannot replace our directory. The owner's private group may write to a parent, because it has no other member. A symbolic
//! link on the way is followed if root or our user owns it. So no other user can change where the path leads, now or later.
//!
//! The same rules hold for the directories above a file that decides something, such as the source of the KEK.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat, readlinkat, stat,
};
use rustix::io::Errno;

use super::{acl, input, user};

/// How many links a path may lead over, as in the kernel: path_resolution(7).
const MAX_LINKS: usize = 40;

/// Why a directory is not safe, or cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another user owns the directory.
    #[error(
        "{} is uid {owner}'s, who could change everything in it, and this is uid {us}; choose another directory, or run \
         this as uid {owner}", .path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user that should own it.
        us: u32,
    },
    /// Others may write to the directory.
    #[error(
        "{} has mode {mode:04o}: its group or others may write to it; take that away with: chmod go-w {}",
        .path.display(), .path.display()
    )]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another user could replace the directory, by a directory above it.
    #[error(
        "{}: {} above it {why}, so that others could replace it; choose another place, or give --shared-parent {} if \
         everybody who may write there is to be trusted with it",
        .path.display(), .parent.display(), .parent.display()
    )]
    Parent {
        /// The directory.
        path: PathBuf,
        /// The directory above it.
        parent: PathBuf,
        /// The fault of that directory.
        why: String,
    },
    /// Another user owns a link on the way.
    #[error(
        "{}: {} on the way is a symbolic link of uid {owner}, who can make it lead elsewhere; give the path that it leads to", .path.display(), .link.display()
    )]
    Link {
        /// The directory.
        path: PathBuf,
        /// The link.
        link: PathBuf,
        /// The link's owner.
        owner: u32,
    },
    /// The directory cannot be opened or made.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl DirectoryError {
    /// True if there is no such directory.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl From<DirectoryError> for io::Error {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Io { source, .. } => source,
            error => Self::other(error),
        }
    }
}

/// The rules of safety for one user, and the parents that are trusted besides.
#[derive(Clone, Debug)]
pub struct Trust {
    uid: u32,
    /// Trusted parents that others may write to, by device and inode.
    shared: Vec<(u64, u64)>,
}

impl Trust {
    /// The rules for this process's user. Users who may write to `shared_parents`, or own them, are trusted not to replace
    /// our directories.
    pub fn of_process(shared_parents: &[PathBuf]) -> Self {
        Self::of_user(rustix::process::geteuid().as_raw(), shared_parents)
    }

    /// The rules for this user.
    pub fn of_user(uid: u32, shared_parents: &[PathBuf]) -> Self {
        // A directory that does not exist is no parent.
        let found = shared_parents.iter().filter_map(|path| stat(path).ok());
        Self { uid, shared: found.map(|found| (found.st_dev, found.st_ino)).collect() }
    }

    /// The rules for the user that [`super::as_owner_of`] works as: the directory's owner if this process is root.
    pub fn of_owner(directory: &Path, shared_parents: &[PathBuf]) -> Self {
        let us = rustix::process::geteuid();
        let owner = stat(directory).ok().filter(|_| us.is_root()).map(|found| found.st_uid);
        Self::of_user(owner.unwrap_or(us.as_raw()), shared_parents)
    }

    /// Opens a regular file to read that no other user can replace. Check the owner of the open file with
    /// [`Trust::is_in_our_hands`].
    ///
    /// # Errors
    /// If another user could replace it, it is not a regular file, or it cannot be opened.
    pub fn open_file(&self, path: &Path) -> Result<File, DirectoryError> {
        let (parent, found) = self.find_file(path)?;
        let name = found.file_name().unwrap_or_default();
        let opened = openat(parent, name, input::FLAGS | OFlags::NOFOLLOW, Mode::empty());
        let opened = opened.map_err(|error| io_error(path, error))?;
        let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
        input::regular(File::from(opened)).map_err(failed)
    }

    /// The path without links of a file that exists or is to be made, and that no other user can replace. So the path always
    /// leads to that file.
    ///
    /// # Errors
    /// If another user could replace the file, or its directory does not exist.
    pub fn locate(&self, path: &Path) -> Result<PathBuf, DirectoryError> {
        self.find_file(path).map(|(_, found)| found)
    }

    /// True if root or our user owns a file, and no other user may write it.
    pub fn is_in_our_hands(&self, file: &Metadata) -> bool {
        [0, self.uid].contains(&file.uid()) && file.mode() & 0o022 == 0
    }

    fn find_file(&self, path: &Path) -> Result<(OwnedFd, PathBuf), DirectoryError> {
        let mut walk = PathWalk::begin(self, path, None)?;
        walk.wants_file = true;
        walk.finish()?;
        match walk.file.take() {
            Some(name) => Ok((walk.at, walk.here.join(name))),
            None => Err(walk.failed(Errno::ISDIR)),
        }
    }

    /// Opens a directory that is safe to work in. With a mode, missing directories of the path are made with it.
    pub(super) fn open(
        &self,
        path: &Path,
        make: Option<u32>,
    ) -> Result<(OwnedFd, PathBuf), DirectoryError> {
        let mut walk = PathWalk::begin(self, path, make)?;
        walk.finish()?;
        let opened = openat(&walk.at, ".", READ, Mode::empty());
        let opened = opened.map_err(|error| walk.failed(error))?;
        self.check(&opened, &walk.path)?;
        Ok((opened, walk.path))
    }

    /// Opens a directory in a safe one, without following a link.
    pub(super) fn open_in(
        &self,
        parent: &OwnedFd,
        name: &str,
        path: &Path,
    ) -> Result<OwnedFd, DirectoryError> {
        let opened = openat(parent, name, READ | OFlags::NOFOLLOW, Mode::empty());
        let opened = opened.map_err(|error| io_error(path, error))?;
        self.check(&opened, path)?;
        Ok(opened)
    }

    fn check(&self, directory: &OwnedFd, path: &Path) -> Result<(), DirectoryError> {
        let found = fstat(directory).map_err(|error| io_error(path, error))?;
        let path = path.to_owned();
        if !self.is_ours(&found) {
            return Err(DirectoryError::Foreign { path, owner: found.st_uid, us: self.uid });
        }
        match found.st_mode & 0o022 {
            0 => Ok(()),
            _ => Err(DirectoryError::Writable { path, mode: found.st_mode & 0o7777 }),
        }
    }

    fn is_ours(&self, found: &Stat) -> bool {
        [0, self.uid].contains(&found.st_uid)
    }

    /// Why a directory is not safe as a parent; `None` if it is.
    fn fault_of_parent(&self, parent: &OwnedFd, found: &Stat) -> Option<String> {
        let is_sticky = found.st_mode & 0o1000 != 0;
        if self.shared.contains(&(found.st_dev, found.st_ino)) {
            None
        } else if !self.is_ours(found) {
            Some(format!("is uid {}'s", found.st_uid))
        } else if !is_sticky && may_others_write(parent.as_fd(), found) {
            Some(format!("has mode {:04o}: others may write to it", found.st_mode & 0o7777))
        } else {
            None
        }
    }
}

/// True if another user than the owner may write to a directory, which may be open by its path only (O_PATH).
///
/// # Errors
/// If its mode cannot be read.
pub fn others_may_write(directory: impl AsFd) -> io::Result<bool> {
    let directory = directory.as_fd();
    Ok(may_others_write(directory, &fstat(directory)?))
}

fn may_others_write(directory: BorrowedFd<'_>, found: &Stat) -> bool {
    // A umask of 002 is usual where every user has a private group.
    let is_own_groups = || {
        found.st_mode & 0o002 == 0
            && !acl::is_extended(directory)
            && user::is_private_group(found.st_uid, found.st_gid)
    };
    // The mode shows the mask of an access control list as the group's bits.
    found.st_mode & 0o022 != 0 && !is_own_groups()
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Follows a path to its directory, name by name, and checks every directory on the way.
struct PathWalk<'a> {
    trust: &'a Trust,
    path: PathBuf,
    at: OwnedFd,
    /// The path of `at`.
    here: PathBuf,
    left: VecDeque<OsString>,
    links: usize,
    make: Option<u32>,
    /// True if the path leads to a file.
    wants_file: bool,
    /// The name of that file, once it is reached. The file may not exist.
    file: Option<OsString>,
}

impl<'a> PathWalk<'a> {
    fn begin(trust: &'a Trust, path: &Path, make: Option<u32>) -> Result<Self, DirectoryError> {
        let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
        let path = std::path::absolute(path).map_err(failed)?;
        let top =
            openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let (at, left) = (top.map_err(|error| failed(error.into()))?, names(&path));
        let (here, links, wants_file, file) = ("/".into(), 0, false, None);
        Ok(Self { trust, path, at, here, left, links, make, wants_file, file })
    }

    fn finish(&mut self) -> Result<(), DirectoryError> {
        while let Some(name) = self.left.pop_front() {
            self.step(&name)?;
        }
        Ok(())
    }

    fn step(&mut self, name: &OsStr) -> Result<(), DirectoryError> {
        let parent = fstat(&self.at).map_err(|error| self.failed(error))?;
        if let Some(why) = self.trust.fault_of_parent(&self.at, &parent) {
            let (path, parent) = (self.path.clone(), self.here.clone());
            return Err(DirectoryError::Parent { path, parent, why });
        }
        let is_last = self.wants_file && self.left.is_empty();
        let entry = match self.open_or_make(name) {
            Err(Errno::NOENT) if is_last => {
                self.file = Some(name.to_owned());
                return Ok(());
            }
            opened => opened.map_err(|error| self.failed(error))?,
        };
        let found = fstat(&entry).map_err(|error| self.failed(error))?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                self.at = entry;
                match name == ".." {
                    true => drop(self.here.pop()),
                    false => self.here.push(name),
                }
                Ok(())
            }
            FileType::Symlink => self.follow(&entry, &found, name),
            _ if is_last => {
                self.file = Some(name.to_owned());
                Ok(())
            }
            _ => Err(self.failed(Errno::NOTDIR)),
        }
    }

    fn open_or_make(&self, name: &OsStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (mode, raw) = match (openat(&self.at, name, flags, Mode::empty()), self.make) {
            (Err(Errno::NOENT), Some(mode)) => (Mode::from_raw_mode(mode), mode),
            (opened, _) => return opened,
        };
        match mkdirat(&self.at, name, mode) {
            // Another process was quicker; its directory is checked like any other.
            Err(Errno::EXIST) => {}
            made => {
                made?;
                // The umask may have taken bits away.
                let made = openat(&self.at, name, READ | OFlags::NOFOLLOW, Mode::empty())?;
                fchmod(&made, Mode::from_raw_mode(raw))?;
            }
        }
        openat(&self.at, name, flags, Mode::empty())
    }

    fn follow(&mut self, link: &OwnedFd, found: &Stat, name: &OsStr) -> Result<(), DirectoryError> {
        if !self.trust.is_ours(found) {
            let (path, link) = (self.path.clone(), self.here.join(name));
            return Err(DirectoryError::Link { path, link, owner: found.st_uid });
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(self.failed(Errno::LOOP));
        }
        let target = readlinkat(link, "", Vec::new()).map_err(|error| self.failed(error))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.at = openat(CWD, "/", flags, Mode::empty()).map_err(|error| self.failed(error))?;
            self.here = "/".into();
        }
        for name in names(&target).into_iter().rev() {
            self.left.push_front(name);
        }
        Ok(())
    }

    fn failed(&self, error: Errno) -> DirectoryError {
        io_error(&self.path, error)
    }
}

/// The names of a path, from the top.
fn names(path: &Path) -> VecDeque<OsString> {
    let is_name =
        |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().filter(is_name).map(|part| part.as_os_str().to_owned()).collect()
}

fn io_error(path: &Path, error: Errno) -> DirectoryError {
    DirectoryError::Io { path: path.to_owned(), source: error.into() }
}

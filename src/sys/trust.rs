//! Which directories are fit to work in.
//!
//! A directory is fit if it is root's or ours, and neither its group nor others may write to it. The same holds for
//! each directory above it, of which those with the sticky bit may be written by others, because there nobody can
//! put another thing in our directory's place. A directory that its owner's private group may write is as good as
//! its owner's. A symbolic link on the way is followed if it is root's or ours. So nobody else can change where the
//! path leads, and a path that was found fit stays so. The same holds for a file that decides something, such as where
//! the KEK comes from: what is above it is looked at as what is above a directory.

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

/// Why a directory is not worked in.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It is somebody else's.
    #[error(
        "{} is uid {owner}'s, who could do with it what he likes, and this is uid {us}; choose another directory, or \
         run this as uid {owner}", .path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        us: u32,
    },
    /// Others may write to it.
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
    /// A directory above it is not ours alone.
    #[error(
        "{}: {} above it {why}, and could have something else put in its place; choose another place, or say \
         --shared-parent {} if everybody who may write there is to be trusted with it",
        .path.display(), .parent.display(), .parent.display()
    )]
    Parent {
        /// The directory.
        path: PathBuf,
        /// The one above.
        parent: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A link on the way is somebody else's.
    #[error(
        "{}: {} on the way is a symbolic link of uid {owner}, who can have it lead elsewhere; name what it leads \
         to", .path.display(), .link.display()
    )]
    Link {
        /// The directory.
        path: PathBuf,
        /// The link.
        link: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It cannot be opened or made.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl DirectoryError {
    /// Whether there is no such directory.
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

/// Whose directories are worked in, and what is trusted beside it.
#[derive(Clone, Debug)]
pub struct Trust {
    uid: u32,
    /// The parents that others may write to, by device and inode.
    shared: Vec<(u64, u64)>,
}

impl Trust {
    /// For what this process does as who it is. Whoever may write to `shared_parents`, or owns them, is trusted not
    /// to put another directory in the place of ours.
    pub fn of_process(shared_parents: &[PathBuf]) -> Self {
        Self::of_user(rustix::process::geteuid().as_raw(), shared_parents)
    }

    /// For what a process of this user does.
    pub fn of_user(uid: u32, shared_parents: &[PathBuf]) -> Self {
        // One that is not there is nobody's parent.
        let found = shared_parents.iter().filter_map(|path| stat(path).ok());
        Self { uid, shared: found.map(|found| (found.st_dev, found.st_ino)).collect() }
    }

    /// For what is done in a directory, as [`super::as_owner_of`] does it: as its owner if this process is root.
    pub fn of_owner(directory: &Path, shared_parents: &[PathBuf]) -> Self {
        let us = rustix::process::geteuid();
        let owner = stat(directory).ok().filter(|_| us.is_root()).map(|found| found.st_uid);
        Self::of_user(owner.unwrap_or(us.as_raw()), shared_parents)
    }

    /// Opens a regular file to read, below directories where nobody else can put another in its place. Whose the file
    /// itself is, [`Trust::is_in_our_hands`] says of what is open.
    ///
    /// # Errors
    /// If somebody else can, it is not a regular file, or it cannot be opened.
    pub fn open_file(&self, path: &Path) -> Result<File, DirectoryError> {
        let (parent, found) = self.find_file(path)?;
        let name = found.file_name().unwrap_or_default();
        let opened = openat(parent, name, input::FLAGS | OFlags::NOFOLLOW, Mode::empty());
        let opened = opened.map_err(|error| io_error(path, error))?;
        let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
        input::regular(File::from(opened)).map_err(failed)
    }

    /// Where a file is, or would be: its path without links, below directories where nobody else can put another in
    /// its place. So whatever is done by this path is done to that file.
    ///
    /// # Errors
    /// If somebody else can, or there is no such directory.
    pub fn locate(&self, path: &Path) -> Result<PathBuf, DirectoryError> {
        self.find_file(path).map(|(_, found)| found)
    }

    /// Whether a file is root's or ours, and can be written by nobody else.
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

    /// Opens a directory that is fit to work in. With a mode, what is missing of the path is made with it.
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

    /// Opens a directory by its name in another that is fit, following no link.
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

    /// What keeps a directory from being one to have others in, if something does.
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

/// Whether anybody beside the owner may write to a directory, even one that is open by its path only.
///
/// # Errors
/// If it cannot be looked at.
pub fn others_may_write(directory: impl AsFd) -> io::Result<bool> {
    let directory = directory.as_fd();
    Ok(may_others_write(directory, &fstat(directory)?))
}

fn may_others_write(directory: BorrowedFd<'_>, found: &Stat) -> bool {
    // With umask 002, as it is usual where every user has a group of his own.
    let is_own_groups = || {
        found.st_mode & 0o002 == 0
            && !acl::is_extended(directory)
            && user::is_private_group(found.st_uid, found.st_gid)
    };
    // An access control list's mask stands in the place of the group.
    found.st_mode & 0o022 != 0 && !is_own_groups()
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A path on the way to its directory, one name after the other.
struct PathWalk<'a> {
    trust: &'a Trust,
    path: PathBuf,
    at: OwnedFd,
    /// Where that is, in words.
    here: PathBuf,
    left: VecDeque<OsString>,
    links: usize,
    make: Option<u32>,
    /// Whether it leads to a file.
    wants_file: bool,
    /// The name of that file, once it is reached. It may not be there.
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
            // Somebody was quicker: looked at as what was there before.
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

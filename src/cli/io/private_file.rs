//! Files that hold values: readable by their owner only, and complete or absent.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, open, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use tempfile::NamedTempFile;

use super::failure::{Failure, exit};
use super::output::say;
use crate::sys::{copy_list, copy_list_of_open, others_may_write};

/// The prefix of temporary names. The rest is random: somebody else could take a name that they can predict.
const PREFIX: &str = ".keyhatch-";
/// The random part, in bytes.
const NAME_BYTES: usize = 8;

/// Writes a file, and replaces an existing file as a whole. See [`NewFile`].
///
/// # Errors
/// As [`NewFile`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut file = NewFile::create(path)?;
    file.write(content)?;
    file.finish()
}

/// A file that is written piece by piece, and takes its place as a whole. It keeps the owner, group, mode and access
/// control list of a file that it replaces. It has mode 0600 if there was no file or others could use it, and belongs to
/// this user with mode 0600 if others may write to its directory.
pub struct NewFile {
    path: PathBuf,
    /// The file that it replaces.
    found: Option<Metadata>,
    file: NamedTempFile,
}

impl NewFile {
    /// Begins a file beside this path.
    ///
    /// # Errors
    /// If the path is no regular file, or its directory cannot be written.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let found = std::fs::symlink_metadata(path).ok();
        // A rename would replace a device, or a link of somebody else.
        if found.as_ref().is_some_and(|found| !found.is_file()) {
            let text = format!(
                "{} is a link or no regular file, and is not replaced; choose another name",
                path.display()
            );
            return Err(Failure::new("FILE", text, exit::FAILED));
        }
        // tempfile makes it 0600.
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempfile_in(directory_of(path))
            .map_err(|error| unwritable(path, &error))?;
        Ok(Self { path: path.to_owned(), found, file })
    }

    /// Adds to the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, content: &[u8]) -> Result<(), Failure> {
        self.file.write_all(content).map_err(|error| unwritable(&self.path, &error))
    }

    /// Puts the file in its place. A file that is not finished is removed.
    ///
    /// # Errors
    /// If others may have put the old file there, its owner cannot be kept, or it cannot be replaced.
    pub fn finish(self) -> Result<(), Failure> {
        let Self { path, found, file } = self;
        if let Some(found) = &found {
            keep(&path, found, file.as_file())?;
        }
        file.persist(&path).map_err(|error| unwritable(&path, &error.error))?;
        Ok(())
    }
}

/// Gives a new file the owner, mode and access control list of the file that it replaces. If others may write to the
/// directory it keeps none of these: they may have put the old file there to choose its readers, even as a link to a file
/// of ours.
fn keep(path: &Path, found: &Metadata, file: &File) -> Result<(), Failure> {
    let is_shared = is_shared(path, found.uid()).map_err(|error| unwritable(path, &error))?;
    if is_shared && (found.uid() != geteuid().as_raw() || found.nlink() != 1) {
        let text = format!(
            "{} is uid {}'s and has {} names, and others may write to its directory: somebody may have put it there to \
             read what is written; remove the file, or choose another name",
            path.display(),
            found.uid(),
            found.nlink()
        );
        return Err(Failure::new("FILE", text, exit::FAILED));
    }
    let mode = found.mode() & 0o777;
    let is_kept = !is_shared && mode & 0o007 == 0;
    if !is_shared {
        give(path, found, if is_kept { mode } else { 0o600 }, file)?;
    }
    if is_kept {
        return copy_list(path, file).map_err(|error| unwritable(path, &error));
    }
    if mode != 0o600 {
        say(&format!("note: the mode of {} was {mode:04o}, and is 0600 now", path.display()));
    }
    Ok(())
}

/// True if anybody but this user and the owner of the file may write to its directory.
fn is_shared(path: &Path, owner: u32) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(directory_of(path), flags, Mode::empty())?;
    let trusted = [0, geteuid().as_raw(), owner];
    Ok(!trusted.contains(&fstat(&directory)?.st_uid) || others_may_write(&directory)?)
}

/// Gives a file to the owner and group of another, with a mode.
fn give(path: &Path, found: &Metadata, mode: u32, file: &File) -> Result<(), Failure> {
    match fchown(file, Some(Uid::from_raw(found.uid())), Some(Gid::from_raw(found.gid()))) {
        // The group does not matter if it may do nothing.
        Err(_) if found.uid() == geteuid().as_raw() && mode & 0o070 == 0 => {}
        Err(error) => {
            let text = format!(
                "{} belongs to uid {} and gid {}, and the new file cannot be given to them ({error}); remove it, or run this as its \
                 owner",
                path.display(),
                found.uid(),
                found.gid()
            );
            return Err(Failure::new("FILE", text, exit::FAILED));
        }
        Ok(()) => {}
    }
    fchmod(file, Mode::from_raw_mode(mode)).map_err(|error| unwritable(path, &error.into()))
}

/// A file of mode 0600 that is removed when this is dropped, even if its directory was renamed. A file that has taken its
/// place stays.
pub struct TemporaryFile {
    directory: OwnedFd,
    name: OsString,
    /// Open, so that its inode number is not reused.
    file: File,
}

impl TemporaryFile {
    /// Writes a new file.
    ///
    /// # Errors
    /// If the path exists, or cannot be written.
    pub fn write(path: &Path, content: &[u8]) -> Result<Self, Failure> {
        let failed = |error: Errno| unwritable(path, &error.into());
        let Some(name) = path.file_name() else { return Err(in_the_way(path)) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(directory_of(path), flags, Mode::empty()).map_err(failed)?;
        Self::write_in(directory, name.to_owned(), content).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => in_the_way(path),
            _ => unwritable(path, &error),
        })
    }

    fn write_in(directory: OwnedFd, name: OsString, content: &[u8]) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&directory, &name, flags, Mode::RUSR | Mode::WUSR)?;
        // From now on an error removes the file, too.
        let mut written = Self { directory, name, file: file.into() };
        written.file.write_all(content)?;
        Ok(written)
    }

    /// Writes a file in the same directory that can replace this one: with the owner, mode and access control list that
    /// this one has now.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_beside(&self, content: &[u8]) -> io::Result<Self> {
        let mut random = [0; NAME_BYTES];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
        let name = format!("{PREFIX}{}", hex::encode(random));
        let written = Self::write_in(self.directory.try_clone()?, name.into(), content)?;
        let (found, made) = (fstat(&self.file)?, fstat(&written.file)?);
        if (found.st_uid, found.st_gid) != (made.st_uid, made.st_gid) {
            let owner = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
            fchown(&written.file, Some(owner.0), Some(owner.1))?;
        }
        fchmod(&written.file, Mode::from_raw_mode(found.st_mode))?;
        copy_list_of_open(&self.file, &written.file)?;
        Ok(written)
    }

    /// Replaces this file, so that readers see either as a whole. False if something else has taken its place, which
    /// stays.
    ///
    /// # Errors
    /// If the other file cannot be renamed.
    pub fn replace_by(&mut self, mut other: Self) -> io::Result<bool> {
        if !self.is_there() {
            return Ok(false);
        }
        renameat(&other.directory, &other.name, &self.directory, &self.name)?;
        std::mem::swap(&mut self.file, &mut other.file);
        Ok(true)
    }

    fn is_there(&self) -> bool {
        let found = statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        let ours = fstat(&self.file).ok().map(|ours| (ours.st_dev, ours.st_ino));
        ours.is_some() && ours == found.ok().map(|found| (found.st_dev, found.st_ino))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

/// The failure for a path that exists, with the next step.
fn in_the_way(path: &Path) -> Failure {
    let is_like_ours = |found: &Metadata| {
        let is_private = found.is_file() && found.mode() & 0o077 == 0;
        is_private && found.uid() == geteuid().as_raw()
    };
    let step = match std::fs::symlink_metadata(path).is_ok_and(|found| is_like_ours(&found)) {
        true => {
            "a run that was killed leaves such a file behind; remove it if no other run uses it"
        }
        false => "it is not of an earlier run; choose another name",
    };
    let text = format!("{} cannot be written: it exists already: {step}", path.display());
    Failure::new("FILE", text, exit::FAILED)
}

/// The failure for a file that cannot be written.
pub fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new("FILE", format!("{} cannot be written: {error}", path.display()), exit::FAILED)
}

//! Files that hold values: for their owner alone, and there as a whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, open, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::failure::{Failure, exit};
use super::output::say;
use crate::sys::{copy_list, copy_list_of_open};

/// Writes a file in place of the one that is there, with its owner, group, mode and access control list. Where there
/// is none, or others may use it, the file is of mode 0600.
///
/// # Errors
/// If what is there is no file or its owner cannot be kept, or it cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let found = std::fs::symlink_metadata(path).ok();
    // A rename would put a file in the place of a device or of somebody's link.
    if found.as_ref().is_some_and(|found| !found.is_file()) {
        let text = format!(
            "{} is a link or no regular file, and is not replaced; choose another name",
            path.display()
        );
        return Err(Failure::new("FILE", text, exit::FAILED));
    }
    let directory = directory_of(path);
    // tempfile makes it 0600.
    let mut file = tempfile::Builder::new()
        .prefix(".keyhatch-")
        .tempfile_in(directory)
        .map_err(|error| unwritable(path, &error))?;
    file.write_all(content).map_err(|error| unwritable(path, &error))?;
    if let Some(found) = &found {
        keep(path, found, file.as_file())?;
    }
    file.persist(path).map_err(|error| unwritable(path, &error.error))?;
    Ok(())
}

/// Gives a new file what the one has that it replaces.
fn keep(path: &Path, found: &Metadata, file: &File) -> Result<(), Failure> {
    let directory = std::fs::metadata(directory_of(path)).map_err(|e| unwritable(path, &e))?;
    let is_shared = directory.mode() & 0o002 != 0;
    let is_trusted = [geteuid().as_raw(), directory.uid()].contains(&found.uid());
    if is_shared && !is_trusted {
        let text = format!(
            "{} is uid {}'s, who may have put it there to read what is written: everybody may write to its directory; \
             remove the file, or choose another name",
            path.display(),
            found.uid()
        );
        return Err(Failure::new("FILE", text, exit::FAILED));
    }
    let (mode, is_open) = (found.mode() & 0o777, found.mode() & 0o007 != 0);
    let mode = if is_open { 0o600 } else { mode };
    let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
    match fchown(file, Some(uid), Some(gid)) {
        // A group that may do nothing need not be kept.
        Err(_) if uid == geteuid() && mode & 0o070 == 0 => {}
        Err(error) => {
            let text = format!(
                "{} is uid {}'s and gid {}'s, and cannot be given to them ({error}); remove it, or run this as its owner",
                path.display(),
                found.uid(),
                found.gid()
            );
            return Err(Failure::new("FILE", text, exit::FAILED));
        }
        Ok(()) => {}
    }
    fchmod(file, Mode::from_raw_mode(mode)).map_err(|error| unwritable(path, &error.into()))?;
    if is_open {
        let was = found.mode() & 0o777;
        say(&format!("note: {} was of mode {was:04o}, and is of mode 0600 now", path.display()));
        return Ok(());
    }
    copy_list(path, file).map_err(|error| unwritable(path, &error))
}

/// A file of mode 0600 that is removed when this is dropped, from the directory that it was made in, wherever that has
/// gone to meanwhile. What has taken its place stays.
pub struct TemporaryFile {
    directory: OwnedFd,
    name: OsString,
    /// Held open, so that no other file gets its number.
    file: File,
}

impl TemporaryFile {
    /// Writes it where nothing is yet.
    ///
    /// # Errors
    /// If something is there, or it cannot be written.
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
        // From here on it is removed, whatever happens.
        let mut written = Self { directory, name, file: file.into() };
        written.file.write_all(content)?;
        Ok(written)
    }

    /// A file beside this one with another content, and with the owner, mode and access control list that this one has by
    /// now: it can take this one's place. Its name is this one's with a dot before and `.keyhatch` behind.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_beside(&self, content: &[u8]) -> io::Result<Self> {
        let name = [OsStr::new("."), &self.name, OsStr::new(".keyhatch")];
        let name = name.into_iter().collect::<OsString>();
        // A run that was killed may have left it behind.
        let _ = unlinkat(&self.directory, &name, AtFlags::empty());
        let written = Self::write_in(self.directory.try_clone()?, name, content)?;
        let (found, made) = (fstat(&self.file)?, fstat(&written.file)?);
        if (found.st_uid, found.st_gid) != (made.st_uid, made.st_gid) {
            let owner = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
            fchown(&written.file, Some(owner.0), Some(owner.1))?;
        }
        fchmod(&written.file, Mode::from_raw_mode(found.st_mode))?;
        copy_list_of_open(&self.file, &written.file)?;
        Ok(written)
    }

    /// Puts a file in the place of this one, so that readers see either as a whole. Says whether that was done: what
    /// has taken this one's place stays.
    ///
    /// # Errors
    /// If it cannot be renamed.
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

/// Why a file that is there is not replaced, and what to do.
fn in_the_way(path: &Path) -> Failure {
    let is_like_ours = |found: &Metadata| {
        let is_private = found.is_file() && found.mode() & 0o077 == 0;
        is_private && found.uid() == geteuid().as_raw()
    };
    let step = match std::fs::symlink_metadata(path).is_ok_and(|found| is_like_ours(&found)) {
        true => {
            "an earlier run that was killed leaves such a file behind; remove it if no other run uses it"
        }
        false => "what is there is not of an earlier run; choose another name",
    };
    let text = format!("{} cannot be written: it exists already: {step}", path.display());
    Failure::new("FILE", text, exit::FAILED)
}

/// Why a file is not written.
pub fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new("FILE", format!("{} cannot be written: {error}", path.display()), exit::FAILED)
}

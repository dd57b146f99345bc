//! The files and variables that seed documents may read by `fromFile` and `fromEnv`. Somebody else may have written the
//! documents.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2, stat};
use rustix::io::Errno;

use crate::cli::io::failure::Failure;
use crate::cli::io::values::{from_environment, from_file};
use crate::model::limits::MAX_VALUE_BYTES;
use crate::sys::input;

/// At most so many attempts to open a file while somebody renames directories on its path.
const MOST_ATTEMPTS: usize = 16;

/// The files and variables that the user permits, beside files below the directory of the document.
#[derive(clap::Args, Clone, Default)]
pub struct AllowedReads {
    /// A file that fromFile may read although it is not below its document's directory; may be given more than once.
    #[arg(long = "allow-file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// A variable that fromEnv may read, or '*' for every variable; may be given more than once.
    #[arg(long = "allow-env", value_name = "NAME")]
    variables: Vec<String>,
    #[arg(skip)]
    everything: bool,
}

impl AllowedReads {
    /// Every file and every variable: for documents that the user has written.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }
}

/// The permissions of the documents of one file.
pub struct Reach<'a> {
    /// The directory of the file; `None` for stdin.
    directory: Option<PathBuf>,
    allowed: &'a AllowedReads,
}

impl<'a> Reach<'a> {
    /// For the documents of this file.
    pub fn of_file(path: &Path, allowed: &'a AllowedReads) -> Self {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = Some(parent.unwrap_or(Path::new(".")).to_owned());
        Self { directory, allowed }
    }

    /// For documents of no file, which have no directory.
    pub fn of_stdin(allowed: &'a AllowedReads) -> Self {
        Self { directory: None, allowed }
    }

    /// The value of a variable.
    ///
    /// # Errors
    /// If it is not allowed, or not set.
    pub(super) fn variable(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let AllowedReads { variables, everything, .. } = self.allowed;
        let is_allowed = *everything || variables.iter().any(|one| one == "*" || one == name);
        if !is_allowed {
            let text = format!("fromEnv names {name}; if it may be read, give --allow-env {name}");
            return Err(Failure::usage(text));
        }
        from_environment(name)
    }

    /// The content of a regular file of at most 64 KiB. A relative path starts at the directory of the document.
    ///
    /// # Errors
    /// If it is not allowed, or cannot be read.
    pub(super) fn file(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let named = match &self.directory {
            Some(directory) => directory.join(path),
            None => PathBuf::from(path),
        };
        if self.allowed.everything {
            return from_file(&named);
        }
        let why = match &self.directory {
            Some(directory) => match below(directory, path) {
                Ok(file) => return read(file, &named),
                Err(Errno::XDEV) => format!("is no path below {}", directory.display()),
                Err(error @ (Errno::NOSYS | Errno::PERM)) => {
                    let why = "the kernel cannot check whether it is below";
                    format!("is refused: {why} {} (openat2: {error})", directory.display())
                }
                Err(error) => return Err(unreadable(&named, &error.into())),
            },
            None => "is below no directory, because its document is in no file".to_owned(),
        };
        let is_it = |allowed: &&PathBuf| is_same(allowed, &named);
        match self.allowed.files.iter().find(is_it) {
            // Opened by the allowed path: the other may lead to another file by now.
            Some(allowed) => from_file(allowed),
            None => Err(Failure::usage(format!(
                "fromFile names {path}, which {why}; if it may be read, give --allow-file {}",
                named.display()
            ))),
        }
    }
}

/// Opens a file below a directory. Links on the path must stay below it, too.
fn below(directory: &Path, path: &str) -> Result<File, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(&directory, path, input::FLAGS, Mode::empty(), resolve).map(File::from);
    let mut opened = open();
    for _ in 0..MOST_ATTEMPTS {
        match opened {
            Err(Errno::AGAIN) => opened = open(),
            _ => break,
        }
    }
    opened
}

/// True if two paths lead to the same file.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| stat(path).map(|found| (found.st_dev, found.st_ino));
    matches!((place(one), place(other)), (Ok(one), Ok(other)) if one == other)
}

fn read(file: File, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes =
        input::open_file(file, MAX_VALUE_BYTES).map_err(|error| unreadable(path, &error))?;
    Ok(std::mem::take(&mut *bytes))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", path.display()))
}

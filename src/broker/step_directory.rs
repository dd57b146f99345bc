//! The runtime directory, and the directories of steps in it.
//!
//! ```text
//! RUNTIME/lock            held by the daemon
//! RUNTIME/admin.sock
//! RUNTIME/stage/          0700  where everything is made before it is renamed into place
//! RUNTIME/gone/           0700  where what is to be removed is renamed to
//! RUNTIME/steps/          0711
//! RUNTIME/steps/ID/       0700, the step's: keyhatch.sock tls.crt tls.key ca.crt env
//! ```
//!
//! A step owns its directory and can put anything into it, symbolic links too. So nothing in it is ever
//! opened, chowned or removed by path: files are made in `stage/` and renamed in, relative to a
//! descriptor of the directory that follows no link; a directory that goes is first renamed out, and
//! then reaped by a thread of its own: see [`super::reaper`].

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Gid, Mode, OFlags, Uid, chownat, flock, openat, renameat,
    unlinkat,
};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::reaper::Reaper;
use crate::journal::LiveOpening;
use crate::model::limits::MAX_SOCKET_PATH_BYTES;
use crate::model::{Id, Opening};

/// The socket's name in a step's directory.
pub(super) const SOCKET: &str = "keyhatch.sock";
/// The certificate's name in a step's directory.
pub(super) const CERTIFICATE: &str = "tls.crt";

/// Why the runtime directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Another daemon uses it.
    #[error("another daemon listens in {}; stop it, or choose another directory with --runtime", .0.display())]
    InUse(PathBuf),
    /// A file operation failed.
    #[error(
        "the runtime directory {}: {source}; make it, writable for this user, or choose another with --runtime",
        .path.display()
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// What is in it is somebody else's.
    #[error(
        "{} holds {entry}, which is not a daemon's: it would be in danger there; name a directory for keyhatch \
         alone with --runtime", .path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of the entries.
        entry: String,
    },
    /// Sockets in it would have too long a path.
    #[error(
        "the runtime directory {} is too long: a step's socket would have a path of {length} bytes, and \
         Unix allows {MAX_SOCKET_PATH_BYTES}; choose a shorter one with --runtime", .path.display()
    )]
    PathTooLong {
        /// The directory.
        path: PathBuf,
        /// How long a socket's path would be.
        length: usize,
    },
}

/// A step's socket that listens already, on its way to an acceptor.
pub struct StepListener {
    /// The socket.
    pub listener: UnixListener,
    /// Whose.
    pub opening: Arc<LiveOpening>,
    /// Ends the listening and every connection.
    pub stop: CancellationToken,
}

/// The runtime directory, open.
pub struct Runtime {
    path: PathBuf,
    steps: OwnedFd,
    stage: OwnedFd,
    gone: Reaper,
    lock: OwnedFd,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Closing would do, but for a child that was just forked and holds the file until it execs.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// Whose a step's directory is, and who else may use it.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) access: Access,
}

/// Who else may use a step's directory.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Anybody,
    Group(u32),
    Nobody,
}

impl Owner {
    pub(super) fn of(opening: &Opening) -> Self {
        let access = match opening.gid {
            _ if opening.is_for_anybody => Access::Anybody,
            Some(gid) => Access::Group(gid),
            None => Access::Nobody,
        };
        Self { uid: opening.uid, access }
    }
}

impl Access {
    fn directory(self) -> u32 {
        match self {
            Self::Anybody => 0o755,
            Self::Group(_) => 0o750,
            Self::Nobody => 0o700,
        }
    }

    fn socket(self) -> u32 {
        match self {
            Self::Anybody => 0o666,
            Self::Group(_) => 0o660,
            Self::Nobody => 0o600,
        }
    }

    /// Of the private key.
    pub(super) fn key(self) -> u32 {
        match self {
            Self::Anybody => 0o444,
            Self::Group(_) => 0o440,
            Self::Nobody => 0o400,
        }
    }

    fn gid(self) -> Option<u32> {
        match self {
            Self::Group(gid) => Some(gid),
            Self::Anybody | Self::Nobody => None,
        }
    }
}

/// One file of a step's directory.
pub(super) struct StepFile<'a> {
    pub(super) name: &'a str,
    pub(super) mode: u32,
    pub(super) content: &'a [u8],
}

/// What a daemon makes in its runtime directory.
const OWN_ENTRIES: [&str; 5] = ["admin.sock", "gone", "lock", "stage", "steps"];

impl Runtime {
    /// Whether a directory would do, if it is there already. Changes nothing.
    ///
    /// # Errors
    /// If the path is too long for sockets, or the directory is not ours alone.
    pub fn check(path: &Path) -> Result<(), RuntimeError> {
        let sample = path.join("steps").join(Id::from_bytes([0; 16]).to_string()).join(SOCKET);
        let length = sample.as_os_str().len();
        if length > MAX_SOCKET_PATH_BYTES {
            return Err(RuntimeError::PathTooLong { path: path.to_owned(), length });
        }
        check_is_ours(path)
    }

    /// Makes the runtime directory if it is missing, and empties its stage.
    ///
    /// # Errors
    /// If the path is too long for sockets, the directory cannot be made, or is not ours alone.
    pub fn open(path: &Path) -> Result<Self, RuntimeError> {
        Self::check(path)?;
        let failed = |source| RuntimeError::Io { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        // First of all: what is here may be another daemon's.
        let lock = lock(&path.join("lock")).map_err(|error| match error {
            Errno::WOULDBLOCK => RuntimeError::InUse(path.to_owned()),
            error => failed(error.into()),
        })?;
        // Others find the steps' directories through it, and change nothing in it.
        rustix::fs::chmod(path, Mode::from_raw_mode(0o755))
            .map_err(|error| failed(error.into()))?;
        make_directory(&path.join("gone"), 0o700).map_err(failed)?;
        let gone = Reaper::start(path.join("gone")).map_err(failed)?;
        // What is left of a stage is nobody's, and must not keep a daemon from starting.
        match gone.take_path(&path.join("stage")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        make_directory(&path.join("stage"), 0o700).map_err(failed)?;
        make_directory(&path.join("steps"), 0o711).map_err(failed)?;
        let open = |name: &str| open_directory(CWD, &path.join(name)).map_err(failed);
        let (steps, stage) = (open("steps")?, open("stage")?);
        Ok(Self { path: path.to_owned(), steps, stage, gone, lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a step, as others see it.
    pub(super) fn step_path(&self, id: Id) -> PathBuf {
        self.path.join("steps").join(id.to_string())
    }

    /// The admin socket's path.
    pub fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }

    /// Makes a step's directory on the stage, with a socket that listens.
    pub(super) fn prepare(
        &self,
        id: Id,
        owner: Owner,
        files: &[StepFile<'_>],
    ) -> io::Result<UnixListener> {
        let directory = self.path.join("stage").join(id.to_string());
        make_directory(&directory, 0o700)?;
        Self::fill(&directory, owner, files)
    }

    fn fill(directory: &Path, owner: Owner, files: &[StepFile<'_>]) -> io::Result<UnixListener> {
        for file in files {
            write_file(&directory.join(file.name), file.mode, file.content, owner)?;
        }
        let listener = bind_for(&directory.join(SOCKET), owner)?;
        rustix::fs::chmod(directory, Mode::from_raw_mode(owner.access.directory()))?;
        give(directory, owner)?;
        Ok(listener)
    }

    /// Moves a prepared directory to where the step will find it.
    pub(super) fn publish(&self, id: Id) -> io::Result<()> {
        Ok(renameat(&self.stage, id.to_string(), &self.steps, id.to_string())?)
    }

    /// Puts one file into a step's directory, in place of whatever has its name.
    pub(super) fn replace_file(&self, id: Id, owner: Owner, file: &StepFile<'_>) -> io::Result<()> {
        let directory = self.open_step(id)?;
        let staged = format!("{id}.{}", file.name);
        write_file(&self.path.join("stage").join(&staged), file.mode, file.content, owner)?;
        Ok(renameat(&self.stage, staged, &directory, file.name)?)
    }

    /// Listens again in a step's directory, after a restart.
    pub(super) fn rebind(&self, id: Id, owner: Owner) -> io::Result<UnixListener> {
        let directory = self.open_step(id)?;
        let staged = format!("{id}.sock");
        let _ = unlinkat(&self.stage, staged.as_str(), AtFlags::empty());
        let listener = bind_for(&self.path.join("stage").join(&staged), owner)?;
        renameat(&self.stage, staged, &directory, SOCKET)?;
        Ok(listener)
    }

    /// Removes a step's directory, wherever its preparation got to. Our own files are gone when this
    /// returns; what the step has put beside them is left to the reaper.
    pub(super) fn remove(&self, id: Id) -> io::Result<()> {
        if let Ok(directory) = self.open_step(id) {
            for name in [SOCKET, CERTIFICATE, "tls.key", "ca.crt", "env"] {
                // What cannot be unlinked goes with the directory.
                let _ = unlinkat(&directory, name, AtFlags::empty());
            }
        }
        for parent in ["steps", "stage"] {
            match self.gone.take_path(&self.path.join(parent).join(id.to_string())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The directories there are, by the ids of their openings.
    pub(super) fn step_ids(&self) -> io::Result<Vec<Id>> {
        let entries = std::fs::read_dir(self.path.join("steps"))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    fn open_step(&self, id: Id) -> io::Result<OwnedFd> {
        open_directory(self.steps.as_fd(), Path::new(&id.to_string()))
    }
}

/// Binds a socket of the daemon's own, with the right mode before anybody else can reach it: the directory
/// must be one that only this daemon can enter.
///
/// # Errors
/// If the socket cannot be made.
pub fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Binds a step's socket, and gives it away.
fn bind_for(path: &Path, owner: Owner) -> io::Result<UnixListener> {
    let listener = bind(path, owner.access.socket())?;
    give(path, owner)?;
    Ok(listener)
}

fn lock(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::from_raw_mode(0o600))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn open_directory(at: std::os::fd::BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, path, flags, Mode::empty())?)
}

/// Whether a directory is absent, empty, or a daemon's. What is in it is removed, and its mode changed.
fn check_is_ours(path: &Path) -> Result<(), RuntimeError> {
    let failed = |source| RuntimeError::Io { path: path.to_owned(), source };
    let found = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed)?,
    };
    let mut entries = Vec::new();
    for entry in found {
        entries.push(entry.map_err(failed)?.file_name());
    }
    let has_lock = entries.iter().any(|entry| entry == "lock");
    let is_ours = |entry: &OsString| has_lock && OWN_ENTRIES.iter().any(|own| entry == own);
    if let Some(entry) = entries.iter().find(|entry| !is_ours(entry)) {
        let entry = entry.to_string_lossy().escape_debug().to_string();
        return Err(RuntimeError::NotOurs { path: path.to_owned(), entry });
    }
    Ok(())
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        outcome => outcome?,
    }
    // The umask may have taken bits away.
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
}

fn write_file(path: &Path, mode: u32, content: &[u8], owner: Owner) -> io::Result<()> {
    // What an earlier try has left on the stage is ours.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = std::fs::File::from(openat(CWD, path, flags, Mode::from_raw_mode(0o600))?);
    io::Write::write_all(&mut &file, content)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    give(path, owner)
}

/// Gives a staged file to its owner. Without CAP_CHOWN this works for the daemon's own user and the groups
/// that it belongs to only (chown(2)).
fn give(path: &Path, owner: Owner) -> io::Result<()> {
    let is_own = owner.uid == rustix::process::geteuid().as_raw();
    let uid = Some(Uid::from_raw(owner.uid)).filter(|_| !is_own);
    let gid = owner.access.gid().map(Gid::from_raw);
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    Ok(chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

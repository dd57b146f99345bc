//! The runtime directory, and the directories of steps in it.
//!
//! ```text
//! RUNTIME/lock            held by the daemon
//! RUNTIME/admin.sock
//! RUNTIME/stage/          0700  where everything is made before it is renamed into place
//! RUNTIME/gone/           0700  where what is to be removed is renamed to
//! RUNTIME/steps/          0711
//! RUNTIME/steps/ID/       0700, and the step's user: keyhatch.sock tls.crt tls.key ca.crt env
//! RUNTIME/steps/ID/d/     0755  the same, where any user may be the step; ID/ then lets in who mounts d/
//! ```
//!
//! All of it is the daemon's. A step's user is let in by an access control list and owns nothing, so it can neither
//! make, rename nor grow anything. No protection rests on an ID that nobody knows: mount tables and command lines show
//! it. What is made is made on the stage and renamed in, relative to descriptors; what goes is first renamed out and
//! then reaped by a thread of its own: see [`super::reaper`].

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::reaper::Reaper;
use crate::model::limits::MAX_SOCKET_PATH_BYTES;
use crate::model::{Id, StepOwner};
use crate::sys::{Directory, DirectoryError, Grantees, Lock, Permission, Trust};

/// The socket's name in a step's directory.
pub(crate) const SOCKET: &str = "keyhatch.sock";
/// The certificate's name in a step's directory.
pub(crate) const CERTIFICATE: &str = "tls.crt";
/// What a socket is called until it is where it belongs: the kernel tells everybody.
const STAGED_SOCKET: &str = "s";
/// The directory to mount, where it is open to everybody and lies in one that is not.
const OPEN_TO_ALL: &str = "d";
/// The admin socket's name in the runtime directory.
const ADMIN_SOCKET: &str = "admin.sock";

/// Why the runtime directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// The admin socket cannot be a group's.
    #[error(
        "the admin socket cannot be given to group {group} ({source}); run the daemon as a member of it, \
         or as root"
    )]
    AdminGroup {
        /// The group.
        group: u32,
        /// The cause.
        source: io::Error,
    },
    /// It is not fit to work in.
    #[error("the runtime directory cannot be used: {0}")]
    Directory(#[from] DirectoryError),
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

/// The runtime directory, open.
pub struct RuntimeDir {
    directory: Directory,
    steps: Directory,
    stage: Directory,
    gone: Reaper,
    _lock: Lock,
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // Steps find the next daemon where this one was; operators and executors are told that there is none.
        let _ = self.directory.remove(ADMIN_SOCKET);
    }
}

/// Whom a step's directory lets in, beside the daemon's own user.
pub(super) fn grantees(owner: StepOwner) -> Grantees {
    let uid = Some(owner.uid).filter(|uid| *uid != rustix::process::geteuid().as_raw());
    match (owner.is_for_anybody, uid, owner.gid) {
        (true, ..) => Grantees::Everybody,
        (false, None, None) => Grantees::Nobody,
        (false, uid, gid) => Grantees::Named { uid, gid },
    }
}

/// One file of a step's directory.
pub(crate) struct StepFile<'a> {
    pub(crate) name: &'a str,
    pub(crate) content: &'a [u8],
}

/// What a daemon makes in its runtime directory.
const OWN_ENTRIES: [&str; 5] = [ADMIN_SOCKET, "gone", "lock", "stage", "steps"];

impl RuntimeDir {
    /// Whether a directory would do, if it is there already. Changes nothing.
    ///
    /// # Errors
    /// If the path is too long for sockets, or the directory is not ours alone.
    pub fn check(path: &Path, trust: &Trust) -> Result<(), RuntimeDirError> {
        check_length(path)?;
        match Directory::open(path, trust) {
            Err(error) if error.is_missing() => Ok(()),
            opened => check_entries(&opened?),
        }
    }

    /// Makes the runtime directory if it is missing, and empties its stage.
    ///
    /// # Errors
    /// If the path is too long for sockets, the directory cannot be made, or is not ours alone.
    pub fn open(path: &Path, trust: &Trust) -> Result<Self, RuntimeDirError> {
        check_length(path)?;
        let directory = Directory::make(path, 0o755, trust)?;
        check_entries(&directory)?;
        let failed = |source| RuntimeDirError::Io { path: path.to_owned(), source };
        // First of all: what is here may be another daemon's.
        let lock = directory.lock("lock").map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => RuntimeDirError::InUse(path.to_owned()),
            _ => failed(error),
        })?;
        // Others find the steps' directories through it, and change nothing in it.
        directory.set_mode(0o755).map_err(failed)?;
        let gone = Reaper::start(directory.make_directory("gone", 0o700)?).map_err(failed)?;
        // What is left of a stage is nobody's, and must not keep a daemon from starting.
        gone.take(&directory, "stage").map_err(failed)?;
        let stage = directory.make_directory("stage", 0o700)?;
        let steps = directory.make_directory("steps", 0o711)?;
        if !stage.keeps_acls() {
            tracing::warn!(
                directory = %path.display(),
                "the file system has no access control lists: files are given to the users of steps"
            );
        }
        Ok(Self { directory, steps, stage, gone, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The directory of a step, as who mounts it sees it.
    pub(super) fn step_path(&self, id: Id, owner: StepOwner) -> PathBuf {
        let outer = self.steps.path().join(id.to_string());
        if owner.is_for_anybody { outer.join(OPEN_TO_ALL) } else { outer }
    }

    /// The admin socket's path.
    pub fn admin_socket(&self) -> PathBuf {
        self.path().join(ADMIN_SOCKET)
    }

    /// Listens on the admin socket, which is the daemon's own user's and perhaps a group's. The directory is locked, so
    /// what is there is a dead daemon's.
    ///
    /// # Errors
    /// If the socket cannot be made, or given to the group.
    pub fn bind_admin(&self, group: Option<u32>) -> Result<UnixListener, RuntimeDirError> {
        let failed = |source| RuntimeDirError::Io { path: self.admin_socket(), source };
        let listener = self.bind(Grantees::Nobody).map_err(failed)?;
        if let Some(group) = group {
            let given = self.stage.give_to_group(STAGED_SOCKET, group, 0o660);
            given.map_err(|source| RuntimeDirError::AdminGroup { group, source })?;
        }
        self.stage.rename(STAGED_SOCKET, &self.directory, ADMIN_SOCKET).map_err(failed)?;
        Ok(listener)
    }

    /// Makes a step's directory on the stage, with a socket that listens. Where everybody may be the step, only
    /// `opener` reaches the directory: the user who mounts it.
    pub(crate) fn prepare(
        &self,
        id: Id,
        grantees: Grantees,
        opener: u32,
        files: &[StepFile<'_>],
    ) -> io::Result<UnixListener> {
        let outer = self.stage.make_directory(&id.to_string(), 0o700)?;
        if !matches!(grantees, Grantees::Everybody) {
            return self.fill(&outer, grantees, files);
        }
        let listener = self.fill(&outer.make_directory(OPEN_TO_ALL, 0o700)?, grantees, files)?;
        let is_let_in = [0, rustix::process::geteuid().as_raw()].contains(&opener);
        let mounting = match is_let_in {
            true => Grantees::Nobody,
            false => Grantees::Named { uid: Some(opener), gid: None },
        };
        outer.grant(".", Permission::Search, mounting)?;
        Ok(listener)
    }

    fn fill(
        &self,
        directory: &Directory,
        grantees: Grantees,
        files: &[StepFile<'_>],
    ) -> io::Result<UnixListener> {
        for file in files {
            directory.create(file.name, 0o600, file.content)?;
            directory.grant(file.name, Permission::Read, grantees)?;
        }
        let listener = directory.bind(STAGED_SOCKET)?;
        directory.grant(STAGED_SOCKET, Permission::Connect, grantees)?;
        directory.rename(STAGED_SOCKET, directory, SOCKET)?;
        directory.grant(".", Permission::Enter, grantees)?;
        Ok(listener)
    }

    /// Binds a socket on the stage.
    fn bind(&self, grantees: Grantees) -> io::Result<UnixListener> {
        self.stage.remove(STAGED_SOCKET)?;
        let listener = self.stage.bind(STAGED_SOCKET)?;
        self.stage.grant(STAGED_SOCKET, Permission::Connect, grantees)?;
        Ok(listener)
    }

    /// Moves a prepared directory to where the step will find it.
    pub(crate) fn publish(&self, id: Id) -> io::Result<()> {
        self.stage.rename(&id.to_string(), &self.steps, &id.to_string())
    }

    /// Puts one file into a step's directory, in place of what has its name.
    pub(crate) fn replace_file(
        &self,
        id: Id,
        grantees: Grantees,
        file: &StepFile<'_>,
    ) -> io::Result<()> {
        let directory = self.open_step(id, grantees)?;
        let staged = format!("{id}.{}", file.name);
        self.stage.remove(&staged)?;
        self.stage.create(&staged, 0o600, file.content)?;
        self.stage.grant(&staged, Permission::Read, grantees)?;
        self.stage.rename(&staged, &directory, file.name)
    }

    /// Listens again in a step's directory, after a restart. A directory of an older version that is the step's own,
    /// or open to everybody who knows its name, is none.
    pub(super) fn rebind(&self, id: Id, grantees: Grantees) -> io::Result<UnixListener> {
        let directory = self.open_step(id, grantees)?;
        let listener = self.bind(grantees)?;
        self.stage.rename(STAGED_SOCKET, &directory, SOCKET)?;
        Ok(listener)
    }

    /// Removes a step's directory, wherever its preparation got to. Its files are gone when this returns, also from
    /// where it is mounted; the rest is left to the reaper.
    pub(crate) fn remove(&self, id: Id) -> io::Result<()> {
        let id = id.to_string();
        let outer = self.steps.directory(&id);
        let inner = outer.as_ref().ok().and_then(|outer| outer.directory(OPEN_TO_ALL).ok());
        for directory in outer.ok().into_iter().chain(inner) {
            for name in [SOCKET, CERTIFICATE, "tls.key", "ca.crt", "env"] {
                // What cannot be unlinked goes with the directory.
                let _ = directory.remove(name);
            }
        }
        self.gone.take(&self.steps, &id)?;
        self.gone.take(&self.stage, &id)
    }

    /// The directories there are, by the ids of their openings.
    pub(crate) fn step_ids(&self) -> io::Result<Vec<Id>> {
        let names = self.steps.names()?.filter_map(Result::ok);
        Ok(names.filter_map(|name| name.to_str().ok()?.parse().ok()).collect())
    }

    fn open_step(&self, id: Id, grantees: Grantees) -> io::Result<Directory> {
        let outer = self.steps.directory(&id.to_string())?;
        match grantees {
            Grantees::Everybody => Ok(outer.directory(OPEN_TO_ALL)?),
            Grantees::Named { .. } | Grantees::Nobody => Ok(outer),
        }
    }
}

fn check_length(path: &Path) -> Result<(), RuntimeDirError> {
    let outer = path.join("steps").join(Id::from_bytes([0; 16]).to_string());
    let length = outer.join(SOCKET).as_os_str().len();
    match length {
        0..=MAX_SOCKET_PATH_BYTES => Ok(()),
        _ => Err(RuntimeDirError::PathTooLong { path: path.to_owned(), length }),
    }
}

/// Whether a directory is empty, or a daemon's. What is in it is removed, and its mode changed.
fn check_entries(directory: &Directory) -> Result<(), RuntimeDirError> {
    let path = directory.path().to_owned();
    let names: Result<Vec<_>, _> = directory.names().and_then(Iterator::collect);
    let names = match names {
        Ok(names) => names,
        Err(error) => return Err(RuntimeDirError::Io { path, source: error.into() }),
    };
    let has_lock = names.iter().any(|name| name.as_c_str() == c"lock");
    let is_ours = |name: &str| has_lock && OWN_ENTRIES.contains(&name);
    let mut names = names.iter().map(|name| name.to_string_lossy());
    match names.find(|name| !is_ours(name)) {
        None => Ok(()),
        Some(entry) => {
            Err(RuntimeDirError::NotOurs { path, entry: entry.escape_debug().to_string() })
        }
    }
}

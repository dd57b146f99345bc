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
//! All of it belongs to the daemon. A step's user is let in by an access control list and owns nothing, so it can
//! neither make, rename nor grow anything. No protection rests on a secret ID, because mount tables and command lines
//! show it. Everything is made on the stage and renamed in, relative to descriptors. Everything that goes is first
//! renamed out, and then removed by a thread: see [`super::reaper`].

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
/// A socket's name until it is renamed into place: the kernel shows this name to everybody.
const STAGED_SOCKET: &str = "s";
/// The directory to mount, if all users may use it; the directory around it keeps them out.
const OPEN_TO_ALL: &str = "d";
/// The admin socket's name in the runtime directory.
const ADMIN_SOCKET: &str = "admin.sock";

/// Why the runtime directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// The admin socket cannot be given to the group.
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
    /// The directory is missing, or others may change it.
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
    /// It holds an entry that a daemon does not make.
    #[error(
        "{} holds {entry}, which no daemon makes and which could be lost there; choose a directory for keyhatch \
         alone with --runtime", .path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of the entries.
        entry: String,
    },
    /// The path of a socket in it would be too long.
    #[error(
        "the runtime directory {} is too long: a step's socket would have a path of {length} bytes, and \
         Unix allows {MAX_SOCKET_PATH_BYTES}; choose a shorter one with --runtime", .path.display()
    )]
    PathTooLong {
        /// The directory.
        path: PathBuf,
        /// How long the path would be, in bytes.
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
        self.remove_admin_socket();
    }
}

/// The users who may use a step's directory, beside the daemon's own.
pub(super) fn grantees(owner: StepOwner) -> Grantees {
    let uid = Some(owner.uid).filter(|uid| *uid != rustix::process::geteuid().as_raw());
    match (owner.is_for_anybody, uid, owner.gid) {
        (true, ..) => Grantees::Everybody,
        (false, None, None) => Grantees::Nobody,
        (false, uid, gid) => Grantees::Named { uid, gid },
    }
}

/// A file of a step's directory: its name and its contents.
type StepFile<'a> = (&'a str, &'a str);

/// The entries that a daemon makes in its runtime directory.
const OWN_ENTRIES: [&str; 5] = [ADMIN_SOCKET, "gone", "lock", "stage", "steps"];

impl RuntimeDir {
    /// Removes the admin socket, so that operators and executors learn that there is no daemon. Steps find the next
    /// daemon under the same path.
    pub(crate) fn remove_admin_socket(&self) {
        let _ = self.directory.remove(ADMIN_SOCKET);
    }

    /// Checks that the directory would do, if it exists. Changes nothing.
    ///
    /// # Errors
    /// If the path is too long for sockets, or others may change the directory.
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
    /// If the path is too long for sockets, another daemon uses the directory, or it cannot be made or others may
    /// change it.
    pub fn open(path: &Path, trust: &Trust) -> Result<Self, RuntimeDirError> {
        check_length(path)?;
        let directory = Directory::make(path, 0o755, trust)?;
        check_entries(&directory)?;
        let failed = |source| RuntimeDirError::Io { path: path.to_owned(), source };
        // Before anything else: the entries may be another daemon's.
        let lock = directory.lock("lock").map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => RuntimeDirError::InUse(path.to_owned()),
            _ => failed(error),
        })?;
        // Others find the steps' directories through it, and may change nothing in it.
        directory.set_mode(0o755).map_err(failed)?;
        let gone = Reaper::start(directory.make_directory("gone", 0o700)?).map_err(failed)?;
        // Leftovers of a stage must not keep a daemon from starting.
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

    /// Its path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The path of a step's directory, for the executor that mounts it.
    pub(super) fn step_path(&self, id: Id, owner: StepOwner) -> PathBuf {
        let outer = self.steps.path().join(id.to_string());
        if owner.is_for_anybody { outer.join(OPEN_TO_ALL) } else { outer }
    }

    /// The admin socket's path.
    pub fn admin_socket(&self) -> PathBuf {
        self.path().join(ADMIN_SOCKET)
    }

    /// Listens on the admin socket, which belongs to the daemon's own user and, if given, to a group. The directory is
    /// locked, so a socket that exists is left from before.
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

    /// Makes a step's directory on the stage, with a socket that listens. If all users may be the step, the user
    /// `opener`, who mounts the directory, alone reaches it.
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
        for (name, text) in files {
            directory.create(name, 0o600, text.as_bytes())?;
            directory.grant(name, Permission::Read, grantees)?;
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

    /// Moves a prepared directory into place.
    pub(crate) fn publish(&self, id: Id) -> io::Result<()> {
        self.stage.rename(&id.to_string(), &self.steps, &id.to_string())
    }

    /// Replaces one file of a step's directory.
    pub(crate) fn replace_file(
        &self,
        id: Id,
        grantees: Grantees,
        (name, text): StepFile<'_>,
    ) -> io::Result<()> {
        let directory = self.open_step(id, grantees)?;
        let staged = format!("{id}.{name}");
        self.stage.remove(&staged)?;
        self.stage.create(&staged, 0o600, text.as_bytes())?;
        self.stage.grant(&staged, Permission::Read, grantees)?;
        self.stage.rename(&staged, &directory, name)
    }

    /// Listens again in a step's directory, after a restart. Fails for directories of older versions, which belong to
    /// the step or are open to all.
    pub(super) fn rebind(&self, id: Id, grantees: Grantees) -> io::Result<UnixListener> {
        let directory = self.open_step(id, grantees)?;
        let listener = self.bind(grantees)?;
        self.stage.rename(STAGED_SOCKET, &directory, SOCKET)?;
        Ok(listener)
    }

    /// Removes a step's directory, also a half-prepared one. Its files are gone when this returns, even where it is
    /// mounted. The reaper removes the rest.
    pub(crate) fn remove(&self, id: Id) -> io::Result<()> {
        let id = id.to_string();
        let outer = self.steps.directory(&id);
        let inner = outer.as_ref().ok().and_then(|outer| outer.directory(OPEN_TO_ALL).ok());
        for directory in outer.ok().into_iter().chain(inner) {
            for name in [SOCKET, CERTIFICATE, "tls.key", "ca.crt", "env"] {
                // A file that cannot be unlinked goes with the directory.
                let _ = directory.remove(name);
            }
        }
        self.gone.take(&self.steps, &id)?;
        self.gone.take(&self.stage, &id)
    }

    /// The ids of the openings that have a directory.
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

/// Checks that a directory is empty or a daemon's, because its entries are removed and its mode is changed.
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

//! The files of a new operator's or executor's identity. Its key is made where it is used, and only a request for its
//! certificate goes to whoever registers it.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::fstat;
use rustix::process::geteuid;
use serde_json::json;

use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::{print, say};
use crate::cli::io::text::properties;
use crate::config::default_identity;
use crate::identity::new_request;
use crate::sys::{Directory, DirectoryError, Trust, as_owner, as_owner_of, input};

/// More than any signing request takes.
const MAX_CSR_BYTES: usize = 64 * 1024;
const KEY: &str = "tls.key";
const REQUEST: &str = "tls.csr";

/// Where the key is.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub struct IdentityArgs {
    /// Make this directory, which is then the new identity: name it in KEYHATCH_DIR. Its key is made here, too, unless
    /// --csr brings a request for one. In another user's directory it is that user's.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The key was made elsewhere: take it from this certificate signing request. The answer to one that operator
    /// request or executor request made goes beside it, and the identity is whole; to others it is printed.
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
}

/// Arguments of `operator request` and `executor request`.
#[derive(clap::Args)]
pub struct IdentityRequest {
    /// The name to be registered under.
    #[arg(long)]
    name: String,
    /// The directory to make; without it keyhatch in the user's configuration directory, where commands look by
    /// themselves.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl IdentityRequest {
    pub(crate) fn run(self, common: &Common, caller: Caller) -> Result<(), Failure> {
        let directory = self.out.or_else(default_identity);
        let directory = directory
            .ok_or_else(|| Failure::usage("there is no home directory; name one with --out"))?;
        let (key, request) = new_key()?;
        let made = make(&std::path::absolute(directory)?)?;
        as_owner(&made, || {
            if made.has(KEY) {
                return Err(there_is_a_key(made.path()));
            }
            write(&made, KEY, 0o400, key.as_bytes())?;
            write(&made, REQUEST, 0o444, request.as_bytes())
        })??;
        let directory = made.path();
        let csr = directory.join(REQUEST);
        let more = match caller {
            Caller::Executor => "--workflow PATTERN",
            _ => "--role viewer|operator|administrator",
        };
        say(&format!(
            "an administrator makes it an identity with:\n  keyhatch {} add {} {more} --csr {}",
            caller.word(),
            shell_words::quote(&self.name),
            shell_words::quote(&csr.to_string_lossy())
        ));
        let answer = json!({ "directory": directory, "request": csr });
        let table = || {
            properties(&[
                ("directory", directory.display().to_string()),
                ("request", csr.display().to_string()),
            ])
        };
        print(common.output, &answer, table, || csr.display().to_string())
    }
}

/// A key that waits for its certificate.
pub struct PreparedIdentity {
    /// The identity's directory, if this process can write to it. It is held open, so that its user cannot have the
    /// certificate written elsewhere.
    directory: Option<Directory>,
    /// Whether the directory is of this process's making, and the key in it.
    is_made: bool,
    is_key_made: bool,
    pub(crate) request: Vec<u8>,
}

/// What the broker answered.
pub struct IssuedIdentity {
    pub(crate) chain: String,
    pub(crate) ca: String,
}

impl IdentityArgs {
    /// Makes the key, or reads the request for one that was made elsewhere.
    ///
    /// # Errors
    /// If the request cannot be read, or the directory not made.
    pub(crate) fn prepare(self) -> Result<PreparedIdentity, Failure> {
        let Some(csr) = self.csr else {
            let directory = self.out.ok_or_else(|| Failure::usage("--out or --csr is needed"))?;
            let (key, request) = new_key()?;
            let directory = create(&directory)?;
            as_owner(&directory, || write(&directory, KEY, 0o400, key.as_bytes()))??;
            let (directory, request) = (Some(directory), request.into_bytes());
            return Ok(PreparedIdentity { directory, is_made: true, is_key_made: true, request });
        };
        let waiting = if self.out.is_none() { waiting_beside(&csr) } else { None };
        let request = match &waiting {
            Some(directory) => as_owner(directory, || directory.open_file(REQUEST))?
                .and_then(|file| input::open_file(file, MAX_CSR_BYTES)),
            None => input::file(&csr, MAX_CSR_BYTES),
        };
        let request = request
            .map_err(|error| Failure::usage(format!("{}: {error}", csr.display())))?
            .to_vec();
        let is_made = self.out.is_some();
        let directory = match self.out {
            Some(directory) => Some(create(&directory)?),
            None => waiting,
        };
        Ok(PreparedIdentity { directory, is_made, is_key_made: false, request })
    }
}

/// The directory of a request, if its key lies beside it and this user may complete it.
fn waiting_beside(csr: &Path) -> Option<Directory> {
    let csr = std::path::absolute(csr).ok()?;
    let parent = csr.parent().filter(|_| csr.file_name().is_some_and(|name| name == REQUEST))?;
    let us = geteuid();
    let told = |failure: &Failure| {
        if us.is_root() && parent.join(KEY).exists() {
            say(&failure.message);
        }
    };
    let directory = open(parent).inspect_err(told).ok().filter(|found| found.has(KEY))?;
    let owner = fstat(&directory).ok()?.st_uid;
    (us.is_root() || owner == us.as_raw()).then_some(directory)
}

impl PreparedIdentity {
    /// Removes what was made for an identity that will not be.
    pub(super) fn undo(&self) {
        let Some(directory) = self.directory.as_ref().filter(|_| self.is_made) else { return };
        let _ = as_owner(directory, || {
            if self.is_key_made {
                let _ = directory.remove(KEY);
            }
            directory.remove_self()
        });
    }

    /// Writes the identity, or prints it where it belongs elsewhere.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn finish(
        &self,
        common: &Common,
        endpoint: &Endpoint,
        who: &str,
        issued: &IssuedIdentity,
    ) -> Result<(), Failure> {
        let address = endpoint.socket().display();
        let env = format!("KEYHATCH_ADDR=unix://{address}\nKEYHATCH_AUTHORITY=localhost\n");
        let mut answer = json!({
            "certificate_chain": issued.chain,
            "ca_certificate": issued.ca,
            "env": env,
        });
        let Some(directory) = &self.directory else {
            say("this is its tls.crt; with --out DIR, ca.crt and env are written beside it");
            let text = || issued.chain.trim_end().to_owned();
            return print(common.output, &answer, text, || who.to_owned());
        };
        as_owner(directory, || {
            write(directory, "tls.crt", 0o444, issued.chain.as_bytes())?;
            write(directory, "ca.crt", 0o444, issued.ca.as_bytes())?;
            write(directory, "env", 0o444, env.as_bytes())
        })??;
        let shown = directory.path().display();
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("directory".to_owned(), json!(shown.to_string()));
        }
        let text = || match directory.has(KEY) {
            true => format!("{who} added; its identity: KEYHATCH_DIR={shown}"),
            false => format!("{who} added; {shown} is its identity when the key is put there"),
        };
        print(common.output, &answer, text, || shown.to_string())
    }
}

fn new_key() -> Result<(zeroize::Zeroizing<String>, String), Failure> {
    new_request().map_err(|error| Failure::new("KEY", error.to_string(), exit::FAILED))
}

/// Opens a directory as its owner, if root does it.
fn open(path: &Path) -> Result<Directory, Failure> {
    let trust = trusted_parents(path);
    as_owner_of(path, || Directory::open(path, &Trust::of_process(&trust)))?
        .map_err(|error| unfit(&error))
}

/// The same of a directory that may be to be made: as the owner of what is above it.
fn make(path: &Path) -> Result<Directory, Failure> {
    let there = path.ancestors().find(|above| above.exists()).unwrap_or(path);
    let trust = trusted_parents(there);
    let made = as_owner_of(there, || Directory::make(path, 0o700, &Trust::of_process(&trust)))?;
    made.map_err(|error| unfit(&error))
}

/// Nobody can lead a user to where that user may not write. Root can be led anywhere, so it works below directories of
/// root and of the owner only, which nobody else can write to.
fn trusted_parents(path: &Path) -> Vec<PathBuf> {
    match path.canonicalize() {
        Ok(path) if !geteuid().is_root() => path.ancestors().map(Path::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Makes a directory that is not there yet.
fn create(path: &Path) -> Result<Directory, Failure> {
    let refused = |kind: io::ErrorKind| {
        let (path, error) = (path.display(), io::Error::from(kind));
        Failure::usage(format!("{path}: {error}; name a directory that is not there yet"))
    };
    let path = std::path::absolute(path)?;
    if path.symlink_metadata().is_ok() {
        return Err(refused(io::ErrorKind::AlreadyExists));
    }
    if !path.parent().is_some_and(Path::exists) {
        return Err(refused(io::ErrorKind::NotFound));
    }
    let made = make(&path)?;
    match made.names().map_err(io::Error::from)?.next() {
        None => Ok(made),
        // Somebody was quicker.
        Some(_) => Err(refused(io::ErrorKind::AlreadyExists)),
    }
}

fn unfit(error: &DirectoryError) -> Failure {
    Failure::new("FILE", error.to_string(), exit::FAILED)
}

fn there_is_a_key(directory: &Path) -> Failure {
    let directory = directory.display();
    Failure::usage(format!(
        "{directory} holds a key already, and {directory}/{REQUEST} is the request for it; name another directory with --out"
    ))
}

/// Writes a file in place of the one of its name.
fn write(directory: &Directory, name: &str, mode: u32, content: &[u8]) -> Result<(), Failure> {
    let written = directory
        .remove(name)
        .and_then(|()| directory.create(name, mode, content))
        // The process's umask may have taken from the mode.
        .and_then(|file| file.set_permissions(Permissions::from_mode(mode)));
    written.map_err(|error| {
        let path = directory.path().join(name);
        let text = format!("{} cannot be written: {error}", path.display());
        Failure::new("FILE", text, exit::FAILED)
    })
}

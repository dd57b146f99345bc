//! The files of a new operator's or executor's identity. Its key is made where it is used, and only a request for its
//! certificate goes to whoever registers it.

use std::io::Write as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::{print, properties, say};
use crate::config::default_identity;
use crate::identity::new_request;
use crate::sys::{as_owner_of, input};

/// More than any signing request takes.
const MAX_CSR_BYTES: usize = 64 * 1024;
const KEY: &str = "tls.key";
const REQUEST: &str = "tls.csr";

/// Where the key is.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub struct Identity {
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
pub struct Request {
    /// The name to be registered under.
    #[arg(long)]
    name: String,
    /// The directory to make; without it keyhatch in the user's configuration directory, where commands look by
    /// themselves.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Request {
    pub(crate) fn run(self, common: &Common, caller: Caller) -> Result<(), Failure> {
        let directory = self.out.or_else(default_identity);
        let directory = directory
            .ok_or_else(|| Failure::usage("there is no home directory; name one with --out"))?;
        let directory = std::path::absolute(directory)?;
        let (key, request) = new_key()?;
        in_directory(&directory, |directory| {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            if directory.join(KEY).exists() {
                return Err(there_is_a_key(directory));
            }
            write(&directory.join(KEY), 0o400, key.as_bytes())?;
            write(&directory.join(REQUEST), 0o444, request.as_bytes())
        })?;
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
pub struct Prepared {
    /// The identity's directory, if this process can write to it.
    directory: Option<PathBuf>,
    /// Whether the directory and the key are of this process's making.
    is_made: bool,
    pub(crate) request: Vec<u8>,
}

/// What the broker answered.
pub struct Issued {
    pub(crate) chain: String,
    pub(crate) ca: String,
}

impl Identity {
    /// Makes the key, or reads the request for one that was made elsewhere.
    ///
    /// # Errors
    /// If the request cannot be read, or the directory not made.
    pub(crate) fn prepare(self) -> Result<Prepared, Failure> {
        let Some(csr) = self.csr else {
            let directory = self.out.ok_or_else(|| Failure::usage("--out or --csr is needed"))?;
            let (key, request) = new_key()?;
            in_directory(&directory, |directory| {
                make(directory)?;
                write(&directory.join(KEY), 0o400, key.as_bytes())
            })?;
            let request = request.into_bytes();
            return Ok(Prepared { directory: Some(directory), is_made: true, request });
        };
        let request = input::file(&csr, MAX_CSR_BYTES)
            .map_err(|error| Failure::usage(format!("{}: {error}", csr.display())))?;
        let is_made = self.out.is_some();
        let directory = match self.out {
            Some(directory) => {
                in_directory(&directory, make)?;
                Some(directory)
            }
            None => waiting_beside(&csr),
        };
        Ok(Prepared { directory, is_made, request: request.to_vec() })
    }
}

/// The directory of a request, if its key lies beside it and this user may complete it.
fn waiting_beside(csr: &Path) -> Option<PathBuf> {
    let csr = std::path::absolute(csr).ok()?;
    let directory = csr.parent().filter(|directory| directory.join(KEY).exists())?;
    let us = rustix::process::geteuid();
    let owner = std::fs::metadata(directory).ok()?.uid();
    let is_ours = us.is_root() || owner == us.as_raw();
    (is_ours && csr.file_name()? == REQUEST).then(|| directory.to_owned())
}

impl Prepared {
    /// Removes what was made for an identity that will not be.
    pub(super) fn undo(&self) {
        if let Some(directory) = self.directory.as_ref().filter(|_| self.is_made) {
            let _ = std::fs::remove_file(directory.join(KEY));
            let _ = std::fs::remove_dir(directory);
        }
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
        issued: &Issued,
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
        in_directory(directory, |directory| {
            write(&directory.join("tls.crt"), 0o444, issued.chain.as_bytes())?;
            write(&directory.join("ca.crt"), 0o444, issued.ca.as_bytes())?;
            write(&directory.join("env"), 0o444, env.as_bytes())
        })?;
        let shown = directory.display();
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("directory".to_owned(), json!(shown.to_string()));
        }
        let text = || match directory.join(KEY).exists() {
            true => format!("{who} added; its identity: KEYHATCH_DIR={shown}"),
            false => format!("{who} added; {shown} is its identity when the key is put there"),
        };
        print(common.output, &answer, text, || shown.to_string())
    }
}

fn new_key() -> Result<(zeroize::Zeroizing<String>, String), Failure> {
    new_request().map_err(|error| Failure::new("KEY", error.to_string(), exit::FAILED))
}

/// Does work in a directory, which may be to be made: as its owner, or the owner of what is above it, if root does it.
fn in_directory(
    directory: &Path,
    work: impl FnOnce(&Path) -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    let directory = std::path::absolute(directory)?;
    let there = directory.ancestors().find(|above| above.exists()).unwrap_or(&directory);
    as_owner_of(there, || work(&directory))?
}

fn make(directory: &Path) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(directory);
    made.map_err(|error| {
        Failure::usage(format!(
            "{}: {error}; name a directory that is not there yet",
            directory.display()
        ))
    })
}

fn there_is_a_key(directory: &Path) -> Failure {
    let directory = directory.display();
    Failure::usage(format!(
        "{directory} holds a key already, and {directory}/{REQUEST} is the request for it; name another directory with --out"
    ))
}

/// Writes a file in place of the one of its name.
fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new("FILE", format!("{} cannot be written: {error}", path.display()), exit::FAILED)
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    // The process's umask may have taken from the mode.
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)
}

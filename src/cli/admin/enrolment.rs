//! The files of a new operator's or executor's identity. The key is made where it is used, and only a request for the
//! certificate goes to the administrator.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::fstat;
use rustix::process::geteuid;
use serde_json::json;

use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::identity::own_directory::{KEY, REQUEST, make, open, write};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::fingerprint::Fingerprint;
use crate::cli::io::output::{print, say};
use crate::cli::io::text::properties;
use crate::config::default_identity;
use crate::identity::new_request;
use crate::sys::{Directory, as_owner, input};

/// More than any signing request takes.
const MAX_CSR_BYTES: usize = 64 * 1024;
/// The admin socket of a daemon of root, by default.
const DEFAULT_SOCKET: &str = "/run/keyhatch-broker/admin.sock";

/// The place of the new key.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub struct IdentityArgs {
    /// Make this directory, which is then the new identity: name it in KEYHATCH_DIR. A key is made in it, too, unless
    /// there is --csr. In another user's directory it belongs to that user.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The certificate signing request of a key that was made elsewhere. If operator request or executor request made
    /// it, the certificate goes beside it and completes the identity. For other requests it is printed.
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
}

/// Arguments of `operator request` and `executor request`.
#[derive(clap::Args)]
pub struct IdentityRequest {
    /// The name for the registration.
    #[arg(long)]
    name: String,
    /// The directory to make; by default keyhatch in the user's configuration directory, which commands read by
    /// default.
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
            "an administrator completes it with:\n  keyhatch {} add {} {more} --csr {}",
            caller.word(),
            shell_words::quote(&self.name),
            shell_words::quote(&csr.to_string_lossy())
        ));
        if caller == Caller::Operator {
            say(
                "for a broker on another machine, copy the request there and add --remote; its answer goes to: keyhatch \
                 context add FILE",
            );
        }
        let key = fingerprint_of(request.as_bytes())?.to_string();
        let answer = json!({ "directory": directory, "request": csr, "key_sha256": key });
        let table = || {
            properties(&[
                ("directory", directory.display().to_string()),
                ("request", csr.display().to_string()),
                ("key's SHA-256", key.clone()),
            ])
        };
        print(common.output, &answer, table, || csr.display().to_string())
    }
}

/// A key without its certificate.
pub struct PreparedIdentity {
    /// The directory of the identity. None if this process cannot write to it. It is held open, so that its user cannot
    /// redirect the certificate.
    directory: Option<Directory>,
    /// Whether this process made the directory, and the key in it.
    is_made: bool,
    is_key_made: bool,
    pub(crate) request: Vec<u8>,
}

/// The certificates of a new identity.
pub struct IssuedIdentity {
    pub(crate) chain: String,
    pub(crate) ca: String,
}

impl IdentityArgs {
    /// Reads the request of a key that was made on another machine.
    pub(crate) fn request(&self) -> Result<Vec<u8>, Failure> {
        let csr = self.csr.as_ref().ok_or_else(|| Failure::usage("--csr is needed"))?;
        let request = input::file(csr, MAX_CSR_BYTES);
        let request = request.map_err(|error| {
            Failure::usage(format!(
                "{}: {error}; copy tls.csr of keyhatch operator request here",
                csr.display()
            ))
        })?;
        Ok(request.to_vec())
    }

    /// Makes a key, or reads the request of a key that was made elsewhere.
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

/// The directory of a request. None if the key is not beside it, or this user may not complete it.
fn waiting_beside(csr: &Path) -> Option<Directory> {
    let csr = std::path::absolute(csr).ok()?;
    let parent = csr.parent().filter(|_| csr.file_name().is_some_and(|name| name == REQUEST))?;
    let us = geteuid();
    let explain = |failure: &Failure| {
        if us.is_root() && parent.join(KEY).exists() {
            say(&failure.message);
        }
    };
    let directory = open(parent).inspect_err(explain).ok().filter(|found| found.has(KEY))?;
    let owner = fstat(&directory).ok()?.st_uid;
    (us.is_root() || owner == us.as_raw()).then_some(directory)
}

impl PreparedIdentity {
    /// Removes what was made for an identity that was refused.
    pub(super) fn undo(&self) {
        let Some(directory) = self.directory.as_ref().filter(|_| self.is_made) else { return };
        let _ = as_owner(directory, || {
            if self.is_key_made {
                let _ = directory.remove(KEY);
            }
            directory.remove_self()
        });
    }

    /// Writes the certificates into the directory of the identity, or prints them if it is elsewhere.
    pub(crate) fn finish(
        &self,
        common: &Common,
        endpoint: &Endpoint,
        who: &str,
        issued: &IssuedIdentity,
    ) -> Result<(), Failure> {
        // The new identity works on the broker's host, wherever the administrator is.
        let by_default = || PathBuf::from(DEFAULT_SOCKET);
        let socket = endpoint.socket().map_or_else(by_default, Path::to_owned);
        let socket = socket.display();
        let env = format!("KEYHATCH_ADDR=unix://{socket}\nKEYHATCH_AUTHORITY=localhost\n");
        let key = fingerprint_of(&self.request)?;
        let ca = Fingerprint::of_root(&issued.ca).map(|ca| ca.to_string()).unwrap_or_default();
        if !self.is_key_made {
            say_fingerprints(key, &ca);
        }
        let mut answer = json!({
            "certificate_chain": issued.chain,
            "ca_certificate": issued.ca,
            "env": env,
            "key_sha256": key.to_string(),
            "ca_sha256": ca,
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

/// The fingerprint of a request's key. Fails if the broker would refuse the request.
pub(super) fn fingerprint_of(request: &[u8]) -> Result<Fingerprint, Failure> {
    Fingerprint::of_request(request)
        .map_err(|error| Failure::usage(format!("the request cannot be used: {error}")))
}

/// Says what the requester compares: neither the request nor its answer is signed by anybody whom the other side knows.
pub(super) fn say_fingerprints(key: Fingerprint, ca: &str) {
    say(&format!("the key's SHA-256, which the request's owner compares: {key}"));
    say(&format!("the CA's SHA-256, which the request's owner compares: {ca}"));
}

fn new_key() -> Result<(zeroize::Zeroizing<String>, String), Failure> {
    new_request().map_err(|error| Failure::new("KEY", error.to_string(), exit::FAILED))
}

/// Makes a directory that does not exist.
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
        // Another process was faster.
        Some(_) => Err(refused(io::ErrorKind::AlreadyExists)),
    }
}

fn there_is_a_key(directory: &Path) -> Failure {
    let directory = directory.display();
    Failure::usage(format!(
        "{directory} holds a key already, and {directory}/{REQUEST} is the request for it; name another directory with --out"
    ))
}

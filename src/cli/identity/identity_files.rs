//! The files of one identity: certificates, private key, and lines of an `env` file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::own_directory::KEY;
use crate::cli::io::failure::{Failure, exit};
use crate::identity::{ClientIdentity, Svid};
use crate::sys::{Directory, input};

/// More than any chain of certificates takes.
const MAX_BYTES: usize = 256 * 1024;

/// The files of an identity.
#[derive(Debug)]
pub struct IdentityFiles {
    pub(super) ca: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// The directory of a step. A missing key means that the step has ended.
    pub(super) step: Option<PathBuf>,
}

impl IdentityFiles {
    /// The files in a directory, under their usual names.
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self {
            ca: directory.join("ca.crt"),
            certificate: directory.join("tls.crt"),
            key: directory.join("tls.key"),
            step: None,
        }
    }

    /// Reads the certificate. Fails if the file cannot be read, or holds no certificate of an identity.
    pub(crate) fn svid(&self) -> Result<Svid, Failure> {
        parse_svid(&read_or_fail(&self.certificate)?, &self.certificate)
    }

    /// Reads the private key. Fails with `STEP_NOT_OPEN` if the step has ended.
    pub(super) fn read_key(&self) -> Result<Zeroizing<String>, Failure> {
        match &self.step {
            Some(directory) if is_missing(&self.key) => Err(step_has_ended(directory)),
            _ => read_or_fail(&self.key),
        }
    }

    /// Reads all of them.
    pub(super) fn read(&self) -> Result<ClientIdentity, Failure> {
        Ok(ClientIdentity {
            ca_pem: read_or_fail(&self.ca)?.to_string(),
            chain_pem: read_or_fail(&self.certificate)?.to_string(),
            key_pem: self.read_key()?,
        })
    }
}

/// Reads a certificate of an identity. `path` is for the error.
pub(super) fn parse_svid(pem: &str, path: &Path) -> Result<Svid, Failure> {
    Svid::parse_own(pem).map_err(|error| {
        let text = format!("{}: {error}", path.display());
        Failure::new("IDENTITY_INVALID", text, exit::FAILED)
    })
}

/// Reads a text file by its path, up to 256 KiB. Fails if it is longer, or is not a regular file of text.
pub(crate) fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    input::text(input::file(path, MAX_BYTES)?)
}

/// Reads a file that is open already, with the limits of [`read`].
pub(super) fn read_open(file: File) -> io::Result<Zeroizing<String>> {
    input::text(input::open_file(file, MAX_BYTES)?)
}

/// Reads the private key in an open directory, with the limits of [`read`].
pub(crate) fn key_in(directory: &Directory) -> io::Result<Zeroizing<String>> {
    read_open(directory.open_file(KEY)?)
}

/// Reads a file with the limits of [`read`], or says why it cannot be read.
pub(super) fn read_or_fail(path: &Path) -> Result<Zeroizing<String>, Failure> {
    read(path).map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                let uid = rustix::process::geteuid().as_raw();
                format!("uid {uid} may not read {} ({error}): it is another user's", path.display())
            }
            _ => format!("{} cannot be read ({error})", path.display()),
        };
        Failure::new("IDENTITY_MISSING", text, exit::FAILED)
    })
}

/// Whether nothing is at a path.
pub(super) fn is_missing(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The broker removes the key of a step when the step ends.
pub(super) fn step_has_ended(directory: &Path) -> Failure {
    let text = format!(
        "{} has no tls.key: the step has ended, or this is not the directory of a step; have the executor open \
         another step",
        directory.display()
    );
    Failure::new("STEP_NOT_OPEN", text, exit::FAILED)
}

//! The directories of identities, which belong to their users: opened so that no other user can lead a command elsewhere.

use std::path::{Path, PathBuf};

use rustix::fs::fstat;
use rustix::process::geteuid;

use crate::cli::io::failure::{Failure, exit};
use crate::config::default_identity;
use crate::sys::{Directory, DirectoryError, Trust, as_owner_of};

pub(crate) const KEY: &str = "tls.key";
pub(crate) const REQUEST: &str = "tls.csr";

/// The user's configuration directory. None if it is missing, or another user could change it: with sudo, HOME may be another
/// user's, who then would choose the identity and the broker. Fails if the user lets others write to it.
pub(crate) fn own() -> Result<Option<Directory>, Failure> {
    let Some(path) = default_identity() else { return Ok(None) };
    match Directory::open(&path, &Trust::of_process(&trusted_parents(&path))) {
        Ok(found) => {
            let owner = fstat(&found).map_err(std::io::Error::from)?.st_uid;
            Ok((owner == geteuid().as_raw()).then_some(found))
        }
        Err(error @ DirectoryError::Writable { .. }) => Err(unfit(&error)),
        Err(_) => Ok(None),
    }
}

/// The user's configuration directory, made if it is missing. Fails if another user could change it.
pub(crate) fn make_own() -> Result<Directory, Failure> {
    let path = default_identity();
    let path = path.ok_or_else(|| Failure::usage("there is no home directory; set HOME"))?;
    let there = path.ancestors().find(|above| above.exists()).unwrap_or(&path);
    let rules = Trust::of_process(&trusted_parents(there));
    Directory::make(&path, 0o700, &rules).map_err(|error| match error {
        DirectoryError::Writable { .. } | DirectoryError::Io { .. } => unfit(&error),
        _ => Failure::usage(format!(
            "{} is not uid {}'s alone: another user could change what is kept there. Run this as the user whose home \
             it is, without sudo; or set HOME to this user's own, as sudo -H does",
            path.display(),
            geteuid().as_raw()
        )),
    })
}

/// Opens a directory. Root does so as its owner.
pub(crate) fn open(path: &Path) -> Result<Directory, Failure> {
    let trust = trusted_parents(path);
    as_owner_of(path, || Directory::open(path, &Trust::of_process(&trust)))?
        .map_err(|error| unfit(&error))
}

/// Opens a directory, or makes it. Root does so as the owner of the directory above.
pub(crate) fn make(path: &Path) -> Result<Directory, Failure> {
    let there = path.ancestors().find(|above| above.exists()).unwrap_or(path);
    let trust = trusted_parents(there);
    let made = as_owner_of(there, || Directory::make(path, 0o700, &Trust::of_process(&trust)))?;
    made.map_err(|error| unfit(&error))
}

/// The directories above a path that this process may trust. A user cannot be led to a place where that user may not
/// write, so a user trusts all. Root can be led anywhere, so root trusts none but its own and the owner's.
fn trusted_parents(path: &Path) -> Vec<PathBuf> {
    match path.canonicalize() {
        Ok(path) if !geteuid().is_root() => path.ancestors().map(Path::to_owned).collect(),
        _ => Vec::new(),
    }
}

pub(crate) fn unfit(error: &DirectoryError) -> Failure {
    Failure::new("FILE", error.to_string(), exit::FAILED)
}

/// Writes a file, in place of an existing one: whole or not at all.
pub(crate) fn write(
    directory: &Directory,
    name: &str,
    mode: u32,
    content: &[u8],
) -> Result<(), Failure> {
    directory.replace(name, mode, content).map_err(|error| {
        let path = directory.path().join(name);
        let text = format!("{} cannot be written: {error}", path.display());
        Failure::new("FILE", text, exit::FAILED)
    })
}

//! The state directory: its owner, the access of other users, and its format.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::diagnosis::{Diagnosis, Remedy, quoted};
use super::site::Site;
use crate::daemon::{StateDirectory, StateError};
use crate::sys::Directory;

const DIRECTORY: &str = "state directory";
const FILES: &str = "files of the state";
const FORMAT: &str = "state format";

/// The owner of the state directory. This user if there is no such directory.
pub(super) fn owner(state: &Path) -> u32 {
    let us = rustix::process::geteuid().as_raw();
    std::fs::metadata(state).map_or(us, |metadata| metadata.uid())
}

/// Whether there is a broker whose files this user can read.
pub(super) fn is_there(site: &Site) -> bool {
    site.state.join("state.json").exists()
}

pub(super) fn check(site: &Site) -> Vec<Diagnosis> {
    let path = &site.state;
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = format!("{} is not there", path.display());
            return vec![Diagnosis::fail(DIRECTORY, text, site.keyhatch("init"))];
        }
        found => {
            let why = found.map_or_else(|error| error.to_string(), |_| "no directory".to_owned());
            let text = format!("{}: {why}", path.display());
            return vec![Diagnosis::fail(DIRECTORY, text, "name the state directory with --state")];
        }
    };
    let (us, mode) = (rustix::process::geteuid(), permissions(&metadata));
    if site.user != us.as_raw() && !us.is_root() {
        let text = format!("{} is uid {}'s, not uid {us}'s", path.display(), site.user);
        let command = format!("sudo -u '#{}' {}", site.user, site.command("doctor"));
        return vec![Diagnosis::fail(DIRECTORY, text, Remedy::Run(command))];
    }
    if let Err(error) = Directory::open(path, &site.trust) {
        return vec![site.unfit(DIRECTORY, &error)];
    }
    let directory = match mode {
        0o700 => Diagnosis::ok(DIRECTORY, format!("{}, uid {}'s", path.display(), site.user)),
        _ => Diagnosis::fail(
            DIRECTORY,
            format!("{} has mode {mode:04o} instead of 0700", path.display()),
            Remedy::run("chmod 0700", [path.as_path()]),
        ),
    };
    let mut diagnoses = vec![directory];
    diagnoses.extend(files(site));
    diagnoses.push(format(site));
    diagnoses
}

/// The permission bits.
pub(super) fn permissions(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

/// The files with a wrong owner or mode, by their remedy.
#[derive(Default)]
struct WrongFiles {
    open: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    foreign: Vec<PathBuf>,
    seen: usize,
}

fn files(site: &Site) -> Vec<Diagnosis> {
    let mut wrong = WrongFiles::default();
    let mut directories = vec![site.state.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            // These are of a link itself, not of its target.
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            if metadata.is_dir() {
                directories.push(path.clone());
            }
            if !metadata.is_symlink() {
                wrong.sort(site, path, &metadata);
            }
        }
    }
    wrong.diagnoses(site)
}

impl WrongFiles {
    fn sort(&mut self, site: &Site, path: PathBuf, metadata: &Metadata) {
        let below = path.strip_prefix(&site.state).unwrap_or(&path);
        if below == Path::new("kek") {
            return; // The check of the keys covers it.
        }
        self.seen += 1;
        if metadata.uid() != site.user {
            self.foreign.push(path.clone());
        }
        let (is_public, mode) = (is_public(below), permissions(metadata));
        if is_public && mode & 0o022 != 0 {
            self.writable.push(path);
        } else if !is_public && mode & 0o077 != 0 {
            self.open.push(path);
        }
    }

    fn diagnoses(&self, site: &Site) -> Vec<Diagnosis> {
        let mut diagnoses = Vec::new();
        let mut report = |paths: &[PathBuf], what: &str, command: String| {
            if !paths.is_empty() {
                let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
                let remedy = Remedy::run(&command, paths.iter().map(PathBuf::as_path));
                let text = format!("{what}: {}", names.join(" "));
                diagnoses.push(Diagnosis::fail(FILES, text, remedy));
            }
        };
        report(&self.open, "open to others", "chmod go-rwx".to_owned());
        report(&self.writable, "writable by others", "chmod go-w".to_owned());
        let user = site.user;
        report(&self.foreign, &format!("not uid {user}'s"), format!("chown {user}"));
        if diagnoses.is_empty() {
            let text = format!("{} with the right owner and mode", self.seen);
            diagnoses.push(Diagnosis::ok(FILES, text));
        }
        diagnoses
    }
}

/// Whether other users may read a file: certificates, addresses, and the files of the store, which its directory
/// protects.
fn is_public(below: &Path) -> bool {
    let is_in_store = below.starts_with("store") && below != Path::new("store");
    let name = below.file_name().unwrap_or_default();
    is_in_store || ["ca.crt", "env", "tls.crt"].iter().any(|public| name == *public)
}

fn format(site: &Site) -> Diagnosis {
    match StateDirectory::open(&site.state, &site.trust).and_then(|state| state.read()) {
        Ok(file) => Diagnosis::ok(
            FORMAT,
            format!("{}: the broker {} of {}", file.format, file.name, file.trust_domain),
        ),
        Err(StateError::Missing(_)) => {
            let is_empty = std::fs::read_dir(&site.state).is_ok_and(|mut all| all.next().is_none());
            let remedy = match is_empty {
                true => site.keyhatch("init"),
                false => "name the broker's directory with --state".into(),
            };
            Diagnosis::fail(FORMAT, "there is no state.json: init has made no broker here", remedy)
        }
        Err(error) => Diagnosis::fail(
            FORMAT,
            error.to_string(),
            format!(
                "with a backup, into an empty directory: keyhatch restore FILE --state {}",
                quoted(&site.state)
            ),
        ),
    }
}

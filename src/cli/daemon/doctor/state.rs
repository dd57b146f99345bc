//! The state directory: whose it is, who else may read or write in it, and whether it is one.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Site;
use super::diagnosis::{Diagnosis, Remedy, quoted};
use crate::daemon::{StateDirectory, StateError};
use crate::sys::Directory;

const DIRECTORY: &str = "state directory";
const FILES: &str = "files of the state";
const FORMAT: &str = "state format";

/// Who owns the state directory; this user, where there is none.
pub(super) fn owner(state: &Path) -> u32 {
    let us = rustix::process::geteuid().as_raw();
    std::fs::metadata(state).map_or(us, |metadata| metadata.uid())
}

/// Whether there is a broker that this user can look into.
pub(super) fn is_there(site: &Site) -> bool {
    site.state.join("state.json").exists()
}

pub(super) fn look(site: &Site) -> Vec<Diagnosis> {
    let path = &site.state;
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = format!("{} is not there", path.display());
            return vec![Diagnosis::fail(DIRECTORY, text, Remedy::Run(site.keyhatch("init")))];
        }
        found => {
            let why = found.map_or_else(|error| error.to_string(), |_| "no directory".to_owned());
            let remedy = Remedy::Do("name the state directory with --state".to_owned());
            return vec![Diagnosis::fail(DIRECTORY, format!("{}: {why}", path.display()), remedy)];
        }
    };
    let (us, mode) = (rustix::process::geteuid(), permissions(&metadata));
    if site.user != us.as_raw() && !us.is_root() {
        let text = format!("{} is uid {}'s, not uid {us}'s", path.display(), site.user);
        let command = format!("sudo -u '#{}' {}", site.user, site.keyhatch("doctor"));
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
    let mut findings = vec![directory];
    findings.extend(files(site));
    findings.push(format(site));
    findings
}

/// The permission bits.
pub(super) fn permissions(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

/// What is wrong with the files, by what puts it right.
#[derive(Default)]
struct Wrong {
    open: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    foreign: Vec<PathBuf>,
    seen: usize,
}

fn files(site: &Site) -> Vec<Diagnosis> {
    let mut wrong = Wrong::default();
    let mut directories = vec![site.state.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            // Of the entry itself: where a link leads is not ours.
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
    wrong.findings(site)
}

impl Wrong {
    fn sort(&mut self, site: &Site, path: PathBuf, metadata: &Metadata) {
        let below = path.strip_prefix(&site.state).unwrap_or(&path);
        if below == Path::new("kek") {
            return; // Looked at as what it is.
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

    fn findings(&self, site: &Site) -> Vec<Diagnosis> {
        let mut findings = Vec::new();
        let mut tell = |paths: &[PathBuf], what: &str, command: String| {
            if !paths.is_empty() {
                let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
                let remedy = Remedy::run(&command, paths.iter().map(PathBuf::as_path));
                findings.push(Diagnosis::fail(
                    FILES,
                    format!("{what}: {}", names.join(" ")),
                    remedy,
                ));
            }
        };
        tell(&self.open, "open to others", "chmod go-rwx".to_owned());
        tell(&self.writable, "writable by others", "chmod go-w".to_owned());
        let user = site.user;
        tell(&self.foreign, &format!("not uid {user}'s"), format!("chown {user}"));
        if findings.is_empty() {
            findings
                .push(Diagnosis::ok(FILES, format!("{} with the right owner and mode", self.seen)));
        }
        findings
    }
}

/// Whether a file may be open to others. Certificates and addresses are no secret, and the store's library
/// leaves it to the directory above to keep others out.
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
                true => Remedy::Run(site.keyhatch("init")),
                false => Remedy::Do("name the broker's directory with --state".to_owned()),
            };
            Diagnosis::fail(FORMAT, "there is no state.json: init has made no broker here", remedy)
        }
        Err(error) => Diagnosis::fail(
            FORMAT,
            error.to_string(),
            Remedy::Do(format!(
                "with a backup, into an empty directory: keyhatch restore FILE --state {}",
                quoted(&site.state)
            )),
        ),
    }
}

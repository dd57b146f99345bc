//! The runtime directory, and the admin socket in it.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;

use rustix::fs::{Access, access};

use super::diagnosis::{Diagnosis, Remedy};
use super::site::Site;
use super::state::permissions;
use crate::broker::{RuntimeDir, RuntimeDirError};
use crate::sys::Directory;

const RUNTIME: &str = "runtime directory";
const SOCKET: &str = "admin socket";

/// The socket of operators and executors.
pub(super) fn admin_socket(site: &Site) -> PathBuf {
    site.runtime.join("admin.sock")
}

pub(super) fn check(site: &Site) -> [Diagnosis; 2] {
    [runtime(site), socket(site)]
}

fn runtime(site: &Site) -> Diagnosis {
    let path = site.runtime.as_path();
    match RuntimeDir::check(path, &site.trust) {
        Ok(()) => {}
        Err(RuntimeDirError::Directory(error)) => return site.unfit(RUNTIME, &error),
        Err(error) => {
            let advice = "name another directory with --runtime, or KEYHATCH_RUNTIME";
            return Diagnosis::fail(RUNTIME, error.to_string(), advice);
        }
    }
    let Ok(directory) = Directory::open(path, &site.trust) else { return missing(site) };
    let mode = std::fs::metadata(path).map_or(0, |metadata| permissions(&metadata));
    let text = format!("{} has mode {mode:04o} instead of 0755", path.display());
    let chmod = || Remedy::run("chmod 0755", [path]);
    if access(path, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Diagnosis::fail(RUNTIME, format!("{} cannot be written", path.display()), chmod());
    }
    if !directory.keeps_acls() {
        let text = format!(
            "{} is on a file system without access control lists: files are given to the users of steps, and a step \
             outside a container can fill it",
            path.display()
        );
        let advice = "have --runtime on a file system that keeps them, such as tmpfs";
        return Diagnosis::warn(RUNTIME, text, advice);
    }
    match mode & 0o055 {
        0o055 => {
            Diagnosis::ok(RUNTIME, format!("{}, with room in the path of a socket", path.display()))
        }
        _ => Diagnosis::warn(
            RUNTIME,
            format!("{text}: steps of other users do not find theirs"),
            chmod(),
        ),
    }
}

fn missing(site: &Site) -> Diagnosis {
    let text = format!("{} is not there", site.runtime.display());
    let owner = match rustix::process::geteuid().is_root() {
        true => format!(" -o {}", site.user),
        false => String::new(),
    };
    let command = format!("install -d -m 0755{owner}");
    Diagnosis::fail(RUNTIME, text, Remedy::run(&command, [site.runtime.as_path()]))
}

fn socket(site: &Site) -> Diagnosis {
    let path = admin_socket(site);
    let metadata = match std::fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) => {
            let text = match error.kind() {
                ErrorKind::NotFound => format!("{} is not there", path.display()),
                _ => format!("{}: {error}", path.display()),
            };
            return Diagnosis::fail(SOCKET, text, site.keyhatch("serve"));
        }
    };
    if !metadata.file_type().is_socket() {
        let text = format!("{} is no socket; stop the daemon, remove it", path.display());
        return Diagnosis::fail(SOCKET, text, Remedy::run("rm", [path.as_path()]));
    }
    if metadata.uid() != site.user {
        let text = format!("{} is uid {}'s: another daemon's", path.display(), metadata.uid());
        let advice = "stop that daemon, or name another directory with --runtime";
        return Diagnosis::fail(SOCKET, text, advice);
    }
    let mode = permissions(&metadata);
    let text = format!("{} has mode {mode:04o}", path.display());
    match mode {
        // 0660 is for the group of serve --admin-group.
        0o600 | 0o660 => Diagnosis::ok(SOCKET, text),
        _ => {
            let text = format!("{text} instead of 0600, or 0660 of a group");
            Diagnosis::fail(SOCKET, text, Remedy::run("chmod 0600", [path.as_path()]))
        }
    }
}

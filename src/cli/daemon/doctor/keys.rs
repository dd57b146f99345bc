//! The KEK: its source, who can read it, and whether it is the right one.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::diagnosis::{Diagnosis, Level, Remedy};
use super::site::Site;
use super::state::permissions;
use crate::daemon::StateDirectory;
use crate::grpc::pb;
use crate::seal::{KeyStore, KeyStoreError, check_private};

const KEK: &str = "KEK";
const KEK_FILE: &str = "KEK file";
const KEK_PLACE: &str = "KEK's place";
const KEYRING: &str = "keyring";

/// Checks the KEK. A KEK from another source than the options name is not checked if a daemon serves with it.
pub(super) fn check(site: &Site, daemon: Option<&pb::Status>) -> Vec<Diagnosis> {
    // The check of the state reports a directory or format that cannot be read.
    let Ok(state) = StateDirectory::open(&site.state, &site.trust) else { return Vec::new() };
    if state.read().is_err() {
        return Vec::new();
    }
    let keys = state.keys(Some(&site.unlock));
    let unknown = |status: &pb::Status| {
        let text = format!(
            "{}, which the daemon has from a {}: not checked, because neither --kek-file nor another flag or variable of \
             serve names it",
            status.kek_id, status.kek_source
        );
        vec![Diagnosis::ok(KEK, text)]
    };
    if let Err(error) = keys.check_source() {
        if let (KeyStoreError::OtherSource { .. }, Some(status)) = (&error, daemon) {
            return unknown(status);
        }
        let advice = match error {
            KeyStoreError::OtherSource { .. } => "start doctor and the daemon with that flag",
            _ => "restore keyring.json from a backup, with its mode 0600",
        };
        return vec![Diagnosis::fail(KEYRING, error.to_string(), advice)];
    }
    let Some(path) = keys.kek_path() else {
        let kind = keys.kek_kind();
        let text = format!("comes from a {kind}, which is asked only at a start: not checked");
        return vec![Diagnosis::ok(KEK, text)];
    };
    if let (false, Some(status)) = (path.exists(), daemon) {
        return unknown(status);
    }
    let file = kek_file(site, &path);
    match file.level {
        Level::Fail => vec![file],
        Level::Ok | Level::Warn => vec![file, place(site, &path), id(&keys, &path)],
    }
}

fn kek_file(site: &Site, path: &Path) -> Diagnosis {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            let text = format!("{}: {error}", path.display());
            let advice = "put your copy of it there, or say where it is with --kek-file";
            return Diagnosis::fail(KEK_FILE, text, advice);
        }
    };
    let (mode, owner) = (permissions(&metadata), metadata.uid());
    let text = format!("{} has mode {mode:04o}", path.display());
    // Root may own it and let the daemon's group read it.
    let is_lent = owner == 0 && mode & 0o040 != 0;
    let chmod = Remedy::run("chmod 0400", [path]);
    if check_private(path, &metadata).is_err() {
        let text = format!("{text}: others can read it, and the daemon refuses it");
        return Diagnosis::fail(KEK_FILE, text, chmod);
    }
    if owner != site.user && !is_lent {
        let (file, user) = (path.display(), site.user);
        let text = format!("{file} is uid {owner}'s, and the daemon runs as uid {user}");
        return Diagnosis::fail(KEK_FILE, text, Remedy::run(&format!("chown {user}"), [path]));
    }
    match mode & 0o333 {
        0 => Diagnosis::ok(KEK_FILE, text),
        _ => Diagnosis::warn(KEK_FILE, format!("{text}, and is only to be read"), chmod),
    }
}

fn place(site: &Site, path: &Path) -> Diagnosis {
    let canonical = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match canonical(path).starts_with(canonical(&site.state)) {
        false => Diagnosis::ok(KEK_PLACE, "apart from the store that it seals"),
        true => Diagnosis::warn(
            KEK_PLACE,
            "beside the store that it seals: whoever copies the state directory has both",
            "stop the daemon, then: keyhatch key rotate --kek-file FILE, on another disk",
        ),
    }
}

fn id(keys: &KeyStore, path: &Path) -> Diagnosis {
    match keys.check_kek(path) {
        Ok(id) => Diagnosis::ok(KEK, format!("{id}, as the keyring says")),
        Err(error) => {
            let advice = "put your copy of the right one in its place, or name it with --kek-file";
            Diagnosis::fail(KEK, error.to_string(), advice)
        }
    }
}

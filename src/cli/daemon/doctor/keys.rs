//! The KEK: where it comes from, who can read it, whether it is the one.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Site;
use super::diagnosis::{Diagnosis, Level, Remedy};
use super::state::permissions;
use crate::daemon::StateDirectory;
use crate::grpc::pb;
use crate::seal::{KeyStore, KeyStoreError, check_private};

const KEK: &str = "KEK";
const KEK_FILE: &str = "KEK file";
const KEK_PLACE: &str = "KEK's place";
const KEYRING: &str = "keyring";

/// Looks at the KEK; where it is elsewhere than doctor was told, a daemon that serves has it.
pub(super) fn look(site: &Site, daemon: Option<&pb::Status>) -> Vec<Diagnosis> {
    // That it cannot be read has been said.
    let Ok(state) = StateDirectory::open(&site.state, &site.trust) else { return Vec::new() };
    if state.read().is_err() {
        return Vec::new();
    }
    let keys = state.keys(Some(&site.unlock));
    let elsewhere = |status: &pb::Status| {
        let text = format!(
            "{}, which the daemon has from a {}: not looked at, because doctor was not told of it with --kek-file \
             or another of serve's flags and variables",
            status.kek_id, status.kek_source
        );
        vec![Diagnosis::ok(KEK, text)]
    };
    if let Err(error) = keys.check_source() {
        if let (KeyStoreError::OtherSource { .. }, Some(status)) = (&error, daemon) {
            return elsewhere(status);
        }
        let advice = match error {
            KeyStoreError::OtherSource { .. } => "start doctor and the daemon with that flag",
            _ => "restore keyring.json from a backup, with its mode 0600",
        };
        return vec![Diagnosis::fail(KEYRING, error.to_string(), Remedy::Do(advice.to_owned()))];
    }
    let Some(path) = keys.kek_path() else {
        let kind = keys.kek_kind();
        let text = format!("comes from a {kind}, which is asked at a start only: not looked at");
        return vec![Diagnosis::ok(KEK, text)];
    };
    if let (false, Some(status)) = (path.exists(), daemon) {
        return elsewhere(status);
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
            let advice = "put your copy of it there, or say where it is with --kek-file";
            let text = format!("{}: {error}", path.display());
            return Diagnosis::fail(KEK_FILE, text, Remedy::Do(advice.to_owned()));
        }
    };
    let (mode, owner) = (permissions(&metadata), metadata.uid());
    let says = |what: String| format!("{} {what}", path.display());
    // Root may lend it to the daemon's group.
    let is_lent = owner == 0 && mode & 0o040 != 0;
    if check_private(path, &metadata).is_err() {
        let text =
            says(format!("has mode {mode:04o}: others can read it, and the daemon refuses it"));
        return Diagnosis::fail(KEK_FILE, text, Remedy::run("chmod 0400", [path]));
    }
    if owner != site.user && !is_lent {
        let text = says(format!("is uid {owner}'s, and the daemon runs as uid {}", site.user));
        return Diagnosis::fail(
            KEK_FILE,
            text,
            Remedy::run(&format!("chown {}", site.user), [path]),
        );
    }
    match mode & 0o333 {
        0 => Diagnosis::ok(KEK_FILE, says(format!("has mode {mode:04o}"))),
        _ => {
            let text = says(format!("has mode {mode:04o}, and is only to be read"));
            Diagnosis::warn(KEK_FILE, text, Remedy::run("chmod 0400", [path]))
        }
    }
}

fn place(site: &Site, path: &Path) -> Diagnosis {
    let canonical = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match canonical(path).starts_with(canonical(&site.state)) {
        false => Diagnosis::ok(KEK_PLACE, "apart from the store that it seals"),
        true => Diagnosis::warn(
            KEK_PLACE,
            "beside the store that it seals: whoever copies the state directory has both",
            Remedy::Do(
                "stop the daemon, then: keyhatch key rotate --kek-file FILE, on another disk"
                    .to_owned(),
            ),
        ),
    }
}

fn id(keys: &KeyStore, path: &Path) -> Diagnosis {
    match keys.check_kek(path) {
        Ok(id) => Diagnosis::ok(KEK, format!("{id}, as the keyring says")),
        Err(error) => {
            let advice = "put your copy of the right one in its place, or name it with --kek-file";
            Diagnosis::fail(KEK, error.to_string(), Remedy::Do(advice.to_owned()))
        }
    }
}

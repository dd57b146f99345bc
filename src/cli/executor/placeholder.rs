//! Placeholders for the directory of a step, in a command that starts a container.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// The path of the directory in the container.
pub(super) const MOUNT_PATH: &str = "/run/keyhatch";
/// Becomes DIRECTORY:/run/keyhatch:ro.
const MOUNT: &str = "{mount}";
/// Becomes the path of the file with the step's variables. (`{env}` would be part of `${env}` in a shell.)
const ENV_FILE: &str = "{env-file}";

/// Whether a command mounts the directory into a container.
pub(super) fn is_for_a_container(command: &[OsString]) -> bool {
    let has_one = |word: &OsString| {
        word.as_bytes().windows(MOUNT.len()).any(|window| window == MOUNT.as_bytes())
    };
    command.iter().any(has_one)
}

/// Puts the directory of a step in place of the placeholders in a word. What is put in is not searched again.
pub fn fill_in(word: &OsStr, directory: &str) -> OsString {
    let values =
        [(MOUNT, format!("{directory}:{MOUNT_PATH}:ro")), (ENV_FILE, format!("{directory}/env"))];
    let mut rest = word.as_bytes();
    let mut filled = Vec::with_capacity(rest.len());
    while let Some((first, tail)) = rest.split_first() {
        let found = values
            .iter()
            .find_map(|(name, value)| Some((value, rest.strip_prefix(name.as_bytes())?)));
        match found {
            Some((value, tail)) => {
                filled.extend_from_slice(value.as_bytes());
                rest = tail;
            }
            None => {
                filled.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(filled)
}

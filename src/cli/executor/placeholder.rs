//! Placeholders for the directory of a step, in a command that starts a container.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use aho_corasick::AhoCorasick;

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
    let values = [format!("{directory}:{MOUNT_PATH}:ro"), format!("{directory}/env")];
    match AhoCorasick::new([MOUNT, ENV_FILE]) {
        Ok(search) => OsString::from_vec(search.replace_all_bytes(word.as_bytes(), &values)),
        // Two short patterns always make an automaton.
        Err(_) => word.to_owned(),
    }
}

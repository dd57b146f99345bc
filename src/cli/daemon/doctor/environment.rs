//! Variables that mislead commands.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::diagnosis::{Diagnosis, Remedy};
use crate::cli::command;
use crate::cli::identity::endpoint::Endpoint;

const DIRECTORY: &str = "KEYHATCH_DIR";
const VARIABLES: &str = "variables";

/// The variables of an identity without a directory. They count only together.
const SINGLE: [&str; 4] =
    ["KEYHATCH_ADDR", "KEYHATCH_CACERT", "KEYHATCH_CLIENT_CERT", "KEYHATCH_CLIENT_KEY"];
/// For gRPC clients of other programs. No command reads it.
const AUTHORITY: &str = "KEYHATCH_AUTHORITY";
/// The identity of a broker that is reached over TCP, beside [`SINGLE`].
const BROKER: &str = "KEYHATCH_BROKER";

/// The directory of the step that this runs in. None outside of a step.
pub(super) fn step_directory() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY)?);
    directory.join("keyhatch.sock").exists().then_some(directory)
}

/// The directory of an operator's or executor's identity. None if the environment names none.
pub(super) fn identity_directory() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY)?);
    check_files(&directory).is_ok().then_some(directory)
}

pub(super) fn check() -> Vec<Diagnosis> {
    let set: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("KEYHATCH_"))
        .collect();
    let mut diagnoses = names(&set);
    diagnoses.extend(identity(&set));
    if diagnoses.is_empty() {
        diagnoses.push(Diagnosis::ok(VARIABLES, "none that confuses"));
    }
    diagnoses
}

fn unset(names: &[&str]) -> Remedy {
    Remedy::Run(format!("unset {}", names.join(" ")))
}

/// Checks for variables that are empty or unknown.
fn names(set: &[(String, OsString)]) -> Vec<Diagnosis> {
    let known = known();
    let problem = |(name, value): &(String, OsString)| {
        let text = match (value.is_empty(), known.contains(name)) {
            (true, _) => format!("{name} is set to nothing"),
            (false, false) => format!("{name} is read by no command; is it misspelt?"),
            (false, true) => return None,
        };
        Some(Diagnosis::warn(VARIABLES, text, unset(&[name])))
    };
    set.iter().filter_map(problem).collect()
}

/// Every variable that a command reads.
fn known() -> BTreeSet<String> {
    fn collect(command: &clap::Command, known: &mut BTreeSet<String>) {
        let variables = command.get_arguments().filter_map(clap::Arg::get_env);
        known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
        command.get_subcommands().for_each(|below| collect(below, known));
    }
    let mut known = BTreeSet::from([DIRECTORY, AUTHORITY, BROKER].map(str::to_owned));
    known.extend(SINGLE.map(str::to_owned));
    collect(&command(), &mut known);
    known
}

/// Checks the identity that the variables name. None if they name none.
fn identity(set: &[(String, OsString)]) -> Option<Diagnosis> {
    let value = |name: &str| set.iter().find(|(set, _)| set == name).map(|(_, value)| value);
    let named = value(DIRECTORY).filter(|directory| !directory.is_empty());
    if let Some(directory) = named.map(Path::new) {
        return Some(match check_files(directory) {
            Ok(()) => Diagnosis::ok(DIRECTORY, format!("{} is an identity", directory.display())),
            Err(why) => Diagnosis::fail(DIRECTORY, why, unset(&[DIRECTORY])),
        });
    }
    let (given, missing): (Vec<_>, Vec<_>) =
        SINGLE.into_iter().partition(|name| value(name).is_some());
    if given.is_empty() || missing.is_empty() {
        return None;
    }
    let text = format!("{} cannot be used without {}", given.join(" "), missing.join(" "));
    Some(Diagnosis::warn(VARIABLES, text, unset(&given)))
}

/// Whether a directory is an identity, or why not.
fn check_files(directory: &Path) -> Result<(), String> {
    let files = ["ca.crt", "tls.crt", "tls.key"];
    if let Some(missing) = files.iter().find(|file| !directory.join(file).is_file()) {
        return Err(format!("{} is no identity: it has no {missing}", directory.display()));
    }
    Endpoint::in_directory(directory).map(drop).map_err(|failure| failure.message)
}

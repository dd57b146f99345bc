//! Variables that lead commands astray.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::diagnosis::{Diagnosis, Remedy};
use crate::cli::command;
use crate::cli::identity::endpoint::Endpoint;

const DIRECTORY: &str = "KEYHATCH_DIR";
const VARIABLES: &str = "variables";

/// What says who somebody is, without a directory: all of them or none.
const SINGLE: [&str; 4] =
    ["KEYHATCH_ADDR", "KEYHATCH_CACERT", "KEYHATCH_CLIENT_CERT", "KEYHATCH_CLIENT_KEY"];
/// Read by clients of gRPC, and by nothing here.
const AUTHORITY: &str = "KEYHATCH_AUTHORITY";

/// The directory of the step that this runs in.
pub(super) fn step_directory() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY)?);
    directory.join("keyhatch.sock").exists().then_some(directory)
}

/// The directory of an operator's or executor's identity, if one is named.
pub(super) fn identity_directory() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY)?);
    files_of(&directory).is_ok().then_some(directory)
}

pub(super) fn look() -> Vec<Diagnosis> {
    let set: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("KEYHATCH_"))
        .collect();
    let mut findings = names(&set);
    findings.extend(identity(&set));
    if findings.is_empty() {
        findings.push(Diagnosis::ok(VARIABLES, "none that confuses"));
    }
    findings
}

fn unset(names: &[&str]) -> Remedy {
    Remedy::Run(format!("unset {}", names.join(" ")))
}

fn names(set: &[(String, OsString)]) -> Vec<Diagnosis> {
    let known = known();
    let empty = |(name, value): &(String, OsString)| {
        let text = format!("{name} is set to nothing");
        value.is_empty().then(|| Diagnosis::warn(VARIABLES, text, unset(&[name])))
    };
    let unknown = |(name, _): &(String, OsString)| {
        let text = format!("{name} is read by no command; is it misspelt?");
        (!known.contains(name)).then(|| Diagnosis::warn(VARIABLES, text, unset(&[name])))
    };
    set.iter().flat_map(|variable| empty(variable).or_else(|| unknown(variable))).collect()
}

/// Every variable that some command reads.
fn known() -> BTreeSet<String> {
    fn collect(command: &clap::Command, known: &mut BTreeSet<String>) {
        let variables = command.get_arguments().filter_map(clap::Arg::get_env);
        known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
        command.get_subcommands().for_each(|below| collect(below, known));
    }
    let mut known = BTreeSet::from([DIRECTORY, AUTHORITY].map(str::to_owned));
    known.extend(SINGLE.map(str::to_owned));
    collect(&command(), &mut known);
    known
}

fn identity(set: &[(String, OsString)]) -> Option<Diagnosis> {
    let value = |name: &str| set.iter().find(|(set, _)| set == name).map(|(_, value)| value);
    let named = value(DIRECTORY).filter(|directory| !directory.is_empty());
    if let Some(directory) = named {
        let directory = Path::new(directory);
        return match files_of(directory) {
            Ok(()) => {
                Some(Diagnosis::ok(DIRECTORY, format!("{} is an identity", directory.display())))
            }
            Err(why) => Some(Diagnosis::fail(DIRECTORY, why, unset(&[DIRECTORY]))),
        };
    }
    let given: Vec<_> = SINGLE.into_iter().filter(|name| value(name).is_some()).collect();
    let missing: Vec<_> = SINGLE.into_iter().filter(|name| value(name).is_none()).collect();
    match (given.as_slice(), missing.as_slice()) {
        ([], _) | (_, []) => None,
        _ => {
            let (some, others) = (given.join(" "), missing.join(" "));
            let text = format!("{some} counts for nothing without {others}");
            Some(Diagnosis::warn(VARIABLES, text, unset(&given)))
        }
    }
}

fn files_of(directory: &Path) -> Result<(), String> {
    let files = ["ca.crt", "tls.crt", "tls.key"];
    if let Some(missing) = files.iter().find(|file| !directory.join(file).is_file()) {
        return Err(format!("{} is no identity: it has no {missing}", directory.display()));
    }
    Endpoint::in_directory(directory).map(drop).map_err(|failure| failure.message)
}

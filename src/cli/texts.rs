//! What commands make of texts that others have written, with nothing else done: for whoever looks for texts
//! that do harm.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use super::executor::placeholder;
use super::identity::endpoint;
use super::io::time;
use super::operator::seed;
use super::step::{exec, mask};
use crate::grpc::pb::apply_request::Document;
use crate::model::Reference;

/// The documents of a seed file. Neither `fromEnv` nor `fromFile` is read.
///
/// # Errors
/// What is wrong, and where.
pub fn seed(text: &str, workflow: Option<&str>) -> Result<Vec<Document>, String> {
    let allowed = seed::Allowed::default();
    let context = seed::SeedContext { workflow, default_resolver: None, allowed: &allowed };
    let mut parsed = seed::Parsed::default();
    let (shown, reach) = (seed::Shown::new("seed.yaml"), seed::Reach::of_stdin(&allowed));
    seed::parse(text, &shown, &reach, &context, &mut parsed);
    let seeds = parsed.finish().map_err(|failure| failure.message)?;
    Ok(seeds.into_iter().map(|seed| seed.document).collect())
}

/// An `--env`: its variable or prefix, the reference and the fields. None if it is not well formed.
pub fn env_argument(text: &str) -> Option<(Option<String>, Reference, Vec<String>)> {
    exec::EnvArgument::parse(text).ok().map(exec::EnvArgument::into_parts)
}

/// A word of a command with the step's directory in place of `{mount}` and `{env-file}`.
pub fn filled_in(word: &OsStr, directory: &str) -> OsString {
    placeholder::filled_in(word, directory)
}

/// A duration such as `90s` or `2h`.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    time::parse_duration(text)
}

/// The broker's socket by the `env` file of an identity directory.
pub fn address(env_file: &str) -> Option<PathBuf> {
    endpoint::address_in_text(env_file)
}

/// Output in which a value and its forms are masked, as it comes in pieces. None if the value is too short or common.
pub fn masked(value: &[u8], pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let masks = mask::Masks::default();
    let unmasked = masks.add(value).ok()?;
    let is_masked = unmasked.is_none_or(|why| why == mask::Unmasked::Parts);
    is_masked.then(|| masks.masked_pieces(pieces))
}

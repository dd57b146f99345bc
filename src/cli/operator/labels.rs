//! Labels, `KEY=VALUE`.

use std::collections::BTreeMap;

/// Parses `KEY=VALUE`.
///
/// # Errors
/// If there is no `=`.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| format!("{text:?}: write KEY=VALUE"))?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

/// True if a resource has all of the wanted labels.
pub fn has_labels(labels: &BTreeMap<String, String>, wanted: &[(String, String)]) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// `key=value` of each, with this text between.
pub fn pairs<'a>(
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    between: &str,
) -> String {
    let pairs = labels.into_iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(between)
}

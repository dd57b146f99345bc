//! Directories of files: what is read of them, and what they hold beside that.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Json;

use super::yaml::{Shown, explain};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{printable, say};
use crate::model::limits::MAX_APPLY_BYTES;
use crate::sys::input;

/// What stands in the names of files that may describe something.
const LIKELY: [&str; 3] = [".json", ".yaml", ".yml"];
/// How many names are said of what is passed over.
const MOST_NAMES: usize = 8;

/// The files of a directory whose names end so, by name.
///
/// # Errors
/// If it cannot be read.
pub fn files_in(directory: &Path, endings: &[&str]) -> std::io::Result<Vec<PathBuf>> {
    let mut files = entries(directory)?;
    files.retain(|file| has_ending(file, endings));
    Ok(files)
}

/// Says what directories hold that is likely to be meant and is not read, because of its ending or because it lies
/// deeper, and is not named itself.
pub fn say_passed_over(paths: &[PathBuf], endings: &[&str]) {
    let passed_over = passed_over(paths, endings);
    let told = passed_over.iter().take(MOST_NAMES);
    let told: Vec<String> = told.map(|path| printable(&path.display().to_string())).collect();
    let more = match passed_over.len().saturating_sub(MOST_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if !told.is_empty() {
        let endings: Vec<String> = endings.iter().map(|ending| format!("*.{ending}")).collect();
        say(&format!(
            "note: {}{more}: passed over, because of a directory its own {} are read; name the others, too",
            told.join(", "),
            endings.join(" and ")
        ));
    }
}

/// Connections and groups that files describe which are passed over, by name, and the file of each.
///
/// # Errors
/// If it cannot be known what a file describes.
pub fn described_elsewhere(
    paths: &[PathBuf],
    endings: &[&str],
) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut named = BTreeMap::new();
    for path in passed_over(paths, endings).iter().flat_map(|path| likely_files(path)) {
        for name in names_in(&path)? {
            named.entry(name).or_insert_with(|| path.clone());
        }
    }
    Ok(named)
}

fn passed_over(paths: &[PathBuf], endings: &[&str]) -> Vec<PathBuf> {
    let named: BTreeSet<PathBuf> =
        paths.iter().filter_map(|path| std::fs::canonicalize(path).ok()).collect();
    let is_named =
        |path: &Path| std::fs::canonicalize(path).is_ok_and(|path| named.contains(&path));
    let directories = paths.iter().filter(|path| path.is_dir());
    let entries = directories.flat_map(|directory| entries(directory).unwrap_or_default());
    let is_read = |path: &Path| has_ending(path, endings) && !path.is_dir();
    entries
        .filter(|path| !is_read(path) && !is_named(path) && !likely_files(path).is_empty())
        .collect()
}

/// What a directory holds, by name. What begins with a dot is nobody's description.
fn entries(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| !name_of(path).starts_with('.'));
    paths.sort();
    Ok(paths)
}

fn has_ending(file: &Path, endings: &[&str]) -> bool {
    file.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

/// A file that may describe something, or all of a directory however deep.
fn likely_files(path: &Path) -> Vec<PathBuf> {
    let (mut found, mut seen, mut waiting) = (Vec::new(), BTreeSet::new(), vec![path.to_owned()]);
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_file() && LIKELY.iter().any(|ending| name_of(&path).contains(ending)) {
            found.push(path);
        } else if metadata.is_dir() && seen.insert((metadata.dev(), metadata.ino())) {
            // A link may lead back to where it was.
            waiting.extend(entries(&path).unwrap_or_default());
        }
    }
    found.sort();
    found
}

/// What is enough to know which resource a document is.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    #[serde(rename = "apiVersion")]
    api_version: Json,
    kind: Json,
    metadata: Json,
    spec: Json,
    connections: Json,
}

impl Named {
    /// The names of what it describes; nothing if it is ours and does not say.
    fn names(&self) -> Option<Vec<String>> {
        let text = |json: &Json, key: &str| Some(json.get(key)?.as_str()?.to_owned());
        let name = || text(&self.metadata, "name");
        let mut names = match self.kind.as_str().filter(|_| self.api_version == "keyhatch/v1") {
            Some("Connection") => {
                vec![format!("connections/{}/{}", text(&self.spec, "integration")?, name()?)]
            }
            Some("ConnectionGroup") => vec![format!("groups/{}", name()?)],
            _ => Vec::new(),
        };
        let relays = self.connections.as_object().into_iter().flat_map(|map| map.keys());
        names.extend(relays.map(|name| format!("connections/{name}")));
        Some(names)
    }
}

/// The names of what a file describes, whatever else stands in it. What is no YAML by its ending, either, is nothing.
fn names_in(path: &Path) -> Result<Vec<String>, Failure> {
    let shown = Shown::new(&path.display().to_string());
    let is_yaml = LIKELY.iter().any(|ending| name_of(path).ends_with(ending));
    let unknown = |problem: String| {
        Failure::usage(format!(
            "{problem}; --prune has to know what {shown} describes: mend the file, or move it elsewhere"
        ))
    };
    let text = match input::file(path, MAX_APPLY_BYTES).and_then(input::text) {
        Ok(text) => text,
        Err(error) if is_yaml => return Err(unknown(format!("{shown}: {error}"))),
        Err(_) => return Ok(Vec::new()),
    };
    let mut names = Vec::new();
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let mut bytes = text.as_bytes();
    for document in serde_saphyr::read_with_options::<_, Json>(&mut bytes, options) {
        match document {
            Ok(document) => {
                let named: Named = serde_json::from_value(document).unwrap_or_default();
                let named = named.names().ok_or_else(|| {
                    unknown(format!(
                        "{shown}: a document has no name, or one that looks like a number"
                    ))
                })?;
                names.extend(named);
            }
            Err(error) if is_yaml => {
                let place = shown.at(error.location());
                return Err(unknown(format!("{place}: {}", explain(&error))));
            }
            Err(_) => break,
        }
    }
    Ok(names)
}

//! Directories of seed files: which files are read, and what the others describe.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Json;
use zeroize::Zeroizing;

use super::yaml::{FileLabel, explain};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;
use crate::cli::io::text::printable;
use crate::model::limits::MAX_APPLY_BYTES;
use crate::sys::input;

/// Parts of the names of files that may describe resources.
const LIKELY: [&str; 3] = [".json", ".yaml", ".yml"];
/// The first bytes of gzip, bzip2, xz, Zstandard, ZIP and 7-Zip.
const PACKED: [&[u8]; 6] =
    [b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"7z\xbc\xaf"];
/// The first bytes of UTF-16.
const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
/// At most so many skipped files are named.
const MOST_NAMES: usize = 8;

/// The files of a directory with these endings, by name, without hidden files.
///
/// # Errors
/// If the directory cannot be read.
pub fn files_in(directory: &Path, endings: &[&str]) -> std::io::Result<Vec<PathBuf>> {
    let mut files = entries(directory)?;
    files.retain(|file| has_ending(file, endings) && !name_of(file).starts_with('.'));
    Ok(files)
}

/// Says on stderr which likely files of these directories are not read: files with another ending, hidden files, and files
/// in subdirectories, unless they are named themselves.
pub fn say_passed_over(paths: &[PathBuf], endings: &[&str]) {
    let passed_over = passed_over(paths, endings);
    let named = passed_over.iter().take(MOST_NAMES);
    let named: Vec<String> = named.map(|path| printable(&path.display().to_string())).collect();
    let more = match passed_over.len().saturating_sub(MOST_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if !named.is_empty() {
        let endings: Vec<String> = endings.iter().map(|ending| format!("*.{ending}")).collect();
        say(&format!(
            "note: {}{more}: not read, because only {} directly in a directory are; name other files, too",
            named.join(", "),
            endings.join(" and ")
        ));
    }
}

/// The connections and groups that files of these directories describe which are not read, whatever their names: the name
/// and the file of each.
///
/// # Errors
/// If a file may describe something and cannot be understood.
pub fn described_elsewhere(
    paths: &[PathBuf],
    endings: &[&str],
) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let read = read_of(paths, endings);
    let mut named = BTreeMap::new();
    for directory in paths.iter().filter(|path| path.is_dir()) {
        for entry in entries(directory)? {
            let below = below(&entry);
            if let Some((path, error)) = below.closed.first() {
                return Err(unknown(path, &error.to_string()));
            }
            for path in below.files.iter().filter(|path| !is_in(&read, path)) {
                for name in names_in(path)? {
                    named.entry(name).or_insert_with(|| path.clone());
                }
            }
        }
    }
    Ok(named)
}

fn passed_over(paths: &[PathBuf], endings: &[&str]) -> Vec<PathBuf> {
    let read = read_of(paths, endings);
    let directories = paths.iter().filter(|path| path.is_dir());
    let entries = directories.flat_map(|directory| entries(directory).unwrap_or_default());
    let is_passed_over = |path: &Path| is_likely(path) && !is_in(&read, path);
    entries
        .filter(|entry| {
            !is_in(&read, entry) && below(entry).files.iter().any(|path| is_passed_over(path))
        })
        .collect()
}

/// The canonical paths of everything that is named or read.
fn read_of(paths: &[PathBuf], endings: &[&str]) -> BTreeSet<PathBuf> {
    let files = paths.iter().flat_map(|path| files_in(path, endings).unwrap_or_default());
    files.chain(paths.iter().cloned()).filter_map(|path| std::fs::canonicalize(path).ok()).collect()
}

fn is_in(read: &BTreeSet<PathBuf>, path: &Path) -> bool {
    std::fs::canonicalize(path).is_ok_and(|path| read.contains(&path))
}

/// The entries of a directory without `.git`, by name.
fn entries(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| path.file_name().is_none_or(|name| name != ".git"));
    paths.sort();
    Ok(paths)
}

fn has_ending(file: &Path, endings: &[&str]) -> bool {
    file.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

/// True if a file of this name is likely to describe resources.
fn is_likely(path: &Path) -> bool {
    LIKELY.iter().any(|ending| name_of(path).contains(ending))
}

/// The files at and below a path.
#[derive(Default)]
struct Below {
    files: Vec<PathBuf>,
    /// Paths that could not be read.
    closed: Vec<(PathBuf, std::io::Error)>,
}

fn below(path: &Path) -> Below {
    let (mut found, mut seen, mut waiting) =
        (Below::default(), BTreeSet::new(), vec![path.to_owned()]);
    while let Some(path) = waiting.pop() {
        let looked = std::fs::metadata(&path).and_then(|metadata| {
            if metadata.is_file() {
                found.files.push(path.clone());
            } else if metadata.is_dir() && seen.insert((metadata.dev(), metadata.ino())) {
                // A link may lead back to a directory above.
                waiting.extend(entries(&path)?);
            }
            Ok(())
        });
        // A dangling link describes nothing.
        if let Err(error) = looked
            && error.kind() != std::io::ErrorKind::NotFound
        {
            found.closed.push((path, error));
        }
    }
    found.files.sort();
    found
}

/// The parts of a document that name its resource.
#[derive(Default, Deserialize)]
#[serde(default)]
struct DocumentHead {
    #[serde(rename = "apiVersion")]
    api_version: Json,
    kind: Json,
    metadata: Json,
    spec: Json,
    connections: Json,
}

impl DocumentHead {
    /// The names of the resources; `None` if the document is of our own form and does not name its resource.
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

/// The failure for a file that cannot be understood, so that nothing is pruned.
fn unknown(path: &Path, problem: &str) -> Failure {
    let shown = FileLabel::new(&printable(&path.display().to_string()));
    Failure::usage(format!(
        "{shown}: {problem}; --prune must know what {shown} describes: repair or unpack it, or move it elsewhere"
    ))
}

/// The names of the resources that a file describes, whatever else it holds.
fn names_in(path: &Path) -> Result<Vec<String>, Failure> {
    let bytes = beginning(path).map_err(|error| unknown(path, &error.to_string()))?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) if bytes.len() <= MAX_APPLY_BYTES => text,
        _ => match hidden_by(path, &bytes) {
            Some(problem) => return Err(unknown(path, problem)),
            None => return Ok(Vec::new()),
        },
    };
    let must_be_known = LIKELY.iter().any(|ending| name_of(path).ends_with(ending))
        || (!name_of(path).ends_with(".md") && speaks_of_resources(text));
    let mut names = Vec::new();
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let mut bytes = text.as_bytes();
    for document in serde_saphyr::read_with_options::<_, Json>(&mut bytes, options) {
        match document {
            Ok(document) => {
                let named: DocumentHead = serde_json::from_value(document).unwrap_or_default();
                names.extend(named.names().ok_or_else(|| {
                    unknown(path, "a document has no name, or one that looks like a number")
                })?);
            }
            Err(error) if must_be_known => {
                let place = error.location().map_or(1, |at| at.line());
                return Err(unknown(path, &format!("line {place}: {}", explain(&error))));
            }
            // Neither its name nor its text is that of a seed file.
            Err(_) => break,
        }
    }
    Ok(names)
}

/// The bytes of a file; those of a larger file up to one more than the limit.
fn beginning(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    input::open(path)?.take(MAX_APPLY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Why documents in these bytes cannot be read; `None` if there are no documents, as in pictures, programs and keys.
fn hidden_by(path: &Path, bytes: &[u8]) -> Option<&'static str> {
    let begins = |signs: &[&[u8]]| signs.iter().any(|sign| bytes.starts_with(sign));
    if begins(&PACKED) {
        return Some("this is compressed");
    }
    let may_be_text = is_likely(path) || begins(&UTF_16) || !bytes.contains(&0);
    may_be_text.then_some(match bytes.len() > MAX_APPLY_BYTES {
        true => "this is larger than what is read",
        false => "this is not UTF-8",
    })
}

/// True if a text that is not YAML as a whole seems to describe resources.
fn speaks_of_resources(text: &str) -> bool {
    let is_ours = |line: &str| line.contains("apiVersion") && line.contains("keyhatch/v1");
    text.lines().any(|line| is_ours(line) || line.starts_with("connections:"))
}

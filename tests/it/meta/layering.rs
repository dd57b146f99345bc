//! The house: who may know whom. The compiler does not hold a single crate to it, so this does.

use std::path::{Path, PathBuf};

/// Every room with its layer; a room may use only lower ones.
const LAYERS: [(&str, u8); 18] = [
    ("main", 9),
    ("cli", 8),
    ("daemon", 7),
    ("grpc", 6),
    ("broker", 5),
    ("catalog", 4),
    ("store", 4),
    ("journal", 3),
    ("access", 2),
    ("lease", 2),
    ("seal", 2),
    ("identity", 2),
    ("integration", 2),
    ("config", 2),
    ("relay", 2),
    ("metrics", 1),
    ("model", 1),
    ("sys", 1),
];

/// Crates that one room keeps to itself (and who else is excused, with the reason).
const FENCES: [(&str, &[&str]); 12] = [
    ("argon2", &["seal"]),
    ("chacha20poly1305", &["seal"]),
    ("rustls", &["identity"]),
    ("tokio_rustls", &["identity"]),
    ("x509_parser", &["identity"]),
    ("rcgen", &["identity"]),
    ("sled", &["store"]),
    // cli is a client of the API.
    ("tonic", &["grpc", "cli"]),
    ("clap", &["cli"]),
    // Two listeners on this machine: of `exec --serve`, and of the daemon's metrics.
    ("hyper", &["cli", "daemon"]),
    ("prometheus_client", &["metrics"]),
    ("granit_parser", &["relay"]),
];

fn sources() -> Vec<(String, PathBuf, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, found),
                false => found.push(path),
            }
        }
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&source, &mut files);
    files.retain(|path| path.extension().is_some_and(|end| end == "rs"));
    let described = files.into_iter().map(|path| {
        let below = path.strip_prefix(&source).unwrap().to_path_buf();
        let first = below.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let room = first.trim_end_matches(".rs").to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        (room, below, code_of(&text))
    });
    described.filter(|(room, ..)| room != "lib").collect()
}

/// The text without comments and without its tests.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The words of a text that stand before `::`.
fn paths_in(code: &str) -> impl Iterator<Item = &str> {
    code.split("::")
        .filter_map(|part| part.rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next())
}

#[test]
fn a_room_uses_only_lower_rooms() {
    let layer = |room: &str| LAYERS.iter().find(|(name, _)| *name == room).map(|(_, layer)| *layer);
    let mut forbidden = Vec::new();
    for (room, path, code) in sources() {
        let own =
            layer(&room).unwrap_or_else(|| panic!("{room} has no layer: add it to the table"));
        for used in code.split("crate::").skip(1).chain(code.split("keyhatch::").skip(1)) {
            let used: String =
                used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(theirs) = layer(&used) else { continue };
            if used != room && theirs >= own {
                forbidden.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}

#[test]
fn a_fenced_crate_is_named_in_its_room_only() {
    let mut forbidden = Vec::new();
    for (room, path, code) in sources() {
        for (name, rooms) in FENCES {
            if !rooms.contains(&room.as_str()) && paths_in(&code).any(|word| word == name) {
                forbidden.push(format!("{} names {name}", path.display()));
            }
        }
    }
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}

#[test]
fn values_are_opened_by_a_permit_and_by_nobody_else() {
    let callers: Vec<_> = sources()
        .into_iter()
        .filter(|(_, _, code)| code.contains("open_values("))
        .map(|(_, path, _)| path.display().to_string())
        .collect();
    let mut callers = callers;
    callers.sort();
    assert_eq!(callers, ["journal/permit.rs", "seal/values.rs"]);
    // And a permit is made in one place, after its line.
    let makers: Vec<_> = sources()
        .into_iter()
        .filter(|(_, _, code)| code.contains("Permit::new("))
        .map(|(_, path, _)| path.display().to_string())
        .collect();
    assert_eq!(makers, ["journal/mod.rs"]);
}

#[test]
fn unsafe_code_stands_in_the_two_files_that_say_why() {
    let is_unsafe = |code: &String| {
        let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        words.any(|word| word == "unsafe" || word == "unsafe_code")
    };
    let found = sources().into_iter().filter(|(_, _, code)| is_unsafe(code));
    let mut found: Vec<_> = found.map(|(_, path, _)| path.display().to_string()).collect();
    found.sort();
    assert_eq!(found, ["seal/memory/allocator.rs", "seal/memory/secret_memory.rs"]);
}

#[test]
fn files_are_short_enough_to_hold_one_idea() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(_, path, code)| (code.lines().filter(|line| !line.trim().is_empty()).count(), path))
        .filter(|(lines, _)| *lines > 400)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn a_folder_is_seen_at_a_glance() {
    let mut counts = std::collections::BTreeMap::new();
    for (_, path, _) in sources() {
        *counts.entry(path.parent().unwrap().to_owned()).or_insert(0) += 1;
    }
    counts.retain(|_, count| *count > 16);
    assert!(counts.is_empty(), "{counts:?}");
}

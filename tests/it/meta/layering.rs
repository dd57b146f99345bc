//! The layers of the sources, and which modules may use which. The compiler does not check this within a single
//! crate, so these tests do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every room with its layer. A room may use only lower rooms.
const LAYERS: [(&str, u8); 22] = [
    ("main", 9),
    ("cli", 8),
    ("daemon", 7),
    ("grpc", 6),
    ("broker", 5),
    ("catalog", 4),
    ("store", 4),
    ("journal", 3),
    ("mint", 3),
    ("access", 2),
    ("lease", 2),
    ("seal", 2),
    ("identity", 2),
    ("integration", 2),
    ("config", 3),
    ("egress", 2),
    ("relay", 2),
    ("mask", 1),
    ("ssh", 3),
    ("metrics", 1),
    ("model", 1),
    ("sys", 1),
];

/// Crates that only the named rooms may use.
const FENCES: [(&str, &[&str]); 16] = [
    ("argon2", &["seal"]),
    ("chacha20poly1305", &["seal"]),
    // egress is a client of upstreams, identity serves and asks the doors.
    ("rustls", &["egress", "identity"]),
    ("tokio_rustls", &["egress", "identity"]),
    ("rustls_native_certs", &["egress"]),
    ("simple_dns", &["egress"]),
    ("x509_parser", &["identity"]),
    ("rcgen", &["identity"]),
    ("sled", &["store"]),
    // cli is a client of the API.
    ("tonic", &["grpc", "cli"]),
    ("clap", &["cli"]),
    // sys serves HTTP on this machine: for `exec --serve`, and for the daemon's metrics.
    ("hyper", &["cli", "daemon", "egress", "sys"]),
    ("prometheus_client", &["metrics"]),
    ("granit_parser", &["relay"]),
    ("quick_xml", &["mint"]),
    ("stringprep", &["mint"]),
];

/// The Rust files below a folder of the crate, as paths from there.
fn files_below(folder: &str) -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, found),
                false => found.push(path),
            }
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    walk(&folder, &mut files);
    files.retain(|path| path.extension().is_some_and(|end| end == "rs"));
    files.iter().map(|path| path.strip_prefix(&folder).unwrap().to_owned()).collect()
}

/// Room, path and code of each source file but `lib.rs`.
fn sources() -> Vec<(String, PathBuf, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let described = files_below("src").into_iter().map(|path| {
        let first = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let room = first.trim_end_matches(".rs").to_owned();
        let text = std::fs::read_to_string(source.join(&path)).unwrap();
        (room, path, code_of(&text))
    });
    described.filter(|(room, ..)| room != "lib").collect()
}

/// The text without comments and tests.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The words of a text before each `::`.
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

/// The module of a file, as `broker::changes::apply`.
fn module_of(path: &Path) -> String {
    let path = path.with_extension("").display().to_string();
    path.trim_end_matches("/mod").replace('/', "::")
}

/// Every path of a `use` tree: `a::{b, c::D}` is `a::b` and `a::c::D`.
fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let mut depth = 0;
    let parts = tree.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts {
        match part.split_once('{') {
            Some((outer, inner)) => {
                let inner = inner.rsplit_once('}').unwrap().0;
                expand(&format!("{prefix}{}", outer.trim()), inner, found);
            }
            None => {
                let path = part.split_whitespace().next().unwrap_or_default();
                found.push(format!("{prefix}{path}"));
            }
        }
    }
}

/// The paths that a file's code uses. A `pub use` passes a name on and uses nothing.
fn paths_used(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        let imports = |line: &str| line.starts_with("use ") || line.starts_with("pub use ");
        let lines: Vec<_> = statement.lines().map(str::trim_start).collect();
        let end = lines.iter().position(|line| imports(line)).unwrap_or(lines.len());
        let (code, import) = lines.split_at(end);
        let code = code.join("\n");
        let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        let local = |word: &&str| {
            ["crate::", "super::", "self::"].iter().any(|start| word.starts_with(start))
        };
        found.extend(words.filter(local).map(str::to_owned));
        if let Some(tree) = import.join(" ").strip_prefix("use ") {
            expand("", tree, &mut found);
        }
    }
    found
}

/// The module of `modules` that `path` names within `module`.
fn target(module: &str, path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut words = path.split("::").peekable();
    let mut full: Vec<&str> = module.split("::").collect();
    match *words.peek()? {
        "crate" => full.clear(),
        "self" => {}
        "super" => {
            while words.next_if_eq(&"super").is_some() {
                full.pop();
            }
        }
        child if modules.contains(&format!("{module}::{child}")) => {}
        _ => return None,
    }
    full.extend(words.filter(|word| !matches!(*word, "crate" | "self")));
    (1..=full.len()).rev().map(|end| full[..end].join("::")).find(|name| modules.contains(name))
}

/// The modules that `start` uses, directly or through others.
fn reached<'a>(start: &'a str, uses: &'a BTreeMap<&'a str, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(module) = open.pop() {
        let used = uses[module].iter().map(String::as_str);
        open.extend(used.filter(|used| reached.insert(*used)));
    }
    reached
}

/// The import circles within rooms, each as the modules that reach each other. A room's own `mod.rs` is its facade
/// and is left out.
fn circles<'a>(files: impl Iterator<Item = (&'a Path, &'a str)>) -> BTreeSet<Vec<String>> {
    let room = |module: &str| module.split("::").next().map(str::to_owned);
    let files: Vec<_> = files.map(|(path, code)| (module_of(path), code)).collect();
    let modules: BTreeSet<_> = files.iter().map(|(module, _)| module.clone()).collect();
    let mut uses: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (module, code) in files.iter().filter(|(module, _)| module.contains("::")) {
        let targets =
            paths_used(code).into_iter().filter_map(|path| target(module, &path, &modules));
        let targets = targets.filter(|used| used != module && room(used) == room(module));
        uses.insert(module, targets.filter(|used| used.contains("::")).collect());
    }
    let reached: BTreeMap<_, _> =
        uses.keys().map(|module| (*module, reached(module, &uses))).collect();
    let on_a_circle = reached.iter().filter(|(module, theirs)| theirs.contains(*module));
    let circle = on_a_circle.map(|(module, theirs)| {
        let both_ways = theirs.iter().filter(|other| reached[*other].contains(module));
        both_ways.map(|name| (*name).to_owned()).collect()
    });
    circle.collect()
}

#[test]
fn no_imports_within_a_room_form_a_circle() {
    let sources = sources();
    let found = circles(sources.iter().map(|(_, path, code)| (path.as_path(), code.as_str())));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_planted_circle_of_imports_is_found() {
    let planted = [
        ("room/mod.rs", "mod one; mod two; pub use one::One;"),
        ("room/one.rs", "use super::two::{Two, three::{self, Three as Third}};"),
        ("room/two/mod.rs", "mod three;\npub use three::Three;\nstruct Two;"),
        ("room/two/three.rs", "fn three() {\n    crate::room::four::run(self::NAME)\n}"),
        ("room/four.rs", "use crate::{other::Other, room::one::One};"),
        ("room/five.rs", "use super::{One, four};"),
        ("other/mod.rs", "mod six;"),
        ("other/six.rs", "use super::Other; use crate::room::five;"),
    ];
    let found = circles(planted.iter().map(|(path, code)| (Path::new(path), *code)));
    assert_eq!(
        found,
        [["room::four", "room::one", "room::two::three"].map(str::to_owned).to_vec()].into()
    );
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
fn values_are_opened_only_by_a_permit() {
    let callers: Vec<_> = sources()
        .into_iter()
        .filter(|(_, _, code)| code.contains("open_values("))
        .map(|(_, path, _)| path.display().to_string())
        .collect();
    let mut callers = callers;
    callers.sort();
    assert_eq!(callers, ["journal/commit/permit.rs", "seal/values.rs"]);
}

/// The functions of a text, each with what follows it.
fn functions(code: &str) -> impl Iterator<Item = &str> {
    code.split("fn ").skip(1)
}

#[test]
fn a_permit_is_made_after_its_line_and_has_one_purpose() {
    let mut makers = BTreeSet::new();
    for (_, path, code) in sources() {
        for function in functions(&code) {
            let name = function.split(['(', '<']).next().unwrap_or_default();
            for maker in ["Permit::to_root(", "Permit::to_hand_out(", "Permit::to_act("] {
                if function.contains(maker) {
                    makers.insert(format!("{}: {name}: {maker}", path.display()));
                }
            }
            // A root is opened for a line that says so, and for nothing else. An ending is asked for again and again
            // under one line, which the state has.
            let lines = ["Event::Minting(", "Event::Tested(", "owed.begun.is_some()"];
            let says_so = lines.iter().any(|line| function.contains(line));
            assert!(
                says_so || !function.contains("Permit::to_root("),
                "{}: {name}",
                path.display()
            );
        }
        let is_definition = path == Path::new("journal/commit/permit.rs");
        for purpose in code.split("Permit<").skip(1).filter(|_| !is_definition) {
            let is_one = ["HandOut>", "Root>", "Act>"].iter().any(|one| purpose.starts_with(one));
            assert!(is_one || purpose.starts_with("'_>"), "{} takes either", path.display());
        }
    }
    let known = [
        "journal/commit/actions.rs: act_on: Permit::to_act(",
        "journal/commit/actions.rs: commit_action: Permit::to_act(",
        "journal/commit/endings.rs: permit_ending_with: Permit::to_root(",
        "journal/commit/mints.rs: begin_mint: Permit::to_root(",
        "journal/commit/mints.rs: hand_out: Permit::to_hand_out(",
        "journal/commit/mod.rs: commit_test: Permit::to_root(",
        "journal/commit/mod.rs: new: Permit::to_hand_out(",
        "journal/commit/uses.rs: commit_sign: Permit::to_act(",
    ];
    assert_eq!(makers.iter().map(String::as_str).collect::<Vec<_>>(), known);
}

#[test]
fn unsafe_code_is_in_the_two_files_that_say_why() {
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
fn test_names_are_short_sentences() {
    let mut long = Vec::new();
    for folder in ["src", "tests/it"] {
        for path in files_below(folder) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(path);
            let text = std::fs::read_to_string(path).unwrap();
            let tests = text.split("#[test]\n").skip(1).filter_map(|test| test.split_once("fn "));
            let names = tests.filter_map(|(_, name)| name.split('(').next().map(str::to_owned));
            long.extend(names.filter(|name| name.len() > 60));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn files_have_at_most_four_hundred_lines_of_code() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(_, path, code)| (code.lines().filter(|line| !line.trim().is_empty()).count(), path))
        .filter(|(lines, _)| *lines > 400)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn a_folder_has_at_most_sixteen_files() {
    let mut counts = BTreeMap::new();
    for folder in ["src", "tests/it"] {
        for path in files_below(folder) {
            *counts.entry(Path::new(folder).join(path.parent().unwrap())).or_insert(0) += 1;
        }
    }
    counts.retain(|_, count| *count > 16);
    assert!(counts.is_empty(), "{counts:?}");
}

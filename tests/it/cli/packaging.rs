//! The parts around the program: completion, the manual, the configuration reference and the image.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keyhatch::model::Limits;

use crate::harness::{keyhatch, succeeded, text};

/// The commands below these, as help lists them.
fn commands_below(words: &[String]) -> Vec<String> {
    let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = text(&keyhatch(&arguments).output().unwrap().stdout);
    let Some(list) = help.split("Commands:\n").nth(1) else { return Vec::new() };
    let lines = list.split("\n\n").next().unwrap_or_default().lines();
    // A long entry continues on an indented line.
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

fn all_commands() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut next = vec![Vec::new()];
    while let Some(words) = next.pop() {
        for name in commands_below(&words) {
            next.push([words.clone(), vec![name]].concat());
        }
        all.push(words);
    }
    all
}

pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[test]
fn every_shell_completes_every_command() {
    let names = commands_below(&[]);
    assert!(names.len() > 20, "{names:?}");
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = keyhatch(&["completion", shell]).output().unwrap();
        assert!(script.status.success());
        let shown = text(&script.stdout);
        for name in &names {
            assert!(shown.contains(name), "{shell} does not know {name}");
        }
        let file = directory.path().join(shell);
        std::fs::write(&file, &shown).unwrap();
        if ["bash", "zsh", "fish"].contains(&shell) && is_installed(shell) {
            succeeded(&Command::new(shell).arg("-n").arg(&file).output().unwrap());
        }
    }
    let unknown = keyhatch(&["completion", "cmd"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn every_command_has_a_page_of_the_manual_that_is_well_formed() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("not/yet/there");
    succeeded(&keyhatch(&["man", "--out", out.to_str().unwrap()]).output().unwrap());
    let commands = all_commands();
    assert!(commands.len() > 60, "{commands:?}");
    for words in &commands {
        let name = [vec!["keyhatch".to_owned()], words.clone()].concat().join("-");
        let page = out.join(format!("{name}.1"));
        let shown = std::fs::read_to_string(&page).unwrap();
        assert!(shown.is_ascii(), "{name}: not every device has other signs");
        let is_leaf = !shown.contains("SUBCOMMANDS");
        for section in ["ENVIRONMENT", "FILES", "EXIT STATUS"] {
            assert!(shown.contains(&format!(".SH \"{section}\"")), "{name}: {section}");
        }
        assert!(!is_leaf || shown.contains("\n.SH EXAMPLES\n"), "{name}: no examples");
        if is_installed("groff") {
            let arguments = ["-K", "utf8", "-man", "-Tutf8", "-ww", "-z"];
            let read = Command::new("groff").args(arguments).arg(&page).output().unwrap();
            assert!(read.status.success() && read.stderr.is_empty(), "{}", text(&read.stderr));
        }
    }
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), commands.len());
    let own = text(&keyhatch(&["man"]).output().unwrap().stdout);
    assert!(own.contains(".TH keyhatch 1"), "{own}");
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = keyhatch(&["man", "--out", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

/// The cells of a table's row that begins with this one.
fn row<'a>(text: &'a str, cell: usize, content: &str) -> Vec<&'a str> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let mut rows = rows.map(|line| line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])));
    let found = rows.find(|cells| cells.clone().nth(cell) == Some(content));
    found.unwrap_or_else(|| panic!("no row of {content}: {text}")).collect()
}

#[test]
fn the_reference_has_every_configuration_key_and_default() {
    let shown = text(&keyhatch(&["config", "reference"]).output().unwrap().stdout);
    let limits = serde_json::to_value(Limits::default()).unwrap();
    for (name, default) in limits.as_object().unwrap() {
        let cells = row(&shown, 0, &format!("`{name}`"));
        assert_eq!(cells[1], default.to_string(), "{name}");
        assert!(cells[2].len() > 10, "{name} says what it bounds");
    }
    for key in keyhatch::config::file_keys() {
        if key == "limits" {
            assert!(shown.contains("`limits`"));
        } else {
            row(&shown, 2, &format!("`{key}`"));
        }
    }
    // The file accepts each key of the reference, and no other.
    let state = row(&shown, 2, "`state`");
    assert_eq!(state[..2], ["`--state`", "`KEYHATCH_STATE`"]);
    assert!(row(&shown, 2, "`runtime`")[4].contains("/run/keyhatch-broker"));
    assert_eq!(row(&shown, 2, "`journal`")[4], "`written`");
    let allow = row(&shown, 2, "`egress.allow`");
    assert!(allow[3].contains("http://HOST:PORT") && allow[5].contains("loopback"), "{allow:?}");
    let help = text(&keyhatch(&["serve", "--help"]).output().unwrap().stdout);
    for flag in help.split_whitespace().filter(|word| word.starts_with("--")) {
        let flag = flag.trim_end_matches([',', '.', ':', ']']);
        let is_common = ["--output", "--help", "--version"].contains(&flag);
        assert!(is_common || shown.contains(&format!("`{flag}`")), "{flag}");
    }
}

#[test]
fn the_image_is_built_from_existing_files_and_commands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let shown = read("Dockerfile");
    let mut copied = Vec::new();
    for line in shown.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        if !line.starts_with("--from=") {
            let words: Vec<_> = line.split_whitespace().collect();
            copied.extend(words[..words.len() - 1].iter().map(|word| (*word).to_owned()));
        }
    }
    let ignored = read(".dockerignore");
    let mut kept: Vec<_> =
        ignored.lines().filter_map(|line| line.strip_prefix('!')).map(str::to_owned).collect();
    assert!(copied.iter().all(|path| root.join(path).exists()), "{copied:?}");
    copied.sort();
    kept.sort();
    assert_eq!(copied, kept);
    assert!(ignored.lines().any(|line| line == "*"));
    let cargo: toml::Table = toml::from_str(&read(".cargo/config.toml")).unwrap();
    let build = cargo["alias"]["build-static"].as_array().unwrap();
    let is_locked = build.iter().any(|word| word.as_str() == Some("--locked"));
    assert!(shown.contains("RUN cargo build-static") && is_locked, "{build:?}");
    // cargo looks for the files of targets without a path, and the image does not have them.
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    for kind in ["bin", "test", "bench"] {
        let targets = manifest[kind].as_array().unwrap();
        assert!(targets.iter().all(|target| target.get("path").is_some()), "{kind}");
    }
    let words = |start: &str| -> Vec<String> {
        let line = shown.lines().find(|line| line.starts_with(start)).unwrap();
        serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap()
    };
    assert_eq!(words("ENTRYPOINT"), ["keyhatch"]);
    let health = words("HEALTHCHECK");
    assert_eq!(health[0], "keyhatch");
    for command in [words("CMD"), health[1..].to_vec()] {
        succeeded(&keyhatch(&[]).args(&command).arg("--help").output().unwrap());
    }
    let versions = |start: &str| -> Vec<&str> {
        let lines = shown.lines().filter(|line| line.starts_with(start));
        lines.filter(|line| line.contains("bookworm")).collect()
    };
    assert_eq!(versions("FROM ").len(), 2, "both stages are of one Debian, for its libc");
    assert!(shown.lines().any(|line| line.starts_with("USER ") && !line.contains("root")));
}

/// The probe ends by its own timeout, before the container runtime's.
#[test]
fn the_image_gives_a_probe_more_time_than_it_takes() {
    let shown = include_str!("../../../Dockerfile");
    let line = shown.lines().find(|line| line.starts_with("HEALTHCHECK")).unwrap();
    let given = line.split("--timeout=").nth(1).unwrap().split('s').next().unwrap();
    assert!(Duration::from_secs(given.parse().unwrap()) > Duration::from_secs(2));
}

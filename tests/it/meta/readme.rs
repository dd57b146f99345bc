//! Every command in the README is run.

use std::path::Path;
use std::process::Command;

use crate::harness::{ServeProcess, keyhatch_in, path_with_binary};
use crate::step::clients::installed;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).unwrap()
}

/// The fenced blocks of a language, with the info string's other words.
fn blocks(text: &str, language: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some((info.to_owned(), String::new())),
            (Some(_), Some(_)) => {
                let (info, body) = open.take().unwrap();
                if info.split_whitespace().next() == Some(language) {
                    found.push((info, body));
                }
            }
            (None, Some((_, body))) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// `sh` blocks run one after the other in one directory, as somebody who reads along would. The info
/// string says who runs them: `operator` (the default), or `step`, as a step of workflow deploy. Blocks
/// of `grpcurl` need that. Blocks of `setup` are the two commands that a fresh machine needs; CI runs those itself.
#[test]
fn every_shell_block_of_the_readme_runs() {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    let serving = ServeProcess::start(directory.path());
    let blocks = blocks(&readme(), "sh");
    assert!(blocks.len() >= 5, "the README has its commands in sh blocks");
    for (info, body) in blocks {
        if info.ends_with("setup") {
            continue;
        }
        let mut path = path_with_binary();
        if info.ends_with("grpcurl") {
            let Some(client) = installed("grpcurl") else { continue };
            let all = std::env::split_paths(&path).chain([client.join("bin")]);
            path = std::env::join_paths(all.collect::<Vec<_>>()).unwrap();
        }
        let mut command = match info.ends_with("step") {
            true => {
                let names =
                    ["step", "run", "--workflow", "deploy", "--run", "1", "--step", "build"];
                let mut command = keyhatch_in(directory.path(), &names);
                command.args(["--", "sh", "-euc", &body]);
                command
            }
            false => {
                let mut command = Command::new("sh");
                command.args(["-euc", &body]);
                command.env("KEYHATCH_STATE", directory.path().join("state"));
                command.env("KEYHATCH_RUNTIME", directory.path().join("run"));
                command
            }
        };
        command.current_dir(directory.path()).env("PATH", path);
        let ran = command.output().unwrap();
        assert!(
            ran.status.success(),
            "{body}\n{}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    assert!(serving.terminate());
}

#[test]
fn the_readmes_runner_stops_at_a_step_that_fails() {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    let serving = ServeProcess::start(directory.path());
    let blocks = blocks(&readme(), "sh");
    let (_, runner) = blocks.iter().find(|(_, body)| body.contains("close_run")).unwrap();
    // There is no connection, and the shell is not told to stop.
    let mut command = keyhatch_in(directory.path(), &[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", runner]).envs(
        command
            .env("PATH", path_with_binary())
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let ran = shell.output().unwrap();
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(!ran.status.success() && !told.contains("deploying"), "{told}");
    let shown = serving.run(&["run", "show", "44"]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("build") && !shown.contains("publish"), "{shown}");
}

#[test]
fn the_readme_names_the_two_commands_and_lists_every_command_there_is() {
    let text = readme();
    for command in ["cargo run --release -- dev", "tests/run"] {
        assert!(text.contains(command), "{command}");
    }
    let help = crate::harness::keyhatch(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for name in commands.lines().filter_map(|line| line.split_whitespace().next()) {
        assert!(name == "help" || text.contains(&format!("keyhatch {name}")), "keyhatch {name}");
    }
}

#[test]
fn the_readmes_links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for link in readme().split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let path = link.split('#').next().unwrap_or_default();
        assert!(path.starts_with("http") || path.is_empty() || root.join(path).exists(), "{link}");
    }
}

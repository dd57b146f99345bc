//! The sessions on a terminal in the README and in docs/ are what the commands print.
//!
//! A `console` block holds commands, each followed by what it prints. A command begins with `$ `, its further lines with
//! `> `. The test runs a block's commands in one shell, in a directory with a new broker. To write what they print now
//! into the documents, run the test with KEYHATCH_WRITE_DOCS=1 and read the difference.

use std::process::Command;

use regex_lite::{Captures, Regex};

use super::readme::{blocks, documents, read};
use crate::harness::{ServeProcess, path_with_binary, source};

/// The documents that show a session.
const WITH_SESSIONS: [&str; 2] = ["README.md", "docs/seeding.md"];
/// Stands before what the next command prints.
const MARK: &str = "@@@@";

/// The commands of a session.
fn commands(block: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut is_command = false;
    for line in block.lines() {
        match (line.strip_prefix("$ "), line.strip_prefix("> ")) {
            (Some(command), _) => commands.push(command.to_owned()),
            (None, Some(more)) if is_command => {
                let last = commands.last_mut().unwrap();
                last.push('\n');
                last.push_str(more);
            }
            _ => {
                is_command = false;
                continue;
            }
        }
        is_command = true;
    }
    commands
}

/// The text without its differences from run to run.
fn steady(text: &str) -> String {
    let moment = Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z").unwrap();
    let id = Regex::new(r"\b[0-9a-f]{32}([0-9a-f]{32})?\b").unwrap();
    // As wide as it was, so that columns stay in line.
    let steady_moment = |found: &Captures<'_>| match found.get(1) {
        Some(_) => "2026-11-22T10:00:00.000Z",
        None => "2026-11-22T10:00:00Z",
    };
    let text = moment.replace_all(text, steady_moment);
    id.replace_all(&text, "5f0c…").into_owned()
}

/// Widths of columns follow what is in them.
fn without_widths(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let mut words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.starts_with(' ') {
            words.insert(0, ' ');
        }
        words
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The session as it is now.
fn run(commands: &[String]) -> String {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    let serving = ServeProcess::start(directory.path());
    let work = directory.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let script: String =
        commands.iter().map(|command| format!("echo '{MARK}'\n{command}\n")).collect();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 2>&1\n{script}")]).current_dir(&work);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KEYHATCH_") {
            shell.env_remove(name);
        }
    }
    shell.env("PATH", path_with_binary());
    shell.env("KEYHATCH_STATE", directory.path().join("state"));
    shell.env("KEYHATCH_RUNTIME", directory.path().join("run"));
    let ran = shell.output().unwrap();
    assert!(serving.terminate());
    let printed = steady(&String::from_utf8(ran.stdout).unwrap());
    let mark = format!("{MARK}\n");
    let printed = printed.split(&mark).skip(1);
    let parts = commands.iter().zip(printed);
    let part = |(command, printed): (&String, &str)| {
        format!("$ {}\n{printed}", command.replace('\n', "\n> "))
    };
    parts.map(part).collect()
}

#[test]
fn the_sessions_of_the_documents_are_what_a_terminal_shows() {
    let writes = std::env::var_os("KEYHATCH_WRITE_DOCS").is_some();
    for document in WITH_SESSIONS {
        let mut text = read(document);
        let fence = "```console\n";
        let starts: Vec<usize> =
            text.match_indices(fence).map(|(at, _)| at + fence.len()).collect();
        assert!(!starts.is_empty(), "{document} shows a session");
        for start in starts.into_iter().rev() {
            let end = start + text[start..].find("```\n").unwrap();
            let shown = text[start..end].to_owned();
            let now = run(&commands(&shown));
            match writes {
                true => text.replace_range(start..end, &now),
                false => assert_eq!(without_widths(&now), without_widths(&shown), "{now}"),
            }
        }
        if writes {
            std::fs::write(source(document), text).unwrap();
        }
    }
}

#[test]
fn every_session_is_compared() {
    for document in documents() {
        let has_session = blocks(&read(&document)).iter().any(|one| one.language == "console");
        assert_eq!(has_session, WITH_SESSIONS.contains(&document.as_str()), "{document}");
    }
}

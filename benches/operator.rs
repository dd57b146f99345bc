//! The waiting time of an operator: `apply`, `diff`, `export`, `connection list` and `check` as whole processes.
//!
//! `cargo bench --bench operator`. README.md in this directory explains each row.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures by the machine's own clock, fails by panicking, and prints its results"
)]
mod common;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Daemon, Spread};

/// The documents of one apply.
const DOCUMENTS: usize = 10_000;
/// The connections at the end.
const CONNECTIONS: usize = 100_000;
/// The checked workflow files.
const FILES: usize = 1000;
/// The rounds of commands that change nothing.
const ROUNDS: usize = 7;

fn main() {
    let daemon = Daemon::start();
    let directory = tempfile::tempdir().unwrap();
    let seeds = directory.path().join("seeds.yaml");
    let run = |arguments: &[&str]| {
        let begin = Instant::now();
        let ran = keyhatch(&daemon, arguments).stdout(Stdio::piped()).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        begin.elapsed()
    };
    let seed = seeds.to_str().unwrap();
    std::fs::write(&seeds, documents(0)).unwrap();
    println!("whole processes: wall time, the middle of {ROUNDS}, least and most");
    print("apply of 10,000 new documents, once", &[run(&["apply", "-f", seed])]);
    let rows = [
        ("apply of 10,000 unchanged documents", vec!["apply", "-f", seed]),
        // The daemon compares sensitive values at most ten times a minute.
        ("diff of 10,000 unchanged documents", vec!["diff", "-f", seed]),
        ("export of 10,000 connections", vec!["export"]),
    ];
    for (name, arguments) in &rows {
        let times: Vec<_> = (0..ROUNDS).map(|_| run(arguments)).collect();
        print(name, &times);
    }
    for first in (DOCUMENTS..CONNECTIONS).step_by(DOCUMENTS) {
        std::fs::write(&seeds, documents(first)).unwrap();
        run(&["apply", "-f", seed]);
    }
    let list = ["connection", "list"];
    let whole: Vec<_> = (0..ROUNDS).map(|_| run(&list)).collect();
    let first: Vec<_> = (0..ROUNDS).map(|_| first_line(&daemon, &list)).collect();
    print("connection list of 100,000, to its end", &whole);
    print("connection list of 100,000, to its first line", &first);
    write_workflows(directory.path());
    let files = directory.path().join("workflows");
    let checked: Vec<_> = (0..ROUNDS).map(|_| run(&["check", files.to_str().unwrap()])).collect();
    print("check of 1,000 workflow files with 4 references each", &checked);
}

fn keyhatch(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyhatch"));
    command.args(arguments).env("KEYHATCH_STATE", daemon.state()).stdin(Stdio::null());
    command
}

fn first_line(daemon: &Daemon, arguments: &[&str]) -> Duration {
    let begin = Instant::now();
    let mut child = keyhatch(daemon, arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let time = begin.elapsed();
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
    time
}

/// Documents of connections from this number on.
fn documents(first: usize) -> String {
    let mut text = String::new();
    for number in first..first + DOCUMENTS {
        write!(
            text,
            "---\napiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: c{number:06}, tags: {{env: \
             e{number}}}, labels: {{team: t}}}}\nspec:\n  integration: aws\n  fields: {{access_key_id: \
             AKIA{number}, secret_access_key: \"not-a-real-secret-{number}\"}}\n  access: {{resolver: \
             [\"workflow:*\"]}}\n"
        )
        .unwrap();
    }
    text
}

/// Writes workflow files that refer to existing connections.
fn write_workflows(directory: &Path) {
    let workflows = directory.join("workflows");
    std::fs::create_dir(&workflows).unwrap();
    for number in 0..FILES {
        let name = |offset: usize| format!("c{:06}", (number * 97 + offset) % CONNECTIONS);
        let text = format!(
            "parameters: {{region: {{default: eu}}}}\nsteps:\n- name: build\n  image: example/build\n  spec:\n    \
             aws: &aws\n      connection: !Connection {{type: aws, name: {}}}\n      region: !Parameter region\n    \
             other: ${{connections.aws.'{}'}}\n  input:\n  - echo ${{SHELL}}\n- name: test\n  image: \
             example/test\n  spec:\n    aws: *aws\n    third: {{$type: Connection, type: aws, name: {}}}\n    \
             fourth: !Connection [aws, {}]\n",
            name(0),
            name(1),
            name(2),
            name(3),
        );
        std::fs::write(workflows.join(format!("w{number:04}.yaml")), text).unwrap();
    }
}

fn print(name: &str, times: &[Duration]) {
    let times = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    println!("  {name}: {}", Spread::of(times, " ms"));
}

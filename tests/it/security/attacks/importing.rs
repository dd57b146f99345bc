//! A foreign file takes nothing from its reader beyond what the reader allows.

use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value as Json;

use crate::harness::{Steps, keyhatch, keyhatch_in, succeeded};

/// A part of values that nobody may get.
const CANARY: &str = "c4n4ry";

fn world() -> Steps {
    Steps::seeded(
        "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: prod}\nspec:\n  integration: aws\n  \
         fields: {access_key_id: AKIA, secret_access_key: c4n4ry}\n  access: {resolver: ['workflow:deploy']}\n",
    )
}

/// Runs an operator's command on a file.
fn on_file(world: &Steps, content: &str, before: &[&str], after: &[&str]) -> Output {
    let path = world.path("given.yaml");
    std::fs::write(&path, content).unwrap();
    let arguments = [before, &[path.to_str().unwrap()], after].concat();
    let mut command = keyhatch_in(world.directory.path(), &arguments);
    command.env("KH_CANARY", CANARY).output().unwrap()
}

fn said(ran: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
}

fn refused(ran: &Output, words: &[&str]) {
    let said = said(ran);
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    assert!(!said.contains(CANARY), "{said}");
}

fn names(world: &Steps) -> String {
    let listed = world.serving.run(&["connection", "list", "-o", "name"]);
    let secrets = world.serving.run(&["secret", "list", "--workflow", "evil", "-o", "name"]);
    said(&listed) + &said(&secrets)
}

#[test]
fn import_takes_texts_and_nothing_of_the_importer() {
    let world = world();
    let before = names(&world);
    let import = |content: &str| {
        let after = ["--workflow", "evil", "--yes"];
        on_file(&world, content, &["import", "--from", "relay"], &after)
    };
    std::fs::write(world.path("key"), CANARY).unwrap();
    for (content, place) in [
        ("secrets:\n  loot: {fromFile: key}\n", "given.yaml:2:"),
        ("secrets:\n  a: b\n  loot: {fromEnv: KH_CANARY}\n", "given.yaml:3:"),
        ("connections:\n  http/x:\n    base_url: {fromEnv: KH_CANARY}\n", "given.yaml:3:"),
        ("connections:\n  aws/prod:\n    accessKeyID: {keep: true}\n", "given.yaml:3:"),
    ] {
        refused(&import(content), &[place, "seed files", "apply -f"]);
    }
    let hand_over = "connections: {}\n---\napiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: prod}\n\
                     spec:\n  integration: aws\n  access: {resolver: ['workflow:evil']}\n";
    let seed_file = "this is a seed file: keyhatch apply -f FILE";
    refused(&import(hand_over), &["given.yaml:3:", seed_file]);
    refused(&import("apiVersion: keyhatch/v1\nconnections: {}\n"), &["given.yaml:1:", seed_file]);
    let kubernetes = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a: {fromEnv: KH_CANARY}}\n";
    let from = ["import", "--from", "kubernetes-secret"];
    refused(&on_file(&world, kubernetes, &from, &["--workflow", "evil", "--yes"]), &["line 4"]);
    assert_eq!(names(&world), before);
}

#[test]
fn applied_files_read_below_their_directory_alone() {
    let world = world();
    std::fs::create_dir(world.path("seeds")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(world.path(name), text).unwrap();
    let secret_of = |path: &str| format!("secrets: {{s: {{fromFile: '{path}'}}}}\n");
    write("outside", CANARY);
    write("seeds/inside", "fine");
    write("seeds/large", &"x".repeat(64 * 1024 + 1));
    let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, world.path(name)).unwrap();
    link(Path::new("inside"), "seeds/to-inside");
    link(Path::new("../outside"), "seeds/to-outside");
    link(world.directory.path(), "seeds/up");
    let apply = |path: &str, more: &[&str]| {
        write("seeds/seed.yaml", &secret_of(path));
        let seed = world.path("seeds/seed.yaml");
        let arguments = ["apply", "-f", seed.to_str().unwrap(), "--workflow", "evil"];
        world.serving.run(&[&arguments[..], more].concat())
    };
    let outside = world.path("outside");
    let outside = outside.to_str().unwrap();
    for path in
        ["../outside", outside, "to-outside", "up/outside", "/proc/self/environ", "/dev/zero"]
    {
        refused(&apply(path, &[]), &["seed.yaml:1:", "fromFile names", "--allow-file"]);
        refused(&apply(path, &["--dry-run"]), &["--allow-file"]);
        // Allowing another file changes nothing.
        refused(&apply(path, &["--allow-file", "/etc/hostname"]), &["--allow-file"]);
    }
    refused(&apply("large", &[]), &["more than 65536 bytes"]);
    refused(&apply(".", &[]), &["not a regular file"]);
    for path in ["inside", "to-inside", "../seeds/../seeds/inside"] {
        let ran = apply(path, &[]);
        assert_eq!(ran.status.success(), !path.starts_with(".."), "{path}: {}", said(&ran));
    }
    for path in ["../outside", outside, "to-outside"] {
        succeeded(&apply(path, &["--allow-file", outside]));
    }
    // A seed from stdin lies in no directory.
    let seed = world.path("seeds/seed.yaml");
    let script = "cd seeds && \"$0\" apply -f - --workflow evil < \"$1\"";
    write("seeds/seed.yaml", &secret_of("inside"));
    let mut shell = keyhatch_in(world.directory.path(), &[]);
    let binary = shell.get_program().to_owned();
    let environment: Vec<_> = shell
        .get_envs()
        .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
        .collect();
    shell = Command::new("sh");
    shell.args(["-c", script]).arg(binary).arg(&seed).current_dir(world.directory.path());
    shell.envs(environment.into_iter().filter_map(|(name, value)| Some((name, value?))));
    refused(&shell.output().unwrap(), &["stdin:1:", "--allow-file"]);
}

#[test]
fn applied_files_read_only_variables_that_are_allowed() {
    let world = world();
    let seed = "secrets: {s: {fromEnv: KH_CANARY}}\n";
    let run = |command: &str, more: &[&str]| {
        on_file(&world, seed, &[command, "-f"], &[&["--workflow", "evil"], more].concat())
    };
    for command in ["apply", "diff"] {
        refused(
            &run(command, &[]),
            &["given.yaml:1:", "fromEnv names KH_CANARY", "--allow-env KH_CANARY"],
        );
        refused(&run(command, &["--allow-env", "KH"]), &["--allow-env KH_CANARY"]);
    }
    for allowed in ["KH_CANARY", "*"] {
        succeeded(&run("apply", &["--allow-env", allowed]));
    }
    // The broker of `dev` belongs to the user of these files.
    let ran = keyhatch(&["dev", "-f", world.path("given.yaml").to_str().unwrap(), "--", "true"])
        .env("KH_CANARY", CANARY)
        .output();
    succeeded(&ran.unwrap());
}

#[test]
fn commands_read_only_regular_files_of_a_broker() {
    let world = world();
    let pipe = world.path("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let state = world.path("restored");
    for file in [pipe.to_str().unwrap(), "/dev/zero"] {
        for arguments in [
            &["serve", "--config", file][..],
            &["restore", file, "--state", state.to_str().unwrap()],
            &["journal", "verify", "--ca", file],
        ] {
            let ran = world.serving.run(arguments);
            assert!(!ran.status.success(), "{arguments:?}");
            assert!(said(&ran).contains("not a regular file"), "{arguments:?}: {}", said(&ran));
        }
    }
}

#[test]
fn a_pipe_or_a_device_is_no_input_file() {
    let world = world();
    let pipe = world.path("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let pipe = pipe.to_str().unwrap();
    std::fs::write(world.path("seed.yaml"), "secrets: {s: {fromFile: pipe}}\n").unwrap();
    let seed = world.path("seed.yaml");
    let seed = seed.to_str().unwrap();
    for file in [pipe, "/dev/zero"] {
        let at = format!("@{file}");
        let field = format!("api_token=@{file}");
        for arguments in [
            &["import", "--from", "relay", file, "--workflow", "evil"][..],
            &["import", "--from", "env", file, "--workflow", "evil"],
            &["apply", "-f", file],
            &["apply", "-f", seed, "--workflow", "evil", "--allow-file", file],
            &["diff", "-f", file],
            &["dev", "-f", file, "--", "true"],
            &["secret", "put", "--workflow", "evil", "s", "--value", &at],
            &["connection", "create", "slack/x", "--field", &field],
            &["operator", "add", "x", "--role", "viewer", "--csr", file],
            &["check", "--offline", file],
        ] {
            let ran = world.serving.run(arguments);
            assert!(!ran.status.success(), "{arguments:?}");
            assert!(said(&ran).contains("not a regular file"), "{arguments:?}: {}", said(&ran));
        }
        let exec = ["exec", "--serve", "relay", "--spec", file, "--", "true"];
        let ran = world.run("keyhatch", &exec);
        assert!(said(&ran).contains("not a regular file"), "{}", said(&ran));
    }
}

#[test]
fn an_import_of_an_answer_is_bounded_from_stdin_too() {
    let world = world();
    let arguments = ["secret", "put", "--workflow", "evil", "s"];
    let mut command = keyhatch_in(world.directory.path(), &arguments);
    command.stdin(std::fs::File::open("/dev/zero").unwrap());
    let ran = command.output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(said(&ran).contains("TOO_LARGE: s: more than 65536 bytes"), "{}", said(&ran));
    let listed = world.serving.run(&["secret", "list", "--workflow", "evil", "-o", "json"]);
    assert_eq!(serde_json::from_slice::<Json>(&listed.stdout).unwrap(), serde_json::json!([]));
}

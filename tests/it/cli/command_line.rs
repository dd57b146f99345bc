//! The program as people and scripts use it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{ServeProcess, keyhatch, keyhatch_in, path_with_binary, succeeded, temp_dir};

/// A sample of Relay's format.
const RELAY: &str = "\
connections:
  aws/test:
    accessKeyID: AKIAIOSFODNN7EXAMPLE
    secretAccessKey: not-a-real-secret
secrets:
  hello: world
runs:
  '1':
    steps:
      default:
        spec:
          aws: !Connection [aws, test]
";

fn dev(seed: &str, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("seed.yaml");
    std::fs::write(&file, seed).unwrap();
    let mut command = keyhatch(&["dev", "-f", file.to_str().unwrap(), "--"]);
    command.args(arguments).env("PATH", path_with_binary()).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn dev_runs_a_command_as_a_step_that_gets_what_was_seeded() {
    let got = dev(RELAY, &["keyhatch", "get", "aws/test", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&got.stdout).unwrap();
    assert_eq!(json["connection"], "aws/test");
    assert_eq!(json["integration"], "aws");
    assert_eq!(json["kind"], "access_key");
    assert_eq!(json["version"], 1);
    assert_eq!(
        json["fields"],
        serde_json::json!({
            "access_key_id": "AKIAIOSFODNN7EXAMPLE",
            "secret_access_key": "not-a-real-secret",
        })
    );
    assert!(json["lease"]["name"].as_str().unwrap().starts_with("leases/"));
    assert!(json["lease"]["expire_time"].is_string());
    assert!(stderr(&got).contains("runs: is ignored"));
}

#[test]
fn get_prints_a_single_field_under_either_name() {
    for name in ["accessKeyID", "access_key_id"] {
        let got = dev(RELAY, &["keyhatch", "get", "aws/test", "--field", name]);
        assert_eq!(stdout(&got), "AKIAIOSFODNN7EXAMPLE");
    }
    let got = dev(RELAY, &["keyhatch", "get", "secret:hello", "--format", "raw"]);
    assert_eq!(stdout(&got), "world");
}

#[test]
fn get_env_is_safe_for_a_shell_to_evaluate() {
    let seed = "connections:\n  generic/a:\n    odd: \"it's $HOME `x` \\\"q\\\"\\nline two\"\n";
    let script = "eval \"$(keyhatch get generic/a --format env)\" && printf %s \"$GENERIC_ODD\"";
    let got = dev(seed, &["sh", "-c", script]);
    assert_eq!(stdout(&got), "it's $HOME `x` \"q\"\nline two", "{}", stderr(&got));
}

#[test]
fn exec_sets_the_environment_and_becomes_the_command() {
    let script = "printf '%s ' \"$AWS_ACCESS_KEY_ID\" \"$AWS_SECRET_ACCESS_KEY\" \"$P_ACCESS_KEY_ID\" \"$ONE\" \"$S\"; exit 7";
    let ran = dev(
        RELAY,
        &[
            "keyhatch",
            "exec",
            "--no-mask",
            "--env",
            "aws/test",
            "--env",
            "P=aws/test",
            "--env",
            "ONE=aws/test:secretAccessKey",
            "--env",
            "S=secret:hello",
            "--",
            "sh",
            "-c",
            script,
        ],
    );
    assert_eq!(
        stdout(&ran),
        "AKIAIOSFODNN7EXAMPLE not-a-real-secret AKIAIOSFODNN7EXAMPLE not-a-real-secret world "
    );
    assert_eq!(ran.status.code(), Some(7));
}

#[test]
fn exit_codes_are_the_commands_own_or_tell_what_stopped_it() {
    let code = |arguments: &[&str]| dev(RELAY, arguments).status.code();
    assert_eq!(code(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(&["sh", "-c", "kill -TERM $$"]), Some(128 + 15));
    assert_eq!(code(&["no-such-program-anywhere"]), Some(127));
    assert_eq!(code(&["/"]), Some(126));
    let exec = |what, program| code(&["keyhatch", "exec", "--env", what, "--", program]);
    assert_eq!(exec("aws/test", "true"), Some(0));
    assert_eq!(exec("aws/nothere", "true"), Some(125));
    assert_eq!(exec("aws/test", "no-such-program-anywhere"), Some(127));
    let unreachable =
        keyhatch(&["get", "aws/x"]).env("KEYHATCH_DIR", "/nonexistent").output().unwrap();
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(stderr(&unreachable).contains("IDENTITY_MISSING"));
}

#[test]
fn dev_cleans_up_and_does_not_let_an_outer_identity_through() {
    let mut command = keyhatch(&[
        "dev",
        "--",
        "sh",
        "-c",
        "echo $KEYHATCH_DIR; env | grep -c ^KEYHATCH_; keyhatch whoami -o name",
    ]);
    let ran = command
        .env("KEYHATCH_LEFTOVER", "x")
        .env("KEYHATCH_ADDR", "unix:///outer")
        .env("PATH", path_with_binary())
        .output()
        .unwrap();
    let lines: Vec<_> = stdout(&ran).lines().collect();
    assert!(!Path::new(lines[0]).exists(), "{} is still there", lines[0]);
    assert_eq!(lines[1], "6");
    assert_eq!(lines[2], "spiffe://keyhatch.local/workflow/dev/run/1/step/step");
}

#[test]
fn the_tour_shows_masked_values_a_refusal_and_what_to_type_next() {
    let mut command = keyhatch(&["dev"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = Vec::new();
    let mut tour = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    for line in tour.by_ref() {
        let is_last = line.contains("Ctrl-C");
        lines.push(line);
        if is_last {
            break;
        }
    }
    let text = lines.join("\n");
    assert!(text.contains("secret_access_key = ********") && !text.contains("not-a-real-secret"));
    assert!(text.contains("RESOLVE_DENIED"));
    let has = |start: &str, end: &str| {
        lines.iter().any(|line| line.trim().starts_with(start) && line.trim().ends_with(end))
    };
    assert!(has("aws/sample version 2 reached the step ", " ms after the operator sent it"));
    assert!(has("closed; 2 lease(s) revoked", "") && has("whoami: STEP_NOT_OPEN: ", ""), "{text}");
    assert!(has("step  1        aws/sample  2 ", " revoked"), "{text}");
    assert!(has("journal verify: line ", "it was changed after it was written"), "{text}");
    let export = lines.iter().find_map(|line| line.trim().strip_prefix("export KEYHATCH_DIR="));
    let got = keyhatch(&["get", "aws/sample", "--field", "region"])
        .env("KEYHATCH_DIR", export.unwrap())
        .output()
        .unwrap();
    assert_eq!(stdout(&got), "eu-west-1");
    // Every proposed command works.
    for line in lines.iter().filter(|line| line.trim().starts_with("KEYHATCH_DIR=")) {
        succeeded(&Command::new("sh").args(["-c", line.trim()]).output().unwrap());
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!Path::new(export.unwrap()).exists());
}

#[test]
fn an_executor_opens_lists_runs_and_closes_steps() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let names = ["--workflow", "deploy", "--run", "42", "--step", "build"];
    let with = |first: &[&str], last: &[&str]| {
        let arguments: Vec<_> = [first, &names, last].concat();
        serving.run(&arguments)
    };
    let opened = with(&["step", "open"], &["-o", "json"]);
    let opened: serde_json::Value = serde_json::from_slice(&opened.stdout).unwrap();
    for key in ["directory", "spiffe_id", "env", "expire_time", "opening"] {
        assert!(!opened[key].is_null(), "{key}");
    }
    assert_eq!(opened["spiffe_id"], "spiffe://keyhatch.local/workflow/deploy/run/42/step/build");
    let listed = serving.run(&["step", "list"]);
    assert!(stdout(&listed).contains("deploy"), "{}", stdout(&listed));
    assert!(stdout(&with(&["step", "renew"], &[])).starts_with("open until "));
    let id = opened["opening"].as_str().unwrap().trim_start_matches("openings/");
    assert!(stdout(&serving.run(&["step", "renew", id])).starts_with("open until "));
    assert_eq!(serving.run(&["step", "close"]).status.code(), Some(2));
    let closed = serving.run(&["step", "close", opened["opening"].as_str().unwrap()]);
    assert_eq!(stdout(&closed), "closed; 0 lease(s) revoked\n");
    let closed = serving.run(&["run", "close", "nope"]);
    assert_eq!((closed.status.code(), stdout(&closed)), (Some(1), ""));
    assert!(stderr(&closed).contains("executor:local has no run nope"), "{}", stderr(&closed));
    assert!(stdout(&with(&["step", "close"], &[])).contains("nothing to close"));

    let script = "keyhatch whoami -o name; exit 3";
    let mut run = keyhatch_in(directory.path(), &["step", "run"]);
    run.args(names).args(["--", "sh", "-c", script]).env("PATH", path_with_binary());
    let ran = run.output().unwrap();
    assert_eq!(stdout(&ran), "spiffe://keyhatch.local/workflow/deploy/run/42/step/build\n");
    assert_eq!(ran.status.code(), Some(3));
    let mounted = with(&["step", "run"], &["--", "echo", "-v", "{mount}", "{env-file}", "${env}"]);
    let steps = directory.path().join("run/steps");
    let text = stdout(&mounted).trim();
    let words: Vec<&str> = text.split(' ').collect();
    assert!(words[1].starts_with(&*steps.to_string_lossy()), "{text}");
    assert!(words[1].ends_with(":/run/keyhatch:ro"), "{text}");
    let of_directory = words[1].trim_end_matches(":/run/keyhatch:ro");
    assert_eq!(words[2..], [format!("{of_directory}/env").as_str(), "${env}"]);
    // The command reports a step that was closed while it ran.
    let script = "KEYHATCH_DIR=$STATE/executors/local keyhatch run close 42";
    let mut run = keyhatch_in(directory.path(), &["step", "run"]);
    run.args(names).args(["--", "sh", "-c", script]).env("PATH", path_with_binary());
    run.env("STATE", directory.path().join("state"));
    let closed = run.output().unwrap();
    let told = String::from_utf8_lossy(&closed.stderr).into_owned();
    assert!(closed.status.success() && told.contains("had ended before its command did"), "{told}");
    assert_eq!(stdout(&serving.run(&["step", "list"])), "no open steps\n");
}

#[test]
fn signals_reach_the_command_and_the_step_is_closed_after_it() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    // The script waits for a line that never comes, and leaves nothing running.
    let script = "trap 'echo caught; exit 9' TERM; echo ready; read -r line; exit 1";
    let mut child = keyhatch_in(
        directory.path(),
        &["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--", "sh", "-c", script],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "ready");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(lines.next().unwrap(), "caught");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert_eq!(stdout(&serving.run(&["step", "list"])), "no open steps\n");
}

fn run_with_stdin(directory: &Path, arguments: &[&str], input: &[u8]) -> bool {
    let mut command = keyhatch_in(directory, arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
    child.wait().unwrap().success()
}

#[test]
fn values_come_from_files_as_bytes_or_from_stdin_as_a_line() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let token = directory.path().join("token");
    std::fs::write(&token, "from-a-file\n").unwrap();
    let field = format!("api_token=@{}", token.display());
    let create = |reference: &'static str, field| {
        ["connection", "create", reference, "--field", field, "--resolver", "workflow:w"]
    };
    let created = serving.run(&create("slack/file", &field));
    assert_eq!(stdout(&created), "slack/file created\n", "{}", stderr(&created));
    assert!(run_with_stdin(
        directory.path(),
        &create("slack/stdin", "api_token=-"),
        b"from-stdin\n"
    ));
    let script =
        "keyhatch get slack/file --field api_token; keyhatch get slack/stdin --field api_token";
    let mut run = keyhatch_in(
        directory.path(),
        &["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--", "sh", "-c", script],
    );
    let ran = run.env("PATH", path_with_binary()).output().unwrap();
    assert_eq!(stdout(&ran), "from-a-file\nfrom-stdin");
}

#[test]
fn an_operator_manages_secrets_and_never_sees_one() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let put = ["secret", "put", "--workflow", "w", "token"];
    assert!(run_with_stdin(directory.path(), &put, b"one\n"));
    assert!(run_with_stdin(directory.path(), &put, b"two\n"));
    let literal = serving.run(&["secret", "put", "--workflow", "w", "x", "--value", "hunter2"]);
    assert!(!literal.status.success() && !stderr(&literal).contains("hunter2"));
    let listed = serving.run(&["secret", "list", "--workflow", "w"]);
    assert!(stdout(&listed).contains("token") && stdout(&listed).contains('2'));
    let get = || {
        let names = ["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--"];
        let mut run = keyhatch_in(directory.path(), &names);
        run.args(["keyhatch", "get", "secret:token"]).args(["--format", "raw"]);
        run.env("PATH", path_with_binary()).output().unwrap()
    };
    assert_eq!(stdout(&get()), "two");
    serving.must(&["secret", "delete", "--workflow", "w", "token", "--yes"]);
    assert!(stderr(&get()).contains("SECRET_NOT_FOUND"));
    assert_eq!(stdout(&serving.run(&["secret", "list", "--workflow", "w"])), "no secrets\n");
}

#[test]
fn an_operator_shows_lists_and_deletes_connections() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    for reference in ["slack/one", "slack/two"] {
        let create = ["connection", "create", reference, "--field", "api_token=-"];
        assert!(run_with_stdin(directory.path(), &create, b"not-to-be-seen"));
    }
    let shown = serving.run(&["connection", "get", "slack/one"]);
    assert!(stdout(&shown).contains("(sensitive)") && !stdout(&shown).contains("not-to-be-seen"));
    let names = || serving.run(&["connection", "list", "-o", "name"]);
    assert_eq!(stdout(&names()), "slack/one\nslack/two\n");
    let unasked = serving.run(&["connection", "delete", "slack/one"]);
    assert!(!unasked.status.success() && stderr(&unasked).contains("--yes"));
    serving.must(&["connection", "delete", "slack/one", "--yes"]);
    assert_eq!(stdout(&names()), "slack/two\n");
    let status = serving.run(&["status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["state"], &status["connections"]), (&"serving".into(), &1.into()));
    assert_eq!(stdout(&serving.run(&["status", "-o", "name"])), "serving\n");
    let shown = |name: &str| serving.must(&["integration", "get", name]);
    assert!(shown("aws").contains("AWS_ACCESS_KEY_ID") && !shown("aws").contains("keyhatch send"));
    let github = shown("github");
    for sent in [
        "{{ api_url }}, or https://api.github.com",
        "Authorization: Bearer {{ access_token }}",
        "https://github.com; nothing with api_url",
        "Authorization: Basic x-access-token:{{ access_token }}",
        "GITHUB_API_URL",
    ] {
        assert!(github.contains(sent), "{sent}: {github}");
    }
    assert!(shown("http").contains("its headers, URL parameters and body; its client certificate"));
    let json = serving.must(&["integration", "get", "jira", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let basic = &json["kinds"][0]["sends"][0]["basic"];
    assert_eq!(basic["password"], "{{ password }}", "{json}");
    assert!(stdout(&serving.run(&["integration", "list"])).contains("slack"));
}

//! `keyhatch send`.

use std::io::Write as _;
use std::process::Stdio;

use super::World;
use crate::harness::{UPSTREAM_TOKEN, text};

#[test]
fn send_prints_the_answer_and_the_step_gets_no_value() {
    let Some(world) = World::start() else { return };
    let echo = ["send", "http/api", "GET", "/echo?page=2"];
    assert_eq!(world.steps.text(&echo), "GET /api/echo?page=2 Bearer ***\n");
    let refused = world.steps.refusal(&["get", "http/api"]);
    assert_eq!(refused.0, Some(1));
    assert!(refused.1.contains("RESOLVE_DENIED"), "{}", refused.1);
    let head = world.steps.text(&["send", "-i", "http/api", "GET", "/moved"]);
    assert!(head.starts_with("HTTP/1.1 302 Found\r\n"), "{head}");
    assert!(head.contains("\r\nlocation: https://elsewhere.example/\r\n"), "{head}");
    // The step's own header does not win.
    let own = ["send", "-H", "Authorization: Bearer mine", "http/api", "GET", "/echo"];
    assert_eq!(world.steps.text(&own), "GET /api/echo Bearer ***\n");
}

#[test]
fn a_body_comes_from_the_command_line_a_file_or_stdin() {
    let Some(world) = World::start() else { return };
    let content: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    std::fs::write(world.steps.path("content"), &content).unwrap();
    let put = |data: &str, name: &str, stdin: &[u8]| {
        let path = format!("/files/{name}");
        let send = ["send", "--fail", "http/api", "PUT", &path, "--data", data];
        let mut command = world.steps.command("keyhatch", &send);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        assert!(child.wait().unwrap().success(), "{data}");
        std::fs::read(world.nginx.files().join(name)).unwrap()
    };
    assert_eq!(put("-dashed", "text", b""), b"-dashed");
    assert!(put("@content", "file", b"") == content);
    assert!(put("-", "stdin", &content) == content);
    let out = ["send", "http/api", "GET", "/files/file", "--out", "answer"];
    assert_eq!(world.steps.text(&out), "");
    assert!(std::fs::read(world.steps.path("answer")).unwrap() == content);
}

#[test]
fn send_fails_by_the_status_only_if_it_is_told_to() {
    let Some(world) = World::start() else { return };
    let missing = ["send", "http/api", "GET", "/files/missing"];
    assert!(world.steps.text(&missing).contains("404"));
    let (code, said) = world.steps.refusal(&[&missing[..], &["--fail"]].concat());
    assert_eq!(code, Some(1));
    assert!(said.contains("HTTP_STATUS") && said.contains("404"), "{said}");
}

#[test]
fn send_says_what_it_refuses_and_what_comes_next() {
    let Some(world) = World::start() else { return };
    for (arguments, code, parts) in [
        (&["send", "secret:token", "GET", "/"][..], 2, ["USAGE", "name a connection"]),
        (&["send", "http/none", "GET", "/echo"], 1, ["RESOLVE_DENIED", "keyhatch explain"]),
        (&["send", "http/api", "GET", "/../git/"], 1, ["SEND_INVALID", "path"]),
        (&["send", "http/api", "CONNECT", "/echo"], 1, ["SEND_INVALID", "CONNECT"]),
        (&["send", "http/api", "GET", "/echo", "-H", "Host: other"], 1, ["SEND_INVALID", "host"]),
        (&["send", "http/api", "PUT", "/files/a", "--data", "@missing"], 2, ["FILE", "missing"]),
        (&["send", "http/api", "GET", "/echo", "-H", "nothing"], 2, ["USAGE", "NAME: VALUE"]),
    ] {
        let (found, said) = world.steps.refusal(arguments);
        assert_eq!(found, Some(code), "{said}");
        let said = said.to_lowercase();
        for part in parts {
            assert!(said.contains(&part.to_lowercase()), "{part}: {said}");
        }
    }
    assert!(!world.nginx.asked().contains("git"), "{}", world.nginx.asked());
}

#[test]
fn a_reader_that_leaves_ends_the_exchange() {
    let Some(world) = World::start() else { return };
    let file = std::fs::File::create(world.nginx.files().join("large")).unwrap();
    file.set_len(256 * 1024 * 1024).unwrap();
    let script = "keyhatch send http/api GET /files/large | head -c 1000 | wc -c";
    let ran = world.steps.run("sh", &["-euc", script]);
    assert_eq!(text(&ran.stdout).trim(), "1000", "{}", text(&ran.stderr));
    assert!(!text(&ran.stderr).contains(UPSTREAM_TOKEN));
}

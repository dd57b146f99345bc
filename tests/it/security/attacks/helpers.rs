//! A credential helper answers only for its `--answer` addresses, not for a path that a proxy rewrites.

use std::process::Output;

use crate::harness::{Steps, connection, text};
use crate::step::helpers::asked;

const ANSWERS: &str = "github.com/org/repo=github/main;registry.example:5000=docker-registry/main;http://127.0.0.1:5000=docker-registry/main";

fn world() -> Steps {
    let login = [("server", "registry.example:5000"), ("username", "u"), ("password", "hush")];
    let token = [("access_token", "not-a-real-token")];
    Steps::seeded(
        &[connection("github", "main", &token), connection("docker-registry", "main", &login)]
            .concat(),
    )
}

fn ask(world: &Steps, tool: &str, question: &str) -> Output {
    asked(world.command("keyhatch", &["helper", tool, "get"]), ANSWERS, question)
}

#[test]
fn git_gets_nothing_for_a_path_that_leads_out_of_its_answer() {
    let world = world();
    let git = |host: &str, path: &str| {
        ask(&world, "git", &format!("protocol=https\nhost={host}\npath={path}\n\n"))
    };
    for path in [
        "org/repo/../../evil/y.git",
        "org/repo/./../../evil/y.git",
        "org/repo/..",
        "org/repo/%2e%2e/%2e%2e/evil/y.git",
        "org/repo/..%2f../evil/y.git",
        "org/repo/..;/..;/evil/y.git",
        "org/repo/..\\..\\evil\\y.git",
        "org/repo//y.git",
        "org/repo/\u{1}/y.git",
        "org/repo?/../../evil/y.git",
        "org/repo#/../../evil/y.git",
    ] {
        let ran = git("github.com", path);
        assert_eq!(text(&ran.stdout), "quit=1\n", "{path}");
        assert!(
            text(&ran.stderr).contains("error: PATH_REFUSED: "),
            "{path}: {}",
            text(&ran.stderr)
        );
    }
    // Paths of another host are left to other helpers.
    let other = git("other.example", "a/../b");
    assert!(other.status.success() && other.stdout.is_empty() && other.stderr.is_empty());
    for fine in ["org/repo", "org/repo.git", "org/repo/info/lfs"] {
        assert!(text(&git("github.com", fine).stdout).contains("not-a-real-token"), "{fine}");
    }
    for host in ["github.com.", "github.com/", "github.com%00", "evil@github.com", "github.com:80"]
    {
        let ran = git(host, "org/repo");
        assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{host}");
    }
    for protocol in ["http", "HTTPS", "ssh", ""] {
        let question = format!("protocol={protocol}\nhost=github.com\npath=org/repo\n\n");
        assert!(ask(&world, "git", &question).stdout.is_empty(), "{protocol}");
    }
}

#[test]
fn git_gets_nothing_for_a_question_that_git_does_not_ask() {
    let world = world();
    let plain = ["protocol=https", "host=github.com", "path=org/repo"];
    let git = |lines: &[&str], end: &str| ask(&world, "git", &(lines.join(end) + end + end));
    let listed = ["wwwauth[]=Basic realm=\"a\tb\"", "wwwauth[]=Negotiate", "capability[]=state"];
    let fine = git(&[&listed[..], &plain].concat(), "\n");
    assert!(text(&fine.stdout).contains("not-a-real-token"), "{}", text(&fine.stderr));
    for (lines, end, reason) in [
        (&["protocol=https", "host=github.com\r", "path=org/repo"][..], "\n", "QUESTION"),
        (&["protocol=https\r", "host=github.com", "path=org/repo"], "\n", "QUESTION"),
        (&["protocol=https", "host=github.com", "path=org/repo\r"], "\n", "PATH"),
        (&plain, "\r\n", "QUESTION"),
        (
            &["protocol=https", "host=evil.example", "host=github.com", "path=org/repo"],
            "\n",
            "QUESTION",
        ),
        (&["protocol=https", "host=github.com", "path=org/repo", "path=evil"], "\n", "QUESTION"),
        (
            &["protocol=https", "host=github.com", "path=org/repo", "username=a\0b"],
            "\n",
            "QUESTION",
        ),
        (&["protocol=https", "host=github.com", "path=org/repo", "odd"], "\n", "QUESTION"),
    ] {
        let ran = git(lines, end);
        assert_eq!(text(&ran.stdout), "quit=1\n", "{lines:?}");
        let said = text(&ran.stderr);
        assert!(said.contains(&format!("error: {reason}_REFUSED: ")), "{lines:?}: {said}");
    }
}

#[test]
fn docker_gets_nothing_in_clear_that_was_not_said_to_be() {
    let world = world();
    for server in
        ["http://registry.example:5000", "ftp://registry.example:5000", "https://127.0.0.1:5000"]
    {
        let ran = ask(&world, "docker", server);
        assert_eq!(text(&ran.stdout), "credentials not found in native keychain\n", "{server}");
    }
    for server in [
        "registry.example:5000",
        "https://registry.example:5000",
        "127.0.0.1:5000",
        "http://127.0.0.1:5000",
    ] {
        assert!(
            text(&ask(&world, "docker", server).stdout).contains("\"Secret\":\"hush\""),
            "{server}"
        );
    }
}

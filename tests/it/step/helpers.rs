//! `keyhatch helper`: the protocols of git and docker, byte for byte. The tests in `tools` run the tools themselves.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};

use crate::harness::{Steps, connection, text};

fn world() -> Steps {
    Steps::seeded(
        &[
            connection("github", "main", &[("access_token", "not-a-real-token")]),
            connection("gitlab", "main", &[("api_token", "not-a-real-token-either")]),
            connection(
                "docker-registry",
                "main",
                &[
                    ("server", "registry.example:5000"),
                    ("username", "u"),
                    ("password", "not-a-real-password"),
                ],
            ),
            connection(
                "http",
                "lines",
                &[
                    ("base_url", "https://a.example"),
                    ("username", "u"),
                    ("password", "canary\ntwo"),
                ],
            ),
            connection(
                "kubernetes",
                "prod",
                &[
                    ("server", "https://k8s.example"),
                    ("certificate_authority", "none"),
                    ("token", "not-a-real-token"),
                ],
            ),
            connection(
                "aws",
                "prod",
                &[("access_key_id", "AKIA"), ("secret_access_key", "hush-hush")],
            ),
        ]
        .concat(),
    )
}

const ANSWERS: &str = "github.com=github/main; gitlab.example/group=gitlab/main;refused.example=github/nothere; \
                       lines.example=http/lines";

/// Runs the helper of a tool with a question on stdin.
fn ask(world: &Steps, arguments: &[&str], question: &str) -> Output {
    asked(world.command("keyhatch", arguments), ANSWERS, question)
}

/// Runs a helper with these answers and a question on stdin.
pub fn asked(mut helper: Command, answers: &str, question: &str) -> Output {
    helper.env("KEYHATCH_HELPER_ANSWERS", answers);
    helper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = helper.spawn().unwrap();
    child.stdin.take().unwrap().write_all(question.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn git_gets_the_login_of_the_host_it_asks_for_and_no_other() {
    let world = world();
    let git = |question: &str| ask(&world, &["helper", "git", "get"], question);
    let asked =
        "capability[]=authtype\nprotocol=https\nhost=github.com\nwwwauth[]=Basic realm=\"git\"\n\n";
    let answer = text(&git(asked).stdout);
    let begin = "username=x-access-token\npassword=not-a-real-token\npassword_expiry_utc=";
    assert!(answer.starts_with(begin), "{answer}");
    let answer = text(&git("protocol=https\nhost=gitlab.example\npath=group/a.git\n\n").stdout);
    assert!(answer.starts_with("username=oauth2\npassword=not-a-real-token-either\n"), "{answer}");
    for other in ["github.com.evil.example", "gitlab.example", "github.com:8443", ""] {
        let silent = git(&format!("protocol=https\nhost={other}\n\n"));
        assert!(
            silent.status.success() && silent.stdout.is_empty() && silent.stderr.is_empty(),
            "{other}"
        );
    }
}

#[test]
fn git_stops_at_a_refusal_instead_of_asking_a_terminal() {
    let world = world();
    for (host, reason) in [("refused.example", "RESOLVE_DENIED"), ("lines.example", "VALUE_UNFIT")]
    {
        let refused =
            ask(&world, &["helper", "git", "get"], &format!("protocol=https\nhost={host}\n\n"));
        assert_eq!(text(&refused.stdout), "quit=1\n");
        assert_eq!(refused.status.code(), Some(1));
        let stderr = text(&refused.stderr);
        assert!(stderr.contains(reason) && !stderr.contains("canary"), "{stderr}");
    }
}

#[test]
fn git_store_and_erase_are_accepted_in_silence() {
    let world = world();
    for operation in ["store", "erase"] {
        let taken = ask(
            &world,
            &["helper", "git", operation],
            "protocol=https\nhost=github.com\npassword=x\n\n",
        );
        assert!(taken.status.success() && taken.stdout.is_empty() && taken.stderr.is_empty());
    }
}

#[test]
fn docker_gets_its_documents_and_its_own_not_found() {
    let world = world();
    // Docker runs the helper under this name.
    let link = world.path("docker-credential-keyhatch");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_keyhatch"), &link).unwrap();
    let answers = "https://registry.example:5000/v2/=docker-registry/main;docker.io=github/nothere";
    let docker = |operation: &str, question: &str| {
        asked(world.command(link.to_str().unwrap(), &[operation]), answers, question)
    };
    let got: Json = serde_json::from_slice(&docker("get", "registry.example:5000").stdout).unwrap();
    let expected = json!({ "ServerURL": "registry.example:5000", "Username": "u", "Secret": "not-a-real-password" });
    assert_eq!(got, expected);
    let nothing = docker("get", "ghcr.io");
    assert_eq!(text(&nothing.stdout), "credentials not found in native keychain\n");
    assert_eq!(nothing.status.code(), Some(1));
    let refused = docker("get", "https://index.docker.io/v1/");
    assert!(refused.stdout.is_empty() && text(&refused.stderr).contains("RESOLVE_DENIED"));
    let listed: Json = serde_json::from_slice(&docker("list", "").stdout).unwrap();
    assert_eq!(listed, json!({ "registry.example:5000": "u" }));
    assert!(docker("erase", "registry.example:5000").status.success());
    let stored =
        docker("store", "{\"ServerURL\": \"a\", \"Username\": \"u\", \"Secret\": \"canary\"}");
    assert_eq!(stored.status.code(), Some(1));
    assert!(text(&stored.stderr).contains("READ_ONLY") && !text(&stored.stderr).contains("canary"));
    assert!(text(&docker("version", "").stdout).starts_with("keyhatch "));
}

/// A broker with several logins for one host.
fn world_of_users() -> Steps {
    let login = |name: &str, user: &str| {
        let url = ("base_url", "https://git.example");
        connection("http", name, &[url, ("username", user), ("password", &format!("pw-{name}"))])
    };
    let token = [("access_token", "not-a-real-token")];
    Steps::seeded(
        &[
            login("work", "alice-work"),
            login("home", "alice-home"),
            connection("github", "main", &token),
            connection("github", "org", &[("access_token", "not-a-real-token-of-org")]),
        ]
        .concat(),
    )
}

#[test]
fn git_gets_the_login_of_the_user_it_asks_for() {
    let world = world_of_users();
    let git = |answers: &[&str], user: &str, host: &str| {
        let mut command = world.command("keyhatch", &["helper", "git", "get"]);
        command.env("KEYHATCH_HELPER_ANSWERS", answers.join(";"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let question = format!("protocol=https\nhost={host}\n{user}\n");
        child.stdin.take().unwrap().write_all(question.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let stdout = text(&output.stdout);
        let password = stdout.lines().find_map(|line| line.strip_prefix("password="));
        (password.unwrap_or_default().to_owned(), text(&output.stderr), output.status.success())
    };
    let (work, home) = ("git.example=http/work", "git.example=http/home");
    let refused = "git.example=http/nothere";
    for (answers, user, password) in [
        (&[work, home][..], "", "pw-work"),
        (&[work, home], "username=\n", "pw-work"),
        (&[work, home], "username=alice-work\n", "pw-work"),
        (&[work, home], "username=alice-home\n", "pw-home"),
        (&[refused, home], "username=alice-home\n", "pw-home"),
        (&[work, "alice-home@git.example=http/home"], "username=alice-home\n", "pw-home"),
        (&["alice-home@git.example=http/home", work], "", "pw-work"),
        (&["b%40c@git.example=http/home"], "username=b@c\n", "pw-home"),
    ] {
        let (got, said, is_done) = git(answers, user, "git.example");
        assert!(is_done && got == password, "{answers:?} {user}: {got} {said}");
    }
    let (got, said, is_done) = git(&[work], "username=bob\n", "git.example");
    assert!(got.is_empty() && is_done, "{said}");
    assert!(said.contains("give --answer bob@git.example=http/work"), "{said}");
    let (got, said, is_done) = git(&[refused], "username=bob\n", "git.example");
    assert!(got.is_empty() && !is_done && said.contains("RESOLVE_DENIED"), "{said}");
    // The host chooses the user name of a token, so only an answer can say whose token it is.
    assert_eq!(git(&["github.com=github/main"], "username=bob\n", "github.com").0, "");
    let named = ["github.com=github/org", "bob@github.com=github/main"];
    assert_eq!(git(&named, "username=bob\n", "github.com").0, "not-a-real-token");
}

#[test]
fn git_gets_the_nearest_of_several_answers() {
    let world = world_of_users();
    let git = |answers: [&str; 2], question: &str| {
        let answers = ["--answer", answers[0], "--answer", answers[1]];
        let ran = ask(&world, &[&["helper", "git", "get"][..], &answers].concat(), question);
        let stdout = text(&ran.stdout);
        stdout.lines().nth(1).unwrap_or_default().replace("password=", "")
    };
    let (main, org) = ("GitHub.com=github/main", "github.com/org.git/=github/org");
    for answers in [[main, org], [org, main]] {
        for (host, path, password) in [
            ("github.com", "org/repo.git", "not-a-real-token-of-org"),
            ("github.com:443", "org/repo.git", "not-a-real-token-of-org"),
            ("GITHUB.com", "org", "not-a-real-token-of-org"),
            ("github.com", "other/repo.git", "not-a-real-token"),
            ("github.com", "Org/repo.git", "not-a-real-token"),
            ("github.com:8443", "org/repo.git", ""),
        ] {
            let question = format!("protocol=https\nhost={host}\npath={path}\n\n");
            assert_eq!(git(answers, &question), password, "{answers:?} {host} {path}");
        }
    }
    // A refusal of the nearest answer does not lead to another answer.
    let answers = ["github.com/org=github/nothere", main];
    let question = "protocol=https\nhost=github.com\npath=org/repo.git\n\n";
    assert_eq!(git(answers, question), "");
}

#[test]
fn docker_gets_tokens_as_tokens() {
    let world = world();
    let login = |name: &str, user: &str| {
        let fields = [("server", "docker.io"), ("username", user), ("password", "hush-hush")];
        connection("docker-registry", name, &fields)
    };
    world.apply(&[login("hub", "u"), login("token", "<token>")].concat());
    let docker = |answers: &str, question: &str| {
        let arguments = ["helper", "docker", "--answer", answers, "get"];
        text(&ask(&world, &arguments, question).stdout)
    };
    let (hub, here) = ("docker.io=docker-registry/hub", "registry.example=docker-registry/hub");
    for (answers, question) in [
        (hub, "https://index.docker.io/v1/"),
        (hub, "Docker.io"),
        (here, "REGISTRY.example"),
        (here, "registry.example:443\n"),
        (here, "https://registry.example/v2"),
    ] {
        let answer = docker(answers, question);
        assert!(answer.contains("\"Secret\":\"hush-hush\""), "{question}: {answer}");
    }
    for question in [
        "https://index.docker.io/v1/refresh-token",
        "https://index.docker.io/v1/access-token",
        "https://index.docker.io/other",
        "u@index.docker.io",
        "index.docker.io:80",
    ] {
        let answer = docker(hub, question);
        assert_eq!(answer, "credentials not found in native keychain\n", "{question}");
    }
    assert_eq!(docker(hub, "\n"), "no credentials server URL\n");
    let answer = docker("docker.io=docker-registry/token", "docker.io");
    assert!(answer.contains("\"Username\":\"<token>\""), "{answer}");
    let get = ["get", "docker-registry/token", "--format", "docker-config"];
    let config: Json = serde_json::from_slice(&world.answer(&get)).unwrap();
    let expected = json!({ "https://index.docker.io/v1/": { "identitytoken": "hush-hush" } });
    assert_eq!(config["auths"], expected);
}

#[test]
fn kubectl_and_aws_get_the_named_or_answered_connection() {
    let world = world();
    let named = ask(&world, &["helper", "kubectl", "kubernetes/prod"], "");
    let named: Json = serde_json::from_slice(&named.stdout).unwrap();
    assert_eq!(named["status"]["token"], "not-a-real-token");
    let info = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "spec": { "cluster": { "server": "https://k8s.example/" } },
    });
    let by_server = |server: &str| {
        let answer = format!("{server}=kubernetes/prod");
        let mut command = world.command("keyhatch", &["helper", "kubectl", "--answer", &answer]);
        command.env("KUBERNETES_EXEC_INFO", info.to_string()).output().unwrap()
    };
    for same in ["https://k8s.example", "HTTPS://K8S.example:443", "https://k8s.example/"] {
        assert!(by_server(same).status.success(), "{same}");
    }
    let other = by_server("https://other.example");
    assert_eq!(other.status.code(), Some(2));
    assert!(other.stdout.is_empty());
    let answer = ["helper", "aws", "--answer", "prod=aws/prod", "--profile"];
    let by_profile: Json =
        serde_json::from_slice(&ask(&world, &[&answer[..], &["prod"]].concat(), "").stdout)
            .unwrap();
    assert_eq!(
        (&by_profile["Version"], &by_profile["SecretAccessKey"]),
        (&json!(1), &json!("hush-hush"))
    );
    assert_eq!(ask(&world, &[&answer[..], &["dev"]].concat(), "").status.code(), Some(2));
}

#[test]
fn an_unknown_helper_is_answered_with_those_there_are() {
    let world = world();
    let (code, line) = world.refusal(&["helper", "svn"]);
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("there are aws, docker, git and kubectl"), "{line}");
    let help = text(&world.run("keyhatch", &["helper", "--help"]).stdout);
    for tool in ["git", "docker", "kubectl", "aws"] {
        assert!(help.contains(tool), "{help}");
    }
    let (code, line) = world.refusal(&["helper", "git", "--answer", "github.com", "get"]);
    assert!(code == Some(2) && line.contains("WHOM=REF"), "{line}");
}

#[test]
fn a_token_is_answered_under_the_user_that_git_asked_for() {
    let world = world();
    let answers = ["--answer", "bob@github.com=github/main", "--answer", "a%40b@h=gitlab/main"];
    for (host, user) in [("github.com", "bob"), ("h", "a@b")] {
        let question = format!("protocol=https\nhost={host}\nusername={user}\n\n");
        let ran = ask(&world, &[&["helper", "git", "get"][..], &answers].concat(), &question);
        let answer = text(&ran.stdout);
        assert!(answer.starts_with(&format!("username={user}\npassword=not-a-real-")), "{answer}");
    }
}

#[test]
fn git_gets_neither_of_two_tokens_for_one_address() {
    let world = world_of_users();
    let git = |answers: [&str; 2]| {
        let answers = ["--answer", answers[0], "--answer", answers[1]];
        let question = "protocol=https\nhost=github.com\nusername=\n\n";
        ask(&world, &[&["helper", "git", "get"][..], &answers].concat(), question)
    };
    let (main, org) = ("github.com=github/main", "https://GitHub.com:443/=github/org");
    for answers in [[main, org], [org, main]] {
        let ran = git(answers);
        let said = text(&ran.stderr);
        assert_eq!((text(&ran.stdout).as_str(), ran.status.code()), ("quit=1\n", Some(1)));
        assert!(said.contains("ANSWERS_AMBIGUOUS") && said.contains("USER@github.com="), "{said}");
    }
    for answers in [[main, main], [main, "bob@github.com=github/org"]] {
        assert!(text(&git(answers).stdout).contains("password=not-a-real-token\n"), "{answers:?}");
    }
    let (code, line) =
        world.refusal(&["helper", "git", "--answer", "*.github.com=github/main", "get"]);
    assert!(code == Some(2) && line.contains("no wildcards"), "{line}");
}

//! git and docker log in with their credential helpers.

use std::path::Path;
use std::process::Command;

use super::{basic, program, stdout};
use crate::harness::{HttpRequest, HttpResponse, HttpServer, Steps, connection, text};

/// Serves files to clients with this login.
fn files(root: &Path, login: &str) -> impl Fn(&HttpRequest) -> HttpResponse + use<> {
    let (root, login) = (root.to_owned(), basic(login));
    move |asked| {
        if asked.header("authorization") != login {
            return (401, vec![("www-authenticate", "Basic realm=\"git\"".to_owned())], Vec::new());
        }
        let path = asked.path.split('?').next().unwrap().trim_start_matches('/');
        match std::fs::read(root.join(path)) {
            Ok(content) => (200, vec![], content),
            Err(_) => (404, vec![], Vec::new()),
        }
    }
}

#[test]
fn git_fetches_from_a_server_that_wants_a_password() {
    let Some(git) = program("git") else { return };
    let steps =
        Steps::seeded(&connection("github", "main", &[("access_token", "not-a-real-token")]));
    let make = "git init -q work && cd work && git -c user.name=n -c user.email=e commit -q --allow-empty -m first \
                && cd .. && git clone -q --bare work repository.git && git -C repository.git update-server-info";
    let isolated = [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_SYSTEM", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
    ];
    let made = Command::new("sh")
        .args(["-ec", make])
        .current_dir(steps.directory.path())
        .envs(isolated)
        .status();
    assert!(made.unwrap().success());
    let server =
        HttpServer::start(files(steps.directory.path(), "x-access-token:not-a-real-token"));
    let host = format!("127.0.0.1:{}", server.port);
    let fetch = |answer: &str, into: &str| {
        let helper =
            format!("credential.helper=!keyhatch helper git --answer {answer}=github/main");
        let url = format!("http://{host}/repository.git");
        let mut command =
            steps.command(git.to_str().unwrap(), &["-c", &helper, "clone", "-q", &url, into]);
        command.envs(isolated).output().unwrap()
    };
    let fetched = fetch(&format!("http://{host}"), "clone");
    assert!(fetched.status.success(), "{}", text(&fetched.stderr));
    let logged = stdout(&steps, "git", &["-C", "clone", "log", "--format=%s"]);
    assert_eq!(logged, "first\n");
    let asked = server.asked();
    assert!(
        asked
            .iter()
            .any(|asked| asked.header("authorization") == basic("x-access-token:not-a-real-token"))
    );
    // The login of another host is not used, nor a login for encrypted connections only.
    assert!(!fetch("http://github.com", "other").status.success());
    assert!(!fetch(&host, "plain").status.success());
    assert!(server.asked().iter().all(|asked| asked.header("authorization").is_empty()));
}

#[test]
fn docker_logs_in_to_a_registry_by_its_credential_helper() {
    let Some(docker) = program("docker") else { return };
    let server = HttpServer::start_tls(|asked| match asked.header("authorization") {
        "" => (401, vec![("www-authenticate", "Basic realm=\"registry\"".to_owned())], Vec::new()),
        _ => (
            200,
            vec![("docker-distribution-api-version", "registry/2.0".to_owned())],
            b"{}".to_vec(),
        ),
    });
    let registry = format!("127.0.0.1:{}", server.port);
    let fields =
        [("server", registry.as_str()), ("username", "u"), ("password", "not-a-real-password")];
    let steps = Steps::seeded(&connection("docker-registry", "main", &fields));
    let link = steps.path("docker-credential-keyhatch");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_keyhatch"), link).unwrap();
    let config = format!("{{\"credHelpers\": {{\"{registry}\": \"keyhatch\"}}}}");
    std::fs::create_dir(steps.path("docker")).unwrap();
    std::fs::write(steps.path("docker/config.json"), config).unwrap();
    let image = format!("{registry}/a/b:1");
    let inspect = format!(
        "PATH=$PWD:$PATH {} --config docker manifest inspect --insecure {image} || true",
        docker.display()
    );
    let mut command = steps.command("sh", &["-c", &inspect]);
    command.env("KEYHATCH_HELPER_ANSWERS", format!("{registry}=docker-registry/main"));
    let ran = command.output().unwrap();
    let asked = server.asked();
    let logged_in =
        asked.iter().any(|asked| asked.header("authorization") == basic("u:not-a-real-password"));
    assert!(logged_in, "{asked:?} {}", text(&ran.stderr));
}

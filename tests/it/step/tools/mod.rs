//! Stock tools get their credentials without knowing keyhatch. Each test checks them at the server that the tool logs
//! in to.

mod aws;
mod databases;
mod repositories;

use std::path::PathBuf;

use crate::harness::{HttpServer, Steps, connection, installed, secret, skipped, source, text};

/// The Python interpreter with the tools' packages.
fn python() -> Option<String> {
    let tools = installed("tools")?;
    Some(tools.join("venv/bin/python").to_str().unwrap().to_owned())
}

fn script(name: &str) -> String {
    source("tests/clients/tools").join(name).to_str().unwrap().to_owned()
}

/// The path of a program of the system. `None` if it is not installed.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(name));
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        skipped(name, "not installed");
    }
    found
}

fn basic(login: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login))
}

fn stdout(steps: &Steps, program: &str, arguments: &[&str]) -> String {
    let ran = steps.run(program, arguments);
    let stderr = text(&ran.stderr);
    assert!(ran.status.success(), "{stderr}{}", text(&ran.stdout));
    text(&ran.stdout)
}

/// The example of Relay's documentation, unchanged.
#[test]
fn a_step_of_relays_runs_unchanged_with_its_own_sdk() {
    let Some(python) = python() else { return };
    let fields = [("access_key_id", "AKIAEXAMPLE"), ("secret_access_key", "not-a-real-secret")];
    let steps = Steps::seeded(
        &[connection("aws", "my-aws-account", &fields), secret("token", "hush-hush")].concat(),
    );
    let spec = "\
aws:
  connection: !Connection {type: aws, name: my-aws-account}
  region: us-west-1
token: !Secret token
binary: !!binary /wA=
later: '${outputs.s.''my key/part''}'
absent: !Connection {type: aws, name: absent}
";
    std::fs::write(steps.path("spec.yaml"), spec).unwrap();
    let step = script("relay_step.py");
    let exec =
        ["exec", "--serve", "relay", "--spec", "spec.yaml", "--no-mask", "--", &python, &step];
    let printed = stdout(&steps, "keyhatch", &exec);
    let expected =
        "AKIAEXAMPLE\nnot-a-real-secret\nus-west-1\nb'\\xff\\x00'\n{'made': True}\nunresolvable\n";
    assert_eq!(printed, expected);
}

#[test]
fn curl_logs_in_by_a_netrc() {
    let Some(curl) = program("curl") else { return };
    let server = HttpServer::start(|_| (200, vec![], b"fine".to_vec()));
    let base_url = format!("http://127.0.0.1:{}/v1", server.port);
    let fields =
        [("base_url", base_url.as_str()), ("username", "u"), ("password", "not-a-real-password")];
    let steps = Steps::seeded(&connection("http", "api", &fields));
    let script = format!(
        "keyhatch get http/api --format netrc --out netrc; {} -sS --netrc-file netrc {base_url}",
        curl.display()
    );
    assert_eq!(stdout(&steps, "sh", &["-ec", &script]), "fine");
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), basic("u:not-a-real-password"));
}

#[test]
fn the_kubernetes_client_logs_in_by_an_exec_credential() {
    let Some(python) = python() else { return };
    let server = HttpServer::start(|asked| match asked.header("authorization") {
        "Bearer not-a-real-token" => {
            let list = r#"{"apiVersion": "v1", "kind": "NamespaceList", "metadata": {},
                           "items": [{"metadata": {"name": "here"}}]}"#;
            (200, vec![("content-type", "application/json".to_owned())], list.into())
        }
        _ => (401, vec![], Vec::new()),
    });
    let address = format!("http://127.0.0.1:{}", server.port);
    let fields = [
        ("server", address.as_str()),
        ("certificate_authority", "none"),
        ("token", "not-a-real-token"),
    ];
    let steps = Steps::seeded(&connection("kubernetes", "prod", &fields));
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: k, cluster: {{server: '{address}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         users:\n- name: u\n  user:\n    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      \
         command: keyhatch\n      args: [helper, kubectl, --answer, '{address}=kubernetes/prod']\n      \
         interactiveMode: Never\n      provideClusterInfo: true\n"
    );
    std::fs::write(steps.path("kubeconfig"), config).unwrap();
    let mut command = steps.command(&python, &[&script("kubernetes_step.py")]);
    let ran = command.env("KUBECONFIG", steps.path("kubeconfig")).output().unwrap();
    assert_eq!(text(&ran.stdout), "here\n", "{}", text(&ran.stderr));
    let asked = server.asked();
    assert_eq!((asked.len(), asked[0].path.as_str()), (1, "/api/v1/namespaces"));
}

#[test]
fn dotenv_libraries_of_python_and_node_read_what_was_stored() {
    let Some(python) = python() else { return };
    let values = [
        ("a", "pl4in-_./:@%+,=x"),
        ("b", "sp ace \"quoted\" $HOME `id`"),
        ("c", "two\nlines"),
        ("d", "it's"),
        ("e", r"a\nb"),
        ("f", " #no comment "),
        ("g", ""),
    ];
    let steps = Steps::seeded(&connection("generic", "odd", &values));
    stdout(&steps, "keyhatch", &["get", "generic/odd", "--format", "dotenv", "--out", "env"]);
    let node = "const util = require('node:util'); const fs = require('node:fs'); \
                console.log(JSON.stringify(util.parseEnv(fs.readFileSync('env', 'utf8'))))";
    let readers = [
        stdout(&steps, &python, &[&script("dotenv_step.py"), "env"]),
        stdout(&steps, "node", &["-e", node]),
    ];
    for read in readers {
        let read: serde_json::Value = serde_json::from_str(&read).unwrap();
        for (name, value) in values {
            let name = format!("GENERIC_{}", name.to_uppercase());
            assert_eq!(read[&name], value, "{read}");
        }
    }
}

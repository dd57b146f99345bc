//! Every command in the README and in docs/ is run.
//!
//! The README stands alone. The documents in [`IN_ORDER`] share one broker, so each goes on from the state that the one
//! before has left. A fenced block says by its first word what it is, and by its second who runs it or which file holds it:
//!
//! | block | what the test does |
//! |---|---|
//! | `sh` | runs it as the operator |
//! | `sh step` | runs it as a step of workflow deploy |
//! | `sh grpcurl` | runs it as the operator, if grpcurl is installed |
//! | `sh upstream`, `sh upstream-step` | runs it as `sh` or `sh step`, with [`UPSTREAM`] replaced by a server of the test |
//! | `sh nginx`, `sh nginx-step` | runs it as `sh` or `sh step`, with [`API`] and [`REPOSITORIES`] replaced by nginx's addresses |
//! | `sh postgres`, `sh postgres-step` | runs it as `sh` or `sh step`, with [`DATABASE`] replaced by a PostgreSQL server |
//! | `sh incident` | leaves it to tests/it/incident/story.rs, which runs it after a leak |
//! | `sql postgres` | runs it as the superuser of that server |
//! | `sh setup` | leaves it to CI, which runs cargo and tests/run itself |
//! | `console` | runs it and compares what it prints (transcript.rs) |
//! | a language and a file | finds the block in the file, line for line; runs it, too, if it is `sh` |
//! | `text` | nothing |

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{
    Nginx, Postgres, ServeProcess, TestBroker, installed, keyhatch, keyhatch_in, path_with_binary,
    source,
};
use crate::mint::upstream::Scripted;

/// The documents whose commands share one broker.
const IN_ORDER: [&str; 4] = [OPERATING, "docs/seeding.md", "docs/executors.md", "docs/steps.md"];
/// The document with the story of an incident.
pub const OPERATING: &str = "docs/operating.md";
/// The document whose commands need an upstream.
const MINTING: &str = "docs/minting.md";
/// What the commands call the upstream.
const UPSTREAM: &str = "https://auth.example.com";
/// The document whose commands need a PostgreSQL server.
const POSTGRES: &str = "docs/postgres.md";
/// What the commands call that server.
const DATABASE: &str = "host=db.example.com";
/// The document with commands that need nginx.
const SENDING: &str = "docs/steps.md";
/// What the commands call its API, and its repositories.
const API: &str = "https://api.example.com";
const REPOSITORIES: &str = "base_url=https://git.example.com";
/// The documents that have no commands to run with a broker.
const WITHOUT_BROKER: [&str; 3] =
    ["docs/architecture.md", "docs/testing.md", "docs/threat-model.md"];
/// The only commands that a block of `setup` may have.
const SETUP: [&str; 5] = ["cargo ", "tests/run", "tests/fuzz", ".ci/run", "git clone "];

/// A fenced block.
pub struct Block {
    pub language: String,
    /// The second word of the line that opens it; may be empty.
    pub what: String,
    pub body: String,
}

pub fn read(document: &str) -> String {
    let path = source(document);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                let (language, what) = info.split_once(' ').unwrap_or((info, ""));
                let [language, what] = [language, what].map(str::to_owned);
                open = Some(Block { language, what, body: String::new() });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => {
                block.body.push_str(line);
                block.body.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block has no end");
    found
}

/// Every Markdown file of the repository.
pub fn documents() -> Vec<String> {
    fn walk(root: &Path, directory: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                walk(root, &path, found);
            } else if name.ends_with(".md") {
                found.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(&source(""), &source(""), &mut found);
    found.sort();
    found
}

/// Runs the `sh` blocks of these documents, one after the other, in one directory with one broker.
fn run_blocks(documents: &[&str]) {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    let serving = ServeProcess::start(directory.path());
    let is_alone = |what: &str| !what.starts_with("nginx") && what != "incident";
    run_some_blocks_in(directory.path(), documents, is_alone, str::to_owned);
    assert!(serving.terminate());
}

/// Runs these blocks with the broker of a directory. `rewrite` gives the text that is run.
fn run_blocks_in(directory: &Path, documents: &[&str], rewrite: impl Fn(&str) -> String) {
    run_some_blocks_in(directory, documents, |_| true, rewrite);
}

/// Runs the blocks of these documents whose second word is chosen.
fn run_some_blocks_in(
    directory: &Path,
    documents: &[&str],
    is_chosen: impl Fn(&str) -> bool,
    rewrite: impl Fn(&str) -> String,
) {
    let texts = documents.iter().map(|document| blocks(&read(document)));
    let is_run = |one: &Block| one.language == "sh" && one.what != "setup" && is_chosen(&one.what);
    let blocks: Vec<_> = texts.flatten().filter(is_run).collect();
    assert!(blocks.len() >= 3, "{documents:?} have their commands in sh blocks");
    for Block { what, body, .. } in blocks {
        let body = rewrite(&body);
        let mut path = path_with_binary();
        if what == "grpcurl" {
            let Some(client) = installed("grpcurl") else { continue };
            let all = std::env::split_paths(&path).chain([client.join("bin")]);
            path = std::env::join_paths(all.collect::<Vec<_>>()).unwrap();
        }
        let mut command = match what.as_str() {
            "step" | "upstream-step" | "nginx-step" | "postgres-step" => {
                let names =
                    ["step", "run", "--workflow", "deploy", "--run", "1", "--step", "build"];
                let mut command = keyhatch_in(directory, &names);
                command.args(["--", "sh", "-euc", &body]);
                command
            }
            _ => {
                let mut command = Command::new("sh");
                command.args(["-euc", &body]);
                command.env("KEYHATCH_STATE", directory.join("state"));
                command.env("KEYHATCH_RUNTIME", directory.join("run"));
                command
            }
        };
        command.current_dir(directory).env("PATH", path);
        let ran = command.output().unwrap();
        assert!(
            ran.status.success(),
            "{body}\n{}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}

/// Serves a new broker with an issuer. It may connect to what this entry of `egress.allow` names.
fn serve_with(directory: &Path, allowed: &str) -> ServeProcess {
    let file = directory.join("keyhatch.toml");
    let issuer = "[issuer]\nurl = \"https://keyhatch.example.com\"\n";
    std::fs::write(&file, format!("[egress]\nallow = [{allowed:?}]\n{issuer}")).unwrap();
    crate::harness::init_in(directory);
    let mut serve = keyhatch_in(directory, &["serve", "--config"]);
    serve.arg(file);
    ServeProcess::spawn(directory, serve)
}

/// Runs the blocks of a document with a broker that may connect to a server of the test.
fn run_blocks_with_upstream(document: &str) {
    let upstream = Scripted::start();
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    let serving = serve_with(directory.path(), &upstream.url(""));
    let url = upstream.url("");
    run_blocks_in(directory.path(), &[document], |body| body.replace(UPSTREAM, &url));
    assert!(serving.terminate());
}

#[test]
fn the_commands_of_minting_run_with_an_upstream() {
    run_blocks_with_upstream(MINTING);
}

#[test]
fn the_commands_of_postgres_run_with_a_server() {
    let Some(postgres) = Postgres::start() else { return };
    for Block { language, body, .. } in blocks(&read(POSTGRES)) {
        if language == "sql" {
            postgres.ask_in("orders", &body);
        }
    }
    postgres.ask("ALTER ROLE keyhatch_admin PASSWORD 'not-a-real-secret'");
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    std::fs::write(directory.path().join("db-ca.pem"), &postgres.ca_pem).unwrap();
    let serving = serve_with(directory.path(), "127.0.0.1");
    let place = format!("host=127.0.0.1 --field port={}", postgres.port);
    run_blocks_in(directory.path(), &[POSTGRES], |body| body.replace(DATABASE, &place));
    assert!(serving.terminate());
}

#[test]
fn the_commands_of_sending_run_with_nginx() {
    let Some(nginx) = Nginx::start() else { return };
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    std::fs::write(directory.path().join("ca.pem"), &nginx.ca_pem).unwrap();
    nginx.make_repository("site");
    let serving = serve_with(directory.path(), "127.0.0.1");
    let [api, repositories] = ["api", "git"].map(|path| format!("{}/{path}", nginx.origin()));
    let rewrite = |body: &str| {
        body.replace(API, &api).replace(REPOSITORIES, &format!("base_url={repositories}"))
    };
    let needs_it = |what: &str| what.starts_with("nginx");
    run_some_blocks_in(directory.path(), &[SENDING], needs_it, rewrite);
    assert!(serving.terminate());
}

#[test]
fn the_readmes_commands_run() {
    run_blocks_with_upstream("README.md");
}

#[test]
fn the_commands_of_the_docs_run_in_their_order() {
    run_blocks(&IN_ORDER);
}

#[test]
fn every_document_with_commands_has_its_place() {
    for document in documents() {
        let alone = ["README.md", MINTING, POSTGRES];
        let is_run = alone.contains(&document.as_str()) || IN_ORDER.contains(&document.as_str());
        let is_known = is_run || WITHOUT_BROKER.contains(&document.as_str());
        let is_page = document.starts_with("docs/") && !document.starts_with("docs/decisions/");
        assert!(!is_page || is_known, "{document}: add it to IN_ORDER or WITHOUT_BROKER");
        for Block { language, what, body } in blocks(&read(&document)) {
            let where_ = format!("{document}: a block of {language:?} {what:?}");
            match (language.as_str(), what.as_str()) {
                ("text", "") => {}
                ("sh", "setup") => {
                    let is_setup =
                        |line: &str| SETUP.iter().any(|command| line.starts_with(command));
                    assert!(body.lines().all(is_setup), "{where_} runs other commands");
                }
                ("sh", "upstream" | "upstream-step") => {
                    assert!(["README.md", MINTING].contains(&document.as_str()), "{where_}");
                }
                ("sh", "nginx" | "nginx-step") => assert_eq!(document, SENDING),
                ("sh", "incident") => assert_eq!(document, OPERATING),
                ("sh", "postgres" | "postgres-step") | ("sql", "postgres") => {
                    assert_eq!(document, POSTGRES);
                }
                ("sh", "" | "step" | "grpcurl") | ("console", "") => assert!(is_run, "{where_}"),
                (_, file) => {
                    assert!(!file.is_empty(), "{where_} names no file");
                    assert!(read(file).contains(&body), "{where_} is not in the file");
                    assert!(language != "sh" || is_run, "{where_}");
                }
            }
        }
    }
}

/// docs/testing.md shows this test.
#[test]
fn a_step_gets_its_connection_until_it_is_closed() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "hush", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    let got = broker.resolve(&step, "aws/prod").unwrap();
    assert_eq!(got.fields["secret_access_key"], "hush");
    broker.close(&step);
    assert!(broker.resolve(&step, "aws/prod").is_err());
}

#[test]
fn the_runner_in_shell_stops_at_a_step_that_fails() {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    let serving = ServeProcess::start(directory.path());
    // There is no connection, and the shell is not told to stop.
    let mut command = keyhatch_in(directory.path(), &[]);
    let mut shell = Command::new(source("examples/runner.sh"));
    shell.envs(
        command
            .env("PATH", path_with_binary())
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let ran = shell.output().unwrap();
    let printed = String::from_utf8_lossy(&ran.stdout);
    assert!(!ran.status.success() && !printed.contains("deploying"), "{printed}");
    let shown = serving.run(&["run", "show", "44"]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("build") && !shown.contains("publish"), "{shown}");
}

/// The words of each `keyhatch` command in a manifest of examples/.
fn commands_of_examples() -> Vec<Vec<String>> {
    let unit = read("examples/many-hosts/keyhatch-apply.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/"));
    let mut commands = vec![start.unwrap().split(' ').map(str::to_owned).collect::<Vec<_>>()];
    let pod: serde_json::Value =
        serde_saphyr::from_str(&read("examples/kubernetes/pod.yaml")).unwrap();
    let words =
        |list: &serde_json::Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap() };
    let sidecar = &pod["spec"]["initContainers"][0];
    commands.push([vec!["keyhatch".to_owned()], words(&sidecar["args"])].concat());
    commands.push(words(&sidecar["startupProbe"]["exec"]["command"]));
    commands.push(words(&pod["spec"]["containers"][0]["command"]));
    commands
}

#[test]
fn the_examples_give_commands_that_there_are() {
    for command in commands_of_examples() {
        assert_eq!(command[0], "keyhatch");
        // Before the command of a step, which is not ours.
        let end = command.iter().position(|word| word == "--").unwrap_or(command.len());
        let known = keyhatch(&[]).args(&command[1..end]).arg("--help").output().unwrap();
        assert!(known.status.success(), "{command:?}");
    }
}

#[test]
fn the_readme_is_short_and_names_the_two_commands() {
    let text = read("README.md");
    assert!(text.lines().count() <= 200);
    for command in ["cargo run --release -- dev", "tests/run"] {
        assert!(text.contains(command), "{command}");
    }
}

#[test]
fn the_documents_name_every_command_there_is() {
    let text: String =
        IN_ORDER.iter().chain(&["README.md"]).map(|document| read(document)).collect();
    let help = keyhatch(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for name in commands.lines().filter_map(|line| line.split_whitespace().next()) {
        assert!(name == "help" || text.contains(&format!("keyhatch {name}")), "keyhatch {name}");
    }
}

#[test]
fn links_and_paths_in_documents_lead_somewhere() {
    for document in documents() {
        let text = read(&document);
        let here = source(&document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            let leads = path.starts_with("http") || here.join(path).exists();
            assert!(leads, "{document}: {link}");
        }
        let paths = text.split(|c: char| !(c.is_alphanumeric() || "/_-.".contains(c)));
        for path in paths.filter(|path| path.starts_with("src/") || path.starts_with("tests/it/")) {
            assert!(source(path.trim_end_matches('.')).exists(), "{document}: {path}");
        }
    }
}

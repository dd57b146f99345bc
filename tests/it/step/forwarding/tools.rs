//! curl and SDKs of Python by `--serve http`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::World;
use crate::harness::{
    HttpServer, Internet, Scanner, ServeProcess, Steps, UPSTREAM_TOKEN, init_in, installed,
    keyhatch_in, source, temp_dir, text,
};

fn python() -> Option<String> {
    let tools = installed("tools")?;
    Some(tools.join("venv/bin/python").to_str().unwrap().to_owned())
}

fn script(name: &str) -> String {
    source("tests/clients/tools").join(name).to_str().unwrap().to_owned()
}

#[test]
fn curl_is_answered_without_a_secret_in_its_environment() {
    let Some(world) = World::start() else { return };
    let said = world.api("curl -sS \"$KEYHATCH_HTTP_URL/echo?a=b%20c\"; env");
    assert!(said.starts_with("GET /api/echo?a=b%20c Bearer ***\n"), "{said}");
    assert!(!said.contains(UPSTREAM_TOKEN) && said.contains("KEYHATCH_HTTP_URL="), "{said}");
    // Whatever a tool sends as its login is not the connection's.
    let said = world.api("curl -sS -u me:mine \"$KEYHATCH_HTTP_URL/echo\"");
    assert_eq!(said, "GET /api/echo Bearer ***\n");
    let said = world.api("curl -sSI \"$KEYHATCH_HTTP_URL/echo\"");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && !said.contains("GET"), "{said}");
}

#[test]
fn curl_follows_redirects_below_the_address() {
    let Some(world) = World::start() else { return };
    for path in ["/moved/below", "/moved/root"] {
        let said = world.api(&format!("curl -sSL -X POST \"$KEYHATCH_HTTP_URL{path}\""));
        assert_eq!(said, "POST /api/echo?moved=1 Bearer ***\n", "{path}");
    }
    let said = world.api("curl -sSi \"$KEYHATCH_HTTP_URL/moved\"");
    assert!(said.contains("location: https://elsewhere.example/"), "{said}");
}

#[test]
fn a_large_upload_arrives_whole_in_every_framing() {
    let Some(world) = World::start() else { return };
    let content: Vec<u8> = (0..=250).cycle().take(5_000_000).collect();
    std::fs::write(world.steps.path("content"), &content).unwrap();
    for (name, option) in [
        ("length", ""),
        ("chunks", "-H 'Transfer-Encoding: chunked'"),
        ("waits", "-H 'Expect: 100-continue'"),
    ] {
        let curl =
            format!("curl -sS --fail {option} -T content \"$KEYHATCH_HTTP_URL/files/{name}\"");
        world.api(&curl);
        let arrived = std::fs::read(world.nginx.files().join(name)).unwrap();
        assert!(arrived == content, "{name}: {}", arrived.len());
    }
}

#[test]
fn a_thousand_requests_share_one_connection() {
    let Some(python) = python() else { return };
    let Some(world) = World::start() else { return };
    let step = script("requests_step.py");
    assert_eq!(world.api(&format!("{python} {step} 1000")), "1000 answers, 1 connection\n");
    let asked = world.nginx.asked();
    assert_eq!(asked.lines().filter(|line| line.contains("/api/echo?n=")).count(), 1000);
}

#[test]
fn a_download_is_streamed_and_never_held_as_a_whole() {
    let Some(world) = World::start() else { return };
    let file = std::fs::File::create(world.nginx.files().join("large")).unwrap();
    file.set_len(96 * 1024 * 1024).unwrap();
    let said = world.api(
        "curl -sS \"$KEYHATCH_HTTP_URL/files/large\" | wc -c; grep VmHWM /proc/$PPID/status | tr -dc 0-9",
    );
    let (length, peak) = said.split_once('\n').unwrap();
    assert_eq!(length, (96 * 1024 * 1024).to_string());
    assert!(peak.parse::<u64>().unwrap() < 72 * 1024, "{peak} KiB");
}

#[test]
fn the_openai_sdk_lists_models_without_a_key() {
    let Some(python) = python() else { return };
    let server = HttpServer::start(|asked| match asked.header("authorization") {
        "Bearer not-a-real-openai-key" => {
            let list = r#"{"object": "list", "data": [{"id": "m-1", "object": "model", "created": 1, "owned_by": "x"}]}"#;
            (200, vec![("content-type", "application/json".to_owned())], list.into())
        }
        _ => (401, vec![], Vec::new()),
    });
    let internet = Internet::start(&["api.openai.com"], server.port);
    let directory = temp_dir();
    init_in(directory.path());
    let [config, ca] = ["keyhatch.toml", "ca.pem"].map(|name| directory.path().join(name));
    std::fs::write(&ca, &internet.ca_pem).unwrap();
    std::fs::write(&config, internet.table()).unwrap();
    let mut serve = keyhatch_in(directory.path(), &["serve", "--config", config.to_str().unwrap()]);
    serve.env("SSL_CERT_FILE", &ca);
    let serving = ServeProcess::spawn(directory.path(), serve);
    let steps = Steps { directory, serving };
    steps.apply(
        "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: models}\nspec:\n  integration: openai\n  \
         access: {user: ['workflow:w']}\n  fields: {api_token: not-a-real-openai-key}\n",
    );
    let step = script("openai_step.py");
    let ran =
        steps.run("keyhatch", &["exec", "--serve", "http=openai/models", "--", &python, &step]);
    assert_eq!(text(&ran.stdout), "m-1\n", "{}", text(&ran.stderr));
    assert_eq!(server.asked()[0].path, "/v1/models");
}

#[test]
fn no_process_of_the_step_has_the_value_in_memory() {
    let Some(python) = python() else { return };
    let Some(world) = World::start() else { return };
    let secret = UPSTREAM_TOKEN.as_bytes().to_vec();
    let here = Scanner::new(std::slice::from_ref(&secret)).scan(std::process::id()).unwrap();
    assert!(here.copies > 0, "the scanner finds a value where there is one");
    let waits = format!(
        "curl -sS \"$KEYHATCH_HTTP_URL/echo\"; keyhatch send http/api GET /echo; {python} {} 3 wait",
        script("requests_step.py")
    );
    let mut command = world.command("http=http/api", &waits);
    let mut step = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(step.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).find(|line| line.contains("3 answers"));
    assert!(ready.is_some());
    let (found, processes) = Scanner::new(&[secret]).scan_tree(step.id());
    // step run, exec, the shell and Python.
    assert!(processes >= 4, "{processes}");
    assert_eq!(found.copies, 0, "{:?}", found.places);
    drop(step.stdin.take());
    assert!(step.wait().unwrap().success());
}

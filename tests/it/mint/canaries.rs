//! Roots and minted values of credentials that their upstream can end reach the step and the upstream, and nobody else.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::runtime::Runtime;

use super::ROOT;
use crate::harness::{
    HttpRequest, HttpResponse, HttpServer, Scrape, ServeProcess, connection, init_in, keyhatch_in,
    request, resolve_on, step_channel, temp_dir,
};
use crate::security::secrecy::{everything_below, holds};

const GITHUB_TOKEN: &str = "ghs_7f3a9c51canary7f3a9c51canary7f3a9c51";
const BEARER: &str = "7f3a9c51bearer7f3a9c51";
const KEY: &str = include_str!("../../fixtures/mint/key.pkcs1.pem");

/// Makes tokens, and refuses to end them with replies that repeat them, as broken servers do.
fn answer(asked: &HttpRequest) -> HttpResponse {
    let (status, body) = match asked.path.as_str() {
        "/token" => {
            (200, json!({"access_token": BEARER, "token_type": "Bearer", "expires_in": 3600}))
        }
        "/revoke" => (400, json!({"error": BEARER, "error_description": ROOT})),
        "/installation/token" => (403, json!({"message": GITHUB_TOKEN})),
        _ => (201, json!({"token": GITHUB_TOKEN, "expires_at": "2099-01-01T00:00:00Z"})),
    };
    let headers =
        ["x-request-id", "x-github-request-id"].map(|name| (name, GITHUB_TOKEN.to_owned()));
    (status, headers.to_vec(), body.to_string().into_bytes())
}

/// What must not be found, in all forms in which it might be written.
fn canaries() -> Vec<String> {
    let line_of_key = KEY.lines().nth(3).unwrap();
    let plain = [GITHUB_TOKEN, BEARER, ROOT, line_of_key];
    plain.iter().flat_map(|text| [(*text).to_owned(), STANDARD.encode(text)]).collect()
}

/// A daemon that logs everything, and may connect to this URL.
fn serve(directory: &Path, upstream: &str) -> ServeProcess {
    init_in(directory);
    let config = directory.join("config.toml");
    std::fs::write(&config, format!("[egress]\nallow = [{upstream:?}]\n")).unwrap();
    let config = config.to_str().unwrap();
    let arguments = ["serve", "--config", config, "--log", "trace", "--metrics", "127.0.0.1:0"];
    ServeProcess::spawn(directory, keyhatch_in(directory, &arguments))
}

#[test]
fn what_ends_a_credential_is_seen_by_its_upstream_alone() {
    let upstream = HttpServer::start(answer);
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", upstream.port);
    let directory = temp_dir();
    let serving = serve(directory.path(), &url(""));
    let (token_url, revocation_url) = (url("/token"), url("/revoke"));
    let client = [
        ("token_url", token_url.as_str()),
        ("revocation_url", &revocation_url),
        ("client_id", "me"),
        ("client_secret", ROOT),
    ];
    let api = url("");
    let app = [("app_id", "1"), ("installation_id", "2"), ("private_key", KEY), ("api_url", &api)];
    let seed = temp_dir();
    let path = seed.path().join("seed.yaml");
    let documents = [connection("oauth2", "api", &client), connection("github", "main", &app)];
    std::fs::write(&path, documents.concat()).unwrap();
    serving.must(&["apply", "-f", path.to_str().unwrap()]);

    let runtime = Runtime::new().unwrap();
    let opened = runtime.block_on(serving.open("w", "s")).ok().unwrap();
    let channel = runtime.block_on(step_channel(opened.directory.as_ref()));
    // The control: the step gets both.
    for (reference, token) in [("oauth2/api", BEARER), ("github/main", GITHUB_TOKEN)] {
        let got = runtime.block_on(resolve_on(channel.clone(), request(reference))).unwrap();
        assert_eq!(got.fields["access_token"], token);
    }
    let mut shown = Vec::new();
    let close = ["step", "close", "--workflow", "w", "--run", "1", "--step", "s"];
    let commands: [&[&str]; 11] = [
        &["connection", "test", "--mint", "github/main"],
        &close,
        &["ending", "list", "-o", "json"],
        &["run", "show", "1", "--workflow", "w", "-o", "json"],
        &["connection", "get", "github/main", "-o", "json"],
        &["integration", "get", "github", "-o", "json"],
        &["journal", "tail", "-o", "json"],
        &["status", "-o", "json"],
        &["export"],
        &["explain", "github/main", "--workflow", "w", "--step", "s"],
        &["doctor", "-o", "json"],
    ];
    for ran in commands.map(|command| serving.run(command)) {
        shown.extend([ran.stdout, ran.stderr].concat());
    }
    shown.extend(Scrape::of(serving.metrics_address()).text.into_bytes());
    drop(serving);
    everything_below(directory.path(), &mut shown);
    assert!(shown.len() > 100_000, "the log at trace level is there");
    for canary in canaries() {
        assert!(!holds(&shown, &canary), "{canary}");
    }
}

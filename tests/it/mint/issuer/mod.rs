//! Tokens of the broker's own issuer, which strangers verify by hosted documents.

mod links;
mod web_identity;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::identity::IssuerUrl;
use keyhatch::model::{Clock, Limits};
use serde_json::Value as Json;

use crate::harness::{
    HttpServer, ServeProcess, TestBroker, TestStep, bytes, installed, keyhatch, keyhatch_in,
    path_with_binary, reason, request, resolver, restored, source, succeeded, temp_dir, text,
};

/// Hosts what is below `www`. Writes the certificate of the server beside it, and returns the issuer's URL.
fn host(directory: &Path) -> (HttpServer, String) {
    let root = directory.join("www");
    let server = HttpServer::start_tls(move |asked| {
        match std::fs::read(root.join(asked.path.trim_start_matches("/issuer/"))) {
            Ok(body) => (200, vec![("content-type", "application/json".to_owned())], body),
            Err(_) => (404, vec![], vec![]),
        }
    });
    std::fs::write(directory.join("ca.pem"), &server.ca_pem).unwrap();
    let url = format!("https://127.0.0.1:{}/issuer", server.port);
    (server, url)
}

/// A broker that is an issuer, whose documents are hosted.
pub struct Hosted {
    pub broker: TestBroker,
    server: HttpServer,
    pub url: String,
    directory: tempfile::TempDir,
}

impl Hosted {
    /// Hosts an empty directory. Tokens are of the system's clock, because others verify them by it.
    pub fn start() -> Self {
        let directory = temp_dir();
        let (server, url) = host(directory.path());
        let mut broker = TestBroker::start_at(Clock::system(), Limits::default());
        broker.config.issuer = IssuerUrl::parse(&url);
        broker.restart();
        Self { broker, server, url, directory }
    }

    /// The directory that is hosted.
    pub fn documents(&self) -> PathBuf {
        self.directory.path().join("www")
    }

    /// Writes the documents. Returns what the command prints.
    pub fn publish(&self) -> String {
        let mut write = keyhatch(&["issuer", "write", "-o", "json", "--out"]);
        write.arg(self.documents());
        write.env("KEYHATCH_DIR", self.broker.config.state.join("operators/admin"));
        succeeded(&write.output().unwrap())
    }

    pub fn create(&self, reference: &str, fields: &[(&str, &str)]) {
        self.broker.create_connection(reference, fields, &["workflow:w"]).unwrap();
    }

    fn token(&self, step: &TestStep) -> String {
        self.broker.resolve(step, "oidc/aws").unwrap().fields["token"].clone()
    }

    /// What PyJWT finds in a token. `None` if it refuses the token.
    fn verified(&self, tools: &Path, token: &str) -> Option<Json> {
        let mut python = std::process::Command::new(tools.join("venv/bin/python"));
        python.arg(source("tests/clients/tools/verify_token.py")).arg(&self.url);
        python.arg(self.directory.path().join("ca.pem")).arg("sts.amazonaws.com");
        let piped = python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        let ran = child.wait_with_output().unwrap();
        ran.status.success().then(|| serde_json::from_slice(&ran.stdout).unwrap())
    }

    fn rotate(&self) -> Vec<pb::IssuerKey> {
        let mut client = SystemServiceClient::new(self.broker.operator());
        let rotated =
            self.broker.block_on(client.rotate_issuer(pb::RotateIssuerRequest { force: true }));
        rotated.unwrap().into_inner().keys
    }

    fn key_of(&self, state: pb::IssuerKeyState) -> String {
        let mut client = SystemServiceClient::new(self.broker.operator());
        let issuer = self.broker.block_on(client.get_issuer(pb::GetIssuerRequest {}));
        let keys = issuer.unwrap().into_inner().keys;
        keys.iter().find(|key| key.state() == state).unwrap().id.clone()
    }
}

const AUDIENCE: (&str, &str) = ("audience", "sts.amazonaws.com");

#[test]
fn a_stranger_verifies_a_steps_token_by_hosted_documents() {
    let Some(tools) = installed("tools") else { return };
    let hosted = Hosted::start();
    hosted.create(
        "oidc/aws",
        &[AUDIENCE, ("claims", r#"{"team": "payments", "level": 3}"#), ("mint_seconds", "900")],
    );
    let step = hosted.broker.open("w", "build");
    let got = hosted.broker.resolve(&step, "oidc/aws").unwrap();
    assert!(got.fields.keys().eq(["audience", "token"]), "{:?}", got.fields.keys());
    let token = &got.fields["token"];
    assert!(hosted.verified(&tools, token).is_none(), "nothing is hosted yet");
    hosted.publish();
    let claims = hosted.verified(&tools, token).unwrap();
    let expected = serde_json::json!({
        "aud": "sts.amazonaws.com",
        "iss": hosted.url,
        "sub": "spiffe://keyhatch.local/workflow/w/run/1/step/build",
        "workflow": "w",
        "run": "1",
        "step": "build",
        "attempt": 1,
        "executor": "local",
        "team": "payments",
        "level": 3,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&claims[name], value, "{name}");
    }
    let times = ["iat", "nbf", "exp"].map(|name| claims[name].as_i64().unwrap());
    assert_eq!((times[2] - times[0], times[0] - times[1]), (900, 60));
    assert_eq!(claims["header"]["alg"], "ES256");
    // The journal and the lease know the token by its number and its end.
    let minted = hosted.broker.journaled("minted").pop().unwrap();
    assert_eq!((&minted["handle"], &minted["mint"]), (&claims["jti"], &claims["jti"]));
    assert_eq!(got.lease.credential_expire_time.unwrap().seconds, times[2]);
    assert_eq!(got.lease.ttl_limited_by(), pb::TtlLimit::Upstream);
    // A token that was changed, or is for another audience, is none.
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    assert!(hosted.verified(&tools, &forged).is_none());
    hosted.create("oidc/other", &[("audience", "other")]);
    let other = hosted.broker.resolve(&step, "oidc/other").unwrap().fields["token"].clone();
    assert!(hosted.verified(&tools, &other).is_none());
}

#[test]
fn each_step_has_a_token_of_its_own() {
    let hosted = Hosted::start();
    hosted.create("oidc/aws", &[AUDIENCE]);
    let (one, other) = (hosted.broker.open("w", "one"), hosted.broker.open("w", "other"));
    let first = hosted.token(&one);
    assert_eq!(hosted.token(&one), first);
    assert_ne!(hosted.token(&other), first);
    assert_eq!(hosted.broker.journaled("minting").len(), 2);
    assert!(hosted.server.asked().is_empty(), "nobody is asked for a token");
}

#[test]
fn tokens_of_either_key_verify_across_a_rotation() {
    let Some(tools) = installed("tools") else { return };
    let mut hosted = Hosted::start();
    hosted.create("oidc/aws", &[AUDIENCE]);
    let first = hosted.token(&hosted.broker.open("w", "one"));
    hosted.publish();
    let next = hosted.key_of(pb::IssuerKeyState::Next);
    let keys = hosted.rotate();
    assert_eq!(keys.len(), 3);
    let line = hosted.broker.journaled("key_rotated").pop().unwrap();
    assert_eq!((&line["key"], &line["new"]), (&"issuer".into(), &next.clone().into()));
    // The hosted documents are still those of before.
    let second = hosted.token(&hosted.broker.open("w", "two"));
    let kid = |token: &str| hosted.verified(&tools, token).unwrap()["header"]["kid"].clone();
    assert_eq!(kid(&second), next.as_str());
    assert_ne!(kid(&first), kid(&second));
    assert!(hosted.publish().contains("\"changed\": true"));
    assert!(hosted.publish().contains("\"changed\": false"));
    assert!(hosted.verified(&tools, &first).is_some());
    // The keys are the same after a restart, and under another DEK.
    let mut client = SystemServiceClient::new(hosted.broker.operator());
    hosted.broker.block_on(client.rotate_dek(pb::RotateDekRequest {})).unwrap();
    hosted.broker.restart();
    assert_eq!(hosted.key_of(pb::IssuerKeyState::Current), next);
    assert!(hosted.publish().contains("\"changed\": false"));
}

#[test]
fn a_step_without_access_has_no_token_made() {
    let hosted = Hosted::start();
    hosted.create("oidc/aws", &[AUDIENCE]);
    let stranger = hosted.broker.open("other", "s");
    assert_eq!(reason(hosted.broker.resolve(&stranger, "oidc/aws")), "RESOLVE_DENIED");
    assert!(hosted.broker.journaled("minting").is_empty());
}

#[test]
fn a_broker_that_is_no_issuer_says_what_to_do() {
    let broker = TestBroker::start();
    let made = broker.create_connection("oidc/aws", &[AUDIENCE], &["workflow:w"]).unwrap();
    let found = &made.findings.last().unwrap().description;
    assert!(found.contains("url in the table issuer"), "{found}");
    let step = broker.open("w", "s");
    assert_eq!(reason(broker.resolve(&step, "oidc/aws")), "ISSUER_NOT_CONFIGURED");
    let failed = broker.journaled("mint_failed").pop().unwrap();
    assert_eq!(failed["reason"], "ISSUER_NOT_CONFIGURED");
    let mut client = ConnectionServiceClient::new(broker.operator());
    let name = "connections/oidc/aws".to_owned();
    let request = pb::TestConnectionRequest { name, mint: true };
    let tested = broker.block_on(client.test_connection(request)).unwrap().into_inner();
    assert_eq!(tested.mint_failure, "ISSUER_NOT_CONFIGURED");
    let mut system = SystemServiceClient::new(broker.operator());
    let issuer = broker.block_on(system.get_issuer(pb::GetIssuerRequest {})).unwrap().into_inner();
    assert_eq!((issuer.url.as_str(), issuer.key_set.as_str()), ("", ""));
    assert_eq!(issuer.connections, ["connections/oidc/aws"]);
}

#[test]
fn claims_that_are_the_brokers_own_are_refused() {
    let broker = TestBroker::start();
    for claims in [r#"{"sub": "x"}"#, r#"{"workflow": null}"#, "[]"] {
        let fields = [AUDIENCE, ("claims", claims)];
        let refused = broker.create_connection("oidc/aws", &fields, &[]).map(drop);
        assert_eq!(reason(refused), "FIELDS_INVALID", "{claims}");
    }
}

#[test]
fn a_token_cannot_be_stored() {
    let broker = TestBroker::start();
    let connection = pb::Connection {
        name: "connections/oidc/aws".to_owned(),
        fields: bytes(&[AUDIENCE]),
        access: resolver(&["workflow:w"]),
        release: pb::Release::Stored.into(),
        ..Default::default()
    };
    let request =
        pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    let mut client = ConnectionServiceClient::new(broker.operator());
    let refused = broker.block_on(client.create_connection(request)).map(drop);
    assert_eq!(reason(refused), "FIELDS_INVALID");
    let made = broker.create_connection("oidc/aws", &[AUDIENCE], &[]).unwrap();
    assert_eq!(made.release(), pb::Release::Minted);
}

#[test]
fn a_test_names_the_operator_and_no_step() {
    let hosted = Hosted::start();
    hosted.create("oidc/aws", &[AUDIENCE]);
    let mut client = ConnectionServiceClient::new(hosted.broker.operator());
    let name = "connections/oidc/aws".to_owned();
    let request = pb::TestConnectionRequest { name, mint: true };
    let tested = hosted.broker.block_on(client.test_connection(request)).unwrap().into_inner();
    let minted = tested.minted.unwrap();
    assert_eq!(minted.fields, ["audience", "token"]);
    // Tokens have whole seconds.
    assert!((599..=600).contains(&minted.lifetime.unwrap().seconds));
}

/// Serves the broker of a directory, as an issuer. It trusts the server whose certificate is there.
fn serve_issuer(directory: &Path, url: &str, more: &[&str]) -> ServeProcess {
    let file = directory.join("keyhatch.toml");
    let config = format!("[issuer]\nurl = \"{url}\"\n[egress]\nallow = [\"127.0.0.1/32\"]\n");
    std::fs::write(&file, config).unwrap();
    let words = [&["serve", "--config", file.to_str().unwrap()], more].concat();
    let mut serve = keyhatch_in(directory, &words);
    serve.env("SSL_CERT_FILE", directory.join("ca.pem"));
    ServeProcess::spawn(directory, serve)
}

#[test]
fn a_rotation_waits_until_the_next_key_is_hosted() {
    let directory = temp_dir();
    crate::harness::init_in(directory.path());
    let (_server, url) = host(directory.path());
    let serving = serve_issuer(directory.path(), &url, &[]);
    let hosted = || -> Json {
        serde_json::from_str(&serving.must(&["issuer", "rotate", "-o", "json"])).unwrap()
    };
    let www = directory.path().join("www");
    let write = ["issuer", "write", "--out", www.to_str().unwrap()];
    let assert_refused = || {
        let said = text(&serving.run(&["issuer", "rotate"]).stderr);
        assert!(said.contains("error: ISSUER_NOT_HOSTED") && said.contains("--force"), "{said}");
    };
    // Nothing is hosted: the server answers 404.
    assert_refused();
    std::fs::create_dir_all(www.join(".well-known")).unwrap();
    serving.must(&write);
    std::fs::write(www.join(keyhatch::identity::KEY_SET), "<html>").unwrap();
    assert_refused();
    serving.must(&write);
    assert_eq!(hosted()["hosted"], true);
    assert_refused();
    serving.must(&["issuer", "rotate", "--force"]);
    serving.must(&write);
    assert_eq!(hosted()["hosted"], true);
}

/// The keys, as an operator sees them.
fn keys(serving: &ServeProcess) -> Json {
    let shown: Json =
        serde_json::from_str(&serving.must(&["issuer", "show", "-o", "json"])).unwrap();
    shown["keys"].clone()
}

/// What a step prints, and what it says.
fn step_runs(directory: &Path, arguments: &[&str]) -> (String, String) {
    let words = ["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--", "keyhatch"];
    let mut command = keyhatch_in(directory, &[&words, arguments].concat());
    let ran = command.env("PATH", path_with_binary()).output().unwrap();
    (text(&ran.stdout), text(&ran.stderr))
}

#[test]
fn a_restored_issuer_keeps_its_keys_and_signs_nothing_yet() {
    let (directory, other) = (temp_dir(), temp_dir());
    crate::harness::init_in(directory.path());
    let url = "https://keyhatch.example.com";
    let serving = serve_issuer(directory.path(), url, &[]);
    let create = ["connection", "create", "oidc/aws", "--field", "audience=sts.amazonaws.com"];
    serving.must(&[&create[..], &["--resolver", "workflow:w"]].concat());
    let said = text(&serving.run(&["issuer", "rotate"]).stderr);
    assert!(said.contains("error: ISSUER_NOT_HOSTED"), "the host cannot be reached: {said}");
    serving.must(&["issuer", "rotate", "--force"]);
    let before = keys(&serving);
    let archive = directory.path().join("backup.tar");
    serving.must(&["backup", archive.to_str().unwrap()]);
    drop(serving);
    let kek = restored(other.path(), &archive, &directory.path().join("state/kek"));
    let kek = kek.each_ref().map(String::as_str);
    let serving = serve_issuer(other.path(), url, &kek);
    assert_eq!(keys(&serving), before);
    let (token, said) = step_runs(other.path(), &["token", "oidc/aws"]);
    assert!(token.is_empty() && said.contains("error: QUARANTINED"), "{said}");
    serving.must(&["restore", "--confirm"]);
    // The token alone is on stdout.
    let (token, _) = step_runs(other.path(), &["token", "oidc/aws"]);
    assert_eq!(token.trim_end().split('.').count(), 3, "{token}");
    assert_eq!(token.lines().count(), 1);
    let (json, _) = step_runs(other.path(), &["token", "oidc/aws", "-o", "json"]);
    let json: Json = serde_json::from_str(&json).unwrap();
    assert!(
        json["fields"]["token"].is_string() && json["lease"]["credential_expire_time"].is_string()
    );
    let (_, said) = step_runs(other.path(), &["token", "aws/none"]);
    assert!(said.contains("error: RESOLVE_DENIED"), "{said}");
}

#[test]
fn a_state_directory_of_0_1_0_gets_keys_that_stay() {
    let mut broker = TestBroker::of_fixture("formats/0.1.0");
    broker.serve();
    let file = broker.config.state.join("issuer.sealed");
    let mut sealed = std::fs::read(&file).unwrap();
    broker.restart();
    assert_eq!(std::fs::read(&file).unwrap(), sealed);
    broker.stop();
    *sealed.last_mut().unwrap() ^= 1;
    std::fs::write(&file, sealed).unwrap();
    let refused = broker.refusal();
    assert!(refused.contains("issuer.sealed is damaged"), "{refused}");
}

#[test]
fn a_watch_delivers_the_next_token_before_the_last_ends() {
    let mut broker = TestBroker::start();
    broker.config.issuer = IssuerUrl::parse("https://keyhatch.example.com");
    broker.restart();
    broker.create_connection("oidc/aws", &[AUDIENCE], &["workflow:w"]).unwrap();
    let step = broker.open("w", "s");
    let mut client = StepServiceClient::new(step.channel);
    let watch = pb::WatchRequest { request: Some(request("oidc/aws")) };
    let mut stream = broker.block_on(client.watch(watch)).unwrap().into_inner();
    let mut next = || {
        let delivery = broker.block_on(stream.message()).unwrap().unwrap();
        delivery.credential.unwrap().fields["token"].clone()
    };
    let first = next();
    // Half of the ten minutes have passed, and any change makes a Watch look at the clock.
    broker.advance(301);
    broker.create_aws("other", "x", &[]);
    assert_ne!(next(), first);
}

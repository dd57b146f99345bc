//! boto3, which decides by itself when a credential is too old.

use std::sync::{Arc, Mutex};

use super::{python, script};
use crate::harness::{
    HttpRequest, HttpResponse, HttpServer, ServeProcess, Steps, connection, keyhatch_in,
    path_with_binary, text,
};

fn aws(key: &str) -> String {
    let fields = [
        ("access_key_id", key),
        ("secret_access_key", "not-a-real-secret"),
        ("session_token", &format!("session-of-{key}")),
        ("region", "eu-west-1"),
    ];
    // The lease is shorter than boto3's refresh window, so boto3 comes back for each request.
    connection("aws", "prod", &fields).replace("spec:\n", "spec:\n  maxTtl: 5m\n")
}

fn identity(_: &HttpRequest) -> HttpResponse {
    let body = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                <GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult>\
                </GetCallerIdentityResponse>";
    (200, vec![("content-type", "text/xml".to_owned())], body.into())
}

/// The key id and the session token of each signed request.
fn signed_by(asked: &[HttpRequest]) -> Vec<(String, String)> {
    let who = |asked: &HttpRequest| {
        let authorization = asked.header("authorization");
        let (_, credential) = authorization.split_once("Credential=").unwrap();
        let key = credential.split('/').next().unwrap().to_owned();
        (key, asked.header("x-amz-security-token").to_owned())
    };
    asked.iter().map(who).collect()
}

fn pair(key: &str) -> (String, String) {
    (key.to_owned(), format!("session-of-{key}"))
}

#[test]
fn boto3_signs_with_what_a_credential_process_printed() {
    let Some(python) = python() else { return };
    let server = HttpServer::start(identity);
    let steps = Steps::seeded(&aws("AKIAONE"));
    let config = "[profile one]\nregion = eu-west-1\n\
                  credential_process = keyhatch get aws/prod --format aws-credential-process\n\
                  [profile two]\nregion = eu-west-1\n\
                  credential_process = keyhatch helper aws --profile two --answer two=aws/prod\n";
    std::fs::write(steps.path("config"), config).unwrap();
    let url = format!("http://127.0.0.1:{}", server.port);
    for profile in ["one", "two"] {
        let mut command = steps.command(&python, &[&script("boto_step.py"), &url, "1"]);
        command.env("AWS_CONFIG_FILE", steps.path("config")).env("AWS_PROFILE", profile);
        let ran = command.output().unwrap();
        let stdout = text(&ran.stdout);
        assert_eq!(stdout, "123456789012\n", "{}", text(&ran.stderr));
        assert_eq!(signed_by(&server.asked()), [pair("AKIAONE")]);
    }
}

/// The operator rotates the key after the first request. The daemon is killed and started after the second.
#[test]
fn boto3_follows_a_rotation_and_a_restart() {
    let Some(python) = python() else { return };
    let steps = Steps::seeded(&aws("AKIAONE"));
    let Steps { directory, serving } = steps;
    let root = directory.path().to_owned();
    let serving = Arc::new(Mutex::new(Some(serving)));
    let (count, held) = (Mutex::new(0), Arc::clone(&serving));
    let server = HttpServer::start(move |asked| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count == 1 {
            let seed = root.join("rotated.yaml");
            std::fs::write(&seed, aws("AKIATWO")).unwrap();
            let applied =
                keyhatch_in(&root, &["apply", "-f", seed.to_str().unwrap()]).output().unwrap();
            assert!(applied.status.success());
        } else if *count == 2 {
            let mut held = held.lock().unwrap();
            held.take().unwrap().kill();
            *held = Some(ServeProcess::start(&root));
        }
        identity(asked)
    });
    let url = format!("http://127.0.0.1:{}", server.port);
    let names = ["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--"];
    let exec = ["keyhatch", "exec", "--serve", "aws=aws/prod", "--"];
    let step = [python.as_str(), &script("boto_step.py"), &url, "3"];
    let mut command = keyhatch_in(directory.path(), &[&names[..], &exec, &step].concat());
    command.env("PATH", path_with_binary());
    // These variables would override the endpoint.
    command.env("AWS_ACCESS_KEY_ID", "old").env("AWS_SECRET_ACCESS_KEY", "old");
    std::fs::create_dir(directory.path().join(".aws")).unwrap();
    let profile = "[default]\naws_access_key_id = old\naws_secret_access_key = old\n";
    std::fs::write(directory.path().join(".aws/credentials"), profile).unwrap();
    command.env("HOME", directory.path());
    let ran = command.output().unwrap();
    let stderr = text(&ran.stderr);
    assert_eq!(text(&ran.stdout), "123456789012\n".repeat(3), "{stderr}");
    assert_eq!(signed_by(&server.asked()), [pair("AKIAONE"), pair("AKIATWO"), pair("AKIATWO")]);
    // The server's thread has the other end.
    drop(serving.lock().unwrap().take());
}

//! Seeds and commands say whether a step gets what is stored or what is minted.

use crate::harness::{Steps, keyhatch_in, succeeded, text};

const SEED: &str = "\
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: api}
spec:
  integration: oauth2
  kind: client_credentials
  fields: {token_url: 'https://auth.example/token', client_id: me, client_secret: canary}
";

#[test]
fn a_seed_keeps_a_release_that_it_does_not_name() {
    let steps = Steps::seeded(SEED);
    let run = |arguments: &[&str]| {
        let ran = keyhatch_in(steps.directory.path(), arguments).output().unwrap();
        (ran.status.success(), format!("{}{}", text(&ran.stdout), text(&ran.stderr)))
    };
    let release = || {
        let ran = steps.serving.run(&["connection", "get", "oauth2/api", "-o", "json"]);
        let json: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        (json["release"].as_str().unwrap().to_owned(), json["version"].as_i64().unwrap())
    };
    assert_eq!(release(), ("minted".to_owned(), 1));
    let stored = format!("{SEED}  release: stored\n");
    std::fs::write(steps.path("stored.yaml"), &stored).unwrap();
    let path = steps.path("stored.yaml");
    let (differs, told) = run(&["diff", "-f", path.to_str().unwrap()]);
    assert!(!differs && told.contains("    release: minted -> stored"), "{told}");
    steps.apply(&stored);
    assert_eq!(release(), ("stored".to_owned(), 2));
    for same in [&stored, SEED] {
        assert!(steps.apply(same).contains("1 unchanged"));
    }
    // What is exported says it, and is what is stored.
    let exported = steps.serving.run(&["export"]);
    assert!(text(&exported.stdout).contains("release: stored"), "{}", text(&exported.stdout));
    assert!(steps.apply(&text(&exported.stdout)).contains("1 unchanged"));
    assert_eq!(release(), ("stored".to_owned(), 2));
    steps.apply(&format!("{SEED}  release: minted\n"));
    let relay = steps.path("relay.yaml");
    let seed = "connections:\n  oauth2/api: {token_url: 'https://auth.example/token', client_id: me, client_secret: b}\n";
    std::fs::write(&relay, seed).unwrap();
    let import = ["import", "--from", "relay", "--yes", relay.to_str().unwrap()];
    succeeded(&steps.serving.run(&import));
    assert_eq!(release(), ("minted".to_owned(), 4));
    let (_, refusal) = run(&["apply", "-f", path.to_str().unwrap(), "--dry-run"]);
    assert!(!refusal.contains("canary"), "{refusal}");
    std::fs::write(&path, format!("{SEED}  release: raw\n")).unwrap();
    let (_, refusal) = run(&["apply", "-f", path.to_str().unwrap()]);
    assert!(refusal.contains("spec.release: write minted or stored"), "{refusal}");
}

#[test]
fn commands_show_what_a_step_gets_and_change_it() {
    let steps = Steps::seeded(SEED);
    let run = |arguments: &[&str]| {
        let ran = steps.serving.run(arguments);
        (ran.status.success(), format!("{}{}", text(&ran.stdout), text(&ran.stderr)))
    };
    let says = |arguments: &[&str], expected: &str| {
        let (ended_well, told) = run(arguments);
        assert!(ended_well && told.contains(expected), "{arguments:?}: {told}");
    };
    says(&["connection", "get", "oauth2/api"], "minted: a step gets a short-lived credential");
    says(&["connection", "list", "--release", "minted"], "oauth2/api");
    says(&["connection", "list", "--release", "stored"], "no connections");
    says(&["integration", "get", "oauth2"], "a new one is minted");
    let (is_changed, refusal) = run(&["connection", "update", "oauth2/api", "--release", "stored"]);
    let expected = "release says where the credential is sent or what a step gets of it, so it changes only together \
                    with every sensitive field; give also: client_secret";
    assert!(!is_changed && refusal.contains(expected), "{refusal}");
    std::fs::write(steps.path("secret"), "canary").unwrap();
    let file = format!("client_secret=@{}", steps.path("secret").display());
    let stored = ["connection", "update", "oauth2/api", "--release", "stored", "--field", &file];
    says(&stored, "oauth2/api updated, version 2");
    says(&["connection", "get", "oauth2/api"], "although the broker could mint from them");
    let doctor = keyhatch_in(steps.directory.path(), &["doctor"]).output().unwrap();
    let told = text(&doctor.stdout);
    assert!(told.contains("long-lived credential of oauth2/api"), "{told}");
    says(&["connection", "update", "oauth2/api", "--release", "minted"], "version 3");
    let doctor = keyhatch_in(steps.directory.path(), &["doctor"]).output().unwrap();
    assert!(!text(&doctor.stdout).contains("oauth2/api"));
}

#[test]
fn check_finds_a_root_that_a_minted_connection_never_gives() {
    let steps = Steps::seeded(SEED);
    steps.apply(&SEED.replace("spec:", "spec:\n  access: {resolver: ['workflow:deploy']}"));
    let workflow = "\
steps:
- name: build
  spec:
    good: ${connections.oauth2.api.access_token}
    bad: ${connections.oauth2.api.client_secret}
    whole: ${connections.oauth2.api}
";
    std::fs::write(steps.path("deploy.yaml"), workflow).unwrap();
    let mut check = keyhatch_in(steps.directory.path(), &["check", "deploy.yaml"]);
    let checked = check.current_dir(steps.directory.path()).output().unwrap();
    let told = text(&checked.stdout);
    let lines: Vec<_> = told.lines().collect();
    assert!(lines.len() == 3 && lines[0].ends_with("oauth2/api: fine"), "{told}");
    assert!(lines[1].contains("5:10: oauth2/api: FIELD_UNKNOWN"), "{told}");
    assert_eq!(checked.status.code(), Some(1));
}

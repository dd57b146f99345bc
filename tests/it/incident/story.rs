//! The story of docs/operating.md: from "a step leaked" to "nobody holds the old version".

use std::process::{Command, Stdio};

use crate::harness::{Steps, connection, keyhatch_in, path_with_binary, text, wait_until};
use crate::meta::readme::{OPERATING, blocks, read};

const OPEN: [&str; 7] = [
    "step",
    "open",
    "--workflow=w",
    "--step=leaky",
    "--mount-path=host",
    "--heartbeat=60s",
    "-o=json",
];

#[test]
fn a_leak_is_closed_blocked_rotated_and_verified() {
    let key = [("access_key_id", "AKIAEXAMPLE1"), ("secret_access_key", "the-leaked-key")];
    let steps = Steps::seeded(&connection("aws", "prod", &key));
    std::fs::write(steps.path("new.key"), "the-new-key").unwrap();
    let run = |arguments: &[&str]| steps.serving.run(arguments);
    let open = |name: &str| {
        let opened = run(&[&OPEN[..], &["--run", name]].concat());
        serde_json::from_slice::<serde_json::Value>(&opened.stdout)
            .map_err(|_| text(&opened.stderr))
    };
    let opened = open("42").unwrap();
    let as_step = |opened: &serde_json::Value, arguments: &[&str]| {
        let mut command = keyhatch_in(steps.directory.path(), arguments);
        command.env("KEYHATCH_DIR", opened["directory"].as_str().unwrap());
        command
    };
    // The step that leaks follows its credential, and another step of another run has it, too.
    let seen = std::fs::File::create(steps.path("seen")).unwrap();
    let watching =
        as_step(&opened, &["get", "aws/prod", "--watch", "--field", "secret_access_key"]);
    let mut watching = { watching }.stdout(seen).stderr(Stdio::piped()).spawn().unwrap();
    let has_seen = || std::fs::read_to_string(steps.path("seen")).unwrap();
    wait_until("the step has the key", || has_seen().contains("the-leaked-key"));
    let bystander = open("43").unwrap();
    assert!(as_step(&bystander, &["get", "aws/prod"]).output().unwrap().status.success());

    let stdout = tell(&steps);
    // Closed: the step's Watch has ended, and its executor is told.
    assert!(!watching.wait().unwrap().success());
    assert!(!has_seen().contains("the-new-key"));
    let name = opened["opening"].as_str().unwrap();
    assert!(text(&run(&["step", "renew", name]).stderr).contains("STEP_CLOSED_BY_OPERATOR"));
    assert!(open("42").unwrap_err().contains("STEP_BLOCKED"));
    // Revoked, and rotated: nobody holds the old version, and who may gets the new one.
    let parts = [
        "the run is blocked",
        "aws/prod is blocked since",
        "aws/prod is no longer blocked",
        "no such lease is live",
    ];
    for part in parts {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    let holders = run(&["connection", "get", "aws/prod", "-o", "json"]);
    let holders: serde_json::Value = serde_json::from_slice(&holders.stdout).unwrap();
    assert!(holders["holders"].as_array().is_none_or(Vec::is_empty), "{holders}");
    let again = as_step(&bystander, &["get", "aws/prod", "--field", "secret_access_key"]);
    assert_eq!(text(&{ again }.output().unwrap().stdout).trim(), "the-new-key");
    check_journal(&steps);
}

/// Runs the commands of the story, and returns what they print.
fn tell(steps: &Steps) -> String {
    let story: Vec<_> =
        blocks(&read(OPERATING)).into_iter().filter(|one| one.what == "incident").collect();
    let [story] = &*story else { panic!("one story") };
    let mut told = Command::new("sh");
    told.args(["-euxc", &story.body]).current_dir(steps.directory.path());
    told.env("KEYHATCH_STATE", steps.path("state")).env("KEYHATCH_RUNTIME", steps.path("run"));
    let told = told.env("PATH", path_with_binary()).output().unwrap();
    let (stdout, stderr) = (text(&told.stdout), text(&told.stderr));
    assert!(told.status.success(), "{stdout}\n{stderr}");
    stdout
}

/// The journal tells the story, in order, with who and why.
fn check_journal(steps: &Steps) {
    let run = |arguments: &[&str]| steps.serving.run(arguments);
    let tail = ["journal", "tail", "-o", "json", "-n", "100"];
    let events = ["closed_by_operator", "blocked", "unblocked"];
    let asked: Vec<_> = events.iter().flat_map(|event| ["--event", *event]).collect();
    let lines = text(&run(&[&tail[..], &asked].concat()).stdout);
    let places: Vec<_> = events.iter().map(|event| lines.find(&format!("\"{event}\""))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{lines}");
    assert_eq!(lines.matches("incident 81").count(), 4, "{lines}");
    let verified =
        run(&["journal", "verify", "--ca", steps.path("state/ca.crt").to_str().unwrap()]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
}

//! A step's spec expands to no more than its budget.

use crate::harness::{Steps, secret, text};

/// Nested `jsonMarshal` of a quote. Each level writes a backslash before every inner backslash.
fn marshalled(times: usize) -> String {
    format!(
        "spec:\n  bomb: {}'\"'{}\n  fine: yes\n",
        "!Fn.jsonMarshal [".repeat(times),
        "]".repeat(times)
    )
}

#[test]
fn a_spec_that_doubles_itself_is_refused_and_leaves_no_file() {
    let world = Steps::seeded(&secret("token", "hush-hush"));
    std::fs::write(world.path("spec.yaml"), marshalled(26)).unwrap();
    let script = "curl -s -w ' %{http_code}\n' \"$METADATA_API_URL/spec?q=bomb\"; \
                  curl -s -w ' %{http_code}\n' \"$METADATA_API_URL/spec\"; \
                  curl -s \"$METADATA_API_URL/spec?q=fine\"; test -e key";
    let exec = ["exec", "--serve", "relay", "--spec", "spec.yaml", "--file", "key=secret:token"];
    let ran = world.run("keyhatch", &[&exec[..], &["--", "sh", "-c", script]].concat());
    let answers = text(&ran.stdout);
    assert!(answers.len() < 4096, "{} bytes", answers.len());
    let answers: Vec<_> = answers.lines().collect();
    assert!(answers[..2].iter().all(|one| one.ends_with(" 422")), "{answers:?}");
    assert!(answers[..2].iter().all(|one| one.contains("more than 4 MiB")), "{answers:?}");
    assert!(answers[2].contains("\"yes\""), "{answers:?}");
    assert!(ran.status.success(), "the command itself goes on");
    assert!(!world.path("key").exists());
}

//! A rewritten journal with another CA beside it proves nothing.

use std::path::Path;
use std::process::Output;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

use crate::harness::{ServeProcess, init_in, keyhatch_in, succeeded, temp_dir, text};

fn verify(directory: &Path, arguments: &[&str]) -> Output {
    keyhatch_in(directory, &[&["journal", "verify"], arguments].concat()).output().unwrap()
}

/// The CA's fingerprint that init printed.
fn fingerprint(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let line = said.lines().find(|line| line.starts_with("CA's SHA-256")).unwrap();
    line.split_whitespace().last().unwrap().to_owned()
}

#[test]
fn a_forged_journal_with_its_own_ca_is_not_proven() {
    let scratch = || temp_dir();
    let (ours, forged) = (scratch(), scratch());
    let made = keyhatch_in(ours.path(), &["init"]).output().unwrap();
    let noted = fingerprint(&made.stdout);
    for directory in [&ours, &forged] {
        let serving = ServeProcess::start(directory.path());
        let status = serving.run(&["status", "-o", "json"]).stdout;
        let status: Value = serde_json::from_slice(&status).unwrap();
        assert_eq!(status["ca_sha256"] == noted.as_str(), directory.path() == ours.path());
        assert!(serving.terminate());
    }
    std::fs::copy(ours.path().join("state/ca.crt"), ours.path().join("ca.crt")).unwrap();
    let ca = ours.path().join("ca.crt");
    let told: [&[&str]; 2] = [&["--ca-fingerprint", &noted], &["--ca", ca.to_str().unwrap()]];
    for told in told {
        succeeded(&verify(ours.path(), told));
    }
    // An attacker replaces it by a journal that another CA signed.
    for name in ["journal/000001.jsonl", "ca.crt"] {
        let to = ours.path().join("state").join(name);
        let _ = std::fs::remove_file(&to);
        std::fs::copy(forged.path().join("state").join(name), to).unwrap();
    }
    let believed = verify(ours.path(), &[]);
    let said = text(&believed.stderr);
    assert_eq!(believed.status.code(), Some(4), "{said}");
    assert!(said.contains("error: CA_NOT_COMPARED: ") && said.contains("compare"), "{said}");
    for told in told {
        assert_eq!(verify(ours.path(), told).status.code(), Some(1));
    }
}

/// The verified journal may come from anywhere.
#[test]
fn a_pipe_in_place_of_a_journals_file_is_not_waited_for() {
    let directory = temp_dir();
    init_in(directory.path());
    let file = directory.path().join("state/journal/000001.jsonl");
    std::fs::remove_file(&file).unwrap();
    mknodat(CWD, &file, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let refused = verify(directory.path(), &[]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("000001.jsonl: not a regular file"), "{said}");
}

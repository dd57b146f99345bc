//! Daemons that die or are restored, and places where no value may be.

use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use super::ROOT;
use super::upstream::{Scripted, status};
use crate::harness::{
    ServeProcess, connection, init_in, keyhatch_in, path_with_binary, request, resolve_on,
    restored, step_channel, succeeded, temp_dir, text, wait_until,
};

/// A broker that may ask the upstream, with oauth2/api.
fn seeded(directory: &Path, upstream: &Scripted) -> ServeProcess {
    init_in(directory);
    let serving = serve(directory, upstream, &[]);
    let url = upstream.url("/token");
    let fields = [("token_url", url.as_str()), ("client_id", "me"), ("client_secret", ROOT)];
    let path = directory.join("seed.yaml");
    std::fs::write(&path, connection("oauth2", "api", &fields)).unwrap();
    serving.must(&["apply", "-f", path.to_str().unwrap()]);
    serving
}

/// Such a broker, and the directory of an open step.
fn with_a_step(
    directory: &Path,
    upstream: &Scripted,
    runtime: &Runtime,
) -> (ServeProcess, PathBuf) {
    let serving = seeded(directory, upstream);
    let opened = runtime.block_on(serving.open("w", "s")).ok().unwrap();
    (serving, opened.directory.into())
}

/// One mint has failed, because the daemon was stopped.
fn assert_interrupted(lines: &str) {
    let failed: Vec<_> = lines.lines().filter(|line| line.contains("\"mint_failed\"")).collect();
    assert!(failed.len() == 1 && failed[0].contains("INTERRUPTED"), "{failed:?}");
}

/// Serves a broker that may ask the upstream.
pub fn serve(directory: &Path, upstream: &Scripted, options: &[&str]) -> ServeProcess {
    let path = directory.join("config.toml");
    std::fs::write(&path, format!("[egress]\nallow = [{:?}]\n", upstream.url(""))).unwrap();
    let arguments = [&["serve", "--config", path.to_str().unwrap()], options].concat();
    ServeProcess::spawn(directory, keyhatch_in(directory, &arguments))
}

#[test]
fn a_kill_between_the_lines_leaves_no_lease_and_no_mint() {
    let directory = temp_dir();
    let upstream = Scripted::start();
    let runtime = Runtime::new().unwrap();
    let (serving, step) = with_a_step(directory.path(), &upstream, &runtime);
    upstream.hold();
    let channel = runtime.block_on(step_channel(&step));
    let pending = runtime.spawn(resolve_on(channel, request("oauth2/api")));
    wait_until("the upstream is asked", || upstream.calls() == 1);
    serving.kill();
    assert!(runtime.block_on(pending).unwrap().is_err());
    let serving = serve(directory.path(), &upstream, &[]);
    upstream.release();
    let lines = std::fs::read_to_string(directory.path().join("state/journal/000001.jsonl"));
    let lines = lines.unwrap();
    assert_interrupted(&lines);
    assert!(!lines.contains("\"minted\""));
    // The step is still open, and asks again.
    let channel = runtime.block_on(step_channel(&step));
    let got = runtime.block_on(resolve_on(channel, request("oauth2/api"))).unwrap();
    assert_eq!(got.fields["access_token"], "minted-2");
    let log = serving.log();
    assert!(!log.contains(ROOT) && !log.contains("minted-"), "{log}");
    assert!(serving.terminate());
}

#[test]
fn a_kill_before_the_hand_out_leaves_no_lease() {
    let directory = temp_dir();
    let upstream = Scripted::start();
    let runtime = Runtime::new().unwrap();
    let (serving, step) = with_a_step(directory.path(), &upstream, &runtime);
    let channel = runtime.block_on(step_channel(&step));
    runtime.block_on(resolve_on(channel, request("oauth2/api"))).unwrap();
    serving.kill();
    // As if the daemon had died one line earlier.
    let journal = directory.path().join("state/journal/000001.jsonl");
    let lines = std::fs::read_to_string(&journal).unwrap();
    let (before, last) = lines.trim_end().rsplit_once('\n').unwrap();
    assert!(last.contains("\"mint_joined\"") && before.contains("\"minted\""), "{last}");
    std::fs::write(&journal, format!("{before}\n")).unwrap();
    let serving = serve(directory.path(), &upstream, &[]);
    let lines = std::fs::read_to_string(&journal).unwrap();
    assert_interrupted(&lines);
    assert!(serving.terminate());
}

#[test]
fn nothing_shows_a_root_or_a_minted_value() {
    let directory = temp_dir();
    let upstream = Scripted::start();
    let runtime = Runtime::new().unwrap();
    let (serving, step) = with_a_step(directory.path(), &upstream, &runtime);
    let channel = runtime.block_on(step_channel(&step));
    let resolve = || runtime.block_on(resolve_on(channel.clone(), request("oauth2/api")));
    assert_eq!(resolve().unwrap().fields["access_token"], "minted-1");
    // A reply that echoes the request, as broken servers do.
    upstream.answers(|_| status(400, &format!("{{\"error\": \"{ROOT}\", \"x\": \"minted-9\"}}")));
    let secret = directory.path().join("secret");
    std::fs::write(&secret, format!("{ROOT}-2")).unwrap();
    let field = format!("client_secret=@{}", secret.display());
    serving.must(&["connection", "update", "oauth2/api", "--field", &field]);
    let refused = resolve().unwrap_err();
    let mut shown = format!("{refused:?}{}", serving.log());
    let commands: [&[&str]; 7] = [
        &["connection", "get", "oauth2/api", "-o", "json"],
        &["connection", "test", "oauth2/api", "-o", "json"],
        &["run", "show", "1", "--workflow", "w", "-o", "json"],
        &["journal", "tail", "-o", "json"],
        &["status", "-o", "json"],
        &["export"],
        &["explain", "oauth2/api", "--workflow", "w", "--step", "s"],
    ];
    for command in commands {
        let ran = serving.run(command);
        shown += &String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat());
    }
    assert!(shown.contains("oauth2/api"), "{shown}");
    for canary in [ROOT, "minted-1", "minted-9"] {
        assert!(!shown.contains(canary), "{canary}: {shown}");
    }
    drop(serving);
    holds_none_of(&[ROOT, "minted-1", "minted-9"], directory.path().join("state"));
}

/// Asserts that no file below holds one of these.
pub fn holds_none_of(canaries: &[&str], below: PathBuf) {
    let mut directories = vec![below];
    while let Some(below) = directories.pop() {
        for entry in std::fs::read_dir(below).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            for canary in canaries {
                let holds = bytes.windows(canary.len()).any(|part| part == canary.as_bytes());
                assert!(!holds, "{canary}: {}", path.display());
            }
        }
    }
}

#[test]
fn a_restored_broker_mints_nothing_until_it_is_confirmed() {
    let (directory, other) = (temp_dir(), temp_dir());
    let upstream = Scripted::start();
    let serving = seeded(directory.path(), &upstream);
    let archive = directory.path().join("backup.tar");
    serving.must(&["backup", archive.to_str().unwrap()]);
    drop(serving);
    let kek = restored(other.path(), &archive, &directory.path().join("state/kek"));
    let kek = kek.each_ref().map(String::as_str);
    let serving = serve(other.path(), &upstream, &kek);
    let get = || {
        let words =
            ["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--", "keyhatch"];
        let mut get = keyhatch_in(other.path(), &[&words[..], &["get", "oauth2/api"]].concat());
        get.env("PATH", path_with_binary()).output().unwrap()
    };
    let refused = get();
    assert!(text(&refused.stderr).contains("error: QUARANTINED"), "{}", text(&refused.stderr));
    assert_eq!(upstream.calls(), 0);
    serving.must(&["restore", "--confirm"]);
    assert!(succeeded(&get()).contains("minted-1"));
}

//! git by `--serve git`.

use std::process::Command;

use super::World;
use crate::harness::{UPSTREAM_TOKEN, succeeded, text};

/// The user of commits, and no configuration of this machine.
const ISOLATED: [(&str, &str); 6] = [
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_AUTHOR_NAME", "n"),
    ("GIT_AUTHOR_EMAIL", "e"),
    ("GIT_COMMITTER_NAME", "n"),
    ("GIT_COMMITTER_EMAIL", "e"),
];

#[test]
fn git_clones_fetches_and_pushes_without_a_token() {
    let Some(world) = World::start() else { return };
    world.nginx.make_repository("site");
    // The user's own entries stay. A pack that is larger than git's buffer goes in chunks.
    let script = "
        git clone -q https://git.example.com/site.git clone
        cd clone
        git config remote.origin.url
        git config my.entry
        head -c 3000000 /dev/urandom > large
        git add large
        git commit -q -m second
        git push -q
        git fetch -q
        git log --format=%s
        git config --list --show-origin
        env";
    let mut command = world.command("git=git.example.com=http/repositories", script);
    command.envs(ISOLATED).env("GIT_CONFIG_COUNT", "1");
    command.env("GIT_CONFIG_KEY_0", "my.entry").env("GIT_CONFIG_VALUE_0", "mine");
    let ran = command.output().unwrap();
    let said = succeeded(&ran);
    assert!(said.starts_with("https://git.example.com/site.git\nmine\nsecond\nfirst\n"), "{said}");
    let log = Command::new("git")
        .args(["-C", "site.git", "log", "--format=%s"])
        .current_dir(world.nginx.repositories())
        .output();
    assert_eq!(succeeded(&log.unwrap()), "second\nfirst\n");
    assert!(!said.contains(UPSTREAM_TOKEN), "{said}");
    let kept = std::fs::read_to_string(world.steps.path("clone/.git/config")).unwrap();
    assert!(!kept.contains("127.0.0.1"), "{kept}");
    let asked = world.nginx.asked();
    assert!(asked.contains("POST /git/site.git/git-receive-pack 200"), "{asked}");
}

#[test]
fn git_asks_nobody_for_a_password() {
    let Some(world) = World::start() else { return };
    let script = "git clone -q https://git.example.com/site.git clone 2>&1 || true";
    // Below /api the server wants a bearer.
    let mut command = world.command("git=git.example.com=http/none", script);
    let said = text(&command.envs(ISOLATED).output().unwrap().stdout);
    assert!(said.contains("403") && !said.contains("Username"), "{said}");
}

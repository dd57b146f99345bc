//! Refresh tokens and daemons that are killed, stopped or restored, and disks that fail: no token is lost but in the one window
//! that is named.

use std::path::{Path, PathBuf};
use std::process::Command;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use serde_json::Value as Json;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::durability::disk::shim;
use crate::harness::{
    Got, ServeProcess, SmallFilesystem, Upstream, connection, init_in, keyhatch_in,
    path_with_binary, reason, request, resolve_on, restored, skipped, step_channel, succeeded,
    temp_dir, text, wait_until,
};
use crate::mint::token_servers::is_active;
use crate::mint::upstream::{Scripted, status};

const NAME: &str = "oauth2/app";

/// A token server, and a broker in a directory that has oauth2/app and an open step.
struct World {
    tokens: Upstream,
    runtime: Runtime,
    step: PathBuf,
    directory: tempfile::TempDir,
}

/// A Resolve that is under way.
type Pending = JoinHandle<Result<Got, Status>>;

impl World {
    /// `None` if the server is not installed.
    fn start() -> Option<(Self, ServeProcess)> {
        let directory = temp_dir();
        Self::start_in(directory, |_| {})
    }

    fn start_in(
        directory: tempfile::TempDir,
        change: impl FnOnce(&mut Command),
    ) -> Option<(Self, ServeProcess)> {
        let tokens = Upstream::tokens()?;
        init_in(directory.path());
        let mut world =
            Self { tokens, runtime: Runtime::new().unwrap(), step: PathBuf::new(), directory };
        let mut serve = world.serving(&[]);
        change(&mut serve);
        let serving = ServeProcess::spawn(world.directory.path(), serve);
        world.seed(&serving);
        let opened = world.runtime.block_on(serving.open("w", "s")).unwrap();
        world.step = opened.directory.into();
        Some((world, serving))
    }

    /// The command that serves a broker which may ask the token server.
    fn serving(&self, options: &[&str]) -> Command {
        serving_in(self.directory.path(), &self.tokens.origin(), options)
    }

    fn restart(&self) -> ServeProcess {
        ServeProcess::spawn(self.directory.path(), self.serving(&[]))
    }

    /// Writes a new refresh token.
    fn seed(&self, serving: &ServeProcess) {
        let url = format!("{}/token", self.tokens.origin());
        let seed = self.tokens.get("/seed/kh-refresh");
        let fields = [
            ("token_url", url.as_str()),
            ("client_id", "kh-refresh"),
            ("client_secret", "r3fresh-secret"),
            ("refresh_token", &seed),
        ];
        apply(self.directory.path(), serving, &fields);
    }

    fn resolve(&self) -> Result<Got, Status> {
        self.runtime.block_on(resolve_at(&self.step))
    }

    /// Begins a Resolve, and waits until the server holds its request, or its answer.
    fn resolve_held(&self, place: &str) -> Pending {
        self.tokens.get(&format!("/gate/{place}"));
        let step = self.step.clone();
        let pending = self.runtime.spawn(async move { resolve_at(&step).await });
        wait_until("the server holds it", || self.tokens.get("/held") == "1");
        pending
    }

    fn end(&self, pending: Pending) -> Result<Got, Status> {
        self.runtime.block_on(pending).unwrap()
    }

    /// The files of refresh tokens that the store has not taken.
    fn spares(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.directory.path().join("state")).unwrap();
        let is_one = |file: &PathBuf| file.to_str().unwrap().contains("/refresh-token-");
        files.map(|file| file.unwrap().path()).filter(is_one).collect()
    }

    fn assert_usable(&self) {
        let got = self.resolve().unwrap_or_else(|error| panic!("{error}"));
        assert!(is_active(&self.tokens, &got.fields["access_token"]));
    }

    fn journal(&self) -> PathBuf {
        self.directory.path().join("state/journal/000001.jsonl")
    }

    /// The first line of an event.
    fn line(&self, event: &str) -> Json {
        let lines = std::fs::read_to_string(self.journal()).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
        lines.into_iter().find(|line| line["event"] == event).unwrap()
    }
}

fn serving_in(directory: &Path, allowed: &str, options: &[&str]) -> Command {
    let path = directory.join("config.toml");
    std::fs::write(&path, format!("[egress]\nallow = [{allowed:?}]\n")).unwrap();
    let arguments = [&["serve", "--config", path.to_str().unwrap()], options].concat();
    keyhatch_in(directory, &arguments)
}

fn apply(directory: &Path, serving: &ServeProcess, fields: &[(&str, &str)]) {
    let path = directory.join("seed.yaml");
    std::fs::write(&path, connection("oauth2", "app", fields)).unwrap();
    serving.must(&["apply", "-f", path.to_str().unwrap()]);
}

async fn resolve_at(step: &Path) -> Result<Got, Status> {
    resolve_on(step_channel(step).await, request(NAME)).await
}

/// What is known of the refresh token.
fn state(serving: &ServeProcess) -> Json {
    let shown = serving.must(&["connection", "get", NAME, "-o", "json"]);
    serde_json::from_str::<Json>(&shown).unwrap()["refresh_token"].clone()
}

#[test]
fn a_kill_before_the_server_acts_burns_no_token() {
    let Some((world, serving)) = World::start() else { return };
    let pending = world.resolve_held("before");
    serving.kill();
    assert!(world.end(pending).is_err());
    world.tokens.get("/gate/open");
    let serving = world.restart();
    world.assert_usable();
    assert_eq!(state(&serving)["generation"], 1);
}

#[test]
fn a_kill_before_the_answer_is_named_by_the_next_refusal() {
    let Some((world, serving)) = World::start() else { return };
    let pending = world.resolve_held("after");
    serving.kill();
    assert!(world.end(pending).is_err());
    world.tokens.get("/gate/open");
    let mint = world.line("minting")["mint"].as_str().unwrap().to_owned();
    let serving = world.restart();
    for _ in 0..2 {
        assert_eq!(reason(world.resolve()), "REAUTHORIZATION_REQUIRED");
    }
    assert_eq!(world.tokens.get("/asked"), "2");
    let why = state(&serving)["reauthorization_required"].as_str().unwrap().to_owned();
    assert!(why.contains(&mint) && why.contains("cut short"), "{why}");
    let doctor = text(&serving.run(&["doctor"]).stdout);
    assert!(doctor.contains(NAME) && doctor.contains("REAUTHORIZATION_REQUIRED"), "{doctor}");
    world.seed(&serving);
    world.assert_usable();
}

#[test]
fn a_kill_during_a_test_is_named_too() {
    let Some((world, serving)) = World::start() else { return };
    world.tokens.get("/gate/after");
    let mut test = keyhatch_in(world.directory.path(), &["connection", "test", "--mint", NAME]);
    let mut testing = test.spawn().unwrap();
    wait_until("the server holds it", || world.tokens.get("/held") == "1");
    serving.kill();
    assert!(!testing.wait().unwrap().success());
    world.tokens.get("/gate/open");
    let serving = world.restart();
    assert_eq!(reason(world.resolve()), "REAUTHORIZATION_REQUIRED");
    let why = state(&serving)["reauthorization_required"].as_str().unwrap().to_owned();
    assert!(why.contains("the test of"), "{why}");
}

#[test]
fn a_kill_after_the_token_is_kept_burns_no_token() {
    let Some((world, serving)) = World::start() else { return };
    let mut serving = serving;
    // The lines after the token is in the store, of which a kill may cut any.
    let lines = ["head", "minted", "mint_joined"];
    for cut in 0..=lines.len() {
        world.assert_usable();
        serving.kill();
        let journal = std::fs::read_to_string(world.journal()).unwrap();
        let mut kept: Vec<_> = journal.lines().collect();
        for expected in lines.iter().rev().take(cut) {
            let last = kept.pop().unwrap();
            assert!(last.contains(&format!("\"{expected}\"")), "{last}");
        }
        std::fs::write(world.journal(), kept.join("\n") + "\n").unwrap();
        serving = world.restart();
    }
    world.assert_usable();
    assert_eq!(state(&serving)["generation"], 5);
}

#[test]
fn a_daemon_that_stops_waits_for_the_answer() {
    let Some((world, serving)) = World::start() else { return };
    let pending = world.resolve_held("after");
    rustix::process::kill_process(serving.pid(), rustix::process::Signal::TERM).unwrap();
    wait_until("it waits no longer for requests", || serving.log().contains("the drain timed out"));
    world.tokens.get("/gate/open");
    assert!(serving.terminate());
    drop(pending);
    let serving = world.restart();
    assert_eq!(state(&serving)["generation"], 1);
    world.assert_usable();
}

/// Fills the disk.
fn fill(disk: &Path) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).open(disk.join("fill")).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
}

#[test]
fn a_disk_that_fills_up_meanwhile_loses_no_token() {
    let directory = temp_dir();
    let disk = directory.path().join("state");
    let Some(_mounted) = SmallFilesystem::mount(&disk, "size=64m,mode=0700") else {
        skipped("a full disk", "needs the right to mount");
        return;
    };
    let Some((world, serving)) = World::start_in(directory, |_| {}) else { return };
    let pending = world.resolve_held("after");
    fill(&disk);
    world.tokens.get("/gate/open");
    wait_until("the store does not take it", || {
        serving.log().contains("the store does not take the refresh token")
    });
    std::fs::remove_file(disk.join("fill")).unwrap();
    wait_until("it is there", || world.resolve().is_ok());
    drop(pending);
    assert_eq!(state(&serving)["generation"], 1);
    assert_eq!(world.tokens.get("/asked"), "1");
    serving.kill();
    drop(world.restart());
}

#[test]
fn a_store_that_fails_meanwhile_loses_no_token() {
    let Some(shim) = shim() else { return };
    let directory = temp_dir();
    let hang = directory.path().join("hang");
    let (state_directory, record) =
        (directory.path().join("state"), directory.path().join("record"));
    let fail = |serve: &mut Command| {
        serve
            .env("LD_PRELOAD", shim)
            .env("SHIM_DIRECTORY", state_directory)
            .env("SHIM_LOG", record)
            .env("SHIM_HANG", format!("write:store/db:{}", hang.display()));
    };
    let Some((world, serving)) = World::start_in(directory, fail) else { return };
    let pending = world.resolve_held("after");
    std::fs::write(&hang, "").unwrap();
    world.tokens.get("/gate/open");
    wait_until("the token is in a file", || serving.log().contains("in a file"));
    serving.kill();
    assert!(world.end(pending).is_err());
    let [spare] = &*world.spares() else { panic!("{:?}", world.spares()) };
    let content = std::fs::read(spare).unwrap();
    let serving = world.restart();
    world.assert_usable();
    assert_eq!(state(&serving)["generation"], 2);
    assert_eq!(world.tokens.get("/asked"), "2");
    assert!(world.spares().is_empty());
    // Another token was written since the one in the file, and counts.
    world.seed(&serving);
    serving.kill();
    std::fs::write(spare, &content).unwrap();
    let serving = world.restart();
    world.assert_usable();
    let [aside] = &*world.spares() else { panic!("{:?}", world.spares()) };
    assert_eq!(aside, &spare.with_extension("set-aside"));
    assert_eq!(std::fs::read(aside).unwrap(), content);
    assert!(serving.log().contains("another refresh token was written"), "{}", serving.log());
}

#[test]
fn a_restored_broker_uses_no_token_from_the_backup() {
    assert_unused_after_restore(true);
}

#[test]
fn a_restored_token_that_was_never_used_waits_too() {
    assert_unused_after_restore(false);
}

fn assert_unused_after_restore(is_rotated: bool) {
    let Some((world, serving)) = World::start() else { return };
    if is_rotated {
        world.assert_usable();
    }
    let asked = world.tokens.get("/asked");
    let archive = world.directory.path().join("backup.tar");
    serving.must(&["backup", archive.to_str().unwrap()]);
    drop(serving);
    let other = temp_dir();
    let kek = restored(other.path(), &archive, &world.directory.path().join("state/kek"));
    let kek = kek.each_ref().map(String::as_str);
    let serve = serving_in(other.path(), &world.tokens.origin(), &kek);
    let serving = ServeProcess::spawn(other.path(), serve);
    let get = || {
        let words =
            ["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--", "keyhatch"];
        let mut get = keyhatch_in(other.path(), &[&words[..], &["get", NAME]].concat());
        get.env("PATH", path_with_binary()).output().unwrap()
    };
    serving.must(&["restore", "--confirm", "--original-gone"]);
    let refused = text(&get().stderr);
    assert!(refused.contains("error: REAUTHORIZATION_REQUIRED"), "{refused}");
    let why = state(&serving)["reauthorization_required"].as_str().unwrap().to_owned();
    assert!(why.contains("comes from a backup of 20"), "{why}");
    assert_eq!(world.tokens.get("/asked"), asked);
    let both = ["restore", "--confirm", "--copy", "--refresh-tokens-current"];
    assert!(!serving.run(&both).status.success(), "the original uses the tokens of a copy");
    // Other clients are told the reason.
    let restored_as = pb::RestoredAs::Copy.into();
    let both = pb::EndQuarantineRequest { restored_as, refresh_tokens_current: true };
    let told = world.runtime.block_on(async {
        let operator = serving.admin("operators/admin").await;
        SystemServiceClient::new(operator).end_quarantine(both).await
    });
    assert_eq!(reason(told), "RESTORE_CONTRADICTORY");
    serving.must(&["restore", "--confirm", "--refresh-tokens-current"]);
    succeeded(&get());
    assert_ne!(world.tokens.get("/asked"), asked);
}

#[test]
fn nothing_shows_a_refresh_token() {
    let canaries = ["seed-canary", "next-canary", "access-canary"];
    let directory = temp_dir();
    let upstream = Scripted::start();
    upstream.answers(|n| match n {
        1 => status(
            200,
            r#"{"access_token": "access-canary", "token_type": "Bearer", "refresh_token": "next-canary"}"#,
        ),
        _ => status(400, r#"{"error": "invalid_grant", "error_description": "next-canary"}"#),
    });
    init_in(directory.path());
    let serve = serving_in(directory.path(), &upstream.url(""), &[]);
    let serving = ServeProcess::spawn(directory.path(), serve);
    let url = upstream.url("/token");
    let fields = [("token_url", url.as_str()), ("client_id", "me"), ("refresh_token", canaries[0])];
    apply(directory.path(), &serving, &fields);
    let runtime = Runtime::new().unwrap();
    let open = |step| PathBuf::from(runtime.block_on(serving.open("w", step)).unwrap().directory);
    runtime.block_on(resolve_at(&open("s1"))).unwrap();
    assert!(String::from_utf8(upstream.asked()[0].body.clone()).unwrap().contains(canaries[0]));
    let mut shown = text(&serving.run(&["connection", "test", "--mint", NAME]).stdout);
    assert!(String::from_utf8(upstream.asked()[1].body.clone()).unwrap().contains(canaries[1]));
    let commands: [&[&str]; 7] = [
        &["connection", "get", NAME, "-o", "json"],
        &["connection", "get", NAME],
        &["run", "show", "1", "--workflow", "w", "-o", "json"],
        &["journal", "tail", "-o", "json"],
        &["doctor"],
        &["export"],
        &["explain", NAME, "--workflow", "w", "--step", "s"],
    ];
    for command in commands {
        let ran = serving.run(command);
        shown += &String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat());
    }
    shown += &serving.log();
    assert!(shown.contains("REAUTHORIZATION_REQUIRED"), "{shown}");
    drop(serving);
    crate::mint::processes::holds_none_of(&canaries, directory.path().join("state"));
    for canary in canaries {
        assert!(!shown.contains(canary), "{canary}: {shown}");
    }
}

//! A credential that is owed an ending gets it, whenever the daemon is killed and whatever the upstream does meanwhile.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::harness::{
    Scrape, ServeProcess, SmallFilesystem, connection, copy_directory, init_in, keyhatch_in,
    path_with_binary, reason, request, resolve_on, restored, skipped, step_channel, succeeded,
    temp_dir, text, wait_until,
};
use crate::mint::upstream::{Scripted, status};
use crate::security::secrecy::{everything_below, holds};

/// The root. No file, page or answer shows it.
const ROOT: &str = "root-of-the-client";

/// A broker that may ask an upstream for tokens of oauth2/api, and have them revoked.
pub struct World {
    serving: Option<ServeProcess>,
    /// The disk of the state, if it is a small one. It is unmounted after the daemon has ended.
    disk: Option<SmallFilesystem>,
    pub directory: tempfile::TempDir,
    tokens: Scripted,
    pub revocations: Scripted,
    pub runtime: Runtime,
    /// Of the daemon.
    env: Vec<(&'static str, OsString)>,
}

impl World {
    fn start() -> Self {
        Self::start_on(|_| None)
    }

    /// With a disk for this state directory.
    fn start_on(disk: impl Fn(&Path) -> Option<SmallFilesystem>) -> Self {
        Self::start_with(disk, |_| Vec::new())
    }

    /// With these variables of the daemon, by its directory.
    pub fn start_with(
        disk: impl Fn(&Path) -> Option<SmallFilesystem>,
        env: impl Fn(&Path) -> Vec<(&'static str, OsString)>,
    ) -> Self {
        let (tokens, revocations) = (Scripted::start(), Scripted::start());
        let (directory, runtime) = (temp_dir(), Runtime::new().unwrap());
        let disk = disk(&directory.path().join("state"));
        init_in(directory.path());
        let env = env(directory.path());
        let mut world = Self { directory, tokens, revocations, runtime, serving: None, disk, env };
        world.serve();
        let (token, revocation) = (world.tokens.url("/token"), world.revocations.url("/revoke"));
        let fields = [
            ("token_url", token.as_str()),
            ("revocation_url", &revocation),
            ("client_id", "me"),
            ("client_secret", ROOT),
        ];
        let seed = world.path("seed.yaml");
        std::fs::write(&seed, connection("oauth2", "api", &fields)).unwrap();
        world.must(&["apply", "-f", seed.to_str().unwrap()]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn serve(&mut self) {
        self.serving = Some(self.serve_in(self.directory.path(), &[]));
    }

    /// Serves a broker with the same rules of egress.
    fn serve_in(&self, directory: &Path, options: &[&str]) -> ServeProcess {
        let path = directory.join("config.toml");
        let allow = [self.tokens.url(""), self.revocations.url("")];
        std::fs::write(&path, format!("[egress]\nallow = {allow:?}\n")).unwrap();
        let serve = ["serve", "--metrics", "127.0.0.1:0", "--config", path.to_str().unwrap()];
        let mut serve = keyhatch_in(directory, &[&serve[..], options].concat());
        serve.envs(self.env.iter().cloned());
        ServeProcess::spawn(directory, serve)
    }

    pub fn serving(&self) -> &ServeProcess {
        self.serving.as_ref().unwrap()
    }

    pub fn must(&self, arguments: &[&str]) -> String {
        self.serving().must(arguments)
    }

    /// Ends the daemon in order.
    pub fn stop(&mut self) {
        assert!(self.serving.take().unwrap().terminate());
    }

    pub fn kill(&mut self) {
        self.serving.take().unwrap().kill();
    }

    /// Opens a step, and resolves oauth2/api in it. Returns the name and the directory of the step.
    pub fn resolve(&self, step: &str) -> (String, PathBuf) {
        let opened = self.runtime.block_on(self.serving().open("w", step)).unwrap();
        let directory = PathBuf::from(opened.directory);
        let got = self.runtime.block_on(async {
            resolve_on(step_channel(&directory).await, request("oauth2/api")).await
        });
        assert!(got.unwrap().fields["access_token"].starts_with("minted-"));
        (opened.name, directory)
    }

    fn journal(&self) -> PathBuf {
        self.path("state/journal/000001.jsonl")
    }

    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.journal()).unwrap();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn count(&self, event: &str) -> usize {
        self.lines().iter().filter(|line| line["event"] == event).count()
    }

    /// How many records were kept, and how many were removed.
    fn kept(&self) -> (usize, usize) {
        let lines = self.lines();
        let changes = lines.iter().filter_map(|line| line["changes"].as_array()).flatten();
        let actions: Vec<_> = changes.map(|change| change["action"].clone()).collect();
        let of = |name: &str| actions.iter().filter(|action| **action == name).count();
        (of("ending.keep"), of("ending.forget"))
    }

    /// Takes off the lines after the last line of an event, as if the daemon had died there. No change is among them.
    fn cut_after(&self, event: &str) {
        let text = std::fs::read_to_string(self.journal()).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let is_last = |line: &&str| line.contains(&format!("\"event\":\"{event}\""));
        let end = lines.iter().rposition(is_last).unwrap() + 1;
        let cut = lines[end..].concat();
        assert!(!cut.is_empty() && !cut.contains("\"intent\""), "{cut}");
        std::fs::write(self.journal(), lines[..end].concat()).unwrap();
    }

    /// Waits until everything that was kept is removed.
    pub fn wait_for_the_end(&self) {
        wait_until("nothing is kept", || {
            let (kept, removed) = self.kept();
            kept > 0 && kept == removed
        });
    }
}

fn json<'a>(lines: &'a [Value], event: &str) -> &'a Value {
    lines.iter().rfind(|line| line["event"] == event).unwrap()
}

#[test]
fn what_may_have_been_made_before_a_kill_is_ended() {
    // Killed between the kept record and the line of the credential.
    let mut world = World::start();
    world.resolve("s");
    world.kill();
    world.cut_after("head");
    assert_eq!((world.count("minting"), world.count("minted")), (1, 0));
    world.serve();
    world.wait_for_the_end();
    let lines = world.lines();
    let failed = json(&lines, "mint_failed");
    assert_eq!((&failed["reason"], &failed["owed"]), (&"INTERRUPTED".into(), &true.into()));
    assert_eq!(json(&lines, "ending")["reason"], "interrupted");
    assert_eq!(world.revocations.revoked(), ["minted-1"]);
}

#[test]
fn a_credential_that_nobody_got_before_a_kill_is_ended() {
    let mut world = World::start();
    world.resolve("s");
    world.kill();
    world.cut_after("minted");
    world.serve();
    world.wait_for_the_end();
    let lines = world.lines();
    assert_eq!(json(&lines, "ending")["reason"], "lease_ended");
    assert_eq!(json(&lines, "ended_upstream")["mint"], json(&lines, "minted")["mint"]);
    assert_eq!(world.revocations.calls(), 1);
}

#[test]
fn an_ending_goes_on_after_a_kill_and_is_told_by_its_run() {
    let mut world = World::start();
    let (step, _) = world.resolve("s");
    world.revocations.hold();
    let close = ["step", "close", step.as_str()];
    let mut close = keyhatch_in(world.directory.path(), &close).spawn().unwrap();
    wait_until("the upstream is asked", || world.revocations.calls() == 1);
    world.kill();
    close.kill().unwrap();
    close.wait().unwrap();
    assert_eq!((world.count("ending"), world.count("ended_upstream")), (1, 0));
    copy_directory(&world.path("state/store"), &world.path("store"));
    world.revocations.release();
    world.serve();
    world.wait_for_the_end();
    assert_eq!(world.count("ending"), 1);
    assert_eq!(world.revocations.calls(), 2);
    // Killed between the line and the removal of the record.
    world.kill();
    cut_changes_after(&world, "ended_upstream");
    std::fs::remove_dir_all(world.path("state/store")).unwrap();
    copy_directory(&world.path("store"), &world.path("state/store"));
    assert_eq!(world.kept(), (1, 0));
    world.serve();
    world.wait_for_the_end();
    assert_eq!(world.revocations.calls(), 2, "it is not asked again");
    // Its lines are found by the step that is closed, and by the connection.
    for filter in [
        ["--run", "1"],
        ["--principal", "workflow:w/run:1/step:s"],
        ["--resource", "oauth2/api"],
        ["--event", "ended_upstream"],
    ] {
        let shown =
            world.must(&[&["journal", "tail", "-n", "99", "-o", "json"], &filter[..]].concat());
        assert!(shown.contains("\"event\":\"ended_upstream\""), "{filter:?}: {shown}");
    }
}

#[test]
fn a_full_disk_neither_loses_nor_hands_out_what_is_owed() {
    let mount = |state: &Path| SmallFilesystem::mount(state, "size=64m,mode=0700");
    let mut world = World::start_on(mount);
    if world.disk.is_none() {
        skipped("endings on a full disk", "needs the right to mount");
        return;
    }
    let (step, directory) = world.resolve("s");
    let other = world.runtime.block_on(world.serving().open("w", "other")).unwrap();
    // The disk is full when the upstream answers: what it made is ended at once.
    world.tokens.hold();
    let channel = world.runtime.block_on(step_channel(Path::new(&other.directory)));
    let pending = world.runtime.spawn(resolve_on(channel, request("oauth2/api")));
    wait_until("the upstream is asked", || world.tokens.calls() == 2);
    world.disk.as_ref().unwrap().fill();
    let resolve = || {
        let one = async { resolve_on(step_channel(&directory).await, request("oauth2/api")).await };
        world.runtime.block_on(one)
    };
    wait_until("the disk is full to the last byte", || resolve().is_err());
    world.tokens.release();
    assert_eq!(reason(world.runtime.block_on(pending).unwrap()), "UPSTREAM_UNAVAILABLE");
    wait_until("it is ended", || world.revocations.calls() == 1);
    assert_eq!(world.revocations.revoked()[0], "minted-2");
    // A close ends the other upstream, also after a kill; only its record stays until there is room.
    world.revocations.hold();
    let mut close = keyhatch_in(world.directory.path(), &["step", "close", &step]).spawn().unwrap();
    wait_until("the other is ended", || world.revocations.calls() == 2);
    world.kill();
    close.kill().unwrap();
    close.wait().unwrap();
    world.revocations.release();
    world.serve();
    wait_until("it has ended", || world.count("ended_upstream") == 1);
    assert_eq!(world.kept(), (1, 0));
    world.disk.as_ref().unwrap().empty();
    world.wait_for_the_end();
    assert!(world.revocations.revoked()[1..].iter().all(|token| token == "minted-1"));
}

/// Takes off the lines after the last line of an event, with changes, whose store the caller puts back.
fn cut_changes_after(world: &World, event: &str) {
    let text = std::fs::read_to_string(world.journal()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_last = |line: &&str| line.contains(&format!("\"event\":\"{event}\""));
    let end = lines.iter().rposition(is_last).unwrap() + 1;
    std::fs::write(world.journal(), lines[..end].concat()).unwrap();
}

#[test]
fn nothing_shows_what_ends_a_credential() {
    let world = World::start();
    let (step, _) = world.resolve("s");
    world.revocations.revokes(|_| status(500, "{\"error\": \"minted-1\"}"));
    world.must(&["step", "close", &step]);
    wait_until("the ending has begun", || world.count("ending") == 1);
    let address = world.serving().metrics_address();
    let mut shown = Scrape::of(address).text;
    let commands: [&[&str]; 6] = [
        &["export"],
        &["journal", "tail", "-n", "99", "-o", "json"],
        &["connection", "get", "oauth2/api", "-o", "json"],
        &["run", "show", "1", "--workflow", "w", "-o", "json"],
        &["ending", "list", "-o", "json"],
        &["status", "-o", "json"],
    ];
    for command in commands {
        shown += &world.must(command);
    }
    shown += &world.serving().log();
    assert!(shown.contains("ending.keep"), "{shown}");
    drop(world.serving);
    let mut files = Vec::new();
    everything_below(&world.directory.path().join("state"), &mut files);
    files.extend(shown.into_bytes());
    for canary in [ROOT, "minted-1"] {
        assert!(!holds(&files, canary), "{canary}");
    }
}

impl World {
    /// Makes another broker of a backup, which is served with the KEK of this one.
    fn restored(&self, archive: &Path) -> (tempfile::TempDir, ServeProcess) {
        let other = temp_dir();
        let kek = restored(other.path(), archive, &self.path("state/kek"));
        let serving = self.serve_in(other.path(), &kek.each_ref().map(String::as_str));
        (other, serving)
    }
}

/// The lines of an event in a broker's journal.
fn told(serving: &ServeProcess, event: &str) -> Vec<Value> {
    let lines = serving.must(&["journal", "tail", "-n", "999", "--event", event, "-o", "json"]);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn get(directory: &Path) -> Output {
    let run = ["step", "run", "--workflow", "w", "--run", "2", "--step", "s", "--", "keyhatch"];
    let mut get = keyhatch_in(directory, &[&run[..], &["get", "oauth2/api"]].concat());
    get.env("PATH", path_with_binary()).output().unwrap()
}

#[test]
fn a_restored_broker_ends_what_is_its_own_to_end() {
    let mut world = World::start();
    world.resolve("s");
    let archive = world.path("backup.tar");
    world.must(&["backup", archive.to_str().unwrap()]);
    world.kill();
    let (gone_home, gone) = world.restored(&archive);
    let (copy_home, copy) = world.restored(&archive);
    for serving in [&gone, &copy] {
        assert!(serving.must(&["step", "list", "-o", "name"]).trim().is_empty());
        let undecided = serving.run(&["restore", "--confirm"]);
        let said = text(&undecided.stderr);
        assert!(said.contains("RESTORE_UNDECIDED") && said.contains("--copy"), "{said}");
        let both = serving.run(&["restore", "--confirm", "--copy", "--original-gone"]);
        assert!(!both.status.success());
        assert_eq!(told(serving, "ending").len(), 0);
    }
    assert_eq!(world.revocations.calls(), 0, "in quarantine nothing is ended");
    copy.must(&["restore", "--confirm", "--copy"]);
    gone.must(&["restore", "--confirm", "--original-gone"]);
    let is_forgotten = |serving: &ServeProcess| {
        told(serving, "intent").iter().any(|line| line.to_string().contains("ending.forget"))
    };
    wait_until("both keep nothing", || is_forgotten(&gone) && is_forgotten(&copy));
    assert_eq!((told(&gone, "ended_upstream").len(), told(&copy, "ended_upstream").len()), (1, 0));
    assert_eq!(told(&copy, "quarantine_ended")[0]["restored_as"], "copy");
    assert_eq!(told(&gone, "quarantine_ended")[0]["restored_as"], "original_gone");
    assert_eq!(world.revocations.revoked(), ["minted-1"]);
    // Both mint again.
    for home in [&gone_home, &copy_home] {
        succeeded(&get(home.path()));
    }
}

#[test]
fn what_ends_a_credential_is_sealed_again_under_a_new_key() {
    let mut world = World::start();
    let (step, directory) = world.resolve("s");
    world.must(&["key", "rotate", "--data"]);
    let deks = || world.must(&["key", "list", "-o", "json"]).matches("\"newest\"").count();
    wait_until("one data key is left", || deks() == 1);
    // What is in memory is still handed out.
    let again = async { resolve_on(step_channel(&directory).await, request("oauth2/api")).await };
    assert_eq!(world.runtime.block_on(again).unwrap().fields["access_token"], "minted-1");
    world.kill();
    world.serve();
    world.must(&["step", "close", &step]);
    world.wait_for_the_end();
    assert_eq!(world.revocations.revoked(), ["minted-1"]);
}

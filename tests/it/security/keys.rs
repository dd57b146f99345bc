//! Keys: from every source only the right KEK opens the state. Keys are replaced during work, and a kill at any moment
//! loses nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Output;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_request::Document;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use serde_json::Value;
use tempfile::TempDir;
use tonic::Status;

use crate::harness::{
    ServeProcess, TestBroker, block_on, bytes, connection_document, identity_in, init_in,
    keyhatch_in, reason, report, request, resolver, scale, secret_document, skipped, succeeded,
    temp_dir, text, wait_until,
};

fn scratch() -> TempDir {
    temp_dir()
}

fn private(path: &Path, content: &[u8]) {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400)).unwrap();
}

/// The stdout of a command that must succeed.
fn done(directory: &Path, arguments: &[&str]) -> String {
    succeeded(&keyhatch_in(directory, arguments).output().unwrap())
}

/// The stderr of a command that must fail.
fn refused(directory: &Path, arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = keyhatch_in(directory, arguments).output().unwrap();
    assert_eq!(status.code(), Some(1), "{arguments:?}: {}", text(&stderr));
    text(&stderr)
}

fn is_key_id(word: &str) -> bool {
    word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The number of different key ids in a text.
fn key_ids(text: &str) -> usize {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| is_key_id(word));
    words.collect::<std::collections::BTreeSet<_>>().len()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn read_json(path: &Path) -> Value {
    json(&std::fs::read_to_string(path).unwrap())
}

fn keyring_of(directory: &Path) -> Value {
    read_json(&directory.join("state/keyring.json"))
}

/// A directory for the passphrases, keys and commands of one broker.
struct Sources {
    directory: TempDir,
    passphrase: PathBuf,
    key: PathBuf,
    command: String,
}

impl Sources {
    fn new() -> Self {
        let directory = scratch();
        let (passphrase, key) = (directory.path().join("pass"), directory.path().join("a key"));
        private(&passphrase, b"correct horse battery staple\n");
        private(&key, "5a".repeat(32).as_bytes());
        // keyhatch parses the quotes itself, without a shell.
        let command = format!("cat '{}'", key.display());
        Self { directory, passphrase, key, command }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn passphrase(&self) -> &str {
        self.passphrase.to_str().unwrap()
    }

    /// Serves with these KEK flags.
    fn serve(&self, kek: &[&str]) -> ServeProcess {
        let command = keyhatch_in(self.path(), &[&["serve"], kek].concat());
        ServeProcess::spawn(self.path(), command)
    }
}

#[test]
fn only_the_right_kek_opens_from_each_of_its_sources() {
    type Change = fn(&Sources);
    let cases: [(&str, &[&str], Change, &str); 3] = [
        (
            "file",
            &["--kek-file", "KEY"],
            |sources| private(&sources.path().join("kek"), "6b".repeat(32).as_bytes()),
            "give the right KEK file",
        ),
        (
            "passphrase",
            &["--kek-passphrase-file", "PASSPHRASE"],
            |sources| private(&sources.passphrase, b"incorrect horse battery staple"),
            "the passphrase is wrong",
        ),
        (
            "command",
            &["--kek-command", "COMMAND"],
            // Any 32 bytes are a key, but not this broker's key.
            |sources| private(&sources.key, &[7; 32]),
            "its command printed another key",
        ),
    ];
    for (kind, arguments, change, hint) in cases {
        let sources = Sources::new();
        let kek = sources.path().join("kek");
        let meant = |word: &&'static str| match *word {
            "KEY" => kek.to_str().unwrap().to_owned(),
            "PASSPHRASE" => sources.passphrase().to_owned(),
            "COMMAND" => sources.command.clone(),
            word => word.to_owned(),
        };
        let arguments: Vec<String> = arguments.iter().map(meant).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut init = keyhatch_in(sources.path(), &["init"]);
        assert!(init.args(&arguments).output().unwrap().status.success(), "{kind}");
        assert!(!sources.path().join("state/kek").exists());
        let serving = sources.serve(&arguments);
        let listed = json(&done(sources.path(), &["key", "list", "-o", "json"]));
        assert_eq!(listed["kek_source"], kind);
        assert!(serving.terminate());
        change(&sources);
        let wrong = keyhatch_in(sources.path(), &["serve"]).args(&arguments).output().unwrap();
        let told = text(&wrong.stderr);
        assert!(!wrong.status.success() && told.contains(hint), "{kind}: {told}");
        assert_eq!(key_ids(&told), 2, "{kind}: {told}");
    }
}

#[test]
fn a_kek_command_without_a_key_is_named_without_its_output() {
    let sources = Sources::new();
    for (command, expected) in [
        ("sh -c 'echo canary-output; exit 3'", "exit status: 3"),
        ("sh -c 'echo canary-output'", "neither 64 hexadecimal digits nor 32 bytes"),
        ("sh -c 'echo canary-output; kill -9 $$'", "signal: 9"),
        ("/nowhere/kms", "cannot be run"),
        ("head -c 32 /dev/urandom", "two different keys"),
    ] {
        let told = refused(sources.path(), &["init", "--kek-command", command]);
        let program = match command.split(' ').next().unwrap() {
            "head" => "command",
            program => program,
        };
        assert!(told.contains(expected) && told.contains(program), "{told}");
        assert!(!told.contains("canary-output"), "{told}");
        // The failed init leaves nothing, so the next attempt starts fresh.
        assert_eq!(std::fs::read_dir(sources.path().join("state")).unwrap().count(), 0);
    }
    let short = keyhatch_in(sources.path(), &["init", "--kek-passphrase-file", "-"]).output();
    assert!(text(&short.unwrap().stderr).contains("too short"));
    // There is no terminal to ask on.
    let asked = keyhatch_in(sources.path(), &["init", "--kek-passphrase"]).output().unwrap();
    assert!(text(&asked.stderr).contains("--kek-passphrase-file"));
}

/// A writer of the state directory without a key must not bring back a leaked key.
#[test]
fn a_keyring_in_which_keys_changed_places_is_refused() {
    let sources = Sources::new();
    init_in(sources.path());
    let rotated = keyhatch_in(sources.path(), &["key", "rotate", "--data", "--offline"]).output();
    assert!(rotated.unwrap().status.success());
    let path = sources.path().join("state/keyring.json");
    let whole = read_json(&path);
    let changes: [fn(&mut Value); 3] = [
        |file| file["deks"].as_array_mut().unwrap().reverse(),
        |file| drop(file["deks"].as_array_mut().unwrap().remove(0)),
        |file| file["source"] = serde_json::json!({"file": "elsewhere"}),
    ];
    for change in changes {
        let mut changed = whole.clone();
        change(&mut changed);
        std::fs::write(&path, changed.to_string()).unwrap();
        let kek = sources.path().join("state/kek");
        let serve = keyhatch_in(sources.path(), &["serve", "--kek-file"]).arg(kek).output();
        let said = text(&serve.unwrap().stderr);
        assert!(said.contains("it was changed after it was written"), "{said}");
    }
    std::fs::write(&path, whole.to_string()).unwrap();
    assert!(ServeProcess::start(sources.path()).terminate());
}

fn keys(broker: &TestBroker) -> pb::ListKeysResponse {
    let mut client = SystemServiceClient::new(broker.operator());
    broker.block_on(client.list_keys(pb::ListKeysRequest {})).unwrap().into_inner()
}

fn rotate_kek(broker: &TestBroker) -> Result<pb::RotateKekResponse, Status> {
    let mut client = SystemServiceClient::new(broker.operator());
    broker.block_on(client.rotate_kek(pb::RotateKekRequest {})).map(tonic::Response::into_inner)
}

fn rotate_dek(broker: &TestBroker) -> Result<String, Status> {
    let mut client = SystemServiceClient::new(broker.operator());
    let rotated = broker.block_on(client.rotate_dek(pb::RotateDekRequest {}));
    rotated.map(|response| response.into_inner().dek_id)
}

#[test]
fn a_new_kek_replaces_the_old_one_which_opens_nothing_new() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let kek = broker.config.state.join("kek");
    let before = std::fs::read(&kek).unwrap();
    let old_keyring = std::fs::read(broker.config.state.join("keyring.json")).unwrap();
    let rotated = rotate_kek(&broker).unwrap();
    assert_ne!(rotated.old_kek_id, rotated.kek_id);
    assert_eq!(keys(&broker).kek_id, rotated.kek_id);
    assert_ne!(std::fs::read(&kek).unwrap(), before);
    assert_eq!(std::fs::metadata(&kek).unwrap().permissions().mode() & 0o777, 0o400);
    assert_eq!(std::fs::read(&rotated.old_kek_file).unwrap(), before);
    assert!(rotated.old_kek_file.ends_with(&format!("kek.{}", rotated.old_kek_id)));
    let line = &broker.journaled("key_rotated")[0];
    assert_eq!(line["principal"], "operator:admin");
    assert_eq!((&line["key"], &line["old"]), (&"kek".into(), &rotated.old_kek_id.clone().into()));
    assert_eq!(line["new"], rotated.kek_id);
    // After another rotation and a restart nothing is lost.
    rotate_kek(&broker).unwrap();
    broker.restart();
    let step = broker.open("w", "s");
    assert_eq!(broker.resolve(&step, "aws/prod").unwrap().fields["secret_access_key"], "s");
    broker.stop();
    let newest = std::fs::read(&kek).unwrap();
    private(&kek, &before);
    let told = broker.refusal();
    assert!(told.contains("is not the one") && key_ids(&told) == 2, "{told}");
    // The control: the old KEK opens the old keyring.
    std::fs::write(broker.config.state.join("keyring.json"), old_keyring).unwrap();
    assert_eq!(broker.refusal(), "");
    private(&kek, &newest);
    assert!(broker.refusal().contains("is not the one"));
}

#[test]
fn a_kek_that_cannot_be_replaced_stays_with_a_remedy() {
    let broker = TestBroker::start();
    // A directory blocks the new file, also for root.
    let in_the_way = broker.config.state.join("kek.next");
    std::fs::create_dir_all(in_the_way.join("x")).unwrap();
    let status = rotate_kek(&broker).unwrap_err();
    assert!(status.message().contains("key rotate --kek-file"), "{}", status.message());
    assert_eq!(reason(Err::<(), _>(status)), "KEK_NOT_REPLACEABLE");
    assert!(!broker.config.state.join("keyring.json.next").exists());
    assert!(broker.journaled("key_rotated").is_empty());
    std::fs::remove_dir_all(in_the_way).unwrap();
    rotate_kek(&broker).unwrap();
}

/// The files of a rotation: name in the state directory, content.
type Files<'a> = [(&'a str, &'a [u8])];

#[test]
#[expect(clippy::too_many_lines, reason = "a table of what a kill leaves")]
fn a_kill_during_a_rotation_leaves_a_keyring_that_opens() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:w"]);
    let state = broker.config.state.clone();
    let read = |name: &str| std::fs::read(state.join(name)).unwrap();
    let before = [read("kek"), read("keyring.json")];
    let rotated = rotate_kek(&broker).unwrap();
    let after = [read("kek"), read("keyring.json")];
    broker.stop();
    let [kek0, ring0] = before.each_ref().map(Vec::as_slice);
    let [kek1, ring1] = after.each_ref().map(Vec::as_slice);
    let kept = format!("kek.{}", rotated.old_kek_id);
    let kept = kept.as_str();
    let names = ["kek", "kek.next", kept, "keyring.json", "keyring.json.next"];
    let lay = |files: &Files| {
        for name in names {
            let _ = std::fs::remove_file(state.join(name));
        }
        files.iter().for_each(|(name, content)| private(&state.join(name), content));
    };
    let (old, new) = (rotated.old_kek_id.as_str(), rotated.kek_id.as_str());
    let before: &Files = &[("kek", kek0), ("keyring.json", ring0)];
    let next = ("keyring.json.next", ring1);
    let torn = ("keyring.json.next", &ring1[..ring1.len() / 2]);
    let kek_next = ("kek.next", kek1);
    type State<'a> = (&'a str, Vec<(&'a str, &'a [u8])>, &'a str);
    let states: [State<'_>; 7] = [
        ("nothing", before.to_vec(), old),
        ("a torn keyring", [before, &[torn]].concat(), old),
        ("the next keyring", [before, &[next]].concat(), old),
        ("the next KEK", [before, &[next, kek_next]].concat(), old),
        ("the old KEK kept", [before, &[next, kek_next, (kept, kek0)]].concat(), old),
        ("the KEK renamed", vec![("kek", kek1), ("keyring.json", ring0), next], new),
        ("all", vec![("kek", kek1), ("keyring.json", ring1)], new),
    ];
    for (what, files, kek) in &states {
        lay(files);
        // The second start shows that the first has finished or dropped the rotation for good.
        for _ in 0..2 {
            broker.serve();
            assert_eq!(keys(&broker).kek_id, **kek, "{what}");
            let step = broker.open("w", "s");
            assert_eq!(broker.resolve(&step, "aws/prod").unwrap().version, 1, "{what}");
            broker.close(&step);
            broker.stop();
            for name in ["kek.next", "keyring.json.next"] {
                assert!(!state.join(name).exists(), "{what}: {name}");
            }
        }
    }
    // The control: without the next keyring, the new KEK opens nothing.
    lay(&[("kek", kek1), ("keyring.json", ring0)]);
    assert!(broker.refusal().contains("is not the one"));
    report("kill between two steps of a KEK rotation", states.len(), "each starts", "refused");
}

/// Creates this many connections, a group and a secret.
fn seed(broker: &TestBroker, connections: usize) {
    let connection = |n: usize| {
        Document::Connection(pb::ConnectionDocument {
            integration: "slack".to_owned(),
            name: format!("c{n}"),
            fields: bytes(&[("api_token", &format!("token-{n}"))]),
            tags: vec![format!("number:{n}")],
            access: resolver(&["workflow:w"]),
            ..Default::default()
        })
    };
    broker.apply((0..connections).map(connection).collect()).unwrap();
    let group = Document::Group(pb::GroupDocument {
        name: "g".to_owned(),
        integration: "slack".to_owned(),
        identifiers: vec!["number".to_owned()],
        members: Some(pb::GroupMembers { names: vec!["c1".to_owned(), "c2".to_owned()] }),
        access: vec![pb::AccessBinding {
            relation: pb::Relation::Viewer.into(),
            principals: vec!["workflow:w".to_owned()],
        }],
        ..Default::default()
    });
    broker.apply(vec![group, secret_document("w", "s", "hush")]).unwrap();
}

/// Name, version and etag of every connection.
fn connections(broker: &TestBroker) -> BTreeMap<String, (i64, String)> {
    let mut client = ConnectionServiceClient::new(broker.operator());
    let mut found = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListConnectionsRequest { page_token, ..Default::default() };
        let page = broker.block_on(client.list_connections(request)).ok().unwrap().into_inner();
        let all = page.connections.into_iter();
        found.extend(all.map(|one| (one.name, (one.version, one.etag))));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

/// The number of records under each DEK in a stopped broker's store, with the commit record.
fn deks_in_store(state: &Path) -> BTreeMap<String, usize> {
    let mut db = None;
    wait_until("the store is nobody else's", || {
        db = sled::Config::new().path(state.join("store")).open().ok();
        db.is_some()
    });
    let mut found = BTreeMap::new();
    for entry in db.unwrap().iter() {
        let (key, value) = entry.unwrap();
        // The first chunk of each record begins with the format and the DEK's id.
        if key[17..].iter().all(|byte| *byte == 0) {
            *found.entry(hex::encode(&value[1..9])).or_default() += 1;
        }
    }
    found
}

/// The number of resealed records in each batch, from the journal.
fn resealed(journal: &[Value]) -> Vec<usize> {
    let changes = journal.iter().filter(|line| line["event"] == "intent");
    let changes = changes.flat_map(|line| line["changes"].as_array().unwrap());
    let counts = changes.filter(|change| change["action"] == "key.reseal").map(|change| {
        let setting = change["settings"][0].as_str().unwrap();
        setting.strip_prefix("records=").unwrap().parse().unwrap()
    });
    counts.collect()
}

#[test]
fn everything_is_resealed_under_a_new_key_unnoticed() {
    let mut broker = TestBroker::start();
    let count = scale(300, 5000);
    seed(&broker, count);
    let step = broker.open("w", "s");
    let lease = broker.resolve(&step, "slack/c7").unwrap().lease;
    let watched = pb::WatchRequest { request: Some(request("slack/c3")) };
    let mut client = StepServiceClient::new(step.channel.clone());
    let mut watching = broker.block_on(client.watch(watched)).ok().unwrap().into_inner();
    let mut delivered =
        || broker.block_on(watching.message()).ok().unwrap().unwrap().credential.unwrap().version;
    assert_eq!(delivered(), 1);
    let (old, before) = (keys(&broker).deks[0].clone(), connections(&broker));
    let new = rotate_dek(&broker).unwrap();
    // A change during resealing is under the new key, and is not undone.
    let change = connection_document("slack/c9", &[("api_token", "changed")], vec![]);
    broker.apply(vec![change]).unwrap();
    wait_until("everything is sealed again", || keys(&broker).deks.len() == 1);

    let listed = keys(&broker).deks.remove(0);
    assert_eq!((&listed.id, listed.newest, listed.records), (&new, true, old.records));
    assert!(listed.create_time.is_some());
    let mut after = connections(&broker);
    assert_eq!(after.remove("connections/slack/c9").unwrap().0, 2);
    assert!(before.iter().all(|(name, seen)| after.get(name).is_none_or(|now| now == seen)));
    assert_eq!(after.len() + 1, before.len());
    // The lease is alive, and the Watch saw no delivery. Its next delivery is the next version.
    assert_eq!(broker.resolve(&step, "slack/c7").unwrap().lease.name, lease.name);
    let revoked = |line: &Value| line["revoked"].as_array().is_some_and(|all| !all.is_empty());
    assert!(!broker.journaled("head").iter().any(revoked));
    let change = connection_document("slack/c3", &[("api_token", "second")], vec![]);
    broker.apply(vec![change]).unwrap();
    assert_eq!(delivered(), 2);
    let deliveries =
        broker.journaled("resolve").iter().filter(|line| line["watch"] == true).count();
    assert_eq!(deliveries, 2);
    for n in [0, 1, 8, count - 1] {
        let got = broker.resolve(&step, &format!("slack/c{n}")).unwrap();
        assert_eq!(got.fields["api_token"], format!("token-{n}"));
    }
    assert_eq!(broker.resolve(&step, "group:g:number=2").unwrap().fields["api_token"], "token-2");
    assert_eq!(broker.resolve(&step, "secret:s").unwrap().fields["value"], "hush");
    // The journal has one note for each batch.
    let batches = resealed(&broker.journal());
    assert!(batches.len() < count / 10 && batches.iter().sum::<usize>() >= 2 * count - 2);

    broker.stop();
    assert_eq!(deks_in_store(&broker.config.state).into_keys().collect::<Vec<_>>(), [&*new]);
    let sealed = std::fs::read(broker.config.state.join("authority.sealed")).unwrap();
    assert_eq!(hex::encode(&sealed[1..9]), new);
    let keyring = read_json(&broker.config.state.join("keyring.json"));
    assert_eq!(keyring["deks"].as_array().unwrap().len(), 1);
    broker.serve();
    let step = broker.open("w", "after");
    assert_eq!(broker.resolve(&step, "slack/c9").unwrap().fields["api_token"], "changed");
    report("records sealed again", 2 * count, "versions, etags, leases as before", "");
}

async fn ask_keys(directory: &Path) -> Option<pb::ListKeysResponse> {
    let identity = identity_in(&directory.join("state/operators/admin"));
    let channel = channel(&directory.join("run/admin.sock"), identity).await.ok()?;
    let listed = SystemServiceClient::new(channel).list_keys(pb::ListKeysRequest {}).await;
    listed.ok().map(tonic::Response::into_inner)
}

fn journal_of(directory: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(directory.join("state/journal/000001.jsonl")).unwrap();
    // A kill may tear the last line.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn a_daemon_killed_while_it_reseals_goes_on_afterwards() {
    let directory = scratch();
    let directory = directory.path();
    let mut serving = ServeProcess::start(directory);
    let count = scale(1500, 5000);
    let connections: Vec<String> =
        (0..count).map(|n| format!("\"slack/c{n}\": {{apiToken: token-{n}}}")).collect();
    let seed = directory.join("seed.yaml");
    std::fs::write(&seed, format!("connections: {{{}}}\n", connections.join(", "))).unwrap();
    serving.must(&["apply", "-f", seed.to_str().unwrap()]);
    for name in ["slack/c0", "slack/c700", &format!("slack/c{}", count - 1)] {
        let bound = ["access", "add", name, "--relation", "resolver", "--principal", "workflow:w"];
        serving.must(&bound);
    }
    let (mut hits, mut kills) = (0, 0);
    // Some kills must come while only a part is resealed. A busy machine may miss that moment.
    while hits < scale(2, 20) && kills < 200 {
        let before: usize = resealed(&journal_of(directory)).iter().sum();
        done(directory, &["key", "rotate", "--data", "--no-wait"]);
        serving.kill();
        kills += 1;
        let sealed = resealed(&journal_of(directory)).iter().sum::<usize>() - before;
        hits += usize::from(sealed > 0 && sealed < 2 * count);
        serving = ServeProcess::start(directory);
    }
    assert!(hits > 0, "in {kills} kills, none was in the middle");
    wait_until("everything is sealed again", || {
        block_on(ask_keys(directory)).is_some_and(|listed| listed.deks.len() == 1)
    });
    // The command itself waits for the end.
    let rotated = json(&done(directory, &["key", "rotate", "--data", "-o", "json"]));
    let listed = json(&done(directory, &["key", "list", "-o", "json"]));
    assert_eq!(listed["deks"].as_array().unwrap().len(), 1);
    assert_eq!(listed["deks"][0]["id"], rotated["dek_id"]);
    for n in [0, 700, count - 1] {
        let (run, name) = (format!("r{n}"), format!("slack/c{n}"));
        let names = ["step", "run", "--workflow", "w", "--run", &run, "--step", "s", "--"];
        let get = [env!("CARGO_BIN_EXE_keyhatch"), "get", &name, "--field", "api_token"];
        assert_eq!(done(directory, &[&names[..], &get].concat()), format!("token-{n}"));
    }
    assert!(serving.terminate());
    let deks = deks_in_store(&directory.join("state"));
    assert_eq!(deks.len(), 1, "{deks:?}");
    report(
        "kill -9 while sealing again",
        format!("{kills} kills, {hits} in the middle"),
        "0 lost",
        "",
    );
}

#[test]
fn the_kek_moves_to_another_source_offline() {
    let sources = Sources::new();
    let directory = sources.path();
    done(directory, &["init"]);
    let first = directory.join("state/kek");
    let elsewhere = directory.join("elsewhere");
    let (command, pass) = (sources.command.as_str(), sources.passphrase());
    let serving = sources.serve(&[]);
    let told = refused(directory, &["key", "rotate", "--kek-command", command]);
    assert!(told.contains("stop it first"), "{told}");
    assert!(serving.terminate());

    let file = elsewhere.to_str().unwrap();
    // The moves: the option for the new source, the daemon's flags from then on, and the flags in use.
    let moves: [(&str, [&str; 2], &[&str]); 4] = [
        ("passphrase", ["--kek-passphrase-file", pass], &[]),
        ("command", ["--kek-command", command], &["--old-kek-passphrase-file", pass]),
        ("file", ["--kek-file", file], &["--old-kek-command", command]),
        ("file", ["--kek-file", file], &["--old-kek-file", file]),
    ];
    for (kind, new, old) in moves {
        let arguments = [&new[..], old].concat();
        let before = keyring_of(directory)["kek_id"].clone();
        let rotate = [&["key", "rotate", "-o", "json"], &arguments[..]].concat();
        let output = keyhatch_in(directory, &rotate).output().unwrap();
        assert!(text(&output.stderr).contains(new[0]), "{}", text(&output.stderr));
        let rotated = json(&text(&output.stdout));
        assert_eq!(rotated["old_kek_id"], before);
        assert_eq!(keyring_of(directory)["kek_id"], rotated["kek_id"]);
        let serving = sources.serve(&new);
        let listed = json(&done(directory, &["key", "list", "-o", "json"]));
        assert_eq!((&listed["kek_source"], &listed["kek_id"]), (&kind.into(), &rotated["kek_id"]));
        match kind {
            // The daemon no longer knows the passphrase.
            "passphrase" => {
                let told = refused(directory, &["key", "rotate", "--data"]);
                assert!(told.contains("KEK_NOT_AT_HAND") && told.contains("--offline"), "{told}");
                assert!(refused(directory, &["key", "rotate"]).contains("KEK_NOT_REPLACEABLE"));
            }
            "command" => {
                done(directory, &["key", "rotate", "--data"]);
                assert!(refused(directory, &["key", "rotate"]).contains("KEK_NOT_REPLACEABLE"));
            }
            _ => drop(done(directory, &["key", "rotate"])),
        }
        assert!(serving.terminate());
    }
    assert!(first.exists() && elsewhere.exists());
    let rotated: Vec<_> = journal_of(directory)
        .into_iter()
        .filter(|line| line["event"] == "key_rotated" && line["principal"] == "offline")
        .collect();
    assert_eq!(rotated.len(), moves.len());
}

#[test]
fn a_data_key_added_offline_is_used_by_the_next_daemon() {
    let sources = Sources::new();
    let directory = sources.path();
    let kek = ["--kek-passphrase-file", sources.passphrase()];
    done(directory, &[&["init"], &kek[..]].concat());
    let serving = sources.serve(&kek);
    let seed = directory.join("seed.yaml");
    std::fs::write(&seed, "connections: {\"slack/a\": {apiToken: hush}}\n").unwrap();
    done(directory, &["apply", "-f", seed.to_str().unwrap()]);
    assert!(serving.terminate());
    let rotate = ["key", "rotate", "--data", "--offline", "-o", "name"];
    let told = refused(directory, &rotate);
    assert!(told.contains(kek[0]) && told.contains("--old-kek-"), "{told}");
    let with = [&rotate[..], &["--old-kek-passphrase-file", sources.passphrase()]].concat();
    let dek = done(directory, &with);
    assert_eq!(keyring_of(directory)["deks"].as_array().unwrap().len(), 2);
    let serving = sources.serve(&kek);
    wait_until("everything is sealed again", || {
        let listed = json(&done(directory, &["key", "list", "-o", "json"]));
        let deks = listed["deks"].as_array().unwrap();
        deks.len() == 1 && deks[0]["id"] == dek.trim()
    });
    assert!(serving.terminate());
}

/// The keys of a broker as plain bytes: the KEK, and the newest DEK that it wraps.
fn plain_keys(state: &Path) -> [Vec<u8>; 2] {
    let text = std::fs::read_to_string(state.join("kek")).unwrap();
    let kek = hex::decode(text.trim()).unwrap();
    let keyring = read_json(&state.join("keyring.json"));
    let dek = keyring["deks"].as_array().unwrap().last().unwrap();
    let part = |name: &str| hex::decode(dek[name].as_str().unwrap()).unwrap();
    let aad = [&b"keyhatch/v1/wrap\0dek"[..], &part("id")].concat();
    let cipher = XChaCha20Poly1305::new_from_slice(&kek).unwrap();
    let nonce: [u8; 24] = part("nonce").try_into().unwrap();
    let payload = Payload { msg: &part("wrapped"), aad: &aad };
    let dek = cipher.decrypt(&nonce.into(), payload).unwrap();
    [kek, dek]
}

/// Searches the memory of a process. Returns whether each part was found, and the bytes of the memory.
fn found_in_memory(pid: i32, parts: &[&[u8]]) -> (Vec<bool>, usize) {
    const STEP: usize = 1 << 20;
    let overlap = parts.iter().map(|part| part.len()).max().unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let (mut found, mut looked_at) = (vec![false; parts.len()], 0);
    let mut buffer = vec![0; STEP + overlap];
    for line in maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with('r')) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let address = |text: &str| u64::from_str_radix(text, 16).unwrap();
        for start in (address(from)..address(to)).step_by(STEP) {
            // Secret memory and the kernel's own pages cannot be read.
            let Ok(length) = memory.read_at(&mut buffer, start) else { continue };
            looked_at += length;
            if buffer[..length].iter().all(|byte| *byte == 0) {
                continue;
            }
            for (part, found) in parts.iter().zip(&mut found) {
                *found |= buffer[..length].windows(part.len()).any(|window| window == *part);
            }
        }
    }
    (found, looked_at)
}

#[test]
fn no_other_process_finds_a_key_in_the_memory_of_the_daemon() {
    let directory = scratch();
    let directory = directory.path();
    let serving = ServeProcess::start(directory);
    let seed = directory.join("seed.yaml");
    let document = "connections: {\"slack/canary-name\": {apiToken: hush}}\n";
    std::fs::write(&seed, document).unwrap();
    done(directory, &["apply", "-f", seed.to_str().unwrap()]);
    done(directory, &["key", "rotate"]);
    done(directory, &["key", "rotate", "--data"]);
    let bound = ["access", "add", "slack/canary-name", "--relation", "resolver"];
    done(directory, &[&bound[..], &["--principal", "workflow:w"]].concat());
    let names = ["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--"];
    let get = [env!("CARGO_BIN_EXE_keyhatch"), "get", "slack/canary-name", "--format", "json"];
    done(directory, &[&names[..], &get].concat());
    let status = json(&done(directory, &["status", "-o", "json"]));
    let (is_root, place) = (rustix::process::geteuid().is_root(), &status["key_memory"]);
    if !is_root || place != "memfd_secret" {
        skipped("a look for keys in memory", "needs root and memfd_secret");
        return;
    }
    let [kek, dek] = plain_keys(&directory.join("state"));
    let digits = hex::encode(&kek);
    let parts = [&b"canary-name"[..], &dek, &kek, digits.as_bytes()];
    let (found, looked_at) = found_in_memory(serving.pid().as_raw_nonzero().get(), &parts);
    // The control: a text that is not secret is found.
    assert!(found[0] && looked_at > 1_000_000);
    assert_eq!(found[1..], [false; 3], "the DEK, the KEK, or its digits are in readable memory");
    report("keys in another process's view of the daemon's memory", "KEK, DEK", "none found", "");
    assert!(serving.terminate());
}

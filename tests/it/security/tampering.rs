//! Changes behind the broker's back are refused, and the message says how to recover.

use crate::harness::{ServeProcess, TestBroker, copy_directory, keyhatch_in, temp_dir, wait_until};

fn stopped_broker() -> TestBroker {
    let mut broker = TestBroker::start();
    broker.create_aws("one", "first", &["workflow:deploy"]);
    broker.create_aws("two", "second", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/one").unwrap();
    broker.stop();
    broker
}

#[test]
fn an_edited_removed_or_inserted_journal_line_refuses_the_start() {
    let broker = stopped_broker();
    let path = broker.journal_path();
    let original = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = original.lines().collect();
    let edit = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut changed);
        std::fs::write(&path, changed.join("\n") + "\n").unwrap();
        let refused = broker.refusal();
        std::fs::write(&path, &original).unwrap();
        refused
    };
    let resolved = lines.iter().position(|line| line.contains("\"resolve\"")).unwrap();
    for (what, refused) in [
        ("edited", edit(&|lines| lines[resolved] = lines[resolved].replace("aws/one", "aws/two"))),
        ("removed", edit(&|lines| drop(lines.remove(resolved)))),
        ("inserted", edit(&|lines| lines.insert(resolved, lines[resolved].clone()))),
        ("swapped", edit(&|lines| lines.swap(resolved, resolved - 1))),
        ("first removed", edit(&|lines| drop(lines.remove(0)))),
    ] {
        assert!(refused.contains("restore the state directory"), "{what}: {refused}");
    }
    // The control: an unchanged broker starts.
    assert_eq!(broker.refusal(), "");
}

/// Opens the stopped broker's store with plain sled, as anybody with the disk could.
fn with_store(broker: &TestBroker, change: impl FnOnce(&sled::Db)) {
    let config = sled::Config::new().path(broker.config.state.join("store"));
    let mut opened = None;
    // A child that another test has just forked can hold the lock until it execs.
    wait_until("the store is nobody else's", || {
        opened = config.open().ok();
        opened.is_some()
    });
    let db = opened.unwrap();
    change(&db);
    db.flush().unwrap();
}

fn of_kind(db: &sled::Db, kind: u8) -> Vec<(sled::IVec, sled::IVec)> {
    db.scan_prefix([kind]).map(Result::unwrap).collect()
}

#[test]
fn swapped_flipped_lost_and_replayed_records_refuse_the_start() {
    type Damage = fn(&sled::Db);
    let damages: [(&str, Damage); 4] = [
        ("swapped", |db| {
            let values = of_kind(db, b'C');
            db.insert(&values[0].0, &values[1].1).unwrap();
            db.insert(&values[1].0, &values[0].1).unwrap();
        }),
        ("flipped", |db| {
            let (key, value) = of_kind(db, b'C').remove(0);
            let mut value = value.to_vec();
            *value.last_mut().unwrap() ^= 1;
            db.insert(key, value).unwrap();
        }),
        ("lost", |db| {
            let (key, _) = of_kind(db, b'c').remove(0);
            db.remove(key).unwrap();
        }),
        ("an older commit record", |db| {
            let (key, value) = of_kind(db, b'h').remove(0);
            let mut value = value.to_vec();
            value[16] -= 1;
            db.insert(key, value).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let broker = stopped_broker();
        with_store(&broker, damage);
        let refused = broker.refusal();
        assert!(refused.contains("is damaged") && refused.contains("restore"), "{what}: {refused}");
    }
}

#[test]
fn an_older_store_or_journal_refuses_the_start() {
    for part in ["store", "journal"] {
        let mut broker = stopped_broker();
        let (live, copy) = (broker.config.state.join(part), broker.scratch().join("copy"));
        copy_directory(&live, &copy);
        broker.serve();
        broker.create_aws("three", "third", &[]);
        broker.stop();
        std::fs::remove_dir_all(&live).unwrap();
        copy_directory(&copy, &live);
        let refused = broker.refusal();
        assert!(refused.contains("older copy") && refused.contains("restore"), "{part}: {refused}");
    }
}

#[test]
fn a_keyring_that_is_not_text_is_refused_with_a_remedy() {
    let broker = stopped_broker();
    let path = broker.config.state.join("keyring.json");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 0x80;
    std::fs::write(&path, bytes).unwrap();
    let refused = broker.refusal();
    assert!(
        refused.contains("the keyring is damaged") && refused.contains("restore keyring.json"),
        "{refused}"
    );
}

#[test]
fn an_unfinished_sled_snapshot_does_not_block_the_store() {
    let broker = stopped_broker();
    std::fs::write(broker.config.state.join("store/snap.00000000000000FF.generating"), b"")
        .unwrap();
    assert_eq!(broker.refusal(), "");
}

/// A daemon whose file-size limit a test can set, with an open step that may resolve slack/a.
struct Limited {
    directory: tempfile::TempDir,
    serving: ServeProcess,
    step: String,
}

impl Limited {
    fn start() -> Self {
        let directory = temp_dir();
        drop(ServeProcess::start(directory.path()));
        let mut command = std::process::Command::new("sh");
        // A write over the limit is an error and does not end the daemon.
        command.args(["-c", "trap '' XFSZ; exec \"$0\" serve", env!("CARGO_BIN_EXE_keyhatch")]);
        for (name, below) in [("KEYHATCH_STATE", "state"), ("KEYHATCH_RUNTIME", "run")] {
            command.env(name, directory.path().join(below));
        }
        let serving = ServeProcess::spawn(directory.path(), command);
        let seed = directory.path().join("seed.yaml");
        let text = "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: a}\nspec: {integration: \
                    slack, access: {resolver: ['workflow:w']}, fields: {api_token: canary}}\n";
        std::fs::write(&seed, text).unwrap();
        serving.must(&["apply", "-f", seed.to_str().unwrap()]);
        let names = ["--workflow", "w", "--run", "1", "--step", "s", "-o", "json"];
        let opened = serving.run(&[&["step", "open"][..], &names].concat());
        let opened: serde_json::Value = serde_json::from_slice(&opened.stdout).unwrap();
        let step = opened["directory"].as_str().unwrap().to_owned();
        Self { directory, serving, step }
    }

    fn get(&self) -> std::process::Output {
        let mut command = keyhatch_in(self.directory.path(), &["get", "slack/a"]);
        command.env("KEYHATCH_DIR", &self.step).output().unwrap()
    }

    fn limit_files(&self, current: Option<u64>) {
        use rustix::process::{Resource, Rlimit, prlimit};
        let limit = Rlimit { current, maximum: None };
        prlimit(Some(self.serving.pid()), Resource::Fsize, limit).unwrap();
    }
}

#[test]
fn an_unwritable_journal_stops_resolves_until_it_is_back() {
    let world = Limited::start();
    assert!(world.get().status.success());
    let journal = world.directory.path().join("state/journal/000001.jsonl");
    let length = || std::fs::metadata(&journal).unwrap().len();
    let before = length();
    // Half a line fits. The torn line must not stay.
    world.limit_files(Some(before + 100));
    let refused = world.get();
    assert!(!refused.status.success());
    let (stdout, stderr) =
        (String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    assert!(stderr.contains("JOURNAL_UNAVAILABLE"), "{stderr}");
    assert!(!stdout.contains("canary") && !stderr.contains("canary"));
    assert_eq!(length(), before);
    assert!(world.serving.log().contains("the journal cannot be written"));

    world.limit_files(None);
    wait_until("the journal is written again", || world.get().status.success());
    assert!(world.serving.terminate());
    assert!(ServeProcess::start(world.directory.path()).terminate(), "and the chain is whole");
}

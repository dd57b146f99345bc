//! State of an older version is taken over, and state of a newer version is never read in part.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use keyhatch::catalog::load;
use keyhatch::daemon::{ReissueOptions, reissue_admin};
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::journal::write::line::Parts;
use keyhatch::model::Limits;
use keyhatch::seal::{Keyring, RecordKey, RecordKind, Sealed, Unlock};
use keyhatch::store::{Operation, Store};
use serde::Deserialize;
use serde_json::Value;

use crate::harness::{
    TestBroker, keyhatch_in, open_state, reason, secret_document, succeeded, wait_until,
};

const RELEASE: &str = "formats/0.1.0";

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The format number in a file of the state.
fn format(broker: &TestBroker, name: &str) -> Value {
    read_json(&broker.config.state.join(name))["format"].clone()
}

/// The fixture has no private keys of operators and executors.
fn reissue(broker: &TestBroker) {
    reissue_admin(&ReissueOptions {
        state: broker.config.state.clone(),
        shared_parents: Vec::new(),
        unlock: Unlock::default(),
        runtime: broker.config.runtime.clone(),
        clock: broker.clock.clone(),
    })
    .unwrap();
}

fn resolves_all(broker: &TestBroker) {
    let step = broker.open("deploy", "build");
    for reference in ["aws/prod", "group:accounts:env=prod"] {
        let got = broker.resolve(&step, reference).unwrap();
        assert_eq!(got.fields["secret_access_key"], "not-a-real-secret");
    }
    assert_eq!(broker.resolve(&step, "secret:token").unwrap().fields["value"], "not-a-real-secret");
    // No record before minting says what steps get.
    let release = broker.get_connection("aws/prod").ok().unwrap().release();
    assert_eq!(release, pb::Release::Stored);
}

#[test]
fn a_state_of_the_last_release_goes_on_with_all_it_had() {
    let mut broker = TestBroker::of_fixture(RELEASE);
    assert_eq!(broker.refusal(), "");
    for name in ["state.json", "keyring.json"] {
        assert_eq!(format(&broker, name), 3, "{name}");
    }
    reissue(&broker);
    broker.serve();
    resolves_all(&broker);
    assert_eq!(broker.journaled("formats")[0]["keyring"], 3);
    // Tags and fingerprints of 0.1.0 are still valid, so an unchanged document writes nothing.
    let mut client = SystemServiceClient::new(broker.operator());
    broker.block_on(client.rotate_dek(pb::RotateDekRequest {})).unwrap();
    broker.restart();
    resolves_all(&broker);
    let verify = keyhatch_in(broker.scratch(), &["journal", "verify"]).output().unwrap();
    assert_eq!(verify.status.code(), Some(4), "{}", String::from_utf8_lossy(&verify.stderr));
}

#[test]
fn a_state_of_this_format_is_read_as_it_was_written() {
    let mut broker = TestBroker::of_fixture("formats/3");
    let written = ["state.json", "keyring.json"];
    let read = |broker: &TestBroker| {
        written.map(|name| std::fs::read(broker.config.state.join(name)).unwrap())
    };
    let before = read(&broker);
    assert_eq!(broker.refusal(), "");
    assert_eq!(read(&broker), before, "nothing is taken over");
    reissue(&broker);
    broker.serve();
    resolves_all(&broker);
    // Of the credentials that it was to end, one is left to end, and one is disabled. Both go on under the same lines.
    for event in ["minted", "left_to_expire", "ending", "ended_upstream", "left_disabled"] {
        let written = if matches!(event, "minted" | "ending") { 3 } else { 1 };
        assert_eq!(broker.journaled(event).len(), written, "{event}");
    }
    let mut client = SystemServiceClient::new(broker.operator());
    broker.block_on(client.rotate_dek(pb::RotateDekRequest {})).unwrap();
    wait_until("what ends them is sealed again", || {
        let listed = broker.block_on(client.list_keys(pb::ListKeysRequest {}));
        listed.unwrap().into_inner().deks.len() == 1
    });
}

#[test]
fn an_offline_command_takes_a_state_of_the_last_release_over() {
    let mut broker = TestBroker::of_fixture(RELEASE);
    succeeded(&keyhatch_in(broker.scratch(), &["key", "rotate", "--offline"]).output().unwrap());
    assert_eq!(format(&broker, "state.json"), 3);
    reissue(&broker);
    broker.serve();
    resolves_all(&broker);
}

/// The check that 0.1.0 makes before it reads anything else.
fn last_release_reads(state: &Path) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let text = std::fs::read(state.join("state.json")).unwrap();
    let Format { format } = serde_json::from_slice(&text).unwrap();
    if format > 2 {
        return Err(format!(
            "{} has format {format}, which this version does not know; run the newer keyhatch",
            state.display()
        ));
    }
    Ok(())
}

#[test]
fn the_last_release_refuses_a_state_of_this_version() {
    let mut broker = TestBroker::of_fixture(RELEASE);
    let state = broker.config.state.clone();
    // The control: 0.1.0 reads its own state.
    assert_eq!(last_release_reads(&state), Ok(()));
    broker.serve();
    broker.stop();
    let refused = last_release_reads(&state).unwrap_err();
    assert!(
        refused.ends_with("has format 3, which this version does not know; run the newer keyhatch")
    );
    assert!(last_release_reads(&TestBroker::start().config.state).is_err());
}

#[test]
fn a_kill_while_a_state_is_taken_over_loses_nothing() {
    let made = TestBroker::of_fixture(RELEASE);
    let read =
        |broker: &TestBroker, name: &str| std::fs::read(broker.config.state.join(name)).unwrap();
    let before = ["state.json", "keyring.json"].map(|name| read(&made, name));
    let unlocked = open_state(&made.config.state).unlock(None).unwrap();
    drop(unlocked);
    let after = ["state.json", "keyring.json"].map(|name| read(&made, name));
    let ([state2, ring2], [state3, ring3]) = (&before, &after);
    let torn = ring3[..ring3.len() / 2].to_vec();
    // The files on disk after each step, and whether 0.1.0 still reads them.
    let moments = [
        ("nothing", state2, ring2, None, true),
        ("a torn keyring", state2, ring2, Some(&torn), true),
        ("the next keyring", state2, ring2, Some(ring3), true),
        ("state.json", state3, ring2, Some(ring3), false),
        ("the keyring", state3, ring3, None, false),
    ];
    for (what, state, ring, next, is_read) in moments {
        let mut broker = TestBroker::of_fixture(RELEASE);
        let path = |name: &str| broker.config.state.join(name);
        std::fs::write(path("state.json"), state).unwrap();
        std::fs::write(path("keyring.json"), ring).unwrap();
        if let Some(next) = next {
            std::fs::write(path("keyring.json.next"), next).unwrap();
        }
        assert_eq!(last_release_reads(&broker.config.state).is_ok(), is_read, "{what}");
        reissue(&broker);
        broker.serve();
        resolves_all(&broker);
        broker.stop();
        assert_eq!(format(&broker, "keyring.json"), 3, "{what}");
        assert!(!broker.config.state.join("keyring.json.next").exists(), "{what}");
    }
}

#[test]
fn a_state_or_a_keyring_of_an_older_format_never_comes_back() {
    let mut broker = TestBroker::of_fixture(RELEASE);
    let older = ["state.json", "keyring.json"]
        .map(|name| (name, std::fs::read(broker.config.state.join(name)).unwrap()));
    broker.serve();
    broker.stop();
    for put_back in [&older[..1], &older[1..], &older[..]] {
        let current = older.each_ref().map(|(name, _)| {
            let path = broker.config.state.join(name);
            (path.clone(), std::fs::read(path).unwrap())
        });
        for (name, content) in put_back {
            std::fs::write(broker.config.state.join(name), content).unwrap();
        }
        // The second try shows that a refusal leaves nothing behind.
        for _ in 0..2 {
            let refused = broker.refusal();
            assert!(refused.contains("older"), "{refused}");
        }
        for (path, content) in current {
            std::fs::write(path, content).unwrap();
        }
    }
    assert_eq!(broker.refusal(), "");
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

/// A line that a newer broker with these keys writes after `last`.
fn newer_line(keyring: &Keyring, last: &Value, event: &str) -> String {
    let (n, prev) = (last["n"].as_u64().unwrap() + 1, last["hash"].as_str().unwrap());
    let time = last["time"].as_str().unwrap();
    let body = format!(r#"{{"n":{n},"time":"{time}",{event},"prev":"{prev}""#);
    let hash = digest(&SHA256, body.as_bytes());
    let tagged = format!(r#"{body},"tag":"{}""#, hex::encode(keyring.journal_tag(hash.as_ref())));
    format!("{tagged},\"hash\":\"{}\"}}\n", sha256(tagged.as_bytes()))
}

#[test]
fn a_line_of_a_newer_version_refuses_the_start_and_stays() {
    for event in [
        r#""event":"minted","handle":"h""#,
        // A known event with another content.
        r#""event":"closed","openings":[]"#,
        r#""event":"checkpoint","format":99,"file":1,"head":0,"intent":0,"abandoned":0,"openings":[],"leases":[]"#,
        r#""event":"checkpoint","format":2,"file":1,"head":0,"intent":0,"abandoned":0,"openings":[],"leases":[],"new":1"#,
    ] {
        let mut broker = TestBroker::start();
        broker.stop();
        let keyring = open_state(&broker.config.state).unlock(None).unwrap();
        let (keyring, path) = (keyring.keyring().unwrap(), broker.journal_path());
        let line = newer_line(&keyring, broker.journal().last().unwrap(), event);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str(&line);
        // A crash leaves a torn line before it.
        let torn = text.replace(&line, &format!("{}\n{line}", &line[..20]));
        for text in [&text, &torn] {
            std::fs::write(&path, text).unwrap();
            let refused = broker.refusal();
            assert!(
                refused.contains("was written by a newer keyhatch")
                    && refused.contains("run the newer"),
                "{event}: {refused}"
            );
            assert_eq!(&std::fs::read_to_string(&path).unwrap(), text);
            assert!(!path.with_extension("jsonl.torn").exists());
        }
        std::fs::write(&path, &text).unwrap();
        let verify = keyhatch_in(broker.scratch(), &["journal", "verify"]).output().unwrap();
        let told = String::from_utf8_lossy(&verify.stderr).into_owned();
        assert!(told.contains("newer keyhatch"), "{told}");
    }
}

/// The JSON pointers of all objects in a document.
fn objects(document: &Value, at: &str) -> Vec<String> {
    let inner = |(key, value): (String, &Value)| objects(value, &format!("{at}/{key}"));
    match document {
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| (key.clone(), value));
            [at.to_owned()].into_iter().chain(members.flat_map(inner)).collect()
        }
        Value::Array(items) => {
            let items = items.iter().enumerate().map(|(place, value)| (place.to_string(), value));
            items.flat_map(inner).collect()
        }
        _ => Vec::new(),
    }
}

/// The document with an unknown key in the object at this pointer.
fn with_newer_key(document: &Value, at: &str) -> Value {
    let mut newer = document.clone();
    newer.pointer_mut(at).unwrap()["of_tomorrow"] = serde_json::json!({ "rule": "x" });
    newer
}

#[test]
fn a_newer_key_anywhere_in_a_checkpoint_is_not_read() {
    let limits = Limits { journal_file_bytes: 16 * 1024, ..Limits::default() };
    let mut broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    broker.close(&broker.open("deploy", "over"));
    for _ in 0..40 {
        broker.resolve(&step, "aws/prod").unwrap();
    }
    let second = broker.config.state.join("journal/000002.jsonl");
    wait_until("it goes on in a new file", || second.exists());
    broker.stop();
    let keyring = open_state(&broker.config.state).unlock(None).unwrap().keyring().unwrap();
    let text = std::fs::read_to_string(&second).unwrap();
    let mut checkpoint: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let last = checkpoint.clone();
    for frame in ["n", "time", "prev", "tag", "hash"] {
        checkpoint.as_object_mut().unwrap().remove(frame);
    }
    let is_read = |event: &Value| {
        let event = event.to_string();
        let event = event.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
        let line = newer_line(&keyring, &last, event);
        Parts::split(line.trim_end().as_bytes()).unwrap().parse().is_ok()
    };
    assert!(is_read(&checkpoint));
    let objects = objects(&checkpoint, "");
    for part in ["/openings/0", "/openings/0/certificates/0", "/leases/0/ask", "/attempts/0"] {
        assert!(objects.iter().any(|at| at == part), "{part} of {objects:?}");
    }
    for at in objects {
        assert!(!is_read(&with_newer_key(&checkpoint, &at)), "{at}");
    }
}

#[test]
fn a_newer_key_anywhere_in_a_record_denies_it_whole() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    broker.apply(vec![secret_document("deploy", "token", "s")]).unwrap();
    broker.enroll("bob", pb::Role::Viewer);
    broker.enroll_executor("runner", &["deploy"], &["user:alice"]);
    broker.stop();
    let keyring = open_state(&broker.config.state).unlock(None).unwrap().keyring().unwrap();
    let mut records = Vec::new();
    let path = broker.config.state.join("store");
    Store::open(&path, &keyring, |key, sealed| records.push((key, sealed))).unwrap();
    let is_metadata = |kind| {
        use RecordKind::{Connection, Registration, Secret};
        matches!(kind, Connection | Registration | Secret)
    };
    let mut looked = 0;
    for (place, (key, sealed)) in records.iter().enumerate() {
        if !is_metadata(key.kind) {
            continue;
        }
        let json = keyring.open_metadata(*key, sealed).unwrap();
        let record: Value = serde_json::from_slice(&json).unwrap();
        // Every version reads the owner of a record.
        for at in objects(&record, "").into_iter().filter(|at| at != "/who") {
            let newer = with_newer_key(&record, &at).to_string();
            let sealed = keyring.seal(*key, sealed.version(), newer.as_bytes()).unwrap();
            let mut with_newer = records.clone();
            with_newer[place] = (*key, sealed);
            let catalog = load(with_newer, &keyring).unwrap();
            assert_eq!(catalog.all_newer().count(), 1, "{at} of {record}");
            looked += 1;
        }
    }
    assert!(looked > 12, "{looked}");
}

/// Only requested lines of older files are read.
#[test]
fn a_newer_line_in_an_older_file_is_reported_as_newer() {
    let limits = Limits { journal_file_bytes: 16 * 1024, ..Limits::default() };
    let mut broker = TestBroker::start_with(limits);
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    for _ in 0..40 {
        broker.resolve(&step, "aws/prod").unwrap();
    }
    let newest = broker.config.state.join("journal/000002.jsonl");
    wait_until("it goes on in a new file", || newest.exists());
    broker.stop();
    let keyring = open_state(&broker.config.state).unlock(None).unwrap().keyring().unwrap();
    let first = broker.config.state.join("journal/000001.jsonl");
    let text = std::fs::read_to_string(&first).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let at = lines.iter().position(|line| line.contains(r#""event":"resolve""#)).unwrap();
    let before: Value = serde_json::from_str(lines[at - 1]).unwrap();
    // The new line has the same length, so the other lines keep their places.
    let newer = |handle: usize| {
        let event = format!(r#""event":"minted","handle":"{}""#, "h".repeat(handle));
        newer_line(&keyring, &before, &event)
    };
    let line = newer(lines[at].len() - newer(0).len());
    let decision = format!("1.{}", before["n"].as_u64().unwrap() + 1);
    std::fs::write(&first, [&lines[..at], &[&line], &lines[at + 1..]].concat().concat()).unwrap();
    broker.serve();
    let question = Some(pb::explain_request::Question::DecisionId(decision.clone()));
    let mut client = SystemServiceClient::new(broker.operator());
    let told = broker.block_on(client.explain(pb::ExplainRequest { question })).unwrap_err();
    assert!(told.message().contains(&format!("line {decision} of the journal")), "{told}");
    assert_eq!(reason(Err::<(), _>(told)), "RECORD_NEWER");
    let run = pb::GetRunRequest { workflow: "deploy".to_owned(), run: "1".to_owned() };
    let mut client = ExecutorServiceClient::new(broker.executor());
    assert_eq!(reason(broker.block_on(client.get_run(run))), "RECORD_NEWER");
}

/// A record of an unknown kind may hold access rules, so nothing is served without it.
#[test]
fn a_record_of_an_unknown_kind_is_reported_as_newer() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let archive = broker.scratch().join("backup.tar");
    let kek = broker.config.state.join("kek");
    let backup = ["backup", archive.to_str().unwrap()];
    succeeded(&keyhatch_in(broker.scratch(), &backup).output().unwrap());
    broker.stop();
    for (kind, told) in [(b'M', "run the newer keyhatch"), (b'\0', "is damaged")] {
        let db = sled::open(broker.config.state.join("store")).unwrap();
        let key = [&[kind][..], &[7; 16], &[0, 0]].concat();
        db.insert(&key, &b"sealed"[..]).unwrap();
        db.flush().unwrap();
        drop(db);
        let refused = broker.refusal();
        assert!(refused.contains("the store in ") && refused.contains(told), "{refused}");
        let db = sled::open(broker.config.state.join("store")).unwrap();
        db.remove(&key).unwrap();
        db.flush().unwrap();
    }
    // The same for a backup, whose records follow the names of their entries.
    let mut bytes = std::fs::read(&archive).unwrap();
    let name = b"store.records\0";
    let header = bytes.windows(name.len()).position(|part| part == name).unwrap();
    bytes[header + 512] = b'M';
    std::fs::write(&archive, bytes).unwrap();
    let other = broker.scratch().join("other");
    std::fs::create_dir(&other).unwrap();
    let restore = ["restore", archive.to_str().unwrap(), "--kek-file", kek.to_str().unwrap()];
    let restored = keyhatch_in(&other, &restore).output().unwrap();
    let said = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(!restored.status.success() && said.contains("is of a newer keyhatch"), "{said}");
}

#[test]
fn a_keyring_with_a_key_of_a_newer_version_is_refused() {
    let mut broker = TestBroker::start();
    broker.stop();
    let path = broker.config.state.join("keyring.json");
    let mut file = read_json(&path);
    file["attestation"] = "new".into();
    std::fs::write(&path, file.to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(broker.refusal().contains("unknown field"), "{}", broker.refusal());
    file["format"] = 4.into();
    std::fs::write(&path, file.to_string()).unwrap();
    assert!(broker.refusal().contains("run the newer keyhatch"), "{}", broker.refusal());
}

/// Adds an unknown key to the records of these resources, each found by a text in it.
fn write_as_newer(broker: &TestBroker, marks: &[(RecordKind, &str)]) -> Vec<(RecordKey, Sealed)> {
    let keyring = open_state(&broker.config.state).unlock(None).unwrap().keyring().unwrap();
    let mut records = Vec::new();
    let path = broker.config.state.join("store");
    let (store, head) =
        Store::open(&path, &keyring, |key, sealed| records.push((key, sealed))).unwrap();
    let rewritten = records.iter().filter_map(|(key, sealed)| {
        let (_, mark) = marks.iter().find(|(kind, _)| *kind == key.kind)?;
        let json = keyring.open_metadata(*key, sealed).unwrap();
        let text = std::str::from_utf8(&json).unwrap();
        let newer = text.replacen('{', r#"{"of_tomorrow":{"rule":"x"},"#, 1);
        let sealed = keyring.seal(*key, sealed.version(), newer.as_bytes()).unwrap();
        text.contains(mark).then_some((*key, sealed))
    });
    let rewritten: Vec<_> = rewritten.collect();
    assert_eq!(rewritten.len(), marks.len());
    let put = rewritten.iter().map(|(key, sealed)| Operation::Put(*key, sealed.clone()));
    store.commit(&keyring, head, &put.collect::<Vec<_>>()).unwrap();
    rewritten
}

/// A broker with a connection, a group, a secret and an operator bob, all written by a newer version.
fn with_newer_records() -> TestBroker {
    let mut broker = TestBroker::of_fixture(RELEASE);
    reissue(&broker);
    broker.serve();
    broker.create_aws("own", "s", &["workflow:deploy"]);
    broker.stop();
    write_as_newer(
        &broker,
        &[
            (RecordKind::Connection, r#""name":"prod""#),
            (RecordKind::Group, "accounts"),
            (RecordKind::Secret, "token"),
            (RecordKind::Registration, "bob"),
        ],
    );
    broker.serve();
    broker
}

const NEWER: [&str; 4] =
    ["connections/aws/prod", "groups/accounts", "operators/bob", "workflows/deploy/secrets/token"];

#[test]
fn a_record_of_a_newer_version_is_denied_whole_and_stays() {
    let broker = with_newer_records();
    let step = broker.open("deploy", "build");
    for reference in ["aws/prod", "group:accounts:env=prod"] {
        assert_eq!(reason(broker.resolve(&step, reference)), "RESOLVE_DENIED");
    }
    assert_eq!(reason(broker.resolve(&step, "secret:token")), "SECRET_NOT_FOUND");
    // The control: known records still work.
    broker.resolve(&step, "aws/own").unwrap();
    let run = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let output = keyhatch_in(broker.scratch(), &arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    // The names stay taken, and nothing is overwritten or removed.
    for refused in [
        "connection get aws/prod",
        "connection create aws/prod --field access_key_id=A --field secret_access_key=env:PATH",
        "connection update aws/prod --disable",
        "connection delete aws/prod --force --yes",
        "connection test aws/prod",
        "group get accounts",
        "group create accounts --integration aws --identifier env",
        "group delete accounts --yes",
        "secret put --workflow deploy token --allow-empty",
        "secret delete --workflow deploy token --yes",
        &format!("operator add bob --role viewer --out {}", broker.scratch().join("bob").display()),
        "operator remove bob --yes",
        "explain --workflow deploy --step build aws/prod",
    ] {
        let (done, said) = run(refused);
        assert!(!done && said.contains("error: RECORD_NEWER: "), "{refused}: {said}");
    }
    for (list, name) in [
        ("connection list", NEWER[0]),
        ("group list", NEWER[1]),
        ("operator list", NEWER[2]),
        ("secret list --workflow deploy", NEWER[3]),
        ("status", NEWER[0]),
        ("doctor", NEWER[3]),
    ] {
        let (_, said) = run(list);
        let newer = said.contains("newer") && said.contains(name);
        assert!(newer, "{list}: {said}");
    }
}

#[test]
fn a_record_of_a_newer_version_is_sealed_again_unread() {
    let mut broker = with_newer_records();
    let mut client = SystemServiceClient::new(broker.operator());
    broker.block_on(client.rotate_dek(pb::RotateDekRequest {})).unwrap();
    wait_until("one data key is left", || {
        let listed = broker.block_on(client.list_keys(pb::ListKeysRequest {}));
        listed.unwrap().into_inner().deks.len() == 1
    });
    broker.restart();
    let mut client = SystemServiceClient::new(broker.operator());
    let status = broker.block_on(client.get_status(pb::GetStatusRequest {})).unwrap().into_inner();
    assert_eq!(status.newer, NEWER);
}

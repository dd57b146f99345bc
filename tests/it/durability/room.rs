//! Disks: what is overwritten takes no room, and a full one does not keep anybody from taking access away.

use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;

use crate::harness::{
    ServeProcess, SmallFilesystem, TestBroker, block_on, identity_in, keyhatch_in, open_request,
    report, request, scale, skipped, wait_until,
};

fn disk_use(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let sizes = entries.map(|entry| match entry.path().is_dir() {
        true => disk_use(&entry.path()),
        false => entry.metadata().unwrap().blocks() * 512,
    });
    sizes.sum()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// sled moves what is long into files that it never removes, unless it comes in pieces.
#[test]
fn a_value_that_is_overwritten_for_ever_takes_no_more_room() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "first", &["workflow:deploy"]);
    let store = broker.config.state.join("store");
    let mut client = ConnectionServiceClient::new(broker.operator());
    let mut overwrite = |times: usize| {
        for number in 0..times {
            // Of all lengths: one piece, several, and back.
            let value = vec![b'x'; 1 + (number * 7919) % 40_000];
            let fields = [("secret_access_key".to_owned(), value)].into();
            let connection = pb::Connection {
                name: "connections/aws/prod".to_owned(),
                fields,
                ..Default::default()
            };
            let request = pb::UpdateConnectionRequest {
                connection: Some(connection),
                update_mask: Some(prost_types::FieldMask {
                    paths: vec!["fields.secret_access_key".to_owned()],
                }),
                ..Default::default()
            };
            broker.block_on(client.update_connection(request)).unwrap();
        }
    };
    let rounds = scale(500, 10_000);
    overwrite(rounds);
    let (disk, memory) = (disk_use(&store), resident_kib());
    overwrite(rounds);
    let (disk_after, memory_after) = (disk_use(&store), resident_kib());
    let blobs = std::fs::read_dir(store.join("blobs")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0);
    assert!(disk_after <= disk.max(8 << 20) * 3 / 2, "{disk} became {disk_after}");
    report(
        "overwrites of one value of up to 40 KB",
        2 * rounds,
        format!(
            "store {} KiB, then {} KiB; {} KiB more memory",
            disk >> 10,
            disk_after >> 10,
            memory_after.saturating_sub(memory)
        ),
        "",
    );
}

/// Takes all room that is left.
fn fill(disk: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(disk.join("fill")).unwrap();
    let piece = vec![0; 4096];
    while std::io::Write::write_all(&mut file, &piece).is_ok() {}
}

/// A daemon in a directory whose `state` is there already, and a file to seed it with.
fn init_and_serve(directory: &Path) -> (ServeProcess, PathBuf) {
    let made = keyhatch_in(directory, &["init"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let seed = directory.join("seed.yaml");
    let documents = "connections: {\"aws/prod\": {accessKeyID: A, secretAccessKey: s}}\n";
    std::fs::write(&seed, documents).unwrap();
    (ServeProcess::start(directory), seed)
}

async fn open_step(directory: &Path) -> pb::OpenedStep {
    let executor = identity_in(&directory.join("state/executors/local"));
    let admin = directory.join("run/admin.sock");
    let channel = keyhatch::grpc::client::channel(&admin, executor).await.unwrap();
    let mut client = pb::executor_service_client::ExecutorServiceClient::new(channel);
    client.open_step(open_request("deploy", "build")).await.unwrap().into_inner()
}

/// What a command that must succeed has said.
fn succeeded(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn on_a_full_disk_nothing_is_resolved_but_steps_are_closed_and_access_is_taken_away() {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    let disk = directory.path().join("state");
    let Some(_mounted) = SmallFilesystem::mount(&disk, "size=64m,mode=0700") else {
        skipped("a full disk", "needs the right to mount");
        return;
    };
    let (serving, seed) = init_and_serve(directory.path());
    let must = |arguments: &[&str]| succeeded(&serving.run(arguments));
    let refused = |arguments: &[&str]| {
        let output = serving.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    must(&["apply", "-f", seed.to_str().unwrap()]);
    let bind = ["aws/prod", "--relation", "resolver", "--principal", "workflow:deploy"];
    must(&[&["access", "add"][..], &bind].concat());
    let opened = block_on(open_step(directory.path()));
    let step = PathBuf::from(&opened.directory);
    let resolve = || {
        block_on(async {
            let socket = step.join("keyhatch.sock");
            let channel =
                keyhatch::grpc::client::channel(&socket, identity_in(&step)).await.unwrap();
            crate::harness::resolve_on(channel, request("aws/prod")).await
        })
    };
    resolve().unwrap();
    fill(&disk);
    // Lines go on into what is left of the last page, and then no more.
    wait_until("the disk is full to the last byte", || resolve().is_err());
    assert!(refused(&["connection", "update", "aws/prod", "--label", "a=b"]).contains("DISK_FULL"));
    must(&[&["access", "remove"][..], &bind].concat());
    // Also of a daemon that was started with no room.
    assert!(serving.terminate());
    let serving = ServeProcess::spawn(directory.path(), keyhatch_in(directory.path(), &["serve"]));
    let must = |arguments: &[&str]| succeeded(&serving.run(arguments));
    must(&["step", "close", &opened.name]);
    assert!(!step.exists());
    assert!(must(&["status"]).contains("no-secrets"));
    std::fs::remove_file(disk.join("fill")).unwrap();
    wait_until("the reserve is taken again", || must(&["status"]).contains("serving"));
    must(&["connection", "update", "aws/prod", "--label", "a=b"]);
    drop(serving);
    let serving = ServeProcess::start(directory.path());
    let bindings = String::from_utf8(serving.run(&["access", "list", "aws/prod"]).stdout).unwrap();
    assert!(!bindings.contains("workflow:deploy"), "{bindings}");
    drop(serving);
}

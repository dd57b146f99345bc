//! Disks that fail or are full: each acknowledged change is there afterwards, and access can still be taken away.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::durability::disk::{
    Channels, Check, Client, Dice, Event, Image, Kind, OpenSteps, Seen, Serving, Start, UNANSWERED,
    init, read, scratch, seed, shim, two_at_a_time,
};
use crate::harness::{
    ServeProcess, SmallFilesystem, TestBroker, block_on, create_aws, init_in, keyhatch_in, report,
    request, resolve_on, runtime, scale, skipped, step_channel, temp_dir, text, wait_until,
};

/// The number of changes, resolves and steps in a story.
const STORY: usize = 40;
/// Steps stay open over a restart, and every value is resolved.
const EVERYTHING: Check = Check { length: u64::MAX, open_steps: OpenSteps::AreOpen, one_in: 1 };

/// The longest wait for a change on a disk that stays full.
const PATIENCE: Duration = Duration::from_millis(300);
/// The faults: the calls that fail, "+" if they fail forever, and the error.
const FAULTS: [(&str, &str, &str); 6] = [
    ("write", "", "EIO"),
    ("write", "", "ENOSPC"),
    ("write", "+", "ENOSPC"),
    ("write", "", "SHORT"),
    ("sync", "", "EIO"),
    ("sync", "", "ENOSPC"),
];

struct World {
    before: Image,
    shim: PathBuf,
    seed: u64,
}

/// The outcome of one fault.
struct Outcome {
    fault: String,
    events: Vec<Event>,
    acknowledged: usize,
    /// True if the daemon refused to start, which is no loss.
    is_refused: bool,
    problems: Vec<String>,
}

/// An acknowledged request, and the length of the record when it was sent.
struct Answer {
    asked: u64,
    is_change: bool,
    is_close: bool,
}

/// The outcome of a story.
#[derive(Default)]
struct Told {
    answers: Vec<Answer>,
    /// True if a request got no answer, and the story ended there.
    is_unanswered: bool,
}

impl World {
    /// Runs the story with this fault, then starts the daemon without it.
    fn run(&self, fault: &str, directory: &Path, runtime: &Runtime) -> Outcome {
        let (state, record) = (directory.join("state"), directory.join("record"));
        self.before.write(&state);
        let _ = std::fs::remove_dir_all(directory.join("run"));
        let _ = std::fs::remove_file(&record);
        let mut env: Vec<(&str, OsString)> = vec![
            ("LD_PRELOAD", self.shim.clone().into()),
            ("SHIM_DIRECTORY", state.into()),
            ("SHIM_LOG", record.clone().into()),
        ];
        if !fault.is_empty() {
            env.push(("SHIM_FAULT", fault.into()));
        }
        let mut client = Client::new(0, self.seed);
        // On a disk that stays full, a change that the store has accepted waits for room, and its caller gives up.
        let may_wait = fault.contains('+');
        if may_wait {
            client.patience = PATIENCE;
        }
        let mut problems = Vec::new();
        let mut told = Told::default();
        let mut dice = Dice::new(fault.bytes().map(u64::from).sum());
        let started = Serving::start(directory, &env);
        let is_refused = !matches!(started, Start::Serving(_));
        let said = match started {
            Start::Serving(serving) => {
                told = runtime.block_on(tell(&mut client, &serving, &record));
                // The daemon stops in order, or is killed.
                let in_order = !told.is_unanswered && dice.roll(2) == 0;
                let signal = if in_order { Signal::TERM } else { Signal::KILL };
                runtime.block_on(serving.end_of_clients(signal))
            }
            Start::Refused(_, said) if said.contains("error: ") => said,
            Start::Refused(_, said) => format!("panicked: no reason is given: {said}"),
            Start::Hung(said) => format!("panicked: hangs: {said}"),
        };
        if said.contains("panicked") || said.contains("it did not end") {
            problems.push(said);
        }
        if told.is_unanswered && !may_wait {
            problems.push("a call hangs".to_owned());
        }
        let events = read(&record);
        problems.extend(after_a_failed_sync(&events, &told.answers));
        problems.extend(runtime.block_on(look(&client, directory, &mut dice)));
        let fault = fault.to_owned();
        Outcome { fault, events, acknowledged: client.acknowledged, is_refused, problems }
    }
}

fn length_of(record: &Path) -> u64 {
    std::fs::metadata(record).unwrap().len()
}

async fn tell(client: &mut Client, serving: &Serving, record: &Path) -> Told {
    let mut told = Told::default();
    let Ok(channels) = Channels::of_admin(serving).await else { return told };
    client.connect(&channels);
    for _ in 0..STORY {
        let asked = length_of(record);
        let (changes, closes) = (client.changes, client.closes);
        match client.act(&|| length_of(record)).await {
            Ok(()) => {
                let (is_change, is_close) = (client.changes > changes, client.closes > closes);
                told.answers.push(Answer { asked, is_change, is_close });
            }
            Err(error) if error.contains(UNANSWERED) => {
                told.is_unanswered = true;
                break;
            }
            Err(_) => {}
        }
    }
    told
}

/// After a failed sync, no later request that depends on the same file may be acknowledged.
fn after_a_failed_sync(events: &[Event], answers: &[Answer]) -> Option<String> {
    let is_failed =
        |event: &&Event| matches!(event.kind, Kind::Sync | Kind::RangeSync) && !event.is_done;
    let failed = events.iter().find(is_failed)?;
    let opened =
        events.iter().find(|event| event.kind == Kind::Open && event.file == failed.file)?;
    let is_store = opened.path.ends_with("store/db");
    let is_journal = opened.path.ends_with("journal/000001.jsonl");
    // A request that waits for no sync may be answered before the failure is known.
    let rests_on = |answer: &&Answer| {
        ((is_journal || is_store) && answer.is_change) || (is_journal && answer.is_close)
    };
    let late = answers.iter().filter(rests_on).find(|answer| answer.asked > failed.start)?;
    Some(format!(
        "acknowledged at {} after the sync of {} that failed at {}",
        late.asked,
        opened.path.display(),
        failed.start
    ))
}

/// Starts the daemon without a fault. Returns everything that is missing.
async fn look(client: &Client, directory: &Path, dice: &mut Dice) -> Vec<String> {
    let serving = match Serving::start(directory, &[]) {
        Start::Serving(serving) => serving,
        Start::Refused(_, said) | Start::Hung(said) => {
            return vec![format!("no start afterwards: {said}")];
        }
    };
    let problems = async {
        let channels = Channels::open(&serving).await?;
        let seen = Seen::look(&channels.operator).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(client.check(&seen, &channels, EVERYTHING, dice).await.problems)
    };
    let mut problems = problems.await.unwrap_or_else(|error| vec![error]);
    let said = serving.kill();
    if said.contains("panicked") {
        problems.push(said);
    }
    problems
}

/// Every fault in the full form, else a sample of all faults.
fn faults(events: &[Event]) -> Vec<String> {
    let count = |kinds: &[Kind]| events.iter().filter(|event| kinds.contains(&event.kind)).count();
    let counts = BTreeMap::from([
        ("write", count(&[Kind::Write, Kind::Create])),
        ("sync", count(&[Kind::Sync, Kind::RangeSync])),
    ]);
    let mut faults = Vec::new();
    for (calls, more, error) in FAULTS {
        let all = counts[calls];
        let step = all.div_ceil(scale(20, all)).max(1);
        faults.extend(
            (1..=all).step_by(step).map(|number| format!("{calls}:{number}{more}:{error}")),
        );
    }
    faults
}

#[test]
fn no_failed_write_or_sync_loses_or_halves_a_change() {
    let Some(shim) = shim() else { return };
    let seed = seed("disk faults");
    let directory = scratch();
    init(directory.path());
    // Earlier changes give the daemon something to write at its start.
    let mut client = Client::new(9, seed);
    let serving = Serving::start(directory.path(), &[]).serving();
    runtime().block_on(tell(&mut client, &serving, directory.path()));
    serving.kill();
    let world = World { before: Image::of(&directory.path().join("state")), shim, seed };

    let control = world.run("", directory.path(), &runtime());
    assert!(control.problems.is_empty(), "without a fault: {}", control.problems.join("\n"));
    assert_eq!(control.acknowledged, STORY);
    let faults = faults(&control.events);
    let outcomes = two_at_a_time(faults.len(), |number, directory, runtime| {
        world.run(&faults[number], directory, runtime)
    });
    let mut bad = 0;
    for outcome in outcomes.iter().filter(|outcome| !outcome.problems.is_empty()) {
        println!("SHIM_FAULT={}: {}", outcome.fault, outcome.problems.join("\n"));
        bad += 1;
    }
    let refused = outcomes.iter().filter(|outcome| outcome.is_refused).count();
    let acknowledged: usize = outcomes.iter().map(|outcome| outcome.acknowledged).sum();
    let cut_short = outcomes.iter().filter(|outcome| outcome.acknowledged < STORY).count();
    report(
        "failing disk",
        format!("{} faults (EIO, ENOSPC, short writes), {acknowledged} acknowledged", faults.len()),
        format!(
            "{bad} with a loss or a crash, {refused} refused to start, {cut_short} refused changes"
        ),
        "",
    );
    assert_eq!(bad, 0);
    assert!(cut_short > faults.len() / 2, "the faults are not felt");
}

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

/// sled moves long values into files that it never removes, unless the values come in pieces.
#[test]
fn a_value_that_is_overwritten_for_ever_takes_no_more_room() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "first", &["workflow:deploy"]);
    let store = broker.config.state.join("store");
    let mut client = ConnectionServiceClient::new(broker.operator());
    let mut overwrite = |times: usize| {
        for number in 0..times {
            // The lengths go from one piece to several and back.
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

#[test]
fn a_full_disk_still_allows_closing_and_removing_access() {
    let directory = temp_dir();
    let disk = directory.path().join("state");
    let Some(mounted) = SmallFilesystem::mount(&disk, "size=64m,mode=0700") else {
        skipped("a full disk", "needs the right to mount");
        return;
    };
    init_in(directory.path());
    let serving = ServeProcess::start(directory.path());
    let refused = |arguments: &[&str]| {
        let output = serving.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        text(&output.stderr)
    };
    let bind = ["aws/prod", "--relation", "resolver", "--principal", "workflow:deploy"];
    block_on(async { create_aws(serving.admin("operators/admin").await).await });
    let opened = block_on(serving.open("deploy", "build")).unwrap();
    let step = PathBuf::from(&opened.directory);
    let resolve =
        || block_on(async { resolve_on(step_channel(&step).await, request("aws/prod")).await });
    resolve().unwrap();
    mounted.fill();
    // Lines still fit into the rest of the last page, and then no more.
    wait_until("the disk is full to the last byte", || resolve().is_err());
    assert!(refused(&["connection", "update", "aws/prod", "--label", "a=b"]).contains("DISK_FULL"));
    serving.must(&["access", "block", "aws/prod", "--reason", "leaked"]);
    serving.must(&[&["access", "remove"][..], &bind].concat());
    let unblock = ["access", "unblock", "aws/prod", "--reason", "rotated"];
    assert!(refused(&unblock).contains("JOURNAL_UNAVAILABLE"), "it gives access");
    // A daemon that starts without room does the same.
    assert!(serving.terminate());
    let serving = ServeProcess::spawn(directory.path(), keyhatch_in(directory.path(), &["serve"]));
    serving.must(&["step", "close", &opened.name]);
    assert!(!step.exists());
    assert!(serving.must(&["status"]).contains("no-secrets"));
    mounted.empty();
    wait_until("the reserve is taken again", || serving.must(&["status"]).contains("serving"));
    serving.must(&["connection", "update", "aws/prod", "--label", "a=b"]);
    drop(serving);
    let serving = ServeProcess::start(directory.path());
    let bindings = serving.must(&["access", "list", "aws/prod"]);
    assert!(!bindings.contains("workflow:deploy"), "{bindings}");
    serving.must(&unblock);
    drop(serving);
}

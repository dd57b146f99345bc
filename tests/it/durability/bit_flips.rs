//! One flipped bit in the state directory: the daemon refuses to start, or nothing has changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use keyhatch::grpc::pb::group_service_client::GroupServiceClient;
use tokio::runtime::Runtime;

use crate::durability::disk::{
    Channels, Dice, Image, Seen, Serving, Start, init, resolved, scratch, seed, two_at_a_time,
    value,
};
use crate::harness::{
    connection_document, identity_in, keyhatch_in, report, resolver, runtime, scale,
    secret_document,
};

const CONNECTIONS: u64 = 300;
const SECRETS: u64 = 40;
const GROUPS: usize = 5;
/// The number of values that are resolved after a start.
const SAMPLE: usize = 8;
/// A limit above any start's need. Damage must not make the daemon allocate without limit.
const ADDRESS_SPACE_KIB: u64 = 4 * 1024 * 1024;
/// The next steps that a refusal may name.
const NEXT_STEPS: [&str; 6] =
    ["restore", "mend", "free ", "make one with", "run the newer", "give the right"];

/// The content of a state directory, as seen by clients.
#[derive(PartialEq)]
struct Contents {
    connections: BTreeMap<String, pb::Connection>,
    secrets: BTreeMap<String, pb::Secret>,
    groups: Vec<pb::ConnectionGroup>,
}

struct World {
    /// The state after an orderly stop, and after a kill.
    images: [Image; 2],
    contents: Contents,
    /// The directory with the original identities.
    directory: tempfile::TempDir,
}

enum Outcome {
    Refused,
    Intact,
    Wrong(String),
}

async fn contents(channels: &Channels) -> Result<Contents, String> {
    let seen = Seen::look(&channels.operator).await.map_err(|error| error.to_string())?;
    let mut client = GroupServiceClient::new(channels.operator.clone());
    let groups = client.list_groups(pb::ListGroupsRequest::default()).await;
    let groups = groups.map_err(|error| error.to_string())?.into_inner().groups;
    Ok(Contents { connections: seen.connections, secrets: seen.secrets, groups })
}

fn documents() -> Vec<pb::apply_request::Document> {
    // The number of a connection decides the size of its values.
    let connection = |number: u64| {
        let text = value(number * 4 + u64::from(number.is_multiple_of(50)) * 2);
        connection_document(
            &format!("slack/c{number}"),
            &[("api_token", &text)],
            resolver(&["workflow:w"]),
        )
    };
    let secret = |number: u64| secret_document("w", &format!("s{number}"), &value(number * 4));
    let group = |number: usize| {
        pb::apply_request::Document::Group(pb::GroupDocument {
            name: format!("g{number}"),
            integration: "slack".to_owned(),
            identifiers: vec!["env".to_owned()],
            ..Default::default()
        })
    };
    let connections = (0..CONNECTIONS).map(connection);
    connections.chain((0..SECRETS).map(secret)).chain((0..GROUPS).map(group)).collect()
}

impl World {
    fn new() -> Self {
        let directory = scratch();
        init(directory.path());
        let runtime = runtime();
        let serving = Serving::start(directory.path(), &[]).serving();
        let state = directory.path().join("state");
        let contents = runtime.block_on(async {
            let channels = Channels::open(&serving).await.unwrap();
            // Several batches give the store's log more than one end.
            for documents in documents().chunks(20) {
                let requests: Vec<_> = documents
                    .iter()
                    .map(|document| pb::ApplyRequest { document: Some(document.clone()) })
                    .collect();
                let mut client = ApplyServiceClient::new(channels.operator.clone());
                client.apply(tokio_stream::iter(requests)).await.unwrap();
            }
            contents(&channels).await.unwrap()
        });
        serving.kill();
        let killed = Image::of(&state);
        Serving::start(directory.path(), &[]).serving().terminate();
        // This restart writes a snapshot of the store.
        Serving::start(directory.path(), &[]).serving().terminate();
        Self { images: [Image::of(&state), killed], contents, directory }
    }

    /// Flips one bit, and starts a daemon on it.
    fn flip(&self, dice: &mut Dice, directory: &Path, runtime: &Runtime) -> (String, Outcome) {
        let mut image = self.images[dice.roll(2)].clone();
        let filled: Vec<usize> =
            (0..image.files.len()).filter(|file| !image.files[*file].bytes.is_empty()).collect();
        let of_store = |file: &usize| image.files[*file].path.starts_with("store");
        // Half of the flips hit the store, the largest file.
        let stores: Vec<usize> = filled.iter().copied().filter(of_store).collect();
        let among = if dice.roll(2) == 0 { &stores } else { &filled };
        let file = &mut image.files[among[dice.roll(among.len())]];
        let used = file.bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        // Bytes that were never written are flipped seldom.
        let length = if dice.roll(20) == 0 { file.bytes.len() } else { used };
        let (byte, bit) = (dice.roll(length), dice.roll(8));
        file.bytes[byte] ^= 1 << bit;
        let place = format!("{} byte {byte} of {used} bit {bit}", file.path.display());
        image.write(&directory.join("state"));
        let _ = std::fs::remove_dir_all(directory.join("run"));
        (place, self.outcome(dice, directory, runtime))
    }

    fn outcome(&self, dice: &mut Dice, directory: &Path, runtime: &Runtime) -> Outcome {
        let mut command = Command::new("sh");
        let limit = format!("ulimit -v {ADDRESS_SPACE_KIB}; exec \"$0\" serve");
        command.args(["-c", &limit, env!("CARGO_BIN_EXE_keyhatch")]);
        for (name, set) in keyhatch_in(directory, &[]).get_envs() {
            match set {
                Some(set) => command.env(name, set),
                None => command.env_remove(name),
            };
        }
        let serving = match Serving::start_by(directory, command) {
            Start::Serving(serving) => serving,
            Start::Hung(said) => return Outcome::Wrong(format!("hangs: {said}")),
            Start::Refused(status, said) => return refusal(status, &said),
        };
        let looked = runtime.block_on(self.look(&serving, dice));
        let said = serving.kill();
        match looked {
            Err(what) => Outcome::Wrong(format!("{what}: {said}")),
            Ok(()) if said.contains("panicked") => Outcome::Wrong(said),
            Ok(()) => Outcome::Intact,
        }
    }

    async fn look(&self, serving: &Serving, dice: &mut Dice) -> Result<(), String> {
        let identity = |name: &str| identity_in(&self.directory.path().join("state").join(name));
        let channels =
            Channels::open_as(serving, identity("operators/admin"), identity("executors/local"))
                .await?;
        if contents(&channels).await? != self.contents {
            return Err("it serves something else".to_owned());
        }
        for _ in 0..SAMPLE {
            let number = dice.roll(usize::try_from(CONNECTIONS).unwrap()) as u64;
            let wanted = value(number * 4 + u64::from(number.is_multiple_of(50)) * 2);
            let name = format!("connections/slack/c{number}");
            if resolved(&channels.look, &name).await != Ok(wanted) {
                return Err(format!("{name} is another value"));
            }
            let number = dice.roll(usize::try_from(SECRETS).unwrap()) as u64;
            let name = format!("workflows/w/secrets/s{number}");
            if resolved(&channels.look, &name).await != Ok(value(number * 4)) {
                return Err(format!("{name} is another value"));
            }
        }
        Ok(())
    }
}

/// A refusal names the fault and the next step, and is no panic.
fn refusal(status: std::process::ExitStatus, said: &str) -> Outcome {
    let last = said.lines().last().unwrap_or_default().to_owned();
    let is_well_said = status.code() == Some(1)
        && last.starts_with("error: ")
        && NEXT_STEPS.iter().any(|step| last.contains(step))
        && !said.contains("panicked");
    if is_well_said { Outcome::Refused } else { Outcome::Wrong(format!("{status}: {said}")) }
}

#[test]
fn a_flipped_bit_changes_nothing_or_refuses_the_start() {
    let seed = seed("bit flips");
    let world = World::new();
    let count = scale(150, 10_000);
    let outcomes = two_at_a_time(count, |number, directory, runtime| {
        let mut dice = Dice::new(seed.wrapping_mul(1 << 20).wrapping_add(number as u64));
        world.flip(&mut dice, directory, runtime)
    });
    let (mut refused, mut wrong) = (0, 0);
    for (place, outcome) in outcomes {
        match outcome {
            Outcome::Intact => {}
            Outcome::Refused => refused += 1,
            Outcome::Wrong(what) => {
                println!("{place}: {what}");
                wrong += 1;
            }
        }
    }
    report(
        "bit flips",
        format!("{count} flips over all files of the state directory"),
        format!("{refused} refused, {} as it was, {wrong} wrong", count - refused - wrong),
        "",
    );
    assert_eq!(wrong, 0);
    assert!(refused > count / 4, "{refused} refused: the flips are not felt");
}

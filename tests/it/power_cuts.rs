//! The power fails at any moment: nothing that was acknowledged is lost, and nothing is there by half.
//!
//! What the daemon writes and syncs is recorded while clients change things; from the record the states are
//! rebuilt that a disk can be in after a cut at any point of it (tests/it/disk/power.rs), and a daemon is
//! started on each.

use std::ffi::OsString;
use std::path::Path;

use tokio::runtime::Runtime;

use crate::disk::{
    Check, Client, Cut, Dice, Doors, Image, Keep, Recording, Seen, Serving, Start, init, read,
    scratch, seed, shim, two_at_a_time,
};
use crate::harness::{report, runtime, scale};

const CLIENTS: usize = 3;
/// Of each client, before the record begins and while it is made.
const CHANGES: [usize; 2] = [15, 60];

struct World {
    recording: Recording,
    clients: Vec<Client>,
}

/// How a start after a power cut ended.
enum Outcome {
    Whole,
    Refused(String),
    Wrong(Vec<String>),
}

/// Lets the clients work, all at once.
async fn work(
    clients: &mut [Client],
    serving: &Serving,
    count: usize,
    length: &(dyn Fn() -> u64 + Sync),
) {
    let doors = Doors::of_admin(serving).await.unwrap();
    let work = clients.iter_mut().map(async |client| {
        client.connect(&doors);
        for _ in 0..count {
            client.act(length).await.unwrap_or_else(|error| panic!("{error}"));
        }
    });
    futures_util::future::join_all(work).await;
}

fn length_of(record: &Path) -> u64 {
    std::fs::metadata(record).unwrap().len()
}

impl World {
    fn record(shim: &Path, seed: u64) -> Self {
        let directory = scratch();
        let (state, record) = (directory.path().join("state"), directory.path().join("record"));
        init(directory.path());
        let mut clients: Vec<_> = (0..CLIENTS).map(|number| Client::new(number, seed)).collect();
        let runtime = runtime();
        let serving = Serving::start(directory.path(), &[]).serving();
        runtime.block_on(work(&mut clients, &serving, CHANGES[0], &|| 0));
        serving.kill();

        let before = Image::of(&state);
        let env: [(&str, OsString); 3] = [
            ("LD_PRELOAD", shim.into()),
            ("SHIM_DIRECTORY", state.clone().into()),
            ("SHIM_LOG", record.clone().into()),
        ];
        let serving = Serving::start(directory.path(), &env).serving();
        runtime.block_on(work(&mut clients, &serving, CHANGES[1], &|| length_of(&record)));
        serving.kill();
        let recording = Recording { before, directory: state, events: read(&record) };
        Self { recording, clients }
    }

    /// Starts a daemon on the state after a power cut.
    fn after(&self, cut: Cut, dice: &mut Dice, directory: &Path, runtime: &Runtime) -> Outcome {
        self.recording.write(cut, dice, &directory.join("state"));
        let _ = std::fs::remove_dir_all(directory.join("run"));
        let serving = match Serving::start(directory, &[]) {
            Start::Serving(serving) => serving,
            Start::Refused(status, said) => return Outcome::Refused(format!("{status}: {said}")),
            Start::Hung(said) => return Outcome::Refused(format!("hangs: {said}")),
        };
        let length = self.recording.length(&cut);
        let check = Check { length, may_lose_open_steps: true, one_in: 4 };
        let problems = runtime.block_on(async {
            let doors = Doors::open(&serving).await?;
            let seen = Seen::look(&doors.operator).await.map_err(|error| error.to_string())?;
            let mut problems = Vec::new();
            for client in &self.clients {
                problems.extend(client.check(&seen, &doors, check, dice).await.problems);
            }
            Ok::<_, String>(problems)
        });
        let mut problems = problems.unwrap_or_else(|error| vec![error]);
        let said = serving.kill();
        if said.contains("panicked") {
            problems.push(said);
        }
        if problems.is_empty() { Outcome::Whole } else { Outcome::Wrong(problems) }
    }

    fn cut(&self, dice: &mut Dice, careless_store: bool) -> Cut {
        let events = 1 + dice.roll(self.recording.events.len());
        let keep = [Keep::All, Keep::Nothing, Keep::Some(512), Keep::Some(512), Keep::Some(4096)];
        let keep = keep[dice.roll(keep.len())];
        Cut { events, keep, strict_names: dice.roll(2) == 0, careless_store }
    }

    /// What came of so many power cuts.
    fn outcomes(
        &self,
        count: usize,
        seed: u64,
        careless_store: bool,
    ) -> Vec<(usize, Cut, Outcome)> {
        two_at_a_time(count, |number, directory, runtime| {
            let mut dice = Dice::new(seed.wrapping_mul(1 << 20).wrapping_add(number as u64));
            let cut = self.cut(&mut dice, careless_store);
            (number, cut, self.after(cut, &mut dice, directory, runtime))
        })
    }
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    let Some(shim) = shim() else { return };
    let seed = seed("power cuts");
    let world = World::record(&shim, seed);
    let count = scale(200, 5_000);
    let mut bad = 0;
    for (number, cut, outcome) in world.outcomes(count, seed, false) {
        match outcome {
            Outcome::Whole => continue,
            Outcome::Refused(said) => println!("state {number}, {cut:?}: {said}"),
            Outcome::Wrong(problems) => {
                println!("state {number}, {cut:?}: {}", problems.join("\n"));
            }
        }
        bad += 1;
    }
    // The control: with sled's own flush in place of our sync, what was acknowledged is lost, and noticed.
    let careless = count / 10;
    let controls = world.outcomes(careless, seed + 1, true);
    let lost = controls.iter().filter(|(_, _, outcome)| !matches!(outcome, Outcome::Whole)).count();
    let acknowledged: usize = world.clients.iter().map(|client| client.acknowledged).sum();
    report(
        "power cuts",
        format!(
            "{count} states of {} calls, {acknowledged} acknowledged",
            world.recording.events.len()
        ),
        format!("{bad} with a loss or a failed start"),
        format!("{lost} of {careless} without our own sync of the store"),
    );
    assert_eq!(bad, 0);
    assert!(lost > 0, "the test does not notice a store that is not synced");
}

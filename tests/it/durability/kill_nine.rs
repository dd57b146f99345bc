//! The daemon is killed while it starts and while it works, again and again.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::durability::disk::{
    Check, Client, Dice, Doors, OpenSteps, Seen, Serving, StepLife, init, scratch, seed,
};
use crate::harness::{keyhatch_in, report, runtime, scale};

const CLIENTS: usize = 3;
/// Every value is looked at, and an open step is still open.
const EVERYTHING: Check = Check { length: u64::MAX, open_steps: OpenSteps::AreOpen, one_in: 1 };
/// A start is killed within so many microseconds.
const START: usize = 50_000;
/// Under load it is killed after so many answers.
const ANSWERS: usize = 40;

struct World {
    directory: tempfile::TempDir,
    runtime: Runtime,
    clients: Vec<Client>,
    /// Of steps that are closed and were checked, to be checked once more.
    over: Vec<Vec<StepLife>>,
    dice: Dice,
    failed_starts: usize,
    problems: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let directory = scratch();
        init(directory.path());
        Self {
            directory,
            runtime: runtime(),
            clients: (0..CLIENTS).map(|number| Client::new(number, seed)).collect(),
            over: (0..CLIENTS).map(|_| Vec::new()).collect(),
            dice: Dice::new(seed),
            failed_starts: 0,
            problems: Vec::new(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Kills it at a random moment of its start.
    fn kill_while_it_starts(&mut self) {
        let moment = Duration::from_micros(self.dice.roll(START) as u64);
        let starting = Serving::spawn(self.path(), keyhatch_in(self.path(), &["serve"]));
        // The moment to kill it, and nothing that is waited for.
        std::thread::sleep(moment);
        self.note(&starting.kill());
    }

    fn note(&mut self, said: &str) {
        if said.contains("panicked") || said.contains("error: ") {
            self.failed_starts += 1;
            println!("{said}");
        }
    }

    /// Starts it, and looks whether everything is there.
    fn start_and_check(&mut self) -> (Serving, Doors) {
        let serving = Serving::start(self.path(), &[]).serving();
        let Self { runtime, clients, dice, problems, over, .. } = self;
        let doors = runtime.block_on(async {
            let doors = Doors::open(&serving).await.unwrap();
            let seen = Seen::look(&doors.operator).await.unwrap();
            for (client, over) in clients.iter_mut().zip(over) {
                let found = client.check(&seen, &doors, EVERYTHING, dice).await;
                problems.extend(found.problems.iter().cloned());
                over.extend(client.settle(found));
            }
            doors
        });
        (serving, doors)
    }

    /// Kills it after so many answers, while more are asked for.
    fn kill_under_load(&mut self, cycle: usize) {
        let (serving, doors) = self.start_and_check();
        let until = 1 + self.dice.roll(ANSWERS);
        let answers = AtomicUsize::new(0);
        for client in &mut self.clients {
            client.connect(&doors);
            client.run = format!("cycle-{cycle}");
        }
        let (runtime, clients) = (&self.runtime, &mut self.clients);
        let said = std::thread::scope(|scope| {
            let working = scope.spawn(|| {
                let work = clients.iter_mut().map(|client| act_until_it_is_gone(client, &answers));
                runtime.block_on(futures_util::future::join_all(work));
            });
            while answers.load(Ordering::SeqCst) < until && !working.is_finished() {
                std::thread::yield_now();
            }
            serving.kill()
        });
        self.note(&said);
    }

    /// Everything, once more, with every step there ever was.
    fn check_all(&mut self) {
        for (client, over) in self.clients.iter_mut().zip(&mut self.over) {
            client.remember_steps(std::mem::take(over));
        }
        let (serving, _) = self.start_and_check();
        let said = self.runtime.block_on(serving.end_of_clients(Signal::TERM));
        self.note(&said);
    }
}

async fn act_until_it_is_gone(client: &mut Client, answers: &AtomicUsize) {
    while client.act(&|| 0).await.is_ok() {
        answers.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let seed = seed("kill -9");
    let mut world = World::new(seed);
    let cycles = scale(50, 1_000);
    for cycle in 0..cycles {
        if cycle % 2 == 0 {
            world.kill_under_load(cycle);
        } else {
            world.kill_while_it_starts();
        }
        assert!(world.problems.is_empty(), "after {cycle}: {}", world.problems.join("\n"));
    }
    world.check_all();
    let acknowledged: usize = world.clients.iter().map(|client| client.acknowledged).sum();
    let (lost, failed) = (world.problems.len(), world.failed_starts);
    report(
        "kill -9",
        format!("{cycles} kills, half of them while it starts, {acknowledged} acknowledged"),
        format!("{lost} lost, {failed} failed starts"),
        "",
    );
    assert!(acknowledged > cycles * 5, "{acknowledged} acknowledged is no load");
    assert_eq!((lost, failed), (0, 0), "{}", world.problems.join("\n"));
}

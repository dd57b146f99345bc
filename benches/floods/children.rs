//! The processes of a flood bench: one floods, and a sink is flooded in the daemon's place.

use std::fmt::Write as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::common::Process;
use crate::flood;
use crate::flood::{KINDS, Kind, Next, Tally, Target};

/// The share of one core that a flood may use. The flood keeps to it by the CPU time that the kernel reports.
pub const SHARE: f64 = 0.25;
/// The time between two bytes of a slow client.
const BEAT: Duration = Duration::from_secs(10);
/// The number of slow clients.
const SLOW_CLIENTS: usize = 5000;

/// A running flood in its own process.
pub struct Flood {
    process: Process,
    _targets: tempfile::NamedTempFile,
}

impl Flood {
    pub fn start<'a>(
        kind: Kind,
        how_long: Duration,
        targets: impl Iterator<Item = (&'a Path, &'a Path)>,
    ) -> Self {
        let mut lines = String::new();
        for (socket, identity) in targets {
            writeln!(lines, "{}\t{}", socket.display(), identity.display()).unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        let name = KINDS.iter().find(|(_, found)| *found == kind).unwrap().0;
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["flood", name, &how_long.as_secs_f64().to_string()]).arg(file.path());
        Self { process: Process::spawn(child.stdout(Stdio::piped())), _targets: file }
    }

    /// Waits for its end. Returns its counts.
    pub fn tally(self) -> Tally {
        let said = self.process.said();
        let numbers: Vec<usize> =
            said.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let [sent, connected, ended, turned_away, held] = numbers[..] else { panic!("{said}") };
        Tally { sent, connected, ended, turned_away, held }
    }
}

/// The target of the control: a listener that accepts every connection and closes it.
pub struct Sink {
    _process: Process,
    _directory: tempfile::TempDir,
    pub socket: PathBuf,
}

impl Sink {
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let socket = directory.path().join("sink.sock");
        let process = Process::spawn(command.arg("sink").arg(&socket));
        let begin = Instant::now();
        while !socket.exists() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the sink does not come up");
            std::thread::yield_now();
        }
        Self { _process: process, _directory: directory, socket }
    }
}

/// Accepts every connection and closes it, until the process is killed.
pub fn sink(socket: &Path) {
    for connection in UnixListener::bind(socket).unwrap().incoming() {
        drop(connection);
    }
}

/// Floods by the arguments KIND SECONDS TARGETS, and prints the counts.
pub fn flood_as_told(words: &[String]) {
    let [kind, seconds, targets] = words else { panic!("{words:?}") };
    let kind = KINDS.iter().find(|(name, _)| name == kind).unwrap().1;
    let targets = std::fs::read_to_string(targets).unwrap();
    let targets: Vec<Target> = targets
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .map(|(socket, identity)| Target::new(Path::new(socket), Path::new(identity)))
        .collect();
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds.parse().unwrap());
    let mut next_beat = begin;
    let tally = flood::run(kind, &targets, SLOW_CLIENTS, &mut |_| {
        keep_to_share(begin);
        let now = Instant::now();
        if now >= end {
            return Next::End;
        }
        if now >= next_beat {
            next_beat += BEAT;
            return Next::Beat;
        }
        Next::GoOn
    });
    let Tally { sent, connected, ended, turned_away, held } = tally;
    println!("{sent} {connected} {ended} {turned_away} {held}");
}

/// Sleeps until this process has had no more than its share of the CPU.
fn keep_to_share(begin: Instant) {
    let had = clock_gettime(ClockId::ProcessCPUTime);
    let had = Duration::try_from(had).unwrap();
    let due = had.div_f64(SHARE);
    if let Some(early) = due.checked_sub(begin.elapsed()) {
        std::thread::sleep(early);
    }
}

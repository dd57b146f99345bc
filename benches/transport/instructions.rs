//! Counts of instructions by callgrind. They do not depend on the other load of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::Process;

/// The directory for the counts of a server under callgrind.
pub struct Counter {
    directory: tempfile::TempDir,
}

/// The instructions of a load.
pub struct Counts {
    pub all: f64,
    dump: PathBuf,
}

impl Counter {
    /// `None` if valgrind is not installed.
    pub fn new() -> Option<Self> {
        let found = Command::new("valgrind").arg("--version").output().is_ok();
        found.then(|| Self { directory: tempfile::tempdir().unwrap() })
    }

    /// The words that run a server under callgrind. It counts nothing until [`Counter::count`].
    pub fn instrument(&self) -> Vec<String> {
        let out = format!("--callgrind-out-file={}", self.out().display());
        // Without turns by the clock, spinning threads of the store keep the others from running.
        let words =
            ["valgrind", "--quiet", "--fair-sched=yes", "--tool=callgrind", "--instr-atstart=no"];
        words.into_iter().map(str::to_owned).chain([out]).collect()
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("callgrind.out")
    }

    /// The instructions of a server during this work.
    pub async fn count(&self, server: &Process, work: impl Future<Output = ()>) -> Counts {
        let control = |word: &[&str]| {
            let mut command = Command::new("callgrind_control");
            let done = command.args(word).arg(server.id().to_string()).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        control(&["--instr=on"]);
        work.await;
        control(&["--instr=off"]);
        control(&["--dump"]);
        let dump = self.newest_dump();
        Counts { all: total(&dump), dump }
    }

    /// The dumps are numbered from 1.
    fn newest_dump(&self) -> PathBuf {
        let name = |n: u32| PathBuf::from(format!("{}.{n}", self.out().display()));
        let last = (1..).take_while(|n| name(*n).exists()).last();
        name(last.expect("callgrind leaves a dump"))
    }
}

fn total(dump: &Path) -> f64 {
    let text = std::fs::read_to_string(dump).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap();
    line.trim().parse().unwrap()
}

impl Counts {
    /// The instructions of functions and their callees, each found by a part of its name.
    pub fn of(&self, functions: &[&str]) -> f64 {
        let mut annotate = Command::new("callgrind_annotate");
        annotate.args(["--inclusive=yes", "--threshold=100"]).arg(&self.dump);
        let text = String::from_utf8(annotate.output().unwrap().stdout).unwrap();
        let count = |line: &str| {
            let digits: String = line.trim_start().split(' ').next()?.replace(',', "");
            digits.parse::<f64>().ok()
        };
        let named = |name: &&str| {
            let found = text.lines().find(|line| line.contains(*name)).and_then(count);
            found.unwrap_or_else(|| panic!("{name} is no function of its own any more"))
        };
        functions.iter().map(named).sum()
    }
}

//! The runs of the journal in short: when they were, and how much they did.
//!
//! The current file's runs are in its index. Of older files the newest runs are in memory, as they were when their files
//! ended. Of runs before these only the sums by workflow are known; `GetRun` still finds them by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::use_counts::{FileIndex, RunCounts, RunKey};
use crate::model::WorkflowName;

/// How many runs of older files are in memory at least, if there are so many. A run takes some 200 bytes.
const MAX_RUNS: usize = 100_000;

/// Runs with their counts, by key. One may be there several times.
pub type RunList = Vec<(RunKey, RunCounts)>;

/// The runs of older files.
#[derive(Clone, Debug, Default)]
pub struct RunHistory {
    /// How many files there were. A history with the same number is the same.
    files: u64,
    /// The runs of each file, the newest file last.
    kept: Vec<Arc<RunList>>,
    /// What is known of runs before these.
    dropped: Arc<BTreeMap<WorkflowName, RunCounts>>,
}

impl RunHistory {
    /// Takes in the runs of the next file.
    pub(super) fn add(&mut self, index: &FileIndex) {
        let runs = index.runs.iter().map(|(key, lines)| (key.clone(), lines.counts));
        self.kept.push(Arc::new(runs.collect()));
        self.files += 1;
        let mut count: usize = self.kept.iter().map(|runs| runs.len()).sum();
        let mut old = 0;
        for runs in &self.kept {
            count -= runs.len();
            if count < MAX_RUNS {
                break;
            }
            old += 1;
            let dropped = Arc::make_mut(&mut self.dropped);
            runs.iter().for_each(|(key, counts)| add(dropped, &key.workflow, *counts));
        }
        self.kept.drain(..old);
    }

    /// How many files it has taken in.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// The sums of the runs that are not known one by one, by workflow.
    pub fn dropped(&self) -> &BTreeMap<WorkflowName, RunCounts> {
        &self.dropped
    }

    /// The runs that are known, each once, by key.
    pub fn merged(&self) -> RunList {
        let mut all: RunList = self.kept.iter().flat_map(|runs| runs.iter().cloned()).collect();
        // By files they are sorted already, which a stable sort makes use of.
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut merged = RunList::with_capacity(all.len());
        for (key, counts) in all {
            match merged.last_mut() {
                Some((last, of_last)) if *last == key => *of_last = of_last.and(counts),
                _ => merged.push((key, counts)),
            }
        }
        merged
    }
}

/// Adds counts to those of a workflow.
pub fn add(sums: &mut BTreeMap<WorkflowName, RunCounts>, of: &WorkflowName, counts: RunCounts) {
    match sums.get_mut(of) {
        Some(sum) => *sum = sum.and(counts),
        None => drop(sums.insert(of.clone(), counts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::state::use_counts::{RunEvent, RunLines};
    use crate::model::{ExecutorName, RunName, Timestamp};

    fn index(runs: impl Iterator<Item = usize>, time: i64) -> FileIndex {
        let key = |number| RunKey {
            run: RunName::parse(&format!("{number:06}")).unwrap(),
            workflow: WorkflowName::parse("w").unwrap(),
            executor: ExecutorName::parse("e").unwrap(),
        };
        let mut index = FileIndex::default();
        for number in runs {
            let mut lines = RunLines::at(Timestamp::from_millis(time));
            lines.note(RunEvent::Opened, Timestamp::from_millis(time + 1), None);
            index.runs.insert(key(number), lines);
        }
        index
    }

    #[test]
    fn a_run_of_several_files_is_one_and_old_runs_are_sums() {
        let mut history = RunHistory::default();
        history.add(&index(0..60_000, 1));
        history.add(&index(59_999..120_000, 5));
        let merged = history.merged();
        assert_eq!(merged.len(), 120_000);
        let counts = merged[59_999].1;
        assert_eq!((counts.first.millis(), counts.last.millis(), counts.steps), (1, 6, 2));
        history.add(&index(120_000..170_000, 9));
        assert_eq!(history.merged().len(), 170_000 - 59_999);
        let dropped = history.dropped().values().next().unwrap();
        assert_eq!((dropped.steps, dropped.last.millis(), history.files()), (60_000, 2, 3));
    }
}

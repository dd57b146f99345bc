//! What was used by whom: the fold of the indexes of all files.
//!
//! Of the file that is written now everything is in memory. Of the files before it, what was used last by
//! whom; where the lines of a run stand in them is looked up beside them.

use std::collections::{BTreeMap, HashMap};

use super::event::{Event, Outcome, RenewalOutcome, ResolveLine};
use super::index::{ByWorkflow, FileIndex, RunKey};
use crate::model::{GroupName, Id, Opening, RunName, Timestamp, WorkflowName};

/// When each workflow has used something last.
type LastUse = BTreeMap<WorkflowName, Timestamp>;

/// The index of the whole journal.
#[derive(Debug, Default)]
pub struct Usage {
    /// The runs of the openings that lines may still come from.
    open: HashMap<Id, RunKey>,
    /// Of the file that is written now.
    current: FileIndex,
    /// Of the files before.
    resources: HashMap<Id, LastUse>,
    /// Of the files before, by the group's name.
    groups: HashMap<String, LastUse>,
}

impl Usage {
    /// Takes a line in that stands at `offset` of the journal's file.
    pub(super) fn take(&mut self, event: &Event, time: Timestamp, offset: u64) {
        let opening = match event {
            Event::Opened(opening) => {
                self.open.insert(opening.id, RunKey::of(opening));
                opening.id
            }
            Event::Closed { opening, .. } => *opening,
            Event::LeaseRenewal(line) if matches!(line.outcome, RenewalOutcome::Allow { .. }) => {
                line.opening
            }
            Event::Resolve(line) => {
                let Outcome::Allow { uid, .. } = &line.outcome else { return };
                self.count(line, *uid, time);
                line.opening
            }
            Event::ClockSetBack | Event::Restored { .. } => return self.take_all_closed(offset),
            // What stands above are copies; the file before has them.
            Event::Continued { .. } => return self.current = FileIndex::default(),
            _ => return,
        };
        let Some(run) = self.open.get(&opening) else { return };
        self.current.add_place(run, offset);
        if matches!(event, Event::Closed { .. }) {
            self.open.remove(&opening);
        }
    }

    /// Every step was closed at once: each run has the line.
    fn take_all_closed(&mut self, offset: u64) {
        for (_, run) in self.open.drain() {
            let places = self.current.runs.entry(run).or_default();
            if places.last() != Some(&offset) {
                places.push(offset);
            }
        }
    }

    /// Takes in the openings that a file begins with.
    pub(super) fn start_from(&mut self, openings: &[Opening]) {
        self.open = openings.iter().map(|opening| (opening.id, RunKey::of(opening))).collect();
    }

    /// Takes the present file's index out.
    pub(super) fn take_file(&mut self) -> FileIndex {
        std::mem::take(&mut self.current)
    }

    /// Puts it back.
    pub(super) fn put_back(&mut self, index: FileIndex) {
        self.current = index;
    }

    /// Takes in the index of a file before.
    pub(super) fn add_history(&mut self, index: &FileIndex) {
        for (uid, by) in &index.resources {
            add_last(self.resources.entry(*uid).or_default(), by);
        }
        for (name, by) in &index.groups {
            add_last(self.groups.entry(name.clone()).or_default(), by);
        }
    }

    fn count(&mut self, line: &ResolveLine, uid: Id, time: Timestamp) {
        let Some(run) = self.open.get(&line.opening) else { return };
        // `group:NAME:…`, as the target is written.
        let group = line.ask.target.strip_prefix("group:").and_then(|rest| rest.split_once(':'));
        self.current.count(uid, group.map(|(name, _)| name), &run.workflow, time);
    }

    /// The runs of this name in the file that is written now, of one workflow or all, and where their lines
    /// stand.
    pub(super) fn runs<'a>(
        &'a self,
        run: &'a RunName,
        workflow: Option<&'a WorkflowName>,
    ) -> impl Iterator<Item = (&'a RunKey, &'a [u64])> {
        runs_in(&self.current, run, workflow)
    }

    /// The workflows that have used a resource since then, and when last.
    pub fn users_of(&self, uid: Id, since: Timestamp) -> Vec<(WorkflowName, Timestamp)> {
        users(self.resources.get(&uid), self.current.resources.get(&uid), since)
    }

    /// The workflows that have used a group since then, and when last.
    pub fn users_of_group(
        &self,
        name: &GroupName,
        since: Timestamp,
    ) -> Vec<(WorkflowName, Timestamp)> {
        let name = name.as_str();
        users(self.groups.get(name), self.current.groups.get(name), since)
    }
}

/// The runs of this name in one file, of one workflow or all.
pub(super) fn runs_in<'a>(
    index: &'a FileIndex,
    run: &'a RunName,
    workflow: Option<&'a WorkflowName>,
) -> impl Iterator<Item = (&'a RunKey, &'a [u64])> {
    index
        .runs
        .iter()
        .filter(move |(key, _)| key.run == *run)
        .filter(move |(key, _)| workflow.is_none_or(|workflow| key.workflow == *workflow))
        .map(|(key, places)| (key, places.as_slice()))
}

fn last_of(days: &BTreeMap<i64, super::index::Use>) -> Option<Timestamp> {
    days.values().map(|used| used.last).max()
}

fn add_last(last: &mut LastUse, by: &ByWorkflow) {
    for (workflow, days) in by {
        let Some(time) = last_of(days) else { continue };
        let known = last.entry(workflow.clone()).or_insert(time);
        *known = (*known).max(time);
    }
}

fn users(
    before: Option<&LastUse>,
    now: Option<&ByWorkflow>,
    since: Timestamp,
) -> Vec<(WorkflowName, Timestamp)> {
    let mut last = before.cloned().unwrap_or_default();
    if let Some(by) = now {
        add_last(&mut last, by);
    }
    last.into_iter().filter(|(_, time)| *time >= since).collect()
}

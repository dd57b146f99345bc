//! The uses in one file of the journal: which runs have lines in it, and who has used what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::access::Purpose;
use crate::journal::event::MintingLine;
use crate::journal::event::decision_id::DecisionId;
use crate::model::{
    ExecutorName, Id, Opening, RunName, StepName, Timestamp, WorkflowName, WorkflowPath,
};

const MILLIS_A_DAY: i64 = 24 * 3600 * 1000;

/// The key of a run, which includes the executor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunKey {
    /// The name of the run.
    pub run: RunName,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// The executor that opened it.
    pub executor: ExecutorName,
}

impl RunKey {
    /// The run of an opening.
    pub fn of(opening: &Opening) -> Self {
        let key = &opening.key;
        Self {
            run: key.run.clone(),
            workflow: key.workflow.clone(),
            executor: key.executor.clone(),
        }
    }

    /// The run that a mint was begun for.
    pub(super) fn of_mint(line: &MintingLine) -> Option<Self> {
        let WorkflowPath { workflow, run, .. } = &*line.principal;
        let (run, workflow) = (run.clone()?, workflow.clone());
        Some(Self { run, workflow, executor: line.executor.clone() })
    }
}

/// When runs were, and how much they did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunCounts {
    /// When the first step was opened, as far as it is known.
    pub first: Timestamp,
    /// When a step last did something, or was opened or closed.
    pub last: Timestamp,
    /// How often a step was opened.
    pub steps: u64,
    /// How often a step received a credential, or had the broker act with it.
    pub uses: u64,
    /// How often a step was refused.
    pub denials: u64,
}

impl RunCounts {
    /// A run of which nothing is known but this time.
    pub fn at(time: Timestamp) -> Self {
        Self { first: time, last: time, steps: 0, uses: 0, denials: 0 }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            steps: self.steps.saturating_add(other.steps),
            uses: self.uses.saturating_add(other.uses),
            denials: self.denials.saturating_add(other.denials),
        }
    }
}

/// What a line says of its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunEvent {
    /// A step was opened.
    Opened,
    /// A credential was used.
    Used,
    /// A step was refused something.
    Refused,
    /// Anything else that a step did.
    Other,
    /// Something about a credential of the run, which may be long after.
    Later,
}

/// The lines of a run in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunLines {
    /// The places of those that `GetRun` reads.
    pub(crate) places: Vec<u64>,
    pub(crate) counts: RunCounts,
}

impl RunLines {
    pub(super) fn at(time: Timestamp) -> Self {
        Self { places: Vec::new(), counts: RunCounts::at(time) }
    }

    /// Takes in what a line says, and its place if `GetRun` reads it.
    pub(super) fn note(&mut self, event: RunEvent, time: Timestamp, place: Option<u64>) {
        if self.places.last() != place.as_ref() {
            self.places.extend(place);
        }
        let counts = &mut self.counts;
        if event != RunEvent::Later {
            counts.last = counts.last.max(time);
        }
        match event {
            RunEvent::Opened => counts.steps += 1,
            RunEvent::Used => counts.uses += 1,
            RunEvent::Refused => counts.denials += 1,
            RunEvent::Other | RunEvent::Later => {}
        }
    }
}

/// How a workflow used something, on one day or altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// How often it was used.
    pub times: u64,
    /// When it was used last.
    pub last: Timestamp,
    /// When a step got a value of it last; `None` if the broker has only acted with it.
    pub revealed: Option<Timestamp>,
}

impl Use {
    /// One use for this purpose at a time.
    pub(super) fn once((purpose, time): (Purpose, Timestamp)) -> Self {
        let revealed = (purpose == Purpose::Reveal).then_some(time);
        Self { times: 1, last: time, revealed }
    }

    /// Both uses together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            times: self.times.saturating_add(other.times),
            last: self.last.max(other.last),
            revealed: self.revealed.max(other.revealed),
        }
    }
}

/// Uses by workflow and day, in days since 1970.
pub(crate) type ByWorkflow = BTreeMap<WorkflowName, BTreeMap<i64, Use>>;

/// How a workflow was refused the values of a connection that it may see or use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// How often.
    pub times: u64,
    /// When last.
    pub last: Timestamp,
    /// The step that was refused last.
    pub step: StepName,
    /// The line of that decision.
    pub decision: DecisionId,
}

impl Refusals {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let times = self.times.saturating_add(other.times);
        let last = if other.last >= self.last { other } else { self };
        Self { times, ..last }
    }
}

/// Refusals by workflow.
pub(crate) type RefusedByWorkflow = BTreeMap<WorkflowName, Refusals>;

/// The place of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineAt {
    /// Its file and number.
    pub(crate) id: DecisionId,
    /// Where it begins in the file, in bytes.
    pub(crate) offset: u64,
}

/// The index of one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FileIndex {
    pub(crate) runs: BTreeMap<RunKey, RunLines>,
    pub(crate) resources: BTreeMap<Id, ByWorkflow>,
    pub(crate) groups: BTreeMap<String, ByWorkflow>,
    pub(crate) refused: BTreeMap<Id, RefusedByWorkflow>,
}

impl FileIndex {
    /// Takes in a line of a run, and its place if `GetRun` reads it.
    pub(super) fn note_run(
        &mut self,
        run: &RunKey,
        event: RunEvent,
        (time, place): (Timestamp, Option<u64>),
    ) {
        match self.runs.get_mut(run) {
            Some(lines) => lines.note(event, time, place),
            None => {
                let mut lines = RunLines::at(time);
                lines.note(event, time, place);
                self.runs.insert(run.clone(), lines);
            }
        }
    }

    /// Counts a use of a resource, and of the group that it was found by.
    pub(crate) fn count(
        &mut self,
        uid: Id,
        group: Option<&str>,
        workflow: &WorkflowName,
        used: Use,
    ) {
        count_use(self.resources.entry(uid).or_default(), workflow, used);
        let Some(group) = group else { return };
        match self.groups.get_mut(group) {
            Some(by) => count_use(by, workflow, used),
            None => count_use(self.groups.entry(group.to_owned()).or_default(), workflow, used),
        }
    }

    /// Notes that a workflow was refused the values of a connection that it may see or use.
    pub(super) fn refuse(&mut self, uid: Id, workflow: &WorkflowName, refused: Refusals) {
        note_refused(self.refused.entry(uid).or_default(), workflow, refused);
    }
}

/// Notes refusals of a workflow.
pub(super) fn note_refused(by: &mut RefusedByWorkflow, workflow: &WorkflowName, refused: Refusals) {
    let all = match by.remove(workflow) {
        Some(before) => before.and(refused),
        None => refused,
    };
    by.insert(workflow.clone(), all);
}

fn count_use(by: &mut ByWorkflow, workflow: &WorkflowName, used: Use) {
    let days = match by.get_mut(workflow) {
        Some(days) => days,
        None => by.entry(workflow.clone()).or_default(),
    };
    let day = used.last.millis().div_euclid(MILLIS_A_DAY);
    days.entry(day).and_modify(|before| *before = before.and(used)).or_insert(used);
}

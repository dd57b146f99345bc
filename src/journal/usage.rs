//! What was used by whom: an index of the journal, which can be rebuilt from it.
//!
//! ```text
//! run (executor, workflow, run)   → where its lines stand in the file
//! resource (uid, or a group's name) × workflow × day → how often, and when last
//! ```

use std::collections::{BTreeMap, HashMap};

use super::event::{Event, Outcome, RenewalOutcome, ResolveLine};
use crate::model::{ExecutorName, GroupName, Id, Opening, RunName, Timestamp, WorkflowName};

const MILLIS_A_DAY: i64 = 24 * 3600 * 1000;

/// One run: runs are keyed by executor too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunKey {
    /// Its name.
    pub run: RunName,
    /// Of which workflow.
    pub workflow: WorkflowName,
    /// Who opened it.
    pub executor: ExecutorName,
}

impl RunKey {
    fn of(opening: &Opening) -> Self {
        let key = &opening.key;
        Self {
            run: key.run.clone(),
            workflow: key.workflow.clone(),
            executor: key.executor.clone(),
        }
    }
}

/// How a workflow used something on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// How often.
    pub times: u64,
    /// When last.
    pub last: Timestamp,
}

/// The index.
#[derive(Debug, Default)]
pub struct Usage {
    runs: BTreeMap<RunKey, Vec<u64>>,
    /// The runs of the openings that lines may still come from.
    open: HashMap<Id, RunKey>,
    resources: HashMap<Id, ByWorkflow>,
    /// By the group's name.
    groups: HashMap<String, ByWorkflow>,
}

/// Workflow × day.
type ByWorkflow = BTreeMap<WorkflowName, BTreeMap<i64, Use>>;

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
            _ => return,
        };
        let Some(run) = self.open.get(&opening) else { return };
        match self.runs.get_mut(run) {
            Some(places) => places.push(offset),
            None => drop(self.runs.insert(run.clone(), vec![offset])),
        }
        if matches!(event, Event::Closed { .. }) {
            self.open.remove(&opening);
        }
    }

    /// Every step was closed at once: each run has the line.
    pub(super) fn take_all_closed(&mut self, offset: u64) {
        for (_, run) in self.open.drain() {
            let places = self.runs.entry(run).or_default();
            if places.last() != Some(&offset) {
                places.push(offset);
            }
        }
    }

    /// Takes in the openings that a file begins with.
    pub(super) fn start_from(&mut self, openings: &[Opening]) {
        for opening in openings {
            self.open.insert(opening.id, RunKey::of(opening));
        }
    }

    fn count(&mut self, line: &ResolveLine, uid: Id, time: Timestamp) {
        let Some(run) = self.open.get(&line.opening) else { return };
        let workflow = run.workflow.clone();
        count_use(self.resources.entry(uid).or_default(), &workflow, time);
        // `group:NAME:…`, as the target is written.
        let group = line.ask.target.strip_prefix("group:").and_then(|rest| rest.split_once(':'));
        let Some((group, _)) = group else { return };
        match self.groups.get_mut(group) {
            Some(by) => count_use(by, &workflow, time),
            None => count_use(self.groups.entry(group.to_owned()).or_default(), &workflow, time),
        }
    }

    /// The runs of this name, of one workflow or all, and where their lines stand.
    pub fn runs<'a>(
        &'a self,
        run: &'a RunName,
        workflow: Option<&'a WorkflowName>,
    ) -> impl Iterator<Item = (&'a RunKey, &'a [u64])> {
        self.runs
            .iter()
            .filter(move |(key, _)| key.run == *run)
            .filter(move |(key, _)| workflow.is_none_or(|workflow| key.workflow == *workflow))
            .map(|(key, places)| (key, places.as_slice()))
    }

    /// The workflows that have used a resource since then, and when last.
    pub fn users_of(&self, uid: Id, since: Timestamp) -> Vec<(WorkflowName, Timestamp)> {
        users(self.resources.get(&uid), since)
    }

    /// The workflows that have used a group since then, and when last.
    pub fn users_of_group(
        &self,
        name: &GroupName,
        since: Timestamp,
    ) -> Vec<(WorkflowName, Timestamp)> {
        users(self.groups.get(name.as_str()), since)
    }
}

fn count_use(by: &mut ByWorkflow, workflow: &WorkflowName, time: Timestamp) {
    let days = match by.get_mut(workflow) {
        Some(days) => days,
        None => by.entry(workflow.clone()).or_default(),
    };
    let day = time.millis().div_euclid(MILLIS_A_DAY);
    let entry = days.entry(day).or_insert(Use { times: 0, last: time });
    entry.times += 1;
    entry.last = entry.last.max(time);
}

fn users(by: Option<&ByWorkflow>, since: Timestamp) -> Vec<(WorkflowName, Timestamp)> {
    let last = by.into_iter().flatten().filter_map(|(workflow, days)| {
        let (_, last) = days.last_key_value()?;
        (last.last >= since).then(|| (workflow.clone(), last.last))
    });
    last.collect()
}

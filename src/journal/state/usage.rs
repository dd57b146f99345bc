//! The uses of resources: the fold of the indexes of all files.
//!
//! The counts of the current file are in memory. The last use by each workflow in older files is in memory; the places
//! of a run's lines are in the index beside each file.

use std::collections::{BTreeMap, HashMap};

use super::mints::Mints;
use super::use_counts::{
    ByWorkflow, FileIndex, LineAt, Refusals, RefusedByWorkflow, RunKey, Use, note_refused,
};
use crate::access::Purpose;
use crate::journal::event::{Checkpoint, Event, Outcome, ResolveLine};
use crate::lease::LeaseTarget;
use crate::model::{GroupName, Id, IdMap, RunName, Timestamp, WorkflowName};

/// How often each workflow has used a resource, and when last.
type Users = BTreeMap<WorkflowName, Use>;

/// The uses in the whole journal.
#[derive(Debug, Default)]
pub struct Usage {
    /// The runs of the openings that may still have lines.
    open: IdMap<RunKey>,
    /// The uses in the current file.
    current: FileIndex,
    /// The uses in older files.
    resources: IdMap<Users>,
    /// The uses in older files, by the group's name.
    groups: HashMap<String, Users>,
    /// The refusals in older files.
    refused: IdMap<RefusedByWorkflow>,
}

impl Usage {
    /// Takes in a line of the current file. `mints` are those before the line: the lines of a mint and of an ending belong
    /// to the run that the mint was begun for, also after its step is closed.
    pub(crate) fn take(&mut self, event: &Event, time: Timestamp, at: LineAt, mints: &Mints) {
        let offset = at.offset;
        let (opening, mint) = match event {
            Event::Opened(opening) => {
                self.open.insert(opening.id, RunKey::of(opening));
                (opening.id, None)
            }
            Event::Closed { opening, .. } => (*opening, None),
            Event::MintFailed(line) => (line.opening, line.mint),
            Event::EndedUpstream(line) | Event::LeftDisabled(line) | Event::LeftToExpire(line) => {
                (line.opening, Some(line.mint))
            }
            Event::Ending(line) => (line.opening, Some(line.mint)),
            Event::Minted(line) => (line.opening, Some(line.credential.mint)),
            Event::MintJoined(line) => (line.opening, None),
            Event::Minting(line) => (line.opening, None),
            Event::Sent(line) => (line.opening, None),
            Event::LeaseRenewal(line) if line.outcome.allowed().is_some() => (line.opening, None),
            Event::Resolve(line) | Event::Send(line) => {
                match &line.outcome {
                    Outcome::Allow(leased) => {
                        let of = (line.purpose(), time);
                        self.count(line.opening, &line.ask.target, leased.uid, of);
                    }
                    Outcome::Refuse(refused) => {
                        return self.refuse(line, refused.uid, (time, at));
                    }
                }
                (line.opening, None)
            }
            Event::Sign(line) => {
                let Some(used) = line.outcome.allowed() else { return };
                self.count(line.opening, &line.target, used.uid, (Purpose::Use, time));
                (line.opening, None)
            }
            Event::ClockSetBack | Event::Restored { .. } => return self.take_all_closed(offset),
            // The lines above are copies; the file before has counted them.
            Event::Continued { .. } => return self.current = FileIndex::default(),
            _ => return,
        };
        let begun_for = || RunKey::of_mint(mints.line(mint?)?);
        match self.open.get(&opening) {
            Some(run) => self.current.add_place(run, offset),
            None => begun_for().iter().for_each(|run| self.current.add_place(run, offset)),
        }
        if matches!(event, Event::Closed { .. }) {
            self.open.remove(&opening);
        }
    }

    /// Closes every step: the line belongs to each run.
    fn take_all_closed(&mut self, offset: u64) {
        for (_, run) in self.open.drain() {
            let places = self.current.runs.entry(run).or_default();
            if places.last() != Some(&offset) {
                places.push(offset);
            }
        }
    }

    /// Takes in the openings of a checkpoint.
    pub(super) fn start_from(&mut self, checkpoint: &Checkpoint) {
        let openings = checkpoint.openings.iter();
        self.open = openings.map(|opening| (opening.id, RunKey::of(opening))).collect();
    }

    /// Takes the current file's index out.
    pub(crate) fn take_file(&mut self) -> FileIndex {
        std::mem::take(&mut self.current)
    }

    /// Puts the current file's index back.
    pub(crate) fn put_back(&mut self, index: FileIndex) {
        self.current = index;
    }

    /// Takes in the index of an older file.
    pub(crate) fn add_history(&mut self, index: &FileIndex) {
        for (uid, by) in &index.resources {
            add_uses(self.resources.entry(*uid).or_default(), by);
        }
        for (name, by) in &index.groups {
            add_uses(self.groups.entry(name.clone()).or_default(), by);
        }
        for (uid, by) in &index.refused {
            let refused = self.refused.entry(*uid).or_default();
            by.iter().for_each(|(workflow, one)| note_refused(refused, workflow, one.clone()));
        }
    }

    fn count(&mut self, opening: Id, target: &LeaseTarget, uid: Id, of: (Purpose, Timestamp)) {
        let Some(run) = self.open.get(&opening) else { return };
        let group = match target {
            LeaseTarget::Group(group) => Some(group.name.as_str()),
            _ => None,
        };
        self.current.count(uid, group, &run.workflow, of);
    }

    /// Notes that the values of a connection were refused, to which the step has too low a relation.
    fn refuse(&mut self, line: &ResolveLine, uid: Option<Id>, (last, at): (Timestamp, LineAt)) {
        if line.purpose() == Purpose::Reveal
            && let (Some(run), Some(uid)) = (self.open.get(&line.opening), uid)
            && let Some(step) = line.principal.step.clone()
        {
            let refused = Refusals { times: 1, last, step, decision: at.id };
            self.current.refuse(uid, &run.workflow, refused);
        }
    }

    /// The runs of this name in the current file, of one workflow or all, with the places of their lines.
    pub(crate) fn runs<'a>(
        &'a self,
        run: &'a RunName,
        workflow: Option<&'a WorkflowName>,
    ) -> impl Iterator<Item = (&'a RunKey, &'a [u64])> {
        runs_in(&self.current, run, workflow)
    }

    /// How often a resource was used, and when last; `None` if never.
    pub fn use_of(&self, uid: Id) -> Option<Use> {
        let before = self.resources.get(&uid).into_iter().flat_map(BTreeMap::values);
        let now = self.current.resources.get(&uid).into_iter().flat_map(BTreeMap::values);
        before.chain(now.flat_map(BTreeMap::values)).copied().reduce(Use::and)
    }

    /// The workflows that have used a resource since a time. The counts cover the whole journal.
    pub fn users_of(&self, uid: Id, since: Timestamp) -> Vec<(WorkflowName, Use)> {
        users(self.resources.get(&uid), self.current.resources.get(&uid), since)
    }

    /// How a workflow was refused the values of a connection that it could see or use; `None` if never.
    pub fn refusals(&self, uid: Id, workflow: &WorkflowName) -> Option<Refusals> {
        let (before, now) = (self.refused.get(&uid), self.current.refused.get(&uid));
        let of = |by: Option<&RefusedByWorkflow>| by?.get(workflow).cloned();
        of(before).into_iter().chain(of(now)).reduce(Refusals::and)
    }

    /// The workflows that have used a group since a time. The counts cover the whole journal.
    pub fn users_of_group(&self, name: &GroupName, since: Timestamp) -> Vec<(WorkflowName, Use)> {
        let name = name.as_str();
        users(self.groups.get(name), self.current.groups.get(name), since)
    }
}

/// The runs of this name in one file, of one workflow or all, with the places of their lines.
pub(crate) fn runs_in<'a>(
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

fn add_uses(users: &mut Users, by: &ByWorkflow) {
    for (workflow, days) in by {
        let Some(used) = days.values().copied().reduce(Use::and) else { continue };
        let known = users.get(workflow).copied();
        users.insert(workflow.clone(), known.map_or(used, |known| known.and(used)));
    }
}

fn users(
    before: Option<&Users>,
    now: Option<&ByWorkflow>,
    since: Timestamp,
) -> Vec<(WorkflowName, Use)> {
    let mut users = before.cloned().unwrap_or_default();
    if let Some(by) = now {
        add_uses(&mut users, by);
    }
    users.into_iter().filter(|(_, used)| used.last >= since).collect()
}

//! The uses of resources: the fold of the indexes of all files.
//!
//! The counts of the current file are in memory. The last use by each workflow in older files is in memory; the places
//! of a run's lines are in the index beside each file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use super::mints::Mints;
use super::runs::{RunHistory, RunList};
use super::use_counts::{
    ByWorkflow, FileIndex, LineAt, Refusals, RefusedByWorkflow, RunEvent, RunKey, Use, note_refused,
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
    /// The same of each resource altogether: lists look up many.
    current_totals: IdMap<Use>,
    /// The uses in older files.
    resources: IdMap<Users>,
    /// The same of each resource altogether.
    totals: IdMap<Use>,
    /// The runs in older files.
    run_history: RunHistory,
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
        let (opening, mint, said) = match event {
            Event::Opened(opening) => {
                self.open.insert(opening.id, RunKey::of(opening));
                (opening.id, None, RunEvent::Opened)
            }
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
                (line.opening, None, RunEvent::Used)
            }
            Event::Sign(line) => {
                let Some(used) = line.outcome.allowed() else {
                    return self.deny(line.opening, time);
                };
                self.count(line.opening, &line.target, used.uid, (Purpose::Use, time));
                (line.opening, None, RunEvent::Used)
            }
            Event::ClockSetBack | Event::Restored { .. } => {
                return self.take_all_closed(time, offset);
            }
            Event::Blocked(_) | Event::ClosedByOperator(_) | Event::LeasesRevoked(_) => {
                return self.take_lever(event, time, offset);
            }
            // The lines above are copies; the file before has counted them.
            Event::Continued { .. } => return drop(self.take_file()),
            event => match uncounted(event) {
                Some(of_run) => of_run,
                None => return,
            },
        };
        let begun_for = || RunKey::of_mint(mints.line(mint?)?);
        let place = (time, Some(offset));
        match self.open.get(&opening) {
            Some(run) => self.current.note_run(run, said, place),
            None => {
                begun_for().iter().for_each(|run| self.current.note_run(run, said, place));
            }
        }
        if matches!(event, Event::Closed { .. }) {
            self.open.remove(&opening);
        }
    }

    /// Takes in the line of a lever of operators, which may belong to several runs.
    fn take_lever(&mut self, event: &Event, time: Timestamp, offset: u64) {
        let (ended, is_closed) = match event {
            Event::Blocked(line) => (&line.revoked, false),
            Event::ClosedByOperator(line) => (&line.closed, true),
            Event::LeasesRevoked(line) => (&line.revoked, false),
            _ => return,
        };
        let runs = ended.iter().filter_map(|one| self.open.get(&one.opening));
        for run in runs.collect::<BTreeSet<_>>() {
            self.current.note_run(run, RunEvent::Other, (time, Some(offset)));
        }
        if is_closed {
            ended.iter().for_each(|one| drop(self.open.remove(&one.opening)));
        }
    }

    /// Closes every step: the line belongs to each run.
    fn take_all_closed(&mut self, time: Timestamp, offset: u64) {
        for (_, run) in self.open.drain() {
            self.current.note_run(&run, RunEvent::Other, (time, Some(offset)));
        }
    }

    /// Takes in the openings of a checkpoint.
    pub(super) fn start_from(&mut self, checkpoint: &Checkpoint) {
        let openings = checkpoint.openings.iter();
        self.open = openings.map(|opening| (opening.id, RunKey::of(opening))).collect();
    }

    /// Takes the current file's index out.
    pub(crate) fn take_file(&mut self) -> FileIndex {
        self.current_totals.clear();
        std::mem::take(&mut self.current)
    }

    /// Puts the current file's index back.
    pub(crate) fn put_back(&mut self, index: FileIndex) {
        add_totals(&mut self.current_totals, &index);
        self.current = index;
    }

    /// Takes in the index of an older file.
    pub(crate) fn add_history(&mut self, index: &FileIndex) {
        for (uid, by) in &index.resources {
            add_uses(self.resources.entry(*uid).or_default(), by);
        }
        add_totals(&mut self.totals, index);
        self.run_history.add(index);
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
        let used = Use::once(of);
        self.current.count(uid, group, &run.workflow, used);
        add_total(&mut self.current_totals, uid, used);
    }

    /// Notes that the values of a connection were refused, to which the step has too low a relation.
    fn refuse(&mut self, line: &ResolveLine, uid: Option<Id>, (last, at): (Timestamp, LineAt)) {
        self.deny(line.opening, last);
        if line.purpose() == Purpose::Reveal
            && let (Some(run), Some(uid)) = (self.open.get(&line.opening), uid)
            && let Some(step) = line.principal.step.clone()
        {
            let refused = Refusals { times: 1, last, step, decision: at.id };
            self.current.refuse(uid, &run.workflow, refused);
        }
    }

    /// Counts a refusal of a step.
    fn deny(&mut self, opening: Id, time: Timestamp) {
        if let Some(run) = self.open.get(&opening) {
            self.current.note_run(run, RunEvent::Refused, (time, None));
        }
    }

    /// The runs of older files.
    pub fn run_history(&self) -> &RunHistory {
        &self.run_history
    }

    /// Runs in the current file after this, at most `size`, by key.
    pub fn current_runs(&self, after: Option<&RunKey>, size: usize) -> RunList {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let runs = self.current.runs.range::<RunKey, _>((start, Bound::Unbounded));
        runs.take(size).map(|(key, lines)| (key.clone(), lines.counts)).collect()
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
        let (before, now) = (self.totals.get(&uid), self.current_totals.get(&uid));
        before.into_iter().chain(now).copied().reduce(Use::and)
    }

    /// How often a group was used, and when last; `None` if never.
    pub fn use_of_group(&self, name: &GroupName) -> Option<Use> {
        let name = name.as_str();
        let before = self.groups.get(name).into_iter().flat_map(BTreeMap::values);
        let now = self.current.groups.get(name).into_iter().flat_map(BTreeMap::values);
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

/// The opening, the mint and what it says of the run, of a line that counts no use.
fn uncounted(event: &Event) -> Option<(Id, Option<Id>, RunEvent)> {
    let later = |opening, mint| Some((opening, mint, RunEvent::Later));
    match event {
        Event::Closed { opening, .. } => Some((*opening, None, RunEvent::Other)),
        Event::EndedUpstream(line) | Event::LeftDisabled(line) | Event::LeftToExpire(line) => {
            later(line.opening, Some(line.mint))
        }
        Event::Ending(line) => later(line.opening, Some(line.mint)),
        Event::LeaseRenewal(line) if line.outcome.allowed().is_some() => {
            Some((line.opening, None, RunEvent::Other))
        }
        Event::MintFailed(line) => later(line.opening, line.mint),
        Event::MintJoined(line) => later(line.opening, None),
        Event::Minted(line) => later(line.opening, Some(line.credential.mint)),
        Event::Minting(line) => later(line.opening, None),
        Event::Sent(line) => later(line.opening, None),
        _ => None,
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
        .map(|(key, lines)| (key, lines.places.as_slice()))
}

fn add_total(totals: &mut IdMap<Use>, uid: Id, used: Use) {
    totals.entry(uid).and_modify(|before| *before = before.and(used)).or_insert(used);
}

fn add_totals(totals: &mut IdMap<Use>, index: &FileIndex) {
    for (uid, by) in &index.resources {
        let uses = by.values().flat_map(BTreeMap::values).copied();
        uses.reduce(Use::and).into_iter().for_each(|used| add_total(totals, *uid, used));
    }
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

//! How steps and leases end, by an executor or by operators.

use super::World;
use crate::access::BlockTarget;
use crate::journal::*;
use crate::model::WorkflowPath;

impl World {
    pub(in crate::journal::tests) fn close(&mut self, nth: usize) {
        let Some(step) = self.steps[nth].take() else { return };
        let id = step.record().id;
        let told = self.told_at_close(&step);
        let before = self.journal().last().unwrap().0;
        let closed = self.journal().close(self.now, id, CloseReason::Executor, |_| {}).unwrap();
        let Position(last) = closed.unwrap().position;
        assert_eq!(usize::try_from(last - before - 1).unwrap(), told);
        self.forget(id, told);
    }

    /// How many lines a close writes of credentials that outlive the step.
    fn told_at_close(&self, step: &LiveOpening) -> usize {
        let told = |live: &Live| left_to_expire(live, step, self.now).len();
        self.journal().with_live(told).unwrap()
    }

    fn forget(&mut self, id: Id, told: usize) {
        // Each is told once, whether a lease is on it or not.
        let is_told = |(opening, end): &&(Id, Timestamp)| *opening == id && self.now < *end;
        assert_eq!(self.outliving.iter().filter(is_told).count(), told);
        self.outliving.retain(|(opening, _)| *opening != id);
        self.lines += told;
        self.awaited.retain(|one| one.opening.record().id != id);
    }

    /// An administrator closes a step, and may block it.
    pub(in crate::journal::tests) fn close_by_operator(&mut self, nth: usize, blocks: bool) {
        let target = path_of(nth);
        let open = self.steps[nth].take();
        let told = open.as_ref().map_or(0, |step| self.told_at_close(step));
        let openings: Vec<Id> = open.iter().map(|step| step.record().id).collect();
        let chosen = OperatorClose { target: target.clone(), blocks, openings: openings.clone() };
        let (before, mut epoch) = (self.journal().last().unwrap().0, self.epoch);
        let closed = self.journal().close_by_operator::<LeverError>(
            self.now,
            &by(),
            |_| Ok(chosen),
            |_, _| {},
            |live| epoch = live.epoch(),
        );
        let (_, ended) = closed.unwrap();
        let is_new = blocks && self.blocked.insert(target.to_string());
        assert_eq!(ended.is_some(), is_new || !openings.is_empty(), "a line for what it changes");
        let Position(last) = self.journal().last().unwrap();
        let lines = told + usize::from(ended.is_some());
        assert_eq!(usize::try_from(last - before).unwrap(), lines);
        self.epoch = epoch;
        for id in openings {
            self.forget(id, told);
            self.ended.insert(id);
        }
    }

    /// An operator blocks a step: its leases end, and it stays open.
    pub(in crate::journal::tests) fn block(&mut self, nth: usize) {
        let target = path_of(nth);
        let on = BlockOn { target: BlockTarget::Steps(target.clone()), uid: None };
        let mut epoch = self.epoch;
        let publish = |live: &Live| epoch = live.epoch();
        let blocking = self.journal().block::<LeverError>(self.now, &by(), &on, publish);
        let is_new = self.blocked.insert(target.to_string());
        assert_eq!(matches!(blocking.unwrap(), Blocking::Set(_)), is_new);
        self.epoch = epoch;
        if let (Some(step), true) = (&self.steps[nth], is_new) {
            let id = step.record().id;
            let held = self.journal().with_live(|live| live.leases().of_opening(id)).unwrap();
            assert_eq!(held, [], "a block ends the leases under it");
        }
    }

    pub(in crate::journal::tests) fn unblock(&mut self, nth: usize) {
        let (target, mut epoch) = (path_of(nth), self.epoch);
        let lifted = self.journal().unblock(
            self.now,
            &by(),
            |live| live.blocks().on_steps(&target).cloned(),
            |live| epoch = live.epoch(),
        );
        let was_blocked = self.blocked.remove(&target.to_string());
        assert_eq!(lifted.unwrap().is_some(), was_blocked);
        self.epoch = epoch;
    }

    /// An operator revokes every lease of a step.
    pub(in crate::journal::tests) fn revoke_all(&mut self, nth: usize) {
        let Some(step) = self.steps[nth].clone() else { return };
        let (id, mut epoch) = (step.record().id, self.epoch);
        let held = self.journal().with_live(|live| live.leases().count_of(id)).unwrap();
        let revoked = self.journal().revoke_chosen::<LeverError>(
            self.now,
            &by(),
            |live| Ok(live.leases().held_by(id).collect()),
            |live| epoch = live.epoch(),
        );
        let revoked = revoked.unwrap().map_or(0, |ended| ended.leases);
        assert!(revoked <= held, "some may have expired");
        self.epoch = epoch;
        let left = self.journal().with_live(|live| live.leases().count_of(id)).unwrap();
        assert_eq!(left, 0);
    }
}

/// The error of a lever.
#[derive(Debug)]
struct LeverError;

impl From<Unavailable> for LeverError {
    fn from(_: Unavailable) -> Self {
        Self
    }
}

impl From<TooManyBlocks> for LeverError {
    fn from(_: TooManyBlocks) -> Self {
        Self
    }
}

fn by() -> EndedBy {
    EndedBy { principal: "operator:admin".to_owned(), reason: "leaked".parse().unwrap() }
}

fn path_of(step: usize) -> WorkflowPath {
    format!("workflow:w/run:1/step:s{step}").parse().unwrap()
}

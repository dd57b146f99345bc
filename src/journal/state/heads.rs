//! How far the batches of changes are.

use crate::journal::event::Checkpoint;

/// The last publication on which a decision may depend: what a decision was made on, and never just the last batch. Batches with
/// only what the broker keeps for itself have the epoch before. What operators end or block begins a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    batch: u64,
    /// How often operators have ended or blocked something since the start, beside batches.
    levers: u64,
}

impl Epoch {
    /// The epoch that a batch begins on which decisions may depend, or as far as a start knows.
    pub fn of_batch(number: u64) -> Self {
        Self { batch: number, levers: 0 }
    }

    /// The epoch that begins when operators end or block something.
    pub(super) fn after_lever(self) -> Self {
        Self { levers: self.levers + 1, ..self }
    }
}

/// How far the batches of changes are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heads {
    /// The last batch in force.
    pub(crate) head: u64,
    /// The last publication on which a decision may depend.
    pub(crate) epoch: Epoch,
    /// The last batch that was announced.
    pub(crate) intent: u64,
    /// The last batch that is known never to have reached the store.
    pub(crate) abandoned: u64,
}

impl Heads {
    pub(super) fn start_from(checkpoint: &Checkpoint) -> Self {
        let Checkpoint { head, intent, abandoned, .. } = *checkpoint;
        Self { head, epoch: Epoch::of_batch(head), intent, abandoned }
    }

    /// Takes in that a batch is in force. A decision may depend on it, as far as its line says.
    pub(super) fn take_head(&mut self, batch: u64) {
        self.head = batch;
        self.epoch.batch = batch;
        self.intent = self.intent.max(batch);
    }
}

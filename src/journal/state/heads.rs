//! How far the batches of changes are.

use crate::journal::event::Checkpoint;

/// How far the batches of changes are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heads {
    /// The last batch in force.
    pub(crate) head: u64,
    /// The last batch in force on which a decision may depend.
    pub(crate) epoch: u64,
    /// The last batch that was announced.
    pub(crate) intent: u64,
    /// The last batch that is known never to have reached the store.
    pub(crate) abandoned: u64,
}

impl Heads {
    pub(super) fn start_from(checkpoint: &Checkpoint) -> Self {
        let Checkpoint { head, intent, abandoned, .. } = *checkpoint;
        Self { head, epoch: head, intent, abandoned }
    }

    /// Takes in that a batch is in force. A decision may depend on it, as far as its line says.
    pub(super) fn take_head(&mut self, batch: u64) {
        (self.head, self.epoch) = (batch, batch);
        self.intent = self.intent.max(batch);
    }
}

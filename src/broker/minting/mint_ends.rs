//! The ends of mints whose lines could not be written, as on a full disk.
//!
//! A mint without its last line stays under way. A credential that is owed an ending would then be ended only after the
//! next start.

use parking_lot::Mutex;

use crate::journal::{Journal, MintFault, Unavailable};
use crate::model::{Id, Timestamp};

/// The end of a mint that has made nothing, as far as is known.
pub(super) struct MintEnd {
    pub(super) mint: Id,
    pub(super) fault: MintFault,
    /// True if the store keeps what ends a credential that the upstream may have made.
    pub(super) is_owed: bool,
}

/// The ends that are still to be written, in no order.
#[derive(Default)]
pub(super) struct MintEnds(Mutex<Vec<MintEnd>>);

impl MintEnd {
    fn write(&self, journal: &Journal, now: Timestamp) -> Result<(), Unavailable> {
        journal.mint_failed(now, self.mint, self.fault.clone(), self.is_owed)
    }
}

impl MintEnds {
    /// Writes the line of an end, now or later.
    pub(super) fn write(&self, end: MintEnd, journal: &Journal, now: Timestamp) {
        if let Err(error) = end.write(journal, now) {
            tracing::warn!(mint.id = %end.mint, %error, "the end of a mint has no line yet");
            self.0.lock().push(end);
        }
    }

    /// Writes the lines that could not be written before, as far as they can be written now.
    pub(super) fn write_rest(&self, journal: &Journal, now: Timestamp) {
        let mut rest = std::mem::take(&mut *self.0.lock());
        while rest.last().is_some_and(|end| end.write(journal, now).is_ok()) {
            rest.pop();
        }
        self.0.lock().append(&mut rest);
    }
}

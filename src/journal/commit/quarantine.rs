//! The end of the quarantine of a restored broker.

use crate::journal::event::{Event, RestoredAs};
use crate::journal::{Journal, Position, Unavailable};
use crate::model::Timestamp;

/// What the end of a quarantine comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineEnd {
    /// It ends by this line.
    Ended(Position),
    /// There is none.
    None,
    /// It goes on: somebody must say what the broker is, because so many credentials are owed an ending.
    Undecided(usize),
}

impl Journal {
    /// Ends the quarantine. `restored_as` may be left out if no credential is owed an ending: two brokers that both end the
    /// same credentials would end those that steps of the other use.
    ///
    /// # Errors
    /// If the line cannot be written.
    pub fn end_quarantine(
        &self,
        now: Timestamp,
        principal: String,
        restored_as: Option<RestoredAs>,
    ) -> Result<QuarantineEnd, Unavailable> {
        let mut chain = self.lock()?;
        let live = chain.live();
        if !live.is_quarantined() {
            return Ok(QuarantineEnd::None);
        }
        let owed = live.mints().owed().iter().count();
        if owed > 0 && restored_as.is_none() {
            return Ok(QuarantineEnd::Undecided(owed));
        }
        let event = Event::QuarantineEnded { principal, restored_as };
        chain.append(now, &event).map(QuarantineEnd::Ended)
    }
}

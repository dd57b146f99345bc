//! A broker that was restored from a backup resolves nothing until an administrator confirms it.

use std::sync::Arc;

use super::restored_tokens::trust;
use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::connections::lost::LostSearch;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_role;
use crate::journal::{Live, QuarantineEnd, RestoredAs};

const IS_COPY: &str = "this broker, or the broker of its backup, was confirmed as a copy, so roles of an original that goes \
                       on look the same: end those of a broker that is gone at their servers";
const NOT_RESTORED: &str =
    "this broker was not confirmed as the successor of an original that is gone";

/// What came of a confirmation.
pub struct Confirmed {
    /// Whether there was a quarantine.
    pub is_ended: bool,
    /// The search for credentials that upstreams list and the journal has lost.
    pub search: LostSearch,
    /// Why they were not looked for, although the original is gone.
    pub not_sought: Option<&'static str>,
}

impl Broker {
    /// Ends the quarantine. The credentials that are owed an ending are ended from then on, or forgotten if this broker is a
    /// copy; their records are then removed as those that nothing needs. If the original is gone, the credentials that its
    /// journal had after the backup are looked for: also later, when there is no quarantine. `are_current` makes the refresh
    /// tokens of the backup usable, with or without a quarantine.
    ///
    /// # Errors
    /// See `SystemService.EndQuarantine`.
    pub async fn end_quarantine(
        self: &Arc<Self>,
        caller: &Principal,
        restored_as: Option<RestoredAs>,
        are_current: bool,
    ) -> Result<Confirmed, Error> {
        require_role(caller, Role::Administrator)?;
        if are_current && restored_as == Some(RestoredAs::Copy) {
            return Err(Error::RestoreContradictory);
        }
        let is_ended =
            match self.journal.end_quarantine(self.now(), caller.to_string(), restored_as)? {
                QuarantineEnd::Ended(position) => {
                    self.journal.synced(position).await?;
                    true
                }
                QuarantineEnd::None => false,
                QuarantineEnd::Undecided(owed) => return Err(Error::RestoreUndecided(owed)),
            };
        // After the decision, so that a refused one changes nothing.
        if are_current {
            let by = caller.to_string();
            self.writer.submit(move |draft| trust(draft, &by)).await?;
        }
        let (mut search, mut not_sought) = (LostSearch::default(), None);
        if restored_as == Some(RestoredAs::OriginalGone) {
            match self.journal.with_live(Live::restored_as)? {
                Some(RestoredAs::OriginalGone) => search = self.end_lost(caller).await,
                // The roles of a living original look the same.
                Some(RestoredAs::Copy) => not_sought = Some(IS_COPY),
                None => not_sought = Some(NOT_RESTORED),
            }
        }
        Ok(Confirmed { is_ended, search, not_sought })
    }
}

//! A broker that was restored from a backup resolves nothing until an administrator confirms it.

use super::restored_tokens::trust;
use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::connections::lost::LostCredentials;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_role;
use crate::journal::{QuarantineEnd, RestoredAs};

impl Broker {
    /// Ends the quarantine. Returns whether there was one, and the credentials that upstreams list and the journal has lost,
    /// whose endings begin if the original is gone: also later, when there is no quarantine. The credentials that are owed an ending are ended from then on, or
    /// forgotten if this broker is a copy; their records are then removed as those that nothing needs. `are_current` makes the
    /// refresh tokens of the backup usable, with or without a quarantine.
    ///
    /// # Errors
    /// See `SystemService.EndQuarantine`.
    pub async fn end_quarantine(
        &self,
        caller: &Principal,
        restored_as: Option<RestoredAs>,
        are_current: bool,
    ) -> Result<(bool, Vec<LostCredentials>), Error> {
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
        let lost = match restored_as {
            Some(RestoredAs::OriginalGone) => self.end_lost(caller).await,
            _ => Vec::new(),
        };
        Ok((is_ended, lost))
    }
}

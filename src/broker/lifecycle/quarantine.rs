//! A broker that was restored from a backup resolves nothing until an administrator confirms it.

use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_role;
use crate::journal::{Event, Live};

impl Broker {
    /// Ends the quarantine. Returns whether there was one.
    ///
    /// # Errors
    /// See `SystemService.EndQuarantine`.
    pub async fn end_quarantine(&self, caller: &Principal) -> Result<bool, Error> {
        require_role(caller, Role::Administrator)?;
        if !self.journal.with_live(Live::is_quarantined)? {
            return Ok(false);
        }
        let event = Event::QuarantineEnded { principal: caller.to_string() };
        let (position, _) = self.journal.append(self.now(), &event)?;
        self.journal.synced(position).await?;
        Ok(true)
    }
}

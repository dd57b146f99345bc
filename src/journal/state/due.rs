//! When a credential is to be ended.

use super::live::Live;
use super::owed::Owed;
use crate::journal::event::{EndingReason, MintingLine};
use crate::lease::Lease;

/// How the connection of a credential stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has another version, or is disabled.
    Changed,
    /// It was deleted.
    Deleted,
    /// It is as it was when the credential was made.
    Same,
}

impl Owed {
    /// Why the credential is to be ended now; `None` if it is in use, or its ending has begun.
    pub fn due(&self, live: &Live, standing: Standing) -> Option<EndingReason> {
        if self.begun.is_some() {
            return None;
        }
        let Some(credential) = &self.credential else { return Some(EndingReason::Interrupted) };
        let MintingLine { opening, uid, version, .. } = self.minting;
        let may_use = |lease: &Lease| {
            lease.resource == uid && lease.version == version && lease.may_move_to(credential)
        };
        match standing {
            _ if live.opening(opening).is_none() => Some(EndingReason::StepClosed),
            Standing::Changed => Some(EndingReason::ConnectionChanged),
            Standing::Deleted => Some(EndingReason::ConnectionDeleted),
            Standing::Same if live.leases().held_by(opening).any(may_use) => None,
            Standing::Same => Some(EndingReason::LeaseEnded),
        }
    }
}

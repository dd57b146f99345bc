//! When a credential is to be ended.

use super::live::Live;
use super::owed::Owed;
use crate::journal::event::{EndingReason, MintingLine};
use crate::lease::Lease;
use crate::model::Id;

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
        if self.credential.is_none() {
            return Some(EndingReason::Interrupted);
        }
        let opening = self.minting.opening;
        match standing {
            _ if live.opening(opening).is_none() => Some(EndingReason::StepClosed),
            Standing::Changed => Some(EndingReason::ConnectionChanged),
            Standing::Deleted => Some(EndingReason::ConnectionDeleted),
            Standing::Same if live.leases().held_by(opening).any(|one| self.may_use(one)) => None,
            Standing::Same => Some(EndingReason::LeaseEnded),
        }
    }

    /// Whether the holder of a lease of its opening uses the credential, or gets it when it asks again.
    fn may_use(&self, lease: &Lease) -> bool {
        let MintingLine { uid, version, .. } = self.minting;
        let Some(credential) = &self.credential else { return false };
        lease.resource == uid && lease.version == version && lease.may_move_to(credential)
    }

    /// The leases by which the credential is in use.
    pub fn users(&self, live: &Live) -> Vec<Id> {
        let held = live.leases().held_by(self.minting.opening);
        held.filter(|lease| self.may_use(lease)).map(|lease| lease.id).collect()
    }
}

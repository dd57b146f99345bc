//! The permit: proof that a decision to hand out one record stands in the journal.

use crate::journal::DecisionId;
use crate::seal::{Keyring, OpenError, OpenedFields, RecordKey, Sealed};

/// Leave to open one version of one record, once. Only [`Journal::commit`](crate::journal::Journal::commit) makes one, after its
/// line is written; it is used up by [`Permit::open`].
#[must_use]
pub struct Permit {
    record: RecordKey,
    version: u64,
    decision_id: DecisionId,
}

/// Why a permit opened nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// The record fails authentication.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The permit is for another version.
    #[error("the permit is for another record")]
    OtherRecord,
}

impl Permit {
    pub(super) fn new(record: RecordKey, version: u64, decision_id: DecisionId) -> Self {
        Self { record, version, decision_id }
    }

    /// Where the decision stands in the journal.
    pub fn decision_id(&self) -> DecisionId {
        self.decision_id
    }

    /// Opens the record that the permit is for.
    ///
    /// # Errors
    /// If `sealed` is another version, or is not that record's.
    pub fn open(self, sealed: &Sealed, keyring: &Keyring) -> Result<OpenedFields, PermitError> {
        if sealed.version() != self.version {
            return Err(PermitError::OtherRecord);
        }
        Ok(keyring.open_values(self.record, sealed)?)
    }

    /// Opens the record that all of these permits are for, once for all of them.
    ///
    /// # Errors
    /// If there is no permit, or one of them is for another record or version; else as [`Permit::open`].
    pub fn open_once(
        mut permits: Vec<Self>,
        sealed: &Sealed,
        keyring: &Keyring,
    ) -> Result<OpenedFields, PermitError> {
        let Some(first) = permits.pop() else { return Err(PermitError::OtherRecord) };
        let is_alike =
            |other: &Self| other.record == first.record && other.version == first.version;
        if !permits.iter().all(is_alike) {
            return Err(PermitError::OtherRecord);
        }
        first.open(sealed, keyring)
    }
}

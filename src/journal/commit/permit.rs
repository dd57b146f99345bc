//! The permit: proof that the journal contains a decision to hand out one record.

use crate::journal::DecisionId;
use crate::seal::{Keyring, OpenError, OpenedFields, RecordKey, Sealed};

/// The right to open one version of one record, once. Only [`Journal`](crate::journal::Journal) makes permits, after
/// the line of the decision is written. [`Permit::open`] uses the permit up.
#[must_use]
pub struct Permit {
    record: RecordKey,
    version: u64,
    decision_id: DecisionId,
}

/// Why a permit did not open a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// The record fails authentication.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The permit is for another record or version.
    #[error("the permit is for another record")]
    OtherRecord,
}

impl Permit {
    pub(super) fn new(record: RecordKey, version: u64, decision_id: DecisionId) -> Self {
        Self { record, version, decision_id }
    }

    /// The place of the decision in the journal.
    pub fn decision_id(&self) -> DecisionId {
        self.decision_id
    }

    /// Opens the record of this permit.
    ///
    /// # Errors
    /// If `sealed` is another version or another record.
    pub fn open(self, sealed: &Sealed, keyring: &Keyring) -> Result<OpenedFields, PermitError> {
        if sealed.version() != self.version {
            return Err(PermitError::OtherRecord);
        }
        Ok(keyring.open_values(self.record, sealed)?)
    }

    /// Opens the record of all of these permits once.
    ///
    /// # Errors
    /// If there is no permit, or the permits are not all for the same version of the same record; else as
    /// [`Permit::open`].
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

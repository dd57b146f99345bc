//! The permits: proof that the journal contains a decision to open one record.

use std::marker::PhantomData;

use crate::journal::DecisionId;
use crate::model::Fields;
use crate::seal::{Keyring, OpenError, OpenedFields, RecordKey, RecordKind, Sealed};

/// The right to open one version of one record, once, [for the broker itself](Root), [for a step](HandOut), or [to act for a step](Act). Only
/// [`Journal`](crate::journal::Journal) makes permits, after the line of the decision is written. Opening uses the permit
/// up.
#[must_use]
pub struct Permit<For> {
    record: RecordKey,
    version: u64,
    decision_id: DecisionId,
    purpose: PhantomData<For>,
}

/// The purpose of a permit for stored values that stay in the broker: they are tested, or a credential is made from
/// them.
pub enum Root {}

/// The purpose of a permit for what a step gets.
pub enum HandOut {}

/// The purpose of a permit for values that the broker uses for a step: it sends them upstream, or signs with them, and the
/// step gets none of them.
pub enum Act {}

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

impl Permit<Root> {
    /// A permit after the line of a test or of a mint.
    pub(super) fn to_root(record: RecordKey, version: u64, decision_id: DecisionId) -> Self {
        Self { record, version, decision_id, purpose: PhantomData }
    }

    /// The place of the line in the journal.
    pub fn decision_id(&self) -> DecisionId {
        self.decision_id
    }

    /// The permit for the refresh token that replaces the one among a connection's values: the same decision is about both.
    ///
    /// # Errors
    /// If this permit is not for a connection's values.
    pub fn to_rotated_token(&self, generation: u64) -> Result<Self, PermitError> {
        let RecordKey { kind: RecordKind::ConnectionValues, uid } = self.record else {
            return Err(PermitError::OtherRecord);
        };
        let record = RecordKey { kind: RecordKind::RotatedToken, uid };
        Ok(Self::to_root(record, generation, self.decision_id))
    }

    /// Opens the record of this permit: all of its fields.
    ///
    /// # Errors
    /// If `sealed` is another version or another record.
    pub fn open(self, sealed: &Sealed, keyring: &Keyring) -> Result<Fields, PermitError> {
        let opened = open((self.record, self.version), sealed, keyring)?;
        Ok(opened.to_fields().ok_or(OpenError)?)
    }
}

impl Permit<HandOut> {
    /// A permit after the line of a decision to hand the record out.
    pub(super) fn to_hand_out(record: RecordKey, version: u64, decision_id: DecisionId) -> Self {
        Self { record, version, decision_id, purpose: PhantomData }
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
        open((self.record, self.version), sealed, keyring)
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

impl Permit<Act> {
    /// A permit after the line of a decision to act.
    pub(super) fn to_act(record: RecordKey, version: u64, decision_id: DecisionId) -> Self {
        Self { record, version, decision_id, purpose: PhantomData }
    }

    /// Opens the record of this permit: all of its fields.
    ///
    /// # Errors
    /// If `sealed` is another version or another record.
    pub fn open(self, sealed: &Sealed, keyring: &Keyring) -> Result<Fields, PermitError> {
        let opened = open((self.record, self.version), sealed, keyring)?;
        Ok(opened.to_fields().ok_or(OpenError)?)
    }
}

fn open(
    (record, version): (RecordKey, u64),
    sealed: &Sealed,
    keyring: &Keyring,
) -> Result<OpenedFields, PermitError> {
    if sealed.version() != version {
        return Err(PermitError::OtherRecord);
    }
    Ok(keyring.open_values(record, sealed)?)
}

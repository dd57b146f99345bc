//! Decisions that are committed together: each record is opened once, for all decisions that hand it out.

use std::mem::take;

use super::authorize::Grant;
use super::{Authorization, Resolved};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::journal::{Committed, DecisionId, Granted, HandOut, LiveOpening, Permit, PermitError};
use crate::lease::Lease;
use crate::model::Id;
use crate::seal::{Keyring, OpenedFields};

/// The records that committed decisions hand out.
#[derive(Default)]
pub(super) struct SharedRecords(Vec<SharedRecord>);

struct SharedRecord {
    edition: (Id, u64),
    permits: Vec<Permit<HandOut>>,
    opened: Option<Result<OpenedFields, PermitError>>,
}

impl SharedRecords {
    /// Takes a committed decision in. Its permit is used together with all others for the same version of the same
    /// record.
    pub(super) fn add(
        &mut self,
        decided: &Authorization,
        Committed { decision_id, granted }: Committed,
    ) -> (DecisionId, Option<Lease>) {
        let (Ok(grant), Some(Granted { lease, permit: Some(permit) })) =
            (&decided.outcome, granted)
        else {
            return (decision_id, None);
        };
        let edition = grant.edition();
        match self.0.iter_mut().find(|record| record.edition == edition) {
            Some(record) => record.permits.push(permit),
            None => self.0.push(SharedRecord { edition, permits: vec![permit], opened: None }),
        }
        (decision_id, Some(lease))
    }

    /// The opened record of a grant. The first call opens it.
    fn open(&mut self, grant: &Grant, keyring: &Keyring) -> Result<&OpenedFields, &PermitError> {
        let mut records = self.0.iter_mut();
        let Some(record) = records.find(|record| record.edition == grant.edition()) else {
            return Err(&PermitError::OtherRecord);
        };
        let permits = &mut record.permits;
        let open = || Permit::open_once(take(permits), &grant.values.sealed, keyring);
        record.opened.get_or_insert_with(open).as_ref()
    }
}

impl Broker {
    /// The answer to a committed decision whose permit is in `records`.
    pub(super) fn conclude_shared(
        &self,
        opening: &LiveOpening,
        decided: Authorization,
        (decision_id, lease): (DecisionId, Option<Lease>),
        records: &mut SharedRecords,
    ) -> Result<Resolved, Error> {
        match (decided.outcome, lease) {
            (Ok(grant), Some(lease)) => {
                let opened = records.open(&grant, &self.keyring);
                self.hand_out(opening, grant, opened, lease)
            }
            (outcome, _) => Err(self.not_granted(outcome.err(), decision_id)),
        }
    }
}

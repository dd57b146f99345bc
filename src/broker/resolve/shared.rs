//! Decisions that are committed together: each record is opened once, for all decisions that hand it out.

use std::mem::take;
use std::sync::Arc;

use super::authorize::Grant;
use super::minted::Answer;
use super::{Authorization, ResolveRequest};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::journal::{Committed, DecisionId, Granted, HandOut, LiveOpening, Permit, PermitError};
use crate::lease::{Edition, Lease};
use crate::seal::{Keyring, OpenedFields};

/// The records that committed decisions hand out.
#[derive(Default)]
pub(super) struct SharedRecords(Vec<SharedRecord>);

struct SharedRecord {
    edition: Edition,
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
        let (Ok(grant), Some(Granted { lease, permit })) = (&decided.outcome, granted) else {
            return (decision_id, None);
        };
        let Some(permit) = permit else { return (decision_id, Some(lease)) };
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
        let Some(values) = grant.handed_out() else { return Err(&PermitError::OtherRecord) };
        let permits = &mut record.permits;
        let open = || Permit::open_once(take(permits), &values.sealed, keyring);
        record.opened.get_or_insert_with(open).as_ref()
    }
}

impl Broker {
    /// The answer to a committed decision whose permit is in `records`.
    pub(super) fn conclude_shared(
        &self,
        opening: &Arc<LiveOpening>,
        request: &ResolveRequest,
        decided: Authorization,
        (decision_id, lease): (DecisionId, Option<Lease>),
        records: &mut SharedRecords,
    ) -> Result<Answer, Error> {
        match (decided.outcome, lease) {
            (Ok(grant), Some(lease)) if lease.is_awaited() => {
                self.ask_upstream(opening, request, &grant, (decision_id, lease.id))
            }
            (Ok(grant), Some(lease)) => {
                self.count_hit(&grant);
                let opened = records.open(&grant, &self.keyring);
                let given = (decision_id, lease);
                self.hand_out(opening, request, grant, opened, given).map(Answer::Resolved)
            }
            (outcome, _) => Err(self.not_granted(outcome.err(), decision_id)),
        }
    }
}

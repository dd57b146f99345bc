//! What operators end at once, beside changes of the catalogue.

pub(super) mod blocks;
pub(super) mod closes;
pub(super) mod leases;
pub(super) mod refusal;

use std::sync::Arc;

use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::catalog::Snapshot;
use crate::journal::{Candidates, Ended, EndedBy, Live};
use crate::model::Because;

/// The caller and their reason, as lines name them.
fn ended_by(caller: &Principal, reason: Because) -> EndedBy {
    EndedBy { principal: caller.to_string(), reason }
}

impl Broker {
    /// Publishes the newest catalogue again, with the state of the journal. Called only under the chain lock.
    fn publish_again(&self, live: &Live) {
        let newest = self.snapshot();
        let (head, catalog) = (newest.head, newest.catalog.clone());
        let (epoch, blocks) = (live.epoch(), Arc::clone(live.blocks()));
        self.snapshots.publish(Snapshot { head, epoch, catalog, blocks });
    }

    /// Waits until what an operator has ended is on disk, and the endings of its credentials have begun.
    async fn settle_ended(&self, ended: &Ended) -> Result<(), Error> {
        // The wait for the endings begins those that cannot begin now.
        let _ = self.endings.begin_all(Candidates::Changed).await;
        Ok(self.journal.synced(ended.position).await?)
    }
}

//! The impact of a change. The change is decided on a draft as the writer would decide it, and what rests on it is looked up:
//! leases by the rule that ends them, uses in the journal's index, identifier values in both catalogues.

mod proposed;
mod resting;
mod users;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::changes::draft::Draft;
use crate::broker::endings::list::PendingEnding;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_role;
use crate::catalog::Catalog;
use crate::journal::{RequestTable, RunKey, Use};
use crate::model::{Id, IntegrationName, WorkflowName};
pub use proposed::ProposedChange;
pub use resting::ImpactedLease;
use resting::RestingLease;
pub use values::LostValues;

/// The most entries of each list of an impact.
pub const MAX_ENTRIES: usize = 1000;

/// Some of the entries of a list, and how many there are.
pub struct SomeOf<T> {
    /// At most [`MAX_ENTRIES`].
    pub first: Vec<T>,
    /// How many there are.
    pub count: usize,
}

impl<T> SomeOf<T> {
    fn of(all: impl IntoIterator<Item = T>) -> Self {
        let mut count = 0;
        let counted = all.into_iter().inspect(|_| count += 1);
        let mut first = Vec::new();
        for one in counted {
            if first.len() < MAX_ENTRIES {
                first.push(one);
            }
        }
        Self { first, count }
    }
}

/// The impact of a change.
pub struct Impact {
    /// The leases that end, or whose credential is ended upstream.
    pub leases: SomeOf<ImpactedLease>,
    /// The open runs with such a lease, and how many of their steps have one.
    pub runs: SomeOf<(RunKey, usize)>,
    /// The workflows that have used it recently, and can do so no more or get something else.
    pub workflows: SomeOf<(WorkflowName, Use)>,
    /// The members that groups find by their values no more.
    pub groups: SomeOf<LostValues>,
    /// The integration that loses its default.
    pub default_of: Option<IntegrationName>,
    /// The credentials that are ended upstream.
    pub endings: SomeOf<PendingEnding>,
}

impl Broker {
    /// The impact that a change would have if it were made now. Reads only.
    ///
    /// # Errors
    /// See `ImpactService.Preview`.
    pub fn preview(
        &self,
        caller: &Principal,
        change: &ProposedChange,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Impact, Error> {
        require_role(caller, Role::Operator)?;
        let snapshot = self.snapshot();
        let old = &snapshot.catalog;
        let keyring = Arc::clone(&self.keyring);
        let mut draft = Draft::new(old.clone(), RequestTable::default(), self.now(), keyring);
        draft.check_caller(caller)?;
        draft.attempt(true, |draft| proposed::make(draft, caller, change))?;
        let new = draft.catalog();
        let resting = self.resting_on(old, change, is_cancelled)?;
        let ends_credential = change.ends_credentials(old, new);
        let ended = |one: &RestingLease| ends_credential(&one.lease) || !one.is_allowed_by(new);
        let mut leases: Vec<RestingLease> = resting.into_iter().filter(ended).collect();
        leases.sort_by(|one, other| one.step().cmp(other.step()));
        let endings = self.endings_by(old, new, change, &leases)?;
        Ok(Impact {
            runs: SomeOf::of(by_run(&leases)),
            workflows: SomeOf::of(self.losing_workflows(old, new, change)?),
            groups: SomeOf::of(values::lost(old, new, change)),
            default_of: change.lost_default(old),
            endings: SomeOf::of(endings),
            leases: SomeOf::of(leases.iter().map(|one| one.impacted())),
        })
    }

    /// The credentials that are ended upstream when the change is made.
    fn endings_by(
        &self,
        old: &Catalog,
        new: &Catalog,
        change: &ProposedChange,
        leases: &[RestingLease],
    ) -> Result<Vec<PendingEnding>, Error> {
        let ended: BTreeSet<Id> = leases.iter().map(|one| one.lease.id).collect();
        let minted = leases.iter().filter(|one| one.lease.mint.is_some());
        let mut uids: BTreeSet<Id> = minted.map(|one| one.lease.resource).collect();
        uids.extend(change.connection(old).map(|found| found.metadata.uid));
        let mut endings = Vec::new();
        for uid in uids {
            endings.extend(self.endings_when(new, uid, &ended)?);
        }
        Ok(endings)
    }
}

/// The runs of these leases, which are sorted by step, with how many steps each has.
fn by_run(leases: &[RestingLease]) -> BTreeMap<RunKey, usize> {
    let openings: BTreeMap<Id, RunKey> =
        leases.iter().map(|one| (one.lease.opening, RunKey::of(one.opening.record()))).collect();
    let mut runs = BTreeMap::new();
    openings.into_values().for_each(|run| *runs.entry(run).or_default() += 1);
    runs
}

//! ListSteps: the open steps.

use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::seen_by;
use crate::model::{Id, Opening};

/// An open step in a list.
#[derive(Debug)]
pub struct ListedStep {
    /// The opening.
    pub opening: Opening,
    /// The SPIFFE ID of its certificate.
    pub spiffe_id: String,
    /// Its directory on this host.
    pub directory: String,
    /// How many live leases it holds.
    pub live_leases: usize,
}

/// One page of open steps.
#[derive(Debug)]
pub struct ListedSteps {
    /// The steps, in the order of their ids.
    pub steps: Vec<ListedStep>,
    /// Whether there are more steps after them.
    pub has_more: bool,
}

impl Broker {
    /// The open steps after `after`, at most `size`: an executor's own, or all of them for an operator.
    ///
    /// # Errors
    /// If the journal hangs.
    pub fn steps(
        &self,
        caller: &Principal,
        workflow: Option<&str>,
        after: Option<Id>,
        size: usize,
    ) -> Result<ListedSteps, Error> {
        let own = seen_by(caller)?;
        let own = own.as_ref();
        let is_wanted = |opening: &Opening| {
            own.is_none_or(|own| own.uid == opening.key.executor_uid)
                && workflow.is_none_or(|workflow| opening.key.workflow.as_str() == workflow)
                && after.is_none_or(|after| opening.id > after)
        };
        let (steps, has_more) = self.journal.with_live(|live| {
            let mut found: Vec<_> =
                live.openings().filter(|opening| is_wanted(opening.record())).collect();
            found.sort_unstable_by_key(|opening| opening.record().id);
            let more = found.len() > size;
            found.truncate(size);
            let listed = found.iter().map(|opening| {
                (opening.record().clone(), live.leases().count_of(opening.record().id))
            });
            (listed.collect::<Vec<_>>(), more)
        })?;
        let steps = steps.into_iter().map(|(opening, live_leases)| ListedStep {
            spiffe_id: opening.key.spiffe_id().uri(self.authority.domain()),
            directory: self.directory_text(&opening),
            opening,
            live_leases,
        });
        Ok(ListedSteps { steps: steps.collect(), has_more })
    }
}

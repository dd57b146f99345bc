//! What a set of documents would change, without changing it.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::Broker;
use super::apply::{Action, Applied, Document, apply_all};
use super::difference::{Difference, differences};
use super::draft::Draft;
use super::error::Error;
use crate::access::Principal;
use crate::journal::{Event, RequestTable};
use crate::model::OperatorName;
use crate::model::limits::{PLANS_PER_MINUTE, Rate};

/// What Apply would do with one document.
pub struct Planned {
    /// The resource, and what would be done.
    pub applied: Applied,
    /// What would be changed of it, if it exists.
    pub differences: Vec<Difference>,
}

/// How often each operator has had values compared.
#[derive(Default)]
pub(super) struct Comparisons(Mutex<HashMap<OperatorName, Rate>>);

impl Broker {
    /// What [`Broker::apply`] would do with the documents. Whether the stored values are those of the documents
    /// is journaled before it is told.
    ///
    /// # Errors
    /// See `ApplyService.Plan`.
    pub async fn plan(
        &self,
        caller: Principal,
        documents: Vec<Document>,
    ) -> Result<Vec<Planned>, Error> {
        Self::check_may_apply(&caller)?;
        let snapshot = self.snapshot();
        let compared = self.compared(&documents);
        if !compared.is_empty() {
            self.count_comparison(&caller)?;
        }
        let (old, keyring, now) =
            (snapshot.catalog.clone(), std::sync::Arc::clone(&self.keyring), self.now());
        let principal = caller.to_string();
        // Thousands of documents take a while, and nobody else is to wait for it.
        let work = tokio::task::spawn_blocking(move || {
            let mut draft = Draft::new(old.clone(), RequestTable::default(), now, keyring);
            draft.check_caller(&caller)?;
            let applied = apply_all(&mut draft, &caller, documents)?;
            let planned = applied.into_iter().map(|applied| {
                let differences = match applied.action {
                    Action::Changed => differences(&old, &draft.catalog, &applied.name),
                    Action::Created | Action::Unchanged => Vec::new(),
                };
                Planned { applied, differences }
            });
            Ok::<Vec<_>, Error>(planned.collect())
        });
        let planned = work.await.map_err(|error| Error::Internal(error.to_string()))??;
        if !compared.is_empty() {
            let event = Event::Compared { principal, resources: compared };
            let (position, _) = self.journal.append(self.now(), &event)?;
            self.journal.synced(position).await?;
        }
        Ok(planned)
    }

    /// The resources whose stored values a plan says something about.
    fn compared(&self, documents: &[Document]) -> Vec<String> {
        let catalog = &self.snapshot().catalog;
        let is_compared = |document: &&Document| match document {
            Document::Connection(given) => {
                catalog.connection(&given.name).is_some() && given.has_fields()
            }
            Document::Secret(given) => {
                catalog.secret(&given.name).is_some() && given.value.is_some()
            }
            Document::Group(_) | Document::Integration(_) => false,
        };
        documents.iter().filter(is_compared).map(|document| document.name().to_string()).collect()
    }

    fn count_comparison(&self, caller: &Principal) -> Result<(), Error> {
        let Principal::Operator(name, _) = caller else { return Err(Error::OperatorRequired) };
        let now = self.now().millis();
        let mut rates = self.comparisons.0.lock();
        // Of those that asked long ago nothing need be known.
        rates.retain(|_, rate| !rate.is_rested(now / 60));
        let rate = rates.entry(name.clone()).or_default();
        rate.take_of_minute(now, PLANS_PER_MINUTE).map_err(Error::ComparedLately)
    }
}

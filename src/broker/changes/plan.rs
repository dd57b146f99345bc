//! The changes that a set of documents would make, without making them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::apply::apply_all;
use super::difference::Differences;
use super::documents::{Action, Applied, Document};
use super::draft::Draft;
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::rates::Rates;
use crate::catalog::Catalog;
use crate::integration::find_field;
use crate::journal::{Event, RequestTable};
use crate::model::Rate;
use crate::model::limits::PLANS_PER_MINUTE;
use crate::model::{FieldName, OperatorName, ResourceName};

/// The plan for one document.
pub struct Planned {
    /// The resource, and the action on it.
    pub applied: Applied,
    /// The differences that the document makes; all parts of a new resource.
    pub differences: Differences,
    /// The fields of a changed connection that stay although the document does not name them.
    pub staying: Vec<FieldName>,
}

/// The fields of a present connection that a document names, by their canonical names. Empty for other documents.
fn named(catalog: &Catalog, document: &Document) -> BTreeSet<FieldName> {
    let Document::Connection(given) = document else { return BTreeSet::new() };
    let old = catalog.connection(&given.name).map(|old| &old.metadata);
    let kind = old.and_then(|old| catalog.integration(&old.integration)?.kind(old.kind.as_str()));
    let (Some(kind), true) = (kind, given.has_fields()) else { return BTreeSet::new() };
    let names = given.fields.given().keys().chain(&given.kept);
    names.filter_map(|name| find_field(kind, name)?.canonical(name)).collect()
}

/// The fields that a connection has afterwards beside the named ones; empty if none was named.
fn staying(catalog: &Catalog, name: &ResourceName, named: &BTreeSet<FieldName>) -> Vec<FieldName> {
    let ResourceName::Connection(name) = name else { return Vec::new() };
    let connection = catalog.connection(name).filter(|_| !named.is_empty());
    let fields = connection.into_iter().flat_map(|connection| connection.metadata.fields.keys());
    fields.filter(|field| !named.contains(*field)).cloned().collect()
}

/// Documents, and the catalogue that they are compared with.
pub struct Plan {
    catalog: Catalog,
    documents: Vec<Document>,
}

/// The most names in one line of the journal.
const NAMES_A_LINE: usize = 500;

/// The rate at which each operator has values compared.
#[derive(Default)]
pub(crate) struct Comparisons {
    rates: Rates<OperatorName>,
    /// Held by an Apply that compares values. It counts only if it fails, so many at once would exceed the rate.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Broker {
    /// Prepares a [`Broker::plan`] of these documents. A plan reveals whether stored values equal those of the
    /// documents, so the comparison is counted and journaled first.
    ///
    /// # Errors
    /// See `ApplyService.Plan`.
    pub async fn begin_plan(
        &self,
        caller: &Principal,
        documents: Vec<Document>,
    ) -> Result<Plan, Error> {
        Self::check_may_apply(caller)?;
        let snapshot = self.snapshot();
        let compared = Self::compared(&snapshot.catalog, &documents);
        if !compared.is_empty() {
            self.count_comparison(caller)?;
            self.note_comparison(caller, compared).await?;
        }
        Ok(Plan { catalog: snapshot.catalog.clone(), documents })
    }

    /// The changes that [`Broker::apply`] would make with the documents. Thousands of documents take a while.
    ///
    /// # Errors
    /// See `ApplyService.Plan`.
    pub fn plan(&self, caller: &Principal, plan: Plan) -> Result<Vec<Planned>, Error> {
        let Plan { catalog: old, documents } = plan;
        let (keyring, now) = (Arc::clone(&self.keyring), self.now());
        let mut draft = Draft::new(old.clone(), RequestTable::default(), now, keyring);
        draft.check_caller(caller)?;
        let named: Vec<_> = documents.iter().map(|document| named(&old, document)).collect();
        let applied = draft.attempt(true, |draft| apply_all(draft, caller, &documents))?;
        let planned = applied.into_iter().zip(named).map(|(applied, named)| {
            let differences = match applied.action {
                Action::Changed | Action::Created => {
                    Differences::between(&old, draft.catalog(), &applied.name)
                }
                Action::Unchanged => Differences::default(),
            };
            let staying = match applied.action {
                Action::Changed => staying(draft.catalog(), &applied.name, &named),
                Action::Created | Action::Unchanged => Vec::new(),
            };
            Planned { applied, differences, staying }
        });
        Ok(planned.collect())
    }

    /// The names of the resources whose stored values the documents are compared with.
    pub(crate) fn compared(catalog: &Catalog, documents: &[Document]) -> Vec<String> {
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

    /// Journals the resources whose values were compared.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub(crate) async fn note_comparison(
        &self,
        caller: &Principal,
        compared: Vec<String>,
    ) -> Result<(), Error> {
        let principal = caller.to_string();
        for resources in compared.chunks(NAMES_A_LINE) {
            let (principal, resources) = (principal.clone(), resources.to_vec());
            let event = Event::Compared { principal, resources };
            self.journal.append(self.now(), &event)?;
        }
        Ok(self.journal.synced(self.journal.last()?).await?)
    }

    /// Takes one comparison from the operator's rate.
    ///
    /// # Errors
    /// [`Error::ComparedLately`] if none is left.
    pub(crate) fn count_comparison(&self, caller: &Principal) -> Result<(), Error> {
        self.with_rate(caller, |rate, now| rate.take_of_minute(now, PLANS_PER_MINUTE, 1))
    }

    /// Checks that a comparison is left in the operator's rate.
    ///
    /// # Errors
    /// [`Error::ComparedLately`] if none is left.
    pub(super) fn check_comparison(&self, caller: &Principal) -> Result<(), Error> {
        self.with_rate(caller, |rate, now| {
            let mut copy = *rate;
            copy.take_of_minute(now, PLANS_PER_MINUTE, 1)
        })
    }

    fn with_rate(
        &self,
        caller: &Principal,
        ask: impl FnOnce(&mut Rate, i64) -> Result<(), Duration>,
    ) -> Result<(), Error> {
        let Principal::Operator(name, ..) = caller else { return Err(Error::OperatorRequired) };
        let now = self.now().millis();
        let asked = self.comparisons.rates.ask(name, now / 60, |rate| ask(rate, now));
        asked.map_err(Error::ComparedLately)
    }
}

//! What a set of documents would change, without changing it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::apply::{Action, Applied, Document, apply_all};
use super::difference::Differences;
use super::draft::Draft;
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::connections::Patch;
use crate::broker::error::Error;
use crate::broker::registry::rates::Rates;
use crate::catalog::Catalog;
use crate::integration::find_field;
use crate::journal::{Event, RequestTable};
use crate::model::limits::{PLANS_PER_MINUTE, Rate};
use crate::model::{FieldName, OperatorName, ResourceName};

/// What Apply would do with one document.
pub struct Planned {
    /// The resource, and what would be done.
    pub applied: Applied,
    /// What would be changed of it, or all that it would be if it does not exist.
    pub differences: Differences,
    /// Of a connection that would be changed, the fields that stay although the document does not name them.
    pub staying: Vec<FieldName>,
}

/// The fields of a connection that a document names, by our names. None where it names none, or is of something else.
fn named(catalog: &Catalog, document: &Document) -> BTreeSet<FieldName> {
    let Document::Connection(given) = document else { return BTreeSet::new() };
    let old = catalog.connection(&given.name).map(|old| &old.metadata);
    let kind = old.and_then(|old| catalog.integration(&old.integration)?.kind(old.kind.as_str()));
    let (Some(kind), true) = (kind, given.has_fields()) else { return BTreeSet::new() };
    let (Patch::Merge(fields) | Patch::Replace(fields)) = &given.fields;
    let names = fields.keys().chain(&given.kept);
    names.filter_map(|name| find_field(kind, name)?.canonical(name)).collect()
}

/// What a connection has afterwards beside what was named, if anything was.
fn staying(catalog: &Catalog, name: &ResourceName, named: &BTreeSet<FieldName>) -> Vec<FieldName> {
    let ResourceName::Connection(name) = name else { return Vec::new() };
    let connection = catalog.connection(name).filter(|_| !named.is_empty());
    let fields = connection.into_iter().flat_map(|connection| connection.metadata.fields.keys());
    fields.filter(|field| !named.contains(*field)).cloned().collect()
}

/// Documents, and what they are compared with.
pub struct Plan {
    catalog: Catalog,
    documents: Vec<Document>,
}

/// How many names one line of the journal has.
const NAMES_A_LINE: usize = 500;

/// How often each operator has had values compared.
#[derive(Default)]
pub(crate) struct Comparisons {
    rates: Rates<OperatorName>,
    /// An Apply counts only if it fails, so one at a time: many at once would all find that something is left.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Broker {
    /// What is compared by a [`Broker::plan`] of these documents: that it tells whether stored values are those of the
    /// documents is journaled before.
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

    /// What [`Broker::apply`] would do with the documents. Thousands of them take a while.
    ///
    /// # Errors
    /// See `ApplyService.Plan`.
    pub fn plan(&self, caller: &Principal, plan: Plan) -> Result<Vec<Planned>, Error> {
        let Plan { catalog: old, documents } = plan;
        let (keyring, now) = (Arc::clone(&self.keyring), self.now());
        let mut draft = Draft::new(old.clone(), RequestTable::default(), now, keyring);
        draft.check_caller(caller)?;
        let named: Vec<_> = documents.iter().map(|document| named(&old, document)).collect();
        let applied = draft.attempt(|draft| apply_all(draft, caller, documents))?;
        let planned = applied.into_iter().zip(named).map(|(applied, named)| {
            let differences = match applied.action {
                Action::Changed | Action::Created => {
                    Differences::between(&old, &draft.catalog, &applied.name)
                }
                Action::Unchanged => Differences::default(),
            };
            let staying = match applied.action {
                Action::Changed => staying(&draft.catalog, &applied.name, &named),
                Action::Created | Action::Unchanged => Vec::new(),
            };
            Planned { applied, differences, staying }
        });
        Ok(planned.collect())
    }

    /// The resources whose stored values are compared with those of documents.
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

    /// Writes down whose values were compared.
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

    /// Takes one from what an operator may have compared.
    ///
    /// # Errors
    /// [`Error::ComparedLately`] if nothing is left.
    pub(crate) fn count_comparison(&self, caller: &Principal) -> Result<(), Error> {
        self.with_rate(caller, |rate, now| rate.take_of_minute(now, PLANS_PER_MINUTE, 1))
    }

    /// Whether anything is left of it.
    ///
    /// # Errors
    /// [`Error::ComparedLately`] if not.
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

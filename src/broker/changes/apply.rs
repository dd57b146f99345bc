//! A set of documents, applied as one change or not at all.

use std::collections::BTreeSet;

use super::documents::{Action, Applied, Document};
use super::draft::Draft;
use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::connections::{inspect, write as connection_write};
use crate::broker::error::Error;
use crate::broker::groups::write as group_write;
use crate::broker::registry::operators::require_role;
use crate::broker::{integrations, secrets};
use crate::integration::Problem;
use crate::model::ResourceName;

impl Broker {
    /// Checks that the caller may apply documents at all.
    ///
    /// # Errors
    /// If the caller is no operator, or only a viewer.
    pub fn check_may_apply(caller: &Principal) -> Result<(), Error> {
        require_role(caller, Role::Operator)
    }

    /// Applies the documents, all of them or none.
    ///
    /// # Errors
    /// See `ApplyService.Apply`.
    pub async fn apply(
        &self,
        caller: Principal,
        documents: Vec<Document>,
    ) -> Result<Vec<Applied>, Error> {
        Self::check_may_apply(&caller)?;
        let compared = Self::compared(&self.snapshot().catalog, &documents);
        let mut turn = None;
        if !compared.is_empty() {
            turn = Some(self.comparisons.turn.lock().await);
            self.check_comparison(&caller)?;
        }
        let by = caller.clone();
        let change = move |draft: &mut Draft| {
            draft.check_caller(&by)?;
            apply_all(draft, &by, &documents)
        };
        let applied = self.writer.submit(change).await;
        // A failed Apply changes nothing, and the time that it takes could still be used to guess values.
        if applied.is_err() && !compared.is_empty() {
            let _ = self.count_comparison(&caller);
            let _ = self.note_comparison(&caller, compared).await;
        }
        drop(turn);
        applied
    }
}

pub(super) fn apply_all(
    draft: &mut Draft,
    caller: &Principal,
    documents: &[Document],
) -> Result<Vec<Applied>, Error> {
    let mut problems = Vec::new();
    let mut applied = Vec::with_capacity(documents.len());
    let mut names = BTreeSet::new();
    for document in documents {
        if !names.insert(document.name()) {
            problems.push(Problem::new(&document.name().to_string(), "two documents describe it"));
        }
    }
    let mut ordered: Vec<_> = documents.iter().enumerate().collect();
    ordered.sort_by_key(|(_, document)| document.rank());
    for (number, document) in ordered {
        let name = document.name();
        let findings = inspect::of_document(draft.catalog(), document, draft.now);
        match put(draft, caller, document) {
            Ok(action) => {
                let findings = if action == Action::Unchanged { Vec::new() } else { findings };
                applied.push((number, Applied { name, action, findings }));
            }
            Err(error) => match problems_of(&name, error) {
                Ok(found) => problems.extend(found),
                Err(error) if problems.is_empty() => return Err(error),
                // The cause may be a document that is refused already.
                Err(_) => {}
            },
        }
    }
    if !problems.is_empty() {
        return Err(Error::DocumentsInvalid(problems));
    }
    // Results are returned in the order of the documents.
    applied.sort_by_key(|(number, _)| *number);
    Ok(applied.into_iter().map(|(_, applied)| applied).collect())
}

fn put(draft: &mut Draft, caller: &Principal, document: &Document) -> Result<Action, Error> {
    match document {
        Document::Connection(document) => connection_write::put(draft, caller, document),
        Document::Group(document) => group_write::put(draft, caller, document.clone()),
        Document::Integration(integration) => integrations::put(draft, caller, integration.clone()),
        Document::Secret(document) => secrets::put(draft, caller, document),
    }
}

/// The problems of a document, field by field. An error that is not the document's fault ends the Apply.
fn problems_of(name: &ResourceName, error: Error) -> Result<Vec<Problem>, Error> {
    let located = |problem: Problem| {
        let field = if problem.field.is_empty() {
            name.to_string()
        } else {
            format!("{name}: {}", problem.field)
        };
        Problem { field, ..problem }
    };
    match error {
        Error::FieldsInvalid(problems) | Error::IntegrationInvalid(problems) => {
            Ok(problems.into_iter().map(located).collect())
        }
        Error::KindInvalid(problem) => Ok(vec![located(problem)]),
        Error::IdentifierTagInvalid(_)
        | Error::IntegrationUnknown(_)
        | Error::LabelInvalid(_)
        | Error::NameInvalid(_)
        | Error::PrincipalInvalid(_) => Ok(vec![located(Problem::new("", error.to_string()))]),
        other => Err(other),
    }
}

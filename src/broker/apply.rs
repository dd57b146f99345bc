//! A set of documents, applied as one change or not at all.

use super::Broker;
use super::connections::{self, ConnectionDocument};
use super::error::Error;
use super::operators::require_role;
use super::secrets::{self, SecretDocument};
use super::writer::Draft;
use crate::access::{Principal, Role};
use crate::integration::Problem;
use crate::model::ResourceName;

/// One document.
pub enum Document {
    /// A connection.
    Connection(ConnectionDocument),
    /// A secret.
    Secret(SecretDocument),
}

/// What a document did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The resource was changed.
    Changed,
    /// The resource was created.
    Created,
    /// The resource is like the document already; nothing was written.
    Unchanged,
}

/// One document's result.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The resource.
    pub name: ResourceName,
    /// What was done.
    pub action: Action,
}

impl Document {
    /// The resource that it describes.
    pub fn name(&self) -> ResourceName {
        match self {
            Self::Connection(document) => ResourceName::Connection(document.name.clone()),
            Self::Secret(document) => ResourceName::Secret(document.name.clone()),
        }
    }
}

impl Broker {
    /// Whether this caller may apply anything at all.
    ///
    /// # Errors
    /// If it is no operator, or one that only looks.
    pub fn check_may_apply(caller: &Principal) -> Result<(), Error> {
        require_role(caller, Role::Operator)
    }

    /// Applies one document, whose problems are told as its own.
    ///
    /// # Errors
    /// As the document's service says.
    pub async fn apply_one(&self, caller: Principal, document: Document) -> Result<Action, Error> {
        Self::check_may_apply(&caller)?;
        self.writer.submit(move |draft| put(draft, &caller, document)).await
    }

    /// Applies the documents in order, all of them or none.
    ///
    /// # Errors
    /// See `ApplyService.Apply`.
    pub async fn apply(
        &self,
        caller: Principal,
        documents: Vec<Document>,
    ) -> Result<Vec<Applied>, Error> {
        Self::check_may_apply(&caller)?;
        self.writer.submit(move |draft| apply_all(draft, &caller, documents)).await
    }
}

fn apply_all(
    draft: &mut Draft,
    caller: &Principal,
    documents: Vec<Document>,
) -> Result<Vec<Applied>, Error> {
    let mut problems = Vec::new();
    let mut applied = Vec::with_capacity(documents.len());
    for document in documents {
        let name = document.name();
        match put(draft, caller, document) {
            Ok(action) => applied.push(Applied { name, action }),
            Err(error) => problems.extend(problems_of(&name, error)?),
        }
    }
    if problems.is_empty() { Ok(applied) } else { Err(Error::DocumentsInvalid(problems)) }
}

fn put(draft: &mut Draft, caller: &Principal, document: Document) -> Result<Action, Error> {
    match document {
        Document::Connection(document) => connections::put(draft, caller, document),
        Document::Secret(document) => secrets::put(draft, caller, document),
    }
}

/// What is wrong with the document, field by field; what is not the document's fault ends the Apply.
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
        Error::FieldsInvalid(problems) => Ok(problems.into_iter().map(located).collect()),
        Error::KindInvalid(problem) => Ok(vec![located(problem)]),
        Error::IntegrationUnknown(_) | Error::NameInvalid(_) | Error::PrincipalInvalid(_) => {
            Ok(vec![located(Problem::new("", error.to_string()))])
        }
        other => Err(other),
    }
}

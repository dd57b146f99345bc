//! Who shares a minted credential.

use crate::integration::Source;
use crate::model::{Id, Opening, WorkflowName};

/// What a minted credential is made for: one version of a connection, and the steps that share it. The TTL and the
/// fields that a step asks for are no part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MintKey {
    /// The uid of the connection.
    pub(crate) connection: Id,
    /// The version of the connection.
    pub(crate) version: u64,
    /// The steps that share it.
    pub(crate) shared_by: SharedBy,
}

/// The steps that share a minted credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SharedBy {
    /// One opening: the upstream's audit log tells who used the credential.
    Opening(Id),
    /// All steps of a workflow: the upstream cannot tell them apart.
    Workflow(WorkflowName),
}

impl MintKey {
    /// The key of what a step gets from a connection of this source.
    pub(crate) fn of(source: Source, connection: Id, version: u64, opening: &Opening) -> Self {
        let shared_by = match source {
            Source::AwsSts => SharedBy::Opening(opening.id),
            Source::Entra
            | Source::EntraGraph
            | Source::Gcp
            | Source::Oauth2Client
            | Source::TwoStep => SharedBy::Workflow(opening.key.workflow.clone()),
        };
        Self { connection, version, shared_by }
    }

    /// The opening that has it for itself, if it is not shared.
    pub(super) fn opening(&self) -> Option<Id> {
        match self.shared_by {
            SharedBy::Opening(id) => Some(id),
            SharedBy::Workflow(_) => None,
        }
    }
}

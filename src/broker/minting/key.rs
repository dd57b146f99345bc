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
    /// The workflow of the steps that share it.
    pub(crate) workflow: WorkflowName,
    /// The opening that has it for itself, because the upstream's audit log tells who used the credential. `None` if all
    /// steps of the workflow share it, because the upstream cannot tell them apart.
    pub(crate) opening: Option<Id>,
}

impl MintKey {
    /// The key of what a step gets from a connection of this source.
    pub(crate) fn of(source: Source, connection: Id, version: u64, opening: &Opening) -> Self {
        let own = match source {
            Source::AwsSts
            | Source::AwsWebIdentity
            | Source::GcpWebIdentity
            | Source::OidcIssuer
            | Source::Postgres => Some(opening.id),
            Source::Entra
            | Source::EntraGraph
            | Source::Gcp
            | Source::Oauth2Client
            | Source::TwoStep => None,
        };
        Self { connection, version, workflow: opening.key.workflow.clone(), opening: own }
    }
}

//! Who shares a minted credential.

use crate::journal::MintingLine;
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
    /// The opening that has it for itself; `None` if all steps of the workflow share it.
    pub(crate) opening: Option<Id>,
}

impl MintKey {
    /// The key of a credential that is owed an ending: one opening has it for itself.
    pub(crate) fn of_minting(line: &MintingLine) -> Self {
        let (connection, version) = (line.uid, line.version);
        let (workflow, opening) = (line.principal.workflow.clone(), Some(line.opening));
        Self { connection, version, workflow, opening }
    }

    /// The key of what a step gets from a connection. `is_own` if each opening has a credential for itself.
    pub(crate) fn of(is_own: bool, connection: Id, version: u64, opening: &Opening) -> Self {
        let workflow = opening.key.workflow.clone();
        Self { connection, version, workflow, opening: is_own.then_some(opening.id) }
    }
}

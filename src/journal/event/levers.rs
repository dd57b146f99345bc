//! The lines of what operators end and block at once, beside changes of the catalogue.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::{Block, BlockTarget};
use crate::model::{Because, Id, Timestamp, WorkflowPath};

/// The most leases in one line: more of them take several lines.
pub(in crate::journal) const LEASES_IN_LINE: usize = 1000;

/// Leases of one opening that an operator has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndedLeases {
    /// The opening.
    pub opening: Id,
    /// Its step, with its workflow and run.
    #[serde(with = "super::step_path")]
    pub step: Arc<WorkflowPath>,
    /// The leases.
    pub leases: Vec<Id>,
}

/// Leases that an operator has revoked.
#[derive(Debug, Serialize, Deserialize)]
pub struct RevocationLine {
    /// The operator.
    pub principal: String,
    /// Why, in the operator's words.
    pub reason: Because,
    /// The leases, by opening.
    pub revoked: Vec<EndedLeases>,
}

/// A block that an operator has set.
#[derive(Debug, Serialize, Deserialize)]
pub struct BlockLine {
    /// The operator.
    pub principal: String,
    /// Why, in the operator's words.
    pub reason: Because,
    /// What is blocked.
    pub target: BlockTarget,
    /// The uid of the connection, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Id>,
    /// The leases that it ended, by opening. More of them follow in lines of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<EndedLeases>,
}

impl BlockLine {
    pub(in crate::journal) fn block(&self, time: Timestamp) -> Block {
        let Self { principal, reason, target, uid, .. } = self;
        let (principal, reason, target) = (principal.clone(), reason.clone(), target.clone());
        Block { target, uid: *uid, principal, reason, time }
    }
}

/// A block that an operator has lifted.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnblockLine {
    /// The operator.
    pub principal: String,
    /// Why, in the operator's words.
    pub reason: Because,
    /// What was blocked.
    pub target: BlockTarget,
    /// The block, as it was set.
    pub block: Block,
}

/// Steps that an administrator has closed.
#[derive(Debug, Serialize, Deserialize)]
pub struct OperatorCloseLine {
    /// The administrator.
    pub principal: String,
    /// Why, in their words.
    pub reason: Because,
    /// The run or step that was to be closed.
    pub target: BlockTarget,
    /// True if it is blocked from then on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blocked: bool,
    /// The openings that were closed, with their leases.
    pub closed: Vec<EndedLeases>,
}

impl OperatorCloseLine {
    pub(in crate::journal) fn block(&self, time: Timestamp) -> Option<Block> {
        let Self { principal, reason, target, .. } = self;
        let (principal, reason, target) = (principal.clone(), reason.clone(), target.clone());
        self.blocked.then_some(Block { target, uid: None, principal, reason, time })
    }
}

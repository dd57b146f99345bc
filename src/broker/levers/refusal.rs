//! Why a lever of operators is in the way, or cannot be pulled.

use crate::journal::{TooManyBlocks, WatchEnded};
use crate::model::Id;

/// Why a lever of operators is in the way, or cannot be pulled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeverRefusal {
    /// An administrator has closed the step.
    #[error("an administrator has closed this step; an operator sees why with: keyhatch run show")]
    ClosedByOperator,
    /// The named lease is not live.
    #[error(
        "leases/{0} is over: it has expired or was revoked, or its step is closed; list the live ones with: keyhatch lease list"
    )]
    LeaseOver(Id),
    /// No open step has this name.
    #[error(
        "no such step is open: it is closed already, or never was; list the open ones with: keyhatch step list"
    )]
    NoSuchStep,
    /// A reason or a block is given by an executor.
    #[error("reason and block are for administrators, who close the steps of any executor")]
    NotAnAdministrator,
    /// There is no block on exactly this.
    #[error("{0} is not blocked; list what is with: keyhatch access blocks")]
    NotBlocked(String),
    /// The workflow, run or step is blocked.
    #[error(
        "{0} is blocked: none of its steps is opened until an administrator lifts the block; an operator sees why with: \
         keyhatch access blocks"
    )]
    StepBlocked(String),
    /// There are as many blocks as there may be.
    #[error(transparent)]
    TooManyBlocks(#[from] TooManyBlocks),
    /// An operator has revoked the lease of a Watch.
    #[error(transparent)]
    WatchEnded(#[from] WatchEnded),
    /// An administrator closes something and does not say why.
    #[error("an administrator says why: give a reason")]
    Wordless,
}

//! The commands of a step.

pub(super) mod agent;
pub(super) mod credential;
pub(super) mod exec;
pub(super) mod format;
pub(super) mod get;
pub(super) mod helper;
pub(super) mod inject;
pub(super) mod listener;
pub(super) mod mask;
pub(super) mod send;
pub(super) mod served;
pub(super) mod token;
pub(super) mod watch;

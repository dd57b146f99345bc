//! Reading the journal's files: at start, for operators, and to verify them.

pub(super) mod audience;
pub(super) mod backward;
pub(super) mod batch;
pub(super) mod error;
pub(super) mod find;
pub(super) mod last;
pub(super) mod replay;
pub(super) mod tail;
pub(super) mod tail_filter;
pub(super) mod verify;

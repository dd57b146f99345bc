//! Reports that operators get from the journal.

pub(super) mod impact;
pub(super) mod readers;
pub(super) mod runs;
pub(super) mod suggest;
pub(super) mod tail;

//! The commands of an operator that end something at once.

pub(crate) mod lease;

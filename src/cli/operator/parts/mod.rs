//! What commands of several resources have in common.

pub(in crate::cli) mod impact;
pub(in crate::cli) mod listing;
pub(in crate::cli) mod uses;

//! Names, and the texts that are made of them.

pub(super) mod because;
pub(super) mod host;
pub(super) mod label;
pub(super) mod letter;
pub(super) mod name;
pub(super) mod path;
pub(super) mod reference;
pub(super) mod resource;
pub(super) mod run_as;
pub(super) mod spiffe;
pub(super) mod tag;

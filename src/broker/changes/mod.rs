//! Changes of the catalogue: documents are checked, put together as a batch, and written by the one writer.

pub(super) mod apply;
pub(super) mod batch;
pub(super) mod checks;
pub(super) mod difference;
pub(super) mod documents;
pub(super) mod draft;
pub(super) mod plan;
pub(super) mod writer;

#[cfg(test)]
mod tests;

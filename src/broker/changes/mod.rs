//! Changes of the catalogue: put together, checked, and written by the one writer.

pub(super) mod apply;
pub(super) mod difference;
pub(super) mod draft;
pub(super) mod plan;
pub(super) mod writer;

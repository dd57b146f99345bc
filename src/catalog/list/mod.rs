//! What lists of the catalogue need: filters, and the connections side by side.

pub(super) mod filter;
pub(super) mod index;
pub(super) mod recent;
mod text;
mod words;

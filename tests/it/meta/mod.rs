//! Promises of the repository about itself: its layers, documents, dependencies, fuzz targets and parsers. A test
//! belongs here if it needs the sources, the documents or the crate, and no running broker.

mod dependencies;
mod fuzz_corpus;
mod layering;
mod properties;
pub mod readme;
mod transcript;

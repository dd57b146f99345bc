//! What the repository promises about itself: its layers, its documents, its fuzz targets and its parsers.
//! A test belongs here if it needs the sources, the documents or the crate rather than a running broker.

mod dependencies;
mod fuzz_corpus;
mod layering;
mod properties;
mod readme;
mod transcript;

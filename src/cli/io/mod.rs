//! What commands share: input, output, failures, files, and commands that they start.

pub(super) mod child;
pub(super) mod failure;
pub(super) mod moment;
pub(super) mod output;
pub(super) mod pages;
pub(super) mod private_file;
pub(super) mod progress;
pub(super) mod remarks;
pub(super) mod signals;
pub(super) mod values;
pub(super) mod variable;

//! The words of a check: problems, and the fields without a problem.

use std::collections::BTreeMap;

use crate::model::{FieldName, Value};

/// A problem of one field. It never shows a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field; empty for a problem of all fields together.
    pub field: String,
    /// The fault and the remedy.
    pub description: String,
}

impl Problem {
    /// A problem with a field.
    pub fn new(field: &str, description: impl Into<String>) -> Self {
        Self { field: field.to_owned(), description: description.into() }
    }
}

/// A field without a problem.
pub struct CheckedField {
    /// Write-only.
    pub sensitive: bool,
    /// The value decides where the credential is sent.
    pub destination: bool,
    /// The value.
    pub value: Value,
    /// True if the check has added the newline at its end.
    pub is_mended: bool,
}

/// The fields without a problem, by our names.
pub type Checked = BTreeMap<FieldName, CheckedField>;

/// The fields that a connection has, and keeps.
pub type PresentFields = BTreeMap<FieldName, PresentField>;

/// A field that a connection has.
pub struct PresentField {
    /// The size of the value for the limit on all fields together, in bytes; never less than its length.
    pub room: usize,
    /// The value, if it is not sensitive; empty otherwise.
    pub value: Vec<u8>,
}

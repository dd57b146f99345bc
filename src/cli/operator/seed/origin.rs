//! Where the values of a document come from.

use std::collections::BTreeMap;
use std::fmt;

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueOrigin {
    /// A variable of the user's environment.
    Environment(String),
    /// A file of the user's.
    File(String),
    /// An imported file.
    Imported,
    /// The store: the stored value stays.
    Kept,
    /// The document itself.
    Text,
}

/// The origin of each value of a document, by its field.
pub type ValueOrigins = BTreeMap<String, ValueOrigin>;

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "variable {name}"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Imported => f.write_str("imported"),
            Self::Kept => f.write_str("kept"),
            Self::Text => f.write_str("text"),
        }
    }
}

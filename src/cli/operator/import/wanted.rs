//! What the operator wants of the files, whatever their format.

use super::names::Names;
use crate::grpc::pb;

/// The catalogue, and what the command line says.
#[derive(Default)]
pub struct Wanted {
    /// Every integration there is.
    pub catalogue: Vec<pb::Integration>,
    /// The integration whose fields the values are.
    pub integration: Option<String>,
    /// Its credential kind.
    pub kind: Option<String>,
    /// Whose secrets the other values are.
    pub workflow: Option<String>,
    /// Only variables that begin so, without it.
    pub prefix: String,
    /// Only what is called so in the source; everything, if there is none.
    pub only: Vec<String>,
    /// Who may resolve the connections.
    pub resolvers: Vec<String>,
    /// How things are to be called.
    pub names: Names,
}

impl Wanted {
    /// Whether something of these names is to be taken.
    pub fn takes(&self, names: &[&str]) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| names.contains(&only.as_str()))
    }
}

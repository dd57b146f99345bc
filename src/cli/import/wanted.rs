//! What the operator wants of the files, whatever their format.

use crate::grpc::pb;

/// The catalogue, and what the command line says.
#[derive(Default)]
pub struct Wanted {
    /// Every integration there is.
    pub catalogue: Vec<pb::Integration>,
    /// The name of a connection whose source has none.
    pub name: Option<String>,
    /// The integration whose fields the values are.
    pub integration: Option<String>,
    /// Its credential kind.
    pub kind: Option<String>,
    /// Whose secrets the other values are.
    pub workflow: Option<String>,
    /// Only variables that begin so, without it.
    pub prefix: String,
    /// Only these profiles.
    pub profiles: Vec<String>,
    /// Who may resolve the connections.
    pub resolvers: Vec<String>,
}

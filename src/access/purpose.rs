//! What a step wants a connection for.

use super::bindings::Relation;

/// What a step wants a connection for. The purpose decides which relation the step needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The step gets the values.
    Reveal,
    /// The broker acts with the connection, and the step gets no value.
    Use,
}

impl Purpose {
    /// The relation that a step needs on the connection.
    pub fn relation(self) -> Relation {
        match self {
            Self::Reveal => Relation::Resolver,
            Self::Use => Relation::User,
        }
    }
}

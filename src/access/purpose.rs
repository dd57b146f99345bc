//! What a step wants a connection for.

use super::bindings::Relation;
use crate::model::Action;

/// What a step wants a connection for. The purpose decides which relation the step needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The step gets the values.
    Reveal,
    /// The broker acts with the connection, and the step gets no value.
    Use,
}

impl Purpose {
    /// The purpose of a request; `action` is what the broker is to do, if the step is not to get the values.
    pub fn of(action: Option<&Action>) -> Self {
        if action.is_some() { Self::Use } else { Self::Reveal }
    }

    /// The relation that a step needs on the connection.
    pub fn relation(self) -> Relation {
        match self {
            Self::Reveal => Relation::Resolver,
            Self::Use => Relation::User,
        }
    }
}

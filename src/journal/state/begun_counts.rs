//! How many endings are under way: no step and no connection makes them grow without a bound.
//!
//! A credential in use does not count: each step has few of those. What is left disabled counts, because it stays.

use std::collections::HashMap;

use crate::journal::event::MintingLine;
use crate::model::limits::{MAX_CONNECTION_ENDINGS, MAX_STEP_ENDINGS};
use crate::model::{Id, IdMap};

/// Why no more credentials are made of a connection: too many endings have begun and are not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooManyEndings {
    /// Of credentials that one step had of the connection.
    #[error("this step had {MAX_STEP_ENDINGS} credentials of it that have not ended upstream")]
    OfStep,
    /// Of credentials that all steps had of the connection.
    #[error("{MAX_CONNECTION_ENDINGS} credentials of it have not ended upstream")]
    OfConnection,
}

/// The endings that have begun and are not over, counted by opening and connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BegunCounts {
    /// By the opening and the uid of the connection.
    of_step: HashMap<(Id, Id), usize>,
    /// By the uid of the connection.
    of_connection: IdMap<usize>,
}

impl BegunCounts {
    /// Takes in that the ending of what this mint has made began.
    pub(super) fn begin(&mut self, of: &MintingLine) {
        *self.of_step.entry((of.opening, of.uid)).or_default() += 1;
        *self.of_connection.entry(of.uid).or_default() += 1;
    }

    /// Takes in that a begun ending is over.
    pub(super) fn end(&mut self, of: &MintingLine) {
        let step = (of.opening, of.uid);
        if let Some(count) = self.of_step.get_mut(&step) {
            *count -= 1;
            if *count == 0 {
                self.of_step.remove(&step);
            }
        }
        if let Some(count) = self.of_connection.get_mut(&of.uid) {
            *count -= 1;
            if *count == 0 {
                self.of_connection.remove(&of.uid);
            }
        }
    }

    /// Checks that one more credential of a connection may be made for an opening.
    pub(super) fn check(&self, opening: Id, connection: Id) -> Result<(), TooManyEndings> {
        let of_step = self.of_step.get(&(opening, connection)).copied().unwrap_or_default();
        let of_connection = self.of_connection.get(&connection).copied().unwrap_or_default();
        if of_step >= MAX_STEP_ENDINGS {
            Err(TooManyEndings::OfStep)
        } else if of_connection >= MAX_CONNECTION_ENDINGS {
            Err(TooManyEndings::OfConnection)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::integration::Source;
    use crate::journal::DecisionId;
    use crate::model::{ExecutorName, WorkflowName, WorkflowPath};

    fn id(n: u8) -> Id {
        Id::from_bytes([n; Id::BYTES])
    }

    /// A mint of this connection for this opening.
    fn mint(opening: u8, connection: u8) -> MintingLine {
        let workflow = WorkflowName::parse("w").unwrap();
        MintingLine {
            mint: id(1),
            decision: DecisionId { file: 1, line: 1 },
            opening: id(opening),
            principal: Arc::new(WorkflowPath { workflow, run: None, step: None }),
            executor: ExecutorName::parse("local").unwrap(),
            lease: id(1),
            source: Source::Postgres,
            resource: "connections/postgres/db".to_owned(),
            uid: id(connection),
            version: 1,
        }
    }

    #[test]
    fn one_step_has_room_for_so_many_endings_of_a_connection() {
        let mut counts = BegunCounts::default();
        for _ in 0..MAX_STEP_ENDINGS {
            assert_eq!(counts.check(id(1), id(9)), Ok(()));
            counts.begin(&mint(1, 9));
        }
        assert_eq!(counts.check(id(1), id(9)), Err(TooManyEndings::OfStep));
        assert_eq!(counts.check(id(2), id(9)), Ok(()), "another step");
        assert_eq!(counts.check(id(1), id(8)), Ok(()), "another connection");
        counts.end(&mint(1, 9));
        assert_eq!(counts.check(id(1), id(9)), Ok(()));
    }

    #[test]
    fn a_connection_has_room_for_so_many_endings() {
        let mut counts = BegunCounts::default();
        let steps = u8::try_from(MAX_CONNECTION_ENDINGS / 50).unwrap();
        for step in 0..steps {
            (0..50).for_each(|_| counts.begin(&mint(step, 9)));
        }
        assert_eq!(counts.check(id(255), id(9)), Err(TooManyEndings::OfConnection));
        assert_eq!(counts.check(id(255), id(8)), Ok(()));
        for step in 0..steps {
            (0..50).for_each(|_| counts.end(&mint(step, 9)));
        }
        assert!(counts.of_step.is_empty() && counts.of_connection.is_empty());
    }
}

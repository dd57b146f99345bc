//! How many endings are under way: no step, no workflow and no connection makes them grow without a bound.
//!
//! A credential in use does not count: each step has few of those. What is left disabled counts, because it stays.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use crate::journal::event::MintingLine;
use crate::model::limits::{MAX_CONNECTION_ENDINGS, MAX_STEP_ENDINGS, MAX_WORKFLOW_ENDINGS};
use crate::model::{Id, IdMap, WorkflowName};

/// Why no more credentials are made of a connection: too many endings have begun and are not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooManyEndings {
    /// Of credentials that one step had of the connection.
    #[error("this step had {MAX_STEP_ENDINGS} credentials of it that have not ended upstream")]
    OfStep,
    /// Of credentials that the steps of one workflow had of the connection.
    #[error(
        "this workflow had {MAX_WORKFLOW_ENDINGS} credentials of it that have not ended upstream"
    )]
    OfWorkflow,
    /// Of credentials that all steps had of the connection.
    #[error("{MAX_CONNECTION_ENDINGS} credentials of it have not ended upstream")]
    OfConnection,
}

/// The endings that have begun and are not over, counted by opening, workflow and connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BegunCounts {
    /// By the opening and the uid of the connection.
    of_step: HashMap<(Id, Id), usize>,
    /// By the workflow and the uid of the connection.
    of_workflow: HashMap<(WorkflowName, Id), usize>,
    /// By the uid of the connection.
    of_connection: IdMap<usize>,
}

impl BegunCounts {
    /// Takes in that the ending of what this mint has made began.
    pub(super) fn begin(&mut self, of: &MintingLine) {
        *self.of_step.entry((of.opening, of.uid)).or_default() += 1;
        *self.of_workflow.entry((of.principal.workflow.clone(), of.uid)).or_default() += 1;
        *self.of_connection.entry(of.uid).or_default() += 1;
    }

    /// Takes in that a begun ending is over.
    pub(super) fn end(&mut self, of: &MintingLine) {
        remove_one(&mut self.of_step, &(of.opening, of.uid));
        remove_one(&mut self.of_workflow, &(of.principal.workflow.clone(), of.uid));
        remove_one(&mut self.of_connection, &of.uid);
    }

    /// Checks that one more credential of a connection may be made for an opening of a workflow.
    pub(super) fn check(
        &self,
        opening: Id,
        workflow: &WorkflowName,
        connection: Id,
    ) -> Result<(), TooManyEndings> {
        let of_step = self.of_step.get(&(opening, connection)).copied().unwrap_or_default();
        let of_workflow = self.of_workflow.get(&(workflow.clone(), connection));
        let of_workflow = of_workflow.copied().unwrap_or_default();
        let of_connection = self.of_connection.get(&connection).copied().unwrap_or_default();
        if of_step >= MAX_STEP_ENDINGS {
            Err(TooManyEndings::OfStep)
        } else if of_workflow >= MAX_WORKFLOW_ENDINGS {
            Err(TooManyEndings::OfWorkflow)
        } else if of_connection >= MAX_CONNECTION_ENDINGS {
            Err(TooManyEndings::OfConnection)
        } else {
            Ok(())
        }
    }
}

fn remove_one<K: Eq + Hash, S: BuildHasher>(counts: &mut HashMap<K, usize, S>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
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

    fn workflow(name: u8) -> WorkflowName {
        WorkflowName::parse(&format!("w{name}")).unwrap()
    }

    /// A mint of this connection for this opening of a workflow.
    fn mint(opening: u8, name: u8, connection: u8) -> MintingLine {
        let workflow = workflow(name);
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

    /// Checks for this opening of a workflow that this connection has room.
    fn check(
        counts: &BegunCounts,
        (opening, name, connection): (u8, u8, u8),
    ) -> Result<(), TooManyEndings> {
        counts.check(id(opening), &workflow(name), id(connection))
    }

    #[test]
    fn one_step_has_room_for_so_many_endings_of_a_connection() {
        let mut counts = BegunCounts::default();
        for _ in 0..MAX_STEP_ENDINGS {
            assert_eq!(check(&counts, (1, 1, 9)), Ok(()));
            counts.begin(&mint(1, 1, 9));
        }
        assert_eq!(check(&counts, (1, 1, 9)), Err(TooManyEndings::OfStep));
        assert_eq!(check(&counts, (2, 1, 9)), Ok(()), "another step");
        assert_eq!(check(&counts, (1, 1, 8)), Ok(()), "another connection");
        counts.end(&mint(1, 1, 9));
        assert_eq!(check(&counts, (1, 1, 9)), Ok(()));
    }

    #[test]
    fn a_workflow_leaves_room_for_others_and_all_fill_a_connection() {
        let mut counts = BegunCounts::default();
        let steps = u8::try_from(MAX_WORKFLOW_ENDINGS / 50).unwrap();
        for name in 0..4 {
            assert_eq!(check(&counts, (255, name, 9)), Ok(()));
            for step in 0..steps {
                (0..50).for_each(|_| counts.begin(&mint(step, name, 9)));
            }
            assert_eq!(check(&counts, (255, name, 9)), Err(TooManyEndings::OfWorkflow));
        }
        assert_eq!(check(&counts, (255, 4, 9)), Err(TooManyEndings::OfConnection));
        assert_eq!(check(&counts, (255, 4, 8)), Ok(()));
        for (name, step) in (0..4).flat_map(|name| (0..steps).map(move |step| (name, step))) {
            (0..50).for_each(|_| counts.end(&mint(step, name, 9)));
        }
        assert_eq!(counts, BegunCounts::default());
    }
}

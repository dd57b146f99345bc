//! The steps that operators have closed, whose executors may still ask for them.

use serde::{Deserialize, Serialize};

use crate::journal::state::remembered::Remembered;
use crate::model::{Id, Opening, StepKey};

/// How many of them are remembered.
const MAX_ENDED: usize = 10_000;

/// A step that an operator has closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndedStep {
    /// The step.
    #[serde(flatten)]
    pub key: StepKey,
    /// The attempt that was closed.
    pub number: i32,
    /// Its opening.
    pub opening: Id,
}

impl EndedStep {
    pub(in crate::journal::state) fn of(opening: &Opening) -> Self {
        Self { key: opening.key.clone(), number: opening.attempt, opening: opening.id }
    }
}

/// The last of them, with a fair share for each registration.
#[derive(Debug, Default)]
pub struct EndedSteps {
    by_opening: Remembered<Id, EndedStep, MAX_ENDED>,
    /// The attempt that was closed last.
    by_step: Remembered<StepKey, i32, MAX_ENDED>,
}

impl EndedSteps {
    pub(in crate::journal::state) fn insert(&mut self, ended: EndedStep) {
        let registration = ended.key.executor_uid;
        self.by_step.insert(registration, ended.key.clone(), ended.number);
        self.by_opening.insert(registration, ended.opening, ended);
    }

    /// Whether an operator has closed this opening of a registration.
    pub fn has_opening(&self, registration: Id, opening: Id) -> bool {
        self.by_opening.find(registration, &opening).is_some()
    }

    /// Whether an operator has closed this attempt at a step.
    pub fn has_attempt(&self, key: &StepKey, attempt: i32) -> bool {
        self.by_step.find(key.executor_uid, key) == Some(&attempt)
    }

    pub(in crate::journal::state) fn iter(&self) -> impl Iterator<Item = &EndedStep> {
        self.by_opening.iter().map(|(_, _, ended)| ended)
    }
}

impl FromIterator<EndedStep> for EndedSteps {
    fn from_iter<I: IntoIterator<Item = EndedStep>>(all: I) -> Self {
        let mut ended = Self::default();
        all.into_iter().for_each(|one| ended.insert(one));
        ended
    }
}

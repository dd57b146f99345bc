//! Decisions to sign.

use super::world::{World, root};
use crate::journal::{CommitError, Epoch, LiveOpening, Outcome, SignLine, Used};
use crate::lease::LeaseTarget;

impl World {
    /// Commits a decision to sign. Returns whether it gives a permit.
    fn sign(&self, opening: &LiveOpening, epoch: Epoch) -> Result<bool, CommitError> {
        let outcome = Outcome::Allow(Used {
            by: "user workflow:w".to_owned(),
            uid: root().uid,
            resource: None,
            version: 1,
        });
        let line = SignLine {
            opening: opening.record().id,
            principal: opening.principal(),
            run_as: opening.record().run_as.clone(),
            target: LeaseTarget::Connection("ssh/a".parse().unwrap()),
            login: None,
            outcome,
        };
        let committed = self.journal().commit_sign(self.now, epoch, opening, Some(root()), line);
        committed.map(|(_, permit)| permit.is_some())
    }
}

#[test]
fn a_closed_step_or_an_old_decision_gets_no_permit_to_sign() {
    let mut world = World::new();
    world.open(0);
    let (step, before) = (world.step(0), Epoch::default());
    assert_eq!(world.sign(&step, before), Ok(true));
    world.publish(1, true);
    assert_eq!(world.sign(&step, before), Ok(true));
    assert_eq!(world.sign(&step, Epoch::of_batch(1)), Err(CommitError::Stale));
    world.publish(2, false);
    assert_eq!(world.sign(&step, before), Err(CommitError::Stale));
    assert_eq!(world.sign(&step, Epoch::of_batch(2)), Ok(true));
    world.close(0);
    let written = world.journal().written();
    assert_eq!(world.sign(&step, Epoch::of_batch(2)), Err(CommitError::Closed));
    assert_eq!(world.journal().written(), written);
}

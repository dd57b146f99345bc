//! Steps, leases, mints, endings and the levers of operators in any order: the lines add up to the same state at a start, no credential that is owed
//! an ending is forgotten, and none is handed out whose ending has begun.

mod uses;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Candidates, CommitError, Owed, RestoredAs, Standing};
use world::{End, STEPS, World};

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Act {
    Advance(u16),
    Open(usize),
    Close(usize),
    /// A step asks, and an upstream must be asked.
    Ask(usize),
    /// A mint begins for a lease that awaits its credential.
    Mint(usize),
    Make {
        mint: usize,
        is_own: bool,
        life: u16,
    },
    Fail(usize),
    HandOut {
        lease: usize,
        credential: usize,
    },
    /// A step asks, and the credential is in memory.
    Reuse(usize),
    Revoke(usize),
    CloseByOperator {
        step: usize,
        blocks: bool,
    },
    Block(usize),
    Unblock(usize),
    RevokeAll(usize),
    Begin(usize, Standing),
    End(usize, End),
    Restart,
    Rotate,
    Restore(RestoredAs),
}

fn act() -> impl Strategy<Value = Act> {
    let standing = prop_oneof![
        3 => Just(Standing::Same),
        1 => Just(Standing::Changed),
        1 => Just(Standing::Deleted),
    ];
    let end = prop_oneof![Just(End::Ended), Just(End::Left), Just(End::Disabled)];
    let restored = prop_oneof![Just(RestoredAs::Copy), Just(RestoredAs::OriginalGone)];
    let (step, nth) = (0..STEPS, 0..8_usize);
    prop_oneof![
        2 => (1..2000_u16).prop_map(Act::Advance),
        4 => step.clone().prop_map(Act::Open),
        2 => step.clone().prop_map(Act::Close),
        6 => step.clone().prop_map(Act::Ask),
        1 => (step.clone(), any::<bool>())
            .prop_map(|(step, blocks)| Act::CloseByOperator { step, blocks }),
        1 => step.clone().prop_map(Act::Block),
        1 => step.clone().prop_map(Act::Unblock),
        1 => step.prop_map(Act::RevokeAll),
        6 => nth.clone().prop_map(Act::Mint),
        6 => (nth.clone(), any::<bool>(), 1..3600_u16)
            .prop_map(|(mint, is_own, life)| Act::Make { mint, is_own, life }),
        2 => nth.clone().prop_map(Act::Fail),
        6 => (nth.clone(), nth.clone())
            .prop_map(|(lease, credential)| Act::HandOut { lease, credential }),
        2 => nth.clone().prop_map(Act::Reuse),
        1 => nth.clone().prop_map(Act::Revoke),
        6 => (nth.clone(), standing).prop_map(|(one, standing)| Act::Begin(one, standing)),
        4 => (nth, end).prop_map(|(one, end)| Act::End(one, end)),
        1 => Just(Act::Restart),
        1 => Just(Act::Rotate),
        1 => restored.prop_map(Act::Restore),
    ]
}

impl World {
    fn act(&mut self, act: Act) {
        match act {
            Act::Advance(seconds) => self.now = self.now.after(Duration::from_secs(seconds.into())),
            Act::Open(nth) => self.open(nth),
            Act::Close(nth) => self.close(nth),
            Act::Ask(nth) => self.ask(nth),
            Act::Mint(nth) => self.mint(nth),
            Act::Make { mint, is_own, life } => self.make(mint, is_own, life),
            Act::Fail(nth) => self.fail(nth),
            Act::HandOut { lease, credential } => self.hand_out(lease, credential),
            Act::Reuse(nth) => self.reuse(nth),
            Act::Revoke(nth) => self.revoke(nth),
            Act::CloseByOperator { step, blocks } => self.close_by_operator(step, blocks),
            Act::Block(nth) => self.block(nth),
            Act::Unblock(nth) => self.unblock(nth),
            Act::RevokeAll(nth) => self.revoke_all(nth),
            Act::Begin(nth, standing) => self.begin(nth, standing),
            Act::End(nth, end) => self.end(nth, end),
            Act::Restart => self.restart(),
            Act::Rotate => assert!(self.journal().rotate_if_full(self.now).unwrap()),
            Act::Restore(restored_as) => self.restore(restored_as),
        }
    }

    /// A look at what has changed finds all that is due.
    fn check_due(&self) {
        self.journal().expire(self.now);
        let all = self.journal().with_live(|live| {
            let due = live.mints().owed().iter();
            let due = due.filter(|one| one.due(live, Standing::Same).is_some());
            due.map(Owed::mint).collect::<BTreeSet<_>>()
        });
        let changed = Candidates::Changed;
        let found = self
            .journal()
            .due_endings(self.now, self.epoch, changed, usize::MAX, |_| Standing::Same)
            .unwrap();
        let found: BTreeSet<_> = found.iter().map(|(one, _)| one.mint()).collect();
        assert_eq!(found, all.unwrap());
    }
}

#[test]
fn what_is_owed_an_ending_is_known_until_it_has_ended() {
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    let acts = prop::collection::vec(act(), 1..80);
    let tried = TestRunner::new(config).run(&acts, |acts| {
        let mut world = World::new();
        for act in acts {
            world.act(act);
            world.check();
        }
        world.restart();
        world.check();
        assert_eq!(world.told(), world.lines, "run show tells all of it");
        Ok(())
    });
    tried.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn what_the_broker_keeps_for_itself_makes_no_decision_stale() {
    let mut world = World::new();
    world.open(0);
    assert_eq!((world.publish(1, true), world.publish(2, true)), (None, None));
    assert_eq!(world.publish(3, false), Some(CommitError::Stale));
    assert_eq!(world.publish(4, true), Some(CommitError::Stale));
}

//! Blocks, and steps that administrators close.
//!
//! A block is kept here and not in the store: it is this host's, it is set even if the store takes no writes, and a backup
//! takes it along.

use super::endings::left_to_expire;
use super::levers::{Ended, EndedBy, by_opening, mints_of, revocations};
use crate::access::{Block, BlockTarget};
use crate::journal::event::{
    BlockLine, EndedLeases, Event, LEASES_IN_LINE, OperatorCloseLine, UnblockLine,
};
use crate::journal::state::live::Live;
use crate::journal::{Journal, Position, Unavailable};
use crate::lease::Lease;
use crate::model::{Id, Timestamp, WorkflowPath};

/// The most blocks on connections, and the most on workflows, runs and steps: blocks of operators leave those of administrators
/// their room.
const MAX_BLOCKS: usize = 10_000;

/// What is to be blocked.
#[derive(Clone, Debug)]
pub struct BlockOn {
    /// As lines name it.
    pub target: BlockTarget,
    /// The uid of the connection, if it is one.
    pub uid: Option<Id>,
}

/// What came of a block.
#[derive(Debug)]
pub enum Blocking {
    /// It is set.
    Set(Ended),
    /// There is one already.
    Blocked(Position),
}

/// There are as many blocks as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{MAX_BLOCKS} blocks of this kind are set, which is the limit; lift those that nobody needs: keyhatch access blocks"
)]
pub struct TooManyBlocks;

/// What an administrator closes.
pub struct OperatorClose {
    /// The run or step.
    pub target: WorkflowPath,
    /// Whether it is blocked from then on.
    pub blocks: bool,
    /// The openings.
    pub openings: Vec<Id>,
}

impl Journal {
    /// Blocks a connection, workflow, run or step, and ends the leases on it. `publish` makes the next snapshot visible.
    ///
    /// # Errors
    /// If there are too many blocks, or a line cannot be written: nothing is blocked then.
    pub fn block<E: From<Unavailable> + From<TooManyBlocks>>(
        &self,
        now: Timestamp,
        by: &EndedBy,
        on: &BlockOn,
        publish: impl FnOnce(&Live),
    ) -> Result<Blocking, E> {
        let mut chain = self.lock()?;
        chain.live_mut().expire(now);
        let live = chain.live();
        if on.block_in(live).is_some() {
            return Ok(Blocking::Blocked(chain.last()));
        }
        if !on.has_room(live) {
            return Err(TooManyBlocks.into());
        }
        let ended = on.leases(live);
        let mints = mints_of(live, &ended);
        let (first, rest) = ended.split_at(ended.len().min(LEASES_IN_LINE));
        let EndedBy { principal, reason } = by.clone();
        let line = BlockLine {
            principal,
            reason,
            target: on.target.clone(),
            uid: on.uid,
            revoked: by_opening(live, first),
        };
        let mut lines = vec![Event::Blocked(Box::new(line))];
        lines.extend(revocations(live, by, rest));
        let leases = ended.len();
        chain.append_all(now, &lines)?;
        chain.live_mut().next_epoch();
        publish(chain.live());
        Ok(Blocking::Set(Ended { position: chain.last(), leases, mints }))
    }

    /// Lifts the block that `find` names; `None` if there is no such block. `publish` makes the next snapshot visible.
    ///
    /// # Errors
    /// If the line cannot be written: the block stays then.
    pub fn unblock(
        &self,
        now: Timestamp,
        by: &EndedBy,
        find: impl FnOnce(&Live) -> Option<Block>,
        publish: impl FnOnce(&Live),
    ) -> Result<Option<(Position, Block)>, Unavailable> {
        let mut chain = self.lock()?;
        let Some(block) = find(chain.live()) else { return Ok(None) };
        let EndedBy { principal, reason } = by.clone();
        let target = block.target.clone();
        let line = UnblockLine { principal, reason, target, block: block.clone() };
        let position = chain.append(now, &Event::Unblocked(Box::new(line)))?;
        chain.live_mut().next_epoch();
        publish(chain.live());
        Ok(Some((position, block)))
    }

    /// Closes steps by an administrator's word, with one line for all of them and the block. `choose` finds the openings.
    /// `before` may write lines while they are still open. `publish` makes the next snapshot visible. `None` if there is
    /// nothing to close and nothing to block.
    ///
    /// # Errors
    /// As `choose`, or if a line cannot be written: all steps stay open then.
    pub fn close_by_operator<E: From<Unavailable>>(
        &self,
        now: Timestamp,
        by: &EndedBy,
        choose: impl FnOnce(&Live) -> Result<OperatorClose, E>,
        before: impl FnOnce(&[Id], &mut dyn FnMut(&Event) -> bool),
        publish: impl FnOnce(&Live),
    ) -> Result<(OperatorClose, Option<Ended>), E> {
        let mut chain = self.lock()?;
        chain.live_mut().expire(now);
        let close = choose(chain.live())?;
        let on = BlockOn { target: BlockTarget::Steps(close.target.clone()), uid: None };
        let is_blocked = on.block_in(chain.live()).is_some();
        // Without room the steps are closed all the same.
        let is_new = close.blocks && !is_blocked && on.has_room(chain.live());
        let close = OperatorClose { blocks: is_blocked || is_new, ..close };
        if close.openings.is_empty() && !is_new {
            return Ok((close, None));
        }
        before(&close.openings, &mut |event| chain.append(now, event).is_ok());
        let (lines, leases) = close_lines(chain.live(), now, by, &close, is_new);
        chain.append_all(now, &lines)?;
        chain.live_mut().next_epoch();
        publish(chain.live());
        let mints = chain.live().mints();
        let mints = close.openings.iter().flat_map(|id| mints.of_opening(*id)).collect();
        Ok((close, Some(Ended { position: chain.last(), leases, mints })))
    }
}

/// The lines of a closing by an administrator, and how many leases it ends. A credential that outlives its opening gets a line
/// before.
fn close_lines(
    live: &Live,
    now: Timestamp,
    by: &EndedBy,
    close: &OperatorClose,
    blocked: bool,
) -> (Vec<Event>, usize) {
    let open: Vec<_> = close.openings.iter().filter_map(|id| live.opening(*id)).collect();
    let mut lines: Vec<Event> =
        open.iter().flat_map(|opening| left_to_expire(live, opening, now)).collect();
    let closed = open.iter().map(|opening| EndedLeases {
        opening: opening.record().id,
        step: opening.principal(),
        leases: live.leases().of_opening(opening.record().id),
    });
    let closed: Vec<_> = closed.collect();
    let leases = closed.iter().map(|one| one.leases.len()).sum();
    let EndedBy { principal, reason } = by.clone();
    let target = BlockTarget::Steps(close.target.clone());
    let line = OperatorCloseLine { principal, reason, target, blocked, closed };
    lines.push(Event::ClosedByOperator(Box::new(line)));
    (lines, leases)
}

impl BlockOn {
    /// The block on exactly this.
    fn block_in<'a>(&self, live: &'a Live) -> Option<&'a Block> {
        match &self.target {
            BlockTarget::Connection(_) => live.blocks().on_connection(self.uid?),
            BlockTarget::Steps(path) => live.blocks().on_steps(path),
        }
    }

    /// Whether there may be another block of this kind.
    fn has_room(&self, live: &Live) -> bool {
        match &self.target {
            BlockTarget::Connection(_) => live.blocks().of_connections() < MAX_BLOCKS,
            BlockTarget::Steps(_) => live.blocks().of_steps() < MAX_BLOCKS,
        }
    }

    /// The live leases that a block on this ends.
    fn leases<'a>(&self, live: &'a Live) -> Vec<&'a Lease> {
        match (&self.target, self.uid) {
            (BlockTarget::Connection(_), uid) => {
                uid.into_iter().flat_map(|uid| live.leases().of_resource(uid)).collect()
            }
            (BlockTarget::Steps(path), _) => {
                let under = live.openings().filter(|one| path.includes(&one.principal()));
                under.flat_map(|one| live.leases().held_by(one.record().id)).collect()
            }
        }
    }
}

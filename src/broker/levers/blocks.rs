//! Blocks: set, lifted and listed by operators.

use super::ended_by;
use super::refusal::LeverRefusal;
use crate::access::{Block, BlockTarget, Principal, Role};
use crate::broker::Broker;
use crate::broker::changes::checks::require_editor;
use crate::broker::error::Error;
use crate::broker::registry::operators::{require_operator, require_role};
use crate::catalog::Catalog;
use crate::journal::{BlockOn, Blocking, Live};
use crate::model::{Because, Id, ResourceName};

/// What a block has done.
#[derive(Debug)]
pub struct Blocked {
    /// The block in force. It is an earlier one if the same was blocked already.
    pub block: Block,
    /// How many leases were revoked.
    pub revoked: usize,
    /// The mints whose credentials are ended for it, those under way included.
    pub endings: Vec<Id>,
}

impl Broker {
    /// Blocks a connection, workflow, run or step. Returns when the line is on disk and the leases have ended.
    ///
    /// # Errors
    /// See `BlockService.Block`.
    pub async fn block(
        &self,
        caller: &Principal,
        target: BlockTarget,
        reason: Because,
    ) -> Result<Blocked, Error> {
        let uid = self.may_block(caller, &target)?;
        if let (BlockTarget::Connection(name), None) = (&target, uid) {
            let absent = Error::NotFound(ResourceName::Connection(name.clone()));
            return Err(absent.or_newer(&self.snapshot().catalog));
        }
        let on = BlockOn { target: target.clone(), uid };
        let by = ended_by(caller, reason);
        let blocking = self.journal.block::<Error>(self.now(), &by, &on, |live| {
            self.publish_again(live);
        })?;
        let (revoked, endings) = match blocking {
            Blocking::Set(ended) => {
                self.settle_ended(&ended).await?;
                (ended.leases, ended.mints)
            }
            Blocking::Blocked(position) => {
                self.journal.synced(position).await?;
                (0, Vec::new())
            }
        };
        let catalog = &self.snapshot().catalog;
        let found = self.journal.with_live(|live| find(live, catalog, &target).cloned())?;
        let block = found.ok_or_else(|| LeverRefusal::NotBlocked(target.to_string()))?;
        Ok(Blocked { block, revoked, endings })
    }

    /// Lifts a block. Returns it as it was.
    ///
    /// # Errors
    /// See `BlockService.Unblock`.
    pub async fn unblock(
        &self,
        caller: &Principal,
        target: &BlockTarget,
        reason: Because,
    ) -> Result<Block, Error> {
        // A connection that is gone has no editors.
        let by_role = require_role(caller, Role::Administrator);
        if self.may_block(caller, target)?.is_none() {
            by_role.clone()?;
        }
        let by = ended_by(caller, reason);
        let lifted = self.journal.unblock(
            self.now(),
            &by,
            |live| {
                let snapshot = self.snapshot();
                let found = find(live, &snapshot.catalog, target);
                let gone =
                    || find_gone(live, &snapshot.catalog, target).filter(|_| by_role.is_ok());
                found.or_else(gone).cloned()
            },
            |live| self.publish_again(live),
        )?;
        let (position, block) =
            lifted.ok_or_else(|| LeverRefusal::NotBlocked(target.to_string()))?;
        self.journal.synced(position).await?;
        Ok(block)
    }

    /// All blocks, by what they are on.
    ///
    /// # Errors
    /// If the caller is no operator.
    pub fn blocks(&self, caller: &Principal) -> Result<Vec<Block>, Error> {
        require_operator(caller)?;
        let mut blocks: Vec<Block> = self.snapshot().blocks.iter().cloned().collect();
        blocks.sort_by_cached_key(|block| (block.target.to_string(), block.time));
        Ok(blocks)
    }

    /// Checks that a caller may block this, and lift a block on it. Returns the uid of the connection; `None` if
    /// there is no such connection, or it is about steps.
    fn may_block(&self, caller: &Principal, target: &BlockTarget) -> Result<Option<Id>, Error> {
        let BlockTarget::Connection(name) = target else {
            return require_role(caller, Role::Administrator).map(|()| None);
        };
        require_role(caller, Role::Operator)?;
        let snapshot = self.snapshot();
        let Some(found) = snapshot.catalog.connection(name) else { return Ok(None) };
        let metadata = &found.metadata;
        require_editor(caller, &metadata.access, &ResourceName::Connection(name.clone()))?;
        Ok(Some(metadata.uid))
    }
}

/// The block on this.
fn find<'a>(live: &'a Live, catalog: &Catalog, target: &BlockTarget) -> Option<&'a Block> {
    match target {
        BlockTarget::Steps(path) => live.blocks().on_steps(path),
        BlockTarget::Connection(name) => {
            live.blocks().on_connection(catalog.connection(name)?.metadata.uid)
        }
    }
}

/// The block on a connection that had this name and is gone.
fn find_gone<'a>(live: &'a Live, catalog: &Catalog, target: &BlockTarget) -> Option<&'a Block> {
    let is_gone = |block: &&Block| match &block.target {
        BlockTarget::Connection(name) => {
            let present = catalog.connection(name).map(|found| found.metadata.uid);
            block.target == *target && block.uid != present
        }
        BlockTarget::Steps(_) => false,
    };
    live.blocks().iter().find(is_gone)
}

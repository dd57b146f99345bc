//! The mints that are under way, begun and neither made nor failed; and the credentials that are owed an ending.

use super::lost::LostRefreshes;
use super::outliving::{Outliving, OutlivingCredentials};
use super::owed::OwedEndings;
use crate::journal::event::{Checkpoint, Event, MintFailedLine, MintedLine, MintingLine};
use crate::lease::{Lease, LeaseTable};
use crate::model::{Id, IdMap, Timestamp};

/// The mints that are under way, and the credentials that are owed an ending.
#[derive(Debug, Default)]
pub(crate) struct Mints {
    under_way: IdMap<MintingLine>,
    owed: OwedEndings,
    outliving: OutlivingCredentials,
    lost: LostRefreshes,
}

impl Mints {
    pub(super) fn start_from(checkpoint: &Checkpoint) -> Self {
        let under_way = checkpoint.mints.iter().map(|line| (line.mint, line.clone())).collect();
        Self {
            under_way,
            owed: OwedEndings::start_from(&checkpoint.owed),
            outliving: OutlivingCredentials::start_from(&checkpoint.outliving),
            lost: LostRefreshes::start_from(&checkpoint.lost_refreshes),
        }
    }

    /// The refreshes whose answers nobody knows.
    pub(crate) fn lost(&self) -> &LostRefreshes {
        &self.lost
    }

    pub(super) fn lost_mut(&mut self) -> &mut LostRefreshes {
        &mut self.lost
    }

    /// The credentials that are owed an ending.
    pub(crate) fn owed(&self) -> &OwedEndings {
        &self.owed
    }

    /// The mint of this id, if it is under way.
    pub(crate) fn find(&self, mint: Id) -> Option<&MintingLine> {
        self.under_way.get(&mint)
    }

    /// How a mint began that is under way or owed an ending.
    pub(crate) fn line(&self, mint: Id) -> Option<&MintingLine> {
        self.find(mint).or_else(|| self.owed.find(mint).map(|owed| &owed.minting))
    }

    /// The mints of an opening, open or closed, that are under way or whose credentials are owed an ending.
    pub(crate) fn of_opening(&self, opening: Id) -> Vec<Id> {
        let flying = self.iter().filter(|line| line.opening == opening).map(|line| line.mint);
        flying.chain(self.owed.of_opening(opening).iter().copied()).collect()
    }

    /// The credentials that will outlive an opening, oldest first.
    pub(crate) fn outliving(
        &self,
        opening: Id,
        now: Timestamp,
    ) -> impl Iterator<Item = &Outliving> {
        self.outliving.of_opening(opening, now)
    }

    /// The credentials that will outlive their openings, in no order.
    pub(crate) fn all_outliving(&self) -> impl Iterator<Item = &Outliving> {
        self.outliving.iter()
    }

    pub(in crate::journal) fn owed_mut(&mut self) -> &mut OwedEndings {
        &mut self.owed
    }

    /// Takes in that an opening was closed.
    pub(super) fn close(&mut self, opening: Id) {
        self.outliving.close(opening);
        self.owed.change_opening(opening);
    }

    /// Forgets what is owed: another broker ends it.
    pub(super) fn forget_owed(&mut self) {
        self.owed.forget();
    }

    /// All mints that are under way, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &MintingLine> {
        self.under_way.values()
    }

    /// Applies the line of a mint or of an ending.
    pub(super) fn apply(&mut self, event: &Event, time: Timestamp, leases: &mut LeaseTable) {
        match event {
            Event::MintFailed(line) => self.take_failed(line, time, leases),
            Event::MintJoined(line) => leases.bind(line.lease, &line.credential),
            // No lease changes before the credential is handed out.
            Event::Minted(line) => self.take_minted(line, time),
            Event::Minting(line) => {
                self.under_way.insert(line.mint, MintingLine::clone(line));
            }
            Event::Tested(line) => {
                if line.refreshes {
                    self.lost.lose(line.uid, None, time);
                }
            }
            _ => {
                if let Event::LeftToExpire(line) = event {
                    self.outliving.tell(line);
                }
                self.owed.apply(event, time);
            }
        }
    }

    /// Takes in that a credential was made.
    fn take_minted(&mut self, line: &MintedLine, time: Timestamp) {
        if line.credential.outlives {
            self.outliving.take(line, time);
        }
        let begun = self.under_way.remove(&line.credential.mint);
        if let Some(begun) = begun.as_ref().filter(|begun| begun.source.rotates()) {
            self.lost.settle(begun.uid);
        }
        if let Some(begun) = begun.filter(|_| line.credential.owed) {
            self.owed.owe(begun, Some(line.credential.clone()));
        }
    }

    /// Takes in that nothing was made, as far as is known.
    fn take_failed(&mut self, line: &MintFailedLine, time: Timestamp, leases: &mut LeaseTable) {
        let begun = line.mint.and_then(|mint| self.under_way.remove(&mint));
        let is_lost = |begun: &&MintingLine| begun.source.rotates() && line.fault.uncertain;
        if let Some(begun) = begun.as_ref().filter(is_lost) {
            self.lost.lose(begun.uid, Some(begun.mint), time);
        }
        match begun {
            Some(begun) if line.owed => self.owed.owe(begun, None),
            Some(begun) => self.owed.owe_nothing(begun.mint),
            None => {}
        }
        if leases.find(line.lease).is_some_and(Lease::is_awaited) {
            leases.remove(line.lease);
        }
    }
}

//! The mints that are under way: begun, and neither made nor failed.

use crate::journal::event::{Event, MintFailedLine, MintingLine};
use crate::lease::{Lease, LeaseTable};
use crate::model::{Id, IdMap};

/// The mints that are under way.
#[derive(Debug, Default)]
pub(crate) struct Mints(IdMap<MintingLine>);

impl Mints {
    pub(super) fn start_from(mints: &[MintingLine]) -> Self {
        Self(mints.iter().map(|line| (line.mint, line.clone())).collect())
    }

    /// The mint of this id, if it is under way.
    pub(crate) fn find(&self, mint: Id) -> Option<&MintingLine> {
        self.0.get(&mint)
    }

    /// All mints that are under way, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &MintingLine> {
        self.0.values()
    }

    /// Applies the line of a mint.
    pub(super) fn apply(&mut self, event: &Event, leases: &mut LeaseTable) {
        match event {
            Event::MintFailed(line) => self.take_failed(line, leases),
            Event::MintJoined(line) => leases.bind(line.lease, &line.credential),
            // No lease changes before the credential is handed out.
            Event::Minted(line) => drop(self.0.remove(&line.credential.mint)),
            Event::Minting(line) => drop(self.0.insert(line.mint, MintingLine::clone(line))),
            _ => {}
        }
    }

    /// Takes in that nothing was made.
    fn take_failed(&mut self, line: &MintFailedLine, leases: &mut LeaseTable) {
        if let Some(mint) = line.mint {
            self.0.remove(&mint);
        }
        if leases.find(line.lease).is_some_and(Lease::is_awaited) {
            leases.remove(line.lease);
        }
    }
}

//! The credentials that are owed an ending upstream.
//!
//! ```text
//! minted (owed) ──────┐
//! mint_failed (owed) ─┴─ owed ─ ending ─ begun ─┬─ ended_upstream, left_to_expire
//!                                               └─ left_disabled ─ disabled ─ ended_upstream
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::begun_counts::{BegunCounts, TooManyEndings};
use crate::integration::Source;
use crate::journal::event::{EndingReason, Event, MintingLine};
use crate::lease::MintedCredential;
use crate::model::{Id, IdMap, IdSet, Timestamp, WorkflowName};

/// A credential that is owed an ending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owed {
    /// How its mint began: for which opening, from which version of which connection.
    pub minting: MintingLine,
    /// Its handle and end; `None` if the upstream's answer was not journaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Arc<MintedCredential>>,
    /// The ending, if it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<BegunEnding>,
}

/// An ending that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BegunEnding {
    /// When.
    pub time: Timestamp,
    /// Why.
    pub reason: EndingReason,
    /// Why something of the credential stays upstream, although it can no longer be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_disabled: Option<String>,
}

impl Owed {
    /// The mint.
    pub fn mint(&self) -> Id {
        self.minting.mint
    }

    /// The protocol.
    pub fn source(&self) -> Source {
        self.minting.source
    }
}

/// Which endings may have become due.
#[derive(Clone, Copy)]
pub enum Candidates<'a> {
    /// All that have not begun.
    All,
    /// Those that something has happened to since they were looked at: to their opening, its leases or their connection.
    Changed,
    /// Those of these mints.
    Of(&'a [Id]),
}

/// The credentials that are owed an ending.
///
/// A look for endings that are due costs what has changed since the last: a credential in use is looked at again when its
/// opening is closed or loses a lease, or its connection changes.
#[derive(Debug, Default)]
pub(crate) struct OwedEndings {
    by_mint: IdMap<Owed>,
    /// The mints by the opening that they were made for.
    by_opening: IdMap<Vec<Id>>,
    /// Those whose endings have begun.
    begun: BTreeSet<Id>,
    counts: BegunCounts,
    /// The others, by the uid of the connection.
    by_connection: IdMap<IdSet>,
    /// Those among the others that are to be looked at.
    changed: IdSet,
    /// Those that are over, whose records nothing needs any more.
    over: Vec<Id>,
}

impl OwedEndings {
    pub(super) fn start_from(owed: &[Owed]) -> Self {
        let mut all = Self::default();
        owed.iter().for_each(|owed| all.insert(owed.clone()));
        all
    }

    fn insert(&mut self, owed: Owed) {
        let mint = owed.mint();
        self.take_out(mint);
        if owed.begun.is_some() {
            self.counts.begin(&owed.minting);
            self.begun.insert(mint);
        } else {
            self.by_connection.entry(owed.minting.uid).or_default().insert(mint);
            self.changed.insert(mint);
        }
        self.by_opening.entry(owed.minting.opening).or_default().push(mint);
        self.by_mint.insert(mint, owed);
    }

    fn begin(&mut self, mint: Id, begun: BegunEnding) {
        let Some(owed) = self.by_mint.get_mut(&mint) else { return };
        if owed.begun.replace(begun).is_some() {
            return;
        }
        self.counts.begin(&owed.minting);
        let connection = owed.minting.uid;
        self.begun.insert(mint);
        self.leave_live(mint, connection);
    }

    fn leave_live(&mut self, mint: Id, connection: Id) {
        self.changed.remove(&mint);
        let Some(mints) = self.by_connection.get_mut(&connection) else { return };
        mints.remove(&mint);
        if mints.is_empty() {
            self.by_connection.remove(&connection);
        }
    }

    fn end(&mut self, mint: Id) {
        self.take_out(mint);
        self.over.push(mint);
    }

    fn take_out(&mut self, mint: Id) {
        let Some(owed) = self.by_mint.remove(&mint) else { return };
        self.begun.remove(&mint);
        self.leave_live(mint, owed.minting.uid);
        if owed.begun.is_some() {
            self.counts.end(&owed.minting);
        }
        let opening = owed.minting.opening;
        let Some(mints) = self.by_opening.get_mut(&opening) else { return };
        mints.retain(|other| *other != mint);
        if mints.is_empty() {
            self.by_opening.remove(&opening);
        }
    }

    /// The credential of this mint, if it is owed an ending.
    pub(crate) fn find(&self, mint: Id) -> Option<&Owed> {
        self.by_mint.get(&mint)
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Owed> {
        self.by_mint.values()
    }

    /// Those whose endings have begun, in the order of their mints.
    pub(crate) fn begun(&self) -> impl Iterator<Item = &Owed> {
        self.begun.iter().filter_map(|mint| self.by_mint.get(mint))
    }

    /// How many endings have begun and are not over.
    pub(crate) fn begun_count(&self) -> usize {
        self.begun.len()
    }

    /// The mints of a connection whose endings have not begun, in no order.
    pub(crate) fn of_connection(&self, uid: Id) -> impl Iterator<Item = Id> {
        self.by_connection.get(&uid).into_iter().flatten().copied()
    }

    /// The mints of these candidates whose endings have not begun.
    pub(in crate::journal) fn candidates(&self, which: Candidates<'_>) -> Vec<Id> {
        let live = |mint: &Id| self.find(*mint).is_some_and(|owed| owed.begun.is_none());
        match which {
            Candidates::All => self.by_connection.values().flatten().copied().collect(),
            Candidates::Changed => self.changed.iter().copied().collect(),
            Candidates::Of(mints) => mints.iter().copied().filter(live).collect(),
        }
    }

    /// Takes in that an ending is not due, until something changes.
    pub(in crate::journal) fn looked_at(&mut self, mint: Id) {
        self.changed.remove(&mint);
    }

    /// Takes in that an opening was closed, or has lost a lease.
    pub(in crate::journal) fn change_opening(&mut self, opening: Id) {
        let mints = self.by_opening.get(&opening).into_iter().flatten();
        self.changed.extend(mints.filter(|mint| !self.begun.contains(mint)));
    }

    /// Takes in that these connections have changed; `None` for any of them.
    pub(in crate::journal) fn change_connections(&mut self, connections: Option<&[Id]>) {
        match connections {
            None => self.changed.extend(self.by_connection.values().flatten()),
            Some(uids) => {
                let of = uids.iter().filter_map(|uid| self.by_connection.get(uid));
                self.changed.extend(of.flatten());
            }
        }
    }

    /// The mints that are over since this was asked last, whose records nothing needs any more.
    pub(in crate::journal) fn take_over(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.over)
    }

    /// Takes in a mint that has made nothing, and is owed nothing. The store may keep what would end it.
    pub(super) fn owe_nothing(&mut self, mint: Id) {
        self.over.push(mint);
    }

    /// Forgets what is owed: another broker ends it.
    pub(super) fn forget(&mut self) {
        let over = std::mem::take(self).by_mint.into_keys();
        self.over.extend(over);
    }

    /// The mints of an opening, open or closed.
    pub(crate) fn of_opening(&self, opening: Id) -> &[Id] {
        self.by_opening.get(&opening).map_or(&[], Vec::as_slice)
    }

    /// Checks that one more credential of a connection may be made for an opening of a workflow.
    pub(crate) fn check_room(
        &self,
        opening: Id,
        workflow: &WorkflowName,
        connection: Id,
    ) -> Result<(), TooManyEndings> {
        self.counts.check(opening, workflow, connection)
    }

    /// True if a credential may be handed out: it is owed no ending, or its ending has not begun.
    pub(crate) fn may_use(&self, made: &MintedCredential) -> bool {
        !made.owed || self.find(made.mint).is_some_and(|owed| owed.begun.is_none())
    }

    /// Whether the counts are those of what is there.
    #[cfg(test)]
    pub(crate) fn are_counted(&self) -> bool {
        let mut counts = BegunCounts::default();
        let begun = self.iter().filter(|owed| owed.begun.is_some());
        begun.for_each(|owed| counts.begin(&owed.minting));
        counts == self.counts
    }

    /// Takes in a mint that is owed an ending.
    pub(super) fn owe(&mut self, minting: MintingLine, credential: Option<Arc<MintedCredential>>) {
        self.insert(Owed { minting, credential, begun: None });
    }

    /// Takes in the line of an ending.
    pub(super) fn apply(&mut self, event: &Event, time: Timestamp) {
        match event {
            Event::EndedUpstream(line) | Event::LeftToExpire(line) => {
                self.end(line.mint);
            }
            Event::Ending(line) => {
                let begun = BegunEnding { time, reason: line.reason, left_disabled: None };
                self.begin(line.mint, begun);
            }
            Event::LeftDisabled(line) => {
                let owed = self.by_mint.get_mut(&line.mint);
                if let Some(begun) = owed.and_then(|owed| owed.begun.as_mut()) {
                    begun.left_disabled = Some(line.detail.clone());
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(kind: u8, n: u32) -> Id {
        let mut bytes = [kind; Id::BYTES];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Id::from_bytes(bytes)
    }

    /// An opening has 10 mints, and a connection 100.
    fn minting(n: u32) -> MintingLine {
        let line = serde_json::json!({
            "mint": id(1, n),
            "decision": "1.7",
            "opening": id(2, n / 10),
            "principal": "workflow:w/run:1/step:s",
            "executor": "local",
            "lease": id(3, n),
            "source": "oauth2_client",
            "resource": "connections/oauth2/api",
            "uid": id(4, n / 100),
            "version": 1,
        });
        serde_json::from_value(line).unwrap()
    }

    /// With so many in use, which were looked at, and as many endings that have begun.
    fn owed(each: u32) -> OwedEndings {
        let mut owed = OwedEndings::default();
        for n in 0..2 * each {
            owed.owe(minting(n), None);
            let time = Timestamp::from_seconds(0);
            let reason = EndingReason::LeaseEnded;
            if n >= each {
                owed.begin(id(1, n), BegunEnding { time, reason, left_disabled: None });
            }
        }
        assert_eq!(owed.candidates(Candidates::Changed).len(), each as usize, "each once");
        (0..each).for_each(|n| owed.looked_at(id(1, n)));
        owed
    }

    #[test]
    fn a_look_for_endings_costs_what_has_changed() {
        let mut owed = owed(10_000);
        let count = |owed: &OwedEndings| owed.candidates(Candidates::Changed).len();
        assert_eq!((count(&owed), owed.begun_count()), (0, 10_000));
        owed.change_opening(id(2, 7));
        assert_eq!(count(&owed), 10, "those of one opening");
        owed.change_connections(Some(&[id(4, 0), id(4, 9), id(4, 99), id(4, 100), id(4, 999)]));
        assert_eq!(count(&owed), 300, "those of three connections, the opening's among them");
        owed.change_opening(id(2, 1_500));
        assert_eq!(count(&owed), 300, "an ending that has begun is not looked at");
        owed.change_connections(None);
        assert_eq!(count(&owed), 10_000);
        let both = [id(1, 3), id(1, 10_003)];
        assert_eq!(owed.candidates(Candidates::Of(&both)), [id(1, 3)]);
    }

    #[test]
    fn what_is_over_leaves_every_index() {
        let mut owed = owed(100);
        assert_eq!(owed.take_over(), []);
        owed.change_connections(None);
        (0..200).for_each(|n| owed.end(id(1, n)));
        assert!(owed.by_opening.is_empty() && owed.by_connection.is_empty());
        assert!(owed.begun.is_empty() && owed.changed.is_empty());
        assert_eq!((owed.take_over().len(), owed.take_over().len()), (200, 0));
        owed.owe(minting(1), None);
        owed.forget();
        assert_eq!((owed.take_over(), owed.iter().count()), (vec![id(1, 1)], 0));
    }
}

//! The credentials that are owed an ending upstream.
//!
//! ```text
//! minted (owed) ──────┐
//! mint_failed (owed) ─┴─ owed ─ ending ─ begun ─┬─ ended_upstream, left_to_expire
//!                                               └─ left_disabled ─ disabled ─ ended_upstream
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::begun_counts::{BegunCounts, TooManyEndings};
use crate::integration::Source;
use crate::journal::event::{EndingReason, Event, MintingLine};
use crate::lease::MintedCredential;
use crate::model::{Id, IdMap, Timestamp};

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

/// The credentials that are owed an ending.
#[derive(Debug, Default)]
pub(crate) struct OwedEndings {
    by_mint: IdMap<Owed>,
    /// The mints by the opening that they were made for.
    by_opening: IdMap<Vec<Id>>,
    begun: BegunCounts,
}

impl OwedEndings {
    pub(super) fn start_from(owed: &[Owed]) -> Self {
        let mut all = Self::default();
        owed.iter().for_each(|owed| all.insert(owed.clone()));
        all
    }

    fn insert(&mut self, owed: Owed) {
        let mint = owed.mint();
        self.remove(mint);
        if owed.begun.is_some() {
            self.begun.begin(&owed.minting);
        }
        self.by_opening.entry(owed.minting.opening).or_default().push(mint);
        self.by_mint.insert(mint, owed);
    }

    fn remove(&mut self, mint: Id) {
        let Some(owed) = self.by_mint.remove(&mint) else { return };
        if owed.begun.is_some() {
            self.begun.end(&owed.minting);
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

    /// The mints of an opening, open or closed.
    pub(crate) fn of_opening(&self, opening: Id) -> &[Id] {
        self.by_opening.get(&opening).map_or(&[], Vec::as_slice)
    }

    /// Checks that one more credential of a connection may be made for an opening.
    pub(crate) fn check_room(&self, opening: Id, connection: Id) -> Result<(), TooManyEndings> {
        self.begun.check(opening, connection)
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
        counts == self.begun
    }

    /// Takes in a mint that is owed an ending.
    pub(super) fn owe(&mut self, minting: MintingLine, credential: Option<Arc<MintedCredential>>) {
        self.insert(Owed { minting, credential, begun: None });
    }

    /// Takes in the line of an ending.
    pub(super) fn apply(&mut self, event: &Event, time: Timestamp) {
        match event {
            Event::EndedUpstream(line) | Event::LeftToExpire(line) => {
                self.remove(line.mint);
            }
            Event::Ending(line) => {
                if let Some(owed) = self.by_mint.get_mut(&line.mint) {
                    let begun = BegunEnding { time, reason: line.reason, left_disabled: None };
                    if owed.begun.replace(begun).is_none() {
                        self.begun.begin(&owed.minting);
                    }
                }
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

//! The credentials that are owed an ending upstream.
//!
//! ```text
//! minted (owed) ──────┐
//! mint_failed (owed) ─┴─ owed ─ ending ─ begun ─┬─ ended_upstream, left_to_expire
//!                                               └─ left_disabled ─ disabled ─ ended_upstream
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::live::Live;
use crate::integration::Source;
use crate::journal::event::{EndingReason, Event, MintingLine};
use crate::lease::{Lease, MintedCredential};
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

/// How the connection of a credential stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has another version, or is disabled.
    Changed,
    /// It was deleted.
    Deleted,
    /// It is as it was when the credential was made.
    Same,
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

    /// Why the credential is to be ended now; `None` if it is in use, or its ending has begun.
    pub fn due(&self, live: &Live, standing: Standing) -> Option<EndingReason> {
        if self.begun.is_some() {
            return None;
        }
        let Some(credential) = &self.credential else { return Some(EndingReason::Interrupted) };
        let MintingLine { opening, uid, version, .. } = self.minting;
        let may_use = |lease: &Lease| {
            lease.opening == opening && lease.version == version && lease.may_move_to(credential)
        };
        match standing {
            _ if live.opening(opening).is_none() => Some(EndingReason::StepClosed),
            Standing::Changed => Some(EndingReason::ConnectionChanged),
            Standing::Deleted => Some(EndingReason::ConnectionDeleted),
            Standing::Same if live.leases().of_resource(uid).any(may_use) => None,
            Standing::Same => Some(EndingReason::LeaseEnded),
        }
    }
}

/// The credentials that are owed an ending, by mint.
#[derive(Debug, Default)]
pub(crate) struct OwedEndings(IdMap<Owed>);

impl OwedEndings {
    pub(super) fn start_from(owed: &[Owed]) -> Self {
        Self(owed.iter().map(|owed| (owed.mint(), owed.clone())).collect())
    }

    /// The credential of this mint, if it is owed an ending.
    pub(crate) fn find(&self, mint: Id) -> Option<&Owed> {
        self.0.get(&mint)
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Owed> {
        self.0.values()
    }

    /// True if the ending of this mint's credential has begun: nobody gets it any more.
    pub(crate) fn is_ending(&self, mint: Id) -> bool {
        self.find(mint).is_some_and(|owed| owed.begun.is_some())
    }

    /// Takes in a mint that is owed an ending.
    pub(super) fn owe(&mut self, minting: MintingLine, credential: Option<Arc<MintedCredential>>) {
        self.0.insert(minting.mint, Owed { minting, credential, begun: None });
    }

    /// Takes in the line of an ending.
    pub(super) fn apply(&mut self, event: &Event, time: Timestamp) {
        match event {
            Event::EndedUpstream(line) | Event::LeftToExpire(line) => {
                self.0.remove(&line.mint);
            }
            Event::Ending(line) => {
                if let Some(owed) = self.0.get_mut(&line.mint) {
                    owed.begun =
                        Some(BegunEnding { time, reason: line.reason, left_disabled: None });
                }
            }
            Event::LeftDisabled(line) => {
                let owed = self.0.get_mut(&line.mint);
                if let Some(begun) = owed.and_then(|owed| owed.begun.as_mut()) {
                    begun.left_disabled = Some(line.detail.clone());
                }
            }
            _ => {}
        }
    }
}

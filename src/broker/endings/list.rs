//! The endings that are not over, as callers see them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::desk::{Endings, begun};
use super::schedule::Stage;
pub use super::schedule::Tries;
use super::standing::standing;
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::list::scan::CHUNK;
use crate::broker::registry::operators::require_operator;
use crate::catalog::Catalog;
use crate::journal::{Live, MintingLine, Owed, Standing};
use crate::lease::MintedCredential;
use crate::mint::FailureReason;
use crate::model::{ConnectionRef, Id, ResourceName, Timestamp, WorkflowPath};

/// How long to wait before the journal is tried again for an ending that is due.
const BEGIN_RETRY: Duration = Duration::from_millis(100);
/// How long a request waits for the endings that it has caused, at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// A credential that its upstream still accepts, although nobody may use it any more.
#[derive(Debug)]
pub struct PendingEnding {
    /// The full name of the connection.
    pub connection: String,
    /// Its name in the upstream's audit log, if it has one.
    pub handle: Option<String>,
    /// The step that it was made for.
    pub step: Arc<WorkflowPath>,
    /// When it expires by itself, if that is known.
    pub credential_expire_time: Option<Timestamp>,
    /// Why the last attempt has failed; `None` if no attempt has.
    pub reason: Option<FailureReason>,
}

/// An ending in a list.
#[derive(Debug)]
pub struct ListedEnding {
    /// The credential, and how its ending began.
    pub owed: Owed,
    /// What was tried since the daemon started.
    pub tries: Tries,
}

/// How many endings are not over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndingCounts {
    /// Those that the upstream has not answered for.
    pub pending: usize,
    /// When the oldest of them began.
    pub oldest: Option<Timestamp>,
    /// Credentials that are disabled, of which something stays.
    pub left_disabled: usize,
}

impl EndingCounts {
    /// Of all that is owed.
    pub(crate) fn of(live: &Live) -> Self {
        let begun = live.mints().owed().begun().filter_map(|owed| owed.begun.as_ref());
        begun.fold(Self::default(), |counts, begun| match begun.left_disabled {
            Some(_) => Self { left_disabled: counts.left_disabled + 1, ..counts },
            None => Self {
                pending: counts.pending + 1,
                oldest: Some(counts.oldest.map_or(begun.time, |oldest| oldest.min(begun.time))),
                ..counts
            },
        })
    }
}

impl Endings {
    /// Waits until these mints have landed, and their endings are over, or would be tried only later than `most` from now.
    async fn settled(&self, mints: &[Id], most: Duration) {
        let until = self.parts.clock.now().after(most);
        let all = async {
            let flying = self.parts.journal.with_live(|live| flying(live, mints));
            for flight in self.parts.mints.flights(&flying.unwrap_or_default()) {
                flight.landing().await;
            }
            // A credential that has landed may be due before the worker knows.
            while self.begin(mints).is_err() {
                tokio::time::sleep(BEGIN_RETRY).await;
            }
            // Another task may have written a line, and not told the schedule yet.
            let owed = |live: &Live| {
                begun(mints.iter().filter_map(|mint| live.mints().owed().find(*mint)))
            };
            self.take_begun(&self.parts.journal.with_live(owed).unwrap_or_default());
            let followed: Vec<_> = {
                let schedule = self.schedule.lock();
                mints.iter().filter_map(|mint| schedule.follow(*mint)).collect()
            };
            for mut stage in followed {
                let settled = stage.wait_for(|stage| match stage {
                    Stage::Over => true,
                    Stage::UnderWay => false,
                    Stage::Waiting(next) => *next > until,
                });
                // An ending that nobody reports of is over.
                let _ = settled.await;
            }
        };
        let _ = tokio::time::timeout(most, self.draining.run_until_cancelled(all)).await;
    }

    fn reason(&self, mint: Id) -> Option<FailureReason> {
        self.tries(mint).failure.map(|(reason, _)| reason)
    }
}

impl Broker {
    /// Waits for endings that a request has caused, at most 5 s and at most as long as the caller does. Returns those that
    /// are not over. They include endings that could not be begun, and those of mints that have not landed.
    pub async fn wait_for_endings(
        &self,
        mints: &[Id],
        caller: Option<Duration>,
    ) -> Vec<PendingEnding> {
        if mints.is_empty() {
            return Vec::new();
        }
        self.endings.settled(mints, caller.unwrap_or(PATIENCE).min(PATIENCE)).await;
        let snapshot = self.snapshot();
        let pending = |live: &Live, owed: &Owed| match &owed.begun {
            Some(begun) => begun.left_disabled.is_none(),
            None => owed.due(live, standing(&snapshot.catalog, &owed.minting)).is_some(),
        };
        let found = self.journal.with_live(|live| {
            let owed = mints.iter().filter_map(|mint| live.mints().owed().find(*mint));
            let owed = owed.filter(|owed| pending(live, owed)).cloned().collect::<Vec<_>>();
            (owed, flying(live, mints))
        });
        let (owed, mut flying) = found.unwrap_or_default();
        flying.retain(|begun| !self.mints.flights(std::slice::from_ref(begun)).is_empty());
        let flying = flying.into_iter().map(|minting| (minting, None));
        let all = owed.into_iter().map(|owed| (owed.minting, owed.credential)).chain(flying);
        all.map(|(minting, made)| self.pending(minting, made.as_deref())).collect()
    }

    fn pending(&self, minting: MintingLine, made: Option<&MintedCredential>) -> PendingEnding {
        PendingEnding {
            handle: made.and_then(|made| made.handle.clone()),
            credential_expire_time: made.and_then(MintedCredential::told_end),
            reason: self.endings.reason(minting.mint),
            connection: minting.resource,
            step: minting.principal,
        }
    }

    /// The mints of a deleted connection that are under way, or whose credentials are owed an ending.
    pub(crate) fn endings_of(&self, connection: Id) -> Vec<Id> {
        let found = self.journal.with_live(|live| {
            let owed = live.mints().owed().iter().map(|owed| &owed.minting);
            let all = owed.chain(live.mints().iter()).filter(|begun| begun.uid == connection);
            all.map(|begun| begun.mint).collect()
        });
        found.unwrap_or_default()
    }

    /// The credentials of a connection whose endings would begin if the catalogue were this and these leases had ended.
    ///
    /// # Errors
    /// If the journal hangs.
    pub(crate) fn endings_when(
        &self,
        catalog: &Catalog,
        connection: Id,
        ended: &BTreeSet<Id>,
    ) -> Result<Vec<PendingEnding>, Error> {
        let mints: Vec<Id> = self
            .journal
            .with_live(|live| live.mints().owed().of_connection(connection).collect())?;
        let mut endings = Vec::new();
        for mints in mints.chunks(CHUNK) {
            let found = self.journal.with_live(|live| {
                let owed = mints.iter().filter_map(|mint| live.mints().owed().find(*mint));
                owed.map(|owed| (owed.clone(), owed.users(live))).collect::<Vec<_>>()
            })?;
            let is_due = |(owed, users): &(Owed, Vec<Id>)| {
                let has_lost_all = !users.is_empty() && users.iter().all(|id| ended.contains(id));
                standing(catalog, &owed.minting) != Standing::Same || has_lost_all
            };
            let due = found.into_iter().filter(is_due);
            endings.extend(due.map(|(owed, _)| {
                let Owed { minting, credential, .. } = owed;
                self.pending(minting, credential.as_deref())
            }));
            std::thread::yield_now();
        }
        Ok(endings)
    }

    /// The endings that are not over, of one connection or all, in the order of their mints after `after`, at most `size`; and
    /// whether there are more.
    ///
    /// # Errors
    /// See `SystemService.ListEndings`.
    pub fn list_endings(
        &self,
        caller: &Principal,
        connection: Option<&ConnectionRef>,
        after: Option<Id>,
        size: usize,
    ) -> Result<(Vec<ListedEnding>, bool), Error> {
        require_operator(caller)?;
        let connection = connection.cloned().map(|name| ResourceName::Connection(name).to_text());
        let is_wanted = |owed: &&Owed| {
            after.is_none_or(|after| owed.mint() > after)
                && connection.as_ref().is_none_or(|name| owed.minting.resource == *name)
        };
        let (found, has_more) = self.journal.with_live(|live| {
            let mut rest = live.mints().owed().begun().filter(is_wanted);
            let found: Vec<Owed> = rest.by_ref().take(size).cloned().collect();
            (found, rest.next().is_some())
        })?;
        let listed = found.into_iter().map(|owed| {
            let tries = self.endings.tries(owed.mint());
            ListedEnding { owed, tries }
        });
        Ok((listed.collect(), has_more))
    }
}

/// Of these mints, those that are under way and whose credentials may be ended.
fn flying(live: &Live, mints: &[Id]) -> Vec<MintingLine> {
    let begun = mints.iter().filter_map(|mint| live.mints().find(*mint));
    begun.filter(|begun| begun.source.can_be_ended()).cloned().collect()
}

//! The endings that are not over, as callers see them.

use std::sync::Arc;
use std::time::Duration;

use super::desk::Endings;
use super::schedule::Stage;
pub use super::schedule::Tries;
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_operator;
use crate::journal::{Live, Owed};
use crate::mint::FailureReason;
use crate::model::{ConnectionRef, Id, ResourceName, Timestamp, WorkflowPath};

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
        let begun = live.mints().owed().iter().filter_map(|owed| owed.begun.as_ref());
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
    /// Waits until these endings are over, or would be tried only later than `most` from now.
    async fn settled(&self, mints: &[Id], most: Duration) {
        let until = self.parts.clock.now().after(most);
        let followed: Vec<_> = {
            let schedule = self.schedule.lock();
            mints.iter().filter_map(|mint| schedule.follow(*mint)).collect()
        };
        let all = async {
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
    /// are not over, in the order of the mints.
    pub async fn wait_for_endings(
        &self,
        mints: &[Id],
        caller: Option<Duration>,
    ) -> Vec<PendingEnding> {
        if mints.is_empty() {
            return Vec::new();
        }
        self.endings.settled(mints, caller.unwrap_or(PATIENCE).min(PATIENCE)).await;
        let pending = |owed: &Owed| {
            let begun = owed.begun.as_ref();
            begun.is_some_and(|begun| begun.left_disabled.is_none())
        };
        let found = self.journal.with_live(|live| {
            let owed = mints.iter().filter_map(|mint| live.mints().owed().find(*mint));
            owed.filter(|owed| pending(owed)).cloned().collect::<Vec<_>>()
        });
        found.unwrap_or_default().into_iter().map(|owed| self.pending(owed)).collect()
    }

    fn pending(&self, owed: Owed) -> PendingEnding {
        let made = owed.credential.as_ref();
        PendingEnding {
            handle: made.and_then(|made| made.handle.clone()),
            credential_expire_time: made.map(|made| made.credential_expire_time),
            reason: self.endings.reason(owed.mint()),
            connection: owed.minting.resource,
            step: owed.minting.principal,
        }
    }

    /// The mints of a connection whose endings have begun.
    pub(crate) fn endings_of(&self, connection: Id) -> Vec<Id> {
        let found = self.journal.with_live(|live| {
            let owed = live.mints().owed().iter();
            let begun = owed.filter(|one| one.minting.uid == connection && one.begun.is_some());
            begun.map(Owed::mint).collect()
        });
        found.unwrap_or_default()
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
            owed.begun.is_some()
                && after.is_none_or(|after| owed.mint() > after)
                && connection.as_ref().is_none_or(|name| owed.minting.resource == *name)
        };
        let (found, has_more) = self.journal.with_live(|live| {
            let mut rest: Vec<&Owed> = live.mints().owed().iter().filter(is_wanted).collect();
            rest.sort_unstable_by_key(|owed| owed.mint());
            let has_more = rest.len() > size;
            rest.truncate(size);
            (rest.into_iter().cloned().collect::<Vec<_>>(), has_more)
        })?;
        let listed = found.into_iter().map(|owed| {
            let tries = self.endings.tries(owed.mint());
            ListedEnding { owed, tries }
        });
        Ok((listed.collect(), has_more))
    }
}

//! Delivers a new snapshot to all Watches. Many are served at a time: one decision each, one write to the journal, and
//! one opening of each record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::minted::Answer;
use super::shared::SharedRecords;
use super::watch::{Look, Watcher};
use super::watcher_state::WatcherState;
use super::{Authorization, Room};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::journal::{CommitError, Epoch};
use crate::model::Timestamp;

/// How many Watches are served at a time. Other work gets a turn in between.
const AT_A_TIME: usize = 64;
/// The most bytes that are opened for a mailbox, whose stream may never read them.
const MAX_LETTER_BYTES: usize = 4 * 1024;

/// The room of a mailbox.
struct Mailbox;

impl Room for Mailbox {
    fn take(&mut self, bytes: usize) -> bool {
        bytes <= MAX_LETTER_BYTES
    }
}

/// A Watch that gets a new delivery.
struct Due<'a> {
    watcher: &'a Watcher,
    state: MutexGuard<'a, WatcherState>,
    decided: Authorization,
}

impl Broker {
    /// Delivers every new snapshot to all Watches; when the broker drains, it ends them. Never returns.
    pub async fn fan_out(self: Arc<Self>) {
        let mut heads = self.snapshots.subscribe();
        while heads.changed().await.is_ok() {
            for some in self.watchers.all().chunks(AT_A_TIME) {
                // A panic is a fault of ours, and must not leave the other Watches waiting forever.
                if catch_unwind(AssertUnwindSafe(|| self.deliver_to(some))).is_err() {
                    tracing::error!("a change could not be delivered to Watches");
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Commits the deliveries of these Watches at once, and puts each into its mailbox.
    fn deliver_to(&self, watchers: &[Arc<Watcher>]) {
        let now = self.now();
        let due: Vec<Due<'_>> =
            watchers.iter().filter_map(|watcher| self.find_due(watcher, now)).collect();
        let resolutions = due.iter().map(|Due { watcher, state, decided }| {
            self.resolution(
                &watcher.session.opening,
                &watcher.request,
                Some(state.before()),
                decided,
                now,
            )
        });
        let committed = self.journal.commit_all(now, resolutions.collect());
        let mut records = SharedRecords::default();
        let committed: Vec<_> = due
            .iter()
            .zip(committed)
            .map(|(due, committed)| committed.map(|one| records.add(&due.decided, one)))
            .collect();
        for (Due { watcher, mut state, decided }, committed) in due.into_iter().zip(committed) {
            let epoch = decided.epoch;
            let delivery = match committed {
                Ok(one) => {
                    let (opening, request) = (&watcher.session.opening, &watcher.request);
                    match self.conclude_shared(opening, request, decided, one, &mut records) {
                        Ok(Answer::Resolved(resolved)) => Ok(resolved),
                        // The stream asks the upstream itself.
                        Ok(Answer::Minting(_)) => {
                            state.fall_behind();
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                }
                // A newer snapshot was published, and is delivered next.
                Err(CommitError::Stale) => continue,
                // The stream decides again itself.
                Err(error) if self.is_outdated(error, &watcher.session.opening, &decided) => {
                    state.fall_behind();
                    continue;
                }
                Err(error) => Err(self.not_committed(error)),
            };
            if matches!(delivery, Err(Error::TooManyLeases(_))) {
                self.count_refusal(&watcher.session, &watcher.request, now);
            }
            state.put(epoch, delivery);
        }
    }

    /// The delivery that a Watch is due to get, if any. A refusal ends the Watch, and is put into its mailbox at once.
    fn find_due<'a>(&self, watcher: &'a Watcher, now: Timestamp) -> Option<Due<'a>> {
        let mut state = watcher.state.lock();
        if !state.has_room() {
            return None;
        }
        match watcher.look(self, &state, now) {
            Ok(Look::Same(decided)) if decided.is_to_be_replaced(now) => state.fall_behind(),
            Ok(Look::Same(_)) => {}
            // The stream makes room for large values itself, and waits for an upstream itself.
            Ok(Look::Due(decided)) if decided.is_awaited() || !Mailbox.take(decided.bytes()) => {
                state.fall_behind();
            }
            Ok(Look::Due(decided)) if decided.outcome.is_ok() => {
                if watcher.session.check_refusals(now, &self.limits).is_ok() {
                    return Some(Due { watcher, state, decided });
                }
                state.fall_behind();
            }
            Ok(Look::Due(decided)) => {
                let epoch = decided.epoch;
                match watcher.commit(self, &state, decided, now, &mut Mailbox) {
                    Err(Error::Overloaded) | Ok(Answer::Minting(_)) => state.fall_behind(),
                    Ok(Answer::Resolved(resolved)) => state.put(epoch, Ok(resolved)),
                    Err(error) => {
                        let error = watcher.response(self, &state, error);
                        state.put(epoch, Err(error));
                    }
                }
            }
            Err(error) => state.put(Epoch::default(), Err(error)),
        }
        None
    }
}

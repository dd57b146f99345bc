//! A new snapshot is told to all who watch, many at a time: one look at each, one write to the journal for
//! all that have something new, one opening for all that get the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::authorize::Found;
use super::watch::{Watcher, WatcherState};
use super::{Decided, Judged, Room, corrupt, hand_out};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::journal::{CommitError, Committed, Permit};
use crate::lease::{Bounds, Lease};
use crate::model::Timestamp;

/// How many are told at a time. Others get a turn in between.
const AT_A_TIME: usize = 64;
/// The most bytes that are opened for a stream which has not asked for them.
const MAX_LETTER_BYTES: usize = 4 * 1024;

/// A mailbox, whose stream may never come by.
struct Mailbox;

impl Room for Mailbox {
    fn take(&mut self, bytes: usize) -> bool {
        bytes <= MAX_LETTER_BYTES
    }
}

/// A watcher with something new.
struct Due<'a> {
    watcher: &'a Watcher,
    state: MutexGuard<'a, WatcherState>,
    judged: Judged,
}

/// A watcher that gets a credential.
struct Permitted<'a> {
    watcher: &'a Watcher,
    state: MutexGuard<'a, WatcherState>,
    epoch: u64,
    found: Found,
    bounds: Bounds,
    permit: Permit,
    lease: Lease,
}

impl Broker {
    /// Tells watchers of every snapshot, and that the broker drains. Never ends.
    pub async fn fan_out(self: Arc<Self>) {
        let mut heads = self.snapshots.subscribe();
        while heads.changed().await.is_ok() {
            for some in self.watchers.all().chunks(AT_A_TIME) {
                // A panic is our fault, and must not leave the others waiting for ever.
                if catch_unwind(AssertUnwindSafe(|| self.tell_some(some))).is_err() {
                    tracing::error!("watchers could not be told of a change");
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn tell_some(&self, watchers: &[Arc<Watcher>]) {
        let now = self.now();
        let due: Vec<Due<'_>> =
            watchers.iter().filter_map(|watcher| self.look_at(watcher, now)).collect();
        let mut permitted: Vec<Permitted<'_>> = Vec::with_capacity(due.len());
        for one in self.commit_due(due, now) {
            let alike = permitted.first().is_none_or(|first| {
                first.found.values.key == one.found.values.key
                    && first.found.version == one.found.version
            });
            if !alike {
                self.open_alike(std::mem::take(&mut permitted));
            }
            permitted.push(one);
        }
        self.open_alike(permitted);
    }

    /// Whether a watcher has something new that it may have. What ends a Watch is told at once.
    fn look_at<'a>(&self, watcher: &'a Watcher, now: Timestamp) -> Option<Due<'a>> {
        let mut state = watcher.state.lock();
        if !state.has_room() {
            return None;
        }
        match watcher.look(self, &state, now) {
            Ok(None) => return None,
            Ok(Some(judged)) if !Mailbox.take(judged.bytes()) => state.fall_behind(),
            Ok(Some(judged)) if judged.outcome.is_ok() => {
                if watcher.opening.check_refusals(now, &self.limits).is_ok() {
                    return Some(Due { watcher, state, judged });
                }
                state.fall_behind();
            }
            Ok(Some(judged)) => {
                let epoch = judged.epoch;
                match watcher.decide(self, &mut state, judged, now, &mut Mailbox) {
                    Err(Error::Overloaded) => state.fall_behind(),
                    refused => state.put(epoch, refused),
                }
            }
            Err(error) => state.put(0, Err(error)),
        }
        watcher.wake.notify_one();
        None
    }

    /// Commits all of these decisions at once, and says which of them get something.
    fn commit_due<'a>(&self, due: Vec<Due<'a>>, now: Timestamp) -> Vec<Permitted<'a>> {
        let mut resolutions = Vec::with_capacity(due.len());
        let mut waiting = Vec::with_capacity(due.len());
        for Due { watcher, state, judged } in due {
            let (epoch, before) = (judged.epoch, Some(state.before()));
            let Decided { resolution, outcome } =
                self.decided(&watcher.opening, &watcher.request, before, judged, now);
            resolutions.push(resolution);
            waiting.push((watcher, state, epoch, outcome));
        }
        let mut permitted = Vec::with_capacity(waiting.len());
        let committed = self.journal.commit_all(now, resolutions);
        for ((watcher, mut state, epoch, outcome), committed) in waiting.into_iter().zip(committed)
        {
            let error = match (outcome, committed) {
                (Ok((found, bounds)), Ok(Committed::Permitted(permit, lease))) => {
                    permitted.push(Permitted {
                        watcher,
                        state,
                        epoch,
                        found,
                        bounds,
                        permit,
                        lease,
                    });
                    continue;
                }
                // Another snapshot was published: it is told of that in a moment.
                (_, Err(CommitError::Stale)) => continue,
                (_, Err(error)) => {
                    if error == CommitError::TooManyLeases {
                        self.count_refusal(&watcher.opening, &watcher.request, now);
                    }
                    self.not_committed(error)
                }
                (_, Ok(_)) => Error::Internal("a decision came out as another".to_owned()),
            };
            state.put(epoch, Err(error));
            watcher.wake.notify_one();
        }
        permitted
    }

    /// Opens one record for all who have a permit for it.
    fn open_alike(&self, permitted: Vec<Permitted<'_>>) {
        let Some(first) = permitted.first() else { return };
        let sealed = first.found.values.sealed.clone();
        let (mut permits, mut waiting) = (Vec::new(), Vec::new());
        for Permitted { watcher, state, epoch, found, bounds, permit, lease } in permitted {
            permits.push(permit);
            waiting.push((watcher, state, epoch, found, bounds, lease));
        }
        let opened = Permit::open_once(permits, &sealed, &self.keyring);
        for (watcher, mut state, epoch, found, bounds, lease) in waiting {
            let told = match &opened {
                Ok(opened) => hand_out(found, opened, lease, &bounds),
                Err(error) => Err(corrupt(&found, *error)),
            };
            state.put(epoch, told);
            watcher.wake.notify_one();
        }
    }
}

//! Decisions of one thread that become lines together.
//!
//! ```text
//! task 1 ─ joins ─ its turn is over ────────────── back: commits 1, 2, 3 with one write(2) ─ goes on
//! task 2 ─────────── joins ─ its turn is over ──────────────────────────────────────────────── back: goes on
//! task 3 ───────────────────── joins ─ its turn is over ────────────────────────────────────────── back: goes on
//! ```
//!
//! A write(2) costs more than all else that the journal does for a line. Each task gives its turn up once, so that the
//! tasks that are ready behind it join. The first task that is back commits for all.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::{CommitError, Committed, Resolution};
use crate::journal::Journal;
use crate::model::Timestamp;

/// The decisions of one thread that wait for their lines.
#[derive(Default)]
pub struct CommitGroup(Mutex<Members>);

#[derive(Default)]
struct Members {
    last: u64,
    waiting: VecDeque<(u64, Resolution)>,
    done: VecDeque<(u64, Result<Committed, CommitError>)>,
    /// Tasks that were back while another thread wrote their lines: the group's own thread was stuck in a write.
    early: Vec<Waker>,
}

impl CommitGroup {
    /// Commits a decision, as [`Journal::commit`] does, together with others that are ready on this thread.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    pub async fn commit(
        &self,
        journal: &Journal,
        clock: impl Fn() -> Timestamp + Unpin,
        resolution: Resolution,
    ) -> Result<Committed, CommitError> {
        let number = {
            let mut members = self.0.lock();
            members.last += 1;
            let number = members.last;
            members.waiting.push_back((number, resolution));
            number
        };
        Membership { group: self, journal, clock, number, has_yielded: false }.await
    }
}

/// The decision of one task in the group. If the task ends before the line is written, there is no line.
struct Membership<'a, C> {
    group: &'a CommitGroup,
    journal: &'a Journal,
    clock: C,
    number: u64,
    has_yielded: bool,
}

impl<C: Fn() -> Timestamp + Unpin> Future for Membership<'_, C> {
    type Output = Result<Committed, CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.has_yielded {
            self.has_yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut members = self.group.0.lock();
        if let Some(done) = take(&mut members.done, self.number) {
            return Poll::Ready(done);
        }
        if !members.waiting.iter().any(|(number, _)| *number == self.number) {
            members.early.push(context.waker().clone());
            return Poll::Pending;
        }
        let (numbers, resolutions): (Vec<u64>, Vec<Resolution>) = members.waiting.drain(..).unzip();
        // A write may hang, and must not make others wait for the group.
        drop(members);
        let committed = self.journal.commit_all((self.clock)(), resolutions);
        let mut members = self.group.0.lock();
        members.done.extend(numbers.into_iter().zip(committed));
        members.early.drain(..).for_each(Waker::wake);
        let own = take(&mut members.done, self.number);
        own.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<C> Drop for Membership<'_, C> {
    fn drop(&mut self) {
        let mut members = self.group.0.lock();
        drop(take(&mut members.waiting, self.number));
        drop(take(&mut members.done, self.number));
    }
}

/// Takes the entry of this number. It is near the front: the tasks come back in order.
fn take<T>(entries: &mut VecDeque<(u64, T)>, number: u64) -> Option<T> {
    let place = entries.iter().position(|(entry, _)| *entry == number)?;
    entries.remove(place).map(|(_, entry)| entry)
}

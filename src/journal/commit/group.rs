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

use std::future::poll_fn;
use std::task::Poll;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{CommitError, Committed, Resolution};
use crate::journal::{Journal, Unavailable};
use crate::model::Timestamp;

/// The decisions of one thread that wait for their lines, each with the way to its task.
#[derive(Default)]
pub struct CommitGroup(Mutex<Vec<(oneshot::Sender<Outcome>, Resolution)>>);

type Outcome = Result<Committed, CommitError>;

impl CommitGroup {
    /// Commits a decision, as [`Journal::commit`] does, together with others that are ready on this thread. If the task
    /// ends before the line is written, there is no line.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    pub async fn commit(
        &self,
        journal: &Journal,
        clock: impl Fn() -> Timestamp,
        resolution: Resolution,
    ) -> Outcome {
        let (sender, mut committed) = oneshot::channel();
        self.0.lock().push((sender, resolution));
        give_turn_up().await;
        if let Ok(committed) = committed.try_recv() {
            return committed;
        }
        self.commit_waiting(journal, clock());
        // If this thread was stuck in a write and a spare thread runs this task, the write is still under way.
        committed.await.unwrap_or(Err(Unavailable.into()))
    }

    fn commit_waiting(&self, journal: &Journal, now: Timestamp) {
        // A write may hang, and must not make others wait for the group.
        let waiting = std::mem::take(&mut *self.0.lock());
        let stay = waiting.into_iter().filter(|(sender, _)| !sender.is_closed());
        let (senders, resolutions): (Vec<_>, Vec<_>) = stay.unzip();
        for (sender, committed) in senders.into_iter().zip(journal.commit_all(now, resolutions)) {
            // A task that has ended meanwhile takes no answer, as a client that has gone.
            let _ = sender.send(committed);
        }
    }
}

/// Lets the tasks run that are ready. tokio's own `yield_now` also asks the system for new events first, which costs a
/// system call.
async fn give_turn_up() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

//! The task that begins endings and tries them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::desk::{Endings, begun, key_of};
use crate::broker::minting::LandedMint;
use crate::journal::{Candidates, EndedLine, Event, Unavailable};
use crate::metrics::EndingOutcome;
use crate::model::{Id, LogLimit};
use crate::seal::RecordKind;

/// How often the worker looks for endings that have become due by themselves: because leases expire.
const TICK: Duration = Duration::from_secs(1);
/// Of so many passes, the first looks at everything: also at records that a failed write has left behind.
const WHOLE: u32 = 600;
/// The records that are removed by one batch. A batch costs syncs, and decisions wait while its line is written: 64 KiB.
const REMOVED_AT_ONCE: usize = 256;

/// Why the worker wakes.
enum Turn {
    /// These flights have landed.
    Landed(Vec<LandedMint>),
    /// The schedule has changed.
    Changed,
    /// It is time to look at what has changed meanwhile, or at everything.
    Tick(Candidates<'static>),
}

impl Endings {
    /// Starts the worker, which ends when this is stopped or dropped. `landed` tells the flights that have ended.
    pub(crate) fn start(
        self: &Arc<Self>,
        runtime: &Handle,
        landed: mpsc::UnboundedReceiver<LandedMint>,
    ) {
        let (wake, stop) = (Arc::clone(&self.wake), self.stop.clone());
        runtime.spawn(run(Arc::downgrade(self), wake, stop, landed));
    }

    async fn turn(self: &Arc<Self>, turn: Turn) {
        match turn {
            Turn::Landed(landed) => self.take_landed(&landed),
            Turn::Changed => {}
            Turn::Tick(candidates) => {
                // If the journal hangs there is nothing to do: the watchdog logs it.
                let _ = self.pass(candidates).await;
            }
        }
        self.start_attempts();
    }

    /// Begins the endings that are due among the flights that have landed. An ending may have begun before the book got its
    /// credential: the book forgets that.
    fn take_landed(&self, landed: &[LandedMint]) {
        // A later pass begins what cannot be begun now.
        let _ = self.begin(&landed.iter().map(|one| one.mint).collect::<Vec<_>>());
        let ended = self.parts.journal.with_live(|live| {
            let made = landed.iter().filter_map(|one| one.made.as_ref());
            made.filter(|(_, made)| !live.mints().owed().may_use(made)).collect::<Vec<_>>()
        });
        for (key, made) in ended.unwrap_or_default() {
            self.parts.mints.forget(key, made.mint);
        }
    }

    /// Begins what is due among these candidates, and ends what needs no upstream any more.
    async fn pass(self: &Arc<Self>, candidates: Candidates<'_>) -> Result<(), Unavailable> {
        let journal = &self.parts.journal;
        let (is_quarantined, count) =
            journal.with_live(|live| (live.is_quarantined(), live.mints().owed().begun_count()))?;
        if is_quarantined {
            return Ok(());
        }
        if count > self.schedule.lock().len() {
            self.take_begun(&journal.with_live(|live| begun(live.mints().owed().begun()))?);
        }
        self.begin_all(candidates).await?;
        self.leave_expired()?;
        self.forget_unneeded(candidates)
    }

    /// Leaves the credentials that have expired meanwhile.
    fn leave_expired(&self) -> Result<(), Unavailable> {
        let now = self.parts.clock.now();
        let expired = self.schedule.lock().expired(now);
        for mint in expired {
            let why = self.tries(mint).failure.map(|(_, text)| text).unwrap_or_default();
            self.leave_to_expire(mint, why)?;
            self.schedule.lock().end(mint);
        }
        Ok(())
    }

    /// Writes that a credential is left to expire.
    pub(super) fn leave_to_expire(&self, mint: Id, detail: String) -> Result<(), Unavailable> {
        let (journal, now) = (&self.parts.journal, self.parts.clock.now());
        let owed = journal.with_live(|live| live.mints().owed().find(mint).cloned())?;
        let Some(owed) = owed else { return Ok(()) };
        let end = owed.credential.as_ref().and_then(|made| made.told_end());
        let line = |line: Box<EndedLine>| {
            Event::LeftToExpire(Box::new(EndedLine {
                credential_expire_time: end,
                detail,
                ..*line
            }))
        };
        journal.end(now, mint, line)?;
        self.parts.mints.count_ending(owed.source(), EndingOutcome::LeftToExpire);
        Ok(())
    }

    /// Removes the records that nothing needs any more, by batches: of what is over, or all that there are.
    fn forget_unneeded(self: &Arc<Self>, candidates: Candidates<'_>) -> Result<(), Unavailable> {
        if self.is_forgetting.load(Ordering::Acquire) {
            return Ok(());
        }
        let over = self.parts.journal.take_over()?;
        let snapshot = self.parts.snapshots.load();
        let unneeded: Vec<Id> = match candidates {
            Candidates::All => {
                let kept = snapshot.catalog.all_kept().map(|kept| kept.values.key);
                let kept = kept.filter(|key| key.kind == RecordKind::Ending);
                self.parts.journal.unneeded(kept.map(|key| key.uid))?
            }
            Candidates::Changed | Candidates::Of(_) => {
                let is_kept = |mint: &Id| snapshot.catalog.kept(key_of(*mint)).is_some();
                over.into_iter().filter(is_kept).collect()
            }
        };
        if !unneeded.is_empty() && !self.is_forgetting.swap(true, Ordering::AcqRel) {
            tokio::spawn(forget(Arc::clone(self), unneeded));
        }
        Ok(())
    }
}

async fn run(
    endings: Weak<Endings>,
    wake: Arc<Notify>,
    stop: CancellationToken,
    mut landed: mpsc::UnboundedReceiver<LandedMint>,
) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut passes = (0..WHOLE).cycle();
    loop {
        let turn = tokio::select! {
            () = stop.cancelled() => return,
            Some(first) = landed.recv() => {
                let others = std::iter::from_fn(|| landed.try_recv().ok());
                Turn::Landed(std::iter::once(first).chain(others).collect())
            }
            () = wake.notified() => Turn::Changed,
            _ = ticks.tick() => Turn::Tick(match passes.next() {
                Some(0) => Candidates::All,
                _ => Candidates::Changed,
            }),
        };
        let Some(endings) = endings.upgrade() else { return };
        endings.turn(turn).await;
    }
}

/// Removes records. If the store fails, they stay, and a later pass tries again.
async fn forget(endings: Arc<Endings>, mints: Vec<Id>) {
    static LIMIT: LogLimit = LogLimit::new(1);
    for mints in mints.chunks(REMOVED_AT_ONCE) {
        let keys = mints.iter().map(|mint| key_of(*mint)).collect();
        let forgotten = endings.parts.keeper.forget("ending.forget", keys).await;
        if let Err(error) = forgotten {
            if let Some(suppressed) = LIMIT.allow() {
                tracing::warn!(%error, suppressed, "records that are of no use stay");
            }
            break;
        }
    }
    endings.is_forgetting.store(false, Ordering::Release);
}

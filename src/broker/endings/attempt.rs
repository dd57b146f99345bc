//! One ending: a permit, the record of what ends the credential, the upstream, a line.

use std::sync::Arc;

use super::desk::{EndingParts, Endings, key_of};
use crate::catalog::Values;
use crate::integration::Source;
use crate::journal::{EndedLine, Event, Owed};
use crate::metrics::EndingOutcome;
use crate::mint::{self, End, Failure, FailureReason};
use crate::model::{Fields, Id, ResourceName};

/// How an attempt goes out.
enum Outcome {
    /// The credential is disabled, and something of it stays.
    Disabled(String),
    /// The upstream has not ended it.
    Failed(Failure),
    /// The upstream was not asked, or the line of its answer is missing.
    GivenUp,
    /// It is over.
    Over,
}

/// An attempt that is under way. It lands when this is dropped, even if its task panics.
struct Attempt {
    endings: Arc<Endings>,
    mint: Id,
    outcome: Outcome,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let now = self.endings.parts.clock.now();
        let mut schedule = self.endings.schedule.lock();
        match std::mem::replace(&mut self.outcome, Outcome::GivenUp) {
            Outcome::Disabled(why) => schedule.disable(self.mint, why, now),
            Outcome::Failed(failure) => schedule.fail(self.mint, &failure, now),
            Outcome::GivenUp => schedule.give_up(self.mint, now),
            Outcome::Over => schedule.end(self.mint),
        }
        drop(schedule);
        self.endings.under_way.send_modify(|count| *count -= 1);
        self.endings.wake.notify_one();
    }
}

impl Attempt {
    async fn run(mut self) {
        let asked = self.endings.attempt(self.mint).await;
        self.outcome = asked.unwrap_or(Outcome::GivenUp);
    }
}

impl Endings {
    /// Starts endings as long as there are places.
    pub(super) fn start_attempts(self: &Arc<Self>) {
        while !self.draining.is_cancelled() {
            let now = self.parts.clock.now();
            let Some(mint) = self.schedule.lock().next(now) else { return };
            self.under_way.send_modify(|count| *count += 1);
            let attempt = Attempt { endings: Arc::clone(self), mint, outcome: Outcome::GivenUp };
            tokio::spawn(attempt.run());
        }
    }

    /// Ends a credential that is not owed an ending, without a line and without another try. `None` if the broker stops.
    pub(crate) async fn end_once(
        &self,
        source: Source,
        ending: &Fields,
    ) -> Option<Result<End, Failure>> {
        self.stop.run_until_cancelled(self.parts.mints.end(source, ending)).await
    }

    /// Asks the upstream once. `None` if it was not asked, or the line of its answer could not be written.
    async fn attempt(&self, mint: Id) -> Option<Outcome> {
        let journal = &self.parts.journal;
        let Some((owed, permit)) = journal.permit_ending(mint).ok()? else {
            return Some(Outcome::Over);
        };
        let kept = self.parts.snapshots.load().catalog.kept(key_of(mint)).cloned();
        let opened = match kept {
            None => Err("the record of what ends it is missing".to_owned()),
            Some(kept) => {
                let opened = permit.open(&kept.values.sealed, &self.parts.keyring);
                opened.map_err(|error| format!("the record of what ends it: {error}"))
            }
        };
        match opened {
            Ok(ending) => self.ask(&owed, &ending).await,
            Err(why) => {
                tracing::error!(mint.id = %mint, resource.name = %owed.minting.resource, why, "a credential cannot be ended: it expires by itself");
                self.leave_to_expire(mint, why).ok()?;
                Some(Outcome::Over)
            }
        }
    }

    async fn ask(&self, owed: &Owed, ending: &Fields) -> Option<Outcome> {
        let (mint, source) = (owed.mint(), owed.source());
        let mut answer = self.end_once(source, ending).await?;
        if matches!(&answer, Err(failure) if failure.reason == FailureReason::Refused)
            && let Some(newest) = self.with_newest_login(owed, ending)
        {
            answer = self.end_once(source, &newest).await?;
        }
        let count = |outcome| self.parts.mints.count_ending(source, outcome);
        match answer {
            Ok(End::Ended) => {
                self.write(mint, Event::EndedUpstream)?;
                count(EndingOutcome::Ended);
                Some(Outcome::Over)
            }
            Ok(End::Disabled(why)) => {
                let before = owed.begun.as_ref().and_then(|begun| begun.left_disabled.as_ref());
                if before != Some(&why) {
                    let detail = why.clone();
                    self.write(mint, |line| {
                        Event::LeftDisabled(Box::new(EndedLine { detail, ..*line }))
                    })?;
                    count(EndingOutcome::LeftDisabled);
                }
                Some(Outcome::Disabled(why))
            }
            Err(failure) => {
                count(EndingOutcome::Failed(failure.reason.as_str()));
                Some(Outcome::Failed(failure))
            }
        }
    }

    /// The same ending with the newest login of the connection, if the connection is usable and was changed since: a login
    /// that was replaced upstream first ends nothing any more.
    fn with_newest_login(&self, owed: &Owed, ending: &Fields) -> Option<Fields> {
        let EndingParts { snapshots, journal, keyring, .. } = &self.parts;
        let ResourceName::Connection(name) = owed.minting.resource.parse().ok()? else {
            return None;
        };
        let snapshot = snapshots.load();
        let found = snapshot.catalog.connection(&name).filter(|found| !found.metadata.disabled)?;
        let Values { key, sealed } = &found.values;
        let permit = journal.permit_ending_by_newest(owed.mint(), (*key, sealed.version()));
        let newest = permit.ok()??.open(sealed, keyring).ok()?;
        mint::ending_by_newest(owed.source(), ending, &newest)
    }

    fn write(&self, mint: Id, event: impl FnOnce(Box<EndedLine>) -> Event) -> Option<()> {
        self.parts.journal.end(self.parts.clock.now(), mint, event).ok().map(drop)
    }
}

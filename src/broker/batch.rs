//! A step gets several credentials: as many decisions, and one write to the journal for all of them.

use std::sync::Arc;

use super::Broker;
use super::error::Error;
use super::resolve::{Decided, Judged, ResolveRequest, Resolved};
use crate::journal::{CommitError, LiveOpening};
use crate::model::Timestamp;

impl Broker {
    /// Resolves the next of these for the step behind this opening, in order, as [`Broker::resolve`] does: all of them,
    /// or as many as may fill `room` bytes, and one at least.
    ///
    /// # Errors
    /// For each, as [`Broker::resolve`], or the error that stands in its place.
    pub fn resolve_some(
        &self,
        opening: &Arc<LiveOpening>,
        asked: &mut impl Iterator<Item = Result<ResolveRequest, Error>>,
        room: usize,
    ) -> Vec<Result<Resolved, Error>> {
        let now = self.now();
        let (mut judged, mut bytes) = (Vec::new(), 0);
        while bytes < room.max(1)
            && let Some(request) = asked.next()
        {
            let one = request.and_then(|request| {
                let judged = self.judge_one(opening, &request, now)?;
                Ok((request, judged))
            });
            if let Ok((_, Judged { outcome: Ok(found), .. })) = &one {
                // No less than what is in it.
                bytes += found.values.sealed.as_bytes().len();
            }
            judged.push(one);
        }
        self.commit_judged(opening, judged, now)
    }

    /// What the newest snapshot says of a request, if it may be answered at all. A refusal counts at once: the next
    /// request of the same call may be one too many.
    fn judge_one(
        &self,
        opening: &LiveOpening,
        request: &ResolveRequest,
        now: Timestamp,
    ) -> Result<Judged, Error> {
        let judged = self.judge_if_due(opening, request, now)?;
        if judged.outcome.is_err() {
            opening.count_refusal(now, &self.limits);
        }
        Ok(judged)
    }

    fn commit_judged(
        &self,
        opening: &Arc<LiveOpening>,
        judged: Vec<Result<(ResolveRequest, Judged), Error>>,
        now: Timestamp,
    ) -> Vec<Result<Resolved, Error>> {
        let mut resolutions = Vec::with_capacity(judged.len());
        let mut decide = |(request, judged): (ResolveRequest, Judged)| {
            let Decided { resolution, outcome } =
                self.decided(opening, &request, None, judged, now);
            resolutions.push(resolution);
            (request, outcome)
        };
        let waiting: Vec<_> = judged.into_iter().map(|one| one.map(&mut decide)).collect();
        let mut committed = self.journal.commit_all(now, resolutions).into_iter();
        let mut conclude = |(request, outcome)| match committed.next() {
            Some(Ok(committed)) => self.conclude(outcome, committed),
            // Another snapshot was published meanwhile: as if it had been asked for by itself. A refusal has counted.
            Some(Err(CommitError::Stale)) if outcome.is_err() => {
                let judged = self.judge_now(opening, &request)?;
                self.resolve_until_current(opening, &request, None, judged, now)
            }
            Some(Err(CommitError::Stale)) => self.resolve(opening, &request),
            Some(Err(error)) => {
                if error == CommitError::TooManyLeases {
                    opening.count_refusal(now, &self.limits);
                }
                Err(self.not_committed(error))
            }
            None => Err(Error::Internal("a decision was lost".to_owned())),
        };
        waiting.into_iter().map(|one| one.and_then(&mut conclude)).collect()
    }
}

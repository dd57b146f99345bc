//! BatchResolve: one decision for each request, and one write to the journal for all of them.

use super::minted::Answer;
use super::shared::SharedRecords;
use super::{Authorization, ResolveRequest, Room};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::steps::session::StepSession;
use crate::model::Timestamp;

/// A request with the decision on it, or the error in its place.
type Decided = Result<(ResolveRequest, Authorization), Error>;

/// Requests with decisions that are not committed yet.
pub struct AuthorizedBatch {
    decided: Vec<Decided>,
    bytes: usize,
}

impl AuthorizedBatch {
    /// The most bytes of values that the batch hands out.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Broker {
    /// Decides on the next requests of a step, in order. It stops when the values may fill `most` bytes, and decides on
    /// one request at least. No decision is committed yet.
    pub fn authorize_batch(
        &self,
        session: &StepSession,
        asked: &mut impl Iterator<Item = Result<ResolveRequest, Error>>,
        most: usize,
    ) -> AuthorizedBatch {
        let now = self.now();
        let (mut decided, mut bytes) = (Vec::new(), 0);
        while bytes < most.max(1)
            && let Some(request) = asked.next()
        {
            let one = request.and_then(|request| {
                let one = self.authorize_and_count(session, &request, now)?;
                bytes += one.most_bytes();
                Ok((request, one))
            });
            decided.push(one);
        }
        AuthorizedBatch { decided, bytes }
    }

    /// Commits and resolves a batch, in order, as [`Broker::resolve`] does. A request without room is not decided on.
    ///
    /// # Errors
    /// For each request, as [`Broker::resolve`], or the error in its place.
    pub fn resolve_batch(
        &self,
        session: &StepSession,
        batch: AuthorizedBatch,
        room: &mut dyn Room,
    ) -> Vec<Result<Answer, Error>> {
        let with_room = |one: Decided| {
            let (request, decided) = one?;
            match room.take(decided.bytes()) {
                true => Ok((request, decided)),
                false => Err(Error::Overloaded),
            }
        };
        let decided = batch.decided.into_iter().map(with_room).collect();
        self.commit_batch(session, decided, self.now(), room)
    }

    /// Decides on a request within its limits. A refusal counts at once, because the next request of the same call may
    /// be one too many.
    fn authorize_and_count(
        &self,
        session: &StepSession,
        request: &ResolveRequest,
        now: Timestamp,
    ) -> Result<Authorization, Error> {
        let decided = self.authorize_within_limits(session, request, now)?;
        if decided.outcome.is_err() {
            self.count_refusal(session, request, now);
        }
        Ok(decided)
    }

    fn commit_batch(
        &self,
        session: &StepSession,
        decided: Vec<Decided>,
        now: Timestamp,
        room: &mut dyn Room,
    ) -> Vec<Result<Answer, Error>> {
        let opening = &session.opening;
        let all = || decided.iter().flatten();
        let resolution = |(request, decided): &(ResolveRequest, Authorization)| {
            self.resolution(opening, request, None, decided, now)
        };
        let committed = self.journal.commit_all(now, all().map(resolution).collect());
        let mut records = SharedRecords::default();
        let committed: Vec<_> = all()
            .zip(committed)
            .map(|((_, decided), committed)| committed.map(|one| records.add(decided, one)))
            .collect();
        let mut committed = committed.into_iter();
        let mut conclude = |(request, decided): (ResolveRequest, Authorization)| {
            let is_refused = decided.outcome.is_err();
            match committed.next() {
                Some(Ok(committed)) => {
                    let answer =
                        self.conclude_shared(opening, &request, decided, committed, &mut records);
                    if matches!(answer, Err(Error::TooManyLeases(_))) {
                        self.count_refusal(session, &request, now);
                    }
                    answer
                }
                // Something has changed: decide as if the request had come alone, in the room that it has. A
                // refusal is counted already.
                Some(Err(error)) if self.is_outdated(error, opening, &decided) => {
                    let taken = decided.bytes();
                    let decided = self.authorize_now(opening, &request)?;
                    let room: (&mut dyn Room, usize) = (&mut *room, taken);
                    let answer =
                        self.resolve_until_current(opening, &request, None, decided, now, room);
                    match is_refused {
                        true => answer,
                        false => self.count_if_refused(session, &request, now, answer),
                    }
                }
                Some(Err(error)) => Err(self.not_committed(error)),
                None => Err(Error::Internal("a decision was lost".to_owned())),
            }
        };
        decided.into_iter().map(|one| one.and_then(&mut conclude)).collect()
    }
}

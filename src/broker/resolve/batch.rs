//! A step gets several credentials: as many decisions, and one write to the journal for all of them.

use std::sync::Arc;

use super::authorize::{Found, Refusal};
use super::{Decided, Judged, ResolveRequest, Resolved, Room, corrupt, hand_out};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::catalog::Values;
use crate::journal::{CommitError, Committed, DecisionId, LiveOpening, Permit, PermitError};
use crate::lease::{Bounds, Lease};
use crate::model::Timestamp;
use crate::seal::OpenedFields;

/// What the journal has said to a decision of a batch.
enum Answer {
    Opened(Arc<Result<OpenedFields, PermitError>>, Lease),
    Refused(DecisionId),
    Failed(CommitError),
    /// It is to be opened with others.
    Unopened,
}

/// A decision on its way.
type Waiting = Result<(ResolveRequest, Outcome), Error>;
type Outcome = Result<(Found, Bounds), Refusal>;

/// What one snapshot says of some requests.
pub struct JudgedBatch {
    judged: Vec<Result<(ResolveRequest, Judged), Error>>,
    bytes: usize,
}

impl JudgedBatch {
    /// The most bytes of values that come of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The credential of a decision to hand it out.
fn told(
    outcome: Outcome,
    opened: &Result<OpenedFields, PermitError>,
    lease: Lease,
) -> Result<Resolved, Error> {
    match (outcome, opened) {
        (Ok((found, bounds)), Ok(opened)) => hand_out(found, opened, lease, &bounds),
        (Ok((found, _)), Err(error)) => Err(corrupt(&found, *error)),
        (Err(_), _) => Err(Error::Internal("a decision came out as another".to_owned())),
    }
}

/// Of one record all that may be opened, and where they stand in the batch.
struct Alike<'a> {
    values: &'a Values,
    version: u64,
    permits: Vec<Permit>,
    places: Vec<(usize, Lease)>,
}

/// Puts a permit to those for the same version of the same record.
fn gather<'a>(alike: &mut Vec<Alike<'a>>, found: &'a Found, permit: Permit, place: (usize, Lease)) {
    let (values, version) = (&found.values, found.version);
    match alike.iter_mut().find(|one| (one.values.key, one.version) == (values.key, version)) {
        Some(one) => {
            one.permits.push(permit);
            one.places.push(place);
        }
        None => alike.push(Alike { values, version, permits: vec![permit], places: vec![place] }),
    }
}

impl Broker {
    /// Opens each record once, however often it was asked for.
    fn open_once_each(
        &self,
        waiting: &[Waiting],
        committed: Vec<Result<Committed, CommitError>>,
    ) -> Vec<Answer> {
        let mut alike: Vec<Alike<'_>> = Vec::new();
        let decided = waiting.iter().filter_map(|one| one.as_ref().ok());
        let looked = decided.zip(committed).enumerate();
        let mut answers: Vec<Answer> = looked
            .map(|(place, ((_, outcome), committed))| match (committed, outcome) {
                (Ok(Committed::Permitted(permit, lease)), Ok((found, _))) => {
                    gather(&mut alike, found, permit, (place, lease));
                    Answer::Unopened
                }
                (Ok(Committed::Permitted(..)), Err(_)) => Answer::Unopened,
                (Ok(Committed::Refused(id)), _) => Answer::Refused(id),
                (Err(error), _) => Answer::Failed(error),
            })
            .collect();
        for Alike { values, permits, places, .. } in alike {
            let opened = Arc::new(Permit::open_once(permits, &values.sealed, &self.keyring));
            for (place, lease) in places {
                if let Some(answer) = answers.get_mut(place) {
                    *answer = Answer::Opened(Arc::clone(&opened), lease);
                }
            }
        }
        answers
    }

    /// Judges the next of these for the step behind this opening, in order: all of them, or as many as may fill `most`
    /// bytes, and one at least. Nothing is decided yet.
    pub fn judge_some(
        &self,
        opening: &LiveOpening,
        asked: &mut impl Iterator<Item = Result<ResolveRequest, Error>>,
        most: usize,
    ) -> JudgedBatch {
        let now = self.now();
        let (mut judged, mut bytes) = (Vec::new(), 0);
        while bytes < most.max(1)
            && let Some(request) = asked.next()
        {
            let one = request.and_then(|request| {
                let judged = self.judge_one(opening, &request, now)?;
                bytes += judged.bytes();
                Ok((request, judged))
            });
            judged.push(one);
        }
        JudgedBatch { judged, bytes }
    }

    /// Resolves these for the step behind this opening, in order, as [`Broker::resolve`] does. What has no room is not
    /// decided on.
    ///
    /// # Errors
    /// For each, as [`Broker::resolve`], or the error that stands in its place.
    pub fn resolve_judged(
        &self,
        opening: &Arc<LiveOpening>,
        batch: JudgedBatch,
        room: &mut dyn Room,
    ) -> Vec<Result<Resolved, Error>> {
        let with_room = |one: Result<(ResolveRequest, Judged), Error>| {
            let (request, judged) = one?;
            match room.take(judged.bytes()) {
                true => Ok((request, judged)),
                false => Err(Error::Overloaded),
            }
        };
        let judged = batch.judged.into_iter().map(with_room).collect();
        self.commit_judged(opening, judged, self.now(), room)
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
            self.count_refusal(opening, request, now);
        }
        Ok(judged)
    }

    fn commit_judged(
        &self,
        opening: &Arc<LiveOpening>,
        judged: Vec<Result<(ResolveRequest, Judged), Error>>,
        now: Timestamp,
        room: &mut dyn Room,
    ) -> Vec<Result<Resolved, Error>> {
        let mut resolutions = Vec::with_capacity(judged.len());
        let mut decide = |(request, judged): (ResolveRequest, Judged)| {
            let Decided { resolution, outcome } =
                self.decided(opening, &request, None, judged, now);
            resolutions.push(resolution);
            (request, outcome)
        };
        let waiting: Vec<Waiting> = judged.into_iter().map(|one| one.map(&mut decide)).collect();
        let committed = self.journal.commit_all(now, resolutions);
        let mut committed = self.open_once_each(&waiting, committed).into_iter();
        let mut conclude = |(request, outcome)| match committed.next() {
            Some(Answer::Opened(opened, lease)) => told(outcome, &opened, lease),
            Some(Answer::Refused(id)) => self.conclude(outcome, Committed::Refused(id)),
            // Another snapshot was published meanwhile: as if it had been asked for by itself. A refusal has counted.
            Some(Answer::Failed(CommitError::Stale)) if outcome.is_err() => {
                let judged = self.judge_now(opening, &request)?;
                self.resolve_until_current(opening, &request, None, judged, now, &mut *room)
            }
            Some(Answer::Failed(CommitError::Stale)) => self.resolve(opening, &request, &mut *room),
            Some(Answer::Failed(error)) => {
                if error == CommitError::TooManyLeases {
                    self.count_refusal(opening, &request, now);
                }
                Err(self.not_committed(error))
            }
            Some(Answer::Unopened) | None => Err(Error::Internal("a decision was lost".to_owned())),
        };
        waiting.into_iter().map(|one| one.and_then(&mut conclude)).collect()
    }
}

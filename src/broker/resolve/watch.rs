//! Watch: a step gets the current version of a credential at once, and then every new version.
//!
//! ```text
//! snapshot published ─ fan_out: decide for all Watches, commit what is new ─ mailbox ─ waker
//! stream             ─ reads its mailbox; decides itself at first, and as time goes by
//! ```
//!
//! The writer only publishes a snapshot, and waits for no Watch. A stream that reads slowly has one delivery waiting.
//! If that delivery is out of date when the stream comes back, it is dropped for a new decision. Large values are not
//! opened for a mailbox: the stream decides itself when it has room. The stream also waits for an upstream itself, and
//! asks for the next credential before the last one ends.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::authorize::Refusal;
use super::minted::Answer;
use super::upstream::{Awaited, Awaits};
use super::watcher_state::{Delivery, LONGEST_SLEEP, PATIENCE, WatcherState};
use super::{Authorization, ResolveRequest, Room, check_form, lines_of};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::steps::session::StepSession;
use crate::journal::NotAccepted;
use crate::model::limits::MAX_WATCHES;
use crate::model::{Id, Reference, Timestamp};

/// One Watch of a step: the end that its stream reads from.
pub struct Watch {
    broker: Arc<Broker>,
    place: Place,
    watcher: Arc<Watcher>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    alarm: Pin<Box<Sleep>>,
    /// The waker that `ended` and `alarm` will call.
    armed: Option<Waker>,
    /// Whether to check even if the mailbox is empty: at first, and when the alarm rings.
    must_look: bool,
    /// What it awaits of an upstream.
    awaited: Awaited,
    _permit: OwnedSemaphorePermit,
}

/// All open Watches. Those of one step follow each other, so that deliveries which are made together leave together, on
/// few connections.
#[derive(Default)]
pub(crate) struct Watchers {
    all: Mutex<BTreeMap<Place, Arc<Watcher>>>,
    last: AtomicU64,
}

/// The opening of a Watch, and a number of its own.
type Place = (Id, u64);

/// The request of a Watch, and its progress.
pub(crate) struct Watcher {
    pub(crate) session: Arc<StepSession>,
    pub(crate) request: ResolveRequest,
    /// When the certificate of its connection expires.
    certificate_end: Timestamp,
    pub(crate) state: Mutex<WatcherState>,
}

/// What a look at the newest snapshot finds.
pub(super) enum Look {
    /// A decision that is due to be delivered.
    Due(Authorization),
    /// Nothing new.
    Same(Authorization),
}

impl Watchers {
    fn insert(&self, watcher: Arc<Watcher>) -> Place {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let place = (watcher.session.opening.record().id, number);
        self.all.lock().insert(place, watcher);
        place
    }

    /// How many Watches are open.
    pub(crate) fn count(&self) -> usize {
        self.all.lock().len()
    }

    /// The Watches that are open now, step by step. Later ones begin with the newest snapshot themselves.
    pub(crate) fn all(&self) -> Vec<Arc<Watcher>> {
        self.all.lock().values().cloned().collect()
    }
}

impl Broker {
    /// Begins a Watch of a step.
    ///
    /// # Errors
    /// If the request is malformed, or the step has too many Watches.
    pub fn watch(
        self: &Arc<Self>,
        session: &Arc<StepSession>,
        certificate_end: Timestamp,
        request: ResolveRequest,
    ) -> Result<Watch, Error> {
        check_form(&request)?;
        let permit = session.begin_watch().ok_or(Error::TooManyWatches(MAX_WATCHES))?;
        let watcher = Arc::new(Watcher {
            session: Arc::clone(session),
            request,
            certificate_end,
            state: Mutex::default(),
        });
        Ok(Watch {
            broker: Arc::clone(self),
            place: self.watchers.insert(Arc::clone(&watcher)),
            watcher,
            ended: Box::pin(session.opening.ended()),
            alarm: Box::pin(tokio::time::sleep(LONGEST_SLEEP)),
            armed: None,
            must_look: true,
            awaited: Awaited::default(),
            _permit: permit,
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.broker.watchers.all.lock().remove(&self.place);
    }
}

impl Watch {
    /// The next delivery: the first at once, later ones when there is something new and room for it.
    ///
    /// # Errors
    /// Why the Watch ends. An error is the last item.
    pub async fn next(&mut self, room: &mut dyn Room) -> Result<Delivery, Error> {
        poll_fn(|context| self.poll_next(context, room)).await
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        room: &mut dyn Room,
    ) -> Poll<Result<Delivery, Error>> {
        loop {
            let now = self.broker.now();
            let must_look = std::mem::take(&mut self.must_look);
            let waker = context.waker();
            let awaited = &mut self.awaited;
            match self.watcher.next(&self.broker, now, must_look, awaited, room, waker) {
                Ok(item) => return Poll::Ready(item),
                Err(AsleepFor(longest)) => self.set_alarm(longest),
            }
            if self.awaited.poll(context).is_pending() {
                ready!(self.poll_signals(context));
            }
            self.must_look = true;
        }
    }

    /// Sets the alarm. An early alarm does no harm, so it is moved only where it would ring too late.
    fn set_alarm(&mut self, longest: Duration) {
        let wanted = Instant::now() + longest;
        if self.alarm.is_elapsed() || wanted < self.alarm.deadline() {
            self.alarm.as_mut().reset(wanted);
            self.armed = None;
        }
    }

    /// Waits for the end of the step and for the alarm. Both are polled only if they may be over, or may not have the
    /// task's waker yet: a stream is polled several times for each delivery.
    fn poll_signals(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let is_armed = self.armed.as_ref().is_some_and(|armed| armed.will_wake(context.waker()));
        if is_armed && !self.alarm.is_elapsed() && !self.watcher.session.opening.is_closed() {
            return Poll::Pending;
        }
        self.armed = Some(context.waker().clone());
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        self.alarm.as_mut().poll(context)
    }
}

/// There is nothing to send now. The stream checks again after this time, if nothing wakes it before.
struct AsleepFor(Duration);

impl Watcher {
    /// The item that the stream sends now. If there is none, the next delivery calls `waker`.
    fn next(
        &self,
        broker: &Broker,
        now: Timestamp,
        must_look: bool,
        awaited: &mut Awaited,
        room: &mut dyn Room,
        waker: &Waker,
    ) -> Result<Result<Delivery, Error>, AsleepFor> {
        let mut state = self.state.lock();
        self.item(broker, &mut state, now, must_look, awaited, room).ok_or_else(|| {
            state.sleeper.get_or_insert_with(|| waker.clone()).clone_from(waker);
            let end = self.certificate_end.min(self.session.opening.record().expire_time);
            AsleepFor(state.sleep(awaited.what(), end, now))
        })
    }

    /// The item that the stream sends now, if any.
    fn item(
        &self,
        broker: &Broker,
        state: &mut WatcherState,
        now: Timestamp,
        must_look: bool,
        awaited: &mut Awaited,
        room: &mut dyn Room,
    ) -> Option<Result<Delivery, Error>> {
        if let Some(letter) = state.mailbox.take() {
            // A delivery that was decided before the last change is not sent, nor one for a closed step or an expired
            // lease.
            let is_current =
                broker.snapshot().epoch == letter.epoch && !self.session.opening.is_closed();
            match letter.outcome {
                Ok(resolved) if is_current && now < resolved.lease.expire_time => {
                    *awaited = Awaited::default();
                    return Some(Ok(state.seen(resolved)));
                }
                Ok(_) => state.is_behind = true,
                Err(error) => return Some(Err(error)),
            }
        }
        if let Some((claim, landed)) = awaited.landed() {
            let watch = Some(state.before());
            let checked = self.check(broker, now);
            let answer = checked.and_then(|()| broker.settle(claim, landed, watch, room));
            let (session, request) = (&self.session, &self.request);
            let answer = broker.count_if_refused(session, request, now, answer);
            let may_wait = state.last.is_some();
            return self.answered(broker, state, awaited, now, (answer, may_wait));
        }
        if !std::mem::take(&mut state.is_behind) && !must_look {
            return None;
        }
        match self.look(broker, state, now) {
            Ok(Look::Due(decided)) if awaited.is_for(&self.session.opening, &decided) => None,
            Ok(Look::Due(decided)) => {
                *awaited = Awaited::default();
                let may_wait = state.last.is_some() && decided.outcome.is_ok();
                let paid = self.pay(broker, state, &decided, now);
                let answer = paid.and_then(|()| self.commit(broker, state, decided, now, room));
                self.answered(broker, state, awaited, now, (answer, may_wait))
            }
            Ok(Look::Same(decided)) => {
                self.prepare_next(broker, state, awaited, now, decided);
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// The item of an answer, if any. Without room or rate the stream tries again later, and while an upstream fails the
    /// step keeps what it has. The first delivery is refused as a Resolve would be.
    fn answered(
        &self,
        broker: &Broker,
        state: &mut WatcherState,
        awaited: &mut Awaited,
        now: Timestamp,
        (answer, may_wait): (Result<Answer, Error>, bool),
    ) -> Option<Result<Delivery, Error>> {
        match answer {
            Ok(Answer::Resolved(resolved)) => {
                state.decided(&resolved);
                Some(Ok(state.seen(resolved)))
            }
            Ok(Answer::Minting(waiting)) => {
                awaited.wait(waiting);
                None
            }
            Err(Error::Overloaded | Error::TooManyRequests(_)) if may_wait => {
                state.is_behind = true;
                None
            }
            Err(Error::Upstream { wait, .. }) if state.has_credential(now) => {
                state.retry = Some(now.after(wait));
                None
            }
            Err(error) => Some(Err(self.response(broker, state, error))),
        }
    }

    /// Asks the upstream for the next credential when it is time.
    fn prepare_next(
        &self,
        broker: &Broker,
        state: &mut WatcherState,
        awaited: &mut Awaited,
        now: Timestamp,
        decided: Authorization,
    ) {
        let (grant, Some(last)) = (decided.outcome, &state.last) else { return };
        let grant = match grant {
            Ok(grant) if awaited.what() == Awaits::Nothing => grant,
            Err(Refusal::Upstream { wait, .. }) => {
                state.retry = Some(now.after(wait));
                return;
            }
            _ => return,
        };
        if awaited.was_given_up() {
            state.retry = Some(now.after(PATIENCE));
        }
        if state.retry.is_some_and(|retry| now < retry) {
            return;
        }
        let given = (last.decision, last.lease);
        match broker.replace_early(&self.session.opening, &self.request, &grant, given) {
            Some(Ok(ticket)) => {
                state.retry = None;
                awaited.wait_for_next(ticket);
            }
            Some(Err(until)) => state.retry = Some(until),
            None => state.retry = None,
        }
    }

    /// Pays for a delivery that the step causes, as a Resolve does: the first delivery, and those that come as time
    /// goes by. The others are caused by a published change.
    fn pay(
        &self,
        broker: &Broker,
        state: &WatcherState,
        decided: &Authorization,
        now: Timestamp,
    ) -> Result<(), Error> {
        match &decided.outcome {
            Ok(grant) if state.seen.is_none_or(|seen| seen.is_same_version(&grant.edition())) => {
                let lines = lines_of(self.session.opening.record(), &self.request.fields);
                let taken = self.session.take_decision(now, broker.limits(), lines);
                taken.map_err(Error::TooManyRequests)
            }
            _ => Ok(()),
        }
    }

    /// Checks that the stream may go on.
    fn check(&self, broker: &Broker, now: Timestamp) -> Result<(), Error> {
        broker.check_serving()?;
        if now >= self.certificate_end {
            return Err(Error::NotAccepted(NotAccepted::CertificateExpired));
        }
        if self.session.opening.is_closed() || now >= self.session.opening.record().expire_time {
            return Err(Error::NotAccepted(NotAccepted::NotOpen));
        }
        Ok(())
    }

    /// Whether something is due to be delivered. Nothing is committed or journaled here.
    pub(super) fn look(
        &self,
        broker: &Broker,
        state: &WatcherState,
        now: Timestamp,
    ) -> Result<Look, Error> {
        self.check(broker, now)?;
        let decided = broker.authorize_now(&self.session.opening, &self.request)?;
        // What is refused now says so.
        if decided.outcome.is_ok() {
            self.session.opening.check_watch(state.before())?;
        }
        let is_as_it_was = match (&state.last, &decided.outcome) {
            (Some(last), Ok(grant)) => state.seen == Some(grant.edition()) && now < last.due,
            // What the step has is not taken away by an upstream that fails.
            (Some(_), Err(Refusal::Upstream { .. })) => state.has_credential(now),
            _ => false,
        };
        Ok(if is_as_it_was { Look::Same(decided) } else { Look::Due(decided) })
    }

    /// Commits a decision as a delivery.
    pub(super) fn commit(
        &self,
        broker: &Broker,
        state: &WatcherState,
        decided: Authorization,
        now: Timestamp,
        room: &mut dyn Room,
    ) -> Result<Answer, Error> {
        broker.deliver(&self.session, &self.request, state.before(), decided, now, room)
    }

    /// The error for the stream. A step that has watched a connection may learn that it was removed.
    pub(super) fn response(&self, broker: &Broker, state: &WatcherState, error: Error) -> Error {
        let (Error::Denied { .. }, Some(last)) = (&error, &state.last) else { return error };
        let is_gone = match &self.request.target {
            Reference::Connection(name) => broker.snapshot().catalog.connection(name).is_none(),
            _ => false,
        };
        if is_gone { Error::NotFound(last.name.clone()) } else { error }
    }
}

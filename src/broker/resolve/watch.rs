//! Watch: a step gets the current version of a credential at once, and then every new version.
//!
//! ```text
//! snapshot published ─ fan_out: decide for all Watches, commit what is new ─ mailbox ─ waker
//! stream             ─ reads its mailbox; decides itself at first, and as time goes by
//! ```
//!
//! The writer only publishes a snapshot, and waits for no Watch. A stream that reads slowly has one delivery waiting.
//! If that delivery is out of date when the stream comes back, it is dropped for a new decision. Large values are not
//! opened for a mailbox: the stream decides itself when it has room.

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

use super::{Authorization, ResolveRequest, Resolved, Room, check_form, lines_of};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::steps::session::StepSession;
use crate::journal::NotAccepted;
use crate::model::limits::MAX_WATCHES;
use crate::model::{Id, Reference, ResourceName, Timestamp};

/// The longest that a Watch sleeps without checking the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How long a Watch that is behind and lacks room or rate waits until it tries again.
const PATIENCE: Duration = Duration::from_secs(1);

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
    _permit: OwnedSemaphorePermit,
}

/// One delivery of a Watch.
pub struct Delivery {
    /// The credential.
    pub resolved: Resolved,
    /// How many versions since the delivery before were not delivered.
    pub skipped: u64,
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

#[derive(Default)]
pub(crate) struct WatcherState {
    /// The last delivery that was committed, read or not.
    last: Option<LastDelivery>,
    /// The record and version that the stream has read last.
    seen: Option<(Id, u64)>,
    /// A committed delivery, or the end, that the stream has not read yet.
    mailbox: Option<Letter>,
    /// Whether something changed while the mailbox was full.
    is_behind: bool,
    /// The waker of the stream, if it has found nothing to send.
    sleeper: Option<Waker>,
}

struct Letter {
    /// The snapshot that it was decided on.
    epoch: u64,
    outcome: Result<Resolved, Error>,
}

struct LastDelivery {
    name: ResourceName,
    lease: Id,
    /// When the next delivery is due.
    due: Timestamp,
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
            match self.watcher.next(&self.broker, now, must_look, room, waker) {
                Ok(item) => return Poll::Ready(item),
                Err(AsleepFor(longest)) => self.set_alarm(longest),
            }
            ready!(self.poll_signals(context));
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
        room: &mut dyn Room,
        waker: &Waker,
    ) -> Result<Result<Delivery, Error>, AsleepFor> {
        let mut state = self.state.lock();
        self.item(broker, &mut state, now, must_look, room).ok_or_else(|| {
            state.sleeper.get_or_insert_with(|| waker.clone()).clone_from(waker);
            AsleepFor(self.sleep(&state, now))
        })
    }

    /// How long the stream may sleep: until the next moment at which a delivery is due, or its end.
    fn sleep(&self, state: &WatcherState, now: Timestamp) -> Duration {
        let longest = if state.is_behind { PATIENCE } else { LONGEST_SLEEP };
        let end = self.certificate_end.min(self.session.opening.record().expire_time);
        let next = state.last.as_ref().map_or(end, |last| end.min(last.due));
        next.since(now).clamp(Duration::from_millis(1), longest)
    }

    /// The item that the stream sends now, if any.
    fn item(
        &self,
        broker: &Broker,
        state: &mut WatcherState,
        now: Timestamp,
        must_look: bool,
        room: &mut dyn Room,
    ) -> Option<Result<Delivery, Error>> {
        if let Some(letter) = state.mailbox.take() {
            // A delivery that was decided before the last change is not sent, nor one for a closed step or an expired
            // lease.
            let is_current =
                broker.snapshot().head == letter.epoch && !self.session.opening.is_closed();
            match letter.outcome {
                Ok(resolved) if is_current && now < resolved.lease.expire_time => {
                    return Some(Ok(state.seen(resolved)));
                }
                Ok(_) => state.is_behind = true,
                Err(error) => return Some(Err(error)),
            }
        }
        if !std::mem::take(&mut state.is_behind) && !must_look {
            return None;
        }
        match self.check(broker, state, now) {
            Ok(None) => None,
            Ok(Some(decided)) => {
                // The first delivery is refused as a Resolve would be.
                let may_wait = state.last.is_some() && decided.outcome.is_ok();
                let paid = self.pay(broker, state, &decided, now);
                match paid.and_then(|()| self.commit(broker, state, decided, now, room)) {
                    Err(Error::Overloaded | Error::TooManyRequests(_)) if may_wait => {
                        state.is_behind = true;
                        None
                    }
                    answer => Some(answer.map(|resolved| state.seen(resolved))),
                }
            }
            Err(error) => Some(Err(error)),
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
            Ok(grant) if state.seen.is_none_or(|seen| seen == grant.edition()) => {
                let lines = lines_of(self.session.opening.record(), &self.request.fields);
                let taken = self.session.take_decision(now, broker.limits(), lines);
                taken.map_err(Error::TooManyRequests)
            }
            _ => Ok(()),
        }
    }

    /// The decision that is due to be delivered, if any. Nothing is committed or journaled here.
    pub(super) fn check(
        &self,
        broker: &Broker,
        state: &WatcherState,
        now: Timestamp,
    ) -> Result<Option<Authorization>, Error> {
        broker.check_serving()?;
        if now >= self.certificate_end {
            return Err(Error::NotAccepted(NotAccepted::CertificateExpired));
        }
        if self.session.opening.is_closed() || now >= self.session.opening.record().expire_time {
            return Err(Error::NotAccepted(NotAccepted::NotOpen));
        }
        let decided = broker.authorize_now(&self.session.opening, &self.request)?;
        let is_as_it_was = match (&state.last, &decided.outcome) {
            (Some(last), Ok(grant)) => state.seen == Some(grant.edition()) && now < last.due,
            _ => false,
        };
        Ok(if is_as_it_was { None } else { Some(decided) })
    }

    /// Commits a decision as a delivery.
    pub(super) fn commit(
        &self,
        broker: &Broker,
        state: &mut WatcherState,
        decided: Authorization,
        now: Timestamp,
        room: &mut dyn Room,
    ) -> Result<Resolved, Error> {
        broker
            .deliver(&self.session, &self.request, state.before(), decided, now, room)
            .inspect(|resolved| state.decided(resolved))
            .map_err(|error| self.response(broker, state, error))
    }

    /// The error for the stream. A step that has watched a connection may learn that it was removed.
    fn response(&self, broker: &Broker, state: &WatcherState, error: Error) -> Error {
        let (Error::Denied { .. }, Some(last)) = (&error, &state.last) else { return error };
        let is_gone = match &self.request.target {
            Reference::Connection(name) => broker.snapshot().catalog.connection(name).is_none(),
            _ => false,
        };
        if is_gone { Error::NotFound(last.name.clone()) } else { error }
    }
}

impl WatcherState {
    /// The lease of the last delivery, which the next delivery ends.
    pub(crate) fn before(&self) -> Option<Id> {
        self.last.as_ref().map(|last| last.lease)
    }

    /// Whether the mailbox is empty. If not, the stream checks for itself later.
    pub(crate) fn has_room(&mut self) -> bool {
        self.is_behind |= self.mailbox.is_some();
        self.mailbox.is_none()
    }

    /// Leaves it to the stream to check for itself.
    pub(super) fn fall_behind(&mut self) {
        self.is_behind = true;
        self.wake();
    }

    /// Puts what was decided on the snapshot `epoch` into the mailbox.
    pub(crate) fn put(&mut self, epoch: u64, outcome: Result<Resolved, Error>) {
        if let Ok(resolved) = &outcome {
            self.decided(resolved);
        }
        self.mailbox = Some(Letter { epoch, outcome });
        self.wake();
    }

    /// Wakes the stream if it sleeps. If it does not, it looks at the mailbox before it does.
    fn wake(&mut self) {
        if let Some(sleeper) = self.sleeper.take() {
            sleeper.wake();
        }
    }

    fn decided(&mut self, resolved: &Resolved) {
        let lease = &resolved.lease;
        let due = lease.issue_time.two_thirds_to(lease.expire_time);
        self.last = Some(LastDelivery { name: resolved.name.clone(), lease: lease.id, due });
    }

    fn seen(&mut self, resolved: Resolved) -> Delivery {
        let (record, version) = (resolved.lease.resource, resolved.version);
        let skipped = match self.seen.replace((record, version)) {
            Some((before, last)) if before == record => version.saturating_sub(last + 1),
            _ => 0,
        };
        Delivery { resolved, skipped }
    }
}

//! Which ending asks its upstream next: pure, with the time as an argument.
//!
//! ```text
//! insert ─ waiting ─ next ─ under way ─┬─ end
//!             ├───────── fail ─────────┤
//!             └──────── disable ───────┘
//! ```
//!
//! A credential that its upstream refuses to end waits longer and longer, alone. Endings that were asked for before have half of
//! their connection's places at most, because a step can make the end of its own credential slow. An upstream that is away holds
//! up all endings of its connection together: one of them asks again, and the others follow when the upstream answers.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;

use crate::mint::{Failure, FailureReason};
use crate::model::{Id, IdMap, Timestamp};

/// The endings of one connection at a time.
const OF_ONE: usize = 4;
/// Those among them that were asked for before.
const AGAIN_OF_ONE: usize = 2;
/// All endings at a time.
const AT_ONCE: usize = 32;
/// The wait after the first failure; each further failure doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait that doubling leads to.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// The longest wait that an upstream may ask for, and the wait until the clean-up of a disabled credential is tried again.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The endings that have begun and are not over.
#[derive(Default)]
pub(super) struct Schedule {
    endings: IdMap<Scheduled>,
    /// By the uid of the connection.
    upstreams: IdMap<Upstream>,
    /// The upstreams that have a place for an ending that waits.
    turns: BTreeSet<Turn>,
    /// Those that are given up some time, by that time.
    by_last: BTreeSet<(Timestamp, Id)>,
    under_way: usize,
}

/// How many endings an upstream has under way, when it may be asked for the next, and its connection.
type Turn = (usize, Timestamp, Id);

/// When an ending is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastTry {
    /// Until when it is tried.
    pub(super) time: Timestamp,
    /// True if the credential has certainly ended then. Else the upstream is asked at least once.
    pub(super) is_end_told: bool,
}

/// An ending that is to be inserted.
pub(super) struct NewEnding {
    /// The mint.
    pub(super) mint: Id,
    /// The uid of the connection.
    pub(super) connection: Id,
    /// When it is given up; `None` if never.
    pub(super) last: Option<LastTry>,
    /// True if the credential is disabled already.
    pub(super) is_disabled: bool,
}

/// How far an ending is, for those who wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The credential has ended, or is left.
    Over,
    /// The upstream is being asked.
    UnderWay,
    /// The upstream is asked again at this time or later.
    Waiting(Timestamp),
}

/// What has been tried since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// How often the upstream was asked.
    pub attempts: u32,
    /// The reason and the text of the last failure.
    pub failure: Option<(FailureReason, String)>,
    /// When the upstream is asked again, at the earliest; `None` while it is asked.
    pub next: Option<Timestamp>,
}

struct Scheduled {
    connection: Id,
    last: Option<LastTry>,
    tries: Tries,
    /// The failures of this ending alone, since the last success.
    failures: u32,
    /// True if the upstream was asked, and has not ended it.
    was_asked: bool,
    /// In the order of places; `None` while it is under way.
    place: Option<Timestamp>,
    stage: watch::Sender<Stage>,
}

#[derive(Default)]
struct Upstream {
    new: Lane,
    /// Those that were asked for before.
    again: Lane,
    /// The failures that concern all endings, since the last answer.
    failures: u32,
    /// The first moment at which it is asked again.
    until: Option<Timestamp>,
    /// Its turn among all.
    turn: Option<Turn>,
}

#[derive(Default)]
struct Lane {
    waiting: BTreeSet<(Timestamp, Id)>,
    under_way: usize,
}

impl Upstream {
    /// The ending that may ask next, and since when it may, if there is a place.
    fn next(&self) -> Option<(Timestamp, Id)> {
        let places = if self.until.is_some() { 1 } else { OF_ONE };
        if self.under_way() >= places {
            return None;
        }
        let may_ask_again = self.again.under_way < AGAIN_OF_ONE;
        let again = self.again.waiting.first().filter(|_| may_ask_again);
        self.new.waiting.first().into_iter().chain(again).min().copied()
    }

    fn turn(&self, connection: Id) -> Option<Turn> {
        let (since, _) = self.next()?;
        let since = self.until.map_or(since, |until| until.max(since));
        Some((self.under_way(), since, connection))
    }

    fn under_way(&self) -> usize {
        self.new.under_way + self.again.under_way
    }

    fn lane(&mut self, was_asked: bool) -> &mut Lane {
        if was_asked { &mut self.again } else { &mut self.new }
    }

    fn is_empty(&self) -> bool {
        self.under_way() == 0 && self.new.waiting.is_empty() && self.again.waiting.is_empty()
    }
}

impl Schedule {
    /// How many endings there are.
    pub(super) fn len(&self) -> usize {
        self.endings.len()
    }

    /// Takes in an ending, unless it is there.
    pub(super) fn insert(&mut self, new: &NewEnding, now: Timestamp) {
        let NewEnding { mint, connection, last, is_disabled } = *new;
        if self.endings.contains_key(&mint) {
            return;
        }
        let upstream = self.upstreams.entry(connection).or_default();
        upstream.lane(is_disabled).waiting.insert((now, mint));
        self.by_last.extend(last.map(|last| (last.time, mint)));
        let next = upstream.until.map_or(now, |until| until.max(now));
        let stage = if is_disabled { Stage::Over } else { Stage::Waiting(next) };
        let tries = Tries { next: Some(next), ..Tries::default() };
        let (place, stage) = (Some(now), watch::Sender::new(stage));
        let was_asked = is_disabled;
        let new = Scheduled { connection, last, tries, failures: 0, was_asked, place, stage };
        self.endings.insert(mint, new);
        self.take_turn(connection);
    }

    /// Gives an upstream the turn that it has now.
    fn take_turn(&mut self, connection: Id) {
        let Some(upstream) = self.upstreams.get_mut(&connection) else { return };
        let turn = upstream.turn(connection);
        if let Some(before) = std::mem::replace(&mut upstream.turn, turn) {
            self.turns.remove(&before);
        }
        self.turns.extend(turn);
        if upstream.is_empty() {
            self.upstreams.remove(&connection);
        }
    }

    /// The next ending to start: of the connection with the fewest under way, then of the one that has waited longest.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<Id> {
        if self.under_way >= AT_ONCE {
            return None;
        }
        let earliest = (Timestamp::from_millis(i64::MIN), Id::from_bytes([0; Id::BYTES]));
        let first_with = |count| {
            let first = self.turns.range((count, earliest.0, earliest.1)..).next().copied();
            first.filter(|(under_way, since, _)| *under_way == count && *since <= now)
        };
        let (_, _, connection) = (0..OF_ONE).find_map(first_with)?;
        let upstream = self.upstreams.get_mut(&connection)?;
        let (since, mint) = upstream.next()?;
        let ending = self.endings.get_mut(&mint)?;
        let lane = upstream.lane(ending.was_asked);
        lane.waiting.remove(&(since, mint));
        lane.under_way += 1;
        self.under_way += 1;
        ending.place = None;
        ending.tries.attempts = ending.tries.attempts.saturating_add(1);
        ending.tries.next = None;
        if *ending.stage.borrow() != Stage::Over {
            ending.stage.send_replace(Stage::UnderWay);
        }
        self.take_turn(connection);
        Some(mint)
    }

    /// Takes in that an ending is over.
    pub(super) fn end(&mut self, mint: Id) {
        let Some(ending) = self.endings.remove(&mint) else { return };
        ending.stage.send_replace(Stage::Over);
        if let Some(last) = ending.last {
            self.by_last.remove(&(last.time, mint));
        }
        let Some(upstream) = self.upstreams.get_mut(&ending.connection) else { return };
        let lane = upstream.lane(ending.was_asked);
        match ending.place {
            Some(place) => drop(lane.waiting.remove(&(place, mint))),
            None => {
                lane.under_way -= 1;
                self.under_way -= 1;
                (upstream.failures, upstream.until) = (0, None);
            }
        }
        self.take_turn(ending.connection);
    }

    /// Takes in that a credential is disabled, and that something of it could not be removed. `why` is for operators.
    pub(super) fn disable(&mut self, mint: Id, why: String, now: Timestamp) {
        let Some((ending, upstream)) = self.landed(mint) else { return };
        (upstream.failures, upstream.until) = (0, None);
        (ending.failures, ending.was_asked) = (0, true);
        ending.tries.failure = Some((FailureReason::Refused, why));
        ending.stage.send_replace(Stage::Over);
        self.wait_until(mint, now.after(HOUR));
    }

    /// Takes in that an upstream has not ended a credential.
    pub(super) fn fail(&mut self, mint: Id, failure: &Failure, now: Timestamp) {
        let Some((ending, upstream)) = self.landed(mint) else { return };
        let asked = failure.retry_after.unwrap_or_default().min(HOUR);
        ending.tries.failure = Some((failure.reason, failure.detail.clone()));
        ending.was_asked = true;
        let next = if failure.concerns_all {
            // Those that asked side by side have failed once together.
            if upstream.until.is_none_or(|until| until <= now) {
                upstream.failures = upstream.failures.saturating_add(1);
            }
            let until = now.after(wait_after(upstream.failures).max(asked));
            *upstream.until.insert(upstream.until.map_or(until, |before| before.max(until)))
        } else {
            // It has answered.
            (upstream.failures, upstream.until) = (0, None);
            ending.failures = ending.failures.saturating_add(1);
            now.after(wait_after(ending.failures).max(asked))
        };
        self.wait_until(mint, next);
    }

    /// Takes in that an ending could not ask its upstream, for a reason of ours.
    pub(super) fn give_up(&mut self, mint: Id, now: Timestamp) {
        if self.landed(mint).is_some() {
            self.wait_until(mint, now.after(FIRST_WAIT));
        }
    }

    /// Ends the flight of an ending.
    fn landed(&mut self, mint: Id) -> Option<(&mut Scheduled, &mut Upstream)> {
        let ending = self.endings.get_mut(&mint).filter(|ending| ending.place.is_none())?;
        let upstream = self.upstreams.get_mut(&ending.connection)?;
        upstream.lane(ending.was_asked).under_way -= 1;
        self.under_way -= 1;
        Some((ending, upstream))
    }

    /// Puts an ending that has landed back in its place.
    fn wait_until(&mut self, mint: Id, next: Timestamp) {
        let Some(ending) = self.endings.get_mut(&mint) else { return };
        let Some(upstream) = self.upstreams.get_mut(&ending.connection) else { return };
        upstream.lane(ending.was_asked).waiting.insert((next, mint));
        (ending.place, ending.tries.next) = (Some(next), Some(next));
        if *ending.stage.borrow() != Stage::Over {
            ending.stage.send_replace(Stage::Waiting(next));
        }
        let connection = ending.connection;
        self.take_turn(connection);
    }

    /// The endings that are given up, because their credentials have expired or were tried for long enough.
    pub(super) fn expired(&self, now: Timestamp) -> Vec<Id> {
        let due = self.by_last.iter().take_while(|(last, _)| *last <= now);
        due.map(|(_, mint)| *mint).filter(|mint| self.may_give_up(*mint)).collect()
    }

    fn may_give_up(&self, mint: Id) -> bool {
        let Some(ending) = self.endings.get(&mint) else { return false };
        // One has asked for all of them.
        let is_away =
            || self.upstreams.get(&ending.connection).is_some_and(|one| one.until.is_some());
        let is_end_told = ending.last.is_some_and(|last| last.is_end_told);
        ending.place.is_some() && (is_end_told || ending.was_asked || is_away())
    }

    /// Follows an ending; `None` if it is over.
    pub(super) fn follow(&self, mint: Id) -> Option<watch::Receiver<Stage>> {
        self.endings.get(&mint).map(|ending| ending.stage.subscribe())
    }

    /// What has been tried for an ending; `None` if it is over.
    pub(super) fn tries(&self, mint: Id) -> Option<Tries> {
        let ending = self.endings.get(&mint)?;
        let until = self.upstreams.get(&ending.connection).and_then(|upstream| upstream.until);
        let mut tries = ending.tries.clone();
        tries.next = tries.next.map(|next| until.map_or(next, |until| until.max(next)));
        Some(tries)
    }
}

/// The wait after so many failures.
fn wait_after(failures: u32) -> Duration {
    let doubled = FIRST_WAIT * 1_u32.wrapping_shl(failures.saturating_sub(1).min(9));
    doubled.min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests;

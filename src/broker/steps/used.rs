//! What the broker did for a step with credentials that the step did not get.

use std::collections::HashMap;

use crate::journal::{Leased, ResolveLine, SentLine, SignLine, SshLogin, Used};
use crate::lease::LeaseTarget;
use crate::model::{Action, Id, SendAction, Timestamp};

/// The most bytes of a use in a reply, beside its texts.
const USED_BYTES: usize = 160;

/// One use of a connection, as often as it was made.
pub struct UsedConnection {
    /// The target that the step asked for.
    pub target: String,
    /// The full name of the connection.
    pub resource: String,
    /// The version.
    pub version: u64,
    /// The login that was signed; `None` if the step asked for the public key alone.
    pub login: Option<SshLogin>,
    /// The request that was sent; `None` if it was no request.
    pub request: Option<UsedRequest>,
    /// When it was first made.
    pub first: Timestamp,
    /// When it was last made.
    pub last: Timestamp,
    /// How often.
    pub times: usize,
}

/// A request that the broker has sent, as often as it was sent.
pub struct UsedRequest {
    /// Method, host and path.
    pub action: SendAction,
    /// The status of the last answer; `None` if there was none.
    pub status: Option<u16>,
    /// Why the last exchange is not complete; `None` if it is.
    pub fault: Option<String>,
    /// The bytes of all bodies that were sent.
    pub sent_bytes: u64,
    /// The bytes of all bodies of answers.
    pub received_bytes: u64,
}

/// The fault of an exchange whose end is not in the journal.
const NOT_ENDED: &str = "NOT_ENDED";

/// A use: what was done for an opening with a version of a connection.
#[derive(PartialEq, Eq, Hash)]
struct UseKey {
    opening: Id,
    uid: Id,
    version: u64,
    action: UseAction,
}

#[derive(PartialEq, Eq, Hash)]
enum UseAction {
    /// A login was signed; `None` if only the public key was told.
    Sign(Option<Box<SshLogin>>),
    /// A request was sent.
    Send(SendAction),
}

impl UseAction {
    /// The bytes of its texts.
    fn bytes(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        match self {
            Self::Sign(None) => 0,
            Self::Sign(Some(login)) => login.user.len() + login.key.len() + length(&login.host_key),
            Self::Send(action) => action.method.len() + action.path.len() + length(&action.host),
        }
    }

    /// The login or the request of a new use.
    fn parts(&self) -> (Option<SshLogin>, Option<UsedRequest>) {
        match self {
            Self::Sign(login) => (login.as_deref().cloned(), None),
            Self::Send(action) => {
                let (action, fault) = (action.clone(), Some(NOT_ENDED.to_owned()));
                let (status, sent_bytes, received_bytes) = (None, 0, 0);
                (None, Some(UsedRequest { action, status, fault, sent_bytes, received_bytes }))
            }
        }
    }
}

/// The places of uses in their steps.
#[derive(Default)]
pub(super) struct Uses {
    places: HashMap<UseKey, usize>,
    /// The places of requests by their leases.
    leases: HashMap<Id, usize>,
}

impl Uses {
    /// Adds a line to the uses of its step. Returns how many bytes longer the reply is at most.
    pub(super) fn take(
        &mut self,
        time: Timestamp,
        line: SignLine,
        of_step: &mut Vec<UsedConnection>,
    ) -> usize {
        let SignLine { opening, target, login, outcome, .. } = line;
        let Some(Used { uid, resource, version, .. }) = outcome.into_allowed() else { return 0 };
        let key = UseKey { opening, uid, version, action: UseAction::Sign(login) };
        self.count(time, key, (&target, resource), of_step).1
    }

    /// Adds the decision on a request to the uses of its step, as [`Self::take`] does.
    pub(super) fn take_request(
        &mut self,
        time: Timestamp,
        line: ResolveLine,
        of_step: &mut Vec<UsedConnection>,
    ) -> usize {
        let ResolveLine { opening, ask, outcome, .. } = line;
        let Some(leased) = outcome.into_allowed() else { return 0 };
        let Leased { uid, resource, version, lease, .. } = leased;
        let Some(Action::Send(action)) = ask.action.clone() else { return 0 };
        let key = UseKey { opening, uid, version, action: UseAction::Send(action) };
        let (place, bytes) = self.count(time, key, (&ask.target, resource), of_step);
        self.leases.insert(lease, place);
        bytes
    }

    /// Counts a use. Returns its place, and how many bytes longer the reply is at most.
    fn count(
        &mut self,
        time: Timestamp,
        key: UseKey,
        (target, resource): (&LeaseTarget, Option<String>),
        of_step: &mut Vec<UsedConnection>,
    ) -> (usize, usize) {
        if let Some(place) = self.places.get(&key).copied()
            && let Some(used) = of_step.get_mut(place)
        {
            used.last = time;
            used.times += 1;
            return (place, 0);
        }
        let target = target.to_text();
        let resource = resource.unwrap_or_else(|| target.clone());
        let bytes = USED_BYTES + target.len() + resource.len() + key.action.bytes();
        let (place, version, (login, request)) = (of_step.len(), key.version, key.action.parts());
        self.places.insert(key, place);
        let (first, last, times) = (time, time, 1);
        of_step.push(UsedConnection {
            target,
            resource,
            version,
            login,
            request,
            first,
            last,
            times,
        });
        (place, bytes)
    }

    /// Takes in how a request has ended.
    pub(super) fn end_request(&mut self, line: SentLine, of_step: &mut [UsedConnection]) {
        let place = self.leases.remove(&line.lease);
        let used = place.and_then(|at| of_step.get_mut(at));
        let Some(request) = used.and_then(|used| used.request.as_mut()) else { return };
        (request.status, request.fault) = (line.status, line.fault);
        request.sent_bytes = request.sent_bytes.saturating_add(line.sent_bytes);
        request.received_bytes = request.received_bytes.saturating_add(line.received_bytes);
    }
}

//! What the broker did for a step with credentials that the step did not get.

use std::collections::HashMap;

use crate::journal::{Outcome, ResolveLine, SentLine, SignLine, SshLogin, UseOutcome};
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

/// Opening, resource, version and login.
type UseKey = (Id, Id, u64, Option<Box<SshLogin>>);

/// The places of uses in their steps.
#[derive(Default)]
pub(super) struct Uses {
    logins: HashMap<UseKey, usize>,
    requests: HashMap<(Id, Id, u64, SendAction), usize>,
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
        let UseOutcome::Allow { uid, resource, version, .. } = outcome else { return 0 };
        let key = (opening, uid, version, login);
        if let Some(used) = self.logins.get(&key).and_then(|at| of_step.get_mut(*at)) {
            used.last = time;
            used.times += 1;
            return 0;
        }
        let target = target.to_text();
        let login = key.3.as_deref().cloned();
        let resource = resource.unwrap_or_else(|| target.clone());
        let texts = login.iter().map(|login| {
            login.user.len() + login.key.len() + login.host_key.as_ref().map_or(0, String::len)
        });
        let bytes = USED_BYTES + target.len() + resource.len() + texts.sum::<usize>();
        self.logins.insert(key, of_step.len());
        let (first, last, times, request) = (time, time, 1, None);
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
        bytes
    }

    /// Adds the decision on a request to the uses of its step, as [`Self::take`] does.
    pub(super) fn take_request(
        &mut self,
        time: Timestamp,
        line: ResolveLine,
        of_step: &mut Vec<UsedConnection>,
    ) -> usize {
        let ResolveLine { opening, ask, outcome, .. } = line;
        let Outcome::Allow { uid, resource, version, lease, .. } = outcome else { return 0 };
        let Some(Action::Send(action)) = ask.action.clone() else { return 0 };
        let key = (opening, uid, version, action);
        if let Some(at) = self.requests.get(&key).copied()
            && let Some(used) = of_step.get_mut(at)
        {
            used.last = time;
            used.times += 1;
            self.leases.insert(lease, at);
            return 0;
        }
        let target = ask.target.to_text();
        let resource = resource.unwrap_or_else(|| target.clone());
        let action = key.3.clone();
        let host = action.host.as_ref().map_or(0, String::len);
        let texts = action.method.len() + action.path.len() + host;
        let bytes = USED_BYTES + target.len() + resource.len() + texts;
        self.requests.insert(key, of_step.len());
        self.leases.insert(lease, of_step.len());
        let fault = Some(NOT_ENDED.to_owned());
        let request = UsedRequest { action, status: None, fault, sent_bytes: 0, received_bytes: 0 };
        of_step.push(UsedConnection {
            target,
            resource,
            version,
            login: None,
            request: Some(request),
            first: time,
            last: time,
            times: 1,
        });
        bytes
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

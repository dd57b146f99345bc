//! What the broker did for a step with credentials that the step did not get.

use std::collections::HashMap;

use crate::journal::{SignLine, SshLogin, UseOutcome};
use crate::model::{Id, Timestamp};

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
    /// When it was first made.
    pub first: Timestamp,
    /// When it was last made.
    pub last: Timestamp,
    /// How often.
    pub times: usize,
}

/// Opening, resource, version and login.
type UseKey = (Id, Id, u64, Option<Box<SshLogin>>);

/// The places of uses in their steps.
#[derive(Default)]
pub(super) struct Uses(HashMap<UseKey, usize>);

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
        if let Some(used) = self.0.get(&key).and_then(|at| of_step.get_mut(*at)) {
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
        self.0.insert(key, of_step.len());
        let (first, last, times) = (time, time, 1);
        of_step.push(UsedConnection { target, resource, version, login, first, last, times });
        bytes
    }
}

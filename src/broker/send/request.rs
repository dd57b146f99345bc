//! A request that a step has the broker send.

use crate::egress::{Method, StepHeaders, SubPath};
use crate::model::{Action, Reference, SendAction};

/// The most bytes of a path that the journal gets.
const MAX_JOURNALED_PATH: usize = 1024;

/// A request that a step has the broker send, without its body.
pub struct SendRequest {
    /// The connection, group or default.
    pub target: Reference,
    /// The service of the upstream; empty for its API.
    pub service: String,
    /// The method.
    pub method: Method,
    /// The path below the connection's address.
    pub path: SubPath,
    /// The headers.
    pub headers: StepHeaders,
    /// The length of the body in bytes; `None` if it is not known.
    pub length: Option<u64>,
}

impl SendRequest {
    /// What the journal gets of it. `place` are the host and the whole path, if they are known.
    pub(super) fn action(&self, place: Option<(String, String)>) -> Action {
        let (host, mut path) = match place {
            Some((host, path)) => (Some(host), path),
            None => (None, self.path.path().to_owned()),
        };
        if path.len() > MAX_JOURNALED_PATH {
            // A path is ASCII.
            path.truncate(MAX_JOURNALED_PATH);
            path.push('…');
        }
        let service = Some(self.service.clone()).filter(|service| !service.is_empty());
        Action::Send(SendAction { service, method: self.method.as_str().to_owned(), host, path })
    }
}

//! File descriptors: the limit is raised as far as possible, and shared out so that steps never take the last ones.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::model::Limits;
use crate::model::limits::MAX_TCP_HANDSHAKES;

/// Descriptors for the store, the journal, the runtimes, readers of metrics, and directories that are made or read.
const OWN: u64 = 128;

/// How many descriptors each use gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Connections to the admin socket.
    pub(super) admin_connections: u32,
    /// Unfinished handshakes on the admin socket.
    pub(super) admin_handshakes: u32,
    /// Unfinished handshakes over TCP, beside one descriptor to listen there; 0 if nothing listens.
    pub(super) tcp_handshakes: u32,
    /// Open steps: each takes one descriptor to listen, and its own connections.
    pub(super) open_steps: u32,
    /// Connections of all steps together, beyond the own connections of each.
    pub(super) step_connections: u32,
}

impl Shares {
    /// Raises the limit of this process to its maximum, and shares out the descriptors.
    pub(super) fn of_this_process(limits: &Limits, serves_tcp: bool) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let files = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(error) => {
                tracing::warn!(%error, "the limit of open files could not be raised");
                limit.current
            }
        };
        let shares = Self::of(files.unwrap_or(u64::MAX), limits, serves_tcp);
        if shares.open_steps < limits.open_steps {
            tracing::debug!(
                open_steps = shares.open_steps,
                "fewer steps can be open than open_steps: the limit of open files allows no more"
            );
        }
        shares
    }

    /// Shares out `files` descriptors: to the daemon itself first, then to the admin door, and to strangers over TCP. Of
    /// the rest, steps get up to three quarters for their sockets and own connections, and what is left for further
    /// connections.
    fn of(files: u64, limits: &Limits, serves_tcp: bool) -> Self {
        let own = OWN.min(files / 4);
        let pending = u64::from(limits.admin_pending_handshakes);
        let admin = (u64::from(limits.admin_connections) + pending).min(files / 4).max(2);
        let handshakes = pending.min(admin / 4).max(1);
        let most = u64::try_from(MAX_TCP_HANDSHAKES).unwrap_or(u64::MAX);
        let strangers = if serves_tcp { most.min(files / 8).max(1) } else { 0 };
        let tcp = strangers + u64::from(serves_tcp);
        let rest = files.saturating_sub(own + admin + tcp);
        let each = 1 + u64::from(limits.own_connections);
        let listening = u64::from(limits.open_steps).min(rest / 4 * 3 / each).max(1);
        // The most connections that steps can have.
        let all = u64::from(limits.open_steps) * u64::from(limits.step_connections);
        let connected = rest.saturating_sub(listening * each).min(all).max(1);
        let count = |files: u64| u32::try_from(files).unwrap_or(u32::MAX);
        Self {
            admin_connections: count(admin - handshakes),
            admin_handshakes: count(handshakes),
            tcp_handshakes: count(strangers),
            open_steps: count(listening),
            step_connections: count(connected),
        }
    }
}

/// How many steps can be open at a time under a limit of open files; `None` is no limit. `serves_tcp` says that operators
/// are served over TCP, too.
pub fn steps_within(files: Option<u64>, limits: &Limits, serves_tcp: bool) -> u32 {
    Shares::of(files.unwrap_or(u64::MAX), limits, serves_tcp).open_steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_never_have_the_descriptors_that_the_admin_door_needs() {
        let limits = Limits::default();
        let many = [64, 256, 1024, 4096, 65_536, 1_048_576, u64::MAX];
        for (files, serves_tcp) in many.into_iter().flat_map(|n| [(n, false), (n, true)]) {
            let shares = Shares::of(files, &limits, serves_tcp);
            let steps = shares.open_steps.saturating_mul(1 + limits.own_connections);
            let admin = shares.admin_connections + shares.admin_handshakes;
            let tcp = shares.tcp_handshakes + u32::from(serves_tcp);
            let taken: u64 =
                [admin, tcp, steps, shares.step_connections].into_iter().map(u64::from).sum();
            assert!(taken + OWN.min(files / 4) <= files, "{files}: {shares:?}");
        }
        let plenty = Shares::of(1_048_576, &limits, true);
        assert_eq!(plenty.tcp_handshakes, u32::try_from(MAX_TCP_HANDSHAKES).unwrap());
        assert_eq!(plenty.open_steps, limits.open_steps);
        assert_eq!(plenty.admin_connections, limits.admin_connections);
    }
}

//! The broker that doctor checks.

use std::path::PathBuf;

use super::diagnosis::{Diagnosis, Remedy, quoted};
use crate::egress::Rules;
use crate::model::{Limits, Timestamp};
use crate::seal::Unlock;
use crate::sys::{DirectoryError, Trust};

/// The broker that is checked.
pub(super) struct Site {
    pub(super) state: PathBuf,
    pub(super) runtime: PathBuf,
    pub(super) unlock: Unlock,
    pub(super) limits: Limits,
    /// Whether operators are served over TCP.
    pub(super) serves_tcp: bool,
    /// Where the daemon may connect to.
    pub(super) egress: Rules,
    /// The owner of the state directory, who must own everything else.
    pub(super) user: u32,
    /// The directories that a daemon of that user may trust.
    pub(super) trust: Trust,
    pub(super) now: Timestamp,
}

impl Site {
    /// Whether there is a state directory that this user can read.
    pub(super) fn is_ours(&self) -> bool {
        let us = rustix::process::geteuid();
        self.state.exists() && (us.is_root() || us.as_raw() == self.user)
    }

    /// A directory that the daemon refuses.
    pub(super) fn unfit(&self, what: &'static str, error: &DirectoryError) -> Diagnosis {
        let remedy = match error {
            DirectoryError::Foreign { path, .. } => {
                Remedy::run(&format!("chown {}", self.user), [path.as_path()])
            }
            DirectoryError::Writable { path, .. } => Remedy::run("chmod go-w", [path.as_path()]),
            DirectoryError::Parent { .. }
            | DirectoryError::Link { .. }
            | DirectoryError::Io { .. } => "follow that text, then run doctor again".into(),
        };
        Diagnosis::fail(what, error.to_string(), remedy)
    }

    /// A command on this broker, as a remedy.
    pub(super) fn keyhatch(&self, words: &str) -> Remedy {
        Remedy::Run(self.command(words))
    }

    /// A command on this broker.
    pub(super) fn command(&self, words: &str) -> String {
        let (state, runtime) = (quoted(&self.state), quoted(&self.runtime));
        format!("keyhatch {words} --state {state} --runtime {runtime}")
    }
}

//! The contents of journal lines.

mod actions;
mod changes;
mod checkpoint;
pub(super) mod decision_id;
mod decisions;
mod levers;
mod mints;
mod step_path;
mod uses;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use actions::SentLine;
pub use changes::{ChangeNote, Intent};
pub use checkpoint::{Announced, Attempt, Checkpoint, FORMAT, Signature};
pub use decisions::{Leased, Outcome, Refused, RenewalLine, RenewedLease, ResolveLine, TestLine};
pub(super) use levers::LEASES_IN_LINE;
pub use levers::{BlockLine, EndedLeases, OperatorCloseLine, RevocationLine, UnblockLine};
pub use mints::{
    EndedLine, EndingLine, EndingReason, MintFailedLine, MintFault, MintedLine, MintingLine,
    Upstream,
};
pub use uses::{LoginLine, SignLine, SshLogin, Used};

use super::state::requests::{RequestNote, of_registrations};
use crate::model::{Formats, Id, Opening, PinnedCertificate, Timestamp};
use crate::seal::KeyId;

/// The names of all events, as the rule that a wrong name breaks.
pub const NAMES: &str = "one of abandoned, admin_refused, backed_up, blocked, certificate_renewed, checkpoint, compared, \
    clock_set_back, closed, closed_by_operator, continued, ended_upstream, ending, formats, head, intent, key_rotated, lease_renewal, \
    lease_revoked, leases_revoked, left_disabled, left_to_expire, logged_in, mint_failed, mint_joined, minted, minting, opened, quarantine_ended, rate_refused, resolve, restored, rotated, send, sent, sign, signed, started, stopped, \
    tested, torn, unblocked";

/// The contents of one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A batch that never reached the store.
    Abandoned {
        /// The batch's number.
        batch: u64,
    },
    /// An operator or executor was refused.
    AdminRefused {
        /// The operator or executor.
        principal: String,
        /// The method.
        method: String,
        /// The resource, if the method names one.
        resource: String,
        /// The API's reason.
        reason: String,
    },
    /// A backup was made.
    BackedUp {
        /// The operator.
        principal: String,
    },
    /// An operator blocked a connection, workflow, run or step.
    Blocked(Box<BlockLine>),
    /// A step's certificate was renewed.
    CertificateRenewed {
        /// The opening.
        opening: Id,
        /// The new certificate.
        certificate: PinnedCertificate,
    },
    /// The first line of a file: everything that was live before it.
    Checkpoint(Box<Checkpoint>),
    /// An operator learned whether stored values equal those of documents.
    Compared {
        /// The operator.
        principal: String,
        /// The full names of the resources.
        resources: Vec<String>,
    },
    /// The clock was set back while the daemon was down. No expiry can be trusted, so every step is closed and every
    /// lease revoked.
    ClockSetBack,
    /// A step was closed and its leases revoked.
    Closed {
        /// The opening.
        opening: Id,
        /// The reason.
        reason: CloseReason,
        /// The leases that were revoked.
        revoked: Vec<Id>,
    },
    /// An administrator closed steps, and perhaps blocked them.
    ClosedByOperator(Box<OperatorCloseLine>),
    /// The lines above are copies of the last lines of the file before; the file's own lines follow.
    Continued {
        /// The file before.
        file: u64,
        /// Its last line.
        line: u64,
    },
    /// A credential was ended upstream.
    EndedUpstream(Box<EndedLine>),
    /// A credential is about to be ended upstream.
    Ending(Box<EndingLine>),
    /// The formats that are written from now on.
    Formats(Formats),
    /// A batch is in the store and in force.
    Head {
        /// The batch's number.
        batch: u64,
        /// Whether it was found in the store at start.
        recovered: bool,
        /// The leases that it ended.
        revoked: Vec<Id>,
    },
    /// A batch is about to be written to the store.
    Intent(Intent),
    /// A key is about to be replaced. Everything that can fail is done before.
    KeyRotated {
        /// The operator.
        principal: String,
        /// Which key.
        key: RotatedKey,
        /// The old key.
        old: KeyId,
        /// The new key.
        new: KeyId,
    },
    /// A decision on the renewal of a lease.
    LeaseRenewal(RenewalLine),
    /// A step revoked its lease.
    LeaseRevoked {
        /// The opening.
        opening: Id,
        /// The lease.
        lease: Id,
    },
    /// An operator revoked leases.
    LeasesRevoked(Box<RevocationLine>),
    /// A credential can no longer be used, but something of it stays upstream.
    LeftDisabled(Box<EndedLine>),
    /// A credential is not ended upstream: it expires by itself.
    LeftToExpire(Box<EndedLine>),
    /// An operator has connected over TCP.
    LoggedIn(LoginLine),
    /// A lease gets no credential from the upstream.
    MintFailed(Box<MintFailedLine>),
    /// A lease is on a credential that was made for another lease.
    MintJoined(Box<MintedLine>),
    /// An upstream has made a credential.
    Minted(Box<MintedLine>),
    /// A root is about to be opened, and an upstream asked for a credential.
    Minting(Box<MintingLine>),
    /// A step was opened.
    Opened(Box<Opening>),
    /// An administrator confirmed the restored broker: secrets are resolved again.
    QuarantineEnded {
        /// The administrator.
        principal: String,
        /// What has become of the original, if the administrator has said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restored_as: Option<RestoredAs>,
    },
    /// Requests that were refused without a line each. Those of a step over its rate were refused without a decision.
    RateRefused {
        /// The opening, of a step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opening: Option<Id>,
        /// The principal; older lines lack it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        principal: String,
        /// How many requests since the last such line.
        requests: u64,
        /// The time since the first of them, in seconds.
        #[serde(default)]
        seconds: u64,
        /// How many requests of which method, of operators and executors.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        methods: BTreeMap<String, u64>,
    },
    /// A decision on a Resolve.
    Resolve(Box<ResolveLine>),
    /// The broker was restored from a backup. Every step is closed, and nothing is resolved until an administrator
    /// confirms the broker.
    Restored {
        /// When the backup was made.
        backup_time: Timestamp,
    },
    /// The file is full; the next file follows.
    Rotated {
        /// The number of the next file.
        file: u64,
    },
    /// A decision on a Send.
    Send(Box<ResolveLine>),
    /// An HTTP exchange has ended.
    Sent(Box<SentLine>),
    /// A decision to sign a login by ssh.
    Sign(Box<SignLine>),
    /// The CA's root has signed all lines up to one.
    Signed(Signature),
    /// The daemon started.
    Started {
        /// Its version.
        version: String,
    },
    /// The daemon stopped in order.
    Stopped,
    /// An operator tested the values of a resource.
    Tested(TestLine),
    /// The end of the file was damaged, as a crash does, and was cut off.
    Torn {
        /// The name of the file that keeps what was cut off.
        kept_as: String,
        /// How many bytes were cut off.
        bytes: u64,
    },
    /// An operator lifted a block.
    Unblocked(Box<UnblockLine>),
}

impl Event {
    /// Reads the event of a line; `name` is the event's name.
    ///
    /// # Errors
    /// If the text is not such an event.
    pub(super) fn from_json(name: &str, json: &str) -> serde_json::Result<Self> {
        match name {
            "checkpoint" => without_frame(json).map(Self::Checkpoint),
            "ended_upstream" => without_frame(json).map(Self::EndedUpstream),
            "ending" => without_frame(json).map(Self::Ending),
            "formats" => without_frame(json).map(Self::Formats),
            "left_disabled" => without_frame(json).map(Self::LeftDisabled),
            "left_to_expire" => without_frame(json).map(Self::LeftToExpire),
            "minting" => without_frame(json).map(Self::Minting),
            "opened" => without_frame(json).map(Self::Opened),
            "sent" => without_frame(json).map(Self::Sent),
            // Most lines are one of these. serde copies an event whose name it finds in the middle.
            "intent" => serde_json::from_str(json).map(Self::Intent),
            "resolve" => serde_json::from_str(json).map(Self::Resolve),
            _ => serde_json::from_str(json),
        }
    }

    /// The decision about a step that the line is, if any.
    pub fn decision(&self) -> Option<&ResolveLine> {
        match self {
            Self::Resolve(line) | Self::Send(line) => Some(line),
            _ => None,
        }
    }

    /// Reads the event of a line, without the changes of an intent.
    ///
    /// # Errors
    /// If the text is not such an event.
    pub(super) fn from_json_without_changes(name: &str, json: &str) -> serde_json::Result<Self> {
        if name != "intent" {
            return Self::from_json(name, json);
        }
        #[derive(Deserialize)]
        struct WithoutChanges {
            batch: u64,
            #[serde(default, deserialize_with = "of_registrations")]
            requests: Vec<RequestNote>,
        }
        let WithoutChanges { batch, requests } = serde_json::from_str(json)?;
        Ok(Self::Intent(Intent { batch, changes: Vec::new(), requests }))
    }

    /// Whether an event has this name in lines.
    pub fn is_name(name: &str) -> bool {
        NAMES.strip_prefix("one of ").is_some_and(|all| all.split(", ").any(|one| one == name))
    }

    /// Whether such a line is always on disk before its effect is visible. Such a line also contains how far the journal
    /// was known to be on disk when it was written.
    pub fn is_always_synced(&self) -> bool {
        match self {
            Self::Abandoned { .. }
            | Self::Blocked(_)
            | Self::Checkpoint(_)
            | Self::ClockSetBack
            | Self::Closed { .. }
            | Self::ClosedByOperator(_)
            | Self::Continued { .. }
            | Self::Ending(_)
            | Self::Formats(_)
            | Self::Head { .. }
            | Self::Intent(_)
            | Self::KeyRotated { .. }
            | Self::LeaseRevoked { .. }
            | Self::LeasesRevoked(_)
            | Self::QuarantineEnded { .. }
            | Self::Restored { .. }
            | Self::Stopped
            | Self::Torn { .. }
            | Self::Unblocked(_) => true,
            Self::AdminRefused { .. }
            | Self::BackedUp { .. }
            | Self::CertificateRenewed { .. }
            | Self::Compared { .. }
            | Self::EndedUpstream(_)
            | Self::LeaseRenewal(_)
            | Self::LeftDisabled(_)
            | Self::LeftToExpire(_)
            | Self::LoggedIn(_)
            | Self::MintFailed(_)
            | Self::MintJoined(_)
            | Self::Minted(_)
            | Self::Minting(_)
            | Self::Opened(_)
            | Self::RateRefused { .. }
            | Self::Resolve(_)
            | Self::Rotated { .. }
            | Self::Send(_)
            | Self::Sent(_)
            | Self::Sign(_)
            | Self::Signed(_)
            | Self::Started { .. }
            | Self::Tested(_) => false,
        }
    }

    /// Whether such a line takes access away or completes what was begun. It is written even if only the disk's reserve
    /// is left.
    pub fn is_for_reserve(&self) -> bool {
        match self {
            Self::Intent(intent) => intent.changes.iter().all(ChangeNote::takes_away),
            Self::QuarantineEnded { .. } | Self::Unblocked(_) => false,
            // They complete what was begun.
            Self::EndedUpstream(_)
            | Self::LeftDisabled(_)
            | Self::LeftToExpire(_)
            | Self::MintFailed(_)
            | Self::Minted(_)
            | Self::Sent(_) => true,
            // A daemon that starts on a full disk can close steps and take access away.
            Self::Rotated { .. } | Self::Signed(_) | Self::Started { .. } => true,
            event => event.is_always_synced(),
        }
    }
}

/// Why a step was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// The clock was set back while the daemon was down.
    ClockSetBack,
    /// Its directory is gone, as after a reboot.
    DirectoryGone,
    /// Its executor closed it.
    Executor,
    /// Its executor was removed.
    ExecutorRemoved,
    /// It has expired.
    Expired,
    /// Its executor sent no more heartbeats.
    HeartbeatLost,
    /// A newer attempt was opened.
    NewAttempt,
    /// Its directory could not be made.
    OpenFailed,
    /// An administrator closed it.
    Operator,
    /// The broker was restored from a backup.
    Restored,
}

/// The role of a restored broker. It decides who ends the credentials that upstreams made before the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoredAs {
    /// A copy: the original goes on and ends them. This broker forgets them.
    Copy,
    /// The successor of an original that is gone. This broker ends them.
    OriginalGone,
}

/// Which kind of key was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotatedKey {
    /// The key that records are sealed under.
    Dek,
    /// The key that signs tokens of steps.
    Issuer,
    /// The key that wraps the others.
    Kek,
}

/// The contents of a line without the keys that every line has: for types that refuse unknown keys.
fn without_frame<T: for<'de> Deserialize<'de>>(json: &str) -> serde_json::Result<T> {
    let mut fields: serde_json::Map<String, Value> = serde_json::from_str(json)?;
    for framing in ["n", "time", "event", "synced", "prev"] {
        fields.remove(framing);
    }
    serde_json::from_value(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_event_names_is_complete() {
        let unknown = serde_json::json!({ "event": "none" });
        let known = serde_json::from_value::<Event>(unknown).err().unwrap().to_string();
        let known: Vec<_> = known.split('`').skip(3).step_by(2).collect();
        assert_eq!(NAMES, format!("one of {}", known.join(", ")));
    }
}

//! What journal lines contain.

mod changes;
mod checkpoint;
pub(super) mod decision_id;
mod decisions;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use changes::{ChangeNote, Intent};
pub use checkpoint::{Announced, Attempt, Checkpoint, FORMAT, Signature};
pub use decisions::{Outcome, RenewalLine, RenewalOutcome, ResolveLine, TestLine};

use super::state::requests::{RequestNote, of_registrations};
use crate::model::{Formats, Id, Opening, PinnedCertificate, Timestamp};
use crate::seal::KeyId;

/// The names of all events, as the rule for a name that is not among them.
pub const NAMES: &str = "one of abandoned, admin_refused, backed_up, certificate_renewed, checkpoint, compared, \
    clock_set_back, closed, continued, formats, head, intent, key_rotated, lease_renewal, lease_revoked, \
    opened, quarantine_ended, rate_refused, resolve, restored, rotated, signed, started, stopped, \
    tested, torn";

/// One line's content.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A batch that never reached the store.
    Abandoned {
        /// Its number.
        batch: u64,
    },
    /// An operator or executor was refused.
    AdminRefused {
        /// Who.
        principal: String,
        /// Which method.
        method: String,
        /// Which resource, if the method names one.
        resource: String,
        /// The API's reason.
        reason: String,
    },
    /// A backup was made.
    BackedUp {
        /// Who.
        principal: String,
    },
    /// A step's certificate was renewed.
    CertificateRenewed {
        /// Whose.
        opening: Id,
        /// The new one.
        certificate: PinnedCertificate,
    },
    /// The first line of a file: what was live before it.
    Checkpoint(Box<Checkpoint>),
    /// An operator was told whether stored values are those of documents.
    Compared {
        /// Who.
        principal: String,
        /// The resources.
        resources: Vec<String>,
    },
    /// The clock was set back while the daemon was down: no end can be trusted, so every step is closed
    /// and every lease revoked.
    ClockSetBack,
    /// A step was closed and its leases revoked.
    Closed {
        /// Which.
        opening: Id,
        /// Why.
        reason: CloseReason,
        /// The leases.
        revoked: Vec<Id>,
    },
    /// The lines from here on are the file's own; those above are copies of the last of the file before, for
    /// whoever starts from this file.
    Continued {
        /// The file before.
        file: u64,
        /// Its last line.
        line: u64,
    },
    /// The formats that are written from now on.
    Formats(Formats),
    /// A batch is in the store and in force.
    Head {
        /// Its number.
        batch: u64,
        /// Whether it was found in the store at start.
        recovered: bool,
        /// The leases that it ended.
        revoked: Vec<Id>,
    },
    /// A batch is about to be written to the store.
    Intent(Intent),
    /// A key is about to be replaced: all that can fail before is done.
    KeyRotated {
        /// By whom.
        principal: String,
        /// Which.
        key: RotatedKey,
        /// The one that was in use.
        old: KeyId,
        /// The one that is to be.
        new: KeyId,
    },
    /// A decision to make a lease last longer.
    LeaseRenewal(RenewalLine),
    /// A step gave a lease back.
    LeaseRevoked {
        /// Whose.
        opening: Id,
        /// Which.
        lease: Id,
    },
    /// A step was opened.
    Opened(Box<Opening>),
    /// An administrator took the restored broker for the right one: secrets are resolved again.
    QuarantineEnded {
        /// Who.
        principal: String,
    },
    /// Requests that were refused without lines of their own: those of a step over its rate without a decision.
    RateRefused {
        /// A step's opening.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opening: Option<Id>,
        /// Whose; older lines do not say.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        principal: String,
        /// How many since the last such line.
        requests: u64,
        /// In how many seconds.
        #[serde(default)]
        seconds: u64,
        /// How many of which method, of operators and executors.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        methods: BTreeMap<String, u64>,
    },
    /// A decision on the step door.
    Resolve(Box<ResolveLine>),
    /// The broker was restored from a backup: every step is closed, and nothing is resolved until an
    /// administrator says so.
    Restored {
        /// When the backup was made.
        backup_time: Timestamp,
    },
    /// The file is full; the next one goes on.
    Rotated {
        /// The next file.
        file: u64,
    },
    /// The CA's root signs all lines up to one.
    Signed(Signature),
    /// The daemon started.
    Started {
        /// Its version.
        version: String,
    },
    /// The daemon stopped in order.
    Stopped,
    /// An operator had the values of a resource looked at for faults.
    Tested(TestLine),
    /// The end of the file was damaged, as a crash does, and was cut.
    Torn {
        /// The file that keeps what was cut.
        kept_as: String,
        /// How many bytes.
        bytes: u64,
    },
}

impl Event {
    /// Reads a line's event, which has this name.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn from_json(name: &str, json: &str) -> serde_json::Result<Self> {
        match name {
            "checkpoint" => without_frame(json).map(Self::Checkpoint),
            "formats" => without_frame(json).map(Self::Formats),
            "opened" => without_frame(json).map(Self::Opened),
            // What most lines say. Where the name is found in the midst of an event, all of it is copied.
            "intent" => serde_json::from_str(json).map(Self::Intent),
            "resolve" => serde_json::from_str(json).map(Self::Resolve),
            _ => serde_json::from_str(json),
        }
    }

    /// Reads a line's event, which has this name, but for what an intent changes.
    ///
    /// # Errors
    /// If it is none.
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

    /// Whether such a line is always on disk before anybody is told of it. Such a line also says how far
    /// the journal was known to be on disk when it was written.
    pub fn is_always_synced(&self) -> bool {
        match self {
            Self::Abandoned { .. }
            | Self::Checkpoint(_)
            | Self::ClockSetBack
            | Self::Closed { .. }
            | Self::Continued { .. }
            | Self::Formats(_)
            | Self::Head { .. }
            | Self::Intent(_)
            | Self::KeyRotated { .. }
            | Self::LeaseRevoked { .. }
            | Self::QuarantineEnded { .. }
            | Self::Restored { .. }
            | Self::Stopped
            | Self::Torn { .. } => true,
            Self::AdminRefused { .. }
            | Self::BackedUp { .. }
            | Self::CertificateRenewed { .. }
            | Self::Compared { .. }
            | Self::LeaseRenewal(_)
            | Self::Opened(_)
            | Self::RateRefused { .. }
            | Self::Resolve(_)
            | Self::Rotated { .. }
            | Self::Signed(_)
            | Self::Started { .. }
            | Self::Tested(_) => false,
        }
    }

    /// Whether such a line takes something away, or brings to an end what was begun: it is written even when
    /// only the reserve of the disk is left.
    pub fn is_for_reserve(&self) -> bool {
        match self {
            Self::Intent(intent) => intent.changes.iter().all(ChangeNote::takes_away),
            Self::QuarantineEnded { .. } => false,
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
    /// Its time was over.
    Expired,
    /// Its executor was heard of no longer.
    HeartbeatLost,
    /// A newer attempt was opened.
    NewAttempt,
    /// Its directory could not be made.
    OpenFailed,
    /// The broker was restored from a backup.
    Restored,
}

/// Which key was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotatedKey {
    /// The one that records are sealed under.
    Dek,
    /// The one that wraps the others.
    Kek,
}

/// What a line says beside its event's name and what every line has: for types that refuse any key they do not know.
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
    fn the_names_of_events_are_all_there_are() {
        let unknown = serde_json::json!({ "event": "none" });
        let known = serde_json::from_value::<Event>(unknown).err().unwrap().to_string();
        let known: Vec<_> = known.split('`').skip(3).step_by(2).collect();
        assert_eq!(NAMES, format!("one of {}", known.join(", ")));
    }
}

//! What journal lines say.

pub(super) mod decision;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::state::live::LiveOpening;
use super::state::requests::{RequestNote, of_registrations};
use super::write::chain::FORMAT;
use crate::access::Bindings;
use crate::lease::{Ask, Lease, TtlLimit};
use crate::model::{
    FieldName, Formats, Id, Opening, PinnedCertificate, RunAs, StepKey, Timestamp, base64_bytes,
    hex_bytes,
};
use crate::seal::KeyId;

/// What lines call events, for whoever asks for one that there is not.
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

    /// Whether lines have this name for an event.
    pub fn is_name(name: &str) -> bool {
        // A name without the rest lacks a field; what is none is told by the list of all.
        let alone = serde_json::from_value::<Self>(serde_json::json!({ "event": name }));
        alone.err().is_none_or(|error| !error.to_string().starts_with("unknown variant"))
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

/// The root's signature on what a file holds up to a line. `keyhatch journal verify` checks it with `ca.crt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The file's number.
    pub file: u64,
    /// The hash of the file's first line, which no later line names.
    #[serde(with = "hex_bytes")]
    pub checkpoint: [u8; 32],
    /// The last line that is signed.
    pub line: u64,
    /// Its hash, which stands for all lines before.
    #[serde(with = "hex_bytes")]
    pub hash: [u8; 32],
    /// ECDSA P-256 with SHA-256, in DER.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

/// The last attempt at a step, as a checkpoint says it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Which step.
    #[serde(flatten)]
    pub key: StepKey,
    /// The attempt's number.
    pub number: i32,
}

/// A batch that is announced and not in force yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announced {
    /// Its number.
    pub batch: u64,
    /// The requests that it does.
    #[serde(default, deserialize_with = "of_registrations", skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestNote>,
}

/// What is live where a file begins. A later file's stands for all lines up to its own number, and names the
/// hash of that line as the one before it. With a key anywhere in it that this version does not know it is not read at
/// all.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The format of the lines.
    #[serde(deserialize_with = "known_format")]
    pub format: u32,
    /// The file's number.
    pub file: u64,
    /// The highest formats that were written; 0.1.0 does not say them.
    #[serde(default)]
    pub formats: Formats,
    /// The last batch in force.
    pub head: u64,
    /// The last batch announced.
    pub intent: u64,
    /// The last batch that never reached the store.
    pub abandoned: u64,
    /// Open steps.
    pub openings: Vec<Opening>,
    /// Live leases.
    pub leases: Vec<Lease>,
    /// Requests that are remembered.
    #[serde(default, deserialize_with = "of_registrations")]
    pub requests: Vec<RequestNote>,
    /// Batches on their way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announced: Vec<Announced>,
    /// The last attempts at steps that are not open.
    #[serde(default, deserialize_with = "of_registrations", skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// The openings whose newest certificate may not have reached their directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unwritten: Vec<Id>,
    /// Whether nothing is resolved since the broker was restored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
}

/// A format of lines that this version knows.
fn known_format<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        known @ ..=FORMAT => Ok(known),
        newer => Err(D::Error::custom(format_args!("format {newer}"))),
    }
}

/// What a line says beside its event's name and what every line has: for types that refuse any key they do not know.
fn without_frame<T: for<'de> Deserialize<'de>>(json: &str) -> serde_json::Result<T> {
    let mut fields: serde_json::Map<String, Value> = serde_json::from_str(json)?;
    for framing in ["n", "time", "event", "synced", "prev"] {
        fields.remove(framing);
    }
    serde_json::from_value(Value::Object(fields))
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

/// A batch on its way.
#[derive(Debug, Serialize, Deserialize)]
pub struct Intent {
    /// Its number, never used again.
    pub batch: u64,
    /// What it changes.
    pub changes: Vec<ChangeNote>,
    /// The requests that it does, of those that have an id.
    #[serde(default, deserialize_with = "of_registrations", skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestNote>,
}

/// One change in a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeNote {
    /// Who.
    pub principal: String,
    /// What, such as `connection.create`.
    pub action: String,
    /// On which resource.
    pub resource: String,
    /// Its uid.
    pub uid: Id,
    /// The version after the change.
    pub version: u64,
    /// The fields written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldName>,
    /// Everything else that changed, such as "tags" or "disabled=true".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
    /// The access after the change, where it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Bindings>,
}

impl ChangeNote {
    /// Whether the change removes something, disables it or changes who may have it.
    fn takes_away(&self) -> bool {
        let disables = |setting: &String| setting == "disabled=true";
        self.action.ends_with(".delete")
            || self.access.is_some()
            || self.settings.iter().any(disables)
    }
}

/// A decision on the step door.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResolveLine {
    /// Which opening asked.
    pub opening: Id,
    /// Whose workflow, run and step, for whoever reads the line.
    pub principal: Arc<str>,
    /// On whose behalf.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub run_as: BTreeSet<RunAs>,
    /// What was asked.
    #[serde(flatten)]
    pub ask: Arc<Ask>,
    /// Whether it is a delivery of a Watch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watch: bool,
    /// What was decided.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl ResolveLine {
    pub(super) fn new(opening: &LiveOpening, ask: Ask) -> Self {
        let record = opening.record();
        Self {
            opening: record.id,
            principal: opening.principal(),
            run_as: record.run_as.clone(),
            ask: Arc::new(ask),
            watch: false,
            outcome: Outcome::Refuse { reason: String::new(), by: String::new() },
        }
    }

    /// The lease of a Watch's delivery before that the line ends, if it does.
    pub(super) fn ended_lease(&self) -> Option<Id> {
        match &self.outcome {
            Outcome::Allow { ended, .. } => *ended,
            Outcome::Refuse { .. } => None,
        }
    }

    /// The lease that the line issues, if it issues a new one.
    pub(super) fn new_lease(&self) -> Option<Lease> {
        match &self.outcome {
            Outcome::Allow {
                uid,
                version,
                lease,
                issue_time,
                expire_time,
                limited_by,
                reused: false,
                ..
            } => Some(Lease {
                id: *lease,
                opening: self.opening,
                resource: *uid,
                version: *version,
                ask: Arc::clone(&self.ask),
                is_watch: self.watch,
                issue_time: *issue_time,
                expire_time: *expire_time,
                limited_by: *limited_by,
            }),
            _ => None,
        }
    }
}

/// A decision to make a lease last longer, or not to.
#[derive(Debug, Serialize, Deserialize)]
pub struct RenewalLine {
    /// Whose.
    pub opening: Id,
    /// Whose workflow, run and step, for whoever reads the line.
    pub principal: Arc<str>,
    /// On whose behalf.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub run_as: BTreeSet<RunAs>,
    /// Which lease.
    pub lease: Id,
    /// What it is for.
    pub target: String,
    /// What was decided.
    #[serde(flatten)]
    pub outcome: RenewalOutcome,
}

/// What was decided of a renewal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum RenewalOutcome {
    /// It lasts longer.
    Allow {
        /// By which rule.
        by: String,
        /// Until when.
        expire_time: Timestamp,
        /// What limits it.
        limited_by: TtlLimit,
    },
    /// It stays as it is.
    Refuse {
        /// The API's reason.
        reason: String,
    },
}

/// A look at values that hands none out.
#[derive(Debug, Serialize, Deserialize)]
pub struct TestLine {
    /// Who.
    pub principal: String,
    /// On which resource.
    pub resource: String,
    /// Its uid.
    pub uid: Id,
    /// The version that is looked at.
    pub version: u64,
    /// By which rule.
    pub by: String,
}

/// What was decided.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Outcome {
    /// Handed out.
    Allow {
        /// By which rule.
        by: String,
        /// The resource's uid.
        uid: Id,
        /// Its full name, where the target is a group or a default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
        /// The version handed out.
        version: u64,
        /// The fields handed out.
        released: Vec<FieldName>,
        /// The lease.
        lease: Id,
        /// When the lease was issued.
        issue_time: Timestamp,
        /// When it ends.
        expire_time: Timestamp,
        /// What limited it.
        limited_by: TtlLimit,
        /// Whether it was live already.
        reused: bool,
        /// The lease of a Watch's delivery before, which ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<Id>,
    },
    /// Not handed out.
    Refuse {
        /// The API's reason.
        reason: String,
        /// What refused it, where that is not access.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
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

//! The first line of a file, with everything that was live before it; and the signatures of the root.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::RestoredAs;
use super::mints::MintingLine;
use crate::access::Block;
use crate::journal::state::lost::LostRefresh;
use crate::journal::state::open_step::ended_steps::EndedStep;
use crate::journal::state::outliving::Outliving;
use crate::journal::state::owed::Owed;
use crate::journal::state::requests::{RequestNote, of_registrations};
use crate::lease::Lease;
use crate::model::{Formats, Id, Opening, StepKey, base64_bytes, hex_bytes};

/// The format of the lines. In format 1, that of 0.1.0, checkpoints lack the highest formats.
pub const FORMAT: u32 = 2;

/// The last attempt at a step, in a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Which step.
    #[serde(flatten)]
    pub key: StepKey,
    /// The attempt's number.
    pub number: i32,
}

/// A batch that is announced and not in force yet, in a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announced {
    /// The batch's number.
    pub batch: u64,
    /// The requests that it does.
    #[serde(default, deserialize_with = "of_registrations", skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestNote>,
}

/// Everything that is live where a file begins. In a later file it replaces all lines up to its own number, and its
/// `prev` is the hash of the last of them. A checkpoint with an unknown key is refused as a whole.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The format of the lines.
    #[serde(deserialize_with = "known_format")]
    pub format: u32,
    /// The file's number.
    pub file: u64,
    /// The highest formats that were written; 0 in checkpoints of 0.1.0.
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
    /// Requests that were done, to refuse or repeat.
    #[serde(default, deserialize_with = "of_registrations")]
    pub requests: Vec<RequestNote>,
    /// Batches that are announced and not in force yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announced: Vec<Announced>,
    /// The last attempts at steps that are not open.
    #[serde(default, deserialize_with = "of_registrations", skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// The openings whose newest certificate may not have reached their directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unwritten: Vec<Id>,
    /// The mints that are under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mints: Vec<MintingLine>,
    /// The credentials that are owed an ending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owed: Vec<Owed>,
    /// The credentials that will outlive their openings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outliving: Vec<Outliving>,
    /// The refreshes whose answers nobody knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_refreshes: Vec<LostRefresh>,
    /// Whether the broker was restored and is not confirmed yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
    /// What an administrator has said of the broker after it was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_as: Option<RestoredAs>,
    /// What operators have blocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Block>,
    /// The steps that operators have closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended_steps: Vec<EndedStep>,
}

/// A format of lines that this version can read.
fn known_format<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        known @ ..=FORMAT => Ok(known),
        newer => Err(D::Error::custom(format_args!("format {newer}"))),
    }
}

/// The root's signature on a file up to one line. `keyhatch journal verify` checks it with `ca.crt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The file's number.
    pub file: u64,
    /// The hash of the file's first line, which no later line contains.
    #[serde(with = "hex_bytes")]
    pub checkpoint: [u8; 32],
    /// The last line that is signed.
    pub line: u64,
    /// The hash of the last line, which covers all lines before.
    #[serde(with = "hex_bytes")]
    pub hash: [u8; 32],
    /// ECDSA P-256 with SHA-256, in DER.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

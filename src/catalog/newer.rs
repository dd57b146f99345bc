//! Records that a newer keyhatch wrote, with keys that this version does not know.

use serde_json::Value;

use crate::seal::{RecordKey, RecordKind, Sealed};

/// A resource that is denied whole: it resolves nothing and admits nobody, and its name stays its own.
#[derive(Clone)]
pub struct NewerRecord {
    /// The full name, as the API writes it.
    pub name: String,
    /// The sealed metadata and, if there are any, the sealed values.
    pub records: Vec<(RecordKey, Sealed)>,
}

/// The full name of a resource, from the part of its record that every version reads. `None` if the part is missing.
pub(super) fn name(kind: RecordKind, json: &str) -> Option<String> {
    let json: Value = serde_json::from_str(json).ok()?;
    let text = |path: &str| json.pointer(path)?.as_str();
    Some(match kind {
        RecordKind::Connection => {
            format!("connections/{}/{}", text("/integration")?, text("/name")?)
        }
        RecordKind::Group => format!("groups/{}", text("/name")?),
        RecordKind::Integration => format!("integrations/{}", text("/integration/name")?),
        RecordKind::Secret => {
            format!("workflows/{}/secrets/{}", text("/workflow")?, text("/name")?)
        }
        RecordKind::Registration => {
            let (kind, name) = json.get("who")?.as_object()?.iter().next()?;
            format!("{kind}s/{}", name.as_str()?)
        }
        RecordKind::AuthorityKeys
        | RecordKind::Commit
        | RecordKind::ConnectionValues
        | RecordKind::Ending
        | RecordKind::IssuerKeys
        | RecordKind::MintedValues
        | RecordKind::RotatedToken
        | RecordKind::SecretValue => return None,
    })
}

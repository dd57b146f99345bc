//! Records that a newer keyhatch has written: they say what this version does not know.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::seal::{RecordKey, RecordKind, Sealed};

/// A resource that is denied whole: it resolves nothing and admits nobody, and its name stays its own.
#[derive(Clone)]
pub struct NewerRecord {
    /// Its full name, as the API writes it.
    pub name: String,
    /// Its metadata and, if it has any, its values, as they are sealed.
    pub records: Vec<(RecordKey, Sealed)>,
}

/// The full name of a resource, from the part of its record that every version reads.
pub(super) fn name(kind: RecordKind, json: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Connection {
        integration: String,
        name: String,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    #[derive(Deserialize)]
    struct Integration {
        integration: Named,
    }
    #[derive(Deserialize)]
    struct Secret {
        workflow: String,
        name: String,
    }
    #[derive(Deserialize)]
    struct Registration {
        who: Map<String, Value>,
    }
    Some(match kind {
        RecordKind::Connection => {
            let Connection { integration, name } = serde_json::from_str(json).ok()?;
            format!("connections/{integration}/{name}")
        }
        RecordKind::Group => {
            let Named { name } = serde_json::from_str(json).ok()?;
            format!("groups/{name}")
        }
        RecordKind::Integration => {
            let Integration { integration: Named { name } } = serde_json::from_str(json).ok()?;
            format!("integrations/{name}")
        }
        RecordKind::Secret => {
            let Secret { workflow, name } = serde_json::from_str(json).ok()?;
            format!("workflows/{workflow}/secrets/{name}")
        }
        RecordKind::Registration => {
            let Registration { who } = serde_json::from_str(json).ok()?;
            let (kind, name) = who.iter().next()?;
            format!("{kind}s/{}", name.as_str()?)
        }
        RecordKind::AuthorityKeys
        | RecordKind::Commit
        | RecordKind::ConnectionValues
        | RecordKind::SecretValue => return None,
    })
}

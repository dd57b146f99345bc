//! The requests that were done, so that no request is done twice (AIP-155).

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::remembered::Remembered;
use crate::model::{Id, NamedRequest, RequestId, RequestMac};

/// How many requests are remembered.
const MAX_REMEMBERED: usize = 50_000;

/// One request that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestNote {
    /// The registration of the caller. Request ids are private to a registration, and a name that is registered again
    /// is another registration.
    pub registration: Id,
    /// The request.
    #[serde(flatten)]
    pub request: NamedRequest,
    /// The opening, if it opened a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<Id>,
}

/// A request that was done under an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoneRequest {
    /// Stands for the contents of the request.
    pub mac: RequestMac,
    /// The opening, if it opened a step.
    pub opening: Option<Id>,
}

/// The last requests that were done. Clones share their contents.
#[derive(Clone, Debug, Default)]
pub struct RequestTable(Remembered<RequestId, DoneRequest, MAX_REMEMBERED>);

impl RequestTable {
    /// The request that a registration sent under this id, if any.
    pub fn find(&self, registration: Id, id: &RequestId) -> Option<DoneRequest> {
        self.0.find(registration, id).copied()
    }

    /// Inserts a request.
    pub fn insert(&mut self, note: RequestNote) {
        let RequestNote { registration, request, opening } = note;
        self.0.insert(registration, request.id, DoneRequest { mac: request.mac, opening });
    }

    /// All requests, oldest first for each registration.
    pub fn iter(&self) -> impl Iterator<Item = RequestNote> + '_ {
        self.0.iter().map(|(registration, id, done)| RequestNote {
            registration,
            request: NamedRequest { id: id.clone(), mac: done.mac },
            opening: done.opening,
        })
    }
}

/// Reads a list of entries of registrations. Entries of 0.1.0 name the caller but no registration, and a method and
/// resource instead of a request, so they are dropped.
pub(crate) fn of_registrations<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let entries = Vec::<Value>::deserialize(from)?.into_iter();
    let is_known =
        |entry: &Value| ["registration", "executor_uid"].iter().any(|key| entry.get(key).is_some());
    entries.filter(is_known).map(|entry| T::deserialize(entry).map_err(D::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_0_1_0_are_dropped_and_others_are_read() {
        let mine = RequestNote {
            registration: Id::from_bytes([7; 16]),
            request: NamedRequest { id: RequestId::parse("r").unwrap(), mac: [1; 32].into() },
            opening: None,
        };
        let old =
            r#"{"principal":"operator:admin","id":"r","what":"PutSecret workflows/w/secrets/s"}"#;
        let text = format!("[{old},{}]", serde_json::to_string(&mine).unwrap());
        let mut reader = serde_json::Deserializer::from_str(&text);
        assert_eq!(of_registrations::<_, RequestNote>(&mut reader).unwrap(), [mine]);
    }
}

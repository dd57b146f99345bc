//! The requests that were done, so that none is done twice (AIP-155).

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::remembered::Remembered;
use crate::model::{Id, NamedRequest, RequestId, RequestMac};

/// How many are remembered.
const MAX_REMEMBERED: usize = 50_000;

/// One request that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestNote {
    /// The registration of who asked. Nobody sees another's ids, and another of the same name is another.
    pub registration: Id,
    /// What was asked for.
    #[serde(flatten)]
    pub request: NamedRequest,
    /// What it opened, if it opened a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<Id>,
}

/// A request under an id, as far as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoneRequest {
    /// What it was.
    pub mac: RequestMac,
    /// What it opened, if it opened a step.
    pub opening: Option<Id>,
}

/// The last requests that were done. Copies share what they have in common.
#[derive(Clone, Debug, Default)]
pub struct RequestTable(Remembered<RequestId, DoneRequest, MAX_REMEMBERED>);

impl RequestTable {
    /// What a registration asked for under this id, if it did.
    pub fn find(&self, registration: Id, id: &RequestId) -> Option<DoneRequest> {
        self.0.find(registration, id).copied()
    }

    /// Takes a request in.
    pub fn insert(&mut self, note: RequestNote) {
        let RequestNote { registration, request, opening } = note;
        self.0.insert(registration, request.id, DoneRequest { mac: request.mac, opening });
    }

    /// All of them, oldest first of each registration.
    pub fn iter(&self) -> impl Iterator<Item = RequestNote> + '_ {
        self.0.iter().map(|(registration, id, done)| RequestNote {
            registration,
            request: NamedRequest { id: id.clone(), mac: done.mac },
            opening: done.opening,
        })
    }
}

/// Reads a list of what registrations did. 0.1.0 named who did it by name alone, and a request by its method and
/// resource: that stands for no registration and for no request, so it is forgotten.
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
    fn requests_of_the_first_version_are_forgotten_and_others_read() {
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

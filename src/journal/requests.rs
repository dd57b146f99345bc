//! The requests that were done, so that none is done twice (AIP-155).

use rpds::{HashTrieMapSync, QueueSync};
use serde::{Deserialize, Serialize};

use crate::model::RequestId;

/// How many are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// One request that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestNote {
    /// Who asked. Nobody sees another's ids.
    pub principal: String,
    /// What the client called it.
    pub id: RequestId,
    /// What was asked for: the method and the resource.
    pub what: String,
}

/// The last requests that were done. Copies share what they have in common.
#[derive(Clone, Debug, Default)]
pub struct RequestTable {
    known: HashTrieMapSync<(String, RequestId), String>,
    by_age: QueueSync<(String, RequestId)>,
}

impl RequestTable {
    /// What was asked for under this id, if anything was.
    pub fn find(&self, principal: &str, id: &RequestId) -> Option<&str> {
        self.known.get(&(principal.to_owned(), id.clone())).map(String::as_str)
    }

    /// Takes a request in, and forgets the oldest beyond the number that is remembered.
    pub fn insert(&mut self, note: RequestNote) {
        let key = (note.principal, note.id);
        self.known.insert_mut(key.clone(), note.what);
        self.by_age.enqueue_mut(key);
        while self.by_age.len() > MAX_REMEMBERED {
            if let Some(oldest) = self.by_age.peek() {
                self.known.remove_mut(oldest);
            }
            self.by_age.dequeue_mut();
        }
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = RequestNote> + '_ {
        self.by_age.iter().filter_map(|key| {
            let (principal, id) = key.clone();
            Some(RequestNote { principal, id, what: self.known.get(key)?.clone() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_requests_are_known_and_the_oldest_forgotten() {
        let mut table = RequestTable::default();
        let note = |n: usize| RequestNote {
            principal: "operator:a".to_owned(),
            id: RequestId::parse(&n.to_string()).unwrap(),
            what: format!("what {n}"),
        };
        (0..=MAX_REMEMBERED).for_each(|n| table.insert(note(n)));
        let find = |n: usize| table.find("operator:a", &note(n).id).map(ToOwned::to_owned);
        assert_eq!((find(0), find(1)), (None, Some("what 1".to_owned())));
        assert_eq!(table.find("operator:b", &note(1).id), None);
        assert_eq!(table.iter().count(), MAX_REMEMBERED);
    }
}

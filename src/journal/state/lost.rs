//! The refreshes whose answers nobody knows: the upstream may have replaced the refresh token, and its successor is lost.

use serde::{Deserialize, Serialize};

use crate::journal::event::ChangeNote;
use crate::model::{Id, IdMap, Timestamp};

/// The actions after which nothing of a refresh token is lost: its successor was kept, the upstream has refused it, a test has
/// ended, or its connection is gone.
const SETTLING: [&str; 2] = ["refresh_token.", "connection.delete"];

/// A refresh whose answer nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostRefresh {
    /// The uid of the connection.
    pub uid: Id,
    /// The mint; `None` for a test of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mint: Option<Id>,
    /// When the mint was found to be lost, or the test began.
    pub time: Timestamp,
}

/// The last such refresh of each connection.
#[derive(Debug, Default)]
pub(crate) struct LostRefreshes {
    lost: IdMap<LostRefresh>,
    /// The connections that a batch settles when it is in force, each with the batch's number.
    settling: Vec<(u64, Id)>,
}

impl LostRefreshes {
    pub(super) fn start_from(lost: &[LostRefresh]) -> Self {
        let lost = lost.iter().map(|lost| (lost.uid, lost.clone())).collect();
        Self { lost, settling: Vec::new() }
    }

    /// The lost refresh of a connection.
    pub(crate) fn find(&self, connection: Id) -> Option<&LostRefresh> {
        self.lost.get(&connection)
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &LostRefresh> {
        self.lost.values()
    }

    /// Takes in that an answer is lost, or may be.
    pub(super) fn lose(&mut self, uid: Id, mint: Option<Id>, time: Timestamp) {
        self.lost.insert(uid, LostRefresh { uid, mint, time });
    }

    /// Takes in that the upstream has accepted the newest token.
    pub(super) fn settle(&mut self, connection: Id) {
        self.lost.remove(&connection);
    }

    /// Takes in a batch that is announced.
    pub(super) fn announce(&mut self, batch: u64, changes: &[ChangeNote]) {
        let is_settling =
            |note: &&ChangeNote| SETTLING.iter().any(|one| note.action.starts_with(one));
        let is_lost = |note: &&ChangeNote| self.lost.contains_key(&note.uid);
        let settling = changes.iter().filter(is_settling).filter(is_lost);
        self.settling.extend(settling.map(|note| (batch, note.uid)));
    }

    /// Takes in that all batches up to this are in force.
    pub(super) fn take_head(&mut self, head: u64) {
        for (batch, uid) in std::mem::take(&mut self.settling) {
            match batch <= head {
                true => self.settle(uid),
                false => self.settling.push((batch, uid)),
            }
        }
    }

    /// Takes in that a batch never reached the store.
    pub(super) fn abandon(&mut self, batch: u64) {
        self.settling.retain(|(other, _)| *other != batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: Id = Id::from_bytes([7; 16]);

    fn lost() -> LostRefreshes {
        let mut lost = LostRefreshes::default();
        lost.lose(CONNECTION, None, Timestamp::from_millis(1));
        lost
    }

    fn change(action: &str) -> Vec<ChangeNote> {
        vec![ChangeNote {
            principal: "broker".to_owned(),
            action: action.to_owned(),
            resource: String::new(),
            uid: CONNECTION,
            version: 1,
            fields: Vec::new(),
            settings: Vec::new(),
            access: None,
        }]
    }

    #[test]
    fn a_kept_successor_settles_a_refresh_once_it_is_in_force() {
        for (action, is_settled) in [
            ("refresh_token.keep", true),
            ("connection.delete", true),
            ("connection.update", false),
        ] {
            let mut lost = lost();
            lost.announce(3, &change(action));
            lost.take_head(2);
            assert!(lost.find(CONNECTION).is_some(), "{action}");
            lost.take_head(3);
            assert_eq!(lost.find(CONNECTION).is_none(), is_settled, "{action}");
        }
    }

    #[test]
    fn a_batch_that_never_reached_the_store_settles_nothing() {
        let mut lost = lost();
        lost.announce(3, &change("refresh_token.keep"));
        lost.abandon(3);
        lost.take_head(4);
        assert!(lost.find(CONNECTION).is_some());
    }
}

//! The credentials that one opening has for itself, and that nothing can end.
//!
//! A lease may end long before its credential. So the leases of an opening do not tell what outlives it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::journal::event::{EndedLine, MintedLine};
use crate::lease::MintedCredential;
use crate::model::{Id, IdMap, Timestamp};

/// A credential that its opening has for itself, and that nothing can end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outliving {
    /// The opening, which is open.
    pub opening: Id,
    /// The full name of the connection.
    pub resource: String,
    /// The credential.
    pub credential: Arc<MintedCredential>,
}

/// Those of open steps, by opening.
#[derive(Debug, Default)]
pub(super) struct OutlivingCredentials(IdMap<Vec<Outliving>>);

impl OutlivingCredentials {
    pub(super) fn start_from(outliving: &[Outliving]) -> Self {
        let mut all = Self::default();
        for one in outliving {
            all.0.entry(one.opening).or_default().push(one.clone());
        }
        all
    }

    /// Those of an opening that an upstream still accepts, oldest first.
    pub(super) fn of_opening(
        &self,
        opening: Id,
        now: Timestamp,
    ) -> impl Iterator<Item = &Outliving> {
        let of = self.0.get(&opening).into_iter().flatten();
        of.filter(move |one| now < one.credential.credential_expire_time)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Outliving> {
        self.0.values().flatten()
    }

    /// Takes in that a credential was made, and forgets those of the same opening that have expired.
    pub(super) fn take(&mut self, line: &MintedLine, time: Timestamp) {
        let (opening, credential) = (line.opening, Arc::clone(&line.credential));
        let of = self.0.entry(opening).or_default();
        of.retain(|one| time < one.credential.credential_expire_time);
        of.push(Outliving { opening, resource: line.resource.clone(), credential });
    }

    /// Takes in that a credential was told of.
    pub(super) fn tell(&mut self, line: &EndedLine) {
        if let Some(of) = self.0.get_mut(&line.opening) {
            of.retain(|one| one.credential.mint != line.mint);
        }
    }

    /// Takes in that an opening was closed.
    pub(super) fn close(&mut self, opening: Id) {
        self.0.remove(&opening);
    }
}

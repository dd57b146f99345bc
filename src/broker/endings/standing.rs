//! How the connection of a credential stands, and until when its ending is tried.

use std::time::Duration;

use crate::catalog::Catalog;
use crate::journal::{MintingLine, Owed, Standing};
use crate::model::{ResourceName, Timestamp};

/// The longest life of a credential: no mint counts as longer.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// How the connection of a mint stands now.
pub(super) fn standing(catalog: &Catalog, minting: &MintingLine) -> Standing {
    let found = match minting.resource.parse() {
        Ok(ResourceName::Connection(name)) => catalog.connection(&name),
        _ => None,
    };
    match found.map(|found| &found.metadata).filter(|found| found.uid == minting.uid) {
        None => Standing::Deleted,
        Some(found) if found.version == minting.version && !found.disabled => Standing::Same,
        Some(_) => Standing::Changed,
    }
}

/// When an ending that has begun at `begun` is given up, because its credential expires by itself. `None` if something stays
/// after that. A credential whose end is not known counts as the longest.
pub(super) fn last_try(owed: &Owed, begun: Timestamp) -> Option<Timestamp> {
    let known = owed.credential.as_ref().map(|made| made.credential_expire_time);
    let end = known.unwrap_or_else(|| begun.after(LONGEST_LIFE));
    owed.source().expires_whole().then_some(end)
}

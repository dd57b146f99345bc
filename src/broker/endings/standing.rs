//! How the connection of a credential stands, and until when its ending is tried.

use std::time::Duration;

use super::schedule::LastTry;
use crate::catalog::Catalog;
use crate::journal::{MintingLine, Owed, Standing};
use crate::model::{ResourceName, Timestamp};

/// The longest life that a credential counts as having.
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
/// after that. Without an end that the upstream has told, it is tried for a day after the end that counts and after `begun`:
/// the upstream may accept the credential for long, and be down for long.
pub(super) fn last_try(owed: &Owed, begun: Timestamp) -> Option<LastTry> {
    let made = owed.credential.as_ref();
    let last = match made.and_then(|made| made.told_end()) {
        Some(time) => LastTry { time, is_end_told: true },
        None => {
            let counts = made.map_or(begun, |made| made.credential_expire_time.max(begun));
            LastTry { time: counts.after(LONGEST_LIFE), is_end_told: false }
        }
    };
    (!owed.source().ends_by_name()).then_some(last)
}

//! A minted credential in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Values;
use crate::lease::MintedCredential;
use crate::model::{FieldName, Id, Timestamp};

/// How long before its end a credential is replaced, at the latest.
const BEFORE_THE_END: Duration = Duration::from_secs(5 * 60);

/// A minted credential, sealed.
pub(crate) struct Credential {
    /// Its mint, handle and end.
    pub(crate) minted: Arc<MintedCredential>,
    /// The values. The uid of the record is the mint's id, and its version is the connection's.
    pub(crate) values: Values,
    /// The names of the fields.
    pub(crate) names: BTreeSet<FieldName>,
    /// From then on, a use of it mints the next.
    pub(crate) refresh: Timestamp,
}

impl Credential {
    /// The first moment at which it counts as ended.
    pub(crate) fn end(&self) -> Timestamp {
        self.minted.credential_expire_time
    }
}

/// When a credential is replaced: at two thirds of its life or five minutes before its end, whichever is earlier, but
/// not in the first half of its life. Up to a tenth is taken off by the mint's id, so that credentials which are made
/// together are not replaced together.
pub(super) fn refresh_time(made: Timestamp, end: Timestamp, mint: Id) -> Timestamp {
    let life = end.since(made);
    let wanted = (life * 2 / 3).min(life.saturating_sub(BEFORE_THE_END)).max(life / 2);
    let share = u32::from(mint.as_bytes().last().copied().unwrap_or_default());
    made.after(wanted - wanted / 10 * share / 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refresh_after(life: u64, last_byte: u8) -> u64 {
        let mut bytes = [0; 16];
        bytes[15] = last_byte;
        let (made, mint) = (Timestamp::from_seconds(1_000), Id::from_bytes(bytes));
        let end = made.after(Duration::from_secs(life));
        refresh_time(made, end, mint).since(made).as_secs()
    }

    #[test]
    fn a_credential_is_replaced_at_two_thirds_or_before_its_end() {
        let cases = [(43_200, 28_800), (3600, 2400), (900, 600), (720, 420), (300, 150), (60, 30)];
        for (life, expected) in cases {
            assert_eq!(refresh_after(life, 0), expected, "{life}");
        }
        assert_eq!(refresh_after(0, 255), 0);
    }

    #[test]
    fn mints_of_one_moment_are_replaced_at_different_times() {
        assert_eq!(refresh_after(3600, 255), 2160);
        let middle = refresh_after(3600, 128);
        assert!((2160..2400).contains(&middle), "{middle}");
    }
}

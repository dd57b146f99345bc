//! When to ask an upstream again that has failed.

use std::time::Duration;

use crate::journal::MintFault;
use crate::mint::{Failure, FailureReason};
use crate::model::{Id, Timestamp};

/// The wait after the first failure; each further failure doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait that doubling leads to.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The wait after a refusal, and the longest that an upstream may ask for.
const REFUSED_WAIT: Duration = Duration::from_secs(5 * 60);

/// The failures since the last success.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    /// How many.
    failures: u32,
    /// The mint that failed last; `None` if it had not begun.
    pub(crate) mint: Option<Id>,
    /// Why it failed.
    pub(crate) reason: FailureReason,
    /// Why, as lines tell it.
    pub(crate) fault: MintFault,
    /// The first moment at which the upstream is asked again.
    pub(crate) until: Timestamp,
}

impl Trouble {
    /// The state after one more failure.
    pub(super) fn after(
        before: Option<&Self>,
        mint: Option<Id>,
        failure: &Failure,
        now: Timestamp,
    ) -> Self {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let doubled = FIRST_WAIT * 1_u32.wrapping_shl((failures - 1).min(6));
        let own = match failure.reason {
            FailureReason::EgressDenied
            | FailureReason::NoIssuer
            | FailureReason::Reauthorize
            | FailureReason::Refused => REFUSED_WAIT,
            FailureReason::Invalid
            | FailureReason::NotKept
            | FailureReason::TooManyEndings
            | FailureReason::Unavailable => doubled.min(LONGEST_WAIT),
        };
        let asked = failure.retry_after.unwrap_or_default().min(REFUSED_WAIT);
        let (reason, fault) = (failure.reason, fault_of(failure));
        Self { failures, mint, reason, fault, until: now.after(own.max(asked)) }
    }

    /// The first moment at which the failures no longer count.
    pub(super) fn forgotten(&self) -> Timestamp {
        self.until.after(LONGEST_WAIT)
    }
}

/// A failure as lines tell it.
pub(super) fn fault_of(failure: &Failure) -> MintFault {
    MintFault {
        reason: failure.reason.as_str().to_owned(),
        detail: failure.detail.clone(),
        upstream_request: failure.upstream_request.clone(),
        uncertain: failure.is_uncertain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINT: Option<Id> = Some(Id::from_bytes([7; 16]));
    const NOW: i64 = 1_000;

    fn failure(reason: FailureReason, retry_after: Option<u64>) -> Failure {
        let retry_after = retry_after.map(Duration::from_secs);
        Failure { retry_after, ..Failure::new(reason, "") }
    }

    fn wait(trouble: &Trouble) -> u64 {
        trouble.until.since(Timestamp::from_seconds(NOW)).as_secs()
    }

    #[test]
    fn waits_double_to_a_minute() {
        let now = Timestamp::from_seconds(NOW);
        let mut trouble = None;
        let waits = [1, 2, 4, 8, 16, 32, 60, 60, 60].map(|_| {
            let failure = failure(FailureReason::Unavailable, None);
            let after = Trouble::after(trouble.as_ref(), MINT, &failure, now);
            wait(trouble.insert(after))
        });
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn an_upstream_is_asked_when_it_wants_to_be() {
        let now = Timestamp::from_seconds(NOW);
        for (asked, expected) in [(0, 1), (30, 30), (100_000, 300)] {
            let failure = failure(FailureReason::Unavailable, Some(asked));
            assert_eq!(wait(&Trouble::after(None, MINT, &failure, now)), expected);
        }
        let refused = failure(FailureReason::Refused, Some(1));
        assert_eq!(wait(&Trouble::after(None, MINT, &refused, now)), 300);
    }
}

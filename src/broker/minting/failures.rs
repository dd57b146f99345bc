//! Failures of a mint that are not the upstream's.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

use crate::journal::TooManyEndings;
use crate::mint::{Failure, FailureReason};

/// The same, with a failure for a panic, which is a fault of ours: the mint ends, and is not repeated at once.
pub(super) async fn without_panic<T>(made: impl Future<Output = T>) -> Result<T, Failure> {
    let made = AssertUnwindSafe(made).catch_unwind().await;
    made.map_err(|_| {
        tracing::error!("a mint has panicked");
        uncertain("the broker failed meanwhile")
    })
}

/// A failure after which nobody knows whether the upstream has made the credential.
pub(super) fn uncertain(detail: &str) -> Failure {
    Failure { is_uncertain: true, ..Failure::new(FailureReason::Unavailable, detail) }
}

/// The failure if nothing more is made of a connection.
pub(in crate::broker) fn too_many_endings(why: TooManyEndings) -> Failure {
    let detail = format!("{why}, so nothing was sent; see why with keyhatch ending list");
    Failure::new(FailureReason::TooManyEndings, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mint_that_panics_has_failed() {
        let made = without_panic(async { panic!("a fault of ours") });
        let made: Option<Result<(), _>> = made.now_or_never();
        assert_eq!(made.unwrap().unwrap_err().reason.as_str(), "UPSTREAM_UNAVAILABLE");
    }
}

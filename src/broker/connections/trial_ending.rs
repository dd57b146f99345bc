//! The end of what a test has made.
//!
//! | what ends it | a crash leaves | so |
//! |---|---|---|
//! | its name | a role or the like, for ever | the journal knows the mint, and the store what ends it, before the upstream is asked |
//! | its own values | a credential that nobody has, until it expires | it is ended as soon as it is made |
//! | nothing | the same | nothing |

use std::sync::Arc;

use super::trial::{Failed, failed, not_kept};
use crate::broker::Broker;
use crate::broker::endings::Endings;
use crate::broker::endings::story::{EndingState, MintEnding};
use crate::broker::minting::too_many_endings;
use crate::integration::Source;
use crate::journal::{CommitError, Journal, Made, MintFault, MintingLine, Unavailable};
use crate::mint::{CredentialEnd, End, Failure, Minted};
use crate::model::{Clock, Fields, Id, Timestamp};
use crate::seal::{RecordKey, RecordKind};

/// A test's mint that is owed an ending, whatever happens. If this is dropped before the upstream has answered, the
/// credential counts as made.
pub(super) struct OwedTrial {
    journal: Arc<Journal>,
    endings: Arc<Endings>,
    clock: Clock,
    mint: Id,
    is_settled: bool,
}

impl Drop for OwedTrial {
    fn drop(&mut self) {
        if !self.is_settled {
            self.fail(fault("CANCELLED", "nobody waits for the test any more"), true);
        }
    }
}

impl OwedTrial {
    /// The upstream has not made the credential, or may have if `is_owed`.
    fn fail(&mut self, fault: MintFault, is_owed: bool) {
        self.is_settled = true;
        // Without the line, the next start writes one.
        let _ = self.journal.mint_failed(self.clock.now(), self.mint, fault, is_owed);
        // The worker begins later what cannot be begun now.
        let _ = self.endings.begin(&[self.mint]);
    }

    /// Takes in the upstream's failure.
    pub(super) fn failed(mut self, failure: &Failure) {
        let fault = MintFault {
            upstream_request: failure.upstream_request.clone(),
            uncertain: failure.is_uncertain,
            ..fault(failure.reason.as_str(), &failure.detail)
        };
        self.fail(fault, failure.is_uncertain);
    }

    /// Takes in what the upstream has made, and begins its ending. The store keeps what ends it.
    ///
    /// # Errors
    /// If the line cannot be written. The next start writes that it failed, and ends it.
    pub(super) fn made(mut self, made: &Minted, asked: Timestamp) -> Result<(), Unavailable> {
        self.is_settled = true;
        let end = made.end.unwrap_or_else(|| CredentialEnd::untold(asked));
        let made = Made {
            handle: made.handle.clone(),
            credential_expire_time: end.time,
            is_end_told: end.is_told,
            upstream_request: made.upstream_request.clone(),
            is_owed: true,
            is_own: true,
        };
        self.journal.minted(self.clock.now(), self.mint, made)?;
        // The worker begins later what cannot be begun now.
        let _ = self.endings.begin(&[self.mint]);
        Ok(())
    }
}

impl Broker {
    /// Begins the mint of a test whose name ends it: its line is written, and the store keeps `ending`.
    ///
    /// # Errors
    /// Why it cannot be kept. The upstream must not be asked then.
    pub(super) async fn begin_trial(
        &self,
        line: MintingLine,
        ending: Fields,
    ) -> Result<OwedTrial, Failed> {
        let (mint, resource, version) = (line.mint, line.resource.clone(), line.version);
        self.journal.begin_trial(self.now(), line).map_err(not_begun)?;
        self.keep_trial(mint, (resource, version), ending).await
    }

    /// Has the store keep what ends a mint that has begun, by the connection's full name and version.
    ///
    /// # Errors
    /// Why it cannot be kept. The mint counts as failed then.
    pub(super) async fn keep_trial(
        &self,
        mint: Id,
        (resource, version): (String, u64),
        ending: Fields,
    ) -> Result<OwedTrial, Failed> {
        let mut trial = OwedTrial {
            journal: Arc::clone(&self.journal),
            endings: Arc::clone(&self.endings),
            clock: self.clock.clone(),
            mint,
            is_settled: false,
        };
        let key = RecordKey { kind: RecordKind::Ending, uid: mint };
        match self.endings.keep(resource, (key, version), ending).await {
            Ok(()) => Ok(trial),
            Err(error) => {
                let why = error.to_string();
                trial.fail(fault("UPSTREAM_UNAVAILABLE", &why), false);
                Err(not_kept(&why))
            }
        }
    }

    /// Waits for the ending of a test's credential, and returns how far it is.
    pub(super) async fn trial_ending(&self, mint: Id) -> MintEnding {
        self.wait_for_endings(&[mint], None).await;
        let owed = self.journal.with_live(|live| live.mints().owed().find(mint).cloned());
        let begun = owed.ok().flatten().map(|owed| owed.begun);
        let (state, detail) = match begun {
            None => (EndingState::Ended, String::new()),
            Some(begun) => match begun.and_then(|begun| begun.left_disabled) {
                Some(why) => (EndingState::LeftDisabled, why),
                None => (EndingState::Pending, String::new()),
            },
        };
        MintEnding { state, time: self.now(), cause: None, detail }
    }

    /// Ends what only its own values can end, at once.
    pub(super) async fn end_trial(&self, source: Source, ending: Option<&Fields>) -> MintEnding {
        let (state, detail) = match ending {
            None => (EndingState::LeftToExpire, String::new()),
            Some(ending) => match self.endings.end_once(source, ending).await {
                Some(Ok(End::Ended)) => (EndingState::Ended, String::new()),
                Some(Ok(End::Disabled(why))) => (EndingState::LeftDisabled, why),
                Some(Err(failure)) => {
                    let text = format!("{}: {}", failure.reason.as_str(), failure.detail);
                    (EndingState::LeftToExpire, text)
                }
                None => (EndingState::LeftToExpire, "the broker stops".to_owned()),
            },
        };
        MintEnding { state, time: self.now(), cause: None, detail }
    }
}

/// The failure of a mint whose line is not written.
pub(super) fn not_begun(error: CommitError) -> Failed {
    match error {
        CommitError::TooManyEndings(why) => failed(too_many_endings(why)),
        error => not_kept(&error.to_string()),
    }
}

fn fault(reason: &str, detail: &str) -> MintFault {
    let (reason, detail) = (reason.to_owned(), detail.to_owned());
    MintFault { reason, detail, upstream_request: None, uncertain: false }
}

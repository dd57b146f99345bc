//! The counters of minted credentials, by the protocol of the upstream.

use std::time::Duration;

use super::endpoint::{Durations, OK};
use super::label_counters::LabelCounters;

/// The counters of all sources.
#[derive(Debug)]
pub struct MintMetrics(Vec<SourceMetrics>);

/// The counters of one source.
#[derive(Debug)]
pub(super) struct SourceMetrics {
    pub(super) name: &'static str,
    pub(super) mints: LabelCounters,
    pub(super) lookups: LabelCounters,
    pub(super) endings: LabelCounters,
    pub(super) durations: Durations,
}

/// What a decision on a minted connection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MintLookup {
    /// A credential that is made already.
    Hit,
    /// A mint that is under way.
    Joined,
    /// Neither: a mint begins.
    Missed,
    /// A failure that is not over.
    Negative,
}

impl MintLookup {
    const ALL: [Self; 4] = [Self::Hit, Self::Joined, Self::Missed, Self::Negative];

    fn name(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Joined => "JOINED",
            Self::Missed => "MISSED",
            Self::Negative => "NEGATIVE",
        }
    }
}

/// How an attempt to end a credential went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndingOutcome {
    /// The upstream has ended it.
    Ended,
    /// The upstream has not ended it, for this reason of the API; it is asked again.
    Failed(&'static str),
    /// It can no longer be used, but something of it stays.
    LeftDisabled,
    /// It has expired, or nothing can end it any more.
    LeftToExpire,
}

impl EndingOutcome {
    /// Those that are no failures.
    const ANSWERED: [Self; 3] = [Self::Ended, Self::LeftDisabled, Self::LeftToExpire];

    fn name(self) -> &'static str {
        match self {
            Self::Ended => "ENDED",
            Self::Failed(reason) => reason,
            Self::LeftDisabled => "LEFT_DISABLED",
            Self::LeftToExpire => "LEFT_TO_EXPIRE",
        }
    }
}

impl MintMetrics {
    /// For sources of these names.
    pub(super) fn new(sources: impl IntoIterator<Item = &'static str>) -> Self {
        Self(sources.into_iter().map(SourceMetrics::new).collect())
    }

    /// Counts a mint that has ended: made, or failed for a reason of the API. Unknown sources are not counted.
    pub fn end(&self, source: &str, failed: Option<&'static str>, took: Duration) {
        if let Some(found) = self.find(source) {
            found.mints.count(failed.unwrap_or(OK));
            found.durations.count(took);
        }
    }

    /// Counts a mint that did not begin, for this reason of the API. Unknown sources are not counted.
    pub fn refuse(&self, source: &str, reason: &'static str) {
        if let Some(found) = self.find(source) {
            found.mints.count(reason);
        }
    }

    /// Counts what a decision found. Unknown sources are not counted.
    pub fn look_up(&self, source: &str, found: MintLookup) {
        if let Some(of) = self.find(source) {
            of.lookups.count(found.name());
        }
    }

    /// Counts how an attempt to end a credential went out. Unknown sources are not counted.
    pub fn end_credential(&self, source: &str, outcome: EndingOutcome) {
        if let Some(of) = self.find(source) {
            of.endings.count(outcome.name());
        }
    }

    pub(super) fn sources(&self) -> &[SourceMetrics] {
        &self.0
    }

    fn find(&self, source: &str) -> Option<&SourceMetrics> {
        self.0.iter().find(|one| one.name == source)
    }
}

impl SourceMetrics {
    fn new(name: &'static str) -> Self {
        let [mints, lookups, endings] = [(); 3].map(|()| LabelCounters::default());
        mints.expect(&[OK]);
        lookups.expect(&MintLookup::ALL.map(MintLookup::name));
        endings.expect(&EndingOutcome::ANSWERED.map(EndingOutcome::name));
        Self { name, mints, lookups, endings, durations: Durations::default() }
    }
}

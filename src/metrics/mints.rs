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

    /// Counts what a decision found. Unknown sources are not counted.
    pub fn look_up(&self, source: &str, found: MintLookup) {
        if let Some(of) = self.find(source) {
            of.lookups.count(found.name());
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
        let (mints, lookups) = (LabelCounters::default(), LabelCounters::default());
        mints.expect(&[OK]);
        lookups.expect(&MintLookup::ALL.map(MintLookup::name));
        Self { name, mints, lookups, durations: Durations::default() }
    }
}

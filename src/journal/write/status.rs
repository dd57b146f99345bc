//! The status of the journal: its last line, and the lines that wait for the disk.

use std::time::Duration;

use crate::journal::{Journal, Unavailable};
use crate::model::Timestamp;

/// The status of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalStatus {
    /// The file of the last line.
    pub file: u64,
    /// The number of the last line.
    pub line: u64,
    /// How many lines are not known to be on disk.
    pub unsynced_lines: u64,
    /// The least time that the oldest of them has waited.
    pub unsynced_for: Duration,
}

impl JournalStatus {
    /// The last line, as "FILE.LINE".
    pub fn position(&self) -> String {
        format!("{}.{}", self.file, self.line)
    }
}

/// The newest signature that this daemon has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewestSignature {
    /// The last line that it covers, as "FILE.LINE".
    pub position: String,
    /// When it was made.
    pub time: Timestamp,
}

/// Since when lines wait for the disk. A sync may cover only some of them, and no time is kept for each line. So the
/// age is a lower bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsynced {
    /// A line that was the first to wait, and when it was written.
    first: (u64, Timestamp),
    /// When the last line was written.
    last: Timestamp,
}

impl Unsynced {
    /// No line waits.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { first: (0, now), last: now }
    }

    /// Notes that lines from `line` on are written, while lines up to `synced` are known to be on disk.
    pub(crate) fn wrote(&mut self, line: u64, synced: u64, now: Timestamp) {
        if self.first.0 <= synced {
            self.first = (line, now);
        }
        self.last = now;
    }

    fn age(&self, last: u64, synced: u64, now: Timestamp) -> Duration {
        match self.first {
            _ if last <= synced => Duration::ZERO,
            (line, time) if synced < line => now.since(time),
            _ => now.since(self.last),
        }
    }
}

impl Journal {
    /// The status of the journal.
    ///
    /// # Errors
    /// If the journal hangs.
    pub fn status(&self, now: Timestamp) -> Result<JournalStatus, Unavailable> {
        let chain = self.lock_unless_hanging()?;
        let (line, synced) = (chain.last().0, chain.synced().line());
        Ok(JournalStatus {
            file: chain.number(),
            line,
            unsynced_lines: line.saturating_sub(synced),
            unsynced_for: chain.unsynced().age(line, synced, now),
        })
    }

    /// The newest signature; `None` if this daemon has not signed yet.
    pub fn newest_signature(&self) -> Option<NewestSignature> {
        self.newest_signature.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn the_age_of_unsynced_lines_is_a_lower_bound() {
        let mut unsynced = Unsynced::new(at(0));
        let age =
            |unsynced: &Unsynced, last, synced, now| unsynced.age(last, synced, at(now)).as_secs();
        assert_eq!(age(&unsynced, 7, 7, 100), 0);
        unsynced.wrote(8, 7, at(100));
        unsynced.wrote(9, 7, at(110));
        assert_eq!(age(&unsynced, 9, 7, 115), 15);
        // The first line is on disk. The second was written at 110.
        assert_eq!(age(&unsynced, 9, 8, 115), 5);
        assert_eq!(age(&unsynced, 9, 9, 115), 0);
        unsynced.wrote(10, 9, at(120));
        unsynced.wrote(11, 9, at(130));
        assert_eq!(age(&unsynced, 11, 9, 131), 11);
    }
}

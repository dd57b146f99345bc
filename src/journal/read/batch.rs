//! One batch of a tail: the lines that were found, and how much was read.

use super::audience::Audience;
use super::tail_filter::TailLine;
use crate::model::Timestamp;

/// The most bytes that are read for one batch.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The most lines, and bytes of lines, in one batch; a single line may be longer.
const MAX_LINES: usize = 64;
const MAX_LINE_BYTES: usize = 256 * 1024;

/// One batch of lines.
pub(super) struct ReadBatch<'a> {
    /// How many bytes were read.
    pub(super) bytes: u64,
    /// How many of these bytes are of lines older than the filter asks for.
    pub(super) skipped: u64,
    most: u64,
    audience: Audience<'a>,
    pub(super) lines: Vec<TailLine>,
    line_bytes: usize,
}

impl<'a> ReadBatch<'a> {
    /// An empty batch that may read as many bytes as are `left`.
    pub(super) fn new(left: u64, is_cancelled: &'a dyn Fn() -> bool) -> Self {
        Self {
            bytes: 0,
            skipped: 0,
            most: MAX_BYTES.min(left),
            // The reader may have waited for long since the batch before.
            audience: Audience::of_long_ago(is_cancelled),
            lines: Vec::new(),
            line_bytes: 0,
        }
    }

    /// Counts bytes that were read.
    pub(super) fn read(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.audience.read(bytes);
    }

    /// Whether the batch is full, or the caller no longer waits.
    pub(super) fn is_full(&mut self) -> bool {
        self.audience.is_gone()
            || self.bytes >= self.most
            || self.lines.len() >= MAX_LINES
            || self.line_bytes >= MAX_LINE_BYTES
    }

    pub(super) fn push(&mut self, line: TailLine) {
        self.line_bytes += line.json.len();
        self.lines.push(line);
    }
}

/// The position of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinePosition {
    pub(super) file: u64,
    pub(super) offset: u64,
}

/// Where a reader has stopped after reading as many bytes as it may.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// The last line that was read, "FILE.LINE".
    pub id: String,
    /// When that line was written.
    pub time: Timestamp,
}

//! Log lines that could come without end are limited to some a second.

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// Limits how often a line is logged, and counts the lines that were suppressed.
pub struct LogLimit {
    per_second: u32,
    window: Mutex<Window>,
}

struct Window {
    since: Option<Instant>,
    logged: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Allows so many lines a second.
    pub const fn new(per_second: u32) -> Self {
        let window = Window { since: None, logged: 0, suppressed: 0 };
        Self { per_second, window: Mutex::new(window) }
    }

    /// How many lines were suppressed since the last that was allowed; `None` if this line is suppressed, too.
    pub fn allow(&self) -> Option<u64> {
        let mut window = self.window.lock();
        let now = Instant::now();
        if window.since.is_none_or(|since| now - since >= Duration::from_secs(1)) {
            (window.since, window.logged) = (Some(now), 0);
        }
        if window.logged < self.per_second {
            window.logged += 1;
            return Some(std::mem::take(&mut window.suppressed));
        }
        window.suppressed += 1;
        None
    }
}

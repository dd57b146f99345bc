//! A thing that could be said in the log without end is said so many times a second at most.

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// How often a thing was said, and how often it was not. One for each thing, or for all that strangers can cause.
pub struct Quiet {
    a_second: u32,
    said: Mutex<Said>,
}

struct Said {
    since: Option<Instant>,
    times: u32,
    unsaid: u64,
}

impl Quiet {
    /// It is said so many times a second at most.
    pub const fn new(a_second: u32) -> Self {
        let said = Said { since: None, times: 0, unsaid: 0 };
        Self { a_second, said: Mutex::new(said) }
    }

    /// Whether it may be said now, and how often it was not since the last time.
    pub fn next(&self) -> Option<u64> {
        let mut said = self.said.lock();
        let now = Instant::now();
        if said.since.is_none_or(|since| now - since >= Duration::from_secs(1)) {
            (said.since, said.times) = (Some(now), 0);
        }
        if said.times < self.a_second {
            said.times += 1;
            return Some(std::mem::take(&mut said.unsaid));
        }
        said.unsaid += 1;
        None
    }
}

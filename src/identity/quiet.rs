//! What strangers can have said in the log, as often as they like, is said ten times a second at most.

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

const A_SECOND: u32 = 10;

struct Said {
    since: Option<Instant>,
    times: u32,
    unsaid: u64,
}

static SAID: Mutex<Said> = Mutex::new(Said { since: None, times: 0, unsaid: 0 });

/// Whether something more may be said, and how much was not since the last time.
pub(super) fn next() -> Option<u64> {
    let mut said = SAID.lock();
    let now = Instant::now();
    if said.since.is_none_or(|since| now - since >= Duration::from_secs(1)) {
        (said.since, said.times) = (Some(now), 0);
    }
    if said.times < A_SECOND {
        said.times += 1;
        return Some(std::mem::take(&mut said.unsaid));
    }
    said.unsaid += 1;
    None
}

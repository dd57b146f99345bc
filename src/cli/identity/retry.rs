//! Retries while the broker is away. A broker restarts within a second.

use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;

/// The default time for retries.
pub const RETRY_TIME: Duration = Duration::from_secs(10);
/// The first pause between two attempts, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// A user at a terminal learns the reason for a longer wait.
const UNNOTICED: Duration = Duration::from_secs(1);

/// The time that is left for retries.
pub struct RetryDeadline {
    begin: Instant,
    end: Instant,
    pause: Duration,
    has_explained: bool,
    has_reconnected: bool,
}

impl RetryDeadline {
    /// Starts now.
    pub fn after(duration: Duration) -> Self {
        let begin = Instant::now();
        Self {
            begin,
            end: begin.checked_add(duration).unwrap_or(begin),
            pause: FIRST_PAUSE,
            has_explained: false,
            has_reconnected: false,
        }
    }

    /// Pauses before another attempt. Returns false at once if no time is left.
    pub async fn pause(&mut self) -> bool {
        let now = Instant::now();
        if now + self.pause >= self.end {
            return false;
        }
        if now - self.begin > UNNOTICED && !std::mem::replace(&mut self.has_explained, true) {
            let left = (self.end - now).as_secs();
            if std::io::stderr().is_terminal() {
                say(&format!("the broker is away; waiting for it for another {left} seconds"));
            }
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }

    /// Whether a request that failed so can be retried on another connection. Returns after the pause before it.
    pub async fn allows(&mut self, failure: &Failure) -> bool {
        match failure.reason.as_str() {
            // The connection was older than a renewed certificate.
            "SVID_INVALID" => !std::mem::replace(&mut self.has_reconnected, true),
            "UNREACHABLE" | "DRAINING" => self.pause().await,
            _ => false,
        }
    }
}
